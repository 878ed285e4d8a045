/*
 * The arguments of ports that are made for tests: "drop=1000,seed=7".
 */
#ifndef RSI_TRANSPORT_DPDK_PAIRS_H
#define RSI_TRANSPORT_DPDK_PAIRS_H

#include "core/error.h"

enum { RSI_PORT_PAIR_BYTES = 256 };

struct rsi_port_pair {
    char key[RSI_PORT_PAIR_BYTES]; /* and behind it the value */
    const char *value;
};

/* Takes one "key=value" off `*rest`, up to one of `ends`, which stays. Errors name the whole text.
 */
RSI_MUST_CHECK rsi_status_t rsi_port_pair_take(struct rsi_port_pair *pair, const char **rest,
                                               const char *ends, const char *whole,
                                               struct rsi_error *error);

#endif
