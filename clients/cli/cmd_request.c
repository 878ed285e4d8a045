/*
 * ringside request: asks, and prints the replies.
 *
 * Design notes
 * - One request after the other, so that replies are printed in the order of what was asked, and
 * each has its own time.
 */
#include "clients/cli/cli.h"
#include "clients/cli/connection.h"

#include <argp.h>
#include <inttypes.h>
#include <string.h>

enum { KEY_WITHIN = 0x4000, KEY_RAW };

#define REPLY_WITHIN_NS (5 * RSI_NS_PER_SECOND)

struct request_options {
    struct rsi_connection_options connection;
    const char *subject;
    char **questions; /* in argv */
    uint32_t question_count;
    uint64_t within_ns;
    bool is_raw;
};

static const struct argp_option flags[] = {
    {"within", KEY_WITHIN, "TIME", 0, "How long to wait for each reply, such as 500ms. Default: 5s",
     0},
    {"raw", KEY_RAW, NULL, 0, "Print the replies alone, without a line end", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct request_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options->within_ns = REPLY_WITHIN_NS;
        state->child_inputs[0] = &options->connection;
        return 0;
    case KEY_WITHIN:
        options->within_ns = rsi_flag_duration(state, "--within", arg);
        if (options->within_ns == 0) {
            argp_error(state, "--within: 0 leaves no time for a reply; try 500ms");
        }
        return 0;
    case KEY_RAW:
        options->is_raw = true;
        return 0;
    case ARGP_KEY_ARG:
        if (options->subject != NULL) {
            return ARGP_ERR_UNKNOWN; /* the rest comes at once, as ARGP_KEY_ARGS */
        }
        rsi_flag_subject(state, "SUBJECT", arg, false);
        options->subject = arg;
        return 0;
    case ARGP_KEY_ARGS:
        options->questions = state->argv + state->next;
        options->question_count = (uint32_t)(state->argc - state->next);
        return 0;
    case ARGP_KEY_END:
        if (options->subject == NULL || options->question_count == 0) {
            argp_error(state, "a subject and what to ask are needed, such as: "
                              "ringside request svc.time now");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = flags,
    .parser = parse,
    .args_doc = "SUBJECT DATA...",
    .children = rsi_connection_children,
    .doc =
        "Sends each DATA as a request to SUBJECT, waits for its reply, and prints that on a line "
        "of its own. Exit code 1 when one had no reply: nobody subscribes to the subject, who had "
        "the request is gone, or the time is up.\v"
        "Examples:\n"
        "  ringside request svc.time now\n"
        "  ringside request svc.resize --within 30s one.png two.png\n"
        "  ringside request svc.render --raw page.html > page.pdf",
};

struct asking {
    const struct request_options *options;
    bool is_answered;
    ringside_status_t status;
};

static void on_reply(void *arg, const ringside_reply_t *reply)
{
    struct asking *asking = arg;
    asking->is_answered = true;
    asking->status = reply->status;
    if (reply->status == RINGSIDE_OK) {
        fwrite(reply->data, 1, reply->bytes, stdout);
        if (!asking->options->is_raw) {
            fputc('\n', stdout);
        }
        fflush(stdout);
    }
}

static const char *why_not(ringside_status_t status)
{
    switch (status) {
    case RINGSIDE_E_NO_RESPONDERS:
        return "nobody subscribes to it; is the service up, and the subject right?";
    case RINGSIDE_E_TIMED_OUT:
        return "no reply in time; --within gives it more";
    case RINGSIDE_E_LOST:
        return "who had the request is gone, or the connection is";
    default:
        return ringside_status_name(status);
    }
}

/* An exit code. */
static int ask(const struct request_options *options, ringside_client_t *client,
               ringside_publisher_t *publisher, const char *question)
{
    struct asking asking = {.options = options};
    ringside_status_t status;
    while ((status = ringside_request(publisher, question, strlen(question), options->within_ns,
                                      on_reply, &asking)) == RINGSIDE_WOULD_BLOCK &&
           !rsi_stop_requested()) {
        (void)!ringside_poll(client, 0, RSI_NS_PER_SECOND, NULL);
    }
    if (status != RINGSIDE_OK) {
        return rsi_cli_fail("%s: %s (%s)", options->subject, ringside_error_text(client),
                            ringside_status_name(status));
    }
    while (!asking.is_answered && !rsi_stop_requested()) {
        if (ringside_poll(client, 0, RSI_NS_PER_SECOND, NULL) < 0 && !asking.is_answered) {
            break;
        }
    }
    if (asking.is_answered && asking.status == RINGSIDE_OK) {
        return RSI_EXIT_OK;
    }
    return rsi_cli_fail("%s: %s", options->subject,
                        asking.is_answered ? why_not(asking.status) : "stopped before the reply");
}

int rsi_command_request(int argc, char **argv)
{
    struct request_options options = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    rsi_stop_on_signals();
    ringside_client_t *client =
        rsi_connection_open(&options.connection, RSI_CONNECTION_BOTH, NULL, NULL);
    if (client == NULL) {
        return RSI_EXIT_FAILURE;
    }
    ringside_publisher_t *publisher =
        rsi_connection_make_publisher(client, options.subject, options.connection.timeout_ns);
    int code = publisher != NULL ? RSI_EXIT_OK : RSI_EXIT_FAILURE;
    for (uint32_t i = 0; publisher != NULL && i < options.question_count; i++) {
        int ask_code = ask(&options, client, publisher, options.questions[i]);
        code = code != RSI_EXIT_OK ? code : ask_code;
        if (rsi_stop_requested()) {
            break;
        }
    }
    int close_code = rsi_connection_close(&options.connection, client);
    return code != RSI_EXIT_OK ? code : close_code;
}
