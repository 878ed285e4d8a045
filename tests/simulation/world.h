/*
 * A world in one thread: processes made of fibers, a clock that a scheduler moves, and a kernel
 * with nothing but event descriptors.
 *
 * Design notes
 * - The real broker and the real client run here unmodified. Their threads become fibers, and what
 *   they ask of the system (threads, waiting, time, mutexes, random bytes) is turned into calls of
 *   this file by the linker (--wrap, kernel.c). So every interleaving of their steps, every length
 *   of a wait and every random number comes from one seed, and the seed repeats them.
 * - A fiber runs until a point where another thread could run in between: before a mutex is taken,
 *   at a wake-up, at a look at the clock, between the stages of a pass. At each the seed decides
 *   whether somebody else goes on. No point lies inside a mutex, so mutexes never wait.
 * - Time moves a little with each look at the clock. When nobody can run it jumps to the next
 *   time-out. When there is none, or when the world does not end, that is a violation.
 * - A process that is killed just never runs again: nothing of it is cleaned up, as nothing of it
 *   would be. Its memory stays; each seed runs in a process of its own (simulation_test.c).
 */
#ifndef RSI_SIMULATION_WORLD_H
#define RSI_SIMULATION_WORLD_H

#include "core/compiler.h"

#include <stdbool.h>
#include <stdint.h>

#define WORLD_FIBER_COUNT_MAX   64u
#define WORLD_PROCESS_COUNT_MAX 1024u
#define WORLD_FOR_EVER          UINT64_MAX

struct world_options {
    uint64_t seed;
    uint64_t switch_one_in; /* of the points, on the average */
    uint64_t point_count_max;
    bool is_verbose;
    /* Nobody can run and nobody is stopped: time is about to jump. */
    void (*on_quiet)(uint64_t jump_ns);
    /* A process was killed; nothing of it runs any more. */
    void (*on_killed)(uint32_t process);
    /* Another process runs from here on. */
    void (*on_switched)(uint32_t process);
};

/* What a run tells the process that started it; lies in memory that both share. */
struct world_report {
    bool has_ended;
    uint64_t hash; /* of the whole trace */
    uint64_t point_count;
    uint64_t switch_count;
    uint64_t virtual_ns;
    char violation[1024]; /* "": none */
};

/* Runs `main` as process 0 until it returns. */
void world_run(const struct world_options *options, void (*main)(void *arg), void *arg,
               struct world_report *report);

/* ---- from inside ------------------------------------------------------------------------------
 */

/* A new process with one fiber. */
uint32_t world_start_process(const char *name, void (*main)(void *arg), void *arg);
/* Another fiber of the running process; its number is never used again. */
uint64_t world_start_fiber(const char *name, void (*main)(void *arg), void *arg);
void world_name_fiber(const char *name);

uint32_t world_process(void); /* that runs */
const char *world_process_name(uint32_t process);
bool world_process_has_ended(uint32_t process); /* all its fibers returned, or it was killed */
bool world_process_was_killed(uint32_t process);
/* Nothing of it runs for so long. */
void world_stop_process(uint32_t process, uint64_t for_ns);
/* Virtual time until which it is stopped; 0: it never was. */
uint64_t world_process_stopped_until_ns(uint32_t process);
/* Killed when it has passed so many points more; 0: now. Itself: does not return then. */
void world_kill_process(uint32_t process, uint64_t after_points);
/* How often it is chosen to run compared to others: 1 to 16. */
void world_set_speed(uint32_t process, uint32_t speed);

/* A point: others may run here. */
void world_point(void);
/* Others do run here, if they can. */
void world_yield(void);
void world_sleep_ns(uint64_t ns);
/* Until the descriptor is readable; false: the time came first. */
bool world_wait_readable(int fd, uint64_t deadline_ns);
void world_wait_fiber(uint64_t number);
bool world_process_is_waiting(uint32_t process); /* every fiber of it waits */

uint64_t world_now_ns(void);
/* A look at the clock: moves time a little. */
uint64_t world_look_at_clock_ns(void);
/* Something happened: time need not hurry to the next. */
void world_note_progress(void);
uint64_t world_random(uint64_t bound);
bool world_one_in(uint64_t count);

/* Points cannot be where the running fiber holds a lock. */
void world_lock_taken(void);
void world_lock_given(void);

/* Enters the trace and, with --verbose, standard error. */
void world_trace(const char *format, ...) RSI_PRINTF(1, 2);
/* The run has failed; does not return. */
_Noreturn void world_violation(const char *format, ...) RSI_PRINTF(1, 2);

#endif
