/*
 * Design notes
 * - The wrapped functions call the real ones, always; with no mutant chosen that is all they do.
 * - The same mechanism tells the watch about passes and about threads that begin.
 */
#include "tests/hot_path/mutants.h"

#include "core/cpu.h"
#include "tests/hot_path/watch.h"
#include "transport/frame.h"
#include "transport/transport.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum mutant mutant;
enum mutant_place mutant_place;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void misbehave(void)
{
    static _Thread_local unsigned count;
    bool is_turn = ++count % 10 == 0;
    struct timespec now;
    struct epoll_event event;
    struct msghdr message = {0};
    switch (mutant) {
    case MUTANT_NONE:
        break;
    case MUTANT_MALLOC:
        if (is_turn) {
            void *kept = malloc(100);
            __asm__ volatile("" : "+r"(kept));
            free(kept);
        }
        break;
    case MUTANT_MUTEX:
        if (is_turn) {
            pthread_mutex_lock(&mutex);
            pthread_mutex_unlock(&mutex);
        }
        break;
    case MUTANT_GETPID:
        if (is_turn) {
            (void)getpid();
        }
        break;
    case MUTANT_FUTEX:
        if (is_turn) {
            (void)syscall(SYS_futex, &count, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0);
        }
        break;
    case MUTANT_CLOCK:
        (void)__builtin_ia32_rdtsc();
        break;
    case MUTANT_VDSO:
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        break;
    case MUTANT_EPOLL:
        for (unsigned i = 0; i < 10;
             i++) { /* what goes by the clock may be much on a slow machine */
            (void)epoll_wait(-1, &event, 1, 0);
        }
        break;
    case MUTANT_SENDMSG:
        (void)sendmsg(-1, &message, 0);
        break;
    case MUTANT_RECVMSG:
        (void)recvmsg(-1, &message, 0);
        break;
    }
}

/* ---- wrapped by the linker ---------------------------------------------------------------------
 */

rsi_status_t __real_rsi_frame_read(const struct rsi_ring *ring, uint64_t position, uint64_t end_pos,
                                   struct rsi_frame *frame, const char **why);
rsi_status_t __wrap_rsi_frame_read(const struct rsi_ring *ring, uint64_t position, uint64_t end_pos,
                                   struct rsi_frame *frame, const char **why);
void __real_rsi_link_place(struct rsi_link *link);
void __wrap_rsi_link_place(struct rsi_link *link);
uint32_t __real_rsi_poller_poll(struct rsi_poller *poller, uint64_t now_ns);
uint32_t __wrap_rsi_poller_poll(struct rsi_poller *poller, uint64_t now_ns);
void __real_rsi_thread_name(const char *name);
void __wrap_rsi_thread_name(const char *name);

rsi_status_t __wrap_rsi_frame_read(const struct rsi_ring *ring, uint64_t position, uint64_t end_pos,
                                   struct rsi_frame *frame, const char **why)
{
    if (mutant_place == MUTANT_AT_FRAME_READ) {
        misbehave();
    }
    return __real_rsi_frame_read(ring, position, end_pos, frame, why);
}

void __wrap_rsi_link_place(struct rsi_link *link)
{
    if (mutant_place == MUTANT_AT_PLACE) {
        misbehave();
    }
    __real_rsi_link_place(link);
}

/* A pass of the thread; where the law allows something per pass, this is what is counted. */
uint32_t __wrap_rsi_poller_poll(struct rsi_poller *poller, uint64_t now_ns)
{
    watch_note_pass();
    return __real_rsi_poller_poll(poller, now_ns);
}

/* Data agents are watched; the control agent may do what it likes. */
void __wrap_rsi_thread_name(const char *name)
{
    __real_rsi_thread_name(name);
    if (strncmp(name, "data-agent", strlen("data-agent")) == 0) {
        watch_join(name);
    }
}
