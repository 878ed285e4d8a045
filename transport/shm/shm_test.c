/*
 * Two well-behaved sides: what the conformance suite cannot see of shm.
 *
 * Design notes
 * - Sleep and wake are stepped in one thread, where every interleaving that is tested is exact; the
 *   threaded test then looks for a lost wake-up in those that cannot be stepped.
 * - The test without system calls runs in a child under seccomp: one call ends it with SIGSYS.
 */
#include "transport/shm/shm_testing.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { RING_BYTES = 65536 };

/* Rounds of the threaded tests: the thread sanitizer makes each of them some ten times longer. */
enum {
    PING_PONG_COUNT = RSI_THREAD_SANITIZER ? 2000 : 20000,
    RACE_COUNT = RSI_THREAD_SANITIZER ? 3000 : 30000,
    STREAM_COUNT = RSI_THREAD_SANITIZER ? 20000 : 200000,
};

/* The longest that a race of busy waits goes on. */
#define RACE_NS UINT64_C(10000000000)

static const struct rsi_transport *const shm = &rsi_shm_transport;

/* ---- data ----------------------------------------------------------------------------------- */

static void test_frames_cross_the_end_of_the_ring(void **state)
{
    (void)state;
    uint64_t seed = rsi_test_seed();
    struct shm_pair pair;
    shm_pair_init(&pair);
    shm_pair_attach(&pair, RING_BYTES, RING_BYTES);
    uint64_t staged = 0;
    uint64_t read = 0;
    /* Random batches, some read late: fills the ring, laps it some hundred times. */
    while (read < 20000) {
        uint64_t batch = rsi_test_random(&seed) % 40;
        for (uint64_t i = 0; i < batch; i++) {
            if (!shm_stage(pair.dialled, staged, (uint32_t)(rsi_test_random(&seed) % 4000))) {
                break;
            }
            staged++;
        }
        rsi_link_place(pair.dialled);
        assert_int_equal(rsi_link_flush(pair.dialled), RSI_OK);
        shm_pair_pass(&pair);
        uint64_t mark;
        uint32_t payload_bytes;
        for (uint64_t i = rsi_test_random(&seed) % 60; i > 0; i--) {
            if (!shm_read(pair.accepted, &mark, &payload_bytes)) {
                break;
            }
            assert_int_equal(mark, read);
            read++;
        }
    }
    assert_true(pair.dialled->placed_pos > 100 * RING_BYTES);
    assert_int_equal(rsi_load_relaxed(&pair.dialled->stats.wakes_sent), 0);
    shm_pair_fini(&pair);
}

static void test_one_way_and_no_rings(void **state)
{
    (void)state;
    for (int mode = 0; mode < 3; mode++) {
        struct shm_pair pair;
        shm_pair_init(&pair);
        shm_pair_attach(&pair, mode == 1 ? RING_BYTES : 0, mode == 2 ? RING_BYTES : 0);
        struct rsi_link *from = mode == 1 ? pair.dialled : pair.accepted;
        struct rsi_link *to = mode == 1 ? pair.accepted : pair.dialled;
        assert_int_equal(shm_stage(from, 5, 100), mode != 0);
        rsi_link_place(from);
        assert_int_equal(rsi_link_flush(from), RSI_OK);
        shm_pair_pass(&pair);
        uint64_t mark = 0;
        uint32_t payload_bytes = 0;
        assert_int_equal(shm_read(to, &mark, &payload_bytes), mode != 0);
        assert_int_equal(mark, mode != 0 ? 5 : 0);
        assert_true(shm->poller_arm(pair.broker.poller));
        assert_true(shm->poller_arm(pair.client.poller));
        shm_pair_fini(&pair);
    }
}

/* ---- sleep and wake ------------------------------------------------------------------------- */

/* Passes until the side may sleep. */
static void sleep_side(struct shm_side *side)
{
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    while (!shm->poller_arm(side->poller)) {
        shm_side_pass(side, NULL);
        assert_true(rsi_test_now_ns() < deadline_ns);
    }
}

static uint64_t wakes_sent(struct rsi_link *link)
{
    return rsi_load_relaxed(&link->stats.wakes_sent);
}

static void send_one(struct rsi_link *link, uint64_t mark)
{
    assert_true(shm_stage(link, mark, 64));
    rsi_link_place(link);
    assert_int_equal(rsi_link_flush(link), RSI_OK);
}

static void test_arrival_wakes_once(void **state)
{
    (void)state;
    struct shm_pair pair;
    shm_pair_init(&pair);
    shm_pair_attach(&pair, RING_BYTES, RING_BYTES);
    int fd = shm->poller_fd(pair.broker.poller);
    uint64_t mark;
    uint32_t payload_bytes;

    sleep_side(&pair.broker);
    assert_false(shm_is_readable(fd));
    uint64_t requests = rsi_load_relaxed(&pair.accepted->stats.wake_requests);
    shm->poller_disarm(pair.broker.poller);
    shm_side_pass(&pair.broker, NULL);
    sleep_side(&pair.broker); /* woken for nothing: the same request stands */
    assert_int_equal(rsi_load_relaxed(&pair.accepted->stats.wake_requests), requests);

    send_one(pair.dialled, 1);
    assert_true(shm_is_readable(fd));
    assert_int_equal(wakes_sent(pair.dialled), 1);
    send_one(pair.dialled, 2); /* one request, one answer */
    assert_int_equal(wakes_sent(pair.dialled), 1);

    shm->poller_disarm(pair.broker.poller);
    shm_side_pass(&pair.broker, NULL);
    assert_true(shm_read(pair.accepted, &mark, &payload_bytes));
    assert_true(shm_read(pair.accepted, &mark, &payload_bytes));
    assert_int_equal(mark, 2);
    sleep_side(&pair.broker);
    assert_false(shm_is_readable(fd));
    send_one(pair.dialled, 3);
    assert_int_equal(wakes_sent(pair.dialled), 2);
    shm_pair_fini(&pair);
}

static void test_arming_sees_what_came_before(void **state)
{
    (void)state;
    struct shm_pair pair;
    shm_pair_init(&pair);
    shm_pair_attach(&pair, RING_BYTES, RING_BYTES);
    send_one(pair.dialled, 1);
    assert_false(shm->poller_arm(pair.broker.poller)); /* a frame */
    shm_side_pass(&pair.broker, NULL);
    sleep_side(&pair.broker);
    assert_int_equal(rsi_link_send_control(pair.accepted, "x", 1), RSI_OK);
    assert_false(shm->poller_arm(pair.broker.poller)); /* a control message to send */
    shm_side_pass(&pair.broker, NULL);
    sleep_side(&pair.broker);
    shm->link_close(pair.accepted);
    assert_false(shm->poller_arm(pair.broker.poller)); /* a link to let go of */
    shm_pair_fini(&pair);
}

static void test_consumption_wakes(void **state)
{
    (void)state;
    struct shm_pair pair;
    shm_pair_init(&pair);
    shm_pair_attach(&pair, RING_BYTES, RING_BYTES);
    uint64_t staged = 0;
    while (shm_stage(pair.dialled, staged, 1000)) {
        staged++;
    }
    rsi_link_place(pair.dialled);
    assert_int_equal(rsi_link_flush(pair.dialled), RSI_OK);

    int fd = shm->poller_fd(pair.client.poller);
    rsi_link_request_wake(pair.dialled, UINT64_MAX, UINT64_MAX, RING_BYTES / 4);
    sleep_side(&pair.client);
    uint64_t mark;
    uint32_t payload_bytes;
    while (pair.accepted->consumed_pos < RING_BYTES / 4) {
        assert_false(shm_is_readable(fd));
        if (!shm_read(pair.accepted, &mark, &payload_bytes)) {
            shm_side_pass(&pair.broker, NULL);
        }
    }
    /* It may be told a little late, but not later than a sixteenth of the ring. */
    while (!shm_is_readable(fd)) {
        assert_true(shm_read(pair.accepted, &mark, &payload_bytes));
        assert_true(pair.accepted->consumed_pos < RING_BYTES / 4 + RING_BYTES / 16 + 2000);
    }
    assert_int_equal(wakes_sent(pair.accepted), 1);
    shm->poller_disarm(pair.client.poller);
    shm_side_pass(&pair.client, NULL);
    assert_true(pair.dialled->peer_consumed_pos >= RING_BYTES / 4);
    assert_true(shm_stage(pair.dialled, staged, 1000));
    shm_pair_fini(&pair);
}

/* A reader that sleeps has told all that it consumed. */
static void test_sleep_publishes_consumed(void **state)
{
    (void)state;
    struct shm_pair pair;
    shm_pair_init(&pair);
    shm_pair_attach(&pair, RING_BYTES, RING_BYTES);
    uint64_t staged = 0;
    while (shm_stage(pair.dialled, staged, 100)) {
        staged++;
    }
    rsi_link_place(pair.dialled);
    assert_int_equal(rsi_link_flush(pair.dialled), RSI_OK);
    shm_side_pass(&pair.broker, NULL);
    uint64_t mark;
    uint32_t payload_bytes;
    assert_true(shm_read(pair.accepted, &mark, &payload_bytes));
    uint64_t consumed_pos = pair.accepted->consumed_pos;
    shm_side_pass(&pair.client, NULL);
    assert_int_equal(pair.dialled->peer_consumed_pos, 0); /* coalesced */

    rsi_link_request_wake(pair.dialled, UINT64_MAX, UINT64_MAX, consumed_pos);
    sleep_side(&pair.client);
    (void)shm->poller_arm(pair.broker.poller);
    assert_true(shm_is_readable(shm->poller_fd(pair.client.poller)));
    shm->poller_disarm(pair.client.poller);
    shm_side_pass(&pair.client, NULL);
    assert_int_equal(pair.dialled->peer_consumed_pos, consumed_pos);
    shm_pair_fini(&pair);
}

/* One end of the threaded ping-pong: sleeps whenever it may. */
struct sleeper {
    struct shm_side *side;
    struct rsi_link *link;
    bool begins;
    uint64_t round_count;
    uint64_t sleep_count;
    uint64_t timed_out_count;
};

static void sleeper_wait(struct sleeper *self)
{
    if (shm->poller_arm(self->side->poller)) {
        self->sleep_count++;
        struct pollfd entry = {.fd = shm->poller_fd(self->side->poller), .events = POLLIN};
        if (poll(&entry, 1, (int)(RSI_TEST_HANG_NS / 1000000)) == 0) {
            self->timed_out_count++;
        }
    }
    shm->poller_disarm(self->side->poller);
}

static void *sleeper_run(void *arg)
{
    struct sleeper *self = arg;
    uint64_t mark = 0;
    uint32_t payload_bytes;
    if (self->begins) {
        send_one(self->link, 0);
    }
    for (uint64_t round = 0; round < self->round_count && self->timed_out_count == 0;) {
        (void)rsi_poller_poll(self->side->poller, rsi_clock_now_ns());
        if (!shm_read(self->link, &mark, &payload_bytes)) {
            sleeper_wait(self);
            continue;
        }
        round++;
        if (!self->begins || round < self->round_count) {
            send_one(self->link, round);
        }
    }
    return NULL;
}

static void test_no_wake_is_lost_between_threads(void **state)
{
    (void)state;
    struct shm_pair pair;
    shm_pair_init(&pair);
    shm_pair_attach(&pair, RING_BYTES, RING_BYTES);
    struct sleeper broker = {
        .side = &pair.broker, .link = pair.accepted, .round_count = PING_PONG_COUNT};
    struct sleeper client = {
        .side = &pair.client, .link = pair.dialled, .begins = true, .round_count = PING_PONG_COUNT};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, sleeper_run, &broker), 0);
    (void)sleeper_run(&client);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(broker.timed_out_count, 0);
    assert_int_equal(client.timed_out_count, 0);
    assert_true(broker.sleep_count + client.sleep_count > 0);
    shm_pair_fini(&pair);
}

/* Sends one frame per round, at the moment when the other side goes to sleep, until begun is
 * RACE_OVER. */
struct racer {
    struct rsi_link *link;
    uint64_t seed;
    _Atomic uint64_t begun;
    _Atomic uint64_t done;
};

#define RACE_OVER UINT64_MAX

/* Some cycles each. */
static void spin(uint64_t turns)
{
    for (uint64_t i = 0; i < turns; i++) {
        __asm__ volatile("" ::: "memory");
    }
}

/* Spins, as only then the two sides meet within some cycles; gives way where they share a CPU. */
static uint64_t wait_for_round(_Atomic uint64_t *word, uint64_t round)
{
    uint64_t seen;
    for (unsigned turns = 1; (seen = rsi_load_acquire(word)) < round; turns++) {
        rsi_cpu_pause();
        if (turns % 1024 == 0) {
            sched_yield();
        }
    }
    return seen;
}

static void *racer_run(void *arg)
{
    struct racer *self = arg;
    for (uint64_t round = 1; wait_for_round(&self->begun, round) != RACE_OVER; round++) {
        spin(rsi_test_random(&self->seed) % 256);
        send_one(self->link, round);
        rsi_store_release(&self->done, round);
    }
    return NULL;
}

/* The race itself, without the sleep: who was allowed to sleep was sent a wake-up. The sleeper's
 * delay follows the outcome, so that the two meet. A busy host plays fewer rounds. */
static void test_sleeper_or_sender_sees_the_other(void **state)
{
    (void)state;
    uint64_t seed = rsi_test_seed();
    struct shm_pair pair;
    shm_pair_init(&pair);
    shm_pair_attach(&pair, RING_BYTES, RING_BYTES);
    struct racer sender = {.link = pair.dialled, .seed = seed + 1};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, racer_run, &sender), 0);
    uint64_t slept_count = 0;
    uint64_t lost_count = 0;
    uint64_t delay = 0;
    uint64_t end_ns = rsi_clock_now_ns() + RACE_NS;
    for (uint64_t round = 1; round <= RACE_COUNT && rsi_clock_now_ns() < end_ns; round++) {
        uint64_t wakes = wakes_sent(pair.dialled);
        rsi_store_release(&sender.begun, round);
        spin(delay + rsi_test_random(&seed) % 256);
        bool may_sleep = shm->poller_arm(pair.broker.poller);
        (void)wait_for_round(&sender.done, round);
        slept_count += may_sleep;
        delay = may_sleep ? delay + 16 : delay - rsi_pos_min(delay, 16);
        lost_count += may_sleep && wakes_sent(pair.dialled) == wakes;
        uint64_t mark = 0;
        uint32_t payload_bytes;
        while (mark != round) { /* also takes the packet */
            (void)rsi_poller_poll(pair.broker.poller, rsi_clock_now_ns());
            (void)shm_read(pair.accepted, &mark, &payload_bytes);
        }
        /* Room for the next frame; its owner is at rest until the next round. */
        (void)rsi_poller_poll(pair.client.poller, rsi_clock_now_ns());
    }
    rsi_store_release(&sender.begun, RACE_OVER);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(lost_count, 0);
    assert_true(slept_count > 0);
    shm_pair_fini(&pair);
}

/* Writes round_count frames of a kilobyte; sleeps when the ring is full. */
static void *writer_run(void *arg)
{
    struct sleeper *self = arg;
    for (uint64_t sent = 0; sent < self->round_count && self->timed_out_count == 0;) {
        (void)rsi_poller_poll(self->side->poller, rsi_clock_now_ns());
        if (shm_stage(self->link, sent, 1000)) {
            sent++;
            rsi_link_place(self->link);
            (void)rsi_link_flush(self->link);
        } else {
            rsi_link_request_wake(self->link, UINT64_MAX, UINT64_MAX,
                                  self->link->placed_pos - RING_BYTES / 2);
            sleeper_wait(self);
        }
    }
    return NULL;
}

static void *reader_run(void *arg)
{
    struct sleeper *self = arg;
    for (uint64_t read = 0; read < self->round_count && self->timed_out_count == 0;) {
        uint64_t mark;
        uint32_t payload_bytes;
        (void)rsi_poller_poll(self->side->poller, rsi_clock_now_ns());
        if (!shm_read(self->link, &mark, &payload_bytes)) {
            sleeper_wait(self);
            continue;
        }
        do {
            read++;
        } while (shm_read(self->link, &mark, &payload_bytes));
    }
    return NULL;
}

static void test_no_wake_is_lost_when_the_ring_is_full(void **state)
{
    (void)state;
    struct shm_pair pair;
    shm_pair_init(&pair);
    shm_pair_attach(&pair, RING_BYTES, 0);
    struct sleeper reader = {
        .side = &pair.broker, .link = pair.accepted, .round_count = STREAM_COUNT};
    struct sleeper writer = {
        .side = &pair.client, .link = pair.dialled, .round_count = STREAM_COUNT};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, reader_run, &reader), 0);
    (void)writer_run(&writer);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(reader.timed_out_count, 0);
    assert_int_equal(writer.timed_out_count, 0);
    assert_true(writer.sleep_count > 0);
    shm_pair_fini(&pair);
}

/* ---- the end of a peer ---------------------------------------------------------------------- */

static void test_frames_of_a_dead_process_are_read(void **state)
{
    (void)state;
    struct shm_place place;
    shm_place_init(&place);
    struct shm_side broker;
    shm_side_init(&broker, NULL);
    struct rsi_listener *listener;
    assert_int_equal(shm->listener_create(&listener, broker.domain, &place.url, NULL), RSI_OK);

    enum { FRAME_COUNT = 1000 }; /* more than one pass takes over */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct shm_side client;
        shm_side_init(&client, NULL);
        struct rsi_link *link;
        bool fine = shm->link_dial(&link, client.poller, &place.url, NULL) == RSI_OK;
        struct rsi_link_rings rings = {.out_bytes = 4 * RING_BYTES};
        while (fine && rsi_link_state(link) != RSI_LINK_ATTACHED) {
            shm_side_pass(&client, link);
            if (rsi_link_state(link) == RSI_LINK_OPEN) {
                fine = shm->link_attach(link, &rings, NULL) == RSI_OK;
            }
        }
        for (uint64_t i = 0; fine && i < FRAME_COUNT; i++) {
            fine = shm_stage(link, i, 8);
            rsi_link_place(link);
        }
        _exit(fine ? 0 : 1);
    }

    struct rsi_link *link = NULL;
    struct rsi_link_rings rings = {.in_bytes = 4 * RING_BYTES};
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    while (link == NULL || rsi_link_state(link) != RSI_LINK_LOST) {
        assert_true(rsi_test_now_ns() < deadline_ns);
        if (link == NULL) {
            (void)shm->link_accept(&link, listener, RSI_POLLER_ONLY(broker.poller), NULL);
        }
        shm_side_pass(&broker, link);
        if (link != NULL && rsi_link_state(link) == RSI_LINK_OPEN) {
            assert_int_equal(shm->link_attach(link, &rings, NULL), RSI_OK);
        }
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(link->error.status, RSI_E_LINK_LOST);
    assert_non_null(strstr(link->error.text, "ended without closing"));
    uint64_t mark = 0;
    uint32_t payload_bytes;
    for (uint64_t i = 0; i < FRAME_COUNT; i++) {
        assert_true(shm_read(link, &mark, &payload_bytes));
        assert_int_equal(mark, i);
    }
    assert_false(shm_read(link, &mark, &payload_bytes));
    shm_link_end(&broker, link);
    shm->listener_destroy(listener);
    shm_side_fini(&broker);
    shm_place_fini(&place);
}

static void test_close_is_told_from_death(void **state)
{
    (void)state;
    struct shm_pair pair;
    shm_pair_init(&pair);
    shm_pair_attach(&pair, RING_BYTES, RING_BYTES);
    assert_int_equal(rsi_link_send_control(pair.dialled, "bye", 3), RSI_OK);
    shm_link_end(&pair.client, pair.dialled);
    pair.dialled = NULL;
    shm_pair_until(&pair, rsi_link_state(pair.accepted) == RSI_LINK_LOST);
    assert_int_equal(pair.accepted->error.status, RSI_E_LINK_CLOSED);
    uint32_t bytes;
    const void *message = rsi_link_front_control(pair.accepted, &bytes);
    assert_non_null(message);
    assert_int_equal(bytes, 3);
    assert_memory_equal(message, "bye", 3);
    shm_pair_fini(&pair);
}

/* ---- system calls --------------------------------------------------------------------------- */

/* _exit() without what a sanitizer adds to it. */
static void leave(int code)
{
    (void)syscall(SYS_exit_group, code);
}

/* Every system call but exit_group ends the process. */
static void forbid_system_calls(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {.len = (unsigned short)rsi_array_count(filter), .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) {
        _exit(3);
    }
}

/* Frames each way, in bursts, with all that a busy duty cycle does; the clock stands still. */
static bool exchange(struct shm_pair *pair, uint64_t now_ns, uint64_t frame_count)
{
    uint64_t sent = 0;
    uint64_t seen = 0;
    uint64_t echoed = 0;
    uint64_t mark;
    uint32_t payload_bytes;
    while (echoed < frame_count) {
        for (int i = 0; i < 20 && sent < frame_count && shm_stage(pair->dialled, sent, 64); i++) {
            sent++;
        }
        rsi_link_place(pair->dialled);
        if (rsi_link_flush_clocked(pair->dialled) != RSI_OK) {
            return false;
        }
        (void)rsi_poller_poll(pair->broker.poller, now_ns);
        while (rsi_link_room_bytes(pair->accepted) > 128 &&
               shm_read(pair->accepted, &mark, &payload_bytes)) {
            if (mark != seen++ || !shm_stage(pair->accepted, mark, payload_bytes)) {
                return false;
            }
        }
        rsi_link_place(pair->accepted);
        if (rsi_link_flush_clocked(pair->accepted) != RSI_OK) {
            return false;
        }
        (void)rsi_poller_poll(pair->client.poller, now_ns);
        while (shm_read(pair->dialled, &mark, &payload_bytes)) {
            if (mark != echoed++) {
                return false;
            }
        }
    }
    return true;
}

static void test_no_system_call_while_both_are_busy(void **state)
{
    (void)state;
    struct shm_pair pair;
    shm_pair_init(&pair);
    shm_pair_attach(&pair, RING_BYTES, RING_BYTES);
    uint64_t now_ns = rsi_clock_now_ns();
    assert_true(exchange(&pair, now_ns, 1000)); /* warm */

    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        forbid_system_calls();
        leave(exchange(&pair, now_ns, 100000) ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) {
        fail_msg("the exchange made a system call (signal %d)", WTERMSIG(status));
    }
    assert_int_equal(WEXITSTATUS(status), 0);

    /* The trap works: looking at the sockets, 10 ms later, is a system call. */
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        forbid_system_calls();
        (void)rsi_poller_poll(pair.broker.poller, now_ns + UINT64_C(1000000000));
        leave(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    /* The children used the same memory: the positions of this process are of the past. */
    shm_pair_fini(&pair);
}

/* ---- the socket file ------------------------------------------------------------------------ */

static void test_stale_socket_is_replaced(void **state)
{
    (void)state;
    struct shm_place place;
    shm_place_init(&place);
    struct shm_side side;
    shm_side_init(&side, NULL);
    int dead = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    struct sockaddr_un address;
    rsi_shm_address_set(&address, place.path);
    assert_int_equal(bind(dead, (struct sockaddr *)&address, sizeof(address)), 0);
    close(dead); /* as a killed broker leaves it */

    struct rsi_link *link;
    struct rsi_error error = {0};
    assert_int_equal(shm->link_dial(&link, side.poller, &place.url, &error), RSI_E_REFUSED);
    assert_non_null(strstr(error.text, "ended"));
    struct rsi_listener *listener;
    assert_int_equal(shm->listener_create(&listener, side.domain, &place.url, NULL), RSI_OK);
    assert_string_equal(shm->listener_url(listener) + strlen("shm://"), place.path);
    struct stat info;
    assert_int_equal(stat(place.path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0666);
    shm->listener_destroy(listener);
    assert_int_not_equal(stat(place.path, &info), 0);
    assert_int_equal(shm->link_dial(&link, side.poller, &place.url, &error), RSI_E_NOT_FOUND);
    shm_side_fini(&side);
    shm_place_fini(&place);
}

static void test_live_socket_and_other_files_stay(void **state)
{
    (void)state;
    struct shm_place place;
    shm_place_init(&place);
    struct shm_side side;
    shm_side_init(&side, NULL);
    struct rsi_listener *first;
    struct rsi_listener *second;
    struct rsi_error error = {0};
    assert_int_equal(shm->listener_create(&first, side.domain, &place.url, NULL), RSI_OK);
    assert_int_equal(shm->listener_create(&second, side.domain, &place.url, &error), RSI_E_ADDRESS);
    assert_non_null(strstr(error.text, "in use"));

    /* Somebody removed our file and made another: it is not ours to remove. */
    assert_int_equal(unlink(place.path), 0);
    assert_int_equal(shm->listener_create(&second, side.domain, &place.url, NULL), RSI_OK);
    shm->listener_destroy(first);
    struct stat info;
    assert_int_equal(stat(place.path, &info), 0);
    shm->listener_destroy(second);

    FILE *file = fopen(place.path, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(shm->listener_create(&first, side.domain, &place.url, &error), RSI_E_ADDRESS);
    assert_non_null(strstr(error.text, "no socket"));
    assert_int_equal(stat(place.path, &info), 0);

    struct rsi_url deep = place.url;
    assert_true(snprintf(deep.path, sizeof(deep.path), "%s/a/b/s", place.directory) > 0);
    assert_int_equal(shm->listener_create(&first, side.domain, &deep, &error), RSI_E_ADDRESS);
    assert_true(snprintf(deep.path, sizeof(deep.path), "%s/a/s", place.directory) > 0);
    assert_int_equal(shm->listener_create(&first, side.domain, &deep, NULL), RSI_OK);
    shm->listener_destroy(first);
    char directory[80];
    snprintf(directory, sizeof(directory), "%s/a", place.directory);
    assert_int_equal(rmdir(directory), 0);
    shm_side_fini(&side);
    shm_place_fini(&place);
}

/* ---- who may connect ------------------------------------------------------------------------ */

/* Dials as `uid` in a child; returns what became of it: 0 OPEN, 1 refused with that uid in the
 * text. */
static int dial_as(struct shm_place *place, struct shm_side *broker, struct rsi_listener *listener,
                   uid_t uid, rsi_status_t *accept_status)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (setresuid(uid, uid, uid) != 0) {
            _exit(4);
        }
        struct shm_side client;
        shm_side_init(&client, NULL);
        struct rsi_link *link;
        if (shm->link_dial(&link, client.poller, &place->url, NULL) != RSI_OK) {
            _exit(3);
        }
        while (rsi_link_state(link) == RSI_LINK_CONNECTING) {
            shm_side_pass(&client, link);
        }
        char number[16];
        snprintf(number, sizeof(number), "%u", (unsigned)uid);
        bool is_refused = link->error.status == RSI_E_REFUSED &&
                          strstr(link->error.text, number) != NULL &&
                          strstr(link->error.text, "allowed_uids") != NULL;
        _exit(rsi_link_state(link) == RSI_LINK_OPEN ? 0 : is_refused ? 1 : 2);
    }
    struct rsi_link *link = NULL;
    *accept_status = RSI_WOULD_BLOCK;
    int status = 0;
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    while (waitpid(child, &status, WNOHANG) == 0) {
        assert_true(rsi_test_now_ns() < deadline_ns);
        if (*accept_status == RSI_WOULD_BLOCK) {
            *accept_status =
                shm->link_accept(&link, listener, RSI_POLLER_ONLY(broker->poller), NULL);
        }
        shm_side_pass(broker, link);
    }
    shm_link_end(broker, link);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_user_ids(void **state)
{
    (void)state;
    static const uint32_t allowed[] = {4242};
    struct rsi_domain_options options = {
        .node = RSI_NODE_ANY, .allowed_uids = allowed, .allowed_uid_count = 1};
    struct shm_place place;
    shm_place_init(&place);
    struct shm_side broker;
    shm_side_init(&broker, &options);
    struct rsi_listener *listener;
    assert_int_equal(shm->listener_create(&listener, broker.domain, &place.url, NULL), RSI_OK);
    rsi_status_t accept_status;
    assert_int_equal(dial_as(&place, &broker, listener, geteuid(), &accept_status), 0);
    assert_int_equal(accept_status, RSI_OK);
    if (geteuid() == 0) {
        assert_int_equal(dial_as(&place, &broker, listener, 4242, &accept_status), 0);
        assert_int_equal(accept_status, RSI_OK);
        assert_int_equal(dial_as(&place, &broker, listener, 65534, &accept_status), 1);
        assert_int_equal(accept_status, RSI_E_DENIED);
    } else {
        print_message("not root: another user's refusal cannot be had; that a change of user id "
                      "fails, and that the own one is served, was checked\n");
        assert_int_equal(dial_as(&place, &broker, listener, geteuid() + 1, &accept_status), 4);
    }
    shm->listener_destroy(listener);
    shm_side_fini(&broker);
    shm_place_fini(&place);
}

static void test_versions_are_named(void **state)
{
    (void)state;
    struct shm_place place;
    shm_place_init(&place);
    struct rsi_domain_options newer = {.node = RSI_NODE_ANY, .version_min = 8, .version_max = 9};
    struct shm_side broker;
    struct shm_side client;
    shm_side_init(&broker, NULL);
    shm_side_init(&client, &newer);
    struct rsi_listener *listener;
    struct rsi_link *accepted = NULL;
    struct rsi_link *dialled;
    assert_int_equal(shm->listener_create(&listener, broker.domain, &place.url, NULL), RSI_OK);
    assert_int_equal(shm->link_dial(&dialled, client.poller, &place.url, NULL), RSI_OK);
    rsi_test_wait_until(
        shm->link_accept(&accepted, listener, RSI_POLLER_ONLY(broker.poller), NULL) == RSI_OK);
    rsi_test_wait_until(
        (shm_side_pass(&broker, accepted), shm_side_pass(&client, dialled),
         rsi_link_state(accepted) == RSI_LINK_LOST && rsi_link_state(dialled) == RSI_LINK_LOST));
    assert_int_equal(accepted->error.status, RSI_E_VERSION);
    assert_int_equal(dialled->error.status, RSI_E_VERSION);
    assert_non_null(strstr(dialled->error.text, "8"));
    shm_link_end(&broker, accepted);
    shm_link_end(&client, dialled);
    shm->listener_destroy(listener);
    shm_side_fini(&client);
    shm_side_fini(&broker);
    shm_place_fini(&place);
}

static void test_too_many_links_are_told_so(void **state)
{
    (void)state;
    struct shm_pair pair;
    shm_pair_init(&pair);
    rsi_shm_poller(pair.broker.poller)->base.link_count_max = 1;
    struct rsi_link *second;
    assert_int_equal(shm->link_dial(&second, pair.client.poller, &pair.place.url, NULL), RSI_OK);
    struct rsi_link *refused = NULL;
    rsi_status_t status = RSI_WOULD_BLOCK;
    rsi_test_wait_until((status = shm->link_accept(&refused, pair.listener,
                                                   RSI_POLLER_ONLY(pair.broker.poller), NULL)) !=
                        RSI_WOULD_BLOCK);
    assert_int_equal(status, RSI_E_LIMIT);
    rsi_test_wait_until(
        (shm_side_pass(&pair.client, second), rsi_link_state(second) == RSI_LINK_LOST));
    assert_int_equal(second->error.status, RSI_E_REFUSED);
    assert_non_null(strstr(second->error.text, "as many links"));
    shm_link_end(&pair.client, second);
    shm_pair_fini(&pair);
}

int main(void)
{
    rsi_clock_prepare();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_cross_the_end_of_the_ring),
        cmocka_unit_test(test_one_way_and_no_rings),
        cmocka_unit_test(test_arrival_wakes_once),
        cmocka_unit_test(test_arming_sees_what_came_before),
        cmocka_unit_test(test_consumption_wakes),
        cmocka_unit_test(test_sleep_publishes_consumed),
        cmocka_unit_test(test_no_wake_is_lost_between_threads),
        cmocka_unit_test(test_sleeper_or_sender_sees_the_other),
        cmocka_unit_test(test_no_wake_is_lost_when_the_ring_is_full),
        cmocka_unit_test(test_frames_of_a_dead_process_are_read),
        cmocka_unit_test(test_close_is_told_from_death),
        cmocka_unit_test(test_no_system_call_while_both_are_busy),
        cmocka_unit_test(test_stale_socket_is_replaced),
        cmocka_unit_test(test_live_socket_and_other_files_stay),
        cmocka_unit_test(test_user_ids),
        cmocka_unit_test(test_versions_are_named),
        cmocka_unit_test(test_too_many_links_are_told_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
