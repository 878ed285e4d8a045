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

#endif
