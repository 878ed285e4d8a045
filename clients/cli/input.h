/*
 * Recorded messages from a file: packets of a pcap or pcapng file, or lines
 *
 *     <nanoseconds> <payload>
 *
 * Which of the two, and whether gzip wraps it, is told by the first bytes. "-" is standard input.
 * Empty lines and lines that begin with "#" are no messages.
 */
#ifndef RSI_CLI_INPUT_H
#define RSI_CLI_INPUT_H

#include "clients/cli/packet.h"
#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RSI_INPUT_LINE_BYTES_MAX (UINT64_C(64) << 20)

/* One message. What it points to is good until the next call for the same input. */
struct rsi_record {
    uint64_t time_ns; /* as recorded: only differences have a meaning */
    uint64_t number;  /* of the line or packet, from 1 */
    const uint8_t *payload;
    size_t payload_bytes;
    const struct rsi_datagram *datagram; /* NULL: a line */
};

struct rsi_input;

/* Errors: NOT_FOUND, PERMISSION, INVALID (a capture of a link that is not known), IO. */
RSI_MUST_CHECK rsi_status_t rsi_input_open(struct rsi_input **input, const char *path,
                                           struct rsi_error *error);
/* Takes NULL. */
void rsi_input_close(struct rsi_input *input);
/*
 * The next message; RSI_WOULD_BLOCK at the end. INVALID: a malformed line or capture, the text
 * names file and line or packet. Packets without a whole UDP datagram are counted and passed over.
 */
RSI_MUST_CHECK rsi_status_t rsi_input_next(struct rsi_input *input, struct rsi_record *record,
                                           struct rsi_error *error);
/* "line" or "packet". */
const char *rsi_input_unit(const struct rsi_input *input);
bool rsi_input_is_capture(const struct rsi_input *input);
/* Packets of each kind so far. */
const uint64_t *rsi_input_kind_counts(const struct rsi_input *input);

#endif
