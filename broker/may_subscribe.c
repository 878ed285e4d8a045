/*
 * Whether a client may have the subscription that it asks for.
 *
 * Design notes
 * - Everything is checked before anything is made, but for the memory of a policy, which stays with
 *   the session: it will be asked for again.
 * - A refusal names the setting or the other wish that stands against it.
 */
#include "broker/connection.h"
#include "broker/control_agent.h"
#include "core/log.h"
#include "proto/subject.h"

#include <string.h>

/* Whether every topic that the subscription can match has a value to be sent. False: refused. */
static bool check_conflate(struct rsi_connection *connection,
                           const Ringside__Control__Subscribe *subscribe)
{
    if (!rsi_settings_must_have_last_value(connection->control->settings, subscribe->subject)) {
        rsi_requests_refuse(
            connection, subscribe->request, RINGSIDE__CONTROL__REASON__REASON_INVALID,
            "policy conflate on '%.100s' needs the last values of all that it matches: add it to "
            "the broker's last_value, or ask for another policy",
            subscribe->subject);
        return false;
    }
    if (subscribe->no_echo) {
        rsi_requests_refuse(
            connection, subscribe->request, RINGSIDE__CONTROL__REASON__REASON_INVALID,
            "policy conflate sends the newest value of a topic, whoever's it is: it does not go "
            "with no_echo");
        return false;
    }
    return true;
}

/* Makes what the session's first subscription with policy conflate needs. False: refused. */
static bool allow_conflate(struct rsi_connection *connection, uint64_t number)
{
    struct rsi_session *session = connection->session;
    struct rsi_error error = {0};
    if (session->blocking != NULL) {
        rsi_requests_refuse(
            connection, number, RINGSIDE__CONTROL__REASON__REASON_INVALID,
            "this client has asked for policy block: use another client for policy conflate");
        return false;
    }
    for (const struct rsi_subscription_entry *entry = connection->subscriptions; entry != NULL;
         entry = entry->hh.next) {
        if (entry->group[0] != '\0') {
            rsi_requests_refuse(
                connection, number, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                "this client is a member of queue group %s: use another client for policy "
                "conflate",
                entry->group);
            return false;
        }
    }
    if (session->conflating == NULL && rsi_failed(rsi_session_allow_conflate(
                                           session, &connection->control->data_options, &error))) {
        rsi_requests_refuse(connection, number, RINGSIDE__CONTROL__REASON__REASON_INTERNAL,
                            "%.200s", error.text);
        return false;
    }
    return true;
}

/* The policy that a subscription asks for. False: refused. */
static bool decide_policy(struct rsi_connection *connection,
                          const Ringside__Control__Subscribe *subscribe, enum rsi_policy *policy)
{
    const struct rsi_settings *settings = connection->control->settings;
    switch (subscribe->policy) {
    case RINGSIDE__CONTROL__POLICY__POLICY_DEFAULT:
        *policy = settings->default_policy;
        return true;
    case RINGSIDE__CONTROL__POLICY__POLICY_DROP:
        *policy = RSI_POLICY_DROP;
        return true;
    case RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT:
        *policy = RSI_POLICY_DISCONNECT;
        return true;
    case RINGSIDE__CONTROL__POLICY__POLICY_BLOCK:
        if (settings->allow_block) {
            *policy = RSI_POLICY_BLOCK;
            return true;
        }
        rsi_requests_refuse(
            connection, subscribe->request, RINGSIDE__CONTROL__REASON__REASON_DENIED,
            "policy block is not allowed by this broker (allow_block is no): ask for drop or "
            "disconnect");
        return false;
    case RINGSIDE__CONTROL__POLICY__POLICY_CONFLATE:
        *policy = RSI_POLICY_CONFLATE;
        return check_conflate(connection, subscribe);
    case _RINGSIDE__CONTROL__POLICY_IS_INT_SIZE:
        break;
    }
    rsi_requests_refuse(connection, subscribe->request, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                        "policy %d is not known to this broker", (int)subscribe->policy);
    return false;
}

/* Whether there can be any last value that the subscription asks for, if it does. False: refused.
 */
static bool check_last(struct rsi_connection *connection,
                       const Ringside__Control__Subscribe *subscribe)
{
    const struct rsi_settings *settings = connection->control->settings;
    if (!subscribe->last || rsi_settings_may_have_last_value(settings, subscribe->subject)) {
        return true;
    }
    rsi_requests_refuse(
        connection, subscribe->request, RINGSIDE__CONTROL__REASON__REASON_INVALID,
        "the broker keeps no last values of '%.100s': its setting last_value %s; add the "
        "subject there, or subscribe without last",
        subscribe->subject,
        settings->last_value_count == 0 ? "is empty" : "names nothing that matches");
    return false;
}

/* Makes what the session's first subscription with policy block needs. False: refused. */
static bool allow_block(struct rsi_connection *connection, uint64_t number)
{
    struct rsi_session *session = connection->session;
    if (session->blocking != NULL) {
        return true;
    }
    if (session->conflating != NULL) {
        rsi_requests_refuse(
            connection, number, RINGSIDE__CONTROL__REASON__REASON_INVALID,
            "this client has asked for policy conflate: use another client for policy block");
        return false;
    }
    struct rsi_error error = {0};
    if (rsi_failed(rsi_session_allow_block(session, &connection->control->data_options, &error))) {
        rsi_requests_refuse(connection, number, RINGSIDE__CONTROL__REASON__REASON_INTERNAL,
                            "%.200s", error.text);
        return false;
    }
    char who[192];
    rsi_log_info("broker", "%s: policy block, spill of %llu KiB",
                 rsi_connection_describe(connection, who, sizeof(who)),
                 (unsigned long long)rsi_session_spill_capacity_bytes(session) >> 10);
    return true;
}

/* Whether the client may join the group that it names, if it names one. False: refused. */
static bool may_join_group(struct rsi_connection *connection,
                           const Ringside__Control__Subscribe *subscribe)
{
    const char *group = subscribe->group;
    if (group[0] == '\0') {
        return true;
    }
    const char *fault = rsi_subject_check_group(group, strlen(group));
    if (fault != NULL) {
        rsi_requests_refuse(connection, subscribe->request,
                            RINGSIDE__CONTROL__REASON__REASON_INVALID, "queue group '%.70s': %s",
                            group, fault);
        return false;
    }
    if (subscribe->last || subscribe->policy == RINGSIDE__CONTROL__POLICY__POLICY_CONFLATE ||
        connection->session->conflating != NULL) {
        rsi_requests_refuse(
            connection, subscribe->request, RINGSIDE__CONTROL__REASON__REASON_INVALID,
            "a member of a queue group gets some messages, not the state of topics: last and "
            "policy conflate are for other subscriptions, conflate for another client's");
        return false;
    }
    if (connection->control->member_count >= RSI_MEMBER_COUNT_MAX) {
        rsi_requests_refuse(
            connection, subscribe->request, RINGSIDE__CONTROL__REASON__REASON_LIMIT,
            "the broker has %u members of queue groups already, which is all that it takes",
            connection->control->member_count);
        return false;
    }
    return true;
}

bool rsi_requests_may_subscribe(struct rsi_connection *connection,
                                const Ringside__Control__Subscribe *subscribe,
                                enum rsi_policy *policy)
{
    if (!may_join_group(connection, subscribe) || !check_last(connection, subscribe) ||
        !decide_policy(connection, subscribe, policy)) {
        return false;
    }
    if (*policy == RSI_POLICY_BLOCK) {
        return allow_block(connection, subscribe->request);
    }
    return *policy != RSI_POLICY_CONFLATE || allow_conflate(connection, subscribe->request);
}
