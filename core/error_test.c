#include "core/testing.h"

#include "core/error.h"

static void every_status_has_name_and_phrase(void **state)
{
    (void)state;
    static const struct {
        int first;
        int last;
        rsi_scope_t scope;
    } ranges[] = {
        {0, 2, RSI_SCOPE_NONE},          {-11, -1, RSI_SCOPE_CALL},
        {-106, -100, RSI_SCOPE_LINK},    {-203, -200, RSI_SCOPE_DOMAIN},
        {-304, -300, RSI_SCOPE_PROCESS}, {-400, -400, RSI_SCOPE_BUG},
    };
    for (size_t i = 0; i < rsi_array_count(ranges); i++) {
        for (int value = ranges[i].first; value <= ranges[i].last; value++) {
            rsi_status_t status = (rsi_status_t)value;
            assert_string_not_equal(rsi_status_name(status), "unknown status");
            assert_int_equal(strncmp(rsi_status_name(status), "RSI_", 4), 0);
            assert_string_not_equal(rsi_status_phrase(status), "unknown status");
            assert_int_equal(rsi_status_scope(status), ranges[i].scope);
            assert_int_equal(rsi_failed(status), value < 0);
        }
        /* The table ends where the enum ends: nothing is named beyond either side of a range. */
        rsi_status_t beyond = (rsi_status_t)(i == 0 ? ranges[i].last + 1 : ranges[i].first - 1);
        assert_string_equal(rsi_status_name(beyond), "unknown status");
    }
    assert_string_equal(rsi_status_name(RSI_E_LIMIT), "RSI_E_LIMIT");
    assert_string_equal(rsi_status_phrase((rsi_status_t)-999), "unknown status");
}

static void failing_fills_the_error(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    int line = __LINE__ + 1;
    rsi_status_t status = rsi_fail(&error, RSI_E_LIMIT, "%d links are too many", 7);
    assert_int_equal(status, RSI_E_LIMIT);
    assert_int_equal(error.status, RSI_E_LIMIT);
    assert_int_equal(error.line, line);
    assert_string_equal(error.file, "core/error_test.c");
    assert_string_equal(error.text, "7 links are too many");
}

static void failing_without_an_error_still_returns_the_status(void **state)
{
    (void)state;
    assert_int_equal(rsi_fail(NULL, RSI_E_INVALID, "unseen"), RSI_E_INVALID);
    assert_int_equal(rsi_fail_errno(NULL, RSI_E_IO, EIO, "unseen"), RSI_E_IO);
    rsi_error_context(NULL, "unseen");
}

static void errno_text_is_appended_and_errno_kept(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    errno = EBUSY;
    rsi_status_t status = rsi_fail_errno(&error, RSI_E_IO, ENOENT, "cannot open %s", "x");
    assert_int_equal(status, RSI_E_IO);
    assert_string_equal(error.text, "cannot open x: No such file or directory");
    assert_int_equal(errno, EBUSY);
}

static void context_goes_before_the_text(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    (void)rsi_fail(&error, RSI_E_IO, "cause");
    rsi_error_context(&error, "inner %d", 1);
    rsi_error_context(&error, "outer");
    assert_string_equal(error.text, "outer: inner 1: cause");
    assert_int_equal(error.status, RSI_E_IO);
}

static void long_texts_are_cut_and_show_it(void **state)
{
    (void)state;
    char text[2 * RSI_ERROR_TEXT_BYTES];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    struct rsi_error error = {0};
    (void)rsi_fail(&error, RSI_E_IO, "%s", text);
    assert_int_equal(strlen(error.text), RSI_ERROR_TEXT_BYTES - 1);
    assert_string_equal(error.text + RSI_ERROR_TEXT_BYTES - 4, "...");

    rsi_error_context(&error, "where it was");
    assert_int_equal(strlen(error.text), RSI_ERROR_TEXT_BYTES - 1);
    assert_int_equal(strncmp(error.text, "where it was: aaa", 17), 0);
    assert_string_equal(error.text + RSI_ERROR_TEXT_BYTES - 4, "...");

    rsi_error_context(&error, "%s", text);
    assert_string_equal(error.text + RSI_ERROR_TEXT_BYTES - 4, "...");

    (void)rsi_fail_errno(&error, RSI_E_IO, EIO, "%.*s", RSI_ERROR_TEXT_BYTES - 5, text);
    assert_string_equal(error.text + RSI_ERROR_TEXT_BYTES - 4, "...");
}

static void describing_names_text_status_and_place(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    char buffer[256];
    char expected[256];
    (void)rsi_fail(&error, RSI_E_ADDRESS, "no such address");
    snprintf(expected, sizeof expected, "no such address (RSI_E_ADDRESS, core/error_test.c:%d)",
             error.line);
    assert_string_equal(rsi_error_describe(&error, buffer, sizeof buffer), expected);

    rsi_error_clear(&error);
    assert_int_equal(error.status, RSI_OK);
    assert_string_equal(error.text, "");
    assert_string_equal(rsi_error_describe(&error, buffer, sizeof buffer), "ok (RSI_OK)");
}

static void every_errno_is_a_failure(void **state)
{
    (void)state;
    for (int value = 0; value < 200; value++) {
        assert_true(rsi_failed(rsi_status_from_errno(value)));
    }
    assert_int_equal(rsi_status_from_errno(ENOMEM), RSI_E_NO_MEMORY);
    assert_int_equal(rsi_status_from_errno(EMFILE), RSI_E_NO_DESCRIPTORS);
    assert_int_equal(rsi_status_from_errno(EPERM), RSI_E_PERMISSION);
    assert_int_equal(rsi_status_from_errno(ECONNRESET), RSI_E_LINK_LOST);
    assert_int_equal(rsi_status_from_errno(ECONNREFUSED), RSI_E_REFUSED);
    assert_int_equal(rsi_status_from_errno(EXDEV), RSI_E_SYSTEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_name_and_phrase),
        cmocka_unit_test(failing_fills_the_error),
        cmocka_unit_test(failing_without_an_error_still_returns_the_status),
        cmocka_unit_test(errno_text_is_appended_and_errno_kept),
        cmocka_unit_test(context_goes_before_the_text),
        cmocka_unit_test(long_texts_are_cut_and_show_it),
        cmocka_unit_test(describing_names_text_status_and_place),
        cmocka_unit_test(every_errno_is_a_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
