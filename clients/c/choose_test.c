/*
 * Which transports a URL leads to, and the reasons for those left out.
 */
#include "core/testing.h"

#include "clients/c/client.h"

#include <sys/socket.h>
#include <sys/un.h>

static struct rsi_client_candidates choose_with(const char *url, bool has_dpdk_port)
{
    struct rsi_client_candidates candidates = {0};
    struct rsi_url parsed;
    struct rsi_error error = {0};
    if (rsi_client_read_url(&parsed, url, &error) != RSI_OK ||
        rsi_client_choose(&candidates, &parsed, has_dpdk_port, &error) != RSI_OK) {
        fail_msg("%s: %s", url, error.text);
    }
    return candidates;
}

static struct rsi_client_candidates choose(const char *url)
{
    return choose_with(url, false);
}

static void expect_refusal(const char *url, rsi_status_t wanted)
{
    struct rsi_client_candidates candidates;
    struct rsi_url parsed;
    struct rsi_error error = {0};
    rsi_status_t status = rsi_client_read_url(&parsed, url, &error);
    if (status == RSI_OK) {
        status = rsi_client_choose(&candidates, &parsed, false, &error);
    }
    assert_int_equal(status, wanted);
    assert_true(strlen(error.text) > 0);
}

static bool has(const struct rsi_client_candidates *candidates, const char *name)
{
    for (uint32_t index = 0; index < candidates->count; index++) {
        if (strcmp(candidates->list[index].transport->name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void test_explicit(void **state)
{
    (void)state;
    struct rsi_client_candidates candidates = choose("tcp://127.0.0.1:7400");
    assert_int_equal(candidates.count, 1);
    assert_false(candidates.is_choice);
    assert_string_equal(candidates.list[0].transport->name, "tcp");
    candidates = choose("shm:///run/ringside/broker.sock");
    assert_int_equal(candidates.count, 1);
    assert_string_equal(candidates.list[0].transport->name, "shm");
    expect_refusal(NULL, RSI_E_INVALID);
    expect_refusal("", RSI_E_INVALID);
    expect_refusal("auto://", RSI_E_INVALID);
    expect_refusal("tcp://*:7400", RSI_E_INVALID);
}

static void test_auto_elsewhere(void **state)
{
    (void)state;
    /* 192.0.2.0/24 is for documentation: no interface has it. */
    struct rsi_client_candidates candidates = choose("auto://192.0.2.1:7400");
    assert_true(candidates.is_choice);
    assert_false(has(&candidates, "shm"));
    assert_true(has(&candidates, "tcp"));
    assert_non_null(strstr(candidates.why_not, "shm: 192.0.2.1 is not this host"));
    assert_string_equal(candidates.list[candidates.count - 1].transport->name, "tcp");
    assert_int_equal(candidates.list[candidates.count - 1].url.port, 7400);
    assert_string_equal(candidates.list[candidates.count - 1].url.scheme, "tcp");
    assert_true(has(&candidates, "rdma") || strstr(candidates.why_not, "rdma: not in this build"));
}

/* It takes a device away from the kernel: only who says which one tries it. */
static void test_auto_tries_dpdk_where_it_has_a_port(void **state)
{
    (void)state;
    struct rsi_client_candidates candidates = choose("auto://192.0.2.1:7400");
    assert_false(has(&candidates, "dpdk"));
    assert_non_null(strstr(candidates.why_not, "dpdk: no port is configured"));
    candidates = choose_with("auto://192.0.2.1:7400", true);
    assert_true(candidates.count >= 2);
    assert_string_equal(candidates.list[candidates.count - 2].transport->name, "dpdk");
    assert_string_equal(candidates.list[candidates.count - 2].url.scheme, "dpdk");
    assert_string_equal(candidates.list[candidates.count - 1].transport->name, "tcp");
}

static void test_auto_here(void **state)
{
    (void)state;
    char directory[] = "/tmp/ringside-choose-XXXXXX";
    assert_non_null(mkdtemp(directory));
    setenv("RINGSIDE_RUN_DIR", directory, 1);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/broker-7411.sock", directory);

    static const char *const urls[] = {"auto://127.0.0.1:7411", "auto://localhost:7411",
                                       "auto://[::1]:7411"};
    for (size_t index = 0; index < rsi_array_count(urls); index++) {
        struct rsi_client_candidates candidates = choose(urls[index]);
        assert_false(has(&candidates, "shm"));
        assert_non_null(strstr(candidates.why_not, "shm: no socket "));
        assert_non_null(strstr(candidates.why_not, address.sun_path));
    }

    /* A file of that name is no socket. */
    FILE *file = fopen(address.sun_path, "w");
    assert_non_null(file);
    fclose(file);
    struct rsi_client_candidates candidates = choose(urls[0]);
    assert_false(has(&candidates, "shm"));
    unlink(address.sun_path);

    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    candidates = choose(urls[0]);
    assert_string_equal(candidates.list[0].transport->name, "shm");
    assert_string_equal(candidates.list[0].url.path, address.sun_path);
    assert_true(has(&candidates, "tcp"));

    close(fd);
    unlink(address.sun_path);
    rmdir(directory);
    char long_directory[200];
    memset(long_directory, 'd', sizeof(long_directory));
    long_directory[0] = '/';
    long_directory[sizeof(long_directory) - 1] = 0;
    setenv("RINGSIDE_RUN_DIR", long_directory, 1);
    candidates = choose(urls[0]);
    assert_non_null(strstr(candidates.why_not, "too long"));
    unsetenv("RINGSIDE_RUN_DIR");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_explicit),
        cmocka_unit_test(test_auto_elsewhere),
        cmocka_unit_test(test_auto_tries_dpdk_where_it_has_a_port),
        cmocka_unit_test(test_auto_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
