#ifndef RSI_CORE_IDLE_H
#define RSI_CORE_IDLE_H

#include <stdint.h>

#include "core/error.h"

/*
 * What an agent does when a pass found no work. This file only decides; the agent itself arms its
 * wakers and waits. One struct per agent, owner thread only.
 */
typedef enum rsi_idle_strategy {
    RSI_IDLE_BUSY,     /* never sleeps: lowest latency, one core */
    RSI_IDLE_ADAPTIVE, /* polls on for spin_ns after the last work while that pays, then sleeps */
    RSI_IDLE_BLOCKING, /* sleeps at the first pass without work */
} rsi_idle_strategy_t;

typedef enum rsi_idle_action {
    RSI_IDLE_POLL,  /* poll again at once */
    RSI_IDLE_SLEEP, /* arm the wakers, poll once more, wait */
} rsi_idle_action_t;

#define RSI_IDLE_SPIN_NS UINT64_C(50000)

/* What an adaptive agent starts with and can have at most: so many spins for nothing in a row, and
 * it sleeps at once; then every so many idle phases it spins once more, to see whether it pays now.
 */
enum { RSI_IDLE_CREDIT_MAX = 8, RSI_IDLE_PROBE_COUNT = 64 };

struct rsi_idle {
    rsi_idle_strategy_t strategy;
    uint64_t spin_ns;       /* of ADAPTIVE */
    uint64_t idle_since_ns; /* first pass without work; 0: the last pass had work */
    uint32_t is_spent;      /* 1: the spinning is used up until there is work again */
    uint32_t credit;        /* of ADAPTIVE: spins for nothing that it still allows itself */
    uint32_t unspun_count;  /* idle phases since the last spin, while there is no credit */
    uint64_t spin_count;    /* passes without work answered with POLL */
    uint64_t sleep_count;   /* answered with SLEEP */
};

/* spin_ns 0 means RSI_IDLE_SPIN_NS. There is no fini: it owns nothing. */
void rsi_idle_init(struct rsi_idle *idle, rsi_idle_strategy_t strategy, uint64_t spin_ns);

/*
 * Called after each pass with the work it did. Makes no system call. Woken for nothing (0 work
 * after a SLEEP) an adaptive agent sleeps again at once: only work earns new spinning.
 */
rsi_idle_action_t rsi_idle_step(struct rsi_idle *idle, uint64_t work_count);

/* "busy", "adaptive", "blocking". */
const char *rsi_idle_strategy_name(rsi_idle_strategy_t strategy);

/* INVALID for another name; the text lists the valid ones. */
rsi_status_t rsi_idle_strategy_parse(rsi_idle_strategy_t *strategy, const char *text,
                                     struct rsi_error *error) RSI_MUST_CHECK;

#endif
