/*
 * Design notes
 * - The linker calls these instead of the functions of the same name wherever one object file calls
 *   another (--wrap). So the code under test is the code that ships, to the byte.
 * - A mutant acts now and then, not always: a fault that acts always is found by every test.
 */
#include "tests/simulation/points.h"

#include "broker/agent_internal.h"
#include "broker/blocking.h"
#include "broker/ended.h"
#include "broker/endpoints.h"
#include "clients/c/client.h"
#include "tests/simulation/oracle.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/world.h"
#include "transport/frame.h"

const struct mutant_info mutants[MUTANT_COUNT] = {
    [MUTANT_NONE] = {"none", "the code as it is"},
    [MUTANT_LOST_WAKE] = {"lost-wake", "one in 8 wake-ups of a sleeping thread is not sent"},
    [MUTANT_LOST_ROOM] = {"lost-room", "nobody is asked to say when there is room again"},
    [MUTANT_EARLY_ACKNOWLEDGE] = {"early-acknowledge",
                                  "requests are answered before all agents applied their edit"},
    [MUTANT_IGNORED_EDIT] = {"ignored-edit", "one in 8 subscriptions is never posted"},
    [MUTANT_DOUBLED_BATCH] = {"doubled-batch", "one in 64 admitted batches is admitted again"},
    [MUTANT_DROPPED_FRAME] = {"dropped-frame", "one in 64 published frames is stepped over"},
    [MUTANT_FORGOTTEN_GAP] = {"forgotten-gap", "gaps that wait to be told are forgotten"},
    [MUTANT_EARLY_RETIRE] = {"early-retire", "a closed publication is retired while logs hold it"},
    [MUTANT_OVERWRITTEN_LOG] = {"overwritten-log",
                                "a log's writer does not wait for cursors that lag"},
    [MUTANT_HOLDS_EVERYBODY] = {"holds-everybody",
                                "a blocked subscriber also holds back who it does not need"},
    [MUTANT_KEEPS_WAITING] = {"keeps-waiting", "a subscriber that has room again goes on blocking"},
    [MUTANT_LEAKING_SPILL] = {"leaking-spill", "one in 32 frames does not get into a spill"},
    [MUTANT_CARRIES_NO_ARRIVALS] = {"carries-no-arrivals",
                                    "a resume loses what had arrived and was not read"},
    [MUTANT_CARRIES_NO_STAGED] = {"carries-no-staged", "a resume loses what was not sent yet"},
    [MUTANT_EARLY_DRAINED] = {"early-drained", "a stopping broker does not wait for deliveries"},
    [MUTANT_SLOW_IS_NOT_READ] = {"slow-is-not-read",
                                 "what a slow session had published is not taken any more"},
    [MUTANT_FORGETS_ENDS] = {"forgets-ends", "why a session ended is not kept for its client"},
};

static enum mutant active;
static uint64_t walk_seed;
static struct rsi_data_plane *last_plane;

void points_set_mutant(enum mutant mutant)
{
    active = mutant;
}

void points_set_walk_seed(uint64_t seed)
{
    walk_seed = seed;
}

static bool acts(enum mutant mutant, uint64_t one_in)
{
    return active == mutant && world_one_in(one_in);
}

uint64_t points_admitted_count(void)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < last_plane->options.agent_count; i++) {
        count += rsi_load_relaxed(&rsi_data_plane_counts(last_plane, i)->admitted_messages);
    }
    return count;
}

#define WRAP(result, name, ...)        \
    result __real_##name(__VA_ARGS__); \
    result __wrap_##name(__VA_ARGS__); \
    result __wrap_##name(__VA_ARGS__)

/* ---- wakers -----------------------------------------------------------------------------------
 */

WRAP(void, rsi_waker_prepare, struct rsi_waker *waker)
{
    world_point();
    __real_rsi_waker_prepare(waker);
    world_point();
}

WRAP(void, rsi_waker_finish, struct rsi_waker *waker)
{
    world_point();
    __real_rsi_waker_finish(waker);
}

WRAP(void, rsi_waker_wake, struct rsi_waker *waker)
{
    if (waker == NULL) {
        return; /* nobody to wake, and no step of the world */
    }
    world_point();
    if (rsi_load_relaxed(&waker->sleeping) != 0 && acts(MUTANT_LOST_WAKE, 8)) {
        return;
    }
    __real_rsi_waker_wake(waker);
}

/* ---- links ------------------------------------------------------------------------------------
 */

WRAP(uint32_t, rsi_poller_poll, struct rsi_poller *poller, uint64_t now_ns)
{
    world_point();
    uint32_t count = __real_rsi_poller_poll(poller, now_ns);
    if (count > 0) {
        world_note_progress();
    }
    return count;
}

WRAP(void, rsi_link_request_wake, struct rsi_link *link, uint64_t in_arrived_at_least,
     uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least)
{
    world_point();
    if (active == MUTANT_LOST_ROOM) {
        peer_consumed_at_least = UINT64_MAX;
    }
    __real_rsi_link_request_wake(link, in_arrived_at_least, peer_arrived_at_least,
                                 peer_consumed_at_least);
}

WRAP(void, rsi_link_consume, struct rsi_link *link, uint64_t bytes)
{
    world_point();
    bool is_brokers = link->poller->control_waker != NULL;
    if (is_brokers && acts(MUTANT_DOUBLED_BATCH, 64)) {
        return;
    }
    __real_rsi_link_consume(link, bytes);
}

WRAP(void, rsi_link_set_state, struct rsi_link *link, enum rsi_link_state to)
{
    __real_rsi_link_set_state(link, to);
    world_point();
}

WRAP(rsi_status_t, rsi_frame_read, const struct rsi_ring *ring, uint64_t position, uint64_t end_pos,
     struct rsi_frame *frame, const char **why)
{
    rsi_status_t status = __real_rsi_frame_read(ring, position, end_pos, frame, why);
    uint64_t next_pos = position + frame->frame_bytes;
    if (status == RSI_OK && next_pos < end_pos && acts(MUTANT_DROPPED_FRAME, 64)) {
        status = __real_rsi_frame_read(ring, next_pos, end_pos, frame, why);
        frame->frame_bytes += next_pos - position;
    }
    return status;
}

/* The control agent is done with a session: its counts are final. */
WRAP(void, rsi_session_fini, struct rsi_session *session)
{
    oracle_hear_of_counts(session->id, rsi_load_relaxed(&session->counts.delivered_messages),
                          rsi_load_relaxed(&session->counts.dropped_messages));
    __real_rsi_session_fini(session);
}

/* ---- sessions that outlive their link ---------------------------------------------------------
 */

static rsi_client_carry_t *real_carry;

static void carry_and_tell(struct ringside_client *client, struct rsi_link *to,
                           const struct rsi_link *from)
{
    real_carry(client, to, from);
    oracle_hear_of_renewal(client, to);
}

/* Only renew.c calls it from outside: the broker is another one. */
WRAP(void, rsi_client_go_over, struct ringside_client *client, rsi_client_carry_t *carry)
{
    world_point();
    real_carry = carry;
    __real_rsi_client_go_over(client, carry_and_tell);
}

/* A second transport that leads to the same: found now and then, and better than the first. */
WRAP(rsi_status_t, rsi_client_choose, struct rsi_client_candidates *candidates,
     const struct rsi_url *url, struct rsi_error *error)
{
    static struct rsi_transport better;
    rsi_status_t status = __real_rsi_client_choose(candidates, url, error);
    if (status != RSI_OK || !simulation.has_better_transport) {
        return status;
    }
    candidates->is_choice = true;
    candidates->is_local_absent = world_one_in(2);
    if (!candidates->is_local_absent) {
        better = *candidates->list[0].transport;
        better.name = "better";
        candidates->list[1] = candidates->list[0];
        candidates->list[0].transport = &better;
        candidates->count = 2;
    }
    return status;
}

/* Runs are short: the look for it begins soon. */
WRAP(void, rsi_client_better_begin, struct ringside_client *client,
     const struct rsi_client_candidates *candidates, uint64_t now_ns)
{
    __real_rsi_client_better_begin(client, candidates, now_ns);
    if (client->better.due_ns != UINT64_MAX) {
        client->better.due_ns = now_ns + world_random(UINT64_C(500000000));
    }
}

WRAP(void, rsi_client_leave_link, struct ringside_client *client, const struct rsi_error *why,
     uint64_t now_ns)
{
    oracle_hear_of_change(client);
    __real_rsi_client_leave_link(client, why, now_ns);
}

WRAP(void, rsi_link_carry, struct rsi_link *to, const struct rsi_link *from)
{
    world_point();
    __real_rsi_link_carry(to, from);
    if (active == MUTANT_CARRIES_NO_ARRIVALS) {
        to->consumed_pos = to->arrived_pos;
    }
    if (active == MUTANT_CARRIES_NO_STAGED) {
        to->staged_pos = to->placed_pos;
    }
}

WRAP(rsi_status_t, rsi_endpoints_init, struct rsi_endpoints *endpoints,
     const struct rsi_settings *settings, struct rsi_data_plane *plane,
     struct rsi_waker *control_waker, uint64_t incarnation, struct rsi_error *error)
{
    oracle_hear_of_broker(incarnation);
    return __real_rsi_endpoints_init(endpoints, settings, plane, control_waker, incarnation, error);
}

WRAP(void, rsi_ended_add, struct rsi_ended *ended, const struct rsi_ended_session *session)
{
    if (active != MUTANT_FORGETS_ENDS) {
        __real_rsi_ended_add(ended, session);
    }
}

/* ---- data agents ------------------------------------------------------------------------------
 */

WRAP(rsi_status_t, rsi_data_plane_create, struct rsi_data_plane **created,
     const struct rsi_data_options *options, struct rsi_error *error)
{
    struct rsi_data_options changed = *options;
    changed.walk_seed = walk_seed;
    rsi_status_t status = __real_rsi_data_plane_create(created, &changed, error);
    last_plane = status == RSI_OK ? *created : NULL;
    return status;
}

static void hear_of_edit(const struct rsi_edit *edit)
{
    switch ((int)edit->kind) {
    case RSI_EDIT_PUBLICATION_OPEN:
        oracle_hear_of_publication(edit->session->id, edit->publication->alias,
                                   edit->publication->id);
        break;
    case RSI_EDIT_SUBSCRIBE:
        oracle_hear_of_subscription(edit->session->id, edit->session->name, edit->subscription,
                                    edit->subject, edit->policy == RSI_POLICY_BLOCK);
        break;
    case RSI_EDIT_UNSUBSCRIBE:
        oracle_hear_of_no_subscription(edit->session->id, edit->subscription);
        break;
    case RSI_EDIT_SESSION_LEAVE:
        oracle_hear_of_no_subscription(edit->session->id, 0);
        break;
    default:
        break;
    }
}

WRAP(rsi_status_t, rsi_data_plane_post, struct rsi_data_plane *plane, const struct rsi_edit *edit,
     uint64_t *ticket)
{
    world_point();
    if (edit->kind == RSI_EDIT_SUBSCRIBE && acts(MUTANT_IGNORED_EDIT, 8)) {
        *ticket = 0;
        return RSI_OK;
    }
    if (edit->kind == RSI_EDIT_STOP) {
        oracle_hear_of_end(0);
    } else if (edit->kind == RSI_EDIT_SESSION_LEAVE && edit->position == 0) {
        oracle_hear_of_end(edit->session->id);
    } else if (edit->kind == RSI_EDIT_SESSION_HALT) {
        oracle_hear_of_halt(edit->session->id);
    }
    rsi_status_t status = __real_rsi_data_plane_post(plane, edit, ticket);
    if (status == RSI_OK) {
        hear_of_edit(edit);
    }
    return status;
}

WRAP(bool, rsi_data_plane_is_applied, const struct rsi_data_plane *plane, uint64_t ticket)
{
    world_point();
    return active == MUTANT_EARLY_ACKNOWLEDGE || __real_rsi_data_plane_is_applied(plane, ticket);
}

WRAP(bool, rsi_data_plane_is_drained, const struct rsi_data_plane *plane)
{
    return active == MUTANT_EARLY_DRAINED || __real_rsi_data_plane_is_drained(plane);
}

WRAP(bool, rsi_publication_is_unused, const struct rsi_data_plane *plane,
     const struct rsi_publication *publication)
{
    if (active == MUTANT_EARLY_RETIRE) {
        return rsi_publication_is_closed(plane, publication);
    }
    return __real_rsi_publication_is_unused(plane, publication);
}

WRAP(uint64_t, rsi_agent_apply_edits, struct rsi_agent *agent)
{
    world_point();
    uint64_t count = __real_rsi_agent_apply_edits(agent);
    world_point();
    return count;
}

WRAP(uint64_t, rsi_agent_admit, struct rsi_agent *agent)
{
    world_point();
    return __real_rsi_agent_admit(agent);
}

WRAP(uint64_t, rsi_agent_catch_up, struct rsi_agent *agent)
{
    world_point();
    for (uint32_t i = 0; i < agent->session_count && active == MUTANT_FORGOTTEN_GAP; i++) {
        rsi_agent_forget_gaps(agent, agent->sessions[i]);
    }
    return __real_rsi_agent_catch_up(agent);
}

WRAP(bool, rsi_blocking_admits, struct rsi_agent *agent, struct rsi_session *publisher,
     const struct rsi_publication *publication)
{
    return __real_rsi_blocking_admits(agent, publisher, publication) &&
           active != MUTANT_HOLDS_EVERYBODY;
}

/* Only what ends a session. */
WRAP(void, rsi_agent_end_block, struct rsi_agent *agent, struct rsi_session *session)
{
    __real_rsi_agent_end_block(agent, session);
    session->data.is_distrusted |= active == MUTANT_SLOW_IS_NOT_READ && session->data.is_failed;
}

WRAP(void, rsi_blocking_relieve, struct rsi_agent *agent, struct rsi_session *session)
{
    if (active != MUTANT_KEEPS_WAITING) {
        __real_rsi_blocking_relieve(agent, session);
    }
}

WRAP(void, rsi_spill_append, struct rsi_spill *spill, const struct rsi_frame_header *source,
     uint64_t frame_bytes)
{
    if (!acts(MUTANT_LEAKING_SPILL, 32)) {
        __real_rsi_spill_append(spill, source, frame_bytes);
    }
}

WRAP(uint64_t, rsi_agent_walk, struct rsi_agent *agent)
{
    world_point();
    return __real_rsi_agent_walk(agent);
}

WRAP(void, rsi_agent_emit, struct rsi_agent *agent)
{
    world_point();
    __real_rsi_agent_emit(agent);
}

WRAP(void, rsi_agent_publish_needed, struct rsi_agent *agent)
{
    world_point();
    __real_rsi_agent_publish_needed(agent);
    for (uint32_t i = 0; i < agent->plane->options.agent_count && active == MUTANT_OVERWRITTEN_LOG;
         i++) {
        rsi_store_release(&agent->needed_pos[i], agent->common_pos[i]);
    }
}
