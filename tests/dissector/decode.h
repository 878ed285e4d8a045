/*
 * What the transport's own code reads in a captured frame, as lines that tests/dissector/run holds
 * against what tshark shows:
 *
 *     frame               the next record of the capture
 *     field NAME OFFSET BYTES VALUE
 *     raw NAME OFFSET BYTES HEX
 *     expert NAME
 *
 * Fields are in the order of the bytes. A frame without lines holds no datagram of ours.
 */
#ifndef RSI_TESTS_DISSECTOR_DECODE_H
#define RSI_TESTS_DISSECTOR_DECODE_H

#include "transport/dpdk/packet.h"

#include <stdio.h>

/* `whole` is what was sent, of which the capture has `captured_bytes`. Changes neither. */
void decode_frame(FILE *file, const struct rsi_port_frame *whole, uint32_t captured_bytes);

#endif
