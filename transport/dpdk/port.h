/*
 * A port: what the dpdk transport asks of whoever moves Ethernet frames. The engine knows nothing
 * else of a device, so that no header of DPDK is needed to build or to test it.
 *
 * Design notes
 *
 * Two kinds of port are there: the `net` port, a virtual Ethernet inside one process, and the `eal`
 * port, a device of DPDK, which lives in the plugin libringside_dpdk.so and is the only code that
 * includes DPDK. A third, the fault layer, stands around either of them.
 *
 * Frames belong to the port. receive and acquire lend them; they go back by transmit (those that it
 * took) or by release, whole and from any thread that called thread_begin. A port may lose frames,
 * in silence, as Ethernet does; it never invents or shortens one that it hands over as whole.
 *
 * A frame's last bytes, its tail, may be the sender's own memory, where the port reads them in
 * transmit and not after it: so that is the sender's again at once, of frames that were taken. A
 * frame that was not taken keeps its tail, and room for a copy of it.
 *
 * Nothing here waits. Calls on the data path make no system call but the device's own.
 */
#ifndef RSI_TRANSPORT_DPDK_PORT_H
#define RSI_TRANSPORT_DPDK_PORT_H

#include "core/error.h"
#include "transport/dpdk_options.h"

#include <stdbool.h>
#include <stdint.h>

/* An Ethernet frame: header included, FCS not. */
struct rsi_port_frame {
    uint8_t *data;
    uint32_t bytes; /* of all of it */
    void *handle;   /* the port's: an mbuf */
    /* To transmit only: the last tail_bytes of `bytes` lie there instead of after the first. */
    const uint8_t *tail;
    uint32_t tail_bytes; /* 0: no tail */
};

struct rsi_port_operations;

/* Constant once it is open; what a port keeps beside this follows it in memory. */
struct rsi_port {
    const struct rsi_port_operations *operations;
    char name[64]; /* for texts: "net_af_packet0 (veth1)" */
    uint8_t mac[6];
    uint32_t frame_bytes_max;      /* of a frame as above */
    uint32_t receive_frames;       /* held for us before more are lost in silence */
    uint32_t transmit_queue_count; /* at least 1 */
    uint32_t tail_bytes_min;       /* the shortest tail that it takes; UINT32_MAX: it takes none */
    bool crc32_by_device;          /* reserved: false */
    char note[192];                /* what the user should be told as a warning; empty: nothing */
};

struct rsi_port_operations {
    /* Up to `count` frames that came; they are the caller's until release or transmit. One thread
     * at a time. Returns how many. */
    uint32_t (*receive)(struct rsi_port *port, struct rsi_port_frame *frames, uint32_t count);
    /* Gives frames back that receive or acquire lent. Any registered thread. */
    void (*release)(struct rsi_port *port, struct rsi_port_frame *frames, uint32_t count);
    /* Lends empty frames with room for frame_bytes_max; `bytes` is set by the caller. Any
     * registered thread. Returns how many: fewer when the pool is empty. */
    uint32_t (*acquire)(struct rsi_port *port, struct rsi_port_frame *frames, uint32_t count);
    /* Takes the first n of `frames` and returns n; the others stay the caller's. One thread per
     * queue at a time. */
    uint32_t (*transmit)(struct rsi_port *port, uint32_t queue, struct rsi_port_frame *frames,
                         uint32_t count);
    /*
     * For who wants to sleep until a frame comes, one thread at a time. NULL: the device wakes
     * nobody; the answer -1: not now. Else the answer is the port's descriptor, readable from the
     * next frame on; frames that came before may not be told, so look once more before the wait.
     * Disarm after it.
     */
    int (*arm)(struct rsi_port *port);
    void (*disarm)(struct rsi_port *port, int fd);
    /* The calling thread will use the port, and no longer. Not for the data path. */
    void (*thread_begin)(struct rsi_port *port);
    void (*thread_end)(struct rsi_port *port);
    /* Control thread. False: the cable is out. */
    bool (*link_up)(struct rsi_port *port);
    /* Control thread; no other thread uses the port any more and all frames are back. */
    void (*close)(struct rsi_port *port);
};

/* The one symbol of the plugin, "rsi_eal_port_open". Control thread; may take a second. Sets `port`
 * only on success. Errors: NO_DEVICE, PERMISSION, INVALID, SYSTEM. */
typedef rsi_status_t rsi_eal_port_open_fn(struct rsi_port **port,
                                          const struct rsi_dpdk_options *options,
                                          struct rsi_error *error);

#endif
