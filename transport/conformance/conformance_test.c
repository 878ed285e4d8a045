/*
 * The conformance suite: every case against one transport.
 *
 *     conformance_test --transport NAME [--listen URL] [--dial URL] [--bind HOST] [--seed N]
 *                      [--threads 1|2] [--filter TEXT] [--scale FACTOR] [--dpdk-port TEXT]
 *                      [--dpdk-dial-port TEXT] [--verbose]
 *
 * Prints a line per case (name, ok or FAILED, time) and at the end "N passed, N failed". Exit
 * status 0: none failed, 1: some did, 2: wrong arguments.
 *
 * Design notes
 * - The parent does nothing but fork a child per case and wait for it, so that a case that crashes
 *   or hangs ends alone, and so that no transport is initialised before a fork.
 * - A child that has not ended after CASE_LIMIT_NS is killed, by its id.
 */
#include "transport/conformance/harness.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/text.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CASE_LIMIT_NS  UINT64_C(240000000000)
#define EXIT_BAD_USAGE 2

static const struct conform_case *const case_tables[] = {
    conform_connect_cases, conform_control_cases, conform_data_cases,   conform_batch_cases,
    conform_wake_cases,    conform_close_cases,   conform_resume_cases,
};

static void usage(void)
{
    fprintf(stderr,
            "usage: conformance_test --transport NAME [--listen URL] [--dial URL] "
            "[--bind HOST]\n"
            "                        [--seed N] [--threads 1|2] [--filter TEXT] "
            "[--scale FACTOR]\n"
            "                        [--dpdk-port TEXT] [--dpdk-dial-port TEXT] [--verbose]\n"
            "  --listen   all but rdma have a default; rdma needs rdma://HOST:0\n"
            "  --dpdk-port  virtual:NAME, fault:drop=1000,seed=1;virtual:NAME, or a device\n"
            "  --dpdk-dial-port  who dials has another port than who listens\n"
            "  --dial     if it is not what the listener says\n"
            "  --bind     source address for dialling (also --dial-bind)\n"
            "  --filter   only cases whose name contains TEXT\n"
            "  --scale    of the counts of long cases; 1 is the full length\n");
}

/* Waits for a case's process; returns its wait status. */
static int wait_for_child(pid_t child)
{
    uint64_t deadline_ns = rsi_clock_now_ns() + CASE_LIMIT_NS;
    int status = 0;
    bool is_killed = false;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (!is_killed && rsi_clock_now_ns() > deadline_ns) {
            fprintf(stderr, "  the case has not ended after %" PRIu64 " s: killed\n",
                    (uint64_t)(CASE_LIMIT_NS / 1000000000));
            kill(child, SIGKILL);
            is_killed = true;
        }
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    return status;
}

static bool run_case(const struct conform_case *test, const struct conform_options *options)
{
    uint64_t start_ns = rsi_clock_now_ns();
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        return false;
    }
    if (child == 0) {
        static struct conform conform;
        conform.options = options;
        conform.transport = options->transport;
        conform.random = options->seed;
        test->run(&conform);
        exit(EXIT_SUCCESS);
    }
    int status = wait_for_child(child);
    bool is_ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (WIFSIGNALED(status)) {
        fprintf(stderr, "  ended by signal %d (%s)\n", WTERMSIG(status),
                strsignal(WTERMSIG(status)));
    }
    printf("%-44s %-6s %6" PRIu64 " ms\n", test->name, is_ok ? "ok" : "FAILED",
           (rsi_clock_now_ns() - start_ns) / 1000000);
    return is_ok;
}

static int run_all(const struct conform_options *options)
{
    uint32_t passed_count = 0;
    uint32_t failed_count = 0;
    printf("transport %s, listen %s, seed %" PRIu64 ", %u thread(s)\n", options->transport->name,
           options->listen_url, options->seed, options->thread_count);
    for (uint32_t i = 0; i < rsi_array_count(case_tables); i++) {
        for (const struct conform_case *test = case_tables[i]; test->name != NULL; test++) {
            bool fits_threads = (test->thread_counts & options->thread_count) != 0;
            bool is_wanted = options->filter == NULL || strstr(test->name, options->filter) != NULL;
            if (!fits_threads || !is_wanted) {
                continue;
            }
            if (run_case(test, options)) {
                passed_count++;
            } else {
                failed_count++;
            }
        }
    }
    printf("%u passed, %u failed\n", passed_count, failed_count);
    return failed_count == 0 && passed_count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* 0: fine. */
static int parse_arguments(int argc, char **argv, struct conform_options *options)
{
    static const struct option names[] = {
        {"transport", required_argument, NULL, 't'},
        {"listen", required_argument, NULL, 'l'},
        {"dial", required_argument, NULL, 'd'},
        {"bind", required_argument, NULL, 'b'},
        {"dial-bind", required_argument, NULL, 'b'},
        {"dpdk-port", required_argument, NULL, 'p'},
        {"dpdk-dial-port", required_argument, NULL, 'q'},
        {"seed", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 'n'},
        {"filter", required_argument, NULL, 'f'},
        {"scale", required_argument, NULL, 'c'},
        {"verbose", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    uint64_t threads = 1;
    struct rsi_error error = {0};
    rsi_status_t status = RSI_OK;
    int letter;
    while (status == RSI_OK && (letter = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (letter) {
        case 't':
            options->transport = rsi_transport_find(optarg);
            if (options->transport == NULL) {
                fprintf(stderr, "transport '%s' is not in this build\n", optarg);
                return EXIT_BAD_USAGE;
            }
            break;
        case 'l':
            options->listen_url = optarg;
            break;
        case 'd':
            options->dial_url = optarg;
            break;
        case 'b':
            options->bind_host = optarg;
            break;
        case 'p':
            options->dpdk_port = optarg;
            break;
        case 'q':
            options->dpdk_dial_port = optarg;
            break;
        case 's':
            status = rsi_parse_number(&options->seed, optarg, 0, UINT64_MAX, &error);
            break;
        case 'n':
            status = rsi_parse_number(&threads, optarg, 1, 2, &error);
            break;
        case 'f':
            options->filter = optarg;
            break;
        case 'c':
            options->scale = strtod(optarg, NULL);
            break;
        case 'v':
            options->is_verbose = true;
            break;
        default:
            return EXIT_BAD_USAGE;
        }
    }
    if (status != RSI_OK) {
        fprintf(stderr, "%s\n", error.text);
        return EXIT_BAD_USAGE;
    }
    options->thread_count = (uint32_t)threads;
    return options->transport == NULL || optind != argc ? EXIT_BAD_USAGE : 0;
}

/* A listen URL where none was given; shm gets a socket in `directory`. NULL: there is no default.
 */
static const char *default_listen_url(const char *transport, const char *directory)
{
    static char url[128];
    if (strcmp(transport, "tcp") == 0) {
        return "tcp://127.0.0.1:0";
    }
    if (strcmp(transport, "sim") == 0) {
        return "sim://conformance";
    }
    if (strcmp(transport, "dpdk") == 0) {
        return "dpdk://10.7.0.1:0";
    }
    if (strcmp(transport, "shm") == 0) {
        snprintf(url, sizeof(url), "shm://%s/socket", directory);
        return url;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct conform_options options = {.scale = 1.0, .seed = 1, .dpdk_port = "virtual:conformance"};
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (parse_arguments(argc, argv, &options) != 0) {
        usage();
        return EXIT_BAD_USAGE;
    }
    rsi_log_set_level(options.is_verbose ? RSI_LOG_DEBUG : RSI_LOG_WARNING);
    char directory[] = "/tmp/ringside-conformance-XXXXXX";
    if (mkdtemp(directory) == NULL) {
        perror(directory);
        return EXIT_FAILURE;
    }
    options.directory = directory;
    if (options.listen_url == NULL) {
        options.listen_url = default_listen_url(options.transport->name, directory);
    }
    int result = EXIT_BAD_USAGE;
    if (options.listen_url == NULL) {
        usage();
    } else {
        result = run_all(&options);
    }
    static const char *const socket_names[] = {"socket", "another"};
    for (uint32_t i = 0; i < rsi_array_count(socket_names); i++) { /* left by cases that failed */
        char path[sizeof(directory) + 16];
        snprintf(path, sizeof(path), "%s/%s", directory, socket_names[i]);
        (void)unlink(path);
    }
    (void)rmdir(directory);
    return result;
}
