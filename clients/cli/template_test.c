/*
 * Design notes
 * - The examples of RFC 6901 section 5 are here as the standard has them.
 */
#include "core/testing.h"

#include "clients/cli/template.h"

static struct rsi_record line_record(const char *payload)
{
    return (struct rsi_record){
        .payload = (const uint8_t *)payload, .payload_bytes = strlen(payload), .number = 1};
}

static void assert_subject(const char *template_text, const char *payload, const char *expected)
{
    struct rsi_template template;
    struct rsi_error error = {0};
    struct rsi_subject subject;
    struct rsi_record record = line_record(payload);
    if (rsi_template_parse(&template, template_text, &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
    if (rsi_template_apply(&template, &record, &subject, &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
    assert_string_equal(subject.text, expected);
    assert_int_equal(subject.bytes, strlen(expected));
}

static void assert_refused(const char *template_text, const char *payload, rsi_status_t expected,
                           const char *named)
{
    struct rsi_template template;
    struct rsi_error error = {0};
    struct rsi_subject subject;
    struct rsi_record record = line_record(payload);
    assert_int_equal(rsi_template_parse(&template, template_text, &error), RSI_OK);
    assert_int_equal(rsi_template_apply(&template, &record, &subject, &error), expected);
    if (strstr(error.text, named) == NULL) {
        fail_msg("'%s' does not name '%s'", error.text, named);
    }
}

static void assert_no_template(const char *text, const char *named)
{
    struct rsi_template template;
    struct rsi_error error = {0};
    assert_int_not_equal(rsi_template_parse(&template, text, &error), RSI_OK);
    if (strstr(error.text, named) == NULL) {
        fail_msg("'%s' does not name '%s'", error.text, named);
    }
}

static void values_become_tokens(void **state)
{
    (void)state;
    assert_subject("md.{/stream}", "{\"stream\":\"btcusdt@trade\"}", "md.btcusdt@trade");
    assert_subject("md.{/s}", "{\"s\":\"a.b c>*\\u0001\\t\"}", "md.a_b_c____");
    assert_subject("md.{/s}", "{\"s\":\"\"}", "md._");
    assert_subject("md.x{/s}y.z", "{\"s\":7}", "md.x7y.z");
    assert_subject("md.{/s}", "{\"s\":1.5}", "md.1_5");
    assert_subject("md.{/s}", "{\"s\":-3}", "md.-3");
    assert_subject("md.{/s}", "{\"s\":true}", "md.true");
    assert_subject("{/a}.{/b}", "{\"a\":\"x\",\"b\":\"y\"}", "x.y");
    assert_subject("md.{/s}", "{\"s\":\"\xc3\xa9\"}", "md.\xc3\xa9");
    assert_subject("plain.subject", "no json at all", "plain.subject");
}

static void pointers_follow_the_standard(void **state)
{
    (void)state;
    static const char document[] =
        "{\"foo\":[\"bar\",\"baz\"],\"\":0,\"a/b\":1,\"c%d\":2,\"e^f\":3,"
        "\"g|h\":4,\"i\\\\j\":5,\"k\\\"l\":6,\" \":7,\"m~n\":8}";
    assert_subject("x.{/foo/0}", document, "x.bar");
    assert_subject("x.{/foo/1}", document, "x.baz");
    assert_subject("x.{/}", document, "x.0");
    assert_subject("x.{/a~1b}", document, "x.1");
    assert_subject("x.{/c%d}", document, "x.2");
    assert_subject("x.{/e^f}", document, "x.3");
    assert_subject("x.{/g|h}", document, "x.4");
    assert_subject("x.{/i\\j}", document, "x.5");
    assert_subject("x.{/k\"l}", document, "x.6");
    assert_subject("x.{/ }", document, "x.7");
    assert_subject("x.{/m~0n}", document, "x.8");
    assert_subject("x.{/~01}", "{\"~1\":9}", "x.9");
    assert_refused("x.{/foo/2}", document, RSI_E_NOT_FOUND, "{/foo/2}");
    assert_refused("x.{/foo/-}", document, RSI_E_NOT_FOUND, "{/foo/-}");
    assert_refused("x.{/foo/00}", document, RSI_E_NOT_FOUND, "{/foo/00}");
    assert_refused("x.{/foo/0/z}", document, RSI_E_NOT_FOUND, "{/foo/0/z}");
}

static void what_lacks_the_field_says_so(void **state)
{
    (void)state;
    assert_refused("x.{/s}", "{\"t\":1}", RSI_E_NOT_FOUND, "{/s}");
    assert_refused("x.{/s}", "{\"s\":null}", RSI_E_NOT_FOUND, "neither text nor number");
    assert_refused("x.{/s}", "{\"s\":{}}", RSI_E_NOT_FOUND, "neither text nor number");
    assert_refused("x.{/s}", "not json", RSI_E_NOT_FOUND, "JSON");
    assert_refused("x.{/s}", "{\"s\":1", RSI_E_NOT_FOUND, "JSON");
    assert_refused("x.{/s}", "", RSI_E_NOT_FOUND, "JSON");
    assert_refused("x.{dst}", "{}", RSI_E_NOT_FOUND, "{dst}");
}

static void numbers_beyond_64_bits_do_not_hide_other_fields(void **state)
{
    (void)state;
    assert_subject("x.{/s}", "{\"id\":123456789012345678901234567890,\"s\":\"a\"}", "x.a");
}

static void subjects_have_a_limit(void **state)
{
    (void)state;
    char payload[RSI_SUBJECT_BYTES_MAX + 64];
    char expected[RSI_SUBJECT_BYTES_MAX + 1];
    int longest = (int)RSI_SUBJECT_BYTES_MAX - 2;
    snprintf(payload, sizeof(payload), "{\"s\":\"%0*d\"}", longest, 0);
    snprintf(expected, sizeof(expected), "x.%0*d", longest, 0);
    assert_subject("x.{/s}", payload, expected);
    snprintf(payload, sizeof(payload), "{\"s\":\"%0*d\"}", longest + 1, 0);
    assert_refused("x.{/s}", payload, RSI_E_INVALID, "{/s}");
}

static void packet_fields(void **state)
{
    (void)state;
    struct rsi_datagram datagram = {
        .source = {.bytes = {10, 0, 0, 1}},
        .destination = {.bytes = {0xff, 0x02, [15] = 1}, .is_ipv6 = true},
        .source_port = 1234,
        .destination_port = 65535,
    };
    struct rsi_record record = {.datagram = &datagram};
    struct rsi_template template;
    struct rsi_subject subject;
    assert_int_equal(rsi_template_parse(&template, "md.{src}.{sport}.{dst}.{dport}", NULL), RSI_OK);
    assert_true(template.has_packet_field);
    assert_false(template.has_pointer);
    assert_int_equal(rsi_template_apply(&template, &record, &subject, NULL), RSI_OK);
    assert_string_equal(subject.text, "md.10_0_0_1.1234.ff02::1.65535");
}

static void wrong_templates_are_named(void **state)
{
    (void)state;
    assert_no_template("", "subject");
    assert_no_template("md.{", "'}'");
    assert_no_template("md.{/a", "'}'");
    assert_no_template("md.}", "'{'");
    assert_no_template("md.{dest}", "{dest}");
    assert_no_template("md.{}", "{}");
    assert_no_template("md.{/a~2}", "~0");
    assert_no_template("md..{/a}", "md..{/a}");
    assert_no_template("md.*.{/a}", "md.*.{/a}");
    assert_no_template("md.>", "md.>");
    char text[RSI_TEMPLATE_BYTES_MAX + 1];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_no_template(text, "longer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_become_tokens),
        cmocka_unit_test(pointers_follow_the_standard),
        cmocka_unit_test(what_lacks_the_field_says_so),
        cmocka_unit_test(numbers_beyond_64_bits_do_not_hide_other_fields),
        cmocka_unit_test(subjects_have_a_limit),
        cmocka_unit_test(packet_fields),
        cmocka_unit_test(wrong_templates_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
