/*
 * Design notes
 * - The bytes that are authenticated are built in one bounded buffer on the stack: a label, both
 *   nonces and the client's name, each preceded by its length as one byte. So a nonce cannot borrow
 *   bytes from the name after it, and a client's proof never equals a broker's.
 * - Lengths are checked here and not asserted: the nonce and the name of one side come from the
 *   other.
 * - The buffer holds nothing secret. The proof of a wrong guess tells nothing about the secret
 * beyond a chance to try guesses offline, so secrets should be long and random; the broker's
 *   configuration says so, this file only refuses very short ones.
 */
#include "transport/auth.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <sys/random.h>

#define PART_BYTES_MAX 255u
#define PART_COUNT     4u

/* Appends length and bytes; false: longer than a part may be. */
static bool part_append(uint8_t *text, size_t *text_bytes, const void *part, size_t part_bytes)
{
    if (part_bytes > PART_BYTES_MAX) {
        return false;
    }
    text[(*text_bytes)++] = (uint8_t)part_bytes;
    if (part_bytes > 0) {
        memcpy(text + *text_bytes, part, part_bytes);
    }
    *text_bytes += part_bytes;
    return true;
}

bool rsi_auth_hmac(const void *secret, size_t secret_bytes, const void *text, size_t text_bytes,
                   uint8_t digest[RSI_AUTH_PROOF_BYTES])
{
    unsigned int digest_bytes = 0;
    uint8_t whole[EVP_MAX_MD_SIZE];
    if (HMAC(EVP_sha256(), secret, (int)secret_bytes, text, text_bytes, whole, &digest_bytes) ==
            NULL ||
        digest_bytes != RSI_AUTH_PROOF_BYTES) {
        ERR_clear_error(); /* it would keep texts of the last failures for this thread */
        return false;
    }
    memcpy(digest, whole, RSI_AUTH_PROOF_BYTES);
    return true;
}

rsi_status_t rsi_auth_proof(enum rsi_auth_side side, const struct rsi_auth_input *input,
                            uint8_t proof[RSI_AUTH_PROOF_BYTES], struct rsi_error *error)
{
    static const char *const labels[] = {
        [RSI_AUTH_CLIENT] = "ringside client",
        [RSI_AUTH_BROKER] = "ringside broker",
        [RSI_AUTH_RESUME] = "ringside resume",
    };
    const char *label = labels[side];
    uint8_t text[PART_COUNT * (1 + PART_BYTES_MAX)];
    size_t text_bytes = 0;

    if (input->secret_bytes < RSI_AUTH_SECRET_BYTES_MIN ||
        input->secret_bytes > RSI_AUTH_SECRET_BYTES_MAX) {
        return rsi_fail(error, RSI_E_INVALID,
                        "a token of %zu bytes: it must have between %u and %u bytes",
                        input->secret_bytes, RSI_AUTH_SECRET_BYTES_MIN, RSI_AUTH_SECRET_BYTES_MAX);
    }
    if (!part_append(text, &text_bytes, label, strlen(label)) ||
        !part_append(text, &text_bytes, input->client_nonce, input->client_nonce_bytes) ||
        !part_append(text, &text_bytes, input->broker_nonce, input->broker_nonce_bytes) ||
        !part_append(text, &text_bytes, input->client_name, strlen(input->client_name))) {
        return rsi_fail(error, RSI_E_INVALID,
                        "a nonce or a client name of more than %u bytes cannot be authenticated",
                        PART_BYTES_MAX);
    }

    if (!rsi_auth_hmac(input->secret, input->secret_bytes, text, text_bytes, proof)) {
        return rsi_fail(error, RSI_E_SYSTEM,
                        "libcrypto has no memory, or does not offer HMAC-SHA256 here");
    }
    return RSI_OK;
}

rsi_status_t rsi_auth_prepare(struct rsi_error *error)
{
    static const uint8_t nothing[RSI_AUTH_SECRET_BYTES_MIN];
    const struct rsi_auth_input input = {
        .secret = nothing,
        .secret_bytes = sizeof(nothing),
        .client_nonce = nothing,
        .broker_nonce = nothing,
        .client_name = "",
    };
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    return rsi_auth_proof(RSI_AUTH_BROKER, &input, proof, error);
}

bool rsi_auth_equal(const void *left, size_t left_bytes, const uint8_t right[RSI_AUTH_PROOF_BYTES])
{
    /* The length is no secret: every proof has the same. */
    return left_bytes == RSI_AUTH_PROOF_BYTES &&
           CRYPTO_memcmp(left, right, RSI_AUTH_PROOF_BYTES) == 0;
}

rsi_status_t rsi_auth_random(void *bytes, size_t count, struct rsi_error *error)
{
    uint8_t *next = bytes;
    size_t left_bytes = count;

    /* Up to 256 bytes come whole once the kernel's pool is ready; before that a signal may cut in.
     */
    while (left_bytes > 0) {
        ssize_t got_bytes = getrandom(next, left_bytes, 0);
        if (got_bytes < 0 && errno == EINTR) {
            continue;
        }
        if (got_bytes < 0) {
            return rsi_fail_errno(error, RSI_E_SYSTEM, errno, "getrandom of %zu bytes", count);
        }
        next += got_bytes;
        left_bytes -= (size_t)got_bytes;
    }
    return RSI_OK;
}
