/*
 * Over dpdk://, each of bench's processes is a host of its own.
 *
 * Design notes
 * - Two processes cannot be one host: both would answer for its address. So the address goes up by
 *   one with each process, and the device may do so too.
 * - An address or prefix that cannot be read is passed on as it is: libringside says what is wrong
 *   with it. Only what counting up makes of it is this file's to refuse.
 */
#include "clients/cli/bench.h"
#include "core/text.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct address {
    uint32_t first; /* host byte order */
    uint32_t prefix_bits;
};

/* The flag, or what libringside would read instead of it. */
static const char *given(const char *flag, const char *variable)
{
    return flag != NULL ? flag : getenv(variable);
}

static bool read_address(struct address *address, const char *text)
{
    return text != NULL &&
           !rsi_failed(rsi_parse_ipv4_prefix(&address->first, &address->prefix_bits, text, NULL));
}

/* From the first address to the last that a host may have. */
static uint32_t count_addresses(const struct address *address)
{
    uint32_t host_mask = UINT32_MAX >> address->prefix_bits;
    uint32_t last = (address->first | host_mask) - (address->prefix_bits < 31 ? 1 : 0);
    return last >= address->first ? last - address->first + 1 : 0;
}

bool rsi_bench_device_check(const ringside_dpdk_t *dpdk, uint32_t process_count,
                            struct rsi_error *error)
{
    struct address address;
    const char *text = given(dpdk->address, "RINGSIDE_DPDK_ADDRESS");
    if (!read_address(&address, text) || count_addresses(&address) >= process_count) {
        return true;
    }
    (void)rsi_fail(error, RSI_E_INVALID,
                   "%s begins %" PRIu32 " addresses, but each of %" PRIu32
                   " processes needs one; begin lower, or with a shorter prefix",
                   text, count_addresses(&address), process_count);
    return false;
}

/* A '%' becomes the number. False: there is none, or it gets too long. */
static bool write_number(char *out, size_t out_bytes, const char *text, uint32_t index)
{
    size_t at = 0;
    if (text == NULL || strchr(text, '%') == NULL) {
        return false;
    }
    for (; *text != '\0' && at < out_bytes; text++) {
        int count = *text == '%' ? snprintf(out + at, out_bytes - at, "%" PRIu32, index)
                                 : snprintf(out + at, out_bytes - at, "%c", *text);
        at += (size_t)count;
    }
    return at < out_bytes;
}

void rsi_bench_device_choose(struct rsi_bench_device *device, ringside_dpdk_t *dpdk, uint32_t index)
{
    struct address address;
    if (read_address(&address, given(dpdk->address, "RINGSIDE_DPDK_ADDRESS"))) {
        struct in_addr own = {.s_addr = htonl(address.first + index)};
        char host[INET_ADDRSTRLEN] = "";
        (void)inet_ntop(AF_INET, &own, host, sizeof(host));
        snprintf(device->address, sizeof(device->address), "%s/%" PRIu32, host,
                 address.prefix_bits);
        dpdk->address = device->address;
    }
    if (write_number(device->port, sizeof(device->port), given(dpdk->port, "RINGSIDE_DPDK_PORT"),
                     index)) {
        dpdk->port = device->port;
    }
    if (write_number(device->mac, sizeof(device->mac), given(dpdk->mac, "RINGSIDE_DPDK_MAC"),
                     index)) {
        dpdk->mac = device->mac;
    }
}
