/*
 * Design notes
 *
 * - Deciding and waiting are apart: what there is to wait on (epoll, a completion channel, a futex)
 *   differs by agent, the decision does not, and can so be tested without any of it.
 * - An adaptive agent that was woken for nothing goes back to sleep at once. Else a wake-up per
 *   millisecond would cost a whole spin each time, and an idle agent more than 1 % of its core.
 * - Spinning pays where the other side works on another core meanwhile. Where both share one, or
 *   work comes seldom, every spin is for nothing and keeps the other from working: the round trip
 * of two spinning clients and a spinning broker on one core was 119 us, of sleeping ones 22 us. So
 * an adaptive agent counts what its spins brought, and stops spinning while they bring nothing.
 */
#include "core/idle.h"

#include <stdbool.h>
#include <string.h>

#include "core/assert.h"
#include "core/atomics.h"
#include "core/clock.h"

static const char *const strategy_names[] = {"busy", "adaptive", "blocking"};

void rsi_idle_init(struct rsi_idle *idle, rsi_idle_strategy_t strategy, uint64_t spin_ns)
{
    *idle = (struct rsi_idle){
        .strategy = strategy,
        .spin_ns = spin_ns != 0 ? spin_ns : RSI_IDLE_SPIN_NS,
        .credit = RSI_IDLE_CREDIT_MAX,
    };
}

static rsi_idle_action_t poll_again(struct rsi_idle *idle)
{
    idle->spin_count++;
    rsi_cpu_pause();
    return RSI_IDLE_POLL;
}

static rsi_idle_action_t go_to_sleep(struct rsi_idle *idle)
{
    idle->sleep_count++;
    idle->is_spent = 1;
    return RSI_IDLE_SLEEP;
}

/* Whether this idle phase begins with a spin. */
static bool may_spin(struct rsi_idle *idle)
{
    if (idle->credit > 0) {
        return true;
    }
    if (++idle->unspun_count < RSI_IDLE_PROBE_COUNT) {
        return false;
    }
    idle->unspun_count = 0;
    return true;
}

static rsi_idle_action_t step_adaptive(struct rsi_idle *idle)
{
    if (idle->is_spent != 0) {
        return go_to_sleep(idle);
    }
    if (idle->idle_since_ns == 0) {
        if (!may_spin(idle)) {
            return go_to_sleep(idle);
        }
        idle->idle_since_ns = rsi_clock_now_ns();
        return poll_again(idle);
    }
    if (rsi_clock_now_ns() - idle->idle_since_ns < idle->spin_ns) {
        return poll_again(idle);
    }
    if (idle->credit > 0) {
        idle->credit--;
    }
    return go_to_sleep(idle);
}

/* Work came while the agent was spinning: that paid for two that do not. */
static void reward_spin(struct rsi_idle *idle)
{
    idle->credit = idle->credit + 2 < RSI_IDLE_CREDIT_MAX ? idle->credit + 2 : RSI_IDLE_CREDIT_MAX;
}

rsi_idle_action_t rsi_idle_step(struct rsi_idle *idle, uint64_t work_count)
{
    if (work_count > 0) {
        if (idle->idle_since_ns != 0 && idle->is_spent == 0) {
            reward_spin(idle);
        }
        idle->idle_since_ns = 0;
        idle->is_spent = 0;
        return RSI_IDLE_POLL;
    }
    switch (idle->strategy) {
    case RSI_IDLE_BUSY:
        return poll_again(idle);
    case RSI_IDLE_ADAPTIVE:
        return step_adaptive(idle);
    case RSI_IDLE_BLOCKING:
        return go_to_sleep(idle);
    }
    rsi_unreachable("an idle strategy that does not exist");
}

const char *rsi_idle_strategy_name(rsi_idle_strategy_t strategy)
{
    return (unsigned)strategy < rsi_array_count(strategy_names) ? strategy_names[strategy]
                                                                : "unknown";
}

rsi_status_t rsi_idle_strategy_parse(rsi_idle_strategy_t *strategy, const char *text,
                                     struct rsi_error *error)
{
    for (unsigned i = 0; i < rsi_array_count(strategy_names); i++) {
        if (strcmp(text, strategy_names[i]) == 0) {
            *strategy = (rsi_idle_strategy_t)i;
            return RSI_OK;
        }
    }
    return rsi_fail(error, RSI_E_INVALID,
                    "'%s' is not an idle strategy; use busy, adaptive or blocking", text);
}
