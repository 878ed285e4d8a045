/*
 * What DPDK says, kept instead of shown.
 *
 * Design notes
 * - A library writes nothing to its user's terminal. DPDK logs to standard error and to syslog,
 *   before it is told otherwise, and prints what is fatal by fprintf. Its log goes to a stream of
 *   ours for good; stdout and stderr are replaced while EAL starts. glibc says that they are
 *   variables that may be set; other threads' output is passed on.
 * - Kept are the last lines that are a warning or worse: they often hold the reason that a return
 *   code of -1 does not, so they end up in the text of the error.
 * - One lock around a small buffer. DPDK logs from its own threads too, but never on the data path.
 */
#include "transport/dpdk/eal/eal_internal.h"

#include "core/text.h"

#include <ctype.h>
#include <pthread.h>
#include <rte_log.h>
#include <stdio.h>
#include <string.h>

enum { KEPT_BYTES = 1024, EXPLAIN_BYTES = 256 };

static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static char kept[KEPT_BYTES]; /* the newest bytes, always terminated */
static size_t kept_bytes;

static FILE *true_stdout;
static FILE *true_stderr;
static pthread_t captured_thread;

static void keep(const char *data, size_t bytes)
{
    pthread_mutex_lock(&kept_lock);
    if (bytes > KEPT_BYTES - 1) {
        data += bytes - (KEPT_BYTES - 1);
        bytes = KEPT_BYTES - 1;
    }
    if (kept_bytes + bytes > KEPT_BYTES - 1) {
        size_t surplus_bytes = kept_bytes + bytes - (KEPT_BYTES - 1);
        memmove(kept, kept + surplus_bytes, kept_bytes - surplus_bytes);
        kept_bytes -= surplus_bytes;
    }
    memcpy(kept + kept_bytes, data, bytes);
    kept_bytes += bytes;
    kept[kept_bytes] = '\0';
    pthread_mutex_unlock(&kept_lock);
}

static ssize_t write_log(void *cookie, const char *data, size_t bytes)
{
    (void)cookie;
    if (rte_log_cur_msg_loglevel() <= (int)RTE_LOG_WARNING) {
        keep(data, bytes);
    }
    return (ssize_t)bytes;
}

static ssize_t write_standard(void *cookie, const char *data, size_t bytes)
{
    if (pthread_equal(pthread_self(), captured_thread)) {
        keep(data, bytes);
    } else {
        fwrite(data, 1, bytes, *(FILE **)cookie);
    }
    return (ssize_t)bytes;
}

static FILE *open_stream(void *cookie, cookie_write_function_t *write)
{
    FILE *stream = fopencookie(cookie, "w", (cookie_io_functions_t){.write = write});
    if (stream != NULL) {
        (void)setvbuf(stream, NULL, _IOLBF, 0);
    }
    return stream;
}

void rsi_eal_capture_log(void)
{
    static FILE *log_stream; /* never closed: DPDK keeps it */
    if (log_stream == NULL) {
        log_stream = open_stream(NULL, write_log);
    }
    if (log_stream != NULL) {
        (void)rte_openlog_stream(log_stream);
    }
}

/* The streams are never closed: another thread may have read the variable just before. */
void rsi_eal_capture_begin(void)
{
    static FILE *streams[2];
    captured_thread = pthread_self();
    true_stdout = stdout;
    true_stderr = stderr;
    if (streams[0] == NULL) {
        streams[0] = open_stream(&true_stdout, write_standard);
    }
    if (streams[1] == NULL) {
        streams[1] = open_stream(&true_stderr, write_standard);
    }
    if (streams[0] != NULL && streams[1] != NULL) {
        stdout = streams[0];
        stderr = streams[1];
    }
}

void rsi_eal_capture_end(void)
{
    FILE *streams[2] = {stdout, stderr};
    stdout = true_stdout;
    stderr = true_stderr;
    for (size_t i = 0; i < 2; i++) {
        if (streams[i] != true_stdout && streams[i] != true_stderr) {
            (void)fflush(streams[i]);
        }
    }
}

void rsi_eal_capture_clear(void)
{
    pthread_mutex_lock(&kept_lock);
    kept_bytes = 0;
    kept[0] = '\0';
    pthread_mutex_unlock(&kept_lock);
}

void rsi_eal_capture_explain(struct rsi_error *error)
{
    char lines[EXPLAIN_BYTES];
    struct rsi_text text;
    rsi_text_init(&text, lines, sizeof(lines));
    pthread_mutex_lock(&kept_lock);
    const char *from = kept_bytes < sizeof(lines) ? kept : kept + kept_bytes - sizeof(lines) + 1;
    if (from != kept) {
        const char *newline = strchr(from, '\n'); /* whole lines */
        from = newline != NULL && newline[1] != '\0' ? newline + 1 : from;
    }
    while (*from != '\0' && !text.is_cut) {
        size_t bytes = strcspn(from, "\n");
        size_t shown_bytes = bytes;
        while (shown_bytes > 0 && isspace((unsigned char)from[shown_bytes - 1])) {
            shown_bytes--;
        }
        if (shown_bytes > 0) {
            rsi_text_append(&text, "%s%.*s", text.length_bytes > 0 ? "; " : "", (int)shown_bytes,
                            from);
        }
        from += bytes + (from[bytes] == '\n' ? 1 : 0);
    }
    pthread_mutex_unlock(&kept_lock);
    if (error != NULL && lines[0] != '\0') {
        struct rsi_text whole;
        char said[RSI_ERROR_TEXT_BYTES];
        rsi_text_init(&whole, said, sizeof(said));
        rsi_text_append(&whole, "%s. DPDK says: %s", error->text, lines);
        (void)rsi_text_copy(error->text, sizeof(error->text), said);
    }
}
