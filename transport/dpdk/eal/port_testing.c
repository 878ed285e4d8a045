/*
 * Ports in tests: see port_testing.h.
 */
#include "transport/dpdk/eal/port_testing.h"

#include <poll.h>

enum { HEADER_BYTES = 14, OWN_TYPE = 0x88b5 /* for local experiments */ };

struct rsi_port *port_open(const struct rsi_dpdk_options *options)
{
    struct rsi_port *port = NULL;
    struct rsi_error error = {0};
    if (rsi_dpdk_plugin_port_open(&port, options, &error) != RSI_OK) {
        fail_msg("%s: %s", options->port, error.text);
    }
    assert_true(port->frame_bytes_max >= 590);
    assert_true(port->receive_frames >= 64);
    assert_true(port->transmit_queue_count >= 1);
    assert_int_equal(port->mac[0] & 1, 0);
    port->operations->thread_begin(port);
    port->operations->thread_begin(port);
    return port;
}

void port_expect_failure(const struct rsi_dpdk_options *options, rsi_status_t status,
                         const char *const *words)
{
    struct rsi_port *port = NULL;
    struct rsi_error error = {0};
    rsi_status_t result = rsi_dpdk_plugin_port_open(&port, options, &error);
    assert_null(port);
    if (result != status) {
        fail_msg("%s: %s instead of %s: %s", options->port, rsi_status_name(result),
                 rsi_status_name(status), error.text);
    }
    for (; *words != NULL; words++) {
        if (strstr(error.text, *words) == NULL) {
            fail_msg("%s: '%s' does not say '%s'", options->port, error.text, *words);
        }
    }
}

static uint8_t byte_at(uint32_t number, uint32_t at)
{
    return (uint8_t)(number * 7 + at);
}

void port_send(struct rsi_port *a, const struct rsi_port *b, uint32_t bytes, uint32_t number)
{
    static uint8_t tail[RSI_DPDK_MTU_MAX];
    struct rsi_port_frame frame;
    rsi_test_wait_until(a->operations->acquire(a, &frame, 1) == 1);
    memcpy(frame.data, b->mac, 6);
    memcpy(frame.data + 6, a->mac, 6);
    frame.data[12] = OWN_TYPE >> 8;
    frame.data[13] = OWN_TYPE & 0xff;
    frame.bytes = bytes;
    uint32_t content_bytes = bytes - HEADER_BYTES;
    if (content_bytes >= a->tail_bytes_min) {
        frame.tail = tail;
        frame.tail_bytes = content_bytes - number % (content_bytes - a->tail_bytes_min + 1);
    }
    for (uint32_t at = HEADER_BYTES; at < bytes; at++) {
        frame.data[at] = byte_at(number, at);
    }
    uint32_t head_bytes = bytes - frame.tail_bytes;
    memcpy(tail, frame.data + head_bytes, frame.tail_bytes);
    memset(frame.data + head_bytes, 0, frame.tail_bytes);
    rsi_test_wait_until(a->operations->transmit(a, 0, &frame, 1) == 1);
    memset(tail, 0x5a, frame.tail_bytes); /* it is ours again */
}

static bool is_ours(const struct rsi_port *port, const struct rsi_port_frame *frame)
{
    return memcmp(frame->data, port->mac, 6) == 0 && frame->data[12] == OWN_TYPE >> 8 &&
           frame->data[13] == (OWN_TYPE & 0xff);
}

bool port_take(struct rsi_port *b, uint32_t bytes, uint32_t number)
{
    struct rsi_port_frame frame;
    bool is_right = false;
    while (!is_right && b->operations->receive(b, &frame, 1) == 1) {
        is_right = is_ours(b, &frame) && frame.bytes == bytes;
        for (uint32_t at = HEADER_BYTES; is_right && at < bytes; at++) {
            is_right = frame.data[at] == byte_at(number, at);
        }
        b->operations->release(b, &frame, 1);
    }
    return is_right;
}

void port_expect(struct rsi_port *b, uint32_t bytes, uint32_t number)
{
    uint64_t end_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    while (!port_take(b, bytes, number)) {
        if (rsi_test_now_ns() > end_ns) {
            fail_msg("frame %u of %u bytes has not come as it was sent", number, bytes);
        }
    }
}

void port_expect_wake(struct rsi_port *a, struct rsi_port *b)
{
    for (uint32_t number = 0; number < 3; number++) {
        struct rsi_port_frame frame;
        struct pollfd sleep = {.fd = b->operations->arm(b), .events = POLLIN};
        assert_true(sleep.fd >= 0);
        while (b->operations->receive(b, &frame, 1) == 1) {
            b->operations->release(b, &frame, 1); /* the kernel may say something too */
        }
        port_send(a, b, 100, number);
        assert_int_equal(poll(&sleep, 1, (int)(RSI_TEST_HANG_NS / 1000000)), 1);
        b->operations->disarm(b, sleep.fd);
        port_expect(b, 100, number);
    }
}

bool port_is_passed_over(void)
{
    if (RSI_THREAD_SANITIZER) {
        puts("skipped: DPDK's libraries are not built for the thread sanitizer");
    }
    return RSI_THREAD_SANITIZER;
}
