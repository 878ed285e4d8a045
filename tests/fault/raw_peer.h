/*
 * A peer without libringside: a plain socket that speaks the protocol byte by byte, as far as the
 * test wants, and then whatever the test wants. Over tcp, shm and dpdk. For hostile_test.
 *
 * Sending never fails the test: a broker that ended the link is what hostile tests wait for. What
 * is awaited and does not come within hang_ns() does.
 */
#ifndef RSI_TESTS_FAULT_RAW_PEER_H
#define RSI_TESTS_FAULT_RAW_PEER_H

#include "tests/fault/raw_link.h"

#include "transport/auth.h"
#include "transport/control_codec.h"

enum {
    RAW_ALIAS = 1,        /* of the publisher that a SERVING peer has */
    RAW_SUBSCRIPTION = 1, /* and its subscription, to what it publishes itself */
    RAW_INPUT_BYTES = 1 << 17,
};

/* How far a peer has come. */
enum raw_stage {
    RAW_CONNECTED,  /* nothing was said; dpdk: it has a cookie, and the broker nothing of it */
    RAW_GREETED,    /* greetings exchanged */
    RAW_CHALLENGED, /* Hello said, Challenge got */
    RAW_WELCOMED,   /* authenticated; the broker made its rings */
    RAW_ATTACHED,   /* both sides' rings are there */
    RAW_SERVING,    /* it publishes and subscribes */
    RAW_STAGE_COUNT,
};

/* What every peer of a test shares. */
struct raw_broker {
    const struct broker *broker;
    const char *token_name; /* "": none */
    const char *secret;
};

struct raw_peer {
    const struct raw_broker *at;
    int fd;                /* tcp and shm */
    struct raw_link *link; /* dpdk; NULL: another transport */
    bool is_shm;
    bool has_ended;  /* the broker closed the link */
    bool is_blind;   /* what came was dropped unseen: from here on only the end is awaited */
    bool has_attach; /* its ATTACH came already */
    char name[RSI_NAME_BYTES_MAX + 1];
    uint64_t incarnation;
    uint8_t nonce[RSI_AUTH_NONCE_BYTES];
    uint8_t broker_nonce[RSI_AUTH_NONCE_BYTES];
    uint64_t session;
    uint8_t session_secret[RSI_AUTH_NONCE_BYTES];
    uint64_t request;
    struct rsi_control_receiver receiver;
    uint64_t taken_count; /* control messages received */

    /* tcp: bytes received and not taken apart yet. */
    uint8_t *input;
    size_t input_bytes;
    uint64_t arrived_pos; /* end of the last batch */

    /* shm: all that the broker shares with this peer, mapped once. */
    int words_fd;
    int out_fd;
    int in_fd;
    struct rsi_words *words; /* [0] the broker's page, [1] ours */
    uint8_t *out;
    uint8_t *in;
    uint64_t packets_sent;
    uint64_t answered_generation; /* of the broker's sleep requests */

    uint64_t staged_pos; /* end of what this peer published */
};

/* What a peer says of a session that it wants to go on with. */
struct raw_claim {
    uint64_t session;
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    uint64_t arrived_pos;
    uint64_t consumed_pos;
    uint32_t attempt;
};

/* What is written over a frame's header. */
struct raw_change {
    size_t offset;
    uint64_t value;
    size_t bytes;
};

/* The first stage at which the broker holds something of a peer, that it can end. */
enum raw_stage raw_first_held_stage(void);

/* Connects and goes on to `stage`; comes again while the broker has too many others to greet. */
void raw_open(struct raw_peer *peer, const struct raw_broker *at, const char *name,
              enum raw_stage stage);
/* One step of the way; `peer` is at the stage before it. False: the broker does not want it. */
void raw_connect(struct raw_peer *peer, const struct raw_broker *at, const char *name);
bool raw_greet(struct raw_peer *peer);
bool raw_hello(struct raw_peer *peer);
void raw_authenticate(struct raw_peer *peer);
void raw_attach(struct raw_peer *peer);
void raw_serve(struct raw_peer *peer);
void raw_close(struct raw_peer *peer);

/* ---- sending; false: the broker ended the link --------------------------------------------------
 */

/* Bytes as they are: of the stream, or one packet; not over dpdk, where nothing is a link's that is
 * no datagram of it. */
bool raw_send(struct raw_peer *peer, const void *data, size_t bytes);
/* A record whose header says `told_bytes`, followed by `bytes`. */
bool raw_record(struct raw_peer *peer, uint8_t kind, uint64_t position, uint32_t told_bytes,
                const void *body, size_t bytes);
/* A whole control record without waiting: false when the socket is full or the link is ended. */
bool raw_try_control(struct raw_peer *peer, const void *piece, uint32_t bytes);
/* shm: an empty packet with `count` copies of a descriptor. */
void raw_send_descriptors(struct raw_peer *peer, int fd, unsigned count);
bool raw_control(struct raw_peer *peer, const Ringside__Control__Control *message);
/* Packs a control message as one piece; its size. */
uint32_t raw_pack(uint8_t piece[RSI_CONTROL_BYTES_MAX], const Ringside__Control__Control *message);
/* The first greeting of a peer. */
void raw_make_greeting(const struct raw_peer *peer, struct rsi_greeting *greeting);
/* Hello; a proof by the token's secret over this peer's nonces. */
bool raw_say_hello(struct raw_peer *peer);
bool raw_say_authenticate(struct raw_peer *peer, const uint8_t proof[RSI_AUTH_PROOF_BYTES]);
void raw_make_proof(const struct raw_peer *peer, uint8_t proof[RSI_AUTH_PROOF_BYTES]);
/* Authenticate that asks for a session, with the right proof of the token. */
bool raw_say_resume(struct raw_peer *peer, const struct raw_claim *claim);
/* The proof of a session's secret, over this peer's nonces. */
void raw_make_session_proof(const struct raw_peer *peer, const uint8_t *secret,
                            uint8_t proof[RSI_AUTH_PROOF_BYTES]);
bool raw_subscribe(struct raw_peer *peer, uint64_t id, const char *subject,
                   Ringside__Control__Policy policy);
bool raw_open_publisher(struct raw_peer *peer, uint32_t alias, const char *subject);

/* A frame as it lies in a ring, with its commit word for `position`; returns its bytes. */
uint32_t raw_make_frame(uint8_t *frame, uint64_t position, uint32_t alias, uint32_t payload_bytes);
/* Publishes one message at staged_pos: tcp a batch, shm into the ring, dpdk data. */
bool raw_publish(struct raw_peer *peer, uint32_t payload_bytes);
/* The same with a change of its header, if change.bytes is not 0. */
bool raw_publish_changed(struct raw_peer *peer, uint32_t payload_bytes, struct raw_change change);
/* shm: wakes a broker that asked for it before it went to sleep. tcp: nothing is needed. */
bool raw_wake(struct raw_peer *peer);
/* tcp: tells positions; shm: writes the words; dpdk: tells what was consumed, as the rest is known.
 */
bool raw_tell_consumed(struct raw_peer *peer, uint64_t arrived_pos, uint64_t consumed_pos);
/* shm: tells the broker that packets or frames are there. */
void raw_ring_bell(struct raw_peer *peer);

/* ---- receiving ---------------------------------------------------------------------------------
 */

/* The next control message; NULL: the broker ended the link. */
Ringside__Control__Control *raw_receive(struct raw_peer *peer);
/* Takes it and checks what it is. */
Ringside__Control__Control *raw_expect(struct raw_peer *peer,
                                       Ringside__Control__Control__BodyCase body_case);
/* Publishes one message and waits until the broker has delivered it back to this peer. */
void raw_await_delivery(struct raw_peer *peer);
/* Takes what comes until the broker ends the link; the last reason that it gave. */
Ringside__Control__Reason raw_await_end(struct raw_peer *peer);
/* Whether the broker ended the link already; what came is dropped, and no message is awaited any
 * more. */
bool raw_look(struct raw_peer *peer);

#endif
