/*
 * Addresses: what people type, and what they are told about it.
 */
#include "core/testing.h"
#include "transport/url.h"

#include <arpa/inet.h>

struct good {
    const char *text;
    const char *scheme;
    const char *host;
    uint16_t port;
    const char *path;
    const char *formatted; /* NULL: as text */
};

static void test_good_addresses(void **state)
{
    (void)state;
    static const struct good goods[] = {
        {"tcp://10.0.0.1:7401", "tcp", "10.0.0.1", 7401, "", NULL},
        {"rdma://broker.example:0", "rdma", "broker.example", 0, "", NULL},
        {"auto://host", "auto", "host", 7400, "", "auto://host:7400"},
        {"tcp://[fe80::1]:9", "tcp", "fe80::1", 9, "", NULL},
        {"tcp://[::1]", "tcp", "::1", 7400, "", "tcp://[::1]:7400"},
        {"tcp://*:7400", "tcp", "*", 7400, "", NULL},
        {"tcp://:65535", "tcp", "", 65535, "", NULL},
        {"shm:///run/ringside/broker.sock", "shm", "", 0, "/run/ringside/broker.sock", NULL},
        {"sim://one", "sim", "", 0, "one", NULL},
    };
    for (size_t i = 0; i < rsi_array_count(goods); i++) {
        struct rsi_url url;
        struct rsi_error error = {0};
        if (rsi_url_parse(&url, goods[i].text, &error) != RSI_OK) {
            fail_msg("%s: %s", goods[i].text, error.text);
        }
        assert_string_equal(url.scheme, goods[i].scheme);
        assert_string_equal(url.host, goods[i].host);
        assert_int_equal(url.port, goods[i].port);
        assert_string_equal(url.path, goods[i].path);
        char text[400];
        rsi_url_format(&url, text, sizeof(text));
        assert_string_equal(text, goods[i].formatted ? goods[i].formatted : goods[i].text);
    }
}

struct bad {
    const char *text;
    const char *word; /* what the refusal must name */
};

static void test_bad_addresses_are_refused_by_name(void **state)
{
    (void)state;
    static const struct bad bads[] = {
        {"", "tcp://HOST:PORT"},
        {"10.0.0.1:7400", "tcp://HOST:PORT"},
        {"http://host:80", "'http'"},
        {"averyveryverylongscheme://host", "averyveryverylongscheme"},
        {"tcp://host:", "port ''"},
        {"tcp://host:65536", "65536"},
        {"tcp://host:-1", "'-1'"},
        {"tcp://host:7400x", "'7400x'"},
        {"tcp://host:123456", "123456"},
        {"tcp://fe80::1:7400", "[ADDRESS]"},
        {"tcp://[fe80::1", "']'"},
        {"tcp://[fe80::1]x", "'x'"},
        {"tcp://user@host:1", "'@'"},
        {"tcp://host:1/path", "'/'"},
        {"tcp://host?x=1", "'?'"},
        {"tcp://host#x", "'#'"},
        {"shm://relative/path", "absolute"},
        {"shm:///", "missing"},
        {"shm://", "absolute"},
        {"sim://", "missing"},
    };
    for (size_t i = 0; i < rsi_array_count(bads); i++) {
        struct rsi_url url = {.port = 4711};
        struct rsi_error error = {0};
        rsi_status_t status = rsi_url_parse(&url, bads[i].text, &error);
        if (status != RSI_E_INVALID || strstr(error.text, bads[i].word) == NULL) {
            fail_msg("%s: status %d, '%s'", bads[i].text, status, error.text);
        }
        assert_int_equal(url.port, 4711); /* outputs only on success */
    }
}

static void test_lengths_are_bounded(void **state)
{
    (void)state;
    char text[600];
    struct rsi_url url;
    struct rsi_error error = {0};
    snprintf(text, sizeof(text), "shm:///%0*d", RSI_PATH_BYTES_MAX - 1, 0);
    assert_int_equal(rsi_url_parse(&url, text, &error), RSI_OK);
    snprintf(text, sizeof(text), "shm:///%0*d", RSI_PATH_BYTES_MAX, 0);
    assert_int_equal(rsi_url_parse(&url, text, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "107"));
    snprintf(text, sizeof(text), "tcp://%0*d:1", RSI_HOST_BYTES_MAX, 0);
    assert_int_equal(rsi_url_parse(&url, text, &error), RSI_OK);
    snprintf(text, sizeof(text), "tcp://%0*d:1", RSI_HOST_BYTES_MAX + 1, 0);
    assert_int_equal(rsi_url_parse(&url, text, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "253"));
}

static void resolve(const char *text, bool passive, const char *expected)
{
    struct rsi_url url;
    struct sockaddr_storage address;
    socklen_t address_bytes = 0;
    struct rsi_error error = {0};
    assert_int_equal(rsi_url_parse(&url, text, &error), RSI_OK);
    if (rsi_url_resolve(&url, passive, &address, &address_bytes, &error) != RSI_OK) {
        fail_msg("%s: %s", text, error.text);
    }
    char formatted[80];
    rsi_address_format((const struct sockaddr *)&address, formatted, sizeof(formatted));
    assert_string_equal(formatted, expected);
}

static void test_numeric_hosts_resolve(void **state)
{
    (void)state;
    resolve("tcp://127.0.0.1:81", false, "127.0.0.1:81");
    resolve("tcp://[::1]:82", false, "[::1]:82");
    resolve("tcp://[::1]:83", true, "[::1]:83");
    resolve("rdma://10.7.0.1:0", true, "10.7.0.1:0");
}

static void test_any_host_is_for_listening(void **state)
{
    (void)state;
    struct rsi_url url;
    struct sockaddr_storage address;
    socklen_t address_bytes = 0;
    struct rsi_error error = {0};
    assert_int_equal(rsi_url_parse(&url, "tcp://*:84", NULL), RSI_OK);
    assert_int_equal(rsi_url_resolve(&url, true, &address, &address_bytes, &error), RSI_OK);
    assert_true(address_bytes > 0);
    assert_int_equal(rsi_url_resolve(&url, false, &address, &address_bytes, &error), RSI_E_ADDRESS);
    assert_non_null(strstr(error.text, "listening"));
}

static void test_bad_hosts_are_named(void **state)
{
    (void)state;
    struct rsi_url url;
    struct sockaddr_storage address;
    socklen_t address_bytes = 0;
    struct rsi_error error = {0};
    /* A name that no resolver is asked for: an empty label is no name. */
    assert_int_equal(rsi_url_parse(&url, "tcp://no..host:85", NULL), RSI_OK);
    assert_int_equal(rsi_url_resolve(&url, false, &address, &address_bytes, &error), RSI_E_ADDRESS);
    assert_non_null(strstr(error.text, "no..host"));
}

static void test_other_families_have_a_text(void **state)
{
    (void)state;
    struct sockaddr address = {.sa_family = AF_UNIX};
    char text[40];
    rsi_address_format(&address, text, sizeof(text));
    assert_non_null(strstr(text, "family"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_addresses),
        cmocka_unit_test(test_bad_addresses_are_refused_by_name),
        cmocka_unit_test(test_lengths_are_bounded),
        cmocka_unit_test(test_numeric_hosts_resolve),
        cmocka_unit_test(test_any_host_is_for_listening),
        cmocka_unit_test(test_bad_hosts_are_named),
        cmocka_unit_test(test_other_families_have_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
