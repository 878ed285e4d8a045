#include "core/testing.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#include "core/arena.h"
#include "core/atomics.h"
#include "core/cpu.h"
#include "core/log.h"
#include "core/position.h"

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW };

static bool is_all_zero(const uint8_t *bytes, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

static unsigned open_descriptor_count(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    }
    return count;
}

static void an_area_is_zeroed_writable_and_whole_pages(void **state)
{
    (void)state;
    struct rsi_arena arena;
    unsigned descriptor_count = open_descriptor_count();
    struct rsi_arena_options options = {.name = "plain", .bytes = 5000, .node = RSI_NODE_ANY};
    assert_int_equal(rsi_arena_init(&arena, &options, NULL), RSI_OK);
    assert_int_equal(arena.page_bytes, rsi_page_bytes());
    assert_int_equal(arena.bytes, rsi_align_up(5000, rsi_page_bytes()));
    assert_int_equal(arena.mapped_bytes, arena.bytes);
    assert_int_equal(arena.locked_bytes, 0);
    assert_int_equal(arena.node, RSI_NODE_ANY);
    assert_int_equal(arena.fd, -1);
    assert_int_equal(open_descriptor_count(), descriptor_count);
    assert_true(is_all_zero(arena.base, arena.bytes));
    memset(arena.base, 0xa5, arena.bytes);
    rsi_arena_fini(&arena);
    assert_null(arena.base);
    rsi_arena_fini(&arena);
}

static void a_mirrored_area_shows_the_same_bytes_twice(void **state)
{
    (void)state;
    struct rsi_arena arena;
    uint64_t bytes = 4 * rsi_page_bytes();
    struct rsi_arena_options options = {
        .name = "mirror", .bytes = bytes, .node = RSI_NODE_ANY, .want_mirror = true};
    assert_int_equal(rsi_arena_init(&arena, &options, NULL), RSI_OK);
    assert_int_equal(arena.mapped_bytes, 2 * bytes);
    arena.base[1] = 11;
    assert_int_equal(arena.base[bytes + 1], 11);
    arena.base[2 * bytes - 1] = 12;
    assert_int_equal(arena.base[bytes - 1], 12);
    rsi_arena_fini(&arena);
}

static void a_prefix_lies_before_the_bytes_and_is_not_mirrored(void **state)
{
    (void)state;
    struct rsi_arena arena;
    uint64_t page = rsi_page_bytes();
    struct rsi_arena_options options = {.name = "prefix",
                                        .bytes = 2 * page,
                                        .prefix_bytes = 64,
                                        .node = RSI_NODE_ANY,
                                        .want_mirror = true};
    assert_int_equal(rsi_arena_init(&arena, &options, NULL), RSI_OK);
    assert_int_equal(arena.prefix_bytes, page);
    assert_int_equal(arena.bytes, 2 * page);
    assert_true(is_all_zero(arena.base - page, page));
    memset(arena.base - page, 0xff, page);
    assert_true(is_all_zero(arena.base, arena.mapped_bytes));
    arena.base[0] = 1;
    assert_int_equal(arena.base[2 * page], 1);
    assert_int_equal(arena.base[-1], 0xff);
    rsi_arena_fini(&arena);
}

static void huge_pages_are_used_when_there_are_some_and_else_done_without(void **state)
{
    (void)state;
    struct rsi_arena arena;
    struct rsi_arena_options options = {.name = "huge",
                                        .bytes = RSI_ARENA_HUGE_BYTES_MIN,
                                        .node = RSI_NODE_ANY,
                                        .want_huge = true,
                                        .want_mirror = true};
    assert_int_equal(rsi_arena_init(&arena, &options, NULL), RSI_OK);
    assert_true(arena.page_bytes == rsi_page_bytes() || arena.page_bytes == rsi_huge_page_bytes());
    assert_true(is_all_zero(arena.base, arena.mapped_bytes));
    arena.base[0] = 5;
    assert_int_equal(arena.base[arena.bytes], 5);
    arena.base[arena.mapped_bytes - 1] = 6;
    assert_int_equal(arena.base[arena.bytes - 1], 6);
    rsi_arena_fini(&arena);
}

static void sealed_areas_never_get_huge_pages(void **state)
{
    (void)state;
    struct rsi_arena arena;
    struct rsi_arena_options options = {.name = "sealed",
                                        .bytes = RSI_ARENA_HUGE_BYTES_MIN,
                                        .node = RSI_NODE_ANY,
                                        .want_huge = true,
                                        .want_fd = true,
                                        .want_seal = true};
    assert_int_equal(rsi_arena_init(&arena, &options, NULL), RSI_OK);
    assert_int_equal(arena.page_bytes, rsi_page_bytes());
    assert_int_equal(fcntl(arena.fd, F_GET_SEALS) & SEALS, SEALS);
    assert_int_equal(ftruncate(arena.fd, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(arena.fd, 1 << 30), -1);
    assert_int_equal(errno, EPERM);
    int fd = arena.fd;
    rsi_arena_close_fd(&arena);
    assert_int_equal(arena.fd, -1);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    arena.base[0] = 1; /* the mapping stays */
    rsi_arena_fini(&arena);
}

static void locking_says_how_much_it_got(void **state)
{
    (void)state;
    struct rsi_arena arena;
    struct rsi_arena_options options = {
        .name = "locked", .bytes = 65536, .node = RSI_NODE_ANY, .want_lock = true};
    assert_int_equal(rsi_arena_init(&arena, &options, NULL), RSI_OK);
    assert_true(arena.locked_bytes <= arena.bytes);
    assert_true(rsi_is_aligned(arena.locked_bytes, arena.page_bytes));
    char text[200];
    rsi_arena_describe(&arena, text, sizeof text);
    if (arena.locked_bytes == arena.bytes) {
        assert_string_equal(text, "locked: 64 KiB in pages of 4 KiB, any node, 64 KiB locked");
    } else {
        assert_int_equal(strncmp(text, "locked: 64 KiB in pages of 4 KiB, any node, ", 44), 0);
    }
    rsi_arena_fini(&arena);
    assert_string_equal(rsi_arena_describe(&arena, text, sizeof text), "empty");
}

/* In a child, because a lowered limit and lost rights are for ever. */
static void lock_beyond_the_limit(void *arg)
{
    uint64_t page = rsi_page_bytes();
    struct rlimit limit = {4 * page, 4 * page};
    struct rsi_arena arena;
    struct rsi_arena_options options = {
        .name = "limited", .bytes = 8 * page, .node = RSI_NODE_ANY, .want_lock = true};
    bool is_user = setrlimit(RLIMIT_MEMLOCK, &limit) == 0 && (geteuid() != 0 || setuid(65534) == 0);
    if (is_user && rsi_arena_init(&arena, &options, NULL) == RSI_OK &&
        arena.locked_bytes == *(uint64_t *)arg * page) {
        abort();
    }
}

static void locking_stops_at_the_limit_and_warns(void **state)
{
    (void)state;
    char output[1024];
    uint64_t expected_pages = 4;
    rsi_test_expect_abort(lock_beyond_the_limit, &expected_pages, output, sizeof output);
    assert_non_null(strstr(output, "warning arena: limited: "));
    assert_non_null(strstr(output, "ulimit -l"));
}

static void the_node_is_the_one_granted(void **state)
{
    (void)state;
    struct rsi_cpu_set allowed;
    assert_int_equal(rsi_cpu_allowed(&allowed, NULL), RSI_OK);
    int node = rsi_cpu_node((unsigned)rsi_cpu_set_next(&allowed, 0));
    struct rsi_arena arena;
    struct rsi_arena_options options = {.name = "near", .bytes = 4096, .node = node};
    assert_int_equal(rsi_arena_init(&arena, &options, NULL), RSI_OK);
    assert_true(arena.node == node || arena.node == RSI_NODE_ANY);
    rsi_arena_fini(&arena);

    options.node = 1000; /* no machine has it: a preference that cannot be met is no error */
    assert_int_equal(rsi_arena_init(&arena, &options, NULL), RSI_OK);
    assert_int_equal(arena.node, RSI_NODE_ANY);
    rsi_arena_fini(&arena);
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    struct rsi_arena arena = {0};
    struct rsi_arena_options options = {.name = "odd", .node = RSI_NODE_ANY};
    assert_int_equal(rsi_arena_init(&arena, &options, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "odd: an area of 0 bytes is not possible"));
    options.bytes = UINT64_MAX;
    assert_int_equal(rsi_arena_init(&arena, &options, &error), RSI_E_INVALID);
    options.bytes = 5000;
    options.want_mirror = true;
    assert_int_equal(rsi_arena_init(&arena, &options, &error), RSI_E_INVALID);
    assert_string_equal(error.text,
                        "odd: a mirrored area of 5000 bytes is not whole pages; use 8192");
    assert_null(arena.base);
}

static void too_much_is_no_memory_and_leaves_nothing(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    struct rsi_arena arena = {0};
    unsigned descriptor_count = open_descriptor_count();
    struct rsi_arena_options options = {
        .name = "vast", .bytes = UINT64_C(1) << 46, .node = RSI_NODE_ANY, .want_mirror = true};
    assert_int_equal(rsi_arena_init(&arena, &options, &error), RSI_E_NO_MEMORY);
    assert_non_null(strstr(error.text, "vast: cannot "));
    assert_null(arena.base);
    assert_int_equal(open_descriptor_count(), descriptor_count);
}

static int make_file(uint64_t bytes, int seals)
{
    int fd = memfd_create("arena-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    if (seals != 0) {
        assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    }
    return fd;
}

static void a_sealed_file_is_mapped_and_shared(void **state)
{
    (void)state;
    uint64_t bytes = 2 * rsi_page_bytes();
    int fd = make_file(bytes, SEALS);
    struct rsi_arena writer;
    struct rsi_arena reader;
    struct rsi_arena_fd_options options = {.name = "shared", .bytes = bytes, .want_mirror = true};
    assert_int_equal(rsi_arena_init_fd(&writer, fd, &options, NULL), RSI_OK);
    options.is_read_only = true;
    assert_int_equal(rsi_arena_init_fd(&reader, fd, &options, NULL), RSI_OK);
    close(fd);
    writer.base[bytes + 3] = 77;
    assert_int_equal(reader.base[3], 77);
    assert_true(reader.is_read_only);
    rsi_arena_fini(&writer);
    assert_int_equal(reader.base[3], 77);
    rsi_arena_fini(&reader);
}

static void files_that_could_hurt_are_refused(void **state)
{
    (void)state;
    uint64_t bytes = 2 * rsi_page_bytes();
    struct rsi_error error = {0};
    struct rsi_arena arena = {0};
    struct rsi_arena_fd_options options = {.name = "foreign", .bytes = bytes};

    int fd = make_file(bytes, 0);
    assert_int_equal(rsi_arena_init_fd(&arena, fd, &options, &error), RSI_E_DENIED);
    assert_non_null(strstr(error.text, "foreign: the memory file is not sealed"));
    close(fd);
    fd = make_file(bytes, F_SEAL_SHRINK);
    assert_int_equal(rsi_arena_init_fd(&arena, fd, &options, &error), RSI_E_DENIED);
    close(fd);
    fd = make_file(bytes - 1, SEALS);
    assert_int_equal(rsi_arena_init_fd(&arena, fd, &options, &error), RSI_E_INVALID);
    assert_string_equal(error.text,
                        "foreign: the memory file has 8191 bytes where 8192 were agreed");
    options.bytes = bytes - 1;
    assert_int_equal(rsi_arena_init_fd(&arena, fd, &options, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "is not whole pages of 4096"));
    close(fd);
    fd = make_file(0, SEALS);
    options.bytes = 0;
    assert_int_equal(rsi_arena_init_fd(&arena, fd, &options, &error), RSI_E_INVALID);
    close(fd);

    int ends[2];
    assert_int_equal(pipe(ends), 0);
    options.bytes = bytes;
    assert_int_equal(rsi_arena_init_fd(&arena, ends[0], &options, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "is no memory file"));
    assert_int_equal(rsi_arena_init_fd(&arena, -1, &options, &error), RSI_E_INVALID);
    close(ends[0]);
    close(ends[1]);
    assert_null(arena.base);
}

/* Maps and unmaps until it is told to stop. A page of it that goes away is a SIGSEGV. As large as
 * the areas, so that the kernel looks for room in the same places. */
static void *map_again_and_again(void *arg)
{
    _Atomic uint32_t *stop = arg;
    uint64_t bytes = RSI_ARENA_HUGE_BYTES_MIN;
    while (rsi_load_relaxed(stop) == 0) {
        uint8_t *mine =
            mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(mine, MAP_FAILED);
        for (unsigned round = 0; round < 4000; round++) {
            rsi_store_relaxed((_Atomic uint32_t *)mine, round);
        }
        munmap(mine, bytes);
    }
    return NULL;
}

/* Where the kernel has no huge pages, each of these areas fails half-way and is tried anew. */
static void an_area_that_fails_half_way_touches_no_mapping_of_others(void **state)
{
    (void)state;
    enum { THREAD_COUNT = 3, ROUND_COUNT = 100 };
    pthread_t threads[THREAD_COUNT];
    _Atomic uint32_t stop = 0;
    for (unsigned i = 0; i < THREAD_COUNT; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, map_again_and_again, &stop), 0);
    }
    struct rsi_arena_options options = {.name = "huge",
                                        .bytes = RSI_ARENA_HUGE_BYTES_MIN,
                                        .node = RSI_NODE_ANY,
                                        .want_mirror = true,
                                        .want_huge = true};
    for (unsigned round = 0; round < ROUND_COUNT; round++) {
        struct rsi_arena arena;
        assert_int_equal(rsi_arena_init(&arena, &options, NULL), RSI_OK);
        rsi_arena_fini(&arena);
    }
    rsi_store_relaxed(&stop, 1u);
    for (unsigned i = 0; i < THREAD_COUNT; i++) {
        pthread_join(threads[i], NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_area_is_zeroed_writable_and_whole_pages),
        cmocka_unit_test(a_mirrored_area_shows_the_same_bytes_twice),
        cmocka_unit_test(a_prefix_lies_before_the_bytes_and_is_not_mirrored),
        cmocka_unit_test(huge_pages_are_used_when_there_are_some_and_else_done_without),
        cmocka_unit_test(sealed_areas_never_get_huge_pages),
        cmocka_unit_test(locking_says_how_much_it_got),
        cmocka_unit_test(locking_stops_at_the_limit_and_warns),
        cmocka_unit_test(the_node_is_the_one_granted),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(too_much_is_no_memory_and_leaves_nothing),
        cmocka_unit_test(an_area_that_fails_half_way_touches_no_mapping_of_others),
        cmocka_unit_test(a_sealed_file_is_mapped_and_shared),
        cmocka_unit_test(files_that_could_hurt_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
