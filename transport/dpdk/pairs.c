/*
 * Design notes
 * - A pair that is longer than its room is cut, and then is no known key or number: whoever reads
 * it refuses it by name.
 */
#include "transport/dpdk/pairs.h"

#include <stdio.h>
#include <string.h>

rsi_status_t rsi_port_pair_take(struct rsi_port_pair *pair, const char **rest, const char *ends,
                                const char *whole, struct rsi_error *error)
{
    size_t bytes = strcspn(*rest, ends);
    snprintf(pair->key, sizeof(pair->key), "%.*s", (int)bytes, *rest);
    *rest += bytes;
    char *equals = strchr(pair->key, '=');
    if (equals == NULL) {
        return rsi_fail(error, RSI_E_INVALID, "'%s': '%s' is not key=value", whole, pair->key);
    }
    *equals = '\0';
    pair->value = equals + 1;
    return RSI_OK;
}
