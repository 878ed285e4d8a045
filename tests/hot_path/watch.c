/*
 * Design notes
 * - A thread's counts are written by that thread and its signal handlers alone. The readers look
 *   after watch_end, or at their own.
 * - The handlers make system calls through one instruction of ours, watch_system_call, from which
 *   the filter lets all of them pass. So the handler may not use libc, and does not.
 * - The filter lets pass what a thread does while it cannot take signals: returning from a handler,
 *   and what ends a thread or the process. The hot path does none of these.
 * - Signal handlers and interposed functions find the thread by a thread-local pointer. It is of
 *   the program itself, so reading it needs no call.
 */
#include "tests/hot_path/watch.h"

#include "core/atomics.h"
#include "core/compiler.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

struct watched_thread {
    char name[32];
    struct watch_counts counts;
    RSI_SEPARATOR(after);
};

static struct watched_thread threads[WATCH_THREAD_COUNT_MAX];
static _Atomic uint32_t thread_count;
static _Atomic uint32_t is_counting;
static _Thread_local struct watched_thread *self __attribute__((tls_model("initial-exec")));
static _Thread_local uint32_t looks_away __attribute__((tls_model("initial-exec")));

/* NULL: the calling thread is not watched, or nothing is counted now. */
static inline struct watch_counts *counts_now(void)
{
    return self != NULL && looks_away == 0 && rsi_load_relaxed(&is_counting) != 0 ? &self->counts
                                                                                  : NULL;
}

/* ---- system calls ------------------------------------------------------------------------------
 */

long watch_system_call(long number, long a, long b, long c, long d, long e, long f);
extern const char watch_system_call_end[];

__asm__(".text\n"
        ".globl watch_system_call\n"
        ".type watch_system_call, @function\n"
        "watch_system_call:\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %rdi\n"
        "    mov %rdx, %rsi\n"
        "    mov %rcx, %rdx\n"
        "    mov %r8, %r10\n"
        "    mov %r9, %r8\n"
        "    mov 8(%rsp), %r9\n"
        "    syscall\n"
        ".globl watch_system_call_end\n"
        "watch_system_call_end:\n"
        "    ret\n"
        ".size watch_system_call, . - watch_system_call\n");

static void on_caught_call(int signal_number, siginfo_t *info, void *context)
{
    (void)signal_number;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    long number = info->si_syscall;
    struct watch_counts *counts = counts_now();
    if (counts != NULL) {
        uint32_t index = (uint32_t)number < WATCH_CALL_COUNT ? (uint32_t)number : 0;
        counts->calls++;
        if (counts->call_counts[index]++ == 0) {
            counts->call_at[index] = info->si_call_addr;
        }
    }
    registers[REG_RAX] =
        watch_system_call(number, registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                          registers[REG_R10], registers[REG_R8], registers[REG_R9]);
}

#define FIELD(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name))
#define FIELD_HIGH(name) \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name) + sizeof(uint32_t))
#define ALLOW()                   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define ALLOW_IF(value)           BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, 1), ALLOW()
#define SKIP_UNLESS(value, count) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (count))

void watch_catch_calls(void)
{
    uint64_t gate = (uint64_t)(uintptr_t)watch_system_call_end;
    struct sock_filter steps[] = {
        FIELD(nr),
        ALLOW_IF(SYS_rt_sigreturn),
        ALLOW_IF(SYS_rt_sigprocmask),
        ALLOW_IF(SYS_exit),
        ALLOW_IF(SYS_exit_group),
        FIELD(instruction_pointer),
        SKIP_UNLESS((uint32_t)gate, 3),
        FIELD_HIGH(instruction_pointer),
        ALLOW_IF((uint32_t)(gate >> 32)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = {.len = rsi_array_count(steps), .filter = steps};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) {
        printf("        seccomp: %s\n", strerror(errno));
        watch_exit(1);
    }
}

void watch_yield(void)
{
    (void)watch_system_call(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

uint64_t watch_now_ns(void)
{
    struct timespec now;
    (void)watch_system_call(SYS_clock_gettime, CLOCK_MONOTONIC, (long)(uintptr_t)&now, 0, 0, 0, 0);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void watch_exit(int code)
{
    fflush(stdout);
    _exit(code);
}

/* ---- the clock ---------------------------------------------------------------------------------
 */

static uint64_t read_counter(void)
{
    (void)watch_system_call(SYS_prctl, PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0, 0);
    uint64_t ticks = __builtin_ia32_rdtsc();
    (void)watch_system_call(SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0, 0);
    return ticks;
}

/* Length of an instruction that reads the counter, RDTSC or RDTSCP; 0: it is another. */
static unsigned counter_instruction_bytes(const uint8_t *at)
{
    if (at[0] == 0x0f && at[1] == 0x31) {
        return 2;
    }
    return at[0] == 0x0f && at[1] == 0x01 && at[2] == 0xf9 ? 3 : 0;
}

static _Atomic bool has_faulted;

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned bytes = info->si_code == SI_KERNEL
                         ? counter_instruction_bytes((const uint8_t *)registers[REG_RIP])
                         : 0;
    if (bytes == 0) {
        signal(signal_number, SIG_DFL); /* a real one: once more, and die of it */
        return;
    }
    struct watch_counts *counts = counts_now();
    rsi_store_relaxed(&has_faulted, true);
    if (counts != NULL) {
        counts->clock_readings++;
    }
    uint64_t ticks = read_counter();
    registers[REG_RAX] = (greg_t)(uint32_t)ticks;
    registers[REG_RDX] = (greg_t)(ticks >> 32);
    if (bytes == 3) {
        registers[REG_RCX] = 0; /* the CPU's number, which nobody here looks at */
    }
    registers[REG_RIP] += bytes;
}

/* ---- allocations -------------------------------------------------------------------------------
 */

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);
extern void __libc_free(void *memory);

static inline void note_allocation(const void *at)
{
    struct watch_counts *counts = counts_now();
    if (counts != NULL && counts->allocations++ == 0) {
        counts->allocation_at = at;
    }
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t bytes)
{
    note_allocation(CALLER);
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    note_allocation(CALLER);
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    note_allocation(CALLER);
    return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    note_allocation(CALLER);
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    note_allocation(CALLER);
    *memory = __libc_memalign(alignment, bytes);
    return *memory != NULL ? 0 : ENOMEM;
}

void free(void *memory)
{
    struct watch_counts *counts = counts_now();
    if (counts != NULL && memory != NULL) {
        counts->frees++;
    }
    __libc_free(memory);
}

/* ---- locks -------------------------------------------------------------------------------------
 */

static void note_lock(const void *at)
{
    struct watch_counts *counts = counts_now();
    if (counts != NULL && counts->locks++ == 0) {
        counts->lock_at = at;
    }
}

/* Counts, then does what libc's function of that name does. */
static int lock_really(_Atomic(void *) *real, const char *name, void *lock, const void *at)
{
    void *found = rsi_load_relaxed(real);
    if (found == NULL) {
        found = dlsym(RTLD_NEXT, name);
        rsi_store_relaxed(real, found);
    }
    note_lock(at);
    return ((int (*)(void *))(uintptr_t)found)(lock);
}

int pthread_mutex_lock(pthread_mutex_t *lock)
{
    static _Atomic(void *) real;
    return lock_really(&real, "pthread_mutex_lock", (void *)(uintptr_t)lock, CALLER);
}

int pthread_mutex_trylock(pthread_mutex_t *lock)
{
    static _Atomic(void *) real;
    return lock_really(&real, "pthread_mutex_trylock", (void *)(uintptr_t)lock, CALLER);
}

int pthread_spin_lock(pthread_spinlock_t *lock)
{
    static _Atomic(void *) real;
    return lock_really(&real, "pthread_spin_lock", (void *)(uintptr_t)lock, CALLER);
}

int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    static _Atomic(void *) real;
    return lock_really(&real, "pthread_rwlock_rdlock", (void *)(uintptr_t)lock, CALLER);
}

int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
    static _Atomic(void *) real;
    return lock_really(&real, "pthread_rwlock_wrlock", (void *)(uintptr_t)lock, CALLER);
}

int pthread_cond_signal(pthread_cond_t *lock)
{
    static _Atomic(void *) real;
    return lock_really(&real, "pthread_cond_signal", (void *)(uintptr_t)lock, CALLER);
}

int pthread_cond_broadcast(pthread_cond_t *lock)
{
    static _Atomic(void *) real;
    return lock_really(&real, "pthread_cond_broadcast", (void *)(uintptr_t)lock, CALLER);
}

int sem_wait(sem_t *lock)
{
    static _Atomic(void *) real;
    return lock_really(&real, "sem_wait", (void *)(uintptr_t)lock, CALLER);
}

int sem_post(sem_t *lock)
{
    static _Atomic(void *) real;
    return lock_really(&real, "sem_post", (void *)(uintptr_t)lock, CALLER);
}

/* ---- watching ----------------------------------------------------------------------------------
 */

bool watch_counts_clock(void)
{
    rsi_store_relaxed(&has_faulted, false);
    (void)prctl(PR_SET_TSC, PR_TSC_SIGSEGV);
    (void)__builtin_ia32_rdtsc();
    (void)prctl(PR_SET_TSC, PR_TSC_ENABLE);
    return rsi_load_relaxed(&has_faulted);
}

bool watch_init(const char **why)
{
    struct sigaction caught = {.sa_sigaction = on_caught_call, .sa_flags = SA_SIGINFO};
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    uint32_t trap = SECCOMP_RET_TRAP;
    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &trap) != 0) {
        *why = "this kernel has no seccomp filters";
        return false;
    }
    if (prctl(PR_SET_TSC, PR_TSC_ENABLE) != 0) {
        *why = "this kernel cannot make readings of the time-stamp counter fault";
        return false;
    }
    if (sigaction(SIGSYS, &caught, NULL) != 0 || sigaction(SIGSEGV, &fault, NULL) != 0) {
        *why = "no signal handlers";
        return false;
    }
    return true;
}

void watch_join(const char *name)
{
    uint32_t index = rsi_fetch_add_relaxed(&thread_count, 1);
    if (index >= WATCH_THREAD_COUNT_MAX || prctl(PR_SET_TSC, PR_TSC_SIGSEGV) != 0) {
        printf("        cannot watch %s: %s\n", name, strerror(errno));
        watch_exit(1);
    }
    snprintf(threads[index].name, sizeof(threads[index].name), "%s", name);
    self = &threads[index];
}

void watch_begin(void)
{
    for (uint32_t i = 0; i < rsi_load_relaxed(&thread_count); i++) {
        memset(&threads[i].counts, 0, sizeof(threads[i].counts));
    }
    rsi_store_release(&is_counting, 1u);
}

void watch_end(void)
{
    rsi_store_release(&is_counting, 0u);
}

const struct watch_counts *watch_counts_of(const char *name)
{
    for (uint32_t i = 0; i < rsi_load_relaxed(&thread_count); i++) {
        if (strcmp(threads[i].name, name) == 0) {
            return &threads[i].counts;
        }
    }
    return NULL;
}

void watch_look_away(void)
{
    looks_away++;
}

void watch_look_again(void)
{
    looks_away--;
}

void watch_note_pass(void)
{
    struct watch_counts *counts = counts_now();
    if (counts != NULL) {
        counts->passes++;
    }
}
