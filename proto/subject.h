/*
 * Subjects: the NATS grammar, the same for client and broker.
 *
 *     literal  = token *( "." token )            md.XNAS.AAPL
 *     pattern  = literal where a token may be "*" (exactly one token) and the last may be ">"
 *                (one token or more)             md.*.AAPL   md.>
 *     token    = 1 or more bytes, no ".", no "*", no ">", no space, no control byte (< 0x21, 0x7f)
 *
 * At most RSI_SUBJECT_BYTES_MAX bytes and RSI_SUBJECT_TOKENS_MAX tokens. Bytes from 0x80 on are
 * taken as they are (UTF-8 is usual and not checked). Source of the grammar: NATS documentation,
 * "Subject-Based Messaging".
 */
#ifndef RSI_PROTO_SUBJECT_H
#define RSI_PROTO_SUBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RSI_SUBJECT_TOKENS_MAX 32u

/* NULL: well formed. Else a constant text that says what is wrong, and *at, if not NULL, where. */
const char *rsi_subject_check_literal(const char *subject, size_t bytes, size_t *at);
const char *rsi_subject_check_pattern(const char *pattern, size_t bytes, size_t *at);

/* A queue group's name: one token, at most RSI_NAME_BYTES_MAX bytes. */
const char *rsi_subject_check_group(const char *group, size_t bytes);

/* Both were checked. */
bool rsi_subject_is_literal(const char *pattern, size_t bytes);
bool rsi_subject_matches(const char *pattern, size_t pattern_bytes, const char *subject,
                         size_t subject_bytes);
/* Of two patterns that were checked: whether some subject matches both, and whether every subject
 * that matches `inner` matches `outer` too. */
bool rsi_subject_overlaps(const char *a, size_t a_bytes, const char *b, size_t b_bytes);
bool rsi_subject_covers(const char *outer, size_t outer_bytes, const char *inner,
                        size_t inner_bytes);
/* Every byte that a token may not hold becomes "_"; returns bytes. For names made from input. */
void rsi_subject_token_clean(char *token, size_t bytes);

#endif
