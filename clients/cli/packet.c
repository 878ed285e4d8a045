/*
 * Design notes
 * - A cursor holds what is left of the packet, twice: what was captured and what was on the wire.
 * Each layer takes its header from the captured bytes, and limits the wire bytes to what its own
 * length field says. So "truncated" (the capture is short) and "malformed" (the packet lies) are
 * told apart in one place: cursor_take.
 * - Sources: the link type list of tcpdump.org, RFC 791, RFC 8200, RFC 768, IEEE 802.1Q.
 */
#include "clients/cli/packet.h"

#include "core/compiler.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pcap/dlt.h>
#include <string.h>

enum {
    ETHERTYPE_IPV4 = 0x0800,
    ETHERTYPE_IPV6 = 0x86dd,
    ETHERTYPE_VLAN = 0x8100,
    ETHERTYPE_PROVIDER_VLAN = 0x88a8,
    ETHERTYPE_OLD_PROVIDER_VLAN = 0x9100,
    VLAN_TAG_COUNT_MAX = 4,
    IPV6_EXTENSION_COUNT_MAX = 8,
    IPV4_HEADER_BYTES = 20,
    IPV6_HEADER_BYTES = 40,
    UDP_HEADER_BYTES = 8,
};

struct cursor {
    const uint8_t *at;
    size_t captured_bytes;
    size_t wire_bytes; /* >= captured_bytes */
};

static uint16_t read_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

/* NULL: not there, and *kind says why. */
static const uint8_t *cursor_take(struct cursor *cursor, size_t bytes, rsi_packet_kind_t *kind)
{
    if (cursor->captured_bytes < bytes) {
        *kind = cursor->wire_bytes < bytes ? RSI_PACKET_MALFORMED : RSI_PACKET_TRUNCATED;
        return NULL;
    }
    const uint8_t *taken = cursor->at;
    cursor->at += bytes;
    cursor->captured_bytes -= bytes;
    cursor->wire_bytes -= bytes;
    return taken;
}

/* What lies beyond `bytes` is padding. False: the packet says more than there was. */
static bool cursor_limit(struct cursor *cursor, size_t bytes)
{
    if (bytes > cursor->wire_bytes) {
        return false;
    }
    cursor->wire_bytes = bytes;
    if (cursor->captured_bytes > bytes) {
        cursor->captured_bytes = bytes;
    }
    return true;
}

static rsi_packet_kind_t decode_udp(struct cursor *cursor, struct rsi_datagram *datagram)
{
    rsi_packet_kind_t kind = RSI_PACKET_UDP;
    const uint8_t *header = cursor_take(cursor, UDP_HEADER_BYTES, &kind);
    if (header == NULL) {
        return kind;
    }
    size_t udp_bytes = read_u16(header + 4);
    if (udp_bytes < UDP_HEADER_BYTES || !cursor_limit(cursor, udp_bytes - UDP_HEADER_BYTES)) {
        return RSI_PACKET_MALFORMED;
    }
    if (cursor->captured_bytes < cursor->wire_bytes) {
        return RSI_PACKET_TRUNCATED;
    }
    datagram->payload = cursor->at;
    datagram->payload_bytes = cursor->captured_bytes;
    datagram->source_port = read_u16(header);
    datagram->destination_port = read_u16(header + 2);
    return RSI_PACKET_UDP;
}

static rsi_packet_kind_t decode_ipv4(struct cursor *cursor, struct rsi_datagram *datagram)
{
    rsi_packet_kind_t kind = RSI_PACKET_UDP;
    const uint8_t *header = cursor_take(cursor, IPV4_HEADER_BYTES, &kind);
    if (header == NULL) {
        return kind;
    }
    size_t header_bytes = (size_t)(header[0] & 15) * 4;
    size_t total_bytes = read_u16(header + 2);
    if (header[0] >> 4 != 4 || header_bytes < IPV4_HEADER_BYTES) {
        return RSI_PACKET_MALFORMED;
    }
    /* A total of 0 is what segmentation offload leaves in captures of sent packets. */
    if (total_bytes != 0 &&
        (total_bytes < header_bytes || !cursor_limit(cursor, total_bytes - IPV4_HEADER_BYTES))) {
        return RSI_PACKET_MALFORMED;
    }
    if (cursor_take(cursor, header_bytes - IPV4_HEADER_BYTES, &kind) == NULL) {
        return kind;
    }
    bool has_more_fragments = (read_u16(header + 6) & 0x2000) != 0;
    bool is_later_fragment = (read_u16(header + 6) & 0x1fff) != 0;
    if (header[9] != IPPROTO_UDP) {
        return RSI_PACKET_NOT_UDP;
    }
    if (has_more_fragments || is_later_fragment) {
        return RSI_PACKET_FRAGMENT;
    }
    datagram->source = (struct rsi_address){.is_ipv6 = false};
    datagram->destination = (struct rsi_address){.is_ipv6 = false};
    memcpy(datagram->source.bytes, header + 12, 4);
    memcpy(datagram->destination.bytes, header + 16, 4);
    return decode_udp(cursor, datagram);
}

/* Walks over one extension header. False: *kind says what the packet is. */
static bool skip_extension(struct cursor *cursor, uint8_t *next, rsi_packet_kind_t *kind)
{
    uint8_t extension = *next;
    const uint8_t *header = cursor_take(cursor, 8, kind);
    if (header == NULL) {
        return false;
    }
    *next = header[0];
    if (extension == IPPROTO_FRAGMENT) {
        /* Offset 0 and no more to come: a whole datagram all the same (RFC 6946). */
        *kind = RSI_PACKET_FRAGMENT;
        return (read_u16(header + 2) & 0xfff9) == 0;
    }
    size_t rest_bytes =
        extension == IPPROTO_AH ? ((size_t)header[1] + 2) * 4 - 8 : (size_t)header[1] * 8;
    return cursor_take(cursor, rest_bytes, kind) != NULL;
}

static bool is_extension(uint8_t protocol)
{
    return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
           protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_AH;
}

static rsi_packet_kind_t decode_ipv6(struct cursor *cursor, struct rsi_datagram *datagram)
{
    rsi_packet_kind_t kind = RSI_PACKET_UDP;
    const uint8_t *header = cursor_take(cursor, IPV6_HEADER_BYTES, &kind);
    if (header == NULL) {
        return kind;
    }
    if (header[0] >> 4 != 6) {
        return RSI_PACKET_MALFORMED;
    }
    size_t payload_bytes = read_u16(header + 4);
    if (payload_bytes != 0 && !cursor_limit(cursor, payload_bytes)) {
        return RSI_PACKET_MALFORMED;
    }
    uint8_t next = header[6];
    for (int i = 0; is_extension(next); i++) {
        if (i == IPV6_EXTENSION_COUNT_MAX) {
            return RSI_PACKET_MALFORMED;
        }
        if (!skip_extension(cursor, &next, &kind)) {
            return kind;
        }
    }
    if (next != IPPROTO_UDP) {
        return RSI_PACKET_NOT_UDP;
    }
    datagram->source.is_ipv6 = true;
    datagram->destination.is_ipv6 = true;
    memcpy(datagram->source.bytes, header + 8, 16);
    memcpy(datagram->destination.bytes, header + 24, 16);
    return decode_udp(cursor, datagram);
}

static rsi_packet_kind_t decode_ethertype(struct cursor *cursor, uint16_t type,
                                          struct rsi_datagram *datagram)
{
    for (int i = 0; i < VLAN_TAG_COUNT_MAX; i++) {
        if (type != ETHERTYPE_VLAN && type != ETHERTYPE_PROVIDER_VLAN &&
            type != ETHERTYPE_OLD_PROVIDER_VLAN) {
            break;
        }
        rsi_packet_kind_t kind = RSI_PACKET_UDP;
        const uint8_t *tag = cursor_take(cursor, 4, &kind);
        if (tag == NULL) {
            return kind;
        }
        type = read_u16(tag + 2);
    }
    if (type == ETHERTYPE_IPV4) {
        return decode_ipv4(cursor, datagram);
    }
    if (type == ETHERTYPE_IPV6) {
        return decode_ipv6(cursor, datagram);
    }
    return RSI_PACKET_NOT_IP;
}

static rsi_packet_kind_t decode_by_version(struct cursor *cursor, struct rsi_datagram *datagram)
{
    if (cursor->captured_bytes == 0) {
        return cursor->wire_bytes == 0 ? RSI_PACKET_MALFORMED : RSI_PACKET_TRUNCATED;
    }
    switch (cursor->at[0] >> 4) {
    case 4:
        return decode_ipv4(cursor, datagram);
    case 6:
        return decode_ipv6(cursor, datagram);
    default:
        return RSI_PACKET_NOT_IP;
    }
}

bool rsi_packet_link_is_known(int link_type)
{
    switch (link_type) {
    case DLT_EN10MB:
    case DLT_LINUX_SLL:
    case DLT_LINUX_SLL2:
    case DLT_NULL:
    case DLT_LOOP:
    case DLT_RAW:
    case DLT_IPV4:
    case DLT_IPV6:
        return true;
    default:
        return false;
    }
}

rsi_packet_kind_t rsi_packet_decode(int link_type, const uint8_t *packet, size_t captured_bytes,
                                    size_t wire_bytes, struct rsi_datagram *datagram)
{
    struct cursor cursor = {packet, captured_bytes,
                            wire_bytes < captured_bytes ? captured_bytes : wire_bytes};
    rsi_packet_kind_t kind = RSI_PACKET_UDP;
    const uint8_t *header;
    switch (link_type) {
    case DLT_EN10MB:
        header = cursor_take(&cursor, 14, &kind);
        return header == NULL ? kind : decode_ethertype(&cursor, read_u16(header + 12), datagram);
    case DLT_LINUX_SLL:
        header = cursor_take(&cursor, 16, &kind);
        return header == NULL ? kind : decode_ethertype(&cursor, read_u16(header + 14), datagram);
    case DLT_LINUX_SLL2:
        header = cursor_take(&cursor, 20, &kind);
        return header == NULL ? kind : decode_ethertype(&cursor, read_u16(header), datagram);
    case DLT_NULL:
    case DLT_LOOP:
        header = cursor_take(&cursor, 4, &kind);
        return header == NULL ? kind : decode_by_version(&cursor, datagram);
    default:
        return decode_by_version(&cursor, datagram);
    }
}

const char *rsi_packet_kind_name(rsi_packet_kind_t kind)
{
    static const char *const names[RSI_PACKET_KIND_COUNT] = {
        [RSI_PACKET_UDP] = "UDP datagrams",   [RSI_PACKET_NOT_IP] = "not IP",
        [RSI_PACKET_NOT_UDP] = "not UDP",     [RSI_PACKET_FRAGMENT] = "fragments",
        [RSI_PACKET_TRUNCATED] = "truncated", [RSI_PACKET_MALFORMED] = "malformed",
    };
    return names[kind];
}

void rsi_address_write(const struct rsi_address *address, char *text, size_t text_bytes)
{
    text[0] = '\0';
    (void)inet_ntop(address->is_ipv6 ? AF_INET6 : AF_INET, address->bytes, text,
                    (socklen_t)text_bytes);
}
