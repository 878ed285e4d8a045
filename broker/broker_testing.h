/*
 * For tests: a broker on a thread of this process, and a client that speaks the control lane by
 * hand, so that it can also say what no real client would.
 *
 * Everything waits for a condition with a deadline; a test that hangs fails and names the place.
 */
#ifndef RSI_BROKER_BROKER_TESTING_H
#define RSI_BROKER_BROKER_TESTING_H

#include "broker/broker.h"
#include "core/clock.h"
#include "transport/auth.h"
#include "transport/control_codec.h"
#include "transport/frame.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define RSI_TESTING_DEADLINE_NS UINT64_C(20000000000)

struct rsi_testing_broker {
    struct rsi_settings settings; /* change them between init and start */
    struct rsi_broker *broker;
    pthread_t thread;
    rsi_status_t status; /* of rsi_broker_run */
    struct rsi_error error;
    char directory[64]; /* for sockets and secrets; removed by fini */
};

/* A link and what it stands on. */
struct rsi_testing_link {
    const struct rsi_transport *transport;
    struct rsi_domain *domain;
    struct rsi_poller *poller;
    struct rsi_link *link;
};

/* How a client asks to resume; rsi_testing_client_truth() is how the true one does. */
struct rsi_testing_claim {
    uint64_t session;
    uint8_t secret[RSI_AUTH_NONCE_BYTES];
    uint64_t arrived_pos;
    uint64_t consumed_pos;
    uint32_t attempt;
    bool begins_anew; /* in place of it, with rings of 256 KiB */
};

struct rsi_testing_client {
    const struct rsi_transport *transport;
    struct rsi_domain *domain;
    struct rsi_poller *poller;
    struct rsi_link *link;
    struct rsi_testing_link old; /* CLOSED; while it is on its way from one link to the next */
    struct rsi_control_receiver receiver;
    uint8_t nonce[RSI_AUTH_NONCE_BYTES];
    uint8_t broker_nonce[RSI_AUTH_NONCE_BYTES];
    char name[RSI_NAME_BYTES_MAX + 1];
    uint64_t incarnation;
    uint64_t session;
    uint8_t secret[RSI_AUTH_NONCE_BYTES]; /* the session's */
    uint32_t home_agent;
    uint32_t attempt;
    uint64_t message_bytes_max;
    uint64_t last_request;
};

/* "tcp", "shm" or "sim", for the listeners of all brokers that follow. */
void rsi_testing_use(const char *transport);

/* Settings fit for tests: small log, one listener on a free port or path, no counters file. */
void rsi_testing_broker_init(struct rsi_testing_broker *broker);
void rsi_testing_broker_start(struct rsi_testing_broker *broker);
/* Asks it to stop, without waiting. */
void rsi_testing_broker_stop(struct rsi_testing_broker *broker);
/* Waits until run has returned; its status. */
rsi_status_t rsi_testing_broker_join(struct rsi_testing_broker *broker);
/* After join, or before start. */
void rsi_testing_broker_fini(struct rsi_testing_broker *broker);

/* Dials and waits until the control lane works. */
void rsi_testing_client_open(struct rsi_testing_client *client,
                             const struct rsi_testing_broker *broker, const char *name);
/* Dials and does not wait. */
void rsi_testing_client_dial(struct rsi_testing_client *client,
                             const struct rsi_testing_broker *broker, const char *name);
void rsi_testing_client_drive(struct rsi_testing_client *client);
void rsi_testing_client_send(struct rsi_testing_client *client,
                             const Ringside__Control__Control *message);
/* The next message, to be freed with rsi_control_free; NULL: the link ended first. */
Ringside__Control__Control *rsi_testing_client_receive(struct rsi_testing_client *client);
/* Receives and checks that it is Refused with this reason; `part`: a piece of its text. */
void rsi_testing_client_expect_refused(struct rsi_testing_client *client,
                                       Ringside__Control__Reason reason, const char *part);
/* Receives and checks that it is Bye with this reason. */
void rsi_testing_client_expect_bye(struct rsi_testing_client *client,
                                   Ringside__Control__Reason reason);
/* Waits until the broker has ended the link. */
void rsi_testing_client_expect_end(struct rsi_testing_client *client);
/* Closes and frees, in any state. */
void rsi_testing_client_close(struct rsi_testing_client *client);

/* Hello -> Challenge. */
void rsi_testing_client_hello(struct rsi_testing_client *client, const char *token_name);
/* Authenticate with a proof of `secret`, or without one if it is NULL. */
void rsi_testing_client_authenticate(struct rsi_testing_client *client, const char *secret,
                                     uint64_t publish_ring_bytes, uint64_t deliver_ring_bytes,
                                     uint64_t message_bytes_max);
/* Welcome -> ATTACHED. */
void rsi_testing_client_attach(struct rsi_testing_client *client);
/* All of the above, with rings of 256 KiB. */
void rsi_testing_client_join(struct rsi_testing_client *client,
                             const struct rsi_testing_broker *broker, const char *name);

/* Closes its link and waits for CLOSED; its rings are kept for the next one. */
void rsi_testing_client_cut(struct rsi_testing_client *client);
/* Dials the broker's `url_index`-th URL with a hint (0: none), and waits until the lane works. */
void rsi_testing_client_redial(struct rsi_testing_client *client,
                               const struct rsi_testing_broker *broker, uint32_t url_index,
                               uint32_t agent_hint);
struct rsi_testing_claim rsi_testing_client_truth(struct rsi_testing_client *client);
/* Hello and Authenticate, with no token. */
void rsi_testing_client_claim(struct rsi_testing_client *client,
                              const struct rsi_testing_claim *claim);
/* Welcome -> ATTACHED, and what is owed moves to the new link. False: ELSEWHERE, to be dialled
 * again. */
bool rsi_testing_client_take_over(struct rsi_testing_client *client);
/* Drops the link it dialled: it is back to the CLOSED one. */
void rsi_testing_client_give_up(struct rsi_testing_client *client);
/* redial at its home agent, truth, claim, take_over, until that succeeds. */
void rsi_testing_client_resume(struct rsi_testing_client *client,
                               const struct rsi_testing_broker *broker, uint32_t url_index);

/* Sends a request and returns its number. */
uint64_t rsi_testing_client_open_publisher(struct rsi_testing_client *client, uint32_t alias,
                                           const char *subject);
uint64_t rsi_testing_client_subscribe(struct rsi_testing_client *client, uint64_t subscription,
                                      const char *subject, Ringside__Control__Policy policy);
/* Also waits for its answer. */
void rsi_testing_client_unsubscribe(struct rsi_testing_client *client, uint64_t subscription);
/* Receives and checks the answer's kind and number. */
void rsi_testing_client_expect_opened(struct rsi_testing_client *client, uint64_t request);
void rsi_testing_client_expect_subscribed(struct rsi_testing_client *client, uint64_t request);
void rsi_testing_client_expect_done(struct rsi_testing_client *client, uint64_t request);
void rsi_testing_client_say_bye(struct rsi_testing_client *client);

/* Publishes one message that holds `number`; waits for room. */
void rsi_testing_client_publish(struct rsi_testing_client *client, uint32_t alias, uint64_t number);
/* Counts the messages in the ring so far, and checks that their numbers go on from *next. */
void rsi_testing_client_read(struct rsi_testing_client *client, uint64_t *next);

/* Drives one or two clients (`other` may be NULL) until the condition holds. */
#define rsi_testing_wait(client, other, condition)                                       \
    do {                                                                                 \
        uint64_t rsi_testing_until_ns = rsi_clock_now_ns() + RSI_TESTING_DEADLINE_NS;    \
        while (!(condition)) {                                                           \
            rsi_testing_drive_both((client), (other), rsi_testing_until_ns, #condition); \
        }                                                                                \
    } while (0)

void rsi_testing_drive_both(struct rsi_testing_client *client, struct rsi_testing_client *other,
                            uint64_t until_ns, const char *condition);

#endif
