/*
 * A peer that does with its queue pair what it likes, at the level of verbs. It loses its own link,
 * with an error that says what it did, or its attempts are of no consequence; a healthy link of the
 * same server, on the same poller and protection domain, carries an exact stream all the while.
 *
 * Design notes
 * - The attacker is the client's end of a link like any other; its attack is posted by hand on its
 * queue pair. What a frame in a ring may hold is not the transport's business and not tried here.
 * - The double forgives a missing receive here: a peer that ignores its credit has to wait for one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <inttypes.h>

#include "core/clock.h"
#include "core/log.h"
#include "transport/rdma/pair_testing.h"
#include "transport/rdma/verbs_double.h"

#define RING_BYTES   65536u
#define SOURCE_COUNT 128u /* as many as a send queue holds */
#define FLOOD_COUNT  100u /* more than any credit, less than a send queue */

static const struct rsi_transport *const rdma = &rsi_rdma_transport;

struct siege {
    struct pair pair;           /* its links are the attacker's and the victim's */
    struct pair_end healthy[2]; /* client, server; only their links are used */
    uint64_t sent[2];
    uint64_t taken[2];
    uint32_t post_count; /* by hand */
};

/* ---- the healthy link ----------------------------------------------------------------------- */

static void drive(struct siege *siege)
{
    pair_drive(&siege->pair);
    uint64_t now_ns = rsi_clock_now_ns();
    for (int i = 0; i < 2; i++) {
        struct rsi_link *link = siege->healthy[i].link;
        rdma->link_poll_control(link, now_ns);
        if (rsi_link_state(link) != RSI_LINK_ATTACHED || rsi_load_relaxed(&link->failed)) {
            fail_msg("the healthy link suffers: %s", link->failure.text);
        }
        if (pair_put(link, siege->sent[i], 300)) {
            siege->sent[i]++;
        }
        assert_false(rsi_failed(rsi_link_flush_clocked(link)));
        (void)pair_take(link, &siege->taken[i]);
    }
}

#define SIEGE_WAIT(siege, condition)                                        \
    do {                                                                    \
        uint64_t siege_deadline_ns = rsi_clock_now_ns() + PAIR_DEADLINE_NS; \
        while (!(condition)) {                                              \
            drive(siege);                                                   \
            if (rsi_clock_now_ns() > siege_deadline_ns)                     \
                fail_msg("no '%s' within 20 s", #condition);                \
        }                                                                   \
    } while (0)

static struct rsi_link *victim_of(struct siege *siege)
{
    return siege->pair.server.link;
}

static struct rsi_rdma_link *attacker_of(struct siege *siege)
{
    return rsi_rdma_link_of(siege->pair.client.link);
}

static void siege_open(struct siege *siege)
{
    memset(siege, 0, sizeof(*siege));
    pair_open(&siege->pair, RING_BYTES);
    siege->healthy[0].link = siege->pair.client.link;
    siege->healthy[1].link = siege->pair.server.link;
    siege->pair.client.link = NULL;
    siege->pair.server.link = NULL;
    pair_dial(&siege->pair);
}

static void siege_attach(struct siege *siege)
{
    pair_attach(&siege->pair, RING_BYTES);
    /* Positions that are not zero, both ways. */
    pair_send_and_take(&siege->pair, siege->pair.client.link, victim_of(siege), 5, pair_small_size);
    pair_send_and_take(&siege->pair, victim_of(siege), siege->pair.client.link, 5, pair_small_size);
    SIEGE_WAIT(siege, siege->taken[0] > 20 && siege->taken[1] > 20);
}

static void siege_close(struct siege *siege)
{
    uint64_t goal[2] = {siege->taken[0] + 50, siege->taken[1] + 50};
    SIEGE_WAIT(siege, siege->taken[0] > goal[0] && siege->taken[1] > goal[1]);
    pair_hang_up(&siege->pair);
    siege->pair.client.link = siege->healthy[0].link;
    siege->pair.server.link = siege->healthy[1].link;
    pair_close(&siege->pair);
}

/* ---- weapons -------------------------------------------------------------------------------- */

/* Where the next request takes its bytes from: not where an earlier one may still be read. */
static uint8_t *source_of(struct siege *siege)
{
    return attacker_of(siege)->base.out.base +
           siege->post_count % SOURCE_COUNT * (RING_BYTES / SOURCE_COUNT);
}

/* Posts one request of `bytes` from source_of(). */
static void post(struct siege *siege, enum ibv_wr_opcode opcode, uint32_t bytes,
                 uint64_t remote_address, uint32_t key, uint32_t immediate)
{
    struct rsi_rdma_link *attacker = attacker_of(siege);
    struct ibv_sge span = {
        .addr = (uintptr_t)source_of(siege),
        .length = bytes,
        .lkey = attacker->out_region.mr->lkey,
    };
    struct ibv_send_wr request = {
        .sg_list = &span,
        .num_sge = 1,
        .opcode = opcode,
        .send_flags = IBV_SEND_SIGNALED,
        .imm_data = htonl(immediate),
        .wr.rdma = {.remote_addr = remote_address, .rkey = key},
    };
    if (opcode == IBV_WR_SEND_WITH_INV) {
        request.invalidate_rkey = key;
    }
    if (opcode == IBV_WR_RDMA_READ) {
        /* Into memory that may be written. */
        span.addr = (uintptr_t)attacker->receive_buffers;
        span.lkey = attacker->buffers_region.mr->lkey;
    }
    assert_true(rsi_rdma_post(attacker, RSI_RDMA_WORK_PROBE, &request, 1));
    siege->post_count++;
}

static void write_words(struct siege *siege, uint64_t consumed_pos, uint64_t batch_credit)
{
    struct rsi_rdma_link *attacker = attacker_of(siege);
    /* Its own transport says nothing any more that could replace the lie before it is read. */
    SIEGE_WAIT(siege, !attacker->data.words_are_under_way);
    attacker->data.words_are_under_way = true;
    uint64_t words[2] = {consumed_pos, batch_credit};
    memcpy(source_of(siege), words, sizeof(words));
    post(siege, IBV_WR_RDMA_WRITE, sizeof(words),
         attacker->data.peer_words_address + offsetof(struct rsi_words, consumed_pos),
         attacker->data.way.remote_key, 0);
}

static void send_record(struct siege *siege, uint8_t kind, uint32_t told_bytes, uint32_t bytes,
                        uint64_t position)
{
    struct rsi_record_header header = {.kind = kind, .bytes = told_bytes, .position = position};
    memcpy(source_of(siege), &header, sizeof(header));
    attacker_of(siege)->data.credit.sent_count++; /* or its own transport finds the answer wrong */
    post(siege, IBV_WR_SEND, bytes, 0, 0, 0);
}

static const struct rsi_rdma_way *way_of(struct siege *siege)
{
    return &attacker_of(siege)->data.way;
}

/* ---- attacks on an attached link ------------------------------------------------------------ */

static void tell_consumed_beyond(struct siege *siege)
{
    write_words(siege, victim_of(siege)->placed_pos + 4096, 64);
}

static void tell_consumed_between_frames(struct siege *siege)
{
    struct rsi_link *victim = victim_of(siege);
    assert_true(pair_put(victim, 5, 64));
    write_words(siege, victim->placed_pos - 4, 64);
}

static void tell_consumed_backward(struct siege *siege)
{
    write_words(siege, 0, 0);
}

static void tell_too_much_batch_credit(struct siege *siege)
{
    struct rsi_link *victim = victim_of(siege);
    const uint64_t told = UINT64_C(1) << 40;
    uint64_t *word = &rsi_rdma_link_of(victim)->data.peer_words->batch_credit;
    write_words(siege, victim->peer_consumed_pos, told);
    SIEGE_WAIT(siege, rsi_load_acquire(rsi_atomic_u64_at(word)) == told);
    /* It is looked at when the old credit is used up. */
    for (uint64_t i = 5; i < 5 + 2 * RSI_RDMA_BATCH_CREDIT && pair_put(victim, i, 64); i++) {
        (void)rsi_link_flush(victim);
    }
}

static void announce_no_bytes(struct siege *siege)
{
    uint64_t end_pos = victim_of(siege)->arrived_pos;
    post(siege, IBV_WR_RDMA_WRITE_WITH_IMM, 0, 0, 0, rsi_immediate(end_pos));
}

static void announce_more_than_the_ring(struct siege *siege)
{
    uint64_t end_pos = victim_of(siege)->consumed_pos + RING_BYTES + 64;
    post(siege, IBV_WR_RDMA_WRITE_WITH_IMM, 64, way_of(siege)->remote_address,
         way_of(siege)->remote_key, rsi_immediate(end_pos));
}

static void fill_the_ring_with_garbage(struct siege *siege)
{
    memset(attacker_of(siege)->base.out.base, 0xa5, RING_BYTES);
    for (uint64_t offset = 0; offset < RING_BYTES; offset += 4096) {
        post(siege, IBV_WR_RDMA_WRITE, 4096, way_of(siege)->remote_address + offset,
             way_of(siege)->remote_key, 0);
    }
}

static void write_past_the_window(struct siege *siege)
{
    post(siege, IBV_WR_RDMA_WRITE, 64, way_of(siege)->remote_address + RING_BYTES - 32,
         way_of(siege)->remote_key, 0);
}

static void read_the_ring(struct siege *siege)
{
    post(siege, IBV_WR_RDMA_READ, 64, way_of(siege)->remote_address, way_of(siege)->remote_key, 0);
}

static void use_another_links_key(struct siege *siege)
{
    const struct rsi_rdma_way *way = &rsi_rdma_link_of(siege->healthy[0].link)->data.way;
    post(siege, IBV_WR_RDMA_WRITE, 64, way->remote_address, way->remote_key, 0);
}

static void use_a_key_that_was_never_told(struct siege *siege)
{
    const struct rsi_rdma_link *victim = rsi_rdma_link_of(victim_of(siege));
    post(siege, IBV_WR_RDMA_WRITE, 64, way_of(siege)->remote_address, victim->in_region.mr->rkey,
         0);
}

static void invalidate_another_links_key(struct siege *siege)
{
    const struct rsi_rdma_way *way = &rsi_rdma_link_of(siege->healthy[0].link)->data.way;
    post(siege, IBV_WR_SEND_WITH_INV, 16, 0, way->remote_key, 0);
}

/* Its own window is gone, and with it its way into the ring. */
static void invalidate_the_own_key(struct siege *siege)
{
    struct rsi_record_header header = {.kind = RSI_RECORD_CONTROL, .bytes = 8};
    header.position = attacker_of(siege)->data.credit.taken_count;
    attacker_of(siege)->data.credit.sent_count++;
    memcpy(source_of(siege), &header, sizeof(header));
    post(siege, IBV_WR_SEND_WITH_INV, sizeof(header) + 8, 0, way_of(siege)->remote_key, 0);
    post(siege, IBV_WR_RDMA_WRITE, 64, way_of(siege)->remote_address, way_of(siege)->remote_key, 0);
}

static void send_a_stump(struct siege *siege)
{
    send_record(siege, RSI_RECORD_CONTROL, 0, 4, 0);
}

static void send_a_wrong_length(struct siege *siege)
{
    send_record(siege, RSI_RECORD_CONTROL, 500, sizeof(struct rsi_record_header) + 8, 0);
}

static void send_an_unknown_kind(struct siege *siege)
{
    send_record(siege, 200, 8, sizeof(struct rsi_record_header) + 8,
                attacker_of(siege)->data.credit.taken_count);
}

static void send_credit_from_nowhere(struct siege *siege)
{
    send_record(siege, RSI_RECORD_POSITIONS, sizeof(struct rsi_positions),
                sizeof(struct rsi_record_header) + sizeof(struct rsi_positions), 1000000);
}

static void send_too_long_a_record(struct siege *siege)
{
    send_record(siege, RSI_RECORD_CONTROL, 2000, RSI_RDMA_RECORD_BYTES + 8, 0);
}

static void attach_once_more(struct siege *siege)
{
    send_record(siege, RSI_RECORD_ATTACH, sizeof(struct rsi_attach),
                sizeof(struct rsi_record_header) + sizeof(struct rsi_attach),
                attacker_of(siege)->data.credit.taken_count);
}

static void flood_the_control_lane(struct siege *siege)
{
    for (uint32_t i = 0; i < FLOOD_COUNT; i++) {
        send_record(siege, RSI_RECORD_CONTROL, 8, sizeof(struct rsi_record_header) + 8,
                    attacker_of(siege)->data.credit.taken_count);
    }
}

static void ask_to_be_woken_for_ever(struct siege *siege)
{
    for (uint32_t i = 0; i < FLOOD_COUNT / 2; i++) {
        send_record(siege, RSI_RECORD_WAKE_REQUEST, sizeof(struct rsi_wake_request),
                    sizeof(struct rsi_record_header) + sizeof(struct rsi_wake_request),
                    attacker_of(siege)->data.credit.taken_count);
    }
}

/* More batches than the victim has receives for, while nobody looks. */
static void ignore_the_batch_credit(struct siege *siege)
{
    uint64_t pos = victim_of(siege)->arrived_pos;
    for (uint32_t i = 0; i < FLOOD_COUNT; i++) {
        uint64_t offset = pos % RING_BYTES;
        pos += 64;
        post(siege, IBV_WR_RDMA_WRITE_WITH_IMM, 64, way_of(siege)->remote_address + offset,
             way_of(siege)->remote_key, rsi_immediate(pos));
    }
}

struct attack {
    const char *name;
    void (*run)(struct siege *siege);
    const char *part; /* of the victim's error; NULL: it is of no consequence */
};

static const struct attack attacks[] = {
    {"consumed beyond", tell_consumed_beyond, "told a consumed position"},
    {"consumed between frames", tell_consumed_between_frames, "told a consumed position"},
    {"consumed backward", tell_consumed_backward, NULL},
    {"batch credit beyond", tell_too_much_batch_credit, "told a batch credit"},
    {"batch of no bytes", announce_no_bytes, "a batch of no bytes"},
    {"batch beyond the ring", announce_more_than_the_ring, "told a written position"},
    {"garbage in the ring", fill_the_ring_with_garbage, NULL},
    {"write past the window", write_past_the_window, "refused what the peer tried"},
    {"read", read_the_ring, "refused what the peer tried"},
    {"another link's key", use_another_links_key, "refused what the peer tried"},
    {"the region's key", use_a_key_that_was_never_told, "refused what the peer tried"},
    {"invalidate another link's key", invalidate_another_links_key, "refused what the peer tried"},
    {"invalidate the own key", invalidate_the_own_key, "refused what the peer tried"},
    {"stump of a record", send_a_stump, "another length than its kind"},
    {"wrong length", send_a_wrong_length, "another length than its kind"},
    {"unknown kind", send_an_unknown_kind, "of no known kind"},
    {"credit from nowhere", send_credit_from_nowhere, "credit that was not spent"},
    {"too long a record", send_too_long_a_record, "a control record of more than"},
    {"attach twice", attach_once_more, "comes once only"},
    {"flood of control", flood_the_control_lane, NULL},
    {"flood of wake requests", ask_to_be_woken_for_ever, NULL},
    {"more batches than credit", ignore_the_batch_credit, NULL},
};

static void expect_lost(struct siege *siege, const char *name, const char *part)
{
    struct rsi_link *victim = victim_of(siege);
    SIEGE_WAIT(siege, rsi_link_state(victim) == RSI_LINK_LOST);
    if (strstr(victim->error.text, part) == NULL) {
        fail_msg("%s: the victim says '%s', not '%s'", name, victim->error.text, part);
    }
    assert_false(victim->peer_has_ended);
}

static void run_attack(const struct attack *attack)
{
    static struct siege siege;
    siege_open(&siege);
    siege_attach(&siege);
    attack->run(&siege);
    if (attack->part != NULL) {
        expect_lost(&siege, attack->name, attack->part);
    } else {
        uint64_t goal = siege.taken[1] + 200;
        SIEGE_WAIT(&siege, siege.taken[1] > goal);
        enum rsi_link_state state = rsi_link_state(victim_of(&siege));
        if (state != RSI_LINK_ATTACHED || rsi_load_relaxed(&victim_of(&siege)->failed)) {
            fail_msg("%s: the victim says '%s', the attacker '%s'", attack->name,
                     victim_of(&siege)->error.text, siege.pair.client.link->error.text);
        }
    }
    siege_close(&siege);
}

static struct verbs_double_options options_of(enum verbs_double_pace pace, uint64_t seed)
{
    struct verbs_double_options options;
    verbs_double_options_init(&options);
    options.pace = pace;
    options.seed = seed;
    options.allows_missing_receive = true;
    return options;
}

static void run_attacks(enum verbs_double_pace pace)
{
    for (size_t i = 0; i < rsi_array_count(attacks); i++) {
        struct verbs_double_options options = options_of(pace, i + 1);
        verbs_double_begin(&options);
        run_attack(&attacks[i]);
        verbs_double_end();
    }
}

static void test_attacks_stepped(void **state)
{
    (void)state;
    run_attacks(VERBS_DOUBLE_STEPPED);
}

static void test_attacks_threaded(void **state)
{
    (void)state;
    run_attacks(VERBS_DOUBLE_THREADED);
}

/* ---- attacks before that -------------------------------------------------------------------- */

/* The attacker attaches with an address and a key of nothing: what is written there is refused. */
static void test_attach_of_nothing(void **state)
{
    (void)state;
    static struct siege siege;
    struct verbs_double_options options = options_of(VERBS_DOUBLE_STEPPED, 3);
    verbs_double_begin(&options);
    siege_open(&siege);
    struct rsi_link_rings rings = {.out_bytes = RING_BYTES, .in_bytes = RING_BYTES};
    struct rsi_link *victim = victim_of(&siege);
    assert_int_equal(rdma->link_attach(siege.pair.client.link, &rings, NULL), RSI_OK);
    attacker_of(&siege)->own_attach.ring_address = 4096;
    assert_int_equal(rdma->link_attach(victim, &rings, NULL), RSI_OK);
    SIEGE_WAIT(&siege, rsi_link_state(victim) == RSI_LINK_ATTACHED);
    assert_true(pair_put(victim, 0, 64));
    assert_int_equal(rsi_link_flush(victim), RSI_OK);
    expect_lost(&siege, "attach of nothing", "the peer refused the write");
    siege_close(&siege);
    verbs_double_end();
}

/* The attacker claims to take any number of batches; its own queue is what runs dry. */
static void test_attach_with_endless_credit(void **state)
{
    (void)state;
    static struct siege siege;
    struct verbs_double_options options = options_of(VERBS_DOUBLE_STEPPED, 4);
    verbs_double_begin(&options);
    siege_open(&siege);
    struct rsi_link_rings rings = {.out_bytes = RING_BYTES, .in_bytes = RING_BYTES};
    struct rsi_link *victim = victim_of(&siege);
    assert_int_equal(rdma->link_attach(siege.pair.client.link, &rings, NULL), RSI_OK);
    attacker_of(&siege)->own_attach.batch_credit = UINT16_MAX;
    assert_int_equal(rdma->link_attach(victim, &rings, NULL), RSI_OK);
    SIEGE_WAIT(&siege, rsi_link_state(victim) == RSI_LINK_ATTACHED);
    for (uint64_t i = 0; i < 300 && pair_put(victim, i, 64); i++) {
        assert_false(rsi_failed(rsi_link_flush(victim)));
        (void)rsi_poller_poll(siege.pair.server.poller, rsi_clock_now_ns());
    }
    siege_close(&siege);
    verbs_double_end();
}

/* A key that was good once: of a link that is closed. */
static void test_revoked_key(void **state)
{
    (void)state;
    static struct siege siege;
    struct verbs_double_options options = options_of(VERBS_DOUBLE_STEPPED, 5);
    verbs_double_begin(&options);
    siege_open(&siege);
    siege_attach(&siege);
    struct rsi_rdma_way revoked = *way_of(&siege);
    pair_hang_up(&siege.pair);
    pair_dial(&siege.pair);
    siege_attach(&siege);
    post(&siege, IBV_WR_RDMA_WRITE, 64, revoked.remote_address, revoked.remote_key, 0);
    expect_lost(&siege, "revoked key", "refused what the peer tried");
    siege_close(&siege);
    verbs_double_end();
}

/* It asks to connect, and never looks at the answer. */
static void test_handshake_that_stops(void **state)
{
    (void)state;
    static struct siege siege;
    struct verbs_double_options options = options_of(VERBS_DOUBLE_STEPPED, 6);
    verbs_double_begin(&options);
    siege_open(&siege);
    pair_hang_up(&siege.pair);
    siege.pair.server.domain->options.connect_timeout_ns = 200000000;
    struct rsi_url url;
    assert_int_equal(rsi_url_parse(&url, rdma->listener_url(siege.pair.listener), NULL), RSI_OK);
    struct rsi_link *silent = NULL;
    assert_int_equal(rdma->link_dial(&silent, siege.pair.client.poller, &url, NULL), RSI_OK);
    (void)rdma->domain_poll_control(siege.pair.client.domain, rsi_clock_now_ns());
    struct rsi_link *victim = NULL;
    uint64_t deadline_ns = rsi_clock_now_ns() + PAIR_DEADLINE_NS;
    while (victim == NULL || rsi_link_state(victim) != RSI_LINK_LOST) {
        uint64_t now_ns = rsi_clock_now_ns();
        (void)rdma->domain_poll_control(siege.pair.server.domain, now_ns);
        (void)rsi_poller_poll(siege.pair.server.poller, now_ns);
        if (victim == NULL) {
            (void)rdma->link_accept(&victim, siege.pair.listener,
                                    RSI_POLLER_ONLY(siege.pair.server.poller), NULL);
        } else {
            rdma->link_poll_control(victim, now_ns);
        }
        assert_true(now_ns < deadline_ns);
    }
    assert_int_equal(victim->error.status, RSI_E_TIMED_OUT);
    siege.pair.client.link = silent;
    siege.pair.server.link = victim;
    siege_close(&siege);
    verbs_double_end();
}

int main(void)
{
    rsi_log_set_level(RSI_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attacks_stepped),   cmocka_unit_test(test_attacks_threaded),
        cmocka_unit_test(test_attach_of_nothing), cmocka_unit_test(test_attach_with_endless_credit),
        cmocka_unit_test(test_revoked_key),       cmocka_unit_test(test_handshake_that_stops),
    };
    return cmocka_run_group_tests_name("hostile peer over rdma", tests, NULL, NULL);
}
