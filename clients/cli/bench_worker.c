/*
 * Design notes
 * - A subscriber counts what comes by its sequence: a step over numbers is a loss, a lower one is a
 *   message doubled or out of order. Order is promised per publisher and subject, so with several
 *   topics each has its own next number.
 * - Open loop: the time in a message is when it should have gone out. A publisher that is held up
 * sends late, and that shows as latency instead of as a lower rate.
 * - Flat out, the reader takes the time of one message in sixteen: reading the clock for each costs
 * more than moving it.
 */
#include "clients/cli/bench.h"

#include "clients/cli/cli.h"
#include "core/clock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LIVE_MASK = 1023, SAMPLE_MASK = 15 };

#define STEP_NS  (RSI_NS_PER_SECOND / 20) /* longest poll: so often the parent's words are seen */
#define AWAKE_NS UINT64_C(100000)
#define HANG_NS  (20 * RSI_NS_PER_SECOND)

struct worker {
    const struct rsi_bench_options *options;
    struct rsi_bench_shared *shared;
    struct rsi_bench_worker *result;
    ringside_client_t *client;
    ringside_publisher_t **publishers; /* one per topic; all NULL: only receives */
    uint64_t total_count;              /* warm-up and measured */
    uint64_t *next_sequences;          /* to be received, per topic; round trips: one */
    uint64_t received_count;
    uint64_t cpu_start_ns;
    uint64_t sample_mask;
    /* Ping and pong. */
    uint64_t echo_due;    /* pong: sequence to send back; 0: none */
    uint64_t echo_due_ns; /* and its time */
    uint64_t returned_ns; /* ping: when the awaited message came; 0: not yet */
};

static uint64_t cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * RSI_NS_PER_SECOND + (uint64_t)used.tv_nsec;
}

static bool is_over(const struct worker *worker)
{
    return rsi_stop_requested() || rsi_load_relaxed(&worker->shared->is_aborted) != 0;
}

static void begin_measuring(struct worker *worker, uint64_t now_ns)
{
    worker->result->start_ns = now_ns;
    worker->cpu_start_ns = cpu_ns();
}

static void end_measuring(struct worker *worker, uint64_t now_ns)
{
    worker->result->end_ns = now_ns;
    worker->result->cpu_ns = cpu_ns() - worker->cpu_start_ns;
}

/* False: the connection failed; said on standard error. */
static bool poll_client(struct worker *worker, uint64_t timeout_ns)
{
    if (ringside_poll(worker->client, 0, timeout_ns, NULL) >= 0) {
        return true;
    }
    if (!is_over(worker)) {
        rsi_cli_fail("%s", ringside_error_text(worker->client));
    }
    return false;
}

/* False: the run is over or the connection failed. */
static bool publish(struct worker *worker, uint64_t sequence, uint64_t time_ns)
{
    size_t bytes = worker->options->size_bytes;
    ringside_publisher_t *publisher = worker->publishers[sequence % worker->options->topic_count];
    for (;;) {
        void *buffer = NULL;
        ringside_status_t status = ringside_claim(publisher, bytes, &buffer);
        if (status == RINGSIDE_OK) {
            rsi_bench_message_fill(buffer, bytes, sequence, time_ns);
            status = ringside_commit(publisher, bytes);
            if (status == RINGSIDE_OK) {
                return true;
            }
        }
        if (status < 0) {
            rsi_cli_fail("publishing: %s (%s)", ringside_error_text(worker->client),
                         ringside_status_name(status));
            return false;
        }
        if (!poll_client(worker, STEP_NS) || is_over(worker)) {
            return false;
        }
    }
}

/* ---- one way ------------------------------------------------------------------------------------
 */

/* Waits awake for the last stretch. False: over or failed. */
static bool wait_until(struct worker *worker, uint64_t intended_ns)
{
    for (;;) {
        uint64_t now_ns = rsi_clock_now_ns();
        if (now_ns >= intended_ns) {
            return true;
        }
        uint64_t left_ns = intended_ns - now_ns;
        uint64_t sleep_ns = left_ns > AWAKE_NS ? left_ns - AWAKE_NS : 0;
        if (!poll_client(worker, sleep_ns < STEP_NS ? sleep_ns : STEP_NS) || is_over(worker)) {
            return false;
        }
    }
}

static bool publish_all(struct worker *worker)
{
    const struct rsi_bench_options *options = worker->options;
    uint64_t begin_ns = rsi_clock_now_ns();
    for (uint64_t i = 0; i < worker->total_count; i++) {
        uint64_t time_ns = rsi_clock_now_ns();
        if (options->rate_per_second > 0) {
            uint64_t due_count = i - i % options->burst_count;
            time_ns = begin_ns + (uint64_t)((double)due_count * 1e9 / options->rate_per_second);
            if (!wait_until(worker, time_ns)) {
                return false;
            }
        }
        if (i == options->warmup_count) {
            begin_measuring(worker, time_ns);
        }
        if (!publish(worker, i + 1, time_ns)) {
            return false;
        }
        if ((i & LIVE_MASK) == 0) {
            rsi_store_relaxed(&worker->result->live_count, i);
        }
    }
    worker->result->message_count = options->message_count;
    if (ringside_flush(worker->client, HANG_NS) != RINGSIDE_OK) {
        rsi_cli_fail("flushing: %s", ringside_error_text(worker->client));
        return false;
    }
    end_measuring(worker, rsi_clock_now_ns());
    return true;
}

static void count_disorder(struct worker *worker, uint64_t sequence, uint64_t next) RSI_COLD;

/* A lower number than expected is counted here; whether it was counted as lost before is not known,
 * so the losses are counted at the end, from how many came. */
static void count_disorder(struct worker *worker, uint64_t sequence, uint64_t next)
{
    if (sequence + worker->options->topic_count == next) {
        worker->result->doubled_count++;
    } else if (sequence < next) {
        worker->result->disordered_count++;
    }
}

static void on_one_way(void *arg, const ringside_message_t *message)
{
    struct worker *worker = arg;
    const struct rsi_bench_options *options = worker->options;
    uint64_t sequence = 0;
    uint64_t time_ns = 0;
    if (rsi_unlikely(!rsi_bench_message_check(message->data, message->bytes, &sequence, &time_ns) ||
                     message->bytes != options->size_bytes)) {
        worker->result->corrupt_count++;
        return;
    }
    uint64_t *next = &worker->next_sequences[sequence % options->topic_count];
    if (rsi_unlikely(sequence != *next)) {
        count_disorder(worker, sequence, *next);
    }
    if (sequence >= *next) {
        *next = sequence + options->topic_count;
    }
    worker->received_count++;
    if (sequence <= options->warmup_count) {
        return;
    }
    if (rsi_unlikely(worker->cpu_start_ns == 0)) {
        begin_measuring(worker, rsi_clock_now_ns());
    }
    worker->result->message_count++;
    if ((sequence & worker->sample_mask) == 0) {
        uint64_t now_ns = rsi_clock_now_ns();
        rsi_histogram_record(&worker->result->latency, now_ns > time_ns ? now_ns - time_ns : 0);
    }
}

static void on_wildcard(void *arg, const ringside_message_t *message)
{
    struct worker *worker = arg;
    (void)message;
    worker->result->wildcard_calls++;
}

static bool receive_all(struct worker *worker)
{
    uint64_t progressed_ns = rsi_clock_now_ns();
    while (worker->received_count < worker->total_count && !is_over(worker)) {
        uint64_t before_count = worker->received_count;
        if (!poll_client(worker, STEP_NS)) {
            return false;
        }
        if (worker->received_count != before_count) {
            rsi_store_relaxed(&worker->result->live_count, worker->received_count);
            progressed_ns = 0;
        } else if (progressed_ns == 0) {
            progressed_ns = rsi_clock_now_ns();
        } else if (rsi_clock_now_ns() - progressed_ns > HANG_NS) {
            rsi_cli_note("no message for 20 s; %" PRIu64 " of %" PRIu64 " came",
                         worker->received_count, worker->total_count);
            break;
        }
    }
    end_measuring(worker, rsi_clock_now_ns());
    if (worker->received_count < worker->total_count && !is_over(worker)) {
        worker->result->lost_count = worker->total_count - worker->received_count;
    }
    return !is_over(worker);
}

/* ---- ping and pong ------------------------------------------------------------------------------
 */

static void on_pong_side(void *arg, const ringside_message_t *message)
{
    struct worker *worker = arg;
    uint64_t sequence = 0;
    uint64_t time_ns = 0;
    if (!rsi_bench_message_check(message->data, message->bytes, &sequence, &time_ns)) {
        worker->result->corrupt_count++;
        return;
    }
    worker->received_count++;
    worker->echo_due = sequence;
    worker->echo_due_ns = time_ns;
}

static void on_ping_side(void *arg, const ringside_message_t *message)
{
    struct worker *worker = arg;
    uint64_t sequence = 0;
    uint64_t time_ns = 0;
    worker->returned_ns = rsi_clock_now_ns();
    if (!rsi_bench_message_check(message->data, message->bytes, &sequence, &time_ns)) {
        worker->result->corrupt_count++;
    } else if (sequence != worker->next_sequences[0]) {
        worker->result->disordered_count++;
    }
}

static bool pong_all(struct worker *worker)
{
    begin_measuring(worker, rsi_clock_now_ns());
    while (worker->received_count < worker->total_count) {
        if (!poll_client(worker, STEP_NS) || is_over(worker)) {
            return false;
        }
        if (worker->echo_due != 0 && !publish(worker, worker->echo_due, worker->echo_due_ns)) {
            return false;
        }
        worker->echo_due = 0;
    }
    end_measuring(worker, rsi_clock_now_ns());
    return ringside_flush(worker->client, HANG_NS) == RINGSIDE_OK;
}

static bool ping_all(struct worker *worker)
{
    for (uint64_t i = 0; i < worker->total_count; i++) {
        uint64_t sent_ns = rsi_clock_now_ns();
        if (i == worker->options->warmup_count) {
            begin_measuring(worker, sent_ns);
        }
        worker->next_sequences[0] = i + 1;
        worker->returned_ns = 0;
        if (!publish(worker, i + 1, sent_ns)) {
            return false;
        }
        while (worker->returned_ns == 0) {
            if (!poll_client(worker, STEP_NS) || is_over(worker)) {
                return false;
            }
            if (worker->returned_ns == 0 && rsi_clock_now_ns() - sent_ns > HANG_NS) {
                rsi_cli_fail("round trip %" PRIu64 " did not end within 20 s", i + 1);
                worker->result->lost_count++;
                return false;
            }
        }
        if (i >= worker->options->warmup_count) {
            rsi_histogram_record(&worker->result->latency, worker->returned_ns - sent_ns);
            worker->result->message_count++;
        }
        rsi_store_relaxed(&worker->result->live_count, i + 1);
    }
    end_measuring(worker, rsi_clock_now_ns());
    return true;
}

/* ---- a worker's life ----------------------------------------------------------------------------
 */

static bool subscribe(struct worker *worker, const char *subject, ringside_on_message_t on_message)
{
    return rsi_connection_subscribe(&worker->options->connection, worker->client, subject,
                                    worker->options->policy, on_message, worker) != NULL;
}

static bool make_publisher(struct worker *worker, const char *subject, uint64_t topic)
{
    worker->publishers[topic] = rsi_connection_make_publisher(
        worker->client, subject, worker->options->connection.timeout_ns);
    return worker->publishers[topic] != NULL;
}

static bool make_publishers(struct worker *worker)
{
    char subject[64];
    for (uint64_t topic = 0; topic < worker->options->topic_count; topic++) {
        snprintf(subject, sizeof(subject), "ringside.bench.%u.%" PRIu64 ".there",
                 worker->shared->run_id, topic);
        if (is_over(worker) || !make_publisher(worker, subject, topic)) {
            return false;
        }
    }
    return true;
}

static bool subscribe_all(struct worker *worker)
{
    const struct rsi_bench_options *options = worker->options;
    char subject[64];
    for (uint64_t i = 0; i < options->wildcard_count; i++) {
        snprintf(subject, sizeof(subject), "ringside.*.%u.%" PRIu64 ".>", worker->shared->run_id,
                 i % options->topic_count);
        if (is_over(worker) || !subscribe(worker, subject, on_wildcard)) {
            return false;
        }
    }
    snprintf(subject, sizeof(subject), "ringside.bench.%u.*.there", worker->shared->run_id);
    return subscribe(worker, subject, on_one_way);
}

static bool prepare(struct worker *worker, uint32_t index)
{
    char there[64];
    char back[64];
    if (!rsi_bench_is_closed_loop(worker->options)) {
        return index == 0 ? make_publishers(worker) : subscribe_all(worker);
    }
    snprintf(there, sizeof(there), "ringside.bench.%u.there", worker->shared->run_id);
    snprintf(back, sizeof(back), "ringside.bench.%u.back", worker->shared->run_id);
    if (index == 0) {
        return subscribe(worker, back, on_ping_side) && make_publisher(worker, there, 0);
    }
    return subscribe(worker, there, on_pong_side) && make_publisher(worker, back, 0);
}

static bool wait_for_start(struct worker *worker)
{
    rsi_store_release(&worker->result->state, (uint32_t)RSI_BENCH_READY);
    /* Pairs with the release in the parent, when all are ready. */
    while (rsi_load_acquire(&worker->shared->is_started) == 0) {
        if (!poll_client(worker, RSI_NS_PER_SECOND / 1000) || is_over(worker)) {
            return false;
        }
    }
    return true;
}

static bool run(struct worker *worker, uint32_t index)
{
    if (rsi_bench_is_closed_loop(worker->options)) {
        return index == 0 ? ping_all(worker) : pong_all(worker);
    }
    return index == 0 ? publish_all(worker) : receive_all(worker);
}

int rsi_bench_work(const struct rsi_bench_options *options, struct rsi_bench_shared *shared,
                   uint32_t index)
{
    struct worker worker = {
        .options = options,
        .shared = shared,
        .result = &shared->workers[index],
        .total_count = options->warmup_count + options->message_count,
        .publishers = calloc(options->topic_count, sizeof(*worker.publishers)),
        .next_sequences = calloc(options->topic_count, sizeof(*worker.next_sequences)),
        .sample_mask = options->rate_per_second > 0 ? 0 : SAMPLE_MASK,
    };
    if (worker.publishers == NULL || worker.next_sequences == NULL) {
        return rsi_cli_fail("no memory for %" PRIu64 " topics", options->topic_count);
    }
    /* Sequences begin at 1 and go round: topic 0 gets the last of the first round. */
    worker.next_sequences[0] = options->topic_count;
    for (uint64_t topic = 1; topic < options->topic_count; topic++) {
        worker.next_sequences[topic] = topic;
    }
    struct rsi_connection_options connection = options->connection;
    struct rsi_bench_device device;
    rsi_bench_device_choose(&device, &connection.dpdk, index);
    if (options->pin_count > 0) {
        connection.cpu = (int)options->pins[index % options->pin_count];
    }
    enum rsi_connection_use use = rsi_bench_is_closed_loop(options) ? RSI_CONNECTION_BOTH
                                  : index == 0                      ? RSI_CONNECTION_PUBLISHES
                                                                    : RSI_CONNECTION_SUBSCRIBES;
    worker.client = rsi_connection_open(&connection, use, NULL, NULL);
    bool is_done = worker.client != NULL && prepare(&worker, index) && wait_for_start(&worker) &&
                   run(&worker, index);
    if (worker.client != NULL) {
        worker.result->link.struct_bytes = sizeof(worker.result->link);
        (void)ringside_stats(worker.client, &worker.result->link);
        snprintf(worker.result->transport, sizeof(worker.result->transport), "%s",
                 ringside_transport(worker.client));
    }
    /* Pairs with the acquire in the parent: results before the state that announces them. */
    rsi_store_release(&worker.result->state,
                      (uint32_t)(is_done ? RSI_BENCH_DONE : RSI_BENCH_FAILED));
    if (worker.client != NULL && rsi_connection_close(&connection, worker.client) != RSI_EXIT_OK) {
        is_done = false;
    }
    free(worker.publishers);
    free(worker.next_sequences);
    return is_done ? RSI_EXIT_OK : RSI_EXIT_FAILURE;
}
