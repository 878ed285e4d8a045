/*
 * Design notes
 * - One digest of a feed is fixed here: a change of the generator would silently change what system
 * tests and demonstrations replay.
 */
#include "core/testing.h"

#include "clients/cli/feed.h"

#include <inttypes.h>
#include <jansson.h>

static const struct rsi_feed_options options = {
    .symbol_count = 50, .seed = 7, .rate_per_second = 10000, .has_bursts = true, .start_ns = 1000};

static uint64_t digest_feed(const struct rsi_feed_options *feed_options, int line_count)
{
    struct rsi_feed feed;
    char line[RSI_FEED_LINE_BYTES_MAX];
    uint64_t digest = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    assert_int_equal(rsi_feed_init(&feed, feed_options, NULL), RSI_OK);
    for (int i = 0; i < line_count; i++) {
        size_t bytes = rsi_feed_next(&feed, line);
        for (size_t at = 0; at < bytes; at++) {
            digest = (digest ^ (uint8_t)line[at]) * UINT64_C(0x100000001b3);
        }
    }
    rsi_feed_fini(&feed);
    return digest;
}

static void the_same_seed_gives_the_same_bytes(void **state)
{
    (void)state;
    struct rsi_feed_options other = options;
    other.seed = 8;
    uint64_t digest = digest_feed(&options, 5000);
    assert_int_equal(digest, digest_feed(&options, 5000));
    assert_int_not_equal(digest, digest_feed(&other, 5000));
    assert_int_equal(digest, UINT64_C(0xabf57f8e4449f42a));
}

static void lines_are_what_replay_reads(void **state)
{
    (void)state;
    struct rsi_feed feed;
    char line[RSI_FEED_LINE_BYTES_MAX];
    uint64_t last_time_ns = 0;
    size_t shortest = SIZE_MAX;
    size_t longest = 0;
    assert_int_equal(rsi_feed_init(&feed, &options, NULL), RSI_OK);
    for (int i = 0; i < 5000; i++) {
        size_t bytes = rsi_feed_next(&feed, line);
        assert_int_equal(line[bytes - 1], '\n');
        char *payload = NULL;
        uint64_t time_ns = strtoull(line, &payload, 10);
        assert_true(time_ns >= last_time_ns);
        last_time_ns = time_ns;
        size_t payload_bytes = bytes - (size_t)(payload - line) - 2;
        json_t *object = json_loadb(payload + 1, payload_bytes, 0, NULL);
        assert_non_null(object);
        assert_true(json_is_string(json_object_get(object, "stream")));
        assert_true(json_integer_value(json_object_get(object, "seq")) > 0);
        json_decref(object);
        shortest = payload_bytes < shortest ? payload_bytes : shortest;
        longest = payload_bytes > longest ? payload_bytes : longest;
    }
    assert_true(shortest < 100);
    assert_true(longest > 1000);
    assert_true(longest <= 2048);
    rsi_feed_fini(&feed);
}

static void the_rate_is_kept_with_and_without_bursts(void **state)
{
    (void)state;
    for (int has_bursts = 0; has_bursts < 2; has_bursts++) {
        struct rsi_feed feed;
        struct rsi_feed_options wanted = options;
        char line[RSI_FEED_LINE_BYTES_MAX];
        enum { LINE_COUNT = 100000 };
        wanted.has_bursts = has_bursts != 0;
        assert_int_equal(rsi_feed_init(&feed, &wanted, NULL), RSI_OK);
        for (int i = 0; i < LINE_COUNT; i++) {
            (void)rsi_feed_next(&feed, line);
        }
        double rate = LINE_COUNT * 1e9 / (double)(feed.time_ns - wanted.start_ns);
        assert_true(rate > 0.9 * wanted.rate_per_second);
        assert_true(rate < 1.1 * wanted.rate_per_second);
        rsi_feed_fini(&feed);
    }
}

static void activity_falls_like_zipf(void **state)
{
    (void)state;
    struct rsi_feed feed;
    char line[RSI_FEED_LINE_BYTES_MAX];
    assert_int_equal(rsi_feed_init(&feed, &options, NULL), RSI_OK);
    for (int i = 0; i < 50000; i++) {
        (void)rsi_feed_next(&feed, line);
    }
    assert_true(feed.symbols[0].sequence > 5 * feed.symbols[9].sequence);
    assert_true(feed.symbols[49].sequence > 0);
    rsi_feed_fini(&feed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_bytes),
        cmocka_unit_test(lines_are_what_replay_reads),
        cmocka_unit_test(the_rate_is_kept_with_and_without_bursts),
        cmocka_unit_test(activity_falls_like_zipf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
