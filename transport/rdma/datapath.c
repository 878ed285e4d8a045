/*
 * The data plane: batches, arrivals, positions. Owner thread only; no malloc, lock, log.
 *
 * Design notes
 * - A batch is one or two WRITEs, the last WITH_IMM, in one post list with one doorbell. The
 *   completion of its immediate is the only proof of arrival, at both ends. What was placed
 *   meanwhile goes out when it comes: the batching is clocked by the wire.
 * - Only the last WRITE of a batch, records and words are signalled. The send queue completes in
 *   order, so a completion frees all places up to its own count.
 * - One write of words is under way at a time, because verbs promise nothing about the order in
 *   which two writes without a completion between them reach memory: the older one could come last,
 *   and its positions would stand for good.
 * - Outstanding batches are bounded by the peer's receives, counted absolutely on both sides: it
 *   writes how many it could take since the link began into our words page, beside its consumed
 *   position. A receive is posted again in the pass in which it completed, before it is told.
 * - Words are told when an eighth of the ring or a quarter of the batch credit is owed, when the
 *   peer asked, when nothing else happened for a while, and before this thread sleeps: so a reader
 *   that does nothing never looks slower than it is, and a busy one costs next to nothing.
 * - A link on which nothing happens would not notice a wire that is cut. So when nothing completed
 *   for a while and the send queue is empty, a write of no bytes asks the peer's device; a request
 * that is under way asks by itself. A sleeping thread is woken for it by a timer.
 * - The words page is memory that the peer writes: each word is loaded once, checked by a mover.
 * - The end: when the control thread halts the link, nothing more is posted but a marker. It comes
 *   back flushed after everything before it, also after unsignalled requests that succeeded and
 *   will never complete. With the receives back too, the link leaves the table; that is its last
 *   touch.
 */
#include "transport/rdma/rdma_internal.h"

#include "core/assert.h"
#include "core/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define COMPLETIONS_PER_POLL 32
#define POLLS_PER_PASS       8
#define EVENTS_PER_ACK       64u

static bool is_ending(const struct rsi_rdma_link *link)
{
    return rsi_load_acquire(&link->crossing.is_ending);
}

/* Whether work may still be posted. */
static bool is_posting(const struct rsi_rdma_link *link)
{
    return !is_ending(link) && !rsi_load_relaxed(&link->base.failed);
}

/* ---- posting -------------------------------------------------------------------------------- */

static RSI_COLD bool post_failed(struct rsi_rdma_link *link, int reason)
{
    int code = reason > 0 ? reason : errno; /* some providers return -1 */
    rsi_link_fail(&link->base, RSI_E_IO, "device %s did not take a work request (error %d)",
                  link->device->verbs->device->name, code);
    return false;
}

bool rsi_rdma_post(struct rsi_rdma_link *link, enum rsi_rdma_work kind,
                   struct ibv_send_wr *requests, uint32_t count)
{
    struct rsi_rdma_data *data = &link->data;
    for (uint32_t i = 0; i < count; i++) {
        data->posted_count++;
        requests[i].wr_id = rsi_rdma_work_id(kind, link->slot, (uint32_t)data->posted_count);
    }
    rsi_bump_relaxed(&link->base.stats.sends, count);
    rsi_bump_relaxed(&link->base.stats.doorbells, 1);
    struct ibv_send_wr *bad = NULL;
    int reason = ibv_post_send(data->qp, requests, &bad);
    if (rsi_unlikely(reason != 0)) {
        return post_failed(link, reason);
    }
    return true;
}

void rsi_rdma_repost(struct rsi_rdma_link *link, uint32_t index)
{
    struct rsi_rdma_data *data = &link->data;
    struct ibv_recv_wr *receive = &data->receives[index];
    receive->next = NULL;
    if (data->repost_last != NULL) {
        data->repost_last->next = receive;
    } else {
        data->repost_first = receive;
    }
    data->repost_last = receive;
    data->repost_count++;
}

void rsi_rdma_post_receives(struct rsi_rdma_link *link)
{
    struct rsi_rdma_data *data = &link->data;
    struct ibv_recv_wr *first = data->repost_first;
    if (first == NULL) {
        return;
    }
    uint32_t count = data->repost_count;
    data->repost_first = NULL;
    data->repost_last = NULL;
    data->repost_count = 0;
    if (!is_posting(link)) {
        return;
    }
    struct ibv_recv_wr *bad = NULL;
    int reason = ibv_post_recv(data->qp, first, &bad);
    if (rsi_likely(reason == 0)) {
        data->receive_count += count;
        return;
    }
    /* Those before the refused one are with the device and will come back. */
    for (const struct ibv_recv_wr *taken = first; taken != NULL && taken != bad;
         taken = taken->next) {
        data->receive_count++;
    }
    (void)post_failed(link, reason);
}

/* ---- writing -------------------------------------------------------------------------------- */

void rsi_rdma_place(struct rsi_link *base, uint64_t bytes)
{
    *(uint64_t *)(void *)rsi_ring_at(&base->out, base->placed_pos) = base->head_word;
    base->placed_pos += bytes;
}

/* Reads how many batches the peer could take since the link began. */
static bool read_batch_limit(struct rsi_rdma_link *link)
{
    struct rsi_rdma_data *data = &link->data;
    uint64_t told = rsi_load_acquire(rsi_atomic_u64_at(&data->peer_words->batch_credit));
    if (rsi_likely(told <= data->batch_limit)) { /* no news, or torn: see read_peer_words() */
        return false;
    }
    uint64_t most = data->batch_sent_count + link->peer_attach.batch_credit;
    if (rsi_unlikely(told > most)) {
        rsi_link_fail(&link->base, RSI_E_PROTOCOL,
                      "the peer told a batch credit of %" PRIu64 ", but only %" PRIu64
                      " to %" PRIu64 " can be true",
                      told, data->batch_limit, most);
        return false;
    }
    data->batch_limit = told;
    return true;
}

static bool batch_is_credited(struct rsi_rdma_link *link)
{
    struct rsi_rdma_data *data = &link->data;
    return data->batch_sent_count < data->batch_limit ||
           (read_batch_limit(link) && data->batch_sent_count < data->batch_limit);
}

static RSI_COLD rsi_status_t stall(struct rsi_rdma_link *link)
{
    if (!link->data.is_stalled) {
        link->data.is_stalled = true;
        rsi_bump_relaxed(&link->base.stats.credit_stalls, 1);
    }
    return RSI_WOULD_BLOCK;
}

rsi_status_t rsi_rdma_flush(struct rsi_link *base)
{
    struct rsi_rdma_link *link = rsi_rdma_link_of(base);
    struct rsi_rdma_data *data = &link->data;
    if (rsi_unlikely(!is_posting(link))) {
        return RSI_E_LINK_LOST;
    }
    uint64_t to_pos = base->placed_pos;
    if (base->flushed_pos == to_pos) {
        return RSI_OK;
    }
    if (rsi_unlikely(!batch_is_credited(link) ||
                     rsi_rdma_send_room(data) <
                         RSI_RDMA_BATCH_WRITES_MAX + RSI_RDMA_SEND_RESERVE)) {
        return stall(link);
    }
    struct ibv_send_wr requests[RSI_RDMA_BATCH_WRITES_MAX];
    struct ibv_sge spans[RSI_RDMA_BATCH_WRITES_MAX];
    uint32_t count = rsi_rdma_batch_build(&data->way, base->flushed_pos, to_pos, requests, spans);
    data->batch_ends[data->batch_sent_count % RSI_RDMA_SEND_COUNT] = to_pos;
    data->batch_sent_count++;
    data->is_stalled = false;
    base->flushed_pos = to_pos;
    base->under_way = true;
    rsi_bump_relaxed(&base->stats.batches_sent, 1);
    return rsi_rdma_post(link, RSI_RDMA_WORK_BATCH, requests, count) ? RSI_OK : RSI_E_LINK_LOST;
}

/* ---- telling our positions ------------------------------------------------------------------ */

static bool has_news(const struct rsi_rdma_link *link)
{
    const struct rsi_rdma_data *data = &link->data;
    return link->base.consumed_pos != data->told_consumed_pos ||
           data->batch_taken_count != data->told_batch_count;
}

static bool is_overdue(const struct rsi_rdma_link *link)
{
    const struct rsi_rdma_data *data = &link->data;
    return link->base.consumed_pos - data->told_consumed_pos >= link->base.in.capacity_bytes / 8 ||
           data->batch_taken_count - data->told_batch_count >= RSI_RDMA_BATCH_CREDIT / 4;
}

bool rsi_rdma_tell_words(struct rsi_rdma_link *link)
{
    struct rsi_rdma_data *data = &link->data;
    if (link->base.in.capacity_bytes == 0 || data->peer_words_address == 0 || !has_news(link)) {
        return true;
    }
    if (data->words_are_under_way || rsi_rdma_send_room(data) < 2) {
        return false; /* the completion that is awaited comes with another try */
    }
    data->words_are_under_way = true;
    data->told_consumed_pos = link->base.consumed_pos;
    data->told_batch_count = data->batch_taken_count;
    /* Where nothing goes inline the device reads these later, perhaps newer: as true as the old. */
    link->own_words[0] = data->told_consumed_pos;
    link->own_words[1] = data->told_batch_count;
    struct ibv_sge span = {
        .addr = (uintptr_t)link->own_words,
        .length = 2 * sizeof(uint64_t),
        .lkey = link->buffers_region.mr->lkey,
    };
    struct ibv_send_wr request = {
        .sg_list = &span,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_WRITE,
        .send_flags =
            IBV_SEND_SIGNALED | (span.length <= data->way.inline_bytes_max ? IBV_SEND_INLINE : 0u),
        .wr.rdma =
            {
                .remote_addr = data->peer_words_address + offsetof(struct rsi_words, consumed_pos),
                .rkey = data->way.remote_key,
            },
    };
    return rsi_rdma_post(link, RSI_RDMA_WORK_WORDS, &request, 1);
}

void rsi_rdma_publish_consumed(struct rsi_link *base)
{
    struct rsi_rdma_link *link = rsi_rdma_link_of(base);
    if (rsi_unlikely(!is_posting(link))) {
        return;
    }
    if (is_overdue(link)) {
        (void)rsi_rdma_tell_words(link);
    }
    if (link->data.asked_by_peer.is_open) {
        rsi_rdma_lane_answer(link);
    }
}

void rsi_rdma_request_wake(struct rsi_link *base, uint64_t in_arrived_at_least,
                           uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least)
{
    /* Arrivals at both ends are completions here, which wake by themselves. */
    (void)in_arrived_at_least;
    (void)peer_arrived_at_least;
    struct rsi_rdma_link *link = rsi_rdma_link_of(base);
    if (peer_consumed_at_least == UINT64_MAX || base->peer_consumed_pos >= peer_consumed_at_least ||
        !is_posting(link)) {
        return;
    }
    const struct rsi_rdma_wake *asked = &link->data.asked_by_us;
    rsi_rdma_lane_ask(link, asked->is_open ? asked->arrived_at_least : UINT64_MAX,
                      peer_consumed_at_least);
}

/* ---- completions ---------------------------------------------------------------------------- */

static void on_batch_arrived(struct rsi_rdma_link *link, uint32_t index, uint32_t immediate)
{
    struct rsi_link *base = &link->base;
    uint64_t end_pos = rsi_immediate_end_pos(ntohl(immediate), base->arrived_pos);
    if (rsi_unlikely(end_pos == base->arrived_pos)) {
        rsi_link_fail(base, RSI_E_PROTOCOL, "the peer announced a batch of no bytes");
        return;
    }
    if (!rsi_link_arrived(base, end_pos)) {
        return;
    }
    rsi_bump_relaxed(&base->stats.batches_arrived, 1);
    link->data.batch_taken_count++;
    rsi_rdma_repost(link, index);
}

static void on_batch_done(struct rsi_rdma_link *link)
{
    struct rsi_link *base = &link->base;
    struct rsi_rdma_data *data = &link->data;
    uint64_t end_pos = data->batch_ends[data->batch_done_count % RSI_RDMA_SEND_COUNT];
    data->batch_done_count++;
    (void)rsi_link_peer_arrived(base, end_pos);
    base->under_way = base->peer_arrived_pos != base->flushed_pos;
}

static void on_record_done(struct rsi_rdma_link *link)
{
    struct rsi_rdma_data *data = &link->data;
    data->record_done_count++;
    /* CLOSE is the last record. */
    if (data->close_posted && data->record_done_count == data->record_sent_count) {
        rsi_store_release(&link->crossing.close_sent, true);
        rsi_waker_wake(link->base.poller->control_waker);
    }
}

static RSI_COLD void report_failure(struct rsi_rdma_link *link, enum ibv_wc_status status,
                                    enum rsi_rdma_work kind)
{
    struct rsi_link *base = &link->base;
    switch ((int)status) {
    case IBV_WC_RETRY_EXC_ERR:
        link->data.peer_is_silent |= !rsi_load_relaxed(&base->failed);
        rsi_link_fail(base, RSI_E_LINK_LOST,
                      "%s does not answer: its machine or the way to it is gone", base->peer_text);
        break;
    case IBV_WC_RNR_RETRY_EXC_ERR:
        rsi_link_fail(base, RSI_E_LINK_LOST, "%s has no receive for us and does not get one",
                      base->peer_text);
        break;
    /* What we write lies inside of what we were given, so the peer took it back: a process that
     * ends loses its memory before its queue pairs. */
    case IBV_WC_REM_ACCESS_ERR:
        rsi_link_fail(base, RSI_E_LINK_LOST,
                      "the peer refused the write: it ended, or took back what it let us write");
        break;
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
        rsi_link_fail(base, RSI_E_LINK_LOST, "the peer's device refused a request (%s)",
                      ibv_wc_status_str(status));
        break;
    case IBV_WC_LOC_LEN_ERR:
        rsi_link_fail(base, RSI_E_PROTOCOL, "the peer sent a control record of more than %u bytes",
                      RSI_RDMA_RECORD_BYTES);
        break;
    case IBV_WC_WR_FLUSH_ERR:
        rsi_link_fail(
            base, RSI_E_LINK_LOST,
            "the queue pair broke: the device refused what the peer tried, or the peer is "
            "gone");
        break;
    default:
        rsi_link_fail(base, RSI_E_IO, "device %s failed work of kind %d: %s",
                      link->device->verbs->device->name, (int)kind, ibv_wc_status_str(status));
        break;
    }
}

static RSI_COLD void on_failed(struct rsi_rdma_link *link, const struct ibv_wc *completion)
{
    enum rsi_rdma_work kind = rsi_rdma_work_kind(completion->wr_id);
    struct rsi_rdma_data *data = &link->data;
    if (kind == RSI_RDMA_WORK_RECEIVE) {
        data->receive_count--;
    }
    if (kind == RSI_RDMA_WORK_MARKER) {
        data->marker_done = true;
    } else if (!is_ending(link)) {
        report_failure(link, completion->status, kind);
    }
}

static void on_send_done(struct rsi_rdma_link *link, enum rsi_rdma_work kind, uint32_t count)
{
    struct rsi_rdma_data *data = &link->data;
    data->completed_count = rsi_rdma_count_extend(data->completed_count, count);
    switch (kind) {
    case RSI_RDMA_WORK_BATCH:
        on_batch_done(link);
        break;
    case RSI_RDMA_WORK_RECORD:
        on_record_done(link);
        break;
    case RSI_RDMA_WORK_BIND:
        data->is_bound = true;
        break;
    case RSI_RDMA_WORK_MARKER:
        data->marker_done = true;
        break;
    case RSI_RDMA_WORK_WORDS:
        data->words_are_under_way = false;
        break;
    case RSI_RDMA_WORK_PROBE:
    case RSI_RDMA_WORK_RECEIVE:
        break;
    }
}

static void on_completion(struct rsi_rdma_poller *poller, const struct ibv_wc *completion)
{
    uint32_t slot = rsi_rdma_work_slot(completion->wr_id);
    struct rsi_rdma_link *link =
        slot < poller->base.link_count_max ? rsi_load_acquire(&poller->slots[slot]) : NULL;
    if (rsi_unlikely(link == NULL || link->qp_number != completion->qp_num)) {
        poller->stale_count++;
        return;
    }
    struct rsi_rdma_data *data = &link->data;
    if (!data->is_touched) {
        data->is_touched = true;
        data->next_touched = poller->touched;
        poller->touched = link;
    }
    if (rsi_unlikely(completion->status != IBV_WC_SUCCESS)) {
        on_failed(link, completion);
        return;
    }
    enum rsi_rdma_work kind = rsi_rdma_work_kind(completion->wr_id);
    uint32_t count = rsi_rdma_work_count(completion->wr_id);
    if (kind != RSI_RDMA_WORK_RECEIVE) {
        on_send_done(link, kind, count);
        return;
    }
    data->receive_count--;
    rsi_bump_relaxed(&link->base.stats.receives, 1);
    if (rsi_unlikely(rsi_load_relaxed(&link->base.failed)) &&
        link->base.failure.status == RSI_E_PROTOCOL) {
        return; /* of a peer that lied nothing is believed; what came over a broken link counts */
    }
    if (completion->opcode == IBV_WC_RECV_RDMA_WITH_IMM) {
        on_batch_arrived(link, count, completion->imm_data);
    } else {
        rsi_rdma_lane_on_record(link, count, completion->byte_len);
    }
}

static RSI_COLD void queue_failed(struct rsi_rdma_poller *poller, struct rsi_rdma_queue *queue)
{
    uint32_t limit = rsi_load_acquire(&poller->slot_limit);
    for (uint32_t i = 0; i < limit; i++) {
        struct rsi_rdma_link *link = rsi_load_acquire(&poller->slots[i]);
        if (link != NULL && link->queue == queue) {
            rsi_link_fail(&link->base, RSI_E_IO, "the completion queue of device %s failed",
                          queue->device->verbs->device->name);
        }
    }
}

static uint32_t poll_queue(struct rsi_rdma_poller *poller, struct rsi_rdma_queue *queue)
{
    struct ibv_wc completions[COMPLETIONS_PER_POLL];
    uint32_t handled = 0;
    for (int i = 0; i < POLLS_PER_PASS; i++) {
        int count = ibv_poll_cq(queue->cq, COMPLETIONS_PER_POLL, completions);
        if (rsi_unlikely(count < 0)) {
            queue_failed(poller, queue);
        }
        for (int k = 0; k < count; k++) {
            on_completion(poller, &completions[k]);
        }
        handled += count > 0 ? (uint32_t)count : 0;
        if (count < COMPLETIONS_PER_POLL) {
            break;
        }
    }
    return handled;
}

/* ---- the pass ------------------------------------------------------------------------------- */

/*
 * A software device copies the word byte by byte, from the low end, so a look in between finds new
 * low bytes under old high ones: less than the new value, perhaps less than the old. What lies
 * behind what is known is therefore no news, not a lie; believing it late harms nobody but the
 * peer.
 */
static uint32_t read_peer_words(struct rsi_rdma_link *link)
{
    struct rsi_link *base = &link->base;
    uint64_t told = rsi_load_acquire(rsi_atomic_u64_at(&link->data.peer_words->consumed_pos));
    if (told <= base->peer_consumed_held_pos) {
        return 0;
    }
    return rsi_link_peer_consumed(base, told) ? 1 : 0;
}

/* News that is too small to be told at once is told after a while. */
static void tell_when_idle(struct rsi_rdma_link *link, uint64_t now_ns)
{
    struct rsi_rdma_data *data = &link->data;
    if (has_news(link) && data->news_ns == 0) {
        data->news_ns = now_ns;
        return;
    }
    bool is_due = is_overdue(link) || now_ns - data->news_ns >= RSI_RDMA_WORDS_NS;
    if (!has_news(link) || (is_due && rsi_rdma_tell_words(link))) {
        data->news_ns = 0;
    }
}

static uint32_t service_data(struct rsi_rdma_link *link, uint64_t now_ns)
{
    struct rsi_link *base = &link->base;
    uint32_t handled = 0;
    if (base->out.capacity_bytes > 0) {
        handled += read_peer_words(link);
    }
    if (base->flushed_pos != base->placed_pos && (link->data.is_stalled || !base->under_way) &&
        rsi_rdma_flush(base) == RSI_OK) {
        handled++;
    }
    tell_when_idle(link, now_ns);
    return handled;
}

static void probe_when_silent(struct rsi_rdma_link *link, uint64_t now_ns)
{
    struct rsi_rdma_data *data = &link->data;
    if (rsi_unlikely(data->heard_ns == 0)) {
        data->heard_ns = now_ns;
    }
    if (rsi_likely(now_ns < data->heard_ns + RSI_RDMA_PROBE_NS) ||
        data->posted_count != data->completed_count) {
        return;
    }
    struct ibv_send_wr probe = {.opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
    (void)rsi_rdma_post(link, RSI_RDMA_WORK_PROBE, &probe, 1);
}

static RSI_COLD void post_marker(struct rsi_rdma_link *link)
{
    struct rsi_rdma_data *data = &link->data;
    struct ibv_send_wr marker = {.opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr *bad = NULL;
    marker.wr_id = rsi_rdma_work_id(RSI_RDMA_WORK_MARKER, link->slot, (uint32_t)data->posted_count);
    data->marker_posted = true;
    data->marker_done = ibv_post_send(data->qp, &marker, &bad) != 0;
}

/* The queue pair is in error. Lets go of the link once everything posted has come back. */
static RSI_COLD void drain(struct rsi_rdma_poller *poller, struct rsi_rdma_link *link,
                           uint64_t now_ns)
{
    struct rsi_rdma_data *data = &link->data;
    if (!data->marker_posted) {
        post_marker(link);
        data->halted_ns = now_ns;
    }
    (void)rsi_rdma_lane_service(link, false);
    bool is_empty = data->marker_done && data->receive_count == 0;
    /* Control messages stay readable after the loss; nobody reads those of a link that is
     * closing. */
    bool is_read = data->deferred_count == 0 || rsi_link_state(&link->base) == RSI_LINK_CLOSING;
    if (!(is_empty && is_read) && now_ns - data->halted_ns < RSI_RDMA_DRAIN_NS / 2) {
        return;
    }
    struct rsi_waker *control_waker = link->base.poller->control_waker;
    rsi_store_release(&poller->slots[link->slot], NULL);
    rsi_store_release(&link->crossing.is_drained, true); /* the last touch */
    rsi_waker_wake(control_waker);
}

static uint32_t service(struct rsi_rdma_poller *poller, struct rsi_rdma_link *link, uint64_t now_ns)
{
    /* Pairs with the release in halt(). */
    if (rsi_unlikely(rsi_load_acquire(&link->crossing.is_halted))) {
        drain(poller, link, now_ns);
        return 0;
    }
    enum rsi_link_state state = rsi_link_state(&link->base);
    bool can_send = is_posting(link) && state != RSI_LINK_CONNECTING && state != RSI_LINK_LOST;
    uint32_t handled = rsi_rdma_lane_service(link, can_send);
    if (can_send && state == RSI_LINK_ATTACHED) {
        handled += service_data(link, now_ns);
    }
    if (can_send) {
        probe_when_silent(link, now_ns);
    }
    return handled;
}

uint32_t rsi_rdma_poll_data(struct rsi_poller *base, uint64_t now_ns)
{
    struct rsi_rdma_poller *poller = rsi_rdma_poller_of(base);
    uint32_t handled = 0;
    uint32_t queue_count = rsi_load_acquire(&poller->queue_count);
    for (uint32_t i = 0; i < queue_count; i++) {
        handled += poll_queue(poller, &poller->queues[i]);
    }
    while (poller->touched != NULL) {
        struct rsi_rdma_link *link = poller->touched;
        poller->touched = link->data.next_touched;
        link->data.is_touched = false;
        link->data.heard_ns = now_ns;
        rsi_rdma_post_receives(link);
    }
    uint32_t slot_limit = rsi_load_acquire(&poller->slot_limit);
    for (uint32_t i = 0; i < slot_limit; i++) {
        struct rsi_rdma_link *link = rsi_load_acquire(&poller->slots[i]);
        if (link != NULL) {
            handled += service(poller, link, now_ns);
        }
    }
    return handled;
}

/* ---- sleeping ------------------------------------------------------------------------------- */

/* Before this thread sleeps: the peer knows all, and wakes us when it can take batches again. */
static void settle(struct rsi_rdma_link *link)
{
    if (rsi_link_state(&link->base) != RSI_LINK_ATTACHED || !is_posting(link)) {
        return;
    }
    (void)rsi_rdma_tell_words(link); /* or the completion of the last ones wakes us first */
    const struct rsi_rdma_wake *asked = &link->data.asked_by_us;
    if (link->data.is_stalled) {
        rsi_rdma_lane_ask(link, link->base.flushed_pos,
                          asked->is_open ? asked->consumed_at_least : UINT64_MAX);
    }
}

/* Has the thread woken in time for the next probes, once for all links. */
static void set_timer(struct rsi_rdma_poller *poller)
{
    if (poller->timer_due_ns != 0) {
        return;
    }
    struct itimerspec due = {.it_value = {.tv_sec = RSI_RDMA_PROBE_NS / 1000000000,
                                          .tv_nsec = RSI_RDMA_PROBE_NS % 1000000000}};
    if (timerfd_settime(poller->timer_fd, 0, &due, NULL) == 0) {
        poller->timer_due_ns = rsi_clock_now_ns() + RSI_RDMA_PROBE_NS;
    }
}

static void clear_timer(struct rsi_rdma_poller *poller)
{
    uint64_t count = 0;
    if (poller->timer_due_ns != 0 && rsi_clock_now_ns() >= poller->timer_due_ns &&
        read(poller->timer_fd, &count, sizeof(count)) == (ssize_t)sizeof(count)) {
        poller->timer_due_ns = 0;
    }
}

bool rsi_rdma_poller_arm(struct rsi_poller *base)
{
    struct rsi_rdma_poller *poller = rsi_rdma_poller_of(base);
    uint32_t queue_count = rsi_load_acquire(&poller->queue_count);
    for (uint32_t i = 0; i < queue_count; i++) {
        struct rsi_rdma_queue *queue = &poller->queues[i];
        /* One that is still armed either fires or has fired into its channel: it wakes. */
        if (!queue->is_armed) {
            queue->is_armed = ibv_req_notify_cq(queue->cq, 0) == 0;
        }
        if (!queue->is_armed) {
            return false;
        }
    }
    if (rsi_rdma_poll_data(base, rsi_clock_now_ns()) > 0) {
        return false;
    }
    uint32_t slot_limit = rsi_load_acquire(&poller->slot_limit);
    for (uint32_t i = 0; i < slot_limit; i++) {
        struct rsi_rdma_link *link = rsi_load_acquire(&poller->slots[i]);
        if (link != NULL) {
            settle(link);
            set_timer(poller);
        }
    }
    return true;
}

void rsi_rdma_poller_disarm(struct rsi_poller *base)
{
    struct rsi_rdma_poller *poller = rsi_rdma_poller_of(base);
    clear_timer(poller);
    uint32_t queue_count = rsi_load_acquire(&poller->queue_count);
    for (uint32_t i = 0; i < queue_count; i++) {
        struct rsi_rdma_queue *queue = &poller->queues[i];
        struct ibv_cq *cq = NULL;
        void *context = NULL;
        if (!queue->is_armed || ibv_get_cq_event(queue->channel, &cq, &context) != 0) {
            continue;
        }
        queue->is_armed = false;
        if (++queue->unacknowledged_count >= EVENTS_PER_ACK) {
            ibv_ack_cq_events(queue->cq, queue->unacknowledged_count);
            queue->unacknowledged_count = 0;
        }
    }
}
