/*
 * What the files of the tcp transport share.
 *
 *     control.c   domain, pollers, listeners, attach, closing                  control thread
 *     connect.c   dialling, accepting, greeting                                control thread
 *     datapath.c  the poller: which link has work, joining, leaving            owner thread
 *     send.c      what goes into the socket                                    owner thread
 *     receive.c   what comes out of it                                         owner thread
 *     zerocopy.c  which bytes the kernel still reads                           owner thread
 *
 * Design notes
 * - A socket has one user at a time. The control thread connects and greets; RSI_TCP_COMMAND_ADD
 *   hands it to the owner thread, which alone reads and writes it until it releases the link
 *   (crossing.released); from there on it is the control thread's again. The mailbox and the
 *   release store carry everything that the one wrote before to the other.
 * - The poller's list of links is changed by the owner thread alone, in poll_data.
 */
#ifndef RSI_TRANSPORT_TCP_INTERNAL_H
#define RSI_TRANSPORT_TCP_INTERNAL_H

#include "core/mailbox.h"
#include "proto/layout.h"
#include "transport/registry.h"
#include "transport/tcp/zerocopy.h"
#include "transport/transport.h"

#include <stdbool.h>
#include <stdint.h>

struct rsi_tcp_link;

/* ---- constants ------------------------------------------------------------------------------- */

#define RSI_TCP_CONNECT_TIMEOUT_NS UINT64_C(5000000000)
#define RSI_TCP_ZEROCOPY_BYTES_MIN UINT64_C(16384)
#define RSI_TCP_BACKLOG            128
#define RSI_TCP_LINK_COUNT_DEFAULT 1024u

/* How long link_close lets the outbox drain, and how long it then waits for the kernel to give back
 * bytes that it sends by reference. */
#define RSI_TCP_CLOSE_NS UINT64_C(1000000000)
#define RSI_TCP_DRAIN_NS UINT64_C(10000000000)

/* Is the peer's host there? Idle: keepalive. Bytes on their way: see check_alive() in datapath.c.
 */
#define RSI_TCP_KEEPALIVE_IDLE_S     5
#define RSI_TCP_KEEPALIVE_INTERVAL_S 2
#define RSI_TCP_KEEPALIVE_COUNT      3
#define RSI_TCP_ALIVE_INTERVAL_NS    UINT64_C(2000000000)
#define RSI_TCP_SILENCE_MS           10000u
#define RSI_TCP_SILENT_RETRANSMITS   2u
#define RSI_TCP_SILENT_PROBES        5u

/* A reader that nobody asks tells its positions at the latest this long after the last time, if it
 * is polled at all: so that what tools show of the writer is not old. */
#define RSI_TCP_REPORT_INTERVAL_NS UINT64_C(100000000)
/* It tells consumed positions on its own each time that this part of the ring was consumed. */
#define RSI_TCP_REPORTS_PER_RING 8u

/* Most bytes taken ahead of the record that is being received; see receive.c. */
#define RSI_TCP_AHEAD_BYTES_MAX 65536u
#define RSI_TCP_SPARE_BYTES     4096u
/* Receive calls for one link in one pass, so that one busy peer does not starve the others. */
#define RSI_TCP_RECEIVES_PER_PASS 8u

#define RSI_TCP_RECORD_BYTES_MAX (RSI_RECORD_HEADER_BYTES + RSI_CONTROL_BYTES_MAX)
#define RSI_TCP_GREETING_BYTES   (RSI_RECORD_HEADER_BYTES + RSI_GREETING_BYTES)
/* Small records of one sendmsg: the transport's own and at least three control messages. */
#define RSI_TCP_SMALL_BYTES 2048u

rsi_static_assert(RSI_TCP_SMALL_BYTES >= 3 * RSI_TCP_RECORD_BYTES_MAX + 256);
rsi_static_assert(RSI_TCP_SPARE_BYTES >= RSI_TCP_RECORD_BYTES_MAX);

/* ---- sending --------------------------------------------------------------------------------- */

/*
 * What the socket has to take before anything else may go: one batch (its header, its bytes in the
 * out ring), then small records. Composed when the one before is gone to its last byte.
 */
struct rsi_tcp_send {
    const uint8_t *header; /* rest of the batch's record header */
    uint32_t header_bytes;
    uint64_t ring_pos; /* rest of the batch: [ring_pos, ring_end_pos) of the out ring */
    uint64_t ring_end_pos;
    uint32_t small_begin; /* rest of the small records: [small_begin, small_end) of small */
    uint32_t small_end;
    bool by_reference; /* the batch goes with MSG_ZEROCOPY */
    bool is_blocked;   /* the socket is full; epoll tells when not */
    int failure;       /* errno of a send that failed: no send any more */
    struct rsi_record_header batch_header;
    _Alignas(8) uint8_t small[RSI_TCP_SMALL_BYTES];
};

/* Small records that are owed to the peer. */
struct rsi_tcp_owed {
    bool attach;
    bool wake_request;
    bool wake;
    bool close;
    bool close_is_sent;
};

/* ---- receiving ------------------------------------------------------------------------------- */

/*
 * Bytes received and not yet understood lie in this order: `carry` (the beginning of one record),
 * then the rest. The rest lies in the in ring's free space or in `spare`; see receive.c.
 */
struct rsi_tcp_receive {
    uint64_t
        received_pos; /* the ring holds the bytes below; arrived_pos follows at a batch's end */
    uint64_t batch_end_pos; /* above received_pos: in the middle of a batch */
    uint32_t carry_bytes;
    uint32_t rest_offset; /* from received_pos in the ring, or in `spare` */
    uint32_t rest_bytes;
    bool rest_in_ring;
    bool is_readable;  /* the socket may have bytes; epoll tells when again */
    bool must_see_end; /* epoll told of the end, and tells only once: read until it comes */
    bool has_ended;    /* the peer sent its end, or reading failed */
    _Alignas(8) uint8_t carry[RSI_TCP_RECORD_BYTES_MAX];
    uint8_t spare[RSI_TCP_SPARE_BYTES];
};

/*
 * Credit of the control lane, so that a lane that nobody empties holds up no data: at most as many
 * messages as the reader's greeting said are sent and not taken by its control thread. Running
 * counts.
 */
struct rsi_tcp_control {
    uint64_t sent_count;
    uint64_t peer_taken_count; /* told with its positions */
    uint64_t received_count;
    uint64_t reported_taken_count; /* told to the peer */
};

/* Taken and not told: from here on it is told without being asked. */
#define RSI_TCP_CONTROL_REPORT_COUNT (RSI_CONTROL_SLOT_COUNT / 4)

/* ---- objects --------------------------------------------------------------------------------- */

struct rsi_tcp_domain {
    struct rsi_domain base;
    int epoll_fd; /* listeners and connecting links */
    uint64_t connect_timeout_ns;
    uint64_t zerocopy_bytes_min;
    char bind_host[RSI_HOST_BYTES_MAX + 1]; /* empty: the route decides */
};

struct rsi_tcp_listener {
    struct rsi_listener base;
    int fd;
    int reserve_fd; /* given up for a moment to refuse a peer when no descriptor is left */
    char url[RSI_HOST_BYTES_MAX + 32];
};

enum rsi_tcp_command_kind {
    RSI_TCP_COMMAND_ADD,    /* the link's socket is the owner thread's from now on */
    RSI_TCP_COMMAND_ATTACH, /* rings are made: tell the peer */
    RSI_TCP_COMMAND_REMOVE, /* send what is left, then let go of the link */
};
#define RSI_TCP_COMMANDS_PER_LINK 3u

struct rsi_tcp_command {
    enum rsi_tcp_command_kind kind;
    struct rsi_tcp_link *link;
};

struct rsi_tcp_poller {
    struct rsi_poller base;
    /* Constant. */
    int epoll_fd;
    int timer_fd;
    struct rsi_mailbox commands; /* control thread -> owner thread */

    /* Control thread. */
    uint32_t claimed_count; /* links made for this poller and not CLOSED yet */

    /* Owner thread. */
    struct rsi_tcp_link **links;
    uint32_t link_count;
    uint32_t passes_since_arm;
    bool has_skipped_epoll; /* the epoll set may hold events that were served already */
    bool timer_is_set;
    uint64_t now_ns; /* of the pass that runs */
    uint64_t alive_check_ns;
};

enum rsi_tcp_greeting_step {
    RSI_TCP_CONNECT,        /* the kernel connects */
    RSI_TCP_AWAIT_GREETING, /* connected; the peer's greeting is not complete */
    RSI_TCP_GREETED,        /* handed to the owner thread, or over before that */
};

struct rsi_tcp_link {
    struct rsi_link base;

    /* Control thread; constant while the owner thread has the link. */
    int fd;
    bool is_dialled;
    bool is_claimed; /* counted in poller->claimed_count */
    bool is_handed_over;
    enum rsi_tcp_greeting_step step;
    struct rsi_poller_choice choice; /* accepted: until it is handed over */
    uint32_t greeting_bytes;         /* received */
    uint64_t connect_deadline_ns;
    uint64_t close_deadline_ns; /* written before REMOVE is pushed */
    uint64_t drain_deadline_ns; /* 0: nothing to drain */
    struct rsi_link_rings rings;
    int connect_errno;
    char url_text[RSI_HOST_BYTES_MAX + 32];
    _Alignas(8) uint8_t greeting[RSI_TCP_GREETING_BYTES];

    /* Owner thread from ADD until crossing.released. */
    RSI_SEPARATOR(before_owner);
    uint32_t index; /* in poller->links */
    bool has_rings;
    bool has_peer_attach;
    bool is_leaving;
    struct rsi_tcp_send send;
    struct rsi_tcp_owed owed;
    struct rsi_tcp_receive receive;
    struct rsi_tcp_control control;
    struct rsi_tcp_zerocopy *zerocopy; /* NULL: never; made by the control thread */
    uint64_t told_consumed_pos;        /* by the peer; shown as far as zero copy lets go */
    uint64_t reported_arrived_pos;     /* by us to the peer */
    uint64_t reported_consumed_pos;
    uint64_t reported_ns;
    struct rsi_attach peer_attach;
    struct rsi_wake_request wanted;    /* by the peer; generation 0: nothing is wanted */
    struct rsi_wake_request requested; /* by us, not answered; generation 0: nothing */
    uint64_t request_count;

    /* Owner thread -> control thread. */
    RSI_SEPARATOR(before_crossing);
    struct {
        _Atomic bool attached;
        _Atomic bool released;
    } crossing;
};

static inline struct rsi_tcp_link *rsi_tcp_link(struct rsi_link *link)
{
    return (struct rsi_tcp_link *)(void *)link;
}

static inline struct rsi_tcp_poller *rsi_tcp_poller(struct rsi_poller *poller)
{
    return (struct rsi_tcp_poller *)(void *)poller;
}

static inline struct rsi_tcp_domain *rsi_tcp_domain(struct rsi_domain *domain)
{
    return (struct rsi_tcp_domain *)(void *)domain;
}

/* ---- control.c ------------------------------------------------------------------------------- */

/* Control thread: cannot fail, there is room for every command of every link. */
void rsi_tcp_poller_push(struct rsi_tcp_link *link, enum rsi_tcp_command_kind kind);

/* ---- connect.c ------------------------------------------------------------------------------- */

rsi_status_t rsi_tcp_link_dial(struct rsi_link **link, struct rsi_poller *poller,
                               const struct rsi_url *url, struct rsi_error *error);
rsi_status_t rsi_tcp_link_accept(struct rsi_link **link, struct rsi_listener *listener,
                                 const struct rsi_poller_choice *choice, struct rsi_error *error);
/* The socket of a link in CONNECTING has something to tell. */
void rsi_tcp_connect_step(struct rsi_tcp_link *tcp);
/* The link has been CONNECTING for too long, or connecting failed at once. */
void rsi_tcp_connect_check(struct rsi_tcp_link *tcp, uint64_t now_ns);
/* Ends connecting; the peer sees the end at once. Takes a link that never had a socket. */
void rsi_tcp_connect_stop(struct rsi_tcp_link *tcp);
/* CLOSED: its place in the poller is another's. */
void rsi_tcp_link_unclaim(struct rsi_tcp_link *tcp);
/* In CLOSED, or never begun. */
void rsi_tcp_link_destroy(struct rsi_link *link);

/* ---- datapath.c ------------------------------------------------------------------------------ */

rsi_status_t rsi_tcp_flush(struct rsi_link *link);
void rsi_tcp_publish_consumed(struct rsi_link *link);
void rsi_tcp_request_wake(struct rsi_link *link, uint64_t in_arrived_at_least,
                          uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least);
uint32_t rsi_tcp_poll_data(struct rsi_poller *poller, uint64_t now_ns);
bool rsi_tcp_poller_arm(struct rsi_poller *poller);
void rsi_tcp_poller_disarm(struct rsi_poller *poller);
int rsi_tcp_poller_fd(struct rsi_poller *poller);

/* ---- send.c ---------------------------------------------------------------------------------- */

/*
 * Sends whatever there is to send, until nothing is left or the socket takes no more. OK: nothing
 * is left. WOULD_BLOCK: epoll tells when to go on. A failure of the socket is remembered in
 * send.failure, not told: what the peer sent before is read first.
 */
rsi_status_t rsi_tcp_send_all(struct rsi_tcp_link *tcp);
/* Whether rsi_tcp_send_all would send something now. */
bool rsi_tcp_wants_to_send(struct rsi_tcp_link *tcp);
/* Whether all that was composed is in the kernel. */
bool rsi_tcp_send_is_empty(const struct rsi_tcp_link *tcp);
/* Whether what the peer wants to be woken for has come true. */
bool rsi_tcp_wake_is_due(const struct rsi_tcp_link *tcp);
/* Control messages of the peer that the control thread has taken out of the inbox. */
uint64_t rsi_tcp_taken_count(struct rsi_tcp_link *tcp);
/* Whether positions or control credit have moved so far that the peer is told without being asked.
 */
bool rsi_tcp_report_is_due(struct rsi_tcp_link *tcp, uint64_t now_ns);

/* ---- receive.c ------------------------------------------------------------------------------- */

/* Reads and understands what there is, at most RSI_TCP_RECEIVES_PER_PASS calls. Returns how many
 * records and ends it handled. */
uint32_t rsi_tcp_receive_some(struct rsi_tcp_link *tcp);
/* Reads the error queue to its end: completions of zero-copy sends. Also used by the control thread
 * after the owner thread released the link. */
void rsi_tcp_receive_completions(struct rsi_tcp_link *tcp);
/* Shows what the peer told of its consumed position, as far as zero copy lets go. */
void rsi_tcp_show_consumed(struct rsi_tcp_link *tcp);
/* Both sides' rings are ready, or not: checks the peer's and tells the control thread. */
void rsi_tcp_try_attached(struct rsi_tcp_link *tcp);

#endif
