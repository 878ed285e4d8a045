/*
 * The requests of a client that await their replies.
 *
 * Design notes
 * - A table of fixed size, made at the first request: a request is a slot of it, and its number is
 *   the slot and how often that was used, so a late reply never finds another request.
 * - A heap by deadline tells which one times out next.
 * - Each request's callback is called exactly once, inside ringside_poll or ringside_close. Its
 * slot is free before, so that it may ask again.
 */
#ifndef RSI_CLIENT_CALLS_H
#define RSI_CLIENT_CALLS_H

#include "clients/c/ringside.h"
#include "core/error.h"
#include "transport/frame.h"

struct ringside_client;
struct rsi_client_calls;

/* NULL is fine in all of these. */
void rsi_client_calls_destroy(struct rsi_client_calls *calls);
/* The next deadline; UINT64_MAX: none. */
uint64_t rsi_client_calls_due_ns(const struct rsi_client_calls *calls);
bool rsi_client_calls_any(const struct rsi_client_calls *calls);

/* What only ringside_poll may do, as it calls back. They return how many callbacks were called. */
size_t rsi_client_calls_expire(struct ringside_client *client, uint64_t now_ns);
/* A frame of type REPLY. A reply to nothing that is awaited is passed over. */
size_t rsi_client_calls_take(struct ringside_client *client, const struct rsi_frame *frame);
/* All that await something end with this status. */
size_t rsi_client_calls_end(struct ringside_client *client, ringside_status_t status);
/* The broker that had them is gone: all that await something now are lost; told by expire. */
void rsi_client_calls_lose(struct rsi_client_calls *calls);

#endif
