/*
 * Design notes
 * - x86 has an instruction for it, three cycles of latency each: three runs side by side would be
 *   three times as fast, but a frame of 1,500 bytes takes 0.2 us as it is.
 * - Where the instruction is missing, a table of sixteen words does, a nibble at a time: two cache
 *   lines instead of the sixteen of a table by bytes. It follows from the polynomial; the test
 * makes it again.
 */
#include "transport/dpdk/crc32c.h"

#include <string.h>

static const uint32_t table[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

uint32_t rsi_crc32c_by_table(const void *data, size_t bytes)
{
    const uint8_t *next = data;
    uint32_t sum = UINT32_MAX;
    for (size_t i = 0; i < bytes; i++) {
        sum ^= next[i];
        sum = sum >> 4 ^ table[sum & 15u];
        sum = sum >> 4 ^ table[sum & 15u];
    }
    return ~sum;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t by_instruction(const void *data, size_t bytes)
{
    const uint8_t *next = data;
    uint64_t sum = UINT32_MAX;
    for (; bytes >= 8; bytes -= 8, next += 8) {
        uint64_t word;
        memcpy(&word, next, sizeof(word));
        sum = __builtin_ia32_crc32di(sum, word);
    }
    uint32_t rest = (uint32_t)sum;
    for (; bytes > 0; bytes--) {
        rest = __builtin_ia32_crc32qi(rest, *next++);
    }
    return ~rest;
}
#endif

uint32_t rsi_crc32c(const void *data, size_t bytes)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        return by_instruction(data, bytes);
    }
#endif
    return rsi_crc32c_by_table(data, bytes);
}
