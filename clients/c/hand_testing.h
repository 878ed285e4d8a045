/*
 * A broker made by hand, on a thread of the test's: it speaks the control lane, echoes what is
 * published to whoever subscribed to anything, and keeps one session over cuts. Tests make it cut,
 * refuse, forget, fall silent and start anew, at will, which a real broker would not.
 */
#ifndef RSI_CLIENT_HAND_TESTING_H
#define RSI_CLIENT_HAND_TESTING_H

#include "core/testing.h"

#include "clients/c/ringside.h"
#include "transport/auth.h"
#include "transport/control_codec.h"
#include "transport/transport.h"

#include <pthread.h>

enum { HAND_LINK_COUNT = 8, HAND_ALIAS_COUNT = 8, HAND_REQUEST_COUNT = 64 };

/* One accepted link. */
struct hand_link {
    struct rsi_link *link;
    struct rsi_control_receiver receiver;
    uint8_t client_nonce[RSI_AUTH_NONCE_BYTES];
    uint8_t broker_nonce[RSI_AUTH_NONCE_BYTES];
    char client_name[RSI_NAME_BYTES_MAX + 1];
    bool is_greeted;
    bool wants_session; /* authenticated, waits for the session's old link to be CLOSED */
    uint64_t told_arrived_pos;
    uint64_t told_consumed_pos;
};

struct hand_broker {
    char url[64];
    pthread_t thread;
    pthread_mutex_t lock; /* held during a pass; guards everything below */
    bool is_stopping;
    uint64_t incarnation;
    struct rsi_domain *domain;
    struct rsi_poller *poller;
    struct rsi_listener *listener;
    struct hand_link links[HAND_LINK_COUNT];

    /* What the test asks for. */
    uint64_t grace_ns;
    bool is_silent;                    /* takes no control message and no data */
    bool is_deaf;                      /* takes no data */
    bool forgets_requests;             /* reads requests and does not answer */
    bool answers_twice;                /* each request */
    Ringside__Control__Reason refuses; /* every Authenticate, as long as it is not NONE */
    Ringside__Control__Reason refuses_once;
    bool has_ended; /* says of the session to be resumed: for `ended_reason` */
    Ringside__Control__Reason ended_reason;
    uint64_t ended_untaken_bytes; /* of what had arrived, when it ended */
    uint32_t forgets_resumes;     /* so many tries to resume are read and not answered */
    bool lies_about_positions;    /* in a Welcome that resumes */
    uint64_t publish_bytes_max;   /* of rings; 0: what is asked for */
    bool refuses_publishers;

    /* The one session. */
    uint64_t session; /* 0: none */
    uint8_t secret[RSI_AUTH_PROOF_BYTES];
    struct rsi_link *carrier; /* its link, or what is left of it */
    uint64_t last_session;
    uint32_t last_attempt;
    uint32_t subscription_count;
    char subjects[HAND_ALIAS_COUNT][RSI_SUBJECT_BYTES_MAX + 1]; /* by alias; empty: not open */
    uint64_t sequences[HAND_ALIAS_COUNT];
    bool is_announced[HAND_ALIAS_COUNT];
    uint64_t requests[HAND_REQUEST_COUNT]; /* numbers seen in this session, in order */
    uint32_t request_count;
    uint32_t repeated_count; /* requests that came again */
    struct {
        uint64_t request; /* 0: none waits */
        uint64_t end_pos;
    } closing[HAND_ALIAS_COUNT]; /* by alias */
    uint32_t bye_count;
    uint64_t taken_count; /* messages */
    uint64_t fault_count; /* frames of an alias that is not open */

    /* Over all sessions. */
    uint32_t hello_count;
    uint32_t resume_count;
    uint32_t superseded_count; /* sessions that their client left for another one */
    uint32_t hint_seen;        /* agent hint of the last greeting */
};

/* `name`: of its sim:// URL. */
void hand_broker_init(struct hand_broker *broker, const char *name);
void hand_broker_fini(struct hand_broker *broker);
/* Cuts the session's link, or all links that are there. */
void hand_broker_cut(struct hand_broker *broker);
/* Its process dies and another one starts: links gone, nothing known, another incarnation. */
void hand_broker_restart(struct hand_broker *broker);
/* No listener, no links, until restart. */
void hand_broker_kill(struct hand_broker *broker);

#define hand_broker_set(broker, field, value)  \
    do {                                       \
        pthread_mutex_lock(&(broker)->lock);   \
        (broker)->field = (value);             \
        pthread_mutex_unlock(&(broker)->lock); \
    } while (0)
/* A number under the lock. */
#define hand_broker_get(broker, field)         \
    __extension__({                            \
        pthread_mutex_lock(&(broker)->lock);   \
        uint64_t hand_value = (broker)->field; \
        pthread_mutex_unlock(&(broker)->lock); \
        hand_value;                            \
    })

#endif
