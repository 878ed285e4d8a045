/*
 * A screen that shows the latest best bid and offer of every symbol: market_display [-u URL] [-b
 * HOST]
 *                                                     [-q SECONDS] [-m MICROSECONDS]
 *
 * It asks for policy conflate: when it is too slow for the feed it gets the latest message of each
 * symbol instead of all, and is told how many were left out. -m: so long it takes for each message.
 * -q: ends after so many seconds without one, and prints what it shows.
 */
#include "feed.h"

#include <err.h>
#include <inttypes.h>
#include <ringside.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull

enum { SYMBOL_COUNT_MAX = 100000 };

struct display {
    struct feed_best rows[SYMBOL_COUNT_MAX]; /* by the number in the symbol's name */
    uint64_t received_count;
    uint64_t conflated_count;
    useconds_t rest_us;
};

static volatile sig_atomic_t is_stopped;

static void on_signal(int number)
{
    (void)number;
    is_stopped = 1;
}

static void on_best(void *arg, const ringside_message_t *message)
{
    struct display *display = arg;
    char *end;
    unsigned long row = strtoul(message->subject + strlen("book.S"), &end, 10);
    if (strcmp(end, ".best") != 0 || row >= SYMBOL_COUNT_MAX ||
        message->bytes != sizeof(display->rows[row])) {
        return;
    }
    memcpy(&display->rows[row], message->data, message->bytes);
    display->received_count++;
    if (display->rest_us > 0) {
        usleep(display->rest_us);
    }
}

/* What a later message of the same symbol stands for is no loss. */
static void on_event(void *arg, const ringside_event_t *event)
{
    struct display *display = arg;
    if (event->type == RINGSIDE_EVENT_CONFLATED) {
        display->conflated_count += event->count;
    } else {
        fprintf(stderr, "%s\n", event->text);
    }
}

static void report(const struct display *display)
{
    uint64_t digest = 0;
    for (uint32_t row = 0; row < SYMBOL_COUNT_MAX; row++) {
        const struct feed_best *best = &display->rows[row];
        if (best->number == 0) {
            continue;
        }
        digest ^= feed_best_digest(best, row);
        if (row < 5) {
            printf("S%05" PRIu32 "  %6" PRIu32 " @ %4" PRIu32 "  |  %4" PRIu32 " @ %6" PRIu32 "\n",
                   row, best->bid.quantity, best->bid.price, best->offer.price,
                   best->offer.quantity);
        }
    }
    printf("%" PRIu64 " messages shown, %" PRIu64 " left out for later ones; digest %016" PRIx64
           "\n",
           display->received_count, display->conflated_count, digest);
}

int main(int argc, char **argv)
{
    static struct display display;
    const char *url = "auto://127.0.0.1:7400";
    const char *bind_host = NULL; /* rdma, where two devices lead to one network */
    uint64_t quiet_s = 0;
    int flag;
    while ((flag = getopt(argc, argv, "u:b:q:m:")) != -1) {
        switch (flag) {
        case 'u':
            url = optarg;
            break;
        case 'b':
            bind_host = optarg;
            break;
        case 'q':
            quiet_s = strtoull(optarg, NULL, 10);
            break;
        case 'm':
            display.rest_us = (useconds_t)strtoul(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    }
    if (optind != argc) {
        errx(2, "usage: market_display [-u URL] [-b HOST] [-q SECONDS] [-m MICROSECONDS]");
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);

    /* What lies in the ring is shown before anything newer: a small ring keeps the screen fresh. */
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .bind_host = bind_host,
                                        .deliver_ring_bytes = 65536,
                                        .publish_ring_bytes = UINT64_MAX,
                                        .on_event = on_event,
                                        .event_arg = &display};
    const ringside_subscribe_options_t latest = {
        .struct_bytes = sizeof(latest), .policy = RINGSIDE_POLICY_CONFLATE, .last = 1};
    ringside_client_t *client;
    ringside_subscription_t *subscription;
    if (ringside_connect(&client, url, &options) != RINGSIDE_OK) {
        errx(1, "%s", ringside_last_error());
    }
    if (ringside_subscribe(&subscription, client, "book.*.best", &latest, on_best, &display) !=
        RINGSIDE_OK) {
        errx(1, "%s", ringside_error_text(client));
    }
    uint64_t silent_s = 0;
    while (!is_stopped && (quiet_s == 0 || silent_s < quiet_s)) {
        size_t handled = 0;
        if (ringside_poll(client, 64, SECOND_NS, &handled) < 0) {
            errx(1, "%s", ringside_error_text(client));
        }
        silent_s = handled > 0 || display.received_count == 0 ? 0 : silent_s + 1;
    }
    report(&display);
    ringside_close(client, SECOND_NS);
    return 0;
}
