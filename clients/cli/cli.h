/*
 * What the commands of `ringside` share: their table, exit codes, messages, the request to stop,
 * progress lines, and figures written for people.
 *
 * A command gets its arguments with argv[0] = "ringside NAME", parses them with argp and returns an
 * exit code. Everything here is for the main thread, the only one.
 */
#ifndef RSI_CLI_CLI_H
#define RSI_CLI_CLI_H

#include "core/compiler.h"
#include "core/error.h"
#include "core/histogram.h"

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    RSI_EXIT_OK = 0,
    RSI_EXIT_FAILURE = 1, /* it was tried and failed, or what was checked is wrong */
    RSI_EXIT_USAGE = 2,   /* a flag or a value of one */
};

#define RSI_NS_PER_SECOND UINT64_C(1000000000)

struct rsi_command {
    const char *name;
    const char *summary; /* one line of the list of commands */
    int (*run)(int argc, char **argv);
};

extern const struct rsi_command rsi_commands[];
extern const size_t rsi_command_count;

int rsi_command_pub(int argc, char **argv);
int rsi_command_sub(int argc, char **argv);
int rsi_command_ping(int argc, char **argv);
int rsi_command_bench(int argc, char **argv);
int rsi_command_replay(int argc, char **argv);
int rsi_command_request(int argc, char **argv);
int rsi_command_reply(int argc, char **argv);
int rsi_command_feed(int argc, char **argv);
int rsi_command_verify(int argc, char **argv);
int rsi_command_top(int argc, char **argv);
int rsi_command_info(int argc, char **argv);

/* The whole program: finds the command and runs it. */
int rsi_cli_main(int argc, char **argv);

/* Sets the name that messages begin with; borrowed. */
void rsi_cli_set_name(const char *name);
/* "ringside pub: ..." on standard error; ends a progress line first. Returns RSI_EXIT_FAILURE. */
int rsi_cli_fail(const char *format, ...) RSI_PRINTF(1, 2);
/* The same without failing: something the user should know. */
void rsi_cli_note(const char *format, ...) RSI_PRINTF(1, 2);

/* ---- stopping -----------------------------------------------------------------------------------
 */

/* From now on SIGINT and SIGTERM ask to stop; a second one ends the program as usual. */
void rsi_stop_on_signals(void);
bool rsi_stop_requested(void);
/* Asks from inside, as a signal would. */
void rsi_stop_request(void);

/* ---- values of flags
 * ----------------------------------------------------------------------------- */

/*
 * Each reads the value of a flag or ends the program with exit code 2 and a message that names the
 * flag, what was read, and what is right.
 */
uint64_t rsi_flag_number(struct argp_state *state, const char *flag, const char *text, uint64_t low,
                         uint64_t high);
uint64_t rsi_flag_size(struct argp_state *state, const char *flag, const char *text, uint64_t low,
                       uint64_t high);
uint64_t rsi_flag_duration(struct argp_state *state, const char *flag, const char *text);
/* "10000", "10k", "2.5M", each also with "/s": per second, above 0. */
double rsi_flag_rate(struct argp_state *state, const char *flag, const char *text);
/* "2", "0.5", "100x": above 0. */
double rsi_flag_factor(struct argp_state *state, const char *flag, const char *text);
/* The subject or pattern itself is checked; it stays the caller's. */
void rsi_flag_subject(struct argp_state *state, const char *what, const char *subject,
                      bool is_pattern);

/* How messages stand one after the other in a stream of bytes. */
typedef enum rsi_framing {
    RSI_FRAMING_NEWLINE,
    RSI_FRAMING_NUL,
    RSI_FRAMING_LENGTH, /* 4 bytes before each, its length, most significant byte first */
    RSI_FRAMING_NONE,   /* nothing between them: to write only */
} rsi_framing_t;
rsi_framing_t rsi_flag_framing(struct argp_state *state, const char *text, bool may_be_none);

/* ---- progress
 * ------------------------------------------------------------------------------------ */

/*
 * Live figures on standard error: one line that is written over on a terminal, a plain line every
 * ten seconds elsewhere.
 */
struct rsi_progress {
    bool is_terminal;
    uint64_t interval_ns;
    uint64_t due_ns;
};

void rsi_progress_init(struct rsi_progress *progress, uint64_t now_ns);
/* True when it is time to show; then the next time is set. */
bool rsi_progress_is_due(struct rsi_progress *progress, uint64_t now_ns);
void rsi_progress_show(struct rsi_progress *progress, const char *format, ...) RSI_PRINTF(2, 3);
/* Removes the line from a terminal, so that results stand alone. */
void rsi_progress_end(struct rsi_progress *progress);

/* ---- figures
 * ------------------------------------------------------------------------------------- */

enum { RSI_FIGURE_BYTES = 32 };

/* A short text in a struct, so that several fit into one printf. */
struct rsi_figure {
    char text[RSI_FIGURE_BYTES];
};

struct rsi_figure rsi_figure_count(double count);           /* "1.54M", "820" */
struct rsi_figure rsi_figure_bytes(double bytes);           /* "12.3 MB" (10^6) */
struct rsi_figure rsi_figure_ns(double ns);                 /* "31.2 us" */
struct rsi_figure rsi_figure_age(uint64_t ns);              /* "1d02h", "3h04m", "5m06s", "7s" */
double rsi_per_second(uint64_t count, uint64_t elapsed_ns); /* 0 when no time has passed */

/* "p50 31.2 us  p90 ...  max ...": one line without its end. */
void rsi_print_percentiles(FILE *stream, const struct rsi_histogram *histogram);
/* The same as members of a JSON object, in ns. */
void rsi_print_percentiles_json(FILE *stream, const struct rsi_histogram *histogram);

#endif
