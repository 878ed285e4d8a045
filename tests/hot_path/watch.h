/*
 * Counts, per thread, what the hot path must not do: allocations, locks, system calls, and readings
 * of the clock. Nothing of the code under watch is changed for it, and nothing is sampled: each
 * one is caught.
 *
 *   allocations   malloc and its relatives are defined here and found before libc's
 *   locks         so are pthread's mutexes, conditions, spin locks and semaphores; a lock inside
 *                 libc shows as an allocation or, when it has to wait, as futex(2)
 *   system calls  a seccomp filter on all threads turns each into SIGSYS; the handler counts it and
 *                 makes it in the thread's name
 *   clock         PR_SET_TSC makes the counter's readings fault, also those inside the vDSO, so
 *                 clock_gettime is seen too; the handler reads the counter in their name
 */
#ifndef RSI_TESTS_HOT_PATH_WATCH_H
#define RSI_TESTS_HOT_PATH_WATCH_H

#include <stdbool.h>
#include <stdint.h>

enum {
    WATCH_THREAD_COUNT_MAX = 16,
    WATCH_CALL_COUNT = 512, /* system call numbers */
};

struct watch_counts {
    uint64_t allocations;
    uint64_t frees;
    uint64_t locks;
    uint64_t clock_readings;
    uint64_t passes; /* told by watch_note_pass */
    uint64_t calls;
    uint64_t call_counts[WATCH_CALL_COUNT];
    /* Where the first one came from; NULL: there was none. */
    const void *allocation_at;
    const void *lock_at;
    const void *call_at[WATCH_CALL_COUNT];
};

/* False: this machine lacks what is needed, and `why` says what. Before any other thread. */
bool watch_init(const char **why);
/* Whether readings of the clock are counted. Some hypervisors let the counter be read although the
 * kernel forbade it: then clock_readings stays 0. */
bool watch_counts_clock(void);

/* The calling thread is watched from here on, under this name (copied). */
void watch_join(const char *name);

/* From now on system calls are caught, in every thread there is. It cannot be undone. */
void watch_catch_calls(void);

/* Zeroes all counts and counts. */
void watch_begin(void);
void watch_end(void);

/* A watched thread's counts; while others count, only those of the calling thread stand still.
 * NULL: no thread has that name. */
const struct watch_counts *watch_counts_of(const char *name);

void watch_note_pass(void);

/* What the calling thread does between these is not counted; they nest. */
void watch_look_away(void);
void watch_look_again(void);

/* For the test itself, not counted: lets other threads run; monotonic time. */
void watch_yield(void);
uint64_t watch_now_ns(void);

/* Leaves the process, from wherever it is. */
_Noreturn void watch_exit(int code);

#endif
