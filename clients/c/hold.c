/*
 * Messages kept beyond their callback: in the ring (hold), or copied out of it (copy).
 *
 * Design notes
 * - A hold keeps a message where it arrived. The ring is given back up to the oldest held frame and
 *   no further, so holds of the link in use stand in a list in the order of their positions: the
 *   oldest is its head, and any of them leaves it in a few instructions.
 * - When the session goes over to another link, the next ring gets what is owed, but the pointers
 *   that the application has lead into the old one. So the old path stays, closed as it is, until
 *   the last hold in it is released; the next ring is not held back by it. A hold keeps at most one
 *   old path, so there are as many places for paths as there are holds.
 * - What a broker that died has left (remnant.c) lies in a ring of its own, which is no link's: a
 * hold there keeps that ring.
 * - Subject and publisher are copied into the hold: the announced publications that they belong to
 *   go when the session is renewed.
 * - All memory is made with the first hold. A path that nobody needs any more is destroyed in the
 *   next pass, because releasing is legal in callbacks and destroying is system calls.
 */
#include "clients/c/client.h"

#include "core/assert.h"
#include "core/position.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- the list of the link in use ---------------------------------------------------------------
 */

static void append(struct rsi_client_holds *holds, struct ringside_hold *hold)
{
    hold->next = NULL;
    hold->previous = holds->newest;
    if (holds->newest == NULL) {
        holds->oldest = hold;
    } else {
        holds->newest->next = hold;
    }
    holds->newest = hold;
}

static void unlink_hold(struct rsi_client_holds *holds, struct ringside_hold *hold)
{
    if (hold->previous == NULL) {
        holds->oldest = hold->next;
    } else {
        hold->previous->next = hold->next;
    }
    if (hold->next == NULL) {
        holds->newest = hold->previous;
    } else {
        hold->next->previous = hold->previous;
    }
}

static void put_free(struct rsi_client_holds *holds, struct ringside_hold *hold)
{
    hold->is_held = false;
    hold->path = NULL;
    hold->remnant = NULL;
    hold->next = holds->free;
    holds->free = hold;
}

/* ---- hold and release --------------------------------------------------------------------------
 */

static RSI_COLD rsi_status_t make_pool(struct ringside_client *client)
{
    struct rsi_client_holds *holds = &client->holds;
    uint64_t count = client->options.hold_count_max;
    holds->pool = calloc(count, sizeof(struct ringside_hold));
    holds->paths = calloc(count, sizeof(struct rsi_held_path));
    if (holds->pool == NULL || holds->paths == NULL) {
        free(holds->pool);
        free(holds->paths);
        holds->pool = NULL;
        holds->paths = NULL;
        return rsi_fail(&client->error, RSI_E_NO_MEMORY,
                        "no memory for %" PRIu64 " holds: lower hold_count_max", count);
    }
    for (uint64_t index = count; index > 0; index--) {
        holds->pool[index - 1].client = client;
        put_free(holds, &holds->pool[index - 1]);
    }
    return RSI_OK;
}

static RSI_COLD rsi_status_t refuse_hold(struct ringside_client *client, const char *why)
{
    return rsi_fail(&client->error, RSI_E_STATE, "ringside_hold: %s", why);
}

ringside_status_t ringside_hold(ringside_client_t *client, const ringside_message_t *message,
                                ringside_hold_t **hold)
{
    struct rsi_client_holds *holds = &client->holds;
    if (rsi_unlikely(client->delivering == NULL || client->delivering != message)) {
        return (ringside_status_t)refuse_hold(
            client, "only the message that a callback was given can be held, and only in it");
    }
    if (rsi_unlikely(holds->pool == NULL)) {
        rsi_status_t status = make_pool(client);
        if (status != RSI_OK) {
            return (ringside_status_t)status;
        }
    }
    struct ringside_hold *made = holds->free;
    if (rsi_unlikely(made == NULL)) {
        return (ringside_status_t)rsi_fail(
            &client->error, RSI_E_LIMIT,
            "ringside_hold: %" PRIu64 " messages are held, as many as hold_count_max in "
            "ringside_options_t allows; release some, copy them, or raise it",
            client->options.hold_count_max);
    }
    holds->free = made->next;
    made->is_held = true;
    made->position = client->deliver_pos;
    made->message = *message;
    memcpy(made->subject, message->subject, message->subject_bytes + 1);
    size_t name_bytes = strlen(message->publisher);
    memcpy(made->publisher, message->publisher, name_bytes + 1);
    made->message.subject = made->subject;
    made->message.publisher = made->publisher;
    made->remnant = client->delivering_remnant;
    if (rsi_likely(made->remnant == NULL)) {
        append(holds, made);
    } else {
        made->remnant->hold_count++;
    }
    *hold = made;
    return RINGSIDE_OK;
}

const ringside_message_t *ringside_hold_message(const ringside_hold_t *hold)
{
    return hold == NULL || !hold->is_held ? NULL : &hold->message;
}

/* Frees it if it was handed over and this was the last. */
static RSI_COLD void release_in_remnant(struct rsi_client_holds *holds,
                                        struct rsi_client_remnant *remnant)
{
    struct rsi_client_remnant **at = &holds->remnants;
    if (--remnant->hold_count > 0) {
        return;
    }
    while (*at != NULL && *at != remnant) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = remnant->next;
        rsi_client_remnant_free(remnant);
    }
}

ringside_status_t ringside_release(ringside_hold_t *hold)
{
    if (hold == NULL) {
        return RINGSIDE_OK;
    }
    struct ringside_client *client = hold->client;
    struct rsi_client_holds *holds = &client->holds;
    if (rsi_unlikely(!hold->is_held)) {
        return (ringside_status_t)rsi_fail(&client->error, RSI_E_INVALID,
                                           "ringside_release: that hold was released already");
    }
    if (rsi_unlikely(client->fork_count != rsi_client_fork_count)) {
        return (ringside_status_t)rsi_fail(
            &client->error, RSI_E_STATE,
            "ringside_release: this process was forked after the client connected; the hold is "
            "the parent's");
    }
    if (rsi_unlikely(hold->path != NULL)) {
        hold->path->hold_count--;
        put_free(holds, hold);
        return RINGSIDE_OK;
    }
    if (rsi_unlikely(hold->remnant != NULL)) {
        release_in_remnant(holds, hold->remnant);
        put_free(holds, hold);
        return RINGSIDE_OK;
    }
    bool was_oldest = holds->oldest == hold;
    unlink_hold(holds, hold);
    put_free(holds, hold);
    /* A delivery under way gives back by itself what lies before the frame that it is at. */
    if (was_oldest && !client->is_in_callback) {
        rsi_client_consume(client);
        rsi_client_nudge_waiting(client); /* the broker is to be told */
    }
    return RINGSIDE_OK;
}

uint64_t rsi_client_consumable_pos(const struct ringside_client *client)
{
    const struct ringside_hold *oldest = client->holds.oldest;
    return oldest == NULL ? client->deliver_pos
                          : rsi_pos_min(oldest->position, client->deliver_pos);
}

/* ---- another link ------------------------------------------------------------------------------
 */

bool rsi_client_keep_held(struct ringside_client *client, const struct rsi_client_path *path,
                          bool has_claim)
{
    struct rsi_client_holds *holds = &client->holds;
    if (holds->oldest == NULL) {
        return false;
    }
    uint64_t index = 0;
    while (rsi_path_exists(&holds->paths[index].path)) {
        index++;
        rsi_assert(index < client->options.hold_count_max); /* each has a hold that is not here */
    }
    struct rsi_held_path *kept = &holds->paths[index];
    *kept = (struct rsi_held_path){.path = *path, .has_claim = has_claim};
    rsi_path_unwatch(path, client->epoll_fd);
    for (struct ringside_hold *hold = holds->oldest; hold != NULL; hold = hold->next) {
        hold->path = kept;
        kept->hold_count++;
    }
    holds->oldest = NULL;
    holds->newest = NULL;
    holds->path_count++;
    return true;
}

void rsi_client_sweep_held(struct ringside_client *client)
{
    struct rsi_client_holds *holds = &client->holds;
    uint32_t left_count = holds->path_count;
    for (uint64_t index = 0; left_count > 0; index++) {
        rsi_assert(index < client->options.hold_count_max);
        struct rsi_held_path *kept = &holds->paths[index];
        if (!rsi_path_exists(&kept->path)) {
            continue;
        }
        left_count--;
        kept->has_claim &= client->is_claim_left_behind;
        if (kept->hold_count == 0 && !kept->has_claim) {
            rsi_path_destroy(&kept->path, client->epoll_fd);
            holds->path_count--;
        }
    }
}

void rsi_client_let_go_remnant(struct ringside_client *client, struct rsi_client_remnant *remnant)
{
    if (remnant->hold_count == 0) {
        rsi_client_remnant_free(remnant);
        return;
    }
    remnant->next = client->holds.remnants;
    client->holds.remnants = remnant;
}

/* ---- the end -----------------------------------------------------------------------------------
 */

void rsi_client_drop_holds(struct ringside_client *client)
{
    struct rsi_client_holds *holds = &client->holds;
    holds->oldest = NULL;
    holds->newest = NULL;
    for (uint64_t index = 0; holds->pool != NULL && index < client->options.hold_count_max;
         index++) {
        holds->pool[index].is_held = false;
        holds->paths[index].hold_count = 0;
    }
}

void rsi_client_free_holds(struct ringside_client *client)
{
    rsi_assert(client->holds.path_count == 0);
    while (client->holds.remnants != NULL) {
        struct rsi_client_remnant *remnant = client->holds.remnants;
        client->holds.remnants = remnant->next;
        rsi_client_remnant_free(remnant);
    }
    free(client->holds.pool);
    free(client->holds.paths);
}

/* ---- copies ------------------------------------------------------------------------------------
 */

static void *take_room(uint8_t **at, const void *from, size_t bytes)
{
    void *room = *at;
    if (bytes > 0) {
        memcpy(room, from, bytes);
    }
    *at += bytes;
    return room;
}

/* One block: the struct, headers (a multiple of 8, so that the data is aligned), data, texts. */
ringside_message_t *ringside_message_copy(const ringside_message_t *message)
{
    size_t publisher_bytes = strlen(message->publisher) + 1;
    uint8_t *block = malloc(sizeof(*message) + message->headers_bytes + message->bytes +
                            message->subject_bytes + 1 + publisher_bytes);
    if (block == NULL) {
        return NULL;
    }
    ringside_message_t *copy = (ringside_message_t *)(void *)block;
    uint8_t *at = block + sizeof(*message);
    *copy = *message;
    copy->headers = take_room(&at, message->headers, message->headers_bytes);
    copy->data = take_room(&at, message->data, message->bytes);
    copy->subject = take_room(&at, message->subject, message->subject_bytes + 1);
    copy->publisher = take_room(&at, message->publisher, publisher_bytes);
    return copy;
}

void ringside_message_free(ringside_message_t *message)
{
    free(message);
}
