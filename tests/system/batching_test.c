/*
 * What a burst costs on each hop, and that a single message costs no waiting.
 *
 * Design notes
 * - Both hops are counted by the transport's own counters: the publisher's by ringside_stats, the
 *   broker's towards the subscriber by the broker's counters file.
 * - That file is refreshed once a second, a session's messages before its link's sends. So when it
 *   shows a message that was published after the burst had arrived, its sends include the burst's.
 */
#include "tests/system/harness.h"

enum {
    BURST_COUNT = 1000,
    BURST_COST_MAX = 40,
    ROUND_COUNT_MAX = 5,
    STEP_SUBSCRIBED = 1,
    STEP_CONNECTED = 1,
};

struct burst {
    unsigned stride; /* the subscriber takes every stride-th message */
    struct actor *subscriber;
};

struct sink {
    struct actor *self;
    uint64_t received_count;
    uint64_t last;
};

static void on_numbered(void *arg, const ringside_message_t *message)
{
    struct sink *sink = arg;
    uint64_t number;
    check(message->bytes == 64, "a message of %zu bytes", message->bytes);
    memcpy(&number, message->data, sizeof(number));
    check(sink->received_count == 0 || number > sink->last, "%" PRIu64 " came after %" PRIu64,
          number, sink->last);
    sink->last = number;
    actor_set_progress(sink->self, ++sink->received_count);
}

static void receive_even(struct actor *self, void *arg)
{
    struct sink sink = {.self = self};
    (void)arg;
    ringside_client_t *client = actor_connect(self, NULL);
    actor_subscribe(client, "system.burst.even", RINGSIDE_POLICY_BLOCK, on_numbered, &sink);
    actor_reach(self, STEP_SUBSCRIBED);
    while (!actor_is_allowed(self, UINT64_MAX)) {
        actor_poll(client);
    }
    actor_close(client);
}

/* One round per allowed step: the burst, all at once; then its cost in result 0. */
static void publish_bursts(struct actor *self, void *arg)
{
    const struct burst *burst = arg;
    uint64_t message[8] = {0};
    ringside_client_t *client = actor_connect(self, NULL);
    ringside_publisher_t *publishers[2];
    publishers[0] = actor_publisher(client, "system.burst.even");
    publishers[1] = actor_publisher(client, "system.burst.odd");
    actor_reach(self, STEP_CONNECTED);
    for (uint64_t round = 0; round < scaled(ROUND_COUNT_MAX, 1); round++) {
        actor_await_allowed(self, 2 * round + 1);
        actor_flush(client);
        ringside_link_stats_t before = actor_stats(client);
        for (unsigned index = 0; index < BURST_COUNT; index++) {
            message[0]++;
            ringside_status_t status =
                ringside_publish(publishers[index % burst->stride], message, sizeof(message));
            check(status == RINGSIDE_OK, "message %u of a burst: %s", index,
                  ringside_error_text(client));
        }
        actor_flush(client);
        ringside_link_stats_t after = actor_stats(client);
        actor_set_result(self, 0, after.sends - before.sends);
        actor_set_result(self, 1, after.batches_sent - before.batches_sent);
        actor_reach(self, 2 * round + 2);
        /* The marker: what the counters say when they show it is after the burst. */
        actor_await_allowed(self, 2 * round + 2);
        message[0]++;
        actor_publish(client, publishers[0], message, sizeof(message));
        actor_flush(client);
    }
    actor_reach(self, UINT64_MAX);
    actor_close(client);
}

static void check_cost(const char *hop, uint64_t round, uint64_t sends)
{
    /* With more agents the hops run on their own time: then only the messages are checked. */
    if (options.agent_count == 1) {
        check(sends <= BURST_COST_MAX,
              "burst %" PRIu64 " of %d messages cost %" PRIu64 " sends %s, more than %d", round,
              BURST_COUNT, sends, hop, BURST_COST_MAX);
    }
}

static void run_rounds(struct broker *broker, struct actor *publisher, struct actor *subscriber,
                       unsigned stride)
{
    uint64_t taken_count = 0;
    for (uint64_t round = 0; round < scaled(ROUND_COUNT_MAX, 1); round++) {
        uint64_t before = broker_counter(broker, "link.sends", "reader");
        actor_allow(publisher, 2 * round + 1);
        actor_await_step(publisher, 2 * round + 2);
        taken_count += BURST_COUNT / stride;
        await(actor_progress(subscriber) >= taken_count,
              "the subscriber has %" PRIu64 " messages of %" PRIu64, actor_progress(subscriber),
              taken_count);
        uint64_t first_cost = actor_result(publisher, 0);
        actor_allow(publisher, 2 * round + 2);
        taken_count++;
        broker_await_counter(broker, "session.delivered_messages", "reader", taken_count);
        uint64_t second_cost = broker_counter(broker, "link.sends", "reader") - before;
        tell("burst %" PRIu64 ": %" PRIu64 " sends in %" PRIu64 " batches to the broker, %" PRIu64
             " sends to the subscriber with the marker's",
             round, first_cost, actor_result(publisher, 1), second_cost);
        check_cost("to the broker", round, first_cost);
        /* The marker is one more message, and at most two sends of its own. */
        check_cost("to the subscriber", round, second_cost - (second_cost > 2 ? 2 : second_cost));
    }
    check(actor_progress(subscriber) <= taken_count, "more messages than were sent");
}

static void run_bursts(unsigned stride)
{
    struct broker broker;
    struct actor subscriber;
    struct actor publisher;
    struct burst burst = {.stride = stride};
    broker_start(&broker, NULL);
    actor_start(&subscriber, "reader", &broker, receive_even, NULL);
    actor_await_step(&subscriber, STEP_SUBSCRIBED);
    actor_start(&publisher, "writer", &broker, publish_bursts, &burst);
    actor_await_step(&publisher, STEP_CONNECTED);
    run_rounds(&broker, &publisher, &subscriber, stride);
    actor_join(&publisher);
    actor_allow(&subscriber, UINT64_MAX);
    actor_join(&subscriber);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

static void test_burst(void)
{
    run_bursts(1);
}

static void test_burst_every_second(void)
{
    run_bursts(2);
}

/* ---- a single message --------------------------------------------------------------------------
 */

/* Publishes once per allowed step, and then calls nothing of the library. */
static void publish_singly(struct actor *self, void *arg)
{
    uint64_t count = *(uint64_t *)arg;
    uint64_t message[8] = {0};
    uint64_t idle_ns = 0;
    ringside_client_t *client = actor_connect(self, NULL);
    ringside_publisher_t *publisher = actor_publisher(client, "system.burst.even");
    actor_flush(client);
    actor_reach(self, STEP_CONNECTED);
    for (message[0] = 1; message[0] <= count; message[0]++) {
        actor_await_allowed(self, message[0]);
        /* Where emitting is slow, what comes within 2 ms may wait for the next call (ringside.h).
         */
        while (now_ns() < idle_ns) {
            nap();
        }
        check(ringside_publish(publisher, message, sizeof(message)) == RINGSIDE_OK, "%s",
              ringside_error_text(client));
        idle_ns = now_ns() + 3000000;
    }
    actor_await_allowed(self, UINT64_MAX);
    actor_close(client);
}

static void test_single(void)
{
    uint64_t count = 20;
    struct broker broker;
    struct actor subscriber;
    struct actor publisher;
    broker_start(&broker, NULL);
    actor_start(&subscriber, "reader", &broker, receive_even, NULL);
    actor_await_step(&subscriber, STEP_SUBSCRIBED);
    actor_start(&publisher, "writer", &broker, publish_singly, &count);
    actor_await_step(&publisher, STEP_CONNECTED);
    for (uint64_t number = 1; number <= count; number++) {
        actor_allow(&publisher, number);
        await(actor_progress(&subscriber) >= number,
              "message %" PRIu64 " does not arrive while its publisher does nothing more", number);
    }
    actor_allow(&publisher, UINT64_MAX);
    actor_join(&publisher);
    actor_allow(&subscriber, UINT64_MAX);
    actor_join(&subscriber);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"burst", test_burst, NULL},
        {"burst, every second message wanted", test_burst_every_second, NULL},
        {"single message", test_single, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
