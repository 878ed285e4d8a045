/*
 * Design notes: see world.h.
 *
 * - The scheduler runs on the stack that called world_run; every fiber switches to it and it to the
 *   next fiber. So a fiber that is done, or whose process was killed, is put away by somebody who
 *   does not stand on its stack.
 * - Where only fibers run that look at the clock again and again (a busy agent, a spin), time moves
 *   faster and faster until something happens: else a spin of a second would cost seconds.
 */
#include "tests/simulation/world.h"

#include "core/assert.h"
#include "tests/simulation/kernel.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#define HAS_ASAN 1
#else
#define HAS_ASAN 0
#endif

#define STACK_BYTES (512u << 10)
#define GUARD_BYTES 4096u

/* Looks at the clock without anything happening, after which a look moves time ten times further.
 */
#define LOOKS_BEFORE_HURRY 2000u
#define LOOK_NS_MAX        UINT64_C(10000000)

/* So many waits that end at once, within that time, are a spin. */
#define SPIN_COUNT_MAX 10000u
#define SPIN_NS        UINT64_C(100000000)

enum fiber_state { FIBER_FREE, FIBER_READY, FIBER_WAITING, FIBER_ENDED };

struct world_fiber {
    enum fiber_state state;
    uint64_t number;
    uint32_t process;
    char name[24];
    void (*main)(void *arg);
    void *arg;
    void *stack;
    ucontext_t context;
    void *fake_stack; /* address sanitizer's */

    /* What a waiting one waits for. */
    int fd;         /* -1: none */
    uint64_t other; /* fiber; 0: none */
    uint64_t until_ns;

    /* Waits that ended at once, since when. */
    uint32_t vain_count;
    uint64_t vain_since_ns;
};

struct process {
    char name[24];
    bool was_killed;
    uint32_t speed;
    uint32_t fiber_count; /* not ended */
    uint64_t stopped_until_ns;
    uint64_t points_to_live; /* UINT64_MAX: not to be killed */
};

static struct {
    const struct world_options *options;
    struct world_report *report;
    struct world_fiber fibers[WORLD_FIBER_COUNT_MAX];
    uint32_t fiber_count;
    uint64_t last_fiber;
    struct process processes[WORLD_PROCESS_COUNT_MAX];
    uint32_t process_count;
    struct world_fiber *current; /* NULL: the scheduler */
    ucontext_t scheduler;
    const void *scheduler_stack;
    size_t scheduler_stack_bytes;
    void *scheduler_fake_stack;
    uint64_t random;
    uint64_t now_ns;
    uint64_t looks; /* at the clock, since something happened */
    uint32_t lock_count;
} world;

/* ---- chance, trace, failure -------------------------------------------------------------------
 */

uint64_t world_random(uint64_t bound)
{
    rsi_assert(bound > 0);
    world.random += 0x9e3779b97f4a7c15ull;
    uint64_t mixed = world.random;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9ull;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebull;
    return (mixed ^ mixed >> 31) % bound;
}

bool world_one_in(uint64_t count)
{
    return world_random(count) == 0;
}

static void mix_into_hash(uint64_t value)
{
    uint64_t hash = world.report->hash;
    hash = (hash ^ value) * UINT64_C(0x100000001b3);
    world.report->hash = hash ^ hash >> 29;
}

static void mix_text_into_hash(const char *text)
{
    for (; *text != '\0'; text++) {
        mix_into_hash((uint8_t)*text);
    }
}

static const char *current_name(void)
{
    return world.current == NULL ? "scheduler" : world.current->name;
}

static const char *current_process_name(void)
{
    return world.current == NULL ? "-" : world.processes[world.current->process].name;
}

void world_trace(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    mix_text_into_hash(text);
    if (world.options->is_verbose) {
        fprintf(stderr, "%14.6f ms  %-10s %-12s %s\n", (double)world.now_ns / 1e6,
                current_process_name(), current_name(), text);
    }
}

static const char *describe_fiber(const struct world_fiber *fiber, char *text, size_t bytes)
{
    const struct process *process = &world.processes[fiber->process];
    if (fiber->state == FIBER_READY) {
        snprintf(text, bytes, "%s/%s can run%s", process->name, fiber->name,
                 process->stopped_until_ns > world.now_ns ? " but is stopped" : "");
    } else if (fiber->until_ns == WORLD_FOR_EVER) {
        snprintf(text, bytes, "%s/%s waits for ever", process->name, fiber->name);
    } else {
        snprintf(text, bytes, "%s/%s waits %.3f ms more", process->name, fiber->name,
                 ((double)fiber->until_ns - (double)world.now_ns) / 1e6);
    }
    return text;
}

static void print_fibers(void)
{
    char text[128];
    for (uint32_t i = 0; i < world.fiber_count; i++) {
        const struct world_fiber *fiber = &world.fibers[i];
        if (fiber->state == FIBER_READY || fiber->state == FIBER_WAITING) {
            fprintf(stderr, "  %s\n", describe_fiber(fiber, text, sizeof(text)));
        }
    }
}

void world_violation(const char *format, ...)
{
    struct world_report *report = world.report;
    int bytes = snprintf(report->violation, sizeof(report->violation),
                         "at %.6f ms, %s/%s: ", (double)world.now_ns / 1e6, current_process_name(),
                         current_name());
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->violation + bytes, sizeof(report->violation) - (size_t)bytes, format,
              arguments);
    va_end(arguments);
    if (world.options->is_verbose) {
        fprintf(stderr, "VIOLATION %s\n", report->violation);
        print_fibers();
    }
    _exit(3);
}

/* ---- switching --------------------------------------------------------------------------------
 */

#if HAS_ASAN
static void leave_for(void **fake_stack, const void *stack, size_t bytes)
{
    __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
}
static void arrive(void *fake_stack, const void **from_stack, size_t *from_bytes)
{
    __sanitizer_finish_switch_fiber(fake_stack, from_stack, from_bytes);
}
#else
static void leave_for(void **fake_stack, const void *stack, size_t bytes)
{
    (void)fake_stack;
    (void)stack;
    (void)bytes;
}
static void arrive(void *fake_stack, const void **from_stack, size_t *from_bytes)
{
    (void)fake_stack;
    (void)from_stack;
    (void)from_bytes;
}
#endif

static void switch_to_scheduler(struct world_fiber *fiber)
{
    rsi_assert(world.lock_count == 0);
    leave_for(fiber->state == FIBER_ENDED ? NULL : &fiber->fake_stack, world.scheduler_stack,
              world.scheduler_stack_bytes);
    swapcontext(&fiber->context, &world.scheduler);
    arrive(fiber->fake_stack, NULL, NULL);
}

static void fiber_entry(void)
{
    struct world_fiber *fiber = world.current;
    arrive(NULL, &world.scheduler_stack, &world.scheduler_stack_bytes);
    fiber->main(fiber->arg);
    fiber->state = FIBER_ENDED;
    world.processes[fiber->process].fiber_count--;
    world_note_progress();
    switch_to_scheduler(fiber);
}

static void run_fiber(struct world_fiber *fiber)
{
    if (world.options->on_switched != NULL) {
        world.options->on_switched(fiber->process);
    }
    world.current = fiber;
    world.report->switch_count++;
    mix_into_hash((uint64_t)(fiber - world.fibers) ^ world.now_ns << 8);
    leave_for(&world.scheduler_fake_stack, fiber->stack, STACK_BYTES);
    swapcontext(&world.scheduler, &fiber->context);
    arrive(world.scheduler_fake_stack, NULL, NULL);
    world.current = NULL;
    if (fiber->state == FIBER_ENDED) {
        munmap(fiber->stack, STACK_BYTES);
        fiber->state = FIBER_FREE;
    }
}

/* ---- fibers and processes ---------------------------------------------------------------------
 */

static struct world_fiber *start_fiber(uint32_t process, const char *name, void (*main)(void *arg),
                                       void *arg)
{
    uint32_t slot = 0;
    while (slot < world.fiber_count && world.fibers[slot].state != FIBER_FREE) {
        slot++;
    }
    rsi_assert(slot < WORLD_FIBER_COUNT_MAX);
    if (slot == world.fiber_count) {
        world.fiber_count++;
    }
    struct world_fiber *fiber = &world.fibers[slot];
    *fiber = (struct world_fiber){
        .state = FIBER_READY,
        .number = ++world.last_fiber,
        .process = process,
        .main = main,
        .arg = arg,
        .fd = -1,
    };
    snprintf(fiber->name, sizeof(fiber->name), "%s", name);
    fiber->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    rsi_assert(fiber->stack != MAP_FAILED);
    mprotect(fiber->stack, GUARD_BYTES, PROT_NONE); /* what runs over the end is noticed */
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = STACK_BYTES;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, fiber_entry, 0);
    world.processes[process].fiber_count++;
    return fiber;
}

uint32_t world_start_process(const char *name, void (*main)(void *arg), void *arg)
{
    rsi_assert(world.process_count < WORLD_PROCESS_COUNT_MAX);
    uint32_t number = world.process_count++;
    struct process *process = &world.processes[number];
    *process = (struct process){.speed = 4, .points_to_live = UINT64_MAX};
    snprintf(process->name, sizeof(process->name), "%s", name);
    (void)start_fiber(number, "main", main, arg);
    return number;
}

uint64_t world_start_fiber(const char *name, void (*main)(void *arg), void *arg)
{
    return start_fiber(world.current->process, name, main, arg)->number;
}

void world_name_fiber(const char *name)
{
    snprintf(world.current->name, sizeof(world.current->name), "%s", name);
}

static bool has_ended(uint64_t number)
{
    for (uint32_t i = 0; i < world.fiber_count; i++) {
        const struct world_fiber *fiber = &world.fibers[i];
        if (fiber->number == number) {
            return fiber->state == FIBER_FREE || fiber->state == FIBER_ENDED;
        }
    }
    return true;
}

uint32_t world_process(void)
{
    return world.current == NULL ? 0 : world.current->process;
}

const char *world_process_name(uint32_t process)
{
    return world.processes[process].name;
}

bool world_process_has_ended(uint32_t process)
{
    return world.processes[process].fiber_count == 0;
}

bool world_process_was_killed(uint32_t process)
{
    return world.processes[process].was_killed;
}

bool world_process_is_waiting(uint32_t process)
{
    for (uint32_t i = 0; i < world.fiber_count; i++) {
        if (world.fibers[i].process == process && world.fibers[i].state == FIBER_READY) {
            return false;
        }
    }
    return world.processes[process].fiber_count > 0;
}

void world_stop_process(uint32_t process, uint64_t for_ns)
{
    uint64_t until_ns = world.now_ns + for_ns;
    if (until_ns > world.processes[process].stopped_until_ns) {
        world.processes[process].stopped_until_ns = until_ns;
    }
    if (world.current != NULL && world.current->process == process) {
        world_yield();
    }
}

uint64_t world_process_stopped_until_ns(uint32_t process)
{
    return world.processes[process].stopped_until_ns;
}

void world_set_speed(uint32_t process, uint32_t speed)
{
    rsi_assert(speed >= 1 && speed <= 16);
    world.processes[process].speed = speed;
}

/* What a dead process had allocated is not a leak: its stack and registers still point to it. */
static void keep_what_it_had(struct world_fiber *fiber)
{
#if HAS_ASAN
    memcpy((uint8_t *)fiber->stack + GUARD_BYTES, &fiber->context, sizeof(fiber->context));
    __lsan_register_root_region((uint8_t *)fiber->stack + GUARD_BYTES, STACK_BYTES - GUARD_BYTES);
#endif
    fiber->state = FIBER_FREE;
}

static void bury(uint32_t number)
{
    struct process *process = &world.processes[number];
    process->was_killed = true;
    process->fiber_count = 0;
    process->points_to_live = UINT64_MAX;
    for (uint32_t i = 0; i < world.fiber_count; i++) {
        if (world.fibers[i].process == number && world.fibers[i].state != FIBER_FREE) {
            keep_what_it_had(&world.fibers[i]);
        }
    }
    kernel_forget_process(number);
    if (world.options->on_killed != NULL) {
        world.options->on_killed(number);
    }
    world_note_progress();
}

void world_kill_process(uint32_t number, uint64_t after_points)
{
    if (world_process_has_ended(number)) {
        return;
    }
    world.processes[number].points_to_live = after_points;
    if (after_points > 0) {
        return;
    }
    if (world.current != NULL && world.current->process == number) {
        world_yield(); /* the scheduler does it */
        return;
    }
    bury(number);
}

/* ---- points and waiting -----------------------------------------------------------------------
 */

void world_yield(void)
{
    struct world_fiber *fiber = world.current;
    if (fiber != NULL && world.lock_count == 0) {
        switch_to_scheduler(fiber);
    }
}

void world_point(void)
{
    struct world_fiber *fiber = world.current;
    if (fiber == NULL || world.lock_count > 0) {
        return;
    }
    if (++world.report->point_count > world.options->point_count_max) {
        world_violation("the run does not end");
    }
    struct process *process = &world.processes[fiber->process];
    if (process->points_to_live != UINT64_MAX && process->points_to_live > 0) {
        process->points_to_live--;
    }
    if (process->points_to_live == 0 || world_one_in(world.options->switch_one_in)) {
        switch_to_scheduler(fiber);
    }
}

static bool wait_is_over(const struct world_fiber *fiber)
{
    return world.now_ns >= fiber->until_ns || (fiber->fd >= 0 && kernel_is_readable(fiber->fd)) ||
           (fiber->other != 0 && has_ended(fiber->other));
}

/* Who is woken again and again before it sleeps burns a core and gets nowhere. */
static void note_vain_wait(struct world_fiber *fiber)
{
    if (world.now_ns - fiber->vain_since_ns > SPIN_NS) {
        fiber->vain_since_ns = world.now_ns;
        fiber->vain_count = 0;
    }
    if (++fiber->vain_count > SPIN_COUNT_MAX) {
        world_violation("%u waits within %.0f ms ended at once: it spins", fiber->vain_count,
                        (double)SPIN_NS / 1e6);
    }
}

static void wait_for(int fd, uint64_t other, uint64_t until_ns)
{
    struct world_fiber *fiber = world.current;
    fiber->fd = fd;
    fiber->other = other;
    fiber->until_ns = until_ns;
    if (wait_is_over(fiber)) {
        note_vain_wait(fiber);
    } else {
        fiber->state = FIBER_WAITING;
    }
    switch_to_scheduler(fiber);
}

bool world_wait_readable(int fd, uint64_t deadline_ns)
{
    wait_for(fd, 0, deadline_ns);
    return kernel_is_readable(fd);
}

void world_wait_fiber(uint64_t number)
{
    while (!has_ended(number)) {
        wait_for(-1, number, WORLD_FOR_EVER);
    }
}

void world_sleep_ns(uint64_t ns)
{
    wait_for(-1, 0, world.now_ns + ns);
}

uint64_t world_now_ns(void)
{
    return world.now_ns;
}

uint64_t world_look_at_clock_ns(void)
{
    uint64_t step_ns = 20 + world_random(200);
    for (uint64_t looks = world.looks++ / LOOKS_BEFORE_HURRY; looks > 0 && step_ns < LOOK_NS_MAX;
         looks--) {
        step_ns *= 2;
    }
    world.now_ns += step_ns;
    return world.now_ns;
}

void world_note_progress(void)
{
    world.looks = 0;
}

void world_lock_taken(void)
{
    world.lock_count++;
}

void world_lock_given(void)
{
    rsi_assert(world.lock_count > 0);
    world.lock_count--;
}

/* ---- scheduler --------------------------------------------------------------------------------
 */

static bool is_stopped(const struct world_fiber *fiber)
{
    return world.processes[fiber->process].stopped_until_ns > world.now_ns;
}

static void kill_due_processes(void)
{
    for (uint32_t i = 0; i < world.process_count; i++) {
        if (world.processes[i].points_to_live == 0) {
            bury(i);
        }
    }
}

/* The next to run, by chance and speed; NULL: nobody can. */
static struct world_fiber *choose_fiber(void)
{
    struct world_fiber *ready[WORLD_FIBER_COUNT_MAX];
    uint32_t ready_count = 0;
    uint64_t weight = 0;
    for (uint32_t i = 0; i < world.fiber_count; i++) {
        struct world_fiber *fiber = &world.fibers[i];
        if (fiber->state == FIBER_WAITING && wait_is_over(fiber)) {
            fiber->state = FIBER_READY;
            world_note_progress();
        }
        if (fiber->state == FIBER_READY && !is_stopped(fiber)) {
            ready[ready_count++] = fiber;
            weight += world.processes[fiber->process].speed;
        }
    }
    if (ready_count == 0) {
        return NULL;
    }
    uint64_t chosen = world_random(weight);
    for (uint32_t i = 0;; i++) {
        uint32_t speed = world.processes[ready[i]->process].speed;
        if (chosen < speed) {
            return ready[i];
        }
        chosen -= speed;
    }
}

/* Nobody can run: time jumps to where somebody can. */
static void jump(void)
{
    uint64_t next_ns = WORLD_FOR_EVER;
    bool is_anybody_stopped = false;
    for (uint32_t i = 0; i < world.fiber_count; i++) {
        const struct world_fiber *fiber = &world.fibers[i];
        if (fiber->state != FIBER_READY && fiber->state != FIBER_WAITING) {
            continue;
        }
        uint64_t at_ns = fiber->state == FIBER_WAITING ? fiber->until_ns : 0;
        if (is_stopped(fiber)) {
            is_anybody_stopped = true;
            uint64_t stopped_until_ns = world.processes[fiber->process].stopped_until_ns;
            at_ns = at_ns > stopped_until_ns ? at_ns : stopped_until_ns;
        }
        next_ns = at_ns < next_ns ? at_ns : next_ns;
    }
    if (next_ns == WORLD_FOR_EVER) {
        world_violation("everybody waits for ever");
    }
    if (!is_anybody_stopped && world.options->on_quiet != NULL) {
        world.options->on_quiet(next_ns - world.now_ns);
    }
    world.now_ns = next_ns;
    world_note_progress();
}

void world_run(const struct world_options *options, void (*main)(void *arg), void *arg,
               struct world_report *report)
{
    memset(report, 0, sizeof(*report));
    memset(&world, 0, sizeof(world));
    world.options = options;
    world.report = report;
    world.random = options->seed;
    world.now_ns = UINT64_C(1000000000);
    (void)world_start_process("director", main, arg);
    while (!world_process_has_ended(0)) {
        kill_due_processes();
        struct world_fiber *fiber = choose_fiber();
        if (fiber == NULL) {
            jump();
        } else {
            run_fiber(fiber);
        }
    }
    report->virtual_ns = world.now_ns;
    report->has_ended = true;
}
