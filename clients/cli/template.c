/*
 * Design notes
 * - The template is checked when it is parsed, with "_" for every value: then only a value that is
 * too long can make a subject wrong later.
 * - The payload is parsed once per message, whole, by jansson: a scanner that looks for one name
 * would be faster and wrong (names inside strings, repeated names, escapes).
 * - Numbers beyond 64 bits are legal JSON, but not for jansson's integers: such a payload is read
 * again with all numbers as reals.
 */
#include "clients/cli/template.h"

#include "core/assert.h"
#include "core/text.h"
#include "proto/subject.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_BYTES = RSI_SUBJECT_BYTES_MAX + 2 };

static const struct {
    const char *name;
    rsi_template_kind_t kind;
} packet_fields[] = {
    {"src", RSI_TEMPLATE_SOURCE},
    {"dst", RSI_TEMPLATE_DESTINATION},
    {"sport", RSI_TEMPLATE_SOURCE_PORT},
    {"dport", RSI_TEMPLATE_DESTINATION_PORT},
};

static bool is_pointer_escaped_well(const char *pointer)
{
    for (const char *at = strchr(pointer, '~'); at != NULL; at = strchr(at + 1, '~')) {
        if (at[1] != '0' && at[1] != '1') {
            return false;
        }
    }
    return true;
}

static rsi_status_t find_kind(const char *name, rsi_template_kind_t *kind, struct rsi_error *error)
{
    if (name[0] == '/') {
        *kind = RSI_TEMPLATE_POINTER;
        if (!is_pointer_escaped_well(name)) {
            return rsi_fail(error, RSI_E_INVALID,
                            "{%s}: in a JSON pointer '~' is written ~0 and '/' in a name ~1", name);
        }
        return RSI_OK;
    }
    for (size_t i = 0; i < rsi_array_count(packet_fields); i++) {
        if (strcmp(packet_fields[i].name, name) == 0) {
            *kind = packet_fields[i].kind;
            return RSI_OK;
        }
    }
    return rsi_fail(
        error, RSI_E_INVALID,
        "{%s} is no field; use {src}, {dst}, {sport}, {dport}, or a JSON pointer such as "
        "{/stream}",
        name);
}

static rsi_status_t add_part(struct rsi_template *template, rsi_template_kind_t kind,
                             const char *text, struct rsi_error *error)
{
    if (template->part_count == RSI_TEMPLATE_PART_COUNT_MAX) {
        return rsi_fail(error, RSI_E_LIMIT, "more than %d parts", RSI_TEMPLATE_PART_COUNT_MAX);
    }
    template->parts[template->part_count] = (struct rsi_template_part){kind, text};
    template->part_count++;
    template->has_pointer |= kind == RSI_TEMPLATE_POINTER;
    template->has_packet_field |= kind != RSI_TEMPLATE_POINTER &&kind != RSI_TEMPLATE_LITERAL;
    return RSI_OK;
}

/* Cuts the copied text at its braces. */
static rsi_status_t cut_parts(struct rsi_template *template, struct rsi_error *error)
{
    char *at = template->text;
    while (*at != '\0') {
        size_t literal_bytes = strcspn(at, "{}");
        if (at[literal_bytes] == '}') {
            return rsi_fail(error, RSI_E_INVALID, "a '}' has no '{' before it");
        }
        bool has_field = at[literal_bytes] == '{';
        at[literal_bytes] = '\0';
        rsi_status_t status = RSI_OK;
        if (literal_bytes > 0) {
            status = add_part(template, RSI_TEMPLATE_LITERAL, at, error);
        }
        if (status != RSI_OK || !has_field) {
            if (status != RSI_OK) {
                return status;
            }
            break;
        }
        char *name = at + literal_bytes + 1;
        char *end = strchr(name, '}');
        if (end == NULL) {
            return rsi_fail(error, RSI_E_INVALID, "the field '{%s' has no '}' behind it", name);
        }
        *end = '\0';
        rsi_template_kind_t kind = RSI_TEMPLATE_LITERAL;
        status = find_kind(name, &kind, error);
        if (status == RSI_OK) {
            status = add_part(template, kind, name, error);
        }
        if (status != RSI_OK) {
            return status;
        }
        at = end + 1;
    }
    return RSI_OK;
}

static rsi_status_t check_with_short_values(const struct rsi_template *template,
                                            struct rsi_error *error)
{
    char buffer[RSI_TEMPLATE_BYTES_MAX];
    struct rsi_text subject;
    rsi_text_init(&subject, buffer, sizeof(buffer));
    for (size_t i = 0; i < template->part_count; i++) {
        rsi_text_append(&subject, "%s",
                        template->parts[i].kind == RSI_TEMPLATE_LITERAL ? template->parts[i].text
                                                                        : "_");
    }
    const char *wrong = rsi_subject_check_literal(subject.data, subject.length_bytes, NULL);
    if (wrong != NULL) {
        return rsi_fail(error, RSI_E_INVALID, "it gives no valid subject: %s", wrong);
    }
    return RSI_OK;
}

rsi_status_t rsi_template_parse(struct rsi_template *template, const char *text,
                                struct rsi_error *error)
{
    rsi_status_t status = RSI_OK;
    memset(template, 0, sizeof(*template));
    if (!rsi_text_copy(template->text, sizeof(template->text), text)) {
        status =
            rsi_fail(error, RSI_E_TOO_LARGE, "longer than %d bytes", RSI_TEMPLATE_BYTES_MAX - 1);
    }
    if (status == RSI_OK) {
        status = cut_parts(template, error);
    }
    if (status == RSI_OK) {
        status = check_with_short_values(template, error);
    }
    if (status != RSI_OK) {
        rsi_error_context(error, "subject template '%.64s%s'", text,
                          strlen(text) > 64 ? "..." : "");
    }
    return status;
}

/* One token of a pointer as a name: ~1 stands for "/" and ~0 for "~". */
static bool token_unescape(const char *token, size_t token_bytes, char *name, size_t name_bytes)
{
    size_t length = 0;
    for (size_t i = 0; i < token_bytes; i++) {
        if (length + 1 >= name_bytes) {
            return false;
        }
        char byte = token[i];
        if (byte == '~' && i + 1 < token_bytes) {
            byte = token[++i] == '1' ? '/' : '~';
        }
        name[length++] = byte;
    }
    name[length] = '\0';
    return true;
}

static const json_t *element_at(const json_t *array, const char *index_text)
{
    uint64_t index = 0;
    bool has_leading_zero = index_text[0] == '0' && index_text[1] != '\0';
    if (has_leading_zero || rsi_parse_number(&index, index_text, 0, UINT32_MAX, NULL) != RSI_OK) {
        return NULL;
    }
    return json_array_get(array, (size_t)index);
}

static const json_t *pointer_find(const json_t *value, const char *pointer)
{
    const char *at = pointer;
    while (value != NULL && *at == '/') {
        at++;
        size_t token_bytes = strcspn(at, "/");
        char name[RSI_TEMPLATE_BYTES_MAX];
        if (!token_unescape(at, token_bytes, name, sizeof(name))) {
            return NULL;
        }
        if (json_is_object(value)) {
            value = json_object_get(value, name);
        } else if (json_is_array(value)) {
            value = element_at(value, name);
        } else {
            value = NULL;
        }
        at += token_bytes;
    }
    return value;
}

/* False: a value that has no short text. */
static bool value_write(const json_t *value, char *text, size_t text_bytes)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        /* A longer one is cut here and refused as too long for a subject. */
        (void)rsi_text_copy(text, text_bytes, json_string_value(value));
        return true;
    case JSON_INTEGER:
        snprintf(text, text_bytes, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return true;
    case JSON_REAL:
        snprintf(text, text_bytes, "%.15g", json_real_value(value));
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        (void)rsi_text_copy(text, text_bytes, json_is_true(value) ? "true" : "false");
        return true;
    default:
        return false;
    }
}

static rsi_status_t load_json(const struct rsi_record *record, json_t **json,
                              struct rsi_error *error)
{
    json_error_t reason;
    const char *data = (const char *)record->payload;
    *json = json_loadb(data, record->payload_bytes, JSON_ALLOW_NUL, &reason);
    if (*json == NULL && json_error_code(&reason) == json_error_numeric_overflow) {
        *json = json_loadb(data, record->payload_bytes, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL,
                           &reason);
    }
    if (*json == NULL) {
        return rsi_fail(error, RSI_E_NOT_FOUND, "the payload is not a JSON object or array: %s",
                        reason.text);
    }
    return RSI_OK;
}

static rsi_status_t write_packet_field(const struct rsi_template_part *part,
                                       const struct rsi_record *record, char *text,
                                       size_t text_bytes, struct rsi_error *error)
{
    const struct rsi_datagram *datagram = record->datagram;
    if (datagram == NULL) {
        return rsi_fail(error, RSI_E_NOT_FOUND,
                        "{%s} is a field of captured packets: a line has "
                        "none",
                        part->text);
    }
    switch (part->kind) {
    case RSI_TEMPLATE_SOURCE:
        rsi_address_write(&datagram->source, text, text_bytes);
        return RSI_OK;
    case RSI_TEMPLATE_DESTINATION:
        rsi_address_write(&datagram->destination, text, text_bytes);
        return RSI_OK;
    case RSI_TEMPLATE_SOURCE_PORT:
        snprintf(text, text_bytes, "%u", (unsigned)datagram->source_port);
        return RSI_OK;
    default:
        snprintf(text, text_bytes, "%u", (unsigned)datagram->destination_port);
        return RSI_OK;
    }
}

static rsi_status_t write_value(const struct rsi_template_part *part,
                                const struct rsi_record *record, const json_t *json, char *text,
                                size_t text_bytes, struct rsi_error *error)
{
    if (part->kind != RSI_TEMPLATE_POINTER) {
        return write_packet_field(part, record, text, text_bytes, error);
    }
    const json_t *value = pointer_find(json, part->text);
    if (value == NULL) {
        return rsi_fail(error, RSI_E_NOT_FOUND, "the payload has nothing at {%s}", part->text);
    }
    if (!value_write(value, text, text_bytes)) {
        return rsi_fail(error, RSI_E_NOT_FOUND, "what is at {%s} is neither text nor number",
                        part->text);
    }
    return RSI_OK;
}

/* An empty value becomes "_" as well: a token has at least one byte. */
static void clean_token(char *text)
{
    rsi_subject_token_clean(text, strlen(text));
    if (text[0] == '\0') {
        memcpy(text, "_", 2);
    }
}

static rsi_status_t fill_parts(const struct rsi_template *template, const struct rsi_record *record,
                               const json_t *json, struct rsi_subject *subject,
                               struct rsi_error *error)
{
    size_t length = 0;
    for (size_t i = 0; i < template->part_count; i++) {
        const struct rsi_template_part *part = &template->parts[i];
        char value[VALUE_BYTES];
        const char *text = part->text;
        if (part->kind != RSI_TEMPLATE_LITERAL) {
            rsi_status_t status = write_value(part, record, json, value, sizeof(value), error);
            if (status != RSI_OK) {
                return status;
            }
            clean_token(value);
            text = value;
        }
        size_t bytes = strlen(text);
        if (bytes > RSI_SUBJECT_BYTES_MAX - length) {
            return rsi_fail(error, RSI_E_INVALID,
                            "with the value of {%s} the subject is longer than %u bytes",
                            part->text, RSI_SUBJECT_BYTES_MAX);
        }
        memcpy(subject->text + length, text, bytes);
        length += bytes;
    }
    subject->text[length] = '\0';
    subject->bytes = length;
    return RSI_OK;
}

rsi_status_t rsi_template_apply(const struct rsi_template *template,
                                const struct rsi_record *record, struct rsi_subject *subject,
                                struct rsi_error *error)
{
    json_t *json = NULL;
    rsi_status_t status = RSI_OK;
    if (template->has_pointer) {
        status = load_json(record, &json, error);
    }
    if (status == RSI_OK) {
        status = fill_parts(template, record, json, subject, error);
    }
    json_decref(json);
    return status;
}
