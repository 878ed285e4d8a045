/*
 * From the in ring to callbacks.
 *
 * Design notes
 * - Only what had arrived when a delivery began is read in it, so it ends however fast the broker
 * is.
 * - A frame is checked before anything in it is used. The first malformed one stops delivery for
 *   good and fails the link: frames have lengths, so after a wrong one nothing has a beginning.
 * - Sequences tell what is missing: a message may only be at or after the expected one, and the
 *   difference is the exact number of those left out, however often the broker dropped between.
 * - A member of a queue group gets what it was chosen for, which the frame says; where only members
 *   want a publication, its frames are flagged, and nothing is counted by subtraction.
 * - Which subscriptions want a publication is worked out once and kept, until the set of
 *   subscriptions changes. What a callback subscribes to is in the list from the next message on;
 *   what it gives up is not called any more, and is freed outside of callbacks alone.
 * - The ring is given back in steps, after the callbacks that looked into it have returned, and not
 *   beyond the oldest message that is held (hold.c).
 * - What a broker that died has left (remnant.c) goes first, then the news that the session was
 *   renewed and the gaps, then what the next one sent. A limit may stop all of this between two
 *   messages; the next delivery goes on there.
 */
#include "clients/c/client.h"

#include "core/clock.h"
#include "proto/headers.h"
#include "proto/subject.h"
#include "transport/frame.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* One delivery under way. */
struct delivery {
    /* Where the frames come from: the link, or what a broker that died has left. */
    const struct rsi_ring *ring;
    struct rsi_announced_table *announced;
    uint64_t *deliver_pos;
    uint64_t session_id;  /* that this client had or has there */
    size_t limit;         /* of messages; 0: none */
    size_t message_count; /* handed to at least one callback */
    size_t event_count;
};

static inline bool is_at_limit(const struct delivery *delivery)
{
    return delivery->message_count == delivery->limit && delivery->limit != 0;
}

/* ---- ends of delivery --------------------------------------------------------------------------
 */

static RSI_COLD void stop(struct ringside_client *client, const struct delivery *delivery,
                          rsi_status_t status, const char *why)
{
    client->is_deliver_stopped = true;
    rsi_link_fail(client->link, status, "delivery stopped at position %" PRIu64 ": %s",
                  *delivery->deliver_pos, why);
    if (client->phase == RSI_CLIENT_RESUMING) { /* the link has failed before, for another reason */
        struct rsi_error error = {0};
        (void)rsi_fail(&error, status, "delivery stopped at position %" PRIu64 ": %s",
                       *delivery->deliver_pos, why);
        rsi_client_end(client, RSI_E_LINK_LOST, &error);
    }
}

void rsi_client_consume(struct ringside_client *client)
{
    uint64_t end_pos = rsi_client_consumable_pos(client);
    if (end_pos != client->link->consumed_pos) {
        rsi_link_consume(client->link, end_pos - client->link->consumed_pos);
    }
}

bool rsi_client_has_frames(const struct ringside_client *client)
{
    return !client->is_deliver_stopped &&
           (client->deliver_pos < client->link->arrived_pos || client->remnants != NULL);
}

void rsi_client_discard_frames(struct ringside_client *client)
{
    client->deliver_pos = client->link->arrived_pos;
    rsi_client_remnants_discard(client);
    rsi_client_consume(client);
}

/* ---- callbacks ---------------------------------------------------------------------------------
 */

void rsi_client_tell_event(struct ringside_client *client, const ringside_event_t *event)
{
    if (client->options.on_event == NULL) {
        return;
    }
    client->is_in_callback = true;
    client->options.on_event(client->options.event_arg, event);
    client->is_in_callback = false;
}

static void tell_gap(struct ringside_client *client, const struct rsi_announced *entry,
                     uint64_t count, struct delivery *delivery)
{
    ringside_event_t event = {
        .type = RINGSIDE_EVENT_GAP,
        .status = RINGSIDE_OK,
        .text = count == UINT64_MAX ? "messages were lost, how many is not known"
                                    : "messages were left out because this client lagged behind",
        .subject = entry->subject,
        .publisher = entry->publisher,
        .publication = entry->publication,
        .count = count,
    };
    client->totals.gap_events++;
    if (count != UINT64_MAX) {
        client->totals.gap_messages += count;
    }
    delivery->event_count++;
    rsi_client_tell_event(client, &event);
}

static void tell_conflated(struct ringside_client *client, const struct rsi_announced *entry,
                           uint64_t count, struct delivery *delivery)
{
    const ringside_event_t event = {
        .type = RINGSIDE_EVENT_CONFLATED,
        .status = RINGSIDE_OK,
        .text = "newer messages took the place of these",
        .subject = entry->subject,
        .publisher = entry->publisher,
        .publication = entry->publication,
        .count = count,
    };
    delivery->event_count++;
    rsi_client_tell_event(client, &event);
}

/* ---- who wants it ------------------------------------------------------------------------------
 */

static bool is_wanted_by(const struct ringside_subscription *subscription,
                         const struct rsi_announced *entry, uint64_t session_id)
{
    if (!subscription->is_active || !subscription->is_started) {
        return false;
    }
    if (subscription->no_echo && entry->publisher_session == session_id) {
        return false;
    }
    return rsi_subject_matches(subscription->subject, subscription->subject_bytes, entry->subject,
                               entry->subject_bytes);
}

static RSI_NOINLINE bool find_subscriptions(struct ringside_client *client,
                                            struct rsi_announced *entry,
                                            const struct delivery *delivery)
{
    if (entry->subscription_slot_count < client->subscription_count) {
        struct ringside_subscription **list =
            realloc(entry->subscriptions,
                    client->subscription_slot_count * sizeof(struct ringside_subscription *));
        if (list == NULL) {
            stop(client, delivery, RSI_E_NO_MEMORY,
                 "no memory for a publication's list of subscriptions");
            return false;
        }
        entry->subscriptions = list;
        entry->subscription_slot_count = client->subscription_slot_count;
    }
    entry->subscription_count = 0;
    for (uint32_t index = 0; index < client->subscription_count; index++) {
        if (is_wanted_by(client->subscriptions[index], entry, delivery->session_id)) {
            entry->subscriptions[entry->subscription_count++] = client->subscriptions[index];
        }
    }
    entry->subscriptions_version = client->subscriptions_version;
    return true;
}

static inline bool has_subscriptions(struct ringside_client *client, struct rsi_announced *entry,
                                     const struct delivery *delivery)
{
    if (rsi_unlikely(entry->subscriptions_version != client->subscriptions_version) &&
        !find_subscriptions(client, entry, delivery)) {
        return false;
    }
    return entry->subscription_count > 0;
}

/* ---- frames ------------------------------------------------------------------------------------
 */

/* `count` messages before next_sequence that were not delivered are lost; UINT64_MAX: not known. */
static RSI_NOINLINE void skip_to(struct ringside_client *client, struct rsi_announced *entry,
                                 uint64_t next_sequence, uint64_t count, uint32_t reason,
                                 struct delivery *delivery)
{
    entry->next_sequence = next_sequence;
    if (has_subscriptions(client, entry, delivery)) {
        if (reason == RSI_GAP_CONFLATED) {
            tell_conflated(client, entry, count, delivery);
        } else {
            tell_gap(client, entry, count, delivery);
        }
    }
}

/* Whether the broker chose this member of a queue group for the message. */
static RSI_NOINLINE bool is_chosen(const struct ringside_subscription *subscription,
                                   const struct rsi_frame *frame, uint64_t session)
{
    uint32_t first = frame->header.type == RSI_FRAME_REQUEST; /* that one is the requester */
    for (uint32_t index = first; index < frame->header.entry_count; index++) {
        struct rsi_frame_entry entry = rsi_frame_entry_at(frame, index);
        if (entry.session == session && entry.number == subscription->id) {
            return true;
        }
    }
    return false;
}

/* Fills in what callbacks get. False: the frame is malformed, and delivery has stopped. */
static inline bool make_message(struct ringside_client *client, const struct rsi_announced *entry,
                                const struct rsi_frame *frame, bool is_last,
                                const struct delivery *delivery, ringside_message_t *message)
{
    uint32_t header_count = 0;
    if (rsi_unlikely(frame->header.headers_bytes > 0)) {
        const char *why =
            rsi_headers_check(frame->headers, frame->header.headers_bytes, &header_count);
        if (why != NULL) {
            stop(client, delivery, RSI_E_PROTOCOL, why);
            return false;
        }
    }
    *message = (ringside_message_t){
        .subject = entry->subject,
        .subject_bytes = entry->subject_bytes,
        .data = frame->payload,
        .bytes = frame->header.payload_bytes,
        .sequence = frame->header.sequence,
        .publish_time_ns = frame->header.publish_time_ns,
        .publication = entry->publication,
        .publisher = entry->publisher,
        .headers = frame->headers,
        .headers_bytes = frame->header.headers_bytes,
        .header_count = header_count,
        .is_last = is_last,
        .client = client,
    };
    if (rsi_unlikely(frame->header.type == RSI_FRAME_REQUEST)) {
        struct rsi_frame_entry requester = rsi_frame_entry_at(frame, 0);
        message->is_request = 1;
        message->request = (ringside_request_id_t){.words = {requester.session, requester.number}};
    }
    return true;
}

static inline void count_delivered(struct ringside_client *client, const struct rsi_frame *frame,
                                   struct delivery *delivery)
{
    client->totals.delivered_messages++;
    client->totals.delivered_bytes += frame->header.payload_bytes;
    delivery->message_count++;
}

static inline void take_message(struct ringside_client *client, const struct rsi_frame *frame,
                                struct delivery *delivery)
{
    struct rsi_announced *entry =
        rsi_announced_find(delivery->announced, frame->header.publication);
    if (rsi_unlikely(entry == NULL)) {
        stop(client, delivery, RSI_E_PROTOCOL, "a message of a publication that was not announced");
        return;
    }
    uint64_t sequence = frame->header.sequence;
    if (rsi_unlikely(sequence != entry->next_sequence)) {
        if (sequence < entry->next_sequence) {
            stop(client, delivery, RSI_E_PROTOCOL, "a message whose sequence was passed already");
            return;
        }
        if ((frame->header.flags & RSI_FRAME_FLAG_SPARSE) == 0) {
            skip_to(client, entry, sequence, sequence - entry->next_sequence, RSI_GAP_DROPPED,
                    delivery);
        }
    }
    entry->next_sequence = sequence + 1;
    if (rsi_unlikely(!has_subscriptions(client, entry, delivery))) {
        client->totals.unwanted_messages++;
        return;
    }

    ringside_message_t message;
    if (rsi_unlikely(!make_message(client, entry, frame, false, delivery, &message))) {
        return;
    }
    if (rsi_unlikely(client->last_due_count > 0)) {
        entry->delivered_sequence = sequence;
        entry->delivered_version = client->subscriptions_version;
    }
    size_t called_count = 0;
    client->is_in_callback = true;
    client->delivering = &message; /* cppcheck-suppress autoVariables ; NULL again below */
    for (uint32_t index = 0; index < entry->subscription_count; index++) {
        struct ringside_subscription *subscription = entry->subscriptions[index];
        if (rsi_unlikely(!subscription->is_active)) { /* a callback has just given it up */
            continue;
        }
        if (rsi_unlikely(subscription->is_member) &&
            !is_chosen(subscription, frame, delivery->session_id)) {
            continue;
        }
        subscription->on_message(subscription->arg, &message);
        called_count++;
    }
    client->delivering = NULL;
    client->is_in_callback = false;
    if (rsi_unlikely(called_count == 0)) {
        client->totals.unwanted_messages++;
        return;
    }
    count_delivered(client, frame, delivery);
}

/* A value that this subscription, which began before, had live is passed over. */
static RSI_NOINLINE void take_last(struct ringside_client *client, const struct rsi_frame *frame,
                                   struct delivery *delivery)
{
    struct rsi_announced *entry =
        rsi_announced_find(delivery->announced, frame->header.publication);
    if (entry == NULL) {
        stop(client, delivery, RSI_E_PROTOCOL,
             "a last value of a publication that was not announced");
        return;
    }
    /* Below next_sequence, unless the client is a member of a queue group: what was for others does
     * not move that, and no gap is told of it. */
    uint64_t sequence = frame->header.sequence;
    struct ringside_subscription *subscription = client->last_of;
    if (subscription == NULL || !is_wanted_by(subscription, entry, delivery->session_id) ||
        (entry->delivered_version >= subscription->start_version &&
         entry->delivered_sequence >= sequence)) {
        client->totals.unwanted_messages++;
        return;
    }
    ringside_message_t message;
    if (!make_message(client, entry, frame, true, delivery, &message)) {
        return;
    }
    client->is_in_callback = true;
    client->delivering = &message; /* cppcheck-suppress autoVariables ; NULL again below */
    subscription->on_message(subscription->arg, &message);
    client->delivering = NULL;
    client->is_in_callback = false;
    count_delivered(client, frame, delivery);
}

static struct ringside_subscription *find_subscription(const struct ringside_client *client,
                                                       uint64_t id)
{
    for (uint32_t index = 0; index < client->subscription_count; index++) {
        if (client->subscriptions[index]->id == id) {
            return client->subscriptions[index];
        }
    }
    return NULL;
}

/* The subscription has all last values. */
static void tell_current(struct ringside_client *client, struct ringside_subscription *subscription,
                         struct delivery *delivery)
{
    rsi_subscription_end_last(subscription);
    const ringside_event_t event = {
        .type = RINGSIDE_EVENT_CURRENT,
        .status = RINGSIDE_OK,
        .text = "all last values were handed over",
        .subject = subscription->subject,
    };
    delivery->event_count++;
    rsi_client_tell_event(client, &event);
}

/* A step of a subscription with last values. One that is gone already is nobody. */
static RSI_NOINLINE void take_mark(struct ringside_client *client, const struct rsi_frame *frame,
                                   struct delivery *delivery)
{
    struct rsi_snapshot_mark mark;
    if (frame->header.payload_bytes != sizeof(mark)) {
        stop(client, delivery, RSI_E_PROTOCOL,
             "a mark of last values that is not as long as it must be");
        return;
    }
    memcpy(&mark, frame->payload, sizeof(mark));
    struct ringside_subscription *subscription = find_subscription(client, mark.subscription);
    if (subscription != NULL && !subscription->is_last) {
        stop(client, delivery, RSI_E_PROTOCOL,
             "last values for a subscription that did not ask for them");
        return;
    }
    bool is_there = subscription != NULL && subscription->is_active;
    switch (mark.step) {
    case RSI_SNAPSHOT_START:
        if (is_there) {
            rsi_subscription_start(subscription);
        }
        return;
    case RSI_SNAPSHOT_VALUES:
        client->last_of = is_there ? subscription : NULL;
        return;
    case RSI_SNAPSHOT_END:
        client->last_of = NULL;
        if (is_there) {
            tell_current(client, subscription, delivery);
        }
        return;
    default:
        stop(client, delivery, RSI_E_PROTOCOL, "a mark of last values of an unknown step");
    }
}

static RSI_NOINLINE void take_announce(struct ringside_client *client,
                                       const struct rsi_frame *frame,
                                       const struct delivery *delivery)
{
    struct rsi_announced *entry = NULL;
    const char *why = NULL;
    rsi_status_t status = rsi_announced_put(delivery->announced, frame->payload,
                                            frame->header.payload_bytes, &entry, &why);
    if (status != RSI_OK) {
        stop(client, delivery, status, why);
    }
}

static void take_gap_entry(struct ringside_client *client, const struct rsi_gap_entry *gap,
                           uint32_t reason, struct delivery *delivery)
{
    struct rsi_announced *entry = rsi_announced_find(delivery->announced, gap->publication);
    if (entry == NULL) {
        stop(client, delivery, RSI_E_PROTOCOL, "a gap in a publication that was not announced");
        return;
    }
    if (gap->next_sequence < entry->next_sequence) {
        stop(client, delivery, RSI_E_PROTOCOL, "a gap that ends before what was delivered");
        return;
    }
    uint64_t count = gap->next_sequence - entry->next_sequence;
    if (gap->count != 0 && gap->count < count) { /* the others were not for this session */
        count = gap->count == UINT32_MAX ? UINT64_MAX : gap->count;
    }
    if (gap->next_sequence > entry->next_sequence || reason == RSI_GAP_UNKNOWN) {
        skip_to(client, entry, gap->next_sequence, reason == RSI_GAP_UNKNOWN ? UINT64_MAX : count,
                reason, delivery);
    }
}

static RSI_NOINLINE void take_gap(struct ringside_client *client, const struct rsi_frame *frame,
                                  struct delivery *delivery)
{
    struct rsi_gap gap;
    uint64_t payload_bytes = frame->header.payload_bytes;
    if (payload_bytes < sizeof(gap)) {
        stop(client, delivery, RSI_E_PROTOCOL, "a gap record that is shorter than its fixed part");
        return;
    }
    memcpy(&gap, frame->payload, sizeof(gap));
    if (payload_bytes != sizeof(gap) + gap.entry_count * (uint64_t)sizeof(struct rsi_gap_entry)) {
        stop(client, delivery, RSI_E_PROTOCOL, "a gap record that is not as long as its entries");
        return;
    }
    for (uint32_t index = 0; index < gap.entry_count && !client->is_deliver_stopped; index++) {
        struct rsi_gap_entry entry;
        memcpy(&entry, frame->payload + sizeof(gap) + index * sizeof(entry), sizeof(entry));
        take_gap_entry(client, &entry, gap.reason, delivery);
    }
}

static RSI_NOINLINE void take_call(struct ringside_client *client, const struct rsi_frame *frame,
                                   struct delivery *delivery)
{
    if (frame->header.entry_count == 0) {
        stop(client, delivery, RSI_E_PROTOCOL, "a request or reply that does not say whose it is");
    } else if (frame->header.type == RSI_FRAME_REQUEST) {
        take_message(client, frame, delivery);
    } else {
        delivery->message_count += rsi_client_calls_take(client, frame);
    }
}

/* One frame at deliver_pos; false: delivery has stopped. */
static inline bool take_frame(struct ringside_client *client, uint64_t end_pos,
                              struct delivery *delivery)
{
    struct rsi_frame frame;
    const char *why = NULL;
    if (rsi_unlikely(rsi_frame_read(delivery->ring, *delivery->deliver_pos, end_pos, &frame,
                                    &why) != RSI_OK)) {
        stop(client, delivery, RSI_E_PROTOCOL, why);
        return false;
    }
    if (rsi_likely(frame.header.type == RSI_FRAME_MESSAGE)) {
        take_message(client, &frame, delivery);
    } else if (frame.header.type == RSI_FRAME_ANNOUNCE) {
        take_announce(client, &frame, delivery);
    } else if (frame.header.type == RSI_FRAME_GAP) {
        take_gap(client, &frame, delivery);
    } else if (frame.header.type == RSI_FRAME_LAST) {
        take_last(client, &frame, delivery);
    } else if (frame.header.type != RSI_FRAME_SNAPSHOT) {
        take_call(client, &frame, delivery);
    } else {
        take_mark(client, &frame, delivery);
    }
    if (rsi_unlikely(client->is_deliver_stopped)) {
        return false;
    }
    *delivery->deliver_pos += frame.frame_bytes;
    return true;
}

/* ---- events of the session ---------------------------------------------------------------------
 */

static void tell_news(struct ringside_client *client, ringside_event_type_t type, const char *text,
                      struct delivery *delivery)
{
    const ringside_event_t event = {.type = type, .status = RINGSIDE_OK, .text = text};
    delivery->event_count += client->options.on_event != NULL;
    rsi_client_tell_event(client, &event);
}

/* What was asked for without waiting is there, or refused. */
static void tell_answers(struct ringside_client *client, struct delivery *delivery)
{
    struct rsi_object *object;
    client->news.is_answered = false;
    while ((object = rsi_client_next_answered(client)) != NULL) {
        if (object->is_abandoned) { /* refused, and given up before this was told */
            rsi_client_free_object(object);
            continue;
        }
        const struct rsi_error *refusal = object->refusal;
        ringside_event_t event = {.type = RINGSIDE_EVENT_SUBSCRIBED, .text = "granted"};
        if (object->is_publisher) {
            event.type = RINGSIDE_EVENT_OPENED;
            event.opened = rsi_container_of(object, struct ringside_publisher, object);
        } else {
            event.subscription = rsi_container_of(object, struct ringside_subscription, object);
        }
        bool is_refused = object->state == RSI_OBJECT_REFUSED;
        if (is_refused) {
            event.status =
                refusal == NULL ? RINGSIDE_E_REFUSED : (ringside_status_t)refusal->status;
            event.text = refusal == NULL ? "the broker refused" : refusal->text;
        }
        rsi_client_tell_event(client, &event);
        delivery->event_count++;
        if (is_refused) {
            rsi_client_free_object(object);
        }
    }
}

static void tell_suspended(struct ringside_client *client, struct delivery *delivery)
{
    client->news.is_suspended = false;
    client->is_told_suspended = true;
    tell_news(client, RINGSIDE_EVENT_SUSPENDED, client->resume.loss.text, delivery);
}

/* The broker that announced these is gone, and nobody knows what it still held. */
static void tell_unknown_gaps(struct ringside_client *client, struct delivery *delivery)
{
    const struct rsi_announced_table *announced = delivery->announced;
    for (uint32_t slot = 0; slot < announced->slot_count; slot++) {
        struct rsi_announced *entry = announced->slots[slot];
        if (entry != NULL && has_subscriptions(client, entry, delivery)) {
            tell_gap(client, entry, UINT64_MAX, delivery);
        }
    }
}

/* What was given to these subscriptions has been handed over. */
static RSI_COLD void tell_drained(struct ringside_client *client, struct delivery *delivery)
{
    for (uint32_t index = client->subscription_count; index-- > 0;) {
        if (index >= client->subscription_count) {
            continue; /* callbacks may give subscriptions up */
        }
        struct ringside_subscription *subscription = client->subscriptions[index];
        if (!subscription->is_drain_answered || client->deliver_pos < subscription->drain_pos) {
            continue;
        }
        const ringside_event_t event = {.type = RINGSIDE_EVENT_DRAINED,
                                        .status = RINGSIDE_OK,
                                        .text = "the subscription has got all that was for it",
                                        .subject = subscription->subject,
                                        .subscription = subscription};
        client->drained_count--;
        subscription->is_drain_answered = false;
        subscription->is_active = false;
        client->subscriptions_version++;
        rsi_client_tell_event(client, &event);
        delivery->event_count += client->options.on_event != NULL;
        rsi_subscription_free(subscription);
    }
}

/* What comes next is of a broker that begins anew with last values. */
static void await_last_again(struct ringside_client *client)
{
    client->last_of = NULL;
    for (uint32_t index = 0; index < client->subscription_count; index++) {
        rsi_subscription_await_last(client->subscriptions[index]);
    }
}

/* The oldest remnant, and that the session went on from there. False: the limit came before its
 * end, or a frame in it was malformed. */
static bool hand_over_remnant(struct ringside_client *client, struct delivery *delivery)
{
    struct rsi_client_remnant *remnant = client->remnants;
    struct delivery own = {.ring = &remnant->frames,
                           .announced = &remnant->announced,
                           .deliver_pos = &remnant->deliver_pos,
                           .session_id = remnant->session_id,
                           .limit = delivery->limit,
                           .message_count = delivery->message_count};
    bool is_complete = true;
    client->delivering_remnant = remnant;
    while (is_complete && remnant->deliver_pos < remnant->end_pos) {
        is_complete = !is_at_limit(&own) && take_frame(client, remnant->end_pos, &own);
    }
    client->delivering_remnant = NULL;
    if (is_complete) {
        (void)rsi_client_remnant_take(client);
        if (!client->is_told_suspended) {
            tell_suspended(client, &own);
        }
        client->news.is_suspended = false;
        client->is_told_suspended = false;
        tell_news(client, RINGSIDE_EVENT_RENEWED, remnant->renewed_text, &own);
        tell_unknown_gaps(client, &own);
        await_last_again(client);
        rsi_client_let_go_remnant(client, remnant);
    }
    delivery->message_count = own.message_count;
    delivery->event_count += own.event_count;
    return is_complete;
}

/*
 * What happened to the session since the last delivery, in an order that makes sense to whoever
 * reads only this: it was suspended, it goes on, it is suspended again. Several losses in a row are
 * one. False: the limit came before the end.
 */
static RSI_COLD bool tell_all_news(struct ringside_client *client, struct delivery *delivery)
{
    struct rsi_client_news *news = &client->news;
    if (news->is_connected) {
        news->is_connected = false;
        tell_news(client, RINGSIDE_EVENT_CONNECTED, client->transport_why, delivery);
    }
    if (news->is_suspended && !client->is_told_suspended) {
        tell_suspended(client, delivery);
    }
    while (client->remnants != NULL) {
        if (client->is_deliver_stopped || !hand_over_remnant(client, delivery)) {
            return false;
        }
    }
    if (news->is_resumed) {
        news->is_resumed = false;
        news->is_suspended = false;
        client->is_told_suspended = false;
        tell_news(client, RINGSIDE_EVENT_RESUMED, news->resumed_text, delivery);
    }
    if (client->phase == RSI_CLIENT_RESUMING && !client->is_told_suspended) {
        tell_suspended(client, delivery);
    }
    if (news->is_answered) {
        tell_answers(client, delivery);
    }
    news->is_any = false;
    return true;
}

/* Whether everything was handed over that will ever come. */
static bool is_all_delivered(const struct ringside_client *client)
{
    if (rsi_client_has_frames(client)) {
        return false;
    }
    bool can_more_arrive = rsi_link_state(client->link) == RSI_LINK_ATTACHED &&
                           !client->is_deliver_stopped && client->is_bye_received;
    return !can_more_arrive || client->deliver_pos >= client->bye_end_pos;
}

/* The broker's goodbye says how far it took: what lies behind that in the out ring is lost. */
static void tell_untaken(struct ringside_client *client)
{
    client->untaken_count = rsi_client_count_untaken(client);
    if (client->untaken_count == 0) {
        return;
    }
    struct rsi_error error = client->end_error;
    (void)rsi_fail(&client->end_error, error.status,
                   "%.400s; it did not take the last %" PRIu64 " messages published", error.text,
                   client->untaken_count);
}

static RSI_COLD void tell_end(struct ringside_client *client, struct delivery *delivery)
{
    client->phase = RSI_CLIENT_ENDED;
    if (client->is_bye_received) {
        rsi_link_place(client->link);
        (void)rsi_link_flush(client->link);
        /* Without room for it the broker times this session out, which ends it as well. */
        (void)rsi_client_send_bye(client);
        (void)rsi_poller_poll(client->poller, rsi_clock_now_ns());
        tell_untaken(client);
    }
    ringside_event_t event = {
        .status = (ringside_status_t)client->end_error.status,
        .text = client->end_error.text,
        .count = client->untaken_count,
    };
    if (client->end_error.status == RSI_E_SLOW) {
        event.type = RINGSIDE_EVENT_SLOW;
        rsi_client_tell_event(client, &event);
        delivery->event_count++;
    }
    event.type =
        client->end_status == RSI_E_LINK_LOST ? RINGSIDE_EVENT_LOST : RINGSIDE_EVENT_CLOSED;
    rsi_client_tell_event(client, &event);
    delivery->event_count++;
    delivery->event_count += rsi_client_calls_end(client, RINGSIDE_E_LOST);
}

size_t rsi_client_deliver(struct ringside_client *client, size_t limit)
{
    struct rsi_link *link = client->link;
    struct delivery delivery = {.ring = &link->in,
                                .announced = &client->announced,
                                .deliver_pos = &client->deliver_pos,
                                .session_id = client->session.id,
                                .limit = limit};
    uint64_t end_pos = link->arrived_pos;

    if (rsi_unlikely(client->news.is_any) && !tell_all_news(client, &delivery)) {
        end_pos = client->deliver_pos;
    }
    while (client->deliver_pos < end_pos && !client->is_deliver_stopped) {
        if (!take_frame(client, end_pos, &delivery)) {
            break;
        }
        if (client->deliver_pos - link->consumed_pos >= RSI_CLIENT_CONSUME_BYTES) {
            rsi_client_consume(client);
        }
        if (is_at_limit(&delivery)) {
            break;
        }
    }
    if (client->deliver_pos != link->consumed_pos) {
        rsi_client_consume(client);
    }
    if (rsi_unlikely(client->drained_count > 0) && client->remnants == NULL) {
        tell_drained(client, &delivery);
    }
    if (rsi_unlikely(rsi_client_calls_any(client->calls)) && client->remnants == NULL) {
        delivery.event_count += rsi_client_calls_expire(client, rsi_clock_now_ns());
    }
    if (rsi_unlikely(client->phase == RSI_CLIENT_ENDING) && is_all_delivered(client)) {
        tell_end(client, &delivery);
    }
    return delivery.message_count + delivery.event_count;
}
