/*
 * A connection: an accepted link and all that the control agent knows of the client behind it,
 * from the first greeting to the last freed byte.
 *
 * A session outlives its link: its connection waits for another one, which the client proves on a
 * connection of its own; that link is then handed over, and that connection ends.
 *
 * Control thread only. connection.c moves the state and ends connections, handshake.c answers until
 * the client is authenticated, requests.c serves it afterwards, resume.c brings it to its next
 * link.
 */
#ifndef RSI_BROKER_CONNECTION_H
#define RSI_BROKER_CONNECTION_H

#include "broker/catalogue.h"
#include "broker/endpoints.h"
#include "broker/hash.h"
#include "broker/metrics.h"
#include "transport/auth.h"
#include "transport/control_codec.h"

struct rsi_control_agent;

enum rsi_connection_state {
    RSI_CONNECTION_ACCEPTED,   /* greetings are not exchanged yet; nothing can be sent */
    RSI_CONNECTION_GREETED,    /* the control lane works; the client is to say Hello */
    RSI_CONNECTION_CHALLENGED, /* it got the Challenge and is to Authenticate */
    RSI_CONNECTION_ATTACHING,  /* it got the Welcome; both sides make their rings */
    RSI_CONNECTION_JOINING,    /* rings are ready; the edit that adds its session is to be posted */
    RSI_CONNECTION_SERVING,    /* requests are answered, data moves */
    RSI_CONNECTION_SUSPENDED,  /* its link is gone; its session waits for the client's next one */
    RSI_CONNECTION_RESUMING,   /* the next one has proved the session and is to take over */
    RSI_CONNECTION_LEAVING, /* its session is taken out of the data plane; what arrived is admitted
                             */
    RSI_CONNECTION_PARTING, /* the data plane has let go; the last word to the client is to be sent
                             */
    RSI_CONNECTION_CLOSING, /* link_close was called; the transport still uses the link */
    RSI_CONNECTION_ENDED,   /* nothing refers to it; the control agent frees it */
};

/* How far a Drain is. */
enum rsi_drain_step {
    RSI_DRAIN_NONE,
    RSI_DRAIN_PASSING,   /* no agent chooses it; what was chosen is on its way out of the logs */
    RSI_DRAIN_SPILLED,   /* that has left the logs, but may wait in the spill */
    RSI_DRAIN_POSTING,   /* it lies in the out ring: the UNSUBSCRIBE is to be posted */
    RSI_DRAIN_ENDING,    /* it was */
    RSI_DRAIN_ANSWERING, /* applied by all: the answer is to be sent */
};

struct rsi_drain {
    enum rsi_drain_step step;
    bool is_asked; /* over the present link: an answer is owed */
    uint64_t request;
    uint64_t ends[RSI_AGENT_COUNT_MAX]; /* of the logs: what was chosen lies below */
    uint64_t spill_pos;                 /* or below this position of the spill */
    uint64_t ticket;
};

/* One subscription of a client. */
struct rsi_subscription_entry {
    uint64_t id;      /* the client's number */
    uint64_t request; /* that made it */
    enum rsi_policy policy;
    bool no_echo;
    bool is_leaving;                    /* Unsubscribe or Drain was taken */
    struct rsi_counter *shown;          /* metrics.h */
    char group[RSI_NAME_BYTES_MAX + 1]; /* empty: none */
    bool is_last;                       /* it wants last values first */
    struct rsi_snapshot snapshot;       /* is_last: the home agent's from SUBSCRIBE on */
    UT_hash_handle hh;
    struct rsi_drain drain;
    struct rsi_subscription_entry *next_draining; /* of its connection */
    char subject[];                               /* pattern */
};

enum rsi_request_kind {
    RSI_REQUEST_OPEN_PUBLISHER,
    RSI_REQUEST_CLOSE_PUBLISHER,
    RSI_REQUEST_SUBSCRIBE,
    RSI_REQUEST_UNSUBSCRIBE,
    RSI_REQUEST_DRAIN,
    RSI_REQUEST_DRAINED, /* there was nothing to drain any more; only the answer is left */
    RSI_REQUEST_REFUSED, /* was wrong; only the answer is left */
};

enum rsi_request_state {
    RSI_REQUEST_POSTING,   /* its edit is to be posted; the edit list may be full */
    RSI_REQUEST_APPLYING,  /* posted; not every agent has applied it */
    RSI_REQUEST_ANSWERING, /* its answer is to be sent; the outbox may be full */
};

enum { RSI_REQUEST_COUNT_MAX = 32, RSI_REFUSAL_BYTES = 256, RSI_FAREWELL_BYTES = 512 };

/* A request of a client between its reception and its answer. */
struct rsi_request {
    enum rsi_request_kind kind;
    enum rsi_request_state state;
    bool is_asked;   /* over the present link: an answer is owed */
    uint64_t number; /* the client's */
    uint64_t ticket;
    struct rsi_publication_entry *publication;   /* until applied */
    struct rsi_subscription_entry *subscription; /* until applied */
    uint64_t end_pos;
    /* For the answer: by then the entry may be gone. */
    uint64_t subscription_id;
    uint32_t alias;
    uint32_t publication_id;
    uint32_t topic_id;
    Ringside__Control__Reason reason; /* REFUSED */
    char text[RSI_REFUSAL_BYTES];     /* REFUSED */
};

/* How far a session without a link is; resume.c. */
enum rsi_resume_step {
    RSI_RESUME_FENCING,   /* the old link is on its way to CLOSED */
    RSI_RESUME_HOLDING,   /* SESSION_SUSPEND was posted */
    RSI_RESUME_HELD,      /* the positions are final: a next link may start at them */
    RSI_RESUME_ATTACHING, /* Welcome was sent over the next link; both sides make their rings */
    RSI_RESUME_SWAPPING,  /* SESSION_RESUME was posted: the home agent moves to the next link */
};

struct rsi_resume {
    enum rsi_resume_step step;
    struct rsi_link *link; /* the next one; NULL: none */
    struct rsi_endpoint_domain *domain;
    uint64_t arrived_pos; /* as the client told of its in ring */
    uint64_t consumed_pos;
    uint64_t ticket;   /* of the edit that was posted */
    uint64_t since_ns; /* without a link; 0: it has one */
    uint32_t attempt;  /* the highest that the client made */
};

struct rsi_connection {
    struct rsi_control_agent *control;
    struct rsi_connection *next;
    enum rsi_connection_state state;
    uint64_t deadline_ns; /* when the state must have been left; UINT64_MAX: never */
    struct rsi_endpoint_domain *domain;
    struct rsi_link *link;
    uint32_t agent; /* home agent, from GREETED on */
    bool is_authenticated;
    bool is_counted; /* as a session, against client_count_max */
    bool has_work;   /* stopped at its share of a pass */
    struct rsi_control_receiver receiver;

    /* What it said of itself. */
    char name[RSI_NAME_BYTES_MAX + 1];
    char token_name[RSI_NAME_BYTES_MAX + 1];
    uint8_t client_nonce[RSI_AUTH_NONCE_BYTES];
    uint32_t client_nonce_bytes;
    uint8_t broker_nonce[RSI_AUTH_NONCE_BYTES];
    uint64_t incarnation; /* of the client's process */

    /* From JOINING on. */
    struct rsi_session *session;
    uint8_t session_secret[RSI_AUTH_NONCE_BYTES];
    struct rsi_session_metrics metrics;
    uint64_t leave_ticket;
    bool is_leave_posted;
    bool is_halt_posted;
    uint64_t forget_ticket;
    bool is_forget_posted;
    bool is_told_to_block; /* the log says that publishers wait for it */
    struct rsi_resume resume;
    struct rsi_publication_entry *publications; /* hash by alias */
    struct rsi_publication_entry *closing;      /* list of those CLOSING */
    uint32_t publication_count;
    struct rsi_subscription_entry *subscriptions; /* hash by id */
    uint32_t subscription_count;
    struct rsi_subscription_entry *draining; /* list */
    uint32_t policy_counts[RSI_POLICY_COUNT];
    struct rsi_request requests[RSI_REQUEST_COUNT_MAX]; /* in the order in which they came */
    uint32_t request_count;

    /* Why it ends, and where: position after the last frame that its goodbye speaks of. */
    uint64_t end_pos;
    Ringside__Control__Reason end_reason;
    char end_text[RSI_FAREWELL_BYTES];
    /* It asked for a session that has ended: the reason is that session's. */
    bool is_of_ended;
    uint64_t ended_taken_pos;
};

/* Takes zeroed memory of malloc and an accepted link. */
void rsi_connection_init(struct rsi_connection *connection, struct rsi_control_agent *control,
                         struct rsi_endpoint_domain *domain, struct rsi_link *link,
                         uint64_t now_ns);
/* ENDED only; frees it. */
void rsi_connection_destroy(struct rsi_connection *connection);

/* Does all that can be done now, bounded. Returns how many steps and messages that were. */
uint32_t rsi_connection_poll(struct rsi_connection *connection, uint64_t now_ns);

/* Until when the client may take for its next step before it is authenticated. */
uint64_t rsi_connection_step_deadline_ns(const struct rsi_connection *connection);

/* Begins to end it, in any state; the first reason stands. The client is told. */
void rsi_connection_end(struct rsi_connection *connection, Ringside__Control__Reason reason,
                        const char *format, ...) RSI_PRINTF(3, 4) RSI_COLD;
/* The data plane has ended while this connection was being ended: goes on without it. */
void rsi_connection_abandon(struct rsi_connection *connection);
/* Whether its state changes by itself, so that it is to be polled soon without an event. */
bool rsi_connection_is_moving(const struct rsi_connection *connection);
/* "client feed (tcp, 127.0.0.1:5000)"; into `text`, which is returned. */
const char *rsi_connection_describe(const struct rsi_connection *connection, char *text,
                                    size_t text_bytes);
const char *rsi_connection_state_name(enum rsi_connection_state state);

/* ---- between the files of a connection ----------------------------------------------------------
 */

/* Checked step. */
void rsi_connection_set_state(struct rsi_connection *connection, enum rsi_connection_state to,
                              uint64_t deadline_ns);

/* handshake.c: a message in GREETED or CHALLENGED. */
void rsi_handshake_take(struct rsi_connection *connection,
                        const Ringside__Control__Control *message);

/* handshake.c: a proof of what both nonces and the client's name are signed with. */
rsi_status_t rsi_handshake_proof(const struct rsi_connection *connection, enum rsi_auth_side side,
                                 const void *secret, size_t secret_bytes,
                                 uint8_t proof[RSI_AUTH_PROOF_BYTES]);
/* handshake.c: over `link`, the first one of the session or, `is_resumed`, the next one. */
void rsi_handshake_welcome(struct rsi_connection *connection, struct rsi_link *link,
                           bool is_resumed);

/* resume.c: SERVING, and the session can outlive its link: it waits for another. */
void rsi_resume_suspend(struct rsi_connection *connection, const char *why);
/* resume.c: whether the session would wait for another link if it lost this one now. */
bool rsi_resume_is_possible(const struct rsi_connection *connection);
/* resume.c: an authenticated connection without a session of its own asks for one that is there.
 * Its link goes over to that session's connection, or it is ended. */
void rsi_resume_take(struct rsi_connection *connection,
                     const Ringside__Control__Authenticate *authenticate);
/* resume.c: its session, if it has one, is over and its positions are final: why, is kept for its
 * client. */
void rsi_resume_remember_end(struct rsi_connection *connection);
/* resume.c: the same, but for one that its client never took over, and that ends in favour of the
 * one which begins now. Nothing happens if it is not there any more. */
void rsi_resume_supersede(struct rsi_connection *connection,
                          const Ringside__Control__Authenticate *authenticate);
/* resume.c: what can be done now in SUSPENDED and RESUMING. Returns how many steps that were. */
uint32_t rsi_resume_poll(struct rsi_connection *connection, uint64_t now_ns);
/* resume.c: the session has left the data plane without a link: says what its client did not get.
 */
void rsi_resume_log_undelivered(struct rsi_connection *connection);

/* requests.c: a message in SERVING. There is room in `requests`. */
void rsi_requests_take(struct rsi_connection *connection,
                       const Ringside__Control__Control *message);
/* The request is answered with a refusal. There is room in `requests`. */
void rsi_requests_refuse(struct rsi_connection *connection, uint64_t number,
                         Ringside__Control__Reason reason, const char *format, ...)
    RSI_PRINTF(4, 5);
/* may_subscribe.c: whether the subscription may be made, and with which policy; false: refused. */
bool rsi_requests_may_subscribe(struct rsi_connection *connection,
                                const Ringside__Control__Subscribe *subscribe,
                                enum rsi_policy *policy);
/* Posts edits, and answers what is done. Returns how many steps that were. */
uint32_t rsi_requests_poll(struct rsi_connection *connection);
/* The link is gone: no answer is owed any more, until the client asks again over another. */
void rsi_requests_suspend(struct rsi_connection *connection);
/* The data plane has let go of the session: gives its publications to the catalogue, frees the
 * rest. */
void rsi_requests_release(struct rsi_connection *connection);
/* The data plane has ended: as release, but leaves the publications to rsi_catalogue_fini. */
void rsi_requests_abandon(struct rsi_connection *connection);

#endif
