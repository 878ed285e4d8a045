#ifndef RSI_CORE_COMPILER_H
#define RSI_CORE_COMPILER_H

/* What the project asks of the compiler, under one name each. gcc 12 and clang 14 know them all. */

/* The caller must look at the result. */
#define RSI_MUST_CHECK __attribute__((warn_unused_result))

/* The function takes a printf format as its argument `text` (from 1) and its values from `values`.
 */
#define RSI_PRINTF(text, values) __attribute__((format(printf, text, values)))

/* For slow and error paths: kept out of the hot functions that call them. */
#define RSI_COLD __attribute__((noinline, cold))

#define RSI_NOINLINE __attribute__((noinline))

#define rsi_likely(condition)   __builtin_expect(!!(condition), 1)
#define rsi_unlikely(condition) __builtin_expect(!!(condition), 0)

#define rsi_array_count(array) (sizeof(array) / sizeof((array)[0]))

/* The object that has `member_pointer` as its member `member`. */
#define rsi_container_of(member_pointer, type, member) \
    ((type *)((char *)(member_pointer)-offsetof(type, member)))

/* Set to 1 when the thread sanitizer watches this build. */
#if defined(__SANITIZE_THREAD__)
#define RSI_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RSI_THREAD_SANITIZER 1
#endif
#endif
#ifndef RSI_THREAD_SANITIZER
#define RSI_THREAD_SANITIZER 0
#endif

#endif
