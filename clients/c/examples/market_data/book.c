/*
 * A book is right when it holds every update up to its number and none after it. An image sets it
 * to the image's number; from there only the next number may be applied. A hole makes it stale, and
 * the next image mends it.
 */
#include "book.h"

#include <string.h>

void book_set(struct book *book, unsigned side, uint32_t price, uint32_t quantity)
{
    if (side <= FEED_OFFER && price < BOOK_PRICE_COUNT) {
        book->quantities[side][price] = quantity;
    }
}

void book_top(const struct book *book, unsigned side, struct feed_level *levels, size_t count)
{
    size_t found = 0;
    memset(levels, 0, count * sizeof(*levels));
    for (uint32_t i = 0; i < BOOK_PRICE_COUNT && found < count; i++) {
        uint32_t price = side == FEED_BID ? BOOK_PRICE_COUNT - 1 - i : i;
        if (book->quantities[side][price] != 0) {
            levels[found].price = price;
            levels[found++].quantity = book->quantities[side][price];
        }
    }
}

/* FNV-1a, 64 bits: isthe.com/chongo/tech/comp/fnv */
static uint64_t hash(uint64_t seed, const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < count; i++) {
        seed = (seed ^ at[i]) * UINT64_C(0x100000001b3);
    }
    return seed;
}

uint64_t book_digest(const struct book *book, const char *symbol)
{
    struct feed_level levels[FEED_LEVEL_COUNT];
    uint64_t digest = hash(UINT64_C(0xcbf29ce484222325), symbol, strlen(symbol));
    digest = hash(digest, &book->number, sizeof(book->number));
    for (unsigned side = FEED_BID; side <= FEED_OFFER; side++) {
        book_top(book, side, levels, FEED_LEVEL_COUNT);
        digest = hash(digest, levels, sizeof(levels));
    }
    return digest;
}

static void apply(struct book *book, const struct feed_update *update)
{
    book_set(book, update->side, update->price, update->quantity);
    book->number = update->number;
}

static void become_stale(struct book *book)
{
    if (book->state == BOOK_LIVE) {
        book->state = BOOK_STALE;
        book->stale_count++;
    }
}

void book_take_gap(struct book *book)
{
    become_stale(book);
}

void book_take_update(struct book *book, const struct feed_update *update)
{
    book->update_count++;
    book->waiting[update->number % BOOK_WAITING_COUNT] = *update;
    if (book->state != BOOK_LIVE || update->number <= book->number) {
        return;
    }
    if (update->number == book->number + 1) {
        apply(book, update);
    } else {
        become_stale(book);
    }
}

/* Applies the updates after the image that came before it. */
static void catch_up(struct book *book)
{
    for (;;) {
        const struct feed_update *next = &book->waiting[(book->number + 1) % BOOK_WAITING_COUNT];
        if (next->number != book->number + 1) {
            return;
        }
        apply(book, next);
    }
}

static bool equals(const struct book *book, const struct feed_image *image)
{
    struct feed_level levels[FEED_LEVEL_COUNT];
    for (unsigned side = FEED_BID; side <= FEED_OFFER; side++) {
        book_top(book, side, levels, FEED_LEVEL_COUNT);
        if (memcmp(levels, image->levels[side], sizeof(levels)) != 0) {
            return false;
        }
    }
    return true;
}

void book_take_image(struct book *book, const struct feed_image *image)
{
    book->image_count++;
    if (book->state == BOOK_LIVE) {
        /* Nothing new; but it must be what the updates made of it. */
        if (image->number == book->number && !equals(book, image)) {
            book->mismatch_count++;
        }
        if (image->number <= book->number) {
            return;
        }
    }
    memset(book->quantities, 0, sizeof(book->quantities));
    for (unsigned side = FEED_BID; side <= FEED_OFFER; side++) {
        for (size_t i = 0; i < FEED_LEVEL_COUNT && image->levels[side][i].quantity != 0; i++) {
            book_set(book, side, image->levels[side][i].price, image->levels[side][i].quantity);
        }
    }
    book->number = image->number;
    book->state = BOOK_LIVE;
    catch_up(book);
}
