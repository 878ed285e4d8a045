/*
 * A poller: its pass, how links join and leave. And the seam's data plane.
 *
 * Design notes
 * - A pass: look at the port (unless somebody does), take what is in the own queue, let each link
 *   send, transmit once.
 * - Frames find their link by the index in the connection's name, in a table that only the owner
 *   thread writes: a frame of a link that left finds nothing, whatever the station's tables say.
 * - Silence is time in which this thread looked and heard nothing. A thread that did not run (the
 *   machine was busy, or stood still) heard nobody, which says nothing about its peers.
 * - Leaving: what the outbox holds and CLOSE go out and are answered, or time is up. Then the link
 *   is out of both tables and crossing.released gives it back.
 */
#include "core/assert.h"
#include "core/clock.h"
#include "core/position.h"
#include "transport/dpdk/dpdk_internal.h"

#include <string.h>

/* ---- joining and leaving --------------------------------------------------------------------- */

static void add_link(struct rsi_dpdk_poller *poller, struct rsi_dpdk_link *link)
{
    rsi_assert(poller->link_count < poller->base.link_count_max);
    link->index = poller->link_count;
    poller->links[poller->link_count++] = link;
    poller->links_by_index[rsi_station_index(link->connection)] = link;

    uint32_t mtu = (uint32_t)rsi_pos_min(link->mtu, RSI_DPDK_MTU_SURE);
    rsi_path_init(&link->path, 0);
    rsi_dpdk_set_mtu(link, mtu);
    link->send.probe_mtu = link->mtu > mtu ? link->mtu : 0;
    link->send.number_limit = RSI_DPDK_CREDIT_FIRST;
    link->send.sent_ns = poller->now_ns;
    link->receive.heard_ns = poller->now_ns;
    link->lane.control_limit = link->base.peer_greeting.control_credit;
    link->lane.reported_control_limit = RSI_CONTROL_SLOT_COUNT;
    /* A first question: is the peer there, how far is it? */
    link->send.state_is_owed = true;
    link->send.reply_is_owed = true;
    link->send.is_telling = true;
}

/* The rings are there: from now on they may be written and read. */
static void begin_attach(struct rsi_dpdk_link *link)
{
    struct rsi_link *base = &link->base;
    rsi_link_set_start(base, &link->rings); /* here: this thread alone looks at positions */
    link->has_rings = true;
    link->lane.attach_is_owed = true;
    link->send.sent_pos = base->placed_pos;
    link->send.confirmed_pos = base->placed_pos;
    rsi_path_set_ring(&link->path, base->placed_pos, link->rings.out_bytes);
    rsi_gaps_init(&link->receive.gaps, base->arrived_pos);
    link->receive.reported_arrived_pos = base->arrived_pos;
    link->receive.reported_consumed_pos = base->consumed_pos;
    link->receive.reported_ns = rsi_dpdk_now_ns(link);
}

void rsi_dpdk_try_attached(struct rsi_dpdk_link *link)
{
    if (!link->has_peer_attach || !link->has_rings || link->lane.attach_is_owed) {
        return;
    }
    if (!rsi_link_try_attached(&link->base, &link->peer_attach, &link->rings,
                               &link->crossing.attached)) {
        link->receive.has_ended = true;
    }
}

static void release_link(struct rsi_dpdk_poller *poller, struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_link *last = poller->links[--poller->link_count];
    poller->links[link->index] = last;
    last->index = link->index;
    poller->links_by_index[rsi_station_index(link->connection)] = NULL;
    struct rsi_waker *control_waker = poller->base.control_waker;
    /* Pairs with the acquire in link_poll_control; the link may be gone right after. */
    rsi_store_release(&link->crossing.released, true);
    rsi_waker_wake(control_waker);
}

bool rsi_dpdk_has_left(const struct rsi_dpdk_link *link)
{
    const struct rsi_dpdk_lane *lane = &link->lane;
    if (!lane->close_is_composed) {
        return false;
    }
    uint64_t open_count = lane->composed - lane->confirmed;
    return open_count == 0 || (open_count == 1 && link->close_tries >= RSI_DPDK_CLOSE_TRIES);
}

/* Sends what is left; true: the link was given back. */
static bool leave(struct rsi_dpdk_poller *poller, struct rsi_dpdk_link *link)
{
    bool is_over = rsi_load_relaxed(&link->base.failed) || link->receive.has_ended ||
                   poller->now_ns >= link->close_deadline_ns;
    if (!is_over) {
        rsi_dpdk_run_timers(link);
        (void)rsi_dpdk_send_all(link);
        is_over = rsi_dpdk_has_left(link);
    }
    if (is_over) {
        (void)rsi_dpdk_burst_flush(poller);
        release_link(poller, link);
    }
    return is_over;
}

static uint32_t take_commands(struct rsi_dpdk_poller *poller)
{
    uint32_t count = 0;
    uint32_t bytes;
    const struct rsi_dpdk_command *command;
    while ((command = rsi_mailbox_front(&poller->commands, &bytes)) != NULL) {
        struct rsi_dpdk_link *link = command->link;
        switch (command->kind) {
        case RSI_DPDK_COMMAND_ADD:
            add_link(poller, link);
            break;
        case RSI_DPDK_COMMAND_ATTACH:
            begin_attach(link);
            break;
        case RSI_DPDK_COMMAND_REMOVE:
            link->is_leaving = true;
            link->close_tries = 0;
            link->lane.close_is_owed = true;
            link->base.flushed_pos = link->send.sent_pos; /* what was not sent is lost */
            break;
        }
        rsi_mailbox_pop(&poller->commands);
        count++;
    }
    return count;
}

/* ---- a pass ---------------------------------------------------------------------------------- */

static void take_frame(struct rsi_dpdk_poller *poller, struct rsi_port_frame *frame)
{
    struct rsi_packet packet;
    if (!rsi_packet_parse(&packet, frame)) {
        return;
    }
    uint32_t index = rsi_station_index(packet.header.connection);
    struct rsi_dpdk_link *link =
        index < RSI_STATION_SLOT_COUNT ? poller->links_by_index[index] : NULL;
    if (link != NULL && link->connection == packet.header.connection && !link->receive.has_ended) {
        rsi_dpdk_take(link, &packet, frame);
    }
}

static uint32_t take_frames(struct rsi_dpdk_poller *poller)
{
    struct rsi_port *port = poller->station->port;
    struct rsi_port_frame done[RSI_STATION_BURST];
    uint32_t done_count = 0;
    uint32_t count = 0;
    while (count < RSI_DPDK_FRAMES_PER_PASS &&
           rsi_station_queue_take(&poller->queue, &done[done_count])) {
        take_frame(poller, &done[done_count++]);
        count++;
        if (done_count == RSI_STATION_BURST) {
            port->operations->release(port, done, done_count);
            done_count = 0;
        }
    }
    if (done_count != 0) {
        port->operations->release(port, done, done_count);
    }
    return count;
}

/* Emits what is placed; the bytes go as far as they may. */
static void emit_batch(struct rsi_dpdk_link *link)
{
    struct rsi_link *base = &link->base;
    base->flushed_pos = base->placed_pos;
    base->under_way = true;
    rsi_bump_relaxed(&base->stats.batches_sent, 1);
}

static uint32_t serve(struct rsi_dpdk_link *link)
{
    struct rsi_link *base = &link->base;
    if (link->receive.has_ended) {
        return 0;
    }
    rsi_dpdk_run_timers(link);
    if (base->under_way && !rsi_dpdk_has_data(link)) {
        base->under_way = false; /* all of it is on its way; what waits follows */
        if (base->placed_pos != base->flushed_pos) {
            emit_batch(link);
        }
    }
    return rsi_dpdk_send_all(link);
}

static RSI_COLD void begin_thread(struct rsi_dpdk_poller *poller)
{
    poller->has_begun = true;
    poller->station->port->operations->thread_begin(poller->station->port);
}

/* However long it was, it counts as no more than an idle link's pause: so a peer is silent only
 * after several looks, and questions that it did not answer. */
static RSI_COLD void excuse_absence(struct rsi_dpdk_poller *poller, uint64_t now_ns)
{
    uint64_t excused_ns = now_ns - poller->now_ns - RSI_DPDK_KEEPALIVE_NS;
    for (uint32_t i = 0; i < poller->link_count; i++) {
        poller->links[i]->receive.heard_ns += excused_ns;
    }
}

uint32_t rsi_dpdk_poll_data(struct rsi_poller *base, uint64_t now_ns)
{
    struct rsi_dpdk_poller *poller = rsi_dpdk_poller(base);
    if (rsi_unlikely(!poller->has_begun)) {
        begin_thread(poller);
    }
    if (rsi_unlikely(now_ns > poller->now_ns + RSI_DPDK_KEEPALIVE_NS)) {
        excuse_absence(poller, now_ns);
    }
    poller->now_ns = now_ns;
    poller->burst.is_stuck = false;
    uint32_t count = take_commands(poller);
    rsi_bump_relaxed(&poller->queue.look_count, 1);
    (void)rsi_station_receive(poller->station, &poller->queue);
    count += take_frames(poller);
    /* Backwards: a link that leaves changes places with one that was served already. */
    for (uint32_t i = poller->link_count; i-- > 0;) {
        struct rsi_dpdk_link *link = poller->links[i];
        if (rsi_unlikely(link->is_leaving)) {
            count += leave(poller, link) ? 1 : 0;
        } else {
            count += serve(link);
        }
    }
    (void)rsi_dpdk_burst_flush(poller);
    return count;
}

/* ---- a link ---------------------------------------------------------------------------------- */

rsi_status_t rsi_dpdk_flush(struct rsi_link *base)
{
    struct rsi_dpdk_link *link = rsi_dpdk_link(base);
    emit_batch(link);
    (void)rsi_dpdk_send_all(link);
    (void)rsi_dpdk_burst_flush(rsi_dpdk_poller(base->poller));
    return rsi_dpdk_has_data(link) ? RSI_WOULD_BLOCK : RSI_OK;
}

void rsi_dpdk_publish_consumed(struct rsi_link *base)
{
    struct rsi_dpdk_link *link = rsi_dpdk_link(base);
    if (rsi_dpdk_state_is_due(link, rsi_dpdk_now_ns(link))) {
        (void)rsi_dpdk_send_all(link);
        (void)rsi_dpdk_burst_flush(rsi_dpdk_poller(base->poller));
    }
}

void rsi_dpdk_request_wake(struct rsi_link *base, uint64_t in_arrived_at_least,
                           uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least)
{
    (void)in_arrived_at_least; /* arrival wakes by itself */
    struct rsi_dpdk_link *link = rsi_dpdk_link(base);
    struct rsi_wake_request *requested = &link->wake.requested;
    if (base->peer_arrived_pos >= peer_arrived_at_least ||
        base->peer_consumed_pos >= peer_consumed_at_least ||
        (peer_arrived_at_least == UINT64_MAX && peer_consumed_at_least == UINT64_MAX)) {
        return;
    }
    if (requested->generation != 0 && requested->arrived_at_least == peer_arrived_at_least &&
        requested->consumed_at_least == peer_consumed_at_least) {
        return;
    }
    *requested = (struct rsi_wake_request){
        .arrived_at_least = peer_arrived_at_least,
        .consumed_at_least = peer_consumed_at_least,
        .generation = ++link->wake.request_count,
    };
    link->send.is_telling = true;
    link->send.state_is_owed = true;
    rsi_bump_relaxed(&base->stats.wake_requests, 1);
    (void)rsi_dpdk_send_all(link);
    (void)rsi_dpdk_burst_flush(rsi_dpdk_poller(base->poller));
}
