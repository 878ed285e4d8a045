/*
 * What is vhost's and virtio_user's own, joined in this process: receive interrupts, frames up to a
 * large MTU.
 */
#include "transport/dpdk/eal/port_testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct rsi_dpdk_options end(const char *port)
{
    return (struct rsi_dpdk_options){
        .port = port, .address = "10.7.0.1/24", .memory_bytes = 320 << 20, .no_huge = true};
}

struct pair {
    char folder[32];
    char socket[64];
    struct rsi_port *vhost;
    struct rsi_port *virtio;
};

static void pair_open(struct pair *pair, uint32_t mtu)
{
    char names[2][128];
    snprintf(pair->folder, sizeof(pair->folder), "/tmp/ringside-vhost-XXXXXX");
    assert_non_null(mkdtemp(pair->folder));
    snprintf(pair->socket, sizeof(pair->socket), "%s/vhost", pair->folder);
    snprintf(names[0], sizeof(names[0]), "net_vhost0,iface=%s", pair->socket);
    snprintf(names[1], sizeof(names[1]), "net_virtio_user0,path=%s", pair->socket);
    struct rsi_dpdk_options options[2] = {end(names[0]), end(names[1])};
    options[0].mtu = mtu;
    options[1].mtu = mtu;
    pair->vhost = port_open(&options[0]);
    pair->virtio = port_open(&options[1]);
}

static void pair_close(struct pair *pair)
{
    pair->virtio->operations->close(pair->virtio);
    pair->vhost->operations->close(pair->vhost);
    (void)unlink(pair->socket);
    assert_int_equal(rmdir(pair->folder), 0);
}

static void a_frame_wakes_a_sleeper(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, 1500);
    port_expect_wake(pair.vhost, pair.virtio);
    port_expect_wake(pair.virtio, pair.vhost);
    pair_close(&pair);
}

static void large_frames_cross(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, 9000);
    for (uint32_t bytes = 60; bytes <= pair.vhost->frame_bytes_max; bytes += 7) {
        port_send(pair.vhost, pair.virtio, bytes, bytes);
        port_expect(pair.virtio, bytes, bytes);
        port_send(pair.virtio, pair.vhost, bytes, bytes);
        port_expect(pair.vhost, bytes, bytes);
    }
    pair_close(&pair);
}

static void a_ring_wakes_nobody(void **state)
{
    (void)state;
    struct rsi_dpdk_options options = end("net_ring0");
    struct rsi_port *port = port_open(&options);
    assert_null(port->operations->arm);
    port->operations->close(port);
}

int main(void)
{
    if (port_is_passed_over()) {
        return PORT_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_wakes_nobody),
        cmocka_unit_test(a_frame_wakes_a_sleeper),
        cmocka_unit_test(large_frames_cross),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
