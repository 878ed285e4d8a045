/*
 * Design notes
 * - IPv4 without options, not fragmented, UDP without checksum: what we send, and all that we take.
 *   The CRC32C covers the datagram; addresses are held against what the connection is for.
 * - Nothing is cast onto the frame: a datagram begins at an odd multiple of two.
 */
#include "transport/dpdk/packet.h"

#include "transport/dpdk/crc32c.h"

#include <string.h>

#define IPV4_VERSION_AND_LENGTH 0x45u
#define IPV4_DO_NOT_FRAGMENT    0x4000u
#define IPV4_FRAGMENT_MASK      0x3fffu /* more fragments, offset */
#define IPV4_TIME_TO_LIVE       64u
#define PROTOCOL_UDP            17u
#define CHECKSUM_OFFSET         offsetof(struct rsi_datagram_header, checksum)
#define ARP_BYTES               28u

enum { IPV4 = RSI_ETHERNET_BYTES, UDP = RSI_ETHERNET_BYTES + RSI_IPV4_BYTES };

static uint16_t ipv4_sum(const uint8_t *header)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < RSI_IPV4_BYTES; i += 2) {
        sum += rsi_packet_get_16(header + i);
    }
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)~sum;
}

bool rsi_packet_parse(struct rsi_packet *packet, const struct rsi_port_frame *frame)
{
    const uint8_t *data = frame->data;
    if (frame->bytes < RSI_PACKET_BODY_OFFSET ||
        rsi_packet_ethernet_type(frame) != RSI_ETHERNET_TYPE_IPV4 ||
        data[IPV4] != IPV4_VERSION_AND_LENGTH || data[IPV4 + 9] != PROTOCOL_UDP) {
        return false;
    }
    uint32_t ipv4_bytes = rsi_packet_get_16(data + IPV4 + 2);
    uint32_t udp_bytes = rsi_packet_get_16(data + UDP + 4);
    bool is_fragment = (rsi_packet_get_16(data + IPV4 + 6) & IPV4_FRAGMENT_MASK) != 0;
    if (is_fragment || ipv4_bytes > frame->bytes - RSI_ETHERNET_BYTES ||
        ipv4_bytes != RSI_IPV4_BYTES + udp_bytes || ipv4_sum(data + IPV4) != 0) {
        return false;
    }
    struct rsi_datagram_header *header = &packet->header;
    memcpy(header, data + RSI_PACKET_HEADER_BYTES, sizeof(*header));
    if (udp_bytes != RSI_UDP_BYTES + RSI_DATAGRAM_HEADER_BYTES + (uint32_t)header->bytes ||
        header->version != RSI_DATAGRAM_VERSION) {
        return false;
    }
    packet->source.address = rsi_packet_get_32(data + IPV4 + 12);
    packet->source.port = rsi_packet_get_16(data + UDP);
    memcpy(packet->source.mac, data + RSI_MAC_BYTES, RSI_MAC_BYTES);
    packet->target_address = rsi_packet_get_32(data + IPV4 + 16);
    packet->target_port = rsi_packet_get_16(data + UDP + 2);
    packet->body = data + RSI_PACKET_BODY_OFFSET;
    return true;
}

bool rsi_packet_is_intact(const struct rsi_packet *packet, struct rsi_port_frame *frame)
{
    uint8_t *datagram = frame->data + RSI_PACKET_HEADER_BYTES;
    memset(datagram + CHECKSUM_OFFSET, 0, sizeof(packet->header.checksum));
    return rsi_crc32c(datagram, RSI_DATAGRAM_HEADER_BYTES + (size_t)packet->header.bytes) ==
           packet->header.checksum;
}

uint32_t rsi_packet_ring_bytes(const struct rsi_packet *packet)
{
    bool has_state = (packet->header.flags & RSI_DATAGRAM_FLAG_STATE) != 0;
    uint32_t head_bytes =
        (uint32_t)sizeof(struct rsi_datagram_data) + (has_state ? RSI_DATAGRAM_STATE_BYTES : 0);
    bool is_data = packet->header.type == RSI_DATAGRAM_DATA && packet->header.bytes > head_bytes;
    return is_data ? packet->header.bytes - head_bytes : 0;
}

static void write_ethernet(uint8_t *data, const uint8_t *to_mac, const uint8_t *from_mac,
                           uint16_t type)
{
    memcpy(data, to_mac, RSI_MAC_BYTES);
    memcpy(data + RSI_MAC_BYTES, from_mac, RSI_MAC_BYTES);
    rsi_packet_put_16(data + 12, type);
}

void rsi_packet_write(struct rsi_port_frame *frame, const struct rsi_packet_end *from,
                      const struct rsi_packet_end *to, struct rsi_datagram_header *header)
{
    uint8_t *data = frame->data;
    uint32_t datagram_bytes = RSI_DATAGRAM_HEADER_BYTES + (uint32_t)header->bytes;
    write_ethernet(data, to->mac, from->mac, RSI_ETHERNET_TYPE_IPV4);

    uint8_t *ipv4 = data + IPV4;
    memset(ipv4, 0, RSI_IPV4_BYTES);
    ipv4[0] = IPV4_VERSION_AND_LENGTH;
    rsi_packet_put_16(ipv4 + 2, (uint16_t)(RSI_IPV4_BYTES + RSI_UDP_BYTES + datagram_bytes));
    rsi_packet_put_16(ipv4 + 6, IPV4_DO_NOT_FRAGMENT);
    ipv4[8] = IPV4_TIME_TO_LIVE;
    ipv4[9] = PROTOCOL_UDP;
    rsi_packet_put_32(ipv4 + 12, from->address);
    rsi_packet_put_32(ipv4 + 16, to->address);
    rsi_packet_put_16(ipv4 + 10, ipv4_sum(ipv4));

    uint8_t *udp = data + UDP;
    rsi_packet_put_16(udp, from->port);
    rsi_packet_put_16(udp + 2, to->port);
    rsi_packet_put_16(udp + 4, (uint16_t)(RSI_UDP_BYTES + datagram_bytes));
    rsi_packet_put_16(udp + 6, 0);

    header->version = RSI_DATAGRAM_VERSION;
    header->checksum = 0;
    uint8_t *datagram = data + RSI_PACKET_HEADER_BYTES;
    memcpy(datagram, header, sizeof(*header));
    header->checksum = rsi_crc32c(datagram, datagram_bytes - frame->tail_bytes);
    if (frame->tail_bytes != 0) {
        header->checksum = rsi_crc32c_extend(header->checksum, frame->tail, frame->tail_bytes);
    }
    memcpy(datagram + CHECKSUM_OFFSET, &header->checksum, sizeof(header->checksum));
    frame->bytes = RSI_PACKET_HEADER_BYTES + datagram_bytes;
}

/* ---- ARP ------------------------------------------------------------------------------------- */

static const uint8_t arp_head[] = {0, 1, 0x08, 0x00, RSI_MAC_BYTES, 4, 0}; /* Ethernet, IPv4 */

enum { ARP_REQUEST = 1, ARP_REPLY = 2 };

bool rsi_packet_parse_arp(struct rsi_packet_arp *arp, const struct rsi_port_frame *frame)
{
    const uint8_t *body = frame->data + RSI_ETHERNET_BYTES;
    if (frame->bytes < RSI_ETHERNET_BYTES + ARP_BYTES ||
        memcmp(body, arp_head, sizeof(arp_head)) != 0 ||
        (body[7] != ARP_REQUEST && body[7] != ARP_REPLY)) {
        return false;
    }
    arp->is_request = body[7] == ARP_REQUEST;
    memcpy(arp->sender_mac, body + 8, RSI_MAC_BYTES);
    arp->sender_address = rsi_packet_get_32(body + 14);
    arp->target_address = rsi_packet_get_32(body + 24);
    return true;
}

void rsi_packet_write_arp(struct rsi_port_frame *frame, const struct rsi_packet_arp *arp,
                          const uint8_t *target_mac)
{
    static const uint8_t all[RSI_MAC_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint8_t *body = frame->data + RSI_ETHERNET_BYTES;
    memset(frame->data, 0, RSI_ETHERNET_BYTES_MIN);
    write_ethernet(frame->data, target_mac != NULL ? target_mac : all, arp->sender_mac,
                   RSI_ETHERNET_TYPE_ARP);
    memcpy(body, arp_head, sizeof(arp_head));
    body[7] = arp->is_request ? ARP_REQUEST : ARP_REPLY;
    memcpy(body + 8, arp->sender_mac, RSI_MAC_BYTES);
    rsi_packet_put_32(body + 14, arp->sender_address);
    if (target_mac != NULL) {
        memcpy(body + 18, target_mac, RSI_MAC_BYTES);
    }
    rsi_packet_put_32(body + 24, arp->target_address);
    frame->bytes = RSI_ETHERNET_BYTES_MIN;
}
