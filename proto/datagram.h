/*
 * What the dpdk transport puts behind the UDP header of its Ethernet frames.
 *
 * Design notes
 * - As layout.h, of which this is a part: fixed widths, asserted offsets, little endian, drawn in
 *   LAYOUT.md and held against it by layout_test.c.
 * - Ring bytes are addressed by position, so that a datagram that comes twice, late or out of turn
 *   does no harm, and the reader's ring is the only buffer in which anything is put together.
 * - All that is said about progress (struct rsi_datagram_state) is absolute: the newest one tells
 *   everything, and losing any number of older ones loses nothing.
 * - A packet number is never used again, also not for bytes that are sent again: so a round trip
 *   and a loss are never ambiguous.
 */
#ifndef RSI_PROTO_DATAGRAM_H
#define RSI_PROTO_DATAGRAM_H

#include "proto/layout.h"

#define RSI_DATAGRAM_VERSION 1u

enum rsi_datagram_type {
    RSI_DATAGRAM_HELLO = 1,      /* dialler: hello, nothing else; nobody remembers it */
    RSI_DATAGRAM_COOKIE = 2,     /* listener: hello with a cookie for that address */
    RSI_DATAGRAM_OPEN = 3,       /* dialler: hello with that cookie, greeting */
    RSI_DATAGRAM_ACCEPT = 4,     /* listener: hello, greeting; the link is there */
    RSI_DATAGRAM_REFUSE = 5,     /* listener: hello with a reason */
    RSI_DATAGRAM_RESET = 6,      /* there is no such connection: reset */
    RSI_DATAGRAM_DATA = 7,       /* data, then ring bytes up to the end */
    RSI_DATAGRAM_STATE = 8,      /* ranges that are missing, up to the end; perhaps none */
    RSI_DATAGRAM_LANE = 9,       /* lane records up to the end, each padded to 8 */
    RSI_DATAGRAM_PROBE = 10,     /* probe, padded to the size that it asks about */
    RSI_DATAGRAM_PROBE_ACK = 11, /* probe: that size came through */
};

enum rsi_datagram_flag {
    RSI_DATAGRAM_FLAG_STATE = 1,    /* a state stands between header and body */
    RSI_DATAGRAM_FLAG_REPLY = 2,    /* answer at once with a state */
    RSI_DATAGRAM_FLAG_ATTACHED = 4, /* the sender has its rings: positions in its state count */
};

/* Why a listener says no. */
enum rsi_datagram_reason {
    RSI_DATAGRAM_REASON_NO_LISTENER = 1, /* nobody listens on this port */
    RSI_DATAGRAM_REASON_FULL = 2,        /* as many links as may be, or no memory */
    RSI_DATAGRAM_REASON_CLOSED = 3,      /* it closed the link before this side was told of it */
};

/* Head of every datagram. */
struct rsi_datagram_header {
    uint8_t version; /* RSI_DATAGRAM_VERSION */
    uint8_t type;    /* enum rsi_datagram_type */
    uint8_t flags;   /* enum rsi_datagram_flag */
    uint8_t reserved_0;
    uint32_t connection; /* the receiver's name for it: index 20, generation 12; 0: none yet */
    uint32_t from;       /* the sender's name for it */
    uint16_t bytes;      /* that follow this header */
    uint16_t reserved_1;
    uint32_t checksum;     /* CRC32C over header and body, itself taken as 0 */
    uint32_t timestamp_ns; /* low bits of the sender's clock */
    uint32_t echo_ns;      /* latest timestamp from the peer, and what it lay here; 0: none */
    uint32_t reserved_2;
    uint64_t number; /* of the sender's datagrams on this connection, from 1 */
};

#define RSI_DATAGRAM_HEADER_BYTES    40u
#define RSI_DATAGRAM_INDEX_BITS      20
#define RSI_DATAGRAM_GENERATION_BITS 12

_Static_assert(sizeof(struct rsi_datagram_header) == RSI_DATAGRAM_HEADER_BYTES, "datagram header");
_Static_assert(offsetof(struct rsi_datagram_header, version) == 0, "version");
_Static_assert(offsetof(struct rsi_datagram_header, type) == 1, "type");
_Static_assert(offsetof(struct rsi_datagram_header, flags) == 2, "flags");
_Static_assert(offsetof(struct rsi_datagram_header, reserved_0) == 3, "reserved_0");
_Static_assert(offsetof(struct rsi_datagram_header, connection) == 4, "connection");
_Static_assert(offsetof(struct rsi_datagram_header, from) == 8, "from");
_Static_assert(offsetof(struct rsi_datagram_header, bytes) == 12, "bytes");
_Static_assert(offsetof(struct rsi_datagram_header, reserved_1) == 14, "reserved_1");
_Static_assert(offsetof(struct rsi_datagram_header, checksum) == 16, "checksum");
_Static_assert(offsetof(struct rsi_datagram_header, timestamp_ns) == 20, "timestamp_ns");
_Static_assert(offsetof(struct rsi_datagram_header, echo_ns) == 24, "echo_ns");
_Static_assert(offsetof(struct rsi_datagram_header, reserved_2) == 28, "reserved_2");
_Static_assert(offsetof(struct rsi_datagram_header, number) == 32, "number");

/*
 * HELLO, COOKIE, OPEN, ACCEPT and REFUSE, all of one size, so that a forged HELLO is answered with
 * no more bytes than it had. Behind it in OPEN and ACCEPT: struct rsi_greeting.
 */
struct rsi_datagram_hello {
    uint64_t nonce;       /* of the dialler; every answer repeats it */
    uint32_t cookie_time; /* when the cookie was made, by the listener's clock */
    uint16_t mtu;         /* bytes of IPv4 header and what follows that the sender takes */
    uint16_t reason;      /* REFUSE: enum rsi_datagram_reason; else 0 */
    uint8_t cookie[16];   /* COOKIE and OPEN; else 0 */
};

_Static_assert(sizeof(struct rsi_datagram_hello) == 32, "hello size");
_Static_assert(offsetof(struct rsi_datagram_hello, nonce) == 0, "nonce");
_Static_assert(offsetof(struct rsi_datagram_hello, cookie_time) == 8, "cookie_time");
_Static_assert(offsetof(struct rsi_datagram_hello, mtu) == 12, "mtu");
_Static_assert(offsetof(struct rsi_datagram_hello, reason) == 14, "reason");
_Static_assert(offsetof(struct rsi_datagram_hello, cookie) == 16, "cookie");

/* Body of RESET. */
struct rsi_datagram_reset {
    uint64_t number; /* of the datagram for which there was no connection */
};

_Static_assert(sizeof(struct rsi_datagram_reset) == 8, "reset size");
_Static_assert(offsetof(struct rsi_datagram_reset, number) == 0, "number");

/* How far its sender has come, in both directions, when it sent this. The newest one counts. */
struct rsi_datagram_state {
    /* As a reader. */
    uint64_t received_pos; /* the ring has all bytes before it */
    uint64_t arrived_pos;  /* the end of the last whole frame of these */
    uint64_t consumed_pos; /* the writer's credit in bytes: from here on, the ring's size */
    uint64_t number_limit; /* its credit in datagrams: no data with a number above this */
    /* As a writer. */
    uint64_t sent_pos; /* bytes before it were sent at least once */
    /* Of the peer's states, the number of the newest that came. */
    uint64_t state_seen;
    /* The lane. */
    uint64_t lane_received; /* records that came, in order */
    uint64_t control_limit; /* control messages that it takes since the beginning */
    /* "Tell me when your arrived_pos or your consumed_pos has reached this." */
    uint64_t wake_arrived_at_least;
    uint64_t wake_consumed_at_least;
    uint32_t wake_generation; /* of this wish; 0: none */
    uint32_t wake_answered;   /* generation of the peer's wish that came true */
};

#define RSI_DATAGRAM_STATE_BYTES 88u
_Static_assert(sizeof(struct rsi_datagram_state) == RSI_DATAGRAM_STATE_BYTES, "state size");
_Static_assert(offsetof(struct rsi_datagram_state, received_pos) == 0, "received_pos");
_Static_assert(offsetof(struct rsi_datagram_state, arrived_pos) == 8, "arrived_pos");
_Static_assert(offsetof(struct rsi_datagram_state, consumed_pos) == 16, "consumed_pos");
_Static_assert(offsetof(struct rsi_datagram_state, number_limit) == 24, "number_limit");
_Static_assert(offsetof(struct rsi_datagram_state, sent_pos) == 32, "sent_pos");
_Static_assert(offsetof(struct rsi_datagram_state, state_seen) == 40, "state_seen");
_Static_assert(offsetof(struct rsi_datagram_state, lane_received) == 48, "lane_received");
_Static_assert(offsetof(struct rsi_datagram_state, control_limit) == 56, "control_limit");
_Static_assert(offsetof(struct rsi_datagram_state, wake_arrived_at_least) == 64, "wake_arrived");
_Static_assert(offsetof(struct rsi_datagram_state, wake_consumed_at_least) == 72, "wake_consumed");
_Static_assert(offsetof(struct rsi_datagram_state, wake_generation) == 80, "wake_generation");
_Static_assert(offsetof(struct rsi_datagram_state, wake_answered) == 84, "wake_answered");

/* Head of DATA's body; the ring bytes follow. */
struct rsi_datagram_data {
    uint64_t position; /* of the first byte */
};

_Static_assert(sizeof(struct rsi_datagram_data) == 8, "data size");
_Static_assert(offsetof(struct rsi_datagram_data, position) == 0, "position");

/* Ring bytes that a reader lacks. STATE has up to RSI_DATAGRAM_RANGE_COUNT_MAX, in order. */
struct rsi_datagram_range {
    uint64_t start_pos;
    uint64_t end_pos;
};

#define RSI_DATAGRAM_RANGE_COUNT_MAX 24u
_Static_assert(sizeof(struct rsi_datagram_range) == 16, "range size");
_Static_assert(offsetof(struct rsi_datagram_range, start_pos) == 0, "start_pos");
_Static_assert(offsetof(struct rsi_datagram_range, end_pos) == 8, "end_pos");

/* Head of a record of the lane, which is in order and without loss. */
struct rsi_datagram_lane {
    uint64_t sequence; /* from 0 */
    uint16_t bytes;    /* that follow, without padding */
    uint8_t kind;      /* enum rsi_record_kind: CONTROL, ATTACH or CLOSE */
    uint8_t reserved_0;
    uint32_t reserved_1;
};

_Static_assert(sizeof(struct rsi_datagram_lane) == 16, "lane size");
_Static_assert(offsetof(struct rsi_datagram_lane, sequence) == 0, "sequence");
_Static_assert(offsetof(struct rsi_datagram_lane, bytes) == 8, "bytes");
_Static_assert(offsetof(struct rsi_datagram_lane, kind) == 10, "kind");
_Static_assert(offsetof(struct rsi_datagram_lane, reserved_0) == 11, "reserved_0");
_Static_assert(offsetof(struct rsi_datagram_lane, reserved_1) == 12, "reserved_1");

/* PROBE and PROBE_ACK. */
struct rsi_datagram_probe {
    uint32_t mtu; /* bytes of IPv4 header and what follows in the probe */
    uint32_t reserved;
};

_Static_assert(sizeof(struct rsi_datagram_probe) == 8, "probe size");
_Static_assert(offsetof(struct rsi_datagram_probe, mtu) == 0, "mtu");
_Static_assert(offsetof(struct rsi_datagram_probe, reserved) == 4, "reserved");

#endif
