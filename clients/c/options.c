/*
 * Design notes
 * - Option structs carry their size, so a program compiled against an older or a newer header works
 *   with this library: what it does not have is zero, which means the default; what this library
 *   does not know must be zero.
 * - The environment fills in a token only where the program gave none, so that a secret need not
 *   stand in a configuration file: RINGSIDE_TOKEN_NAME, RINGSIDE_TOKEN.
 */
#include "clients/c/client.h"

#include "core/position.h"
#include "core/text.h"
#include "proto/subject.h"
#include "transport/auth.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPTIONS_BYTES_MAX 4096u /* no struct of options will ever be as large */

rsi_status_t rsi_client_options_copy(void *known, size_t known_bytes, const void *given,
                                     const char *type_name, struct rsi_error *error)
{
    memset(known, 0, known_bytes);
    if (given == NULL) {
        return RSI_OK;
    }
    size_t given_bytes;
    memcpy(&given_bytes, given, sizeof(given_bytes));
    if (given_bytes < sizeof(given_bytes) || given_bytes > OPTIONS_BYTES_MAX) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s.struct_bytes is %zu: set it to sizeof(%s) and everything else to zero",
                        type_name, given_bytes, type_name);
    }
    for (size_t at = known_bytes; at < given_bytes; at++) {
        if (((const uint8_t *)given)[at] != 0) {
            return rsi_fail(error, RSI_E_UNSUPPORTED,
                            "%s sets an option that this library (%s) does not know: use a newer "
                            "libringside",
                            type_name, ringside_version());
        }
    }
    memcpy(known, given, given_bytes < known_bytes ? given_bytes : known_bytes);
    return RSI_OK;
}

static rsi_status_t read_name(struct rsi_client_options *out, const char *name,
                              struct rsi_error *error)
{
    if (name == NULL) {
        char made[RSI_NAME_BYTES_MAX + 1];
        snprintf(made, sizeof(made), "%.40s-%d", program_invocation_short_name, (int)getpid());
        rsi_subject_token_clean(made, strlen(made));
        (void)rsi_text_copy(out->client_name, sizeof(out->client_name), made);
        return RSI_OK;
    }
    size_t bytes = strlen(name);
    if (bytes == 0 || bytes > RSI_NAME_BYTES_MAX) {
        return rsi_fail(error, RSI_E_INVALID, "client_name has %zu bytes: 1 to %u are allowed",
                        bytes, RSI_NAME_BYTES_MAX);
    }
    for (size_t at = 0; at < bytes; at++) {
        if ((uint8_t)name[at] < 0x20 || name[at] == 0x7f) {
            return rsi_fail(error, RSI_E_INVALID, "client_name holds a control byte at %zu", at);
        }
    }
    (void)rsi_text_copy(out->client_name, sizeof(out->client_name), name);
    return RSI_OK;
}

static rsi_status_t read_text(char *field, size_t field_bytes, const char *given,
                              const char *option, struct rsi_error *error)
{
    if (given != NULL && !rsi_text_copy(field, field_bytes, given)) {
        return rsi_fail(error, RSI_E_INVALID, "%s has %zu bytes: at most %zu are allowed", option,
                        strlen(given), field_bytes - 1);
    }
    return RSI_OK;
}

static rsi_status_t read_token(struct rsi_client_options *out, const ringside_options_t *options,
                               struct rsi_error *error)
{
    const char *token_name = options->token_name;
    const char *token = options->token;
    if (token_name == NULL && token == NULL) {
        token_name = getenv("RINGSIDE_TOKEN_NAME");
        token = getenv("RINGSIDE_TOKEN");
    }
    if ((token_name == NULL) != (token == NULL)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "a token needs both its name and its secret: set token_name and token, or "
                        "RINGSIDE_TOKEN_NAME and RINGSIDE_TOKEN");
    }
    if (token == NULL) {
        return RSI_OK;
    }
    size_t name_bytes = strlen(token_name);
    if (name_bytes == 0 || name_bytes > RSI_NAME_BYTES_MAX) {
        return rsi_fail(error, RSI_E_INVALID, "token_name has %zu bytes: 1 to %u are allowed",
                        name_bytes, RSI_NAME_BYTES_MAX);
    }
    size_t secret_bytes = strlen(token);
    if (secret_bytes < RSI_AUTH_SECRET_BYTES_MIN || secret_bytes > RSI_AUTH_SECRET_BYTES_MAX) {
        return rsi_fail(error, RSI_E_INVALID, "the token has %zu bytes: %u to %u are allowed",
                        secret_bytes, RSI_AUTH_SECRET_BYTES_MIN, RSI_AUTH_SECRET_BYTES_MAX);
    }
    (void)rsi_text_copy(out->token_name, sizeof(out->token_name), token_name);
    (void)rsi_text_copy(out->token, sizeof(out->token), token);
    return RSI_OK;
}

static rsi_status_t read_ring(uint64_t *ring_bytes, uint64_t given_bytes, const char *option,
                              struct rsi_error *error)
{
    if (given_bytes == UINT64_MAX) {
        *ring_bytes = 0;
        return RSI_OK;
    }
    if (given_bytes == 0) {
        *ring_bytes = RSI_RING_BYTES_DEFAULT;
        return RSI_OK;
    }
    if (!rsi_is_power_of_two(given_bytes) || given_bytes < RSI_RING_BYTES_MIN ||
        given_bytes > RSI_RING_BYTES_MAX) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s is %" PRIu64 ": a ring is a power of two from %" PRIu64 " to %" PRIu64
                        " bytes, 0 for the default, or UINT64_MAX for none",
                        option, given_bytes, (uint64_t)RSI_RING_BYTES_MIN,
                        (uint64_t)RSI_RING_BYTES_MAX);
    }
    *ring_bytes = given_bytes;
    return RSI_OK;
}

static rsi_status_t read_sizes(struct rsi_client_options *out, const ringside_options_t *options,
                               struct rsi_error *error)
{
    rsi_status_t status = read_ring(&out->publish_ring_bytes, options->publish_ring_bytes,
                                    "publish_ring_bytes", error);
    if (status != RSI_OK) {
        return status;
    }
    status = read_ring(&out->deliver_ring_bytes, options->deliver_ring_bytes, "deliver_ring_bytes",
                       error);
    if (status != RSI_OK) {
        return status;
    }
    if (out->publish_ring_bytes == 0 && out->deliver_ring_bytes == 0) {
        return rsi_fail(error, RSI_E_INVALID,
                        "both publish_ring_bytes and deliver_ring_bytes are UINT64_MAX: a client "
                        "that neither publishes nor subscribes has nothing to do");
    }
    out->message_bytes_max = options->message_bytes_max;
    if (out->publish_ring_bytes != 0 &&
        out->message_bytes_max > out->publish_ring_bytes / RSI_RING_PER_MESSAGE) {
        return rsi_fail(error, RSI_E_INVALID,
                        "message_bytes_max is %" PRIu64 ", but a publish ring of %" PRIu64
                        " bytes takes messages of at most %" PRIu64
                        " (a quarter); raise publish_ring_bytes",
                        out->message_bytes_max, out->publish_ring_bytes,
                        out->publish_ring_bytes / RSI_RING_PER_MESSAGE);
    }
    return RSI_OK;
}

static rsi_status_t read_wait(struct rsi_client_options *out, const ringside_options_t *options,
                              struct rsi_error *error)
{
    out->spin_ns = options->spin_ns;
    switch (options->wait) {
    case RINGSIDE_WAIT_ADAPTIVE:
        out->idle_strategy = RSI_IDLE_ADAPTIVE;
        return RSI_OK;
    case RINGSIDE_WAIT_BUSY:
        out->idle_strategy = RSI_IDLE_BUSY;
        return RSI_OK;
    case RINGSIDE_WAIT_BLOCKING:
        out->idle_strategy = RSI_IDLE_BLOCKING;
        return RSI_OK;
    }
    return rsi_fail(error, RSI_E_INVALID, "wait is %d: use one of RINGSIDE_WAIT_...",
                    (int)options->wait);
}

rsi_status_t rsi_client_options_read(struct rsi_client_options *out,
                                     const ringside_options_t *options, struct rsi_error *error)
{
    ringside_options_t given;
    rsi_status_t status =
        rsi_client_options_copy(&given, sizeof(given), options, "ringside_options_t", error);
    if (status != RSI_OK) {
        return status;
    }
    memset(out, 0, sizeof(*out));
    out->on_event = given.on_event;
    out->event_arg = given.event_arg;
    out->no_wait = given.no_wait != 0;
    out->connect_timeout_ns =
        given.connect_timeout_ns == 0 ? RSI_CLIENT_TIMEOUT_NS : given.connect_timeout_ns;
    out->resume_timeout_ns =
        given.resume_timeout_ns == 0 ? RSI_CLIENT_RESUME_TIMEOUT_NS : given.resume_timeout_ns;
    out->hold_count_max = given.hold_count_max == 0 ? RSI_CLIENT_HOLD_COUNT : given.hold_count_max;
    if (out->hold_count_max > RSI_CLIENT_HOLD_COUNT_MAX) {
        return rsi_fail(error, RSI_E_INVALID,
                        "hold_count_max is %" PRIu64 ": at most %u messages can be held at a time",
                        out->hold_count_max, RSI_CLIENT_HOLD_COUNT_MAX);
    }
    out->requests_max = given.requests_max == 0 ? RSI_CLIENT_REQUESTS_MAX : given.requests_max;
    if (out->requests_max > RSI_CLIENT_REQUESTS_LIMIT) {
        return rsi_fail(error, RSI_E_INVALID,
                        "requests_max is %" PRIu32 ", at most %u are possible", out->requests_max,
                        RSI_CLIENT_REQUESTS_LIMIT);
    }
    status = read_name(out, given.client_name, error);
    if (status != RSI_OK) {
        return status;
    }
    status = read_text(out->bind_host, sizeof(out->bind_host), given.bind_host, "bind_host", error);
    if (status != RSI_OK) {
        return status;
    }
    status = read_text(out->device, sizeof(out->device), given.device, "device", error);
    if (status != RSI_OK) {
        return status;
    }
    status = rsi_client_dpdk_read(&out->dpdk, given.dpdk, error);
    if (status != RSI_OK) {
        return status;
    }
    status = read_token(out, &given, error);
    if (status != RSI_OK) {
        return status;
    }
    status = read_sizes(out, &given, error);
    if (status != RSI_OK) {
        return status;
    }
    status = read_wait(out, &given, error);
    if (status != RSI_OK || given.counters_path == NULL) {
        return status;
    }
    out->counters_path = strdup(given.counters_path);
    return out->counters_path != NULL
               ? RSI_OK
               : rsi_fail(error, RSI_E_NO_MEMORY, "no memory for counters_path");
}
