/*
 * The double's connection manager.
 *
 * Design notes
 * - Events are told at once; what takes time on a network is the order of looks at them. The active
 *   side's queue pair works from the moment at which its ESTABLISHED is got, and only then the
 *   passive side is told: so its data may come before that.
 * - Private data arrives as devices deliver it: 56 bytes of a request, 196 of an answer, 148 of a
 *   refusal, filled up with zeros, whatever was sent.
 * - Over a cut wire a request is never answered, and what rdma_disconnect says is repeated until
 * the wire is mended or the id is gone; what an id says when it is destroyed is said once.
 */
#include "transport/rdma/verbs_double_internal.h"

#include "core/atomics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    REJECT_TIMEOUT = 4,
    REJECT_NOBODY_LISTENS = 8,
    REJECT_BY_PEER = 28,
    REQUEST_PRIVATE_BYTES = 56,
    ANSWER_PRIVATE_BYTES = 196,
    REJECT_PRIVATE_BYTES = 148,
    RETRY_COUNT_FOR_EVER = 7,
};

/* ---- event channels ------------------------------------------------------------------------- */

struct rdma_event_channel *rdma_create_event_channel(void)
{
    if (!double_enter("rdma_create_event_channel", VERBS_DOUBLE_MAKES)) {
        return NULL;
    }
    struct double_event_channel *channel = double_alloc(sizeof(*channel));
    channel->base.fd = double_bell_create();
    double_add(&channel->object, DOUBLE_EVENT_CHANNEL, channel);
    double_leave();
    return &channel->base;
}

void rdma_destroy_event_channel(struct rdma_event_channel *base)
{
    struct double_event_channel *channel = (struct double_event_channel *)base;
    (void)double_enter("rdma_destroy_event_channel", VERBS_DOUBLE_LOOKS);
    DOUBLE_EACH(at, DOUBLE_ID)
    {
        if (double_of(struct double_id, at)->base.channel == base && !at->is_excused) {
            double_fault("rdma_destroy_event_channel while a connection id uses it");
        }
    }
    while (channel->first != NULL) {
        struct double_event *event = channel->first;
        channel->first = event->next;
        free(event);
    }
    close(base->fd);
    double_remove(&channel->object);
    double_leave();
}

static void channel_append(struct double_event_channel *channel, struct double_event *event)
{
    if (channel->last != NULL) {
        channel->last->next = event;
    } else {
        channel->first = event;
    }
    channel->last = event;
    /* Read without the lock, only to find nothing. */
    rsi_store_relaxed(&channel->event_count, rsi_load_relaxed(&channel->event_count) + 1);
    double_bell_ring(channel->base.fd);
}

static struct double_event *channel_take(struct double_event_channel *channel)
{
    struct double_event *event = channel->first;
    channel->first = event->next;
    if (channel->first == NULL) {
        channel->last = NULL;
    }
    rsi_store_relaxed(&channel->event_count, rsi_load_relaxed(&channel->event_count) - 1);
    double_bell_take(channel->base.fd);
    return event;
}

/* ---- events --------------------------------------------------------------------------------- */

static void tell(struct double_id *id, enum rdma_cm_event_type type, int status,
                 const struct rdma_conn_param *param, uint8_t private_bytes)
{
    struct double_event *event = double_alloc(sizeof(*event));
    event->base.id = &id->base;
    event->base.event = type;
    event->base.status = status;
    if (private_bytes > 0) {
        if (param != NULL) {
            event->base.param.conn = *param;
        }
        if (param != NULL && param->private_data != NULL) {
            memcpy(event->private_data, param->private_data, param->private_data_len);
        }
        event->base.param.conn.private_data = event->private_data;
        event->base.param.conn.private_data_len = private_bytes;
    }
    channel_append((struct double_event_channel *)id->base.channel, event);
}

static void tell_disconnected(struct double_id *id)
{
    if (!id->is_peer_gone) {
        id->is_peer_gone = true;
        id->state = DOUBLE_ID_OVER;
        tell(id, RDMA_CM_EVENT_DISCONNECTED, 0, NULL, 0);
    }
}

void double_tell_killed(struct double_id *id)
{
    if (id->peer != NULL && !double_world.is_cut) {
        tell_disconnected(id->peer);
    }
    if (id->peer != NULL) {
        id->peer->peer = NULL;
    }
    id->peer = NULL;
    id->state = DOUBLE_ID_OVER;
}

/* What was said over a wire that was cut then arrives. */
void double_tell_delayed(void)
{
    DOUBLE_EACH(at, DOUBLE_ID)
    {
        struct double_id *id = double_of(struct double_id, at);
        if (id->has_disconnected && id->peer != NULL && !id->peer->is_peer_gone) {
            tell_disconnected(id->peer);
        }
    }
}

static bool is_connecting(const struct double_id *id)
{
    return id->state == DOUBLE_ID_CONNECTING && id->peer == NULL;
}

bool double_has_connects(void)
{
    DOUBLE_EACH(at, DOUBLE_ID)
    {
        if (is_connecting(double_of(struct double_id, at))) {
            return true;
        }
    }
    return false;
}

void double_expire_connects(void)
{
    DOUBLE_EACH(at, DOUBLE_ID)
    {
        struct double_id *id = double_of(struct double_id, at);
        if (is_connecting(id) && double_now_ns() >= id->connect_deadline_ns) {
            id->state = DOUBLE_ID_OVER;
            tell(id, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT, NULL, 0);
        }
    }
}

/* An answer that can no longer be used turns into an error, and the peer is told no. */
static void fail_answer(struct double_id *id, struct rdma_cm_event *event)
{
    event->event = RDMA_CM_EVENT_CONNECT_ERROR;
    event->status = -EINVAL;
    if (id->base.qp != NULL) {
        double_qp_break((struct double_qp *)id->base.qp);
    }
    id->state = DOUBLE_ID_OVER;
    if (id->peer != NULL && id->peer->state == DOUBLE_ID_ACCEPTED) {
        id->peer->state = DOUBLE_ID_OVER;
        tell(id->peer, RDMA_CM_EVENT_REJECTED, REJECT_BY_PEER, NULL, REJECT_PRIVATE_BYTES);
        id->peer->peer = NULL;
        id->peer = NULL;
    }
}

/* The answer of the peer is looked at: now the queue pair works, and the peer may know. If the peer
 * went away meanwhile, or the queue pair was put into error, it fails. */
static void establish(struct double_id *id, struct rdma_cm_event *event)
{
    bool is_waiting = id->state == DOUBLE_ID_CONNECTING && id->base.qp != NULL;
    if (!is_waiting || id->base.qp->state != IBV_QPS_INIT) {
        fail_answer(id, event);
        return;
    }
    id->state = DOUBLE_ID_ESTABLISHED;
    id->base.qp->state = IBV_QPS_RTS;
    if (id->peer != NULL && id->peer->state == DOUBLE_ID_ACCEPTED) {
        id->peer->state = DOUBLE_ID_ESTABLISHED;
        tell(id->peer, RDMA_CM_EVENT_ESTABLISHED, 0, NULL, 0);
    }
}

int rdma_get_cm_event(struct rdma_event_channel *base, struct rdma_cm_event **event)
{
    struct double_event_channel *channel = (struct double_event_channel *)base;
    if (rsi_load_relaxed(&channel->event_count) == 0 && !double_polls_make_steps()) {
        return double_bell_is_silent(base->fd, "rdma_get_cm_event");
    }
    if (!double_enter("rdma_get_cm_event", VERBS_DOUBLE_LOOKS)) {
        return -1;
    }
    double_expire_connects();
    if (channel->first == NULL) {
        (void)double_bell_is_silent(base->fd, "rdma_get_cm_event");
        return double_refuse(EAGAIN);
    }
    struct double_event *taken = channel_take(channel);
    struct double_id *id = (struct double_id *)taken->base.id;
    if (taken->base.event == RDMA_CM_EVENT_ESTABLISHED && id->state != DOUBLE_ID_ESTABLISHED) {
        establish(id, &taken->base);
    }
    id->unacknowledged_count++;
    double_add(&taken->object, DOUBLE_EVENT, taken);
    *event = &taken->base;
    double_leave();
    return 0;
}

int rdma_ack_cm_event(struct rdma_cm_event *base)
{
    struct double_event *event = (struct double_event *)base;
    (void)double_enter("rdma_ack_cm_event", VERBS_DOUBLE_LOOKS);
    ((struct double_id *)base->id)->unacknowledged_count--;
    double_remove(&event->object);
    double_leave();
    return 0;
}

const char *rdma_event_str(enum rdma_cm_event_type type)
{
    return type == RDMA_CM_EVENT_UNREACHABLE ? "unreachable" : "event of the connection manager";
}

/* ---- ids ------------------------------------------------------------------------------------ */

static struct double_id *id_create(struct rdma_event_channel *channel, void *context)
{
    struct double_id *id = double_alloc(sizeof(*id));
    id->base.channel = channel;
    id->base.context = context;
    id->base.ps = RDMA_PS_TCP;
    double_add(&id->object, DOUBLE_ID, id);
    return id;
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **id, void *context,
                   enum rdma_port_space space)
{
    if (!double_enter("rdma_create_id", VERBS_DOUBLE_MAKES)) {
        return -1;
    }
    if (channel == NULL || space != RDMA_PS_TCP) {
        double_fault("rdma_create_id: the double has event channels and RDMA_PS_TCP only");
    }
    *id = &id_create(channel, context)->base;
    double_leave();
    return 0;
}

/* What the kernel says to the peer when an id goes, once. */
static void say_goodbye(struct double_id *id)
{
    struct double_id *peer = id->peer;
    if (peer == NULL) {
        return;
    }
    peer->peer = NULL;
    if (double_world.is_cut) {
        return;
    }
    switch (id->state) {
    case DOUBLE_ID_REQUESTED:
        peer->state = DOUBLE_ID_OVER;
        tell(peer, RDMA_CM_EVENT_REJECTED, REJECT_BY_PEER, NULL, REJECT_PRIVATE_BYTES);
        break;
    case DOUBLE_ID_CONNECTING:
        peer->state = DOUBLE_ID_OVER;
        tell(peer, RDMA_CM_EVENT_REJECTED, REJECT_TIMEOUT, NULL, REJECT_PRIVATE_BYTES);
        break;
    case DOUBLE_ID_ACCEPTED:
    case DOUBLE_ID_ESTABLISHED:
    case DOUBLE_ID_OVER:
        tell_disconnected(peer);
        break;
    default:
        break;
    }
}

/* Events of an id that nobody got go with it. */
static void channel_forget(struct double_event_channel *channel, const struct double_id *id)
{
    uint32_t count = rsi_load_relaxed(&channel->event_count);
    for (uint32_t i = 0; i < count; i++) {
        struct double_event *event = channel_take(channel);
        event->next = NULL;
        if (event->base.id == &id->base) {
            free(event);
        } else {
            channel_append(channel, event);
        }
    }
}

/* Requests that nobody got go with their listener, and with them the ids that they brought. */
static void requests_forget(struct double_event_channel *channel, const struct double_id *listener)
{
    struct double_event *event = channel->first;
    while (event != NULL) {
        if (event->base.listen_id != &listener->base) {
            event = event->next;
            continue;
        }
        struct double_id *passive = (struct double_id *)event->base.id;
        say_goodbye(passive);
        channel_forget(channel, passive);
        double_remove(&passive->object);
        event = channel->first;
    }
}

int rdma_destroy_id(struct rdma_cm_id *base)
{
    struct double_id *id = (struct double_id *)base;
    if (!double_enter("rdma_destroy_id", VERBS_DOUBLE_UNMAKES)) {
        double_excuse(&id->object);
        return -1;
    }
    if (id->unacknowledged_count > 0) {
        double_fault("rdma_destroy_id would wait for ever: an event of the id is not acknowledged");
        return double_refuse(EBUSY);
    }
    if (base->qp != NULL && !double_has_excused()) {
        double_fault("rdma_destroy_id while the id has a queue pair");
    }
    if (base->qp != NULL) {
        ((struct double_qp *)base->qp)->id = NULL;
    }
    struct double_event_channel *channel = (struct double_event_channel *)base->channel;
    say_goodbye(id);
    requests_forget(channel, id);
    channel_forget(channel, id);
    double_remove(&id->object);
    double_leave();
    return 0;
}

static bool has_place(struct double_id *id, const struct sockaddr *address)
{
    struct double_device *device = double_device_at(address);
    if (device != NULL) {
        id->base.verbs = &device->context;
        id->base.port_num = 1;
    }
    return device != NULL;
}

static bool port_is_taken(uint16_t port, struct in_addr address)
{
    DOUBLE_EACH(at, DOUBLE_ID)
    {
        const struct double_id *id = double_of(struct double_id, at);
        if (id->port == port && id->base.route.addr.src_sin.sin_addr.s_addr == address.s_addr) {
            return true;
        }
    }
    return false;
}

int rdma_bind_addr(struct rdma_cm_id *base, struct sockaddr *address)
{
    struct double_id *id = (struct double_id *)base;
    if (!double_enter("rdma_bind_addr", VERBS_DOUBLE_WORKS)) {
        return -1;
    }
    const struct sockaddr_in *wanted = (const struct sockaddr_in *)(const void *)address;
    bool is_any = address->sa_family == AF_INET && wanted->sin_addr.s_addr == 0;
    if (!is_any && !has_place(id, address)) {
        return double_refuse(EADDRNOTAVAIL);
    }
    uint16_t port = ntohs(wanted->sin_port);
    if (port != 0 && port_is_taken(port, wanted->sin_addr)) {
        return double_refuse(EADDRINUSE);
    }
    id->port = port != 0 ? port : double_world.next_port++;
    base->route.addr.src_sin = *wanted;
    base->route.addr.src_sin.sin_port = htons(id->port);
    id->state = DOUBLE_ID_BOUND;
    double_leave();
    return 0;
}

int rdma_listen(struct rdma_cm_id *base, int backlog)
{
    struct double_id *id = (struct double_id *)base;
    (void)backlog;
    if (!double_enter("rdma_listen", VERBS_DOUBLE_WORKS)) {
        return -1;
    }
    if (id->state != DOUBLE_ID_BOUND) {
        double_fault("rdma_listen on an id that is not bound");
    }
    id->state = DOUBLE_ID_LISTENING;
    double_leave();
    return 0;
}

__be16 rdma_get_src_port(struct rdma_cm_id *id)
{
    return id->route.addr.src_sin.sin_port;
}

int rdma_set_option(struct rdma_cm_id *base, int level, int name, void *value, size_t bytes)
{
    struct double_id *id = (struct double_id *)base;
    if (!double_enter("rdma_set_option", VERBS_DOUBLE_WORKS)) {
        return -1;
    }
    if (level != RDMA_OPTION_ID || name != RDMA_OPTION_ID_ACK_TIMEOUT || bytes != 1) {
        double_fault("rdma_set_option: the double knows the acknowledgement time-out only");
    } else if (id->state == DOUBLE_ID_ROUTE_RESOLVED || id->state == DOUBLE_ID_CONNECTING) {
        double_fault("rdma_set_option of the acknowledgement time-out after the route was resolved "
                     "has no effect");
    } else {
        id->ack_timeout = *(const uint8_t *)value;
    }
    double_leave();
    return 0;
}

/* ---- connecting ----------------------------------------------------------------------------- */

int rdma_resolve_addr(struct rdma_cm_id *base, struct sockaddr *source, struct sockaddr *target,
                      int timeout_ms)
{
    struct double_id *id = (struct double_id *)base;
    (void)timeout_ms;
    if (!double_enter("rdma_resolve_addr", VERBS_DOUBLE_WORKS)) {
        return -1;
    }
    if (id->state != DOUBLE_ID_IDLE) {
        double_fault("rdma_resolve_addr on an id that is past that");
    }
    bool is_target = double_device_at(target) != NULL;
    if (source != NULL && !has_place(id, source)) {
        return double_refuse(ENODEV);
    }
    if (!is_target || (source == NULL && !has_place(id, target))) {
        tell(id, RDMA_CM_EVENT_ADDR_ERROR, -ENODEV, NULL, 0);
        double_leave();
        return 0;
    }
    memcpy(&base->route.addr.dst_sin, target, sizeof(base->route.addr.dst_sin));
    memcpy(&base->route.addr.src_sin, source != NULL ? source : target,
           sizeof(base->route.addr.src_sin));
    id->port = double_world.next_port++;
    base->route.addr.src_sin.sin_port = htons(id->port);
    id->state = DOUBLE_ID_ADDRESS_RESOLVED;
    tell(id, RDMA_CM_EVENT_ADDR_RESOLVED, 0, NULL, 0);
    double_leave();
    return 0;
}

int rdma_resolve_route(struct rdma_cm_id *base, int timeout_ms)
{
    struct double_id *id = (struct double_id *)base;
    (void)timeout_ms;
    if (!double_enter("rdma_resolve_route", VERBS_DOUBLE_WORKS)) {
        return -1;
    }
    if (id->state != DOUBLE_ID_ADDRESS_RESOLVED) {
        double_fault("rdma_resolve_route before the address is resolved");
    }
    id->state = DOUBLE_ID_ROUTE_RESOLVED;
    tell(id, RDMA_CM_EVENT_ROUTE_RESOLVED, 0, NULL, 0);
    double_leave();
    return 0;
}

static struct double_id *listener_at(const struct sockaddr_in *address)
{
    DOUBLE_EACH(at, DOUBLE_ID)
    {
        struct double_id *id = double_of(struct double_id, at);
        const struct sockaddr_in *own = &id->base.route.addr.src_sin;
        bool is_there =
            own->sin_addr.s_addr == 0 || own->sin_addr.s_addr == address->sin_addr.s_addr;
        if (id->state == DOUBLE_ID_LISTENING && is_there && own->sin_port == address->sin_port) {
            return id;
        }
    }
    return NULL;
}

static void check_param(const char *name, const struct rdma_conn_param *param, int private_max)
{
    if (param->private_data_len > private_max) {
        double_fault("%s with %u bytes of private data; %d is the most", name,
                     param->private_data_len, private_max);
    }
    if (param->retry_count >= RETRY_COUNT_FOR_EVER) {
        double_fault("%s with a retry count of 7, which means for ever on some devices", name);
    }
}

/* The request turns up at the listener as an id of its own. */
static void request(struct double_id *id, struct double_id *listener,
                    const struct rdma_conn_param *param)
{
    struct double_id *passive = id_create(listener->base.channel, listener->base.context);
    (void)has_place(passive, (const struct sockaddr *)&id->base.route.addr.dst_sin);
    passive->base.route.addr.src_sin = id->base.route.addr.dst_sin;
    passive->base.route.addr.dst_sin = id->base.route.addr.src_sin;
    passive->state = DOUBLE_ID_REQUESTED;
    passive->peer = id;
    id->peer = passive;
    tell(passive, RDMA_CM_EVENT_CONNECT_REQUEST, 0, param, REQUEST_PRIVATE_BYTES);
    struct double_event_channel *channel = (struct double_event_channel *)listener->base.channel;
    channel->last->base.listen_id = &listener->base;
}

int rdma_connect(struct rdma_cm_id *base, struct rdma_conn_param *param)
{
    struct double_id *id = (struct double_id *)base;
    if (!double_enter("rdma_connect", VERBS_DOUBLE_WORKS)) {
        return -1;
    }
    if (id->state != DOUBLE_ID_ROUTE_RESOLVED || base->qp == NULL) {
        double_fault("rdma_connect without a route or a queue pair");
        return double_refuse(EINVAL);
    }
    check_param("rdma_connect", param, REQUEST_PRIVATE_BYTES);
    id->state = DOUBLE_ID_CONNECTING;
    id->retry_count = param->retry_count;
    id->rnr_retry_count = param->rnr_retry_count;
    id->connect_deadline_ns = double_now_ns() + 4 * double_world.options.retry_ns;
    if (double_world.is_cut) {
        rsi_store_relaxed(&double_world.awaits_time, true);
        double_leave();
        return 0;
    }
    struct double_id *listener = listener_at(&base->route.addr.dst_sin);
    if (listener != NULL) {
        request(id, listener, param);
    } else {
        id->state = DOUBLE_ID_OVER;
        tell(id, RDMA_CM_EVENT_REJECTED, REJECT_NOBODY_LISTENS, NULL, REJECT_PRIVATE_BYTES);
    }
    double_leave();
    return 0;
}

int rdma_accept(struct rdma_cm_id *base, struct rdma_conn_param *param)
{
    struct double_id *id = (struct double_id *)base;
    if (!double_enter("rdma_accept", VERBS_DOUBLE_WORKS)) {
        return -1;
    }
    if (base->qp == NULL) {
        double_fault("rdma_accept without a queue pair");
    }
    check_param("rdma_accept", param, ANSWER_PRIVATE_BYTES);
    if (id->state != DOUBLE_ID_REQUESTED || id->peer == NULL || id->peer->base.qp == NULL) {
        return double_refuse(EINVAL);
    }
    struct double_qp *passive = (struct double_qp *)base->qp;
    struct double_qp *active = (struct double_qp *)id->peer->base.qp;
    passive->peer = active;
    active->peer = passive;
    passive->base.state = IBV_QPS_RTS;
    passive->retry_count = id->peer->retry_count;
    active->retry_count = id->peer->retry_count;
    /* Each side's queue pair gets what the other side said. */
    passive->rnr_retry_count = id->peer->rnr_retry_count;
    active->rnr_retry_count = param->rnr_retry_count;
    id->state = DOUBLE_ID_ACCEPTED;
    tell(id->peer, RDMA_CM_EVENT_ESTABLISHED, 0, param, ANSWER_PRIVATE_BYTES);
    double_leave();
    return 0;
}

int rdma_reject(struct rdma_cm_id *base, const void *private_data, uint8_t private_bytes)
{
    struct double_id *id = (struct double_id *)base;
    if (!double_enter("rdma_reject", VERBS_DOUBLE_WORKS)) {
        return -1;
    }
    struct rdma_conn_param param = {.private_data = private_data,
                                    .private_data_len = private_bytes};
    check_param("rdma_reject", &param, REJECT_PRIVATE_BYTES);
    if (id->state != DOUBLE_ID_REQUESTED || id->peer == NULL) {
        return double_refuse(EINVAL);
    }
    id->peer->state = DOUBLE_ID_OVER;
    id->state = DOUBLE_ID_OVER;
    tell(id->peer, RDMA_CM_EVENT_REJECTED, REJECT_BY_PEER, &param, REJECT_PRIVATE_BYTES);
    id->peer->peer = NULL;
    id->peer = NULL;
    double_leave();
    return 0;
}

int rdma_disconnect(struct rdma_cm_id *base)
{
    struct double_id *id = (struct double_id *)base;
    if (!double_enter("rdma_disconnect", VERBS_DOUBLE_WORKS)) {
        return -1;
    }
    if (base->qp != NULL) {
        double_qp_break((struct double_qp *)base->qp);
    }
    bool was_connected = id->state == DOUBLE_ID_ESTABLISHED || id->state == DOUBLE_ID_ACCEPTED;
    if (!was_connected && !id->is_peer_gone) {
        return double_refuse(EINVAL);
    }
    id->has_disconnected = true;
    id->state = DOUBLE_ID_OVER;
    if (id->peer != NULL && !double_world.is_cut) {
        tell_disconnected(id->peer);
        if (id->peer->has_disconnected) {
            tell_disconnected(id); /* both asked: both have their answer */
        }
    }
    double_settle();
    double_leave();
    return 0;
}

/* ---- queue pairs of ids --------------------------------------------------------------------- */

int rdma_create_qp(struct rdma_cm_id *base, struct ibv_pd *pd, struct ibv_qp_init_attr *wish)
{
    if (!double_enter("rdma_create_qp", VERBS_DOUBLE_MAKES)) {
        return -1;
    }
    if (base->verbs == NULL || base->qp != NULL || pd->context != base->verbs) {
        double_fault(
            "rdma_create_qp: the id has no device, a queue pair already, or another device "
            "than the protection domain");
    }
    if (wish->qp_type != IBV_QPT_RC || wish->sq_sig_all != 0 || wish->srq != NULL ||
        wish->send_cq->context != base->verbs || wish->recv_cq->context != base->verbs) {
        double_fault("rdma_create_qp of a kind that the double does not have");
    }
    if (wish->cap.max_inline_data > double_world.options.inline_bytes_max) {
        return double_refuse(EINVAL);
    }
    base->qp = double_qp_create((struct double_id *)base, pd, wish);
    base->pd = pd;
    base->qp_type = IBV_QPT_RC;
    double_leave();
    return 0;
}

void rdma_destroy_qp(struct rdma_cm_id *base)
{
    (void)double_enter("rdma_destroy_qp", VERBS_DOUBLE_LOOKS);
    struct double_qp *qp = (struct double_qp *)base->qp;
    if (double_qp_destroy(qp) == 0) {
        base->qp = NULL;
    }
    double_leave();
}
