/*
 * ringside verify: receives a replay and compares it with the file, message by message.
 *
 * Design notes
 * - What is expected is made from the file by the code that replay uses; so what is compared is the
 * way of the bytes, not two readings of a file.
 * - It does not stop at the first fault: the summary says how many of each kind, and the first few
 * are told where they came.
 * - After the last expected message it still looks for a moment whether more comes: a doubled last
 *   message would else go unseen.
 */
#include "clients/cli/cli.h"
#include "clients/cli/connection.h"
#include "clients/cli/expectation.h"
#include "clients/cli/recording.h"
#include "core/clock.h"
#include "proto/subject.h"

#include <inttypes.h>
#include <string.h>

enum { KEY_IDLE_TIMEOUT = 0x4000, KEY_READY_FD, FAULTS_TOLD_MAX = 10 };

#define IDLE_TIMEOUT_DEFAULT_NS (20 * RSI_NS_PER_SECOND)
#define LINGER_NS               (RSI_NS_PER_SECOND / 5)

struct verify_options {
    struct rsi_connection_options connection;
    struct rsi_recording_options recording;
    const char *pattern;
    uint64_t idle_timeout_ns;
    int ready_fd; /* -1: none */
};

struct verify {
    const struct verify_options *options;
    ringside_client_t *client;
    struct rsi_expectation expectation;
    uint64_t received_count;
    uint64_t received_bytes;
    uint64_t gap_count; /* messages that the broker said it left out */
    uint64_t fault_count;
    uint64_t first_ns; /* when the first and the latest message came */
    uint64_t latest_ns;
};

static const struct argp_option flags[] = {
    {"file", 'f', "FILE", 0, "The recording that is replayed", 0},
    {"idle-timeout", KEY_IDLE_TIMEOUT, "TIME", 0,
     "Give up after so long without a message, such as 60s. Default: 20s", 0},
    {"ready-fd", KEY_READY_FD, "N", 0, "Also write \"ready\" to file descriptor N when subscribed",
     0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct verify_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options->idle_timeout_ns = IDLE_TIMEOUT_DEFAULT_NS;
        options->ready_fd = -1;
        state->child_inputs[0] = &options->recording;
        state->child_inputs[1] = &options->connection;
        return 0;
    case 'f':
        options->recording.path = arg;
        return 0;
    case KEY_IDLE_TIMEOUT:
        options->idle_timeout_ns = rsi_flag_duration(state, "--idle-timeout", arg);
        return 0;
    case KEY_READY_FD:
        options->ready_fd = (int)rsi_flag_number(state, "--ready-fd", arg, 0, 1 << 20);
        return 0;
    case ARGP_KEY_ARG:
        if (options->pattern != NULL) {
            argp_error(state, "'%s': verify takes one PATTERN; run it once for each", arg);
        }
        rsi_flag_subject(state, "PATTERN", arg, true);
        options->pattern = arg;
        return 0;
    case ARGP_KEY_END:
        if (options->pattern == NULL) {
            argp_error(state, "PATTERN is missing, such as 'md.>'");
        }
        if (options->recording.path == NULL) {
            argp_error(state, "--file FILE is missing: the recording that is replayed");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&rsi_recording_argp, 0, NULL, 0},
    {&rsi_connection_argp, 0, "Connection:", 10},
    {0},
};
static const struct argp parser = {
    .options = flags,
    .parser = parse,
    .children = children,
    .args_doc = "PATTERN",
    .doc =
        "Receives what 'ringside replay' publishes, and compares it with the file: every byte of "
        "every message that PATTERN matches, each once, in order per subject. Give file, template, "
        "else, loop and limit as for replay; start replay when this says \"ready\". Exit code 1 "
        "when "
        "anything is lost, doubled, out of order or different.\v"
        "Example:\n"
        "  ringside verify --file feed.jsonl --template 'md.{/stream}' 'md.*' &\n"
        "  ringside replay feed.jsonl --template 'md.{/stream}' --flat-out",
};

static int expect_file(struct verify *verify)
{
    struct rsi_error error = {0};
    struct rsi_recording recording;
    struct rsi_record record;
    struct rsi_subject subject;
    const char *pattern = verify->options->pattern;
    size_t pattern_bytes = strlen(pattern);
    rsi_status_t status = rsi_recording_open(&recording, &verify->options->recording, &error);
    while (status == RSI_OK && !rsi_stop_requested()) {
        status = rsi_recording_next(&recording, &record, &subject, &error);
        if (status == RSI_OK &&
            rsi_subject_matches(pattern, pattern_bytes, subject.text, subject.bytes)) {
            status = rsi_expectation_add(&verify->expectation, subject.text, subject.bytes,
                                         record.payload, record.payload_bytes, &error);
        }
    }
    rsi_recording_close(&recording);
    if (rsi_failed(status)) {
        return rsi_cli_fail("%s", error.text);
    }
    if (verify->expectation.expected_count == 0) {
        return rsi_cli_fail("%s matches no message of %s: nothing would be compared", pattern,
                            verify->options->recording.path);
    }
    return RSI_EXIT_OK;
}

static void tell_fault(struct verify *verify, const ringside_message_t *message,
                       rsi_verdict_t verdict)
{
    verify->fault_count++;
    if (verify->fault_count <= FAULTS_TOLD_MAX) {
        rsi_cli_note("message %" PRIu64 " of %s (%zu bytes, publication %" PRIu64 ") is %s",
                     message->sequence, message->subject, message->bytes, message->publication,
                     rsi_verdict_name(verdict));
    }
    if (verify->fault_count == FAULTS_TOLD_MAX) {
        rsi_cli_note("further faults are counted only");
    }
}

static void on_message(void *arg, const ringside_message_t *message)
{
    struct verify *verify = arg;
    verify->received_count++;
    verify->received_bytes += message->bytes;
    rsi_verdict_t verdict =
        rsi_expectation_check(&verify->expectation, message->subject, message->subject_bytes,
                              message->data, message->bytes);
    if (rsi_unlikely(verdict != RSI_VERDICT_AS_EXPECTED)) {
        tell_fault(verify, message, verdict);
    }
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct verify *verify = arg;
    if (event->type == RINGSIDE_EVENT_GAP) {
        verify->gap_count += event->count == UINT64_MAX ? 1 : event->count;
    }
    rsi_connection_tell_event(NULL, event);
}

/* Receives until all came (and nothing more), or nothing comes any longer. */
static int receive_all(struct verify *verify)
{
    const struct rsi_expectation *expectation = &verify->expectation;
    struct rsi_progress progress;
    uint64_t now_ns = rsi_clock_now_ns();
    uint64_t progressed_ns = now_ns;
    rsi_progress_init(&progress, now_ns);
    int code = RSI_EXIT_OK;
    while (!rsi_stop_requested()) {
        uint64_t before_count = verify->received_count;
        bool is_complete = expectation->matched_count == expectation->expected_count;
        ringside_status_t status = ringside_poll(verify->client, 0, LINGER_NS / 2, NULL);
        now_ns = rsi_clock_now_ns();
        if (verify->received_count != before_count) {
            verify->first_ns = before_count == 0 ? now_ns : verify->first_ns;
            verify->latest_ns = now_ns;
            progressed_ns = now_ns;
        }
        if (status < 0) {
            if (!is_complete) {
                code = rsi_cli_fail("%s", ringside_error_text(verify->client));
            }
            break;
        }
        if (now_ns - progressed_ns > (is_complete ? LINGER_NS : verify->options->idle_timeout_ns)) {
            break;
        }
        if (rsi_progress_is_due(&progress, now_ns)) {
            rsi_progress_show(&progress, "%s of %s messages",
                              rsi_figure_count((double)verify->received_count).text,
                              rsi_figure_count((double)expectation->expected_count).text);
        }
    }
    rsi_progress_end(&progress);
    return code;
}

static void tell_missing(void *arg, const char *subject, uint64_t missing_count,
                         uint64_t expected_count, uint64_t first_index)
{
    uint64_t *told_count = arg;
    (*told_count)++;
    if (*told_count <= FAULTS_TOLD_MAX) {
        rsi_cli_note("%s: %" PRIu64 " of %" PRIu64
                     " messages missing, the first is number %" PRIu64,
                     subject, missing_count, expected_count, first_index + 1);
    }
}

static int print_summary(struct verify *verify)
{
    const struct rsi_expectation *expectation = &verify->expectation;
    const uint64_t *counts = expectation->verdict_counts;
    uint64_t told_count = 0;
    rsi_expectation_each_missing(expectation, tell_missing, &told_count);
    bool is_met = rsi_expectation_is_met(expectation) != 0;
    printf("%s %s: expected %" PRIu64 " messages on %zu subjects, received %" PRIu64 " (%" PRIu64
           " bytes) over %s in %.3f s; lost %" PRIu64 ", doubled %" PRIu64 ", out of order %" PRIu64
           ", different %" PRIu64 ", of other subjects %" PRIu64 ", gaps told %" PRIu64 "\n",
           is_met ? "ok" : "FAILED", verify->options->pattern, expectation->expected_count,
           rsi_expectation_subject_count(expectation), verify->received_count,
           verify->received_bytes, ringside_transport(verify->client),
           (double)(verify->latest_ns - verify->first_ns) / 1e9,
           expectation->expected_count - expectation->matched_count, counts[RSI_VERDICT_DOUBLED],
           counts[RSI_VERDICT_OUT_OF_ORDER], counts[RSI_VERDICT_DIFFERENT],
           counts[RSI_VERDICT_STRANGE], verify->gap_count);
    return is_met ? RSI_EXIT_OK : RSI_EXIT_FAILURE;
}

static int verify_over_client(struct verify *verify)
{
    const struct verify_options *options = verify->options;
    if (rsi_connection_subscribe(&options->connection, verify->client, options->pattern,
                                 RINGSIDE_POLICY_BLOCK, on_message, verify) == NULL) {
        return RSI_EXIT_FAILURE;
    }
    rsi_tell_ready(options->ready_fd, true);
    int code = receive_all(verify);
    int summary_code = print_summary(verify);
    return code != RSI_EXIT_OK ? code : summary_code;
}

int rsi_command_verify(int argc, char **argv)
{
    struct verify_options options = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    rsi_stop_on_signals();
    struct verify verify = {.options = &options};
    int code = expect_file(&verify);
    if (code == RSI_EXIT_OK) {
        verify.client =
            rsi_connection_open(&options.connection, RSI_CONNECTION_SUBSCRIBES, on_event, &verify);
        code = verify.client == NULL ? RSI_EXIT_FAILURE : verify_over_client(&verify);
    }
    if (verify.client != NULL) {
        int close_code = rsi_connection_close(&options.connection, verify.client);
        code = code != RSI_EXIT_OK ? code : close_code;
    }
    rsi_expectation_fini(&verify.expectation);
    return code;
}
