/* An order book of one symbol, built from images and updates. */
#ifndef MARKET_DATA_BOOK_H
#define MARKET_DATA_BOOK_H

#include "feed.h"

#include <stdbool.h>
#include <stddef.h>

/* Prices are small numbers of ticks here, so a side is an array: what a level holds, by price. */
enum { BOOK_PRICE_COUNT = 1024, BOOK_WAITING_COUNT = 256 };

typedef enum book_state {
    BOOK_EMPTY, /* no image yet */
    BOOK_LIVE,
    BOOK_STALE, /* an update is missing: wrong until the next image */
} book_state_t;

struct book {
    book_state_t state;
    uint64_t number; /* of the last update in it */
    uint32_t quantities[2][BOOK_PRICE_COUNT];
    /* The latest updates, by number: an image may come later than updates that follow it. */
    struct feed_update waiting[BOOK_WAITING_COUNT];
    /* What happened to it. */
    uint64_t update_count;
    uint64_t image_count;
    uint64_t stale_count;    /* how often it became stale */
    uint64_t mismatch_count; /* images that were not what the updates had made: must stay 0 */
};

/* Sets one level. */
void book_set(struct book *book, unsigned side, uint32_t price, uint32_t quantity);
/* The best `count` levels of one side; the rest is 0. */
void book_top(const struct book *book, unsigned side, struct feed_level *levels, size_t count);

/* A number that follows from symbol, number and levels: equal books have equal digests. */
uint64_t book_digest(const struct book *book, const char *symbol);

/* Takes what came. */
void book_take_update(struct book *book, const struct feed_update *update);
void book_take_image(struct book *book, const struct feed_image *image);
/* Messages of the symbol's updates were left out. */
void book_take_gap(struct book *book);

#endif
