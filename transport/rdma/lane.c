/*
 * The control lane, on the owner thread: records by SEND and RECV beside the data.
 *
 * Design notes
 * - Application messages and CLOSE are handed over in the order in which they came; a full inbox
 *   holds them in their receive buffers, which are then not posted again, and so holds back the
 *   peer by its credit. The transport's own records never wait behind them: credit, attach and
 *   wake-ups move whatever the layer above does.
 * - A record's receive counts as taken when it is posted again, and is told after that: the peer
 *   never sends into nothing.
 * - Every record is signalled: its buffer comes back with the completion, in order.
 */
#include "transport/rdma/rdma_internal.h"

#include <string.h>

#define ACK_WAKE_GENERATION_MASK UINT64_C(0xffff)

/* ---- sending -------------------------------------------------------------------------------- */

/* Whether the lane takes a record now. */
static bool has_room(const struct rsi_rdma_data *data, bool is_credit_only)
{
    return rsi_rdma_credit_allows(&data->credit, is_credit_only) &&
           data->record_sent_count - data->record_done_count < RSI_RDMA_SEND_BUFFERS &&
           rsi_rdma_send_room(data) > 1;
}

/* has_room() was true. */
static void send_record(struct rsi_rdma_link *link, enum rsi_record_kind kind, uint64_t generation,
                        const void *body, uint32_t bytes)
{
    struct rsi_rdma_data *data = &link->data;
    uint32_t index = (uint32_t)(data->record_sent_count % RSI_RDMA_SEND_BUFFERS);
    uint8_t *buffer = link->send_buffers + (size_t)index * RSI_RDMA_BUFFER_BYTES;
    struct rsi_record_header header = {
        .kind = (uint8_t)kind,
        .generation = (uint16_t)(generation & ACK_WAKE_GENERATION_MASK),
        .bytes = bytes,
        .position = rsi_rdma_credit_spend(&data->credit),
    };
    memcpy(buffer, &header, sizeof(header));
    if (bytes > 0) {
        memcpy(buffer + sizeof(header), body, bytes);
    }
    data->record_sent_count++;
    struct ibv_sge span = {
        .addr = (uintptr_t)buffer,
        .length = RSI_RECORD_HEADER_BYTES + bytes,
        .lkey = link->buffers_region.mr->lkey,
    };
    struct ibv_send_wr request = {
        .sg_list = &span,
        .num_sge = 1,
        .opcode = IBV_WR_SEND,
        .send_flags =
            IBV_SEND_SIGNALED | (span.length <= data->way.inline_bytes_max ? IBV_SEND_INLINE : 0u),
    };
    (void)rsi_rdma_post(link, RSI_RDMA_WORK_RECORD, &request, 1);
}

static struct rsi_positions own_positions(const struct rsi_rdma_link *link)
{
    return (struct rsi_positions){
        .arrived_pos = link->base.arrived_pos,
        .consumed_pos = link->base.consumed_pos,
    };
}

void rsi_rdma_lane_answer(struct rsi_rdma_link *link)
{
    struct rsi_rdma_wake *asked = &link->data.asked_by_peer;
    if (!asked->is_open || (link->base.arrived_pos < asked->arrived_at_least &&
                            link->base.consumed_pos < asked->consumed_at_least)) {
        return;
    }
    /* The words go first and on the same queue pair, so the peer sees them when it sees the record.
     * What finds no room is tried again by the service of the next pass. */
    if (!has_room(&link->data, false) || !rsi_rdma_tell_words(link) ||
        !has_room(&link->data, false)) {
        return;
    }
    struct rsi_positions positions = own_positions(link);
    asked->is_open = false;
    send_record(link, RSI_RECORD_WAKE, asked->generation, &positions, sizeof(positions));
    rsi_bump_relaxed(&link->base.stats.wakes_sent, 1);
}

static void send_request(struct rsi_rdma_link *link)
{
    struct rsi_rdma_wake *asked = &link->data.asked_by_us;
    asked->is_due = !has_room(&link->data, false);
    if (asked->is_due) {
        return;
    }
    struct rsi_wake_request request = {
        .arrived_at_least = asked->arrived_at_least,
        .consumed_at_least = asked->consumed_at_least,
        .generation = asked->generation,
    };
    send_record(link, RSI_RECORD_WAKE_REQUEST, asked->generation, &request, sizeof(request));
    rsi_bump_relaxed(&link->base.stats.wake_requests, 1);
}

void rsi_rdma_lane_ask(struct rsi_rdma_link *link, uint64_t arrived_at_least,
                       uint64_t consumed_at_least)
{
    struct rsi_rdma_wake *asked = &link->data.asked_by_us;
    if (asked->is_open && asked->arrived_at_least == arrived_at_least &&
        asked->consumed_at_least == consumed_at_least) {
        return;
    }
    asked->arrived_at_least = arrived_at_least;
    asked->consumed_at_least = consumed_at_least;
    asked->generation++;
    asked->is_open = true;
    send_request(link);
}

/* Binds the window to this queue pair; without a window there is nothing to bind. */
static void begin_attach(struct rsi_rdma_link *link)
{
    struct rsi_rdma_data *data = &link->data;
    const struct rsi_rdma_region *region = &link->in_region;
    data->bind_posted = true;
    if (region->mw == NULL) {
        data->is_bound = true;
        return;
    }
    struct ibv_send_wr request = {
        .opcode = IBV_WR_BIND_MW,
        .send_flags = IBV_SEND_SIGNALED,
        .bind_mw =
            {
                .mw = region->mw,
                .rkey = link->own_attach.key,
                .bind_info =
                    {
                        .mr = region->mr,
                        .addr = (uintptr_t)region->mr->addr,
                        .length = region->bytes,
                        .mw_access_flags = IBV_ACCESS_REMOTE_WRITE,
                    },
            },
    };
    (void)rsi_rdma_post(link, RSI_RDMA_WORK_BIND, &request, 1);
}

static uint32_t service_attach(struct rsi_rdma_link *link)
{
    struct rsi_rdma_data *data = &link->data;
    /* Pairs with the release in link_attach: region, window and rings are made. */
    if (rsi_load_relaxed(&link->crossing.attach_sent) ||
        !rsi_load_acquire(&link->crossing.is_attaching)) {
        return 0;
    }
    if (!data->bind_posted && rsi_rdma_send_room(data) > 1) {
        begin_attach(link);
    }
    if (!data->is_bound || !has_room(data, false)) {
        return 0;
    }
    send_record(link, RSI_RECORD_ATTACH, 0, &link->own_attach, sizeof(link->own_attach));
    rsi_store_release(&link->crossing.attach_sent, true);
    rsi_waker_wake(link->base.poller->control_waker);
    return 1;
}

static uint32_t service_outbox(struct rsi_rdma_link *link)
{
    uint32_t handled = 0;
    uint32_t bytes = 0;
    const void *message = rsi_link_outbox_front(&link->base, &bytes);
    while (message != NULL && has_room(&link->data, false)) {
        send_record(link, RSI_RECORD_CONTROL, 0, message, bytes);
        rsi_link_outbox_pop(&link->base);
        handled++;
        message = rsi_link_outbox_front(&link->base, &bytes);
    }
    bool wants_close = rsi_load_acquire(&link->crossing.wants_close);
    if (wants_close && message == NULL && !link->data.close_posted &&
        has_room(&link->data, false)) {
        /* The outbox is looked at again: its last message may have come just before the wish. */
        if (rsi_link_outbox_front(&link->base, &bytes) != NULL) {
            return handled + 1;
        }
        link->data.close_posted = true;
        send_record(link, RSI_RECORD_CLOSE, 0, NULL, 0);
        handled++;
    }
    return handled;
}

/* ---- receiving ------------------------------------------------------------------------------ */

static RSI_COLD void record_is_wrong(struct rsi_rdma_link *link, const char *what,
                                     const struct rsi_record_header *header)
{
    rsi_link_fail(&link->base, RSI_E_PROTOCOL,
                  "the peer sent a control record (kind %u, %u bytes) that %s", header->kind,
                  header->bytes, what);
}

static void take(struct rsi_rdma_link *link, uint32_t index)
{
    link->data.credit.taken_count++;
    rsi_rdma_repost(link, index);
}

static void defer(struct rsi_rdma_link *link, uint32_t index)
{
    struct rsi_rdma_data *data = &link->data;
    uint32_t at = (data->deferred_head + data->deferred_count) % RSI_RDMA_RECEIVE_COUNT;
    data->deferred[at] = (uint16_t)index;
    data->deferred_count++;
}

static const uint8_t *buffer_at(const struct rsi_rdma_link *link, uint32_t index)
{
    return link->receive_buffers + (size_t)index * RSI_RDMA_BUFFER_BYTES;
}

static bool on_attach(struct rsi_rdma_link *link, const uint8_t *body)
{
    if (rsi_load_relaxed(&link->crossing.peer_attached)) {
        return false;
    }
    struct rsi_attach *attach = &link->peer_attach;
    memcpy(attach, body, sizeof(*attach));
    struct rsi_rdma_data *data = &link->data;
    data->way.remote_address = attach->ring_address;
    data->way.remote_key = attach->key;
    data->peer_words_address = attach->words_address;
    data->batch_limit = attach->batch_credit;
    rsi_store_release(&link->crossing.peer_attached, true);
    rsi_waker_wake(link->base.poller->control_waker);
    return true;
}

static void on_wake_request(struct rsi_rdma_link *link, const uint8_t *body)
{
    struct rsi_wake_request request;
    memcpy(&request, body, sizeof(request));
    link->data.asked_by_peer = (struct rsi_rdma_wake){
        .arrived_at_least = request.arrived_at_least,
        .consumed_at_least = request.consumed_at_least,
        .generation = request.generation,
        .is_open = true,
    };
}

static void on_wake(struct rsi_rdma_link *link, const struct rsi_record_header *header)
{
    /* An answer to an older request says nothing about the present one. The positions in it are
     * those of the words page, which was written before. */
    struct rsi_rdma_wake *asked = &link->data.asked_by_us;
    if ((asked->generation & ACK_WAKE_GENERATION_MASK) == header->generation) {
        asked->is_open = false;
    }
}

/* Bytes that follow the header; UINT32_MAX: any number of them. */
static uint32_t body_bytes_of(uint8_t kind)
{
    switch (kind) {
    case RSI_RECORD_ATTACH:
        return sizeof(struct rsi_attach);
    case RSI_RECORD_WAKE_REQUEST:
        return sizeof(struct rsi_wake_request);
    case RSI_RECORD_WAKE:
    case RSI_RECORD_POSITIONS:
        return sizeof(struct rsi_positions);
    default:
        return UINT32_MAX;
    }
}

void rsi_rdma_lane_on_record(struct rsi_rdma_link *link, uint32_t index, uint32_t bytes)
{
    const uint8_t *buffer = buffer_at(link, index);
    struct rsi_record_header header = {0};
    if (bytes >= sizeof(header)) {
        memcpy(&header, buffer, sizeof(header));
    }
    uint32_t body_bytes = body_bytes_of(header.kind);
    if (bytes < sizeof(header) || header.bytes != bytes - sizeof(header) ||
        (body_bytes != UINT32_MAX && header.bytes != body_bytes)) {
        record_is_wrong(link, "has another length than its kind", &header);
        return;
    }
    if (!rsi_rdma_credit_return(&link->data.credit, header.position)) {
        record_is_wrong(link, "gives back credit that was not spent", &header);
        return;
    }
    const uint8_t *body = buffer + sizeof(header);
    switch (header.kind) {
    case RSI_RECORD_CONTROL:
    case RSI_RECORD_CLOSE:
        defer(link, index);
        return;
    case RSI_RECORD_ATTACH:
        if (!on_attach(link, body)) {
            record_is_wrong(link, "comes once only", &header);
            return;
        }
        break;
    case RSI_RECORD_WAKE_REQUEST:
        on_wake_request(link, body);
        break;
    case RSI_RECORD_WAKE:
        on_wake(link, &header);
        break;
    case RSI_RECORD_POSITIONS:
        break; /* it carried credit */
    default:
        record_is_wrong(link, "is of no known kind", &header);
        return;
    }
    take(link, index);
}

/* Keeps what of the peer's text can be printed. */
static void copy_reason(struct rsi_rdma_link *link, const uint8_t *text, uint32_t bytes)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < bytes && count + 1 < sizeof(link->peer_reason); i++) {
        if (text[i] >= ' ' && text[i] <= '~') {
            link->peer_reason[count++] = (char)text[i];
        }
    }
    link->peer_reason[count] = 0;
}

/* Hands over deferred records as far as the inbox takes them. */
static uint32_t hand_over(struct rsi_rdma_link *link)
{
    struct rsi_rdma_data *data = &link->data;
    uint32_t handled = 0;
    while (data->deferred_count > 0) {
        uint32_t index = data->deferred[data->deferred_head];
        const uint8_t *buffer = buffer_at(link, index);
        struct rsi_record_header header;
        memcpy(&header, buffer, sizeof(header));
        if (header.kind == RSI_RECORD_CLOSE) {
            copy_reason(link, buffer + sizeof(header), header.bytes);
            rsi_store_release(&link->crossing.peer_closed, true);
            rsi_waker_wake(link->base.poller->control_waker);
        } else {
            rsi_status_t status =
                rsi_link_inbox_push(&link->base, buffer + sizeof(header), header.bytes);
            if (status == RSI_WOULD_BLOCK) {
                break;
            }
            if (status != RSI_OK) {
                record_is_wrong(link, "no inbox takes", &header);
                break;
            }
        }
        data->deferred_head = (data->deferred_head + 1) % RSI_RDMA_RECEIVE_COUNT;
        data->deferred_count--;
        take(link, index);
        handled++;
    }
    return handled;
}

uint32_t rsi_rdma_lane_service(struct rsi_rdma_link *link, bool can_send)
{
    struct rsi_rdma_data *data = &link->data;
    uint32_t handled = hand_over(link);
    if (!can_send) {
        return handled;
    }
    rsi_rdma_post_receives(link);
    handled += service_outbox(link);
    handled += service_attach(link);
    rsi_rdma_lane_answer(link);
    if (data->asked_by_us.is_due) {
        send_request(link);
    }
    if (rsi_rdma_credit_is_owed(&data->credit) && has_room(data, true)) {
        struct rsi_positions positions = own_positions(link);
        send_record(link, RSI_RECORD_POSITIONS, 0, &positions, sizeof(positions));
    }
    return handled;
}
