/*
 * What a datagram says, and what is done about it.
 *
 * Design notes
 * - Data lands where its position says, and only where bytes are lacking: what arrived once is
 * never written again, whoever sends it. arrived_pos follows over whole frames: their commit words
 * are read, and held against their place, as soon as they are there.
 * - Nothing is put together anywhere else, so a datagram that comes out of turn costs an entry in
 *   the table of gaps and nothing more.
 * - A state counts only if its number is above that of all states before; so what it says can only
 *   go forward, and what goes back or too far is the peer's fault and ends the link.
 * - A wrong checksum, a wrong address or another link's names are no fault of the peer: dropped and
 *   counted.
 */
#include "core/position.h"
#include "transport/dpdk/dpdk_internal.h"

#include <inttypes.h>
#include <string.h>

/* A round trip longer than this cannot be told from a time stamp that came round. */
#define SAMPLE_NS_MAX UINT64_C(2000000000)

bool rsi_dpdk_violation(struct rsi_dpdk_link *link, const char *what, uint64_t told, uint64_t low,
                        uint64_t high)
{
    link->receive.has_ended = true;
    rsi_link_fail(&link->base, RSI_E_PROTOCOL,
                  "%s: the peer sent %s %" PRIu64 ", but only %" PRIu64 " to %" PRIu64
                  " can be true",
                  link->base.peer_text, what, told, low, high);
    return false;
}

/* ---- data ------------------------------------------------------------------------------------ */

/* Raises arrived_pos to the end of the last whole frame before received_pos. */
static bool advance_arrived(struct rsi_dpdk_link *link)
{
    struct rsi_link *base = &link->base;
    uint64_t received_pos = rsi_gaps_received_pos(&link->receive.gaps);
    uint64_t pos = base->arrived_pos;
    while (pos < received_pos) {
        uint64_t word;
        memcpy(&word, rsi_ring_at(&base->in, pos), sizeof(word));
        uint64_t frame_bytes = rsi_commit_frame_bytes(word, pos);
        if (rsi_unlikely(frame_bytes == 0 || frame_bytes > base->in.capacity_bytes)) {
            return rsi_dpdk_violation(link, "a frame with bytes", frame_bytes,
                                      RSI_FRAME_HEADER_BYTES, base->in.capacity_bytes);
        }
        if (pos + frame_bytes > received_pos) {
            break;
        }
        pos += frame_bytes;
    }
    if (pos == base->arrived_pos) {
        return true;
    }
    rsi_bump_relaxed(&base->stats.batches_arrived, 1);
    if (!rsi_link_arrived(base, pos)) {
        link->receive.has_ended = true;
        return false;
    }
    return true;
}

/* A state will be due because data came. */
static void owe_state(struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_receive *receive = &link->receive;
    receive->data_count++;
    if (receive->state_due_ns == 0) {
        uint64_t delay_ns =
            rsi_pos_min(rsi_path_patience_ns(&link->path), RSI_DPDK_STATE_DELAY_NS_MAX);
        receive->state_due_ns = rsi_dpdk_now_ns(link) + delay_ns;
    }
}

/* The peer sent bytes up to `pos`: what is lacking there is a gap, to be asked for from due_ns on.
 */
static void see_gap(struct rsi_dpdk_link *link, uint64_t pos, uint64_t number, uint64_t due_ns)
{
    struct rsi_gaps *gaps = &link->receive.gaps;
    if (pos > gaps->high_pos) {
        (void)rsi_gaps_raise(gaps, pos, number, due_ns); /* full: a later state shows it again */
    }
}

static bool take_data(struct rsi_dpdk_link *link, const struct rsi_packet *packet,
                      const uint8_t *body, uint32_t bytes)
{
    struct rsi_link *base = &link->base;
    struct rsi_gaps *gaps = &link->receive.gaps;
    struct rsi_datagram_data data;
    if (!link->has_rings || bytes <= sizeof(data)) {
        return true; /* sent before our rings were there, by a peer that has none of them */
    }
    memcpy(&data, body, sizeof(data));
    body += sizeof(data);
    bytes -= (uint32_t)sizeof(data);
    uint64_t limit_pos = base->consumed_pos + base->in.capacity_bytes;
    uint64_t end_pos = data.position + bytes;
    if (data.position > limit_pos || end_pos > limit_pos ||
        !rsi_is_aligned(data.position | bytes, RSI_FRAME_ALIGN_BYTES)) {
        return rsi_dpdk_violation(link, "data up to position", end_pos, base->arrived_pos,
                                  limit_pos);
    }
    rsi_bump_relaxed(&base->stats.receives, 1);
    owe_state(link);
    uint64_t now_ns = rsi_dpdk_now_ns(link);
    see_gap(link, data.position, packet->header.number, now_ns + rsi_path_patience_ns(&link->path));
    uint64_t pos = data.position;
    struct rsi_datagram_range part;
    bool is_new = false;
    while (rsi_gaps_take(gaps, &pos, end_pos, &part)) {
        memcpy(rsi_ring_at(&base->in, part.start_pos), body + (part.start_pos - data.position),
               part.end_pos - part.start_pos);
        is_new = true;
    }
    if (!is_new) {
        link->counts.duplicates++;
        link->send.state_is_owed = true; /* the peer does not know that we have it */
        return true;
    }
    return advance_arrived(link);
}

/* ---- states ---------------------------------------------------------------------------------- */

/* What it says as the reader of our out ring. */
static bool take_reader(struct rsi_dpdk_link *link, const struct rsi_datagram_state *state)
{
    struct rsi_dpdk_send *send = &link->send;
    if (!rsi_pos_is_within(state->received_pos, send->confirmed_pos, send->sent_pos)) {
        return rsi_dpdk_violation(link, "a received position", state->received_pos,
                                  send->confirmed_pos, send->sent_pos);
    }
    if (state->arrived_pos > state->received_pos) {
        return rsi_dpdk_violation(link, "an arrived position", state->arrived_pos, 0,
                                  state->received_pos);
    }
    rsi_path_arrived(&link->path, state->received_pos - send->confirmed_pos, send->is_limited);
    send->confirmed_pos = state->received_pos;
    send->number_limit = rsi_pos_max(send->number_limit, state->number_limit);
    if (!rsi_link_peer_arrived(&link->base, state->arrived_pos) ||
        !rsi_link_peer_consumed(&link->base, state->consumed_pos)) {
        link->receive.has_ended = true;
        return false;
    }
    return true;
}

/* What it says as the writer of our in ring. */
static bool take_writer(struct rsi_dpdk_link *link, const struct rsi_packet *packet,
                        const struct rsi_datagram_state *state)
{
    const struct rsi_link *base = &link->base;
    uint64_t limit_pos = base->consumed_pos + base->in.capacity_bytes;
    if (state->sent_pos > limit_pos || !rsi_is_aligned(state->sent_pos, RSI_FRAME_ALIGN_BYTES)) {
        return rsi_dpdk_violation(link, "a sent position", state->sent_pos, base->arrived_pos,
                                  limit_pos);
    }
    /* A question comes a time-out after the last data: what is lacking then is lost. */
    bool is_question = (packet->header.flags & RSI_DATAGRAM_FLAG_REPLY) != 0 &&
                       packet->header.type == RSI_DATAGRAM_STATE;
    uint64_t now_ns = rsi_dpdk_now_ns(link);
    see_gap(link, state->sent_pos, packet->header.number,
            is_question ? now_ns : now_ns + rsi_path_patience_ns(&link->path));
    return true;
}

static void take_wishes(struct rsi_dpdk_link *link, const struct rsi_datagram_state *state)
{
    struct rsi_dpdk_wake *wake = &link->wake;
    if (state->wake_generation != wake->wanted_generation) {
        wake->wanted_generation = state->wake_generation;
        wake->wanted = (struct rsi_wake_request){
            .arrived_at_least = state->wake_arrived_at_least,
            .consumed_at_least = state->wake_consumed_at_least,
            .generation = state->wake_generation,
        };
    }
    if (state->wake_answered == wake->request_count) {
        wake->requested.generation = 0;
    }
}

static bool take_state(struct rsi_dpdk_link *link, const struct rsi_packet *packet,
                       const uint8_t *body)
{
    struct rsi_dpdk_send *send = &link->send;
    struct rsi_datagram_state state;
    if (packet->header.number <= link->receive.state_number) {
        return true; /* overtaken */
    }
    memcpy(&state, body, sizeof(state));
    if (!rsi_pos_is_within(state.state_seen, send->told_number, send->number)) {
        return rsi_dpdk_violation(link, "a state seen of number", state.state_seen,
                                  send->told_number, send->number);
    }
    link->receive.state_number = packet->header.number;
    bool has_progress =
        state.state_seen > send->told_number || state.lane_received > link->lane.confirmed;
    send->told_number = state.state_seen;
    if (!rsi_dpdk_lane_confirm(link, state.lane_received, state.control_limit)) {
        return false;
    }
    take_wishes(link, &state);
    bool has_positions = (packet->header.flags & RSI_DATAGRAM_FLAG_ATTACHED) != 0 &&
                         link->has_rings && link->has_peer_attach;
    if (has_positions) {
        has_progress = has_progress || state.received_pos > send->confirmed_pos;
        if (!take_reader(link, &state) || !take_writer(link, packet, &state)) {
            return false;
        }
    }
    if (has_progress) {
        rsi_dpdk_hear_answer(link);
    }
    return true;
}

/* The peer lacks a range of what we sent. */
static bool take_range(struct rsi_dpdk_link *link, const struct rsi_datagram_range *range)
{
    struct rsi_dpdk_send *send = &link->send;
    uint64_t start_pos = rsi_pos_max(range->start_pos, send->confirmed_pos);
    if (range->end_pos > send->sent_pos || range->start_pos >= range->end_pos ||
        !rsi_is_aligned(range->start_pos | range->end_pos, RSI_FRAME_ALIGN_BYTES)) {
        return rsi_dpdk_violation(link, "a range that it lacks up to", range->end_pos,
                                  range->start_pos, send->sent_pos);
    }
    if (start_pos < range->end_pos && send->resend_count < RSI_DATAGRAM_RANGE_COUNT_MAX) {
        link->counts.lost_bytes += range->end_pos - start_pos;
        send->resend[send->resend_count++] =
            (struct rsi_datagram_range){.start_pos = start_pos, .end_pos = range->end_pos};
        rsi_path_lost(&link->path, start_pos, send->sent_pos);
    }
    return true;
}

static bool take_ranges(struct rsi_dpdk_link *link, const uint8_t *body, uint32_t bytes)
{
    if (!link->has_rings || !link->has_peer_attach) {
        return true;
    }
    link->send.resend_count = 0; /* these are what it lacks by now */
    for (uint32_t at = 0; at + sizeof(struct rsi_datagram_range) <= bytes;
         at += (uint32_t)sizeof(struct rsi_datagram_range)) {
        struct rsi_datagram_range range;
        memcpy(&range, body + at, sizeof(range));
        if (!take_range(link, &range)) {
            return false;
        }
    }
    return true;
}

/* ---- the others ------------------------------------------------------------------------------ */

static RSI_NOINLINE void take_reset(struct rsi_dpdk_link *link, const struct rsi_packet *packet)
{
    struct rsi_datagram_reset reset;
    if (packet->header.bytes < sizeof(reset)) {
        return;
    }
    memcpy(&reset, packet->body, sizeof(reset));
    if (reset.number <= link->send.told_number || reset.number > link->send.number) {
        return; /* of nothing that we sent, or that it can lack: it has seen a later one */
    }
    link->receive.has_ended = true;
    rsi_link_fail(&link->base, RSI_E_LINK_LOST,
                  "%s: the peer knows nothing of this connection; it closed it, or its process "
                  "ended and another one runs there",
                  link->base.peer_text);
}

static RSI_NOINLINE void take_probe(struct rsi_dpdk_link *link, const struct rsi_packet *packet)
{
    struct rsi_datagram_probe probe;
    uint32_t bytes = packet->header.bytes;
    if (bytes < sizeof(probe)) {
        return;
    }
    memcpy(&probe, packet->body, sizeof(probe));
    if (packet->header.type == RSI_DATAGRAM_PROBE_ACK) {
        if (probe.mtu == link->send.probe_mtu && probe.mtu != 0) {
            rsi_dpdk_set_mtu(link, probe.mtu);
            link->send.probe_mtu = 0;
        }
        return;
    }
    struct rsi_port_frame *frame = rsi_dpdk_burst_frame(rsi_dpdk_poller(link->base.poller));
    if (frame != NULL && probe.mtu <= link->mtu && bytes == rsi_packet_body_bytes_max(probe.mtu)) {
        memcpy(rsi_packet_body(frame), &probe, sizeof(probe));
        rsi_dpdk_emit(link, frame, RSI_DATAGRAM_PROBE_ACK, 0, sizeof(probe));
    }
}

/* Time stamps of either side, and what is newest. */
static void take_header(struct rsi_dpdk_link *link, const struct rsi_datagram_header *header)
{
    struct rsi_dpdk_receive *receive = &link->receive;
    uint64_t now_ns = rsi_dpdk_now_ns(link);
    receive->heard_ns = now_ns;
    if (header->number > receive->newest_number) {
        receive->newest_number = header->number;
        receive->timestamp_ns = header->timestamp_ns;
        receive->timestamp_at_ns = now_ns;
    }
    uint32_t sample_ns = (uint32_t)now_ns - header->echo_ns;
    if (header->echo_ns != 0 && sample_ns < SAMPLE_NS_MAX) {
        rsi_path_sample(&link->path, sample_ns);
    }
    if ((header->flags & RSI_DATAGRAM_FLAG_REPLY) != 0) {
        link->send.state_is_owed = true;
    }
}

/* The state in front of the body, if there is one. Sets what is behind it. False: the link is over,
 * or the datagram is too short for what it says of itself. */
static bool take_front(struct rsi_dpdk_link *link, const struct rsi_packet *packet,
                       const uint8_t **body, uint32_t *bytes)
{
    *body = packet->body;
    *bytes = packet->header.bytes;
    if ((packet->header.flags & RSI_DATAGRAM_FLAG_STATE) == 0) {
        return true;
    }
    if (*bytes < RSI_DATAGRAM_STATE_BYTES) {
        return rsi_dpdk_violation(link, "a state with bytes", *bytes, RSI_DATAGRAM_STATE_BYTES,
                                  RSI_DATAGRAM_STATE_BYTES);
    }
    *body += RSI_DATAGRAM_STATE_BYTES;
    *bytes -= RSI_DATAGRAM_STATE_BYTES;
    return take_state(link, packet, packet->body);
}

static void take_body(struct rsi_dpdk_link *link, const struct rsi_packet *packet)
{
    const uint8_t *body;
    uint32_t bytes;
    bool is_new_state = packet->header.number > link->receive.state_number;
    if (!take_front(link, packet, &body, &bytes)) {
        return;
    }
    if (packet->header.type == RSI_DATAGRAM_DATA) {
        (void)take_data(link, packet, body, bytes);
    } else if (packet->header.type == RSI_DATAGRAM_LANE) {
        (void)rsi_dpdk_lane_take(link, body, bytes);
    } else if (is_new_state && bytes != 0) {
        (void)take_ranges(link, body, bytes);
    }
}

void rsi_dpdk_take(struct rsi_dpdk_link *link, const struct rsi_packet *packet,
                   struct rsi_port_frame *frame)
{
    const struct rsi_datagram_header *header = &packet->header;
    if (rsi_unlikely(!rsi_packet_is_intact(packet, frame))) {
        link->counts.spoilt++;
        return;
    }
    if (header->from != link->peer_connection || packet->source.address != link->peer_end.address) {
        return;
    }
    switch (header->type) {
    case RSI_DATAGRAM_DATA:
    case RSI_DATAGRAM_STATE:
    case RSI_DATAGRAM_LANE:
        take_header(link, header);
        take_body(link, packet);
        break;
    case RSI_DATAGRAM_PROBE:
    case RSI_DATAGRAM_PROBE_ACK:
        take_header(link, header);
        take_probe(link, packet);
        break;
    case RSI_DATAGRAM_RESET:
        take_reset(link, packet);
        break;
    default: /* the handshake is over: an answer that came late */
        break;
    }
}
