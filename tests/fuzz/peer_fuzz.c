/*
 * Design notes: a peer of the transport FUZZ_TRANSPORT that sends and writes what the fuzzer likes,
 * after a proper greeting or without, before the rings are there or after. What must hold: the link
 * stays legal in every state (the wrappers check it), only whole frames are read, a link that is
 * lost says why, and every link comes to its end.
 *
 * The input is a list of steps: one byte what to do, one byte of length, the bytes.
 */
#include "tests/fuzz/fuzz_main.h"

#include "core/assert.h"
#include "core/clock.h"
#include "transport/frame.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { RING_BYTES = 65536, FD_COUNT = 3, PASSES_MAX = 100000 };

enum step {
    STEP_SEND,   /* bytes as they are; shm: one packet */
    STEP_RECORD, /* a record header made of the first bytes, told the truth about the rest */
    STEP_GREET,
    STEP_ATTACH,
    STEP_WRITE_RING, /* shm: into the ring that the other side reads */
    STEP_WRITE_WORDS,
    STEP_RECEIVE, /* takes control messages and frames, gives their bytes back */
    STEP_PASS,
    STEP_COUNT,
};

/* Made once: who is attacked. */
static const struct rsi_transport *transport;
static struct rsi_domain *domain;
static struct rsi_poller *poller;
static struct rsi_listener *listener;
static struct rsi_url url;

/* One attack. */
static struct rsi_link *attacked;
static int fd;
static bool is_attach_asked;
static uint8_t *memory[FD_COUNT]; /* shm: words, ring to the attacked side, ring to the peer */

static bool is_shm(void)
{
    return transport->peer_is_local;
}

static void set_up(void)
{
    if (transport != NULL) {
        return;
    }
    char text[128];
    struct rsi_error error = {0};
    transport = rsi_transport_find(FUZZ_TRANSPORT);
    rsi_assert(transport != NULL);
    snprintf(text, sizeof(text),
             is_shm() ? "shm:///tmp/ringside-fuzz-%d.sock" : "tcp://127.0.0.1:0", (int)getpid());
    const struct rsi_domain_options domain_options = {.node = RSI_NODE_ANY};
    const struct rsi_poller_options poller_options = {.link_count_max = 4};
    rsi_assert(rsi_url_parse(&url, text, &error) == RSI_OK);
    rsi_assert(transport->domain_create(&domain, &domain_options, &error) == RSI_OK);
    rsi_assert(transport->poller_create(&poller, domain, &poller_options, &error) == RSI_OK);
    rsi_assert(transport->listener_create(&listener, domain, &url, &error) == RSI_OK);
    rsi_assert(rsi_url_parse(&url, transport->listener_url(listener), &error) == RSI_OK);
}

static void pass(void)
{
    uint64_t now_ns = rsi_clock_now_ns();
    (void)transport->domain_poll_control(domain, now_ns);
    (void)rsi_poller_poll(poller, now_ns);
    transport->link_poll_control(attacked, now_ns);
    if (rsi_link_state(attacked) == RSI_LINK_LOST) {
        rsi_assert(attacked->error.text[0] != '\0');
    }
}

static void connect_peer(void)
{
    struct sockaddr_in internet = {.sin_family = AF_INET, .sin_port = htons(url.port)};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    const struct linger reset = {.l_onoff = 1}; /* no ports left over in TIME_WAIT */
    internet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    snprintf(local.sun_path, sizeof(local.sun_path), "%.100s", url.path);
    fd = socket(is_shm() ? AF_UNIX : AF_INET, is_shm() ? SOCK_SEQPACKET : SOCK_STREAM, 0);
    rsi_assert(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    int failed = is_shm() ? connect(fd, (struct sockaddr *)&local, sizeof(local))
                          : connect(fd, (struct sockaddr *)&internet, sizeof(internet));
    rsi_assert(failed == 0);
    rsi_status_t status = RSI_WOULD_BLOCK;
    for (uint32_t i = 0; i < PASSES_MAX && status == RSI_WOULD_BLOCK; i++) {
        (void)transport->domain_poll_control(domain, rsi_clock_now_ns());
        status = transport->link_accept(&attacked, listener, RSI_POLLER_ONLY(poller), NULL);
    }
    rsi_assert(status == RSI_OK);
    is_attach_asked = false;
}

static void disconnect_peer(void)
{
    static const size_t sizes[FD_COUNT] = {2 * RSI_WORDS_BYTES, RING_BYTES, RING_BYTES};
    close(fd);
    for (unsigned i = 0; i < FD_COUNT; i++) {
        if (memory[i] != NULL) {
            munmap(memory[i], sizes[i]);
            memory[i] = NULL;
        }
    }
    transport->link_close(attacked);
    for (uint32_t i = 0; rsi_link_state(attacked) != RSI_LINK_CLOSED; i++) {
        rsi_assert(i < PASSES_MAX);
        pass();
    }
    transport->link_destroy(attacked);
    attacked = NULL;
}

/* ---- steps -------------------------------------------------------------------------------------
 */

static void send_record(uint8_t kind, uint64_t position, const void *body, uint32_t bytes)
{
    uint8_t packet[RSI_RECORD_HEADER_BYTES + 256];
    const struct rsi_record_header header = {.kind = kind, .bytes = bytes, .position = position};
    rsi_assert(bytes <= 256);
    memcpy(packet, &header, sizeof(header));
    memcpy(packet + sizeof(header), body, bytes);
    (void)!send(fd, packet, sizeof(header) + bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void map_memory(const int *fds)
{
    static const size_t sizes[FD_COUNT] = {2 * RSI_WORDS_BYTES, RING_BYTES, RING_BYTES};
    for (unsigned i = 0; i < FD_COUNT; i++) {
        void *mapped = mmap(NULL, sizes[i], PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
        rsi_assert(mapped != MAP_FAILED);
        memory[i] = mapped;
        close(fds[i]);
    }
}

/* Looks through what the other side sent; keeps the memory that it hands over. */
static void take_answers(void)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(FD_COUNT * sizeof(int))];
    } control;
    uint8_t packet[1024];
    for (;;) {
        struct iovec part = {.iov_base = packet, .iov_len = sizeof(packet)};
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = control.bytes,
                                 .msg_controllen = sizeof(control.bytes)};
        if (recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0) {
            return;
        }
        const struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        if (rights != NULL && rights->cmsg_type == SCM_RIGHTS) {
            int fds[FD_COUNT];
            rsi_assert(rights->cmsg_len == CMSG_LEN(sizeof(fds)));
            memcpy(fds, CMSG_DATA(rights), sizeof(fds));
            map_memory(fds);
        }
    }
}

/* The peer's part, and the layer above on the attacked side. */
static void attach(void)
{
    const struct rsi_link_rings rings = {.out_bytes = RING_BYTES, .in_bytes = RING_BYTES};
    const struct rsi_attach told = {.in_ring_bytes = RING_BYTES};
    pass();
    if (rsi_link_state(attacked) == RSI_LINK_OPEN && !is_attach_asked) {
        is_attach_asked = true;
        rsi_assert(transport->link_attach(attacked, &rings, NULL) == RSI_OK);
    }
    send_record(RSI_RECORD_ATTACH, 0, &told, sizeof(told));
    for (unsigned i = 0; i < 4; i++) {
        pass();
        take_answers();
    }
}

static void greet(void)
{
    const struct rsi_domain_options options = {.incarnation = 1};
    struct rsi_greeting greeting;
    rsi_greeting_init(&greeting, &options);
    send_record(RSI_RECORD_GREETING, 0, &greeting, sizeof(greeting));
    pass();
    take_answers();
}

static void write_memory(uint8_t *to, size_t limit, const uint8_t *data, size_t bytes)
{
    if (to == NULL || bytes < 2) {
        return;
    }
    size_t at = ((data[0] | (size_t)data[1] << 8) * 8) % limit;
    bytes -= 2;
    memcpy(to + at, data + 2, bytes < limit - at ? bytes : limit - at);
}

/* What an agent does: admits frames until one is wrong. */
static void take_frames(void)
{
    uint32_t bytes = 0;
    while (rsi_link_front_control(attacked, &bytes) != NULL) {
        rsi_assert(bytes > 0 && bytes <= RSI_CONTROL_BYTES_MAX);
        rsi_link_pop_control(attacked);
    }
    struct rsi_frame frame;
    const char *why = NULL;
    while (attacked->consumed_pos < attacked->arrived_pos &&
           rsi_frame_read(&attacked->in, attacked->consumed_pos, attacked->arrived_pos, &frame,
                          &why) == RSI_OK) {
        rsi_link_consume(attacked, frame.frame_bytes);
    }
}

/* Something goes the other way, so that there are positions to lie about. */
static void place_frame(void)
{
    struct rsi_frame_header *header = attacked->out.capacity_bytes != 0
                                          ? rsi_frame_claim(attacked, RSI_FRAME_HEADER_BYTES)
                                          : NULL;
    if (header != NULL) {
        rsi_frame_commit(attacked, RSI_FRAME_HEADER_BYTES);
        rsi_link_place(attacked);
        (void)rsi_link_flush(attacked);
        rsi_link_request_wake(attacked, UINT64_MAX, attacked->staged_pos, attacked->staged_pos);
    }
    pass();
}

static void take_step(uint32_t step, const uint8_t *data, size_t bytes)
{
    switch ((enum step)step) {
    case STEP_SEND:
        (void)!send(fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case STEP_RECORD:
        if (bytes >= 2) {
            uint64_t position = (uint64_t)data[1] << 3;
            send_record(data[0] % 10, position, data + 2, (uint32_t)bytes - 2);
        }
        break;
    case STEP_GREET:
        greet();
        break;
    case STEP_ATTACH:
        attach();
        break;
    case STEP_WRITE_RING:
        write_memory(memory[1], RING_BYTES, data, bytes);
        break;
    case STEP_WRITE_WORDS: /* of the peer's page */
        write_memory(memory[0] != NULL ? memory[0] + RSI_WORDS_BYTES : NULL, RSI_WORDS_BYTES, data,
                     bytes);
        break;
    case STEP_RECEIVE:
        take_frames();
        break;
    case STEP_PASS:
    case STEP_COUNT:
        place_frame();
        break;
    }
    pass();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    set_up();
    connect_peer();
    fuzz_take_steps(data, bytes, STEP_COUNT, take_step);
    take_frames();
    pass();
    disconnect_peer();
    return 0;
}
