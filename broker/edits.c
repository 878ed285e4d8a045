/*
 * Design notes: what an agent does when it applies an edit of the list (data_agent.h). All agents
 * apply all edits in the same order, each before it admits and before it walks a newly acquired end
 * of a log. Nothing here may fail in a way that would leave agents apart: what needs memory ends
 * the session that asked for it.
 */
#include "broker/agent_internal.h"

#include <string.h>

static void apply_join(struct rsi_agent *agent, struct rsi_session *session)
{
    rsi_assert(agent->session_count < agent->plane->options.session_count_max);
    session->data.slot = agent->session_count;
    session->data.stop_pos = UINT64_MAX;
    agent->sessions[agent->session_count++] = session;
    rsi_sessions_by_id_add(agent, session);
}

/*
 * What has arrived is what the transports have found when they find no more: a poll takes a share
 * only. Nothing is consumed meanwhile, so full rings end it at the latest.
 */
static void take_all_arrivals(struct rsi_agent *agent)
{
    uint64_t event_count = 1;
    for (uint32_t round = 0; round < RSI_ARRIVAL_ROUNDS_MAX && event_count > 0; round++) {
        event_count = 0;
        for (uint32_t i = 0; i < agent->poller_count; i++) {
            event_count += rsi_poller_poll(agent->pollers[i], agent->now_ns);
        }
    }
}

static void admit_no_more_than(struct rsi_session *session, uint64_t stop_pos)
{
    if (stop_pos < session->data.stop_pos) {
        session->data.stop_pos = stop_pos;
    }
}

/* Delivers no more. What arrives up to leave_pos is still admitted, or, if the client named none,
 * what has arrived, and then it is let go. */
static void apply_leave(struct rsi_agent *agent, struct rsi_session *session, uint64_t leave_pos)
{
    rsi_assert(!session->data.is_leaving);
    rsi_agent_lose_calls(agent, session);
    rsi_topic_index_remove_session(&agent->topics, session);
    rsi_agent_end_lags(agent, session);
    rsi_agent_forget_gaps(agent, session);
    rsi_agent_end_snapshots(agent, session);
    rsi_agent_end_conflate(agent, session);
    rsi_agent_end_block(agent, session);
    if (leave_pos == 0) {
        if (rsi_link_state(session->link) == RSI_LINK_ATTACHED) {
            take_all_arrivals(agent); /* what a flush vouched for may lie in the ring unnoticed */
        }
        admit_no_more_than(session, session->link->arrived_pos);
    }
    session->data.leave_pos = leave_pos;
    session->data.is_leaving = true;
    rsi_agent_note_behind(session);
    agent->leaving_count++;
}

/* The link is CLOSED: but for what is still admitted from it, its positions move no more. */
static void apply_suspend(struct rsi_session *session)
{
    session->held_consumed_pos = session->link->consumed_pos;
    rsi_store_relaxed(&session->is_behind, 1u);
}

/* Also for a session at fault: the link it had is the control agent's again after this. */
static void apply_resume(struct rsi_agent *agent, struct rsi_session *session,
                         struct rsi_link *link)
{
    rsi_link_carry(link, session->link);
    session->link = link;
    rsi_agent_note_behind(session);
    rsi_agent_mark_dirty(agent, session);
}

/* Other agents may log frames of the topic from here on, so it cannot be refused; those who would
 * miss them for lack of memory can. */
static void apply_publication_open(struct rsi_agent *agent, const struct rsi_edit *edit)
{
    struct rsi_publication *publication = edit->publication;
    struct rsi_session *session;
    uint32_t cursor = 0;
    rsi_topic_index_add_topic(&agent->topics, publication->topic_memory[agent->index],
                              publication->topic, publication->subject, publication->subject_bytes);
    publication->topic_memory[agent->index] = NULL;
    rsi_groups_add_topic(&agent->groups, rsi_topic_index_find(&agent->topics, publication->topic));
    if (publication->is_last_value) {
        rsi_last_values_add_topic(&agent->last_values,
                                  rsi_topic_index_find(&agent->topics, publication->topic));
        rsi_store_relaxed(&agent->counts.last_value_topics, agent->last_values.topic_count);
    }
    while ((session = rsi_topic_index_next_unmatched(&agent->topics, publication->topic,
                                                     &cursor)) != NULL) {
        rsi_agent_fault(agent, session, RSI_E_NO_MEMORY,
                        "the broker has no memory for a subscription that matches %s",
                        publication->subject);
    }
    if (edit->session->agent == agent->index) {
        edit->session->data.aliases[publication->alias] = publication;
    }
}

static void apply_publication_close(struct rsi_agent *agent, const struct rsi_edit *edit)
{
    struct rsi_session *session = edit->session;
    if (session->agent != agent->index || rsi_load_relaxed(&edit->publication->closed)) {
        return; /* the session left meanwhile, and all its publications are closed */
    }
    edit->publication->close_pos = edit->position;
    edit->publication->is_closing = true;
    session->data.closing_count++;
    agent->closing_count++;
}

static void apply_publication_retire(struct rsi_agent *agent, const struct rsi_edit *edit)
{
    uint32_t slot = edit->publication->id & (agent->plane->options.publication_count_max - 1);
    for (uint32_t i = 0; i < agent->session_count; i++) {
        rsi_bit_clear(agent->sessions[i]->data.announced, slot);
        rsi_session_set_sparse(agent->sessions[i], slot, false);
    }
}

static void resolve_policy(struct rsi_agent *agent, struct rsi_session *session)
{
    const uint32_t *counts = session->data.policy_counts;
    enum rsi_policy policy_before = session->data.policy;
    session->data.policy = counts[RSI_POLICY_BLOCK] > 0        ? RSI_POLICY_BLOCK
                           : counts[RSI_POLICY_DISCONNECT] > 0 ? RSI_POLICY_DISCONNECT
                           : counts[RSI_POLICY_CONFLATE] > 0   ? RSI_POLICY_CONFLATE
                                                               : RSI_POLICY_DROP;
    if (session->data.policy == policy_before) {
        return;
    }
    if (session->data.policy == RSI_POLICY_BLOCK) {
        rsi_agent_begin_block(agent, session, policy_before);
        return;
    }
    if (policy_before == RSI_POLICY_BLOCK) {
        rsi_blocking_release(agent, session);
    }
    if (session->data.policy == RSI_POLICY_CONFLATE) {
        rsi_agent_begin_conflate(agent, session);
    }
    /* A cursor on its way up to the common walk leaves out no more than the policy allows. */
    for (uint32_t i = 0; i < RSI_AGENT_COUNT_MAX && session->data.policy != RSI_POLICY_DROP; i++) {
        session->data.lags[i].is_dropping = false;
    }
}

static void apply_subscribe(struct rsi_agent *agent, const struct rsi_edit *edit)
{
    struct rsi_session *session = edit->session;
    if (edit->policy == RSI_POLICY_BLOCK) {
        rsi_blocking_subscribed(agent, session);
    }
    if (edit->group[0] != '\0') {
        rsi_groups_add(&agent->groups, &agent->topics, session, edit);
    }
    if (session->agent != agent->index || session->data.is_leaving || session->data.is_failed) {
        return;
    }
    struct rsi_subscription subscription = {
        .session = session,
        .id = edit->subscription,
        .policy = edit->policy,
        .no_echo = edit->no_echo,
        .is_member = edit->group[0] != '\0',
        .pattern_bytes = (uint16_t)strlen(edit->subject),
    };
    memcpy(subscription.pattern, edit->subject, sizeof(subscription.pattern));
    memcpy(subscription.start_pos, agent->common_pos, sizeof(subscription.start_pos));
    if (edit->policy == RSI_POLICY_BLOCK) {
        rsi_agent_allow_block(agent, session);
    }
    if (edit->policy == RSI_POLICY_CONFLATE) {
        session->data.conflating = session->conflating;
    }
    if (session->data.blocking && session->data.blocking->is_settling) {
        for (uint32_t i = 0; i < RSI_AGENT_COUNT_MAX; i++) {
            subscription.start_pos[i] = RSI_START_WITH_BLOCK;
        }
    }
    struct rsi_error error = {0};
    if (rsi_topic_index_subscribe(&agent->topics, &subscription, &error) != RSI_OK) {
        rsi_agent_fault(agent, session, error.status, "%s", error.text);
        return;
    }
    session->data.policy_counts[edit->policy]++;
    if (edit->snapshot) {
        rsi_agent_begin_snapshot(agent, session, edit->snapshot, &subscription);
    }
    resolve_policy(agent, session);
}

static void apply_unsubscribe(struct rsi_agent *agent, const struct rsi_edit *edit)
{
    struct rsi_session *session = edit->session;
    rsi_groups_remove(&agent->groups, &agent->topics, session, edit->subscription);
    if (session->agent != agent->index) {
        return;
    }
    rsi_store_relaxed(&session->unsubscribed_pos, session->link->staged_pos);
    if (session->data.is_leaving) {
        return;
    }
    struct rsi_subscription removed;
    if (!rsi_topic_index_unsubscribe(&agent->topics, session, edit->subscription, &removed)) {
        return;
    }
    rsi_agent_forget_unwanted(agent, session);
    rsi_agent_strike_unwanted(agent, session);
    rsi_agent_forget_unwanted_missed(agent, session);
    rsi_agent_end_snapshot(agent, session, edit->subscription);
    session->data.policy_counts[removed.policy]--;
    resolve_policy(agent, session);
}

static void apply_topic_retire(struct rsi_agent *agent, uint32_t id)
{
    struct rsi_topic *topic = rsi_topic_index_find(&agent->topics, id);
    if (topic && topic->last_value != 0) {
        rsi_last_values_remove_topic(&agent->last_values, topic);
        rsi_store_relaxed(&agent->counts.last_value_topics, agent->last_values.topic_count);
    }
    rsi_topic_index_remove_topic(&agent->topics, id);
}

static void apply_stop(struct rsi_agent *agent)
{
    agent->is_stopping = true;
    take_all_arrivals(agent);
    for (uint32_t i = 0; i < agent->session_count; i++) {
        admit_no_more_than(agent->sessions[i], agent->sessions[i]->link->arrived_pos);
    }
}

static void apply_edit(struct rsi_agent *agent, const struct rsi_edit *edit)
{
    switch (edit->kind) {
    case RSI_EDIT_SESSION_JOIN:
        if (edit->session->agent == agent->index) {
            apply_join(agent, edit->session);
        }
        break;
    case RSI_EDIT_SESSION_LEAVE:
        rsi_groups_remove_session(&agent->groups, &agent->topics, edit->session);
        if (edit->session->agent == agent->index) {
            apply_leave(agent, edit->session, edit->position);
        }
        break;
    case RSI_EDIT_SESSION_HALT:
        if (edit->session->agent == agent->index) {
            admit_no_more_than(edit->session, edit->session->link->consumed_pos);
        }
        break;
    case RSI_EDIT_SESSION_FORGET:
        rsi_blocking_forget(agent, edit->session);
        break;
    case RSI_EDIT_SESSION_SUSPEND:
        if (edit->session->agent == agent->index) {
            apply_suspend(edit->session);
        }
        break;
    case RSI_EDIT_SESSION_RESUME:
        if (edit->session->agent == agent->index) {
            apply_resume(agent, edit->session, edit->link);
        }
        break;
    case RSI_EDIT_PUBLICATION_OPEN:
        apply_publication_open(agent, edit);
        break;
    case RSI_EDIT_PUBLICATION_CLOSE:
        apply_publication_close(agent, edit);
        break;
    case RSI_EDIT_PUBLICATION_RETIRE:
        apply_publication_retire(agent, edit);
        break;
    case RSI_EDIT_SUBSCRIBE:
        apply_subscribe(agent, edit);
        break;
    case RSI_EDIT_DRAIN:
        rsi_groups_remove(&agent->groups, &agent->topics, edit->session, edit->subscription);
        break;
    case RSI_EDIT_UNSUBSCRIBE:
        apply_unsubscribe(agent, edit);
        break;
    case RSI_EDIT_TOPIC_RETIRE:
        apply_topic_retire(agent, edit->topic);
        break;
    case RSI_EDIT_STOP:
        apply_stop(agent);
        break;
    }
}

uint64_t rsi_agent_apply_edits(struct rsi_agent *agent)
{
    uint64_t applied_count = rsi_load_relaxed(&agent->applied_count);
    uint64_t edit_count = rsi_load_acquire(&agent->plane->edit_count);
    if (applied_count == edit_count) {
        return 0;
    }
    for (uint64_t i = applied_count; i < edit_count; i++) {
        apply_edit(agent, &agent->plane->edits[i & (RSI_EDIT_COUNT - 1)]);
    }
    rsi_store_release(&agent->applied_count, edit_count);
    rsi_waker_wake(agent->plane->options.control_waker);
    return edit_count - applied_count;
}
