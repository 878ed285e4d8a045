/*
 * One agent's store of last values: for each topic whose subject the broker's setting last_value
 * names, the last frame that this agent's common walk has met.
 *
 * Design notes
 * - Every agent has a store of its own, kept up by its own walk: it is the state of all logs at the
 *   positions where that walk stands, exactly, without a lock or a message. Between publishers of
 *   one topic "last" is what this agent walked last; the order between them is promised to nobody.
 * - A value is a chain of blocks of one size, and an update writes over the chain in place, taking
 *   or giving back blocks as the size changes: nothing fragments, nothing is allocated after start.
 *   Nobody keeps a reference: who is sent a value gets a copy of what it is at that moment.
 * - A value that finds too few blocks is not kept, nor is the older one that it replaces, because
 *   that would be wrong: the topic has none until its next message. That is counted.
 * - A value holds its publication (kept_count), so that it can be announced after its publisher has
 *   gone. Its topic lives as long as its publication: what has a value is never retired.
 */
#ifndef RSI_BROKER_LAST_VALUES_H
#define RSI_BROKER_LAST_VALUES_H

#include "broker/topic_index.h"
#include "core/pool.h"

/* Bytes of a frame in one block. A message of 64 bytes with its frame header takes one. */
#define RSI_LAST_VALUE_BLOCK_BYTES 120u

struct rsi_last_value_block {
    struct rsi_last_value_block *next; /* NULL: the last of its value */
    uint8_t bytes[RSI_LAST_VALUE_BLOCK_BYTES];
};

struct rsi_last_value {
    const struct rsi_topic *topic;       /* NULL: the slot is free */
    struct rsi_publication *publication; /* of the value; NULL: there is none */
    uint32_t log_index;                  /* where its frame was */
    uint64_t position;
    uint64_t frame_bytes;
    uint32_t block_count;
    struct rsi_last_value_block *blocks; /* the frame as it lay in the log */
};

struct rsi_last_values {
    struct rsi_last_value *values; /* by slot; NULL: no store */
    uint32_t slot_count_max;
    uint32_t slot_count;  /* none from here on was ever used */
    uint32_t topic_count; /* slots in use */
    struct rsi_pool blocks;
    uint64_t overflow_count; /* messages that found too few blocks */
};

/* Control plane. Room for `topic_count_max` topics and `bytes` of blocks; 0 topics: no store. */
RSI_MUST_CHECK rsi_status_t rsi_last_values_init(struct rsi_last_values *store,
                                                 uint32_t topic_count_max, uint64_t bytes, int node,
                                                 struct rsi_error *error);
void rsi_last_values_fini(struct rsi_last_values *store);

/* The topic has a last value from here on: gives it a slot. There is one: who opens publications
 * counts. Does nothing if it has one already. */
void rsi_last_values_add_topic(struct rsi_last_values *store, struct rsi_topic *topic);
/* The topic is retired, and has no value. */
void rsi_last_values_remove_topic(struct rsi_last_values *store, struct rsi_topic *topic);

/*
 * A frame of the log is the topic's value from here on; *replaced gets the publication that has
 * lost its last value here, or NULL.
 */
void rsi_last_values_update(struct rsi_last_values *store, const struct rsi_topic *topic,
                            struct rsi_publication *publication,
                            const struct rsi_frame_header *header, uint64_t frame_bytes,
                            uint32_t log_index, uint64_t position,
                            struct rsi_publication **replaced);

/* The topic's value; it has none if its publication is NULL. The topic has a slot. */
static inline struct rsi_last_value *rsi_last_values_of(const struct rsi_last_values *store,
                                                        const struct rsi_topic *topic)
{
    return &store->values[topic->last_value - 1];
}

/* The frame header of a value that there is. */
static inline const struct rsi_frame_header *
rsi_last_value_header(const struct rsi_last_value *value)
{
    return (const struct rsi_frame_header *)(const void *)value->blocks->bytes;
}
/* Copies the frame of a value that there is, without its commit word. */
void rsi_last_value_copy(const struct rsi_last_value *value, struct rsi_frame_header *to);

#endif
