/*
 * A feed handler's receiving half: market_book [-u URL] [-b HOST] [-q SECONDS] [-m MICROSECONDS]
 *
 * Builds the books that market_feed publishes, also when it starts late, also when it misses some,
 * and prints every second how that goes: symbols with a right book, updates, images, books that
 * missed something. Ends after -q seconds without a message (default: never; Ctrl-C) and prints the
 * digest of the books. -m makes it slow: so long it rests after each update.
 */
#include "book.h"

#include <err.h>
#include <inttypes.h>
#include <ringside.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull

enum { SYMBOL_COUNT_MAX = 100000 };

struct handler {
    struct book *books[SYMBOL_COUNT_MAX]; /* by the number in its name */
    uint32_t symbol_count;
    uint64_t update_count;
    uint64_t image_count;
    uint64_t missed_count; /* messages that gap events told of */
    useconds_t rest_us;
};

static volatile sig_atomic_t is_stopped;

static void on_signal(int number)
{
    (void)number;
    is_stopped = 1;
}

/* The book that a subject such as book.S00017.update belongs to; NULL: it is not one of ours. */
static struct book *book_of(struct handler *handler, const char *subject)
{
    char *end;
    if (strncmp(subject, "book.S", 6) != 0) {
        return NULL;
    }
    unsigned long number = strtoul(subject + 6, &end, 10);
    if (*end != '.' || number >= SYMBOL_COUNT_MAX) {
        return NULL;
    }
    if (handler->books[number] == NULL) {
        handler->books[number] = calloc(1, sizeof(struct book));
        if (handler->books[number] == NULL) {
            errx(1, "no memory for another book");
        }
        handler->symbol_count++;
    }
    return handler->books[number];
}

static void on_update(void *arg, const ringside_message_t *message)
{
    struct handler *handler = arg;
    struct feed_update update;
    struct book *book = book_of(handler, message->subject);
    if (book == NULL || message->bytes != sizeof(update)) {
        return;
    }
    memcpy(&update, message->data, sizeof(update));
    book_take_update(book, &update);
    handler->update_count++;
    if (handler->rest_us > 0) {
        usleep(handler->rest_us);
    }
}

static void on_image(void *arg, const ringside_message_t *message)
{
    struct handler *handler = arg;
    struct feed_image image;
    struct book *book = book_of(handler, message->subject);
    if (book == NULL || message->bytes != sizeof(image)) {
        return;
    }
    memcpy(&image, message->data, sizeof(image));
    book_take_image(book, &image);
    handler->image_count++;
}

/* A gap says exactly how many messages of which subject were left out. Of updates that makes the
 * book wrong; of images it does not matter. */
static void on_event(void *arg, const ringside_event_t *event)
{
    struct handler *handler = arg;
    if (event->type != RINGSIDE_EVENT_GAP) {
        fprintf(stderr, "%s\n", event->text);
        return;
    }
    const char *last = strrchr(event->subject, '.');
    struct book *book = book_of(handler, event->subject);
    handler->missed_count += event->count;
    if (book != NULL && last != NULL && strcmp(last, ".update") == 0) {
        book_take_gap(book);
    }
}

static void report(const struct handler *handler)
{
    uint32_t live_count = 0;
    uint64_t stale_count = 0;
    uint64_t mismatch_count = 0;
    for (uint32_t i = 0; i < SYMBOL_COUNT_MAX; i++) {
        const struct book *book = handler->books[i];
        if (book != NULL) {
            live_count += book->state == BOOK_LIVE;
            stale_count += book->stale_count;
            mismatch_count += book->mismatch_count;
        }
    }
    printf("%" PRIu32 " of %" PRIu32 " books right; %" PRIu64 " updates, %" PRIu64
           " images; %" PRIu64 " messages left out, %" PRIu64 " times stale; %" PRIu64
           " images differ\n",
           live_count, handler->symbol_count, handler->update_count, handler->image_count,
           handler->missed_count, stale_count, mismatch_count);
    fflush(stdout);
}

static uint64_t digest_of(const struct handler *handler)
{
    uint64_t digest = 0;
    char name[FEED_SYMBOL_BYTES];
    for (uint32_t i = 0; i < SYMBOL_COUNT_MAX; i++) {
        if (handler->books[i] != NULL) {
            snprintf(name, sizeof(name), "S%05" PRIu32, i);
            digest ^= book_digest(handler->books[i], name);
        }
    }
    return digest;
}

static void run(struct handler *handler, ringside_client_t *client, uint64_t quiet_s)
{
    uint64_t silent_s = 0;
    time_t reported = time(NULL);
    while (!is_stopped && (quiet_s == 0 || silent_s < quiet_s)) {
        size_t handled = 0;
        ringside_status_t status = ringside_poll(client, 256, SECOND_NS, &handled);
        if (status < 0) {
            errx(1, "%s", ringside_error_text(client));
        }
        if (handled > 0) {
            silent_s = 0;
        }
        if (time(NULL) != reported) {
            silent_s += handled == 0 && handler->update_count > 0;
            reported = time(NULL);
            report(handler);
        }
    }
}

int main(int argc, char **argv)
{
    static struct handler handler;
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
            handler.rest_us = (useconds_t)strtoul(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    }
    if (optind != argc) {
        errx(2, "usage: market_book [-u URL] [-b HOST] [-q SECONDS] [-m MICROSECONDS]");
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);

    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .bind_host = bind_host,
                                        .on_event = on_event,
                                        .event_arg = &handler};
    ringside_client_t *client;
    ringside_subscription_t *updates;
    ringside_subscription_t *images;
    if (ringside_connect(&client, url, &options) != RINGSIDE_OK) {
        errx(1, "%s", ringside_last_error());
    }
    /* Updates first: what comes between the two is kept until its image is here. */
    const ringside_subscribe_options_t live = {.struct_bytes = sizeof(live),
                                               .policy = RINGSIDE_POLICY_DROP};
    if (ringside_subscribe(&updates, client, "book.*.update", &live, on_update, &handler) !=
            RINGSIDE_OK ||
        ringside_subscribe(&images, client, "book.*.image", &live, on_image, &handler) !=
            RINGSIDE_OK) {
        errx(1, "%s", ringside_error_text(client));
    }
    run(&handler, client, quiet_s);
    report(&handler);
    printf("digest %016" PRIx64 "\n", digest_of(&handler));
    ringside_close(client, SECOND_NS);
    return 0;
}
