/*
 * Design notes
 * - The accepting side, a broker, makes all memory of a link. It never maps a file that a client
 *   made, so no client can truncate memory under it (SIGBUS). The client maps the broker's files
 *   after checking that they are sealed and have the agreed sizes.
 * - The client can write all of it: its out ring and its words page because it must, the others
 *   because one kind of mapping is enough. So the broker reads from there only what the client may
 *   write anyhow, and checks it (shm_words.h, datapath.c); scribbling elsewhere hurts the client
 * alone.
 * - A file serves one link and is gone with it: nothing of one session is ever seen by another.
 */
#include "transport/shm/shm_internal.h"

#include <unistd.h>

static uint64_t words_bytes(void)
{
    return rsi_align_up(RSI_SHM_PAGE_COUNT * (uint64_t)RSI_WORDS_BYTES, rsi_page_bytes());
}

static void words_set(struct rsi_shm_link *link)
{
    struct rsi_words *pages = (struct rsi_words *)(void *)link->words_arena.base;
    struct rsi_words *accepter = &pages[RSI_SHM_PAGE_OF_ACCEPTER];
    struct rsi_words *dialler = &pages[RSI_SHM_PAGE_OF_DIALLER];
    link->own_words = link->is_accepter ? accepter : dialler;
    link->peer_words = link->is_accepter ? dialler : accepter;
}

/* A direction that is not used has no ring. */
static rsi_status_t ring_create(struct rsi_ring *ring, const char *name, uint64_t capacity_bytes,
                                const struct rsi_domain_options *options, struct rsi_error *error)
{
    if (capacity_bytes == 0) {
        return RSI_OK;
    }
    struct rsi_ring_options ring_options = {
        .name = name,
        .capacity_bytes = capacity_bytes,
        .node = options->node,
        .want_huge = true,
        .want_lock = options->lock_memory,
        .want_share = true,
    };
    return rsi_ring_init(ring, &ring_options, error);
}

rsi_status_t rsi_shm_memory_create(struct rsi_shm_link *link, struct rsi_error *error)
{
    const struct rsi_domain_options *options = &link->base.poller->domain->options;
    struct rsi_arena_options words_options = {
        .name = "words",
        .bytes = words_bytes(),
        .node = options->node,
        .want_lock = options->lock_memory,
        .want_fd = true,
        .want_seal = true,
    };
    rsi_status_t status = rsi_arena_init(&link->words_arena, &words_options, error);
    if (status != RSI_OK) {
        goto fail;
    }
    status = ring_create(&link->base.in, "shm-in", link->rings.in_bytes, options, error);
    if (status != RSI_OK) {
        goto release_memory;
    }
    status = ring_create(&link->base.out, "shm-out", link->rings.out_bytes, options, error);
    if (status != RSI_OK) {
        goto release_memory;
    }
    words_set(link);
    if (link->rings.in_bytes != 0) {
        rsi_shm_words_publish_consumed(link->own_words, link->rings.in_consumed_pos);
    }
    if (link->rings.out_bytes != 0) {
        rsi_shm_words_publish_consumed(link->peer_words, link->rings.out_consumed_pos);
    }
    return RSI_OK;

release_memory:
    rsi_shm_memory_fini(link);
fail:
    rsi_error_context(error, "memory for %s", link->base.peer_text);
    return status;
}

uint32_t rsi_shm_memory_fds(const struct rsi_shm_link *link, int fds[RSI_SHM_PACKET_FDS_MAX])
{
    uint32_t count = 0;
    fds[count++] = link->words_arena.fd;
    if (link->rings.in_bytes != 0) {
        fds[count++] = link->base.in.arena.fd;
    }
    if (link->rings.out_bytes != 0) {
        fds[count++] = link->base.out.arena.fd;
    }
    return count;
}

void rsi_shm_memory_close_fds(struct rsi_shm_link *link)
{
    rsi_arena_close_fd(&link->words_arena);
    rsi_arena_close_fd(&link->base.in.arena);
    rsi_arena_close_fd(&link->base.out.arena);
}

static rsi_status_t ring_map(struct rsi_ring *ring, const char *name, int fd,
                             uint64_t capacity_bytes, struct rsi_error *error)
{
    struct rsi_ring_fd_options options = {.name = name, .capacity_bytes = capacity_bytes};
    return rsi_ring_init_fd(ring, fd, &options, error);
}

/* The accepter's in ring is our out ring; the order is that of rsi_shm_memory_fds(). */
static rsi_status_t map_all(struct rsi_shm_link *link, struct rsi_error *error)
{
    uint32_t expected = 1u + (link->rings.out_bytes != 0) + (link->rings.in_bytes != 0);
    if (link->attach_fd_count != expected) {
        return rsi_fail(
            error, RSI_E_PROTOCOL,
            "the broker handed over %u memory files where %u belong to the agreed rings",
            link->attach_fd_count, expected);
    }
    struct rsi_arena_fd_options words_options = {.name = "words", .bytes = words_bytes()};
    uint32_t next = 0;
    rsi_status_t status =
        rsi_arena_init_fd(&link->words_arena, link->attach_fds[next++], &words_options, error);
    if (status == RSI_OK && link->rings.out_bytes != 0) {
        status = ring_map(&link->base.out, "shm-out", link->attach_fds[next++],
                          link->rings.out_bytes, error);
    }
    if (status == RSI_OK && link->rings.in_bytes != 0) {
        status = ring_map(&link->base.in, "shm-in", link->attach_fds[next++], link->rings.in_bytes,
                          error);
    }
    return status;
}

rsi_status_t rsi_shm_memory_map(struct rsi_shm_link *link, struct rsi_error *error)
{
    rsi_status_t status = map_all(link, error);
    for (uint32_t i = 0; i < link->attach_fd_count; i++) {
        close(link->attach_fds[i]);
    }
    link->attach_fd_count = 0;
    if (status != RSI_OK) {
        rsi_shm_memory_fini(link);
        rsi_error_context(error, "memory of %s", link->base.peer_text);
        return status;
    }
    words_set(link);
    return RSI_OK;
}

void rsi_shm_memory_fini(struct rsi_shm_link *link)
{
    rsi_ring_fini(&link->base.in);
    rsi_ring_fini(&link->base.out);
    rsi_arena_fini(&link->words_arena);
    link->own_words = NULL;
    link->peer_words = NULL;
}
