/*
 * A spill: the private ring of one session in which its frames wait, in order, for room in its out
 * ring.
 *
 * Design notes
 * - Only sessions under policy block have one. It belongs to the session's home agent; nobody else
 *   looks at it, no peer ever writes it.
 * - It holds copies, so that a slow session never holds a log. How much it can hold is decided by
 *   its user, who stops admission in time: an append that does not fit is a broken invariant.
 * - A frame that is not wanted any more is struck out where it lies, and its bytes are given back
 *   when it is the oldest.
 */
#ifndef RSI_BROKER_SPILL_H
#define RSI_BROKER_SPILL_H

#include "core/ring.h"
#include "proto/layout.h"

#include <stdbool.h>
#include <stdint.h>

struct rsi_spill {
    struct rsi_ring ring;
    uint64_t head_pos; /* the oldest frame, never one that was struck out */
    uint64_t tail_pos; /* end of the youngest */
};

/* Control plane. Room for at least `bytes`. NO_MEMORY and the like: rsi_ring_init. */
RSI_MUST_CHECK rsi_status_t rsi_spill_init(struct rsi_spill *spill, uint64_t bytes,
                                           struct rsi_error *error);
void rsi_spill_fini(struct rsi_spill *spill);

static inline bool rsi_spill_is_empty(const struct rsi_spill *spill)
{
    return spill->head_pos == spill->tail_pos;
}

/* Bytes in use, with those of frames that were struck out and are not given back yet. */
static inline uint64_t rsi_spill_bytes(const struct rsi_spill *spill)
{
    return spill->tail_pos - spill->head_pos;
}

/* The frame at a position from head_pos on and below tail_pos, and where the next one begins. */
struct rsi_frame_header *rsi_spill_at(const struct rsi_spill *spill, uint64_t position,
                                      uint64_t *next_pos);
/* Whether the frame was struck out. */
bool rsi_spill_is_struck(const struct rsi_frame_header *header);

/* Copies a frame to the end. It fits. */
void rsi_spill_append(struct rsi_spill *spill, const struct rsi_frame_header *source,
                      uint64_t frame_bytes);
/* Strikes out the frame at `position`. */
void rsi_spill_strike(struct rsi_spill *spill, uint64_t position);
/* Gives back the oldest frame, and those behind it that were struck out. Not empty. */
void rsi_spill_pop(struct rsi_spill *spill);

#endif
