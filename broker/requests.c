/*
 * What an authenticated client asks for: publishers and subscriptions.
 *
 * Design notes
 * - A request is checked when it comes, becomes an edit for the data agents, and is answered when
 * all of them have applied it. Edits of one client are posted in the order of its requests; answers
 * may come in another order, because nothing may wait for what only the data rings can move.
 * - ClosePublisher is such a thing: it is done when the home agent has admitted what the client
 * sent before, which a blocked subscriber can hold up. So it leaves the table of requests as soon
 * as its edit is posted and waits in the list `closing`; an Unsubscribe that would end the blocking
 * passes.
 * - Drain is another one: after its edit, in the list `draining`, it waits for what was chosen to
 *   leave the logs and the spill, and ends as an Unsubscribe whose answer names a position of the
 *   deliver ring: the client reads up to there.
 * - Requests outlive a link, answers do not. When the link is lost, what is in work goes on, and
 *   whoever is left at its end without having been asked again over the next link is dropped. A
 *   request is known by its number: one in work is answered when it is done, one that is done (its
 *   entry remembers the number) at once. So each asking has one answer, and each request one
 * effect.
 * - The table is bounded. While it is full no message is taken, and the client's control lane
 * fills: its own pace is what it costs others.
 */
#include "broker/connection.h"

#include "broker/control_agent.h"
#include "core/assert.h"
#include "core/log.h"
#include "core/text.h"
#include "proto/subject.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct rsi_request *add_request(struct rsi_connection *connection,
                                       enum rsi_request_kind kind, uint64_t number)
{
    rsi_assert(connection->request_count < RSI_REQUEST_COUNT_MAX);
    struct rsi_request *request = &connection->requests[connection->request_count++];
    memset(request, 0, offsetof(struct rsi_request, text));
    request->text[0] = '\0';
    request->kind = kind;
    request->number = number;
    request->is_asked = true;
    request->state = RSI_REQUEST_POSTING;
    return request;
}

void rsi_requests_refuse(struct rsi_connection *connection, uint64_t number,
                         Ringside__Control__Reason reason, const char *format, ...)
{
    struct rsi_request *request = add_request(connection, RSI_REQUEST_REFUSED, number);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(request->text, sizeof(request->text), format, arguments);
    va_end(arguments);
    request->reason = reason;
    request->state = RSI_REQUEST_ANSWERING;
}

/* Number 0 means the whole connection in an answer, so no request may have it. */
static bool has_number(struct rsi_connection *connection, uint64_t number)
{
    if (number != 0) {
        return true;
    }
    rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL,
                       "a request with number 0");
    return false;
}

/* ---- taking ------------------------------------------------------------------------------------
 */

/* The answer to the request that opened it; by the time it is sent the entry may be gone. */
static void set_opened(struct rsi_request *request, const struct rsi_publication_entry *entry)
{
    request->alias = entry->alias;
    request->publication_id = entry->publication.id;
    request->topic_id = entry->publication.topic;
    request->state = RSI_REQUEST_ANSWERING;
}

static void take_open_publisher(struct rsi_connection *connection,
                                const Ringside__Control__OpenPublisher *open)
{
    struct rsi_control_agent *control = connection->control;
    uint64_t number = open->request;
    uint32_t alias = open->alias;
    struct rsi_publication_entry *entry = NULL;
    HASH_FIND(hh, connection->publications, &alias, sizeof(alias), entry);
    if (entry != NULL && entry->open_request == number) {
        set_opened(add_request(connection, RSI_REQUEST_OPEN_PUBLISHER, number), entry);
        return;
    }
    size_t at = 0;
    const char *fault = rsi_subject_check_literal(open->subject, strlen(open->subject), &at);
    if (fault != NULL) {
        rsi_requests_refuse(connection, number, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                            "subject '%.100s', byte %zu: %s", open->subject, at + 1, fault);
        return;
    }
    if (connection->session->publish_ring_bytes == 0) {
        rsi_requests_refuse(connection, number, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                            "this client connected without a publish ring");
        return;
    }
    if (connection->publication_count >= control->settings->publisher_count_max) {
        rsi_requests_refuse(
            connection, number, RINGSIDE__CONTROL__REASON__REASON_LIMIT,
            "this client has %u publishers already (the broker's publisher_count_max)",
            connection->publication_count);
        return;
    }
    if (alias == 0 || entry != NULL) {
        rsi_requests_refuse(connection, number, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                            "alias %u is %s", alias, entry != NULL ? "in use" : "no alias");
        return;
    }
    /* Clients number from 1 and use free numbers again, so this is a count of theirs. */
    if (alias > control->data_options.alias_count_max) {
        rsi_requests_refuse(
            connection, number, RINGSIDE__CONTROL__REASON__REASON_LIMIT,
            "this client has %u publishers already, those that are being closed included (the "
            "broker's publisher_count_max or publication_count_max)",
            control->data_options.alias_count_max);
        return;
    }
    struct rsi_error error = {0};
    rsi_status_t status = rsi_catalogue_open(&control->catalogue, connection->session, alias,
                                             open->subject, &entry, &error);
    if (rsi_failed(status)) {
        rsi_requests_refuse(connection, number,
                            status == RSI_E_LIMIT ? RINGSIDE__CONTROL__REASON__REASON_LIMIT
                                                  : RINGSIDE__CONTROL__REASON__REASON_INTERNAL,
                            "%.200s", error.text);
        return;
    }
    entry->open_request = number;
    HASH_ADD(hh, connection->publications, alias, sizeof(entry->alias), entry);
    if (!rsi_hash_has(entry)) {
        rsi_catalogue_cancel(&control->catalogue, entry);
        rsi_requests_refuse(connection, number, RINGSIDE__CONTROL__REASON__REASON_INTERNAL,
                            "the broker has no memory for a publication");
        return;
    }
    connection->publication_count++;
    add_request(connection, RSI_REQUEST_OPEN_PUBLISHER, number)->publication = entry;
}

static void take_close_publisher(struct rsi_connection *connection,
                                 const Ringside__Control__ClosePublisher *close)
{
    uint32_t alias = close->alias;
    struct rsi_publication_entry *entry = NULL;
    HASH_FIND(hh, connection->publications, &alias, sizeof(alias), entry);
    /* A number below the one that opened it speaks of an earlier publisher of this alias. */
    if (entry == NULL || entry->close_request != 0 || close->request < entry->open_request) {
        rsi_requests_refuse(connection, close->request, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                            "alias %u is not open", alias);
        return;
    }
    entry->close_request = close->request;
    entry->close_is_asked = true;
    struct rsi_request *request =
        add_request(connection, RSI_REQUEST_CLOSE_PUBLISHER, close->request);
    request->publication = entry;
    request->end_pos = close->end_pos;
}

/* NULL: refused. */
static struct rsi_subscription_entry *
make_subscription(struct rsi_connection *connection, const Ringside__Control__Subscribe *subscribe)
{
    size_t subject_bytes = strlen(subscribe->subject) + 1;
    enum rsi_policy policy = RSI_POLICY_DROP;
    struct rsi_subscription_entry *entry = NULL;
    HASH_FIND(hh, connection->subscriptions, &subscribe->subscription,
              sizeof(subscribe->subscription), entry);
    if (entry != NULL) {
        rsi_requests_refuse(
            connection, subscribe->request, RINGSIDE__CONTROL__REASON__REASON_INVALID,
            "subscription %llu is there already", (unsigned long long)subscribe->subscription);
        return NULL;
    }
    if (!rsi_requests_may_subscribe(connection, subscribe, &policy)) {
        return NULL;
    }
    entry = calloc(1, sizeof(*entry) + subject_bytes);
    if (entry == NULL) {
        rsi_requests_refuse(connection, subscribe->request,
                            RINGSIDE__CONTROL__REASON__REASON_INTERNAL,
                            "the broker has no memory for a subscription");
        return NULL;
    }
    entry->id = subscribe->subscription;
    entry->request = subscribe->request;
    entry->policy = policy;
    entry->no_echo = subscribe->no_echo;
    (void)rsi_text_copy(entry->group, sizeof(entry->group), subscribe->group);
    memcpy(entry->subject, subscribe->subject, subject_bytes);
    entry->is_last = subscribe->last;
    entry->snapshot.subscription = entry->id;
    entry->snapshot.no_echo = entry->no_echo;
    entry->snapshot.pattern_bytes = (uint16_t)(subject_bytes - 1);
    memcpy(entry->snapshot.pattern, subscribe->subject, subject_bytes);
    return entry;
}

static void take_subscribe(struct rsi_connection *connection,
                           const Ringside__Control__Subscribe *subscribe)
{
    const struct rsi_settings *settings = connection->control->settings;
    uint64_t number = subscribe->request;
    struct rsi_subscription_entry *entry = NULL;
    HASH_FIND(hh, connection->subscriptions, &subscribe->subscription,
              sizeof(subscribe->subscription), entry);
    if (entry != NULL && entry->request == number && !entry->is_leaving) {
        struct rsi_request *again = add_request(connection, RSI_REQUEST_SUBSCRIBE, number);
        again->subscription_id = entry->id;
        again->state = RSI_REQUEST_ANSWERING;
        return;
    }
    size_t at = 0;
    const char *fault =
        rsi_subject_check_pattern(subscribe->subject, strlen(subscribe->subject), &at);
    if (fault != NULL) {
        rsi_requests_refuse(connection, number, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                            "subject '%.100s', byte %zu: %s", subscribe->subject, at + 1, fault);
        return;
    }
    if (connection->session->deliver_ring_bytes == 0) {
        rsi_requests_refuse(connection, number, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                            "this client connected without a deliver ring");
        return;
    }
    if (connection->subscription_count >= settings->subscription_count_max) {
        rsi_requests_refuse(
            connection, number, RINGSIDE__CONTROL__REASON__REASON_LIMIT,
            "this client has %u subscriptions already (the broker's subscription_count_max)",
            connection->subscription_count);
        return;
    }
    struct rsi_error error = {0};
    if (rsi_failed(rsi_session_allow_replies(connection->session, &error))) {
        rsi_requests_refuse(connection, number, RINGSIDE__CONTROL__REASON__REASON_INTERNAL,
                            "%.200s", error.text);
        return;
    }
    entry = make_subscription(connection, subscribe);
    if (entry == NULL) {
        return;
    }
    HASH_ADD(hh, connection->subscriptions, id, sizeof(entry->id), entry);
    if (!rsi_hash_has(entry)) {
        free(entry);
        rsi_requests_refuse(connection, number, RINGSIDE__CONTROL__REASON__REASON_INTERNAL,
                            "the broker has no memory for a subscription");
        return;
    }
    connection->subscription_count++;
    rsi_metrics_show_subscription(connection->control->metrics, &entry->shown, connection->session,
                                  entry->id, entry->policy, entry->no_echo, entry->subject);
    connection->control->member_count += entry->group[0] != '\0';
    add_request(connection, RSI_REQUEST_SUBSCRIBE, number)->subscription = entry;
}

static void take_unsubscribe(struct rsi_connection *connection,
                             const Ringside__Control__Unsubscribe *unsubscribe)
{
    struct rsi_subscription_entry *entry = NULL;
    HASH_FIND(hh, connection->subscriptions, &unsubscribe->subscription,
              sizeof(unsubscribe->subscription), entry);
    if (entry == NULL || entry->is_leaving || unsubscribe->request < entry->request) {
        rsi_requests_refuse(
            connection, unsubscribe->request, RINGSIDE__CONTROL__REASON__REASON_INVALID,
            "there is no subscription %llu", (unsigned long long)unsubscribe->subscription);
        return;
    }
    entry->is_leaving = true;
    add_request(connection, RSI_REQUEST_UNSUBSCRIBE, unsubscribe->request)->subscription = entry;
}

static void take_drain(struct rsi_connection *connection, const Ringside__Control__Drain *drain)
{
    struct rsi_subscription_entry *entry = NULL;
    HASH_FIND(hh, connection->subscriptions, &drain->subscription, sizeof(drain->subscription),
              entry);
    if (entry == NULL) { /* it was drained, and its answer was lost with a link */
        add_request(connection, RSI_REQUEST_DRAINED, drain->request)->state = RSI_REQUEST_ANSWERING;
        return;
    }
    if (entry->is_leaving || drain->request < entry->request) {
        rsi_requests_refuse(connection, drain->request, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                            "subscription %llu is ending already",
                            (unsigned long long)drain->subscription);
        return;
    }
    entry->is_leaving = true;
    add_request(connection, RSI_REQUEST_DRAIN, drain->request)->subscription = entry;
}

/* While the broker stops nothing new begins; what ends something is still served. */
static bool refuse_when_stopping(struct rsi_connection *connection, uint64_t number)
{
    if (connection->control->phase == RSI_CONTROL_RUNNING) {
        return false;
    }
    rsi_requests_refuse(connection, number, RINGSIDE__CONTROL__REASON__REASON_STOPPING,
                        "the broker stops");
    return true;
}

/* A request that came over an earlier link and is in work: it is asked again, and answered once. */
static bool is_asked_again(struct rsi_connection *connection, uint64_t number)
{
    for (uint32_t i = 0; i < connection->request_count; i++) {
        if (connection->requests[i].number == number) {
            connection->requests[i].is_asked = true;
            return true;
        }
    }
    return false;
}

/* The same for a close, which leaves the table before it is done. */
static bool is_close_asked_again(struct rsi_connection *connection, uint64_t number)
{
    bool is_in_table = is_asked_again(connection, number);
    struct rsi_publication_entry *entry = NULL;
    struct rsi_publication_entry *next = NULL;
    HASH_ITER(hh, connection->publications, entry, next)
    {
        if (entry->close_request == number) {
            entry->close_is_asked = true;
            return true;
        }
    }
    return is_in_table;
}

/* Likewise for a drain. */
static bool is_drain_asked_again(struct rsi_connection *connection, uint64_t number)
{
    bool is_in_table = is_asked_again(connection, number);
    for (struct rsi_subscription_entry *entry = connection->draining; entry != NULL;
         entry = entry->next_draining) {
        if (entry->drain.request == number) {
            entry->drain.is_asked = true;
            return true;
        }
    }
    return is_in_table;
}

void rsi_requests_take(struct rsi_connection *connection, const Ringside__Control__Control *message)
{
    if (message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_OPEN_PUBLISHER) {
        uint64_t number = message->open_publisher->request;
        if (has_number(connection, number) && !is_asked_again(connection, number) &&
            !refuse_when_stopping(connection, number)) {
            take_open_publisher(connection, message->open_publisher);
        }
    } else if (message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_CLOSE_PUBLISHER) {
        uint64_t number = message->close_publisher->request;
        if (has_number(connection, number) && !is_close_asked_again(connection, number)) {
            take_close_publisher(connection, message->close_publisher);
        }
    } else if (message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBE) {
        uint64_t number = message->subscribe->request;
        if (has_number(connection, number) && !is_asked_again(connection, number) &&
            !refuse_when_stopping(connection, number)) {
            take_subscribe(connection, message->subscribe);
        }
    } else if (message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_UNSUBSCRIBE) {
        uint64_t number = message->unsubscribe->request;
        if (has_number(connection, number) && !is_asked_again(connection, number)) {
            take_unsubscribe(connection, message->unsubscribe);
        }
    } else if (message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_DRAIN) {
        uint64_t number = message->drain->request;
        if (has_number(connection, number) && !is_drain_asked_again(connection, number)) {
            take_drain(connection, message->drain);
        }
    } else {
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(
            &ringside__control__control__descriptor, (unsigned)message->body_case);
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL,
                           "a session does not take %s",
                           field != NULL ? field->name : "an unknown message");
    }
}

/* ---- posting -----------------------------------------------------------------------------------
 */

static bool post_request(struct rsi_connection *connection, struct rsi_request *request)
{
    struct rsi_edit edit = {.session = connection->session};
    switch (request->kind) {
    case RSI_REQUEST_OPEN_PUBLISHER:
        edit.kind = RSI_EDIT_PUBLICATION_OPEN;
        edit.publication = &request->publication->publication;
        break;
    case RSI_REQUEST_CLOSE_PUBLISHER:
        edit.kind = RSI_EDIT_PUBLICATION_CLOSE;
        edit.publication = &request->publication->publication;
        edit.position = request->end_pos;
        break;
    case RSI_REQUEST_SUBSCRIBE:
        edit.kind = RSI_EDIT_SUBSCRIBE;
        edit.subscription = request->subscription->id;
        edit.policy = request->subscription->policy;
        edit.no_echo = request->subscription->no_echo;
        memcpy(edit.group, request->subscription->group, sizeof(edit.group));
        edit.snapshot = request->subscription->is_last ? &request->subscription->snapshot : NULL;
        memcpy(edit.subject, request->subscription->subject,
               strlen(request->subscription->subject) + 1);
        break;
    case RSI_REQUEST_UNSUBSCRIBE:
        edit.kind = RSI_EDIT_UNSUBSCRIBE;
        edit.subscription = request->subscription->id;
        break;
    case RSI_REQUEST_DRAIN:
        edit.kind = RSI_EDIT_DRAIN;
        edit.subscription = request->subscription->id;
        break;
    case RSI_REQUEST_DRAINED:
    case RSI_REQUEST_REFUSED:
        return true;
    }
    if (rsi_data_plane_post(connection->control->plane, &edit, &request->ticket) != RSI_OK) {
        return false;
    }
    if (request->kind == RSI_REQUEST_OPEN_PUBLISHER) {
        request->publication->state = RSI_PUBLICATION_OPEN;
    }
    if (request->kind == RSI_REQUEST_CLOSE_PUBLISHER) {
        request->publication->state = RSI_PUBLICATION_CLOSING;
        request->publication->next_closing = connection->closing;
        connection->closing = request->publication;
    }
    request->state = RSI_REQUEST_APPLYING;
    return true;
}

static uint32_t post_requests(struct rsi_connection *connection)
{
    uint32_t step_count = 0;
    for (uint32_t i = 0; i < connection->request_count; i++) {
        struct rsi_request *request = &connection->requests[i];
        if (request->state != RSI_REQUEST_POSTING) {
            continue;
        }
        if (!post_request(connection, request)) {
            break; /* the list is full; those behind it wait too, to keep their order */
        }
        step_count++;
    }
    return step_count;
}

/* ---- answering ---------------------------------------------------------------------------------
 */

/* The strictest that any subscription of the session asks for. */
static Ringside__Control__Policy session_policy(const struct rsi_connection *connection)
{
    if (connection->policy_counts[RSI_POLICY_BLOCK] > 0) {
        return RINGSIDE__CONTROL__POLICY__POLICY_BLOCK;
    }
    if (connection->policy_counts[RSI_POLICY_DISCONNECT] > 0) {
        return RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT;
    }
    if (connection->policy_counts[RSI_POLICY_CONFLATE] > 0) {
        return RINGSIDE__CONTROL__POLICY__POLICY_CONFLATE;
    }
    return RINGSIDE__CONTROL__POLICY__POLICY_DROP;
}

static rsi_status_t send_done(struct rsi_connection *connection, uint64_t number)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Done done = RINGSIDE__CONTROL__DONE__INIT;
    done.request = number;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_DONE;
    message.done = &done;
    return rsi_control_send(connection->link, &message);
}

/* No frame for a drained subscription lies beyond the position: it only grows. */
static rsi_status_t send_drained(struct rsi_connection *connection, uint64_t number)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Drained drained = RINGSIDE__CONTROL__DRAINED__INIT;
    drained.request = number;
    drained.end_pos = rsi_load_relaxed(&connection->session->unsubscribed_pos);
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_DRAINED;
    message.drained = &drained;
    return rsi_control_send(connection->link, &message);
}

static rsi_status_t send_answer(struct rsi_connection *connection,
                                const struct rsi_request *request)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__PublisherOpened opened = RINGSIDE__CONTROL__PUBLISHER_OPENED__INIT;
    Ringside__Control__Subscribed subscribed = RINGSIDE__CONTROL__SUBSCRIBED__INIT;
    Ringside__Control__Refused refused = RINGSIDE__CONTROL__REFUSED__INIT;
    switch (request->kind) {
    case RSI_REQUEST_OPEN_PUBLISHER:
        opened.request = request->number;
        opened.alias = request->alias;
        opened.publication = request->publication_id;
        opened.topic = request->topic_id;
        message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_PUBLISHER_OPENED;
        message.publisher_opened = &opened;
        break;
    case RSI_REQUEST_SUBSCRIBE:
        subscribed.request = request->number;
        subscribed.subscription = request->subscription_id;
        subscribed.policy = session_policy(connection);
        message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBED;
        message.subscribed = &subscribed;
        break;
    case RSI_REQUEST_REFUSED:
        refused.request = request->number;
        refused.reason = request->reason;
        refused.text = (char *)request->text;
        message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_REFUSED;
        message.refused = &refused;
        break;
    case RSI_REQUEST_DRAINED:
        return send_drained(connection, request->number);
    case RSI_REQUEST_DRAIN: /* answered out of the list `draining` */
    case RSI_REQUEST_UNSUBSCRIBE:
    case RSI_REQUEST_CLOSE_PUBLISHER:
        return send_done(connection, request->number);
    }
    return rsi_control_send(connection->link, &message);
}

static void forget_subscription(struct rsi_connection *connection,
                                struct rsi_subscription_entry *entry)
{
    connection->policy_counts[entry->policy]--;
    connection->control->member_count -= entry->group[0] != '\0';
    HASH_DEL(connection->subscriptions, entry);
    rsi_metrics_hide_subscription(connection->control->metrics, &entry->shown);
    free(entry);
    connection->subscription_count--;
}

/* No agent chooses it any more; what was chosen lies below the ends of the logs. */
static void begin_draining(struct rsi_connection *connection, const struct rsi_request *request)
{
    struct rsi_subscription_entry *entry = request->subscription;
    entry->drain.step = RSI_DRAIN_PASSING;
    entry->drain.request = request->number;
    entry->drain.is_asked = request->is_asked;
    rsi_data_plane_ends(connection->control->plane, entry->drain.ends);
    entry->next_draining = connection->draining;
    connection->draining = entry;
}

/* Every agent has applied it: the request lets go of what it is about. */
static void apply_request(struct rsi_connection *connection, struct rsi_request *request)
{
    if (request->kind == RSI_REQUEST_OPEN_PUBLISHER) {
        set_opened(request, request->publication);
        request->publication->is_known = true;
    } else if (request->kind == RSI_REQUEST_SUBSCRIBE) {
        request->subscription_id = request->subscription->id;
        connection->policy_counts[request->subscription->policy]++;
    } else if (request->kind == RSI_REQUEST_DRAIN) {
        begin_draining(connection, request);
        request->is_asked = false; /* the list owes the answer from here on */
    } else {
        rsi_assert(request->kind == RSI_REQUEST_UNSUBSCRIBE);
        forget_subscription(connection, request->subscription);
    }
    request->publication = NULL;
    request->subscription = NULL;
    request->state = RSI_REQUEST_ANSWERING;
}

/*
 * Takes applied requests one after the other. Agents go on applying meanwhile: stopping at the
 * first that is not applied keeps an Unsubscribe from overtaking the Subscribe whose entry it
 * frees.
 */
static void apply_requests(struct rsi_connection *connection)
{
    for (uint32_t i = 0; i < connection->request_count; i++) {
        struct rsi_request *request = &connection->requests[i];
        if (request->state != RSI_REQUEST_APPLYING ||
            request->kind == RSI_REQUEST_CLOSE_PUBLISHER) {
            continue;
        }
        if (!rsi_data_plane_is_applied(connection->control->plane, request->ticket)) {
            return;
        }
        apply_request(connection, request);
    }
}

static bool is_finished(struct rsi_connection *connection, const struct rsi_request *request)
{
    if (request->state == RSI_REQUEST_ANSWERING) {
        return !request->is_asked || send_answer(connection, request) != RSI_WOULD_BLOCK;
    }
    /* A close goes on in the list `closing`. */
    return request->state == RSI_REQUEST_APPLYING && request->kind == RSI_REQUEST_CLOSE_PUBLISHER;
}

/* Returns how many places became free. */
static uint32_t answer_requests(struct rsi_connection *connection)
{
    uint32_t kept_count = 0;
    uint32_t request_count = connection->request_count;
    for (uint32_t i = 0; i < request_count; i++) {
        const struct rsi_request *request = &connection->requests[i];
        if (is_finished(connection, request)) {
            continue;
        }
        if (kept_count != i) {
            connection->requests[kept_count] = *request;
        }
        kept_count++;
    }
    connection->request_count = kept_count;
    return request_count - kept_count;
}

static void forget_publication(struct rsi_connection *connection,
                               struct rsi_publication_entry *entry)
{
    HASH_DEL(connection->publications, entry);
    connection->publication_count--;
}

static uint32_t answer_closing(struct rsi_connection *connection)
{
    struct rsi_control_agent *control = connection->control;
    uint32_t step_count = 0;
    for (struct rsi_publication_entry **at = &connection->closing; *at != NULL;) {
        struct rsi_publication_entry *entry = *at;
        bool is_closed =
            entry->is_known && rsi_publication_is_closed(control->plane, &entry->publication);
        if (!is_closed || (entry->close_is_asked &&
                           send_done(connection, entry->close_request) == RSI_WOULD_BLOCK)) {
            at = &entry->next_closing;
            continue;
        }
        *at = entry->next_closing;
        forget_publication(connection, entry);
        rsi_catalogue_take_closed(&control->catalogue, entry);
        step_count++;
    }
    return step_count;
}

/* One step of a drain. False: it waits. */
static bool drain_step(struct rsi_connection *connection, struct rsi_subscription_entry *entry)
{
    struct rsi_data_plane *plane = connection->control->plane;
    const struct rsi_session *session = connection->session;
    struct rsi_drain *drain = &entry->drain;
    const struct rsi_edit edit = {
        .kind = RSI_EDIT_UNSUBSCRIBE, .session = connection->session, .subscription = entry->id};
    bool is_done = false;
    switch (drain->step) {
    case RSI_DRAIN_NONE:
        return false;
    case RSI_DRAIN_PASSING:
        is_done = rsi_data_plane_has_passed(plane, session, drain->ends);
        drain->spill_pos = rsi_load_relaxed(&session->spill_tail_pos);
        break;
    case RSI_DRAIN_SPILLED:
        is_done = rsi_load_acquire(&session->spill_head_pos) >= drain->spill_pos;
        break;
    case RSI_DRAIN_POSTING:
        is_done = rsi_data_plane_post(plane, &edit, &drain->ticket) == RSI_OK;
        break;
    case RSI_DRAIN_ENDING:
        is_done = rsi_data_plane_is_applied(plane, drain->ticket);
        break;
    case RSI_DRAIN_ANSWERING:
        return !drain->is_asked || send_drained(connection, drain->request) != RSI_WOULD_BLOCK;
    }
    drain->step += is_done;
    return is_done;
}

static uint32_t drain_subscriptions(struct rsi_connection *connection)
{
    uint32_t step_count = 0;
    for (struct rsi_subscription_entry **at = &connection->draining; *at != NULL;) {
        struct rsi_subscription_entry *entry = *at;
        bool is_answering = entry->drain.step == RSI_DRAIN_ANSWERING;
        if (!drain_step(connection, entry)) {
            at = &entry->next_draining;
            continue;
        }
        step_count++;
        if (is_answering) {
            *at = entry->next_draining;
            forget_subscription(connection, entry);
        }
    }
    return step_count;
}

uint32_t rsi_requests_poll(struct rsi_connection *connection)
{
    uint32_t step_count = post_requests(connection);
    if (connection->request_count > 0) {
        apply_requests(connection);
        step_count += answer_requests(connection);
    }
    if (connection->closing != NULL) {
        step_count += answer_closing(connection);
    }
    if (connection->draining != NULL) {
        step_count += drain_subscriptions(connection);
    }
    return step_count;
}

void rsi_requests_suspend(struct rsi_connection *connection)
{
    for (uint32_t i = 0; i < connection->request_count; i++) {
        connection->requests[i].is_asked = false;
    }
    for (struct rsi_subscription_entry *entry = connection->draining; entry != NULL;
         entry = entry->next_draining) {
        entry->drain.is_asked = false;
    }
    struct rsi_publication_entry *entry;
    struct rsi_publication_entry *next;
    HASH_ITER(hh, connection->publications, entry, next)
    {
        entry->close_is_asked = false;
    }
}

static void free_subscriptions(struct rsi_connection *connection)
{
    struct rsi_subscription_entry *entry = NULL;
    struct rsi_subscription_entry *next = NULL;
    HASH_ITER(hh, connection->subscriptions, entry, next)
    {
        connection->control->member_count -= entry->group[0] != '\0';
        HASH_DEL(connection->subscriptions, entry);
        rsi_metrics_hide_subscription(connection->control->metrics, &entry->shown);
        free(entry);
    }
    connection->draining = NULL;
    connection->subscription_count = 0;
    connection->request_count = 0;
}

void rsi_requests_release(struct rsi_connection *connection)
{
    struct rsi_control_agent *control = connection->control;
    struct rsi_publication_entry *entry = NULL;
    struct rsi_publication_entry *next = NULL;
    HASH_ITER(hh, connection->publications, entry, next)
    {
        forget_publication(connection, entry);
        if (entry->state == RSI_PUBLICATION_NEW) {
            rsi_catalogue_cancel(&control->catalogue, entry);
        } else {
            rsi_catalogue_take_closed(&control->catalogue, entry);
        }
    }
    connection->closing = NULL;
    free_subscriptions(connection);
}

void rsi_requests_abandon(struct rsi_connection *connection)
{
    HASH_CLEAR(hh, connection->publications);
    connection->publication_count = 0;
    connection->closing = NULL;
    free_subscriptions(connection);
}
