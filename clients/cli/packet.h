/*
 * The UDP datagram in a captured packet: Ethernet, VLAN tags, IPv4, IPv6, Linux cooked, raw IP.
 *
 * A capture is foreign input: every length in it is checked against what was captured.
 */
#ifndef RSI_CLI_PACKET_H
#define RSI_CLI_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum rsi_packet_kind {
    RSI_PACKET_UDP,       /* a whole datagram: the only kind with a payload */
    RSI_PACKET_NOT_IP,    /* ARP and the like */
    RSI_PACKET_NOT_UDP,   /* IP, but another protocol */
    RSI_PACKET_FRAGMENT,  /* a part of a datagram; parts are not put together */
    RSI_PACKET_TRUNCATED, /* the capture holds less of it than was on the wire */
    RSI_PACKET_MALFORMED, /* its lengths contradict each other */
    RSI_PACKET_KIND_COUNT,
} rsi_packet_kind_t;

struct rsi_address {
    uint8_t bytes[16]; /* IPv4 uses the first four */
    bool is_ipv6;
};

struct rsi_datagram {
    const uint8_t *payload; /* in the packet */
    size_t payload_bytes;
    struct rsi_address source;
    struct rsi_address destination;
    uint16_t source_port;
    uint16_t destination_port;
};

/* Whether packets of this libpcap link type (DLT_...) can be read. */
bool rsi_packet_link_is_known(int link_type);
/*
 * Decodes one packet of which `captured_bytes` of `wire_bytes` are there. `datagram` is filled when
 * the result is RSI_PACKET_UDP.
 */
rsi_packet_kind_t rsi_packet_decode(int link_type, const uint8_t *packet, size_t captured_bytes,
                                    size_t wire_bytes, struct rsi_datagram *datagram);
/* "fragments", "truncated", ...: for a list of what was left out. */
const char *rsi_packet_kind_name(rsi_packet_kind_t kind);
/* "10.0.0.1", "fe80::1"; `text` holds at least 46 bytes. */
void rsi_address_write(const struct rsi_address *address, char *text, size_t text_bytes);

#endif
