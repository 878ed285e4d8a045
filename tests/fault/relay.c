/*
 * Design notes
 * - One thread, poll, nothing waits: each direction of a connection holds at most one piece, which
 * is passed on before the next is read. So the relay adds no room that flow control would not know
 * of but that piece.
 * - A piece of a unix socket is a whole packet with its descriptors; of tcp it is any run of bytes.
 * - To vanish, a tcp socket is closed in repair mode: the kernel then sends nothing, and answers
 * what comes later with a reset. That needs CAP_NET_ADMIN.
 */
#include "tests/fault/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PAIR_COUNT_MAX = 16, PIECE_BYTES = 65536, DESCRIPTOR_COUNT_MAX = 8, STEP_LISTENING = 1 };

enum command_kind { COMMAND_CUT, COMMAND_DOOR };

struct command {
    enum command_kind kind;
    enum relay_cut cut;
    bool is_open;
    uint64_t seed;
};

/* What was read from one side and is to go to the other. */
struct piece {
    size_t at;
    size_t bytes;
    int descriptors[DESCRIPTOR_COUNT_MAX];
    size_t descriptor_count;
    bool is_ended; /* the side that is read said its last */
    bool is_told;  /* and the other was told */
    uint8_t data[PIECE_BYTES];
};

struct pair {
    int fds[2]; /* client, broker */
    struct piece pieces[2];
};

struct relaying {
    bool is_shm;
    bool is_open;
    int command_fd;
    int listen_fd;
    struct sockaddr_storage target;
    socklen_t target_bytes;
    size_t pair_count;
    struct pair pairs[PAIR_COUNT_MAX];
};

/* ---- pieces ------------------------------------------------------------------------------------
 */

static void take_descriptors(struct piece *piece, struct msghdr *message)
{
    for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at != NULL; at = CMSG_NXTHDR(message, at)) {
        if (at->cmsg_level == SOL_SOCKET && at->cmsg_type == SCM_RIGHTS) {
            size_t count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(piece->descriptors, CMSG_DATA(at), count * sizeof(int));
            piece->descriptor_count = count;
        }
    }
}

static void drop_descriptors(struct piece *piece)
{
    for (size_t index = 0; index < piece->descriptor_count; index++) {
        close(piece->descriptors[index]);
    }
    piece->descriptor_count = 0;
}

/* False: the connection broke. */
static bool read_piece(struct piece *piece, int fd, size_t bytes_max)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int) * DESCRIPTOR_COUNT_MAX)];
    struct iovec span = {.iov_base = piece->data, .iov_len = bytes_max};
    struct msghdr message = {.msg_iov = &span,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    ssize_t bytes = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (bytes < 0) {
        return errno == EAGAIN || errno == EINTR;
    }
    piece->at = 0;
    piece->bytes = (size_t)bytes;
    piece->is_ended = bytes == 0;
    take_descriptors(piece, &message);
    return true;
}

/* False: the connection broke. */
static bool write_piece(struct piece *piece, int fd)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int) * DESCRIPTOR_COUNT_MAX)] = {0};
    struct iovec span = {.iov_base = piece->data + piece->at, .iov_len = piece->bytes};
    struct msghdr message = {.msg_iov = &span, .msg_iovlen = 1};
    if (piece->descriptor_count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * piece->descriptor_count);
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int) * piece->descriptor_count);
        memcpy(CMSG_DATA(head), piece->descriptors, sizeof(int) * piece->descriptor_count);
    }
    ssize_t bytes = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (bytes < 0) {
        return errno == EAGAIN || errno == EINTR;
    }
    piece->at += (size_t)bytes;
    piece->bytes -= (size_t)bytes;
    drop_descriptors(piece);
    return true;
}

/* ---- pairs -------------------------------------------------------------------------------------
 */

static void close_as(int fd, enum relay_cut cut)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    int on = 1;
    bool vanishes =
        cut == RELAY_VANISH && setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) == 0;
    if (cut != RELAY_CLOSE && !vanishes) {
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    }
    close(fd);
}

static void end_pair(struct relaying *relaying, size_t at, enum relay_cut cut)
{
    struct pair *pair = &relaying->pairs[at];
    for (int side = 0; side < 2; side++) {
        drop_descriptors(&pair->pieces[side]);
        close_as(pair->fds[side], cut);
    }
    size_t last = --relaying->pair_count;
    if (at != last) {
        relaying->pairs[at] = relaying->pairs[last];
    }
}

static void accept_pair(struct relaying *relaying)
{
    int client_fd = accept4(relaying->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client_fd < 0) {
        return;
    }
    if (!relaying->is_open) {
        close_as(client_fd, RELAY_RESET);
        return;
    }
    check(relaying->pair_count < PAIR_COUNT_MAX, "more than %d connections", PAIR_COUNT_MAX);
    int family = relaying->target.ss_family;
    int broker_fd =
        socket(family, (relaying->is_shm ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    check(broker_fd >= 0, "socket: %s", strerror(errno));
    if (connect(broker_fd, (const struct sockaddr *)&relaying->target, relaying->target_bytes) !=
        0) {
        close(broker_fd);
        close_as(client_fd, RELAY_RESET);
        return;
    }
    if (!relaying->is_shm) {
        int on = 1;
        (void)setsockopt(broker_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        (void)setsockopt(client_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    struct pair *pair = &relaying->pairs[relaying->pair_count++];
    memset(pair, 0, offsetof(struct pair, pieces[0].data));
    memset(&pair->pieces[1], 0, offsetof(struct piece, data));
    pair->fds[0] = client_fd;
    pair->fds[1] = broker_fd;
}

/* Side `side` is read, the other one written. False: the pair is broken. */
static bool pass_on(struct pair *pair, int side, size_t bytes_max)
{
    struct piece *piece = &pair->pieces[side];
    if (piece->bytes == 0 && !piece->is_ended && !read_piece(piece, pair->fds[side], bytes_max)) {
        return false;
    }
    if (piece->bytes > 0 && !write_piece(piece, pair->fds[!side])) {
        return false;
    }
    if (piece->is_ended && piece->bytes == 0 && !piece->is_told) {
        piece->is_told = true;
        (void)shutdown(pair->fds[!side], SHUT_WR);
    }
    return true;
}

/* ---- commands ----------------------------------------------------------------------------------
 */

/* A drawn part of what has come goes on, the rest is lost. */
static void cut_all(struct relaying *relaying, const struct command *command)
{
    uint64_t random = command->seed;
    while (relaying->pair_count > 0) {
        struct pair *pair = &relaying->pairs[0];
        for (int side = 0; side < 2; side++) {
            struct piece *piece = &pair->pieces[side];
            size_t part = 1 + random_next(&random) % 4096;
            if (!relaying->is_shm && piece->bytes > part) {
                piece->bytes = part;
            }
            (void)pass_on(pair, side, relaying->is_shm ? PIECE_BYTES : part);
        }
        end_pair(relaying, 0, command->cut);
    }
}

static void obey(struct relaying *relaying)
{
    struct command command;
    ssize_t bytes = recv(relaying->command_fd, &command, sizeof(command), 0);
    check(bytes == (ssize_t)sizeof(command), "a command of %zd bytes", bytes);
    if (command.kind == COMMAND_CUT) {
        cut_all(relaying, &command);
    } else {
        relaying->is_open = command.is_open;
    }
    check(send(relaying->command_fd, "", 1, MSG_NOSIGNAL) == 1, "answer: %s", strerror(errno));
}

/* ---- the relay's process -----------------------------------------------------------------------
 */

static socklen_t unix_address(struct sockaddr_storage *storage, const char *path)
{
    struct sockaddr_un *address = (struct sockaddr_un *)(void *)storage;
    address->sun_family = AF_UNIX;
    check(strlen(path) < sizeof(address->sun_path), "the path %s is too long", path);
    snprintf(address->sun_path, sizeof(address->sun_path), "%s", path);
    return sizeof(*address);
}

static socklen_t loopback_address(struct sockaddr_storage *storage, uint16_t port)
{
    struct sockaddr_in *address = (struct sockaddr_in *)(void *)storage;
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address->sin_port = htons(port);
    return sizeof(*address);
}

/* Where one side is full the other is not read. */
static void watch_pair(const struct pair *pair, struct pollfd *fds)
{
    for (int side = 0; side < 2; side++) {
        const struct piece *in = &pair->pieces[side];
        const struct piece *out = &pair->pieces[!side];
        bool reads = in->bytes == 0 && !in->is_ended;
        fds[side].events = (short)((reads ? POLLIN : 0) | (out->bytes > 0 ? POLLOUT : 0));
        /* A hung-up socket is readable for ever: it is watched only while that matters. */
        fds[side].fd = fds[side].events != 0 ? pair->fds[side] : -1;
    }
}

static void serve(struct relaying *relaying)
{
    struct pollfd fds[2 + 2 * PAIR_COUNT_MAX] = {{.fd = relaying->command_fd, .events = POLLIN},
                                                 {.fd = relaying->listen_fd, .events = POLLIN}};
    for (size_t at = 0; at < relaying->pair_count; at++) {
        watch_pair(&relaying->pairs[at], &fds[2 + 2 * at]);
    }
    check(poll(fds, 2 + 2 * relaying->pair_count, -1) >= 0 || errno == EINTR, "poll: %s",
          strerror(errno));
    for (size_t at = relaying->pair_count; at-- > 0;) {
        struct pair *pair = &relaying->pairs[at];
        bool is_over = pair->pieces[0].is_told && pair->pieces[1].is_told;
        if (is_over || !pass_on(pair, 0, PIECE_BYTES) || !pass_on(pair, 1, PIECE_BYTES)) {
            end_pair(relaying, at, is_over ? RELAY_CLOSE : RELAY_RESET);
        }
    }
    if (fds[0].revents != 0) {
        obey(relaying);
    }
    if (fds[1].revents != 0) {
        accept_pair(relaying);
    }
}

static void run(struct actor *self, void *arg)
{
    struct relaying *relaying = arg;
    actor_reach(self, STEP_LISTENING);
    for (;;) {
        serve(relaying);
    }
}

/* ---- the test's side ---------------------------------------------------------------------------
 */

static int listen_at(const struct sockaddr_storage *address, socklen_t bytes, bool is_shm)
{
    int fd = socket(address->ss_family,
                    (is_shm ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    check(fd >= 0 && bind(fd, (const struct sockaddr *)address, bytes) == 0 &&
              listen(fd, PAIR_COUNT_MAX) == 0,
          "the relay cannot listen: %s", strerror(errno));
    return fd;
}

/* It listens before it is forked: who knows the front can connect. */
static void begin(struct relay *relay, const struct broker *broker, struct relaying *relaying)
{
    int commands[2];
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, commands) == 0, "socketpair: %s",
          strerror(errno));
    relaying->is_open = true;
    relaying->command_fd = commands[1];
    actor_start(&relay->actor, "relay", broker, run, relaying);
    actor_await_step(&relay->actor, STEP_LISTENING);
    close(commands[1]);
    close(relaying->listen_fd);
    relay->command_fd = commands[0];
}

void relay_start_at(struct relay *relay, const struct broker *broker, const char *path,
                    const char *target_path)
{
    static struct relaying relaying; /* the child's, by copy */
    struct sockaddr_storage own = {0};
    relay->front = *broker;
    snprintf(relay->front.url, sizeof(relay->front.url), "shm://%.200s", path);
    relaying.is_shm = true;
    relaying.listen_fd = listen_at(&own, unix_address(&own, path), true);
    relaying.target_bytes = unix_address(&relaying.target, target_path);
    begin(relay, broker, &relaying);
}

void relay_start(struct relay *relay, const struct broker *broker)
{
    static struct relaying relaying;
    struct sockaddr_storage own = {0};
    char path[PATH_BYTES];
    if (is_transport("shm")) {
        relay_start_at(relay, broker, test_path(path, "relay.sock"),
                       broker->url + strlen("shm://"));
        return;
    }
    socklen_t bytes = loopback_address(&own, 0);
    relay->front = *broker;
    relaying.listen_fd = listen_at(&own, bytes, false);
    check(getsockname(relaying.listen_fd, (struct sockaddr *)&own, &bytes) == 0, "%s",
          strerror(errno));
    snprintf(relay->front.url, sizeof(relay->front.url), "tcp://127.0.0.1:%u",
             ntohs(((struct sockaddr_in *)(void *)&own)->sin_port));
    relaying.target_bytes = loopback_address(
        &relaying.target, (uint16_t)strtoul(strrchr(broker->url, ':') + 1, NULL, 10));
    begin(relay, broker, &relaying);
}

static void command_relay(struct relay *relay, const struct command *command)
{
    char answer;
    struct pollfd answered = {.fd = relay->command_fd, .events = POLLIN};
    check(send(relay->command_fd, command, sizeof(*command), MSG_NOSIGNAL) ==
              (ssize_t)sizeof(*command),
          "the relay is gone: %s", strerror(errno));
    check(poll(&answered, 1, (int)(hang_ns() / 1000000)) == 1 &&
              recv(relay->command_fd, &answer, 1, 0) == 1,
          "the relay does not answer");
}

void relay_cut(struct relay *relay, enum relay_cut cut, uint64_t seed)
{
    command_relay(relay, &(struct command){.kind = COMMAND_CUT, .cut = cut, .seed = seed});
}

void relay_set_door(struct relay *relay, bool is_open)
{
    command_relay(relay, &(struct command){.kind = COMMAND_DOOR, .is_open = is_open});
}

void relay_stop(struct relay *relay)
{
    actor_kill(&relay->actor);
    close(relay->command_fd);
}
