/*
 * Design notes
 * - Both threads of both ends are one, as in a client. Every pass also arms the pollers, so that
 *   the path without epoll, which a spinning thread takes, is not taken here unless a test asks
 *   for it.
 */
#include "transport/tcp/tcp_fixture.h"

#include "core/clock.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void check(rsi_status_t status, const struct rsi_error *error)
{
    if (status != RSI_OK) {
        fail_msg("%s: %s", rsi_status_name(status), error->text);
    }
}

void fixture_init(struct fixture *fixture, const char *host,
                  const struct rsi_domain_options *options)
{
    struct rsi_error error = {0};
    memset(fixture, 0, sizeof(*fixture));
    fixture->stranger_fd = -1;
    check(rsi_waker_init(&fixture->owner_waker, &error), &error);
    check(rsi_waker_init(&fixture->control_waker, &error), &error);
    check(rsi_tcp_transport.domain_create(&fixture->domain, options, &error), &error);
    struct rsi_poller_options poller_options = {
        .link_count_max = 4,
        .control_waker = &fixture->control_waker,
        .owner_waker = &fixture->owner_waker,
    };
    check(rsi_tcp_transport.poller_create(&fixture->server_poller, fixture->domain, &poller_options,
                                          &error),
          &error);
    check(rsi_tcp_transport.poller_create(&fixture->client_poller, fixture->domain, &poller_options,
                                          &error),
          &error);
    struct rsi_url url = {.scheme = "tcp"};
    strncpy(url.host, host != NULL ? host : "127.0.0.1", sizeof(url.host) - 1);
    check(rsi_tcp_transport.listener_create(&fixture->listener, fixture->domain, &url, &error),
          &error);
}

static void close_link(struct fixture *fixture, struct rsi_link **link)
{
    if (*link == NULL) {
        return;
    }
    rsi_tcp_transport.link_close(*link);
    fixture_pump_until(fixture, rsi_link_state(*link) == RSI_LINK_CLOSED);
    rsi_tcp_transport.link_destroy(*link);
    *link = NULL;
}

void fixture_fini(struct fixture *fixture)
{
    if (fixture->stranger_fd >= 0) {
        close(fixture->stranger_fd);
        fixture->stranger_fd = -1;
    }
    close_link(fixture, &fixture->client);
    close_link(fixture, &fixture->server);
    rsi_tcp_transport.listener_destroy(fixture->listener);
    rsi_tcp_transport.poller_destroy(fixture->server_poller);
    rsi_tcp_transport.poller_destroy(fixture->client_poller);
    rsi_tcp_transport.domain_destroy(fixture->domain);
    rsi_waker_fini(&fixture->owner_waker);
    rsi_waker_fini(&fixture->control_waker);
}

void fixture_pump(struct fixture *fixture)
{
    uint64_t now_ns = rsi_clock_now_ns();
    fixture->pass_count++;
    rsi_tcp_transport.domain_poll_control(fixture->domain, now_ns);
    if (fixture->server == NULL) {
        struct rsi_error error = {0};
        rsi_status_t status = rsi_tcp_transport.link_accept(
            &fixture->server, fixture->listener, RSI_POLLER_ONLY(fixture->server_poller), &error);
        assert_true(status == RSI_OK || status == RSI_WOULD_BLOCK);
    }
    struct rsi_link *links[] = {fixture->server, fixture->client};
    struct rsi_poller *pollers[] = {fixture->server_poller, fixture->client_poller};
    for (size_t i = 0; i < rsi_array_count(links); i++) {
        rsi_poller_poll(pollers[i], now_ns);
        (void)rsi_tcp_transport.poller_arm(pollers[i]);
        rsi_tcp_transport.poller_disarm(pollers[i]);
        if (links[i] != NULL) {
            rsi_tcp_transport.link_poll_control(links[i], now_ns);
        }
    }
}

void fixture_open(struct fixture *fixture)
{
    struct rsi_error error = {0};
    struct rsi_url url;
    check(rsi_url_parse(&url, rsi_tcp_transport.listener_url(fixture->listener), &error), &error);
    check(rsi_tcp_transport.link_dial(&fixture->client, fixture->client_poller, &url, &error),
          &error);
    fixture_pump_until(fixture, fixture->server != NULL &&
                                    rsi_link_state(fixture->server) == RSI_LINK_OPEN &&
                                    rsi_link_state(fixture->client) == RSI_LINK_OPEN);
}

void fixture_attach(struct fixture *fixture, uint64_t ring_bytes)
{
    struct rsi_error error = {0};
    struct rsi_link_rings rings = {.out_bytes = ring_bytes, .in_bytes = ring_bytes};
    check(rsi_tcp_transport.link_attach(fixture->client, &rings, &error), &error);
    check(rsi_tcp_transport.link_attach(fixture->server, &rings, &error), &error);
    fixture_pump_until(fixture, rsi_link_state(fixture->server) == RSI_LINK_ATTACHED &&
                                    rsi_link_state(fixture->client) == RSI_LINK_ATTACHED);
}

/* ---- messages -------------------------------------------------------------------------------- */

static uint8_t message_byte(uint32_t seed, uint32_t index)
{
    return (uint8_t)((seed + index) * 2654435761u >> 24);
}

bool fixture_place(struct rsi_link *link, uint32_t payload_bytes, uint32_t seed)
{
    uint64_t frame_bytes = rsi_frame_bytes(0, payload_bytes);
    struct rsi_frame_header *header = rsi_frame_claim(link, frame_bytes);
    if (header == NULL) {
        return false;
    }
    struct rsi_frame_header fields = {
        .commit = header->commit,
        .payload_bytes = payload_bytes,
        .type = RSI_FRAME_MESSAGE,
        .publication = 1,
    };
    memcpy((uint8_t *)header + sizeof(uint64_t), (uint8_t *)&fields + sizeof(uint64_t),
           sizeof(fields) - sizeof(uint64_t));
    uint8_t *payload = (uint8_t *)header + RSI_FRAME_HEADER_BYTES;
    for (uint32_t i = 0; i < payload_bytes; i++) {
        payload[i] = message_byte(seed, i);
    }
    rsi_frame_commit(link, frame_bytes);
    rsi_link_place(link);
    return true;
}

bool fixture_take(struct rsi_link *link, uint32_t payload_bytes, uint32_t seed)
{
    if (link->arrived_pos == link->consumed_pos) {
        return false;
    }
    struct rsi_frame frame;
    const char *why = "";
    rsi_status_t status =
        rsi_frame_read(&link->in, link->consumed_pos, link->arrived_pos, &frame, &why);
    if (status != RSI_OK) {
        fail_msg("frame at %llu: %s", (unsigned long long)link->consumed_pos, why);
    }
    assert_int_equal(frame.header.payload_bytes, payload_bytes);
    for (uint32_t i = 0; i < payload_bytes; i++) {
        if (frame.payload[i] != message_byte(seed, i)) {
            fail_msg("message %u: byte %u is %u", seed, i, frame.payload[i]);
        }
    }
    rsi_link_consume(link, frame.frame_bytes);
    return true;
}

/* ---- strangers ------------------------------------------------------------------------------- */

void fixture_connect_stranger(struct fixture *fixture)
{
    struct rsi_error error = {0};
    struct rsi_url url;
    struct sockaddr_storage address;
    socklen_t address_bytes;
    check(rsi_url_parse(&url, rsi_tcp_transport.listener_url(fixture->listener), &error), &error);
    check(rsi_url_resolve(&url, false, &address, &address_bytes, &error), &error);
    fixture->stranger_fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fixture->stranger_fd >= 0);
    int on = 1; /* what the stranger sent is on its way before it does the next thing */
    setsockopt(fixture->stranger_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    assert_int_equal(connect(fixture->stranger_fd, (struct sockaddr *)&address, address_bytes), 0);
    fixture_pump_until(fixture, fixture->server != NULL);
}

void fixture_stranger_send(struct fixture *fixture, const void *data, size_t bytes)
{
    assert_int_equal(send(fixture->stranger_fd, data, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

void fixture_stranger_record(struct fixture *fixture, uint8_t kind, uint32_t bytes,
                             uint64_t position, const void *body, size_t body_bytes)
{
    struct rsi_record_header header = {.kind = kind, .bytes = bytes, .position = position};
    fixture_stranger_send(fixture, &header, sizeof(header));
    if (body_bytes != 0) {
        fixture_stranger_send(fixture, body, body_bytes);
    }
}

void fixture_stranger_attach(struct fixture *fixture, uint64_t ring_bytes)
{
    struct rsi_domain_options options = {0};
    struct rsi_greeting greeting;
    rsi_greeting_init(&greeting, &options);
    fixture_connect_stranger(fixture);
    fixture_stranger_record(fixture, RSI_RECORD_GREETING, sizeof(greeting), 0, &greeting,
                            sizeof(greeting));
    fixture_pump_until(fixture, rsi_link_state(fixture->server) == RSI_LINK_OPEN);
    struct rsi_link_rings rings = {.in_bytes = ring_bytes};
    struct rsi_error error = {0};
    check(rsi_tcp_transport.link_attach(fixture->server, &rings, &error), &error);
    struct rsi_attach attach = {0};
    fixture_stranger_record(fixture, RSI_RECORD_ATTACH, sizeof(attach), 0, &attach, sizeof(attach));
    fixture_pump_until(fixture, rsi_link_state(fixture->server) == RSI_LINK_ATTACHED);
}

void fixture_expect_lost(struct fixture *fixture, rsi_status_t status, const char *words)
{
    fixture_pump_until(fixture, rsi_link_state(fixture->server) == RSI_LINK_LOST);
    const struct rsi_error *error = &fixture->server->error;
    if (error->status != status || strstr(error->text, words) == NULL) {
        fail_msg("expected %s with '%s', got %s: %s", rsi_status_name(status), words,
                 rsi_status_name(error->status), error->text);
    }
}
