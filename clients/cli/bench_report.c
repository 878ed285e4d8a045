/*
 * Design notes
 * - Rates are of the whole: from the first measured publish to the last measured delivery of the
 * slowest subscriber, so that a subscriber left behind cannot make them better.
 * - Latency of several subscribers is one histogram of all deliveries, not a mean of percentiles.
 */
#include "clients/cli/bench.h"

#include "clients/cli/cli.h"

#include <inttypes.h>
#include <string.h>

static const char *kind_name(const struct rsi_bench_options *options)
{
    switch (options->kind) {
    case RSI_BENCH_LATENCY:
        return options->rate_per_second > 0 ? "latency, open loop" : "latency, closed loop";
    case RSI_BENCH_THROUGHPUT:
        return "throughput";
    case RSI_BENCH_FANOUT:
        return "fan-out";
    }
    return "";
}

void rsi_bench_add_up(const struct rsi_bench_options *options,
                      const struct rsi_bench_shared *shared, struct rsi_bench_totals *totals)
{
    uint64_t end_ns = 0;
    uint32_t receiver_from = rsi_bench_is_closed_loop(options) ? 0 : 1;
    uint32_t receiver_to = rsi_bench_is_closed_loop(options) ? 1 : shared->worker_count;
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        const struct rsi_bench_worker *worker = &shared->workers[i];
        totals->cpu_ns += worker->cpu_ns;
        totals->corrupt_count += worker->corrupt_count;
        totals->lost_count += worker->lost_count;
        totals->doubled_count += worker->doubled_count;
        totals->disordered_count += worker->disordered_count;
        totals->wildcard_calls += worker->wildcard_calls;
        if (i < receiver_from || i >= receiver_to) {
            continue;
        }
        totals->delivered_count += worker->message_count;
        rsi_histogram_merge(&totals->latency, &worker->latency);
        end_ns = worker->end_ns > end_ns ? worker->end_ns : end_ns;
    }
    uint64_t start_ns = shared->workers[0].start_ns;
    totals->elapsed_ns = end_ns > start_ns ? end_ns - start_ns : 0;
    /* A round trip is two deliveries. */
    if (rsi_bench_is_closed_loop(options)) {
        totals->delivered_count *= 2;
    }
}

bool rsi_bench_is_clean(const struct rsi_bench_totals *totals)
{
    return totals->lost_count == 0 && totals->doubled_count == 0 && totals->disordered_count == 0 &&
           totals->corrupt_count == 0;
}

/* Processor seconds per million deliveries. */
static double cpu_per_million(uint64_t cpu_ns, uint64_t delivered_count)
{
    return delivered_count == 0 ? 0 : (double)cpu_ns / 1e9 / ((double)delivered_count / 1e6);
}

static double sends_per_message(const struct rsi_bench_options *options,
                                const struct rsi_bench_shared *shared)
{
    uint64_t count = options->message_count + options->warmup_count;
    return (double)shared->workers[0].link.sends / (double)count;
}

static void print_latency(FILE *stream, const struct rsi_bench_options *options,
                          const struct rsi_histogram *latency)
{
    static const double percentiles[] = {50, 90, 95, 99, 99.9};
    const char *what = rsi_bench_is_closed_loop(options) ? "round trip"
                       : options->rate_per_second > 0    ? "one way from the intended time"
                                                         : "one way, queueing, 1 in 16";
    fprintf(stream, "  %s\n", what);
    for (size_t i = 0; i < rsi_array_count(percentiles); i++) {
        double value_ns = (double)rsi_histogram_percentile(latency, percentiles[i]);
        char name[16];
        snprintf(name, sizeof(name), "p%g", percentiles[i]);
        fprintf(stream, "    %-6s %12s\n", name, rsi_figure_ns(value_ns).text);
    }
    fprintf(stream, "    %-6s %12s\n", "max", rsi_figure_ns((double)latency->max_value).text);
}

void rsi_bench_print(FILE *stream, const struct rsi_bench_options *options,
                     const struct rsi_bench_shared *shared, const struct rsi_bench_totals *totals)
{
    double delivered_rate = rsi_per_second(totals->delivered_count, totals->elapsed_ns);
    fprintf(stream, "%s over %s: %" PRIu64 " messages of %" PRIu64 " bytes, 1 to %" PRIu64 "\n",
            kind_name(options), shared->workers[0].transport, options->message_count,
            options->size_bytes, options->subscriber_count);
    if (options->topic_count > 1 || options->wildcard_count > 0) {
        fprintf(stream,
                "  subjects   %12" PRIu64 " topics; %" PRIu64
                " wildcards for each subscriber, called %" PRIu64 " times\n",
                options->topic_count, options->wildcard_count, totals->wildcard_calls);
    }
    if (totals->latency.total_count > 0) {
        print_latency(stream, options, &totals->latency);
    }
    fprintf(stream, "  delivered  %12s msg/s  %s/s  in %.3f s\n",
            rsi_figure_count(delivered_rate).text,
            rsi_figure_bytes(delivered_rate * (double)options->size_bytes).text,
            (double)totals->elapsed_ns / 1e9);
    fprintf(stream, "  cpu        %12.3f s per million deliveries, clients",
            cpu_per_million(totals->cpu_ns, totals->delivered_count));
    if (totals->has_broker_cpu) {
        fprintf(stream, "; %.3f s broker",
                cpu_per_million(totals->broker_cpu_ns, totals->delivered_count));
    }
    fprintf(stream,
            "\n  sends      %12.4g per message; %" PRIu64 " batches out, %" PRIu64
            " credit stalls, %" PRIu64 " sleeps (publisher)\n",
            sends_per_message(options, shared), shared->workers[0].link.batches_sent,
            shared->workers[0].link.credit_stalls, shared->workers[0].link.sleeps);
    fprintf(stream,
            "  faults     lost %" PRIu64 ", doubled %" PRIu64 ", out of order %" PRIu64
            ", corrupt %" PRIu64 "\n",
            totals->lost_count, totals->doubled_count, totals->disordered_count,
            totals->corrupt_count);
}

void rsi_bench_print_json(FILE *stream, const struct rsi_bench_options *options,
                          const struct rsi_bench_shared *shared,
                          const struct rsi_bench_totals *totals)
{
    const struct rsi_histogram *latency = &totals->latency;
    double delivered_rate = rsi_per_second(totals->delivered_count, totals->elapsed_ns);
    fprintf(stream,
            "{\"bench\":\"%s\",\"transport\":\"%s\",\"messages\":%" PRIu64
            ",\"size_bytes\":%" PRIu64 ",\"subscribers\":%" PRIu64 ",\"topics\":%" PRIu64
            ",\"wildcards\":%" PRIu64 ",\"rate_per_second\":%.1f,\"elapsed_ns\":%" PRIu64
            ",\"delivered\":%" PRIu64 ",\"delivered_per_second\":%.1f,\"bytes_per_second\":%.1f",
            kind_name(options), shared->workers[0].transport, options->message_count,
            options->size_bytes, options->subscriber_count, options->topic_count,
            options->wildcard_count, options->rate_per_second, totals->elapsed_ns,
            totals->delivered_count, delivered_rate, delivered_rate * (double)options->size_bytes);
    fprintf(stream, ",\"latency_ns\":{\"count\":%" PRIu64 ",", latency->total_count);
    rsi_print_percentiles_json(stream, latency);
    fprintf(stream, "}");
    fprintf(stream, ",\"clients_cpu_s_per_million\":%.4f",
            cpu_per_million(totals->cpu_ns, totals->delivered_count));
    if (totals->has_broker_cpu) {
        fprintf(stream, ",\"broker_cpu_s_per_million\":%.4f",
                cpu_per_million(totals->broker_cpu_ns, totals->delivered_count));
    }
    fprintf(stream,
            ",\"sends_per_message\":%.6f,\"batches\":%" PRIu64 ",\"credit_stalls\":%" PRIu64
            ",\"lost\":%" PRIu64 ",\"doubled\":%" PRIu64 ",\"out_of_order\":%" PRIu64
            ",\"corrupt\":%" PRIu64 "}\n",
            sends_per_message(options, shared), shared->workers[0].link.batches_sent,
            shared->workers[0].link.credit_stalls, totals->lost_count, totals->doubled_count,
            totals->disordered_count, totals->corrupt_count);
}
