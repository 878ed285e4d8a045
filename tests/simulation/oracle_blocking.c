/*
 * Who may be held back by whom.
 *
 * Design notes
 * - The broker is asked, and not the clients: a subscription can be there before its client knows,
 *   and sessions can be there that no client knows of, when one was cut off while it asked.
 * - A subscriber that the oracle sees listening takes whatever comes, so it holds back nobody.
 */
#include "proto/subject.h"
#include "tests/simulation/oracle_internal.h"

#define WISH_COUNT_MAX 4096u

/* A subscription as the present broker knows it. */
struct wish {
    uint64_t session;
    uint64_t id;
    bool is_block;
    char pattern[64];
};

static struct wish wishes[WISH_COUNT_MAX];
static uint32_t wish_count;
static uint32_t wish_broker; /* whose they are */

void oracle_hear_of_subscription(uint64_t session, uint64_t id, const char *pattern, bool is_block)
{
    if (wish_broker != oracle.broker) {
        wish_broker = oracle.broker;
        wish_count = 0;
    }
    rsi_assert(wish_count < WISH_COUNT_MAX);
    struct wish *wish = &wishes[wish_count++];
    *wish = (struct wish){.session = session, .id = id, .is_block = is_block};
    snprintf(wish->pattern, sizeof(wish->pattern), "%s", pattern);
}

void oracle_hear_of_no_subscription(uint64_t session, uint64_t id)
{
    for (uint32_t i = wish_count; i-- > 0 && wish_broker == oracle.broker;) {
        if (wishes[i].session == session && (id == 0 || wishes[i].id == id)) {
            wishes[i] = wishes[--wish_count];
        }
    }
}

/* Whether a client takes all that comes for this session of the broker. */
static bool is_listened_to(uint64_t id)
{
    for (uint32_t i = oracle.session_count; i-- > 0;) {
        const struct oracle_session *session = &oracle.sessions[i];
        if (session->broker == oracle.broker && session->id == id) {
            return !session->is_over && session->is_listening &&
                   !world_process_was_killed(session->process) &&
                   session->client->phase == RSI_CLIENT_OPEN;
        }
    }
    return false;
}

static bool may_block(uint64_t session)
{
    bool asks_for_block = false;
    for (uint32_t i = 0; i < wish_count; i++) {
        asks_for_block |= wishes[i].session == session && wishes[i].is_block;
    }
    return asks_for_block && !is_listened_to(session);
}

/* All that a session publishes waits for what waits, because it comes through one ring. */
void oracle_note_held_back(void)
{
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        oracle.sessions[i].is_held_back = false;
    }
    for (uint32_t i = 0; i < wish_count && wish_broker == oracle.broker; i++) {
        if (!may_block(wishes[i].session)) {
            continue;
        }
        for (uint32_t at = 0; at < oracle.publication_count; at++) {
            const struct oracle_publication *publication = &oracle.publications[at];
            publication->session->is_held_back |=
                publication->broker == oracle.broker &&
                rsi_subject_matches(wishes[i].pattern, strlen(wishes[i].pattern),
                                    publication->subject, strlen(publication->subject));
        }
    }
}
