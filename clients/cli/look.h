/*
 * A look at a broker: what its counters file says at one moment, sorted by what it is about. For
 * `top` and `info`.
 *
 * Nothing is kept open between two looks, so a broker that was started again is simply the next
 * one.
 */
#ifndef RSI_CLI_LOOK_H
#define RSI_CLI_LOOK_H

#include "core/counters.h"

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- which file --------------------------------------------------------------------------------
 */

enum { RSI_LOOK_PATH_BYTES = 1024 };

/* A child parser's input; zeroed by the parser itself. */
struct rsi_look_options {
    const char *counters;
    const char *url;
    char path[RSI_LOOK_PATH_BYTES]; /* the file, whichever way it was given */
};

/* --counters and --url. */
extern const struct argp_child rsi_look_children[];

/* ---- what it says ------------------------------------------------------------------------------
 */

/* Values of a session and its link, under the names of rsi_look_session_names. */
enum rsi_session_value {
    RSI_SESSION_ADMITTED_MESSAGES,
    RSI_SESSION_ADMITTED_BYTES,
    RSI_SESSION_DELIVERED_MESSAGES,
    RSI_SESSION_DELIVERED_BYTES,
    RSI_SESSION_DROPPED_MESSAGES,
    RSI_SESSION_GAPS,
    RSI_SESSION_LAG_BYTES,
    RSI_SESSION_SPILL_BYTES,
    RSI_SESSION_SPILL_BYTES_MAX,
    RSI_SESSION_BLOCKED_COUNT,
    RSI_SESSION_BLOCKED_NS,
    RSI_SESSION_STALLED_NS,
    RSI_SESSION_STALLED_BY,
    RSI_SESSION_PUBLISH_RING_BYTES,
    RSI_SESSION_DELIVER_RING_BYTES,
    RSI_SESSION_LATENCY_P50_NS,
    RSI_SESSION_LATENCY_P90_NS,
    RSI_SESSION_LATENCY_P95_NS,
    RSI_SESSION_LATENCY_P99_NS,
    RSI_SESSION_LATENCY_P999_NS,
    RSI_SESSION_LATENCY_MAX_NS,
    RSI_LINK_PLACED_BYTES,
    RSI_LINK_ARRIVED_BYTES,
    RSI_LINK_BATCHES_SENT,
    RSI_LINK_BATCHES_ARRIVED,
    RSI_LINK_SENDS,
    RSI_LINK_RECEIVES,
    RSI_LINK_CREDIT_STALLS,
    RSI_SESSION_VALUE_COUNT,
};
extern const char *const rsi_look_session_names[RSI_SESSION_VALUE_COUNT];

enum rsi_agent_value {
    RSI_AGENT_PASSES,
    RSI_AGENT_BUSY_PASSES,
    RSI_AGENT_SLEEPS,
    RSI_AGENT_WAKES,
    RSI_AGENT_ADMITTED_MESSAGES,
    RSI_AGENT_DELIVERED_MESSAGES,
    RSI_AGENT_LONGEST_PASS_NS,
    RSI_AGENT_VALUE_COUNT,
};

enum rsi_broker_value {
    RSI_BROKER_SESSIONS,
    RSI_BROKER_SESSIONS_SUSPENDED,
    RSI_BROKER_UNAUTHENTICATED,
    RSI_BROKER_PUBLICATIONS,
    RSI_BROKER_TOPICS,
    RSI_BROKER_SUBSCRIPTIONS,
    RSI_BROKER_ACCEPTED,
    RSI_BROKER_REFUSED,
    RSI_BROKER_TURNED_AWAY,
    RSI_BROKER_SESSIONS_BEGUN,
    RSI_BROKER_SESSIONS_LOST,
    RSI_BROKER_SESSIONS_SLOW,
    RSI_BROKER_SESSIONS_RESUMED,
    RSI_BROKER_REFRESHED_NS,
    RSI_BROKER_VALUE_COUNT,
};
extern const char *const rsi_look_broker_names[RSI_BROKER_VALUE_COUNT];
extern const char *const rsi_look_agent_names[RSI_AGENT_VALUE_COUNT];

struct rsi_look_session {
    uint64_t id;
    char name[RSI_COUNTER_LABEL_BYTES];
    char transport[16]; /* "": it has no link now */
    char peer[RSI_COUNTER_TEXT_BYTES];
    char local[RSI_COUNTER_TEXT_BYTES];
    int agent; /* -1: not said */
    uint64_t values[RSI_SESSION_VALUE_COUNT];
};

struct rsi_look_agent {
    uint32_t number;
    char thread[RSI_COUNTER_TEXT_BYTES]; /* "cpu 3, waits busy, log 64 MiB" */
    uint64_t values[RSI_AGENT_VALUE_COUNT];
};

/* A listener's URL, a topic ("PUBLICATIONS SUBJECT") or a subscription ("POLICY PATTERN"). */
struct rsi_look_line {
    uint64_t session; /* of a subscription */
    char session_name[RSI_COUNTER_LABEL_BYTES];
    char text[RSI_COUNTER_TEXT_BYTES];
};

struct rsi_look_lines {
    struct rsi_look_line *list;
    size_t count;
};

struct rsi_look {
    char version[RSI_COUNTER_TEXT_BYTES]; /* "ringsided 0.1.0" */
    char name[RSI_COUNTER_TEXT_BYTES];
    char wire[RSI_COUNTER_TEXT_BYTES]; /* "1 to 1" */
    int64_t pid;
    uint64_t start_realtime_ns;
    uint64_t values[RSI_BROKER_VALUE_COUNT];
    struct rsi_look_agent *agents;
    size_t agent_count;
    struct rsi_look_session *sessions;
    size_t session_count;
    struct rsi_look_lines listeners;
    struct rsi_look_lines topics;
    struct rsi_look_lines subscriptions;
};

/*
 * Looks. `look` is zeroed or a former look, which is replaced. Errors: those of rsi_counters_open,
 * with what to do about it; NOT_FOUND also when the broker that made the file is gone; INVALID when
 * the file is a client's; NO_MEMORY.
 */
rsi_status_t rsi_look_take(struct rsi_look *look, const char *path,
                           struct rsi_error *error) RSI_MUST_CHECK;
/* Frees what it holds; takes a zeroed one. */
void rsi_look_fini(struct rsi_look *look);

/* The session of that id, or NULL. */
const struct rsi_look_session *rsi_look_find(const struct rsi_look *look, uint64_t session_id);
/* How long the broker has been running. */
uint64_t rsi_look_uptime_ns(const struct rsi_look *look);
/* Whether both are of the same run of the same broker. */
bool rsi_look_is_same_broker(const struct rsi_look *a, const struct rsi_look *b);

/* ---- as JSON -----------------------------------------------------------------------------------
 *
 * New references; NULL: no memory. Names that are not UTF-8 get a '?' for each byte that is not
 * ASCII.
 */

json_t *rsi_look_text_json(const char *text);
/* Name, version, pid, up-time, and every value. */
json_t *rsi_look_broker_json(const struct rsi_look *look);
json_t *rsi_look_agent_json(const struct rsi_look_agent *agent);
json_t *rsi_look_session_json(const struct rsi_look_session *session);

#endif
