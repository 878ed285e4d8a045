/*
 * What a client asks for beyond the common way: messages that it holds, and its own that it does
 * not want to see.
 */
#include "tests/system/harness.h"

#include <stdlib.h>

enum { STEP_SUBSCRIBED = 1, STEP_FULL = 2, STEP_RELEASE = 1, HOLD_MAX = 16 };

/* ---- holds -------------------------------------------------------------------------------------
 */

struct holder {
    struct actor *self;
    ringside_client_t *client;
    uint64_t count; /* of messages published */
    uint64_t received_count;
    uint64_t missed_count;
    uint64_t random;
    bool holds_first; /* alone, else random ones */
    ringside_hold_t *holds[HOLD_MAX];
};

/* A message of its number and what follows from it. */
static size_t make_message(uint64_t words[64], uint64_t number)
{
    uint64_t state = options.seed + number;
    size_t count = 1 + random_next(&state) % 63;
    words[0] = number;
    for (size_t at = 1; at < count; at++) {
        words[at] = random_next(&state);
    }
    return count * sizeof(words[0]);
}

static void check_message(const ringside_message_t *message)
{
    uint64_t words[64];
    check(message != NULL, "a hold has no message");
    size_t bytes = make_message(words, message->sequence);
    check(message->bytes == bytes && memcmp(message->data, words, bytes) == 0,
          "message %" PRIu64 " holds other bytes", message->sequence);
    check(strcmp(message->subject, "system.holds") == 0, "another subject: %s", message->subject);
}

static void release_at(struct holder *holder, size_t at)
{
    if (holder->holds[at] != NULL) {
        check_message(ringside_hold_message(holder->holds[at]));
        check(ringside_release(holder->holds[at]) == RINGSIDE_OK, "release: %s",
              ringside_error_text(holder->client));
        holder->holds[at] = NULL;
    }
}

static void on_held(void *arg, const ringside_message_t *message)
{
    struct holder *holder = arg;
    check_message(message);
    holder->received_count++;
    size_t at = holder->holds_first ? 0 : random_next(&holder->random) % HOLD_MAX;
    if (holder->holds_first ? holder->received_count == 1 : random_next(&holder->random) % 8 == 0) {
        release_at(holder, at);
        check(ringside_hold(holder->client, message, &holder->holds[at]) == RINGSIDE_OK, "hold: %s",
              ringside_error_text(holder->client));
    }
    actor_set_progress(holder->self, message->sequence);
}

static void on_held_event(void *arg, const ringside_event_t *event)
{
    struct holder *holder = arg;
    if (event->type == RINGSIDE_EVENT_GAP) {
        holder->missed_count += event->count;
    }
}

static void connect_holder(struct actor *self, struct holder *holder, ringside_policy_t policy)
{
    const ringside_options_t given = {.struct_bytes = sizeof(given),
                                      .deliver_ring_bytes = 65536,
                                      .message_bytes_max = 16384,
                                      .hold_count_max = HOLD_MAX,
                                      .on_event = on_held_event,
                                      .event_arg = holder};
    holder->self = self;
    holder->random = options.seed;
    holder->client = actor_connect(self, &given);
    actor_subscribe(holder->client, "system.holds", policy, on_held, holder);
    actor_reach(self, STEP_SUBSCRIBED);
}

/* Random messages are held for a random while; none may be lost for it. */
static void hold_at_random(struct actor *self, void *arg)
{
    struct holder holder = *(const struct holder *)arg;
    connect_holder(self, &holder, RINGSIDE_POLICY_BLOCK);
    for (size_t turn = 0; holder.received_count < holder.count; turn++) {
        /* A full ring waits for a release: none is held for so long that it counts as slow. */
        check(ringside_poll(holder.client, 0, 1000000, NULL) == RINGSIDE_OK, "poll: %s",
              ringside_error_text(holder.client));
        release_at(&holder, random_next(&holder.random) % HOLD_MAX);
        release_at(&holder, turn % HOLD_MAX);
    }
    check(holder.missed_count == 0, "%" PRIu64 " were left out", holder.missed_count);
    for (size_t at = 0; at < HOLD_MAX / 2; at++) {
        release_at(&holder, at);
    }
    actor_close(holder.client); /* with the other half */
}

/* The first message is held until the ring is full and messages are left out: its own doing, which
 * policy drop tells exactly. */
static void hold_the_first(struct actor *self, void *arg)
{
    struct holder holder = *(const struct holder *)arg;
    connect_holder(self, &holder, RINGSIDE_POLICY_DROP);
    while (!actor_is_allowed(self, STEP_RELEASE)) {
        actor_poll(holder.client);
    }
    actor_set_result(self, 0, holder.received_count);
    release_at(&holder, 0);
    while (holder.received_count + holder.missed_count < holder.count) {
        actor_poll(holder.client);
    }
    actor_set_result(self, 1, holder.missed_count);
    actor_close(holder.client);
}

static void write_all(struct actor *self, void *arg)
{
    const struct holder *holder = arg;
    uint64_t words[64];
    ringside_client_t *client = actor_connect(self, NULL);
    ringside_publisher_t *publisher = actor_publisher(client, "system.holds");
    for (uint64_t number = 1; number <= holder->count; number++) {
        actor_publish(client, publisher, words, make_message(words, number));
        actor_set_progress(self, number);
    }
    actor_flush(client);
    actor_close(client);
}

static void run_holder(actor_main_t hold, struct holder *holder)
{
    struct broker broker;
    struct actor reader;
    struct actor writer;
    broker_start(&broker,
                 (const char *const[]){"--log-bytes=1MiB", "--message-bytes-max=16KiB", NULL});
    actor_start(&reader, "holder", &broker, hold, holder);
    actor_await_step(&reader, STEP_SUBSCRIBED);
    actor_start(&writer, "writer", &broker, write_all, holder);
    actor_join(&writer);
    actor_allow(&reader, STEP_RELEASE);
    actor_join(&reader);
    if (holder->holds_first) {
        tell("%" PRIu64 " of %" PRIu64 " messages came while the first was held, %" PRIu64
             " were left out",
             actor_result(&reader, 0), holder->count, actor_result(&reader, 1));
        check(actor_result(&reader, 0) < holder->count && actor_result(&reader, 1) > 0,
              "the held message held nothing");
    }
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

static void test_holds(void)
{
    struct holder holder = {.count = scaled(50000, 5000)};
    run_holder(hold_at_random, &holder);
}

static void test_held_ring(void)
{
    struct holder holder = {.count = 10000, .holds_first = true};
    run_holder(hold_the_first, &holder);
}

/* ---- own messages ------------------------------------------------------------------------------
 */

struct echo {
    uint64_t own_count;
    uint64_t other_count;
};

static void on_echo(void *arg, const ringside_message_t *message)
{
    struct echo *echo = arg;
    bool is_own = strcmp(message->publisher, "self") == 0;
    echo->own_count += is_own;
    echo->other_count += !is_own;
}

static ringside_subscription_t *subscribe_echo(ringside_client_t *client, const char *subject,
                                               int no_echo, struct echo *echo)
{
    const ringside_subscribe_options_t given = {
        .struct_bytes = sizeof(given), .policy = RINGSIDE_POLICY_BLOCK, .no_echo = no_echo};
    ringside_subscription_t *subscription = NULL;
    check(ringside_subscribe(&subscription, client, subject, &given, on_echo, echo) == RINGSIDE_OK,
          "subscribe: %s", ringside_error_text(client));
    return subscription;
}

static ringside_client_t *connect_named(const struct broker *broker, const char *name)
{
    struct actor as = {.name = name, .broker = broker};
    return actor_connect(&as, NULL);
}

/* Both clients publish ten; whoever wants echoes has twenty then. */
static void exchange(ringside_client_t *self, ringside_publisher_t *mine, ringside_client_t *other,
                     ringside_publisher_t *theirs, const struct echo *with)
{
    uint64_t own_count = with->own_count + 10;
    uint64_t other_count = with->other_count + 10;
    for (unsigned i = 0; i < 10; i++) {
        actor_publish(self, mine, "mine", 4);
        actor_publish(other, theirs, "theirs", 6);
    }
    actor_flush(other);
    uint64_t until_ns = now_ns() + hang_ns();
    while (with->own_count < own_count || with->other_count < other_count) {
        actor_poll(self);
        check(now_ns() < until_ns, "of own messages %" PRIu64 " came, of others %" PRIu64,
              with->own_count, with->other_count);
    }
}

/* One session has subscriptions with and without echo on the same messages: each gets its own. */
static void test_no_echo(void)
{
    struct broker broker;
    struct echo with = {0};
    struct echo without = {0};
    struct echo without_too = {0};
    broker_start(&broker, NULL);
    ringside_client_t *self = connect_named(&broker, "self");
    ringside_client_t *other = connect_named(&broker, "other");
    ringside_publisher_t *mine = actor_publisher(self, "echo.a");
    ringside_publisher_t *theirs = actor_publisher(other, "echo.a");
    (void)subscribe_echo(self, "echo.a", 1, &without);
    ringside_subscription_t *echoing = subscribe_echo(self, "echo.>", 0, &with);
    (void)subscribe_echo(self, "*.a", 1, &without_too);
    exchange(self, mine, other, theirs, &with);
    check(without.other_count == 10 && without.own_count == 0 && without_too.other_count == 10 &&
              without_too.own_count == 0,
          "without echo %" PRIu64 " own ones came, %" PRIu64 " of the other", without.own_count,
          without.other_count);
    check(with.own_count == 10 && with.other_count == 10, "with echo %" PRIu64 " own ones came",
          with.own_count);

    /* Without the one that wants them the broker sends no own ones any more. */
    check(ringside_unsubscribe(echoing, 0) == RINGSIDE_OK, "unsubscribe: %s",
          ringside_error_text(self));
    uint64_t arrived_bytes = actor_stats(self).arrived_bytes;
    for (unsigned i = 0; i < 10; i++) {
        actor_publish(self, mine, "mine", 4);
    }
    actor_flush(self);
    actor_publish(other, theirs, "last", 4);
    actor_flush(other);
    uint64_t until_ns = now_ns() + hang_ns();
    while (without.other_count < 11) {
        actor_poll(self);
        check(now_ns() < until_ns, "the other's last message does not come");
    }
    check(without.own_count == 0 && without_too.other_count == 11 && with.own_count == 10,
          "own messages came without echo");
    arrived_bytes = actor_stats(self).arrived_bytes - arrived_bytes;
    check(arrived_bytes == 48, "%" PRIu64 " bytes came for one message", arrived_bytes);
    actor_close(self);
    actor_close(other);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"holds", test_holds, NULL},
        {"held ring", test_held_ring, NULL},
        {"no echo", test_no_echo, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
