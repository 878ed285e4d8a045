/*
 * A double of libibverbs and librdmacm, linked in their place: the rdma transport's own code runs
 * on a machine without RDMA, under the sanitizers, with both ends of its links in one process.
 *
 * What it has: two devices, double_a (10.7.0.1) and double_b (10.7.0.2), joined by a wire; of verbs
 * what transport/rdma calls and not a function more, so that a new call shows up as a link error.
 *
 * What it is for: being stricter than any device. Whatever breaks a rule of verbs, of rdma_cm or of
 * DESIGN.md ends the program with a text that names the rule (a fault), at the call that broke it.
 * And being worse than any device: it places bytes late, torn and out of order as far as verbs
 * allow, lets any call fail, cuts the wire, kills a peer.
 *
 * It stands beside the tests on real verbs (machine_test.c), never instead of them: it knows only
 * what its author knew.
 */
#ifndef RSI_RDMA_VERBS_DOUBLE_H
#define RSI_RDMA_VERBS_DOUBLE_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#define VERBS_DOUBLE_DEVICE_COUNT 2

enum verbs_double_pace {
    VERBS_DOUBLE_AT_ONCE,  /* work is done while it is posted: in order and whole */
    VERBS_DOUBLE_STEPPED,  /* some seeded steps at every poll: late, torn, out of order */
    VERBS_DOUBLE_THREADED, /* a thread makes such steps at its own pace, as a device does */
};

struct verbs_double_options {
    enum verbs_double_pace pace;
    uint64_t seed;
    uint32_t inline_bytes_max;   /* of a queue pair; more is refused at its creation */
    uint32_t message_bytes_max;  /* of the port */
    int completions_max;         /* of a completion queue */
    bool has_no_windows;         /* no memory windows of type 2 */
    bool allows_missing_receive; /* a message that finds no receive waits, and is no fault */
    uint64_t retry_ns;           /* from silence to RETRY_EXC */
};

/*
 * The usual: at once, seed 1, 512 bytes inline, 8 MiB, 32767 completions, windows, 300 ms. The
 * environment changes it: RINGSIDE_VERBS_DOUBLE="pace=threaded seed=7 inline=0 windows=0".
 */
void verbs_double_options_init(struct verbs_double_options *options);
/* A new world; nothing of an earlier one may be left. Without it the first call makes a usual one,
 * which is then checked at exit. */
void verbs_double_begin(const struct verbs_double_options *options);
/* Ends the world. What is left of the user's is a fault that counts it by kind. */
void verbs_double_end(void);

/* ---- faults --------------------------------------------------------------------------------- */

/* From here on faults are kept, not fatal (true), or fatal again (false). For the double's tests.
 */
void verbs_double_keep_faults(bool are_kept);
uint32_t verbs_double_fault_count(void);
/* The first one's text since they are kept; "" if there was none. */
const char *verbs_double_first_fault(void);

/* ---- calls that fail ------------------------------------------------------------------------ */

enum verbs_double_call_kind {
    VERBS_DOUBLE_MAKES = 1,   /* creates something */
    VERBS_DOUBLE_WORKS = 2,   /* changes or asks something */
    VERBS_DOUBLE_UNMAKES = 4, /* gives something back; what failed to go is no leak then */
    VERBS_DOUBLE_LOOKS = 8,   /* polls a queue or a channel */
};

/* The nth call from now (1: the next) of the given kinds fails, once. 0: none does. */
void verbs_double_fail_nth(uint64_t nth, unsigned kinds);
/* The nth call of this function fails with `reason`, once. */
void verbs_double_fail_named(const char *name, uint64_t nth, int reason);
/* The function that failed because of these; NULL: none yet. */
const char *verbs_double_failed_call(void);

/* ---- the wire ------------------------------------------------------------------------------- */

/* Nothing crosses between the two devices: no bytes, no completions, no events. */
void verbs_double_cut(bool is_cut);
/* The process that owns `qp` is gone: the queue pair answers nothing any more, its peer's id is
 * told that the connection ended. Its objects stay for their owner to give back. */
void verbs_double_kill(struct ibv_qp *qp);
/* Steps of the devices, in the pace STEPPED; returns how many there were to do. */
uint64_t verbs_double_step(uint64_t count_max);
/* Whether something is on its way that can come through. */
bool verbs_double_is_settled(void);
/* The device's time goes on by `ns` at once (time-outs of the wire, not the transport's). */
void verbs_double_advance(uint64_t ns);
/* An asynchronous event of a device. */
void verbs_double_raise(uint32_t device, enum ibv_event_type type);

/* ---- what was done -------------------------------------------------------------------------- */

struct verbs_double_counts {
    uint64_t work_requests; /* posted to send queues */
    uint64_t doorbells;     /* calls that posted them */
    uint64_t inline_bytes;
    uint64_t written_bytes;
    uint64_t receive_posts; /* calls */
    uint64_t completions;
    uint64_t missing_receives; /* messages that found no receive */
    uint64_t send_queue_most;  /* work requests in one send queue at once */
    uint64_t receive_queue_most;
    uint64_t completion_queue_most; /* completions in one queue at once */
    uint64_t live_objects;          /* of all kinds */
};

void verbs_double_count(struct verbs_double_counts *counts);

#endif
