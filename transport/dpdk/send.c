/*
 * What a link sends: data, states, what has to be sent again, and questions when no answer comes.
 *
 * Design notes
 * - Data goes straight from the out ring into frames: the ring keeps what did not arrive, so
 *   nothing else remembers it. What the peer lacks it says itself, by ranges.
 * - Three limits hold data back: the ring's credit in bytes (the layer above keeps it), the peer's
 *   credit in datagrams (its port loses in silence what it cannot hold), the window (path.h).
 * - A state is absolute, so one that is lost is repaired by any later one. Some things must not
 *   wait for that: credit, wishes and their answers. The state that tells them is remembered
 *   (telling_number) until the peer says that it saw it.
 * - So there is one time-out for everything that is open: data, lane, telling states. When it runs
 *   out, a state goes out that asks for an answer; the answer says what is lacking. A question is
 *   small, so a wrong guess costs little, and the last bytes before a pause are found lost as any
 *   others.
 * - An answer to a state is no question itself: two idle ends fall silent.
 */
#include "core/assert.h"
#include "core/position.h"
#include "transport/dpdk/dpdk_internal.h"

#include <inttypes.h>
#include <string.h>

/* A state goes along with every so many datagrams while the peer awaits an answer to its own. */
#define STATE_EVERY 16u

/* ---- what is open ---------------------------------------------------------------------------- */

static bool is_open(const struct rsi_dpdk_link *link)
{
    const struct rsi_dpdk_send *send = &link->send;
    return send->sent_pos != send->confirmed_pos || rsi_dpdk_lane_is_open(&link->lane) ||
           send->telling_number > send->told_number;
}

void rsi_dpdk_await_answer(struct rsi_dpdk_link *link)
{
    if (link->send.timeout_ns == 0) {
        link->send.timeout_ns = rsi_dpdk_now_ns(link) + rsi_path_timeout_ns(&link->path);
    }
}

void rsi_dpdk_hear_answer(struct rsi_dpdk_link *link)
{
    rsi_path_heard(&link->path);
    link->send.timeout_ns =
        is_open(link) ? rsi_dpdk_now_ns(link) + rsi_path_timeout_ns(&link->path) : 0;
}

/* ---- states ---------------------------------------------------------------------------------- */

bool rsi_dpdk_wake_is_due(const struct rsi_dpdk_link *link)
{
    const struct rsi_wake_request *wanted = &link->wake.wanted;
    return wanted->generation != 0 && (link->base.arrived_pos >= wanted->arrived_at_least ||
                                       link->base.consumed_pos >= wanted->consumed_at_least);
}

static bool consumed_is_due(const struct rsi_dpdk_link *link)
{
    uint64_t bytes = link->base.consumed_pos - link->receive.reported_consumed_pos;
    return bytes != 0 && bytes >= link->base.in.capacity_bytes / RSI_DPDK_REPORTS_PER_RING;
}

static bool has_moved(const struct rsi_dpdk_link *link)
{
    return link->base.consumed_pos != link->receive.reported_consumed_pos ||
           link->base.arrived_pos != link->receive.reported_arrived_pos;
}

bool rsi_dpdk_state_is_due(struct rsi_dpdk_link *link, uint64_t now_ns)
{
    const struct rsi_dpdk_receive *receive = &link->receive;
    if (link->send.state_is_owed || receive->data_count >= RSI_DPDK_STATE_DATAGRAMS ||
        (receive->state_due_ns != 0 && now_ns >= receive->state_due_ns)) {
        return true;
    }
    if (rsi_dpdk_lane_report_is_due(link)) {
        return true;
    }
    if (!link->has_rings) {
        return false;
    }
    return consumed_is_due(link) || rsi_dpdk_wake_is_due(link) ||
           rsi_gaps_are_due(&receive->gaps, receive->newest_number, now_ns) ||
           (has_moved(link) && now_ns - receive->reported_ns >= RSI_DPDK_REPORT_INTERVAL_NS);
}

/* The number up to which the peer may send us data. */
static uint64_t number_limit(const struct rsi_dpdk_link *link)
{
    struct rsi_station *station = rsi_dpdk_poller(link->base.poller)->station;
    uint32_t link_count = rsi_load_relaxed(&station->link_count);
    uint64_t share = (uint64_t)station->port->receive_frames * RSI_DPDK_CREDIT_QUARTERS / 4 /
                     (link_count != 0 ? link_count : 1);
    return link->receive.newest_number + rsi_pos_max(share, RSI_DPDK_CREDIT_MIN);
}

static void answer_wish(struct rsi_dpdk_link *link)
{
    if (link->has_rings && rsi_dpdk_wake_is_due(link)) {
        link->wake.answered_generation = (uint32_t)link->wake.wanted.generation;
        link->wake.wanted.generation = 0;
        link->send.is_telling = true;
        rsi_bump_relaxed(&link->base.stats.wakes_sent, 1);
    }
}

static void fill_state(struct rsi_dpdk_link *link, struct rsi_datagram_state *state)
{
    const struct rsi_link *base = &link->base;
    const struct rsi_wake_request *requested = &link->wake.requested;
    *state = (struct rsi_datagram_state){
        .state_seen = link->receive.state_number,
        .lane_received = link->lane.received,
        .control_limit = rsi_dpdk_lane_control_limit(link),
        .number_limit = number_limit(link),
        .wake_arrived_at_least = requested->arrived_at_least,
        .wake_consumed_at_least = requested->consumed_at_least,
        .wake_generation = link->wake.request_count,
        .wake_answered = link->wake.answered_generation,
    };
    if (link->has_rings) {
        state->received_pos = rsi_gaps_received_pos(&link->receive.gaps);
        state->arrived_pos = base->arrived_pos;
        state->consumed_pos = base->consumed_pos;
        state->sent_pos = link->send.sent_pos;
    }
}

/* What a state told need not be told again soon. */
static void note_told(struct rsi_dpdk_link *link, const struct rsi_datagram_state *state)
{
    struct rsi_dpdk_receive *receive = &link->receive;
    struct rsi_dpdk_send *send = &link->send;
    if (state->consumed_pos != receive->reported_consumed_pos ||
        state->control_limit != link->lane.reported_control_limit) {
        send->is_telling = true;
    }
    if (send->is_telling) {
        send->telling_number = send->number + 1;
        send->is_telling = false;
        rsi_dpdk_await_answer(link);
    }
    receive->reported_consumed_pos = state->consumed_pos;
    receive->reported_arrived_pos = state->arrived_pos;
    receive->reported_ns = rsi_dpdk_now_ns(link);
    receive->data_count = 0;
    receive->state_due_ns = 0;
    link->lane.reported_control_limit = state->control_limit;
    send->seen_number = state->state_seen;
    send->state_is_owed = false;
}

uint32_t rsi_dpdk_write_state(struct rsi_dpdk_link *link, uint8_t *body, uint32_t *flags)
{
    struct rsi_datagram_state state;
    answer_wish(link);
    fill_state(link, &state);
    memcpy(body, &state, sizeof(state));
    note_told(link, &state);
    *flags |= RSI_DATAGRAM_FLAG_STATE;
    if (link->has_rings) {
        *flags |= RSI_DATAGRAM_FLAG_ATTACHED;
    }
    if (link->send.reply_is_owed) {
        *flags |= RSI_DATAGRAM_FLAG_REPLY;
        link->send.reply_is_owed = false;
    }
    return sizeof(state);
}

static uint32_t write_ranges(struct rsi_dpdk_link *link, uint8_t *body)
{
    struct rsi_datagram_range ranges[RSI_DATAGRAM_RANGE_COUNT_MAX];
    uint32_t count = rsi_gaps_ask(&link->receive.gaps, link->receive.newest_number,
                                  rsi_dpdk_now_ns(link), rsi_path_timeout_ns(&link->path), ranges);
    uint32_t bytes = count * (uint32_t)sizeof(ranges[0]);
    memcpy(body, ranges, bytes);
    return bytes;
}

/* All of it fits into the smallest datagram. */
rsi_static_assert(RSI_DATAGRAM_STATE_BYTES +
                      RSI_DATAGRAM_RANGE_COUNT_MAX * sizeof(struct rsi_datagram_range) <=
                  RSI_DPDK_MTU_MIN - RSI_IPV4_BYTES - RSI_UDP_BYTES - RSI_DATAGRAM_HEADER_BYTES);

static bool send_state(struct rsi_dpdk_link *link)
{
    struct rsi_port_frame *frame = rsi_dpdk_burst_frame(rsi_dpdk_poller(link->base.poller));
    if (frame == NULL) {
        return false;
    }
    uint32_t flags = 0;
    uint8_t *body = rsi_packet_body(frame);
    uint32_t bytes = rsi_dpdk_write_state(link, body, &flags);
    if (link->has_rings) {
        bytes += write_ranges(link, body + bytes);
    }
    rsi_dpdk_emit(link, frame, RSI_DATAGRAM_STATE, flags, bytes);
    return true;
}

/* ---- data ------------------------------------------------------------------------------------ */

static bool has_credit(const struct rsi_dpdk_send *send)
{
    return send->number < send->number_limit;
}

/* One datagram with bytes from `pos` on, at most up to `end_pos`. Returns how many; 0: the port
 * takes none. */
static uint32_t send_bytes(struct rsi_dpdk_link *link, uint64_t pos, uint64_t end_pos)
{
    struct rsi_dpdk_send *send = &link->send;
    struct rsi_port_frame *frame = rsi_dpdk_burst_frame(rsi_dpdk_poller(link->base.poller));
    if (frame == NULL) {
        return 0;
    }
    uint32_t flags = 0;
    uint8_t *body = rsi_packet_body(frame);
    uint32_t head_bytes = 0;
    bool peer_awaits = link->receive.state_number != send->seen_number;
    if (link->send.state_is_owed || link->receive.data_count != 0 ||
        (peer_awaits && send->number % STATE_EVERY == 0)) {
        head_bytes = rsi_dpdk_write_state(link, body, &flags);
    }
    struct rsi_datagram_data data = {.position = pos};
    memcpy(body + head_bytes, &data, sizeof(data));
    head_bytes += (uint32_t)sizeof(data);
    uint32_t room_bytes = (send->body_bytes_max - head_bytes) & ~(RSI_FRAME_ALIGN_BYTES - 1);
    uint32_t bytes = (uint32_t)rsi_pos_min(room_bytes, end_pos - pos);
    const uint8_t *source = rsi_ring_at(&link->base.out, pos);
    if (bytes >= rsi_dpdk_poller(link->base.poller)->station->port->tail_bytes_min) {
        frame->tail = source; /* until the burst is flushed, before the bytes may change */
        frame->tail_bytes = bytes;
    } else {
        memcpy(body + head_bytes, source, bytes);
    }
    rsi_dpdk_emit(link, frame, RSI_DATAGRAM_DATA, flags, head_bytes + bytes);
    return bytes;
}

/* What the peer asked for, as far as the ration goes: the rest it asks for again. */
static uint32_t send_again(struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_send *send = &link->send;
    uint32_t count = 0;
    uint64_t left_bytes = rsi_path_again_bytes(&link->path, send->confirmed_pos, send->sent_pos,
                                               rsi_dpdk_now_ns(link));
    while (send->resend_count != 0 && has_credit(send)) {
        struct rsi_datagram_range *range = &send->resend[send->resend_count - 1];
        range->start_pos = rsi_pos_max(range->start_pos, send->confirmed_pos);
        if (range->start_pos < range->end_pos) {
            if (left_bytes == 0) {
                send->resend_count = 0;
                break;
            }
            uint64_t end_pos = rsi_pos_min(range->end_pos, range->start_pos + left_bytes);
            uint32_t bytes = send_bytes(link, range->start_pos, end_pos);
            if (bytes == 0) {
                break;
            }
            left_bytes -= bytes;
            rsi_path_sent_again(&link->path, bytes);
            range->start_pos += bytes;
            rsi_bump_relaxed(&link->base.stats.resent_bytes, bytes);
            count++;
        }
        if (range->start_pos >= range->end_pos) {
            send->resend_count--;
        }
    }
    return count;
}

/* How far the window lets data go now. */
static uint64_t window_end_pos(const struct rsi_dpdk_link *link)
{
    const struct rsi_dpdk_send *send = &link->send;
    uint64_t limit_pos = send->confirmed_pos + (link->path.window_bytes & ~UINT64_C(7));
    uint64_t end_pos = rsi_pos_min(link->base.flushed_pos, limit_pos);
    if (end_pos <= send->sent_pos) {
        return send->sent_pos;
    }
    /* No crumbs: what is held back anyway waits until a whole datagram of it may go. */
    bool is_crumb =
        end_pos != link->base.flushed_pos && end_pos - send->sent_pos < link->path.frame_bytes;
    return is_crumb && send->sent_pos != send->confirmed_pos ? send->sent_pos : end_pos;
}

static uint32_t send_data(struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_send *send = &link->send;
    uint32_t count = 0;
    uint64_t end_pos = window_end_pos(link);
    while (send->sent_pos < end_pos && has_credit(send)) {
        uint32_t bytes = send_bytes(link, send->sent_pos, end_pos);
        if (bytes == 0) {
            break;
        }
        send->sent_pos += bytes;
        count++;
    }
    send->is_limited = send->sent_pos == end_pos && end_pos != link->base.flushed_pos;
    if (count != 0) {
        rsi_bump_relaxed(&link->base.stats.sends, 1);
        rsi_bump_relaxed(&link->base.stats.doorbells, 1);
        rsi_dpdk_await_answer(link);
    }
    if (rsi_dpdk_has_data(link)) {
        rsi_bump_relaxed(&link->base.stats.credit_stalls, 1);
    }
    return count;
}

/* ---- MTU ------------------------------------------------------------------------------------- */

void rsi_dpdk_set_mtu(struct rsi_dpdk_link *link, uint32_t mtu)
{
    uint32_t body_bytes = rsi_packet_body_bytes_max(mtu);
    if (body_bytes <= link->send.body_bytes_max) {
        return;
    }
    link->send.body_bytes_max = body_bytes;
    link->path.frame_bytes =
        (body_bytes - (uint32_t)sizeof(struct rsi_datagram_data)) & ~(RSI_FRAME_ALIGN_BYTES - 1);
    link->path.window_bytes = rsi_pos_max(
        link->path.window_bytes, (uint64_t)RSI_PATH_WINDOW_FRAMES_FIRST * link->path.frame_bytes);
}

static uint32_t send_probe(struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_send *send = &link->send;
    uint64_t now_ns = rsi_dpdk_now_ns(link);
    if (send->probe_mtu == 0 || now_ns < send->probe_due_ns) {
        return 0;
    }
    if (send->probe_count++ == RSI_DPDK_PROBE_TRIES) {
        send->probe_mtu = 0; /* something between takes no more than what is sure */
        return 0;
    }
    struct rsi_port_frame *frame = rsi_dpdk_burst_frame(rsi_dpdk_poller(link->base.poller));
    if (frame == NULL) {
        return 0;
    }
    send->probe_due_ns = now_ns + rsi_path_timeout_ns(&link->path);
    struct rsi_datagram_probe probe = {.mtu = send->probe_mtu};
    uint32_t bytes = rsi_packet_body_bytes_max(send->probe_mtu);
    uint8_t *body = rsi_packet_body(frame);
    memset(body, 0, bytes);
    memcpy(body, &probe, sizeof(probe));
    rsi_dpdk_emit(link, frame, RSI_DATAGRAM_PROBE, 0, bytes);
    return 1;
}

/* ---- all of it ------------------------------------------------------------------------------- */

uint32_t rsi_dpdk_send_all(struct rsi_dpdk_link *link)
{
    uint32_t count = 0;
    if (rsi_unlikely(link->send.resend_count != 0)) {
        count += send_again(link);
    }
    if (rsi_dpdk_has_data(link)) {
        count += send_data(link);
    }
    if (rsi_dpdk_lane_wants_to_send(link)) {
        count += rsi_dpdk_lane_send(link);
    }
    if (rsi_unlikely(link->send.probe_mtu != 0)) {
        count += send_probe(link);
    }
    if (rsi_dpdk_state_is_due(link, rsi_dpdk_now_ns(link)) && send_state(link)) {
        count++;
    }
    return count;
}

/* ---- timers ---------------------------------------------------------------------------------- */

static RSI_NOINLINE void time_out(struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_send *send = &link->send;
    send->timeout_ns = 0;
    if (!is_open(link)) {
        return;
    }
    rsi_path_timed_out(&link->path, rsi_dpdk_now_ns(link) - link->receive.heard_ns);
    rsi_dpdk_lane_rewind(&link->lane);
    send->state_is_owed = true;
    send->reply_is_owed = true;
    link->close_tries += link->is_leaving ? 1 : 0;
    rsi_dpdk_await_answer(link);
}

static RSI_COLD void fall_silent(struct rsi_dpdk_link *link, uint64_t silence_ns)
{
    link->receive.has_ended = true;
    rsi_link_fail(&link->base, RSI_E_LINK_LOST,
                  "%s: nothing was heard of the peer for %" PRIu64
                  " s; its process ended or does not run, or the way to it is cut",
                  link->base.peer_text, silence_ns / 1000000000);
}

void rsi_dpdk_run_timers(struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_send *send = &link->send;
    uint64_t now_ns = rsi_dpdk_now_ns(link);
    if (rsi_unlikely(send->timeout_ns != 0 && now_ns >= send->timeout_ns)) {
        time_out(link);
    }
    uint64_t silence_ns = now_ns - link->receive.heard_ns;
    if (rsi_unlikely(silence_ns >= RSI_DPDK_SILENCE_NS)) {
        fall_silent(link, silence_ns);
    } else if (rsi_unlikely(now_ns - send->sent_ns >= RSI_DPDK_KEEPALIVE_NS)) {
        send->state_is_owed = true;
        send->reply_is_owed = true;
    }
}

uint64_t rsi_dpdk_due_ns(const struct rsi_dpdk_link *link)
{
    uint64_t due_ns = link->send.sent_ns + RSI_DPDK_KEEPALIVE_NS;
    if (link->send.timeout_ns != 0) {
        due_ns = rsi_pos_min(due_ns, link->send.timeout_ns);
    }
    if (link->receive.state_due_ns != 0) {
        due_ns = rsi_pos_min(due_ns, link->receive.state_due_ns);
    }
    if (link->send.probe_mtu != 0) {
        due_ns = rsi_pos_min(due_ns, link->send.probe_due_ns);
    }
    return link->has_rings ? rsi_pos_min(due_ns, rsi_gaps_due_ns(&link->receive.gaps)) : due_ns;
}
