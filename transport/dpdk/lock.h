/*
 * A lock for a few hundred nanoseconds: who receives from the port now, who transmits on a queue.
 *
 * Design notes
 * - Whoever polls only tries; only the control plane, and a transmit between two threads, spin. A
 *   mutex would put a poller to sleep for something that is over before it slept.
 */
#ifndef RSI_TRANSPORT_DPDK_LOCK_H
#define RSI_TRANSPORT_DPDK_LOCK_H

#include "core/atomics.h"

#include <sched.h>

struct rsi_dpdk_lock {
    _Atomic uint32_t is_held;
};

/* True: it is the caller's now. */
static inline bool rsi_dpdk_lock_try(struct rsi_dpdk_lock *lock)
{
    return rsi_load_relaxed(&lock->is_held) == 0 && rsi_exchange_acq_rel(&lock->is_held, 1) == 0;
}

/* Spins; gives its turn away when the holder seems to have lost the CPU. */
static inline void rsi_dpdk_lock_take(struct rsi_dpdk_lock *lock)
{
    for (uint32_t tries = 1; !rsi_dpdk_lock_try(lock); tries++) {
        if (tries % 1024 == 0) {
            sched_yield();
        } else {
            rsi_cpu_pause();
        }
    }
}

static inline void rsi_dpdk_lock_give(struct rsi_dpdk_lock *lock)
{
    rsi_store_release(&lock->is_held, 0); /* pairs with the exchange in rsi_dpdk_lock_try() */
}

#endif
