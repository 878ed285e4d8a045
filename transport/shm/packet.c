/*
 * Design notes: see packet.h. SOCK_SEQPACKET keeps packets apart, tells when one was longer than
 * the buffer, and gives end of file when the peer ends: no framing, no resynchronisation.
 */
#include "transport/shm/packet.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Room for more descriptors than are allowed: what comes beyond is seen here and closed. */
enum { CONTROL_FDS_MAX = 8 };

union control_buffer {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))];
};

static rsi_status_t send_message(int socket_fd, const struct msghdr *message)
{
    for (;;) {
        if (sendmsg(socket_fd, message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
            return RSI_OK;
        }
        switch (errno) {
        case EINTR:
            continue;
        case EAGAIN:
            return RSI_WOULD_BLOCK;
        case EPIPE:
        case ECONNRESET:
        case ENOTCONN:
            return RSI_E_LINK_LOST;
        default:
            return RSI_E_SYSTEM;
        }
    }
}

rsi_status_t rsi_shm_packet_send(int socket_fd, enum rsi_record_kind kind, uint64_t position,
                                 struct rsi_shm_body body)
{
    struct rsi_record_header header = {
        .kind = (uint8_t)kind, .bytes = body.bytes, .position = position};
    struct iovec parts[2] = {
        {.iov_base = &header, .iov_len = sizeof(header)},
        {.iov_base = (void *)(uintptr_t)body.data, .iov_len = body.bytes},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    return send_message(socket_fd, &message);
}

rsi_status_t rsi_shm_packet_send_fds(int socket_fd, enum rsi_record_kind kind,
                                     struct rsi_shm_body body, const int *fds, uint32_t fd_count)
{
    rsi_assert(fd_count <= RSI_SHM_PACKET_FDS_MAX);
    struct rsi_record_header header = {.kind = (uint8_t)kind, .bytes = body.bytes};
    struct iovec parts[2] = {
        {.iov_base = &header, .iov_len = sizeof(header)},
        {.iov_base = (void *)(uintptr_t)body.data, .iov_len = body.bytes},
    };
    union control_buffer control;
    memset(&control, 0, sizeof(control));
    struct msghdr message = {
        .msg_iov = parts,
        .msg_iovlen = 2,
        .msg_control = control.bytes,
        .msg_controllen = CMSG_SPACE(fd_count * sizeof(int)),
    };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
    return send_message(socket_fd, &message);
}

void rsi_shm_packet_drop_fds(struct rsi_shm_packet *packet)
{
    for (uint32_t i = 0; i < packet->fd_count; i++) {
        close(packet->fds[i]);
    }
    packet->fd_count = 0;
}

/* Takes the descriptors out of a message; false when there are more than a packet can carry. */
static bool take_fds(struct rsi_shm_packet *packet, struct msghdr *message)
{
    bool fits = true;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
            if (packet->fd_count < RSI_SHM_PACKET_FDS_MAX) {
                packet->fds[packet->fd_count++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    return fits;
}

/* NULL, or what is wrong with the packet by itself. */
static const char *packet_fault(const struct rsi_shm_packet *packet, size_t received_bytes)
{
    const struct rsi_record_header *header = &packet->header;
    if (received_bytes < sizeof(*header)) {
        return "a packet shorter than its header";
    }
    if (header->bytes != received_bytes - sizeof(*header)) {
        return "a packet whose length is not what its header says";
    }
    if (packet->fd_count > 0 && header->kind != RSI_RECORD_ATTACH) {
        return "descriptors that nobody asked for";
    }
    bool fits;
    switch (header->kind) {
    case RSI_RECORD_GREETING:
        fits = header->bytes == sizeof(struct rsi_greeting);
        break;
    case RSI_RECORD_ATTACH:
        fits = header->bytes == sizeof(struct rsi_attach);
        break;
    case RSI_RECORD_POSITIONS:
    case RSI_RECORD_WAKE:
        fits = header->bytes == sizeof(struct rsi_positions);
        break;
    case RSI_RECORD_CONTROL:
        fits = header->bytes >= 1 && header->bytes <= RSI_CONTROL_BYTES_MAX;
        break;
    case RSI_RECORD_CLOSE:
        fits = header->bytes <= RSI_SHM_CLOSE_TEXT_BYTES_MAX;
        break;
    default:
        return "a packet of a kind that shm does not have";
    }
    return fits ? NULL : "a packet with a body of the wrong size";
}

/* The packet's length, 0 at the end, or -errno. */
static ssize_t receive_message(int socket_fd, struct msghdr *message)
{
    for (;;) {
        ssize_t received_bytes = recvmsg(socket_fd, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (received_bytes >= 0) {
            return received_bytes;
        }
        /* ECONNRESET: the peer ended with packets of ours unread. It is told once, before the
         * packets that still wait here. */
        if (errno != EINTR && errno != ECONNRESET) {
            return -errno;
        }
    }
}

rsi_status_t rsi_shm_packet_receive(int socket_fd, bool allow_fds, struct rsi_shm_packet *packet,
                                    const char **why)
{
    struct iovec parts[2] = {
        {.iov_base = &packet->header, .iov_len = sizeof(packet->header)},
        {.iov_base = &packet->body, .iov_len = sizeof(packet->body)},
    };
    union control_buffer control;
    struct msghdr message = {
        .msg_iov = parts,
        .msg_iovlen = 2,
        .msg_control = allow_fds ? control.bytes : NULL,
        .msg_controllen = allow_fds ? sizeof(control.bytes) : 0,
    };
    packet->fd_count = 0;
    ssize_t received_bytes = receive_message(socket_fd, &message);
    if (received_bytes < 0) {
        return received_bytes == -EAGAIN ? RSI_WOULD_BLOCK : RSI_E_LINK_LOST;
    }
    bool fds_fit = allow_fds ? take_fds(packet, &message) : true;
    if (received_bytes == 0) { /* the end, or an empty packet, which is as good as the end */
        rsi_shm_packet_drop_fds(packet);
        return RSI_E_LINK_LOST;
    }
    if (message.msg_flags & MSG_TRUNC) {
        *why = "a packet longer than any that shm has";
    } else if (!fds_fit || (message.msg_flags & MSG_CTRUNC)) {
        *why = allow_fds ? "more descriptors than a link has" : "descriptors that nobody asked for";
    } else {
        *why = packet_fault(packet, (size_t)received_bytes);
    }
    if (*why == NULL) {
        return RSI_OK;
    }
    rsi_shm_packet_drop_fds(packet);
    return RSI_E_PROTOCOL;
}

void rsi_shm_packet_close_text(const struct rsi_shm_packet *packet, char *text, size_t text_bytes)
{
    size_t length = packet->header.bytes;
    if (length > text_bytes - 1) {
        length = text_bytes - 1;
    }
    for (size_t i = 0; i < length; i++) {
        char letter = packet->body.text[i];
        text[i] = letter >= ' ' && letter <= '~' ? letter : '?';
    }
    text[length] = '\0';
}
