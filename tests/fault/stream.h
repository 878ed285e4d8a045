/*
 * Numbered streams: what a fault must not lose, double or disorder.
 *
 * A stream is what one publisher object of one client says on one subject. Its messages are
 * numbered from 1 and their bytes follow from stream and number, so a reader knows without help
 * what must come next, and a message that was torn, doubled or taken from elsewhere fails where it
 * is read.
 */
#ifndef RSI_TESTS_FAULT_STREAM_H
#define RSI_TESTS_FAULT_STREAM_H

#include "tests/system/harness.h"

enum {
    STREAM_BYTES_MIN = 16,
    STREAM_BYTES_MAX = 8192,
    STREAMS_PER_WRITER_MAX = 8,
    STREAM_COUNT_MAX = 4096, /* that one reader may see */
    STREAM_NAME_BYTES = 64,
};

/* ---- writing -----------------------------------------------------------------------------------
 */

struct stream_writer {
    ringside_client_t *client;
    ringside_publisher_t *publishers[STREAMS_PER_WRITER_MAX];
    uint64_t numbers[STREAMS_PER_WRITER_MAX]; /* of the last message */
    uint64_t written_count;                   /* of all streams together */
    uint32_t stream_count;
    uint32_t bytes_max;
    uint64_t random;
};

/* Opens the publishers prefix.0, prefix.1, ... Sizes are drawn between the least and `bytes_max`.
 */
void stream_writer_open(struct stream_writer *writer, ringside_client_t *client, const char *prefix,
                        uint32_t stream_count, uint32_t bytes_max, uint64_t seed);
/* Writes the next message of a stream that is drawn; what publish answers. Never waits. */
ringside_status_t stream_write(struct stream_writer *writer);
/* Writes up to `count` messages for as long as there is room; what the last answer was. */
ringside_status_t stream_write_burst(struct stream_writer *writer, uint32_t count);

/* ---- reading -----------------------------------------------------------------------------------
 */

struct stream {
    char publisher[STREAM_NAME_BYTES];
    char subject[STREAM_NAME_BYTES];
    uint64_t publication;
    uint64_t offset;      /* number - sequence; 0 but after a restart */
    uint64_t last_number; /* received, or told to be left out */
    uint64_t gap_count;
    bool is_renewed;    /* the broker is another run, and nothing came since */
    bool may_have_lost; /* a gap of unknown size was told, and nothing came since */
    uint64_t bytes;     /* received */
};

struct stream_reader {
    struct stream streams[STREAM_COUNT_MAX];
    uint32_t stream_count;
    uint64_t received_count;
    uint64_t gap_count;
    uint64_t longest_quiet_ns; /* between two messages */
    uint64_t last_ns;
    bool allows_gaps; /* else a gap fails the test */
    /* The broker may be started anew: a stream goes on in another publication then. What was on its
     * way may be lost, if a gap of unknown size was told, or come twice; counted here. */
    bool allows_restarts;
    uint64_t restart_count; /* of streams */
    uint64_t lost_count;
    uint64_t twice_count;
};

/* For ringside_subscribe and on_event; arg is the reader. Other events are passed over. */
void stream_on_message(void *arg, const ringside_message_t *message);
void stream_on_event(void *arg, const ringside_event_t *event);
/* The session was renewed: publication numbers and sequences begin anew, and may be the old ones.
 */
void stream_reader_renew(struct stream_reader *reader);
/* Messages of all streams that were received or told to be left out. */
uint64_t stream_reader_position(const struct stream_reader *reader);
/* The sum of the last numbers of the streams of one publisher, or of all (NULL): the same, but
 * after restarts. */
uint64_t stream_reader_position_of(const struct stream_reader *reader, const char *publisher);

#endif
