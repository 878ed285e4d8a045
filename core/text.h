#ifndef RSI_CORE_TEXT_H
#define RSI_CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* Texts of bounded size over the caller's buffer, and the sizes and times that users write. */

/* Appends until the buffer is full; what did not fit is cut off and remembered. */
struct rsi_text {
    char *data;        /* always terminated */
    size_t data_bytes; /* with the terminating zero */
    size_t length_bytes;
    bool is_cut;
};

/* `buffer` is borrowed as long as the text is used; buffer_bytes >= 1. Starts empty. */
void rsi_text_init(struct rsi_text *text, char *buffer, size_t buffer_bytes);
void rsi_text_append(struct rsi_text *text, const char *format, ...) RSI_PRINTF(2, 3);

/* "512 B", "64 KiB", "2 MiB": in the largest unit that divides it. */
void rsi_text_append_size(struct rsi_text *text, uint64_t bytes);

/* "5 s", "100 ms", "10 us", "3 ns": in the largest unit that divides it. */
void rsi_text_append_duration(struct rsi_text *text, uint64_t duration_ns);

/* Nothing is said: NULL, or no character. */
static inline bool rsi_text_is_empty(const char *text)
{
    return text == NULL || text[0] == '\0';
}

static inline const char *rsi_text_or_empty(const char *text)
{
    return text != NULL ? text : "";
}

/* Copies `from` into a field of `bytes`, always terminated; false when it was cut. */
bool rsi_text_copy(char *field, size_t bytes, const char *from);

/*
 * "512", "512B", "64KiB", "2MiB", "1GiB" (a space before the unit is fine). Errors: INVALID; the
 * text quotes what was read and names the units.
 */
rsi_status_t rsi_parse_size(uint64_t *bytes, const char *text,
                            struct rsi_error *error) RSI_MUST_CHECK;

/* "5s", "100ms", "10us", "500ns", "2m", "1h", and "0"; another bare number is refused. */
rsi_status_t rsi_parse_duration(uint64_t *duration_ns, const char *text,
                                struct rsi_error *error) RSI_MUST_CHECK;

/* A decimal number between low and high, nothing else around it. */
rsi_status_t rsi_parse_number(uint64_t *number, const char *text, uint64_t low, uint64_t high,
                              struct rsi_error *error) RSI_MUST_CHECK;

/* "10.7.0.1/24": an IPv4 address, in host byte order, and the length of a prefix, 1 to 31. */
rsi_status_t rsi_parse_ipv4_prefix(uint32_t *address, uint32_t *prefix_bits, const char *text,
                                   struct rsi_error *error) RSI_MUST_CHECK;

#endif
