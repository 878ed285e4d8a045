/*
 * Design notes: see message_log.h. The log is mapped twice like every ring, so a reader finds each
 * frame contiguous; it is never shared with another process and never registered.
 */
#include "broker/message_log.h"

#include <string.h>

rsi_status_t rsi_message_log_init(struct rsi_message_log *log, const char *name, uint64_t bytes,
                                  int node, struct rsi_error *error)
{
    memset(log, 0, sizeof(*log));
    struct rsi_ring_options options = {
        .name = name,
        .capacity_bytes = bytes,
        .node = node,
        .want_huge = true,
        .want_lock = false,
    };
    return rsi_ring_init(&log->ring, &options, error);
}

void rsi_message_log_fini(struct rsi_message_log *log)
{
    rsi_ring_fini(&log->ring);
    memset(log, 0, sizeof(*log));
}
