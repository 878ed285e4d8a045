/*
 * Who may be held back by whom.
 *
 * Design notes
 * - The broker is asked, and not the clients: a subscription can be there before its client knows,
 *   and sessions can be there that no client knows of, when one was cut off while it asked.
 * - A subscriber that the oracle sees listening takes whatever comes, so it holds back nobody.
 * - Neither does a session that a client began at this broker and did not take over, once it has
 *   taken over another one there.
 */
#include "proto/subject.h"
#include "tests/simulation/oracle_internal.h"

#define WISH_COUNT_MAX 4096u

/* A subscription as the present broker knows it. */
struct wish {
    uint64_t session;
    char name[RSI_NAME_BYTES_MAX + 1]; /* of its client */
    uint64_t id;
    bool is_block;
    char pattern[64];
};

static struct wish wishes[WISH_COUNT_MAX];
static uint32_t wish_count;
static uint32_t wish_broker; /* whose they are */

void oracle_hear_of_subscription(uint64_t session, const char *name, uint64_t id,
                                 const char *pattern, bool is_block)
{
    if (wish_broker != oracle.broker) {
        wish_broker = oracle.broker;
        wish_count = 0;
    }
    rsi_assert(wish_count < WISH_COUNT_MAX);
    struct wish *wish = &wishes[wish_count++];
    *wish = (struct wish){.session = session, .id = id, .is_block = is_block};
    snprintf(wish->name, sizeof(wish->name), "%s", name);
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

/* Whether a client takes all that comes for this session of the broker, or has left it for another
 * one there. */
static bool must_not_block(uint64_t id, const char *name)
{
    for (uint32_t i = oracle.session_count; i-- > 0;) {
        const struct oracle_session *session = &oracle.sessions[i];
        if (session->broker != oracle.broker || strcmp(session->name, name) != 0) {
            continue;
        }
        bool is_in_use = !session->is_over && session->client->phase == RSI_CLIENT_OPEN &&
                         !world_process_was_killed(session->process);
        return is_in_use && (session->is_listening || session->id != id);
    }
    return false;
}

static bool may_block(uint64_t session, const char *name)
{
    bool asks_for_block = false;
    for (uint32_t i = 0; i < wish_count; i++) {
        asks_for_block |= wishes[i].session == session && wishes[i].is_block;
    }
    return asks_for_block && !must_not_block(session, name);
}

/* All that a session publishes waits for what waits, because it comes through one ring. */
void oracle_note_held_back(void)
{
    for (uint32_t i = 0; i < oracle.session_count; i++) {
        oracle.sessions[i].is_held_back = false;
    }
    for (uint32_t i = 0; i < wish_count && wish_broker == oracle.broker; i++) {
        if (!may_block(wishes[i].session, wishes[i].name)) {
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
