/*
 * A waker: wakes one thread that waits in epoll or poll, and costs nothing while it does not.
 *
 * Design notes
 * - The sleeper says that it will sleep, then looks once more for work, then waits. The waking side
 *   publishes its work, then looks whether somebody sleeps. Both have a seq_cst fence between their
 *   store and their load (Dekker), so one of the two always sees the other: no wake-up is lost.
 *   Release and acquire alone do not give that.
 * - The eventfd belongs to this process; peers never get it (a peer that fills a shared eventfd
 *   would make the write block).
 */
#ifndef RSI_CORE_WAKER_H
#define RSI_CORE_WAKER_H

#include "core/atomics.h"
#include "core/error.h"

#include <stdint.h>

struct rsi_waker {
    int fd;                    /* eventfd, for the sleeper's epoll set */
    _Atomic uint32_t sleeping; /* 1: the sleeper is about to wait or waits */
    _Atomic uint64_t wakes;    /* eventfd writes, for counters */
};

/* Control plane. RSI_E_NO_DESCRIPTORS when the process has no descriptor left. */
RSI_MUST_CHECK rsi_status_t rsi_waker_init(struct rsi_waker *waker, struct rsi_error *error);
void rsi_waker_fini(struct rsi_waker *waker);

/* Sleeper: call before the last look for work. */
void rsi_waker_prepare(struct rsi_waker *waker);
/* Sleeper: after the wait, or when the last look found work. Drains the descriptor. */
void rsi_waker_finish(struct rsi_waker *waker);
/* Any thread, after publishing its work: one system call if the sleeper sleeps, else none. NULL:
 * there is nobody to wake. */
void rsi_waker_wake(struct rsi_waker *waker);

#endif
