/*
 * Settings: what a file and flags may say, and that every wrong word is answered with its place.
 */
#include "broker/command_line.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/ringside-settings-XXXXXX";

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static rsi_status_t load(struct rsi_settings *settings, const char *text, struct rsi_error *error)
{
    char path[128];
    snprintf(path, sizeof(path), "%s", path_of("config.yaml"));
    write_file(path, text, 0600);
    rsi_settings_init(settings);
    return rsi_settings_load(settings, path, error);
}

static void test_defaults_are_valid(void **state)
{
    (void)state;
    struct rsi_settings settings;
    struct rsi_error error = {0};
    rsi_settings_init(&settings);
    assert_int_equal(rsi_settings_check(&settings, &error), RSI_OK);
    assert_int_equal(settings.agent_count, 1);
    assert_int_equal(settings.log_bytes, 32 << 20);
    assert_int_equal(settings.message_bytes_max, 512 << 10);
    assert_int_equal(settings.listen_count, 2);
    assert_true(settings.listen_is_default);
    assert_true(settings.counters_path_is_default);
    assert_int_equal(settings.authenticate_timeout_ns, 5000000000);
    assert_int_equal(settings.control_cpu, -1);
    rsi_settings_fini(&settings);
}

/* Every key has what the texts need, and an example that is itself valid. */
static void test_table_is_complete(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < rsi_settings_table_count; i++) {
        const struct rsi_setting *setting = &rsi_settings_table[i];
        struct rsi_settings settings;
        struct rsi_error error = {0};
        char text[512];
        assert_ptr_equal(rsi_setting_find(setting->key), setting);
        assert_true(strlen(setting->help) > 10);
        assert_true(setting->low <= setting->high);
        assert_int_equal(setting->fallback == NULL, rsi_setting_is_list(setting));
        if (setting->type == RSI_SETTING_TOKENS) {
            continue; /* its example names a file */
        }
        snprintf(text, sizeof(text), "%s: %s\n", setting->key, setting->example);
        if (load(&settings, text, &error) != RSI_OK) {
            fail_msg("%s", error.text);
        }
        rsi_settings_fini(&settings);
    }
}

static void test_file_is_taken(void **state)
{
    (void)state;
    struct rsi_settings settings;
    struct rsi_error error = {0};
    const char *text = "# a comment\n"
                       "name: hub\n"
                       "listen:\n"
                       "  - tcp://127.0.0.1:7401\n"
                       "  - shm:///tmp/x.sock\n"
                       "agents: 2\n"
                       "agent_cpus: [0, 1]\n"
                       "wait: blocking\n"
                       "spin: 100us\n"
                       "log_bytes: 64 MiB\n"
                       "default_policy: disconnect\n"
                       "allow_block: off\n"
                       "allowed_uids: [1000]\n"
                       "last_value: [\"state.>\", md.*.status]\n"
                       "last_value_topics: 100\n"
                       "counters_path: \"\"\n"
                       "drain_timeout: 2s\n"
                       "dpdk_port: \"net_af_packet0,iface=eth1\"\n"
                       "dpdk_address: 10.7.0.1/24\n"
                       "dpdk_mtu: 9000\n"
                       "dpdk_huge: no\n"
                       "tokens:\n"
                       "  - name: feed\n"
                       "    secret: twelve bytes\n"
                       "  - {name: desk, secret: \"another one\"}\n";
    if (load(&settings, text, &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(rsi_settings_check(&settings, &error), RSI_OK);
    assert_string_equal(settings.name, "hub");
    assert_int_equal(settings.listen_count, 2);
    assert_string_equal(settings.listen[0], "tcp://127.0.0.1:7401");
    assert_false(settings.listen_is_default);
    assert_int_equal(settings.agent_count, 2);
    assert_int_equal(settings.agent_cpus[1], 1);
    assert_int_equal(settings.wait, RSI_IDLE_BLOCKING);
    assert_int_equal(settings.spin_ns, 100000);
    assert_int_equal(settings.log_bytes, 64 << 20);
    assert_int_equal(settings.default_policy, RSI_POLICY_DISCONNECT);
    assert_false(settings.allow_block);
    assert_int_equal(settings.allowed_uids[0], 1000);
    assert_int_equal(settings.last_value_count, 2);
    assert_int_equal(settings.last_value_topics, 100);
    assert_true(rsi_settings_has_last_value(&settings, "state.a.b"));
    assert_false(rsi_settings_has_last_value(&settings, "md.a.price"));
    assert_true(rsi_settings_may_have_last_value(&settings, "md.>"));
    assert_false(rsi_settings_may_have_last_value(&settings, "orders.>"));
    assert_true(rsi_settings_must_have_last_value(&settings, "md.x.status"));
    assert_false(rsi_settings_must_have_last_value(&settings, "md.>"));
    assert_string_equal(settings.counters_path, "");
    assert_false(settings.counters_path_is_default);
    assert_int_equal(settings.drain_timeout_ns, 2000000000);
    assert_int_equal(settings.token_count, 2);
    struct rsi_dpdk_options dpdk;
    rsi_settings_dpdk(&settings, &dpdk);
    assert_string_equal(dpdk.port, "net_af_packet0,iface=eth1");
    assert_string_equal(dpdk.address, "10.7.0.1/24");
    assert_string_equal(dpdk.gateway, "");
    assert_int_equal(dpdk.mtu, 9000);
    assert_true(dpdk.no_huge);
    assert_int_equal(dpdk.idle_ns, 1000000);
    const struct rsi_token *token = rsi_settings_find_token(&settings, "feed");
    assert_non_null(token);
    assert_int_equal(token->secret_bytes, 12);
    assert_memory_equal(token->secret, "twelve bytes", 12);
    assert_null(rsi_settings_find_token(&settings, "Feed"));
    rsi_settings_fini(&settings);
}

static void test_bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *parts[4]; /* of the error's text */
    } cases[] = {
        {"log_bytes: 3MiB\n",
         {"line 1", "log_bytes", "256 KiB to 64 GiB, a power of two", "256MiB"}},
        {"\n\nagents: 0\n", {"line 3", "agents", "1 to 8", "example: 2"}},
        {"agents: 9\n", {"line 1", "agents", "1 to 8", "out of range"}},
        {"agents: two\n", {"line 1", "'two'", "1 to 8"}},
        {"agents:\n", {"line 1", "agents", "1 to 8"}},
        {"name: a\nlogbytes: 3\n", {"line 2", "unknown key 'logbytes'", "--print-config"}},
        {"name: a\nagents: [1]\n", {"line 2", "agents: wrong type", "1 to 8"}},
        {"name: a\nlisten: tcp://x:1\n", {"line 2", "listen: wrong type", "list of 1 to 16"}},
        {"listen: [\"http://x\"]\n", {"line 1", "listen", "http"}},
        {"listen: [\"auto://x:1\"]\n", {"line 1", "listen", "auto://"}},
        {"listen: []\n", {"line 1", "listen"}},
        {"agents: 1\nagent_cpus: [0, 1, 2, 3, 4, 5, 6, 7, 8]\n", {"line 2", "agent_cpus"}},
        {"wait: sometimes\n", {"line 1", "wait", "busy, adaptive or blocking"}},
        {"default_policy: conflate\n", {"line 1", "drop, disconnect or block"}},
        {"allow_block: maybe\n", {"line 1", "yes or no"}},
        {"log_level: loud\n", {"line 1", "error, warning, info or debug"}},
        {"drain_timeout: 5\n", {"line 1", "drain_timeout", "1 h"}},
        {"drain_timeout: 2h\n", {"line 1", "out of range"}},
        {"message_bytes_max: 512 QiB\n", {"line 1", "message_bytes_max", "1 KiB to 64 MiB"}},
        {"control_cpu: -1\n", {"line 1", "control_cpu", "any"}},
        {"agent_cpus: [1, x]\n", {"line 1", "agent_cpus", "'x'"}},
        {"allowed_uids: [root]\n", {"line 1", "allowed_uids", "'root'"}},
        {"last_value: [\"a..b\"]\n", {"line 1", "last_value", "'a..b'", "empty token"}},
        {"last_value_bytes: 1KiB\n", {"line 1", "64 KiB to 64 GiB"}},
        {"name: a\nname: b\n", {"name"}},
        {"name: \"unclosed\n", {"not YAML"}},
        {"- just\n- a list\n", {"config.yaml"}},
        {"tokens:\n  - secret: abcdefgh\n", {"line", "name"}},
        {"tokens:\n  - name: a\n", {"line 1", "either secret or secret_file"}},
        {"tokens:\n  - name: a\n    secret: short\n", {"line 1", "5 bytes", "8 to 255", "openssl"}},
        {"tokens: [{name: a, secret: abcdefgh}, {name: a, secret: abcdefgh}]\n",
         {"line 1", "'a' is there twice"}},
        {"tokens:\n  - name: a\n    sekret: abcdefgh\n", {"line 3", "unknown key 'sekret'"}},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct rsi_settings settings;
        struct rsi_error error = {0};
        if (load(&settings, cases[i].text, &error) == RSI_OK) {
            fail_msg("taken: %s", cases[i].text);
        }
        for (size_t part = 0; part < 4 && cases[i].parts[part] != NULL; part++) {
            if (strstr(error.text, cases[i].parts[part]) == NULL) {
                fail_msg("'%s' is not in '%s'", cases[i].parts[part], error.text);
            }
        }
        assert_non_null(strstr(error.text, "config.yaml"));
        rsi_settings_fini(&settings);
    }
}

static void test_missing_file(void **state)
{
    (void)state;
    struct rsi_settings settings;
    struct rsi_error error = {0};
    rsi_settings_init(&settings);
    assert_int_equal(rsi_settings_load(&settings, path_of("nothing"), &error), RSI_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "nothing"));
    rsi_settings_fini(&settings);
}

static void test_relations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *parts[2];
    } cases[] = {
        {"message_bytes_max: 32MiB\n", {"log_bytes", "message_bytes_max"}},
        {"publish_ring_bytes_max: 1MiB\n", {"publish_ring_bytes_max", "message_bytes_max"}},
        {"deliver_ring_bytes_max: 1MiB\n", {"deliver_ring_bytes_max", "message_bytes_max"}},
        {"agents: 2\nagent_cpus: [0]\n", {"agent_cpus", "agents: 2"}},
        {"agents: 2\nagent_cpus: [1, 1]\n", {"agent_cpus", "twice"}},
        {"last_value: [a]\nlast_value_topics: 10000\n", {"last_value_topics", "half of"}},
        {"last_value: [a]\nlast_value_bytes: 64KiB\n", {"last_value_bytes", "last_value_topics"}},
        {"dpdk_port: net_ring0\n", {"dpdk_address", "10.7.0.1/24"}},
        {"dpdk_address: 10.7.0.1/24\ndpdk_gateway: 10.8.0.1\n", {"dpdk_gateway", "10.8.0.1"}},
        {"dpdk_mtu: 100\n", {"dpdk_mtu", "576"}},
        {"default_policy: block\nallow_block: no\n", {"default_policy", "allow_block"}},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct rsi_settings settings;
        struct rsi_error error = {0};
        if (load(&settings, cases[i].text, &error) != RSI_OK) {
            fail_msg("%s", error.text);
        }
        assert_int_equal(rsi_settings_check(&settings, &error), RSI_E_INVALID);
        for (size_t part = 0; part < 2; part++) {
            if (strstr(error.text, cases[i].parts[part]) == NULL) {
                fail_msg("'%s' is not in '%s'", cases[i].parts[part], error.text);
            }
        }
        rsi_settings_fini(&settings);
    }
}

static void test_secret_files(void **state)
{
    (void)state;
    char path[128];
    struct rsi_settings settings;
    struct rsi_error error = {0};
    snprintf(path, sizeof(path), "%s", path_of("secret"));
    rsi_settings_init(&settings);

    write_file(path, "abcdefgh\n", 0600);
    assert_int_equal(rsi_settings_add_token_file(&settings, "good", path, &error), RSI_OK);
    assert_int_equal(settings.tokens[0].secret_bytes, 8); /* without the line's end */

    write_file(path, "abcdefgh\n", 0640);
    assert_int_equal(rsi_settings_add_token_file(&settings, "open", path, &error),
                     RSI_E_PERMISSION);
    assert_non_null(strstr(error.text, "chmod 600"));

    write_file(path, "\n", 0600);
    assert_int_equal(rsi_settings_add_token_file(&settings, "none", path, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "is empty"));

    assert_int_equal(rsi_settings_add_token_file(&settings, "gone", path_of("gone"), &error),
                     RSI_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "gone"));
    assert_int_equal(rsi_settings_add_token_file(&settings, "dir", directory, &error),
                     RSI_E_INVALID);
    assert_int_equal(settings.token_count, 1);
    rsi_settings_fini(&settings);
}

/* What --print-config prints is a file that gives the same settings. */
static void test_print_reads_back(void **state)
{
    (void)state;
    struct rsi_settings first;
    struct rsi_settings second;
    struct rsi_error error = {0};
    char *printed = NULL;
    size_t printed_bytes = 0;
    if (load(&first,
             "name: hub\nagents: 2\nagent_cpus: [0, 1]\nlisten: [\"tcp://[::1]:0\"]\n"
             "allowed_uids: [7]\ncontrol_cpu: 1\ndrain_timeout: 0\nspin: 1500us\n",
             &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
    FILE *stream = open_memstream(&printed, &printed_bytes);
    assert_non_null(stream);
    rsi_settings_print(&first, stream);
    fclose(stream);
    if (load(&second, printed, &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
    second.counters_path_is_default = first.counters_path_is_default;
    second.tokens = NULL;
    assert_memory_equal(&first, &second, sizeof(first));
    for (uint32_t i = 0; i < rsi_settings_table_count; i++) {
        assert_non_null(strstr(printed, rsi_settings_table[i].key));
    }
    free(printed);
    rsi_settings_fini(&first);
    rsi_settings_fini(&second);
}

/* ---- flags -------------------------------------------------------------------------------------
 */

static rsi_status_t parse(struct rsi_settings *settings, struct rsi_command_line *line,
                          const char *const *flags, struct rsi_error *error)
{
    char *arguments[16] = {(char *)"ringsided"};
    int count = 1;
    for (; flags[count - 1] != NULL; count++) {
        arguments[count] = (char *)flags[count - 1];
    }
    rsi_settings_init(settings);
    return rsi_command_line_parse(line, settings, count, arguments, error);
}

static void test_flags_override_file(void **state)
{
    (void)state;
    char path[128];
    struct rsi_settings settings;
    struct rsi_command_line line;
    struct rsi_error error = {0};
    snprintf(path, sizeof(path), "%s", path_of("flags.yaml"));
    write_file(path, "name: file\nagents: 3\nlisten: [\"tcp://127.0.0.1:1\"]\n", 0600);
    const char *const flags[] = {"--listen", "tcp://127.0.0.1:2", "--name=flag",  "--config", path,
                                 "--listen", "tcp://127.0.0.1:3", "--ready-fd=9", NULL};
    if (parse(&settings, &line, flags, &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
    assert_string_equal(settings.name, "flag");
    assert_int_equal(settings.agent_count, 3);
    assert_int_equal(settings.listen_count, 2);
    assert_string_equal(settings.listen[0], "tcp://127.0.0.1:2");
    assert_string_equal(settings.listen[1], "tcp://127.0.0.1:3");
    assert_int_equal(line.ready_fd, 9);
    assert_false(line.print_config);
    rsi_settings_fini(&settings);
}

static void test_bad_flags(void **state)
{
    (void)state;
    static const struct {
        const char *flags[3];
        const char *part;
    } cases[] = {
        {{"--agents=99"}, "--agents"},
        {{"--log-bytes", "12"}, "--log-bytes"},
        {{"--ready-fd=x"}, "--ready-fd"},
        {{"stray"}, "'stray' is no flag"},
        {{"--token", "a"}, "NAME=SECRET_FILE"},
        {{"--tokens=a=/nonexistent/secret"}, "/nonexistent/secret"},
        {{"--message-bytes-max=32MiB"}, "message_bytes_max"},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct rsi_settings settings;
        struct rsi_command_line line;
        struct rsi_error error = {0};
        assert_int_not_equal(parse(&settings, &line, cases[i].flags, &error), RSI_OK);
        if (strstr(error.text, cases[i].part) == NULL) {
            fail_msg("'%s' is not in '%s'", cases[i].part, error.text);
        }
        rsi_settings_fini(&settings);
    }
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    static const char *const names[] = {"config.yaml", "flags.yaml", "secret"};
    for (size_t i = 0; i < rsi_array_count(names); i++) {
        unlink(path_of(names[i]));
    }
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_valid),  cmocka_unit_test(test_table_is_complete),
        cmocka_unit_test(test_file_is_taken),       cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_missing_file),        cmocka_unit_test(test_relations),
        cmocka_unit_test(test_secret_files),        cmocka_unit_test(test_print_reads_back),
        cmocka_unit_test(test_flags_override_file), cmocka_unit_test(test_bad_flags),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
