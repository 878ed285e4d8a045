/*
 * Cases about the end: in every state, from either side, with everything under way, and nothing
 * left behind.
 */
#include "transport/conformance/stream.h"

#include <pthread.h>
#include <stdio.h>

static void close_state(struct conform *conform, enum rsi_link_state state, bool is_client_first)
{
    conform_open(conform, NULL);
    struct rsi_link_rings rings = {.out_bytes = 65536, .in_bytes = 65536};
    struct rsi_error error = {0};
    if (state == RSI_LINK_CONNECTING) {
        (void)conform_dial(conform);
        for (uint64_t i = conform_random(&conform->random, 10); i > 0; i--) {
            conform_step(conform);
        }
    } else {
        conform_connect(conform, 1);
    }
    struct conform_side *closer = is_client_first ? &conform->client : &conform->server;
    struct conform_side *other = is_client_first ? &conform->server : &conform->client;
    if (state == RSI_LINK_ATTACHING) {
        conform_equal(conform, conform->transport->link_attach(closer->links[0], &rings, &error),
                      RSI_OK);
        for (uint64_t i = conform_random(&conform->random, 50); i > 0; i--) {
            conform_step(conform);
        }
        conform_equal(conform, rsi_link_state(closer->links[0]), RSI_LINK_ATTACHING);
    }
    if (state == RSI_LINK_ATTACHED) {
        conform_attach(conform, 0, &rings);
    }
    if (closer->link_count == 1) {
        conform_close_link(closer, 0);
        /* In CONNECTING the other side may never have come to be, or hear of it first when it
         * greets. */
        if (other->link_count == 1) {
            conform_wait_until(conform, rsi_link_state(other->links[0]) == RSI_LINK_LOST);
            conform_check_lost(other, 0);
            conform_close_link(other, 0);
        }
    }
    conform_shut(conform);
}

static void close_while_connecting(struct conform *conform)
{
    for (int i = 0; i < 20; i++) {
        close_state(conform, RSI_LINK_CONNECTING, i % 2 == 0);
    }
}

static void close_while_open(struct conform *conform)
{
    close_state(conform, RSI_LINK_OPEN, true);
    close_state(conform, RSI_LINK_OPEN, false);
}

static void close_while_attaching(struct conform *conform)
{
    for (int i = 0; i < 10; i++) {
        close_state(conform, RSI_LINK_ATTACHING, i % 2 == 0);
    }
}

static void close_while_attached(struct conform *conform)
{
    close_state(conform, RSI_LINK_ATTACHED, true);
    close_state(conform, RSI_LINK_ATTACHED, false);
}

static void close_both_at_once(struct conform *conform)
{
    for (int i = 0; i < 10; i++) {
        conform_open(conform, NULL);
        conform_connect_attached(conform, 65536);
        conform->transport->link_close(conform->client.links[0]);
        conform->transport->link_close(conform->server.links[0]);
        conform_shut(conform);
    }
}

static void stage_all(struct conform *conform, struct rsi_link *link)
{
    uint64_t index = 0;
    while (conform_stage(conform, link, 16, index++, 700)) {
        rsi_link_place(link);
        conform_check(conform, !rsi_failed(rsi_link_flush_clocked(link)));
    }
}

/* Rings full of bytes that are placed, flushed, on the wire, arrived and not consumed. */
static void close_with_data_in_flight(struct conform *conform)
{
    for (int i = 0; i < 20; i++) {
        conform_open(conform, NULL);
        conform_connect_attached(conform, 65536);
        struct conform_side *closer = i % 2 == 0 ? &conform->client : &conform->server;
        struct conform_side *other = i % 2 == 0 ? &conform->server : &conform->client;
        stage_all(conform, conform->client.links[0]);
        stage_all(conform, conform->server.links[0]);
        for (uint64_t steps = conform_random(&conform->random, 10); steps > 0; steps--) {
            conform_step(conform);
        }
        conform_close_link(closer, 0);
        conform_wait_until(conform, rsi_link_state(other->links[0]) == RSI_LINK_LOST);
        conform_check_lost(other, 0);
        /* A lost link takes calls and does nothing. */
        struct rsi_link *lost = other->links[0];
        rsi_link_place(lost);
        conform_equal(conform, rsi_link_flush(lost), RSI_E_LINK_LOST);
        rsi_link_request_wake(lost, 0, 0, 0);
        conform_shut(conform);
    }
}

/* LOST discards nothing that arrived. */
static void arrived_bytes_outlive_the_peer(struct conform *conform)
{
    for (int round = 0; round < 6; round++) {
        conform_open(conform, NULL);
        conform_connect_attached(conform, 65536);
        struct conform_side *writer = round % 2 == 0 ? &conform->client : &conform->server;
        struct conform_side *reader = round % 2 == 0 ? &conform->server : &conform->client;
        struct rsi_link *out = writer->links[0];
        uint64_t count = 1 + conform_random(&conform->random, 80);
        for (uint64_t i = 0; i < count; i++) {
            conform_check(conform, conform_stage(conform, out, 17, i, 500));
        }
        rsi_link_place(out);
        conform_check(conform, !rsi_failed(rsi_link_flush(out)));
        rsi_link_request_wake(out, CONFORM_NEVER, out->placed_pos, CONFORM_NEVER);
        /* Where the reader need not run for it, it does not. */
        for (int i = 0; i < 3000 && out->peer_arrived_pos < out->placed_pos; i++) {
            conform_side_step(writer);
        }
        conform_wait_until(conform, out->peer_arrived_pos == out->placed_pos);
        uint64_t end_pos = out->placed_pos;
        conform_close_link(writer, 0);

        struct rsi_link *in = reader->links[0];
        conform_side_wait_until(reader, rsi_link_state(in) == RSI_LINK_LOST);
        conform_check_lost(reader, 0);
        conform_equal(conform, in->arrived_pos, end_pos);
        uint64_t pos = 0;
        for (uint64_t i = 0; i < count; i++) {
            pos += conform_check_frame(conform, in, pos, 17, i, 500);
            rsi_link_consume(in, pos - in->consumed_pos);
        }
        conform_equal(conform, in->consumed_pos, in->arrived_pos);
        conform_shut(conform);
    }
}

static void connect_and_close(struct conform *conform, bool attaches)
{
    conform_connect(conform, 1);
    if (attaches) {
        struct rsi_link_rings rings = {.out_bytes = 65536, .in_bytes = 65536};
        conform_attach(conform, 0, &rings);
        struct conform_stream streams[1];
        conform_stream_init(&streams[0], &conform->client, 0, 5, conform_size_mixed);
        conform_streams_run(conform, streams, 1);
    }
    bool is_client_first = conform_random(&conform->random, 2) == 0;
    conform_close_link(is_client_first ? &conform->client : &conform->server, 0);
    conform_close_link(is_client_first ? &conform->server : &conform->client, 0);
    conform->client.link_count = 0;
    conform->server.link_count = 0;
}

static void many_rounds_leave_nothing_behind(struct conform *conform)
{
    conform_open(conform, NULL);
    for (int i = 0; i < 3; i++) { /* what is made once per process */
        connect_and_close(conform, true);
    }
    uint32_t descriptors = conform_count_descriptors();
    uint32_t maps = conform_count_ring_maps();
    uint64_t round_count = conform_scaled(conform, 200, 20);
    for (uint64_t i = 0; i < round_count; i++) {
        connect_and_close(conform, i % 3 == 0);
    }
    conform_equal(conform, conform_count_descriptors(), descriptors);
    conform_equal(conform, conform_count_ring_maps(), maps);
    conform_shut(conform);
}

static void opening_and_shutting_leaves_nothing_behind(struct conform *conform)
{
    uint32_t descriptors = 0;
    uint32_t maps = 0;
    for (int i = 0; i < 6; i++) {
        conform_open(conform, NULL);
        connect_and_close(conform, true);
        (void)conform_dial(conform); /* left to shut, in whatever state it is */
        conform_shut(conform);
        if (i == 1) {
            descriptors = conform_count_descriptors();
            maps = conform_count_ring_maps();
        }
    }
    conform_equal(conform, conform_count_descriptors(), descriptors);
    conform_equal(conform, conform_count_ring_maps(), maps);
}

/* ---- two threads per side
 * ------------------------------------------------------------------------ */

/* The server as the broker has it: an owner thread that knows only the data plane. */
struct owner {
    struct conform *conform;
    struct rsi_link *link;
    struct conform_stream *incoming;
    struct conform_stream *outgoing;
    _Atomic uint32_t must_stop;
};

static void *owner_thread(void *arg)
{
    struct owner *owner = arg;
    while (!rsi_load_acquire(&owner->must_stop)) {
        (void)rsi_poller_poll(owner->conform->server.poller, conform_now_ns());
        if (rsi_link_state(owner->link) == RSI_LINK_ATTACHED &&
            !rsi_load_relaxed(&owner->link->failed)) {
            if (!owner->incoming->is_read) {
                conform_stream_read(owner->incoming);
            }
            if (!owner->outgoing->is_written) {
                conform_stream_write(owner->outgoing);
            }
        }
    }
    return NULL;
}

/* The server's control thread and the client, in this thread. */
static void control_turn(struct conform *conform)
{
    uint64_t now_ns = conform_now_ns();
    (void)conform->transport->domain_poll_control(conform->server.domain, now_ns);
    conform->transport->link_poll_control(conform->server.links[0], now_ns);
    conform_side_relax(&conform->client, conform_side_step(&conform->client));
}

static void control_and_owner_are_two_threads(struct conform *conform)
{
    struct rsi_waker control_waker;
    struct rsi_waker owner_waker;
    conform_check(conform, rsi_waker_init(&control_waker, NULL) == RSI_OK);
    conform_check(conform, rsi_waker_init(&owner_waker, NULL) == RSI_OK);
    struct conform_setup setup;
    conform_setup_init(&setup, conform);
    setup.server_poller.control_waker = &control_waker;
    setup.server_poller.owner_waker = &owner_waker;
    conform_open(conform, &setup);
    conform_connect_attached(conform, 65536);

    struct conform_stream incoming;
    struct conform_stream outgoing;
    uint64_t count = conform_scaled(conform, 5000, 500);
    conform_stream_init(&incoming, &conform->client, 0, count, conform_size_mixed);
    conform_stream_init(&outgoing, &conform->server, 0, count, conform_size_mixed);
    struct owner owner = {conform, conform->server.links[0], &incoming, &outgoing, 0};
    pthread_t thread;
    conform_check(conform, pthread_create(&thread, NULL, owner_thread, &owner) == 0);

    uint32_t sent = 0;
    uint32_t got = 0;
    uint64_t deadline_ns = conform_now_ns() + 3 * CONFORM_HANG_NS;
    while (!incoming.is_written || !outgoing.is_read || got < sent) {
        uint32_t bytes;
        if (sent < 1000 &&
            rsi_link_send_control(conform->server.links[0], &sent, sizeof(sent)) == RSI_OK) {
            sent++;
        }
        control_turn(conform);
        if (!incoming.is_written) {
            conform_stream_write(&incoming);
        }
        if (!outgoing.is_read) {
            conform_stream_read(&outgoing);
        }
        const uint32_t *number;
        while ((number = rsi_link_front_control(conform->client.links[0], &bytes)) != NULL) {
            conform_equal(conform, *number, got);
            got++;
            rsi_link_pop_control(conform->client.links[0]);
        }
        conform_check(conform, conform_now_ns() < deadline_ns);
    }
    /* The owner thread polls on while the control thread closes. */
    bool client_closes = conform_random(&conform->random, 2) == 0;
    if (client_closes) {
        conform->transport->link_close(conform->client.links[0]);
        conform_side_wait_until(
            &conform->client,
            (conform->transport->link_poll_control(conform->server.links[0], conform_now_ns()),
             rsi_link_state(conform->server.links[0]) == RSI_LINK_LOST));
    }
    conform->transport->link_close(conform->server.links[0]);
    while (rsi_link_state(conform->server.links[0]) != RSI_LINK_CLOSED) {
        control_turn(conform);
        conform_check(conform, conform_now_ns() < deadline_ns + CONFORM_HANG_NS);
    }
    rsi_store_release(&owner.must_stop, 1);
    pthread_join(thread, NULL);
    conform_shut(conform);
    rsi_waker_fini(&owner_waker);
    rsi_waker_fini(&control_waker);
}

const struct conform_case conform_close_cases[] = {
    {"close_while_connecting", close_while_connecting, CONFORM_ONE_THREAD},
    {"close_while_open", close_while_open, CONFORM_ONE_THREAD},
    {"close_while_attaching", close_while_attaching, CONFORM_ONE_THREAD},
    {"close_while_attached", close_while_attached, CONFORM_ONE_THREAD},
    {"close_both_at_once", close_both_at_once, CONFORM_ONE_THREAD},
    {"close_with_data_in_flight", close_with_data_in_flight, CONFORM_ONE_THREAD},
    {"arrived_bytes_outlive_the_peer", arrived_bytes_outlive_the_peer, CONFORM_ONE_THREAD},
    {"many_rounds_leave_nothing_behind", many_rounds_leave_nothing_behind, CONFORM_ONE_THREAD},
    {"opening_and_shutting_leaves_nothing_behind", opening_and_shutting_leaves_nothing_behind,
     CONFORM_ONE_THREAD},
    {"control_and_owner_are_two_threads", control_and_owner_are_two_threads, CONFORM_TWO_THREADS},
    {NULL, NULL, 0},
};
