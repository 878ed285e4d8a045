/*
 * One end of a dpdk link by hand: datagrams as the test wants them, over a raw_end. What is needed
 * for the link to go on (answers, what was lost) is done while something is awaited; a peer that
 * awaits nothing is silent.
 */
#ifndef RSI_TESTS_FAULT_RAW_LINK_H
#define RSI_TESTS_FAULT_RAW_LINK_H

#include "tests/fault/raw_end.h"

#define RAW_RING_BYTES UINT64_C(262144)

enum {
    RAW_LANE_WINDOW = 16,
    RAW_INBOX_COUNT = 64,
    RAW_BODY_BYTES = 1400, /* of a datagram that these peers send */
};

struct raw_lane_record {
    uint8_t kind; /* enum rsi_record_kind */
    uint16_t bytes;
    uint16_t told_bytes; /* as its head says; of a liar another number */
    uint8_t data[RSI_CONTROL_BYTES_MAX];
};

struct raw_link {
    struct raw_end end;
    struct rsi_packet_end broker;
    uint32_t name;       /* that this side chose */
    uint32_t connection; /* the broker's; 0: not accepted yet */
    bool has_ended;
    bool is_attached; /* this side says that it has its rings */
    bool is_deaf;     /* takes no data, and confirms none */
    bool owes_state;
    uint64_t nonce;
    struct rsi_datagram_hello cookie;
    struct rsi_greeting greeting;    /* of OPEN; magic 0: not said yet */
    uint64_t number;                 /* of the last datagram sent */
    uint64_t newest_number;          /* of those that came */
    struct rsi_datagram_state told;  /* what states say; lies go in here */
    struct rsi_datagram_state heard; /* the broker's newest */
    uint64_t heard_number;
    uint64_t lane_sent;
    struct raw_lane_record open[RAW_LANE_WINDOW]; /* by sequence: those not confirmed */
    /* Records that came, and an ACCEPT as its GREETING; [taken_count, came_count). */
    struct raw_lane_record inbox[RAW_INBOX_COUNT];
    uint64_t came_count;
    uint64_t taken_count;
    uint8_t out[RAW_RING_BYTES]; /* from position 0 on; nothing published here reaches the end */
    uint8_t in[RAW_RING_BYTES];  /* the first bytes that came */
};

/* As far as a cookie: the broker keeps nothing of it. */
struct raw_link *raw_link_create(const char *host, uint16_t port);
/* Leaves with CLOSE, as far as the broker listens. */
void raw_link_destroy(struct raw_link *link);

/* OPEN with a greeting; what comes of it is a GREETING in the inbox, or the end. */
void raw_link_say_open(struct raw_link *link, const struct rsi_greeting *greeting);
/* A handshake's datagram: hello as it is, and behind it `greeting`, if there is one. */
void raw_link_send_hello(struct raw_link *link, uint8_t type,
                         const struct rsi_datagram_hello *hello,
                         const struct rsi_greeting *greeting);
/* Any datagram of the link, with the next number. */
void raw_link_send(struct raw_link *link, uint8_t type, uint8_t flags, const void *body,
                   size_t bytes);
/* A state as `told` says it, and what is put behind it. */
void raw_link_send_state(struct raw_link *link, uint8_t flags, const void *behind, size_t bytes);
/* Ring bytes at a position, as far as one datagram takes. */
void raw_link_send_data(struct raw_link *link, uint64_t position, const void *bytes, size_t count);
/* A record of the lane that says `told_bytes`; waits until the broker has room. False: the end. */
bool raw_link_record(struct raw_link *link, uint8_t kind, uint16_t told_bytes, const void *data,
                     size_t bytes);
/* The same without waiting; it is not sent again. */
void raw_link_try_record(struct raw_link *link, uint8_t kind, const void *data, size_t bytes);
/* Bytes of the out ring that follow those before. */
void raw_link_publish(struct raw_link *link, const void *bytes, size_t count);

/* Takes what is there, waits up to wait_ms for the first of it, and answers. */
void raw_link_look(struct raw_link *link, int wait_ms);
/* Says again whatever was not answered, and asks for an answer. */
void raw_link_ask(struct raw_link *link);
/* One turn of waiting for the broker: looks, and asks when nothing came. Fails the test at
 * `until_ns`, which the caller sets at the beginning. */
void raw_link_wait(struct raw_link *link, uint64_t until_ns, const char *what);
/* The next record; false: the broker ended the link. */
bool raw_link_receive(struct raw_link *link, struct raw_lane_record *record);

#endif
