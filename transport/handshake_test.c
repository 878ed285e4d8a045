/*
 * Greetings and attach records: what a peer may say and what is refused, with which words.
 */
#include "transport/testing.h"

static const struct rsi_domain_options usual = {.incarnation = 7};

static void test_own_greeting_is_accepted(void **state)
{
    (void)state;
    struct rsi_greeting greeting;
    rsi_greeting_init(&greeting, &usual);
    assert_int_equal(greeting.magic, RSI_WIRE_MAGIC);
    assert_memory_equal(&greeting.magic, "RINGSIDE", 8);
    assert_int_equal(greeting.incarnation, 7);
    assert_int_equal(greeting.ring_bytes_max, RSI_RING_BYTES_MAX);
    assert_int_equal(greeting.control_credit, RSI_CONTROL_SLOT_COUNT);
    assert_int_equal(rsi_greeting_check(&greeting, sizeof(greeting), &usual, NULL), RSI_OK);
    /* The peer may see more bytes than were sent. */
    assert_int_equal(rsi_greeting_check(&greeting, 196, &usual, NULL), RSI_OK);
}

static void test_two_greetings_differ(void **state)
{
    (void)state;
    struct rsi_greeting one;
    struct rsi_greeting two;
    rsi_greeting_init(&one, &usual);
    rsi_greeting_init(&two, &usual);
    assert_int_not_equal(one.nonce, two.nonce);
}

static void test_strangers_are_refused(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    struct rsi_greeting greeting;
    rsi_greeting_init(&greeting, &usual);
    assert_int_equal(rsi_greeting_check(&greeting, 55, &usual, &error), RSI_E_PROTOCOL);
    assert_non_null(strstr(error.text, "55"));
    greeting.magic = 0x2f20544547u; /* "GET /" */
    assert_int_equal(rsi_greeting_check(&greeting, 56, &usual, &error), RSI_E_PROTOCOL);
    assert_non_null(strstr(error.text, "not Ringside"));
}

struct versions {
    uint16_t own_min, own_max, peer_min, peer_max;
    rsi_status_t status;
};

static void test_versions_must_overlap(void **state)
{
    (void)state;
    static const struct versions cases[] = {
        {1, 1, 1, 1, RSI_OK},        {1, 3, 3, 5, RSI_OK},         {3, 5, 1, 3, RSI_OK},
        {1, 9, 4, 4, RSI_OK},        {1, 1, 2, 2, RSI_E_VERSION},  {5, 9, 1, 4, RSI_E_VERSION},
        {1, 1, 0, 0, RSI_E_VERSION}, {1, 9, 5, 4, RSI_E_PROTOCOL},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct rsi_domain_options options = {
            .version_min = cases[i].own_min,
            .version_max = cases[i].own_max,
        };
        struct rsi_greeting greeting;
        struct rsi_error error = {0};
        rsi_greeting_init(&greeting, &usual);
        greeting.version_min = cases[i].peer_min;
        greeting.version_max = cases[i].peer_max;
        assert_int_equal(rsi_greeting_check(&greeting, 56, &options, &error), cases[i].status);
        if (cases[i].status == RSI_E_VERSION) {
            char own[32];
            char peer[32];
            snprintf(own, sizeof(own), "%u to %u", cases[i].own_min, cases[i].own_max);
            snprintf(peer, sizeof(peer), "%u to %u", cases[i].peer_min, cases[i].peer_max);
            assert_non_null(strstr(error.text, own));
            assert_non_null(strstr(error.text, peer));
        }
    }
}

static void test_pretended_versions_travel(void **state)
{
    (void)state;
    struct rsi_domain_options options = {.version_min = 7, .version_max = 8};
    struct rsi_greeting greeting;
    rsi_greeting_init(&greeting, &options);
    assert_int_equal(greeting.version_min, 7);
    assert_int_equal(greeting.version_max, 8);
    assert_int_equal(rsi_greeting_check(&greeting, 56, &usual, NULL), RSI_E_VERSION);
}

static void test_ring_limit_travels(void **state)
{
    (void)state;
    struct rsi_domain_options options = {.ring_bytes_max = 1048576};
    struct rsi_greeting greeting;
    rsi_greeting_init(&greeting, &options);
    assert_int_equal(greeting.ring_bytes_max, 1048576);
    options.ring_bytes_max = UINT64_MAX;
    rsi_greeting_init(&greeting, &options);
    assert_int_equal(greeting.ring_bytes_max, RSI_RING_BYTES_MAX);
}

static void test_rings_are_checked(void **state)
{
    (void)state;
    static const struct rsi_link_rings good[] = {
        {.out_bytes = 65536, .in_bytes = RSI_RING_BYTES_MAX},
        {.out_bytes = 0, .in_bytes = 131072},
        {.out_bytes = 0, .in_bytes = 0},
        {.out_bytes = 65536,
         .out_start_pos = UINT64_C(1) << 43,
         .out_consumed_pos = UINT64_C(1) << 43,
         .in_bytes = 65536},
        {.out_bytes = 65536, .out_start_pos = 65536 - RSI_RING_GUARD_BYTES},
        {.in_bytes = 65536, .in_start_pos = 65536, .in_consumed_pos = 800},
    };
    static const struct rsi_link_rings bad[] = {
        {.out_bytes = 65535},
        {.in_bytes = 32768},
        {.in_bytes = 98304},
        {.out_bytes = 2 * RSI_RING_BYTES_MAX},
        {.out_bytes = UINT64_MAX},
        {.out_bytes = 65536, .out_start_pos = 4},
        {.in_bytes = 65536, .in_start_pos = 1},
        {.in_bytes = 65536, .in_start_pos = 65536}, /* more than the ring holds is not consumed */
        {.out_bytes = 65536, .out_start_pos = 800, .out_consumed_pos = 808},
        {.out_bytes = 65536, .out_start_pos = 800, .out_consumed_pos = 4},
    };
    for (size_t i = 0; i < rsi_array_count(good); i++) {
        assert_int_equal(rsi_link_rings_check(&good[i], NULL), RSI_OK);
    }
    for (size_t i = 0; i < rsi_array_count(bad); i++) {
        struct rsi_error error = {0};
        assert_int_equal(rsi_link_rings_check(&bad[i], &error), RSI_E_INVALID);
        assert_true(strstr(error.text, "ring") != NULL);
    }
}

static void test_attach_is_held_against_what_was_agreed(void **state)
{
    (void)state;
    const struct rsi_link_rings ours = {
        .out_bytes = 65536, .in_bytes = 131072, .out_start_pos = 64, .in_start_pos = 8};
    const struct rsi_link_rings theirs = {
        .out_bytes = 131072, .in_bytes = 65536, .out_start_pos = 8, .in_start_pos = 64};
    struct rsi_attach attach;
    struct rsi_error error = {0};
    rsi_attach_init(&attach, &theirs);
    assert_int_equal(rsi_attach_check(&attach, &ours, &error), RSI_OK);

    attach.in_ring_bytes = 262144;
    assert_int_equal(rsi_attach_check(&attach, &ours, &error), RSI_E_PROTOCOL);
    assert_non_null(strstr(error.text, "262144"));
    assert_non_null(strstr(error.text, "65536"));

    rsi_attach_init(&attach, &theirs);
    attach.in_start_pos = 72;
    assert_int_equal(rsi_attach_check(&attach, &ours, &error), RSI_E_PROTOCOL);
    assert_non_null(strstr(error.text, "72"));
    assert_non_null(strstr(error.text, "64"));
}

static void test_direction_without_a_ring_has_no_position(void **state)
{
    (void)state;
    const struct rsi_link_rings none = {.out_bytes = 0, .in_bytes = 0, .in_start_pos = 640};
    const struct rsi_link_rings ours = {.out_bytes = 0, .out_start_pos = 1280};
    struct rsi_attach attach;
    rsi_attach_init(&attach, &none);
    assert_int_equal(attach.in_ring_bytes, 0);
    assert_int_equal(attach.in_start_pos, 0);
    assert_int_equal(rsi_attach_check(&attach, &ours, NULL), RSI_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_greeting_is_accepted),
        cmocka_unit_test(test_two_greetings_differ),
        cmocka_unit_test(test_strangers_are_refused),
        cmocka_unit_test(test_versions_must_overlap),
        cmocka_unit_test(test_pretended_versions_travel),
        cmocka_unit_test(test_ring_limit_travels),
        cmocka_unit_test(test_rings_are_checked),
        cmocka_unit_test(test_attach_is_held_against_what_was_agreed),
        cmocka_unit_test(test_direction_without_a_ring_has_no_position),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
