/*
 * Design notes
 * - Blocking sockets with a time-out of their own: who waits longer than a hang fails the test.
 * - Records of the control lane are understood; batches are passed over, for what is delivered to a
 *   hostile peer is of no interest, and positions and answers to sleep as well.
 * - shm: rings are mapped once, without the second mapping behind the first; nothing published here
 *   reaches a ring's end.
 */
#include "tests/fault/raw_peer.h"

#include "transport/url.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { SHM_FD_COUNT = 3, RAW_DESCRIPTOR_COUNT_MAX = 8 };

/* ---- the socket --------------------------------------------------------------------------------
 */

static void set_timeouts(int fd)
{
    const struct timeval hang = {.tv_sec = (time_t)(hang_ns() / SECOND_NS)};
    check(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &hang, sizeof(hang)) == 0 &&
              setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &hang, sizeof(hang)) == 0,
          "setsockopt: %s", strerror(errno));
}

static int dial(const struct rsi_url *url)
{
    bool is_shm = strcmp(url->scheme, "shm") == 0;
    struct sockaddr_in internet = {.sin_family = AF_INET, .sin_port = htons(url->port)};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    int fd = socket(is_shm ? AF_UNIX : AF_INET,
                    (is_shm ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    check(fd >= 0, "socket: %s", strerror(errno));
    set_timeouts(fd);
    int failed;
    if (is_shm) {
        snprintf(local.sun_path, sizeof(local.sun_path), "%s", url->path);
        failed = connect(fd, (struct sockaddr *)&local, sizeof(local));
    } else {
        int yes = 1;
        inet_pton(AF_INET, url->host, &internet.sin_addr);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
        failed = connect(fd, (struct sockaddr *)&internet, sizeof(internet));
    }
    check(failed == 0, "connect: %s", strerror(errno));
    return fd;
}

void raw_connect(struct raw_peer *peer, const struct raw_broker *at, const char *name)
{
    struct rsi_url url;
    struct rsi_error error = {0};
    memset(peer, 0, sizeof(*peer));
    check(rsi_url_parse(&url, at->broker->url, &error) == RSI_OK, "%s", error.text);
    peer->at = at;
    peer->is_shm = is_transport("shm");
    peer->words_fd = peer->out_fd = peer->in_fd = -1;
    peer->incarnation = 4711;
    snprintf(peer->name, sizeof(peer->name), "%s", name);
    check(rsi_auth_random(peer->nonce, sizeof(peer->nonce), NULL) == RSI_OK, "no random numbers");
    if (is_transport("dpdk")) {
        peer->fd = -1;
        peer->link = raw_link_create(url.host, url.port);
        return;
    }
    peer->input = malloc(RAW_INPUT_BYTES);
    check(peer->input != NULL, "no memory");
    peer->fd = dial(&url);
}

enum raw_stage raw_first_held_stage(void)
{
    return is_transport("dpdk") ? RAW_GREETED : RAW_CONNECTED;
}

static void unmap(void *memory, uint64_t bytes, int fd)
{
    if (memory != NULL) {
        munmap(memory, bytes);
    }
    if (fd >= 0) {
        close(fd);
    }
}

void raw_close(struct raw_peer *peer)
{
    if (peer->link != NULL) {
        raw_link_destroy(peer->link);
        memset(peer, 0, sizeof(*peer));
        return;
    }
    unmap(peer->words, 2 * (uint64_t)RSI_WORDS_BYTES, peer->words_fd);
    unmap(peer->out, RAW_RING_BYTES, peer->out_fd);
    unmap(peer->in, RAW_RING_BYTES, peer->in_fd);
    close(peer->fd);
    free(peer->input);
    memset(peer, 0, sizeof(*peer));
}

/* ---- sending -----------------------------------------------------------------------------------
 */

static bool is_end(int errno_value)
{
    return errno_value == EPIPE || errno_value == ECONNRESET || errno_value == ENOTCONN;
}

bool raw_send(struct raw_peer *peer, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes > 0 && !peer->has_ended) {
        ssize_t sent_bytes = send(peer->fd, at, bytes, MSG_NOSIGNAL);
        if (sent_bytes < 0 && errno == EINTR) {
            continue;
        }
        if (sent_bytes < 0 && is_end(errno)) {
            return false;
        }
        check(sent_bytes >= 0, "the broker takes nothing any more, and does not end the link: %s",
              strerror(errno));
        at += sent_bytes;
        bytes -= (size_t)sent_bytes;
    }
    raw_ring_bell(peer);
    return !peer->has_ended;
}

static bool try_send(struct raw_peer *peer, const void *data, size_t bytes)
{
    ssize_t sent_bytes = send(peer->fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    raw_ring_bell(peer);
    return sent_bytes >= 0 && (size_t)sent_bytes == bytes;
}

bool raw_try_control(struct raw_peer *peer, const void *piece, uint32_t bytes)
{
    if (peer->link != NULL) {
        raw_link_try_record(peer->link, RSI_RECORD_CONTROL, piece, bytes);
        return true;
    }
    uint8_t packet[RSI_RECORD_HEADER_BYTES + RSI_CONTROL_BYTES_MAX];
    const struct rsi_record_header header = {.kind = RSI_RECORD_CONTROL, .bytes = bytes};
    check(bytes <= RSI_CONTROL_BYTES_MAX, "a record of %u bytes", bytes);
    memcpy(packet, &header, sizeof(header));
    memcpy(packet + sizeof(header), piece, bytes);
    return try_send(peer, packet, sizeof(header) + bytes);
}

void raw_ring_bell(struct raw_peer *peer)
{
    if (peer->words != NULL) {
        rsi_store_release(rsi_atomic_u64_at(&peer->words[1].packets_sent), ++peer->packets_sent);
    }
}

/* Its first word goes with OPEN. */
static bool record_of_link(struct raw_link *link, uint8_t kind, uint32_t told_bytes,
                           const void *body, size_t bytes)
{
    if (kind != RSI_RECORD_GREETING || link->greeting.magic != 0) {
        return raw_link_record(link, kind, (uint16_t)told_bytes, body, bytes);
    }
    struct rsi_greeting greeting;
    check(bytes == sizeof(greeting), "a greeting of %zu bytes", bytes);
    memcpy(&greeting, body, sizeof(greeting));
    raw_link_say_open(link, &greeting);
    return true;
}

bool raw_record(struct raw_peer *peer, uint8_t kind, uint64_t position, uint32_t told_bytes,
                const void *body, size_t bytes)
{
    if (peer->link != NULL) {
        peer->has_ended = !record_of_link(peer->link, kind, told_bytes, body, bytes);
        return !peer->has_ended;
    }
    uint8_t *packet = malloc(RSI_RECORD_HEADER_BYTES + bytes);
    const struct rsi_record_header header = {
        .kind = kind, .bytes = told_bytes, .position = position};
    check(packet != NULL, "no memory");
    memcpy(packet, &header, sizeof(header));
    if (bytes > 0) {
        memcpy(packet + sizeof(header), body, bytes);
    }
    bool is_open = raw_send(peer, packet, sizeof(header) + bytes);
    free(packet);
    return is_open;
}

void raw_send_descriptors(struct raw_peer *peer, int fd, unsigned count)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(RAW_DESCRIPTOR_COUNT_MAX * sizeof(int))];
    } control = {0};
    const struct rsi_record_header header = {.kind = RSI_RECORD_CONTROL};
    struct iovec part = {.iov_base = (void *)(uintptr_t)&header, .iov_len = sizeof(header)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    check(count <= RAW_DESCRIPTOR_COUNT_MAX, "too many descriptors");
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (unsigned i = 0; i < count; i++) {
        memcpy(CMSG_DATA(rights) + i * sizeof(int), &fd, sizeof(fd));
    }
    (void)sendmsg(peer->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    raw_ring_bell(peer);
}

uint32_t raw_pack(uint8_t piece[RSI_CONTROL_BYTES_MAX], const Ringside__Control__Control *message)
{
    size_t bytes = ringside__control__control__get_packed_size(message);
    check(bytes < RSI_CONTROL_BYTES_MAX, "a control message of %zu bytes is more than one piece",
          bytes);
    piece[0] = 0; /* no more pieces */
    return 1 + (uint32_t)ringside__control__control__pack(message, piece + 1);
}

bool raw_control(struct raw_peer *peer, const Ringside__Control__Control *message)
{
    uint8_t piece[RSI_CONTROL_BYTES_MAX];
    uint32_t bytes = raw_pack(piece, message);
    return raw_record(peer, RSI_RECORD_CONTROL, 0, bytes, piece, bytes);
}

/* ---- receiving ---------------------------------------------------------------------------------
 */

/* Bytes of the stream, or a packet with its descriptors, into `buffer`; 0: the end. */
static size_t receive_bytes(struct raw_peer *peer, void *buffer, size_t bytes, int *fds)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(SHM_FD_COUNT * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = buffer, .iov_len = bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fds != NULL) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
    }
    ssize_t got_bytes;
    do {
        got_bytes = recvmsg(peer->fd, &message, MSG_CMSG_CLOEXEC);
    } while (got_bytes < 0 && errno == EINTR);
    if (got_bytes == 0 || (got_bytes < 0 && is_end(errno))) {
        peer->has_ended = true;
        return 0;
    }
    check(got_bytes > 0, "%s waits for the broker in vain: %s", peer->name, strerror(errno));
    const struct cmsghdr *rights = fds != NULL ? CMSG_FIRSTHDR(&message) : NULL;
    if (rights != NULL && rights->cmsg_type == SCM_RIGHTS) {
        memcpy(fds, CMSG_DATA(rights), rights->cmsg_len - CMSG_LEN(0));
    }
    return (size_t)got_bytes;
}

/* Makes sure that so many bytes of the stream are there; false: it ended before. */
static bool fill_input(struct raw_peer *peer, size_t bytes)
{
    while (peer->input_bytes < bytes) {
        size_t got_bytes = receive_bytes(peer, peer->input + peer->input_bytes,
                                         RAW_INPUT_BYTES - peer->input_bytes, NULL);
        if (got_bytes == 0) {
            return false;
        }
        peer->input_bytes += got_bytes;
    }
    return true;
}

static void drop_input(struct raw_peer *peer, size_t bytes)
{
    peer->input_bytes -= bytes;
    memmove(peer->input, peer->input + bytes, peer->input_bytes);
}

/* The next record of a stream; the body of a batch is passed over. */
static bool receive_from_stream(struct raw_peer *peer, struct rsi_record_header *header,
                                uint8_t *body)
{
    if (!fill_input(peer, sizeof(*header))) {
        return false;
    }
    memcpy(header, peer->input, sizeof(*header));
    drop_input(peer, sizeof(*header));
    uint32_t left_bytes = header->bytes;
    bool is_batch = header->kind == RSI_RECORD_BATCH;
    check(is_batch || left_bytes <= RSI_CONTROL_BYTES_MAX, "the broker sent a record of %u bytes",
          left_bytes);
    while (left_bytes > 0) {
        if (!fill_input(peer, 1)) {
            return false;
        }
        size_t bytes = left_bytes < peer->input_bytes ? left_bytes : peer->input_bytes;
        if (!is_batch) {
            memcpy(body + header->bytes - left_bytes, peer->input, bytes);
        }
        drop_input(peer, bytes);
        left_bytes -= (uint32_t)bytes;
    }
    if (is_batch) {
        peer->arrived_pos = header->position + header->bytes;
    }
    return true;
}

static bool receive_from_link(struct raw_peer *peer, struct rsi_record_header *header,
                              uint8_t *body)
{
    struct raw_lane_record record;
    if (!raw_link_receive(peer->link, &record)) {
        peer->has_ended = true;
        return false;
    }
    *header = (struct rsi_record_header){.kind = record.kind, .bytes = record.bytes};
    memcpy(body, record.data, record.bytes);
    return true;
}

/* The next record that is not about batches and positions; false: the end. */
static bool receive_record(struct raw_peer *peer, struct rsi_record_header *header, uint8_t *body,
                           int *fds)
{
    if (peer->link != NULL) {
        return receive_from_link(peer, header, body);
    }
    do {
        if (peer->is_shm) {
            uint8_t packet[RSI_RECORD_HEADER_BYTES + RSI_CONTROL_BYTES_MAX];
            size_t bytes = receive_bytes(peer, packet, sizeof(packet), fds);
            if (bytes < sizeof(*header)) {
                return false;
            }
            memcpy(header, packet, sizeof(*header));
            memcpy(body, packet + sizeof(*header), bytes - sizeof(*header));
        } else if (!receive_from_stream(peer, header, body)) {
            return false;
        }
    } while (header->kind == RSI_RECORD_BATCH || header->kind == RSI_RECORD_POSITIONS ||
             header->kind == RSI_RECORD_WAKE || header->kind == RSI_RECORD_WAKE_REQUEST);
    return true;
}

Ringside__Control__Control *raw_receive(struct raw_peer *peer)
{
    struct rsi_record_header header;
    uint8_t body[RSI_CONTROL_BYTES_MAX];
    Ringside__Control__Control *message = NULL;
    struct rsi_error error = {0};
    while (message == NULL) {
        if (!receive_record(peer, &header, body, NULL)) {
            return NULL;
        }
        peer->has_attach |= header.kind == RSI_RECORD_ATTACH; /* on tcp before the Welcome */
        if (header.kind != RSI_RECORD_CONTROL) {
            continue; /* CLOSE: the end follows */
        }
        peer->taken_count++;
        rsi_status_t status =
            rsi_control_decode_piece(&peer->receiver, body, header.bytes, &message, &error);
        check(status >= 0, "the broker sent what is no control message: %s", error.text);
    }
    return message;
}

Ringside__Control__Control *raw_expect(struct raw_peer *peer,
                                       Ringside__Control__Control__BodyCase body_case)
{
    Ringside__Control__Control *message = raw_receive(peer);
    check(message != NULL, "%s: the broker ended the link instead of answering", peer->name);
    check(message->body_case == body_case, "%s got message %d instead of %d: %s", peer->name,
          (int)message->body_case, (int)body_case,
          message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_REFUSED ? message->refused->text
                                                                         : "");
    return message;
}

Ringside__Control__Reason raw_await_end(struct raw_peer *peer)
{
    Ringside__Control__Reason reason = RINGSIDE__CONTROL__REASON__REASON_NONE;
    Ringside__Control__Control *message;
    if (peer->link != NULL && peer->link->greeting.magic == 0) {
        return reason; /* the broker has nothing of it that could end */
    }
    while (peer->is_blind && receive_bytes(peer, peer->input, RAW_INPUT_BYTES, NULL) > 0) {
    }
    while (!peer->is_blind && (message = raw_receive(peer)) != NULL) {
        if (message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_REFUSED) {
            reason = message->refused->reason;
        } else if (message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_BYE) {
            reason = message->bye->reason;
        }
        rsi_control_free(message);
    }
    return reason;
}

bool raw_look(struct raw_peer *peer)
{
    if (peer->link != NULL) {
        raw_link_look(peer->link, 0);
        peer->link->taken_count = peer->link->came_count;
        peer->has_ended = peer->link->has_ended;
        return peer->has_ended;
    }
    peer->is_blind = true; /* from the middle of a record on nothing has a beginning */
    while (!peer->has_ended) {
        struct pollfd entry = {.fd = peer->fd, .events = POLLIN};
        if (poll(&entry, 1, 0) != 1) {
            return false;
        }
        (void)receive_bytes(peer, peer->input, RAW_INPUT_BYTES, NULL);
    }
    return true;
}

/* ---- the way to a session ----------------------------------------------------------------------
 */

void raw_make_greeting(const struct raw_peer *peer, struct rsi_greeting *greeting)
{
    const struct rsi_domain_options own = {.incarnation = peer->incarnation};
    rsi_greeting_init(greeting, &own);
}

bool raw_greet(struct raw_peer *peer)
{
    struct rsi_greeting greeting;
    struct rsi_record_header header;
    uint8_t body[RSI_CONTROL_BYTES_MAX];
    raw_make_greeting(peer, &greeting);
    (void)raw_record(peer, RSI_RECORD_GREETING, 0, sizeof(greeting), &greeting, sizeof(greeting));
    return receive_record(peer, &header, body, NULL) && header.kind == RSI_RECORD_GREETING;
}

bool raw_say_hello(struct raw_peer *peer)
{
    Ringside__Control__Hello hello = RINGSIDE__CONTROL__HELLO__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    hello.version_min = RSI_WIRE_VERSION_MIN;
    hello.version_max = RSI_WIRE_VERSION_MAX;
    hello.client_name = peer->name;
    hello.software = "raw_peer";
    hello.nonce.data = peer->nonce;
    hello.nonce.len = sizeof(peer->nonce);
    hello.token_name = (char *)(uintptr_t)peer->at->token_name;
    hello.incarnation = peer->incarnation;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_HELLO;
    message.hello = &hello;
    return raw_control(peer, &message);
}

bool raw_hello(struct raw_peer *peer)
{
    (void)raw_say_hello(peer);
    Ringside__Control__Control *message = raw_receive(peer);
    if (message == NULL || message->body_case != RINGSIDE__CONTROL__CONTROL__BODY_CHALLENGE) {
        rsi_control_free(message);
        return false;
    }
    check(message->challenge->nonce.len == sizeof(peer->broker_nonce), "a short nonce");
    memcpy(peer->broker_nonce, message->challenge->nonce.data, sizeof(peer->broker_nonce));
    rsi_control_free(message);
    return true;
}

static void make_proof(const struct raw_peer *peer, enum rsi_auth_side side, const void *secret,
                       size_t secret_bytes, uint8_t proof[RSI_AUTH_PROOF_BYTES])
{
    const struct rsi_auth_input input = {
        .secret = secret,
        .secret_bytes = secret_bytes,
        .client_nonce = peer->nonce,
        .client_nonce_bytes = sizeof(peer->nonce),
        .broker_nonce = peer->broker_nonce,
        .broker_nonce_bytes = sizeof(peer->broker_nonce),
        .client_name = peer->name,
    };
    check(rsi_auth_proof(side, &input, proof, NULL) == RSI_OK, "no proof");
}

void raw_make_proof(const struct raw_peer *peer, uint8_t proof[RSI_AUTH_PROOF_BYTES])
{
    make_proof(peer, RSI_AUTH_CLIENT, peer->at->secret, strlen(peer->at->secret), proof);
}

void raw_make_session_proof(const struct raw_peer *peer, const uint8_t *secret,
                            uint8_t proof[RSI_AUTH_PROOF_BYTES])
{
    make_proof(peer, RSI_AUTH_RESUME, secret, RSI_AUTH_NONCE_BYTES, proof);
}

static bool say_authenticate(struct raw_peer *peer, const uint8_t proof[RSI_AUTH_PROOF_BYTES],
                             const struct raw_claim *claim)
{
    Ringside__Control__Authenticate authenticate = RINGSIDE__CONTROL__AUTHENTICATE__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    authenticate.proof.data = (uint8_t *)(uintptr_t)proof;
    authenticate.proof.len = RSI_AUTH_PROOF_BYTES;
    authenticate.publish_ring_bytes = RAW_RING_BYTES;
    authenticate.deliver_ring_bytes = RAW_RING_BYTES;
    if (claim != NULL) {
        authenticate.session = claim->session;
        authenticate.session_proof.data = (uint8_t *)(uintptr_t)claim->proof;
        authenticate.session_proof.len = sizeof(claim->proof);
        authenticate.arrived_pos = claim->arrived_pos;
        authenticate.consumed_pos = claim->consumed_pos;
        authenticate.attempt = claim->attempt;
    }
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_AUTHENTICATE;
    message.authenticate = &authenticate;
    return raw_control(peer, &message);
}

bool raw_say_authenticate(struct raw_peer *peer, const uint8_t proof[RSI_AUTH_PROOF_BYTES])
{
    return say_authenticate(peer, proof, NULL);
}

bool raw_say_resume(struct raw_peer *peer, const struct raw_claim *claim)
{
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    raw_make_proof(peer, proof);
    return say_authenticate(peer, proof, claim);
}

void raw_authenticate(struct raw_peer *peer)
{
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    raw_make_proof(peer, proof);
    (void)raw_say_authenticate(peer, proof);
    Ringside__Control__Control *message =
        raw_expect(peer, RINGSIDE__CONTROL__CONTROL__BODY_WELCOME);
    check(message->welcome->publish_ring_bytes == RAW_RING_BYTES &&
              message->welcome->deliver_ring_bytes == RAW_RING_BYTES &&
              message->welcome->session_secret.len == sizeof(peer->session_secret),
          "the broker decided for other rings");
    peer->session = message->welcome->session;
    memcpy(peer->session_secret, message->welcome->session_secret.data,
           sizeof(peer->session_secret));
    rsi_control_free(message);
}

static void *map(int fd, uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

void raw_attach(struct raw_peer *peer)
{
    struct rsi_record_header header;
    uint8_t body[RSI_CONTROL_BYTES_MAX];
    int fds[SHM_FD_COUNT] = {-1, -1, -1};
    const struct rsi_attach attach = {.in_ring_bytes = RAW_RING_BYTES};
    (void)raw_record(peer, RSI_RECORD_ATTACH, 0, sizeof(attach), &attach, sizeof(attach));
    check(peer->has_attach || (receive_record(peer, &header, body, peer->is_shm ? fds : NULL) &&
                               header.kind == RSI_RECORD_ATTACH),
          "%s is not attached", peer->name);
    if (peer->link != NULL) {
        peer->link->is_attached = true;
    }
    if (peer->is_shm) {
        check(fds[0] >= 0 && fds[1] >= 0 && fds[2] >= 0, "memory files are missing");
        peer->words_fd = fds[0];
        peer->out_fd = fds[1];
        peer->in_fd = fds[2];
        peer->words = map(fds[0], 2 * (uint64_t)RSI_WORDS_BYTES);
        peer->out = map(fds[1], RAW_RING_BYTES);
        peer->in = map(fds[2], RAW_RING_BYTES);
        raw_ring_bell(peer);
    }
}

bool raw_subscribe(struct raw_peer *peer, uint64_t id, const char *subject,
                   Ringside__Control__Policy policy)
{
    Ringside__Control__Subscribe subscribe = RINGSIDE__CONTROL__SUBSCRIBE__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    subscribe.request = ++peer->request;
    subscribe.subscription = id;
    subscribe.subject = (char *)(uintptr_t)subject;
    subscribe.policy = policy;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBE;
    message.subscribe = &subscribe;
    return raw_control(peer, &message);
}

bool raw_open_publisher(struct raw_peer *peer, uint32_t alias, const char *subject)
{
    Ringside__Control__OpenPublisher open = RINGSIDE__CONTROL__OPEN_PUBLISHER__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    open.request = ++peer->request;
    open.alias = alias;
    open.subject = (char *)(uintptr_t)subject;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_OPEN_PUBLISHER;
    message.open_publisher = &open;
    return raw_control(peer, &message);
}

void raw_serve(struct raw_peer *peer)
{
    (void)raw_open_publisher(peer, RAW_ALIAS, "hostile.own");
    rsi_control_free(raw_expect(peer, RINGSIDE__CONTROL__CONTROL__BODY_PUBLISHER_OPENED));
    (void)raw_subscribe(peer, RAW_SUBSCRIPTION, "hostile.>",
                        RINGSIDE__CONTROL__POLICY__POLICY_DROP);
    rsi_control_free(raw_expect(peer, RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBED));
}

void raw_open(struct raw_peer *peer, const struct raw_broker *at, const char *name,
              enum raw_stage stage)
{
    uint64_t until_ns = now_ns() + hang_ns();
    for (;;) {
        raw_connect(peer, at, name);
        if (stage == RAW_CONNECTED ||
            (raw_greet(peer) && (stage == RAW_GREETED || raw_hello(peer)))) {
            break;
        }
        check(now_ns() < until_ns, "the broker has no room for %s", name);
        raw_close(peer);
        nap();
    }
    if (stage >= RAW_WELCOMED) {
        raw_authenticate(peer);
    }
    if (stage >= RAW_ATTACHED) {
        raw_attach(peer);
    }
    if (stage >= RAW_SERVING) {
        raw_serve(peer);
    }
}

/* ---- data --------------------------------------------------------------------------------------
 */

uint32_t raw_make_frame(uint8_t *frame, uint64_t position, uint32_t alias, uint32_t payload_bytes)
{
    uint64_t bytes = rsi_frame_bytes(0, payload_bytes);
    const struct rsi_frame_header header = {
        .commit = rsi_commit_word(position, bytes),
        .payload_bytes = payload_bytes,
        .type = RSI_FRAME_MESSAGE,
        .publication = alias,
    };
    memset(frame, 0x5a, bytes);
    memcpy(frame, &header, sizeof(header));
    return (uint32_t)bytes;
}

bool raw_wake(struct raw_peer *peer)
{
    if (!peer->is_shm) {
        return true;
    }
    const struct rsi_positions positions = {0};
    rsi_fence_seq_cst();
    uint64_t generation = rsi_load_acquire(rsi_atomic_u64_at(&peer->words[0].wake_generation));
    if (generation == peer->answered_generation) {
        return !peer->has_ended;
    }
    peer->answered_generation = generation;
    return raw_record(peer, RSI_RECORD_WAKE, generation, sizeof(positions), &positions,
                      sizeof(positions));
}

bool raw_publish_changed(struct raw_peer *peer, uint32_t payload_bytes, struct raw_change change)
{
    static uint8_t frame[RAW_RING_BYTES];
    uint64_t commit;
    uint32_t bytes = raw_make_frame(frame, peer->staged_pos, RAW_ALIAS, payload_bytes);
    memcpy(frame + change.offset, &change.value, change.bytes);
    uint64_t position = peer->staged_pos;
    peer->staged_pos += bytes;
    if (peer->link != NULL) {
        raw_link_publish(peer->link, frame, bytes);
        return !peer->has_ended;
    }
    if (!peer->is_shm) {
        return raw_record(peer, RSI_RECORD_BATCH, position, bytes, frame, bytes);
    }
    check(position + bytes + sizeof(commit) <= RAW_RING_BYTES, "past the ring's end");
    uint8_t *at = peer->out + position;
    memcpy(&commit, frame, sizeof(commit));
    memcpy(at + sizeof(commit), frame + sizeof(commit), bytes - sizeof(commit));
    memset(at + bytes, 0, sizeof(commit));
    rsi_store_release(rsi_atomic_u64_at(at), commit);
    return raw_wake(peer);
}

bool raw_publish(struct raw_peer *peer, uint32_t payload_bytes)
{
    const struct raw_change none = {0};
    return raw_publish_changed(peer, payload_bytes, none);
}

void raw_await_delivery(struct raw_peer *peer)
{
    struct rsi_record_header header;
    uint8_t body[RSI_CONTROL_BYTES_MAX];
    (void)raw_publish(peer, 64);
    if (peer->link != NULL) {
        uint64_t until_ns = now_ns() + hang_ns();
        uint64_t position = peer->link->told.received_pos;
        while (peer->link->told.received_pos == position) {
            check(!peer->link->has_ended, "%s lost its link", peer->name);
            raw_link_wait(peer->link, until_ns, "a delivery");
        }
        return;
    }
    if (peer->is_shm) {
        await(rsi_load_acquire(rsi_atomic_u64_at(peer->in)) != 0, "nothing is delivered to %s",
              peer->name);
    }
    while (!peer->is_shm && peer->arrived_pos == 0) {
        check(receive_from_stream(peer, &header, body), "%s is delivered nothing", peer->name);
    }
}

bool raw_tell_consumed(struct raw_peer *peer, uint64_t arrived_pos, uint64_t consumed_pos)
{
    if (peer->is_shm) {
        rsi_store_release(rsi_atomic_u64_at(&peer->words[1].consumed_pos), consumed_pos);
        return raw_wake(peer);
    }
    if (peer->link != NULL) {
        peer->link->told.consumed_pos = consumed_pos;
        if (peer->taken_count > peer->link->told.lane_received) {
            peer->link->told.lane_received = peer->taken_count;
        }
        raw_link_send_state(peer->link, 0, NULL, 0);
        raw_link_look(peer->link, 0);
        return !peer->link->has_ended;
    }
    const struct rsi_positions positions = {.arrived_pos = arrived_pos,
                                            .consumed_pos = consumed_pos};
    return raw_record(peer, RSI_RECORD_POSITIONS, peer->taken_count, sizeof(positions), &positions,
                      sizeof(positions));
}
