/*
 * Design notes
 * - A test's process is the parent of all that the test starts, and all that ends when it does
 *   (PR_SET_PDEATHSIG): so a failing test needs no cleaning up, and a killed one leaves nothing.
 * - What failed is told by the process in which it failed; an actor's failure fails its test when
 *   the test next looks at it.
 * - What a condition waits for is looked at every two milliseconds: everything awaited here is the
 *   effect of another process, which has no way to signal this one.
 */
#include "tests/system/harness_internal.h"

#include "core/assert.h"
#include "core/clock.h"
#include "core/text.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct test_options options = {
    .transport = "tcp", .scale = 1, .seconds = 20, .limit_s = 480, .agent_count = 2, .seed = 1};

static char folder[PATH_BYTES];

/* ---- small things ------------------------------------------------------------------------------
 */

uint64_t now_ns(void)
{
    return rsi_clock_now_ns();
}

void nap(void)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    nanosleep(&pause, NULL);
}

uint64_t hang_ns(void)
{
    static const char *machine;
    if (machine == NULL) {
        machine = getenv("RINGSIDE_VM") != NULL ? "yes" : "";
    }
    return (machine[0] != '\0' ? 4 : 1) * HANG_S * SECOND_NS;
}

uint64_t random_next(uint64_t *state)
{
    uint64_t word = *state += UINT64_C(0x9e3779b97f4a7c15);
    word = (word ^ (word >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ (word >> 27)) * UINT64_C(0x94d049bb133111eb);
    return word ^ (word >> 31);
}

bool is_transport(const char *name)
{
    return strcmp(options.transport, name) == 0;
}

uint64_t scaled(uint64_t count, uint64_t lowest)
{
    uint64_t less = count / options.scale;
    return less > lowest ? less : lowest;
}

void tell(const char *format, ...)
{
    char line[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof(line), format, list);
    va_end(list);
    printf("        %s\n", line);
    fflush(stdout);
}

void test_fail(const char *file, int line, const char *format, ...)
{
    char text[4096];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    const char *who = rsi_actor_name();
    printf("        FAILED%s%s at %s:%d: %s\n", who != NULL ? " in " : "", who != NULL ? who : "",
           file, line, text);
    if (who == NULL) {
        rsi_programs_report();
    }
    fflush(stdout);
    _exit(1);
}

const char *test_folder(void)
{
    return folder;
}

const char *test_path(char *path, const char *name)
{
    int bytes = snprintf(path, PATH_BYTES, "%s/%s", folder, name);
    check(bytes < PATH_BYTES, "the path of %s is too long", name);
    return path;
}

void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    check(file != NULL, "cannot write %s: %s", path, strerror(errno));
    check(fputs(text, file) >= 0 && fclose(file) == 0, "cannot write %s: %s", path,
          strerror(errno));
}

const char *read_file(const char *path)
{
    static char text[TEXT_BYTES];
    text[0] = '\0';
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return text;
    }
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    return text;
}

/* ---- one test ----------------------------------------------------------------------------------
 */

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    return remove(path);
}

static void make_folder(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%s/ringside-system.XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(folder) == NULL) {
        fprintf(stderr, "cannot make %s: %s\n", folder, strerror(errno));
        exit(1);
    }
}

void rsi_die_with_parent(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(1);
    }
}

/* The exit status, or -1 when it had to be ended. */
static int await_test(pid_t pid)
{
    /* A recording's own length is its user's affair. */
    uint64_t deadline_ns =
        options.feed_recorded_pace ? UINT64_MAX : now_ns() + options.limit_s * SECOND_NS;
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (now_ns() > deadline_ns) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return -1;
        }
        nap();
    }
    return status;
}

static bool run_test(const struct system_test *test)
{
    uint64_t start_ns = now_ns();
    make_folder();
    fflush(NULL);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        rsi_die_with_parent(parent);
        test->run();
        rsi_programs_check_ended();
        fflush(stdout);
        _exit(0);
    }
    int status = pid < 0 ? -1 : await_test(pid);
    double seconds = (double)(now_ns() - start_ns) / 1e9;
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (status == 0) {
        printf("ok      %s: %s (%.1f s)\n", options.transport, test->name, seconds);
        return true;
    }
    if (status == -1) {
        printf("        did not end within %" PRIu64 " s\n", options.limit_s);
    } else if (WIFSIGNALED(status)) {
        printf("        ended by signal %d\n", WTERMSIG(status));
    }
    printf("FAILED  %s: %s (%.1f s)\n", options.transport, test->name, seconds);
    return false;
}

/* ---- the command line --------------------------------------------------------------------------
 */

static uint64_t number_option(const char *flag, const char *text, uint64_t low, uint64_t high)
{
    struct rsi_error error = {0};
    uint64_t number = 0;
    if (rsi_failed(rsi_parse_number(&number, text, low, high, &error))) {
        fprintf(stderr, "--%s: %s\n", flag, error.text);
        exit(2);
    }
    return number;
}

static void take_option(const char *name, const char *value)
{
    if (strcmp(name, "transport") == 0) {
        options.transport = value;
    } else if (strcmp(name, "scale") == 0) {
        options.scale = number_option(name, value, 1, 1000000);
    } else if (strcmp(name, "seconds") == 0) {
        options.seconds = number_option(name, value, 1, 600);
    } else if (strcmp(name, "count") == 0) {
        options.count = number_option(name, value, 1, 1000000);
    } else if (strcmp(name, "limit") == 0) {
        options.limit_s = number_option(name, value, 1, 86400);
    } else if (strcmp(name, "agents") == 0) {
        options.agent_count = (unsigned)number_option(name, value, 1, 8);
    } else if (strcmp(name, "only") == 0) {
        options.only = value;
    } else if (strcmp(name, "seed") == 0) {
        options.seed = number_option(name, value, 0, UINT64_MAX);
    } else if (strcmp(name, "file") == 0) {
        options.feed_path = value;
    } else if (strcmp(name, "template") == 0) {
        options.feed_template = value;
    } else if (strcmp(name, "else") == 0) {
        options.feed_else = value;
    } else if (strcmp(name, "recorded-pace") == 0) {
        options.feed_recorded_pace = true;
    }
}

static bool knows_transport(void)
{
    if (is_transport("dpdk") && !rsi_places_are_made()) {
        fprintf(stderr, "--transport dpdk needs ports: see tests/dpdk/run, tests/dpdk/switched\n");
        exit(2);
    }
    return is_transport("tcp") || is_transport("shm") || is_transport("rdma") ||
           is_transport("dpdk");
}

static void parse_options(int argc, char **argv)
{
    static const struct option flags[] = {
        {"transport", required_argument, NULL, 0},
        {"scale", required_argument, NULL, 0},
        {"seconds", required_argument, NULL, 0},
        {"count", required_argument, NULL, 0},
        {"limit", required_argument, NULL, 0},
        {"agents", required_argument, NULL, 0},
        {"only", required_argument, NULL, 0},
        {"seed", required_argument, NULL, 0},
        {"file", required_argument, NULL, 0},
        {"template", required_argument, NULL, 0},
        {"else", required_argument, NULL, 0},
        {"recorded-pace", no_argument, NULL, 0},
        {0},
    };
    int index = 0;
    int code;
    while ((code = getopt_long(argc, argv, "", flags, &index)) == 0) {
        take_option(flags[index].name, optarg);
    }
    if (code != -1 || optind != argc || !knows_transport()) {
        fprintf(stderr,
                "usage: %s [--transport tcp|shm|rdma|dpdk] [--scale N] [--agents K] [--seconds N]\n"
                "       [--count N] [--limit SECONDS] [--only NAME] [--seed N]\n"
                "       [--file FEED --template TEMPLATE [--else SUBJECT]"
                " [--recorded-pace]]\n",
                argv[0]);
        exit(2);
    }
}

static bool is_chosen(const struct system_test *test)
{
    if (options.only != NULL) {
        return strcmp(options.only, test->name) == 0;
    }
    return test->transports == NULL || strstr(test->transports, options.transport) != NULL;
}

int system_tests_main(int argc, char **argv, const struct system_test *tests, size_t count)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    parse_options(argc, argv);
    rsi_programs_init();
    printf("%s: transport %s, %u agent%s, scale 1/%" PRIu64 ", seed %" PRIu64 "\n",
           program_invocation_short_name, options.transport, options.agent_count,
           options.agent_count == 1 ? "" : "s", options.scale, options.seed);
    unsigned passed_count = 0;
    unsigned failed_count = 0;
    for (size_t index = 0; index < count; index++) {
        if (!is_chosen(&tests[index])) {
            continue;
        }
        if (run_test(&tests[index])) {
            passed_count++;
        } else {
            failed_count++;
        }
    }
    printf("%u passed, %u failed\n", passed_count, failed_count);
    /* A run without tests is a mistake in its flags. */
    return failed_count > 0 || passed_count == 0;
}
