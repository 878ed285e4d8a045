#include "core/testing.h"

#include "core/text.h"

static void appending_stops_at_the_end(void **state)
{
    (void)state;
    char buffer[8];
    struct rsi_text text;
    rsi_text_init(&text, buffer, sizeof buffer);
    assert_string_equal(buffer, "");
    rsi_text_append(&text, "%d-", 12);
    rsi_text_append(&text, "abcd");
    assert_string_equal(buffer, "12-abcd");
    assert_false(text.is_cut);
    rsi_text_append(&text, "e");
    assert_string_equal(buffer, "12-abcd");
    assert_true(text.is_cut);
    assert_int_equal(text.length_bytes, 7);
}

static void sizes_and_times_print_in_their_largest_unit(void **state)
{
    (void)state;
    char buffer[128];
    struct rsi_text text;
    rsi_text_init(&text, buffer, sizeof buffer);
    rsi_text_append_size(&text, 0);
    rsi_text_append(&text, ",");
    rsi_text_append_size(&text, 1500);
    rsi_text_append(&text, ",");
    rsi_text_append_size(&text, 65536);
    rsi_text_append(&text, ",");
    rsi_text_append_size(&text, UINT64_C(3) << 40);
    rsi_text_append(&text, ",");
    rsi_text_append_duration(&text, 1500);
    rsi_text_append(&text, ",");
    rsi_text_append_duration(&text, 5000000000);
    rsi_text_append(&text, ",");
    rsi_text_append_duration(&text, 0);
    assert_string_equal(buffer, "0 B,1500 B,64 KiB,3 TiB,1500 ns,5 s,0 ns");
}

static void copying_cuts_and_says_so(void **state)
{
    (void)state;
    char field[4];
    assert_true(rsi_text_copy(field, sizeof field, "abc"));
    assert_string_equal(field, "abc");
    assert_false(rsi_text_copy(field, sizeof field, "abcd"));
    assert_string_equal(field, "abc");
    assert_true(rsi_text_copy(field, sizeof field, ""));
    assert_string_equal(field, "");
}

static void valid_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"0", 0},
        {"512", 512},
        {"512B", 512},
        {"64KiB", 65536},
        {"2 MiB", 2097152},
        {"1GiB", UINT64_C(1) << 30},
        {"3TiB", UINT64_C(3) << 40},
        {"18446744073709551615", UINT64_MAX},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        uint64_t bytes = 1;
        assert_int_equal(rsi_parse_size(&bytes, cases[i].text, NULL), RSI_OK);
        assert_true(bytes == cases[i].bytes);
    }
}

static void invalid_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *told;
    } cases[] = {
        {"", "'' is not a size; write a whole number and a unit, such as 64KiB"},
        {"-1", "'-1' is not a size; write a whole number and a unit, such as 64KiB"},
        {"KiB", "'KiB' is not a size; write a whole number and a unit, such as 64KiB"},
        {"64KB", "'64KB' has no size unit that is known; use B, KiB, MiB, GiB or TiB"},
        {"1.5MiB", "'1.5MiB' has no size unit that is known; use B, KiB, MiB, GiB or TiB"},
        {"64KiB ", "'64KiB ' has no size unit that is known; use B, KiB, MiB, GiB or TiB"},
        {"18446744073709551615KiB", "'18446744073709551615KiB' is larger than any size"},
        {"18446744073709551616",
         "'18446744073709551616' is not a size; write a whole number and a unit, such as 64KiB"},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct rsi_error error = {0};
        uint64_t bytes = 77;
        assert_int_equal(rsi_parse_size(&bytes, cases[i].text, &error), RSI_E_INVALID);
        assert_string_equal(error.text, cases[i].told);
        assert_int_equal(bytes, 77);
    }
}

static void valid_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t duration_ns;
    } cases[] = {
        {"0", 0},
        {"0s", 0},
        {"500ns", 500},
        {"10us", 10000},
        {"100ms", 100000000},
        {"5s", UINT64_C(5000000000)},
        {"5 s", UINT64_C(5000000000)},
        {"2m", UINT64_C(120000000000)},
        {"1h", UINT64_C(3600000000000)},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        uint64_t duration_ns = 1;
        assert_int_equal(rsi_parse_duration(&duration_ns, cases[i].text, NULL), RSI_OK);
        assert_true(duration_ns == cases[i].duration_ns);
    }
}

static void invalid_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *told;
    } cases[] = {
        {"soon", "'soon' is not a time; write a whole number and a unit, such as 100ms"},
        {"5", "'5' has no time unit that is known; use ns, us, ms, s, m or h"},
        {"5sec", "'5sec' has no time unit that is known; use ns, us, ms, s, m or h"},
        {"99999999999999h", "'99999999999999h' is longer than any time"},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct rsi_error error = {0};
        uint64_t duration_ns = 77;
        assert_int_equal(rsi_parse_duration(&duration_ns, cases[i].text, &error), RSI_E_INVALID);
        assert_string_equal(error.text, cases[i].told);
        assert_int_equal(duration_ns, 77);
    }
}

static void numbers_are_held_to_their_bounds(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    uint64_t number = 77;
    assert_int_equal(rsi_parse_number(&number, "10", 1, 10, &error), RSI_OK);
    assert_int_equal(number, 10);
    assert_int_equal(rsi_parse_number(&number, "11", 1, 10, &error), RSI_E_INVALID);
    assert_string_equal(error.text, "11 is not between 1 and 10");
    assert_int_equal(rsi_parse_number(&number, "0", 1, 10, &error), RSI_E_INVALID);
    assert_int_equal(rsi_parse_number(&number, "7x", 1, 10, &error), RSI_E_INVALID);
    assert_string_equal(error.text, "'7x' is not a whole number between 1 and 10");
    assert_int_equal(number, 10);
}

static void prefixes_are_read_whole(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",           "10.7.0.1",    "10.7.0/24",    "10.7.0.1/",
                                        "10.7.0.1/0", "10.7.0.1/32", "10.7.0.1/24x", "/24"};
    uint32_t address = 77;
    uint32_t prefix_bits = 77;
    for (size_t i = 0; i < rsi_array_count(wrong); i++) {
        struct rsi_error error = {0};
        assert_int_equal(rsi_parse_ipv4_prefix(&address, &prefix_bits, wrong[i], &error),
                         RSI_E_INVALID);
        assert_non_null(strstr(error.text, "write it as 10.7.0.1/24"));
    }
    assert_int_equal(address, 77);
    assert_int_equal(prefix_bits, 77);
    assert_int_equal(rsi_parse_ipv4_prefix(&address, &prefix_bits, "10.7.0.1/24", NULL), RSI_OK);
    assert_int_equal(address, 0x0a070001);
    assert_int_equal(prefix_bits, 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appending_stops_at_the_end),
        cmocka_unit_test(sizes_and_times_print_in_their_largest_unit),
        cmocka_unit_test(copying_cuts_and_says_so),
        cmocka_unit_test(valid_sizes),
        cmocka_unit_test(invalid_sizes),
        cmocka_unit_test(valid_durations),
        cmocka_unit_test(invalid_durations),
        cmocka_unit_test(numbers_are_held_to_their_bounds),
        cmocka_unit_test(prefixes_are_read_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
