/*
 * Last values: who subscribes late gets what an early subscriber has, at any moment and under load.
 *
 * Design notes
 * - Every topic has one writer, so its sequence is the topic's, and a message says its own number.
 * - Early and late subscriber are two clients of one process, so that what the early one has got
 *   before the late one asks is known exactly. The late one must get that or newer of each topic.
 */
#include "tests/system/harness.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    WRITER_COUNT = 2,
    TOPIC_COUNT = 60, /* of each writer */
    ALL_COUNT = WRITER_COUNT * TOPIC_COUNT,
    STEP_READY = 1,
    STEP_STOPPED = 2,
    STEP_JOIN = 1,  /* allowed the watcher: join late, over and over */
    STEP_STOP = 1,  /* allowed: publish no more, and stay */
    STEP_LEAVE = 2, /* allowed: close */
    MANY_COUNT = 10000,
    MANY_BYTES = 200,
};

static const char *const state_broker[] = {"--last-value=state.>",
                                           "--last-value-topics=10000",
                                           "--publication-count-max=32768",
                                           "--log-bytes=4MiB",
                                           "--message-bytes-max=64KiB",
                                           "--block-timeout=10m",
                                           NULL};

/* ---- writers -----------------------------------------------------------------------------------
 */

struct writer {
    uint32_t number;
};

/* By topic, in memory that all processes of the test share; filled in when the writers stop. */
static uint64_t *final_counts;

static void share_final_counts(void)
{
    void *memory = mmap(NULL, ALL_COUNT * sizeof(*final_counts), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "no shared memory");
    final_counts = memory;
}

/* Publishes on topics in random order until it is told to stop; says how often on each. */
static void write_states(struct actor *self, void *arg)
{
    const struct writer *writer = arg;
    ringside_publisher_t *publishers[TOPIC_COUNT];
    uint64_t counts[TOPIC_COUNT] = {0};
    uint8_t data[512] = {0};
    uint64_t random = options.seed + writer->number;
    uint64_t total = 0;
    ringside_client_t *client = actor_connect(self, NULL);
    for (uint32_t i = 0; i < TOPIC_COUNT; i++) {
        char subject[64];
        snprintf(subject, sizeof(subject), "state.%u.%u", writer->number, i);
        publishers[i] = actor_publisher(client, subject);
    }
    while (!actor_is_allowed(self, STEP_STOP)) {
        uint32_t topic = (uint32_t)(random_next(&random) % TOPIC_COUNT);
        uint64_t number = ++counts[topic];
        memcpy(data, &number, sizeof(number));
        /* Half of the topics change seldom: their values are from long before. */
        if (topic % 2 == 0 && number > 1 && random_next(&random) % 64 != 0) {
            counts[topic]--;
            continue;
        }
        actor_publish(client, publishers[topic], data,
                      sizeof(number) + random_next(&random) % (sizeof(data) - sizeof(number)));
        actor_set_progress(self, ++total);
        if (total == 4 * TOPIC_COUNT) {
            actor_reach(self, STEP_READY);
        }
        if (total % 64 == 0) {
            ringside_status_t status = ringside_poll(client, 0, 0, NULL);
            check(status >= 0, "writer: %s", ringside_error_text(client));
        }
    }
    actor_flush(client);
    memcpy(&final_counts[writer->number * TOPIC_COUNT], counts, sizeof(counts));
    actor_reach(self, STEP_STOPPED);
    while (!actor_is_allowed(self, STEP_LEAVE)) {
        actor_poll(client);
    }
    actor_close(client);
}

/* ---- the two subscribers -----------------------------------------------------------------------
 */

struct view {
    const char *name;
    uint64_t latest[ALL_COUNT]; /* sequence; 0: nothing came of the topic in this round */
    uint64_t last_count;
    uint64_t gap_count;
    uint32_t current_count;
    bool is_active; /* its subscription exists: what comes is checked */
};

static uint32_t topic_of(const char *subject)
{
    unsigned writer = 0;
    unsigned topic = 0;
    check(sscanf(subject, "state.%u.%u", &writer, &topic) == 2 && writer < WRITER_COUNT &&
              topic < TOPIC_COUNT,
          "a message on %s", subject);
    return writer * TOPIC_COUNT + topic;
}

static void view_message(void *arg, const ringside_message_t *message)
{
    struct view *view = arg;
    uint32_t topic = topic_of(message->subject);
    uint64_t number;
    memcpy(&number, message->data, sizeof(number));
    check(number == message->sequence, "%s: %s: message %" PRIu64 " has sequence %" PRIu64,
          view->name, message->subject, number, message->sequence);
    if (message->is_last) {
        check(view->current_count == 0, "%s: a last value after all were there", view->name);
        check(view->latest[topic] == 0, "%s: %s: last value %" PRIu64 " after %" PRIu64, view->name,
              message->subject, number, view->latest[topic]);
        view->last_count++;
    } else {
        check(view->latest[topic] == 0 || number == view->latest[topic] + 1,
              "%s: %s: %" PRIu64 " came after %" PRIu64, view->name, message->subject, number,
              view->latest[topic]);
    }
    view->latest[topic] = number;
}

static void view_event(void *arg, const ringside_event_t *event)
{
    struct view *view = arg;
    if (event->type == RINGSIDE_EVENT_GAP) {
        uint32_t topic = topic_of(event->subject);
        check(event->count != UINT64_MAX, "a gap of unknown size");
        view->gap_count += event->count;
        if (view->latest[topic] != 0) {
            view->latest[topic] += event->count;
        }
    }
    if (event->type == RINGSIDE_EVENT_CURRENT) {
        check(strncmp(event->subject, "state.", 6) == 0, "current: %s", event->subject);
        view->current_count++;
    }
}

static ringside_client_t *open_view(struct actor *self, struct view *view)
{
    const ringside_options_t given = {.deliver_ring_bytes = 256 << 10,
                                      .publish_ring_bytes = UINT64_MAX,
                                      .on_event = view_event,
                                      .event_arg = view};
    return actor_connect(self, &given);
}

static void poll_view(ringside_client_t *client, size_t limit)
{
    ringside_status_t status = ringside_poll(client, limit, 0, NULL);
    check(status >= 0, "poll: %s", ringside_error_text(client));
}

static ringside_subscription_t *subscribe_last(ringside_client_t *client, const char *subject,
                                               ringside_policy_t policy,
                                               ringside_on_message_t on_message, void *arg)
{
    const ringside_subscribe_options_t given = {
        .struct_bytes = sizeof(given), .policy = policy, .timeout_ns = hang_ns(), .last = 1};
    ringside_subscription_t *subscription = NULL;
    ringside_status_t status =
        ringside_subscribe(&subscription, client, subject, &given, on_message, arg);
    check(status == RINGSIDE_OK, "subscribe: %s", ringside_error_text(client));
    return subscription;
}

/* Whether the view has of every topic what is wanted, or newer. */
static bool has_all(const struct view *view, const uint64_t *wanted)
{
    for (uint32_t i = 0; i < ALL_COUNT; i++) {
        if (view->latest[i] < wanted[i]) {
            return false;
        }
    }
    return true;
}

struct both {
    struct actor *self;
    struct view early;
    struct view late;
    ringside_client_t *early_client;
    ringside_client_t *late_client;
    uint64_t random;
};

/* Until the late one has what the early one had when it began. */
static ringside_subscription_t *join_late(struct both *both)
{
    static const char *const subjects[] = {"state.>", "state.*.*"};
    uint64_t wanted[ALL_COUNT];
    memcpy(wanted, both->early.latest, sizeof(wanted));
    memset(both->late.latest, 0, sizeof(both->late.latest));
    both->late.current_count = 0;
    ringside_subscription_t *subscription = subscribe_last(
        both->late_client, subjects[random_next(&both->random) % 2],
        random_next(&both->random) % 4 == 0 ? RINGSIDE_POLICY_DROP : RINGSIDE_POLICY_BLOCK,
        view_message, &both->late);
    uint64_t until_ns = now_ns() + hang_ns();
    while (both->late.current_count == 0 || !has_all(&both->late, wanted)) {
        check(now_ns() < until_ns, "the late one has not got all (%" PRIu32 " current)",
              both->late.current_count);
        poll_view(both->late_client, random_next(&both->random) % 64);
        poll_view(both->early_client, 256);
    }
    return subscription;
}

static void watch_both(struct actor *self, void *arg)
{
    struct both both = {.self = self, .random = options.seed, .early.name = "early"};
    ringside_subscription_t *subscription = NULL;
    uint64_t round_count = *(const uint64_t *)arg;
    both.late.name = "late";
    both.early_client = open_view(self, &both.early);
    subscription = subscribe_last(both.early_client, "state.>", RINGSIDE_POLICY_BLOCK, view_message,
                                  &both.early);
    both.late_client = open_view(self, &both.late);
    actor_reach(self, STEP_READY);
    while (!actor_is_allowed(self, STEP_JOIN)) {
        poll_view(both.early_client, 64);
    }
    for (uint64_t round = 1; round <= round_count; round++) {
        for (uint64_t i = random_next(&both.random) % 32; i > 0; i--) {
            poll_view(both.early_client, 64);
        }
        subscription = join_late(&both);
        if (round == round_count) {
            break;
        }
        check(ringside_unsubscribe(subscription, hang_ns()) == RINGSIDE_OK, "unsubscribe: %s",
              ringside_error_text(both.late_client));
        if (random_next(&both.random) % 8 == 0) {
            actor_close(both.late_client);
            both.late_client = open_view(self, &both.late);
        }
        actor_set_progress(self, round);
    }
    actor_set_result(self, 0, both.late.last_count);
    actor_reach(self, STEP_STOPPED);
    while (!actor_is_allowed(self, STEP_LEAVE)) {
        poll_view(both.late_client, 0);
        poll_view(both.early_client, 0);
    }
    /* What the writers wrote in all is in final_counts by now. */
    uint64_t until_ns = now_ns() + hang_ns();
    while (!has_all(&both.late, final_counts) || !has_all(&both.early, final_counts)) {
        check(now_ns() < until_ns, "the end of some topic does not come");
        poll_view(both.late_client, 0);
        poll_view(both.early_client, 0);
    }
    check(memcmp(both.late.latest, final_counts, sizeof(both.late.latest)) == 0 &&
              memcmp(both.early.latest, final_counts, sizeof(both.early.latest)) == 0,
          "more came than was published");
    check(both.early.gap_count == 0, "the early one, under block, missed something");
    actor_close(both.late_client);
    actor_close(both.early_client);
}

static void test_late_join(void)
{
    static const struct writer writers[WRITER_COUNT] = {{0}, {1}};
    static const char *const names[WRITER_COUNT] = {"writer-0", "writer-1"};
    uint64_t round_count = options.count != 0 ? options.count : scaled(1000, 50);
    struct broker broker;
    struct actor actors[WRITER_COUNT];
    struct actor watcher;
    share_final_counts();
    broker_start(&broker, state_broker);
    actor_start(&watcher, "watcher", &broker, watch_both, &round_count);
    actor_await_step(&watcher, STEP_READY);
    for (uint32_t i = 0; i < WRITER_COUNT; i++) {
        actor_start(&actors[i], names[i], &broker, write_states, (void *)(uintptr_t)&writers[i]);
    }
    /* A client that has a device to start takes longer than all the joins. */
    for (uint32_t i = 0; i < WRITER_COUNT; i++) {
        actor_await_step(&actors[i], STEP_READY);
    }
    actor_allow(&watcher, STEP_JOIN);
    actor_await_progress(&watcher, round_count - 1);
    actor_await_step(&watcher, STEP_STOPPED);
    for (uint32_t i = 0; i < WRITER_COUNT; i++) {
        actor_allow(&actors[i], STEP_STOP);
    }
    for (uint32_t i = 0; i < WRITER_COUNT; i++) {
        actor_await_step(&actors[i], STEP_STOPPED);
    }
    actor_allow(&watcher, STEP_LEAVE);
    actor_join(&watcher);
    for (uint32_t i = 0; i < WRITER_COUNT; i++) {
        actor_allow(&actors[i], STEP_LEAVE);
        actor_join(&actors[i]);
    }
    tell("%" PRIu64 " late joins, %" PRIu64 " last values", round_count, actor_result(&watcher, 0));
    check(actor_result(&watcher, 0) > 0, "no last value was ever sent");
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

/* ---- what stays, and many ----------------------------------------------------------------------
 */

/* Publishes one message on each of many topics and leaves. */
static void write_many(struct actor *self, void *arg)
{
    uint32_t count = *(const uint32_t *)arg;
    uint8_t data[MANY_BYTES] = {0};
    ringside_client_t *client = actor_connect(self, NULL);
    for (uint32_t i = 0; i < count; i++) {
        char subject[64];
        snprintf(subject, sizeof(subject), "state.many.%u", i);
        ringside_publisher_t *publisher = actor_publisher(client, subject);
        memcpy(data, &i, sizeof(i));
        actor_publish(client, publisher, data, sizeof(data));
        actor_set_progress(self, i);
    }
    actor_flush(client);
    actor_close(client);
}

struct many {
    struct actor *self;
    uint32_t count;
    uint32_t received_count;
    uint32_t current_count;
    bool is_there[MANY_COUNT];
};

static void many_message(void *arg, const ringside_message_t *message)
{
    struct many *many = arg;
    uint32_t number;
    unsigned topic = 0;
    memcpy(&number, message->data, sizeof(number));
    check(message->is_last && message->sequence == 1 && message->bytes == MANY_BYTES,
          "%s: message %" PRIu64 " of %zu bytes", message->subject, message->sequence,
          message->bytes);
    check(strcmp(message->publisher, "writer") == 0, "a publisher %s", message->publisher);
    check(sscanf(message->subject, "state.many.%u", &topic) == 1 && topic == number &&
              number < many->count && !many->is_there[number],
          "%s holds %" PRIu32, message->subject, number);
    many->is_there[number] = true;
    many->received_count++;
    actor_set_progress(many->self, many->received_count);
}

static void many_event(void *arg, const ringside_event_t *event)
{
    struct many *many = arg;
    many->current_count += event->type == RINGSIDE_EVENT_CURRENT;
}

/* Its ring holds a small part of the last values. */
static void read_many(struct actor *self, void *arg)
{
    static struct many many;
    const ringside_options_t given = {.deliver_ring_bytes = 256 << 10,
                                      .publish_ring_bytes = UINT64_MAX,
                                      .on_event = many_event,
                                      .event_arg = &many};
    many.self = self;
    many.count = *(const uint32_t *)arg;
    ringside_client_t *client = actor_connect(self, &given);
    (void)subscribe_last(client, "state.>", RINGSIDE_POLICY_DEFAULT, many_message, &many);
    actor_reach(self, STEP_READY);
    actor_await_allowed(self, STEP_STOP);
    while (many.current_count == 0) {
        actor_poll(client);
    }
    check(many.received_count == many.count, "%" PRIu32 " last values of %" PRIu32,
          many.received_count, many.count);
    actor_close(client);
}

static void test_many_that_stay(void)
{
    uint32_t count = (uint32_t)scaled(MANY_COUNT, 1000);
    struct broker broker;
    struct actor writer;
    struct actor reader;
    broker_start(&broker, state_broker);
    actor_start(&writer, "writer", &broker, write_many, &count);
    actor_join(&writer);
    actor_start(&reader, "reader", &broker, read_many, &count);
    actor_await_step(&reader, STEP_READY);
    actor_allow(&reader, STEP_STOP);
    actor_join(&reader);
    /* What is kept does not keep the broker from taking the next publisher of the same subjects. */
    actor_start(&writer, "writer", &broker, write_many, &count);
    actor_join(&writer);
    actor_start(&reader, "reader", &broker, read_many, &count);
    actor_allow(&reader, STEP_STOP);
    actor_join(&reader);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

/* ---- conflation --------------------------------------------------------------------------------
 */

enum { ROUND_COUNT = 20 };

/* Publishes on many topics, round after round; then one round that is read while it comes. */
static void write_rounds(struct actor *self, void *arg)
{
    uint32_t count = *(const uint32_t *)arg;
    ringside_publisher_t **publishers = calloc(count, sizeof(ringside_publisher_t *));
    ringside_client_t *client = actor_connect(self, NULL);
    uint64_t progress = 0;
    check(publishers != NULL, "no memory");
    for (uint32_t i = 0; i < count; i++) {
        char subject[64];
        snprintf(subject, sizeof(subject), "state.many.%u", i);
        publishers[i] = actor_publisher(client, subject);
        actor_set_progress(self, ++progress);
    }
    actor_reach(self, STEP_READY);
    actor_await_allowed(self, 1);
    for (uint32_t round = 1; round <= ROUND_COUNT; round++) {
        for (uint32_t i = 0; i < count; i++) {
            uint64_t number = round;
            uint8_t data[MANY_BYTES] = {0};
            memcpy(data, &number, sizeof(number));
            actor_publish(client, publishers[i], data, sizeof(data));
            actor_set_progress(self, ++progress);
        }
    }
    actor_flush(client);
    actor_reach(self, STEP_STOPPED);
    actor_close(client);
    free(publishers);
}

struct conflated {
    struct actor *self;
    uint64_t latest[MANY_COUNT];
    uint64_t received_count;
    uint64_t conflated_count;
    uint64_t gap_count;
    uint32_t complete_count; /* topics whose newest message came */
};

static uint32_t many_of(const char *subject)
{
    unsigned topic = 0;
    check(sscanf(subject, "state.many.%u", &topic) == 1 && topic < MANY_COUNT, "subject %s",
          subject);
    return topic;
}

static void conflated_message(void *arg, const ringside_message_t *message)
{
    struct conflated *conflated = arg;
    uint32_t topic = many_of(message->subject);
    uint64_t number;
    memcpy(&number, message->data, sizeof(number));
    check(number == message->sequence && number == conflated->latest[topic] + 1,
          "%s: %" PRIu64 " (sequence %" PRIu64 ") after %" PRIu64, message->subject, number,
          message->sequence, conflated->latest[topic]);
    conflated->latest[topic] = number;
    conflated->received_count++;
    conflated->complete_count += number == ROUND_COUNT;
    actor_set_progress(conflated->self, conflated->received_count);
}

static void conflated_event(void *arg, const ringside_event_t *event)
{
    struct conflated *conflated = arg;
    conflated->gap_count += event->type == RINGSIDE_EVENT_GAP;
    if (event->type == RINGSIDE_EVENT_CONFLATED) {
        conflated->latest[many_of(event->subject)] += event->count;
        conflated->conflated_count += event->count;
    }
}

static void read_conflated(struct actor *self, void *arg)
{
    static struct conflated conflated;
    uint32_t count = *(const uint32_t *)arg;
    const ringside_options_t given = {.deliver_ring_bytes = 256 << 10,
                                      .publish_ring_bytes = UINT64_MAX,
                                      .on_event = conflated_event,
                                      .event_arg = &conflated};
    conflated.self = self;
    ringside_client_t *client = actor_connect(self, &given);
    actor_subscribe(client, "state.>", RINGSIDE_POLICY_CONFLATE, conflated_message, &conflated);
    actor_reach(self, STEP_READY);
    while (conflated.complete_count < count) {
        actor_poll(client);
    }
    check(conflated.received_count + conflated.conflated_count == (uint64_t)count * ROUND_COUNT,
          "%" PRIu64 " received, %" PRIu64 " conflated of %" PRIu64, conflated.received_count,
          conflated.conflated_count, (uint64_t)count * ROUND_COUNT);
    check(conflated.gap_count == 0, "a gap that is none of conflation");
    actor_set_result(self, 0, conflated.received_count);
    actor_set_result(self, 1, conflated.conflated_count);
    actor_close(client);
}

/* A reader that is stopped while all is published gets the newest of each topic. */
static void test_conflate(void)
{
    uint32_t count = (uint32_t)scaled(MANY_COUNT, 1000);
    struct broker broker;
    struct actor writer;
    struct actor reader;
    broker_start(&broker, state_broker);
    actor_start(&writer, "writer", &broker, write_rounds, &count);
    actor_await_progress(&writer, count);
    actor_await_step(&writer, STEP_READY);
    actor_start(&reader, "reader", &broker, read_conflated, &count);
    actor_await_step(&reader, STEP_READY);
    actor_signal(&reader, SIGSTOP);
    actor_allow(&writer, 1);
    actor_await_progress(&writer, (uint64_t)count * (ROUND_COUNT + 1));
    actor_await_step(&writer, STEP_STOPPED);
    actor_join(&writer);
    actor_signal(&reader, SIGCONT);
    actor_join(&reader);
    tell("%" PRIu64 " received, %" PRIu64 " conflated", actor_result(&reader, 0),
         actor_result(&reader, 1));
    check(actor_result(&reader, 1) > actor_result(&reader, 0), "nothing was conflated");
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

/* ---- texts and commands ------------------------------------------------------------------------
 */

static void expect_refusal(const struct broker *broker, const char *const *arguments,
                           const char *part)
{
    static char output[TEXT_BYTES];
    (void)broker;
    check(run_command(arguments, output, sizeof(output)) != 0, "it was not refused: %s", output);
    check_text(output, part);
}

static void test_commands(void)
{
    static char output[TEXT_BYTES];
    static const char *const flags[] = {"--last-value=state.*", "--last-value-topics=2", NULL};
    struct broker broker;
    broker_start(&broker, flags);
    for (int i = 0; i < 2; i++) {
        const char *subject = i == 0 ? "state.a" : "state.b";
        check(run_command((const char *const[]){"ringside", "pub", "--url", broker.url, subject,
                                                "old", "new", NULL},
                          output, sizeof(output)) == 0,
              "pub: %s", output);
    }
    check(run_command((const char *const[]){"ringside", "sub", "--url", broker.url, "state.*",
                                            "--last", "--count", "2", "--raw", NULL},
                      output, sizeof(output)) == 0,
          "sub: %s", output);
    check_text(output, "new\nnew\n");
    check(strstr(output, "old") == NULL, "an older value came: %s", output);
    expect_refusal(
        &broker,
        (const char *const[]){"ringside", "pub", "--url", broker.url, "state.c", "x", NULL},
        "last_value_topics");
    expect_refusal(
        &broker,
        (const char *const[]){"ringside", "sub", "--url", broker.url, "orders.>", "--last", NULL},
        "last_value names nothing that matches");
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"late_join", test_late_join, NULL},
        {"many_that_stay", test_many_that_stay, NULL},
        {"conflate", test_conflate, NULL},
        {"commands", test_commands, NULL},
    };
    return system_tests_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
