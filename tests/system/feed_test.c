/*
 * A market-data feed replayed to ten subscribers with different wildcards: each compares what it
 * receives with the file, message by message (ringside verify).
 *
 * Design notes
 * - The feed is generated, or a file that --file names; captures are written by the test itself.
 * - A pattern that matches nothing of a file cannot be compared, so patterns for a given file are
 *   made of the subjects at its start.
 */
#include "clients/cli/recording.h"
#include "tests/system/harness.h"

#include <errno.h>
#include <stdlib.h>

enum { VERIFIER_COUNT = 10, SUBJECT_BYTES = 320, PACKET_COUNT = 3000 };
_Static_assert(SUBJECT_BYTES > sizeof(((struct rsi_subject *)0)->text) + 2, "a pattern fits");

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
    while (list[count] != NULL) {
        count++;
    }
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
    /* A real feed may be silent for a while. */
    uint64_t idle_s = options.feed_recorded_pace ? 600 : hang_ns() / SECOND_NS;
    snprintf(idle, sizeof(idle), "--idle-timeout=%" PRIu64 "s", idle_s);
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
    if (at != NULL) {
        tell("%s: %.*s", program->name, (int)strcspn(at, is_short ? ";\n" : "\n"), at);
    }
}

static void run_replay(const struct replay *replay, const char *const *broker_flags)
{
    struct broker broker;
    struct program verifiers[VERIFIER_COUNT];
    struct program player;
    char ready[64];
    broker_start(&broker, broker_flags);
    for (size_t index = 0; index < VERIFIER_COUNT; index++) {
        start_verifier(&verifiers[index], replay, &broker, index);
    }
    for (size_t index = 0; index < VERIFIER_COUNT; index++) {
        program_await_ready(&verifiers[index], ready, sizeof(ready));
    }

    const char *list[ARGUMENT_COUNT_MAX] = {"ringside", "replay", replay->path};
    size_t count = add_common(list, replay, broker.url);
    list[count++] = replay->pace;
    uint64_t start_ns = now_ns();
    program_start(&player, "replay", list, false);
    int player_code = -1;
    int codes[VERIFIER_COUNT];
    /* At recorded pace this lasts as long as the recording: what hangs is found by the verifiers.
     */
    while (!program_has_ended(&player)) {
        nap();
    }
    player_code = program_wait(&player);
    for (size_t index = 0; index < VERIFIER_COUNT; index++) {
        while (options.feed_recorded_pace && !program_has_ended(&verifiers[index])) {
            nap();
        }
        codes[index] = program_wait(&verifiers[index]);
    }
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
    for (unsigned at = 0; at < 20; at += 2) {
        sum += (uint32_t)ip[at] << 8 | ip[at + 1];
    }
    put_be16(ip + 10, ~((sum & 0xffff) + (sum >> 16)) & 0xffff);
    put_be16(ip + 20, 4000);
    put_be16(ip + 22, port);
    put_be16(ip + 24, (unsigned)(8 + payload_bytes));
    for (size_t at = 0; at < payload_bytes; at++) {
        ip[28 + at] = (uint8_t)random_next(random);
    }
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
    for (unsigned number = 0; number < count; number++) {
        write_packet(file, &random, number);
    }
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

enum { KNOWN_SUBJECT_COUNT_MAX = 16 };

struct patterns {
    char text[VERIFIER_COUNT][SUBJECT_BYTES];
    size_t count;
};

static void add_pattern(struct patterns *patterns, const char *text)
{
    for (size_t index = 0; index < patterns->count; index++) {
        if (strcmp(patterns->text[index], text) == 0) {
            return;
        }
    }
    if (patterns->count < VERIFIER_COUNT) {
        snprintf(patterns->text[patterns->count++], SUBJECT_BYTES, "%s", text);
    }
}

/* Token `place` (from 0) and, with `is_rest`, all behind it, as a wildcard; false: not that long.
 */
static bool with_wildcard(char *pattern, const char *subject, size_t place, bool is_rest)
{
    const char *at = subject;
    for (size_t token = 0; token < place; token++) {
        at += strcspn(at, ".");
        if (*at++ == '\0') {
            return false;
        }
    }
    const char *behind = at + strcspn(at, ".");
    snprintf(pattern, SUBJECT_BYTES, "%.*s%s%s", (int)(at - subject), subject, is_rest ? ">" : "*",
             is_rest ? "" : behind);
    return true;
}

/* The first subjects of the file, each once, by the code that replay uses. */
static size_t find_subjects(const struct replay *replay, struct rsi_subject *subjects)
{
    static struct rsi_recording_options recorded;
    struct rsi_recording recording;
    struct rsi_record record;
    struct rsi_error error = {0};
    size_t count = 0;
    recorded.path = replay->path;
    recorded.template_text = replay->feed_template;
    recorded.else_subject = replay->feed_else;
    recorded.loop_count = 1;
    recorded.limit_count = UINT64_MAX;
    check(!rsi_failed(rsi_template_parse(&recorded.template, replay->feed_template, &error)), "%s",
          error.text);
    check(!rsi_failed(rsi_recording_open(&recording, &recorded, &error)), "%s", error.text);
    rsi_status_t status;
    while (count < KNOWN_SUBJECT_COUNT_MAX &&
           (status = rsi_recording_next(&recording, &record, &subjects[count], &error)) == RSI_OK) {
        size_t index = 0;
        while (strcmp(subjects[index].text, subjects[count].text) != 0) {
            index++;
        }
        count += index == count;
    }
    check(count == KNOWN_SUBJECT_COUNT_MAX || !rsi_failed(status), "%s", error.text);
    rsi_recording_close(&recording);
    check(count > 0, "%s holds no message", replay->path);
    return count;
}

/* All, one subject by itself, then wildcards at each place of every subject. */
static void make_patterns(struct patterns *patterns, const struct replay *replay)
{
    static struct rsi_subject subjects[KNOWN_SUBJECT_COUNT_MAX];
    char pattern[SUBJECT_BYTES];
    size_t subject_count = find_subjects(replay, subjects);
    add_pattern(patterns, ">");
    add_pattern(patterns, subjects[0].text);
    for (size_t place = 0; place < 8; place++) {
        for (size_t index = 0; index < subject_count; index++) {
            if (with_wildcard(pattern, subjects[index].text, place, false)) {
                add_pattern(patterns, pattern);
            }
            if (with_wildcard(pattern, subjects[index].text, place, true)) {
                add_pattern(patterns, pattern);
            }
        }
    }
    /* A feed of one subject has fewer than ten: then some are there twice. */
    for (size_t index = 0; patterns->count < VERIFIER_COUNT; index++, patterns->count++) {
        memcpy(patterns->text[patterns->count], patterns->text[index], SUBJECT_BYTES);
    }
}

static void test_given_file(void)
{
    static struct patterns patterns;
    struct replay replay = {
        .path = options.feed_path,
        .feed_template = options.feed_template,
        .feed_else = options.feed_else,
        .pace = options.feed_recorded_pace ? "--speed=1" : "--flat-out",
    };
    check(replay.feed_template != NULL, "--file needs --template");
    make_patterns(&patterns, &replay);
    for (size_t index = 0; index < VERIFIER_COUNT; index++) {
        replay.patterns[index] = patterns.text[index];
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
        if (strncmp(argv[index], "--file", 6) == 0) {
            return system_tests_main(argc, argv, given, rsi_array_count(given));
        }
    }
    return system_tests_main(argc, argv, generated, rsi_array_count(generated));
}
