/*
 * Design notes: blocking.h says what must hold. Here: the table, the queues, the clock.
 *
 * Sleep. A publisher waits for a word that another agent writes: the state of a session or the
 * places before its own. Who changes one wakes whoever may go on, after the change
 * (core/waker), and who is about to sleep looks once more (rsi_blocking_lets_go). A home agent has
 * a time-out only while somebody waits for a session of its own that is FULL.
 *
 * Places are times, made different within an agent; between agents the lower number goes first.
 * A place tells who goes first and nothing else: how long somebody waited is counted apart.
 */
#include "broker/blocking.h"

#include "broker/agent_internal.h"

/* ---- what all agents look at --------------------------------------------------------------------
 */

/* The lowest place in the session's queue and its agent; 0: nobody waits. */
static uint64_t first_place_ns(const struct rsi_agent *agent, const struct rsi_session *session,
                               uint32_t *first_agent)
{
    uint64_t lowest_ns = 0;
    for (uint32_t i = 0; i < agent->plane->options.agent_count; i++) {
        uint64_t place_ns = rsi_load_acquire(&session->blocking->sides[i].place_ns);
        if (place_ns != 0 && (lowest_ns == 0 || place_ns < lowest_ns)) {
            lowest_ns = place_ns;
            *first_agent = i;
        }
    }
    return lowest_ns;
}

/* Whether a publisher of this agent with this place goes before all that wait for the session. */
static bool has_turn(const struct rsi_agent *agent, const struct rsi_session *session,
                     uint64_t place_ns)
{
    uint32_t first_agent = 0;
    uint64_t first_ns = first_place_ns(agent, session, &first_agent);
    return first_ns == 0 || place_ns < first_ns ||
           (place_ns == first_ns && agent->index <= first_agent);
}

/* Whether the session is owed what the publisher publishes on a topic. */
static bool needs(const struct rsi_agent *agent, const struct rsi_session *session,
                  const struct rsi_session *publisher, uint32_t topic_id)
{
    uint32_t slot = topic_id & (agent->topics.topic_count_max - 1);
    if (session == publisher) { /* at home here: its own frames it may not want */
        const struct rsi_topic *topic = rsi_topic_index_find(&agent->topics, topic_id);
        const struct rsi_match *match = topic ? rsi_topic_match_of(topic, session, slot) : NULL;
        return match && match->echo_count > 0;
    }
    return rsi_load_relaxed(&session->blocking->wanted_topics[slot / 64]) >> (slot % 64) & 1;
}

/* Whether the session lets a publisher with this place go on. */
static bool lets_go(const struct rsi_agent *agent, const struct rsi_session *session,
                    uint64_t place_ns)
{
    /* Pairs with the releases in fill, relieve and release. */
    uint32_t state = rsi_load_acquire(&session->blocking->state);
    return state == RSI_BLOCKING_OPEN ||
           (state == RSI_BLOCKING_TURNS && has_turn(agent, session, place_ns));
}

bool rsi_blocking_takes(const struct rsi_agent *agent, const struct rsi_session *session,
                        uint64_t place_ns)
{
    return lets_go(agent, session, place_ns);
}

static void wake(struct rsi_agent *agent, uint32_t other)
{
    if (other != agent->index) {
        rsi_waker_wake(&agent->plane->agents[other]->waker);
    }
}

/* ---- publishers ---------------------------------------------------------------------------------
 */

static void end_wait(struct rsi_agent *agent, struct rsi_session *publisher)
{
    struct rsi_session_counts *counts = &publisher->counts;
    if (!publisher->data.stall.is_waiting) {
        return;
    }
    publisher->data.stall.is_waiting = false;
    agent->waiting_count--;
    uint64_t waited_ns = agent->now_ns - rsi_load_relaxed(&counts->stalled_since_ns);
    rsi_bump_relaxed(&agent->counts.stalled_ns, waited_ns);
    rsi_count_span(&counts->stalled_since_ns, &counts->stalled_ns, waited_ns);
}

static void begin_wait(struct rsi_agent *agent, struct rsi_session *publisher,
                       const struct rsi_session *session)
{
    rsi_store_relaxed(&publisher->counts.stalled_by, session->id);
    if (publisher->data.stall.is_waiting) {
        return;
    }
    publisher->data.stall.is_waiting = true;
    agent->waiting_count++;
    rsi_store_relaxed(&publisher->counts.stalled_since_ns, agent->now_ns);
}

static void join_queue(struct rsi_agent *agent, struct rsi_session *publisher,
                       struct rsi_session *session, uint64_t place_ns)
{
    struct rsi_stall *stall = &publisher->data.stall;
    if (stall->place_ns == 0) {
        agent->last_place_ns = place_ns;
        stall->place_ns = place_ns;
    }
    stall->by = session;
    struct rsi_blocking_side *side = &session->blocking->sides[agent->index];
    uint64_t first_ns = rsi_load_relaxed(&side->place_ns);
    if (first_ns != 0 && first_ns < place_ns) {
        return;
    }
    rsi_store_relaxed(&side->publication, stall->publication);
    rsi_store_release(&side->place_ns, place_ns);
    if (first_ns == 0) {
        wake(agent, session->agent); /* its clock runs from here on */
    }
}

/* A publisher of this agent gave up its place in the session's queue, or got another one there. */
static void tell_first(struct rsi_agent *agent, struct rsi_session *session, uint64_t old_place_ns)
{
    struct rsi_blocking_side *side = &session->blocking->sides[agent->index];
    if (rsi_load_relaxed(&side->place_ns) != old_place_ns) {
        return; /* it was not the first */
    }
    const struct rsi_stall *first = NULL;
    for (uint32_t i = 0; i < agent->session_count; i++) {
        const struct rsi_stall *stall = &agent->sessions[i]->data.stall;
        if (stall->by == session && (!first || stall->place_ns < first->place_ns)) {
            first = stall;
        }
    }
    if (first) {
        rsi_store_relaxed(&side->publication, first->publication);
    }
    rsi_store_release(&side->place_ns, first ? first->place_ns : 0);
    /* The turn passes on; if nobody is left the home agent ends it. */
    uint32_t next_agent = session->agent;
    (void)first_place_ns(agent, session, &next_agent);
    wake(agent, next_agent);
}

/* Takes the publisher out of the queue that it stands in; it keeps its place for another one. */
static void leave_queue(struct rsi_agent *agent, struct rsi_session *publisher)
{
    struct rsi_session *session = publisher->data.stall.by;
    publisher->data.stall.by = NULL;
    tell_first(agent, session, publisher->data.stall.place_ns);
}

static uint64_t next_place_ns(const struct rsi_agent *agent)
{
    return agent->now_ns > agent->last_place_ns ? agent->now_ns : agent->last_place_ns + 1;
}

uint64_t rsi_blocking_place_ns(const struct rsi_agent *agent, const struct rsi_session *publisher)
{
    uint64_t place_ns = publisher->data.stall.place_ns;
    return place_ns != 0 ? place_ns : next_place_ns(agent);
}

static void wait_for(struct rsi_agent *agent, struct rsi_session *publisher,
                     struct rsi_session *session, const struct rsi_publication *publication,
                     uint64_t place_ns)
{
    struct rsi_stall *stall = &publisher->data.stall;
    stall->publication = publication->id;
    stall->topic = publication->topic;
    if (stall->by != session) {
        if (stall->by) {
            leave_queue(agent, publisher);
        }
        join_queue(agent, publisher, session, place_ns);
    }
    begin_wait(agent, publisher, session);
}

/* The session that the publisher's next frame on the topic has to wait for; NULL: none. */
static struct rsi_session *held_by(struct rsi_agent *agent, const struct rsi_session *publisher,
                                   uint32_t topic_id, uint64_t place_ns)
{
    for (uint32_t i = 0; i < agent->plane->options.agent_count; i++) {
        const struct rsi_agent *home = agent->plane->agents[i];
        /* Pairs with the releases in enter_table. */
        uint32_t slot_count = rsi_load_acquire(&home->contended_slot_count);
        for (uint32_t slot = 0; slot < slot_count; slot++) {
            struct rsi_session *session = rsi_load_acquire(&home->contended[slot]);
            if (session && needs(agent, session, publisher, topic_id) &&
                !lets_go(agent, session, place_ns)) {
                return session;
            }
        }
    }
    const struct rsi_topic *topic = rsi_topic_index_find(&agent->topics, topic_id);
    return topic && topic->member_count > 0
               ? rsi_agent_group_held_by(agent, topic, publisher, place_ns)
               : NULL;
}

bool rsi_blocking_admits(struct rsi_agent *agent, struct rsi_session *publisher,
                         const struct rsi_publication *publication)
{
    uint64_t place_ns = rsi_blocking_place_ns(agent, publisher);
    struct rsi_session *session = held_by(agent, publisher, publication->topic, place_ns);
    if (session) {
        wait_for(agent, publisher, session, publication, place_ns);
        return false;
    }
    end_wait(agent, publisher);
    return true;
}

bool rsi_blocking_ends_turn(struct rsi_agent *agent, struct rsi_session *publisher,
                            uint64_t frame_bytes)
{
    struct rsi_stall *stall = &publisher->data.stall;
    if (!stall->by) {
        return false;
    }
    /* What was too much counts against the next turn. */
    stall->turn_used_bytes += frame_bytes;
    if (stall->turn_used_bytes < RSI_ADMIT_BYTES_PER_PASS) {
        return false;
    }
    stall->turn_used_bytes -= RSI_ADMIT_BYTES_PER_PASS;
    /* To the end, at once: a queue that looks empty in between would let all go. */
    uint64_t old_place_ns = stall->place_ns;
    stall->place_ns = next_place_ns(agent);
    agent->last_place_ns = stall->place_ns;
    tell_first(agent, stall->by, old_place_ns);
    return true;
}

void rsi_blocking_step_aside(struct rsi_agent *agent, struct rsi_session *publisher)
{
    struct rsi_stall *stall = &publisher->data.stall;
    end_wait(agent, publisher);
    if (stall->by) {
        leave_queue(agent, publisher);
    }
    stall->place_ns = 0;
    stall->turn_used_bytes = 0;
}

bool rsi_blocking_lets_go(struct rsi_agent *agent)
{
    for (uint32_t i = 0; i < agent->session_count && agent->waiting_count > 0; i++) {
        const struct rsi_session *publisher = agent->sessions[i];
        const struct rsi_stall *stall = &publisher->data.stall;
        if (stall->is_waiting &&
            held_by(agent, publisher, stall->topic, stall->place_ns) != stall->by) {
            return true;
        }
    }
    return false;
}

void rsi_blocking_subscribed(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_blocking_side *side = &session->blocking->sides[agent->index];
    if (rsi_load_relaxed(&side->start) != 0) {
        return;
    }
    /* Everything appended is published here. Before the end that the next frame moves: who
     * acquires that one sees this. */
    rsi_store_release(&side->start, agent->log.append_pos + 1);
    agent->block_session_count++;
}

void rsi_blocking_forget(struct rsi_agent *agent, struct rsi_session *session)
{
    if (!session->blocking ||
        rsi_load_relaxed(&session->blocking->sides[agent->index].start) == 0) {
        return;
    }
    agent->block_session_count--;
    for (uint32_t i = 0; i < agent->session_count; i++) {
        if (agent->sessions[i]->data.stall.by == session) {
            rsi_blocking_step_aside(agent, agent->sessions[i]);
        }
    }
}

/* ---- home agent ---------------------------------------------------------------------------------
 */

static void enter_table(struct rsi_agent *agent, struct rsi_session *session)
{
    uint32_t slot_count = rsi_load_relaxed(&agent->contended_slot_count);
    uint32_t slot = 0;
    while (slot < slot_count && rsi_load_relaxed(&agent->contended[slot])) {
        slot++;
    }
    rsi_assert(slot < agent->plane->options.session_count_max);
    session->data.blocking->table_slot = slot;
    rsi_store_release(&agent->contended[slot], session);
    if (slot == slot_count) {
        rsi_store_release(&agent->contended_slot_count, slot + 1);
    }
    rsi_store_release(&session->is_contended, 1u);
    agent->contended_count++;
    rsi_store_relaxed(&agent->counts.contended_sessions, agent->contended_count);
    /* Before this pass publishes how far it walked: who sees that sees this. */
    rsi_fetch_add_acq_rel(&agent->plane->contended_count, 1u);
}

static void leave_table(struct rsi_agent *agent, struct rsi_session *session)
{
    uint32_t slot_count = rsi_load_relaxed(&agent->contended_slot_count);
    rsi_store_release(&agent->contended[session->data.blocking->table_slot], NULL);
    rsi_store_relaxed(&session->is_contended, 0u);
    while (slot_count > 0 && !rsi_load_relaxed(&agent->contended[slot_count - 1])) {
        slot_count--;
    }
    rsi_store_release(&agent->contended_slot_count, slot_count);
    agent->contended_count--;
    rsi_store_relaxed(&agent->counts.contended_sessions, agent->contended_count);
    rsi_fetch_add_acq_rel(&agent->plane->contended_count, UINT32_MAX);
}

void rsi_blocking_fill(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_blocking *blocking = session->data.blocking;
    uint32_t state = rsi_load_relaxed(&blocking->state);
    if (state == RSI_BLOCKING_FULL) {
        return;
    }
    blocking->filled_ns = agent->now_ns;
    blocking->progress_ns = agent->now_ns;
    blocking->progress_pos = session->link->peer_consumed_pos;
    rsi_store_release(&blocking->state, RSI_BLOCKING_FULL);
    if (state == RSI_BLOCKING_OPEN) {
        enter_table(agent, session);
    }
}

void rsi_blocking_relieve(struct rsi_agent *agent, struct rsi_session *session)
{
    session->data.blocking->relieved_ns = agent->now_ns;
    rsi_store_release(&session->data.blocking->state, RSI_BLOCKING_TURNS);
    rsi_agent_wake_others(agent);
}

static void set_waited(struct rsi_agent *agent, struct rsi_session *session, uint64_t since_ns)
{
    struct rsi_session_counts *counts = &session->counts;
    struct rsi_blocking *blocking = session->data.blocking;
    if ((since_ns != 0) == (blocking->waited_since_ns != 0)) {
        return;
    }
    if (since_ns != 0) {
        blocking->waited_since_ns = since_ns;
        rsi_store_relaxed(&counts->blocked_since_ns, since_ns);
        rsi_bump_relaxed(&counts->blocked_count, 1);
        return;
    }
    uint64_t blocked_ns = agent->now_ns - blocking->waited_since_ns;
    blocking->waited_since_ns = 0;
    rsi_bump_relaxed(&agent->counts.blocked_ns, blocked_ns);
    rsi_count_span(&counts->blocked_since_ns, &counts->blocked_ns, blocked_ns);
}

void rsi_blocking_release(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_blocking *blocking = session->data.blocking;
    if (!blocking || rsi_load_relaxed(&blocking->state) == RSI_BLOCKING_OPEN) {
        return;
    }
    set_waited(agent, session, 0);
    rsi_store_release(&blocking->state, RSI_BLOCKING_OPEN);
    leave_table(agent, session);
    rsi_agent_wake_others(agent);
}

void rsi_blocking_needs_less(struct rsi_agent *agent, const struct rsi_session *session)
{
    const struct rsi_blocking *blocking = session->data.blocking;
    if (blocking && rsi_load_relaxed(&blocking->state) != RSI_BLOCKING_OPEN) {
        rsi_agent_wake_others(agent);
    }
}

static uint64_t session_deadline_ns(const struct rsi_agent *agent,
                                    const struct rsi_session *session)
{
    const struct rsi_blocking *blocking = session->data.blocking;
    if (!rsi_blocking_is_full(blocking) || blocking->waited_since_ns == 0) {
        return UINT64_MAX;
    }
    uint64_t since_ns = blocking->progress_ns > blocking->waited_since_ns
                            ? blocking->progress_ns
                            : blocking->waited_since_ns;
    return since_ns + agent->plane->options.block_timeout_ns;
}

/* `first_agent` has a publisher that waits. */
static RSI_COLD void end_as_slow(struct rsi_agent *agent, struct rsi_session *session,
                                 uint32_t first_agent)
{
    /* Its memory is there: it is not closed before its publisher has left the queue, and this agent
     * has not applied that it is retired. */
    const struct rsi_publication *publication = rsi_plane_publication(
        agent->plane, rsi_load_relaxed(&session->blocking->sides[first_agent].publication));
    rsi_agent_fault(agent, session, RSI_E_SLOW,
                    "subscriber %s took nothing for %.1f s while publisher %s waited for it on %s, "
                    "and its policy is block (block_timeout is %.1f s); read faster, ask for "
                    "policy drop, or raise block_timeout",
                    session->name,
                    (double)(agent->now_ns - session->data.blocking->progress_ns) / 1e9,
                    publication->publisher_name, publication->subject,
                    (double)agent->plane->options.block_timeout_ns / 1e9);
}

static void watch_session(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_blocking *blocking = session->data.blocking;
    uint32_t first_agent = 0;
    uint64_t first_ns = first_place_ns(agent, session, &first_agent);
    uint64_t since_ns = first_ns < blocking->filled_ns ? blocking->filled_ns : first_ns;
    set_waited(agent, session, first_ns != 0 ? since_ns : 0);
    if (blocking->progress_pos != session->link->peer_consumed_pos) {
        blocking->progress_pos = session->link->peer_consumed_pos;
        blocking->progress_ns = agent->now_ns;
    }
    if (first_ns != 0 && agent->now_ns >= session_deadline_ns(agent, session)) {
        end_as_slow(agent, session, first_agent);
        return;
    }
    /* The queue of those who waited when it had room again has come to its end. */
    if (!rsi_blocking_is_full(blocking) &&
        (first_ns == 0 ||
         (rsi_spill_is_empty(&blocking->spill) && first_ns > blocking->relieved_ns))) {
        rsi_blocking_release(agent, session);
    }
}

void rsi_blocking_watch(struct rsi_agent *agent)
{
    uint32_t slot_count = rsi_load_relaxed(&agent->contended_slot_count);
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        struct rsi_session *session = rsi_load_relaxed(&agent->contended[slot]);
        if (session) {
            watch_session(agent, session);
        }
    }
}

uint64_t rsi_blocking_deadline_ns(const struct rsi_agent *agent)
{
    uint64_t deadline_ns = UINT64_MAX;
    uint32_t slot_count = rsi_load_relaxed(&agent->contended_slot_count);
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        const struct rsi_session *session = rsi_load_relaxed(&agent->contended[slot]);
        uint64_t session_ns = session ? session_deadline_ns(agent, session) : UINT64_MAX;
        deadline_ns = session_ns < deadline_ns ? session_ns : deadline_ns;
    }
    return deadline_ns;
}
