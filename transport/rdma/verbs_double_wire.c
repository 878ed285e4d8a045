/*
 * The double's wire: what happens to work between its posting and its completions.
 *
 * Design notes
 * - The life of one request: launched (the peer's device looks at it: key, bounds, receive), placed
 *   piece by piece, heard (the peer's completion, if it has one), acknowledged (the sender's, if it
 *   asked). Launching, hearing and acknowledging go in order; the pieces of all that is launched do
 *   not: order between two requests is promised by completions only.
 * - A piece is written from its low end, in words where that is possible, by relaxed atomic stores:
 *   words that a peer polls may be seen half new, and a plain reader that does not wait for the
 *   completion is a race that the thread sanitizer sees.
 * - A queue pair in error stops launching and hearing, but what was launched towards it is still
 *   placed until it was drained: modifying to error is no barrier.
 * - In the pace STEPPED nobody makes steps while everybody sleeps. So as long as a completion queue
 *   is armed, what is posted is done at once.
 * - A peer that is silent (wire cut, killed, in error) costs RETRY_EXC after retry_ns. While
 * nothing is posted nothing is noticed.
 */
#include "transport/rdma/verbs_double_internal.h"

#include "core/atomics.h"

#include <string.h>

#define STEPS_PER_POLL 6
#define SMALL_BYTES    64u /* requests of up to this size are torn most finely */

static struct double_work *work_at(const struct double_qp *qp, uint64_t count)
{
    return &qp->works[count % qp->cap.max_send_wr];
}

/* Whether the two devices' memory and queues can be reached from `qp`. */
static bool is_reachable(const struct double_qp *qp)
{
    return qp->peer != NULL && !double_world.is_cut && !qp->is_dead && !qp->peer->is_dead;
}

static bool is_answered(const struct double_qp *qp)
{
    return is_reachable(qp) && qp->peer->base.state == IBV_QPS_RTS;
}

static bool takes_receive(const struct double_work *work)
{
    return work->opcode == IBV_WR_SEND || work->opcode == IBV_WR_SEND_WITH_INV ||
           work->opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}

static bool is_send(const struct double_work *work)
{
    return work->opcode == IBV_WR_SEND || work->opcode == IBV_WR_SEND_WITH_INV;
}

/* ---- failing -------------------------------------------------------------------------------- */

/* The oldest request fails; the queue pair breaks. */
static void fail_front(struct double_qp *qp, enum ibv_wc_status status)
{
    struct double_work *work = work_at(qp, qp->acked);
    struct ibv_wc wc = {.wr_id = work->id, .status = status};
    work->local_key = 0;
    work->window = NULL;
    qp->acked++;
    double_complete((struct double_cq *)qp->base.send_cq, qp, &wc, false, qp->acked);
    qp->silent_since_ns = 0;
    qp->not_ready_until_ns = 0;
    double_qp_break(qp);
}

/* Nobody answers: true when that has gone on for too long. */
static bool step_silence(struct double_qp *qp)
{
    if (is_answered(qp) || work_at(qp, qp->acked)->opcode == IBV_WR_BIND_MW || qp->is_dead) {
        qp->silent_since_ns = 0;
        return false;
    }
    uint64_t now_ns = double_now_ns();
    if (qp->silent_since_ns == 0) {
        qp->silent_since_ns = now_ns;
    }
    if (now_ns - qp->silent_since_ns < double_world.options.retry_ns) {
        rsi_store_relaxed(&double_world.awaits_time, true);
        return false;
    }
    fail_front(qp, IBV_WC_RETRY_EXC_ERR);
    return true;
}

/* ---- launching ------------------------------------------------------------------------------ */

static uint64_t rnr_timer_ns(uint8_t timer)
{
    static const uint64_t us[] = {655360, 10, 20, 30, 40, 60, 80, 120, 160, 240, 320};
    return (timer < rsi_array_count(us) ? us[timer] : 10000) * 1000;
}

/* The peer has no receive for the next request: it is tried again later, or never. */
static bool step_not_ready(struct double_qp *qp)
{
    uint64_t now_ns = double_now_ns();
    if (qp->not_ready_until_ns == 0) {
        double_world.counts.missing_receives++;
        if (!double_world.options.allows_missing_receive) {
            double_fault("a message for queue pair %u finds no receive", qp->peer->base.qp_num);
        }
    }
    rsi_store_relaxed(&double_world.awaits_time, true);
    if (now_ns < qp->not_ready_until_ns) {
        return false;
    }
    if (qp->rnr_retry_count < 7 && qp->not_ready_count++ > qp->rnr_retry_count &&
        qp->acked == qp->launched) {
        fail_front(qp, IBV_WC_RNR_RETRY_EXC_ERR);
        return true;
    }
    qp->not_ready_until_ns = now_ns + rnr_timer_ns(qp->peer->min_rnr_timer);
    return false;
}

/* The peer's device looks at a request. */
static enum ibv_wc_status check_at_peer(struct double_qp *qp, struct double_work *work)
{
    struct double_qp *peer = qp->peer;
    if (is_send(work)) {
        const struct double_receive *receive =
            &peer->receives[(peer->receive_taken - 1) % peer->cap.max_recv_wr];
        work->target = receive->target;
        return work->bytes <= receive->bytes_max ? IBV_WC_SUCCESS : IBV_WC_REM_INV_REQ_ERR;
    }
    if (work->bytes == 0) {
        return IBV_WC_SUCCESS; /* of no bytes neither key nor address is looked at */
    }
    bool is_read = work->opcode == IBV_WR_RDMA_READ;
    uint8_t *remote = double_writable(peer, work->remote_key, work->remote_address, work->bytes,
                                      is_read ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE);
    if (remote == NULL) {
        return IBV_WC_REM_ACCESS_ERR;
    }
    if (is_read) {
        work->target = (uint8_t *)(uintptr_t)work->source;
        work->source = remote;
    } else {
        work->target = remote;
        double_world.counts.written_bytes += work->bytes;
    }
    return IBV_WC_SUCCESS;
}

/* Whether a key is being invalidated: what comes behind is looked at after that. */
static bool is_invalidating(const struct double_qp *qp)
{
    for (uint64_t i = qp->heard; i < qp->launched; i++) {
        if (work_at(qp, i)->opcode == IBV_WR_SEND_WITH_INV) {
            return true;
        }
    }
    return false;
}

static bool step_launch(struct double_qp *qp)
{
    if (qp->launched == qp->posted || qp->launched - qp->acked >= DOUBLE_MESSAGE_WINDOW ||
        is_invalidating(qp)) {
        return false;
    }
    struct double_work *work = work_at(qp, qp->launched);
    if (work->opcode == IBV_WR_BIND_MW) {
        if (qp->launched != qp->heard) {
            return false; /* what was posted before it comes first */
        }
        work->answer = double_bind(qp, work);
        qp->launched++;
        return true;
    }
    if (!is_answered(qp)) {
        return false;
    }
    if (takes_receive(work)) {
        struct double_qp *peer = qp->peer;
        if (peer->receive_taken == peer->receive_posted) {
            return step_not_ready(qp);
        }
        if (double_now_ns() < qp->not_ready_until_ns) {
            rsi_store_relaxed(&double_world.awaits_time, true);
            return false;
        }
        qp->not_ready_until_ns = 0;
        qp->not_ready_count = 0;
        peer->receive_taken++;
    }
    work->answer = check_at_peer(qp, work);
    if (work->answer != IBV_WC_SUCCESS) {
        work->target = NULL;
    }
    qp->launched++;
    return true;
}

/* ---- placing -------------------------------------------------------------------------------- */

static void place(uint8_t *target, const uint8_t *source, uint32_t bytes)
{
    while (bytes > 0) {
        bool is_word = bytes >= 8 && ((uintptr_t)target & 7) == 0;
        if (is_word && ((uintptr_t)source & 7) == 0) {
            uint64_t word = rsi_load_relaxed((_Atomic uint64_t *)(uintptr_t)source);
            rsi_store_relaxed((_Atomic uint64_t *)(void *)target, word);
        } else if (is_word) {
            uint64_t word;
            memcpy(&word, source, sizeof(word));
            rsi_store_relaxed((_Atomic uint64_t *)(void *)target, word);
        } else {
            rsi_store_relaxed((_Atomic uint8_t *)target, *source);
        }
        uint32_t step = is_word ? 8 : 1;
        target += step;
        source += step;
        bytes -= step;
    }
}

static uint32_t piece_bytes(const struct double_work *work)
{
    uint32_t rest = work->bytes - work->placed_bytes;
    if (double_world.options.pace == VERBS_DOUBLE_AT_ONCE) {
        return rest;
    }
    uint32_t bytes = 1 + (uint32_t)double_random(work->bytes <= SMALL_BYTES ? 12 : work->bytes);
    return bytes < rest ? bytes : rest;
}

/* One piece of one of the requests on the wire. */
static bool step_place(struct double_qp *qp)
{
    if (!is_reachable(qp) || qp->heard == qp->launched) {
        return false;
    }
    uint64_t count = qp->launched - qp->heard;
    uint64_t first = double_random(count);
    for (uint64_t i = 0; i < count; i++) {
        struct double_work *work = work_at(qp, qp->heard + (first + i) % count);
        if (work->target != NULL && work->placed_bytes < work->bytes) {
            uint32_t bytes = piece_bytes(work);
            place(work->target + work->placed_bytes, work->source + work->placed_bytes, bytes);
            work->placed_bytes += bytes;
            return true;
        }
    }
    return false;
}

/* ---- hearing and acknowledging -------------------------------------------------------------- */

static void complete_receive(struct double_qp *peer, const struct double_work *work,
                             enum ibv_wc_status status, bool has_invalidated)
{
    struct ibv_wc wc = {
        .wr_id = peer->receives[peer->receive_done % peer->cap.max_recv_wr].id,
        .status = status,
        .opcode = is_send(work) ? IBV_WC_RECV : IBV_WC_RECV_RDMA_WITH_IMM,
        .byte_len = work->bytes,
    };
    if (has_invalidated) {
        wc.invalidated_rkey = work->immediate;
        wc.wc_flags = IBV_WC_WITH_INV;
    } else if (!is_send(work)) {
        wc.imm_data = work->immediate;
        wc.wc_flags = IBV_WC_WITH_IMM;
    }
    peer->receive_done++;
    double_complete((struct double_cq *)peer->base.recv_cq, peer, &wc, true, 0);
}

/* The peer's device refuses the oldest request: both queue pairs break. */
static void refuse_front(struct double_qp *qp, struct double_work *work)
{
    struct double_qp *peer = qp->peer;
    if (peer != NULL && work->answer == IBV_WC_REM_INV_REQ_ERR) {
        complete_receive(peer, work, IBV_WC_LOC_LEN_ERR, false);
    }
    fail_front(qp, work->answer);
    if (peer != NULL && work->opcode != IBV_WR_BIND_MW) {
        double_qp_break(peer);
    }
}

static bool step_hear(struct double_qp *qp)
{
    if (qp->heard == qp->launched) {
        return false;
    }
    struct double_work *work = work_at(qp, qp->heard);
    if (work->opcode == IBV_WR_BIND_MW && work->answer == IBV_WC_SUCCESS) {
        qp->heard++;
        return true;
    }
    bool is_placed = work->target == NULL || work->placed_bytes == work->bytes;
    if (!is_placed || (!is_answered(qp) && work->opcode != IBV_WR_BIND_MW)) {
        return false;
    }
    bool invalidates = work->opcode == IBV_WR_SEND_WITH_INV;
    if (work->answer == IBV_WC_SUCCESS && invalidates &&
        !double_invalidate(qp->peer, work->immediate)) {
        work->answer = IBV_WC_REM_ACCESS_ERR;
    }
    if (work->answer != IBV_WC_SUCCESS) {
        if (qp->heard != qp->acked) {
            return false; /* what came before it is acknowledged first */
        }
        refuse_front(qp, work);
        return true;
    }
    if (takes_receive(work)) {
        complete_receive(qp->peer, work, IBV_WC_SUCCESS, invalidates);
    }
    qp->heard++;
    return true;
}

static enum ibv_wc_opcode completion_opcode(enum ibv_wr_opcode opcode)
{
    switch (opcode) {
    case IBV_WR_SEND:
    case IBV_WR_SEND_WITH_INV:
        return IBV_WC_SEND;
    case IBV_WR_RDMA_READ:
        return IBV_WC_RDMA_READ;
    case IBV_WR_BIND_MW:
        return IBV_WC_BIND_MW;
    default:
        return IBV_WC_RDMA_WRITE;
    }
}

static bool step_acknowledge(struct double_qp *qp)
{
    if (qp->acked == qp->heard) {
        return false;
    }
    struct double_work *work = work_at(qp, qp->acked);
    if (work->opcode != IBV_WR_BIND_MW && !is_answered(qp)) {
        return false;
    }
    work->local_key = 0;
    work->window = NULL;
    work->target = NULL;
    qp->acked++;
    if ((work->flags & IBV_SEND_SIGNALED) != 0) {
        struct ibv_wc wc = {.wr_id = work->id, .opcode = completion_opcode(work->opcode)};
        double_complete((struct double_cq *)qp->base.send_cq, qp, &wc, false, qp->acked);
    }
    return true;
}

/* ---- steps ---------------------------------------------------------------------------------- */

static bool step_of(struct double_qp *qp)
{
    static bool (*const steps[])(struct double_qp *) = {step_acknowledge, step_hear, step_place,
                                                        step_launch};
    if (qp->base.state != IBV_QPS_RTS || qp->acked == qp->posted) {
        return false;
    }
    uint64_t first = double_world.options.pace == VERBS_DOUBLE_AT_ONCE ? 0 : double_random(4);
    for (uint64_t i = 0; i < rsi_array_count(steps); i++) {
        if (steps[(first + i) % rsi_array_count(steps)](qp)) {
            return true;
        }
        if (qp->acked == qp->posted) {
            return false;
        }
    }
    return step_silence(qp);
}

/* A step of one queue pair, the first of those that have one from a random one on. */
static bool step(void)
{
    uint32_t count = 0;
    DOUBLE_EACH(at, DOUBLE_QP)
    {
        count++;
    }
    if (count == 0) {
        return false;
    }
    uint64_t first = double_random(count);
    for (int round = 0; round < 2; round++) {
        uint64_t index = 0;
        DOUBLE_EACH(at, DOUBLE_QP)
        {
            bool is_in_turn = round == 0 ? index >= first : index < first;
            index++;
            if (is_in_turn && step_of(double_of(struct double_qp, at))) {
                return true;
            }
        }
    }
    return false;
}

uint64_t double_steps(uint64_t count_max)
{
    uint64_t count = 0;
    rsi_store_relaxed(&double_world.awaits_time, false);
    while (count < count_max && step()) {
        count++;
    }
    return count;
}

void double_settle(void)
{
    if (double_world.options.pace != VERBS_DOUBLE_THREADED) {
        (void)double_steps(UINT64_MAX);
    }
}

static bool somebody_sleeps(void)
{
    DOUBLE_EACH(at, DOUBLE_CQ)
    {
        if (double_of(struct double_cq, at)->is_armed) {
            return true;
        }
    }
    return false;
}

void double_after_post(void)
{
    if (double_world.options.pace == VERBS_DOUBLE_AT_ONCE || somebody_sleeps()) {
        double_settle();
    }
}

void double_before_poll(void)
{
    if (double_world.options.pace == VERBS_DOUBLE_STEPPED) {
        (void)double_steps(double_random(STEPS_PER_POLL));
    } else {
        double_settle();
    }
}

bool double_awaits_time(void)
{
    return rsi_load_relaxed(&double_world.awaits_time) || double_has_connects();
}

bool double_polls_make_steps(void)
{
    switch (double_world.options.pace) {
    case VERBS_DOUBLE_STEPPED:
        return true;
    case VERBS_DOUBLE_AT_ONCE:
        return rsi_load_relaxed(&double_world.awaits_time);
    case VERBS_DOUBLE_THREADED:
        break;
    }
    return false;
}

bool verbs_double_is_settled(void)
{
    pthread_mutex_lock(&double_world.lock);
    bool is_settled = true;
    DOUBLE_EACH(at, DOUBLE_QP)
    {
        const struct double_qp *qp = double_of(struct double_qp, at);
        bool is_busy = qp->base.state == IBV_QPS_RTS && qp->acked < qp->posted;
        is_settled = is_settled && !(is_busy && is_answered(qp));
    }
    double_leave();
    return is_settled;
}

void double_qp_quiet(struct double_qp *qp)
{
    if (qp->peer == NULL) {
        return;
    }
    for (uint64_t i = qp->peer->acked; i < qp->peer->launched; i++) {
        work_at(qp->peer, i)->target = NULL;
    }
}

void verbs_double_kill(struct ibv_qp *base)
{
    struct double_qp *qp = (struct double_qp *)base;
    pthread_mutex_lock(&double_world.lock);
    qp->is_dead = true;
    double_qp_break(qp);
    if (qp->id != NULL) {
        double_tell_killed(qp->id);
    }
    double_settle();
    double_leave();
}
