/*
 * What a user can set about a broker. One table (settings.c) holds for each setting its key, type,
 * default, range, unit, example and help; the flags, the file, --help, --print-config and every
 * text about a wrong value are made from it.
 *
 * Whoever comes later wins: defaults, then the file, then the flags.
 */
#ifndef RSI_BROKER_SETTINGS_H
#define RSI_BROKER_SETTINGS_H

#include "broker/data_agent.h"
#include "core/error.h"
#include "core/idle.h"
#include "core/log.h"
#include "proto/layout.h"
#include "transport/auth.h"
#include "transport/dpdk_options.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum {
    RSI_LISTEN_COUNT_MAX = 16,
    RSI_TOKEN_COUNT_MAX = 4096,
    RSI_UID_COUNT_MAX = 64,
    RSI_LAST_VALUE_COUNT_MAX = 64, /* patterns */
    RSI_SETTING_TEXT_BYTES = 320,  /* of one text value, with its terminating zero */
};

/* A shared secret and the name under which clients refer to it. */
struct rsi_token {
    char name[RSI_NAME_BYTES_MAX + 1];
    uint8_t secret[RSI_AUTH_SECRET_BYTES_MAX];
    uint32_t secret_bytes;
};

struct rsi_settings {
    char name[RSI_NAME_BYTES_MAX + 1];

    char listen[RSI_LISTEN_COUNT_MAX][RSI_SETTING_TEXT_BYTES];
    uint32_t listen_count;
    bool listen_is_default; /* then a listener of shm that cannot be made is a warning only */
    char device[RSI_SETTING_TEXT_BYTES];    /* empty: any */
    char bind_host[RSI_SETTING_TEXT_BYTES]; /* empty: the route decides */
    bool trusted_fabric;

    /* dpdk: empty and 0 as in transport/dpdk_options.h */
    char dpdk_port[RSI_SETTING_TEXT_BYTES]; /* empty: no such device */
    char dpdk_address[RSI_SETTING_TEXT_BYTES];
    char dpdk_gateway[RSI_SETTING_TEXT_BYTES];
    char dpdk_mac[RSI_SETTING_TEXT_BYTES];
    uint64_t dpdk_mtu;
    char dpdk_cores[RSI_SETTING_TEXT_BYTES];
    uint64_t dpdk_memory;
    bool dpdk_huge;
    char dpdk_file_prefix[RSI_SETTING_TEXT_BYTES];
    char dpdk_eal_arguments[RSI_SETTING_TEXT_BYTES];
    uint64_t dpdk_idle_ns;

    uint32_t allowed_uids[RSI_UID_COUNT_MAX];
    uint32_t allowed_uid_count;

    struct rsi_token *tokens; /* owned */
    uint32_t token_count;

    uint64_t agent_count;
    int agent_cpus[RSI_AGENT_COUNT_MAX]; /* -1: not pinned */
    uint32_t agent_cpu_count;
    uint64_t walk_seed; /* tests: 0: logs are walked by number */
    int control_cpu;
    rsi_idle_strategy_t wait;
    uint64_t spin_ns;
    bool lock_memory;

    uint64_t log_bytes;
    uint64_t publish_ring_bytes_max;
    uint64_t deliver_ring_bytes_max;
    uint64_t message_bytes_max;
    uint64_t client_count_max;
    uint64_t unauthenticated_count_max;
    uint64_t publication_count_max;
    uint64_t publisher_count_max; /* publications of one client */
    uint64_t topic_count_max;
    uint64_t subscription_count_max; /* of one client */

    /* Patterns; none: no topic has a last value. */
    char last_value[RSI_LAST_VALUE_COUNT_MAX][RSI_SUBJECT_BYTES_MAX + 1];
    uint32_t last_value_count;
    uint64_t last_value_topics;
    uint64_t last_value_bytes;

    enum rsi_policy default_policy;
    bool allow_block;

    uint64_t block_timeout_ns;

    uint64_t authenticate_timeout_ns;
    uint64_t drain_timeout_ns;
    uint64_t session_grace_ns; /* 0: a session ends with its link */

    char counters_path[RSI_SETTING_TEXT_BYTES]; /* empty: shared with nobody */
    bool counters_path_is_default; /* then a file that cannot be made is a warning only */
    rsi_log_level_t log_level;
};

/* All defaults. The struct owns memory once tokens are added: rsi_settings_fini. */
void rsi_settings_init(struct rsi_settings *settings);
/* Wipes the secrets and frees. Takes a zeroed struct. */
void rsi_settings_fini(struct rsi_settings *settings);

/*
 * Takes what the YAML file says. INVALID, NOT_FOUND, PERMISSION: the text names the file, the line,
 * the key, what is valid and an example. On failure the settings are as before or partly changed:
 * only rsi_settings_fini is then legal.
 */
RSI_MUST_CHECK rsi_status_t rsi_settings_load(struct rsi_settings *settings, const char *path,
                                              struct rsi_error *error);

/* Relations between settings; call it last. INVALID names both. */
RSI_MUST_CHECK rsi_status_t rsi_settings_check(const struct rsi_settings *settings,
                                               struct rsi_error *error);

/* Writes a complete YAML file with comments, which rsi_settings_load reads back; no secrets. */
void rsi_settings_print(const struct rsi_settings *settings, FILE *stream);

/* ---- the table ---------------------------------------------------------------------------------
 */

enum rsi_setting_type {
    RSI_SETTING_TEXT,   /* char[RSI_SETTING_TEXT_BYTES] or char[RSI_NAME_BYTES_MAX + 1]; high: bytes
                         */
    RSI_SETTING_NUMBER, /* uint64_t */
    RSI_SETTING_SIZE,   /* uint64_t, bytes */
    RSI_SETTING_DURATION, /* uint64_t, ns */
    RSI_SETTING_FLAG,     /* bool */
    RSI_SETTING_CPU,      /* int; "any": -1 */
    RSI_SETTING_WAIT,     /* rsi_idle_strategy_t */
    RSI_SETTING_POLICY,   /* enum rsi_policy */
    RSI_SETTING_LEVEL,    /* rsi_log_level_t */
    RSI_SETTING_DPDK,     /* as TEXT: empty, or what transport/dpdk_options.h takes */
    RSI_SETTING_URLS,     /* listen */
    RSI_SETTING_CPUS,     /* agent_cpus */
    RSI_SETTING_UIDS,     /* allowed_uids */
    RSI_SETTING_SUBJECTS, /* last_value */
    RSI_SETTING_TOKENS,   /* tokens; as a flag NAME=SECRET_FILE */
};

struct rsi_setting {
    const char *key; /* in the file; as a flag "_" becomes "-" */
    enum rsi_setting_type type;
    bool is_power_of_two;
    size_t offset; /* in struct rsi_settings */
    uint64_t low;
    uint64_t high;
    const char *fallback; /* default as a user would write it; NULL: an empty list */
    const char *example;
    const char *help; /* one sentence, without the range */
};

extern const struct rsi_setting rsi_settings_table[];
extern const uint32_t rsi_settings_table_count;

static inline bool rsi_setting_is_list(const struct rsi_setting *setting)
{
    return setting->type >= RSI_SETTING_URLS;
}

/* settings_dpdk.c, for type DPDK: what stands behind the flag in the help, and what is valid. */
const char *rsi_setting_dpdk_argument(const struct rsi_setting *setting);
const char *rsi_setting_dpdk_range(const struct rsi_setting *setting);
/* Whether a text that is not empty is valid. */
RSI_MUST_CHECK rsi_status_t rsi_setting_dpdk_check(const struct rsi_setting *setting,
                                                   const char *text, struct rsi_error *error);
/* Borrows the texts of the settings. */
void rsi_settings_dpdk(const struct rsi_settings *settings, struct rsi_dpdk_options *options);

/* NULL: there is none. */
const struct rsi_setting *rsi_setting_find(const char *key);
/* Writes what is valid: "1 to 8", "64 KiB to 1 GiB, a power of two". */
void rsi_setting_describe_range(const struct rsi_setting *setting, char *text, size_t text_bytes);
/* Sets a scalar, or adds one entry to a list. INVALID: the text has value, range and example. */
RSI_MUST_CHECK rsi_status_t rsi_setting_assign(struct rsi_settings *settings,
                                               const struct rsi_setting *setting, const char *text,
                                               struct rsi_error *error);
/* Empties a list, before the first entry of a source that overrides an earlier one. */
void rsi_setting_clear(struct rsi_settings *settings, const struct rsi_setting *setting);
/* Adds a token from a secret, or from a file that only its owner may read. */
RSI_MUST_CHECK rsi_status_t rsi_settings_add_token(struct rsi_settings *settings, const char *name,
                                                   const char *secret, struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_settings_add_token_file(struct rsi_settings *settings,
                                                        const char *name, const char *path,
                                                        struct rsi_error *error);
/* NULL: no token of that name. */
const struct rsi_token *rsi_settings_find_token(const struct rsi_settings *settings,
                                                const char *name);
/* Whether the broker keeps the last value of a literal subject. */
bool rsi_settings_has_last_value(const struct rsi_settings *settings, const char *subject);
/* Whether it does so of some subject that the pattern matches, and of all that it matches. */
bool rsi_settings_may_have_last_value(const struct rsi_settings *settings, const char *pattern);
bool rsi_settings_must_have_last_value(const struct rsi_settings *settings, const char *pattern);
const char *rsi_policy_name(enum rsi_policy policy);

#endif
