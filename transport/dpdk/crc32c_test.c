#include "transport/dpdk/crc32c.h"

#include "core/testing.h"

/* RFC 3720, B.4. */
static void test_known_sums(void **state)
{
    (void)state;
    uint8_t bytes[32];
    assert_int_equal(rsi_crc32c("123456789", 9), 0xe3069283u);
    assert_int_equal(rsi_crc32c("", 0), 0);
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(rsi_crc32c(bytes, sizeof(bytes)), 0x8a9136aau);
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(rsi_crc32c(bytes, sizeof(bytes)), 0x62a8ab43u);
}

static void test_table_and_instruction_agree(void **state)
{
    (void)state;
    uint8_t bytes[257];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 37 + 11);
    }
    for (size_t count = 0; count < 240; count++) {
        for (size_t from = 0; from < 9; from++) {
            assert_int_equal(rsi_crc32c(bytes + from, count),
                             rsi_crc32c_extend_by_table(0, bytes + from, count));
        }
    }
}

/* Long ones are summed in several runs, and of two pieces comes the sum of the whole. */
static void test_long_ones_agree(void **state)
{
    (void)state;
    static uint8_t bytes[9100];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 131 + (i >> 8) * 29 + 5);
    }
    for (size_t count = 480; count <= 9000; count += count < 1600 ? 1 : 307) {
        size_t from = count % 9;
        uint32_t whole = rsi_crc32c_extend_by_table(0, bytes + from, count);
        assert_int_equal(rsi_crc32c(bytes + from, count), whole);
        for (size_t cut = 0; cut <= count; cut += 1 + count / 5) {
            const uint8_t *rest = bytes + from + cut;
            uint32_t before = rsi_crc32c(bytes + from, cut);
            assert_int_equal(rsi_crc32c_extend(before, rest, count - cut), whole);
            assert_int_equal(rsi_crc32c_extend_by_table(before, rest, count - cut), whole);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_sums),
        cmocka_unit_test(test_table_and_instruction_agree),
        cmocka_unit_test(test_long_ones_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
