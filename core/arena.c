/*
 * Design notes
 *
 * - Everything is a shared mapping of a memfd. That one way serves mirrored, handed-over and plain
 *   areas, and such memory is not copied on write, which registered memory must never be.
 * - What must hold before the first use: the NUMA preference is set before a page is touched, and
 *   every page is touched here, by madvise, which reports a lack of pages instead of raising
 * SIGBUS.
 * - Sealed areas get ordinary pages. Whoever holds the descriptor of an area that it may write can
 *   punch holes into it, in spite of the seals against shrinking and growing. In ordinary pages a
 *   hole fills with zeroes again; in huge pages it raises SIGBUS when none is left.
 * - NUMA placement is a preference, set with libnuma: a kernel or container that refuses it costs a
 *   warning, not the area.
 * - Huge pages are not swapped, so they count as locked without a call.
 * - A prefix shares the file but is not mirrored: bytes that a device registers in one piece with
 * the ring behind them, at addresses without a gap.
 * - The mirror: address space for twice the size is reserved first, then the file is mapped over it
 *   twice; nothing else can come to lie in between. The reservation starts at a page of the file's
 *   size. Mapping over it must not fail, see map_file().
 */
#include "core/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <numa.h>
#include <numaif.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/assert.h"
#include "core/log.h"
#include "core/position.h"
#include "core/text.h"

/* Since Linux 5.14; older headers lack them. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { REQUIRED_SEALS = F_SEAL_SHRINK | F_SEAL_GROW };

static const uint64_t bytes_max = UINT64_C(1) << 46;

uint64_t rsi_page_bytes(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* A line "<key> <number> kB" of a file below /proc, in bytes; 0 when there is none. */
static uint64_t read_proc_kib(const char *path, const char *key)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    char line[256];
    uint64_t kib = 0;
    size_t key_bytes = strlen(key);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, key_bytes) == 0) {
            if (sscanf(line + key_bytes, "%" SCNu64, &kib) != 1) {
                kib = 0;
            }
            break;
        }
    }
    fclose(file);
    return kib * 1024;
}

uint64_t rsi_huge_page_bytes(void)
{
    return read_proc_kib("/proc/meminfo", "Hugepagesize:");
}

static rsi_status_t memory_status(int errno_value)
{
    switch (errno_value) {
    case ENOMEM:
    case ENOSPC:
    case EAGAIN:
    case EFAULT: /* from madvise: the pages are not to be had */
        return RSI_E_NO_MEMORY;
    default:
        return rsi_status_from_errno(errno_value);
    }
}

/* All of the mapping, the prefix included. */
static uint8_t *whole_start(const struct rsi_arena *arena)
{
    return arena->base - arena->prefix_bytes;
}

static uint64_t whole_bytes(const struct rsi_arena *arena)
{
    return arena->prefix_bytes + arena->mapped_bytes;
}

static uint64_t file_bytes(const struct rsi_arena *arena)
{
    return arena->prefix_bytes + arena->bytes;
}

static int protection(const struct rsi_arena *arena)
{
    return arena->is_read_only ? PROT_READ : PROT_READ | PROT_WRITE;
}

/* Maps prefix and bytes, and with a mirror the bytes once more, over reserved space at `start`. */
static bool map_pieces(const struct rsi_arena *arena, uint8_t *start, int fd)
{
    uint64_t once_bytes = file_bytes(arena);
    if (mmap(start, once_bytes, protection(arena), MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        return false;
    }
    if (!arena->is_mirrored ||
        mmap(start + once_bytes, arena->bytes, protection(arena), MAP_SHARED | MAP_FIXED, fd,
             (off_t)arena->prefix_bytes) != MAP_FAILED) {
        return true;
    }
    munmap(start, once_bytes);
    return false;
}

static rsi_status_t cannot_map(const struct rsi_arena *arena, struct rsi_error *error)
{
    return rsi_fail_errno(error, memory_status(errno), errno, "%s: cannot map %" PRIu64 " bytes",
                          arena->name, arena->bytes);
}

/*
 * Maps the descriptor's bytes once or twice at arena->base. No memory stays mapped on failure.
 *
 * A MAP_FIXED that fails may have unmapped what was reserved there, and another thread's mapping
 * may lie in the hole by the time that this one looks: it can neither be filled nor be given back.
 * So what fails in practice, huge pages that the kernel does not have, is found out beside, and the
 * pages of that mapping are those of the ones that follow.
 */
static rsi_status_t map_file(struct rsi_arena *arena, int fd, struct rsi_error *error)
{
    uint64_t alignment = arena->page_bytes;
    if (arena->mapped_bytes >= RSI_ARENA_HUGE_BYTES_MIN && alignment < RSI_ARENA_HUGE_BYTES_MIN) {
        alignment =
            RSI_ARENA_HUGE_BYTES_MIN; /* lets the kernel join ordinary pages to large ones */
    }
    void *beside = mmap(NULL, file_bytes(arena), protection(arena), MAP_SHARED, fd, 0);
    if (beside == MAP_FAILED) {
        return cannot_map(arena, error);
    }
    uint64_t reserved_bytes = whole_bytes(arena) + alignment;
    void *reserved =
        mmap(NULL, reserved_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) {
        rsi_status_t status = rsi_fail_errno(error, memory_status(errno), errno,
                                             "%s: cannot reserve %" PRIu64 " bytes of address "
                                             "space",
                                             arena->name, reserved_bytes);
        munmap(beside, file_bytes(arena));
        return status;
    }
    uint8_t *start = reserved;
    uint8_t *base = start + (rsi_align_up((uintptr_t)start, alignment) - (uintptr_t)start);
    bool is_mapped = map_pieces(arena, base, fd);
    rsi_status_t status = is_mapped ? RSI_OK : cannot_map(arena, error);
    munmap(beside, file_bytes(arena));
    if (!is_mapped) {
        return status; /* with it the reserved addresses, which may be another thread's now */
    }
    uint64_t before_bytes = (uint64_t)(base - start);
    if (before_bytes > 0) {
        munmap(start, before_bytes);
    }
    munmap(base + whole_bytes(arena), alignment - before_bytes);
    arena->base = base + arena->prefix_bytes;
    return RSI_OK;
}

/* Brings every page in, so that the data plane meets no fault. */
static rsi_status_t populate(struct rsi_arena *arena, struct rsi_error *error)
{
    int advice = arena->is_read_only ? MADV_POPULATE_READ : MADV_POPULATE_WRITE;
    int failed = 0;
    do {
        failed = madvise(whole_start(arena), whole_bytes(arena), advice);
    } while (failed != 0 && errno == EINTR);
    if (failed == 0) {
        return RSI_OK;
    }
    if (errno != EINVAL) {
        return rsi_fail_errno(error, memory_status(errno), errno,
                              "%s: cannot get memory for %" PRIu64 " bytes", arena->name,
                              arena->bytes);
    }
    /* A kernel before 5.14. Reading is enough to map a page, and disturbs no peer. */
    for (uint64_t at = 0; at < whole_bytes(arena); at += arena->page_bytes) {
        (void)*(volatile uint8_t *)(whole_start(arena) + at);
    }
    return RSI_OK;
}

/* Sets errno when the preference cannot be had. */
static bool bind_to_node(void *start, uint64_t bytes, int node)
{
    if (numa_available() < 0) {
        errno = ENOSYS;
        return false;
    }
    if (node > numa_max_node()) {
        errno = EINVAL;
        return false;
    }
    struct bitmask *nodes = numa_allocate_nodemask();
    if (nodes == NULL) {
        return false;
    }
    numa_bitmask_setbit(nodes, (unsigned)node);
    long result = mbind(start, bytes, MPOL_PREFERRED, nodes->maskp, nodes->size + 1, 0);
    int bind_errno = errno;
    numa_free_nodemask(nodes);
    errno = bind_errno;
    return result == 0;
}

static void prefer_node(struct rsi_arena *arena, int node)
{
    if (node < 0) {
        return;
    }
    if (bind_to_node(whole_start(arena), arena->prefix_bytes + arena->bytes, node)) {
        arena->node = node;
        return;
    }
    RSI_LOG_ONCE(
        RSI_LOG_WARNING, "arena",
        "%s: the kernel does not place memory on NUMA node %d (%s); memory may come from a "
        "farther node",
        arena->name, node, strerrordesc_np(errno));
}

/* How many more bytes this process may lock. */
static uint64_t lockable_bytes(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) {
        return 0;
    }
    uint64_t locked = read_proc_kib("/proc/self/status", "VmLck:");
    return limit.rlim_cur > locked ? limit.rlim_cur - locked : 0;
}

/* mlock2() without flags is mlock(), which the sanitizers replace by nothing. */
static bool lock_bytes(const struct rsi_arena *arena, uint64_t bytes)
{
    return mlock2(arena->base, bytes, 0) == 0;
}

static void lock_pages(struct rsi_arena *arena)
{
    if (arena->page_bytes > rsi_page_bytes() || lock_bytes(arena, arena->bytes)) {
        arena->locked_bytes = arena->bytes;
        return;
    }
    uint64_t lockable = lockable_bytes() & ~(arena->page_bytes - 1);
    uint64_t wanted = rsi_pos_min(lockable, arena->bytes);
    if (wanted > 0 && lock_bytes(arena, wanted)) {
        arena->locked_bytes = wanted;
    }
    RSI_LOG_ONCE(RSI_LOG_WARNING, "arena",
                 "%s: %" PRIu64 " of %" PRIu64
                 " bytes locked in memory; the memlock limit allows no "
                 "more (raise it with 'ulimit -l' or LimitMEMLOCK=)",
                 arena->name, arena->locked_bytes, arena->bytes);
}

/* A memfd of arena->bytes. Its descriptor comes back in *fd. */
static rsi_status_t make_file(const struct rsi_arena *arena, bool use_huge, bool use_seal, int *fd,
                              struct rsi_error *error)
{
    char name[RSI_ARENA_NAME_BYTES + 16];
    snprintf(name, sizeof name, "ringside-%s", arena->name);
    unsigned flags =
        MFD_CLOEXEC | (use_huge ? MFD_HUGETLB : 0u) | (use_seal ? MFD_ALLOW_SEALING : 0u);
    int made = memfd_create(name, flags);
    if (made < 0) {
        return rsi_fail_errno(error, memory_status(errno), errno, "%s: cannot make a memory file",
                              arena->name);
    }
    if (ftruncate(made, (off_t)(arena->prefix_bytes + arena->bytes)) != 0) {
        rsi_status_t status = rsi_fail_errno(error, memory_status(errno), errno,
                                             "%s: cannot give the memory file %" PRIu64 " bytes",
                                             arena->name, arena->bytes);
        close(made);
        return status;
    }
    if (use_seal && fcntl(made, F_ADD_SEALS, REQUIRED_SEALS) != 0) {
        rsi_status_t status = rsi_fail_errno(error, RSI_E_SYSTEM, errno,
                                             "%s: cannot seal the memory file", arena->name);
        close(made);
        return status;
    }
    *fd = made;
    return RSI_OK;
}

static void arena_reset(struct rsi_arena *arena, const char *name)
{
    *arena = (struct rsi_arena){.node = RSI_NODE_ANY, .fd = -1};
    (void)rsi_text_copy(arena->name, sizeof arena->name, name != NULL ? name : "arena");
}

/* One try with pages of one size. Leaves nothing behind on failure. */
static rsi_status_t init_with_pages(struct rsi_arena *arena,
                                    const struct rsi_arena_options *options, uint64_t page_bytes,
                                    struct rsi_error *error)
{
    arena_reset(arena, options->name);
    arena->page_bytes = page_bytes;
    arena->bytes = rsi_align_up(options->bytes, page_bytes);
    arena->prefix_bytes = rsi_align_up(options->prefix_bytes, page_bytes);
    arena->is_mirrored = options->want_mirror;
    arena->mapped_bytes = arena->is_mirrored ? 2 * arena->bytes : arena->bytes;
    bool use_huge = page_bytes > rsi_page_bytes();

    int fd = -1;
    rsi_status_t status = make_file(arena, use_huge, options->want_seal, &fd, error);
    if (status != RSI_OK) {
        goto reset_arena;
    }
    status = map_file(arena, fd, error);
    if (status != RSI_OK) {
        goto close_file;
    }
    prefer_node(arena, options->node);
    if (options->want_huge && !use_huge) {
        (void)madvise(arena->base, arena->mapped_bytes, MADV_HUGEPAGE); /* a hint, may be refused */
    }
    status = populate(arena, error);
    if (status != RSI_OK) {
        goto unmap_file;
    }
    if (options->want_lock) {
        lock_pages(arena);
    }
    if (options->want_fd) {
        arena->fd = fd;
        arena->owns_fd = true;
    } else {
        close(fd); /* the mapping keeps the memory */
    }
    return RSI_OK;

unmap_file:
    munmap(whole_start(arena), whole_bytes(arena));
close_file:
    close(fd);
reset_arena:
    *arena = (struct rsi_arena){0};
    return status;
}

static rsi_status_t check_options(const struct rsi_arena_options *options, struct rsi_error *error)
{
    const char *name = options->name != NULL ? options->name : "arena";
    if (options->bytes == 0 || options->bytes > bytes_max || options->prefix_bytes > bytes_max) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: an area of %" PRIu64 " bytes is not possible; ask for 1 to %" PRIu64,
                        name, options->bytes, bytes_max);
    }
    if (options->want_mirror && !rsi_is_aligned(options->bytes, rsi_page_bytes())) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: a mirrored area of %" PRIu64 " bytes is not whole pages; use %" PRIu64,
                        name, options->bytes, rsi_align_up(options->bytes, rsi_page_bytes()));
    }
    return RSI_OK;
}

rsi_status_t rsi_arena_init(struct rsi_arena *arena, const struct rsi_arena_options *options,
                            struct rsi_error *error)
{
    rsi_status_t status = check_options(options, error);
    if (status != RSI_OK) {
        return status;
    }
    bool want_huge =
        options->want_huge && !options->want_seal && options->bytes >= RSI_ARENA_HUGE_BYTES_MIN;
    uint64_t huge_bytes = want_huge ? rsi_huge_page_bytes() : 0;
    /* A mirror must not contain a rounded-up tail, so its size has to fit the page. */
    if (huge_bytes > 0 && (!options->want_mirror || rsi_is_aligned(options->bytes, huge_bytes))) {
        struct rsi_error huge_error = {0};
        if (init_with_pages(arena, options, huge_bytes, &huge_error) == RSI_OK) {
            return RSI_OK;
        }
        uint64_t page_count = rsi_align_up(options->prefix_bytes, huge_bytes) / huge_bytes +
                              rsi_align_up(options->bytes, huge_bytes) / huge_bytes;
        RSI_LOG_ONCE(RSI_LOG_WARNING, "arena",
                     "no huge pages, going on with ordinary ones: %s (this area needs %" PRIu64
                     " huge pages of %" PRIu64
                     " KiB; reserve enough for all with 'sysctl vm.nr_hugepages=COUNT')",
                     huge_error.text, page_count, huge_bytes / 1024);
    }
    return init_with_pages(arena, options, rsi_page_bytes(), error);
}

/* The size of the pages behind a memory file. */
static uint64_t file_page_bytes(int fd)
{
    struct statfs info;
    if (fstatfs(fd, &info) == 0 && info.f_type == HUGETLBFS_MAGIC) {
        return (uint64_t)info.f_bsize;
    }
    return rsi_page_bytes();
}

/* Nothing of the file may be touched before this: size and seals are what make it safe. */
static rsi_status_t check_file(int fd, const struct rsi_arena_fd_options *options, const char *name,
                               struct rsi_error *error)
{
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0) {
        return rsi_fail_errno(error, RSI_E_INVALID, errno,
                              "%s: the descriptor that was handed over is no memory file", name);
    }
    if ((seals & REQUIRED_SEALS) != REQUIRED_SEALS) {
        return rsi_fail(
            error, RSI_E_DENIED,
            "%s: the memory file is not sealed against shrinking and growing (F_SEAL_SHRINK "
            "and F_SEAL_GROW)",
            name);
    }
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return rsi_fail_errno(error, RSI_E_SYSTEM, errno, "%s: cannot look at the memory file",
                              name);
    }
    if ((uint64_t)info.st_size != options->bytes) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: the memory file has %" PRIu64 " bytes where %" PRIu64 " were agreed",
                        name, (uint64_t)info.st_size, options->bytes);
    }
    if (options->bytes == 0 || !rsi_is_aligned(options->bytes, file_page_bytes(fd))) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: a memory file of %" PRIu64 " bytes is not whole pages of %" PRIu64,
                        name, options->bytes, file_page_bytes(fd));
    }
    return RSI_OK;
}

rsi_status_t rsi_arena_init_fd(struct rsi_arena *arena, int fd,
                               const struct rsi_arena_fd_options *options, struct rsi_error *error)
{
    struct rsi_arena made;
    arena_reset(&made, options->name);
    rsi_status_t status = check_file(fd, options, made.name, error);
    if (status != RSI_OK) {
        return status;
    }
    made.page_bytes = file_page_bytes(fd);
    made.bytes = options->bytes;
    made.is_mirrored = options->want_mirror;
    made.is_read_only = options->is_read_only;
    made.mapped_bytes = made.is_mirrored ? 2 * made.bytes : made.bytes;
    status = map_file(&made, fd, error);
    if (status != RSI_OK) {
        return status;
    }
    status = populate(&made, error);
    if (status != RSI_OK) {
        munmap(made.base, made.mapped_bytes);
        return status;
    }
    *arena = made;
    return RSI_OK;
}

void rsi_arena_close_fd(struct rsi_arena *arena)
{
    if (arena->owns_fd) {
        close(arena->fd);
        arena->owns_fd = false;
        arena->fd = -1;
    }
}

void rsi_arena_fini(struct rsi_arena *arena)
{
    if (arena->base != NULL) {
        munmap(whole_start(arena), whole_bytes(arena));
    }
    rsi_arena_close_fd(arena);
    *arena = (struct rsi_arena){0};
}

const char *rsi_arena_describe(const struct rsi_arena *arena, char *buffer, size_t buffer_bytes)
{
    struct rsi_text text;
    rsi_text_init(&text, buffer, buffer_bytes);
    if (arena->base == NULL) {
        rsi_text_append(&text, "empty");
        return buffer;
    }
    rsi_text_append(&text, "%s: ", arena->name);
    rsi_text_append_size(&text, arena->bytes);
    rsi_text_append(&text, " in pages of ");
    rsi_text_append_size(&text, arena->page_bytes);
    if (arena->node == RSI_NODE_ANY) {
        rsi_text_append(&text, ", any node, ");
    } else {
        rsi_text_append(&text, ", node %d, ", arena->node);
    }
    if (arena->locked_bytes == 0) {
        rsi_text_append(&text, "not locked");
    } else {
        rsi_text_append_size(&text, arena->locked_bytes);
        rsi_text_append(&text, " locked");
    }
    if (arena->is_mirrored) {
        rsi_text_append(&text, ", mirrored");
    }
    if (arena->is_read_only) {
        rsi_text_append(&text, ", read-only");
    }
    return buffer;
}
