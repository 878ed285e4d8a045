/*
 * Design notes
 *
 * - A broken invariant ends the process at once: going on would spread the damage to peers, and the
 *   core file is worth most at the first sign.
 * - The text goes out by one write() on the stack: no allocation, no stdio lock that the broken
 *   thread may hold already.
 */
#include "core/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void rsi_assert_failed(const char *expression, const char *file, int line, const char *function)
{
    char text[512];
    int length = snprintf(text, sizeof text, "%s:%d: %s: assertion failed: %s\n", file, line,
                          function, expression);
    if (length > 0) {
        size_t bytes = (size_t)length < sizeof text ? (size_t)length : sizeof text - 1;
        ssize_t written = write(STDERR_FILENO, text, bytes);
        (void)written; /* nowhere to report it */
    }
    abort();
}
