/*
 * The socket file, and who may connect to it.
 *
 * Design notes
 * - Anybody may open the socket (mode 0666): what counts is the user id that the kernel vouches for
 *   (SO_PEERCRED). A file mode could only say one group, and would turn a peer away without a
 * reason.
 * - A file left by a broker that died is told from a live one by connecting to it: refused means
 *   that nobody listens. Between that look and our own listen() another process could do the same,
 *   and one of the two would end up listening on a file that the other removed; so the directory is
 *   locked (flock) meanwhile. It is only tried: no start waits for another.
 * - At the end the file is removed only if it is still the one that was made here.
 * - A pid may be reused, a pidfd is not; it is taken while the peer is there to be asked for it.
 */
#include "transport/shm/shm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BACKLOG = 128 };

rsi_static_assert(sizeof(((struct sockaddr_un *)NULL)->sun_path) >= RSI_PATH_BYTES_MAX + 1);

void rsi_shm_address_set(struct sockaddr_un *address, const char *path)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    rsi_assert(strlen(path) < sizeof(address->sun_path));
    memcpy(address->sun_path, path, strlen(path));
}

/* ---- the file ------------------------------------------------------------------------------- */

/* Opens the directory of `path`, making its last part if it is not there. */
static rsi_status_t directory_open(const char *path, int *directory_fd, struct rsi_error *error)
{
    char copy[RSI_PATH_BYTES_MAX + 1];
    snprintf(copy, sizeof(copy), "%s", path);
    const char *directory = dirname(copy);
    if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
        return rsi_fail_errno(error, errno == EACCES ? RSI_E_PERMISSION : RSI_E_ADDRESS, errno,
                              "cannot make the directory %s for the socket %s; make it, or listen "
                              "somewhere else",
                              directory, path);
    }
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return rsi_fail_errno(error, errno == EACCES ? RSI_E_PERMISSION : RSI_E_ADDRESS, errno,
                              "cannot open the directory %s of the socket %s", directory, path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        rsi_status_t status =
            rsi_fail(error, RSI_E_ADDRESS,
                     "another process is just making a socket in %s; try again", directory);
        close(fd);
        return status;
    }
    *directory_fd = fd;
    return RSI_OK;
}

/* Whether somebody listens at the address: 0, or the errno that says why not. */
static int probe(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    int failed = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? 0 : errno;
    close(fd);
    return failed;
}

/* Makes way for a new socket: removes a dead one's file, and nothing else. */
static rsi_status_t make_way(const struct sockaddr_un *address, struct rsi_error *error)
{
    struct stat info;
    if (lstat(address->sun_path, &info) != 0) {
        return RSI_OK; /* not there; if it cannot be reached, bind says why */
    }
    if (!S_ISSOCK(info.st_mode)) {
        return rsi_fail(error, RSI_E_ADDRESS,
                        "%s exists and is no socket; remove it, or listen somewhere else",
                        address->sun_path);
    }
    int failed = probe(address);
    if (failed == ENOENT) {
        return RSI_OK;
    }
    if (failed != ECONNREFUSED) {
        return rsi_fail(error, RSI_E_ADDRESS,
                        "%s is in use by a running process; stop it, or listen somewhere else",
                        address->sun_path);
    }
    if (unlink(address->sun_path) != 0 && errno != ENOENT) {
        return rsi_fail_errno(
            error, errno == EACCES || errno == EPERM ? RSI_E_PERMISSION : RSI_E_ADDRESS, errno,
            "cannot remove the socket %s that a dead broker left", address->sun_path);
    }
    return RSI_OK;
}

static rsi_status_t bind_status(int errno_value)
{
    switch (errno_value) {
    case EACCES:
    case EPERM:
    case EROFS:
        return RSI_E_PERMISSION;
    default:
        return RSI_E_ADDRESS;
    }
}

/* Binds and listens; remembers which file it is. The directory is locked. */
static rsi_status_t file_make(struct rsi_shm_listener *listener, struct rsi_error *error)
{
    const char *path = listener->address.sun_path;
    rsi_status_t status = make_way(&listener->address, error);
    if (status != RSI_OK) {
        return status;
    }
    const struct sockaddr *address = (const struct sockaddr *)&listener->address;
    if (bind(listener->socket_fd, address, sizeof(listener->address)) != 0) {
        return rsi_fail_errno(error, bind_status(errno), errno, "cannot make the socket %s", path);
    }
    struct stat info;
    if (chmod(path, 0666) != 0 || lstat(path, &info) != 0 ||
        listen(listener->socket_fd, BACKLOG) != 0) {
        status = rsi_fail_errno(error, RSI_E_SYSTEM, errno, "cannot listen at %s", path);
        unlink(path);
        return status;
    }
    listener->file_device = info.st_dev;
    listener->file_inode = info.st_ino;
    return RSI_OK;
}

static void file_remove(const struct rsi_shm_listener *listener)
{
    struct stat info;
    if (lstat(listener->address.sun_path, &info) == 0 && info.st_dev == listener->file_device &&
        info.st_ino == listener->file_inode) {
        unlink(listener->address.sun_path);
    }
}

/* ---- the listener --------------------------------------------------------------------------- */

static int reserve_open(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static rsi_status_t listener_open(struct rsi_shm_listener *listener, struct rsi_error *error)
{
    rsi_status_t status = RSI_OK;
    listener->reserve_fd = reserve_open();
    listener->socket_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->socket_fd < 0 || listener->reserve_fd < 0) {
        status = rsi_fail_errno(error, rsi_status_from_errno(errno), errno, "cannot make a socket");
        goto close_socket;
    }
    int directory_fd = -1;
    status = directory_open(listener->address.sun_path, &directory_fd, error);
    if (status != RSI_OK) {
        goto close_socket;
    }
    status = file_make(listener, error);
    close(directory_fd);
    if (status != RSI_OK) {
        goto close_socket;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = listener};
    struct rsi_shm_domain *domain = rsi_shm_domain(listener->base.domain);
    if (epoll_ctl(domain->epoll_fd, EPOLL_CTL_ADD, listener->socket_fd, &event) != 0) {
        status = rsi_fail_errno(error, RSI_E_SYSTEM, errno, "cannot watch the socket %s",
                                listener->address.sun_path);
        goto remove_file;
    }
    return RSI_OK;

remove_file:
    file_remove(listener);
close_socket:
    if (listener->socket_fd >= 0) {
        close(listener->socket_fd);
    }
    if (listener->reserve_fd >= 0) {
        close(listener->reserve_fd);
    }
    return status;
}

rsi_status_t rsi_shm_listener_create(struct rsi_listener **listener, struct rsi_domain *domain,
                                     const struct rsi_url *url, struct rsi_error *error)
{
    if (url->path[0] != '/') {
        return rsi_fail(error, RSI_E_INVALID,
                        "shm listens at the absolute path of a socket, such as "
                        "shm:///run/ringside/broker.sock; '%s' is none",
                        url->path);
    }
    struct rsi_shm_listener *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a listener at %s", url->path);
    }
    made->base.transport = domain->transport;
    made->base.domain = domain;
    rsi_shm_address_set(&made->address, url->path);
    snprintf(made->url, sizeof(made->url), "shm://%s", url->path);
    rsi_status_t status = listener_open(made, error);
    if (status != RSI_OK) {
        free(made);
        return status;
    }
    *listener = &made->base;
    return RSI_OK;
}

void rsi_shm_listener_destroy(struct rsi_listener *base)
{
    if (base == NULL) {
        return;
    }
    struct rsi_shm_listener *listener = rsi_shm_listener(base);
    file_remove(listener);
    close(listener->socket_fd); /* resets who still waits, and leaves the epoll set */
    if (listener->reserve_fd >= 0) {
        close(listener->reserve_fd);
    }
    free(listener);
}

const char *rsi_shm_listener_url(const struct rsi_listener *base)
{
    const struct rsi_shm_listener *listener =
        rsi_container_of(base, const struct rsi_shm_listener, base);
    return listener->url;
}

/* ---- who connects --------------------------------------------------------------------------- */

void rsi_shm_turn_away(int socket_fd, const char *text)
{
    size_t length = strlen(text);
    struct rsi_shm_body body = {.data = text,
                                .bytes = length < RSI_SHM_CLOSE_TEXT_BYTES_MAX
                                             ? (uint32_t)length
                                             : RSI_SHM_CLOSE_TEXT_BYTES_MAX};
    if (rsi_shm_packet_send(socket_fd, RSI_RECORD_CLOSE, 0, body) == RSI_OK) {
        (void)shutdown(socket_fd, SHUT_WR);
    }
    close(socket_fd);
}

void rsi_shm_peer_describe(int socket_fd, char *text, size_t text_bytes)
{
    struct ucred peer;
    socklen_t peer_bytes = sizeof(peer);
    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) != 0) {
        snprintf(text, text_bytes, "unknown process");
        return;
    }
    snprintf(text, text_bytes, "pid %d uid %u", (int)peer.pid, (unsigned)peer.uid);
}

int rsi_shm_peer_pidfd(int socket_fd)
{
    struct ucred peer;
    socklen_t peer_bytes = sizeof(peer);
    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) != 0 || peer.pid <= 0) {
        return -1;
    }
    return (int)syscall(SYS_pidfd_open, peer.pid, 0u);
}

static bool uid_is_allowed(const struct rsi_shm_domain *domain, uid_t uid)
{
    if (uid == 0 || uid == geteuid()) {
        return true;
    }
    for (uint32_t i = 0; i < domain->allowed_uid_count; i++) {
        if (domain->allowed_uids[i] == uid) {
            return true;
        }
    }
    return false;
}

/* Without a descriptor the peer would wait in vain and keep the listener readable: it is told. */
static void refuse_one(struct rsi_shm_listener *listener)
{
    if (listener->reserve_fd >= 0) {
        close(listener->reserve_fd);
    }
    int fd = accept4(listener->socket_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        rsi_shm_turn_away(fd, "the broker has no descriptor left for another link (ulimit -n)");
    }
    listener->reserve_fd = reserve_open();
}

static rsi_status_t fail_accept(struct rsi_shm_listener *listener, int errno_value,
                                struct rsi_error *error)
{
    if (errno_value == EMFILE || errno_value == ENFILE) {
        refuse_one(listener);
        return rsi_fail(error, RSI_E_NO_DESCRIPTORS,
                        "no descriptor left for a peer that connected; it was turned away; raise "
                        "ulimit -n");
    }
    return rsi_fail_errno(error, rsi_status_from_errno(errno_value), errno_value,
                          "cannot accept at %s", listener->url);
}

rsi_status_t rsi_shm_listener_take(struct rsi_shm_listener *listener, int *socket_fd,
                                   char *peer_text, size_t peer_text_bytes, struct rsi_error *error)
{
    int fd = accept4(listener->socket_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) {
            return RSI_WOULD_BLOCK;
        }
        return fail_accept(listener, errno, error);
    }
    struct ucred peer;
    socklen_t peer_bytes = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) != 0) {
        rsi_status_t status = rsi_fail_errno(error, RSI_E_SYSTEM, errno,
                                             "cannot tell who connects to %s", listener->url);
        close(fd);
        return status;
    }
    if (!uid_is_allowed(rsi_shm_domain(listener->base.domain), peer.uid)) {
        char text[RSI_SHM_CLOSE_TEXT_BYTES_MAX];
        snprintf(
            text, sizeof(text),
            "user id %u may not use %s; add it to the broker's allowed_uids, or connect as the "
            "broker's own user (id %u)",
            (unsigned)peer.uid, listener->url, (unsigned)geteuid());
        rsi_shm_turn_away(fd, text);
        return rsi_fail(error, RSI_E_DENIED, "pid %d was turned away: %s", (int)peer.pid, text);
    }
    snprintf(peer_text, peer_text_bytes, "pid %d uid %u", (int)peer.pid, (unsigned)peer.uid);
    *socket_fd = fd;
    return RSI_OK;
}
