/*
 * What the commands show of a broker, and what they print for other programs to read.
 *
 * Design notes
 * - JSON is held to a parser and to what is known of the system, not to the letter.
 * - A slow subscriber is one whose process is stopped: it reads nothing, and nobody is late by
 * chance.
 */
#include "core/counters.h"
#include "tests/system/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char output[TEXT_BYTES];

/* Runs a command that is to end well; what it printed is in `output`. */
static void run(const char *const *arguments)
{
    int code = run_command(arguments, output, sizeof(output));
    check(code == 0, "%s %s ended with %d: %s", arguments[0], arguments[1], code, output);
}

/* One that is to fail with these words. */
static void expect_failure(const char *const *arguments, const char *first, const char *second)
{
    int code = run_command(arguments, output, sizeof(output));
    check(code == 1, "%s %s ended with %d: %s", arguments[0], arguments[1], code, output);
    check_text(output, first);
    check_text(output, second);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static json_t *parse(const char *text)
{
    json_error_t error;
    json_t *object = json_loads(text, 0, &error);
    check(object != NULL, "no JSON: %s at byte %d of: %s", error.text, error.position, text);
    return object;
}

static json_t *member(const json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);
    check(value != NULL, "'%s' is missing in: %s", name, json_dumps(object, 0));
    return value;
}

static double number(const json_t *object, const char *name)
{
    const json_t *value = member(object, name);
    check(json_is_number(value), "'%s' is no number", name);
    return json_number_value(value);
}

static const char *text(const json_t *object, const char *name)
{
    const char *value = json_string_value(member(object, name));
    check(value != NULL, "'%s' is no text", name);
    return value;
}

/* The element of `list` whose member is this text. */
static json_t *find(const json_t *list, const char *name, const char *value)
{
    size_t index;
    json_t *element;
    json_array_foreach(list, index, element)
    {
        if (strcmp(text(element, name), value) == 0) {
            return element;
        }
    }
    fail("no %s '%s' in: %s", name, value, json_dumps(list, 0));
}

/* ---- a broker with traffic
 * -----------------------------------------------------------------------
 */

struct traffic {
    struct broker broker;
    struct program fast;
    struct program slow;
    struct program publisher;
    char counters[PATH_BYTES + 16];
};

static void start_subscriber(struct program *program, const struct broker *broker, const char *name)
{
    char ready[64];
    program_start(program, name,
                  LIST("ringside", "sub", "--url", broker->url, "--name", name, "--policy", "drop",
                       "--quiet", "md.>"),
                  true);
    program_await_ready(program, ready, sizeof(ready));
}

/* Two megabytes a second to a reader that reads and to one that is stopped. */
static void traffic_start(struct traffic *traffic)
{
    struct broker *broker = &traffic->broker;
    broker_start(broker, LIST("--name=hub", "--log-bytes=64MiB"));
    snprintf(traffic->counters, sizeof(traffic->counters), "--counters=%s", broker->counters_path);
    start_subscriber(&traffic->slow, broker, "slow");
    start_subscriber(&traffic->fast, broker, "fast");
    program_signal(&traffic->slow, SIGSTOP);
    program_start(&traffic->publisher, "feed",
                  LIST("ringside", "pub", "--url", broker->url, "--name", "feed", "--size", "1KiB",
                       "--rate", "2k", "--count", "100000000", "md.XNAS.AAPL"),
                  false);
    broker_await_counter(broker, "session.lag_bytes", "slow", 1);
    broker_await_counter(broker, "session.delivered_messages", "fast", 1);
}

static void traffic_stop(struct traffic *traffic)
{
    program_signal(&traffic->slow, SIGCONT);
    program_signal(&traffic->publisher, SIGINT);
    check(program_wait(&traffic->publisher) == 0, "the publisher failed");
    program_signal(&traffic->fast, SIGINT);
    program_signal(&traffic->slow, SIGINT);
    check(program_wait(&traffic->fast) == 0, "the fast subscriber failed");
    check(program_wait(&traffic->slow) == 0, "the slow subscriber failed");
    check(broker_stop(&traffic->broker) == 0, "the broker did not stop cleanly");
}

/* ---- top ---------------------------------------------------------------------------------------
 */

static void check_latency(const json_t *session)
{
    static const char *const points[] = {"p50", "p90", "p95", "p99", "p99.9", "max"};
    const json_t *latency = member(session, "latency_ns");
    double before = 0;
    check(json_is_object(latency), "%s has no latency", text(session, "name"));
    for (size_t i = 0; i < rsi_array_count(points); i++) {
        double value = number(latency, points[i]);
        check(value >= before && value > 0, "%s is %g, below %g", points[i], value, before);
        before = value;
    }
}

static void check_top_json(const struct traffic *traffic)
{
    run(LIST("ringside", "top", "--once", "--json", traffic->counters));
    json_t *object = parse(output);
    const json_t *sessions = member(object, "sessions");
    check(number(object, "interval_ns") > 0, "no interval");
    check(strcmp(text(member(object, "broker"), "name"), "hub") == 0, "not the name hub");
    check(json_array_size(member(object, "agents")) == options.agent_count, "other agents");
    check(json_array_size(sessions) == 3, "%zu sessions", json_array_size(sessions));
    const json_t *slow = find(sessions, "name", "slow");
    const json_t *fast = find(sessions, "name", "fast");
    const json_t *feed = find(sessions, "name", "feed");
    check(json_array_get(sessions, 0) == slow, "the slow one is not the first");
    check(number(slow, "waiting_bytes") > 0, "nothing waits for the slow one");
    check(number(fast, "out_messages_per_second") > 0, "nothing was delivered");
    check(number(feed, "in_messages_per_second") > 0, "nothing was published");
    check(json_is_null(member(feed, "latency_ns")), "a publisher has a latency");
    check(strcmp(text(fast, "transport"), options.transport) == 0, "another transport");
    check_latency(fast);
    json_decref(object);
}

static void check_top_text(const struct traffic *traffic)
{
    run(LIST("ringside", "top", "--once", "--sort", "in", traffic->counters));
    check_text(output, "P99.9");
    const char *row = strstr(output, "SESSION");
    row = row != NULL ? strchr(row, '\n') : NULL;
    check(row != NULL && strncmp(row + 1, "feed#", 5) == 0, "not sorted by what came in: %s",
          output);
    for (const char *line = output; *line != '\0';
         line += strcspn(line, "\n"), line += *line == '\n') {
        check(strcspn(line, "\n") <= 80, "wider than 80 columns: %.*s", (int)strcspn(line, "\n"),
              line);
    }
    run(LIST("ringside", "top", "--once", "--limit", "1", traffic->counters));
    check_text(output, "and 2 more");
}

static void test_top(void)
{
    static struct traffic traffic;
    unsetenv("COLUMNS");
    traffic_start(&traffic);
    check_top_json(&traffic);
    check_top_text(&traffic);
    traffic_stop(&traffic);
}

/* How often the program has printed `part` so far. */
static size_t count_printed(const struct program *program, const char *part)
{
    size_t count = 0;
    for (const char *at = read_file(program->output_path); (at = strstr(at, part)) != NULL; at++) {
        count++;
    }
    return count;
}

/* A broker that was killed and one that follows: top goes on. One that is stopped: it says so. */
static void test_top_goes_on(void)
{
    struct broker broker;
    struct program top;
    broker_start(&broker, NULL);
    program_start(&top, "top",
                  LIST("ringside", "top", "--json", "--interval", "100ms", "--counters",
                       broker.counters_path),
                  false);
    await(count_printed(&top, "\"sessions\":[") > 0, "top shows nothing");
    program_signal(&broker.program, SIGSTOP);
    await(count_printed(&top, "\"is_stale\":true") > 0, "top does not see that nothing moves");
    program_signal(&broker.program, SIGKILL);
    check(program_wait(&broker.program) == 128 + SIGKILL, "the broker was not killed");
    await(count_printed(&top, "left behind") > 0, "top does not see that the broker is gone");
    broker_start_again(&broker, NULL);
    await(count_printed(&top, "\"has_restarted\":true") > 0, "top does not see the next broker");
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
    await(count_printed(&top, "No such file") > 0, "top does not see that the file is gone");
    program_signal(&top, SIGINT);
    check(program_wait(&top) == 0, "top did not end well");
}

/* ---- info --------------------------------------------------------------------------------------
 */

static void check_info_json(const struct traffic *traffic)
{
    run(LIST("ringside", "info", "--json", traffic->counters));
    json_t *object = parse(output);
    const json_t *broker = member(object, "broker");
    check(number(broker, "pid") == traffic->broker.program.pid, "another process");
    check(number(broker, "resident_bytes") > 1e6, "%g bytes resident",
          number(broker, "resident_bytes"));
    check(number(broker, "ring_bytes") > 0, "no rings");
    const char *url = json_string_value(json_array_get(member(object, "listeners"), 0));
    check(url != NULL && strcmp(url, traffic->broker.url) == 0, "listener %s", url);
    const json_t *agent = json_array_get(member(object, "agents"), 0);
    check_text(text(agent, "thread"), "not pinned");
    const json_t *fast = find(member(object, "sessions"), "name", "fast");
    check(strlen(text(fast, "peer")) > 0 && number(fast, "agent") >= 0, "no peer or agent");
    const json_t *topic = find(member(object, "topics"), "subject", "md.XNAS.AAPL");
    check(number(topic, "publishers") == 1, "%g publishers", number(topic, "publishers"));
    const json_t *subscription = find(member(object, "subscriptions"), "session_name", "slow");
    check(strcmp(text(subscription, "pattern"), "md.>") == 0, "another pattern");
    check(strcmp(text(subscription, "policy"), "drop") == 0, "another policy");
    check(json_is_false(member(object, "topics_are_cut")), "a topic is missing");
    json_decref(object);
}

static void test_info(void)
{
    static struct traffic traffic;
    traffic_start(&traffic);
    check_info_json(&traffic);
    run(LIST("ringside", "info", traffic.counters));
    static const char *const parts[] = {"hub",  "listener", "not pinned",           "3 sessions",
                                        "fast", "1 topics", "md.XNAS.AAPL  1 publ", "policy drop"};
    for (size_t i = 0; i < rsi_array_count(parts); i++) {
        check_text(output, parts[i]);
    }
    traffic_stop(&traffic);
}

/* What asks for more records than the file has for it is served, and info says what is missing. */
static void publish_many(struct actor *self, void *arg)
{
    ringside_client_t *client = actor_connect(self, NULL);
    (void)arg;
    for (unsigned i = 0; i < 1100; i++) {
        char subject[32];
        snprintf(subject, sizeof(subject), "many.%u", i);
        actor_publisher(client, subject);
    }
    actor_reach(self, 1);
    actor_await_allowed(self, 1);
    actor_close(client);
}

static void test_many_topics(void)
{
    struct broker broker;
    struct actor actor;
    broker_start(&broker, NULL);
    actor_start(&actor, "many", &broker, publish_many, NULL);
    actor_await_step(&actor, 1);
    broker_await_counter(&broker, "broker.topics", NULL, 1100);
    run(LIST("ringside", "info", "--counters", broker.counters_path));
    check_text(output, "1100 topics, 1024 of them here");
    actor_allow(&actor, 1);
    actor_join(&actor);
    await(broker_counter_text(&broker, "topic", NULL)[0] == '\0', "topics stay in the counters");
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

/* ---- files that are none -----------------------------------------------------------------------
 */

static void copy_file(const char *to, const char *from, size_t limit_bytes)
{
    static char block[65536];
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t bytes = read(in, block, limit_bytes < sizeof(block) ? limit_bytes : sizeof(block));
    check(in >= 0 && out >= 0 && bytes > 0 && write(out, block, (size_t)bytes) == bytes, "copy: %s",
          strerror(errno));
    close(in);
    close(out);
}

static void set_version(const char *path, uint32_t version)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd >= 0 && pwrite(fd, &version, sizeof(version),
                            offsetof(struct rsi_counters_header, version)) == sizeof(version),
          "%s: %s", path, strerror(errno));
    close(fd);
}

static void expect_no_look(const char *counters, const char *first, const char *second)
{
    expect_failure(LIST("ringside", "top", "--once", "--counters", counters), first, second);
    expect_failure(LIST("ringside", "info", "--counters", counters), first, second);
}

static void open_client_with_counters(struct actor *self, void *arg)
{
    const ringside_options_t used = {.counters_path = arg};
    ringside_client_t *client = actor_connect(self, &used);
    actor_reach(self, 1);
    actor_await_allowed(self, 1);
    actor_close(client);
}

static void test_files(void)
{
    struct broker broker;
    struct actor actor;
    char path[PATH_BYTES];
    char folder[PATH_BYTES];
    broker_start(&broker, NULL);
    expect_no_look("/nowhere/counters", "/nowhere/counters", "--counters-path FILE");
    expect_no_look(test_folder(), test_folder(), "not a counters file");
    test_path(path, "copy");
    copy_file(path, broker.counters_path, 1024);
    expect_no_look(path, path, "cut short");
    set_version(path, 99);
    expect_no_look(path, "version 99", "came with the process");
    copy_file(path, broker.counters_path, 100);
    expect_no_look(path, path, "not a counters file");

    test_path(path, "client.counters");
    actor_start(&actor, "client", &broker, open_client_with_counters, path);
    actor_await_step(&actor, 1);
    expect_no_look(path, "no broker's counters", "ringsided's --counters-path");
    actor_allow(&actor, 1);
    actor_join(&actor);

    test_path(folder, "closed");
    snprintf(path, sizeof(path), "%.200s/counters", folder);
    check(mkdir(folder, 0700) == 0, "mkdir: %s", strerror(errno));
    check(chmod(folder, 0) == 0, "chmod: %s", strerror(errno));
    if (geteuid() == 0) {
        /* Without the right to pass over modes; as another user it could not read its library where
         * the checkout is not for everybody. */
        char program[PATH_BYTES];
        check(test_library(program, "ringside"), "no program");
        expect_failure(LIST("/usr/bin/setpriv", "--bounding-set", "-dac_override,-dac_read_search",
                            program, "info", "--counters", path),
                       "ermission denied", "broker's user");
    } else {
        expect_no_look(path, "ermission denied", "broker's user");
    }
    check(chmod(folder, 0700) == 0, "chmod: %s", strerror(errno));
    program_signal(&broker.program, SIGKILL);
    check(program_wait(&broker.program) == 128 + SIGKILL, "the broker was not killed");
    expect_no_look(broker.counters_path, "left behind", "start the broker again");
}

/* ---- streams -----------------------------------------------------------------------------------
 */

/* Bytes of a file. */
struct bytes {
    uint8_t data[4096];
    size_t count;
};

static void read_bytes(struct bytes *bytes, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t count = read(fd, bytes->data, sizeof(bytes->data));
    check(fd >= 0 && count >= 0, "%s: %s", path, strerror(errno));
    bytes->count = (size_t)count;
    close(fd);
}

static void write_bytes(const char *path, const void *data, size_t count)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    check(fd >= 0 && write(fd, data, count) == (ssize_t)count, "%s: %s", path, strerror(errno));
    close(fd);
}

static void check_bytes(const char *path, const void *data, size_t count)
{
    static struct bytes got;
    read_bytes(&got, path);
    check(got.count == count && memcmp(got.data, data, count) == 0,
          "%s has %zu bytes, not these %zu", path, got.count, count);
}

/*
 * Runs `ringside sub SUB` with its standard output in the file "stdout" of the test's folder and
 * the rest in "stderr", then `ringside pub PUB`, and waits for both. The code of pub.
 */
static int pass(const struct broker *broker, const char *sub, const char *pub)
{
    char program[PATH_BYTES];
    char line[4 * PATH_BYTES];
    char ready[64];
    struct program subscriber;
    check(test_library(program, "ringside"), "no program");
    setenv("RINGSIDE", program, 1);
    setenv("RINGSIDE_URL", broker->url, 1);
    setenv("FOLDER", test_folder(), 1);
    snprintf(line, sizeof(line),
             "exec \"$RINGSIDE\" sub %s \"$0\" a.b >\"$FOLDER/stdout\" 2>\"$FOLDER/stderr\"", sub);
    program_start(&subscriber, "sub", LIST("/bin/bash", "-c", line), true);
    program_await_ready(&subscriber, ready, sizeof(ready));
    snprintf(line, sizeof(line), "cd \"$FOLDER\" && exec \"$RINGSIDE\" pub a.b %s", pub);
    int code = run_command(LIST("/bin/bash", "-c", line), output, sizeof(output));
    check(code == 0, "pub %s ended with %d: %s", pub, code, output);
    check_text(output, "published ");
    code = program_wait(&subscriber);
    char path[PATH_BYTES];
    check(code == 0, "sub %s ended with %d: %s", sub, code, read_file(test_path(path, "stderr")));
    return code;
}

static const uint8_t odd_bytes[] = {'x', '\n', 0, 0xff, 0xfe, '\n', 'y'};

static void test_streams(void)
{
    struct broker broker;
    char path[PATH_BYTES];
    char printed[PATH_BYTES];
    broker_start(&broker, NULL);
    test_path(printed, "stdout");
    write_bytes(test_path(path, "odd"), odd_bytes, sizeof(odd_bytes));
    write_bytes(test_path(path, "empty"), "", 0);

    /* Whole files, twice, and their lengths; back again from what that wrote. */
    static const char lengths[] = "\0\0\0\7x\n\0\xff\xfe\ny\0\0\0\0\0\0\0\7x\n\0\xff\xfe\ny\0\0\0";
    pass(&broker, "--raw --separator length --count 4", "--file odd --file empty --count 2");
    check_bytes(printed, lengths, sizeof(lengths));
    check(rename(printed, test_path(path, "lengths")) == 0, "rename: %s", strerror(errno));
    pass(&broker, "--raw --separator none --count 4", "--input lengths --separator length");
    check_bytes(printed, "x\n\0\xff\xfe\nyx\n\0\xff\xfe\ny", 14);

    /* Lines and what has a zero between. */
    write_bytes(test_path(path, "lines"), "one\n\ntwo", 8);
    pass(&broker, "--raw --count 3", "--lines lines --rate 1k");
    check_bytes(printed, "one\n\ntwo\n", 9);
    write_bytes(test_path(path, "zeros"), "one\nmore\0two\0", 13);
    pass(&broker, "--raw --separator nul --count 2", "--separator nul --input - <zeros");
    check_bytes(printed, "one\nmore\0two\0", 13);
    pass(&broker, "--raw --separator newline --count 2", "first second");
    check_bytes(printed, "first\nsecond\n", 13);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

static void test_broken_streams(void)
{
    struct broker broker;
    char path[PATH_BYTES];
    broker_start(&broker, NULL);
    write_bytes(test_path(path, "cut"), "\0\0\0\3one\0\0\0\5two", 14);
    expect_failure(
        LIST("ringside", "pub", "--url", broker.url, "a", "--separator", "length", "--input", path),
        "ends within message 2", "published 1 messages");
    write_bytes(path, "\0\0\0", 3);
    expect_failure(
        LIST("ringside", "pub", "--url", broker.url, "a", "--separator", "length", "--input", path),
        "ends within message 1", path);
    write_bytes(path, "hello", 5);
    expect_failure(
        LIST("ringside", "pub", "--url", broker.url, "a", "--separator", "length", "--input", path),
        "1751477356 bytes", "sub --raw --separator length");
    expect_failure(LIST("ringside", "pub", "--url", broker.url, "a", "--file", test_folder()),
                   test_folder(), "is a directory");
    expect_failure(LIST("ringside", "pub", "--url", broker.url, "a", "--file", "/nowhere"),
                   "/nowhere", "No such file");
    expect_failure(LIST("ringside", "pub", "--url", broker.url, "a", "--lines", test_folder()),
                   test_folder(), "s a directory");
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

/* Each line of a file, parsed; `use` is called with it and its number. */
static unsigned parse_lines(const char *path, void (*use)(json_t *object, unsigned number))
{
    unsigned count = 0;
    static char lines[TEXT_BYTES];
    snprintf(lines, sizeof(lines), "%s", read_file(path));
    char *rest = lines;
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        if (line[0] == '{') {
            json_t *object = parse(line);
            use(object, count++);
            json_decref(object);
        }
    }
    return count;
}

static void check_message(json_t *object, unsigned index)
{
    check(strcmp(text(object, "subject"), "a.b") == 0, "another subject");
    check(number(object, "sequence") == index + 1, "sequence %g", number(object, "sequence"));
    check(number(object, "time_ns") > 1.6e18, "no time");
    check(strlen(text(object, "publisher")) > 0, "no publisher");
    if (index % 2 == 0) {
        check(strcmp(text(object, "data_base64"), "eAoA//4KeQ==") == 0, "other bytes: %s",
              text(object, "data_base64"));
    } else {
        check(strcmp(text(object, "data"), "\"text\" \xc3\xa9\n") == 0, "other text");
    }
}

static void check_figures(json_t *object, unsigned index)
{
    const json_t *latency = member(object, "latency_ns");
    (void)index;
    check(number(object, "gap_messages") == 0, "messages were left out");
    check(number(object, "bytes") == number(object, "messages") * 7, "other sizes");
    check(number(latency, "p50") <= number(latency, "max"), "p50 is above the largest");
}

static void test_json(void)
{
    struct broker broker;
    char path[PATH_BYTES];
    broker_start(&broker, NULL);
    write_bytes(test_path(path, "odd"), odd_bytes, sizeof(odd_bytes));
    write_bytes(test_path(path, "text"), "\"text\" \xc3\xa9\n", 10);
    pass(&broker, "--json --count 6", "--file odd --file text --count 3");
    unsigned count = parse_lines(test_path(path, "stdout"), check_message);
    check(count == 6, "%u messages as JSON", count);

    /* Two seconds and more: figures each second, and the totals. */
    pass(&broker, "--json --stats --quiet --count 300", "--file odd --count 300 --rate 100");
    count = parse_lines(test_path(path, "stderr"), check_figures);
    check(count >= 2, "figures only %u times", count);
    count = parse_lines(test_path(path, "stdout"), check_figures);
    check(count == 1, "%u totals", count);

    pass(&broker, "--stats --raw --count 300", "--file odd --count 300 --rate 100");
    check_text(read_file(test_path(path, "stderr")), "received 300 messages, 2100 bytes");
    check_text(read_file(path), "p99.9");
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

/* An interrupt is a way to end: with a summary, and well. */
static void test_interrupt(void)
{
    struct broker broker;
    struct program subscriber;
    struct program publisher;
    char ready[64];
    broker_start(&broker, NULL);
    program_start(&subscriber, "sub", LIST("ringside", "sub", "--url", broker.url, "--quiet", "a"),
                  true);
    program_await_ready(&subscriber, ready, sizeof(ready));
    program_start(&publisher, "pub",
                  LIST("ringside", "pub", "--url", broker.url, "a", "--size", "100", "--rate", "1k",
                       "--count", "100000000"),
                  false);
    broker_await_counter(&broker, "agent.delivered_messages", NULL, 100);
    program_signal(&publisher, SIGINT);
    check(program_wait(&publisher) == 0, "pub did not end well");
    check_text(read_file(publisher.output_path), "published ");
    program_signal(&subscriber, SIGINT);
    check(program_wait(&subscriber) == 0, "sub did not end well");
    check_text(read_file(subscriber.output_path), "received ");
    check_text(read_file(subscriber.output_path), "latency: p50");
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"top", test_top, NULL},
        {"top goes on", test_top_goes_on, "tcp"},
        {"info", test_info, NULL},
        {"info of many topics", test_many_topics, "shm"},
        {"counters files that are none", test_files, "tcp"},
        {"streams", test_streams, "tcp"},
        {"broken streams", test_broken_streams, "tcp"},
        {"JSON", test_json, "shm"},
        {"interrupt", test_interrupt, "shm"},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
