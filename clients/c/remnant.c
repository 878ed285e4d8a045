/*
 * Design notes
 * - A session goes to the next broker as soon as that one knows it, whether or not the application
 *   has taken what the last one sent: a call that waits for the broker hands nothing over, and
 *   would otherwise wait for ever. So what is left is put aside, with its own table of
 *   publications, because the next broker gives the same numbers to others.
 * - It is copied, not kept in the old link: links end at once, as after any other loss, whatever
 *   the application does, and an open claim alone decides how long an old ring lives.
 * - A broker that left no frames while there is a remnant of an earlier one has told the
 *   application nothing: the two renewals are one.
 */
#include "clients/c/remnant.h"

#include "clients/c/client.h"
#include "core/assert.h"

#include <stdlib.h>
#include <string.h>

struct rsi_client_remnant *rsi_client_remnant_last(const struct ringside_client *client)
{
    struct rsi_client_remnant *at = client->remnants;
    while (at != NULL && at->next != NULL) {
        at = at->next;
    }
    return at;
}

static bool has_room(const struct ringside_client *client)
{
    uint32_t count = 0;
    for (const struct rsi_client_remnant *at = client->remnants; at != NULL; at = at->next) {
        count++;
    }
    return count < RSI_CLIENT_REMNANT_COUNT_MAX;
}

static rsi_status_t copy_frames(struct rsi_client_remnant *remnant, const struct rsi_ring *from,
                                uint64_t start_pos, uint64_t end_pos)
{
    const struct rsi_ring_options options = {
        .name = "frames of a broker that died",
        .capacity_bytes = rsi_ring_next_capacity(end_pos - start_pos),
        .node = RSI_NODE_ANY,
    };
    struct rsi_error error = {0};
    rsi_status_t status = rsi_ring_init(&remnant->frames, &options, &error);
    if (status != RSI_OK) {
        return status;
    }
    memcpy(rsi_ring_at(&remnant->frames, start_pos), rsi_ring_at(from, start_pos),
           end_pos - start_pos);
    remnant->deliver_pos = start_pos;
    remnant->end_pos = end_pos;
    return RSI_OK;
}

bool rsi_client_remnant_keep(struct ringside_client *client)
{
    const struct rsi_link *link = client->link;
    struct rsi_client_remnant *last = rsi_client_remnant_last(client);
    bool has_frames = !client->is_deliver_stopped && client->deliver_pos < link->arrived_pos;
    if (last != NULL && !has_frames) {
        rsi_assert(client->announced.entry_count == 0);
        return true;
    }
    struct rsi_client_remnant *made = has_room(client) ? calloc(1, sizeof(*made)) : NULL;
    if (made == NULL) {
        return false;
    }
    if (has_frames &&
        copy_frames(made, &link->in, client->deliver_pos, link->arrived_pos) != RSI_OK) {
        free(made);
        return false;
    }
    made->broker_incarnation = client->session.broker_incarnation;
    made->session_id = client->session.id;
    made->announced = client->announced;
    memset(&client->announced, 0, sizeof(client->announced));
    if (last == NULL) {
        client->remnants = made;
    } else {
        last->next = made;
    }
    return true;
}

struct rsi_client_remnant *rsi_client_remnant_take(struct ringside_client *client)
{
    struct rsi_client_remnant *first = client->remnants;
    client->remnants = first->next;
    return first;
}

void rsi_client_remnant_free(struct rsi_client_remnant *remnant)
{
    rsi_announced_table_fini(&remnant->announced);
    rsi_ring_fini(&remnant->frames);
    free(remnant);
}

void rsi_client_remnants_discard(struct ringside_client *client)
{
    while (client->remnants != NULL) {
        rsi_client_remnant_free(rsi_client_remnant_take(client));
    }
}
