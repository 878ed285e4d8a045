/*
 * Sessions that go to another broker because theirs died.
 *
 * Design notes
 * - What the client had not heard to be taken it publishes again, in the fresh out ring of its new
 *   link. The frames there, counted at the moment when it goes over, say which message the new
 *   broker will call the first.
 * - What the dead broker had sent and the application has not taken comes first, by the old names
 *   and numbers; the client says RENEWED where that ends. So what a subscription has is kept for
 *   each broker apart, until then.
 * - A subscriber that was there already is owed all of it. One that comes later is owed what is
 *   published from then on; what comes before that may be new or a repetition.
 */
#include "tests/simulation/oracle_internal.h"
#include "transport/frame.h"

/* ---- another broker ---------------------------------------------------------------------------
 */

void oracle_broker_killed(void)
{
    for (uint32_t i = 0; i < oracle.publication_count; i++) {
        if (oracle.publications[i].broker == oracle.broker) {
            oracle.publications[i].arrived_count = oracle.publications[i].base;
        }
    }
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        if (!oracle.sessions[i].is_over && !oracle.sessions[i].resumes) {
            oracle_excuse(&oracle.sessions[i], ORACLE_BROKER);
        }
    }
    oracle.was_disturbed = true;
}

/* The frames of one publisher in a fresh out ring: how many, and the payload of the last. */
static uint64_t count_frames(const struct rsi_link *link, uint32_t alias, const void **last,
                             uint32_t *last_bytes)
{
    uint64_t count = 0;
    uint64_t position = 0;
    while (position < link->staged_pos) {
        uint64_t word = link->head_word;
        const uint8_t *at = rsi_ring_at(&link->out, position);
        struct rsi_frame_header header;
        if (position != link->placed_pos) {
            memcpy(&word, at, sizeof(word));
        }
        memcpy(&header, at, sizeof(header));
        if (header.publication == alias) {
            count++;
            *last = at + sizeof(header);
            *last_bytes = header.payload_bytes;
        }
        position += rsi_commit_frame_bytes(word, position);
    }
    return count;
}

/* The last frame is that of the last call of publish, or of the one that is under way. */
static void renew_publication(struct oracle_publication *publication, const struct rsi_link *link)
{
    uint8_t expected[UINT16_MAX];
    const void *payload = NULL;
    uint32_t payload_bytes = 0;
    uint64_t count = count_frames(link, publication->alias, &payload, &payload_bytes);
    uint64_t last = publication->published_count;
    if (count > 0 && publication->is_publishing) {
        uint32_t bytes = publication->sizes[last + 1];
        oracle_fill_bytes(publication->key, last + 1, expected, bytes);
        last += bytes == payload_bytes && memcmp(expected, payload, bytes) == 0;
    }
    publication->base = last - count;
    publication->arrived_count = publication->base;
    publication->broker = publication->session->broker;
}

/* Who is with the new broker already is owed all that comes from there. */
static void renew_streams_of(const struct oracle_publication *publication)
{
    uint32_t index = (uint32_t)(publication - oracle.publications);
    for (uint32_t i = 0; i < oracle.subscription_count; i++) {
        struct oracle_subscription *subscription = &oracle.subscriptions[i];
        if (subscription->session != publication->session && !subscription->session->is_over &&
            oracle_wants(subscription, publication)) {
            *oracle_find_stream(subscription, publication->broker, index) = (struct stream){
                .owed_from = publication->base + 1,
                .has_begun = true,
                .next = publication->base + 1,
            };
        }
    }
}

static bool is_alias_used_again(const struct oracle_publication *publication)
{
    for (uint32_t i = oracle.publication_count; i-- > 0;) {
        if (oracle.publications[i].session == publication->session &&
            oracle.publications[i].alias == publication->alias) {
            return &oracle.publications[i] != publication;
        }
    }
    return false;
}

void oracle_hear_of_renewal(const ringside_client_t *client, const struct rsi_link *link)
{
    struct oracle_session *session = NULL;
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        if (oracle.sessions[i].client == client && !oracle.sessions[i].is_over) {
            session = &oracle.sessions[i];
        }
    }
    uint32_t broker = oracle_broker_of(client->session.broker_incarnation);
    if (session == NULL || broker == session->broker) {
        return; /* the same broker, or it is being closed */
    }
    oracle.totals.remnants += client->remnants->frames.capacity_bytes != 0;
    session->broker = broker;
    session->id = client->session.id;
    session->is_being_ended = false;
    session->has_unsubscribed = true; /* its counts begin anew, too */
    session->frames = 0;
    session->gaps = 0;
    for (uint32_t i = 0; i < oracle.publication_count; i++) {
        struct oracle_publication *publication = &oracle.publications[i];
        if (publication->session != session || is_alias_used_again(publication)) {
            continue;
        }
        uint32_t id = oracle_heard_id(session, publication->alias);
        if (id != 0) { /* else it was gone before */
            publication->id = id;
            renew_publication(publication, link);
            oracle_note_identity(publication);
            renew_streams_of(publication);
        }
    }
    /* What is published from here on; what was on its way may come, too. */
    for (uint32_t i = 0; i < oracle.subscription_count; i++) {
        if (oracle.subscriptions[i].session == session && !oracle.subscriptions[i].has_ended) {
            oracle_begin_era(&oracle.subscriptions[i], broker);
        }
    }
}

/* ---- the first frame of the new broker ---------------------------------------------------------
 */

static void forget_eras_before(struct oracle_subscription *subscription, uint32_t broker)
{
    uint32_t kept_count = 0;
    for (uint32_t i = 0; i < subscription->era_count; i++) {
        if (subscription->eras[i].broker < broker) {
            free(subscription->eras[i].streams);
        } else {
            subscription->eras[kept_count++] = subscription->eras[i];
        }
    }
    subscription->era_count = kept_count;
}

void oracle_renewal_told(struct oracle_session *session)
{
    const struct rsi_client_remnant *left = session->client->remnants;
    uint32_t hears = left != NULL ? oracle_broker_of(left->broker_incarnation) : session->broker;
    if (hears <= session->hears) {
        world_violation("%s is told that it is with another broker, but it is not", session->name);
    }
    session->hears = hears;
    session->was_renewed = true;
    session->frame_publication = NULL; /* the last message may come once more */
    for (uint32_t i = 0; i < oracle.subscription_count; i++) {
        if (oracle.subscriptions[i].session == session && !oracle.subscriptions[i].has_ended) {
            forget_eras_before(&oracle.subscriptions[i], hears);
        }
    }
}
