/*
 * What goes wrong on the first day: each time the program ends with a code that is not 0, and its
 * text names the thing and the mend.
 *
 * Design notes
 * - Programs are run as a user runs them; a text is held to the words that matter, not to the
 * letter.
 * - Where the transport makes no difference the test runs once, over tcp.
 */
#include "proto/layout.h"
#include "tests/system/harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PART_COUNT_MAX = 6 };

struct expectation {
    const char *arguments[12];
    int code;
    const char *parts[PART_COUNT_MAX];
};

static void expect_list(const char *const *arguments, int code, const char *const *parts)
{
    static char output[TEXT_BYTES];
    char command[1024] = "";
    size_t bytes = 0;
    for (size_t index = 0; arguments[index] != NULL && bytes < sizeof(command); index++) {
        bytes +=
            (size_t)snprintf(command + bytes, sizeof(command) - bytes, " %s", arguments[index]);
    }
    int got = run_command(arguments, output, sizeof(output));
    check(got == code, "%s ended with %d, not %d: %s", command, got, code, output);
    for (size_t index = 0; index < PART_COUNT_MAX && parts[index] != NULL; index++) {
        check(strstr(output, parts[index]) != NULL, "%s does not say '%s' but: %s", command,
              parts[index], output);
    }
}

static void expect_all(const struct expectation *list, size_t count)
{
    for (size_t index = 0; index < count; index++) {
        expect_list(list[index].arguments, list[index].code, list[index].parts);
    }
    tell("%zu commands", count);
}

/* ---- tables ------------------------------------------------------------------------------------
 */

#define PUB(url)                                    \
    {                                               \
        "ringside", "pub", "--url", url, "a.b", "x" \
    }

static void test_addresses(void)
{
    static const struct expectation list[] = {
        {PUB("tcp://127.0.0.1:1"),
         1,
         {"no broker listens on tcp://127.0.0.1:1", "start ringsided"}},
        {PUB("auto://127.0.0.1:1"), 1, {"shm: no socket", "rdma: ", "no broker listens"}},
        {PUB("shm:///nowhere/broker.sock"), 1, {"/nowhere/broker.sock", "is ringsided running"}},
        {PUB("foo://host:1"), 1, {"unknown transport 'foo'", "tcp, rdma, dpdk, shm or auto"}},
        {PUB("127.0.0.1:7400"), 1, {"'127.0.0.1:7400' is no address", "tcp://HOST:PORT"}},
        {PUB(""), 1, {"'' is no address", "tcp://HOST:PORT"}},
        {PUB("tcp://"), 1, {"names no host", "tcp://host:port"}},
        {PUB("tcp://host:99999"), 1, {"port '99999'", "0 to 65535"}},
        {PUB("tcp://[::1:7400"), 1, {"'[' without ']'"}},
        {PUB("tcp://127.0.0.1:7400/x"), 1, {"'/'", "after the host"}},
        {PUB("shm://"), 1, {"must be absolute", "shm:///PATH"}},
        {PUB("shm://relative"), 1, {"must be absolute", "shm:///PATH"}},
        {PUB("tcp://no-such-host.invalid:1"), 1, {"'no-such-host.invalid' cannot be resolved"}},
        {{"ringside", "pub", "--url", "tcp://127.0.0.1:1", "--bind", "192.0.2.7", "a", "x"},
         1,
         {"'192.0.2.7'", "address of this machine"}},
        {{"ringside", "pub", "--url", "tcp://127.0.0.1:1", "--bind", "no-such-interface", "a", "x"},
         1,
         {"bind address", "'no-such-interface' cannot be resolved", "give the address"}},
    };
    expect_all(list, rsi_array_count(list));
}

static void test_subjects_and_flags(void)
{
    static const struct expectation list[] = {
        {{"ringside", "pub", "a..b", "x"}, 2, {"'a..b'", "empty token", "md.XNAS.AAPL"}},
        {{"ringside", "pub", "a.*", "x"}, 2, {"'a.*'", "only a subscription may"}},
        {{"ringside", "pub", "a b", "x"}, 2, {"'a b'"}},
        {{"ringside", "sub", "a.>.b"}, 2, {"'a.>.b'", "it must be the last one"}},
        {{"ringside", "pub", "--wrong", "a", "x"}, 2, {"'--wrong'", "--help"}},
        {{"ringside", "sub", "--policy", "nope", "a"},
         2,
         {"'nope'", "drop, disconnect, block or conflate"}},
        {{"ringside", "nonsense"}, 2, {"'nonsense' is no command", "--help"}},
        {{"ringside", "pub", "--publish-ring", "3MiB", "a", "x"}, 2, {"'3MiB'", "power of two"}},
        {{"ringside", "pub", "--publish-ring", "32", "a", "x"}, 2, {"'32'", "64 KiB to 1 GiB"}},
        {{"ringside", "pub", "--cpu", "1023", "a", "x"}, 1, {"cpu 1023", "allowed set"}},
        {{"ringside", "pub", "--cpu", "4095", "a", "x"}, 2, {"4095", "0 and 1023"}},
        {{"ringsided", "--nonsense"}, 2, {"'--nonsense'", "--help"}},
        {{"ringsided", "nonsense"}, 2, {"'nonsense'", "--help"}},
        {{"ringsided", "--agents", "99"}, 2, {"--agents", "'99'", "1 to 8", "example"}},
        {{"ringsided", "--log-bytes", "3MiB"}, 2, {"'3MiB'", "not a power of two", "example"}},
        {{"ringsided", "--log-bytes", "256KiB"}, 2, {"log_bytes", "message_bytes_max", "raise"}},
        {{"ringsided", "--wait", "sometimes"}, 2, {"'sometimes'", "busy, adaptive or blocking"}},
        {{"ringsided", "--listen", "foo://x"}, 2, {"unknown transport 'foo'", "example"}},
    };
    expect_all(list, rsi_array_count(list));
}

static void expect_configuration(const char *text, const char *const *parts)
{
    char path[PATH_BYTES];
    char flag[PATH_BYTES + 16];
    write_file(test_path(path, "broker.yaml"), text);
    snprintf(flag, sizeof(flag), "--config=%s", path);
    expect_list((const char *const[]){"ringsided", flag, NULL}, 2, parts);
}

#define PARTS(...) ((const char *const[PART_COUNT_MAX + 1]){__VA_ARGS__})

static void test_configuration(void)
{
    expect_configuration("agents: 2\nlog_byte: 1MiB\n",
                         PARTS("broker.yaml, line 2", "'log_byte'", "--print-config"));
    expect_configuration("agents: 2\n\nlog_bytes: 3MiB\n",
                         PARTS("broker.yaml, line 3", "'3MiB'", "power of two", "example"));
    expect_configuration("agents: [1]\n", PARTS("broker.yaml, line 1", "agents", "1 to 8"));
    expect_configuration("tokens:\n  - {name: feed}\n",
                         PARTS("broker.yaml, line 1", "feed", "secret_file"));
    expect_configuration("listen: [\"tcp://h:99999\"]\n", PARTS("broker.yaml, line 1", "'99999'"));
    expect_list((const char *const[]){"ringsided", "--config=/nowhere/broker.yaml", NULL}, 2,
                PARTS("/nowhere/broker.yaml", "No such file"));
    tell("6 configurations");
}

/* ---- starting a broker -------------------------------------------------------------------------
 */

static void expect_broker_fails(int code, const char *flag, const char *other,
                                const char *const *parts)
{
    expect_list((const char *const[]){"ringsided", "--counters-path=", flag, other, NULL}, code,
                parts);
}

static void test_starting(void)
{
    char flag[2 * PATH_BYTES];
    char path[PATH_BYTES];
    struct broker broker;
    broker_start(&broker, NULL);
    snprintf(flag, sizeof(flag), "--listen=%s", broker.url);
    expect_broker_fails(3, flag, NULL, PARTS("in use", broker.url));
    snprintf(flag, sizeof(flag), "--counters-path=%s", broker.counters_path);
    expect_broker_fails(3, "--listen=tcp://127.0.0.1:0", flag,
                        PARTS("belongs to a running process", "choose another path"));
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");

    expect_broker_fails(3, "--listen=tcp://192.0.2.1:0", NULL,
                        PARTS("'192.0.2.1' is no address of this machine"));
    expect_broker_fails(3, "--listen=tcp://no-such-interface:0", NULL,
                        PARTS("'no-such-interface' cannot be resolved", "give the address"));
    test_path(path, "a-path-that-is-longer-than-the-hundred-and-seven-bytes-that-a-unix-"
                    "socket-may-have-and-then-some-more.sock");
    snprintf(flag, sizeof(flag), "--listen=shm://%s", path);
    expect_broker_fails(2, flag, NULL, PARTS("at most 107"));
    expect_broker_fails(3, "--listen=shm:///dev/null/broker.sock", NULL,
                        PARTS("/dev/null/broker.sock"));
    expect_broker_fails(3, "--listen=tcp://127.0.0.1:0", "--agent-cpus=1023",
                        PARTS("cpu 1023", "data agent 0", "outside the allowed set"));
    expect_broker_fails(3, "--listen=tcp://127.0.0.1:0", "--control-cpu=1023",
                        PARTS("cpu 1023", "control_cpu", "outside the allowed set"));
    expect_broker_fails(2, "--listen=tcp://127.0.0.1:0", "--agent-cpus=4095",
                        PARTS("'4095'", "not a CPU number"));
    expect_broker_fails(3, "--listen=tcp://127.0.0.1:0", "--counters-path=/nowhere/counters",
                        PARTS("/nowhere/counters", "No such file"));
}

/* Outside the machine there is no device at all; inside there is none of that name. */
static void test_no_rdma_device(void)
{
    if (is_transport("rdma")) {
        expect_broker_fails(3, "--listen=rdma://10.7.0.1:0", "--device=mlx5_9", PARTS("mlx5_9"));
        expect_broker_fails(3, "--listen=rdma://192.0.2.1:0", NULL, PARTS("192.0.2.1"));
        expect_list((const char *const[]){"ringside", "pub", "--url", "rdma://10.7.0.1:1", "--bind",
                                          "10.7.0.2", "--timeout", "30s", "a", "x", NULL},
                    1, PARTS("10.7.0.1:1", "is the broker started there"));
        expect_list((const char *const[]){"ringside", "pub", "--url", "rdma://10.7.0.1:1", "--bind",
                                          "10.7.0.2", "--device", "mlx5_9", "a", "x", NULL},
                    1, PARTS("mlx5_9"));
        return;
    }
#if RSI_HAVE_RDMA
    const char *const *parts = PARTS("no RDMA device", "rdma link add", "or use tcp://");
#else
    const char *const *parts = PARTS("this build has no", "rdma");
#endif
    expect_broker_fails(3, "--listen=rdma://127.0.0.1:0", NULL, parts);
    expect_list(
        (const char *const[]){"ringside", "pub", "--url", "rdma://127.0.0.1:7400", "a", "x", NULL},
        1, parts);
}

/* One line, also when many rings are made; none when there are enough. */
static void test_huge_pages(void)
{
    unsigned long total = 0;
    const char *line = strstr(read_file("/proc/meminfo"), "HugePages_Total:");
    check(line != NULL && sscanf(line, "HugePages_Total: %lu", &total) == 1, "no HugePages_Total");
    struct broker broker;
    static char output[TEXT_BYTES];
    broker_start(&broker, NULL);
    for (unsigned client = 0; client < 3; client++) {
        check(run_command(
                  (const char *const[]){"ringside", "pub", "--url", broker.url, "a", "x", NULL},
                  output, sizeof(output)) == 0,
              "pub: %s", output);
    }
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
    unsigned warning_count = 0;
    for (const char *at = read_file(broker.program.output_path);
         (at = strstr(at, "no huge pages")) != NULL; at++) {
        warning_count++;
    }
    tell("%lu huge pages, %u warnings", total, warning_count);
    check(warning_count == (total == 0 ? 1 : 0) || (total > 0 && warning_count == 1),
          "%u warnings about huge pages", warning_count);
    check(total > 0 || strstr(read_file(broker.program.output_path), "vm.nr_hugepages") != NULL,
          "the warning does not name vm.nr_hugepages");
}

/* ---- tokens ------------------------------------------------------------------------------------
 */

static void expect_pub(const struct broker *broker, const char *name, const char *file, int code,
                       const char *const *parts)
{
    const char *bind = is_transport("rdma") ? getenv("RINGSIDE_VM_ADDR_B") : NULL;
    const char *list[ARGUMENT_COUNT_MAX] = {"ringside", "pub", "--timeout=60s", "--url",
                                            broker->url};
    size_t count = 5;
    if (bind != NULL) {
        list[count++] = "--bind";
        list[count++] = bind;
    }
    if (name != NULL) {
        list[count++] = "--token-name";
        list[count++] = name;
        list[count++] = "--token-file";
        list[count++] = file;
    }
    list[count++] = "a.b";
    list[count++] = "x";
    expect_list(list, code, parts);
}

static void test_tokens(void)
{
    char right[PATH_BYTES];
    char wrong[PATH_BYTES];
    char open_file[PATH_BYTES];
    char flag[PATH_BYTES + 32];
    write_file(test_path(right, "right.secret"), "0123456789abcdef0123456789abcdef\n");
    write_file(test_path(wrong, "wrong.secret"), "0123456789abcdef0123456789abcdee\n");
    write_file(test_path(open_file, "open.secret"), "0123456789abcdef0123456789abcdef\n");
    check(chmod(right, 0600) == 0 && chmod(wrong, 0600) == 0 && chmod(open_file, 0644) == 0,
          "chmod: %s", strerror(errno));
    snprintf(flag, sizeof(flag), "--tokens=feed=%s", right);
    struct broker broker;
    broker_start(&broker, (const char *const[]){flag, NULL});
    expect_pub(&broker, "feed", right, 0, PARTS(NULL));
    expect_pub(&broker, NULL, NULL, 1,
               PARTS("asks for a token", "RINGSIDE_TOKEN_NAME", "RINGSIDE_E_AUTH"));
    expect_pub(&broker, "feed", wrong, 1, PARTS("not right in name or secret", "RINGSIDE_E_AUTH"));
    expect_pub(&broker, "other", right, 1, PARTS("not right in name or secret", "RINGSIDE_E_AUTH"));
    expect_pub(&broker, "feed", open_file, 1, PARTS("others may read", "chmod 600"));
    expect_pub(&broker, "feed", "/nowhere/secret", 1, PARTS("/nowhere/secret", "No such file"));
    expect_pub(&broker, "feed", right, 0, PARTS(NULL));
    broker_await_counter(&broker, "broker.refused", NULL, 2);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");

    snprintf(flag, sizeof(flag), "--tokens=feed=%s", open_file);
    expect_broker_fails(2, "--listen=tcp://127.0.0.1:0", flag,
                        PARTS("open to other users", "chmod 600"));
}

/* ---- rights ------------------------------------------------------------------------------------
 */

static void connect_as_nobody(struct actor *self, void *arg)
{
    ringside_client_t *client = NULL;
    ringside_options_t used = {.struct_bytes = sizeof(used)};
    (void)arg;
    if (geteuid() == 0) {
        check(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0,
              "cannot become another user: %s", strerror(errno));
    }
    ringside_status_t status = ringside_connect(&client, self->broker->url, &used);
    check(status < 0, "could connect all the same");
    snprintf(self->shared->text, sizeof(self->shared->text), "%s: %s", ringside_status_name(status),
             ringside_last_error());
}

/* As root the broker's socket is reached by another user; without root, its folder is closed. */
static void test_rights(void)
{
    bool is_root = geteuid() == 0;
    struct broker broker;
    struct actor closed_folder;
    struct actor other_user;
    broker_start(&broker, NULL);
    check(chmod(test_folder(), is_root ? 0700 : 0) == 0, "chmod: %s", strerror(errno));
    actor_start(&closed_folder, "closed", &broker, connect_as_nobody, NULL);
    actor_join(&closed_folder);
    tell("%s", closed_folder.shared->text);
    check_text(closed_folder.shared->text, "RINGSIDE_E_PERMISSION");
    check_text(closed_folder.shared->text, "directory on the way may not be open to this user");
    check(chmod(test_folder(), 0755) == 0, "chmod: %s", strerror(errno));
    if (is_root) {
        actor_start(&other_user, "nobody", &broker, connect_as_nobody, NULL);
        actor_join(&other_user);
        tell("%s", other_user.shared->text);
        check_text(other_user.shared->text, "user id 65534");
        check_text(other_user.shared->text, "allowed_uids");
    }
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

/* ---- versions ----------------------------------------------------------------------------------
 */

struct greeting_record {
    struct rsi_record_header header;
    struct rsi_greeting greeting;
};
_Static_assert(sizeof(struct greeting_record) == RSI_RECORD_HEADER_BYTES + RSI_GREETING_BYTES,
               "no padding");

/* What a Ringside of another time would say. */
static struct greeting_record other_version(void)
{
    struct greeting_record record = {
        .header = {.kind = RSI_RECORD_GREETING, .bytes = RSI_GREETING_BYTES},
        .greeting = {.magic = RSI_WIRE_MAGIC, .version_min = 7, .version_max = 9, .nonce = 1}};
    return record;
}

static void receive_greeting(int fd, struct greeting_record *record)
{
    size_t bytes = 0;
    while (bytes < sizeof(*record)) {
        ssize_t count = recv(fd, (char *)record + bytes, sizeof(*record) - bytes, 0);
        check(count > 0, "%zu bytes came instead of a greeting", bytes);
        bytes += (size_t)count;
    }
}

static int loopback_socket(uint16_t port, bool do_listen, uint16_t *bound_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t address_bytes = sizeof(address);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval patience = {.tv_sec = HANG_S};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(fd >= 0, "socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (do_listen) {
        check(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0 &&
                  getsockname(fd, (struct sockaddr *)&address, &address_bytes) == 0,
              "listen: %s", strerror(errno));
    } else {
        check(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "connect: %s",
              strerror(errno));
    }
    *bound_port = ntohs(address.sin_port);
    return fd;
}

static void test_old_client(void)
{
    struct broker broker;
    struct greeting_record record = other_version();
    struct greeting_record answer;
    uint16_t port = 0;
    broker_start(&broker, NULL);
    int fd = loopback_socket((uint16_t)atoi(strrchr(broker.url, ':') + 1), false, &port);
    check(send(fd, &record, sizeof(record), 0) == (ssize_t)sizeof(record), "send: %s",
          strerror(errno));
    receive_greeting(fd, &answer);
    check(answer.greeting.magic == RSI_WIRE_MAGIC &&
              answer.greeting.version_min == RSI_WIRE_VERSION_MIN &&
              answer.greeting.version_max == RSI_WIRE_VERSION_MAX,
          "the broker answers with versions %u to %u", answer.greeting.version_min,
          answer.greeting.version_max);
    check(recv(fd, &answer, sizeof(answer), 0) == 0, "the broker does not close the connection");
    close(fd);
    await(strstr(read_file(broker.program.output_path), "versions 7 to 9") != NULL,
          "the broker's log does not name the versions");
    expect_pub(&broker, NULL, NULL, 0, PARTS(NULL));
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

static void test_old_broker(void)
{
    struct greeting_record record = other_version();
    struct greeting_record question;
    struct program program;
    char url[64];
    uint16_t port = 0;
    int listener = loopback_socket(0, true, &port);
    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", port);
    program_start(&program, "pub",
                  (const char *const[]){"ringside", "pub", "--url", url, "a", "x", NULL}, false);
    int fd = accept(listener, NULL, NULL);
    check(fd >= 0, "nobody connects: %s", strerror(errno));
    receive_greeting(fd, &question);
    check(send(fd, &record, sizeof(record), 0) == (ssize_t)sizeof(record), "send: %s",
          strerror(errno));
    int code = program_wait(&program);
    close(fd);
    close(listener);
    check(code == 1, "pub ended with %d", code);
    const char *text = read_file(program.output_path);
    tell("%.*s", (int)strcspn(text, "\n"), text);
    check_text(text, "versions 7 to 9");
    check_text(text, "this side 1 to 1");
    check_text(text, "upgrade");
    check_text(text, "RINGSIDE_E_VERSION");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"addresses", test_addresses, "tcp"},
        {"subjects and flags", test_subjects_and_flags, "tcp"},
        {"configuration file", test_configuration, "tcp"},
        {"starting a broker", test_starting, "tcp shm rdma"},
        {"no RDMA device", test_no_rdma_device, "tcp rdma"},
        {"no huge pages", test_huge_pages, "tcp shm"},
        {"tokens", test_tokens, "tcp shm rdma"},
        {"rights", test_rights, "shm"},
        {"client of another version", test_old_client, "tcp"},
        {"broker of another version", test_old_broker, "tcp"},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
