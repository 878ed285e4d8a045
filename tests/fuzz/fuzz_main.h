/* What every fuzzer of this folder has: libFuzzer's entry, which takes any bytes and returns 0. */
#ifndef RSI_TESTS_FUZZ_FUZZ_MAIN_H
#define RSI_TESTS_FUZZ_FUZZ_MAIN_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* For those that take steps: each is a byte that says which, a byte that says how many, and so many
 * bytes, or what is left. */
static inline void fuzz_take_steps(const uint8_t *data, size_t bytes, uint32_t step_count,
                                   void (*take)(uint32_t step, const uint8_t *data, size_t bytes))
{
    while (bytes >= 2) {
        size_t step_bytes = data[1] < bytes - 2 ? data[1] : bytes - 2;
        take(data[0] % step_count, data + 2, step_bytes);
        data += 2 + step_bytes;
        bytes -= 2 + step_bytes;
    }
}

#endif
