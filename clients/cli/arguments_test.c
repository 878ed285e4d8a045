/*
 * Design notes
 * - Each case is the whole program in a child process: what counts is the exit code and the text
 * that a user reads, not which function noticed.
 */
#include "core/testing.h"

#include "clients/cli/cli.h"

#include <fcntl.h>

enum { ARGUMENT_COUNT_MAX = 16, OUTPUT_BYTES = 65536 };

static char output[OUTPUT_BYTES];

/* Runs "ringside WORDS...", split at spaces; standard output and error end up in `output`. */
static int run(const char *words)
{
    char copy[512];
    char *argv[ARGUMENT_COUNT_MAX + 1] = {"ringside"};
    int argc = 1;
    snprintf(copy, sizeof(copy), "%s", words);
    char *rest = copy;
    for (char *word = strsep(&rest, " "); word != NULL && argc < ARGUMENT_COUNT_MAX;
         word = strsep(&rest, " ")) {
        argv[argc++] = word;
    }
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        unsetenv("RINGSIDE_URL");
        unsetenv("RINGSIDE_TOKEN");
        unsetenv("RINGSIDE_TOKEN_NAME");
        dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        alarm(20); /* a case that waits is a failure */
        exit(rsi_cli_main(words[0] == '\0' ? 1 : argc, argv));
    }
    close(ends[1]);
    size_t length = 0;
    for (;;) {
        ssize_t got = read(ends[0], output + length, sizeof(output) - 1 - length);
        if (got <= 0) {
            break;
        }
        length += (size_t)got;
    }
    close(ends[0]);
    output[length] = '\0';
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status)) {
        fail_msg("ringside %s was ended by signal %d", words, WTERMSIG(status));
    }
    return WEXITSTATUS(status);
}

static void assert_answer(const char *words, int expected_code, const char *first,
                          const char *second)
{
    int code = run(words);
    if (code != expected_code) {
        fail_msg("ringside %s: exit code %d, expected %d:\n%s", words, code, expected_code, output);
    }
    if (strstr(output, first) == NULL || strstr(output, second) == NULL) {
        fail_msg("ringside %s does not say '%s' and '%s':\n%s", words, first, second, output);
    }
}

static void help_and_version_succeed(void **state)
{
    (void)state;
    assert_answer("--help", RSI_EXIT_OK, "replay", "Exit codes");
    assert_answer("--version", RSI_EXIT_OK, "ringside", ".");
    for (size_t i = 0; i < rsi_command_count; i++) {
        char words[64];
        snprintf(words, sizeof(words), "%s --help", rsi_commands[i].name);
        bool connects = strcmp(rsi_commands[i].name, "feed") != 0;
        assert_answer(words, RSI_EXIT_OK, "Example", connects ? "--url" : "--seed");
    }
}

static void wrong_flags_name_the_flag_and_the_mend(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        const char *named;
        const char *mend;
    } cases[] = {
        {"", "usage", "pub"},
        {"pbu", "'pbu'", "--help"},
        {"pub", "SUBJECT", "md.XNAS.AAPL"},
        {"pub a.*", "a.*", "md.XNAS.AAPL"},
        {"pub a..b", "a..b", "md.XNAS.AAPL"},
        {"pub a x --rate fast", "--rate", "10k"},
        {"pub a x --rate 0", "--rate", "10k"},
        {"pub a x --count 0", "--count", "between"},
        {"pub a x --size 64", "MESSAGE", "--size"},
        {"pub a --input - --count 2", "--count", "--input"},
        {"pub a x --publish-ring 100KiB", "--publish-ring", "power of two"},
        {"pub a x --publish-ring 1KiB", "--publish-ring", "64 KiB"},
        {"pub a x --timeout 5", "--timeout", "ms"},
        {"pub a x --timeout 0", "--timeout", "5s"},
        {"pub a x --wait never", "never", "adaptive"},
        {"pub a x --cpu -1", "--cpu", "-1"},
        {"pub a x --token-name bob", "--token-name", "--token-file"},
        {"pub a x --token-file /dev/null", "--token-file", "--token-name"},
        {"pub a x --nonsense", "--nonsense", "--help"},
        {"pub a x --header trace", "'trace'", "NAME:VALUE"},
        {"pub a x --header :x", "empty", "NAME:VALUE"},
        {"pub a x --header caf\xc3\xa9:x", "byte 3", "NAME:VALUE"},
        {"sub", "PATTERN", "md.>"},
        {"sub a --raw --headers", "--raw", "--headers"},
        {"sub a.>.b", "a.>.b", "md.>"},
        {"sub a --policy sometimes", "sometimes", "disconnect"},
        {"sub a --raw --json", "--raw", "--json"},
        {"ping there", "there", "--subject"},
        {"ping --size 4", "--size", "8 B"},
        {"bench", "missing", "fanout"},
        {"bench speed", "speed", "throughput"},
        {"bench latency --subscribers 3", "--subscribers", "fanout"},
        {"bench latency --topics 5", "--topics", "throughput"},
        {"bench fanout --topics 65537", "--topics", "65536"},
        {"bench fanout --wildcards x", "--wildcards", "x"},
        {"bench fanout --burst 10", "--burst", "--rate"},
        {"bench fanout --rate 10k --burst 0", "--burst", "1"},
        {"bench latency --pin x", "--pin", "x"},
        {"bench fanout --dpdk-address 10.7.0.250/24", "10.7.0.250/24", "shorter prefix"},
        {"bench latency --pin 1023", "1023", "allowed set"},
        {"replay", "--template", "md.{dst}.{dport}"},
        {"replay -t a.{/x}", "FILE", "pcap"},
        {"replay x", "--template", "md.{dst}.{dport}"},
        {"replay x -t md.{dest}", "{dest}", "{dport}"},
        {"replay x y -t md.{dst}", "'y'", "FILE"},
        {"replay x -t md.{dst} --speed 0", "--speed", "0.5"},
        {"replay x -t md.{dst} --else a..b", "a..b", "--else"},
        {"feed x", "'x'", "--output"},
        {"feed --symbols 0", "--symbols", "100000"},
        {"verify a -t a.{/x}", "--file", "FILE"},
        {"verify --file x -t a.{/x}", "PATTERN", "md.>"},
        {"verify --file x -t a.{/x} a b", "'b'", "one PATTERN"},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        assert_answer(cases[i].words, RSI_EXIT_USAGE, cases[i].named, cases[i].mend);
    }
}

static void what_fails_later_names_the_thing(void **state)
{
    (void)state;
    assert_answer("pub a x --url tcp://127.0.0.1:1", RSI_EXIT_FAILURE, "tcp://127.0.0.1:1",
                  "start ringsided");
    assert_answer("pub a x --url foo://x", RSI_EXIT_FAILURE, "foo", "tcp");
    assert_answer("pub a x --cpu 1023", RSI_EXIT_FAILURE, "1023", "allowed set");
    assert_answer("pub a x --token-name n --token-file /nowhere/at.all", RSI_EXIT_FAILURE,
                  "--token-file", "/nowhere/at.all");
    assert_answer("pub a x --token-name n --token-file /", RSI_EXIT_FAILURE, "--token-file",
                  "directory");
    assert_answer("pub a --input /nowhere/at.all", RSI_EXIT_FAILURE, "--input", "/nowhere/at.all");
    assert_answer("replay /nowhere/at.all -t a.{/x}", RSI_EXIT_FAILURE, "/nowhere/at.all",
                  "No such file");
    assert_answer("replay - --loop 2 -t a.{/x}", RSI_EXIT_FAILURE, "--loop", "standard input");
    assert_answer("replay - -t a.{dst}", RSI_EXIT_FAILURE, "a.{dst}", "JSON pointer");
    assert_answer("verify --file /dev/null -t a.{/x} >", RSI_EXIT_FAILURE, "/dev/null",
                  "no message");
    assert_answer("bench latency --broker-pid 2147483647", RSI_EXIT_FAILURE, "--broker-pid",
                  "2147483647");
    assert_answer("feed --output /nowhere/at.all", RSI_EXIT_FAILURE, "/nowhere/at.all",
                  "No such file");
}

/* Cut to what fits, it would be refused as a wrong secret. */
static void a_secret_that_is_too_long_is_refused(void **state)
{
    (void)state;
    char path[] = "/tmp/ringside-secret-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (int i = 0; i < 256; i++) {
        assert_int_equal(write(fd, "x", 1), 1);
    }
    close(fd);
    char words[128];
    snprintf(words, sizeof(words), "pub a x --token-name n --token-file %s", path);
    assert_answer(words, RSI_EXIT_FAILURE, path, "longer than 255");
    unlink(path);
}

static void a_feed_needs_no_broker(void **state)
{
    (void)state;
    assert_int_equal(run("feed --messages 3 --symbols 2"), RSI_EXIT_OK);
    int line_count = 0;
    for (const char *at = output; *at != '\0'; at++) {
        line_count += *at == '\n';
    }
    assert_int_equal(line_count, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_and_version_succeed),
        cmocka_unit_test(wrong_flags_name_the_flag_and_the_mend),
        cmocka_unit_test(what_fails_later_names_the_thing),
        cmocka_unit_test(a_secret_that_is_too_long_is_refused),
        cmocka_unit_test(a_feed_needs_no_broker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
