/*
 * The double's world: options, the lock, counting and failing calls, faults, what is left.
 *
 * Design notes
 * - A world begins by itself with the first call, so that a program which knows nothing of the
 *   double (the conformance suite) runs on it; it is then checked when the program exits.
 * - A fault ends the program at once, where the stack still shows who broke the rule. Only the
 *   double's own tests keep faults, to show that each rule is watched.
 * - A fork after the first call is a fault in the child: that is what a device would make of it,
 *   only later and less clearly.
 */
#include "transport/rdma/verbs_double_internal.h"

#include "core/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define STEPS_PER_TURN    24
#define IDLE_WAIT_NS      1000000
#define DEVICE_NAP_CHANCE 64 /* one turn of the device thread in this many is followed by a nap */

struct double_world double_world = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                    .news = PTHREAD_COND_INITIALIZER};

/* What is to fail, and what did; outlives worlds. */
static struct {
    uint64_t nth;
    unsigned kinds;
    const char *name;
    uint64_t name_nth;
    int name_reason;
    const char *failed_call;
} failing;

static struct {
    bool are_kept;
    uint32_t count;
    char first[400];
} faults;

/* ---- faults --------------------------------------------------------------------------------- */

void double_fault(const char *format, ...)
{
    char text[sizeof(faults.first)];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    if (!faults.are_kept) {
        fprintf(stderr, "verbs double: %s (seed %" PRIu64 ")\n", text, double_world.options.seed);
        fflush(NULL);
        abort();
    }
    if (faults.count++ == 0) {
        memcpy(faults.first, text, sizeof(text));
    }
}

void verbs_double_keep_faults(bool are_kept)
{
    faults.are_kept = are_kept;
    faults.count = 0;
    faults.first[0] = 0;
}

uint32_t verbs_double_fault_count(void)
{
    return faults.count;
}

const char *verbs_double_first_fault(void)
{
    return faults.first;
}

/* ---- time and chance ------------------------------------------------------------------------ */

uint64_t double_now_ns(void)
{
    return rsi_clock_now_ns() + double_world.skew_ns;
}

uint64_t double_random(uint64_t bound)
{
    double_world.random += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t mixed = double_world.random;
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return (mixed ^ mixed >> 31) % bound;
}

/* ---- objects -------------------------------------------------------------------------------- */

void *double_alloc(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (memory == NULL) {
        double_fault("no memory for the double itself");
        abort();
    }
    return memory;
}

void double_add(struct double_object *object, enum double_kind kind, void *memory)
{
    object->kind = kind;
    object->memory = memory;
    object->number = ++double_world.next_number;
    object->next = double_world.objects[kind];
    double_world.objects[kind] = object;
}

static void object_free(struct double_object *object)
{
    free(object->owned[0]);
    free(object->owned[1]);
    free(object->memory);
}

void double_remove(struct double_object *object)
{
    struct double_object **link = &double_world.objects[object->kind];
    while (*link != object) {
        link = &(*link)->next;
    }
    *link = object->next;
    object_free(object);
}

void double_excuse(struct double_object *object)
{
    pthread_mutex_lock(&double_world.lock);
    object->is_excused = true;
    pthread_mutex_unlock(&double_world.lock);
}

bool double_has_excused(void)
{
    for (int kind = 0; kind < DOUBLE_KIND_COUNT; kind++) {
        DOUBLE_EACH(at, kind)
        {
            if (at->is_excused) {
                return true;
            }
        }
    }
    return false;
}

/* The low 8 bits are what ibv_inc_rkey changes. */
uint32_t double_new_key(void)
{
    double_world.next_key++;
    return double_world.next_key << 8 | (uint32_t)double_random(256);
}

int double_bell_create(void)
{
    return eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
}

void double_bell_ring(int fd)
{
    uint64_t one = 1;
    if (write(fd, &one, sizeof(one)) != (ssize_t)sizeof(one)) {
        double_fault("the double cannot ring descriptor %d: was it closed?", fd);
    }
}

void double_bell_take(int fd)
{
    uint64_t one = 0;
    if (read(fd, &one, sizeof(one)) != (ssize_t)sizeof(one)) {
        double_fault("the double cannot read its descriptor %d: who else did?", fd);
    }
}

int double_bell_is_silent(int fd, const char *name)
{
    if ((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0) {
        double_fault("%s would wait: nothing is there, and its descriptor blocks", name);
    }
    errno = EAGAIN;
    return -1;
}

struct double_device *double_device_of(struct ibv_context *context)
{
    return rsi_container_of(context, struct double_device, context);
}

struct double_device *double_device_at(const struct sockaddr *address)
{
    if (address == NULL || address->sa_family != AF_INET) {
        return NULL;
    }
    const struct sockaddr_in *wanted = (const struct sockaddr_in *)(const void *)address;
    for (uint32_t i = 0; i < VERBS_DOUBLE_DEVICE_COUNT; i++) {
        if (double_world.devices[i].address.s_addr == wanted->sin_addr.s_addr) {
            return &double_world.devices[i];
        }
    }
    return NULL;
}

/* ---- calls ---------------------------------------------------------------------------------- */

static bool must_fail(const char *name, enum verbs_double_call_kind kind)
{
    if (failing.name_nth > 0 && strcmp(failing.name, name) == 0 && --failing.name_nth == 0) {
        failing.failed_call = name;
        errno = failing.name_reason;
        return true;
    }
    if (failing.nth > 0 && (failing.kinds & (unsigned)kind) != 0 && --failing.nth == 0) {
        failing.failed_call = name;
        errno = ENOMEM;
        return true;
    }
    return false;
}

static void end_at_exit(void)
{
    if (double_world.is_begun && double_world.pid == getpid()) {
        verbs_double_end();
    }
}

bool double_enter(const char *name, enum verbs_double_call_kind kind)
{
    pthread_mutex_lock(&double_world.lock);
    if (!double_world.is_begun) {
        struct verbs_double_options options;
        pthread_mutex_unlock(&double_world.lock);
        verbs_double_options_init(&options);
        verbs_double_begin(&options);
        (void)atexit(end_at_exit);
        pthread_mutex_lock(&double_world.lock);
    }
    if (double_world.pid != getpid()) {
        double_fault("%s was called after a fork: registered memory and queue pairs do not survive "
                     "one",
                     name);
    }
    if (must_fail(name, kind)) {
        pthread_mutex_unlock(&double_world.lock);
        return false;
    }
    return true;
}

void double_leave(void)
{
    int kept = errno;
    if (double_world.has_thread) {
        pthread_cond_signal(&double_world.news);
    }
    pthread_mutex_unlock(&double_world.lock);
    errno = kept;
}

int double_refuse(int reason)
{
    double_leave();
    errno = reason;
    return -1;
}

void verbs_double_fail_nth(uint64_t nth, unsigned kinds)
{
    pthread_mutex_lock(&double_world.lock);
    failing.nth = nth;
    failing.kinds = kinds;
    failing.name_nth = 0;
    failing.failed_call = NULL;
    pthread_mutex_unlock(&double_world.lock);
}

void verbs_double_fail_named(const char *name, uint64_t nth, int reason)
{
    pthread_mutex_lock(&double_world.lock);
    failing.name = name;
    failing.name_nth = nth;
    failing.name_reason = reason;
    failing.nth = 0;
    failing.failed_call = NULL;
    pthread_mutex_unlock(&double_world.lock);
}

const char *verbs_double_failed_call(void)
{
    pthread_mutex_lock(&double_world.lock);
    const char *name = failing.failed_call;
    pthread_mutex_unlock(&double_world.lock);
    return name;
}

/* ---- the device thread ---------------------------------------------------------------------- */

static void wait_for_news(void)
{
    struct timespec until;
    if (!double_awaits_time()) {
        pthread_cond_wait(&double_world.news, &double_world.lock);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += IDLE_WAIT_NS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&double_world.news, &double_world.lock, &until);
}

static void *device_thread(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&double_world.lock);
    while (!double_world.must_stop) {
        double_expire_connects();
        if (double_steps(1 + double_random(STEPS_PER_TURN)) == 0) {
            wait_for_news();
            continue;
        }
        bool naps = double_random(DEVICE_NAP_CHANCE) == 0;
        pthread_mutex_unlock(&double_world.lock);
        if (naps) {
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        }
        pthread_mutex_lock(&double_world.lock);
    }
    pthread_mutex_unlock(&double_world.lock);
    return NULL;
}

/* ---- begin and end -------------------------------------------------------------------------- */

static bool word_value(const char *word, const char *name, uint64_t *value)
{
    size_t bytes = strlen(name);
    if (strncmp(word, name, bytes) != 0 || word[bytes] != '=') {
        return false;
    }
    *value = strtoull(word + bytes + 1, NULL, 10);
    return true;
}

static void read_word(struct verbs_double_options *options, const char *word)
{
    uint64_t value = 0;
    if (strcmp(word, "pace=once") == 0) {
        options->pace = VERBS_DOUBLE_AT_ONCE;
    } else if (strcmp(word, "pace=stepped") == 0) {
        options->pace = VERBS_DOUBLE_STEPPED;
    } else if (strcmp(word, "pace=threaded") == 0) {
        options->pace = VERBS_DOUBLE_THREADED;
    } else if (word_value(word, "seed", &value)) {
        options->seed = value;
    } else if (word_value(word, "inline", &value)) {
        options->inline_bytes_max = (uint32_t)value;
    } else if (word_value(word, "message", &value)) {
        options->message_bytes_max = (uint32_t)value;
    } else if (word_value(word, "completions", &value)) {
        options->completions_max = (int)value;
    } else if (word_value(word, "windows", &value)) {
        options->has_no_windows = value == 0;
    } else {
        double_fault("RINGSIDE_VERBS_DOUBLE has '%s', which means nothing", word);
    }
}

void verbs_double_options_init(struct verbs_double_options *options)
{
    *options = (struct verbs_double_options){
        .pace = VERBS_DOUBLE_AT_ONCE,
        .seed = 1,
        .inline_bytes_max = DOUBLE_INLINE_BYTES_MAX,
        .message_bytes_max = 8u << 20,
        .completions_max = 32767,
        .retry_ns = 300000000,
    };
    const char *environment = getenv("RINGSIDE_VERBS_DOUBLE");
    char words[200];
    snprintf(words, sizeof(words), "%s", environment != NULL ? environment : "");
    char *rest = NULL;
    for (char *word = strtok_r(words, " ", &rest); word != NULL;
         word = strtok_r(NULL, " ", &rest)) {
        read_word(options, word);
    }
}

static const char *const kind_names[] = {
    [DOUBLE_DEVICE_LIST] = "device list",
    [DOUBLE_PD] = "protection domain",
    [DOUBLE_REGION] = "memory region",
    [DOUBLE_WINDOW] = "memory window",
    [DOUBLE_CHANNEL] = "completion channel",
    [DOUBLE_CQ] = "completion queue",
    [DOUBLE_QP] = "queue pair",
    [DOUBLE_EVENT_CHANNEL] = "event channel",
    [DOUBLE_ID] = "connection id",
    [DOUBLE_EVENT] = "event not acknowledged",
};

/* Counts what the user still has into `text`. */
static uint64_t count_left(char *text, size_t text_bytes)
{
    uint64_t all = 0;
    text[0] = 0;
    for (int kind = 0; kind < DOUBLE_KIND_COUNT; kind++) {
        uint64_t count = 0;
        for (const struct double_object *object = double_world.objects[kind]; object != NULL;
             object = object->next) {
            count += !object->is_excused;
        }
        size_t used = strlen(text);
        if (count > 0) {
            snprintf(text + used, text_bytes - used, "%s%" PRIu64 " %s%s", all > 0 ? ", " : "",
                     count, kind_names[kind], count > 1 ? "s" : "");
        }
        all += count;
    }
    return all;
}

static void devices_init(void)
{
    static const char *const names[VERBS_DOUBLE_DEVICE_COUNT] = {"double_a", "double_b"};
    static const char *const addresses[VERBS_DOUBLE_DEVICE_COUNT] = {"10.7.0.1", "10.7.0.2"};
    for (uint32_t i = 0; i < VERBS_DOUBLE_DEVICE_COUNT; i++) {
        struct double_device *device = &double_world.devices[i];
        memset(device, 0, sizeof(*device));
        snprintf(device->device.name, sizeof(device->device.name), "%s", names[i]);
        device->device.node_type = IBV_NODE_CA;
        device->device.transport_type = IBV_TRANSPORT_IB;
        (void)inet_pton(AF_INET, addresses[i], &device->address);
        device->context.device = &device->device;
        device->context.num_comp_vectors = 1;
        device->context.cmd_fd = -1;
        device->context.async_fd = double_bell_create();
        double_memory_fill(&device->context.ops);
        double_queue_fill(&device->context.ops);
    }
}

void verbs_double_begin(const struct verbs_double_options *options)
{
    pthread_mutex_lock(&double_world.lock);
    if (double_world.is_begun) {
        double_fault("a world of the double begins before the last one ended");
    }
    double_world.options = *options;
    double_world.random = options->seed;
    double_world.skew_ns = 0;
    double_world.is_cut = false;
    double_world.must_stop = false;
    double_world.next_number = 0;
    double_world.next_key = 0;
    double_world.next_qp_number = 16 + (uint32_t)double_random(1000);
    double_world.next_port = (uint16_t)(40000 + double_random(10000));
    double_world.counts = (struct verbs_double_counts){0};
    double_world.pid = getpid();
    devices_init();
    double_world.is_begun = true;
    double_world.has_thread = options->pace == VERBS_DOUBLE_THREADED;
    if (double_world.has_thread &&
        pthread_create(&double_world.thread, NULL, device_thread, NULL) != 0) {
        double_fault("no thread for the double");
    }
    pthread_mutex_unlock(&double_world.lock);
}

void verbs_double_end(void)
{
    pthread_mutex_lock(&double_world.lock);
    double_world.must_stop = true;
    pthread_cond_signal(&double_world.news);
    pthread_mutex_unlock(&double_world.lock);
    if (double_world.has_thread) {
        pthread_join(double_world.thread, NULL);
    }
    pthread_mutex_lock(&double_world.lock);
    char text[300];
    if (count_left(text, sizeof(text)) > 0) {
        double_fault("at the end there is left: %s", text);
    }
    for (uint32_t i = 0; i < VERBS_DOUBLE_DEVICE_COUNT; i++) {
        close(double_world.devices[i].context.async_fd);
    }
    for (int kind = 0; kind < DOUBLE_KIND_COUNT; kind++) {
        while (double_world.objects[kind] != NULL) {
            struct double_object *object = double_world.objects[kind];
            double_world.objects[kind] = object->next;
            object_free(object);
        }
    }
    double_world.is_begun = false;
    double_world.has_thread = false;
    pthread_mutex_unlock(&double_world.lock);
}

/* ---- what a test asks ----------------------------------------------------------------------- */

void verbs_double_cut(bool is_cut)
{
    pthread_mutex_lock(&double_world.lock);
    double_world.is_cut = is_cut;
    if (!is_cut) {
        double_tell_delayed();
    }
    double_settle();
    double_leave();
}

uint64_t verbs_double_step(uint64_t count_max)
{
    pthread_mutex_lock(&double_world.lock);
    uint64_t count = double_steps(count_max);
    double_leave();
    return count;
}

void verbs_double_advance(uint64_t ns)
{
    pthread_mutex_lock(&double_world.lock);
    double_world.skew_ns += ns;
    double_expire_connects();
    double_settle();
    double_leave();
}

void verbs_double_count(struct verbs_double_counts *counts)
{
    pthread_mutex_lock(&double_world.lock);
    *counts = double_world.counts;
    char text[300];
    counts->live_objects = count_left(text, sizeof(text));
    pthread_mutex_unlock(&double_world.lock);
}

void verbs_double_raise(uint32_t device, enum ibv_event_type type)
{
    pthread_mutex_lock(&double_world.lock);
    struct double_device *raised = &double_world.devices[device];
    if (raised->event_count < rsi_array_count(raised->events)) {
        raised->events[raised->event_count++] = type;
        double_bell_ring(raised->context.async_fd);
    }
    double_leave();
}
