/*
 * What a process holds: descriptors, mappings, memory and, where there are RDMA devices, verbs
 * objects. For tests that want all of it back.
 */
#ifndef RSI_TESTS_FAULT_RESOURCES_H
#define RSI_TESTS_FAULT_RESOURCES_H

#include "tests/system/harness.h"

struct resources {
    size_t fd_count;
    size_t map_count;
    size_t record_count;      /* in its counters file */
    uint64_t anonymous_bytes; /* resident: heap and stacks */
    uint64_t shared_bytes;    /* resident: rings and logs */
    /* Of all processes, as rdma(8) counts them; "" without devices. */
    char rdma[512];
};

void resources_take(struct resources *resources, const struct broker *broker);
void resources_tell(const struct resources *resources, const char *when);
/*
 * Waits until the broker holds no more than `before`: descriptors, mappings, counter records and
 * verbs objects to the piece, shared memory to the page, and at most `anonymous_bytes` of heap more
 * (an allocator keeps what it fragmented). Fails the test when that does not come. `after` gets
 * what it holds then.
 */
void resources_await(struct resources *after, const struct broker *broker,
                     const struct resources *before, uint64_t anonymous_bytes);

#endif
