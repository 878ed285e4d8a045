/*
 * Design notes
 * - Captures are written here byte by byte, so that each case (a tag, a fragment, a short capture)
 * is exactly what it says, and no other program is needed.
 */
#include "core/testing.h"

#include "clients/cli/input.h"

#include "core/compiler.h"

#include <netinet/in.h>
#include <pcap/dlt.h>
#include <zlib.h>

enum { PACKET_BYTES_MAX = 512, CAPTURE_BYTES_MAX = 8192 };

static char directory[] = "/tmp/ringside-input-XXXXXX";
static char path[128];

static int make_directory(void **state)
{
    (void)state;
    if (mkdtemp(directory) == NULL) {
        return -1;
    }
    snprintf(path, sizeof(path), "%s/file", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static void write_file(const void *data, size_t bytes, bool is_compressed)
{
    if (is_compressed) {
        gzFile file = gzopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(gzwrite(file, data, (unsigned)bytes), (int)bytes);
        assert_int_equal(gzclose(file), Z_OK);
        return;
    }
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static struct rsi_input *open_input(void)
{
    struct rsi_input *input = NULL;
    struct rsi_error error = {0};
    if (rsi_input_open(&input, path, &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
    return input;
}

static void assert_next(struct rsi_input *input, uint64_t number, uint64_t time_ns,
                        const char *payload)
{
    struct rsi_record record;
    struct rsi_error error = {0};
    if (rsi_input_next(input, &record, &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(record.number, number);
    assert_int_equal(record.time_ns, time_ns);
    assert_int_equal(record.payload_bytes, strlen(payload));
    assert_memory_equal(record.payload, payload, record.payload_bytes);
}

static void assert_end(struct rsi_input *input)
{
    struct rsi_record record;
    struct rsi_error error = {0};
    assert_int_equal(rsi_input_next(input, &record, &error), RSI_WOULD_BLOCK);
    rsi_input_close(input);
}

static void lines_plain_and_compressed(void **state)
{
    (void)state;
    static const char text[] = "# comment\n1 a b\n\n18446744073709551615 {\"x\": 1}\r\n3 \n4 last";
    for (int is_compressed = 0; is_compressed < 2; is_compressed++) {
        write_file(text, strlen(text), is_compressed != 0);
        struct rsi_input *input = open_input();
        assert_false(rsi_input_is_capture(input));
        assert_string_equal(rsi_input_unit(input), "line");
        assert_next(input, 2, 1, "a b");
        assert_next(input, 4, UINT64_MAX, "{\"x\": 1}");
        assert_next(input, 5, 3, "");
        assert_next(input, 6, 4, "last");
        assert_end(input);
    }
}

static void an_empty_file_has_no_messages(void **state)
{
    (void)state;
    write_file("", 0, false);
    assert_end(open_input());
    write_file("\n", 1, false);
    assert_end(open_input());
}

static void long_lines_fit(void **state)
{
    (void)state;
    enum { LONG_BYTES = 1000003 };
    char *text = malloc(2 * LONG_BYTES + 16);
    assert_non_null(text);
    memset(text, 'x', 2 * LONG_BYTES + 16);
    memcpy(text, "1 ", 2);
    text[LONG_BYTES] = '\n';
    memcpy(text + LONG_BYTES + 1, "2 ", 2);
    text[2 * LONG_BYTES] = '\n';
    write_file(text, 2 * LONG_BYTES + 1, true);
    struct rsi_input *input = open_input();
    struct rsi_record record;
    assert_int_equal(rsi_input_next(input, &record, NULL), RSI_OK);
    assert_int_equal(record.payload_bytes, LONG_BYTES - 2);
    assert_int_equal(rsi_input_next(input, &record, NULL), RSI_OK);
    assert_int_equal(record.payload_bytes, LONG_BYTES - 3);
    assert_int_equal(record.number, 2);
    assert_end(input);
    free(text);
}

static void malformed_lines_are_named(void **state)
{
    (void)state;
    static const char *const lines[] = {"x",    "12",    " 12 x",
                                        "-1 x", "12\tx", "18446744073709551616 x"};
    for (size_t i = 0; i < rsi_array_count(lines); i++) {
        char text[128];
        snprintf(text, sizeof(text), "1 fine\n%s\n", lines[i]);
        write_file(text, strlen(text), false);
        struct rsi_input *input = open_input();
        struct rsi_record record;
        struct rsi_error error = {0};
        assert_next(input, 1, 1, "fine");
        assert_int_equal(rsi_input_next(input, &record, &error), RSI_E_INVALID);
        assert_non_null(strstr(error.text, path));
        assert_non_null(strstr(error.text, "line 2"));
        rsi_input_close(input);
    }
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct rsi_input *input = NULL;
    struct rsi_error error = {0};
    assert_int_equal(rsi_input_open(&input, "/nowhere/at.all", &error), RSI_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "/nowhere/at.all"));
    assert_null(input);
}

static void a_file_that_was_cut_is_an_error(void **state)
{
    (void)state;
    char text[65536];
    unsigned seed = 1;
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (char)('a' + rand_r(&seed) % 26);
    }
    for (size_t line = 0; line < sizeof(text); line += 64) {
        text[line] = '1';
        text[line + 1] = ' ';
        text[line + 63] = '\n';
    }
    write_file(text, sizeof(text), true);
    assert_int_equal(truncate(path, 16000), 0);
    struct rsi_input *input = open_input();
    struct rsi_record record;
    struct rsi_error error = {0};
    rsi_status_t status = RSI_OK;
    while (status == RSI_OK) {
        status = rsi_input_next(input, &record, &error);
    }
    assert_int_equal(status, RSI_E_INVALID);
    assert_non_null(strstr(error.text, "cut short"));
    rsi_input_close(input);
}

/* ---- captures -----------------------------------------------------------------------------------
 */

struct bytes {
    uint8_t data[CAPTURE_BYTES_MAX];
    size_t count;
};

static void put(struct bytes *out, const void *data, size_t bytes)
{
    assert_true(out->count + bytes <= sizeof(out->data));
    memcpy(out->data + out->count, data, bytes);
    out->count += bytes;
}

/* Network order. */
static void put_u16(struct bytes *out, unsigned value)
{
    put(out, (const uint8_t[]){(uint8_t)(value >> 8), (uint8_t)value}, 2);
}

/* The host's order, as captures have it. */
static void put_host_u32(struct bytes *out, uint32_t value)
{
    put(out, &value, sizeof(value));
}

static void put_udp(struct bytes *out, const char *payload)
{
    put_u16(out, 1000);
    put_u16(out, 2000);
    put_u16(out, 8 + (unsigned)strlen(payload));
    put_u16(out, 0);
    put(out, payload, strlen(payload));
}

static void put_ipv4(struct bytes *out, unsigned protocol, unsigned fragment, const char *payload)
{
    put(out, (const uint8_t[]){0x45, 0}, 2);
    put_u16(out, 28 + (unsigned)strlen(payload));
    put_u16(out, 1);
    put_u16(out, fragment);
    put(out, (const uint8_t[]){64, (uint8_t)protocol, 0, 0, 10, 0, 0, 1, 239, 1, 2, 3}, 12);
    put_udp(out, payload);
}

static void put_ipv6(struct bytes *out, const char *payload, bool has_fragment_header,
                     unsigned fragment)
{
    size_t extension_bytes = has_fragment_header ? 16 : 8;
    put(out, (const uint8_t[]){0x60, 0, 0, 0}, 4);
    put_u16(out, (unsigned)(extension_bytes + 8 + strlen(payload)));
    put(out, (const uint8_t[]){IPPROTO_HOPOPTS, 64}, 2);
    put(out, (const uint8_t[16]){0xfe, 0x80, [15] = 1}, 16);
    put(out, (const uint8_t[16]){0xff, 0x02, [15] = 2}, 16);
    uint8_t after = has_fragment_header ? IPPROTO_FRAGMENT : IPPROTO_UDP;
    put(out, (const uint8_t[]){after, 0, 1, 4, 0, 0, 0, 0}, 8);
    if (has_fragment_header) {
        put(out, (const uint8_t[]){IPPROTO_UDP, 0}, 2);
        put_u16(out, fragment);
        put(out, (const uint8_t[]){0, 0, 0, 7}, 4);
    }
    put_udp(out, payload);
}

static void put_ethernet(struct bytes *out, unsigned type)
{
    put(out, "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c", 12);
    put_u16(out, type);
}

static void put_capture_header(struct bytes *out, uint32_t magic, uint32_t link_type)
{
    put_host_u32(out, magic);
    put(out, (const uint16_t[]){2, 4}, 4);
    put_host_u32(out, 0);
    put_host_u32(out, 0);
    put_host_u32(out, 65535);
    put_host_u32(out, link_type);
}

static void put_packet(struct bytes *out, uint32_t seconds, uint32_t fraction,
                       const struct bytes *packet, size_t captured_bytes)
{
    put_host_u32(out, seconds);
    put_host_u32(out, fraction);
    put_host_u32(out, (uint32_t)captured_bytes);
    put_host_u32(out, (uint32_t)packet->count);
    put(out, packet->data, captured_bytes);
}

static void an_ethernet_capture_of_all_kinds(void **state)
{
    (void)state;
    struct bytes file = {.count = 0};
    put_capture_header(&file, 0xa1b23c4d, DLT_EN10MB);
    struct bytes plain = {.count = 0};
    put_ethernet(&plain, 0x0800);
    put_ipv4(&plain, IPPROTO_UDP, 0x4000, "plain");
    put(&plain, "\0\0\0\0\0\0\0\0", 8); /* padding to the smallest Ethernet frame */
    put_packet(&file, 1, 5, &plain, plain.count);
    struct bytes arp = {.count = 0};
    put_ethernet(&arp, 0x0806);
    put_packet(&file, 1, 6, &arp, arp.count);
    struct bytes tagged = {.count = 0};
    put_ethernet(&tagged, 0x88a8);
    put_u16(&tagged, 5);
    put_u16(&tagged, 0x8100);
    put_u16(&tagged, 7);
    put_u16(&tagged, 0x0800);
    put_ipv4(&tagged, IPPROTO_UDP, 0, "two tags");
    put_packet(&file, 1, 7, &tagged, tagged.count);
    struct bytes tcp = {.count = 0};
    put_ethernet(&tcp, 0x0800);
    put_ipv4(&tcp, IPPROTO_TCP, 0, "tcp");
    put_packet(&file, 1, 8, &tcp, tcp.count);
    for (unsigned fragment = 0x2000; fragment != 0; fragment = fragment == 0x2000 ? 100 : 0) {
        struct bytes part = {.count = 0};
        put_ethernet(&part, 0x0800);
        put_ipv4(&part, IPPROTO_UDP, fragment, "part");
        put_packet(&file, 1, 9, &part, part.count);
    }
    put_packet(&file, 1, 10, &plain, 44); /* two bytes of the payload were captured */
    put_packet(&file, 1, 11, &plain, 20); /* not even the IP header */
    struct bytes v6 = {.count = 0};
    put_ethernet(&v6, 0x86dd);
    put_ipv6(&v6, "v6", false, 0);
    put_packet(&file, 2, 999999999, &v6, v6.count);
    struct bytes atomic = {.count = 0};
    put_ethernet(&atomic, 0x86dd);
    put_ipv6(&atomic, "whole", true, 0);
    put_packet(&file, 3, 0, &atomic, atomic.count);
    struct bytes v6_part = {.count = 0};
    put_ethernet(&v6_part, 0x86dd);
    put_ipv6(&v6_part, "part", true, 1);
    put_packet(&file, 3, 1, &v6_part, v6_part.count);
    struct bytes liar = {.count = 0};
    put_ethernet(&liar, 0x0800);
    put_ipv4(&liar, IPPROTO_UDP, 0, "liar");
    liar.data[14 + 20 + 4] = 0xff; /* UDP says 65 KiB */
    put_packet(&file, 3, 2, &liar, liar.count);
    put_packet(&file, 4, 4, &plain, 47); /* cut, but only within the padding */

    for (int is_compressed = 0; is_compressed < 2; is_compressed++) {
        write_file(file.data, file.count, is_compressed != 0);
        struct rsi_input *input = open_input();
        assert_true(rsi_input_is_capture(input));
        assert_next(input, 1, UINT64_C(1000000005), "plain");
        assert_next(input, 3, UINT64_C(1000000007), "two tags");
        assert_next(input, 9, UINT64_C(2999999999), "v6");
        assert_next(input, 10, UINT64_C(3000000000), "whole");
        assert_next(input, 13, UINT64_C(4000000004), "plain");
        struct rsi_record record;
        assert_int_equal(rsi_input_next(input, &record, NULL), RSI_WOULD_BLOCK);
        const uint64_t *counts = rsi_input_kind_counts(input);
        assert_int_equal(counts[RSI_PACKET_UDP], 5);
        assert_int_equal(counts[RSI_PACKET_NOT_IP], 1);
        assert_int_equal(counts[RSI_PACKET_NOT_UDP], 1);
        assert_int_equal(counts[RSI_PACKET_FRAGMENT], 3);
        assert_int_equal(counts[RSI_PACKET_TRUNCATED], 2);
        assert_int_equal(counts[RSI_PACKET_MALFORMED], 1);
        rsi_input_close(input);
    }
}

static void other_links_and_microseconds(void **state)
{
    (void)state;
    static const struct {
        uint32_t file_link_type; /* LINKTYPE_... of the file format */
        size_t header_bytes;
        size_t type_offset; /* SIZE_MAX: no type in the header */
    } links[] = {
        {101, 0, SIZE_MAX}, /* raw */
        {228, 0, SIZE_MAX}, /* IPv4 */
        {113, 16, 14},      /* Linux cooked */
        {276, 20, 0},       /* Linux cooked, version 2 */
        {0, 4, SIZE_MAX},   /* BSD loopback */
    };
    for (size_t i = 0; i < rsi_array_count(links); i++) {
        struct bytes file = {.count = 0};
        struct bytes packet = {.count = links[i].header_bytes};
        if (links[i].type_offset != SIZE_MAX) {
            memcpy(packet.data + links[i].type_offset, "\x08\x00", 2);
        }
        put_ipv4(&packet, IPPROTO_UDP, 0, "payload");
        put_capture_header(&file, 0xa1b2c3d4, links[i].file_link_type);
        put_packet(&file, 7, 123456, &packet, packet.count);
        write_file(file.data, file.count, false);
        struct rsi_input *input = open_input();
        assert_next(input, 1, UINT64_C(7123456000), "payload");
        assert_end(input);
    }
}

static void put_block(struct bytes *out, uint32_t type, const struct bytes *body)
{
    uint32_t padded_bytes = (uint32_t)((body->count + 3) & ~(size_t)3);
    put_host_u32(out, type);
    put_host_u32(out, padded_bytes + 12);
    put(out, body->data, padded_bytes);
    put_host_u32(out, padded_bytes + 12);
}

static void a_pcapng_capture(void **state)
{
    (void)state;
    struct bytes file = {.count = 0};
    struct bytes section = {.count = 0};
    put_host_u32(&section, 0x1a2b3c4d);
    put(&section, (const uint16_t[]){1, 0}, 4);
    put(&section, &(const int64_t){-1}, 8);
    put_block(&file, 0x0a0d0d0a, &section);
    struct bytes interface = {.count = 0};
    put(&interface, (const uint16_t[]){1, 0}, 4); /* Ethernet */
    put_host_u32(&interface, 65535);
    put(&interface, (const uint16_t[]){9, 1, 9, 0, 0, 0}, 12); /* if_tsresol: 10^-9 */
    put_block(&file, 1, &interface);
    struct bytes packet = {.count = 0};
    put_ethernet(&packet, 0x0800);
    put_ipv4(&packet, IPPROTO_UDP, 0, "next generation");
    struct bytes enhanced = {.count = 0};
    uint64_t time_ns = UINT64_C(1700000000123456789);
    put_host_u32(&enhanced, 0);
    put_host_u32(&enhanced, (uint32_t)(time_ns >> 32));
    put_host_u32(&enhanced, (uint32_t)time_ns);
    put_host_u32(&enhanced, (uint32_t)packet.count);
    put_host_u32(&enhanced, (uint32_t)packet.count);
    put(&enhanced, packet.data, packet.count);
    put_block(&file, 6, &enhanced);
    write_file(file.data, file.count, false);
    struct rsi_input *input = open_input();
    assert_next(input, 1, time_ns, "next generation");
    assert_end(input);
}

static void an_unknown_link_is_named(void **state)
{
    (void)state;
    struct bytes file = {.count = 0};
    put_capture_header(&file, 0xa1b2c3d4, 105); /* IEEE 802.11 */
    write_file(file.data, file.count, false);
    struct rsi_input *input = NULL;
    struct rsi_error error = {0};
    assert_int_equal(rsi_input_open(&input, path, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "IEEE802_11"));
}

/* Nothing in a packet makes the decoder read beyond it; the sanitizers watch. */
static void any_bytes_can_be_decoded(void **state)
{
    (void)state;
    static const int link_types[] = {DLT_EN10MB, DLT_RAW, DLT_LINUX_SLL, DLT_LINUX_SLL2, DLT_NULL};
    struct bytes whole = {.count = 0};
    put_ethernet(&whole, 0x86dd);
    put_ipv6(&whole, "payload of some bytes", true, 0);
    unsigned seed = (unsigned)rsi_test_now_ns();
    print_message("seed %u\n", seed);
    for (int round = 0; round < 20000; round++) {
        size_t bytes = (size_t)rand_r(&seed) % (whole.count + 1);
        uint8_t *packet = malloc(bytes + 1);
        assert_non_null(packet);
        memcpy(packet, whole.data, bytes);
        for (int change = 0; change < 3 && bytes > 0; change++) {
            packet[(size_t)rand_r(&seed) % bytes] = (uint8_t)rand_r(&seed);
        }
        struct rsi_datagram datagram;
        rsi_packet_kind_t kind = rsi_packet_decode(link_types[round % 5], packet, bytes,
                                                   bytes + (size_t)rand_r(&seed) % 64, &datagram);
        if (kind == RSI_PACKET_UDP) {
            assert_true(datagram.payload >= packet);
            assert_true(datagram.payload + datagram.payload_bytes <= packet + bytes);
        }
        free(packet);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_plain_and_compressed),
        cmocka_unit_test(an_empty_file_has_no_messages),
        cmocka_unit_test(long_lines_fit),
        cmocka_unit_test(malformed_lines_are_named),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(a_file_that_was_cut_is_an_error),
        cmocka_unit_test(an_ethernet_capture_of_all_kinds),
        cmocka_unit_test(other_links_and_microseconds),
        cmocka_unit_test(a_pcapng_capture),
        cmocka_unit_test(an_unknown_link_is_named),
        cmocka_unit_test(any_bytes_can_be_decoded),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
