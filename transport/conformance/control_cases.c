/*
 * Cases about the control lane: small messages both ways, whatever the data rings do.
 */
#include "transport/conformance/stream.h"

#include <stdio.h>
#include <string.h>

/* Far more than two mailboxes and any credit hold: a lane that takes this much has no bound. */
#define FLOOD_COUNT_MAX 20000u

/* Message `index`: 1 to RSI_CONTROL_BYTES_MAX bytes that follow from it. */
static uint32_t make_message(uint8_t *message, uint64_t seed, uint32_t index)
{
    uint64_t state = seed + index;
    uint32_t bytes = 1 + (uint32_t)conform_random(&state, RSI_CONTROL_BYTES_MAX);
    for (uint32_t i = 0; i < bytes; i++) {
        message[i] = (uint8_t)conform_random(&state, 256);
    }
    return bytes;
}

static rsi_status_t send_message(struct rsi_link *link, uint64_t seed, uint32_t index)
{
    uint8_t message[RSI_CONTROL_BYTES_MAX];
    uint32_t bytes = make_message(message, seed, index);
    return rsi_link_send_control(link, message, bytes);
}

/* Takes message `index` if one is there. */
static bool receive_message(struct conform *conform, struct rsi_link *link, uint64_t seed,
                            uint32_t index)
{
    uint32_t bytes = 0;
    const void *got = rsi_link_front_control(link, &bytes);
    if (got == NULL) {
        return false;
    }
    uint8_t message[RSI_CONTROL_BYTES_MAX];
    conform_equal(conform, bytes, make_message(message, seed, index));
    conform_check(conform, memcmp(got, message, bytes) == 0);
    rsi_link_pop_control(link);
    return true;
}

/* `count` messages each way at once; both sides run. */
static void exchange(struct conform *conform, uint32_t count)
{
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    uint32_t client_sent = 0;
    uint32_t client_got = 0;
    uint32_t server_sent = 0;
    uint32_t server_got = 0;
    uint64_t deadline_ns = conform_now_ns() + CONFORM_HANG_NS;
    while (client_got < count || server_got < count) {
        bool has_moved = false;
        if (client_sent < count && send_message(client, 1, client_sent) == RSI_OK) {
            client_sent++;
        }
        if (server_sent < count && send_message(server, 2, server_sent) == RSI_OK) {
            server_sent++;
        }
        conform_step(conform);
        if (client_got < count && receive_message(conform, client, 2, client_got)) {
            client_got++;
            has_moved = true;
        }
        if (server_got < count && receive_message(conform, server, 1, server_got)) {
            server_got++;
            has_moved = true;
        }
        if (has_moved) {
            deadline_ns = conform_now_ns() + CONFORM_HANG_NS;
        }
        conform_check(conform, conform_now_ns() < deadline_ns);
    }
    uint32_t bytes;
    conform_check(conform, rsi_link_front_control(client, &bytes) == NULL);
    conform_check(conform, rsi_link_front_control(server, &bytes) == NULL);
}

static void control_before_attach(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect(conform, 1);
    exchange(conform, (uint32_t)conform_scaled(conform, 2000, 300));
    const struct rsi_link_stats *stats = &conform->client.links[0]->stats;
    conform_check(conform, rsi_load_relaxed(&stats->control_sent) >= 300);
    conform_check(conform, rsi_load_relaxed(&stats->control_received) >= 300);
    conform_shut(conform);
}

static void control_bounds(struct conform *conform)
{
    static const uint8_t bytes[RSI_CONTROL_BYTES_MAX + 1];
    conform_open(conform, NULL);
    struct rsi_link *early = conform_dial(conform);
    conform_equal(conform, rsi_link_send_control(early, bytes, 1), RSI_E_STATE);
    conform_wait_until(conform, rsi_link_state(early) == RSI_LINK_OPEN &&
                                    conform->server.link_count == 1 &&
                                    conform_all_in_state(&conform->server, RSI_LINK_OPEN));
    conform_equal(conform, rsi_link_send_control(early, bytes, 0), RSI_E_INVALID);
    conform_equal(conform, rsi_link_send_control(early, bytes, sizeof(bytes)), RSI_E_TOO_LARGE);
    for (uint32_t size = 1; size <= RSI_CONTROL_BYTES_MAX; size++) {
        uint32_t got_bytes = 0;
        conform_equal(conform, rsi_link_send_control(early, bytes, size), RSI_OK);
        conform_wait_until(conform,
                           rsi_link_front_control(conform->server.links[0], &got_bytes) != NULL);
        conform_equal(conform, got_bytes, size);
        rsi_link_pop_control(conform->server.links[0]);
    }
    conform_shut(conform);
}

/* Sends until nothing more is taken, although both sides run; the server takes none. */
static uint32_t flood(struct conform *conform)
{
    struct rsi_link *client = conform->client.links[0];
    uint32_t sent = 0;
    uint32_t quiet_steps = 0;
    while (quiet_steps < 5000) {
        rsi_status_t status = send_message(client, 3, sent);
        if (status == RSI_OK) {
            sent++;
            quiet_steps = 0;
        } else {
            conform_equal(conform, status, RSI_WOULD_BLOCK);
            quiet_steps++;
        }
        conform_step(conform);
        conform_check(conform, sent < FLOOD_COUNT_MAX);
    }
    return sent;
}

static void drain(struct conform *conform, uint32_t count)
{
    for (uint32_t got = 0; got < count; got++) {
        uint32_t bytes;
        conform_wait_until(conform,
                           rsi_link_front_control(conform->server.links[0], &bytes) != NULL);
        conform_check(conform, receive_message(conform, conform->server.links[0], 3, got));
    }
}

static void control_flood(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect(conform, 1);
    for (int round = 0; round < 3; round++) {
        uint32_t sent = flood(conform);
        conform_check(conform, sent >= RSI_CONTROL_SLOT_COUNT);
        drain(conform, sent);
    }
    exchange(conform, 200);
    conform_shut(conform);
}

/* A lane that nobody empties holds up neither data nor the other lane. */
static void data_moves_while_control_is_flooded(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    uint32_t sent = flood(conform);
    struct conform_stream streams[2];
    conform_stream_init(&streams[0], &conform->client, 0, 2000, conform_size_mixed);
    conform_stream_init(&streams[1], &conform->server, 0, 2000, conform_size_mixed);
    conform_streams_run(conform, streams, 2);
    for (uint32_t i = 0; i < 300; i++) {
        conform_wait_until(conform,
                           send_message(conform->server.links[0], 4, i) != RSI_WOULD_BLOCK);
        conform_wait_until(conform, receive_message(conform, conform->client.links[0], 4, i));
    }
    drain(conform, sent);
    conform_shut(conform);
}

/* Fills the ring that a side writes until no frame fits; what it can is flushed. */
static uint64_t fill_ring(struct conform *conform, struct conform_side *side)
{
    struct rsi_link *link = side->links[0];
    uint64_t count = 0;
    while (conform_stage(conform, link, 5, count, 1000)) {
        count++;
        rsi_link_place(link);
        conform_check(conform, !rsi_failed(rsi_link_flush_clocked(link)));
    }
    return count;
}

static void control_moves_while_rings_are_full(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    uint64_t client_count = fill_ring(conform, &conform->client);
    uint64_t server_count = fill_ring(conform, &conform->server);
    exchange(conform, 500);
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    conform_wait_until(conform, server->arrived_pos == client->placed_pos &&
                                    client->arrived_pos == server->placed_pos);
    exchange(conform, 500);
    uint64_t pos = 0;
    for (uint64_t i = 0; i < client_count; i++) {
        pos += conform_check_frame(conform, server, pos, 5, i, 1000);
    }
    pos = 0;
    for (uint64_t i = 0; i < server_count; i++) {
        pos += conform_check_frame(conform, client, pos, 5, i, 1000);
    }
    conform_shut(conform);
}

static void control_beside_data(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    uint32_t sent = 0;
    uint32_t got = 0;
    for (int round = 0; round < 50; round++) {
        while (send_message(client, 6, sent) == RSI_OK) {
            sent++;
        }
        struct conform_stream streams[2];
        conform_stream_init(&streams[0], &conform->client, 0, 40, conform_size_mixed);
        conform_stream_init(&streams[1], &conform->server, 0, 40, conform_size_mixed);
        conform_streams_run(conform, streams, 2);
        while (receive_message(conform, server, 6, got)) {
            got++;
        }
    }
    conform_wait_until(conform,
                       got == sent || (receive_message(conform, server, 6, got) && ++got == sent));
    conform_shut(conform);
}

/* What was sent before close still arrives, and before the end is told. */
static void control_sent_before_close_arrives(struct conform *conform)
{
    enum { MESSAGE_COUNT = 40 }; /* more than go out at once on most transports */
    for (uint32_t round = 0; round < 10; round++) {
        conform_open(conform, NULL);
        conform_connect(conform, 1);
        struct conform_side *closer = round % 2 == 0 ? &conform->client : &conform->server;
        struct conform_side *other = round % 2 == 0 ? &conform->server : &conform->client;
        for (uint32_t i = 0; i < MESSAGE_COUNT; i++) {
            conform_equal(conform, send_message(closer->links[0], 7, i), RSI_OK);
        }
        conform->transport->link_close(closer->links[0]);
        conform_equal(conform, send_message(closer->links[0], 7, 99), RSI_E_LINK_CLOSED);
        conform_wait_until(conform, rsi_link_state(other->links[0]) == RSI_LINK_LOST);
        for (uint32_t i = 0; i < MESSAGE_COUNT; i++) {
            if (!receive_message(conform, other->links[0], 7, i)) {
                conform_fail(conform, "message %u of %d sent before close did not arrive", i,
                             MESSAGE_COUNT);
            }
        }
        conform_check_lost(other, 0);
        conform_equal(conform, send_message(other->links[0], 7, 99), RSI_E_LINK_LOST);
        conform_shut(conform);
    }
}

const struct conform_case conform_control_cases[] = {
    {"control_before_attach", control_before_attach, CONFORM_ONE_THREAD},
    {"control_bounds", control_bounds, CONFORM_ONE_THREAD},
    {"control_flood", control_flood, CONFORM_ONE_THREAD},
    {"control_moves_while_rings_are_full", control_moves_while_rings_are_full, CONFORM_ONE_THREAD},
    {"control_beside_data", control_beside_data, CONFORM_BOTH},
    {"control_sent_before_close_arrives", control_sent_before_close_arrives, CONFORM_ONE_THREAD},
    {"data_moves_while_control_is_flooded", data_moves_while_control_is_flooded, CONFORM_BOTH},
    {NULL, NULL, 0},
};
