#ifndef RSI_CORE_ERROR_H
#define RSI_CORE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#include "core/compiler.h"

/*
 * One enum for everything that can go wrong, in ranges by what it breaks.
 *
 * Whoever decides that something is an error writes the code and a text that names the thing and
 * the way out: `return rsi_fail(error, RSI_E_LIMIT, "...")`. Those above add where they were with
 * rsi_error_context(). On the hot path there is only the code and a counter.
 */
typedef enum rsi_status {
    RSI_OK = 0,

    /* Flow: nothing is wrong, and nothing was done. */
    RSI_WOULD_BLOCK = 1, /* no room or nothing there now; nothing was taken; try again later */
    RSI_IN_PROGRESS = 2, /* started; the outcome is told later by whoever was asked */

    /* The call failed; the object is as it was before. */
    RSI_E_INVALID = -1,        /* an argument is wrong in itself */
    RSI_E_TOO_LARGE = -2,      /* more bytes than the stated limit */
    RSI_E_STATE = -3,          /* not allowed in the object's present state */
    RSI_E_NOT_FOUND = -4,      /* the named thing is not there */
    RSI_E_EXISTS = -5,         /* the named thing is there already */
    RSI_E_LIMIT = -6,          /* a configured count is used up */
    RSI_E_TIMED_OUT = -7,      /* not done within the time given */
    RSI_E_UNSUPPORTED = -8,    /* not in this build, on this machine or by this peer */
    RSI_E_DENIED = -9,         /* the peer or the configuration does not permit it */
    RSI_E_CANCELLED = -10,     /* given up because the object was closed */
    RSI_E_NO_RESPONDERS = -11, /* nobody subscribes to the subject of a request */

    /* The link is over. */
    RSI_E_LINK_CLOSED = -100, /* closed in order, by either side */
    RSI_E_LINK_LOST = -101,   /* the peer or the way to it is gone */
    RSI_E_PROTOCOL = -102,    /* the peer broke the protocol */
    RSI_E_VERSION = -103,     /* the peer speaks another version */
    RSI_E_AUTH = -104,        /* the peer could not prove who it is */
    RSI_E_REFUSED = -105,     /* the peer is there and said no */
    RSI_E_SLOW = -106,        /* closed by the slow-consumer policy */

    /* The transport's domain or a device is not usable. */
    RSI_E_NO_DEVICE = -200,
    RSI_E_NO_MEMORY_LOCK = -201, /* the memlock limit is too small */
    RSI_E_ADDRESS = -202,        /* the address is not usable on this machine */
    RSI_E_IO = -203,             /* a device or a file failed */

    /* The process lacks something. */
    RSI_E_NO_MEMORY = -300,
    RSI_E_NO_DESCRIPTORS = -301,
    RSI_E_PERMISSION = -302,
    RSI_E_SYSTEM = -303, /* a system call failed in a way that has no code of its own */
    RSI_E_CPU = -304,    /* the CPU asked for is not available to this process */

    /* A bug of ours that was noticed in time. */
    RSI_E_BUG = -400,
} rsi_status_t;

/* What a failure breaks; decides how far the one who sees it must tear down. */
typedef enum rsi_scope {
    RSI_SCOPE_NONE,    /* the status is no failure */
    RSI_SCOPE_CALL,    /* only this call; the object stands as before */
    RSI_SCOPE_LINK,    /* the link must be closed */
    RSI_SCOPE_DOMAIN,  /* the transport cannot be used in this process, or not with this device */
    RSI_SCOPE_PROCESS, /* the process lacks a resource or a right */
    RSI_SCOPE_BUG,
} rsi_scope_t;

enum { RSI_ERROR_TEXT_BYTES = 512 };

/* Where a failure was decided and what to tell the user. Caller's memory; a zeroed one is valid. */
struct rsi_error {
    rsi_status_t status;
    const char *file; /* literal */
    int line;
    char text[RSI_ERROR_TEXT_BYTES]; /* always terminated; a longer text ends in "..." */
};

static inline bool rsi_failed(rsi_status_t status)
{
    return status < 0;
}

/* "RSI_E_LIMIT"; "unknown status" for a number that is none. Any thread. */
const char *rsi_status_name(rsi_status_t status);

/* One short phrase for users: "a configured limit is reached". Any thread. */
const char *rsi_status_phrase(rsi_status_t status);

rsi_scope_t rsi_status_scope(rsi_status_t status);

/* The status that stands for an errno value where the call has no better one: always a failure.
 * EAGAIN and its like are flow only to a caller who knows what it asked; it decides first. */
rsi_status_t rsi_status_from_errno(int errno_value);

/*
 * rsi_fail(error, status, format, ...) fills `error` (which may be NULL) and returns `status`, so
 * that the decision is one line: return rsi_fail(error, RSI_E_INVALID, "ring of %d bytes", bytes);
 */
#define rsi_fail(error, status, ...) \
    rsi_error_set((error), (status), __FILE__, __LINE__, __VA_ARGS__)

/* The same, and appends ": <text of errno_value>". */
#define rsi_fail_errno(error, status, errno_value, ...) \
    rsi_error_set_errno((error), (status), (errno_value), __FILE__, __LINE__, __VA_ARGS__)

/* The functions behind the macros. `status` must be a failure or a flow status, never RSI_OK. */
rsi_status_t rsi_error_set(struct rsi_error *error, rsi_status_t status, const char *file, int line,
                           const char *format, ...) RSI_PRINTF(5, 6) RSI_COLD;
rsi_status_t rsi_error_set_errno(struct rsi_error *error, rsi_status_t status, int errno_value,
                                 const char *file, int line, const char *format, ...)
    RSI_PRINTF(6, 7) RSI_COLD;

/* Puts "<context>: " before the text. `error` may be NULL; keeps errno. */
void rsi_error_context(struct rsi_error *error, const char *format, ...) RSI_PRINTF(2, 3) RSI_COLD;

/* Empties `error` for another use. */
void rsi_error_clear(struct rsi_error *error);

/* "text (RSI_E_LIMIT, core/ring.c:41)" into `buffer`, always terminated; returns `buffer`. */
const char *rsi_error_describe(const struct rsi_error *error, char *buffer, size_t buffer_bytes);

#endif
