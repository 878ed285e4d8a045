/*
 * Sessions and publications: who there is, what was published. Design notes: see oracle.h.
 */
#include "tests/simulation/oracle_internal.h"

#include "tests/simulation/simulation.h"

struct oracle_state oracle;

const struct oracle_totals *oracle_totals(void)
{
    return &oracle.totals;
}

/* ---- sessions ---------------------------------------------------------------------------------
 */

/* Which of the brokers there have been. */
uint32_t oracle_broker_of(uint64_t incarnation)
{
    uint32_t number = oracle.broker;
    while (number > 0 && oracle.incarnations[number] != incarnation) {
        number--;
    }
    if (number == 0) {
        world_violation("a session with a broker that never was");
    }
    return number;
}

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
        .broker = oracle_broker_of(client->session.broker_incarnation),
        .hears = oracle_broker_of(client->session.broker_incarnation),
        .resumes = client->options.resume_timeout_ns != UINT64_MAX,
    };
    snprintf(session->name, sizeof(session->name), "%s", name);
    oracle.totals.sessions++;
    return session;
}

bool oracle_policy_may_be(const struct oracle_session *session, ringside_policy_t policy)
{
    return (session->policy_mask & 1u << policy) != 0;
}

void oracle_excuse(struct oracle_session *session, uint32_t excuses)
{
    session->excuses |= excuses;
    oracle.was_disturbed = true;
}

/* Without a link it may become too old for the broker. */
static void excuse_absence(struct oracle_session *session)
{
    if (!session->resumes || simulation.is_grace_short) {
        oracle_excuse(session, ORACLE_CUT);
    }
}

void oracle_excuse_cut(uint32_t process)
{
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        struct oracle_session *session = &oracle.sessions[i];
        if (session->process == process && !session->is_over) {
            excuse_absence(session);
        }
    }
}

void oracle_hear_of_change(const ringside_client_t *client)
{
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        struct oracle_session *session = &oracle.sessions[i];
        if (session->client == client && !session->is_over) {
            excuse_absence(session);
            oracle.totals.changes++;
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
        if (oracle.sessions[i].process == process && !oracle.sessions[i].is_over) {
            oracle.sessions[i].is_over = true;
            oracle.sessions[i].is_listening = false;
        }
    }
    oracle.was_disturbed = true;
}

static void note_being_ended(struct oracle_session *session)
{
    if (session->is_being_ended) {
        return; /* what arrived since then need not be taken */
    }
    session->is_being_ended = true;
    for (uint32_t i = 0; i < oracle.publication_count; i++) {
        struct oracle_publication *publication = &oracle.publications[i];
        if (publication->session == session) {
            publication->due_count = publication->arrived_count;
        }
    }
}

void oracle_hear_of_end(uint64_t id)
{
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        struct oracle_session *session = &oracle.sessions[i];
        if (session->broker != oracle.broker || (id != 0 && session->id != id)) {
            continue;
        }
        note_being_ended(session);
        /* A broker that stops does not wait for who is away: that one is cut off. */
        if (id == 0 && !session->is_over && session->client->phase != RSI_CLIENT_OPEN) {
            oracle_excuse(session, ORACLE_CUT);
        }
    }
}

void oracle_hear_of_halt(uint64_t id)
{
    for (uint32_t i = 0; i < oracle.publication_count; i++) {
        struct oracle_publication *publication = &oracle.publications[i];
        if (publication->session->broker == oracle.broker && publication->session->id == id) {
            publication->due_count = publication->base;
        }
    }
}

void oracle_hear_of_broker(uint64_t incarnation)
{
    rsi_assert(oracle.broker + 1 < BROKER_COUNT_MAX);
    oracle.incarnations[++oracle.broker] = incarnation;
    oracle.was_disturbed = false;
}

void oracle_broker_delivered_all(void)
{
    oracle.has_delivered_all[oracle.broker] = true;
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
    bool is_slow =
        session->has_seen_slow && (oracle_policy_may_be(session, RINGSIDE_POLICY_DISCONNECT) ||
                                   oracle_policy_may_be(session, RINGSIDE_POLICY_BLOCK));
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
                  oracle_policy_may_be(session, RINGSIDE_POLICY_DISCONNECT) ||
                  oracle_policy_may_be(session, RINGSIDE_POLICY_BLOCK);
    if (status == RINGSIDE_OK) {
        oracle_flushed(session);
        session->is_being_ended &= session->is_over || session->excuses != 0; /* all was taken */
    } else if (!may_be) {
        world_violation("%s's close says %s: %s", session->name, ringside_status_name(status),
                        ringside_last_error());
    } else {
        /* A broker that ended the session meanwhile took what a flush had vouched for; how much
         * more, only the text says. */
        oracle.was_disturbed = true;
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
    bool is_exact = session->has_settled && session->excuses == 0 && !session->has_unsubscribed &&
                    !oracle.was_disturbed;
    if (delivered < session->frames || dropped < session->gaps ||
        (is_exact && dropped != session->gaps)) {
        world_violation("the broker counts %" PRIu64 " messages delivered to %s and %" PRIu64
                        " dropped; it got %" PRIu64 " and was told of %" PRIu64,
                        delivered, session->name, dropped, session->frames, session->gaps);
    }
    oracle.totals.counts_compared += is_exact;
}

/* The broker's number for a session's alias; 0: it was never told of it. */
uint32_t oracle_heard_id(const struct oracle_session *session, uint32_t alias)
{
    for (uint32_t i = oracle.heard_count; i-- > 0;) {
        if (oracle.heard[i].broker == session->broker && oracle.heard[i].session == session->id &&
            oracle.heard[i].alias == alias) {
            return oracle.heard[i].id;
        }
    }
    return 0;
}

void oracle_note_identity(const struct oracle_publication *publication)
{
    rsi_assert(oracle.identity_count < IDENTITY_COUNT_MAX);
    oracle.identities[oracle.identity_count++] = (struct identity){
        .broker = publication->broker,
        .id = publication->id,
        .publication = (uint32_t)(publication - oracle.publications),
        .base = publication->base,
    };
}

struct oracle_publication *oracle_publication_opened(struct oracle_session *session, uint32_t alias,
                                                     const char *subject)
{
    rsi_assert(oracle.publication_count < PUBLICATION_COUNT_MAX);
    struct oracle_publication *publication = &oracle.publications[oracle.publication_count++];
    *publication = (struct oracle_publication){
        .session = session,
        .broker = session->broker,
        .alias = alias,
        .id = oracle_heard_id(session, alias),
        .key = oracle.publication_count * UINT64_C(0x9e3779b97f4a7c15),
    };
    snprintf(publication->subject, sizeof(publication->subject), "%s", subject);
    if (publication->id == 0) {
        world_violation("a publisher was granted, but no agent was told of it");
    }
    oracle_note_identity(publication);
    return publication;
}

void oracle_fill_bytes(uint64_t key, uint64_t number, void *data, uint32_t bytes)
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
    oracle_fill_bytes(publication->key, publication->published_count + 1, data, bytes);
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

uint64_t oracle_certain_number(const struct oracle_publication *publication)
{
    bool is_bounded =
        publication->session->is_being_ended && publication->due_count < publication->arrived_count;
    return is_bounded ? publication->due_count : publication->arrived_count;
}

/* The last number that anybody can have seen. */
uint64_t oracle_last_number(const struct oracle_publication *publication)
{
    return publication->published_count + publication->is_publishing;
}
