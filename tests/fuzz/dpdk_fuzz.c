/*
 * Design notes: a liar on the wire of dpdk://. Two honest ends are joined by a virtual switch, and
 * a third port sends the accepting one what the fuzzer likes: whole Ethernet frames, or datagrams
 * in the dialler's name with the right names, number and checksum, so that what is behind them is
 * looked at. What must hold: the link stays legal in every state (the wrappers check it), only
 * whole frames are read, a link that is lost says why, and every link comes to its end. Time is the
 * fuzzer's own.
 *
 * The input is a list of steps: one byte what to do, one byte of length, the bytes.
 */
#include "tests/fuzz/fuzz_main.h"

#include "core/assert.h"
#include "core/clock.h"
#include "transport/dpdk/dpdk_internal.h"
#include "transport/dpdk/virtual.h"
#include "transport/frame.h"

#include <string.h>

#define SWITCH_PORT "virtual:fuzz"
#define SERVER      0x0a070001u
#define CLIENT      0x0a070002u
#define LISTEN_PORT 7400u

enum { RING_BYTES = 65536, PASSES_MAX = 100000, PASS_NS = 20000 };

enum step {
    STEP_FRAME,    /* an Ethernet frame to the server: all behind the addresses is the fuzzer's */
    STEP_DATAGRAM, /* type, flags, body */
    STEP_HEADER,   /* the first bytes over the header of a datagram in the client's name; body */
    STEP_STATE, /* type, flags, then (offset, value) pairs into an honest state; the rest behind */
    STEP_TALK,  /* both ends write and read */
    STEP_WAIT,  /* time goes on by so many units */
    STEP_COUNT,
};

struct end {
    struct rsi_dpdk_options options;
    struct rsi_domain *domain;
    struct rsi_poller *poller;
    struct rsi_link *link;
};

static struct end server = {.options = {.port = SWITCH_PORT, .address = "10.7.0.1/24"}};
static struct end client = {.options = {.port = SWITCH_PORT, .address = "10.7.0.2/24"}};
static struct rsi_listener *listener;
static struct rsi_port *liar;
static struct rsi_url url;
static uint64_t now_ns;

static void open_end(struct end *end)
{
    const struct rsi_domain_options domain_options = {.dpdk = &end->options, .node = RSI_NODE_ANY};
    const struct rsi_poller_options poller_options = {.link_count_max = 4};
    struct rsi_error error = {0};
    rsi_assert(rsi_dpdk_transport.domain_create(&end->domain, &domain_options, &error) == RSI_OK);
    rsi_assert(rsi_dpdk_transport.poller_create(&end->poller, end->domain, &poller_options,
                                                &error) == RSI_OK);
    rsi_station_watch_stop(rsi_dpdk_domain(end->domain)->station);
}

static void set_up(void)
{
    struct rsi_error error = {0};
    if (liar != NULL) {
        return;
    }
    now_ns = rsi_clock_now_ns();
    open_end(&server);
    open_end(&client);
    rsi_assert(rsi_virtual_port_open(&liar, SWITCH_PORT, NULL, &error) == RSI_OK);
    rsi_assert(rsi_url_parse(&url, "dpdk://10.7.0.1:7400", &error) == RSI_OK);
    rsi_assert(rsi_dpdk_transport.listener_create(&listener, server.domain, &url, &error) ==
               RSI_OK);
}

/* ---- running --------------------------------------------------------------------------------- */

static void turn(struct end *end)
{
    (void)rsi_poller_poll(end->poller, now_ns);
    (void)rsi_dpdk_transport.domain_poll_control(end->domain, now_ns);
    if (end == &server && end->link == NULL) {
        (void)rsi_dpdk_transport.link_accept(&end->link, listener, RSI_POLLER_ONLY(end->poller),
                                             NULL);
    }
    if (end->link != NULL) {
        rsi_dpdk_transport.link_poll_control(end->link, now_ns);
        rsi_assert(rsi_link_state(end->link) != RSI_LINK_LOST || end->link->error.text[0] != '\0');
    }
}

static void pass(void)
{
    struct rsi_port_frame frames[32];
    uint32_t count;
    now_ns += PASS_NS;
    turn(&server);
    turn(&client);
    while ((count = liar->operations->receive(liar, frames, 32)) != 0) {
        liar->operations->release(liar, frames, count);
    }
}

static bool is_in(const struct end *end, enum rsi_link_state state)
{
    return end->link != NULL && rsi_link_state(end->link) == state;
}

static void connect_ends(void)
{
    const struct rsi_link_rings rings = {.out_bytes = RING_BYTES, .in_bytes = RING_BYTES};
    struct rsi_error error = {0};
    rsi_assert(rsi_dpdk_transport.link_dial(&client.link, client.poller, &url, &error) == RSI_OK);
    for (uint32_t i = 0; !is_in(&client, RSI_LINK_OPEN) || !is_in(&server, RSI_LINK_OPEN); i++) {
        rsi_assert(i < PASSES_MAX);
        pass();
    }
    rsi_assert(rsi_dpdk_transport.link_attach(client.link, &rings, &error) == RSI_OK);
    rsi_assert(rsi_dpdk_transport.link_attach(server.link, &rings, &error) == RSI_OK);
    for (uint32_t i = 0; i < 8; i++) {
        pass();
    }
}

static void close_ends(void)
{
    rsi_dpdk_transport.link_close(client.link);
    rsi_dpdk_transport.link_close(server.link);
    for (uint32_t i = 0; !is_in(&client, RSI_LINK_CLOSED) || !is_in(&server, RSI_LINK_CLOSED);
         i++) {
        rsi_assert(i < PASSES_MAX);
        pass();
    }
    rsi_dpdk_transport.link_destroy(client.link);
    rsi_dpdk_transport.link_destroy(server.link);
    client.link = NULL;
    server.link = NULL;
}

static void read_frames(struct end *end)
{
    struct rsi_link *link = end->link;
    struct rsi_frame frame;
    const char *why = NULL;
    uint32_t bytes = 0;
    while (rsi_link_front_control(link, &bytes) != NULL) {
        rsi_assert(bytes > 0 && bytes <= RSI_CONTROL_BYTES_MAX);
        rsi_link_pop_control(link);
    }
    while (link->consumed_pos < link->arrived_pos &&
           rsi_frame_read(&link->in, link->consumed_pos, link->arrived_pos, &frame, &why) ==
               RSI_OK) {
        rsi_link_consume(link, frame.frame_bytes);
    }
}

static void write_frame(struct end *end)
{
    struct rsi_link *link = end->link;
    struct rsi_frame_header *header =
        link->out.capacity_bytes != 0 ? rsi_frame_claim(link, RSI_FRAME_HEADER_BYTES) : NULL;
    if (header == NULL) {
        return;
    }
    memset((uint8_t *)header + sizeof(header->commit), 0,
           RSI_FRAME_HEADER_BYTES - sizeof(header->commit));
    header->type = RSI_FRAME_MESSAGE;
    rsi_frame_commit(link, RSI_FRAME_HEADER_BYTES);
    rsi_link_place(link);
    (void)rsi_link_flush(link);
    rsi_link_request_wake(link, UINT64_MAX, link->staged_pos, link->staged_pos);
    (void)!rsi_link_send_control(link, "word", 4);
}

/* ---- lying ----------------------------------------------------------------------------------- */

static void transmit(struct rsi_port_frame *frame)
{
    rsi_assert(liar->operations->transmit(liar, 0, frame, 1) == 1);
}

static void send_frame(const uint8_t *data, size_t bytes)
{
    struct rsi_port_frame frame;
    rsi_assert(liar->operations->acquire(liar, &frame, 1) == 1);
    memcpy(frame.data, rsi_dpdk_domain(server.domain)->station->port->mac, RSI_MAC_BYTES);
    memcpy(frame.data + RSI_MAC_BYTES, liar->mac, RSI_MAC_BYTES);
    memcpy(frame.data + 2 * RSI_MAC_BYTES, data, bytes);
    frame.bytes = (uint32_t)(2 * RSI_MAC_BYTES + bytes);
    transmit(&frame);
}

static struct rsi_datagram_header next_header(void)
{
    const struct rsi_dpdk_link *link = rsi_dpdk_link(server.link);
    return (struct rsi_datagram_header){
        .connection = link->connection,
        .from = link->peer_connection,
        .number = link->receive.newest_number + 1,
    };
}

static void send_datagram(struct rsi_datagram_header *header, const uint8_t *body)
{
    struct rsi_port_frame frame;
    struct rsi_packet_end from = {.address = CLIENT,
                                  .port = rsi_dpdk_link(server.link)->peer_end.port};
    struct rsi_packet_end to = {.address = SERVER, .port = LISTEN_PORT};
    rsi_assert(liar->operations->acquire(liar, &frame, 1) == 1);
    memcpy(from.mac, liar->mac, RSI_MAC_BYTES);
    memcpy(to.mac, rsi_dpdk_domain(server.domain)->station->port->mac, RSI_MAC_BYTES);
    memcpy(rsi_packet_body(&frame), body, header->bytes);
    rsi_packet_write(&frame, &from, &to, header);
    transmit(&frame);
}

static void send_state(struct rsi_datagram_header *header, const uint8_t *data, size_t bytes)
{
    const struct rsi_dpdk_link *link = rsi_dpdk_link(server.link);
    struct rsi_datagram_state state = {
        .received_pos = link->send.confirmed_pos,
        .arrived_pos = link->base.peer_arrived_pos,
        .consumed_pos = link->base.peer_consumed_held_pos,
        .number_limit = link->send.number_limit,
        .sent_pos = link->base.arrived_pos,
        .state_seen = link->send.told_number,
        .lane_received = link->lane.confirmed,
        .control_limit = link->lane.control_limit,
    };
    uint8_t body[sizeof(state) + 256];
    memcpy(body, &state, sizeof(state));
    while (bytes >= 2 && data[0] < sizeof(state)) {
        body[data[0]] = (uint8_t)(body[data[0]] + data[1]);
        data += 2;
        bytes -= 2;
    }
    memcpy(body + sizeof(state), data, bytes);
    header->flags |= RSI_DATAGRAM_FLAG_STATE;
    header->bytes = (uint16_t)(sizeof(state) + bytes);
    send_datagram(header, body);
}

static void take_step(uint32_t step, const uint8_t *data, size_t bytes)
{
    struct rsi_datagram_header header = next_header();
    switch ((enum step)step) {
    case STEP_FRAME:
        send_frame(data, bytes);
        break;
    case STEP_DATAGRAM:
    case STEP_STATE:
        if (bytes < 2) {
            break;
        }
        header.type = data[0] % 13;
        header.flags = data[1];
        header.bytes = (uint16_t)(bytes - 2);
        if (step == STEP_STATE) {
            send_state(&header, data + 2, bytes - 2);
        } else {
            send_datagram(&header, data + 2);
        }
        break;
    case STEP_HEADER:
        if (bytes >= sizeof(header)) {
            memcpy(&header, data, sizeof(header));
            header.bytes = (uint16_t)(bytes - sizeof(header));
            send_datagram(&header, data + sizeof(header));
        }
        break;
    case STEP_TALK:
        write_frame(&server);
        write_frame(&client);
        pass();
        read_frames(&server);
        read_frames(&client);
        break;
    case STEP_WAIT:
    case STEP_COUNT:
        now_ns += UINT64_C(1000) << (bytes % 24);
        break;
    }
    pass();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    set_up();
    connect_ends();
    fuzz_take_steps(data, bytes, STEP_COUNT, take_step);
    read_frames(&server);
    read_frames(&client);
    close_ends();
    return 0;
}
