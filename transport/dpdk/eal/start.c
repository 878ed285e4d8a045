/*
 * EAL, DPDK's environment: started once per process, never ended.
 *
 * Design notes
 * - EAL cannot be started twice, and ending it before the process does has crashed; so what can be
 *   known to fail was looked at before (plan.c), and it stays once it is up.
 * - rte_eal_init makes the calling thread its main one, changes that thread's affinity and lets the
 *   threads that it starts inherit its signal mask. So a short-lived thread of ours calls it, with
 *   all signals blocked: nothing of the caller changes, and no signal of the application is
 *   delivered to a thread of DPDK.
 * - Nothing is left behind by a process that is killed: memory is anonymous and there are no files
 *   (--in-memory, or --no-shconf without huge pages), telemetry is off, and the empty folder that
 *   EAL makes all the same is removed at once.
 * - Huge pages are taken as they are needed, so only whether there are enough free ones is looked
 * at here. Without them memory is fixed at the start; pages are only taken when they are touched.
 * - An application that runs DPDK itself has started EAL: its memory, its log and its cores are
 *   used as they are.
 */
#include "transport/dpdk/eal/eal_internal.h"

#include "core/cpu.h"
#include "core/text.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ARGUMENT_COUNT_MAX = 48, ARGUMENT_TEXT_BYTES = 4096 };

#define MIB               (UINT64_C(1) << 20)
#define OTHER_BYTES       (16 * MIB) /* what EAL and the drivers take beside frames */
#define HUGE_PAGES_PATH   "/sys/kernel/mm/hugepages"
#define HUGE_PAGES_PREFIX "hugepages-"
#define HUGE_PAGES_FALLBACK                                                                \
    "there are not enough huge pages, so frames lie in ordinary memory, which is slower: " \
    "reserve some (sysctl vm.nr_hugepages=512) or set dpdk_huge to no"

/* Of the process, once it is started by us. EAL keeps pointers into the texts. */
static struct {
    bool is_started;
    bool has_failed;
    bool has_pci;
    bool has_huge;
    bool has_fallen_back;
    int argument_count;
    char *arguments[ARGUMENT_COUNT_MAX + 1];
    char texts[ARGUMENT_TEXT_BYTES];
    size_t texts_bytes;
    int result;
    int errno_value;
} state;

/* ---- memory ------------------------------------------------------------------------------------
 */

static uint64_t read_count(const char *folder, const char *file)
{
    char path[512];
    char text[32] = "";
    uint64_t value = 0;
    snprintf(path, sizeof(path), HUGE_PAGES_PATH "/%s/%s", folder, file);
    FILE *stream = fopen(path, "re");
    if (stream != NULL) {
        if (fgets(text, sizeof(text), stream) != NULL) {
            text[strcspn(text, "\n")] = '\0';
            if (rsi_failed(rsi_parse_number(&value, text, 0, UINT64_MAX, NULL))) {
                value = 0;
            }
        }
        fclose(stream);
    }
    return value;
}

static uint64_t free_huge_bytes(void)
{
    uint64_t bytes = 0;
    DIR *folder = opendir(HUGE_PAGES_PATH);
    if (folder == NULL) {
        return 0;
    }
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (strncmp(entry->d_name, HUGE_PAGES_PREFIX, strlen(HUGE_PAGES_PREFIX)) == 0) {
            uint64_t page_kib = strtoull(entry->d_name + strlen(HUGE_PAGES_PREFIX), NULL, 10);
            bytes += read_count(entry->d_name, "free_hugepages") * page_kib * 1024;
        }
    }
    closedir(folder);
    return bytes;
}

/* ---- arguments ---------------------------------------------------------------------------------
 */

static void RSI_PRINTF(1, 2) add(const char *format, ...)
{
    size_t room = sizeof(state.texts) - state.texts_bytes;
    char *text = state.texts + state.texts_bytes;
    va_list values;
    va_start(values, format);
    int bytes = vsnprintf(text, room, format, values);
    va_end(values);
    if (bytes >= 0 && (size_t)bytes < room && state.argument_count < ARGUMENT_COUNT_MAX) {
        state.arguments[state.argument_count++] = text;
        state.texts_bytes += (size_t)bytes + 1;
    } else {
        state.argument_count = ARGUMENT_COUNT_MAX; /* told by make_arguments */
    }
}

static rsi_status_t add_cores(const struct rsi_dpdk_options *options, struct rsi_error *error)
{
    char text[512];
    char wanted_text[256];
    struct rsi_cpu_set allowed;
    struct rsi_cpu_set wanted;
    rsi_status_t status = rsi_cpu_allowed(&allowed, error);
    if (status != RSI_OK) {
        return status;
    }
    wanted = allowed;
    if (!rsi_text_is_empty(options->cores)) {
        status = rsi_cpu_set_parse(&wanted, options->cores, error);
    }
    for (int cpu = rsi_cpu_set_next(&wanted, 0); cpu >= 0 && status == RSI_OK;
         cpu = rsi_cpu_set_next(&wanted, (unsigned)cpu + 1)) {
        if (!rsi_cpu_set_has(&allowed, (unsigned)cpu)) {
            status = rsi_fail(error, RSI_E_CPU,
                              "dpdk_cores: CPU %d is not among those that this process may use "
                              "(%s)",
                              cpu, rsi_cpu_set_format(&allowed, text, sizeof(text)));
        }
    }
    if (status == RSI_OK) {
        /* One lcore, number 0, on any of the CPUs: threads that poll are the application's. */
        rsi_cpu_set_format(&wanted, wanted_text, sizeof(wanted_text));
        add("--lcores=0@(%s)", wanted_text);
    }
    return status;
}

static void add_further(const char *texts)
{
    for (const char *at = texts + strspn(texts, " "); *at != '\0'; at += strspn(at, " ")) {
        size_t bytes = strcspn(at, " ");
        add("%.*s", (int)bytes, at);
        at += bytes;
    }
}

static rsi_status_t make_arguments(const struct rsi_dpdk_options *options,
                                   const struct rsi_eal_plan *plan, struct rsi_error *error)
{
    uint64_t need_bytes = plan->pool_bytes + OTHER_BYTES;
    if (options->memory_bytes != 0 && options->memory_bytes < need_bytes) {
        return rsi_fail(error, RSI_E_INVALID,
                        "dpdk_memory: %" PRIu64 " bytes are not enough: %s needs %" PRIu64
                        "MiB for its frames; raise it, leave it out, or lower dpdk_mtu",
                        options->memory_bytes, plan->name, (need_bytes + MIB - 1) / MIB);
    }
    need_bytes = options->memory_bytes != 0 ? options->memory_bytes : need_bytes;
    state.argument_count = 0;
    state.texts_bytes = 0;
    state.has_pci = plan->driver == RSI_EAL_PCI;
    state.has_huge = !options->no_huge && free_huge_bytes() >= need_bytes;
    state.has_fallen_back = !options->no_huge && !state.has_huge;
    add("%.32s", program_invocation_short_name); /* also becomes syslog's name for the process */
    rsi_status_t status = add_cores(options, error);
    if (status != RSI_OK) {
        return status;
    }
    if (!rsi_text_is_empty(options->file_prefix)) {
        add("--file-prefix=%s", options->file_prefix);
    } else {
        add("--file-prefix=ringside-%d", (int)getpid());
    }
    add("--no-telemetry");
    if (state.has_pci) {
        add("--allow=%s", plan->name);
    } else {
        add("--no-pci");
        add("--iova-mode=va");
    }
    if (state.has_huge) {
        add("--in-memory");
        add("--single-file-segments"); /* vhost peers map few files only */
    } else {
        add("--no-huge");
        add("--no-shconf");
    }
    if (!state.has_huge || options->memory_bytes != 0) {
        add("-m");
        add("%" PRIu64, (need_bytes + MIB - 1) / MIB);
    }
    if (!rsi_text_is_empty(options->eal_arguments)) {
        add_further(options->eal_arguments);
    }
    if (state.argument_count == ARGUMENT_COUNT_MAX) {
        return rsi_fail(error, RSI_E_INVALID,
                        "dpdk_eal_arguments: more or longer arguments than EAL is given here");
    }
    state.arguments[state.argument_count] = NULL;
    return RSI_OK;
}

/* ---- start -------------------------------------------------------------------------------------
 */

static void *start_main(void *arg)
{
    (void)arg;
    rsi_eal_capture_begin();
    rsi_eal_capture_log();
    state.result = rte_eal_init(state.argument_count, state.arguments);
    state.errno_value = rte_errno;
    rsi_eal_capture_end();
    return NULL;
}

static int run_start_thread(void)
{
    pthread_t thread;
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&thread, NULL, start_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result == 0) {
        pthread_join(thread, NULL);
    }
    return result;
}

static rsi_status_t explain_failure(struct rsi_error *error)
{
    rsi_status_t status;
    switch (state.errno_value) {
    case EACCES:
    case EPERM:
        status = rsi_fail(error, RSI_E_PERMISSION,
                          "DPDK may not do here what it needs; run as root, or see GUIDE.md for "
                          "the rights that dpdk:// needs");
        break;
    case ENOMEM:
        status = rsi_fail(error, RSI_E_NO_MEMORY,
                          "DPDK got no memory to start with; reserve huge pages (sysctl "
                          "vm.nr_hugepages=512), or lower dpdk_memory");
        break;
    default:
        status = rsi_fail(error, RSI_E_NO_DEVICE, "DPDK cannot be started (%s)",
                          rte_strerror(state.errno_value));
        break;
    }
    rsi_eal_capture_explain(error);
    return status;
}

rsi_status_t rsi_eal_start(struct rsi_eal_environment *environment,
                           const struct rsi_dpdk_options *options, const struct rsi_eal_plan *plan,
                           struct rsi_error *error)
{
    if (!state.is_started && rte_lcore_count() > 0) {
        *environment =
            (struct rsi_eal_environment){.has_pci = true, .has_huge = rte_eal_has_hugepages() != 0};
        return RSI_OK;
    }
    if (state.has_failed) {
        return rsi_fail(error, RSI_E_STATE,
                        "DPDK could not be started before, and a process can try only once: mend "
                        "the cause, then start the program again");
    }
    if (!state.is_started) {
        rsi_eal_capture_clear();
        rsi_status_t status = make_arguments(options, plan, error);
        if (status != RSI_OK) {
            return status;
        }
        int failed = run_start_thread();
        if (failed != 0) {
            return rsi_fail_errno(error, rsi_status_from_errno(failed), failed,
                                  "no thread in which to start DPDK");
        }
        if (state.result < 0) {
            state.has_failed = true;
            return explain_failure(error);
        }
        state.is_started = true;
        (void)rmdir(rte_eal_get_runtime_dir()); /* empty: EAL shares nothing, see above */
    }
    *environment = (struct rsi_eal_environment){
        .is_ours = true,
        .has_pci = state.has_pci,
        .has_huge = state.has_huge,
        .note = state.has_fallen_back ? HUGE_PAGES_FALLBACK : NULL,
    };
    return RSI_OK;
}
