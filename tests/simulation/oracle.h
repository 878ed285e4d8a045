/*
 * Knows every message that was published and what each subscriber is owed, and says when the world
 * breaks a promise.
 *
 * Design notes
 * - A publication's messages are numbered from 1 by the oracle as by the broker, and each message's
 *   bytes follow from publication and number: so a message is checked by what it is, not by what it
 *   says of itself.
 * - Per subscription and publication there is one expected number. Messages must come in order,
 * each once; what is stepped over must have been announced by a gap of exactly that size; and
 * before the first message only those may be missing that were published before the subscription
 * was acknowledged.
 * - A session that loses its link goes on as if nothing had been, if it is one that resumes. When
 * its broker died it goes to the next one, and there begins anew: what it publishes keeps its
 * numbers, the broker counts from another base.
 * - A session may end only for a reason that the oracle was told of: a fault that was made, a
 * broker that stopped, a policy that says so. Then it is owed nothing more.
 */
#ifndef RSI_SIMULATION_ORACLE_H
#define RSI_SIMULATION_ORACLE_H

#include "ringside.h"

#include <stdbool.h>
#include <stdint.h>

struct rsi_link;

/* What may happen to a session because of what was done to it or to the broker. */
enum oracle_excuse {
    ORACLE_CUT = 1,    /* its link was cut */
    ORACLE_BROKER = 2, /* the broker was stopped or killed */
};

struct oracle_totals {
    uint64_t published_messages;
    uint64_t delivered_messages; /* callbacks */
    uint64_t gap_messages;
    uint64_t sessions;
    uint64_t sessions_ended; /* by somebody else than the application */
    uint64_t suspensions;
    uint64_t resumptions;
    uint64_t renewals;
    uint64_t remnants; /* renewals while frames of the dead broker were left */
    uint64_t changes;  /* links left for another one that works, too */
    uint64_t quiet_checks;
    uint64_t counts_compared; /* sessions whose gaps and the broker's count of them are the same */
};

struct oracle_session;
struct oracle_publication;
struct oracle_subscription;

/* ---- sessions ---------------------------------------------------------------------------------
 */

/* `client` was connected by the running process; policy_mask: bits of the policies that it may ask
 * for. */
struct oracle_session *oracle_session_opened(const ringside_client_t *client, const char *name,
                                             uint32_t policy_mask);
void oracle_excuse(struct oracle_session *session, uint32_t excuses);
/* The links of a process are cut: what does not resume may end. */
void oracle_excuse_cut(uint32_t process);
/* The broker is the cause: for all sessions. */
void oracle_excuse_all(uint32_t excuses);
void oracle_process_killed(uint32_t process);
/* Another broker is made; it calls itself by this number. */
void oracle_hear_of_broker(uint64_t incarnation);
/* The broker was killed: what it had taken is owed to nobody. */
void oracle_broker_killed(void);
/* The broker stopped in order and says that all it took was delivered. */
void oracle_broker_delivered_all(void);
void oracle_event(struct oracle_session *session, const ringside_event_t *event);
/* ringside_poll or another call said that the session is over. */
void oracle_session_over(struct oracle_session *session, ringside_status_t status, const char *call,
                         const char *text);
bool oracle_session_is_over(const struct oracle_session *session);
/* ringside_close returned. */
void oracle_session_closed(struct oracle_session *session, ringside_status_t status);
/* Nobody publishes any more, and the session has everything. */
void oracle_session_settled(struct oracle_session *session);
/* The application sleeps in ringside_poll and takes whatever comes. */
void oracle_session_listens(struct oracle_session *session, bool is_listening);

/* The client goes over to another broker; `link` is its new one, with what is published again. */
void oracle_hear_of_renewal(const ringside_client_t *client, const struct rsi_link *link);
/* The broker begins to end a session for a reason of its own (0: all, because it stops): what has
 * arrived by now is taken. It gives up taking even that. */
void oracle_hear_of_end(uint64_t session);
void oracle_hear_of_halt(uint64_t session);
/* The broker knows a subscription of the client of this name from here on, or knows it no more (0:
 * all of the session's). */
void oracle_hear_of_subscription(uint64_t session, const char *name, uint64_t id,
                                 const char *pattern, bool is_block);
void oracle_hear_of_no_subscription(uint64_t session, uint64_t id);
/* The client leaves its link for another one. */
void oracle_hear_of_change(const ringside_client_t *client);
/* What the broker counted for a session when it was done with it. */
void oracle_hear_of_counts(uint64_t session, uint64_t delivered, uint64_t dropped);

/* ---- publications -----------------------------------------------------------------------------
 */

void oracle_hear_of_publication(uint64_t session, uint32_t alias, uint32_t publication);
struct oracle_publication *oracle_publication_opened(struct oracle_session *session, uint32_t alias,
                                                     const char *subject);
/* What the next message of so many bytes has to hold. */
void oracle_fill(const struct oracle_publication *publication, void *data, uint32_t bytes);
/* It is handed over; it may be on its way although the call does not return. */
void oracle_publishing(struct oracle_publication *publication, uint32_t bytes);
void oracle_published(struct oracle_publication *publication);
void oracle_not_published(struct oracle_publication *publication);
/* ringside_flush returned OK: all of the session's messages so far have arrived at the broker. */
void oracle_flushed(struct oracle_session *session);

/* ---- subscriptions ----------------------------------------------------------------------------
 */

struct oracle_subscription *oracle_subscribed(struct oracle_session *session, const char *pattern,
                                              bool no_echo);
void oracle_unsubscribing(struct oracle_subscription *subscription);
void oracle_message(struct oracle_subscription *subscription, const ringside_message_t *message);

/* ---- balance ----------------------------------------------------------------------------------
 */

/* Whether the session has all that it is owed, as far as it arrived at the broker for certain. If
 * not, `text` says what is missing. */
bool oracle_is_satisfied(const struct oracle_session *session, char *text, uint32_t text_bytes);
/* Nothing moves: whoever listens must have everything that has arrived. */
void oracle_check_quiet(void);
/* At the end: who was told goodbye by a broker that delivered everything has everything. */
void oracle_check_goodbyes(void);
/* At the end, while the broker still is: `admitted` by its agents. */
void oracle_check_admitted(uint64_t admitted);
const struct oracle_totals *oracle_totals(void);

#endif
