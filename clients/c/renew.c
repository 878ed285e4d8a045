/*
 * A session goes to another run of its broker, which knows nothing of it.
 *
 * Design notes
 * - The new broker is told of every publisher and subscription over the link that is to take over,
 *   while the old one still takes what is published: a frame must not reach a broker before the
 *   alias in it is known there. Aliases and the numbers of subscriptions stay; only the broker's
 *   own numbers are new.
 * - What the old broker had not got is framed anew: the new rings begin at position 0, and a commit
 *   word holds a position. "Got" is arrived, where the old ring was in another process's memory or
 *   behind a wire, and consumed, where the peer is on this host: there arrived says only that it
 *   was visible. So a message under way when a broker dies may be lost or come twice.
 * - The session goes over without waiting for the application to take the old link's last frames,
 *   because it may be at a call that waits for the new broker. They are put aside (remnant.c).
 * - A try that is cut after the new broker has begun a session leaves it there, with subscriptions,
 *   and under policy block it holds publishers back like any session that has no link. The client
 *   knows its secret, and the next try ends it. Not otherwise: a broker that forgets a session
 *   until its client says that it took it would have to forget one, when that word is lost, in
 *   which the client has published already; and one that is resumed half-made would have to be
 *   compared with what the client consists of meanwhile.
 * - Frames of publishers that are gone are left out: the old broker had answered their close, so it
 *   had taken them, whatever was heard of its positions.
 * - If the new broker refuses any of it, the session would go on as something else than it was: it
 *   ends as lost, with the broker's reason.
 */
#include "clients/c/client.h"

#include "core/assert.h"
#include "transport/frame.h"

#include <stdio.h>
#include <string.h>

/* Whether the new broker must know of it: what is open, and a publisher whose last frames may still
 * be on their way. */
static bool is_to_be_told(const struct rsi_object *object)
{
    bool is_closing = object->state == RSI_OBJECT_CLOSE_DUE || object->state == RSI_OBJECT_CLOSING;
    return object->state == RSI_OBJECT_OPEN || (object->is_publisher && is_closing);
}

/* ---- telling -----------------------------------------------------------------------------------
 */

struct progress {
    bool is_lane_full;
    bool is_all_done;
};

static void tell(struct ringside_client *client, struct rsi_object *object,
                 struct progress *progress)
{
    if (object->renewal == RSI_RENEWAL_NONE && is_to_be_told(object) && !progress->is_lane_full) {
        uint64_t request = client->last_request + 1;
        if (rsi_client_send_open(client->dial.path.link, object, request) == RSI_OK) {
            client->last_request = request;
            object->renewal_request = request;
            object->renewal = RSI_RENEWAL_ASKED;
        } else {
            progress->is_lane_full = true;
        }
    }
    if (object->renewal == RSI_RENEWAL_ASKED ||
        (object->renewal == RSI_RENEWAL_NONE && is_to_be_told(object))) {
        progress->is_all_done = false;
    }
}

static struct rsi_object *find_asked(struct ringside_client *client, uint64_t request)
{
    for (uint32_t slot = 0; slot < client->publisher_slot_count; slot++) {
        struct ringside_publisher *publisher = client->publishers[slot];
        if (publisher != NULL && publisher->object.renewal == RSI_RENEWAL_ASKED &&
            publisher->object.renewal_request == request) {
            return &publisher->object;
        }
    }
    for (uint32_t index = 0; index < client->subscription_count; index++) {
        struct rsi_object *object = &client->subscriptions[index]->object;
        if (object->renewal == RSI_RENEWAL_ASKED && object->renewal_request == request) {
            return object;
        }
    }
    return NULL;
}

static void take_granted(struct ringside_client *client, uint64_t request)
{
    struct rsi_object *object = find_asked(client, request);
    if (object == NULL) {
        rsi_dial_cancel(&client->dial, "the broker answered a request that was not made");
        return;
    }
    object->renewal = RSI_RENEWAL_DONE;
}

static void take_refused(struct ringside_client *client, const Ringside__Control__Refused *refused)
{
    struct rsi_object *object = find_asked(client, refused->request);
    if (object == NULL) {
        rsi_dial_cancel(&client->dial, refused->text);
        return;
    }
    char why[RSI_ERROR_TEXT_BYTES];
    const char *subject =
        object->is_publisher
            ? rsi_container_of(object, struct ringside_publisher, object)->subject
            : rsi_container_of(object, struct ringside_subscription, object)->subject;
    snprintf(why, sizeof(why), "the restarted broker refuses the %s \"%.100s\": %.200s",
             object->is_publisher ? "publisher on" : "subscription to", subject, refused->text);
    rsi_client_give_up(client, why);
}

static void take_message(struct ringside_client *client, const Ringside__Control__Control *message)
{
    switch ((int)message->body_case) {
    case RINGSIDE__CONTROL__CONTROL__BODY_PUBLISHER_OPENED:
        take_granted(client, message->publisher_opened->request);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBED:
        take_granted(client, message->subscribed->request);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_REFUSED:
        take_refused(client, message->refused);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_BYE:
        rsi_dial_cancel(&client->dial, message->bye->text);
        return;
    default:
        rsi_dial_cancel(&client->dial, "the broker sent a message that has no place there");
        return;
    }
}

static void take_answers(struct ringside_client *client)
{
    struct rsi_dial *dial = &client->dial;
    while (dial->state == RSI_DIAL_READY) {
        Ringside__Control__Control *message = NULL;
        struct rsi_error error = {0};
        rsi_status_t status =
            rsi_control_receive(&dial->receiver, dial->path.link, &message, &error);
        if (status == RSI_WOULD_BLOCK) {
            return;
        }
        if (status != RSI_OK) {
            rsi_dial_cancel(dial, error.text);
            return;
        }
        take_message(client, message);
        rsi_control_free(message);
    }
}

/* ---- what was published ------------------------------------------------------------------------
 */

static uint64_t first_owed_pos(const struct rsi_link *link)
{
    return link->transport->peer_is_local ? link->peer_consumed_pos : link->peer_arrived_pos;
}

/* Bytes of the frame at `position` of an out ring; 0: there is none. A peer on this host can write
 * the ring. */
static uint64_t frame_bytes_at(const struct rsi_link *link, uint64_t position)
{
    uint64_t word = link->head_word;
    if (position != link->placed_pos) {
        memcpy(&word, rsi_ring_at(&link->out, position), sizeof(word));
    }
    uint64_t frame_bytes = rsi_commit_frame_bytes(word, position);
    bool fits = frame_bytes >= RSI_FRAME_HEADER_BYTES && frame_bytes <= link->staged_pos - position;
    return fits ? frame_bytes : 0;
}

static bool is_ring_whole(const struct rsi_link *link)
{
    uint64_t position = first_owed_pos(link);
    while (position < link->staged_pos) {
        uint64_t frame_bytes = frame_bytes_at(link, position);
        if (frame_bytes == 0) {
            return false;
        }
        position += frame_bytes;
    }
    return true;
}

static bool is_alias_known(const struct ringside_client *client, uint32_t alias)
{
    return alias >= 1 && alias <= client->publisher_slot_count &&
           client->publishers[alias - 1] != NULL &&
           client->publishers[alias - 1]->object.renewal == RSI_RENEWAL_DONE;
}

static void frame_anew(struct ringside_client *client, struct rsi_link *to,
                       const struct rsi_link *from)
{
    uint64_t position = first_owed_pos(from);
    while (position < from->staged_pos) {
        uint64_t frame_bytes = frame_bytes_at(from, position);
        rsi_assert(frame_bytes != 0);
        const uint8_t *at = rsi_ring_at(&from->out, position);
        struct rsi_frame_header header;
        memcpy(&header, at, sizeof(header));
        position += frame_bytes;
        if (!is_alias_known(client, header.publication) || header.type != RSI_FRAME_MESSAGE) {
            continue; /* requests are answered as lost, and who asked here is not known there */
        }
        uint8_t *copy = (uint8_t *)(void *)rsi_frame_claim(to, frame_bytes);
        rsi_assert(copy != NULL); /* the rings are of one size, and this one was empty */
        memcpy(copy + sizeof(header.commit), at + sizeof(header.commit),
               frame_bytes - sizeof(header.commit));
        rsi_frame_commit(to, frame_bytes);
    }
}

/* ---- going over --------------------------------------------------------------------------------
 */

static void settle_publisher(struct ringside_client *client, struct ringside_publisher *publisher,
                             uint64_t end_pos)
{
    struct rsi_object *object = &publisher->object;
    object->renewal = RSI_RENEWAL_NONE;
    publisher->end_pos = end_pos; /* or before: it must only not be too early */
    if (object->state == RSI_OBJECT_CLOSING) {
        rsi_client_close_again(client, object);
    }
}

/* A subscription that was about to be closed is closed: the new broker does not know it. */
static void settle_subscription(struct ringside_client *client,
                                struct ringside_subscription *subscription)
{
    struct rsi_object *object = &subscription->object;
    bool is_closing = object->state == RSI_OBJECT_CLOSE_DUE || object->state == RSI_OBJECT_CLOSING;
    bool is_known = object->renewal == RSI_RENEWAL_DONE;
    object->renewal = RSI_RENEWAL_NONE;
    subscription->drain_pos = 0; /* what the old broker gave was handed over */
    if (is_closing && !is_known) {
        rsi_client_close_unasked(client, object);
    }
}

static void carry_anew(struct ringside_client *client, struct rsi_link *to,
                       const struct rsi_link *from)
{
    rsi_client_calls_lose(client->calls);
    if (from->out.capacity_bytes != 0) {
        frame_anew(client, to, from);
    }
    for (uint32_t slot = 0; slot < client->publisher_slot_count; slot++) {
        if (client->publishers[slot] != NULL) {
            settle_publisher(client, client->publishers[slot], to->staged_pos);
        }
    }
    for (uint32_t index = client->subscription_count; index > 0; index--) {
        settle_subscription(client, client->subscriptions[index - 1]);
    }
    client->deliver_pos = to->consumed_pos;
}

bool rsi_client_renew_poll(struct ringside_client *client)
{
    struct progress progress = {.is_all_done = true};
    take_answers(client);
    for (uint32_t slot = 0; slot < client->publisher_slot_count; slot++) {
        if (client->publishers[slot] != NULL) {
            tell(client, &client->publishers[slot]->object, &progress);
        }
    }
    for (uint32_t index = 0; index < client->subscription_count; index++) {
        tell(client, &client->subscriptions[index]->object, &progress);
    }
    if (!progress.is_all_done || client->dial.state != RSI_DIAL_READY) {
        return false;
    }
    if (!is_ring_whole(client->link)) {
        rsi_client_give_up(client, "the broker that died has overwritten what was published");
        return false;
    }
    if (!rsi_client_remnant_keep(client)) {
        return false; /* again in the next pass */
    }
    client->resume.half_made.id = 0;
    rsi_client_go_over(client, carry_anew);
    return true;
}

void rsi_client_renew_forget(struct ringside_client *client)
{
    const struct rsi_dial *dial = &client->dial;
    if (dial->purpose == RSI_DIAL_RENEW && dial->agreed.id != 0) {
        client->resume.half_made = dial->agreed;
    }
    for (uint32_t slot = 0; slot < client->publisher_slot_count; slot++) {
        if (client->publishers[slot] != NULL) {
            client->publishers[slot]->object.renewal = RSI_RENEWAL_NONE;
        }
    }
    for (uint32_t index = 0; index < client->subscription_count; index++) {
        client->subscriptions[index]->object.renewal = RSI_RENEWAL_NONE;
    }
}
