/*
 * What two sides tell each other before data moves: greetings, and the rings of an attach.
 *
 * Design notes
 * - All of it is a peer's word: checked here once for all transports, and answered with a text that
 *   names both sides' values, because the two sides are often administered by two people.
 */
#include "transport/transport.h"

#include "core/position.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static uint16_t version_min(const struct rsi_domain_options *options)
{
    return options->version_min != 0 ? options->version_min : RSI_WIRE_VERSION_MIN;
}

static uint16_t version_max(const struct rsi_domain_options *options)
{
    return options->version_max != 0 ? options->version_max : RSI_WIRE_VERSION_MAX;
}

static uint64_t make_nonce(void)
{
    static _Atomic uint64_t count;
    uint64_t nonce;
    if (getrandom(&nonce, sizeof(nonce), GRND_NONBLOCK) != (ssize_t)sizeof(nonce)) {
        nonce = rsi_fetch_add_relaxed(&count, 1) + 1; /* it need not be secret, only differ */
    }
    return nonce;
}

void rsi_greeting_init(struct rsi_greeting *greeting, const struct rsi_domain_options *options)
{
    memset(greeting, 0, sizeof(*greeting));
    greeting->magic = RSI_WIRE_MAGIC;
    greeting->version_min = version_min(options);
    greeting->version_max = version_max(options);
    greeting->control_credit = RSI_CONTROL_SLOT_COUNT;
    uint64_t ring_bytes_max = options->ring_bytes_max;
    if (ring_bytes_max == 0 || ring_bytes_max > RSI_RING_BYTES_MAX) {
        ring_bytes_max = RSI_RING_BYTES_MAX;
    }
    greeting->ring_bytes_max = (uint32_t)ring_bytes_max;
    greeting->nonce = make_nonce();
    greeting->incarnation = options->incarnation;
    greeting->agent_hint = options->agent_hint;
}

rsi_status_t rsi_greeting_check(const struct rsi_greeting *peer, uint32_t bytes,
                                const struct rsi_domain_options *options, struct rsi_error *error)
{
    if (bytes < RSI_GREETING_BYTES) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "the peer's greeting has %u bytes instead of %u: it is not Ringside, or "
                        "another transport's port",
                        bytes, RSI_GREETING_BYTES);
    }
    if (peer->magic != RSI_WIRE_MAGIC) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "the peer's greeting begins with %016" PRIx64 " instead of %016" PRIx64
                        ": it is not Ringside",
                        peer->magic, (uint64_t)RSI_WIRE_MAGIC);
    }
    if (peer->version_min > peer->version_max) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "the peer says that it speaks versions %u to %u: no such range",
                        peer->version_min, peer->version_max);
    }
    uint16_t own_min = version_min(options);
    uint16_t own_max = version_max(options);
    if (peer->version_min > own_max || peer->version_max < own_min) {
        return rsi_fail(error, RSI_E_VERSION,
                        "the peer speaks protocol versions %u to %u, this side %u to %u: upgrade "
                        "the %s",
                        peer->version_min, peer->version_max, own_min, own_max,
                        peer->version_min > own_max ? "software here" : "peer");
    }
    return RSI_OK;
}

static rsi_status_t ring_check(const char *direction, uint64_t bytes, uint64_t start_pos,
                               uint64_t consumed_pos, struct rsi_error *error)
{
    if (bytes == 0) {
        return RSI_OK;
    }
    if (!rsi_is_power_of_two(bytes) || bytes < RSI_RING_BYTES_MIN || bytes > RSI_RING_BYTES_MAX) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s ring of %" PRIu64 " bytes: a ring is a power of two from %" PRIu64
                        " to %" PRIu64 " bytes, or 0 for none",
                        direction, bytes, (uint64_t)RSI_RING_BYTES_MIN,
                        (uint64_t)RSI_RING_BYTES_MAX);
    }
    if (!rsi_is_aligned(start_pos, RSI_FRAME_ALIGN_BYTES)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s ring that starts at position %" PRIu64
                        ": positions are multiples of %u",
                        direction, start_pos, RSI_FRAME_ALIGN_BYTES);
    }
    if (!rsi_is_aligned(consumed_pos, RSI_FRAME_ALIGN_BYTES) || consumed_pos > start_pos ||
        start_pos - consumed_pos > bytes - RSI_RING_GUARD_BYTES) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s ring of %" PRIu64 " bytes that starts at position %" PRIu64
                        " and was consumed up to %" PRIu64 ": what lies between must fit",
                        direction, bytes, start_pos, consumed_pos);
    }
    return RSI_OK;
}

rsi_status_t rsi_link_rings_check(const struct rsi_link_rings *rings, struct rsi_error *error)
{
    rsi_status_t status =
        ring_check("out", rings->out_bytes, rings->out_start_pos, rings->out_consumed_pos, error);
    if (status != RSI_OK) {
        return status;
    }
    return ring_check("in", rings->in_bytes, rings->in_start_pos, rings->in_consumed_pos, error);
}

static rsi_status_t ring_make(struct rsi_ring *ring, const struct rsi_link *link,
                              const char *direction, uint64_t bytes, struct rsi_error *error)
{
    if (bytes == 0) {
        return RSI_OK;
    }
    const struct rsi_domain_options *options = &link->poller->domain->options;
    char name[32];
    snprintf(name, sizeof(name), "%s %s ring", link->transport->name, direction);
    const struct rsi_ring_options ring_options = {
        .name = name,
        .capacity_bytes = bytes,
        .node = options->node,
        .want_huge = bytes >= RSI_ARENA_HUGE_BYTES_MIN,
        .want_lock = options->lock_memory,
    };
    return rsi_ring_init(ring, &ring_options, error);
}

rsi_status_t rsi_link_rings_make(struct rsi_link *link, const struct rsi_link_rings *rings,
                                 struct rsi_error *error)
{
    if (rsi_link_state(link) != RSI_LINK_OPEN) {
        return rsi_fail(error, RSI_E_STATE, "attach of a link that is %s, not OPEN",
                        rsi_link_state_name(rsi_link_state(link)));
    }
    rsi_status_t status = rsi_link_rings_check(rings, error);
    if (status != RSI_OK) {
        return status;
    }
    status = ring_make(&link->out, link, "out", rings->out_bytes, error);
    if (status != RSI_OK) {
        return status;
    }
    status = ring_make(&link->in, link, "in", rings->in_bytes, error);
    if (status != RSI_OK) {
        rsi_ring_fini(&link->out);
    }
    return status;
}

void rsi_attach_init(struct rsi_attach *attach, const struct rsi_link_rings *rings)
{
    memset(attach, 0, sizeof(*attach));
    attach->in_ring_bytes = rings->in_bytes;
    attach->in_start_pos = rings->in_bytes == 0 ? 0 : rings->in_start_pos;
}

rsi_status_t rsi_attach_check(const struct rsi_attach *peer, const struct rsi_link_rings *rings,
                              struct rsi_error *error)
{
    if (peer->in_ring_bytes != rings->out_bytes) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "the peer's ring has %" PRIu64 " bytes, but %" PRIu64 " were agreed",
                        peer->in_ring_bytes, rings->out_bytes);
    }
    if (rings->out_bytes != 0 && peer->in_start_pos != rings->out_start_pos) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "the peer's ring starts at position %" PRIu64 ", but %" PRIu64
                        " was agreed",
                        peer->in_start_pos, rings->out_start_pos);
    }
    return RSI_OK;
}

bool rsi_link_try_attached(struct rsi_link *link, const struct rsi_attach *peer,
                           const struct rsi_link_rings *rings, _Atomic bool *attached)
{
    struct rsi_error error = {0};
    rsi_status_t status = rsi_attach_check(peer, rings, &error);
    if (status != RSI_OK) {
        rsi_link_fail(link, status, "%s: %s", link->peer_text, error.text);
        return false;
    }
    rsi_store_release(attached, true); /* pairs with the acquire in link_poll_control */
    rsi_waker_wake(link->poller->control_waker);
    return true;
}
