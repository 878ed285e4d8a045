/*
 * The wrappers around the data plane, and the movers of positions that a peer told.
 *
 * Design notes
 * - Every call of a transport's data plane goes through here, so that the relations of transport.h
 * are checked in one place for all transports, in every build: a few comparisons of one cache line.
 * - Two kinds of checks, never mixed. link_check() asserts what we alone are answerable for. What a
 *   peer told goes through a mover, which compares before it stores and fails the link if the peer
 *   lies; so link_check() cannot be tripped by a peer.
 * - A peer's consumed position can be seen before our own completion for the bytes it speaks of
 *   (rdma). It is held in peer_consumed_held_pos and shown as far as peer_arrived_pos.
 */
#include "transport/transport.h"

#include "core/assert.h"
#include "core/position.h"

#include <inttypes.h>

/* Owner thread: the invariants between calls. */
static inline void link_check(const struct rsi_link *link)
{
    rsi_assert(link->peer_consumed_pos <= link->peer_arrived_pos);
    rsi_assert(link->peer_arrived_pos <= link->placed_pos);
    rsi_assert(link->flushed_pos <= link->placed_pos);
    rsi_assert(link->placed_pos <= link->staged_pos);
    uint64_t guard_bytes = link->out.capacity_bytes == 0 ? 0 : RSI_RING_GUARD_BYTES;
    rsi_assert(link->staged_pos + guard_bytes <=
               link->peer_consumed_pos + link->out.capacity_bytes);
    rsi_assert(link->consumed_pos <= link->arrived_pos);
    rsi_assert(link->arrived_pos <= link->consumed_pos + link->in.capacity_bytes);
}

/* Whether data moves on this link. Pairs with the release in rsi_link_set_state: rings and
 * positions were set before. */
static inline bool link_is_live(const struct rsi_link *link)
{
    return rsi_link_state(link) == RSI_LINK_ATTACHED && !rsi_load_relaxed(&link->failed);
}

/* Why a link that is not live takes no data. */
static RSI_COLD rsi_status_t link_dead_status(const struct rsi_link *link)
{
    enum rsi_link_state state = rsi_link_state(link);
    if (state == RSI_LINK_CLOSING || state == RSI_LINK_CLOSED) {
        return RSI_E_LINK_CLOSED;
    }
    bool is_lost = state == RSI_LINK_LOST || rsi_load_relaxed(&link->failed);
    return is_lost ? RSI_E_LINK_LOST : RSI_E_STATE;
}

void rsi_link_place(struct rsi_link *link)
{
    uint64_t end_pos = link->staged_pos;
    if (end_pos == link->placed_pos || !link_is_live(link)) {
        return;
    }
    link_check(link);
    uint64_t bytes = end_pos - link->placed_pos;
    link->transport->place(link, bytes);
    rsi_assert(link->placed_pos == end_pos);
    rsi_bump_relaxed(&link->stats.placed_bytes, bytes);
    link_check(link);
}

rsi_status_t rsi_link_flush(struct rsi_link *link)
{
    if (rsi_unlikely(!link_is_live(link))) {
        return link_dead_status(link);
    }
    if (link->flushed_pos == link->placed_pos) {
        return RSI_OK;
    }
    link_check(link);
    rsi_status_t status = link->transport->flush(link);
    link_check(link);
    return status;
}

rsi_status_t rsi_link_flush_clocked(struct rsi_link *link)
{
    if (link->under_way && link->placed_pos - link->flushed_pos < RSI_FLUSH_BYTES &&
        rsi_likely(link_is_live(link))) {
        return RSI_OK;
    }
    return rsi_link_flush(link);
}

void rsi_link_tell_consumed(struct rsi_link *link)
{
    if (link_is_live(link)) {
        link->transport->publish_consumed(link);
        link_check(link);
    }
}

void rsi_link_consume(struct rsi_link *link, uint64_t bytes)
{
    if (bytes == 0) {
        return;
    }
    rsi_assert(bytes <= link->arrived_pos - link->consumed_pos);
    link->consumed_pos += bytes;
    rsi_link_tell_consumed(link);
}

void rsi_link_request_wake(struct rsi_link *link, uint64_t in_arrived_at_least,
                           uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least)
{
    if (link_is_live(link)) {
        link->transport->request_wake(link, in_arrived_at_least, peer_arrived_at_least,
                                      peer_consumed_at_least);
    }
}

uint32_t rsi_poller_poll(struct rsi_poller *poller, uint64_t now_ns)
{
    return poller->transport->poll_data(poller, now_ns);
}

/* ---- movers ------------------------------------------------------------------------------------
 */

static RSI_COLD bool position_is_wrong(struct rsi_link *link, const char *what, uint64_t told_pos,
                                       uint64_t low_pos, uint64_t high_pos)
{
    rsi_link_fail(link, RSI_E_PROTOCOL,
                  "the peer told %s position %" PRIu64 ", but only multiples of 8 from %" PRIu64
                  " to %" PRIu64 " can be true",
                  what, told_pos, low_pos, high_pos);
    return false;
}

static inline bool position_can_be_true(uint64_t told_pos, uint64_t low_pos, uint64_t high_pos)
{
    return rsi_pos_is_within(told_pos, low_pos, high_pos) &&
           rsi_is_aligned(told_pos, RSI_FRAME_ALIGN_BYTES);
}

static inline void show_peer_consumed(struct rsi_link *link)
{
    link->peer_consumed_pos = rsi_pos_min(link->peer_consumed_held_pos, link->peer_arrived_pos);
}

bool rsi_link_peer_arrived(struct rsi_link *link, uint64_t peer_arrived_pos)
{
    if (rsi_unlikely(
            !position_can_be_true(peer_arrived_pos, link->peer_arrived_pos, link->placed_pos))) {
        return position_is_wrong(link, "an arrived", peer_arrived_pos, link->peer_arrived_pos,
                                 link->placed_pos);
    }
    link->peer_arrived_pos = peer_arrived_pos;
    show_peer_consumed(link);
    return true;
}

bool rsi_link_peer_consumed(struct rsi_link *link, uint64_t peer_consumed_pos)
{
    if (rsi_unlikely(!position_can_be_true(peer_consumed_pos, link->peer_consumed_held_pos,
                                           link->placed_pos))) {
        return position_is_wrong(link, "a consumed", peer_consumed_pos,
                                 link->peer_consumed_held_pos, link->placed_pos);
    }
    link->peer_consumed_held_pos = peer_consumed_pos;
    show_peer_consumed(link);
    return true;
}

bool rsi_link_arrived(struct rsi_link *link, uint64_t arrived_pos)
{
    uint64_t limit_pos = link->consumed_pos + link->in.capacity_bytes;
    if (rsi_unlikely(!position_can_be_true(arrived_pos, link->arrived_pos, limit_pos))) {
        return position_is_wrong(link, "a written", arrived_pos, link->arrived_pos, limit_pos);
    }
    rsi_bump_relaxed(&link->stats.arrived_bytes, arrived_pos - link->arrived_pos);
    link->arrived_pos = arrived_pos;
    return true;
}
