/*
 * Design notes
 * - Numbers are 32 bits and wrap, as the kernel's do; only differences are compared, and at most
 *   RSI_TCP_ZEROCOPY_COUNT_MAX sends are under way.
 * - A done send in the middle changes nothing that anybody sees: bytes become free in the order of
 *   positions, up to the oldest send that is not done.
 */
#include "transport/tcp/zerocopy.h"

#include "core/assert.h"
#include "core/position.h"

#include <stdlib.h>

#define SLOT_MASK (RSI_TCP_ZEROCOPY_COUNT_MAX - 1)

rsi_static_assert((RSI_TCP_ZEROCOPY_COUNT_MAX & SLOT_MASK) == 0);

struct rsi_tcp_zerocopy *rsi_tcp_zerocopy_create(void)
{
    return calloc(1, sizeof(struct rsi_tcp_zerocopy));
}

void rsi_tcp_zerocopy_destroy(struct rsi_tcp_zerocopy *zerocopy)
{
    free(zerocopy);
}

struct rsi_record_header *rsi_tcp_zerocopy_header(struct rsi_tcp_zerocopy *zerocopy)
{
    return &zerocopy->headers[zerocopy->next_id & SLOT_MASK];
}

void rsi_tcp_zerocopy_add(struct rsi_tcp_zerocopy *zerocopy, uint64_t start_pos)
{
    rsi_assert(rsi_tcp_zerocopy_has_room(zerocopy));
    uint32_t slot = zerocopy->next_id & SLOT_MASK;
    zerocopy->start_pos[slot] = start_pos;
    zerocopy->is_done[slot] = false;
    zerocopy->next_id++;
}

bool rsi_tcp_zerocopy_complete(struct rsi_tcp_zerocopy *zerocopy, uint32_t first_id,
                               uint32_t last_id)
{
    uint32_t from = first_id - zerocopy->first_id;
    uint32_t to = last_id - zerocopy->first_id;
    if (from > to || to >= rsi_tcp_zerocopy_count(zerocopy)) {
        return false;
    }
    for (uint32_t i = from; i <= to; i++) {
        zerocopy->is_done[(zerocopy->first_id + i) & SLOT_MASK] = true;
    }
    while (zerocopy->first_id != zerocopy->next_id &&
           zerocopy->is_done[zerocopy->first_id & SLOT_MASK]) {
        zerocopy->first_id++;
    }
    return true;
}

uint64_t rsi_tcp_zerocopy_free_pos(const struct rsi_tcp_zerocopy *zerocopy)
{
    if (zerocopy->first_id == zerocopy->next_id) {
        return UINT64_MAX;
    }
    /* A send that the socket took in part goes on at any byte; positions are multiples of 8. */
    return zerocopy->start_pos[zerocopy->first_id & SLOT_MASK] &
           ~(uint64_t)(RSI_FRAME_ALIGN_BYTES - 1);
}
