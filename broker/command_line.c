/*
 * Design notes
 * - argp makes the parser and --help out of an option list that is made from the settings table; so
 * no setting can lack its flag.
 * - Flags override the file wherever they stand: they are collected first, then the file is loaded,
 *   then they are applied. The first entry of a list flag replaces the list of the file.
 */
#include "broker/command_line.h"

#include "core/text.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>

enum {
    SETTING_COUNT_MAX = 64,
    FLAG_COUNT_MAX = 512,
    FLAG_BYTES_MAX = 48,
    HELP_BYTES_MAX = 512,
    KEY_CONFIG = 'c',
    KEY_PRINT_CONFIG = 0x1000,
    KEY_READY_FD,
    KEY_SETTINGS, /* the first of the table */
};

struct flag {
    const struct rsi_setting *setting;
    const char *text;
};

struct parse {
    struct rsi_command_line *line;
    const char *config_path;
    struct flag flags[FLAG_COUNT_MAX];
    uint32_t flag_count;
    rsi_status_t status;
    struct rsi_error *error;
    /* What argp reads. */
    struct argp_option options[SETTING_COUNT_MAX + 4];
    char flag_texts[SETTING_COUNT_MAX][FLAG_BYTES_MAX];
    char help_texts[SETTING_COUNT_MAX][HELP_BYTES_MAX];
};

static const char *argument_name(const struct rsi_setting *setting)
{
    switch (setting->type) {
    case RSI_SETTING_TEXT:
        return "TEXT";
    case RSI_SETTING_NUMBER:
        return "NUMBER";
    case RSI_SETTING_SIZE:
        return "SIZE";
    case RSI_SETTING_DURATION:
        return "TIME";
    case RSI_SETTING_FLAG:
        return "yes|no";
    case RSI_SETTING_CPU:
    case RSI_SETTING_CPUS:
        return "CPU";
    case RSI_SETTING_WAIT:
        return "HOW";
    case RSI_SETTING_POLICY:
        return "POLICY";
    case RSI_SETTING_LEVEL:
        return "LEVEL";
    case RSI_SETTING_DPDK:
        return rsi_setting_dpdk_argument(setting);
    case RSI_SETTING_URLS:
        return "URL";
    case RSI_SETTING_UIDS:
        return "UID";
    case RSI_SETTING_SUBJECTS:
        return "SUBJECT";
    case RSI_SETTING_TOKENS:
        return "NAME=SECRET_FILE";
    }
    return "VALUE";
}

static void describe_setting(const struct rsi_setting *setting, struct argp_option *option,
                             char *flag, char *help)
{
    char range[96];
    struct rsi_text text;
    rsi_text_copy(flag, FLAG_BYTES_MAX, setting->key);
    for (char *at = flag; *at != '\0'; at++) {
        if (*at == '_') {
            *at = '-';
        }
    }
    rsi_setting_describe_range(setting, range, sizeof(range));
    rsi_text_init(&text, help, HELP_BYTES_MAX);
    rsi_text_append(&text, "%s", setting->help);
    if (rsi_setting_is_list(setting)) {
        rsi_text_append(&text, "; give the flag once for each entry");
    } else {
        rsi_text_append(&text, " (%s; default %s)", range,
                        setting->fallback[0] != '\0' ? setting->fallback : "empty");
    }
    option->name = flag;
    option->arg = argument_name(setting);
    option->doc = help;
}

static void make_options(struct parse *parse)
{
    static const struct argp_option own[] = {
        {"config", KEY_CONFIG, "FILE", 0, "Read settings from this YAML file; flags override it",
         1},
        {"print-config", KEY_PRINT_CONFIG, NULL, 0,
         "Print all settings as a commented YAML file and leave", 1},
        {"ready-fd", KEY_READY_FD, "N", 0,
         "Once listening, write the URLs to this descriptor, one per line, and close it", 1},
    };
    uint32_t count = 0;
    for (; count < rsi_array_count(own); count++) {
        parse->options[count] = own[count];
    }
    for (uint32_t i = 0; i < rsi_settings_table_count; i++, count++) {
        struct argp_option *option = &parse->options[count];
        describe_setting(&rsi_settings_table[i], option, parse->flag_texts[i],
                         parse->help_texts[i]);
        option->key = KEY_SETTINGS + (int)i;
        option->group = 2;
    }
}

static error_t take_option(int key, char *argument, struct argp_state *state)
{
    struct parse *parse = state->input;
    uint64_t number = 0;
    switch (key) {
    case KEY_CONFIG:
        parse->config_path = argument;
        return 0;
    case KEY_PRINT_CONFIG:
        parse->line->print_config = true;
        return 0;
    case KEY_READY_FD:
        parse->status = rsi_parse_number(&number, argument, 0, 1 << 20, parse->error);
        if (rsi_failed(parse->status)) {
            rsi_error_context(parse->error, "--ready-fd");
            return EINVAL;
        }
        parse->line->ready_fd = (int)number;
        return 0;
    case ARGP_KEY_ARG:
        parse->status =
            rsi_fail(parse->error, RSI_E_INVALID,
                     "'%s' is no flag; settings are flags, see ringsided --help", argument);
        return EINVAL;
    default:
        break;
    }
    if (key < KEY_SETTINGS || key >= KEY_SETTINGS + (int)rsi_settings_table_count) {
        return ARGP_ERR_UNKNOWN;
    }
    if (parse->flag_count == FLAG_COUNT_MAX) {
        parse->status = rsi_fail(parse->error, RSI_E_INVALID, "more than %d flags: use --config",
                                 FLAG_COUNT_MAX);
        return EINVAL;
    }
    struct flag *flag = &parse->flags[parse->flag_count++];
    flag->setting = &rsi_settings_table[key - KEY_SETTINGS];
    flag->text = argument;
    return 0;
}

static rsi_status_t apply_flags(const struct parse *parse, struct rsi_settings *settings,
                                struct rsi_error *error)
{
    bool is_cleared[SETTING_COUNT_MAX] = {false};
    for (uint32_t i = 0; i < parse->flag_count; i++) {
        const struct flag *flag = &parse->flags[i];
        size_t index = (size_t)(flag->setting - rsi_settings_table);
        if (rsi_setting_is_list(flag->setting) && !is_cleared[index]) {
            rsi_setting_clear(settings, flag->setting);
            is_cleared[index] = true;
        }
        rsi_status_t status = rsi_setting_assign(settings, flag->setting, flag->text, error);
        if (rsi_failed(status)) {
            rsi_error_context(error, "--%s", parse->flag_texts[index]);
            return status;
        }
    }
    return RSI_OK;
}

static void print_version(FILE *stream, struct argp_state *state)
{
    (void)state;
    fprintf(stream, "ringsided %s\n", RSI_VERSION_TEXT);
}

static rsi_status_t parse_flags(struct parse *parse, int argc, char **argv)
{
    static const char about[] =
        "The Ringside broker: takes what publishers write and hands it to every subscriber whose "
        "pattern matches."
        "\v"
        "Sizes take B, KiB, MiB, GiB; times ns, us, ms, s, m, h.\n\n"
        "SIGTERM or SIGINT: takes nothing more, delivers what it has within --drain-timeout, says "
        "goodbye to every client and ends. A second signal ends it at once.\n\n"
        "Examples:\n"
        "  ringsided\n"
        "  ringsided --listen tcp://0.0.0.0:7400 --listen shm:///tmp/hub.sock\n"
        "  ringsided --agents 2 --agent-cpus 0 --agent-cpus 1 --wait busy\n"
        "  ringsided --print-config > broker.yaml\n"
        "  ringsided --config broker.yaml --log-level debug\n"
        "\n"
        "Exit codes: 0 stopped, everything delivered; 1 stopped, but not everything could be "
        "delivered in time; 2 a flag or the configuration file is wrong; 3 could not start (port "
        "in "
        "use, device, CPU, permission, memory); 4 failed while running.";
    const struct argp argp = {.options = parse->options, .parser = take_option, .doc = about};
    argp_program_version_hook = print_version;
    argp_err_exit_status = RSI_EXIT_USAGE;
    error_t result = argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, parse);
    if (parse->status != RSI_OK) {
        return parse->status;
    }
    if (result != 0) {
        return rsi_fail_errno(parse->error, RSI_E_SYSTEM, result, "reading the flags");
    }
    return RSI_OK;
}

rsi_status_t rsi_command_line_parse(struct rsi_command_line *line, struct rsi_settings *settings,
                                    int argc, char **argv, struct rsi_error *error)
{
    rsi_assert(rsi_settings_table_count <= SETTING_COUNT_MAX);
    struct parse *parse = calloc(1, sizeof(*parse));
    if (parse == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for the flags");
    }
    line->print_config = false;
    line->ready_fd = -1;
    parse->line = line;
    parse->error = error;
    make_options(parse);

    rsi_status_t status = parse_flags(parse, argc, argv);
    if (!rsi_failed(status) && parse->config_path != NULL) {
        status = rsi_settings_load(settings, parse->config_path, error);
    }
    if (!rsi_failed(status)) {
        status = apply_flags(parse, settings, error);
    }
    if (!rsi_failed(status)) {
        status = rsi_settings_check(settings, error);
    }
    free(parse);
    return status;
}
