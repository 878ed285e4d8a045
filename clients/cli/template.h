/*
 * Subjects made from messages: "md.{dst}.{dport}", "md.binance.{/stream}".
 *
 * Between braces stands a field of a captured packet (src, dst, sport, dport) or a JSON pointer
 * (RFC 6901: "/data/s", "/bids/0", "~1" for "/" and "~0" for "~" in a name) into the payload. A
 * value becomes one token or part of one: what a token may not hold becomes "_", dots too, so that
 * "10.0.0.1" gives "10_0_0_1".
 */
#ifndef RSI_CLI_TEMPLATE_H
#define RSI_CLI_TEMPLATE_H

#include "clients/cli/input.h"
#include "core/error.h"
#include "proto/layout.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    RSI_TEMPLATE_BYTES_MAX = 512,
    RSI_TEMPLATE_PART_COUNT_MAX = 32,
};

typedef enum rsi_template_kind {
    RSI_TEMPLATE_LITERAL,
    RSI_TEMPLATE_SOURCE,
    RSI_TEMPLATE_DESTINATION,
    RSI_TEMPLATE_SOURCE_PORT,
    RSI_TEMPLATE_DESTINATION_PORT,
    RSI_TEMPLATE_POINTER,
} rsi_template_kind_t;

struct rsi_template_part {
    rsi_template_kind_t kind;
    const char *text; /* in the template's own copy: the literal, or the field's name */
};

struct rsi_template {
    char text[RSI_TEMPLATE_BYTES_MAX]; /* cut into zero-terminated parts */
    struct rsi_template_part parts[RSI_TEMPLATE_PART_COUNT_MAX];
    size_t part_count;
    bool has_pointer;
    bool has_packet_field;
};

struct rsi_subject {
    char text[RSI_SUBJECT_BYTES_MAX + 1];
    size_t bytes;
};

/* INVALID: the text names what is wrong with the template. */
RSI_MUST_CHECK rsi_status_t rsi_template_parse(struct rsi_template *template, const char *text,
                                               struct rsi_error *error);
/*
 * The subject of one message. NOT_FOUND: the message lacks a field, or is not JSON where that is
 * needed. INVALID: the subject would be too long. The text names the field.
 */
RSI_MUST_CHECK rsi_status_t rsi_template_apply(const struct rsi_template *template,
                                               const struct rsi_record *record,
                                               struct rsi_subject *subject,
                                               struct rsi_error *error);

#endif
