/*
 * Links that are cut during traffic, by a relay between a client and the broker: the session goes
 * on over another link, and every message comes once and in order, both ways. Cuts that last as
 * long as the grace end it, and that is told.
 *
 * Design notes
 * - The mobile client is behind the relay and does both: it publishes and it subscribes. Its
 * partners are connected directly. All is under block, so nothing may be left out.
 * - A cut falls anywhere: the relay passes on a drawn part of what is on its way. Some cuts come
 * while the client is still busy with the last one.
 */
#include "tests/fault/relay.h"
#include "tests/fault/stream_actors.h"

#include <stdlib.h>
#include <time.h>

enum {
    CUT_COUNT = 200,
    CUT_DELAY_NS = 20000000, /* at most, after the session went on */
    HASTY_ONE_IN = 5,        /* cuts that do not wait for that */
    HEAL_MS = 1000,          /* divided by --scale */
    GRACE_MS = 2000,
    LEAST_MS = 300,
};

static const char *const usual_flags[] = {"--log-bytes=1MiB", "--message-bytes-max=64KiB", NULL};

struct scene {
    struct broker broker;
    struct relay relay;
    struct actor mobile;
    struct actor reader; /* of what mobile writes */
    struct actor writer; /* for mobile */
};

static void begin_scene(struct scene *scene, const char *const *flags, ringside_policy_t policy,
                        bool may_end)
{
    static struct stream_duplex mobile;
    static struct stream_reading reading = {.subject = "cut.up.>", .policy = RINGSIDE_POLICY_BLOCK};
    static struct stream_writing writing = {
        .prefix = "cut.down", .stream_count = 2, .bytes_max = 2048, .burst = 8, .rest_ns = 1000000};
    mobile.writing = writing;
    mobile.writing.prefix = "cut.up";
    mobile.writing.may_end = may_end;
    mobile.reading = (struct stream_reading){.subject = "cut.down.*",
                                             .policy = policy,
                                             .allows_gaps = policy == RINGSIDE_POLICY_DROP,
                                             .may_end = may_end};
    broker_start(&scene->broker, flags);
    relay_start(&scene->relay, &scene->broker);
    actor_start(&scene->reader, "reader", &scene->broker, stream_read_actor, &reading);
    actor_await_step(&scene->reader, STREAM_READY);
    actor_start(&scene->mobile, "mobile", &scene->relay.front, stream_duplex_actor, &mobile);
    actor_await_step(&scene->mobile, STREAM_READY);
    actor_start(&scene->writer, "writer", &scene->broker, stream_write_actor, &writing);
    actor_await_step(&scene->writer, STREAM_READY);
    actor_await_progress(&scene->mobile, 100);
}

/* Everything has come, once and in order. */
static void check_streams(struct scene *scene)
{
    uint64_t up_count = stream_stop_writer(&scene->mobile);
    uint64_t down_count = stream_stop_writer(&scene->writer);
    stream_await_reader(&scene->reader, up_count);
    stream_await_reader(&scene->mobile, down_count);
    tell("%" PRIu64 " messages up and %" PRIu64 " down, each once and in order; %" PRIu64
         " left out by policy; longest time without one %.1f ms up, %.1f ms down",
         up_count, down_count, actor_result(&scene->mobile, STREAM_RESULT_GAPS),
         (double)actor_result(&scene->reader, STREAM_RESULT_QUIET_NS) / 1e6,
         (double)actor_result(&scene->mobile, STREAM_RESULT_QUIET_NS) / 1e6);
}

static void end_scene(struct scene *scene)
{
    stream_leave(&scene->mobile);
    stream_leave(&scene->writer);
    stream_leave(&scene->reader);
    relay_stop(&scene->relay);
    check(broker_stop(&scene->broker) == 0, "the broker did not stop cleanly");
}

static void pause_ns(uint64_t duration_ns)
{
    const struct timespec pause = {.tv_sec = (time_t)(duration_ns / SECOND_NS),
                                   .tv_nsec = (long)(duration_ns % SECOND_NS)};
    nanosleep(&pause, NULL);
}

static void await_resumed(struct scene *scene, uint64_t count)
{
    await(actor_result(&scene->mobile, STREAM_RESULT_RESUMED) >= count ||
              actor_result(&scene->mobile, STREAM_RESULT_EVENT) != 0,
          "the session does not go on: suspended %" PRIu64 " times, resumed %" PRIu64,
          actor_result(&scene->mobile, STREAM_RESULT_SUSPENDED),
          actor_result(&scene->mobile, STREAM_RESULT_RESUMED));
    check(actor_result(&scene->mobile, STREAM_RESULT_EVENT) == 0, "the session ended: %s",
          scene->mobile.shared->text);
}

/* ---- many cuts ---------------------------------------------------------------------------------
 */

static void test_cuts(void)
{
    struct scene scene;
    uint64_t random = options.seed;
    uint64_t count = options.count != 0 ? options.count : CUT_COUNT;
    uint64_t cuts[RELAY_CUT_COUNT] = {0};
    begin_scene(&scene, usual_flags, RINGSIDE_POLICY_BLOCK, false);
    for (uint64_t number = 0; number < count; number++) {
        uint64_t resumed_count = actor_result(&scene.mobile, STREAM_RESULT_RESUMED);
        enum relay_cut cut = (enum relay_cut)(random_next(&random) % RELAY_CUT_COUNT);
        relay_cut(&scene.relay, cut, random_next(&random));
        cuts[cut]++;
        bool is_hasty = random_next(&random) % HASTY_ONE_IN == 0 && number + 1 < count;
        if (!is_hasty) {
            await_resumed(&scene, resumed_count + 1);
        }
        pause_ns(random_next(&random) % CUT_DELAY_NS); /* where the next one falls */
    }
    tell("%" PRIu64 " cuts: %" PRIu64 " closed, %" PRIu64 " reset, %" PRIu64
         " vanished; suspended %" PRIu64 " times, resumed %" PRIu64 ", the last: %s",
         count, cuts[RELAY_CLOSE], cuts[RELAY_RESET], cuts[RELAY_VANISH],
         actor_result(&scene.mobile, STREAM_RESULT_SUSPENDED),
         actor_result(&scene.mobile, STREAM_RESULT_RESUMED), scene.mobile.shared->text);
    check_streams(&scene);
    check(broker_counter(&scene.broker, "broker.sessions_lost", NULL) == 0,
          "the broker lost a session");
    end_scene(&scene);
}

/* ---- cuts that last ----------------------------------------------------------------------------
 */

/* Healed within the grace. Under drop something may be left out, and is counted to the message. */
static void heal_in_time(ringside_policy_t policy)
{
    struct scene scene;
    begin_scene(&scene, usual_flags, policy, false);
    relay_set_door(&scene.relay, false);
    relay_cut(&scene.relay, RELAY_RESET, options.seed);
    uint64_t read_count = actor_progress(&scene.reader);
    pause_ns(scaled(HEAL_MS, LEAST_MS) * 1000000);
    check(actor_result(&scene.mobile, STREAM_RESULT_RESUMED) == 0, "it got through a closed door");
    relay_set_door(&scene.relay, true);
    await_resumed(&scene, 1);
    tell("resumed: %s", scene.mobile.shared->text);
    actor_await_progress(&scene.reader, read_count + 1);
    check_streams(&scene);
    end_scene(&scene);
}

static void test_healed_drop(void)
{
    heal_in_time(RINGSIDE_POLICY_DROP);
}

static void test_healed_block(void)
{
    heal_in_time(RINGSIDE_POLICY_BLOCK);
}

/* Longer than the grace: both sides are told that the session is over, and the others go on. */
static void outlast_grace(ringside_policy_t policy)
{
    struct scene scene;
    char grace[64];
    const char *const flags[] = {"--log-bytes=1MiB", "--message-bytes-max=64KiB", grace, NULL};
    uint64_t grace_ms = scaled(GRACE_MS, LEAST_MS);
    snprintf(grace, sizeof(grace), "--session-grace=%" PRIu64 "ms", grace_ms);
    begin_scene(&scene, flags, policy, true);
    relay_set_door(&scene.relay, false);
    relay_cut(&scene.relay, RELAY_RESET, options.seed);
    broker_await_counter(&scene.broker, "broker.sessions_lost", NULL, 1);
    /* Whoever waited for it goes on. */
    uint64_t written_count = actor_progress(&scene.writer);
    actor_await_progress(&scene.writer, written_count + 100);
    relay_set_door(&scene.relay, true);
    await(actor_result(&scene.mobile, STREAM_RESULT_EVENT) != 0, "mobile was not told");
    ringside_status_t status =
        (ringside_status_t)(int64_t)actor_result(&scene.mobile, STREAM_RESULT_STATUS);
    tell("told: %s: %s", ringside_status_name(status), scene.mobile.shared->text);
    check(actor_result(&scene.mobile, STREAM_RESULT_EVENT) == RINGSIDE_EVENT_LOST, "event %" PRIu64,
          actor_result(&scene.mobile, STREAM_RESULT_EVENT));
    /* What arrived was delivered: a beginning without holes, which is all that the reader checks.
     */
    (void)stream_stop_writer(&scene.writer);
    end_scene(&scene);
}

static void test_grace_drop(void)
{
    outlast_grace(RINGSIDE_POLICY_DROP);
}

static void test_grace_block(void)
{
    outlast_grace(RINGSIDE_POLICY_BLOCK);
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"cuts", test_cuts, "tcp shm"},
        {"healed in time, drop", test_healed_drop, "tcp shm"},
        {"healed in time, block", test_healed_block, "tcp shm"},
        {"longer than the grace, drop", test_grace_drop, "tcp shm"},
        {"longer than the grace, block", test_grace_block, "tcp shm"},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
