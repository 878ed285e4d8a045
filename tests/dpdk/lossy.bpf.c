/*
 * Drops datagrams of dpdk:// at random, for lossy; runs in the kernel (XDP), at the interface that
 * they come in by.
 *
 * Design notes
 * - Compiled for BPF: no library, and each access to a frame stands behind a check of its end.
 * - Only whole datagrams of dpdk:// are dropped; ARP and what the kernel sends pass.
 */
#include "tests/dpdk/lossy.h"
#include "proto/datagram.h"

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PPM              1000000u
#define IPV4_HEADER_BITS 0x45 /* no options: as transport/dpdk/packet.c sends it */

struct frame {
    struct ethhdr ethernet;
    struct iphdr ipv4;
    struct udphdr udp;
    struct rsi_datagram_header datagram;
} __attribute__((packed));

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, LOSSY_VALUE_COUNT);
    __type(key, uint32_t);
    __type(value, uint64_t);
} values SEC(".maps");

static uint64_t *value_of(uint32_t which)
{
    return bpf_map_lookup_elem(&values, &which);
}

static void count(uint32_t which, uint64_t amount)
{
    uint64_t *value = value_of(which);
    if (value != NULL) {
        __sync_fetch_and_add(value, amount);
    }
}

static bool is_datagram(const struct frame *frame)
{
    return frame->ethernet.h_proto == bpf_htons(ETH_P_IP) &&
           *(const uint8_t *)&frame->ipv4 == IPV4_HEADER_BITS &&
           frame->ipv4.protocol == IPPROTO_UDP && frame->datagram.version == RSI_DATAGRAM_VERSION;
}

/* As rsi_packet_ring_bytes. */
static uint32_t ring_bytes_of(const struct frame *frame)
{
    uint32_t head_bytes = sizeof(struct rsi_datagram_data);
    if ((frame->datagram.flags & RSI_DATAGRAM_FLAG_STATE) != 0) {
        head_bytes += RSI_DATAGRAM_STATE_BYTES;
    }
    return frame->datagram.type == RSI_DATAGRAM_DATA ? frame->datagram.bytes - head_bytes : 0;
}

SEC("xdp")
int lossy(struct xdp_md *context)
{
    const char *start = (const char *)(uintptr_t)context->data;
    const char *end = (const char *)(uintptr_t)context->data_end;
    const struct frame *frame = (const struct frame *)start;
    const uint64_t *ppm = value_of(LOSSY_PPM);
    if (start + sizeof(*frame) > end || !is_datagram(frame) || ppm == NULL ||
        bpf_get_prandom_u32() % PPM >= *ppm) {
        return XDP_PASS;
    }
    count(LOSSY_DATAGRAMS, 1);
    count(LOSSY_BYTES, (uint64_t)(end - start));
    count(LOSSY_RING_BYTES, ring_bytes_of(frame));
    return XDP_DROP;
}

/* The kernel asks for one; nothing that is used here needs another. */
char lossy_license[] SEC("license") = "Apache-2.0";
