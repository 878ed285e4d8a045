/*
 * Opening and sharing a station, and its tables.
 *
 * Design notes
 * - Two domains that are configured alike share a station: a port has one receiver. Others that
 *   name the same port are refused when the port says so (a device), or get one of their own (a
 *   virtual one).
 * - Slots are given out in turn, so that a name comes again only after all others and 4,096 times
 *   its generation. Where they begin and the first generation of each are random: a restarted
 *   process knows none of its predecessor's names, and who has a link cannot tell from its name
 * what others are called.
 */
#include "transport/dpdk/station.h"

#include "core/assert.h"
#include "core/log.h"
#include "core/text.h"
#include "transport/auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT_CHOSEN_MIN  49152u
#define PORT_CHOSEN_SPAN 16384u

static struct {
    pthread_mutex_t lock;
    struct rsi_station *list;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- opening --------------------------------------------------------------------------------- */

static rsi_status_t read_options(struct rsi_station *station,
                                 const struct rsi_dpdk_options *options, struct rsi_error *error)
{
    struct rsi_dpdk_address address;
    rsi_status_t status =
        rsi_dpdk_parse_address(&address, rsi_text_or_empty(options->address), error);
    if (status != RSI_OK) {
        rsi_error_context(error, "dpdk_address");
        return status;
    }
    station->address = address.address;
    station->prefix_mask = UINT32_MAX << (32 - address.prefix_bits);
    if (!rsi_text_is_empty(options->gateway)) {
        status = rsi_dpdk_parse_gateway(&station->gateway, options->gateway, error);
        if (status != RSI_OK) {
            rsi_error_context(error, "dpdk_gateway");
            return status;
        }
    }
    snprintf(station->port_text, sizeof(station->port_text), "%s", options->port);
    station->idle_ns = options->idle_ns != 0 ? options->idle_ns : RSI_STATION_IDLE_NS;
    return RSI_OK;
}

static rsi_status_t make_slots(struct rsi_station *station, struct rsi_error *error)
{
    station->slots = calloc(RSI_STATION_SLOT_COUNT, sizeof(*station->slots));
    if (station->slots == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a table of connections");
    }
    uint32_t randoms[RSI_STATION_SLOT_COUNT + 1];
    rsi_status_t status = rsi_auth_random(randoms, sizeof(randoms), error);
    if (status != RSI_OK) {
        return status;
    }
    for (uint32_t i = 0; i < RSI_STATION_SLOT_COUNT; i++) {
        station->slots[i].connection = (randoms[i] & ~RSI_STATION_INDEX_MASK) | i;
    }
    station->next_slot = randoms[RSI_STATION_SLOT_COUNT];
    return RSI_OK;
}

static void station_free(struct rsi_station *station)
{
    if (station->port != NULL) {
        station->port->operations->close(station->port);
    }
    free(station->slots);
    free(station);
}

/* Under all.lock. */
static const struct rsi_station *find_port(const struct rsi_port *port)
{
    const struct rsi_station *station = all.list;
    while (station != NULL && station->port != port) {
        station = station->next;
    }
    return station;
}

static rsi_status_t open_port(struct rsi_station *station, const struct rsi_dpdk_options *options,
                              struct rsi_error *error)
{
    rsi_status_t status = rsi_dpdk_port_open(&station->port, options, error);
    if (status != RSI_OK) {
        return status;
    }
    if (find_port(station->port) != NULL) {
        return rsi_fail(error, RSI_E_STATE,
                        "dpdk_port '%s' is in use in this process with another address; one port "
                        "has one",
                        options->port);
    }
    station->mtu = station->port->frame_bytes_max - RSI_ETHERNET_BYTES;
    if (options->mtu != 0 && options->mtu < station->mtu) {
        station->mtu = options->mtu;
    }
    if (station->port->note[0] != '\0') {
        rsi_log_warning("dpdk", "port %s: %s", station->port->name, station->port->note);
    }
    if (!station->port->operations->link_up(station->port)) {
        rsi_log_warning("dpdk", "port %s: the link is down; waiting for it", station->port->name);
    }
    return RSI_OK;
}

/* Under all.lock. */
static rsi_status_t station_create(struct rsi_station **station,
                                   const struct rsi_dpdk_options *options, struct rsi_error *error)
{
    struct rsi_station *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a dpdk port's tables");
    }
    made->user_count = 1;
    rsi_status_t status = read_options(made, options, error);
    if (status == RSI_OK) {
        status = make_slots(made, error);
    }
    if (status == RSI_OK) {
        status = open_port(made, options, error);
    }
    if (status == RSI_OK) {
        status = rsi_station_watch_start(made, error);
    }
    if (status != RSI_OK) {
        station_free(made);
        return status;
    }
    made->next = all.list;
    all.list = made;
    *station = made;
    return RSI_OK;
}

/* Under all.lock. One that is open and configured alike, or NULL. */
static struct rsi_station *find_alike(const struct rsi_dpdk_options *options)
{
    struct rsi_dpdk_address address;
    if (rsi_dpdk_parse_address(&address, rsi_text_or_empty(options->address), NULL) != RSI_OK) {
        return NULL;
    }
    struct rsi_station *station = all.list;
    while (station != NULL && (strcmp(station->port_text, options->port) != 0 ||
                               station->address != address.address)) {
        station = station->next;
    }
    return station;
}

rsi_status_t rsi_station_acquire(struct rsi_station **station,
                                 const struct rsi_dpdk_options *options, struct rsi_error *error)
{
    rsi_status_t status = RSI_OK;
    pthread_mutex_lock(&all.lock);
    struct rsi_station *alike = find_alike(options);
    if (alike != NULL) {
        alike->user_count++;
        *station = alike;
    } else {
        status = station_create(station, options, error);
    }
    pthread_mutex_unlock(&all.lock);
    return status;
}

void rsi_station_release(struct rsi_station *station)
{
    pthread_mutex_lock(&all.lock);
    bool is_last = --station->user_count == 0;
    if (is_last) {
        struct rsi_station **place = &all.list;
        while (*place != station) {
            place = &(*place)->next;
        }
        *place = station->next;
        rsi_station_watch_stop(station);
        station_free(station);
    }
    pthread_mutex_unlock(&all.lock);
}

/* ---- queues ---------------------------------------------------------------------------------- */

rsi_status_t rsi_station_queue_init(struct rsi_station *station, struct rsi_station_queue *queue,
                                    struct rsi_error *error)
{
    memset(queue, 0, sizeof(*queue));
    rsi_status_t status = rsi_mailbox_init(&queue->frames, sizeof(struct rsi_port_frame),
                                           RSI_STATION_QUEUE_FRAMES, error);
    if (status == RSI_OK) {
        status = rsi_waker_init(&queue->waker, error);
    }
    if (status != RSI_OK) {
        rsi_mailbox_fini(&queue->frames);
        return status;
    }
    rsi_dpdk_lock_take(&station->receive_lock);
    queue->next = station->queues;
    station->queues = queue;
    rsi_dpdk_lock_give(&station->receive_lock);
    return RSI_OK;
}

bool rsi_station_queue_take(struct rsi_station_queue *queue, struct rsi_port_frame *frame)
{
    uint32_t bytes;
    const struct rsi_port_frame *oldest = rsi_mailbox_front(&queue->frames, &bytes);
    if (oldest == NULL) {
        return false;
    }
    *frame = *oldest;
    rsi_mailbox_pop(&queue->frames);
    return true;
}

void rsi_station_queue_fini(struct rsi_station *station, struct rsi_station_queue *queue)
{
    if (queue->waker.fd <= 0) {
        return; /* never begun */
    }
    rsi_dpdk_lock_take(&station->receive_lock);
    struct rsi_station_queue **place = &station->queues;
    while (*place != queue) {
        place = &(*place)->next;
    }
    *place = queue->next;
    for (uint32_t i = 0; i < RSI_STATION_SLOT_COUNT; i++) {
        rsi_assert(station->slots[i].queue != queue);
    }
    rsi_dpdk_lock_give(&station->receive_lock);
    struct rsi_port_frame frame;
    while (rsi_station_queue_take(queue, &frame)) {
        station->port->operations->release(station->port, &frame, 1);
    }
    rsi_waker_fini(&queue->waker);
    rsi_mailbox_fini(&queue->frames);
}

/* ---- listeners ------------------------------------------------------------------------------- */

/* Under the receive lock. */
static bool is_taken(const struct rsi_station *station, uint16_t port)
{
    for (uint32_t i = 0; i < RSI_STATION_LISTENER_COUNT; i++) {
        if (station->listeners[i].port == port) {
            return true;
        }
    }
    return false;
}

/* Under the receive lock. */
static rsi_status_t add_listener(struct rsi_station *station, uint16_t port,
                                 struct rsi_station_queue *queue, struct rsi_error *error)
{
    for (uint32_t i = 0; i < RSI_STATION_LISTENER_COUNT; i++) {
        if (station->listeners[i].port == 0) {
            station->listeners[i].port = port;
            station->listeners[i].queue = queue;
            return RSI_OK;
        }
    }
    return rsi_fail(error, RSI_E_LIMIT, "port %s has its %u listeners already", station->port->name,
                    RSI_STATION_LISTENER_COUNT);
}

rsi_status_t rsi_station_listen(struct rsi_station *station, uint16_t *port,
                                struct rsi_station_queue *queue, struct rsi_error *error)
{
    rsi_status_t status;
    rsi_dpdk_lock_take(&station->receive_lock);
    uint16_t chosen = *port;
    for (uint32_t i = 0; chosen == 0; i++) {
        uint16_t candidate = (uint16_t)(PORT_CHOSEN_MIN + i);
        chosen = is_taken(station, candidate) ? 0 : candidate;
    }
    if (is_taken(station, chosen)) {
        status = rsi_fail(error, RSI_E_ADDRESS,
                          "UDP port %u of dpdk port %s is taken in this process; choose another",
                          chosen, station->port->name);
    } else {
        status = add_listener(station, chosen, queue, error);
    }
    rsi_dpdk_lock_give(&station->receive_lock);
    if (status == RSI_OK) {
        *port = chosen;
    }
    return status;
}

void rsi_station_unlisten(struct rsi_station *station, uint16_t port)
{
    rsi_dpdk_lock_take(&station->receive_lock);
    for (uint32_t i = 0; i < RSI_STATION_LISTENER_COUNT; i++) {
        if (station->listeners[i].port == port) {
            station->listeners[i].port = 0;
            station->listeners[i].queue = NULL;
        }
    }
    rsi_dpdk_lock_give(&station->receive_lock);
}

/* ---- connections ----------------------------------------------------------------------------- */

uint32_t rsi_station_connect(struct rsi_station *station, struct rsi_station_queue *queue)
{
    uint32_t connection = 0;
    rsi_dpdk_lock_take(&station->receive_lock);
    for (uint32_t i = 0; i < RSI_STATION_SLOT_COUNT && connection == 0; i++) {
        struct rsi_station_slot *slot =
            &station->slots[station->next_slot++ % RSI_STATION_SLOT_COUNT];
        if (slot->queue != NULL) {
            continue;
        }
        slot->connection += 1u << RSI_DATAGRAM_INDEX_BITS; /* the next generation */
        if (slot->connection == 0) {
            slot->connection += 1u << RSI_DATAGRAM_INDEX_BITS; /* 0 is nobody's name */
        }
        slot->queue = queue;
        connection = slot->connection;
    }
    rsi_dpdk_lock_give(&station->receive_lock);
    if (connection != 0) {
        rsi_fetch_add_relaxed(&station->link_count, 1);
    }
    return connection;
}

void rsi_station_redirect(struct rsi_station *station, uint32_t connection,
                          struct rsi_station_queue *queue)
{
    rsi_dpdk_lock_take(&station->receive_lock);
    struct rsi_station_slot *slot = &station->slots[rsi_station_index(connection)];
    rsi_assert(slot->connection == connection);
    slot->queue = queue;
    rsi_dpdk_lock_give(&station->receive_lock);
}

void rsi_station_disconnect(struct rsi_station *station, uint32_t connection)
{
    rsi_station_redirect(station, connection, NULL);
    rsi_fetch_add_relaxed(&station->link_count, UINT32_MAX);
}
