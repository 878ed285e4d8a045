/*
 * The examples do what they say: those that end by themselves are run against a broker. Which of
 * them were built, the build says.
 */
#include "tests/system/harness.h"

static void run_example(const char *name, const char *last_line)
{
    static char output[TEXT_BYTES];
    struct broker broker;
    broker_start(&broker, NULL);
    int code = run_command((const char *const[]){name, broker.url, NULL}, output, sizeof(output));
    check(code == 0, "%s ended with %d: %s", name, code, output);
    check_text(output, last_line);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

static void run_if_built(const char *name, const char *last_line)
{
    char padded[64];
    snprintf(padded, sizeof(padded), " %s ", name);
    if (strstr(RSI_EXAMPLES, padded) == NULL) {
        tell("%s was not built: the library or the compiler for it is missing", name);
        return;
    }
    run_example(name, last_line);
}

static void test_publish(void)
{
    run_example("example_publish", "asked for by the URL");
}

static void test_epoll(void)
{
    run_example("example_loop_epoll", "message 10\n");
}

static void test_uv(void)
{
    run_if_built("example_loop_uv", "message 10\n");
}

static void test_ev(void)
{
    run_if_built("example_loop_ev", "message 10\n");
}

static void test_gxx(void)
{
    run_if_built("example_cplusplus_g++", "hello from C++\n");
}

static void test_clangxx(void)
{
    run_if_built("example_cplusplus_clang++", "hello from C++\n");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"publish", test_publish, "tcp shm"}, {"epoll", test_epoll, "tcp shm"},
        {"libuv", test_uv, "tcp shm"},        {"libev", test_ev, "tcp shm"},
        {"C++, g++", test_gxx, "tcp shm"},    {"C++, clang++", test_clangxx, "tcp shm"},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
