/*
 * The simulated wire: what two ends share. Internal to sim.
 *
 * Design notes
 * - This is a test transport: the wire is one object under one mutex, which the data plane of a
 * real transport would not be allowed. In exchange every interleaving is chosen by a seed.
 * - Time is counted in ticks: each poll of either end is one. Nothing depends on a clock but the
 * two deadlines that the seam promises (connect, close). Run in one thread, a seed repeats
 * everything.
 * - Lock order: poller, then wire. A wake is sent under the wire's lock, so that the peer's poller
 *   cannot go away meanwhile.
 * - A batch travels as pieces, in a queue in the order of positions. Each piece has a tick of its
 * own at which its bytes are copied from the sender's ring into the reader's, so a reader that
 * looks beyond arrived_pos sees torn bytes. arrived_pos follows the pieces that are done from the
 * front, from batch end to batch end.
 */
#ifndef RSI_TRANSPORT_SIM_WIRE_H
#define RSI_TRANSPORT_SIM_WIRE_H

#include "transport/transport.h"

#include <pthread.h>

#define SIM_PIECE_COUNT        64u
#define SIM_PIECES_PER_BATCH   4u
#define SIM_CONTROL_COUNT      16u
#define SIM_DELAY_TICKS_MAX    6u
#define SIM_STALL_ONE_IN       8u
#define SIM_LISTENER_BACKLOG   128u
#define SIM_CLOSE_NS           1000000000ull
#define SIM_CONNECT_DEFAULT_NS 5000000000ull

struct sim_piece {
    uint64_t start_pos;
    uint64_t end_pos;
    uint64_t due_tick;
    bool is_done;
    bool ends_batch;
};

struct sim_message {
    uint64_t due_tick;
    uint32_t bytes;
    uint8_t data[RSI_CONTROL_BYTES_MAX];
};

/* What one end sends, and what its reader did with it. */
struct sim_direction {
    struct sim_piece pieces[SIM_PIECE_COUNT];
    uint64_t piece_front; /* counts; the slot is the count modulo SIM_PIECE_COUNT */
    uint64_t piece_back;

    struct sim_message messages[SIM_CONTROL_COUNT];
    uint64_t message_front;
    uint64_t message_back;
    uint64_t message_due_tick; /* of the last one: the lane keeps its order */

    /* The reader's positions, and when the sender may see them. */
    uint64_t arrived_pos;
    uint64_t consumed_pos;
    uint64_t arrived_due_tick;
    uint64_t consumed_due_tick;

    bool has_ended; /* the sender closed: nothing follows */
    bool has_died;  /* it ended because its process did */
};

struct sim_end {
    struct sim_link *link;     /* NULL: not accepted yet, or gone */
    struct sim_poller *poller; /* as link */
    struct sim_domain *domain; /* as link; who is told of greeting and attach */
    struct rsi_greeting greeting;
    struct rsi_attach attach;
    bool has_greeting;
    bool has_attach;

    /* What this end sleeps for: the request of the layer above, and what an unfinished flush needs.
     */
    uint64_t wake_peer_arrived_at_least;
    uint64_t wake_peer_consumed_at_least;
    uint64_t flush_arrived_at_least;
    uint64_t stall_until_tick; /* flush takes nothing before */
    bool flush_is_owed;        /* a flush took nothing; poll_data goes on with it */
    bool inbox_is_blocked;     /* the inbox was full at the last try */
};

struct sim_wire {
    pthread_mutex_t lock;
    uint32_t reference_count; /* ends and a listener's backlog */
    uint64_t tick;
    uint64_t random;
    uint64_t cut_tick;   /* UINT64_MAX: never */
    uint32_t agent_hint; /* of the dialler's greeting; constant */
    struct sim_end ends[2];
    struct sim_direction directions[2]; /* of what ends[i] sends */
};

struct sim_link {
    struct rsi_link link; /* first */
    struct sim_wire *wire;
    uint32_t side; /* 0: dialled, 1: accepted */
    struct rsi_link_rings rings;
    uint64_t deadline_ns;   /* of CONNECTING, then of CLOSING */
    uint32_t connect_polls; /* that the greeting still takes */
    struct sim_link *next;  /* in the poller's list */
};

struct sim_poller {
    struct rsi_poller poller; /* first */
    uint64_t process;         /* rsi_sim_set_process */
    struct sim_poller *next;  /* in the list of all */
    pthread_mutex_t lock;     /* the list and every poll */
    struct rsi_waker waker;
    struct sim_link *links;
    uint32_t link_count;
};

struct sim_domain {
    struct rsi_domain domain; /* first */
    int event_fd;
};

struct sim_listener {
    struct rsi_listener listener; /* first */
    uint64_t process;
    char name[RSI_PATH_BYTES_MAX + 1];
    char url[RSI_PATH_BYTES_MAX + 8];
    struct sim_wire *backlog[SIM_LISTENER_BACKLOG]; /* [0] is the oldest */
    uint32_t backlog_count;
    uint64_t wire_count; /* ever made, for their seeds */
    struct sim_listener *next;
};

static inline struct sim_end *sim_own_end(struct sim_link *link)
{
    return &link->wire->ends[link->side];
}

static inline struct sim_end *sim_peer_end(struct sim_link *link)
{
    return &link->wire->ends[1 - link->side];
}

/* What this link sends / receives. */
static inline struct sim_direction *sim_sent(struct sim_link *link)
{
    return &link->wire->directions[link->side];
}

static inline struct sim_direction *sim_received(struct sim_link *link)
{
    return &link->wire->directions[1 - link->side];
}

static inline bool sim_is_cut(const struct sim_wire *wire)
{
    return wire->tick >= wire->cut_tick;
}

/* The next random number of the wire below `bound`. Under the wire's lock. */
uint64_t sim_random(struct sim_wire *wire, uint64_t bound);
/* A tick that is 0 to SIM_DELAY_TICKS_MAX ahead. */
uint64_t sim_due_tick(struct sim_wire *wire);
/* Wakes the other end's poller / tells its domain. Under the wire's lock. */
void sim_wake_end(struct sim_end *end);
void sim_tell_domain(struct sim_end *end);

/* process.c: who makes what, and the list of all pollers. */
uint64_t sim_process(void);
uint64_t sim_default_seed(void);
void sim_remember_poller(struct sim_poller *poller);
void sim_forget_poller(struct sim_poller *poller);
/* control.c: takes the listeners of a process off the list and refuses what waits there. */
void sim_kill_listeners(uint64_t process);

/* NULL: no memory. One reference. */
struct sim_wire *sim_wire_create(uint64_t seed);
void sim_wire_release(struct sim_wire *wire);

/* datapath.c; owner thread. */
rsi_status_t sim_flush(struct rsi_link *link);
void sim_publish_consumed(struct rsi_link *link);
void sim_request_wake(struct rsi_link *link, uint64_t in_arrived_at_least,
                      uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least);
uint32_t sim_poll_data(struct rsi_poller *poller, uint64_t now_ns);
bool sim_poller_arm(struct rsi_poller *poller);
void sim_poller_disarm(struct rsi_poller *poller);
int sim_poller_fd(struct rsi_poller *poller);

#endif
