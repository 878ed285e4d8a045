/*
 * Design notes
 *
 * - The text is formatted where the failure is decided; those above only put context before it, so
 *   the finished line reads from the outermost intention to the innermost cause.
 * - One table gives name and phrase of every status; its test walks the enum's ranges.
 * - Formatting may change errno; a caller that still needs it would be surprised by a helper that
 *   loses it, so it is kept.
 */
#include "core/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/assert.h"

struct status_entry {
    rsi_status_t status;
    const char *name;
    const char *phrase;
};

#define ENTRY(status, phrase)   \
    {                           \
        status, #status, phrase \
    }

static const struct status_entry status_table[] = {
    ENTRY(RSI_OK, "ok"),
    ENTRY(RSI_WOULD_BLOCK, "nothing can be done right now"),
    ENTRY(RSI_IN_PROGRESS, "started, not finished yet"),
    ENTRY(RSI_E_INVALID, "an argument is not valid"),
    ENTRY(RSI_E_TOO_LARGE, "larger than the limit"),
    ENTRY(RSI_E_STATE, "not allowed in this state"),
    ENTRY(RSI_E_NOT_FOUND, "not found"),
    ENTRY(RSI_E_EXISTS, "exists already"),
    ENTRY(RSI_E_LIMIT, "a configured limit is reached"),
    ENTRY(RSI_E_TIMED_OUT, "not done within the time given"),
    ENTRY(RSI_E_UNSUPPORTED, "not supported here"),
    ENTRY(RSI_E_DENIED, "not permitted"),
    ENTRY(RSI_E_CANCELLED, "given up because of a close"),
    ENTRY(RSI_E_NO_RESPONDERS, "nobody subscribes to the subject"),
    ENTRY(RSI_E_LINK_CLOSED, "the link was closed"),
    ENTRY(RSI_E_LINK_LOST, "the link is lost"),
    ENTRY(RSI_E_PROTOCOL, "the peer broke the protocol"),
    ENTRY(RSI_E_VERSION, "the peer speaks another version"),
    ENTRY(RSI_E_AUTH, "authentication failed"),
    ENTRY(RSI_E_REFUSED, "the peer refused"),
    ENTRY(RSI_E_SLOW, "closed as a slow consumer"),
    ENTRY(RSI_E_NO_DEVICE, "no usable device"),
    ENTRY(RSI_E_NO_MEMORY_LOCK, "the memlock limit is too small"),
    ENTRY(RSI_E_ADDRESS, "the address is not usable"),
    ENTRY(RSI_E_IO, "input or output failed"),
    ENTRY(RSI_E_NO_MEMORY, "out of memory"),
    ENTRY(RSI_E_NO_DESCRIPTORS, "out of file descriptors"),
    ENTRY(RSI_E_PERMISSION, "the operating system does not permit it"),
    ENTRY(RSI_E_SYSTEM, "a system call failed"),
    ENTRY(RSI_E_CPU, "the CPU is not available"),
    ENTRY(RSI_E_BUG, "an internal error"),
};

static const struct status_entry *status_find(rsi_status_t status)
{
    for (size_t i = 0; i < rsi_array_count(status_table); i++) {
        if (status_table[i].status == status) {
            return &status_table[i];
        }
    }
    return NULL;
}

const char *rsi_status_name(rsi_status_t status)
{
    const struct status_entry *entry = status_find(status);
    return entry != NULL ? entry->name : "unknown status";
}

const char *rsi_status_phrase(rsi_status_t status)
{
    const struct status_entry *entry = status_find(status);
    return entry != NULL ? entry->phrase : "unknown status";
}

rsi_scope_t rsi_status_scope(rsi_status_t status)
{
    int value = (int)status;
    if (value >= 0) {
        return RSI_SCOPE_NONE;
    }
    if (value > -100) {
        return RSI_SCOPE_CALL;
    }
    if (value > -200) {
        return RSI_SCOPE_LINK;
    }
    if (value > -300) {
        return RSI_SCOPE_DOMAIN;
    }
    if (value > -400) {
        return RSI_SCOPE_PROCESS;
    }
    return RSI_SCOPE_BUG;
}

rsi_status_t rsi_status_from_errno(int errno_value)
{
    switch (errno_value) {
    case EINVAL:
        return RSI_E_INVALID;
    case ENOENT:
        return RSI_E_NOT_FOUND;
    case EEXIST:
        return RSI_E_EXISTS;
    case ETIMEDOUT:
        return RSI_E_TIMED_OUT;
    case EOPNOTSUPP:
    case ENOSYS:
        return RSI_E_UNSUPPORTED;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return RSI_E_LINK_LOST;
    case ECONNREFUSED:
        return RSI_E_REFUSED;
    case ENODEV:
        return RSI_E_NO_DEVICE;
    case EADDRINUSE:
    case EADDRNOTAVAIL:
    case ENETUNREACH:
    case EHOSTUNREACH:
        return RSI_E_ADDRESS;
    case EIO:
        return RSI_E_IO;
    case ENOMEM:
    case ENOSPC:
        return RSI_E_NO_MEMORY;
    case EMFILE:
    case ENFILE:
        return RSI_E_NO_DESCRIPTORS;
    case EACCES:
    case EPERM:
        return RSI_E_PERMISSION;
    default:
        return RSI_E_SYSTEM;
    }
}

/* A text that was cut shows it. */
static void mark_cut(char *text)
{
    memcpy(text + RSI_ERROR_TEXT_BYTES - sizeof "...", "...", sizeof "...");
}

RSI_PRINTF(2, 0)
static void format_text(struct rsi_error *error, const char *format, va_list values)
{
    int length = vsnprintf(error->text, sizeof error->text, format, values);
    if (length < 0) {
        error->text[0] = '\0';
    } else if ((size_t)length >= sizeof error->text) {
        mark_cut(error->text);
    }
}

rsi_status_t rsi_error_set(struct rsi_error *error, rsi_status_t status, const char *file, int line,
                           const char *format, ...)
{
    rsi_assert(status != RSI_OK);
    if (error == NULL) {
        return status;
    }
    int saved_errno = errno;
    error->status = status;
    error->file = file;
    error->line = line;
    va_list values;
    va_start(values, format);
    format_text(error, format, values);
    va_end(values);
    errno = saved_errno;
    return status;
}

rsi_status_t rsi_error_set_errno(struct rsi_error *error, rsi_status_t status, int errno_value,
                                 const char *file, int line, const char *format, ...)
{
    rsi_assert(status != RSI_OK);
    if (error == NULL) {
        return status;
    }
    int saved_errno = errno;
    error->status = status;
    error->file = file;
    error->line = line;
    va_list values;
    va_start(values, format);
    format_text(error, format, values);
    va_end(values);

    char reason_buffer[128];
    const char *reason = strerror_r(errno_value, reason_buffer, sizeof reason_buffer);
    size_t length = strlen(error->text);
    size_t room = sizeof error->text - length;
    if ((size_t)snprintf(error->text + length, room, ": %s", reason) >= room) {
        mark_cut(error->text);
    }
    errno = saved_errno;
    return status;
}

void rsi_error_context(struct rsi_error *error, const char *format, ...)
{
    if (error == NULL) {
        return;
    }
    int saved_errno = errno;
    char context[RSI_ERROR_TEXT_BYTES];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(context, sizeof context, format, values);
    va_end(values);
    if (length > 0) {
        char inner[RSI_ERROR_TEXT_BYTES];
        memcpy(inner, error->text, sizeof inner);
        size_t used = strlen(context);
        size_t room = sizeof error->text - used;
        memcpy(error->text, context, used);
        if ((size_t)snprintf(error->text + used, room, ": %s", inner) >= room) {
            mark_cut(error->text);
        }
    }
    errno = saved_errno;
}

void rsi_error_clear(struct rsi_error *error)
{
    error->status = RSI_OK;
    error->file = NULL;
    error->line = 0;
    error->text[0] = '\0';
}

const char *rsi_error_describe(const struct rsi_error *error, char *buffer, size_t buffer_bytes)
{
    const char *text = error->text[0] != '\0' ? error->text : rsi_status_phrase(error->status);
    if (error->file == NULL) {
        snprintf(buffer, buffer_bytes, "%s (%s)", text, rsi_status_name(error->status));
    } else {
        snprintf(buffer, buffer_bytes, "%s (%s, %s:%d)", text, rsi_status_name(error->status),
                 error->file, error->line);
    }
    return buffer;
}
