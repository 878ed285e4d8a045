/*
 * The hot path law: after warm-up, on every way of a message, no malloc, no lock, one reading of
 * the clock per commit or pass, and no system call beyond these:
 *
 * - shm: none for a message. By the clock: a client looks at its connection once per
 *   RSI_CLIENT_CONTROL_INTERVAL_NS, a poller at its sockets once per SHM_LOOK_NS. Who asks to be
 *   woken is sent one packet for it.
 * - tcp: one sendmsg per batch; one recvmsg for what one sendmsg sent, and per pass one epoll_wait
 *   or recvmsg to see whether there is anything. Positions are told by the clock, and per eighth of
 *   a ring. A look at TCP_INFO per TCP_ALIVE_NS.
 * - rdma: none for a message; by the clock as above. On the double of verbs, which is not watched.
 *
 * Design notes
 * - Every case runs in a process of its own, for what watches cannot be taken away again: a stage
 *   is opened, the traffic of the case runs to warm up, and then again under watch.
 * - Budgets are made of what was really done: messages, passes, time that went by. Nothing is
 *   sampled, and no budget has room for one call per message where the law allows none.
 * - The last cases are mutants: the same traffic with a fault put in, which must be found and
 *   named, in the clients and in the agents.
 */
#include "clients/c/client.h"
#include "core/clock.h"
#include "core/compiler.h"
#include "tests/hot_path/mutants.h"
#include "tests/hot_path/stage.h"
#include "tests/hot_path/watch.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Intervals of what goes by the clock, as they stand in the transports' own files. */
#define SHM_LOOK_NS          UINT64_C(10000000)
#define TCP_REPORT_NS        UINT64_C(100000000)
#define TCP_ALIVE_NS         UINT64_C(2000000000)
#define RDMA_PROBE_NS        UINT64_C(2000000000)
#define TCP_REPORTS_PER_RING 8u
/* A new anchor reads the counter once, and at most 8 times more for two samples and two clocks. */
#define READINGS_PER_ANCHOR 9u

struct scenario {
    const char *name;
    void (*run)(struct stage *stage);
    unsigned reader_count;
    ringside_policy_t policy;
    uint64_t frame_bytes; /* the largest, for budgets */
    bool readers_sleep;
};

/* ---- traffic -----------------------------------------------------------------------------------
 */

static void run_singles(struct stage *stage)
{
    for (unsigned i = 0; i < 100; i++) {
        stage_publish(stage, 64, true);
        stage_drain(stage);
    }
}

static void run_bursts(struct stage *stage)
{
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 200; i++) {
            stage_publish(stage, 8 + i % 100, true);
        }
        stage_drain(stage);
    }
}

/* Round all rings several times, with batches for which tcp tries MSG_ZEROCOPY. */
static void run_large(struct stage *stage)
{
    for (unsigned i = 0; i < 60; i++) {
        stage_publish(stage, 16000, true);
        if (i % 4 == 0) {
            stage_drain(stage);
        }
    }
    stage_drain(stage);
}

/* The writer is faster than everybody: its ring fills again and again. */
static void run_full_ring(struct stage *stage)
{
    for (unsigned i = 0; i < 3000; i++) {
        stage_publish(stage, 200, true);
    }
    stage_drain(stage);
}

/* More than the deliver ring holds, less than half a log window: the readers catch up. */
static void run_lag(struct stage *stage)
{
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 1200; i++) {
            stage_publish(stage, 200, false);
        }
        stage_drain(stage);
    }
}

/* More than the log window holds: what is left out is told as gaps. */
static void run_gaps(struct stage *stage)
{
    uint64_t gap_count = stage->readers[0].gap_count;
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 8000; i++) {
            stage_publish(stage, 200, false);
        }
        stage_drain(stage);
    }
    if (stage->readers[0].gap_count == gap_count) {
        stage_fail("no gaps were told: the case does not do what it is for");
    }
}

/* The same under block: the writer is pushed back until the readers read. */
static void run_block(struct stage *stage)
{
    for (unsigned round = 0; round < 2; round++) {
        stage_publish_until_pushed_back(stage, 200);
        stage_drain(stage);
    }
    if (stage->readers[0].missed_count != 0) {
        stage_fail("messages were left out under block");
    }
}

/* One message per sleep of the reader. */
static void run_sleeper(struct stage *stage)
{
    for (unsigned i = 0; i < 200; i++) {
        stage_publish(stage, 64, false);
        stage_poll_writer(stage); /* tcp: what waits behind the last batch goes out now */
        while (stage->readers[0].message_count < stage->published_count) {
            stage_poll_readers(stage);
        }
    }
}

/* Nothing to do is a way too. */
static void run_idle(struct stage *stage)
{
    for (unsigned i = 0; i < 200; i++) {
        stage_poll_writer(stage);
        stage_poll_readers(stage);
    }
}

static const struct scenario scenarios[] = {
    {"single messages", run_singles, 1, RINGSIDE_POLICY_DROP, 104, false},
    {"bursts to three readers", run_bursts, 3, RINGSIDE_POLICY_DROP, 152, false},
    {"large messages", run_large, 2, RINGSIDE_POLICY_BLOCK, 16040, false},
    {"a full publish ring", run_full_ring, 1, RINGSIDE_POLICY_DROP, 240, false},
    {"lag and catching up", run_lag, 2, RINGSIDE_POLICY_DROP, 240, false},
    {"gaps", run_gaps, 2, RINGSIDE_POLICY_DROP, 240, false},
    {"block", run_block, 2, RINGSIDE_POLICY_BLOCK, 240, false},
    {"a reader that sleeps", run_sleeper, 1, RINGSIDE_POLICY_DROP, 104, true},
    {"nothing to do", run_idle, 2, RINGSIDE_POLICY_DROP, 104, false},
};

/* ---- the law -----------------------------------------------------------------------------------
 */

#define HANG_NS UINT64_C(20000000000)

struct finding {
    char text[512];
    unsigned count;
};

static void find(struct finding *finding, const void *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void find(struct finding *finding, const void *at, const char *format, ...)
{
    char what[256];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof(what), format, list);
    va_end(list);
    Dl_info info = {0};
    bool is_known = at != NULL && dladdr(at, &info) != 0 && info.dli_sname != NULL;
    size_t used_bytes = strlen(finding->text);
    snprintf(finding->text + used_bytes, sizeof(finding->text) - used_bytes, "%s%s%s%s",
             finding->count > 0 ? "; " : "", what, is_known ? ", first by " : "",
             is_known ? info.dli_sname : "");
    finding->count++;
}

/* What was done while it was counted. */
struct work {
    uint64_t message_count;
    uint64_t bytes; /* of frames, at most */
    uint64_t elapsed_ns;
    uint64_t agent_sends; /* sendmsg of all agents, of all clients */
    uint64_t client_sends;
    uint64_t sleeps;        /* of clients */
    uint64_t wake_requests; /* of clients, before a sleep or an attempt at one; shm only */
    unsigned reader_count;
};

static uint64_t times(uint64_t elapsed_ns, uint64_t interval_ns)
{
    return elapsed_ns / interval_ns + 1;
}

static void allow(struct finding *finding, const char *role, const struct watch_counts *counts,
                  uint32_t call, const char *name, uint64_t allowed)
{
    if (counts->call_counts[call] > allowed) {
        find(finding, counts->call_at[call], "%s: %" PRIu64 " times %s, at most %" PRIu64, role,
             counts->call_counts[call], name, allowed);
    }
}

static uint64_t allow_tcp(struct finding *finding, const char *role,
                          const struct watch_counts *counts, const struct work *work,
                          bool is_client)
{
    unsigned link_count = work->reader_count + 1;
    uint64_t reports =
        link_count * times(work->elapsed_ns, TCP_REPORT_NS) +
        work->bytes * TCP_REPORTS_PER_RING / STAGE_DELIVER_RING_BYTES * work->reader_count +
        work->bytes * TCP_REPORTS_PER_RING / STAGE_PUBLISH_RING_BYTES;
    uint64_t batches = work->message_count * (is_client ? 1 : work->reader_count);
    allow(finding, role, counts, SYS_sendmsg, "sendmsg", batches + reports);
    allow(finding, role, counts, SYS_getsockopt, "getsockopt",
          link_count * times(work->elapsed_ns, TCP_ALIVE_NS));
    /* What one sendmsg sent may come in pieces when it is large. */
    uint64_t pieces =
        (is_client ? work->agent_sends : work->client_sends) + work->bytes * link_count / 16384;
    uint64_t passes = counts->passes + 1; /* one may have begun before it was counted */
    uint64_t looks = counts->call_counts[SYS_epoll_wait] + counts->call_counts[SYS_recvmsg];
    uint64_t by_clock = is_client
                            ? link_count * times(work->elapsed_ns, RSI_CLIENT_CONTROL_INTERVAL_NS) +
                                  2 * work->sleeps
                            : 0;
    if (looks > passes + pieces + by_clock) {
        find(finding, counts->call_at[SYS_recvmsg],
             "%s: %" PRIu64 " times epoll_wait or recvmsg in %" PRIu64 " passes, %" PRIu64
             " pieces and %" PRIu64 " looks by the clock",
             role, looks, passes, pieces, by_clock);
    }
    return counts->call_counts[SYS_sendmsg] + counts->call_counts[SYS_getsockopt] + looks +
           (is_client ? work->sleeps : 0);
}

/*
 * Posting and polling are no system calls of ours. By the clock, and after a sleep, a client reads
 * the channel of connection events, where the double has an fcntl in place of a read that finds
 * nothing.
 */
static uint64_t allow_rdma(struct finding *finding, const char *role,
                           const struct watch_counts *counts, const struct work *work,
                           bool is_client)
{
    uint64_t looks = is_client ? (work->reader_count + 1) *
                                         times(work->elapsed_ns, RSI_CLIENT_CONTROL_INTERVAL_NS) +
                                     3 * work->sleeps
                               : 0;
    /* Who sleeps has a timer for the next probe of an idle wire. */
    uint64_t probes =
        work->sleeps != 0 ? (work->reader_count + 1) * times(work->elapsed_ns, RDMA_PROBE_NS) : 0;
    allow(finding, role, counts, SYS_fcntl, "a look at the channels", looks);
    allow(finding, role, counts, SYS_timerfd_settime, "timerfd_settime", is_client ? probes : 0);
    allow(finding, role, counts, SYS_read, "read", is_client ? probes : 0);
    return counts->call_counts[SYS_fcntl] + counts->call_counts[SYS_timerfd_settime] +
           counts->call_counts[SYS_read] + (is_client ? work->sleeps : 0);
}

static uint64_t allow_shm(struct finding *finding, const char *role,
                          const struct watch_counts *counts, const struct work *work,
                          bool is_client)
{
    unsigned link_count = work->reader_count + 1;
    uint64_t looks = times(work->elapsed_ns, SHM_LOOK_NS) * (is_client ? link_count : 1);
    if (is_client) {
        looks += link_count * times(work->elapsed_ns, RSI_CLIENT_CONTROL_INTERVAL_NS);
    }
    if (is_client) {
        /* After a sleep a client looks at its connection and its sockets. It reads the packet, that
         * there is no other, and again when it hears the packet's bell. */
        looks += 2 * work->wake_requests;
        allow(finding, role, counts, SYS_recvmsg, "recvmsg", 3 * work->wake_requests);
    }
    allow(finding, role, counts, SYS_epoll_wait, "epoll_wait", looks);
    allow(finding, role, counts, SYS_sendmsg, "sendmsg", is_client ? 0 : work->wake_requests);
    return counts->call_counts[SYS_epoll_wait] + counts->call_counts[SYS_sendmsg] +
           (is_client ? counts->call_counts[SYS_recvmsg] + counts->call_counts[SYS_ppoll] : 0);
}

/* Which system calls there were, for a report. */
static void list_calls(const struct watch_counts *counts, char *text, size_t text_bytes)
{
    size_t used_bytes = 0;
    text[0] = '\0';
    for (uint32_t call = 0; call < WATCH_CALL_COUNT; call++) {
        if (counts->call_counts[call] != 0 && used_bytes < text_bytes) {
            used_bytes += (size_t)snprintf(text + used_bytes, text_bytes - used_bytes,
                                           " %u:%" PRIu64, call, counts->call_counts[call]);
        }
    }
}

static void judge(struct finding *finding, const struct stage *stage, const char *role,
                  const struct work *work, bool is_client)
{
    const struct watch_counts *counts = watch_counts_of(role);
    if (counts == NULL || counts->passes == 0) {
        find(finding, NULL, "%s was not watched", role);
        return;
    }
    if (counts->allocations != 0 || counts->frees != 0) {
        find(finding, counts->allocation_at, "%s: %" PRIu64 " allocations, %" PRIu64 " frees", role,
             counts->allocations, counts->frees);
    }
    if (counts->locks != 0) {
        find(finding, counts->lock_at, "%s: %" PRIu64 " locks", role, counts->locks);
    }
    uint64_t readings = counts->passes + 1 + (is_client ? work->message_count : 0) +
                        times(work->elapsed_ns, RSI_CLOCK_ANCHOR_NS) * READINGS_PER_ANCHOR;
    if (is_client && stage->options.readers_sleep) {
        /* rdma: before a sleep a pass of the poller's own, after it a look at its timer. */
        readings += 2 * counts->passes;
    }
    if (counts->clock_readings > readings) {
        find(finding, NULL,
             "%s: %" PRIu64 " readings of the clock in %" PRIu64 " passes, at most %" PRIu64, role,
             counts->clock_readings, counts->passes, readings);
    }
    const char *transport = stage->options.transport;
    uint64_t allowed =
        strcmp(transport, "tcp") == 0    ? allow_tcp(finding, role, counts, work, is_client)
        : strcmp(transport, "rdma") == 0 ? allow_rdma(finding, role, counts, work, is_client)
                                         : allow_shm(finding, role, counts, work, is_client);
    if (counts->calls != allowed) {
        char list[128];
        list_calls(counts, list, sizeof(list));
        find(finding, NULL, "%s: system calls that the law does not know among%s", role, list);
    }
}

/* ---- cases -------------------------------------------------------------------------------------
 */

struct test_case {
    const char *transport;
    unsigned agent_count;
    const struct scenario *scenario;
    enum mutant mutant;
    enum mutant_place place;
    const char *finds; /* what is to be found of a mutant, by whom: any text with this in it */
};

struct role {
    char text[32];
};

static struct role agent_role(unsigned index)
{
    struct role role;
    snprintf(role.text, sizeof(role.text), "data-agent-%u", index);
    return role;
}

/* Whether each agent had a pass since watch_begin(): on a busy machine one may not have run at all.
 */
static bool have_agents_passed(unsigned agent_count)
{
    for (unsigned i = 0; i < agent_count; i++) {
        const struct watch_counts *counts = watch_counts_of(agent_role(i).text);
        if (counts == NULL || counts->passes == 0) {
            return false;
        }
    }
    return true;
}

static void measure(struct stage *stage, const struct test_case *test, struct finding *finding)
{
    struct work work = {.reader_count = test->scenario->reader_count};
    test->scenario->run(stage);
    stage_drain(stage);
    watch_catch_calls();
    test->scenario->run(stage); /* once more, at the pace of what is caught */

    uint64_t published_count = stage->published_count;
    uint64_t wake_requests = stage_wake_requests(stage);
    mutant = test->mutant;
    mutant_place = test->place;
    watch_begin();
    uint64_t start_ns = watch_now_ns();
    do {
        test->scenario->run(stage);
        work.elapsed_ns = watch_now_ns() - start_ns;
    } while (!have_agents_passed(test->agent_count) && work.elapsed_ns < HANG_NS);
    watch_end();
    mutant = MUTANT_NONE;

    work.message_count = stage->published_count - published_count;
    work.bytes = work.message_count * test->scenario->frame_bytes;
    work.client_sends = watch_counts_of(STAGE_CLIENT_ROLE)->call_counts[SYS_sendmsg];
    work.wake_requests = stage_wake_requests(stage) - wake_requests;
    work.sleeps = watch_counts_of(STAGE_CLIENT_ROLE)->call_counts[SYS_ppoll];
    if (work.sleeps != 0 && !test->scenario->readers_sleep) {
        find(finding, NULL, "clients slept %" PRIu64 " times", work.sleeps);
    }
    for (unsigned i = 0; i < test->agent_count; i++) {
        const struct watch_counts *counts = watch_counts_of(agent_role(i).text);
        work.agent_sends += counts != NULL ? counts->call_counts[SYS_sendmsg] : 0;
    }
    judge(finding, stage, STAGE_CLIENT_ROLE, &work, true);
    for (unsigned i = 0; i < test->agent_count; i++) {
        const struct role role = agent_role(i);
        judge(finding, stage, role.text, &work, false);
        const struct watch_counts *counts = watch_counts_of(role.text);
        printf("        %s: %" PRIu64 " messages, %" PRIu64 " passes, %" PRIu64
               " system calls, %" PRIu64 " readings of the clock, %" PRIu64 " ms\n",
               role.text, work.message_count, counts->passes, counts->calls, counts->clock_readings,
               work.elapsed_ns / 1000000);
    }
}

/* In the case's own process. */
static _Noreturn void run_here(const struct test_case *test)
{
    static struct stage stage;
    const struct stage_options options = {
        .transport = test->transport,
        .agent_count = test->agent_count,
        .reader_count = test->scenario->reader_count,
        .policy = test->scenario->policy,
        .readers_sleep = test->scenario->readers_sleep,
    };
    struct finding finding = {0};
    const char *why = NULL;
    if (!watch_init(&why)) {
        stage_fail("%s", why);
    }
    stage_open(&stage, &options);
    measure(&stage, test, &finding);
    (void)unlink(stage.settings.listen[0] + strlen("shm://"));
    (void)rmdir(stage.directory);
    if (finding.count > 0) {
        printf("        %s\n", finding.text);
    }
    bool is_right =
        test->finds == NULL ? finding.count == 0 : strstr(finding.text, test->finds) != NULL;
    watch_exit(is_right ? 0 : 1);
}

static bool run_case(const struct test_case *test)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(120); /* hangs are told from inside, long before */
        run_here(test);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        return false;
    }
    if (WIFSIGNALED(status)) {
        printf("        ended by signal %d\n", WTERMSIG(status));
    }
    bool is_right = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    printf("%s  %s, %u agent%s: %s%s%s\n", is_right ? "ok    " : "FAILED", test->transport,
           test->agent_count, test->agent_count == 1 ? "" : "s", test->scenario->name,
           test->finds != NULL ? ", to find: " : "", test->finds != NULL ? test->finds : "");
    return is_right;
}

/* Each is to be found where it was put: at frame_read in admission and delivery, at place in
 * publish and fan-out. */
static const struct test_case mutants[] = {
    {"shm", 1, &scenarios[1], MUTANT_MALLOC, MUTANT_AT_FRAME_READ, "clients: "},
    {"shm", 1, &scenarios[1], MUTANT_MALLOC, MUTANT_AT_PLACE, "data-agent-0: "},
    {"shm", 2, &scenarios[1], MUTANT_MUTEX, MUTANT_AT_PLACE, "data-agent-1: "},
    {"tcp", 1, &scenarios[1], MUTANT_MUTEX, MUTANT_AT_FRAME_READ, " locks"},
    {"shm", 1, &scenarios[1], MUTANT_GETPID, MUTANT_AT_FRAME_READ, "data-agent-0: system calls"},
    {"tcp", 1, &scenarios[1], MUTANT_GETPID, MUTANT_AT_PLACE, "clients: system calls"},
    {"shm", 1, &scenarios[1], MUTANT_FUTEX, MUTANT_AT_PLACE, "clients: system calls"},
    {"shm", 1, &scenarios[1], MUTANT_CLOCK, MUTANT_AT_PLACE, "clients: "},
    {"shm", 1, &scenarios[1], MUTANT_VDSO, MUTANT_AT_FRAME_READ, "data-agent-0: "},
    {"shm", 1, &scenarios[1], MUTANT_EPOLL, MUTANT_AT_PLACE, "times epoll_wait"},
    {"tcp", 1, &scenarios[0], MUTANT_SENDMSG, MUTANT_AT_PLACE, "times sendmsg"},
    {"tcp", 1, &scenarios[1], MUTANT_RECVMSG, MUTANT_AT_FRAME_READ, "epoll_wait or recvmsg"},
    {"rdma", 1, &scenarios[1], MUTANT_MALLOC, MUTANT_AT_FRAME_READ, "data-agent-0: "},
    {"rdma", 1, &scenarios[1], MUTANT_MUTEX, MUTANT_AT_PLACE, "clients: "},
    {"rdma", 1, &scenarios[1], MUTANT_GETPID, MUTANT_AT_PLACE, "data-agent-0: system calls"},
    {"rdma", 1, &scenarios[1], MUTANT_EPOLL, MUTANT_AT_FRAME_READ, "clients: system calls"},
};

#ifdef HOT_PATH_ON_DOUBLE
static const char *const transports[] = {"rdma"};
static const char *const part_of_mutants = "rdma-mutants";
#else
static const char *const transports[] = {"shm", "tcp"};
static const char *const part_of_mutants = "mutants";
#endif

static bool has_transport(const char *name)
{
    for (size_t t = 0; t < rsi_array_count(transports); t++) {
        if (strcmp(transports[t], name) == 0) {
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    const char *only = argc == 2 ? argv[1] : NULL;
    unsigned passed_count = 0;
    unsigned failed_count = 0;
    const char *why = NULL;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!watch_init(&why)) {
        printf("nothing can be watched here: %s\n", why);
        return 77;
    }
    bool has_clock = watch_counts_clock();
    if (!has_clock) {
        printf(
            "this machine lets the counter be read although its kernel forbade it, so readings of "
            "the clock are not counted and their mutants are passed over\n");
    }
    for (size_t t = 0; t < rsi_array_count(transports); t++) {
        for (size_t s = 0; s < rsi_array_count(scenarios); s++) {
            const struct test_case test = {.transport = transports[t],
                                           .agent_count = 1 + (s + t) % 2,
                                           .scenario = &scenarios[s]};
            if (only == NULL || strcmp(only, transports[t]) == 0 ||
                strcmp(only, scenarios[s].name) == 0) {
                *(run_case(&test) ? &passed_count : &failed_count) += 1;
            }
        }
    }
    for (size_t m = 0; m < rsi_array_count(mutants); m++) {
        bool is_of_clock = mutants[m].mutant == MUTANT_CLOCK || mutants[m].mutant == MUTANT_VDSO;
        if (has_transport(mutants[m].transport) && (has_clock || !is_of_clock) &&
            (only == NULL || strcmp(only, part_of_mutants) == 0)) {
            *(run_case(&mutants[m]) ? &passed_count : &failed_count) += 1;
        }
    }
    printf("%u passed, %u failed\n", passed_count, failed_count);
    return failed_count > 0 || passed_count == 0;
}
