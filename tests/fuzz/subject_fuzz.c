/*
 * Design notes: two texts, parted by a newline: a pattern and a subject. What must hold: a literal
 * is a pattern that matches itself; ">" matches every literal; a cleaned token is a well-formed
 * one.
 */
#include "tests/fuzz/fuzz_main.h"

#include "core/assert.h"
#include "proto/layout.h"
#include "proto/subject.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *text = (const char *)data;
    const char *newline = bytes ? memchr(text, '\n', bytes) : NULL;
    size_t pattern_bytes = newline ? (size_t)(newline - text) : bytes;
    const char *subject = newline ? newline + 1 : text + bytes;
    size_t subject_bytes = bytes - (size_t)(subject - text);
    size_t at = 0;

    if (rsi_subject_check_literal(subject, subject_bytes, &at) == NULL) {
        rsi_assert(rsi_subject_check_pattern(subject, subject_bytes, NULL) == NULL);
        rsi_assert(rsi_subject_is_literal(subject, subject_bytes));
        rsi_assert(rsi_subject_matches(subject, subject_bytes, subject, subject_bytes));
        rsi_assert(rsi_subject_matches(">", 1, subject, subject_bytes));
        if (rsi_subject_check_pattern(text, pattern_bytes, NULL) == NULL &&
            rsi_subject_is_literal(text, pattern_bytes)) {
            rsi_assert(
                rsi_subject_matches(text, pattern_bytes, subject, subject_bytes) ==
                (pattern_bytes == subject_bytes && memcmp(text, subject, subject_bytes) == 0));
        } else if (rsi_subject_check_pattern(text, pattern_bytes, NULL) == NULL) {
            (void)rsi_subject_matches(text, pattern_bytes, subject, subject_bytes);
        }
    } else {
        rsi_assert(at <= subject_bytes);
    }

    char token[RSI_SUBJECT_BYTES_MAX];
    size_t token_bytes = bytes > sizeof(token) ? sizeof(token) : bytes;
    if (token_bytes > 0) {
        memcpy(token, data, token_bytes);
        rsi_subject_token_clean(token, token_bytes);
        rsi_assert(rsi_subject_check_literal(token, token_bytes, NULL) == NULL);
        rsi_assert(memchr(token, '.', token_bytes) == NULL);
    }
    return 0;
}
