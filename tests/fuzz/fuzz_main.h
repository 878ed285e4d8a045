/* What every fuzzer of this folder has: libFuzzer's entry, which takes any bytes and returns 0. */
#ifndef RSI_TESTS_FUZZ_FUZZ_MAIN_H
#define RSI_TESTS_FUZZ_FUZZ_MAIN_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#endif
