/*
 * Frames on their way to the port.
 *
 * Design notes
 * - One transmit for all that a pass or a flush writes. Empty frames are fetched many at a time.
 * - What the port does not take stays in the burst; when that is full nothing more is written, and
 *   the bytes wait in the out ring, where they lie well. A poller that wants to sleep then sleeps a
 *   little and tries again: nothing tells when a cable is back.
 * - A tail is a piece of an out ring. It is lent from the emit to the next flush, and every call
 *   that emits ends with one: nobody writes there and no ring goes meanwhile. What the port does
 *   not take gets a copy of its tail.
 */
#include "transport/dpdk/dpdk_internal.h"

#include <string.h>

struct rsi_port_frame *rsi_dpdk_burst_frame(struct rsi_dpdk_poller *poller)
{
    struct rsi_dpdk_burst *burst = &poller->burst;
    if (burst->count == RSI_DPDK_FRAMES_BURST &&
        rsi_dpdk_burst_flush(poller) == RSI_DPDK_FRAMES_BURST) {
        return NULL;
    }
    if (burst->spare_count == 0) {
        struct rsi_port *port = poller->station->port;
        burst->spare_count =
            port->operations->acquire(port, burst->spares, RSI_DPDK_FRAMES_BURST / 2);
    }
    if (rsi_unlikely(burst->spare_count == 0)) {
        burst->is_stuck = true;
        return NULL;
    }
    return &burst->spares[burst->spare_count - 1];
}

static void keep_tail(struct rsi_port_frame *frame)
{
    if (frame->tail_bytes != 0) {
        memcpy(frame->data + frame->bytes - frame->tail_bytes, frame->tail, frame->tail_bytes);
        frame->tail_bytes = 0;
    }
}

uint32_t rsi_dpdk_burst_flush(struct rsi_dpdk_poller *poller)
{
    struct rsi_dpdk_burst *burst = &poller->burst;
    if (burst->count == 0) {
        return 0;
    }
    uint32_t sent =
        rsi_station_transmit(poller->station, poller->transmit_queue, burst->frames, burst->count);
    burst->count -= sent;
    if (rsi_unlikely(burst->count != 0)) {
        burst->is_stuck = true;
        memmove(burst->frames, burst->frames + sent, burst->count * sizeof(burst->frames[0]));
        for (uint32_t i = 0; i < burst->count; i++) {
            keep_tail(&burst->frames[i]);
        }
    }
    return burst->count;
}

void rsi_dpdk_burst_fini(struct rsi_dpdk_poller *poller)
{
    struct rsi_port *port = poller->station->port;
    struct rsi_dpdk_burst *burst = &poller->burst;
    port->operations->release(port, burst->frames, burst->count);
    port->operations->release(port, burst->spares, burst->spare_count);
    burst->count = 0;
    burst->spare_count = 0;
}

/* The peer's newest time stamp, as if it had been sent just now; 0: there is none. */
static uint32_t echo_ns(const struct rsi_dpdk_receive *receive, uint64_t now_ns)
{
    if (receive->timestamp_at_ns == 0) {
        return 0;
    }
    uint32_t echo = receive->timestamp_ns + (uint32_t)(now_ns - receive->timestamp_at_ns);
    return echo != 0 ? echo : 1;
}

void rsi_dpdk_emit(struct rsi_dpdk_link *link, struct rsi_port_frame *frame,
                   enum rsi_datagram_type type, uint32_t flags, uint32_t body_bytes)
{
    struct rsi_dpdk_burst *burst = &rsi_dpdk_poller(link->base.poller)->burst;
    uint64_t now_ns = rsi_dpdk_now_ns(link);
    struct rsi_datagram_header header = {
        .type = (uint8_t)type,
        .flags = (uint8_t)flags,
        .connection = link->peer_connection,
        .from = link->connection,
        .bytes = (uint16_t)body_bytes,
        .timestamp_ns = (uint32_t)now_ns,
        .echo_ns = echo_ns(&link->receive, now_ns),
        .number = ++link->send.number,
    };
    rsi_packet_write(frame, &link->own_end, &link->peer_end, &header);
    link->send.sent_ns = now_ns;
    burst->frames[burst->count++] = *frame;
    burst->spare_count--;
}
