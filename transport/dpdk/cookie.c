/*
 * Cookies: a listener's proof to itself that a dialler gets what is sent to its address.
 *
 * Design notes
 * - HMAC-SHA256, cut to 16 bytes, over addresses, ports, the dialler's name and nonce, and the time
 *   in steps; under a secret of this domain that nobody else ever sees. So a listener keeps nothing
 *   of a HELLO, and a cookie is worth nothing for another address or later.
 */
#include "transport/auth.h"
#include "transport/dpdk/dpdk_internal.h"

#include <openssl/crypto.h>
#include <string.h>

#define COOKIE_STEP_NS  UINT64_C(4000000000)
#define COOKIE_STEPS    2u /* a cookie is good for this many steps after its own */
#define COOKIE_BYTES    16u
#define INPUT_BYTES_MAX 64u

uint32_t rsi_dpdk_cookie_time(const struct rsi_dpdk_domain *domain)
{
    return (uint32_t)(domain->now_ns / COOKIE_STEP_NS);
}

static size_t append(uint8_t *input, size_t at, const void *data, size_t bytes)
{
    memcpy(input + at, data, bytes);
    return at + bytes;
}

bool rsi_dpdk_cookie_make(const struct rsi_dpdk_domain *domain, const struct rsi_packet *packet,
                          uint64_t nonce, uint32_t cookie_time, uint8_t cookie[COOKIE_BYTES])
{
    uint8_t input[INPUT_BYTES_MAX];
    size_t bytes = 0;
    bytes = append(input, bytes, &packet->source.address, sizeof(packet->source.address));
    bytes = append(input, bytes, &packet->source.port, sizeof(packet->source.port));
    bytes = append(input, bytes, &packet->target_port, sizeof(packet->target_port));
    bytes = append(input, bytes, &packet->header.from, sizeof(packet->header.from));
    bytes = append(input, bytes, &nonce, sizeof(nonce));
    bytes = append(input, bytes, &cookie_time, sizeof(cookie_time));
    uint8_t digest[RSI_AUTH_PROOF_BYTES];
    if (!rsi_auth_hmac(domain->secret, sizeof(domain->secret), input, bytes, digest)) {
        return false;
    }
    memcpy(cookie, digest, COOKIE_BYTES);
    return true;
}

bool rsi_dpdk_cookie_is_good(const struct rsi_dpdk_domain *domain, const struct rsi_packet *packet,
                             const struct rsi_datagram_hello *hello)
{
    uint8_t cookie[COOKIE_BYTES];
    uint32_t age = rsi_dpdk_cookie_time(domain) - hello->cookie_time;
    return age <= COOKIE_STEPS &&
           rsi_dpdk_cookie_make(domain, packet, hello->nonce, hello->cookie_time, cookie) &&
           CRYPTO_memcmp(cookie, hello->cookie, sizeof(cookie)) == 0;
}
