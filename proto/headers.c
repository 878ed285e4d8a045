/*
 * Design notes
 * - An entry begins with the length of its name, which is never zero, so zeros at the end of the
 *   block are padding and nothing else.
 * - Lengths are copied out of the block before they are looked at: it may change meanwhile.
 */
#include "proto/headers.h"

#include <string.h>

const char *rsi_header_name_check(const char *name, size_t bytes, size_t *at)
{
    size_t position = 0;
    const char *wrong = NULL;
    if (bytes == 0) {
        wrong = "is empty";
    }
    for (; wrong == NULL && position < bytes; position++) {
        uint8_t byte = (uint8_t)name[position];
        if (position == RSI_HEADER_NAME_BYTES_MAX) {
            wrong = "is longer than 255 bytes";
        } else if (byte == ':') {
            wrong = "holds a \":\"";
        } else if (byte <= 0x20 || byte >= 0x7f) {
            wrong = "holds a byte that is not printable ASCII";
        }
        if (wrong != NULL) {
            break;
        }
    }
    if (wrong != NULL && at != NULL) {
        *at = position;
    }
    return wrong;
}

/* What is wrong with the entry at `at`; NULL: *entry is set. */
static const char *read_entry(const uint8_t *block, uint32_t block_bytes, uint32_t at,
                              struct rsi_header *entry)
{
    struct rsi_headers_entry head;
    uint32_t left_bytes = block_bytes - at;
    if (left_bytes < sizeof(head)) {
        return "a header that ends before its lengths do";
    }
    memcpy(&head, block + at, sizeof(head));
    __asm__ volatile("" : "+m"(head)); /* the copy is all that is looked at */
    if (head.name_bytes == 0 || head.name_bytes > RSI_HEADER_NAME_BYTES_MAX) {
        return "a header whose name is empty or too long";
    }
    if (rsi_header_entry_bytes(head.name_bytes, head.value_bytes) > left_bytes) {
        return "a header that reaches beyond the headers' end";
    }
    const uint8_t *name = block + at + sizeof(head);
    if (name[head.name_bytes] != 0) {
        return "a header whose name does not end with a zero";
    }
    *entry = (struct rsi_header){.name = (const char *)name,
                                 .name_bytes = head.name_bytes,
                                 .value = name + head.name_bytes + 1,
                                 .value_bytes = head.value_bytes};
    return NULL;
}

/* Whether nothing but padding follows; less than a whole word of it. */
static bool is_padding(const uint8_t *block, uint32_t block_bytes, uint32_t at)
{
    if (block_bytes - at >= 8) {
        return false;
    }
    for (; at < block_bytes; at++) {
        if (block[at] != 0) {
            return false;
        }
    }
    return true;
}

static uint32_t end_of(const uint8_t *block, const struct rsi_header *entry)
{
    return (uint32_t)(entry->value - block) + entry->value_bytes;
}

const char *rsi_headers_check(const uint8_t *block, uint32_t block_bytes, uint32_t *count)
{
    uint32_t entry_count = 0;
    if (block_bytes % 8 != 0) {
        return "headers that are not padded to 8 bytes";
    }
    for (uint32_t at = 0; !is_padding(block, block_bytes, at);) {
        struct rsi_header entry;
        const char *wrong = read_entry(block, block_bytes, at, &entry);
        if (wrong != NULL) {
            return wrong;
        }
        if (rsi_header_name_check(entry.name, entry.name_bytes, NULL) != NULL) {
            return "a header whose name is not printable ASCII without \":\"";
        }
        at = end_of(block, &entry);
        entry_count++;
    }
    if (count != NULL) {
        *count = entry_count;
    }
    return NULL;
}

bool rsi_headers_next(const uint8_t *block, uint32_t block_bytes, uint32_t *at,
                      struct rsi_header *entry)
{
    if (*at >= block_bytes || read_entry(block, block_bytes, *at, entry) != NULL) {
        return false;
    }
    *at = end_of(block, entry);
    return true;
}

static uint8_t lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte | 0x20) : byte;
}

bool rsi_header_name_is(const struct rsi_header *entry, const char *name, size_t bytes)
{
    if (entry->name_bytes != bytes) {
        return false;
    }
    for (size_t at = 0; at < bytes; at++) {
        if (lower((uint8_t)entry->name[at]) != lower((uint8_t)name[at])) {
            return false;
        }
    }
    return true;
}

uint8_t *rsi_header_put(uint8_t *at, const char *name, size_t name_bytes, const void *value,
                        size_t value_bytes)
{
    const struct rsi_headers_entry head = {.name_bytes = (uint16_t)name_bytes,
                                           .value_bytes = (uint16_t)value_bytes};
    memcpy(at, &head, sizeof(head));
    at += sizeof(head);
    memcpy(at, name, name_bytes);
    at[name_bytes] = 0;
    at += name_bytes + 1;
    if (value_bytes > 0) {
        memcpy(at, value, value_bytes);
    }
    return at + value_bytes;
}
