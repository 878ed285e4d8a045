/*
 * Design notes
 *
 * - Sizes are in binary units and durations in decimal ones, spelled in full: "KB" is refused
 * rather than guessed at, and a bare number is a size but never a duration.
 * - All three parsers read digits with one function that notices overflow.
 */
#include "core/text.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/assert.h"

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first: the first that divides a value is the one to print it in. */
static const struct unit size_units[] = {
    {"TiB", UINT64_C(1) << 40},
    {"GiB", UINT64_C(1) << 30},
    {"MiB", UINT64_C(1) << 20},
    {"KiB", UINT64_C(1) << 10},
    {"B", 1},
};

static const struct unit duration_units[] = {
    {"h", UINT64_C(3600000000000)}, {"m", UINT64_C(60000000000)}, {"s", UINT64_C(1000000000)},
    {"ms", UINT64_C(1000000)},      {"us", UINT64_C(1000)},       {"ns", 1},
};

void rsi_text_init(struct rsi_text *text, char *buffer, size_t buffer_bytes)
{
    rsi_assert(buffer_bytes >= 1);
    text->data = buffer;
    text->data_bytes = buffer_bytes;
    text->length_bytes = 0;
    text->is_cut = false;
    buffer[0] = '\0';
}

void rsi_text_append(struct rsi_text *text, const char *format, ...)
{
    size_t room = text->data_bytes - text->length_bytes;
    va_list values;
    va_start(values, format);
    int length = vsnprintf(text->data + text->length_bytes, room, format, values);
    va_end(values);
    rsi_assert(length >= 0);
    if ((size_t)length < room) {
        text->length_bytes += (size_t)length;
    } else {
        text->length_bytes = text->data_bytes - 1;
        text->is_cut = true;
    }
}

static void append_in_units(struct rsi_text *text, uint64_t value, const struct unit *units,
                            size_t unit_count)
{
    size_t chosen = unit_count - 1;
    for (size_t i = 0; i < unit_count && value != 0; i++) {
        if (value % units[i].factor == 0) {
            chosen = i;
            break;
        }
    }
    rsi_text_append(text, "%" PRIu64 " %s", value / units[chosen].factor, units[chosen].name);
}

void rsi_text_append_size(struct rsi_text *text, uint64_t bytes)
{
    append_in_units(text, bytes, size_units, rsi_array_count(size_units));
}

void rsi_text_append_duration(struct rsi_text *text, uint64_t duration_ns)
{
    append_in_units(text, duration_ns, duration_units, rsi_array_count(duration_units));
}

bool rsi_text_copy(char *field, size_t bytes, const char *from)
{
    rsi_assert(bytes >= 1);
    size_t length = strnlen(from, bytes);
    bool fits = length < bytes;
    size_t copied = fits ? length : bytes - 1;
    memcpy(field, from, copied);
    field[copied] = '\0';
    return fits;
}

/* Reads the digits at *cursor and moves it behind them; false without digits or beyond 2^64. */
static bool read_digits(const char **cursor, uint64_t *number)
{
    const char *at = *cursor;
    uint64_t value = 0;
    if (*at < '0' || *at > '9') {
        return false;
    }
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *cursor = at;
    *number = value;
    return true;
}

static const struct unit *find_unit(const struct unit *units, size_t unit_count, const char *name)
{
    for (size_t i = 0; i < unit_count; i++) {
        if (strcmp(units[i].name, name) == 0) {
            return &units[i];
        }
    }
    return NULL;
}

/* The factor of the unit at `cursor`; 0 when there is none of that name. */
static uint64_t unit_factor(const struct unit *units, size_t unit_count, const char *cursor)
{
    if (*cursor == ' ') {
        cursor++;
    }
    const struct unit *unit = find_unit(units, unit_count, cursor);
    return unit != NULL ? unit->factor : 0;
}

rsi_status_t rsi_parse_size(uint64_t *bytes, const char *text, struct rsi_error *error)
{
    const char *cursor = text;
    uint64_t number = 0;
    if (!read_digits(&cursor, &number)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s' is not a size; write a whole number and a unit, such as 64KiB", text);
    }
    uint64_t factor = 1;
    if (*cursor != '\0') {
        factor = unit_factor(size_units, rsi_array_count(size_units), cursor);
    }
    if (factor == 0) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s' has no size unit that is known; use B, KiB, MiB, GiB or TiB", text);
    }
    if (number > UINT64_MAX / factor) {
        return rsi_fail(error, RSI_E_INVALID, "'%s' is larger than any size", text);
    }
    *bytes = number * factor;
    return RSI_OK;
}

rsi_status_t rsi_parse_duration(uint64_t *duration_ns, const char *text, struct rsi_error *error)
{
    const char *cursor = text;
    uint64_t number = 0;
    if (!read_digits(&cursor, &number)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s' is not a time; write a whole number and a unit, such as 100ms", text);
    }
    if (*cursor == '\0' && number == 0) {
        *duration_ns = 0;
        return RSI_OK;
    }
    uint64_t factor = unit_factor(duration_units, rsi_array_count(duration_units), cursor);
    if (factor == 0) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s' has no time unit that is known; use ns, us, ms, s, m or h", text);
    }
    if (number > UINT64_MAX / factor) {
        return rsi_fail(error, RSI_E_INVALID, "'%s' is longer than any time", text);
    }
    *duration_ns = number * factor;
    return RSI_OK;
}

rsi_status_t rsi_parse_number(uint64_t *number, const char *text, uint64_t low, uint64_t high,
                              struct rsi_error *error)
{
    const char *cursor = text;
    uint64_t value = 0;
    if (!read_digits(&cursor, &value) || *cursor != '\0') {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s' is not a whole number between %" PRIu64 " and %" PRIu64, text, low,
                        high);
    }
    if (value < low || value > high) {
        return rsi_fail(error, RSI_E_INVALID, "%s is not between %" PRIu64 " and %" PRIu64, text,
                        low, high);
    }
    *number = value;
    return RSI_OK;
}

rsi_status_t rsi_parse_ipv4_prefix(uint32_t *address, uint32_t *prefix_bits, const char *text,
                                   struct rsi_error *error)
{
    char host[INET_ADDRSTRLEN] = "";
    struct in_addr network_order;
    uint64_t bits = 0;
    const char *slash = strchr(text, '/');
    size_t host_bytes = slash != NULL ? (size_t)(slash - text) : 0;
    if (host_bytes > 0 && host_bytes < sizeof(host)) {
        memcpy(host, text, host_bytes);
        host[host_bytes] = '\0';
    }
    if (inet_pton(AF_INET, host, &network_order) != 1 ||
        rsi_failed(rsi_parse_number(&bits, slash + 1, 1, 31, NULL))) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%.64s' is not an IPv4 address with the length of its network's prefix, 1 "
                        "to 31: write it as 10.7.0.1/24",
                        text);
    }
    *address = ntohl(network_order.s_addr);
    *prefix_bits = (uint32_t)bits;
    return RSI_OK;
}
