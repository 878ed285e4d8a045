/*
 * Design notes
 * - Content: the word of 8 bytes at position p is mix(seed, p / 8), so a byte that was delivered to
 * the wrong place is wrong, also when it is right for another lap.
 */
#include "transport/conformance/stream.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#define FRAMES_PER_STEP 16u

static uint64_t content_word(uint64_t seed, uint64_t position)
{
    uint64_t mixed = seed + (position >> 3) * UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return mixed ^ mixed >> 32;
}

static void fill_content(uint8_t *bytes, uint64_t byte_count, uint64_t seed, uint64_t position)
{
    for (uint64_t done = 0; done < byte_count; done += 8) {
        uint64_t word = content_word(seed, position + done);
        uint64_t left = byte_count - done;
        memcpy(bytes + done, &word, left < 8 ? left : 8);
    }
}

/* The first byte that is wrong; byte_count: none. */
static uint64_t check_content(const uint8_t *bytes, uint64_t byte_count, uint64_t seed,
                              uint64_t position)
{
    for (uint64_t done = 0; done < byte_count; done += 8) {
        uint64_t word = content_word(seed, position + done);
        uint64_t left = byte_count - done;
        if (memcmp(bytes + done, &word, left < 8 ? left : 8) != 0) {
            return done;
        }
    }
    return byte_count;
}

uint64_t conform_size_64(uint64_t seed, uint64_t index)
{
    (void)seed;
    (void)index;
    return 64;
}

uint64_t conform_size_mixed(uint64_t seed, uint64_t index)
{
    uint64_t state = seed ^ index * UINT64_C(0x100000001b3);
    uint64_t limit = conform_random(&state, 16) == 0 ? 8192 : 256;
    return conform_random(&state, limit + 1);
}

bool conform_stage(struct conform *conform, struct rsi_link *link, uint64_t seed, uint64_t index,
                   uint64_t payload_bytes)
{
    (void)conform;
    uint64_t frame_bytes = rsi_frame_bytes(0, payload_bytes);
    struct rsi_frame_header *header = rsi_frame_claim(link, frame_bytes);
    if (header == NULL) {
        return false;
    }
    header->payload_bytes = (uint32_t)payload_bytes;
    header->type = RSI_FRAME_MESSAGE;
    header->flags = 0;
    header->headers_bytes = 0;
    header->publication = (uint32_t)seed;
    header->generation = 0;
    header->entry_count = 0;
    header->sequence = index;
    header->publish_time_ns = content_word(seed, index);
    fill_content((uint8_t *)(header + 1), payload_bytes, seed,
                 link->staged_pos + RSI_FRAME_HEADER_BYTES);
    rsi_frame_commit(link, frame_bytes);
    return true;
}

uint64_t conform_check_frame(struct conform *conform, const struct rsi_link *link,
                             uint64_t position, uint64_t seed, uint64_t index,
                             uint64_t payload_bytes)
{
    struct rsi_frame frame;
    const char *why = "";
    if (rsi_frame_read(&link->in, position, link->arrived_pos, &frame, &why) != RSI_OK) {
        conform_fail(conform, "frame %" PRIu64 " at position %" PRIu64 " (arrived %" PRIu64 "): %s",
                     index, position, link->arrived_pos, why);
    }
    conform_equal(conform, frame.header.sequence, index);
    conform_equal(conform, frame.header.payload_bytes, payload_bytes);
    conform_equal(conform, frame.header.publication, (uint32_t)seed);
    conform_equal(conform, frame.header.publish_time_ns, content_word(seed, index));
    uint64_t right_bytes =
        check_content(frame.payload, payload_bytes, seed, position + RSI_FRAME_HEADER_BYTES);
    if (right_bytes != payload_bytes) {
        conform_fail(conform,
                     "frame %" PRIu64 " at position %" PRIu64 ": payload of %" PRIu64
                     " bytes is wrong from byte %" PRIu64 " on",
                     index, position, payload_bytes, right_bytes);
    }
    return frame.frame_bytes;
}

void conform_stream_init(struct conform_stream *stream, struct conform_side *from,
                         uint32_t link_index, uint64_t frame_count, conform_size size)
{
    struct conform *conform = from->conform;
    *stream = (struct conform_stream){
        .from = from,
        .to = from == &conform->client ? &conform->server : &conform->client,
        .link_index = link_index,
        .seed = conform_random(&conform->random, UINT64_MAX),
        .frame_count = frame_count,
        .size = size,
        .write_random = conform_random(&conform->random, UINT64_MAX),
        .read_random = conform_random(&conform->random, UINT64_MAX),
    };
    stream->read_pos = stream->to->links[link_index]->consumed_pos;
}

/* ---- writer ------------------------------------------------------------------------------------
 */

static void check_peer_positions(struct conform_stream *stream, const struct rsi_link *link)
{
    struct conform *conform = stream->from->conform;
    conform_check(conform, link->peer_arrived_pos >= stream->seen_peer_arrived_pos);
    conform_check(conform, link->peer_consumed_pos >= stream->seen_peer_consumed_pos);
    conform_check(conform, link->peer_consumed_pos <= link->peer_arrived_pos);
    conform_check(conform, link->peer_arrived_pos <= link->placed_pos);
    stream->seen_peer_arrived_pos = link->peer_arrived_pos;
    stream->seen_peer_consumed_pos = link->peer_consumed_pos;
}

/* All frames are on their way: waits for the peer to have consumed them. */
static void finish_writing(struct conform_stream *stream, struct rsi_link *link)
{
    if (!stream->is_requested) {
        rsi_link_request_wake(link, CONFORM_NEVER, link->placed_pos, link->placed_pos);
        stream->is_requested = true;
    }
    if (link->peer_consumed_pos == link->staged_pos) {
        conform_equal(stream->from->conform, link->peer_arrived_pos, link->placed_pos);
        conform_equal(stream->from->conform, link->flushed_pos, link->placed_pos);
        stream->is_written = true;
    }
}

/* A frame of more than a quarter of the ring may need room of which the peer, unasked, tells
 * nothing. */
static void ask_for_room(struct rsi_link *link, uint64_t frame_bytes)
{
    if (frame_bytes > link->out.capacity_bytes / 4) {
        uint64_t end_pos = link->staged_pos + frame_bytes + RSI_RING_GUARD_BYTES;
        rsi_link_request_wake(link, CONFORM_NEVER, CONFORM_NEVER,
                              end_pos - link->out.capacity_bytes);
    }
}

void conform_stream_write(struct conform_stream *stream)
{
    struct rsi_link *link = stream->from->links[stream->link_index];
    struct conform *conform = stream->from->conform;
    check_peer_positions(stream, link);
    if (stream->written_count == stream->frame_count) {
        finish_writing(stream, link);
        return;
    }
    uint64_t burst = 1 + conform_random(&stream->write_random, FRAMES_PER_STEP);
    while (burst-- > 0 && stream->written_count < stream->frame_count) {
        uint64_t payload_bytes = stream->size(stream->seed, stream->written_count);
        if (!conform_stage(conform, link, stream->seed, stream->written_count, payload_bytes)) {
            ask_for_room(link, rsi_frame_bytes(0, payload_bytes));
            break;
        }
        stream->written_count++;
        if (conform_random(&stream->write_random, 4) == 0) {
            rsi_link_place(link);
        }
        if (conform_random(&stream->write_random, 16) == 0) {
            conform_check(conform, !rsi_failed(rsi_link_flush(link)));
        }
    }
    rsi_link_place(link);
    conform_check(conform, !rsi_failed(rsi_link_flush_clocked(link)));
}

/* ---- reader ------------------------------------------------------------------------------------
 */

void conform_stream_read(struct conform_stream *stream)
{
    struct rsi_link *link = stream->to->links[stream->link_index];
    struct conform *conform = stream->to->conform;
    conform_check(conform, link->arrived_pos >= stream->seen_arrived_pos);
    stream->seen_arrived_pos = link->arrived_pos;
    while (stream->read_pos < link->arrived_pos) {
        conform_check(conform, stream->read_count < stream->frame_count);
        uint64_t payload_bytes = stream->size(stream->seed, stream->read_count);
        stream->read_pos += conform_check_frame(conform, link, stream->read_pos, stream->seed,
                                                stream->read_count, payload_bytes);
        stream->read_count++;
        if (conform_random(&stream->read_random, 8) == 0) {
            rsi_link_consume(link, stream->read_pos - link->consumed_pos);
        }
    }
    bool is_all = stream->read_count == stream->frame_count;
    uint64_t kept_bytes = stream->read_pos - link->consumed_pos;
    if (is_all || kept_bytes > link->in.capacity_bytes / 4 ||
        conform_random(&stream->read_random, 2) == 0) {
        rsi_link_consume(link, kept_bytes);
    }
    stream->is_read = is_all && link->consumed_pos == stream->read_pos;
}

/* ---- running -----------------------------------------------------------------------------------
 */

struct run {
    struct conform_side *side;
    struct conform_stream *streams;
    uint32_t stream_count;
};

/* One turn of a side with its halves of all streams. True: it has nothing left to do. */
static bool run_step(const struct run *run)
{
    uint32_t event_count = conform_side_step(run->side);
    bool is_done = true;
    for (uint32_t i = 0; i < run->stream_count; i++) {
        struct conform_stream *stream = &run->streams[i];
        if (stream->from == run->side && !stream->is_written) {
            uint64_t before_count = stream->written_count;
            conform_stream_write(stream);
            event_count += stream->written_count != before_count;
            is_done = is_done && stream->is_written;
        } else if (stream->to == run->side && !stream->is_read) {
            uint64_t before_count = stream->read_count;
            conform_stream_read(stream);
            event_count += stream->read_count != before_count;
            is_done = is_done && stream->is_read;
        }
    }
    conform_side_relax(run->side, event_count);
    return is_done;
}

/* How far a side has come, to tell slow from stuck. */
static uint64_t run_progress(const struct run *run)
{
    uint64_t progress = 0;
    for (uint32_t i = 0; i < run->stream_count; i++) {
        const struct conform_stream *stream = &run->streams[i];
        progress += stream->from == run->side
                        ? stream->written_count + stream->seen_peer_consumed_pos
                        : stream->read_count;
    }
    return progress;
}

struct watch {
    uint64_t progress;
    uint64_t deadline_ns;
};

static void watch_progress(struct watch *watch, struct conform *conform, uint64_t progress)
{
    uint64_t now_ns = conform_now_ns();
    if (progress != watch->progress || watch->deadline_ns == 0) {
        watch->progress = progress;
        watch->deadline_ns = now_ns + CONFORM_HANG_NS;
    } else if (now_ns > watch->deadline_ns) {
        conform_fail(conform, "nothing moved for 20 s");
    }
}

static _Atomic uint32_t runs_done;

static void *run_thread(void *arg)
{
    const struct run *run = arg;
    struct watch watch = {0};
    bool is_done = false;
    /* A side that is done keeps polling until the other is: it has questions to answer. */
    while (rsi_load_acquire(&runs_done) < 2) {
        bool was_done = is_done;
        is_done = run_step(run) || is_done;
        if (is_done && !was_done) {
            rsi_fetch_add_acq_rel(&runs_done, 1);
        }
        if (!is_done) {
            watch_progress(&watch, run->side->conform, run_progress(run));
        }
    }
    return NULL;
}

static void run_two_threads(struct conform *conform, const struct run *client,
                            const struct run *server)
{
    pthread_t thread;
    rsi_store_release(&runs_done, 0);
    conform_check(conform, pthread_create(&thread, NULL, run_thread, (void *)server) == 0);
    (void)run_thread((void *)client);
    pthread_join(thread, NULL);
}

void conform_streams_run(struct conform *conform, struct conform_stream *streams, uint32_t count)
{
    struct run client = {&conform->client, streams, count};
    struct run server = {&conform->server, streams, count};
    if (conform->options->thread_count == 2) {
        run_two_threads(conform, &client, &server);
        return;
    }
    struct watch watch = {0};
    bool client_is_done = false;
    bool server_is_done = false;
    while (!client_is_done || !server_is_done) {
        /* Now and then one side gets many turns in a row, so that rings fill and drain. */
        bool is_client = conform_random(&conform->random, 2) == 0;
        bool is_long = conform_random(&conform->random, 64) == 0;
        for (uint64_t turns = is_long ? 50 : 1; turns > 0; turns--) {
            if (is_client) {
                client_is_done = run_step(&client);
            } else {
                server_is_done = run_step(&server);
            }
        }
        watch_progress(&watch, conform, run_progress(&client) + run_progress(&server));
    }
}
