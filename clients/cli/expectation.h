/*
 * What a subscriber must receive: for each subject the payloads in their order, byte for byte.
 *
 * Filled with rsi_expectation_add, then each message received is given to rsi_expectation_check,
 * which tells what it is; the counts add up to all that was expected and all that came.
 */
#ifndef RSI_CLI_EXPECTATION_H
#define RSI_CLI_EXPECTATION_H

#include "core/error.h"

#include <stddef.h>
#include <stdint.h>

/* How far from the expected place a message is looked for, in messages of its subject. */
enum { RSI_EXPECTATION_SEARCH_COUNT = 4096 };

typedef enum rsi_verdict {
    RSI_VERDICT_AS_EXPECTED,
    RSI_VERDICT_AHEAD,        /* expected later: those between are missing up to now */
    RSI_VERDICT_OUT_OF_ORDER, /* was missing, and comes after later ones */
    RSI_VERDICT_DOUBLED,      /* came before */
    RSI_VERDICT_DIFFERENT,    /* no message near its place has these bytes */
    RSI_VERDICT_STRANGE,      /* of a subject on which nothing is expected */
    RSI_VERDICT_COUNT,
} rsi_verdict_t;

struct rsi_expected_subject;

struct rsi_expectation {
    uint8_t *payloads; /* all, one behind the other */
    size_t payload_bytes;
    size_t payload_room_bytes;
    struct rsi_expected_subject *subjects;
    uint64_t expected_count;
    uint64_t matched_count; /* expected messages that came, in order or not */
    uint64_t verdict_counts[RSI_VERDICT_COUNT];
};

/* NO_MEMORY. A zeroed expectation is an empty one. */
RSI_MUST_CHECK rsi_status_t rsi_expectation_add(struct rsi_expectation *expectation,
                                                const char *subject, size_t subject_bytes,
                                                const void *payload, size_t payload_bytes,
                                                struct rsi_error *error);
void rsi_expectation_fini(struct rsi_expectation *expectation);
rsi_verdict_t rsi_expectation_check(struct rsi_expectation *expectation, const char *subject,
                                    size_t subject_bytes, const void *payload,
                                    size_t payload_bytes);
size_t rsi_expectation_subject_count(const struct rsi_expectation *expectation);
const char *rsi_verdict_name(rsi_verdict_t verdict);
/* All came, each once and in order, and nothing else. */
int rsi_expectation_is_met(const struct rsi_expectation *expectation);

/* Calls back for subjects that still miss messages: how many of how many, and the first place. */
typedef void rsi_missing_handler(void *arg, const char *subject, uint64_t missing_count,
                                 uint64_t expected_count, uint64_t first_index);
void rsi_expectation_each_missing(const struct rsi_expectation *expectation,
                                  rsi_missing_handler *handler, void *arg);

#endif
