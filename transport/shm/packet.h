/*
 * Packets on the unix socket of a link: a record header and a body, one per SOCK_SEQPACKET message,
 * some with descriptors.
 *
 * Design notes
 * - Nothing here waits: every call is MSG_DONTWAIT, and none raises SIGPIPE.
 * - A received packet was checked as far as its own bytes tell: the header is whole, the length is
 *   that of the packet, the kind has a body of its size, and descriptors came only with the kind
 *   and in the number that the caller allows. Whatever else arrives is closed here, so that no peer
 *   can leave descriptors behind in this process.
 */
#ifndef RSI_TRANSPORT_SHM_PACKET_H
#define RSI_TRANSPORT_SHM_PACKET_H

#include "core/assert.h"
#include "core/error.h"
#include "proto/layout.h"

#include <stdint.h>

enum {
    RSI_SHM_PACKET_FDS_MAX = 3, /* words, ring to the accepter, ring to the dialler */
    RSI_SHM_CLOSE_TEXT_BYTES_MAX = 400,
};

struct rsi_shm_packet {
    struct rsi_record_header header;
    union {
        struct rsi_greeting greeting;
        struct rsi_attach attach;
        struct rsi_positions positions;
        uint8_t control[RSI_CONTROL_BYTES_MAX];
        char text[RSI_CONTROL_BYTES_MAX];
    } body;
    int fds[RSI_SHM_PACKET_FDS_MAX]; /* the caller's from OK on */
    uint32_t fd_count;
};

struct rsi_shm_body {
    const void *data;
    uint32_t bytes;
};

/*
 * Sends one packet. Any thread; a packet is never mixed with another thread's. OK; WOULD_BLOCK: the
 * socket holds as many unread packets as it may; LINK_LOST: nobody will read it; SYSTEM: the kernel
 * has no memory for it now. No descriptor is taken.
 */
RSI_MUST_CHECK rsi_status_t rsi_shm_packet_send(int socket_fd, enum rsi_record_kind kind,
                                                uint64_t position, struct rsi_shm_body body);
RSI_MUST_CHECK rsi_status_t rsi_shm_packet_send_fds(int socket_fd, enum rsi_record_kind kind,
                                                    struct rsi_shm_body body, const int *fds,
                                                    uint32_t fd_count);

/*
 * Receives one packet. `allow_fds`: descriptors may come with an ATTACH; else the kernel drops them
 * before they get numbers. OK; WOULD_BLOCK: none waits; LINK_LOST: the peer's end is closed and all
 * it sent was received; PROTOCOL: `why` is a constant text about the packet.
 */
RSI_MUST_CHECK rsi_status_t rsi_shm_packet_receive(int socket_fd, bool allow_fds,
                                                   struct rsi_shm_packet *packet, const char **why);

/* Closes the descriptors of a packet that nobody wants. */
void rsi_shm_packet_drop_fds(struct rsi_shm_packet *packet);

/* The text of a CLOSE, with everything that is not printable replaced: a peer wrote it. */
void rsi_shm_packet_close_text(const struct rsi_shm_packet *packet, char *text, size_t text_bytes);

#endif
