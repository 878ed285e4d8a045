/*
 * Sessions that outlive their links, against a whole broker with two data agents whose walk order
 * is seeded, by clients that speak the control lane by hand. argv[1]: the transport, tcp by
 * default; argv[2]: the seed.
 */
#include "broker/broker_testing.h"
#include "core/text.h"
#include "transport/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RING_BYTES = 256 << 10 };

struct state {
    struct rsi_testing_broker broker;
    struct rsi_testing_client publisher;
    struct rsi_testing_client subscriber;
    uint64_t sent;     /* numbers below were published */
    uint64_t next;     /* the one that the subscriber reads next */
    bool must_cut_off; /* the broker's stop is to say that sessions were cut off */
};

static const char *transport = "tcp";
static uint64_t seed = 1;

static uint64_t chance(uint64_t bound)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (seed >> 33) % bound;
}

static void set(struct state *state, const char *key, const char *text)
{
    struct rsi_error error = {0};
    if (rsi_failed(
            rsi_setting_assign(&state->broker.settings, rsi_setting_find(key), text, &error))) {
        fail_msg("%s", error.text);
    }
}

static int set_up(void **arg)
{
    struct state *state = test_calloc(1, sizeof(*state));
    rsi_testing_broker_init(&state->broker);
    set(state, "agents", "2");
    state->broker.settings.walk_seed = 1 + chance(1000);
    *arg = state;
    return 0;
}

static int tear_down(void **arg)
{
    struct state *state = *arg;
    rsi_testing_broker_stop(&state->broker);
    rsi_status_t status = rsi_testing_broker_join(&state->broker);
    assert_int_equal(status, state->must_cut_off ? RSI_E_TIMED_OUT : RSI_OK);
    rsi_testing_broker_fini(&state->broker);
    test_free(state);
    return 0;
}

/* ---- a publisher and a subscriber ----------------------------------------------------------- */

static void start(struct state *state, Ringside__Control__Policy policy)
{
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_join(&state->publisher, &state->broker, "writer");
    rsi_testing_client_join(&state->subscriber, &state->broker, "reader");
    rsi_testing_client_expect_subscribed(
        &state->subscriber, rsi_testing_client_subscribe(&state->subscriber, 1, "md.>", policy));
    rsi_testing_client_expect_opened(
        &state->publisher, rsi_testing_client_open_publisher(&state->publisher, 1, "md.x"));
}

static struct rsi_link *link_of(const struct rsi_testing_client *client)
{
    return client->link != NULL ? client->link : client->old.link;
}

/* Over whichever link there is, dead or alive. False: no room. */
static bool publish(struct state *state, uint64_t payload_bytes)
{
    struct rsi_link *link = link_of(&state->publisher);
    uint64_t frame_bytes = rsi_frame_bytes(0, payload_bytes);
    struct rsi_frame_header *header = rsi_frame_claim(link, frame_bytes);
    if (header == NULL) {
        return false;
    }
    memset((char *)header + sizeof(header->commit), 0, frame_bytes - sizeof(header->commit));
    header->type = RSI_FRAME_MESSAGE;
    header->payload_bytes = (uint32_t)payload_bytes;
    header->publication = 1;
    memcpy(header + 1, &state->sent, sizeof(state->sent));
    rsi_frame_commit(link, frame_bytes);
    rsi_link_place(link);
    (void)rsi_link_flush_clocked(link);
    state->sent++;
    return true;
}

/* Reads what there is; gaps are counted in, and nothing else may be left out. */
static void read_all(struct state *state)
{
    struct rsi_link *link = link_of(&state->subscriber);
    while (link->consumed_pos < link->arrived_pos) {
        struct rsi_frame frame;
        const char *why = "";
        if (rsi_frame_read(&link->in, link->consumed_pos, link->arrived_pos, &frame, &why) !=
            RSI_OK) {
            fail_msg("%s", why);
        }
        if (frame.header.type == RSI_FRAME_MESSAGE) {
            uint64_t number;
            memcpy(&number, frame.payload, sizeof(number));
            assert_int_equal(number, state->next);
            state->next++;
        } else if (frame.header.type == RSI_FRAME_GAP) {
            struct rsi_gap_entry entry;
            memcpy(&entry, frame.payload + sizeof(struct rsi_gap), sizeof(entry));
            assert_true(entry.next_sequence > state->next + 1);
            state->next = entry.next_sequence - 1; /* sequences begin at 1, numbers at 0 */
        }
        rsi_link_consume(link, frame.frame_bytes);
    }
}

static void drive(struct state *state)
{
    if (state->publisher.link != NULL) {
        rsi_testing_client_drive(&state->publisher);
    }
    if (state->subscriber.link != NULL) {
        rsi_testing_client_drive(&state->subscriber);
    }
    read_all(state);
}

static void until_read(struct state *state)
{
    struct rsi_testing_client *writer = state->publisher.link != NULL ? &state->publisher : NULL;
    rsi_testing_wait(&state->subscriber, writer, (read_all(state), state->next == state->sent));
}

static void say_goodbye(struct rsi_testing_client *client)
{
    rsi_testing_client_say_bye(client);
    rsi_testing_client_expect_bye(client, RINGSIDE__CONTROL__REASON__REASON_GOODBYE);
    rsi_testing_client_expect_end(client);
    rsi_testing_client_close(client);
}

static void finish(struct state *state)
{
    say_goodbye(&state->publisher);
    say_goodbye(&state->subscriber);
}

/* Has the broker find the link dead, where the transport lets a test do that; then closes it. */
static void cut(struct rsi_testing_client *client)
{
    if (strcmp(client->transport->name, "sim") == 0 && chance(2) == 0) {
        rsi_sim_cut(client->link, chance(10));
    }
    rsi_testing_client_cut(client);
}

static void dial_home(struct state *state, struct rsi_testing_client *client)
{
    rsi_testing_client_redial(client, &state->broker, 0, client->home_agent + 1);
}

/* ---- why it ended -------------------------------------------------------------------------- */

/* As a client that asks for its session is told of it. */
struct end {
    bool is_told; /* the broker knows the session, and that it is over */
    Ringside__Control__Reason reason;
    uint64_t taken_pos;
    char text[512];
};

/* Asks for the session until it has ended, and lets go of the link again: why it ended. How soon
 * that is, is the broker's business; meanwhile the asking touches nothing. */
static struct end ask_until_ended(struct state *state, struct rsi_testing_client *client)
{
    struct end end = {.reason = RINGSIDE__CONTROL__REASON__REASON_TIMED_OUT};
    uint64_t until_ns = rsi_clock_now_ns() + RSI_TESTING_DEADLINE_NS;
    while (!end.is_told && end.reason != RINGSIDE__CONTROL__REASON__REASON_SESSION) {
        assert_true(rsi_clock_now_ns() < until_ns);
        struct rsi_testing_claim claim = rsi_testing_client_truth(client);
        claim.attempt = 0;
        dial_home(state, client);
        rsi_testing_client_claim(client, &claim);
        Ringside__Control__Control *answer = rsi_testing_client_receive(client);
        assert_non_null(answer);
        assert_int_equal(answer->body_case, RINGSIDE__CONTROL__CONTROL__BODY_REFUSED);
        end.reason = answer->refused->reason;
        end.is_told = answer->refused->session_ended;
        end.taken_pos = answer->refused->taken_pos;
        rsi_text_copy(end.text, sizeof(end.text), answer->refused->text);
        rsi_control_free(answer);
        rsi_testing_client_give_up(client);
    }
    return end;
}

static void expect_ended(struct state *state, struct rsi_testing_client *client,
                         Ringside__Control__Reason reason, const char *part)
{
    struct end end = ask_until_ended(state, client);
    if (!end.is_told || end.reason != reason || strstr(end.text, part) == NULL) {
        fail_msg("it ended for reason %d and is %stold: %s", (int)end.reason,
                 end.is_told ? "" : "not ", end.text);
    }
}

static void expect_refused(struct state *state, struct rsi_testing_client *client,
                           const struct rsi_testing_claim *claim, Ringside__Control__Reason reason)
{
    dial_home(state, client);
    rsi_testing_client_claim(client, claim);
    rsi_testing_client_expect_refused(client, reason, "session");
    rsi_testing_client_expect_end(client);
    rsi_testing_client_give_up(client);
}

/* ---- every message once --------------------------------------------------------------------- */

/* Dials and gives up again, at some step of the way. */
static void resume_half_way(struct state *state, struct rsi_testing_client *client)
{
    uint64_t step = chance(4);
    dial_home(state, client);
    if (step >= 1) {
        struct rsi_testing_claim claim = rsi_testing_client_truth(client);
        rsi_testing_client_claim(client, &claim);
    }
    if (step >= 2 && rsi_testing_client_take_over(client)) {
        if (step == 3) {
            return; /* all the way: the next cut comes soon */
        }
        rsi_testing_client_cut(client);
        return;
    }
    rsi_testing_client_give_up(client);
}

static void come_back(struct state *state, struct rsi_testing_client *client)
{
    for (uint64_t tries = chance(3); tries > 0 && client->link == NULL; tries--) {
        resume_half_way(state, client);
    }
    if (client->link == NULL) {
        rsi_testing_client_resume(client, &state->broker, 0);
    }
}

static void test_every_message_comes_once(void **arg)
{
    struct state *state = *arg;
    enum { CUT_COUNT = 60 };
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    for (uint32_t round = 0; round < CUT_COUNT; round++) {
        for (uint64_t left = chance(400); left > 0; left--) {
            (void)publish(state, 8 + 8 * chance(64));
            if (chance(8) == 0) {
                drive(state);
            }
        }
        struct rsi_testing_client *one = round % 2 == 0 ? &state->publisher : &state->subscriber;
        bool is_both = chance(4) == 0;
        cut(one);
        if (is_both) {
            cut(one == &state->publisher ? &state->subscriber : &state->publisher);
        }
        for (uint64_t left = chance(40); left > 0; left--) {
            (void)publish(state, 16);
            drive(state);
        }
        come_back(state, one);
        if (is_both) {
            come_back(state, one == &state->publisher ? &state->subscriber : &state->publisher);
        }
    }
    until_read(state);
    finish(state);
}

/* Rings full both ways, and nobody reads until all are back. */
static void test_full_rings(void **arg)
{
    struct state *state = *arg;
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    for (uint32_t round = 0; round < 4; round++) {
        cut(&state->subscriber);
        while (publish(state, 1000)) {
        }
        cut(&state->publisher);
        while (publish(state, 8)) {
        }
        rsi_testing_client_resume(&state->publisher, &state->broker, 0);
        rsi_testing_client_resume(&state->subscriber, &state->broker, 0);
        until_read(state);
    }
    finish(state);
}

/* What is published while the reader is away waits for it, gaps and all. */
static void test_drop_while_away(void **arg)
{
    struct state *state = *arg;
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_DROP);
    cut(&state->subscriber);
    while (state->sent < 20000) {
        rsi_testing_wait(&state->publisher, NULL, publish(state, 200));
    }
    rsi_testing_wait(
        &state->publisher, NULL,
        (rsi_link_request_wake(state->publisher.link, UINT64_MAX, UINT64_MAX,
                               state->publisher.link->placed_pos),
         state->publisher.link->peer_consumed_pos == state->publisher.link->placed_pos));
    rsi_testing_client_resume(&state->subscriber, &state->broker, 0);
    until_read(state);
    assert_true(publish(state, 8));
    until_read(state);
    finish(state);
}

/* Who asked to be disconnected when it lags loses its session, also while it is away. */
static void test_disconnect_while_away(void **arg)
{
    struct state *state = *arg;
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT);
    cut(&state->subscriber);
    while (state->sent < 20000) {
        rsi_testing_wait(&state->publisher, NULL, publish(state, 200));
    }
    expect_ended(state, &state->subscriber, RINGSIDE__CONTROL__REASON__REASON_SLOW,
                 "its policy is disconnect");
    /* Who cannot prove that it is its client hears what it would of a session that never was. */
    struct rsi_testing_claim claim = rsi_testing_client_truth(&state->subscriber);
    claim.secret[7] ^= 1;
    expect_refused(state, &state->subscriber, &claim, RINGSIDE__CONTROL__REASON__REASON_SESSION);
    rsi_text_copy(state->subscriber.name, sizeof(state->subscriber.name), "thief");
    claim = rsi_testing_client_truth(&state->subscriber);
    expect_refused(state, &state->subscriber, &claim, RINGSIDE__CONTROL__REASON__REASON_SESSION);
    rsi_text_copy(state->subscriber.name, sizeof(state->subscriber.name), "reader");
    expect_ended(state, &state->subscriber, RINGSIDE__CONTROL__REASON__REASON_SLOW,
                 "its policy is disconnect");
    rsi_testing_client_close(&state->subscriber);
    say_goodbye(&state->publisher);
}

/* The goodbye was taken, and its answer was lost with the link. */
static void test_goodbye_is_told_again(void **arg)
{
    struct state *state = *arg;
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    while (state->sent < 50) {
        assert_true(publish(state, 100));
    }
    until_read(state);
    rsi_testing_client_say_bye(&state->publisher);
    rsi_testing_client_expect_bye(&state->publisher, RINGSIDE__CONTROL__REASON__REASON_GOODBYE);
    rsi_testing_client_cut(&state->publisher);
    struct end end = ask_until_ended(state, &state->publisher);
    assert_true(end.is_told);
    assert_int_equal(end.reason, RINGSIDE__CONTROL__REASON__REASON_GOODBYE);
    assert_int_equal(end.taken_pos, link_of(&state->publisher)->placed_pos);
    rsi_testing_client_close(&state->publisher);
    say_goodbye(&state->subscriber);
}

static void test_another_transport(void **arg)
{
    struct state *state = *arg;
    char url[128] = "tcp://127.0.0.1:0";
    if (strcmp(transport, "tcp") == 0) {
        snprintf(url, sizeof(url), "shm://%s/another.sock", state->broker.directory);
    }
    set(state, "listen", url);
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    for (uint32_t round = 0; round < 20; round++) {
        struct rsi_testing_client *one = chance(2) == 0 ? &state->publisher : &state->subscriber;
        for (uint64_t left = chance(200); left > 0; left--) {
            (void)publish(state, 8 * (1 + chance(64)));
        }
        cut(one);
        rsi_testing_client_resume(one, &state->broker, round % 2 == 0 ? 1 : 0);
    }
    until_read(state);
    finish(state);
}

/* ---- who may, and who may not --------------------------------------------------------------- */

/* None of these hurts the session that it asks for: it serves on meanwhile, over its link. */
static void test_forged_claims_cost_only_the_forger(void **arg)
{
    struct state *state = *arg;
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    struct rsi_testing_client forger;
    rsi_testing_client_join(&forger, &state->broker, "reader"); /* the name alone is no proof */
    rsi_testing_client_cut(&forger);
    const struct rsi_testing_claim truth = rsi_testing_client_truth(&forger);
    const Ringside__Control__Reason unknown = RINGSIDE__CONTROL__REASON__REASON_SESSION;

    struct rsi_testing_claim claim = truth;
    claim.session = state->subscriber.session;
    expect_refused(state, &forger, &claim, unknown);
    claim.session = UINT64_MAX;
    expect_refused(state, &forger, &claim, unknown);
    claim = truth;
    claim.secret[5] ^= 1;
    expect_refused(state, &forger, &claim, unknown);
    /* The right secret in other hands: another name, another run of the process. */
    claim = truth;
    claim.session = state->subscriber.session;
    memcpy(claim.secret, state->subscriber.secret, sizeof(claim.secret));
    forger.incarnation++;
    expect_refused(state, &forger, &claim, unknown);
    forger.incarnation--;
    rsi_text_copy(forger.name, sizeof(forger.name), "thief");
    expect_refused(state, &forger, &claim, unknown);
    rsi_text_copy(forger.name, sizeof(forger.name), "reader");
    /* Tries are numbered from 1, and none is taken twice. */
    claim = truth;
    claim.attempt = 0;
    expect_refused(state, &forger, &claim, RINGSIDE__CONTROL__REASON__REASON_TIMED_OUT);

    for (uint32_t i = 0; i < 100; i++) {
        assert_true(publish(state, 64));
    }
    until_read(state);
    rsi_testing_client_resume(&forger, &state->broker, 0); /* its own session is as it was */
    say_goodbye(&forger);
    finish(state);
}

/* A try that the client gave up is read when a later one serves already. */
static void test_old_try_does_not_cut_the_new_link(void **arg)
{
    struct state *state = *arg;
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    cut(&state->subscriber);
    struct rsi_testing_claim old_claim = rsi_testing_client_truth(&state->subscriber);
    struct rsi_testing_client late;
    rsi_testing_client_open(&late, &state->broker, "reader");
    rsi_testing_client_resume(&state->subscriber, &state->broker, 0);
    assert_true(publish(state, 8));
    until_read(state);
    rsi_testing_client_claim(&late, &old_claim);
    rsi_testing_client_expect_refused(&late, RINGSIDE__CONTROL__REASON__REASON_TIMED_OUT, "try");
    rsi_testing_client_expect_end(&late);
    rsi_testing_client_close(&late);
    assert_true(publish(state, 8));
    until_read(state);
    finish(state);
}

/* The client gave its link up, and the broker has not seen that: the client knows better. */
static void test_client_knows_better(void **arg)
{
    struct state *state = *arg;
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    for (uint32_t round = 0; round < 5; round++) {
        /* The old link stays open as far as the broker can tell: nobody drives it. */
        struct rsi_testing_client *client = &state->subscriber;
        struct rsi_testing_link old = {client->transport, client->domain, client->poller,
                                       client->link};
        assert_true(publish(state, 8));
        until_read(state);
        client->old = old;
        dial_home(state, client);
        struct rsi_testing_claim claim = rsi_testing_client_truth(client);
        rsi_testing_client_claim(client, &claim);
        /* Its own fence comes before it takes over. */
        old.transport->link_close(old.link);
        uint64_t until_ns = rsi_clock_now_ns() + RSI_TESTING_DEADLINE_NS;
        while (rsi_link_state(old.link) != RSI_LINK_CLOSED) {
            assert_true(rsi_clock_now_ns() < until_ns);
            (void)rsi_poller_poll(old.poller, rsi_clock_now_ns());
            old.transport->link_poll_control(old.link, rsi_clock_now_ns());
        }
        if (!rsi_testing_client_take_over(client)) {
            rsi_testing_client_give_up(client);
            rsi_testing_client_resume(client, &state->broker, 0);
        }
    }
    assert_true(publish(state, 8));
    until_read(state);
    finish(state);
}

static void test_impossible_positions_end_the_session(void **arg)
{
    struct state *state = *arg;
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    assert_true(publish(state, 8));
    until_read(state);
    cut(&state->subscriber);
    struct rsi_testing_claim claim = rsi_testing_client_truth(&state->subscriber);
    claim.arrived_pos += 4096;
    expect_refused(state, &state->subscriber, &claim, RINGSIDE__CONTROL__REASON__REASON_SESSION);
    expect_ended(state, &state->subscriber, RINGSIDE__CONTROL__REASON__REASON_SESSION, "");
    rsi_testing_client_close(&state->subscriber);
    say_goodbye(&state->publisher);
}

/* A link that lands on another agent is sent away with the hint, and the session waits. */
static void test_home_agent(void **arg)
{
    struct state *state = *arg;
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    struct rsi_testing_client *client = &state->subscriber;
    cut(client);
    uint32_t other_agent = 1 - client->home_agent;
    rsi_testing_client_redial(client, &state->broker, 0, other_agent + 1);
    struct rsi_testing_claim claim = rsi_testing_client_truth(client);
    rsi_testing_client_claim(client, &claim);
    rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_ELSEWHERE,
                                      "dial again");
    rsi_testing_client_expect_end(client);
    rsi_testing_client_give_up(client);
    rsi_testing_client_resume(client, &state->broker, 0);
    assert_true(publish(state, 8));
    until_read(state);
    finish(state);
}

/* ---- how long it waits ---------------------------------------------------------------------- */

static void test_grace_passes(void **arg)
{
    struct state *state = *arg;
    set(state, "session_grace", "100ms");
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    cut(&state->subscriber);
    expect_ended(state, &state->subscriber, RINGSIDE__CONTROL__REASON__REASON_NONE,
                 "session_grace");
    rsi_testing_client_close(&state->subscriber);
    say_goodbye(&state->publisher);
}

static void test_no_grace(void **arg)
{
    struct state *state = *arg;
    set(state, "session_grace", "0");
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    cut(&state->subscriber);
    expect_ended(state, &state->subscriber, RINGSIDE__CONTROL__REASON__REASON_NONE, "lost");
    rsi_testing_client_close(&state->subscriber);
    say_goodbye(&state->publisher);
}

/* Suspended sessions take places: they are not worth less than those of newcomers. */
static void test_suspended_sessions_count(void **arg)
{
    struct state *state = *arg;
    set(state, "client_count_max", "2");
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    cut(&state->subscriber);
    struct rsi_testing_client newcomer;
    rsi_testing_client_open(&newcomer, &state->broker, "newcomer");
    rsi_testing_client_hello(&newcomer, "");
    rsi_testing_client_authenticate(&newcomer, NULL, RING_BYTES, RING_BYTES, 0);
    rsi_testing_client_expect_refused(&newcomer, RINGSIDE__CONTROL__REASON__REASON_LIMIT,
                                      "client_count_max");
    rsi_testing_client_close(&newcomer);
    rsi_testing_client_resume(&state->subscriber, &state->broker, 0);
    assert_true(publish(state, 8));
    until_read(state);
    finish(state);
}

/* A client whose process is known to be dead does not come back. */
static void test_dead_process_ends_at_once(void **arg)
{
    struct state *state = *arg;
    set(state, "session_grace", "1h");
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    if (strcmp(transport, "sim") != 0) {
        finish(state); /* the clients are this process; transport/shm/peer_end_test.c has another */
        return;
    }
    rsi_sim_die(state->subscriber.link);
    rsi_testing_client_cut(&state->subscriber);
    expect_ended(state, &state->subscriber, RINGSIDE__CONTROL__REASON__REASON_NONE, "lost");
    rsi_testing_client_close(&state->subscriber);
    say_goodbye(&state->publisher);
}

/* ---- begun and never taken over ---------------------------------------------------------------
 */

/* As a client does whose renewal was cut: another session, and an end of the one it names. */
static void begin_anew(struct state *state, struct rsi_testing_client *client,
                       const struct rsi_testing_claim *claim)
{
    rsi_testing_client_open(client, &state->broker, "reader");
    rsi_testing_client_claim(client, claim);
    rsi_testing_client_attach(client);
    assert_int_not_equal(client->session, claim->session);
}

/* Nothing but the word of its client ends it within the test, and it holds the publisher back. */
static void test_begun_anew(void **arg)
{
    struct state *state = *arg;
    set(state, "session_grace", "1h");
    set(state, "block_timeout", "1h");
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    bool is_away = chance(2) == 0;
    if (is_away) {
        cut(&state->subscriber);
    }
    while (state->sent < 300) {
        rsi_testing_wait(&state->publisher, NULL, publish(state, 1000));
    }
    struct rsi_testing_claim claim = {.session = state->subscriber.session, .begins_anew = true};
    struct rsi_testing_client forger;
    begin_anew(state, &forger, &claim); /* with another secret: a session, and nothing ends */
    say_goodbye(&forger);
    if (is_away) {
        rsi_testing_client_resume(&state->subscriber, &state->broker, 0);
        cut(&state->subscriber);
    }
    memcpy(claim.secret, state->subscriber.secret, sizeof(claim.secret));
    struct rsi_testing_client successor;
    begin_anew(state, &successor, &claim);
    if (!is_away) {
        rsi_testing_client_expect_bye(&state->subscriber,
                                      RINGSIDE__CONTROL__REASON__REASON_GOODBYE);
        rsi_testing_client_expect_end(&state->subscriber);
    }
    rsi_testing_client_close(&state->subscriber);
    while (state->sent < 3000) { /* more than all that the broker could keep for it */
        rsi_testing_wait(&state->publisher, NULL, publish(state, 1000));
    }
    struct rsi_testing_client again;
    begin_anew(state, &again, &claim); /* it is gone already: fine */
    say_goodbye(&again);
    say_goodbye(&successor);
    say_goodbye(&state->publisher);
}

/* ---- requests ------------------------------------------------------------------------------- */

static void send_close(struct rsi_testing_client *client, uint64_t request, uint32_t alias)
{
    Ringside__Control__ClosePublisher close = RINGSIDE__CONTROL__CLOSE_PUBLISHER__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    close.request = request;
    close.alias = alias;
    close.end_pos = client->link->placed_pos;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_CLOSE_PUBLISHER;
    message.close_publisher = &close;
    rsi_testing_client_send(client, &message);
}

/* Done, or refused because it is done already and forgotten: closed either way. */
static void expect_closed(struct rsi_testing_client *client, uint64_t request)
{
    Ringside__Control__Control *answer = rsi_testing_client_receive(client);
    assert_non_null(answer);
    if (answer->body_case == RINGSIDE__CONTROL__CONTROL__BODY_DONE) {
        assert_int_equal(answer->done->request, request);
    } else {
        assert_int_equal(answer->body_case, RINGSIDE__CONTROL__CONTROL__BODY_REFUSED);
        assert_int_equal(answer->refused->request, request);
    }
    rsi_control_free(answer);
}

/* Asked, cut at once, asked again with the same number: one effect, one answer. */
static void test_requests_are_asked_again(void **arg)
{
    struct state *state = *arg;
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    struct rsi_testing_client *client = &state->publisher;
    uint32_t alias = 2;
    for (uint32_t round = 0; round < 20; round++) {
        uint64_t number = rsi_testing_client_open_publisher(client, alias, "md.y");
        for (uint64_t left = chance(20); left > 0; left--) {
            rsi_testing_client_drive(client);
        }
        cut(client);
        rsi_testing_client_resume(client, &state->broker, 0);
        client->last_request = number - 1;
        assert_int_equal(rsi_testing_client_open_publisher(client, alias, "md.y"), number);
        rsi_testing_client_expect_opened(client, number);

        number =
            rsi_testing_client_subscribe(client, 7, "x.>", RINGSIDE__CONTROL__POLICY__POLICY_DROP);
        for (uint64_t left = chance(20); left > 0; left--) {
            rsi_testing_client_drive(client);
        }
        cut(client);
        rsi_testing_client_resume(client, &state->broker, 0);
        client->last_request = number - 1;
        (void)rsi_testing_client_subscribe(client, 7, "x.>",
                                           RINGSIDE__CONTROL__POLICY__POLICY_DROP);
        rsi_testing_client_expect_subscribed(client, number);

        number = ++client->last_request;
        send_close(client, number, alias);
        for (uint64_t left = chance(20); left > 0; left--) {
            rsi_testing_client_drive(client);
        }
        cut(client);
        rsi_testing_client_resume(client, &state->broker, 0);
        send_close(client, number, alias);
        expect_closed(client, number);
        rsi_testing_client_unsubscribe(client, 7);
    }
    /* Nothing is left over: no answer that nobody waits for. */
    rsi_testing_client_expect_opened(client,
                                     rsi_testing_client_open_publisher(client, alias, "md.z"));
    assert_true(publish(state, 8));
    until_read(state);
    finish(state);
}

/* ---- stopping ------------------------------------------------------------------------------- */

static void test_stop_while_away(void **arg)
{
    struct state *state = *arg;
    start(state, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    cut(&state->subscriber);
    /* A welcome says that the broker knows the old link for dead; then the client goes again. */
    dial_home(state, &state->subscriber);
    struct rsi_testing_claim claim = rsi_testing_client_truth(&state->subscriber);
    rsi_testing_client_claim(&state->subscriber, &claim);
    Ringside__Control__Control *answer = rsi_testing_client_receive(&state->subscriber);
    assert_int_equal(answer->body_case, RINGSIDE__CONTROL__CONTROL__BODY_WELCOME);
    rsi_control_free(answer);
    rsi_testing_client_give_up(&state->subscriber);
    state->must_cut_off = chance(2) == 0;
    if (state->must_cut_off) {
        while (state->sent < 400) { /* more than its ring: some of it cannot have left the broker */
            rsi_testing_wait(&state->publisher, NULL, publish(state, 1000));
        }
        rsi_testing_wait(
            &state->publisher, NULL,
            (rsi_link_request_wake(state->publisher.link, UINT64_MAX, UINT64_MAX,
                                   state->publisher.link->placed_pos),
             state->publisher.link->peer_consumed_pos == state->publisher.link->placed_pos));
        /* A second answer says that every agent has ended the pass in which it gave the first, and
         * so has walked what was admitted before. */
        for (uint32_t alias = 2; alias <= 3; alias++) {
            rsi_testing_client_expect_opened(
                &state->publisher,
                rsi_testing_client_open_publisher(&state->publisher, alias, "md.y"));
        }
    }
    rsi_testing_broker_stop(&state->broker);
    rsi_testing_client_expect_bye(&state->publisher, RINGSIDE__CONTROL__REASON__REASON_STOPPING);
    rsi_testing_client_expect_end(&state->publisher);
    rsi_testing_client_close(&state->publisher);
    rsi_testing_client_close(&state->subscriber);
}

int main(int argc, char **argv)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(test_every_message_comes_once),
        CASE(test_full_rings),
        CASE(test_drop_while_away),
        CASE(test_disconnect_while_away),
        CASE(test_goodbye_is_told_again),
        CASE(test_another_transport),
        CASE(test_forged_claims_cost_only_the_forger),
        CASE(test_old_try_does_not_cut_the_new_link),
        CASE(test_client_knows_better),
        CASE(test_impossible_positions_end_the_session),
        CASE(test_home_agent),
        CASE(test_grace_passes),
        CASE(test_no_grace),
        CASE(test_suspended_sessions_count),
        CASE(test_dead_process_ends_at_once),
        CASE(test_begun_anew),
        CASE(test_requests_are_asked_again),
        CASE(test_stop_while_away),
    };
    if (argc > 1) {
        transport = argv[1];
        rsi_testing_use(transport);
    }
    if (argc > 2) {
        seed = strtoull(argv[2], NULL, 10);
    }
    printf("seed %llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
