/*
 * The settings of dpdk://: texts that transport/dpdk_options.h reads.
 *
 * Design notes
 * - One row per setting: what the help says of it and who reads it. The text is stored as it was
 *   written; the transport gets the text.
 */
#include "broker/settings.h"

#include "core/assert.h"

#include <string.h>

static rsi_status_t check_port(const char *text, struct rsi_error *error)
{
    enum rsi_dpdk_port_kind kind;
    return rsi_dpdk_parse_port(&kind, text, error);
}

static rsi_status_t check_address(const char *text, struct rsi_error *error)
{
    struct rsi_dpdk_address address;
    return rsi_dpdk_parse_address(&address, text, error);
}

static rsi_status_t check_gateway(const char *text, struct rsi_error *error)
{
    uint32_t gateway;
    return rsi_dpdk_parse_gateway(&gateway, text, error);
}

static rsi_status_t check_mac(const char *text, struct rsi_error *error)
{
    uint8_t mac[6];
    return rsi_dpdk_parse_mac(mac, text, error);
}

struct text_type {
    const char *key;
    const char *argument;
    const char *range;
    rsi_status_t (*check)(const char *text, struct rsi_error *error);
};

static const struct text_type text_types[] = {
    {"dpdk_port", "PORT", "a PCI address, or a virtual device with its arguments", check_port},
    {"dpdk_address", "ADDRESS/BITS", "an IPv4 address with the length of its prefix",
     check_address},
    {"dpdk_gateway", "ADDRESS", "an IPv4 address", check_gateway},
    {"dpdk_mac", "MAC", "six bytes, such as 02:00:00:00:00:01", check_mac},
    {"dpdk_cores", "LIST", "CPU numbers and ranges, such as 0-3,8", rsi_dpdk_parse_cores},
    {"dpdk_file_prefix", "NAME", "letters, digits, '_' and '-'", rsi_dpdk_parse_file_prefix},
    {"dpdk_eal_arguments", "ARGUMENTS", "--NAME=VALUE, separated by spaces",
     rsi_dpdk_parse_eal_arguments},
};

static const struct text_type *find_type(const struct rsi_setting *setting)
{
    for (uint32_t i = 0; i < rsi_array_count(text_types); i++) {
        if (strcmp(text_types[i].key, setting->key) == 0) {
            return &text_types[i];
        }
    }
    rsi_unreachable("a setting of type DPDK that has no row here");
}

const char *rsi_setting_dpdk_argument(const struct rsi_setting *setting)
{
    return find_type(setting)->argument;
}

const char *rsi_setting_dpdk_range(const struct rsi_setting *setting)
{
    return find_type(setting)->range;
}

rsi_status_t rsi_setting_dpdk_check(const struct rsi_setting *setting, const char *text,
                                    struct rsi_error *error)
{
    return find_type(setting)->check(text, error);
}

void rsi_settings_dpdk(const struct rsi_settings *settings, struct rsi_dpdk_options *options)
{
    *options = (struct rsi_dpdk_options){
        .port = settings->dpdk_port,
        .address = settings->dpdk_address,
        .gateway = settings->dpdk_gateway,
        .mac = settings->dpdk_mac,
        .mtu = (uint32_t)settings->dpdk_mtu,
        .cores = settings->dpdk_cores,
        .memory_bytes = settings->dpdk_memory,
        .no_huge = !settings->dpdk_huge,
        .file_prefix = settings->dpdk_file_prefix,
        .eal_arguments = settings->dpdk_eal_arguments,
        .idle_ns = settings->dpdk_idle_ns,
    };
}
