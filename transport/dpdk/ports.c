/*
 * Design notes
 * - What a port's text begins with says what it is: a fault layer around another one, a virtual
 *   one, or a device, which is the plugin's.
 */
#include "core/text.h"
#include "transport/dpdk/fault.h"
#include "transport/dpdk/plugin.h"
#include "transport/dpdk/station.h"
#include "transport/dpdk/virtual.h"

static rsi_status_t open_plain(struct rsi_port **port, const struct rsi_dpdk_options *options,
                               struct rsi_error *error)
{
    if (!rsi_virtual_port_is_named(options->port)) {
        return rsi_dpdk_plugin_port_open(port, options, error);
    }
    uint8_t mac[RSI_MAC_BYTES];
    bool has_mac = !rsi_text_is_empty(options->mac);
    rsi_status_t status = has_mac ? rsi_dpdk_parse_mac(mac, options->mac, error) : RSI_OK;
    return status != RSI_OK
               ? status
               : rsi_virtual_port_open(port, options->port, has_mac ? mac : NULL, error);
}

rsi_status_t rsi_dpdk_port_open(struct rsi_port **port, const struct rsi_dpdk_options *options,
                                struct rsi_error *error)
{
    const char *inner_text;
    if (!rsi_fault_port_is_named(options->port, &inner_text)) {
        return open_plain(port, options, error);
    }
    struct rsi_dpdk_options inner_options = *options;
    inner_options.port = inner_text;
    struct rsi_port *inner;
    rsi_status_t status = open_plain(&inner, &inner_options, error);
    if (status != RSI_OK) {
        return status;
    }
    status = rsi_fault_port_open(port, options->port, inner, error);
    if (status != RSI_OK) {
        inner->operations->close(inner);
    }
    return status;
}
