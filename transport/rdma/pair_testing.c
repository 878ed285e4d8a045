/* Design notes: see pair_testing.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/clock.h"
#include "transport/rdma/pair_testing.h"

static const struct rsi_transport *const rdma = &rsi_rdma_transport;

static const char *environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL ? value : otherwise;
}

const char *pair_server_address(void)
{
    return environment("RINGSIDE_TEST_SERVER", "10.7.0.1");
}

const char *pair_client_address(void)
{
    return environment("RINGSIDE_TEST_CLIENT", "10.7.0.2");
}

#define SUCCEEDS(call)                             \
    do {                                           \
        struct rsi_error error = {0};              \
        if ((call) != RSI_OK)                      \
            fail_msg("%s: %s", #call, error.text); \
    } while (0)

static void end_create(struct pair_end *end, const char *bind_host)
{
    struct rsi_domain_options options = {
        .bind_host = bind_host,
        .node = RSI_NODE_ANY,
        .connect_timeout_ns = PAIR_DEADLINE_NS,
    };
    struct rsi_poller_options poller_options = {.link_count_max = 8};
    SUCCEEDS(rdma->domain_create(&end->domain, &options, &error));
    SUCCEEDS(rdma->poller_create(&end->poller, end->domain, &poller_options, &error));
}

void pair_client_create(struct pair *pair)
{
    end_create(&pair->client, pair_client_address());
}

void pair_listen(struct pair *pair)
{
    memset(pair, 0, sizeof(*pair));
    end_create(&pair->server, NULL);
    pair_client_create(pair);
    char text[64];
    snprintf(text, sizeof(text), "rdma://%s:0", pair_server_address());
    struct rsi_url url;
    SUCCEEDS(rsi_url_parse(&url, text, &error));
    SUCCEEDS(rdma->listener_create(&pair->listener, pair->server.domain, &url, &error));
}

static void drive_end(struct pair_end *end)
{
    uint64_t now_ns = rsi_clock_now_ns();
    (void)rdma->domain_poll_control(end->domain, now_ns);
    if (end->link != NULL) {
        rdma->link_poll_control(end->link, now_ns);
    }
    (void)rsi_poller_poll(end->poller, now_ns);
}

void pair_drive(struct pair *pair)
{
    drive_end(&pair->client);
    if (pair->server.domain != NULL) {
        drive_end(&pair->server);
    }
    if (pair->listener == NULL || pair->server.link != NULL) {
        return;
    }
    struct rsi_error error = {0};
    rsi_status_t status = rdma->link_accept(&pair->server.link, pair->listener,
                                            RSI_POLLER_ONLY(pair->server.poller), &error);
    if (rsi_failed(status) && !pair->expects_refusal) {
        fail_msg("accept: %s", error.text);
    }
    if (rsi_failed(status)) {
        pair->refusal = error;
    }
}

void pair_dial(struct pair *pair)
{
    struct rsi_url url;
    SUCCEEDS(rsi_url_parse(&url, rdma->listener_url(pair->listener), &error));
    SUCCEEDS(rdma->link_dial(&pair->client.link, pair->client.poller, &url, &error));
    pair_wait_state(pair, RSI_LINK_OPEN);
}

static bool is_lost_unasked(const struct rsi_link *link, enum rsi_link_state state)
{
    return link != NULL && rsi_link_state(link) == RSI_LINK_LOST && state != RSI_LINK_LOST;
}

static bool both_in(const struct pair *pair, enum rsi_link_state state)
{
    if (is_lost_unasked(pair->client.link, state)) {
        fail_msg("client lost: %s", pair->client.link->error.text);
    }
    if (is_lost_unasked(pair->server.link, state)) {
        fail_msg("server lost: %s", pair->server.link->error.text);
    }
    return pair->client.link != NULL && pair->server.link != NULL &&
           rsi_link_state(pair->client.link) == state && rsi_link_state(pair->server.link) == state;
}

void pair_wait_state(struct pair *pair, enum rsi_link_state state)
{
    PAIR_WAIT(pair, both_in(pair, state));
}

void pair_attach(struct pair *pair, uint64_t ring_bytes)
{
    struct rsi_link_rings rings = {.out_bytes = ring_bytes, .in_bytes = ring_bytes};
    SUCCEEDS(rdma->link_attach(pair->server.link, &rings, &error));
    SUCCEEDS(rdma->link_attach(pair->client.link, &rings, &error));
    pair_wait_state(pair, RSI_LINK_ATTACHED);
}

void pair_open(struct pair *pair, uint64_t ring_bytes)
{
    pair_listen(pair);
    pair_dial(pair);
    pair_attach(pair, ring_bytes);
}

static bool is_closed(const struct rsi_link *link)
{
    return link == NULL || rsi_link_state(link) == RSI_LINK_CLOSED;
}

void pair_hang_up(struct pair *pair)
{
    struct rsi_link *client = pair->client.link;
    struct rsi_link *server = pair->server.link;
    if (client != NULL) {
        rdma->link_close(client);
    }
    if (server != NULL) {
        rdma->link_close(server);
    }
    PAIR_WAIT(pair, is_closed(client) && is_closed(server));
    if (client != NULL) {
        rdma->link_destroy(client);
    }
    if (server != NULL) {
        rdma->link_destroy(server);
    }
    pair->client.link = NULL;
    pair->server.link = NULL;
}

static void end_destroy(struct pair_end *end)
{
    if (end->poller != NULL) {
        rdma->poller_destroy(end->poller);
    }
    if (end->domain != NULL) {
        rdma->domain_destroy(end->domain);
    }
}

void pair_close(struct pair *pair)
{
    pair_hang_up(pair);
    if (pair->listener != NULL) {
        rdma->listener_destroy(pair->listener);
    }
    end_destroy(&pair->client);
    end_destroy(&pair->server);
    memset(pair, 0, sizeof(*pair));
}

/* ---- messages ------------------------------------------------------------------------------- */

bool pair_put(struct rsi_link *link, uint64_t sequence, uint32_t payload_bytes)
{
    uint64_t frame_bytes = rsi_frame_bytes(0, payload_bytes);
    struct rsi_frame_header *header = rsi_frame_claim(link, frame_bytes);
    if (header == NULL) {
        return false;
    }
    header->payload_bytes = payload_bytes;
    header->type = RSI_FRAME_MESSAGE;
    header->flags = 0;
    header->headers_bytes = 0;
    header->publication = 1;
    header->generation = 0;
    header->entry_count = 0;
    header->sequence = sequence;
    header->publish_time_ns = 0;
    memset(header + 1, (int)(sequence & 0xff), payload_bytes);
    rsi_frame_commit(link, frame_bytes);
    rsi_link_place(link);
    return true;
}

static void check_payload(const struct rsi_frame *frame)
{
    uint8_t expected = (uint8_t)(frame->header.sequence & 0xff);
    for (uint32_t i = 0; i < frame->header.payload_bytes; i++) {
        if (frame->payload[i] != expected) {
            fail_msg("message %llu: byte %u is %u, not %u",
                     (unsigned long long)frame->header.sequence, i, frame->payload[i], expected);
        }
    }
}

uint32_t pair_take(struct rsi_link *link, uint64_t *next_sequence)
{
    uint32_t count = 0;
    while (link->consumed_pos < link->arrived_pos) {
        struct rsi_frame frame;
        const char *why = NULL;
        if (rsi_frame_read(&link->in, link->consumed_pos, link->arrived_pos, &frame, &why) !=
            RSI_OK) {
            fail_msg("frame at %llu: %s", (unsigned long long)link->consumed_pos, why);
        }
        assert_int_equal(frame.header.sequence, *next_sequence);
        check_payload(&frame);
        (*next_sequence)++;
        count++;
        rsi_link_consume(link, frame.frame_bytes);
    }
    return count;
}

void pair_send_and_take(struct pair *pair, struct rsi_link *from, struct rsi_link *to,
                        uint64_t count, uint32_t (*size_of)(uint64_t sequence))
{
    uint64_t sent = 0;
    uint64_t taken = 0;
    uint64_t deadline_ns = rsi_clock_now_ns() + 6 * PAIR_DEADLINE_NS;
    while (taken < count) {
        while (sent < count && pair_put(from, sent, size_of(sent))) {
            sent++;
        }
        assert_false(rsi_failed(rsi_link_flush_clocked(from)));
        pair_drive(pair);
        (void)pair_take(to, &taken);
        if (rsi_link_state(from) != RSI_LINK_ATTACHED) {
            fail_msg("lost: %s", from->error.text);
        }
        assert_true(rsi_clock_now_ns() < deadline_ns);
    }
}

uint32_t pair_mixed_size(uint64_t sequence)
{
    static const uint32_t sizes[] = {0,   1,   7,   8,    63,   64,    65,
                                     215, 216, 217, 1000, 4096, 70000, 200000};
    return sizes[sequence % rsi_array_count(sizes)];
}

uint32_t pair_small_size(uint64_t sequence)
{
    (void)sequence;
    return 64;
}
