/* Publishers by subject, made when a subject comes first. */
#ifndef RSI_CLI_PUBLISHERS_H
#define RSI_CLI_PUBLISHERS_H

#include "clients/c/ringside.h"

#include <stddef.h>
#include <stdint.h>

struct rsi_publisher_entry;

struct rsi_publishers {
    ringside_client_t *client;
    uint64_t timeout_ns; /* of making one */
    size_t count_max;
    struct rsi_publisher_entry *entries;
};

/* Nothing to free before the first find. The client stays the caller's. */
void rsi_publishers_init(struct rsi_publishers *publishers, ringside_client_t *client,
                         size_t count_max, uint64_t timeout_ns);
/* Frees the table; the publishers go with their client. Takes a zeroed one. */
void rsi_publishers_fini(struct rsi_publishers *publishers);
/* NULL: it could not be made, and standard error says why. */
ringside_publisher_t *rsi_publishers_find(struct rsi_publishers *publishers, const char *subject,
                                          size_t subject_bytes);
size_t rsi_publishers_count(const struct rsi_publishers *publishers);

#endif
