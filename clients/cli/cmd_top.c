/*
 * ringside top: what every session of a broker does, live.
 *
 * Design notes
 * - A screen is the difference of two looks. The broker brings its file up to date once a second
 *   and says when, so rates are over the broker's own interval, not over ours: looking a little
 *   early or late neither doubles a rate nor makes it 0.
 * - Slow subscribers come first: by what waits for them, then by how long they held publishers
 *   back, by what was dropped, by latency.
 * - A broker that ends or is replaced is no reason to end: the screen says so and waits for the
 *   next one, unless one look was asked for.
 * - Names are other people's: bytes that would steer a terminal are shown as '?'.
 */
#include "clients/cli/cli.h"
#include "clients/cli/look.h"
#include "core/clock.h"
#include "core/text.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

enum {
    KEY_JSON = 0x4000,
    KEY_ONCE,
    KEY_LIMIT,
    LINE_BYTES = 512,
    WIDTH_DEFAULT = 80,
    WIDE_WIDTH = 110, /* from here on the rest of the columns fits */
    HEAD_LINE_COUNT = 5,
    WAIT_LINE_COUNT = 3,
};

#define LOOK_AGAIN_NS (RSI_NS_PER_SECOND / 20)
#define STALE_NS      (3 * RSI_NS_PER_SECOND) /* the broker refreshes its file once a second */

enum sort_order {
    SORT_SLOW,
    SORT_NAME,
    SORT_IN,
    SORT_OUT,
    SORT_LAG,
    SORT_DROPS,
    SORT_BLOCKED,
    SORT_P50,
    SORT_P99,
    SORT_MAX,
    SORT_COUNT,
};

static const struct {
    const char *name;
    char key; /* on the keyboard */
} orders[SORT_COUNT] = {
    [SORT_SLOW] = {"slow", 's'},       [SORT_NAME] = {"name", 'n'}, [SORT_IN] = {"in", 'i'},
    [SORT_OUT] = {"out", 'o'},         [SORT_LAG] = {"lag", 'l'},   [SORT_DROPS] = {"drops", 'd'},
    [SORT_BLOCKED] = {"blocked", 'b'}, [SORT_P50] = {"p50", '5'},   [SORT_P99] = {"p99", '9'},
    [SORT_MAX] = {"max", 'm'},
};

struct top_options {
    struct rsi_look_options look;
    enum sort_order order;
    uint64_t interval_ns;
    size_t row_limit; /* 0: what fits */
    bool is_json;
    bool is_once;
};

/* What one session did between two looks. */
struct row {
    const struct rsi_look_session *session;
    double in_rate; /* per second from here on */
    double in_bytes_rate;
    double out_rate;
    double out_bytes_rate;
    double drop_rate;
    double blocked_share; /* of the time, 0 to 1: publishers waited for it */
    double stalled_share; /* it waited for others */
    uint64_t waiting_bytes;
};

struct top {
    struct top_options options;
    struct rsi_look look;
    struct rsi_look before;
    struct row *rows;
    size_t row_count;
    uint64_t interval_ns; /* between the two looks, by the broker's clock; 0: there is one only */
    bool is_stale;        /* the broker does not refresh its file */
    bool has_restarted;
    uint64_t shown_start_ns; /* of the broker that was shown last; 0: none was */
    bool is_interactive;
    bool is_paused;
    bool must_quit;
    struct termios terminal; /* as it was */
};

static const struct argp_option flags[] = {
    {"sort", 's', "KEY", 0,
     "Order: slow (default), name, in, out, lag, drops, blocked, p50, p99 or max; the largest "
     "first",
     0},
    {"interval", 'i', "TIME", 0,
     "Time between two screens, such as 500ms or 5s; the broker refreshes its counters once a "
     "second. Default: 1s",
     0},
    {"limit", KEY_LIMIT, "N", 0, "Show N sessions at most. Default: what the terminal holds", 0},
    {"json", KEY_JSON, NULL, 0, "Print a JSON object per interval instead", 0},
    {"once", KEY_ONCE, NULL, 0, "Print one screen, of one interval, and end", 0},
    {0},
};

static enum sort_order read_order(struct argp_state *state, const char *text)
{
    for (enum sort_order order = 0; order < SORT_COUNT; order++) {
        if (strcmp(orders[order].name, text) == 0) {
            return order;
        }
    }
    argp_error(state,
               "--sort: '%s' is not known; use slow, name, in, out, lag, drops, blocked, p50, p99 "
               "or max",
               text);
    return SORT_SLOW;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct top_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options->interval_ns = RSI_NS_PER_SECOND;
        state->child_inputs[0] = &options->look;
        return 0;
    case 's':
        options->order = read_order(state, arg);
        return 0;
    case 'i':
        options->interval_ns = rsi_flag_duration(state, "--interval", arg);
        if (options->interval_ns < RSI_NS_PER_SECOND / 10 ||
            options->interval_ns > 3600 * RSI_NS_PER_SECOND) {
            argp_error(state, "--interval: '%s' is outside 100ms to 1h", arg);
        }
        return 0;
    case KEY_LIMIT:
        options->row_limit = rsi_flag_number(state, "--limit", arg, 1, 1000000);
        return 0;
    case KEY_JSON:
        options->is_json = true;
        return 0;
    case KEY_ONCE:
        options->is_once = true;
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
    .doc =
        "Shows live what every session of a broker does, slow subscribers first. It reads the "
        "file in which the broker counts, on the broker's host, and disturbs nobody.\v"
        "Columns: IN, OUT: messages per second published and delivered. LAG: bytes that wait for "
        "room in its ring. DROPS: messages left out per second. BLK: share of the time for which "
        "publishers waited for it (policy block). P50 to MAX: time from publish to placement in "
        "its ring in the last second, by the publisher's clock. A terminal of 110 columns shows "
        "more.\n"
        "Keys: q quit, space pause, and the order: s slow, n name, i in, o out, l lag, d drops, b "
        "blocked, 5 p50, 9 p99, m max.\n"
        "\n"
        "Examples:\n"
        "  ringside top\n"
        "  ringside top --counters /run/ringside/hub.counters --sort lag\n"
        "  ringside top --url tcp://127.0.0.1:7400 --once --json",
};

/* ---- figures of at most five characters --------------------------------------------------------
 */

static struct rsi_figure short_figure(double value, const char *const units[], size_t unit_count,
                                      int digits)
{
    struct rsi_figure figure;
    size_t unit = 0;
    while (unit + 1 < unit_count && value >= 999.5) {
        value /= 1000;
        unit++;
    }
    int decimals = 0;
    if (unit > 0 || digits == 2) {
        double below_ten = digits == 3 ? 9.995 : 9.95;
        decimals = value < below_ten ? digits - 1 : (value < 99.95 ? digits - 2 : 0);
    }
    if (unit == 0) {
        decimals = 0;
    }
    snprintf(figure.text, sizeof(figure.text), "%.*f%s", decimals, value, units[unit]);
    return figure;
}

/* "999", "9.99k", "99.9M" */
static struct rsi_figure short_count(double count)
{
    static const char *const units[] = {"", "k", "M", "G", "T"};
    return short_figure(count, units, rsi_array_count(units), 3);
}

/* "999ns", "9.9us", "99ms", "12s"; "-" for 0, which says that nothing was measured. */
static struct rsi_figure short_ns(uint64_t ns)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    struct rsi_figure none = {"-"};
    return ns == 0 ? none : short_figure((double)ns, units, rsi_array_count(units), 2);
}

/* "45%", "-" for nothing */
static struct rsi_figure short_share(double share)
{
    struct rsi_figure figure = {"-"};
    if (share > 0) {
        snprintf(figure.text, sizeof(figure.text), "%.0f%%", share < 1 ? share * 100 : 100.0);
    }
    return figure;
}

/* ---- rows --------------------------------------------------------------------------------------
 */

/* How much a counter grew; all of it for a session that was not there before. */
static uint64_t growth(const struct rsi_look_session *now, const struct rsi_look_session *before,
                       enum rsi_session_value value)
{
    uint64_t was = before != NULL ? before->values[value] : 0;
    return now->values[value] > was ? now->values[value] - was : 0;
}

static struct row make_row(const struct top *top, const struct rsi_look_session *session)
{
    const struct rsi_look_session *before = rsi_look_find(&top->before, session->id);
    uint64_t ns = top->interval_ns;
    struct row row = {.session = session};
    row.in_rate = rsi_per_second(growth(session, before, RSI_SESSION_ADMITTED_MESSAGES), ns);
    row.in_bytes_rate = rsi_per_second(growth(session, before, RSI_SESSION_ADMITTED_BYTES), ns);
    row.out_rate = rsi_per_second(growth(session, before, RSI_SESSION_DELIVERED_MESSAGES), ns);
    row.out_bytes_rate = rsi_per_second(growth(session, before, RSI_SESSION_DELIVERED_BYTES), ns);
    row.drop_rate = rsi_per_second(growth(session, before, RSI_SESSION_DROPPED_MESSAGES), ns);
    row.blocked_share = rsi_per_second(growth(session, before, RSI_SESSION_BLOCKED_NS), ns) / 1e9;
    row.stalled_share = rsi_per_second(growth(session, before, RSI_SESSION_STALLED_NS), ns) / 1e9;
    row.waiting_bytes =
        session->values[RSI_SESSION_LAG_BYTES] + session->values[RSI_SESSION_SPILL_BYTES];
    return row;
}

/* The larger comes first. */
static int compare(double a, double b)
{
    return (a < b) - (a > b);
}

static enum sort_order sorted_by;

static int compare_value(const struct row *a, const struct row *b, enum rsi_session_value value)
{
    return compare((double)a->session->values[value], (double)b->session->values[value]);
}

static int compare_slow(const struct row *a, const struct row *b)
{
    int order = compare((double)a->waiting_bytes, (double)b->waiting_bytes);
    order = order != 0 ? order : compare(a->blocked_share, b->blocked_share);
    order = order != 0 ? order : compare(a->drop_rate, b->drop_rate);
    return order != 0 ? order : compare_value(a, b, RSI_SESSION_LATENCY_P99_NS);
}

static int compare_by(const struct row *a, const struct row *b)
{
    switch (sorted_by) {
    case SORT_NAME:
        return strcmp(a->session->name, b->session->name);
    case SORT_IN:
        return compare(a->in_rate, b->in_rate);
    case SORT_OUT:
        return compare(a->out_rate, b->out_rate);
    case SORT_LAG:
        return compare((double)a->waiting_bytes, (double)b->waiting_bytes);
    case SORT_DROPS:
        return compare(a->drop_rate, b->drop_rate);
    case SORT_BLOCKED:
        return compare(a->blocked_share, b->blocked_share);
    case SORT_P50:
        return compare_value(a, b, RSI_SESSION_LATENCY_P50_NS);
    case SORT_P99:
        return compare_value(a, b, RSI_SESSION_LATENCY_P99_NS);
    case SORT_MAX:
        return compare_value(a, b, RSI_SESSION_LATENCY_MAX_NS);
    case SORT_SLOW:
    case SORT_COUNT:
        break;
    }
    return compare_slow(a, b);
}

/* Equal ones stand in the order in which they came, so that a quiet screen does not jump. */
static int compare_rows(const void *a, const void *b)
{
    int order = compare_by(a, b);
    uint64_t id_a = ((const struct row *)a)->session->id;
    uint64_t id_b = ((const struct row *)b)->session->id;
    return order != 0 ? order : (id_a > id_b) - (id_a < id_b);
}

static void sort_rows(struct top *top)
{
    sorted_by = top->options.order;
    if (top->row_count > 0) {
        qsort(top->rows, top->row_count, sizeof(*top->rows), compare_rows);
    }
}

/* False: no memory. */
static bool make_rows(struct top *top)
{
    free(top->rows);
    top->row_count = 0;
    top->rows = calloc(top->look.session_count + 1, sizeof(*top->rows));
    if (top->rows == NULL) {
        return false;
    }
    for (size_t i = 0; i < top->look.session_count; i++) {
        top->rows[top->row_count++] = make_row(top, &top->look.sessions[i]);
    }
    sort_rows(top);
    return true;
}

/* ---- the screen --------------------------------------------------------------------------------
 */

struct screen {
    size_t width;
    size_t height; /* 0: no end */
    bool is_terminal;
};

static struct screen measure_screen(const struct top *top)
{
    struct winsize size = {0};
    struct screen screen = {.width = WIDTH_DEFAULT, .is_terminal = top->is_interactive};
    const char *columns = getenv("COLUMNS");
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        screen.width = size.ws_col;
        screen.height = top->is_interactive ? size.ws_row : 0;
    } else if (columns != NULL && atoi(columns) > 0) {
        screen.width = (size_t)atoi(columns);
    }
    return screen;
}

static void print_line(const struct screen *screen, const char *format, ...) RSI_PRINTF(2, 3);

static void print_line(const struct screen *screen, const char *format, ...)
{
    char line[LINE_BYTES];
    va_list values;
    va_start(values, format);
    vsnprintf(line, sizeof(line), format, values);
    va_end(values);
    size_t bytes = strlen(line);
    bytes = bytes > screen->width ? screen->width : bytes;
    for (size_t i = 0; i < bytes; i++) {
        bool steers = (unsigned char)line[i] < 0x20 || line[i] == 0x7f;
        putchar(steers ? '?' : line[i]);
    }
    fputs(screen->is_terminal ? "\033[K\r\n" : "\n", stdout);
}

static void print_head(const struct top *top, const struct screen *screen)
{
    const struct rsi_look *look = &top->look;
    double in = 0;
    double in_bytes = 0;
    double out = 0;
    double out_bytes = 0;
    double drops = 0;
    for (size_t i = 0; i < top->row_count; i++) {
        in += top->rows[i].in_rate;
        in_bytes += top->rows[i].in_bytes_rate;
        out += top->rows[i].out_rate;
        out_bytes += top->rows[i].out_bytes_rate;
        drops += top->rows[i].drop_rate;
    }
    char away[32] = "";
    if (look->values[RSI_BROKER_SESSIONS_SUSPENDED] > 0) {
        snprintf(away, sizeof(away), " (%" PRIu64 " away)",
                 look->values[RSI_BROKER_SESSIONS_SUSPENDED]);
    }
    print_line(screen, "%.24s  %s  up %s  %" PRIu64 " sessions%s  %" PRIu64 " topics", look->name,
               look->version, rsi_figure_age(rsi_look_uptime_ns(look)).text,
               look->values[RSI_BROKER_SESSIONS], away, look->values[RSI_BROKER_TOPICS]);
    print_line(screen, "in %s msg/s %sB/s  out %s msg/s %sB/s  drops %s/s  by %s%s%s",
               short_count(in).text, short_count(in_bytes).text, short_count(out).text,
               short_count(out_bytes).text, short_count(drops).text,
               orders[top->options.order].name, top->is_paused ? "  PAUSED" : "",
               top->has_restarted ? "  broker was restarted" : "");
}

static uint64_t agent_growth(const struct top *top, size_t index, enum rsi_agent_value value)
{
    uint64_t was = index < top->before.agent_count ? top->before.agents[index].values[value] : 0;
    uint64_t is = top->look.agents[index].values[value];
    return is > was ? is - was : 0;
}

/* Share of an agent's passes that found something to do. */
static double busy_share(const struct top *top, size_t index)
{
    uint64_t pass_count = agent_growth(top, index, RSI_AGENT_PASSES);
    return pass_count == 0
               ? 0
               : (double)agent_growth(top, index, RSI_AGENT_BUSY_PASSES) / (double)pass_count;
}

static void print_agents(const struct top *top, const struct screen *screen)
{
    char line_buffer[LINE_BYTES];
    struct rsi_text line;
    rsi_text_init(&line, line_buffer, sizeof(line_buffer));
    for (size_t i = 0; i < top->look.agent_count; i++) {
        rsi_text_append(&line, "%sagent %u %.0f%% of %s passes busy", i > 0 ? "  " : "",
                        top->look.agents[i].number, busy_share(top, i) * 100,
                        short_count((double)agent_growth(top, i, RSI_AGENT_PASSES)).text);
    }
    if (top->is_stale) {
        rsi_text_append(&line, "  NO NEWS: the broker is stopped or hangs");
    }
    print_line(screen, "%s", line.data);
}

static void print_row(const struct row *row, const struct screen *screen)
{
    const struct rsi_look_session *session = row->session;
    const uint64_t *values = session->values;
    char id[24];
    char name[LINE_BYTES];
    char more[LINE_BYTES] = "";
    int id_bytes = snprintf(id, sizeof(id), "#%" PRIu64, session->id);
    int name_room = id_bytes < 14 ? 14 - id_bytes : 0;
    snprintf(name, sizeof(name), "%.*s%s", name_room, session->name, id);
    if (screen->width >= WIDE_WIDTH) {
        snprintf(more, sizeof(more), "  %-5s %4s %5s  %s",
                 session->transport[0] != '\0' ? session->transport : "away",
                 short_share(row->stalled_share).text, short_count(row->out_bytes_rate).text,
                 session->peer);
    }
    print_line(screen, "%-14s %5s %5s %5s %5s %4s %5s %5s %5s %5s %5s %5s%s", name,
               short_count(row->in_rate).text, short_count(row->out_rate).text,
               short_count((double)row->waiting_bytes).text, short_count(row->drop_rate).text,
               short_share(row->blocked_share).text,
               short_ns(values[RSI_SESSION_LATENCY_P50_NS]).text,
               short_ns(values[RSI_SESSION_LATENCY_P90_NS]).text,
               short_ns(values[RSI_SESSION_LATENCY_P95_NS]).text,
               short_ns(values[RSI_SESSION_LATENCY_P99_NS]).text,
               short_ns(values[RSI_SESSION_LATENCY_P999_NS]).text,
               short_ns(values[RSI_SESSION_LATENCY_MAX_NS]).text, more);
}

/* Who waits for whom, the first few. */
static void print_waits(const struct top *top, const struct screen *screen)
{
    size_t line_count = 0;
    for (size_t i = 0; i < top->row_count && line_count < WAIT_LINE_COUNT; i++) {
        const struct row *row = &top->rows[i];
        const struct rsi_look_session *by =
            rsi_look_find(&top->look, row->session->values[RSI_SESSION_STALLED_BY]);
        if (row->stalled_share > 0) {
            print_line(screen, "%.24s#%" PRIu64 " waited %s of the time, last for %.24s#%" PRIu64,
                       row->session->name, row->session->id, short_share(row->stalled_share).text,
                       by != NULL ? by->name : "one that is gone",
                       row->session->values[RSI_SESSION_STALLED_BY]);
            line_count++;
        }
    }
}

static void print_screen(const struct top *top)
{
    struct screen screen = measure_screen(top);
    size_t row_limit = top->options.row_limit > 0 ? top->options.row_limit : SIZE_MAX;
    if (screen.height > HEAD_LINE_COUNT + WAIT_LINE_COUNT + 1 &&
        row_limit > screen.height - HEAD_LINE_COUNT - WAIT_LINE_COUNT - 1) {
        row_limit = screen.height - HEAD_LINE_COUNT - WAIT_LINE_COUNT - 1;
    }
    if (screen.is_terminal) {
        fputs("\033[H", stdout);
    }
    print_head(top, &screen);
    print_agents(top, &screen);
    print_line(&screen, "%s", "");
    print_line(&screen, "%-14s %5s %5s %5s %5s %4s %5s %5s %5s %5s %5s %5s%s", "SESSION", "IN",
               "OUT", "LAG", "DROPS", "BLK", "P50", "P90", "P95", "P99", "P99.9", "MAX",
               screen.width >= WIDE_WIDTH ? "  LINK  WAIT OUT B  PEER" : "");
    for (size_t i = 0; i < top->row_count && i < row_limit; i++) {
        print_row(&top->rows[i], &screen);
    }
    if (top->row_count > row_limit) {
        print_line(&screen, "and %zu more", top->row_count - row_limit);
    }
    print_waits(top, &screen);
    fputs(screen.is_terminal ? "\033[J" : "\n", stdout);
}

/* ---- JSON --------------------------------------------------------------------------------------
 */

static json_t *json_latency(const struct rsi_look_session *session)
{
    const uint64_t *values = session->values;
    if (values[RSI_SESSION_LATENCY_MAX_NS] == 0) {
        return json_null();
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "p50",
                     (json_int_t)values[RSI_SESSION_LATENCY_P50_NS], "p90",
                     (json_int_t)values[RSI_SESSION_LATENCY_P90_NS], "p95",
                     (json_int_t)values[RSI_SESSION_LATENCY_P95_NS], "p99",
                     (json_int_t)values[RSI_SESSION_LATENCY_P99_NS], "p99.9",
                     (json_int_t)values[RSI_SESSION_LATENCY_P999_NS], "max",
                     (json_int_t)values[RSI_SESSION_LATENCY_MAX_NS]);
}

static json_t *json_row(const struct row *row)
{
    json_t *object = rsi_look_session_json(row->session);
    if (object == NULL) {
        return NULL;
    }
    json_object_set_new(object, "in_messages_per_second", json_real(row->in_rate));
    json_object_set_new(object, "in_bytes_per_second", json_real(row->in_bytes_rate));
    json_object_set_new(object, "out_messages_per_second", json_real(row->out_rate));
    json_object_set_new(object, "out_bytes_per_second", json_real(row->out_bytes_rate));
    json_object_set_new(object, "dropped_per_second", json_real(row->drop_rate));
    json_object_set_new(object, "blocked_share", json_real(row->blocked_share));
    json_object_set_new(object, "stalled_share", json_real(row->stalled_share));
    json_object_set_new(object, "waiting_bytes", json_integer((json_int_t)row->waiting_bytes));
    json_object_set_new(object, "latency_ns", json_latency(row->session));
    return object;
}

/* False: no memory. */
static bool print_json(const struct top *top)
{
    size_t row_limit = top->options.row_limit > 0 ? top->options.row_limit : SIZE_MAX;
    json_t *object = json_pack(
        "{s:I, s:o, s:I, s:b, s:b, s:o}", "time_ns", (json_int_t)rsi_clock_realtime_ns(), "broker",
        rsi_look_broker_json(&top->look), "interval_ns", (json_int_t)top->interval_ns, "is_stale",
        top->is_stale, "has_restarted", top->has_restarted, "agents", json_array());
    json_t *sessions = json_array();
    for (size_t i = 0; i < top->look.agent_count; i++) {
        json_t *agent = rsi_look_agent_json(&top->look.agents[i]);
        json_object_set_new(agent, "busy_share", json_real(busy_share(top, i)));
        json_array_append_new(json_object_get(object, "agents"), agent);
    }
    for (size_t i = 0; i < top->row_count && i < row_limit; i++) {
        json_array_append_new(sessions, json_row(&top->rows[i]));
    }
    bool is_made = object != NULL && json_object_set_new(object, "sessions", sessions) == 0 &&
                   json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) == 0;
    putchar('\n');
    json_decref(object);
    return is_made;
}

/* ---- terminal ----------------------------------------------------------------------------------
 */

/* Keys come one by one and unseen; the screen of before is kept. */
static void take_terminal(struct top *top)
{
    top->is_interactive = !top->options.is_json && !top->options.is_once &&
                          isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 &&
                          tcgetattr(STDIN_FILENO, &top->terminal) == 0;
    if (!top->is_interactive) {
        return;
    }
    struct termios changed = top->terminal;
    changed.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    changed.c_cc[VMIN] = 0;
    changed.c_cc[VTIME] = 0;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &changed);
    fputs("\033[?1049h\033[?25l\033[H\033[2J", stdout);
}

static void give_terminal_back(const struct top *top)
{
    if (top->is_interactive) {
        fputs("\033[?25h\033[?1049l", stdout);
        fflush(stdout);
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &top->terminal);
    }
}

static void take_key(struct top *top, char key)
{
    if (key == 'q') {
        top->must_quit = true;
    } else if (key == ' ') {
        top->is_paused = !top->is_paused;
    }
    for (enum sort_order order = 0; order < SORT_COUNT; order++) {
        if (orders[order].key == key) {
            top->options.order = order;
        }
    }
}

/* Sleeps, but for keys, which act at once. */
static void wait_until(struct top *top, uint64_t until_ns)
{
    uint64_t now_ns;
    while (!top->must_quit && !rsi_stop_requested() && (now_ns = rsi_clock_now_ns()) < until_ns) {
        struct pollfd keys = {.fd = top->is_interactive ? STDIN_FILENO : -1, .events = POLLIN};
        int timeout_ms = (int)((until_ns - now_ns) / 1000000 + 1);
        char key = 0;
        if (poll(&keys, 1, timeout_ms) > 0 && read(STDIN_FILENO, &key, 1) == 1) {
            take_key(top, key);
            sort_rows(top);
            if (top->row_count > 0) {
                print_screen(top);
                fflush(stdout);
            }
        } else if (keys.revents != 0) {
            top->must_quit = true; /* the terminal is gone */
        }
    }
}

/* ---- the loop ----------------------------------------------------------------------------------
 */

/* No broker to look at, and not the only look: says so and goes on. */
static void show_absence(struct top *top, const char *text)
{
    struct screen screen = measure_screen(top);
    rsi_look_fini(&top->look);
    rsi_look_fini(&top->before);
    top->row_count = 0;
    if (!screen.is_terminal) {
        rsi_cli_note("waiting for a broker: %s", text);
        return;
    }
    fputs("\033[H", stdout);
    print_line(&screen, "waiting for a broker (q quits):");
    for (size_t at = 0; at < strlen(text); at += screen.width) {
        print_line(&screen, "%s", text + at);
    }
    fputs("\033[J", stdout);
    fflush(stdout);
}

/* Whether the file has been brought up to date since the look before, or is another broker's. */
static bool has_news(const struct rsi_look *look, const struct rsi_look *before)
{
    return !rsi_look_is_same_broker(look, before) ||
           look->values[RSI_BROKER_REFRESHED_NS] != before->values[RSI_BROKER_REFRESHED_NS];
}

/*
 * Looks until the broker has refreshed its file since the look before, which is kept in
 * top->before. Stale: it has not within STALE_NS.
 */
static rsi_status_t look_again(struct top *top, struct rsi_error *error)
{
    uint64_t until_ns = rsi_clock_now_ns() + STALE_NS;
    rsi_look_fini(&top->before);
    top->row_count = 0; /* they are of the look that is given up now */
    top->before = top->look;
    top->look = (struct rsi_look){0};
    for (;;) {
        rsi_status_t status = rsi_look_take(&top->look, top->options.look.path, error);
        if (rsi_failed(status)) {
            return status;
        }
        top->is_stale = rsi_clock_now_ns() >= until_ns;
        if (has_news(&top->look, &top->before) || top->is_stale || rsi_stop_requested() ||
            top->must_quit) {
            break;
        }
        wait_until(top, rsi_clock_now_ns() + LOOK_AGAIN_NS);
    }
    if (!rsi_look_is_same_broker(&top->look, &top->before)) {
        rsi_look_fini(&top->before);
    }
    uint64_t before_ns = top->before.values[RSI_BROKER_REFRESHED_NS];
    uint64_t now_ns = top->look.values[RSI_BROKER_REFRESHED_NS];
    top->interval_ns = before_ns > 0 && now_ns > before_ns ? now_ns - before_ns : 0;
    return RSI_OK;
}

static int show(struct top *top)
{
    top->has_restarted =
        top->shown_start_ns != 0 && top->shown_start_ns != top->look.start_realtime_ns;
    top->shown_start_ns = top->look.start_realtime_ns;
    if (!make_rows(top)) {
        return rsi_cli_fail("no memory for %zu sessions", top->look.session_count);
    }
    if (!top->options.is_json) {
        print_screen(top);
    } else if (!print_json(top)) {
        return rsi_cli_fail("no memory for JSON");
    }
    if (fflush(stdout) != 0) {
        return rsi_cli_fail("cannot write to standard output: %s", strerror(errno));
    }
    return RSI_EXIT_OK;
}

static int run(struct top *top)
{
    struct rsi_error error = {0};
    bool is_absent = false;
    if (rsi_failed(rsi_look_take(&top->look, top->options.look.path, &error))) {
        return rsi_cli_fail("%s", error.text);
    }
    take_terminal(top);
    while (!rsi_stop_requested() && !top->must_quit) {
        wait_until(top, rsi_clock_now_ns() + top->options.interval_ns);
        if (rsi_stop_requested() || top->must_quit) {
            break;
        }
        if (top->is_paused) {
            continue;
        }
        if (rsi_failed(look_again(top, &error))) {
            if (top->options.is_once) {
                return rsi_cli_fail("%s", error.text);
            }
            if (!is_absent || top->is_interactive) {
                show_absence(top, error.text);
            }
            is_absent = true;
            continue;
        }
        is_absent = false;
        if (top->interval_ns == 0 && !top->is_stale) {
            continue; /* the first look at this broker */
        }
        int code = show(top);
        if (code != RSI_EXIT_OK || top->options.is_once) {
            return code;
        }
    }
    return RSI_EXIT_OK;
}

int rsi_command_top(int argc, char **argv)
{
    struct top top = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &top.options);
    rsi_stop_on_signals();
    int code = run(&top);
    give_terminal_back(&top);
    free(top.rows);
    rsi_look_fini(&top.look);
    rsi_look_fini(&top.before);
    return code;
}
