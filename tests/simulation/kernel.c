/*
 * What the linker puts between broker and clients and the C library (--wrap, CMakeLists.txt), and
 * the descriptors behind it.
 *
 * Design notes
 * - Virtual descriptors have numbers that no real one has. Calls on real descriptors, and all calls
 *   before kernel_begin, go through to the system.
 * - Descriptors are level-triggered and belong to the process that made them, so that what is left
 *   open is seen.
 * - A wait ends now and then as a signal would end it, and in some runs a descriptor is refused.
 */
#include "tests/simulation/kernel.h"

#include "core/assert.h"
#include "tests/simulation/simulation.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define FD_FIRST      (1 << 20)
#define FD_COUNT_MAX  4096u
#define MEMBER_MAX    16u
#define SIGNAL_ONE_IN 256u
#define NS_PER_S      UINT64_C(1000000000)

enum kind {
    KIND_FREE,
    KIND_EVENT,
    KIND_EPOLL,
    KIND_TIMER,
    KIND_DEAD, /* of a killed process: whoever still knows it writes into nothing */
};

struct member {
    int fd;
    struct epoll_event event;
};

struct file {
    enum kind kind;
    uint32_t process;
    uint64_t count;               /* eventfd */
    uint64_t due_ns, interval_ns; /* timerfd; 0: not armed, once */
    uint32_t member_count;
    struct member members[MEMBER_MAX];
};

static struct {
    bool is_on;
    struct file files[FD_COUNT_MAX];
} kernel;

void kernel_begin(void)
{
    kernel.is_on = true;
}

void kernel_end(void)
{
    kernel.is_on = false;
}

/* ---- descriptors ------------------------------------------------------------------------------
 */

static struct file *find_file(int fd)
{
    if (fd < FD_FIRST || fd >= FD_FIRST + (int)FD_COUNT_MAX) {
        return NULL;
    }
    struct file *file = &kernel.files[fd - FD_FIRST];
    if (file->kind == KIND_FREE) {
        world_violation("descriptor %d is used after it was closed", fd - FD_FIRST);
    }
    return file;
}

static int open_file(enum kind kind)
{
    bool is_refused = director_refuses_descriptor();
    for (uint32_t i = 0; i < FD_COUNT_MAX && !is_refused; i++) {
        if (kernel.files[i].kind == KIND_FREE) {
            kernel.files[i] = (struct file){.kind = kind, .process = world_process()};
            return FD_FIRST + (int)i;
        }
    }
    errno = EMFILE;
    return -1;
}

static bool file_is_readable(const struct file *file)
{
    switch (file->kind) {
    case KIND_EVENT:
        return file->count > 0;
    case KIND_TIMER:
        return file->due_ns != 0 && world_now_ns() >= file->due_ns;
    case KIND_EPOLL:
        for (uint32_t i = 0; i < file->member_count; i++) {
            if (file_is_readable(&kernel.files[file->members[i].fd - FD_FIRST])) {
                return true;
            }
        }
        return false;
    case KIND_FREE:
    case KIND_DEAD:
        break;
    }
    return false;
}

bool kernel_is_readable(int fd)
{
    return file_is_readable(&kernel.files[fd - FD_FIRST]);
}

/* When a timer in it makes it readable; WORLD_FOR_EVER: none will. */
static uint64_t file_due_ns(const struct file *file)
{
    if (file->kind == KIND_TIMER && file->due_ns != 0) {
        return file->due_ns;
    }
    uint64_t due_ns = WORLD_FOR_EVER;
    for (uint32_t i = 0; i < file->member_count; i++) {
        uint64_t member_ns = file_due_ns(&kernel.files[file->members[i].fd - FD_FIRST]);
        due_ns = member_ns < due_ns ? member_ns : due_ns;
    }
    return due_ns;
}

static void forget_member(struct file *epoll, int fd)
{
    for (uint32_t i = 0; i < epoll->member_count; i++) {
        if (epoll->members[i].fd == fd) {
            epoll->members[i] = epoll->members[--epoll->member_count];
            return;
        }
    }
}

/* As the kernel does: a closed descriptor leaves every epoll set. */
static void close_file(int fd)
{
    kernel.files[fd - FD_FIRST].kind = KIND_FREE;
    for (uint32_t i = 0; i < FD_COUNT_MAX; i++) {
        if (kernel.files[i].kind == KIND_EPOLL) {
            forget_member(&kernel.files[i], fd);
        }
    }
}

uint32_t kernel_open_count(uint32_t process)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < FD_COUNT_MAX; i++) {
        const struct file *file = &kernel.files[i];
        count += file->kind != KIND_FREE && file->kind != KIND_DEAD && file->process == process;
    }
    return count;
}

void kernel_forget_process(uint32_t process)
{
    for (uint32_t i = 0; i < FD_COUNT_MAX; i++) {
        if (kernel.files[i].kind != KIND_FREE && kernel.files[i].process == process) {
            close_file(FD_FIRST + (int)i);
            kernel.files[i].kind = KIND_DEAD;
        }
    }
}

/* ---- wrapped: descriptors ---------------------------------------------------------------------
 */

#define WRAP(result, name, ...)        \
    result __real_##name(__VA_ARGS__); \
    result __wrap_##name(__VA_ARGS__); \
    result __wrap_##name(__VA_ARGS__)

WRAP(int, eventfd, unsigned count, int flags)
{
    if (!kernel.is_on) {
        return __real_eventfd(count, flags);
    }
    rsi_assert((flags & EFD_NONBLOCK) != 0);
    int fd = open_file(KIND_EVENT);
    if (fd >= 0) {
        kernel.files[fd - FD_FIRST].count = count;
    }
    return fd;
}

WRAP(int, epoll_create1, int flags)
{
    return kernel.is_on ? open_file(KIND_EPOLL) : __real_epoll_create1(flags);
}

WRAP(int, timerfd_create, int clock, int flags)
{
    return kernel.is_on ? open_file(KIND_TIMER) : __real_timerfd_create(clock, flags);
}

static uint64_t to_ns(const struct timespec *time)
{
    return (uint64_t)time->tv_sec * NS_PER_S + (uint64_t)time->tv_nsec;
}

WRAP(int, timerfd_settime, int fd, int flags, const struct itimerspec *new_value,
     struct itimerspec *old_value)
{
    struct file *file = find_file(fd);
    if (file == NULL) {
        return __real_timerfd_settime(fd, flags, new_value, old_value);
    }
    uint64_t value_ns = to_ns(&new_value->it_value);
    bool is_absolute = (flags & TFD_TIMER_ABSTIME) != 0;
    file->interval_ns = to_ns(&new_value->it_interval);
    file->due_ns = value_ns == 0 || is_absolute ? value_ns : world_now_ns() + value_ns;
    return 0;
}

WRAP(int, epoll_ctl, int epoll, int operation, int fd, struct epoll_event *event)
{
    struct file *file = find_file(epoll);
    if (file == NULL) {
        return __real_epoll_ctl(epoll, operation, fd, event);
    }
    rsi_assert(find_file(fd) != NULL);
    if (operation == EPOLL_CTL_DEL) {
        forget_member(file, fd);
        return 0;
    }
    rsi_assert(operation == EPOLL_CTL_ADD && event->events == EPOLLIN);
    rsi_assert(file->member_count < MEMBER_MAX);
    file->members[file->member_count++] = (struct member){.fd = fd, .event = *event};
    return 0;
}

/* Which of the members are readable. */
static int collect(const struct file *epoll, struct epoll_event *events, int event_count_max)
{
    int count = 0;
    for (uint32_t i = 0; i < epoll->member_count && count < event_count_max; i++) {
        if (kernel_is_readable(epoll->members[i].fd)) {
            events[count] = epoll->members[i].event;
            events[count++].events = EPOLLIN;
        }
    }
    return count;
}

/* True: a signal ended it. */
static bool wait_for_file(int fd, uint64_t timeout_ns)
{
    if (timeout_ns == 0) {
        return false;
    }
    if (world_one_in(SIGNAL_ONE_IN)) {
        errno = EINTR;
        return true;
    }
    uint64_t deadline_ns =
        timeout_ns == WORLD_FOR_EVER ? WORLD_FOR_EVER : world_now_ns() + timeout_ns;
    uint64_t due_ns = file_due_ns(&kernel.files[fd - FD_FIRST]);
    (void)world_wait_readable(fd, due_ns < deadline_ns ? due_ns : deadline_ns);
    return false;
}

WRAP(int, epoll_wait, int epoll, struct epoll_event *events, int event_count_max, int timeout_ms)
{
    struct file *file = find_file(epoll);
    if (file == NULL) {
        return __real_epoll_wait(epoll, events, event_count_max, timeout_ms);
    }
    world_point();
    uint64_t timeout_ns = timeout_ms < 0 ? WORLD_FOR_EVER : (uint64_t)timeout_ms * 1000000;
    return wait_for_file(epoll, timeout_ns) ? -1 : collect(file, events, event_count_max);
}

static int poll_one(struct pollfd *entry, uint64_t timeout_ns)
{
    world_point();
    if (wait_for_file(entry->fd, timeout_ns)) {
        return -1;
    }
    entry->revents = kernel_is_readable(entry->fd) ? POLLIN : 0;
    return entry->revents != 0;
}

WRAP(int, poll, struct pollfd *entries, nfds_t count, int timeout_ms)
{
    if (count != 1 || find_file(entries->fd) == NULL) {
        return __real_poll(entries, count, timeout_ms);
    }
    return poll_one(entries, timeout_ms < 0 ? WORLD_FOR_EVER : (uint64_t)timeout_ms * 1000000);
}

WRAP(int, ppoll, struct pollfd *entries, nfds_t count, const struct timespec *timeout,
     const sigset_t *mask)
{
    if (count != 1 || find_file(entries->fd) == NULL) {
        return __real_ppoll(entries, count, timeout, mask);
    }
    return poll_one(entries, timeout == NULL ? WORLD_FOR_EVER : to_ns(timeout));
}

WRAP(ssize_t, read, int fd, void *data, size_t bytes)
{
    struct file *file = find_file(fd);
    if (file == NULL) {
        return __real_read(fd, data, bytes);
    }
    world_point();
    rsi_assert(bytes == sizeof(uint64_t));
    uint64_t count = file->count;
    if (file->kind == KIND_TIMER && file_is_readable(file)) {
        count = 1;
        file->due_ns = file->interval_ns == 0 ? 0 : world_now_ns() + file->interval_ns;
    }
    if (count == 0) {
        errno = EAGAIN;
        return -1;
    }
    memcpy(data, &count, sizeof(count));
    file->count = 0;
    return sizeof(count);
}

WRAP(ssize_t, write, int fd, const void *data, size_t bytes)
{
    struct file *file = find_file(fd);
    if (file == NULL) {
        return __real_write(fd, data, bytes);
    }
    world_point();
    rsi_assert((file->kind == KIND_EVENT || file->kind == KIND_DEAD) && bytes == sizeof(uint64_t));
    uint64_t count;
    memcpy(&count, data, sizeof(count));
    file->count += count;
    return sizeof(count);
}

WRAP(int, close, int fd)
{
    if (find_file(fd) == NULL) {
        return __real_close(fd);
    }
    close_file(fd);
    return 0;
}

/* ---- wrapped: threads, locks, time, chance ----------------------------------------------------
 */

struct thread {
    void *(*main)(void *arg);
    void *arg;
};

static void run_thread(void *arg)
{
    struct thread thread = *(struct thread *)arg;
    free(arg);
    (void)thread.main(thread.arg);
}

WRAP(int, pthread_create, pthread_t *created, const pthread_attr_t *attributes,
     void *(*main)(void *arg), void *arg)
{
    if (!kernel.is_on) {
        return __real_pthread_create(created, attributes, main, arg);
    }
    struct thread *thread = malloc(sizeof(*thread));
    if (thread == NULL) {
        return EAGAIN;
    }
    *thread = (struct thread){.main = main, .arg = arg};
    *created = (pthread_t)world_start_fiber("thread", run_thread, thread);
    world_point();
    return 0;
}

WRAP(int, pthread_join, pthread_t thread, void **result)
{
    if (!kernel.is_on) {
        return __real_pthread_join(thread, result);
    }
    world_wait_fiber((uint64_t)thread);
    return 0;
}

WRAP(int, pthread_setname_np, pthread_t thread, const char *name)
{
    if (!kernel.is_on) {
        return __real_pthread_setname_np(thread, name);
    }
    world_name_fiber(name);
    return 0;
}

WRAP(int, pthread_mutex_lock, pthread_mutex_t *mutex)
{
    world_point();
    world_lock_taken();
    return __real_pthread_mutex_lock(mutex);
}

WRAP(int, pthread_mutex_unlock, pthread_mutex_t *mutex)
{
    int result = __real_pthread_mutex_unlock(mutex);
    world_lock_given();
    return result;
}

WRAP(int, clock_gettime, clockid_t clock, struct timespec *time)
{
    if (!kernel.is_on) {
        return __real_clock_gettime(clock, time);
    }
    uint64_t now_ns = clock == CLOCK_MONOTONIC ? world_look_at_clock_ns()
                                               : world_now_ns() + 1700000000 * NS_PER_S;
    time->tv_sec = (time_t)(now_ns / NS_PER_S);
    time->tv_nsec = (long)(now_ns % NS_PER_S);
    if (clock == CLOCK_MONOTONIC) {
        world_point();
    }
    return 0;
}

WRAP(ssize_t, getrandom, void *data, size_t bytes, unsigned flags)
{
    if (!kernel.is_on) {
        return __real_getrandom(data, bytes, flags);
    }
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)data)[i] = (uint8_t)world_random(256);
    }
    return (ssize_t)bytes;
}
