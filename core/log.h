#ifndef RSI_CORE_LOG_H
#define RSI_CORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "core/atomics.h"
#include "core/error.h"

/*
 * Lines for people, from the control plane: "2025-01-31T08:00:00.123456Z warning arena: text".
 * Never from the hot path. Any thread; a line is written whole.
 */
typedef enum rsi_log_level {
    RSI_LOG_ERROR = 0,   /* something does not work */
    RSI_LOG_WARNING = 1, /* works, but worse than it could; the text says how to mend it */
    RSI_LOG_INFO = 2,    /* what an operator wants to know once */
    RSI_LOG_DEBUG = 3,
} rsi_log_level_t;

/* Gets each line instead of standard error; `text` is borrowed until return. Any thread calls it.
 */
typedef void rsi_log_handler(void *arg, rsi_log_level_t level, const char *component,
                             const char *text);

/* Lines above this level are dropped; RSI_LOG_INFO at start. Any thread. */
void rsi_log_set_level(rsi_log_level_t level);
bool rsi_log_enabled(rsi_log_level_t level);

/* NULL: back to standard error. Set it before threads that log are started. */
void rsi_log_set_handler(rsi_log_handler *handler, void *arg);

/* "error", "warning", "info", "debug". */
const char *rsi_log_level_name(rsi_log_level_t level);
rsi_status_t rsi_log_level_parse(rsi_log_level_t *level, const char *text,
                                 struct rsi_error *error) RSI_MUST_CHECK;

/* Keeps errno. A text beyond 1 KiB is cut off and ends in "...". */
void rsi_log(rsi_log_level_t level, const char *component, const char *format, ...)
    RSI_PRINTF(3, 4) RSI_COLD;

#define rsi_log_error(component, ...)   rsi_log(RSI_LOG_ERROR, (component), __VA_ARGS__)
#define rsi_log_warning(component, ...) rsi_log(RSI_LOG_WARNING, (component), __VA_ARGS__)
#define rsi_log_info(component, ...)    rsi_log(RSI_LOG_INFO, (component), __VA_ARGS__)
#define rsi_log_debug(component, ...)                         \
    do {                                                      \
        if (rsi_log_enabled(RSI_LOG_DEBUG)) {                 \
            rsi_log(RSI_LOG_DEBUG, (component), __VA_ARGS__); \
        }                                                     \
    } while (0)

/* Once per process and place in the source, whichever thread comes first. */
#define RSI_LOG_ONCE(level, component, ...)                     \
    do {                                                        \
        static _Atomic uint32_t rsi_log_once_done;              \
        if (rsi_exchange_acq_rel(&rsi_log_once_done, 1) == 0) { \
            rsi_log((level), (component), __VA_ARGS__);         \
        }                                                       \
    } while (0)

/*
 * For errors that may come in thousands: a distinct (component, text) is written when it comes
 * first, and then at most once per RSI_LOG_DISTINCT_NS, with how often it came meanwhile. Put no
 * counts or positions into the text, or none is like another. The table holds
 * RSI_LOG_DISTINCT_COUNT_MAX; what does not fit is counted together as "other errors".
 */
#define RSI_LOG_DISTINCT_NS UINT64_C(10000000000)
enum { RSI_LOG_DISTINCT_COUNT_MAX = 64, RSI_LOG_DISTINCT_TEXT_BYTES = 192 };

void rsi_log_distinct(rsi_log_level_t level, const char *component, const char *format, ...)
    RSI_PRINTF(3, 4) RSI_COLD;

/* One entry of the table, for status displays. */
struct rsi_log_distinct_entry {
    rsi_log_level_t level;
    char component[24];
    char text[RSI_LOG_DISTINCT_TEXT_BYTES];
    uint64_t count;
    uint64_t first_ns; /* rsi_clock_now_ns() of the first and of the last */
    uint64_t last_ns;
};

/* Copies entry `index` (from 0); false beyond the last. Entries keep their index. Any thread. */
bool rsi_log_distinct_read(uint32_t index, struct rsi_log_distinct_entry *entry);

#endif
