/*
 * Domain, devices, listeners: set-up that is shared by links.
 *
 * Design notes
 * - One rdma_cm event channel per process carries the events of all ids. Each id's context points
 *   to a struct rsi_rdma_context, which says what it is. An event is looked at, then acknowledged;
 *   an id is only destroyed outside of its events, because destroying waits for their
 *   acknowledgement.
 * - Devices are set up when the first id lands on them: rdma_cm chooses the device by address.
 * - A request to connect waits in its listener until the layer above accepts it and names the
 *   poller. One of another protocol version is refused at once, with our greeting, so that both
 *   sides can name both versions.
 */
#include "transport/rdma/rdma_internal.h"

#include "core/cpu.h"
#include "core/log.h"
#include "core/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define NO_DEVICE_MEND                                                                             \
    "attach one in software with 'rdma link add rxe0 type rxe netdev <interface>' (kernel module " \
    "rdma_rxe), try 'deploy/demo --soft-roce' for a machine that has one, or use tcp://"

static bool set_non_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

static bool watch(int epoll_fd, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* ---- devices -------------------------------------------------------------------------------- */

static rsi_status_t devices_check(const char *wanted, struct rsi_error *error)
{
    int count = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    if (list == NULL || count == 0) {
        if (list != NULL) {
            ibv_free_device_list(list);
        }
        return rsi_fail(error, RSI_E_NO_DEVICE, "this machine has no RDMA device: " NO_DEVICE_MEND);
    }
    bool is_found = wanted == NULL;
    char names[256];
    struct rsi_text text;
    rsi_text_init(&text, names, sizeof names);
    for (int i = 0; i < count; i++) {
        rsi_text_append(&text, "%s%s", i == 0 ? "" : ", ", ibv_get_device_name(list[i]));
        is_found = is_found || strcmp(ibv_get_device_name(list[i]), wanted) == 0;
    }
    ibv_free_device_list(list);
    if (!is_found) {
        return rsi_fail(error, RSI_E_NO_DEVICE, "no RDMA device is called %s; this machine has: %s",
                        wanted, names);
    }
    return RSI_OK;
}

static rsi_status_t device_init(struct rsi_rdma_device *device, struct rsi_rdma_domain *domain,
                                struct ibv_context *verbs, struct rsi_error *error)
{
    const char *name = verbs->device->name;
    if (domain->device_name != NULL && strcmp(domain->device_name, name) != 0) {
        return rsi_fail(error, RSI_E_NO_DEVICE,
                        "this address belongs to device %s, but device %s is asked for: use an "
                        "address of that device, or leave the device out",
                        name, domain->device_name);
    }
    int reason = ibv_query_device(verbs, &device->attributes);
    if (reason != 0) {
        return rsi_fail_errno(error, RSI_E_SYSTEM, reason, "device %s does not tell its limits",
                              name);
    }
    device->pd = ibv_alloc_pd(verbs);
    if (device->pd == NULL) {
        return rsi_fail_errno(error, RSI_E_SYSTEM, errno, "device %s has no protection domain left",
                              name);
    }
    device->verbs = verbs;
    device->has_windows = (device->attributes.device_cap_flags &
                           (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B)) != 0;
    device->node = rsi_cpu_node_of_rdma_device(name);
    if (set_non_blocking(verbs->async_fd)) {
        (void)watch(domain->epoll_fd, verbs->async_fd);
    }
    rsi_log_info("rdma", "device %s: %s, NUMA node %d, up to %d completions per queue", name,
                 device->has_windows ? "memory windows of type 2" : "no memory windows of type 2",
                 device->node, device->attributes.max_cqe);
    return RSI_OK;
}

rsi_status_t rsi_rdma_device_find(struct rsi_rdma_device **device, struct rsi_rdma_domain *domain,
                                  struct ibv_context *verbs, struct rsi_error *error)
{
    for (uint32_t i = 0; i < domain->device_count; i++) {
        if (domain->devices[i].verbs == verbs) {
            *device = &domain->devices[i];
            return RSI_OK;
        }
    }
    if (domain->device_count == RSI_RDMA_DEVICE_COUNT_MAX) {
        return rsi_fail(error, RSI_E_LIMIT, "more than %u RDMA devices in use by one process",
                        RSI_RDMA_DEVICE_COUNT_MAX);
    }
    struct rsi_rdma_device made = {0};
    rsi_status_t status = device_init(&made, domain, verbs, error);
    if (status != RSI_OK) {
        return status;
    }
    domain->devices[domain->device_count] = made;
    *device = &domain->devices[domain->device_count++];
    return RSI_OK;
}

static uint32_t device_poll_events(struct rsi_rdma_device *device)
{
    uint32_t handled = 0;
    struct ibv_async_event event;
    while (ibv_get_async_event(device->verbs, &event) == 0) {
        enum ibv_event_type type = event.event_type;
        ibv_ack_async_event(&event);
        handled++;
        rsi_log_distinct(RSI_LOG_WARNING, "rdma", "device %s reports: %s",
                         device->verbs->device->name, ibv_event_type_str(type));
    }
    return handled;
}

/* ---- domain --------------------------------------------------------------------------------- */

uint64_t rsi_rdma_connect_timeout_ns(const struct rsi_domain *domain)
{
    uint64_t wanted = domain->options.connect_timeout_ns;
    return wanted != 0 ? wanted : RSI_RDMA_CONNECT_TIMEOUT_NS;
}

static rsi_status_t channel_create(struct rsi_rdma_domain *domain, struct rsi_error *error)
{
    domain->channel = rdma_create_event_channel();
    if (domain->channel == NULL) {
        int reason = errno;
        if (reason == EMFILE || reason == ENFILE) {
            return rsi_fail_errno(error, RSI_E_NO_DESCRIPTORS, reason,
                                  "cannot open the RDMA connection manager; raise ulimit -n");
        }
        return rsi_fail_errno(error, reason == EACCES ? RSI_E_PERMISSION : RSI_E_NO_DEVICE, reason,
                              "cannot open the RDMA connection manager (/dev/infiniband/rdma_cm); "
                              "load it with 'modprobe rdma_ucm'");
    }
    domain->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (domain->epoll_fd < 0 || !set_non_blocking(domain->channel->fd) ||
        !watch(domain->epoll_fd, domain->channel->fd)) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot watch the RDMA connection manager");
    }
    return RSI_OK;
}

static void domain_destroy(struct rsi_domain *base)
{
    struct rsi_rdma_domain *domain = rsi_rdma_domain_of(base);
    for (uint32_t i = 0; i < domain->device_count; i++) {
        int reason = ibv_dealloc_pd(domain->devices[i].pd);
        if (reason != 0) {
            rsi_log_error("rdma", "device %s keeps a protection domain: %s",
                          domain->devices[i].verbs->device->name, strerror(reason));
        }
    }
    if (domain->epoll_fd >= 0) {
        close(domain->epoll_fd);
    }
    if (domain->channel != NULL) {
        rdma_destroy_event_channel(domain->channel);
    }
    free(domain->device_name);
    free(domain->bind_host);
    free(domain);
}

/* The options outlive the caller's strings. */
static bool domain_copy_options(struct rsi_rdma_domain *domain,
                                const struct rsi_domain_options *options)
{
    domain->base.options = *options;
    if (options->device != NULL && (domain->device_name = strdup(options->device)) == NULL) {
        return false;
    }
    if (options->bind_host != NULL && (domain->bind_host = strdup(options->bind_host)) == NULL) {
        return false;
    }
    domain->base.options.device = domain->device_name;
    domain->base.options.bind_host = domain->bind_host;
    return true;
}

static rsi_status_t domain_create(struct rsi_domain **domain,
                                  const struct rsi_domain_options *options, struct rsi_error *error)
{
    rsi_status_t status = devices_check(options->device, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_rdma_domain *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for the rdma transport");
    }
    made->base.transport = &rsi_rdma_transport;
    made->epoll_fd = -1;
    if (domain_copy_options(made, options)) {
        status = channel_create(made, error);
    } else {
        status = rsi_fail(error, RSI_E_NO_MEMORY, "no memory for the rdma transport");
    }
    if (status != RSI_OK) {
        domain_destroy(&made->base);
        return status;
    }
    *domain = &made->base;
    return RSI_OK;
}

static int domain_fd(struct rsi_domain *domain)
{
    return rsi_rdma_domain_of(domain)->epoll_fd;
}

/* ---- requests to connect -------------------------------------------------------------------- */

void rsi_rdma_greeting_init(struct rsi_greeting *greeting, const struct rsi_domain *domain)
{
    rsi_greeting_init(greeting, &domain->options);
    greeting->control_credit = RSI_RDMA_CONTROL_CREDIT;
    greeting->batch_credit = RSI_RDMA_BATCH_CREDIT;
}

static void reject(struct rdma_cm_id *id, const struct rsi_domain *domain)
{
    struct rsi_greeting greeting;
    rsi_rdma_greeting_init(&greeting, domain);
    (void)rdma_reject(id, &greeting, sizeof(greeting));
}

void rsi_rdma_pending_free(struct rsi_rdma_pending *pending)
{
    free(pending);
}

/* Reads the greeting in a request; what is wrong with it goes into `pending->refusal`. */
static void pending_read(struct rsi_rdma_pending *pending, const struct rdma_conn_param *request,
                         const struct rsi_domain_options *options)
{
    uint32_t bytes = request->private_data == NULL ? 0 : request->private_data_len;
    if (bytes >= sizeof(pending->greeting)) {
        memcpy(&pending->greeting, request->private_data, sizeof(pending->greeting));
    }
    if (rsi_greeting_check(&pending->greeting, bytes, options, &pending->refusal) != RSI_OK) {
        rsi_error_context(&pending->refusal, "refused a connection");
    }
}

static void pending_append(struct rsi_rdma_listener *listener, struct rsi_rdma_pending *pending)
{
    if (listener->last != NULL) {
        listener->last->next = pending;
    } else {
        listener->first = pending;
    }
    listener->last = pending;
    listener->pending_count++;
}

/* Takes the request, or says no; returns an id that must be destroyed once its event is
 * acknowledged. A refusal waits to be accepted too: so the layer above hears of it. */
static struct rdma_cm_id *on_request(struct rsi_rdma_listener *listener,
                                     const struct rdma_cm_event *event)
{
    const struct rsi_domain *domain = listener->base.domain;
    struct rsi_rdma_pending *pending = NULL;
    if (listener->pending_count < RSI_RDMA_PENDING_MAX) {
        pending = calloc(1, sizeof(*pending));
    }
    if (pending == NULL) {
        rsi_log_distinct(RSI_LOG_WARNING, "rdma", "refused a connection: %u wait already",
                         RSI_RDMA_PENDING_MAX);
        reject(event->id, domain);
        return event->id;
    }
    pending->context.kind = RSI_RDMA_CONTEXT_PENDING;
    pending_read(pending, &event->param.conn, &domain->options);
    pending_append(listener, pending);
    if (pending->refusal.status != RSI_OK) {
        reject(event->id, domain);
        return event->id;
    }
    pending->id = event->id;
    event->id->context = &pending->context;
    return NULL;
}

static void on_pending_event(struct rsi_rdma_pending *pending, const struct rdma_cm_event *event)
{
    if (event->event != RDMA_CM_EVENT_TIMEWAIT_EXIT) {
        pending->is_gone = true;
    }
}

/* Handles one event, not acknowledged yet; returns an id to be destroyed after it is. */
static struct rdma_cm_id *on_event(const struct rdma_cm_event *event)
{
    struct rsi_rdma_context *context = event->id->context;
    switch (context->kind) {
    case RSI_RDMA_CONTEXT_LISTENER: {
        struct rsi_rdma_listener *listener =
            rsi_container_of(context, struct rsi_rdma_listener, context);
        if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
            return on_request(listener, event);
        }
        rsi_log_distinct(RSI_LOG_WARNING, "rdma", "listener %s: %s", listener->url,
                         rdma_event_str(event->event));
        return NULL;
    }
    case RSI_RDMA_CONTEXT_PENDING:
        on_pending_event(rsi_container_of(context, struct rsi_rdma_pending, context), event);
        return NULL;
    case RSI_RDMA_CONTEXT_LINK:
        rsi_rdma_link_on_event(rsi_container_of(context, struct rsi_rdma_link, context), event);
        return NULL;
    }
    return NULL;
}

static uint32_t domain_poll_control(struct rsi_domain *base, uint64_t now_ns)
{
    (void)now_ns;
    struct rsi_rdma_domain *domain = rsi_rdma_domain_of(base);
    uint32_t handled = 0;
    struct rdma_cm_event *event = NULL;
    while (rdma_get_cm_event(domain->channel, &event) == 0) {
        struct rdma_cm_id *refused = on_event(event);
        (void)rdma_ack_cm_event(event);
        if (refused != NULL) {
            (void)rdma_destroy_id(refused);
        }
        handled++;
    }
    for (uint32_t i = 0; i < domain->device_count; i++) {
        handled += device_poll_events(&domain->devices[i]);
    }
    return handled;
}

/* ---- listener ------------------------------------------------------------------------------- */

static rsi_status_t listener_bind(struct rsi_rdma_listener *listener, const struct rsi_url *url,
                                  struct rsi_error *error)
{
    struct sockaddr_storage address;
    socklen_t address_bytes = 0;
    rsi_status_t status = rsi_url_resolve(url, true, &address, &address_bytes, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_rdma_domain *domain = rsi_rdma_domain_of(listener->base.domain);
    if (rdma_create_id(domain->channel, &listener->id, &listener->context, RDMA_PS_TCP) != 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot make an RDMA listener");
    }
    if (rdma_bind_addr(listener->id, (struct sockaddr *)&address) != 0) {
        int reason = errno;
        if (reason == EADDRINUSE) {
            return rsi_fail(error, RSI_E_ADDRESS,
                            "%s: the port is in use; choose another, or stop what listens there",
                            listener->url);
        }
        if (reason == EACCES) {
            return rsi_fail(error, RSI_E_PERMISSION,
                            "%s: ports below 1024 need a privilege; choose a higher one",
                            listener->url);
        }
        return rsi_fail_errno(
            error, RSI_E_ADDRESS, reason,
            "%s: the address is not one of an RDMA device here; 'rdma link' shows "
            "which interfaces have one",
            listener->url);
    }
    if (rdma_listen(listener->id, RSI_RDMA_PENDING_MAX) != 0) {
        return rsi_fail_errno(error, errno == EADDRINUSE ? RSI_E_ADDRESS : RSI_E_SYSTEM, errno,
                              "%s: cannot listen", listener->url);
    }
    return RSI_OK;
}

static void pending_refuse_all(struct rsi_rdma_listener *listener)
{
    while (listener->first != NULL) {
        struct rsi_rdma_pending *pending = listener->first;
        listener->first = pending->next;
        if (pending->id != NULL && !pending->is_gone) {
            reject(pending->id, listener->base.domain);
        }
        if (pending->id != NULL) {
            (void)rdma_destroy_id(pending->id);
        }
        rsi_rdma_pending_free(pending);
    }
    listener->last = NULL;
    listener->pending_count = 0;
}

static void listener_destroy(struct rsi_listener *base)
{
    struct rsi_rdma_listener *listener = (struct rsi_rdma_listener *)base;
    pending_refuse_all(listener);
    if (listener->id != NULL) {
        (void)rdma_destroy_id(listener->id);
    }
    free(listener);
}

static rsi_status_t listener_create(struct rsi_listener **listener, struct rsi_domain *domain,
                                    const struct rsi_url *url, struct rsi_error *error)
{
    struct rsi_rdma_listener *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for an rdma listener");
    }
    made->base.transport = &rsi_rdma_transport;
    made->base.domain = domain;
    made->context.kind = RSI_RDMA_CONTEXT_LISTENER;
    rsi_url_format(url, made->url, sizeof(made->url));
    rsi_status_t status = listener_bind(made, url, error);
    if (status != RSI_OK) {
        listener_destroy(&made->base);
        return status;
    }
    struct rsi_url bound = *url;
    bound.port = ntohs(rdma_get_src_port(made->id));
    rsi_url_format(&bound, made->url, sizeof(made->url));
    rsi_log_info("rdma", "listening at %s", made->url);
    *listener = &made->base;
    return RSI_OK;
}

static const char *listener_url(const struct rsi_listener *listener)
{
    return ((const struct rsi_rdma_listener *)listener)->url;
}

/* ---- the transport -------------------------------------------------------------------------- */

static int poller_fd(struct rsi_poller *poller)
{
    return rsi_rdma_poller_of(poller)->epoll_fd;
}

const struct rsi_transport rsi_rdma_transport = {
    .name = "rdma",
    .batch_bytes_max = RSI_RING_BYTES_MAX,
    .peer_is_local = false,
    .domain_create = domain_create,
    .domain_destroy = domain_destroy,
    .domain_fd = domain_fd,
    .domain_poll_control = domain_poll_control,
    .poller_create = rsi_rdma_poller_create,
    .poller_destroy = rsi_rdma_poller_destroy,
    .listener_create = listener_create,
    .listener_destroy = listener_destroy,
    .listener_url = listener_url,
    .link_accept = rsi_rdma_link_accept,
    .link_dial = rsi_rdma_link_dial,
    .link_attach = rsi_rdma_link_attach,
    .link_poll_control = rsi_rdma_link_poll_control,
    .link_close = rsi_rdma_link_close,
    .link_destroy = rsi_rdma_link_destroy,
    .place = rsi_rdma_place,
    .flush = rsi_rdma_flush,
    .publish_consumed = rsi_rdma_publish_consumed,
    .request_wake = rsi_rdma_request_wake,
    .poll_data = rsi_rdma_poll_data,
    .poller_arm = rsi_rdma_poller_arm,
    .poller_disarm = rsi_rdma_poller_disarm,
    .poller_fd = poller_fd,
};
