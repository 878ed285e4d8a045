/*
 * Design notes
 *
 * - A line is formatted on the stack and leaves by one write(), so lines of several threads never
 * mix and nothing is allocated.
 * - The handler is set before the threads that log are started, so handler and argument need no
 * lock; the level may change at any time and is atomic.
 * - The table of distinct errors has a lock: it is on error paths of the control plane only, and it
 * is not held while the line is written.
 */
#include "core/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/assert.h"
#include "core/clock.h"
#include "core/text.h"

enum { TEXT_BYTES = 1024, LINE_BYTES = TEXT_BYTES + 128 };

static const char *const level_names[] = {"error", "warning", "info", "debug"};

static _Atomic uint32_t level_max = RSI_LOG_INFO;
static rsi_log_handler *current_handler;
static void *current_handler_arg;

static pthread_mutex_t distinct_lock = PTHREAD_MUTEX_INITIALIZER;
static struct rsi_log_distinct_entry distinct_entries[RSI_LOG_DISTINCT_COUNT_MAX];
static uint64_t distinct_written_ns[RSI_LOG_DISTINCT_COUNT_MAX];
static uint64_t distinct_written_count[RSI_LOG_DISTINCT_COUNT_MAX];
static uint32_t distinct_count;

void rsi_log_set_level(rsi_log_level_t level)
{
    rsi_store_relaxed(&level_max, (uint32_t)level);
}

bool rsi_log_enabled(rsi_log_level_t level)
{
    return (uint32_t)level <= rsi_load_relaxed(&level_max);
}

void rsi_log_set_handler(rsi_log_handler *handler, void *arg)
{
    current_handler = handler;
    current_handler_arg = arg;
}

const char *rsi_log_level_name(rsi_log_level_t level)
{
    return (uint32_t)level < rsi_array_count(level_names) ? level_names[level] : "unknown";
}

rsi_status_t rsi_log_level_parse(rsi_log_level_t *level, const char *text, struct rsi_error *error)
{
    for (uint32_t i = 0; i < rsi_array_count(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (rsi_log_level_t)i;
            return RSI_OK;
        }
    }
    return rsi_fail(error, RSI_E_INVALID,
                    "'%s' is not a log level; use error, warning, info or debug", text);
}

static void write_all(const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t written = write(STDERR_FILENO, data, bytes);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return; /* nowhere left to report it */
        }
        data += written;
        bytes -= (size_t)written;
    }
}

static void write_line(rsi_log_level_t level, const char *component, const char *message)
{
    struct timespec now;
    struct tm utc;
    char date[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);

    char line[LINE_BYTES];
    struct rsi_text text;
    rsi_text_init(&text, line, sizeof line - 1); /* room for the newline, cut or not */
    rsi_text_append(&text, "%s.%06ldZ %s %s: %s", date, now.tv_nsec / 1000,
                    rsi_log_level_name(level), component, message);
    line[text.length_bytes] = '\n';
    write_all(line, text.length_bytes + 1);
}

static void emit(rsi_log_level_t level, const char *component, const char *message)
{
    if (current_handler != NULL) {
        current_handler(current_handler_arg, level, component, message);
    } else {
        write_line(level, component, message);
    }
}

void rsi_log(rsi_log_level_t level, const char *component, const char *format, ...)
{
    if (!rsi_log_enabled(level)) {
        return;
    }
    int saved_errno = errno;
    char message[TEXT_BYTES];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(message, sizeof message, format, values);
    va_end(values);
    if (length >= (int)sizeof message) {
        memcpy(message + sizeof message - sizeof "...", "...", sizeof "...");
    }
    emit(level, component, message);
    errno = saved_errno;
}

/* The entry of this error; a new one when it comes first; the last one when the table is full. */
static uint32_t distinct_find(rsi_log_level_t level, const char *component, const char *message)
{
    for (uint32_t i = 0; i < distinct_count; i++) {
        const struct rsi_log_distinct_entry *entry = &distinct_entries[i];
        if (strncmp(entry->component, component, sizeof entry->component - 1) == 0 &&
            strncmp(entry->text, message, sizeof entry->text - 1) == 0) {
            return i;
        }
    }
    if (distinct_count == RSI_LOG_DISTINCT_COUNT_MAX) {
        return RSI_LOG_DISTINCT_COUNT_MAX - 1;
    }
    struct rsi_log_distinct_entry *entry = &distinct_entries[distinct_count];
    bool is_last = distinct_count == RSI_LOG_DISTINCT_COUNT_MAX - 1;
    entry->level = level;
    (void)rsi_text_copy(entry->component, sizeof entry->component, is_last ? "log" : component);
    (void)rsi_text_copy(entry->text, sizeof entry->text, is_last ? "other errors" : message);
    return distinct_count++;
}

/* Counts one more. True when a line is due; *unwritten_count is then how many came since the last.
 */
static bool distinct_note(uint32_t index, uint64_t now_ns, uint64_t *unwritten_count)
{
    struct rsi_log_distinct_entry *entry = &distinct_entries[index];
    bool is_first = entry->count == 0;
    if (is_first) {
        entry->first_ns = now_ns;
    }
    entry->count++;
    entry->last_ns = now_ns > entry->last_ns ? now_ns : entry->last_ns;
    if (!is_first && entry->last_ns - distinct_written_ns[index] < RSI_LOG_DISTINCT_NS) {
        return false;
    }
    *unwritten_count = entry->count - distinct_written_count[index];
    distinct_written_ns[index] = entry->last_ns;
    distinct_written_count[index] = entry->count;
    return true;
}

void rsi_log_distinct(rsi_log_level_t level, const char *component, const char *format, ...)
{
    int saved_errno = errno;
    char message[RSI_LOG_DISTINCT_TEXT_BYTES];
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof message, format, values);
    va_end(values);

    uint64_t now_ns = rsi_clock_now_ns();
    uint64_t unwritten_count = 0;
    pthread_mutex_lock(&distinct_lock);
    uint32_t index = distinct_find(level, component, message);
    bool is_due = distinct_note(index, now_ns, &unwritten_count);
    pthread_mutex_unlock(&distinct_lock);

    if (is_due && unwritten_count > 1) {
        rsi_log(level, component, "%s (%" PRIu64 " times since last written)", message,
                unwritten_count);
    } else if (is_due) {
        rsi_log(level, component, "%s", message);
    }
    errno = saved_errno;
}

bool rsi_log_distinct_read(uint32_t index, struct rsi_log_distinct_entry *entry)
{
    pthread_mutex_lock(&distinct_lock);
    bool is_there = index < distinct_count;
    if (is_there) {
        *entry = distinct_entries[index];
    }
    pthread_mutex_unlock(&distinct_lock);
    return is_there;
}
