/*
 * A station: a port and an address, shared by all domains of this process that are configured
 * alike. Receives from the port, answers ARP, and hands each datagram to the queue of whoever it is
 * for.
 *
 * Design notes
 * - One thread at a time receives: whichever poller, control thread or watch thread gets the try
 *   lock. It hands frames to the queues of the others, which are bounded: a frame that finds its
 *   queue full is lost, as on the wire, and repaired like that.
 * - A connection's name is chosen by its receiver: index of a slot and the slot's generation. The
 *   slot says whose queue it is; so nothing is searched, and a name of a link that is gone matches
 *   nothing.
 * - All tables are written by control threads under the same lock, which they wait for.
 * - Where the device can wake, a poller that sleeps waits for frames itself: one at a time, the
 *   guard (sleep.c). For all other cases there is a watch thread: it looks at the port when no
 *   poller does, and hands out what came.
 */
#ifndef RSI_TRANSPORT_DPDK_STATION_H
#define RSI_TRANSPORT_DPDK_STATION_H

#include "core/mailbox.h"
#include "core/waker.h"
#include "transport/dpdk/lock.h"
#include "transport/dpdk/packet.h"
#include "transport/dpdk_options.h"

#include <pthread.h>

#define RSI_STATION_SLOT_COUNT     4096u
#define RSI_STATION_INDEX_MASK     ((1u << RSI_DATAGRAM_INDEX_BITS) - 1)
#define RSI_STATION_LISTENER_COUNT 16u
#define RSI_STATION_NEIGHBOUR_MAX  256u
#define RSI_STATION_TRANSMIT_MAX   16u
#define RSI_STATION_QUEUE_FRAMES   2048u
#define RSI_STATION_BURST          32u
#define RSI_STATION_WATCH_NS       50000u
#define RSI_STATION_IDLE_NS        UINT64_C(1000000)
/* Answers to datagrams for connections that are not there, for each look at the port. */
#define RSI_STATION_RESETS_PER_PASS 8u

/* Frames for one thread: of a poller, or of a domain's control thread. */
struct rsi_station_queue {
    struct rsi_mailbox frames;      /* struct rsi_port_frame: whoever receives -> the owner */
    struct rsi_waker waker;         /* of the owner */
    _Atomic uint64_t look_count;    /* of the owner at the port; 0: it is no poller */
    _Atomic bool may_guard;         /* it sleeps, and could not be the guard: another one was */
    uint64_t seen_look_count;       /* of the watch thread, with next */
    uint64_t seen_ns;               /* when that changed */
    struct rsi_station_queue *next; /* under the receive lock */
    bool has_news;                  /* as next */
};

struct rsi_station_slot {
    uint32_t connection;             /* as in the last frame of it; its generation survives */
    struct rsi_station_queue *queue; /* NULL: free */
};

struct rsi_station_neighbour {
    uint32_t address; /* 0: free */
    uint8_t mac[RSI_MAC_BYTES];
};

struct rsi_station_counts {
    _Atomic uint64_t strangers;      /* frames that are not for this station, or not whole */
    _Atomic uint64_t queue_overflow; /* lost because their queue was full */
    _Atomic uint64_t resets_sent;
    _Atomic uint64_t transmit_full; /* frames given up because the port took none */
};

struct rsi_station {
    /* Constant. */
    struct rsi_port *port;
    uint32_t address;
    uint32_t prefix_mask;
    uint32_t gateway; /* 0: none */
    uint32_t mtu;
    uint64_t idle_ns; /* longest interval of the watch thread */
    char port_text[256];

    /* Of the process, under the lock of station.c. */
    struct rsi_station *next;
    uint32_t user_count;
    bool is_watched; /* has a watch thread */
    pthread_t watch_thread;
    struct rsi_waker watch_waker; /* ends the watch thread's sleep */
    _Atomic bool must_stop;
    _Atomic bool watch_sleeps; /* long: who goes to sleep must tell it */
    /* Who waits for the port's descriptor: a poller's queue, or the station itself for the watch
     * thread; NULL: nobody. Whoever has it may arm the port. */
    _Atomic(const void *) guard;

    RSI_SEPARATOR(before_receiver);

    /* Under the receive lock. */
    struct rsi_dpdk_lock receive_lock;
    struct rsi_station_queue *queues;
    struct rsi_station_slot *slots;
    uint32_t next_slot;
    struct {
        uint16_t port; /* 0: free */
        struct rsi_station_queue *queue;
    } listeners[RSI_STATION_LISTENER_COUNT];
    struct rsi_station_neighbour neighbours[RSI_STATION_NEIGHBOUR_MAX];
    uint32_t resets_left;
    struct rsi_station_counts counts;

    RSI_SEPARATOR(before_transmitters);
    _Atomic uint32_t link_count; /* among whom the port's receive ring is shared out */
    struct rsi_dpdk_lock transmit_locks[RSI_STATION_TRANSMIT_MAX];
};

/* Control thread. Opens the port, or shares a station that is open. Errors: as rsi_dpdk_options
 * parsers and ports. */
rsi_status_t rsi_station_acquire(struct rsi_station **station,
                                 const struct rsi_dpdk_options *options, struct rsi_error *error);
void rsi_station_release(struct rsi_station *station);

/* Control thread: a queue, from when it gets frames until it gets no more. */
rsi_status_t rsi_station_queue_init(struct rsi_station *station, struct rsi_station_queue *queue,
                                    struct rsi_error *error);
void rsi_station_queue_fini(struct rsi_station *station, struct rsi_station_queue *queue);

/* Control thread. Port 0: chooses one, and says which. ADDRESS: it is taken. */
rsi_status_t rsi_station_listen(struct rsi_station *station, uint16_t *port,
                                struct rsi_station_queue *queue, struct rsi_error *error);
void rsi_station_unlisten(struct rsi_station *station, uint16_t port);

/* Control thread: a name for a connection, whose frames go to `queue`; 0: none is left. */
uint32_t rsi_station_connect(struct rsi_station *station, struct rsi_station_queue *queue);
/* Its frames go to another queue from now on; NULL: to nobody. */
void rsi_station_redirect(struct rsi_station *station, uint32_t connection,
                          struct rsi_station_queue *queue);
void rsi_station_disconnect(struct rsi_station *station, uint32_t connection);

/* Control thread: asks by ARP where frames to `address` go; the answer counts from then on. */
void rsi_station_ask(struct rsi_station *station, uint32_t address);
/* Control thread: where frames to `address` go. False: not known yet. */
bool rsi_station_resolve(struct rsi_station *station, uint32_t address, uint8_t mac[RSI_MAC_BYTES]);

/* Any thread that began: looks at the port, unless somebody does already. `own` is not woken.
 * Returns how many frames came. */
uint32_t rsi_station_receive(struct rsi_station *station, const struct rsi_station_queue *own);
/* The same, but waits for who looks already: the last look before a sleep. */
uint32_t rsi_station_look(struct rsi_station *station, const struct rsi_station_queue *own);
/* Takes the oldest frame of a queue; false: there is none. Its owner. */
bool rsi_station_queue_take(struct rsi_station_queue *queue, struct rsi_port_frame *frame);
/* Transmits; what the port does not take is the caller's still. Returns how many it took. */
uint32_t rsi_station_transmit(struct rsi_station *station, uint32_t queue_index,
                              struct rsi_port_frame *frames, uint32_t count);
/*
 * One datagram of the control plane, from this station's `from_port`, to `to`, with this body. Lost
 * when there is no frame left or the port is full, as anything may be.
 */
void rsi_station_send(struct rsi_station *station, uint16_t from_port,
                      const struct rsi_packet_end *to, struct rsi_datagram_header *header,
                      const void *body);

/* The slot that a connection's name says; a stranger may say RSI_STATION_SLOT_COUNT and more. */
static inline uint32_t rsi_station_index(uint32_t connection)
{
    return connection & RSI_STATION_INDEX_MASK;
}

/* Whether an address is beyond this station's wire. */
static inline bool rsi_station_is_remote(const struct rsi_station *station, uint32_t address)
{
    return ((address ^ station->address) & station->prefix_mask) != 0;
}

/* watch.c */
rsi_status_t rsi_station_watch_start(struct rsi_station *station, struct rsi_error *error);
void rsi_station_watch_stop(struct rsi_station *station); /* idempotent */
/* For who goes to sleep, after rsi_waker_prepare(). True: `who` is the guard until it gives that
 * back; it then waits for the port's descriptor. */
bool rsi_station_guard_take(struct rsi_station *station, const void *who);
void rsi_station_guard_give(struct rsi_station *station, const void *who);
/* The owner goes to sleep without being the guard: somebody must look at the port for it. */
void rsi_station_sleep(struct rsi_station *station, struct rsi_station_queue *queue);

/* ports.c: opens what `options->port` names. */
rsi_status_t rsi_dpdk_port_open(struct rsi_port **port, const struct rsi_dpdk_options *options,
                                struct rsi_error *error);

#endif
