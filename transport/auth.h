/*
 * Proof of a shared secret (HMAC-SHA256 of libcrypto, RFC 2104), both ways; the secret never
 * travels.
 *
 *     client proof = HMAC(secret, "ringside client" | client nonce | broker nonce | client name)
 *     broker proof = HMAC(secret, "ringside broker" | client nonce | broker nonce | client name)
 *     resume proof = HMAC(session's secret, "ringside resume" | the same three)
 *
 * Each part is preceded by its length as one byte, so that no two inputs give the same bytes.
 */
#ifndef RSI_TRANSPORT_AUTH_H
#define RSI_TRANSPORT_AUTH_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RSI_AUTH_NONCE_BYTES      32u
#define RSI_AUTH_PROOF_BYTES      32u
#define RSI_AUTH_SECRET_BYTES_MIN 8u
#define RSI_AUTH_SECRET_BYTES_MAX 255u

enum rsi_auth_side { RSI_AUTH_CLIENT, RSI_AUTH_BROKER, RSI_AUTH_RESUME };

struct rsi_auth_input {
    const void *secret;
    size_t secret_bytes;
    const void *client_nonce;
    size_t client_nonce_bytes; /* at most 255 */
    const void *broker_nonce;
    size_t broker_nonce_bytes; /* at most 255 */
    const char *client_name;   /* at most 255 bytes */
};

RSI_MUST_CHECK rsi_status_t rsi_auth_proof(enum rsi_auth_side side,
                                           const struct rsi_auth_input *input,
                                           uint8_t proof[RSI_AUTH_PROOF_BYTES],
                                           struct rsi_error *error);
/*
 * Once before the first proof of a process that serves others: libcrypto loads its tables (some
 * 3,200 allocations) at its first use, which is better done now than while clients wait.
 * RSI_E_SYSTEM: it offers no HMAC-SHA256.
 */
RSI_MUST_CHECK rsi_status_t rsi_auth_prepare(struct rsi_error *error);
/* HMAC-SHA256. False: libcrypto has no memory, or does not offer it. */
RSI_MUST_CHECK bool rsi_auth_hmac(const void *secret, size_t secret_bytes, const void *text,
                                  size_t text_bytes, uint8_t digest[RSI_AUTH_PROOF_BYTES]);
/* In constant time. */
bool rsi_auth_equal(const void *left, size_t left_bytes, const uint8_t right[RSI_AUTH_PROOF_BYTES]);
/* getrandom(2). */
RSI_MUST_CHECK rsi_status_t rsi_auth_random(void *bytes, size_t count, struct rsi_error *error);

#endif
