/*
 * Design notes
 * - Integers only; the shifts are RFC 6298's 1/8 and 1/4.
 * - A time-out alone is no loss: its usual cause is a peer whose thread lost its CPU for some
 *   milliseconds, many times a round trip, and its next answer says exactly what is lacking. Only
 *   a silence of RSI_PATH_SILENCE_NS, TCP's shortest time-out, shrinks the window to its least:
 *   what is sent after it is a question whether the way is open at all.
 */
#include "transport/dpdk/path.h"

#include "core/position.h"

#define DOUBLING_MAX 16u

static uint64_t window_min(const struct rsi_path *path)
{
    return (uint64_t)RSI_PATH_WINDOW_FRAMES_MIN * path->frame_bytes;
}

void rsi_path_init(struct rsi_path *path, uint32_t frame_bytes)
{
    *path = (struct rsi_path){
        .frame_bytes = frame_bytes,
        .window_bytes = (uint64_t)RSI_PATH_WINDOW_FRAMES_FIRST * frame_bytes,
        .threshold_bytes = UINT64_MAX,
        .window_bytes_max = UINT64_MAX,
    };
}

void rsi_path_set_ring(struct rsi_path *path, uint64_t start_pos, uint64_t ring_bytes)
{
    path->recovery_pos = start_pos;
    path->again_sent_pos = start_pos;
    path->again_pos = start_pos;
    path->window_bytes_max = rsi_pos_max(ring_bytes, window_min(path));
}

void rsi_path_sample(struct rsi_path *path, uint64_t sample_ns)
{
    if (path->round_trip_ns == 0) {
        path->round_trip_ns = rsi_pos_max(sample_ns, 1);
        path->deviation_ns = sample_ns / 2;
        return;
    }
    uint64_t error_ns = sample_ns > path->round_trip_ns ? sample_ns - path->round_trip_ns
                                                        : path->round_trip_ns - sample_ns;
    path->deviation_ns = path->deviation_ns - path->deviation_ns / 4 + error_ns / 4;
    path->round_trip_ns =
        rsi_pos_max(path->round_trip_ns - path->round_trip_ns / 8 + sample_ns / 8, 1);
}

uint64_t rsi_path_timeout_ns(const struct rsi_path *path)
{
    uint64_t timeout_ns = path->round_trip_ns == 0
                              ? 3 * RSI_PATH_ROUND_TRIP_FIRST_NS
                              : path->round_trip_ns + path->round_trip_ns / 4 +
                                    4 * path->deviation_ns + RSI_PATH_GRANULARITY_NS;
    return rsi_pos_min(timeout_ns << path->timeout_doubling, RSI_PATH_TIMEOUT_MAX_NS);
}

uint64_t rsi_path_patience_ns(const struct rsi_path *path)
{
    uint64_t round_trip_ns =
        path->round_trip_ns == 0 ? RSI_PATH_ROUND_TRIP_FIRST_NS : path->round_trip_ns;
    return round_trip_ns / 4;
}

void rsi_path_arrived(struct rsi_path *path, uint64_t bytes, bool is_limited)
{
    if (!is_limited) {
        return; /* a window that is not used says nothing about the way */
    }
    if (path->window_bytes < path->threshold_bytes) {
        path->window_bytes += bytes;
    } else {
        path->grown_bytes += bytes;
        if (path->grown_bytes >= path->window_bytes) {
            path->grown_bytes = 0;
            path->window_bytes += path->frame_bytes;
        }
    }
    path->window_bytes = rsi_pos_min(path->window_bytes, path->window_bytes_max);
}

void rsi_path_lost(struct rsi_path *path, uint64_t lost_pos, uint64_t sent_pos)
{
    if (lost_pos < path->recovery_pos) {
        return;
    }
    path->recovery_pos = sent_pos;
    path->window_bytes = rsi_pos_max(path->window_bytes / 2, window_min(path));
    path->threshold_bytes = path->window_bytes;
    path->grown_bytes = 0;
}

/* What is under way once more, but later each time while the last extra has not all arrived. */
static void give_extra(struct rsi_path *path, uint64_t confirmed_pos, uint64_t sent_pos,
                       uint64_t now_ns)
{
    if (confirmed_pos >= path->again_pos) {
        path->again_doubling = 0;
    } else if (path->again_doubling < DOUBLING_MAX) {
        path->again_doubling++;
    }
    path->again_bytes = sent_pos - confirmed_pos;
    path->again_pos = sent_pos;
    path->again_ns = now_ns + rsi_pos_min(rsi_path_timeout_ns(path) << path->again_doubling,
                                          RSI_PATH_TIMEOUT_MAX_NS);
}

uint64_t rsi_path_again_bytes(struct rsi_path *path, uint64_t confirmed_pos, uint64_t sent_pos,
                              uint64_t now_ns)
{
    path->again_bytes += 2 * (sent_pos - path->again_sent_pos);
    path->again_bytes = rsi_pos_min(path->again_bytes, 2 * (sent_pos - confirmed_pos));
    path->again_sent_pos = sent_pos;
    if (path->again_bytes == 0 && now_ns >= path->again_ns) {
        give_extra(path, confirmed_pos, sent_pos, now_ns);
    }
    return path->again_bytes;
}

void rsi_path_sent_again(struct rsi_path *path, uint64_t bytes)
{
    path->again_bytes -= bytes;
}

void rsi_path_timed_out(struct rsi_path *path, uint64_t silence_ns)
{
    if (path->timeout_doubling < DOUBLING_MAX) {
        path->timeout_doubling++;
    }
    if (silence_ns >= RSI_PATH_SILENCE_NS && !path->has_collapsed) {
        path->has_collapsed = true;
        path->threshold_bytes = rsi_pos_max(path->window_bytes / 2, window_min(path));
        path->window_bytes = window_min(path);
    }
}

void rsi_path_heard(struct rsi_path *path)
{
    path->timeout_doubling = 0;
    path->has_collapsed = false;
}
