/*
 * ringside pub: publishes messages given as arguments, as lines, or generated.
 *
 * Design notes
 * - One source of messages (next_message) whatever they come from; the loop paces and publishes.
 * - Standard input may be a terminal or a slow pipe. While it waits for a line the client is not
 * polled, so everything is flushed first when no further line is at hand.
 */
#include "clients/cli/cli.h"
#include "clients/cli/connection.h"
#include "core/clock.h"
#include "proto/headers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    KEY_RATE = 0x4000,
    KEY_SIZE,
    KEY_HEADER,
    KEY_LINES,
    KEY_FILE,
    KEY_SEPARATOR,
    HEADER_COUNT_MAX = 64
};

#define AWAKE_NS         UINT64_C(100000)
#define MESSAGE_SIZE_MAX (UINT64_C(128) << 20)

struct pub_options {
    struct rsi_connection_options connection;
    const char *subject;
    char **messages;
    size_t message_count;
    const char *input; /* lines of this file; NULL: none */
    uint64_t repeat_count;
    bool has_repeat_count;
    double rate_per_second; /* 0: as fast as it goes */
    uint64_t size_bytes;
    bool is_generated;
    char **files; /* has room for as many as there are arguments */
    size_t file_count;
    rsi_framing_t separator;
    bool has_separator;
    ringside_header_t headers[HEADER_COUNT_MAX]; /* of every message */
    size_t header_count;
};

/* A whole file, read before the first message goes out. */
struct pub_file {
    char *data;
    size_t bytes;
};

struct pub {
    const struct pub_options *options;
    ringside_client_t *client;
    ringside_publisher_t *publisher;
    FILE *lines;
    char *line;
    size_t line_room_bytes;
    bool is_input_wrong; /* and that was told */
    uint8_t *generated;
    struct pub_file *files;
    struct rsi_progress progress;
    uint64_t start_ns;
    uint64_t published_count;
    uint64_t published_bytes;
};

static const struct argp_option flags[] = {
    {"input", 'i', "FILE", 0,
     "Publish each line of FILE; - is standard input. Default without "
     "MESSAGE: -",
     0},
    {"lines", KEY_LINES, NULL, OPTION_ALIAS, NULL, 0},
    {"separator", KEY_SEPARATOR, "HOW", 0,
     "What stands between the messages of --input: newline (default), nul, or length: before each "
     "its length in 4 bytes, most significant first",
     0},
    {"file", KEY_FILE, "FILE", 0,
     "Publish the whole of FILE as one message; may be given several times", 0},
    {"count", 'n', "N", 0,
     "Publish the messages, the files, or the generated one, N times. Default: 1", 0},
    {"rate", KEY_RATE, "N/s", 0, "Messages per second, such as 10, 5k or 1M. Default: no limit", 0},
    {"size", KEY_SIZE, "SIZE", 0, "Publish generated messages of this size, such as 64 or 4KiB", 0},
    {"header", KEY_HEADER, "NAME:VALUE", 0,
     "Publish each message with this header; may be given several times", 0},
    {0},
};

/* "NAME:VALUE", taken as it stands in argv. */
static void read_header(struct argp_state *state, struct pub_options *options, char *text)
{
    char *colon = strchr(text, ':');
    size_t at = 0;
    if (colon == NULL) {
        argp_error(state, "--header: '%s' has no ':'; use NAME:VALUE, such as trace-id:4711", text);
        return;
    }
    const char *wrong = rsi_header_name_check(text, (size_t)(colon - text), &at);
    if (wrong != NULL) {
        argp_error(state,
                   "--header: the name in '%s' %s (at byte %zu); use NAME:VALUE, such as "
                   "trace-id:4711",
                   text, wrong, at);
        return;
    }
    if (options->header_count == HEADER_COUNT_MAX) {
        argp_error(state, "more than %d times --header", HEADER_COUNT_MAX);
        return;
    }
    *colon = '\0';
    options->headers[options->header_count++] =
        (ringside_header_t){.name = text, .value = colon + 1, .value_bytes = strlen(colon + 1)};
}

static void finish_options(struct argp_state *state, struct pub_options *options)
{
    if (options->subject == NULL) {
        argp_error(state, "SUBJECT is missing, such as md.XNAS.AAPL");
    }
    int source_count = (options->message_count > 0) + (options->input != NULL) +
                       options->is_generated + (options->file_count > 0);
    if (source_count > 1) {
        argp_error(state, "MESSAGE, --input, --file and --size exclude each other");
    }
    if (source_count == 0) {
        options->input = "-";
    }
    if (options->input != NULL && options->has_repeat_count) {
        argp_error(state, "--count repeats MESSAGE, --file or --size; lines of --input are "
                          "published once");
    }
    if (options->input == NULL && options->has_separator) {
        argp_error(state, "--separator is for --input");
    }
}

static void add_file(struct argp_state *state, struct pub_options *options, char *path)
{
    if (options->files == NULL) {
        options->files = calloc((size_t)state->argc, sizeof(*options->files));
    }
    if (options->files == NULL) {
        argp_failure(state, RSI_EXIT_FAILURE, 0, "--file: no memory for %d names", state->argc);
        return;
    }
    options->files[options->file_count++] = path;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct pub_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options->repeat_count = 1;
        state->child_inputs[0] = &options->connection;
        return 0;
    case 'i':
    case KEY_LINES:
        options->input = arg;
        return 0;
    case KEY_FILE:
        add_file(state, options, arg);
        return 0;
    case KEY_SEPARATOR:
        options->separator = rsi_flag_framing(state, arg, false);
        options->has_separator = true;
        return 0;
    case 'n':
        options->repeat_count = rsi_flag_number(state, "--count", arg, 1, UINT64_MAX);
        options->has_repeat_count = true;
        return 0;
    case KEY_RATE:
        options->rate_per_second = rsi_flag_rate(state, "--rate", arg);
        return 0;
    case KEY_SIZE:
        options->size_bytes = rsi_flag_size(state, "--size", arg, 0, MESSAGE_SIZE_MAX);
        options->is_generated = true;
        return 0;
    case KEY_HEADER:
        read_header(state, options, arg);
        return 0;
    case ARGP_KEY_ARG:
        if (options->subject == NULL) {
            rsi_flag_subject(state, "SUBJECT", arg, false);
            options->subject = arg;
            return 0;
        }
        /* The rest are messages: taken as they stand in argv. */
        options->messages = &state->argv[state->next - 1];
        options->message_count = (size_t)state->argc - (size_t)state->next + 1;
        state->next = state->argc;
        return 0;
    case ARGP_KEY_END:
        finish_options(state, options);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = flags,
    .parser = parse,
    .children = rsi_connection_children,
    .args_doc = "SUBJECT [MESSAGE...]",
    .doc = "Publishes on SUBJECT: each MESSAGE, the lines of standard input, or whole files. A "
           "subscriber under policy block that is slow slows this down; nothing is left out.\v"
           "Examples:\n"
           "  ringside pub md.XNAS.AAPL '{\"price\": 187.2}'\n"
           "  ringside pub orders.new --header trace-id:4711 'buy 100'\n"
           "  tail -f prices.txt | ringside pub md.prices\n"
           "  ringside pub images.new --file first.jpg --file second.jpg\n"
           "  ringside sub a.b --raw --separator nul | ringside pub c.d --separator nul\n"
           "  ringside pub load.test --size 64 --count 1000000 --rate 100k",
};

/* Before waiting for a line that is not there yet, what was published is sent. A failure shows at
 * the next publish. */
static void flush_before_waiting(struct pub *pub)
{
    struct pollfd waiting = {.fd = fileno(pub->lines), .events = POLLIN};
    if (poll(&waiting, 1, 0) != 0) {
        return;
    }
    ringside_status_t status = ringside_flush(pub->client, pub->options->connection.timeout_ns);
    if (status != RINGSIDE_OK) {
        rsi_cli_note("flushing: %s", ringside_error_text(pub->client));
    }
}

/* Room in pub->line for a message of that length; false: there is no memory. */
static bool make_room(struct pub *pub, size_t bytes)
{
    if (bytes + 1 <= pub->line_room_bytes) {
        return true;
    }
    char *room = realloc(pub->line, bytes + 1);
    if (room == NULL) {
        return false;
    }
    pub->line = room;
    pub->line_room_bytes = bytes + 1;
    return true;
}

/* A message behind its length. False at the end, and when what follows is no message: then the
 * fault was told. */
static bool read_by_length(struct pub *pub, size_t *bytes)
{
    uint32_t length = 0;
    size_t got = fread(&length, 1, sizeof(length), pub->lines);
    if (got == 0 || ferror(pub->lines) != 0) {
        return false;
    }
    *bytes = ntohl(length);
    if (got == sizeof(length) && *bytes > MESSAGE_SIZE_MAX) {
        rsi_cli_note("--separator length: message %" PRIu64 " of %s would have %zu bytes, more "
                     "than %" PRIu64 "; is it written with sub --raw --separator length?",
                     pub->published_count + 1, pub->options->input, *bytes, MESSAGE_SIZE_MAX);
        pub->is_input_wrong = true;
        return false;
    }
    if (got == sizeof(length) && !make_room(pub, *bytes)) {
        rsi_cli_note("no memory for a message of %zu bytes", *bytes);
        pub->is_input_wrong = true;
        return false;
    }
    if (got < sizeof(length) || fread(pub->line, 1, *bytes, pub->lines) < *bytes) {
        rsi_cli_note("--separator length: %s ends within message %" PRIu64, pub->options->input,
                     pub->published_count + 1);
        pub->is_input_wrong = !rsi_stop_requested();
        return false;
    }
    return true;
}

/* A message up to its separator. False at the end. */
static bool read_by_separator(struct pub *pub, size_t *bytes)
{
    int end = pub->options->separator == RSI_FRAMING_NUL ? '\0' : '\n';
    ssize_t line_bytes = getdelim(&pub->line, &pub->line_room_bytes, end, pub->lines);
    if (line_bytes < 0) {
        return false;
    }
    if (line_bytes > 0 && pub->line[line_bytes - 1] == end) {
        line_bytes--;
    }
    *bytes = (size_t)line_bytes;
    return true;
}

/* False at the end. */
static bool next_message(struct pub *pub, const void **data, size_t *bytes)
{
    const struct pub_options *options = pub->options;
    if (options->is_generated) {
        *data = pub->generated;
        *bytes = options->size_bytes;
        return pub->published_count < options->repeat_count;
    }
    if (options->message_count > 0) {
        const char *message = options->messages[pub->published_count % options->message_count];
        *data = message;
        *bytes = strlen(message);
        return pub->published_count / options->message_count < options->repeat_count;
    }
    if (options->file_count > 0) {
        const struct pub_file *file = &pub->files[pub->published_count % options->file_count];
        *data = file->data;
        *bytes = file->bytes;
        return pub->published_count / options->file_count < options->repeat_count;
    }
    flush_before_waiting(pub);
    bool is_there = options->separator == RSI_FRAMING_LENGTH ? read_by_length(pub, bytes)
                                                             : read_by_separator(pub, bytes);
    *data = pub->line;
    return is_there;
}

/* Waits until it is time for the next message. False: the connection is gone. */
static bool keep_pace(struct pub *pub)
{
    double offset_ns = (double)pub->published_count * 1e9 / pub->options->rate_per_second;
    uint64_t intended_ns = pub->start_ns + (uint64_t)offset_ns;
    for (;;) {
        uint64_t now_ns = rsi_clock_now_ns();
        if (now_ns >= intended_ns || rsi_stop_requested()) {
            return true;
        }
        uint64_t left_ns = intended_ns - now_ns;
        uint64_t sleep_ns = left_ns > AWAKE_NS ? left_ns - AWAKE_NS : 0;
        if (sleep_ns > RSI_NS_PER_SECOND) {
            sleep_ns = RSI_NS_PER_SECOND;
        }
        if (ringside_poll(pub->client, 0, sleep_ns, NULL) < 0) {
            rsi_cli_fail("%s", ringside_error_text(pub->client));
            return false;
        }
    }
}

static int publish_all(struct pub *pub)
{
    const void *data = NULL;
    size_t bytes = 0;
    pub->start_ns = rsi_clock_now_ns();
    rsi_progress_init(&pub->progress, pub->start_ns);
    while (!rsi_stop_requested() && next_message(pub, &data, &bytes)) {
        if (pub->options->rate_per_second > 0 && !keep_pace(pub)) {
            return RSI_EXIT_FAILURE;
        }
        if (rsi_stop_requested()) {
            break;
        }
        if (!rsi_connection_publish_with(pub->client, pub->publisher, pub->options->headers,
                                         pub->options->header_count, data, bytes)) {
            return rsi_stop_requested() ? RSI_EXIT_OK : RSI_EXIT_FAILURE;
        }
        pub->published_count++;
        pub->published_bytes += bytes;
        if ((pub->published_count & 255) == 0 &&
            rsi_progress_is_due(&pub->progress, rsi_clock_now_ns())) {
            rsi_progress_show(&pub->progress, "%s messages",
                              rsi_figure_count((double)pub->published_count).text);
        }
    }
    if (pub->lines != NULL && ferror(pub->lines) != 0 && !rsi_stop_requested()) {
        return rsi_cli_fail("cannot read %s: %s", pub->options->input, strerror(errno));
    }
    return pub->is_input_wrong ? RSI_EXIT_FAILURE : RSI_EXIT_OK;
}

static void print_totals(struct pub *pub)
{
    uint64_t elapsed_ns = rsi_clock_now_ns() - pub->start_ns;
    fprintf(stderr,
            "published %" PRIu64 " messages, %" PRIu64 " bytes, in %.3f s: %s msg/s, %s/s\n",
            pub->published_count, pub->published_bytes, (double)elapsed_ns / 1e9,
            rsi_figure_count(rsi_per_second(pub->published_count, elapsed_ns)).text,
            rsi_figure_bytes(rsi_per_second(pub->published_bytes, elapsed_ns)).text);
    rsi_print_link_stats(stderr, pub->client, pub->published_count);
}

static int publish_over_client(struct pub *pub)
{
    const struct pub_options *options = pub->options;
    pub->publisher = rsi_connection_make_publisher(pub->client, options->subject,
                                                   options->connection.timeout_ns);
    if (pub->publisher == NULL) {
        return RSI_EXIT_FAILURE;
    }
    int code = publish_all(pub);
    ringside_status_t status = ringside_flush(pub->client, options->connection.timeout_ns);
    rsi_progress_end(&pub->progress);
    if (status != RINGSIDE_OK && code == RSI_EXIT_OK) {
        code = rsi_cli_fail("the last messages did not arrive at the broker: %s (%s)",
                            ringside_error_text(pub->client), ringside_status_name(status));
    }
    print_totals(pub);
    return code;
}

static int read_file(struct pub_file *file, const char *path)
{
    struct stat about;
    FILE *stream = fopen(path, "re");
    if (stream == NULL || fstat(fileno(stream), &about) != 0) {
        int code = rsi_cli_fail("--file: cannot open %s: %s", path, strerror(errno));
        if (stream != NULL) {
            fclose(stream);
        }
        return code;
    }
    size_t room_bytes = S_ISREG(about.st_mode) ? (size_t)about.st_size : MESSAGE_SIZE_MAX;
    int code = RSI_EXIT_OK;
    if (S_ISDIR(about.st_mode)) {
        code = rsi_cli_fail("--file: %s is a directory", path);
    } else if (room_bytes > MESSAGE_SIZE_MAX) {
        code = rsi_cli_fail("--file: %s has %zu bytes, more than the largest message of any "
                            "broker, %" PRIu64,
                            path, room_bytes, MESSAGE_SIZE_MAX);
    } else if ((file->data = malloc(room_bytes + 1)) == NULL) {
        code = rsi_cli_fail("--file: no memory for the %zu bytes of %s", room_bytes, path);
    } else {
        file->bytes = fread(file->data, 1, room_bytes, stream);
        if (ferror(stream) != 0) {
            code = rsi_cli_fail("--file: cannot read %s: %s", path, strerror(errno));
        }
    }
    fclose(stream);
    return code;
}

static int read_files(struct pub *pub)
{
    const struct pub_options *options = pub->options;
    pub->files = calloc(options->file_count, sizeof(*pub->files));
    if (pub->files == NULL) {
        return rsi_cli_fail("--file: no memory for %zu files", options->file_count);
    }
    int code = RSI_EXIT_OK;
    for (size_t i = 0; i < options->file_count && code == RSI_EXIT_OK; i++) {
        code = read_file(&pub->files[i], options->files[i]);
    }
    return code;
}

static int open_source(struct pub *pub)
{
    const struct pub_options *options = pub->options;
    bool is_stdin = options->input != NULL && strcmp(options->input, "-") == 0;
    if (is_stdin && fcntl(STDIN_FILENO, F_GETFD) < 0) {
        return rsi_cli_fail("standard input is closed; give MESSAGE or --input FILE");
    }
    if (options->input != NULL) {
        pub->lines = is_stdin ? stdin : fopen(options->input, "re");
        if (pub->lines == NULL) {
            return rsi_cli_fail("--input: cannot open %s: %s", options->input, strerror(errno));
        }
    }
    if (options->file_count > 0) {
        return read_files(pub);
    }
    if (options->is_generated) {
        pub->generated = malloc(options->size_bytes + 1);
        if (pub->generated == NULL) {
            return rsi_cli_fail("--size: no memory for %" PRIu64 " bytes", options->size_bytes);
        }
        for (uint64_t i = 0; i < options->size_bytes; i++) {
            pub->generated[i] = (uint8_t)('a' + i % 26);
        }
    }
    return RSI_EXIT_OK;
}

int rsi_command_pub(int argc, char **argv)
{
    struct pub_options options = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    rsi_stop_on_signals();
    struct pub pub = {.options = &options};
    int code = open_source(&pub);
    if (code == RSI_EXIT_OK) {
        pub.client = rsi_connection_open(&options.connection, RSI_CONNECTION_PUBLISHES, NULL, NULL);
        code = pub.client == NULL ? RSI_EXIT_FAILURE : publish_over_client(&pub);
    }
    if (pub.client != NULL) {
        int close_code = rsi_connection_close(&options.connection, pub.client);
        code = code != RSI_EXIT_OK ? code : close_code;
    }
    if (pub.lines != NULL && pub.lines != stdin) {
        fclose(pub.lines);
    }
    for (size_t i = 0; pub.files != NULL && i < options.file_count; i++) {
        free(pub.files[i].data);
    }
    free(pub.files);
    free(options.files);
    free(pub.line);
    free(pub.generated);
    return code;
}
