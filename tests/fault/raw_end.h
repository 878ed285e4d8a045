/*
 * A host of its own on the bridge that joins the namespaces of tests/dpdk/netns, by a packet socket
 * and no more: for peers that write their frames by hand. Needs the right to make interfaces there.
 */
#ifndef RSI_TESTS_FAULT_RAW_END_H
#define RSI_TESTS_FAULT_RAW_END_H

#include "tests/system/harness.h"

#include "transport/dpdk/packet.h"

enum { RAW_FRAME_BYTES_MAX = 1514 };

struct raw_end {
    int fd;
    struct rsi_packet_end own; /* address and MAC that nobody else has while it is in use */
    uint64_t sent_bytes;       /* of frames */
};

/* A frame, and its memory. */
struct raw_frame {
    struct rsi_port_frame frame;
    uint8_t data[RAW_FRAME_BYTES_MAX];
};

/* At most 120 are in use at a time. */
void raw_end_open(struct raw_end *end);

/* A frame goes out as it is; what the wire does not take is lost, as on any wire. */
void raw_end_send(struct raw_end *end, const struct raw_frame *frame);
/* A datagram from any end to any other. */
void raw_end_send_datagram(struct raw_end *end, const struct rsi_packet_end *from,
                           const struct rsi_packet_end *to, struct rsi_datagram_header *header,
                           const void *body);
/* `target_mac` NULL: to all. */
void raw_end_send_arp(struct raw_end *end, const struct rsi_packet_arp *arp,
                      const uint8_t *target_mac);
/*
 * The next frame to this end's MAC, within `wait_ms`; questions for its address are answered here.
 * False: there was none.
 */
bool raw_end_receive(struct raw_end *end, struct raw_frame *frame, int wait_ms);
/* How many frames have come to its MAC since the last call, also those that found no room. */
uint64_t raw_end_count_arrived(struct raw_end *end);
/* Asks for the MAC of an address until somebody answers. */
void raw_end_resolve(struct raw_end *end, uint32_t address, uint8_t mac[RSI_MAC_BYTES]);

/* The host's bytes of 10.77.0.number. */
uint32_t raw_address(unsigned number);

#endif
