/*
 * What the files of the rdma transport share. README.md draws how they belong together.
 *
 * Design notes
 * - Two threads per link, as transport.h says. The control thread makes and destroys everything
 *   that costs a system call; the owner thread posts and polls. Posting on a queue pair is the
 *   owner thread's alone from the moment the link is in its poller's table, so the counts of work
 *   requests need no lock.
 * - What crosses between the two threads is in struct rsi_rdma_crossing: one-way flags, each
 *   written by one side once, with release, and read by the other with acquire.
 * - Nothing here is reachable without authentication but the receive buffers of the control lane:
 *   the memory that a peer may write is registered in link_attach.
 * - A process that uses verbs must not fork afterwards: pinned pages and queue pairs do not
 *   survive copy on write. So nothing here prepares for it.
 */
#ifndef RSI_RDMA_INTERNAL_H
#define RSI_RDMA_INTERNAL_H

#include "core/arena.h"
#include "core/atomics.h"
#include "transport/rdma/batch.h"
#include "transport/registry.h"
#include "transport/transport.h"

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

/* ---- sizes ---------------------------------------------------------------------------------- */

/* Receives of one link. A batch takes one by its immediate, a record takes one by its bytes. */
#define RSI_RDMA_BATCH_CREDIT   64u
#define RSI_RDMA_CONTROL_CREDIT 32u
#define RSI_RDMA_RECEIVE_COUNT  (RSI_RDMA_BATCH_CREDIT + RSI_RDMA_CONTROL_CREDIT)

/* Work requests that the send queue of one link holds, and those kept free of batches: for words,
 * records, the window's bind and the marker. */
#define RSI_RDMA_SEND_COUNT   128u
#define RSI_RDMA_SEND_RESERVE 8u

/* A record and the buffer that holds it; buffers begin at cache lines. */
#define RSI_RDMA_RECORD_BYTES (RSI_RECORD_HEADER_BYTES + RSI_CONTROL_BYTES_MAX)
#define RSI_RDMA_BUFFER_BYTES 576u
#define RSI_RDMA_SEND_BUFFERS 32u
/* Receive buffers, send buffers, and one line for our own words where nothing goes inline. */
#define RSI_RDMA_BUFFERS_BYTES \
    ((RSI_RDMA_RECEIVE_COUNT + RSI_RDMA_SEND_BUFFERS) * RSI_RDMA_BUFFER_BYTES + 64u)

/* What we would like to send inline; the device says what it takes. A frame of 64 bytes fits. */
#define RSI_RDMA_INLINE_BYTES 256u

#define RSI_RDMA_DEVICE_COUNT_MAX 16u
/* Links per completion queue: small enough for every device's largest queue. */
#define RSI_RDMA_QUEUE_LINKS     64u
#define RSI_RDMA_QUEUE_COUNT_MAX 256u
#define RSI_RDMA_LINK_COUNT_MAX  (RSI_RDMA_QUEUE_LINKS * RSI_RDMA_QUEUE_COUNT_MAX / 2)
#define RSI_RDMA_PENDING_MAX     64u

/* 4.096 us * 2^15 = 134 ms until a packet is sent again, and 6 times that: a peer that is gone is
 * noticed in about 1 to 2 s. 7 would mean for ever on some devices. */
#define RSI_RDMA_ACK_TIMEOUT 15u
#define RSI_RDMA_RETRY_COUNT 6u
/* Here 7 does mean for ever, and is right: a peer that is stopped has not posted its receives. */
#define RSI_RDMA_RNR_RETRY_COUNT 7u
/* 10 us, the shortest but 0, which means 655 ms. */
#define RSI_RDMA_MIN_RNR_TIMER 1u

#define RSI_RDMA_CONNECT_TIMEOUT_NS UINT64_C(5000000000)
#define RSI_RDMA_CLOSE_NS           UINT64_C(1000000000) /* for what still lies in the outbox */
#define RSI_RDMA_DRAIN_NS           UINT64_C(5000000000) /* for flushed completions to come */
#define RSI_RDMA_WORDS_NS           UINT64_C(1000000)    /* until small news is told */
/* A link of which nothing completed for so long writes no bytes to its peer and waits for the
 * answer, which is the device's: the process may be stopped. With the retries a cut wire is noticed
 * after 2 to 6 s; a sleeping thread is woken once in that time. */
#define RSI_RDMA_PROBE_NS UINT64_C(2000000000)

/* ---- objects -------------------------------------------------------------------------------- */

/* What an rdma_cm id's context points to; the first member of those objects' embedded heads. */
enum rsi_rdma_context_kind {
    RSI_RDMA_CONTEXT_LISTENER = 1,
    RSI_RDMA_CONTEXT_PENDING, /* asked to connect, not accepted yet */
    RSI_RDMA_CONTEXT_LINK,
};

struct rsi_rdma_context {
    enum rsi_rdma_context_kind kind;
};

struct rsi_rdma_device {
    struct ibv_context *verbs; /* librdmacm's, never closed by us */
    struct ibv_pd *pd;
    struct ibv_device_attr attributes;
    bool has_windows; /* of type 2 */
    int node;
};

struct rsi_rdma_domain {
    struct rsi_domain base;
    struct rdma_event_channel *channel;
    int epoll_fd; /* the channel and the devices' asynchronous events */
    struct rsi_rdma_device devices[RSI_RDMA_DEVICE_COUNT_MAX];
    uint32_t device_count;
    uint64_t registered_bytes; /* what this process has pinned through here */
    char *device_name;         /* options.device, or NULL */
    char *bind_host;           /* options.bind_host, or NULL */
};

struct rsi_rdma_listener {
    struct rsi_listener base;
    struct rsi_rdma_context context;
    struct rdma_cm_id *id;
    struct rsi_rdma_pending *first; /* in the order in which they came */
    struct rsi_rdma_pending *last;
    uint32_t pending_count;
    char url[320];
};

struct rsi_rdma_pending {
    struct rsi_rdma_context context;
    struct rsi_rdma_pending *next;
    struct rdma_cm_id *id; /* NULL: it was refused already, see refusal */
    struct rsi_greeting greeting;
    struct rsi_error refusal; /* what link_accept says of it */
    bool is_gone;             /* it gave up, or its device went away */
};

/* A completion queue with its channel, shared by up to link_limit links of one device. */
struct rsi_rdma_queue {
    struct rsi_rdma_device *device;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    uint32_t link_limit;
    uint32_t link_count; /* control thread */

    /* Owner thread. */
    bool is_armed;
    uint32_t unacknowledged_count;
};

struct rsi_rdma_poller {
    struct rsi_poller base;
    int epoll_fd;        /* the channels of all queues */
    uint32_t link_count; /* control thread: places reserved in the table */
    /* Written by the control thread; a queue is complete before the count is released. */
    struct rsi_rdma_queue queues[RSI_RDMA_QUEUE_COUNT_MAX];
    _Atomic uint32_t queue_count;
    /* A slot is filled by the control thread and emptied by the owner thread; NULL: free. */
    _Atomic(struct rsi_rdma_link *) *slots;
    _Atomic uint32_t slot_limit; /* slots from here on were never used */
    RSI_SEPARATOR(before_owner);

    /* Owner thread. */
    struct rsi_rdma_link *touched; /* links with receives to post, chained by next_touched */
    uint64_t stale_count;          /* completions of links that were given up */
    int timer_fd;                  /* wakes the thread to look after silent links */
    uint64_t timer_due_ns;         /* 0: the timer is not set */
};

/* Memory registered with a device. A zeroed one is empty. */
struct rsi_rdma_region {
    struct ibv_mr *mr;
    struct ibv_mw *mw; /* NULL: the region's own key has the rights */
    uint64_t bytes;
};

/* Flags from one thread to the other. Each goes from false to true once. */
struct rsi_rdma_crossing {
    /* Control -> owner. */
    _Atomic bool is_attaching; /* rings and region are there: bind and tell the peer */
    _Atomic bool wants_close;  /* send what is in the outbox, then CLOSE */
    _Atomic bool is_ending;    /* post nothing more; failures from here on are our own doing */
    _Atomic bool is_halted;    /* the queue pair is in error: drain, then leave */
    /* Owner -> control. */
    _Atomic bool attach_sent;
    _Atomic bool peer_attached; /* link->peer_attach is complete */
    _Atomic bool close_sent;    /* the peer's device has our CLOSE */
    _Atomic bool peer_closed;   /* the peer's CLOSE came */
    _Atomic bool is_drained;    /* the owner thread never touches the link again on its own */
};

/* What the owner thread was asked by the peer, or asked the peer. */
struct rsi_rdma_wake {
    uint64_t arrived_at_least;
    uint64_t consumed_at_least;
    uint64_t generation;
    bool is_open; /* asked, not answered yet */
    bool is_due;  /* asked, but the record could not go out yet */
};

/* The owner thread's part of a link. */
struct rsi_rdma_data {
    struct ibv_qp *qp;
    struct rsi_rdma_way way;      /* set by the control thread before ATTACHED */
    struct rsi_words *peer_words; /* our page that the peer writes */
    uint64_t peer_words_address;  /* the peer's page that we write */
    uint64_t heard_ns;            /* when something completed last; 0: not looked at yet */
    bool peer_is_silent;          /* its device does not answer; written before the failure */
    uint64_t news_ns;             /* when there was something to tell first; 0: nothing */
    uint64_t told_consumed_pos;
    uint64_t told_batch_count;
    bool words_are_under_way; /* told, and the completion has not come yet */

    /* Send queue, running counts of work requests. */
    uint64_t posted_count;
    uint64_t completed_count;

    /* Batches. */
    uint64_t batch_sent_count;
    uint64_t batch_done_count;
    uint64_t batch_limit;       /* batches that the peer could take since the link began */
    uint64_t batch_taken_count; /* batches that we could take since the link began */
    uint64_t batch_ends[RSI_RDMA_SEND_COUNT];
    bool is_stalled; /* a flush waits for credit or room */

    /* Control lane. */
    struct rsi_rdma_credit credit;
    uint64_t record_sent_count;
    uint64_t record_done_count;
    uint16_t deferred[RSI_RDMA_RECEIVE_COUNT]; /* buffers of records not handed over */
    uint32_t deferred_head;
    uint32_t deferred_count;
    struct rsi_rdma_wake asked_by_peer;
    struct rsi_rdma_wake asked_by_us;

    /* Receives. */
    uint32_t receive_count; /* posted and not completed */
    struct ibv_recv_wr *repost_first;
    struct ibv_recv_wr *repost_last;
    uint32_t repost_count;
    struct rsi_rdma_link *next_touched;
    bool is_touched;

    bool bind_posted;
    bool is_bound;
    bool close_posted;
    bool marker_posted;
    bool marker_done;
    uint64_t halted_ns; /* when the owner thread saw is_halted */

    struct ibv_recv_wr receives[RSI_RDMA_RECEIVE_COUNT];
    struct ibv_sge receive_spans[RSI_RDMA_RECEIVE_COUNT];
};

struct rsi_rdma_link {
    struct rsi_link base;
    struct rsi_rdma_context context;

    /* Control thread; constant while the link is in its poller's table. */
    struct rdma_cm_id *id;
    struct rsi_rdma_device *device;
    struct rsi_rdma_queue *queue;
    uint32_t slot;
    uint32_t qp_number;
    uint32_t inline_bytes_max;
    uint8_t *receive_buffers;
    uint8_t *send_buffers;
    uint64_t *own_words; /* source of our words where nothing goes inline */

    /* Control thread. */
    struct rsi_arena buffers;
    struct rsi_rdma_region buffers_region;
    struct rsi_arena words_arena;     /* holds the words page where there is no in ring */
    struct rsi_rdma_region in_region; /* words page and in ring: what the peer may write */
    struct rsi_rdma_region out_region;
    struct rsi_link_rings rings;
    struct rsi_attach own_attach;
    bool is_dialled;
    bool is_listed;       /* in the poller's table until is_drained */
    bool is_established;  /* rdma_cm said so */
    bool is_disconnected; /* rdma_cm said so */
    bool has_complained;
    uint64_t deadline_ns;  /* of connecting, then of closing, then of draining */
    struct rsi_error loss; /* what becomes link->error once all that arrived is readable */
    bool is_losing;
    bool peer_hung_up; /* that is what it is losing for */

    /* Owner thread writes before peer_attached and before peer_closed is released. */
    struct rsi_attach peer_attach;
    char peer_reason[200]; /* why it closed; empty: it did not say */
    struct rsi_rdma_crossing crossing;

    struct rsi_rdma_data data;
};

static inline struct rsi_rdma_link *rsi_rdma_link_of(struct rsi_link *link)
{
    return (struct rsi_rdma_link *)link;
}

static inline struct rsi_rdma_poller *rsi_rdma_poller_of(struct rsi_poller *poller)
{
    return (struct rsi_rdma_poller *)poller;
}

static inline struct rsi_rdma_domain *rsi_rdma_domain_of(struct rsi_domain *domain)
{
    return (struct rsi_rdma_domain *)domain;
}

/* ---- control.c: domain, devices, pollers, listeners ----------------------------------------- */

/* The device of `verbs`, set up on first use. Errors: NO_DEVICE, LIMIT, SYSTEM. */
RSI_MUST_CHECK rsi_status_t rsi_rdma_device_find(struct rsi_rdma_device **device,
                                                 struct rsi_rdma_domain *domain,
                                                 struct ibv_context *verbs,
                                                 struct rsi_error *error);
uint64_t rsi_rdma_connect_timeout_ns(const struct rsi_domain *domain);
/* After it was taken out of its listener; its id stays. */
void rsi_rdma_pending_free(struct rsi_rdma_pending *pending);

/* ---- poller.c ------------------------------------------------------------------------------- */

rsi_status_t rsi_rdma_poller_create(struct rsi_poller **poller, struct rsi_domain *domain,
                                    const struct rsi_poller_options *options,
                                    struct rsi_error *error);
void rsi_rdma_poller_destroy(struct rsi_poller *poller);
/* A completion queue of `poller` on `device` with room for one more link. */
RSI_MUST_CHECK rsi_status_t rsi_rdma_queue_find(struct rsi_rdma_queue **queue,
                                                struct rsi_rdma_poller *poller,
                                                struct rsi_rdma_device *device,
                                                struct rsi_error *error);
/* A place in the poller's table for one link, from its creation until it is unmade. */
RSI_MUST_CHECK rsi_status_t rsi_rdma_slot_reserve(struct rsi_rdma_poller *poller,
                                                  struct rsi_error *error);
/* A free place, one of those reserved; stays free until a link is stored there. */
uint32_t rsi_rdma_slot_find(struct rsi_rdma_poller *poller);

/* ---- memory.c ------------------------------------------------------------------------------- */

/* Registers [start, start + bytes). MEMORY_LOCK names what was needed, the limit and the mend. */
RSI_MUST_CHECK rsi_status_t rsi_rdma_region_init(struct rsi_rdma_region *region,
                                                 struct rsi_rdma_link *link, const char *name,
                                                 void *start, uint64_t bytes, int access,
                                                 struct rsi_error *error);
/* Takes an empty one. The window goes first: a region does not go while a window is bound. */
void rsi_rdma_window_fini(struct rsi_rdma_region *region);
void rsi_rdma_region_fini(struct rsi_rdma_region *region, struct rsi_rdma_link *link);
/* Receive and send buffers of the control lane. */
RSI_MUST_CHECK rsi_status_t rsi_rdma_buffers_init(struct rsi_rdma_link *link,
                                                  struct rsi_error *error);
/* Makes rings, words page, registrations and the window; fills in link->own_attach. */
RSI_MUST_CHECK rsi_status_t rsi_rdma_rings_init(struct rsi_rdma_link *link,
                                                const struct rsi_link_rings *rings,
                                                struct rsi_error *error);
/* Gives back what a device knows of the link's memory, and what the link has of it. */
void rsi_rdma_regions_fini(struct rsi_rdma_link *link);
void rsi_rdma_memory_fini(struct rsi_rdma_link *link);
/* Writes "needed, limit, mend" for a registration that failed. Exposed for the test. */
uint64_t rsi_rdma_memory_lock_limit(void);
rsi_status_t rsi_rdma_memory_lock_fail(struct rsi_error *error, const char *name, uint64_t bytes,
                                       uint64_t registered_bytes, uint64_t limit_bytes,
                                       int errno_value);

/* ---- connect.c: the life of a link ---------------------------------------------------------- */

rsi_status_t rsi_rdma_link_accept(struct rsi_link **link, struct rsi_listener *listener,
                                  const struct rsi_poller_choice *choice, struct rsi_error *error);
rsi_status_t rsi_rdma_link_dial(struct rsi_link **link, struct rsi_poller *poller,
                                const struct rsi_url *url, struct rsi_error *error);
rsi_status_t rsi_rdma_link_attach(struct rsi_link *link, const struct rsi_link_rings *rings,
                                  struct rsi_error *error);
void rsi_rdma_link_poll_control(struct rsi_link *link, uint64_t now_ns);
void rsi_rdma_link_close(struct rsi_link *link);
void rsi_rdma_link_destroy(struct rsi_link *link);
/* An event of the link's id; `event` is not acknowledged yet. */
void rsi_rdma_link_on_event(struct rsi_rdma_link *link, const struct rdma_cm_event *event);
/* A greeting of this process, with the credit of this transport. */
void rsi_rdma_greeting_init(struct rsi_greeting *greeting, const struct rsi_domain *domain);

/* ---- lane.c: the control lane, owner thread ------------------------------------------------- */

/* A record came into receive buffer `index`. */
void rsi_rdma_lane_on_record(struct rsi_rdma_link *link, uint32_t index, uint32_t bytes);
/* Hands over what came and, if the link can send, sends what is due; returns how much it did. */
uint32_t rsi_rdma_lane_service(struct rsi_rdma_link *link, bool can_send);
/* Answers the peer's sleep if what it waits for is true. */
void rsi_rdma_lane_answer(struct rsi_rdma_link *link);
/* Asks the peer to wake us, unless that is asked already. */
void rsi_rdma_lane_ask(struct rsi_rdma_link *link, uint64_t arrived_at_least,
                       uint64_t consumed_at_least);

/* ---- datapath.c: owner thread --------------------------------------------------------------- */

void rsi_rdma_place(struct rsi_link *link, uint64_t bytes);
rsi_status_t rsi_rdma_flush(struct rsi_link *link);
void rsi_rdma_publish_consumed(struct rsi_link *link);
void rsi_rdma_request_wake(struct rsi_link *link, uint64_t in_arrived_at_least,
                           uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least);
uint32_t rsi_rdma_poll_data(struct rsi_poller *poller, uint64_t now_ns);
bool rsi_rdma_poller_arm(struct rsi_poller *poller);
void rsi_rdma_poller_disarm(struct rsi_poller *poller);

/* Posts the chained `requests` with one doorbell and counts them; false: the link failed. */
bool rsi_rdma_post(struct rsi_rdma_link *link, enum rsi_rdma_work kind,
                   struct ibv_send_wr *requests, uint32_t count);
/* Tells the peer our consumed position and batch credit, if that is news. False: it is news that
 * has to wait for a completion. */
bool rsi_rdma_tell_words(struct rsi_rdma_link *link);
/* The receive buffer `index` can take another message: it is posted by rsi_rdma_post_receives, all
 * that were collected with one call. */
void rsi_rdma_repost(struct rsi_rdma_link *link, uint32_t index);
void rsi_rdma_post_receives(struct rsi_rdma_link *link);
/* Free places of the send queue. */
static inline uint32_t rsi_rdma_send_room(const struct rsi_rdma_data *data)
{
    return RSI_RDMA_SEND_COUNT - (uint32_t)(data->posted_count - data->completed_count);
}

#endif
