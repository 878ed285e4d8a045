/*
 * Design notes
 * - Messages go to standard error, results to standard output, so that a pipe carries results
 * alone.
 * - The request to stop is one atomic word: a handler may only touch lock-free atomics. Handlers
 * are installed without SA_RESTART, so a sleeping poll returns, and reset themselves: a program
 * that does not come to an end still dies of the second signal.
 */
#include "clients/cli/cli.h"

#include "core/atomics.h"
#include "core/text.h"
#include "proto/layout.h"
#include "proto/subject.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *cli_name = "ringside";
static bool is_line_open; /* a progress line stands on the terminal */
static _Atomic uint32_t stop_requested;

void rsi_cli_set_name(const char *name)
{
    cli_name = name;
}

static void close_line(void)
{
    if (is_line_open) {
        fputs("\r\033[K", stderr);
    }
    is_line_open = false;
}

static void print_message(const char *format, va_list values) RSI_PRINTF(1, 0);

static void print_message(const char *format, va_list values)
{
    fflush(stdout);
    close_line();
    fprintf(stderr, "%s: ", cli_name);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
}

int rsi_cli_fail(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    print_message(format, values);
    va_end(values);
    return RSI_EXIT_FAILURE;
}

void rsi_cli_note(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    print_message(format, values);
    va_end(values);
}

/* ---- stopping -----------------------------------------------------------------------------------
 */

static void on_stop_signal(int number)
{
    (void)number;
    rsi_store_relaxed(&stop_requested, 1);
}

void rsi_stop_on_signals(void)
{
    struct sigaction action = {.sa_handler = on_stop_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool rsi_stop_requested(void)
{
    return rsi_load_relaxed(&stop_requested) != 0;
}

void rsi_stop_request(void)
{
    rsi_store_relaxed(&stop_requested, 1);
}

/* ---- values of flags
 * ----------------------------------------------------------------------------- */

uint64_t rsi_flag_number(struct argp_state *state, const char *flag, const char *text, uint64_t low,
                         uint64_t high)
{
    struct rsi_error error = {0};
    uint64_t number = 0;
    if (rsi_parse_number(&number, text, low, high, &error) != RSI_OK) {
        argp_error(state, "%s: %s", flag, error.text);
    }
    return number;
}

uint64_t rsi_flag_size(struct argp_state *state, const char *flag, const char *text, uint64_t low,
                       uint64_t high)
{
    struct rsi_error error = {0};
    uint64_t bytes = 0;
    if (rsi_parse_size(&bytes, text, &error) != RSI_OK) {
        argp_error(state, "%s: %s", flag, error.text);
    }
    if (bytes < low || bytes > high) {
        char range_buffer[64];
        struct rsi_text range;
        rsi_text_init(&range, range_buffer, sizeof(range_buffer));
        rsi_text_append_size(&range, low);
        rsi_text_append(&range, " to ");
        rsi_text_append_size(&range, high);
        argp_error(state, "%s: '%s' is outside %s", flag, text, range.data);
    }
    return bytes;
}

uint64_t rsi_flag_duration(struct argp_state *state, const char *flag, const char *text)
{
    struct rsi_error error = {0};
    uint64_t duration_ns = 0;
    if (rsi_parse_duration(&duration_ns, text, &error) != RSI_OK) {
        argp_error(state, "%s: %s", flag, error.text);
    }
    return duration_ns;
}

double rsi_flag_rate(struct argp_state *state, const char *flag, const char *text)
{
    char *rest = NULL;
    double rate = strtod(text, &rest);
    bool is_number = rest != text;
    if (*rest == 'k' || *rest == 'K') {
        rate *= 1e3;
        rest++;
    } else if (*rest == 'M') {
        rate *= 1e6;
        rest++;
    }
    if (strcmp(rest, "/s") == 0) {
        rest += 2;
    }
    if (!is_number || *rest != '\0' || !isfinite(rate) || rate <= 0 || rate > 1e9) {
        argp_error(state,
                   "%s: '%s' is not a rate; write messages per second, such as 10000, 10k or 2.5M",
                   flag, text);
    }
    return rate;
}

double rsi_flag_factor(struct argp_state *state, const char *flag, const char *text)
{
    char *rest = NULL;
    double factor = strtod(text, &rest);
    bool is_number = rest != text;
    if (*rest == 'x') {
        rest++;
    }
    if (!is_number || *rest != '\0' || !isfinite(factor) || factor <= 0) {
        argp_error(state, "%s: '%s' is not a factor; write a number above 0, such as 2 or 0.5",
                   flag, text);
    }
    return factor;
}

void rsi_flag_subject(struct argp_state *state, const char *what, const char *subject,
                      bool is_pattern)
{
    size_t at = 0;
    size_t bytes = strlen(subject);
    const char *wrong = is_pattern ? rsi_subject_check_pattern(subject, bytes, &at)
                                   : rsi_subject_check_literal(subject, bytes, &at);
    if (wrong != NULL) {
        argp_error(state, "%s '%s': %s, at byte %zu; right is %s", what, subject, wrong, at,
                   is_pattern ? "md.*.AAPL or md.>" : "md.XNAS.AAPL");
    }
}

rsi_framing_t rsi_flag_framing(struct argp_state *state, const char *text, bool may_be_none)
{
    static const char *const names[] = {
        [RSI_FRAMING_NEWLINE] = "newline",
        [RSI_FRAMING_NUL] = "nul",
        [RSI_FRAMING_LENGTH] = "length",
        [RSI_FRAMING_NONE] = "none",
    };
    size_t count = rsi_array_count(names) - (may_be_none ? 0 : 1);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], text) == 0) {
            return (rsi_framing_t)i;
        }
    }
    argp_error(state, "--separator: '%s' is not known; use newline, nul%s", text,
               may_be_none ? ", length or none" : " or length");
    return RSI_FRAMING_NEWLINE;
}

/* ---- progress
 * ------------------------------------------------------------------------------------ */

void rsi_progress_init(struct rsi_progress *progress, uint64_t now_ns)
{
    progress->is_terminal = isatty(STDERR_FILENO) == 1;
    progress->interval_ns = progress->is_terminal ? RSI_NS_PER_SECOND / 5 : 10 * RSI_NS_PER_SECOND;
    progress->due_ns = now_ns + progress->interval_ns;
}

bool rsi_progress_is_due(struct rsi_progress *progress, uint64_t now_ns)
{
    if (rsi_likely(now_ns < progress->due_ns)) {
        return false;
    }
    progress->due_ns = now_ns + progress->interval_ns;
    return true;
}

void rsi_progress_show(struct rsi_progress *progress, const char *format, ...)
{
    if (progress->is_terminal) {
        fputs("\r", stderr);
    }
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputs(progress->is_terminal ? "\033[K" : "\n", stderr);
    fflush(stderr);
    is_line_open = progress->is_terminal;
}

void rsi_progress_end(struct rsi_progress *progress)
{
    if (progress->is_terminal) {
        close_line();
    }
}

/* ---- figures
 * ------------------------------------------------------------------------------------- */

static struct rsi_figure scaled(double value, const char *const units[], size_t unit_count,
                                double step)
{
    size_t unit = 0;
    while (unit + 1 < unit_count && value >= step) {
        value /= step;
        unit++;
    }
    int decimals = 0;
    if (value < 10 && value != floor(value)) {
        decimals = 2;
    } else if (value < 100 && value != floor(value)) {
        decimals = 1;
    }
    struct rsi_figure figure;
    snprintf(figure.text, sizeof(figure.text), "%.*f%s", decimals, value, units[unit]);
    return figure;
}

struct rsi_figure rsi_figure_count(double count)
{
    static const char *const units[] = {"", "k", "M", "G"};
    return scaled(count, units, rsi_array_count(units), 1000);
}

struct rsi_figure rsi_figure_bytes(double bytes)
{
    static const char *const units[] = {" B", " kB", " MB", " GB", " TB"};
    return scaled(bytes, units, rsi_array_count(units), 1000);
}

struct rsi_figure rsi_figure_ns(double ns)
{
    static const char *const units[] = {" ns", " us", " ms", " s"};
    return scaled(ns, units, rsi_array_count(units), 1000);
}

struct rsi_figure rsi_figure_age(uint64_t ns)
{
    struct rsi_figure figure;
    uint64_t s = ns / RSI_NS_PER_SECOND;
    if (s >= 86400) {
        snprintf(figure.text, sizeof(figure.text), "%" PRIu64 "d%02" PRIu64 "h", s / 86400,
                 s / 3600 % 24);
    } else if (s >= 3600) {
        snprintf(figure.text, sizeof(figure.text), "%" PRIu64 "h%02" PRIu64 "m", s / 3600,
                 s / 60 % 60);
    } else if (s >= 60) {
        snprintf(figure.text, sizeof(figure.text), "%" PRIu64 "m%02" PRIu64 "s", s / 60, s % 60);
    } else {
        snprintf(figure.text, sizeof(figure.text), "%" PRIu64 "s", s);
    }
    return figure;
}

double rsi_per_second(uint64_t count, uint64_t elapsed_ns)
{
    return elapsed_ns == 0 ? 0 : (double)count * 1e9 / (double)elapsed_ns;
}

static const struct {
    const char *name;
    double percentile;
} percentile_points[] = {{"p50", 50}, {"p90", 90}, {"p95", 95}, {"p99", 99}, {"p99.9", 99.9}};

void rsi_print_percentiles(FILE *stream, const struct rsi_histogram *histogram)
{
    for (size_t i = 0; i < rsi_array_count(percentile_points); i++) {
        double value_ns =
            (double)rsi_histogram_percentile(histogram, percentile_points[i].percentile);
        fprintf(stream, "%s %s  ", percentile_points[i].name, rsi_figure_ns(value_ns).text);
    }
    fprintf(stream, "max %s", rsi_figure_ns((double)histogram->max_value).text);
}

void rsi_print_percentiles_json(FILE *stream, const struct rsi_histogram *histogram)
{
    for (size_t i = 0; i < rsi_array_count(percentile_points); i++) {
        fprintf(stream, "\"%s\":%" PRIu64 ",", percentile_points[i].name,
                rsi_histogram_percentile(histogram, percentile_points[i].percentile));
    }
    fprintf(stream, "\"max\":%" PRIu64, histogram->max_value);
}
