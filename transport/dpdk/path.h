/*
 * What a sender knows of the way to its peer: how long a round trip takes, and how much may be
 * under way.
 *
 * Design notes
 * - Round trip: RFC 6298's smoothed time and deviation, from time stamps that the peer sends back
 *   (less the time they lay there), so every datagram may be a sample, also one sent again.
 * - Congestion: NewReno's window in bytes (RFC 5681, RFC 6582): doubling per round trip up to the
 *   first loss, then one frame more per round trip; half after a loss, at most once per round
 *   trip. Why this and not a newer one: beside it runs TCP, which it must neither push aside nor
 *   yield everything to; CUBIC differs from it only where a window is large in time (its
 *   TCP-friendly region covers round trips below some milliseconds entirely); and BBR wants pacing,
 *   that is a timer per frame. Reordering does not count as loss: only what the reader asks for.
 * - A reader that asks for the same bytes again and again must not get more out of it than a small
 *   multiple of what it reads. So what is sent again is rationed: two bytes for each that was sent
 *   for the first time. Who lost more than that gets once what is under way, and then again after a
 *   time-out, two, four and so on, until all of it has arrived.
 */
#ifndef RSI_TRANSPORT_DPDK_PATH_H
#define RSI_TRANSPORT_DPDK_PATH_H

#include <stdbool.h>
#include <stdint.h>

#define RSI_PATH_WINDOW_FRAMES_FIRST 16u
#define RSI_PATH_WINDOW_FRAMES_MIN   4u
/* Before the first sample. */
#define RSI_PATH_ROUND_TRIP_FIRST_NS UINT64_C(1000000)
/* Allowance for what the peer's thread does between two looks at its port. */
#define RSI_PATH_GRANULARITY_NS UINT64_C(50000)
#define RSI_PATH_TIMEOUT_MAX_NS UINT64_C(1000000000)
/* From here on a silence counts as the loss of all that was under way. */
#define RSI_PATH_SILENCE_NS UINT64_C(200000000)

struct rsi_path {
    uint64_t round_trip_ns; /* smoothed; 0: no sample yet */
    uint64_t deviation_ns;
    uint64_t window_bytes;
    uint64_t threshold_bytes; /* below: doubling */
    uint64_t window_bytes_max;
    uint64_t grown_bytes;      /* acknowledged towards the next frame of window */
    uint64_t recovery_pos;     /* a loss before this belongs to one that was answered */
    uint32_t frame_bytes;      /* ring bytes of a full datagram */
    uint32_t timeout_doubling; /* time-outs in a row */
    bool has_collapsed;        /* in this silence */
    /* What may be sent again. */
    uint64_t again_bytes;    /* that are left */
    uint64_t again_sent_pos; /* bytes before it have given their share */
    uint64_t again_pos;      /* what the last extra was given for is all before it */
    uint64_t again_ns;       /* when there is another one */
    uint32_t again_doubling; /* extras in a row for the same bytes */
};

void rsi_path_init(struct rsi_path *path, uint32_t frame_bytes);
/* The ring is there: no more than it can be under way. */
void rsi_path_set_ring(struct rsi_path *path, uint64_t start_pos, uint64_t ring_bytes);
void rsi_path_sample(struct rsi_path *path, uint64_t sample_ns);
/* The time after which silence means a loss; doubles with each time-out in a row. */
uint64_t rsi_path_timeout_ns(const struct rsi_path *path);
/* A quarter of a round trip: how long disorder is waited for, and answers may be gathered. */
uint64_t rsi_path_patience_ns(const struct rsi_path *path);
/* `bytes` arrived; was the window used? */
void rsi_path_arrived(struct rsi_path *path, uint64_t bytes, bool is_limited);
/* Bytes at `lost_pos` have to be sent again; `sent_pos` is what was sent so far. */
void rsi_path_lost(struct rsi_path *path, uint64_t lost_pos, uint64_t sent_pos);
/* How many bytes may be sent again now; those between the two positions are under way. */
uint64_t rsi_path_again_bytes(struct rsi_path *path, uint64_t confirmed_pos, uint64_t sent_pos,
                              uint64_t now_ns);
void rsi_path_sent_again(struct rsi_path *path, uint64_t bytes);
/* No answer came for a time-out; nothing at all was heard for silence_ns. */
void rsi_path_timed_out(struct rsi_path *path, uint64_t silence_ns);
/* Something was heard. */
void rsi_path_heard(struct rsi_path *path);

#endif
