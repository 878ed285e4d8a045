/*
 * What strangers and liars send: a third port on the switch writes any bytes it likes, with good
 * checksums, also in the client's name.
 */
#include "transport/dpdk/dpdk_testing.h"

#include <poll.h>
#include <stdio.h>

#define FLOOD_COUNT 10000u
#define BODY_MAX    1200u

struct stranger {
    struct rig rig;
    struct rsi_port *port;
    uint64_t random;
};

static uint64_t next_random(struct stranger *stranger)
{
    stranger->random =
        stranger->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return stranger->random >> 24;
}

static void stranger_open(struct stranger *stranger)
{
    struct rsi_error error = {0};
    char text[64];
    rig_open(&stranger->rig, "", "");
    snprintf(text, sizeof(text), "virtual:%s", stranger->rig.name);
    assert_int_equal(rsi_virtual_port_open(&stranger->port, text, NULL, &error), RSI_OK);
    stranger->random = 1;
}

static void stranger_close(struct stranger *stranger)
{
    rig_close(&stranger->rig);
    stranger->port->operations->close(stranger->port);
}

/* Throws away what came to the stranger; returns how much it was, and its last frame's header. */
static uint32_t drain(struct stranger *stranger, struct rsi_datagram_header *last)
{
    struct rsi_port_frame frames[32];
    uint32_t total = 0;
    uint32_t count;
    while ((count = stranger->port->operations->receive(stranger->port, frames, 32)) != 0) {
        struct rsi_packet packet;
        if (last != NULL && rsi_packet_parse(&packet, &frames[count - 1])) {
            *last = packet.header;
        }
        stranger->port->operations->release(stranger->port, frames, count);
        total += count;
    }
    return total;
}

/* To the server, from any address. */
static void send_from(struct stranger *stranger, uint32_t address, uint16_t port,
                      struct rsi_datagram_header *header, const void *body)
{
    struct rsi_port_frame frame;
    assert_int_equal(stranger->port->operations->acquire(stranger->port, &frame, 1), 1);
    struct rsi_packet_end from = {.address = address, .port = port};
    struct rsi_packet_end to = {.address = RIG_SERVER, .port = 7400};
    memcpy(from.mac, stranger->port->mac, RSI_MAC_BYTES);
    memcpy(to.mac, rig_station(&stranger->rig.server)->port->mac, RSI_MAC_BYTES);
    memcpy(rsi_packet_body(&frame), body, header->bytes);
    rsi_packet_write(&frame, &from, &to, header);
    assert_int_equal(stranger->port->operations->transmit(stranger->port, 0, &frame, 1), 1);
}

static struct rsi_dpdk_listener *listener_of(struct stranger *stranger)
{
    return (struct rsi_dpdk_listener *)(void *)stranger->rig.listener;
}

/* ---- handshake ------------------------------------------------------------------------------- */

struct open_body {
    struct rsi_datagram_hello hello;
    struct rsi_greeting greeting;
};

static void send_open(struct stranger *stranger, uint32_t address, uint16_t port,
                      const struct rsi_datagram_hello *hello)
{
    struct open_body body = {.hello = *hello};
    struct rsi_domain_options options = {0};
    rsi_greeting_init(&body.greeting, &options);
    body.hello.mtu = 1500;
    struct rsi_datagram_header header = {
        .type = RSI_DATAGRAM_OPEN, .from = 1u << RSI_DATAGRAM_INDEX_BITS, .bytes = sizeof(body)};
    send_from(stranger, address, port, &header, &body);
}

static void assert_no_state(struct stranger *stranger)
{
    const struct rsi_station *station = rig_station(&stranger->rig.server);
    assert_int_equal(listener_of(stranger)->caller_count, 0);
    assert_null(rsi_dpdk_domain(stranger->rig.server.domain)->links);
    assert_int_equal(rsi_load_relaxed(&station->link_count), 0);
    for (uint32_t i = 0; i < RSI_STATION_SLOT_COUNT; i++) {
        assert_null(station->slots[i].queue);
    }
}

static void test_forged_hellos_and_opens_keep_no_state(void **state)
{
    (void)state;
    struct stranger stranger;
    stranger_open(&stranger);
    uint32_t answer_count = 0;
    for (uint32_t i = 0; i < FLOOD_COUNT; i++) {
        struct rsi_datagram_hello hello = {.nonce = next_random(&stranger), .mtu = 1500};
        struct rsi_datagram_header header = {.type = RSI_DATAGRAM_HELLO,
                                             .from = (uint32_t)next_random(&stranger),
                                             .bytes = sizeof(hello)};
        send_from(&stranger, (uint32_t)next_random(&stranger), (uint16_t)next_random(&stranger),
                  &header, &hello);
        for (uint32_t j = 0; j < sizeof(hello.cookie); j++) {
            hello.cookie[j] = (uint8_t)next_random(&stranger);
        }
        hello.cookie_time = rsi_dpdk_cookie_time(rsi_dpdk_domain(stranger.rig.server.domain));
        send_open(&stranger, (uint32_t)next_random(&stranger), 1, &hello);
        if (i % 16 == 0) {
            rig_step(&stranger.rig, RIG_STEP_NS);
            answer_count += drain(&stranger, NULL);
        }
    }
    rig_step(&stranger.rig, RIG_STEP_NS);
    assert_no_state(&stranger);
    assert_true(answer_count > 0 && answer_count <= FLOOD_COUNT); /* cookies, one for one at most */
    rig_connect(&stranger.rig, 65536);                            /* and who is honest gets in */
    stranger_close(&stranger);
}

/* A descriptor that stays readable makes a control thread spin. */
static void test_domain_descriptor_tells_once(void **state)
{
    (void)state;
    struct stranger stranger;
    stranger_open(&stranger);
    struct rsi_domain *domain = stranger.rig.server.domain;
    struct pollfd waiting = {.fd = rsi_dpdk_transport.domain_fd(domain), .events = POLLIN};
    (void)rsi_dpdk_transport.domain_poll_control(domain, stranger.rig.now_ns);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(poll(&waiting, 1, 0), 0);
        struct rsi_datagram_hello hello = {.nonce = 1, .mtu = 1500};
        struct rsi_datagram_header header = {
            .type = RSI_DATAGRAM_HELLO, .from = 1u << 20, .bytes = sizeof(hello)};
        send_from(&stranger, 0x0a070009, 50000, &header, &hello);
        (void)rsi_poller_poll(stranger.rig.server.poller, stranger.rig.now_ns);
        assert_int_equal(poll(&waiting, 1, 0), 1);
        assert_int_equal(rsi_dpdk_transport.domain_poll_control(domain, stranger.rig.now_ns), 1);
    }
    stranger_close(&stranger);
}

/* The cookie that the server makes for the stranger. */
static struct rsi_datagram_hello get_cookie(struct stranger *stranger)
{
    struct rsi_port_frame frame;
    struct rsi_packet packet;
    struct rsi_datagram_hello hello = {.nonce = 77};
    struct rsi_datagram_header header = {
        .type = RSI_DATAGRAM_HELLO, .from = 1u << RSI_DATAGRAM_INDEX_BITS, .bytes = sizeof(hello)};
    send_from(stranger, 0x0a070009, 50000, &header, &hello);
    rig_step(&stranger->rig, RIG_STEP_NS);
    assert_int_equal(stranger->port->operations->receive(stranger->port, &frame, 1), 1);
    assert_true(rsi_packet_parse(&packet, &frame));
    assert_int_equal(packet.header.type, RSI_DATAGRAM_COOKIE);
    memcpy(&hello, packet.body, sizeof(hello));
    stranger->port->operations->release(stranger->port, &frame, 1);
    return hello;
}

/* Receives an OPEN without accepting what comes of it. */
static uint32_t count_callers(struct stranger *stranger)
{
    struct rsi_domain *domain = stranger->rig.server.domain;
    (void)rsi_dpdk_transport.domain_poll_control(domain, stranger->rig.now_ns);
    return listener_of(stranger)->caller_count;
}

static void test_cookie_is_for_one_address_and_a_short_time(void **state)
{
    (void)state;
    struct stranger stranger;
    stranger_open(&stranger);
    struct rsi_datagram_hello hello = get_cookie(&stranger);
    send_open(&stranger, 0x0a07000a, 50000, &hello);
    send_open(&stranger, 0x0a070009, 50001, &hello);
    assert_int_equal(count_callers(&stranger), 0);
    struct rsi_datagram_hello another = hello;
    another.nonce++;
    send_open(&stranger, 0x0a070009, 50000, &another);
    assert_int_equal(count_callers(&stranger), 0);
    stranger.rig.now_ns += UINT64_C(13000000000);
    send_open(&stranger, 0x0a070009, 50000, &hello);
    assert_int_equal(count_callers(&stranger), 0);

    hello = get_cookie(&stranger);
    send_open(&stranger, 0x0a070009, 50000, &hello);
    send_open(&stranger, 0x0a070009, 50000, &hello);
    assert_int_equal(count_callers(&stranger), 1);
    stranger_close(&stranger);
}

/* ---- a link that is there -------------------------------------------------------------------- */

enum outcome { IGNORED, ENDS };

struct lie {
    const char *name;
    uint8_t type;
    uint8_t flags;
    enum outcome outcome;
    /* Changes the honest state that `body` begins with if FLAG_STATE is set, and writes what is
     * behind it. Returns the body's bytes. NULL: an honest state alone. */
    uint32_t (*write)(const struct rsi_dpdk_link *link, struct rsi_datagram_state *state,
                      uint8_t *behind);
};

#define WITH_STATE (RSI_DATAGRAM_FLAG_STATE | RSI_DATAGRAM_FLAG_ATTACHED)
#define LIE(name)                                                                            \
    static uint32_t name(const struct rsi_dpdk_link *link, struct rsi_datagram_state *state, \
                         uint8_t *behind)
#define UNUSED_LIE() ((void)link, (void)state, (void)behind)

static uint32_t write_data(uint8_t *behind, uint64_t position, uint32_t ring_bytes)
{
    memcpy(behind, &position, sizeof(position));
    memset(behind + sizeof(position), 0, ring_bytes);
    return (uint32_t)sizeof(position) + ring_bytes;
}

LIE(data_without_bytes)
{
    UNUSED_LIE();
    return write_data(behind, link->base.arrived_pos, 0);
}

LIE(data_without_position)
{
    UNUSED_LIE();
    return 4;
}

LIE(data_at_odd_position)
{
    UNUSED_LIE();
    return write_data(behind, link->base.arrived_pos + 4, 64);
}

LIE(data_of_odd_length)
{
    UNUSED_LIE();
    return write_data(behind, link->base.arrived_pos, 63);
}

LIE(data_beyond_credit)
{
    UNUSED_LIE();
    return write_data(behind, link->base.consumed_pos + link->base.in.capacity_bytes, 64);
}

LIE(data_that_comes_round)
{
    UNUSED_LIE();
    return write_data(behind, UINT64_MAX - 7, 64);
}

LIE(data_that_is_no_frame)
{
    UNUSED_LIE();
    return write_data(behind, link->base.arrived_pos, 64);
}

LIE(data_of_an_endless_frame)
{
    UNUSED_LIE();
    uint64_t word = rsi_commit_word(link->base.arrived_pos, RSI_FRAME_BYTES_MAX);
    uint32_t bytes = write_data(behind, link->base.arrived_pos, 64);
    memcpy(behind + sizeof(uint64_t), &word, sizeof(word));
    return bytes;
}

LIE(data_that_arrived_before)
{
    UNUSED_LIE();
    return write_data(behind, 0, 64);
}

LIE(state_too_short)
{
    UNUSED_LIE();
    return UINT32_MAX; /* see forge() */
}

LIE(received_beyond_sent)
{
    UNUSED_LIE();
    state->received_pos = link->send.sent_pos + 8;
    return 0;
}

LIE(received_goes_back)
{
    UNUSED_LIE();
    state->received_pos = 0;
    state->arrived_pos = 0;
    return 0;
}

LIE(arrived_beyond_received)
{
    UNUSED_LIE();
    state->arrived_pos = state->received_pos + 8;
    return 0;
}

LIE(consumed_beyond_sent)
{
    UNUSED_LIE();
    state->consumed_pos = link->base.placed_pos + 8;
    return 0;
}

LIE(sent_beyond_credit)
{
    UNUSED_LIE();
    state->sent_pos = link->base.consumed_pos + link->base.in.capacity_bytes + 8;
    return 0;
}

LIE(sent_at_odd_position)
{
    UNUSED_LIE();
    state->sent_pos++;
    return 0;
}

LIE(state_seen_of_the_future)
{
    UNUSED_LIE();
    state->state_seen = link->send.number + 1;
    return 0;
}

LIE(lane_received_of_the_future)
{
    UNUSED_LIE();
    state->lane_received = link->lane.composed + 1;
    return 0;
}

static uint32_t write_range(uint8_t *behind, uint64_t start_pos, uint64_t end_pos)
{
    struct rsi_datagram_range range = {.start_pos = start_pos, .end_pos = end_pos};
    memcpy(behind, &range, sizeof(range));
    return sizeof(range);
}

LIE(range_beyond_sent)
{
    UNUSED_LIE();
    return write_range(behind, 0, link->send.sent_pos + 8);
}

LIE(range_upside_down)
{
    UNUSED_LIE();
    return write_range(behind, link->send.sent_pos, link->send.sent_pos - 8);
}

LIE(range_at_odd_position)
{
    UNUSED_LIE();
    return write_range(behind, 4, link->send.sent_pos);
}

LIE(range_that_is_cut)
{
    UNUSED_LIE();
    (void)write_range(behind, 0, 8);
    return sizeof(struct rsi_datagram_range) - 1;
}

static uint32_t write_record(uint8_t *behind, uint64_t sequence, uint8_t kind, uint16_t bytes,
                             uint32_t room_bytes)
{
    struct rsi_datagram_lane head = {.sequence = sequence, .bytes = bytes, .kind = kind};
    memset(behind, 0, BODY_MAX - RSI_DATAGRAM_STATE_BYTES);
    memcpy(behind, &head, sizeof(head));
    return room_bytes;
}

LIE(lane_head_that_is_cut)
{
    UNUSED_LIE();
    return write_record(behind, link->lane.received, RSI_RECORD_CONTROL, 8, 12);
}

LIE(lane_record_that_is_cut)
{
    UNUSED_LIE();
    return write_record(behind, link->lane.received, RSI_RECORD_CONTROL, 100, 64);
}

LIE(lane_record_of_no_kind)
{
    UNUSED_LIE();
    return write_record(behind, link->lane.received, 99, 8, 24);
}

LIE(lane_record_too_long)
{
    UNUSED_LIE();
    return write_record(behind, link->lane.received, RSI_RECORD_CONTROL, 513, 16 + 520);
}

LIE(lane_record_empty)
{
    UNUSED_LIE();
    return write_record(behind, link->lane.received, RSI_RECORD_CONTROL, 0, 16);
}

LIE(lane_record_of_the_future)
{
    UNUSED_LIE();
    return write_record(behind, link->lane.received + 1, RSI_RECORD_CONTROL, 8, 24);
}

LIE(lane_record_of_the_past)
{
    UNUSED_LIE();
    return write_record(behind, 0, 99, 8, 24);
}

LIE(second_attach)
{
    UNUSED_LIE();
    return write_record(behind, link->lane.received, RSI_RECORD_ATTACH, sizeof(struct rsi_attach),
                        16 + sizeof(struct rsi_attach));
}

LIE(probe_of_another_size)
{
    UNUSED_LIE();
    struct rsi_datagram_probe probe = {.mtu = 1500};
    memcpy(behind, &probe, sizeof(probe));
    return 100;
}

LIE(probe_that_is_cut)
{
    UNUSED_LIE();
    return 7;
}

LIE(reset_of_nothing)
{
    UNUSED_LIE();
    memset(behind, 0, 8);
    return 8;
}

LIE(reset_of_the_future)
{
    UNUSED_LIE();
    uint64_t number = link->send.number + 1;
    memcpy(behind, &number, sizeof(number));
    return sizeof(number);
}

LIE(reset_of_what_was_seen)
{
    UNUSED_LIE();
    uint64_t number = link->send.told_number;
    memcpy(behind, &number, sizeof(number));
    return sizeof(number);
}

LIE(anything)
{
    UNUSED_LIE();
    memset(behind, 0xa5, 200);
    return 200;
}

static const struct lie lies[] = {
    {"data without bytes", RSI_DATAGRAM_DATA, 0, IGNORED, data_without_bytes},
    {"data without position", RSI_DATAGRAM_DATA, 0, IGNORED, data_without_position},
    {"data at odd position", RSI_DATAGRAM_DATA, 0, ENDS, data_at_odd_position},
    {"data of odd length", RSI_DATAGRAM_DATA, 0, ENDS, data_of_odd_length},
    {"data beyond credit", RSI_DATAGRAM_DATA, 0, ENDS, data_beyond_credit},
    {"data that comes round", RSI_DATAGRAM_DATA, 0, ENDS, data_that_comes_round},
    {"data that is no frame", RSI_DATAGRAM_DATA, 0, ENDS, data_that_is_no_frame},
    {"data of an endless frame", RSI_DATAGRAM_DATA, 0, ENDS, data_of_an_endless_frame},
    {"data that arrived before", RSI_DATAGRAM_DATA, 0, IGNORED, data_that_arrived_before},
    {"state too short", RSI_DATAGRAM_STATE, WITH_STATE, ENDS, state_too_short},
    {"received beyond sent", RSI_DATAGRAM_STATE, WITH_STATE, ENDS, received_beyond_sent},
    {"received goes back", RSI_DATAGRAM_STATE, WITH_STATE, ENDS, received_goes_back},
    {"arrived beyond received", RSI_DATAGRAM_STATE, WITH_STATE, ENDS, arrived_beyond_received},
    {"consumed beyond sent", RSI_DATAGRAM_STATE, WITH_STATE, ENDS, consumed_beyond_sent},
    {"sent beyond credit", RSI_DATAGRAM_STATE, WITH_STATE, ENDS, sent_beyond_credit},
    {"sent at odd position", RSI_DATAGRAM_STATE, WITH_STATE, ENDS, sent_at_odd_position},
    {"state seen of the future", RSI_DATAGRAM_STATE, WITH_STATE, ENDS, state_seen_of_the_future},
    {"lane of the future", RSI_DATAGRAM_DATA, WITH_STATE, ENDS, lane_received_of_the_future},
    {"range beyond sent", RSI_DATAGRAM_STATE, WITH_STATE, ENDS, range_beyond_sent},
    {"range upside down", RSI_DATAGRAM_STATE, WITH_STATE, ENDS, range_upside_down},
    {"range at odd position", RSI_DATAGRAM_STATE, WITH_STATE, ENDS, range_at_odd_position},
    {"range that is cut", RSI_DATAGRAM_STATE, WITH_STATE, IGNORED, range_that_is_cut},
    {"honest state", RSI_DATAGRAM_STATE, WITH_STATE, IGNORED, NULL},
    {"lane head that is cut", RSI_DATAGRAM_LANE, 0, ENDS, lane_head_that_is_cut},
    {"lane record that is cut", RSI_DATAGRAM_LANE, 0, ENDS, lane_record_that_is_cut},
    {"lane record of no kind", RSI_DATAGRAM_LANE, WITH_STATE, ENDS, lane_record_of_no_kind},
    {"lane record too long", RSI_DATAGRAM_LANE, 0, ENDS, lane_record_too_long},
    {"lane record empty", RSI_DATAGRAM_LANE, 0, ENDS, lane_record_empty},
    {"lane record of the future", RSI_DATAGRAM_LANE, 0, IGNORED, lane_record_of_the_future},
    {"lane record of the past", RSI_DATAGRAM_LANE, 0, IGNORED, lane_record_of_the_past},
    {"second attach", RSI_DATAGRAM_LANE, 0, ENDS, second_attach},
    {"probe of another size", RSI_DATAGRAM_PROBE, 0, IGNORED, probe_of_another_size},
    {"probe that is cut", RSI_DATAGRAM_PROBE, 0, IGNORED, probe_that_is_cut},
    {"answer to no probe", RSI_DATAGRAM_PROBE_ACK, 0, IGNORED, probe_of_another_size},
    {"reset of nothing", RSI_DATAGRAM_RESET, 0, IGNORED, reset_of_nothing},
    {"reset of the future", RSI_DATAGRAM_RESET, 0, IGNORED, reset_of_the_future},
    {"reset of what was seen", RSI_DATAGRAM_RESET, 0, IGNORED, reset_of_what_was_seen},
    {"reset that is cut", RSI_DATAGRAM_RESET, 0, IGNORED, probe_that_is_cut},
    {"hello in the middle", RSI_DATAGRAM_HELLO, 0, IGNORED, probe_that_is_cut},
    {"cookie in the middle", RSI_DATAGRAM_COOKIE, 0, IGNORED, anything},
    {"open in the middle", RSI_DATAGRAM_OPEN, 0, IGNORED, anything},
    {"accept in the middle", RSI_DATAGRAM_ACCEPT, 0, IGNORED, anything},
    {"refusal in the middle", RSI_DATAGRAM_REFUSE, 0, IGNORED, anything},
    {"type 0", 0, 0, IGNORED, anything},
    {"unknown type", 99, 0xff, IGNORED, anything},
};

/* What the client could say truly. */
static struct rsi_datagram_state honest_state(const struct rsi_dpdk_link *server,
                                              const struct rsi_dpdk_link *client)
{
    return (struct rsi_datagram_state){
        .received_pos = server->send.confirmed_pos,
        .arrived_pos = server->base.peer_arrived_pos,
        .consumed_pos = server->base.peer_consumed_held_pos,
        .number_limit = server->send.number_limit,
        .sent_pos = rsi_gaps_received_pos(&server->receive.gaps),
        .state_seen = server->send.told_number,
        .lane_received = server->lane.confirmed,
        .control_limit = server->lane.control_limit,
        .wake_generation = server->wake.wanted_generation,
        .wake_answered = client->wake.answered_generation,
    };
}

/* A datagram in the client's name, as it would be next. */
static struct rsi_datagram_header next_header(const struct rig *rig, uint8_t type, uint8_t flags)
{
    const struct rsi_dpdk_link *server = rig_link(&rig->server);
    return (struct rsi_datagram_header){
        .type = type,
        .flags = flags,
        .connection = server->connection,
        .from = server->peer_connection,
        .number = server->receive.newest_number + 1,
    };
}

static void forge(struct stranger *stranger, const struct lie *lie)
{
    static uint8_t body[BODY_MAX];
    const struct rsi_dpdk_link *server = rig_link(&stranger->rig.server);
    struct rsi_datagram_state told = honest_state(server, rig_link(&stranger->rig.client));
    struct rsi_datagram_header header = next_header(&stranger->rig, lie->type, lie->flags);
    uint32_t state_bytes = (lie->flags & RSI_DATAGRAM_FLAG_STATE) != 0 && lie->type < 90
                               ? RSI_DATAGRAM_STATE_BYTES
                               : 0;
    uint32_t bytes = lie->write != NULL ? lie->write(server, &told, body + state_bytes) : 0;
    memcpy(body, &told, state_bytes);
    header.bytes =
        (uint16_t)(bytes == UINT32_MAX ? RSI_DATAGRAM_STATE_BYTES - 1 : state_bytes + bytes);
    send_from(stranger, RIG_CLIENT, rig_link(&stranger->rig.client)->own_end.port, &header, body);
}

/* Some frames each way, so that no position is at its start. */
static void talk(struct rig *rig)
{
    for (int i = 0; i < 5; i++) {
        assert_true(rig_write(&rig->client, 300));
        rig_flush(&rig->client);
        assert_true(rig_write(&rig->server, 300));
        rig_flush(&rig->server);
        rig_run_until(rig, rig->server.read == rig->client.written ||
                               rig->server.link->arrived_pos == rig->client.link->placed_pos);
        rig_run_until(rig, rig->client.link->arrived_pos == rig->server.link->placed_pos);
        rig_read(&rig->server);
        rig_read(&rig->client);
    }
    uint64_t quiet_ns = rig->now_ns + 5000000;
    rig_run_until(rig, rig->now_ns > quiet_ns);
}

static void test_malformed_datagrams_of_every_type(void **state)
{
    (void)state;
    for (size_t i = 0; i < rsi_array_count(lies); i++) {
        struct stranger stranger;
        stranger_open(&stranger);
        struct rig *rig = &stranger.rig;
        rig_connect(rig, 65536);
        talk(rig);
        forge(&stranger, &lies[i]);
        for (int turn = 0; turn < 10; turn++) {
            rig_turn(rig, &rig->server);
        }
        bool is_lost = rsi_link_state(rig->server.link) == RSI_LINK_LOST;
        if (is_lost != (lies[i].outcome == ENDS)) {
            fail_msg("%s: the link is %s: %s", lies[i].name,
                     rsi_link_state_name(rsi_link_state(rig->server.link)),
                     rig->server.link->error.text);
        }
        if (is_lost) {
            assert_int_equal(rig->server.link->error.status, RSI_E_PROTOCOL);
            assert_non_null(strstr(rig->server.link->error.text, "the peer"));
        } else {
            talk(rig);
        }
        stranger_close(&stranger);
    }
}

LIE(all_that_is_open)
{
    UNUSED_LIE();
    for (uint32_t i = 0; i < RSI_DATAGRAM_RANGE_COUNT_MAX; i++) {
        (void)write_range(behind + i * sizeof(struct rsi_datagram_range), link->send.confirmed_pos,
                          link->send.sent_pos);
    }
    return RSI_DATAGRAM_RANGE_COUNT_MAX * sizeof(struct rsi_datagram_range);
}

/* A reader that asks for everything, 24 times in each state and as often as it can. */
static void test_what_is_asked_for_again_is_rationed(void **state)
{
    (void)state;
    static const struct lie ask = {"all", RSI_DATAGRAM_STATE, WITH_STATE, IGNORED,
                                   all_that_is_open};
    struct stranger stranger;
    stranger_open(&stranger);
    struct rig *rig = &stranger.rig;
    rig_connect(rig, 65536);
    talk(rig);
    struct rsi_link *server = rig->server.link;
    uint64_t before_bytes = rsi_load_relaxed(&server->stats.resent_bytes);
    for (int i = 0; i < 10; i++) {
        assert_true(rig_write(&rig->server, 1000));
    }
    rig_flush(&rig->server);
    uint64_t open_bytes =
        rig_link(&rig->server)->send.sent_pos - rig_link(&rig->server)->send.confirmed_pos;
    assert_true(open_bytes >= 10000);
    for (int i = 0; i < 1000; i++) {
        forge(&stranger, &ask);
        rig_turn(rig, &rig->server);
    }
    uint64_t again_bytes = rsi_load_relaxed(&server->stats.resent_bytes) - before_bytes;
    assert_in_range(again_bytes, open_bytes, 3 * open_bytes);
    rig_run_until(rig, rig->client.link->arrived_pos == server->placed_pos);
    rig_read(&rig->client);
    stranger_close(&stranger);
}

/* What is in nobody's name, or spoilt, changes nothing. */
static void test_wrong_names_are_nobodys(void **state)
{
    (void)state;
    static uint8_t body[64]; /* as DATA it would end the link */
    struct stranger stranger;
    stranger_open(&stranger);
    rig_connect(&stranger.rig, 65536);
    talk(&stranger.rig);
    uint16_t port = rig_link(&stranger.rig.client)->own_end.port;
    (void)drain(&stranger, NULL); /* ARP */

    struct rsi_datagram_header header = next_header(&stranger.rig, RSI_DATAGRAM_DATA, 0);
    header.bytes = sizeof(body);
    send_from(&stranger, 0x0a070009, port, &header, body); /* another address */
    header.from ^= 1;
    send_from(&stranger, RIG_CLIENT, port, &header, body); /* another link of the client's */
    header.from ^= 1;
    rig_turn(&stranger.rig, &stranger.rig.server);
    assert_int_equal(drain(&stranger, NULL), 0);

    /* Another generation: that link is gone, and who asks for it is told so. */
    struct rsi_datagram_header answer = {0};
    header.connection += 1u << RSI_DATAGRAM_INDEX_BITS;
    send_from(&stranger, RIG_CLIENT, port, &header, body);
    rig_turn(&stranger.rig, &stranger.rig.server);
    assert_int_equal(drain(&stranger, &answer), 1);
    assert_int_equal(answer.type, RSI_DATAGRAM_RESET);
    assert_int_equal(answer.connection, header.from);
    talk(&stranger.rig);
    stranger_close(&stranger);
}

/* Who has a link knows its name, and nothing of the others'. */
static void test_names_tell_nothing_of_others(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, "", "");
    const struct rsi_station *server = rig_station(&rig.server);
    const struct rsi_station *client = rig_station(&rig.client);
    uint32_t same_count = 0;
    for (uint32_t i = 1; i < RSI_STATION_SLOT_COUNT; i++) {
        uint32_t index_bits = server->slots[i].connection ^ i;
        same_count += index_bits == server->slots[0].connection ? 1 : 0;
        same_count += index_bits == (client->slots[i].connection ^ i) ? 1 : 0;
    }
    assert_true(same_count < 40); /* two of 8,190, by chance */
    rig_close(&rig);
}

/* The broker's host, or its card, was replaced: what is known of the address is wrong. */
static void test_address_that_moved_is_found(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, "", "");
    struct rsi_station *station = rig_station(&rig.client);
    uint8_t mac[RSI_MAC_BYTES];
    rsi_station_ask(station, RIG_SERVER);
    rig_run_until(&rig, rsi_station_resolve(station, RIG_SERVER, mac));
    for (uint32_t i = 0; i < RSI_STATION_NEIGHBOUR_MAX; i++) {
        if (station->neighbours[i].address == RIG_SERVER) {
            station->neighbours[i].mac[5] ^= 1;
        }
    }
    uint64_t start_ns = rig.now_ns;
    rig_connect(&rig, 65536);
    assert_true(rig.now_ns - start_ns < UINT64_C(100000000));
    talk(&rig);
    rig_close(&rig);
}

/* The server's process ended and came back: the client's next word is answered with RESET. */
static void test_restarted_peer_is_noticed_at_once(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, "", "");
    rig_connect(&rig, 65536);
    talk(&rig);
    struct rsi_dpdk_link *server = rig_link(&rig.server);
    rsi_station_redirect(rig_station(&rig.server), server->connection, NULL);
    uint64_t start_ns = rig.now_ns;
    assert_true(rig_write(&rig.client, 100));
    rig_flush(&rig.client);
    rig_run_until(&rig, rsi_link_state(rig.client.link) == RSI_LINK_LOST);
    assert_true(rig.now_ns - start_ns < 1000000);
    assert_int_equal(rig.client.link->error.status, RSI_E_LINK_LOST);
    rig_close(&rig);
}

/* Random bodies of all types with good names and checksums: nothing but the link may end. */
static void test_random_bodies(void **state)
{
    (void)state;
    static uint8_t body[BODY_MAX];
    struct stranger stranger;
    stranger_open(&stranger);
    struct rig *rig = &stranger.rig;
    rig_connect(rig, 65536);
    for (uint32_t i = 0; i < 3000; i++) {
        struct rsi_datagram_header header = next_header(rig, (uint8_t)(next_random(&stranger) % 13),
                                                        (uint8_t)(next_random(&stranger) % 8));
        header.bytes = (uint16_t)(next_random(&stranger) % 300);
        for (uint32_t at = 0; at < header.bytes; at++) {
            bool is_small = next_random(&stranger) % 8 != 0;
            body[at] = is_small ? 0 : (uint8_t)next_random(&stranger);
        }
        send_from(&stranger, RIG_CLIENT, rig_link(&rig->client)->own_end.port, &header, body);
        rig_turn(rig, &rig->server);
        (void)drain(&stranger, NULL);
        if (rsi_link_state(rig->server.link) == RSI_LINK_LOST) {
            stranger_close(&stranger);
            uint64_t random = stranger.random;
            stranger_open(&stranger);
            stranger.random = random;
            rig_connect(rig, 65536);
        }
    }
    stranger_close(&stranger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forged_hellos_and_opens_keep_no_state),
        cmocka_unit_test(test_domain_descriptor_tells_once),
        cmocka_unit_test(test_cookie_is_for_one_address_and_a_short_time),
        cmocka_unit_test(test_malformed_datagrams_of_every_type),
        cmocka_unit_test(test_what_is_asked_for_again_is_rationed),
        cmocka_unit_test(test_wrong_names_are_nobodys),
        cmocka_unit_test(test_names_tell_nothing_of_others),
        cmocka_unit_test(test_address_that_moved_is_found),
        cmocka_unit_test(test_restarted_peer_is_noticed_at_once),
        cmocka_unit_test(test_random_bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
