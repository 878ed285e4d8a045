#ifndef RSI_CORE_MAILBOX_H
#define RSI_CORE_MAILBOX_H

#include "core/atomics.h"
#include "core/error.h"

/*
 * A bounded queue of small messages from one thread to one other. Neither side ever waits, locks or
 * allocates. Each side keeps its own copy of the other side's count and reads the shared word only
 * when that copy says full or empty.
 */
struct rsi_mailbox {
    /* Fixed by init. */
    uint8_t *slots;
    uint32_t slot_bytes;   /* largest message */
    uint32_t stride_bytes; /* a slot with its length word */
    uint32_t slot_count;   /* power of two */
    RSI_SEPARATOR(before_pusher);

    /* Written by the pushing thread. */
    _Atomic uint64_t pushed_count;
    uint64_t popped_count_seen;
    RSI_SEPARATOR(before_popper);

    /* Written by the popping thread. */
    _Atomic uint64_t popped_count;
    uint64_t pushed_count_seen;
    RSI_SEPARATOR(after_popper);
};

/*
 * Allocates room for slot_count (a power of two) messages of at most slot_bytes each. Before either
 * thread uses it. Errors: INVALID, NO_MEMORY.
 */
rsi_status_t rsi_mailbox_init(struct rsi_mailbox *mailbox, uint32_t slot_bytes, uint32_t slot_count,
                              struct rsi_error *error) RSI_MUST_CHECK;

/* After both threads are done with it. Takes a zeroed mailbox. Messages left inside are dropped. */
void rsi_mailbox_fini(struct rsi_mailbox *mailbox);

/*
 * Copies a message in. Pushing thread. WOULD_BLOCK when full, TOO_LARGE beyond slot_bytes; then
 * nothing was taken. A message of 0 bytes is a message.
 */
rsi_status_t rsi_mailbox_push(struct rsi_mailbox *mailbox, const void *data,
                              uint32_t bytes) RSI_MUST_CHECK;

/* How many messages can be pushed now at least. Pushing thread. */
uint32_t rsi_mailbox_free_count(struct rsi_mailbox *mailbox);

/*
 * The oldest message, or NULL when there is none. Popping thread. It lies in the mailbox, aligned
 * to 8, valid until rsi_mailbox_pop().
 */
const void *rsi_mailbox_front(struct rsi_mailbox *mailbox, uint32_t *bytes);

/* Frees the slot of the message that rsi_mailbox_front() returned. Popping thread. */
void rsi_mailbox_pop(struct rsi_mailbox *mailbox);

/* Whether a message waits. Popping thread; after a seq_cst fence it is the check before a sleep. */
bool rsi_mailbox_is_empty(struct rsi_mailbox *mailbox);

#endif
