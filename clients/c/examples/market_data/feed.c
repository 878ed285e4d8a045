/*
 * A feed handler's publishing half: market_feed [-u URL] [-b HOST] [-s SYMBOLS] [-r
 * UPDATES_PER_SECOND]
 *                                               [-n UPDATES]
 *
 * Makes up the books of some symbols and publishes every change, an image of each book now and
 * then, and its best bid and offer when they change. Prints a digest of the final books, which a
 * subscriber that missed nothing prints too. -r 0: as fast as it goes.
 */
#include "book.h"

#include <err.h>
#include <inttypes.h>
#include <ringside.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { UPDATES_PER_IMAGE = 64, SPREAD = 20 };

#define MILLISECOND_NS 1000000ull
#define SECOND_NS      1000000000ull

struct symbol {
    char name[FEED_SYMBOL_BYTES];
    uint32_t middle;
    struct book book;
    struct feed_best best;
    ringside_publisher_t *updates;
    ringside_publisher_t *images;
    ringside_publisher_t *bests;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled".
 */
static uint32_t draw(uint32_t limit)
{
    static uint64_t state = 0x9e3779b97f4a7c15;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(2685821657736338717)) >> 33) % limit;
}

/* A full ring is no fault: it is how the broker, and behind it a subscriber under policy block,
 * says "not so fast". Polling does the client's work until there is room. */
static void publish(ringside_client_t *client, ringside_publisher_t *publisher, const void *data,
                    size_t bytes)
{
    ringside_status_t status = ringside_publish(publisher, data, bytes);
    while (status == RINGSIDE_WOULD_BLOCK) {
        if (ringside_poll(client, 0, SECOND_NS, NULL) < 0) {
            errx(1, "%s", ringside_error_text(client));
        }
        status = ringside_publish(publisher, data, bytes);
    }
    if (status != RINGSIDE_OK) {
        errx(1, "%s", ringside_error_text(client));
    }
}

/* The next change of a book: what must go first, else something new near the middle. */
static struct feed_update next_update(struct symbol *symbol)
{
    struct feed_update update = {.number = symbol->book.number + 1};
    struct feed_level levels[2][FEED_LEVEL_COUNT];
    if (draw(8) == 0 && symbol->middle > 2 * SPREAD &&
        symbol->middle < BOOK_PRICE_COUNT - 2 * SPREAD) {
        symbol->middle += draw(2) == 0 ? 1 : UINT32_MAX;
    }
    for (unsigned side = FEED_BID; side <= FEED_OFFER; side++) {
        book_top(&symbol->book, side, levels[side], FEED_LEVEL_COUNT);
        const struct feed_level *best = &levels[side][0];
        bool is_crossed =
            side == FEED_BID ? best->price >= symbol->middle : best->price <= symbol->middle;
        const struct feed_level *worst = &levels[side][FEED_LEVEL_COUNT - 1];
        if (best->quantity != 0 && (is_crossed || worst->quantity != 0)) {
            update.side = side;
            update.price = is_crossed ? best->price : worst->price;
            return update;
        }
    }
    uint32_t distance = 1 + draw(SPREAD);
    update.side = draw(2);
    update.price = update.side == FEED_BID ? symbol->middle - distance : symbol->middle + distance;
    update.quantity = draw(4) == 0 ? 0 : 100 * (1 + draw(50));
    return update;
}

static void publish_image(ringside_client_t *client, struct symbol *symbol)
{
    struct feed_image image = {.number = symbol->book.number};
    book_top(&symbol->book, FEED_BID, image.levels[FEED_BID], FEED_LEVEL_COUNT);
    book_top(&symbol->book, FEED_OFFER, image.levels[FEED_OFFER], FEED_LEVEL_COUNT);
    publish(client, symbol->images, &image, sizeof(image));
}

static void publish_best(ringside_client_t *client, struct symbol *symbol)
{
    struct feed_best best = {.number = symbol->book.number};
    book_top(&symbol->book, FEED_BID, &best.bid, 1);
    book_top(&symbol->book, FEED_OFFER, &best.offer, 1);
    if (memcmp(&best.bid, &symbol->best.bid, sizeof(best.bid)) != 0 ||
        memcmp(&best.offer, &symbol->best.offer, sizeof(best.offer)) != 0) {
        symbol->best = best;
        publish(client, symbol->bests, &best, sizeof(best));
    }
}

static void publish_next(ringside_client_t *client, struct symbol *symbol)
{
    struct feed_update update = next_update(symbol);
    book_set(&symbol->book, update.side, update.price, update.quantity);
    symbol->book.number = update.number;
    publish(client, symbol->updates, &update, sizeof(update));
    publish_best(client, symbol);
    if (update.number % UPDATES_PER_IMAGE == 0) {
        publish_image(client, symbol);
    }
}

static ringside_publisher_t *make_publisher(ringside_client_t *client, const char *symbol,
                                            const char *what)
{
    char subject[64];
    ringside_publisher_t *publisher;
    snprintf(subject, sizeof(subject), "book.%s.%s", symbol, what);
    if (ringside_publisher_create(&publisher, client, subject, 0) != RINGSIDE_OK) {
        errx(1, "%s", ringside_error_text(client));
    }
    return publisher;
}

static struct symbol *make_symbols(ringside_client_t *client, uint32_t count)
{
    struct symbol *symbols = calloc(count, sizeof(*symbols));
    if (symbols == NULL) {
        errx(1, "no memory for %" PRIu32 " symbols", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        snprintf(symbols[i].name, sizeof(symbols[i].name), "S%05" PRIu32, i);
        symbols[i].middle = BOOK_PRICE_COUNT / 2;
        symbols[i].updates = make_publisher(client, symbols[i].name, "update");
        symbols[i].images = make_publisher(client, symbols[i].name, "image");
        symbols[i].bests = make_publisher(client, symbols[i].name, "best");
    }
    return symbols;
}

static void run(ringside_client_t *client, struct symbol *symbols, uint32_t symbol_count,
                uint64_t rate, uint64_t update_count)
{
    uint64_t began_ns = now_ns();
    uint64_t done_count = 0;
    while (done_count < update_count) {
        uint64_t due_count = update_count;
        if (rate > 0) {
            uint64_t elapsed_ns = now_ns() - began_ns;
            due_count = (uint64_t)((double)elapsed_ns * (double)rate / 1e9);
            due_count = due_count < update_count ? due_count : update_count;
        }
        for (; done_count < due_count; done_count++) {
            publish_next(client, &symbols[draw(symbol_count)]);
        }
        /* What waits behind a batch under way goes out; a paced feed sleeps a little. */
        if (ringside_poll(client, 0, rate > 0 ? MILLISECOND_NS : 0, NULL) < 0) {
            errx(1, "%s", ringside_error_text(client));
        }
    }
}

int main(int argc, char **argv)
{
    const char *url = "auto://127.0.0.1:7400";
    const char *bind_host = NULL; /* rdma, where two devices lead to one network */
    uint32_t symbol_count = 100;
    uint64_t rate = 10000;
    uint64_t update_count = 100000;
    int flag;
    while ((flag = getopt(argc, argv, "u:b:s:r:n:")) != -1) {
        switch (flag) {
        case 'u':
            url = optarg;
            break;
        case 'b':
            bind_host = optarg;
            break;
        case 's':
            symbol_count = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'r':
            rate = strtoull(optarg, NULL, 10);
            break;
        case 'n':
            update_count = strtoull(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    }
    if (symbol_count == 0 || symbol_count > 99999 || optind != argc) {
        errx(2, "usage: market_feed [-u URL] [-b HOST] [-s SYMBOLS (1 to 99999)] [-r "
                "UPDATES_PER_SECOND] "
                "[-n UPDATES]");
    }
    ringside_client_t *client;
    const ringside_options_t options = {.struct_bytes = sizeof(options), .bind_host = bind_host};
    if (ringside_connect(&client, url, &options) != RINGSIDE_OK) {
        errx(1, "%s", ringside_last_error());
    }
    struct symbol *symbols = make_symbols(client, symbol_count);
    run(client, symbols, symbol_count, rate, update_count);
    uint64_t books_digest = 0;
    uint64_t bests_digest = 0;
    for (uint32_t i = 0; i < symbol_count; i++) {
        publish_image(client, &symbols[i]);
        books_digest ^= book_digest(&symbols[i].book, symbols[i].name);
        bests_digest ^= symbols[i].best.number != 0 ? feed_best_digest(&symbols[i].best, i) : 0;
    }
    printf("%" PRIu64 " updates of %" PRIu32 " symbols over %s; digest of books %016" PRIx64
           ", of bests %016" PRIx64 "\n",
           update_count, symbol_count, ringside_transport(client), books_digest, bests_digest);
    /* Waits until all of it has arrived at the broker. */
    if (ringside_close(client, 10 * SECOND_NS) != RINGSIDE_OK) {
        errx(1, "%s", ringside_last_error());
    }
    free(symbols);
    return 0;
}
