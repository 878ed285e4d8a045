/*
 * Design notes
 * - Each record is one line of a table: name, kind, and where its value is. The data agents write
 *   words of their own (relaxed), the control agent copies them into the file; so no data agent
 * ever touches memory that a tool has mapped.
 * - Counters are a convenience: when the file has no record left, that is said once and the broker
 * goes on without the rest.
 */
#include "broker/metrics.h"

#include "core/log.h"
#include "core/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct metric {
    const char *name;
    rsi_counter_kind_t kind;
    size_t offset; /* of an _Atomic uint64_t or uint64_t in its struct */
};

#define COUNTER RSI_COUNTER_KIND_COUNTER
#define GAUGE   RSI_COUNTER_KIND_GAUGE

static const struct metric broker_metrics[] = {
    {"broker.accepted", COUNTER, offsetof(struct rsi_broker_counts, accepted)},
    {"broker.full", COUNTER, offsetof(struct rsi_broker_counts, full)},
    {"broker.refused", COUNTER, offsetof(struct rsi_broker_counts, refused)},
    {"broker.sessions_begun", COUNTER, offsetof(struct rsi_broker_counts, sessions_begun)},
    {"broker.sessions_lost", COUNTER, offsetof(struct rsi_broker_counts, sessions_lost)},
    {"broker.sessions_slow", COUNTER, offsetof(struct rsi_broker_counts, sessions_slow)},
    {"broker.sessions_resumed", COUNTER, offsetof(struct rsi_broker_counts, sessions_resumed)},
    {"broker.sessions", GAUGE, offsetof(struct rsi_broker_counts, sessions)},
    {"broker.sessions_suspended", GAUGE, offsetof(struct rsi_broker_counts, sessions_suspended)},
    {"broker.unauthenticated", GAUGE, offsetof(struct rsi_broker_counts, unauthenticated)},
    {"broker.publications", GAUGE, offsetof(struct rsi_broker_counts, publications)},
    {"broker.topics", GAUGE, offsetof(struct rsi_broker_counts, topics)},
    {"broker.subscriptions", GAUGE, offsetof(struct rsi_broker_counts, subscriptions)},
    {"broker.refreshed_ns", COUNTER, offsetof(struct rsi_broker_counts, refreshed_ns)},
};

static const struct metric agent_metrics[] = {
    {"agent.passes", COUNTER, offsetof(struct rsi_agent_counts, passes)},
    {"agent.busy_passes", COUNTER, offsetof(struct rsi_agent_counts, busy_passes)},
    {"agent.sleeps", COUNTER, offsetof(struct rsi_agent_counts, sleeps)},
    {"agent.wakes", COUNTER, offsetof(struct rsi_agent_counts, wakes)},
    {"agent.admitted_messages", COUNTER, offsetof(struct rsi_agent_counts, admitted_messages)},
    {"agent.requests", COUNTER, offsetof(struct rsi_agent_counts, requests)},
    {"agent.no_responders", COUNTER, offsetof(struct rsi_agent_counts, no_responders)},
    {"agent.lost_requests", COUNTER, offsetof(struct rsi_agent_counts, lost_requests)},
    {"agent.replies", COUNTER, offsetof(struct rsi_agent_counts, replies)},
    {"agent.refused_replies", COUNTER, offsetof(struct rsi_agent_counts, refused_replies)},
    {"agent.chosen_messages", COUNTER, offsetof(struct rsi_agent_counts, chosen_messages)},
    {"agent.delivered_messages", COUNTER, offsetof(struct rsi_agent_counts, delivered_messages)},
    {"agent.blocked_passes", COUNTER, offsetof(struct rsi_agent_counts, blocked_passes)},
    {"agent.spilled_messages", COUNTER, offsetof(struct rsi_agent_counts, spilled_messages)},
    {"agent.last_value_topics", GAUGE, offsetof(struct rsi_agent_counts, last_value_topics)},
    {"agent.last_value_overflows", COUNTER,
     offsetof(struct rsi_agent_counts, last_value_overflows)},
    {"agent.contended_sessions", GAUGE, offsetof(struct rsi_agent_counts, contended_sessions)},
    {"agent.blocked_ns", COUNTER, offsetof(struct rsi_agent_counts, blocked_ns)},
    {"agent.stalled_ns", COUNTER, offsetof(struct rsi_agent_counts, stalled_ns)},
    {"agent.log_pos", COUNTER, offsetof(struct rsi_agent_counts, log_pos)},
    {"agent.longest_pass_ns", GAUGE, offsetof(struct rsi_agent_counts, longest_pass_ns)},
};

static const struct metric session_metrics[] = {
    {"session.admitted_messages", COUNTER, offsetof(struct rsi_session_counts, admitted_messages)},
    {"session.admitted_bytes", COUNTER, offsetof(struct rsi_session_counts, admitted_bytes)},
    {"session.delivered_messages", COUNTER,
     offsetof(struct rsi_session_counts, delivered_messages)},
    {"session.delivered_bytes", COUNTER, offsetof(struct rsi_session_counts, delivered_bytes)},
    {"session.dropped_messages", COUNTER, offsetof(struct rsi_session_counts, dropped_messages)},
    {"session.conflated_messages", COUNTER,
     offsetof(struct rsi_session_counts, conflated_messages)},
    {"session.gaps", COUNTER, offsetof(struct rsi_session_counts, gaps)},
    {"session.lag_bytes", GAUGE, offsetof(struct rsi_session_counts, lag_bytes)},
    {"session.blocked_count", COUNTER, offsetof(struct rsi_session_counts, blocked_count)},
    {"session.spill_bytes", GAUGE, offsetof(struct rsi_session_counts, spill_bytes)},
    {"session.spill_bytes_max", GAUGE, offsetof(struct rsi_session_counts, spill_bytes_max)},
    {"session.stalled_by", GAUGE, offsetof(struct rsi_session_counts, stalled_by)},
};

/* What does not change while the session lives; of struct rsi_session. */
static const struct metric session_facts[] = {
    {"session.publish_ring_bytes", GAUGE, offsetof(struct rsi_session, publish_ring_bytes)},
    {"session.deliver_ring_bytes", GAUGE, offsetof(struct rsi_session, deliver_ring_bytes)},
};

/* Publish to placement, of the last second in which the control agent looked; 0: nothing came. */
static const char *const latency_metrics[RSI_LATENCY_POINT_COUNT] = {
    "session.latency_p50_ns", "session.latency_p90_ns",  "session.latency_p95_ns",
    "session.latency_p99_ns", "session.latency_p999_ns", "session.latency_max_ns",
};

/* Times that go on: the total is shown with the span that has not ended. */
static const struct span_metric {
    const char *name;
    size_t since_offset; /* in struct rsi_session_counts */
    size_t total_offset;
} span_metrics[] = {
    {"session.blocked_ns", offsetof(struct rsi_session_counts, blocked_since_ns),
     offsetof(struct rsi_session_counts, blocked_ns)},
    {"session.stalled_ns", offsetof(struct rsi_session_counts, stalled_since_ns),
     offsetof(struct rsi_session_counts, stalled_ns)},
};

static const struct metric link_metrics[] = {
    {"link.placed_bytes", COUNTER, offsetof(struct rsi_link_stats, placed_bytes)},
    {"link.arrived_bytes", COUNTER, offsetof(struct rsi_link_stats, arrived_bytes)},
    {"link.batches_sent", COUNTER, offsetof(struct rsi_link_stats, batches_sent)},
    {"link.batches_arrived", COUNTER, offsetof(struct rsi_link_stats, batches_arrived)},
    {"link.sends", COUNTER, offsetof(struct rsi_link_stats, sends)},
    {"link.doorbells", COUNTER, offsetof(struct rsi_link_stats, doorbells)},
    {"link.receives", COUNTER, offsetof(struct rsi_link_stats, receives)},
    {"link.control_sent", COUNTER, offsetof(struct rsi_link_stats, control_sent)},
    {"link.control_received", COUNTER, offsetof(struct rsi_link_stats, control_received)},
    {"link.wake_requests", COUNTER, offsetof(struct rsi_link_stats, wake_requests)},
    {"link.wakes_sent", COUNTER, offsetof(struct rsi_link_stats, wakes_sent)},
    {"link.credit_stalls", COUNTER, offsetof(struct rsi_link_stats, credit_stalls)},
    {"link.zerocopy_sends", COUNTER, offsetof(struct rsi_link_stats, zerocopy_sends)},
    {"link.zerocopy_copied", COUNTER, offsetof(struct rsi_link_stats, zerocopy_copied)},
    {"link.resent_bytes", COUNTER, offsetof(struct rsi_link_stats, resent_bytes)},
};

enum {
    BROKER_METRIC_COUNT = rsi_array_count(broker_metrics),
    AGENT_METRIC_COUNT = rsi_array_count(agent_metrics),
    SESSION_METRIC_COUNT = rsi_array_count(session_metrics),
    SPAN_METRIC_COUNT = rsi_array_count(span_metrics),
    LINK_METRIC_COUNT = rsi_array_count(link_metrics),
    SPAN_METRICS_AT = SESSION_METRIC_COUNT, /* in records[] of a session */
    LINK_METRICS_AT = SPAN_METRICS_AT + SPAN_METRIC_COUNT,
    SESSION_FACT_COUNT = rsi_array_count(session_facts),
    SESSION_FACTS_AT = LINK_METRICS_AT + LINK_METRIC_COUNT,
    LATENCY_METRICS_AT = SESSION_FACTS_AT + SESSION_FACT_COUNT,
    SESSION_RECORD_COUNT = LATENCY_METRICS_AT + RSI_LATENCY_POINT_COUNT,
    RECORDS_PER_SESSION = 1 + SESSION_RECORD_COUNT,
    FIXED_RECORD_COUNT = 1 + RSI_LISTEN_COUNT_MAX + BROKER_METRIC_COUNT +
                         RSI_AGENT_COUNT_MAX * (1 + AGENT_METRIC_COUNT) +
                         (int)RSI_SHOWN_TOPIC_COUNT_MAX + (int)RSI_SHOWN_SUBSCRIPTION_COUNT_MAX,
};
rsi_static_assert((int)SESSION_RECORD_COUNT <= (int)RSI_SESSION_METRIC_COUNT_MAX);

struct rsi_metrics {
    struct rsi_counters *counters;
    uint32_t agent_count;
    struct rsi_counter *version;
    struct rsi_counter *listeners[RSI_LISTEN_COUNT_MAX];
    uint32_t listener_count;
    struct rsi_counter *broker[BROKER_METRIC_COUNT];
    struct rsi_counter *agents[RSI_AGENT_COUNT_MAX][AGENT_METRIC_COUNT];
    uint32_t shown_topic_count;
    uint32_t shown_subscription_count;
};

/* NULL when there is no record left, which every writer below passes over. */
static struct rsi_counter *allocate(struct rsi_metrics *metrics, rsi_counter_kind_t kind,
                                    const char *name, const char *label)
{
    struct rsi_counter *counter = NULL;
    struct rsi_error error = {0};
    if (rsi_failed(rsi_counters_allocate(metrics->counters, kind, name, label, &counter, &error))) {
        rsi_log_distinct(RSI_LOG_WARNING, "broker", "some counters are missing: %s", error.text);
        return NULL;
    }
    return counter;
}

static void allocate_all(struct rsi_metrics *metrics, const struct metric *table, uint32_t count,
                         const char *label, struct rsi_counter **records)
{
    for (uint32_t i = 0; i < count; i++) {
        records[i] = allocate(metrics, table[i].kind, table[i].name, label);
    }
}

static void free_all(struct rsi_metrics *metrics, struct rsi_counter **records, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        rsi_counters_free(metrics->counters, records[i]);
        records[i] = NULL;
    }
}

/* The source's words are written by another thread; one of the control agent's own reads alike. */
static void copy_all(struct rsi_counter **records, const struct metric *table, uint32_t count,
                     const void *source)
{
    for (uint32_t i = 0; i < count; i++) {
        const _Atomic uint64_t *word =
            (const _Atomic uint64_t *)(const void *)((const char *)source + table[i].offset);
        if (records[i] != NULL) {
            rsi_counter_set(records[i], rsi_load_relaxed(word));
        }
    }
}

/* "/run/ringside" for the default path, which only root can make. */
static void make_default_directory(const char *path)
{
    char directory[RSI_SETTING_TEXT_BYTES];
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path) {
        return;
    }
    snprintf(directory, sizeof(directory), "%.*s", (int)(slash - path), path);
    /* If this fails, making the file says why. */
    if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
        rsi_log_debug("broker", "cannot make %s", directory);
    }
}

static rsi_status_t create_counters(struct rsi_metrics *metrics,
                                    const struct rsi_settings *settings, struct rsi_error *error)
{
    uint64_t wanted_count = FIXED_RECORD_COUNT + settings->client_count_max * RECORDS_PER_SESSION;
    uint32_t record_count =
        wanted_count < RSI_COUNTERS_COUNT_MAX ? (uint32_t)wanted_count : RSI_COUNTERS_COUNT_MAX;
    const char *path = settings->counters_path[0] != '\0' ? settings->counters_path : NULL;
    if (path != NULL && settings->counters_path_is_default) {
        make_default_directory(path);
    }
    struct rsi_error failure = {0};
    rsi_status_t status = rsi_counters_create(&metrics->counters, path, record_count, &failure);
    if (rsi_failed(status) && path != NULL && settings->counters_path_is_default) {
        rsi_log_warning("broker",
                        "no tool can show this broker's counters: %s; choose a file with "
                        "--counters-path",
                        failure.text);
        status = rsi_counters_create(&metrics->counters, NULL, record_count, &failure);
    }
    if (rsi_failed(status) && error != NULL) {
        *error = failure;
        rsi_error_context(error, "counters_path");
    }
    return status;
}

/* Where an agent runs and how it waits: what was set, and so what is, for else the broker ends. */
static void tell_agent(struct rsi_metrics *metrics, const struct rsi_settings *settings,
                       uint32_t agent, const char *label)
{
    struct rsi_counter *record = allocate(metrics, RSI_COUNTER_KIND_TEXT, "agent.thread", label);
    if (record == NULL) {
        return;
    }
    char cpu[32] = "not pinned";
    if (settings->agent_cpus[agent] >= 0) {
        snprintf(cpu, sizeof(cpu), "cpu %d", settings->agent_cpus[agent]);
    }
    char size_buffer[32];
    struct rsi_text size;
    rsi_text_init(&size, size_buffer, sizeof(size_buffer));
    rsi_text_append_size(&size, settings->log_bytes);
    rsi_counter_set_text(record, "%s, waits %s, log %s", cpu,
                         rsi_idle_strategy_name(settings->wait), size.data);
}

rsi_status_t rsi_metrics_create(struct rsi_metrics **created, const struct rsi_settings *settings,
                                struct rsi_error *error)
{
    struct rsi_metrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for counters");
    }
    rsi_status_t status = create_counters(metrics, settings, error);
    if (rsi_failed(status)) {
        free(metrics);
        return status;
    }
    metrics->agent_count = (uint32_t)settings->agent_count;
    metrics->version = allocate(metrics, RSI_COUNTER_KIND_TEXT, "broker.version", "");
    if (metrics->version != NULL) {
        rsi_counter_set_text(metrics->version, "ringsided %s, name %s, wire version %u to %u",
                             RSI_VERSION_TEXT, settings->name, RSI_WIRE_VERSION_MIN,
                             RSI_WIRE_VERSION_MAX);
    }
    allocate_all(metrics, broker_metrics, BROKER_METRIC_COUNT, "", metrics->broker);
    for (uint32_t i = 0; i < metrics->agent_count; i++) {
        char label[16];
        snprintf(label, sizeof(label), "%u", i);
        tell_agent(metrics, settings, i, label);
        allocate_all(metrics, agent_metrics, AGENT_METRIC_COUNT, label, metrics->agents[i]);
    }
    *created = metrics;
    return RSI_OK;
}

void rsi_metrics_destroy(struct rsi_metrics *metrics)
{
    if (metrics == NULL) {
        return;
    }
    rsi_counters_destroy(metrics->counters);
    free(metrics);
}

void rsi_metrics_add_listener(struct rsi_metrics *metrics, const char *url)
{
    if (metrics->listener_count == RSI_LISTEN_COUNT_MAX) {
        return;
    }
    struct rsi_counter *record = allocate(metrics, RSI_COUNTER_KIND_TEXT, "broker.listener", url);
    if (record != NULL) {
        rsi_counter_set_text(record, "%s", url);
    }
    metrics->listeners[metrics->listener_count++] = record;
}

void rsi_metrics_add_session(struct rsi_metrics *metrics, const struct rsi_session *session,
                             struct rsi_session_metrics *records)
{
    char label[RSI_COUNTER_LABEL_BYTES];
    snprintf(label, sizeof(label), "%.40s#%llu", session->name, (unsigned long long)session->id);
    records->text = allocate(metrics, RSI_COUNTER_KIND_TEXT, "session.link", label);
    allocate_all(metrics, session_metrics, SESSION_METRIC_COUNT, label, records->records);
    for (uint32_t i = 0; i < SPAN_METRIC_COUNT; i++) {
        records->records[SPAN_METRICS_AT + i] =
            allocate(metrics, COUNTER, span_metrics[i].name, label);
    }
    allocate_all(metrics, link_metrics, LINK_METRIC_COUNT, label,
                 records->records + LINK_METRICS_AT);
    allocate_all(metrics, session_facts, SESSION_FACT_COUNT, label,
                 records->records + SESSION_FACTS_AT);
    for (uint32_t i = 0; i < RSI_LATENCY_POINT_COUNT; i++) {
        records->records[LATENCY_METRICS_AT + i] =
            allocate(metrics, GAUGE, latency_metrics[i], label);
    }
    memset(&records->latency_seen, 0, sizeof(records->latency_seen));
}

/* A record of its own for one of many, if not too many have one. */
static bool show_one_more(struct rsi_metrics *metrics, struct rsi_counter **record,
                          uint32_t *shown_count, uint32_t count_max, const char *name,
                          const char *label)
{
    if (*record == NULL && *shown_count < count_max) {
        *record = allocate(metrics, RSI_COUNTER_KIND_TEXT, name, label);
        *shown_count += *record != NULL;
    }
    return *record != NULL;
}

static void hide(struct rsi_metrics *metrics, struct rsi_counter **record, uint32_t *shown_count)
{
    if (*record != NULL) {
        rsi_counters_free(metrics->counters, *record);
        *record = NULL;
        (*shown_count)--;
    }
}

void rsi_metrics_show_topic(struct rsi_metrics *metrics, struct rsi_counter **record,
                            uint32_t topic, const char *subject, uint32_t publication_count)
{
    char label[16];
    snprintf(label, sizeof(label), "%u", topic);
    if (metrics != NULL && show_one_more(metrics, record, &metrics->shown_topic_count,
                                         RSI_SHOWN_TOPIC_COUNT_MAX, "topic", label)) {
        rsi_counter_set_text(*record, "%u %s", publication_count, subject);
    }
}

void rsi_metrics_hide_topic(struct rsi_metrics *metrics, struct rsi_counter **record)
{
    if (metrics != NULL) {
        hide(metrics, record, &metrics->shown_topic_count);
    }
}

void rsi_metrics_show_subscription(struct rsi_metrics *metrics, struct rsi_counter **record,
                                   const struct rsi_session *session, uint64_t subscription,
                                   enum rsi_policy policy, bool no_echo, const char *pattern)
{
    static const char *const policies[RSI_POLICY_COUNT] = {
        [RSI_POLICY_DROP] = "drop",
        [RSI_POLICY_DISCONNECT] = "disconnect",
        [RSI_POLICY_BLOCK] = "block",
        [RSI_POLICY_CONFLATE] = "conflate",
    };
    char label[RSI_COUNTER_LABEL_BYTES];
    snprintf(label, sizeof(label), "%.20s#%llu/%llu", session->name,
             (unsigned long long)session->id, (unsigned long long)subscription);
    if (metrics != NULL && show_one_more(metrics, record, &metrics->shown_subscription_count,
                                         RSI_SHOWN_SUBSCRIPTION_COUNT_MAX, "subscription", label)) {
        rsi_counter_set_text(*record, "%s%s %s", policies[policy], no_echo ? ", no echo" : "",
                             pattern);
    }
}

void rsi_metrics_hide_subscription(struct rsi_metrics *metrics, struct rsi_counter **record)
{
    if (metrics != NULL) {
        hide(metrics, record, &metrics->shown_subscription_count);
    }
}

void rsi_metrics_tell_link(struct rsi_session_metrics *records, const struct rsi_link *link,
                           uint32_t agent)
{
    if (records->text == NULL) {
        return;
    }
    if (link == NULL) {
        rsi_counter_set_text(records->text, "no link: suspended, agent %u", agent);
    } else {
        rsi_counter_set_text(records->text, "%s, peer %s, at %s, agent %u", link->transport->name,
                             link->peer_text, link->local_text, agent);
    }
}

void rsi_metrics_remove_session(struct rsi_metrics *metrics, struct rsi_session_metrics *records)
{
    rsi_counters_free(metrics->counters, records->text);
    records->text = NULL;
    free_all(metrics, records->records, SESSION_RECORD_COUNT);
}

void rsi_metrics_update_broker(struct rsi_metrics *metrics, const struct rsi_broker_counts *counts,
                               const struct rsi_data_plane *plane)
{
    copy_all(metrics->broker, broker_metrics, BROKER_METRIC_COUNT, counts);
    for (uint32_t i = 0; i < metrics->agent_count; i++) {
        copy_all(metrics->agents[i], agent_metrics, AGENT_METRIC_COUNT,
                 rsi_data_plane_counts(plane, i));
    }
}

/* A counter never goes back, though a span that ends just now can be seen short. */
static void update_span(struct rsi_counter *record, const struct span_metric *metric,
                        const struct rsi_session_counts *counts, uint64_t now_ns)
{
    const char *base = (const char *)counts;
    uint64_t spans_ns = rsi_count_spans_ns(
        (const _Atomic uint64_t *)(const void *)(base + metric->since_offset),
        (const _Atomic uint64_t *)(const void *)(base + metric->total_offset), now_ns);
    if (record != NULL && spans_ns > rsi_counter_get(record)) {
        rsi_counter_set(record, spans_ns);
    }
}

void rsi_metrics_update_session(const struct rsi_session *session, const struct rsi_link *link,
                                struct rsi_session_metrics *records, uint64_t now_ns)
{
    copy_all(records->records, session_metrics, SESSION_METRIC_COUNT, &session->counts);
    for (uint32_t i = 0; i < SPAN_METRIC_COUNT; i++) {
        update_span(records->records[SPAN_METRICS_AT + i], &span_metrics[i], &session->counts,
                    now_ns);
    }
    copy_all(records->records + LINK_METRICS_AT, link_metrics, LINK_METRIC_COUNT, &link->stats);
    copy_all(records->records + SESSION_FACTS_AT, session_facts, SESSION_FACT_COUNT, session);
    struct rsi_latency_points points;
    rsi_latency_look(&session->latency, &records->latency_seen, &points);
    for (uint32_t i = 0; i < RSI_LATENCY_POINT_COUNT; i++) {
        if (records->records[LATENCY_METRICS_AT + i] != NULL) {
            rsi_counter_set(records->records[LATENCY_METRICS_AT + i], points.values_ns[i]);
        }
    }
}
