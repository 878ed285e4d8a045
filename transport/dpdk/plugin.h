/*
 * The door to DPDK: loads the plugin libringside_dpdk.so when a port is first asked for.
 */
#ifndef RSI_TRANSPORT_DPDK_PLUGIN_H
#define RSI_TRANSPORT_DPDK_PLUGIN_H

#include "transport/dpdk/port.h"

/*
 * Opens the port that the options name. Control thread; the first time it may take a second. Who
 * opens the same configuration again gets the same port, which is counted: close it as often.
 * Options must have passed rsi_dpdk_options_check.
 *
 * Errors: UNSUPPORTED (no plugin, or none of DPDK's libraries), and those of the plugin:
 * NO_DEVICE, PERMISSION, INVALID, ADDRESS, EXISTS, STATE, NO_MEMORY, CPU, SYSTEM.
 */
RSI_MUST_CHECK rsi_status_t rsi_dpdk_plugin_port_open(struct rsi_port **port,
                                                      const struct rsi_dpdk_options *options,
                                                      struct rsi_error *error);

#endif
