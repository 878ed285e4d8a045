/*
 * Design notes
 * - The file belongs to another process and may be of another version, half gone or wrong: every
 *   text is taken apart with bounds, what is not there stays empty, names that are not known are
 *   passed over.
 * - The records of one session stand together as a rule, so the session looked for is nearly always
 *   the last one found.
 */
#include "clients/cli/look.h"

#include "clients/cli/cli.h"
#include "core/clock.h"
#include "core/text.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATH_DEFAULT          "/run/ringside/broker-7400.counters"
#define RUN_DIRECTORY_DEFAULT "/run/ringside"

const char *const rsi_look_session_names[RSI_SESSION_VALUE_COUNT] = {
    [RSI_SESSION_ADMITTED_MESSAGES] = "session.admitted_messages",
    [RSI_SESSION_ADMITTED_BYTES] = "session.admitted_bytes",
    [RSI_SESSION_DELIVERED_MESSAGES] = "session.delivered_messages",
    [RSI_SESSION_DELIVERED_BYTES] = "session.delivered_bytes",
    [RSI_SESSION_DROPPED_MESSAGES] = "session.dropped_messages",
    [RSI_SESSION_GAPS] = "session.gaps",
    [RSI_SESSION_LAG_BYTES] = "session.lag_bytes",
    [RSI_SESSION_SPILL_BYTES] = "session.spill_bytes",
    [RSI_SESSION_SPILL_BYTES_MAX] = "session.spill_bytes_max",
    [RSI_SESSION_BLOCKED_COUNT] = "session.blocked_count",
    [RSI_SESSION_BLOCKED_NS] = "session.blocked_ns",
    [RSI_SESSION_STALLED_NS] = "session.stalled_ns",
    [RSI_SESSION_STALLED_BY] = "session.stalled_by",
    [RSI_SESSION_PUBLISH_RING_BYTES] = "session.publish_ring_bytes",
    [RSI_SESSION_DELIVER_RING_BYTES] = "session.deliver_ring_bytes",
    [RSI_SESSION_LATENCY_P50_NS] = "session.latency_p50_ns",
    [RSI_SESSION_LATENCY_P90_NS] = "session.latency_p90_ns",
    [RSI_SESSION_LATENCY_P95_NS] = "session.latency_p95_ns",
    [RSI_SESSION_LATENCY_P99_NS] = "session.latency_p99_ns",
    [RSI_SESSION_LATENCY_P999_NS] = "session.latency_p999_ns",
    [RSI_SESSION_LATENCY_MAX_NS] = "session.latency_max_ns",
    [RSI_LINK_PLACED_BYTES] = "link.placed_bytes",
    [RSI_LINK_ARRIVED_BYTES] = "link.arrived_bytes",
    [RSI_LINK_BATCHES_SENT] = "link.batches_sent",
    [RSI_LINK_BATCHES_ARRIVED] = "link.batches_arrived",
    [RSI_LINK_SENDS] = "link.sends",
    [RSI_LINK_RECEIVES] = "link.receives",
    [RSI_LINK_CREDIT_STALLS] = "link.credit_stalls",
};

const char *const rsi_look_agent_names[RSI_AGENT_VALUE_COUNT] = {
    [RSI_AGENT_PASSES] = "agent.passes",
    [RSI_AGENT_BUSY_PASSES] = "agent.busy_passes",
    [RSI_AGENT_SLEEPS] = "agent.sleeps",
    [RSI_AGENT_WAKES] = "agent.wakes",
    [RSI_AGENT_ADMITTED_MESSAGES] = "agent.admitted_messages",
    [RSI_AGENT_DELIVERED_MESSAGES] = "agent.delivered_messages",
    [RSI_AGENT_LONGEST_PASS_NS] = "agent.longest_pass_ns",
};

const char *const rsi_look_broker_names[RSI_BROKER_VALUE_COUNT] = {
    [RSI_BROKER_SESSIONS] = "broker.sessions",
    [RSI_BROKER_SESSIONS_SUSPENDED] = "broker.sessions_suspended",
    [RSI_BROKER_UNAUTHENTICATED] = "broker.unauthenticated",
    [RSI_BROKER_PUBLICATIONS] = "broker.publications",
    [RSI_BROKER_TOPICS] = "broker.topics",
    [RSI_BROKER_SUBSCRIPTIONS] = "broker.subscriptions",
    [RSI_BROKER_ACCEPTED] = "broker.accepted",
    [RSI_BROKER_REFUSED] = "broker.refused",
    [RSI_BROKER_TURNED_AWAY] = "broker.turned_away",
    [RSI_BROKER_SESSIONS_BEGUN] = "broker.sessions_begun",
    [RSI_BROKER_SESSIONS_LOST] = "broker.sessions_lost",
    [RSI_BROKER_SESSIONS_SLOW] = "broker.sessions_slow",
    [RSI_BROKER_SESSIONS_RESUMED] = "broker.sessions_resumed",
    [RSI_BROKER_REFRESHED_NS] = "broker.refreshed_ns",
};

/* ---- which file --------------------------------------------------------------------------------
 */

static const struct argp_option look_flags[] = {
    {"counters", 'c', "FILE", 0,
     "The broker's counters file (its --counters-path). Default: " PATH_DEFAULT, 0},
    {"url", 'u', "URL", 0,
     "A listener of the broker, on this host: the file is broker-PORT.counters in "
     "$RINGSIDE_RUN_DIR or " RUN_DIRECTORY_DEFAULT ", or stands beside the socket of shm://",
     0},
    {0},
};

/* Whether an address of this machine is meant, so that the broker's file is on it. */
static bool is_host_here(const char *host)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
    struct addrinfo *found = NULL;
    bool is_here = false;
    if (getaddrinfo(host, NULL, &hints, &found) != 0) {
        return false;
    }
    for (const struct addrinfo *at = found; at != NULL && !is_here; at = at->ai_next) {
        int fd = socket(at->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        is_here = fd >= 0 && bind(fd, at->ai_addr, at->ai_addrlen) == 0;
        if (fd >= 0) {
            close(fd);
        }
    }
    freeaddrinfo(found);
    return is_here;
}

/* "/x/broker.sock" has "/x/broker.counters" beside it. */
static bool path_beside_socket(struct rsi_look_options *options, const char *socket_path)
{
    const char *end = strrchr(socket_path, '.');
    const char *slash = strrchr(socket_path, '/');
    size_t bytes = end != NULL && end > slash ? (size_t)(end - socket_path) : strlen(socket_path);
    return snprintf(options->path, sizeof(options->path), "%.*s.counters", (int)bytes,
                    socket_path) < (int)sizeof(options->path);
}

static void path_of_host(struct argp_state *state, struct rsi_look_options *options,
                         const char *address)
{
    char host[256];
    const char *directory = getenv("RINGSIDE_RUN_DIR");
    const char *colon = strrchr(address, ':');
    const char *bracket = strrchr(address, ']');
    uint64_t port = 7400;
    if (colon != NULL && (bracket == NULL || colon > bracket)) {
        port = rsi_flag_number(state, "--url", colon + 1, 1, 65535);
    } else {
        colon = address + strlen(address);
    }
    snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
    if (host[0] == '[' && bracket != NULL && strlen(host) > 2) {
        memmove(host, host + 1, strlen(host));
        host[strcspn(host, "]")] = '\0';
    }
    if (host[0] == '\0') {
        argp_error(state, "--url: '%s' names no host; right is tcp://127.0.0.1:7400", options->url);
    }
    if (!is_host_here(host)) {
        argp_failure(state, RSI_EXIT_FAILURE, 0,
                     "--url: '%s' is no address of this machine, and a broker's counters are read "
                     "from a file; run this command on the broker's host",
                     host);
    }
    if (directory == NULL || directory[0] == '\0') {
        directory = RUN_DIRECTORY_DEFAULT;
    }
    snprintf(options->path, sizeof(options->path), "%.900s/broker-%" PRIu64 ".counters", directory,
             port);
}

static void path_of_url(struct argp_state *state, struct rsi_look_options *options)
{
    const char *address = strstr(options->url, "://");
    size_t scheme_bytes = address != NULL ? (size_t)(address - options->url) : 0;
    static const char *const schemes[] = {"tcp", "rdma", "auto"};
    if (scheme_bytes == 3 && strncmp(options->url, "shm", 3) == 0) {
        if (address[3] != '/' || !path_beside_socket(options, address + 3)) {
            argp_error(state, "--url: '%s' is no socket; right is shm:///PATH/OF/SOCKET",
                       options->url);
        }
        return;
    }
    for (size_t i = 0; i < rsi_array_count(schemes); i++) {
        if (scheme_bytes == strlen(schemes[i]) &&
            strncmp(options->url, schemes[i], scheme_bytes) == 0) {
            path_of_host(state, options, address + 3);
            return;
        }
    }
    argp_error(state,
               "--url: '%s' is no address; right is tcp://HOST:PORT or shm:///PATH/OF/SOCKET",
               options->url);
}

static void finish_options(struct argp_state *state, struct rsi_look_options *options)
{
    if (options->counters != NULL && options->url != NULL) {
        argp_error(state, "--counters and --url exclude each other");
    }
    if (options->url != NULL) {
        path_of_url(state, options);
    } else if (!rsi_text_copy(options->path, sizeof(options->path),
                              options->counters != NULL ? options->counters : PATH_DEFAULT)) {
        argp_error(state, "--counters: the path is longer than %zu bytes",
                   sizeof(options->path) - 1);
    }
}

static error_t parse_look(int key, char *arg, struct argp_state *state)
{
    struct rsi_look_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        memset(options, 0, sizeof(*options));
        return 0;
    case 'c':
        options->counters = arg;
        return 0;
    case 'u':
        options->url = arg;
        return 0;
    case ARGP_KEY_END:
        finish_options(state, options);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp look_argp = {.options = look_flags, .parser = parse_look};

const struct argp_child rsi_look_children[] = {
    {&look_argp, 0, "Broker:", 10},
    {0},
};

/* ---- taking texts apart -------------------------------------------------------------------------
 */

/* What stands in `text` between `before` and `after` (or the end), "" when that is not there. */
static void copy_between(char *field, size_t field_bytes, const char *text, const char *before,
                         const char *after)
{
    const char *from = strstr(text, before);
    field[0] = '\0';
    if (from == NULL) {
        return;
    }
    from += strlen(before);
    const char *to = after != NULL ? strstr(from, after) : NULL;
    size_t bytes = to != NULL ? (size_t)(to - from) : strlen(from);
    snprintf(field, field_bytes, "%.*s", (int)bytes, from);
}

/* "NAME#ID" and what follows. */
static uint64_t split_label(const char *label, char *name, size_t name_bytes)
{
    const char *hash = strrchr(label, '#');
    size_t bytes = hash != NULL ? (size_t)(hash - label) : strlen(label);
    snprintf(name, name_bytes, "%.*s", (int)bytes, label);
    return hash != NULL ? strtoull(hash + 1, NULL, 10) : 0;
}

static void take_link_text(struct rsi_look_session *session, const char *text)
{
    char agent[RSI_COUNTER_TEXT_BYTES];
    copy_between(agent, sizeof(agent), text, ", agent ", NULL);
    session->agent = agent[0] != '\0' ? (int)strtoul(agent, NULL, 10) : -1;
    if (strncmp(text, "no link", 7) == 0) {
        return;
    }
    snprintf(session->transport, sizeof(session->transport), "%.*s", (int)strcspn(text, ","), text);
    copy_between(session->peer, sizeof(session->peer), text, ", peer ", ", at ");
    copy_between(session->local, sizeof(session->local), text, ", at ", ", agent ");
}

/* ---- taking records -----------------------------------------------------------------------------
 */

/* Room for one more behind `count` elements; NULL: no memory. */
static void *grow(void *list, size_t count, size_t element_bytes)
{
    if (count > 0 && (count & (count - 1)) != 0) {
        return list;
    }
    return realloc(list, (count > 0 ? 2 * count : 1) * element_bytes);
}

static struct rsi_look_session *session_of(struct rsi_look *look, const char *label)
{
    char name[RSI_COUNTER_LABEL_BYTES];
    uint64_t id = split_label(label, name, sizeof(name));
    for (size_t i = look->session_count; i > 0; i--) {
        if (look->sessions[i - 1].id == id) {
            return &look->sessions[i - 1];
        }
    }
    struct rsi_look_session *list =
        grow(look->sessions, look->session_count, sizeof(*look->sessions));
    if (list == NULL) {
        return NULL;
    }
    look->sessions = list;
    struct rsi_look_session *session = &list[look->session_count++];
    memset(session, 0, sizeof(*session));
    session->id = id;
    session->agent = -1;
    memcpy(session->name, name, sizeof(name));
    return session;
}

static struct rsi_look_agent *agent_of(struct rsi_look *look, const char *label)
{
    uint32_t number = (uint32_t)strtoul(label, NULL, 10);
    for (size_t i = 0; i < look->agent_count; i++) {
        if (look->agents[i].number == number) {
            return &look->agents[i];
        }
    }
    struct rsi_look_agent *list = grow(look->agents, look->agent_count, sizeof(*look->agents));
    if (list == NULL) {
        return NULL;
    }
    look->agents = list;
    struct rsi_look_agent *agent = &list[look->agent_count++];
    memset(agent, 0, sizeof(*agent));
    agent->number = number;
    return agent;
}

static bool take_line(struct rsi_look_lines *lines, const struct rsi_counter_view *view)
{
    struct rsi_look_line *list = grow(lines->list, lines->count, sizeof(*lines->list));
    if (list == NULL) {
        return false;
    }
    lines->list = list;
    struct rsi_look_line *line = &list[lines->count++];
    line->session = split_label(view->label, line->session_name, sizeof(line->session_name));
    memcpy(line->text, view->text, sizeof(line->text));
    return true;
}

/* Where `name` stands in the table; `count`: it is not there. */
static size_t find_name(const char *const *names, size_t count, const char *name)
{
    size_t index = 0;
    while (index < count && strcmp(names[index], name) != 0) {
        index++;
    }
    return index;
}

static bool take_session_record(struct rsi_look *look, const struct rsi_counter_view *view)
{
    struct rsi_look_session *session = session_of(look, view->label);
    if (session == NULL) {
        return false;
    }
    if (strcmp(view->name, "session.link") == 0) {
        take_link_text(session, view->text);
        return true;
    }
    size_t index = find_name(rsi_look_session_names, RSI_SESSION_VALUE_COUNT, view->name);
    if (index < RSI_SESSION_VALUE_COUNT) {
        session->values[index] = view->value;
    }
    return true;
}

static bool take_agent_record(struct rsi_look *look, const struct rsi_counter_view *view)
{
    struct rsi_look_agent *agent = agent_of(look, view->label);
    if (agent == NULL) {
        return false;
    }
    if (strcmp(view->name, "agent.thread") == 0) {
        memcpy(agent->thread, view->text, sizeof(agent->thread));
        return true;
    }
    size_t index = find_name(rsi_look_agent_names, RSI_AGENT_VALUE_COUNT, view->name);
    if (index < RSI_AGENT_VALUE_COUNT) {
        agent->values[index] = view->value;
    }
    return true;
}

static bool take_broker_record(struct rsi_look *look, const struct rsi_counter_view *view)
{
    if (strcmp(view->name, "broker.listener") == 0) {
        return take_line(&look->listeners, view);
    }
    if (strcmp(view->name, "broker.version") == 0) {
        snprintf(look->version, sizeof(look->version), "%.*s", (int)strcspn(view->text, ","),
                 view->text);
        copy_between(look->name, sizeof(look->name), view->text, ", name ", ", wire version ");
        copy_between(look->wire, sizeof(look->wire), view->text, ", wire version ", NULL);
        return true;
    }
    size_t index = find_name(rsi_look_broker_names, RSI_BROKER_VALUE_COUNT, view->name);
    if (index < RSI_BROKER_VALUE_COUNT) {
        look->values[index] = view->value;
    }
    return true;
}

static bool take_record(struct rsi_look *look, const struct rsi_counter_view *view)
{
    if (strncmp(view->name, "session.", 8) == 0 || strncmp(view->name, "link.", 5) == 0) {
        return take_session_record(look, view);
    }
    if (strncmp(view->name, "agent.", 6) == 0) {
        return take_agent_record(look, view);
    }
    if (strncmp(view->name, "broker.", 7) == 0) {
        return take_broker_record(look, view);
    }
    if (strcmp(view->name, "topic") == 0) {
        return take_line(&look->topics, view);
    }
    if (strcmp(view->name, "subscription") == 0) {
        return take_line(&look->subscriptions, view);
    }
    return true;
}

/* ---- the look ----------------------------------------------------------------------------------
 */

/* To the text of a file that cannot be read: what to do. */
static void add_mend(struct rsi_error *error)
{
    char cause[sizeof(error->text)];
    const char *mend = NULL;
    memcpy(cause, error->text, sizeof(cause));
    if (error->status == RSI_E_NOT_FOUND) {
        mend = "is the broker running, and with --counters-path? Its default, " PATH_DEFAULT
               ", is made by root only; choose a file with ringsided --counters-path FILE and "
               "--counters FILE here";
    } else if (error->status == RSI_E_PERMISSION) {
        mend = "run this command as the broker's user, or open the folder to others: chmod a+rx";
    } else {
        return;
    }
    (void)rsi_fail(error, error->status, "%.*s; %s", 250, cause, mend);
}

static rsi_status_t read_all(struct rsi_look *look, struct rsi_counters_reader *reader,
                             const char *path, struct rsi_error *error)
{
    struct rsi_counter_view view;
    uint32_t cursor = 0;
    const struct rsi_counters_header *header = rsi_counters_header(reader);
    look->pid = header->owner_pid;
    look->start_realtime_ns = header->start_realtime_ns;
    if (!rsi_counters_owner_is_alive(reader)) {
        return rsi_fail(error, RSI_E_NOT_FOUND,
                        "%s was left behind by process %" PRId64
                        ", which is gone: start the broker again, it replaces the file",
                        path, look->pid);
    }
    while (rsi_counters_next(reader, &cursor, &view)) {
        if (!take_record(look, &view)) {
            return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for what %s says", path);
        }
    }
    if (look->version[0] == '\0') {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s holds no broker's counters but another program's (process %" PRId64
                        "); give the file of ringsided's --counters-path",
                        path, look->pid);
    }
    return RSI_OK;
}

rsi_status_t rsi_look_take(struct rsi_look *look, const char *path, struct rsi_error *error)
{
    struct rsi_counters_reader *reader = NULL;
    rsi_look_fini(look);
    rsi_status_t status = rsi_counters_open(&reader, path, error);
    if (rsi_failed(status)) {
        add_mend(error);
        return status;
    }
    status = read_all(look, reader, path, error);
    rsi_counters_close(reader);
    if (rsi_failed(status)) {
        rsi_look_fini(look);
    }
    return status;
}

void rsi_look_fini(struct rsi_look *look)
{
    free(look->agents);
    free(look->sessions);
    free(look->listeners.list);
    free(look->topics.list);
    free(look->subscriptions.list);
    memset(look, 0, sizeof(*look));
}

const struct rsi_look_session *rsi_look_find(const struct rsi_look *look, uint64_t session_id)
{
    for (size_t i = 0; i < look->session_count; i++) {
        if (look->sessions[i].id == session_id) {
            return &look->sessions[i];
        }
    }
    return NULL;
}

uint64_t rsi_look_uptime_ns(const struct rsi_look *look)
{
    uint64_t now_ns = rsi_clock_realtime_ns();
    return now_ns > look->start_realtime_ns ? now_ns - look->start_realtime_ns : 0;
}

bool rsi_look_is_same_broker(const struct rsi_look *a, const struct rsi_look *b)
{
    return a->pid == b->pid && a->start_realtime_ns == b->start_realtime_ns;
}
