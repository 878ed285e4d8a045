/*
 * What the files of the verbs double share.
 *
 * Design notes
 * - One lock over everything (world.lock). Every function of verbs and rdma_cm takes it in
 *   double_enter, which also counts the call and decides whether it fails. So a thread sanitizer
 *   sees more order between threads than a device gives; polling an empty queue takes no lock,
 * which keeps the most frequent of these orders out.
 * - Objects begin with the struct that verbs or rdma_cm show, and hang in a list of their kind.
 * - A queue pair's send queue is a ring of copies of the posted work. Counts run on and never wrap:
 *   retired <= acked <= heard <= launched <= posted. What lies between acked and retired is done,
 * but its completion was not polled, so its place is not free yet.
 */
#ifndef RSI_RDMA_VERBS_DOUBLE_INTERNAL_H
#define RSI_RDMA_VERBS_DOUBLE_INTERNAL_H

#include "core/compiler.h"
#include "transport/rdma/verbs_double.h"

#include <netinet/in.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stddef.h>
#include <sys/types.h>

#define DOUBLE_INLINE_BYTES_MAX  512u
#define DOUBLE_SEND_COUNT_MAX    16384u
#define DOUBLE_MESSAGE_WINDOW    16u /* work requests of one queue pair on the wire at once */
#define DOUBLE_PRIVATE_BYTES_MAX 196u

/* ---- objects --------------------------------------------------------------------------------- */

enum double_kind {
    DOUBLE_DEVICE_LIST,
    DOUBLE_PD,
    DOUBLE_REGION,
    DOUBLE_WINDOW,
    DOUBLE_CHANNEL,
    DOUBLE_CQ,
    DOUBLE_QP,
    DOUBLE_EVENT_CHANNEL,
    DOUBLE_ID,
    DOUBLE_EVENT, /* got and not acknowledged */
    DOUBLE_KIND_COUNT,
};

struct double_object {
    struct double_object *next;
    enum double_kind kind;
    uint64_t number; /* in order of creation */
    bool is_excused; /* the double itself refused to give it back */
    void *memory;    /* of the object, and what it owns beside: for the end of the world */
    void *owned[2];
};

struct double_device {
    struct ibv_device device;
    struct ibv_context context;
    struct in_addr address;
    enum ibv_event_type events[16];
    uint32_t event_count;
};

struct double_pd {
    struct ibv_pd base;
    struct double_object object;
};

struct double_region {
    struct ibv_mr base;
    struct double_object object;
    int access;
};

struct double_window {
    struct ibv_mw base;
    struct double_object object;
    struct double_qp *qp; /* bound to; NULL: not bound */
    struct double_region *region;
    uint64_t start;
    uint64_t bytes;
    uint32_t key;
    unsigned access;
};

struct double_channel {
    struct ibv_comp_channel base;
    struct double_object object;
    struct double_cq *events[64]; /* in the order in which they came */
    uint32_t event_count;
    uint32_t queue_count;
};

struct double_completion {
    struct ibv_wc wc;
    struct double_qp *qp; /* NULL: it was destroyed meanwhile */
    uint64_t retires;     /* the send queue is free up to here; of a receive: unused */
    bool is_receive;
};

struct double_cq {
    struct ibv_cq base;
    struct double_object object;
    struct double_completion *entries; /* base.cqe of them */
    uint64_t head;                     /* polled */
    _Atomic uint64_t tail;             /* produced; read without the lock to find nothing */
    _Atomic uint64_t polled;           /* as head */
    uint64_t promised_count;           /* what its queue pairs can produce at once */
    uint64_t unacknowledged_count;
    bool is_armed;
    _Atomic bool is_broken; /* it was overrun */
};

struct double_work {
    uint64_t id;
    enum ibv_wr_opcode opcode;
    unsigned flags;
    uint32_t immediate; /* or the key to invalidate */
    uint64_t remote_address;
    uint32_t remote_key;
    uint32_t local_key; /* 0: inline or nothing */
    const uint8_t *source;
    uint32_t bytes;
    uint32_t placed_bytes;
    uint8_t *target;           /* NULL: nothing to place (any more) */
    enum ibv_wc_status answer; /* of the peer; SUCCESS while it has no objection */
    struct double_window *window;
    struct double_region *region;
    uint64_t bind_start;
    uint64_t bind_bytes;
    unsigned bind_access;
    uint8_t inline_data[DOUBLE_INLINE_BYTES_MAX];
};

struct double_receive {
    uint64_t id;
    uint8_t *target;
    uint32_t bytes_max;
    uint32_t local_key;
};

struct double_qp {
    struct ibv_qp base;
    struct double_object object;
    struct ibv_qp_cap cap;
    struct double_id *id;
    struct double_qp *peer; /* NULL: not connected, or the peer's is destroyed */
    uint8_t min_rnr_timer;
    uint8_t retry_count;
    uint8_t rnr_retry_count;
    bool is_dead; /* its process was killed */

    struct double_work *works;
    uint64_t posted;
    uint64_t launched;
    uint64_t heard;
    uint64_t acked;
    uint64_t retired;
    uint64_t silent_since_ns;    /* when the peer should have answered first; 0: it does */
    uint64_t not_ready_until_ns; /* 0: the peer had a receive */
    uint32_t not_ready_count;

    struct double_receive *receives;
    uint64_t receive_posted;
    uint64_t receive_taken; /* claimed by a message on the wire */
    uint64_t receive_done;  /* completed */
    uint64_t receive_retired;
};

enum double_id_state {
    DOUBLE_ID_IDLE,
    DOUBLE_ID_BOUND,
    DOUBLE_ID_ADDRESS_RESOLVED,
    DOUBLE_ID_ROUTE_RESOLVED,
    DOUBLE_ID_LISTENING,
    DOUBLE_ID_CONNECTING,  /* asked, not answered */
    DOUBLE_ID_REQUESTED,   /* was asked, did not answer */
    DOUBLE_ID_ACCEPTED,    /* answered yes, not established */
    DOUBLE_ID_ESTABLISHED, /* both know */
    DOUBLE_ID_OVER,        /* rejected, disconnected or never answered */
};

struct double_id {
    struct rdma_cm_id base;
    struct double_object object;
    enum double_id_state state;
    uint8_t ack_timeout;
    bool has_disconnected; /* rdma_disconnect was called */
    bool is_peer_gone;     /* DISCONNECTED was told */
    struct double_id *peer;
    uint64_t connect_deadline_ns; /* CONNECTING over a cut wire gives up then */
    uint8_t retry_count;
    uint8_t rnr_retry_count;
    uint32_t unacknowledged_count;
    uint16_t port; /* bound; host byte order */
};

struct double_event {
    struct rdma_cm_event base;
    struct double_object object;
    struct double_event *next;
    uint8_t private_data[DOUBLE_PRIVATE_BYTES_MAX];
};

struct double_event_channel {
    struct rdma_event_channel base;
    struct double_object object;
    struct double_event *first;
    struct double_event *last;
    _Atomic uint32_t event_count; /* read without the lock to find nothing */
};

/* ---- the world ------------------------------------------------------------------------------- */

struct double_world {
    pthread_mutex_t lock;
    pthread_cond_t news; /* for the device thread */
    pthread_t thread;
    bool has_thread;
    bool must_stop;
    bool is_begun;
    pid_t pid;
    struct verbs_double_options options;
    uint64_t random;
    uint64_t skew_ns;
    bool is_cut;
    uint64_t next_number;
    uint32_t next_key;
    uint32_t next_qp_number;
    uint16_t next_port;
    struct double_device devices[VERBS_DOUBLE_DEVICE_COUNT];
    struct double_object *objects[DOUBLE_KIND_COUNT];
    struct verbs_double_counts counts;
    _Atomic bool awaits_time; /* something waits for time to pass: as of the last steps */
};

extern struct double_world double_world;

/* ---- verbs_double_world.c -------------------------------------------------------------------- */

/* Takes the lock; counts the call. False: it has to fail, errno says why; the lock is not held. */
bool double_enter(const char *name, enum verbs_double_call_kind kind);
void double_leave(void);
/* A rule was broken. Ends the program, or keeps the text. */
void double_fault(const char *format, ...) RSI_PRINTF(1, 2);
/* errno is `reason`, and the lock is given back; returns -1, for `return double_refuse(EINVAL);` */
int double_refuse(int reason);
uint64_t double_now_ns(void);
uint64_t double_random(uint64_t bound);
void double_add(struct double_object *object, enum double_kind kind, void *memory);
/* Out of its list, and all its memory is free. */
void double_remove(struct double_object *object);
/* The call that has just failed would have given this back. */
void double_excuse(struct double_object *object);
/* Whether something could not be given back because the double refused. */
bool double_has_excused(void);
void *double_alloc(size_t bytes);
uint32_t double_new_key(void);
/* A descriptor that is readable while it was rung more often than taken. */
int double_bell_create(void);
void double_bell_ring(int fd);
void double_bell_take(int fd);
/* Nothing waits at `fd`: errno is EAGAIN; a descriptor that blocks is a fault. Returns -1. */
int double_bell_is_silent(int fd, const char *name);
struct double_device *double_device_of(struct ibv_context *context);
struct double_device *double_device_at(const struct sockaddr *address);

#define double_of(type, at) rsi_container_of((at), type, object)
/* NOLINTBEGIN(bugprone-macro-parentheses): `at` is what is declared */
#define DOUBLE_EACH(at, kind) \
    for (struct double_object *at = double_world.objects[kind]; (at) != NULL; (at) = (at)->next)
/* NOLINTEND(bugprone-macro-parentheses) */

/* ---- verbs_double_memory.c ------------------------------------------------------------------- */

void double_memory_fill(struct ibv_context_ops *ops);
struct double_region *double_region_by_key(uint32_t local_key);
/* Where a write of `bytes` through `key` on `qp` goes; NULL: it may not. */
uint8_t *double_writable(const struct double_qp *qp, uint32_t key, uint64_t address, uint64_t bytes,
                         unsigned access);
/* The peer of `qp` invalidates `key`; false: it may not. */
bool double_invalidate(struct double_qp *qp, uint32_t key);
/* The bind of `work`; SUCCESS or why not. */
enum ibv_wc_status double_bind(struct double_qp *qp, struct double_work *work);
uint32_t double_bound_windows(const struct double_qp *qp);

/* ---- verbs_double_queue.c -------------------------------------------------------------------- */

void double_queue_fill(struct ibv_context_ops *ops);
struct ibv_qp *double_qp_create(struct double_id *id, struct ibv_pd *pd,
                                struct ibv_qp_init_attr *wish);
/* 0, or the reason. */
int double_qp_destroy(struct double_qp *qp);
/* Flushes both queues; from any state. */
void double_qp_break(struct double_qp *qp);
void double_complete(struct double_cq *cq, struct double_qp *qp, const struct ibv_wc *wc,
                     bool is_receive, uint64_t retires);

/* ---- verbs_double_wire.c --------------------------------------------------------------------- */

/* Makes up to count_max steps; returns how many. */
uint64_t double_steps(uint64_t count_max);
/* As much as the pace asks for: after a post, before a poll, and before everybody may sleep. */
void double_after_post(void);
void double_before_poll(void);
void double_settle(void);
/* Whether a poll has to take the lock although its queue is empty. Without the lock. */
bool double_polls_make_steps(void);
/* Whether something waits for time to pass. */
bool double_awaits_time(void);
/* Nothing is written through `qp` any more: it was drained, or it goes. */
void double_qp_quiet(struct double_qp *qp);

/* ---- verbs_double_cm.c ----------------------------------------------------------------------- */

/* The wire is mended: what is repeated until it arrives does so. */
void double_tell_delayed(void);
/* Connects over a cut wire that nobody answers any more. */
void double_expire_connects(void);
bool double_has_connects(void);
/* The process behind `id` was killed. */
void double_tell_killed(struct double_id *id);

#endif
