/*
 * Hostile peers against a real broker: whatever a peer says, claims or leaves unsaid, it loses its
 * own link and nothing else. Beside each attack a writer and a reader count an exact stream, and
 * after all attacks the broker holds what it held before them.
 *
 * Design notes
 * - Where the broker has to end the link, the attack waits for it. Where it may live with what the
 *   peer does (it keeps silent within its time, it does not read), the peer leaves by itself; what
 *   counts then is the bystanders.
 * - The broker asks for a token, so that what must not be had without one can be tried.
 * - What the parsers of one transport refuse is tested beside them (tcp/stranger_test.c,
 *   shm/shm_hostile_test.c, dpdk/stranger_test.c, handshake_test.c); here it is the whole broker
 *   that has to survive it.
 * - Over dpdk nobody is told that a peer fell silent. Those that do are there from the beginning of
 *   the first round, whose end waits until the broker has ended them by itself.
 * - Two rounds of all attacks warm up what a broker makes once and keeps; then come the rounds that
 * are measured.
 */
#include "tests/fault/hostile.h"
#include "tests/fault/resources.h"
#include "tests/fault/stream_actors.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum {
    /* A link takes 70 KiB, and how many live at a time is chance; a round makes some 2,000. */
    TOPIC_COUNT_MAX = 64,
    WARM_ROUND_COUNT = 2,
    HEAP_GROWTH_BYTES = 4 << 20,
};

#define SECRET "a secret of some length"

/* ---- what attacks share ------------------------------------------------------------------------
 */

void siege_fill_randomly(struct siege *siege, uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (uint8_t)random_next(&siege->random);
    }
}

void expect_end(struct raw_peer *peer, Ringside__Control__Reason reason)
{
    Ringside__Control__Reason given = raw_await_end(peer);
    check(reason == RINGSIDE__CONTROL__REASON__REASON_NONE || given == reason,
          "%s lost its link for reason %d instead of %d", peer->name, (int)given, (int)reason);
    raw_close(peer);
}

void expect_any_end(struct raw_peer *peer)
{
    expect_end(peer, RINGSIDE__CONTROL__REASON__REASON_NONE);
}

void expect_alive(struct raw_peer *peer)
{
    check(!peer->has_ended, "%s lost its link", peer->name);
    raw_await_delivery(peer);
}

uint64_t siege_position(const struct siege *siege)
{
    return actor_result(&siege->reader, STREAM_RESULT_RECEIVED);
}

void siege_expect_traffic(const struct siege *siege, uint64_t position)
{
    await(siege_position(siege) > position, "the bystanders stand still at message %" PRIu64,
          position);
}

void siege_let_pass(const struct siege *siege, uint64_t message_count)
{
    siege_expect_traffic(siege, siege_position(siege) + message_count);
}

/* ---- the test ----------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    const char *transports; /* NULL: all */
    void (*run)(struct siege *siege);
} attacks[] = {
    {"garbage at every stage", "tcp shm", attack_garbage},
    {"garbage on the control lane", NULL, attack_control_garbage},
    {"a message without end", NULL, attack_endless_message},
    {"messages out of turn", NULL, attack_out_of_turn},
    {"a wrong version", NULL, attack_wrong_version},
    {"proofs guessed, replayed and doubled", NULL, attack_proofs},
    {"sessions of others", NULL, attack_sessions},
    {"sessions with false positions", NULL, attack_positions_of_resume},
    {"a session that never settles", NULL, attack_restlessness},
    {"stopping half-way", NULL, attack_slow_loris},
    {"a crowd that says nothing", NULL, attack_crowd},
    {"comings and goings", NULL, attack_comings_and_goings},
    {"huge records", NULL, attack_huge_records},
    {"unknown records", NULL, attack_unknown_records},
    {"batches where none can be", "tcp", attack_batches},
    {"forged frames", NULL, attack_frames},
    {"commit words", NULL, attack_commit_words},
    {"positions", NULL, attack_positions},
    {"a flood of requests", NULL, attack_request_flood},
    {"a flood of control messages", NULL, attack_control_flood},
    {"a flood of hellos", "tcp shm", attack_hello_flood},
    {"deafness", NULL, attack_deafness},
    {"deafness under block", NULL, attack_blocking},
    {"frames rewritten while they are checked", "shm", attack_rewriting},
    {"memory files", "shm", attack_memory_files},
    {"descriptors", "shm", attack_descriptors},
    {"sleep requests", "shm", attack_sleep_requests},
    {"hellos and opens of nobody", "dpdk", attack_forged_hellos},
    {"cookies of others", "dpdk", attack_cookies},
    {"an open a thousand times", "dpdk", attack_repeated_opens},
    {"frames that are no datagrams", "dpdk", attack_spoilt_frames},
    {"data where none can be", "dpdk", attack_data},
    {"data over data", "dpdk", attack_overlaps},
    {"data in crumbs", "dpdk", attack_crumbs},
    {"states that cannot be", "dpdk", attack_states},
    {"ranges that cannot be", "dpdk", attack_ranges},
    {"everything asked for again", "dpdk", attack_asking_again},
    {"probes", "dpdk", attack_probes},
    {"the names of others", "dpdk", attack_names},
    {"the addresses of others", "dpdk", attack_arp},
};

static void begin_siege(struct siege *siege)
{
    static struct stream_writing writing = {.prefix = "fault.steady",
                                            .stream_count = 2,
                                            .bytes_max = 256,
                                            .burst = 16,
                                            .rest_ns = 1000000};
    static struct stream_reading reading = {
        .subject = "fault.>", .policy = RINGSIDE_POLICY_BLOCK, .counted = "writer"};
    char path[PATH_BYTES];
    char token[PATH_BYTES + 32];
    write_file(test_path(path, "secret"), SECRET "\n");
    check(chmod(path, 0600) == 0, "chmod: %s", strerror(errno));
    snprintf(token, sizeof(token), "--tokens=siege=%s", path);
    const char *const flags[] = {"--log-bytes=1MiB",
                                 "--message-bytes-max=64KiB",
                                 "--publication-count-max=64",
                                 "--publisher-count-max=64",
                                 "--topic-count-max=64",
                                 "--subscription-count-max=64",
                                 "--unauthenticated-count-max=16",
                                 "--authenticate-timeout=1s",
                                 "--block-timeout=2s",
                                 "--session-grace=500ms",
                                 token,
                                 NULL};
    setenv("RINGSIDE_TOKEN_NAME", "siege", 1);
    setenv("RINGSIDE_TOKEN", SECRET, 1);
    resources_start_broker(&siege->broker, flags);
    siege->at =
        (struct raw_broker){.broker = &siege->broker, .token_name = "siege", .secret = SECRET};
    siege->random = options.seed;
    actor_start(&siege->reader, "reader", &siege->broker, stream_read_actor, &reading);
    actor_await_step(&siege->reader, STREAM_READY);
    actor_start(&siege->writer, "writer", &siege->broker, stream_write_actor, &writing);
    actor_await_step(&siege->writer, STREAM_READY);
}

static void end_siege(struct siege *siege)
{
    uint64_t written_count = stream_stop_writer(&siege->writer);
    stream_await_reader(&siege->reader, written_count);
    check(actor_result(&siege->reader, STREAM_RESULT_GAPS) == 0, "the bystander has gaps");
    tell("the bystanders: %" PRIu64 " messages, each once, in order", written_count);
    stream_leave(&siege->writer);
    stream_leave(&siege->reader);
    check(broker_stop(&siege->broker) == 0, "the broker did not stop cleanly");
}

/* What the bystanders alone need. */
static void await_quiet(const struct siege *siege)
{
    static const struct {
        const char *name;
        uint64_t level;
    } levels[] = {{"broker.unauthenticated", 0},
                  {"broker.sessions", 2},
                  {"broker.publications", 2},
                  {"broker.topics", 2}};
    for (unsigned i = 0; i < rsi_array_count(levels); i++) {
        await(broker_counter(&siege->broker, levels[i].name, NULL) == levels[i].level,
              "%s stays at %" PRIu64 ", wanted %" PRIu64, levels[i].name,
              broker_counter(&siege->broker, levels[i].name, NULL), levels[i].level);
    }
}

static void attack_with_all(struct siege *siege, bool is_told)
{
    for (unsigned i = 0; i < rsi_array_count(attacks); i++) {
        if (attacks[i].transports != NULL &&
            strstr(attacks[i].transports, options.transport) == NULL) {
            continue;
        }
        uint64_t start_ns = now_ns();
        uint64_t position = siege_position(siege);
        attacks[i].run(siege);
        siege_expect_traffic(siege, position);
        check(!program_has_ended(&siege->broker.program), "%s ended the broker", attacks[i].name);
        if (is_told || now_ns() - start_ns > 5 * SECOND_NS) {
            tell("%s: %.0f ms", attacks[i].name, (double)(now_ns() - start_ns) / 1e6);
        }
    }
    await_quiet(siege);
}

static void test_attacks(void)
{
    static struct siege siege;
    struct resources before;
    struct resources after;
    begin_siege(&siege);
    if (is_transport("dpdk")) {
        silence_begin(&siege);
    }
    attack_with_all(&siege, true);
    if (is_transport("dpdk")) {
        silence_end();
    }
    for (uint64_t round = 1; round < scaled(WARM_ROUND_COUNT, 1); round++) {
        attack_with_all(&siege, false);
    }
    await_quiet(&siege);
    resources_use_topics(&siege.broker, TOPIC_COUNT_MAX);
    await_quiet(&siege);
    resources_settle(&before, &siege.broker);
    resources_tell(&before, "before");
    uint64_t count = options.count != 0 ? options.count : 1;
    for (uint64_t round = 0; round < count; round++) {
        attack_with_all(&siege, false);
    }
    resources_await(&after, &siege.broker, &before, HEAP_GROWTH_BYTES);
    resources_tell(&after, "after");
    if (is_transport("shm")) {
        tell("%u of 20 peers were caught rewriting their frames", siege.caught_count);
    }
    end_siege(&siege);
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"attacks", test_attacks, "tcp shm dpdk"},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
