/*
 * A machine that refuses: no descriptor left, no memory left, no memory to lock, no room on the
 * disk. A newcomer is served or told why not, those that are there notice nothing, and when there
 * is room again newcomers are served as before.
 *
 * Design notes
 * - A limit is set on the running broker (prlimit) a little above what it holds, then a little
 * more, and so on until a newcomer fits: so each of the steps of taking one in is refused once.
 * - A newcomer connects, publishes and subscribes. Where it fails is drawn by the limit; that it
 * fails with a code and a text, soon, and alone is what is judged.
 */
#include "tests/fault/resources.h"
#include "tests/fault/stream_actors.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    RESULT_STATUS = 0, /* of a visitor: what its first call said that failed, or OK */
    /* A broker may have a hole among its descriptors. */
    SPARE_FD_COUNT_MIN = -3,
    SPARE_FD_COUNT_MAX = 8,
    SPARE_STEP_BYTES = 32 << 10,
    SPARE_STEP_COUNT = 100,
    FITS_COUNT = 3, /* so many visitors in a row that fit end the search */
    WARM_UP_COUNT = 40,
    TOPIC_COUNT_MAX = 64,
    HEAP_GROWTH_BYTES = 256 << 10,
    REFUSED_ALLOCATION_COUNT_MAX = 200,
    CAPABILITY_IPC_LOCK = 14,
};

/* ---- visitors ----------------------------------------------------------------------------------
 */

/* Long enough for a visitor that is served, as slow as the machine may be; over dpdk:// each opens
 * a device first, which waits for the kernel some dozens of times. */
static uint64_t visitor_timeout_ns(void)
{
    return is_transport("dpdk") ? hang_ns() / 3 : hang_ns() / 10;
}

static void pass_over(void *arg, const ringside_message_t *message)
{
    (void)arg;
    (void)message;
}

static ringside_status_t visit_as(const char *url, const char *name, const char **text)
{
    ringside_options_t used = stream_client_options;
    const ringside_subscribe_options_t asked = {.struct_bytes = sizeof(asked),
                                                .policy = RINGSIDE_POLICY_DROP,
                                                .timeout_ns = visitor_timeout_ns()};
    ringside_client_t *client = NULL;
    ringside_publisher_t *publisher = NULL;
    ringside_subscription_t *subscription = NULL;
    used.struct_bytes = sizeof(used);
    used.client_name = name;
    used.connect_timeout_ns = visitor_timeout_ns();
    used.bind_host = is_transport("rdma") ? getenv("RINGSIDE_VM_ADDR_B") : NULL;
    ringside_status_t status = ringside_connect(&client, url, &used);
    if (status != RINGSIDE_OK) {
        *text = ringside_last_error();
        return status;
    }
    status = ringside_publisher_create(&publisher, client, "visitor.says", visitor_timeout_ns());
    if (status == RINGSIDE_OK) {
        status = ringside_subscribe(&subscription, client, "visitor.*", &asked, pass_over, NULL);
    }
    if (status == RINGSIDE_OK) {
        status = ringside_publish(publisher, "hello", 5);
    }
    static char kept[512];
    snprintf(kept, sizeof(kept), "%s", ringside_error_text(client));
    *text = kept;
    ringside_status_t end = ringside_close(client, visitor_timeout_ns());
    if (status == RINGSIDE_OK && end != RINGSIDE_OK) {
        *text = ringside_last_error();
        status = end;
    }
    return status;
}

static void visit(struct actor *self, void *arg)
{
    const char *text = "";
    (void)arg;
    ringside_status_t status = visit_as(self->broker->url, self->name, &text);
    actor_set_result(self, RESULT_STATUS, (uint64_t)(int64_t)status);
    snprintf(self->shared->text, sizeof(self->shared->text), "%s", text);
    check(status == RINGSIDE_OK || (status < 0 && text[0] != '\0'), "%s without a reason",
          ringside_status_name(status));
}

/* A visitor from connect to close; what it was told. */
static ringside_status_t receive_visitor(const struct broker *broker, const char *when)
{
    struct actor visitor;
    actor_start(&visitor, "visitor", broker, visit, NULL);
    actor_join(&visitor);
    ringside_status_t status = (ringside_status_t)(int64_t)actor_result(&visitor, RESULT_STATUS);
    /* Of many alike the first is told. */
    static ringside_status_t told = RINGSIDE_E_BUG;
    if (status != told) {
        tell("%s: %s%s%s", when, ringside_status_name(status), status == RINGSIDE_OK ? "" : ": ",
             status == RINGSIDE_OK ? "" : visitor.shared->text);
        told = status;
    }
    actor_forget(&visitor);
    check(!program_has_ended(&broker->program), "%s: the broker ended", when);
    return status;
}

/* ---- those that are there ----------------------------------------------------------------------
 */

struct scene {
    struct broker broker;
    struct actor reader;
    struct actor writer;
    struct resources before;
};

static void begin_scene(struct scene *scene, const char *const *flags)
{
    static struct stream_writing steady = {.prefix = "fault.steady",
                                           .stream_count = 2,
                                           .bytes_max = 1024,
                                           .burst = 16,
                                           .rest_ns = 2000000};
    static struct stream_reading all = {.subject = "fault.>", .policy = RINGSIDE_POLICY_BLOCK};
    resources_start_broker(&scene->broker, flags);
    actor_start(&scene->reader, "reader", &scene->broker, stream_read_actor, &all);
    actor_await_step(&scene->reader, STREAM_READY);
    actor_start(&scene->writer, "writer", &scene->broker, stream_write_actor, &steady);
    actor_await_step(&scene->writer, STREAM_READY);
    for (unsigned number = 0; number < WARM_UP_COUNT; number++) {
        check(receive_visitor(&scene->broker, "without a limit") == RINGSIDE_OK, "no visitor fits");
    }
    await(broker_counter(&scene->broker, "broker.topics", NULL) == 2, "the visitor's topic stays");
    resources_use_topics(&scene->broker, TOPIC_COUNT_MAX);
    await(broker_counter(&scene->broker, "broker.sessions", NULL) == 2, "the visitor stays");
    resources_settle(&scene->before, &scene->broker);
    resources_tell(&scene->before, "before");
}

static void end_scene(struct scene *scene)
{
    struct resources after;
    check(receive_visitor(&scene->broker, "without a limit") == RINGSIDE_OK,
          "a visitor does not fit any more");
    resources_await(&after, &scene->broker, &scene->before, HEAP_GROWTH_BYTES);
    resources_tell(&after, "after");
    stream_await_reader(&scene->reader, stream_stop_writer(&scene->writer));
    tell("those that were there: %" PRIu64 " messages, all; longest time without one %.1f ms",
         actor_result(&scene->reader, STREAM_RESULT_RECEIVED),
         (double)actor_result(&scene->reader, STREAM_RESULT_QUIET_NS) / 1e6);
    stream_leave(&scene->writer);
    stream_leave(&scene->reader);
    check(broker_stop(&scene->broker) == 0, "the broker did not stop cleanly");
}

/* Small tables: what is touched page by page, as slots come round, is touched soon. */
static const char *const usual_flags[] = {"--log-bytes=1MiB",
                                          "--message-bytes-max=64KiB",
                                          "--client-count-max=16",
                                          "--publication-count-max=64",
                                          "--publisher-count-max=64",
                                          "--topic-count-max=64",
                                          NULL};

static void limit_broker(const struct broker *broker, int resource, uint64_t value)
{
    struct rlimit limit;
    check(prlimit(broker->program.pid, (__rlimit_resource_t)resource, NULL, &limit) == 0,
          "prlimit: %s", strerror(errno));
    limit.rlim_cur = value < limit.rlim_max ? value : limit.rlim_max;
    check(prlimit(broker->program.pid, (__rlimit_resource_t)resource, &limit, NULL) == 0,
          "prlimit: %s", strerror(errno));
}

/* ---- descriptors -------------------------------------------------------------------------------
 */

/* A link over dpdk:// needs none: it is one of many on a port that is open. */
static bool link_needs_descriptor(void)
{
    return !is_transport("dpdk");
}

static void test_descriptors(void)
{
    struct scene scene;
    uint64_t refused_count = 0;
    ringside_status_t status = RINGSIDE_OK;
    begin_scene(&scene, usual_flags);
    for (int spare = SPARE_FD_COUNT_MIN; spare <= SPARE_FD_COUNT_MAX; spare++) {
        char when[64];
        snprintf(when, sizeof(when), "%d descriptors left", spare);
        limit_broker(&scene.broker, RLIMIT_NOFILE,
                     scene.before.fd_count + (uint64_t)(int64_t)spare);
        status = receive_visitor(&scene.broker, when);
        refused_count += status != RINGSIDE_OK;
    }
    check((refused_count > 0) == link_needs_descriptor(), "%" PRIu64 " were refused",
          refused_count);
    check(status == RINGSIDE_OK, "a visitor needs more than %d descriptors", SPARE_FD_COUNT_MAX);
    limit_broker(&scene.broker, RLIMIT_NOFILE, RLIM_INFINITY);
    const char *log = read_file(scene.broker.program.output_path);
    check(!link_needs_descriptor() || strstr(log, "ulimit -n") != NULL ||
              strstr(log, "Too many open files") != NULL,
          "the log does not say what is missing");
    end_scene(&scene);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

static uint64_t address_space_bytes(const struct broker *broker)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/statm", (int)broker->program.pid);
    return strtoull(read_file(path), NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void test_memory(void)
{
    struct scene scene;
    uint64_t refused_count = 0;
    uint64_t fits_count = 0;
    if (!resources_can_watch()) {
        tell("passed over: a sanitizer ends the program when it finds no memory for itself");
        return;
    }
    begin_scene(&scene, usual_flags);
    for (uint64_t step = 0; step < SPARE_STEP_COUNT && fits_count < FITS_COUNT; step++) {
        char when[64];
        snprintf(when, sizeof(when), "%" PRIu64 " KiB of memory left",
                 step * SPARE_STEP_BYTES >> 10);
        limit_broker(&scene.broker, RLIMIT_AS,
                     address_space_bytes(&scene.broker) + step * SPARE_STEP_BYTES);
        bool fits = receive_visitor(&scene.broker, when) == RINGSIDE_OK;
        fits_count = fits ? fits_count + 1 : 0;
        refused_count += !fits;
    }
    check(refused_count > 0, "nobody was refused");
    limit_broker(&scene.broker, RLIMIT_AS, RLIM_INFINITY);
    end_scene(&scene);
}

/* Every allocation of taking a newcomer in is refused, one at a time. */
static void test_allocations(void)
{
    struct scene scene;
    uint64_t refused_count = 0;
    uint64_t number = 0;
    if (!resources_can_watch()) {
        tell("passed over: a sanitizer has the allocator");
        return;
    }
    begin_scene(&scene, usual_flags);
    _Atomic uint64_t *countdown = &resources_malloc()->refusal_countdown;
    for (; number < REFUSED_ALLOCATION_COUNT_MAX && rsi_load_relaxed(countdown) == 0; number++) {
        char when[64];
        snprintf(when, sizeof(when), "without allocation %" PRIu64, number + 1);
        rsi_store_relaxed(countdown, number + 1);
        refused_count += receive_visitor(&scene.broker, when) != RINGSIDE_OK;
    }
    /* The last one asked for fewer than that. */
    check(rsi_load_relaxed(countdown) != 0, "a visitor needs more than %d allocations",
          REFUSED_ALLOCATION_COUNT_MAX);
    rsi_store_relaxed(countdown, 0);
    tell("%" PRIu64 " visitors were each refused one allocation of the broker: %" PRIu64
         " were told so, the others had what they needed",
         number - 1, refused_count);
    check(refused_count > 0, "nobody was refused");
    end_scene(&scene);
}

/* A broker that may lock next to nothing: said once, and everything works all the same. */
static void test_memory_lock(void)
{
    const struct rlimit limit = {.rlim_cur = 64 << 10, .rlim_max = 64 << 10};
    struct scene scene;
    /* Else root may lock what it likes. Holds for what is executed from here on. */
    if (prctl(PR_CAPBSET_DROP, CAPABILITY_IPC_LOCK) != 0 && geteuid() == 0) {
        fail("cannot drop CAP_IPC_LOCK: %s", strerror(errno));
    }
    check(setrlimit(RLIMIT_MEMLOCK, &limit) == 0, "setrlimit: %s", strerror(errno));
    begin_scene(&scene, usual_flags);
    check(strstr(read_file(scene.broker.program.output_path), "memlock") != NULL,
          "the log does not name the memlock limit");
    end_scene(&scene);
}

/* ---- disk --------------------------------------------------------------------------------------
 */

/* The test's folder becomes a file system of that size, seen by this test only. */
static bool mount_small_disk(const char *size)
{
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("small", test_folder(), "tmpfs", 0, size) == 0;
}

static void fill_disk(void)
{
    static const uint8_t zeros[4096];
    char path[PATH_BYTES];
    int fd = open(test_path(path, "ballast"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    check(fd >= 0, "%s: %s", path, strerror(errno));
    while (write(fd, zeros, sizeof(zeros)) > 0) {
        ;
    }
    check(errno == ENOSPC, "writing %s: %s", path, strerror(errno));
    close(fd);
}

/* No room for the counters file: the broker does not start, and says why. */
static void test_disk_at_start(void)
{
    char path[PATH_BYTES];
    char flag[PATH_BYTES + 32];
    char output[4096];
    if (!mount_small_disk("size=64k")) {
        tell("passed over: this user may not mount (%s)", strerror(errno));
        return;
    }
    snprintf(flag, sizeof(flag), "--counters-path=%s", test_path(path, "counters"));
    int code =
        run_command((const char *const[]){"ringsided", "--listen=tcp://127.0.0.1:0", flag, NULL},
                    output, sizeof(output));
    tell("code %d: %.*s", code, (int)strcspn(output, "\n"), output);
    check(code > 0 && code < 128, "code %d", code);
    check_text(output, path);
    check(access(path, F_OK) != 0, "it left half a counters file");
}

/* The disk fills while the broker runs: its counters have their room already. */
static void test_disk_later(void)
{
    struct scene scene;
    if (!mount_small_disk("size=16m")) {
        tell("passed over: this user may not mount (%s)", strerror(errno));
        return;
    }
    begin_scene(&scene, usual_flags);
    fill_disk();
    for (unsigned number = 0; number < 20; number++) {
        check(receive_visitor(&scene.broker, "disk full") == RINGSIDE_OK, "it was refused");
    }
    end_scene(&scene);
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"descriptors", test_descriptors, NULL},
        {"memory", test_memory, NULL},
        {"allocations", test_allocations, NULL},
        {"memory to lock", test_memory_lock, "tcp shm"}, /* rdma cannot do without */
        {"disk full at start", test_disk_at_start, "tcp"},
        {"disk full later", test_disk_later, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
