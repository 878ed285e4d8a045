/*
 * Design notes
 * - A message is {number, bytes of the whole, pattern...}: the pattern follows from the subject and
 *   the number, so bytes of another message, of an earlier lap or of nobody are seen.
 * - number == sequence in every message: the broker counts what it admits, the writer what it
 *   publishes; that they agree means that nothing was lost or doubled on the way in.
 * - A reader finds a stream by its publication, through a small table; by name only once.
 */
#include "tests/fault/stream.h"

/* ---- messages ----------------------------------------------------------------------------------
 */

static uint64_t pattern_of(const char *subject, uint64_t number)
{
    uint64_t state = number;
    for (; *subject != '\0'; subject++) {
        state = state * 31 + (unsigned char)*subject;
    }
    return random_next(&state);
}

static void fill_message(uint8_t *message, size_t bytes, const char *subject, uint64_t number)
{
    uint64_t pattern = pattern_of(subject, number);
    uint64_t head[2] = {number, bytes};
    memcpy(message, head, sizeof(head));
    for (size_t at = sizeof(head); at < bytes; at += sizeof(pattern), pattern++) {
        size_t rest = bytes - at;
        memcpy(message + at, &pattern, rest < sizeof(pattern) ? rest : sizeof(pattern));
    }
}

static uint64_t check_message(const ringside_message_t *message)
{
    uint64_t head[2];
    check(message->bytes >= sizeof(head), "a message of %zu bytes on %s", message->bytes,
          message->subject);
    memcpy(head, message->data, sizeof(head));
    check(head[1] == message->bytes, "message %" PRIu64 " on %s has %zu bytes, not %" PRIu64,
          head[0], message->subject, message->bytes, head[1]);
    uint8_t expected[STREAM_BYTES_MAX];
    check(message->bytes <= sizeof(expected), "a message of %zu bytes", message->bytes);
    fill_message(expected, message->bytes, message->subject, head[0]);
    check(memcmp(expected, message->data, message->bytes) == 0,
          "message %" PRIu64 " on %s has other bytes than were written", head[0], message->subject);
    return head[0];
}

/* ---- writing -----------------------------------------------------------------------------------
 */

void stream_writer_open(struct stream_writer *writer, ringside_client_t *client, const char *prefix,
                        uint32_t stream_count, uint32_t bytes_max, uint64_t seed)
{
    check(stream_count >= 1 && stream_count <= STREAMS_PER_WRITER_MAX &&
              bytes_max >= STREAM_BYTES_MIN && bytes_max <= STREAM_BYTES_MAX,
          "no such streams");
    *writer = (struct stream_writer){.client = client, .bytes_max = bytes_max, .random = seed};
    for (; writer->stream_count < stream_count; writer->stream_count++) {
        char subject[STREAM_NAME_BYTES];
        snprintf(subject, sizeof(subject), "%.48s.%" PRIu32, prefix, writer->stream_count);
        writer->publishers[writer->stream_count] = actor_publisher(client, subject);
    }
}

ringside_status_t stream_write(struct stream_writer *writer)
{
    uint8_t message[STREAM_BYTES_MAX];
    uint64_t random = writer->random;
    uint32_t index = (uint32_t)(random_next(&random) % writer->stream_count);
    size_t bytes =
        STREAM_BYTES_MIN + random_next(&random) % (writer->bytes_max - STREAM_BYTES_MIN + 1);
    ringside_publisher_t *publisher = writer->publishers[index];
    uint64_t number = writer->numbers[index] + 1;
    fill_message(message, bytes, ringside_publisher_subject(publisher), number);
    ringside_status_t status = ringside_publish(publisher, message, bytes);
    if (status == RINGSIDE_OK) {
        writer->random = random;
        writer->numbers[index] = number;
        writer->written_count++;
    }
    return status;
}

ringside_status_t stream_write_burst(struct stream_writer *writer, uint32_t count)
{
    ringside_status_t status = RINGSIDE_OK;
    for (uint32_t done = 0; done < count && status == RINGSIDE_OK; done++) {
        status = stream_write(writer);
    }
    return status;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* With restarts a stream outlives its publication. */
static bool is_stream(const struct stream_reader *reader, const struct stream *stream,
                      const char *publisher, const char *subject, uint64_t publication)
{
    return (reader->allows_restarts || stream->publication == publication) &&
           strcmp(stream->publisher, publisher) == 0 && strcmp(stream->subject, subject) == 0;
}

static struct stream *find_stream(struct stream_reader *reader, const char *publisher,
                                  const char *subject, uint64_t publication)
{
    /* The newest first: those of the dead are the oldest. */
    for (uint32_t index = reader->stream_count; index-- > 0;) {
        if (is_stream(reader, &reader->streams[index], publisher, subject, publication)) {
            return &reader->streams[index];
        }
    }
    check(reader->stream_count < STREAM_COUNT_MAX, "more than %d streams", STREAM_COUNT_MAX);
    struct stream *stream = &reader->streams[reader->stream_count++];
    snprintf(stream->publisher, sizeof(stream->publisher), "%s", publisher);
    snprintf(stream->subject, sizeof(stream->subject), "%s", subject);
    stream->publication = publication;
    return stream;
}

/* The first message of another publication: sequences begin anew, numbers go on. */
static void take_restart(struct stream_reader *reader, struct stream *stream,
                         const ringside_message_t *message, uint64_t number)
{
    check(message->sequence <= number, "message %" PRIu64 " of %s on %s has sequence %" PRIu64,
          number, message->publisher, message->subject, message->sequence);
    if (number > stream->last_number + 1) {
        check(stream->may_have_lost, "%" PRIu64 " messages of %s on %s were lost without a word",
              number - stream->last_number - 1, message->publisher, message->subject);
        reader->lost_count += number - stream->last_number - 1;
    } else {
        reader->twice_count += stream->last_number + 1 - number;
    }
    stream->is_renewed = false;
    stream->publication = message->publication;
    stream->offset = number - message->sequence;
    stream->last_number = number - 1;
    reader->restart_count++;
}

void stream_on_message(void *arg, const ringside_message_t *message)
{
    struct stream_reader *reader = arg;
    uint64_t number = check_message(message);
    struct stream *stream =
        find_stream(reader, message->publisher, message->subject, message->publication);
    if (stream->is_renewed) {
        take_restart(reader, stream, message, number);
    }
    stream->may_have_lost = false;
    check(number == stream->offset + message->sequence,
          "message %" PRIu64 " of %s on %s has sequence %" PRIu64, number, message->publisher,
          message->subject, message->sequence);
    check(number == stream->last_number + 1,
          "message %" PRIu64 " of %s on %s came after %" PRIu64 " (%" PRIu64 " left out so far)",
          number, message->publisher, message->subject, stream->last_number, stream->gap_count);
    stream->last_number = number;
    stream->bytes += message->bytes;
    reader->received_count++;
    uint64_t at_ns = now_ns();
    if (reader->last_ns != 0 && at_ns - reader->last_ns > reader->longest_quiet_ns) {
        reader->longest_quiet_ns = at_ns - reader->last_ns;
    }
    reader->last_ns = at_ns;
}

void stream_on_event(void *arg, const ringside_event_t *event)
{
    struct stream_reader *reader = arg;
    if (event->type != RINGSIDE_EVENT_GAP) {
        return;
    }
    if (reader->allows_restarts && event->count == UINT64_MAX) {
        find_stream(reader, event->publisher, event->subject, event->publication)->may_have_lost =
            true;
        return;
    }
    check(event->count != UINT64_MAX && event->count > 0, "a gap of unknown size on %s",
          event->subject);
    check(reader->allows_gaps, "%" PRIu64 " messages of %s on %s were left out", event->count,
          event->publisher, event->subject);
    struct stream *stream =
        find_stream(reader, event->publisher, event->subject, event->publication);
    stream->gap_count += event->count;
    stream->last_number += event->count;
    reader->gap_count += event->count;
}

void stream_reader_renew(struct stream_reader *reader)
{
    for (uint32_t index = 0; index < reader->stream_count; index++) {
        reader->streams[index].is_renewed = true;
    }
}

uint64_t stream_reader_position(const struct stream_reader *reader)
{
    return reader->received_count + reader->gap_count;
}

uint64_t stream_reader_position_of(const struct stream_reader *reader, const char *publisher)
{
    uint64_t position = 0;
    for (uint32_t index = 0; index < reader->stream_count; index++) {
        if (publisher == NULL || strcmp(reader->streams[index].publisher, publisher) == 0) {
            position += reader->streams[index].last_number;
        }
    }
    return position;
}
