/*
 * Design notes
 * - The reader's poll copies the bytes: it takes them out of the sender's out ring, where they stay
 *   unchanged until they arrived.
 * - arrived and consumed are told each on a tick of its own, so a sender often sees that bytes were
 *   consumed before it sees that they arrived.
 * - poller_arm says no as long as time must go on for this end: ticks are made by polls, so an end
 *   that slept on something under way would wait for ever. For what only the peer can do, the peer
 *   wakes it (sim_wake_end).
 */
#include "transport/sim/sim.h"
#include "transport/sim/wire.h"

#include "core/assert.h"
#include "core/position.h"

#include <string.h>

static struct sim_link *to_sim(struct rsi_link *link)
{
    return (struct sim_link *)(void *)link;
}

/* ---- sending -----------------------------------------------------------------------------------
 */

static uint64_t piece_room(const struct sim_direction *direction)
{
    return SIM_PIECE_COUNT - (direction->piece_back - direction->piece_front);
}

/* Cuts [flushed_pos, placed_pos) into pieces and puts them on the wire. */
static void emit_batch(struct sim_link *sim)
{
    struct rsi_link *link = &sim->link;
    struct sim_wire *wire = sim->wire;
    struct sim_direction *sent = sim_sent(sim);
    uint64_t piece_count = 1 + sim_random(wire, SIM_PIECES_PER_BATCH);
    uint64_t pos = link->flushed_pos;
    for (uint64_t left = piece_count; left > 0 && pos < link->placed_pos; left--) {
        uint64_t words = (link->placed_pos - pos) / 8;
        uint64_t piece_words = left == 1 ? words : 1 + sim_random(wire, words);
        struct sim_piece *piece = &sent->pieces[sent->piece_back++ % SIM_PIECE_COUNT];
        *piece = (struct sim_piece){
            .start_pos = pos,
            .end_pos = pos + piece_words * 8,
            .due_tick = sim_due_tick(wire),
            .ends_batch = piece_words == words,
        };
        pos = piece->end_pos;
    }
    rsi_assert(pos == link->placed_pos);
    link->flushed_pos = pos;
    link->under_way = true;
    rsi_bump_relaxed(&link->stats.batches_sent, 1);
    rsi_bump_relaxed(&link->stats.sends, 1);
    rsi_bump_relaxed(&link->stats.doorbells, 1);
    sim_wake_end(sim_peer_end(sim));
}

/* Under the wire's lock: emits what is placed, if the seed and the wire let it. */
static rsi_status_t flush_locked(struct sim_link *sim)
{
    struct sim_end *own = sim_own_end(sim);
    struct rsi_link *link = &sim->link;
    own->flush_arrived_at_least = UINT64_MAX;
    own->flush_is_owed = true;
    if (sim->wire->tick < own->stall_until_tick) {
        return RSI_WOULD_BLOCK;
    }
    if (piece_room(sim_sent(sim)) < SIM_PIECES_PER_BATCH) {
        own->flush_arrived_at_least = link->peer_arrived_pos + RSI_FRAME_ALIGN_BYTES;
        return RSI_WOULD_BLOCK;
    }
    emit_batch(sim);
    own->flush_is_owed = false;
    return RSI_OK;
}

rsi_status_t sim_flush(struct rsi_link *link)
{
    struct sim_link *sim = to_sim(link);
    pthread_mutex_lock(&sim->wire->lock);
    struct sim_end *own = sim_own_end(sim);
    bool is_stalled = sim->wire->tick < own->stall_until_tick;
    if (!is_stalled && sim_random(sim->wire, SIM_STALL_ONE_IN) == 0) {
        own->stall_until_tick = sim->wire->tick + 1 + sim_random(sim->wire, SIM_DELAY_TICKS_MAX);
    }
    rsi_status_t status = flush_locked(sim);
    if (status == RSI_WOULD_BLOCK) {
        rsi_bump_relaxed(&link->stats.credit_stalls, 1);
    }
    pthread_mutex_unlock(&sim->wire->lock);
    return status;
}

/* ---- receiving ---------------------------------------------------------------------------------
 */

/* Whether the sender sleeps for what the reader's positions now are. */
static bool end_waits_for(const struct sim_end *end, const struct sim_direction *direction)
{
    return direction->arrived_pos >= end->wake_peer_arrived_at_least ||
           direction->arrived_pos >= end->flush_arrived_at_least ||
           direction->consumed_pos >= end->wake_peer_consumed_at_least;
}

void sim_publish_consumed(struct rsi_link *link)
{
    struct sim_link *sim = to_sim(link);
    pthread_mutex_lock(&sim->wire->lock);
    struct sim_direction *received = sim_received(sim);
    received->consumed_pos = link->consumed_pos;
    received->consumed_due_tick = sim_due_tick(sim->wire);
    if (end_waits_for(sim_peer_end(sim), received)) {
        sim_wake_end(sim_peer_end(sim));
    }
    pthread_mutex_unlock(&sim->wire->lock);
}

/* Copies the pieces that are due; the queue's order is that of positions, the ticks' order is not.
 */
static uint32_t copy_due_pieces(struct sim_link *sim)
{
    struct sim_direction *received = sim_received(sim);
    const struct sim_link *peer = sim_peer_end(sim)->link;
    if (peer == NULL) {
        return 0; /* gone, and its out ring with it */
    }
    uint32_t copied_count = 0;
    for (uint64_t i = received->piece_front; i < received->piece_back; i++) {
        struct sim_piece *piece = &received->pieces[i % SIM_PIECE_COUNT];
        if (piece->is_done || piece->due_tick > sim->wire->tick) {
            continue;
        }
        memcpy(rsi_ring_at(&sim->link.in, piece->start_pos),
               rsi_ring_at(&peer->link.out, piece->start_pos), piece->end_pos - piece->start_pos);
        piece->is_done = true;
        copied_count++;
    }
    return copied_count;
}

/* Moves arrived_pos over whole batches of which every piece before them is done, too. */
static void advance_arrived(struct sim_link *sim)
{
    struct sim_direction *received = sim_received(sim);
    uint64_t batch_front = received->piece_front;
    for (uint64_t i = batch_front; i < received->piece_back; i++) {
        const struct sim_piece *piece = &received->pieces[i % SIM_PIECE_COUNT];
        if (!piece->is_done) {
            break;
        }
        if (piece->ends_batch) {
            if (!rsi_link_arrived(&sim->link, piece->end_pos)) {
                return;
            }
            batch_front = i + 1;
            rsi_bump_relaxed(&sim->link.stats.batches_arrived, 1);
            rsi_bump_relaxed(&sim->link.stats.receives, 1);
        }
    }
    if (batch_front == received->piece_front) {
        return;
    }
    received->piece_front = batch_front;
    received->arrived_pos = sim->link.arrived_pos;
    received->arrived_due_tick = sim_due_tick(sim->wire);
    if (end_waits_for(sim_peer_end(sim), received)) {
        sim_wake_end(sim_peer_end(sim));
    }
}

/* Takes over what the peer told and whose tick has come. */
static uint32_t take_positions(struct sim_link *sim)
{
    struct rsi_link *link = &sim->link;
    const struct sim_direction *sent = sim_sent(sim);
    uint32_t event_count = 0;
    if (sent->consumed_pos > link->peer_consumed_held_pos &&
        sent->consumed_due_tick <= sim->wire->tick) {
        (void)rsi_link_peer_consumed(link, sent->consumed_pos);
        event_count++;
    }
    if (sent->arrived_pos > link->peer_arrived_pos && sent->arrived_due_tick <= sim->wire->tick) {
        (void)rsi_link_peer_arrived(link, sent->arrived_pos);
        event_count++;
    }
    return event_count;
}

static uint32_t poll_rings(struct sim_link *sim)
{
    struct rsi_link *link = &sim->link;
    uint32_t event_count = copy_due_pieces(sim);
    advance_arrived(sim);
    event_count += take_positions(sim);
    bool has_come_through = link->under_way && link->peer_arrived_pos == link->flushed_pos;
    if (has_come_through) {
        link->under_way = false;
    }
    bool wants_flush = has_come_through || sim_own_end(sim)->flush_is_owed;
    if (wants_flush && link->flushed_pos < link->placed_pos && flush_locked(sim) == RSI_OK) {
        event_count++;
    }
    return event_count;
}

/* ---- control lane ------------------------------------------------------------------------------
 */

static uint32_t send_messages(struct sim_link *sim)
{
    struct sim_direction *sent = sim_sent(sim);
    uint32_t sent_count = 0;
    while (sent->message_back - sent->message_front < SIM_CONTROL_COUNT) {
        uint32_t bytes;
        const void *data = rsi_link_outbox_front(&sim->link, &bytes);
        if (data == NULL) {
            break;
        }
        struct sim_message *message = &sent->messages[sent->message_back++ % SIM_CONTROL_COUNT];
        sent->message_due_tick = rsi_pos_max(sent->message_due_tick, sim_due_tick(sim->wire));
        message->due_tick = sent->message_due_tick;
        message->bytes = bytes;
        memcpy(message->data, data, bytes);
        rsi_link_outbox_pop(&sim->link);
        sent_count++;
    }
    if (sent_count > 0) {
        sim_wake_end(sim_peer_end(sim));
    }
    return sent_count;
}

static uint32_t receive_messages(struct sim_link *sim)
{
    struct sim_direction *received = sim_received(sim);
    struct sim_end *own = sim_own_end(sim);
    bool was_full = received->message_back - received->message_front == SIM_CONTROL_COUNT;
    uint32_t received_count = 0;
    own->inbox_is_blocked = false;
    while (received->message_front < received->message_back) {
        const struct sim_message *message =
            &received->messages[received->message_front % SIM_CONTROL_COUNT];
        if (message->due_tick > sim->wire->tick) {
            break;
        }
        if (rsi_link_inbox_push(&sim->link, message->data, message->bytes) != RSI_OK) {
            own->inbox_is_blocked = true;
            break;
        }
        received->message_front++;
        received_count++;
    }
    if (was_full && received_count > 0) {
        sim_wake_end(sim_peer_end(sim)); /* its outbox may wait for room on the wire */
    }
    return received_count;
}

/* ---- polling -----------------------------------------------------------------------------------
 */

/* Whether the owner thread still has to do with a link. */
static bool link_is_polled(struct rsi_link *link)
{
    enum rsi_link_state state = rsi_link_state(link);
    return state != RSI_LINK_LOST && state != RSI_LINK_CLOSED && !rsi_load_relaxed(&link->failed);
}

/* The peer closed, and everything that it sent before is taken. A greeting that has come is first
 * looked at by the control thread: it may say why the peer closed. */
static bool peer_has_ended(struct sim_link *sim)
{
    const struct sim_direction *received = sim_received(sim);
    bool is_greeting_due =
        rsi_link_state(&sim->link) == RSI_LINK_CONNECTING && sim_peer_end(sim)->has_greeting;
    return received->has_ended && received->message_front == received->message_back &&
           !is_greeting_due;
}

static uint32_t poll_link(struct sim_link *sim)
{
    struct rsi_link *link = &sim->link;
    sim->wire->tick++;
    if (!link_is_polled(link)) {
        return 0;
    }
    enum rsi_link_state state = rsi_link_state(link);
    if (state == RSI_LINK_CLOSING) {
        return sim_is_cut(sim->wire) ? 0 : send_messages(sim);
    }
    if (sim_is_cut(sim->wire)) {
        rsi_link_fail(link, RSI_E_LINK_LOST, "the simulated wire to %s was cut", link->peer_text);
        return 1;
    }
    uint32_t event_count = send_messages(sim) + receive_messages(sim);
    if (state == RSI_LINK_ATTACHED) {
        event_count += poll_rings(sim);
    }
    if (peer_has_ended(sim)) {
        rsi_link_fail(link, RSI_E_LINK_CLOSED, "the peer %s closed the link", link->peer_text);
        event_count++;
    }
    return event_count;
}

uint32_t sim_poll_data(struct rsi_poller *base, uint64_t now_ns)
{
    (void)now_ns;
    struct sim_poller *poller = (struct sim_poller *)(void *)base;
    uint32_t event_count = 0;
    pthread_mutex_lock(&poller->lock);
    for (struct sim_link *sim = poller->links; sim != NULL; sim = sim->next) {
        pthread_mutex_lock(&sim->wire->lock);
        event_count += poll_link(sim);
        pthread_mutex_unlock(&sim->wire->lock);
    }
    pthread_mutex_unlock(&poller->lock);
    return event_count;
}

/* ---- sleeping ----------------------------------------------------------------------------------
 */

void sim_request_wake(struct rsi_link *link, uint64_t in_arrived_at_least,
                      uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least)
{
    (void)in_arrived_at_least; /* arrival wakes by itself */
    struct sim_link *sim = to_sim(link);
    pthread_mutex_lock(&sim->wire->lock);
    struct sim_end *own = sim_own_end(sim);
    if (own->wake_peer_arrived_at_least != peer_arrived_at_least ||
        own->wake_peer_consumed_at_least != peer_consumed_at_least) {
        own->wake_peer_arrived_at_least = peer_arrived_at_least;
        own->wake_peer_consumed_at_least = peer_consumed_at_least;
        rsi_bump_relaxed(&link->stats.wake_requests, 1);
    }
    pthread_mutex_unlock(&sim->wire->lock);
}

/* Something of the rings needs more polls of this end. */
static bool rings_are_pending(struct sim_link *sim)
{
    struct rsi_link *link = &sim->link;
    struct sim_direction *sent = sim_sent(sim);
    struct sim_direction *received = sim_received(sim);
    struct sim_end *own = sim_own_end(sim);
    if (received->piece_front < received->piece_back) {
        return true;
    }
    bool arrived_is_news = sent->arrived_pos > link->peer_arrived_pos;
    bool consumed_is_news = sent->consumed_pos > link->peer_consumed_pos;
    if (arrived_is_news && sent->arrived_pos >= own->wake_peer_arrived_at_least) {
        return true;
    }
    if (consumed_is_news && sent->consumed_pos >= own->wake_peer_consumed_at_least) {
        return true;
    }
    if (link->flushed_pos == link->placed_pos) {
        return false;
    }
    /* Bytes wait: for the end of a stall, or for something under way to arrive. */
    if (own->flush_is_owed && own->flush_arrived_at_least == UINT64_MAX) {
        return true;
    }
    if (!own->flush_is_owed && link->under_way) {
        own->flush_arrived_at_least = link->flushed_pos;
    }
    return sent->arrived_pos >= own->flush_arrived_at_least;
}

static bool link_is_pending(struct sim_link *sim)
{
    if (!link_is_polled(&sim->link)) {
        return false;
    }
    const struct sim_direction *sent = sim_sent(sim);
    const struct sim_direction *received = sim_received(sim);
    bool wire_has_room = sent->message_back - sent->message_front < SIM_CONTROL_COUNT;
    if (wire_has_room && !rsi_mailbox_is_empty(&sim->link.outbox)) {
        return true;
    }
    enum rsi_link_state state = rsi_link_state(&sim->link);
    if (state == RSI_LINK_CLOSING) {
        return false;
    }
    bool lane_has_news =
        received->message_front < received->message_back && !sim_own_end(sim)->inbox_is_blocked;
    if (lane_has_news || peer_has_ended(sim) || sim->wire->cut_tick != UINT64_MAX) {
        return true;
    }
    return state == RSI_LINK_ATTACHED && rings_are_pending(sim);
}

bool sim_poller_arm(struct rsi_poller *base)
{
    struct sim_poller *poller = (struct sim_poller *)(void *)base;
    rsi_waker_prepare(&poller->waker);
    bool is_pending = false;
    pthread_mutex_lock(&poller->lock);
    for (struct sim_link *sim = poller->links; sim != NULL && !is_pending; sim = sim->next) {
        pthread_mutex_lock(&sim->wire->lock);
        is_pending = link_is_pending(sim);
        pthread_mutex_unlock(&sim->wire->lock);
    }
    pthread_mutex_unlock(&poller->lock);
    if (is_pending) {
        rsi_waker_finish(&poller->waker);
    }
    return !is_pending;
}

void sim_poller_disarm(struct rsi_poller *base)
{
    rsi_waker_finish(&((struct sim_poller *)(void *)base)->waker);
}

int sim_poller_fd(struct rsi_poller *base)
{
    return ((struct sim_poller *)(void *)base)->waker.fd;
}

void rsi_sim_die(struct rsi_link *link)
{
    struct sim_link *sim = to_sim(link);
    pthread_mutex_lock(&sim->wire->lock);
    sim_sent(sim)->has_ended = true;
    sim_sent(sim)->has_died = true;
    sim_wake_end(sim_peer_end(sim));
    pthread_mutex_unlock(&sim->wire->lock);
}

void rsi_sim_cut(struct rsi_link *link, uint64_t ticks)
{
    struct sim_link *sim = to_sim(link);
    pthread_mutex_lock(&sim->wire->lock);
    sim->wire->cut_tick = sim->wire->tick + ticks;
    sim_wake_end(sim_own_end(sim));
    sim_wake_end(sim_peer_end(sim));
    pthread_mutex_unlock(&sim->wire->lock);
}
