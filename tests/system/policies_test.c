/*
 * Subscribers that stop reading, brokers that stop, clients that die: what each policy promises, to
 * the message.
 *
 * Design notes
 * - A slow subscriber is one that is stopped (SIGSTOP): nothing in it runs, whatever the machine's
 *   speed. The broker's log and the rings are small, so that a few megabytes are too much for it.
 * - Beside it a subscriber with policy block takes everything, and so sets the publisher's pace.
 */
#include "tests/system/harness.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

enum {
    STEP_READY = 1,
    STEP_FIRST = 1,  /* allowed: publish some */
    STEP_SECOND = 2, /* allowed: publish what is too much */
    STEP_LAST = 3,   /* allowed: publish one more and leave */
    FIRST_COUNT = 100,
    MESSAGE_BYTES = 1024,
    RING_BYTES = 256 << 10,
    RESULT_RECEIVED = 0,
    RESULT_GAPS = 1,
    RESULT_LAST = 2,
    RESULT_EVENT = 3,
    RESULT_STATUS = 4,
};

/* A dead process may take a moment to be known as dead, or, over tcp, never be. */
static const char *const short_grace_broker[] = {"--log-bytes=1MiB", "--message-bytes-max=64KiB",
                                                 "--session-grace=500ms", NULL};
static const char *const small_broker[] = {"--log-bytes=1MiB", "--message-bytes-max=64KiB", NULL};
/* Who is stopped for as long as a test likes is not ended for it, or soon is. */
static const char *const patient_broker[] = {"--log-bytes=1MiB", "--message-bytes-max=64KiB",
                                             "--block-timeout=10m", NULL};
static const char *const impatient_broker[] = {"--log-bytes=1MiB", "--message-bytes-max=64KiB",
                                               "--block-timeout=2s", NULL};

static uint64_t second_count(void)
{
    return scaled(20000, 6000);
}

static uint64_t total_count(void)
{
    return FIRST_COUNT + second_count() + 1;
}

/* ---- actors ------------------------------------------------------------------------------------
 */

struct reader {
    struct actor *self;
    ringside_policy_t policy;
    uint64_t received_count;
    uint64_t gap_count;
    uint64_t last_sequence;
    uint64_t end_event;     /* LOST or CLOSED */
    uint64_t untaken_count; /* the end's: own messages that the broker did not take */
    uint64_t end_status;
};

static void read_message(void *arg, const ringside_message_t *message)
{
    struct reader *reader = arg;
    uint64_t number;
    check(message->bytes == MESSAGE_BYTES, "a message of %zu bytes", message->bytes);
    memcpy(&number, message->data, sizeof(number));
    check(number == message->sequence, "message %" PRIu64 " has sequence %" PRIu64, number,
          message->sequence);
    /* last_sequence is moved by gaps too: what is left out is told before what follows it. */
    check(message->sequence == reader->last_sequence + 1,
          "sequence %" PRIu64 " came after %" PRIu64 " (%" PRIu64 " received, %" PRIu64 " in gaps)",
          message->sequence, reader->last_sequence, reader->received_count, reader->gap_count);
    reader->last_sequence = message->sequence;
    reader->received_count++;
    actor_set_progress(reader->self, reader->last_sequence);
}

static void read_event(void *arg, const ringside_event_t *event)
{
    struct reader *reader = arg;
    if (event->type == RINGSIDE_EVENT_GAP) {
        check(event->count != UINT64_MAX && event->count > 0, "a gap of unknown size");
        check(strcmp(event->subject, "system.policy") == 0 &&
                  strcmp(event->publisher, "writer") == 0,
              "a gap on %s of %s", event->subject, event->publisher);
        reader->gap_count += event->count;
        reader->last_sequence += event->count;
        actor_set_progress(reader->self, reader->last_sequence);
    }
    if (event->type == RINGSIDE_EVENT_CLOSED || event->type == RINGSIDE_EVENT_LOST) {
        reader->end_event = event->type;
        reader->untaken_count = event->count;
        reader->end_status = (uint64_t)(int64_t)event->status;
        snprintf(reader->self->shared->text, sizeof(reader->self->shared->text), "%s", event->text);
    }
}

static ringside_client_t *open_reader(struct actor *self, struct reader *reader)
{
    const ringside_options_t used = {.deliver_ring_bytes = RING_BYTES,
                                     .publish_ring_bytes = UINT64_MAX,
                                     .on_event = read_event,
                                     .event_arg = reader};
    ringside_client_t *client = actor_connect(self, &used);
    actor_subscribe(client, "system.policy", reader->policy, read_message, reader);
    actor_reach(self, STEP_READY);
    return client;
}

static void set_results(const struct reader *reader)
{
    actor_set_result(reader->self, RESULT_RECEIVED, reader->received_count);
    actor_set_result(reader->self, RESULT_GAPS, reader->gap_count);
    actor_set_result(reader->self, RESULT_LAST, reader->last_sequence);
    actor_set_result(reader->self, RESULT_EVENT, reader->end_event);
    actor_set_result(reader->self, RESULT_STATUS, reader->end_status);
}

/* Until the last message was received or told to be left out. */
static void read_all(struct actor *self, void *arg)
{
    struct reader reader = {.self = self, .policy = *(ringside_policy_t *)arg};
    ringside_client_t *client = open_reader(self, &reader);
    while (reader.last_sequence < total_count()) {
        actor_poll(client);
    }
    check(reader.last_sequence == total_count(), "sequence %" PRIu64 " of %" PRIu64,
          reader.last_sequence, total_count());
    set_results(&reader);
    actor_close(client);
}

/* Until the connection ends. */
static void read_to_the_end(struct actor *self, void *arg)
{
    struct reader reader = {.self = self, .policy = *(ringside_policy_t *)arg};
    ringside_client_t *client = open_reader(self, &reader);
    while (ringside_poll(client, 0, SECOND_NS / 10, NULL) >= 0) {
        ;
    }
    set_results(&reader);
    (void)ringside_close(client, 0);
}

static void write_some(struct actor *self, ringside_client_t *client,
                       ringside_publisher_t *publisher, uint64_t *number, uint64_t count)
{
    uint8_t message[MESSAGE_BYTES] = {0};
    for (uint64_t last = *number + count; *number < last;) {
        ++*number;
        memcpy(message, number, sizeof(*number));
        actor_publish(client, publisher, message, sizeof(message));
        actor_set_progress(self, *number);
    }
    actor_flush(client);
}

/* Over dpdk only who polls is alive. */
static void poll_until_allowed(struct actor *self, ringside_client_t *client, uint64_t step)
{
    while (!actor_is_allowed(self, step)) {
        actor_poll(client);
    }
}

static void write_all(struct actor *self, void *arg)
{
    uint64_t number = 0;
    (void)arg;
    ringside_client_t *client = actor_connect(self, NULL);
    ringside_publisher_t *publisher = actor_publisher(client, "system.policy");
    actor_reach(self, STEP_READY);
    poll_until_allowed(self, client, STEP_FIRST);
    write_some(self, client, publisher, &number, FIRST_COUNT);
    poll_until_allowed(self, client, STEP_SECOND);
    write_some(self, client, publisher, &number, second_count());
    poll_until_allowed(self, client, STEP_LAST);
    write_some(self, client, publisher, &number, 1);
    actor_close(client);
}

static void count_message(void *arg, const ringside_message_t *message)
{
    (void)message;
    ++*(uint64_t *)arg;
}

/* Publishes what only it reads itself, until it may leave; progress is what came back. */
static void go_round(struct actor *self, void *arg)
{
    uint8_t message[MESSAGE_BYTES] = {0};
    uint64_t received_count = 0;
    (void)arg;
    ringside_client_t *client = actor_connect(self, NULL);
    ringside_publisher_t *publisher = actor_publisher(client, "system.other");
    actor_subscribe(client, "system.other", RINGSIDE_POLICY_BLOCK, count_message, &received_count);
    actor_reach(self, STEP_READY);
    while (!actor_is_allowed(self, STEP_LAST)) {
        ringside_status_t status = ringside_publish(publisher, message, sizeof(message));
        check(status >= 0, "publish: %s", ringside_status_name(status));
        actor_poll(client);
        actor_set_progress(self, received_count);
    }
    actor_close(client);
}

/* ---- policies ----------------------------------------------------------------------------------
 */

struct scene {
    struct broker broker;
    struct actor slow;
    struct actor steady;
    struct actor writer;
};

/* Everybody has the first messages; then the slow one is stopped and too many follow. */
static void begin_scene(struct scene *scene, const char *const *flags, ringside_policy_t policy,
                        actor_main_t read_slowly)
{
    static ringside_policy_t slow_policy;
    static ringside_policy_t block = RINGSIDE_POLICY_BLOCK;
    slow_policy = policy;
    broker_start(&scene->broker, flags);
    actor_start(&scene->slow, "slow", &scene->broker, read_slowly, &slow_policy);
    actor_start(&scene->steady, "steady", &scene->broker, read_all, &block);
    actor_await_step(&scene->slow, STEP_READY);
    actor_await_step(&scene->steady, STEP_READY);
    actor_start(&scene->writer, "writer", &scene->broker, write_all, NULL);
    actor_allow(&scene->writer, STEP_FIRST);
    actor_await_progress(&scene->slow, FIRST_COUNT);
    actor_await_progress(&scene->steady, FIRST_COUNT);
    actor_signal(&scene->slow, SIGSTOP);
    actor_allow(&scene->writer, STEP_SECOND);
}

static void end_scene(struct scene *scene)
{
    actor_allow(&scene->writer, STEP_LAST);
    actor_join(&scene->writer);
    actor_join(&scene->steady);
    actor_join(&scene->slow);
    check(actor_result(&scene->steady, RESULT_RECEIVED) == total_count() &&
              actor_result(&scene->steady, RESULT_GAPS) == 0,
          "the steady one received %" PRIu64 " of %" PRIu64,
          actor_result(&scene->steady, RESULT_RECEIVED), total_count());
    check(broker_stop(&scene->broker) == 0, "the broker did not stop cleanly");
}

static void test_drop(void)
{
    struct scene scene;
    begin_scene(&scene, small_broker, RINGSIDE_POLICY_DROP, read_all);
    actor_await_progress(&scene.steady, FIRST_COUNT + second_count());
    broker_await_counter(&scene.broker, "session.dropped_messages", "slow", 1);
    actor_signal(&scene.slow, SIGCONT);
    actor_await_progress(&scene.slow, FIRST_COUNT + second_count());
    /* The broker's count is refreshed once a second, and final by now. */
    broker_await_counter(&scene.broker, "session.delivered_messages", "steady",
                         FIRST_COUNT + second_count());
    uint64_t dropped_count = broker_counter(&scene.broker, "session.dropped_messages", "slow");
    uint64_t broker_gap_count = broker_counter(&scene.broker, "session.gaps", "slow");
    end_scene(&scene);
    uint64_t received_count = actor_result(&scene.slow, RESULT_RECEIVED);
    uint64_t gap_count = actor_result(&scene.slow, RESULT_GAPS);
    tell("%" PRIu64 " received and %" PRIu64 " left out of %" PRIu64 "; the broker counts %" PRIu64
         " in %" PRIu64 " gaps",
         received_count, gap_count, total_count(), dropped_count, broker_gap_count);
    check(gap_count > 0 && received_count + gap_count == total_count(), "they do not add up");
    check(dropped_count == gap_count,
          "the broker counts %" PRIu64 ", the subscriber was told %" PRIu64, dropped_count,
          gap_count);
}

static void test_disconnect(void)
{
    struct scene scene;
    begin_scene(&scene, small_broker, RINGSIDE_POLICY_DISCONNECT, read_to_the_end);
    broker_await_counter(&scene.broker, "broker.sessions_slow", NULL, 1);
    actor_signal(&scene.slow, SIGCONT);
    actor_join(&scene.slow);
    actor_await_progress(&scene.steady, FIRST_COUNT + second_count());
    end_scene(&scene);
    ringside_status_t status = (ringside_status_t)(int64_t)actor_result(&scene.slow, RESULT_STATUS);
    tell("%s: %s", ringside_status_name(status), scene.slow.shared->text);
    check(actor_result(&scene.slow, RESULT_EVENT) == RINGSIDE_EVENT_CLOSED, "event %" PRIu64,
          actor_result(&scene.slow, RESULT_EVENT));
    check(status == RINGSIDE_E_SLOW, "the event's status is %s", ringside_status_name(status));
    check_text(scene.slow.shared->text, "slow");
    check(actor_result(&scene.slow, RESULT_GAPS) == 0 &&
              actor_result(&scene.slow, RESULT_RECEIVED) >= FIRST_COUNT,
          "%" PRIu64 " received and %" PRIu64 " in gaps before the end",
          actor_result(&scene.slow, RESULT_RECEIVED), actor_result(&scene.slow, RESULT_GAPS));
}

/* The number under which the broker knows a client, as its log says. */
static uint64_t session_id(const struct broker *broker, const char *client_name)
{
    char part[64];
    snprintf(part, sizeof(part), "client %s (", client_name);
    const char *line = strstr(read_file(broker->program.output_path), part);
    const char *number = line != NULL ? strstr(line, ": session ") : NULL;
    check(number != NULL, "the log does not name the session of %s", client_name);
    return strtoull(number + strlen(": session "), NULL, 10);
}

/* The counters and the log name who is slow, and whom it holds up. */
static void check_named(const struct scene *scene)
{
    const struct broker *broker = &scene->broker;
    broker_await_counter(broker, "session.blocked_ns", "slow", SECOND_NS);
    broker_await_counter(broker, "session.stalled_ns", "writer", SECOND_NS);
    broker_await_counter(broker, "session.spill_bytes", "slow", RING_BYTES);
    uint64_t by = broker_counter(broker, "session.stalled_by", "writer");
    check(by == session_id(broker, "slow"), "the writer is held up by session %" PRIu64, by);
    check(broker_counter(broker, "session.stalled_ns", "bystander") == 0,
          "the bystander was held up for %" PRIu64 " ns",
          broker_counter(broker, "session.stalled_ns", "bystander"));
    await(strstr(read_file(broker->program.output_path), "publishers wait for it under policy") !=
              NULL,
          "the log does not say who is slow");
    tell("blocked for %.1f s, %" PRIu64 " KiB in its spill; the writer waited %.1f s",
         (double)broker_counter(broker, "session.blocked_ns", "slow") / 1e9,
         broker_counter(broker, "session.spill_bytes", "slow") >> 10,
         (double)broker_counter(broker, "session.stalled_ns", "writer") / 1e9);
}

static void test_block(void)
{
    const struct timespec look = {.tv_sec = 2};
    struct scene scene;
    struct actor bystander;
    begin_scene(&scene, patient_broker, RINGSIDE_POLICY_BLOCK, read_all);
    actor_start(&bystander, "bystander", &scene.broker, go_round, NULL);
    actor_await_step(&bystander, STEP_READY);
    broker_await_counter(&scene.broker, "agent.blocked_passes", NULL, 1);
    /* Held: the rings fill, then nothing moves for as long as one cares to look. */
    uint64_t held = 0;
    await((held = actor_progress(&scene.writer), nanosleep(&look, NULL),
           actor_progress(&scene.writer) == held),
          "the publisher goes on: at %" PRIu64, actor_progress(&scene.writer));
    check(held < FIRST_COUNT + second_count(), "the publisher was not held back");
    tell("the publisher was held at message %" PRIu64 " of %" PRIu64, held, total_count());
    /* Several windows of the logs pass by. */
    actor_await_progress(&bystander, actor_progress(&bystander) + scaled(20000, 4000));
    check_named(&scene);
    check(actor_progress(&scene.writer) == held, "the publisher went on meanwhile");
    actor_signal(&scene.slow, SIGCONT);
    actor_await_progress(&scene.slow, FIRST_COUNT + second_count());
    actor_allow(&bystander, STEP_LAST);
    actor_join(&bystander);
    await(broker_counter(&scene.broker, "session.spill_bytes", "slow") == 0,
          "something stays in the spill");
    end_scene(&scene);
    check(actor_result(&scene.slow, RESULT_RECEIVED) == total_count() &&
              actor_result(&scene.slow, RESULT_GAPS) == 0,
          "%" PRIu64 " of %" PRIu64 " received, %" PRIu64 " in gaps",
          actor_result(&scene.slow, RESULT_RECEIVED), total_count(),
          actor_result(&scene.slow, RESULT_GAPS));
}

/* Who takes nothing for too long is ended, and the publisher goes on. */
static void test_block_timeout(void)
{
    struct scene scene;
    begin_scene(&scene, impatient_broker, RINGSIDE_POLICY_BLOCK, read_to_the_end);
    /* It goes on at once, to hear the goodbye: the broker does not wait for that for long. */
    await(strstr(read_file(scene.broker.program.output_path), "took nothing for") != NULL,
          "the stopped subscriber is not ended");
    actor_signal(&scene.slow, SIGCONT);
    actor_await_progress(&scene.steady, FIRST_COUNT + second_count());
    broker_await_counter(&scene.broker, "broker.sessions_slow", NULL, 1);
    actor_join(&scene.slow);
    end_scene(&scene);
    ringside_status_t status = (ringside_status_t)(int64_t)actor_result(&scene.slow, RESULT_STATUS);
    tell("%s: %s", ringside_status_name(status), scene.slow.shared->text);
    check(actor_result(&scene.slow, RESULT_EVENT) == RINGSIDE_EVENT_CLOSED &&
              status == RINGSIDE_E_SLOW,
          "event %" PRIu64 ", %s", actor_result(&scene.slow, RESULT_EVENT),
          ringside_status_name(status));
    check_text(scene.slow.shared->text, "subscriber slow");
    check_text(scene.slow.shared->text, "publisher writer");
    check_text(scene.slow.shared->text, "system.policy");
    check_text(scene.slow.shared->text, "block_timeout");
    check(actor_result(&scene.slow, RESULT_GAPS) == 0, "it was told of gaps");
}

/* ---- stopping ----------------------------------------------------------------------------------
 */

/*
 * Publishes until the connection ends; progress is what surely arrived at the broker. What arrives
 * after the broker began to stop it takes no more: the event says how many messages that were.
 */
static void write_until_closed(struct actor *self, void *arg)
{
    struct reader events = {.self = self};
    uint8_t message[MESSAGE_BYTES] = {0};
    const ringside_options_t used = {.on_event = read_event, .event_arg = &events};
    ringside_status_t status = RINGSIDE_OK;
    uint64_t number = 0;
    (void)arg;
    ringside_client_t *client = actor_connect(self, &used);
    ringside_publisher_t *publisher = actor_publisher(client, "system.policy");
    actor_reach(self, STEP_READY);
    while (status >= 0) {
        uint64_t next = number + 1;
        memcpy(message, &next, sizeof(next));
        status = ringside_publish(publisher, message, sizeof(message));
        if (status == RINGSIDE_OK) {
            number = next;
        } else if (status == RINGSIDE_WOULD_BLOCK) {
            status = ringside_poll(client, 0, SECOND_NS / 10, NULL);
        }
        if (number % 50 == 0 && status == RINGSIDE_OK) {
            status = ringside_flush(client, hang_ns());
            if (status == RINGSIDE_OK) {
                actor_set_progress(self, number);
            }
        }
    }
    while (ringside_poll(client, 0, SECOND_NS / 10, NULL) >= 0) {
        ;
    }
    set_results(&events);
    actor_set_result(self, RESULT_RECEIVED, number);
    actor_set_result(self, RESULT_LAST, events.untaken_count);
    status = ringside_close(client, 0);
    check(status == (events.untaken_count > 0 ? RINGSIDE_E_LOST : RINGSIDE_OK),
          "close said %s with %" PRIu64 " messages not taken", ringside_status_name(status),
          events.untaken_count);
}

static void check_told_of_end(const struct actor *actor)
{
    check(actor_result(actor, RESULT_EVENT) == RINGSIDE_EVENT_CLOSED,
          "%s got event %" PRIu64 " (%s), not CLOSED", actor->name,
          actor_result(actor, RESULT_EVENT), actor->shared->text);
    tell("%s: %s", actor->name, actor->shared->text);
    check(actor->shared->text[0] != '\0', "%s was not told why", actor->name);
}

static void test_stop_under_traffic(void)
{
    enum { READER_COUNT = 3 };
    static const char *const names[READER_COUNT] = {"reader-0", "reader-1", "reader-2"};
    static ringside_policy_t block = RINGSIDE_POLICY_BLOCK;
    struct broker broker;
    struct actor readers[READER_COUNT];
    struct actor writer;
    broker_start(&broker, (const char *const[]){"--message-bytes-max=64KiB", NULL});
    for (unsigned index = 0; index < READER_COUNT; index++) {
        actor_start(&readers[index], names[index], &broker, read_to_the_end, &block);
        actor_await_step(&readers[index], STEP_READY);
    }
    actor_start(&writer, "writer", &broker, write_until_closed, NULL);
    actor_await_progress(&writer, scaled(20000, 1000));
    uint64_t start_ns = now_ns();
    uint64_t taken_count = actor_progress(&writer);
    int code = broker_stop(&broker);
    double seconds = (double)(now_ns() - start_ns) / 1e9;
    actor_join(&writer);
    tell("the broker stopped in %.2f s with code %d; %" PRIu64 " published, %" PRIu64
         " had surely arrived before",
         seconds, code, actor_result(&writer, RESULT_RECEIVED), taken_count);
    check(code == 0, "code %d: not everything was delivered in time", code);
    check_told_of_end(&writer);
    for (unsigned index = 0; index < READER_COUNT; index++) {
        actor_join(&readers[index]);
        check_told_of_end(&readers[index]);
        uint64_t received_count = actor_result(&readers[index], RESULT_RECEIVED);
        check(received_count >= taken_count &&
                  received_count <= actor_result(&writer, RESULT_RECEIVED),
              "%s received %" PRIu64 ", but %" PRIu64 " had arrived at the broker before",
              names[index], received_count, taken_count);
        check(actor_result(&readers[index], RESULT_GAPS) == 0, "%s was told of gaps", names[index]);
        check(received_count ==
                  actor_result(&writer, RESULT_RECEIVED) - actor_result(&writer, RESULT_LAST),
              "%s received %" PRIu64 ", but the writer published %" PRIu64
              " and was told that %" PRIu64 " were not taken",
              names[index], received_count, actor_result(&writer, RESULT_RECEIVED),
              actor_result(&writer, RESULT_LAST));
    }
}

/* ---- dying clients -----------------------------------------------------------------------------
 */

static void visit(struct actor *self, void *arg)
{
    static ringside_policy_t block = RINGSIDE_POLICY_BLOCK;
    struct reader reader = {.self = self, .policy = block};
    (void)arg;
    ringside_client_t *client = open_reader(self, &reader);
    while (!actor_is_allowed(self, STEP_LAST)) {
        actor_poll(client);
    }
    actor_close(client);
}

static void kill_visitor(const struct broker *broker)
{
    struct actor visitor;
    actor_start(&visitor, "visitor", broker, visit, NULL);
    actor_await_step(&visitor, STEP_READY);
    actor_kill(&visitor);
}

static void test_killed_clients(void)
{
    enum { KILL_COUNT = 5 };
    static ringside_policy_t block = RINGSIDE_POLICY_BLOCK;
    size_t fd_count[2];
    size_t map_count[2];
    struct broker broker;
    struct actor steady;
    struct actor writer;
    broker_start(&broker, short_grace_broker);
    actor_start(&steady, "steady", &broker, read_all, &block);
    actor_await_step(&steady, STEP_READY);
    actor_start(&writer, "writer", &broker, write_all, NULL);
    actor_await_step(&writer, STEP_READY);
    actor_allow(&writer, STEP_FIRST);
    actor_await_progress(&steady, FIRST_COUNT);
    /* The first ones leave behind what the broker makes once and keeps. */
    for (unsigned round = 0; round < KILL_COUNT; round++) {
        kill_visitor(&broker);
    }
    broker_await_counter(&broker, "broker.sessions_lost", NULL, KILL_COUNT);
    await(broker_counter(&broker, "broker.sessions", NULL) == 2, "the dead client's session stays");
    broker_count_resources(&broker, &fd_count[0], &map_count[0]);
    for (unsigned round = 0; round < KILL_COUNT; round++) {
        kill_visitor(&broker);
    }
    broker_await_counter(&broker, "broker.sessions_lost", NULL, 2 * KILL_COUNT);
    /* How many maps malloc keeps depends on how many sessions there were at a time; a client's own
     * would be at least one for each. */
    await((broker_count_resources(&broker, &fd_count[1], &map_count[1]),
           fd_count[1] <= fd_count[0] && map_count[1] < map_count[0] + KILL_COUNT),
          "%zu descriptors and %zu mappings became %zu and %zu", fd_count[0], map_count[0],
          fd_count[1], map_count[1]);
    tell("%zu descriptors and %zu mappings, after %d killed clients %zu and %zu", fd_count[0],
         map_count[0], KILL_COUNT, fd_count[1], map_count[1]);
    /* And the others are served as before. */
    actor_allow(&writer, STEP_LAST);
    actor_join(&writer);
    actor_join(&steady);
    check(actor_result(&steady, RESULT_RECEIVED) == total_count(), "%" PRIu64 " received",
          actor_result(&steady, RESULT_RECEIVED));
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"drop", test_drop, NULL},
        {"disconnect", test_disconnect, NULL},
        {"block", test_block, NULL},
        {"block timeout", test_block_timeout, NULL},
        {"stop under traffic", test_stop_under_traffic, NULL},
        {"killed clients", test_killed_clients, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
