/*
 * The cases that hold on any devices; see pair_cases.c. Include cmocka.h first.
 */
#ifndef RSI_RDMA_PAIR_CASES_H
#define RSI_RDMA_PAIR_CASES_H

#include "transport/rdma/pair_testing.h"

#define PAIR_TEST_COUNT 17

extern const struct CMUnitTest pair_tests[PAIR_TEST_COUNT];

#endif
