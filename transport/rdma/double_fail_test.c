/*
 * Every call that the rdma transport makes of verbs and rdma_cm fails once, in turn, on the way
 * through a whole life of a link: two domains, a listener, connect, attach, traffic both ways,
 * close.
 *
 * Whatever fails, the life comes to its end in bounded time: with an error that names something, or
 * as if nothing had been, where the transport can do without. Nothing is left behind, no rule of
 * verbs is broken on the way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>

#include "core/clock.h"
#include "core/log.h"
#include "transport/rdma/pair_testing.h"
#include "transport/rdma/verbs_double.h"

#define MESSAGE_COUNT 40u
#define RING_BYTES    65536u
#define CALL_COUNT    2000u /* a life makes fewer */

static const struct rsi_transport *const rdma = &rsi_rdma_transport;

struct life {
    struct pair pair;
    struct rsi_error error; /* of what ended it early */
    uint64_t sent[2];
    uint64_t taken[2];
    bool is_control_sent[2];
    bool is_control_taken[2];
};

static rsi_status_t end_create(struct pair_end *end, const char *bind_host, struct rsi_error *error)
{
    struct rsi_domain_options options = {
        .bind_host = bind_host, .node = RSI_NODE_ANY, .connect_timeout_ns = 2000000000};
    struct rsi_poller_options poller_options = {.link_count_max = 4};
    rsi_status_t status = rdma->domain_create(&end->domain, &options, error);
    if (status == RSI_OK) {
        status = rdma->poller_create(&end->poller, end->domain, &poller_options, error);
    }
    return status;
}

static rsi_status_t begin(struct life *life)
{
    struct pair *pair = &life->pair;
    struct rsi_error *error = &life->error;
    pair->expects_refusal = true;
    struct rsi_url url;
    rsi_status_t status = end_create(&pair->server, NULL, error);
    if (status == RSI_OK) {
        status = end_create(&pair->client, pair_client_address(), error);
    }
    if (status == RSI_OK) {
        assert_int_equal(rsi_url_parse(&url, "rdma://10.7.0.1:0", error), RSI_OK);
        status = rdma->listener_create(&pair->listener, pair->server.domain, &url, error);
    }
    if (status == RSI_OK) {
        assert_int_equal(rsi_url_parse(&url, rdma->listener_url(pair->listener), error), RSI_OK);
        status = rdma->link_dial(&pair->client.link, pair->client.poller, &url, error);
    }
    return status;
}

/* What one end does in a pass; false: its link is over. */
static bool live(struct life *life, int which, struct rsi_link *link, struct rsi_link *other)
{
    struct rsi_link_rings rings = {.out_bytes = RING_BYTES, .in_bytes = RING_BYTES};
    enum rsi_link_state state = rsi_link_state(link);
    if (state == RSI_LINK_OPEN && rdma->link_attach(link, &rings, &life->error) != RSI_OK) {
        return false;
    }
    if (state == RSI_LINK_LOST) {
        life->error = link->error;
        return false;
    }
    if (state != RSI_LINK_ATTACHED) {
        return true;
    }
    if (!life->is_control_sent[which]) {
        life->is_control_sent[which] = rsi_link_send_control(link, &which, sizeof(which)) == RSI_OK;
    }
    uint32_t bytes = 0;
    if (rsi_link_front_control(link, &bytes) != NULL) {
        life->is_control_taken[which] = true;
        rsi_link_pop_control(link);
    }
    if (life->sent[which] < MESSAGE_COUNT && pair_put(link, life->sent[which], 900)) {
        life->sent[which]++;
        (void)rsi_link_flush_clocked(link);
    }
    (void)pair_take(link, &life->taken[which]);
    (void)other;
    return true;
}

static bool is_lived(const struct life *life)
{
    return life->taken[0] == MESSAGE_COUNT && life->taken[1] == MESSAGE_COUNT &&
           life->is_control_taken[0] && life->is_control_taken[1];
}

/* Each end sleeps as an agent would, for no time: the way of arming is in the life as well. */
static void nap(struct pair_end *end)
{
    (void)rdma->poller_arm(end->poller);
    rdma->poller_disarm(end->poller);
}

static bool go_on(struct life *life)
{
    struct pair *pair = &life->pair;
    if (!live(life, 0, pair->client.link, pair->server.link) ||
        (pair->server.link != NULL && !live(life, 1, pair->server.link, pair->client.link))) {
        return false;
    }
    nap(&pair->client);
    nap(&pair->server);
    return !is_lived(life);
}

/* True: it was lived to its end. */
static bool run_life(struct life *life)
{
    memset(life, 0, sizeof(*life));
    if (begin(life) == RSI_OK) {
        uint64_t deadline_ns = rsi_clock_now_ns() + PAIR_DEADLINE_NS;
        do {
            pair_drive(&life->pair);
            if (rsi_clock_now_ns() > deadline_ns) {
                fail_msg("after %s failed nothing ends: client %s, server %s",
                         verbs_double_failed_call(),
                         rsi_link_state_name(rsi_link_state(life->pair.client.link)),
                         life->pair.server.link == NULL
                             ? "none"
                             : rsi_link_state_name(rsi_link_state(life->pair.server.link)));
            }
        } while (go_on(life));
    }
    bool was_lived = is_lived(life);
    pair_close(&life->pair);
    return was_lived;
}

static void expect_named_error(const struct life *life, const char *call)
{
    if (!rsi_failed(life->error.status) || strlen(life->error.text) < 10) {
        fail_msg("%s failed, and all that is said is '%s'", call, life->error.text);
    }
}

static struct verbs_double_options options_of(uint64_t seed)
{
    struct verbs_double_options options;
    verbs_double_options_init(&options);
    options.pace = VERBS_DOUBLE_STEPPED;
    options.seed = seed;
    options.retry_ns = 50000000;
    return options;
}

static void test_life_without_failures(void **state)
{
    (void)state;
    struct verbs_double_options options = options_of(1);
    static struct life life;
    verbs_double_begin(&options);
    assert_true(run_life(&life));
    verbs_double_end();
}

static void test_every_call_fails_once(void **state)
{
    (void)state;
    static struct life life;
    uint32_t error_count = 0;
    uint32_t borne_count = 0;
    for (uint64_t nth = 1;; nth++) {
        assert_true(nth < CALL_COUNT);
        struct verbs_double_options options = options_of(nth);
        verbs_double_begin(&options);
        verbs_double_fail_nth(nth, VERBS_DOUBLE_MAKES | VERBS_DOUBLE_WORKS);
        bool was_lived = run_life(&life);
        const char *call = verbs_double_failed_call();
        verbs_double_fail_nth(0, 0);
        verbs_double_end();
        if (call == NULL) {
            assert_true(was_lived);
            break;
        }
        if (!was_lived) {
            expect_named_error(&life, call);
        }
        error_count += !was_lived;
        borne_count += was_lived;
    }
    print_message("%u failures ended the link with an error, %u were borne\n", error_count,
                  borne_count);
    assert_true(error_count > 50);
}

/* What cannot be given back stays, and is logged; nothing else suffers. */
static void test_every_return_fails_once(void **state)
{
    (void)state;
    static struct life life;
    for (uint64_t nth = 1;; nth++) {
        assert_true(nth < CALL_COUNT);
        struct verbs_double_options options = options_of(nth);
        verbs_double_begin(&options);
        verbs_double_fail_nth(nth, VERBS_DOUBLE_UNMAKES);
        assert_true(run_life(&life));
        const char *call = verbs_double_failed_call();
        verbs_double_fail_nth(0, 0);
        verbs_double_end();
        if (call == NULL) {
            print_message("%" PRIu64 " returns failed in turn\n", nth - 1);
            break;
        }
    }
}

/* The reasons for which verbs refuse to pin memory are told with the way out. */
static void test_refused_memory_names_the_limit(void **state)
{
    (void)state;
    static const int reasons[] = {ENOMEM, EAGAIN, EPERM};
    static const char *const calls[] = {"ibv_reg_mr", "ibv_create_cq", "rdma_create_qp"};
    static struct life life;
    for (size_t i = 0; i < rsi_array_count(calls); i++) {
        for (size_t k = 0; k < rsi_array_count(reasons); k++) {
            struct verbs_double_options options = options_of(1);
            verbs_double_begin(&options);
            verbs_double_fail_named(calls[i], 1, reasons[k]);
            assert_false(run_life(&life));
            verbs_double_fail_nth(0, 0);
            verbs_double_end();
            assert_int_equal(life.error.status, RSI_E_NO_MEMORY_LOCK);
            assert_non_null(strstr(life.error.text, "ulimit -l"));
        }
    }
}

int main(void)
{
    rsi_log_set_level(RSI_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life_without_failures),
        cmocka_unit_test(test_every_call_fails_once),
        cmocka_unit_test(test_every_return_fails_once),
        cmocka_unit_test(test_refused_memory_names_the_limit),
    };
    return cmocka_run_group_tests_name("every call fails", tests, NULL, NULL);
}
