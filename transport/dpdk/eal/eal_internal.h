/*
 * Inside the plugin: a port over DPDK's ethdev, and the steps that lead to one.
 *
 *     plan     what the device's driver must be told, and what would fail: before EAL is started
 *     start    EAL, once per process, or the one that the application started
 *     port     the device itself: probe, configure, share, close
 *     datapath frames in and out
 */
#ifndef RSI_TRANSPORT_DPDK_EAL_INTERNAL_H
#define RSI_TRANSPORT_DPDK_EAL_INTERNAL_H

#include "core/error.h"
#include "transport/dpdk/port.h"
#include "transport/dpdk_options.h"

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    RSI_EAL_NAME_BYTES = 64,
    RSI_EAL_ARGUMENTS_BYTES = 512,
    RSI_EAL_PATH_BYTES = 108, /* of a socket */
    RSI_EAL_QUEUE_COUNT_MAX = 8,
    RSI_EAL_ETHERNET_BYTES = 14,
};

enum rsi_eal_driver {
    RSI_EAL_PCI,
    RSI_EAL_AF_PACKET,
    RSI_EAL_MEMIF,
    RSI_EAL_VHOST,
    RSI_EAL_VIRTIO_USER,
    RSI_EAL_OTHER_VDEV,
};

/* What is to be done, decided from the options and the machine before EAL is touched. */
struct rsi_eal_plan {
    enum rsi_eal_driver driver;
    char name[RSI_EAL_NAME_BYTES];           /* ethdev's: "net_af_packet0", "0000:03:00.0" */
    char arguments[RSI_EAL_ARGUMENTS_BYTES]; /* of a vdev: the user's and ours */
    char interface[IFNAMSIZ];                /* af_packet */
    uint32_t mtu;                            /* 0: as the device says */
    uint32_t receive_frames; /* held by the driver itself; 0: its receive descriptors */
    uint32_t buffer_bytes;   /* the driver wants frames' memory of at least that; 0: no wish */
    uint64_t pool_bytes;     /* estimate of what the frames will take */
};

struct rte_mempool;

struct rsi_eal_port {
    struct rsi_port base;

    /* Constant once it is open. */
    uint16_t port_id;
    uint32_t mtu;
    struct rte_mempool *pool;
    struct rsi_eal_plan plan;
    bool is_made_here; /* a vdev that goes with the port */
    bool is_promiscuous;
    bool can_interrupt; /* the driver was asked to wake on frames */
    int packet_fd;      /* af_packet: the driver's socket; -1: not found */
    int claim_fd;   /* af_packet: this process has the address on that interface; -1: not claimed */
    uint64_t owner; /* ethdev's id of who uses a device */

    /* Control thread, under the lock of port.c. */
    struct rsi_eal_port *next;
    uint32_t user_count;
    char *configuration; /* what it was opened with: others who say the same share it */
};

static inline struct rsi_eal_port *rsi_eal_port(struct rsi_port *port)
{
    return (struct rsi_eal_port *)port;
}

/* ---- plan.c ---------------------------------------------------------------------------------- */

/* Options have passed rsi_dpdk_options_check. Removes a socket file that nobody serves any more. */
RSI_MUST_CHECK rsi_status_t rsi_eal_plan_make(struct rsi_eal_plan *plan,
                                              const struct rsi_dpdk_options *options,
                                              struct rsi_error *error);
/*
 * Of two processes with one address on one interface each would get what is for the other. So an
 * address is claimed, until the descriptor is closed or the process ends. -1: nothing to claim.
 */
RSI_MUST_CHECK rsi_status_t rsi_eal_plan_claim(int *fd, const struct rsi_eal_plan *plan,
                                               const struct rsi_dpdk_options *options,
                                               struct rsi_error *error);
/* Bytes of one frame's memory, and how many frames a port needs. */
uint32_t rsi_eal_frame_room(const struct rsi_eal_plan *plan, uint32_t mtu);
uint64_t rsi_eal_frame_count(uint32_t receive_count, uint32_t transmit_count, uint32_t queue_count);
/* What one frame of that room takes in a pool. */
uint64_t rsi_eal_frame_cost(uint32_t room_bytes);

/* ---- start.c --------------------------------------------------------------------------------- */

struct rsi_eal_environment {
    bool is_ours;     /* not the application's */
    bool has_pci;     /* ours: it was started with PCI */
    bool has_huge;    /* pages */
    const char *note; /* what the user should be told; NULL: nothing */
};

/* Starts EAL if nobody has. Not thread safe: under the lock of port.c. */
RSI_MUST_CHECK rsi_status_t rsi_eal_start(struct rsi_eal_environment *environment,
                                          const struct rsi_dpdk_options *options,
                                          const struct rsi_eal_plan *plan, struct rsi_error *error);

/* ---- capture.c ------------------------------------------------------------------------------- */

/* From here on EAL's log is kept, its last lines, instead of written to standard error. */
void rsi_eal_capture_log(void);
/* What the calling thread writes by stdio to standard output and error is kept too, until end. */
void rsi_eal_capture_begin(void);
void rsi_eal_capture_end(void);
/* Forgets what was kept. */
void rsi_eal_capture_clear(void);
/* Appends ": <the last lines>" to the error's text, when there are any. */
void rsi_eal_capture_explain(struct rsi_error *error);

/* ---- arrival.c ------------------------------------------------------------------------------- */

/* The socket of af_packet's driver on that interface; -1: there is none to be found. */
int rsi_eal_packet_fd(const char *interface);
int rsi_eal_arm(struct rsi_port *port);
void rsi_eal_disarm(struct rsi_port *port, int fd);

/* ---- datapath.c ------------------------------------------------------------------------------ */

uint32_t rsi_eal_receive(struct rsi_port *port, struct rsi_port_frame *frames, uint32_t count);
void rsi_eal_release(struct rsi_port *port, struct rsi_port_frame *frames, uint32_t count);
uint32_t rsi_eal_acquire(struct rsi_port *port, struct rsi_port_frame *frames, uint32_t count);
uint32_t rsi_eal_transmit(struct rsi_port *port, uint32_t queue, struct rsi_port_frame *frames,
                          uint32_t count);

#endif
