/*
 * Which bytes of the out ring the kernel still reads.
 *
 * A send with MSG_ZEROCOPY gets a number, counted from 0; the kernel tells on the error queue which
 * ranges of numbers it has done with, several at once and in any order. Until then the bytes must
 * not be written again. Owner thread, no system call here.
 */
#ifndef RSI_TRANSPORT_TCP_ZEROCOPY_H
#define RSI_TRANSPORT_TCP_ZEROCOPY_H

#include "proto/layout.h"

#include <stdbool.h>
#include <stdint.h>

/* Sends by reference under way at once; with more the next ones are copied. Power of two. */
#define RSI_TCP_ZEROCOPY_COUNT_MAX 64u

struct rsi_tcp_zerocopy {
    uint32_t first_id; /* the oldest that is not done */
    uint32_t next_id;  /* of the next send; the kernel counts the same way */
    bool is_useless;   /* the kernel copied all the same: stop asking */
    uint64_t start_pos[RSI_TCP_ZEROCOPY_COUNT_MAX];
    bool is_done[RSI_TCP_ZEROCOPY_COUNT_MAX];
    /* The batch's header goes by reference with its bytes, so it must not change either. */
    struct rsi_record_header headers[RSI_TCP_ZEROCOPY_COUNT_MAX];
};

/* NULL: no memory. Control thread. */
struct rsi_tcp_zerocopy *rsi_tcp_zerocopy_create(void);
void rsi_tcp_zerocopy_destroy(struct rsi_tcp_zerocopy *zerocopy);

static inline uint32_t rsi_tcp_zerocopy_count(const struct rsi_tcp_zerocopy *zerocopy)
{
    return zerocopy->next_id - zerocopy->first_id;
}

static inline bool rsi_tcp_zerocopy_has_room(const struct rsi_tcp_zerocopy *zerocopy)
{
    return rsi_tcp_zerocopy_count(zerocopy) < RSI_TCP_ZEROCOPY_COUNT_MAX;
}

/* Where the header of the next send may lie until that send is done. */
struct rsi_record_header *rsi_tcp_zerocopy_header(struct rsi_tcp_zerocopy *zerocopy);
/* A send took place, with bytes from start_pos on. There must be room. */
void rsi_tcp_zerocopy_add(struct rsi_tcp_zerocopy *zerocopy, uint64_t start_pos);
/* The kernel is done with the sends first_id to last_id, both included. False: it names a send that
 * is not under way, and nothing was changed. */
bool rsi_tcp_zerocopy_complete(struct rsi_tcp_zerocopy *zerocopy, uint32_t first_id,
                               uint32_t last_id);
/* The bytes below may be written again; UINT64_MAX: all. A multiple of 8. */
uint64_t rsi_tcp_zerocopy_free_pos(const struct rsi_tcp_zerocopy *zerocopy);

#endif
