/*
 * Sleep and wake: every way in which a broker waits with every way in which clients wait.
 *
 * Design notes
 * - Two clients answer each other through the broker, now at once, now after a pause that is long
 *   enough for everybody to fall asleep: each hop then has to wake the next. A wake-up that is lost
 *   stops the exchange for good, because nobody here has a time-out that would hide it.
 * - Then one sends more than all rings hold to the other, who reads only when it is allowed to: the
 *   sender sleeps for room, the reader for messages.
 * - That they did sleep, or never did, is read from their own counts.
 */
#include "tests/system/harness.h"

#include <stdlib.h>

enum {
    EXCHANGE_COUNT = 400,
    FLOOD_BYTES = 1000,
    FLOOD_COUNT = 16384, /* about 16 MiB: eight rings */
    STEP_READY = 1,
    STEP_EXCHANGED = 2,
    RESULT_SLEEPS = 0,
    RESULT_FLOOD_SLEEPS = 1,
};

struct waits {
    const char *broker_wait;
    ringside_wait_t client_wait;
    const char *client_text;
};

struct side {
    struct actor *self;
    ringside_client_t *client;
    uint64_t received_count;
    uint64_t flood_count;
};

static void take_message(void *arg, const ringside_message_t *message)
{
    struct side *side = arg;
    uint64_t number = 0;
    memcpy(&number, message->data, sizeof(number));
    uint64_t *count = message->bytes == FLOOD_BYTES ? &side->flood_count : &side->received_count;
    check(number == *count, "message %" PRIu64 " comes where %" PRIu64 " is due", number, *count);
    ++*count;
    actor_set_progress(side->self, side->received_count + side->flood_count);
}

/* Without a time-out of its own: whoever is not woken hangs. */
static void poll_for_ever(struct side *side)
{
    ringside_status_t status = ringside_poll(side->client, 0, UINT64_MAX, NULL);
    check(status == RINGSIDE_OK, "poll: %s", ringside_error_text(side->client));
}

static void connect_side(struct side *side, struct actor *self, const struct waits *waits,
                         const char *subject)
{
    const ringside_options_t used = {.wait = waits->client_wait, .spin_ns = 20000};
    side->self = self;
    side->client = actor_connect(self, &used);
    actor_subscribe(side->client, subject, RINGSIDE_POLICY_BLOCK, take_message, side);
}

static void publish(struct side *side, ringside_publisher_t *publisher, const void *data,
                    size_t bytes)
{
    ringside_status_t status;
    while ((status = ringside_publish(publisher, data, bytes)) == RINGSIDE_WOULD_BLOCK) {
        poll_for_ever(side);
    }
    check(status == RINGSIDE_OK, "publish: %s", ringside_error_text(side->client));
}

static void run_asker(struct actor *self, void *arg)
{
    struct side side = {0};
    uint64_t random = options.seed;
    connect_side(&side, self, arg, "waits.answer");
    ringside_publisher_t *publisher = actor_publisher(side.client, "waits.question");
    ringside_publisher_t *flood = actor_publisher(side.client, "waits.flood");
    actor_reach(self, STEP_READY);
    actor_await_allowed(self, STEP_READY);
    uint64_t exchange_count = scaled(EXCHANGE_COUNT, 20);
    for (uint64_t number = 0; number < exchange_count; number++) {
        if (random_next(&random) % 2 == 0) {
            nap(); /* the test: long enough to fall asleep */
        }
        publish(&side, publisher, &number, sizeof(number));
        while (side.received_count == number) {
            poll_for_ever(&side);
        }
    }
    actor_set_result(self, RESULT_SLEEPS, actor_stats(side.client).sleeps);
    actor_reach(self, STEP_EXCHANGED);

    uint64_t words[FLOOD_BYTES / sizeof(uint64_t)] = {0};
    uint64_t flood_count = scaled(FLOOD_COUNT, 8192);
    for (uint64_t number = 0; number < flood_count; number++) {
        words[0] = number;
        publish(&side, flood, words, FLOOD_BYTES);
        actor_set_progress(self, exchange_count + number);
    }
    actor_flush(side.client);
    actor_set_result(self, RESULT_FLOOD_SLEEPS, actor_stats(side.client).sleeps);
    actor_close(side.client);
}

static void run_answerer(struct actor *self, void *arg)
{
    struct side side = {0};
    connect_side(&side, self, arg, "waits.question");
    actor_subscribe(side.client, "waits.flood", RINGSIDE_POLICY_BLOCK, take_message, &side);
    ringside_publisher_t *publisher = actor_publisher(side.client, "waits.answer");
    actor_reach(self, STEP_READY);
    uint64_t exchange_count = scaled(EXCHANGE_COUNT, 20);
    for (uint64_t number = 0; number < exchange_count; number++) {
        while (side.received_count == number) {
            poll_for_ever(&side);
        }
        publish(&side, publisher, &number, sizeof(number));
    }
    actor_set_result(self, RESULT_SLEEPS, actor_stats(side.client).sleeps);
    actor_flush(side.client);
    actor_reach(self, STEP_EXCHANGED);
    actor_await_allowed(self, STEP_EXCHANGED);
    while (side.flood_count < scaled(FLOOD_COUNT, 8192)) {
        poll_for_ever(&side);
    }
    actor_close(side.client);
}

static void run_waits(const struct waits *waits)
{
    char wait_flag[32];
    struct broker broker;
    struct actor asker;
    struct actor answerer;
    snprintf(wait_flag, sizeof(wait_flag), "--wait=%s", waits->broker_wait);
    const char *const flags[] = {wait_flag, NULL};
    broker_start(&broker, flags);
    actor_start(&answerer, "answerer", &broker, run_answerer, (void *)(uintptr_t)waits);
    actor_await_step(&answerer, STEP_READY);
    actor_start(&asker, "asker", &broker, run_asker, (void *)(uintptr_t)waits);
    actor_await_step(&asker, STEP_READY);
    actor_allow(&asker, STEP_READY);
    actor_await_step(&asker, STEP_EXCHANGED);
    actor_await_step(&answerer, STEP_EXCHANGED);
    /* The rings fill: the asker's publishing has come to a stand. */
    uint64_t progress = UINT64_MAX;
    for (uint64_t still_count = 0; still_count < 3; nap()) {
        still_count = actor_progress(&asker) == progress ? still_count + 1 : 0;
        progress = actor_progress(&asker);
    }
    actor_allow(&answerer, STEP_EXCHANGED);
    actor_join(&answerer);
    actor_join(&asker);
    if (strcmp(waits->broker_wait, "busy") != 0) {
        broker_await_counter(&broker, "agent.sleeps", NULL, 1);
    }
    uint64_t agent_sleeps = broker_counter(&broker, "agent.sleeps", NULL);
    tell("broker %s, clients %s: agents slept %" PRIu64 " times, clients %" PRIu64 " and %" PRIu64
         ", for room %" PRIu64,
         waits->broker_wait, waits->client_text, agent_sleeps, actor_result(&asker, RESULT_SLEEPS),
         actor_result(&answerer, RESULT_SLEEPS),
         actor_result(&asker, RESULT_FLOOD_SLEEPS) - actor_result(&asker, RESULT_SLEEPS));
    bool is_busy = waits->client_wait == RINGSIDE_WAIT_BUSY;
    check((actor_result(&asker, RESULT_SLEEPS) == 0) == is_busy,
          "the asker slept %" PRIu64 " times", actor_result(&asker, RESULT_SLEEPS));
    check((actor_result(&answerer, RESULT_SLEEPS) == 0) == is_busy,
          "the answerer slept %" PRIu64 " times", actor_result(&answerer, RESULT_SLEEPS));
    check((agent_sleeps == 0) == (strcmp(waits->broker_wait, "busy") == 0),
          "the agents slept %" PRIu64 " times", agent_sleeps);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

#define WAITS(broker, client, text)                                 \
    static void test_##broker##_##client(void)                      \
    {                                                               \
        static const struct waits waits = {#broker, text, #client}; \
        run_waits(&waits);                                          \
    }

WAITS(busy, busy, RINGSIDE_WAIT_BUSY)
WAITS(busy, adaptive, RINGSIDE_WAIT_ADAPTIVE)
WAITS(busy, blocking, RINGSIDE_WAIT_BLOCKING)
WAITS(adaptive, busy, RINGSIDE_WAIT_BUSY)
WAITS(adaptive, adaptive, RINGSIDE_WAIT_ADAPTIVE)
WAITS(adaptive, blocking, RINGSIDE_WAIT_BLOCKING)
WAITS(blocking, busy, RINGSIDE_WAIT_BUSY)
WAITS(blocking, adaptive, RINGSIDE_WAIT_ADAPTIVE)
WAITS(blocking, blocking, RINGSIDE_WAIT_BLOCKING)

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"busy broker, busy clients", test_busy_busy, NULL},
        {"busy broker, adaptive clients", test_busy_adaptive, NULL},
        {"busy broker, blocking clients", test_busy_blocking, NULL},
        {"adaptive broker, busy clients", test_adaptive_busy, NULL},
        {"adaptive broker, adaptive clients", test_adaptive_adaptive, NULL},
        {"adaptive broker, blocking clients", test_adaptive_blocking, NULL},
        {"blocking broker, busy clients", test_blocking_busy, NULL},
        {"blocking broker, adaptive clients", test_blocking_adaptive, NULL},
        {"blocking broker, blocking clients", test_blocking_blocking, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
