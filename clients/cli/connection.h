/*
 * How a command reaches its broker: the flags that all commands share, and connecting with them.
 */
#ifndef RSI_CLI_CONNECTION_H
#define RSI_CLI_CONNECTION_H

#include "clients/c/ringside.h"

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

struct rsi_connection_options {
    const char *url;
    const char *client_name;
    const char *bind_host;
    const char *device;
    ringside_dpdk_t dpdk;
    const char *token_name;
    const char *token_file;
    char token[256];
    ringside_wait_t wait;
    int cpu; /* -1: not pinned */
    uint64_t publish_ring_bytes;
    uint64_t deliver_ring_bytes;
    uint64_t timeout_ns;        /* of connecting, subscribing, flushing */
    uint64_t resume_timeout_ns; /* 0: the library's; UINT64_MAX: not at all */
};

/* A child parser; its input is a ringside_dpdk_t. */
extern const struct argp rsi_dpdk_argp;
/* A child parser; its input is a struct rsi_connection_options, which it fills with defaults. */
extern const struct argp rsi_connection_argp;
/* The one entry of the children of a command's parser: the flags stand last in its help. */
extern const struct argp_child rsi_connection_children[];

/* What a command does over its connection; a ring that it does not need is not made. */
enum rsi_connection_use {
    RSI_CONNECTION_PUBLISHES = 1,
    RSI_CONNECTION_SUBSCRIBES = 2,
    RSI_CONNECTION_BOTH = 3,
};

/*
 * Pins the thread where that was asked for, and connects. NULL: failed, and standard error says
 * why. `on_event` may be NULL: then gaps and the end of the connection are told on standard error.
 */
ringside_client_t *rsi_connection_open(const struct rsi_connection_options *options,
                                       enum rsi_connection_use use, ringside_on_event_t on_event,
                                       void *arg);
/* Tells gaps and the end of the connection on standard error; arg is not used. */
void rsi_connection_tell_event(void *arg, const ringside_event_t *event);
/* Closes within the options' time-out; returns an exit code and says why when it is not 0. */
int rsi_connection_close(const struct rsi_connection_options *options, ringside_client_t *client);

/* Subscribes, or says why not and returns NULL. */
ringside_subscription_t *rsi_connection_subscribe(const struct rsi_connection_options *options,
                                                  ringside_client_t *client, const char *pattern,
                                                  ringside_policy_t policy,
                                                  ringside_on_message_t on_message, void *arg);
/* The same with options, of which the time-out is filled in. */
ringside_subscription_t *
rsi_connection_subscribe_with(const struct rsi_connection_options *options,
                              ringside_client_t *client, const char *pattern,
                              const ringside_subscribe_options_t *subscribe_options,
                              ringside_on_message_t on_message, void *arg);
/* Makes a publisher, or says why not and returns NULL. */
ringside_publisher_t *rsi_connection_make_publisher(ringside_client_t *client, const char *subject,
                                                    uint64_t timeout_ns);
/*
 * Publishes one message and waits for room where there is none. False: the connection failed (said
 * on standard error) or a stop was requested before it was taken.
 */
bool rsi_connection_publish(ringside_client_t *client, ringside_publisher_t *publisher,
                            const void *data, size_t bytes);
/* The same with headers. */
bool rsi_connection_publish_with(ringside_client_t *client, ringside_publisher_t *publisher,
                                 const ringside_header_t *headers, size_t header_count,
                                 const void *data, size_t bytes);

/* Writes "ready" to standard output or, when it is not negative, to `fd`. */
void rsi_tell_ready(int fd, bool on_stdout);

/* "tcp: 12 sends for 1000 messages (0.01 each), 12 batches, ..." on `stream`. */
void rsi_print_link_stats(FILE *stream, const ringside_client_t *client, uint64_t message_count);

#endif
