/*
 * Brokers that are killed (SIGKILL) during traffic and started anew on the same URL: clients come
 * back by themselves, what may be lost is announced, and then traffic flows again.
 *
 * Design notes
 * - Sequences begin anew with each broker, the numbers in the messages go on: so the reader sees
 * what was lost and what came twice, and that nothing was lost without a word (stream.h).
 * - After each start the next kill waits until everybody is there and messages came through; then
 * it falls a drawn time later.
 */
#include "tests/fault/stream_actors.h"

#include <signal.h>
#include <time.h>

enum { KILL_COUNT = 50, KILL_DELAY_NS = 50000000, PAIR_COUNT = 2 };

static const char *const usual_flags[] = {"--log-bytes=1MiB", "--message-bytes-max=64KiB", NULL};

struct scene {
    struct broker broker;
    struct actor readers[PAIR_COUNT];
    struct actor writers[PAIR_COUNT];
};

static void begin_scene(struct scene *scene)
{
    static const char *const reader_names[PAIR_COUNT] = {"reader-0", "reader-1"};
    static const char *const writer_names[PAIR_COUNT] = {"writer-0", "writer-1"};
    static const char *const subjects[PAIR_COUNT] = {"restart.0.>", "restart.*.*"};
    static const char *const prefixes[PAIR_COUNT] = {"restart.0", "restart.1"};
    static const ringside_policy_t policies[PAIR_COUNT] = {RINGSIDE_POLICY_DROP,
                                                           RINGSIDE_POLICY_BLOCK};
    static struct stream_reading readings[PAIR_COUNT];
    static struct stream_writing writings[PAIR_COUNT];
    broker_start(&scene->broker, usual_flags);
    for (unsigned index = 0; index < PAIR_COUNT; index++) {
        readings[index] = (struct stream_reading){.subject = subjects[index],
                                                  .policy = policies[index],
                                                  .allows_gaps = true,
                                                  .allows_restarts = true,
                                                  .resume_timeout_ns = hang_ns()};
        writings[index] = (struct stream_writing){.prefix = prefixes[index],
                                                  .stream_count = 2,
                                                  .bytes_max = 1024,
                                                  .burst = 8,
                                                  .rest_ns = 1000000,
                                                  .resume_timeout_ns = hang_ns()};
        actor_start(&scene->readers[index], reader_names[index], &scene->broker, stream_read_actor,
                    &readings[index]);
        actor_await_step(&scene->readers[index], STREAM_READY);
    }
    for (unsigned index = 0; index < PAIR_COUNT; index++) {
        actor_start(&scene->writers[index], writer_names[index], &scene->broker, stream_write_actor,
                    &writings[index]);
        actor_await_step(&scene->writers[index], STREAM_READY);
    }
}

/* All came back as often as the broker did, and messages come through. */
static void await_flow(struct scene *scene, uint64_t renewed_count)
{
    for (unsigned index = 0; index < PAIR_COUNT; index++) {
        await(actor_result(&scene->readers[index], STREAM_RESULT_RENEWED) >= renewed_count,
              "%s does not come back", scene->readers[index].name);
        await(actor_result(&scene->writers[index], STREAM_RESULT_RENEWED) >= renewed_count,
              "%s does not come back", scene->writers[index].name);
    }
    for (unsigned index = 0; index < PAIR_COUNT; index++) {
        actor_await_progress(&scene->readers[index], actor_progress(&scene->readers[index]) + 100);
    }
}

static void kill_broker(struct scene *scene, uint64_t delay_ns)
{
    const struct timespec delay = {.tv_nsec = (long)delay_ns};
    nanosleep(&delay, NULL); /* where in the traffic it dies */
    program_signal(&scene->broker.program, SIGKILL);
    check(program_wait(&scene->broker.program) == 128 + SIGKILL, "it was not killed");
}

static void end_scene(struct scene *scene)
{
    uint64_t written_count = 0;
    uint64_t counts[PAIR_COUNT];
    for (unsigned index = 0; index < PAIR_COUNT; index++) {
        counts[index] = stream_stop_writer(&scene->writers[index]);
        written_count += counts[index];
    }
    /* The last messages come without a restart after them, and are not lost. */
    stream_await_reader(&scene->readers[0], counts[0]);
    stream_await_reader(&scene->readers[1], written_count);
    for (unsigned index = 0; index < PAIR_COUNT; index++) {
        const struct actor *reader = &scene->readers[index];
        tell("%s: %" PRIu64 " messages, %" PRIu64 " lost and %" PRIu64 " twice in %" PRIu64
             " restarts of streams, all announced",
             reader->name, actor_result(reader, STREAM_RESULT_RECEIVED),
             actor_result(reader, STREAM_RESULT_LOST), actor_result(reader, STREAM_RESULT_TWICE),
             actor_result(reader, STREAM_RESULT_RESTARTS));
    }
    for (unsigned index = 0; index < PAIR_COUNT; index++) {
        stream_leave(&scene->writers[index]);
        stream_leave(&scene->readers[index]);
    }
    check(broker_stop(&scene->broker) == 0, "the broker did not stop cleanly");
}

static void test_restarts(void)
{
    static struct scene scene;
    uint64_t random = options.seed;
    uint64_t count = options.count != 0 ? options.count : KILL_COUNT;
    begin_scene(&scene);
    await_flow(&scene, 0);
    for (uint64_t number = 0; number < count; number++) {
        kill_broker(&scene, random_next(&random) % KILL_DELAY_NS);
        broker_start_again(&scene.broker, usual_flags);
        await_flow(&scene, number + 1);
    }
    tell("%" PRIu64 " kills of the broker", count);
    end_scene(&scene);
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"restarts", test_restarts, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
