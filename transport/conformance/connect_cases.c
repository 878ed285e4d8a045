/*
 * Cases about becoming a link: dialling, greetings, attaching.
 */
#include "transport/conformance/stream.h"

#include <stdio.h>
#include <string.h>

static void connect_to_open(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect(conform, 1);
    const struct rsi_link *client = conform->client.links[0];
    const struct rsi_link *server = conform->server.links[0];
    conform_equal(conform, client->peer_greeting.magic, RSI_WIRE_MAGIC);
    conform_equal(conform, client->peer_greeting.incarnation, 2);
    conform_equal(conform, server->peer_greeting.incarnation, 1);
    conform_check(conform, client->peer_greeting.ring_bytes_max > 0);
    conform_check(conform, client->id != server->id);
    conform_check(conform, client->peer_text[0] != '\0' && server->peer_text[0] != '\0');
    if (conform->options->is_verbose) {
        printf("    client %s -> %s\n    server %s <- %s\n", client->local_text, client->peer_text,
               server->local_text, server->peer_text);
    }
    conform_shut(conform);
}

static void connect_several_on_one_poller(struct conform *conform)
{
    enum { LINK_COUNT = 8 };
    conform_open(conform, NULL);
    conform_connect(conform, LINK_COUNT);
    struct rsi_link_rings rings = {.out_bytes = 65536, .in_bytes = 65536};
    struct conform_stream streams[2 * LINK_COUNT];
    for (uint32_t i = 0; i < LINK_COUNT; i++) {
        conform_attach(conform, i, &rings);
    }
    uint64_t frame_count = conform_scaled(conform, 2000, 200);
    for (uint32_t i = 0; i < LINK_COUNT; i++) {
        conform_stream_init(&streams[2 * i], &conform->client, i, frame_count, conform_size_mixed);
        conform_stream_init(&streams[2 * i + 1], &conform->server, i, frame_count,
                            conform_size_mixed);
    }
    conform_streams_run(conform, streams, 2 * LINK_COUNT);
    /* One link's end is not the others'. */
    conform_close_link(&conform->client, 3);
    conform_wait_until(conform, rsi_link_state(conform->server.links[3]) == RSI_LINK_LOST);
    conform_stream_init(&streams[0], &conform->client, 5, frame_count, conform_size_mixed);
    conform_streams_run(conform, streams, 1);
    conform_shut(conform);
}

static void connect_more_than_the_poller_takes(struct conform *conform)
{
    struct conform_setup setup;
    conform_setup_init(&setup, conform);
    setup.client_poller.link_count_max = 2;
    conform_open(conform, &setup);
    conform_connect(conform, 2);
    struct rsi_url url;
    struct rsi_error error = {0};
    struct rsi_link *link = NULL;
    conform_dial_url(conform, &url);
    rsi_status_t status =
        conform->transport->link_dial(&link, conform->client.poller, &url, &error);
    conform_equal(conform, status, RSI_E_LIMIT);
    conform_check(conform, link == NULL && strstr(error.text, "2") != NULL);
    conform_shut(conform);
}

static void dial_with_nobody_there(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect(conform, 1); /* the address is a good one, but for what follows */
    struct rsi_url url;
    conform_dial_url(conform, &url);
    conform->transport->listener_destroy(conform->listener);
    conform->listener = NULL;

    struct rsi_link *link = NULL;
    struct rsi_error error = {0};
    rsi_status_t status =
        conform->transport->link_dial(&link, conform->client.poller, &url, &error);
    if (status != RSI_OK) { /* known at once */
        conform_check(conform, rsi_failed(status) && strlen(error.text) >= 10);
        if (conform->options->is_verbose) {
            printf("    refused at once: %s (%s)\n", error.text, rsi_status_name(status));
        }
    } else {
        conform->client.links[conform->client.link_count++] = link;
        conform_wait_until(conform, rsi_link_state(link) == RSI_LINK_LOST);
        conform_check_lost(&conform->client, 1);
    }
    conform_shut(conform);
}

static void dial_unaccepted_times_out(struct conform *conform)
{
    struct conform_setup setup;
    conform_setup_init(&setup, conform);
    setup.client_domain.connect_timeout_ns = 300000000;
    conform_open(conform, &setup);
    struct rsi_link *link = conform_dial(conform);
    /* The server's side does not run: nobody accepts. */
    conform_side_wait_until(&conform->client, rsi_link_state(link) == RSI_LINK_LOST);
    conform_check_lost(&conform->client, 0);
    conform_shut(conform);
}

static void dial_again_after_the_listener_came_back(struct conform *conform)
{
    for (int i = 0; i < 3; i++) {
        conform_open(conform, NULL);
        conform_connect(conform, 2);
        conform_shut(conform);
    }
}

static bool text_names_versions(const char *text)
{
    return strstr(text, "7") != NULL && strstr(text, "1") != NULL;
}

static void greeting_of_another_version(struct conform *conform)
{
    struct conform_setup setup;
    conform_setup_init(&setup, conform);
    setup.client_domain.version_min = 7;
    setup.client_domain.version_max = 7;
    conform_open(conform, &setup);
    struct rsi_link *client = conform_dial(conform);
    conform_wait_until(conform, rsi_link_state(client) == RSI_LINK_LOST);
    conform_check_lost(&conform->client, 0);
    conform_equal(conform, client->error.status, RSI_E_VERSION);
    conform_check(conform, text_names_versions(client->error.text));

    /* The server hears of it as a link that is lost, or at once when it accepts. */
    conform_wait_until(conform, conform->accept_error.text[0] != '\0' ||
                                    (conform->server.link_count == 1 &&
                                     conform_all_in_state(&conform->server, RSI_LINK_LOST)));
    if (conform->server.link_count == 1) {
        conform_check_lost(&conform->server, 0);
        conform_equal(conform, conform->server.links[0]->error.status, RSI_E_VERSION);
        conform_check(conform, text_names_versions(conform->server.links[0]->error.text));
    } else {
        conform_equal(conform, conform->accept_error.status, RSI_E_VERSION);
        conform_check(conform, text_names_versions(conform->accept_error.text));
    }
    conform_shut(conform);
}

static void attach_rings_of_many_sizes(struct conform *conform)
{
    static const struct rsi_link_rings sizes[] = {
        {.out_bytes = 65536, .in_bytes = 65536},   {.out_bytes = 262144, .in_bytes = 65536},
        {.out_bytes = 65536, .in_bytes = 1048576}, {.out_bytes = 0, .in_bytes = 131072},
        {.out_bytes = 131072, .in_bytes = 0},
    };
    conform_open(conform, NULL);
    for (uint32_t i = 0; i < rsi_array_count(sizes); i++) {
        conform_connect(conform, 1);
        conform_attach(conform, 0, &sizes[i]);
        struct rsi_link *client = conform->client.links[0];
        struct rsi_link *server = conform->server.links[0];
        conform_equal(conform, client->out.capacity_bytes, sizes[i].out_bytes);
        conform_equal(conform, client->in.capacity_bytes, sizes[i].in_bytes);
        conform_equal(conform, server->out.capacity_bytes, sizes[i].in_bytes);
        conform_equal(conform, server->in.capacity_bytes, sizes[i].out_bytes);

        struct conform_stream streams[2];
        uint32_t stream_count = 0;
        if (sizes[i].out_bytes != 0) {
            conform_stream_init(&streams[stream_count++], &conform->client, 0, 500,
                                conform_size_mixed);
        }
        if (sizes[i].in_bytes != 0) {
            conform_stream_init(&streams[stream_count++], &conform->server, 0, 500,
                                conform_size_mixed);
        }
        conform_streams_run(conform, streams, stream_count);
        conform_close_link(&conform->client, 0);
        conform_wait_until(conform, rsi_link_state(server) == RSI_LINK_LOST);
        conform_close_link(&conform->server, 0);
        conform->client.link_count = 0;
        conform->server.link_count = 0;
    }
    conform_shut(conform);
}

static void attach_with_sizes_that_differ(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect(conform, 1);
    struct rsi_link_rings client_rings = {.out_bytes = 131072, .in_bytes = 65536};
    struct rsi_link_rings server_rings = {.out_bytes = 65536, .in_bytes = 262144};
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    struct rsi_error error = {0};
    conform_equal(conform, conform->transport->link_attach(client, &client_rings, &error), RSI_OK);
    conform_equal(conform, conform->transport->link_attach(server, &server_rings, &error), RSI_OK);
    conform_wait_until(conform, rsi_link_state(client) == RSI_LINK_LOST ||
                                    rsi_link_state(server) == RSI_LINK_LOST);
    bool is_client =
        rsi_link_state(client) == RSI_LINK_LOST && client->error.status == RSI_E_PROTOCOL;
    struct conform_side *side = is_client ? &conform->client : &conform->server;
    conform_check_lost(side, 0);
    const struct rsi_error *reason = &side->links[0]->error;
    conform_equal(conform, reason->status, RSI_E_PROTOCOL);
    conform_check(conform, strstr(reason->text, "131072") != NULL);
    conform_check(conform, strstr(reason->text, "262144") != NULL);
    conform_shut(conform);
}

static void attach_refuses_bad_rings(struct conform *conform)
{
    static const struct rsi_link_rings bad[] = {
        {.out_bytes = 65536 + 8, .in_bytes = 65536},
        {.out_bytes = 65536, .in_bytes = 4096},
        {.out_bytes = 2 * RSI_RING_BYTES_MAX, .in_bytes = 65536},
        {.out_bytes = 65536, .in_bytes = 65536, .out_start_pos = 12},
    };
    conform_open(conform, NULL);
    struct rsi_error error = {0};
    struct rsi_link_rings good = {.out_bytes = 65536, .in_bytes = 65536};
    struct rsi_link *early = conform_dial(conform);
    conform_equal(conform, conform->transport->link_attach(early, &good, &error), RSI_E_STATE);
    conform_wait_until(conform, rsi_link_state(early) == RSI_LINK_OPEN &&
                                    conform->server.link_count == 1 &&
                                    conform_all_in_state(&conform->server, RSI_LINK_OPEN));
    for (uint32_t i = 0; i < rsi_array_count(bad); i++) {
        rsi_error_clear(&error);
        conform_equal(conform, conform->transport->link_attach(early, &bad[i], &error),
                      RSI_E_INVALID);
        conform_check(conform, error.text[0] != '\0');
        conform_equal(conform, rsi_link_state(early), RSI_LINK_OPEN);
    }
    conform_attach(conform, 0, &good);
    conform_equal(conform, conform->transport->link_attach(early, &good, &error), RSI_E_STATE);
    conform_shut(conform);
}

static void no_data_before_attach(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect(conform, 1);
    struct rsi_link *link = conform->client.links[0];
    conform_equal(conform, rsi_link_room_bytes(link), 0);
    conform_check(conform, rsi_frame_claim(link, RSI_FRAME_HEADER_BYTES) == NULL);
    rsi_link_place(link);
    conform_equal(conform, rsi_link_flush(link), RSI_E_STATE);
    rsi_link_request_wake(link, 0, 0, 0);
    conform_equal(conform, link->placed_pos, 0);
    conform_shut(conform);
}

/* The commit word's 40 bits of position and an immediate's 32 come round while frames move. */
static void attach_at_far_positions(struct conform *conform)
{
    static const uint64_t wraps[] = {UINT64_C(1) << 43, UINT64_C(1) << 35, UINT64_C(1) << 32};
    conform_open(conform, NULL);
    for (uint32_t i = 0; i < rsi_array_count(wraps); i++) {
        conform_connect(conform, 1);
        struct rsi_link_rings rings = {
            .out_bytes = 65536,
            .in_bytes = 131072,
            .out_start_pos = wraps[i] - 100000,
            .in_start_pos = 3 * wraps[i] - 4088,
        };
        rings.out_consumed_pos = rings.out_start_pos;
        rings.in_consumed_pos = rings.in_start_pos;
        conform_attach(conform, 0, &rings);
        conform_equal(conform, conform->client.links[0]->staged_pos, rings.out_start_pos);
        conform_equal(conform, conform->server.links[0]->arrived_pos, rings.out_start_pos);
        struct conform_stream streams[2];
        conform_stream_init(&streams[0], &conform->client, 0, 2000, conform_size_mixed);
        conform_stream_init(&streams[1], &conform->server, 0, 2000, conform_size_mixed);
        conform_streams_run(conform, streams, 2);
        conform_check(conform, conform->server.links[0]->arrived_pos > wraps[i]);
        conform_close_link(&conform->client, 0);
        conform_close_link(&conform->server, 0);
        conform->client.link_count = 0;
        conform->server.link_count = 0;
    }
    conform_shut(conform);
}

const struct conform_case conform_connect_cases[] = {
    {"connect_to_open", connect_to_open, CONFORM_ONE_THREAD},
    {"connect_several_on_one_poller", connect_several_on_one_poller, CONFORM_BOTH},
    {"connect_more_than_the_poller_takes", connect_more_than_the_poller_takes, CONFORM_ONE_THREAD},
    {"dial_with_nobody_there", dial_with_nobody_there, CONFORM_ONE_THREAD},
    {"dial_unaccepted_times_out", dial_unaccepted_times_out, CONFORM_ONE_THREAD},
    {"dial_again_after_the_listener_came_back", dial_again_after_the_listener_came_back,
     CONFORM_ONE_THREAD},
    {"greeting_of_another_version", greeting_of_another_version, CONFORM_ONE_THREAD},
    {"attach_rings_of_many_sizes", attach_rings_of_many_sizes, CONFORM_BOTH},
    {"attach_with_sizes_that_differ", attach_with_sizes_that_differ, CONFORM_ONE_THREAD},
    {"attach_refuses_bad_rings", attach_refuses_bad_rings, CONFORM_ONE_THREAD},
    {"attach_at_far_positions", attach_at_far_positions, CONFORM_BOTH},
    {"no_data_before_attach", no_data_before_attach, CONFORM_ONE_THREAD},
    {NULL, NULL, 0},
};
