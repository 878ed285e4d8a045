/*
 * Design notes
 * - Sending packs into a buffer on the stack, counts the pieces, and pushes only when the outbox
 * has room for all of them: only this thread pushes, so room seen once stays.
 * - The receiver keeps the bytes of the message begun; a message is decoded when its last piece is
 *   there, from this copy, so nothing that the peer still writes is ever parsed.
 * - Everything a peer can send ends in a message or in an error; after an error the receiver is
 *   empty again, although the layer above closes the link anyway.
 */
#include "transport/control_codec.h"

#include <string.h>

#define PIECE_BYTES_MAX \
    (RSI_CONTROL_BYTES_MAX - 1) /* beside the byte that says whether more follow */

enum piece_mark { PIECE_LAST = 0, PIECE_MORE = 1 };

/* Room in the outbox for so many pieces; asks to be woken when there is none. */
static bool outbox_has_room(struct rsi_link *link, uint32_t piece_count)
{
    if (rsi_mailbox_free_count(&link->outbox) >= piece_count) {
        return true;
    }
    /* Pairs with the owner thread, which pops and then looks at the flag. */
    rsi_store_relaxed(&link->outbox_full, 1);
    rsi_fence_seq_cst();
    return rsi_mailbox_free_count(&link->outbox) >= piece_count;
}

rsi_status_t rsi_control_send(struct rsi_link *link, const Ringside__Control__Control *message)
{
    uint8_t packed[RSI_CONTROL_MESSAGE_BYTES_MAX];
    size_t packed_bytes = ringside__control__control__get_packed_size(message);
    if (packed_bytes > sizeof(packed)) {
        return RSI_E_TOO_LARGE;
    }
    ringside__control__control__pack(message, packed);

    uint32_t piece_count = (uint32_t)((packed_bytes + PIECE_BYTES_MAX - 1) / PIECE_BYTES_MAX);
    if (piece_count == 0) {
        piece_count = 1;
    }
    if (!outbox_has_room(link, piece_count)) {
        return RSI_WOULD_BLOCK;
    }

    size_t sent_bytes = 0;
    for (uint32_t index = 0; index < piece_count; index++) {
        uint8_t piece[RSI_CONTROL_BYTES_MAX];
        size_t take_bytes = packed_bytes - sent_bytes;
        if (take_bytes > PIECE_BYTES_MAX) {
            take_bytes = PIECE_BYTES_MAX;
        }
        piece[0] = index + 1 < piece_count ? PIECE_MORE : PIECE_LAST;
        memcpy(piece + 1, packed + sent_bytes, take_bytes);
        rsi_status_t status = rsi_link_send_control(link, piece, (uint32_t)take_bytes + 1);
        if (status != RSI_OK) {
            /* The state of a link changes on this thread only: a refusal comes before piece 0. */
            rsi_assert(index == 0);
            return status;
        }
        sent_bytes += take_bytes;
    }
    return RSI_OK;
}

static rsi_status_t decode_message(struct rsi_control_receiver *receiver,
                                   Ringside__Control__Control **message, struct rsi_error *error)
{
    uint32_t byte_count = receiver->byte_count;
    receiver->byte_count = 0;
    Ringside__Control__Control *decoded =
        ringside__control__control__unpack(NULL, byte_count, receiver->bytes);
    if (decoded == NULL) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "a control message of %u bytes that is no ringside.control.Control",
                        byte_count);
    }
    if (decoded->body_case == RINGSIDE__CONTROL__CONTROL__BODY__NOT_SET) {
        rsi_control_free(decoded);
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "a control message of %u bytes without a body that this version knows",
                        byte_count);
    }
    *message = decoded;
    return RSI_OK;
}

rsi_status_t rsi_control_decode_piece(struct rsi_control_receiver *receiver, const uint8_t *piece,
                                      uint32_t bytes, Ringside__Control__Control **message,
                                      struct rsi_error *error)
{
    if (bytes == 0 || bytes > RSI_CONTROL_BYTES_MAX) {
        receiver->byte_count = 0;
        return rsi_fail(error, RSI_E_PROTOCOL, "a piece of a control message of %u bytes (1 to %u)",
                        bytes, RSI_CONTROL_BYTES_MAX);
    }
    if (piece[0] != PIECE_LAST && piece[0] != PIECE_MORE) {
        receiver->byte_count = 0;
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "a piece of a control message that begins with byte %u (0 or 1)", piece[0]);
    }
    uint32_t part_bytes = bytes - 1;
    if (part_bytes > RSI_CONTROL_MESSAGE_BYTES_MAX - receiver->byte_count) {
        receiver->byte_count = 0;
        return rsi_fail(error, RSI_E_PROTOCOL, "a control message of more than %u bytes",
                        RSI_CONTROL_MESSAGE_BYTES_MAX);
    }
    /* Endless empty pieces would keep the receiver busy and never fill it. */
    if (piece[0] == PIECE_MORE && part_bytes == 0) {
        receiver->byte_count = 0;
        return rsi_fail(error, RSI_E_PROTOCOL, "an empty piece of a control message");
    }
    memcpy(receiver->bytes + receiver->byte_count, piece + 1, part_bytes);
    receiver->byte_count += part_bytes;
    if (piece[0] == PIECE_MORE) {
        return RSI_WOULD_BLOCK;
    }
    return decode_message(receiver, message, error);
}

rsi_status_t rsi_control_receive(struct rsi_control_receiver *receiver, struct rsi_link *link,
                                 Ringside__Control__Control **message, struct rsi_error *error)
{
    /* Bounded: a message of more pieces than this does not fit, and the decoder says so. */
    for (uint32_t piece_count = 0; piece_count <= RSI_CONTROL_MESSAGE_BYTES_MAX; piece_count++) {
        uint32_t bytes = 0;
        const void *piece = rsi_link_front_control(link, &bytes);
        if (piece == NULL) {
            return RSI_WOULD_BLOCK;
        }
        rsi_status_t status = rsi_control_decode_piece(receiver, piece, bytes, message, error);
        rsi_link_pop_control(link);
        if (status != RSI_WOULD_BLOCK) {
            return status;
        }
    }
    return rsi_fail(error, RSI_E_PROTOCOL, "a control message in too many pieces");
}

void rsi_control_free(Ringside__Control__Control *message)
{
    if (message != NULL) {
        ringside__control__control__free_unpacked(message, NULL);
    }
}
