/*
 * What a program may set, what it is told when it sets something else, and structs of other
 * versions.
 */
#include "core/testing.h"

#include "clients/c/client.h"

static ringside_options_t blank(void)
{
    return (ringside_options_t){.struct_bytes = sizeof(ringside_options_t)};
}

static void expect_fine(const ringside_options_t *options, struct rsi_client_options *out)
{
    struct rsi_error error = {0};
    if (rsi_client_options_read(out, options, &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
}

static void expect_refusal(const ringside_options_t *options, rsi_status_t wanted, const char *text)
{
    struct rsi_client_options out;
    struct rsi_error error = {0};
    assert_int_equal(rsi_client_options_read(&out, options, &error), wanted);
    if (strstr(error.text, text) == NULL) {
        fail_msg("\"%s\" says nothing of \"%s\"", error.text, text);
    }
}

static void test_defaults(void **state)
{
    (void)state;
    struct rsi_client_options out;
    ringside_options_t options = blank();
    const ringside_options_t *const both[] = {NULL, &options};
    for (size_t index = 0; index < 2; index++) {
        expect_fine(both[index], &out);
        assert_int_equal(out.connect_timeout_ns, 5000000000);
        assert_int_equal(out.publish_ring_bytes, RSI_RING_BYTES_DEFAULT);
        assert_int_equal(out.deliver_ring_bytes, RSI_RING_BYTES_DEFAULT);
        assert_int_equal(out.message_bytes_max, 0);
        assert_int_equal(out.idle_strategy, RSI_IDLE_ADAPTIVE);
        assert_string_equal(out.token, "");
        char pid[16];
        snprintf(pid, sizeof(pid), "-%d", (int)getpid());
        assert_non_null(strstr(out.client_name, pid));
    }
}

static void test_sizes(void **state)
{
    (void)state;
    struct rsi_client_options out;
    ringside_options_t options = blank();
    options.publish_ring_bytes = UINT64_MAX;
    expect_fine(&options, &out);
    assert_int_equal(out.publish_ring_bytes, 0);
    options.deliver_ring_bytes = UINT64_MAX;
    expect_refusal(&options, RSI_E_INVALID, "nothing to do");
    options = blank();
    options.publish_ring_bytes = 65536;
    options.message_bytes_max = 16384;
    expect_fine(&options, &out);
    options.message_bytes_max = 16385;
    expect_refusal(&options, RSI_E_INVALID, "raise publish_ring_bytes");
    options = blank();
    options.publish_ring_bytes = 65535;
    expect_refusal(&options, RSI_E_INVALID, "publish_ring_bytes is 65535");
    options.publish_ring_bytes = 32768;
    expect_refusal(&options, RSI_E_INVALID, "power of two from 65536");
    options = blank();
    options.deliver_ring_bytes = UINT64_C(1) << 31;
    expect_refusal(&options, RSI_E_INVALID, "deliver_ring_bytes");
}

static void test_names_and_tokens(void **state)
{
    (void)state;
    struct rsi_client_options out;
    char name[RSI_NAME_BYTES_MAX + 2];
    memset(name, 'n', sizeof(name));
    name[RSI_NAME_BYTES_MAX + 1] = 0;
    ringside_options_t options = blank();
    options.client_name = name;
    expect_refusal(&options, RSI_E_INVALID, "client_name has 64 bytes");
    name[RSI_NAME_BYTES_MAX] = 0;
    expect_fine(&options, &out);
    assert_string_equal(out.client_name, name);
    options.client_name = "";
    expect_refusal(&options, RSI_E_INVALID, "0 bytes");
    options.client_name = "a\nb";
    expect_refusal(&options, RSI_E_INVALID, "control byte");

    options = blank();
    options.token = "a long secret";
    expect_refusal(&options, RSI_E_INVALID, "both its name and its secret");
    options.token_name = "desk";
    expect_fine(&options, &out);
    options.token = "short";
    expect_refusal(&options, RSI_E_INVALID, "the token has 5 bytes");

    /* The environment counts only where the program says nothing. */
    setenv("RINGSIDE_TOKEN_NAME", "other", 1);
    setenv("RINGSIDE_TOKEN", "another secret", 1);
    options.token = "a long secret";
    expect_fine(&options, &out);
    assert_string_equal(out.token_name, "desk");
    assert_string_equal(out.token, "a long secret");
    expect_fine(NULL, &out);
    assert_string_equal(out.token_name, "other");
    assert_string_equal(out.token, "another secret");
    unsetenv("RINGSIDE_TOKEN_NAME");
    unsetenv("RINGSIDE_TOKEN");
}

static void test_wait(void **state)
{
    (void)state;
    struct rsi_client_options out;
    ringside_options_t options = blank();
    options.wait = RINGSIDE_WAIT_BUSY;
    expect_fine(&options, &out);
    assert_int_equal(out.idle_strategy, RSI_IDLE_BUSY);
    options.wait = RINGSIDE_WAIT_BLOCKING;
    expect_fine(&options, &out);
    assert_int_equal(out.idle_strategy, RSI_IDLE_BLOCKING);
    options.wait = (ringside_wait_t)9;
    expect_refusal(&options, RSI_E_INVALID, "wait is 9");
}

static void test_structs_of_other_versions(void **state)
{
    (void)state;
    struct rsi_client_options out;
    /* An older program: its struct ends after the name. */
    ringside_options_t older = blank();
    older.struct_bytes = offsetof(ringside_options_t, bind_host);
    older.client_name = "older";
    older.publish_ring_bytes = 1; /* beyond its end: not looked at */
    expect_fine(&older, &out);
    assert_string_equal(out.client_name, "older");
    assert_int_equal(out.publish_ring_bytes, RSI_RING_BYTES_DEFAULT);

    /* A newer one: fine while it sets nothing that is not known here. */
    struct {
        ringside_options_t known;
        uint64_t unknown;
    } newer = {.known = blank()};
    newer.known.struct_bytes = sizeof(newer);
    expect_fine(&newer.known, &out);
    newer.unknown = 1;
    expect_refusal(&newer.known, RSI_E_UNSUPPORTED, "newer libringside");

    ringside_options_t forgotten = blank();
    forgotten.struct_bytes = 0;
    expect_refusal(&forgotten, RSI_E_INVALID, "struct_bytes is 0");
    forgotten.struct_bytes = SIZE_MAX;
    expect_refusal(&forgotten, RSI_E_INVALID, "struct_bytes");
}

static void test_dpdk(void **state)
{
    (void)state;
    static struct rsi_client_options out;
    const struct rsi_dpdk_options *read = &out.dpdk.options;
    ringside_options_t options = blank();
    ringside_dpdk_t dpdk = {.struct_bytes = sizeof(dpdk)};
    expect_fine(&options, &out);
    assert_null(read->port);

    options.dpdk = &dpdk;
    dpdk.port = "net_ring0";
    expect_refusal(&options, RSI_E_INVALID, "dpdk_address");
    dpdk.address = "10.7.0.2/24";
    dpdk.mtu = 9000;
    dpdk.no_huge = 1;
    expect_fine(&options, &out);
    assert_string_equal(read->port, "net_ring0");
    assert_string_equal(read->address, "10.7.0.2/24");
    assert_null(read->gateway);
    assert_int_equal(read->mtu, 9000);
    assert_true(read->no_huge);
    dpdk.gateway = "10.8.0.1";
    expect_refusal(&options, RSI_E_INVALID, "dpdk_gateway");
    dpdk.gateway = NULL;
    dpdk.mtu = 100;
    expect_refusal(&options, RSI_E_INVALID, "dpdk_mtu");
    dpdk.mtu = 0;
    dpdk.struct_bytes = 3;
    expect_refusal(&options, RSI_E_INVALID, "ringside_dpdk_t.struct_bytes is 3");
    dpdk.struct_bytes = offsetof(ringside_dpdk_t, gateway); /* an older one */
    expect_fine(&options, &out);
    dpdk.struct_bytes = sizeof(dpdk);
    char long_text[400];
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    dpdk.mac = long_text;
    expect_refusal(&options, RSI_E_INVALID, "dpdk_mac has 399 bytes");
}

/* The environment says what the program does not. */
static void test_dpdk_environment(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *good;
        const char *bad;
    } variables[] = {
        {"RINGSIDE_DPDK_PORT", "net_af_packet0,iface=e0", "eth0"},
        {"RINGSIDE_DPDK_ADDRESS", "10.7.0.3/24", "10.7.0.3"},
        {"RINGSIDE_DPDK_GATEWAY", "10.7.0.254", "x"},
        {"RINGSIDE_DPDK_MAC", "02:00:00:00:00:03", "x"},
        {"RINGSIDE_DPDK_MTU", "1400", "100"},
        {"RINGSIDE_DPDK_CORES", "0-1", "x"},
        {"RINGSIDE_DPDK_MEMORY", "64MiB", "x"},
        {"RINGSIDE_DPDK_HUGE", "no", "maybe"},
        {"RINGSIDE_DPDK_FILE_PREFIX", "desk", "/"},
        {"RINGSIDE_DPDK_EAL_ARGUMENTS", "--iova-mode=va", "-x"},
        {"RINGSIDE_DPDK_IDLE", "200us", "5"},
    };
    static struct rsi_client_options out;
    const struct rsi_dpdk_options *read = &out.dpdk.options;
    ringside_dpdk_t dpdk = {.struct_bytes = sizeof(dpdk), .address = "10.7.0.2/24"};
    ringside_options_t options = blank();
    for (size_t i = 0; i < rsi_array_count(variables); i++) {
        setenv(variables[i].name, variables[i].good, 1);
    }
    expect_fine(&options, &out);
    assert_string_equal(read->port, "net_af_packet0,iface=e0");
    assert_string_equal(read->address, "10.7.0.3/24");
    assert_string_equal(read->eal_arguments, "--iova-mode=va");
    assert_int_equal(read->mtu, 1400);
    assert_int_equal(read->memory_bytes, 64 << 20);
    assert_int_equal(read->idle_ns, 200000);
    assert_true(read->no_huge);
    options.dpdk = &dpdk;
    expect_fine(&options, &out);
    assert_string_equal(read->address, "10.7.0.2/24");
    options.dpdk = NULL;
    for (size_t i = 0; i < rsi_array_count(variables); i++) {
        setenv(variables[i].name, variables[i].bad, 1);
        expect_refusal(&options, RSI_E_INVALID, variables[i].bad);
        setenv(variables[i].name, variables[i].good, 1);
    }
    for (size_t i = 0; i < rsi_array_count(variables); i++) {
        unsetenv(variables[i].name);
    }
}

/* What was set holds on every transport; the default is longer where a wake-up is late. */
static void test_spin(void **state)
{
    (void)state;
    static struct ringside_client client;
    struct rsi_poller late = {.spin_ns_min = 4 * RSI_IDLE_SPIN_NS};
    struct rsi_poller prompt = {0};
    const struct rsi_client_path late_path = {.poller = &late};
    const struct rsi_client_path prompt_path = {.poller = &prompt};
    rsi_client_set_path(&client, &late_path);
    assert_int_equal(client.idle.spin_ns, 4 * RSI_IDLE_SPIN_NS);
    rsi_client_set_path(&client, &prompt_path);
    assert_int_equal(client.idle.spin_ns, RSI_IDLE_SPIN_NS);
    client.options.spin_ns = 2000;
    rsi_client_set_path(&client, &late_path);
    assert_int_equal(client.idle.spin_ns, 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_names_and_tokens),
        cmocka_unit_test(test_wait),
        cmocka_unit_test(test_structs_of_other_versions),
        cmocka_unit_test(test_spin),
        cmocka_unit_test(test_dpdk),
        cmocka_unit_test(test_dpdk_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
