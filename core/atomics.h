#ifndef RSI_CORE_ATOMICS_H
#define RSI_CORE_ATOMICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/assert.h"
#include "core/compiler.h"

/*
 * The only way to atomics in the project. Fields are `_Atomic`; the order is part of the name, and
 * every use says in a comment which other use it pairs with. The macros take a pointer to any
 * lock-free _Atomic integer or pointer.
 */

/* What one CPU owns at a time, and what two writers keep between them (CPUs fetch lines in pairs).
 */
#define RSI_CACHE_LINE_BYTES 64
#define RSI_SEPARATION_BYTES 128

/* For static objects and members of objects that are never on the ordinary heap. */
#define RSI_ALIGNED_LINE _Alignas(RSI_SEPARATION_BYTES)

/* Between two groups of fields with different writers. Asks no alignment of the whole struct. */
#define RSI_SEPARATOR(name) uint8_t name[RSI_SEPARATION_BYTES]

rsi_static_assert(ATOMIC_INT_LOCK_FREE == 2);
rsi_static_assert(ATOMIC_LLONG_LOCK_FREE == 2);
rsi_static_assert(ATOMIC_POINTER_LOCK_FREE == 2);
rsi_static_assert(sizeof(_Atomic uint64_t) == 8);
rsi_static_assert(sizeof(_Atomic uint32_t) == 4);

#define rsi_load_relaxed(pointer) atomic_load_explicit((pointer), memory_order_relaxed)
#define rsi_load_acquire(pointer) atomic_load_explicit((pointer), memory_order_acquire)
#define rsi_store_relaxed(pointer, value) \
    atomic_store_explicit((pointer), (value), memory_order_relaxed)
#define rsi_store_release(pointer, value) \
    atomic_store_explicit((pointer), (value), memory_order_release)

/* Read-modify-write, for words with several writers. The old value is the result. */
#define rsi_fetch_add_relaxed(pointer, value) \
    atomic_fetch_add_explicit((pointer), (value), memory_order_relaxed)
#define rsi_fetch_add_acq_rel(pointer, value) \
    atomic_fetch_add_explicit((pointer), (value), memory_order_acq_rel)
#define rsi_fetch_or_acq_rel(pointer, value) \
    atomic_fetch_or_explicit((pointer), (value), memory_order_acq_rel)
#define rsi_exchange_acq_rel(pointer, value) \
    atomic_exchange_explicit((pointer), (value), memory_order_acq_rel)

/* True when the word held *expected and now holds `desired`; else *expected is what it holds. */
#define rsi_compare_exchange(pointer, expected, desired)                      \
    atomic_compare_exchange_strong_explicit((pointer), (expected), (desired), \
                                            memory_order_acq_rel, memory_order_acquire)

/* Adds to a word that this thread alone writes: a load and a store, no locked instruction. */
#define rsi_bump_relaxed(pointer, value) \
    rsi_store_relaxed((pointer), rsi_load_relaxed(pointer) + (value))

/* The word that stands for the fence where the thread sanitizer watches (it knows no fences). */
extern _Atomic uint32_t rsi_fence_word;

/*
 * Orders every access before it against every access after it, also a store before a load: needed
 * between publishing a position and reading the sleeper's word, and in the sleeper the other way.
 */
static inline void rsi_fence_seq_cst(void)
{
#if RSI_THREAD_SANITIZER
    atomic_fetch_add_explicit(&rsi_fence_word, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Tells the CPU that this thread spins. */
static inline void rsi_cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

/* The atomic word at `address` in mapped memory; `address` is aligned to 8. */
static inline _Atomic uint64_t *rsi_atomic_u64_at(void *address)
{
    rsi_assert(((uintptr_t)address & 7) == 0);
    return (_Atomic uint64_t *)address;
}

#endif
