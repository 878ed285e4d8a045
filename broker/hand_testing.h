/*
 * For tests: data agents without threads, moved by hand in an order drawn from a seed, and sessions
 * whose links are memory. So an interleaving can be chosen, repeated and looked at from inside.
 */
#ifndef RSI_BROKER_HAND_TESTING_H
#define RSI_BROKER_HAND_TESTING_H

#include "broker/agent_internal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum {
    HAND_SESSION_MAX = 16,
    HAND_PUBLICATION_MAX = 64,
    HAND_ALIAS_MAX = 8,
    HAND_SNAPSHOT_MAX = 64
};
#define HAND_MESSAGE_BYTES_MAX (4u << 10)
/* No test waits longer for anything. */
#define HAND_DEADLINE_NS UINT64_C(20000000000)

/* One client: what it published and what it got, checked frame by frame. */
struct hand_client {
    struct hand *hand;
    struct rsi_session session;
    struct rsi_link *link;
    uint64_t read_pos; /* of the link's out ring */
    uint64_t received_count;
    uint64_t received_bytes; /* of frames, of all kinds */
    uint64_t gap_count;      /* messages that gaps told of */
    uint64_t expected[HAND_PUBLICATION_MAX];
    uint64_t received_of[HAND_PUBLICATION_MAX];
    uint64_t gap_of[HAND_PUBLICATION_MAX];
    bool is_known[HAND_PUBLICATION_MAX];
    uint64_t published_of[HAND_ALIAS_MAX + 1];
    uint32_t publication_of[HAND_ALIAS_MAX + 1];
    uint64_t last_subscription;
    /* Last values. */
    struct rsi_snapshot snapshots[HAND_SNAPSHOT_MAX];
    uint32_t snapshot_count;
    uint64_t started; /* the subscription of the latest mark START; VALUES and END likewise */
    uint64_t valued;
    uint64_t ended;
    uint64_t last_count;                    /* values received */
    uint64_t last_of[HAND_PUBLICATION_MAX]; /* sequence of the value, since VALUES; 0: none */
    uint64_t live_of[HAND_PUBLICATION_MAX]; /* sequence of the latest message since START */
};

/* A message that a client got, from whatever publisher. */
typedef void hand_on_message_t(struct hand_client *client, const struct rsi_frame *frame);

struct hand {
    struct rsi_waker control_waker;
    struct rsi_data_options options;
    struct rsi_data_plane *plane;
    uint64_t random;
    bool keeps_last; /* topics that are opened from here on have a last value */
    struct hand_client clients[HAND_SESSION_MAX];
    uint32_t client_count;
    struct rsi_publication publications[HAND_PUBLICATION_MAX]; /* [0] is not used */
    uint32_t publication_count;
    hand_on_message_t *on_message; /* NULL: nobody looks */
    void *arg;
};

struct hand *hand_create(uint32_t agent_count, uint64_t seed, uint64_t log_bytes);
void hand_destroy(struct hand *hand);
uint64_t hand_random(struct hand *hand);

/* One pass of one agent, the next of the seed; then looks at what must always hold. */
void hand_step(struct hand *hand);
/* Passes of all agents until none has anything to do. */
void hand_rest(struct hand *hand);
#define hand_wait(hand, condition)                                      \
    do {                                                                \
        uint64_t hand_until_ns = rsi_clock_now_ns() + HAND_DEADLINE_NS; \
        while (!(condition)) {                                          \
            if (rsi_clock_now_ns() > hand_until_ns) {                   \
                fail_msg("not in time: %s", #condition);                \
            }                                                           \
            hand_step(hand);                                            \
        }                                                               \
    } while (0)

uint64_t hand_post(struct hand *hand, const struct rsi_edit *edit);
void hand_apply(struct hand *hand, const struct rsi_edit *edit);

struct hand_client *hand_join(struct hand *hand, uint32_t agent, uint64_t ring_bytes);
void hand_leave(struct hand_client *client);
/* `topic` is the subject's number, the same for all its publications. */
void hand_open(struct hand_client *client, uint32_t alias, uint32_t topic, const char *subject);
/* Returns the subscription's number; waits until every agent has applied it. */
uint64_t hand_subscribe(struct hand_client *client, const char *pattern, enum rsi_policy policy);
uint64_t hand_subscribe_quiet(struct hand_client *client, const char *pattern,
                              enum rsi_policy policy, bool no_echo);
/* As a member of a queue group. */
uint64_t hand_subscribe_group(struct hand_client *client, const char *pattern,
                              enum rsi_policy policy, const char *group);
/* The same, with last values first. */
uint64_t hand_subscribe_last(struct hand_client *client, const char *pattern,
                             enum rsi_policy policy);
void hand_unsubscribe(struct hand_client *client, uint64_t subscription);

/* False: its ring has no room. */
bool hand_publish(struct hand_client *client, uint32_t alias, uint32_t payload_bytes);
/* Publishes while there is room; how many that were. */
uint64_t hand_publish_all(struct hand_client *client, uint32_t alias, uint32_t payload_bytes);
/* Reads and checks up to so many bytes. */
void hand_read(struct hand_client *client, uint64_t bytes);
/* Reads until everything is at rest. */
void hand_read_all(struct hand_client *client);

static inline uint64_t hand_admitted(const struct hand_client *client)
{
    return rsi_load_relaxed(&client->session.counts.admitted_messages);
}

/* All that this client published on the alias was received, or told in a gap. */
bool hand_has_all(const struct hand_client *reader, const struct hand_client *publisher,
                  uint32_t alias);

#endif
