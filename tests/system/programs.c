/*
 * Design notes
 * - Programs are forked and executed, not spawned: only so they can ask to die with the test.
 * - Each writes into a file of the test's folder; a failing test prints the ends of all of them.
 * - A broker's counters are read from its counters file, as any tool would.
 */
#include "core/counters.h"
#include "tests/system/harness_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROGRAM_COUNT_MAX = 64, REPORT_BYTES = 3000 };

static char bin_folder[PATH_BYTES];
static struct program *programs[PROGRAM_COUNT_MAX];
static size_t program_count;
static const struct broker *brokers[8];
static size_t broker_count;
static unsigned started_count;

void rsi_programs_init(void)
{
    char path[PATH_BYTES];
    ssize_t bytes = readlink("/proc/self/exe", path, sizeof(path) - 1);
    check(bytes > 0, "cannot read /proc/self/exe: %s", strerror(errno));
    path[bytes] = '\0';
    snprintf(bin_folder, sizeof(bin_folder), "%s", dirname(path));
}

bool test_library(char *path, const char *name)
{
    int bytes = snprintf(path, PATH_BYTES, "%s/%s", bin_folder, name);
    return bytes < PATH_BYTES && access(path, R_OK) == 0;
}

/* ---- programs ----------------------------------------------------------------------------------
 */

static _Noreturn void execute(const char *const *arguments, const char *output_path, int ready_fd)
{
    char path[2 * PATH_BYTES];
    char ready_flag[32];
    const char *list[ARGUMENT_COUNT_MAX + 2];
    size_t count = 0;
    for (; arguments[count] != NULL && count < ARGUMENT_COUNT_MAX; count++) {
        list[count] = arguments[count];
    }
    if (ready_fd >= 0) {
        snprintf(ready_flag, sizeof(ready_flag), "--ready-fd=%d", ready_fd);
        list[count++] = ready_flag;
    }
    list[count] = NULL;
    snprintf(path, sizeof(path), "%s%s%s", arguments[0][0] == '/' ? "" : bin_folder,
             arguments[0][0] == '/' ? "" : "/", arguments[0]);
    int output_fd = open(output_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int input_fd = open("/dev/null", O_RDONLY);
    if (output_fd < 0 || input_fd < 0 || dup2(output_fd, 1) < 0 || dup2(output_fd, 2) < 0 ||
        dup2(input_fd, 0) < 0) {
        _exit(126);
    }
    execv(path, (char *const *)(uintptr_t)list);
    dprintf(2, "cannot run %s: %s\n", path, strerror(errno));
    _exit(127);
}

/* The broker's place among those of the test. */
static size_t index_of(const struct program *program)
{
    size_t index = 0;
    while (index < broker_count && &brokers[index]->program != program) {
        index++;
    }
    return index;
}

static void enter_place(const struct program *program)
{
    size_t index = index_of(program);
    if (is_transport("dpdk")) {
        index < broker_count ? rsi_places_enter_broker(index) : rsi_places_enter_client();
    }
}

void program_start(struct program *program, const char *name, const char *const *arguments,
                   bool has_ready_fd)
{
    int ready[2] = {-1, -1};
    memset(program, 0, sizeof(*program));
    snprintf(program->name, sizeof(program->name), "%s", name);
    char file[64];
    snprintf(file, sizeof(file), "%.32s-%u.output", name, started_count++);
    test_path(program->output_path, file);
    check(!has_ready_fd || pipe2(ready, O_CLOEXEC) == 0, "pipe: %s", strerror(errno));
    check(program_count < PROGRAM_COUNT_MAX, "too many programs in one test");
    fflush(NULL);
    pid_t parent = getpid();
    program->pid = fork();
    check(program->pid >= 0, "fork: %s", strerror(errno));
    if (program->pid == 0) {
        rsi_die_with_parent(parent);
        if (has_ready_fd) {
            fcntl(ready[1], F_SETFD, 0);
        }
        enter_place(program);
        execute(arguments, program->output_path, ready[1]);
    }
    if (has_ready_fd) {
        close(ready[1]);
    }
    program->ready_fd = ready[0];
    programs[program_count++] = program;
}

void program_await_ready(struct program *program, char *text, size_t text_bytes)
{
    size_t bytes = 0;
    uint64_t deadline_ns = now_ns() + hang_ns();
    for (;;) {
        struct pollfd poll_fd = {.fd = program->ready_fd, .events = POLLIN};
        check(now_ns() < deadline_ns, "%s is not ready", program->name);
        if (poll(&poll_fd, 1, 100) <= 0) {
            continue;
        }
        ssize_t count = read(program->ready_fd, text + bytes, text_bytes - 1 - bytes);
        check(count >= 0, "reading the ready descriptor of %s: %s", program->name, strerror(errno));
        if (count == 0) {
            break;
        }
        bytes += (size_t)count;
        /* A broker closes it after its URLs, which may be several lines. */
        if (memchr(text, '\n', bytes) != NULL && strcmp(program->name, "broker") != 0) {
            break;
        }
    }
    text[bytes] = '\0';
    check(bytes > 0, "%s ended before it was ready, with code %d", program->name,
          program_wait(program));
    close(program->ready_fd);
    program->ready_fd = -1;
}

static void forget(struct program *program)
{
    program->pid = 0;
    for (size_t index = 0; index < program_count; index++) {
        if (programs[index] == program) {
            programs[index] = programs[--program_count];
        }
    }
}

static int code_of(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int program_wait(struct program *program)
{
    int status = 0;
    await(waitpid(program->pid, &status, WNOHANG) != 0, "%s (pid %d) does not end", program->name,
          (int)program->pid);
    forget(program);
    return code_of(status);
}

bool program_has_ended(const struct program *program)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)program->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid != 0;
}

void program_signal(const struct program *program, int number)
{
    check(kill(program->pid, number) == 0, "kill %s: %s", program->name, strerror(errno));
}

int run_command(const char *const *arguments, char *output, size_t output_bytes)
{
    struct program program;
    program_start(&program, "command", arguments, false);
    int code = program_wait(&program);
    snprintf(output, output_bytes, "%s", read_file(program.output_path));
    unlink(program.output_path); /* the caller has it; a report is not to repeat it */
    return code;
}

/* ---- reports -----------------------------------------------------------------------------------
 */

static void print_tail(const char *title, const char *text)
{
    size_t bytes = strlen(text);
    const char *at = bytes > REPORT_BYTES ? text + bytes - REPORT_BYTES : text;
    printf("        -- %s\n", title);
    for (; *at != '\0'; at += strcspn(at, "\n"), at += *at == '\n') {
        printf("        | %.*s\n", (int)strcspn(at, "\n"), at);
    }
}

static void print_counters(const struct broker *broker)
{
    struct rsi_counters_reader *reader = NULL;
    struct rsi_error error = {0};
    if (rsi_failed(rsi_counters_open(&reader, broker->counters_path, &error))) {
        printf("        -- no counters: %s\n", error.text);
        return;
    }
    printf("        -- counters of the broker that are not 0\n");
    struct rsi_counter_view view;
    uint32_t cursor = 0;
    while (rsi_counters_next(reader, &cursor, &view)) {
        if (view.kind == RSI_COUNTER_KIND_TEXT) {
            printf("        | %s %s: %s\n", view.name, view.label, view.text);
        } else if (view.value != 0) {
            printf("        | %s %s: %" PRIu64 "\n", view.name, view.label, view.value);
        }
    }
    rsi_counters_close(reader);
}

void rsi_programs_report(void)
{
    for (size_t index = 0; index < broker_count; index++) {
        if (brokers[index]->program.pid != 0) {
            print_counters(brokers[index]);
        }
    }
    DIR *files = opendir(test_folder());
    const struct dirent *file;
    while (files != NULL && (file = readdir(files)) != NULL) {
        char path[PATH_BYTES];
        if (strstr(file->d_name, ".output") == NULL) {
            continue;
        }
        test_path(path, file->d_name);
        if (read_file(path)[0] != '\0') {
            print_tail(file->d_name, read_file(path));
        }
    }
    if (files != NULL) {
        closedir(files);
    }
}

void rsi_programs_check_ended(void)
{
    for (size_t index = 0; index < program_count; index++) {
        check(false, "the test left %s running", programs[index]->name);
    }
}

/* ---- brokers -----------------------------------------------------------------------------------
 */

static void listen_url(char *url)
{
    const char *machine_host = getenv("RINGSIDE_VM_ADDR_A");
    char path[PATH_BYTES];
    char name[32];
    snprintf(name, sizeof(name), "broker%zu.sock", broker_count);
    if (is_transport("shm")) {
        snprintf(url, 2 * PATH_BYTES, "--listen=shm://%s", test_path(path, name));
    } else {
        const char *host = "127.0.0.1";
        if (is_transport("rdma") && machine_host != NULL) {
            host = machine_host;
        } else if (is_transport("dpdk")) {
            host = rsi_places_broker_host(broker_count);
        }
        snprintf(url, 2 * PATH_BYTES, "--listen=%s://%s:0", options.transport, host);
    }
}

static void run_broker(struct broker *broker, const char *listen, const char *const *extra_flags)
{
    char agents[32];
    char walk_seed[64];
    char counters[PATH_BYTES + 32];
    const char *arguments[ARGUMENT_COUNT_MAX] = {"ringsided", listen, agents, walk_seed, counters};
    size_t count = 5;
    snprintf(agents, sizeof(agents), "--agents=%u", options.agent_count);
    /* Nothing may lean on more order than is promised. */
    snprintf(walk_seed, sizeof(walk_seed), "--walk-seed=%" PRIu64, options.seed & UINT32_MAX);
    snprintf(counters, sizeof(counters), "--counters-path=%s", broker->counters_path);
    if (is_transport("dpdk")) {
        count += rsi_places_broker_flags(&arguments[count], index_of(&broker->program));
    }
    for (; extra_flags != NULL && *extra_flags != NULL; extra_flags++) {
        check(count < ARGUMENT_COUNT_MAX - 1, "too many flags");
        arguments[count++] = *extra_flags;
    }
    program_start(&broker->program, "broker", arguments, true);
    program_await_ready(&broker->program, broker->urls, sizeof(broker->urls));
    for (const char *at = broker->urls; *at != '\0'; at += strcspn(at, "\n"), at += *at == '\n') {
        if (strncmp(at, options.transport, strlen(options.transport)) == 0) {
            snprintf(broker->url, sizeof(broker->url), "%.*s", (int)strcspn(at, "\n"), at);
        }
    }
    check(broker->url[0] != '\0', "the broker does not listen on %s: %s", options.transport,
          broker->urls);
}

void broker_start(struct broker *broker, const char *const *extra_flags)
{
    char listen[2 * PATH_BYTES];
    char name[32];
    check(broker_count < rsi_array_count(brokers), "too many brokers");
    memset(broker, 0, sizeof(*broker));
    snprintf(name, sizeof(name), "broker%zu.counters", broker_count);
    test_path(broker->counters_path, name);
    listen_url(listen);
    brokers[broker_count++] = broker;
    run_broker(broker, listen, extra_flags);
}

void broker_start_again(struct broker *broker, const char *const *extra_flags)
{
    char listen[2 * PATH_BYTES];
    snprintf(listen, sizeof(listen), "--listen=%s", broker->url);
    run_broker(broker, listen, extra_flags);
}

int broker_stop(struct broker *broker)
{
    program_signal(&broker->program, SIGTERM);
    return program_wait(&broker->program);
}

static bool is_of_client(const struct rsi_counter_view *view, const char *client_name)
{
    size_t bytes = client_name != NULL ? strlen(client_name) : 0;
    return client_name == NULL ||
           (strncmp(view->label, client_name, bytes) == 0 && view->label[bytes] == '#');
}

static uint64_t sum_counters(const char *path, const char *name, const char *client_name)
{
    struct rsi_counters_reader *reader = NULL;
    struct rsi_error error = {0};
    struct rsi_counter_view view;
    uint64_t sum = 0;
    uint32_t cursor = 0;
    check(!rsi_failed(rsi_counters_open(&reader, path, &error)), "%s", error.text);
    while (rsi_counters_next(reader, &cursor, &view)) {
        if (strcmp(view.name, name) == 0 && is_of_client(&view, client_name)) {
            sum += view.value;
        }
    }
    rsi_counters_close(reader);
    return sum;
}

uint64_t broker_counter(const struct broker *broker, const char *name, const char *client_name)
{
    return sum_counters(broker->counters_path, name, client_name);
}

uint64_t fault_counter(const char *name)
{
    uint64_t sum = 0;
    DIR *files = opendir(test_folder());
    check(files != NULL, "%s: %s", test_folder(), strerror(errno));
    const struct dirent *file;
    while ((file = readdir(files)) != NULL) {
        char path[PATH_BYTES];
        if (strstr(file->d_name, FAULT_COUNTERS) != NULL) {
            sum += sum_counters(test_path(path, file->d_name), name, NULL);
        }
    }
    closedir(files);
    return sum;
}

const char *broker_counter_text(const struct broker *broker, const char *name,
                                const char *client_name)
{
    static char text[RSI_COUNTER_TEXT_BYTES];
    struct rsi_counters_reader *reader = NULL;
    struct rsi_error error = {0};
    struct rsi_counter_view view;
    uint32_t cursor = 0;
    check(!rsi_failed(rsi_counters_open(&reader, broker->counters_path, &error)), "%s", error.text);
    text[0] = '\0';
    while (rsi_counters_next(reader, &cursor, &view)) {
        if (strcmp(view.name, name) == 0 && is_of_client(&view, client_name)) {
            snprintf(text, sizeof(text), "%s", view.text);
        }
    }
    rsi_counters_close(reader);
    return text;
}

uint64_t broker_session_id(const struct broker *broker, const char *client_name)
{
    struct rsi_counters_reader *reader = NULL;
    struct rsi_error error = {0};
    struct rsi_counter_view view;
    uint32_t cursor = 0;
    uint64_t id = 0;
    check(!rsi_failed(rsi_counters_open(&reader, broker->counters_path, &error)), "%s", error.text);
    while (id == 0 && rsi_counters_next(reader, &cursor, &view)) {
        if (is_of_client(&view, client_name)) {
            id = strtoull(view.label + strlen(client_name) + 1, NULL, 10);
        }
    }
    rsi_counters_close(reader);
    return id;
}

void broker_await_counter(const struct broker *broker, const char *name, const char *client_name,
                          uint64_t at_least)
{
    await(broker_counter(broker, name, client_name) >= at_least,
          "%s of %s stays at %" PRIu64 ", wanted %" PRIu64, name,
          client_name != NULL ? client_name : "the broker",
          broker_counter(broker, name, client_name), at_least);
}

static size_t count_entries(const char *path)
{
    size_t count = 0;
    DIR *folder = opendir(path);
    check(folder != NULL, "%s: %s", path, strerror(errno));
    const struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) {
        count += entry->d_name[0] != '.';
    }
    closedir(folder);
    return count;
}

static size_t count_lines(const char *path)
{
    size_t count = 0;
    int byte;
    FILE *file = fopen(path, "r");
    check(file != NULL, "%s: %s", path, strerror(errno));
    while ((byte = fgetc(file)) != EOF) {
        count += byte == '\n';
    }
    fclose(file);
    return count;
}

void broker_count_resources(const struct broker *broker, size_t *fd_count, size_t *map_count)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)broker->program.pid);
    *fd_count = count_entries(path);
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)broker->program.pid);
    *map_count = count_lines(path);
}
