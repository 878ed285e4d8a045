/*
 * Design notes
 * - A pass over the file is one opening of it; nothing is kept in memory, so any file can be
 * replayed.
 * - A message without its field goes to else_subject when there is one, whatever the reason (no
 * JSON, no such name): the rule for the user is "a line without that field".
 */
#include "clients/cli/recording.h"

#include "clients/cli/cli.h"
#include "core/text.h"
#include "proto/subject.h"

#include <inttypes.h>
#include <string.h>

enum { KEY_ELSE = 0x3000, KEY_LOOP, KEY_LIMIT };

static const struct argp_option recording_flags[] = {
    {"template", 't', "TEMPLATE", 0,
     "Subject of a message: text with fields in braces. A field is src, dst, sport or dport of a "
     "captured packet (md.{dst}.{dport}) or a JSON pointer into the payload "
     "(md.binance.{/stream}). "
     "What a token may not hold, dots too, becomes _",
     0},
    {"else", KEY_ELSE, "SUBJECT", 0,
     "Subject of messages that lack the field; without it the first of them ends the run", 0},
    {"loop", KEY_LOOP, "N", 0, "Read the file N times, such as 10. Default: 1", 0},
    {"limit", KEY_LIMIT, "N", 0, "Stop after N messages of each pass. Default: all", 0},
    {0},
};

static error_t parse_recording(int key, char *arg, struct argp_state *state)
{
    struct rsi_recording_options *options = state->input;
    struct rsi_error error = {0};
    switch (key) {
    case ARGP_KEY_INIT:
        options->loop_count = 1;
        options->limit_count = UINT64_MAX;
        return 0;
    case 't':
        options->template_text = arg;
        if (rsi_template_parse(&options->template, arg, &error) != RSI_OK) {
            argp_error(state, "--template: %s", error.text);
        }
        return 0;
    case KEY_ELSE:
        rsi_flag_subject(state, "--else", arg, false);
        options->else_subject = arg;
        return 0;
    case KEY_LOOP:
        options->loop_count = rsi_flag_number(state, "--loop", arg, 1, UINT32_MAX);
        return 0;
    case KEY_LIMIT:
        options->limit_count = rsi_flag_number(state, "--limit", arg, 1, UINT64_MAX);
        return 0;
    case ARGP_KEY_END:
        if (options->template_text == NULL) {
            argp_error(state, "--template is missing; say which subject a message gets, such as "
                              "--template md.{dst}.{dport} or --template 'md.binance.{/stream}'");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp rsi_recording_argp = {.options = recording_flags, .parser = parse_recording};

static rsi_status_t open_pass(struct rsi_recording *recording, struct rsi_error *error)
{
    const struct rsi_recording_options *options = recording->options;
    rsi_status_t status = rsi_input_open(&recording->input, options->path, error);
    if (status != RSI_OK) {
        return status;
    }
    const struct rsi_template *template = &options->template;
    if (template->has_packet_field && !rsi_input_is_capture(recording->input)) {
        rsi_recording_close(recording);
        return rsi_fail(
            error, RSI_E_INVALID,
            "%s holds lines, but the template '%s' asks for a field of captured packets; "
            "use a JSON pointer such as {/stream}",
            options->path, options->template_text);
    }
    return RSI_OK;
}

rsi_status_t rsi_recording_open(struct rsi_recording *recording,
                                const struct rsi_recording_options *options,
                                struct rsi_error *error)
{
    memset(recording, 0, sizeof(*recording));
    recording->options = options;
    if (options->loop_count > 1 && strcmp(options->path, "-") == 0) {
        return rsi_fail(error, RSI_E_INVALID,
                        "standard input can be read only once: leave out --loop, or give a file");
    }
    return open_pass(recording, error);
}

void rsi_recording_close(struct rsi_recording *recording)
{
    rsi_input_close(recording->input);
    recording->input = NULL;
}

static void end_pass(struct rsi_recording *recording)
{
    const uint64_t *counts = rsi_input_kind_counts(recording->input);
    for (size_t kind = 0; kind < RSI_PACKET_KIND_COUNT; kind++) {
        recording->kind_counts[kind] += counts[kind];
    }
    rsi_recording_close(recording);
    recording->loop++;
}

static rsi_status_t find_subject(struct rsi_recording *recording, const struct rsi_record *record,
                                 struct rsi_subject *subject, struct rsi_error *error)
{
    const struct rsi_recording_options *options = recording->options;
    rsi_status_t status = rsi_template_apply(&options->template, record, subject, error);
    if (status == RSI_E_NOT_FOUND && options->else_subject != NULL) {
        recording->else_count++;
        (void)rsi_text_copy(subject->text, sizeof(subject->text), options->else_subject);
        subject->bytes = strlen(subject->text);
        return RSI_OK;
    }
    if (status != RSI_OK) {
        rsi_error_context(error, "%s: %s %" PRIu64, options->path, rsi_input_unit(recording->input),
                          record->number);
    }
    if (status == RSI_E_NOT_FOUND && error != NULL) {
        size_t length = strlen(error->text);
        (void)rsi_text_copy(error->text + length, sizeof(error->text) - length,
                            "; --else SUBJECT would take such messages");
    }
    return status;
}

rsi_status_t rsi_recording_next(struct rsi_recording *recording, struct rsi_record *record,
                                struct rsi_subject *subject, struct rsi_error *error)
{
    const struct rsi_recording_options *options = recording->options;
    for (;;) {
        if (recording->input == NULL) {
            if (recording->loop == options->loop_count) {
                return RSI_WOULD_BLOCK;
            }
            rsi_status_t status = open_pass(recording, error);
            if (status != RSI_OK) {
                return status;
            }
        }
        uint64_t pass_limit_count = options->limit_count > UINT64_MAX / (recording->loop + 1)
                                        ? UINT64_MAX
                                        : options->limit_count * (recording->loop + 1);
        rsi_status_t status = recording->message_count >= pass_limit_count
                                  ? RSI_WOULD_BLOCK
                                  : rsi_input_next(recording->input, record, error);
        if (status == RSI_WOULD_BLOCK) {
            end_pass(recording);
            continue;
        }
        if (status != RSI_OK) {
            return status;
        }
        recording->message_count++;
        return find_subject(recording, record, subject, error);
    }
}

void rsi_recording_print_left_out(const struct rsi_recording *recording)
{
    char buffer[256];
    struct rsi_text text;
    rsi_text_init(&text, buffer, sizeof(buffer));
    const uint64_t *now = recording->input != NULL ? rsi_input_kind_counts(recording->input) : NULL;
    for (size_t kind = 0; kind < RSI_PACKET_KIND_COUNT; kind++) {
        uint64_t count = recording->kind_counts[kind] + (now != NULL ? now[kind] : 0);
        if (kind != RSI_PACKET_UDP && count > 0) {
            rsi_text_append(&text, "%s%" PRIu64 " %s", text.length_bytes > 0 ? ", " : "", count,
                            rsi_packet_kind_name((rsi_packet_kind_t)kind));
        }
    }
    if (text.length_bytes > 0) {
        rsi_cli_note("packets left out: %s", text.data);
    }
}
