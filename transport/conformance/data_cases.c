/*
 * Cases about bytes: every frame whole, in order and at its position, whatever its size and
 * whatever the other direction does.
 */
#include "transport/conformance/stream.h"

#include <stdio.h>

#define SMALL_SIZES 4097u

/* 0, 1, ..., 4096. */
static uint64_t size_counting(uint64_t seed, uint64_t index)
{
    (void)seed;
    return index % SMALL_SIZES;
}

#define RING_FOR_POWERS 1048576u

/* 2^k - 2 ... 2^k + 2 for k from 3 up to a quarter of the ring, which is the largest message. */
static uint64_t size_near_powers(uint64_t seed, uint64_t index)
{
    (void)seed;
    uint64_t power = UINT64_C(1) << (3 + index / 5 % 16);
    return power - 2 + index % 5;
}

static void frames_of_every_small_size(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    struct conform_stream streams[2];
    conform_stream_init(&streams[0], &conform->client, 0, SMALL_SIZES, size_counting);
    conform_streams_run(conform, streams, 1);
    conform_stream_init(&streams[0], &conform->server, 0, SMALL_SIZES, size_counting);
    conform_streams_run(conform, streams, 1);
    conform_shut(conform);
}

static void frames_near_powers_of_two(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, RING_FOR_POWERS);
    struct conform_stream streams[2];
    uint64_t count = conform_scaled(conform, 800, 160);
    conform_stream_init(&streams[0], &conform->client, 0, count, size_near_powers);
    conform_stream_init(&streams[1], &conform->server, 0, count, size_near_powers);
    conform_streams_run(conform, streams, 2);
    conform_shut(conform);
}

/* All that a ring takes: its capacity less the guard. */
static uint64_t size_of_whole_ring(uint64_t seed, uint64_t index)
{
    (void)seed;
    uint64_t largest = 65536 - RSI_RING_GUARD_BYTES - RSI_FRAME_HEADER_BYTES;
    return index % 3 == 0 ? 24 : largest - index % 9;
}

static void frames_as_large_as_the_ring(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    struct conform_stream streams[2];
    conform_stream_init(&streams[0], &conform->client, 0, 100, size_of_whole_ring);
    conform_stream_init(&streams[1], &conform->server, 0, 100, size_of_whole_ring);
    conform_streams_run(conform, streams, 2);
    conform_shut(conform);
}

static void frames_both_ways(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    struct conform_stream streams[2];
    uint64_t count = conform_scaled(conform, 20000, 2000);
    conform_stream_init(&streams[0], &conform->client, 0, count, conform_size_mixed);
    conform_stream_init(&streams[1], &conform->server, 0, count, conform_size_mixed);
    conform_streams_run(conform, streams, 2);
    /* arrived_bytes of the one is placed_bytes of the other. */
    const struct rsi_link_stats *client = &conform->client.links[0]->stats;
    const struct rsi_link_stats *server = &conform->server.links[0]->stats;
    conform_equal(conform, rsi_load_relaxed(&client->placed_bytes),
                  rsi_load_relaxed(&server->arrived_bytes));
    conform_equal(conform, rsi_load_relaxed(&server->placed_bytes),
                  rsi_load_relaxed(&client->arrived_bytes));
    conform_shut(conform);
}

static void a_million_small_frames(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 262144);
    struct conform_stream streams[2];
    uint64_t count = conform_scaled(conform, 500000, 5000);
    conform_stream_init(&streams[0], &conform->client, 0, count, conform_size_64);
    conform_stream_init(&streams[1], &conform->server, 0, count, conform_size_64);
    conform_streams_run(conform, streams, 2);
    conform_shut(conform);
}

/* Fills the client's out ring with frames of 200 bytes; returns how many. */
static uint64_t fill(struct conform *conform, struct rsi_link *link, uint64_t first_index)
{
    uint64_t count = 0;
    while (conform_stage(conform, link, 8, first_index + count, 200)) {
        count++;
    }
    rsi_link_place(link);
    conform_check(conform, !rsi_failed(rsi_link_flush(link)));
    return count;
}

static void full_ring_gets_room_back(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    uint64_t frame_bytes = rsi_frame_bytes(0, 200);
    uint64_t written_count = 0;
    uint64_t read_count = 0;
    for (uint32_t lap = 0; lap < 40; lap++) {
        written_count += fill(conform, client, written_count);
        conform_check(conform, rsi_link_room_bytes(client) < frame_bytes);
        conform_wait_until(conform, server->arrived_pos == client->placed_pos);
        /* Arrival frees nothing: what room there is, late news of consumption made. */
        uint64_t room_limit_pos = server->consumed_pos + 65536 - RSI_RING_GUARD_BYTES;
        conform_check(conform, client->staged_pos + rsi_link_room_bytes(client) <= room_limit_pos);

        /* Three quarters are given back: the writer hears of it without asking. */
        uint64_t keep_bytes = 16384;
        while (server->arrived_pos - server->consumed_pos > keep_bytes) {
            uint64_t bytes =
                conform_check_frame(conform, server, server->consumed_pos, 8, read_count++, 200);
            rsi_link_consume(server, bytes);
        }
        conform_wait_until(conform, rsi_link_room_bytes(client) >= 32768 - frame_bytes);
        conform_check(conform, client->peer_consumed_pos <= server->consumed_pos);
    }
    conform_shut(conform);
}

/* The reader that does not run for long finds all the same what was written. */
static void arrived_without_the_reader_running(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    uint64_t count = fill(conform, client, 0);
    for (int i = 0; i < 2000; i++) {
        conform_side_step(&conform->client);
    }
    conform_wait_until(conform, server->arrived_pos == client->placed_pos);
    uint64_t pos = server->consumed_pos;
    for (uint64_t i = 0; i < count; i++) {
        pos += conform_check_frame(conform, server, pos, 8, i, 200);
    }
    conform_shut(conform);
}

const struct conform_case conform_data_cases[] = {
    {"frames_of_every_small_size", frames_of_every_small_size, CONFORM_BOTH},
    {"frames_near_powers_of_two", frames_near_powers_of_two, CONFORM_BOTH},
    {"frames_as_large_as_the_ring", frames_as_large_as_the_ring, CONFORM_BOTH},
    {"frames_both_ways", frames_both_ways, CONFORM_BOTH},
    {"full_ring_gets_room_back", full_ring_gets_room_back, CONFORM_ONE_THREAD},
    {"arrived_without_the_reader_running", arrived_without_the_reader_running, CONFORM_ONE_THREAD},
    {"a_million_small_frames", a_million_small_frames, CONFORM_BOTH},
    {NULL, NULL, 0},
};
