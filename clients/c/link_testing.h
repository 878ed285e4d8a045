/*
 * A client whose link leads to the test itself: the test writes frames into the in ring and looks
 * at what was placed in the out ring. No broker, no thread, no socket.
 */
#ifndef RSI_CLIENT_LINK_TESTING_H
#define RSI_CLIENT_LINK_TESTING_H

#include "core/testing.h"

#include "clients/c/client.h"

#define LINK_TESTING_RING_BYTES UINT64_C(65536)

struct link_testing {
    struct ringside_client client;
    struct rsi_link link;
    struct rsi_poller poller;
    struct rsi_transport transport;
    uint64_t in_end_pos; /* end of what the test wrote */
    uint32_t place_count;
    uint32_t flush_count; /* flushes that emitted something */
    uint32_t poll_count;
    uint32_t consume_count;
    bool stays_under_way;         /* a flush leaves the batch under way */
    uint64_t polled_consumed_pos; /* peer_consumed_pos that the next poll shows */
};

/* An open session with both rings. */
void link_testing_init(struct link_testing *testing);
void link_testing_fini(struct link_testing *testing);

/* One frame as the broker would place it; the test decides when it arrives. */
void link_testing_put(struct link_testing *testing, uint8_t type, uint32_t publication,
                      uint64_t sequence, const void *payload, uint32_t payload_bytes);
/* A message with headers as they are given. */
void link_testing_put_with(struct link_testing *testing, uint32_t publication, uint64_t sequence,
                           const void *headers, uint16_t headers_bytes, const void *payload,
                           uint32_t payload_bytes);
void link_testing_put_announce(struct link_testing *testing, uint32_t publication,
                               const char *subject, uint64_t session, uint64_t next_sequence);
void link_testing_put_gap(struct link_testing *testing, uint32_t reason, uint32_t publication,
                          uint64_t next_sequence);
/* Everything put so far has arrived. */
void link_testing_arrive(struct link_testing *testing);

/* An active subscription, without asking any broker. */
struct ringside_subscription *link_testing_subscribe(struct link_testing *testing,
                                                     const char *subject,
                                                     ringside_on_message_t on_message, void *arg);

#endif
