/*
 * Design notes
 * - A secret never stands on the command line, where every user of the machine could read it: it
 *   comes from a file that only its owner may read, or from the environment.
 * - One set of flags for all commands, as an argp child, so that they read alike everywhere.
 */
#include "clients/cli/connection.h"

#include "clients/cli/cli.h"
#include "core/cpu.h"
#include "core/text.h"
#include "proto/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define URL_DEFAULT "auto://127.0.0.1:7400"

enum {
    KEY_NAME = 0x2000,
    KEY_BIND,
    KEY_DEVICE,
    KEY_TOKEN_NAME,
    KEY_TOKEN_FILE,
    KEY_WAIT,
    KEY_CPU,
    KEY_PUBLISH_RING,
    KEY_DELIVER_RING,
    KEY_TIMEOUT,
    KEY_RESUME_TIMEOUT,
};

static const struct argp_option connection_flags[] = {
    {"url", 'u', "URL", 0,
     "Broker: auto://HOST:PORT, tcp://HOST:PORT, rdma://HOST:PORT or shm:///PATH/OF/SOCKET. "
     "Default: "
     "$RINGSIDE_URL, else " URL_DEFAULT,
     0},
    {"name", KEY_NAME, "NAME", 0,
     "Client name that others see, at most 63 bytes. Default: program and pid", 0},
    {"bind", KEY_BIND, "HOST", 0,
     "Source address, such as 10.0.0.2; for rdma where two devices lead "
     "to one net",
     0},
    {"device", KEY_DEVICE, "NAME", 0, "RDMA device to insist on, such as mlx5_0", 0},
    {"token-name", KEY_TOKEN_NAME, "NAME", 0, "Name of the token. Default: $RINGSIDE_TOKEN_NAME",
     0},
    {"token-file", KEY_TOKEN_FILE, "FILE", 0,
     "File with the token's secret, readable by its owner alone. Default: the secret in "
     "$RINGSIDE_TOKEN",
     0},
    {"wait", KEY_WAIT, "HOW", 0,
     "adaptive: poll for a moment, then sleep (default); busy: never sleep, a whole core; "
     "blocking: "
     "sleep at once",
     0},
    {"cpu", KEY_CPU, "N", 0, "Run on CPU N alone, such as 1. Default: not pinned", 0},
    {"publish-ring", KEY_PUBLISH_RING, "SIZE", 0,
     "Ring for what is published: a power of two from 64KiB to 1GiB. Default: 2MiB", 0},
    {"deliver-ring", KEY_DELIVER_RING, "SIZE", 0,
     "Ring for what is received: a power of two from 64KiB to 1GiB. Default: 2MiB", 0},
    {"timeout", KEY_TIMEOUT, "TIME", 0,
     "Longest wait for connecting, subscribing and flushing, such as 500ms or 10s. Default: 5s", 0},
    {"resume-timeout", KEY_RESUME_TIMEOUT, "TIME", 0,
     "How long to look for the broker again when the link to it is lost, such as 10s or 5m; 0: "
     "not at all. Default: 30s",
     0},
    {0},
};

static uint64_t read_ring_flag(struct argp_state *state, const char *flag, const char *text)
{
    uint64_t bytes = rsi_flag_size(state, flag, text, RSI_RING_BYTES_MIN, RSI_RING_BYTES_MAX);
    if ((bytes & (bytes - 1)) != 0) {
        argp_error(state, "%s: '%s' is not a power of two, such as 64KiB, 2MiB or 64MiB", flag,
                   text);
    }
    return bytes;
}

static ringside_wait_t read_wait_flag(struct argp_state *state, const char *text)
{
    static const struct {
        const char *name;
        ringside_wait_t wait;
    } waits[] = {{"adaptive", RINGSIDE_WAIT_ADAPTIVE},
                 {"busy", RINGSIDE_WAIT_BUSY},
                 {"blocking", RINGSIDE_WAIT_BLOCKING}};
    for (size_t i = 0; i < rsi_array_count(waits); i++) {
        if (strcmp(waits[i].name, text) == 0) {
            return waits[i].wait;
        }
    }
    argp_error(state, "--wait: '%s' is not known; use adaptive, busy or blocking", text);
    return RINGSIDE_WAIT_ADAPTIVE;
}

static void read_token_file(struct argp_state *state, struct rsi_connection_options *options)
{
    int fd = open(options->token_file, O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (fd < 0 || fstat(fd, &about) != 0) {
        argp_failure(state, RSI_EXIT_FAILURE, errno, "--token-file: cannot read %s",
                     options->token_file);
    }
    if (S_ISDIR(about.st_mode)) {
        argp_failure(state, RSI_EXIT_FAILURE, 0, "--token-file: %s is a directory",
                     options->token_file);
    }
    if ((about.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        argp_failure(state, RSI_EXIT_FAILURE, 0,
                     "--token-file: others may read %s; make it private: chmod 600 %s",
                     options->token_file, options->token_file);
    }
    char text[sizeof(options->token) + 2] = ""; /* a longer secret shows as one */
    ssize_t bytes = read(fd, text, sizeof(text) - 1);
    if (bytes < 0) {
        argp_failure(state, RSI_EXIT_FAILURE, errno, "--token-file: cannot read %s",
                     options->token_file);
    }
    close(fd);
    text[strcspn(text, "\r\n")] = '\0';
    if (!rsi_text_copy(options->token, sizeof(options->token), text)) {
        argp_failure(state, RSI_EXIT_FAILURE, 0,
                     "--token-file: the secret in %s is longer than %zu bytes", options->token_file,
                     sizeof(options->token) - 1);
    }
    if (options->token[0] == '\0') {
        argp_failure(state, RSI_EXIT_FAILURE, 0, "--token-file: %s is empty", options->token_file);
    }
}

static void finish_options(struct argp_state *state, struct rsi_connection_options *options)
{
    if (options->token_name == NULL) {
        options->token_name = getenv("RINGSIDE_TOKEN_NAME");
    }
    if (options->token_file != NULL) {
        if (options->token_name == NULL) {
            argp_error(state, "--token-file needs --token-name NAME (or $RINGSIDE_TOKEN_NAME)");
        }
        read_token_file(state, options);
    } else if (options->token_name != NULL) {
        const char *secret = getenv("RINGSIDE_TOKEN");
        if (secret == NULL) {
            argp_error(state, "--token-name needs --token-file FILE, or the secret in "
                              "$RINGSIDE_TOKEN");
        } else if (!rsi_text_copy(options->token, sizeof(options->token), secret)) {
            argp_error(state, "$RINGSIDE_TOKEN is longer than 255 bytes");
        }
    }
}

static void options_init(struct rsi_connection_options *options)
{
    memset(options, 0, sizeof(*options));
    const char *url = getenv("RINGSIDE_URL");
    options->url = rsi_text_is_empty(url) ? URL_DEFAULT : url;
    options->cpu = -1;
    options->timeout_ns = 5 * RSI_NS_PER_SECOND;
    options->dpdk.struct_bytes = sizeof(options->dpdk);
}

static error_t parse_connection(int key, char *arg, struct argp_state *state)
{
    struct rsi_connection_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options_init(options);
        state->child_inputs[0] = &options->dpdk;
        return 0;
    case 'u':
        options->url = arg;
        return 0;
    case KEY_NAME:
        options->client_name = arg;
        return 0;
    case KEY_BIND:
        options->bind_host = arg;
        return 0;
    case KEY_DEVICE:
        options->device = arg;
        return 0;
    case KEY_TOKEN_NAME:
        options->token_name = arg;
        return 0;
    case KEY_TOKEN_FILE:
        options->token_file = arg;
        return 0;
    case KEY_WAIT:
        options->wait = read_wait_flag(state, arg);
        return 0;
    case KEY_CPU:
        options->cpu = (int)rsi_flag_number(state, "--cpu", arg, 0, RSI_CPU_COUNT_MAX - 1);
        return 0;
    case KEY_PUBLISH_RING:
        options->publish_ring_bytes = read_ring_flag(state, "--publish-ring", arg);
        return 0;
    case KEY_DELIVER_RING:
        options->deliver_ring_bytes = read_ring_flag(state, "--deliver-ring", arg);
        return 0;
    case KEY_TIMEOUT:
        options->timeout_ns = rsi_flag_duration(state, "--timeout", arg);
        if (options->timeout_ns == 0) {
            argp_error(state, "--timeout: 0 would never succeed; use a time such as 5s");
        }
        return 0;
    case KEY_RESUME_TIMEOUT:
        options->resume_timeout_ns = rsi_flag_duration(state, "--resume-timeout", arg);
        if (options->resume_timeout_ns == 0) {
            options->resume_timeout_ns = UINT64_MAX;
        }
        return 0;
    case ARGP_KEY_END:
        finish_options(state, options);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child dpdk_children[] = {
    {&rsi_dpdk_argp, 0, "Device for dpdk://, each by default $RINGSIDE_DPDK_PORT and so on:", 11},
    {0},
};

const struct argp rsi_connection_argp = {
    .options = connection_flags,
    .parser = parse_connection,
    .children = dpdk_children,
};

const struct argp_child rsi_connection_children[] = {
    {&rsi_connection_argp, 0, "Connection:", 10},
    {0},
};

void rsi_connection_tell_event(void *arg, const ringside_event_t *event)
{
    (void)arg;
    switch (event->type) {
    case RINGSIDE_EVENT_GAP:
        if (event->count == UINT64_MAX) {
            rsi_cli_note("gap: an unknown number of messages of %s from %s were left out",
                         event->subject, event->publisher);
        } else {
            rsi_cli_note("gap: %" PRIu64 " messages of %s from %s were left out", event->count,
                         event->subject, event->publisher);
        }
        return;
    case RINGSIDE_EVENT_SLOW:
        rsi_cli_note("the broker calls this client slow: %s", event->text);
        return;
    case RINGSIDE_EVENT_LOST:
    case RINGSIDE_EVENT_CLOSED:
        rsi_cli_note("the connection is over: %s", event->text);
        return;
    case RINGSIDE_EVENT_SUSPENDED:
        rsi_cli_note("no link to the broker, looking for another: %s", event->text);
        return;
    case RINGSIDE_EVENT_RESUMED:
        rsi_cli_note("the session goes on: %s", event->text);
        return;
    case RINGSIDE_EVENT_RENEWED:
        rsi_cli_note("the broker was restarted, and the session with it: %s", event->text);
        return;
    case RINGSIDE_EVENT_SUBSCRIBED:
    case RINGSIDE_EVENT_OPENED:
    case RINGSIDE_EVENT_CONNECTED:
    case RINGSIDE_EVENT_DRAINED:
    case RINGSIDE_EVENT_CURRENT:
    case RINGSIDE_EVENT_CONFLATED:
        return;
    }
}

ringside_client_t *rsi_connection_open(const struct rsi_connection_options *options,
                                       enum rsi_connection_use use, ringside_on_event_t on_event,
                                       void *arg)
{
    struct rsi_error error = {0};
    if (options->cpu >= 0 && rsi_cpu_pin_thread((unsigned)options->cpu, &error) != RSI_OK) {
        rsi_cli_fail("--cpu: %s", error.text);
        return NULL;
    }
    bool publishes = (use & RSI_CONNECTION_PUBLISHES) != 0;
    bool subscribes = (use & RSI_CONNECTION_SUBSCRIBES) != 0;
    ringside_options_t client_options = {
        .struct_bytes = sizeof(client_options),
        .client_name = options->client_name,
        .bind_host = options->bind_host,
        .device = options->device,
        .dpdk = &options->dpdk,
        .token_name = options->token_name,
        .token = options->token_name != NULL ? options->token : NULL,
        .connect_timeout_ns = options->timeout_ns,
        .resume_timeout_ns = options->resume_timeout_ns,
        .publish_ring_bytes = publishes ? options->publish_ring_bytes : UINT64_MAX,
        .deliver_ring_bytes = subscribes ? options->deliver_ring_bytes : UINT64_MAX,
        .wait = options->wait,
        .on_event = on_event != NULL ? on_event : rsi_connection_tell_event,
        .event_arg = arg,
    };
    ringside_client_t *client = NULL;
    ringside_status_t status = ringside_connect(&client, options->url, &client_options);
    if (status != RINGSIDE_OK) {
        /* The text names the URL. */
        rsi_cli_fail("%s (%s)", ringside_last_error(), ringside_status_name(status));
        return NULL;
    }
    return client;
}

int rsi_connection_close(const struct rsi_connection_options *options, ringside_client_t *client)
{
    ringside_status_t status = ringside_close(client, options->timeout_ns);
    if (status == RINGSIDE_OK) {
        return RSI_EXIT_OK;
    }
    return rsi_cli_fail("%s: closing: %s (%s)", options->url, ringside_last_error(),
                        ringside_status_name(status));
}

ringside_subscription_t *rsi_connection_subscribe(const struct rsi_connection_options *options,
                                                  ringside_client_t *client, const char *pattern,
                                                  ringside_policy_t policy,
                                                  ringside_on_message_t on_message, void *arg)
{
    const ringside_subscribe_options_t subscribe_options = {.policy = policy};
    return rsi_connection_subscribe_with(options, client, pattern, &subscribe_options, on_message,
                                         arg);
}

ringside_subscription_t *
rsi_connection_subscribe_with(const struct rsi_connection_options *options,
                              ringside_client_t *client, const char *pattern,
                              const ringside_subscribe_options_t *subscribe_options,
                              ringside_on_message_t on_message, void *arg)
{
    ringside_subscribe_options_t used = *subscribe_options;
    used.struct_bytes = sizeof(used);
    used.timeout_ns = options->timeout_ns;
    ringside_subscription_t *subscription = NULL;
    ringside_status_t status =
        ringside_subscribe(&subscription, client, pattern, &used, on_message, arg);
    if (status == RINGSIDE_OK) {
        return subscription;
    }
    rsi_cli_fail("subscribing to %s: %s (%s)", pattern, ringside_error_text(client),
                 ringside_status_name(status));
    return NULL;
}

/* What is published again and again while there is no room. */
struct attempt {
    const ringside_header_t *headers;
    size_t header_count;
    const void *data;
    size_t bytes;
};

static bool publish_slowly(ringside_client_t *client, ringside_publisher_t *publisher,
                           const struct attempt *attempt, ringside_status_t status) RSI_COLD;

static bool publish_slowly(ringside_client_t *client, ringside_publisher_t *publisher,
                           const struct attempt *attempt, ringside_status_t status)
{
    while (status == RINGSIDE_WOULD_BLOCK && !rsi_stop_requested()) {
        status = ringside_poll(client, 0, RSI_NS_PER_SECOND / 10, NULL);
        if (status == RINGSIDE_OK) {
            status = ringside_publish_with(publisher, attempt->headers, attempt->header_count,
                                           attempt->data, attempt->bytes);
        }
    }
    if (status < 0) {
        rsi_cli_fail("publishing %zu bytes to %s: %s (%s)", attempt->bytes,
                     ringside_publisher_subject(publisher), ringside_error_text(client),
                     ringside_status_name(status));
    }
    return status == RINGSIDE_OK;
}

ringside_publisher_t *rsi_connection_make_publisher(ringside_client_t *client, const char *subject,
                                                    uint64_t timeout_ns)
{
    ringside_publisher_t *publisher = NULL;
    ringside_status_t status = ringside_publisher_create(&publisher, client, subject, timeout_ns);
    if (status != RINGSIDE_OK) {
        rsi_cli_fail("publisher on %s: %s (%s)", subject, ringside_error_text(client),
                     ringside_status_name(status));
        return NULL;
    }
    return publisher;
}

bool rsi_connection_publish(ringside_client_t *client, ringside_publisher_t *publisher,
                            const void *data, size_t bytes)
{
    ringside_status_t status = ringside_publish(publisher, data, bytes);
    if (rsi_likely(status == RINGSIDE_OK)) {
        return true;
    }
    const struct attempt attempt = {.data = data, .bytes = bytes};
    return publish_slowly(client, publisher, &attempt, status);
}

bool rsi_connection_publish_with(ringside_client_t *client, ringside_publisher_t *publisher,
                                 const ringside_header_t *headers, size_t header_count,
                                 const void *data, size_t bytes)
{
    ringside_status_t status = ringside_publish_with(publisher, headers, header_count, data, bytes);
    if (rsi_likely(status == RINGSIDE_OK)) {
        return true;
    }
    const struct attempt attempt = {headers, header_count, data, bytes};
    return publish_slowly(client, publisher, &attempt, status);
}

void rsi_tell_ready(int fd, bool on_stdout)
{
    static const char ready[] = "ready\n";
    if (fd >= 0) {
        if (write(fd, ready, sizeof(ready) - 1) < 0) {
            rsi_cli_note("--ready-fd %d: %s", fd, strerror(errno));
        }
        close(fd);
    }
    if (on_stdout) {
        fputs(ready, stdout);
        fflush(stdout);
    }
}

void rsi_print_link_stats(FILE *stream, const ringside_client_t *client, uint64_t message_count)
{
    ringside_link_stats_t stats = {.struct_bytes = sizeof(stats)};
    if (ringside_stats(client, &stats) != RINGSIDE_OK) {
        return;
    }
    double per_message = message_count == 0 ? 0 : 1.0 / (double)message_count;
    fprintf(stream, "link %s: ", ringside_transport(client));
    if (stats.placed_bytes > 0) {
        fprintf(stream, "%" PRIu64 " batches out (%.4g per message), %" PRIu64 " sends (%.4g); ",
                stats.batches_sent, (double)stats.batches_sent * per_message, stats.sends,
                (double)stats.sends * per_message);
    }
    if (stats.arrived_bytes > 0) {
        fprintf(stream, "%" PRIu64 " batches in (%.4g per message), %" PRIu64 " receives (%.4g); ",
                stats.batches_arrived, (double)stats.batches_arrived * per_message, stats.receives,
                (double)stats.receives * per_message);
    }
    fprintf(stream, "%" PRIu64 " sleeps, %" PRIu64 " credit stalls\n", stats.sleeps,
            stats.credit_stalls);
}
