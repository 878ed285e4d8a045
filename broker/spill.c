/*
 * Design notes: see spill.h. Frames have the layout of proto/layout.h with the spill's own
 * positions in their commit words, so that one word says where the next frame begins. A frame that
 * was struck out has type 0, which no frame has.
 */
#include "broker/spill.h"

#include "core/assert.h"

#include <string.h>

enum { TYPE_STRUCK = 0 };

rsi_status_t rsi_spill_init(struct rsi_spill *spill, uint64_t bytes, struct rsi_error *error)
{
    memset(spill, 0, sizeof(*spill));
    /* Ordinary pages: most of it is touched only while the session is slow. */
    const struct rsi_ring_options options = {
        .name = "spill",
        .capacity_bytes = rsi_ring_next_capacity(bytes),
        .node = RSI_NODE_ANY,
    };
    return rsi_ring_init(&spill->ring, &options, error);
}

void rsi_spill_fini(struct rsi_spill *spill)
{
    rsi_ring_fini(&spill->ring);
    memset(spill, 0, sizeof(*spill));
}

struct rsi_frame_header *rsi_spill_at(const struct rsi_spill *spill, uint64_t position,
                                      uint64_t *next_pos)
{
    rsi_assert(position < spill->tail_pos);
    struct rsi_frame_header *header =
        (struct rsi_frame_header *)(void *)rsi_ring_at(&spill->ring, position);
    uint64_t frame_bytes = rsi_commit_frame_bytes(header->commit, position);
    rsi_assert(frame_bytes >= RSI_FRAME_HEADER_BYTES);
    *next_pos = position + frame_bytes;
    return header;
}

bool rsi_spill_is_struck(const struct rsi_frame_header *header)
{
    return header->type == TYPE_STRUCK;
}

void rsi_spill_append(struct rsi_spill *spill, const struct rsi_frame_header *source,
                      uint64_t frame_bytes)
{
    rsi_assert(rsi_spill_bytes(spill) + frame_bytes <= spill->ring.capacity_bytes);
    struct rsi_frame_header *header =
        (struct rsi_frame_header *)(void *)rsi_ring_at(&spill->ring, spill->tail_pos);
    memcpy(header, source, frame_bytes);
    header->commit = rsi_commit_word(spill->tail_pos, frame_bytes);
    spill->tail_pos += frame_bytes;
}

/* Gives back what was struck out at the head. */
static void trim(struct rsi_spill *spill)
{
    while (spill->head_pos < spill->tail_pos) {
        uint64_t next_pos = 0;
        if (!rsi_spill_is_struck(rsi_spill_at(spill, spill->head_pos, &next_pos))) {
            return;
        }
        spill->head_pos = next_pos;
    }
}

void rsi_spill_strike(struct rsi_spill *spill, uint64_t position)
{
    uint64_t next_pos = 0;
    rsi_spill_at(spill, position, &next_pos)->type = TYPE_STRUCK;
    trim(spill);
}

void rsi_spill_pop(struct rsi_spill *spill)
{
    uint64_t next_pos = 0;
    (void)rsi_spill_at(spill, spill->head_pos, &next_pos);
    spill->head_pos = next_pos;
    trim(spill);
}
