/*
 * Peers that do not keep the protocol: what they send, hand over and write into shared memory ends
 * their own link, with a reason, and nothing else.
 *
 * Design notes
 * - The hostile side is a raw socket in this process. Where it needs an attached link it takes one
 * that came about in order, and then writes into the shared memory itself.
 * - After each attack the broker is asked for what it must not have lost: descriptors, the other
 *   link, its ability to go on.
 */
#include "transport/shm/shm_testing.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum { RING_BYTES = 65536 };

static const struct rsi_transport *const shm = &rsi_shm_transport;

/* ---- hostile dialler ------------------------------------------------------------------------ */

/* A broker, and a raw socket that it accepted. */
struct siege {
    struct shm_place place;
    struct shm_side broker;
    struct rsi_listener *listener;
    struct rsi_link *link;
    int raw_fd;
};

static void siege_init(struct siege *siege)
{
    memset(siege, 0, sizeof(*siege));
    shm_place_init(&siege->place);
    shm_side_init(&siege->broker, NULL);
    assert_int_equal(
        shm->listener_create(&siege->listener, siege->broker.domain, &siege->place.url, NULL),
        RSI_OK);
    siege->raw_fd = shm_raw_connect(siege->place.path);
    rsi_test_wait_until(shm->link_accept(&siege->link, siege->listener,
                                         RSI_POLLER_ONLY(siege->broker.poller), NULL) == RSI_OK);
}

static void siege_fini(struct siege *siege)
{
    shm_link_end(&siege->broker, siege->link);
    if (siege->raw_fd >= 0) {
        close(siege->raw_fd);
    }
    shm->listener_destroy(siege->listener);
    shm_side_fini(&siege->broker);
    shm_place_fini(&siege->place);
}

static void siege_until_state(struct siege *siege, enum rsi_link_state wanted)
{
    rsi_test_wait_until(
        (shm_side_pass(&siege->broker, siege->link), rsi_link_state(siege->link) == wanted));
}

static void siege_expect_lost(struct siege *siege, rsi_status_t status, const char *text)
{
    siege_until_state(siege, RSI_LINK_LOST);
    if (siege->link->error.status != status || strstr(siege->link->error.text, text) == NULL) {
        fail_msg("expected %s with '%s', got %s: %s", rsi_status_name(status), text,
                 rsi_status_name(siege->link->error.status), siege->link->error.text);
    }
}

static void siege_open(struct siege *siege)
{
    siege_init(siege);
    shm_raw_greet(siege->raw_fd);
    siege_until_state(siege, RSI_LINK_OPEN);
}

static void test_wrong_first_packets(void **state)
{
    (void)state;
    struct rsi_domain_options options = {0};
    struct rsi_greeting greeting;
    rsi_greeting_init(&greeting, &options);
    struct {
        struct rsi_record_header header;
        uint8_t body[600];
    } packet;
    static const struct {
        uint8_t kind;
        uint32_t said_bytes;
        uint32_t sent_bytes;
        bool spoil_magic;
        const char *text;
    } cases[] = {
        {RSI_RECORD_GREETING, 56, 72, true, "not Ringside"},
        {RSI_RECORD_GREETING, 56, 71, false, "not what its header says"},
        {RSI_RECORD_GREETING, UINT32_MAX, 72, false, "not what its header says"},
        {RSI_RECORD_GREETING, 40, 56, false, "wrong size"},
        {RSI_RECORD_GREETING, 56, 7, false, "shorter than its header"},
        {RSI_RECORD_CONTROL, 56, 72, false, "not a greeting"},
        {RSI_RECORD_CONTROL, 513, 529, false, "longer than any"},
        {RSI_RECORD_BATCH, 56, 72, false, "kind that shm does not have"},
        {200, 56, 72, false, "kind that shm does not have"},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct siege siege;
        siege_init(&siege);
        memset(&packet, 0, sizeof(packet));
        packet.header.kind = cases[i].kind;
        packet.header.bytes = cases[i].said_bytes;
        memcpy(packet.body, &greeting, sizeof(greeting));
        packet.body[0] = cases[i].spoil_magic ? 'X' : packet.body[0];
        shm_raw_send(siege.raw_fd, &packet, cases[i].sent_bytes, NULL, 0);
        siege_expect_lost(&siege, RSI_E_PROTOCOL, cases[i].text);
        siege_fini(&siege);
    }
}

static void test_no_greeting_and_an_early_end(void **state)
{
    (void)state;
    struct siege siege;
    siege_init(&siege);
    close(siege.raw_fd);
    siege.raw_fd = -1;
    siege_expect_lost(&siege, RSI_E_LINK_LOST, "before it sent a greeting");
    siege_fini(&siege);

    siege_init(&siege);
    uint64_t late_ns = rsi_clock_now_ns() + UINT64_C(6000000000);
    shm->link_poll_control(siege.link, late_ns);
    assert_int_equal(rsi_link_state(siege.link), RSI_LINK_LOST);
    assert_int_equal(siege.link->error.status, RSI_E_TIMED_OUT);
    siege_fini(&siege);
}

static void test_uninvited_descriptors_are_not_kept(void **state)
{
    (void)state;
    struct rsi_domain_options options = {0};
    struct {
        struct rsi_record_header header;
        struct rsi_greeting greeting;
    } hello = {.header = {.kind = RSI_RECORD_GREETING, .bytes = RSI_GREETING_BYTES}};
    rsi_greeting_init(&hello.greeting, &options);
    int fds[8];
    for (size_t i = 0; i < rsi_array_count(fds); i++) {
        fds[i] = memfd_create("uninvited", MFD_CLOEXEC);
        assert_true(fds[i] >= 0);
    }
    for (uint32_t count = 1; count <= 8; count += 7) {
        struct siege siege;
        siege_init(&siege);
        uint32_t open_count = shm_open_fd_count();
        shm_raw_send(siege.raw_fd, &hello, sizeof(hello), fds, count);
        siege_expect_lost(&siege, RSI_E_PROTOCOL, "nobody asked for");
        assert_int_equal(shm_open_fd_count(), open_count);
        siege_fini(&siege);

        siege_open(&siege);
        open_count = shm_open_fd_count();
        struct {
            struct rsi_record_header header;
            struct rsi_attach attach;
        } attach = {.header = {.kind = RSI_RECORD_ATTACH, .bytes = sizeof(struct rsi_attach)}};
        shm_raw_send(siege.raw_fd, &attach, sizeof(attach), fds, count);
        siege_expect_lost(&siege, RSI_E_PROTOCOL, "nobody asked for");
        assert_int_equal(shm_open_fd_count(), open_count);
        siege_fini(&siege);
    }
    for (size_t i = 0; i < rsi_array_count(fds); i++) {
        close(fds[i]);
    }
}

static void test_wrong_packets_on_an_open_link(void **state)
{
    (void)state;
    struct rsi_attach attach = {.in_ring_bytes = RING_BYTES};
    struct rsi_positions positions = {0};
    struct siege siege;

    siege_open(&siege);
    shm_raw_greet(siege.raw_fd);
    siege_expect_lost(&siege, RSI_E_PROTOCOL, "on an open link");
    siege_fini(&siege);

    siege_open(&siege);
    shm_raw_packet(siege.raw_fd, RSI_RECORD_WAKE, 1, &positions, sizeof(positions));
    siege_expect_lost(&siege, RSI_E_PROTOCOL, "answered sleep request 1");
    siege_fini(&siege);

    siege_open(&siege);
    shm_raw_packet(siege.raw_fd, RSI_RECORD_ATTACH, 0, &attach, sizeof(attach));
    shm_raw_packet(siege.raw_fd, RSI_RECORD_ATTACH, 0, &attach, sizeof(attach));
    siege_expect_lost(&siege, RSI_E_PROTOCOL, "attached twice");
    siege_fini(&siege);

    siege_open(&siege);
    shm_raw_packet(siege.raw_fd, RSI_RECORD_CLOSE, 0, "\x1b[31mbad\n", 9);
    siege_expect_lost(&siege, RSI_E_LINK_CLOSED, "closed the link: ?[31mbad?");
    siege_fini(&siege);

    siege_open(&siege); /* other sizes than were agreed */
    shm_raw_packet(siege.raw_fd, RSI_RECORD_ATTACH, 0, &attach, sizeof(attach));
    struct rsi_link_rings rings = {.out_bytes = 2 * RING_BYTES, .in_bytes = RING_BYTES};
    assert_int_equal(shm->link_attach(siege.link, &rings, NULL), RSI_OK);
    siege_expect_lost(&siege, RSI_E_PROTOCOL, "131072 were agreed");
    siege_fini(&siege);
}

/* Attaches the raw socket and maps the words and rings as a client would, keeping the files. */
static void siege_attach(struct siege *siege, struct rsi_shm_packet *packet)
{
    siege_open(siege);
    struct rsi_attach attach = {.in_ring_bytes = RING_BYTES};
    shm_raw_packet(siege->raw_fd, RSI_RECORD_ATTACH, 0, &attach, sizeof(attach));
    struct rsi_link_rings rings = {.out_bytes = RING_BYTES, .in_bytes = RING_BYTES};
    assert_int_equal(shm->link_attach(siege->link, &rings, NULL), RSI_OK);
    siege_until_state(siege, RSI_LINK_ATTACHED);
    shm_raw_expect(siege->raw_fd, RSI_RECORD_ATTACH, packet);
    assert_int_equal(packet->fd_count, 3);
}

static void test_memory_cannot_change_size(void **state)
{
    (void)state;
    struct siege siege;
    struct rsi_shm_packet packet;
    siege_attach(&siege, &packet);
    for (uint32_t i = 0; i < packet.fd_count; i++) {
        int seals = fcntl(packet.fds[i], F_GET_SEALS);
        assert_int_equal(seals & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK | F_SEAL_GROW);
        assert_int_equal(ftruncate(packet.fds[i], 0), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(ftruncate(packet.fds[i], 1 << 24), -1);
        /* Nobody can make the broker's own mapping read-only either. */
        assert_int_equal(fcntl(packet.fds[i], F_ADD_SEALS, F_SEAL_WRITE), -1);
    }
    /* Pages that are punched out come back as zeroes. */
    assert_int_equal(
        fallocate(packet.fds[2], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, RING_BYTES), 0);
    assert_true(shm_stage(siege.link, 1, 1000));
    rsi_link_place(siege.link);
    assert_int_equal(rsi_link_flush(siege.link), RSI_OK);
    shm_side_pass(&siege.broker, siege.link);
    assert_int_equal(rsi_link_state(siege.link), RSI_LINK_ATTACHED);
    rsi_shm_packet_drop_fds(&packet);
    siege_fini(&siege);
}

/* ---- hostile memory ------------------------------------------------------------------------- */

static void pair_expect_broker_lost(struct shm_pair *pair, const char *text)
{
    rsi_test_wait_until((shm_side_pass(&pair->broker, pair->accepted),
                         rsi_link_state(pair->accepted) == RSI_LINK_LOST));
    if (pair->accepted->error.status != RSI_E_PROTOCOL ||
        strstr(pair->accepted->error.text, text) == NULL) {
        fail_msg("expected '%s', got: %s", text, pair->accepted->error.text);
    }
    assert_int_equal(rsi_link_flush(pair->accepted), RSI_E_LINK_LOST);
}

static void pair_init_attached(struct shm_pair *pair)
{
    shm_pair_init(pair);
    shm_pair_attach(pair, RING_BYTES, RING_BYTES);
}

static void test_absurd_commit_words(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {8, 32, RING_BYTES - 56, RING_BYTES, RSI_FRAME_BYTES_MAX};
    for (size_t i = 0; i < rsi_array_count(lengths); i++) {
        struct shm_pair pair;
        pair_init_attached(&pair);
        uint64_t *word = (uint64_t *)(void *)rsi_ring_at(&pair.dialled->out, 0);
        *word = rsi_commit_word(0, lengths[i]);
        assert_false(shm->poller_arm(pair.broker.poller));
        pair_expect_broker_lost(&pair, "committed a frame of");
        assert_int_equal(pair.accepted->arrived_pos, 0);
        shm_pair_fini(&pair);
    }
    /* The longest frame that there is room for, then one word too many. */
    struct shm_pair pair;
    pair_init_attached(&pair);
    uint64_t most = RING_BYTES - RSI_RING_GUARD_BYTES;
    *(uint64_t *)(void *)rsi_ring_at(&pair.dialled->out, 0) = rsi_commit_word(0, most);
    shm_side_pass(&pair.broker, pair.accepted);
    assert_int_equal(pair.accepted->arrived_pos, most);
    *(uint64_t *)(void *)rsi_ring_at(&pair.dialled->out, most) = rsi_commit_word(most, 40);
    pair_expect_broker_lost(&pair, "committed a frame of 40 bytes");
    shm_pair_fini(&pair);
}

static void test_lies_about_consumption(void **state)
{
    (void)state;
    static const uint64_t lies[] = {8, UINT64_MAX, UINT64_MAX - 7, 1048, 500};
    for (size_t i = 0; i < rsi_array_count(lies); i++) {
        struct shm_pair pair;
        pair_init_attached(&pair);
        assert_true(shm_stage(pair.accepted, 1, 960)); /* 1000 bytes */
        rsi_link_place(pair.accepted);
        assert_int_equal(rsi_link_flush(pair.accepted), RSI_OK);
        shm_side_pass(&pair.client, pair.dialled);
        uint64_t mark;
        uint32_t payload_bytes;
        assert_true(shm_read(pair.dialled, &mark, &payload_bytes));
        rsi_link_request_wake(pair.accepted, UINT64_MAX, UINT64_MAX, 1000);
        assert_int_equal(pair.accepted->peer_consumed_pos, 1000);
        rsi_shm_words_publish_consumed(rsi_shm_link(pair.dialled)->own_words, lies[i]);
        pair_expect_broker_lost(&pair, "a consumed position");
        assert_int_equal(pair.accepted->peer_consumed_pos, 1000);
        shm_pair_fini(&pair);
    }
}

/* Whatever is written, wherever it may be written: the broker lives. */
static void test_scribbling_over_everything(void **state)
{
    (void)state;
    uint64_t seed = rsi_test_seed();
    uint32_t lost_count = 0;
    uint32_t wrong_count = 0;
    for (int round = 0; round < 60; round++) {
        struct shm_pair pair;
        pair_init_attached(&pair);
        struct rsi_shm_link *client = rsi_shm_link(pair.dialled);
        uint64_t *areas[] = {
            (uint64_t *)(void *)client->own_words, (uint64_t *)(void *)client->peer_words,
            (uint64_t *)(void *)pair.dialled->out.base, (uint64_t *)(void *)pair.dialled->in.base};
        for (int i = 0; i < 200 && rsi_link_state(pair.accepted) == RSI_LINK_ATTACHED; i++) {
            uint64_t choice = rsi_test_random(&seed);
            uint64_t *area = areas[choice % 4];
            uint64_t index = choice >> 8 & (choice % 4 < 2 ? 31 : RING_BYTES / 8 - 1);
            uint64_t position = pair.accepted->arrived_pos;
            uint64_t length = 40 + (choice >> 32) % ((choice >> 16) % 64 == 0 ? 1u << 20 : 300);
            uint64_t value = (choice >> 4) % 3 == 0 ? choice : (choice >> 40) * 8;
            rsi_store_release(rsi_atomic_u64_at(&area[index]), value);
            if ((choice >> 6) % 4 != 0) { /* and a frame that may be taken for one */
                uint64_t *word = (uint64_t *)(void *)rsi_ring_at(&pair.dialled->out, position);
                rsi_store_release(rsi_atomic_u64_at(word), rsi_commit_word(position, length));
            }
            (void)shm_stage(pair.accepted, choice, 1000);
            rsi_link_place(pair.accepted);
            (void)rsi_link_flush(pair.accepted);
            (void)shm->poller_arm(pair.broker.poller);
            shm_side_pass(&pair.broker, pair.accepted);
            struct rsi_frame frame;
            const char *why;
            if (pair.accepted->arrived_pos != pair.accepted->consumed_pos) {
                wrong_count += rsi_frame_read(&pair.accepted->in, pair.accepted->consumed_pos,
                                              pair.accepted->arrived_pos, &frame, &why) != RSI_OK;
                rsi_link_consume(pair.accepted,
                                 pair.accepted->arrived_pos - pair.accepted->consumed_pos);
            }
        }
        lost_count += rsi_link_state(pair.accepted) == RSI_LINK_LOST;
        /* The client's view of itself is ruined: it ends like a crashed process. */
        shm_link_end(&pair.broker, pair.accepted);
        pair.accepted = NULL;
        shm_link_end(&pair.client, pair.dialled);
        pair.dialled = NULL;
        shm->listener_destroy(pair.listener);
        shm_side_fini(&pair.client);
        shm_side_fini(&pair.broker);
        shm_place_fini(&pair.place);
    }
    assert_true(lost_count > 0);
    assert_true(wrong_count > 0);
}

/* ---- flood and silence ---------------------------------------------------------------------- */

static void test_flood_is_held_back(void **state)
{
    (void)state;
    struct siege siege;
    siege_open(&siege);
    struct rsi_link *neighbour;
    int neighbour_fd = shm_raw_connect(siege.place.path);
    rsi_test_wait_until(shm->link_accept(&neighbour, siege.listener,
                                         RSI_POLLER_ONLY(siege.broker.poller), NULL) == RSI_OK);
    shm_raw_greet(neighbour_fd);
    rsi_test_wait_until(
        (shm_side_pass(&siege.broker, neighbour), rsi_link_state(neighbour) == RSI_LINK_OPEN));

    /* Sends until the socket takes no more although the broker goes on, with nobody emptying the
     * inbox. */
    uint32_t sent = 0;
    uint32_t refused = 0;
    while (refused < 100) {
        struct rsi_shm_body body = {.data = &sent, .bytes = sizeof(sent)};
        rsi_status_t status = rsi_shm_packet_send(siege.raw_fd, RSI_RECORD_CONTROL, 0, body);
        if (status == RSI_OK) {
            sent++;
            refused = 0;
        } else {
            assert_int_equal(status, RSI_WOULD_BLOCK);
            refused++;
        }
        shm_side_pass(&siege.broker, siege.link);
    }
    assert_true(sent > RSI_CONTROL_SLOT_COUNT);
    assert_int_equal(rsi_link_state(siege.link), RSI_LINK_OPEN);
    /* The owner thread may sleep although packets wait: it is the inbox that is full. */
    rsi_test_wait_until((shm_side_pass(&siege.broker, NULL), shm->poller_arm(siege.broker.poller)));
    assert_false(shm_is_readable(shm->poller_fd(siege.broker.poller)));

    shm_raw_packet(neighbour_fd, RSI_RECORD_CONTROL, 0, "hello", 5);
    uint32_t bytes = 0;
    rsi_test_wait_until((shm_side_pass(&siege.broker, neighbour),
                         rsi_link_front_control(neighbour, &bytes) != NULL));
    assert_int_equal(bytes, 5);

    for (uint32_t expected = 0; expected < sent;
         expected++) { /* nothing lost, nothing out of order */
        const void *message = NULL;
        rsi_test_wait_until((message = rsi_link_front_control(siege.link, &bytes),
                             message != NULL || (shm_side_pass(&siege.broker, siege.link), false)));
        assert_memory_equal(message, &expected, sizeof(expected));
        rsi_link_pop_control(siege.link);
    }
    shm_link_end(&siege.broker, neighbour);
    close(neighbour_fd);
    siege_fini(&siege);
}

/* A peer that said more than anybody takes, and went: its end is seen all the same, and meanwhile
 * keeps no owner thread awake. */
static void test_flood_and_gone(void **state)
{
    (void)state;
    struct siege siege;
    siege_open(&siege);
    struct rsi_shm_body body = {.data = "x", .bytes = 1};
    uint32_t refused = 0;
    while (refused < 100) {
        refused += rsi_shm_packet_send(siege.raw_fd, RSI_RECORD_CONTROL, 0, body) != RSI_OK;
        shm_side_pass(&siege.broker, siege.link);
    }
    close(siege.raw_fd);
    siege.raw_fd = -1;
    siege_expect_lost(&siege, RSI_E_LINK_LOST, "more to say");
    rsi_test_wait_until((shm_side_pass(&siege.broker, NULL), shm->poller_arm(siege.broker.poller)));
    assert_false(shm_is_readable(shm->poller_fd(siege.broker.poller)));
    siege_fini(&siege);
}

/* The same on an attached link: all it said is taken, then its end. */
static void test_flood_and_gone_attached(void **state)
{
    (void)state;
    struct shm_pair pair;
    shm_pair_init(&pair);
    shm_pair_attach(&pair, RING_BYTES, RING_BYTES);
    int raw_fd = rsi_shm_link(pair.dialled)->socket_fd;
    int owner_fd = shm->poller_fd(pair.broker.poller);
    struct rsi_shm_body body = {.data = "x", .bytes = 1};
    uint32_t sent = 0;
    uint32_t refused = 0;
    while (refused < 100) {
        bool is_sent = rsi_shm_packet_send(raw_fd, RSI_RECORD_CONTROL, 0, body) == RSI_OK;
        sent += is_sent;
        refused += !is_sent;
        shm_side_pass(&pair.broker, pair.accepted);
    }
    assert_true(sent > RSI_CONTROL_SLOT_COUNT);
    assert_int_equal(shutdown(raw_fd, SHUT_RDWR), 0);
    /* A pass after a wait looks at the sockets; soon there is nothing to wake up for. */
    rsi_test_wait_until((shm->poller_disarm(pair.broker.poller), shm_side_pass(&pair.broker, NULL),
                         shm->poller_arm(pair.broker.poller) && !shm_is_readable(owner_fd)));
    uint32_t taken = 0;
    uint32_t bytes = 0;
    while (rsi_link_state(pair.accepted) == RSI_LINK_ATTACHED || taken < sent) {
        if (rsi_link_front_control(pair.accepted, &bytes) != NULL) {
            rsi_link_pop_control(pair.accepted);
            taken++;
        }
        shm_side_pass(&pair.broker, pair.accepted);
    }
    assert_int_equal(taken, sent);
    shm_pair_fini(&pair);
}

static void test_a_peer_that_never_reads(void **state)
{
    (void)state;
    struct siege siege;
    struct rsi_shm_packet packet;
    siege_attach(&siege, &packet);
    struct rsi_ring_fd_options options = {.name = "in", .capacity_bytes = RING_BYTES};
    struct rsi_arena_fd_options words_options = {.name = "words",
                                                 .bytes = 2 * (uint64_t)RSI_WORDS_BYTES};
    struct rsi_arena words_arena;
    struct rsi_ring in;
    assert_int_equal(rsi_arena_init_fd(&words_arena, packet.fds[0], &words_options, NULL), RSI_OK);
    assert_int_equal(rsi_ring_init_fd(&in, packet.fds[2], &options, NULL), RSI_OK);
    rsi_shm_packet_drop_fds(&packet);
    struct rsi_words *own = (struct rsi_words *)(void *)words_arena.base + RSI_SHM_PAGE_OF_DIALLER;

    /* Asks for a wake-up again and again and reads none: every flush answers, until the socket is
     * full, and none blocks. */
    uint64_t generation = 0;
    assert_int_equal(rsi_load_relaxed(&siege.link->stats.wakes_sent), 0);
    while (rsi_load_relaxed(&siege.link->stats.wakes_sent) == generation) {
        rsi_shm_words_request(own, 0, 0, ++generation);
        while (!shm_stage(siege.link, generation, 8)) {
            rsi_shm_words_publish_consumed(own, siege.link->placed_pos);
            shm_side_pass(&siege.broker, siege.link);
        }
        rsi_link_place(siege.link);
        assert_int_equal(rsi_link_flush(siege.link), RSI_OK);
    }
    assert_true(generation > 1);
    while (rsi_link_send_control(siege.link, "stuck", 5) == RSI_OK) {
        shm_side_pass(&siege.broker, siege.link);
    }
    assert_int_equal(rsi_link_state(siege.link), RSI_LINK_ATTACHED);
    rsi_test_wait_until((shm_side_pass(&siege.broker, NULL), shm->poller_arm(siege.broker.poller)));

    /* Closing waits a second for the outbox, not longer. */
    shm->link_close(siege.link);
    shm_side_pass(&siege.broker, siege.link);
    assert_int_equal(rsi_link_state(siege.link), RSI_LINK_CLOSING);
    uint64_t late_ns = rsi_clock_now_ns() + UINT64_C(1100000000);
    (void)rsi_poller_poll(siege.broker.poller, late_ns);
    shm->link_poll_control(siege.link, late_ns);
    assert_int_equal(rsi_link_state(siege.link), RSI_LINK_CLOSED);
    shm->link_destroy(siege.link);
    siege.link = NULL;
    rsi_ring_fini(&in);
    rsi_arena_fini(&words_arena);
    siege_fini(&siege);
}

/* ---- hostile broker ------------------------------------------------------------------------- */

/* A memory file; sealed unless `spoil` says how not. */
static int memory_file(uint64_t bytes, bool use_seal)
{
    int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    if (use_seal) {
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    }
    return fd;
}

/* Hands the files to a client that agreed on one ring of RING_BYTES to it. */
static void serve_files(const int *fds, uint32_t fd_count, rsi_status_t status, const char *text)
{
    struct shm_place place;
    shm_place_init(&place);
    int listener_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct sockaddr_un address;
    rsi_shm_address_set(&address, place.path);
    assert_int_equal(bind(listener_fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener_fd, 1), 0);
    struct shm_side client;
    shm_side_init(&client, NULL);
    struct rsi_link *link;
    assert_int_equal(shm->link_dial(&link, client.poller, &place.url, NULL), RSI_OK);
    int raw_fd = accept4(listener_fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(raw_fd >= 0);
    shm_raw_greet(raw_fd);
    rsi_test_wait_until((shm_side_pass(&client, link), rsi_link_state(link) == RSI_LINK_OPEN));

    uint32_t open_count = shm_open_fd_count();
    struct {
        struct rsi_record_header header;
        struct rsi_attach attach;
    } attach = {.header = {.kind = RSI_RECORD_ATTACH, .bytes = sizeof(struct rsi_attach)}};
    shm_raw_send(raw_fd, &attach, sizeof(attach), fds, fd_count);
    struct rsi_link_rings rings = {.in_bytes = RING_BYTES};
    assert_int_equal(shm->link_attach(link, &rings, NULL), RSI_OK);
    rsi_test_wait_until((shm_side_pass(&client, link), rsi_link_state(link) == RSI_LINK_LOST));
    if (link->error.status != status || strstr(link->error.text, text) == NULL) {
        fail_msg("expected '%s', got %s: %s", text, rsi_status_name(link->error.status),
                 link->error.text);
    }
    assert_int_equal(shm_open_fd_count(), open_count);
    shm_link_end(&client, link);
    shm_side_fini(&client);
    close(raw_fd);
    close(listener_fd);
    shm_place_fini(&place);
}

static void test_client_checks_memory_files(void **state)
{
    (void)state;
    uint64_t words_bytes = rsi_align_up(2 * (uint64_t)RSI_WORDS_BYTES, rsi_page_bytes());
    int words = memory_file(words_bytes, true);
    int ring = memory_file(RING_BYTES, true);
    int unsealed = memory_file(RING_BYTES, false);
    int small = memory_file(RING_BYTES / 2, true);
    int ends[2];
    assert_int_equal(pipe(ends), 0);

    serve_files(NULL, 0, RSI_E_PROTOCOL, "0 memory files where 2");
    serve_files((int[]){words}, 1, RSI_E_PROTOCOL, "1 memory files where 2");
    serve_files((int[]){words, ring, ring}, 3, RSI_E_PROTOCOL, "3 memory files where 2");
    serve_files((int[]){words, ring, ring, ring, ring}, 5, RSI_E_PROTOCOL, "more descriptors");
    serve_files((int[]){words, ring, ring, ring, ring, ring, ring, ring, ring, ring, ring, ring},
                12, RSI_E_PROTOCOL, "more descriptors");
    serve_files((int[]){words, unsealed}, 2, RSI_E_DENIED, "not sealed");
    serve_files((int[]){words, small}, 2, RSI_E_INVALID, "were agreed");
    serve_files((int[]){ring, words}, 2, RSI_E_INVALID, "were agreed");
    serve_files((int[]){words, ends[0]}, 2, RSI_E_INVALID, "no memory file");
    const int files[] = {words, ring, unsealed, small, ends[0], ends[1]};
    for (size_t i = 0; i < rsi_array_count(files); i++) {
        close(files[i]);
    }
}

int main(void)
{
    rsi_clock_prepare();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_first_packets),
        cmocka_unit_test(test_no_greeting_and_an_early_end),
        cmocka_unit_test(test_uninvited_descriptors_are_not_kept),
        cmocka_unit_test(test_wrong_packets_on_an_open_link),
        cmocka_unit_test(test_memory_cannot_change_size),
        cmocka_unit_test(test_absurd_commit_words),
        cmocka_unit_test(test_lies_about_consumption),
        cmocka_unit_test(test_scribbling_over_everything),
        cmocka_unit_test(test_flood_is_held_back),
        cmocka_unit_test(test_flood_and_gone),
        cmocka_unit_test(test_flood_and_gone_attached),
        cmocka_unit_test(test_a_peer_that_never_reads),
        cmocka_unit_test(test_client_checks_memory_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
