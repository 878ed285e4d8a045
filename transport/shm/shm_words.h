/*
 * The words pages, read and written as atomics.
 *
 * Design notes
 * - Two processes map one memfd with two pages, struct rsi_words each: page 0 is written by the
 *   accepting side, page 1 by the dialling side. The layout declares plain integers, because rdma
 *   devices and other languages write them too; the only casts to atomics are here.
 * - A side reads only the other's page. It never reads back what it wrote in its own: the peer can
 *   write there, and a private copy in struct rsi_shm_link cannot be changed by anybody.
 * - Pairs: consumed_pos release (reader of the ring) / acquire (its writer), so that the writer
 *   overwrites only what was read. wake_generation release / acquire, so that who sees a
 *   generation sees its conditions or later ones. packets_sent release / acquire, so that who sees
 *   the count finds the packets in the socket. Between publishing a position and reading a
 *   generation each side has a seq_cst fence (datapath.c).
 */
#ifndef RSI_TRANSPORT_SHM_SHM_WORDS_H
#define RSI_TRANSPORT_SHM_SHM_WORDS_H

#include "core/atomics.h"
#include "core/position.h"
#include "proto/layout.h"

enum {
    RSI_SHM_PAGE_OF_ACCEPTER = 0,
    RSI_SHM_PAGE_OF_DIALLER = 1,
    RSI_SHM_PAGE_COUNT = 2,
};

static inline uint64_t rsi_shm_words_consumed(struct rsi_words *peer)
{
    return rsi_load_acquire(rsi_atomic_u64_at(&peer->consumed_pos));
}

static inline void rsi_shm_words_publish_consumed(struct rsi_words *own, uint64_t consumed_pos)
{
    rsi_store_release(rsi_atomic_u64_at(&own->consumed_pos), consumed_pos);
}

static inline uint64_t rsi_shm_words_packets(struct rsi_words *peer)
{
    return rsi_load_acquire(rsi_atomic_u64_at(&peer->packets_sent));
}

static inline void rsi_shm_words_ring_doorbell(struct rsi_words *own, uint64_t packets_sent)
{
    rsi_store_release(rsi_atomic_u64_at(&own->packets_sent), packets_sent);
}

static inline uint64_t rsi_shm_words_generation(struct rsi_words *peer)
{
    return rsi_load_acquire(rsi_atomic_u64_at(&peer->wake_generation));
}

/*
 * The conditions of a sleep request. They may already be those of a later generation than the one
 * that was read: then an answer comes early, or the later generation is seen by the next check.
 */
static inline void rsi_shm_words_conditions(struct rsi_words *peer, uint64_t *arrived_at_least,
                                            uint64_t *consumed_at_least)
{
    *arrived_at_least = rsi_load_relaxed(rsi_atomic_u64_at(&peer->wake_arrived_at_least));
    *consumed_at_least = rsi_load_relaxed(rsi_atomic_u64_at(&peer->wake_consumed_at_least));
}

static inline void rsi_shm_words_request(struct rsi_words *own, uint64_t arrived_at_least,
                                         uint64_t consumed_at_least, uint64_t generation)
{
    rsi_store_relaxed(rsi_atomic_u64_at(&own->wake_arrived_at_least), arrived_at_least);
    rsi_store_relaxed(rsi_atomic_u64_at(&own->wake_consumed_at_least), consumed_at_least);
    rsi_store_release(rsi_atomic_u64_at(&own->wake_generation), generation);
}

#endif
