/*
 * Design notes
 *
 * - Free buffers are a stack of indexes: the one used last is the one whose lines are still in the
 *   cache. The bit per buffer is what makes a double release visible where it happens.
 * - Index stack and bits are ordinary heap memory, so that a write past a buffer's end cannot reach
 *   them.
 */
#include "core/pool.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/assert.h"
#include "core/position.h"

static bool bit_is_set(const uint64_t *bits, uint32_t index)
{
    return (bits[index / 64] >> (index % 64) & 1) != 0;
}

rsi_status_t rsi_pool_init(struct rsi_pool *pool, const struct rsi_pool_options *options,
                           struct rsi_error *error)
{
    const char *name = options->name != NULL ? options->name : "pool";
    uint64_t buffer_count = options->buffer_count;
    const uint64_t buffer_bytes_max = UINT64_C(1) << 40;
    if (options->buffer_bytes == 0 || options->buffer_bytes > buffer_bytes_max ||
        buffer_count == 0) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: a pool of %" PRIu64 " buffers of %" PRIu64 " bytes is not possible",
                        name, buffer_count, options->buffer_bytes);
    }
    uint64_t stride_bytes = rsi_align_up_64(options->buffer_bytes);
    if (buffer_count > UINT64_MAX / stride_bytes) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: %" PRIu64 " buffers of %" PRIu64 " bytes are beyond any memory", name,
                        buffer_count, options->buffer_bytes);
    }
    struct rsi_pool made = {
        .buffer_bytes = options->buffer_bytes,
        .stride_bytes = stride_bytes,
        .buffer_count = options->buffer_count,
        .free_indexes = calloc(buffer_count, sizeof(uint32_t)),
        .free_bits = calloc((buffer_count + 63) / 64, sizeof(uint64_t)),
    };
    rsi_status_t status = RSI_OK;
    if (made.free_indexes == NULL || made.free_bits == NULL) {
        status = rsi_fail(error, RSI_E_NO_MEMORY,
                          "%s: no memory for the index of %" PRIu64 " buffers", name, buffer_count);
        goto free_index;
    }
    struct rsi_arena_options arena_options = {
        .name = name,
        .bytes = buffer_count * stride_bytes,
        .node = options->node,
        .want_huge = options->want_huge,
        .want_lock = options->want_lock,
    };
    status = rsi_arena_init(&made.arena, &arena_options, error);
    if (status != RSI_OK) {
        goto free_index;
    }
    made.base = made.arena.base;
    for (uint32_t i = 0; i < made.buffer_count; i++) {
        made.free_indexes[i] = made.buffer_count - 1 - i; /* buffer 0 goes out first */
        made.free_bits[i / 64] |= UINT64_C(1) << (i % 64);
    }
    made.free_count = made.buffer_count;
    made.free_count_min = made.buffer_count;
    *pool = made;
    return RSI_OK;

free_index:
    free(made.free_indexes);
    free(made.free_bits);
    return status;
}

void rsi_pool_fini(struct rsi_pool *pool)
{
    rsi_arena_fini(&pool->arena);
    free(pool->free_indexes);
    free(pool->free_bits);
    *pool = (struct rsi_pool){0};
}

void *rsi_pool_acquire(struct rsi_pool *pool)
{
    if (pool->free_count == 0) {
        return NULL;
    }
    uint32_t index = pool->free_indexes[--pool->free_count];
    rsi_assert(bit_is_set(pool->free_bits, index));
    pool->free_bits[index / 64] &= ~(UINT64_C(1) << (index % 64));
    if (pool->free_count < pool->free_count_min) {
        pool->free_count_min = pool->free_count;
    }
    return pool->base + index * pool->stride_bytes;
}

void rsi_pool_release(struct rsi_pool *pool, void *buffer)
{
    uint32_t index = rsi_pool_index(pool, buffer);
    bool is_released_twice = bit_is_set(pool->free_bits, index);
    rsi_assert(!is_released_twice);
    rsi_assert(pool->free_count < pool->buffer_count);
    pool->free_bits[index / 64] |= UINT64_C(1) << (index % 64);
    pool->free_indexes[pool->free_count++] = index;
}

uint32_t rsi_pool_index(const struct rsi_pool *pool, const void *buffer)
{
    uintptr_t offset = (uintptr_t)buffer - (uintptr_t)pool->base;
    uint64_t index = offset / pool->stride_bytes;
    rsi_assert((uintptr_t)buffer >= (uintptr_t)pool->base);
    rsi_assert(index < pool->buffer_count);
    rsi_assert(offset % pool->stride_bytes == 0);
    return (uint32_t)index;
}

void *rsi_pool_at(const struct rsi_pool *pool, uint32_t index)
{
    rsi_assert(index < pool->buffer_count);
    return pool->base + index * pool->stride_bytes;
}

bool rsi_pool_is_free(const struct rsi_pool *pool, uint32_t index)
{
    rsi_assert(index < pool->buffer_count);
    return bit_is_set(pool->free_bits, index);
}
