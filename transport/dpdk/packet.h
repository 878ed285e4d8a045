/*
 * An Ethernet frame with a datagram in it: how it is written, and what is checked before anybody
 * looks at its fields.
 *
 *     0          14         34       42                    82
 *     | Ethernet | IPv4     | UDP    | rsi_datagram_header | body
 */
#ifndef RSI_TRANSPORT_DPDK_PACKET_H
#define RSI_TRANSPORT_DPDK_PACKET_H

#include "proto/datagram.h"
#include "transport/dpdk/port.h"

#define RSI_ETHERNET_BYTES      14u
#define RSI_ETHERNET_BYTES_MIN  60u
#define RSI_MAC_BYTES           6u
#define RSI_IPV4_BYTES          20u
#define RSI_UDP_BYTES           8u
#define RSI_PACKET_HEADER_BYTES (RSI_ETHERNET_BYTES + RSI_IPV4_BYTES + RSI_UDP_BYTES)
#define RSI_PACKET_BODY_OFFSET  (RSI_PACKET_HEADER_BYTES + RSI_DATAGRAM_HEADER_BYTES)

#define RSI_ETHERNET_TYPE_IPV4 0x0800u
#define RSI_ETHERNET_TYPE_ARP  0x0806u

/* Bytes of a datagram's body that fit into an IPv4 packet of `mtu` bytes. */
static inline uint32_t rsi_packet_body_bytes_max(uint32_t mtu)
{
    return mtu - RSI_IPV4_BYTES - RSI_UDP_BYTES - RSI_DATAGRAM_HEADER_BYTES;
}

/* One end; address and port in the host's byte order. */
struct rsi_packet_end {
    uint32_t address;
    uint16_t port;
    uint8_t mac[RSI_MAC_BYTES]; /* of the next hop */
};

/* A received one. `header` is a copy, `body` points into the frame. */
struct rsi_packet {
    struct rsi_packet_end source;
    uint32_t target_address;
    uint16_t target_port;
    struct rsi_datagram_header header;
    const uint8_t *body;
};

/* Big-endian fields at any address. */
static inline uint16_t rsi_packet_get_16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t rsi_packet_get_32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void rsi_packet_put_16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void rsi_packet_put_32(uint8_t *at, uint32_t value)
{
    rsi_packet_put_16(at, (uint16_t)(value >> 16));
    rsi_packet_put_16(at + 2, (uint16_t)value);
}

static inline uint16_t rsi_packet_ethernet_type(const struct rsi_port_frame *frame)
{
    return frame->bytes < RSI_ETHERNET_BYTES ? 0 : rsi_packet_get_16(frame->data + 12);
}

static inline uint8_t *rsi_packet_body(const struct rsi_port_frame *frame)
{
    return frame->data + RSI_PACKET_BODY_OFFSET;
}

/* All lengths agree, no fragment, nothing behind the end is looked at. Not the checksum. */
bool rsi_packet_parse(struct rsi_packet *packet, const struct rsi_port_frame *frame);
/* Whether header and body are as they were sent. */
bool rsi_packet_is_intact(const struct rsi_packet *packet, struct rsi_port_frame *frame);
/* How many bytes of a ring a parsed one holds; 0: it is no data. */
uint32_t rsi_packet_ring_bytes(const struct rsi_packet *packet);
/* The body stands in the frame already, header->bytes long, its end in the tail when there is one:
 * writes all that stands before it, and frame->bytes. */
void rsi_packet_write(struct rsi_port_frame *frame, const struct rsi_packet_end *from,
                      const struct rsi_packet_end *to, struct rsi_datagram_header *header);

/* ---- ARP ------------------------------------------------------------------------------------- */

struct rsi_packet_arp {
    bool is_request;
    uint8_t sender_mac[RSI_MAC_BYTES];
    uint32_t sender_address;
    uint32_t target_address;
};

bool rsi_packet_parse_arp(struct rsi_packet_arp *arp, const struct rsi_port_frame *frame);
/* target_mac NULL: to all. */
void rsi_packet_write_arp(struct rsi_port_frame *frame, const struct rsi_packet_arp *arp,
                          const uint8_t *target_mac);

#endif
