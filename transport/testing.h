#ifndef RSI_TRANSPORT_TESTING_H
#define RSI_TRANSPORT_TESTING_H

/*
 * A link on a transport that does nothing but note what it is asked: for unit tests of what is
 * common to all transports. Included by tests only.
 */
#include "core/testing.h"
#include "transport/frame.h"

struct rsi_test_link {
    struct rsi_link link; /* first */
    struct rsi_poller poller;
    struct rsi_domain domain;
    struct rsi_waker control_waker;
    struct rsi_waker owner_waker;
    uint64_t placed_bytes; /* of the last place */
    uint32_t place_count;
    uint32_t flush_count;
    uint32_t publish_count;
    uint32_t request_count;
    rsi_status_t flush_status;
};

static inline void rsi_test_place(struct rsi_link *link, uint64_t bytes)
{
    struct rsi_test_link *test = (struct rsi_test_link *)(void *)link;
    memcpy(rsi_ring_at(&link->out, link->placed_pos), &link->head_word, sizeof(uint64_t));
    link->placed_pos += bytes;
    test->placed_bytes = bytes;
    test->place_count++;
}

static inline rsi_status_t rsi_test_flush(struct rsi_link *link)
{
    struct rsi_test_link *test = (struct rsi_test_link *)(void *)link;
    test->flush_count++;
    if (test->flush_status == RSI_OK) {
        link->flushed_pos = link->placed_pos;
        link->under_way = true;
    }
    return test->flush_status;
}

static inline void rsi_test_publish_consumed(struct rsi_link *link)
{
    ((struct rsi_test_link *)(void *)link)->publish_count++;
}

static inline void rsi_test_request_wake(struct rsi_link *link, uint64_t in_arrived_at_least,
                                         uint64_t peer_arrived_at_least,
                                         uint64_t peer_consumed_at_least)
{
    (void)in_arrived_at_least;
    (void)peer_arrived_at_least;
    (void)peer_consumed_at_least;
    ((struct rsi_test_link *)(void *)link)->request_count++;
}

static inline uint32_t rsi_test_poll_data(struct rsi_poller *poller, uint64_t now_ns)
{
    (void)poller;
    return (uint32_t)now_ns;
}

static const struct rsi_transport rsi_test_transport = {
    .name = "test",
    .place = rsi_test_place,
    .flush = rsi_test_flush,
    .publish_consumed = rsi_test_publish_consumed,
    .request_wake = rsi_test_request_wake,
    .poll_data = rsi_test_poll_data,
};

/* A link in CONNECTING. */
static inline struct rsi_test_link *rsi_test_link_create(void)
{
    struct rsi_test_link *test = rsi_link_alloc(sizeof(*test));
    assert_non_null(test);
    assert_int_equal(rsi_waker_init(&test->control_waker, NULL), RSI_OK);
    assert_int_equal(rsi_waker_init(&test->owner_waker, NULL), RSI_OK);
    test->domain.transport = &rsi_test_transport;
    test->poller.transport = &rsi_test_transport;
    test->poller.domain = &test->domain;
    test->poller.control_waker = &test->control_waker;
    test->poller.owner_waker = &test->owner_waker;
    assert_int_equal(rsi_link_init(&test->link, &rsi_test_transport, &test->poller, NULL), RSI_OK);
    return test;
}

/* A link that is ATTACHED, with rings of 64 KiB that start at `start_pos`. */
static inline struct rsi_test_link *rsi_test_link_create_attached(uint64_t start_pos)
{
    struct rsi_test_link *test = rsi_test_link_create();
    const struct rsi_link_rings rings = {
        .out_bytes = 65536,
        .in_bytes = 65536,
        .out_start_pos = start_pos,
        .in_start_pos = start_pos,
        .out_consumed_pos = start_pos,
        .in_consumed_pos = start_pos,
    };
    const struct rsi_ring_options options = {
        .name = "test", .capacity_bytes = 65536, .node = RSI_NODE_ANY};
    assert_int_equal(rsi_ring_init(&test->link.out, &options, NULL), RSI_OK);
    assert_int_equal(rsi_ring_init(&test->link.in, &options, NULL), RSI_OK);
    rsi_link_set_start(&test->link, &rings);
    rsi_link_set_state(&test->link, RSI_LINK_OPEN);
    rsi_link_set_state(&test->link, RSI_LINK_ATTACHING);
    rsi_link_set_state(&test->link, RSI_LINK_ATTACHED);
    return test;
}

static inline void rsi_test_link_destroy(struct rsi_test_link *test)
{
    rsi_ring_fini(&test->link.out);
    rsi_ring_fini(&test->link.in);
    rsi_link_fini(&test->link);
    rsi_waker_fini(&test->control_waker);
    rsi_waker_fini(&test->owner_waker);
    rsi_link_free(test);
}

/* Stages an empty message that takes frame_bytes (a multiple of 8). */
static inline bool rsi_test_stage(struct rsi_link *link, uint64_t frame_bytes)
{
    struct rsi_frame_header *header = rsi_frame_claim(link, frame_bytes);
    if (header == NULL) {
        return false;
    }
    header->payload_bytes = (uint32_t)(frame_bytes - RSI_FRAME_HEADER_BYTES);
    header->type = RSI_FRAME_MESSAGE;
    header->headers_bytes = 0;
    rsi_frame_commit(link, frame_bytes);
    return true;
}

#endif
