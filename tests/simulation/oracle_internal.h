/*
 * What the files of the oracle share: what it knows.
 */
#ifndef RSI_SIMULATION_ORACLE_INTERNAL_H
#define RSI_SIMULATION_ORACLE_INTERNAL_H

#include "clients/c/client.h"
#include "core/assert.h"
#include "tests/simulation/oracle.h"
#include "tests/simulation/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSION_COUNT_MAX      2048u
#define PUBLICATION_COUNT_MAX  8192u
#define SUBSCRIPTION_COUNT_MAX 8192u
#define IDENTITY_COUNT_MAX     16384u
#define BROKER_COUNT_MAX       256u

struct oracle_session {
    const ringside_client_t *client; /* while it is not over */
    uint32_t process;
    uint64_t id;
    char name[32];
    uint32_t policy_mask; /* bit per RINGSIDE_POLICY_... */
    uint32_t excuses;
    uint32_t broker; /* which broker it is with, counted */
    uint32_t hears;  /* whose frames it is handed: that one's, or those that a dead one left */
    bool resumes;    /* it looks for another link when it lost its own */
    bool was_renewed;
    bool is_over;
    bool is_being_ended; /* by its broker */
    bool is_held_back;   /* a subscriber may hold back what it publishes */
    bool is_listening;
    bool has_seen_slow;
    bool was_told_goodbye; /* by a broker that stops */
    bool has_unsubscribed;
    bool has_settled; /* nothing is published any more, and it has everything */
    uint64_t frames;  /* that it got of the broker that it is with */
    uint64_t gaps;    /* messages of that broker that it was told were left out */
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
    uint32_t alias;
    uint32_t id;   /* the broker's */
    uint64_t base; /* of its numbers, those before were published to other brokers */
    uint64_t key;
    char subject[64];
    uint64_t published_count;
    uint64_t arrived_count; /* for certain */
    uint64_t due_count;     /* had arrived when the broker began to end its session */
    bool is_publishing;     /* one more may be on its way */
    uint16_t *sizes;        /* by number */
    uint64_t size_slots;
};

/* What a publication is called by one broker, and which of its messages that broker calls the
 * first. Who is still with a dead broker gets the last frames by their old names. */
struct identity {
    uint32_t broker;
    uint32_t id;
    uint32_t publication;
    uint64_t base;
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

/* The time that the subscription's session is with one broker. */
struct era {
    uint32_t broker;
    struct stream *streams; /* by publication */
    uint32_t stream_count;
};

struct oracle_subscription {
    struct oracle_session *session;
    uint32_t number;
    char pattern[64];
    bool no_echo;
    bool has_ended;
    struct era *eras; /* the last one is of the broker that the session is with */
    uint32_t era_count;
};

struct oracle_state {
    struct oracle_session sessions[SESSION_COUNT_MAX];
    uint32_t session_count;
    struct oracle_publication publications[PUBLICATION_COUNT_MAX];
    uint32_t publication_count;
    struct oracle_subscription subscriptions[SUBSCRIPTION_COUNT_MAX];
    uint32_t subscription_count;
    uint32_t broker;
    uint64_t incarnations[BROKER_COUNT_MAX];
    bool has_delivered_all[BROKER_COUNT_MAX];
    bool was_disturbed; /* somebody was killed or cut: not all that was published was admitted */
    struct {
        uint64_t session;
        uint32_t alias;
        uint32_t id;
        uint32_t broker;
    } heard[PUBLICATION_COUNT_MAX];
    uint32_t heard_count;
    struct identity identities[IDENTITY_COUNT_MAX];
    uint32_t identity_count;
    struct oracle_totals totals;
};
extern struct oracle_state oracle;

/* ---- oracle.c ---------------------------------------------------------------------------------
 */

/* Whether the session may have asked for it. */
bool oracle_policy_may_be(const struct oracle_session *session, ringside_policy_t policy);
/* Which of the brokers there have been. */
uint32_t oracle_broker_of(uint64_t incarnation);
/* The broker's number for a session's alias; 0: it was never told of it. */
uint32_t oracle_heard_id(const struct oracle_session *session, uint32_t alias);
/* The publication has another name from here on. */
void oracle_note_identity(const struct oracle_publication *publication);
/* The bytes of a message. */
void oracle_fill_bytes(uint64_t key, uint64_t number, void *data, uint32_t bytes);
/* The last number that anybody can have seen. */
uint64_t oracle_last_number(const struct oracle_publication *publication);
/* The last number that the broker took or is to take. */
uint64_t oracle_certain_number(const struct oracle_publication *publication);

/* ---- oracle_blocking.c ------------------------------------------------------------------------
 */

/* Sets is_held_back in all sessions. */
void oracle_note_held_back(void);

/* ---- oracle_delivery.c ------------------------------------------------------------------------
 */

/* Whether the subscription is for what is published there / and both are with the same broker. */
bool oracle_matches(const struct oracle_subscription *subscription,
                    const struct oracle_publication *publication);
bool oracle_wants(const struct oracle_subscription *subscription,
                  const struct oracle_publication *publication);
/* What the subscription has of a publication by a broker. */
struct stream *oracle_find_stream(struct oracle_subscription *subscription, uint32_t broker,
                                  uint32_t publication);
/* The subscription is with this broker now, and owed what is published from here on. */
void oracle_begin_era(struct oracle_subscription *subscription, uint32_t broker);

/* ---- oracle_renewal.c -------------------------------------------------------------------------
 */

/* The client was told that it is with another broker: the frames that follow are of that one. */
void oracle_renewal_told(struct oracle_session *session);

#endif
