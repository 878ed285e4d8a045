/*
 * What only a real device can show about the rdma transport. Run it where two devices are joined
 * by a wire: tests/vm/run -- BUILD/bin/rdma_machine_test
 *
 * Design notes
 * - What holds on any devices is in pair_cases.c and runs here too.
 * - Nothing here depends on speed; time-outs are for hangs only.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <grp.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/histogram.h"
#include "core/log.h"
#include "transport/rdma/pair_cases.h"

#define RING_BYTES    (UINT64_C(1) << 20)
#define NOBODY        65534
#define STOCK_MEMLOCK (UINT64_C(8) << 20)

static const struct rsi_transport *const rdma = &rsi_rdma_transport;

static uint64_t stat_of(_Atomic uint64_t *counter)
{
    return rsi_load_relaxed(counter);
}

/* ---- what the devices hold ------------------------------------------------------------------ */

/* Lines of "rdma resource show", which counts what the devices hold. */
static void read_resources(char *text, size_t text_bytes)
{
    FILE *pipe = popen("rdma resource show", "r");
    assert_non_null(pipe);
    size_t bytes = fread(text, 1, text_bytes - 1, pipe);
    text[bytes] = 0;
    assert_int_equal(pclose(pipe), 0);
}

static void test_connections_leave_nothing_behind(void **state)
{
    (void)state;
    char before[1024];
    char after[1024];
    struct pair pair;
    pair_open(&pair, RING_BYTES); /* devices and queues are made by the first */
    pair_hang_up(&pair);
    read_resources(before, sizeof(before));
    for (int i = 0; i < 100; i++) {
        pair_dial(&pair);
        pair_attach(&pair, RSI_RING_BYTES_MIN);
        pair_send_and_take(&pair, pair.client.link, pair.server.link, 3, pair_small_size);
        pair_hang_up(&pair);
    }
    read_resources(after, sizeof(after));
    print_message("%s", after);
    assert_string_equal(before, after);
    assert_int_equal(rsi_rdma_poller_of(pair.client.poller)->stale_count, 0);
    assert_int_equal(rsi_rdma_poller_of(pair.server.poller)->stale_count, 0);
    pair_close(&pair);
}

/* ---- memory limits -------------------------------------------------------------------------- */

static void become_nobody_with_the_stock_limit(void)
{
    struct rlimit limit = {.rlim_cur = STOCK_MEMLOCK, .rlim_max = STOCK_MEMLOCK};
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    assert_int_equal(setgroups(0, NULL), 0);
    assert_int_equal(setgid(NOBODY), 0);
    assert_int_equal(setuid(NOBODY), 0);
}

/* Both ends live in this process here, so each has rings of half the default: together they pin
 * what one client with the defaults pins. */
static void test_stock_limit_is_enough_for_the_defaults(void **state)
{
    (void)state;
    become_nobody_with_the_stock_limit();
    struct pair pair;
    pair_open(&pair, RSI_RING_BYTES_DEFAULT / 2);
    uint64_t registered_bytes = rsi_rdma_domain_of(pair.client.domain)->registered_bytes +
                                rsi_rdma_domain_of(pair.server.domain)->registered_bytes;
    print_message("registered: %" PRIu64 " KiB\n", registered_bytes / 1024);
    assert_true(registered_bytes >= 2 * RSI_RING_BYTES_DEFAULT);
    pair_send_and_take(&pair, pair.client.link, pair.server.link, 100, pair_small_size);
    pair_close(&pair);
}

static void test_too_large_rings_name_need_limit_and_mend(void **state)
{
    (void)state;
    struct pair pair;
    pair_listen(&pair);
    pair_dial(&pair);
    struct rsi_link_rings rings = {.out_bytes = 64 << 20, .in_bytes = 64 << 20};
    struct rsi_error error = {0};
    assert_int_equal(rdma->link_attach(pair.client.link, &rings, &error), RSI_E_NO_MEMORY_LOCK);
    print_message("too large: %s\n", error.text);
    assert_non_null(strstr(error.text, "65540 KiB"));
    assert_non_null(strstr(error.text, "8192 KiB"));
    assert_non_null(strstr(error.text, "LimitMEMLOCK="));
    /* The link lives, and takes rings that fit. */
    assert_int_equal(rsi_link_state(pair.client.link), RSI_LINK_OPEN);
    pair_attach(&pair, RSI_RING_BYTES_MIN);
    pair_close(&pair);
}

/* ---- a bad wire ----------------------------------------------------------------------------- */

/* Changes what the wire does; "" mends it. Only in the machine: this would disturb a real
 * network. */
static int set_wire(const char *what)
{
    char command[128];
    if (what[0] == 0) {
        snprintf(command, sizeof(command), "tc qdisc del dev va root");
    } else {
        snprintf(command, sizeof(command), "tc qdisc add dev va root netem %s", what);
    }
    return system(command);
}

static int mend_wire(void **state)
{
    (void)state;
    return set_wire("");
}

static void test_lossy_wire_delivers_intact(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    assert_int_equal(set_wire("loss 1%"), 0);
    pair_send_and_take(&pair, pair.client.link, pair.server.link, 2000, pair_small_size);
    pair_send_and_take(&pair, pair.server.link, pair.client.link, 100, pair_mixed_size);
    pair_close(&pair);
}

static void test_cut_wire_is_noticed(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    assert_int_equal(set_wire("loss 100%"), 0);
    assert_true(pair_put(pair.server.link, 0, 64));
    assert_int_equal(rsi_link_flush(pair.server.link), RSI_OK);
    PAIR_WAIT(&pair, rsi_link_state(pair.server.link) == RSI_LINK_LOST);
    print_message("cut wire: %s\n", pair.server.link->error.text);
    assert_int_equal(pair.server.link->error.status, RSI_E_LINK_LOST);
    assert_non_null(strstr(pair.server.link->error.text, "does not answer"));
    pair_close(&pair);
}

static void test_cut_of_an_idle_link_is_noticed(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    pair_send_and_take(&pair, pair.client.link, pair.server.link, 10, pair_small_size);
    uint64_t quiet_ns = rsi_clock_now_ns() + 1000 * RSI_RDMA_WORDS_NS;
    PAIR_WAIT(&pair, rsi_clock_now_ns() > quiet_ns);
    uint64_t begin_ns = rsi_clock_now_ns();
    assert_int_equal(set_wire("loss 100%"), 0);
    pair_wait_state(&pair, RSI_LINK_LOST);
    print_message("cut of an idle link: noticed by both after %" PRIu64 " ms\n",
                  (rsi_clock_now_ns() - begin_ns) / 1000000);
    assert_non_null(strstr(pair.server.link->error.text, "does not answer"));
    assert_false(pair.server.link->peer_has_ended);
    assert_false(pair.client.link->peer_has_ended);
    pair_close(&pair);
}

#define VICTIM_MESSAGES 10

/* Connects to the URL that comes through `urls`, sends, and goes on until it is killed. */
static void be_the_victim(int urls)
{
    struct pair pair = {0};
    char text[320] = {0};
    if (read(urls, text, sizeof(text) - 1) <= 0) {
        _exit(1);
    }
    pair_client_create(&pair);
    struct rsi_url url;
    if (rsi_url_parse(&url, text, NULL) != RSI_OK ||
        rdma->link_dial(&pair.client.link, pair.client.poller, &url, NULL) != RSI_OK) {
        _exit(1);
    }
    uint64_t sequence = 0;
    for (;;) {
        pair_drive(&pair);
        enum rsi_link_state state = rsi_link_state(pair.client.link);
        struct rsi_link_rings rings = {.out_bytes = RSI_RING_BYTES_MIN};
        if (state == RSI_LINK_OPEN && rdma->link_attach(pair.client.link, &rings, NULL) != RSI_OK) {
            _exit(1);
        }
        if (state == RSI_LINK_ATTACHED && sequence < VICTIM_MESSAGES) {
            (void)pair_put(pair.client.link, sequence++, 64);
            (void)rsi_link_flush(pair.client.link);
        }
        if (getppid() == 1) {
            _exit(1);
        }
    }
}

struct victim {
    struct pair pair; /* the server's end, ATTACHED; the client is the victim's process */
    pid_t process;
    int urls[2];
};

/* Until the victim's messages are there. */
static void victim_create(struct victim *victim)
{
    assert_int_equal(pipe(victim->urls), 0);
    victim->process = fork(); /* nothing of verbs was used in this process yet */
    assert_true(victim->process >= 0);
    if (victim->process == 0) {
        be_the_victim(victim->urls[0]);
    }
    struct pair *pair = &victim->pair;
    pair_listen(pair);
    const char *url = rdma->listener_url(pair->listener);
    assert_int_equal(write(victim->urls[1], url, strlen(url)), strlen(url));
    PAIR_WAIT(pair,
              pair->server.link != NULL && rsi_link_state(pair->server.link) == RSI_LINK_OPEN);
    struct rsi_link_rings rings = {.in_bytes = RSI_RING_BYTES_MIN};
    assert_int_equal(rdma->link_attach(pair->server.link, &rings, NULL), RSI_OK);
    uint64_t bytes = VICTIM_MESSAGES * rsi_frame_bytes(0, 64);
    PAIR_WAIT(pair, pair->server.link->arrived_pos == bytes);
}

static void victim_kill(struct victim *victim)
{
    assert_int_equal(kill(victim->process, SIGKILL), 0);
    assert_int_equal(waitpid(victim->process, NULL, 0), victim->process);
    close(victim->urls[0]);
    close(victim->urls[1]);
}

/* A stopped process is not dead, however long it is stopped: its device answers for it. A killed
 * one is, and has ended. One victim for both, because only the first of a process can be forked. */
static void test_peer_process_stops_and_dies(void **state)
{
    (void)state;
    static struct victim victim;
    victim_create(&victim);
    struct rsi_link *link = victim.pair.server.link;
    const char *seconds = getenv("RINGSIDE_TEST_STOP_SECONDS");
    uint64_t stop_ns = (seconds != NULL ? strtoull(seconds, NULL, 10) : 10) * UINT64_C(1000000000);
    assert_int_equal(kill(victim.process, SIGSTOP), 0);
    uint64_t sends = stat_of(&link->stats.sends);
    uint64_t end_ns = rsi_clock_now_ns() + stop_ns;
    while (rsi_clock_now_ns() < end_ns) {
        pair_drive(&victim.pair);
        assert_int_equal(rsi_link_state(link), RSI_LINK_ATTACHED);
    }
    print_message("stopped for %" PRIu64 " s: %" PRIu64 " probes were answered\n",
                  stop_ns / 1000000000, stat_of(&link->stats.sends) - sends);
    assert_true(stat_of(&link->stats.sends) > sends);
    assert_int_equal(kill(victim.process, SIGCONT), 0);
    victim_kill(&victim);
    PAIR_WAIT(&victim.pair, rsi_link_state(link) == RSI_LINK_LOST);
    print_message("peer killed: %s\n", link->error.text);
    assert_int_equal(link->error.status, RSI_E_LINK_LOST);
    assert_true(link->peer_has_ended);
    uint64_t taken = 0;
    assert_int_equal(pair_take(link, &taken), VICTIM_MESSAGES);
    pair_close(&victim.pair);
}

/* ---- latency -------------------------------------------------------------------------------- */

#define PING_COUNT 3000

struct ponger {
    struct pair_end *end;
    _Atomic bool should_stop;
};

static void *pong(void *arg)
{
    struct ponger *ponger = arg;
    struct rsi_link *link = ponger->end->link;
    uint64_t next = 0;
    while (!rsi_load_relaxed(&ponger->should_stop)) {
        (void)rsi_poller_poll(ponger->end->poller, rsi_clock_now_ns());
        while (next < UINT64_MAX && link->consumed_pos < link->arrived_pos) {
            uint32_t count = pair_take(link, &next);
            for (uint32_t i = 0; i < count; i++) {
                (void)pair_put(link, next - count + i, 64);
            }
            (void)rsi_link_flush_clocked(link);
        }
    }
    return NULL;
}

/* Prints; asserts nothing about speed. */
static void test_ping_pong(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    struct ponger ponger = {.end = &pair.server};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, pong, &ponger), 0);
    struct rsi_histogram *histogram = calloc(1, sizeof(*histogram));
    assert_non_null(histogram);
    struct rsi_link *link = pair.client.link;
    uint64_t next = 0;
    uint64_t deadline_ns = rsi_clock_now_ns() + 3 * PAIR_DEADLINE_NS;
    for (uint64_t i = 0; i < PING_COUNT; i++) {
        uint64_t start_ns = rsi_clock_now_ns();
        assert_true(pair_put(link, i, 64));
        assert_false(rsi_failed(rsi_link_flush(link)));
        while (next == i) {
            (void)rsi_poller_poll(pair.client.poller, rsi_clock_now_ns());
            (void)pair_take(link, &next);
            assert_true(rsi_clock_now_ns() < deadline_ns);
        }
        rsi_histogram_record(histogram, (rsi_clock_now_ns() - start_ns) / 2);
    }
    print_message("64 bytes one way, polled: p50 %" PRIu64 " ns, p99 %" PRIu64
                  " ns; %.2f work requests per message\n",
                  rsi_histogram_percentile(histogram, 50), rsi_histogram_percentile(histogram, 99),
                  (double)stat_of(&link->stats.sends) / PING_COUNT);
    rsi_store_relaxed(&ponger.should_stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    free(histogram);
    pair_close(&pair);
}

static int run_latency(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ping_pong)};
    return cmocka_run_group_tests_name("rdma latency", tests, NULL, NULL);
}

/* ---- programs ------------------------------------------------------------------------------- */

/* A process that uses verbs must not fork any more, and one that gave up root may no longer use
 * contexts opened before: so each of these runs in a child made before anything else. */
static int run_in_child(int (*run)(void))
{
    (void)fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        exit(run()); /* the leak checker runs at exit */
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        return 1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int run_as_nobody(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stock_limit_is_enough_for_the_defaults),
        cmocka_unit_test(test_too_large_rings_name_need_limit_and_mend),
    };
    return cmocka_run_group_tests_name("rdma as nobody", tests, NULL, NULL);
}

static int run_as_root(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connections_leave_nothing_behind),
    };
    return cmocka_run_group_tests_name("rdma", pair_tests, NULL, NULL) +
           cmocka_run_group_tests_name("rdma on devices", tests, NULL, NULL);
}

static int run_on_a_bad_wire(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peer_process_stops_and_dies),
        cmocka_unit_test_teardown(test_lossy_wire_delivers_intact, mend_wire),
        cmocka_unit_test_teardown(test_cut_wire_is_noticed, mend_wire),
        cmocka_unit_test_teardown(test_cut_of_an_idle_link_is_noticed, mend_wire),
    };
    return cmocka_run_group_tests_name("rdma on a bad wire", tests, NULL, NULL);
}

int main(void)
{
    rsi_log_set_level(RSI_LOG_WARNING);
    int failed_count = run_in_child(run_as_nobody);
    failed_count += run_in_child(run_as_root);
    failed_count += run_in_child(run_on_a_bad_wire);
    failed_count += run_in_child(run_latency);
    return failed_count != 0;
}
