/*
 * A file of recorded messages together with the rule that gives each its subject: what replay
 * publishes and verify expects.
 */
#ifndef RSI_CLI_RECORDING_H
#define RSI_CLI_RECORDING_H

#include "clients/cli/input.h"
#include "clients/cli/template.h"

#include <argp.h>
#include <stdint.h>

/* The flags; a child parser of its own, as both commands take them alike. */
struct rsi_recording_options {
    const char *path; /* set by the command */
    const char *template_text;
    struct rsi_template template;
    const char *else_subject; /* NULL: a message without the field ends the run */
    uint64_t loop_count;
    uint64_t limit_count; /* UINT64_MAX: all */
};

extern const struct argp rsi_recording_argp;

struct rsi_recording {
    const struct rsi_recording_options *options;
    struct rsi_input *input;
    uint64_t loop;                               /* the pass that is being read, from 0 */
    uint64_t message_count;                      /* read in all passes */
    uint64_t else_count;                         /* of them, for want of a field, on else_subject */
    uint64_t kind_counts[RSI_PACKET_KIND_COUNT]; /* of the passes before this one */
};

/* `options` is borrowed. Errors: those of rsi_input_open; INVALID: loops over standard input. */
RSI_MUST_CHECK rsi_status_t rsi_recording_open(struct rsi_recording *recording,
                                               const struct rsi_recording_options *options,
                                               struct rsi_error *error);
/* Takes a zeroed one. */
void rsi_recording_close(struct rsi_recording *recording);
/*
 * The next message and its subject; RSI_WOULD_BLOCK at the end of the last pass. The text of an
 * error names file and line or packet.
 */
RSI_MUST_CHECK rsi_status_t rsi_recording_next(struct rsi_recording *recording,
                                               struct rsi_record *record,
                                               struct rsi_subject *subject,
                                               struct rsi_error *error);
/* "packets left out: 3 fragments, 1 truncated" to standard error, when any were. */
void rsi_recording_print_left_out(const struct rsi_recording *recording);

#endif
