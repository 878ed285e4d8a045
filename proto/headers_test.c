/*
 * The block of a message's headers: what is written is read again, and everything that a peer could
 * write wrongly is told.
 */
#include "proto/headers.h"

#include "core/testing.h"

#define BLOCK_BYTES 512u

static uint32_t put(uint8_t *block, uint32_t at, const char *name, const char *value)
{
    return (uint32_t)(rsi_header_put(block + at, name, strlen(name), value, strlen(value)) - block);
}

static void test_written_is_read(void **state)
{
    (void)state;
    uint8_t block[BLOCK_BYTES] = {0};
    char longest[RSI_HEADER_NAME_BYTES_MAX + 1];
    memset(longest, 'n', RSI_HEADER_NAME_BYTES_MAX);
    longest[RSI_HEADER_NAME_BYTES_MAX] = 0;
    uint32_t end = put(block, 0, "Trace-Id", "abc");
    end = put(block, end, "x", "");
    end = (uint32_t)(rsi_header_put(block + end, longest, strlen(longest), "\0:\n\xff", 4) - block);
    uint32_t block_bytes = (uint32_t)rsi_headers_padded_bytes(end);
    uint32_t count = 99;
    assert_null(rsi_headers_check(block, block_bytes, &count));
    assert_int_equal(count, 3);

    struct rsi_header entry;
    uint32_t at = 0;
    assert_true(rsi_headers_next(block, block_bytes, &at, &entry));
    assert_string_equal(entry.name, "Trace-Id");
    assert_int_equal(entry.value_bytes, 3);
    assert_memory_equal(entry.value, "abc", 3);
    assert_true(rsi_header_name_is(&entry, "tRACE-iD", 8));
    assert_false(rsi_header_name_is(&entry, "trace-i", 7));
    assert_false(rsi_header_name_is(&entry, "trace_id", 8));
    assert_true(rsi_headers_next(block, block_bytes, &at, &entry));
    assert_string_equal(entry.name, "x");
    assert_int_equal(entry.value_bytes, 0);
    assert_true(rsi_headers_next(block, block_bytes, &at, &entry));
    assert_string_equal(entry.name, longest);
    assert_memory_equal(entry.value, "\0:\n\xff", 4);
    assert_false(rsi_headers_next(block, block_bytes, &at, &entry));
}

static void test_no_headers(void **state)
{
    (void)state;
    uint32_t count = 99;
    assert_null(rsi_headers_check(NULL, 0, &count));
    assert_int_equal(count, 0);
}

/* Every length of padding, and the largest block there is. */
static void test_sizes(void **state)
{
    (void)state;
    static uint8_t block[RSI_HEADERS_BYTES_MAX];
    for (size_t value_bytes = 0; value_bytes < 16; value_bytes++) {
        memset(block, 0, 64);
        uint8_t *end = rsi_header_put(block, "ab", 2, "0123456789abcdef", value_bytes);
        uint32_t bytes = (uint32_t)rsi_headers_padded_bytes((uint64_t)(end - block));
        assert_int_equal(end - block, rsi_header_entry_bytes(2, value_bytes));
        uint32_t count = 0;
        assert_null(rsi_headers_check(block, bytes, &count));
        assert_int_equal(count, 1);
        /* A word more of zeros is no padding. */
        assert_non_null(rsi_headers_check(block, bytes + 8, NULL));
    }
    static uint8_t value[RSI_HEADERS_BYTES_MAX];
    memset(value, 0xff, sizeof(value));
    uint8_t *end = rsi_header_put(block, "n", 1, value, RSI_HEADERS_BYTES_MAX - 6);
    assert_ptr_equal(end, block + RSI_HEADERS_BYTES_MAX);
    assert_null(rsi_headers_check(block, RSI_HEADERS_BYTES_MAX, NULL));
}

static void test_malformed(void **state)
{
    (void)state;
    static const struct {
        const char *part;
        uint16_t name_bytes;
        uint16_t value_bytes;
        const char *name; /* of 3 bytes */
        char end;         /* behind it */
        uint32_t block_bytes;
    } wrongs[] = {
        {"empty or too long", 0, 8, "abc", 0, 16},
        {"empty or too long", 256, 0, "abc", 0, 16},
        {"empty or too long", UINT16_MAX, UINT16_MAX, "abc", 0, 16},
        {"beyond", 3, 9, "abc", 0, 16},
        {"beyond", 3, UINT16_MAX, "abc", 0, 16},
        {"beyond", 255, 0, "abc", 0, 16},
        {"with a zero", 3, 8, "abc", 'd', 16},
        {"printable", 3, 8, "a:c", 0, 16},
        {"printable", 3, 8, "a c", 0, 16},
        {"printable", 3, 8, "a\nc", 0, 16},
        {"printable", 3, 8,
         "a\xc3"
         "c",
         0, 16},
        {"printable", 3, 8, "a\0c", 0, 16},
        {"padded", 3, 8, "abc", 0, 15},
        {"padded", 3, 8, "abc", 0, 17},
    };
    for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        uint8_t block[BLOCK_BYTES] = {0};
        const struct rsi_headers_entry head = {.name_bytes = wrongs[i].name_bytes,
                                               .value_bytes = wrongs[i].value_bytes};
        memcpy(block, &head, sizeof(head));
        memcpy(block + sizeof(head), wrongs[i].name, 3);
        block[sizeof(head) + 3] = (uint8_t)wrongs[i].end;
        memset(block + 8, 'v', 8);
        const char *why = rsi_headers_check(block, wrongs[i].block_bytes, NULL);
        if (why == NULL || strstr(why, wrongs[i].part) == NULL) {
            fail_msg("case %zu: %s", i, why == NULL ? "taken" : why);
        }
    }
    /* Something other than zeros where padding is. */
    uint8_t block[BLOCK_BYTES] = {0};
    (void)put(block, 0, "ab", "c");
    for (uint32_t at = 8; at < 16; at++) {
        memset(block + 8, 0, 8);
        block[at] = 1;
        assert_non_null(rsi_headers_check(block, 16, NULL));
    }
}

static void test_names(void **state)
{
    (void)state;
    size_t at = 99;
    char name[RSI_HEADER_NAME_BYTES_MAX + 1];
    memset(name, '~', sizeof(name));
    assert_null(rsi_header_name_check(name, RSI_HEADER_NAME_BYTES_MAX, &at));
    assert_non_null(rsi_header_name_check(name, RSI_HEADER_NAME_BYTES_MAX + 1, &at));
    assert_int_equal(at, RSI_HEADER_NAME_BYTES_MAX);
    assert_non_null(strstr(rsi_header_name_check("", 0, &at), "empty"));
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[3] = {'a', (char)byte, 'b'};
        bool is_fine = byte > 0x20 && byte < 0x7f && byte != ':';
        assert_int_equal(rsi_header_name_check(text, 3, &at) == NULL, is_fine);
        assert_true(is_fine || at == 1);
    }
}

/* Whatever changes after the check: each step stays within the block. */
static void test_random_bytes(void **state)
{
    (void)state;
    uint64_t random = rsi_test_seed();
    for (uint32_t round = 0; round < 20000; round++) {
        uint32_t block_bytes = 8 * (1 + (uint32_t)(rsi_test_random(&random) % 8));
        uint8_t *block = calloc(1, block_bytes); /* so that the sanitizers know where it ends */
        assert_non_null(block);
        (void)rsi_header_put(block, "a", 1, "b", 1);
        for (uint32_t change = 0; change < 4; change++) {
            block[rsi_test_random(&random) % block_bytes] = (uint8_t)rsi_test_random(&random) & 31;
        }
        struct rsi_header entry;
        uint32_t at = 0;
        uint32_t count = 0;
        uint32_t read_count = 0;
        bool is_well_formed = rsi_headers_check(block, block_bytes, &count) == NULL;
        while (rsi_headers_next(block, block_bytes, &at, &entry)) {
            assert_true(at <= block_bytes);
            assert_true(entry.value + entry.value_bytes == block + at);
            assert_int_equal(entry.name[entry.name_bytes], 0);
            read_count++;
        }
        assert_true(!is_well_formed || read_count == count);
        free(block);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_is_read), cmocka_unit_test(test_no_headers),
        cmocka_unit_test(test_sizes),           cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_names),           cmocka_unit_test(test_random_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
