#ifndef RSI_CORE_RING_H
#define RSI_CORE_RING_H

#include "core/arena.h"

/*
 * A power-of-two byte buffer, mapped twice back to back: any span of up to capacity_bytes is
 * contiguous at rsi_ring_at(ring, pos), also across the end. It knows positions only as addresses;
 * who may write where is its owner's business. Register it with a device for capacity_bytes at
 * base.
 */
struct rsi_ring {
    uint8_t *base;           /* NULL: empty */
    uint64_t capacity_bytes; /* power of two */
    uint64_t mask;           /* capacity_bytes - 1 */
    struct rsi_arena arena;
};

struct rsi_ring_options {
    const char *name;        /* for texts; borrowed until return */
    uint64_t capacity_bytes; /* power of two, at least one page */
    int node;                /* preferred NUMA node, or RSI_NODE_ANY */
    bool want_huge;
    bool want_lock;
    bool want_share;       /* keep a sealed descriptor in arena.fd, to hand to another process */
    uint64_t prefix_bytes; /* rounded up to pages, mapped once right before base, never masked */
};

/*
 * Maps a zeroed ring. Control plane. A capacity that is no power of two or below a page is refused
 * with INVALID, and the text names the next valid one; other errors as rsi_arena_init().
 */
rsi_status_t rsi_ring_init(struct rsi_ring *ring, const struct rsi_ring_options *options,
                           struct rsi_error *error) RSI_MUST_CHECK;

struct rsi_ring_fd_options {
    const char *name; /* for texts; borrowed until return */
    uint64_t capacity_bytes;
    bool is_read_only;
};

/*
 * Maps a ring that another process made. `fd` stays the caller's and may be closed after return.
 * Size and seals are checked as in rsi_arena_init_fd(), with its errors.
 */
rsi_status_t rsi_ring_init_fd(struct rsi_ring *ring, int fd,
                              const struct rsi_ring_fd_options *options,
                              struct rsi_error *error) RSI_MUST_CHECK;

/* Unmaps. Takes a zeroed ring; leaves it empty. */
void rsi_ring_fini(struct rsi_ring *ring);

/* Whether a ring may have this capacity (in ordinary pages). */
bool rsi_ring_is_valid_capacity(uint64_t capacity_bytes);

/* The smallest valid capacity that is not below `bytes`; `bytes` is at most 2^62. */
uint64_t rsi_ring_next_capacity(uint64_t bytes);

/* Where the byte at `pos` is; the capacity_bytes from there on are contiguous. */
static inline uint8_t *rsi_ring_at(const struct rsi_ring *ring, uint64_t pos)
{
    return ring->base + (pos & ring->mask);
}

#endif
