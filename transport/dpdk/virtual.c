/*
 * Design notes
 * - One mutex per switch, over everything: a test's port may lock, and two threads then see what
 *   two machines would.
 * - A frame is copied from the sender's pool into one of the receiver's, so that each port gives
 *   back only what is its own, as with a device.
 * - Frames are in order and lost only by a full receive ring or an empty pool: all other trouble is
 *   the fault layer's (fault.c).
 * - With wakes=1 a port has a receive interrupt, as virtio has one: told once, when a frame comes
 *   after it was armed.
 */
#include "transport/dpdk/virtual.h"

#include "core/atomics.h"
#include "core/text.h"
#include "core/waker.h"
#include "transport/dpdk/packet.h"
#include "transport/dpdk/pairs.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX             "virtual:"
#define PORT_COUNT_MAX     32u
#define POOL_FRAME_COUNT   6144u
#define RECEIVE_COUNT_MAX  65536u
#define MTU_DEFAULT        1500u
#define RECEIVE_DEFAULT    512u
#define SWITCH_NAME_BYTES  64u
#define MAC_PREFIX_LOCALLY 0x02u

struct virtual_frame {
    struct virtual_frame *next;
    uint64_t due_ns;
    uint32_t bytes;
    uint8_t *data;
};

struct virtual_port {
    struct rsi_port base;
    struct virtual_switch *switch_;
    uint8_t *memory;
    struct virtual_frame *frames;
    struct rsi_waker waker; /* with wakes=1 */
    bool wakes;

    /* Under the switch's mutex. */
    struct virtual_frame *free;
    struct virtual_frame *oldest;
    struct virtual_frame *newest;
    uint32_t waiting_count;
};

struct virtual_switch {
    struct virtual_switch *next;
    char name[SWITCH_NAME_BYTES];
    pthread_mutex_t lock;
    struct virtual_port *ports[PORT_COUNT_MAX];
    uint32_t port_count;
    uint64_t latency_ns;
    uint64_t now_ns;
    uint64_t overflow_count;
};

/* All switches; its lock is taken before a switch's. */
static struct {
    pthread_mutex_t lock;
    struct virtual_switch *list;
    uint32_t mac_count;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct virtual_port *to_virtual(struct rsi_port *port)
{
    return (struct virtual_port *)(void *)port;
}

/* ---- frames ---------------------------------------------------------------------------------- */

static struct virtual_frame *pool_take(struct virtual_port *port)
{
    struct virtual_frame *frame = port->free;
    if (frame != NULL) {
        port->free = frame->next;
    }
    return frame;
}

static void pool_give(struct virtual_port *port, struct virtual_frame *frame)
{
    frame->next = port->free;
    port->free = frame;
}

static uint32_t virtual_acquire(struct rsi_port *base, struct rsi_port_frame *frames,
                                uint32_t count)
{
    struct virtual_port *port = to_virtual(base);
    uint32_t taken = 0;
    pthread_mutex_lock(&port->switch_->lock);
    for (; taken < count; taken++) {
        struct virtual_frame *frame = pool_take(port);
        if (frame == NULL) {
            break;
        }
        frames[taken] = (struct rsi_port_frame){.data = frame->data, .handle = frame};
    }
    pthread_mutex_unlock(&port->switch_->lock);
    return taken;
}

static void virtual_release(struct rsi_port *base, struct rsi_port_frame *frames, uint32_t count)
{
    struct virtual_port *port = to_virtual(base);
    pthread_mutex_lock(&port->switch_->lock);
    for (uint32_t i = 0; i < count; i++) {
        pool_give(port, frames[i].handle);
    }
    pthread_mutex_unlock(&port->switch_->lock);
}

static uint32_t virtual_receive(struct rsi_port *base, struct rsi_port_frame *frames,
                                uint32_t count)
{
    struct virtual_port *port = to_virtual(base);
    uint32_t taken = 0;
    pthread_mutex_lock(&port->switch_->lock);
    while (taken < count && port->oldest != NULL && port->oldest->due_ns <= port->switch_->now_ns) {
        struct virtual_frame *frame = port->oldest;
        port->oldest = frame->next;
        port->waiting_count--;
        frames[taken++] =
            (struct rsi_port_frame){.data = frame->data, .bytes = frame->bytes, .handle = frame};
    }
    pthread_mutex_unlock(&port->switch_->lock);
    return taken;
}

/* ---- the switch ------------------------------------------------------------------------------ */

static void deliver(struct virtual_port *to, const struct rsi_port_frame *sent)
{
    struct virtual_switch *switch_ = to->switch_;
    uint32_t head_bytes = sent->bytes - sent->tail_bytes;
    if (sent->bytes > to->base.frame_bytes_max) {
        return;
    }
    struct virtual_frame *frame =
        to->waiting_count < to->base.receive_frames ? pool_take(to) : NULL;
    if (frame == NULL) {
        switch_->overflow_count++;
        return;
    }
    memcpy(frame->data, sent->data, head_bytes);
    if (sent->tail_bytes != 0) {
        memcpy(frame->data + head_bytes, sent->tail, sent->tail_bytes);
    }
    frame->bytes = sent->bytes;
    frame->due_ns = switch_->latency_ns == 0 ? 0 : switch_->now_ns + switch_->latency_ns;
    frame->next = NULL;
    if (to->oldest == NULL) {
        to->oldest = frame;
    } else {
        to->newest->next = frame;
    }
    to->newest = frame;
    to->waiting_count++;
    rsi_waker_wake(&to->waker);
}

static void forward(struct virtual_port *from, const struct rsi_port_frame *frame)
{
    struct virtual_switch *switch_ = from->switch_;
    for (uint32_t i = 0; i < switch_->port_count; i++) {
        struct virtual_port *to = switch_->ports[i];
        bool is_group = (frame->data[0] & 1u) != 0;
        if (to != from && (is_group || memcmp(to->base.mac, frame->data, RSI_MAC_BYTES) == 0)) {
            deliver(to, frame);
        }
    }
}

static uint32_t virtual_transmit(struct rsi_port *base, uint32_t queue,
                                 struct rsi_port_frame *frames, uint32_t count)
{
    (void)queue;
    struct virtual_port *port = to_virtual(base);
    pthread_mutex_lock(&port->switch_->lock);
    for (uint32_t i = 0; i < count; i++) {
        forward(port, &frames[i]);
        pool_give(port, frames[i].handle);
    }
    pthread_mutex_unlock(&port->switch_->lock);
    return count;
}

static int virtual_arm(struct rsi_port *base)
{
    struct virtual_port *port = to_virtual(base);
    if (!port->wakes) {
        return -1;
    }
    rsi_waker_prepare(&port->waker);
    return port->waker.fd;
}

static void virtual_disarm(struct rsi_port *base, int fd)
{
    (void)fd;
    rsi_waker_finish(&to_virtual(base)->waker);
}

static void virtual_thread(struct rsi_port *port)
{
    (void)port;
}

static bool virtual_link_up(struct rsi_port *port)
{
    (void)port;
    return true;
}

/* Under all.lock: the last port takes its switch with it. */
static void leave_switch(struct virtual_port *port)
{
    struct virtual_switch *switch_ = port->switch_;
    pthread_mutex_lock(&switch_->lock);
    uint32_t index = 0;
    while (switch_->ports[index] != port) {
        index++;
    }
    switch_->ports[index] = switch_->ports[--switch_->port_count];
    bool is_empty = switch_->port_count == 0;
    pthread_mutex_unlock(&switch_->lock);
    if (!is_empty) {
        return;
    }
    struct virtual_switch **place = &all.list;
    while (*place != switch_) {
        place = &(*place)->next;
    }
    *place = switch_->next;
    pthread_mutex_destroy(&switch_->lock);
    free(switch_);
}

static void port_free(struct virtual_port *port)
{
    rsi_waker_fini(&port->waker);
    free(port->memory);
    free(port->frames);
    free(port);
}

static void virtual_close(struct rsi_port *base)
{
    struct virtual_port *port = to_virtual(base);
    pthread_mutex_lock(&all.lock);
    leave_switch(port);
    pthread_mutex_unlock(&all.lock);
    port_free(port);
}

static const struct rsi_port_operations virtual_operations = {
    .receive = virtual_receive,
    .release = virtual_release,
    .acquire = virtual_acquire,
    .transmit = virtual_transmit,
    .arm = virtual_arm,
    .disarm = virtual_disarm,
    .thread_begin = virtual_thread,
    .thread_end = virtual_thread,
    .link_up = virtual_link_up,
    .close = virtual_close,
};

/* ---- opening --------------------------------------------------------------------------------- */

struct arguments {
    char name[SWITCH_NAME_BYTES];
    uint64_t mtu;
    uint64_t receive;
    uint64_t latency_ns;
    uint64_t wakes;
    uint64_t tails;
};

static rsi_status_t parse_argument(struct arguments *arguments, const char *key, const char *value,
                                   struct rsi_error *error)
{
    if (strcmp(key, "mtu") == 0) {
        return rsi_parse_number(&arguments->mtu, value, 576, 16000, error);
    }
    if (strcmp(key, "receive") == 0) {
        return rsi_parse_number(&arguments->receive, value, 16, RECEIVE_COUNT_MAX, error);
    }
    if (strcmp(key, "latency") == 0) {
        return rsi_parse_number(&arguments->latency_ns, value, 0, UINT64_MAX, error);
    }
    if (strcmp(key, "wakes") == 0) {
        return rsi_parse_number(&arguments->wakes, value, 0, 1, error);
    }
    if (strcmp(key, "tails") == 0) {
        return rsi_parse_number(&arguments->tails, value, 0, 1, error);
    }
    return rsi_fail(error, RSI_E_INVALID,
                    "a virtual port has no '%s'; it has mtu, receive, latency, wakes and tails",
                    key);
}

static rsi_status_t parse(struct arguments *arguments, const char *text, struct rsi_error *error)
{
    *arguments = (struct arguments){.mtu = MTU_DEFAULT, .receive = RECEIVE_DEFAULT};
    const char *rest = text + strlen(PREFIX);
    size_t name_bytes = strcspn(rest, ",");
    if (name_bytes == 0 || name_bytes >= sizeof(arguments->name)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s': a virtual port is written virtual:NAME[,key=value...]", text);
    }
    memcpy(arguments->name, rest, name_bytes);
    rest += name_bytes;
    while (*rest == ',') {
        struct rsi_port_pair pair;
        rest++;
        rsi_status_t status = rsi_port_pair_take(&pair, &rest, ",", text, error);
        if (status != RSI_OK) {
            return status;
        }
        status = parse_argument(arguments, pair.key, pair.value, error);
        if (status != RSI_OK) {
            rsi_error_context(error, "'%s'", text);
            return status;
        }
    }
    return RSI_OK;
}

static struct virtual_switch *find_switch(const char *name)
{
    struct virtual_switch *switch_ = all.list;
    while (switch_ != NULL && strcmp(switch_->name, name) != 0) {
        switch_ = switch_->next;
    }
    return switch_;
}

/* Under all.lock. NULL: no memory. */
static struct virtual_switch *find_or_make_switch(const struct arguments *arguments)
{
    struct virtual_switch *switch_ = find_switch(arguments->name);
    if (switch_ != NULL) {
        return switch_;
    }
    switch_ = calloc(1, sizeof(*switch_));
    if (switch_ == NULL) {
        return NULL;
    }
    snprintf(switch_->name, sizeof(switch_->name), "%s", arguments->name);
    pthread_mutex_init(&switch_->lock, NULL);
    switch_->next = all.list;
    all.list = switch_;
    return switch_;
}

/* Under all.lock. */
static bool join_switch(struct virtual_port *port, const struct arguments *arguments)
{
    struct virtual_switch *switch_ = find_or_make_switch(arguments);
    if (switch_ == NULL || switch_->port_count == PORT_COUNT_MAX) {
        return false;
    }
    pthread_mutex_lock(&switch_->lock);
    if (arguments->latency_ns != 0) {
        switch_->latency_ns = arguments->latency_ns;
    }
    port->switch_ = switch_;
    switch_->ports[switch_->port_count++] = port;
    pthread_mutex_unlock(&switch_->lock);
    return true;
}

static struct virtual_port *make_port(const struct arguments *arguments)
{
    uint32_t frame_bytes = RSI_ETHERNET_BYTES + (uint32_t)arguments->mtu;
    uint32_t stride_bytes = (frame_bytes + 63) & ~63u;
    struct virtual_port *port = calloc(1, sizeof(*port));
    if (port == NULL) {
        return NULL;
    }
    port->wakes = arguments->wakes != 0;
    uint32_t frame_count = POOL_FRAME_COUNT + (uint32_t)arguments->receive;
    port->memory = malloc((size_t)stride_bytes * frame_count);
    port->frames = calloc(frame_count, sizeof(*port->frames));
    if (port->memory == NULL || port->frames == NULL) {
        port_free(port);
        return NULL;
    }
    for (uint32_t i = 0; i < frame_count; i++) {
        port->frames[i].data = port->memory + (size_t)i * stride_bytes;
        pool_give(port, &port->frames[i]);
    }
    port->base.operations = &virtual_operations;
    port->base.frame_bytes_max = frame_bytes;
    port->base.receive_frames = (uint32_t)arguments->receive;
    port->base.transmit_queue_count = 1;
    port->base.tail_bytes_min = arguments->tails != 0 ? 1 : UINT32_MAX;
    snprintf(port->base.name, sizeof(port->base.name), "virtual:%.32s", arguments->name);
    return port;
}

static void set_mac(struct virtual_port *port, const uint8_t *mac)
{
    if (mac != NULL) {
        memcpy(port->base.mac, mac, RSI_MAC_BYTES);
        return;
    }
    uint32_t count = ++all.mac_count;
    port->base.mac[0] = MAC_PREFIX_LOCALLY;
    rsi_packet_put_32(port->base.mac + 2, count);
}

bool rsi_virtual_port_is_named(const char *text)
{
    return strncmp(text, PREFIX, strlen(PREFIX)) == 0;
}

rsi_status_t rsi_virtual_port_open(struct rsi_port **port, const char *text, const uint8_t *mac,
                                   struct rsi_error *error)
{
    struct arguments arguments;
    rsi_status_t status = parse(&arguments, text, error);
    if (status != RSI_OK) {
        return status;
    }
    struct virtual_port *made = make_port(&arguments);
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for the frames of a virtual port");
    }
    status = made->wakes ? rsi_waker_init(&made->waker, error) : RSI_OK;
    if (status != RSI_OK) {
        port_free(made);
        return status;
    }
    pthread_mutex_lock(&all.lock);
    set_mac(made, mac);
    bool has_joined = join_switch(made, &arguments);
    pthread_mutex_unlock(&all.lock);
    if (!has_joined) {
        port_free(made);
        return rsi_fail(error, RSI_E_LIMIT, "virtual switch '%s' has its %u ports already",
                        arguments.name, PORT_COUNT_MAX);
    }
    *port = &made->base;
    return RSI_OK;
}

/* ---- test hooks ------------------------------------------------------------------------------ */

void rsi_virtual_set_now(const char *name, uint64_t now_ns)
{
    pthread_mutex_lock(&all.lock);
    struct virtual_switch *switch_ = find_switch(name);
    if (switch_ != NULL) {
        pthread_mutex_lock(&switch_->lock);
        switch_->now_ns = now_ns;
        pthread_mutex_unlock(&switch_->lock);
    }
    pthread_mutex_unlock(&all.lock);
}

uint64_t rsi_virtual_overflow_count(const char *name)
{
    uint64_t count = 0;
    pthread_mutex_lock(&all.lock);
    struct virtual_switch *switch_ = find_switch(name);
    if (switch_ != NULL) {
        pthread_mutex_lock(&switch_->lock);
        count = switch_->overflow_count;
        pthread_mutex_unlock(&switch_->lock);
    }
    pthread_mutex_unlock(&all.lock);
    return count;
}
