/*
 * The life of a link, on the control thread.
 *
 * Design notes
 * - Dialled: resolve address, resolve route, queue pair, connect, ESTABLISHED, OPEN.
 *   Accepted: queue pair, accept, ESTABLISHED, OPEN. Each step is begun by the event that ended the
 * one before, all under one deadline.
 * - The end is one path, whatever began it (close, a failure of the data plane, the peer's CLOSE,
 *   rdma_cm's DISCONNECTED): halt, drain, and then LOST or the tear-down. Halting puts the queue
 *   pair into error and tells the peer; draining is the owner thread's and ends when every posted
 *   work request has come back. So when a link is LOST all that arrived is readable, and nothing
 *   is freed that a device may still write: modifying a queue pair to error alone is no barrier.
 * - The order of the tear-down is fixed: window, queue pair, regions, id, and at last the memory,
 *   which counts as quiet only when its region is gone.
 * - The minimum RNR timer is set by hand, because rdma_cm leaves it at 655 ms.
 */
#include "transport/rdma/rdma_internal.h"

#include "core/assert.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Reasons of a CM REJ that are told in words; the numbers are InfiniBand's. */
enum { REJECT_NOBODY_LISTENS = 8, REJECT_BY_PEER = 28 };

static struct rsi_rdma_domain *domain_of(const struct rsi_rdma_link *link)
{
    return rsi_rdma_domain_of(link->base.poller->domain);
}

/* ---- making and unmaking -------------------------------------------------------------------- */

static rsi_status_t link_create(struct rsi_rdma_link **link, struct rsi_poller *poller,
                                struct rsi_error *error)
{
    struct rsi_rdma_link *made = rsi_link_alloc(sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a link");
    }
    rsi_status_t status = rsi_link_init(&made->base, &rsi_rdma_transport, poller, error);
    if (status != RSI_OK) {
        goto free_link;
    }
    status = rsi_rdma_slot_reserve(rsi_rdma_poller_of(poller), error);
    if (status != RSI_OK) {
        goto fini_link;
    }
    made->context.kind = RSI_RDMA_CONTEXT_LINK;
    made->deadline_ns = rsi_clock_now_ns() + rsi_rdma_connect_timeout_ns(poller->domain);
    *link = made;
    return RSI_OK;

fini_link:
    rsi_link_fini(&made->base);
free_link:
    rsi_link_free(made);
    return status;
}

/* Whether the link failed because the peer's device does not answer. */
static bool is_silent(const struct rsi_rdma_link *link)
{
    return rsi_load_acquire(&link->base.failed) && link->data.peer_is_silent;
}

static void id_destroy(struct rsi_rdma_link *link)
{
    if (link->id != NULL && rdma_destroy_id(link->id) != 0) {
        rsi_log_distinct(RSI_LOG_ERROR, "rdma", "the connection manager keeps an id: %s",
                         strerror(errno));
    }
    link->id = NULL;
}

/*
 * Gives back all that the device and rdma_cm have of the link. The owner thread has let go of it.
 * To destroy an id says to the peer that this end is gone, as the kernel does for a process that
 * ends. Over a wire that is just silent, one way or only for now, the peer would hear that and end
 * a session that is about to go on elsewhere: there the id lives as long as the link.
 */
static void link_unmake(struct rsi_rdma_link *link)
{
    rsi_rdma_window_fini(&link->in_region);
    if (link->id != NULL && link->id->qp != NULL) {
        rdma_destroy_qp(link->id);
    }
    rsi_rdma_regions_fini(link);
    if (!is_silent(link)) {
        id_destroy(link);
    }
    if (link->queue != NULL) {
        link->queue->link_count--;
    }
    link->queue = NULL;
    rsi_rdma_poller_of(link->base.poller)->link_count--;
}

void rsi_rdma_link_destroy(struct rsi_link *base)
{
    struct rsi_rdma_link *link = rsi_rdma_link_of(base);
    rsi_assert(rsi_link_state(base) == RSI_LINK_CLOSED);
    id_destroy(link);
    rsi_rdma_memory_fini(link);
    rsi_link_fini(base);
    rsi_link_free(link);
}

/* For a link that was never handed out. */
static void link_discard(struct rsi_rdma_link *link)
{
    link_unmake(link);
    id_destroy(link);
    rsi_rdma_memory_fini(link);
    rsi_link_fini(&link->base);
    rsi_link_free(link);
}

/* ---- queue pair ----------------------------------------------------------------------------- */

static rsi_status_t qp_create(struct rsi_rdma_link *link, struct rsi_error *error)
{
    static const uint32_t inline_wishes[] = {RSI_RDMA_INLINE_BYTES, 128, 64, 16, 0};
    int reason = 0;
    for (size_t i = 0; i < rsi_array_count(inline_wishes); i++) {
        struct ibv_qp_init_attr wish = {
            .send_cq = link->queue->cq,
            .recv_cq = link->queue->cq,
            .qp_type = IBV_QPT_RC,
            .cap =
                {
                    .max_send_wr = RSI_RDMA_SEND_COUNT,
                    .max_recv_wr = RSI_RDMA_RECEIVE_COUNT,
                    .max_send_sge = 1,
                    .max_recv_sge = 1,
                    .max_inline_data = inline_wishes[i],
                },
        };
        if (rdma_create_qp(link->id, link->device->pd, &wish) == 0) {
            link->data.way.inline_bytes_max = wish.cap.max_inline_data;
            return RSI_OK;
        }
        reason = errno;
        if (reason != EINVAL) {
            break;
        }
    }
    if (reason == ENOMEM || reason == EAGAIN || reason == EPERM) {
        return rsi_fail_errno(error, RSI_E_NO_MEMORY_LOCK, reason,
                              "device %s gives no queue pair: raise the memlock limit (ulimit -l)",
                              link->device->verbs->device->name);
    }
    return rsi_fail_errno(
        error, RSI_E_SYSTEM, reason, "device %s gives no queue pair of %u sends and %u receives",
        link->device->verbs->device->name, RSI_RDMA_SEND_COUNT, RSI_RDMA_RECEIVE_COUNT);
}

static rsi_status_t receives_post(struct rsi_rdma_link *link, struct rsi_error *error)
{
    struct rsi_rdma_data *data = &link->data;
    for (uint32_t i = 0; i + 1 < RSI_RDMA_RECEIVE_COUNT; i++) {
        data->receives[i].next = &data->receives[i + 1];
    }
    data->receives[RSI_RDMA_RECEIVE_COUNT - 1].next = NULL;
    struct ibv_recv_wr *bad = NULL;
    int reason = ibv_post_recv(link->id->qp, data->receives, &bad);
    if (reason != 0) {
        return rsi_fail_errno(error, RSI_E_SYSTEM, reason > 0 ? reason : errno,
                              "device %s takes no receives", link->device->verbs->device->name);
    }
    data->receive_count = RSI_RDMA_RECEIVE_COUNT;
    data->qp = link->id->qp;
    data->batch_taken_count = RSI_RDMA_BATCH_CREDIT;
    data->told_batch_count = RSI_RDMA_BATCH_CREDIT;
    data->credit.own_limit = RSI_RDMA_CONTROL_CREDIT;
    return RSI_OK;
}

/* Largest WRITE of the port, cut to what keeps positions aligned. */
static uint64_t write_bytes_max(const struct rsi_rdma_link *link)
{
    struct ibv_port_attr port;
    if (ibv_query_port(link->id->verbs, link->id->port_num, &port) != 0) {
        return 1u << 20; /* every device can do this much */
    }
    uint64_t bytes = port.max_msg_sz & ~7u;
    return bytes > 0 ? bytes : 1u << 20;
}

/* The id has a device: queue pair, buffers, receives, and the link joins its poller's table. */
static rsi_status_t link_equip(struct rsi_rdma_link *link, struct rsi_error *error)
{
    struct rsi_rdma_poller *poller = rsi_rdma_poller_of(link->base.poller);
    rsi_status_t status =
        rsi_rdma_device_find(&link->device, domain_of(link), link->id->verbs, error);
    if (status != RSI_OK) {
        return status;
    }
    link->slot = rsi_rdma_slot_find(poller);
    status = rsi_rdma_queue_find(&link->queue, poller, link->device, error);
    if (status != RSI_OK) {
        return status;
    }
    link->queue->link_count++;
    status = rsi_rdma_buffers_init(link, error);
    if (status != RSI_OK) {
        return status;
    }
    status = qp_create(link, error);
    if (status != RSI_OK) {
        return status;
    }
    link->qp_number = link->id->qp->qp_num;
    link->data.way.write_bytes_max = write_bytes_max(link);
    status = receives_post(link, error);
    if (status != RSI_OK) {
        return status;
    }
    link->is_listed = true;
    /* Pairs with the acquire in poll_data. */
    rsi_store_release(&poller->slots[link->slot], link);
    if (link->slot >= rsi_load_relaxed(&poller->slot_limit)) {
        rsi_store_release(&poller->slot_limit, link->slot + 1);
    }
    rsi_waker_wake(poller->base.owner_waker);
    return RSI_OK;
}

static void set_rnr_timer(const struct rsi_rdma_link *link)
{
    struct ibv_qp_attr attributes = {.min_rnr_timer = RSI_RDMA_MIN_RNR_TIMER};
    int reason = ibv_modify_qp(link->id->qp, &attributes, IBV_QP_MIN_RNR_TIMER);
    if (reason != 0) {
        RSI_LOG_ONCE(RSI_LOG_WARNING, "rdma",
                     "device %s keeps its minimum RNR timer (%s): a receive that is missing costs "
                     "up to 655 ms",
                     link->device->verbs->device->name, strerror(reason));
    }
}

static void describe(struct rsi_rdma_link *link)
{
    struct rsi_link *base = &link->base;
    rsi_address_format(rdma_get_peer_addr(link->id), base->peer_text, sizeof(base->peer_text));
    char address[64];
    rsi_address_format(rdma_get_local_addr(link->id), address, sizeof(address));
    struct ibv_qp_attr attributes;
    struct ibv_qp_init_attr init;
    if (ibv_query_qp(link->id->qp, &attributes, IBV_QP_AV | IBV_QP_PATH_MTU, &init) != 0) {
        memset(&attributes, 0, sizeof(attributes));
    }
    int mtu_bytes = attributes.path_mtu == 0 ? 0 : 128 << (int)attributes.path_mtu;
    int gid_index = attributes.ah_attr.grh.sgid_index;
    struct rsi_text text;
    rsi_text_init(&text, base->local_text, sizeof(base->local_text));
    rsi_text_append(&text, "%s on %s port %d gid %d mtu %d", address,
                    link->device->verbs->device->name, link->id->port_num, gid_index, mtu_bytes);
    union ibv_gid gid = {0};
    char gid_text[INET6_ADDRSTRLEN] = "?";
    if (ibv_query_gid(link->id->verbs, link->id->port_num, gid_index, &gid) == 0) {
        (void)inet_ntop(AF_INET6, gid.raw, gid_text, sizeof(gid_text));
    }
    rsi_log_info("rdma", "link %" PRIu64 ": %s (%s) to %s, up to %u bytes inline", base->id,
                 base->local_text, gid_text, base->peer_text, link->data.way.inline_bytes_max);
}

/* ---- the end -------------------------------------------------------------------------------- */

static bool is_halted(const struct rsi_rdma_link *link)
{
    return rsi_load_relaxed(&link->crossing.is_halted);
}

static bool is_drained(const struct rsi_rdma_link *link)
{
    /* Pairs with the release by which the owner thread lets go. */
    return !link->is_listed || rsi_load_acquire(&link->crossing.is_drained);
}

/* Puts the queue pair into error and tells the peer. From here on the owner thread only drains. */
static void halt(struct rsi_rdma_link *link, uint64_t now_ns)
{
    if (!link->is_listed || is_halted(link)) {
        return;
    }
    /* First, so that the owner thread does not take the flushed completions for a failure. */
    rsi_store_release(&link->crossing.is_ending, true);
    struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_ERR};
    int reason = ibv_modify_qp(link->id->qp, &attributes, IBV_QP_STATE);
    if (reason != 0) {
        rsi_log_distinct(RSI_LOG_ERROR, "rdma", "a queue pair does not go into error: %s",
                         strerror(reason));
    }
    /* Over a wire that is dead rdma_disconnect goes on saying it until the wire is mended, and the
     * peer would take it for the end of this process. */
    if (link->is_established && !is_silent(link)) {
        (void)rdma_disconnect(link->id); /* fails when the peer was faster: nothing is lost */
    }
    link->deadline_ns = now_ns + RSI_RDMA_DRAIN_NS;
    rsi_store_release(&link->crossing.is_halted, true);
    rsi_waker_wake(link->base.poller->owner_waker);
}

/* The link is LOST as soon as all that arrived is readable. The first reason stands. */
static void begin_loss(struct rsi_rdma_link *link, const struct rsi_error *reason, uint64_t now_ns)
{
    if (link->is_losing) {
        return;
    }
    link->loss = *reason;
    link->is_losing = true;
    if (rsi_link_state(&link->base) == RSI_LINK_CONNECTING) {
        rsi_link_lose_error(&link->base, reason); /* nothing can have arrived */
    }
    halt(link, now_ns);
}

static void lose(struct rsi_rdma_link *link, rsi_status_t status, const char *text)
{
    struct rsi_error error = {0};
    (void)rsi_fail(&error, status, "%s", text);
    begin_loss(link, &error, rsi_clock_now_ns());
}

static void finish_loss(struct rsi_rdma_link *link, uint64_t now_ns)
{
    if (!is_drained(link) && now_ns < link->deadline_ns) {
        return;
    }
    bool has_failed = rsi_load_acquire(&link->base.failed);
    bool is_closed = rsi_load_acquire(&link->crossing.peer_closed);
    /* What follows a CLOSE (a write that was not answered, say) is its consequence. */
    if (has_failed && (!is_closed || link->base.failure.status == RSI_E_PROTOCOL)) {
        (void)rsi_link_take_failure(&link->base);
    } else if (is_closed) {
        rsi_link_lose(&link->base, RSI_E_LINK_CLOSED, "the peer closed the link%s%s",
                      link->peer_reason[0] != 0 ? ": " : "", link->peer_reason);
    } else {
        link->base.peer_has_ended = link->peer_hung_up;
        rsi_link_lose_error(&link->base, &link->loss);
    }
}

static void close_step(struct rsi_rdma_link *link, uint64_t now_ns)
{
    struct rsi_rdma_crossing *crossing = &link->crossing;
    if (link->is_listed && !is_halted(link)) {
        bool is_told = !rsi_load_relaxed(&crossing->wants_close) ||
                       rsi_load_acquire(&crossing->close_sent) ||
                       rsi_load_acquire(&crossing->peer_closed) ||
                       rsi_load_acquire(&link->base.failed) || link->is_disconnected;
        if (is_told || now_ns >= link->deadline_ns) {
            halt(link, now_ns);
        }
    }
    if (!is_drained(link)) {
        if (is_halted(link) && now_ns >= link->deadline_ns && !link->has_complained) {
            link->has_complained = true;
            rsi_log_error("rdma",
                          "link %" PRIu64 " to %s cannot be freed: its thread does not poll",
                          link->base.id, link->base.peer_text);
        }
        return;
    }
    link_unmake(link);
    rsi_link_set_state(&link->base, RSI_LINK_CLOSED);
}

void rsi_rdma_link_close(struct rsi_link *base)
{
    struct rsi_rdma_link *link = rsi_rdma_link_of(base);
    enum rsi_link_state state = rsi_link_state(base);
    if (state == RSI_LINK_CLOSING || state == RSI_LINK_CLOSED) {
        return;
    }
    uint64_t now_ns = rsi_clock_now_ns();
    bool is_working =
        state == RSI_LINK_OPEN || state == RSI_LINK_ATTACHING || state == RSI_LINK_ATTACHED;
    if (!is_halted(link)) {
        link->deadline_ns = now_ns + RSI_RDMA_CLOSE_NS;
    }
    if (is_working) {
        rsi_store_release(&link->crossing.wants_close, true);
    }
    rsi_link_set_state(base, RSI_LINK_CLOSING); /* wakes the owner thread */
    close_step(link, now_ns);
}

/* ---- connecting ----------------------------------------------------------------------------- */

static struct rdma_conn_param conn_param(const struct rsi_greeting *greeting)
{
    return (struct rdma_conn_param){
        .private_data = greeting,
        .private_data_len = sizeof(*greeting),
        .responder_resources = 1,
        .initiator_depth = 1,
        .retry_count = RSI_RDMA_RETRY_COUNT,
        .rnr_retry_count = RSI_RDMA_RNR_RETRY_COUNT,
    };
}

static void set_ack_timeout(struct rdma_cm_id *id)
{
    uint8_t timeout = RSI_RDMA_ACK_TIMEOUT;
    if (rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout,
                        sizeof(timeout)) != 0) {
        RSI_LOG_ONCE(RSI_LOG_WARNING, "rdma",
                     "the kernel keeps its own acknowledgement time-out (%s): a peer that is gone "
                     "is noticed later",
                     strerror(errno));
    }
}

static rsi_status_t peer_greeting_take(struct rsi_rdma_link *link, const void *data, uint32_t bytes,
                                       struct rsi_error *error)
{
    struct rsi_greeting greeting = {0};
    if (data != NULL && bytes >= sizeof(greeting)) {
        memcpy(&greeting, data, sizeof(greeting));
    }
    rsi_status_t status = rsi_greeting_check(&greeting, data != NULL ? bytes : 0,
                                             &domain_of(link)->base.options, error);
    if (status != RSI_OK) {
        return status;
    }
    if (greeting.control_credit < 2) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "the peer takes %u control messages at once; the protocol needs 2",
                        greeting.control_credit);
    }
    link->base.peer_greeting = greeting;
    link->data.credit.peer_limit = greeting.control_credit;
    return RSI_OK;
}

static rsi_status_t dial(struct rsi_rdma_link *link, const struct rsi_url *url,
                         struct rsi_error *error)
{
    struct rsi_rdma_domain *domain = domain_of(link);
    struct sockaddr_storage target;
    struct sockaddr_storage source;
    socklen_t address_bytes = 0;
    rsi_status_t status = rsi_url_resolve(url, false, &target, &address_bytes, error);
    if (status != RSI_OK) {
        return status;
    }
    if (domain->bind_host != NULL) {
        struct rsi_url bind_url = {.scheme = "rdma"};
        snprintf(bind_url.host, sizeof(bind_url.host), "%s", domain->bind_host);
        status = rsi_url_resolve(&bind_url, false, &source, &address_bytes, error);
        if (status != RSI_OK) {
            rsi_error_context(error, "bind address");
            return status;
        }
    }
    rsi_address_format((struct sockaddr *)&target, link->base.peer_text,
                       sizeof(link->base.peer_text));
    if (rdma_create_id(domain->channel, &link->id, &link->context, RDMA_PS_TCP) != 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot make an RDMA connection");
    }
    int timeout_ms = (int)(rsi_rdma_connect_timeout_ns(&domain->base) / 1000000);
    if (rdma_resolve_addr(link->id, domain->bind_host != NULL ? (struct sockaddr *)&source : NULL,
                          (struct sockaddr *)&target, timeout_ms) != 0) {
        int reason = errno;
        if (domain->bind_host != NULL) {
            return rsi_fail_errno(error, RSI_E_ADDRESS, reason,
                                  "cannot dial %s from %s: is that the address of an RDMA device "
                                  "here? 'rdma link' shows the interfaces that have one",
                                  link->base.peer_text, domain->bind_host);
        }
        return rsi_fail_errno(error, RSI_E_ADDRESS, reason,
                              "cannot dial %s: no RDMA device here reaches it",
                              link->base.peer_text);
    }
    return RSI_OK;
}

rsi_status_t rsi_rdma_link_dial(struct rsi_link **link, struct rsi_poller *poller,
                                const struct rsi_url *url, struct rsi_error *error)
{
    struct rsi_rdma_link *made;
    rsi_status_t status = link_create(&made, poller, error);
    if (status != RSI_OK) {
        return status;
    }
    made->is_dialled = true;
    status = dial(made, url, error);
    if (status != RSI_OK) {
        link_discard(made);
        return status;
    }
    *link = &made->base;
    return RSI_OK;
}

static struct rsi_rdma_pending *pending_take(struct rsi_rdma_listener *listener)
{
    struct rsi_rdma_pending *pending = listener->first;
    if (pending == NULL) {
        return NULL;
    }
    listener->first = pending->next;
    if (listener->first == NULL) {
        listener->last = NULL;
    }
    listener->pending_count--;
    return pending;
}

static rsi_status_t accept_pending(struct rsi_rdma_link *link, struct rsi_error *error)
{
    rsi_status_t status = link_equip(link, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_greeting greeting;
    rsi_rdma_greeting_init(&greeting, link->base.poller->domain);
    struct rdma_conn_param param = conn_param(&greeting);
    set_ack_timeout(link->id);
    if (rdma_accept(link->id, &param) != 0) {
        int reason = errno;
        struct rsi_error loss = {0};
        (void)rsi_fail_errno(&loss, RSI_E_LINK_LOST, reason, "the connection was not accepted");
        /* The link is listed: it goes the way of all links. */
        begin_loss(link, &loss, rsi_clock_now_ns());
    }
    return RSI_OK;
}

rsi_status_t rsi_rdma_link_accept(struct rsi_link **link, struct rsi_listener *base,
                                  const struct rsi_poller_choice *choice, struct rsi_error *error)
{
    struct rsi_rdma_listener *listener = (struct rsi_rdma_listener *)base;
    struct rsi_rdma_pending *pending = pending_take(listener);
    if (pending == NULL) {
        return RSI_WOULD_BLOCK;
    }
    if (pending->id == NULL) {
        if (error != NULL) {
            *error = pending->refusal;
        }
        rsi_status_t refusal = pending->refusal.status;
        rsi_rdma_pending_free(pending);
        return refusal;
    }
    struct rsi_rdma_link *made = NULL;
    /* The greeting is not checked yet: as a hint it cannot do harm. */
    struct rsi_poller *poller = rsi_poller_choose(choice, pending->greeting.agent_hint);
    rsi_status_t status = link_create(&made, poller, error);
    if (status == RSI_OK) {
        made->id = pending->id;
        status = peer_greeting_take(made, &pending->greeting, sizeof(pending->greeting), error);
        if (status == RSI_OK) {
            status = accept_pending(made, error);
        }
    }
    if (status != RSI_OK) {
        (void)rdma_reject(pending->id, NULL, 0);
        if (made != NULL) {
            link_discard(made);
        } else {
            (void)rdma_destroy_id(pending->id);
        }
        rsi_rdma_pending_free(pending);
        return status;
    }
    made->id->context = &made->context;
    if (pending->is_gone) {
        lose(made, RSI_E_LINK_LOST, "the peer gave up before it was accepted");
    }
    rsi_rdma_pending_free(pending);
    *link = &made->base;
    return RSI_OK;
}

/* ---- events of rdma_cm ---------------------------------------------------------------------- */

static void on_address(struct rsi_rdma_link *link)
{
    set_ack_timeout(link->id);
    int timeout_ms = (int)(rsi_rdma_connect_timeout_ns(&domain_of(link)->base) / 1000000);
    if (rdma_resolve_route(link->id, timeout_ms) != 0) {
        lose(link, RSI_E_ADDRESS, "no route to the peer on the RDMA device");
    }
}

static void on_route(struct rsi_rdma_link *link)
{
    struct rsi_error error = {0};
    if (link_equip(link, &error) != RSI_OK) {
        begin_loss(link, &error, rsi_clock_now_ns());
        return;
    }
    struct rsi_greeting greeting;
    rsi_rdma_greeting_init(&greeting, &domain_of(link)->base);
    struct rdma_conn_param param = conn_param(&greeting);
    if (rdma_connect(link->id, &param) != 0) {
        (void)rsi_fail_errno(&error, RSI_E_LINK_LOST, errno, "cannot connect to %s",
                             link->base.peer_text);
        begin_loss(link, &error, rsi_clock_now_ns());
    }
}

static void on_established(struct rsi_rdma_link *link, const struct rdma_conn_param *param)
{
    link->is_established = true;
    struct rsi_error error = {0};
    if (link->is_dialled &&
        peer_greeting_take(link, param->private_data, param->private_data_len, &error) != RSI_OK) {
        begin_loss(link, &error, rsi_clock_now_ns());
        return;
    }
    set_rnr_timer(link);
    describe(link);
    if (rsi_link_state(&link->base) == RSI_LINK_CONNECTING && !link->is_losing) {
        rsi_link_set_state(&link->base, RSI_LINK_OPEN);
    }
}

/* Whether a refusal came with a greeting: devices fill private data up with zeros. */
static bool has_greeting(const struct rdma_conn_param *param)
{
    uint64_t magic = 0;
    if (param->private_data != NULL && param->private_data_len >= RSI_GREETING_BYTES) {
        memcpy(&magic, param->private_data, sizeof(magic));
    }
    return magic != 0;
}

static void on_rejected(struct rsi_rdma_link *link, const struct rdma_cm_event *event)
{
    struct rsi_error error = {0};
    const struct rdma_conn_param *param = &event->param.conn;
    const char *peer = link->base.peer_text;
    if (event->status == REJECT_NOBODY_LISTENS) {
        (void)rsi_fail(&error, RSI_E_REFUSED,
                       "nobody listens for RDMA connections at %s: is the broker started there, "
                       "with a listener for rdma?",
                       peer);
    } else if (event->status == REJECT_BY_PEER && has_greeting(param) &&
               peer_greeting_take(link, param->private_data, param->private_data_len, &error) !=
                   RSI_OK) {
        rsi_error_context(&error, "%s refused the connection", peer);
    } else {
        (void)rsi_fail(&error, RSI_E_REFUSED,
                       "%s refused the connection (reason %d): it has no room, or it stops", peer,
                       event->status);
    }
    begin_loss(link, &error, rsi_clock_now_ns());
}

static void on_failed_step(struct rsi_rdma_link *link, const struct rdma_cm_event *event)
{
    struct rsi_error error = {0};
    const char *peer = link->base.peer_text;
    int reason = event->status < 0 ? -event->status : 0;
    const char *reason_text = reason != 0 ? strerror(reason) : "no reason given";
    switch ((int)event->event) {
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
        (void)rsi_fail(&error, RSI_E_ADDRESS,
                       "no RDMA device here reaches %s (%s): check the address, and that an RDMA "
                       "device has the route to it ('rdma link', 'ip route get')",
                       peer, reason_text);
        break;
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        (void)rsi_fail(&error, RSI_E_NO_DEVICE, "the RDMA device was taken away");
        break;
    default:
        (void)rsi_fail(&error, RSI_E_LINK_LOST, "%s does not answer (%s, %s)", peer,
                       rdma_event_str(event->event), reason_text);
        break;
    }
    begin_loss(link, &error, rsi_clock_now_ns());
}

void rsi_rdma_link_on_event(struct rsi_rdma_link *link, const struct rdma_cm_event *event)
{
    bool is_over = rsi_link_state(&link->base) >= RSI_LINK_LOST || link->is_losing;
    if (is_over && event->event != RDMA_CM_EVENT_DISCONNECTED) {
        return;
    }
    switch ((int)event->event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        on_address(link);
        break;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
        on_route(link);
        break;
    case RDMA_CM_EVENT_ESTABLISHED:
        on_established(link, &event->param.conn);
        break;
    case RDMA_CM_EVENT_REJECTED:
        on_rejected(link, event);
        break;
    case RDMA_CM_EVENT_DISCONNECTED:
        link->is_disconnected = true;
        break;
    case RDMA_CM_EVENT_ADDR_CHANGE:
    case RDMA_CM_EVENT_TIMEWAIT_EXIT:
        break;
    default:
        on_failed_step(link, event);
        break;
    }
}

/* ---- attaching ------------------------------------------------------------------------------ */

rsi_status_t rsi_rdma_link_attach(struct rsi_link *base, const struct rsi_link_rings *rings,
                                  struct rsi_error *error)
{
    struct rsi_rdma_link *link = rsi_rdma_link_of(base);
    if (rsi_link_state(base) != RSI_LINK_OPEN) {
        return rsi_fail(error, RSI_E_STATE,
                        "rings are attached once, to an OPEN link, not to one that is %s",
                        rsi_link_state_name(rsi_link_state(base)));
    }
    rsi_status_t status = rsi_rdma_rings_init(link, rings, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_rdma_way *way = &link->data.way;
    way->capacity_bytes = rings->out_bytes;
    way->local_address = (uintptr_t)base->out.base;
    way->local_key = link->out_region.mr != NULL ? link->out_region.mr->lkey : 0;
    rsi_link_set_start(base, rings);
    link->data.told_consumed_pos = base->consumed_pos;
    /* From here on the peer can be told, and can write. Pairs with the acquire in the lane. */
    rsi_store_release(&link->crossing.is_attaching, true);
    rsi_link_set_state(base, RSI_LINK_ATTACHING);
    return RSI_OK;
}

static void attach_step(struct rsi_rdma_link *link, uint64_t now_ns)
{
    if (!rsi_load_acquire(&link->crossing.attach_sent) ||
        !rsi_load_acquire(&link->crossing.peer_attached)) {
        return;
    }
    struct rsi_error error = {0};
    if (rsi_attach_check(&link->peer_attach, &link->rings, &error) != RSI_OK) {
        /* At once: the side that knows the reason says it before the other sees the link gone. */
        rsi_link_lose_error(&link->base, &error);
        begin_loss(link, &error, now_ns);
        return;
    }
    rsi_link_set_state(&link->base, RSI_LINK_ATTACHED);
}

static void working_step(struct rsi_rdma_link *link, uint64_t now_ns)
{
    struct rsi_link *base = &link->base;
    if (rsi_link_state(base) == RSI_LINK_ATTACHING) {
        attach_step(link, now_ns);
    }
    if (rsi_load_acquire(&base->failed)) {
        begin_loss(link, &base->failure, now_ns);
    } else if (rsi_load_acquire(&link->crossing.peer_closed)) {
        lose(link, RSI_E_LINK_CLOSED, "the peer closed the link");
    } else if (link->is_disconnected) {
        link->peer_hung_up = true;
        lose(link, RSI_E_LINK_LOST,
             "the peer ended the connection without a word: its process is gone");
    }
}

void rsi_rdma_link_poll_control(struct rsi_link *base, uint64_t now_ns)
{
    struct rsi_rdma_link *link = rsi_rdma_link_of(base);
    enum rsi_link_state state = rsi_link_state(base);
    if (state == RSI_LINK_CLOSING) {
        close_step(link, now_ns);
        return;
    }
    if (state == RSI_LINK_LOST || state == RSI_LINK_CLOSED) {
        return;
    }
    if (link->is_losing) {
        finish_loss(link, now_ns);
        return;
    }
    if (state != RSI_LINK_CONNECTING) {
        working_step(link, now_ns);
        return;
    }
    if (rsi_load_acquire(&base->failed)) {
        begin_loss(link, &base->failure, now_ns);
    } else if (link->is_disconnected) {
        lose(link, RSI_E_LINK_LOST, "the peer ended the connection");
    } else if (now_ns >= link->deadline_ns) {
        struct rsi_error error = {0};
        (void)rsi_fail(&error, RSI_E_TIMED_OUT, "%s did not answer within %" PRIu64 " ms",
                       link->base.peer_text[0] != 0 ? link->base.peer_text : "the peer",
                       rsi_rdma_connect_timeout_ns(base->poller->domain) / 1000000);
        begin_loss(link, &error, now_ns);
    }
}
