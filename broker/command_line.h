/*
 * The flags of ringsided: one per line of the settings table, and a few of the program itself.
 */
#ifndef RSI_BROKER_COMMAND_LINE_H
#define RSI_BROKER_COMMAND_LINE_H

#include "broker/settings.h"

/* What the process says when it ends. */
enum rsi_exit {
    RSI_EXIT_OK = 0,          /* stopped; everything taken was delivered */
    RSI_EXIT_UNDELIVERED = 1, /* stopped, but the drain time ran out */
    RSI_EXIT_USAGE = 2,       /* a flag or the configuration file is wrong */
    RSI_EXIT_START = 3,       /* could not start: port in use, device, CPU, permission, memory */
    RSI_EXIT_FAULT = 4,       /* failed while running */
};

struct rsi_command_line {
    bool print_config; /* print the settings and leave */
    int ready_fd;      /* where the URLs go once the broker listens; -1: nowhere */
};

/*
 * Parses flags and the file they name, and checks the whole. Prints --help and --version itself and
 * exits. INVALID and the errors of rsi_settings_load: the text names the flag or the line.
 */
RSI_MUST_CHECK rsi_status_t rsi_command_line_parse(struct rsi_command_line *line,
                                                   struct rsi_settings *settings, int argc,
                                                   char **argv, struct rsi_error *error);

#endif
