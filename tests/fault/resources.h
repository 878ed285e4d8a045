/*
 * What a process holds: descriptors, mappings, memory and, where there are RDMA devices, verbs
 * objects. For tests that want all of it back.
 */
#ifndef RSI_TESTS_FAULT_RESOURCES_H
#define RSI_TESTS_FAULT_RESOURCES_H

#include "tests/fault/watched_malloc.h"
#include "tests/system/harness.h"

struct resources {
    size_t fd_count;
    size_t map_count;
    size_t record_count;      /* in its counters file */
    uint64_t live_count;      /* allocations; 0 when nobody watches them */
    uint64_t live_bytes;      /* that they can hold */
    uint64_t anonymous_bytes; /* resident: heap and stacks */
    uint64_t shared_bytes;    /* resident: rings and logs */
    /* Of all processes, as rdma(8) counts them; "" without devices. */
    char rdma[512];
};

/* Whether the build can watch a broker's allocations: a sanitizer has an allocator of its own. */
bool resources_can_watch(void);
/* broker_start for a broker whose allocations are watched, where the build can; one at a time. */
void resources_start_broker(struct broker *broker, const char *const *extra_flags);
/* What it shares with its allocator; NULL: nobody watches. */
struct watched_malloc *resources_malloc(void);

/*
 * A client opens and closes so many publishers, each on a topic of its own that five sessions of
 * every agent listen to, and then to the topics that are there. The broker keeps the memory of a
 * topic's slot once there was a topic in it: after --topic-count-max topics it has all, if those of
 * clients that went are let go first (a slot that is still taken is passed over).
 */
void resources_use_topics(const struct broker *broker, uint32_t topic_count);

void resources_take(struct resources *resources, const struct broker *broker);
/* When nothing of it has changed for longer than counters and sessions of the dead stay. */
void resources_settle(struct resources *resources, const struct broker *broker);
void resources_tell(const struct resources *resources, const char *when);
/*
 * Waits until the broker holds no more than `before`: descriptors, mappings, allocations, counter
 * records and verbs objects to the piece, shared memory to the page, and at most `anonymous_bytes`
 * of resident heap more (what the allocator keeps although it was freed). Fails the test when that
 * does not come. `after` gets what it holds then.
 */
void resources_await(struct resources *after, const struct broker *broker,
                     const struct resources *before, uint64_t anonymous_bytes);

#endif
