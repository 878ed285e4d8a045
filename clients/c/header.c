/*
 * Headers of a message that was received; those of one to be published are in publish.c.
 *
 * Design notes
 * - The block was checked as a whole when the message was read (deliver.c). It lies in the ring,
 *   which the broker can write on shm, so each step here stays within the block whatever it holds.
 */
#include "clients/c/client.h"

#include "proto/headers.h"

#include <string.h>

const void *ringside_header_find(const ringside_message_t *message, const char *name,
                                 size_t *value_bytes)
{
    struct rsi_header entry;
    uint32_t at = 0;
    if (name == NULL) {
        return NULL;
    }
    size_t name_bytes = strlen(name);
    while (rsi_headers_next(message->headers, (uint32_t)message->headers_bytes, &at, &entry)) {
        if (rsi_header_name_is(&entry, name, name_bytes)) {
            if (value_bytes != NULL) {
                *value_bytes = entry.value_bytes;
            }
            return entry.value;
        }
    }
    return NULL;
}

int ringside_header_next(const ringside_message_t *message, size_t *cursor,
                         ringside_header_t *header)
{
    struct rsi_header entry;
    if (*cursor >= message->headers_bytes) {
        return 0;
    }
    uint32_t at = (uint32_t)*cursor;
    if (!rsi_headers_next(message->headers, (uint32_t)message->headers_bytes, &at, &entry)) {
        return 0;
    }
    *cursor = at;
    *header = (ringside_header_t){
        .name = entry.name, .value = entry.value, .value_bytes = entry.value_bytes};
    return 1;
}
