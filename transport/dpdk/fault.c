/*
 * Design notes
 * - Works on what is received, one thread at a time, so that its random numbers need no lock and a
 *   run in one thread repeats.
 * - What is held back lies in a small table; when that is full, frames pass. Held frames come with
 *   a later receive, also when nothing new came, so that the last one is not held for ever.
 */
#include "transport/dpdk/fault.h"

#include "core/counters.h"
#include "core/text.h"
#include "transport/dpdk/packet.h"
#include "transport/dpdk/pairs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX              "fault:"
#define PPM                 1000000u
#define HELD_COUNT_MAX      64u
#define REORDER_FRAMES_MAX  8u
#define DELAY_LOOKS_MAX     64u
#define REORDER_LOOKS_LIMIT 256u /* nothing follows: it comes all the same */

static const char *const kind_names[RSI_FAULT_KIND_COUNT] = {
    [RSI_FAULT_DROP] = "drop",         [RSI_FAULT_DUPLICATE] = "duplicate",
    [RSI_FAULT_REORDER] = "reorder",   [RSI_FAULT_DELAY] = "delay",
    [RSI_FAULT_TRUNCATE] = "truncate", [RSI_FAULT_CORRUPT] = "corrupt",
};

/* Of a port's counters: one for each kind of fault, and then */
#define COUNTER_LOST_BYTES RSI_FAULT_KIND_COUNT
#define COUNTER_COUNT      (RSI_FAULT_KIND_COUNT + 1u)

struct held_frame {
    struct rsi_port_frame frame;
    uint32_t frames_left; /* that may still pass it */
    uint32_t looks_left;
};

struct fault_port {
    struct rsi_port base;
    struct rsi_port *inner;
    uint32_t ppm[RSI_FAULT_KIND_COUNT];
    bool (*filter)(void *context, const struct rsi_port_frame *frame);
    void *filter_context;
    char counters_path[RSI_PORT_PAIR_BYTES];
    struct rsi_counters *counters;

    /* Whoever receives. */
    uint64_t random;
    struct held_frame held[HELD_COUNT_MAX];
    uint32_t held_count;
    struct rsi_counter *counts[COUNTER_COUNT];
};

static struct fault_port *to_fault(struct rsi_port *port)
{
    return (struct fault_port *)(void *)port;
}

/* splitmix64; below `bound`. */
static uint32_t next_random(struct fault_port *port, uint32_t bound)
{
    port->random += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t mixed = port->random;
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((mixed ^ mixed >> 31) % bound);
}

static bool strikes(struct fault_port *port, enum rsi_fault_kind kind)
{
    if (port->ppm[kind] == 0 || next_random(port, PPM) >= port->ppm[kind]) {
        return false;
    }
    rsi_counter_add(port->counts[kind], 1);
    return true;
}

static void count_lost(struct fault_port *port, const struct rsi_port_frame *frame)
{
    struct rsi_packet packet;
    if (rsi_packet_parse(&packet, frame)) {
        rsi_counter_add(port->counts[COUNTER_LOST_BYTES], rsi_packet_ring_bytes(&packet));
    }
}

/* ---- receiving ------------------------------------------------------------------------------- */

static bool is_dropped(struct fault_port *port, const struct rsi_port_frame *frame)
{
    bool is_filtered = port->filter != NULL && port->filter(port->filter_context, frame);
    if (is_filtered) {
        rsi_counter_add(port->counts[RSI_FAULT_DROP], 1);
    }
    return is_filtered || strikes(port, RSI_FAULT_DROP);
}

static void spoil(struct fault_port *port, struct rsi_port_frame *frame)
{
    if (frame->bytes > 1 && strikes(port, RSI_FAULT_TRUNCATE)) {
        count_lost(port, frame);
        frame->bytes = 1 + next_random(port, frame->bytes - 1);
    }
    if (strikes(port, RSI_FAULT_CORRUPT)) {
        count_lost(port, frame);
        frame->data[next_random(port, frame->bytes)] ^= (uint8_t)(1u << next_random(port, 8));
    }
}

static bool hold(struct fault_port *port, const struct rsi_port_frame *frame, uint32_t frames_left,
                 uint32_t looks_left)
{
    if (port->held_count == HELD_COUNT_MAX) {
        return false;
    }
    port->held[port->held_count++] =
        (struct held_frame){.frame = *frame, .frames_left = frames_left, .looks_left = looks_left};
    return true;
}

static bool is_held(struct fault_port *port, const struct rsi_port_frame *frame)
{
    if (strikes(port, RSI_FAULT_REORDER)) {
        return hold(port, frame, 1 + next_random(port, REORDER_FRAMES_MAX), REORDER_LOOKS_LIMIT);
    }
    if (strikes(port, RSI_FAULT_DELAY)) {
        return hold(port, frame, UINT32_MAX, 1 + next_random(port, DELAY_LOOKS_MAX));
    }
    return false;
}

/* A second one, in a frame of its own. */
static bool duplicate(struct fault_port *port, const struct rsi_port_frame *frame,
                      struct rsi_port_frame *copy)
{
    if (!strikes(port, RSI_FAULT_DUPLICATE) ||
        port->inner->operations->acquire(port->inner, copy, 1) != 1) {
        return false;
    }
    memcpy(copy->data, frame->data, frame->bytes);
    copy->bytes = frame->bytes;
    return true;
}

static void count_down(struct fault_port *port, uint32_t passed_frames)
{
    for (uint32_t i = 0; i < port->held_count; i++) {
        struct held_frame *held = &port->held[i];
        held->looks_left -= held->looks_left != 0 ? 1 : 0;
        held->frames_left -= held->frames_left < passed_frames ? held->frames_left : passed_frames;
    }
}

static uint32_t let_go(struct fault_port *port, struct rsi_port_frame *frames, uint32_t count)
{
    uint32_t taken = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < port->held_count; i++) {
        struct held_frame *held = &port->held[i];
        if (taken < count && (held->looks_left == 0 || held->frames_left == 0)) {
            frames[taken++] = held->frame;
        } else {
            port->held[kept++] = *held;
        }
    }
    port->held_count = kept;
    return taken;
}

/* One frame that came becomes none, one or two. */
static uint32_t pass(struct fault_port *port, struct rsi_port_frame *frame,
                     struct rsi_port_frame *out)
{
    if (is_dropped(port, frame)) {
        count_lost(port, frame);
        port->inner->operations->release(port->inner, frame, 1);
        return 0;
    }
    if (is_held(port, frame)) {
        return 0;
    }
    uint32_t count = duplicate(port, frame, &out[1]) ? 2 : 1;
    spoil(port, frame);
    out[0] = *frame;
    return count;
}

static uint32_t fault_receive(struct rsi_port *base, struct rsi_port_frame *frames, uint32_t count)
{
    struct fault_port *port = to_fault(base);
    struct rsi_port_frame came[32];
    uint32_t want = count / 2 < rsi_array_count(came) ? count / 2 : rsi_array_count(came);
    uint32_t came_count = port->inner->operations->receive(port->inner, came, want);
    uint32_t given = 0;
    for (uint32_t i = 0; i < came_count; i++) {
        given += pass(port, &came[i], &frames[given]);
    }
    count_down(port, came_count);
    return given + let_go(port, frames + given, count - given);
}

/* ---- the rest passes --------------------------------------------------------------------------
 */

static void fault_release(struct rsi_port *base, struct rsi_port_frame *frames, uint32_t count)
{
    struct rsi_port *inner = to_fault(base)->inner;
    inner->operations->release(inner, frames, count);
}

static uint32_t fault_acquire(struct rsi_port *base, struct rsi_port_frame *frames, uint32_t count)
{
    struct rsi_port *inner = to_fault(base)->inner;
    return inner->operations->acquire(inner, frames, count);
}

static uint32_t fault_transmit(struct rsi_port *base, uint32_t queue, struct rsi_port_frame *frames,
                               uint32_t count)
{
    struct rsi_port *inner = to_fault(base)->inner;
    return inner->operations->transmit(inner, queue, frames, count);
}

static void fault_thread_begin(struct rsi_port *base)
{
    struct rsi_port *inner = to_fault(base)->inner;
    inner->operations->thread_begin(inner);
}

static void fault_thread_end(struct rsi_port *base)
{
    struct rsi_port *inner = to_fault(base)->inner;
    inner->operations->thread_end(inner);
}

static bool fault_link_up(struct rsi_port *base)
{
    struct rsi_port *inner = to_fault(base)->inner;
    return inner->operations->link_up(inner);
}

static void free_port(struct fault_port *port)
{
    rsi_counters_destroy(port->counters);
    free(port);
}

static void fault_close(struct rsi_port *base)
{
    struct fault_port *port = to_fault(base);
    for (uint32_t i = 0; i < port->held_count; i++) {
        port->inner->operations->release(port->inner, &port->held[i].frame, 1);
    }
    port->inner->operations->close(port->inner);
    free_port(port);
}

static const struct rsi_port_operations fault_operations = {
    .receive = fault_receive,
    .release = fault_release,
    .acquire = fault_acquire,
    .transmit = fault_transmit,
    .thread_begin = fault_thread_begin,
    .thread_end = fault_thread_end,
    .link_up = fault_link_up,
    .close = fault_close,
};

/* ---- opening --------------------------------------------------------------------------------- */

bool rsi_fault_port_is_named(const char *text, const char **inner)
{
    const char *end = strchr(text, ';');
    if (strncmp(text, PREFIX, strlen(PREFIX)) != 0 || end == NULL) {
        return false;
    }
    *inner = end + 1;
    return true;
}

static rsi_status_t set_argument(struct fault_port *port, const char *key, const char *value,
                                 struct rsi_error *error)
{
    if (strcmp(key, "seed") == 0) {
        return rsi_parse_number(&port->random, value, 0, UINT64_MAX, error);
    }
    if (strcmp(key, "counters") == 0) {
        snprintf(port->counters_path, sizeof(port->counters_path), "%s", value);
        return RSI_OK;
    }
    for (uint32_t kind = 0; kind < RSI_FAULT_KIND_COUNT; kind++) {
        if (strcmp(key, kind_names[kind]) == 0) {
            uint64_t ppm = 0;
            rsi_status_t status = rsi_parse_number(&ppm, value, 0, PPM, error);
            port->ppm[kind] = (uint32_t)ppm;
            return status;
        }
    }
    return rsi_fail(error, RSI_E_INVALID,
                    "there is no fault '%s'; there are seed, drop, duplicate, reorder, delay, "
                    "truncate, corrupt and counters",
                    key);
}

static rsi_status_t parse(struct fault_port *port, const char *text, struct rsi_error *error)
{
    const char *rest = text + strlen(PREFIX);
    while (*rest != ';') {
        struct rsi_port_pair pair;
        rsi_status_t status = rsi_port_pair_take(&pair, &rest, ",;", text, error);
        if (status != RSI_OK) {
            return status;
        }
        rest += *rest == ',' ? 1 : 0;
        status = set_argument(port, pair.key, pair.value, error);
        if (status != RSI_OK) {
            rsi_error_context(error, "'%s'", text);
            return status;
        }
    }
    return RSI_OK;
}

static rsi_status_t make_counters(struct fault_port *port, struct rsi_error *error)
{
    const char *path = port->counters_path[0] != '\0' ? port->counters_path : NULL;
    rsi_status_t status = rsi_counters_create(&port->counters, path, COUNTER_COUNT, error);
    for (uint32_t i = 0; i < COUNTER_COUNT && status == RSI_OK; i++) {
        char name[RSI_COUNTER_NAME_BYTES];
        snprintf(name, sizeof(name), "fault.%s",
                 i == COUNTER_LOST_BYTES ? "lost_bytes" : kind_names[i]);
        status = rsi_counters_allocate(port->counters, RSI_COUNTER_KIND_COUNTER, name, "",
                                       &port->counts[i], error);
    }
    return status;
}

rsi_status_t rsi_fault_port_open(struct rsi_port **port, const char *text, struct rsi_port *inner,
                                 struct rsi_error *error)
{
    struct fault_port *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a fault layer");
    }
    rsi_status_t status = parse(made, text, error);
    if (status == RSI_OK) {
        status = make_counters(made, error);
    }
    if (status != RSI_OK) {
        free_port(made);
        return status;
    }
    made->base = *inner;
    made->base.operations = &fault_operations;
    made->inner = inner;
    *port = &made->base;
    return RSI_OK;
}

static uint64_t count_of(const struct rsi_port *port, uint32_t which)
{
    return rsi_counter_get(((const struct fault_port *)(const void *)port)->counts[which]);
}

uint64_t rsi_fault_port_count(const struct rsi_port *port, enum rsi_fault_kind kind)
{
    return count_of(port, kind);
}

uint64_t rsi_fault_port_lost_bytes(const struct rsi_port *port)
{
    return count_of(port, COUNTER_LOST_BYTES);
}

void rsi_fault_port_set_filter(struct rsi_port *port,
                               bool (*drops)(void *context, const struct rsi_port_frame *frame),
                               void *context)
{
    to_fault(port)->filter = drops;
    to_fault(port)->filter_context = context;
}
