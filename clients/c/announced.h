/*
 * What a client knows of the publications that its broker announced: who publishes where, which
 * sequence comes next, and which local subscriptions want it.
 *
 * Design notes
 * - A hash table by publication id, looked up once per frame: open addressing, at most half full,
 *   ids are never reused so nothing is ever removed. An entry is a pointer, so it stays put when
 *   the table grows.
 * - Entries live as long as the client. A publication that is closed is not told to subscribers, so
 *   its entry (some 100 bytes and its texts) stays: the price of never mistaking one for another.
 */
#ifndef RSI_CLIENT_ANNOUNCED_H
#define RSI_CLIENT_ANNOUNCED_H

#include "core/error.h"
#include "proto/layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ringside_subscription;

struct rsi_announced {
    uint32_t publication;
    uint32_t topic;
    uint64_t publisher_session;
    uint64_t next_sequence;         /* of the next frame, if nothing is left out */
    uint64_t subscriptions_version; /* of the client, when the list below was made; 0: never */
    /* While some subscription waits for last values: the latest message delivered, and the version
     * at that moment. */
    uint64_t delivered_sequence;
    uint64_t delivered_version;
    struct ringside_subscription **subscriptions; /* those that want its frames */
    uint32_t subscription_count;
    uint32_t subscription_slot_count;
    uint16_t subject_bytes;
    char *subject;   /* zero-terminated, in this entry's memory */
    char *publisher; /* likewise */
};

struct rsi_announced_table {
    struct rsi_announced **slots; /* NULL: free */
    uint32_t slot_count;          /* power of two, or 0 */
    uint32_t entry_count;
};

void rsi_announced_table_fini(struct rsi_announced_table *table);

/* NULL: not announced. */
static inline struct rsi_announced *rsi_announced_find(const struct rsi_announced_table *table,
                                                       uint32_t publication)
{
    if (table->slot_count == 0) {
        return NULL;
    }
    uint32_t mask = table->slot_count - 1;
    for (uint32_t slot = (publication * 0x9e3779b1u) & mask;; slot = (slot + 1) & mask) {
        struct rsi_announced *entry = table->slots[slot];
        if (entry == NULL || entry->publication == publication) {
            return entry;
        }
    }
}

/*
 * Enters an announced publication, or takes what is new from an announce of one already known.
 * `payload` is the frame's: an rsi_announce and its texts. PROTOCOL with `why` set (a constant
 * text) when it is malformed or contradicts what was said before; NO_MEMORY.
 */
RSI_MUST_CHECK rsi_status_t rsi_announced_put(struct rsi_announced_table *table,
                                              const void *payload, size_t payload_bytes,
                                              struct rsi_announced **entry, const char **why);

#endif
