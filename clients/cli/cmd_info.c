/*
 * ringside info: what a broker is and serves, once.
 *
 * Design notes
 * - All of it is in the counters file but the broker's own memory, which the kernel knows: the
 *   process that holds the lock on the file is on this machine, and /proc tells. In a container
 *   with other process ids it is left out.
 * - Topics and subscriptions have a bounded number of records; the counts beside them are whole, so
 *   what is missing is said.
 */
#include "clients/cli/cli.h"
#include "clients/cli/look.h"
#include "core/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_JSON = 0x4000, SIZE_TEXT_BYTES = 32 };

struct info_options {
    struct rsi_look_options look;
    bool is_json;
};

static const struct argp_option flags[] = {
    {"json", KEY_JSON, NULL, 0, "Print one JSON object instead", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct info_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->look;
        return 0;
    case KEY_JSON:
        options->is_json = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' is one too many: the broker is given by --counters or --url", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = flags,
    .parser = parse,
    .children = rsi_look_children,
    .doc = "Tells what a broker is and serves: version, listeners, agents, memory, sessions with "
           "their links, topics, subscriptions with their policies. It reads the file in which the "
           "broker counts, on the broker's host; numbers are at most a second old.\v"
           "Examples:\n"
           "  ringside info\n"
           "  ringside info --counters /run/ringside/hub.counters\n"
           "  ringside info --url tcp://127.0.0.1:7400 --json",
};

/* ---- what is worked out ------------------------------------------------------------------------
 */

/* Bytes of a line of /proc/PID/status such as "VmRSS:"; 0: not told. */
static uint64_t process_bytes(int64_t pid, const char *line_name)
{
    char path[64];
    char line[256];
    uint64_t kib = 0;
    bool is_broker = false;
    snprintf(path, sizeof(path), "/proc/%" PRId64 "/status", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        is_broker |= strncmp(line, "Name:\tringsided", 15) == 0 ||
                     strncmp(line, "Name:\tcontrol-agent", 19) == 0;
        if (strncmp(line, line_name, strlen(line_name)) == 0) {
            kib = strtoull(line + strlen(line_name), NULL, 10);
        }
    }
    fclose(file);
    return is_broker ? kib << 10 : 0;
}

static uint64_t ring_bytes(const struct rsi_look *look)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < look->session_count; i++) {
        bytes += look->sessions[i].values[RSI_SESSION_PUBLISH_RING_BYTES] +
                 look->sessions[i].values[RSI_SESSION_DELIVER_RING_BYTES];
    }
    return bytes;
}

/* The policy of "block, no echo md.>", and its pattern. */
static const char *split_subscription(const struct rsi_look_line *line, char *policy,
                                      size_t policy_bytes, bool *no_echo)
{
    const char *echo = strstr(line->text, ", no echo ");
    size_t bytes = strcspn(line->text, ", ");
    snprintf(policy, policy_bytes, "%.*s", (int)bytes, line->text);
    *no_echo = echo == line->text + bytes && echo[0] == ',';
    const char *rest = line->text + bytes + (*no_echo ? strlen(", no echo ") : 1);
    return bytes < strlen(line->text) ? rest : "";
}

/* The number of publications of "2 md.XNAS.AAPL", and its subject. */
static const char *split_topic(const struct rsi_look_line *line, uint64_t *publication_count)
{
    char *rest = NULL;
    *publication_count = strtoull(line->text, &rest, 10);
    return *rest == ' ' ? rest + 1 : rest;
}

/* ---- for people --------------------------------------------------------------------------------
 */

static const char *size_text(char *buffer, uint64_t bytes)
{
    struct rsi_text text;
    rsi_text_init(&text, buffer, SIZE_TEXT_BYTES);
    rsi_text_append_size(&text, bytes);
    return buffer;
}

static void print_text(const char *text)
{
    for (; *text != '\0'; text++) {
        putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
    }
}

static void print_broker(const struct rsi_look *look, const char *path)
{
    uint64_t resident_bytes = process_bytes(look->pid, "VmRSS:");
    uint64_t locked_bytes = process_bytes(look->pid, "VmLck:");
    printf("broker         ");
    print_text(look->name);
    printf("\nversion        %s, wire versions %s\n", look->version, look->wire);
    printf("process        %" PRId64 ", up %s\n", look->pid,
           rsi_figure_age(rsi_look_uptime_ns(look)).text);
    if (resident_bytes > 0) {
        printf("memory         %s resident, %s locked, ",
               rsi_figure_bytes((double)resident_bytes).text,
               rsi_figure_bytes((double)locked_bytes).text);
    } else {
        printf("memory         ");
    }
    printf("%s in rings of sessions\n", rsi_figure_bytes((double)ring_bytes(look)).text);
    printf("counters       %s\n", path);
    printf("connections    %" PRIu64 " accepted, %" PRIu64 " refused, %" PRIu64
           " turned away, %" PRIu64 " not authenticated yet\n",
           look->values[RSI_BROKER_ACCEPTED], look->values[RSI_BROKER_REFUSED],
           look->values[RSI_BROKER_TURNED_AWAY], look->values[RSI_BROKER_UNAUTHENTICATED]);
    printf("sessions begun %" PRIu64 ", resumed %" PRIu64 ", lost %" PRIu64
           ", ended as slow %" PRIu64 "\n",
           look->values[RSI_BROKER_SESSIONS_BEGUN], look->values[RSI_BROKER_SESSIONS_RESUMED],
           look->values[RSI_BROKER_SESSIONS_LOST], look->values[RSI_BROKER_SESSIONS_SLOW]);
    for (size_t i = 0; i < look->listeners.count; i++) {
        printf("listener       %s\n", look->listeners.list[i].text);
    }
    for (size_t i = 0; i < look->agent_count; i++) {
        printf("agent %-8u %s\n", look->agents[i].number, look->agents[i].thread);
    }
}

static void print_sessions(const struct rsi_look *look)
{
    printf("\n%zu sessions, %" PRIu64 " of them without a link\n", look->session_count,
           look->values[RSI_BROKER_SESSIONS_SUSPENDED]);
    for (size_t i = 0; i < look->session_count; i++) {
        const struct rsi_look_session *session = &look->sessions[i];
        char publish[SIZE_TEXT_BYTES];
        char deliver[SIZE_TEXT_BYTES];
        printf("  ");
        print_text(session->name);
        printf("#%" PRIu64 "  ", session->id);
        if (session->transport[0] != '\0') {
            printf("%s from %s at %s", session->transport, session->peer, session->local);
        } else {
            printf("no link");
        }
        printf(", agent %d, rings %s in %s out, published %" PRIu64 ", delivered %" PRIu64
               ", dropped %" PRIu64 "\n",
               session->agent, size_text(publish, session->values[RSI_SESSION_PUBLISH_RING_BYTES]),
               size_text(deliver, session->values[RSI_SESSION_DELIVER_RING_BYTES]),
               session->values[RSI_SESSION_ADMITTED_MESSAGES],
               session->values[RSI_SESSION_DELIVERED_MESSAGES],
               session->values[RSI_SESSION_DROPPED_MESSAGES]);
    }
}

static void print_count(const char *what, uint64_t all_count, size_t shown_count)
{
    printf("\n%" PRIu64 " %s", all_count, what);
    if (shown_count < all_count) {
        printf(", %zu of them here (the counters file has room for no more)", shown_count);
    }
    putchar('\n');
}

static void print_topics(const struct rsi_look *look)
{
    print_count("topics", look->values[RSI_BROKER_TOPICS], look->topics.count);
    for (size_t i = 0; i < look->topics.count; i++) {
        uint64_t publication_count = 0;
        const char *subject = split_topic(&look->topics.list[i], &publication_count);
        printf("  ");
        print_text(subject);
        printf("  %" PRIu64 " publishers\n", publication_count);
    }
}

static void print_subscriptions(const struct rsi_look *look)
{
    print_count("subscriptions", look->values[RSI_BROKER_SUBSCRIPTIONS], look->subscriptions.count);
    for (size_t i = 0; i < look->subscriptions.count; i++) {
        const struct rsi_look_line *line = &look->subscriptions.list[i];
        char policy[32];
        bool no_echo = false;
        const char *pattern = split_subscription(line, policy, sizeof(policy), &no_echo);
        printf("  ");
        print_text(pattern);
        printf("  ");
        print_text(line->session_name);
        printf("#%" PRIu64 ", policy %s%s\n", line->session, policy, no_echo ? ", no echo" : "");
    }
}

/* ---- JSON --------------------------------------------------------------------------------------
 */

static json_t *json_listeners(const struct rsi_look *look)
{
    json_t *list = json_array();
    for (size_t i = 0; i < look->listeners.count; i++) {
        json_array_append_new(list, rsi_look_text_json(look->listeners.list[i].text));
    }
    return list;
}

static json_t *json_topics(const struct rsi_look *look)
{
    json_t *list = json_array();
    for (size_t i = 0; i < look->topics.count; i++) {
        uint64_t publication_count = 0;
        const char *subject = split_topic(&look->topics.list[i], &publication_count);
        json_array_append_new(list, json_pack("{s:o, s:I}", "subject", rsi_look_text_json(subject),
                                              "publishers", (json_int_t)publication_count));
    }
    return list;
}

static json_t *json_subscriptions(const struct rsi_look *look)
{
    json_t *list = json_array();
    for (size_t i = 0; i < look->subscriptions.count; i++) {
        const struct rsi_look_line *line = &look->subscriptions.list[i];
        char policy[32];
        bool no_echo = false;
        const char *pattern = split_subscription(line, policy, sizeof(policy), &no_echo);
        json_array_append_new(
            list, json_pack("{s:I, s:o, s:o, s:s, s:b}", "session", (json_int_t)line->session,
                            "session_name", rsi_look_text_json(line->session_name), "pattern",
                            rsi_look_text_json(pattern), "policy", policy, "no_echo", no_echo));
    }
    return list;
}

static int print_json(const struct rsi_look *look, const char *path)
{
    json_t *broker = rsi_look_broker_json(look);
    json_t *agents = json_array();
    json_t *sessions = json_array();
    json_object_set_new(broker, "resident_bytes",
                        json_integer((json_int_t)process_bytes(look->pid, "VmRSS:")));
    json_object_set_new(broker, "locked_bytes",
                        json_integer((json_int_t)process_bytes(look->pid, "VmLck:")));
    json_object_set_new(broker, "ring_bytes", json_integer((json_int_t)ring_bytes(look)));
    for (size_t i = 0; i < look->agent_count; i++) {
        json_array_append_new(agents, rsi_look_agent_json(&look->agents[i]));
    }
    for (size_t i = 0; i < look->session_count; i++) {
        json_array_append_new(sessions, rsi_look_session_json(&look->sessions[i]));
    }
    json_t *object = json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:b}", "counters", path, "broker", broker,
        "listeners", json_listeners(look), "agents", agents, "sessions", sessions, "topics",
        json_topics(look), "topics_are_cut", look->topics.count < look->values[RSI_BROKER_TOPICS],
        "subscriptions", json_subscriptions(look), "subscriptions_are_cut",
        look->subscriptions.count < look->values[RSI_BROKER_SUBSCRIPTIONS]);
    bool is_written = object != NULL && json_dumpf(object, stdout, JSON_INDENT(2)) == 0;
    putchar('\n');
    json_decref(object);
    return is_written ? RSI_EXIT_OK : rsi_cli_fail("no memory for JSON, or %s is not UTF-8", path);
}

int rsi_command_info(int argc, char **argv)
{
    struct info_options options = {0};
    struct rsi_look look = {0};
    struct rsi_error error = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    if (rsi_failed(rsi_look_take(&look, options.look.path, &error))) {
        return rsi_cli_fail("%s", error.text);
    }
    int code = RSI_EXIT_OK;
    if (options.is_json) {
        code = print_json(&look, options.look.path);
    } else {
        print_broker(&look, options.look.path);
        print_sessions(&look);
        print_topics(&look);
        print_subscriptions(&look);
    }
    rsi_look_fini(&look);
    if (fflush(stdout) != 0) {
        code = rsi_cli_fail("cannot write to standard output: %s", strerror(errno));
    }
    return code;
}
