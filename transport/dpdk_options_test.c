/*
 * What users say about the device of dpdk://: what is taken, and what the refusals name.
 */
#include "core/testing.h"
#include "transport/dpdk_options.h"

#include <string.h>

static rsi_status_t parse_port(const char *text, struct rsi_error *error)
{
    enum rsi_dpdk_port_kind kind;
    return rsi_dpdk_parse_port(&kind, text, error);
}

static rsi_status_t parse_address(const char *text, struct rsi_error *error)
{
    struct rsi_dpdk_address address;
    return rsi_dpdk_parse_address(&address, text, error);
}

static rsi_status_t parse_gateway(const char *text, struct rsi_error *error)
{
    uint32_t gateway;
    return rsi_dpdk_parse_gateway(&gateway, text, error);
}

static rsi_status_t parse_mac(const char *text, struct rsi_error *error)
{
    uint8_t mac[6];
    return rsi_dpdk_parse_mac(mac, text, error);
}

struct text_case {
    rsi_status_t (*parse)(const char *text, struct rsi_error *error);
    const char *good[6];
    const char *bad[24];
    const char *word; /* in each refusal */
};

static const struct text_case text_cases[] = {
    {parse_port,
     {"0000:03:00.0", "3b:00.1", "net_af_packet0,iface=eth1",
      "net_memif0,role=server,socket=/tmp/s", "virtio_user0,path=/tmp/v", "net_ring_a"},
     {"", "eth1", "0000:03:00", "0000:03:00.0,x", "03:00.00", "0000:g3:00.0", "net af_packet0",
      "net_", "net_af_packet0,iface=a b", "net_x\n", "net_a.b", "/dev/uio0"},
     "net_af_packet0,iface=eth1"},
    {parse_address,
     {"10.7.0.1/24", "192.168.1.254/16", "10.0.0.0/31", "10.0.0.1/31", "172.16.0.5/1"},
     {"",
      "10.7.0.1",
      "10.7.0.1/",
      "/24",
      "10.7.0.1/0",
      "10.7.0.1/32",
      "10.7.0.1/33",
      "10.7.0.1/x",
      "10.7.0.1/-1",
      "10.7.0.1/24/24",
      "10.7.0/24",
      "10.7.0.256/24",
      "host/24",
      "::1/64",
      "10.7.0.0/24",
      "10.7.0.255/24",
      "127.0.0.1/8",
      "224.0.0.1/24",
      "0.0.0.1/8",
      " 10.7.0.1/24",
      "10.7.0.1 /24",
      "10.7.0.1/24 ",
      "1111111111111111111111.1.1.1/24"},
     "10.7.0.1/24"},
    {parse_gateway,
     {"10.7.0.254"},
     {"", "gateway", "10.7.0", "10.7.0.1/24", "0.0.0.0", "255.255.255.255", "127.0.0.1", "::1"},
     "10.7.0.254"},
    {parse_mac,
     {"02:00:00:00:00:01", "0A:bC:de:F0:12:34"},
     {"", "02:00:00:00:00", "02:00:00:00:00:01:02", "02-00-00-00-00-01", "0x:00:00:00:00:01",
      "00:00:00:00:00:00", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:0",
      "02:00:00:00:00:1g", "0:20:00:00:00:001"},
     "02:00:00:00:00:01"},
    {rsi_dpdk_parse_cores,
     {"0", "0-3,8", "1,2"},
     {"", "x", "0,", "3-1", "99999", "-1", "0 1"},
     "0-3,8"},
    {rsi_dpdk_parse_file_prefix,
     {"hub1", "a_b-c"},
     {"", "a/b", "..", "a b",
      "0123456789012345678901234567890123456789012345678901234567890123456789"},
     "hub1"},
    {rsi_dpdk_parse_eal_arguments,
     {"", "  ", "--iova-mode=va", "--iova-mode=pa  --legacy-mem ", "--driver=/x/pmd.so"},
     {"-l 0", "--no-huge", "--help", "--iova-mode", "--iova-mode=", "--legacy-mem=yes",
      "--legacy-mem -h", "nonsense", "--iova-mode=va --vdev=net_null0", "--iova"},
     "--iova-mode=va"},
};

static void test_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < rsi_array_count(text_cases); i++) {
        const struct text_case *c = &text_cases[i];
        struct rsi_error error = {0};
        for (size_t k = 0; k < rsi_array_count(c->good) && c->good[k] != NULL; k++) {
            if (c->parse(c->good[k], &error) != RSI_OK) {
                fail_msg("'%s' is refused: %s", c->good[k], error.text);
            }
        }
        for (size_t k = 0; k < rsi_array_count(c->bad) && c->bad[k] != NULL; k++) {
            if (c->parse(c->bad[k], &error) != RSI_E_INVALID) {
                fail_msg("'%s' is taken, beside %s", c->bad[k], c->word);
            }
            if (strstr(error.text, c->word) == NULL) {
                fail_msg("'%s': '%s' does not say %s", c->bad[k], error.text, c->word);
            }
        }
    }
}

static void test_values(void **state)
{
    (void)state;
    struct rsi_dpdk_address address = {0};
    uint32_t gateway = 0;
    uint8_t mac[6] = {0};
    static const uint8_t wanted_mac[6] = {0x0a, 0xbc, 0xde, 0xf0, 0x12, 0x34};
    enum rsi_dpdk_port_kind kind = RSI_DPDK_PORT_VDEV;
    assert_int_equal(rsi_dpdk_parse_address(&address, "10.7.1.2/23", NULL), RSI_OK);
    assert_int_equal(address.address, 0x0a070102);
    assert_int_equal(address.prefix_bits, 23);
    assert_int_equal(rsi_dpdk_parse_gateway(&gateway, "10.7.0.254", NULL), RSI_OK);
    assert_int_equal(gateway, 0x0a0700fe);
    assert_int_equal(rsi_dpdk_parse_mac(mac, "0A:bC:de:F0:12:34", NULL), RSI_OK);
    assert_memory_equal(mac, wanted_mac, sizeof(mac));
    assert_int_equal(rsi_dpdk_parse_port(&kind, "0000:03:00.0", NULL), RSI_OK);
    assert_int_equal(kind, RSI_DPDK_PORT_PCI);
    assert_int_equal(rsi_dpdk_parse_port(&kind, "net_ring0", NULL), RSI_OK);
    assert_int_equal(kind, RSI_DPDK_PORT_VDEV);
    assert_int_equal(rsi_dpdk_parse_port(&kind, "fault:drop=1000,seed=7;03:00.0", NULL), RSI_OK);
    assert_int_equal(kind, RSI_DPDK_PORT_PCI);
    assert_int_equal(rsi_dpdk_parse_port(&kind, "virtual:lan", NULL), RSI_OK);
    assert_int_equal(kind, RSI_DPDK_PORT_VIRTUAL);
    assert_int_equal(rsi_dpdk_parse_port(&kind, "fault:drop=1000", NULL), RSI_E_INVALID);
    assert_int_equal(rsi_dpdk_parse_port(&kind, "fault:drop=1000;", NULL), RSI_E_INVALID);
}

static void test_what_must_fit_together(void **state)
{
    (void)state;
    static const struct {
        struct rsi_dpdk_options options;
        const char *words[2]; /* none: it is right */
    } cases[] = {
        {{0}, {NULL}},
        {{.port = "", .address = "", .gateway = "", .mac = "", .cores = ""}, {NULL}},
        {{.port = "net_ring0", .address = "10.7.0.1/24"}, {NULL}},
        {{.port = "net_ring0", .address = "10.7.0.1/24", .gateway = "10.7.0.254", .mtu = 9000},
         {NULL}},
        {{.port = "net_ring0"}, {"dpdk_address", "10.7.0.1/24"}},
        {{.port = "eth0", .address = "10.7.0.1/24"}, {"dpdk_port", "'eth0'"}},
        {{.port = "net_ring0", .address = "10.7.0.1"}, {"dpdk_address", "'10.7.0.1'"}},
        {{.port = "net_ring0", .address = "10.7.0.1/24", .gateway = "x"}, {"dpdk_gateway", "'x'"}},
        {{.gateway = "x"}, {"dpdk_gateway", "'x'"}},
        {{.port = "net_ring0", .address = "10.7.0.1/24", .gateway = "10.8.0.1"},
         {"dpdk_gateway", "10.8.0.1"}},
        {{.port = "net_ring0", .address = "10.7.0.1/24", .gateway = "10.7.0.1"},
         {"dpdk_gateway", "10.7.0.1"}},
        {{.port = "net_ring0", .address = "10.7.0.1/24", .mac = "x"}, {"dpdk_mac", "'x'"}},
        {{.port = "net_ring0", .address = "10.7.0.1/24", .mtu = 575}, {"dpdk_mtu", "575"}},
        {{.port = "net_ring0", .address = "10.7.0.1/24", .mtu = 16001}, {"dpdk_mtu", "16001"}},
        {{.port = "net_ring0", .address = "10.7.0.1/24", .cores = "x"}, {"dpdk_cores", "'x'"}},
        {{.port = "net_ring0", .address = "10.7.0.1/24", .file_prefix = "/"},
         {"dpdk_file_prefix", "'/'"}},
        {{.port = "net_ring0", .address = "10.7.0.1/24", .eal_arguments = "-x"},
         {"dpdk_eal_arguments", "'-x'"}},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct rsi_error error = {0};
        rsi_status_t status = rsi_dpdk_options_check(&cases[i].options, &error);
        if ((status == RSI_OK) != (cases[i].words[0] == NULL)) {
            fail_msg("case %zu: %s: %s", i, rsi_status_name(status), error.text);
        }
        for (size_t k = 0; k < 2 && cases[i].words[k] != NULL; k++) {
            if (strstr(error.text, cases[i].words[k]) == NULL) {
                fail_msg("case %zu: '%s' does not say '%s'", i, error.text, cases[i].words[k]);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_what_must_fit_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
