/*
 * Design notes
 * - Order is promised per publisher and subject, and a replay has one publisher per subject: so
 * each subject has one list and a place in it.
 * - The usual case is one comparison with the message at the place. Only when that fails is the
 *   neighbourhood searched, so that one fault is counted as what it is and does not spoil the rest.
 * - Equal payloads close to each other cannot be told apart; the nearest that did not come yet is
 * taken.
 */
#include "clients/cli/expectation.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct expected_message {
    size_t offset;
    uint32_t bytes;
    bool has_come;
};

struct rsi_expected_subject {
    UT_hash_handle hh;
    struct expected_message *messages;
    size_t message_count;
    size_t message_room_count;
    size_t place; /* all before it came or were passed over */
    char subject[];
};

static struct rsi_expected_subject *find_subject(const struct rsi_expectation *expectation,
                                                 const char *subject, size_t subject_bytes)
{
    struct rsi_expected_subject *found = NULL;
    HASH_FIND(hh, expectation->subjects, subject, subject_bytes, found);
    return found;
}

static struct rsi_expected_subject *add_subject(struct rsi_expectation *expectation,
                                                const char *subject, size_t subject_bytes)
{
    struct rsi_expected_subject *made = calloc(1, sizeof(*made) + subject_bytes + 1);
    if (made == NULL) {
        return NULL;
    }
    memcpy(made->subject, subject, subject_bytes);
    HASH_ADD_KEYPTR(hh, expectation->subjects, made->subject, subject_bytes, made);
    return made;
}

/* Doubles an array until it has room for one more of `wanted` elements. */
static bool grow(void **array, size_t *room, size_t wanted, size_t element_bytes, size_t least)
{
    if (wanted <= *room) {
        return true;
    }
    size_t larger = *room == 0 ? least : *room;
    while (larger < wanted) {
        larger *= 2;
    }
    void *moved = realloc(*array, larger * element_bytes);
    if (moved == NULL) {
        return false;
    }
    *array = moved;
    *room = larger;
    return true;
}

rsi_status_t rsi_expectation_add(struct rsi_expectation *expectation, const char *subject,
                                 size_t subject_bytes, const void *payload, size_t payload_bytes,
                                 struct rsi_error *error)
{
    struct rsi_expected_subject *list = find_subject(expectation, subject, subject_bytes);
    if (list == NULL) {
        list = add_subject(expectation, subject, subject_bytes);
    }
    if (list == NULL ||
        !grow((void **)&list->messages, &list->message_room_count, list->message_count + 1,
              sizeof(*list->messages), 16) ||
        !grow((void **)&expectation->payloads, &expectation->payload_room_bytes,
              expectation->payload_bytes + payload_bytes, 1, (size_t)1 << 20)) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for what is expected");
    }
    list->messages[list->message_count++] = (struct expected_message){
        .offset = expectation->payload_bytes,
        .bytes = (uint32_t)payload_bytes,
    };
    memcpy(expectation->payloads + expectation->payload_bytes, payload, payload_bytes);
    expectation->payload_bytes += payload_bytes;
    expectation->expected_count++;
    return RSI_OK;
}

void rsi_expectation_fini(struct rsi_expectation *expectation)
{
    struct rsi_expected_subject *list, *next;
    HASH_ITER(hh, expectation->subjects, list, next)
    {
        HASH_DEL(expectation->subjects, list);
        free(list->messages);
        free(list);
    }
    free(expectation->payloads);
    memset(expectation, 0, sizeof(*expectation));
}

static bool is_equal(const struct rsi_expectation *expectation,
                     const struct expected_message *message, const void *payload, size_t bytes)
{
    return message->bytes == bytes &&
           memcmp(expectation->payloads + message->offset, payload, bytes) == 0;
}

static rsi_verdict_t search(struct rsi_expectation *expectation, struct rsi_expected_subject *list,
                            const void *payload, size_t bytes)
{
    size_t left_count = list->message_count - list->place;
    size_t reach =
        left_count < RSI_EXPECTATION_SEARCH_COUNT ? left_count : RSI_EXPECTATION_SEARCH_COUNT;
    for (size_t i = list->place; i < list->place + reach; i++) {
        if (is_equal(expectation, &list->messages[i], payload, bytes)) {
            list->messages[i].has_come = true;
            list->place = i + 1;
            expectation->matched_count++;
            return RSI_VERDICT_AHEAD;
        }
    }
    reach = list->place < RSI_EXPECTATION_SEARCH_COUNT ? list->place : RSI_EXPECTATION_SEARCH_COUNT;
    bool is_doubled = false;
    for (size_t i = list->place; i > list->place - reach; i--) {
        struct expected_message *message = &list->messages[i - 1];
        if (!is_equal(expectation, message, payload, bytes)) {
            continue;
        }
        if (!message->has_come) {
            message->has_come = true;
            expectation->matched_count++;
            return RSI_VERDICT_OUT_OF_ORDER;
        }
        is_doubled = true;
    }
    return is_doubled ? RSI_VERDICT_DOUBLED : RSI_VERDICT_DIFFERENT;
}

rsi_verdict_t rsi_expectation_check(struct rsi_expectation *expectation, const char *subject,
                                    size_t subject_bytes, const void *payload, size_t payload_bytes)
{
    struct rsi_expected_subject *list = find_subject(expectation, subject, subject_bytes);
    rsi_verdict_t verdict;
    if (list == NULL) {
        verdict = RSI_VERDICT_STRANGE;
    } else if (list->place < list->message_count &&
               is_equal(expectation, &list->messages[list->place], payload, payload_bytes)) {
        list->messages[list->place++].has_come = true;
        expectation->matched_count++;
        verdict = RSI_VERDICT_AS_EXPECTED;
    } else {
        verdict = search(expectation, list, payload, payload_bytes);
    }
    expectation->verdict_counts[verdict]++;
    return verdict;
}

size_t rsi_expectation_subject_count(const struct rsi_expectation *expectation)
{
    return HASH_COUNT(expectation->subjects);
}

const char *rsi_verdict_name(rsi_verdict_t verdict)
{
    static const char *const names[RSI_VERDICT_COUNT] = {
        [RSI_VERDICT_AS_EXPECTED] = "as expected",   [RSI_VERDICT_AHEAD] = "after a hole",
        [RSI_VERDICT_OUT_OF_ORDER] = "out of order", [RSI_VERDICT_DOUBLED] = "doubled",
        [RSI_VERDICT_DIFFERENT] = "different",       [RSI_VERDICT_STRANGE] = "of another subject",
    };
    return names[verdict];
}

int rsi_expectation_is_met(const struct rsi_expectation *expectation)
{
    uint64_t wrong_count = 0;
    for (int verdict = RSI_VERDICT_AHEAD; verdict < RSI_VERDICT_COUNT; verdict++) {
        wrong_count += expectation->verdict_counts[verdict];
    }
    return wrong_count == 0 && expectation->matched_count == expectation->expected_count;
}

void rsi_expectation_each_missing(const struct rsi_expectation *expectation,
                                  rsi_missing_handler *handler, void *arg)
{
    const struct rsi_expected_subject *list = expectation->subjects;
    for (; list != NULL; list = list->hh.next) {
        uint64_t missing_count = 0;
        uint64_t first_index = 0;
        for (size_t i = list->message_count; i > 0; i--) {
            if (!list->messages[i - 1].has_come) {
                missing_count++;
                first_index = i - 1;
            }
        }
        if (missing_count > 0) {
            handler(arg, list->subject, missing_count, list->message_count, first_index);
        }
    }
}
