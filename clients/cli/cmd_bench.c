/*
 * ringside bench: measures with processes of its own.
 *
 * Design notes
 * - The parent forks, waits until all are ready, starts them, shows figures, and adds up. It
 * connects to nothing itself.
 * - A worker dies with the parent (PR_SET_PDEATHSIG), and one that fails aborts the run: no process
 *   stays behind.
 */
#include "clients/cli/bench.h"

#include "clients/cli/cli.h"
#include "core/clock.h"
#include "core/cpu.h"
#include "core/text.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    KEY_SIZE = 0x4000,
    KEY_WARMUP,
    KEY_SUBSCRIBERS,
    KEY_RATE,
    KEY_BURST,
    KEY_PIN,
    KEY_BROKER_PID,
    KEY_HGRM,
    KEY_JSON,
    KEY_POLICY,
    KEY_TOPICS,
    KEY_WILDCARDS,
};

#define MESSAGE_SIZE_MAX (UINT64_C(128) << 20)
#define LOOK_NS          INT64_C(2000000) /* the parent looks so often */

struct bench {
    const struct rsi_bench_options *options;
    struct rsi_bench_shared *shared;
    size_t shared_bytes;
    pid_t pids[RSI_BENCH_SUBSCRIBER_COUNT_MAX + 1]; /* 0: ended */
    uint32_t failed_count;
    uint64_t broker_cpu_start_ns;
    struct rsi_bench_totals totals;
};

static const struct argp_option flags[] = {
    {"messages", 'n', "N", 0, "Messages that are measured. Default: 1000000, latency 100000", 0},
    {"warmup", KEY_WARMUP, "N", 0, "Messages before those. Default: a tenth of them", 0},
    {"size", KEY_SIZE, "SIZE", 0, "Payload, 24 bytes and more, such as 64 or 4KiB. Default: 64", 0},
    {"subscribers", KEY_SUBSCRIBERS, "N", 0, "fanout: subscribers, 1 to 1000. Default: 10", 0},
    {"topics", KEY_TOPICS, "N", 0,
     "Subjects that the publisher goes round, 1 to 65536. Default: 1. Not for round trips", 0},
    {"wildcards", KEY_WILDCARDS, "N", 0,
     "So many further subscriptions of each subscriber, one for each topic in turn: every message "
     "goes to all that match. Not for round trips",
     0},
    {"rate", KEY_RATE, "N/s", 0,
     "Open loop: publish at this rate, such as 10k, and measure from the intended time", 0},
    {"burst", KEY_BURST, "N", 0,
     "With --rate: publish N at once, then none until they are due. Default: 1", 0},
    {"policy", KEY_POLICY, "POLICY", 0,
     "drop, disconnect or block. Default: block, so that nothing may be lost", 0},
    {"pin", KEY_PIN, "LIST", 0,
     "CPUs such as 0,1 or 0-3: the first for the publisher, the next for the subscribers, in turn",
     0},
    {"broker-pid", KEY_BROKER_PID, "PID", 0,
     "Also tell the processor time of the broker on this host", 0},
    {"hgrm", KEY_HGRM, "FILE", 0, "Write the latencies (us) as HdrHistogram percentile text", 0},
    {"json", KEY_JSON, NULL, 0, "Print one JSON object", 0},
    {0},
};

static void read_kind(struct argp_state *state, struct rsi_bench_options *options, const char *text)
{
    static const char *const names[] = {"latency", "throughput", "fanout"};
    if (options->has_kind) {
        argp_error(state, "'%s' is one argument too many", text);
    }
    for (size_t i = 0; i < rsi_array_count(names); i++) {
        if (strcmp(names[i], text) == 0) {
            options->kind = (rsi_bench_kind_t)i;
            options->has_kind = true;
            return;
        }
    }
    argp_error(state, "'%s' is not measured here; use latency, throughput or fanout", text);
}

static void read_pins(struct argp_state *state, struct rsi_bench_options *options, const char *text)
{
    struct rsi_cpu_set set;
    struct rsi_cpu_set allowed;
    struct rsi_error error = {0};
    if (rsi_cpu_set_parse(&set, text, &error) != RSI_OK ||
        rsi_cpu_allowed(&allowed, &error) != RSI_OK) {
        argp_error(state, "--pin: %s", error.text);
    }
    options->pin_count = 0;
    for (int cpu = rsi_cpu_set_next(&set, 0); cpu >= 0;
         cpu = rsi_cpu_set_next(&set, (unsigned)cpu + 1)) {
        char list[256];
        if (!rsi_cpu_set_has(&allowed, (unsigned)cpu)) {
            argp_error(state, "--pin: cpu %d is outside the allowed set %s", cpu,
                       rsi_cpu_set_format(&allowed, list, sizeof(list)));
        }
        if (options->pin_count < RSI_BENCH_PIN_COUNT_MAX) {
            options->pins[options->pin_count++] = (unsigned)cpu;
        }
    }
    if (options->pin_count == 0) {
        argp_error(state, "--pin: '%s' names no CPU; write a list such as 0,1", text);
    }
}

static void finish_options(struct argp_state *state, struct rsi_bench_options *options)
{
    if (!options->has_kind) {
        argp_error(state, "what to measure is missing; use latency, throughput or fanout");
    }
    if (options->kind != RSI_BENCH_FANOUT && options->subscriber_count != 0) {
        argp_error(state, "--subscribers goes with fanout only");
    }
    bool has_subjects = options->topic_count > 1 || options->wildcard_count > 0;
    if (has_subjects && rsi_bench_is_closed_loop(options)) {
        argp_error(state,
                   "--topics and --wildcards go with throughput, fanout, and latency --rate");
    }
    if (options->burst_count != 0 && options->rate_per_second <= 0) {
        argp_error(state, "--burst goes with --rate");
    }
    if (options->burst_count == 0) {
        options->burst_count = 1;
    }
    if (options->subscriber_count == 0) {
        options->subscriber_count = options->kind == RSI_BENCH_FANOUT ? 10 : 1;
    }
    if (options->message_count == 0) {
        options->message_count = options->kind == RSI_BENCH_LATENCY ? 100000 : 1000000;
    }
    if (options->warmup_count == UINT64_MAX) {
        options->warmup_count = options->message_count / 10;
    }
    struct rsi_error error = {0};
    uint32_t process_count = (uint32_t)options->subscriber_count + 1;
    if (!rsi_bench_device_check(&options->connection.dpdk, process_count, &error)) {
        argp_error(state, "--dpdk-address: %s", error.text);
    }
}

static void read_policy(struct argp_state *state, struct rsi_bench_options *options,
                        const char *text)
{
    if (strcmp(text, "drop") == 0) {
        options->policy = RINGSIDE_POLICY_DROP;
    } else if (strcmp(text, "disconnect") == 0) {
        options->policy = RINGSIDE_POLICY_DISCONNECT;
    } else if (strcmp(text, "block") == 0) {
        options->policy = RINGSIDE_POLICY_BLOCK;
    } else {
        argp_error(state, "--policy: '%s' is not known; use drop, disconnect or block", text);
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct rsi_bench_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options->warmup_count = UINT64_MAX;
        options->size_bytes = 64;
        options->topic_count = 1;
        options->policy = RINGSIDE_POLICY_BLOCK;
        state->child_inputs[0] = &options->connection;
        return 0;
    case 'n':
        options->message_count = rsi_flag_number(state, "--messages", arg, 1, UINT32_MAX);
        return 0;
    case KEY_WARMUP:
        options->warmup_count = rsi_flag_number(state, "--warmup", arg, 0, UINT32_MAX);
        return 0;
    case KEY_SIZE:
        options->size_bytes =
            rsi_flag_size(state, "--size", arg, RSI_BENCH_HEADER_BYTES, MESSAGE_SIZE_MAX);
        return 0;
    case KEY_SUBSCRIBERS:
        options->subscriber_count =
            rsi_flag_number(state, "--subscribers", arg, 1, RSI_BENCH_SUBSCRIBER_COUNT_MAX);
        return 0;
    case KEY_TOPICS:
        options->topic_count =
            rsi_flag_number(state, "--topics", arg, 1, RSI_BENCH_TOPIC_COUNT_MAX);
        return 0;
    case KEY_WILDCARDS:
        options->wildcard_count =
            rsi_flag_number(state, "--wildcards", arg, 0, RSI_BENCH_WILDCARD_COUNT_MAX);
        return 0;
    case KEY_RATE:
        options->rate_per_second = rsi_flag_rate(state, "--rate", arg);
        return 0;
    case KEY_BURST:
        options->burst_count = rsi_flag_number(state, "--burst", arg, 1, UINT32_MAX);
        return 0;
    case KEY_POLICY:
        read_policy(state, options, arg);
        return 0;
    case KEY_PIN:
        read_pins(state, options, arg);
        return 0;
    case KEY_BROKER_PID:
        options->broker_pid = (pid_t)rsi_flag_number(state, "--broker-pid", arg, 1, INT32_MAX);
        return 0;
    case KEY_HGRM:
        options->hgrm_path = arg;
        return 0;
    case KEY_JSON:
        options->is_json = true;
        return 0;
    case ARGP_KEY_ARG:
        read_kind(state, options, arg);
        return 0;
    case ARGP_KEY_END:
        finish_options(state, options);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = flags,
    .parser = parse,
    .children = rsi_connection_children,
    .args_doc = "latency|throughput|fanout",
    .doc =
        "Measures through a running broker, with a process for each publisher and subscriber. "
        "latency: round trips between two processes, or with --rate one way at a fixed rate. "
        "throughput: one publisher, one subscriber. fanout: one publisher, many subscribers. Every "
        "message is checked; exit code 1 when any is lost, doubled, out of order or corrupt. Over "
        "dpdk:// the publisher has --dpdk-address, and each subscriber one of those after it; a % "
        "in --dpdk-port and --dpdk-mac becomes the number of the process, from 0, so that each may "
        "have a device of its own.\v"
        "Examples:\n"
        "  ringside bench latency --wait busy --pin 0,1\n"
        "  ringside bench latency --rate 10k --messages 200000\n"
        "  ringside bench throughput --topics 10000 --wildcards 1000\n"
        "  ringside bench fanout --subscribers 50 --broker-pid $(pidof ringsided)",
};

/* ---- processor time of the broker ---------------------------------------------------------------
 */

static bool read_thread_cpu(const char *pid_text, const char *thread, uint64_t *cpu_ns)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%s/task/%.16s/schedstat", pid_text, thread);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    bool is_read = fscanf(file, "%" SCNu64, cpu_ns) == 1;
    fclose(file);
    return is_read;
}

/* All threads together. False: no such process. */
static bool read_process_cpu(pid_t pid, uint64_t *cpu_ns)
{
    char pid_text[16];
    char path[64];
    snprintf(pid_text, sizeof(pid_text), "%d", (int)pid);
    snprintf(path, sizeof(path), "/proc/%s/task", pid_text);
    DIR *threads = opendir(path);
    if (threads == NULL) {
        return false;
    }
    uint64_t sum_ns = 0;
    for (struct dirent *entry = readdir(threads); entry != NULL; entry = readdir(threads)) {
        uint64_t thread_ns = 0;
        if (entry->d_name[0] != '.' && read_thread_cpu(pid_text, entry->d_name, &thread_ns)) {
            sum_ns += thread_ns;
        }
    }
    closedir(threads);
    *cpu_ns = sum_ns;
    return true;
}

/* ---- processes ----------------------------------------------------------------------------------
 */

static int start_workers(struct bench *bench)
{
    pid_t parent = getpid();
    fflush(NULL);
    for (uint32_t i = 0; i < bench->shared->worker_count; i++) {
        pid_t pid = fork();
        if (pid < 0) {
            rsi_store_relaxed(&bench->shared->is_aborted, 1u);
            return rsi_cli_fail("cannot start process %u: %s", i, strerror(errno));
        }
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGTERM);
            if (getppid() != parent) {
                _exit(RSI_EXIT_FAILURE);
            }
            _exit(rsi_bench_work(bench->options, bench->shared, i));
        }
        bench->pids[i] = pid;
    }
    return RSI_EXIT_OK;
}

/* How many are in `state` or beyond. */
static uint32_t count_state(const struct bench *bench, rsi_bench_state_t state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < bench->shared->worker_count; i++) {
        count += rsi_load_acquire(&bench->shared->workers[i].state) >= (uint32_t)state;
    }
    return count;
}

/* Takes ended workers; one that failed aborts the others. Returns how many live. */
static uint32_t reap(struct bench *bench)
{
    uint32_t live_count = 0;
    for (uint32_t i = 0; i < bench->shared->worker_count; i++) {
        int status = 0;
        if (bench->pids[i] == 0) {
            continue;
        }
        if (waitpid(bench->pids[i], &status, WNOHANG) == 0) {
            live_count++;
            continue;
        }
        bench->pids[i] = 0;
        if (WIFSIGNALED(status)) {
            rsi_cli_fail("process %u was ended by signal %d", i, WTERMSIG(status));
        }
        if (!WIFEXITED(status) || WEXITSTATUS(status) != RSI_EXIT_OK) {
            bench->failed_count++;
        }
    }
    if (bench->failed_count > 0 || rsi_stop_requested()) {
        rsi_store_relaxed(&bench->shared->is_aborted, 1u);
    }
    return live_count;
}

static void show_progress(struct bench *bench, struct rsi_progress *progress)
{
    uint64_t lowest_count = UINT64_MAX;
    uint64_t total_count = bench->options->message_count + bench->options->warmup_count;
    for (uint32_t i = 1; i < bench->shared->worker_count; i++) {
        uint64_t count = rsi_load_relaxed(&bench->shared->workers[i].live_count);
        lowest_count = count < lowest_count ? count : lowest_count;
    }
    if (rsi_bench_is_closed_loop(bench->options)) {
        lowest_count = rsi_load_relaxed(&bench->shared->workers[0].live_count);
    }
    rsi_progress_show(progress, "%s of %s messages", rsi_figure_count((double)lowest_count).text,
                      rsi_figure_count((double)total_count).text);
}

/* From the start of the processes to the end of the last. */
static void run_workers(struct bench *bench)
{
    const struct timespec pause = {.tv_nsec = LOOK_NS};
    struct rsi_progress progress;
    rsi_progress_init(&progress, rsi_clock_now_ns());
    bool is_started = false;
    while (reap(bench) > 0) {
        if (!is_started && count_state(bench, RSI_BENCH_READY) == bench->shared->worker_count) {
            is_started = true;
            if (bench->options->broker_pid != 0) {
                bench->totals.has_broker_cpu =
                    read_process_cpu(bench->options->broker_pid, &bench->broker_cpu_start_ns);
            }
            /* Pairs with the acquire in wait_for_start(). */
            rsi_store_release(&bench->shared->is_started, 1u);
        }
        if (rsi_progress_is_due(&progress, rsi_clock_now_ns())) {
            show_progress(bench, &progress);
        }
        nanosleep(&pause, NULL);
    }
    uint64_t broker_cpu_ns = 0;
    if (bench->totals.has_broker_cpu &&
        read_process_cpu(bench->options->broker_pid, &broker_cpu_ns)) {
        bench->totals.broker_cpu_ns = broker_cpu_ns - bench->broker_cpu_start_ns;
    }
    rsi_progress_end(&progress);
}

static int write_hgrm(const struct bench *bench)
{
    const char *path = bench->options->hgrm_path;
    FILE *file = fopen(path, "we");
    if (file == NULL) {
        return rsi_cli_fail("--hgrm: cannot write %s: %s", path, strerror(errno));
    }
    rsi_histogram_write(&bench->totals.latency, file, 5, 1000.0);
    bool is_bad = ferror(file) != 0;
    if (fclose(file) != 0 || is_bad) {
        return rsi_cli_fail("--hgrm: cannot write %s: %s", path, strerror(errno));
    }
    return RSI_EXIT_OK;
}

static int report(struct bench *bench)
{
    if (rsi_stop_requested()) {
        return rsi_cli_fail("interrupted; there is no result");
    }
    if (bench->failed_count > 0) {
        return rsi_cli_fail("%u of %u processes failed; there is no result", bench->failed_count,
                            bench->shared->worker_count);
    }
    rsi_bench_add_up(bench->options, bench->shared, &bench->totals);
    if (bench->options->is_json) {
        rsi_bench_print_json(stdout, bench->options, bench->shared, &bench->totals);
    } else {
        rsi_bench_print(stdout, bench->options, bench->shared, &bench->totals);
    }
    int code = bench->options->hgrm_path != NULL ? write_hgrm(bench) : RSI_EXIT_OK;
    if (!rsi_bench_is_clean(&bench->totals)) {
        code = rsi_cli_fail("messages were lost, doubled, out of order or corrupt");
    }
    return code;
}

int rsi_command_bench(int argc, char **argv)
{
    static struct rsi_bench_options options;
    static struct bench bench;
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    if (options.broker_pid != 0 && !read_process_cpu(options.broker_pid, &(uint64_t){0})) {
        return rsi_cli_fail("--broker-pid: no process %d on this host", (int)options.broker_pid);
    }
    rsi_stop_on_signals();
    uint32_t worker_count = (uint32_t)options.subscriber_count + 1;
    bench.options = &options;
    bench.shared_bytes = sizeof(*bench.shared) + worker_count * sizeof(bench.shared->workers[0]);
    bench.shared =
        mmap(NULL, bench.shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bench.shared == MAP_FAILED) {
        return rsi_cli_fail("no memory for %u processes: %s", worker_count, strerror(errno));
    }
    bench.shared->worker_count = worker_count;
    bench.shared->run_id = (uint32_t)getpid();
    int code = start_workers(&bench);
    run_workers(&bench);
    if (code == RSI_EXIT_OK) {
        code = report(&bench);
    }
    munmap(bench.shared, bench.shared_bytes);
    return code;
}
