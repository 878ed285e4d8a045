/*
 * Design notes
 * - The table below is the only place that knows a key, a default or a range. A new setting is a
 * field and a line here; flags, file, help and texts follow.
 * - Defaults are texts that go through the same parser as what a user writes, so that the printed
 *   default is the real one and a default outside its range cannot exist (rsi_settings_init
 * asserts).
 * - Secrets never pass through flags (other users see them in ps) and are never printed.
 */
#include "broker/settings.h"

#include "core/assert.h"
#include "core/cpu.h"
#include "core/position.h"
#include "core/text.h"
#include "proto/subject.h"
#include "transport/url.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KIB         UINT64_C(1024)
#define MIB         (UINT64_C(1) << 20)
#define GIB         (UINT64_C(1) << 30)
#define MICROSECOND UINT64_C(1000)
#define MILLISECOND UINT64_C(1000000)
#define SECOND      UINT64_C(1000000000)

/* The store's smallest value: last_values.h. */
#define LAST_VALUE_BYTES_MIN UINT64_C(128)

#define AT(member) offsetof(struct rsi_settings, member)

const struct rsi_setting rsi_settings_table[] = {
    {"name", RSI_SETTING_TEXT, false, AT(name), 1, RSI_NAME_BYTES_MAX, "ringsided", "md-hub-1",
     "Name of this broker, told to clients"},
    {"listen", RSI_SETTING_URLS, false, 0, 1, RSI_LISTEN_COUNT_MAX, NULL,
     "[\"tcp://127.0.0.1:7400\", \"shm:///run/ringside/broker-7400.sock\"]",
     "Where clients connect: tcp://HOST:PORT, rdma://HOST:PORT, shm:///PATH; port 0 picks a free "
     "one"},
    {"device", RSI_SETTING_TEXT, false, AT(device), 0, RSI_SETTING_TEXT_BYTES - 1, "", "mlx5_0",
     "RDMA device to insist on; empty: the one that the address leads to"},
    {"bind_host", RSI_SETTING_TEXT, false, AT(bind_host), 0, RSI_SETTING_TEXT_BYTES - 1, "",
     "10.0.0.1", "Source address where two devices lead to one network; empty: the route decides"},
    {"trusted_fabric", RSI_SETTING_FLAG, false, AT(trusted_fabric), 0, 1, "no", "yes",
     "Serve rdma devices without type 2 memory windows: every client could then write every ring"},
    {"dpdk_port", RSI_SETTING_DPDK, false, AT(dpdk_port), 0, RSI_SETTING_TEXT_BYTES - 1, "",
     "\"net_af_packet0,iface=eth1\"",
     "Device that dpdk:// takes away from the kernel: a PCI address, or a virtual device of DPDK; "
     "empty: none"},
    {"dpdk_address", RSI_SETTING_DPDK, false, AT(dpdk_address), 0, RSI_SETTING_TEXT_BYTES - 1, "",
     "10.7.0.1/24",
     "IPv4 address of dpdk_port, which the kernel must not have, and its network's prefix"},
    {"dpdk_gateway", RSI_SETTING_DPDK, false, AT(dpdk_gateway), 0, RSI_SETTING_TEXT_BYTES - 1, "",
     "10.7.0.254", "Router for what is outside the prefix of dpdk_address; empty: nothing is"},
    {"dpdk_mac", RSI_SETTING_DPDK, false, AT(dpdk_mac), 0, RSI_SETTING_TEXT_BYTES - 1, "",
     "\"02:00:00:00:00:01\"", "MAC of dpdk_port; empty: the device's own"},
    {"dpdk_mtu", RSI_SETTING_NUMBER, false, AT(dpdk_mtu), 0, RSI_DPDK_MTU_MAX, "0", "9000",
     "Largest IPv4 packet over dpdk_port, from 576 bytes on; 0: the device's"},
    {"dpdk_cores", RSI_SETTING_DPDK, false, AT(dpdk_cores), 0, RSI_SETTING_TEXT_BYTES - 1, "",
     "\"0-1\"", "CPUs for DPDK's own threads, which hardly do anything; empty: any"},
    {"dpdk_memory", RSI_SETTING_SIZE, false, AT(dpdk_memory), 0, 64 * GIB, "0", "512MiB",
     "Memory that DPDK sets aside when it starts; 0: what dpdk_port needs"},
    {"dpdk_huge", RSI_SETTING_FLAG, false, AT(dpdk_huge), 0, 1, "yes", "no",
     "Whether DPDK uses huge pages; yes goes on without, with a warning, when there are too few"},
    {"dpdk_file_prefix", RSI_SETTING_DPDK, false, AT(dpdk_file_prefix), 0,
     RSI_SETTING_TEXT_BYTES - 1, "", "hub1",
     "Name by which DPDK tells processes of one machine apart; empty: one of this process"},
    {"dpdk_eal_arguments", RSI_SETTING_DPDK, false, AT(dpdk_eal_arguments), 0,
     RSI_SETTING_TEXT_BYTES - 1, "", "\"--iova-mode=va\"",
     "Further arguments for DPDK's environment (EAL), separated by spaces"},
    {"dpdk_idle", RSI_SETTING_DURATION, false, AT(dpdk_idle_ns), 10 * MICROSECOND,
     100 * MILLISECOND, "1ms", "200us",
     "Longest sleep between two looks at a dpdk_port whose device wakes nobody; wait busy never "
     "sleeps"},
    {"allowed_uids", RSI_SETTING_UIDS, false, 0, 0, RSI_UID_COUNT_MAX, NULL, "[1000, 1001]",
     "User ids that may connect over shm beside root and the broker's own"},
    {"tokens", RSI_SETTING_TOKENS, false, 0, 0, RSI_TOKEN_COUNT_MAX, NULL,
     "[{name: \"feed\", secret_file: \"/etc/ringside/feed.secret\"}]",
     "Who may connect: a name with secret or secret_file each; none: everybody who reaches a "
     "listener"},
    {"agents", RSI_SETTING_NUMBER, false, AT(agent_count), 1, RSI_AGENT_COUNT_MAX, "1", "2",
     "Data agents: threads that move messages"},
    {"agent_cpus", RSI_SETTING_CPUS, false, 0, 0, RSI_AGENT_COUNT_MAX, NULL, "[2, 3]",
     "CPUs to pin the data agents to, one each in order; none: not pinned"},
    {"walk_seed", RSI_SETTING_NUMBER, false, AT(walk_seed), 0, UINT32_MAX, "0", "7",
     "For tests: agents walk the logs in an order drawn from this; 0: by number"},
    {"control_cpu", RSI_SETTING_CPU, false, AT(control_cpu), 0, RSI_CPU_COUNT_MAX - 1, "any", "1",
     "CPU to pin the control agent to, or any"},
    {"wait", RSI_SETTING_WAIT, false, AT(wait), 0, 0, "adaptive", "busy",
     "How data agents wait: busy never sleeps, adaptive polls for a moment first, blocking sleeps"},
    {"spin", RSI_SETTING_DURATION, false, AT(spin_ns), 1000, 100 * MILLISECOND, "50us", "100us",
     "How long an adaptive agent polls after its last work before it sleeps; where it serves "
     "a dpdk device that wakes nobody, 300 us at least"},
    {"lock_memory", RSI_SETTING_FLAG, false, AT(lock_memory), 0, 1, "yes", "no",
     "Lock rings in memory as far as the memlock limit allows"},
    {"log_bytes", RSI_SETTING_SIZE, true, AT(log_bytes), 256 * KIB, 64 * GIB, "32MiB", "256MiB",
     "Log of each data agent: the window by which a subscriber may lag"},
    {"publish_ring_bytes_max", RSI_SETTING_SIZE, true, AT(publish_ring_bytes_max),
     RSI_RING_BYTES_MIN, RSI_RING_BYTES_MAX, "64MiB", "16MiB",
     "Largest ring that a client gets for publishing"},
    {"deliver_ring_bytes_max", RSI_SETTING_SIZE, true, AT(deliver_ring_bytes_max),
     RSI_RING_BYTES_MIN, RSI_RING_BYTES_MAX, "64MiB", "16MiB",
     "Largest ring that a client gets for its subscriptions"},
    {"message_bytes_max", RSI_SETTING_SIZE, false, AT(message_bytes_max), 1024, 64 * MIB, "512KiB",
     "128KiB", "Largest message; every ring must hold four of them"},
    {"client_count_max", RSI_SETTING_NUMBER, false, AT(client_count_max), 1, 16384, "1024", "64",
     "Clients at a time"},
    {"unauthenticated_count_max", RSI_SETTING_NUMBER, false, AT(unauthenticated_count_max), 1, 4096,
     "32", "128", "Connections at a time that have not proved yet who they are; others wait"},
    {"publication_count_max", RSI_SETTING_NUMBER, true, AT(publication_count_max), 16, 1 << 22,
     "16384", "65536", "Publisher objects of all clients"},
    {"publisher_count_max", RSI_SETTING_NUMBER, false, AT(publisher_count_max), 1, 1 << 22, "16384",
     "256", "Publisher objects of one client"},
    {"topic_count_max", RSI_SETTING_NUMBER, true, AT(topic_count_max), 16, 1 << 22, "16384",
     "65536", "Subjects that somebody publishes on"},
    {"subscription_count_max", RSI_SETTING_NUMBER, false, AT(subscription_count_max), 1, 1 << 20,
     "4096", "65536", "Subscriptions of one client"},
    {"last_value", RSI_SETTING_SUBJECTS, false, 0, 0, RSI_LAST_VALUE_COUNT_MAX, NULL,
     "[\"state.>\", \"md.*.status\"]",
     "Subjects whose last message is kept for those who subscribe later, and for policy conflate"},
    {"last_value_topics", RSI_SETTING_NUMBER, false, AT(last_value_topics), 1, 1 << 20, "8192",
     "16384", "Topics whose last value is kept; a publisher on one more is refused"},
    {"last_value_bytes", RSI_SETTING_SIZE, false, AT(last_value_bytes), 64 * KIB, 64 * GIB, "16MiB",
     "256MiB",
     "Memory of each data agent for last values; a value that finds none is not kept, and counted"},
    {"default_policy", RSI_SETTING_POLICY, false, AT(default_policy), 0, 0, "drop", "disconnect",
     "What happens to a subscriber that lags half a window and did not say what it wants"},
    {"allow_block", RSI_SETTING_FLAG, false, AT(allow_block), 0, 1, "yes", "no",
     "Whether a subscriber may ask that its publishers are held back"},
    {"block_timeout", RSI_SETTING_DURATION, false, AT(block_timeout_ns), 10 * MILLISECOND,
     86400 * SECOND, "5s", "30s",
     "How long a subscriber under policy block may take nothing while a publisher waits for it"},
    {"authenticate_timeout", RSI_SETTING_DURATION, false, AT(authenticate_timeout_ns),
     10 * MILLISECOND, 600 * SECOND, "5s", "2s", "Time in which a connection must prove who it is"},
    {"drain_timeout", RSI_SETTING_DURATION, false, AT(drain_timeout_ns), 0, 3600 * SECOND, "5s",
     "30s", "Time in which a stopping broker delivers what it has taken"},
    {"session_grace", RSI_SETTING_DURATION, false, AT(session_grace_ns), 0, 3600 * SECOND, "10s",
     "30s", "Time for which a client whose link was cut may come back to its session; 0: none"},
    {"counters_path", RSI_SETTING_TEXT, false, AT(counters_path), 0, RSI_SETTING_TEXT_BYTES - 1,
     "/run/ringside/broker-7400.counters", "/run/ringside/hub.counters",
     "File of live counters that any tool may map; empty: none"},
    {"log_level", RSI_SETTING_LEVEL, false, AT(log_level), 0, 0, "info", "debug",
     "Lines from this level on are written: error, warning, info, debug"},
};
const uint32_t rsi_settings_table_count = rsi_array_count(rsi_settings_table);

static const char *const default_listen[] = {"tcp://127.0.0.1:7400",
                                             "shm:///run/ringside/broker-7400.sock"};

const struct rsi_setting *rsi_setting_find(const char *key)
{
    for (uint32_t i = 0; i < rsi_settings_table_count; i++) {
        if (strcmp(rsi_settings_table[i].key, key) == 0) {
            return &rsi_settings_table[i];
        }
    }
    return NULL;
}

const char *rsi_policy_name(enum rsi_policy policy)
{
    switch (policy) {
    case RSI_POLICY_DROP:
        return "drop";
    case RSI_POLICY_DISCONNECT:
        return "disconnect";
    case RSI_POLICY_BLOCK:
        return "block";
    case RSI_POLICY_CONFLATE:
        return "conflate";
    }
    return "unknown";
}

/* ---- what is valid -----------------------------------------------------------------------------
 */

void rsi_setting_describe_range(const struct rsi_setting *setting, char *text, size_t text_bytes)
{
    struct rsi_text out;
    rsi_text_init(&out, text, text_bytes);
    switch (setting->type) {
    case RSI_SETTING_TEXT:
        rsi_text_append(&out, "a text of %llu to %llu bytes", (unsigned long long)setting->low,
                        (unsigned long long)setting->high);
        break;
    case RSI_SETTING_NUMBER:
        rsi_text_append(&out, "%llu to %llu", (unsigned long long)setting->low,
                        (unsigned long long)setting->high);
        break;
    case RSI_SETTING_SIZE:
        rsi_text_append_size(&out, setting->low);
        rsi_text_append(&out, " to ");
        rsi_text_append_size(&out, setting->high);
        break;
    case RSI_SETTING_DURATION:
        rsi_text_append_duration(&out, setting->low);
        rsi_text_append(&out, " to ");
        rsi_text_append_duration(&out, setting->high);
        break;
    case RSI_SETTING_FLAG:
        rsi_text_append(&out, "yes or no");
        break;
    case RSI_SETTING_CPU:
        rsi_text_append(&out, "any, or 0 to %llu", (unsigned long long)setting->high);
        break;
    case RSI_SETTING_WAIT:
        rsi_text_append(&out, "busy, adaptive or blocking");
        break;
    case RSI_SETTING_POLICY:
        rsi_text_append(&out, "drop, disconnect or block");
        break;
    case RSI_SETTING_LEVEL:
        rsi_text_append(&out, "error, warning, info or debug");
        break;
    case RSI_SETTING_DPDK:
        rsi_text_append(&out, "%s", rsi_setting_dpdk_range(setting));
        break;
    case RSI_SETTING_URLS:
        rsi_text_append(&out, "a list of %llu to %llu URLs", (unsigned long long)setting->low,
                        (unsigned long long)setting->high);
        break;
    case RSI_SETTING_CPUS:
        rsi_text_append(&out, "a list of at most %llu CPU numbers",
                        (unsigned long long)setting->high);
        break;
    case RSI_SETTING_UIDS:
        rsi_text_append(&out, "a list of at most %llu user ids", (unsigned long long)setting->high);
        break;
    case RSI_SETTING_SUBJECTS:
        rsi_text_append(&out, "a list of at most %llu subjects, * and > allowed",
                        (unsigned long long)setting->high);
        break;
    case RSI_SETTING_TOKENS:
        rsi_text_append(&out, "a list of at most %llu tokens", (unsigned long long)setting->high);
        break;
    }
    if (setting->is_power_of_two) {
        rsi_text_append(&out, ", a power of two");
    }
}

/* Fills `error` with value, range and example; `detail`, if any, says what is wrong with the value.
 */
static rsi_status_t refuse(const struct rsi_setting *setting, const char *text, const char *detail,
                           struct rsi_error *error)
{
    char range[96];
    rsi_setting_describe_range(setting, range, sizeof(range));
    return rsi_fail(error, RSI_E_INVALID,
                    "%s: '%.120s' is not valid%s%.200s; valid: %s; example: %s", setting->key, text,
                    detail != NULL ? ": " : "", detail != NULL ? detail : "", range,
                    setting->example);
}

/* ---- scalars -----------------------------------------------------------------------------------
 */

static rsi_status_t assign_number(void *field, const struct rsi_setting *setting, const char *text,
                                  struct rsi_error *error)
{
    uint64_t value = 0;
    struct rsi_error inner = {0};
    rsi_status_t status;
    if (setting->type == RSI_SETTING_SIZE) {
        status = rsi_parse_size(&value, text, &inner);
    } else if (setting->type == RSI_SETTING_DURATION) {
        status = rsi_parse_duration(&value, text, &inner);
    } else {
        status = rsi_parse_number(&value, text, 0, UINT64_MAX, &inner);
    }
    if (rsi_failed(status)) {
        return refuse(setting, text, inner.text, error);
    }
    if (value < setting->low || value > setting->high) {
        return refuse(setting, text, "out of range", error);
    }
    if (setting->is_power_of_two && !rsi_is_power_of_two(value)) {
        return refuse(setting, text, "not a power of two", error);
    }
    memcpy(field, &value, sizeof(value));
    return RSI_OK;
}

static rsi_status_t assign_flag(bool *field, const struct rsi_setting *setting, const char *text,
                                struct rsi_error *error)
{
    static const char *const yes[] = {"yes", "true", "on"};
    static const char *const no[] = {"no", "false", "off"};
    for (uint32_t i = 0; i < rsi_array_count(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0) {
            *field = true;
            return RSI_OK;
        }
        if (strcasecmp(text, no[i]) == 0) {
            *field = false;
            return RSI_OK;
        }
    }
    return refuse(setting, text, NULL, error);
}

static rsi_status_t parse_cpu(int *cpu, const struct rsi_setting *setting, const char *text,
                              struct rsi_error *error)
{
    uint64_t value = 0;
    if (rsi_failed(rsi_parse_number(&value, text, 0, RSI_CPU_COUNT_MAX - 1, NULL))) {
        return refuse(setting, text, "not a CPU number", error);
    }
    *cpu = (int)value;
    return RSI_OK;
}

static rsi_status_t assign_policy(enum rsi_policy *policy, const struct rsi_setting *setting,
                                  const char *text, struct rsi_error *error)
{
    static const enum rsi_policy policies[] = {RSI_POLICY_DROP, RSI_POLICY_DISCONNECT,
                                               RSI_POLICY_BLOCK};
    for (uint32_t i = 0; i < rsi_array_count(policies); i++) {
        if (strcmp(text, rsi_policy_name(policies[i])) == 0) {
            *policy = policies[i];
            return RSI_OK;
        }
    }
    return refuse(setting, text, NULL, error);
}

static rsi_status_t assign_text(char *field, const struct rsi_setting *setting, const char *text,
                                struct rsi_error *error)
{
    size_t bytes = strlen(text);
    if (bytes < setting->low || bytes > setting->high) {
        return refuse(setting, text, "wrong length", error);
    }
    for (size_t i = 0; i < bytes; i++) {
        if (iscntrl((unsigned char)text[i])) {
            return refuse(setting, text, "it holds a control character", error);
        }
    }
    if (setting->type == RSI_SETTING_DPDK && bytes > 0) {
        struct rsi_error inner = {0};
        if (rsi_failed(rsi_setting_dpdk_check(setting, text, &inner))) {
            return rsi_fail(error, RSI_E_INVALID, "%s: %s", setting->key, inner.text);
        }
    }
    memcpy(field, text, bytes + 1);
    return RSI_OK;
}

/* ---- lists -------------------------------------------------------------------------------------
 */

static rsi_status_t append_url(struct rsi_settings *settings, const struct rsi_setting *setting,
                               const char *text, struct rsi_error *error)
{
    struct rsi_url url;
    struct rsi_error inner = {0};
    if (settings->listen_count == RSI_LISTEN_COUNT_MAX) {
        return refuse(setting, text, "too many", error);
    }
    if (strlen(text) >= RSI_SETTING_TEXT_BYTES) {
        return refuse(setting, text, "too long", error);
    }
    if (rsi_failed(rsi_url_parse(&url, text, &inner))) {
        return refuse(setting, text, inner.text, error);
    }
    if (strcmp(url.scheme, "auto") == 0) {
        return refuse(setting, text, "a listener has one transport, auto:// is for clients", error);
    }
    memcpy(settings->listen[settings->listen_count++], text, strlen(text) + 1);
    settings->listen_is_default = false;
    return RSI_OK;
}

static rsi_status_t append_cpu(struct rsi_settings *settings, const struct rsi_setting *setting,
                               const char *text, struct rsi_error *error)
{
    if (settings->agent_cpu_count == RSI_AGENT_COUNT_MAX) {
        return refuse(setting, text, "too many", error);
    }
    rsi_status_t status =
        parse_cpu(&settings->agent_cpus[settings->agent_cpu_count], setting, text, error);
    if (!rsi_failed(status)) {
        settings->agent_cpu_count++;
    }
    return status;
}

static rsi_status_t append_uid(struct rsi_settings *settings, const struct rsi_setting *setting,
                               const char *text, struct rsi_error *error)
{
    uint64_t value = 0;
    if (settings->allowed_uid_count == RSI_UID_COUNT_MAX) {
        return refuse(setting, text, "too many", error);
    }
    if (rsi_failed(rsi_parse_number(&value, text, 0, UINT32_MAX - 1, NULL))) {
        return refuse(setting, text, "not a user id", error);
    }
    settings->allowed_uids[settings->allowed_uid_count++] = (uint32_t)value;
    return RSI_OK;
}

static rsi_status_t append_subject(struct rsi_settings *settings, const struct rsi_setting *setting,
                                   const char *text, struct rsi_error *error)
{
    if (settings->last_value_count == RSI_LAST_VALUE_COUNT_MAX) {
        return refuse(setting, text, "too many", error);
    }
    const char *fault = rsi_subject_check_pattern(text, strlen(text), NULL);
    if (fault != NULL) {
        return refuse(setting, text, fault, error);
    }
    memcpy(settings->last_value[settings->last_value_count++], text, strlen(text) + 1);
    return RSI_OK;
}

bool rsi_settings_has_last_value(const struct rsi_settings *settings, const char *subject)
{
    for (uint32_t i = 0; i < settings->last_value_count; i++) {
        if (rsi_subject_matches(settings->last_value[i], strlen(settings->last_value[i]), subject,
                                strlen(subject))) {
            return true;
        }
    }
    return false;
}

bool rsi_settings_may_have_last_value(const struct rsi_settings *settings, const char *pattern)
{
    for (uint32_t i = 0; i < settings->last_value_count; i++) {
        if (rsi_subject_overlaps(settings->last_value[i], strlen(settings->last_value[i]), pattern,
                                 strlen(pattern))) {
            return true;
        }
    }
    return false;
}

bool rsi_settings_must_have_last_value(const struct rsi_settings *settings, const char *pattern)
{
    for (uint32_t i = 0; i < settings->last_value_count; i++) {
        if (rsi_subject_covers(settings->last_value[i], strlen(settings->last_value[i]), pattern,
                               strlen(pattern))) {
            return true;
        }
    }
    return false;
}

/* As a flag: NAME=SECRET_FILE. */
static rsi_status_t append_token(struct rsi_settings *settings, const struct rsi_setting *setting,
                                 const char *text, struct rsi_error *error)
{
    const char *equals = strchr(text, '=');
    char name[RSI_NAME_BYTES_MAX + 1];
    if (equals == NULL || equals == text || equals[1] == '\0') {
        return refuse(setting, text, "write NAME=SECRET_FILE", error);
    }
    if ((size_t)(equals - text) > RSI_NAME_BYTES_MAX) {
        return refuse(setting, text, "the name is longer than 63 bytes", error);
    }
    memcpy(name, text, (size_t)(equals - text));
    name[equals - text] = '\0';
    return rsi_settings_add_token_file(settings, name, equals + 1, error);
}

const struct rsi_token *rsi_settings_find_token(const struct rsi_settings *settings,
                                                const char *name)
{
    for (uint32_t i = 0; i < settings->token_count; i++) {
        if (strcmp(settings->tokens[i].name, name) == 0) {
            return &settings->tokens[i];
        }
    }
    return NULL;
}

static rsi_status_t add_token(struct rsi_settings *settings, const char *name, const void *secret,
                              size_t secret_bytes, struct rsi_error *error)
{
    size_t name_bytes = strlen(name);
    if (name_bytes == 0 || name_bytes > RSI_NAME_BYTES_MAX) {
        return rsi_fail(error, RSI_E_INVALID, "tokens: a token's name has 1 to %u bytes",
                        RSI_NAME_BYTES_MAX);
    }
    if (rsi_settings_find_token(settings, name) != NULL) {
        return rsi_fail(error, RSI_E_INVALID, "tokens: '%s' is there twice", name);
    }
    if (secret_bytes < RSI_AUTH_SECRET_BYTES_MIN || secret_bytes > RSI_AUTH_SECRET_BYTES_MAX) {
        return rsi_fail(error, RSI_E_INVALID,
                        "tokens: the secret of '%s' has %zu bytes; valid: %u to %u; make one with: "
                        "openssl rand -hex 32",
                        name, secret_bytes, RSI_AUTH_SECRET_BYTES_MIN, RSI_AUTH_SECRET_BYTES_MAX);
    }
    if (settings->token_count == RSI_TOKEN_COUNT_MAX) {
        return rsi_fail(error, RSI_E_INVALID, "tokens: more than %d", RSI_TOKEN_COUNT_MAX);
    }

    /* Not realloc: it would leave copies of secrets in freed memory. */
    struct rsi_token *tokens = calloc(settings->token_count + 1, sizeof(*tokens));
    if (tokens == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for token '%s'", name);
    }
    if (settings->token_count > 0) {
        size_t bytes = settings->token_count * sizeof(*tokens);
        memcpy(tokens, settings->tokens, bytes);
        explicit_bzero(settings->tokens, bytes);
        free(settings->tokens);
    }
    struct rsi_token *token = &tokens[settings->token_count];
    memcpy(token->name, name, name_bytes);
    memcpy(token->secret, secret, secret_bytes);
    token->secret_bytes = (uint32_t)secret_bytes;
    settings->tokens = tokens;
    settings->token_count++;
    return RSI_OK;
}

rsi_status_t rsi_settings_add_token(struct rsi_settings *settings, const char *name,
                                    const char *secret, struct rsi_error *error)
{
    return add_token(settings, name, secret, strlen(secret), error);
}

static rsi_status_t read_secret(int fd, const char *name, const char *path, char *secret,
                                size_t secret_bytes, ssize_t *count, struct rsi_error *error)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return rsi_fail_errno(error, RSI_E_IO, errno, "secret_file %s of token '%s'", path, name);
    }
    if (!S_ISREG(status.st_mode)) {
        return rsi_fail(error, RSI_E_INVALID, "secret_file %s of token '%s' is not a regular file",
                        path, name);
    }
    if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        return rsi_fail(
            error, RSI_E_PERMISSION,
            "secret_file %s of token '%s' is open to other users (mode %04o): "
            "run: chmod 600 %s, and make a new secret if others had the time to read it",
            path, name, (unsigned)(status.st_mode & 07777), path);
    }
    *count = read(fd, secret, secret_bytes);
    if (*count < 0) {
        return rsi_fail_errno(error, RSI_E_IO, errno, "secret_file %s of token '%s'", path, name);
    }
    return RSI_OK;
}

rsi_status_t rsi_settings_add_token_file(struct rsi_settings *settings, const char *name,
                                         const char *path, struct rsi_error *error)
{
    char secret[RSI_AUTH_SECRET_BYTES_MAX + 3]; /* room to notice a longer one */
    ssize_t count = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "secret_file %s of token '%s'", path, name);
    }
    rsi_status_t status = read_secret(fd, name, path, secret, sizeof(secret), &count, error);
    close(fd);
    if (rsi_failed(status)) {
        return status;
    }
    /* A line that an editor or a shell ended. */
    while (count > 0 && (secret[count - 1] == '\n' || secret[count - 1] == '\r')) {
        count--;
    }
    if (count == 0) {
        status = rsi_fail(error, RSI_E_INVALID,
                          "secret_file %s of token '%s' is empty; make one with: "
                          "openssl rand -hex 32 > %s",
                          path, name, path);
    } else {
        status = add_token(settings, name, secret, (size_t)count, error);
    }
    explicit_bzero(secret, sizeof(secret));
    return status;
}

/* ---- one setting -------------------------------------------------------------------------------
 */

rsi_status_t rsi_setting_assign(struct rsi_settings *settings, const struct rsi_setting *setting,
                                const char *text, struct rsi_error *error)
{
    void *field = (char *)settings + setting->offset;
    switch (setting->type) {
    case RSI_SETTING_TEXT:
        if (field == settings->counters_path) {
            settings->counters_path_is_default = false;
        }
        return assign_text(field, setting, text, error);
    case RSI_SETTING_DPDK:
        return assign_text(field, setting, text, error);
    case RSI_SETTING_NUMBER:
    case RSI_SETTING_SIZE:
    case RSI_SETTING_DURATION:
        return assign_number(field, setting, text, error);
    case RSI_SETTING_FLAG:
        return assign_flag(field, setting, text, error);
    case RSI_SETTING_CPU:
        if (strcmp(text, "any") == 0) {
            *(int *)field = -1;
            return RSI_OK;
        }
        return parse_cpu(field, setting, text, error);
    case RSI_SETTING_WAIT:
        if (rsi_failed(rsi_idle_strategy_parse(field, text, NULL))) {
            return refuse(setting, text, NULL, error);
        }
        return RSI_OK;
    case RSI_SETTING_POLICY:
        return assign_policy(field, setting, text, error);
    case RSI_SETTING_LEVEL:
        if (rsi_failed(rsi_log_level_parse(field, text, NULL))) {
            return refuse(setting, text, NULL, error);
        }
        return RSI_OK;
    case RSI_SETTING_URLS:
        return append_url(settings, setting, text, error);
    case RSI_SETTING_CPUS:
        return append_cpu(settings, setting, text, error);
    case RSI_SETTING_UIDS:
        return append_uid(settings, setting, text, error);
    case RSI_SETTING_SUBJECTS:
        return append_subject(settings, setting, text, error);
    case RSI_SETTING_TOKENS:
        return append_token(settings, setting, text, error);
    }
    return rsi_fail(error, RSI_E_BUG, "%s: setting of no known type", setting->key);
}

static void clear_tokens(struct rsi_settings *settings)
{
    if (settings->tokens != NULL) {
        explicit_bzero(settings->tokens, settings->token_count * sizeof(*settings->tokens));
    }
    free(settings->tokens);
    settings->tokens = NULL;
    settings->token_count = 0;
}

void rsi_setting_clear(struct rsi_settings *settings, const struct rsi_setting *setting)
{
    rsi_assert(rsi_setting_is_list(setting));
    if (setting->type == RSI_SETTING_URLS) {
        settings->listen_count = 0;
        settings->listen_is_default = false;
    } else if (setting->type == RSI_SETTING_CPUS) {
        settings->agent_cpu_count = 0;
    } else if (setting->type == RSI_SETTING_UIDS) {
        settings->allowed_uid_count = 0;
    } else if (setting->type == RSI_SETTING_SUBJECTS) {
        settings->last_value_count = 0;
    } else {
        clear_tokens(settings);
    }
}

/* ---- all of them -------------------------------------------------------------------------------
 */

void rsi_settings_init(struct rsi_settings *settings)
{
    memset(settings, 0, sizeof(*settings));
    for (uint32_t i = 0; i < rsi_settings_table_count; i++) {
        const struct rsi_setting *setting = &rsi_settings_table[i];
        if (setting->fallback == NULL) {
            continue;
        }
        rsi_status_t status = rsi_setting_assign(settings, setting, setting->fallback, NULL);
        rsi_assert(status == RSI_OK);
    }
    for (uint32_t i = 0; i < rsi_array_count(default_listen); i++) {
        rsi_text_copy(settings->listen[i], RSI_SETTING_TEXT_BYTES, default_listen[i]);
    }
    settings->listen_count = rsi_array_count(default_listen);
    settings->listen_is_default = true;
    settings->counters_path_is_default = true;
    for (uint32_t i = 0; i < RSI_AGENT_COUNT_MAX; i++) {
        settings->agent_cpus[i] = -1;
    }
}

void rsi_settings_fini(struct rsi_settings *settings)
{
    clear_tokens(settings);
}

/* What has a last value is never retired, so it takes a topic and a publication for good. */
static rsi_status_t check_last_value(const struct rsi_settings *settings, struct rsi_error *error)
{
    if (settings->last_value_count == 0) {
        return RSI_OK;
    }
    if (settings->last_value_topics > settings->topic_count_max ||
        settings->last_value_topics > settings->publication_count_max / 2) {
        return rsi_fail(error, RSI_E_INVALID,
                        "last_value_topics (%llu) must not be more than topic_count_max (%llu) or "
                        "half of publication_count_max (%llu): lower the first or raise the others",
                        (unsigned long long)settings->last_value_topics,
                        (unsigned long long)settings->topic_count_max,
                        (unsigned long long)settings->publication_count_max);
    }
    uint64_t need_bytes = settings->last_value_topics * LAST_VALUE_BYTES_MIN;
    if (settings->last_value_bytes < need_bytes) {
        return rsi_fail(error, RSI_E_INVALID,
                        "last_value_bytes (%llu) must hold last_value_topics (%llu) values of at "
                        "least %llu bytes each: raise the first to %llu or lower the second",
                        (unsigned long long)settings->last_value_bytes,
                        (unsigned long long)settings->last_value_topics,
                        (unsigned long long)LAST_VALUE_BYTES_MIN, (unsigned long long)need_bytes);
    }
    return RSI_OK;
}

rsi_status_t rsi_settings_check(const struct rsi_settings *settings, struct rsi_error *error)
{
    uint64_t need_bytes = RSI_RING_PER_MESSAGE * settings->message_bytes_max;
    const struct {
        const char *key;
        uint64_t bytes;
    } holders[] = {
        {"log_bytes", settings->log_bytes},
        {"publish_ring_bytes_max", settings->publish_ring_bytes_max},
        {"deliver_ring_bytes_max", settings->deliver_ring_bytes_max},
    };
    for (uint32_t i = 0; i < rsi_array_count(holders); i++) {
        if (holders[i].bytes < need_bytes) {
            return rsi_fail(
                error, RSI_E_INVALID,
                "%s (%llu bytes) must hold %u messages of message_bytes_max (%llu bytes "
                "each): raise the first to %llu or lower the second to %llu",
                holders[i].key, (unsigned long long)holders[i].bytes, RSI_RING_PER_MESSAGE,
                (unsigned long long)settings->message_bytes_max,
                (unsigned long long)rsi_round_up_power_of_two(need_bytes),
                (unsigned long long)(holders[i].bytes / RSI_RING_PER_MESSAGE));
        }
    }
    if (settings->agent_cpu_count != 0 && settings->agent_cpu_count != settings->agent_count) {
        return rsi_fail(
            error, RSI_E_INVALID,
            "agent_cpus names %u CPUs for agents: %llu; name one for each agent or none",
            settings->agent_cpu_count, (unsigned long long)settings->agent_count);
    }
    for (uint32_t i = 0; i < settings->agent_cpu_count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (settings->agent_cpus[i] == settings->agent_cpus[j]) {
                return rsi_fail(error, RSI_E_INVALID,
                                "agent_cpus names CPU %d twice; two agents on one CPU only wait "
                                "for each other",
                                settings->agent_cpus[i]);
            }
        }
    }
    if (rsi_failed(check_last_value(settings, error))) {
        return RSI_E_INVALID;
    }
    struct rsi_dpdk_options dpdk;
    rsi_settings_dpdk(settings, &dpdk);
    if (rsi_failed(rsi_dpdk_options_check(&dpdk, error))) {
        return RSI_E_INVALID;
    }
    if (settings->default_policy == RSI_POLICY_BLOCK && !settings->allow_block) {
        return rsi_fail(error, RSI_E_INVALID,
                        "default_policy is block, but allow_block is no: change one of them");
    }
    if (settings->listen_count == 0) {
        return rsi_fail(error, RSI_E_INVALID, "listen is empty; example: %s",
                        rsi_setting_find("listen")->example);
    }
    return RSI_OK;
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static void print_scalar(const struct rsi_settings *settings, const struct rsi_setting *setting,
                         FILE *stream)
{
    const char *field = (const char *)settings + setting->offset;
    char text[64] = "";
    struct rsi_text out;
    rsi_text_init(&out, text, sizeof(text));
    uint64_t number = 0;
    int cpu = -1;
    switch (setting->type) {
    case RSI_SETTING_TEXT:
    case RSI_SETTING_DPDK:
        fprintf(stream, "%s: \"%s\"\n", setting->key, field);
        return;
    case RSI_SETTING_NUMBER:
        memcpy(&number, field, sizeof(number));
        rsi_text_append(&out, "%llu", (unsigned long long)number);
        break;
    case RSI_SETTING_SIZE:
        memcpy(&number, field, sizeof(number));
        rsi_text_append_size(&out, number);
        break;
    case RSI_SETTING_DURATION:
        memcpy(&number, field, sizeof(number));
        if (number == 0) {
            rsi_text_append(&out, "0");
        } else {
            rsi_text_append_duration(&out, number);
        }
        break;
    case RSI_SETTING_FLAG:
        rsi_text_append(&out, "%s", *(const bool *)field ? "yes" : "no");
        break;
    case RSI_SETTING_CPU:
        memcpy(&cpu, field, sizeof(cpu));
        if (cpu < 0) {
            rsi_text_append(&out, "any");
        } else {
            rsi_text_append(&out, "%d", cpu);
        }
        break;
    case RSI_SETTING_WAIT:
        rsi_text_append(&out, "%s", rsi_idle_strategy_name(settings->wait));
        break;
    case RSI_SETTING_POLICY:
        rsi_text_append(&out, "%s", rsi_policy_name(settings->default_policy));
        break;
    case RSI_SETTING_LEVEL:
        rsi_text_append(&out, "%s", rsi_log_level_name(settings->log_level));
        break;
    case RSI_SETTING_URLS:
    case RSI_SETTING_CPUS:
    case RSI_SETTING_UIDS:
    case RSI_SETTING_SUBJECTS:
    case RSI_SETTING_TOKENS:
        return;
    }
    fprintf(stream, "%s: %s\n", setting->key, text);
}

static void print_list(const struct rsi_settings *settings, const struct rsi_setting *setting,
                       FILE *stream)
{
    const char *comma = "";
    fprintf(stream, "%s: [", setting->key);
    if (setting->type == RSI_SETTING_URLS) {
        for (uint32_t i = 0; i < settings->listen_count; i++, comma = ", ") {
            fprintf(stream, "%s\"%s\"", comma, settings->listen[i]);
        }
    } else if (setting->type == RSI_SETTING_CPUS) {
        for (uint32_t i = 0; i < settings->agent_cpu_count; i++, comma = ", ") {
            fprintf(stream, "%s%d", comma, settings->agent_cpus[i]);
        }
    } else if (setting->type == RSI_SETTING_UIDS) {
        for (uint32_t i = 0; i < settings->allowed_uid_count; i++, comma = ", ") {
            fprintf(stream, "%s%u", comma, settings->allowed_uids[i]);
        }
    } else if (setting->type == RSI_SETTING_SUBJECTS) {
        for (uint32_t i = 0; i < settings->last_value_count; i++, comma = ", ") {
            fprintf(stream, "%s\"%s\"", comma, settings->last_value[i]);
        }
    }
    fprintf(stream, "]\n");
    if (setting->type == RSI_SETTING_TOKENS && settings->token_count > 0) {
        fprintf(stream, "# (%u tokens are set; secrets are not printed)\n", settings->token_count);
    }
}

void rsi_settings_print(const struct rsi_settings *settings, FILE *stream)
{
    fprintf(stream, "# Settings of ringsided. Flags of the same name (--log-bytes for log_bytes) "
                    "override this file.\n"
                    "# Sizes: B, KiB, MiB, GiB. Durations: ns, us, ms, s, m, h.\n");
    for (uint32_t i = 0; i < rsi_settings_table_count; i++) {
        const struct rsi_setting *setting = &rsi_settings_table[i];
        char range[96];
        rsi_setting_describe_range(setting, range, sizeof(range));
        fprintf(stream, "\n# %s.\n# Valid: %s. Example: %s\n", setting->help, range,
                setting->example);
        if (rsi_setting_is_list(setting)) {
            print_list(settings, setting, stream);
        } else {
            print_scalar(settings, setting, stream);
        }
    }
}
