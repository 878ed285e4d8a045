/*
 * Design notes
 * - Resident memory is judged apart: rings and logs are shared memory and come back to the byte
 * when they are unmapped; the heap's share may keep what the allocator holds for later. So what the
 * broker itself holds of the heap is counted in allocations (watched_malloc.c), to the piece.
 * - Nor is it to map memory as it likes: the broker's allocator has one arena, which grows in
 * place, so every mapping is one of the broker's own.
 * - A sanitizer keeps freed memory back and maps memory of its own, so its builds judge neither
 * heap nor mappings: there the leak checker does, at the broker's end.
 * - rdma(8) counts objects of all processes. Those of the test's own clients stay while it looks.
 */
#include "tests/fault/resources.h"

#include "core/counters.h"
#include "tests/fault/stream_actors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    /* Arrays that double and stay: of an agent's subscriptions (22 KiB at the 65th), of those that
     * a topic goes to; and what an allocation can hold beyond what was asked for. */
    LIVE_SLACK_BYTES = 64 << 10,
    /* The room for those that a topic goes to doubles at the fifth; there are seldom nine. */
    LISTENER_COUNT = 5, /* per agent */
    AGENT_COUNT_MAX = 8,
    SETTLED_NS = 1500000000,
};

static struct watched_malloc *watched;

/* ---- the allocator -----------------------------------------------------------------------------
 */

static bool find_library(char *path)
{
    return test_library(path, "fault_watched_malloc.so");
}

bool resources_can_watch(void)
{
    char path[PATH_BYTES];
    return find_library(path);
}

struct watched_malloc *resources_malloc(void)
{
    return watched;
}

void resources_start_broker(struct broker *broker, const char *const *extra_flags)
{
    static const char *const variables[][2] = {
        {"MALLOC_ARENA_MAX", "1"},
        {"MALLOC_MMAP_THRESHOLD_", "33554432"}, /* the most that glibc takes */
    };
    char library[PATH_BYTES];
    char path[PATH_BYTES];
    if (!find_library(library)) {
        broker_start(broker, extra_flags);
        return;
    }
    int fd = open(test_path(path, "malloc"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    check(fd >= 0 && ftruncate(fd, sizeof(*watched)) == 0, "%s: %s", path, strerror(errno));
    watched = mmap(NULL, sizeof(*watched), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(watched != MAP_FAILED, "%s: %s", path, strerror(errno));
    close(fd);
    setenv(WATCHED_MALLOC_VARIABLE, path, 1);
    setenv("LD_PRELOAD", library, 1);
    for (unsigned i = 0; i < rsi_array_count(variables); i++) {
        setenv(variables[i][0], variables[i][1], 1);
    }
    broker_start(broker, extra_flags);
    unsetenv(WATCHED_MALLOC_VARIABLE);
    unsetenv("LD_PRELOAD");
    for (unsigned i = 0; i < rsi_array_count(variables); i++) {
        unsetenv(variables[i][0]);
    }
    check(rsi_load_relaxed(&watched->live_count) != 0, "%s is not in the broker", library);
}

/* ---- what is made once -------------------------------------------------------------------------
 */

static void pass_over(void *arg, const ringside_message_t *message)
{
    (void)arg;
    (void)message;
}

static void open_and_close(struct actor *self, void *arg)
{
    const uint32_t *topic_count = arg;
    ringside_client_t *listeners[LISTENER_COUNT * AGENT_COUNT_MAX];
    unsigned listener_count = LISTENER_COUNT * options.agent_count;
    check(options.agent_count <= AGENT_COUNT_MAX, "too many agents");
    /* Sessions go to the agents in turn. */
    for (unsigned i = 0; i < listener_count; i++) {
        listeners[i] = actor_connect(self, &stream_client_options);
        actor_subscribe(listeners[i], "fault.slot.*", RINGSIDE_POLICY_DROP, pass_over, NULL);
    }
    ringside_client_t *client = actor_connect(self, &stream_client_options);
    for (uint32_t i = 0; i < *topic_count; i++) {
        char subject[32];
        snprintf(subject, sizeof(subject), "fault.slot.%" PRIu32, i);
        ringside_publisher_destroy(actor_publisher(client, subject));
        actor_set_progress(self, i + 1);
    }
    actor_close(client);
    for (unsigned i = 0; i < listener_count; i++) {
        /* Those that are there too, and only now: what a listener leaves out keeps topics. */
        actor_subscribe(listeners[i], "fault.>", RINGSIDE_POLICY_DROP, pass_over, NULL);
    }
    for (unsigned i = 0; i < listener_count; i++) {
        actor_close(listeners[i]);
    }
}

void resources_use_topics(const struct broker *broker, uint32_t topic_count)
{
    struct actor actor;
    actor_start(&actor, "opener", broker, open_and_close, &topic_count);
    actor_join(&actor);
    actor_forget(&actor);
}

/* ---- what there is -----------------------------------------------------------------------------
 */

/* A line "Name:   1234 kB" of /proc/PID/status. */
static uint64_t status_bytes(const char *text, const char *name)
{
    const char *line = strstr(text, name);
    check(line != NULL, "/proc/PID/status has no %s", name);
    return strtoull(line + strlen(name), NULL, 10) << 10;
}

/* "1: rxe_a: pd 1 cq 2 qp 1 cm_id 3 mr 4 ctx 1 srq 0" per device. */
static void read_rdma(char *text, size_t text_bytes)
{
    text[0] = '\0';
    if (!is_transport("rdma")) {
        return;
    }
    const char *const command[] = {"/usr/bin/env", "rdma", "resource", "show", NULL};
    int code = run_command(command, text, text_bytes);
    check(code == 0, "rdma resource show: code %d: %s", code, text);
}

static size_t count_records(const struct broker *broker)
{
    struct rsi_counters_reader *reader = NULL;
    struct rsi_error error = {0};
    struct rsi_counter_view view;
    uint32_t cursor = 0;
    size_t count = 0;
    check(!rsi_failed(rsi_counters_open(&reader, broker->counters_path, &error)), "%s", error.text);
    while (rsi_counters_next(reader, &cursor, &view)) {
        count++;
    }
    rsi_counters_close(reader);
    return count;
}

void resources_take(struct resources *resources, const struct broker *broker)
{
    char path[64];
    memset(resources, 0, sizeof(*resources));
    broker_count_resources(broker, &resources->fd_count, &resources->map_count);
    resources->record_count = count_records(broker);
    if (watched != NULL) {
        resources->live_count = rsi_load_relaxed(&watched->live_count);
        resources->live_bytes = rsi_load_relaxed(&watched->live_bytes);
    }
    snprintf(path, sizeof(path), "/proc/%d/status", (int)broker->program.pid);
    const char *text = read_file(path);
    resources->anonymous_bytes = status_bytes(text, "RssAnon:");
    resources->shared_bytes = status_bytes(text, "RssShmem:");
    read_rdma(resources->rdma, sizeof(resources->rdma));
}

static bool is_same(const struct resources *one, const struct resources *other)
{
    return one->fd_count == other->fd_count && one->map_count == other->map_count &&
           one->record_count == other->record_count && one->live_count == other->live_count;
}

void resources_settle(struct resources *resources, const struct broker *broker)
{
    uint64_t until_ns = now_ns() + hang_ns();
    uint64_t since_ns = now_ns();
    struct resources now;
    resources_take(resources, broker);
    do {
        check(now_ns() < until_ns, "what the broker holds does not settle");
        nap();
        resources_take(&now, broker);
        if (!is_same(resources, &now)) {
            since_ns = now_ns();
        }
        *resources = now;
    } while (now_ns() - since_ns < SETTLED_NS);
}

void resources_tell(const struct resources *resources, const char *when)
{
    tell("%s: %zu descriptors, %zu mappings, %zu counter records, heap %" PRIu64
         " KiB, shared %" PRIu64 " KiB, %" PRIu64 " allocations of %" PRIu64 " bytes",
         when, resources->fd_count, resources->map_count, resources->record_count,
         resources->anonymous_bytes >> 10, resources->shared_bytes >> 10, resources->live_count,
         resources->live_bytes);
    for (const char *at = resources->rdma; *at != '\0';
         at += strcspn(at, "\n"), at += *at == '\n') {
        tell("%s: %.*s", when, (int)strcspn(at, "\n"), at);
    }
}

/* ---- whether it is back ------------------------------------------------------------------------
 */

static bool allocations_are_back(const struct resources *after, const struct resources *before,
                                 uint64_t anonymous_bytes)
{
    return watched == NULL ||
           (after->map_count <= before->map_count && after->live_count <= before->live_count &&
            after->live_bytes <= before->live_bytes + LIVE_SLACK_BYTES &&
            after->anonymous_bytes <= before->anonymous_bytes + anonymous_bytes);
}

static bool is_back(const struct resources *after, const struct resources *before,
                    uint64_t anonymous_bytes)
{
    return after->fd_count <= before->fd_count && after->record_count <= before->record_count &&
           after->shared_bytes <= before->shared_bytes &&
           allocations_are_back(after, before, anonymous_bytes) &&
           strcmp(after->rdma, before->rdma) == 0;
}

void resources_await(struct resources *after, const struct broker *broker,
                     const struct resources *before, uint64_t anonymous_bytes)
{
    uint64_t until_ns = now_ns() + hang_ns();
    while (resources_take(after, broker), !is_back(after, before, anonymous_bytes)) {
        if (now_ns() >= until_ns) {
            resources_tell(before, "before");
            resources_tell(after, "after");
            fail("the broker keeps more than it had");
        }
        nap();
    }
}
