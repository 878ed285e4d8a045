/*
 * ringside replay: publishes a recording.
 *
 * Design notes
 * - At a pace, every message has an intended time: start + (its time - first time) / speed. What is
 * late is not put off further: the next ones keep their own times, and lateness is reported. So a
 * slow moment shows instead of stretching the recording.
 * - While waiting it polls, which keeps the link moving; the last stretch is waited for awake, as a
 * sleep would end too late.
 * - The first pass begins when the first message was read and its publisher is there.
 */
#include "clients/cli/cli.h"
#include "clients/cli/connection.h"
#include "clients/cli/publishers.h"
#include "clients/cli/recording.h"
#include "core/clock.h"

#include <inttypes.h>
#include <string.h>

enum { KEY_SPEED = 0x4000, KEY_FLAT_OUT, KEY_SUBJECTS_MAX };

#define SUBJECT_COUNT_DEFAULT UINT64_C(4096)
#define AWAKE_NS              UINT64_C(200000) /* before an intended time: no sleep any more */

struct replay_options {
    struct rsi_connection_options connection;
    struct rsi_recording_options recording;
    double speed;
    bool is_flat_out;
    uint64_t subject_count_max;
};

struct replay {
    const struct replay_options *options;
    ringside_client_t *client;
    struct rsi_recording recording;
    struct rsi_publishers publishers;
    struct rsi_progress progress;
    struct rsi_histogram lateness;
    uint64_t message_count;
    uint64_t payload_bytes;
    uint64_t start_ns;      /* of the run; 0: not begun */
    uint64_t pass;          /* whose times are in the next two */
    uint64_t pass_start_ns; /* intended time of the pass's first message */
    uint64_t pass_first_ns; /* its recorded time */
    uint64_t intended_ns;   /* of the latest message */
};

static const struct argp_option flags[] = {
    {"speed", KEY_SPEED, "N", 0, "N times faster than recorded, such as 10 or 0.5. Default: 1", 0},
    {"flat-out", KEY_FLAT_OUT, NULL, 0, "As fast as the broker takes it", 0},
    {"subjects-max", KEY_SUBJECTS_MAX, "N", 0,
     "Most distinct subjects, 1 to 1000000. Default: 4096", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct replay_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options->speed = 1;
        options->subject_count_max = SUBJECT_COUNT_DEFAULT;
        state->child_inputs[0] = &options->recording;
        state->child_inputs[1] = &options->connection;
        return 0;
    case KEY_SPEED:
        options->speed = rsi_flag_factor(state, "--speed", arg);
        return 0;
    case KEY_FLAT_OUT:
        options->is_flat_out = true;
        return 0;
    case KEY_SUBJECTS_MAX:
        options->subject_count_max = rsi_flag_number(state, "--subjects-max", arg, 1, 1000000);
        return 0;
    case ARGP_KEY_ARG:
        if (options->recording.path != NULL) {
            argp_error(state, "'%s' is one FILE too many", arg);
        }
        options->recording.path = arg;
        return 0;
    case ARGP_KEY_END:
        if (options->recording.path == NULL) {
            argp_error(state, "FILE is missing; give a pcap or pcapng file, lines '<nanoseconds> "
                              "<payload>', or - for standard input");
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
    .args_doc = "FILE",
    .doc = "Publishes a recorded feed: the UDP payloads of a pcap or pcapng file, or lines "
           "'<nanoseconds> <payload>'; either may be gzip'ed. FILE - is standard input.\v"
           "Examples:\n"
           "  ringside replay feed.jsonl.gz --template 'md.binance.{/stream}' --else md.other\n"
           "  ringside replay capture.pcap --template 'md.{dst}.{dport}' --speed 10\n"
           "  ringside feed --messages 100000 | ringside replay - -t 'md.{/stream}' --flat-out",
};

/* The time at which the record is to go out. */
static uint64_t intended_time(struct replay *replay, const struct rsi_record *record)
{
    bool is_first = replay->message_count == 0;
    if (is_first || replay->pass != replay->recording.loop) {
        replay->pass = replay->recording.loop;
        replay->pass_start_ns = is_first ? replay->start_ns : replay->intended_ns;
        replay->pass_first_ns = record->time_ns;
    }
    if (record->time_ns <= replay->pass_first_ns) {
        return replay->pass_start_ns;
    }
    double offset_ns = (double)(record->time_ns - replay->pass_first_ns) / replay->options->speed;
    return offset_ns > 1e18 ? UINT64_MAX : replay->pass_start_ns + (uint64_t)offset_ns;
}

static void show_progress(struct replay *replay, uint64_t now_ns)
{
    uint64_t elapsed_ns = now_ns - replay->start_ns;
    rsi_progress_show(&replay->progress, "%s messages, %s, %.1f s, %s/s",
                      rsi_figure_count((double)replay->message_count).text,
                      rsi_figure_bytes((double)replay->payload_bytes).text,
                      (double)elapsed_ns / 1e9,
                      rsi_figure_count(rsi_per_second(replay->message_count, elapsed_ns)).text);
}

/* False: the connection failed, or a stop was requested. */
static bool wait_until(struct replay *replay, uint64_t intended_ns)
{
    for (;;) {
        uint64_t now_ns = rsi_clock_now_ns();
        if (rsi_progress_is_due(&replay->progress, now_ns)) {
            show_progress(replay, now_ns);
        }
        if (now_ns >= intended_ns) {
            rsi_histogram_record(&replay->lateness, now_ns - intended_ns);
            return true;
        }
        if (rsi_stop_requested()) {
            return false;
        }
        uint64_t left_ns = intended_ns - now_ns;
        uint64_t sleep_ns = left_ns > AWAKE_NS ? left_ns - AWAKE_NS : 0;
        if (sleep_ns > RSI_NS_PER_SECOND / 5) {
            sleep_ns = RSI_NS_PER_SECOND / 5;
        }
        if (ringside_poll(replay->client, 0, sleep_ns, NULL) < 0) {
            rsi_cli_fail("%s", ringside_error_text(replay->client));
            return false;
        }
    }
}

/* False: ends the run. */
static bool replay_record(struct replay *replay, const struct rsi_record *record,
                          const struct rsi_subject *subject)
{
    ringside_publisher_t *publisher =
        rsi_publishers_find(&replay->publishers, subject->text, subject->bytes);
    if (publisher == NULL) {
        return false;
    }
    if (replay->start_ns == 0) {
        replay->start_ns = rsi_clock_now_ns();
    }
    if (!replay->options->is_flat_out) {
        replay->intended_ns = intended_time(replay, record);
        if (!wait_until(replay, replay->intended_ns)) {
            return false;
        }
    } else if ((replay->message_count & 1023) == 0) {
        uint64_t now_ns = rsi_clock_now_ns();
        if (rsi_progress_is_due(&replay->progress, now_ns)) {
            show_progress(replay, now_ns);
        }
        if (rsi_stop_requested()) {
            return false;
        }
    }
    if (!rsi_connection_publish(replay->client, publisher, record->payload,
                                record->payload_bytes)) {
        return false;
    }
    replay->message_count++;
    replay->payload_bytes += record->payload_bytes;
    return true;
}

static int replay_all(struct replay *replay)
{
    struct rsi_error error = {0};
    struct rsi_record record;
    struct rsi_subject subject;
    for (;;) {
        rsi_status_t status = rsi_recording_next(&replay->recording, &record, &subject, &error);
        if (status == RSI_WOULD_BLOCK) {
            return RSI_EXIT_OK;
        }
        /* The signal that asked for the stop may also have interrupted a read. */
        if (rsi_stop_requested()) {
            return RSI_EXIT_OK;
        }
        if (status != RSI_OK) {
            return rsi_cli_fail("%s", error.text);
        }
        if (!replay_record(replay, &record, &subject)) {
            return rsi_stop_requested() ? RSI_EXIT_OK : RSI_EXIT_FAILURE;
        }
    }
}

static void print_totals(struct replay *replay, uint64_t end_ns)
{
    uint64_t elapsed_ns = replay->start_ns == 0 ? 0 : end_ns - replay->start_ns;
    printf("replayed %" PRIu64 " messages, %" PRIu64 " bytes, on %zu subjects in %.3f s: %s msg/s, "
           "%s/s over %s\n",
           replay->message_count, replay->payload_bytes, rsi_publishers_count(&replay->publishers),
           (double)elapsed_ns / 1e9,
           rsi_figure_count(rsi_per_second(replay->message_count, elapsed_ns)).text,
           rsi_figure_bytes(rsi_per_second(replay->payload_bytes, elapsed_ns)).text,
           ringside_transport(replay->client));
    if (replay->recording.else_count > 0) {
        printf("%" PRIu64 " messages lacked the field and went to %s\n",
               replay->recording.else_count, replay->options->recording.else_subject);
    }
    if (!replay->options->is_flat_out && replay->lateness.total_count > 0) {
        printf("lateness: ");
        rsi_print_percentiles(stdout, &replay->lateness);
        printf("\n");
    }
    rsi_print_link_stats(stdout, replay->client, replay->message_count);
}

/* Waits until the broker has everything, as long as it keeps taking. */
static int flush_all(struct replay *replay)
{
    ringside_status_t status =
        ringside_flush(replay->client, replay->options->connection.timeout_ns);
    if (status == RINGSIDE_OK) {
        return RSI_EXIT_OK;
    }
    return rsi_cli_fail("the last messages did not arrive at the broker: %s (%s)",
                        ringside_error_text(replay->client), ringside_status_name(status));
}

static int replay_over_client(struct replay *replay)
{
    const struct replay_options *options = replay->options;
    rsi_publishers_init(&replay->publishers, replay->client, options->subject_count_max,
                        options->connection.timeout_ns);
    rsi_progress_init(&replay->progress, rsi_clock_now_ns());
    int code = replay_all(replay);
    int flush_code = flush_all(replay);
    rsi_progress_end(&replay->progress);
    print_totals(replay, rsi_clock_now_ns());
    rsi_recording_print_left_out(&replay->recording);
    rsi_publishers_fini(&replay->publishers);
    return code != RSI_EXIT_OK ? code : flush_code;
}

int rsi_command_replay(int argc, char **argv)
{
    struct replay_options options = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    rsi_stop_on_signals();
    static struct replay replay;
    replay.options = &options;
    struct rsi_error error = {0};
    if (rsi_recording_open(&replay.recording, &options.recording, &error) != RSI_OK) {
        return rsi_stop_requested() ? RSI_EXIT_OK : rsi_cli_fail("%s", error.text);
    }
    int code = RSI_EXIT_FAILURE;
    replay.client = rsi_connection_open(&options.connection, RSI_CONNECTION_PUBLISHES, NULL, NULL);
    if (replay.client != NULL) {
        code = replay_over_client(&replay);
        int close_code = rsi_connection_close(&options.connection, replay.client);
        code = code != RSI_EXIT_OK ? code : close_code;
    }
    rsi_recording_close(&replay.recording);
    return code;
}
