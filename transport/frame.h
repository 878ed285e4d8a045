/*
 * Frames in rings: how the layers above the seam write an out ring and read an in ring.
 *
 * Design notes
 * - Writer, owner thread: rsi_frame_claim -> fill header fields and payload -> rsi_frame_commit.
 *   The commit word of a batch's first frame goes to link->head_word, every other one into the
 *   ring: place() completes the batch (transport.h). Only one claim is open at a time.
 * - Reader, owner thread: rsi_frame_read copies the header once into a local, checks it against the
 *   bounds that the transport vouches for, and never looks at the ring's copy again: on shm the
 * peer can rewrite it at any time. The payload of a shm ingress ring is copied before it is used.
 */
#ifndef RSI_TRANSPORT_FRAME_H
#define RSI_TRANSPORT_FRAME_H

#include "transport/transport.h"

/* A checked frame. `payload` points into the ring: valid until its bytes are consumed. */
struct rsi_frame {
    struct rsi_frame_header header; /* a private copy */
    uint64_t position;
    uint64_t frame_bytes;
    const uint8_t *headers; /* header.headers_bytes long */
    const uint8_t *payload; /* header.payload_bytes long */
    const uint8_t *entries; /* header.entry_count times struct rsi_frame_entry */
};

static inline struct rsi_frame_entry rsi_frame_entry_at(const struct rsi_frame *frame,
                                                        uint32_t index)
{
    struct rsi_frame_entry entry;
    __builtin_memcpy(&entry, frame->entries + (uint64_t)index * sizeof(entry), sizeof(entry));
    return entry;
}

/* Bytes that can still be staged. Owner thread. */
static inline uint64_t rsi_link_room_bytes(const struct rsi_link *link)
{
    uint64_t limit_pos = link->peer_consumed_pos + link->out.capacity_bytes;
    uint64_t used_pos = link->staged_pos + RSI_RING_GUARD_BYTES;
    return used_pos < limit_pos ? limit_pos - used_pos : 0;
}

/*
 * Room for one frame at staged_pos: its header, to be filled in but for `commit`, followed by
 * headers and payload. NULL: no room; nothing was taken. No system call.
 */
static inline struct rsi_frame_header *rsi_frame_claim(struct rsi_link *link, uint64_t frame_bytes)
{
    if (rsi_link_room_bytes(link) < frame_bytes) {
        return NULL;
    }
    return (struct rsi_frame_header *)(void *)rsi_ring_at(&link->out, link->staged_pos);
}

/* The claimed frame is complete: stages it. `frame_bytes` may be less than was claimed. */
static inline void rsi_frame_commit(struct rsi_link *link, uint64_t frame_bytes)
{
    uint64_t word = rsi_commit_word(link->staged_pos, frame_bytes);
    if (link->staged_pos == link->placed_pos) {
        link->head_word = word;
    } else {
        *(uint64_t *)(void *)rsi_ring_at(&link->out, link->staged_pos) = word;
    }
    link->staged_pos += frame_bytes;
}

/*
 * Reads and checks the frame at `position` of a ring whose readable bytes end at `end_pos`.
 * OK, or RSI_E_PROTOCOL with `why` set to a constant text. Never trusts a length it did not check.
 */
RSI_MUST_CHECK rsi_status_t rsi_frame_read(const struct rsi_ring *ring, uint64_t position,
                                           uint64_t end_pos, struct rsi_frame *frame,
                                           const char **why);

#endif
