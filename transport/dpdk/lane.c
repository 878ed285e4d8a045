/*
 * The lane: control messages, ATTACH and CLOSE, in order and without loss, beside the data.
 *
 * Design notes
 * - Few and small, so simple: a window of RSI_DPDK_LANE_WINDOW records with copies, and when no
 *   answer comes, all that is open goes out again (go-back-N). The receiver takes only the record
 *   that is next.
 * - A control message is sent only if the peer's inbox has room for it, so that the lane never
 *   stands still for long and its other records pass: the credit is told in every state.
 * - CLOSE is the last record: it follows what the outbox held.
 */
#include "core/assert.h"
#include "core/position.h"
#include "transport/dpdk/dpdk_internal.h"

#include <string.h>

rsi_static_assert((RSI_DPDK_LANE_WINDOW & (RSI_DPDK_LANE_WINDOW - 1)) == 0);

static struct rsi_dpdk_lane_slot *lane_slot(struct rsi_dpdk_lane *lane, uint64_t sequence)
{
    return &lane->slots[sequence % RSI_DPDK_LANE_WINDOW];
}

/* ---- sending --------------------------------------------------------------------------------- */

static bool has_room(const struct rsi_dpdk_lane *lane)
{
    return lane->composed - lane->confirmed < RSI_DPDK_LANE_WINDOW;
}

static void compose(struct rsi_dpdk_lane *lane, enum rsi_record_kind kind, const void *data,
                    uint32_t bytes)
{
    struct rsi_dpdk_lane_slot *slot = lane_slot(lane, lane->composed);
    struct rsi_datagram_lane head = {
        .sequence = lane->composed,
        .bytes = (uint16_t)bytes,
        .kind = (uint8_t)kind,
    };
    memset(slot->record, 0, sizeof(head) + rsi_align_up_8(bytes));
    memcpy(slot->record, &head, sizeof(head));
    if (bytes != 0) {
        memcpy(slot->record + sizeof(head), data, bytes);
    }
    slot->bytes = (uint32_t)(sizeof(head) + rsi_align_up_8(bytes));
    lane->composed++;
}

static void compose_attach(struct rsi_dpdk_link *link)
{
    struct rsi_attach attach;
    rsi_attach_init(&attach, &link->rings);
    compose(&link->lane, RSI_RECORD_ATTACH, &attach, sizeof(attach));
    link->lane.attach_is_owed = false;
    rsi_dpdk_try_attached(link);
}

static void compose_some(struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_lane *lane = &link->lane;
    if (lane->attach_is_owed && has_room(lane)) {
        compose_attach(link);
    }
    uint32_t bytes;
    const void *message;
    while (has_room(lane) && lane->control_count < lane->control_limit &&
           (message = rsi_link_outbox_front(&link->base, &bytes)) != NULL) {
        compose(lane, RSI_RECORD_CONTROL, message, bytes);
        lane->control_count++;
        rsi_link_outbox_pop(&link->base);
    }
    if (lane->close_is_owed && has_room(lane) && rsi_mailbox_is_empty(&link->base.outbox)) {
        compose(lane, RSI_RECORD_CLOSE, NULL, 0);
        lane->close_is_owed = false;
        lane->close_is_composed = true;
    }
}

bool rsi_dpdk_lane_wants_to_send(struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_lane *lane = &link->lane;
    if (lane->sent != lane->composed) {
        return true;
    }
    if (!has_room(lane)) {
        return false;
    }
    bool outbox_is_empty = rsi_mailbox_is_empty(&link->base.outbox);
    return lane->attach_is_owed ||
           (!outbox_is_empty && lane->control_count < lane->control_limit) ||
           (lane->close_is_owed && outbox_is_empty);
}

/* One datagram with as many records as fit. False: the port takes none. */
static bool send_one(struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_lane *lane = &link->lane;
    struct rsi_port_frame *frame = rsi_dpdk_burst_frame(rsi_dpdk_poller(link->base.poller));
    if (frame == NULL) {
        return false;
    }
    uint32_t flags = 0;
    uint8_t *body = rsi_packet_body(frame);
    uint32_t bytes = rsi_dpdk_write_state(link, body, &flags);
    while (lane->sent != lane->composed) {
        const struct rsi_dpdk_lane_slot *slot = lane_slot(lane, lane->sent);
        if (bytes + slot->bytes > link->send.body_bytes_max) {
            break;
        }
        memcpy(body + bytes, slot->record, slot->bytes);
        bytes += slot->bytes;
        lane->sent++;
    }
    rsi_dpdk_emit(link, frame, RSI_DATAGRAM_LANE, flags, bytes);
    return true;
}

uint32_t rsi_dpdk_lane_send(struct rsi_dpdk_link *link)
{
    uint32_t count = 0;
    compose_some(link);
    while (link->lane.sent != link->lane.composed && send_one(link)) {
        count++;
    }
    if (count != 0) {
        rsi_dpdk_await_answer(link);
    }
    return count;
}

void rsi_dpdk_lane_rewind(struct rsi_dpdk_lane *lane)
{
    lane->sent = lane->confirmed;
}

bool rsi_dpdk_lane_confirm(struct rsi_dpdk_link *link, uint64_t received, uint64_t control_limit)
{
    struct rsi_dpdk_lane *lane = &link->lane;
    if (!rsi_pos_is_within(received, lane->confirmed, lane->composed)) {
        return rsi_dpdk_violation(link, "a count of lane records", received, lane->confirmed,
                                  lane->composed);
    }
    lane->confirmed = received;
    lane->sent = rsi_pos_max(lane->sent, received);
    lane->control_limit = rsi_pos_max(lane->control_limit, control_limit);
    return true;
}

/* ---- receiving ------------------------------------------------------------------------------- */

uint64_t rsi_dpdk_lane_control_limit(struct rsi_dpdk_link *link)
{
    return link->lane.received_control_count + rsi_mailbox_free_count(&link->base.inbox);
}

bool rsi_dpdk_lane_report_is_due(struct rsi_dpdk_link *link)
{
    const struct rsi_dpdk_lane *lane = &link->lane;
    bool can_have_moved =
        lane->received_control_count + RSI_CONTROL_SLOT_COUNT != lane->reported_control_limit;
    return can_have_moved && rsi_dpdk_lane_control_limit(link) - lane->reported_control_limit >=
                                 RSI_CONTROL_SLOT_COUNT / 4;
}

static bool take_control(struct rsi_dpdk_link *link, const uint8_t *data, uint32_t bytes)
{
    if (bytes == 0 || bytes > RSI_CONTROL_BYTES_MAX) {
        return rsi_dpdk_violation(link, "a control message with bytes", bytes, 1,
                                  RSI_CONTROL_BYTES_MAX);
    }
    if (rsi_link_inbox_push(&link->base, data, bytes) != RSI_OK) {
        uint64_t limit = link->lane.reported_control_limit;
        return rsi_dpdk_violation(link, "a control message without credit, number",
                                  link->lane.received_control_count + 1, 1, limit);
    }
    link->lane.received_control_count++;
    return true;
}

static bool take_attach(struct rsi_dpdk_link *link, const uint8_t *data, uint32_t bytes)
{
    if (bytes != sizeof(link->peer_attach) || link->has_peer_attach) {
        return rsi_dpdk_violation(link, "an attach record with bytes", bytes,
                                  sizeof(link->peer_attach), sizeof(link->peer_attach));
    }
    memcpy(&link->peer_attach, data, bytes);
    link->has_peer_attach = true;
    rsi_dpdk_try_attached(link);
    return !link->receive.has_ended;
}

static bool take_record(struct rsi_dpdk_link *link, const struct rsi_datagram_lane *head,
                        const uint8_t *data)
{
    switch (head->kind) {
    case RSI_RECORD_CONTROL:
        return take_control(link, data, head->bytes);
    case RSI_RECORD_ATTACH:
        return take_attach(link, data, head->bytes);
    case RSI_RECORD_CLOSE:
        link->lane.received++;
        (void)rsi_dpdk_send_all(link); /* the state that is owed says that it came */
        link->receive.has_ended = true;
        rsi_link_fail(&link->base, RSI_E_LINK_CLOSED, "%s: the peer closed the link",
                      link->base.peer_text);
        return false;
    default:
        return rsi_dpdk_violation(link, "a lane record of kind", head->kind, RSI_RECORD_CONTROL,
                                  RSI_RECORD_CLOSE);
    }
}

bool rsi_dpdk_lane_take(struct rsi_dpdk_link *link, const uint8_t *body, uint32_t bytes)
{
    struct rsi_dpdk_lane *lane = &link->lane;
    link->send.state_is_owed = true;
    while (bytes != 0) {
        struct rsi_datagram_lane head;
        if (bytes < sizeof(head)) {
            return rsi_dpdk_violation(link, "the beginning of a lane record, bytes", bytes,
                                      sizeof(head), sizeof(head));
        }
        memcpy(&head, body, sizeof(head));
        uint32_t record_bytes = (uint32_t)(sizeof(head) + rsi_align_up_8(head.bytes));
        if (record_bytes > bytes) {
            return rsi_dpdk_violation(link, "a lane record with bytes", record_bytes, sizeof(head),
                                      bytes);
        }
        if (head.sequence > lane->received) {
            return true; /* one before it was lost, and comes again with all that follow */
        }
        if (head.sequence == lane->received) {
            if (!take_record(link, &head, body + sizeof(head))) {
                return false;
            }
            lane->received++;
        }
        body += record_bytes;
        bytes -= record_bytes;
    }
    return true;
}
