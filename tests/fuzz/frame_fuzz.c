/*
 * Design notes: the bytes of a ring as a peer could leave them, and the frame reader over all of
 * it, and of the headers in it. What must hold: a frame that is taken lies within what has arrived,
 * and its parts within the frame, and headers within their block.
 */
#include "tests/fuzz/fuzz_main.h"

#include "core/assert.h"
#include "proto/headers.h"
#include "transport/frame.h"

#include <string.h>

#define RING_BYTES 65536u

/* Whatever the check says of them, walking along them stays within the block. */
static void read_headers(const uint8_t *block, uint32_t block_bytes)
{
    struct rsi_header entry;
    uint32_t at = 0;
    uint32_t told_count = 0;
    uint32_t count = 0;
    bool is_well_formed = rsi_headers_check(block, block_bytes, &told_count) == NULL;
    while (rsi_headers_next(block, block_bytes, &at, &entry)) {
        rsi_assert(at <= block_bytes && (const uint8_t *)entry.name > block);
        rsi_assert(entry.value + entry.value_bytes == block + at);
        rsi_assert(strlen(entry.name) <= entry.name_bytes);
        count++;
    }
    rsi_assert(!is_well_formed || count == told_count);
}

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
        read_headers(frame.headers, frame.header.headers_bytes);
        uint8_t sum = 0;
        for (uint32_t i = 0; i < frame.header.payload_bytes; i++) {
            sum = (uint8_t)(sum + frame.payload[i]);
        }
        *(uint8_t *)&frame.header.flags = sum;
        position += frame.frame_bytes;
    }
    return 0;
}
