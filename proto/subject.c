/*
 * Design notes
 * - One pass over the bytes checks both kinds of subject; a pattern only allows more. No table, no
 *   allocation: subjects are checked when publishers and subscriptions are made, and matched when a
 *   topic becomes known, never per message.
 * - Matching is token by token without going back, because "*" is exactly one token and ">" can
 * only be the last. So its time is linear in the shorter of the two.
 */
#include "proto/subject.h"

#include "proto/layout.h"

#include <string.h>

static bool is_forbidden(uint8_t byte)
{
    return byte < 0x21 || byte == 0x7f;
}

static const char *fault(const char *text, size_t position, size_t *at)
{
    if (at != NULL) {
        *at = position;
    }
    return text;
}

/* The byte after the token that begins at `from`. */
static size_t token_end(const char *subject, size_t bytes, size_t from)
{
    const char *dot = memchr(subject + from, '.', bytes - from);
    return dot == NULL ? bytes : (size_t)(dot - subject);
}

static const char *check_token(const char *subject, size_t bytes, size_t from, size_t end,
                               bool is_pattern, size_t *at)
{
    if (end == from) {
        return fault("has an empty token: a '.' at its begin or end, or two in a row", from, at);
    }
    for (size_t position = from; position < end; position++) {
        char byte = subject[position];
        if (is_forbidden((uint8_t)byte)) {
            return fault("holds a space or a control byte", position, at);
        }
        if (byte != '*' && byte != '>') {
            continue;
        }
        if (!is_pattern) {
            return fault("holds '*' or '>': only a subscription may", position, at);
        }
        if (end - from > 1) {
            return fault("has '*' or '>' beside other bytes: it must be the whole token", position,
                         at);
        }
        if (byte == '>' && end != bytes) {
            return fault("has tokens after '>': it must be the last one", position, at);
        }
    }
    return NULL;
}

static const char *check(const char *subject, size_t bytes, bool is_pattern, size_t *at)
{
    if (bytes == 0) {
        return fault("is empty", 0, at);
    }
    if (bytes > RSI_SUBJECT_BYTES_MAX) {
        return fault("is longer than 255 bytes", RSI_SUBJECT_BYTES_MAX, at);
    }

    uint32_t token_count = 0;
    for (size_t from = 0; from <= bytes;) {
        if (++token_count > RSI_SUBJECT_TOKENS_MAX) {
            return fault("has more than 32 tokens", from, at);
        }
        size_t end = token_end(subject, bytes, from);
        const char *text = check_token(subject, bytes, from, end, is_pattern, at);
        if (text != NULL) {
            return text;
        }
        from = end + 1;
    }
    return NULL;
}

_Static_assert(RSI_SUBJECT_BYTES_MAX == 255, "the text above says 255");
_Static_assert(RSI_SUBJECT_TOKENS_MAX == 32, "the text above says 32");

const char *rsi_subject_check_literal(const char *subject, size_t bytes, size_t *at)
{
    return check(subject, bytes, false, at);
}

const char *rsi_subject_check_pattern(const char *pattern, size_t bytes, size_t *at)
{
    return check(pattern, bytes, true, at);
}

const char *rsi_subject_check_group(const char *group, size_t bytes)
{
    if (bytes > RSI_NAME_BYTES_MAX) {
        return "is longer than 63 bytes";
    }
    if (memchr(group, '.', bytes) != NULL) {
        return "holds a '.': it is one token";
    }
    return bytes == 0 ? "is empty" : check_token(group, bytes, 0, bytes, false, NULL);
}

bool rsi_subject_is_literal(const char *pattern, size_t bytes)
{
    return memchr(pattern, '*', bytes) == NULL && memchr(pattern, '>', bytes) == NULL;
}

bool rsi_subject_matches(const char *pattern, size_t pattern_bytes, const char *subject,
                         size_t subject_bytes)
{
    size_t pattern_from = 0;
    size_t subject_from = 0;

    /* A position one beyond the end means that the last token was taken. */
    while (pattern_from <= pattern_bytes && subject_from <= subject_bytes) {
        size_t pattern_end = token_end(pattern, pattern_bytes, pattern_from);
        size_t subject_end = token_end(subject, subject_bytes, subject_from);
        size_t token_bytes = pattern_end - pattern_from;
        char first = token_bytes == 1 ? pattern[pattern_from] : 0;
        if (first == '>') {
            return true;
        }
        if (first != '*' &&
            (token_bytes != subject_end - subject_from ||
             memcmp(pattern + pattern_from, subject + subject_from, token_bytes) != 0)) {
            return false;
        }
        pattern_from = pattern_end + 1;
        subject_from = subject_end + 1;
    }
    return pattern_from > pattern_bytes && subject_from > subject_bytes;
}

/* Whether the token is this wildcard. */
static bool is_token(const char *pattern, size_t from, size_t end, char wildcard)
{
    return end - from == 1 && pattern[from] == wildcard;
}

static bool are_tokens_equal(const char *a, size_t a_from, size_t a_end, const char *b,
                             size_t b_from, size_t b_end)
{
    return a_end - a_from == b_end - b_from && memcmp(a + a_from, b + b_from, a_end - a_from) == 0;
}

bool rsi_subject_overlaps(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    size_t a_from = 0;
    size_t b_from = 0;
    while (a_from <= a_bytes && b_from <= b_bytes) {
        size_t a_end = token_end(a, a_bytes, a_from);
        size_t b_end = token_end(b, b_bytes, b_from);
        if (is_token(a, a_from, a_end, '>') || is_token(b, b_from, b_end, '>')) {
            return true;
        }
        if (!is_token(a, a_from, a_end, '*') && !is_token(b, b_from, b_end, '*') &&
            !are_tokens_equal(a, a_from, a_end, b, b_from, b_end)) {
            return false;
        }
        a_from = a_end + 1;
        b_from = b_end + 1;
    }
    return a_from > a_bytes && b_from > b_bytes;
}

bool rsi_subject_covers(const char *outer, size_t outer_bytes, const char *inner,
                        size_t inner_bytes)
{
    size_t outer_from = 0;
    size_t inner_from = 0;
    while (outer_from <= outer_bytes && inner_from <= inner_bytes) {
        size_t outer_end = token_end(outer, outer_bytes, outer_from);
        size_t inner_end = token_end(inner, inner_bytes, inner_from);
        if (is_token(outer, outer_from, outer_end, '>')) {
            return true;
        }
        bool is_any = is_token(outer, outer_from, outer_end, '*');
        if (is_token(inner, inner_from, inner_end, '>') ||
            (!is_any &&
             !are_tokens_equal(outer, outer_from, outer_end, inner, inner_from, inner_end))) {
            return false;
        }
        outer_from = outer_end + 1;
        inner_from = inner_end + 1;
    }
    return outer_from > outer_bytes && inner_from > inner_bytes;
}

void rsi_subject_token_clean(char *token, size_t bytes)
{
    for (size_t position = 0; position < bytes; position++) {
        char byte = token[position];
        if (is_forbidden((uint8_t)byte) || byte == '.' || byte == '*' || byte == '>') {
            token[position] = '_';
        }
    }
}
