/*
 * Requests to the broker and what it says on the control lane.
 *
 * Design notes
 * - Every publisher and subscription has at most one request open, so the number of the answer
 *   awaited stands in the object itself and answers are found by looking through the objects: that
 *   is control plane, and there is no second table that could disagree.
 * - An answer nobody waits for is normal (the call timed out): what it made is closed again. An
 *   answer to no request at all is a fault of the broker's and ends the link.
 * - The control lane dies with its link, and with it requests that were not read and answers that
 *   were not sent. So the next link begins with asking again, under the same numbers; the broker
 *   knows a request by its number and does nothing twice. It may then answer twice: once because it
 *   had the request already, once because it was asked again. The second answer is passed over.
 */
#include "clients/c/client.h"

#include "core/assert.h"

#include <inttypes.h>
#include <stdlib.h>

rsi_status_t rsi_client_reason_status(Ringside__Control__Reason reason)
{
    switch (reason) {
    case RINGSIDE__CONTROL__REASON__REASON_VERSION:
        return RSI_E_VERSION;
    case RINGSIDE__CONTROL__REASON__REASON_AUTHENTICATION:
        return RSI_E_AUTH;
    case RINGSIDE__CONTROL__REASON__REASON_DENIED:
        return RSI_E_DENIED;
    case RINGSIDE__CONTROL__REASON__REASON_INVALID:
        return RSI_E_INVALID;
    case RINGSIDE__CONTROL__REASON__REASON_LIMIT:
        return RSI_E_LIMIT;
    case RINGSIDE__CONTROL__REASON__REASON_SLOW:
        return RSI_E_SLOW;
    case RINGSIDE__CONTROL__REASON__REASON_PROTOCOL:
        return RSI_E_PROTOCOL;
    case RINGSIDE__CONTROL__REASON__REASON_TIMED_OUT:
        return RSI_E_TIMED_OUT;
    case RINGSIDE__CONTROL__REASON__REASON_STOPPING:
    case RINGSIDE__CONTROL__REASON__REASON_GOODBYE:
        return RSI_E_LINK_CLOSED;
    case RINGSIDE__CONTROL__REASON__REASON_SESSION:
        return RSI_E_LINK_LOST;
    case RINGSIDE__CONTROL__REASON__REASON_ELSEWHERE:
    case RINGSIDE__CONTROL__REASON__REASON_NONE:
    case RINGSIDE__CONTROL__REASON__REASON_INTERNAL:
    case _RINGSIDE__CONTROL__REASON_IS_INT_SIZE:
        break;
    }
    return RSI_E_REFUSED;
}

/* ---- answers -----------------------------------------------------------------------------------
 */

static struct rsi_object *find_object(struct ringside_client *client, uint64_t request)
{
    for (uint32_t slot = 0; slot < client->publisher_slot_count; slot++) {
        struct ringside_publisher *publisher = client->publishers[slot];
        if (publisher != NULL && publisher->object.request == request) {
            return &publisher->object;
        }
    }
    for (uint32_t index = 0; index < client->subscription_count; index++) {
        if (client->subscriptions[index]->object.request == request) {
            return &client->subscriptions[index]->object;
        }
    }
    return NULL;
}

void rsi_client_free_object(struct rsi_object *object)
{
    if (object->is_publisher) {
        rsi_publisher_free(rsi_container_of(object, struct ringside_publisher, object));
    } else {
        rsi_subscription_free(rsi_container_of(object, struct ringside_subscription, object));
    }
}

/* Whether it is a subscription to be drained: it goes when what was for it was handed over. */
static bool is_drained(struct ringside_client *client, struct rsi_object *object)
{
    struct ringside_subscription *subscription =
        rsi_container_of(object, struct ringside_subscription, object);
    if (!subscription->is_draining) {
        return false;
    }
    subscription->is_drain_answered = true;
    client->drained_count++;
    return true;
}

/* Nobody waits: the next delivery tells it. */
static void note_answer(struct ringside_client *client, struct rsi_object *object, bool is_granted)
{
    if (!object->is_unwaited) {
        return;
    }
    object->is_unwaited = false;
    object->is_told_due = true;
    client->news.is_any = true;
    client->news.is_answered = true;
    if (is_granted) {
        return;
    }
    object->refusal = malloc(sizeof(*object->refusal)); /* without memory: told without a reason */
    if (object->refusal != NULL) {
        *object->refusal = client->error;
    }
}

/* The broker answered what `object` waited for; `is_granted` false: with a refusal. */
static void answer_object(struct ringside_client *client, struct rsi_object *object,
                          bool is_granted)
{
    object->request = 0;
    if (object->is_resend_due) {
        object->is_resend_due = false;
        client->send_due_count--;
    }
    if (object->state == RSI_OBJECT_OPENING) {
        object->state = is_granted ? RSI_OBJECT_OPEN : RSI_OBJECT_REFUSED;
        if (!object->is_abandoned) {
            note_answer(client, object, is_granted);
            return;
        }
        if (is_granted) {
            rsi_client_close_object(client, object);
        } else {
            rsi_client_free_object(object);
        }
        return;
    }
    /* A refused close is as good as a granted one: the broker does not know the object. */
    object->state = RSI_OBJECT_CLOSED;
    if (!object->is_publisher && is_drained(client, object)) {
        return;
    }
    if (object->is_abandoned) {
        rsi_client_free_object(object);
    }
}

static void take_answer(struct ringside_client *client, uint64_t request, bool is_granted)
{
    struct rsi_object *object = request == 0 ? NULL : find_object(client, request);
    if (object == NULL && request != 0 && request <= client->answered_twice_max) {
        return;
    }
    if (object == NULL) {
        rsi_link_fail(client->link, RSI_E_PROTOCOL,
                      "the broker answered request %" PRIu64 ", which is not open", request);
        return;
    }
    answer_object(client, object, is_granted);
}

static void take_drained(struct ringside_client *client, const Ringside__Control__Drained *drained)
{
    struct rsi_object *object = find_object(client, drained->request);
    if (object != NULL && !object->is_publisher) {
        rsi_container_of(object, struct ringside_subscription, object)->drain_pos =
            drained->end_pos;
    }
    take_answer(client, drained->request, true);
}

static void take_refused(struct ringside_client *client, const Ringside__Control__Refused *refused)
{
    struct rsi_error error = {0};
    (void)rsi_fail(&error, rsi_client_reason_status(refused->reason), "%s", refused->text);
    if (refused->request == 0) {
        rsi_client_end(client, RSI_E_LINK_CLOSED, &error);
        return;
    }
    if (find_object(client, refused->request) != NULL) {
        client->error = error;
    }
    take_answer(client, refused->request, false);
}

void rsi_client_note_end(Ringside__Control__Reason reason, const char *text,
                         struct rsi_error *error)
{
    /* Without a reason the broker lost the client, not the other way round. */
    rsi_status_t status = reason == RINGSIDE__CONTROL__REASON__REASON_NONE
                              ? RSI_E_LINK_LOST
                              : rsi_client_reason_status(reason);
    (void)rsi_fail(error, status, "%s", text[0] != 0 ? text : "the broker said goodbye");
}

void rsi_client_end_by_broker(struct ringside_client *client, const struct rsi_error *why,
                              uint64_t end_pos, uint64_t taken_pos)
{
    client->is_bye_received = true;
    client->bye_end_pos = end_pos;
    client->bye_taken_pos = taken_pos;
    rsi_client_end(client, why->status == RSI_E_LINK_LOST ? RSI_E_LINK_LOST : RSI_E_LINK_CLOSED,
                   why);
}

static void take_bye(struct ringside_client *client, const Ringside__Control__Bye *bye)
{
    struct rsi_error why = {0};
    rsi_client_note_end(bye->reason, bye->text, &why);
    rsi_client_end_by_broker(client, &why, bye->end_pos, bye->taken_pos);
}

static void take_message(struct ringside_client *client, const Ringside__Control__Control *message)
{
    switch (message->body_case) {
    case RINGSIDE__CONTROL__CONTROL__BODY_PUBLISHER_OPENED:
        take_answer(client, message->publisher_opened->request, true);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBED:
        take_answer(client, message->subscribed->request, true);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_DONE:
        take_answer(client, message->done->request, true);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_DRAINED:
        take_drained(client, message->drained);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_REFUSED:
        take_refused(client, message->refused);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_BYE:
        take_bye(client, message->bye);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_HELLO:
    case RINGSIDE__CONTROL__CONTROL__BODY_CHALLENGE:
    case RINGSIDE__CONTROL__CONTROL__BODY_AUTHENTICATE:
    case RINGSIDE__CONTROL__CONTROL__BODY_WELCOME:
    case RINGSIDE__CONTROL__CONTROL__BODY_OPEN_PUBLISHER:
    case RINGSIDE__CONTROL__CONTROL__BODY_CLOSE_PUBLISHER:
    case RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBE:
    case RINGSIDE__CONTROL__CONTROL__BODY_UNSUBSCRIBE:
    case RINGSIDE__CONTROL__CONTROL__BODY_DRAIN:
    case RINGSIDE__CONTROL__CONTROL__BODY__NOT_SET:
    case _RINGSIDE__CONTROL__CONTROL__BODY__CASE_IS_INT_SIZE:
        break;
    }
    rsi_link_fail(client->link, RSI_E_PROTOCOL,
                  "the broker sent control message %d, which has no place in a session",
                  (int)message->body_case);
}

uint32_t rsi_client_take_control(struct ringside_client *client)
{
    uint32_t count = 0;
    Ringside__Control__Control *message = NULL;
    struct rsi_error error = {0};
    rsi_status_t status = RSI_OK;

    while ((status = rsi_control_receive(&client->receiver, client->link, &message, &error)) ==
           RSI_OK) {
        count++;
        take_message(client, message);
        rsi_control_free(message);
    }
    if (rsi_unlikely(status != RSI_WOULD_BLOCK)) {
        rsi_link_fail(client->link, status, "%s", error.text);
    }
    return count;
}

/* ---- requests ----------------------------------------------------------------------------------
 */

rsi_status_t rsi_client_send(struct ringside_client *client,
                             const Ringside__Control__Control *message)
{
    if (client->phase == RSI_CLIENT_RESUMING) {
        return RSI_WOULD_BLOCK;
    }
    rsi_status_t status = rsi_control_send(client->link, message);
    /* A loss that the next pass will act on: there may be another link then. */
    return status == RSI_E_LINK_LOST ? RSI_WOULD_BLOCK : status;
}

rsi_status_t rsi_client_send_open(struct rsi_link *link, const struct rsi_object *object,
                                  uint64_t request)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__OpenPublisher open = RINGSIDE__CONTROL__OPEN_PUBLISHER__INIT;
    Ringside__Control__Subscribe subscribe = RINGSIDE__CONTROL__SUBSCRIBE__INIT;
    if (object->is_publisher) {
        struct ringside_publisher *publisher =
            rsi_container_of(object, struct ringside_publisher, object);
        open.request = request;
        open.alias = publisher->alias;
        open.subject = publisher->subject;
        message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_OPEN_PUBLISHER;
        message.open_publisher = &open;
    } else {
        struct ringside_subscription *subscription =
            rsi_container_of(object, struct ringside_subscription, object);
        subscribe.request = request;
        subscribe.subscription = subscription->id;
        subscribe.subject = subscription->subject;
        subscribe.policy = (Ringside__Control__Policy)subscription->policy;
        subscribe.no_echo = subscription->no_echo;
        subscribe.group = subscription->group;
        subscribe.last = subscription->is_last;
        message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBE;
        message.subscribe = &subscribe;
    }
    return rsi_control_send(link, &message);
}

static rsi_status_t send_open(struct ringside_client *client, const struct rsi_object *object,
                              uint64_t request)
{
    if (client->phase == RSI_CLIENT_RESUMING) {
        return RSI_WOULD_BLOCK;
    }
    rsi_status_t status = rsi_client_send_open(client->link, object, request);
    return status == RSI_E_LINK_LOST ? RSI_WOULD_BLOCK : status;
}

static rsi_status_t send_close(struct ringside_client *client, const struct rsi_object *object,
                               uint64_t request)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__ClosePublisher close = RINGSIDE__CONTROL__CLOSE_PUBLISHER__INIT;
    Ringside__Control__Unsubscribe unsubscribe = RINGSIDE__CONTROL__UNSUBSCRIBE__INIT;
    Ringside__Control__Drain drain = RINGSIDE__CONTROL__DRAIN__INIT;
    if (!object->is_publisher &&
        rsi_container_of(object, struct ringside_subscription, object)->is_draining) {
        drain.request = request;
        drain.subscription = rsi_container_of(object, struct ringside_subscription, object)->id;
        message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_DRAIN;
        message.drain = &drain;
        return rsi_client_send(client, &message);
    }
    if (object->is_publisher) {
        const struct ringside_publisher *publisher =
            rsi_container_of(object, struct ringside_publisher, object);
        close.request = request;
        close.alias = publisher->alias;
        close.end_pos = publisher->end_pos;
        message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_CLOSE_PUBLISHER;
        message.close_publisher = &close;
    } else {
        unsubscribe.request = request;
        unsubscribe.subscription =
            rsi_container_of(object, struct ringside_subscription, object)->id;
        message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_UNSUBSCRIBE;
        message.unsubscribe = &unsubscribe;
    }
    return rsi_client_send(client, &message);
}

struct object_wait {
    struct rsi_object *object;
    enum rsi_object_state state;
    rsi_status_t status;
};

static bool try_open(struct ringside_client *client, void *arg)
{
    struct object_wait *wait = arg;
    uint64_t request = client->last_request + 1;
    wait->status = send_open(client, wait->object, request);
    if (wait->status == RSI_OK) {
        client->last_request = request;
        wait->object->request = request;
    }
    return wait->status != RSI_WOULD_BLOCK;
}

void rsi_client_open_unwaited(struct ringside_client *client, struct rsi_object *object)
{
    object->is_unwaited = true;
    object->request = ++client->last_request;
    if (send_open(client, object, object->request) != RSI_OK) {
        object->is_resend_due = true;
        client->send_due_count++;
    }
    rsi_client_nudge_waiting(client);
}

rsi_status_t rsi_client_open_object(struct ringside_client *client, struct rsi_object *object,
                                    uint64_t deadline_ns, struct rsi_error *error)
{
    struct object_wait wait = {.object = object};
    rsi_status_t status =
        rsi_client_wait(client, try_open, &wait, &RSI_CLIENT_WISH_NONE, deadline_ns, error);
    if (status != RSI_OK) {
        return status;
    }
    if (wait.status != RSI_OK) {
        return rsi_fail(error, wait.status, "the control lane takes nothing: %s",
                        rsi_status_phrase(wait.status));
    }
    return rsi_client_wait_object(client, object, RSI_OBJECT_OPENING, deadline_ns, error);
}

static bool object_has_left(struct ringside_client *client, void *arg)
{
    const struct object_wait *wait = arg;
    (void)client;
    return wait->object->state != wait->state;
}

rsi_status_t rsi_client_wait_object(struct ringside_client *client, struct rsi_object *object,
                                    enum rsi_object_state state, uint64_t deadline_ns,
                                    struct rsi_error *error)
{
    struct object_wait wait = {.object = object, .state = state};
    return rsi_client_wait(client, object_has_left, &wait, &RSI_CLIENT_WISH_NONE, deadline_ns,
                           error);
}

/* ---- what is to be sent when there is room -----------------------------------------------------
 */

static bool try_close(struct ringside_client *client, struct rsi_object *object)
{
    uint64_t request = client->last_request + 1;
    if (send_close(client, object, request) != RSI_OK) {
        return false;
    }
    client->last_request = request;
    object->request = request;
    object->state = RSI_OBJECT_CLOSING;
    return true;
}

void rsi_client_close_object(struct ringside_client *client, struct rsi_object *object)
{
    object->state = RSI_OBJECT_CLOSE_DUE;
    if (!try_close(client, object)) {
        client->send_due_count++;
    }
}

void rsi_client_abandon_object(struct ringside_client *client, struct rsi_object *object)
{
    object->is_abandoned = true;
    if (object->state == RSI_OBJECT_OPEN) {
        object->is_told_due = false;
        rsi_client_close_object(client, object);
        rsi_client_nudge_waiting(client);
    } else if (object->state == RSI_OBJECT_REFUSED && !client->is_in_callback) {
        rsi_client_free_object(object); /* in a callback: by who tells of it */
    }                                   /* else with the answer to come */
}

struct rsi_object *rsi_client_next_answered(struct ringside_client *client)
{
    struct rsi_object *found = NULL;
    for (uint32_t slot = 0; slot < client->publisher_slot_count && found == NULL; slot++) {
        struct ringside_publisher *publisher = client->publishers[slot];
        found = publisher != NULL && publisher->object.is_told_due ? &publisher->object : NULL;
    }
    for (uint32_t index = 0; index < client->subscription_count && found == NULL; index++) {
        struct rsi_object *object = &client->subscriptions[index]->object;
        found = object->is_told_due ? object : NULL;
    }
    if (found != NULL) {
        found->is_told_due = false;
    }
    return found;
}

static void send_if_due(struct ringside_client *client, struct rsi_object *object)
{
    if (object->state == RSI_OBJECT_CLOSE_DUE && try_close(client, object)) {
        client->send_due_count--;
    }
    if (object->is_resend_due) {
        rsi_status_t status = object->state == RSI_OBJECT_OPENING
                                  ? send_open(client, object, object->request)
                                  : send_close(client, object, object->request);
        object->is_resend_due = status != RSI_OK;
        client->send_due_count -= status == RSI_OK;
    }
}

static void resend_if_asked(struct ringside_client *client, struct rsi_object *object)
{
    if (object->request != 0 && !object->is_resend_due) {
        object->is_resend_due = true;
        client->send_due_count++;
    }
}

static void for_each_object(struct ringside_client *client,
                            void (*act)(struct ringside_client *client, struct rsi_object *object))
{
    for (uint32_t slot = 0; slot < client->publisher_slot_count; slot++) {
        if (client->publishers[slot] != NULL) {
            act(client, &client->publishers[slot]->object);
        }
    }
    for (uint32_t index = 0; index < client->subscription_count; index++) {
        act(client, &client->subscriptions[index]->object);
    }
}

void rsi_client_send_due(struct ringside_client *client)
{
    for_each_object(client, send_if_due);
}

void rsi_client_close_again(struct ringside_client *client, struct rsi_object *object)
{
    rsi_assert(object->state == RSI_OBJECT_CLOSING);
    object->request = 0;
    object->state = RSI_OBJECT_CLOSE_DUE;
    client->send_due_count += !object->is_resend_due;
    object->is_resend_due = false;
}

void rsi_client_close_unasked(struct ringside_client *client, struct rsi_object *object)
{
    client->send_due_count -= object->state == RSI_OBJECT_CLOSE_DUE;
    answer_object(client, object, true);
}

void rsi_client_ask_again(struct ringside_client *client)
{
    client->answered_twice_max = client->last_request;
    client->is_bye_sent = false;
    for_each_object(client, resend_if_asked);
    rsi_client_send_due(client);
}

rsi_status_t rsi_client_send_bye(struct ringside_client *client)
{
    if (client->is_bye_sent) {
        return RSI_OK;
    }
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Bye bye = RINGSIDE__CONTROL__BYE__INIT;
    bye.reason = RINGSIDE__CONTROL__REASON__REASON_GOODBYE;
    bye.end_pos = client->link->placed_pos;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_BYE;
    message.bye = &bye;
    rsi_status_t status = rsi_client_send(client, &message);
    client->is_bye_sent = status == RSI_OK;
    return status;
}
