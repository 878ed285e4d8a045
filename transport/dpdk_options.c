/*
 * Design notes
 * - A wrong text is refused here with what would be right, because the device's own software says
 *   it late, in its own words, or not at all.
 * - Names of vdevs are taken by their shape only: which drivers are there, only the plugin knows.
 * - EAL prints its usage on standard output when it meets an option that it does not know, and some
 *   options would change what this library decides; so further EAL arguments are those of a list.
 */
#include "transport/dpdk_options.h"

#include "core/cpu.h"
#include "core/text.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FILE_PREFIX_BYTES_MAX 64u
#define MAC_BYTES             6u
#define CLASS_D_FIRST         UINT32_C(0xe0000000) /* multicast and beyond */
#define CLASS_A_LOOPBACK      127u

/* ---- port --------------------------------------------------------------------------------------
 */

/* "0000:03:00.0" or "03:00.0". */
static bool is_pci_address(const char *text)
{
    static const char *const shapes[] = {"xxxx:xx:xx.x", "xx:xx.x"};
    for (size_t i = 0; i < rsi_array_count(shapes); i++) {
        const char *shape = shapes[i];
        const char *at = text;
        while (*shape != '\0' &&
               (*shape == 'x' ? isxdigit((unsigned char)*at) != 0 : *shape == *at)) {
            shape++;
            at++;
        }
        if (*shape == '\0' && *at == '\0') {
            return true;
        }
    }
    return false;
}

static bool is_device_name(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (!isalnum((unsigned char)text[i]) && text[i] != '_' && text[i] != '-') {
            return false;
        }
    }
    return bytes > 0;
}

/* The port inside a fault layer, or the port. */
static const char *inner_port(const char *text)
{
    const char *end = strncmp(text, "fault:", 6) == 0 ? strchr(text, ';') : NULL;
    return end != NULL ? end + 1 : text;
}

rsi_status_t rsi_dpdk_parse_port(enum rsi_dpdk_port_kind *kind, const char *text,
                                 struct rsi_error *error)
{
    text = inner_port(text);
    if (strncmp(text, "virtual:", 8) == 0) {
        *kind = RSI_DPDK_PORT_VIRTUAL;
        return RSI_OK;
    }
    if (is_pci_address(text)) {
        *kind = RSI_DPDK_PORT_PCI;
        return RSI_OK;
    }
    size_t name_bytes = strcspn(text, ",");
    bool is_vdev = (strncmp(text, "net_", 4) == 0 || strncmp(text, "virtio_user", 11) == 0 ||
                    strncmp(text, "eth_", 4) == 0) &&
                   name_bytes > 4 && is_device_name(text, name_bytes);
    for (const char *at = text; is_vdev && *at != '\0'; at++) {
        is_vdev = isgraph((unsigned char)*at) != 0; /* a space would end EAL's argument */
    }
    if (!is_vdev) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%.64s' is no port of DPDK: write a PCI address, such as 0000:03:00.0, or "
                        "a virtual device with its arguments, such as net_af_packet0,iface=eth1",
                        text);
    }
    *kind = RSI_DPDK_PORT_VDEV;
    return RSI_OK;
}

/* ---- addresses ---------------------------------------------------------------------------------
 */

static bool parse_ipv4(uint32_t *address, const char *text)
{
    struct in_addr parsed;
    if (inet_pton(AF_INET, text, &parsed) != 1) {
        return false;
    }
    *address = ntohl(parsed.s_addr);
    return true;
}

/* Whether it can be the address of one host. */
static bool is_host_address(uint32_t address)
{
    uint32_t first = address >> 24;
    return first != 0 && first != CLASS_A_LOOPBACK && address < CLASS_D_FIRST;
}

rsi_status_t rsi_dpdk_parse_address(struct rsi_dpdk_address *address, const char *text,
                                    struct rsi_error *error)
{
    uint32_t parsed = 0;
    uint32_t prefix_bits = 0;
    rsi_status_t status = rsi_parse_ipv4_prefix(&parsed, &prefix_bits, text, error);
    if (status != RSI_OK) {
        return status;
    }
    uint32_t host_mask = UINT32_MAX >> prefix_bits;
    bool has_ends = prefix_bits < 31; /* RFC 3021: both addresses of a /31 are hosts */
    if (!is_host_address(parsed) ||
        (has_ends && ((parsed & host_mask) == 0 || (parsed & host_mask) == host_mask))) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%.64s' is not the address of a host: it is a network's own, broadcast, "
                        "loopback or multicast; write one such as 10.7.0.1/24",
                        text);
    }
    *address = (struct rsi_dpdk_address){.address = parsed, .prefix_bits = prefix_bits};
    return RSI_OK;
}

rsi_status_t rsi_dpdk_parse_gateway(uint32_t *gateway, const char *text, struct rsi_error *error)
{
    uint32_t parsed = 0;
    if (!parse_ipv4(&parsed, text) || !is_host_address(parsed)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%.64s' is not the IPv4 address of a host: write one such as 10.7.0.254",
                        text);
    }
    *gateway = parsed;
    return RSI_OK;
}

rsi_status_t rsi_dpdk_parse_mac(uint8_t mac[6], const char *text, struct rsi_error *error)
{
    uint8_t parsed[MAC_BYTES] = {0};
    bool is_valid = strlen(text) == MAC_BYTES * 3 - 1;
    for (size_t i = 0; is_valid && i < MAC_BYTES * 3 - 1; i++) {
        unsigned char c = (unsigned char)text[i];
        if (i % 3 == 2) {
            is_valid = c == ':';
            continue;
        }
        is_valid = isxdigit(c) != 0;
        uint8_t digit = (uint8_t)(isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
        parsed[i / 3] = (uint8_t)(parsed[i / 3] << 4 | (digit & 0xf));
    }
    uint32_t sum = 0;
    for (size_t i = 0; i < MAC_BYTES; i++) {
        sum |= parsed[i];
    }
    if (!is_valid || sum == 0 || (parsed[0] & 1) != 0) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%.64s' is not the MAC of one host: write six bytes such as "
                        "02:00:00:00:00:01 (the first one even)",
                        text);
    }
    memcpy(mac, parsed, sizeof(parsed));
    return RSI_OK;
}

/* ---- EAL ---------------------------------------------------------------------------------------
 */

rsi_status_t rsi_dpdk_parse_cores(const char *text, struct rsi_error *error)
{
    struct rsi_cpu_set set;
    struct rsi_error inner = {0};
    if (rsi_failed(rsi_cpu_set_parse(&set, text, &inner)) || rsi_cpu_set_count(&set) == 0) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%.64s' is no list of CPUs: write numbers and ranges such as 0-3,8", text);
    }
    return RSI_OK;
}

rsi_status_t rsi_dpdk_parse_file_prefix(const char *text, struct rsi_error *error)
{
    size_t bytes = strlen(text);
    if (!is_device_name(text, bytes) || bytes > FILE_PREFIX_BYTES_MAX) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%.64s' cannot begin the names of files: 1 to %u letters, digits, '_' or "
                        "'-', such as hub1",
                        text, FILE_PREFIX_BYTES_MAX);
    }
    return RSI_OK;
}

struct eal_argument {
    const char *name;
    bool has_value;
};

/* What does not take a decision away from this library, and does not make EAL print or leave. */
static const struct eal_argument eal_arguments[] = {
    {"--iova-mode", true},
    {"--huge-dir", true},
    {"--socket-mem", true},
    {"--socket-limit", true},
    {"--legacy-mem", false},
    {"--match-allocations", false},
    {"--base-virtaddr", true},
    {"--vfio-intr", true},
    {"--vfio-vf-token", true},
    {"--log-level", true},
    {"--driver", true},
    {"--block", true},
    {"--allow", true},
    {"--main-lcore", true},
    {"--force-max-simd-bitwidth", true},
    {"--single-file-segments", false},
};

rsi_status_t rsi_dpdk_parse_eal_arguments(const char *text, struct rsi_error *error)
{
    for (const char *at = text + strspn(text, " "); *at != '\0';) {
        size_t bytes = strcspn(at, " ");
        const char *equals = memchr(at, '=', bytes);
        size_t name_bytes = equals != NULL ? (size_t)(equals - at) : bytes;
        const struct eal_argument *found = NULL;
        for (size_t i = 0; i < rsi_array_count(eal_arguments) && found == NULL; i++) {
            if (strlen(eal_arguments[i].name) == name_bytes &&
                memcmp(eal_arguments[i].name, at, name_bytes) == 0) {
                found = &eal_arguments[i];
            }
        }
        bool has_value = equals != NULL && name_bytes + 1 < bytes;
        if (found == NULL || found->has_value != has_value) {
            return rsi_fail(error, RSI_E_INVALID,
                            "'%.*s' is no EAL argument that can be given here: they are of the "
                            "form --NAME=VALUE, such as --iova-mode=va or --driver=/path/pmd.so",
                            (int)(bytes < 64 ? bytes : 64), at);
        }
        at += bytes;
        at += strspn(at, " ");
    }
    return RSI_OK;
}

/* ---- all together ------------------------------------------------------------------------------
 */

static rsi_status_t check_network(const struct rsi_dpdk_options *options, struct rsi_error *error)
{
    struct rsi_dpdk_address address = {0};
    uint32_t gateway = 0;
    if (!rsi_text_is_empty(options->gateway) &&
        rsi_failed(rsi_dpdk_parse_gateway(&gateway, options->gateway, error))) {
        rsi_error_context(error, "dpdk_gateway");
        return RSI_E_INVALID;
    }
    if (rsi_text_is_empty(options->address)) {
        return !rsi_text_is_empty(options->port)
                   ? rsi_fail(error, RSI_E_INVALID,
                              "dpdk_address: a dpdk_port needs an IPv4 address of its own and the "
                              "length of its network's prefix, such as 10.7.0.1/24")
                   : RSI_OK;
    }
    if (rsi_failed(rsi_dpdk_parse_address(&address, options->address, error))) {
        rsi_error_context(error, "dpdk_address");
        return RSI_E_INVALID;
    }
    if (rsi_text_is_empty(options->gateway)) {
        return RSI_OK;
    }
    if (((gateway ^ address.address) >> (32 - address.prefix_bits)) != 0 ||
        gateway == address.address) {
        return rsi_fail(error, RSI_E_INVALID,
                        "dpdk_gateway: %s is not another host of dpdk_address %s, so nothing could "
                        "be sent to it; give a gateway of that network, or a shorter prefix",
                        options->gateway, options->address);
    }
    return RSI_OK;
}

rsi_status_t rsi_dpdk_options_check(const struct rsi_dpdk_options *options, struct rsi_error *error)
{
    enum rsi_dpdk_port_kind kind;
    uint8_t mac[MAC_BYTES];
    const char *name = NULL;
    rsi_status_t status = RSI_OK;
    if (!rsi_text_is_empty(options->port)) {
        name = "dpdk_port";
        status = rsi_dpdk_parse_port(&kind, options->port, error);
    }
    if (status == RSI_OK && !rsi_text_is_empty(options->mac)) {
        name = "dpdk_mac";
        status = rsi_dpdk_parse_mac(mac, options->mac, error);
    }
    if (status == RSI_OK && !rsi_text_is_empty(options->cores)) {
        name = "dpdk_cores";
        status = rsi_dpdk_parse_cores(options->cores, error);
    }
    if (status == RSI_OK && !rsi_text_is_empty(options->file_prefix)) {
        name = "dpdk_file_prefix";
        status = rsi_dpdk_parse_file_prefix(options->file_prefix, error);
    }
    if (status == RSI_OK && !rsi_text_is_empty(options->eal_arguments)) {
        name = "dpdk_eal_arguments";
        status = rsi_dpdk_parse_eal_arguments(options->eal_arguments, error);
    }
    if (status != RSI_OK) {
        rsi_error_context(error, "%s", name);
        return status;
    }
    if (options->mtu != 0 && (options->mtu < RSI_DPDK_MTU_MIN || options->mtu > RSI_DPDK_MTU_MAX)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "dpdk_mtu: %" PRIu32 " is not possible: %u to %u, or 0 for the device's",
                        options->mtu, RSI_DPDK_MTU_MIN, RSI_DPDK_MTU_MAX);
    }
    return check_network(options, error);
}
