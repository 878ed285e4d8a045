/*
 * Actors that write and read numbered streams until they are told to stop: the traffic of the fault
 * tests.
 */
#ifndef RSI_TESTS_FAULT_STREAM_ACTORS_H
#define RSI_TESTS_FAULT_STREAM_ACTORS_H

#include "tests/fault/stream.h"

enum {
    /* Steps that they reach. */
    STREAM_READY = 1,   /* publishers are open; subscribed */
    STREAM_STOPPED = 2, /* writer: all it wrote has arrived, and it told how much that is */
    /* Steps that they are allowed. */
    STREAM_STOP = 1,  /* writer: write no more */
    STREAM_LEAVE = 2, /* say goodbye */
    /* A writer's results; its progress is the number of messages written. */
    STREAM_RESULT_WRITTEN = 0,
    STREAM_RESULT_REFUSED = 1, /* how often there was no room */
    /* A reader's results; its progress is its position: messages received or left out. */
    STREAM_RESULT_POSITION = 2, /* of the streams of `counted` */
    STREAM_RESULT_RECEIVED = 3,
    STREAM_RESULT_GAPS = 4, /* messages left out */
    STREAM_RESULT_STREAMS = 5,
    STREAM_RESULT_QUIET_NS = 6,
    STREAM_RESULT_LOST = 7, /* in restarts of the broker, counted */
    STREAM_RESULT_TWICE = 10,
    STREAM_RESULT_RESTARTS = 11, /* of streams */
    /* Of all: how often that event came. */
    STREAM_RESULT_SUSPENDED = 12,
    STREAM_RESULT_RESUMED = 13,
    STREAM_RESULT_RENEWED = 14,
    STREAM_RESULT_TRANSPORT = 15,    /* its first letter */
    STREAM_RESULT_RESENT_BYTES = 16, /* over the link that it has */
    /* Of all: how the connection ended before it was told to leave; the event's text is the
     * actor's.
     */
    STREAM_RESULT_EVENT = 8, /* LOST or CLOSED; 0: it did not */
    STREAM_RESULT_STATUS = 9,

    STREAM_RING_BYTES = 256 << 10,
};

/* Small rings, both ways. */
extern const ringside_options_t stream_client_options;

struct stream_writing {
    const char *prefix;
    uint32_t stream_count;
    uint32_t bytes_max;
    uint32_t burst;   /* messages at a time */
    uint64_t rest_ns; /* after each burst */
    bool may_end;     /* else a connection that ends fails the test */
    uint64_t resume_timeout_ns;
    void (*prepare)(void); /* in the actor, before it connects; NULL: nothing */
};

struct stream_reading {
    const char *subject;
    ringside_policy_t policy;
    const char *counted; /* publisher whose streams RESULT_POSITION counts; NULL: all */
    bool allows_gaps;
    bool allows_restarts;
    bool may_end;
    uint64_t resume_timeout_ns;
};

/* One client that does both. Its progress is the sum. */
struct stream_duplex {
    struct stream_writing writing;
    struct stream_reading reading;
};

/* For actor_start; arg is a struct stream_writing, stream_reading or stream_duplex. */
void stream_write_actor(struct actor *self, void *arg);
void stream_read_actor(struct actor *self, void *arg);
void stream_duplex_actor(struct actor *self, void *arg);

/* Stops the writer (or duplex) and waits until all it wrote has arrived at the broker; how much
 * that is. */
uint64_t stream_stop_writer(struct actor *writer);
/* Waits until the reader's RESULT_POSITION is that; each step of progress puts the hang off. */
void stream_await_reader(struct actor *reader, uint64_t position);
void stream_leave(struct actor *actor);

#endif
