/*
 * Design notes: data agents moved by hand (hand_testing.h). Every message that a client reads is
 * entered in a book by the entries that name that client, so that what must hold can be asked at
 * the end: for each message and group exactly one choice, or none where the member that was chosen
 * was taken away.
 */
#include "broker/hand_testing.h"

#include <stdlib.h>
#include <string.h>

enum { SEQUENCE_MAX = 8192, SUBSCRIPTION_MAX = 64 };
#define RING_BYTES (16u << 10)
#define LOG_BYTES  (64u << 10)
#define PAYLOAD    100u

struct book {
    uint8_t choice_count[HAND_PUBLICATION_MAX][SEQUENCE_MAX]; /* that were delivered */
    uint64_t chosen_of[HAND_SESSION_MAX + 1][SUBSCRIPTION_MAX];
    uint64_t plain_of[HAND_SESSION_MAX + 1]; /* messages in which no entry names the reader */
};

static void enter(struct hand_client *client, const struct rsi_frame *frame)
{
    struct book *book = client->hand->arg;
    assert_true(frame->header.sequence < SEQUENCE_MAX);
    uint32_t own_count = 0;
    for (uint32_t i = 0; i < frame->header.entry_count; i++) {
        struct rsi_frame_entry entry = rsi_frame_entry_at(frame, i);
        if (entry.session == client->session.id) {
            assert_true(entry.number < SUBSCRIPTION_MAX);
            book->choice_count[frame->header.publication][frame->header.sequence]++;
            book->chosen_of[client->session.id][entry.number]++;
            own_count++;
        }
    }
    book->plain_of[client->session.id] += own_count == 0;
}

static struct hand *bench(uint32_t agent_count, uint64_t seed, struct book **book)
{
    struct hand *hand = hand_create(agent_count, seed, LOG_BYTES);
    *book = calloc(1, sizeof(**book));
    assert_non_null(*book);
    hand->on_message = enter;
    hand->arg = *book;
    return hand;
}

static void bench_end(struct hand *hand, struct book *book)
{
    hand_destroy(hand);
    free(book);
}

static void read_everything(struct hand *hand)
{
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < hand->client_count; i++) {
            if (!rsi_load_acquire(&hand->clients[i].session.left)) {
                hand_read_all(&hand->clients[i]);
            }
        }
    }
}

static void publish_and_read(struct hand *hand, struct hand_client *publisher, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        while (!hand_publish(publisher, 1, PAYLOAD)) {
            read_everything(hand);
        }
        if (i % 16 == 0) {
            read_everything(hand);
        }
    }
    read_everything(hand);
}

/* Every group gets each message once, whoever else subscribes; in turn. */
static void test_each_group_gets_each_message_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        uint32_t agent_count = 1 + seed % 2;
        struct book *book = NULL;
        struct hand *hand = bench(agent_count, seed, &book);
        struct hand_client *publisher = hand_join(hand, 0, RING_BYTES);
        struct hand_client *members[4];
        uint64_t numbers[4];
        hand_open(publisher, 1, 1, "jobs.a");
        for (uint32_t i = 0; i < 4; i++) {
            members[i] = hand_join(hand, i % agent_count, RING_BYTES);
            numbers[i] = hand_subscribe_group(members[i], i == 3 ? "jobs.>" : "jobs.a",
                                              RSI_POLICY_DROP, "workers");
        }
        uint64_t second = hand_subscribe_group(members[1], "jobs.*", RSI_POLICY_DROP, "audit");
        struct hand_client *plain = hand_join(hand, agent_count - 1, RING_BYTES);
        hand_subscribe(plain, "jobs.>", RSI_POLICY_DROP);

        publish_and_read(hand, publisher, 400);
        for (uint32_t sequence = 1; sequence <= 400; sequence++) {
            assert_int_equal(book->choice_count[1][sequence], 2);
        }
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(book->chosen_of[members[i]->session.id][numbers[i]], 100);
        }
        assert_int_equal(book->chosen_of[members[1]->session.id][second], 400);
        assert_int_equal(members[1]->received_count, 400); /* a frame comes once */
        assert_int_equal(book->plain_of[plain->session.id], 400);
        for (uint32_t i = 0; i < hand->client_count; i++) {
            assert_int_equal(hand->clients[i].gap_count, 0);
        }
        bench_end(hand, book);
    }
}

/* A topic that comes later, and one whose members are all gone. */
static void test_topics_come_and_members_go(void **state)
{
    (void)state;
    struct book *book = NULL;
    struct hand *hand = bench(2, 3, &book);
    struct hand_client *publisher = hand_join(hand, 0, RING_BYTES);
    struct hand_client *member = hand_join(hand, 1, RING_BYTES);
    uint64_t number = hand_subscribe_group(member, "jobs.*", RSI_POLICY_DROP, "workers");
    hand_open(publisher, 1, 1, "jobs.late");
    publish_and_read(hand, publisher, 5);
    assert_int_equal(book->chosen_of[member->session.id][number], 5);
    hand_unsubscribe(member, number);
    publish_and_read(hand, publisher, 5);
    assert_int_equal(member->received_count, 5);
    number = hand_subscribe_group(member, "jobs.*", RSI_POLICY_DROP, "workers");
    publish_and_read(hand, publisher, 5);
    assert_int_equal(book->chosen_of[member->session.id][number], 5);
    assert_int_equal(member->gap_count, 0);
    bench_end(hand, book);
}

/* Who does not read is passed over, whatever its policy, while another one is ready. */
static void test_who_is_behind_is_passed_over(void **state)
{
    (void)state;
    static const enum rsi_policy policies[] = {RSI_POLICY_DROP, RSI_POLICY_BLOCK};
    for (size_t at = 0; at < rsi_array_count(policies); at++) {
        struct book *book = NULL;
        struct hand *hand = bench(2, 5 + at, &book);
        struct hand_client *publisher = hand_join(hand, 0, RING_BYTES);
        hand_open(publisher, 1, 1, "jobs");
        struct hand_client *slow = hand_join(hand, 1, RING_BYTES);
        struct hand_client *quick = hand_join(hand, 0, RING_BYTES);
        hand_subscribe_group(slow, "jobs", policies[at], "workers");
        hand_subscribe_group(quick, "jobs", policies[at], "workers");
        for (uint32_t i = 0; i < 2000; i++) {
            while (!hand_publish(publisher, 1, PAYLOAD)) {
                hand_step(hand);
                hand_read(quick, UINT64_MAX / 2);
            }
            hand_rest(hand);
            hand_read(quick, UINT64_MAX / 2);
        }
        hand_rest(hand);
        hand_read(quick, UINT64_MAX / 2);
        /* What its ring holds, and what it was given before it was known to be behind. */
        assert_in_range(2000 - quick->received_count, 1, 300);
        assert_int_equal(quick->gap_count, 0);
        read_everything(hand);
        /* What it was given in the pass in which its ring became full is left out under drop. */
        assert_int_equal(slow->received_count + slow->gap_count + quick->received_count, 2000);
        assert_in_range(slow->gap_count, 0, policies[at] == RSI_POLICY_DROP ? 20 : 0);
        bench_end(hand, book);
    }
}

/* When all members hold publishers back, the publisher waits; when one has room, it goes on. */
static void test_all_members_block(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct book *book = NULL;
        struct hand *hand = bench(1 + seed % 2, seed, &book);
        struct hand_client *publisher = hand_join(hand, 0, RING_BYTES);
        hand_open(publisher, 1, 1, "jobs");
        struct hand_client *members[2];
        for (uint32_t i = 0; i < 2; i++) {
            members[i] = hand_join(hand, i % hand->options.agent_count, RING_BYTES);
            hand_subscribe_group(members[i], "jobs", RSI_POLICY_BLOCK, "workers");
        }
        uint64_t before;
        do {
            before = hand_admitted(publisher);
            (void)hand_publish_all(publisher, 1, PAYLOAD);
            hand_rest(hand);
        } while (hand_admitted(publisher) != before);
        assert_true(publisher->session.data.stall.is_waiting);
        /* One of them alone is enough. */
        struct hand_client *reader = members[seed / 2 % 2];
        while (hand_admitted(publisher) < 4 * before) {
            hand_read(reader, 4096);
            hand_step(hand);
            (void)hand_publish_all(publisher, 1, PAYLOAD);
        }
        read_everything(hand);
        assert_int_equal(members[0]->received_count + members[1]->received_count,
                         publisher->published_of[1]);
        for (uint32_t sequence = 1; sequence <= publisher->published_of[1]; sequence++) {
            assert_int_equal(book->choice_count[1][sequence], 1);
        }
        bench_end(hand, book);
    }
}

/* A member under drop that is alone and does not read: what is left out is counted as its own. */
static void test_gaps_count_what_was_chosen(void **state)
{
    (void)state;
    struct book *book = NULL;
    struct hand *hand = bench(1, 9, &book);
    struct hand_client *publisher = hand_join(hand, 0, RING_BYTES);
    hand_open(publisher, 1, 1, "jobs");
    struct hand_client *members[2];
    for (uint32_t i = 0; i < 2; i++) {
        members[i] = hand_join(hand, 0, RING_BYTES);
        hand_subscribe_group(members[i], "jobs", RSI_POLICY_DROP, "workers");
    }
    while (publisher->published_of[1] < 3000) {
        (void)hand_publish_all(publisher, 1, PAYLOAD);
        hand_rest(hand);
    }
    read_everything(hand);
    publish_and_read(hand, publisher, 10);
    assert_true(members[0]->gap_count > 0 && members[1]->gap_count > 0);
    assert_int_equal(members[0]->received_count + members[0]->gap_count +
                         members[1]->received_count + members[1]->gap_count,
                     publisher->published_of[1]);
    bench_end(hand, book);
}

/* Following a publication after having been a member of a group only, and the other way round. */
static void test_member_follows_too(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct book *book = NULL;
        struct hand *hand = bench(1 + seed % 2, seed, &book);
        struct hand_client *publisher = hand_join(hand, 0, RING_BYTES);
        hand_open(publisher, 1, 1, "jobs");
        enum rsi_policy policy = seed % 3 == 0 ? RSI_POLICY_BLOCK : RSI_POLICY_DROP;
        struct hand_client *members[2];
        for (uint32_t i = 0; i < 2; i++) {
            members[i] = hand_join(hand, i % hand->options.agent_count, RING_BYTES);
            hand_subscribe_group(members[i], "jobs", policy, "workers");
        }
        for (uint32_t round = 0; round < 4; round++) {
            /* Some wait in the ring or the spill when what the member asks for changes. */
            for (uint32_t i = 0; i < 150; i++) {
                while (!hand_publish(publisher, 1, PAYLOAD)) {
                    hand_read(members[0], 512);
                    hand_read(members[1], 512);
                    hand_step(hand);
                }
            }
            hand_rest(hand);
            uint64_t plain = hand_subscribe(members[0], "jobs", policy);
            publish_and_read(hand, publisher, 50);
            assert_true(hand_has_all(members[0], publisher, 1));
            hand_unsubscribe(members[0], plain);
        }
        read_everything(hand);
        assert_int_equal(members[0]->gap_count + members[1]->gap_count, 0);
        for (uint32_t sequence = 1; sequence <= publisher->published_of[1]; sequence++) {
            assert_int_equal(book->choice_count[1][sequence], 1);
        }
        bench_end(hand, book);
    }
}

static void apply_drain(struct hand_client *client, uint64_t number)
{
    hand_apply(client->hand, &(struct rsi_edit){.kind = RSI_EDIT_DRAIN,
                                                .session = &client->session,
                                                .subscription = number});
}

/* Members that drain lose nothing, and get nothing new. */
static void test_drain_loses_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct book *book = NULL;
        uint32_t agent_count = 1 + seed % 2;
        struct hand *hand = bench(agent_count, seed, &book);
        struct hand_client *publisher = hand_join(hand, 0, RING_BYTES);
        hand_open(publisher, 1, 1, "jobs");
        enum rsi_policy policy = seed % 3 == 0 ? RSI_POLICY_BLOCK : RSI_POLICY_DROP;
        struct hand_client *members[3];
        uint64_t numbers[3];
        for (uint32_t i = 0; i < 3; i++) {
            members[i] = hand_join(hand, (i + 1) % agent_count, RING_BYTES);
            numbers[i] = hand_subscribe_group(members[i], "jobs", policy, "workers");
        }
        for (uint32_t round = 0; round < 12; round++) {
            uint32_t at = (uint32_t)(hand_random(hand) % 3);
            struct hand_client *leaver = members[at];
            for (uint32_t i = 0; i < 60; i++) {
                while (!hand_publish(publisher, 1, PAYLOAD)) {
                    hand_read(members[hand_random(hand) % 3], 2048);
                    hand_step(hand);
                }
            }
            apply_drain(leaver, numbers[at]);
            uint64_t ends[RSI_AGENT_COUNT_MAX];
            rsi_data_plane_ends(hand->plane, ends);
            while (!rsi_data_plane_has_passed(hand->plane, &leaver->session, ends)) {
                hand_read(leaver, 2048);
                hand_step(hand);
            }
            uint64_t spill_pos = rsi_load_relaxed(&leaver->session.spill_tail_pos);
            while (rsi_load_acquire(&leaver->session.spill_head_pos) < spill_pos) {
                hand_read(leaver, 2048);
                hand_step(hand);
            }
            hand_unsubscribe(leaver, numbers[at]);
            hand_read_all(leaver);
            uint64_t received_count = leaver->received_count;
            for (uint32_t i = 0; i < 20; i++) {
                while (!hand_publish(publisher, 1, PAYLOAD)) {
                    read_everything(hand);
                }
            }
            read_everything(hand);
            assert_int_equal(leaver->received_count, received_count);
            numbers[at] = hand_subscribe_group(leaver, "jobs", policy, "workers");
        }
        read_everything(hand);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(members[i]->gap_count, 0);
        }
        for (uint32_t sequence = 1; sequence <= publisher->published_of[1]; sequence++) {
            assert_int_equal(book->choice_count[1][sequence], 1);
        }
        bench_end(hand, book);
    }
}

/* A member whose session leaves takes with it what it did not read; nobody gets a message twice. */
static void test_a_member_dies(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct book *book = NULL;
        struct hand *hand = bench(1 + seed % 2, seed, &book);
        struct hand_client *publisher = hand_join(hand, 0, RING_BYTES);
        hand_open(publisher, 1, 1, "jobs");
        struct hand_client *dies = hand_join(hand, 0, RING_BYTES);
        struct hand_client *lives = hand_join(hand, hand->options.agent_count - 1, RING_BYTES);
        hand_subscribe_group(dies, "jobs", RSI_POLICY_DROP, "workers");
        hand_subscribe_group(lives, "jobs", RSI_POLICY_DROP, "workers");
        for (uint32_t i = 0; i < 60; i++) {
            while (!hand_publish(publisher, 1, PAYLOAD)) {
                hand_step(hand);
            }
        }
        hand_leave(dies);
        publish_and_read(hand, publisher, 100);
        for (uint32_t sequence = 61; sequence <= 160; sequence++) {
            assert_int_equal(book->choice_count[1][sequence], 1);
        }
        for (uint32_t sequence = 1; sequence <= 60; sequence++) {
            assert_in_range(book->choice_count[1][sequence], 0, 1);
        }
        bench_end(hand, book);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_group_gets_each_message_once),
        cmocka_unit_test(test_topics_come_and_members_go),
        cmocka_unit_test(test_who_is_behind_is_passed_over),
        cmocka_unit_test(test_all_members_block),
        cmocka_unit_test(test_gaps_count_what_was_chosen),
        cmocka_unit_test(test_member_follows_too),
        cmocka_unit_test(test_drain_loses_nothing),
        cmocka_unit_test(test_a_member_dies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
