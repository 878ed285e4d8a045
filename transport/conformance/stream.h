/*
 * A stream: numbered frames of known content one way over one link, written and read a few at a
 * time.
 *
 * Design notes
 * - The content follows from seed, number and position alone, so the reader checks every byte
 * without being told anything.
 * - The writer varies by the seed how much it stages, places and flushes; the reader how soon it
 * gives back. After its last frame the writer calls flush_clocked once and relies on poll_data.
 * - The writer's half and the reader's half touch nothing of each other: they may be two threads.
 */
#ifndef RSI_TRANSPORT_CONFORMANCE_STREAM_H
#define RSI_TRANSPORT_CONFORMANCE_STREAM_H

#include "transport/conformance/harness.h"

/* The payload's size of frame `index`. */
typedef uint64_t (*conform_size)(uint64_t seed, uint64_t index);

struct conform_stream {
    struct conform_side *from;
    struct conform_side *to;
    uint32_t link_index;
    uint64_t seed;
    uint64_t frame_count;
    conform_size size;

    /* Writer's half. */
    uint64_t written_count;
    bool is_requested; /* the request for the last positions was made */
    uint64_t write_random;
    uint64_t seen_peer_arrived_pos;
    uint64_t seen_peer_consumed_pos;
    bool is_written; /* all of it, and all consumed by the peer */

    /* Reader's half. */
    uint64_t read_count;
    uint64_t read_pos;
    uint64_t read_random;
    uint64_t seen_arrived_pos;
    bool is_read; /* all of it, and all given back */
};

void conform_stream_init(struct conform_stream *stream, struct conform_side *from,
                         uint32_t link_index, uint64_t frame_count, conform_size size);
/* A few frames more. Owner thread of the writing / reading side. */
void conform_stream_write(struct conform_stream *stream);
void conform_stream_read(struct conform_stream *stream);
/* Runs all to their end, in one thread or two as the options say; fails the case if nothing moves
 * for 20 s. */
void conform_streams_run(struct conform *conform, struct conform_stream *streams, uint32_t count);

/* Sizes. */
uint64_t conform_size_64(uint64_t seed, uint64_t index);
uint64_t conform_size_mixed(uint64_t seed, uint64_t index); /* mostly small, up to 8 KiB */

/* One frame outside a stream: stages it. False: no room. */
bool conform_stage(struct conform *conform, struct rsi_link *link, uint64_t seed, uint64_t index,
                   uint64_t payload_bytes);
/* Reads and checks the frame at `position`; returns its length. */
uint64_t conform_check_frame(struct conform *conform, const struct rsi_link *link,
                             uint64_t position, uint64_t seed, uint64_t index,
                             uint64_t payload_bytes);

#endif
