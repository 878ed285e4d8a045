#ifndef RSI_CORE_POSITION_H
#define RSI_CORE_POSITION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/assert.h"

/*
 * Positions count the bytes since a ring's or a log's start. They never wrap (2^64 bytes at 100
 * GB/s last five years), so plain comparison is right; they are masked only when addressing.
 */

static inline bool rsi_is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static inline bool rsi_is_aligned(uint64_t value, uint64_t alignment)
{
    return (value & (alignment - 1)) == 0;
}

/* The next multiple of `alignment`, which is a power of two; the result must fit. */
static inline uint64_t rsi_align_up(uint64_t value, uint64_t alignment)
{
    rsi_assert(rsi_is_power_of_two(alignment));
    rsi_assert(value <= UINT64_MAX - (alignment - 1));
    return (value + (alignment - 1)) & ~(alignment - 1);
}

static inline uint64_t rsi_align_up_8(uint64_t value)
{
    return rsi_align_up(value, 8);
}

static inline uint64_t rsi_align_up_64(uint64_t value)
{
    return rsi_align_up(value, 64);
}

/* The smallest power of two that is not below `value`; `value` is at most 2^63. */
static inline uint64_t rsi_round_up_power_of_two(uint64_t value)
{
    rsi_assert(value <= UINT64_C(1) << 63);
    if (value <= 1) {
        return 1;
    }
    return UINT64_C(1) << (64 - __builtin_clzll(value - 1));
}

/* `pos` moved on by `bytes`. */
static inline uint64_t rsi_pos_advance(uint64_t pos, uint64_t bytes)
{
    rsi_assert(bytes <= UINT64_MAX - pos);
    return pos + bytes;
}

/* Bytes from `from_pos` to `to_pos`, which must not lie before it. */
static inline uint64_t rsi_pos_distance(uint64_t from_pos, uint64_t to_pos)
{
    rsi_assert(from_pos <= to_pos);
    return to_pos - from_pos;
}

/* low <= pos <= high: the form in which positions that a peer told are checked. */
static inline bool rsi_pos_is_within(uint64_t pos, uint64_t low_pos, uint64_t high_pos)
{
    return low_pos <= pos && pos <= high_pos;
}

static inline uint64_t rsi_pos_min(uint64_t a_pos, uint64_t b_pos)
{
    return a_pos < b_pos ? a_pos : b_pos;
}

static inline uint64_t rsi_pos_max(uint64_t a_pos, uint64_t b_pos)
{
    return a_pos > b_pos ? a_pos : b_pos;
}

#endif
