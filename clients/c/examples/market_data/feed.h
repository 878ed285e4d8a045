/*
 * What feed and book say to each other: the payloads of three subjects per symbol.
 *
 *   book.SYMBOL.update   one price level changes; numbered per symbol from 1
 *   book.SYMBOL.image    the whole book after update `number`: to begin with, and to begin again
 *   book.SYMBOL.best     best bid and offer: for who needs the latest only
 *
 * Little endian, as all hosts here are. No side of a book has more than FEED_LEVEL_COUNT levels.
 * Order is promised per publisher and subject, so an image may overtake updates or come late: the
 * numbers say what belongs where.
 */
#ifndef MARKET_DATA_FEED_H
#define MARKET_DATA_FEED_H

#include <stdint.h>

enum { FEED_LEVEL_COUNT = 16, FEED_SYMBOL_BYTES = 16 };

enum { FEED_BID = 0, FEED_OFFER = 1 };

struct feed_update {
    uint64_t number;
    uint32_t side;
    uint32_t price;    /* ticks */
    uint32_t quantity; /* what is left at this price; 0: the level is gone */
    uint32_t reserved;
};

struct feed_level {
    uint32_t price;
    uint32_t quantity; /* 0: no more levels */
};

struct feed_image {
    uint64_t number;                               /* of the last update in it */
    struct feed_level levels[2][FEED_LEVEL_COUNT]; /* [side], best first */
};

struct feed_best {
    uint64_t number;
    struct feed_level bid;
    struct feed_level offer;
};

/* A number that follows from the row and what is best: feed and display compare theirs.
 * The mixing is splitmix64's: Steele, Lea, Flood, "Fast splittable pseudorandom number generators".
 */
static inline uint64_t feed_best_digest(const struct feed_best *best, uint32_t row)
{
    const uint64_t words[] = {row,
                              best->number,
                              best->bid.price,
                              best->bid.quantity,
                              best->offer.price,
                              best->offer.quantity};
    uint64_t digest = 0;
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        digest = (digest ^ words[i]) + UINT64_C(0x9e3779b97f4a7c15);
        digest = (digest ^ (digest >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        digest = (digest ^ (digest >> 27)) * UINT64_C(0x94d049bb133111eb);
        digest ^= digest >> 31;
    }
    return digest;
}

#endif
