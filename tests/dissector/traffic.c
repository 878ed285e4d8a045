/*
 * Makes traffic of dpdk:// between two sides on a virtual switch, and captures it:
 * dissector_traffic CAPTURE EXPECTED
 *
 * CAPTURE is a pcap file of all frames that either side received, then of altered copies: spoilt,
 * too short, too long, cut by the capture, of no known type or version, random. EXPECTED is what
 * the transport's own code reads in each (decode.h).
 */
#include "tests/dissector/decode.h"
#include "transport/dpdk/crc32c.h"
#include "transport/dpdk/dpdk_testing.h"

#include <stdio.h>
#include <string.h>

#define FRAME_BYTES_MAX   16384u
#define SAMPLE_COUNT_MAX  24u
#define RING_BYTES        262144u
#define LOST_EVERY        6u
#define SWEPT_BODY_BYTES  200u
#define RANDOM_COUNT      600u
#define RANDOM_BODY_BYTES 300u

static const char *capture_path;
static const char *expected_path;

/* ---- the capture ----------------------------------------------------------------------------- */

struct sample {
    uint32_t key;
    uint32_t bytes;
    uint8_t data[FRAME_BYTES_MAX];
};

struct capture {
    FILE *pcap;
    FILE *expected;
    struct rig *rig;
    uint32_t data_count;
    uint64_t random;
    uint32_t sample_count; /* the first frame of each key */
    struct sample samples[SAMPLE_COUNT_MAX];
};

static struct capture capture;

/* libpcap's classic format, in this host's byte order, with nanoseconds. */
static void capture_open(void)
{
    static const struct {
        uint32_t magic;
        uint16_t version_major, version_minor;
        uint32_t zone, accuracy, frame_bytes_max, link_type;
    } head = {0xa1b23c4d, 2, 4, 0, 0, FRAME_BYTES_MAX, 1};
    capture.pcap = fopen(capture_path, "wb");
    capture.expected = fopen(expected_path, "w");
    assert_non_null(capture.pcap);
    assert_non_null(capture.expected);
    assert_int_equal(fwrite(&head, sizeof(head), 1, capture.pcap), 1);
    capture.random = 1;
}

static void capture_close(void)
{
    assert_int_equal(fclose(capture.pcap), 0);
    assert_int_equal(fclose(capture.expected), 0);
}

static void add_record(const struct rsi_port_frame *frame, uint32_t captured_bytes)
{
    uint64_t now_ns = capture.rig->now_ns;
    const uint32_t head[] = {(uint32_t)(now_ns / 1000000000), (uint32_t)(now_ns % 1000000000),
                             captured_bytes, frame->bytes};
    assert_int_equal(fwrite(head, sizeof(head), 1, capture.pcap), 1);
    assert_int_equal(fwrite(frame->data, 1, captured_bytes, capture.pcap), captured_bytes);
}

static void add_cut(const struct rsi_port_frame *frame, uint32_t captured_bytes)
{
    add_record(frame, captured_bytes);
    decode_frame(capture.expected, frame, captured_bytes);
}

static void add(const struct rsi_port_frame *frame)
{
    add_cut(frame, frame->bytes);
}

/* ---- samples --------------------------------------------------------------------------------- */

/* Tells apart what is to be altered of its own: type, with a state, kind of the first record, with
 * ranges. */
static uint32_t sample_key(uint8_t type, bool has_state, uint8_t kind)
{
    return (uint32_t)type << 16 | (uint32_t)has_state << 8 | kind;
}

static uint32_t key_of(const struct rsi_packet *packet)
{
    const struct rsi_datagram_header *header = &packet->header;
    bool has_state = (header->flags & RSI_DATAGRAM_FLAG_STATE) != 0;
    uint32_t state_bytes = has_state ? RSI_DATAGRAM_STATE_BYTES : 0;
    uint8_t kind = 0;
    if (header->type == RSI_DATAGRAM_LANE) {
        kind = packet->body[state_bytes + offsetof(struct rsi_datagram_lane, kind)];
    } else if (header->type == RSI_DATAGRAM_STATE) {
        kind = header->bytes > state_bytes;
    }
    return sample_key(header->type, has_state, kind);
}

static const struct sample *find_sample(uint32_t key)
{
    for (uint32_t i = 0; i < capture.sample_count; i++) {
        if (capture.samples[i].key == key) {
            return &capture.samples[i];
        }
    }
    return NULL;
}

static void keep_sample(const struct rsi_port_frame *frame, const struct rsi_packet *packet)
{
    uint32_t key = key_of(packet);
    if (find_sample(key) != NULL) {
        return;
    }
    assert_true(capture.sample_count < SAMPLE_COUNT_MAX);
    struct sample *sample = &capture.samples[capture.sample_count++];
    sample->key = key;
    sample->bytes = frame->bytes;
    memcpy(sample->data, frame->data, frame->bytes);
}

/* What every received frame is shown to; some data is lost behind it, so that ranges are asked for.
 */
static bool see_frame(void *context, const struct rsi_port_frame *frame)
{
    (void)context;
    struct rsi_packet packet;
    add(frame);
    if (!rsi_packet_parse(&packet, frame)) {
        return false;
    }
    keep_sample(frame, &packet);
    return packet.header.type == RSI_DATAGRAM_DATA && ++capture.data_count % LOST_EVERY == 0;
}

/* ---- traffic --------------------------------------------------------------------------------- */

static void open_seen(struct rig *rig)
{
    rig_open(rig, ",mtu=9000,latency=500000", "");
    capture.rig = rig;
    rsi_fault_port_set_filter(rig_station(&rig->client)->port, see_frame, NULL);
    rsi_fault_port_set_filter(rig_station(&rig->server)->port, see_frame, NULL);
}

static void be_quiet(struct rig *rig, uint32_t round_trips)
{
    uint64_t quiet_ns = rig->now_ns + round_trips * RIG_ROUND_TRIP_NS;
    rig_run_until(rig, rig->now_ns > quiet_ns);
}

/* Nobody listens there. */
static void be_refused(struct rig *rig)
{
    struct rsi_error error = {0};
    struct rsi_url url;
    assert_int_equal(rsi_url_parse(&url, "dpdk://10.7.0.1:7401", &error), RSI_OK);
    assert_int_equal(
        rsi_dpdk_transport.link_dial(&rig->client.link, rig->client.poller, &url, &error), RSI_OK);
    rig_run_until(rig, rsi_link_state(rig->client.link) == RSI_LINK_LOST);
    rsi_dpdk_transport.link_close(rig->client.link);
    rig_run_until(rig, rsi_link_state(rig->client.link) == RSI_LINK_CLOSED);
    rsi_dpdk_transport.link_destroy(rig->client.link);
    rig->client.link = NULL;
}

/* As rig_write, with a value in every field that the reader does not check. */
static void write_frame(struct rig_side *side, uint32_t payload_bytes)
{
    uint64_t frame_bytes = rsi_frame_bytes(0, payload_bytes);
    struct rsi_frame_header *header = rsi_frame_claim(side->link, frame_bytes);
    assert_non_null(header);
    header->payload_bytes = payload_bytes;
    header->type = (uint8_t)(RSI_FRAME_MESSAGE + side->written % RSI_FRAME_LAST);
    header->flags = (uint8_t)(side->written % 4);
    header->headers_bytes = 0;
    header->publication = 0x01020304u * (uint32_t)(side->written + 1);
    header->generation = (uint16_t)(0x1234 + side->written);
    header->entry_count = 0;
    header->sequence = UINT64_C(0x0102030405060708) * (side->written + 1);
    header->publish_time_ns = UINT64_C(1700000000000000000) + side->written;
    memset(header + 1, (int)(0x40 + side->written), frame_bytes - sizeof(*header));
    rsi_frame_commit(side->link, frame_bytes);
    rsi_link_place(side->link);
    side->written++;
}

static void consume(struct rig_side *side)
{
    rsi_link_consume(side->link, side->link->arrived_pos - side->link->consumed_pos);
}

static void talk(struct rig *rig)
{
    static const uint32_t sizes[] = {0, 1, 8, 40, 300, 1333, 8000, 20000};
    for (size_t i = 0; i < rsi_array_count(sizes); i++) {
        char message[512];
        memset(message, (int)('a' + i), sizeof(message));
        uint32_t message_bytes = (uint32_t)(1 + i * 73);
        assert_int_equal(rsi_link_send_control(rig->client.link, message, message_bytes), RSI_OK);
        for (size_t j = i; j < rsi_array_count(sizes); j++) {
            write_frame(&rig->client, sizes[j]);
            write_frame(&rig->server, sizes[j]);
        }
        rig_flush(&rig->client);
        rig_flush(&rig->server);
        rsi_link_request_wake(rig->client.link, UINT64_MAX, UINT64_MAX,
                              rig->client.link->placed_pos);
        rig_run_until(rig, rig->server.link->arrived_pos == rig->client.link->placed_pos &&
                               rig->client.link->arrived_pos == rig->server.link->placed_pos);
        consume(&rig->server);
        consume(&rig->client);
        be_quiet(rig, 5);
        uint32_t bytes;
        while (rsi_link_front_control(rig->server.link, &bytes) != NULL) {
            rsi_link_pop_control(rig->server.link);
        }
    }
}

/* The server's process ended and came back. */
static void be_reset(struct rig *rig)
{
    rsi_station_redirect(rig_station(&rig->server), rig_link(&rig->server)->connection, NULL);
    write_frame(&rig->client, 100);
    rig_flush(&rig->client);
    rig_run_until(rig, rsi_link_state(rig->client.link) == RSI_LINK_LOST);
}

static void assert_all_was_seen(void)
{
    static const struct {
        uint8_t type;
        uint8_t kind;
    } wanted[] = {
        {RSI_DATAGRAM_HELLO, 0},
        {RSI_DATAGRAM_COOKIE, 0},
        {RSI_DATAGRAM_OPEN, 0},
        {RSI_DATAGRAM_ACCEPT, 0},
        {RSI_DATAGRAM_REFUSE, 0},
        {RSI_DATAGRAM_RESET, 0},
        {RSI_DATAGRAM_DATA, 0},
        {RSI_DATAGRAM_STATE, 0},
        {RSI_DATAGRAM_STATE, 1},
        {RSI_DATAGRAM_LANE, RSI_RECORD_CONTROL},
        {RSI_DATAGRAM_LANE, RSI_RECORD_ATTACH},
        {RSI_DATAGRAM_LANE, RSI_RECORD_CLOSE},
        {RSI_DATAGRAM_PROBE, 0},
        {RSI_DATAGRAM_PROBE_ACK, 0},
    };
    for (size_t i = 0; i < rsi_array_count(wanted); i++) {
        if (find_sample(sample_key(wanted[i].type, false, wanted[i].kind)) == NULL &&
            find_sample(sample_key(wanted[i].type, true, wanted[i].kind)) == NULL) {
            fail_msg("no datagram of type %u, kind %u was captured", wanted[i].type,
                     wanted[i].kind);
        }
    }
}

/* ---- altered copies -------------------------------------------------------------------------- */

static uint8_t altered[FRAME_BYTES_MAX];

static struct rsi_port_frame copy_of(const struct sample *sample)
{
    memcpy(altered, sample->data, sample->bytes);
    return (struct rsi_port_frame){.data = altered, .bytes = sample->bytes};
}

/* The same ends, another header and body, with good lengths and checksum. */
static void add_written(const struct sample *sample, struct rsi_datagram_header header)
{
    struct rsi_port_frame frame = copy_of(sample);
    struct rsi_packet packet;
    assert_true(rsi_packet_parse(&packet, &frame));
    struct rsi_packet_end to = {.address = packet.target_address, .port = packet.target_port};
    memcpy(to.mac, altered, RSI_MAC_BYTES);
    rsi_packet_write(&frame, &packet.source, &to, &header);
    add(&frame);
}

static struct rsi_datagram_header header_of(const struct sample *sample)
{
    struct rsi_datagram_header header;
    memcpy(&header, sample->data + RSI_PACKET_HEADER_BYTES, sizeof(header));
    return header;
}

static void seal(const struct rsi_port_frame *frame)
{
    uint8_t *datagram = frame->data + RSI_PACKET_HEADER_BYTES;
    uint8_t *checksum = datagram + offsetof(struct rsi_datagram_header, checksum);
    memset(checksum, 0, sizeof(uint32_t));
    uint32_t value = rsi_crc32c(datagram, frame->bytes - RSI_PACKET_HEADER_BYTES);
    memcpy(checksum, &value, sizeof(value));
}

/* One byte is another one: every byte of the header, some of the body; with the checksum that was
 * right before, and with one that is right now. */
static void add_spoilt(const struct sample *sample)
{
    for (uint32_t at = RSI_PACKET_HEADER_BYTES; at < sample->bytes;
         at += at < RSI_PACKET_BODY_OFFSET ? 1 : 1 + sample->bytes / 16) {
        struct rsi_port_frame frame = copy_of(sample);
        altered[at] ^= (uint8_t)(1u << at % 8);
        add(&frame);
        seal(&frame);
        add(&frame);
    }
}

static void add_of_all_lengths(const struct sample *sample)
{
    struct rsi_datagram_header header = header_of(sample);
    uint32_t bytes_max = header.bytes < SWEPT_BODY_BYTES ? header.bytes : SWEPT_BODY_BYTES;
    for (uint32_t bytes = 0; bytes < bytes_max; bytes++) {
        header.bytes = (uint16_t)bytes;
        add_written(sample, header);
    }
    header.bytes = (uint16_t)(header_of(sample).bytes + 9); /* with what stood behind it */
    add_written(sample, header);
}

/* The frame lost its end on the way, but its headers tell the old length. */
static void add_truncated(const struct sample *sample)
{
    for (uint32_t bytes = RSI_ETHERNET_BYTES + 1; bytes < sample->bytes;
         bytes += 1 + sample->bytes / 16) {
        struct rsi_port_frame frame = copy_of(sample);
        frame.bytes = bytes;
        add(&frame);
    }
}

/* The frame was whole; the capture keeps its beginning. */
static void add_captured_in_part(const struct sample *sample)
{
    for (uint32_t bytes = RSI_PACKET_HEADER_BYTES + 1; bytes < sample->bytes;
         bytes += 1 + sample->bytes / 32) {
        struct rsi_port_frame frame = copy_of(sample);
        add_cut(&frame, bytes);
    }
}

static void add_unknown(const struct sample *sample)
{
    static const uint8_t types[] = {0, RSI_DATAGRAM_PROBE_ACK + 1, 99, 255};
    struct rsi_datagram_header header = header_of(sample);
    for (size_t i = 0; i < rsi_array_count(types); i++) {
        header.type = types[i];
        add_written(sample, header);
    }
    struct rsi_port_frame frame = copy_of(sample);
    altered[RSI_PACKET_HEADER_BYTES] = RSI_DATAGRAM_VERSION + 1;
    seal(&frame);
    add(&frame);
}

/* So that copies of it have a body of that length. */
static void make_room(struct sample *sample, uint32_t body_bytes)
{
    if (sample->bytes < RSI_PACKET_BODY_OFFSET + body_bytes) {
        sample->bytes = RSI_PACKET_BODY_OFFSET + body_bytes;
    }
}

static uint32_t next_random(void)
{
    capture.random = capture.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(capture.random >> 33);
}

static void add_random(const struct sample *sample)
{
    struct sample whole = *sample;
    make_room(&whole, RANDOM_BODY_BYTES);
    for (uint32_t i = 0; i < RANDOM_COUNT; i++) {
        struct rsi_datagram_header header = header_of(sample);
        header.type = (uint8_t)(next_random() % 13);
        header.flags = (uint8_t)next_random();
        header.bytes = (uint16_t)(next_random() % RANDOM_BODY_BYTES);
        header.connection = next_random() * 2;
        header.from = next_random() * 2;
        header.number = (uint64_t)next_random() << 33 | next_random();
        for (uint32_t at = 0; at < header.bytes; at++) {
            bool is_small = next_random() % 8 != 0;
            whole.data[RSI_PACKET_BODY_OFFSET + at] = is_small ? 0 : (uint8_t)next_random();
        }
        add_written(&whole, header);
    }
}

/* ---- bodies that are on an edge -------------------------------------------------------------- */

static void add_body(uint8_t type, const void *body, uint32_t bytes)
{
    struct sample whole = capture.samples[0];
    struct rsi_datagram_header header = header_of(&whole);
    header.type = type;
    header.flags = 0;
    header.bytes = (uint16_t)bytes;
    memcpy(whole.data + RSI_PACKET_BODY_OFFSET, body, bytes);
    make_room(&whole, bytes);
    add_written(&whole, header);
}

static void add_ranges(void)
{
    static const struct rsi_datagram_range ranges[] = {
        {8, 16}, {1, 16}, {8, 17}, {16, 16}, {16, 8}, {UINT64_MAX - 15, UINT64_MAX - 7},
    };
    for (size_t i = 0; i < rsi_array_count(ranges); i++) {
        add_body(RSI_DATAGRAM_STATE, &ranges[i], sizeof(ranges[i]));
    }
}

/* The transport itself never says why it closes; the format lets it. */
static void add_records(void)
{
    static const struct {
        uint8_t kind;
        uint16_t bytes;
    } records[] = {
        {RSI_RECORD_CONTROL, 0},   {RSI_RECORD_CONTROL, 1}, {RSI_RECORD_CONTROL, 512},
        {RSI_RECORD_CONTROL, 513}, {RSI_RECORD_CLOSE, 0},   {RSI_RECORD_CLOSE, 17},
        {RSI_RECORD_ATTACH, 47},   {RSI_RECORD_ATTACH, 48}, {RSI_RECORD_ATTACH, 49},
        {RSI_RECORD_BATCH, 9},
    };
    for (size_t i = 0; i < rsi_array_count(records); i++) {
        struct rsi_datagram_lane head = {
            .sequence = i, .bytes = records[i].bytes, .kind = records[i].kind};
        uint8_t body[sizeof(head) + 520];
        memset(body, 'w', sizeof(body));
        memcpy(body, &head, sizeof(head));
        add_body(RSI_DATAGRAM_LANE, body, (uint32_t)sizeof(head) + ((records[i].bytes + 7u) & ~7u));
    }
}

/* Two frames, and where a position needs more bits than a commit word or a double has. */
static void add_far_data(void)
{
    static const uint64_t positions[] = {
        0,
        8,
        UINT64_C(0xfffffff8),
        UINT64_C(1) << 42,
        (UINT64_C(1) << 43) - 40,
        UINT64_C(0x123456789abcdef8),
        UINT64_MAX - 7,
    };
    for (size_t i = 0; i < rsi_array_count(positions); i++) {
        struct {
            struct rsi_datagram_data data;
            struct rsi_frame_header frames[2];
        } body;
        memset(&body, 0xee, sizeof(body));
        body.data.position = positions[i];
        for (uint32_t j = 0; j < 2; j++) {
            body.frames[j].commit =
                rsi_commit_word(positions[i] + j * RSI_FRAME_HEADER_BYTES, RSI_FRAME_HEADER_BYTES);
        }
        add_body(RSI_DATAGRAM_DATA, &body, sizeof(body));
    }
}

/* UDP, but nobody's of ours: neither a port nor the form says so. */
static void add_foreign(const struct sample *sample)
{
    struct rsi_port_frame frame = copy_of(sample);
    uint8_t *udp = altered + RSI_ETHERNET_BYTES + RSI_IPV4_BYTES;
    rsi_packet_put_16(udp, 50000);
    rsi_packet_put_16(udp + 2, 50001);
    memset(altered + RSI_PACKET_HEADER_BYTES, 0x2e, frame.bytes - RSI_PACKET_HEADER_BYTES);
    add_record(&frame, frame.bytes);
    fprintf(capture.expected, "frame\n");
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void test_traffic(void **state)
{
    (void)state;
    struct rig rig;
    capture_open();
    open_seen(&rig);
    be_refused(&rig);
    rig_connect(&rig, RING_BYTES);
    be_quiet(&rig, 100); /* the larger MTU is probed */
    talk(&rig);
    rig_close(&rig);
    open_seen(&rig);
    rig_connect(&rig, RING_BYTES);
    be_reset(&rig);
    rig_close(&rig);
    assert_all_was_seen();

    for (uint32_t i = 0; i < capture.sample_count; i++) {
        const struct sample *sample = &capture.samples[i];
        add_spoilt(sample);
        add_of_all_lengths(sample);
        add_truncated(sample);
        add_captured_in_part(sample);
        add_unknown(sample);
    }
    add_random(&capture.samples[0]);
    add_ranges();
    add_records();
    add_far_data();
    add_foreign(&capture.samples[0]);
    capture_close();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_traffic)};
    if (argc != 3) {
        fprintf(stderr, "usage: dissector_traffic CAPTURE EXPECTED\n");
        return 2;
    }
    capture_path = argv[1];
    expected_path = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
