/*
 * A data agent's log: the private ring of checked frames, in the order in which the agent took
 * them. All fan-out reads it.
 *
 * Design notes
 * - One writer (its agent), many readers (all agents). `end_pos` is the only word they share: the
 *   writer releases it once per burst, readers acquire it.
 * - The writer never overwrites a position at or above the lowest one that some agent still needs;
 *   the caller passes where it must stop to reserve (at most a capacity beyond that position), the
 *   log knows no agents.
 * - Frames have the layout of proto/layout.h, with the log's own positions in their commit words.
 */
#ifndef RSI_BROKER_MESSAGE_LOG_H
#define RSI_BROKER_MESSAGE_LOG_H

#include "core/atomics.h"
#include "core/ring.h"
#include "proto/layout.h"

struct rsi_message_log {
    struct rsi_ring ring;
    uint64_t append_pos; /* writer: end of what was appended */
    RSI_SEPARATOR(before_end);
    _Atomic uint64_t end_pos; /* end of what readers may read */
    RSI_SEPARATOR(after_end);
};

RSI_MUST_CHECK rsi_status_t rsi_message_log_init(struct rsi_message_log *log, const char *name,
                                                 uint64_t bytes, int node, struct rsi_error *error);
void rsi_message_log_fini(struct rsi_message_log *log);

/* Writer: room for one frame, or NULL when it would end beyond limit_pos. */
static inline struct rsi_frame_header *
rsi_message_log_reserve(struct rsi_message_log *log, uint64_t frame_bytes, uint64_t limit_pos)
{
    if (log->append_pos + frame_bytes > limit_pos) {
        return NULL;
    }
    return (struct rsi_frame_header *)(void *)rsi_ring_at(&log->ring, log->append_pos);
}

/* Writer: the reserved frame is complete but for its commit word. */
static inline void rsi_message_log_append(struct rsi_message_log *log, uint64_t frame_bytes)
{
    struct rsi_frame_header *header =
        (struct rsi_frame_header *)(void *)rsi_ring_at(&log->ring, log->append_pos);
    header->commit = rsi_commit_word(log->append_pos, frame_bytes);
    log->append_pos += frame_bytes;
}

/* Writer: what was appended becomes readable. */
static inline void rsi_message_log_publish(struct rsi_message_log *log)
{
    rsi_store_release(&log->end_pos, log->append_pos);
}

/* Reader. */
static inline uint64_t rsi_message_log_end_pos(const struct rsi_message_log *log)
{
    return rsi_load_acquire(&log->end_pos);
}

/* Reader, position below an acquired end. */
static inline const struct rsi_frame_header *rsi_message_log_at(const struct rsi_message_log *log,
                                                                uint64_t position)
{
    return (const struct rsi_frame_header *)(const void *)rsi_ring_at(&log->ring, position);
}

#endif
