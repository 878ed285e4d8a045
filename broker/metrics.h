/*
 * The broker's counters file: what it is, what each data agent does, and what each client's session
 * and link did. Refreshed by the control agent, at most once a second; looking costs nobody
 * anything.
 *
 * Names: broker.*, agent.* (label: its number), session.* and link.* (label: client name#session
 * id); topic (label: its id) and subscription (label: client name#session id/subscription id), each
 * a line of text, as many as there is room for.
 */
#ifndef RSI_BROKER_METRICS_H
#define RSI_BROKER_METRICS_H

#include "broker/data_agent.h"
#include "broker/settings.h"
#include "core/counters.h"

enum { RSI_SESSION_METRIC_COUNT_MAX = 48 };

struct rsi_session_metrics {
    struct rsi_counter *text;
    struct rsi_counter *records[RSI_SESSION_METRIC_COUNT_MAX];
    struct rsi_latency_seen latency_seen;
};

/* What the control agent itself counts. */
struct rsi_broker_counts {
    uint64_t accepted;
    uint64_t full;    /* looks at which newcomers waited: too many are unauthenticated */
    uint64_t refused; /* told why */
    uint64_t sessions_begun;
    uint64_t sessions_lost;
    uint64_t sessions_slow;
    uint64_t sessions_resumed;   /* went on over another link */
    uint64_t sessions;           /* levels from here on */
    uint64_t sessions_suspended; /* of these, without a link */
    uint64_t unauthenticated;
    uint64_t publications;
    uint64_t topics;
    uint64_t subscriptions;
    uint64_t refreshed_ns; /* CLOCK_MONOTONIC: when the file was last brought up to date */
};

struct rsi_metrics;

/*
 * A default path that cannot be used is a warning, and the counters are then shared with nobody.
 * Errors: those of rsi_counters_create.
 */
RSI_MUST_CHECK rsi_status_t rsi_metrics_create(struct rsi_metrics **metrics,
                                               const struct rsi_settings *settings,
                                               struct rsi_error *error);
/* NULL is fine. Removes the file. */
void rsi_metrics_destroy(struct rsi_metrics *metrics);

void rsi_metrics_add_listener(struct rsi_metrics *metrics, const char *url);
void rsi_metrics_add_session(struct rsi_metrics *metrics, const struct rsi_session *session,
                             struct rsi_session_metrics *records);
/* Which link it has; NULL: none now. */
void rsi_metrics_tell_link(struct rsi_session_metrics *records, const struct rsi_link *link,
                           uint32_t agent);
void rsi_metrics_remove_session(struct rsi_metrics *metrics, struct rsi_session_metrics *records);

/*
 * Topics and subscriptions are shown while there is room for them: RSI_SHOWN_TOPIC_COUNT_MAX and
 * RSI_SHOWN_SUBSCRIPTION_COUNT_MAX. *record is NULL before the first call and stays NULL when
 * there is none left. `metrics` NULL: nothing is shown.
 */
enum { RSI_SHOWN_TOPIC_COUNT_MAX = 1024, RSI_SHOWN_SUBSCRIPTION_COUNT_MAX = 2048 };
/* "PUBLICATIONS SUBJECT"; again when the number changed. */
void rsi_metrics_show_topic(struct rsi_metrics *metrics, struct rsi_counter **record,
                            uint32_t topic, const char *subject, uint32_t publication_count);
void rsi_metrics_hide_topic(struct rsi_metrics *metrics, struct rsi_counter **record);
/* "POLICY PATTERN", with ", no echo" behind the policy where that was asked for. */
void rsi_metrics_show_subscription(struct rsi_metrics *metrics, struct rsi_counter **record,
                                   const struct rsi_session *session, uint64_t subscription,
                                   enum rsi_policy policy, bool no_echo, const char *pattern);
void rsi_metrics_hide_subscription(struct rsi_metrics *metrics, struct rsi_counter **record);

void rsi_metrics_update_broker(struct rsi_metrics *metrics, const struct rsi_broker_counts *counts,
                               const struct rsi_data_plane *plane);
/* link: the one whose numbers are shown, beside those of its session. */
void rsi_metrics_update_session(const struct rsi_session *session, const struct rsi_link *link,
                                struct rsi_session_metrics *records, uint64_t now_ns);

#endif
