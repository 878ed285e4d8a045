/*
 * What comes from the port, and where it goes; and what goes to the port.
 *
 * Design notes
 * - The receiver looks at no more than is needed to know whose a frame is. Checksums are the
 *   owner's work, on the owner's CPU; but before a stranger is answered, the frame that asks for it
 *   is checked: a spoilt connection name must not reset a healthy link.
 * - Answers to strangers are at most as long as what they answer, and RESETs at a bounded rate, so
 *   that forged senders gain nothing.
 * - Sleepers are woken when the burst is handed out, under the lock: their queues cannot go away
 *   meanwhile.
 */
#include "core/assert.h"
#include "transport/dpdk/station.h"

#include <string.h>

#define BURSTS_PER_PASS   4u
#define ARP_ANSWERS_QUEUE 0u

/* ---- sending --------------------------------------------------------------------------------- */

uint32_t rsi_station_transmit(struct rsi_station *station, uint32_t queue_index,
                              struct rsi_port_frame *frames, uint32_t count)
{
    uint32_t queue_count = station->port->transmit_queue_count;
    if (queue_count > RSI_STATION_TRANSMIT_MAX) {
        queue_count = RSI_STATION_TRANSMIT_MAX;
    }
    uint32_t queue = queue_index % queue_count;
    rsi_dpdk_lock_take(&station->transmit_locks[queue]);
    uint32_t sent = station->port->operations->transmit(station->port, queue, frames, count);
    rsi_dpdk_lock_give(&station->transmit_locks[queue]);
    return sent;
}

static void transmit_or_drop(struct rsi_station *station, struct rsi_port_frame *frame)
{
    if (rsi_station_transmit(station, ARP_ANSWERS_QUEUE, frame, 1) != 1) {
        rsi_fetch_add_relaxed(&station->counts.transmit_full, 1);
        station->port->operations->release(station->port, frame, 1);
    }
}

void rsi_station_send(struct rsi_station *station, uint16_t from_port,
                      const struct rsi_packet_end *to, struct rsi_datagram_header *header,
                      const void *body)
{
    struct rsi_port_frame frame;
    if (station->port->operations->acquire(station->port, &frame, 1) != 1) {
        return;
    }
    struct rsi_packet_end from = {.address = station->address, .port = from_port};
    memcpy(from.mac, station->port->mac, RSI_MAC_BYTES);
    memcpy(rsi_packet_body(&frame), body, header->bytes);
    rsi_packet_write(&frame, &from, to, header);
    transmit_or_drop(station, &frame);
}

/* ---- ARP ------------------------------------------------------------------------------------- */

static void send_arp(struct rsi_station *station, bool is_request, uint32_t target_address,
                     const uint8_t *target_mac)
{
    struct rsi_port_frame frame;
    if (station->port->operations->acquire(station->port, &frame, 1) != 1) {
        return;
    }
    struct rsi_packet_arp arp = {
        .is_request = is_request,
        .sender_address = station->address,
        .target_address = target_address,
    };
    memcpy(arp.sender_mac, station->port->mac, RSI_MAC_BYTES);
    rsi_packet_write_arp(&frame, &arp, target_mac);
    transmit_or_drop(station, &frame);
}

static struct rsi_station_neighbour *neighbour_slot(struct rsi_station *station, uint32_t address)
{
    return &station->neighbours[(address * 0x9e3779b1u) >> 24];
}

rsi_static_assert(RSI_STATION_NEIGHBOUR_MAX == 256);

/* Under the receive lock. Only what was said to us: nobody else's talk fills the table. */
static void take_arp(struct rsi_station *station, const struct rsi_port_frame *frame)
{
    struct rsi_packet_arp arp;
    if (!rsi_packet_parse_arp(&arp, frame) || arp.target_address != station->address ||
        rsi_station_is_remote(station, arp.sender_address)) {
        return;
    }
    struct rsi_station_neighbour *neighbour = neighbour_slot(station, arp.sender_address);
    neighbour->address = arp.sender_address;
    memcpy(neighbour->mac, arp.sender_mac, RSI_MAC_BYTES);
    if (arp.is_request) {
        send_arp(station, false, arp.sender_address, arp.sender_mac);
    }
}

static uint32_t hop_to(const struct rsi_station *station, uint32_t address)
{
    return rsi_station_is_remote(station, address) ? station->gateway : address;
}

void rsi_station_ask(struct rsi_station *station, uint32_t address)
{
    send_arp(station, true, hop_to(station, address), NULL);
}

bool rsi_station_resolve(struct rsi_station *station, uint32_t address, uint8_t mac[RSI_MAC_BYTES])
{
    uint32_t hop = hop_to(station, address);
    rsi_dpdk_lock_take(&station->receive_lock);
    const struct rsi_station_neighbour *neighbour = neighbour_slot(station, hop);
    bool is_known = neighbour->address == hop;
    if (is_known) {
        memcpy(mac, neighbour->mac, RSI_MAC_BYTES);
    }
    rsi_dpdk_lock_give(&station->receive_lock);
    return is_known;
}

/* ---- strangers ------------------------------------------------------------------------------- */

static RSI_COLD void answer(struct rsi_station *station, const struct rsi_packet *packet,
                            enum rsi_datagram_type type, const void *body, uint16_t bytes)
{
    struct rsi_datagram_header header = {
        .type = (uint8_t)type,
        .connection = packet->header.from,
        .from = packet->header.connection,
        .bytes = bytes,
    };
    rsi_station_send(station, packet->target_port, &packet->source, &header, body);
}

static RSI_COLD void refuse(struct rsi_station *station, const struct rsi_packet *packet,
                            struct rsi_port_frame *frame)
{
    struct rsi_datagram_hello hello;
    if (packet->header.bytes < sizeof(hello) || !rsi_packet_is_intact(packet, frame)) {
        return;
    }
    memcpy(&hello, packet->body, sizeof(hello));
    struct rsi_datagram_hello refusal = {
        .nonce = hello.nonce,
        .reason = RSI_DATAGRAM_REASON_NO_LISTENER,
    };
    answer(station, packet, RSI_DATAGRAM_REFUSE, &refusal, sizeof(refusal));
}

static RSI_COLD void reset(struct rsi_station *station, const struct rsi_packet *packet,
                           struct rsi_port_frame *frame)
{
    bool is_of_a_link = packet->header.type >= RSI_DATAGRAM_DATA;
    if (!is_of_a_link || station->resets_left == 0 || !rsi_packet_is_intact(packet, frame)) {
        return;
    }
    station->resets_left--;
    struct rsi_datagram_reset body = {.number = packet->header.number};
    answer(station, packet, RSI_DATAGRAM_RESET, &body, sizeof(body));
    rsi_bump_relaxed(&station->counts.resets_sent, 1);
}

/* ---- steering -------------------------------------------------------------------------------- */

static struct rsi_station_queue *find_listener(const struct rsi_station *station, uint16_t port)
{
    for (uint32_t i = 0; i < RSI_STATION_LISTENER_COUNT; i++) {
        if (station->listeners[i].port == port) {
            return station->listeners[i].queue;
        }
    }
    return NULL;
}

/* Whose a datagram is; NULL: nobody's, and it was answered if it deserves an answer. */
static struct rsi_station_queue *find_queue(struct rsi_station *station,
                                            const struct rsi_packet *packet,
                                            struct rsi_port_frame *frame)
{
    const struct rsi_datagram_header *header = &packet->header;
    if (header->type == RSI_DATAGRAM_HELLO || header->type == RSI_DATAGRAM_OPEN) {
        struct rsi_station_queue *queue = find_listener(station, packet->target_port);
        if (queue == NULL) {
            refuse(station, packet, frame);
        }
        return queue;
    }
    uint32_t index = rsi_station_index(header->connection);
    if (index < RSI_STATION_SLOT_COUNT) {
        const struct rsi_station_slot *slot = &station->slots[index];
        if (rsi_likely(slot->queue != NULL && slot->connection == header->connection)) {
            return slot->queue;
        }
    }
    reset(station, packet, frame);
    return NULL;
}

/* False: the frame is nobody's any more. */
static bool steer(struct rsi_station *station, struct rsi_port_frame *frame)
{
    struct rsi_packet packet;
    if (rsi_packet_ethernet_type(frame) == RSI_ETHERNET_TYPE_ARP) {
        take_arp(station, frame);
        return false;
    }
    if (!rsi_packet_parse(&packet, frame) || packet.target_address != station->address ||
        memcmp(frame->data, station->port->mac, RSI_MAC_BYTES) != 0) {
        rsi_bump_relaxed(&station->counts.strangers, 1);
        return false;
    }
    struct rsi_station_queue *queue = find_queue(station, &packet, frame);
    if (queue == NULL) {
        return false;
    }
    if (rsi_mailbox_push(&queue->frames, frame, sizeof(*frame)) != RSI_OK) {
        rsi_bump_relaxed(&station->counts.queue_overflow, 1);
        return false;
    }
    queue->has_news = true;
    return true;
}

static void wake_owners(struct rsi_station *station, const struct rsi_station_queue *own)
{
    for (struct rsi_station_queue *queue = station->queues; queue != NULL; queue = queue->next) {
        if (queue->has_news) {
            queue->has_news = false;
            if (queue != own) {
                rsi_waker_wake(&queue->waker);
            }
        }
    }
}

/* Under the receive lock. */
static uint32_t receive(struct rsi_station *station, const struct rsi_station_queue *own)
{
    struct rsi_port *port = station->port;
    struct rsi_port_frame frames[RSI_STATION_BURST];
    struct rsi_port_frame useless[RSI_STATION_BURST];
    uint32_t received = 0;
    station->resets_left = RSI_STATION_RESETS_PER_PASS;
    for (uint32_t burst = 0; burst < BURSTS_PER_PASS; burst++) {
        uint32_t count = port->operations->receive(port, frames, RSI_STATION_BURST);
        uint32_t useless_count = 0;
        for (uint32_t i = 0; i < count; i++) {
            if (!steer(station, &frames[i])) {
                useless[useless_count++] = frames[i];
            }
        }
        if (useless_count != 0) {
            port->operations->release(port, useless, useless_count);
        }
        received += count;
        if (count < RSI_STATION_BURST / 2) {
            break;
        }
    }
    if (received != 0) {
        wake_owners(station, own);
    }
    return received;
}

uint32_t rsi_station_receive(struct rsi_station *station, const struct rsi_station_queue *own)
{
    if (!rsi_dpdk_lock_try(&station->receive_lock)) {
        return 0;
    }
    uint32_t received = receive(station, own);
    rsi_dpdk_lock_give(&station->receive_lock);
    return received;
}

uint32_t rsi_station_look(struct rsi_station *station, const struct rsi_station_queue *own)
{
    rsi_dpdk_lock_take(&station->receive_lock);
    uint32_t received = receive(station, own);
    rsi_dpdk_lock_give(&station->receive_lock);
    return received;
}
