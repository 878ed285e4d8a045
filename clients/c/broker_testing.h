/*
 * A whole broker on a thread of the test's own process, and what tests of clients share.
 */
#ifndef RSI_CLIENT_BROKER_TESTING_H
#define RSI_CLIENT_BROKER_TESTING_H

#include "core/testing.h"

#include "broker/broker.h"
#include "clients/c/ringside.h"

#include <pthread.h>

struct broker_testing {
    struct rsi_settings settings;
    struct rsi_broker *broker;
    pthread_t thread;
    bool is_running;
    rsi_status_t run_status;
    char directory[64];
    char shm_url[RSI_SETTING_TEXT_BYTES];
    char tcp_url[RSI_SETTING_TEXT_BYTES];
    char sim_url[RSI_SETTING_TEXT_BYTES];
};

/* Settings with defaults fit for a test: a socket in a new directory and a free tcp port. */
void broker_testing_init(struct broker_testing *testing);
/* Creates and runs the broker; the URLs are real from here on. */
void broker_testing_start(struct broker_testing *testing);
/* Asks it to stop and waits for it. */
void broker_testing_stop(struct broker_testing *testing);
/* Stops what runs and removes the directory. */
void broker_testing_fini(struct broker_testing *testing);

/* What a callback saw: a bounded list of copies. */
#define RECORD_COUNT_MAX 512u
struct record {
    char subject[RSI_SUBJECT_BYTES_MAX + 1];
    char publisher[RSI_NAME_BYTES_MAX + 1];
    uint8_t first_bytes[32];
    size_t bytes;
    uint64_t sum; /* of all bytes */
    uint64_t sequence;
    uint64_t publication;
};

struct recorder {
    uint32_t count;
    struct record records[RECORD_COUNT_MAX];
    uint32_t event_count;
    ringside_event_type_t last_event;
    ringside_status_t last_status;
    char last_text[512];
};

void recorder_on_message(void *arg, const ringside_message_t *message);
void recorder_on_event(void *arg, const ringside_event_t *event);

/* Polls `client` until `condition` holds; a hang fails the test. */
#define poll_until(client, condition)                                                  \
    do {                                                                               \
        uint64_t poll_deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;              \
        while (!(condition)) {                                                         \
            assert_int_equal(ringside_poll((client), 0, 10000000, NULL), RINGSIDE_OK); \
            if (rsi_test_now_ns() > poll_deadline_ns)                                  \
                fail_msg("still not true after 20 s: %s", #condition);                 \
        }                                                                              \
    } while (0)

/* Fails with the client's text. */
#define assert_ok(client, call)                                                   \
    do {                                                                          \
        ringside_status_t assert_ok_status = (call);                              \
        if (assert_ok_status != RINGSIDE_OK)                                      \
            fail_msg("%s: %s: %s", #call, ringside_status_name(assert_ok_status), \
                     ringside_error_text(client));                                \
    } while (0)

#endif
