/*
 * The double's completion queues and queue pairs: what is checked when work is posted and polled.
 *
 * Design notes
 * - Every queue holds exactly what was asked for, not a rounded-up number as devices give. A place
 *   in a send queue is free again when a completion at or behind it was polled, not before.
 * - A completion queue that its queue pairs could overrun is a fault when the queue pair is made,
 *   one that is overrun is another.
 * - What is posted is copied at once, with inline bytes; other bytes are read when they travel.
 */
#include "transport/rdma/verbs_double_internal.h"

#include "core/atomics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- completion channels -------------------------------------------------------------------- */

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
    if (!double_enter("ibv_create_comp_channel", VERBS_DOUBLE_MAKES)) {
        return NULL;
    }
    struct double_channel *channel = double_alloc(sizeof(*channel));
    channel->base.context = context;
    channel->base.fd = double_bell_create();
    double_add(&channel->object, DOUBLE_CHANNEL, channel);
    double_leave();
    return &channel->base;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *base)
{
    struct double_channel *channel = (struct double_channel *)base;
    if (!double_enter("ibv_destroy_comp_channel", VERBS_DOUBLE_UNMAKES)) {
        double_excuse(&channel->object);
        return errno;
    }
    if (channel->queue_count > 0) {
        if (!double_has_excused()) {
            double_fault("ibv_destroy_comp_channel while a completion queue uses it");
        }
        channel->object.is_excused = true;
        double_leave();
        return EBUSY;
    }
    close(base->fd);
    double_remove(&channel->object);
    double_leave();
    return 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *base, struct ibv_cq **cq, void **context)
{
    struct double_channel *channel = (struct double_channel *)base;
    if (!double_enter("ibv_get_cq_event", VERBS_DOUBLE_LOOKS)) {
        return -1;
    }
    if (channel->event_count == 0) {
        int result = double_bell_is_silent(base->fd, "ibv_get_cq_event");
        double_leave();
        return result;
    }
    double_bell_take(base->fd);
    struct double_cq *rung = channel->events[0];
    channel->event_count--;
    memmove(channel->events, channel->events + 1,
            channel->event_count * sizeof(channel->events[0]));
    rung->unacknowledged_count++;
    *cq = &rung->base;
    *context = rung->base.cq_context;
    double_leave();
    return 0;
}

void ibv_ack_cq_events(struct ibv_cq *base, unsigned count)
{
    struct double_cq *cq = (struct double_cq *)base;
    (void)double_enter("ibv_ack_cq_events", VERBS_DOUBLE_LOOKS);
    if (count > cq->unacknowledged_count) {
        double_fault("ibv_ack_cq_events of %u, but only %" PRIu64 " were got", count,
                     cq->unacknowledged_count);
        count = (unsigned)cq->unacknowledged_count;
    }
    cq->unacknowledged_count -= count;
    double_leave();
}

/* ---- completion queues ---------------------------------------------------------------------- */

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int entry_count, void *cq_context,
                             struct ibv_comp_channel *channel, int vector)
{
    if (!double_enter("ibv_create_cq", VERBS_DOUBLE_MAKES)) {
        return NULL;
    }
    if (entry_count <= 0 || entry_count > double_world.options.completions_max || vector != 0) {
        double_fault("ibv_create_cq of %d entries, vector %d: the device allows %d", entry_count,
                     vector, double_world.options.completions_max);
        (void)double_refuse(EINVAL);
        return NULL;
    }
    struct double_cq *cq = double_alloc(sizeof(*cq));
    cq->base.context = context;
    cq->base.channel = channel;
    cq->base.cq_context = cq_context;
    cq->base.cqe = entry_count;
    cq->entries = double_alloc((size_t)entry_count * sizeof(*cq->entries));
    double_add(&cq->object, DOUBLE_CQ, cq);
    cq->object.owned[0] = cq->entries;
    if (channel != NULL) {
        ((struct double_channel *)channel)->queue_count++;
    }
    double_leave();
    return &cq->base;
}

static uint32_t cq_users(const struct double_cq *cq)
{
    uint32_t count = 0;
    DOUBLE_EACH(at, DOUBLE_QP)
    {
        const struct double_qp *qp = double_of(struct double_qp, at);
        count += qp->base.send_cq == &cq->base || qp->base.recv_cq == &cq->base;
    }
    return count;
}

/* Events of the queue that nobody got go with it. */
static void channel_forget(struct double_channel *channel, const struct double_cq *cq)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < channel->event_count; i++) {
        if (channel->events[i] != cq) {
            channel->events[kept++] = channel->events[i];
        } else {
            double_bell_take(channel->base.fd);
        }
    }
    channel->event_count = kept;
    channel->queue_count--;
}

int ibv_destroy_cq(struct ibv_cq *base)
{
    struct double_cq *cq = (struct double_cq *)base;
    if (!double_enter("ibv_destroy_cq", VERBS_DOUBLE_UNMAKES)) {
        double_excuse(&cq->object);
        return errno;
    }
    if (cq_users(cq) > 0) {
        if (!double_has_excused()) {
            double_fault("ibv_destroy_cq while %u queue pairs use it", cq_users(cq));
        }
        cq->object.is_excused = true;
        double_leave();
        return EBUSY;
    }
    if (cq->unacknowledged_count > 0) {
        double_fault("ibv_destroy_cq would wait for ever: %" PRIu64 " events are not acknowledged",
                     cq->unacknowledged_count);
    }
    if (base->channel != NULL) {
        channel_forget((struct double_channel *)base->channel, cq);
    }
    double_remove(&cq->object);
    double_leave();
    return 0;
}

static void ring_channel(struct double_cq *cq)
{
    struct double_channel *channel = (struct double_channel *)cq->base.channel;
    cq->is_armed = false;
    if (channel == NULL) {
        return;
    }
    if (channel->event_count == rsi_array_count(channel->events)) {
        double_fault("a completion channel holds more events than the double can keep");
        return;
    }
    channel->events[channel->event_count++] = cq;
    double_bell_ring(channel->base.fd);
}

void double_complete(struct double_cq *cq, struct double_qp *qp, const struct ibv_wc *wc,
                     bool is_receive, uint64_t retires)
{
    uint64_t tail = rsi_load_relaxed(&cq->tail);
    uint64_t used = tail - cq->head;
    if (used == (uint64_t)cq->base.cqe) {
        double_fault("a completion queue of %d entries is overrun", cq->base.cqe);
        rsi_store_relaxed(&cq->is_broken, true);
        return;
    }
    cq->entries[tail % (uint64_t)cq->base.cqe] = (struct double_completion){
        .wc = *wc, .qp = qp, .is_receive = is_receive, .retires = retires};
    cq->entries[tail % (uint64_t)cq->base.cqe].wc.qp_num = qp->base.qp_num;
    double_world.counts.completions++;
    if (used + 1 > double_world.counts.completion_queue_most) {
        double_world.counts.completion_queue_most = used + 1;
    }
    /* Read without the lock by poll: only whether there is something. */
    rsi_store_relaxed(&cq->tail, tail + 1);
    if (cq->is_armed) {
        ring_channel(cq);
    }
}

static bool is_drained(const struct double_qp *qp)
{
    return qp->base.state == IBV_QPS_ERR && qp->retired == qp->posted &&
           qp->receive_retired == qp->receive_posted;
}

static void take_one(struct double_cq *cq, struct ibv_wc *wc)
{
    struct double_completion *entry = &cq->entries[cq->head % (uint64_t)cq->base.cqe];
    *wc = entry->wc;
    struct double_qp *qp = entry->qp;
    cq->head++;
    if (qp == NULL) {
        return;
    }
    if (entry->is_receive) {
        qp->receive_retired++;
    } else {
        qp->retired = entry->retires;
    }
    if (is_drained(qp)) {
        double_qp_quiet(qp);
    }
}

static int poll_cq(struct ibv_cq *base, int entry_count, struct ibv_wc *wc)
{
    struct double_cq *cq = (struct double_cq *)base;
    if (rsi_load_relaxed(&cq->tail) == rsi_load_relaxed(&cq->polled) &&
        !rsi_load_relaxed(&cq->is_broken) && !double_polls_make_steps()) {
        return 0;
    }
    if (!double_enter("ibv_poll_cq", VERBS_DOUBLE_LOOKS)) {
        return -1;
    }
    if (rsi_load_relaxed(&cq->is_broken)) {
        return double_refuse(EIO);
    }
    double_before_poll();
    int count = 0;
    while (count < entry_count && cq->head < rsi_load_relaxed(&cq->tail)) {
        take_one(cq, &wc[count]);
        count++;
    }
    rsi_store_relaxed(&cq->polled, cq->head);
    double_leave();
    return count;
}

static int request_notification(struct ibv_cq *base, int solicited_only)
{
    struct double_cq *cq = (struct double_cq *)base;
    if (!double_enter("ibv_req_notify_cq", VERBS_DOUBLE_WORKS)) {
        return errno;
    }
    if (base->channel == NULL || solicited_only != 0) {
        double_fault("ibv_req_notify_cq without a channel, or for solicited completions only");
    }
    cq->is_armed = true;
    double_settle(); /* whoever asks will sleep: nobody makes steps then */
    double_leave();
    return 0;
}

const char *ibv_wc_status_str(enum ibv_wc_status status)
{
    return status == IBV_WC_WR_FLUSH_ERR ? "flushed" : "failed";
}

/* ---- queue pairs ---------------------------------------------------------------------------- */

/* Completions that everything posted on queue pairs of `cq` could produce at once. */
static void promise(struct ibv_cq *base, uint64_t added_count)
{
    struct double_cq *cq = (struct double_cq *)base;
    cq->promised_count += added_count;
    if (cq->promised_count > (uint64_t)cq->base.cqe) {
        double_fault(
            "a completion queue of %d entries serves queue pairs that can complete %" PRIu64
            " requests at once",
            cq->base.cqe, cq->promised_count);
    }
}

struct ibv_qp *double_qp_create(struct double_id *id, struct ibv_pd *pd,
                                struct ibv_qp_init_attr *wish)
{
    struct double_qp *qp = double_alloc(sizeof(*qp));
    qp->base.context = pd->context;
    qp->base.qp_context = wish->qp_context;
    qp->base.pd = pd;
    qp->base.send_cq = wish->send_cq;
    qp->base.recv_cq = wish->recv_cq;
    qp->base.qp_num = ++double_world.next_qp_number;
    qp->base.qp_type = wish->qp_type;
    qp->base.state = IBV_QPS_INIT;
    qp->cap = wish->cap;
    qp->id = id;
    qp->works = double_alloc(wish->cap.max_send_wr * sizeof(*qp->works));
    qp->receives = double_alloc(wish->cap.max_recv_wr * sizeof(*qp->receives));
    double_add(&qp->object, DOUBLE_QP, qp);
    qp->object.owned[0] = qp->works;
    qp->object.owned[1] = qp->receives;
    promise(wish->send_cq, wish->cap.max_send_wr);
    promise(wish->recv_cq, wish->cap.max_recv_wr);
    return &qp->base;
}

static void forget_completions(struct ibv_cq *base, const struct double_qp *qp)
{
    struct double_cq *cq = (struct double_cq *)base;
    for (uint64_t i = cq->head; i < rsi_load_relaxed(&cq->tail); i++) {
        struct double_completion *entry = &cq->entries[i % (uint64_t)base->cqe];
        if (entry->qp == qp) {
            entry->qp = NULL;
        }
    }
}

int double_qp_destroy(struct double_qp *qp)
{
    uint32_t window_count = double_bound_windows(qp);
    if (window_count > 0 && double_has_excused()) {
        qp->object.is_excused = true;
        return EBUSY;
    }
    if (window_count > 0) {
        double_fault("rdma_destroy_qp while %u windows are bound to the queue pair: some kernels "
                     "hang for a minute",
                     window_count);
        return EBUSY;
    }
    double_qp_quiet(qp);
    if (qp->peer != NULL) {
        qp->peer->peer = NULL;
    }
    forget_completions(qp->base.send_cq, qp);
    forget_completions(qp->base.recv_cq, qp);
    ((struct double_cq *)qp->base.send_cq)->promised_count -= qp->cap.max_send_wr;
    ((struct double_cq *)qp->base.recv_cq)->promised_count -= qp->cap.max_recv_wr;
    double_remove(&qp->object);
    return 0;
}

int ibv_modify_qp(struct ibv_qp *base, struct ibv_qp_attr *attributes, int mask)
{
    struct double_qp *qp = (struct double_qp *)base;
    if (!double_enter("ibv_modify_qp", VERBS_DOUBLE_WORKS)) {
        return errno;
    }
    if ((mask & ~(IBV_QP_STATE | IBV_QP_MIN_RNR_TIMER)) != 0) {
        double_fault("ibv_modify_qp changes what rdma_cm should (mask 0x%x)", (unsigned)mask);
    }
    if ((mask & IBV_QP_MIN_RNR_TIMER) != 0) {
        if (base->state != IBV_QPS_RTS && base->state != IBV_QPS_ERR) {
            double_fault("ibv_modify_qp of the RNR timer in state %d", (int)base->state);
        }
        qp->min_rnr_timer = attributes->min_rnr_timer;
    }
    if ((mask & IBV_QP_STATE) != 0) {
        if (attributes->qp_state != IBV_QPS_ERR) {
            double_fault("ibv_modify_qp to state %d: rdma_cm makes the other steps",
                         (int)attributes->qp_state);
        }
        double_qp_break(qp);
    }
    double_leave();
    return 0;
}

int ibv_query_qp(struct ibv_qp *base, struct ibv_qp_attr *attributes, int mask,
                 struct ibv_qp_init_attr *init)
{
    const struct double_qp *qp = (struct double_qp *)base;
    (void)mask;
    if (!double_enter("ibv_query_qp", VERBS_DOUBLE_WORKS)) {
        return errno;
    }
    memset(attributes, 0, sizeof(*attributes));
    memset(init, 0, sizeof(*init));
    attributes->qp_state = base->state;
    attributes->path_mtu = IBV_MTU_4096;
    attributes->ah_attr.grh.sgid_index = 1;
    attributes->min_rnr_timer = qp->min_rnr_timer;
    attributes->cap = qp->cap;
    init->cap = qp->cap;
    double_leave();
    return 0;
}

/* ---- posting -------------------------------------------------------------------------------- */

static bool is_local(const struct double_qp *qp, const struct ibv_sge *span, bool is_written)
{
    const struct double_region *region = double_region_by_key(span->lkey);
    if (region == NULL || region->base.pd != qp->base.pd) {
        double_fault("work on queue pair %u names a local key that is no region's of its domain",
                     qp->base.qp_num);
        return false;
    }
    uint64_t start = (uintptr_t)region->base.addr;
    if (span->addr < start || span->addr + span->length > start + region->base.length) {
        double_fault("work on queue pair %u names %u bytes that reach beyond their region",
                     qp->base.qp_num, span->length);
        return false;
    }
    if (is_written && (region->access & IBV_ACCESS_LOCAL_WRITE) == 0) {
        double_fault("a receive on queue pair %u names memory without local writing",
                     qp->base.qp_num);
        return false;
    }
    return true;
}

static bool send_is_possible(const struct double_qp *qp, const struct ibv_send_wr *wr)
{
    if (qp->base.state != IBV_QPS_RTS && qp->base.state != IBV_QPS_ERR) {
        double_fault("a send is posted on queue pair %u in state %d, before it is connected",
                     qp->base.qp_num, (int)qp->base.state);
        return false;
    }
    if (qp->posted - qp->retired >= qp->cap.max_send_wr) {
        double_fault("the send queue of queue pair %u holds %u requests already: it is full",
                     qp->base.qp_num, qp->cap.max_send_wr);
        return false;
    }
    if (wr->num_sge < 0 || (uint32_t)wr->num_sge > qp->cap.max_send_sge) {
        double_fault("a send has %d spans; the queue pair takes %u", wr->num_sge,
                     qp->cap.max_send_sge);
        return false;
    }
    return true;
}

/* Fills in what the request reads; false: it may not. */
static bool read_source(struct double_qp *qp, struct double_work *work,
                        const struct ibv_send_wr *wr)
{
    if (wr->num_sge == 0 || wr->sg_list[0].length == 0) {
        return true;
    }
    const struct ibv_sge *span = &wr->sg_list[0];
    work->bytes = span->length;
    if (work->bytes > double_world.options.message_bytes_max) {
        double_fault("a request of %u bytes; the port takes %u", work->bytes,
                     double_world.options.message_bytes_max);
        return false;
    }
    if ((wr->send_flags & IBV_SEND_INLINE) != 0) {
        if (work->bytes > qp->cap.max_inline_data) {
            double_fault("%u bytes inline; queue pair %u takes %u", work->bytes, qp->base.qp_num,
                         qp->cap.max_inline_data);
            return false;
        }
        memcpy(work->inline_data, (const void *)(uintptr_t)span->addr, work->bytes);
        work->source = work->inline_data;
        double_world.counts.inline_bytes += work->bytes;
        return true;
    }
    if (!is_local(qp, span, wr->opcode == IBV_WR_RDMA_READ)) {
        return false;
    }
    work->source = (const uint8_t *)(uintptr_t)span->addr;
    work->local_key = span->lkey;
    return true;
}

static bool read_request(struct double_qp *qp, struct double_work *work,
                         const struct ibv_send_wr *wr)
{
    *work = (struct double_work){.id = wr->wr_id, .opcode = wr->opcode, .flags = wr->send_flags};
    switch (wr->opcode) {
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
    case IBV_WR_RDMA_READ:
        work->remote_address = wr->wr.rdma.remote_addr;
        work->remote_key = wr->wr.rdma.rkey;
        work->immediate = wr->imm_data;
        return read_source(qp, work, wr);
    case IBV_WR_SEND:
    case IBV_WR_SEND_WITH_INV:
        work->immediate = wr->opcode == IBV_WR_SEND ? wr->imm_data : wr->invalidate_rkey;
        return read_source(qp, work, wr);
    case IBV_WR_BIND_MW:
        work->window = (struct double_window *)wr->bind_mw.mw;
        work->region = (struct double_region *)wr->bind_mw.bind_info.mr;
        work->remote_key = wr->bind_mw.rkey;
        work->bind_start = wr->bind_mw.bind_info.addr;
        work->bind_bytes = wr->bind_mw.bind_info.length;
        work->bind_access = wr->bind_mw.bind_info.mw_access_flags;
        return true;
    default:
        double_fault("the double knows no request of kind %d", (int)wr->opcode);
        return false;
    }
}

static int post_send(struct ibv_qp *base, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    struct double_qp *qp = (struct double_qp *)base;
    if (!double_enter("ibv_post_send", VERBS_DOUBLE_WORKS)) {
        *bad = wr;
        return errno;
    }
    double_world.counts.doorbells++;
    for (; wr != NULL; wr = wr->next) {
        struct double_work *work = &qp->works[qp->posted % qp->cap.max_send_wr];
        if (!send_is_possible(qp, wr) || !read_request(qp, work, wr)) {
            *bad = wr;
            double_leave();
            return EINVAL;
        }
        qp->posted++;
        double_world.counts.work_requests++;
        if (qp->posted - qp->retired > double_world.counts.send_queue_most) {
            double_world.counts.send_queue_most = qp->posted - qp->retired;
        }
    }
    if (base->state == IBV_QPS_ERR) {
        double_qp_break(qp);
    }
    double_after_post();
    double_leave();
    return 0;
}

static int post_receive(struct ibv_qp *base, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
    struct double_qp *qp = (struct double_qp *)base;
    if (!double_enter("ibv_post_recv", VERBS_DOUBLE_WORKS)) {
        *bad = wr;
        return errno;
    }
    double_world.counts.receive_posts++;
    for (; wr != NULL; wr = wr->next) {
        bool is_full = qp->receive_posted - qp->receive_retired >= qp->cap.max_recv_wr;
        if (is_full || wr->num_sge != 1) {
            double_fault("a receive on queue pair %u: %s", base->qp_num,
                         is_full ? "its queue is full" : "it has not one span");
        }
        if (is_full || wr->num_sge != 1 || !is_local(qp, wr->sg_list, true)) {
            *bad = wr;
            double_leave();
            return EINVAL;
        }
        qp->receives[qp->receive_posted % qp->cap.max_recv_wr] = (struct double_receive){
            .id = wr->wr_id,
            .target = (uint8_t *)(uintptr_t)wr->sg_list->addr,
            .bytes_max = wr->sg_list->length,
            .local_key = wr->sg_list->lkey,
        };
        qp->receive_posted++;
        if (qp->receive_posted - qp->receive_retired > double_world.counts.receive_queue_most) {
            double_world.counts.receive_queue_most = qp->receive_posted - qp->receive_retired;
        }
    }
    if (base->state == IBV_QPS_ERR) {
        double_qp_break(qp);
    }
    double_after_post();
    double_leave();
    return 0;
}

/* ---- breaking ------------------------------------------------------------------------------- */

void double_qp_break(struct double_qp *qp)
{
    qp->base.state = IBV_QPS_ERR;
    struct ibv_wc flushed = {.status = IBV_WC_WR_FLUSH_ERR};
    while (qp->acked < qp->posted) {
        struct double_work *work = &qp->works[qp->acked % qp->cap.max_send_wr];
        flushed.wr_id = work->id;
        work->target = NULL;
        work->local_key = 0;
        work->window = NULL;
        qp->acked++;
        double_complete((struct double_cq *)qp->base.send_cq, qp, &flushed, false, qp->acked);
    }
    qp->launched = qp->posted;
    qp->heard = qp->posted;
    while (qp->receive_done < qp->receive_posted) {
        flushed.wr_id = qp->receives[qp->receive_done % qp->cap.max_recv_wr].id;
        qp->receive_done++;
        double_complete((struct double_cq *)qp->base.recv_cq, qp, &flushed, true, 0);
    }
    qp->receive_taken = qp->receive_posted;
}

void double_queue_fill(struct ibv_context_ops *ops)
{
    ops->poll_cq = poll_cq;
    ops->req_notify_cq = request_notification;
    ops->post_send = post_send;
    ops->post_recv = post_receive;
}
