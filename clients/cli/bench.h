/*
 * ringside bench from inside: what the parent and its worker processes share.
 *
 * Design notes
 * - Workers are processes, as publishers and subscribers are in life; they are forked before
 * anything connects, since the library refuses to go on after a fork.
 * - All results lie in one anonymous shared mapping. A worker writes its own part and then releases
 * its state; the parent acquires the state and then reads. Only `live_count` is read while it
 * moves.
 */
#ifndef RSI_CLI_BENCH_H
#define RSI_CLI_BENCH_H

#include "clients/c/ringside.h"
#include "clients/cli/connection.h"
#include "core/atomics.h"
#include "core/error.h"
#include "core/histogram.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum {
    RSI_BENCH_PIN_COUNT_MAX = 256,
    RSI_BENCH_SUBSCRIBER_COUNT_MAX = 1000,
    RSI_BENCH_TOPIC_COUNT_MAX = 65536,
    RSI_BENCH_WILDCARD_COUNT_MAX = 65536,
    RSI_BENCH_HEADER_BYTES = 24,
};

typedef enum rsi_bench_kind {
    RSI_BENCH_LATENCY,    /* closed loop: ping and pong; with a rate, open loop: one way */
    RSI_BENCH_THROUGHPUT, /* one to one */
    RSI_BENCH_FANOUT,     /* one to many */
} rsi_bench_kind_t;

struct rsi_bench_options {
    struct rsi_connection_options connection;
    rsi_bench_kind_t kind;
    bool has_kind;
    uint64_t message_count;
    uint64_t warmup_count;
    uint64_t size_bytes;
    uint64_t subscriber_count;
    uint64_t topic_count;    /* one way: that the publisher goes round */
    uint64_t wildcard_count; /* one way: further subscriptions of each subscriber */
    double rate_per_second;  /* 0: closed loop, or as fast as it goes */
    uint64_t burst_count;    /* of each moment of the rate */
    ringside_policy_t policy;
    unsigned pins[RSI_BENCH_PIN_COUNT_MAX];
    size_t pin_count;
    pid_t broker_pid; /* 0: not told */
    const char *hgrm_path;
    bool is_json;
};

static inline bool rsi_bench_is_closed_loop(const struct rsi_bench_options *options)
{
    return options->kind == RSI_BENCH_LATENCY && options->rate_per_second <= 0;
}

typedef enum rsi_bench_state {
    RSI_BENCH_STARTING, /* connecting */
    RSI_BENCH_READY,    /* subscribed or its publisher made; waits for the start */
    RSI_BENCH_DONE,     /* results are complete */
    RSI_BENCH_FAILED,   /* it said why on standard error */
} rsi_bench_state_t;

/* Written by one worker. */
struct rsi_bench_worker {
    RSI_ALIGNED_LINE _Atomic uint32_t state; /* rsi_bench_state_t */
    _Atomic uint64_t live_count;             /* messages so far, warm-up included */
    uint64_t message_count;                  /* measured ones that came, or were published */
    uint64_t lost_count;
    uint64_t doubled_count;
    uint64_t disordered_count;
    uint64_t corrupt_count;
    uint64_t wildcard_calls; /* callbacks of the further subscriptions */
    uint64_t start_ns;       /* of the measured part */
    uint64_t end_ns;
    uint64_t cpu_ns; /* in the measured part */
    ringside_link_stats_t link;
    char transport[16];
    struct rsi_histogram latency;
};

struct rsi_bench_shared {
    /* Written by the parent. */
    _Atomic uint32_t is_started;
    _Atomic uint32_t is_aborted;
    uint32_t run_id; /* part of the subjects, so that runs do not meet */
    uint32_t worker_count;
    struct rsi_bench_worker workers[]; /* the publisher (or ping) first */
};

/* Sums over the receivers. */
struct rsi_bench_totals {
    uint64_t delivered_count;
    uint64_t lost_count;
    uint64_t doubled_count;
    uint64_t disordered_count;
    uint64_t corrupt_count;
    uint64_t wildcard_calls;
    uint64_t elapsed_ns; /* first measured publish to last measured delivery */
    uint64_t cpu_ns;     /* of all clients */
    uint64_t broker_cpu_ns;
    bool has_broker_cpu;
    struct rsi_histogram latency;
};

/* The whole life of a worker process; returns its exit code. */
int rsi_bench_work(const struct rsi_bench_options *options, struct rsi_bench_shared *shared,
                   uint32_t index);

/* ---- messages -----------------------------------------------------------------------------------
 */

/* Fills a message of `bytes` >= RSI_BENCH_HEADER_BYTES: all of it depends on the sequence. */
void rsi_bench_message_fill(void *message, size_t bytes, uint64_t sequence, uint64_t time_ns);
/* Reads every byte. False: it is not what was filled in. */
bool rsi_bench_message_check(const void *message, size_t bytes, uint64_t *sequence,
                             uint64_t *time_ns);

/* ---- devices ------------------------------------------------------------------------------------
 */

/* Over dpdk://, as one process calls itself. */
struct rsi_bench_device {
    char address[32];
    char port[512];
    char mac[32];
};

/* False: the processes are more than the prefix of --dpdk-address has addresses for. */
bool rsi_bench_device_check(const ringside_dpdk_t *dpdk, uint32_t process_count,
                            struct rsi_error *error);
/* Process `index` takes the address that stands so far behind the given one, and has its number in
 * the place of a % in the port and in the MAC. Other texts, and those that cannot be read, stay as
 * they are. */
void rsi_bench_device_choose(struct rsi_bench_device *device, ringside_dpdk_t *dpdk,
                             uint32_t index);

/* ---- report -------------------------------------------------------------------------------------
 */

void rsi_bench_add_up(const struct rsi_bench_options *options,
                      const struct rsi_bench_shared *shared, struct rsi_bench_totals *totals);
/* Nothing lost, doubled, out of order or corrupt. */
bool rsi_bench_is_clean(const struct rsi_bench_totals *totals);
void rsi_bench_print(FILE *stream, const struct rsi_bench_options *options,
                     const struct rsi_bench_shared *shared, const struct rsi_bench_totals *totals);
void rsi_bench_print_json(FILE *stream, const struct rsi_bench_options *options,
                          const struct rsi_bench_shared *shared,
                          const struct rsi_bench_totals *totals);

#endif
