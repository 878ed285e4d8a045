/*
 * From a session's dead link to its next one.
 *
 * Design notes
 * - Positions go on, rings do not. The next link has rings of its own, so a late write of the dead
 * one (a device that was slow to stop, a peer that has not noticed yet) hits memory that nobody
 * reads any more. What the old rings still hold that is owed is copied: at most one ring each way,
 * once per resume.
 * - Nothing that is owed can have been overwritten: a writer takes room by what the peer consumed,
 * so [peer_consumed_pos, staged_pos) lies in the out ring whatever arrived of it. For the same
 * reason a peer that names a lower arrived position than it told before does no harm: the same
 * bytes go to the same positions again. What it consumed it cannot take back.
 * - Commit words hold positions, and positions are the same here and there, so frames are copied as
 *   they are. The one word that is not in the ring is the first of an unplaced batch: it stands in
 *   head_word, here as there. Its place in the new ring is not touched, not even for a moment: on
 * shm the peer reads that word already, and would take the batch before it is copied.
 */
#include "transport/transport.h"

#include "core/assert.h"
#include "core/position.h"

#include <inttypes.h>
#include <string.h>

rsi_status_t rsi_link_resume_check(const struct rsi_link *from, uint64_t arrived_pos,
                                   uint64_t consumed_pos, struct rsi_error *error)
{
    bool is_aligned = rsi_is_aligned(arrived_pos, RSI_FRAME_ALIGN_BYTES) &&
                      rsi_is_aligned(consumed_pos, RSI_FRAME_ALIGN_BYTES);
    if (is_aligned && from->peer_consumed_pos <= consumed_pos && consumed_pos <= arrived_pos &&
        arrived_pos <= from->placed_pos) {
        return RSI_OK;
    }
    return rsi_fail(error, RSI_E_PROTOCOL,
                    "the peer says that it got %" PRIu64 " and consumed %" PRIu64
                    " bytes, but it had consumed %" PRIu64 " already and %" PRIu64
                    " were sent: the session cannot go on",
                    arrived_pos, consumed_pos, from->peer_consumed_pos, from->placed_pos);
}

/* Copies [start_pos, end_pos), at most one ring. */
static void copy_span(const struct rsi_ring *to, const struct rsi_ring *from, uint64_t start_pos,
                      uint64_t end_pos)
{
    if (start_pos < end_pos) {
        memcpy(rsi_ring_at(to, start_pos), rsi_ring_at(from, start_pos), end_pos - start_pos);
    }
}

/* The commit word of the frame at `position` of the out ring. */
static uint64_t commit_word_at(const struct rsi_link *link, uint64_t position)
{
    if (position == link->placed_pos) {
        return link->head_word;
    }
    uint64_t word;
    memcpy(&word, rsi_ring_at(&link->out, position), sizeof(word));
    return word;
}

static void carry_out(struct rsi_link *to, const struct rsi_link *from)
{
    uint64_t start_pos = to->placed_pos;
    rsi_assert(to->staged_pos == start_pos);
    rsi_assert(from->peer_consumed_pos <= to->peer_consumed_pos);
    rsi_assert(start_pos <= from->placed_pos);
    /* From what the peer consumed on, not from what it got: whoever counts what a broker did not
     * take reads frames from there. */
    copy_span(&to->out, &from->out, to->peer_consumed_pos, start_pos);
    if (start_pos == from->staged_pos) {
        return;
    }
    copy_span(&to->out, &from->out, start_pos + sizeof(to->head_word), from->staged_pos);
    if (from->placed_pos > start_pos && from->placed_pos < from->staged_pos) {
        uint64_t word = from->head_word; /* the first word of what was staged and never placed */
        memcpy(rsi_ring_at(&to->out, from->placed_pos), &word, sizeof(word));
    }
    to->head_word = commit_word_at(from, start_pos);
    to->staged_pos = from->staged_pos;
}

void rsi_link_carry(struct rsi_link *to, const struct rsi_link *from)
{
    rsi_assert(to->out.capacity_bytes == from->out.capacity_bytes);
    rsi_assert(to->in.capacity_bytes == from->in.capacity_bytes);
    if (to->in.capacity_bytes != 0) {
        rsi_assert(to->consumed_pos <= from->consumed_pos);
        rsi_assert(from->arrived_pos <= to->arrived_pos);
        copy_span(&to->in, &from->in, from->consumed_pos, from->arrived_pos);
        to->consumed_pos = from->consumed_pos;
    }
    if (to->out.capacity_bytes != 0) {
        carry_out(to, from);
    }
    if (to->in.capacity_bytes != 0) {
        rsi_link_tell_consumed(to);
    }
}
