/*
 * Frames as they are written and as they are taken.
 */
#include "transport/dpdk/packet.h"

#include "core/testing.h"

#define BODY_BYTES 72u

static uint8_t memory[2048];

static struct rsi_port_frame write_with_tail(uint32_t tail_bytes)
{
    static uint8_t tail[BODY_BYTES];
    static const struct rsi_packet_end from = {0x0a070002, 49152, {2, 0, 0, 0, 0, 2}};
    static const struct rsi_packet_end to = {0x0a070001, 7400, {2, 0, 0, 0, 0, 1}};
    struct rsi_port_frame frame = {.data = memory};
    struct rsi_datagram_header header = {
        .type = RSI_DATAGRAM_DATA,
        .flags = RSI_DATAGRAM_FLAG_REPLY,
        .connection = 0x12300001,
        .from = 0x45600002,
        .bytes = BODY_BYTES,
        .timestamp_ns = 17,
        .echo_ns = 18,
        .number = 19,
    };
    for (uint32_t i = 0; i < BODY_BYTES; i++) {
        rsi_packet_body(&frame)[i] = (uint8_t)(i * 3);
    }
    uint8_t *end = rsi_packet_body(&frame) + BODY_BYTES - tail_bytes;
    memcpy(tail, end, tail_bytes);
    memset(end, 0, tail_bytes);
    frame.tail = tail;
    frame.tail_bytes = tail_bytes;
    rsi_packet_write(&frame, &from, &to, &header);
    return frame;
}

static struct rsi_port_frame write_frame(void)
{
    return write_with_tail(0);
}

/* The same frame, written with the end of its body elsewhere. */
static void test_a_tail_changes_nothing(void **state)
{
    (void)state;
    uint8_t whole[sizeof(memory)];
    struct rsi_port_frame frame = write_frame();
    memcpy(whole, frame.data, frame.bytes);
    for (uint32_t tail_bytes = 1; tail_bytes <= BODY_BYTES; tail_bytes++) {
        memset(memory, 0, sizeof(memory));
        frame = write_with_tail(tail_bytes);
        uint32_t head_bytes = frame.bytes - tail_bytes;
        assert_memory_equal(frame.data, whole, head_bytes);
        assert_memory_equal(frame.tail, whole + head_bytes, tail_bytes);
    }
}

static bool is_taken(struct rsi_port_frame *frame)
{
    struct rsi_packet packet;
    return rsi_packet_parse(&packet, frame) && rsi_packet_is_intact(&packet, frame);
}

static void test_what_is_written_is_read(void **state)
{
    (void)state;
    struct rsi_port_frame frame = write_frame();
    struct rsi_packet packet;
    assert_int_equal(frame.bytes, RSI_PACKET_BODY_OFFSET + BODY_BYTES);
    assert_true(rsi_packet_parse(&packet, &frame));
    assert_true(rsi_packet_is_intact(&packet, &frame));
    assert_int_equal(packet.source.address, 0x0a070002);
    assert_int_equal(packet.source.port, 49152);
    assert_int_equal(packet.source.mac[5], 2);
    assert_int_equal(packet.target_address, 0x0a070001);
    assert_int_equal(packet.target_port, 7400);
    assert_int_equal(packet.header.type, RSI_DATAGRAM_DATA);
    assert_int_equal(packet.header.flags, RSI_DATAGRAM_FLAG_REPLY);
    assert_int_equal(packet.header.connection, 0x12300001);
    assert_int_equal(packet.header.from, 0x45600002);
    assert_int_equal(packet.header.number, 19);
    assert_int_equal(packet.body[5], 15);
}

/* The kernel's capture, tshark and every router see plain IPv4 and UDP. */
static void test_bytes_of_the_headers(void **state)
{
    (void)state;
    write_frame();
    static const uint8_t expected[RSI_PACKET_HEADER_BYTES] = {
        2,    0, 0,    0,    0, 1,   2,    0, 0,  0,  0, 2, 0x08, 0, /* Ethernet */
        0x45, 0, 0,    140,  0, 0,   0x40, 0, 64, 17, 0, 0, 10,   7, 0, 2, 10, 7, 0, 1, /* IPv4 */
        0xc0, 0, 0x1c, 0xe8, 0, 120, 0,    0,                                           /* UDP */
    };
    uint8_t shown[RSI_PACKET_HEADER_BYTES];
    memcpy(shown, memory, sizeof(shown));
    uint32_t sum = 0;
    for (uint32_t i = 0; i < RSI_IPV4_BYTES; i += 2) {
        sum += rsi_packet_get_16(shown + RSI_ETHERNET_BYTES + i);
    }
    while (sum >> 16 != 0) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    assert_int_equal(sum, 0xffff); /* the header's sum makes it so */
    shown[24] = 0;
    shown[25] = 0;
    assert_memory_equal(shown, expected, sizeof(shown));
}

/* Every single bit counts but those of the MACs, which the receiver looks at elsewhere. */
static void test_no_bit_may_be_wrong(void **state)
{
    (void)state;
    struct rsi_port_frame frame = write_frame();
    for (uint32_t bit = 12 * 8; bit < frame.bytes * 8; bit++) {
        uint32_t byte = bit / 8;
        bool is_udp_port_or_sum = byte >= 34 && byte < 38;
        bool is_udp_checksum = byte == 40 || byte == 41;
        if (is_udp_port_or_sum || is_udp_checksum) {
            continue; /* held against the connection / not used */
        }
        struct rsi_port_frame spoilt = write_frame();
        memory[byte] ^= (uint8_t)(1u << bit % 8);
        if (is_taken(&spoilt)) {
            fail_msg("byte %u bit %u was wrong and nobody saw it", byte, bit % 8);
        }
    }
}

static void test_no_length_but_the_right_one(void **state)
{
    (void)state;
    struct rsi_port_frame frame = write_frame();
    for (uint32_t bytes = 0; bytes < frame.bytes; bytes++) {
        struct rsi_port_frame cut = write_frame();
        cut.bytes = bytes;
        assert_false(is_taken(&cut));
    }
    /* Padding behind the packet, as Ethernet makes it, is nobody's. */
    struct rsi_port_frame padded = write_frame();
    padded.bytes += 10;
    assert_true(is_taken(&padded));
}

static void test_arp_both_ways(void **state)
{
    (void)state;
    struct rsi_port_frame frame = {.data = memory};
    struct rsi_packet_arp request = {
        .is_request = true,
        .sender_mac = {2, 0, 0, 0, 0, 2},
        .sender_address = 0x0a070002,
        .target_address = 0x0a070001,
    };
    struct rsi_packet_arp read;
    rsi_packet_write_arp(&frame, &request, NULL);
    assert_int_equal(frame.bytes, RSI_ETHERNET_BYTES_MIN);
    assert_int_equal(memory[0], 0xff);
    assert_int_equal(rsi_packet_ethernet_type(&frame), RSI_ETHERNET_TYPE_ARP);
    assert_true(rsi_packet_parse_arp(&read, &frame));
    assert_true(read.is_request);
    assert_int_equal(read.sender_address, request.sender_address);
    assert_int_equal(read.target_address, request.target_address);
    assert_memory_equal(read.sender_mac, request.sender_mac, RSI_MAC_BYTES);
    for (uint32_t bytes = 0; bytes < 42; bytes++) {
        frame.bytes = bytes;
        assert_false(rsi_packet_parse_arp(&read, &frame));
    }
    frame.bytes = RSI_ETHERNET_BYTES_MIN;
    memory[21] = 3;
    assert_false(rsi_packet_parse_arp(&read, &frame));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_a_tail_changes_nothing),
        cmocka_unit_test(test_bytes_of_the_headers),
        cmocka_unit_test(test_no_bit_may_be_wrong),
        cmocka_unit_test(test_no_length_but_the_right_one),
        cmocka_unit_test(test_arp_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
