/*
 * Attacks of peers that write the frames of dpdk:// themselves: as nobody, as somebody else, and as
 * themselves with what cannot be.
 *
 * Design notes
 * - Frames may be lost, also those that the broker should end a link for: each lie is told until
 *   the link is ended.
 * - What a forger of addresses can do on an Ethernet without help of the switches is not judged:
 *   it can turn away the frames of others for as long as they do not speak. What is judged is that
 *   nobody misses anything when they do.
 */
#include "tests/fault/hostile.h"

enum {
    FLOOD_COUNT = 5000,
    OPEN_COUNT = 1000,
    WAIT_MS = 10,
    BROKER_NUMBER = 101, /* tests/system: addresses of the broker and its clients */
    READER_NUMBER = 114,
    WRITER_NUMBER = 113,
};

static void open_alive(struct siege *siege, struct raw_peer *peer, const char *name)
{
    raw_open(peer, &siege->at, name, RAW_SERVING);
    expect_alive(peer);
}

/* A newcomer is served. */
static void expect_service(struct siege *siege)
{
    struct raw_peer peer;
    open_alive(siege, &peer, "honest");
    raw_close(&peer);
}

/* ---- handshakes --------------------------------------------------------------------------------
 */

/* From any address, with a nonce and a cookie that are random. */
static void forge_handshake(struct siege *siege, struct raw_peer *peer, uint8_t type)
{
    struct {
        struct rsi_datagram_hello hello;
        struct rsi_greeting greeting;
    } body;
    struct rsi_datagram_header header = {.type = type,
                                         .from = (uint32_t)random_next(&siege->random) | 1,
                                         .bytes = type == RSI_DATAGRAM_OPEN ? sizeof(body)
                                                                            : sizeof(body.hello)};
    struct rsi_packet_end from = peer->link->end.own;
    from.address = (uint32_t)random_next(&siege->random);
    from.port = (uint16_t)random_next(&siege->random);
    siege_fill_randomly(siege, (uint8_t *)&body.hello, sizeof(body.hello));
    body.hello.cookie_time = peer->link->cookie.cookie_time;
    body.hello.mtu = peer->link->cookie.mtu;
    raw_make_greeting(peer, &body.greeting);
    raw_end_send_datagram(&peer->link->end, &from, &peer->link->broker, &header, &body);
}

void attack_forged_hellos(struct siege *siege)
{
    struct raw_peer peer;
    raw_open(&peer, &siege->at, "nobody", RAW_CONNECTED);
    (void)raw_end_count_arrived(&peer.link->end);
    for (unsigned i = 0; i < FLOOD_COUNT; i++) {
        forge_handshake(siege, &peer, RSI_DATAGRAM_HELLO);
        forge_handshake(siege, &peer, RSI_DATAGRAM_OPEN);
    }
    expect_service(siege);
    /* A cookie for a hello, which is as long; the other frames are questions for addresses. */
    uint64_t answer_count = raw_end_count_arrived(&peer.link->end);
    check(answer_count <= FLOOD_COUNT + FLOOD_COUNT / 10, "%" PRIu64 " answers to %d forged hellos",
          answer_count, FLOOD_COUNT);
    raw_close(&peer);
}

/* OPEN with this hello: the broker answers with nothing. */
static void try_open(struct raw_peer *peer, const struct rsi_datagram_hello *hello)
{
    struct rsi_greeting greeting;
    raw_make_greeting(peer, &greeting);
    raw_link_send_hello(peer->link, RSI_DATAGRAM_OPEN, hello, &greeting);
}

void attack_cookies(struct siege *siege)
{
    struct raw_peer peer;
    struct raw_peer another;
    raw_open(&peer, &siege->at, "thief", RAW_CONNECTED);
    raw_open(&another, &siege->at, "robbed", RAW_CONNECTED);
    const struct rsi_datagram_hello good = peer.link->cookie;
    struct rsi_datagram_hello hello;
    for (unsigned i = 0; i < sizeof(good.cookie); i++) {
        hello = good;
        hello.cookie[i] ^= (uint8_t)(1 + random_next(&siege->random) % 255);
        try_open(&peer, &hello);
    }
    for (unsigned i = 1; i < 5; i++) {
        hello = good;
        hello.cookie_time += i % 2 == 0 ? i : -i;
        try_open(&peer, &hello);
    }
    hello = good;
    hello.nonce++;
    try_open(&peer, &hello);
    hello = good;
    hello.mtu = 0;
    try_open(&peer, &hello);
    try_open(&peer, &another.link->cookie);
    try_open(&another, &good);
    raw_link_send_hello(peer.link, RSI_DATAGRAM_OPEN, &good, NULL); /* without a greeting */
    const uint32_t name = peer.link->name;
    peer.link->name++;
    try_open(&peer, &good);
    peer.link->name = name;
    const uint16_t port = peer.link->end.own.port;
    peer.link->end.own.port++;
    try_open(&peer, &good);
    peer.link->end.own.port = port;
    for (unsigned i = 0; i < 5; i++) {
        raw_link_look(peer.link, WAIT_MS);
        raw_link_look(another.link, WAIT_MS);
    }
    check(peer.link->connection == 0 && another.link->connection == 0,
          "the broker opened a link for a wrong cookie");
    raw_close(&another);
    raw_close(&peer);
}

void attack_repeated_opens(struct siege *siege)
{
    struct raw_peer peer;
    raw_open(&peer, &siege->at, "insistent", RAW_CONNECTED);
    const struct rsi_datagram_hello cookie = peer.link->cookie;
    for (unsigned i = 0; i < OPEN_COUNT; i++) {
        try_open(&peer, &cookie);
    }
    check(raw_greet(&peer) && raw_hello(&peer), "%s is not challenged", peer.name);
    raw_authenticate(&peer);
    raw_attach(&peer);
    raw_serve(&peer);
    for (unsigned i = 0; i < OPEN_COUNT; i++) {
        try_open(&peer, &cookie);
    }
    expect_alive(&peer);
    raw_close(&peer);
}

/* ---- frames ------------------------------------------------------------------------------------
 */

/* A datagram of the peer's own link that would end it, if it were taken. */
static void make_deadly(struct raw_peer *peer, struct raw_frame *frame)
{
    static const uint8_t zeros[64];
    struct rsi_datagram_header header = {
        .type = RSI_DATAGRAM_DATA,
        .connection = peer->link->connection,
        .from = peer->link->name,
        .bytes = sizeof(zeros),
        .number = ++peer->link->number,
    };
    frame->frame = (struct rsi_port_frame){.data = frame->data};
    memcpy(rsi_packet_body(&frame->frame), zeros, sizeof(zeros));
    rsi_packet_write(&frame->frame, &peer->link->end.own, &peer->link->broker, &header);
}

/* As the sender of a wrong length does it: with a right sum over the header. */
static void sum_ipv4(struct raw_frame *frame)
{
    uint8_t *ipv4 = frame->data + RSI_ETHERNET_BYTES;
    uint32_t sum = 0;
    rsi_packet_put_16(ipv4 + 10, 0);
    for (unsigned i = 0; i < RSI_IPV4_BYTES; i += 2) {
        sum += rsi_packet_get_16(ipv4 + i);
    }
    sum = (sum & 0xffff) + (sum >> 16);
    rsi_packet_put_16(ipv4 + 10, (uint16_t) ~((sum & 0xffff) + (sum >> 16)));
}

/* What is written over a frame of the link. */
static const struct {
    size_t offset;
    uint16_t value;
} spoilings[] = {
    {RSI_ETHERNET_BYTES, 0x4600},                          /* options */
    {RSI_ETHERNET_BYTES, 0x4f00},                          /* beyond the end */
    {RSI_ETHERNET_BYTES, 0x6500},                          /* version 6 */
    {RSI_ETHERNET_BYTES + 2, 0},                           /* no bytes */
    {RSI_ETHERNET_BYTES + 2, 27},                          /* less than heads */
    {RSI_ETHERNET_BYTES + 2, UINT16_MAX},                  /* more than came */
    {RSI_ETHERNET_BYTES + 6, 0x2000},                      /* a first fragment */
    {RSI_ETHERNET_BYTES + 6, 0x2001},                      /* a middle one */
    {RSI_ETHERNET_BYTES + 6, 0x1fff},                      /* a last one */
    {RSI_ETHERNET_BYTES + 8, 0x4006},                      /* TCP */
    {RSI_ETHERNET_BYTES + RSI_IPV4_BYTES + 4, 0},          /* UDP's length */
    {RSI_ETHERNET_BYTES + RSI_IPV4_BYTES + 4, 7},          /* likewise */
    {RSI_ETHERNET_BYTES + RSI_IPV4_BYTES + 4, UINT16_MAX}, /* likewise */
    {RSI_PACKET_HEADER_BYTES, RSI_DATAGRAM_DATA << 8},     /* version 0 */
    {RSI_PACKET_HEADER_BYTES, RSI_DATAGRAM_DATA << 8 | 2}, /* version 2 */
    {RSI_PACKET_HEADER_BYTES + 12, 0},                     /* the body's length */
    {RSI_PACKET_HEADER_BYTES + 12, UINT16_MAX},            /* likewise */
    {RSI_PACKET_HEADER_BYTES + 16, 0},                     /* the checksum */
    {RSI_PACKET_BODY_OFFSET + 8, 0x0101},                  /* under the checksum */
};

void attack_spoilt_frames(struct siege *siege)
{
    struct raw_peer peer;
    struct raw_frame frame;
    open_alive(siege, &peer, "spoiler");
    for (unsigned i = 0; i < rsi_array_count(spoilings); i++) {
        make_deadly(&peer, &frame);
        rsi_packet_put_16(frame.data + spoilings[i].offset, spoilings[i].value);
        sum_ipv4(&frame);
        raw_end_send(&peer.link->end, &frame);
    }
    make_deadly(&peer, &frame);
    frame.data[RSI_ETHERNET_BYTES + 10] ^= 1; /* the sum itself */
    raw_end_send(&peer.link->end, &frame);
    /* Cut at every place, and with something behind its end that belongs to nothing. */
    make_deadly(&peer, &frame);
    uint32_t whole_bytes = frame.frame.bytes;
    for (frame.frame.bytes = RSI_ETHERNET_BYTES; frame.frame.bytes < whole_bytes;
         frame.frame.bytes++) {
        raw_end_send(&peer.link->end, &frame);
    }
    for (unsigned i = 0; i < 1000; i++) {
        frame.frame.bytes = RSI_ETHERNET_BYTES +
                            (uint32_t)(random_next(&siege->random) % (RAW_FRAME_BYTES_MAX / 2));
        siege_fill_randomly(siege, frame.data + RSI_MAC_BYTES, frame.frame.bytes - RSI_MAC_BYTES);
        if (i % 2 == 0) {
            rsi_packet_put_16(frame.data + 12, RSI_ETHERNET_TYPE_IPV4);
        }
        memcpy(frame.data + RSI_MAC_BYTES, peer.link->end.own.mac, RSI_MAC_BYTES);
        raw_end_send(&peer.link->end, &frame);
    }
    expect_alive(&peer);
    raw_close(&peer);
}

/* ---- data --------------------------------------------------------------------------------------
 */

/* Tells it again until the broker ends the link. */
#define TELL_UNTIL_ENDED(peer, lie)                                                     \
    do {                                                                                \
        uint64_t tell_until_ns = now_ns() + hang_ns();                                  \
        while (!(peer)->link->has_ended) {                                              \
            check(now_ns() < tell_until_ns, "%s does not lose its link", (peer)->name); \
            lie;                                                                        \
            raw_link_look((peer)->link, WAIT_MS);                                       \
        }                                                                               \
        raw_close(peer);                                                                \
    } while (0)

void attack_data(struct siege *siege)
{
    static const uint64_t far = UINT64_C(1) << 40;
    static const struct {
        uint64_t position; /* from the end of what was sent */
        size_t bytes;
        uint64_t word; /* that it begins with */
    } lies[] = {
        {RAW_RING_BYTES, 64, 0},   {far, 64, 0}, {UINT64_MAX - 1023, 64, 0}, {4, 64, 0}, {0, 63, 0},
        {RAW_RING_BYTES, 1024, 0}, {0, 64, 0},   {0, 64, UINT64_MAX},
    };
    static uint8_t bytes[1024];
    for (unsigned i = 0; i < rsi_array_count(lies); i++) {
        struct raw_peer peer;
        open_alive(siege, &peer, "inventor");
        memcpy(bytes, &lies[i].word, sizeof(lies[i].word));
        uint64_t position = peer.link->told.sent_pos + lies[i].position;
        TELL_UNTIL_ENDED(&peer, raw_link_send_data(peer.link, position, bytes, lies[i].bytes));
    }
}

/* Other bytes over those that came: the first ones count, and come back to the publisher. */
void attack_overlaps(struct siege *siege)
{
    enum { PAYLOAD = 4096, PART = 1024 };
    static uint8_t frame[RSI_FRAME_HEADER_BYTES + PAYLOAD + 64];
    static uint8_t others[PART];
    struct raw_peer peer;
    uint64_t until_ns = now_ns() + hang_ns();
    raw_open(&peer, &siege->at, "overwriter", RAW_SERVING);
    struct raw_link *link = peer.link;
    uint32_t bytes = raw_make_frame(frame, 0, RAW_ALIAS, PAYLOAD);
    memset(others, 0xa5, sizeof(others));
    while (link->heard.received_pos < PART) {
        raw_link_send_data(link, 0, frame, PART);
        raw_link_wait(link, until_ns, "the first part");
    }
    for (unsigned i = 0; i < 100; i++) {
        raw_link_send_data(link, i % 2 == 0 ? 0 : 8 * (random_next(&siege->random) % 64), others,
                           PART / 2);
    }
    raw_link_publish(link, frame, bytes);
    while (link->heard.received_pos < bytes) {
        raw_link_wait(link, until_ns, "the rest");
    }
    for (unsigned i = 0; i < 100; i++) {
        raw_link_send_data(link, 8 * (random_next(&siege->random) % 384), others, PART);
    }
    while (link->told.received_pos < PAYLOAD) {
        raw_link_wait(link, until_ns, "its message");
    }
    check(memmem(link->in, link->told.received_pos, others, 8) == NULL,
          "bytes that had arrived were written over");
    raw_close(&peer);
}

/* A message in the least pieces, from its end to its beginning: more holes than are remembered. */
void attack_crumbs(struct siege *siege)
{
    enum { PAYLOAD = 8192 };
    static uint8_t frame[RSI_FRAME_HEADER_BYTES + PAYLOAD + 64];
    struct raw_peer peer;
    uint64_t until_ns = now_ns() + hang_ns();
    raw_open(&peer, &siege->at, "crumbler", RAW_SERVING);
    uint32_t bytes = raw_make_frame(frame, 0, RAW_ALIAS, PAYLOAD);
    (void)raw_end_count_arrived(&peer.link->end);
    for (uint32_t pos = bytes; pos >= 16; pos -= 16) {
        raw_link_send_data(peer.link, pos - 8, frame + pos - 8, 8);
    }
    raw_link_look(peer.link, WAIT_MS);
    uint64_t asked_count = raw_end_count_arrived(&peer.link->end);
    check(asked_count < bytes / 8, "the broker asked %" PRIu64 " times", asked_count);
    raw_link_publish(peer.link, frame, bytes);
    while (peer.link->told.received_pos < PAYLOAD) {
        raw_link_wait(peer.link, until_ns, "its message");
    }
    raw_close(&peer);
}

/* ---- states ------------------------------------------------------------------------------------
 */

static void send_state_with(struct raw_link *link, size_t offset, uint64_t value)
{
    memcpy((uint8_t *)&link->told + offset, &value, sizeof(value));
    raw_link_send_state(link, 0, NULL, 0);
}

void attack_states(struct siege *siege)
{
#define FIELD(name) offsetof(struct rsi_datagram_state, name)
    static const uint64_t far = UINT64_C(1) << 40;
    static const struct {
        size_t offset;
        uint64_t value;
    } lies[] = {
        {FIELD(received_pos), far}, {FIELD(received_pos), UINT64_MAX},  {FIELD(received_pos), 0},
        {FIELD(arrived_pos), far},  {FIELD(arrived_pos), UINT64_MAX},   {FIELD(sent_pos), far},
        {FIELD(sent_pos), 12},      {FIELD(sent_pos), UINT64_MAX - 7},  {FIELD(state_seen), far},
        {FIELD(state_seen), 0},     {FIELD(state_seen), UINT64_MAX},    {FIELD(lane_received), far},
        {FIELD(lane_received), 0},  {FIELD(lane_received), UINT64_MAX}, {FIELD(consumed_pos), far},
    };
#undef FIELD
    struct raw_peer peer;
    for (unsigned i = 0; i < rsi_array_count(lies); i++) {
        open_alive(siege, &peer, "liar");
        TELL_UNTIL_ENDED(&peer, send_state_with(peer.link, lies[i].offset, lies[i].value));
    }
    static const uint8_t half[RSI_DATAGRAM_STATE_BYTES - 1];
    const uint8_t flags = RSI_DATAGRAM_FLAG_STATE | RSI_DATAGRAM_FLAG_ATTACHED;
    open_alive(siege, &peer, "half a state");
    TELL_UNTIL_ENDED(&peer,
                     raw_link_send(peer.link, RSI_DATAGRAM_STATE, flags, half, sizeof(half)));
}

/* ---- ranges ------------------------------------------------------------------------------------
 */

void attack_ranges(struct siege *siege)
{
    static const struct rsi_datagram_range lies[] = {
        {.start_pos = 0, .end_pos = UINT64_C(1) << 40},
        {.start_pos = 0, .end_pos = UINT64_MAX - 7},
        {.start_pos = 64, .end_pos = 0},
        {.start_pos = 4, .end_pos = 64},
        {.start_pos = 8, .end_pos = 8},
    };
    for (unsigned i = 0; i < rsi_array_count(lies); i++) {
        struct raw_peer peer;
        open_alive(siege, &peer, "insatiable");
        TELL_UNTIL_ENDED(&peer, raw_link_send_state(peer.link, 0, &lies[i], sizeof(lies[i])));
    }
}

/* Publishes to itself until some windows of it are on their way back, and confirms none of it. */
static void leave_unconfirmed(struct raw_peer *peer)
{
    struct raw_link *link = peer->link;
    uint64_t until_ns = now_ns() + hang_ns();
    link->is_deaf = true;
    for (unsigned i = 0; i < 20; i++) {
        (void)raw_publish(peer, 4000);
    }
    while (link->heard.sent_pos < link->told.received_pos + 16384) {
        raw_link_wait(link, until_ns, "its messages");
    }
}

/* All that is on its way, 24 times in each state, again and again. */
void attack_asking_again(struct siege *siege)
{
    enum { ASK_COUNT = 500 };
    struct rsi_datagram_range ranges[RSI_DATAGRAM_RANGE_COUNT_MAX];
    struct raw_peer peer;
    open_alive(siege, &peer, "forgetful");
    struct raw_link *link = peer.link;
    leave_unconfirmed(&peer);
    for (unsigned i = 0; i < rsi_array_count(ranges); i++) {
        ranges[i] = (struct rsi_datagram_range){.start_pos = link->told.received_pos,
                                                .end_pos = link->heard.sent_pos};
    }
    (void)raw_end_count_arrived(&link->end);
    uint64_t sent_bytes = link->end.sent_bytes;
    uint64_t position = siege_position(siege);
    for (unsigned i = 0; i < ASK_COUNT; i++) {
        struct raw_frame frame;
        raw_link_send_state(link, 0, ranges, sizeof(ranges));
        while (raw_end_receive(&link->end, &frame, 1)) {
        }
    }
    check(!link->has_ended, "%s lost its link", peer.name);
    siege_expect_traffic(siege, position);
    uint64_t answer_bytes = RAW_FRAME_BYTES_MAX * raw_end_count_arrived(&link->end);
    sent_bytes = link->end.sent_bytes - sent_bytes;
    check(answer_bytes <= 4 * sent_bytes, "%" PRIu64 " bytes came for %" PRIu64, answer_bytes,
          sent_bytes);
    raw_close(&peer);
}

void attack_probes(struct siege *siege)
{
    struct raw_peer peer;
    uint8_t body[RAW_BODY_BYTES] = {0};
    open_alive(siege, &peer, "prober");
    (void)raw_end_count_arrived(&peer.link->end);
    for (unsigned i = 0; i < FLOOD_COUNT; i++) {
        struct rsi_datagram_probe probe = {.mtu = (uint32_t)random_next(&siege->random)};
        size_t bytes = random_next(&siege->random) % sizeof(body);
        if (i % 2 == 0) {
            probe.mtu =
                RSI_IPV4_BYTES + RSI_UDP_BYTES + RSI_DATAGRAM_HEADER_BYTES + (uint32_t)bytes;
        }
        memcpy(body, &probe, sizeof(probe));
        raw_link_send(peer.link, i % 3 == 0 ? RSI_DATAGRAM_PROBE_ACK : RSI_DATAGRAM_PROBE, 0, body,
                      bytes);
    }
    expect_alive(&peer);
    uint64_t answer_count = raw_end_count_arrived(&peer.link->end);
    check(answer_count <= FLOOD_COUNT, "%" PRIu64 " answers to %d probes", answer_count,
          FLOOD_COUNT);
    raw_close(&peer);
}

/* ---- others ------------------------------------------------------------------------------------
 */

/* The end of a bystander's link; 49152: where the ports of those who dial begin. */
static struct rsi_packet_end bystander(struct raw_peer *peer, unsigned number)
{
    struct rsi_packet_end end = {.address = raw_address(number), .port = 49152};
    raw_end_resolve(&peer->link->end, end.address, end.mac);
    return end;
}

/* RESET, DATA and CLOSE of the link that the two would have, if these are its names. */
static void forge(struct siege *siege, struct raw_peer *peer, const struct rsi_packet_end *from,
                  const struct rsi_packet_end *to, uint32_t connection, uint32_t name)
{
    const struct rsi_datagram_lane close = {.sequence = random_next(&siege->random) % 8,
                                            .kind = RSI_RECORD_CLOSE};
    const struct rsi_datagram_reset reset = {.number = 1 + random_next(&siege->random) % 100000};
    static const uint64_t data[9]; /* a position and what is no frame */
    const struct {
        uint8_t type;
        const void *body;
        uint16_t bytes;
    } datagrams[] = {{RSI_DATAGRAM_RESET, &reset, sizeof(reset)},
                     {RSI_DATAGRAM_DATA, data, sizeof(data)},
                     {RSI_DATAGRAM_LANE, &close, sizeof(close)}};
    for (unsigned i = 0; i < rsi_array_count(datagrams); i++) {
        struct rsi_datagram_header header = {.type = datagrams[i].type,
                                             .connection = connection,
                                             .from = name,
                                             .bytes = datagrams[i].bytes,
                                             .number = UINT64_C(1) << 32};
        raw_end_send_datagram(&peer->link->end, from, to, &header, datagrams[i].body);
    }
}

/*
 * In the name of a bystander to the broker, and of the broker to it: for the broker's name of their
 * link such as the peer was given itself, for the bystander's each generation of the first indices.
 * From the right MAC only now and then: the bridge looks for it here then, until its owner speaks.
 */
void attack_names(struct siege *siege)
{
    enum { INDEX_COUNT = 2, GENERATION_COUNT = 1 << RSI_DATAGRAM_GENERATION_BITS };
    struct raw_peer peer;
    raw_open(&peer, &siege->at, "impostor", RAW_SERVING);
    uint64_t resumed_count = broker_counter(&siege->broker, "broker.sessions_resumed", NULL);
    const struct rsi_packet_end reader = bystander(&peer, READER_NUMBER);
    uint32_t given = peer.link->connection & ~((1u << RSI_DATAGRAM_INDEX_BITS) - 1);
    for (uint32_t guess = 0; guess < GENERATION_COUNT; guess++) {
        struct rsi_packet_end as_reader = reader;
        struct rsi_packet_end as_broker = peer.link->broker;
        bool claims_mac = guess % 512 == 0;
        if (!claims_mac) {
            memcpy(as_reader.mac, peer.link->end.own.mac, RSI_MAC_BYTES);
            memcpy(as_broker.mac, peer.link->end.own.mac, RSI_MAC_BYTES);
        }
        if (guess % 32 == 0) {
            raw_link_look(peer.link, 1); /* or they would be lost at the ports */
        }
        for (uint32_t index = 0; index < INDEX_COUNT; index++) {
            uint32_t name = guess << RSI_DATAGRAM_INDEX_BITS;
            forge(siege, &peer, &as_reader, &peer.link->broker, given | index, name);
            forge(siege, &peer, &as_broker, &reader, name, given | index);
        }
        if (claims_mac) {
            (void)bystander(&peer,
                            READER_NUMBER); /* they answer, and the bridge finds them again */
            (void)bystander(&peer, BROKER_NUMBER);
        }
    }
    siege_let_pass(siege, 1000);
    uint64_t now_count = broker_counter(&siege->broker, "broker.sessions_resumed", NULL);
    check(now_count == resumed_count, "a bystander lost its link");
    raw_close(&peer);
}

/*
 * Says of others' addresses that they are this peer's; speaks from others' MACs, so that the bridge
 * looks for them here.
 */
void attack_arp(struct siege *siege)
{
    static const unsigned numbers[] = {BROKER_NUMBER, READER_NUMBER, WRITER_NUMBER};
    struct raw_peer peer;
    open_alive(siege, &peer, "namesake");
    struct raw_end *end = &peer.link->end;
    struct rsi_packet_arp arp = {0};
    for (unsigned round = 0; round < 20; round++) {
        uint64_t position = siege_position(siege);
        for (unsigned i = 0; i < rsi_array_count(numbers); i++) {
            struct rsi_packet_end other = bystander(&peer, numbers[i]);
            arp.is_request = round % 2 == 0;
            arp.sender_address = other.address;
            memcpy(arp.sender_mac, end->own.mac, RSI_MAC_BYTES);
            for (unsigned j = 0; j < rsi_array_count(numbers); j++) {
                arp.target_address = raw_address(numbers[j]);
                raw_end_send_arp(end, &arp, NULL);
            }
            memcpy(arp.sender_mac, other.mac, RSI_MAC_BYTES); /* and the frame's sender */
            raw_end_send_arp(end, &arp, NULL);
        }
        siege_expect_traffic(siege, position);
    }
    for (unsigned i = 0; i < rsi_array_count(numbers); i++) {
        (void)bystander(&peer, numbers[i]); /* it answers, and the bridge finds it again */
    }
    /* Of more addresses than are remembered. */
    memcpy(arp.sender_mac, end->own.mac, RSI_MAC_BYTES);
    arp.target_address = peer.link->broker.address;
    for (unsigned i = 0; i < FLOOD_COUNT; i++) {
        arp.is_request = i % 2 == 0;
        arp.sender_address = i % 4 == 0 ? (uint32_t)random_next(&siege->random)
                                        : raw_address((unsigned)random_next(&siege->random) % 256);
        raw_end_send_arp(end, &arp, NULL);
    }
    expect_alive(&peer);
    raw_close(&peer);
    expect_service(siege);
}

/* ---- silence -----------------------------------------------------------------------------------
 */

static struct raw_peer silent[RAW_STAGE_COUNT];

void silence_begin(struct siege *siege)
{
    for (unsigned stage = raw_first_held_stage(); stage < RAW_STAGE_COUNT; stage++) {
        raw_open(&silent[stage], &siege->at, "silent", (enum raw_stage)stage);
    }
}

void silence_end(void)
{
    for (unsigned stage = raw_first_held_stage(); stage < RAW_STAGE_COUNT; stage++) {
        expect_any_end(&silent[stage]);
    }
}
