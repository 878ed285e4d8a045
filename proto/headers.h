/*
 * The headers of a message: name and value pairs between the frame's header and its payload.
 *
 *     block  = *entry padding          at most RSI_HEADERS_BYTES_MAX bytes, a multiple of 8
 *     entry  = struct rsi_headers_entry, name, a zero byte, value
 *     name   = 1 to 255 bytes of printable ASCII without space and ":"
 *     value  = any bytes
 *     padding = zeros up to the multiple of 8, so that the payload is aligned
 *
 * Broker, client and fuzzer use the one check below. What was checked may lie in memory that a peer
 * can still write (a shm ring), so reading entries bounds every step by itself.
 */
#ifndef RSI_PROTO_HEADERS_H
#define RSI_PROTO_HEADERS_H

#include "proto/layout.h"

/* One entry, in the block. */
struct rsi_header {
    const char *name; /* a zero follows it */
    uint32_t name_bytes;
    const uint8_t *value;
    uint32_t value_bytes;
};

/* NULL: the block is well formed, and *count, if not NULL, is set. Else a constant text. */
const char *rsi_headers_check(const uint8_t *block, uint32_t block_bytes, uint32_t *count);

/* NULL: a well-formed name. Else a constant text, and *at, if not NULL, where. `bytes` of any size.
 */
const char *rsi_header_name_check(const char *name, size_t bytes, size_t *at);

/* The entry at *at, from 0; moves *at behind it. False: there is none, or it is malformed. */
bool rsi_headers_next(const uint8_t *block, uint32_t block_bytes, uint32_t *at,
                      struct rsi_header *entry);

/* Names are compared without regard to the case of ASCII letters, as in HTTP. */
bool rsi_header_name_is(const struct rsi_header *entry, const char *name, size_t bytes);

/* Bytes of one entry without padding, and of a block whose entries take so many. */
static inline uint64_t rsi_header_entry_bytes(uint64_t name_bytes, uint64_t value_bytes)
{
    return sizeof(struct rsi_headers_entry) + name_bytes + 1 + value_bytes;
}

static inline uint64_t rsi_headers_padded_bytes(uint64_t bytes)
{
    return (bytes + 7) & ~7ull;
}

/* Writes one entry, which was checked and has room; returns what follows it. */
uint8_t *rsi_header_put(uint8_t *at, const char *name, size_t name_bytes, const void *value,
                        size_t value_bytes);

#endif
