/*
 * ringsided: parses, starts, waits for a signal. All else is in the library that tests run too.
 */
#include "broker/broker.h"
#include "broker/command_line.h"
#include "core/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Set before the handlers are installed, never changed while they are. */
static struct rsi_broker *signalled_broker;

static void on_signal(int number)
{
    (void)number;
    rsi_broker_stop(signalled_broker);
}

static void catch_signals(struct rsi_broker *broker)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    signalled_broker = broker;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

static void ignore_signals(void)
{
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
}

static void announce(const char *urls, int ready_fd)
{
    for (const char *at = urls; *at != '\0'; at += strcspn(at, "\n") + 1) {
        printf("ringsided: listening on %.*s\n", (int)strcspn(at, "\n"), at);
    }
    fflush(stdout);
    if (ready_fd < 0) {
        return;
    }
    size_t bytes = strlen(urls);
    if (write(ready_fd, urls, bytes) != (ssize_t)bytes) {
        rsi_log_warning("broker", "cannot write to descriptor %d of --ready-fd: %s", ready_fd,
                        strerror(errno));
    }
    close(ready_fd);
}

static int serve(const struct rsi_settings *settings, int ready_fd)
{
    struct rsi_broker *broker = NULL;
    struct rsi_error error = {0};
    rsi_status_t status = rsi_broker_create(&broker, settings, &error);
    if (rsi_failed(status)) {
        fprintf(stderr, "ringsided: %s\n", error.text);
        return RSI_EXIT_START;
    }
    catch_signals(broker);
    announce(rsi_broker_urls(broker), ready_fd);
    status = rsi_broker_run(broker, &error);
    ignore_signals();
    rsi_broker_destroy(broker);
    if (status == RSI_OK) {
        printf("ringsided: stopped\n");
        return RSI_EXIT_OK;
    }
    fprintf(stderr, "ringsided: %s\n", error.text);
    if (status == RSI_E_CPU) {
        return RSI_EXIT_START;
    }
    return status == RSI_E_TIMED_OUT ? RSI_EXIT_UNDELIVERED : RSI_EXIT_FAULT;
}

int main(int argc, char **argv)
{
    static struct rsi_settings settings;
    struct rsi_command_line line;
    struct rsi_error error = {0};
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of the call */
    program_invocation_name = program_invocation_short_name; /* in argp's texts */
    rsi_settings_init(&settings);
    if (rsi_failed(rsi_command_line_parse(&line, &settings, argc, argv, &error))) {
        fprintf(stderr, "ringsided: %s\n", error.text);
        rsi_settings_fini(&settings);
        return RSI_EXIT_USAGE;
    }
    rsi_log_set_level(settings.log_level);
    int code = RSI_EXIT_OK;
    if (line.print_config) {
        rsi_settings_print(&settings, stdout);
        if (fflush(stdout) != 0) {
            fprintf(stderr, "ringsided: --print-config: cannot write to standard output: %s\n",
                    strerror(errno));
            code = RSI_EXIT_FAULT;
        }
    } else {
        code = serve(&settings, line.ready_fd);
    }
    rsi_settings_fini(&settings);
    return code;
}
