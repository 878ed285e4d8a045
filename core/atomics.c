/*
 * Design notes
 *
 * - The only object behind the wrappers: the word on which rsi_fence_seq_cst() does its locked
 *   read-modify-write where the thread sanitizer watches. All such fences of a process are ordered
 * by that one word, so the sanitizer sees the same order that the real fence gives.
 */
#include "core/atomics.h"

_Atomic uint32_t rsi_fence_word;
