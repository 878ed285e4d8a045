/*
 * A broker and its clients in one process, all busy, so that every thread of the hot path can be
 * watched: the data agents have threads of their own, the clients share the test's. A stage is made
 * once per process.
 */
#ifndef RSI_TESTS_HOT_PATH_STAGE_H
#define RSI_TESTS_HOT_PATH_STAGE_H

#include "broker/broker.h"
#include "clients/c/ringside.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { STAGE_READER_COUNT_MAX = 3, STAGE_PUBLISHER_COUNT = 2, STAGE_HOLD_COUNT = 3 };

#define STAGE_DELIVER_RING_BYTES UINT64_C(65536)
#define STAGE_PUBLISH_RING_BYTES UINT64_C(131072)
#define STAGE_LOG_BYTES          UINT64_C(1048576)
#define STAGE_CLIENT_ROLE        "clients"

struct stage_options {
    const char *transport; /* "shm", "tcp" */
    unsigned agent_count;
    unsigned reader_count;
    ringside_policy_t policy;
    bool readers_sleep; /* while there is nothing for them */
};

struct stage_reader {
    ringside_client_t *client;
    ringside_hold_t *holds[STAGE_HOLD_COUNT]; /* every eighth message is held until the next poll */
    uint64_t message_count;                   /* handed over */
    uint64_t missed_count;                    /* told as gaps */
    uint64_t gap_count;
    uint64_t sum; /* of the payloads' first words: looked at, as an application would */
};

struct stage {
    struct stage_options options;
    struct rsi_settings settings;
    struct rsi_broker *broker;
    pthread_t thread;
    char directory[64];
    ringside_client_t *writer;
    ringside_publisher_t *publishers[STAGE_PUBLISHER_COUNT];
    struct stage_reader readers[STAGE_READER_COUNT_MAX];
    uint64_t published_count;
};

/* Each ends the process when something goes wrong, and says what. */
void stage_open(struct stage *stage, const struct stage_options *options);
/* Publishes one message of `bytes`, every other one by claim and commit, every fourth one with a
 * header, which counts into `bytes`; waits for room. While it
 * waits, readers are polled if `with_readers`. */
void stage_publish(struct stage *stage, size_t bytes, bool with_readers);
/* Nobody reads: publishes until there is no room any more, however long one waits. */
void stage_publish_until_pushed_back(struct stage *stage, size_t bytes);
/* Polls once: the writer, or all readers; lets other threads run when there was nothing. */
void stage_poll_writer(struct stage *stage);
void stage_poll_readers(struct stage *stage);
/* How often readers asked to be woken, since they connected. */
uint64_t stage_wake_requests(const struct stage *stage);
/* Until each reader has got or missed all that was published. */
void stage_drain(struct stage *stage);

_Noreturn void stage_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
