/*
 * Design notes
 * - Places are used round and round, so the next one holds the oldest: sessions are kept for one
 * and the same time, and so also grow old in that order.
 * - Time and number are both bounded. A client that joins and leaves without end can push out what
 *   others have not heard yet; they are told less then, and nothing wrong.
 */
#include "broker/ended.h"

#include <stdlib.h>
#include <string.h>

rsi_status_t rsi_ended_init(struct rsi_ended *ended, struct rsi_error *error)
{
    ended->next = 0;
    ended->sessions = calloc(RSI_ENDED_COUNT_MAX, sizeof(*ended->sessions));
    if (ended->sessions == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory to remember %u ended sessions",
                        RSI_ENDED_COUNT_MAX);
    }
    return RSI_OK;
}

void rsi_ended_fini(struct rsi_ended *ended)
{
    if (ended->sessions != NULL) {
        explicit_bzero(ended->sessions, RSI_ENDED_COUNT_MAX * sizeof(*ended->sessions));
    }
    free(ended->sessions);
    ended->sessions = NULL;
}

void rsi_ended_add(struct rsi_ended *ended, const struct rsi_ended_session *session)
{
    ended->sessions[ended->next] = *session;
    ended->next = (ended->next + 1) % RSI_ENDED_COUNT_MAX;
}

const struct rsi_ended_session *rsi_ended_find(const struct rsi_ended *ended, uint64_t id,
                                               uint64_t now_ns)
{
    for (uint32_t i = 0; id != 0 && i < RSI_ENDED_COUNT_MAX; i++) {
        const struct rsi_ended_session *session = &ended->sessions[i];
        if (session->id == id) {
            return now_ns < session->until_ns ? session : NULL;
        }
    }
    return NULL;
}

void rsi_ended_forget_old(struct rsi_ended *ended, uint64_t now_ns)
{
    for (uint32_t i = 0; i < RSI_ENDED_COUNT_MAX; i++) {
        struct rsi_ended_session *session = &ended->sessions[i];
        if (session->id != 0 && now_ns >= session->until_ns) {
            explicit_bzero(session, sizeof(*session));
        }
    }
}
