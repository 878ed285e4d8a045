#include "core/testing.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "core/position.h"
#include "core/ring.h"

static void every_span_is_contiguous_across_the_end(void **state)
{
    (void)state;
    uint64_t random = rsi_test_seed();
    struct rsi_ring ring;
    struct rsi_ring_options options = {
        .name = "ring", .capacity_bytes = 16384, .node = RSI_NODE_ANY};
    assert_int_equal(rsi_ring_init(&ring, &options, NULL), RSI_OK);
    assert_int_equal(ring.capacity_bytes, 16384);
    assert_int_equal(ring.mask, 16383);
    for (int i = 0; i < 2000; i++) {
        uint64_t pos = rsi_test_random(&random) >> 8;
        uint64_t bytes = 1 + rsi_test_random(&random) % ring.capacity_bytes;
        uint8_t fill = (uint8_t)rsi_test_random(&random);
        memset(rsi_ring_at(&ring, pos), fill, bytes);
        for (uint64_t at = 0; at < bytes; at += 97) {
            assert_int_equal(*rsi_ring_at(&ring, pos + at), fill);
        }
        assert_int_equal(*rsi_ring_at(&ring, pos + bytes - 1), fill);
    }
    assert_ptr_equal(rsi_ring_at(&ring, 5), rsi_ring_at(&ring, 5 + 7 * ring.capacity_bytes));
    rsi_ring_fini(&ring);
    assert_null(ring.base);
    rsi_ring_fini(&ring);
}

static void invalid_capacities_are_refused_with_the_next_valid_one(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    struct rsi_ring ring = {0};
    struct rsi_ring_options options = {
        .name = "out ring", .capacity_bytes = 100000, .node = RSI_NODE_ANY};
    assert_int_equal(rsi_ring_init(&ring, &options, &error), RSI_E_INVALID);
    assert_string_equal(error.text,
                        "out ring: a ring of 100000 bytes is not possible: the size is a power of "
                        "two of at least one page; the next one is 131072");
    options.capacity_bytes = 0;
    assert_int_equal(rsi_ring_init(&ring, &options, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "the next one is 4096"));
    options.capacity_bytes = UINT64_C(1) << 50;
    assert_int_equal(rsi_ring_init(&ring, &options, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "too large"));
    assert_null(ring.base);

    assert_false(rsi_ring_is_valid_capacity(2048));
    assert_true(rsi_ring_is_valid_capacity(4096));
    assert_int_equal(rsi_ring_next_capacity(1), 4096);
    assert_int_equal(rsi_ring_next_capacity(4097), 8192);
    assert_int_equal(rsi_ring_next_capacity(8192), 8192);
}

static void a_prefix_is_never_reached_by_positions(void **state)
{
    (void)state;
    struct rsi_ring ring;
    struct rsi_ring_options options = {
        .name = "ring", .capacity_bytes = 8192, .node = RSI_NODE_ANY, .prefix_bytes = 4096};
    assert_int_equal(rsi_ring_init(&ring, &options, NULL), RSI_OK);
    memset(ring.base - 4096, 0x11, 4096);
    memset(rsi_ring_at(&ring, 8000), 0x22, 8192);
    for (int i = 1; i <= 4096; i++) {
        assert_int_equal(ring.base[-i], 0x11);
    }
    rsi_ring_fini(&ring);
}

/* The child maps the descriptor that it inherited and writes across the end. */
static void write_across_the_end(int fd, uint64_t capacity_bytes)
{
    struct rsi_ring ring;
    struct rsi_ring_fd_options options = {.name = "peer", .capacity_bytes = capacity_bytes};
    if (rsi_ring_init_fd(&ring, fd, &options, NULL) != RSI_OK) {
        _exit(1);
    }
    memcpy(rsi_ring_at(&ring, capacity_bytes - 4), "12345678", 8);
    rsi_ring_fini(&ring);
    _exit(0);
}

static void a_shared_ring_is_seen_by_another_process(void **state)
{
    (void)state;
    struct rsi_ring ring;
    struct rsi_ring_options options = {
        .name = "ring", .capacity_bytes = 65536, .node = RSI_NODE_ANY, .want_share = true};
    assert_int_equal(rsi_ring_init(&ring, &options, NULL), RSI_OK);
    assert_true(ring.arena.owns_fd);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        write_across_the_end(ring.arena.fd, ring.capacity_bytes);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_memory_equal(rsi_ring_at(&ring, 65536 - 4), "12345678", 8);
    assert_memory_equal(ring.base, "5678", 4);
    rsi_ring_fini(&ring);
}

static void write_to_a_read_only_ring(void *arg)
{
    struct rsi_ring *ring = arg;
    signal(SIGSEGV, SIG_DFL);
    ring->base[0] = 1;
}

static void a_read_only_ring_cannot_be_written(void **state)
{
    (void)state;
    struct rsi_ring writer;
    struct rsi_ring reader;
    struct rsi_ring_options options = {
        .name = "ring", .capacity_bytes = 8192, .node = RSI_NODE_ANY, .want_share = true};
    struct rsi_ring_fd_options fd_options = {
        .name = "reader", .capacity_bytes = 8192, .is_read_only = true};
    assert_int_equal(rsi_ring_init(&writer, &options, NULL), RSI_OK);
    assert_int_equal(rsi_ring_init_fd(&reader, writer.arena.fd, &fd_options, NULL), RSI_OK);
    writer.base[8191] = 9;
    assert_int_equal(reader.base[8191], 9);
    assert_int_equal(reader.base[8192 + 8191], 9);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO); /* a sanitizer tells of the write that is meant to fail */
        write_to_a_read_only_ring(&reader);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    rsi_ring_fini(&reader);
    rsi_ring_fini(&writer);
}

static void a_ring_of_another_size_or_without_seals_is_refused(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    struct rsi_ring writer;
    struct rsi_ring reader = {0};
    struct rsi_ring_options options = {
        .name = "ring", .capacity_bytes = 8192, .node = RSI_NODE_ANY, .want_share = true};
    struct rsi_ring_fd_options fd_options = {.name = "handed over", .capacity_bytes = 16384};
    assert_int_equal(rsi_ring_init(&writer, &options, NULL), RSI_OK);
    assert_int_equal(rsi_ring_init_fd(&reader, writer.arena.fd, &fd_options, &error),
                     RSI_E_INVALID);
    assert_string_equal(error.text,
                        "handed over: the memory file has 8192 bytes where 16384 were agreed");
    fd_options.capacity_bytes = 5000;
    assert_int_equal(rsi_ring_init_fd(&reader, writer.arena.fd, &fd_options, &error),
                     RSI_E_INVALID);
    rsi_ring_fini(&writer);

    int fd = memfd_create("ring-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, 8192), 0);
    fd_options.capacity_bytes = 8192;
    assert_int_equal(rsi_ring_init_fd(&reader, fd, &fd_options, &error), RSI_E_DENIED);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    assert_int_equal(rsi_ring_init_fd(&reader, fd, &fd_options, &error), RSI_OK);
    close(fd);
    reader.base[0] = 1;
    assert_int_equal(reader.base[8192], 1);
    rsi_ring_fini(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_span_is_contiguous_across_the_end),
        cmocka_unit_test(invalid_capacities_are_refused_with_the_next_valid_one),
        cmocka_unit_test(a_prefix_is_never_reached_by_positions),
        cmocka_unit_test(a_shared_ring_is_seen_by_another_process),
        cmocka_unit_test(a_read_only_ring_cannot_be_written),
        cmocka_unit_test(a_ring_of_another_size_or_without_seals_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
