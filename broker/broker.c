/*
 * Design notes
 * - Puts the parts together and takes them apart in the reverse order; it decides nothing else.
 * - The order is fixed by who is woken by whom: the control waker first, then the data plane (which
 * wakes it), then the pollers (which wake both), then the control agent.
 * - Data agents run before anybody can be accepted, and end after the last link was destroyed.
 */
#include "broker/broker.h"

#include "broker/control_agent.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/text.h"
#include "transport/auth.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { URLS_BYTES = RSI_LISTEN_COUNT_MAX * (RSI_SETTING_TEXT_BYTES + 1) };

struct rsi_broker {
    const struct rsi_settings *settings;
    uint64_t incarnation;
    int stop_fd;
    struct rsi_metrics *metrics;
    struct rsi_waker control_waker;
    struct rsi_data_plane *plane;
    struct rsi_data_options data_options;
    struct rsi_endpoints endpoints;
    struct rsi_control_agent control;
    char urls[URLS_BYTES];
};

static void make_data_options(struct rsi_broker *broker)
{
    const struct rsi_settings *settings = broker->settings;
    uint64_t alias_count_max = settings->publisher_count_max < settings->publication_count_max
                                   ? settings->publisher_count_max
                                   : settings->publication_count_max;
    broker->data_options = (struct rsi_data_options){
        .agent_count = (uint32_t)settings->agent_count,
        .idle_strategy = settings->wait,
        .spin_ns = settings->spin_ns,
        .log_bytes = settings->log_bytes,
        .message_bytes_max = settings->message_bytes_max,
        .block_timeout_ns = settings->block_timeout_ns,
        .session_count_max = (uint32_t)settings->client_count_max,
        .publication_count_max = (uint32_t)settings->publication_count_max,
        .topic_count_max = (uint32_t)settings->topic_count_max,
        .alias_count_max = (uint32_t)alias_count_max,
        .walk_seed = settings->walk_seed,
        .last_value_count_max =
            settings->last_value_count > 0 ? (uint32_t)settings->last_value_topics : 0,
        .last_value_bytes = settings->last_value_bytes,
        .control_waker = &broker->control_waker,
    };
    memcpy(broker->data_options.agent_cpus, settings->agent_cpus, sizeof(settings->agent_cpus));
}

static void list_urls(struct rsi_broker *broker)
{
    struct rsi_text urls;
    rsi_text_init(&urls, broker->urls, sizeof(broker->urls));
    for (uint32_t i = 0; i < broker->endpoints.listener_count; i++) {
        const struct rsi_endpoint_listener *listener = &broker->endpoints.listeners[i];
        const char *url = listener->domain->transport->listener_url(listener->listener);
        rsi_text_append(&urls, "%s\n", url);
        rsi_metrics_add_listener(broker->metrics, url);
    }
}

static void warn_of_risks(const struct rsi_settings *settings)
{
    if (settings->token_count == 0) {
        rsi_log_warning("broker", "no tokens are configured: everybody who reaches a listener may "
                                  "publish and subscribe; add tokens to close it");
    }
    if (settings->trusted_fabric) {
        rsi_log_warning("broker", "trusted_fabric is on: on rdma devices without type 2 memory "
                                  "windows every client could write the rings of the others");
    }
}

/* What must be there before the data plane. On failure rsi_broker_destroy undoes what was done. */
static rsi_status_t fill(struct rsi_broker *broker, struct rsi_error *error)
{
    const struct rsi_settings *settings = broker->settings;
    rsi_status_t status = rsi_auth_random(&broker->incarnation, sizeof(broker->incarnation), error);
    if (rsi_failed(status)) {
        return status;
    }
    status = rsi_auth_prepare(error);
    if (rsi_failed(status)) {
        return status;
    }
    broker->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (broker->stop_fd < 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot make an event descriptor; raise the limit with ulimit -n");
    }
    status = rsi_waker_init(&broker->control_waker, error);
    if (!rsi_failed(status)) {
        status = rsi_metrics_create(&broker->metrics, settings, error);
    }
    if (!rsi_failed(status)) {
        status = rsi_data_plane_create(&broker->plane, &broker->data_options, error);
    }
    if (!rsi_failed(status)) {
        status = rsi_endpoints_init(&broker->endpoints, settings, broker->plane,
                                    &broker->control_waker, broker->incarnation, error);
    }
    if (rsi_failed(status)) {
        return status;
    }
    list_urls(broker);
    const struct rsi_control_options options = {
        .settings = settings,
        .plane = broker->plane,
        .data_options = &broker->data_options,
        .endpoints = &broker->endpoints,
        .metrics = broker->metrics,
        .waker = &broker->control_waker,
        .stop_fd = broker->stop_fd,
        .incarnation = broker->incarnation,
    };
    status = rsi_control_agent_init(&broker->control, &options, error);
    if (!rsi_failed(status)) {
        status = rsi_data_plane_start(broker->plane, error);
    }
    return status;
}

rsi_status_t rsi_broker_create(struct rsi_broker **created, const struct rsi_settings *settings,
                               struct rsi_error *error)
{
    struct rsi_broker *broker = calloc(1, sizeof(*broker));
    if (broker == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a broker");
    }
    broker->settings = settings;
    broker->stop_fd = -1;
    rsi_clock_prepare();
    make_data_options(broker);
    rsi_status_t status = fill(broker, error);
    if (rsi_failed(status)) {
        rsi_broker_destroy(broker);
        return status;
    }
    warn_of_risks(settings);
    *created = broker;
    return RSI_OK;
}

rsi_status_t rsi_broker_run(struct rsi_broker *broker, struct rsi_error *error)
{
    return rsi_control_agent_run(&broker->control, error);
}

void rsi_broker_stop(struct rsi_broker *broker)
{
    uint64_t once = 1;
    int kept_errno = errno; /* also called by signal handlers */
    /* Full means 2^64 - 2 stops: then it was told. */
    ssize_t written = write(broker->stop_fd, &once, sizeof(once));
    (void)written;
    errno = kept_errno;
}

void rsi_broker_destroy(struct rsi_broker *broker)
{
    if (broker == NULL) {
        return;
    }
    if (broker->plane != NULL) {
        rsi_data_plane_stop(broker->plane);
    }
    /* Links that could not be closed refer to all the rest: it is left to the end of the process.
     */
    if (broker->control.connections != NULL) {
        return;
    }
    rsi_control_agent_fini(&broker->control);
    rsi_endpoints_fini(&broker->endpoints);
    rsi_data_plane_destroy(broker->plane);
    rsi_metrics_destroy(broker->metrics);
    rsi_waker_fini(&broker->control_waker);
    if (broker->stop_fd >= 0) {
        close(broker->stop_fd);
    }
    free(broker);
}

const char *rsi_broker_urls(const struct rsi_broker *broker)
{
    return broker->urls;
}
