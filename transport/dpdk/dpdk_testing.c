#include "transport/dpdk/dpdk_testing.h"

#include "core/clock.h"

#include <stdio.h>

/* ---- opening --------------------------------------------------------------------------------- */

static void open_side(struct rig *rig, struct rig_side *side, const char *address)
{
    struct rsi_error error = {0};
    side->options = (struct rsi_dpdk_options){.port = rig->port, .address = address};
    struct rsi_domain_options domain_options = {.dpdk = &side->options, .node = -1};
    struct rsi_poller_options poller_options = {.link_count_max = 16};
    if (rsi_dpdk_transport.domain_create(&side->domain, &domain_options, &error) != RSI_OK ||
        rsi_dpdk_transport.poller_create(&side->poller, side->domain, &poller_options, &error) !=
            RSI_OK) {
        fail_msg("%s", error.text);
    }
    rsi_station_watch_stop(rig_station(side)); /* it would look at the port at times of its own */
}

void rig_open(struct rig *rig, const char *arguments, const char *faults)
{
    static uint32_t count;
    struct rsi_error error = {0};
    struct rsi_url url;
    memset(rig, 0, sizeof(*rig));
    snprintf(rig->name, sizeof(rig->name), "rig%u", ++count);
    snprintf(rig->port, sizeof(rig->port), "fault:%s;virtual:%s%s", faults, rig->name, arguments);
    rig->now_ns = rsi_clock_now_ns();
    open_side(rig, &rig->server, RIG_SERVER_TEXT);
    open_side(rig, &rig->client, RIG_CLIENT_TEXT);
    rsi_virtual_set_now(rig->name, rig->now_ns);
    assert_int_equal(rsi_url_parse(&url, "dpdk://10.7.0.1:7400", &error), RSI_OK);
    assert_int_equal(
        rsi_dpdk_transport.listener_create(&rig->listener, rig->server.domain, &url, &error),
        RSI_OK);
}

static void close_link(const struct rig_side *side)
{
    if (side->link != NULL) {
        rsi_dpdk_transport.link_close(side->link);
    }
}

static bool is_closed(const struct rig_side *side)
{
    return side->link == NULL || rsi_link_state(side->link) == RSI_LINK_CLOSED;
}

static void destroy_side(struct rig_side *side)
{
    rsi_dpdk_transport.link_destroy(side->link);
    rsi_dpdk_transport.poller_destroy(side->poller);
    rsi_dpdk_transport.domain_destroy(side->domain);
}

void rig_close(struct rig *rig)
{
    rsi_dpdk_transport.listener_destroy(rig->listener);
    rig->listener = NULL;
    close_link(&rig->client);
    close_link(&rig->server);
    rig_run_until(rig, is_closed(&rig->client) && is_closed(&rig->server));
    destroy_side(&rig->client);
    destroy_side(&rig->server);
}

void rig_connect(struct rig *rig, uint64_t ring_bytes)
{
    struct rsi_error error = {0};
    struct rsi_url url;
    struct rsi_link_rings rings = {.out_bytes = ring_bytes, .in_bytes = ring_bytes};
    assert_int_equal(rsi_url_parse(&url, "dpdk://10.7.0.1:7400", &error), RSI_OK);
    if (rsi_dpdk_transport.link_dial(&rig->client.link, rig->client.poller, &url, &error) !=
        RSI_OK) {
        fail_msg("%s", error.text);
    }
    rig_run_until(rig, rig->server.link != NULL &&
                           rsi_link_state(rig->client.link) == RSI_LINK_OPEN &&
                           rsi_link_state(rig->server.link) == RSI_LINK_OPEN);
    assert_int_equal(rsi_dpdk_transport.link_attach(rig->client.link, &rings, &error), RSI_OK);
    assert_int_equal(rsi_dpdk_transport.link_attach(rig->server.link, &rings, &error), RSI_OK);
    rig_run_until(rig, rsi_link_state(rig->client.link) == RSI_LINK_ATTACHED &&
                           rsi_link_state(rig->server.link) == RSI_LINK_ATTACHED);
}

/* ---- running --------------------------------------------------------------------------------- */

void rig_turn(struct rig *rig, struct rig_side *side)
{
    (void)rsi_poller_poll(side->poller, rig->now_ns);
    (void)rsi_dpdk_transport.domain_poll_control(side->domain, rig->now_ns);
    if (side == &rig->server && side->link == NULL && rig->listener != NULL) {
        (void)rsi_dpdk_transport.link_accept(&side->link, rig->listener,
                                             RSI_POLLER_ONLY(side->poller), NULL);
    }
    if (side->link != NULL) {
        rsi_dpdk_transport.link_poll_control(side->link, rig->now_ns);
    }
}

void rig_step(struct rig *rig, uint64_t step_ns)
{
    rig->now_ns += step_ns;
    rsi_virtual_set_now(rig->name, rig->now_ns);
    rig_turn(rig, &rig->client);
    rig_turn(rig, &rig->server);
}

struct rsi_station *rig_station(const struct rig_side *side)
{
    return rsi_dpdk_domain(side->domain)->station;
}

struct rsi_dpdk_link *rig_link(const struct rig_side *side)
{
    return rsi_dpdk_link(side->link);
}

/* ---- frames ---------------------------------------------------------------------------------- */

static uint8_t payload_byte(uint64_t number, uint32_t index)
{
    return (uint8_t)(number * 131 + index * 7);
}

bool rig_write(struct rig_side *side, uint32_t payload_bytes)
{
    uint64_t frame_bytes = rsi_frame_bytes(0, payload_bytes);
    struct rsi_frame_header *header = rsi_frame_claim(side->link, frame_bytes);
    if (header == NULL) {
        return false;
    }
    memset((uint8_t *)header + sizeof(header->commit), 0,
           RSI_FRAME_HEADER_BYTES - sizeof(header->commit));
    header->payload_bytes = payload_bytes;
    header->type = RSI_FRAME_MESSAGE;
    header->sequence = side->written;
    uint8_t *payload = (uint8_t *)(header + 1);
    for (uint32_t i = 0; i < payload_bytes; i++) {
        payload[i] = payload_byte(side->written, i);
    }
    rsi_frame_commit(side->link, frame_bytes);
    rsi_link_place(side->link);
    side->written++;
    return true;
}

void rig_flush(struct rig_side *side)
{
    assert_false(rsi_failed(rsi_link_flush(side->link)));
}

void rig_read(struct rig_side *side)
{
    struct rsi_link *link = side->link;
    uint64_t pos = link->consumed_pos;
    while (pos < link->arrived_pos) {
        struct rsi_frame frame;
        const char *why = NULL;
        if (rsi_frame_read(&link->in, pos, link->arrived_pos, &frame, &why) != RSI_OK) {
            fail_msg("frame at position %llu: %s", (unsigned long long)pos, why);
        }
        assert_int_equal(frame.header.sequence, side->read);
        for (uint32_t i = 0; i < frame.header.payload_bytes; i++) {
            if (frame.payload[i] != payload_byte(side->read, i)) {
                fail_msg("byte %u of frame %llu is wrong", i, (unsigned long long)side->read);
            }
        }
        side->read++;
        pos += frame.frame_bytes;
    }
    rsi_link_consume(link, pos - link->consumed_pos);
}
