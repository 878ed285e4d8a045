/*
 * Frames in and out of a DPDK device.
 *
 * Design notes
 * - A frame is an mbuf of one segment: `data` is where its bytes begin, `handle` the mbuf. The
 *   engine writes `bytes` and nothing of the mbuf.
 * - Everything here runs to its end: no lock, no system call but a driver's own (af_packet's send).
 * - A frame of several segments, or one that is longer than the port said, comes from nobody who
 *   keeps to the port's MTU: dropped here, so that the engine may rely on both.
 * - Bursts are cut into pieces of a size that a driver surely takes at once and the stack holds.
 * - A tail is a second segment whose mbuf lies on the stack. It has one user more than the driver,
 *   so that what the driver gives up goes to no pool; that it gave it up is looked at afterwards.
 */
#include "core/assert.h"
#include "core/compiler.h"
#include "transport/dpdk/eal/eal_internal.h"

#include <rte_ethdev.h>
#include <rte_mbuf.h>

enum { BURST_COUNT = 64 };

uint32_t rsi_eal_receive(struct rsi_port *port, struct rsi_port_frame *frames, uint32_t count)
{
    struct rsi_eal_port *eal = rsi_eal_port(port);
    struct rte_mbuf *mbufs[BURST_COUNT];
    uint32_t taken = 0;
    while (taken < count) {
        uint16_t want = (uint16_t)(count - taken < BURST_COUNT ? count - taken : BURST_COUNT);
        uint16_t got = rte_eth_rx_burst(eal->port_id, 0, mbufs, want);
        for (uint16_t i = 0; i < got; i++) {
            struct rte_mbuf *mbuf = mbufs[i];
            if (rsi_unlikely(mbuf->nb_segs != 1 || mbuf->pkt_len > port->frame_bytes_max)) {
                rte_pktmbuf_free(mbuf);
                continue;
            }
            frames[taken++] = (struct rsi_port_frame){
                .data = rte_pktmbuf_mtod(mbuf, uint8_t *), .bytes = mbuf->pkt_len, .handle = mbuf};
        }
        if (got < want) {
            break;
        }
    }
    return taken;
}

void rsi_eal_release(struct rsi_port *port, struct rsi_port_frame *frames, uint32_t count)
{
    (void)port;
    for (uint32_t i = 0; i < count; i++) {
        rte_pktmbuf_free(frames[i].handle);
    }
}

uint32_t rsi_eal_acquire(struct rsi_port *port, struct rsi_port_frame *frames, uint32_t count)
{
    struct rsi_eal_port *eal = rsi_eal_port(port);
    struct rte_mbuf *mbufs[BURST_COUNT];
    uint32_t lent = 0;
    while (lent < count) {
        unsigned want = count - lent < BURST_COUNT ? count - lent : BURST_COUNT;
        if (rsi_unlikely(rte_pktmbuf_alloc_bulk(eal->pool, mbufs, want) != 0)) {
            mbufs[0] = rte_pktmbuf_alloc(eal->pool); /* the last ones, one by one */
            if (mbufs[0] == NULL) {
                break;
            }
            want = 1;
        }
        for (unsigned i = 0; i < want; i++) {
            frames[lent++] = (struct rsi_port_frame){
                .data = rte_pktmbuf_mtod(mbufs[i], uint8_t *), .bytes = 0, .handle = mbufs[i]};
        }
    }
    return lent;
}

/* The end of a frame's chain, in the caller's `end`, until take_tails_back. */
static void add_tail(struct rte_mbuf *mbuf, struct rte_mbuf *end,
                     const struct rsi_port_frame *frame)
{
    *end = (struct rte_mbuf){
        .buf_addr = (void *)(uintptr_t)frame->tail,
        .buf_len = (uint16_t)frame->tail_bytes,
        .data_len = (uint16_t)frame->tail_bytes,
        .pkt_len = frame->tail_bytes,
        .nb_segs = 1,
        .refcnt = 2,
    };
    mbuf->next = end;
    mbuf->nb_segs = 2;
}

/* After transmit, which took the first `took`: those the driver must be through with, the other
 * frames are whole again. */
static void take_tails_back(const struct rsi_port_frame *frames, struct rte_mbuf **mbufs,
                            const struct rte_mbuf *ends, uint16_t count, uint16_t took)
{
    for (uint16_t i = 0; i < count; i++) {
        if (frames[i].tail_bytes == 0) {
            continue;
        }
        if (i < took) {
            rsi_assert(rte_mbuf_refcnt_read(&ends[i]) == 1);
        } else {
            mbufs[i]->next = NULL;
            mbufs[i]->nb_segs = 1;
        }
    }
}

uint32_t rsi_eal_transmit(struct rsi_port *port, uint32_t queue, struct rsi_port_frame *frames,
                          uint32_t count)
{
    struct rsi_eal_port *eal = rsi_eal_port(port);
    struct rte_mbuf *mbufs[BURST_COUNT];
    struct rte_mbuf ends[BURST_COUNT];
    uint32_t sent = 0;
    while (sent < count) {
        uint16_t want = (uint16_t)(count - sent < BURST_COUNT ? count - sent : BURST_COUNT);
        bool has_tails = false;
        for (uint16_t i = 0; i < want; i++) {
            const struct rsi_port_frame *frame = &frames[sent + i];
            struct rte_mbuf *mbuf = frame->handle;
            rsi_assert(frame->bytes >= RSI_EAL_ETHERNET_BYTES);
            rsi_assert(frame->bytes <= port->frame_bytes_max);
            mbuf->data_len = (uint16_t)(frame->bytes - frame->tail_bytes);
            mbuf->pkt_len = frame->bytes;
            /* A frame that was received tells of its way in; keep only whose memory it is. */
            mbuf->ol_flags &= RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL;
            mbufs[i] = mbuf;
            if (frame->tail_bytes != 0) {
                add_tail(mbuf, &ends[i], frame);
                has_tails = true;
            }
        }
        uint16_t took = rte_eth_tx_burst(eal->port_id, (uint16_t)queue, mbufs, want);
        if (has_tails) {
            take_tails_back(&frames[sent], mbufs, ends, want, took);
        }
        sent += took;
        if (took < want) {
            break;
        }
    }
    return sent;
}
