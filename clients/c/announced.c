/*
 * Design notes
 * - Everything in an announce is the peer's word: lengths are checked against the payload before
 * any text is touched, subjects against the grammar, and a second announce against the first.
 * - A second announce comes when the broker began to send this publication again after a time in
 *   which no subscription wanted it. Its sequence may be higher than what was seen last: what lies
 *   between was not asked for, so it is no gap. It is never lower: that would repeat messages.
 */
#include "clients/c/announced.h"

#include "proto/subject.h"

#include <stdlib.h>
#include <string.h>

#define SLOT_COUNT_FIRST 64u

void rsi_announced_table_fini(struct rsi_announced_table *table)
{
    for (uint32_t slot = 0; slot < table->slot_count; slot++) {
        if (table->slots[slot] == NULL) {
            continue;
        }
        free(table->slots[slot]->subscriptions);
        free(table->slots[slot]);
    }
    free(table->slots);
    memset(table, 0, sizeof(*table));
}

static void insert(struct rsi_announced **slots, uint32_t slot_count, struct rsi_announced *entry)
{
    uint32_t mask = slot_count - 1;
    uint32_t slot = (entry->publication * 0x9e3779b1u) & mask;
    while (slots[slot] != NULL) {
        slot = (slot + 1) & mask;
    }
    slots[slot] = entry;
}

static rsi_status_t grow(struct rsi_announced_table *table)
{
    uint32_t slot_count = table->slot_count == 0 ? SLOT_COUNT_FIRST : table->slot_count * 2;
    struct rsi_announced **slots = calloc(slot_count, sizeof(struct rsi_announced *));
    if (slots == NULL) {
        return RSI_E_NO_MEMORY;
    }
    for (uint32_t slot = 0; slot < table->slot_count; slot++) {
        if (table->slots[slot] != NULL) {
            insert(slots, slot_count, table->slots[slot]);
        }
    }
    free(table->slots);
    table->slots = slots;
    table->slot_count = slot_count;
    return RSI_OK;
}

/* NULL: fine. */
static const char *announce_fault(const struct rsi_announce *announce, const char *texts,
                                  size_t payload_bytes)
{
    if ((size_t)announce->subject_bytes + announce->name_bytes + sizeof(*announce) !=
        payload_bytes) {
        return "an announce whose texts are not as long as it says";
    }
    if (announce->name_bytes > RSI_NAME_BYTES_MAX) {
        return "an announce with a publisher's name that is too long";
    }
    if (rsi_subject_check_literal(texts, announce->subject_bytes, NULL) != NULL) {
        return "an announce of something that is no literal subject";
    }
    if (announce->next_sequence == 0) {
        return "an announce of sequence 0: sequences begin at 1";
    }
    return NULL;
}

static const char *repeat_fault(const struct rsi_announced *entry,
                                const struct rsi_announce *announce, const char *texts)
{
    if (announce->topic != entry->topic ||
        announce->publisher_session != entry->publisher_session ||
        announce->subject_bytes != entry->subject_bytes ||
        memcmp(texts, entry->subject, entry->subject_bytes) != 0) {
        return "an announce that contradicts an earlier one of the same publication";
    }
    if (announce->next_sequence < entry->next_sequence) {
        return "an announce that goes back behind what was delivered";
    }
    return NULL;
}

static struct rsi_announced *entry_make(const struct rsi_announce *announce, const char *texts)
{
    size_t texts_bytes = (size_t)announce->subject_bytes + announce->name_bytes + 2;
    struct rsi_announced *entry = calloc(1, sizeof(*entry) + texts_bytes);
    if (entry == NULL) {
        return NULL;
    }
    entry->publication = announce->publication;
    entry->topic = announce->topic;
    entry->publisher_session = announce->publisher_session;
    entry->next_sequence = announce->next_sequence;
    entry->subject_bytes = announce->subject_bytes;
    entry->subject = (char *)(entry + 1);
    memcpy(entry->subject, texts, announce->subject_bytes);
    entry->publisher = entry->subject + announce->subject_bytes + 1;
    memcpy(entry->publisher, texts + announce->subject_bytes, announce->name_bytes);
    return entry;
}

rsi_status_t rsi_announced_put(struct rsi_announced_table *table, const void *payload,
                               size_t payload_bytes, struct rsi_announced **entry, const char **why)
{
    struct rsi_announce announce;
    if (payload_bytes < sizeof(announce)) {
        *why = "an announce that is shorter than its fixed part";
        return RSI_E_PROTOCOL;
    }
    memcpy(&announce, payload, sizeof(announce));
    const char *texts = (const char *)payload + sizeof(announce);
    *why = announce_fault(&announce, texts, payload_bytes);
    if (*why != NULL) {
        return RSI_E_PROTOCOL;
    }

    struct rsi_announced *known = rsi_announced_find(table, announce.publication);
    if (known != NULL) {
        *why = repeat_fault(known, &announce, texts);
        if (*why != NULL) {
            return RSI_E_PROTOCOL;
        }
        known->next_sequence = announce.next_sequence;
        *entry = known;
        return RSI_OK;
    }

    *why = "no memory to note an announced publication";
    if ((table->entry_count + 1) * 2 > table->slot_count && grow(table) != RSI_OK) {
        return RSI_E_NO_MEMORY;
    }
    struct rsi_announced *made = entry_make(&announce, texts);
    if (made == NULL) {
        return RSI_E_NO_MEMORY;
    }
    insert(table->slots, table->slot_count, made);
    table->entry_count++;
    *entry = made;
    return RSI_OK;
}
