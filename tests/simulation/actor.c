/*
 * Design notes
 * - An actor is an application: it uses ringside.h and nothing else (but for the numbers by which
 *   the oracle knows its session and publications). What it does next is chance; what it gets is
 *   told to the oracle at once.
 * - Time-outs of calls that must succeed are longer than any fault lasts. One that passes all the
 *   same is a lost wake-up or a deadlock.
 * - At the end of a run all flush first, then all wait until they have what they are owed, then
 *   leave.
 */
#include "tests/simulation/simulation.h"

#include "clients/c/client.h"
#include "core/assert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PUBLISHERS_MAX = 4, SUBSCRIPTIONS_MAX = 5, ROUNDS_MAX = 400, BURST_MAX = 24 };

#define MICROSECOND_NS UINT64_C(1000)
#define MILLISECOND_NS UINT64_C(1000000)
#define RESUME_NS      UINT64_C(60000000000)
#define SETTLE_NS      UINT64_C(200000000000)

static const char *const subjects[] = {
    "md.eu.a", "md.eu.b", "md.us.a", "md.us.b", "orders", "orders.new.x",
};
static const char *const patterns[] = {
    "md.eu.a", "md.*.a", "md.>", "md.us.*", "orders", "orders.>", ">", "*.*.b", "nobody.is.here",
};

struct held_publisher {
    ringside_publisher_t *publisher;
    struct oracle_publication *known;
};

struct held_subscription {
    ringside_subscription_t *subscription;
    struct oracle_subscription *known;
    struct actor *actor;
};

struct actor {
    uint32_t slot;
    char name[32];
    ringside_client_t *client;
    struct oracle_session *session;
    uint32_t policies[3]; /* that it asks for */
    uint32_t policy_count;
    uint32_t talkative; /* how much of what it does is publishing, of 16 */
    uint32_t slow;      /* how much is doing nothing, of 16 */
    uint32_t size_class;
    bool resumes;      /* goes on when its link is lost */
    bool is_impatient; /* the call under way may time out */
    bool is_over;      /* a call said that the session is over */
    struct held_publisher publishers[PUBLISHERS_MAX];
    struct held_subscription subscriptions[SUBSCRIPTIONS_MAX];
};

static uint32_t generation;
static uint64_t slot_faults[SIMULATION_ACTORS_MAX];

void actor_note_fault(uint32_t slot)
{
    slot_faults[slot]++;
}

/* ---- results ----------------------------------------------------------------------------------
 */

static bool is_end(ringside_status_t status)
{
    return status <= RINGSIDE_E_CLOSED && status > RINGSIDE_E_NO_DEVICE;
}

/* True: it was done. Else it may be that the session is over; what else went wrong is reported. */
static bool succeeded(struct actor *actor, ringside_status_t status, const char *call)
{
    if (status == RINGSIDE_OK) {
        return true;
    }
    if (status == RINGSIDE_WOULD_BLOCK || status == RINGSIDE_E_LIMIT ||
        (status == RINGSIDE_E_TIMED_OUT && actor->is_impatient)) {
        return false;
    }
    if (is_end(status)) {
        /* Poll says so last, after the events that tell why. */
        actor->is_over = true;
        if (strcmp(call, "poll") == 0) {
            oracle_session_over(actor->session, status, call, ringside_error_text(actor->client));
        }
        return false;
    }
    world_violation("%s: %s says %s: %s", actor->name, call, ringside_status_name(status),
                    ringside_error_text(actor->client));
}

/* Of a call that waits for the broker: mostly more than any fault lasts, now and then nothing. What
 * an impatient call asked for is answered when nobody waits for it any more. */
static uint64_t patience_ns(struct actor *actor)
{
    actor->is_impatient = world_one_in(16);
    return actor->is_impatient ? 1 + world_random(20 * MICROSECOND_NS) : SIMULATION_PATIENCE_NS;
}

/* ---- publishing -------------------------------------------------------------------------------
 */

static uint64_t random_bytes(const struct actor *actor)
{
    uint64_t max = ringside_message_bytes_max(actor->client);
    switch (world_random(4) + actor->size_class) {
    case 0:
    case 1:
        return world_random(65);
    case 2:
        return world_random(1 + max / 16);
    case 3:
        return world_random(1 + max / 4);
    default:
        return max - world_random(1 + max / 2);
    }
}

static uint32_t random_size(const struct actor *actor)
{
    uint64_t bytes = random_bytes(actor);
    /* After a broker's death a message is recognised by its bytes: it must have some. */
    return (uint32_t)(simulation.has_broker_faults && bytes < 8 ? 8 : bytes);
}

static struct held_publisher *random_publisher(struct actor *actor)
{
    struct held_publisher *held = &actor->publishers[world_random(PUBLISHERS_MAX)];
    return held->publisher != NULL ? held : NULL;
}

static ringside_status_t publish_by_claim(struct held_publisher *held, uint32_t bytes)
{
    void *buffer = NULL;
    uint32_t more_bytes = (uint32_t)world_random(64);
    ringside_status_t status = ringside_claim(held->publisher, bytes + more_bytes, &buffer);
    if (status != RINGSIDE_OK) {
        return status == RINGSIDE_E_TOO_LARGE ? RINGSIDE_WOULD_BLOCK : status;
    }
    if (world_one_in(16)) {
        ringside_abort(held->publisher);
        return RINGSIDE_WOULD_BLOCK;
    }
    oracle_fill(held->known, buffer, bytes);
    oracle_publishing(held->known, bytes);
    return ringside_commit(held->publisher, bytes);
}

static ringside_status_t publish_one(struct actor *actor, struct held_publisher *held)
{
    uint8_t data[UINT16_MAX];
    uint32_t bytes = random_size(actor);
    ringside_status_t status;
    if (world_one_in(3)) {
        status = publish_by_claim(held, bytes);
    } else {
        oracle_fill(held->known, data, bytes);
        oracle_publishing(held->known, bytes);
        status = ringside_publish(held->publisher, data, bytes);
    }
    if (succeeded(actor, status, "publish")) {
        oracle_published(held->known);
    } else {
        oracle_not_published(held->known);
    }
    return status;
}

static void publish_burst(struct actor *actor)
{
    struct held_publisher *held = random_publisher(actor);
    uint64_t count = 1 + world_random(BURST_MAX);
    for (uint64_t i = 0; i < count && held != NULL && !actor->is_over; i++) {
        if (publish_one(actor, held) == RINGSIDE_WOULD_BLOCK) {
            break;
        }
        if (world_one_in(8)) {
            held = random_publisher(actor);
        }
    }
}

static void create_publisher(struct actor *actor)
{
    struct held_publisher *held = &actor->publishers[world_random(PUBLISHERS_MAX)];
    if (held->publisher != NULL) {
        return;
    }
    const char *subject = subjects[world_random(rsi_array_count(subjects))];
    ringside_status_t status =
        ringside_publisher_create(&held->publisher, actor->client, subject, SIMULATION_PATIENCE_NS);
    if (succeeded(actor, status, "publisher_create")) {
        held->known = oracle_publication_opened(actor->session, held->publisher->alias, subject);
        world_trace("%s publishes on %s", actor->name, subject);
    }
}

static void destroy_publisher(struct actor *actor)
{
    struct held_publisher *held = random_publisher(actor);
    if (held != NULL) {
        ringside_publisher_destroy(held->publisher);
        held->publisher = NULL;
    }
}

/* More requests at once than the control lane holds: closing a publisher waits for nothing. */
static void flood_control(struct actor *actor)
{
    enum { COUNT = 100 };
    ringside_publisher_t *made[COUNT] = {NULL};
    const char *subject = subjects[world_random(rsi_array_count(subjects))];
    uint32_t count = 0;
    while (count < COUNT && !actor->is_over &&
           succeeded(actor,
                     ringside_publisher_create(&made[count], actor->client, subject,
                                               SIMULATION_PATIENCE_NS),
                     "publisher_create")) {
        count++;
    }
    world_trace("%s closes %u publishers at once", actor->name, count);
    while (count > 0) {
        ringside_publisher_destroy(made[--count]);
    }
}

static bool flush(struct actor *actor)
{
    ringside_status_t status = ringside_flush(actor->client, patience_ns(actor));
    if (succeeded(actor, status, "flush")) {
        oracle_flushed(actor->session);
    }
    return status == RINGSIDE_OK;
}

/* ---- receiving --------------------------------------------------------------------------------
 */

static void on_message(void *arg, const ringside_message_t *message)
{
    struct held_subscription *held = arg;
    struct actor *actor = held->actor;
    if (held->known == NULL) {
        world_violation("%s: a callback of a subscription that does not exist", actor->name);
    }
    oracle_message(held->known, message);
    if (world_one_in(48) && !simulation.is_settling) {
        struct held_publisher *publisher = random_publisher(actor);
        if (publisher != NULL) {
            (void)publish_one(actor, publisher);
        }
    }
    if (world_one_in(1000)) {
        destroy_publisher(actor);
    }
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct actor *actor = arg;
    world_trace("%s: event %d, %s, count %" PRIu64 ": %s", actor->name, (int)event->type,
                event->subject != NULL ? event->subject : "-", event->count, event->text);
    oracle_event(actor->session, event);
}

static void poll_client(struct actor *actor, size_t limit, uint64_t timeout_ns)
{
    size_t handled = 0;
    oracle_session_listens(actor->session, timeout_ns > 0);
    ringside_status_t status = ringside_poll(actor->client, limit, timeout_ns, &handled);
    oracle_session_listens(actor->session, false);
    (void)succeeded(actor, status, "poll");
}

static uint64_t random_wait_ns(void)
{
    static const uint64_t choices[] = {
        0, 0, 10 * MICROSECOND_NS, MILLISECOND_NS, 50 * MILLISECOND_NS, 500 * MILLISECOND_NS,
    };
    return choices[world_random(rsi_array_count(choices))];
}

/* As a program with its own event loop does: polls until nothing is left, then waits on the
 * descriptor. */
static void wait_on_descriptor(struct actor *actor, uint64_t wait_ns)
{
    int fd = ringside_fd(actor->client);
    size_t handled = 1;
    while (handled > 0) {
        ringside_status_t status = ringside_poll(actor->client, 0, 0, &handled);
        if (!succeeded(actor, status, "poll")) {
            return;
        }
    }
    oracle_session_listens(actor->session, true);
    (void)world_wait_readable(fd, world_now_ns() + wait_ns);
    oracle_session_listens(actor->session, false);
    poll_client(actor, 0, 0);
}

static void subscribe(struct actor *actor)
{
    struct held_subscription *held = &actor->subscriptions[world_random(SUBSCRIPTIONS_MAX)];
    if (held->subscription != NULL) {
        return;
    }
    const char *pattern = patterns[world_random(rsi_array_count(patterns))];
    const ringside_subscribe_options_t options = {
        .struct_bytes = sizeof(options),
        .policy = (ringside_policy_t)actor->policies[world_random(actor->policy_count)],
        .no_echo = (int)world_random(2),
        .timeout_ns = patience_ns(actor),
    };
    held->actor = actor;
    ringside_status_t status =
        ringside_subscribe(&held->subscription, actor->client, pattern, &options, on_message, held);
    if (succeeded(actor, status, "subscribe")) {
        held->known = oracle_subscribed(actor->session, pattern, options.no_echo != 0);
        world_trace("%s subscribed to %s with policy %d%s", actor->name, pattern,
                    (int)options.policy, options.no_echo != 0 ? ", no echo" : "");
    }
}

static void unsubscribe(struct actor *actor)
{
    struct held_subscription *held = &actor->subscriptions[world_random(SUBSCRIPTIONS_MAX)];
    if (held->subscription == NULL) {
        return;
    }
    world_trace("%s unsubscribes", actor->name);
    oracle_unsubscribing(held->known);
    held->known = NULL;
    ringside_status_t status = ringside_unsubscribe(held->subscription, patience_ns(actor));
    held->subscription = NULL;
    (void)succeeded(actor, status, "unsubscribe");
}

static void be_slow(void)
{
    uint64_t wait_ns = MILLISECOND_NS << world_random(11);
    if (wait_ns >= 100 * MILLISECOND_NS) {
        director_count(FAULT_CONSUMER_SLOW);
    }
    world_sleep_ns(world_random(wait_ns));
}

/* ---- a life -----------------------------------------------------------------------------------
 */

static bool connect_to_broker(struct actor *actor)
{
    static const uint64_t ring_bytes[] = {64 << 10, 64 << 10, 128 << 10};
    const ringside_options_t options = {
        .struct_bytes = sizeof(options),
        .client_name = actor->name,
        .connect_timeout_ns = SIMULATION_PATIENCE_NS,
        .publish_ring_bytes = ring_bytes[world_random(3)],
        .deliver_ring_bytes = ring_bytes[world_random(3)],
        .wait = world_one_in(3) ? RINGSIDE_WAIT_ADAPTIVE : RINGSIDE_WAIT_BLOCKING,
        .spin_ns = 1 + world_random(20 * MICROSECOND_NS),
        .on_event = on_event,
        .event_arg = actor,
        .resume_timeout_ns = actor->resumes ? RESUME_NS : UINT64_MAX,
    };
    uint64_t faults = slot_faults[actor->slot] + simulation.broker_faults;
    bool was_ending = simulation.broker_is_ending;
    ringside_status_t status = ringside_connect(&actor->client, SIMULATION_URL, &options);
    if (status != RINGSIDE_OK) {
        world_trace("%s: connect says %s: %s", actor->name, ringside_status_name(status),
                    ringside_last_error());
        if (!was_ending && faults == slot_faults[actor->slot] + simulation.broker_faults) {
            world_violation("%s cannot connect although nothing is wrong: %s", actor->name,
                            ringside_last_error());
        }
        world_sleep_ns(world_random(20 * MILLISECOND_NS));
        return false;
    }
    uint32_t policy_mask = 0;
    for (uint32_t i = 0; i < actor->policy_count; i++) {
        policy_mask |= 1u << actor->policies[i];
    }
    actor->session = oracle_session_opened(actor->client, actor->name, policy_mask);
    if (simulation.broker_is_ending ||
        faults != slot_faults[actor->slot] + simulation.broker_faults) {
        oracle_excuse(actor->session, ORACLE_BROKER | ORACLE_CUT);
    }
    world_trace("%s is connected", actor->name);
    return true;
}

static void do_something(struct actor *actor)
{
    uint64_t choice = world_random(16 + actor->talkative + actor->slow);
    if (choice < 2) {
        subscribe(actor);
    } else if (choice < 3) {
        unsubscribe(actor);
    } else if (choice < 5) {
        create_publisher(actor);
    } else if (choice < 6) {
        if (world_one_in(3)) {
            destroy_publisher(actor);
        }
        if (world_one_in(100)) {
            flood_control(actor);
        }
    } else if (choice < 7) {
        (void)flush(actor);
    } else if (choice < 9) {
        wait_on_descriptor(actor, random_wait_ns());
    } else if (choice < 16) {
        poll_client(actor, world_random(3), random_wait_ns());
    } else if (choice < 16 + actor->talkative) {
        publish_burst(actor);
    } else {
        be_slow();
    }
}

/* Everything that came before the end is handed over first. */
static void hear_the_end(struct actor *actor)
{
    ringside_status_t status = RINGSIDE_OK;
    for (uint32_t i = 0; i < 100000 && !is_end(status); i++) {
        status = ringside_poll(actor->client, 0, SIMULATION_PATIENCE_NS, NULL);
    }
    if (!is_end(status)) {
        world_violation("%s: the session is over, but poll says %s", actor->name,
                        ringside_status_name(status));
    }
    (void)succeeded(actor, status, "poll");
}

static void settle(struct actor *actor)
{
    char missing[512] = "others to flush";
    uint64_t deadline_ns = world_now_ns() + SETTLE_NS;
    while (!flush(actor) && !actor->is_over) {
        poll_client(actor, 0, MILLISECOND_NS);
    }
    director_note_flushed(actor->slot);
    while (!actor->is_over) {
        if (director_all_are_flushed() &&
            oracle_is_satisfied(actor->session, missing, sizeof(missing))) {
            oracle_session_settled(actor->session);
            return;
        }
        if (world_now_ns() > deadline_ns) {
            world_violation("%s waits in vain: %s", actor->name, missing);
        }
        poll_client(actor, 0, 100 * MILLISECOND_NS);
    }
}

static void leave(struct actor *actor)
{
    if (actor->is_over) {
        hear_the_end(actor);
    }
    /* Closed without patience it may lose what has not arrived. */
    bool is_hasty = !simulation.is_settling && world_one_in(8);
    if (is_hasty) {
        oracle_excuse(actor->session, ORACLE_CUT);
    }
    ringside_status_t status = ringside_close(actor->client, is_hasty ? 0 : SIMULATION_PATIENCE_NS);
    world_trace("%s closed: %s", actor->name, ringside_status_name(status));
    oracle_session_closed(actor->session, status);
    memset(actor->publishers, 0, sizeof(actor->publishers));
    memset(actor->subscriptions, 0, sizeof(actor->subscriptions));
    actor->is_over = false;
}

static void choose_policies(struct actor *actor)
{
    for (uint32_t policy = RINGSIDE_POLICY_DROP; policy <= RINGSIDE_POLICY_BLOCK; policy++) {
        if ((simulation.policy_mask & 1u << policy) != 0) {
            actor->policies[actor->policy_count++] = policy;
        }
    }
    if (!world_one_in(4)) { /* most clients have one policy for all */
        actor->policies[0] = actor->policies[world_random(actor->policy_count)];
        actor->policy_count = 1;
    }
}

void actor_main(void *arg)
{
    struct actor *actor = calloc(1, sizeof(*actor));
    rsi_assert(actor != NULL);
    actor->slot = (uint32_t)(uintptr_t)arg;
    snprintf(actor->name, sizeof(actor->name), "%s-%u", world_process_name(world_process()),
             ++generation);
    choose_policies(actor);
    actor->talkative = (uint32_t)world_random(16);
    actor->slow = (uint32_t)(world_one_in(2) ? 0 : world_random(8));
    actor->size_class = (uint32_t)world_random(3);
    actor->resumes = !world_one_in(4);
    uint64_t rounds = 1 + world_random(ROUNDS_MAX);
    while (!connect_to_broker(actor)) {
        if (simulation.is_settling) {
            free(actor);
            return;
        }
    }
    for (uint64_t i = 0; i < rounds && !actor->is_over && !simulation.is_settling; i++) {
        do_something(actor);
    }
    if (simulation.is_settling && !actor->is_over) {
        settle(actor);
    }
    leave(actor);
    free(actor);
}
