/*
 * Design notes
 * - Besides the examples, random patterns and subjects over a tiny alphabet are matched against a
 *   reference written the other obvious way (recursive, on token arrays).
 */
#include "proto/subject.h"

#include "proto/layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct check_case {
    const char *subject;
    bool is_literal_fine;
    bool is_pattern_fine;
    size_t pattern_fault_at;
};

static void test_grammar(void **state)
{
    (void)state;
    static const struct check_case cases[] = {
        {"md", true, true, 0},          {"md.XNAS.AAPL", true, true, 0},
        {"a.b-c_d/e:f", true, true, 0}, {"caf\xc3\xa9.\xff", true, true, 0},
        {"*", false, true, 0},          {">", false, true, 0},
        {"md.*.AAPL", false, true, 0},  {"*.*.>", false, true, 0},
        {"", false, false, 0},          {".", false, false, 0},
        {".md", false, false, 0},       {"md.", false, false, 3},
        {"md..AAPL", false, false, 3},  {"md.A*", false, false, 4},
        {"md.**", false, false, 3},     {"md.>.x", false, false, 3},
        {"md.>>", false, false, 3},     {"md x", false, false, 2},
        {"md\tx", false, false, 2},     {"md\x7f", false, false, 2},
    };
    for (size_t index = 0; index < sizeof(cases) / sizeof(cases[0]); index++) {
        const struct check_case *one = &cases[index];
        size_t at = 0;
        const char *literal = rsi_subject_check_literal(one->subject, strlen(one->subject), NULL);
        const char *pattern = rsi_subject_check_pattern(one->subject, strlen(one->subject), &at);
        if ((literal == NULL) != one->is_literal_fine ||
            (pattern == NULL) != one->is_pattern_fine || at != one->pattern_fault_at) {
            fail_msg("\"%s\": literal: %s, pattern: %s at %zu", one->subject,
                     literal ? literal : "fine", pattern ? pattern : "fine", at);
        }
    }
    assert_non_null(rsi_subject_check_literal("a\0b", 3, NULL));
}

static void test_limits(void **state)
{
    (void)state;
    char subject[RSI_SUBJECT_BYTES_MAX + 2];
    memset(subject, 'a', sizeof(subject));
    assert_null(rsi_subject_check_literal(subject, RSI_SUBJECT_BYTES_MAX, NULL));
    assert_non_null(rsi_subject_check_literal(subject, RSI_SUBJECT_BYTES_MAX + 1, NULL));

    /* "a.a.a ...": so many tokens, and one more. */
    for (size_t position = 1; position < sizeof(subject); position += 2) {
        subject[position] = '.';
    }
    assert_null(rsi_subject_check_literal(subject, 2 * RSI_SUBJECT_TOKENS_MAX - 1, NULL));
    const char *text = rsi_subject_check_literal(subject, 2 * RSI_SUBJECT_TOKENS_MAX + 1, NULL);
    assert_non_null(text);
    assert_non_null(strstr(text, "32 tokens"));
}

static bool matches(const char *pattern, const char *subject)
{
    return rsi_subject_matches(pattern, strlen(pattern), subject, strlen(subject));
}

static void test_matching(void **state)
{
    (void)state;
    assert_true(matches("md.XNAS.AAPL", "md.XNAS.AAPL"));
    assert_false(matches("md.XNAS.AAPL", "md.XNAS.AAP"));
    assert_false(matches("md.XNAS.AAP", "md.XNAS.AAPL"));
    assert_false(matches("md.XNAS", "md.XNAS.AAPL"));
    assert_false(matches("md.XNAS.AAPL", "md.XNAS"));
    assert_true(matches("md.*.AAPL", "md.XNAS.AAPL"));
    assert_false(matches("md.*.AAPL", "md.XNAS.MSFT"));
    assert_false(matches("md.*", "md"));
    assert_false(matches("md.*", "md.XNAS.AAPL"));
    assert_true(matches("*", "md"));
    assert_false(matches("*", "md.XNAS"));
    assert_true(matches(">", "md"));
    assert_true(matches(">", "md.XNAS.AAPL"));
    assert_true(matches("md.>", "md.XNAS.AAPL"));
    assert_false(matches("md.>", "md"));
    assert_true(matches("*.>", "md.XNAS"));
    assert_false(matches("*.>", "md"));

    assert_true(rsi_subject_is_literal("md.XNAS", 7));
    assert_false(rsi_subject_is_literal("md.*", 4));
    assert_false(rsi_subject_is_literal("md.>", 4));
}

/* ---- against a reference -----------------------------------------------------------------------
 */

static uint32_t next_random(uint64_t *random)
{
    *random = *random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*random >> 33);
}

static size_t random_tokens(uint64_t *random, const char *alphabet, char *tokens)
{
    size_t count = 1 + next_random(random) % 4;
    for (size_t index = 0; index < count; index++) {
        tokens[index] = alphabet[next_random(random) % strlen(alphabet)];
        if (tokens[index] == '>') {
            return index + 1;
        }
    }
    return count;
}

static bool reference(const char *pattern, size_t pattern_count, const char *subject,
                      size_t subject_count)
{
    if (pattern_count == 0 || subject_count == 0) {
        return pattern_count == subject_count;
    }
    if (pattern[0] == '>') {
        return true;
    }
    return (pattern[0] == '*' || pattern[0] == subject[0]) &&
           reference(pattern + 1, pattern_count - 1, subject + 1, subject_count - 1);
}

static size_t spell(const char *tokens, size_t count, char *text)
{
    size_t bytes = 0;
    for (size_t index = 0; index < count; index++) {
        if (index > 0) {
            text[bytes++] = '.';
        }
        text[bytes++] = tokens[index];
    }
    return bytes;
}

static void test_matching_against_reference(void **state)
{
    (void)state;
    uint64_t random = 20240229;
    uint32_t match_count = 0;
    for (uint32_t round = 0; round < 20000; round++) {
        uint64_t seed = random;
        char pattern_tokens[4];
        char subject_tokens[4];
        char pattern[8];
        char subject[8];
        size_t pattern_count = random_tokens(&random, "ab*>", pattern_tokens);
        size_t subject_count = random_tokens(&random, "ab", subject_tokens);
        size_t pattern_bytes = spell(pattern_tokens, pattern_count, pattern);
        size_t subject_bytes = spell(subject_tokens, subject_count, subject);
        bool expected = reference(pattern_tokens, pattern_count, subject_tokens, subject_count);
        assert_null(rsi_subject_check_pattern(pattern, pattern_bytes, NULL));
        if (rsi_subject_matches(pattern, pattern_bytes, subject, subject_bytes) != expected) {
            fail_msg("pattern %.*s, subject %.*s, seed %llu", (int)pattern_bytes, pattern,
                     (int)subject_bytes, subject, (unsigned long long)seed);
        }
        match_count += expected;
    }
    assert_true(match_count > 1000);
}

/* All subjects of up to 3 tokens out of a, b. */
static size_t make_subjects(char subjects[][8])
{
    size_t count = 0;
    for (uint32_t tokens = 1; tokens <= 3; tokens++) {
        for (uint32_t bits = 0; bits < 1u << tokens; bits++) {
            char *at = subjects[count++];
            for (uint32_t i = 0; i < tokens; i++) {
                *at++ = (bits >> i & 1) != 0 ? 'b' : 'a';
                *at++ = i + 1 < tokens ? '.' : 0;
            }
        }
    }
    return count;
}

/* Patterns that are at most as long as the subjects differ where a subject shows it; "c" stands for
 * all tokens that are neither a nor b. */
static void test_overlaps_and_covers(void **state)
{
    (void)state;
    static const char *const patterns[] = {"a",     "b",     "*",     ">",     "a.b",  "a.*",
                                           "*.b",   "*.*",   "a.>",   "*.>",   "b.>",  "a.b.a",
                                           "*.b.*", "a.*.>", "*.*.>", "*.*.*", "a.a.>"};
    char subjects[16][8];
    size_t subject_count = make_subjects(subjects);
    size_t count = sizeof(patterns) / sizeof(patterns[0]);
    for (size_t a = 0; a < count; a++) {
        for (size_t b = 0; b < count; b++) {
            bool overlaps = false;
            bool covers = true;
            for (size_t i = 0; i < subject_count; i++) {
                bool by_a = rsi_subject_matches(patterns[a], strlen(patterns[a]), subjects[i],
                                                strlen(subjects[i]));
                bool by_b = rsi_subject_matches(patterns[b], strlen(patterns[b]), subjects[i],
                                                strlen(subjects[i]));
                overlaps = overlaps || (by_a && by_b);
                covers = covers && (by_a || !by_b);
            }
            /* Longer ones than there are here. */
            bool is_a_open = strchr(patterns[a], '>') != NULL;
            bool is_b_open = strchr(patterns[b], '>') != NULL;
            covers = covers && (is_a_open || !is_b_open);
            if (rsi_subject_overlaps(patterns[a], strlen(patterns[a]), patterns[b],
                                     strlen(patterns[b])) != overlaps ||
                rsi_subject_covers(patterns[a], strlen(patterns[a]), patterns[b],
                                   strlen(patterns[b])) != covers) {
                fail_msg("%s and %s: overlaps %d, covers %d", patterns[a], patterns[b], overlaps,
                         covers);
            }
        }
    }
}

static void test_clean(void **state)
{
    (void)state;
    char token[] = "a.b c*d>e\tf";
    rsi_subject_token_clean(token, strlen(token));
    assert_string_equal(token, "a_b_c_d_e_f");
    assert_null(rsi_subject_check_literal(token, strlen(token), NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grammar),  cmocka_unit_test(test_limits),
        cmocka_unit_test(test_matching), cmocka_unit_test(test_matching_against_reference),
        cmocka_unit_test(test_clean),    cmocka_unit_test(test_overlaps_and_covers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
