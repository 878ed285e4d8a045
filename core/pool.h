#ifndef RSI_CORE_POOL_H
#define RSI_CORE_POOL_H

#include "core/arena.h"

/*
 * Buffers of one size out of one arena. Acquire and release are a few instructions, without system
 * call or lock; only the owner thread calls them. The buffer given back last is given out first.
 */
struct rsi_pool {
    uint8_t *base;         /* first buffer; buffers lie stride_bytes apart */
    uint64_t buffer_bytes; /* what a user of a buffer may use */
    uint64_t stride_bytes; /* buffer_bytes rounded up to a cache line */
    uint32_t buffer_count;
    uint32_t free_count;
    uint32_t free_count_min; /* the lowest that free_count ever was */
    uint32_t *free_indexes;  /* stack of the free ones; its top is at free_count - 1 */
    uint64_t *free_bits;     /* bit i: buffer i is free; catches a double release */
    struct rsi_arena arena;
};

struct rsi_pool_options {
    const char *name; /* for texts; borrowed until return */
    uint64_t buffer_bytes;
    uint32_t buffer_count;
    int node; /* preferred NUMA node, or RSI_NODE_ANY */
    bool want_huge;
    bool want_lock;
};

/* Control plane. Errors: INVALID (a size or count of 0, or a product beyond memory), and those of
 * rsi_arena_init(). */
rsi_status_t rsi_pool_init(struct rsi_pool *pool, const struct rsi_pool_options *options,
                           struct rsi_error *error) RSI_MUST_CHECK;

/* Takes a zeroed pool. Buffers that are still out die with it. */
void rsi_pool_fini(struct rsi_pool *pool);

/* A buffer, aligned to 64, with what its last user left in it; NULL when none is free. */
void *rsi_pool_acquire(struct rsi_pool *pool);

/* Gives a buffer back. Asserts that it is one of this pool's and is out. */
void rsi_pool_release(struct rsi_pool *pool, void *buffer);

/* The index of a buffer, 0 .. buffer_count - 1. Asserts that `buffer` is the start of one. */
uint32_t rsi_pool_index(const struct rsi_pool *pool, const void *buffer);

/* The buffer of an index, whether free or out. */
void *rsi_pool_at(const struct rsi_pool *pool, uint32_t index);

/* Whether the buffer of this index is free: for texts and checks. */
bool rsi_pool_is_free(const struct rsi_pool *pool, uint32_t index);

#endif
