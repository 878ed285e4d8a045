/*
 * Networks that lose datagrams, bring them in disorder, twice or spoilt: every message comes once,
 * in order and as it was written, and what is sent again is less than three times what was lost.
 *
 * Design notes
 * - Lost and sent again are counted in the same unit, ring bytes: a header is neither. Lost is what
 *   the network says, sent again what the links of broker and clients say; nobody guesses.
 * - A link that ends takes its count along, so none may.
 */
#include "tests/fault/stream_actors.h"

#include <signal.h>
#include <stdlib.h>

enum { MESSAGE_COUNT = 10000000, TIMES_SENT_AGAIN_MAX = 3 };

struct traffic {
    struct broker broker;
    struct actor reader;
    struct actor writer;
};

static void begin_traffic(struct traffic *traffic)
{
    static struct stream_reading reading = {.subject = "loss.>", .policy = RINGSIDE_POLICY_BLOCK};
    static struct stream_writing writing = {
        .prefix = "loss", .stream_count = 4, .bytes_max = 200, .burst = 64};
    static const char *const flags[] = {"--message-bytes-max=64KiB", "--block-timeout=60s", NULL};
    broker_start(&traffic->broker, flags);
    actor_start(&traffic->reader, "reader", &traffic->broker, stream_read_actor, &reading);
    actor_await_step(&traffic->reader, STREAM_READY);
    actor_start(&traffic->writer, "writer", &traffic->broker, stream_write_actor, &writing);
    actor_await_step(&traffic->writer, STREAM_READY);
}

/* Until all that were written have come. */
static void pass_messages(struct traffic *traffic)
{
    uint64_t start_ns = now_ns();
    actor_await_progress(&traffic->writer, scaled(MESSAGE_COUNT, 10000));
    uint64_t written = stream_stop_writer(&traffic->writer);
    stream_await_reader(&traffic->reader, written);
    check(actor_result(&traffic->reader, STREAM_RESULT_RECEIVED) == written,
          "%" PRIu64 " messages were written, but %" PRIu64 " received", written,
          actor_result(&traffic->reader, STREAM_RESULT_RECEIVED));
    tell("%" PRIu64 " messages in %.1f s", written, (double)(now_ns() - start_ns) / 1e9);
}

static uint64_t resent_bytes(const struct traffic *traffic)
{
    const struct actor *clients[] = {&traffic->reader, &traffic->writer};
    broker_await_counter(&traffic->broker, "broker.refreshed_ns", NULL, now_ns());
    uint64_t sum = broker_counter(&traffic->broker, "link.resent_bytes", NULL);
    for (size_t i = 0; i < rsi_array_count(clients); i++) {
        check(actor_result(clients[i], STREAM_RESULT_SUSPENDED) == 0, "%s lost its link: %s",
              clients[i]->name, clients[i]->shared->text);
        sum += actor_result(clients[i], STREAM_RESULT_RESENT_BYTES);
    }
    return sum;
}

static void end_traffic(struct traffic *traffic)
{
    stream_leave(&traffic->writer);
    stream_leave(&traffic->reader);
    check(broker_stop(&traffic->broker) == 0, "the broker did not stop cleanly");
}

static void check_cost(uint64_t resent, uint64_t lost)
{
    check(lost > 0, "nothing was lost");
    tell("%" PRIu64 " bytes were lost, %" PRIu64 " sent again: %.2f times", lost, resent,
         (double)resent / (double)lost);
    check(resent < TIMES_SENT_AGAIN_MAX * lost, "too much was sent again");
    /* Else the two do not count the same. */
    check(resent >= lost / 2, "too little was sent again for all to have come");
}

/* ---- loss on the wire itself -------------------------------------------------------------------
 */

static void lossy_start(struct program *lossy, const char *ppm)
{
    char path[PATH_BYTES];
    char text[64];
    const char *arguments[] = {"lossy", getenv("NETNS_BRIDGE"), ppm, NULL};
    check(test_library(path, "lossy"),
          "%s is not built: it needs clang and libbpf "
          "(deploy/install-packages test)",
          path);
    program_start(lossy, "lossy", arguments, true);
    program_await_ready(lossy, text, sizeof(text));
}

/* What it lost, in ring bytes. */
static uint64_t lossy_stop(struct program *lossy)
{
    uint64_t datagrams;
    uint64_t bytes;
    uint64_t ring_bytes;
    program_signal(lossy, SIGTERM);
    check(program_wait(lossy) == 0, "lossy failed");
    const char *text = read_file(lossy->output_path);
    check(sscanf(text, "datagrams=%" SCNu64 " bytes=%" SCNu64 " ring_bytes=%" SCNu64, &datagrams,
                 &bytes, &ring_bytes) == 3,
          "lossy wrote: %s", text);
    tell("the wire lost %" PRIu64 " datagrams, %" PRIu64 " bytes of frames", datagrams, bytes);
    return ring_bytes;
}

static void pass_wire(const char *ppm)
{
    struct traffic traffic = {0};
    struct program lossy;
    begin_traffic(&traffic);
    lossy_start(&lossy, ppm);
    pass_messages(&traffic);
    uint64_t resent = resent_bytes(&traffic);
    check_cost(resent, lossy_stop(&lossy));
    end_traffic(&traffic);
}

static void test_wire_one_in_1000(void)
{
    pass_wire("1000");
}

static void test_wire_one_in_100(void)
{
    pass_wire("10000");
}

static void test_wire_one_in_20(void)
{
    pass_wire("50000");
}

/* ---- loss and more by a seed -------------------------------------------------------------------
 */

static void pass_through(const char *faults)
{
    struct traffic traffic = {0};
    setenv("RINGSIDE_DPDK_FAULTS", faults, 1);
    begin_traffic(&traffic);
    pass_messages(&traffic);
    uint64_t resent = resent_bytes(&traffic);
    tell("%" PRIu64 " frames were dropped, %" PRIu64 " spoilt, %" PRIu64 " came twice, %" PRIu64
         " in disorder",
         fault_counter("fault.drop"), fault_counter("fault.corrupt"),
         fault_counter("fault.duplicate"), fault_counter("fault.reorder"));
    check_cost(resent, fault_counter("fault.lost_bytes"));
    end_traffic(&traffic);
}

static void test_seed_one_in_1000(void)
{
    pass_through("drop=1000,corrupt=100,duplicate=1000,reorder=1000");
}

static void test_seed_one_in_100(void)
{
    pass_through("drop=10000,corrupt=1000,duplicate=10000,reorder=10000");
}

static void test_seed_one_in_20(void)
{
    pass_through("drop=50000,corrupt=5000,duplicate=50000,reorder=50000");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"seed, one in 1000", test_seed_one_in_1000, "dpdk"},
        {"seed, one in 100", test_seed_one_in_100, "dpdk"},
        {"seed, one in 20", test_seed_one_in_20, "dpdk"},
        {"wire, one in 1000", test_wire_one_in_1000, "dpdk"},
        {"wire, one in 100", test_wire_one_in_100, "dpdk"},
        {"wire, one in 20", test_wire_one_in_20, "dpdk"},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
