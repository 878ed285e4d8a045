/*
 * Settings from a YAML file.
 *
 * Design notes
 * - libcyaml checks the shape (known keys, scalar or list), the table in settings.c checks the
 * values. The schema is made from the table at run time; every scalar is loaded as text, because
 * units and ranges are the table's business.
 * - libcyaml tells lines only in its log, and only when it refuses something. Its log is kept and
 * the line read out of it. For a value that the table refuses, and for unknown keys (libcyaml then
 *   names the line before), the line is found in the text: keys stand at the start of a line.
 */
#include "broker/settings.h"

#include "core/text.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 20, SETTING_COUNT_MAX = 64, ENTRY_BYTES_MAX = 4096 };

/* One setting as the file has it. `text` for a scalar, the others for a list. */
struct raw_value {
    char *text;
    void *entries;
    uint32_t entry_count;
};

struct raw_token {
    char *name;
    char *secret;
    char *secret_file;
};

struct raw_file {
    struct raw_value values[SETTING_COUNT_MAX];
};

/* What libcyaml logged. */
struct complaint {
    char text[160]; /* the first line: what is wrong */
    unsigned line;  /* from the first place it names; 0: none */
};

static const cyaml_schema_value_t text_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, ENTRY_BYTES_MAX)};

static const cyaml_schema_field_t token_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct raw_token, name, 1, ENTRY_BYTES_MAX),
    CYAML_FIELD_STRING_PTR("secret", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_token,
                           secret, 0, ENTRY_BYTES_MAX),
    CYAML_FIELD_STRING_PTR("secret_file", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                           struct raw_token, secret_file, 0, ENTRY_BYTES_MAX),
    CYAML_FIELD_END};

static const cyaml_schema_value_t token_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_token, token_fields)};

/* `fields` has room for every setting and the end. */
static void make_schema(cyaml_schema_field_t *fields)
{
    for (uint32_t i = 0; i < rsi_settings_table_count; i++) {
        const struct rsi_setting *setting = &rsi_settings_table[i];
        cyaml_schema_field_t *field = &fields[i];
        uint32_t base =
            (uint32_t)(offsetof(struct raw_file, values) + i * sizeof(struct raw_value));
        bool is_token = setting->type == RSI_SETTING_TOKENS;
        memset(field, 0, sizeof(*field));
        field->key = setting->key;
        field->value.flags = (enum cyaml_flag)(CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL);
        if (!rsi_setting_is_list(setting)) {
            field->data_offset = base + (uint32_t)offsetof(struct raw_value, text);
            field->value.type = CYAML_STRING;
            field->value.data_size = sizeof(char *);
            field->value.string.max = ENTRY_BYTES_MAX;
            continue;
        }
        field->data_offset = base + (uint32_t)offsetof(struct raw_value, entries);
        field->count_offset = base + (uint32_t)offsetof(struct raw_value, entry_count);
        field->count_size = sizeof(uint32_t);
        field->value.type = CYAML_SEQUENCE;
        field->value.data_size = is_token ? sizeof(struct raw_token) : sizeof(char *);
        field->value.sequence.entry = is_token ? &token_entry : &text_entry;
        field->value.sequence.min = (uint32_t)setting->low;
        field->value.sequence.max = (uint32_t)setting->high;
    }
    memset(&fields[rsi_settings_table_count], 0, sizeof(*fields));
}

static void take_complaint(cyaml_log_t level, void *context, const char *format, va_list arguments)
{
    struct complaint *complaint = context;
    char line[256];
    (void)level;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    vsnprintf(line, sizeof(line), format, arguments);
#pragma GCC diagnostic pop
    line[strcspn(line, "\n")] = '\0';
    const char *text = strncmp(line, "Load: ", 6) == 0 ? line + 6 : line;
    if (complaint->text[0] == '\0') {
        rsi_text_copy(complaint->text, sizeof(complaint->text), text);
    }
    const char *place = strstr(line, "(line: ");
    if (complaint->line == 0 && place != NULL) {
        complaint->line = (unsigned)strtoul(place + strlen("(line: "), NULL, 10);
    }
}

/* The first line, from 1, that begins with `key` and a colon; 0: none. */
static unsigned find_key_line(const char *text, const char *key)
{
    size_t key_bytes = strlen(key);
    unsigned line = 1;
    for (const char *at = text; at != NULL && *at != '\0'; line++) {
        const char *word = at + strspn(at, " \t-{");
        if (*word == '"' || *word == '\'') {
            word++;
        }
        if (strncmp(word, key, key_bytes) == 0) {
            const char *after = word + key_bytes;
            after += strspn(after, "\"' \t");
            if (*after == ':') {
                return line;
            }
        }
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    return 0;
}

static void add_place(struct rsi_error *error, const char *path, unsigned line)
{
    if (line > 0) {
        rsi_error_context(error, "%s, line %u", path, line);
    } else {
        rsi_error_context(error, "%s", path);
    }
}

/* What libcyaml refused, in terms of the table. */
static rsi_status_t refuse_shape(const struct complaint *complaint, cyaml_err_t code,
                                 const char *path, const char *text, struct rsi_error *error)
{
    static const char unknown[] = "Unexpected key: ";
    unsigned line = complaint->line;
    rsi_status_t status;
    if (strncmp(complaint->text, unknown, strlen(unknown)) == 0) {
        const char *key = complaint->text + strlen(unknown);
        unsigned found = find_key_line(text, key);
        line = found != 0 ? found : line;
        status = rsi_fail(error, RSI_E_INVALID,
                          "unknown key '%s'; ringsided --print-config shows every key", key);
    } else if (code == CYAML_ERR_LIBYAML_PARSER) {
        const char *detail = strstr(complaint->text, "libyaml: ");
        status = rsi_fail(error, RSI_E_INVALID, "not YAML here or on the next line: %s",
                          detail != NULL ? detail + strlen("libyaml: ") : complaint->text);
    } else if (complaint->text[0] != '\0') {
        status =
            rsi_fail(error, RSI_E_INVALID,
                     "%s; ringsided --print-config shows the form of every key", complaint->text);
    } else {
        status = rsi_fail(error, RSI_E_INVALID, "%s", cyaml_strerror(code));
    }
    bool is_of_one_key = code == CYAML_ERR_INVALID_VALUE ||
                         code == CYAML_ERR_SEQUENCE_ENTRIES_MIN ||
                         code == CYAML_ERR_SEQUENCE_ENTRIES_MAX;
    /* Which key it was, where the line begins with one. */
    for (uint32_t i = 0; is_of_one_key && line != 0 && i < rsi_settings_table_count; i++) {
        const struct rsi_setting *setting = &rsi_settings_table[i];
        if (find_key_line(text, setting->key) == line) {
            char range[96];
            rsi_setting_describe_range(setting, range, sizeof(range));
            status =
                rsi_fail(error, RSI_E_INVALID, "%s: %s (%s); valid: %s; example: %s", setting->key,
                         code == CYAML_ERR_INVALID_VALUE ? "wrong type" : "wrong number",
                         complaint->text, range, setting->example);
        }
    }
    add_place(error, path, line);
    return status;
}

static rsi_status_t take_token(struct rsi_settings *settings, const struct raw_token *token,
                               struct rsi_error *error)
{
    if ((token->secret == NULL) == (token->secret_file == NULL)) {
        return rsi_fail(error, RSI_E_INVALID, "tokens: '%s' needs either secret or secret_file",
                        token->name);
    }
    if (token->secret != NULL) {
        return rsi_settings_add_token(settings, token->name, token->secret, error);
    }
    return rsi_settings_add_token_file(settings, token->name, token->secret_file, error);
}

static rsi_status_t take_value(struct rsi_settings *settings, const struct rsi_setting *setting,
                               const struct raw_value *value, struct rsi_error *error)
{
    if (!rsi_setting_is_list(setting)) {
        return value->text != NULL ? rsi_setting_assign(settings, setting, value->text, error)
                                   : RSI_OK;
    }
    if (value->entries == NULL && value->entry_count == 0) {
        return RSI_OK;
    }
    rsi_setting_clear(settings, setting);
    for (uint32_t i = 0; i < value->entry_count; i++) {
        rsi_status_t status;
        if (setting->type == RSI_SETTING_TOKENS) {
            status = take_token(settings, &((struct raw_token *)value->entries)[i], error);
        } else {
            status = rsi_setting_assign(settings, setting, ((char **)value->entries)[i], error);
        }
        if (rsi_failed(status)) {
            return status;
        }
    }
    return RSI_OK;
}

static rsi_status_t take_file(struct rsi_settings *settings, const struct raw_file *raw,
                              const char *path, const char *text, struct rsi_error *error)
{
    for (uint32_t i = 0; i < rsi_settings_table_count; i++) {
        const struct rsi_setting *setting = &rsi_settings_table[i];
        rsi_status_t status = take_value(settings, setting, &raw->values[i], error);
        if (rsi_failed(status)) {
            add_place(error, path, find_key_line(text, setting->key));
            return status;
        }
    }
    return RSI_OK;
}

/* libcyaml's allocator, which wipes what it frees: secrets pass through it. */
static void *wiping_memory(void *context, void *pointer, size_t bytes)
{
    (void)context;
    size_t *block = pointer != NULL ? (size_t *)pointer - 2 : NULL;
    void *given = NULL;
    if (bytes > 0) {
        size_t *grown = malloc(bytes + 2 * sizeof(size_t));
        if (grown == NULL) {
            return NULL;
        }
        grown[0] = bytes;
        given = grown + 2;
        if (block != NULL) {
            memcpy(given, pointer, block[0] < bytes ? block[0] : bytes);
        }
    }
    if (block != NULL) {
        explicit_bzero(pointer, block[0]);
        free(block);
    }
    return given;
}

static rsi_status_t parse_file(struct rsi_settings *settings, const char *path, const char *text,
                               size_t text_bytes, struct rsi_error *error)
{
    cyaml_schema_field_t fields[SETTING_COUNT_MAX + 1];
    rsi_assert(rsi_settings_table_count <= SETTING_COUNT_MAX);
    make_schema(fields);
    const cyaml_schema_value_t schema = {
        CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw_file, fields)};
    struct complaint complaint = {0};
    const cyaml_config_t config = {
        .log_fn = take_complaint,
        .log_ctx = &complaint,
        .mem_fn = wiping_memory,
        .log_level = CYAML_LOG_WARNING,
        .flags = CYAML_CFG_NO_ALIAS,
    };
    struct raw_file *raw = NULL;
    cyaml_err_t code = cyaml_load_data((const uint8_t *)text, text_bytes, &config, &schema,
                                       (cyaml_data_t **)&raw, NULL);
    if (code != CYAML_OK) {
        return refuse_shape(&complaint, code, path, text, error);
    }
    if (raw == NULL) {
        return RSI_OK; /* nothing but comments */
    }
    rsi_status_t status = take_file(settings, raw, path, text, error);
    cyaml_free(&config, &schema, raw, 0);
    return status;
}

static void warn_of_readable_secrets(const struct stat *file, const char *path, const char *text)
{
    if ((file->st_mode & (S_IRGRP | S_IROTH)) != 0 && find_key_line(text, "secret") != 0) {
        rsi_log_warning("settings",
                        "%s holds secrets and other users can read it (mode %04o): run: chmod 600 "
                        "%s, or use secret_file",
                        path, (unsigned)(file->st_mode & 07777), path);
    }
}

rsi_status_t rsi_settings_load(struct rsi_settings *settings, const char *path,
                               struct rsi_error *error)
{
    struct stat file;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno, "configuration file %s",
                              path);
    }
    char *text = NULL;
    rsi_status_t status = RSI_OK;
    if (fstat(fd, &file) != 0 || !S_ISREG(file.st_mode) || file.st_size > FILE_BYTES_MAX) {
        status = rsi_fail(error, RSI_E_INVALID,
                          "configuration file %s is not a regular file of at most 1 MiB", path);
        goto close_fd;
    }
    text = calloc(1, FILE_BYTES_MAX + 1);
    if (text == NULL) {
        status = rsi_fail(error, RSI_E_NO_MEMORY, "no memory for configuration file %s", path);
        goto close_fd;
    }
    ssize_t count = read(fd, text, FILE_BYTES_MAX);
    if (count < 0) {
        status = rsi_fail_errno(error, RSI_E_IO, errno, "configuration file %s", path);
    } else {
        status = parse_file(settings, path, text, (size_t)count, error);
    }
    if (!rsi_failed(status)) {
        warn_of_readable_secrets(&file, path, text);
    }
    if (count > 0) {
        explicit_bzero(text, (size_t)count);
    }
    free(text);
close_fd:
    close(fd);
    return status;
}
