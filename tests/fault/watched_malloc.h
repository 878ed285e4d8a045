/*
 * What a test and the allocator that is preloaded into its broker share: a file that both map.
 */
#ifndef RSI_TESTS_FAULT_WATCHED_MALLOC_H
#define RSI_TESTS_FAULT_WATCHED_MALLOC_H

#include <stdint.h>

#define WATCHED_MALLOC_VARIABLE "RINGSIDE_WATCHED_MALLOC" /* names the file */

struct watched_malloc {
    /* The test writes n; each allocation counts it down, and the one that takes it to 0 is refused.
     * At 0 nothing is counted. */
    _Atomic uint64_t refusal_countdown;
    /* Of what was allocated and not freed. */
    _Atomic uint64_t live_count;
    _Atomic uint64_t live_bytes;
};

#endif
