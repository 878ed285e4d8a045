/*
 * What the data plane computes before it posts: work requests of a batch, identifiers of work
 * requests, credit of the control lane. Pure functions over plain structs, so that every edge is
 * tested without a device.
 */
#ifndef RSI_RDMA_BATCH_H
#define RSI_RDMA_BATCH_H

#include "proto/layout.h"

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- identifiers of work requests ----------------------------------------------------------- */

/* Kept in wr_id, because a completion with an error tells nothing else of its request. */
enum rsi_rdma_work {
    RSI_RDMA_WORK_RECEIVE = 1, /* count: index of the receive buffer */
    RSI_RDMA_WORK_BATCH,       /* the last WRITE of a batch, or one before it */
    RSI_RDMA_WORK_WORDS,       /* consumed position and batch credit into the peer's words page */
    RSI_RDMA_WORK_RECORD,      /* a SEND on the control lane */
    RSI_RDMA_WORK_BIND,        /* the window over our in ring */
    RSI_RDMA_WORK_PROBE,       /* a WRITE of no bytes: does the peer's device answer? */
    RSI_RDMA_WORK_MARKER,      /* on a queue pair in error: it is flushed after all the others */
};

#define RSI_RDMA_SLOT_COUNT_MAX (1u << 24)

/* kind, slot of the link in its poller, low 32 bits of the running count of requests (or an
 * index) */
static inline uint64_t rsi_rdma_work_id(enum rsi_rdma_work kind, uint32_t slot, uint32_t count)
{
    return (uint64_t)kind << 56 | (uint64_t)slot << 32 | count;
}

static inline enum rsi_rdma_work rsi_rdma_work_kind(uint64_t id)
{
    return (enum rsi_rdma_work)(id >> 56);
}

static inline uint32_t rsi_rdma_work_slot(uint64_t id)
{
    return (uint32_t)(id >> 32) & (RSI_RDMA_SLOT_COUNT_MAX - 1);
}

static inline uint32_t rsi_rdma_work_count(uint64_t id)
{
    return (uint32_t)id;
}

/* The running count whose low 32 bits are `low`, at or after `from`. */
static inline uint64_t rsi_rdma_count_extend(uint64_t from, uint32_t low)
{
    return from + (uint32_t)(low - (uint32_t)from);
}

/* ---- a batch -------------------------------------------------------------------------------- */

/* Where one direction's bytes come from and go to. Constant while the link is attached. */
struct rsi_rdma_way {
    uint64_t local_address;   /* of the out ring */
    uint64_t remote_address;  /* of the peer's in ring */
    uint64_t capacity_bytes;  /* of both */
    uint64_t write_bytes_max; /* largest message of the device, a multiple of 8 */
    uint32_t local_key;
    uint32_t remote_key;
    uint32_t inline_bytes_max; /* 0: the device takes nothing inline */
};

/* A ring in this many largest messages of the device at most, and one more cut at the ring's
 * end. */
#define RSI_RDMA_WRITES_PER_RING_MAX 16u
#define RSI_RDMA_BATCH_WRITES_MAX    (RSI_RDMA_WRITES_PER_RING_MAX + 2)

/*
 * Fills `requests` and `spans` (RSI_RDMA_BATCH_WRITES_MAX each) with the WRITEs of the batch
 * [from_pos, to_pos), chained, the last one WITH_IMM and signalled, and returns how many they are.
 * A batch that crosses the ring's end is cut there: the remote ring is registered once. wr_id is
 * left to the caller. 0 < to_pos - from_pos <= capacity_bytes; both multiples of 8.
 */
uint32_t rsi_rdma_batch_build(const struct rsi_rdma_way *way, uint64_t from_pos, uint64_t to_pos,
                              struct ibv_send_wr *requests, struct ibv_sge *spans);

/* ---- credit of the control lane ------------------------------------------------------------- */

/*
 * Each side may have as many records on their way as the other has receives for them. Every record
 * carries how many records its sender has taken so far, so that credit mostly returns for free. A
 * record that carries nothing else is sent when half of the credit is owed; one credit is reserved
 * for it, so that two sides that fill each other's lane still exchange credit, and as one such
 * record returns half a credit, they do not answer each other for ever.
 */
struct rsi_rdma_credit {
    uint32_t peer_limit;       /* receives that the peer has for records */
    uint32_t own_limit;        /* receives that this side has for records */
    uint64_t sent_count;       /* records sent */
    uint64_t peer_taken_count; /* of these, those whose receive the peer posted anew */
    uint64_t taken_count;      /* records received whose receive was posted anew */
    uint64_t told_count;       /* taken_count, as the peer last heard it */
};

static inline bool rsi_rdma_credit_allows(const struct rsi_rdma_credit *credit, bool is_credit_only)
{
    uint64_t reserved = is_credit_only ? 0 : 1;
    return credit->sent_count - credit->peer_taken_count + reserved < credit->peer_limit;
}

static inline bool rsi_rdma_credit_is_owed(const struct rsi_rdma_credit *credit)
{
    return credit->taken_count - credit->told_count >= credit->own_limit / 2;
}

/* The peer says that it has taken `peer_taken_count`. False: it lies; nothing was changed. */
static inline bool rsi_rdma_credit_return(struct rsi_rdma_credit *credit, uint64_t peer_taken_count)
{
    if (peer_taken_count < credit->peer_taken_count || peer_taken_count > credit->sent_count) {
        return false;
    }
    credit->peer_taken_count = peer_taken_count;
    return true;
}

/* A record goes out: what it carries in its header's position. */
static inline uint64_t rsi_rdma_credit_spend(struct rsi_rdma_credit *credit)
{
    credit->sent_count++;
    credit->told_count = credit->taken_count;
    return credit->taken_count;
}

#endif
