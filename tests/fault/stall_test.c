/*
 * A subscriber that is stopped (SIGSTOP) for a moment and for long, under each policy: what the
 * others get meanwhile, what it gets afterwards, to the message; and two services that hold each
 * other back and still can leave.
 *
 * Design notes
 * - Two writers: the stopped one is subscribed to what "needed" writes, and to nothing of "other".
 *   Beside it a steady subscriber under block reads both, and so sets the writers' pace.
 * - Rings and log are small: what the stopped one does not take is too much within a fraction of a
 *   second, whatever the machine's speed.
 * - How far the others fell behind is told, not judged: in bytes (the broker's lag of the steady
 * one) and in passes of the data agents (their own count over the stop, for the longest time in
 * which the steady one got nothing).
 */
#include "tests/fault/stream_actors.h"

#include <signal.h>

enum {
    SHORT_MS = 2000, /* divided by --scale */
    LONG_MS = 30000,
    LEAST_MS = 500,
    MUTUAL_STUCK_MS = 500,
    HELD_MS = 200,        /* without a message */
    MESSAGE_BYTES = 1024, /* at most; half of that on average */
    GOES_ON_COUNT = (4 << 20) / (MESSAGE_BYTES / 2),
};

/* A long stop cannot be told from a cut over dpdk://: the session waits until it is over. */
#define BROKER_FLAGS "--log-bytes=1MiB", "--message-bytes-max=64KiB", "--session-grace=60s"

static const char *const small_broker[] = {BROKER_FLAGS, NULL};

struct scene {
    struct broker broker;
    struct actor slow;
    struct actor steady;
    struct actor needed;
    struct actor other;
    struct stream_reading slow_reading;
};

/* What was seen while the slow one was stopped. */
struct stop {
    double seconds;
    uint64_t passes;         /* of all agents */
    uint64_t lag_bytes;      /* of the steady one in the log, at most */
    uint64_t behind_count;   /* messages written that the steady one had not read, at most */
    uint64_t quiet_ns;       /* longest of the steady one, so far */
    uint64_t needed_written; /* in the second half */
    uint64_t other_written;
    uint64_t steady_read;
};

static void begin_scene(struct scene *scene, const char *const *flags, ringside_policy_t policy)
{
    static struct stream_reading all = {.subject = "fault.>", .policy = RINGSIDE_POLICY_BLOCK};
    static struct stream_writing needed = {.prefix = "fault.needed",
                                           .stream_count = 2,
                                           .bytes_max = MESSAGE_BYTES,
                                           .burst = 32,
                                           .rest_ns = 1000000};
    static struct stream_writing other = {.prefix = "fault.other",
                                          .stream_count = 1,
                                          .bytes_max = MESSAGE_BYTES,
                                          .burst = 8,
                                          .rest_ns = 1000000};
    scene->slow_reading = (struct stream_reading){.subject = "fault.needed.*",
                                                  .policy = policy,
                                                  .allows_gaps = policy == RINGSIDE_POLICY_DROP,
                                                  .may_end = policy != RINGSIDE_POLICY_DROP};
    broker_start(&scene->broker, flags);
    actor_start(&scene->slow, "slow", &scene->broker, stream_read_actor, &scene->slow_reading);
    actor_start(&scene->steady, "steady", &scene->broker, stream_read_actor, &all);
    actor_await_step(&scene->slow, STREAM_READY);
    actor_await_step(&scene->steady, STREAM_READY);
    actor_start(&scene->needed, "needed", &scene->broker, stream_write_actor, &needed);
    actor_start(&scene->other, "other", &scene->broker, stream_write_actor, &other);
    actor_await_progress(&scene->slow, 100);
    actor_await_progress(&scene->steady, 100);
    /* Else it might connect to a broker that is stopped. */
    actor_await_progress(&scene->other, 1);
}

static void look(struct scene *scene, struct stop *stop)
{
    uint64_t lag_bytes = broker_counter(&scene->broker, "session.lag_bytes", "steady");
    stop->lag_bytes = lag_bytes > stop->lag_bytes ? lag_bytes : stop->lag_bytes;
    /* Read last, so it may be ahead of the sum by now. */
    uint64_t written = actor_progress(&scene->needed) + actor_progress(&scene->other);
    uint64_t read = actor_progress(&scene->steady);
    uint64_t behind_count = written > read ? written - read : 0;
    stop->behind_count = behind_count > stop->behind_count ? behind_count : stop->behind_count;
    nap();
}

/* Stops the slow one for that long, and looks at the others. It is continued by the caller. */
static void stop_slow(struct scene *scene, uint64_t milliseconds, struct stop *stop)
{
    uint64_t begin_ns = now_ns();
    uint64_t half_ns = milliseconds * 500000;
    *stop = (struct stop){.passes = broker_counter(&scene->broker, "agent.passes", NULL)};
    actor_signal(&scene->slow, SIGSTOP);
    while (now_ns() - begin_ns < half_ns) {
        look(scene, stop);
    }
    uint64_t needed = actor_progress(&scene->needed);
    uint64_t other = actor_progress(&scene->other);
    uint64_t steady = actor_progress(&scene->steady);
    while (now_ns() - begin_ns < 2 * half_ns) {
        look(scene, stop);
    }
    /* Others keep receiving: that they got nothing in all that time is the only failure. */
    await(actor_progress(&scene->steady) > steady, "the steady one gets nothing any more");
    stop->needed_written = actor_progress(&scene->needed) - needed;
    stop->other_written = actor_progress(&scene->other) - other;
    stop->steady_read = actor_progress(&scene->steady) - steady;
    stop->seconds = (double)(now_ns() - begin_ns) / 1e9;
    stop->quiet_ns = actor_result(&scene->steady, STREAM_RESULT_QUIET_NS);
    stop->passes = broker_counter(&scene->broker, "agent.passes", NULL) - stop->passes;
    tell("stopped for %.1f s; in its second half needed wrote %" PRIu64 ", other %" PRIu64
         ", steady read %" PRIu64,
         stop->seconds, stop->needed_written, stop->other_written, stop->steady_read);
    tell("steady waited at most %.1f ms for a message, about %.0f passes of an agent; it was at "
         "most "
         "%" PRIu64 " messages (about %" PRIu64 " bytes) behind the writers, %" PRIu64
         " bytes in the log",
         (double)stop->quiet_ns / 1e6,
         (double)stop->passes / options.agent_count * ((double)stop->quiet_ns / 1e9) /
             stop->seconds,
         stop->behind_count, stop->behind_count * (MESSAGE_BYTES + STREAM_BYTES_MIN) / 2,
         stop->lag_bytes);
}

/* No subscriber holds it back: it writes more than all the rings on its way have room for. */
static void await_goes_on(struct actor *writer)
{
    actor_await_progress(writer, actor_progress(writer) + GOES_ON_COUNT);
}

/* The slow one is continued or gone: the writers stop, and the steady one has it all. */
static void stop_writers(struct scene *scene, uint64_t *needed_count)
{
    *needed_count = stream_stop_writer(&scene->needed);
    uint64_t other_count = stream_stop_writer(&scene->other);
    stream_await_reader(&scene->steady, *needed_count + other_count);
    check(actor_result(&scene->steady, STREAM_RESULT_GAPS) == 0, "the steady one missed some");
}

static void end_scene(struct scene *scene)
{
    stream_leave(&scene->needed);
    stream_leave(&scene->other);
    stream_leave(&scene->steady);
    stream_leave(&scene->slow);
    check(broker_stop(&scene->broker) == 0, "the broker did not stop cleanly");
}

/* Its connection ended, because it was slow. */
static void check_slow_ended(const struct scene *scene)
{
    ringside_status_t status =
        (ringside_status_t)(int64_t)actor_result(&scene->slow, STREAM_RESULT_STATUS);
    tell("slow was told %s: %s", ringside_status_name(status), scene->slow.shared->text);
    check(status == RINGSIDE_E_SLOW, "the end's status is %s", ringside_status_name(status));
    check_text(scene->slow.shared->text, "slow");
    check(actor_result(&scene->slow, STREAM_RESULT_GAPS) == 0, "it was told of gaps");
}

static uint64_t stop_ms(uint64_t milliseconds)
{
    return scaled(milliseconds, LEAST_MS);
}

/* ---- drop --------------------------------------------------------------------------------------
 */

static void stop_under_drop(uint64_t milliseconds)
{
    struct scene scene;
    struct stop stop;
    uint64_t needed_count = 0;
    begin_scene(&scene, small_broker, RINGSIDE_POLICY_DROP);
    stop_slow(&scene, milliseconds, &stop);
    await_goes_on(&scene.needed);
    actor_signal(&scene.slow, SIGCONT);
    stop_writers(&scene, &needed_count);
    /* Per stream none is beyond what was written, and their sum is all of it: so each is exact. */
    stream_await_reader(&scene.slow, needed_count);
    uint64_t gap_count = actor_result(&scene.slow, STREAM_RESULT_GAPS);
    broker_await_counter(&scene.broker, "session.dropped_messages", "slow", gap_count);
    uint64_t dropped_count = broker_counter(&scene.broker, "session.dropped_messages", "slow");
    tell("slow received %" PRIu64 " and was told of %" PRIu64 " left out, of %" PRIu64
         " written; the broker counts %" PRIu64 " in %" PRIu64 " gaps",
         actor_result(&scene.slow, STREAM_RESULT_RECEIVED), gap_count, needed_count, dropped_count,
         broker_counter(&scene.broker, "session.gaps", "slow"));
    check(gap_count > 0, "nothing was left out: the stop was too short to test anything");
    check(dropped_count == gap_count,
          "the broker counts %" PRIu64 ", the subscriber was told %" PRIu64, dropped_count,
          gap_count);
    end_scene(&scene);
}

static void test_drop_short(void)
{
    stop_under_drop(stop_ms(SHORT_MS));
}

static void test_drop_long(void)
{
    stop_under_drop(stop_ms(LONG_MS));
}

/* ---- disconnect --------------------------------------------------------------------------------
 */

static void stop_under_disconnect(uint64_t milliseconds)
{
    struct scene scene;
    struct stop stop;
    uint64_t needed_count = 0;
    begin_scene(&scene, small_broker, RINGSIDE_POLICY_DISCONNECT);
    stop_slow(&scene, milliseconds, &stop);
    await_goes_on(&scene.needed);
    broker_await_counter(&scene.broker, "broker.sessions_slow", NULL, 1);
    actor_signal(&scene.slow, SIGCONT);
    await(actor_result(&scene.slow, STREAM_RESULT_EVENT) != 0, "slow was not told of its end");
    check_slow_ended(&scene);
    stop_writers(&scene, &needed_count);
    end_scene(&scene);
}

static void test_disconnect_short(void)
{
    stop_under_disconnect(stop_ms(SHORT_MS));
}

static void test_disconnect_long(void)
{
    stop_under_disconnect(stop_ms(LONG_MS));
}

/* ---- block -------------------------------------------------------------------------------------
 */

/* The counters say who holds whom back, and since when. */
static void check_named(const struct scene *scene)
{
    const struct broker *broker = &scene->broker;
    uint64_t slow_id = broker_session_id(broker, "slow");
    broker_await_counter(broker, "session.blocked_ns", "slow", 1);
    broker_await_counter(broker, "session.stalled_ns", "needed", 1);
    tell("counters: needed was stalled for %.2f s, by session %" PRIu64 "; slow is %" PRIu64
         ", blocked %" PRIu64 " times for %.2f s, its spill held %" PRIu64 " bytes at most",
         (double)broker_counter(broker, "session.stalled_ns", "needed") / 1e9,
         broker_counter(broker, "session.stalled_by", "needed"), slow_id,
         broker_counter(broker, "session.blocked_count", "slow"),
         (double)broker_counter(broker, "session.blocked_ns", "slow") / 1e9,
         broker_counter(broker, "session.spill_bytes_max", "slow"));
    check(broker_counter(broker, "session.stalled_by", "needed") == slow_id,
          "needed is stalled by somebody else");
    /* The steady one blocks too, for moments; but nobody that other writes for is stopped. */
    check(broker_counter(broker, "session.stalled_by", "other") != slow_id,
          "other is stalled by a subscriber that it does not write for");
}

/* What was on its way has come to rest: needed gets no message away any more. */
static void await_held(const struct scene *scene)
{
    uint64_t written_count = UINT64_MAX;
    uint64_t since_ns = 0;
    await((written_count == actor_progress(&scene->needed) ||
           (written_count = actor_progress(&scene->needed), since_ns = now_ns(), false)) &&
              now_ns() - since_ns > HELD_MS * UINT64_C(1000000),
          "needed is not held back: it is at message %" PRIu64, actor_progress(&scene->needed));
}

static void stop_under_block(uint64_t milliseconds, const char *block_timeout)
{
    const char *const flags[] = {BROKER_FLAGS, block_timeout, NULL};
    struct scene scene;
    struct stop stop;
    uint64_t needed_count = 0;
    begin_scene(&scene, flags, RINGSIDE_POLICY_BLOCK);
    stop_slow(&scene, milliseconds, &stop);
    await_held(&scene);
    await_goes_on(&scene.other);
    check_named(&scene);
    actor_signal(&scene.slow, SIGCONT);
    actor_await_progress(&scene.needed, actor_progress(&scene.needed) + 1);
    stop_writers(&scene, &needed_count);
    stream_await_reader(&scene.slow, needed_count);
    check(actor_result(&scene.slow, STREAM_RESULT_RECEIVED) == needed_count, "slow missed some");
    tell("slow received all %" PRIu64 " that needed wrote", needed_count);
    end_scene(&scene);
}

static void test_block_short(void)
{
    stop_under_block(stop_ms(SHORT_MS), "--block-timeout=60s");
}

static void test_block_long(void)
{
    stop_under_block(stop_ms(LONG_MS), "--block-timeout=120s");
}

/* Longer than block_timeout: it ends as slow, and the writer goes on. */
static void test_block_timeout(void)
{
    char block_timeout[64];
    struct scene scene;
    struct stop stop;
    uint64_t needed_count = 0;
    const char *const flags[] = {BROKER_FLAGS, block_timeout, NULL};
    snprintf(block_timeout, sizeof(block_timeout), "--block-timeout=%" PRIu64 "ms",
             stop_ms(LONG_MS) / 6);
    begin_scene(&scene, flags, RINGSIDE_POLICY_BLOCK);
    stop_slow(&scene, stop_ms(LONG_MS), &stop);
    broker_await_counter(&scene.broker, "broker.sessions_slow", NULL, 1);
    actor_await_progress(&scene.needed, actor_progress(&scene.needed) + 1);
    actor_signal(&scene.slow, SIGCONT);
    await(actor_result(&scene.slow, STREAM_RESULT_EVENT) != 0, "slow was not told of its end");
    check_slow_ended(&scene);
    check_text(scene.slow.shared->text, "needed");
    stop_writers(&scene, &needed_count);
    end_scene(&scene);
}

/* ---- the broker itself -------------------------------------------------------------------------
 */

/* It is alive as long as its machine answers for it: everybody waits, and nothing is lost. */
static void stop_broker(uint64_t milliseconds)
{
    struct scene scene;
    uint64_t needed_count = 0;
    begin_scene(&scene, small_broker, RINGSIDE_POLICY_BLOCK);
    uint64_t begin_ns = now_ns();
    program_signal(&scene.broker.program, SIGSTOP);
    while (now_ns() - begin_ns < milliseconds * UINT64_C(1000000)) {
        nap();
    }
    program_signal(&scene.broker.program, SIGCONT);
    await_goes_on(&scene.needed);
    stop_writers(&scene, &needed_count);
    stream_await_reader(&scene.slow, needed_count);
    tell("the broker stood still for %.1f s; all %" PRIu64 " messages of needed came; suspended "
         "%" PRIu64 " times",
         (double)milliseconds / 1e3, needed_count,
         actor_result(&scene.steady, STREAM_RESULT_SUSPENDED) +
             actor_result(&scene.needed, STREAM_RESULT_SUSPENDED));
    check(actor_result(&scene.slow, STREAM_RESULT_GAPS) == 0, "some were left out");
    end_scene(&scene);
}

static void test_broker_short(void)
{
    stop_broker(stop_ms(SHORT_MS));
}

static void test_broker_long(void)
{
    stop_broker(stop_ms(LONG_MS));
}

/* ---- two services that publish to each other ---------------------------------------------------
 */

struct service {
    const char *own;
    const char *peer;
};

static void pass_over(void *arg, const ringside_message_t *message)
{
    (void)arg;
    (void)message;
}

/* Publishes for as long as there is room and never reads; then takes its leave. */
static void serve_deaf(struct actor *self, void *arg)
{
    const struct service *service = arg;
    static const uint8_t message[MESSAGE_BYTES] = {0};
    const ringside_subscribe_options_t used = {
        .struct_bytes = sizeof(used), .policy = RINGSIDE_POLICY_BLOCK, .timeout_ns = hang_ns()};
    ringside_subscription_t *subscription = NULL;
    ringside_client_t *client = actor_connect(self, &stream_client_options);
    ringside_publisher_t *publisher = actor_publisher(client, service->own);
    ringside_status_t status =
        ringside_subscribe(&subscription, client, service->peer, &used, pass_over, NULL);
    check(status == RINGSIDE_OK, "subscribe: %s", ringside_error_text(client));
    actor_reach(self, STREAM_READY);
    uint64_t count = 0;
    actor_await_allowed(self, STREAM_STOP);
    while (!actor_is_allowed(self, STREAM_LEAVE)) {
        status = ringside_publish(publisher, message, sizeof(message));
        check(status >= 0, "publish: %s", ringside_error_text(client));
        if (status == RINGSIDE_OK) {
            actor_set_progress(self, ++count);
        } else {
            nap();
        }
    }
    status = ringside_unsubscribe(subscription, hang_ns());
    check(status == RINGSIDE_OK, "unsubscribe: %s: %s", ringside_status_name(status),
          ringside_error_text(client));
    actor_reach(self, STREAM_STOPPED);
    actor_close(client);
}

static uint64_t both_progress(const struct actor *services)
{
    return actor_progress(&services[0]) + actor_progress(&services[1]);
}

static void test_mutual_block(void)
{
    static struct service services[2] = {{"fault.left", "fault.right"},
                                         {"fault.right", "fault.left"}};
    struct broker broker;
    struct actor actors[2];
    broker_start(&broker, small_broker);
    actor_start(&actors[0], "left", &broker, serve_deaf, &services[0]);
    actor_start(&actors[1], "right", &broker, serve_deaf, &services[1]);
    for (unsigned index = 0; index < 2; index++) {
        actor_await_step(&actors[index], STREAM_READY);
    }
    for (unsigned index = 0; index < 2; index++) {
        actor_allow(&actors[index], STREAM_STOP);
    }
    /* Until neither gets a message away any more. */
    uint64_t count = UINT64_MAX;
    uint64_t since_ns = 0;
    uint64_t until_ns = now_ns() + hang_ns();
    while (count != both_progress(actors) ||
           now_ns() - since_ns < MUTUAL_STUCK_MS * UINT64_C(1000000)) {
        check(now_ns() < until_ns, "they never get stuck");
        if (count != both_progress(actors)) {
            count = both_progress(actors);
            since_ns = now_ns();
        }
        nap();
    }
    tell("left is stuck at message %" PRIu64 ", right at %" PRIu64, actor_progress(&actors[0]),
         actor_progress(&actors[1]));
    uint64_t begin_ns = now_ns();
    for (unsigned index = 0; index < 2; index++) {
        actor_allow(&actors[index], STREAM_LEAVE);
    }
    for (unsigned index = 0; index < 2; index++) {
        actor_join(&actors[index]);
    }
    tell("both unsubscribed and left within %.1f ms", (double)(now_ns() - begin_ns) / 1e6);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"drop, short stop", test_drop_short, NULL},
        {"drop, long stop", test_drop_long, NULL},
        {"disconnect, short stop", test_disconnect_short, NULL},
        {"disconnect, long stop", test_disconnect_long, NULL},
        {"block, short stop", test_block_short, NULL},
        {"block, long stop", test_block_long, NULL},
        {"block, longer than block_timeout", test_block_timeout, NULL},
        {"broker, short stop", test_broker_short, NULL},
        {"broker, long stop", test_broker_long, NULL},
        {"mutual block", test_mutual_block, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
