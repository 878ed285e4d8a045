/*
 * Clients that are killed (SIGKILL) while they connect, subscribe, publish, receive or resume:
 * afterwards the broker holds what it held before, and a bystander pair missed nothing.
 *
 * Design notes
 * - A victim does its part over and over; it is killed a drawn time after it began. So the kills
 *   fall anywhere in it, also between two messages of a handshake.
 * - What a broker makes once and keeps (the memory of topic slots, catalogue tables) it has made
 *   after the first kills and a topic in every slot; the comparison begins there.
 * - The bystander reads everything, the victims' streams too: what a victim published is a prefix
 *   without holes, wherever it was killed.
 */
#include "tests/fault/relay.h"
#include "tests/fault/resources.h"
#include "tests/fault/stream.h"
#include "tests/fault/stream_actors.h"
#include "tests/fault/wire.h"

#include <stdlib.h>
#include <time.h>

enum {
    KILL_COUNT = 200,
    WARM_UP_COUNT_MIN = 40,
    KILL_DELAY_NS = 12000000,    /* at most; longer where everything is slower */
    DEVICE_DELAY_NS = 500000000, /* over dpdk, where connecting starts a device */
    SPILL_BYTES = 1 << 20,       /* of a bystander, as the broker's log says */
    TOPIC_COUNT_MAX = 256,       /* of any broker here */
    HEAP_GROWTH_BYTES = 1 << 20, /* of what malloc keeps; see resources.c */
};

enum phase { CONNECTING, SUBSCRIBING, PUBLISHING, RECEIVING, RESUMING, PHASE_COUNT };
static const char *const phase_names[PHASE_COUNT] = {"connecting", "subscribing", "publishing",
                                                     "receiving", "resuming"};

/* Tables by slot are touched page by page, as slots come round: small ones are touched soon. */
static const char *const small_broker[] = {"--log-bytes=1MiB", "--message-bytes-max=64KiB",
                                           "--publication-count-max=64", "--publisher-count-max=64",
                                           "--topic-count-max=64",
                                           /* Over tcp a dead process looks like a cut wire, and its
                                              publishers keep their places so long. */
                                           "--session-grace=20ms", NULL};
/* Over rdma and dpdk the wire is cut: bystanders have to find back, and who dies behind the cut
 * keeps its places for the whole grace. */
static const char *const patient_broker[] = {"--log-bytes=1MiB",
                                             "--message-bytes-max=64KiB",
                                             "--publication-count-max=256",
                                             "--publisher-count-max=64",
                                             "--topic-count-max=256",
                                             "--session-grace=10s",
                                             "--block-timeout=60s",
                                             NULL};

/* A burst, then a rest: the machine is to have time for the victims too. */
static struct stream_writing steady_writing = {.prefix = "fault.steady",
                                               .stream_count = 2,
                                               .bytes_max = 1024,
                                               .burst = 16,
                                               .rest_ns = 2000000};
static struct stream_reading everything = {
    .subject = "fault.>", .policy = RINGSIDE_POLICY_BLOCK, .counted = "writer"};

/* ---- victims -----------------------------------------------------------------------------------
 */

struct victim {
    enum phase phase;
    uint64_t seed;
};

static void keep_connecting(struct actor *self)
{
    actor_reach(self, STREAM_READY);
    for (;;) {
        ringside_client_t *client = actor_connect(self, &stream_client_options);
        (void)ringside_close(client, 0);
    }
}

static void pass_over(void *arg, const ringside_message_t *message)
{
    (void)arg;
    (void)message;
}

/* One that asked for policy disconnect and falls behind has nothing more to do than to die. */
static void check_not_slow(ringside_client_t *client, ringside_status_t status, const char *what)
{
    if (status == RINGSIDE_E_SLOW) {
        for (;;) {
            nap();
        }
    }
    check(status >= 0, "%s: %s: %s", what, ringside_status_name(status),
          ringside_error_text(client));
}

/* It holds a few at a time: the broker keeps room for as many as there ever were. */
static void keep_subscribing(struct actor *self, uint64_t seed)
{
    static const char *const subjects[] = {"fault.>", "fault.*.1", "fault.steady.0", "other.>"};
    enum { HELD_COUNT = 8 };
    ringside_subscription_t *held[HELD_COUNT] = {NULL};
    ringside_client_t *client = actor_connect(self, &stream_client_options);
    actor_reach(self, STREAM_READY);
    for (;;) {
        ringside_subscription_t **at = &held[random_next(&seed) % HELD_COUNT];
        const ringside_subscribe_options_t used = {
            .struct_bytes = sizeof(used),
            .policy = (ringside_policy_t)(RINGSIDE_POLICY_DROP + random_next(&seed) % 3),
            .timeout_ns = hang_ns()};
        const char *subject = subjects[random_next(&seed) % rsi_array_count(subjects)];
        if (*at != NULL) {
            check_not_slow(client, ringside_unsubscribe(*at, hang_ns()), "unsubscribe");
        }
        check_not_slow(client, ringside_subscribe(at, client, subject, &used, pass_over, NULL),
                       "subscribe");
    }
}

static void keep_publishing(struct actor *self, uint64_t seed)
{
    struct stream_writer writer;
    char prefix[STREAM_NAME_BYTES];
    ringside_client_t *client = actor_connect(self, &stream_client_options);
    actor_reach(self, STREAM_READY);
    snprintf(prefix, sizeof(prefix), "fault.%s", self->name);
    stream_writer_open(&writer, client, prefix, 1 + (uint32_t)(seed % 3), STREAM_BYTES_MAX, seed);
    for (;;) {
        ringside_status_t status = stream_write_burst(&writer, 64);
        check(status >= 0, "publish: %s", ringside_error_text(client));
        actor_poll(client);
    }
}

/* Its link is cut while it publishes. One that does not find back within the grace has nothing more
 * to do than to die. */
static void keep_resuming(struct actor *self, uint64_t seed)
{
    struct stream_writer writer;
    char prefix[STREAM_NAME_BYTES];
    ringside_status_t status = RINGSIDE_OK;
    ringside_client_t *client = actor_connect(self, &stream_client_options);
    snprintf(prefix, sizeof(prefix), "fault.%s", self->name);
    stream_writer_open(&writer, client, prefix, 1, STREAM_BYTES_MAX, seed);
    actor_reach(self, STREAM_READY);
    while (status >= 0) {
        status = stream_write_burst(&writer, 64);
        if (status >= 0) {
            status = ringside_poll(client, 0, SECOND_NS / 100, NULL);
        }
    }
    for (;;) {
        nap();
    }
}

static void keep_receiving(struct actor *self, uint64_t seed)
{
    ringside_client_t *client = actor_connect(self, &stream_client_options);
    actor_reach(self, STREAM_READY);
    actor_subscribe(client, "fault.>", (ringside_policy_t)(RINGSIDE_POLICY_DROP + seed % 3),
                    pass_over, NULL);
    for (;;) {
        check_not_slow(client, ringside_poll(client, 0, SECOND_NS / 100, NULL), "poll");
    }
}

static void suffer(struct actor *self, void *arg)
{
    const struct victim *victim = arg;
    switch (victim->phase) {
    case CONNECTING:
        keep_connecting(self);
        break;
    case SUBSCRIBING:
        keep_subscribing(self, victim->seed);
        break;
    case PUBLISHING:
        keep_publishing(self, victim->seed);
        break;
    case RESUMING:
        keep_resuming(self, victim->seed);
        break;
    case RECEIVING:
    case PHASE_COUNT:
        keep_receiving(self, victim->seed);
        break;
    }
}

struct scene {
    struct broker broker;
    struct broker far; /* the same behind the relay */
    struct relay relay;
    struct actor reader;
    struct actor writer;
};

/* What bypasses the kernel has no relay, but its wire is cut. */
static bool is_bypass(void)
{
    return is_transport("rdma") || is_transport("dpdk");
}

/* Where in its part a victim dies; longer where everything is slower. */
static void pause_some(enum phase phase, uint64_t *random)
{
    uint64_t longest_ns = phase == CONNECTING && is_transport("dpdk")
                              ? DEVICE_DELAY_NS
                              : KILL_DELAY_NS * (hang_ns() / HANG_S / SECOND_NS);
    uint64_t delay_ns = random_next(random) % longest_ns;
    const struct timespec delay = {.tv_nsec = (long)delay_ns};
    nanosleep(&delay, NULL);
}

/* The victim loses its link, and looks for another one at once. Else it is the wire, and the
 * bystanders lose theirs too. */
static void cut(struct scene *scene, uint64_t *random)
{
    if (is_bypass()) {
        wire_cut(WIRE_SILENT);
    } else {
        enum relay_cut kind = (enum relay_cut)(random_next(random) % RELAY_CUT_COUNT);
        relay_cut(&scene->relay, kind, random_next(random));
    }
}

static void kill_one(struct scene *scene, uint64_t number, uint64_t *random)
{
    struct victim victim = {.phase = (enum phase)(number % PHASE_COUNT),
                            .seed = random_next(random)};
    struct actor actor;
    char name[STREAM_NAME_BYTES];
    snprintf(name, sizeof(name), "victim-%" PRIu64, number);
    actor_start(&actor, name, victim.phase == RESUMING ? &scene->far : &scene->broker, suffer,
                &victim);
    actor_await_step(&actor, STREAM_READY);
    pause_some(victim.phase, random);
    if (victim.phase == RESUMING) {
        cut(scene, random);
        pause_some(victim.phase, random);
    }
    actor_kill(&actor);
    if (victim.phase == RESUMING && is_bypass()) {
        wire_mend(WIRE_SILENT);
    }
}

/* Without a relay the bystanders lose their links too, and so many newcomers would be in their way.
 */
static void await_back(const struct actor *actor)
{
    await(actor_result(actor, STREAM_RESULT_RESUMED) ==
              actor_result(actor, STREAM_RESULT_SUSPENDED),
          "%s does not find back", actor->name);
}

/* ---- the test ----------------------------------------------------------------------------------
 */

static void begin_scene(struct scene *scene)
{
    check(!is_bypass() || wire_make(), "no wire");
    resources_start_broker(&scene->broker, is_bypass() ? patient_broker : small_broker);
    scene->far = scene->broker;
    if (!is_bypass()) {
        relay_start(&scene->relay, &scene->broker);
        scene->far = scene->relay.front;
    }
    actor_start(&scene->reader, "reader", &scene->broker, stream_read_actor, &everything);
    actor_await_step(&scene->reader, STREAM_READY);
    actor_start(&scene->writer, "writer", &scene->broker, stream_write_actor, &steady_writing);
    actor_await_step(&scene->writer, STREAM_READY);
}

static void end_scene(struct scene *scene)
{
    uint64_t written_count = stream_stop_writer(&scene->writer);
    stream_await_reader(&scene->reader, written_count);
    tell("the bystander: %" PRIu64 " messages of the steady writer, all; %" PRIu64
         " streams; longest time without a message %.1f ms",
         written_count, actor_result(&scene->reader, STREAM_RESULT_STREAMS),
         (double)actor_result(&scene->reader, STREAM_RESULT_QUIET_NS) / 1e6);
    stream_leave(&scene->writer);
    stream_leave(&scene->reader);
    if (scene->relay.actor.pid != 0) {
        relay_stop(&scene->relay);
    }
    check(broker_stop(&scene->broker) == 0, "the broker did not stop cleanly");
}

static void await_level(const struct broker *broker, const char *name, uint64_t level)
{
    await(broker_counter(broker, name, NULL) == level, "%s stays at %" PRIu64 ", wanted %" PRIu64,
          name, broker_counter(broker, name, NULL), level);
}

/* What the bystanders alone need. */
static void await_quiet(const struct broker *broker)
{
    await_level(broker, "broker.unauthenticated", 0);
    await_level(broker, "broker.sessions", 2);
    await_level(broker, "broker.publications", 2);
    await_level(broker, "broker.topics", 2);
}

static void test_kills(void)
{
    static struct scene scene;
    struct resources before;
    struct resources after;
    uint64_t random = options.seed;
    uint64_t count = options.count != 0 ? options.count : KILL_COUNT;
    uint64_t warm_up_count = count / 2 > WARM_UP_COUNT_MIN ? count / 2 : WARM_UP_COUNT_MIN;
    begin_scene(&scene);
    for (uint64_t number = 0; number < warm_up_count; number++) {
        kill_one(&scene, number, &random);
    }
    await_back(&scene.reader);
    await_back(&scene.writer);
    await_quiet(&scene.broker);
    resources_use_topics(&scene.broker, TOPIC_COUNT_MAX);
    await_quiet(&scene.broker);
    resources_settle(&before, &scene.broker);
    resources_tell(&before, "before");
    if (is_bypass()) {
        /* A bystander that loses its link touches more of its spill. */
        before.shared_bytes += SPILL_BYTES;
    }
    for (uint64_t number = 0; number < count; number++) {
        kill_one(&scene, warm_up_count + number, &random);
    }
    await_quiet(&scene.broker);
    resources_await(&after, &scene.broker, &before, HEAP_GROWTH_BYTES);
    resources_tell(&after, "after");
    tell("%" PRIu64 " kills, %" PRIu64 " of them each while %s, %s, %s, %s, %s", count,
         count / PHASE_COUNT, phase_names[CONNECTING], phase_names[SUBSCRIBING],
         phase_names[PUBLISHING], phase_names[RECEIVING], phase_names[RESUMING]);
    end_scene(&scene);
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"kills", test_kills, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
