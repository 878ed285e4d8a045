/*
 * The control agent: accepts, authenticates, serves requests, tears down. It owns every
 * control-plane call of every transport, and is the thread that calls rsi_control_agent_run.
 */
#ifndef RSI_BROKER_CONTROL_AGENT_H
#define RSI_BROKER_CONTROL_AGENT_H

#include "broker/catalogue.h"
#include "broker/connection.h"
#include "broker/ended.h"
#include "broker/endpoints.h"
#include "broker/metrics.h"

enum rsi_control_phase {
    RSI_CONTROL_RUNNING,  /* accepts and serves */
    RSI_CONTROL_DRAINING, /* no listeners, no new requests; what arrived is being delivered */
    RSI_CONTROL_PARTING,  /* every connection is being ended */
    RSI_CONTROL_ENDED,    /* no connection is left */
};

struct rsi_control_agent {
    /* Borrowed, constant after init. */
    const struct rsi_settings *settings;
    struct rsi_data_plane *plane;
    struct rsi_data_options data_options;
    struct rsi_endpoints *endpoints;
    struct rsi_metrics *metrics;
    struct rsi_waker *waker;
    int stop_fd; /* eventfd: how often a stop was asked for */
    uint64_t incarnation;

    /* Own. */
    int epoll_fd;
    struct rsi_catalogue catalogue;
    struct rsi_connection *connections; /* list */
    uint32_t connection_count;
    /* Zeroed memory for the next connection, there before a link is accepted: a link cannot be let
     * go of without somebody who waits for its end. NULL: to be made. */
    struct rsi_connection *spare;
    struct rsi_ended ended; /* sessions that are over, and why */
    uint32_t next_agent;    /* home of the next link */
    uint32_t member_count;  /* subscriptions with a queue group */
    uint64_t last_session_id;
    struct rsi_broker_counts counts;
    uint64_t next_update_ns; /* of the metrics */

    enum rsi_control_phase phase;
    uint64_t stop_request_count;
    uint64_t phase_deadline_ns;
    uint64_t stop_ticket;
    bool is_stop_posted;
    bool is_plane_ended;    /* its threads had to be ended before all links were closed */
    uint32_t cut_off_count; /* sessions that did not get all in time */
};

/* What rsi_control_agent_init borrows. */
struct rsi_control_options {
    const struct rsi_settings *settings;
    struct rsi_data_plane *plane;
    const struct rsi_data_options *data_options;
    struct rsi_endpoints *endpoints;
    struct rsi_metrics *metrics;
    struct rsi_waker *waker;
    int stop_fd;
    uint64_t incarnation;
};

RSI_MUST_CHECK rsi_status_t rsi_control_agent_init(struct rsi_control_agent *control,
                                                   const struct rsi_control_options *options,
                                                   struct rsi_error *error);
/* The data plane has stopped and run has returned or was never called. Takes a zeroed one. */
void rsi_control_agent_fini(struct rsi_control_agent *control);

/*
 * Works until a stop was asked for and is done. OK: all that was taken was delivered. TIMED_OUT:
 * the drain time ran out; the text says how many sessions were cut off. SYSTEM: it cannot wait for
 * events.
 */
RSI_MUST_CHECK rsi_status_t rsi_control_agent_run(struct rsi_control_agent *control,
                                                  struct rsi_error *error);

#endif
