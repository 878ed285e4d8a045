/*
 * Subscriptions and what comes to them; and what is missing. Design notes: see oracle.h.
 */
#include "proto/subject.h"
#include "tests/simulation/oracle_internal.h"

/* ---- subscriptions ----------------------------------------------------------------------------
 */

bool oracle_matches(const struct oracle_subscription *subscription,
                    const struct oracle_publication *publication)
{
    if (subscription->has_ended) {
        return false;
    }
    if (subscription->no_echo && publication->session == subscription->session) {
        return false;
    }
    return rsi_subject_matches(subscription->pattern, strlen(subscription->pattern),
                               publication->subject, strlen(publication->subject));
}

/* Whether what is published there now is owed. */
bool oracle_wants(const struct oracle_subscription *subscription,
                  const struct oracle_publication *publication)
{
    return publication->broker == subscription->session->broker &&
           oracle_matches(subscription, publication);
}

static struct era *find_era(const struct oracle_subscription *subscription, uint32_t broker)
{
    uint32_t at = subscription->era_count;
    while (at > 0 && subscription->eras[at - 1].broker != broker) {
        at--;
    }
    rsi_assert(at > 0);
    return &subscription->eras[at - 1];
}

struct stream *oracle_find_stream(struct oracle_subscription *subscription, uint32_t broker,
                                  uint32_t publication)
{
    struct era *era = find_era(subscription, broker);
    if (publication >= era->stream_count) {
        uint32_t count = publication + 64;
        struct stream *streams = realloc(era->streams, count * sizeof(*streams));
        rsi_assert(streams != NULL);
        for (uint32_t i = era->stream_count; i < count; i++) {
            streams[i] = STREAM_OF_NEW;
        }
        era->streams = streams;
        era->stream_count = count;
    }
    return &era->streams[publication];
}

void oracle_begin_era(struct oracle_subscription *subscription, uint32_t broker)
{
    struct era *eras =
        realloc(subscription->eras, (subscription->era_count + 1) * sizeof(*subscription->eras));
    rsi_assert(eras != NULL);
    eras[subscription->era_count++] = (struct era){.broker = broker};
    subscription->eras = eras;
    for (uint32_t i = 0; i < oracle.publication_count; i++) {
        uint64_t owed_from = oracle_last_number(&oracle.publications[i]) + 1;
        *oracle_find_stream(subscription, broker, i) = (struct stream){.owed_from = owed_from};
    }
}

struct oracle_subscription *oracle_subscribed(struct oracle_session *session, const char *pattern,
                                              bool no_echo)
{
    rsi_assert(oracle.subscription_count < SUBSCRIPTION_COUNT_MAX);
    struct oracle_subscription *subscription = &oracle.subscriptions[oracle.subscription_count++];
    *subscription = (struct oracle_subscription){
        .session = session,
        .number = oracle.subscription_count,
        .no_echo = no_echo,
    };
    snprintf(subscription->pattern, sizeof(subscription->pattern), "%s", pattern);
    /* What a dead broker left is not owed to it, but it may be handed some of that. */
    for (uint32_t broker = session->hears; broker <= session->broker; broker++) {
        oracle_begin_era(subscription, broker);
    }
    for (uint32_t i = 0; i < oracle.publication_count; i++) {
        struct stream *stream = oracle_find_stream(subscription, session->broker, i);
        *stream = stream->owed_from == 1 ? STREAM_OF_NEW : *stream;
    }
    return subscription;
}

void oracle_unsubscribing(struct oracle_subscription *subscription)
{
    subscription->session->has_unsubscribed = true;
    subscription->has_ended = true;
}

static const struct identity *find_identity(uint32_t broker, uint64_t id)
{
    for (uint32_t i = oracle.identity_count; i-- > 0;) {
        if (oracle.identities[i].id == id && oracle.identities[i].broker == broker) {
            return &oracle.identities[i];
        }
    }
    return NULL;
}

static void check_content(const struct oracle_subscription *subscription,
                          const struct oracle_publication *publication, uint64_t number,
                          const ringside_message_t *message)
{
    uint8_t expected[UINT16_MAX];
    const char *name = subscription->session->name;
    if (message->sequence == 0 || number > oracle_last_number(publication)) {
        world_violation(
            "%s got message %" PRIu64 " of %s's %s, of which %" PRIu64 " were published", name,
            number, publication->session->name, publication->subject, publication->published_count);
    }
    uint32_t bytes = publication->sizes[number];
    oracle_fill_bytes(publication->key, number, expected, bytes);
    if (message->bytes != bytes || memcmp(message->data, expected, bytes) != 0) {
        world_violation("%s got message %" PRIu64 " of %s's %s with other bytes (%zu, not %u)",
                        name, number, publication->session->name, publication->subject,
                        message->bytes, bytes);
    }
    if (strcmp(message->subject, publication->subject) != 0 ||
        strcmp(message->publisher, publication->session->name) != 0) {
        world_violation("%s got a message of %s's %s as one of %s's %s", name,
                        publication->session->name, publication->subject, message->publisher,
                        message->subject);
    }
}

/* Callbacks of one frame come in the order of subscribing. */
static void check_callback_order(struct oracle_subscription *subscription,
                                 const struct oracle_publication *publication, uint64_t number)
{
    struct oracle_session *session = subscription->session;
    bool is_same = session->frame_publication == publication && session->frame_number == number;
    if (is_same && subscription->number <= session->frame_subscription) {
        world_violation("%s was called in the wrong order of its subscriptions", session->name);
    }
    session->frames += !is_same && session->hears == session->broker;
    session->frame_publication = publication;
    session->frame_number = number;
    session->frame_subscription = subscription->number;
}

void oracle_message(struct oracle_subscription *subscription, const ringside_message_t *message)
{
    const char *name = subscription->session->name;
    const struct identity *identity =
        find_identity(subscription->session->hears, message->publication);
    if (identity == NULL ||
        !oracle_matches(subscription, &oracle.publications[identity->publication])) {
        world_violation("%s got a message of %s's %s, which its subscription on %s does not want",
                        name, message->publisher, message->subject, subscription->pattern);
    }
    const struct oracle_publication *publication = &oracle.publications[identity->publication];
    uint64_t number = identity->base + message->sequence;
    check_content(subscription, publication, number, message);
    check_callback_order(subscription, publication, number);
    struct stream *stream =
        oracle_find_stream(subscription, subscription->session->hears, identity->publication);
    if (number < stream->next || (stream->has_begun && number > stream->next)) {
        world_violation(
            "%s on %s: message %" PRIu64 " of %s's %s came where %" PRIu64 " was due, %s", name,
            subscription->pattern, number, publication->session->name, publication->subject,
            stream->next, number < stream->next ? "again or late" : "without a gap");
    }
    if (!stream->has_begun && number > stream->owed_from &&
        number - stream->owed_from > stream->gap_ahead) {
        world_violation("%s on %s: the first message of %s's %s is %" PRIu64 " after a gap of "
                        "%" PRIu64 ", but %" PRIu64 " was owed",
                        name, subscription->pattern, publication->session->name,
                        publication->subject, number, stream->gap_ahead, stream->owed_from);
    }
    if (stream->gap_ahead >= number) {
        world_violation("%s on %s: a gap of %" PRIu64 " before message %" PRIu64, name,
                        subscription->pattern, stream->gap_ahead, number);
    }
    stream->has_begun = number + 1 >= stream->owed_from;
    stream->next = number + 1;
    stream->gap_ahead = 0;
    oracle.totals.delivered_messages++;
}

static void take_gap(struct oracle_session *session, const ringside_event_t *event)
{
    if (event->count == UINT64_MAX) {
        if (!session->was_renewed) {
            world_violation("%s is told of an unknown loss, but its broker never died",
                            session->name);
        }
        return;
    }
    const struct identity *identity = find_identity(session->hears, event->publication);
    if (identity == NULL || event->count == 0) {
        world_violation("%s was told of a gap of %" PRIu64 " in an unknown publication",
                        session->name, event->count);
    }
    if (!oracle_policy_may_be(session, RINGSIDE_POLICY_DROP)) {
        world_violation("%s was told of a gap of %" PRIu64 " although it never asked for drop",
                        session->name, event->count);
    }
    const struct oracle_publication *publication = &oracle.publications[identity->publication];
    oracle.totals.gap_messages += event->count;
    session->gaps += session->hears == session->broker ? event->count : 0;
    bool is_wanted = false;
    for (uint32_t i = 0; i < oracle.subscription_count; i++) {
        struct oracle_subscription *subscription = &oracle.subscriptions[i];
        if (subscription->session != session || !oracle_matches(subscription, publication)) {
            continue;
        }
        is_wanted = true;
        struct stream *stream =
            oracle_find_stream(subscription, session->hears, identity->publication);
        if (stream->has_begun) {
            stream->next += event->count;
        } else {
            stream->gap_ahead += event->count;
        }
        if (stream->next + stream->gap_ahead > oracle_last_number(publication) + 1) {
            world_violation("%s was told of a gap of %" PRIu64 " in %s's %s, which ends after "
                            "message %" PRIu64 ", the last published",
                            session->name, event->count, publication->session->name,
                            publication->subject, publication->published_count);
        }
    }
    if (!is_wanted) {
        world_violation("%s was told of a gap in %s's %s, which it did not subscribe to",
                        session->name, publication->session->name, publication->subject);
    }
}

/* All but the last `untaken` messages of the session were taken by the broker. */
static void take_goodbye(struct oracle_session *session, uint64_t untaken)
{
    if (untaken > session->order_count) {
        world_violation("%s is told that %" PRIu64
                        " messages were not taken, but published %" PRIu64,
                        session->name, untaken, session->order_count);
    }
    uint64_t taken[PUBLICATION_COUNT_MAX] = {0};
    for (uint64_t i = 0; i < session->order_count - untaken; i++) {
        taken[session->order[i]]++;
    }
    for (uint32_t i = 0; i < oracle.publication_count; i++) {
        struct oracle_publication *publication = &oracle.publications[i];
        if (publication->session != session) {
            continue;
        }
        uint64_t certain = oracle_certain_number(publication);
        if (taken[i] < certain) {
            world_violation("%s is told that its broker took %" PRIu64
                            " of its messages on %s, but %" PRIu64
                            " had arrived for certain when it began to end the session",
                            session->name, taken[i], publication->subject, certain);
        }
        publication->due_count = taken[i];
        publication->arrived_count = taken[i];
    }
}

void oracle_event(struct oracle_session *session, const ringside_event_t *event)
{
    switch (event->type) {
    case RINGSIDE_EVENT_GAP:
        take_gap(session, event);
        break;
    case RINGSIDE_EVENT_SLOW:
        session->has_seen_slow = true;
        break;
    case RINGSIDE_EVENT_SUSPENDED:
        oracle.totals.suspensions++;
        break;
    case RINGSIDE_EVENT_RESUMED:
        oracle.totals.resumptions++;
        break;
    case RINGSIDE_EVENT_RENEWED:
        oracle.totals.renewals++;
        oracle_renewal_told(session);
        break;
    case RINGSIDE_EVENT_SUBSCRIBED:
    case RINGSIDE_EVENT_OPENED:
    case RINGSIDE_EVENT_CONNECTED:
    case RINGSIDE_EVENT_CURRENT:
    case RINGSIDE_EVENT_CONFLATED:
    case RINGSIDE_EVENT_LOST:
    case RINGSIDE_EVENT_DRAINED:
        break;
    case RINGSIDE_EVENT_CLOSED:
        if (event->count != UINT64_MAX) {
            take_goodbye(session, event->count);
        }
        session->was_told_goodbye = event->status == RINGSIDE_E_CLOSED;
        break;
    }
}

/* ---- balance ----------------------------------------------------------------------------------
 */

/* Numbers that the subscription still has to see or to be told of, of those that arrived. */
static uint64_t missing_count(const struct oracle_subscription *subscription, uint32_t index)
{
    const struct oracle_publication *publication = &oracle.publications[index];
    const struct era *era = find_era(subscription, subscription->session->broker);
    struct stream stream = STREAM_OF_NEW;
    if (index < era->stream_count) {
        stream = era->streams[index];
    }
    uint64_t last = oracle_certain_number(publication);
    uint64_t first = stream.has_begun ? stream.next : stream.owed_from + stream.gap_ahead;
    return first <= last ? last - first + 1 : 0;
}

static bool is_satisfied(const struct oracle_session *session, bool is_for_certain, char *text,
                         uint32_t text_bytes)
{
    for (uint32_t i = 0; i < oracle.subscription_count; i++) {
        const struct oracle_subscription *subscription = &oracle.subscriptions[i];
        if (subscription->session != session || subscription->has_ended) {
            continue;
        }
        for (uint32_t at = 0; at < oracle.publication_count; at++) {
            const struct oracle_publication *publication = &oracle.publications[at];
            if (missing_count(subscription, at) == 0 || !oracle_wants(subscription, publication) ||
                (is_for_certain && publication->session->is_held_back)) {
                continue;
            }
            snprintf(text, text_bytes,
                     "%s's subscription on %s misses %" PRIu64 " messages up to %" PRIu64
                     " of %s's %s",
                     session->name, subscription->pattern, missing_count(subscription, at),
                     publication->arrived_count, publication->session->name, publication->subject);
            return false;
        }
    }
    return true;
}

void oracle_check_goodbyes(void)
{
    char text[512];
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        const struct oracle_session *session = &oracle.sessions[i];
        if (session->was_told_goodbye && session->excuses == ORACLE_BROKER &&
            oracle.has_delivered_all[session->broker] &&
            !oracle_is_satisfied(session, text, sizeof(text))) {
            world_violation("the broker stopped and says that it delivered everything, but %s",
                            text);
        }
    }
}

bool oracle_is_satisfied(const struct oracle_session *session, char *text, uint32_t text_bytes)
{
    return is_satisfied(session, false, text, text_bytes);
}

void oracle_check_quiet(void)
{
    char text[512];
    oracle_note_held_back();
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        const struct oracle_session *session = &oracle.sessions[i];
        if (!session->is_listening || session->is_over || (session->excuses & ORACLE_BROKER) != 0 ||
            world_process_was_killed(session->process)) {
            continue;
        }
        if (session->client->phase != RSI_CLIENT_OPEN || session->is_being_ended) {
            continue; /* it was told goodbye, or will be when what it published was taken */
        }
        oracle.totals.quiet_checks++;
        if (!is_satisfied(session, true, text, sizeof(text))) {
            world_violation("nothing moves, but %s", text);
        }
    }
}

void oracle_check_admitted(uint64_t admitted)
{
    uint64_t published = 0;
    uint64_t arrived = 0;
    for (uint32_t i = 0; i < oracle.publication_count; i++) {
        if (oracle.publications[i].broker == oracle.broker) {
            const struct oracle_publication *publication = &oracle.publications[i];
            published += oracle_last_number(publication) - publication->base;
            uint64_t certain = oracle_certain_number(publication);
            arrived += certain > publication->base ? certain - publication->base : 0;
        }
    }
    if (admitted < arrived || admitted > published ||
        (!oracle.was_disturbed && admitted != arrived)) {
        world_violation("the broker counts %" PRIu64 " messages admitted; %" PRIu64
                        " were published and %" PRIu64 " arrived for certain",
                        admitted, published, arrived);
    }
}
