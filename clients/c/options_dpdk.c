/*
 * The device for dpdk://: what the program says of it, and the environment where it says nothing.
 *
 * Design notes
 * - Per field, so that a program may name the device and the host where it runs its address.
 * - Everything is read and checked whatever the URL: a wrong text must not wait for the day on
 * which a session looks for a better transport. Nothing of the device is touched here.
 */
#include "clients/c/client.h"

#include "core/assert.h"
#include "core/compiler.h"
#include "core/text.h"

#include <stdlib.h>
#include <string.h>

struct text_field {
    const char *name;
    const char *variable;
    size_t given_offset;   /* in ringside_dpdk_t */
    size_t options_offset; /* in struct rsi_dpdk_options */
};

#define FIELD(variable, member)                                       \
    {                                                                 \
        "dpdk_" #member, variable, offsetof(ringside_dpdk_t, member), \
            offsetof(struct rsi_dpdk_options, member)                 \
    }

static const struct text_field text_fields[] = {
    FIELD("RINGSIDE_DPDK_PORT", port),
    FIELD("RINGSIDE_DPDK_ADDRESS", address),
    FIELD("RINGSIDE_DPDK_GATEWAY", gateway),
    FIELD("RINGSIDE_DPDK_MAC", mac),
    FIELD("RINGSIDE_DPDK_CORES", cores),
    FIELD("RINGSIDE_DPDK_FILE_PREFIX", file_prefix),
    FIELD("RINGSIDE_DPDK_EAL_ARGUMENTS", eal_arguments),
};

static const char *read_environment(const char *variable)
{
    const char *text = getenv(variable);
    return rsi_text_is_empty(text) ? NULL : text;
}

static rsi_status_t read_texts(struct rsi_client_dpdk *out, const ringside_dpdk_t *given,
                               struct rsi_error *error)
{
    rsi_static_assert(rsi_array_count(text_fields) == rsi_array_count(out->texts));
    for (size_t i = 0; i < rsi_array_count(text_fields); i++) {
        const struct text_field *field = &text_fields[i];
        const char *text;
        memcpy(&text, (const char *)given + field->given_offset, sizeof(text));
        if (text == NULL) {
            text = read_environment(field->variable);
        }
        if (rsi_text_is_empty(text)) {
            continue;
        }
        if (!rsi_text_copy(out->texts[i], sizeof(out->texts[i]), text)) {
            return rsi_fail(error, RSI_E_INVALID,
                            "%s has %zu bytes (or $%s): at most %zu are allowed", field->name,
                            strlen(text), field->variable, sizeof(out->texts[i]) - 1);
        }
        const char *copied = out->texts[i];
        memcpy((char *)&out->options + field->options_offset, &copied, sizeof(copied));
    }
    return RSI_OK;
}

static rsi_status_t read_huge(bool *no_huge, const char *variable, struct rsi_error *error)
{
    const char *text = read_environment(variable);
    if (text == NULL || strcmp(text, "yes") == 0) {
        return RSI_OK;
    }
    if (strcmp(text, "no") != 0) {
        return rsi_fail(error, RSI_E_INVALID, "%s: '%.64s' is not known; use yes or no", variable,
                        text);
    }
    *no_huge = true;
    return RSI_OK;
}

/* Numbers that the program left at zero. */
static rsi_status_t read_numbers(struct rsi_dpdk_options *options, struct rsi_error *error)
{
    uint64_t mtu = options->mtu;
    const struct {
        const char *variable;
        uint64_t *number;
    } fields[] = {
        {"RINGSIDE_DPDK_MTU", &mtu},
        {"RINGSIDE_DPDK_MEMORY", &options->memory_bytes},
        {"RINGSIDE_DPDK_IDLE", &options->idle_ns},
    };
    for (size_t i = 0; i < rsi_array_count(fields); i++) {
        const char *text = *fields[i].number == 0 ? read_environment(fields[i].variable) : NULL;
        if (text == NULL) {
            continue;
        }
        rsi_status_t status;
        if (fields[i].number == &mtu) {
            status = rsi_parse_number(&mtu, text, RSI_DPDK_MTU_MIN, RSI_DPDK_MTU_MAX, error);
        } else if (fields[i].number == &options->memory_bytes) {
            status = rsi_parse_size(fields[i].number, text, error);
        } else {
            status = rsi_parse_duration(fields[i].number, text, error);
        }
        if (status != RSI_OK) {
            rsi_error_context(error, "%s", fields[i].variable);
            return status;
        }
    }
    options->mtu = (uint32_t)mtu;
    return RSI_OK;
}

rsi_status_t rsi_client_dpdk_read(struct rsi_client_dpdk *out, const ringside_dpdk_t *given,
                                  struct rsi_error *error)
{
    ringside_dpdk_t known;
    memset(out, 0, sizeof(*out));
    rsi_status_t status =
        rsi_client_options_copy(&known, sizeof(known), given, "ringside_dpdk_t", error);
    if (status == RSI_OK) {
        status = read_texts(out, &known, error);
    }
    if (status != RSI_OK) {
        return status;
    }
    out->options.mtu = known.mtu;
    out->options.memory_bytes = known.memory_bytes;
    out->options.idle_ns = known.idle_ns;
    out->options.no_huge = known.no_huge != 0;
    status = read_numbers(&out->options, error);
    if (status == RSI_OK) {
        status = read_huge(&out->options.no_huge, "RINGSIDE_DPDK_HUGE", error);
    }
    return status == RSI_OK ? rsi_dpdk_options_check(&out->options, error) : status;
}
