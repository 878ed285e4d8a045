#include "core/testing.h"

#include "core/clock.h"
#include "core/idle.h"

static void busy_never_sleeps(void **state)
{
    (void)state;
    struct rsi_idle idle;
    rsi_idle_init(&idle, RSI_IDLE_BUSY, 0);
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(rsi_idle_step(&idle, 0), RSI_IDLE_POLL);
    }
    assert_int_equal(rsi_idle_step(&idle, 3), RSI_IDLE_POLL);
    assert_int_equal(idle.spin_count, 10000);
    assert_int_equal(idle.sleep_count, 0);
}

static void blocking_sleeps_at_once(void **state)
{
    (void)state;
    struct rsi_idle idle;
    rsi_idle_init(&idle, RSI_IDLE_BLOCKING, 0);
    assert_int_equal(rsi_idle_step(&idle, 1), RSI_IDLE_POLL);
    assert_int_equal(rsi_idle_step(&idle, 0), RSI_IDLE_SLEEP);
    assert_int_equal(rsi_idle_step(&idle, 0), RSI_IDLE_SLEEP);
    assert_int_equal(rsi_idle_step(&idle, 1), RSI_IDLE_POLL);
    assert_int_equal(idle.sleep_count, 2);
    assert_int_equal(idle.spin_count, 0);
}

static void spin_until_sleep(struct rsi_idle *idle)
{
    rsi_test_wait_until(rsi_idle_step(idle, 0) == RSI_IDLE_SLEEP);
}

static void adaptive_spins_for_its_time_and_then_sleeps(void **state)
{
    (void)state;
    struct rsi_idle idle;
    rsi_idle_init(&idle, RSI_IDLE_ADAPTIVE, 2000000);
    uint64_t start_ns = rsi_clock_now_ns();
    spin_until_sleep(&idle);
    assert_true(rsi_clock_now_ns() - start_ns >= 2000000);
    assert_true(idle.spin_count >= 1);
    assert_int_equal(idle.sleep_count, 1);

    rsi_idle_init(&idle, RSI_IDLE_ADAPTIVE, 0);
    assert_int_equal(idle.spin_ns, RSI_IDLE_SPIN_NS);
}

static void only_work_earns_new_spinning(void **state)
{
    (void)state;
    struct rsi_idle idle;
    rsi_idle_init(&idle, RSI_IDLE_ADAPTIVE, 1000000);
    spin_until_sleep(&idle);
    uint64_t spin_count = idle.spin_count;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(rsi_idle_step(&idle, 0), RSI_IDLE_SLEEP);
    }
    assert_int_equal(idle.spin_count, spin_count);
    assert_int_equal(rsi_idle_step(&idle, 1), RSI_IDLE_POLL);
    spin_until_sleep(&idle);
    assert_true(idle.spin_count > spin_count);
}

/* One idle phase after some work: whether it began with a spin. */
static bool phase_spins(struct rsi_idle *idle)
{
    assert_int_equal(rsi_idle_step(idle, 1), RSI_IDLE_POLL);
    uint64_t spin_count = idle->spin_count;
    spin_until_sleep(idle);
    return idle->spin_count > spin_count;
}

static void an_adaptive_agent_stops_spinning_while_it_brings_nothing(void **state)
{
    (void)state;
    struct rsi_idle idle;
    rsi_idle_init(&idle, RSI_IDLE_ADAPTIVE, 1000);
    for (int i = 0; i < RSI_IDLE_CREDIT_MAX; i++) {
        assert_true(phase_spins(&idle));
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < RSI_IDLE_PROBE_COUNT - 1; i++) {
            assert_false(phase_spins(&idle));
        }
        assert_true(phase_spins(&idle));
    }
    /* A probe that brings work earns two more spins. */
    for (int i = 0; i < RSI_IDLE_PROBE_COUNT - 1; i++) {
        assert_false(phase_spins(&idle));
    }
    assert_int_equal(rsi_idle_step(&idle, 1), RSI_IDLE_POLL);
    assert_int_equal(rsi_idle_step(&idle, 0), RSI_IDLE_POLL);
    assert_true(phase_spins(&idle));
    assert_true(phase_spins(&idle));
    assert_false(phase_spins(&idle));
}

static void names_are_read_and_written(void **state)
{
    (void)state;
    static const rsi_idle_strategy_t strategies[] = {RSI_IDLE_BUSY, RSI_IDLE_ADAPTIVE,
                                                     RSI_IDLE_BLOCKING};
    for (size_t i = 0; i < rsi_array_count(strategies); i++) {
        rsi_idle_strategy_t strategy = RSI_IDLE_BUSY;
        const char *name = rsi_idle_strategy_name(strategies[i]);
        assert_int_equal(rsi_idle_strategy_parse(&strategy, name, NULL), RSI_OK);
        assert_int_equal(strategy, strategies[i]);
    }
    assert_string_equal(rsi_idle_strategy_name((rsi_idle_strategy_t)9), "unknown");
    struct rsi_error error = {0};
    rsi_idle_strategy_t strategy = RSI_IDLE_BLOCKING;
    assert_int_equal(rsi_idle_strategy_parse(&strategy, "lazy", &error), RSI_E_INVALID);
    assert_string_equal(error.text,
                        "'lazy' is not an idle strategy; use busy, adaptive or blocking");
    assert_int_equal(strategy, RSI_IDLE_BLOCKING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(busy_never_sleeps),
        cmocka_unit_test(blocking_sleeps_at_once),
        cmocka_unit_test(adaptive_spins_for_its_time_and_then_sleeps),
        cmocka_unit_test(only_work_earns_new_spinning),
        cmocka_unit_test(an_adaptive_agent_stops_spinning_while_it_brings_nothing),
        cmocka_unit_test(names_are_read_and_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
