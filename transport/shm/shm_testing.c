/*
 * Design notes: see shm_testing.h. Both sides run in the test's thread, so a test decides what
 * happens between two steps; what needs real threads or processes makes its own.
 */
#include "transport/shm/shm_testing.h"

#include <dirent.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { LINK_COUNT_MAX = 8 };

/* ---- place and side ------------------------------------------------------------------------- */

void shm_place_init(struct shm_place *place)
{
    memset(place, 0, sizeof(*place));
    snprintf(place->directory, sizeof(place->directory), "/tmp/ringside-shm-XXXXXX");
    assert_non_null(mkdtemp(place->directory));
    assert_int_equal(chmod(place->directory, 0755), 0);
    snprintf(place->path, sizeof(place->path), "%s/s", place->directory);
    char text[96];
    snprintf(text, sizeof(text), "shm://%s", place->path);
    assert_int_equal(rsi_url_parse(&place->url, text, NULL), RSI_OK);
}

void shm_place_fini(struct shm_place *place)
{
    (void)unlink(place->path);
    assert_int_equal(rmdir(place->directory), 0);
}

void shm_side_init(struct shm_side *side, const struct rsi_domain_options *options)
{
    struct rsi_domain_options defaults = {.node = RSI_NODE_ANY, .incarnation = 7};
    struct rsi_poller_options poller_options = {.link_count_max = LINK_COUNT_MAX};
    struct rsi_error error = {0};
    const struct rsi_transport *shm = &rsi_shm_transport;
    if (shm->domain_create(&side->domain, options != NULL ? options : &defaults, &error) !=
            RSI_OK ||
        shm->poller_create(&side->poller, side->domain, &poller_options, &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
}

void shm_side_fini(struct shm_side *side)
{
    rsi_shm_transport.poller_destroy(side->poller);
    rsi_shm_transport.domain_destroy(side->domain);
}

void shm_side_pass(struct shm_side *side, struct rsi_link *link)
{
    uint64_t now_ns = rsi_clock_now_ns();
    (void)rsi_shm_transport.domain_poll_control(side->domain, now_ns);
    (void)rsi_poller_poll(side->poller, now_ns);
    if (link != NULL) {
        rsi_shm_transport.link_poll_control(link, now_ns);
    }
}

void shm_link_end(struct shm_side *side, struct rsi_link *link)
{
    if (link == NULL) {
        return;
    }
    rsi_shm_transport.link_close(link);
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    while (rsi_link_state(link) != RSI_LINK_CLOSED) {
        if (rsi_test_now_ns() > deadline_ns) {
            fail_msg("not CLOSED after 20 s");
        }
        shm_side_pass(side, link);
    }
    rsi_shm_transport.link_destroy(link);
}

/* ---- pair ----------------------------------------------------------------------------------- */

static void pair_accept(struct shm_pair *pair)
{
    if (pair->accepted == NULL) {
        rsi_status_t status = rsi_shm_transport.link_accept(
            &pair->accepted, pair->listener, RSI_POLLER_ONLY(pair->broker.poller), NULL);
        assert_true(status == RSI_OK || status == RSI_WOULD_BLOCK);
    }
}

void shm_pair_pass(struct shm_pair *pair)
{
    pair_accept(pair);
    shm_side_pass(&pair->broker, pair->accepted);
    shm_side_pass(&pair->client, pair->dialled);
}

void shm_pair_init(struct shm_pair *pair)
{
    memset(pair, 0, sizeof(*pair));
    shm_place_init(&pair->place);
    shm_side_init(&pair->broker, NULL);
    shm_side_init(&pair->client, NULL);
    struct rsi_error error = {0};
    if (rsi_shm_transport.listener_create(&pair->listener, pair->broker.domain, &pair->place.url,
                                          &error) != RSI_OK ||
        rsi_shm_transport.link_dial(&pair->dialled, pair->client.poller, &pair->place.url,
                                    &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
    shm_pair_until(pair, pair->accepted != NULL &&
                             rsi_link_state(pair->accepted) == RSI_LINK_OPEN &&
                             rsi_link_state(pair->dialled) == RSI_LINK_OPEN);
}

void shm_pair_attach(struct shm_pair *pair, uint64_t to_broker_bytes, uint64_t to_client_bytes)
{
    struct rsi_link_rings broker_rings = {.out_bytes = to_client_bytes,
                                          .in_bytes = to_broker_bytes};
    struct rsi_link_rings client_rings = {.out_bytes = to_broker_bytes,
                                          .in_bytes = to_client_bytes};
    struct rsi_error error = {0};
    if (rsi_shm_transport.link_attach(pair->accepted, &broker_rings, &error) != RSI_OK ||
        rsi_shm_transport.link_attach(pair->dialled, &client_rings, &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
    shm_pair_until(pair, rsi_link_state(pair->accepted) == RSI_LINK_ATTACHED &&
                             rsi_link_state(pair->dialled) == RSI_LINK_ATTACHED);
    /* Both owners know it, and all packets of the attach are read. */
    shm_pair_until(pair, rsi_shm_link(pair->accepted)->is_joined &&
                             rsi_shm_link(pair->dialled)->is_joined);
    for (int i = 0; i < 4; i++) {
        shm_pair_pass(pair);
    }
}

void shm_pair_fini(struct shm_pair *pair)
{
    shm_link_end(&pair->client, pair->dialled);
    shm_link_end(&pair->broker, pair->accepted);
    rsi_shm_transport.listener_destroy(pair->listener);
    shm_side_fini(&pair->client);
    shm_side_fini(&pair->broker);
    shm_place_fini(&pair->place);
}

/* ---- frames --------------------------------------------------------------------------------- */

bool shm_stage(struct rsi_link *link, uint64_t mark, uint32_t payload_bytes)
{
    uint64_t frame_bytes = rsi_frame_bytes(0, payload_bytes);
    struct rsi_frame_header *header = rsi_frame_claim(link, frame_bytes);
    if (header == NULL) {
        return false;
    }
    memset((uint8_t *)header + sizeof(header->commit), 0, sizeof(*header) - sizeof(header->commit));
    header->type = RSI_FRAME_MESSAGE;
    header->payload_bytes = payload_bytes;
    header->sequence = mark;
    memset(header + 1, (int)(mark & 0xff), payload_bytes);
    rsi_frame_commit(link, frame_bytes);
    return true;
}

bool shm_read(struct rsi_link *link, uint64_t *mark, uint32_t *payload_bytes)
{
    if (link->consumed_pos == link->arrived_pos) {
        return false;
    }
    struct rsi_frame frame;
    const char *why = "";
    if (rsi_frame_read(&link->in, link->consumed_pos, link->arrived_pos, &frame, &why) != RSI_OK) {
        fail_msg("at %llu: %s", (unsigned long long)link->consumed_pos, why);
    }
    for (uint32_t i = 0; i < frame.header.payload_bytes; i++) {
        if (frame.payload[i] != (uint8_t)frame.header.sequence) {
            fail_msg("byte %u of frame %llu is wrong", i,
                     (unsigned long long)frame.header.sequence);
        }
    }
    *mark = frame.header.sequence;
    *payload_bytes = frame.header.payload_bytes;
    rsi_link_consume(link, frame.frame_bytes);
    return true;
}

/* ---- descriptors and raw sockets ------------------------------------------------------------ */

bool shm_is_readable(int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    return poll(&entry, 1, 0) == 1;
}

uint32_t shm_open_fd_count(void)
{
    DIR *directory = opendir("/proc/self/fd");
    assert_non_null(directory);
    uint32_t count = 0;
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

int shm_raw_connect(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    struct sockaddr_un address;
    rsi_shm_address_set(&address, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

void shm_raw_send(int fd, const void *data, size_t bytes, const int *fds, uint32_t fd_count)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(16 * sizeof(int))];
    } control;
    memset(&control, 0, sizeof(control));
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count > 0) {
        assert_true(fd_count <= 16);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
    }
    assert_int_equal(sendmsg(fd, &message, MSG_NOSIGNAL), (ssize_t)bytes);
}

void shm_raw_packet(int fd, enum rsi_record_kind kind, uint64_t position, const void *body,
                    uint32_t bytes)
{
    struct rsi_shm_body content = {.data = body, .bytes = bytes};
    assert_int_equal(rsi_shm_packet_send(fd, kind, position, content), RSI_OK);
}

void shm_raw_greet(int fd)
{
    struct rsi_domain_options options = {.incarnation = 9};
    struct rsi_greeting greeting;
    rsi_greeting_init(&greeting, &options);
    shm_raw_packet(fd, RSI_RECORD_GREETING, 0, &greeting, sizeof(greeting));
}

void shm_raw_expect(int fd, enum rsi_record_kind kind, struct rsi_shm_packet *packet)
{
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    for (;;) {
        const char *why;
        rsi_status_t status = rsi_shm_packet_receive(fd, true, packet, &why);
        if (status == RSI_OK && packet->header.kind == kind) {
            return;
        }
        if (status == RSI_OK) {
            rsi_shm_packet_drop_fds(packet);
        }
        assert_true(status == RSI_OK || status == RSI_WOULD_BLOCK);
        if (rsi_test_now_ns() > deadline_ns) {
            fail_msg("no packet of kind %d came in 20 s", (int)kind);
        }
    }
}
