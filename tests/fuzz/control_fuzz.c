/*
 * Design notes: pieces of control messages as a peer could send them, one byte of length before
 * each. What must hold: whatever comes is a message, a wait for more, or a named protocol error;
 * nothing leaks.
 */
#include "tests/fuzz/fuzz_main.h"

#include "core/assert.h"
#include "transport/control_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct rsi_control_receiver receiver = {0};
    while (bytes > 0) {
        uint32_t piece_bytes = data[0] * 2u;
        data++;
        bytes--;
        if (piece_bytes > bytes) {
            piece_bytes = (uint32_t)bytes;
        }
        Ringside__Control__Control *message = NULL;
        struct rsi_error error = {0};
        rsi_status_t status =
            rsi_control_decode_piece(&receiver, data, piece_bytes, &message, &error);
        if (status == RSI_OK) {
            rsi_assert(message != NULL);
            rsi_control_free(message);
        } else {
            rsi_assert(message == NULL);
            rsi_assert(status == RSI_WOULD_BLOCK || error.text[0] != 0);
            if (status != RSI_WOULD_BLOCK) {
                return 0;
            }
        }
        data += piece_bytes;
        bytes -= piece_bytes;
    }
    return 0;
}
