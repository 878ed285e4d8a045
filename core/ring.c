/*
 * Design notes
 *
 * - The second mapping stands in for all wrap-around code: a frame that crosses the end is read and
 *   written as one span. Hence capacities are powers of two (for the mask) and whole pages.
 * - The two mappings are different addresses to the thread sanitizer; the order of accesses to a
 * ring is the business of those who define its words, and is proved elsewhere.
 */
#include "core/ring.h"

#include <inttypes.h>

#include "core/assert.h"
#include "core/position.h"

static const uint64_t capacity_bytes_max = UINT64_C(1) << 40;

bool rsi_ring_is_valid_capacity(uint64_t capacity_bytes)
{
    return rsi_is_power_of_two(capacity_bytes) && capacity_bytes >= rsi_page_bytes() &&
           capacity_bytes <= capacity_bytes_max;
}

uint64_t rsi_ring_next_capacity(uint64_t bytes)
{
    return rsi_pos_max(rsi_round_up_power_of_two(bytes), rsi_page_bytes());
}

static rsi_status_t check_capacity(const char *name, uint64_t capacity_bytes,
                                   struct rsi_error *error)
{
    if (rsi_ring_is_valid_capacity(capacity_bytes)) {
        return RSI_OK;
    }
    if (capacity_bytes > capacity_bytes_max) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: a ring of %" PRIu64 " bytes is too large; the most is %" PRIu64, name,
                        capacity_bytes, capacity_bytes_max);
    }
    return rsi_fail(error, RSI_E_INVALID,
                    "%s: a ring of %" PRIu64
                    " bytes is not possible: the size is a power of two of at "
                    "least one page; the next one is %" PRIu64,
                    name, capacity_bytes, rsi_ring_next_capacity(capacity_bytes));
}

static void take_arena(struct rsi_ring *ring, const struct rsi_arena *arena)
{
    rsi_assert(rsi_is_power_of_two(arena->bytes));
    ring->arena = *arena;
    ring->base = arena->base;
    ring->capacity_bytes = arena->bytes;
    ring->mask = arena->bytes - 1;
}

rsi_status_t rsi_ring_init(struct rsi_ring *ring, const struct rsi_ring_options *options,
                           struct rsi_error *error)
{
    const char *name = options->name != NULL ? options->name : "ring";
    rsi_status_t status = check_capacity(name, options->capacity_bytes, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_arena_options arena_options = {
        .name = name,
        .bytes = options->capacity_bytes,
        .node = options->node,
        .want_huge = options->want_huge,
        .want_lock = options->want_lock,
        .want_mirror = true,
        .prefix_bytes = options->prefix_bytes,
        .want_fd = options->want_share,
        .want_seal = options->want_share,
    };
    struct rsi_arena arena;
    status = rsi_arena_init(&arena, &arena_options, error);
    if (status != RSI_OK) {
        return status;
    }
    take_arena(ring, &arena);
    return RSI_OK;
}

rsi_status_t rsi_ring_init_fd(struct rsi_ring *ring, int fd,
                              const struct rsi_ring_fd_options *options, struct rsi_error *error)
{
    const char *name = options->name != NULL ? options->name : "ring";
    rsi_status_t status = check_capacity(name, options->capacity_bytes, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_arena_fd_options arena_options = {
        .name = name,
        .bytes = options->capacity_bytes,
        .is_read_only = options->is_read_only,
        .want_mirror = true,
    };
    struct rsi_arena arena;
    status = rsi_arena_init_fd(&arena, fd, &arena_options, error);
    if (status != RSI_OK) {
        return status;
    }
    take_arena(ring, &arena);
    return RSI_OK;
}

void rsi_ring_fini(struct rsi_ring *ring)
{
    rsi_arena_fini(&ring->arena);
    *ring = (struct rsi_ring){0};
}
