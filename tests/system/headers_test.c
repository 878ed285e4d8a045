/*
 * Headers as users see them: by the commands, and by programs whose subscribers lag, so that
 * messages with headers go every way there is: at once, by a cursor of its own, through a spill,
 * and left out.
 *
 * Design notes
 * - Which headers a message has is a function of its number, so both sides know them.
 */
#include "tests/system/harness.h"

#include <stdlib.h>

enum { STEP_SUBSCRIBED = 1, STEP_PUBLISHED = 2, STEP_DRAIN = 1, HEADER_MAX = 6, VALUE_MAX = 300 };

/* ---- commands ----------------------------------------------------------------------------------
 */

static void start_sub(struct program *program, const struct broker *broker, const char *flag)
{
    char ready[64];
    program_start(program, "sub",
                  (const char *const[]){"ringside", "sub", "--url", broker->url, "orders.>",
                                        "--count", "2", flag, NULL},
                  true);
    program_await_ready(program, ready, sizeof(ready));
}

static void test_commands(void)
{
    static char output[TEXT_BYTES];
    struct broker broker;
    struct program text;
    struct program json;
    struct program plain;
    broker_start(&broker, NULL);
    start_sub(&text, &broker, "--headers");
    start_sub(&json, &broker, "--json");
    start_sub(&plain, &broker, "--policy=block");
    int code = run_command((const char *const[]){"ringside", "pub", "--url", broker.url,
                                                 "orders.new", "--header", "trace-id:47:11",
                                                 "--header", "Note:caf\xc3\xa9", "--header",
                                                 "empty:", "buy", "sell", NULL},
                           output, sizeof(output));
    check(code == 0, "pub ended with %d: %s", code, output);
    check(program_wait(&text) == 0 && program_wait(&json) == 0 && program_wait(&plain) == 0,
          "a subscriber failed: %s", read_file(text.output_path));
    check_text(read_file(text.output_path),
               "orders.new buy\n  trace-id: 47:11\n  Note: caf\xc3\xa9\n  empty: \norders.new "
               "sell\n  trace-id: ");
    check_text(read_file(json.output_path),
               "\"headers\":[{\"name\":\"trace-id\",\"value\":\"47:11\"},{\"name\":\"Note\","
               "\"value\":\"caf\xc3\xa9\"},{\"name\":\"empty\",\"value\":\"\"}],\"data\":\"buy\"}");
    check_text(read_file(plain.output_path), "orders.new buy\norders.new sell\n");
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

/* ---- programs ----------------------------------------------------------------------------------
 */

struct headers {
    size_t count;
    ringside_header_t list[HEADER_MAX];
    char names[HEADER_MAX][8];
    uint8_t values[HEADER_MAX][VALUE_MAX];
};

static void make_headers(struct headers *headers, uint64_t number)
{
    uint64_t state = options.seed ^ (number * 7919);
    headers->count = random_next(&state) % (HEADER_MAX + 1);
    for (size_t at = 0; at < headers->count; at++) {
        size_t bytes = random_next(&state) % (at == 0 ? VALUE_MAX : 12);
        snprintf(headers->names[at], sizeof(headers->names[at]), "n%u",
                 (unsigned)(random_next(&state) % 4));
        for (size_t byte = 0; byte < bytes; byte++) {
            headers->values[at][byte] = (uint8_t)random_next(&state);
        }
        headers->list[at] = (ringside_header_t){headers->names[at], headers->values[at], bytes};
    }
}

struct reader {
    struct actor *self;
    uint64_t count; /* of messages published */
    ringside_policy_t policy;
    uint64_t received_count;
    uint64_t missed_count;
    bool has_last;
};

static void on_message(void *arg, const ringside_message_t *message)
{
    struct reader *reader = arg;
    struct headers wanted;
    ringside_header_t header;
    size_t cursor = 0;
    make_headers(&wanted, message->sequence);
    check(message->bytes == sizeof(uint64_t) &&
              memcmp(message->data, &message->sequence, sizeof(uint64_t)) == 0,
          "message %" PRIu64 " has other data", message->sequence);
    check(message->header_count == wanted.count, "message %" PRIu64 " has %zu headers, not %zu",
          message->sequence, message->header_count, wanted.count);
    for (size_t at = 0; at < wanted.count; at++) {
        check(ringside_header_next(message, &cursor, &header) == 1 &&
                  strcmp(header.name, wanted.list[at].name) == 0 &&
                  header.value_bytes == wanted.list[at].value_bytes &&
                  memcmp(header.value, wanted.list[at].value, header.value_bytes) == 0,
              "header %zu of message %" PRIu64 " is another one", at, message->sequence);
    }
    check(ringside_header_next(message, &cursor, &header) == 0, "a header too many");
    reader->received_count++;
    reader->has_last = message->sequence == reader->count;
    actor_set_progress(reader->self, message->sequence);
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct reader *reader = arg;
    if (event->type == RINGSIDE_EVENT_GAP) {
        reader->missed_count += event->count;
    }
}

static bool is_complete(const struct reader *reader)
{
    return reader->received_count + reader->missed_count == reader->count;
}

/* Reads nothing while the publisher publishes, then all of it. */
static void read_late(struct actor *self, void *arg)
{
    struct reader reader = *(const struct reader *)arg;
    const ringside_options_t given = {.struct_bytes = sizeof(given),
                                      .deliver_ring_bytes = 65536,
                                      .message_bytes_max = 16384,
                                      .on_event = on_event,
                                      .event_arg = &reader};
    reader.self = self;
    ringside_client_t *client = actor_connect(self, &given);
    actor_subscribe(client, "system.headers", reader.policy, on_message, &reader);
    actor_reach(self, STEP_SUBSCRIBED);
    if (reader.policy == RINGSIDE_POLICY_DROP) {
        actor_await_allowed(self, STEP_DRAIN);
    }
    while (!is_complete(&reader)) {
        actor_poll(client);
    }
    actor_set_result(self, 0, reader.received_count);
    actor_set_result(self, 1, reader.missed_count);
    actor_close(client);
}

static void write_all(struct actor *self, void *arg)
{
    const struct reader *reader = arg;
    struct headers headers;
    ringside_client_t *client = actor_connect(self, NULL);
    ringside_publisher_t *publisher = actor_publisher(client, "system.headers");
    for (uint64_t number = 1; number <= reader->count; number++) {
        ringside_status_t status;
        make_headers(&headers, number);
        while ((status = ringside_publish_with(publisher, headers.list, headers.count, &number,
                                               sizeof(number))) == RINGSIDE_WOULD_BLOCK) {
            actor_poll(client);
        }
        check(status == RINGSIDE_OK, "publish: %s", ringside_error_text(client));
        actor_set_progress(self, number);
    }
    actor_flush(client);
    actor_reach(self, STEP_PUBLISHED);
    actor_close(client);
}

static void run_policy(ringside_policy_t policy, uint64_t count)
{
    struct broker broker;
    struct actor writer;
    struct actor reader;
    struct reader wanted = {.count = count, .policy = policy};
    broker_start(&broker,
                 (const char *const[]){"--log-bytes=1MiB", "--message-bytes-max=16KiB", NULL});
    actor_start(&reader, "reader", &broker, read_late, &wanted);
    actor_await_step(&reader, STEP_SUBSCRIBED);
    actor_start(&writer, "writer", &broker, write_all, &wanted);
    actor_join(&writer);
    actor_allow(&reader, STEP_DRAIN);
    actor_join(&reader);
    tell("%" PRIu64 " messages: %" PRIu64 " received, %" PRIu64 " told as left out", count,
         actor_result(&reader, 0), actor_result(&reader, 1));
    bool is_drop = policy == RINGSIDE_POLICY_DROP;
    check((actor_result(&reader, 1) > 0) == is_drop, "%" PRIu64 " were left out",
          actor_result(&reader, 1));
    check(actor_result(&reader, 0) > 0, "nothing was received");
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

static void test_block(void)
{
    run_policy(RINGSIDE_POLICY_BLOCK, scaled(50000, 2000));
}

static void test_gaps(void)
{
    run_policy(RINGSIDE_POLICY_DROP, scaled(50000, 20000)); /* several log windows */
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"commands", test_commands, NULL},
        {"block", test_block, NULL},
        {"gaps", test_gaps, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
