/*
 * What a broker that died has left with a client: frames that arrived and were not handed over, and
 * what it had announced. Kept beside the session, which has gone to another broker already.
 */
#ifndef RSI_CLIENT_REMNANT_H
#define RSI_CLIENT_REMNANT_H

#include "clients/c/announced.h"
#include "core/ring.h"

#include <stdbool.h>
#include <stdint.h>

struct ringside_client;

/* So many brokers may die one after the other with frames left, while the application takes none;
 * the next renewal waits for it. */
#define RSI_CLIENT_REMNANT_COUNT_MAX  4u
#define RSI_CLIENT_RENEWED_TEXT_BYTES 1024u

struct rsi_client_remnant {
    struct rsi_client_remnant *next; /* of the broker that came after */
    uint64_t broker_incarnation;
    uint64_t session_id;    /* that the client had there */
    struct rsi_ring frames; /* at their positions; empty: none were left */
    uint64_t deliver_pos;   /* next frame to read */
    uint64_t end_pos;
    uint32_t hold_count; /* of its messages that are held: hold.c */
    struct rsi_announced_table announced;
    char renewed_text[RSI_CLIENT_RENEWED_TEXT_BYTES]; /* what is told when it is handed over */
};

/* Before the session goes over: keeps what the present link still holds. False: there is no room
 * for it now, nothing was changed. */
RSI_MUST_CHECK bool rsi_client_remnant_keep(struct ringside_client *client);
/* The oldest leaves the client's list; the caller frees it. */
struct rsi_client_remnant *rsi_client_remnant_take(struct ringside_client *client);
void rsi_client_remnant_free(struct rsi_client_remnant *remnant);
/* Frees all, unread. */
void rsi_client_remnants_discard(struct ringside_client *client);
/* The one that was kept last; NULL: none. */
struct rsi_client_remnant *rsi_client_remnant_last(const struct ringside_client *client);

#endif
