/*
 * Design notes
 * - All ends are on one veth pair from the bridge into its own namespace. The kernel there has none
 *   of their addresses, so it says nothing in their names.
 * - Each has a MAC of its own and a filter for it, so that many can be in use at a time. Numbers
 *   are given out in turn: what comes late for one that is not used any more finds another only
 * much later. Sockets stay open for the next ones: to bind and to close one takes the kernel 10 ms.
 */
#include "tests/fault/raw_end.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define INTERFACE "hostile1"
#define NETWORK   0x0a4d0000u /* 10.77.0.0 */

enum {
    /* Beyond those of tests/dpdk/netns and tests/system. */
    NUMBER_MIN = 130,
    NUMBER_COUNT = 120,
    ASK_MS = 20,
};

uint32_t raw_address(unsigned number)
{
    return NETWORK + number;
}

/* ---- the wire ----------------------------------------------------------------------------------
 */

static void make_wire(void)
{
    const char *command = "ip -n \"$NETNS_BRIDGE\" link del hostile0 2>/dev/null; "
                          "ip -n \"$NETNS_BRIDGE\" link add hostile0 type veth peer name " INTERFACE
                          " && ip -n \"$NETNS_BRIDGE\" link set hostile0 master bridge0 up && "
                          "ip -n \"$NETNS_BRIDGE\" link set " INTERFACE " up";
    check(getenv("NETNS_BRIDGE") != NULL, "there is no bridge: see tests/dpdk/run");
    check(system(command) == 0, "failed: %s", command);
}

/* The bridge's namespace; this process stays where it is but for a moment. */
static int open_in_bridge(void)
{
    static int bridge_fd = -1;
    static int home_fd = -1;
    if (bridge_fd < 0) {
        char path[PATH_BYTES];
        make_wire();
        snprintf(path, sizeof(path), "/run/netns/%.200s", getenv("NETNS_BRIDGE"));
        bridge_fd = open(path, O_RDONLY | O_CLOEXEC);
        home_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        check(bridge_fd >= 0 && home_fd >= 0, "%s: %s", path, strerror(errno));
    }
    check(setns(bridge_fd, CLONE_NEWNET) == 0, "setns: %s", strerror(errno));
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    const struct sockaddr_ll interface = {.sll_family = AF_PACKET,
                                          .sll_protocol = htons(ETH_P_ALL),
                                          .sll_ifindex = (int)if_nametoindex(INTERFACE)};
    check(fd >= 0, "socket: %s", strerror(errno));
    check(setns(home_fd, CLONE_NEWNET) == 0, "setns: %s", strerror(errno));
    check(bind(fd, (const struct sockaddr *)&interface, sizeof(interface)) == 0, "bind: %s",
          strerror(errno));
    return fd;
}

/* Only what is sent to this MAC, or to all. */
static void set_filter(int fd, const uint8_t mac[RSI_MAC_BYTES])
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xffffffff, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rsi_packet_get_32(mac), 0, 3),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rsi_packet_get_16(mac + 4), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, RAW_FRAME_BYTES_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    const struct sock_fprog program = {.len = rsi_array_count(code), .filter = code};
    check(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0,
          "a filter for frames: %s", strerror(errno));
}

/* What came for the one that had this number before. */
static void drain(int fd)
{
    uint8_t byte;
    while (recv(fd, &byte, sizeof(byte), MSG_DONTWAIT) >= 0) {
    }
}

void raw_end_open(struct raw_end *end)
{
    static int fds[NUMBER_COUNT];
    static unsigned next;
    unsigned index = next++ % NUMBER_COUNT;
    unsigned number = NUMBER_MIN + index;
    const uint8_t mac[RSI_MAC_BYTES] = {0x02, 0, 0x0a, 0x4d, 1, (uint8_t)number};
    memset(end, 0, sizeof(*end));
    end->own.address = raw_address(number);
    end->own.port = (uint16_t)(50000 + number);
    memcpy(end->own.mac, mac, sizeof(mac));
    if (fds[index] == 0) {
        fds[index] = open_in_bridge();
        set_filter(fds[index], mac);
    }
    end->fd = fds[index];
    drain(end->fd);
}

/* ---- frames ------------------------------------------------------------------------------------
 */

void raw_end_send(struct raw_end *end, const struct raw_frame *frame)
{
    ssize_t sent_bytes = send(end->fd, frame->data, frame->frame.bytes, 0);
    check(sent_bytes >= 0 || errno == ENOBUFS || errno == EMSGSIZE, "a frame of %u bytes: %s",
          frame->frame.bytes, strerror(errno));
    end->sent_bytes += frame->frame.bytes;
}

void raw_end_send_datagram(struct raw_end *end, const struct rsi_packet_end *from,
                           const struct rsi_packet_end *to, struct rsi_datagram_header *header,
                           const void *body)
{
    struct raw_frame frame;
    frame.frame = (struct rsi_port_frame){.data = frame.data};
    if (header->bytes != 0) {
        memcpy(rsi_packet_body(&frame.frame), body, header->bytes);
    }
    rsi_packet_write(&frame.frame, from, to, header);
    raw_end_send(end, &frame);
}

void raw_end_send_arp(struct raw_end *end, const struct rsi_packet_arp *arp,
                      const uint8_t *target_mac)
{
    struct raw_frame frame;
    frame.frame = (struct rsi_port_frame){.data = frame.data};
    rsi_packet_write_arp(&frame.frame, arp, target_mac);
    raw_end_send(end, &frame);
}

static void answer_arp(struct raw_end *end, const struct raw_frame *frame)
{
    struct rsi_packet_arp asked;
    if (rsi_packet_parse_arp(&asked, &frame->frame) && asked.is_request &&
        asked.target_address == end->own.address) {
        struct rsi_packet_arp answer = {.sender_address = end->own.address,
                                        .target_address = asked.sender_address};
        memcpy(answer.sender_mac, end->own.mac, RSI_MAC_BYTES);
        raw_end_send_arp(end, &answer, asked.sender_mac);
    }
}

bool raw_end_receive(struct raw_end *end, struct raw_frame *frame, int wait_ms)
{
    struct pollfd entry = {.fd = end->fd, .events = POLLIN};
    if (poll(&entry, 1, wait_ms) != 1) {
        return false;
    }
    ssize_t bytes = recv(end->fd, frame->data, sizeof(frame->data), MSG_DONTWAIT);
    if (bytes < 0) {
        check(errno == EAGAIN, "receiving frames: %s", strerror(errno));
        return false;
    }
    frame->frame = (struct rsi_port_frame){.data = frame->data, .bytes = (uint32_t)bytes};
    answer_arp(end, frame);
    return true;
}

uint64_t raw_end_count_arrived(struct raw_end *end)
{
    struct tpacket_stats counts = {0};
    socklen_t bytes = sizeof(counts);
    check(getsockopt(end->fd, SOL_PACKET, PACKET_STATISTICS, &counts, &bytes) == 0,
          "counting frames: %s", strerror(errno));
    return counts.tp_packets;
}

void raw_end_resolve(struct raw_end *end, uint32_t address, uint8_t mac[RSI_MAC_BYTES])
{
    uint64_t until_ns = now_ns() + hang_ns();
    struct rsi_packet_arp question = {
        .is_request = true, .sender_address = end->own.address, .target_address = address};
    memcpy(question.sender_mac, end->own.mac, RSI_MAC_BYTES);
    struct rsi_packet_arp answer;
    struct raw_frame frame;
    do {
        check(now_ns() < until_ns, "nobody has the address %08x", address);
        raw_end_send_arp(end, &question, NULL);
        while (raw_end_receive(end, &frame, ASK_MS)) {
            if (rsi_packet_parse_arp(&answer, &frame.frame) && !answer.is_request &&
                answer.sender_address == address) {
                memcpy(mac, answer.sender_mac, RSI_MAC_BYTES);
                return;
            }
        }
    } while (true);
}
