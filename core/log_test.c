#include "core/testing.h"

#include "core/log.h"

static struct {
    unsigned line_count;
    rsi_log_level_t level;
    char component[32];
    char text[2048];
} last;

static void remember(void *arg, rsi_log_level_t level, const char *component, const char *text)
{
    assert_ptr_equal(arg, &last);
    last.line_count++;
    last.level = level;
    snprintf(last.component, sizeof last.component, "%s", component);
    snprintf(last.text, sizeof last.text, "%s", text);
}

static int set_up(void **state)
{
    (void)state;
    memset(&last, 0, sizeof last);
    rsi_log_set_handler(remember, &last);
    rsi_log_set_level(RSI_LOG_INFO);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rsi_log_set_handler(NULL, NULL);
    return 0;
}

static void lines_above_the_level_are_dropped(void **state)
{
    (void)state;
    errno = EBUSY;
    rsi_log_info("link", "peer %d is up", 3);
    assert_int_equal(errno, EBUSY);
    assert_int_equal(last.line_count, 1);
    assert_int_equal(last.level, RSI_LOG_INFO);
    assert_string_equal(last.component, "link");
    assert_string_equal(last.text, "peer 3 is up");
    rsi_log_debug("link", "not seen");
    assert_int_equal(last.line_count, 1);
    rsi_log_set_level(RSI_LOG_DEBUG);
    rsi_log_debug("link", "seen");
    assert_int_equal(last.line_count, 2);
    rsi_log_set_level(RSI_LOG_ERROR);
    rsi_log_warning("link", "not seen");
    assert_int_equal(last.line_count, 2);
    rsi_log_error("link", "seen");
    assert_int_equal(last.line_count, 3);
}

static void once_is_once(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        RSI_LOG_ONCE(RSI_LOG_WARNING, "arena", "no huge pages");
    }
    assert_int_equal(last.line_count, 1);
    RSI_LOG_ONCE(RSI_LOG_WARNING, "arena", "no huge pages");
    assert_int_equal(last.line_count, 2); /* another place */
}

static void long_texts_are_cut_and_show_it(void **state)
{
    (void)state;
    char text[3000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    rsi_log_info("link", "%s", text);
    assert_int_equal(strlen(last.text), 1023);
    assert_string_equal(last.text + 1020, "...");
}

static void distinct_errors_are_written_once_and_counted(void **state)
{
    (void)state;
    struct rsi_log_distinct_entry entry;
    for (int i = 0; i < 1000; i++) {
        rsi_log_distinct(RSI_LOG_ERROR, "tcp", "peer sends nonsense");
        rsi_log_distinct(RSI_LOG_WARNING, "rdma", "peer sends nonsense");
    }
    assert_int_equal(last.line_count, 2);
    assert_true(rsi_log_distinct_read(0, &entry));
    assert_int_equal(entry.count, 1000);
    assert_int_equal(entry.level, RSI_LOG_ERROR);
    assert_string_equal(entry.component, "tcp");
    assert_string_equal(entry.text, "peer sends nonsense");
    assert_true(entry.first_ns > 0 && entry.last_ns >= entry.first_ns);
    assert_true(rsi_log_distinct_read(1, &entry));
    assert_string_equal(entry.component, "rdma");
    assert_false(rsi_log_distinct_read(2, &entry));
}

static void what_does_not_fit_the_table_is_counted_together(void **state)
{
    (void)state;
    struct rsi_log_distinct_entry entry;
    for (int i = 0; i < 3 * RSI_LOG_DISTINCT_COUNT_MAX; i++) {
        rsi_log_distinct(RSI_LOG_ERROR, "link", "kind %d", i);
    }
    uint64_t count = 0;
    uint32_t index = 0;
    while (rsi_log_distinct_read(index, &entry)) {
        count += strcmp(entry.component, "tcp") != 0 && strcmp(entry.component, "rdma") != 0
                     ? entry.count
                     : 0;
        index++;
    }
    assert_int_equal(index, RSI_LOG_DISTINCT_COUNT_MAX);
    assert_int_equal(count, 3 * RSI_LOG_DISTINCT_COUNT_MAX);
    assert_string_equal(entry.text, "other errors");
    assert_string_equal(entry.component, "log");
}

static void log_and_abort(void *arg)
{
    rsi_log_set_handler(NULL, NULL);
    rsi_log_warning("arena", "%s", (const char *)arg);
    abort();
}

static void standard_error_gets_whole_lines(void **state)
{
    (void)state;
    char output[256];
    char text[] = "page by page";
    int year = 0;
    int consumed = 0;
    rsi_test_expect_abort(log_and_abort, text, output, sizeof output);
    assert_int_equal(
        sscanf(output, "%4d-%*2d-%*2dT%*2d:%*2d:%*2d.%*6dZ warning arena: %n", &year, &consumed),
        1);
    assert_true(year >= 2020);
    assert_true(consumed > 0);
    assert_string_equal(output + consumed, "page by page\n");
}

static void levels_are_read_and_written(void **state)
{
    (void)state;
    static const char *const names[] = {"error", "warning", "info", "debug"};
    struct rsi_error error = {0};
    rsi_log_level_t level = RSI_LOG_ERROR;
    for (size_t i = 0; i < rsi_array_count(names); i++) {
        assert_int_equal(rsi_log_level_parse(&level, names[i], NULL), RSI_OK);
        assert_int_equal(level, i);
        assert_string_equal(rsi_log_level_name(level), names[i]);
    }
    assert_int_equal(rsi_log_level_parse(&level, "loud", &error), RSI_E_INVALID);
    assert_string_equal(error.text, "'loud' is not a log level; use error, warning, info or debug");
    assert_string_equal(rsi_log_level_name((rsi_log_level_t)7), "unknown");
}

#define WITH_HANDLER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_HANDLER(lines_above_the_level_are_dropped),
        WITH_HANDLER(once_is_once),
        WITH_HANDLER(long_texts_are_cut_and_show_it),
        WITH_HANDLER(distinct_errors_are_written_once_and_counted),
        WITH_HANDLER(what_does_not_fit_the_table_is_counted_together),
        WITH_HANDLER(standard_error_gets_whole_lines),
        WITH_HANDLER(levels_are_read_and_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
