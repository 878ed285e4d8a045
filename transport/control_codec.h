/*
 * Control messages (proto/control.proto) on a link's control lane.
 *
 * Design notes
 * - A packed message longer than one lane message is cut into pieces. Each piece begins with one
 *   byte: 1 when more pieces follow, 0 on the last. Pieces of one message are never mixed with
 *   another's.
 * - All pieces go into the outbox or none does, so a sender may just try again.
 * - What a peer sends is bounded (RSI_CONTROL_MESSAGE_BYTES_MAX) and checked; garbage is a protocol
 * error that names what was wrong.
 */
#ifndef RSI_TRANSPORT_CONTROL_CODEC_H
#define RSI_TRANSPORT_CONTROL_CODEC_H

#include "control.pb-c.h"
#include "transport/transport.h"

#define RSI_CONTROL_MESSAGE_BYTES_MAX 4096u

struct rsi_control_receiver {
    uint8_t bytes[RSI_CONTROL_MESSAGE_BYTES_MAX];
    uint32_t byte_count; /* of the message begun */
};

/* Control thread. WOULD_BLOCK: the outbox has no room for all of it, nothing was sent. */
RSI_MUST_CHECK rsi_status_t rsi_control_send(struct rsi_link *link,
                                             const Ringside__Control__Control *message);
/*
 * Control thread. The next whole message, to be freed with rsi_control_free; WOULD_BLOCK: none yet;
 * RSI_E_PROTOCOL: what came is not a control message.
 */
RSI_MUST_CHECK rsi_status_t rsi_control_receive(struct rsi_control_receiver *receiver,
                                                struct rsi_link *link,
                                                Ringside__Control__Control **message,
                                                struct rsi_error *error);
void rsi_control_free(Ringside__Control__Control *message);
/* The decoder alone, for tests and the fuzzer: one piece. */
RSI_MUST_CHECK rsi_status_t rsi_control_decode_piece(struct rsi_control_receiver *receiver,
                                                     const uint8_t *piece, uint32_t bytes,
                                                     Ringside__Control__Control **message,
                                                     struct rsi_error *error);

#endif
