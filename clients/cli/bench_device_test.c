/*
 * Design notes
 * - What the processes of a bench call themselves over dpdk://; that two can share an interface is
 *   tests/bench/dpdk's to show.
 */
#include "core/testing.h"

#include "clients/cli/bench.h"

#include <stdlib.h>

static void assert_device(const char *port, const char *address, uint32_t index,
                          const char *expected_port, const char *expected_address)
{
    struct rsi_bench_device device;
    ringside_dpdk_t dpdk = {.port = port, .address = address, .mac = "02:00:00:00:00:0%"};
    rsi_bench_device_choose(&device, &dpdk, index);
    assert_true(strncmp(dpdk.mac, "02:00:00:00:00:0", 16) == 0);
    assert_int_equal(strtoul(dpdk.mac + 16, NULL, 10), index);
    assert_string_equal(dpdk.port, expected_port);
    assert_string_equal(dpdk.address, expected_address);
}

static void each_process_has_an_address_of_its_own(void **state)
{
    (void)state;
    assert_device("net_af_packet0,iface=e0", "10.7.0.2/24", 0, "net_af_packet0,iface=e0",
                  "10.7.0.2/24");
    assert_device("net_af_packet0,iface=e0", "10.7.0.2/24", 3, "net_af_packet0,iface=e0",
                  "10.7.0.5/24");
    assert_device("net_af_packet0,iface=e%", "10.7.0.255/16", 12, "net_af_packet0,iface=e12",
                  "10.7.1.11/16");
}

static void the_environment_counts_where_no_flag_was_given(void **state)
{
    (void)state;
    struct rsi_bench_device device;
    ringside_dpdk_t dpdk = {0};
    setenv("RINGSIDE_DPDK_ADDRESS", "10.7.0.2/24", 1);
    setenv("RINGSIDE_DPDK_PORT", "net_memif%", 1);
    rsi_bench_device_choose(&device, &dpdk, 1);
    unsetenv("RINGSIDE_DPDK_ADDRESS");
    unsetenv("RINGSIDE_DPDK_PORT");
    assert_string_equal(dpdk.address, "10.7.0.3/24");
    assert_string_equal(dpdk.port, "net_memif1");
}

/* libringside says what is wrong with it. */
static void what_cannot_be_read_is_left_as_it_is(void **state)
{
    (void)state;
    static const char *const texts[] = {"",           "10.7.0.2",    "10.7.0/24",    "10.7.0.2/",
                                        "10.7.0.2/0", "10.7.0.2/32", "10.7.0.2/24x", "/24"};
    for (size_t i = 0; i < rsi_array_count(texts); i++) {
        struct rsi_error error = {0};
        assert_device("e0", texts[i], 1, "e0", texts[i]);
        assert_true(rsi_bench_device_check(&(ringside_dpdk_t){.address = texts[i]}, 1000, &error));
    }
}

static void the_prefix_must_have_room(void **state)
{
    (void)state;
    static const struct {
        const char *address;
        uint32_t room;
    } cases[] = {
        {"10.7.0.250/24", 5}, {"10.7.0.1/24", 254}, {"10.7.0.254/24", 1},   {"10.7.0.255/24", 0},
        {"10.7.0.0/31", 2},   {"10.7.0.1/31", 1},   {"10.7.255.254/16", 1},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct rsi_error error = {0};
        const ringside_dpdk_t dpdk = {.address = cases[i].address};
        assert_true(rsi_bench_device_check(&dpdk, cases[i].room, &error));
        assert_false(rsi_bench_device_check(&dpdk, cases[i].room + 1, &error));
        assert_non_null(strstr(error.text, cases[i].address));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_process_has_an_address_of_its_own),
        cmocka_unit_test(the_environment_counts_where_no_flag_was_given),
        cmocka_unit_test(what_cannot_be_read_is_left_as_it_is),
        cmocka_unit_test(the_prefix_must_have_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
