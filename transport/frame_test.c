/*
 * Frames: what a writer stages a reader reads, and nothing else passes as a frame.
 */
#include "transport/testing.h"

/* A ring that a test writes as a peer would: with whatever it likes. */
static void setup_ring(struct rsi_ring *ring)
{
    const struct rsi_ring_options options = {
        .name = "frames", .capacity_bytes = 65536, .node = RSI_NODE_ANY};
    assert_int_equal(rsi_ring_init(ring, &options, NULL), RSI_OK);
}

/* Writes a good frame at `position`; returns its end. */
static uint64_t write_frame(struct rsi_ring *ring, uint64_t position, uint16_t headers_bytes,
                            uint32_t payload_bytes)
{
    uint64_t frame_bytes = rsi_frame_bytes(headers_bytes, payload_bytes);
    struct rsi_frame_header header = {
        .commit = rsi_commit_word(position, frame_bytes),
        .payload_bytes = payload_bytes,
        .headers_bytes = headers_bytes,
        .type = RSI_FRAME_MESSAGE,
        .publication = 5,
        .sequence = 6,
        .publish_time_ns = 7,
    };
    memcpy(rsi_ring_at(ring, position), &header, sizeof(header));
    memset(rsi_ring_at(ring, position + sizeof(header)), 'h', headers_bytes);
    memset(rsi_ring_at(ring, position + sizeof(header) + headers_bytes), 'p', payload_bytes);
    return position + frame_bytes;
}

static void test_good_frames_are_read_across_the_end(void **state)
{
    (void)state;
    struct rsi_ring ring = {0};
    setup_ring(&ring);
    uint64_t position = (UINT64_C(1) << 43) - 30000; /* the commit word's position comes round */
    for (uint32_t i = 0; i < 2000; i++) {
        uint16_t headers_bytes = (uint16_t)(i % 33);
        uint64_t end_pos = write_frame(&ring, position, headers_bytes, i);
        struct rsi_frame frame;
        const char *why = NULL;
        assert_int_equal(rsi_frame_read(&ring, position, end_pos, &frame, &why), RSI_OK);
        assert_int_equal(frame.position, position);
        assert_int_equal(frame.frame_bytes, end_pos - position);
        assert_int_equal(frame.header.payload_bytes, i);
        assert_int_equal(frame.header.publication, 5);
        assert_true(headers_bytes == 0 || frame.headers[headers_bytes - 1] == 'h');
        assert_true(i == 0 || (frame.payload[0] == 'p' && frame.payload[i - 1] == 'p'));
        position = end_pos;
    }
    rsi_ring_fini(&ring);
}

struct wrong {
    const char *name;
    uint64_t commit_bytes; /* what the commit word says */
    uint64_t commit_pos;
    uint32_t payload_bytes;
    uint16_t headers_bytes;
    uint8_t type;
    uint64_t available_bytes;
};

static void test_wrong_frames_are_refused_with_a_reason(void **state)
{
    (void)state;
    static const struct wrong wrongs[] = {
        {"other position", 80, 136, 40, 0, RSI_FRAME_MESSAGE, 80},
        {"no length", 0, 128, 40, 0, RSI_FRAME_MESSAGE, 80},
        {"shorter than a header", 32, 128, 0, 0, RSI_FRAME_MESSAGE, 80},
        {"beyond what arrived", 88, 128, 48, 0, RSI_FRAME_MESSAGE, 80},
        {"payload longer than frame", 80, 128, 48, 0, RSI_FRAME_MESSAGE, 80},
        {"payload much longer", 80, 128, UINT32_MAX, 0, RSI_FRAME_MESSAGE, 80},
        {"headers longer than frame", 80, 128, 40, 8, RSI_FRAME_MESSAGE, 80},
        {"headers much longer", 80, 128, 40, UINT16_MAX, RSI_FRAME_MESSAGE, 80},
        {"payload shorter than frame", 80, 128, 8, 0, RSI_FRAME_MESSAGE, 80},
        {"type 0", 80, 128, 40, 0, 0, 80},
        {"type unknown", 80, 128, 40, 0, 9, 80},
        {"less than a header there", 80, 128, 40, 0, RSI_FRAME_MESSAGE, 32},
        {"nothing there", 80, 128, 40, 0, RSI_FRAME_MESSAGE, 0},
        {"more than the ring", 80, 128, 40, 0, RSI_FRAME_MESSAGE, 65544},
    };
    struct rsi_ring ring = {0};
    setup_ring(&ring);
    for (size_t i = 0; i < rsi_array_count(wrongs); i++) {
        struct rsi_frame_header header = {
            .commit = rsi_commit_word(wrongs[i].commit_pos, wrongs[i].commit_bytes),
            .payload_bytes = wrongs[i].payload_bytes,
            .headers_bytes = wrongs[i].headers_bytes,
            .type = wrongs[i].type,
        };
        memcpy(rsi_ring_at(&ring, 128), &header, sizeof(header));
        struct rsi_frame frame = {.position = 4711};
        const char *why = NULL;
        rsi_status_t status =
            rsi_frame_read(&ring, 128, 128 + wrongs[i].available_bytes, &frame, &why);
        if (status != RSI_E_PROTOCOL || why == NULL) {
            fail_msg("%s: status %d", wrongs[i].name, status);
        }
        assert_int_equal(frame.position, 4711); /* outputs only on success */
    }
    struct rsi_frame frame;
    const char *why = NULL;
    assert_int_equal(rsi_frame_read(&ring, 256, 128, &frame, &why), RSI_E_PROTOCOL);
    rsi_ring_fini(&ring);
}

/* Whatever the bytes are, a frame that is accepted lies within what has arrived. */
static void test_random_bytes_never_reach_beyond(void **state)
{
    (void)state;
    uint64_t random = rsi_test_seed();
    struct rsi_ring ring = {0};
    setup_ring(&ring);
    uint32_t accepted_count = 0;
    for (uint32_t i = 0; i < 200000; i++) {
        uint64_t position = rsi_test_random(&random) & 0xfff8;
        uint64_t available = rsi_test_random(&random) & 0xff8;
        write_frame(&ring, position, (uint16_t)(rsi_test_random(&random) % 16),
                    (uint32_t)(rsi_test_random(&random) % 2048));
        if (i % 2 == 0) {
            uint64_t bit = rsi_test_random(&random) % (RSI_FRAME_HEADER_BYTES * 8);
            *rsi_ring_at(&ring, position + bit / 8) ^= (uint8_t)(1u << bit % 8);
        }
        struct rsi_frame frame;
        const char *why = NULL;
        if (rsi_frame_read(&ring, position, position + available, &frame, &why) == RSI_OK) {
            accepted_count++;
            assert_true(frame.frame_bytes <= available);
            assert_true((uint64_t)(frame.payload - rsi_ring_at(&ring, position)) +
                            frame.header.payload_bytes <=
                        frame.frame_bytes);
        }
    }
    assert_true(accepted_count > 1000);
    rsi_ring_fini(&ring);
}

static void test_commit_may_be_shorter_than_the_claim(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create_attached(0);
    struct rsi_link *link = &test->link;
    struct rsi_frame_header *header = rsi_frame_claim(link, rsi_frame_bytes(0, 4000));
    assert_non_null(header);
    *header = (struct rsi_frame_header){.payload_bytes = 12, .type = RSI_FRAME_MESSAGE};
    rsi_frame_commit(link, rsi_frame_bytes(0, 12));
    rsi_link_place(link);
    struct rsi_frame frame;
    const char *why = NULL;
    assert_int_equal(rsi_frame_read(&link->out, 0, link->placed_pos, &frame, &why), RSI_OK);
    assert_int_equal(frame.frame_bytes, 56);
    rsi_test_link_destroy(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_frames_are_read_across_the_end),
        cmocka_unit_test(test_wrong_frames_are_refused_with_a_reason),
        cmocka_unit_test(test_random_bytes_never_reach_beyond),
        cmocka_unit_test(test_commit_may_be_shorter_than_the_claim),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
