/* layout.h's helper functions: commit words and immediates. */
#include "proto/layout.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_commit_word_names_position_and_length(void **state)
{
    (void)state;
    uint64_t word = rsi_commit_word(4096, 80);
    assert_int_equal(rsi_commit_frame_bytes(word, 4096), 80);
    assert_int_equal(rsi_commit_frame_bytes(word, 4104), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commit_word_names_position_and_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
