/*
 * The bare machine, to hold a benchmark against: floors [--json] [--rounds N]
 *
 * What a round trip costs without any Ringside: by a cache line between two spinning threads, by a
 * futex, an eventfd, a unix socket and a TCP connection over loopback between two that sleep, each
 * on one core and on two; and how fast memory is copied. 64 bytes where bytes travel. A round trip
 * is two hand-overs; one through a broker is four.
 *
 * One line per floor, percentiles in nanoseconds. What needs two cores is told and left out where
 * there is one.
 */
#include "core/atomics.h"
#include "core/clock.h"
#include "core/compiler.h"
#include "core/cpu.h"
#include "core/histogram.h"

#include <arpa/inet.h>
#include <err.h>
#include <inttypes.h>
#include <jansson.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MESSAGE_BYTES   64
#define WARM_UP_DIVISOR 10

/* One direction: what the one side writes and the other waits for. */
struct lane {
    RSI_ALIGNED_LINE _Atomic uint64_t line;
    RSI_ALIGNED_LINE _Atomic uint32_t futex;
    int descriptor; /* of the side that waits */
};

struct pair {
    const struct floor *floor;
    uint64_t round_count; /* with the warm-up */
    int cpus[2];
    struct lane lanes[2]; /* lanes[i]: side i waits on it */
    struct rsi_histogram latency;
};

/* How a hand-over is done: tell the other side, wait for it. */
struct floor {
    const char *name;
    bool spins; /* needs a core for each side */
    void (*open)(struct pair *pair);
    void (*tell)(struct lane *theirs, struct lane *mine, uint64_t round);
    void (*wait)(struct lane *mine, uint64_t round);
};

/* ---- ways to hand over --------------------------------------------------------------------------
 */

static void open_nothing(struct pair *pair)
{
    (void)pair;
}

static void line_tell(struct lane *theirs, struct lane *mine, uint64_t round)
{
    (void)mine;
    rsi_store_release(&theirs->line, round);
}

static void line_wait(struct lane *mine, uint64_t round)
{
    while (rsi_load_acquire(&mine->line) < round) {
        rsi_cpu_pause();
    }
}

static void futex_tell(struct lane *theirs, struct lane *mine, uint64_t round)
{
    (void)mine;
    rsi_store_release(&theirs->futex, (uint32_t)round);
    syscall(SYS_futex, &theirs->futex, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void futex_wait(struct lane *mine, uint64_t round)
{
    uint32_t seen = rsi_load_acquire(&mine->futex);
    while (seen != (uint32_t)round) {
        syscall(SYS_futex, &mine->futex, FUTEX_WAIT, seen, NULL, NULL, 0);
        seen = rsi_load_acquire(&mine->futex);
    }
}

static void open_eventfds(struct pair *pair)
{
    for (int side = 0; side < 2; side++) {
        pair->lanes[side].descriptor = eventfd(0, EFD_CLOEXEC);
        if (pair->lanes[side].descriptor < 0) {
            err(1, "eventfd");
        }
    }
}

static void eventfd_tell(struct lane *theirs, struct lane *mine, uint64_t round)
{
    const uint64_t one = 1;
    (void)mine;
    (void)round;
    if (write(theirs->descriptor, &one, sizeof(one)) != sizeof(one)) {
        err(1, "write to an eventfd");
    }
}

static void eventfd_wait(struct lane *mine, uint64_t round)
{
    uint64_t count = 0;
    (void)round;
    if (read(mine->descriptor, &count, sizeof(count)) != sizeof(count)) {
        err(1, "read from an eventfd");
    }
}

static void open_unix(struct pair *pair)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        err(1, "socketpair");
    }
    pair->lanes[0].descriptor = ends[0];
    pair->lanes[1].descriptor = ends[1];
}

static void set_no_delay(int descriptor)
{
    const int on = 1;
    if (setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
        err(1, "TCP_NODELAY");
    }
}

static void open_tcp(struct pair *pair)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int dialler = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || dialler < 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &bytes) != 0 ||
        connect(dialler, (struct sockaddr *)&address, sizeof(address)) != 0) {
        err(1, "a TCP connection over loopback");
    }
    int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (accepted < 0) {
        err(1, "accept");
    }
    close(listener);
    set_no_delay(dialler);
    set_no_delay(accepted);
    pair->lanes[0].descriptor = dialler;
    pair->lanes[1].descriptor = accepted;
}

static void socket_tell(struct lane *theirs, struct lane *mine, uint64_t round)
{
    const uint64_t message[MESSAGE_BYTES / sizeof(uint64_t)] = {round};
    (void)theirs;
    if (send(mine->descriptor, message, sizeof(message), MSG_NOSIGNAL) != sizeof(message)) {
        err(1, "send");
    }
}

static void socket_wait(struct lane *mine, uint64_t round)
{
    uint64_t message[MESSAGE_BYTES / sizeof(uint64_t)];
    if (recv(mine->descriptor, message, sizeof(message), MSG_WAITALL) != sizeof(message)) {
        err(1, "recv");
    }
    if (message[0] != round) {
        errx(1, "round %" PRIu64 " came instead of %" PRIu64, message[0], round);
    }
}

static const struct floor floors[] = {
    {"cache line, spinning", true, open_nothing, line_tell, line_wait},
    {"futex", false, open_nothing, futex_tell, futex_wait},
    {"eventfd", false, open_eventfds, eventfd_tell, eventfd_wait},
    {"unix socket", false, open_unix, socket_tell, socket_wait},
    {"tcp loopback", false, open_tcp, socket_tell, socket_wait},
};

/* ---- ping and pong ------------------------------------------------------------------------------
 */

static void pin(int cpu)
{
    struct rsi_error error = {0};
    if (rsi_cpu_pin_thread((unsigned)cpu, &error) != RSI_OK) {
        errx(1, "%s", error.text);
    }
}

static void *run_pong(void *arg)
{
    struct pair *pair = arg;
    pin(pair->cpus[1]);
    for (uint64_t round = 1; round <= pair->round_count; round++) {
        pair->floor->wait(&pair->lanes[1], round);
        pair->floor->tell(&pair->lanes[0], &pair->lanes[1], round);
    }
    return NULL;
}

static void *run_ping(void *arg)
{
    struct pair *pair = arg;
    uint64_t warm_up_count = pair->round_count / WARM_UP_DIVISOR;
    pin(pair->cpus[0]);
    for (uint64_t round = 1; round <= pair->round_count; round++) {
        uint64_t start_ns = rsi_clock_now_ns();
        pair->floor->tell(&pair->lanes[1], &pair->lanes[0], round);
        pair->floor->wait(&pair->lanes[0], round);
        if (round > warm_up_count) {
            rsi_histogram_record(&pair->latency, rsi_clock_now_ns() - start_ns);
        }
    }
    return NULL;
}

static json_t *latency_json(const struct rsi_histogram *latency)
{
    static const double percentiles[] = {50, 90, 95, 99, 99.9};
    json_t *object = json_pack("{s:I}", "count", (json_int_t)latency->total_count);
    for (size_t i = 0; i < rsi_array_count(percentiles); i++) {
        char name[16];
        snprintf(name, sizeof(name), "p%g", percentiles[i]);
        json_object_set_new(
            object, name,
            json_integer((json_int_t)rsi_histogram_percentile(latency, percentiles[i])));
    }
    json_object_set_new(object, "max", json_integer((json_int_t)latency->max_value));
    return object;
}

/* One floor on the given cores. */
static json_t *measure(const struct floor *floor, uint64_t round_count, int ping_cpu, int pong_cpu)
{
    static struct pair pair;
    pthread_t ping;
    pthread_t pong;
    memset(&pair, 0, sizeof(pair));
    pair.floor = floor;
    pair.round_count = round_count + round_count / WARM_UP_DIVISOR;
    pair.cpus[0] = ping_cpu;
    pair.cpus[1] = pong_cpu;
    pair.lanes[0].descriptor = -1;
    pair.lanes[1].descriptor = -1;
    floor->open(&pair);
    /* Threads of their own: what is pinned stays so, and hands it on to those it starts. */
    if (pthread_create(&pong, NULL, run_pong, &pair) != 0 ||
        pthread_create(&ping, NULL, run_ping, &pair) != 0) {
        errx(1, "cannot start a thread");
    }
    pthread_join(ping, NULL);
    pthread_join(pong, NULL);
    for (int side = 0; side < 2; side++) {
        if (pair.lanes[side].descriptor >= 0) {
            close(pair.lanes[side].descriptor);
        }
    }
    return json_pack("{s:s, s:i, s:o}", "floor", floor->name, "cores", ping_cpu == pong_cpu ? 1 : 2,
                     "round_trip_ns", latency_json(&pair.latency));
}

/* ---- memory -------------------------------------------------------------------------------------
 */

/* Copies out of and into areas far larger than the caches, or within them when `bytes` is small. */
static json_t *measure_copy(size_t bytes, size_t area_bytes)
{
    const uint64_t budget_ns = 200000000;
    uint8_t *from = mmap(NULL, 2 * area_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (from == MAP_FAILED) {
        err(1, "no memory for %zu bytes", 2 * area_bytes);
    }
    uint8_t *to = from + area_bytes;
    uint64_t copied_bytes = 0;
    uint64_t start_ns = rsi_clock_now_ns();
    uint64_t elapsed_ns = 0;
    while (elapsed_ns < budget_ns) {
        for (size_t at = 0; at + bytes <= area_bytes; at += bytes) {
            memcpy(to + at, from + at, bytes);
            __asm__ volatile("" ::"r"(to + at) : "memory"); /* the copy is not for nothing */
        }
        copied_bytes += area_bytes / bytes * bytes;
        elapsed_ns = rsi_clock_now_ns() - start_ns;
    }
    munmap(from, 2 * area_bytes);
    return json_pack("{s:s, s:I, s:I, s:f}", "floor", "memcpy", "bytes", (json_int_t)bytes,
                     "area_bytes", (json_int_t)area_bytes, "bytes_per_second",
                     (double)copied_bytes * 1e9 / (double)elapsed_ns);
}

/* ---- report -------------------------------------------------------------------------------------
 */

static void print_text(const json_t *results)
{
    size_t index;
    const json_t *result;
    json_array_foreach(results, index, result)
    {
        const char *name = json_string_value(json_object_get(result, "floor"));
        const json_t *latency = json_object_get(result, "round_trip_ns");
        if (latency == NULL) {
            printf("%-22s %7" JSON_INTEGER_FORMAT " bytes of %9" JSON_INTEGER_FORMAT
                   " %8.2f GB/s\n",
                   name, json_integer_value(json_object_get(result, "bytes")),
                   json_integer_value(json_object_get(result, "area_bytes")),
                   json_real_value(json_object_get(result, "bytes_per_second")) / 1e9);
            continue;
        }
        printf("%-22s %" JSON_INTEGER_FORMAT " cores ", name,
               json_integer_value(json_object_get(result, "cores")));
        static const char *const names[] = {"p50", "p90", "p95", "p99", "p99.9", "max"};
        for (size_t i = 0; i < rsi_array_count(names); i++) {
            printf(" %s %.2f", names[i],
                   (double)json_integer_value(json_object_get(latency, names[i])) / 1e3);
        }
        printf(" us\n");
    }
}

int main(int argc, char **argv)
{
    uint64_t round_count = 50000;
    bool is_json = false;
    for (int i = 1; i < argc; i++) {
        char *end = NULL;
        if (strcmp(argv[i], "--json") == 0) {
            is_json = true;
        } else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
            round_count = strtoull(argv[++i], &end, 10);
        }
        if ((end == NULL && !is_json) || (end != NULL && *end != '\0') || round_count == 0 ||
            round_count > UINT32_MAX / 2) {
            errx(2, "usage: floors [--json] [--rounds N]");
        }
    }
    struct rsi_cpu_set allowed;
    struct rsi_error error = {0};
    if (rsi_cpu_allowed(&allowed, &error) != RSI_OK) {
        errx(1, "%s", error.text);
    }
    int first_cpu = rsi_cpu_set_next(&allowed, 0);
    int second_cpu = rsi_cpu_set_next(&allowed, (unsigned)first_cpu + 1);
    rsi_clock_prepare();
    json_t *results = json_array();
    for (size_t i = 0; i < rsi_array_count(floors); i++) {
        if (!floors[i].spins) {
            json_array_append_new(results, measure(&floors[i], round_count, first_cpu, first_cpu));
        }
        if (second_cpu >= 0) {
            json_array_append_new(results, measure(&floors[i], round_count, first_cpu, second_cpu));
        } else {
            fprintf(stderr, "floors: %s over two cores is left out: this thread may use one only\n",
                    floors[i].name);
        }
    }
    static const size_t sizes[] = {64, 1024, 16384, 1 << 20};
    for (size_t i = 0; i < rsi_array_count(sizes); i++) {
        json_array_append_new(results, measure_copy(sizes[i], 2 << 20));
        json_array_append_new(results, measure_copy(sizes[i], 256 << 20));
    }
    if (is_json) {
        json_dumpf(results, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        printf("\n");
    } else {
        print_text(results);
    }
    json_decref(results);
    return 0;
}
