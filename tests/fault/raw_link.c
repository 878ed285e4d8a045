/*
 * Design notes
 * - Nothing is smart: what was not confirmed goes out again whenever nothing came for a while.
 * - What this side says of itself (`told`) follows what came, but consumed_pos, which the test
 * sets: so a lie that the test puts there stays.
 * - A datagram for another name at this address is answered with RESET, as by any station: so the
 *   broker gets rid at once of links whose peer was closed here.
 * - After an end that the broker tells by nothing (it dropped the link), the next question is
 *   answered with RESET.
 */
#include "tests/fault/raw_link.h"

#include "transport/auth.h"

#include <arpa/inet.h>
#include <stdlib.h>

enum { QUIET_MS = 10, LEAVE_COUNT = 20 };

/* ---- sending -----------------------------------------------------------------------------------
 */

static void send_datagram(struct raw_link *link, struct rsi_datagram_header *header,
                          const void *body)
{
    raw_end_send_datagram(&link->end, &link->end.own, &link->broker, header, body);
}

void raw_link_send_hello(struct raw_link *link, uint8_t type,
                         const struct rsi_datagram_hello *hello,
                         const struct rsi_greeting *greeting)
{
    uint8_t body[sizeof(*hello) + sizeof(*greeting)];
    struct rsi_datagram_header header = {.type = type, .from = link->name, .bytes = sizeof(*hello)};
    memcpy(body, hello, sizeof(*hello));
    if (greeting != NULL) {
        memcpy(body + sizeof(*hello), greeting, sizeof(*greeting));
        header.bytes = sizeof(body);
    }
    send_datagram(link, &header, body);
}

void raw_link_say_open(struct raw_link *link, const struct rsi_greeting *greeting)
{
    link->greeting = *greeting;
    raw_link_send_hello(link, RSI_DATAGRAM_OPEN, &link->cookie, greeting);
}

void raw_link_send(struct raw_link *link, uint8_t type, uint8_t flags, const void *body,
                   size_t bytes)
{
    struct rsi_datagram_header header = {
        .type = type,
        .flags = flags,
        .connection = link->connection,
        .from = link->name,
        .bytes = (uint16_t)bytes,
        .number = ++link->number,
    };
    send_datagram(link, &header, body);
}

void raw_link_send_state(struct raw_link *link, uint8_t flags, const void *behind, size_t bytes)
{
    uint8_t body[RAW_BODY_BYTES];
    check(sizeof(link->told) + bytes <= sizeof(body), "a state of %zu bytes", bytes);
    memcpy(body, &link->told, sizeof(link->told));
    if (bytes != 0) {
        memcpy(body + sizeof(link->told), behind, bytes);
    }
    flags |= RSI_DATAGRAM_FLAG_STATE | (link->is_attached ? RSI_DATAGRAM_FLAG_ATTACHED : 0);
    raw_link_send(link, RSI_DATAGRAM_STATE, flags, body, sizeof(link->told) + bytes);
    link->owes_state = false;
}

void raw_link_send_data(struct raw_link *link, uint64_t position, const void *bytes, size_t count)
{
    uint8_t body[RAW_BODY_BYTES];
    const struct rsi_datagram_data data = {.position = position};
    check(sizeof(data) + count <= sizeof(body), "data of %zu bytes", count);
    memcpy(body, &data, sizeof(data));
    memcpy(body + sizeof(data), bytes, count);
    raw_link_send(link, RSI_DATAGRAM_DATA, 0, body, sizeof(data) + count);
}

/* From `start_pos` on, in whole datagrams. */
static void send_out(struct raw_link *link, uint64_t start_pos)
{
    const uint64_t step_bytes = 1024;
    for (uint64_t pos = start_pos; pos < link->told.sent_pos; pos += step_bytes) {
        uint64_t left_bytes = link->told.sent_pos - pos;
        raw_link_send_data(link, pos, link->out + pos,
                           left_bytes < step_bytes ? left_bytes : step_bytes);
    }
}

void raw_link_publish(struct raw_link *link, const void *bytes, size_t count)
{
    uint64_t position = link->told.sent_pos;
    check(position + count <= sizeof(link->out), "past the ring's end");
    memcpy(link->out + position, bytes, count);
    link->told.sent_pos += count;
    send_out(link, position);
}

static void send_record(struct raw_link *link, uint64_t sequence,
                        const struct raw_lane_record *record)
{
    uint8_t body[sizeof(struct rsi_datagram_lane) + RSI_CONTROL_BYTES_MAX] = {0};
    const struct rsi_datagram_lane head = {
        .sequence = sequence, .bytes = record->told_bytes, .kind = record->kind};
    memcpy(body, &head, sizeof(head));
    memcpy(body + sizeof(head), record->data, record->bytes);
    raw_link_send(link, RSI_DATAGRAM_LANE, 0, body, sizeof(head) + ((record->bytes + 7u) & ~7u));
}

static struct raw_lane_record make_record(uint8_t kind, const void *data, size_t bytes)
{
    struct raw_lane_record record = {
        .kind = kind, .bytes = (uint16_t)bytes, .told_bytes = (uint16_t)bytes};
    check(bytes <= sizeof(record.data), "a record of %zu bytes", bytes);
    memcpy(record.data, data, bytes);
    return record;
}

void raw_link_try_record(struct raw_link *link, uint8_t kind, const void *data, size_t bytes)
{
    const struct raw_lane_record record = make_record(kind, data, bytes);
    send_record(link, link->lane_sent++, &record);
}

static bool has_room(const struct raw_link *link)
{
    return link->connection != 0 && link->lane_sent < link->heard.lane_received + RAW_LANE_WINDOW;
}

bool raw_link_record(struct raw_link *link, uint8_t kind, uint16_t told_bytes, const void *data,
                     size_t bytes)
{
    uint64_t until_ns = now_ns() + hang_ns();
    while (!link->has_ended && !has_room(link)) {
        raw_link_wait(link, until_ns, "room for a record");
    }
    if (link->has_ended) {
        return false;
    }
    struct raw_lane_record *record = &link->open[link->lane_sent % RAW_LANE_WINDOW];
    *record = make_record(kind, data, bytes);
    record->told_bytes = told_bytes;
    send_record(link, link->lane_sent++, record);
    raw_link_look(link, 0);
    return !link->has_ended;
}

/* With what is lacking up to what the broker has sent. */
static void say_state(struct raw_link *link, uint8_t flags)
{
    const struct rsi_datagram_range lacking = {.start_pos = link->told.received_pos,
                                               .end_pos = link->heard.sent_pos};
    bool lacks = link->is_attached && !link->is_deaf && lacking.start_pos < lacking.end_pos;
    raw_link_send_state(link, flags, &lacking, lacks ? sizeof(lacking) : 0);
}

void raw_link_ask(struct raw_link *link)
{
    if (link->connection == 0) {
        if (link->greeting.magic != 0) {
            raw_link_send_hello(link, RSI_DATAGRAM_OPEN, &link->cookie, &link->greeting);
        }
        return;
    }
    for (uint64_t i = link->heard.lane_received;
         i < link->lane_sent && i < link->heard.lane_received + RAW_LANE_WINDOW; i++) {
        send_record(link, i, &link->open[i % RAW_LANE_WINDOW]);
    }
    send_out(link, link->heard.received_pos);
    say_state(link, RSI_DATAGRAM_FLAG_REPLY);
}

/* ---- receiving ---------------------------------------------------------------------------------
 */

static bool put(struct raw_link *link, uint8_t kind, const void *data, size_t bytes)
{
    if (link->came_count - link->taken_count == RAW_INBOX_COUNT) {
        return false; /* it comes again */
    }
    link->inbox[link->came_count++ % RAW_INBOX_COUNT] = make_record(kind, data, bytes);
    return true;
}

static void take_lane(struct raw_link *link, const uint8_t *body, size_t bytes)
{
    struct rsi_datagram_lane head;
    link->owes_state = true;
    while (bytes >= sizeof(head)) {
        memcpy(&head, body, sizeof(head));
        size_t record_bytes = sizeof(head) + ((head.bytes + 7u) & ~7u);
        check(record_bytes <= bytes, "the broker sent a lane record of %u bytes", head.bytes);
        if (head.sequence == link->told.lane_received) {
            if (!put(link, head.kind, body + sizeof(head), head.bytes)) {
                return;
            }
            link->told.lane_received++;
        }
        body += record_bytes;
        bytes -= record_bytes;
    }
}

/* Only what follows without a hole; the rest comes again. */
static void take_data(struct raw_link *link, const uint8_t *body, size_t bytes)
{
    struct rsi_datagram_data data;
    memcpy(&data, body, sizeof(data));
    body += sizeof(data);
    bytes -= sizeof(data);
    link->owes_state = true;
    if (data.position != link->told.received_pos || link->is_deaf) {
        return;
    }
    if (data.position + bytes <= sizeof(link->in)) {
        memcpy(link->in + data.position, body, bytes);
    }
    link->told.received_pos += bytes;
}

static void take_of_link(struct raw_link *link, const struct rsi_packet *packet)
{
    const uint8_t *body = packet->body;
    size_t bytes = packet->header.bytes;
    link->newest_number =
        packet->header.number > link->newest_number ? packet->header.number : link->newest_number;
    link->owes_state |= (packet->header.flags & RSI_DATAGRAM_FLAG_REPLY) != 0;
    if ((packet->header.flags & RSI_DATAGRAM_FLAG_STATE) != 0) {
        if (packet->header.number > link->heard_number) {
            link->heard_number = packet->header.number;
            memcpy(&link->heard, body, sizeof(link->heard));
            link->told.state_seen = link->heard_number;
            link->told.wake_answered = link->heard.wake_generation;
        }
        body += sizeof(link->heard);
        bytes -= sizeof(link->heard);
    }
    if (packet->header.type == RSI_DATAGRAM_LANE) {
        take_lane(link, body, bytes);
    } else if (packet->header.type == RSI_DATAGRAM_DATA) {
        take_data(link, body, bytes);
    }
    link->told.control_limit = link->taken_count + RAW_INBOX_COUNT;
    link->told.number_limit = link->newest_number + 1000000;
}

/* For another one, of the same address. */
static void answer_reset(struct raw_link *link, const struct rsi_packet *packet)
{
    const struct rsi_datagram_reset reset = {.number = packet->header.number};
    struct rsi_datagram_header header = {.type = RSI_DATAGRAM_RESET,
                                         .connection = packet->header.from,
                                         .from = packet->header.connection,
                                         .bytes = sizeof(reset)};
    send_datagram(link, &header, &reset);
}

static void take_handshake(struct raw_link *link, const struct rsi_packet *packet)
{
    struct rsi_datagram_hello hello;
    memcpy(&hello, packet->body, sizeof(hello));
    if (hello.nonce != link->nonce) {
        return;
    }
    if (packet->header.type == RSI_DATAGRAM_COOKIE) {
        link->cookie = hello;
        link->cookie.mtu = RAW_FRAME_BYTES_MAX - RSI_ETHERNET_BYTES;
    } else if (packet->header.type == RSI_DATAGRAM_REFUSE) {
        link->has_ended = true;
    } else if (link->connection == 0) {
        link->connection = packet->header.from;
        link->owes_state = true;
        (void)put(link, RSI_RECORD_GREETING, packet->body + sizeof(hello),
                  sizeof(struct rsi_greeting));
        link->told.control_limit = RAW_INBOX_COUNT;
    }
}

static void take(struct raw_link *link, const struct raw_frame *frame)
{
    struct rsi_packet packet;
    if (!rsi_packet_parse(&packet, &frame->frame) ||
        packet.target_address != link->end.own.address ||
        packet.source.address != link->broker.address) {
        return;
    }
    bool is_of_link = packet.header.type >= RSI_DATAGRAM_RESET;
    if (packet.header.connection != link->name) {
        if (packet.header.type > RSI_DATAGRAM_RESET) {
            answer_reset(link, &packet);
        }
    } else if (!is_of_link) {
        take_handshake(link, &packet);
    } else if (packet.header.type == RSI_DATAGRAM_RESET) {
        link->has_ended = true;
    } else if (link->connection != 0) {
        take_of_link(link, &packet);
    }
}

void raw_link_look(struct raw_link *link, int wait_ms)
{
    struct raw_frame frame;
    while (raw_end_receive(&link->end, &frame, wait_ms)) {
        take(link, &frame);
        wait_ms = 0;
    }
    if (link->owes_state && link->connection != 0) {
        say_state(link, 0);
    }
}

void raw_link_wait(struct raw_link *link, uint64_t until_ns, const char *what)
{
    uint64_t before = link->newest_number;
    raw_link_look(link, QUIET_MS);
    check(link->has_ended || now_ns() < until_ns, "a peer waits in vain for %s", what);
    if (!link->has_ended && link->newest_number == before) {
        raw_link_ask(link);
    }
}

bool raw_link_receive(struct raw_link *link, struct raw_lane_record *record)
{
    uint64_t until_ns = now_ns() + hang_ns();
    while (link->taken_count == link->came_count && !link->has_ended) {
        raw_link_wait(link, until_ns, "the broker");
    }
    if (link->taken_count == link->came_count) {
        return false;
    }
    *record = link->inbox[link->taken_count++ % RAW_INBOX_COUNT];
    if (record->kind == RSI_RECORD_CLOSE) {
        link->has_ended = true;
        return false;
    }
    return true;
}

/* ---- beginning and end -------------------------------------------------------------------------
 */

struct raw_link *raw_link_create(const char *host, uint16_t port)
{
    struct raw_link *link = calloc(1, sizeof(*link));
    struct in_addr address;
    check(link != NULL, "no memory");
    check(inet_pton(AF_INET, host, &address) == 1, "no address: %s", host);
    raw_end_open(&link->end);
    link->broker.address = ntohl(address.s_addr);
    link->broker.port = port;
    raw_end_resolve(&link->end, link->broker.address, link->broker.mac);
    check(rsi_auth_random(&link->nonce, sizeof(link->nonce), NULL) == RSI_OK &&
              rsi_auth_random(&link->name, sizeof(link->name), NULL) == RSI_OK,
          "no random numbers");
    link->name |= 1;
    const struct rsi_datagram_hello hello = {.nonce = link->nonce,
                                             .mtu = RAW_FRAME_BYTES_MAX - RSI_ETHERNET_BYTES};
    uint64_t until_ns = now_ns() + hang_ns();
    while (link->cookie.nonce == 0) {
        check(now_ns() < until_ns, "the broker gives no cookie");
        raw_link_send_hello(link, RSI_DATAGRAM_HELLO, &hello, NULL);
        raw_link_look(link, QUIET_MS);
    }
    return link;
}

/* CLOSE as the record that the broker takes next, until it says that it did or has forgotten. */
static void leave(struct raw_link *link)
{
    const struct raw_lane_record last = make_record(RSI_RECORD_CLOSE, "", 0);
    for (unsigned i = 0; i < LEAVE_COUNT && !link->has_ended; i++) {
        uint64_t sequence = link->heard.lane_received;
        send_record(link, sequence, &last);
        raw_link_look(link, QUIET_MS);
        if (sequence >= link->lane_sent && link->heard.lane_received > sequence) {
            return;
        }
    }
}

void raw_link_destroy(struct raw_link *link)
{
    if (link->connection != 0) {
        leave(link);
    }
    free(link);
}
