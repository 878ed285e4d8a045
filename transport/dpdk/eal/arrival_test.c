/*
 * Receive interrupts of virtio_user and vhost, joined in this process.
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

static void a_frame_wakes_a_sleeper(void **state)
{
    (void)state;
    char folder[] = "/tmp/ringside-arrival-XXXXXX";
    char socket[64];
    char names[2][128];
    assert_non_null(mkdtemp(folder));
    snprintf(socket, sizeof(socket), "%s/vhost", folder);
    snprintf(names[0], sizeof(names[0]), "net_vhost0,iface=%s", socket);
    snprintf(names[1], sizeof(names[1]), "net_virtio_user0,path=%s", socket);
    struct rsi_dpdk_options options[2] = {end(names[0]), end(names[1])};
    struct rsi_port *a = port_open(&options[0]);
    struct rsi_port *b = port_open(&options[1]);
    port_expect_wake(a, b);
    port_expect_wake(b, a);
    b->operations->close(b);
    a->operations->close(a);
    (void)unlink(socket);
    assert_int_equal(rmdir(folder), 0);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
