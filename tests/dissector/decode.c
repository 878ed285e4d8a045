/*
 * Design notes
 * - Whether a datagram is taken at all, and whether it is intact, is asked of packet.c. Bodies are
 *   copied into the structs of proto/datagram.h, as receive.c, lane.c and connect.c do it.
 * - A struct that is not all there is not read; the rest is "undecoded".
 */
#include "tests/dissector/decode.h"

#include "core/assert.h"
#include "proto/layout.h"

#include <inttypes.h>
#include <string.h>

#define FRAME_BYTES_MAX 16384u

struct reader {
    FILE *file;
    const uint8_t *frame;
    uint32_t at;   /* offset of what is next in the frame */
    uint32_t stop; /* behind the last byte of the datagram that was captured */
    bool is_cut;
    bool is_malformed;
    bool is_over; /* a struct was not all there */
};

static void put(const struct reader *reader, const char *name, size_t offset, size_t bytes,
                uint64_t value)
{
    fprintf(reader->file, "field %s %zu %zu %" PRIu64 "\n", name, offset, bytes, value);
}

/* Nothing for no bytes. */
static void put_raw(const struct reader *reader, const char *name, size_t offset, size_t bytes)
{
    if (bytes == 0) {
        return;
    }
    fprintf(reader->file, "raw %s %zu %zu ", name, offset, bytes);
    for (size_t i = 0; i < bytes; i++) {
        fprintf(reader->file, "%02x", reader->frame[offset + i]);
    }
    fprintf(reader->file, "\n");
}

#define PUT_HEADER(field)                                                                        \
    put(reader, #field, at + offsetof(struct rsi_datagram_header, field), sizeof(header->field), \
        header->field)
#define PUT(prefix, type, object, field)                                                \
    put(reader, #prefix "." #field, at + offsetof(type, field), sizeof((object).field), \
        (object).field)
#define PUT_RAW(prefix, type, object, field) \
    put_raw(reader, #prefix "." #field, at + offsetof(type, field), sizeof((object).field))

static uint32_t left(const struct reader *reader)
{
    return reader->stop - reader->at;
}

static void put_undecoded(struct reader *reader)
{
    put_raw(reader, "undecoded", reader->at, left(reader));
    reader->at = reader->stop;
}

/* Copies the struct that is next and sets where it was; false: it is not all there. */
static bool next(struct reader *reader, void *object, uint32_t bytes, uint32_t *at)
{
    if (reader->is_over || left(reader) < bytes) {
        reader->is_malformed = true;
        reader->is_over = true;
        return false;
    }
    memcpy(object, reader->frame + reader->at, bytes);
    *at = reader->at;
    reader->at += bytes;
    return true;
}

/* ---- structs --------------------------------------------------------------------------------- */

static void put_name(const struct reader *reader, const char *name, uint32_t at, uint32_t value)
{
    char part[32];
    put(reader, name, at, sizeof(value), value);
    snprintf(part, sizeof(part), "%s.index", name);
    put(reader, part, at, sizeof(value), value & ((1u << RSI_DATAGRAM_INDEX_BITS) - 1));
    snprintf(part, sizeof(part), "%s.generation", name);
    put(reader, part, at, sizeof(value), value >> RSI_DATAGRAM_INDEX_BITS);
}

static void put_header(const struct reader *reader, const struct rsi_datagram_header *header,
                       uint32_t at, uint32_t checksum_status)
{
    PUT_HEADER(version);
    PUT_HEADER(type);
    PUT_HEADER(flags);
    put(reader, "flags.state", at + 2, 1, (header->flags & RSI_DATAGRAM_FLAG_STATE) != 0);
    put(reader, "flags.reply", at + 2, 1, (header->flags & RSI_DATAGRAM_FLAG_REPLY) != 0);
    put(reader, "flags.attached", at + 2, 1, (header->flags & RSI_DATAGRAM_FLAG_ATTACHED) != 0);
    PUT_HEADER(reserved_0);
    put_name(reader, "connection", at + 4, header->connection);
    put_name(reader, "from", at + 8, header->from);
    PUT_HEADER(bytes);
    PUT_HEADER(reserved_1);
    PUT_HEADER(checksum);
    PUT_HEADER(timestamp_ns);
    PUT_HEADER(echo_ns);
    PUT_HEADER(reserved_2);
    PUT_HEADER(number);
    put(reader, "checksum.status", at + 16, 4, checksum_status);
}

static void take_hello(struct reader *reader)
{
    struct rsi_datagram_hello hello;
    uint32_t at;
    if (next(reader, &hello, sizeof(hello), &at)) {
        PUT(hello, struct rsi_datagram_hello, hello, nonce);
        PUT(hello, struct rsi_datagram_hello, hello, cookie_time);
        PUT(hello, struct rsi_datagram_hello, hello, mtu);
        PUT(hello, struct rsi_datagram_hello, hello, reason);
        PUT_RAW(hello, struct rsi_datagram_hello, hello, cookie);
    }
}

static void take_greeting(struct reader *reader)
{
    struct rsi_greeting greeting;
    uint32_t at;
    if (next(reader, &greeting, sizeof(greeting), &at)) {
        PUT(greeting, struct rsi_greeting, greeting, magic);
        PUT(greeting, struct rsi_greeting, greeting, version_min);
        PUT(greeting, struct rsi_greeting, greeting, version_max);
        PUT(greeting, struct rsi_greeting, greeting, control_credit);
        PUT(greeting, struct rsi_greeting, greeting, batch_credit);
        PUT(greeting, struct rsi_greeting, greeting, ring_bytes_max);
        PUT(greeting, struct rsi_greeting, greeting, agent_hint);
        PUT(greeting, struct rsi_greeting, greeting, nonce);
        PUT(greeting, struct rsi_greeting, greeting, incarnation);
        PUT_RAW(greeting, struct rsi_greeting, greeting, reserved);
    }
}

static void take_reset(struct reader *reader)
{
    struct rsi_datagram_reset reset;
    uint32_t at;
    if (next(reader, &reset, sizeof(reset), &at)) {
        PUT(reset, struct rsi_datagram_reset, reset, number);
    }
}

static void take_state(struct reader *reader)
{
    struct rsi_datagram_state state;
    uint32_t at;
    if (next(reader, &state, sizeof(state), &at)) {
        PUT(state, struct rsi_datagram_state, state, received_pos);
        PUT(state, struct rsi_datagram_state, state, arrived_pos);
        PUT(state, struct rsi_datagram_state, state, consumed_pos);
        PUT(state, struct rsi_datagram_state, state, number_limit);
        PUT(state, struct rsi_datagram_state, state, sent_pos);
        PUT(state, struct rsi_datagram_state, state, state_seen);
        PUT(state, struct rsi_datagram_state, state, lane_received);
        PUT(state, struct rsi_datagram_state, state, control_limit);
        PUT(state, struct rsi_datagram_state, state, wake_arrived_at_least);
        PUT(state, struct rsi_datagram_state, state, wake_consumed_at_least);
        PUT(state, struct rsi_datagram_state, state, wake_generation);
        PUT(state, struct rsi_datagram_state, state, wake_answered);
    }
}

static void put_frame_header(const struct reader *reader, uint32_t at, uint64_t frame_bytes)
{
    struct rsi_frame_header header;
    memcpy(&header, reader->frame + at, sizeof(header));
    put(reader, "frame.bytes", at, 3, frame_bytes);
    PUT(frame, struct rsi_frame_header, header, commit);
    PUT(frame, struct rsi_frame_header, header, payload_bytes);
    PUT(frame, struct rsi_frame_header, header, type);
    PUT(frame, struct rsi_frame_header, header, flags);
    PUT(frame, struct rsi_frame_header, header, headers_bytes);
    PUT(frame, struct rsi_frame_header, header, publication);
    PUT(frame, struct rsi_frame_header, header, generation);
    PUT(frame, struct rsi_frame_header, header, entry_count);
    PUT(frame, struct rsi_frame_header, header, sequence);
    PUT(frame, struct rsi_frame_header, header, publish_time_ns);
}

static void take_data(struct reader *reader)
{
    struct rsi_datagram_data data;
    uint32_t at;
    if (!next(reader, &data, sizeof(data), &at)) {
        return;
    }
    PUT(data, struct rsi_datagram_data, data, position);
    uint32_t bytes = left(reader);
    reader->is_malformed = bytes == 0 || ((data.position | bytes) & 7) != 0;
    put_raw(reader, "data.ring_bytes", reader->at, bytes);
    uint64_t offset = 0;
    while (offset + RSI_FRAME_HEADER_BYTES <= bytes) {
        uint64_t word;
        memcpy(&word, reader->frame + reader->at + offset, sizeof(word));
        uint64_t frame_bytes = rsi_commit_frame_bytes(word, data.position + offset);
        if (frame_bytes >= RSI_FRAME_HEADER_BYTES) {
            put_frame_header(reader, reader->at + (uint32_t)offset, frame_bytes);
            offset += frame_bytes;
        } else {
            offset += 8;
        }
    }
    reader->at = reader->stop;
}

static void take_ranges(struct reader *reader)
{
    while (left(reader) != 0) {
        struct rsi_datagram_range range;
        uint32_t at;
        if (!next(reader, &range, sizeof(range), &at)) {
            return;
        }
        PUT(range, struct rsi_datagram_range, range, start_pos);
        PUT(range, struct rsi_datagram_range, range, end_pos);
        reader->is_malformed = reader->is_malformed || range.start_pos >= range.end_pos ||
                               ((range.start_pos | range.end_pos) & 7) != 0;
    }
}

static void take_attach(struct reader *reader, uint32_t at)
{
    struct rsi_attach attach;
    memcpy(&attach, reader->frame + at, sizeof(attach));
    PUT(attach, struct rsi_attach, attach, in_ring_bytes);
    PUT(attach, struct rsi_attach, attach, in_start_pos);
    PUT(attach, struct rsi_attach, attach, words_address);
    PUT(attach, struct rsi_attach, attach, ring_address);
    PUT(attach, struct rsi_attach, attach, key);
    PUT(attach, struct rsi_attach, attach, batch_credit);
    PUT(attach, struct rsi_attach, attach, reserved);
}

static void take_record(struct reader *reader, const struct rsi_datagram_lane *head)
{
    uint32_t bytes = head->bytes;
    if (head->kind == RSI_RECORD_CONTROL) {
        reader->is_malformed = reader->is_malformed || bytes == 0 || bytes > 512;
        put_raw(reader, "lane.control", reader->at, bytes);
    } else if (head->kind == RSI_RECORD_CLOSE) {
        put_raw(reader, "lane.text", reader->at, bytes);
    } else if (head->kind == RSI_RECORD_ATTACH && bytes == sizeof(struct rsi_attach)) {
        take_attach(reader, reader->at);
    } else {
        reader->is_malformed = true;
        put_raw(reader, "undecoded", reader->at, bytes);
    }
}

static void take_lane(struct reader *reader)
{
    while (left(reader) != 0) {
        struct rsi_datagram_lane head;
        uint32_t at;
        if (!next(reader, &head, sizeof(head), &at)) {
            return;
        }
        PUT(lane, struct rsi_datagram_lane, head, sequence);
        PUT(lane, struct rsi_datagram_lane, head, bytes);
        PUT(lane, struct rsi_datagram_lane, head, kind);
        PUT(lane, struct rsi_datagram_lane, head, reserved_0);
        PUT(lane, struct rsi_datagram_lane, head, reserved_1);
        uint32_t padded_bytes = ((uint32_t)head.bytes + 7) & ~7u;
        if (padded_bytes > left(reader)) {
            reader->is_malformed = true;
            return;
        }
        take_record(reader, &head);
        put_raw(reader, "lane.padding", reader->at + head.bytes, padded_bytes - head.bytes);
        reader->at += padded_bytes;
    }
}

static void take_probe(struct reader *reader, bool is_ack)
{
    struct rsi_datagram_probe probe;
    uint32_t body_bytes = left(reader);
    uint32_t at;
    if (!next(reader, &probe, sizeof(probe), &at)) {
        return;
    }
    PUT(probe, struct rsi_datagram_probe, probe, mtu);
    PUT(probe, struct rsi_datagram_probe, probe, reserved);
    if (!is_ack) {
        put_raw(reader, "probe.padding", reader->at, left(reader));
        reader->at = reader->stop;
        reader->is_malformed = body_bytes != rsi_packet_body_bytes_max(probe.mtu);
    }
}

/* ---- datagrams ------------------------------------------------------------------------------- */

static void take_body(struct reader *reader, const struct rsi_datagram_header *header)
{
    if ((header->flags & RSI_DATAGRAM_FLAG_STATE) != 0 && header->type >= RSI_DATAGRAM_DATA &&
        header->type <= RSI_DATAGRAM_LANE) {
        take_state(reader);
    }
    switch (reader->is_over ? 0 : header->type) {
    case RSI_DATAGRAM_HELLO:
    case RSI_DATAGRAM_COOKIE:
    case RSI_DATAGRAM_REFUSE:
        take_hello(reader);
        break;
    case RSI_DATAGRAM_OPEN:
    case RSI_DATAGRAM_ACCEPT:
        take_hello(reader);
        if (!reader->is_over) {
            take_greeting(reader);
        }
        break;
    case RSI_DATAGRAM_RESET:
        take_reset(reader);
        break;
    case RSI_DATAGRAM_DATA:
        take_data(reader);
        break;
    case RSI_DATAGRAM_STATE:
        take_ranges(reader);
        break;
    case RSI_DATAGRAM_LANE:
        take_lane(reader);
        break;
    case RSI_DATAGRAM_PROBE:
    case RSI_DATAGRAM_PROBE_ACK:
        take_probe(reader, header->type == RSI_DATAGRAM_PROBE_ACK);
        break;
    default:
        break;
    }
}

/* Whether it carries a datagram, or at least the beginning of one: a frame may have lost its end.
 */
static bool has_datagram(const struct rsi_port_frame *whole)
{
    const uint8_t *udp = whole->data + RSI_ETHERNET_BYTES + RSI_IPV4_BYTES;
    return rsi_packet_ethernet_type(whole) == RSI_ETHERNET_TYPE_IPV4 &&
           whole->bytes > RSI_PACKET_HEADER_BYTES &&
           whole->bytes <= RSI_ETHERNET_BYTES + RSI_IPV4_BYTES + rsi_packet_get_16(udp + 4);
}

static bool is_known(uint8_t type)
{
    return type >= RSI_DATAGRAM_HELLO && type <= RSI_DATAGRAM_PROBE_ACK;
}

enum { BAD = 0, GOOD = 1, UNVERIFIED = 2 };

static uint32_t checksum_status(const struct rsi_port_frame *whole, const struct reader *reader)
{
    static uint8_t copy[FRAME_BYTES_MAX];
    struct rsi_port_frame frame = {.data = copy, .bytes = whole->bytes};
    struct rsi_packet packet;
    memcpy(copy, whole->data, whole->bytes);
    if (reader->is_cut) {
        return UNVERIFIED;
    }
    /* What is not even parsed may have a length of its own: the checksum is over what came. */
    if (!rsi_packet_parse(&packet, &frame)) {
        memcpy(&packet.header, copy + RSI_PACKET_HEADER_BYTES, sizeof(packet.header));
        packet.header.bytes = (uint16_t)(whole->bytes - RSI_PACKET_BODY_OFFSET);
    }
    return rsi_packet_is_intact(&packet, &frame) ? GOOD : BAD;
}

static void put_expert(const struct reader *reader, const char *name, bool applies)
{
    if (applies) {
        fprintf(reader->file, "expert %s\n", name);
    }
}

void decode_frame(FILE *file, const struct rsi_port_frame *whole, uint32_t captured_bytes)
{
    struct reader *reader = &(struct reader){
        .file = file,
        .frame = whole->data,
        .at = RSI_PACKET_HEADER_BYTES,
        .stop = captured_bytes,
        .is_cut = captured_bytes < whole->bytes,
    };
    fprintf(file, "frame\n");
    if (!has_datagram(whole)) {
        return;
    }
    struct rsi_datagram_header header = {0};
    uint32_t status = UNVERIFIED;
    bool is_taken = false;
    uint32_t at;
    if (next(reader, &header, sizeof(header), &at)) {
        struct rsi_packet packet;
        is_taken = rsi_packet_parse(&packet, whole);
        status = checksum_status(whole, reader);
        put_header(reader, &header, at, status);
    }
    if (is_taken) {
        take_body(reader, &header);
    }
    put_undecoded(reader);
    bool is_other_version = !reader->is_over && !is_taken &&
                            header.version != RSI_DATAGRAM_VERSION &&
                            header.bytes == whole->bytes - RSI_PACKET_BODY_OFFSET;
    bool is_bad = reader->is_malformed || (!is_taken && !is_other_version);
    put_expert(reader, "malformed", is_bad && !reader->is_cut);
    put_expert(reader, "cut", is_bad && reader->is_cut);
    put_expert(reader, "version.unknown", is_other_version);
    put_expert(reader, "type.unknown", is_taken && !is_known(header.type));
    put_expert(reader, "checksum.bad", status == BAD);
}
