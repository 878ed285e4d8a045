/*
 * Design notes
 * - zlib reads everything: gzread hands plain files through unchanged. The first four bytes are
 * looked at and handed out again by source_read, so standard input works like a file.
 * - libpcap wants a FILE: fopencookie puts one before the same source, and so captures may be
 *   compressed as well.
 * - Lines are cut out of one buffer that grows up to a limit; a payload is not copied again.
 */
#include "clients/cli/input.h"

#include "core/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum {
    MAGIC_BYTES = 4,
    GZIP_BUFFER_BYTES = 1 << 17,
    LINE_BUFFER_BYTES = 1 << 17,
    PATH_TEXT_BYTES = 256,
};

struct rsi_input {
    char path[PATH_TEXT_BYTES]; /* for messages */
    gzFile file;
    uint8_t magic[MAGIC_BYTES]; /* read to find out what the file is, not handed out yet */
    size_t magic_bytes;
    size_t magic_taken_bytes;
    uint64_t number;

    /* Captures. */
    pcap_t *capture;
    int link_type;
    struct rsi_datagram datagram;
    uint64_t kind_counts[RSI_PACKET_KIND_COUNT];

    /* Lines: [line_start, line_end) of the buffer is not yet handed out. */
    char *line_buffer;
    size_t line_buffer_bytes;
    size_t line_start;
    size_t line_end;
    bool is_at_end;
};

/* Bytes read, 0 at the end, -1 with errno set. */
static ssize_t source_read(void *cookie, char *buffer, size_t bytes)
{
    struct rsi_input *input = cookie;
    size_t kept_bytes = input->magic_bytes - input->magic_taken_bytes;
    if (kept_bytes > 0) {
        size_t taken_bytes = bytes < kept_bytes ? bytes : kept_bytes;
        memcpy(buffer, input->magic + input->magic_taken_bytes, taken_bytes);
        input->magic_taken_bytes += taken_bytes;
        return (ssize_t)taken_bytes;
    }
    unsigned wanted_bytes = bytes > (1u << 30) ? 1u << 30 : (unsigned)bytes;
    int got_bytes = gzread(input->file, buffer, wanted_bytes);
    int zlib_status = Z_OK;
    /* gzip'ed data that ends too early reads like an end, apart from this. */
    if (got_bytes == 0 && gzerror(input->file, &zlib_status) != NULL &&
        zlib_status == Z_BUF_ERROR) {
        got_bytes = -1;
    }
    if (got_bytes < 0) {
        errno = errno == 0 ? EIO : errno;
    }
    return got_bytes;
}

static rsi_status_t source_failed(struct rsi_input *input, struct rsi_error *error)
{
    int zlib_status = 0;
    const char *text = gzerror(input->file, &zlib_status);
    if (zlib_status == Z_ERRNO) {
        return rsi_fail_errno(error, RSI_E_IO, errno, "cannot read %s", input->path);
    }
    return rsi_fail(error, RSI_E_INVALID, "%s is damaged or cut short after %s %" PRIu64 ": %s",
                    input->path, rsi_input_unit(input), input->number, text);
}

static bool is_capture_magic(const uint8_t *magic)
{
    static const uint8_t magics[][MAGIC_BYTES] = {
        {0xa1, 0xb2, 0xc3, 0xd4}, {0xd4, 0xc3, 0xb2, 0xa1}, /* pcap, microseconds */
        {0xa1, 0xb2, 0x3c, 0x4d}, {0x4d, 0x3c, 0xb2, 0xa1}, /* pcap, nanoseconds */
        {0x0a, 0x0d, 0x0d, 0x0a},                           /* pcapng */
    };
    for (size_t i = 0; i < rsi_array_count(magics); i++) {
        if (memcmp(magic, magics[i], MAGIC_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

static rsi_status_t open_source(struct rsi_input *input, const char *path, struct rsi_error *error)
{
    bool is_stdin = strcmp(path, "-") == 0;
    snprintf(input->path, sizeof(input->path), "%s", is_stdin ? "standard input" : path);
    errno = 0;
    input->file = is_stdin ? gzdopen(dup(STDIN_FILENO), "rb") : gzopen(path, "rbe");
    if (input->file == NULL) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno, "cannot open %s",
                              input->path);
    }
    (void)gzbuffer(input->file, GZIP_BUFFER_BYTES);
    while (input->magic_bytes < MAGIC_BYTES) {
        int got_bytes = gzread(input->file, input->magic + input->magic_bytes,
                               (unsigned)(MAGIC_BYTES - input->magic_bytes));
        if (got_bytes < 0) {
            return source_failed(input, error);
        }
        if (got_bytes == 0) {
            break;
        }
        input->magic_bytes += (size_t)got_bytes;
    }
    return RSI_OK;
}

static rsi_status_t open_capture(struct rsi_input *input, struct rsi_error *error)
{
    cookie_io_functions_t functions = {.read = source_read};
    FILE *stream = fopencookie(input, "rb", functions);
    if (stream == NULL) {
        return rsi_fail_errno(error, RSI_E_NO_MEMORY, errno, "cannot read %s", input->path);
    }
    char reason[PCAP_ERRBUF_SIZE] = "";
    input->capture =
        pcap_fopen_offline_with_tstamp_precision(stream, PCAP_TSTAMP_PRECISION_NANO, reason);
    if (input->capture == NULL) {
        fclose(stream);
        return rsi_fail(error, RSI_E_INVALID, "%s: not a capture that can be read: %s", input->path,
                        reason);
    }
    input->link_type = pcap_datalink(input->capture);
    if (!rsi_packet_link_is_known(input->link_type)) {
        const char *name = pcap_datalink_val_to_name(input->link_type);
        return rsi_fail(error, RSI_E_INVALID,
                        "%s was captured on a link of type %s, which is not known here; Ethernet, "
                        "Linux cooked, loopback and raw IP are",
                        input->path, name == NULL ? "unknown" : name);
    }
    return RSI_OK;
}

static rsi_status_t open_lines(struct rsi_input *input, struct rsi_error *error)
{
    input->line_buffer_bytes = LINE_BUFFER_BYTES;
    input->line_buffer = malloc(input->line_buffer_bytes);
    if (input->line_buffer == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory to read %s", input->path);
    }
    return RSI_OK;
}

rsi_status_t rsi_input_open(struct rsi_input **input, const char *path, struct rsi_error *error)
{
    struct rsi_input *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory to read %s", path);
    }
    rsi_status_t status = open_source(made, path, error);
    if (status == RSI_OK) {
        bool is_capture = made->magic_bytes == MAGIC_BYTES && is_capture_magic(made->magic);
        status = is_capture ? open_capture(made, error) : open_lines(made, error);
    }
    if (status != RSI_OK) {
        rsi_input_close(made);
        return status;
    }
    *input = made;
    return RSI_OK;
}

void rsi_input_close(struct rsi_input *input)
{
    if (input == NULL) {
        return;
    }
    if (input->capture != NULL) {
        pcap_close(input->capture);
    }
    if (input->file != NULL) {
        gzclose(input->file);
    }
    free(input->line_buffer);
    free(input);
}

static rsi_status_t next_packet(struct rsi_input *input, struct rsi_record *record,
                                struct rsi_error *error)
{
    for (;;) {
        struct pcap_pkthdr *header = NULL;
        const uint8_t *packet = NULL;
        int result = pcap_next_ex(input->capture, &header, &packet);
        if (result == PCAP_ERROR_BREAK) {
            return RSI_WOULD_BLOCK;
        }
        if (result != 1) {
            return rsi_fail(error, RSI_E_INVALID, "%s: after packet %" PRIu64 ": %s", input->path,
                            input->number, pcap_geterr(input->capture));
        }
        input->number++;
        rsi_packet_kind_t kind = rsi_packet_decode(input->link_type, packet, header->caplen,
                                                   header->len, &input->datagram);
        input->kind_counts[kind]++;
        if (kind != RSI_PACKET_UDP) {
            continue;
        }
        /* With nanosecond precision tv_usec holds nanoseconds. */
        record->time_ns =
            (uint64_t)header->ts.tv_sec * UINT64_C(1000000000) + (uint64_t)header->ts.tv_usec;
        record->number = input->number;
        record->payload = input->datagram.payload;
        record->payload_bytes = input->datagram.payload_bytes;
        record->datagram = &input->datagram;
        return RSI_OK;
    }
}

/* Makes room behind line_end: moves what is left to the front, or doubles the buffer. */
static rsi_status_t make_line_room(struct rsi_input *input, struct rsi_error *error)
{
    if (input->line_start > 0) {
        memmove(input->line_buffer, input->line_buffer + input->line_start,
                input->line_end - input->line_start);
        input->line_end -= input->line_start;
        input->line_start = 0;
    }
    if (input->line_end < input->line_buffer_bytes) {
        return RSI_OK;
    }
    if (input->line_buffer_bytes >= RSI_INPUT_LINE_BYTES_MAX) {
        return rsi_fail(error, RSI_E_TOO_LARGE,
                        "%s: line %" PRIu64 " is longer than 64 MiB: is this a text file?",
                        input->path, input->number + 1);
    }
    char *larger = realloc(input->line_buffer, input->line_buffer_bytes * 2);
    if (larger == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for line %" PRIu64 " of %s",
                        input->number + 1, input->path);
    }
    input->line_buffer = larger;
    input->line_buffer_bytes *= 2;
    return RSI_OK;
}

/* One line without its end; RSI_WOULD_BLOCK at the end of the file. */
static rsi_status_t next_line(struct rsi_input *input, const char **line, size_t *line_bytes,
                              struct rsi_error *error)
{
    size_t searched_bytes = 0;
    for (;;) {
        char *start = input->line_buffer + input->line_start;
        size_t held_bytes = input->line_end - input->line_start;
        char *end = memchr(start + searched_bytes, '\n', held_bytes - searched_bytes);
        if (end != NULL || (input->is_at_end && held_bytes > 0)) {
            size_t bytes = end != NULL ? (size_t)(end - start) : held_bytes;
            input->line_start += bytes + (end != NULL ? 1 : 0);
            input->number++;
            *line = start;
            *line_bytes = bytes > 0 && start[bytes - 1] == '\r' ? bytes - 1 : bytes;
            return RSI_OK;
        }
        if (input->is_at_end) {
            return RSI_WOULD_BLOCK;
        }
        searched_bytes = held_bytes;
        rsi_status_t status = make_line_room(input, error);
        if (status != RSI_OK) {
            return status;
        }
        ssize_t got_bytes = source_read(input, input->line_buffer + input->line_end,
                                        input->line_buffer_bytes - input->line_end);
        if (got_bytes < 0) {
            return source_failed(input, error);
        }
        input->is_at_end = got_bytes == 0;
        input->line_end += (size_t)got_bytes;
    }
}

static rsi_status_t parse_line(const struct rsi_input *input, const char *line, size_t line_bytes,
                               struct rsi_record *record, struct rsi_error *error)
{
    uint64_t time_ns = 0;
    size_t at = 0;
    for (; at < line_bytes && line[at] >= '0' && line[at] <= '9'; at++) {
        uint64_t digit = (uint64_t)(line[at] - '0');
        if (time_ns > (UINT64_MAX - digit) / 10) {
            return rsi_fail(error, RSI_E_INVALID,
                            "%s: line %" PRIu64 ": its time is larger than 64 bits", input->path,
                            input->number);
        }
        time_ns = time_ns * 10 + digit;
    }
    if (at == 0 || at == line_bytes || line[at] != ' ') {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: line %" PRIu64 " is '%.*s%s': a line is '<nanoseconds> <payload>'",
                        input->path, input->number, (int)(line_bytes > 40 ? 40 : line_bytes), line,
                        line_bytes > 40 ? "..." : "");
    }
    record->time_ns = time_ns;
    record->number = input->number;
    record->payload = (const uint8_t *)line + at + 1;
    record->payload_bytes = line_bytes - at - 1;
    record->datagram = NULL;
    return RSI_OK;
}

rsi_status_t rsi_input_next(struct rsi_input *input, struct rsi_record *record,
                            struct rsi_error *error)
{
    if (input->capture != NULL) {
        return next_packet(input, record, error);
    }
    for (;;) {
        const char *line = NULL;
        size_t line_bytes = 0;
        rsi_status_t status = next_line(input, &line, &line_bytes, error);
        if (status != RSI_OK) {
            return status;
        }
        if (line_bytes > 0 && line[0] != '#') {
            return parse_line(input, line, line_bytes, record, error);
        }
    }
}

const char *rsi_input_unit(const struct rsi_input *input)
{
    return input->capture != NULL ? "packet" : "line";
}

bool rsi_input_is_capture(const struct rsi_input *input)
{
    return input->capture != NULL;
}

const uint64_t *rsi_input_kind_counts(const struct rsi_input *input)
{
    return input->kind_counts;
}
