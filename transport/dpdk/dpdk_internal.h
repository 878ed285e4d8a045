/*
 * What the files of the dpdk transport share.
 *
 *     control.c    domain, pollers, listeners, attach, closing                 control thread
 *     connect.c    dialling, accepting, cookies, greetings                     control thread
 *     datapath.c   a poller's pass, joining, leaving, sleeping; the seam       owner thread
 *     send.c       data, states, what is sent again                            owner thread
 *     receive.c    what a datagram says                                        owner thread
 *     lane.c       control messages, in order and without loss                 owner thread
 *     burst.c      frames on their way to the port                             owner thread
 *     station.h    the port, shared by all
 *
 * Design notes
 * - The control thread connects and greets; RSI_DPDK_COMMAND_ADD hands the link to its owner
 * thread, which alone knows its positions until it releases the link (crossing.released). The
 * mailbox and the release store carry everything that the one wrote before to the other. As in tcp.
 * - All timers run on the time that poll_data is given, so that tests can make it.
 */
#ifndef RSI_TRANSPORT_DPDK_INTERNAL_H
#define RSI_TRANSPORT_DPDK_INTERNAL_H

#include "transport/dpdk/gaps.h"
#include "transport/dpdk/path.h"
#include "transport/dpdk/station.h"
#include "transport/registry.h"
#include "transport/transport.h"

struct rsi_dpdk_link;
struct rsi_dpdk_listener;

/* ---- constants ------------------------------------------------------------------------------- */

#define RSI_DPDK_CONNECT_TIMEOUT_NS UINT64_C(5000000000)
#define RSI_DPDK_TRY_NS_FIRST       UINT64_C(2000000)
#define RSI_DPDK_TRY_NS_MAX         UINT64_C(200000000)
#define RSI_DPDK_LINK_COUNT_DEFAULT 1024u

/* How long link_close lets control messages drain; how often it asks for an answer to its CLOSE. */
#define RSI_DPDK_CLOSE_NS    UINT64_C(1000000000)
#define RSI_DPDK_CLOSE_TRIES 3u

/* Where devices wake nobody and both ends of a link sleep, an answer takes about two looks of the
 * watch thread and two wake-ups. An adaptive thread that polled for less would never see that
 * polling pays. */
#define RSI_DPDK_SPIN_NS UINT64_C(300000)

/* A peer that is not heard for so long is gone; an idle link is asked so often. */
#define RSI_DPDK_SILENCE_NS   UINT64_C(10000000000)
#define RSI_DPDK_KEEPALIVE_NS UINT64_C(2000000000)

/* A state at the latest after so many datagrams with data, or so long after the first of them. */
#define RSI_DPDK_STATE_DATAGRAMS    8u
#define RSI_DPDK_STATE_DELAY_NS_MAX UINT64_C(50000)
/* Consumed positions are told each time that this part of the ring was consumed, and after this
 * time at the latest if the reader is polled at all. */
#define RSI_DPDK_REPORTS_PER_RING   8u
#define RSI_DPDK_REPORT_INTERVAL_NS UINT64_C(100000000)

/* Credit in datagrams: this part of the port's receive ring is shared out among the links; the rest
 * is for states and the lane. */
#define RSI_DPDK_CREDIT_QUARTERS 3u
#define RSI_DPDK_CREDIT_MIN      16u
/* What may be sent before the peer has told a limit. */
#define RSI_DPDK_CREDIT_FIRST 16u

/* The MTU that is taken for granted; larger ones are probed. */
#define RSI_DPDK_MTU_SURE     1500u
#define RSI_DPDK_PROBE_TRIES  4u
#define RSI_DPDK_FRAMES_BURST 64u
/* A port that takes nothing (the cable is out) is tried again so often by a poller that sleeps. */
#define RSI_DPDK_STUCK_NS UINT64_C(1000000)
/* Received frames that one pass takes from the poller's queue. */
#define RSI_DPDK_FRAMES_PER_PASS 256u

/* ---- the lane -------------------------------------------------------------------------------- */

#define RSI_DPDK_LANE_WINDOW 16u /* records sent and not known to have come; a power of two */
#define RSI_DPDK_LANE_BYTES  (sizeof(struct rsi_datagram_lane) + RSI_CONTROL_BYTES_MAX)

struct rsi_dpdk_lane_slot {
    uint32_t bytes; /* head included, padded to 8 */
    _Alignas(8) uint8_t record[RSI_DPDK_LANE_BYTES];
};

struct rsi_dpdk_lane {
    /* Sending. Sequences; a record's slot is its sequence modulo the window. */
    uint64_t confirmed; /* the peer has those before */
    uint64_t sent;      /* those before were sent at least once */
    uint64_t composed;  /* those before have a slot */
    uint64_t control_count;
    uint64_t control_limit; /* the peer's */
    bool attach_is_owed;
    bool close_is_owed;
    bool close_is_composed;

    /* Receiving. */
    uint64_t received; /* those before came */
    uint64_t received_control_count;
    uint64_t reported_control_limit;

    struct rsi_dpdk_lane_slot slots[RSI_DPDK_LANE_WINDOW];
};

/* ---- sending --------------------------------------------------------------------------------- */

struct rsi_dpdk_send {
    uint64_t number;         /* of the last datagram */
    uint64_t sent_pos;       /* bytes before it were sent at least once */
    uint64_t confirmed_pos;  /* the peer has them */
    uint64_t number_limit;   /* the peer's */
    uint64_t telling_number; /* of the last state that told something that must not be lost */
    uint64_t told_number;    /* the peer has seen our states up to this one */
    uint64_t timeout_ns;     /* when to ask for an answer; 0: nothing is open */
    uint64_t sent_ns;        /* of the last datagram */
    bool is_limited;         /* the window held something back */
    bool state_is_owed;      /* and at once */
    bool reply_is_owed;      /* our next state asks for an answer */
    bool is_telling;         /* our next state tells something that must not be lost */
    uint64_t seen_number;    /* the peer's newest state, as our last state told it */
    uint32_t body_bytes_max; /* by the MTU */
    uint32_t probe_mtu;      /* 0: none is tried */
    uint32_t probe_count;
    uint64_t probe_due_ns;
    uint32_t resend_count;
    struct rsi_datagram_range resend[RSI_DATAGRAM_RANGE_COUNT_MAX];
};

/* ---- receiving ------------------------------------------------------------------------------- */

struct rsi_dpdk_receive {
    struct rsi_gaps gaps;
    uint64_t newest_number; /* of all datagrams */
    uint64_t state_number;  /* of the newest state */
    uint64_t heard_ns;
    uint64_t timestamp_at_ns; /* when the timestamp below came; 0: none */
    uint32_t timestamp_ns;
    uint32_t data_count;   /* datagrams with data since our last state */
    uint64_t state_due_ns; /* 0: nothing to tell */
    uint64_t reported_consumed_pos;
    uint64_t reported_arrived_pos;
    uint64_t reported_ns;
    bool has_ended; /* the peer closed, or broke the protocol: nothing of it counts any more */
};

/* Wishes to be woken; generation 0: none. */
struct rsi_dpdk_wake {
    struct rsi_wake_request wanted;    /* by the peer, not come true yet */
    struct rsi_wake_request requested; /* by us, not answered yet */
    uint32_t request_count;
    uint32_t wanted_generation; /* the newest that came */
    uint32_t answered_generation;
};

/* ---- objects --------------------------------------------------------------------------------- */

struct rsi_dpdk_domain {
    struct rsi_domain base;
    struct rsi_station *station;
    struct rsi_station_queue queue; /* handshakes */
    uint64_t connect_timeout_ns;
    bool has_begun;     /* its thread is known to the port */
    uint8_t secret[32]; /* of cookies */
    struct rsi_dpdk_link *links;
    struct rsi_dpdk_listener *listeners;
    uint32_t poller_count;
    uint64_t now_ns;     /* of the pass that runs */
    uint64_t wakes_seen; /* of the queue's waker */
};

/* A dialler whose cookie was good, and who waits for link_accept. */
struct rsi_dpdk_caller {
    struct rsi_packet_end end;
    uint32_t connection;
    uint32_t mtu;
    uint64_t nonce;
    struct rsi_greeting greeting;
};

#define RSI_DPDK_BACKLOG      64u
#define RSI_DPDK_MEMORY_COUNT 256u

struct rsi_dpdk_listener {
    struct rsi_listener base;
    struct rsi_dpdk_listener *next;
    uint16_t port;
    uint32_t caller_count;
    struct rsi_dpdk_caller callers[RSI_DPDK_BACKLOG]; /* [0] is the oldest */
    /* Nonces of those that were accepted lately: their OPEN may come once more. */
    uint64_t accepted[RSI_DPDK_MEMORY_COUNT];
    uint32_t accepted_count;
    char url[RSI_HOST_BYTES_MAX + 32];
};

enum rsi_dpdk_command_kind {
    RSI_DPDK_COMMAND_ADD,    /* the link is the owner thread's from now on */
    RSI_DPDK_COMMAND_ATTACH, /* rings are made: tell the peer */
    RSI_DPDK_COMMAND_REMOVE, /* send what is left, then let go of the link */
};
#define RSI_DPDK_COMMANDS_PER_LINK 3u

struct rsi_dpdk_command {
    enum rsi_dpdk_command_kind kind;
    struct rsi_dpdk_link *link;
};

/* Frames on their way to the port: [0, count) of `frames` are written. */
struct rsi_dpdk_burst {
    uint32_t count;
    uint32_t spare_count;
    bool is_stuck; /* in this pass the port took less than there was, or had no empty frame */
    struct rsi_port_frame frames[RSI_DPDK_FRAMES_BURST];
    struct rsi_port_frame spares[RSI_DPDK_FRAMES_BURST];
};

/* How a poller sleeps; see sleep.c. */
struct rsi_dpdk_sleep {
    int fd;            /* an epoll set: what wakes this thread */
    int timer_fd;      /* in it */
    int port_fd;       /* in it while this thread is the guard */
    bool is_guard;     /* sleeps for all: holds the station's guard */
    uint64_t timer_ns; /* when the timer goes off; 0: it is not set */
};

struct rsi_dpdk_poller {
    struct rsi_poller base;
    /* Constant. */
    struct rsi_station *station;
    struct rsi_mailbox commands; /* control thread -> owner thread */
    uint32_t transmit_queue;

    /* Control thread. */
    uint32_t claimed_count;

    RSI_SEPARATOR(before_owner);
    /* Owner thread. */
    struct rsi_dpdk_link **links;
    struct rsi_dpdk_link **links_by_index; /* by the index in our name of the connection */
    uint32_t link_count;
    bool has_begun;
    uint64_t now_ns; /* of the pass that runs, or of the last one */
    struct rsi_dpdk_sleep sleep;
    struct rsi_dpdk_burst burst;

    RSI_SEPARATOR(before_queue);
    struct rsi_station_queue queue;
};

enum rsi_dpdk_step {
    RSI_DPDK_RESOLVE, /* the next hop's MAC is not known */
    RSI_DPDK_HELLO,   /* waits for a cookie */
    RSI_DPDK_OPEN,    /* waits for ACCEPT */
    RSI_DPDK_CALLED,  /* accepted: its ACCEPT is not sent yet */
    RSI_DPDK_GREETED, /* handed to the owner thread, or over before that */
};

struct rsi_dpdk_link {
    struct rsi_link base;

    /* Control thread; constant while the owner thread has the link. */
    struct rsi_packet_end own_end;
    struct rsi_packet_end peer_end;
    uint32_t connection;      /* our name for it; 0: none yet, or none any more */
    uint32_t peer_connection; /* the peer's */
    uint32_t mtu;             /* that both take */
    uint64_t nonce;
    bool is_dialled;
    bool is_claimed; /* counted in poller->claimed_count */
    bool is_handed_over;
    enum rsi_dpdk_step step;
    uint64_t try_ns; /* when to send the step's datagram (again) */
    uint64_t try_interval_ns;
    uint64_t connect_deadline_ns;
    uint64_t close_deadline_ns; /* written before REMOVE is pushed */
    struct rsi_datagram_hello hello;
    struct rsi_link_rings rings;
    struct rsi_dpdk_link *next; /* in the domain's list */
    char url_text[RSI_HOST_BYTES_MAX + 32];

    /* Owner thread from ADD until crossing.released. */
    RSI_SEPARATOR(before_owner);
    uint32_t index; /* in poller->links */
    bool has_rings;
    bool has_peer_attach;
    bool is_leaving;
    uint32_t close_tries;
    struct rsi_path path;
    struct rsi_dpdk_send send;
    struct rsi_dpdk_receive receive;
    struct rsi_dpdk_wake wake;
    struct rsi_dpdk_lane lane;
    struct rsi_attach peer_attach;
    struct {
        uint64_t lost_bytes; /* that the peer asked for again */
        uint64_t spoilt;     /* datagrams with a wrong checksum */
        uint64_t duplicates; /* with nothing new in them */
    } counts;

    /* Owner thread -> control thread. */
    RSI_SEPARATOR(before_crossing);
    struct {
        _Atomic bool attached;
        _Atomic bool released;
    } crossing;
};

static inline struct rsi_dpdk_link *rsi_dpdk_link(struct rsi_link *link)
{
    return (struct rsi_dpdk_link *)(void *)link;
}

static inline struct rsi_dpdk_poller *rsi_dpdk_poller(struct rsi_poller *poller)
{
    return (struct rsi_dpdk_poller *)(void *)poller;
}

static inline struct rsi_dpdk_domain *rsi_dpdk_domain(struct rsi_domain *domain)
{
    return (struct rsi_dpdk_domain *)(void *)domain;
}

/* The time of the owner thread's pass. */
static inline uint64_t rsi_dpdk_now_ns(const struct rsi_dpdk_link *link)
{
    return ((const struct rsi_dpdk_poller *)(const void *)link->base.poller)->now_ns;
}

/* ---- control.c ------------------------------------------------------------------------------- */

/* Control thread: cannot fail, there is room for every command of every link. */
void rsi_dpdk_poller_push(struct rsi_dpdk_link *link, enum rsi_dpdk_command_kind kind);

/* ---- connect.c ------------------------------------------------------------------------------- */

rsi_status_t rsi_dpdk_link_dial(struct rsi_link **link, struct rsi_poller *poller,
                                const struct rsi_url *url, struct rsi_error *error);
rsi_status_t rsi_dpdk_link_accept(struct rsi_link **link, struct rsi_listener *listener,
                                  const struct rsi_poller_choice *choice, struct rsi_error *error);
/* A handshake's datagram for this domain. Its frame stays the caller's. */
void rsi_dpdk_take_handshake(struct rsi_dpdk_domain *domain, struct rsi_port_frame *frame);
/* The next step of a link in CONNECTING. */
void rsi_dpdk_connect_step(struct rsi_dpdk_link *link, uint64_t now_ns);
/* CONNECTING ends; the peer is told where that can be. */
void rsi_dpdk_connect_stop(struct rsi_dpdk_link *link);
/* Refuses all who wait. */
void rsi_dpdk_listener_refuse_all(struct rsi_dpdk_listener *listener);
/* CLOSED: its name and its place in the poller are free. */
void rsi_dpdk_link_unclaim(struct rsi_dpdk_link *link);
/* In CLOSED, or never begun. */
void rsi_dpdk_link_destroy(struct rsi_link *link);

/* ---- cookie.c -------------------------------------------------------------------------------- */

/* The cookie of a dialler for `cookie_time`; false: libcrypto has no HMAC-SHA256. */
bool rsi_dpdk_cookie_make(const struct rsi_dpdk_domain *domain, const struct rsi_packet *packet,
                          uint64_t nonce, uint32_t cookie_time, uint8_t cookie[16]);
/* Whether what came with OPEN is the cookie that this domain made for it a short time ago. */
bool rsi_dpdk_cookie_is_good(const struct rsi_dpdk_domain *domain, const struct rsi_packet *packet,
                             const struct rsi_datagram_hello *hello);
/* The time that goes into a cookie now. */
uint32_t rsi_dpdk_cookie_time(const struct rsi_dpdk_domain *domain);

/* ---- datapath.c ------------------------------------------------------------------------------ */

rsi_status_t rsi_dpdk_flush(struct rsi_link *link);
void rsi_dpdk_publish_consumed(struct rsi_link *link);
void rsi_dpdk_request_wake(struct rsi_link *link, uint64_t in_arrived_at_least,
                           uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least);
uint32_t rsi_dpdk_poll_data(struct rsi_poller *poller, uint64_t now_ns);
/* Of a link that leaves: the peer has all control messages, and CLOSE, or it does not answer any
 * more. */
bool rsi_dpdk_has_left(const struct rsi_dpdk_link *link);
/* Both sides' rings are ready, or not: checks the peer's and tells the control thread. */
void rsi_dpdk_try_attached(struct rsi_dpdk_link *link);

/* ---- sleep.c --------------------------------------------------------------------------------- */

/* Control thread. The queue is there before and after. fini: also after an init that failed. */
rsi_status_t rsi_dpdk_sleep_init(struct rsi_dpdk_poller *poller, struct rsi_error *error);
void rsi_dpdk_sleep_fini(struct rsi_dpdk_poller *poller);
bool rsi_dpdk_poller_arm(struct rsi_poller *poller);
void rsi_dpdk_poller_disarm(struct rsi_poller *poller);
int rsi_dpdk_poller_fd(struct rsi_poller *poller);

/* ---- burst.c --------------------------------------------------------------------------------- */

/* An empty frame at the end of the burst, for rsi_dpdk_emit; NULL: the port takes no more now. */
struct rsi_port_frame *rsi_dpdk_burst_frame(struct rsi_dpdk_poller *poller);
/* Gives what was written to the port; what is left needs no tail any more. Returns how many frames
 * are left. */
uint32_t rsi_dpdk_burst_flush(struct rsi_dpdk_poller *poller);
/* Gives all frames back. Control thread, when the owner thread has ended. */
void rsi_dpdk_burst_fini(struct rsi_dpdk_poller *poller);
/* The frame of rsi_dpdk_burst_frame, whose body is written, becomes the link's next datagram. */
void rsi_dpdk_emit(struct rsi_dpdk_link *link, struct rsi_port_frame *frame,
                   enum rsi_datagram_type type, uint32_t flags, uint32_t body_bytes);

/* ---- send.c ---------------------------------------------------------------------------------- */

/* Sends what there is to send: again, data, the lane, a state, as far as window, credit and port
 * allow. Returns how many datagrams. The burst is not flushed. */
uint32_t rsi_dpdk_send_all(struct rsi_dpdk_link *link);
/* Puts a state in front of a body; *flags gains what goes with it. Returns its bytes. */
uint32_t rsi_dpdk_write_state(struct rsi_dpdk_link *link, uint8_t *body, uint32_t *flags);
/* Ring bytes that flush emitted and that are not sent yet. */
static inline bool rsi_dpdk_has_data(const struct rsi_dpdk_link *link)
{
    return link->send.sent_pos != link->base.flushed_pos;
}
/* Whether a state is to be told now. */
bool rsi_dpdk_state_is_due(struct rsi_dpdk_link *link, uint64_t now_ns);
/* Something is open until the peer answers: the time-out runs. */
void rsi_dpdk_await_answer(struct rsi_dpdk_link *link);
/* The peer answered something: the time-out begins anew, or ends. */
void rsi_dpdk_hear_answer(struct rsi_dpdk_link *link);
/* Time-outs, keepalive, silence. */
void rsi_dpdk_run_timers(struct rsi_dpdk_link *link);
/* When rsi_dpdk_run_timers or a state will be due. */
uint64_t rsi_dpdk_due_ns(const struct rsi_dpdk_link *link);
/* The peer's MTU is known, or a probe came through. */
void rsi_dpdk_set_mtu(struct rsi_dpdk_link *link, uint32_t mtu);
/* The wish that the peer had has come true. */
bool rsi_dpdk_wake_is_due(const struct rsi_dpdk_link *link);

/* ---- receive.c ------------------------------------------------------------------------------- */

/* A datagram of this link. Its frame stays the caller's. */
void rsi_dpdk_take(struct rsi_dpdk_link *link, const struct rsi_packet *packet,
                   struct rsi_port_frame *frame);
/* The peer broke the protocol. Returns false. */
bool rsi_dpdk_violation(struct rsi_dpdk_link *link, const char *what, uint64_t told, uint64_t low,
                        uint64_t high) RSI_COLD;

/* ---- lane.c ---------------------------------------------------------------------------------- */

/* Takes what is owed and what the outbox holds into slots, and sends what was not sent. */
uint32_t rsi_dpdk_lane_send(struct rsi_dpdk_link *link);
bool rsi_dpdk_lane_wants_to_send(struct rsi_dpdk_link *link);
static inline bool rsi_dpdk_lane_is_open(const struct rsi_dpdk_lane *lane)
{
    return lane->confirmed != lane->sent;
}
/* Nothing came back: all that is open goes out once more. */
void rsi_dpdk_lane_rewind(struct rsi_dpdk_lane *lane);
/* The peer has `received` records and takes `control_limit` messages. False: it cannot be. */
bool rsi_dpdk_lane_confirm(struct rsi_dpdk_link *link, uint64_t received, uint64_t control_limit);
/* The body of a LANE. False: the link is over. */
bool rsi_dpdk_lane_take(struct rsi_dpdk_link *link, const uint8_t *body, uint32_t bytes);
/* Messages that may have been sent to us since the beginning, as we would tell it now. */
uint64_t rsi_dpdk_lane_control_limit(struct rsi_dpdk_link *link);
/* Whether the peer is told of new room without being asked. */
bool rsi_dpdk_lane_report_is_due(struct rsi_dpdk_link *link);

#endif
