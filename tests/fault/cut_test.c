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
#include "tests/fault/wire.h"

#include <stdlib.h>
#include <time.h>

enum {
    CUT_COUNT = 200,
    CUT_DELAY_NS = 20000000, /* at most, after the session went on */
    HASTY_ONE_IN = 5,        /* cuts that do not wait for that */
    HEAL_MS = 1000,          /* divided by --scale */
    GRACE_MS = 2000,
    LEAST_MS = 300,
    CHOICE_PORT = 7471,
    CHANGE_COUNT = 6,    /* of transport, there and back again */
    WIRE_CUT_COUNT = 20, /* noticed, then mended */
    WIRE_MEND_NS = 300000000,
    LONG_SILENCE_MS = 15000, /* more than tcp takes to notice */
};

/* What is between the mobile client and the broker. */
enum way {
    WAY_RELAY,
    WAY_WIRE,
    WAY_CHOICE, /* several transports; the client takes the best one that works */
};

struct scene {
    enum way way;
    struct broker broker;
    struct broker direct; /* the same as its partners see it: no cut reaches them */
    struct broker far;    /* and as mobile sees it */
    struct relay relay;
    struct actor mobile;
    struct actor reader; /* of what mobile writes */
    struct actor writer; /* for mobile */
};

/* What differs from test to test. */
struct plan {
    enum way way;
    ringside_policy_t policy; /* of mobile's subscription */
    bool may_end;             /* mobile's connection */
    const char *flags[3];     /* of the broker; NULL: no more */
};

/* What bypasses the kernel has no relay, but its wire is cut. */
static bool is_bypass(void)
{
    return is_transport("rdma") || is_transport("dpdk");
}

static const char *direct_path(char *path)
{
    return test_path(path, "direct.sock");
}

static void start_broker(struct scene *scene, const struct plan *plan)
{
    char path[PATH_BYTES];
    char direct[2 * PATH_BYTES];
    char wire[64];
    char choice[2][64];
    const char *flags[12] = {"--log-bytes=1MiB", "--message-bytes-max=64KiB", direct};
    size_t count = 3;
    snprintf(direct, sizeof(direct), "--listen=shm://%s", direct_path(path));
    if (plan->way == WAY_WIRE && is_transport("tcp")) {
        snprintf(wire, sizeof(wire), "--listen=tcp://%s:0", wire_broker_host());
        flags[count++] = wire;
    }
    if (plan->way == WAY_CHOICE && is_bypass()) {
        for (unsigned index = 0; index < 2; index++) {
            snprintf(choice[index], sizeof(choice[index]), "--listen=%s://%s:%d",
                     index == 0 ? options.transport : "tcp", wire_broker_host(), CHOICE_PORT);
            flags[count++] = choice[index];
        }
    }
    for (size_t index = 0; index < rsi_array_count(plan->flags); index++) {
        flags[count++] = plan->flags[index]; /* the first NULL ends the list */
    }
    broker_start(&scene->broker, flags);
    scene->direct = scene->broker;
    scene->far = scene->broker;
    if (!is_transport("shm")) {
        snprintf(scene->direct.url, sizeof(scene->direct.url), "shm://%.200s", path);
    }
}

/* On this host: shm by way of a relay at the path where clients look for it, or tcp past it. */
static void offer_choice(struct scene *scene)
{
    char path[PATH_BYTES];
    char name[64];
    char target[PATH_BYTES];
    if (is_bypass()) {
        snprintf(scene->far.url, sizeof(scene->far.url), "auto://%s:%d", wire_broker_host(),
                 CHOICE_PORT);
        return;
    }
    unsigned long port = strtoul(strrchr(scene->broker.url, ':') + 1, NULL, 10);
    snprintf(name, sizeof(name), "broker-%lu.sock", port);
    snprintf(scene->far.url, sizeof(scene->far.url), "auto://127.0.0.1:%lu", port);
    setenv("RINGSIDE_RUN_DIR", test_folder(), 1);
    relay_start_at(&scene->relay, &scene->broker, test_path(path, name), direct_path(target));
}

static void begin_scene(struct scene *scene, const struct plan *plan)
{
    static struct stream_duplex mobile;
    static struct stream_reading reading = {.subject = "cut.up.>", .policy = RINGSIDE_POLICY_BLOCK};
    static struct stream_writing writing = {
        .prefix = "cut.down", .stream_count = 2, .bytes_max = 2048, .burst = 8, .rest_ns = 1000000};
    mobile.writing = writing;
    mobile.writing.prefix = "cut.up";
    mobile.writing.may_end = plan->may_end;
    mobile.writing.prepare = plan->way == WAY_WIRE ? wire_enter_client_end : NULL;
    mobile.reading = (struct stream_reading){.subject = "cut.down.*",
                                             .policy = plan->policy,
                                             .allows_gaps = plan->policy == RINGSIDE_POLICY_DROP,
                                             .may_end = plan->may_end};
    scene->way = plan->way;
    check(!is_bypass() || wire_make(), "no wire");
    start_broker(scene, plan);
    if (plan->way == WAY_RELAY) {
        relay_start(&scene->relay, &scene->broker);
        scene->far = scene->relay.front;
    } else if (plan->way == WAY_CHOICE) {
        offer_choice(scene);
    }
    actor_start(&scene->reader, "reader", &scene->direct, stream_read_actor, &reading);
    actor_await_step(&scene->reader, STREAM_READY);
    actor_start(&scene->mobile, "mobile", &scene->far, stream_duplex_actor, &mobile);
    actor_await_step(&scene->mobile, STREAM_READY);
    actor_start(&scene->writer, "writer", &scene->direct, stream_write_actor, &writing);
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
    if (scene->relay.actor.pid != 0) {
        relay_stop(&scene->relay);
    }
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
    static struct scene scene;
    /* Hasty cuts may let several tries in a row fall silent, and each costs its time-out. */
    const struct plan plan = {
        .way = WAY_RELAY, .policy = RINGSIDE_POLICY_BLOCK, .flags = {"--block-timeout=60s"}};
    uint64_t random = options.seed;
    uint64_t count = options.count != 0 ? options.count : scaled(CUT_COUNT, 20);
    uint64_t cuts[RELAY_CUT_COUNT] = {0};
    begin_scene(&scene, &plan);
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

/* Nothing comes through until mend(). */
static void cut(struct scene *scene)
{
    if (scene->way == WAY_WIRE) {
        wire_cut(WIRE_SILENT);
        return;
    }
    relay_set_door(&scene->relay, false);
    relay_cut(&scene->relay, RELAY_RESET, options.seed);
}

static void mend(struct scene *scene)
{
    if (scene->way == WAY_WIRE) {
        wire_mend(WIRE_SILENT);
    } else {
        relay_set_door(&scene->relay, true);
    }
}

static enum way usual_way(void)
{
    return is_bypass() ? WAY_WIRE : WAY_RELAY;
}

/* Healed within the grace. Under drop something may be left out, and is counted to the message. */
static void heal_in_time(ringside_policy_t policy)
{
    static struct scene scene;
    const struct plan plan = {.way = usual_way(), .policy = policy};
    begin_scene(&scene, &plan);
    cut(&scene);
    uint64_t read_count = actor_progress(&scene.reader);
    pause_ns(scaled(HEAL_MS, LEAST_MS) * 1000000);
    check(actor_result(&scene.mobile, STREAM_RESULT_RESUMED) == 0, "it got through a closed door");
    mend(&scene);
    /* A silence that nobody noticed needs no resuming. */
    if (scene.way == WAY_RELAY) {
        await_resumed(&scene, 1);
    }
    actor_await_progress(&scene.reader, read_count + 100);
    tell("suspended %" PRIu64 " times, resumed %" PRIu64 ": %s",
         actor_result(&scene.mobile, STREAM_RESULT_SUSPENDED),
         actor_result(&scene.mobile, STREAM_RESULT_RESUMED), scene.mobile.shared->text);
    check_streams(&scene);
    end_scene(&scene);
}

static void test_healed_drop(void)
{
    heal_in_time(RINGSIDE_POLICY_DROP);
}

/* Away is slow: what it misses is soon too much, long before the grace is over. It hears that when
 * it comes back, also after the grace. */
static void end_as_slow(uint64_t grace_ms, uint64_t away_ms)
{
    static struct scene scene;
    char grace[64];
    const struct plan plan = {.way = usual_way(),
                              .policy = RINGSIDE_POLICY_DISCONNECT,
                              .may_end = true,
                              .flags = {grace}};
    snprintf(grace, sizeof(grace), "--session-grace=%" PRIu64 "ms", grace_ms);
    begin_scene(&scene, &plan);
    cut(&scene);
    broker_await_counter(&scene.broker, "broker.sessions_slow", NULL, 1);
    pause_ns(away_ms * 1000000);
    mend(&scene);
    await(actor_result(&scene.mobile, STREAM_RESULT_EVENT) != 0, "mobile was not told");
    ringside_status_t status =
        (ringside_status_t)(int64_t)actor_result(&scene.mobile, STREAM_RESULT_STATUS);
    tell("told: %s: %s", ringside_status_name(status), scene.mobile.shared->text);
    check(status == RINGSIDE_E_SLOW, "%s", ringside_status_name(status));
    (void)stream_stop_writer(&scene.writer);
    end_scene(&scene);
}

static void test_healed_disconnect(void)
{
    end_as_slow(10000, 0);
}

static void test_grace_disconnect(void)
{
    uint64_t grace_ms = scaled(GRACE_MS, LEAST_MS);
    end_as_slow(grace_ms, grace_ms * 3 / 2);
}

static void test_healed_block(void)
{
    heal_in_time(RINGSIDE_POLICY_BLOCK);
}

/* Longer than the grace: both sides are told that the session is over, and the others go on. Nobody
 * is slow before that, however late a silent cut is noticed. */
static void outlast_grace(ringside_policy_t policy)
{
    static struct scene scene;
    char grace[64];
    const struct plan plan = {.way = usual_way(),
                              .policy = policy,
                              .may_end = true,
                              .flags = {grace, "--block-timeout=60s"}};
    snprintf(grace, sizeof(grace), "--session-grace=%" PRIu64 "ms", scaled(GRACE_MS, LEAST_MS));
    begin_scene(&scene, &plan);
    cut(&scene);
    broker_await_counter(&scene.broker, "broker.sessions_lost", NULL, 1);
    /* Whoever waited for it goes on. */
    uint64_t written_count = actor_progress(&scene.writer);
    actor_await_progress(&scene.writer, written_count + 100);
    mend(&scene);
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

/* ---- a wire ------------------------------------------------------------------------------------
 */

static bool begin_on_wire(struct scene *scene)
{
    const struct plan plan = {.way = WAY_WIRE,
                              .policy = RINGSIDE_POLICY_BLOCK,
                              .flags = {"--block-timeout=60s", "--session-grace=60s"}};
    if (!wire_make()) {
        tell("passed over: this user may make no network namespaces");
        return false;
    }
    begin_scene(scene, &plan);
    return true;
}

/* Silent until the client notices, mended at a drawn time after that. */
static void test_wire_cuts(void)
{
    static struct scene scene;
    uint64_t random = options.seed;
    uint64_t count = options.count != 0 ? options.count : scaled(WIRE_CUT_COUNT, 4);
    if (!begin_on_wire(&scene)) {
        return;
    }
    for (uint64_t number = 0; number < count; number++) {
        uint64_t suspended_count = actor_result(&scene.mobile, STREAM_RESULT_SUSPENDED);
        wire_cut(WIRE_SILENT);
        await(actor_result(&scene.mobile, STREAM_RESULT_SUSPENDED) > suspended_count,
              "cut %" PRIu64 " is not noticed", number);
        pause_ns(random_next(&random) % WIRE_MEND_NS);
        uint64_t resumed_count = actor_result(&scene.mobile, STREAM_RESULT_RESUMED);
        wire_mend(WIRE_SILENT);
        await_resumed(&scene, resumed_count + 1);
        pause_ns(random_next(&random) % CUT_DELAY_NS);
    }
    tell("%" PRIu64 " cuts of the wire; suspended %" PRIu64 " times, resumed %" PRIu64
         ", the last: %s",
         count, actor_result(&scene.mobile, STREAM_RESULT_SUSPENDED),
         actor_result(&scene.mobile, STREAM_RESULT_RESUMED), scene.mobile.shared->text);
    check_streams(&scene);
    end_scene(&scene);
}

static void silence_wire(enum wire_cut cut, uint64_t milliseconds)
{
    static struct scene scene;
    if (options.scale > 1 && milliseconds == LONG_SILENCE_MS) {
        tell("passed over: with --scale nothing takes that long");
        return;
    }
    if (!begin_on_wire(&scene)) {
        return;
    }
    wire_cut(cut);
    pause_ns(milliseconds * 1000000);
    wire_mend(cut);
    uint64_t read_count = actor_progress(&scene.reader);
    actor_await_progress(&scene.reader, read_count + 100);
    tell("%.1f s of silence: suspended %" PRIu64 " times, resumed %" PRIu64,
         (double)milliseconds / 1e3, actor_result(&scene.mobile, STREAM_RESULT_SUSPENDED),
         actor_result(&scene.mobile, STREAM_RESULT_RESUMED));
    check_streams(&scene);
    end_scene(&scene);
}

static void test_short_silence(void)
{
    silence_wire(WIRE_SILENT, scaled(HEAL_MS, LEAST_MS));
}

static void test_long_silence(void)
{
    silence_wire(WIRE_SILENT, LONG_SILENCE_MS);
}

static void test_port_down(void)
{
    silence_wire(WIRE_DOWN, LONG_SILENCE_MS);
}

/* ---- another transport -------------------------------------------------------------------------
 */

static void await_transport(struct scene *scene, char first)
{
    await((char)actor_result(&scene->mobile, STREAM_RESULT_TRANSPORT) == first,
          "the session does not change to %s but stays on '%c'",
          first == 't'   ? "tcp"
          : first == 's' ? "shm"
                         : options.transport,
          (char)actor_result(&scene->mobile, STREAM_RESULT_TRANSPORT));
    actor_await_progress(&scene->reader, actor_progress(&scene->reader) + 50);
}

/* The best transport is cut and tcp carries on; when it is mended the session goes back. */
static void test_change(void)
{
    static struct scene scene;
    const struct plan plan = {.way = WAY_CHOICE,
                              .policy = RINGSIDE_POLICY_BLOCK,
                              .flags = {"--block-timeout=60s", "--session-grace=60s"}};
    uint64_t random = options.seed;
    uint64_t count = options.count != 0 ? options.count : scaled(CHANGE_COUNT, 2);
    char best = is_bypass() ? options.transport[0] : 's';
    begin_scene(&scene, &plan);
    await_transport(&scene, best);
    for (uint64_t number = 0; number < count; number++) {
        if (number % 2 == 1) {
            is_bypass() ? wire_mend(WIRE_BYPASS) : relay_set_door(&scene.relay, true);
            await_transport(&scene, best);
        } else if (is_bypass()) {
            wire_cut(WIRE_BYPASS);
            await_transport(&scene, 't');
        } else {
            relay_set_door(&scene.relay, false);
            relay_cut(&scene.relay, RELAY_CLOSE, random_next(&random));
            await_transport(&scene, 't');
        }
        pause_ns(random_next(&random) % CUT_DELAY_NS);
    }
    tell("%" PRIu64 " changes; suspended %" PRIu64 " times, resumed %" PRIu64 ", the last: %s",
         count, actor_result(&scene.mobile, STREAM_RESULT_SUSPENDED),
         actor_result(&scene.mobile, STREAM_RESULT_RESUMED), scene.mobile.shared->text);
    check_streams(&scene);
    end_scene(&scene);
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"cuts", test_cuts, "tcp shm"},
        {"healed in time, drop", test_healed_drop, NULL},
        {"healed in time, disconnect", test_healed_disconnect, NULL},
        {"healed in time, block", test_healed_block, NULL},
        {"longer than the grace, drop", test_grace_drop, NULL},
        {"longer than the grace, disconnect", test_grace_disconnect, NULL},
        {"longer than the grace, block", test_grace_block, NULL},
        {"wire, short silence", test_short_silence, "tcp rdma dpdk"},
        {"wire, long silence", test_long_silence, "tcp rdma dpdk"},
        {"wire, port down", test_port_down, "tcp dpdk"},
        {"wire, cuts", test_wire_cuts, "rdma dpdk"},
        /* Over dpdk by name only, where tcp has another way: tests/dpdk/inside. */
        {"change of transport", test_change, "tcp rdma"},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
