/*
 * Domain, pollers, listeners, attach, closing.
 *
 * Design notes
 * - A domain has a queue of its own for handshakes; its descriptor is readable when something is in
 *   it. All else comes to the pollers' queues.
 * - The control thread looks at the port too: an idle broker's listener is served by whoever looks
 *   first.
 */
#include "core/assert.h"
#include "core/clock.h"
#include "core/position.h"
#include "core/text.h"
#include "transport/auth.h"
#include "transport/dpdk/dpdk_internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Handshakes of one pass: a flood of them must not hold up what exists. */
#define HANDSHAKES_PER_PASS 64u

/* ---- domain ---------------------------------------------------------------------------------- */

static void domain_free(struct rsi_dpdk_domain *domain)
{
    if (domain->station != NULL) {
        rsi_station_queue_fini(domain->station, &domain->queue);
        rsi_station_release(domain->station);
    }
    free(domain);
}

static rsi_status_t domain_init(struct rsi_dpdk_domain *domain, struct rsi_error *error)
{
    const struct rsi_domain_options *options = &domain->base.options;
    if (options->dpdk == NULL || rsi_text_is_empty(options->dpdk->port)) {
        return rsi_fail(error, RSI_E_NO_DEVICE,
                        "no port is configured for dpdk://; set dpdk_port and dpdk_address");
    }
    rsi_status_t status = rsi_station_acquire(&domain->station, options->dpdk, error);
    if (status == RSI_OK) {
        status = rsi_station_queue_init(domain->station, &domain->queue, error);
    }
    if (status == RSI_OK) {
        status = rsi_auth_random(domain->secret, sizeof(domain->secret), error);
    }
    if (status == RSI_OK) {
        rsi_waker_prepare(&domain->queue.waker);
    }
    return status;
}

static rsi_status_t dpdk_domain_create(struct rsi_domain **domain,
                                       const struct rsi_domain_options *options,
                                       struct rsi_error *error)
{
    struct rsi_dpdk_domain *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a dpdk domain");
    }
    made->base.transport = &rsi_dpdk_transport;
    made->base.options = *options;
    made->connect_timeout_ns = options->connect_timeout_ns != 0 ? options->connect_timeout_ns
                                                                : RSI_DPDK_CONNECT_TIMEOUT_NS;
    rsi_status_t status = domain_init(made, error);
    if (status != RSI_OK) {
        domain_free(made);
        return status;
    }
    made->now_ns = rsi_clock_now_ns();
    *domain = &made->base;
    return RSI_OK;
}

static void dpdk_domain_destroy(struct rsi_domain *domain)
{
    if (domain == NULL) {
        return;
    }
    rsi_assert(rsi_dpdk_domain(domain)->links == NULL);
    domain_free(rsi_dpdk_domain(domain));
}

static int dpdk_domain_fd(struct rsi_domain *domain)
{
    return rsi_dpdk_domain(domain)->queue.waker.fd;
}

/* The descriptor was written since the last time: empties it. By the count and not by what is in
 * the queue: a frame may have been taken before its wake-up came. */
static void hear_waker(struct rsi_dpdk_domain *domain)
{
    uint64_t wakes = rsi_load_relaxed(&domain->queue.waker.wakes);
    if (wakes != domain->wakes_seen) {
        domain->wakes_seen = wakes;
        rsi_waker_finish(&domain->queue.waker);
        rsi_waker_prepare(&domain->queue.waker);
    }
}

static uint32_t dpdk_domain_poll_control(struct rsi_domain *base, uint64_t now_ns)
{
    struct rsi_dpdk_domain *domain = rsi_dpdk_domain(base);
    struct rsi_port *port = domain->station->port;
    if (!domain->has_begun) {
        domain->has_begun = true;
        port->operations->thread_begin(port);
    }
    domain->now_ns = now_ns;
    (void)rsi_station_receive(domain->station, &domain->queue);
    uint32_t count = 0;
    struct rsi_port_frame frame;
    hear_waker(domain);
    while (count < HANDSHAKES_PER_PASS && rsi_station_queue_take(&domain->queue, &frame)) {
        rsi_dpdk_take_handshake(domain, &frame);
        port->operations->release(port, &frame, 1);
        count++;
    }
    if (!rsi_mailbox_is_empty(&domain->queue.frames)) {
        rsi_waker_wake(&domain->queue.waker); /* what is left over */
    }
    return count;
}

/* ---- poller ---------------------------------------------------------------------------------- */

static void poller_free(struct rsi_dpdk_poller *poller)
{
    rsi_dpdk_burst_fini(poller);
    rsi_dpdk_sleep_fini(poller);
    rsi_station_queue_fini(poller->station, &poller->queue);
    rsi_mailbox_fini(&poller->commands);
    free(poller->links);
    free(poller->links_by_index);
    free(poller);
}

static rsi_status_t poller_init(struct rsi_dpdk_poller *poller, struct rsi_error *error)
{
    uint32_t link_count_max = poller->base.link_count_max;
    poller->links = calloc(link_count_max, sizeof(poller->links[0]));
    poller->links_by_index = calloc(RSI_STATION_SLOT_COUNT, sizeof(poller->links_by_index[0]));
    if (poller->links == NULL || poller->links_by_index == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a table of %u links",
                        link_count_max);
    }
    uint32_t slot_count =
        (uint32_t)rsi_round_up_power_of_two((uint64_t)link_count_max * RSI_DPDK_COMMANDS_PER_LINK);
    rsi_status_t status =
        rsi_mailbox_init(&poller->commands, sizeof(struct rsi_dpdk_command), slot_count, error);
    if (status == RSI_OK) {
        status = rsi_station_queue_init(poller->station, &poller->queue, error);
    }
    return status != RSI_OK ? status : rsi_dpdk_sleep_init(poller, error);
}

static rsi_status_t dpdk_poller_create(struct rsi_poller **poller, struct rsi_domain *domain,
                                       const struct rsi_poller_options *options,
                                       struct rsi_error *error)
{
    struct rsi_dpdk_poller *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a dpdk poller");
    }
    made->base.transport = domain->transport;
    made->base.domain = domain;
    made->base.control_waker = options->control_waker;
    made->base.owner_waker = options->owner_waker;
    made->base.link_count_max =
        options->link_count_max != 0 ? options->link_count_max : RSI_DPDK_LINK_COUNT_DEFAULT;
    made->station = rsi_dpdk_domain(domain)->station;
    made->transmit_queue = rsi_dpdk_domain(domain)->poller_count++;
    made->now_ns = rsi_clock_now_ns();
    made->base.spin_ns_min = made->station->port->operations->arm == NULL ? RSI_DPDK_SPIN_NS : 0;
    made->sleep = (struct rsi_dpdk_sleep){.fd = -1, .timer_fd = -1, .port_fd = -1};
    rsi_status_t status = poller_init(made, error);
    if (status != RSI_OK) {
        poller_free(made);
        return status;
    }
    *poller = &made->base;
    return RSI_OK;
}

static void dpdk_poller_destroy(struct rsi_poller *poller)
{
    if (poller == NULL) {
        return;
    }
    rsi_assert(rsi_dpdk_poller(poller)->claimed_count == 0);
    poller_free(rsi_dpdk_poller(poller));
}

void rsi_dpdk_poller_push(struct rsi_dpdk_link *link, enum rsi_dpdk_command_kind kind)
{
    struct rsi_dpdk_poller *poller = rsi_dpdk_poller(link->base.poller);
    struct rsi_dpdk_command command = {.kind = kind, .link = link};
    rsi_status_t status = rsi_mailbox_push(&poller->commands, &command, sizeof(command));
    rsi_assert(status == RSI_OK);
    rsi_waker_wake(&poller->queue.waker);
    rsi_waker_wake(poller->base.owner_waker);
}

/* ---- listener -------------------------------------------------------------------------------- */

/* The host must be this station's address, or say that any will do. */
static rsi_status_t check_host(const struct rsi_station *station, const struct rsi_url *url,
                               struct rsi_error *error)
{
    if (url->host[0] == '\0' || strcmp(url->host, "*") == 0) {
        return RSI_OK;
    }
    struct in_addr own = {.s_addr = htonl(station->address)};
    struct in_addr host;
    if (inet_pton(AF_INET, url->host, &host) == 1 && host.s_addr == own.s_addr) {
        return RSI_OK;
    }
    char text[INET_ADDRSTRLEN];
    (void)inet_ntop(AF_INET, &own, text, sizeof(text));
    return rsi_fail(error, RSI_E_ADDRESS,
                    "cannot listen on dpdk://%s: the port's address is %s (dpdk_address)",
                    url->host, text);
}

static void write_url(struct rsi_dpdk_listener *listener, const struct rsi_station *station)
{
    struct in_addr own = {.s_addr = htonl(station->address)};
    char text[INET_ADDRSTRLEN];
    (void)inet_ntop(AF_INET, &own, text, sizeof(text));
    snprintf(listener->url, sizeof(listener->url), "dpdk://%s:%u", text, listener->port);
}

static rsi_status_t dpdk_listener_create(struct rsi_listener **listener, struct rsi_domain *base,
                                         const struct rsi_url *url, struct rsi_error *error)
{
    struct rsi_dpdk_domain *domain = rsi_dpdk_domain(base);
    rsi_status_t status = check_host(domain->station, url, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_dpdk_listener *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a dpdk listener");
    }
    made->base.transport = &rsi_dpdk_transport;
    made->base.domain = base;
    made->port = url->port;
    status = rsi_station_listen(domain->station, &made->port, &domain->queue, error);
    if (status != RSI_OK) {
        free(made);
        return status;
    }
    write_url(made, domain->station);
    made->next = domain->listeners;
    domain->listeners = made;
    *listener = &made->base;
    return RSI_OK;
}

static void dpdk_listener_destroy(struct rsi_listener *base)
{
    if (base == NULL) {
        return;
    }
    struct rsi_dpdk_listener *listener = (struct rsi_dpdk_listener *)(void *)base;
    struct rsi_dpdk_domain *domain = rsi_dpdk_domain(base->domain);
    rsi_station_unlisten(domain->station, listener->port);
    rsi_dpdk_listener_refuse_all(listener);
    struct rsi_dpdk_listener **place = &domain->listeners;
    while (*place != listener) {
        place = &(*place)->next;
    }
    *place = listener->next;
    free(listener);
}

static const char *dpdk_listener_url(const struct rsi_listener *listener)
{
    return ((const struct rsi_dpdk_listener *)(const void *)listener)->url;
}

/* ---- attach ---------------------------------------------------------------------------------- */

static rsi_status_t dpdk_link_attach(struct rsi_link *link, const struct rsi_link_rings *rings,
                                     struct rsi_error *error)
{
    rsi_status_t status = rsi_link_rings_make(link, rings, error);
    if (status != RSI_OK) {
        return status;
    }
    rsi_dpdk_link(link)->rings = *rings;
    rsi_link_set_state(link, RSI_LINK_ATTACHING);
    rsi_dpdk_poller_push(rsi_dpdk_link(link), RSI_DPDK_COMMAND_ATTACH);
    return RSI_OK;
}

/* ---- closing --------------------------------------------------------------------------------- */

static void dpdk_link_close(struct rsi_link *base)
{
    struct rsi_dpdk_link *link = rsi_dpdk_link(base);
    enum rsi_link_state state = rsi_link_state(base);
    if (state == RSI_LINK_CLOSING || state == RSI_LINK_CLOSED) {
        return;
    }
    rsi_link_set_state(base, RSI_LINK_CLOSING);
    if (link->is_handed_over) {
        uint64_t now_ns =
            rsi_pos_max(rsi_dpdk_domain(base->poller->domain)->now_ns, rsi_clock_now_ns());
        link->close_deadline_ns = now_ns + RSI_DPDK_CLOSE_NS;
        rsi_dpdk_poller_push(link, RSI_DPDK_COMMAND_REMOVE);
    } else {
        rsi_dpdk_connect_stop(link);
    }
}

static void close_step(struct rsi_dpdk_link *link, uint64_t now_ns)
{
    /* Pairs with the release in release_link. */
    if (link->is_handed_over && !rsi_load_acquire(&link->crossing.released)) {
        if (now_ns >= link->close_deadline_ns) {
            /* nothing else tells a sleeper that time is up */
            rsi_waker_wake(link->base.poller->owner_waker);
        }
        return;
    }
    rsi_dpdk_link_unclaim(link);
    rsi_link_set_state(&link->base, RSI_LINK_CLOSED);
}

static void dpdk_link_poll_control(struct rsi_link *base, uint64_t now_ns)
{
    struct rsi_dpdk_link *link = rsi_dpdk_link(base);
    switch (rsi_link_state(base)) {
    case RSI_LINK_CONNECTING:
        rsi_dpdk_connect_step(link, now_ns);
        break;
    case RSI_LINK_OPEN:
    case RSI_LINK_ATTACHED:
        (void)rsi_link_take_failure(base);
        break;
    case RSI_LINK_ATTACHING:
        /* Pairs with the release in rsi_dpdk_try_attached. */
        if (!rsi_link_take_failure(base) && rsi_load_acquire(&link->crossing.attached)) {
            rsi_link_set_state(base, RSI_LINK_ATTACHED);
        }
        break;
    case RSI_LINK_CLOSING:
        close_step(link, now_ns);
        break;
    case RSI_LINK_LOST:
    case RSI_LINK_CLOSED:
        break;
    }
}

/* ---- table ----------------------------------------------------------------------------------- */

const struct rsi_transport rsi_dpdk_transport = {
    .name = "dpdk",
    .batch_bytes_max = RSI_RING_BYTES_MAX,
    .peer_is_local = false,
    .polls_by_system_call = false,

    .domain_create = dpdk_domain_create,
    .domain_destroy = dpdk_domain_destroy,
    .domain_fd = dpdk_domain_fd,
    .domain_poll_control = dpdk_domain_poll_control,
    .poller_create = dpdk_poller_create,
    .poller_destroy = dpdk_poller_destroy,
    .listener_create = dpdk_listener_create,
    .listener_destroy = dpdk_listener_destroy,
    .listener_url = dpdk_listener_url,
    .link_accept = rsi_dpdk_link_accept,
    .link_dial = rsi_dpdk_link_dial,
    .link_attach = dpdk_link_attach,
    .link_poll_control = dpdk_link_poll_control,
    .link_close = dpdk_link_close,
    .link_destroy = rsi_dpdk_link_destroy,

    .place = rsi_link_place_in_ring,
    .flush = rsi_dpdk_flush,
    .publish_consumed = rsi_dpdk_publish_consumed,
    .request_wake = rsi_dpdk_request_wake,
    .poll_data = rsi_dpdk_poll_data,
    .poller_arm = rsi_dpdk_poller_arm,
    .poller_disarm = rsi_dpdk_poller_disarm,
    .poller_fd = rsi_dpdk_poller_fd,
};
