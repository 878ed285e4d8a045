/*
 * Design notes
 *
 * - pushed_count and popped_count only grow; their difference is what is inside. Each has one
 * writer.
 * - The release store of pushed_count publishes the slot's bytes to the acquire load in
 *   rsi_mailbox_front(); the release store of popped_count gives the slot back to the acquire load
 * in rsi_mailbox_push(), so that no slot is overwritten while it is read.
 * - A side reads the other's count only when its own copy of it says that nothing can be done: in
 * the steady state a message costs one cache line transfer for the slot and now and then one for a
 * count.
 */
#include "core/mailbox.h"

#include <stdlib.h>
#include <string.h>

#include "core/position.h"

/* In front of each message. */
struct slot_header {
    uint64_t bytes;
};

rsi_static_assert(sizeof(struct slot_header) == 8);

static uint8_t *slot_at(const struct rsi_mailbox *mailbox, uint64_t count)
{
    return mailbox->slots + (size_t)(count & (mailbox->slot_count - 1)) * mailbox->stride_bytes;
}

rsi_status_t rsi_mailbox_init(struct rsi_mailbox *mailbox, uint32_t slot_bytes, uint32_t slot_count,
                              struct rsi_error *error)
{
    const uint32_t slot_bytes_max = 1u << 30;
    if (!rsi_is_power_of_two(slot_count)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "a mailbox of %u messages is not possible; the count is a power of two",
                        slot_count);
    }
    if (slot_bytes == 0 || slot_bytes > slot_bytes_max) {
        return rsi_fail(error, RSI_E_INVALID,
                        "a mailbox for messages of %u bytes is not possible; use 1 to %u",
                        slot_bytes, slot_bytes_max);
    }
    uint64_t stride_bytes = rsi_align_up_64(sizeof(struct slot_header) + slot_bytes);
    uint8_t *slots = aligned_alloc(RSI_CACHE_LINE_BYTES, stride_bytes * slot_count);
    if (slots == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY,
                        "no memory for a mailbox of %u messages of %u bytes", slot_count,
                        slot_bytes);
    }
    memset(slots, 0, stride_bytes * slot_count);
    memset(mailbox, 0, sizeof *mailbox);
    mailbox->slots = slots;
    mailbox->slot_bytes = slot_bytes;
    mailbox->stride_bytes = (uint32_t)stride_bytes;
    mailbox->slot_count = slot_count;
    return RSI_OK;
}

void rsi_mailbox_fini(struct rsi_mailbox *mailbox)
{
    free(mailbox->slots);
    memset(mailbox, 0, sizeof *mailbox);
}

/* Free slots as far as the pusher knows; asks the popper's count only when it knows of none. */
static uint64_t known_free_count(struct rsi_mailbox *mailbox, uint64_t pushed_count)
{
    uint64_t used_count = rsi_pos_distance(mailbox->popped_count_seen, pushed_count);
    if (used_count == mailbox->slot_count) {
        /* pairs with the release store in rsi_mailbox_pop() */
        mailbox->popped_count_seen = rsi_load_acquire(&mailbox->popped_count);
        used_count = rsi_pos_distance(mailbox->popped_count_seen, pushed_count);
    }
    rsi_assert(used_count <= mailbox->slot_count);
    return mailbox->slot_count - used_count;
}

rsi_status_t rsi_mailbox_push(struct rsi_mailbox *mailbox, const void *data, uint32_t bytes)
{
    if (bytes > mailbox->slot_bytes) {
        return RSI_E_TOO_LARGE;
    }
    uint64_t pushed_count = rsi_load_relaxed(&mailbox->pushed_count);
    if (known_free_count(mailbox, pushed_count) == 0) {
        return RSI_WOULD_BLOCK;
    }
    uint8_t *slot = slot_at(mailbox, pushed_count);
    struct slot_header header = {.bytes = bytes};
    memcpy(slot, &header, sizeof header);
    if (bytes > 0) {
        memcpy(slot + sizeof header, data, bytes);
    }
    /* pairs with the acquire load in rsi_mailbox_is_empty() */
    rsi_store_release(&mailbox->pushed_count, pushed_count + 1);
    return RSI_OK;
}

uint32_t rsi_mailbox_free_count(struct rsi_mailbox *mailbox)
{
    /* pairs with the release store in rsi_mailbox_pop() */
    mailbox->popped_count_seen = rsi_load_acquire(&mailbox->popped_count);
    return (uint32_t)known_free_count(mailbox, rsi_load_relaxed(&mailbox->pushed_count));
}

bool rsi_mailbox_is_empty(struct rsi_mailbox *mailbox)
{
    uint64_t popped_count = rsi_load_relaxed(&mailbox->popped_count);
    if (mailbox->pushed_count_seen == popped_count) {
        /* pairs with the release store in rsi_mailbox_push() */
        mailbox->pushed_count_seen = rsi_load_acquire(&mailbox->pushed_count);
    }
    return mailbox->pushed_count_seen == popped_count;
}

const void *rsi_mailbox_front(struct rsi_mailbox *mailbox, uint32_t *bytes)
{
    if (rsi_mailbox_is_empty(mailbox)) {
        return NULL;
    }
    const uint8_t *slot = slot_at(mailbox, rsi_load_relaxed(&mailbox->popped_count));
    struct slot_header header;
    memcpy(&header, slot, sizeof header);
    *bytes = (uint32_t)header.bytes;
    return slot + sizeof header;
}

void rsi_mailbox_pop(struct rsi_mailbox *mailbox)
{
    uint64_t popped_count = rsi_load_relaxed(&mailbox->popped_count);
    rsi_assert(popped_count != mailbox->pushed_count_seen);
    /* pairs with the acquire load in known_free_count() */
    rsi_store_release(&mailbox->popped_count, popped_count + 1);
}
