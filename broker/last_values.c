/*
 * Design notes: last_values.h.
 */
#include "broker/last_values.h"

#include "core/assert.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

rsi_static_assert(sizeof(struct rsi_last_value_block) == 128);
rsi_static_assert(RSI_LAST_VALUE_BLOCK_BYTES >= RSI_FRAME_HEADER_BYTES);

rsi_status_t rsi_last_values_init(struct rsi_last_values *store, uint32_t topic_count_max,
                                  uint64_t bytes, int node, struct rsi_error *error)
{
    memset(store, 0, sizeof(*store));
    if (topic_count_max == 0) {
        return RSI_OK;
    }
    store->values = calloc(topic_count_max, sizeof(*store->values));
    if (!store->values) {
        return rsi_fail(error, RSI_E_NO_MEMORY,
                        "no memory for the last values of %u topics; lower last_value_topics",
                        topic_count_max);
    }
    store->slot_count_max = topic_count_max;
    const struct rsi_pool_options options = {
        .name = "last-values",
        .buffer_bytes = sizeof(struct rsi_last_value_block),
        .buffer_count = (uint32_t)(bytes / sizeof(struct rsi_last_value_block)),
        .node = node,
        .want_huge = true,
        .want_lock = true,
    };
    rsi_status_t status = rsi_pool_init(&store->blocks, &options, error);
    if (rsi_failed(status)) {
        rsi_last_values_fini(store);
    }
    return status;
}

void rsi_last_values_fini(struct rsi_last_values *store)
{
    rsi_pool_fini(&store->blocks);
    free(store->values);
    memset(store, 0, sizeof(*store));
}

void rsi_last_values_add_topic(struct rsi_last_values *store, struct rsi_topic *topic)
{
    if (topic->last_value != 0) {
        return;
    }
    rsi_assert(store->topic_count < store->slot_count_max);
    uint32_t slot = store->slot_count;
    if (store->topic_count < store->slot_count) { /* a retired topic has left one */
        slot = 0;
        while (store->values[slot].topic) {
            slot++;
        }
    } else {
        store->slot_count++;
    }
    store->topic_count++;
    store->values[slot].topic = topic;
    topic->last_value = slot + 1;
}

void rsi_last_values_remove_topic(struct rsi_last_values *store, struct rsi_topic *topic)
{
    if (topic->last_value == 0) {
        return;
    }
    struct rsi_last_value *value = rsi_last_values_of(store, topic);
    rsi_assert(!value->publication);
    rsi_assert(!value->blocks);
    value->topic = NULL;
    topic->last_value = 0;
    store->topic_count--;
}

/* Gives back the blocks of the value from `*link` on. */
static void release_chain(struct rsi_last_values *store, struct rsi_last_value_block **link)
{
    struct rsi_last_value_block *block = *link;
    *link = NULL;
    while (block) {
        struct rsi_last_value_block *next = block->next;
        rsi_pool_release(&store->blocks, block);
        block = next;
    }
}

/* Makes the chain as long as it has to be. False: there are too few blocks; it has none then. */
static RSI_NOINLINE bool resize_chain(struct rsi_last_values *store, struct rsi_last_value *value,
                                      uint32_t block_count)
{
    struct rsi_last_value_block **link = &value->blocks;
    bool fits = block_count <= value->block_count + store->blocks.free_count;
    for (uint32_t i = 0; fits && i < block_count; i++) {
        if (!*link) {
            *link = rsi_pool_acquire(&store->blocks);
            rsi_assert(*link != NULL);
            (*link)->next = NULL;
        }
        link = &(*link)->next;
    }
    release_chain(store, link);
    value->block_count = fits ? block_count : 0;
    return fits;
}

void rsi_last_values_update(struct rsi_last_values *store, const struct rsi_topic *topic,
                            struct rsi_publication *publication,
                            const struct rsi_frame_header *header, uint64_t frame_bytes,
                            uint32_t log_index, uint64_t position,
                            struct rsi_publication **replaced)
{
    struct rsi_last_value *value = rsi_last_values_of(store, topic);
    uint32_t block_count =
        (uint32_t)((frame_bytes + RSI_LAST_VALUE_BLOCK_BYTES - 1) / RSI_LAST_VALUE_BLOCK_BYTES);
    struct rsi_publication *publication_before = value->publication;
    *replaced = NULL;
    if (rsi_unlikely(value->block_count != block_count) &&
        !resize_chain(store, value, block_count)) {
        store->overflow_count++;
        value->publication = NULL;
        *replaced = publication_before;
        return;
    }
    const uint8_t *from = (const uint8_t *)header;
    uint64_t left_bytes = frame_bytes;
    for (struct rsi_last_value_block *block = value->blocks; block; block = block->next) {
        uint64_t bytes =
            left_bytes < RSI_LAST_VALUE_BLOCK_BYTES ? left_bytes : RSI_LAST_VALUE_BLOCK_BYTES;
        memcpy(block->bytes, from, bytes);
        from += bytes;
        left_bytes -= bytes;
    }
    value->frame_bytes = frame_bytes;
    value->log_index = log_index;
    value->position = position;
    if (publication != publication_before) {
        value->publication = publication;
        rsi_fetch_add_acq_rel(&publication->kept_count, 1u);
        *replaced = publication_before;
    }
}

void rsi_last_value_copy(const struct rsi_last_value *value, struct rsi_frame_header *to)
{
    uint8_t *at = (uint8_t *)to + sizeof(to->commit);
    uint64_t skip_bytes = sizeof(to->commit);
    uint64_t left_bytes = value->frame_bytes - skip_bytes;
    for (const struct rsi_last_value_block *block = value->blocks; block; block = block->next) {
        uint64_t bytes = RSI_LAST_VALUE_BLOCK_BYTES - skip_bytes;
        bytes = left_bytes < bytes ? left_bytes : bytes;
        memcpy(at, block->bytes + skip_bytes, bytes);
        at += bytes;
        left_bytes -= bytes;
        skip_bytes = 0;
    }
}
