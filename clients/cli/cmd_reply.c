/*
 * ringside reply: answers requests with a text, with what was asked, or with what a command prints.
 *
 * Design notes
 * - The command gets the request as its standard input and answers by its standard output. Both are
 *   files without a name (memfd), so neither side waits for the other to read.
 * - One request at a time. Who wants more at a time starts more of these, with one --group.
 */
#include "clients/cli/cli.h"
#include "clients/cli/connection.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEY_GROUP = 'g', KEY_TEXT = 't', KEY_COUNT = 'n', KEY_READY_FD = 0x4000 };

struct reply_options {
    struct rsi_connection_options connection;
    const char *subject;
    const char *group;
    const char *text; /* NULL: the request itself */
    char **command;   /* in argv, ends with NULL; NULL: none */
    uint64_t count;   /* 0: no end */
    int ready_fd;
};

static const struct argp_option flags[] = {
    {"group", KEY_GROUP, "NAME", 0,
     "Join this queue group: each request goes to one of its members", 0},
    {"text", KEY_TEXT, "TEXT", 0, "Answer this. Default: what was asked", 0},
    {"count", KEY_COUNT, "N", 0, "End after so many requests", 0},
    {"ready-fd", KEY_READY_FD, "FD", 0, "Write a line there when subscribed", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct reply_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options->ready_fd = -1;
        state->child_inputs[0] = &options->connection;
        return 0;
    case KEY_GROUP:
        options->group = arg;
        return 0;
    case KEY_TEXT:
        options->text = arg;
        return 0;
    case KEY_COUNT:
        options->count = rsi_flag_number(state, "--count", arg, 1, UINT64_MAX);
        return 0;
    case KEY_READY_FD:
        options->ready_fd = (int)rsi_flag_number(state, "--ready-fd", arg, 0, 1 << 20);
        return 0;
    case ARGP_KEY_ARG:
        if (options->subject != NULL) {
            return ARGP_ERR_UNKNOWN; /* the rest comes at once, as ARGP_KEY_ARGS */
        }
        rsi_flag_subject(state, "SUBJECT", arg, true);
        options->subject = arg;
        return 0;
    case ARGP_KEY_ARGS:
        options->command = state->argv + state->next;
        return 0;
    case ARGP_KEY_END:
        if (options->subject == NULL) {
            argp_error(state, "a subject is needed, such as: ringside reply svc.time -- date");
        }
        if (options->text != NULL && options->command != NULL) {
            argp_error(state, "--text and a command exclude each other");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = flags,
    .parser = parse,
    .args_doc = "SUBJECT [-- COMMAND [ARG...]]",
    .children = rsi_connection_children,
    .doc =
        "Answers requests to SUBJECT (which may hold * and >): with what was asked, with --text, "
        "or with what COMMAND prints, which gets the request as its standard input. A command "
        "that fails answers nothing, and its requester times out. On SIGINT or SIGTERM it takes "
        "no new requests, answers those that it was given, and ends.\v"
        "Examples:\n"
        "  ringside reply svc.echo\n"
        "  ringside reply svc.motd --text 'all is well'\n"
        "  ringside reply svc.upper --group workers -- tr a-z A-Z",
};

struct replying {
    const struct reply_options *options;
    ringside_client_t *client;
    uint64_t request_count;
    bool is_drained;
};

/* ---- a command ----------------------------------------------------------------------------------
 */

/* An errno, or 0 and its exit status. */
static int run_command(char *const *command, int input_fd, int output_fd, int *wait_status)
{
    posix_spawn_file_actions_t actions;
    int result = posix_spawn_file_actions_init(&actions);
    if (result != 0) {
        return result;
    }
    pid_t pid = 0;
    result = posix_spawn_file_actions_adddup2(&actions, input_fd, STDIN_FILENO);
    if (result == 0) {
        result = posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO);
    }
    if (result == 0) {
        result = posix_spawnp(&pid, command[0], &actions, NULL, command, environ);
    }
    posix_spawn_file_actions_destroy(&actions);
    while (result == 0 && waitpid(pid, wait_status, 0) < 0) {
        result = errno == EINTR ? 0 : errno;
    }
    return result;
}

/* What the command prints, to be freed; NULL: it failed, which was said. */
static char *ask_command(char *const *command, const ringside_message_t *message, size_t *bytes)
{
    int input_fd = memfd_create("request", MFD_CLOEXEC);
    int output_fd = memfd_create("reply", MFD_CLOEXEC);
    char *output = NULL;
    int wait_status = 0;
    int result = input_fd < 0 || output_fd < 0 ? errno : 0;
    if (result == 0 && (write(input_fd, message->data, message->bytes) != (ssize_t)message->bytes ||
                        lseek(input_fd, 0, SEEK_SET) != 0)) {
        result = errno;
    }
    if (result == 0) {
        result = run_command(command, input_fd, output_fd, &wait_status);
    }
    off_t end = result == 0 ? lseek(output_fd, 0, SEEK_END) : -1;
    if (result != 0) {
        rsi_cli_note("%s: %s", command[0], strerror(result));
    } else if (wait_status != 0) {
        rsi_cli_note("%s failed (%s %d): this request is not answered", command[0],
                     WIFSIGNALED(wait_status) ? "signal" : "exit code",
                     WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : WEXITSTATUS(wait_status));
    } else if (end >= 0 && (output = malloc((size_t)end + 1)) != NULL &&
               pread(output_fd, output, (size_t)end, 0) != end) {
        free(output);
        output = NULL;
    }
    *bytes = end >= 0 ? (size_t)end : 0;
    close(input_fd);
    close(output_fd);
    return output;
}

/* ---- requests -----------------------------------------------------------------------------------
 */

/* One answer at a time, so that the ring is never full of them for long. */
static void answer(struct replying *replying, const ringside_message_t *message, const void *data,
                   size_t bytes)
{
    ringside_status_t status = ringside_reply(message, data, bytes);
    if (status == RINGSIDE_OK) {
        return;
    }
    rsi_cli_note("a request on %s is not answered: %s", message->subject,
                 status == RINGSIDE_WOULD_BLOCK ? "the publish ring is full"
                                                : ringside_error_text(replying->client));
}

static void on_message(void *arg, const ringside_message_t *message)
{
    struct replying *replying = arg;
    const struct reply_options *options = replying->options;
    if (!message->is_request) {
        return; /* a message to the same subject */
    }
    replying->request_count++;
    if (options->command != NULL) {
        size_t bytes = 0;
        char *output = ask_command(options->command, message, &bytes);
        if (output != NULL) {
            answer(replying, message, output, bytes);
        }
        free(output);
    } else if (options->text != NULL) {
        answer(replying, message, options->text, strlen(options->text));
    } else {
        answer(replying, message, message->data, message->bytes);
    }
    if (replying->request_count == options->count) {
        rsi_stop_request();
    }
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct replying *replying = arg;
    replying->is_drained |= event->type == RINGSIDE_EVENT_DRAINED;
    rsi_connection_tell_event(NULL, event);
}

static int serve(struct replying *replying)
{
    const struct reply_options *options = replying->options;
    const ringside_subscribe_options_t subscribe_options = {
        .struct_bytes = sizeof(subscribe_options),
        .timeout_ns = options->connection.timeout_ns,
        .group = options->group,
    };
    ringside_subscription_t *subscription = NULL;
    ringside_status_t status = ringside_subscribe(&subscription, replying->client, options->subject,
                                                  &subscribe_options, on_message, replying);
    if (status != RINGSIDE_OK) {
        return rsi_cli_fail("subscribing to %s: %s (%s)", options->subject,
                            ringside_error_text(replying->client), ringside_status_name(status));
    }
    rsi_tell_ready(options->ready_fd, false);
    bool is_draining = false;
    while (!replying->is_drained) {
        if (rsi_stop_requested() && !is_draining) {
            is_draining = ringside_drain(subscription) == RINGSIDE_OK;
        }
        /* One at a time: the command may take long, and a stop is looked at after each. */
        if (ringside_poll(replying->client, 1, RSI_NS_PER_SECOND, NULL) < 0) {
            return rsi_cli_fail("%s", ringside_error_text(replying->client));
        }
    }
    return RSI_EXIT_OK;
}

int rsi_command_reply(int argc, char **argv)
{
    struct reply_options options = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    rsi_stop_on_signals();
    struct replying replying = {.options = &options};
    replying.client =
        rsi_connection_open(&options.connection, RSI_CONNECTION_BOTH, on_event, &replying);
    if (replying.client == NULL) {
        return RSI_EXIT_FAILURE;
    }
    int code = serve(&replying);
    int close_code = rsi_connection_close(&options.connection, replying.client);
    return code != RSI_EXIT_OK ? code : close_code;
}
