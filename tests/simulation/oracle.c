/* Design notes: see oracle.h. */
#include "tests/simulation/oracle.h"

#include "clients/c/client.h"
#include "core/assert.h"
#include "proto/subject.h"
#include "tests/simulation/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSION_COUNT_MAX      2048u
#define PUBLICATION_COUNT_MAX  8192u
#define SUBSCRIPTION_COUNT_MAX 8192u
#define BROKER_COUNT_MAX       256u

struct oracle_session {
    const ringside_client_t *client; /* while it is not over */
    uint32_t process;
    uint64_t id;
    char name[32];
    uint32_t policy_mask; /* bit per RINGSIDE_POLICY_... */
    uint32_t excuses;
    uint32_t broker; /* which broker it is with, counted */
    bool is_over;
    bool is_listening;
    bool has_seen_slow;
    bool was_told_goodbye; /* by a broker that stops */
    bool has_unsubscribed;
    bool has_settled; /* nothing is published any more, and it has everything */
    uint64_t frames;  /* that it got */
    uint64_t gaps;    /* messages that it was told were left out */
    uint16_t *order;  /* publication of each message, in the order of publishing */
    uint64_t order_count, order_slots;
    /* The frame of the last callback: one frame may go to several subscriptions. */
    const struct oracle_publication *frame_publication;
    uint64_t frame_number;
    uint32_t frame_subscription;
};

struct oracle_publication {
    struct oracle_session *session;
    uint32_t broker;
    uint32_t id; /* the broker's */
    uint64_t key;
    char subject[64];
    uint64_t published_count;
    uint64_t arrived_count; /* for certain */
    bool is_publishing;     /* one more may be on its way */
    uint16_t *sizes;        /* by number */
    uint64_t size_slots;
};

/*
 * What a subscription has of one publication. Before it has begun, messages may come that were
 * published earlier and that another subscription of the session was owed; which of those come is
 * not promised, but their order is.
 */
struct stream {
    uint64_t owed_from; /* first number that must come */
    bool has_begun;     /* it came, or one after it */
    uint64_t next;      /* no lower one may come; once begun it is the one that must */
    uint64_t gap_ahead; /* not begun: messages left out after the last that came */
};

/* Of a publication that came after the subscription. */
#define STREAM_OF_NEW ((struct stream){.owed_from = 1, .has_begun = true, .next = 1})

struct oracle_subscription {
    struct oracle_session *session;
    uint32_t number;
    char pattern[64];
    bool no_echo;
    bool has_ended;
    struct stream *streams; /* by publication */
    uint32_t stream_count;
};

static struct {
    struct oracle_session sessions[SESSION_COUNT_MAX];
    uint32_t session_count;
    struct oracle_publication publications[PUBLICATION_COUNT_MAX];
    uint32_t publication_count;
    struct oracle_subscription subscriptions[SUBSCRIPTION_COUNT_MAX];
    uint32_t subscription_count;
    uint32_t broker;
    bool has_delivered_all[BROKER_COUNT_MAX];
    bool was_disturbed; /* somebody was killed or cut: not all that was published was admitted */
    struct {
        uint64_t session;
        uint32_t alias;
        uint32_t id;
        uint32_t broker;
    } heard[PUBLICATION_COUNT_MAX];
    uint32_t heard_count;
    struct oracle_totals totals;
} oracle;

const struct oracle_totals *oracle_totals(void)
{
    return &oracle.totals;
}

/* ---- sessions ---------------------------------------------------------------------------------
 */

struct oracle_session *oracle_session_opened(const ringside_client_t *client, const char *name,
                                             uint32_t policy_mask)
{
    rsi_assert(oracle.session_count < SESSION_COUNT_MAX);
    struct oracle_session *session = &oracle.sessions[oracle.session_count++];
    *session = (struct oracle_session){
        .client = client,
        .process = world_process(),
        .id = client->session.id,
        .policy_mask = policy_mask,
        .broker = oracle.broker,
    };
    snprintf(session->name, sizeof(session->name), "%s", name);
    oracle.totals.sessions++;
    return session;
}

void oracle_excuse(struct oracle_session *session, uint32_t excuses)
{
    session->excuses |= excuses;
    oracle.was_disturbed = true;
}

void oracle_excuse_process(uint32_t process, uint32_t excuses)
{
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        if (oracle.sessions[i].process == process && !oracle.sessions[i].is_over) {
            oracle_excuse(&oracle.sessions[i], excuses);
        }
    }
}

void oracle_excuse_all(uint32_t excuses)
{
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        if (!oracle.sessions[i].is_over) {
            oracle_excuse(&oracle.sessions[i], excuses);
        }
    }
}

void oracle_process_killed(uint32_t process)
{
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        if (oracle.sessions[i].process == process) {
            oracle.sessions[i].is_over = true;
            oracle.sessions[i].is_listening = false;
        }
    }
    oracle.was_disturbed = true;
}

void oracle_broker_started(void)
{
    rsi_assert(oracle.broker + 1 < BROKER_COUNT_MAX);
    oracle.broker++;
    oracle.was_disturbed = false;
}

uint32_t oracle_broker_number(void)
{
    return oracle.broker;
}

void oracle_broker_delivered_all(void)
{
    oracle.has_delivered_all[oracle.broker] = true;
}

static bool policy_may_be(const struct oracle_session *session, ringside_policy_t policy)
{
    return (session->policy_mask & 1u << policy) != 0;
}

/* Nothing more is known of what the broker took of the session's messages. */
static void forget_arrivals(const struct oracle_session *session)
{
    for (uint32_t i = 0; i < oracle.publication_count; i++) {
        if (oracle.publications[i].session == session) {
            oracle.publications[i].arrived_count = 0;
        }
    }
    oracle.was_disturbed = true;
}

void oracle_session_over(struct oracle_session *session, ringside_status_t status, const char *call,
                         const char *text)
{
    if (session->is_over) {
        return;
    }
    session->is_over = true;
    session->is_listening = false;
    oracle.was_disturbed = true;
    oracle.totals.sessions_ended++;
    world_trace("%s is over: %s says %s: %s", session->name, call, ringside_status_name(status),
                text);
    bool is_slow = session->has_seen_slow && (policy_may_be(session, RINGSIDE_POLICY_DISCONNECT) ||
                                              policy_may_be(session, RINGSIDE_POLICY_BLOCK));
    if (session->excuses == 0 && !is_slow) {
        world_violation("%s's session ended without a reason: %s says %s: %s", session->name, call,
                        ringside_status_name(status), text);
    }
}

bool oracle_session_is_over(const struct oracle_session *session)
{
    return session->is_over;
}

void oracle_session_closed(struct oracle_session *session, ringside_status_t status)
{
    bool may_be = session->is_over || session->excuses != 0 ||
                  policy_may_be(session, RINGSIDE_POLICY_DISCONNECT);
    if (status == RINGSIDE_OK) {
        oracle_flushed(session);
    } else if (!may_be) {
        world_violation("%s's close says %s: %s", session->name, ringside_status_name(status),
                        ringside_last_error());
    } else if (!session->is_over) {
        /* A broker that ended the session meanwhile took only a part; the text says how much. */
        forget_arrivals(session);
    }
    session->is_over = true;
    session->is_listening = false;
}

void oracle_session_settled(struct oracle_session *session)
{
    session->has_settled = true;
}

void oracle_session_listens(struct oracle_session *session, bool is_listening)
{
    session->is_listening = is_listening;
}

/* ---- publications -----------------------------------------------------------------------------
 */

void oracle_hear_of_publication(uint64_t session, uint32_t alias, uint32_t publication)
{
    rsi_assert(oracle.heard_count < PUBLICATION_COUNT_MAX);
    oracle.heard[oracle.heard_count].session = session;
    oracle.heard[oracle.heard_count].alias = alias;
    oracle.heard[oracle.heard_count].broker = oracle.broker;
    oracle.heard[oracle.heard_count++].id = publication;
}

void oracle_hear_of_counts(uint64_t id, uint64_t delivered, uint64_t dropped)
{
    uint32_t at = oracle.session_count;
    while (at > 0 &&
           (oracle.sessions[at - 1].id != id || oracle.sessions[at - 1].broker != oracle.broker)) {
        at--;
    }
    if (at == 0) {
        return; /* the client never came to know its session */
    }
    const struct oracle_session *session = &oracle.sessions[at - 1];
    bool is_exact = session->has_settled && session->excuses == 0 && !session->has_unsubscribed;
    if (delivered < session->frames || dropped < session->gaps ||
        (is_exact && dropped != session->gaps)) {
        world_violation("the broker counts %" PRIu64 " messages delivered to %s and %" PRIu64
                        " dropped; it got %" PRIu64 " and was told of %" PRIu64,
                        delivered, session->name, dropped, session->frames, session->gaps);
    }
    oracle.totals.counts_compared += is_exact;
}

static uint32_t heard_id(const struct oracle_session *session, uint32_t alias)
{
    for (uint32_t i = oracle.heard_count; i-- > 0;) {
        if (oracle.heard[i].broker == session->broker && oracle.heard[i].session == session->id &&
            oracle.heard[i].alias == alias) {
            return oracle.heard[i].id;
        }
    }
    world_violation("a publisher was granted, but no agent was told of it");
}

struct oracle_publication *oracle_publication_opened(struct oracle_session *session, uint32_t alias,
                                                     const char *subject)
{
    rsi_assert(oracle.publication_count < PUBLICATION_COUNT_MAX);
    struct oracle_publication *publication = &oracle.publications[oracle.publication_count++];
    *publication = (struct oracle_publication){
        .session = session,
        .broker = session->broker,
        .id = heard_id(session, alias),
        .key = oracle.publication_count * UINT64_C(0x9e3779b97f4a7c15),
    };
    snprintf(publication->subject, sizeof(publication->subject), "%s", subject);
    return publication;
}

static void fill(uint64_t key, uint64_t number, void *data, uint32_t bytes)
{
    uint64_t word = key ^ number * UINT64_C(0xbf58476d1ce4e5b9);
    uint8_t *at = data;
    for (uint32_t i = 0; i < bytes; i += 8) {
        word = word * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t mixed = word ^ word >> 29;
        memcpy(at + i, &mixed, bytes - i < 8 ? bytes - i : 8);
    }
}

void oracle_fill(const struct oracle_publication *publication, void *data, uint32_t bytes)
{
    fill(publication->key, publication->published_count + 1, data, bytes);
}

void oracle_publishing(struct oracle_publication *publication, uint32_t bytes)
{
    uint64_t number = publication->published_count + 1;
    if (number >= publication->size_slots) {
        uint64_t slots = publication->size_slots == 0 ? 64 : publication->size_slots * 2;
        publication->sizes = realloc(publication->sizes, slots * sizeof(*publication->sizes));
        rsi_assert(publication->sizes != NULL);
        publication->size_slots = slots;
    }
    publication->sizes[number] = (uint16_t)bytes;
    publication->is_publishing = true;
}

void oracle_published(struct oracle_publication *publication)
{
    publication->is_publishing = false;
    publication->published_count++;
    struct oracle_session *session = publication->session;
    if (session->order_count == session->order_slots) {
        session->order_slots = session->order_slots == 0 ? 64 : session->order_slots * 2;
        session->order = realloc(session->order, session->order_slots * sizeof(*session->order));
        rsi_assert(session->order != NULL);
    }
    session->order[session->order_count++] = (uint16_t)(publication - oracle.publications);
    oracle.totals.published_messages++;
}

void oracle_not_published(struct oracle_publication *publication)
{
    publication->is_publishing = false;
}

void oracle_flushed(struct oracle_session *session)
{
    for (uint32_t i = 0; i < oracle.publication_count; i++) {
        struct oracle_publication *publication = &oracle.publications[i];
        if (publication->session == session) {
            publication->arrived_count = publication->published_count;
        }
    }
}

/* The last number that anybody can have seen. */
static uint64_t last_number(const struct oracle_publication *publication)
{
    return publication->published_count + publication->is_publishing;
}

/* ---- subscriptions ----------------------------------------------------------------------------
 */

static bool wants(const struct oracle_subscription *subscription,
                  const struct oracle_publication *publication)
{
    if (subscription->has_ended || publication->broker != subscription->session->broker) {
        return false;
    }
    if (subscription->no_echo && publication->session == subscription->session) {
        return false;
    }
    return rsi_subject_matches(subscription->pattern, strlen(subscription->pattern),
                               publication->subject, strlen(publication->subject));
}

static struct stream *find_stream(struct oracle_subscription *subscription, uint32_t publication)
{
    if (publication >= subscription->stream_count) {
        uint32_t count = publication + 64;
        struct stream *streams = realloc(subscription->streams, count * sizeof(*streams));
        rsi_assert(streams != NULL);
        for (uint32_t i = subscription->stream_count; i < count; i++) {
            streams[i] = STREAM_OF_NEW;
        }
        subscription->streams = streams;
        subscription->stream_count = count;
    }
    return &subscription->streams[publication];
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
    for (uint32_t i = 0; i < oracle.publication_count; i++) {
        uint64_t owed_from = last_number(&oracle.publications[i]) + 1;
        struct stream *stream = find_stream(subscription, i);
        *stream = owed_from == 1 ? STREAM_OF_NEW : (struct stream){.owed_from = owed_from};
    }
    return subscription;
}

void oracle_unsubscribing(struct oracle_subscription *subscription)
{
    subscription->session->has_unsubscribed = true;
    subscription->has_ended = true;
}

static struct oracle_publication *find_publication(uint32_t broker, uint64_t id)
{
    for (uint32_t i = oracle.publication_count; i-- > 0;) {
        if (oracle.publications[i].id == id && oracle.publications[i].broker == broker) {
            return &oracle.publications[i];
        }
    }
    return NULL;
}

static void check_content(const struct oracle_subscription *subscription,
                          const struct oracle_publication *publication,
                          const ringside_message_t *message)
{
    uint8_t expected[UINT16_MAX];
    const char *name = subscription->session->name;
    if (message->sequence == 0 || message->sequence > last_number(publication)) {
        world_violation("%s got message %" PRIu64 " of %s's %s, of which %" PRIu64
                        " were published",
                        name, message->sequence, publication->session->name, publication->subject,
                        publication->published_count);
    }
    uint32_t bytes = publication->sizes[message->sequence];
    fill(publication->key, message->sequence, expected, bytes);
    if (message->bytes != bytes || memcmp(message->data, expected, bytes) != 0) {
        world_violation("%s got message %" PRIu64 " of %s's %s with other bytes (%zu, not %u)",
                        name, message->sequence, publication->session->name, publication->subject,
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
    session->frames += !is_same;
    session->frame_publication = publication;
    session->frame_number = number;
    session->frame_subscription = subscription->number;
}

void oracle_message(struct oracle_subscription *subscription, const ringside_message_t *message)
{
    const char *name = subscription->session->name;
    struct oracle_publication *publication =
        find_publication(subscription->session->broker, message->publication);
    if (publication == NULL || subscription->has_ended || !wants(subscription, publication)) {
        world_violation("%s got a message of %s's %s, which its subscription on %s does not want",
                        name, message->publisher, message->subject, subscription->pattern);
    }
    check_content(subscription, publication, message);
    check_callback_order(subscription, publication, message->sequence);
    struct stream *stream =
        find_stream(subscription, (uint32_t)(publication - oracle.publications));
    uint64_t number = message->sequence;
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
    struct oracle_publication *publication = find_publication(session->broker, event->publication);
    if (publication == NULL || event->count == 0) {
        world_violation("%s was told of a gap of %" PRIu64 " in an unknown publication",
                        session->name, event->count);
    }
    if (!policy_may_be(session, RINGSIDE_POLICY_DROP)) {
        world_violation("%s was told of a gap of %" PRIu64 " although it never asked for drop",
                        session->name, event->count);
    }
    oracle.totals.gap_messages += event->count;
    session->gaps += event->count;
    bool is_wanted = false;
    for (uint32_t i = 0; i < oracle.subscription_count; i++) {
        struct oracle_subscription *subscription = &oracle.subscriptions[i];
        if (subscription->session != session || !wants(subscription, publication)) {
            continue;
        }
        is_wanted = true;
        struct stream *stream =
            find_stream(subscription, (uint32_t)(publication - oracle.publications));
        if (stream->has_begun) {
            stream->next += event->count;
        } else {
            stream->gap_ahead += event->count;
        }
        if (stream->next + stream->gap_ahead > last_number(publication) + 1) {
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
        if (publication->session == session) {
            publication->arrived_count = taken[i];
        }
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
    case RINGSIDE_EVENT_CONNECTED:
    case RINGSIDE_EVENT_LOST:
    case RINGSIDE_EVENT_RESUMED:
    case RINGSIDE_EVENT_SUSPENDED:
    case RINGSIDE_EVENT_RENEWED:
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
    struct stream stream = STREAM_OF_NEW;
    if (index < subscription->stream_count) {
        stream = subscription->streams[index];
    }
    uint64_t last = publication->arrived_count;
    uint64_t first = stream.has_begun ? stream.next : stream.owed_from + stream.gap_ahead;
    return first <= last ? last - first + 1 : 0;
}

/*
 * A session that is disconnected as slow loses what the broker did not take of its own messages,
 * also if they had arrived, and hears of it when it looks.
 */
static bool may_lose_what_arrived(const struct oracle_session *session)
{
    return !session->is_over && !session->is_listening &&
           policy_may_be(session, RINGSIDE_POLICY_DISCONNECT);
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
            if (missing_count(subscription, at) == 0 || !wants(subscription, publication) ||
                (is_for_certain && may_lose_what_arrived(publication->session))) {
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

/* A subscriber with policy block that takes nothing holds others back. */
static bool somebody_may_block(void)
{
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        const struct oracle_session *session = &oracle.sessions[i];
        if (!session->is_over && !session->is_listening &&
            policy_may_be(session, RINGSIDE_POLICY_BLOCK)) {
            return true;
        }
    }
    return false;
}

void oracle_check_quiet(void)
{
    char text[512];
    if (somebody_may_block()) {
        return;
    }
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        const struct oracle_session *session = &oracle.sessions[i];
        if (!session->is_listening || session->is_over || session->excuses != 0 ||
            world_process_was_killed(session->process)) {
            continue;
        }
        if (session->client->phase != RSI_CLIENT_OPEN) {
            continue; /* it was told goodbye; that the link ends may take a time-out */
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
            published += last_number(&oracle.publications[i]);
            arrived += oracle.publications[i].arrived_count;
        }
    }
    if (admitted < arrived || admitted > published ||
        (!oracle.was_disturbed && admitted != arrived)) {
        world_violation("the broker counts %" PRIu64 " messages admitted; %" PRIu64
                        " were published and %" PRIu64 " arrived for certain",
                        admitted, published, arrived);
    }
}
