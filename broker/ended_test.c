/*
 * Sessions that have ended are found for as long as they are kept, and for no longer; the newest
 * are kept; and nothing is left of the secret of one that is forgotten.
 */
#include "broker/ended.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define KEPT_NS UINT64_C(1000)

static struct rsi_ended_session session_of(uint64_t id, uint64_t now_ns)
{
    struct rsi_ended_session session = {
        .id = id,
        .until_ns = now_ns + KEPT_NS,
        .reason = RINGSIDE__CONTROL__REASON__REASON_SLOW,
        .taken_pos = 8 * id,
    };
    snprintf(session.text, sizeof(session.text), "session %llu was slow", (unsigned long long)id);
    memset(session.secret, (int)id, sizeof(session.secret));
    return session;
}

static void add(struct rsi_ended *ended, uint64_t id, uint64_t now_ns)
{
    const struct rsi_ended_session session = session_of(id, now_ns);
    rsi_ended_add(ended, &session);
}

static void kept_for_its_time(void **state)
{
    struct rsi_ended ended = {0};
    (void)state;
    assert_int_equal(rsi_ended_init(&ended, NULL), RSI_OK);
    assert_null(rsi_ended_find(&ended, 1, 0));
    assert_null(rsi_ended_find(&ended, 0, 0)); /* what a free place holds is no session */
    add(&ended, 1, 100);
    add(&ended, 2, 200);
    const struct rsi_ended_session *found = rsi_ended_find(&ended, 1, 100 + KEPT_NS - 1);
    const struct rsi_ended_session expected = session_of(1, 100);
    assert_non_null(found);
    assert_memory_equal(found, &expected, sizeof(expected));
    assert_null(rsi_ended_find(&ended, 1, 100 + KEPT_NS));
    assert_non_null(rsi_ended_find(&ended, 2, 100 + KEPT_NS));
    rsi_ended_fini(&ended);
    rsi_ended_fini(&ended);
}

static void the_oldest_makes_room(void **state)
{
    struct rsi_ended ended = {0};
    (void)state;
    assert_int_equal(rsi_ended_init(&ended, NULL), RSI_OK);
    for (uint64_t id = 1; id <= 3 * RSI_ENDED_COUNT_MAX + 5; id++) {
        add(&ended, id, 0);
        uint64_t oldest = id > RSI_ENDED_COUNT_MAX ? id - RSI_ENDED_COUNT_MAX + 1 : 1;
        assert_non_null(rsi_ended_find(&ended, id, 0));
        assert_non_null(rsi_ended_find(&ended, oldest, 0));
        assert_null(rsi_ended_find(&ended, oldest - 1, 0));
    }
    rsi_ended_fini(&ended);
}

static void nothing_is_left_of_what_is_forgotten(void **state)
{
    static const struct rsi_ended_session nothing;
    struct rsi_ended ended = {0};
    (void)state;
    assert_int_equal(rsi_ended_init(&ended, NULL), RSI_OK);
    add(&ended, 1, 100);
    add(&ended, 2, 200);
    rsi_ended_forget_old(&ended, 100 + KEPT_NS - 1);
    assert_non_null(rsi_ended_find(&ended, 1, 100));
    rsi_ended_forget_old(&ended, 100 + KEPT_NS);
    assert_null(rsi_ended_find(&ended, 1, 100));
    assert_non_null(rsi_ended_find(&ended, 2, 100));
    rsi_ended_forget_old(&ended, UINT64_MAX);
    for (uint32_t i = 0; i < RSI_ENDED_COUNT_MAX; i++) {
        assert_memory_equal(&ended.sessions[i], &nothing, sizeof(nothing));
    }
    rsi_ended_fini(&ended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_for_its_time),
        cmocka_unit_test(the_oldest_makes_room),
        cmocka_unit_test(nothing_is_left_of_what_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
