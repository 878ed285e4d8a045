/*
 * The plugin in a program that runs DPDK itself: the devices are the program's, here two net_ring
 * that are joined crosswise.
 */
#include "core/compiler.h"
#include "transport/dpdk/eal/port_testing.h"

#include <rte_eal.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_ring.h>

enum { RING_COUNT = 1024 };

static const struct rsi_dpdk_options left = {.port = "net_ring_left", .address = "10.7.0.1/24"};
static const struct rsi_dpdk_options right = {.port = "net_ring_right", .address = "10.7.0.2/24"};

static int start_eal(void **state)
{
    (void)state;
    char *arguments[] = {"application_test",
                         "--no-huge",
                         "-m",
                         "256",
                         "--no-pci",
                         "--no-telemetry",
                         "--no-shconf",
                         "--log-level=3",
                         "--iova-mode=va",
                         NULL};
    if (rte_eal_init((int)rsi_array_count(arguments) - 1, arguments) < 0) {
        return -1;
    }
    struct rte_ring *to_left = rte_ring_create("to_left", RING_COUNT, -1, 0);
    struct rte_ring *to_right = rte_ring_create("to_right", RING_COUNT, -1, 0);
    if (to_left == NULL || to_right == NULL) {
        return -1;
    }
    return rte_eth_from_rings("left", &to_left, 1, &to_right, 1, 0) >= 0 &&
                   rte_eth_from_rings("right", &to_right, 1, &to_left, 1, 0) >= 0
               ? 0
               : -1;
}

static void a_pair_of_ports_talks(void **state)
{
    (void)state;
    struct rsi_port *a = port_open(&left);
    struct rsi_port *b = port_open(&right);
    assert_string_equal(a->name, "net_ring_left");
    assert_string_equal(a->note, "");
    assert_memory_not_equal(a->mac, b->mac, 6);
    for (uint32_t i = 0; i < 10000; i++) {
        uint32_t bytes = 14 + i % (a->frame_bytes_max - 13);
        port_send(a, b, bytes, i);
        port_send(b, a, bytes, ~i);
        port_expect(b, bytes, i);
        port_expect(a, bytes, ~i);
    }
    a->operations->close(a);
    b->operations->close(b);
}

/* Closed ports are left as they were found. */
static void ports_can_be_opened_again(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 5; i++) {
        struct rsi_port *a = port_open(&left);
        struct rsi_port *b = port_open(&right);
        port_send(a, b, 1000, i);
        port_expect(b, 1000, i);
        a->operations->close(a);
        b->operations->close(b);
    }
}

static void a_port_that_is_not_there_is_named_with_those_that_are(void **state)
{
    (void)state;
    struct rsi_dpdk_options options = left;
    options.port = "net_nonsense0";
    port_expect_failure(&options, RSI_E_NO_DEVICE, WORDS("'net_nonsense0'"));
}

/* A virtual device may also be made in the program's EAL. */
static void a_vdev_can_be_added(void **state)
{
    (void)state;
    struct rsi_dpdk_options options = left;
    options.port = "net_ring7";
    struct rsi_port *port = port_open(&options);
    port_send(port, port, 200, 3);
    port_expect(port, 200, 3);
    port->operations->close(port);
    uint16_t id;
    assert_int_not_equal(rte_eth_dev_get_port_by_name("net_ring7", &id), 0);
}

static void a_device_that_somebody_owns_is_refused(void **state)
{
    (void)state;
    struct rte_eth_dev_owner owner = {.name = "router"};
    uint16_t id;
    assert_int_equal(rte_eth_dev_get_port_by_name("net_ring_left", &id), 0);
    assert_int_equal(rte_eth_dev_owner_new(&owner.id), 0);
    assert_int_equal(rte_eth_dev_owner_set(id, &owner), 0);
    port_expect_failure(&left, RSI_E_STATE, WORDS("net_ring_left", "'router'"));
    assert_int_equal(rte_eth_dev_owner_unset(id, owner.id), 0);
    struct rsi_port *port = port_open(&left);
    port->operations->close(port);
}

int main(void)
{
    if (port_is_passed_over()) {
        return PORT_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pair_of_ports_talks),
        cmocka_unit_test(ports_can_be_opened_again),
        cmocka_unit_test(a_port_that_is_not_there_is_named_with_those_that_are),
        cmocka_unit_test(a_vdev_can_be_added),
        cmocka_unit_test(a_device_that_somebody_owns_is_refused),
    };
    return cmocka_run_group_tests(tests, start_eal, NULL);
}
