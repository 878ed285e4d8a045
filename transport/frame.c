/*
 * Design notes
 * - The ring may be one that the peer can still write (shm): the header is read once, the commit
 * word first, and only the copy is looked at from there on. A peer that changes it meanwhile gets
 * one or the other taken, both checked.
 * - arrived_pos is always the end of a frame (transport.h), so a frame that reaches beyond end_pos
 * is not one that is still coming: it is wrong.
 */
#include "transport/frame.h"

#include <string.h>

static bool frame_type_is_known(uint8_t type)
{
    return type == RSI_FRAME_MESSAGE || type == RSI_FRAME_ANNOUNCE || type == RSI_FRAME_GAP ||
           type == RSI_FRAME_REQUEST || type == RSI_FRAME_REPLY || type == RSI_FRAME_SNAPSHOT ||
           type == RSI_FRAME_LAST;
}

/* What is wrong with a header of frame_bytes of which available_bytes are readable; NULL: nothing.
 */
static const char *frame_check(const struct rsi_frame_header *header, uint64_t frame_bytes,
                               uint64_t available_bytes)
{
    if (frame_bytes == 0) {
        return "the commit word does not name this position";
    }
    if (frame_bytes < RSI_FRAME_HEADER_BYTES) {
        return "the frame is shorter than its header";
    }
    if (frame_bytes > available_bytes) {
        return "the frame reaches beyond what has arrived";
    }
    if (rsi_frame_all_bytes(header) != frame_bytes) {
        return "the frame's length is not that of its headers, payload and entries";
    }
    if (!frame_type_is_known(header->type)) {
        return "the frame's type is unknown";
    }
    return NULL;
}

rsi_status_t rsi_frame_read(const struct rsi_ring *ring, uint64_t position, uint64_t end_pos,
                            struct rsi_frame *frame, const char **why)
{
    uint64_t available_bytes = position < end_pos ? end_pos - position : 0;
    if (available_bytes < RSI_FRAME_HEADER_BYTES) {
        *why = "less than a frame header has arrived";
        return RSI_E_PROTOCOL;
    }
    if (available_bytes > ring->capacity_bytes) {
        *why = "more than the ring's size is said to have arrived";
        return RSI_E_PROTOCOL;
    }

    uint8_t *start = rsi_ring_at(ring, position);
    struct rsi_frame_header header;
    memcpy(&header, start, sizeof(header));
    /* The copy is all that is looked at: without this the compiler may read the ring again. */
    __asm__ volatile("" : "+m"(header));

    uint64_t frame_bytes = rsi_commit_frame_bytes(header.commit, position);
    const char *wrong = frame_check(&header, frame_bytes, available_bytes);
    if (rsi_unlikely(wrong != NULL)) {
        *why = wrong;
        return RSI_E_PROTOCOL;
    }
    frame->header = header;
    frame->position = position;
    frame->frame_bytes = frame_bytes;
    frame->headers = start + RSI_FRAME_HEADER_BYTES;
    frame->payload = frame->headers + header.headers_bytes;
    frame->entries = start + rsi_frame_entries_at(&header);
    return RSI_OK;
}
