/*
 * Preloaded into a broker: a malloc that counts what is live, and answers NULL once when the test
 * says so.
 *
 * Design notes
 * - glibc's own allocator is called by its exported names: dlsym would allocate.
 * - Bytes are what an allocation can hold, which may be some more than was asked for and differ
 * from time to time; the count is exact.
 * - What is allocated before the file is mapped is counted apart and added then.
 */
#include "tests/fault/watched_malloc.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *memory);

static struct watched_malloc early;
static struct watched_malloc *watched = &early;

__attribute__((constructor)) static void map_watched(void)
{
    const char *path = getenv(WATCHED_MALLOC_VARIABLE);
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }
    void *mapped = mmap(NULL, sizeof(*watched), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED) {
        return;
    }
    watched = mapped;
    atomic_fetch_add(&watched->live_count, early.live_count);
    atomic_fetch_add(&watched->live_bytes, early.live_bytes);
}

static bool is_refused(void)
{
    uint64_t left = atomic_load_explicit(&watched->refusal_countdown, memory_order_relaxed);
    while (left != 0) {
        if (atomic_compare_exchange_weak(&watched->refusal_countdown, &left, left - 1)) {
            errno = ENOMEM;
            return left == 1;
        }
    }
    return false;
}

static void *enter(void *memory)
{
    if (memory != NULL) {
        atomic_fetch_add_explicit(&watched->live_count, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&watched->live_bytes, malloc_usable_size(memory),
                                  memory_order_relaxed);
    }
    return memory;
}

static void leave(size_t bytes)
{
    atomic_fetch_sub_explicit(&watched->live_count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&watched->live_bytes, bytes, memory_order_relaxed);
}

void *malloc(size_t bytes)
{
    return is_refused() ? NULL : enter(__libc_malloc(bytes));
}

void *calloc(size_t count, size_t bytes)
{
    return is_refused() ? NULL : enter(__libc_calloc(count, bytes));
}

void *realloc(void *memory, size_t bytes)
{
    size_t old_bytes = malloc_usable_size(memory);
    if (is_refused()) {
        return NULL;
    }
    void *moved = __libc_realloc(memory, bytes);
    /* To 0 bytes is to free. */
    if (memory != NULL && (moved != NULL || bytes == 0)) {
        leave(old_bytes);
    }
    return enter(moved);
}

void *memalign(size_t alignment, size_t bytes)
{
    return is_refused() ? NULL : enter(__libc_memalign(alignment, bytes));
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return memalign(alignment, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    void *made = memalign(alignment, bytes);
    if (made == NULL) {
        return ENOMEM;
    }
    *memory = made;
    return 0;
}

void free(void *memory)
{
    if (memory != NULL) {
        leave(malloc_usable_size(memory));
        __libc_free(memory);
    }
}
