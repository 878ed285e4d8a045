/*
 * Design notes
 * - Resident memory is judged apart: rings and logs are shared memory and come back to the byte
 * when they are unmapped; the heap's share may keep what the allocator holds for later.
 * - A sanitizer keeps freed memory back and maps memory of its own, so its builds judge neither
 * heap nor mappings: there the leak checker does, at the broker's end.
 * - rdma(8) counts objects of all processes. Those of the test's own clients stay while it looks.
 */
#include "tests/fault/resources.h"

#include "core/counters.h"

#include <errno.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { ALLOCATOR_IS_JUDGED = 0 };
#else
enum { ALLOCATOR_IS_JUDGED = 1 };
#endif

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
    snprintf(path, sizeof(path), "/proc/%d/status", (int)broker->program.pid);
    const char *text = read_file(path);
    resources->anonymous_bytes = status_bytes(text, "RssAnon:");
    resources->shared_bytes = status_bytes(text, "RssShmem:");
    read_rdma(resources->rdma, sizeof(resources->rdma));
}

void resources_tell(const struct resources *resources, const char *when)
{
    tell("%s: %zu descriptors, %zu mappings, %zu counter records, heap %" PRIu64
         " KiB, shared %" PRIu64 " KiB",
         when, resources->fd_count, resources->map_count, resources->record_count,
         resources->anonymous_bytes >> 10, resources->shared_bytes >> 10);
    for (const char *at = resources->rdma; *at != '\0';
         at += strcspn(at, "\n"), at += *at == '\n') {
        tell("%s: %.*s", when, (int)strcspn(at, "\n"), at);
    }
}

/* Sessions of the dead last for a moment, so how many there are at a time differs, and with it what
 * malloc keeps: a map more, some heap more. What each of hundreds leaves behind is far above that.
 */
enum { MAP_SLACK = 2 };

static bool is_back(const struct resources *after, const struct resources *before,
                    uint64_t anonymous_bytes)
{
    return after->fd_count <= before->fd_count &&
           (!ALLOCATOR_IS_JUDGED || after->map_count <= before->map_count + MAP_SLACK) &&
           after->record_count <= before->record_count &&
           after->shared_bytes <= before->shared_bytes &&
           (!ALLOCATOR_IS_JUDGED ||
            after->anonymous_bytes <= before->anonymous_bytes + anonymous_bytes) &&
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
