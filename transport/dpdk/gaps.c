/*
 * Design notes
 * - The list is searched from the front: it is nearly always empty, and never longer than
 *   RSI_GAP_COUNT_MAX.
 */
#include "transport/dpdk/gaps.h"

#include "core/assert.h"
#include "core/position.h"

#include <string.h>

void rsi_gaps_init(struct rsi_gaps *gaps, uint64_t pos)
{
    gaps->high_pos = pos;
    gaps->count = 0;
}

bool rsi_gaps_raise(struct rsi_gaps *gaps, uint64_t pos, uint64_t number, uint64_t due_ns)
{
    rsi_assert(pos >= gaps->high_pos);
    if (pos == gaps->high_pos) {
        return true;
    }
    if (gaps->count == RSI_GAP_COUNT_MAX) {
        return false;
    }
    gaps->list[gaps->count++] = (struct rsi_gap_range){
        .start_pos = gaps->high_pos,
        .end_pos = pos,
        .shown_number = number,
        .due_ns = due_ns,
    };
    gaps->high_pos = pos;
    return true;
}

static void insert(struct rsi_gaps *gaps, uint32_t index, const struct rsi_gap_range *gap)
{
    memmove(&gaps->list[index + 1], &gaps->list[index],
            (gaps->count - index) * sizeof(gaps->list[0]));
    gaps->list[index] = *gap;
    gaps->count++;
}

static void erase(struct rsi_gaps *gaps, uint32_t index)
{
    gaps->count--;
    memmove(&gaps->list[index], &gaps->list[index + 1],
            (gaps->count - index) * sizeof(gaps->list[0]));
}

/* Takes [start_pos, end_pos) out of gap `index`, of which it is a part. */
static bool cut(struct rsi_gaps *gaps, uint32_t index, uint64_t start_pos, uint64_t end_pos)
{
    struct rsi_gap_range *gap = &gaps->list[index];
    bool keeps_front = gap->start_pos < start_pos;
    bool keeps_back = end_pos < gap->end_pos;
    if (keeps_front && keeps_back) {
        if (gaps->count == RSI_GAP_COUNT_MAX) {
            return false;
        }
        struct rsi_gap_range back = *gap;
        back.start_pos = end_pos;
        gap->end_pos = start_pos;
        insert(gaps, index + 1, &back);
    } else if (keeps_front) {
        gap->end_pos = start_pos;
    } else if (keeps_back) {
        gap->start_pos = end_pos;
    } else {
        erase(gaps, index);
    }
    return true;
}

bool rsi_gaps_take(struct rsi_gaps *gaps, uint64_t *start_pos, uint64_t end_pos,
                   struct rsi_datagram_range *part)
{
    for (uint32_t i = 0; i < gaps->count; i++) {
        const struct rsi_gap_range *gap = &gaps->list[i];
        uint64_t from_pos = rsi_pos_max(gap->start_pos, *start_pos);
        uint64_t to_pos = rsi_pos_min(gap->end_pos, end_pos);
        if (from_pos >= to_pos) {
            continue;
        }
        if (!cut(gaps, i, from_pos, to_pos)) {
            return false;
        }
        *part = (struct rsi_datagram_range){.start_pos = from_pos, .end_pos = to_pos};
        *start_pos = to_pos;
        return true;
    }
    if (*start_pos >= end_pos || end_pos <= gaps->high_pos || *start_pos > gaps->high_pos) {
        return false;
    }
    part->start_pos = rsi_pos_max(*start_pos, gaps->high_pos);
    part->end_pos = end_pos;
    gaps->high_pos = end_pos;
    *start_pos = end_pos;
    return true;
}

static bool is_due(const struct rsi_gap_range *gap, uint64_t newest_number, uint64_t now_ns)
{
    bool is_overtaken = !gap->was_asked && newest_number >= gap->shown_number &&
                        newest_number - gap->shown_number >= RSI_GAP_LATER_COUNT - 1;
    return is_overtaken || now_ns >= gap->due_ns;
}

uint32_t rsi_gaps_ask(struct rsi_gaps *gaps, uint64_t newest_number, uint64_t now_ns,
                      uint64_t again_ns, struct rsi_datagram_range *ranges)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < gaps->count && count < RSI_DATAGRAM_RANGE_COUNT_MAX; i++) {
        struct rsi_gap_range *gap = &gaps->list[i];
        if (!is_due(gap, newest_number, now_ns)) {
            continue;
        }
        gap->was_asked = true;
        gap->due_ns = now_ns + again_ns;
        ranges[count++] =
            (struct rsi_datagram_range){.start_pos = gap->start_pos, .end_pos = gap->end_pos};
    }
    return count;
}

bool rsi_gaps_are_due(const struct rsi_gaps *gaps, uint64_t newest_number, uint64_t now_ns)
{
    for (uint32_t i = 0; i < gaps->count; i++) {
        if (is_due(&gaps->list[i], newest_number, now_ns)) {
            return true;
        }
    }
    return false;
}

uint64_t rsi_gaps_due_ns(const struct rsi_gaps *gaps)
{
    uint64_t due_ns = UINT64_MAX;
    for (uint32_t i = 0; i < gaps->count; i++) {
        due_ns = rsi_pos_min(due_ns, gaps->list[i].due_ns);
    }
    return due_ns;
}
