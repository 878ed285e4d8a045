/*
 * What a reader lacks: ranges of positions between what it has without a hole and the highest byte
 * that it has seen or heard of.
 *
 *     received_pos        gap            gap      high_pos
 *     ....|xxxxxxxxx|    |xxxxxxxxxxxx|      |xxxxx|
 *
 * Design notes
 * - A table of bounded size, sorted, no holes in it; a datagram that would need one entry too many
 *   is given up, as if it had been lost.
 * - A gap is asked for when it is likely a loss and not only disorder: when RSI_GAP_LATER_COUNT
 *   datagrams have come after the one that showed it, or after a quarter of a round trip. Then
 *   again only after a whole time-out, because what is under way must not be asked for twice.
 */
#ifndef RSI_TRANSPORT_DPDK_GAPS_H
#define RSI_TRANSPORT_DPDK_GAPS_H

#include "proto/datagram.h"

#define RSI_GAP_COUNT_MAX   64u
#define RSI_GAP_LATER_COUNT 3u

struct rsi_gap_range {
    uint64_t start_pos;
    uint64_t end_pos;
    uint64_t shown_number; /* of the datagram that showed it */
    uint64_t due_ns;       /* ask at the latest */
    bool was_asked;
};

struct rsi_gaps {
    uint64_t high_pos;
    uint32_t count;
    struct rsi_gap_range list[RSI_GAP_COUNT_MAX];
};

/* Nothing is lacking before `pos`. */
void rsi_gaps_init(struct rsi_gaps *gaps, uint64_t pos);
/* Without a hole up to here. */
static inline uint64_t rsi_gaps_received_pos(const struct rsi_gaps *gaps)
{
    return gaps->count == 0 ? gaps->high_pos : gaps->list[0].start_pos;
}

/* [high_pos, pos) was sent and has not come: datagram `number` shows it. False: the table is full.
 */
bool rsi_gaps_raise(struct rsi_gaps *gaps, uint64_t pos, uint64_t number, uint64_t due_ns);
/*
 * Takes the first part of [*start_pos, end_pos) that is lacking out of the table: sets `part`, and
 * *start_pos to its end, and returns true; the caller copies exactly these bytes. False: nothing
 * of it is lacking (or, in the middle of a gap with the table full, cannot be noted).
 */
bool rsi_gaps_take(struct rsi_gaps *gaps, uint64_t *start_pos, uint64_t end_pos,
                   struct rsi_datagram_range *part);
/*
 * Ranges to ask for now, at most RSI_DATAGRAM_RANGE_COUNT_MAX; they are due again `again_ns` later.
 * Returns how many.
 */
uint32_t rsi_gaps_ask(struct rsi_gaps *gaps, uint64_t newest_number, uint64_t now_ns,
                      uint64_t again_ns, struct rsi_datagram_range *ranges);
/* Whether rsi_gaps_ask would ask for something. */
bool rsi_gaps_are_due(const struct rsi_gaps *gaps, uint64_t newest_number, uint64_t now_ns);
/* When the first gap is due by time; UINT64_MAX: there is none. */
uint64_t rsi_gaps_due_ns(const struct rsi_gaps *gaps);

#endif
