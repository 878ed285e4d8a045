/*
 * Cases about batches: what one flush costs, what waits for another, and that nothing waits for
 * ever.
 */
#include "transport/conformance/stream.h"

#include <stdio.h>

static void read_all(struct conform *conform, struct rsi_link *link, uint64_t seed, uint64_t first,
                     uint64_t count, uint64_t payload_bytes)
{
    uint64_t pos = link->consumed_pos;
    for (uint64_t i = 0; i < count; i++) {
        pos += conform_check_frame(conform, link, pos, seed, first + i, payload_bytes);
    }
    conform_equal(conform, pos, link->arrived_pos);
    rsi_link_consume(link, pos - link->consumed_pos);
}

static void thousand_frames_in_one_flush(struct conform *conform)
{
    enum { FRAME_COUNT = 1000 };
    conform_open(conform, NULL);
    conform_connect_attached(conform, 262144);
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    for (uint32_t round = 0; round < 5; round++) {
        uint64_t first = (uint64_t)round * FRAME_COUNT;
        uint64_t batches_before = rsi_load_relaxed(&client->stats.batches_sent);
        for (uint64_t i = 0; i < FRAME_COUNT; i++) {
            conform_check(conform, conform_stage(conform, client, 9, first + i, 64));
        }
        conform_equal(conform, server->arrived_pos, client->placed_pos);
        rsi_link_place(client);
        conform_check(conform, !rsi_failed(rsi_link_flush(client)));
        conform_wait_until(conform, server->arrived_pos == client->placed_pos);
        uint64_t batches = rsi_load_relaxed(&client->stats.batches_sent) - batches_before;
        uint64_t batches_max =
            1 + FRAME_COUNT * rsi_frame_bytes(0, 64) / conform->transport->batch_bytes_max;
        conform_check(conform, batches <= batches_max + 1);
        read_all(conform, server, 9, first, FRAME_COUNT, 64);
        rsi_link_request_wake(client, CONFORM_NEVER, CONFORM_NEVER, client->placed_pos);
        conform_wait_until(conform, client->peer_consumed_pos == client->placed_pos);
    }
    conform_shut(conform);
}

/* Several places before one flush are one batch as well. */
static void places_gather_until_the_flush(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    uint64_t index = 0;
    for (uint32_t round = 0; round < 100; round++) {
        uint64_t first = index;
        uint64_t count = 1 + conform_random(&conform->random, 20);
        while (index < first + count) {
            conform_check(conform, conform_stage(conform, client, 10, index++, 48));
            if (conform_random(&conform->random, 2) == 0) {
                rsi_link_place(client);
            }
        }
        rsi_link_place(client);
        conform_equal(conform, client->placed_pos, client->staged_pos);
        conform_check(conform, !rsi_failed(rsi_link_flush(client)));
        conform_wait_until(conform, server->arrived_pos == client->placed_pos);
        read_all(conform, server, 10, first, count, 48);
        rsi_link_request_wake(client, CONFORM_NEVER, CONFORM_NEVER, client->placed_pos);
        conform_wait_until(conform, client->peer_consumed_pos == client->placed_pos);
    }
    conform_shut(conform);
}

static void thousand_messages_cost_few_sends(struct conform *conform)
{
    enum { FRAME_COUNT = 1000, SENDS_MAX = 40 };
    conform_open(conform, NULL);
    conform_connect_attached(conform, 262144);
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    uint64_t sends_before = rsi_load_relaxed(&client->stats.sends);
    for (uint64_t i = 0; i < FRAME_COUNT; i++) {
        conform_check(conform, conform_stage(conform, client, 11, i, 64));
        rsi_link_place(client);
        conform_check(conform, !rsi_failed(rsi_link_flush_clocked(client)));
    }
    conform_wait_until(conform, server->arrived_pos == client->placed_pos);
    conform_equal(conform, client->flushed_pos, client->placed_pos);
    uint64_t sends = rsi_load_relaxed(&client->stats.sends) - sends_before;
    if (conform->options->is_verbose) {
        printf("    %d messages of 64 bytes: %llu sends\n", FRAME_COUNT, (unsigned long long)sends);
    }
    conform_check(conform, sends <= SENDS_MAX);
    read_all(conform, server, 11, 0, FRAME_COUNT, 64);
    conform_shut(conform);
}

/* On an idle link a message does not wait for another one, nor for a timer. */
static void single_message_leaves_at_once(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    uint64_t count = conform_scaled(conform, 1000, 50);
    for (uint64_t i = 0; i < count; i++) {
        conform_check(conform, conform_stage(conform, client, 12, i, 64));
        rsi_link_place(client);
        conform_check(conform, !rsi_failed(rsi_link_flush_clocked(client)));
        conform_wait_until(conform, server->arrived_pos == client->placed_pos);
        read_all(conform, server, 12, i, 1, 64);
        /* Idle again: what was under way has come through, and the sender knows. */
        conform_wait_until(conform, !client->under_way && rsi_link_room_bytes(client) >= 65536 / 4);
    }
    conform_shut(conform);
}

/* What a sender in no hurry left behind goes along when what is under way has arrived. */
static void what_waits_follows_by_itself(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    uint64_t index = 0;
    for (uint32_t round = 0; round < 300; round++) {
        uint64_t first = index;
        uint64_t count = 1 + conform_random(&conform->random, 5);
        while (index < first + count) {
            conform_check(conform, conform_stage(conform, client, 13, index++, 100));
            rsi_link_place(client);
            conform_check(conform, !rsi_failed(rsi_link_flush_clocked(client)));
        }
        conform_wait_until(conform, server->arrived_pos == client->placed_pos);
        read_all(conform, server, 13, first, count, 100);
        conform_wait_until(conform, rsi_link_room_bytes(client) >= 65536 / 4);
    }
    conform_shut(conform);
}

const struct conform_case conform_batch_cases[] = {
    {"thousand_frames_in_one_flush", thousand_frames_in_one_flush, CONFORM_ONE_THREAD},
    {"places_gather_until_the_flush", places_gather_until_the_flush, CONFORM_ONE_THREAD},
    {"thousand_messages_cost_few_sends", thousand_messages_cost_few_sends, CONFORM_ONE_THREAD},
    {"single_message_leaves_at_once", single_message_leaves_at_once, CONFORM_ONE_THREAD},
    {"what_waits_follows_by_itself", what_waits_follows_by_itself, CONFORM_ONE_THREAD},
    {NULL, NULL, 0},
};
