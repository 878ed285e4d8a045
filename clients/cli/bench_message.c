/*
 * Design notes
 * - The body is a sequence of words that follow from the message's number, so a reader notices
 * bytes of another message or another place; checking costs one pass over the words, which is what
 * "touched the payload" has to mean.
 */
#include "clients/cli/bench.h"

#include <string.h>

#define BODY_STEP UINT64_C(0x9e3779b97f4a7c15)

struct header {
    uint64_t sequence;
    uint64_t time_ns;
    uint64_t checksum;
};

_Static_assert(sizeof(struct header) == RSI_BENCH_HEADER_BYTES, "the header has no padding");

void rsi_bench_message_fill(void *message, size_t bytes, uint64_t sequence, uint64_t time_ns)
{
    uint8_t *body = (uint8_t *)message + sizeof(struct header);
    size_t body_bytes = bytes - sizeof(struct header);
    uint64_t word = sequence * BODY_STEP;
    uint64_t sum = 0;
    for (; body_bytes >= sizeof(word); body_bytes -= sizeof(word), body += sizeof(word)) {
        word += BODY_STEP;
        sum += word;
        memcpy(body, &word, sizeof(word));
    }
    for (; body_bytes > 0; body_bytes--, body++) {
        *body = (uint8_t)sequence;
        sum += *body;
    }
    const struct header header = {sequence, time_ns, sum ^ sequence ^ time_ns};
    memcpy(message, &header, sizeof(header));
}

bool rsi_bench_message_check(const void *message, size_t bytes, uint64_t *sequence,
                             uint64_t *time_ns)
{
    struct header header;
    if (bytes < sizeof(header)) {
        return false;
    }
    memcpy(&header, message, sizeof(header));
    const uint8_t *body = (const uint8_t *)message + sizeof(header);
    size_t body_bytes = bytes - sizeof(header);
    uint64_t word = 0;
    uint64_t sum = 0;
    for (; body_bytes >= sizeof(word); body_bytes -= sizeof(word), body += sizeof(word)) {
        memcpy(&word, body, sizeof(word));
        sum += word;
    }
    for (; body_bytes > 0; body_bytes--, body++) {
        sum += *body;
    }
    *sequence = header.sequence;
    *time_ns = header.time_ns;
    return header.checksum == (sum ^ header.sequence ^ header.time_ns);
}
