/*
 * Design notes
 * - A command is found before anything is parsed; its flags follow its name, as in "ringside pub
 * --help".
 * - argp prints "ringside NAME: ..." because argv[0] is replaced by those two words.
 */
#include "clients/cli/cli.h"

#include "clients/c/ringside.h"
#include "core/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

const struct rsi_command rsi_commands[] = {
    {"pub", "publish messages from arguments, lines, or generated", rsi_command_pub},
    {"sub", "print messages of subjects that match patterns", rsi_command_sub},
    {"request", "ask a service, and print its replies", rsi_command_request},
    {"reply", "answer requests with a text, an echo or a command", rsi_command_reply},
    {"ping", "measure the round trip through the broker", rsi_command_ping},
    {"bench", "measure latency, throughput or fan-out with processes of its own",
     rsi_command_bench},
    {"replay", "publish a pcap file or a recorded feed at its pace", rsi_command_replay},
    {"feed", "write a generated market-data feed", rsi_command_feed},
    {"top", "show live what every session of a broker does", rsi_command_top},
    {"info", "tell what a broker serves: listeners, sessions, topics", rsi_command_info},
    {"verify", "compare what arrives with a recording, message by message", rsi_command_verify},
};
const size_t rsi_command_count = rsi_array_count(rsi_commands);

static void print_help(FILE *stream)
{
    fputs("usage: ringside COMMAND [FLAG...]\n\n", stream);
    for (size_t i = 0; i < rsi_command_count; i++) {
        fprintf(stream, "  %-8s %s\n", rsi_commands[i].name, rsi_commands[i].summary);
    }
    fputs("\nringside COMMAND --help tells a command's flags, with units and examples.\n"
          "The broker is given by --url or $RINGSIDE_URL; without them it is "
          "auto://127.0.0.1:7400.\n"
          "Exit codes: 0 done, 1 failed, 2 a flag or its value is wrong.\n",
          stream);
}

static int run_command(const struct rsi_command *command, int argc, char **argv)
{
    static char name[64];
    snprintf(name, sizeof(name), "ringside %s", command->name);
    argv[0] = name;
    rsi_cli_set_name(name);
    argp_err_exit_status = RSI_EXIT_USAGE;
    rsi_clock_prepare();
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of the write */
    int code = command->run(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout) != 0) && code == RSI_EXIT_OK) {
        code = rsi_cli_fail("cannot write to standard output: %s", strerror(errno));
    }
    return code;
}

int rsi_cli_main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return RSI_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        print_help(stdout);
        return RSI_EXIT_OK;
    }
    if (strcmp(word, "--version") == 0) {
        printf("ringside %s\n", ringside_version());
        return RSI_EXIT_OK;
    }
    for (size_t i = 0; i < rsi_command_count; i++) {
        if (strcmp(rsi_commands[i].name, word) == 0) {
            return run_command(&rsi_commands[i], argc - 1, argv + 1);
        }
    }
    rsi_cli_fail("'%s' is no command; ringside --help lists them", word);
    return RSI_EXIT_USAGE;
}
