/*
 * Design notes
 * - The expected proofs were computed with another implementation (Python's hmac module) from the
 *   formula in auth.h, so that both sides agreeing on a mistake is noticed.
 */
#include "transport/auth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t client_nonce[RSI_AUTH_NONCE_BYTES] = {1, 2, 3};
static const uint8_t broker_nonce[RSI_AUTH_NONCE_BYTES] = {9, 8, 7};

static struct rsi_auth_input sample_input(void)
{
    return (struct rsi_auth_input){
        .secret = "open sesame",
        .secret_bytes = 11,
        .client_nonce = client_nonce,
        .client_nonce_bytes = sizeof(client_nonce),
        .broker_nonce = broker_nonce,
        .broker_nonce_bytes = sizeof(broker_nonce),
        .client_name = "desk-1",
    };
}

static void test_known_answer(void **state)
{
    (void)state;
    static const uint8_t client_expected[RSI_AUTH_PROOF_BYTES] = {
        0xd0, 0xe3, 0xff, 0x2d, 0xe7, 0x37, 0x37, 0x3d, 0xa9, 0x8a, 0xe4,
        0x0b, 0xf4, 0x11, 0x83, 0x39, 0xec, 0xb2, 0x5e, 0x34, 0x5f, 0x0f,
        0x70, 0x68, 0xb4, 0x2a, 0xa7, 0x2d, 0x0a, 0xc1, 0x1b, 0x6c,
    };
    static const uint8_t broker_expected[RSI_AUTH_PROOF_BYTES] = {
        0x89, 0x4f, 0x29, 0xea, 0x3a, 0x9f, 0x68, 0xe8, 0x2c, 0x36, 0x2c,
        0x08, 0x64, 0xf5, 0x2e, 0xe2, 0x73, 0xf8, 0x96, 0x7d, 0xd9, 0x0f,
        0xaa, 0x58, 0xeb, 0x09, 0x52, 0x5d, 0xaa, 0x77, 0xdf, 0x21,
    };
    struct rsi_auth_input input = sample_input();
    uint8_t proof[RSI_AUTH_PROOF_BYTES];

    assert_int_equal(rsi_auth_proof(RSI_AUTH_CLIENT, &input, proof, NULL), RSI_OK);
    assert_memory_equal(proof, client_expected, sizeof(proof));
    assert_int_equal(rsi_auth_proof(RSI_AUTH_BROKER, &input, proof, NULL), RSI_OK);
    assert_memory_equal(proof, broker_expected, sizeof(proof));
}

static void test_every_part_counts(void **state)
{
    (void)state;
    struct rsi_auth_input input = sample_input();
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    uint8_t other[RSI_AUTH_PROOF_BYTES];
    assert_int_equal(rsi_auth_proof(RSI_AUTH_CLIENT, &input, proof, NULL), RSI_OK);
    assert_true(rsi_auth_equal(proof, sizeof(proof), proof));

    assert_int_equal(rsi_auth_proof(RSI_AUTH_BROKER, &input, other, NULL), RSI_OK);
    assert_false(rsi_auth_equal(proof, sizeof(proof), other));
    assert_int_equal(rsi_auth_proof(RSI_AUTH_RESUME, &input, other, NULL), RSI_OK);
    assert_false(rsi_auth_equal(proof, sizeof(proof), other));

    struct rsi_auth_input changed = sample_input();
    changed.client_name = "desk-2";
    assert_int_equal(rsi_auth_proof(RSI_AUTH_CLIENT, &changed, other, NULL), RSI_OK);
    assert_false(rsi_auth_equal(proof, sizeof(proof), other));

    changed = sample_input();
    changed.secret = "open Sesame";
    assert_int_equal(rsi_auth_proof(RSI_AUTH_CLIENT, &changed, other, NULL), RSI_OK);
    assert_false(rsi_auth_equal(proof, sizeof(proof), other));

    changed = sample_input();
    changed.client_nonce = broker_nonce;
    changed.broker_nonce = client_nonce;
    assert_int_equal(rsi_auth_proof(RSI_AUTH_CLIENT, &changed, other, NULL), RSI_OK);
    assert_false(rsi_auth_equal(proof, sizeof(proof), other));

    /* The same bytes, split differently between a nonce and the name. */
    changed = sample_input();
    changed.broker_nonce_bytes -= 1;
    assert_int_equal(rsi_auth_proof(RSI_AUTH_CLIENT, &changed, other, NULL), RSI_OK);
    assert_false(rsi_auth_equal(proof, sizeof(proof), other));
}

static void test_equal_wants_the_whole_proof(void **state)
{
    (void)state;
    uint8_t proof[RSI_AUTH_PROOF_BYTES] = {5};
    assert_false(rsi_auth_equal(proof, 0, proof));
    assert_false(rsi_auth_equal(proof, RSI_AUTH_PROOF_BYTES - 1, proof));
    uint8_t other[RSI_AUTH_PROOF_BYTES] = {5};
    other[RSI_AUTH_PROOF_BYTES - 1] = 1;
    assert_false(rsi_auth_equal(other, sizeof(other), proof));
}

static void test_lengths_are_checked(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    char long_name[300];
    memset(long_name, 'n', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = 0;

    struct rsi_auth_input input = sample_input();
    input.secret_bytes = RSI_AUTH_SECRET_BYTES_MIN - 1;
    assert_int_equal(rsi_auth_proof(RSI_AUTH_CLIENT, &input, proof, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "between 8 and 255"));

    input = sample_input();
    input.client_nonce_bytes = 256;
    assert_int_equal(rsi_auth_proof(RSI_AUTH_CLIENT, &input, proof, &error), RSI_E_INVALID);

    input = sample_input();
    input.client_name = long_name;
    assert_int_equal(rsi_auth_proof(RSI_AUTH_CLIENT, &input, proof, &error), RSI_E_INVALID);
}

static void test_prepare(void **state)
{
    (void)state;
    assert_int_equal(rsi_auth_prepare(NULL), RSI_OK);
}

static void test_random_differs(void **state)
{
    (void)state;
    uint8_t one[32];
    uint8_t two[32];
    assert_int_equal(rsi_auth_random(one, sizeof(one), NULL), RSI_OK);
    assert_int_equal(rsi_auth_random(two, sizeof(two), NULL), RSI_OK);
    assert_memory_not_equal(one, two, sizeof(one));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answer),
        cmocka_unit_test(test_every_part_counts),
        cmocka_unit_test(test_equal_wants_the_whole_proof),
        cmocka_unit_test(test_lengths_are_checked),
        cmocka_unit_test(test_prepare),
        cmocka_unit_test(test_random_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
