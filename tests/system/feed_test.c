/*
 * A market-data feed replayed to ten subscribers with different wildcards: each compares what it
 * receives with the file, message by message (ringside verify).
 *
 * Design notes
 * - The feed is generated, or a file that --file names; captures are written by the test itself.
 * - A pattern that matches nothing of a file cannot be compared, so patterns for a given file are
 *   made of its template: each depth that it has, beginning with a star or with its first token.
 */
#include "tests/system/harness.h"

#include <errno.h>
#include <stdlib.h>

enum { VERIFIER_COUNT = 10, SUBJECT_BYTES = 256, PACKET_COUNT = 3000 };

struct replay {
    const char *path;
    const char *feed_template;
    const char *feed_else;
    const char *patterns[VERIFIER_COUNT];
    const char *pace; /* "--flat-out" or "--speed=1" */
};

static size_t add_common(const char **list, const struct replay *replay, const char *url)
{
    static char else_flag[SUBJECT_BYTES + 16];
    size_t count = 0;
    while (list[count] != NULL)
        count++;
    list[count++] = "--url";
    list[count++] = url;
    list[count++] = "--timeout=60s";
    list[count++] = "--template";
    list[count++] = replay->feed_template;
    if (is_transport("rdma") && getenv("RINGSIDE_VM_ADDR_B") != NULL) {
        list[count++] = "--bind";
        list[count++] = getenv("RINGSIDE_VM_ADDR_B");
    }
    if (replay->feed_else != NULL) {
        snprintf(else_flag, sizeof(else_flag), "--else=%s", replay->feed_else);
        list[count++] = else_flag;
    }
    return count;
}

static void start_verifier(struct program *program, const struct replay *replay,
                           const struct broker *broker, size_t index)
{
    char name[32];
    char idle[32];
    const char *list[ARGUMENT_COUNT_MAX] = {"ringside", "verify", "--file", replay->path};
    snprintf(name, sizeof(name), "verify-%zu", index);
    snprintf(idle, sizeof(idle), "--idle-timeout=%us", (unsigned)(hang_ns() / SECOND_NS));
    size_t count = add_common(list, replay, broker->url);
    list[count++] = idle;
    list[count++] = replay->patterns[index];
    program_start(program, name, list, true);
}

/* The line that says how it went. */
static void tell_result(const struct program *program, const char *word, bool is_short)
{
    const char *text = read_file(program->output_path);
    const char *at = strstr(text, word);
    if (at != NULL)
        tell("%s: %.*s", program->name, (int)strcspn(at, is_short ? ";\n" : "\n"), at);
}

static void run_replay(const struct replay *replay, const char *const *broker_flags)
{
    struct broker broker;
    struct program verifiers[VERIFIER_COUNT];
    struct program player;
    char ready[64];
    broker_start(&broker, broker_flags);
    for (size_t index = 0; index < VERIFIER_COUNT; index++)
        start_verifier(&verifiers[index], replay, &broker, index);
    for (size_t index = 0; index < VERIFIER_COUNT; index++)
        program_await_ready(&verifiers[index], ready, sizeof(ready));

    const char *list[ARGUMENT_COUNT_MAX] = {"ringside", "replay", replay->path};
    size_t count = add_common(list, replay, broker.url);
    list[count++] = replay->pace;
    uint64_t start_ns = now_ns();
    program_start(&player, "replay", list, false);
    int player_code = -1;
    int codes[VERIFIER_COUNT];
    /* At recorded pace this lasts as long as the recording: what hangs is found by the verifiers.
     */
    while (!program_has_ended(&player))
        nap();
    player_code = program_wait(&player);
    for (size_t index = 0; index < VERIFIER_COUNT; index++)
        codes[index] = program_wait(&verifiers[index]);
    tell("%s %s: %.2f s", replay->feed_template, replay->pace, (double)(now_ns() - start_ns) / 1e9);
    tell_result(&player, "published", false);
    for (size_t index = 0; index < VERIFIER_COUNT; index++) {
        tell_result(&verifiers[index], codes[index] == 0 ? "ok " : "FAILED ", codes[index] == 0);
        check(codes[index] == 0, "%s with pattern %s ended with %d", verifiers[index].name,
              replay->patterns[index], codes[index]);
    }
    check(player_code == 0, "replay ended with %d", player_code);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

/* ---- a generated feed --------------------------------------------------------------------------
 */

static void generate(char *path, uint64_t message_count, const char *rate)
{
    static char output[TEXT_BYTES];
    char messages[32];
    char seed[40];
    snprintf(messages, sizeof(messages), "--messages=%" PRIu64, message_count);
    snprintf(seed, sizeof(seed), "--seed=%" PRIu64, options.seed);
    test_path(path, "feed.jsonl");
    const char *const list[] = {"ringside", "feed", "--bursts", "--symbols=20", messages,
                                seed,       rate,   "--output", path,           NULL};
    check(run_command(list, output, sizeof(output)) == 0, "feed: %s", output);
}

/* Streams are AAAA@trade and so on: one token of md.feed.*, and two in the second template. */
static const char *const generated_patterns[VERIFIER_COUNT] = {
    ">",        "md.>",   "md.feed.>", "md.feed.*", "md.*.*",
    "*.feed.*", "md.*.>", "*.>",       "*.*.*",     "*.feed.>",
};

static void replay_generated(uint64_t message_count, const char *rate, const char *pace)
{
    char path[PATH_BYTES];
    struct replay replay = {.path = path, .feed_template = "md.feed.{/stream}", .pace = pace};
    memcpy(replay.patterns, generated_patterns, sizeof(replay.patterns));
    generate(path, message_count, rate);
    run_replay(&replay, NULL);
}

static void test_flat_out(void)
{
    replay_generated(scaled(100000, 1000), "--rate=10k", "--flat-out");
}

/* Three seconds of feed time. */
static void test_recorded_pace(void)
{
    uint64_t count = scaled(9000, 300);
    char rate[40];
    snprintf(rate, sizeof(rate), "--rate=%" PRIu64, count / 3);
    replay_generated(count, rate, "--speed=1");
}

/* One symbol each: what a pattern leaves out is left out. The feed names them AAAA, AAAB, ... */
static void test_some_subjects(void)
{
    char path[PATH_BYTES];
    static char patterns[VERIFIER_COUNT][SUBJECT_BYTES];
    struct replay replay = {
        .path = path, .feed_template = "md.{/s}.{/stream}", .pace = "--flat-out"};
    generate(path, scaled(50000, 1000), "--rate=10k");
    for (size_t index = 0; index < VERIFIER_COUNT; index++) {
        snprintf(patterns[index], sizeof(patterns[index]),
                 index % 2 == 0 ? "md.AAA%c.*" : "*.AAA%c.>", (char)('A' + index));
        replay.patterns[index] = patterns[index];
    }
    run_replay(&replay, NULL);
}

/* ---- a capture ---------------------------------------------------------------------------------
 */

struct capture_header {
    uint32_t magic;
    uint16_t version_major, version_minor;
    uint32_t zone, accuracy, snap_bytes, link_type;
};
struct packet_header {
    uint32_t seconds, microseconds, captured_bytes, packet_bytes;
};

static void put_be16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* Ethernet, IPv4, UDP to 239.1.1.<group>:<5000 + port>. */
static void write_packet(FILE *file, uint64_t *random, unsigned number)
{
    uint8_t packet[14 + 20 + 8 + 1400] = {0};
    size_t payload_bytes = 1 + random_next(random) % 1400;
    unsigned group = number % 5;
    unsigned port = 5000 + number % 2;
    put_be16(packet + 12, 0x0800);
    uint8_t *ip = packet + 14;
    ip[0] = 0x45;
    put_be16(ip + 2, (unsigned)(20 + 8 + payload_bytes));
    ip[8] = 64;
    ip[9] = 17;
    memcpy(ip + 12, (const uint8_t[]){10, 0, 0, 1}, 4);
    memcpy(ip + 16, (const uint8_t[]){239, 1, 1, (uint8_t)group}, 4);
    uint32_t sum = 0;
    for (unsigned at = 0; at < 20; at += 2)
        sum += (uint32_t)ip[at] << 8 | ip[at + 1];
    put_be16(ip + 10, ~((sum & 0xffff) + (sum >> 16)) & 0xffff);
    put_be16(ip + 20, 4000);
    put_be16(ip + 22, port);
    put_be16(ip + 24, (unsigned)(8 + payload_bytes));
    for (size_t at = 0; at < payload_bytes; at++)
        ip[28 + at] = (uint8_t)random_next(random);
    uint32_t packet_bytes = (uint32_t)(14 + 20 + 8 + payload_bytes);
    const struct packet_header header = {1700000000 + number / 1000, (number % 1000) * 1000,
                                         packet_bytes, packet_bytes};
    check(fwrite(&header, sizeof(header), 1, file) == 1 &&
              fwrite(packet, packet_bytes, 1, file) == 1,
          "cannot write the capture: %s", strerror(errno));
}

static void test_capture(void)
{
    char path[PATH_BYTES];
    uint64_t random = options.seed;
    unsigned count = (unsigned)scaled(PACKET_COUNT, 500);
    const struct capture_header header = {0xa1b2c3d4, 2, 4, 0, 0, 65535, 1};
    FILE *file = fopen(test_path(path, "capture.pcap"), "w");
    check(file != NULL && fwrite(&header, sizeof(header), 1, file) == 1, "cannot write %s: %s",
          path, strerror(errno));
    for (unsigned number = 0; number < count; number++)
        write_packet(file, &random, number);
    check(fclose(file) == 0, "cannot write %s: %s", path, strerror(errno));
    const struct replay replay = {
        .path = path,
        .feed_template = "md.{dst}.{dport}",
        .patterns = {">", "md.>", "md.*.5000", "md.*.5001", "md.239_1_1_0.*", "md.239_1_1_1.>",
                     "md.239_1_1_2.5000", "*.239_1_1_3.5001", "*.*.*", "md.*.*"},
        .pace = "--flat-out",
    };
    run_replay(&replay, NULL);
}

/* ---- a file of the user's own ------------------------------------------------------------------
 */

static void test_given_file(void)
{
    struct replay replay = {
        .path = options.feed_path,
        .feed_template = options.feed_template,
        .feed_else = options.feed_else,
        .pace = options.feed_recorded_pace ? "--speed=1" : "--flat-out",
    };
    check(replay.feed_template != NULL, "--file needs --template");
    static char patterns[VERIFIER_COUNT][SUBJECT_BYTES];
    char first[64];
    /* The template's first token is literal, or any. */
    snprintf(first, sizeof(first), "%.*s", (int)strcspn(replay.feed_template, ".{"),
             replay.feed_template);
    bool has_first = first[0] != '\0' && replay.feed_template[strlen(first)] == '.';
    unsigned dot_count = 0;
    for (const char *at = replay.feed_template; *at != '\0'; at++)
        dot_count += *at == '.';
    /* Every prefix of stars that the template's depth allows; the depths repeat. */
    for (unsigned index = 0; index < VERIFIER_COUNT; index++) {
        unsigned star_count = index / 2 % (dot_count + 1);
        char *at = patterns[index];
        char *end = at + SUBJECT_BYTES;
        if (index % 2 == 1 && has_first && star_count > 0)
            at += snprintf(at, (size_t)(end - at), "%s.", first);
        else if (star_count > 0)
            at += snprintf(at, (size_t)(end - at), "*.");
        for (unsigned star = 1; star < star_count; star++)
            at += snprintf(at, (size_t)(end - at), "*.");
        snprintf(at, (size_t)(end - at), ">");
        replay.patterns[index] = patterns[index];
    }
    run_replay(&replay, NULL);
}

int main(int argc, char **argv)
{
    static const struct system_test generated[] = {
        {"feed, flat out", test_flat_out, NULL},
        {"feed, at recorded pace", test_recorded_pace, NULL},
        {"feed, some subjects each", test_some_subjects, NULL},
        {"capture", test_capture, NULL},
    };
    static const struct system_test given[] = {
        {"given feed", test_given_file, NULL},
    };
    for (int index = 1; index < argc; index++) {
        if (strncmp(argv[index], "--file", 6) == 0)
            return system_tests_main(argc, argv, given, rsi_array_count(given));
    }
    return system_tests_main(argc, argv, generated, rsi_array_count(generated));
}
