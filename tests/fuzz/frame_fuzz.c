/*
 * Design notes: the bytes of a ring as a peer could leave them, and the frame reader over all of
 * it. What must hold: a frame that is taken lies within what has arrived, and its parts within the
 * frame.
 */
#include "tests/fuzz/fuzz_main.h"

#include "core/assert.h"
#include "transport/frame.h"

#include <string.h>

#define RING_BYTES 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct rsi_ring ring;
    if (!ring.base) {
        struct rsi_ring_options options = {
            .name = "fuzz", .capacity_bytes = RING_BYTES, .node = RSI_NODE_ANY};
        rsi_assert(rsi_ring_init(&ring, &options, NULL) == RSI_OK);
    }
    uint64_t start_pos = 0;
    if (bytes < sizeof(start_pos)) {
        return 0;
    }
    memcpy(&start_pos, data, sizeof(start_pos));
    start_pos &= (1ull << 50) - 8;
    data += sizeof(start_pos);
    bytes -= sizeof(start_pos);
    bytes = bytes > RING_BYTES ? RING_BYTES : bytes & ~(size_t)7;
    memcpy(rsi_ring_at(&ring, start_pos), data, bytes);

    uint64_t position = start_pos;
    uint64_t end_pos = start_pos + bytes;
    while (position < end_pos) {
        /* Half of the inputs would never get past the commit word: help where it names a length. */
        uint64_t *commit = (uint64_t *)(void *)rsi_ring_at(&ring, position);
        if ((*commit & 1) == 0) {
            *commit = rsi_commit_word(position, (*commit & RSI_COMMIT_LENGTH_MASK) << 3);
        }
        struct rsi_frame frame;
        const char *why = NULL;
        if (rsi_frame_read(&ring, position, end_pos, &frame, &why) != RSI_OK) {
            rsi_assert(why != NULL);
            return 0;
        }
        rsi_assert(frame.frame_bytes >= RSI_FRAME_HEADER_BYTES);
        rsi_assert(frame.frame_bytes <= end_pos - position);
        rsi_assert(rsi_frame_bytes(frame.header.headers_bytes, frame.header.payload_bytes) <=
                   frame.frame_bytes);
        uint8_t sum = 0;
        for (uint32_t i = 0; i < frame.header.payload_bytes; i++) {
            sum = (uint8_t)(sum + frame.payload[i]);
        }
        *(uint8_t *)&frame.header.flags = sum;
        position += frame.frame_bytes;
    }
    return 0;
}
