/*
 * Preloaded into a broker: a malloc that answers NULL once, when the test says so.
 *
 * Design notes
 * - RINGSIDE_REFUSING_MALLOC names a file of one 8-byte word, which test and broker map. The test
 * writes n; each allocation counts it down, and the one that takes it to 0 is refused. At 0 nothing
 * is counted.
 * - glibc's own allocator is called by its exported names: dlsym would allocate.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);

static _Atomic uint64_t none;
static _Atomic uint64_t *countdown = &none;

__attribute__((constructor)) static void map_countdown(void)
{
    const char *path = getenv("RINGSIDE_REFUSING_MALLOC");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }
    void *mapped = mmap(NULL, sizeof(*countdown), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) {
        countdown = mapped;
    }
}

static bool is_refused(void)
{
    uint64_t left = atomic_load_explicit(countdown, memory_order_relaxed);
    while (left != 0) {
        if (atomic_compare_exchange_weak(countdown, &left, left - 1)) {
            errno = ENOMEM;
            return left == 1;
        }
    }
    return false;
}

void *malloc(size_t bytes)
{
    return is_refused() ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    return is_refused() ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    return is_refused() ? NULL : __libc_realloc(memory, bytes);
}
