/*
 * Two ends of a tcp link in one thread, for the tests beside this file; and a peer that is only a
 * socket, which can send anything.
 */
#ifndef RSI_TRANSPORT_TCP_FIXTURE_H
#define RSI_TRANSPORT_TCP_FIXTURE_H

#include "transport/frame.h"
#include "transport/tcp/tcp_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* A hang fails here; nothing in these tests takes as long. */
#define FIXTURE_DEADLINE_NS UINT64_C(20000000000)

struct fixture {
    struct rsi_domain *domain;
    struct rsi_listener *listener;
    struct rsi_poller *server_poller;
    struct rsi_poller *client_poller;
    struct rsi_link *server; /* NULL until a peer was accepted */
    struct rsi_link *client; /* NULL when the peer is a plain socket */
    int stranger_fd;         /* the plain socket; -1: none */
    uint64_t pass_count;
    struct rsi_waker owner_waker;
    struct rsi_waker control_waker;
};

/* Listens on a free port of loopback (`host` NULL) or of another address. */
void fixture_init(struct fixture *fixture, const char *host,
                  const struct rsi_domain_options *options);
/* Closes what is left and frees everything. */
void fixture_fini(struct fixture *fixture);

/* One pass of everything. */
void fixture_pump(struct fixture *fixture);
/* Pumps until the condition holds; fails the test at the deadline. */
#define fixture_pump_until(fixture, condition)                              \
    do {                                                                    \
        uint64_t fixture_end_ns = rsi_clock_now_ns() + FIXTURE_DEADLINE_NS; \
        while (!(condition)) {                                              \
            assert_true(rsi_clock_now_ns() < fixture_end_ns);               \
            fixture_pump(fixture);                                          \
        }                                                                   \
    } while (0)

/* Both ends OPEN. */
void fixture_open(struct fixture *fixture);
/* Both ends ATTACHED; the client writes ring_bytes ahead, the server as many. */
void fixture_attach(struct fixture *fixture, uint64_t ring_bytes);

/* Stages and places a message whose bytes follow from `seed`; false: no room. */
bool fixture_place(struct rsi_link *link, uint32_t payload_bytes, uint32_t seed);
/* Takes the next message and checks it; false: none has arrived. */
bool fixture_take(struct rsi_link *link, uint32_t payload_bytes, uint32_t seed);

/* A plain socket connects; the server's link is made. */
void fixture_connect_stranger(struct fixture *fixture);
void fixture_stranger_send(struct fixture *fixture, const void *data, size_t bytes);
/* The stranger greets properly, is answered, and both sides attach: the server reads a ring of
 * ring_bytes; the server writes none. */
void fixture_stranger_attach(struct fixture *fixture, uint64_t ring_bytes);
void fixture_stranger_record(struct fixture *fixture, uint8_t kind, uint32_t bytes,
                             uint64_t position, const void *body, size_t body_bytes);
/* The server's link becomes LOST with this status and with these words in its text. */
void fixture_expect_lost(struct fixture *fixture, rsi_status_t status, const char *words);

#endif
