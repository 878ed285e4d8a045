/*
 * Over a wire that can be cut: a veth pair between two network namespaces. Root only.
 *
 * Design notes
 * - Both namespaces are this process's own and end with it, and the pair with them: nothing is
 *   left behind, however the test ends. A socket stays in the namespace in which it was made, so
 *   one thread serves both ends.
 * - A veth hands a packet to the receiving side of the same kernel, which copies bytes that were
 *   sent by reference, as loopback does. On a cut wire nothing is received: there the bytes stay
 *   in the kernel by reference, which is what closing has to cope with.
 */
#include "core/clock.h"
#include "transport/tcp/tcp_fixture.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RING_BYTES = 1 << 20, BATCH_BYTES = 60000 };

#define ALIVE_DEADLINE_NS UINT64_C(60000000000)

static int writer_namespace_fd = -1;
static int reader_namespace_fd = -1;

static int new_namespace(void)
{
    if (unshare(CLONE_NEWNET) != 0) {
        return -1;
    }
    return open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

static void enter(int namespace_fd)
{
    assert_int_equal(setns(namespace_fd, CLONE_NEWNET), 0);
}

static void run(const char *command)
{
    if (system(command) != 0) {
        fail_msg("failed: %s", command);
    }
}

static int make_wire(void **state)
{
    (void)state;
    reader_namespace_fd = new_namespace();
    writer_namespace_fd = new_namespace();
    if (reader_namespace_fd < 0 || writer_namespace_fd < 0) {
        return -1;
    }
    char command[256];
    snprintf(command, sizeof(command),
             "ip link add va type veth peer name vb netns /proc/%d/fd/%d && ip link set lo up && "
             "ip addr add 10.77.0.1/24 dev va && ip link set va up",
             getpid(), reader_namespace_fd);
    run(command);
    enter(reader_namespace_fd);
    run("ip addr add 10.77.0.2/24 dev vb && ip link set vb up && ip link set lo up");
    return 0;
}

/* A link from the writer's namespace to the reader's. */
static void open_over_wire(struct fixture *fixture)
{
    struct rsi_domain_options options = {.node = -1};
    enter(reader_namespace_fd);
    run("ip link set vb up");
    fixture_init(fixture, "10.77.0.2", &options);
    enter(writer_namespace_fd);
    fixture_open(fixture);
    fixture_attach(fixture, RING_BYTES);
}

static void cut_wire(void)
{
    enter(reader_namespace_fd);
    run("ip link set vb down");
}

static uint64_t count_of(const _Atomic uint64_t *counter)
{
    return rsi_load_relaxed(counter);
}

/* The cut writer's side alone. */
static void pump_writer(struct fixture *fixture)
{
    uint64_t now_ns = rsi_clock_now_ns();
    rsi_poller_poll(fixture->client_poller, now_ns);
    (void)rsi_tcp_transport.poller_arm(fixture->client_poller);
    if (fixture->client != NULL) {
        rsi_tcp_transport.link_poll_control(fixture->client, now_ns);
    }
}

static void large_batches_arrive_and_every_send_completes(void **state)
{
    (void)state;
    struct fixture fixture;
    open_over_wire(&fixture);
    struct rsi_tcp_link *tcp = rsi_tcp_link(fixture.client);
    assert_non_null(tcp->zerocopy);
    for (uint32_t i = 0; i < 200; i++) {
        tcp->zerocopy->is_useless = false; /* asks on, whatever the kernel said */
        assert_true(fixture_place(fixture.client, BATCH_BYTES, i));
        rsi_status_t status = rsi_link_flush(fixture.client);
        assert_true(status == RSI_OK || status == RSI_WOULD_BLOCK);
        fixture_pump_until(&fixture, fixture_take(fixture.server, BATCH_BYTES, i));
    }
    fixture_pump_until(&fixture, rsi_tcp_zerocopy_count(tcp->zerocopy) == 0);
    print_message("veth: %llu sends by reference, %llu of them copied by the kernel\n",
                  (unsigned long long)count_of(&fixture.client->stats.zerocopy_sends),
                  (unsigned long long)count_of(&fixture.client->stats.zerocopy_copied));
    assert_true(count_of(&fixture.client->stats.zerocopy_sends) >= 200);
    assert_true(count_of(&fixture.client->stats.zerocopy_copied) <=
                count_of(&fixture.client->stats.zerocopy_sends));
    rsi_link_request_wake(fixture.client, UINT64_MAX, UINT64_MAX, fixture.client->placed_pos);
    fixture_pump_until(&fixture, fixture.client->peer_consumed_pos == fixture.client->placed_pos);
    fixture_fini(&fixture);
}

static void references_on_a_cut_wire_come_back_when_the_link_is_closed(void **state)
{
    (void)state;
    struct fixture fixture;
    open_over_wire(&fixture);
    struct rsi_tcp_link *tcp = rsi_tcp_link(fixture.client);
    cut_wire();
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(fixture_place(fixture.client, BATCH_BYTES, i));
        rsi_status_t status = rsi_link_flush(fixture.client);
        assert_true(status == RSI_OK || status == RSI_WOULD_BLOCK);
    }
    assert_true(rsi_tcp_zerocopy_count(tcp->zerocopy) > 0);
    rsi_tcp_transport.link_close(fixture.client);
    uint64_t end_ns = rsi_clock_now_ns() + FIXTURE_DEADLINE_NS;
    while (rsi_link_state(fixture.client) != RSI_LINK_CLOSED) {
        assert_true(rsi_clock_now_ns() < end_ns);
        pump_writer(&fixture);
    }
    assert_non_null(tcp->zerocopy); /* not given up: every send was completed by the abort */
    assert_int_equal(rsi_tcp_zerocopy_count(tcp->zerocopy), 0);
    assert_int_equal(count_of(&fixture.client->stats.zerocopy_copied), 0);
    fixture_fini(&fixture);
}

/*
 * Two writers with bytes on their way: the wire of one is cut, the reader of the other is stopped
 * and its window is shut. The first is lost, the second is not.
 */
static void a_cut_wire_is_noticed_and_a_stopped_reader_is_not_dead(void **state)
{
    (void)state;
    struct fixture cut;
    struct fixture stopped;
    open_over_wire(&cut);
    struct rsi_domain_options options = {.node = -1};
    fixture_init(&stopped, "127.0.0.1", &options);
    fixture_open(&stopped);
    fixture_attach(&stopped, RING_BYTES);
    int bytes = 16384;
    setsockopt(rsi_tcp_link(stopped.client)->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    setsockopt(rsi_tcp_link(stopped.server)->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    assert_true(fixture_place(stopped.client, RING_BYTES / 2, 1));
    assert_int_equal(rsi_link_flush(stopped.client), RSI_WOULD_BLOCK);

    cut_wire();
    assert_true(fixture_place(cut.client, 100, 1));
    assert_int_equal(rsi_link_flush(cut.client), RSI_OK);
    uint64_t end_ns = rsi_clock_now_ns() + ALIVE_DEADLINE_NS;
    while (rsi_link_state(cut.client) != RSI_LINK_LOST) {
        assert_true(rsi_clock_now_ns() < end_ns);
        pump_writer(&cut);
        pump_writer(&stopped);
    }
    print_message("%s\n", cut.client->error.text);
    assert_int_equal(rsi_link_state(stopped.client), RSI_LINK_ATTACHED);
    fixture_pump_until(&stopped, fixture_take(stopped.server, RING_BYTES / 2, 1));
    fixture_fini(&stopped);
    fixture_fini(&cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_batches_arrive_and_every_send_completes),
        cmocka_unit_test(references_on_a_cut_wire_come_back_when_the_link_is_closed),
        cmocka_unit_test(a_cut_wire_is_noticed_and_a_stopped_reader_is_not_dead),
    };
    if (geteuid() != 0) {
        print_message("needs root: makes network namespaces and a veth pair\n");
        return 77; /* what CMake takes for "skipped" */
    }
    return cmocka_run_group_tests(tests, make_wire, NULL);
}
