/*
 * A dial: one try to reach the broker by one transport, from the first system call to rings that
 * are ready. It never waits: whoever began it polls it, and sleeps as long as he likes between.
 */
#ifndef RSI_CLIENT_DIAL_H
#define RSI_CLIENT_DIAL_H

#include "clients/c/path.h"
#include "core/error.h"
#include "transport/auth.h"
#include "transport/control_codec.h"

#include <stdbool.h>
#include <stdint.h>

struct ringside_client;
struct rsi_client_options;
struct rsi_client_candidate;

/* What a broker agreed to. */
struct rsi_client_session {
    uint64_t id; /* 0: none yet */
    uint8_t secret[RSI_AUTH_SECRET_BYTES_MAX];
    size_t secret_bytes; /* 0: the broker gave none, the session cannot be resumed */
    uint32_t attempt;    /* tries to resume it so far: tells the broker which is the latest */
    uint32_t home_agent;
    uint64_t broker_incarnation;
    uint64_t grace_ns; /* for how long the broker keeps it without a link; 0: it does not */
    uint64_t publish_ring_bytes;
    uint64_t deliver_ring_bytes;
    uint64_t message_bytes_max;
};

enum rsi_dial_state {
    RSI_DIAL_IDLE,           /* nothing was begun */
    RSI_DIAL_CONNECTING,     /* the link is on its way to OPEN */
    RSI_DIAL_GREETED,        /* Hello is sent; the Challenge is awaited */
    RSI_DIAL_CHALLENGED,     /* waits for rsi_dial_go_on */
    RSI_DIAL_AUTHENTICATING, /* Authenticate is sent; the Welcome is awaited */
    RSI_DIAL_ATTACHING,      /* both sides make their rings */
    RSI_DIAL_READY,          /* ATTACHED: the path is there to be taken */
    RSI_DIAL_FAILED,         /* `error` says why; polling takes down what there is of the path */
};

/* What a dial is for; decided when the broker has shown itself. */
enum rsi_dial_purpose {
    RSI_DIAL_NEW,    /* a session of the sizes in the client's options */
    RSI_DIAL_RESUME, /* the client's session goes on where its link, which is CLOSED, ended */
    RSI_DIAL_RENEW,  /* a new session with exactly the sizes of the client's old one */
};

/* One side's half of the proof that both know a secret. */
struct rsi_handshake {
    uint8_t nonce[RSI_AUTH_NONCE_BYTES];
    uint8_t broker_nonce[UINT8_MAX];
    size_t broker_nonce_bytes;
};

struct rsi_dial {
    struct ringside_client *client;
    enum rsi_dial_state state;
    enum rsi_dial_purpose purpose;
    struct rsi_client_path path;
    uint64_t deadline_ns; /* of the state */
    struct rsi_handshake handshake;
    struct rsi_control_receiver receiver;
    struct rsi_client_session agreed; /* from ATTACHING on */
    uint64_t told_consumed_pos;       /* RESUME: what Authenticate said of the in ring */
    bool is_answered;        /* the broker itself said something: another way leads to the same */
    bool is_refused;         /* it said no */
    bool is_challenged;      /* it got that far */
    bool is_session_refused; /* RESUME: the session is gone, or its positions cannot be true */
    bool is_session_ended;   /* RESUME: it has ended, and `error` says why as its Bye would have */
    uint64_t taken_pos;      /* then: as in that Bye */
    struct rsi_error error;  /* FAILED */
};

/* Begins; needs IDLE, or FAILED with nothing left of the path. A failure shows in the state. */
void rsi_dial_begin(struct rsi_dial *dial, struct ringside_client *client,
                    const struct rsi_client_candidate *candidate, uint64_t now_ns,
                    uint64_t deadline_ns);
/* Does what can be done now. Returns how much that was. */
uint32_t rsi_dial_poll(struct rsi_dial *dial, uint64_t now_ns);
/* CHALLENGED: authenticates for this purpose, with time until deadline_ns. */
void rsi_dial_go_on(struct rsi_dial *dial, enum rsi_dial_purpose purpose, uint64_t deadline_ns);
/* READY: the path is the caller's; the dial is IDLE again, what was agreed stays readable. */
struct rsi_client_path rsi_dial_take(struct rsi_dial *dial);
/* Gives up, in any state but IDLE. */
void rsi_dial_cancel(struct rsi_dial *dial, const char *why);
/* FAILED and taken down. */
bool rsi_dial_is_down(const struct rsi_dial *dial);
/* Whether a path is there that wants to be polled. */
static inline bool rsi_dial_is_active(const struct rsi_dial *dial)
{
    return rsi_path_exists(&dial->path);
}

/* ---- handshake.c: the messages of a dial; none of it waits --------------------------------------
 */

/* One run of this process, as brokers know it. */
RSI_MUST_CHECK rsi_status_t rsi_client_incarnation(uint64_t *incarnation, struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_handshake_say_hello(struct rsi_dial *dial, struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_handshake_take_challenge(
    struct rsi_dial *dial, const Ringside__Control__Challenge *challenge, struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_handshake_authenticate(struct rsi_dial *dial,
                                                       struct rsi_error *error);
/* Checks what the broker agreed to; says with which rings the link is to be attached. */
RSI_MUST_CHECK rsi_status_t rsi_handshake_take_welcome(struct rsi_dial *dial,
                                                       const Ringside__Control__Welcome *welcome,
                                                       struct rsi_link_rings *rings,
                                                       struct rsi_error *error);
/* READY: the session that was begun will not be used. As far as the link still takes it. */
void rsi_handshake_say_bye(struct rsi_dial *dial);
/* Notes why the broker said no. */
void rsi_handshake_take_refused(struct rsi_dial *dial, const Ringside__Control__Refused *refused);

#endif
