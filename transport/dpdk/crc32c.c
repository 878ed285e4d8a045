/*
 * Design notes
 * - x86 has an instruction for it, three cycles of latency each, one begun in each: so three runs
 *   side by side take the time of one. The sums of the first two are then moved over the bytes that
 *   follow them: a product with a constant, x^(8 * bytes - 33), whose remainder the instruction
 *   itself makes. What is left over goes word by word.
 * - Long ones fold, where the CPU multiplies four pairs at once: 256 bytes times x^2048 are added
 *   to the 256 bytes after them, and so on (Gopal et al., "Fast CRC Computation for Generic
 *   Polynomials Using PCLMULQDQ Instruction", Intel 2009); 50 GB/s instead of 20 here.
 * - Where the instruction is missing, a table of sixteen words does, a nibble at a time: two cache
 *   lines instead of the sixteen of a table by bytes. It follows from the polynomial; the test
 * makes it again.
 */
#include "transport/dpdk/crc32c.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const uint32_t table[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

uint32_t rsi_crc32c_extend_by_table(uint32_t before, const void *data, size_t bytes)
{
    const uint8_t *next = data;
    uint32_t sum = ~before;
    for (size_t i = 0; i < bytes; i++) {
        sum ^= next[i];
        sum = sum >> 4 ^ table[sum & 15u];
        sum = sum >> 4 ^ table[sum & 15u];
    }
    return ~sum;
}

#if defined(__x86_64__)

/* Of each of three. Three times all of them, and 32 bytes, make the 1,472 of a full datagram. */
#define RUN_BYTES    160u
#define OVER_ONE     0x878a92a7u /* x^(8 * RUN_BYTES - 33), bits reversed as in all sums here */
#define OVER_TWO     0xbac2fd7bu /* x^(8 * 2 * RUN_BYTES - 33) */
#define BOTH_TARGETS __attribute__((target("sse4.2,pclmul")))
#define FOLD_TARGETS __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))

/* What moves 16 bytes over the next N bits: their later half times x^(N - 33), their first half
 * times x^(N + 31), bits reversed. */
#define OVER_2048 0xb9e02b86u, 0xdcb17aa4u
#define OVER_512  0x9e4addf8u, 0x740eef02u
#define OVER_128  0x493c7d27u, 0xf20c0dfeu

/* From here on folding is faster: the rest behind the last whole 256 goes word by word. */
#define FOLD_BYTES_MIN 1024u

BOTH_TARGETS static inline uint64_t word_at(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return word;
}

/* A sum times a constant, not yet a remainder. */
BOTH_TARGETS static inline uint64_t multiply(uint64_t sum, uint32_t constant)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)sum),
                                           _mm_cvtsi32_si128((int)constant), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

BOTH_TARGETS static uint64_t three_runs(const uint8_t *next, uint64_t sum)
{
    uint64_t second = 0;
    uint64_t third = 0;
    for (uint32_t i = 0; i < RUN_BYTES; i += 8) {
        sum = _mm_crc32_u64(sum, word_at(next + i));
        second = _mm_crc32_u64(second, word_at(next + RUN_BYTES + i));
        third = _mm_crc32_u64(third, word_at(next + 2 * RUN_BYTES + i));
    }
    return third ^ _mm_crc32_u64(0, multiply(sum, OVER_TWO) ^ multiply(second, OVER_ONE));
}

BOTH_TARGETS static uint32_t by_instruction(uint32_t before, const void *data, size_t bytes)
{
    const uint8_t *next = data;
    uint64_t sum = (uint32_t)~before;
    for (; bytes >= 3 * RUN_BYTES; bytes -= 3 * RUN_BYTES, next += 3 * RUN_BYTES) {
        sum = three_runs(next, sum);
    }
    for (; bytes >= 8; bytes -= 8, next += 8) {
        sum = _mm_crc32_u64(sum, word_at(next));
    }
    uint32_t rest = (uint32_t)sum;
    for (; bytes > 0; bytes--) {
        rest = _mm_crc32_u8(rest, *next++);
    }
    return ~rest;
}

/* Each 16 bytes of `far` moved to those of `near`. */
FOLD_TARGETS static inline __m512i fold(__m512i far, __m512i near, __m512i over)
{
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(far, over, 0x00),
                                     _mm512_clmulepi64_epi128(far, over, 0x11), near, 0x96);
}

FOLD_TARGETS static inline __m128i fold_one(__m128i far, __m128i near, __m128i over)
{
    return _mm_xor_si128(
        _mm_xor_si128(_mm_clmulepi64_si128(far, over, 0x00), _mm_clmulepi64_si128(far, over, 0x11)),
        near);
}

/* 64 bytes with a remainder of their own become 16 with the same. */
FOLD_TARGETS static inline __m128i fold_lanes(__m512i lanes)
{
    __m128i over = _mm_set_epi64x(OVER_128);
    __m128i folded =
        fold_one(_mm512_castsi512_si128(lanes), _mm512_extracti32x4_epi32(lanes, 1), over);
    folded = fold_one(folded, _mm512_extracti32x4_epi32(lanes, 2), over);
    return fold_one(folded, _mm512_extracti32x4_epi32(lanes, 3), over);
}

/* At least 256 bytes. */
FOLD_TARGETS static uint32_t by_folding(uint32_t before, const void *data, size_t bytes)
{
    const uint8_t *next = data;
    __m512i first = _mm512_xor_si512(_mm512_loadu_si512(next),
                                     _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)~before)));
    __m512i second = _mm512_loadu_si512(next + 64);
    __m512i third = _mm512_loadu_si512(next + 128);
    __m512i fourth = _mm512_loadu_si512(next + 192);
    __m512i over = _mm512_broadcast_i32x4(_mm_set_epi64x(OVER_2048));
    for (next += 256, bytes -= 256; bytes >= 256; next += 256, bytes -= 256) {
        first = fold(first, _mm512_loadu_si512(next), over);
        second = fold(second, _mm512_loadu_si512(next + 64), over);
        third = fold(third, _mm512_loadu_si512(next + 128), over);
        fourth = fold(fourth, _mm512_loadu_si512(next + 192), over);
    }
    over = _mm512_broadcast_i32x4(_mm_set_epi64x(OVER_512));
    __m128i rest = fold_lanes(fold(fold(fold(first, second, over), third, over), fourth, over));
    uint64_t sum = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(rest));
    sum = _mm_crc32_u64(sum, (uint64_t)_mm_extract_epi64(rest, 1));
    return by_instruction(~(uint32_t)sum, next, bytes);
}
#endif

uint32_t rsi_crc32c_extend(uint32_t before, const void *data, size_t bytes)
{
#if defined(__x86_64__)
    if (bytes >= FOLD_BYTES_MIN && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("vpclmulqdq")) {
        return by_folding(before, data, bytes);
    }
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        return by_instruction(before, data, bytes);
    }
#endif
    return rsi_crc32c_extend_by_table(before, data, bytes);
}
