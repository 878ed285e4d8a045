/*
 * Design notes
 * - Listeners are found by name in one list of the process, under one mutex that also guards their
 *   backlogs. A dialled link makes the wire and leaves it in the backlog; accept takes it from
 * there.
 * - An end is on the wire from dial or accept until CLOSED. Leaving it takes the poller's lock (so
 * no poll is in it), then the wire's (so the other end does not look at our ring).
 */
#include "transport/sim/sim.h"
#include "transport/sim/wire.h"

#include "core/assert.h"
#include "core/clock.h"
#include "transport/registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static pthread_mutex_t listeners_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sim_listener *listeners;

static struct sim_link *to_sim(struct rsi_link *link)
{
    return (struct sim_link *)(void *)link;
}

/* ---- domain ------------------------------------------------------------------------------------
 */

static rsi_status_t sim_domain_create(struct rsi_domain **domain,
                                      const struct rsi_domain_options *options,
                                      struct rsi_error *error)
{
    struct sim_domain *sim = calloc(1, sizeof(*sim));
    if (sim == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a sim domain");
    }
    sim->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (sim->event_fd < 0) {
        rsi_status_t status =
            rsi_fail_errno(error, rsi_status_from_errno(errno), errno, "eventfd of a sim domain");
        free(sim);
        return status;
    }
    sim->domain.transport = &rsi_sim_transport;
    sim->domain.options = *options;
    if (options->seed == 0) {
        sim->domain.options.seed = sim_default_seed();
    }
    *domain = &sim->domain;
    return RSI_OK;
}

static void sim_domain_destroy(struct rsi_domain *domain)
{
    struct sim_domain *sim = (struct sim_domain *)(void *)domain;
    close(sim->event_fd);
    free(sim);
}

static int sim_domain_fd(struct rsi_domain *domain)
{
    return ((struct sim_domain *)(void *)domain)->event_fd;
}

static uint32_t sim_domain_poll_control(struct rsi_domain *domain, uint64_t now_ns)
{
    (void)now_ns;
    uint64_t event_count = 0;
    ssize_t bytes = read(sim_domain_fd(domain), &event_count, sizeof(event_count));
    return bytes == (ssize_t)sizeof(event_count) ? (uint32_t)event_count : 0;
}

/* ---- poller ------------------------------------------------------------------------------------
 */

static rsi_status_t sim_poller_create(struct rsi_poller **poller, struct rsi_domain *domain,
                                      const struct rsi_poller_options *options,
                                      struct rsi_error *error)
{
    struct sim_poller *sim = calloc(1, sizeof(*sim));
    if (sim == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a sim poller");
    }
    rsi_status_t status = rsi_waker_init(&sim->waker, error);
    if (status != RSI_OK) {
        free(sim);
        return status;
    }
    pthread_mutex_init(&sim->lock, NULL);
    sim->poller.transport = &rsi_sim_transport;
    sim->poller.domain = domain;
    sim->poller.control_waker = options->control_waker;
    sim->poller.owner_waker = options->owner_waker;
    sim->poller.link_count_max = options->link_count_max;
    sim_remember_poller(sim);
    *poller = &sim->poller;
    return RSI_OK;
}

static void sim_poller_destroy(struct rsi_poller *poller)
{
    struct sim_poller *sim = (struct sim_poller *)(void *)poller;
    rsi_assert(sim->links == NULL);
    sim_forget_poller(sim);
    pthread_mutex_destroy(&sim->lock);
    rsi_waker_fini(&sim->waker);
    free(sim);
}

/* ---- links: joining and leaving a wire
 * ----------------------------------------------------------- */

/* A link on its poller, without a wire. */
static rsi_status_t link_create(struct sim_link **link, struct rsi_poller *poller,
                                struct rsi_error *error)
{
    struct sim_link *sim = rsi_link_alloc(sizeof(*sim));
    if (sim == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a sim link");
    }
    rsi_status_t status = rsi_link_init(&sim->link, &rsi_sim_transport, poller, error);
    if (status != RSI_OK) {
        rsi_link_free(sim);
        return status;
    }
    uint64_t timeout_ns = poller->domain->options.connect_timeout_ns;
    sim->deadline_ns = rsi_clock_now_ns() + (timeout_ns != 0 ? timeout_ns : SIM_CONNECT_DEFAULT_NS);
    *link = sim;
    return RSI_OK;
}

/* Room on the poller for one link more? */
static rsi_status_t check_link_count(struct sim_poller *poller, struct rsi_error *error)
{
    pthread_mutex_lock(&poller->lock);
    bool is_full = poller->link_count >= poller->poller.link_count_max;
    pthread_mutex_unlock(&poller->lock);
    if (is_full) {
        return rsi_fail(error, RSI_E_LIMIT,
                        "the poller has its %u links already; raise "
                        "link_count_max",
                        poller->poller.link_count_max);
    }
    return RSI_OK;
}

/* Takes an end of the wire; the wire's reference is the caller's to give. */
static void join_wire(struct sim_link *sim, struct sim_wire *wire, uint32_t side)
{
    struct sim_poller *poller = (struct sim_poller *)(void *)sim->link.poller;
    sim->wire = wire;
    sim->side = side;
    pthread_mutex_lock(&wire->lock);
    struct sim_end *own = sim_own_end(sim);
    own->link = sim;
    own->poller = poller;
    own->domain = (struct sim_domain *)(void *)sim->link.poller->domain;
    rsi_greeting_init(&own->greeting, &own->domain->domain.options);
    own->has_greeting = true;
    sim->connect_polls = (uint32_t)sim_random(wire, SIM_DELAY_TICKS_MAX);
    sim_tell_domain(sim_peer_end(sim));
    pthread_mutex_unlock(&wire->lock);

    pthread_mutex_lock(&poller->lock);
    sim->next = poller->links;
    poller->links = sim;
    poller->link_count++;
    pthread_mutex_unlock(&poller->lock);
    rsi_waker_wake(sim->link.poller->owner_waker);
}

/* Afterwards neither the own poller nor the other end refers to the link. The wire itself stays
 * until destroy: the owner thread may be on its way into a call. */
static void leave_wire(struct sim_link *sim)
{
    struct sim_poller *poller = (struct sim_poller *)(void *)sim->link.poller;
    pthread_mutex_lock(&poller->lock);
    struct sim_link **place = &poller->links;
    while (*place != sim) {
        place = &(*place)->next;
    }
    *place = sim->next;
    poller->link_count--;
    pthread_mutex_unlock(&poller->lock);

    pthread_mutex_lock(&sim->wire->lock);
    struct sim_end *own = sim_own_end(sim);
    own->link = NULL;
    own->poller = NULL;
    own->domain = NULL;
    sim_sent(sim)->has_ended = true;
    sim_wake_end(sim_peer_end(sim));
    sim_tell_domain(sim_peer_end(sim));
    pthread_mutex_unlock(&sim->wire->lock);
}

/* ---- listener ----------------------------------------------------------------------------------
 */

/* Under listeners_lock. */
static struct sim_listener *find_listener(const char *name)
{
    struct sim_listener *listener = listeners;
    while (listener != NULL && strcmp(listener->name, name) != 0) {
        listener = listener->next;
    }
    return listener;
}

static rsi_status_t sim_listener_create(struct rsi_listener **listener, struct rsi_domain *domain,
                                        const struct rsi_url *url, struct rsi_error *error)
{
    struct sim_listener *sim = calloc(1, sizeof(*sim));
    if (sim == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a sim listener");
    }
    sim->listener.transport = &rsi_sim_transport;
    sim->listener.domain = domain;
    sim->process = sim_process();
    snprintf(sim->name, sizeof(sim->name), "%s", url->path);
    rsi_url_format(url, sim->url, sizeof(sim->url));
    pthread_mutex_lock(&listeners_lock);
    bool is_taken = find_listener(sim->name) != NULL;
    if (!is_taken) {
        sim->next = listeners;
        listeners = sim;
    }
    pthread_mutex_unlock(&listeners_lock);
    if (is_taken) {
        free(sim);
        return rsi_fail(error, RSI_E_ADDRESS, "sim://%s is in use in this process", url->path);
    }
    *listener = &sim->listener;
    return RSI_OK;
}

/* Tells the dialling end that nobody will accept, and gives up the backlog's reference. */
static void refuse_wire(struct sim_wire *wire)
{
    pthread_mutex_lock(&wire->lock);
    wire->directions[1].has_ended = true;
    sim_wake_end(&wire->ends[0]);
    pthread_mutex_unlock(&wire->lock);
    sim_wire_release(wire);
}

static void sim_listener_destroy(struct rsi_listener *listener)
{
    struct sim_listener *sim = (struct sim_listener *)(void *)listener;
    pthread_mutex_lock(&listeners_lock);
    struct sim_listener **place = &listeners;
    while (*place != NULL && *place != sim) {
        place = &(*place)->next;
    }
    if (*place == sim) { /* else its process was killed */
        *place = sim->next;
    }
    pthread_mutex_unlock(&listeners_lock);
    for (uint32_t i = 0; i < sim->backlog_count; i++) {
        refuse_wire(sim->backlog[i]);
    }
    free(sim);
}

/* The memory is the dead process's. */
void sim_kill_listeners(uint64_t process)
{
    pthread_mutex_lock(&listeners_lock);
    struct sim_listener **place = &listeners;
    while (*place != NULL) {
        struct sim_listener *listener = *place;
        if (listener->process != process) {
            place = &listener->next;
            continue;
        }
        *place = listener->next;
        while (listener->backlog_count > 0) {
            refuse_wire(listener->backlog[--listener->backlog_count]);
        }
    }
    pthread_mutex_unlock(&listeners_lock);
}

static const char *sim_listener_url(const struct rsi_listener *listener)
{
    return ((const struct sim_listener *)(const void *)listener)->url;
}

/* ---- dial and accept ---------------------------------------------------------------------------
 */

/* A new wire, one end for the caller and one in the backlog of the listener `name`. */
static rsi_status_t wire_to_listener(struct sim_wire **wire, const char *name, uint32_t agent_hint,
                                     struct rsi_error *error)
{
    rsi_status_t status = RSI_OK;
    pthread_mutex_lock(&listeners_lock);
    struct sim_listener *listener = find_listener(name);
    if (listener == NULL) {
        status = rsi_fail(error, RSI_E_NOT_FOUND,
                          "nobody listens at sim://%s in this process; sim is for tests", name);
        goto unlock;
    }
    if (listener->backlog_count == SIM_LISTENER_BACKLOG) {
        status = rsi_fail(error, RSI_E_LIMIT, "%u links wait to be accepted at sim://%s already",
                          SIM_LISTENER_BACKLOG, name);
        goto unlock;
    }
    uint64_t seed = listener->listener.domain->options.seed;
    struct sim_wire *made = sim_wire_create(seed * 0x100000001b3ull + ++listener->wire_count);
    if (made == NULL) {
        status = rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a simulated wire");
        goto unlock;
    }
    made->reference_count++;
    made->agent_hint = agent_hint;
    listener->backlog[listener->backlog_count++] = made;
    sim_tell_domain(
        &(struct sim_end){.domain = (struct sim_domain *)(void *)listener->listener.domain});
    *wire = made;
unlock:
    pthread_mutex_unlock(&listeners_lock);
    return status;
}

static rsi_status_t sim_link_dial(struct rsi_link **link, struct rsi_poller *poller,
                                  const struct rsi_url *url, struct rsi_error *error)
{
    rsi_status_t status = check_link_count((struct sim_poller *)(void *)poller, error);
    if (status != RSI_OK) {
        return status;
    }
    struct sim_link *sim;
    status = link_create(&sim, poller, error);
    if (status != RSI_OK) {
        return status;
    }
    struct sim_wire *wire = NULL;
    status = wire_to_listener(&wire, url->path, poller->domain->options.agent_hint, error);
    if (status != RSI_OK) {
        rsi_link_fini(&sim->link);
        rsi_link_free(sim);
        return status;
    }
    snprintf(sim->link.local_text, sizeof(sim->link.local_text), "sim dialler");
    snprintf(sim->link.peer_text, sizeof(sim->link.peer_text), "sim://%.80s", url->path);
    join_wire(sim, wire, 0);
    *link = &sim->link;
    return RSI_OK;
}

/* The oldest wire of the backlog whose dialling end is still there; NULL: none. */
static struct sim_wire *take_backlog(struct sim_listener *listener)
{
    struct sim_wire *taken = NULL;
    pthread_mutex_lock(&listeners_lock);
    while (taken == NULL && listener->backlog_count > 0) {
        struct sim_wire *oldest = listener->backlog[0];
        listener->backlog_count--;
        memmove(&listener->backlog[0], &listener->backlog[1],
                listener->backlog_count * sizeof(listener->backlog[0]));
        pthread_mutex_lock(&oldest->lock);
        bool has_ended = oldest->directions[0].has_ended;
        pthread_mutex_unlock(&oldest->lock);
        if (has_ended) {
            sim_wire_release(oldest);
        } else {
            taken = oldest;
        }
    }
    pthread_mutex_unlock(&listeners_lock);
    return taken;
}

static rsi_status_t sim_link_accept(struct rsi_link **link, struct rsi_listener *listener,
                                    const struct rsi_poller_choice *choice, struct rsi_error *error)
{
    struct sim_listener *sim_listener = (struct sim_listener *)(void *)listener;
    struct sim_wire *wire = take_backlog(sim_listener);
    if (wire == NULL) {
        return RSI_WOULD_BLOCK;
    }
    struct rsi_poller *poller = rsi_poller_choose(choice, wire->agent_hint);
    struct sim_link *sim;
    rsi_status_t status = check_link_count((struct sim_poller *)(void *)poller, error);
    if (status == RSI_OK) {
        status = link_create(&sim, poller, error);
    }
    if (status != RSI_OK) {
        refuse_wire(wire);
        return status;
    }
    snprintf(sim->link.local_text, sizeof(sim->link.local_text), "sim://%.80s", sim_listener->name);
    snprintf(sim->link.peer_text, sizeof(sim->link.peer_text), "sim dialler");
    join_wire(sim, wire, 1);
    *link = &sim->link;
    return RSI_OK;
}

/* ---- attach ------------------------------------------------------------------------------------
 */

static rsi_status_t make_ring(struct rsi_ring *ring, const char *name, uint64_t bytes,
                              struct rsi_error *error)
{
    if (bytes == 0) {
        return RSI_OK;
    }
    const struct rsi_ring_options options = {
        .name = name,
        .capacity_bytes = bytes,
        .node = RSI_NODE_ANY,
    };
    return rsi_ring_init(ring, &options, error);
}

static rsi_status_t sim_link_attach(struct rsi_link *link, const struct rsi_link_rings *rings,
                                    struct rsi_error *error)
{
    struct sim_link *sim = to_sim(link);
    if (rsi_link_state(link) != RSI_LINK_OPEN) {
        return rsi_fail(error, RSI_E_STATE, "attach of a link that is %s; it must be OPEN",
                        rsi_link_state_name(rsi_link_state(link)));
    }
    rsi_status_t status = rsi_link_rings_check(rings, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_ring out = {0};
    struct rsi_ring in = {0};
    status = make_ring(&out, "sim out ring", rings->out_bytes, error);
    if (status != RSI_OK) {
        return status;
    }
    status = make_ring(&in, "sim in ring", rings->in_bytes, error);
    if (status != RSI_OK) {
        rsi_ring_fini(&out);
        return status;
    }
    link->out = out;
    link->in = in;
    sim->rings = *rings;
    rsi_link_set_start(link, rings);
    pthread_mutex_lock(&sim->wire->lock);
    rsi_attach_init(&sim_own_end(sim)->attach, rings);
    sim_own_end(sim)->has_attach = true;
    sim_received(sim)->arrived_pos = link->arrived_pos;
    sim_received(sim)->consumed_pos = link->consumed_pos;
    sim_tell_domain(sim_peer_end(sim));
    pthread_mutex_unlock(&sim->wire->lock);
    rsi_link_set_state(link, RSI_LINK_ATTACHING);
    return RSI_OK;
}

/* ---- steps of one link -------------------------------------------------------------------------
 */

static void step_connecting(struct sim_link *sim, uint64_t now_ns)
{
    struct rsi_link *link = &sim->link;
    pthread_mutex_lock(&sim->wire->lock);
    bool has_greeting = sim_peer_end(sim)->has_greeting;
    link->peer_greeting = sim_peer_end(sim)->greeting;
    pthread_mutex_unlock(&sim->wire->lock);
    if (has_greeting && sim->connect_polls > 0) {
        sim->connect_polls--;
        return;
    }
    if (has_greeting) {
        struct rsi_error error;
        rsi_status_t status = rsi_greeting_check(&link->peer_greeting, RSI_GREETING_BYTES,
                                                 &link->poller->domain->options, &error);
        if (status == RSI_OK) {
            rsi_link_set_state(link, RSI_LINK_OPEN);
        } else {
            rsi_link_lose_error(link, &error);
        }
        return;
    }
    if (rsi_link_take_failure(link)) {
        return;
    }
    if (now_ns >= sim->deadline_ns) {
        rsi_link_lose(link, RSI_E_TIMED_OUT, "nobody accepted the link to %s in time",
                      link->peer_text);
    }
}

static void step_attaching(struct sim_link *sim)
{
    struct rsi_link *link = &sim->link;
    pthread_mutex_lock(&sim->wire->lock);
    bool has_attach = sim_peer_end(sim)->has_attach;
    struct rsi_attach attach = sim_peer_end(sim)->attach;
    pthread_mutex_unlock(&sim->wire->lock);
    if (!has_attach) {
        (void)rsi_link_take_failure(link);
        return;
    }
    struct rsi_error error;
    if (rsi_attach_check(&attach, &sim->rings, &error) != RSI_OK) {
        rsi_link_lose_error(link, &error);
        return;
    }
    rsi_link_set_state(link, RSI_LINK_ATTACHED);
    rsi_waker_wake(&((struct sim_poller *)(void *)link->poller)->waker);
}

/* Until the peer took what was in the outbox, or cannot, or the time is over. */
static void step_closing(struct sim_link *sim, uint64_t now_ns)
{
    struct rsi_link *link = &sim->link;
    struct sim_poller *poller = (struct sim_poller *)(void *)link->poller;
    pthread_mutex_lock(&poller->lock); /* keeps the owner thread out of the outbox */
    pthread_mutex_lock(&sim->wire->lock);
    const struct sim_direction *sent = sim_sent(sim);
    bool is_drained =
        rsi_mailbox_is_empty(&link->outbox) && sent->message_front == sent->message_back;
    bool is_futile = sim_is_cut(sim->wire) || sim_received(sim)->has_ended ||
                     rsi_load_acquire(&link->failed) || sim_peer_end(sim)->link == NULL;
    pthread_mutex_unlock(&sim->wire->lock);
    pthread_mutex_unlock(&poller->lock);
    if (is_drained || is_futile || now_ns >= sim->deadline_ns) {
        leave_wire(sim);
        rsi_link_set_state(link, RSI_LINK_CLOSED);
    }
}

/* LOST and later. */
static void look_at_peer(struct sim_link *sim)
{
    pthread_mutex_lock(&sim->wire->lock);
    sim->link.peer_has_ended |= sim_received(sim)->has_died;
    pthread_mutex_unlock(&sim->wire->lock);
}

static void sim_link_poll_control(struct rsi_link *link, uint64_t now_ns)
{
    struct sim_link *sim = to_sim(link);
    switch (rsi_link_state(link)) {
    case RSI_LINK_CONNECTING:
        step_connecting(sim, now_ns);
        break;
    case RSI_LINK_ATTACHING:
        step_attaching(sim);
        break;
    case RSI_LINK_OPEN:
    case RSI_LINK_ATTACHED:
        (void)rsi_link_take_failure(link);
        break;
    case RSI_LINK_CLOSING:
        step_closing(sim, now_ns);
        break;
    case RSI_LINK_LOST:
    case RSI_LINK_CLOSED:
        break;
    }
    if (rsi_link_state(link) >= RSI_LINK_LOST) {
        look_at_peer(sim);
    }
}

static void sim_link_close(struct rsi_link *link)
{
    enum rsi_link_state state = rsi_link_state(link);
    if (state == RSI_LINK_CLOSING || state == RSI_LINK_CLOSED) {
        return;
    }
    to_sim(link)->deadline_ns = rsi_clock_now_ns() + SIM_CLOSE_NS;
    rsi_link_set_state(link, RSI_LINK_CLOSING);
}

static void sim_link_destroy(struct rsi_link *link)
{
    rsi_assert(rsi_link_state(link) == RSI_LINK_CLOSED);
    rsi_ring_fini(&link->out);
    rsi_ring_fini(&link->in);
    sim_wire_release(to_sim(link)->wire);
    rsi_link_fini(link);
    rsi_link_free(link);
}

const struct rsi_transport rsi_sim_transport = {
    .name = "sim",
    .batch_bytes_max = RSI_RING_BYTES_MAX,
    .peer_is_local = true,
    .domain_create = sim_domain_create,
    .domain_destroy = sim_domain_destroy,
    .domain_fd = sim_domain_fd,
    .domain_poll_control = sim_domain_poll_control,
    .poller_create = sim_poller_create,
    .poller_destroy = sim_poller_destroy,
    .listener_create = sim_listener_create,
    .listener_destroy = sim_listener_destroy,
    .listener_url = sim_listener_url,
    .link_accept = sim_link_accept,
    .link_dial = sim_link_dial,
    .link_attach = sim_link_attach,
    .link_poll_control = sim_link_poll_control,
    .link_close = sim_link_close,
    .link_destroy = sim_link_destroy,
    .place = rsi_link_place_in_ring,
    .flush = sim_flush,
    .publish_consumed = sim_publish_consumed,
    .request_wake = sim_request_wake,
    .poll_data = sim_poll_data,
    .poller_arm = sim_poller_arm,
    .poller_disarm = sim_poller_disarm,
    .poller_fd = sim_poller_fd,
};
