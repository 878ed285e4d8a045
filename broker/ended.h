/*
 * Sessions that have ended: why, how far what their clients published was taken, and what those
 * clients have to prove to be told.
 *
 * Control thread only. Nothing is allocated after init: the table has a fixed number of places.
 */
#ifndef RSI_BROKER_ENDED_H
#define RSI_BROKER_ENDED_H

#include "broker/connection.h"

/* So many are kept at most; then the oldest is forgotten for the next one. */
#define RSI_ENDED_COUNT_MAX 256u

struct rsi_ended_session {
    uint64_t id;       /* 0: there is none in this place */
    uint64_t until_ns; /* it is kept */
    char name[RSI_NAME_BYTES_MAX + 1];
    char token_name[RSI_NAME_BYTES_MAX + 1];
    uint64_t incarnation; /* of the client's process */
    uint8_t secret[RSI_AUTH_NONCE_BYTES];
    Ringside__Control__Reason reason;
    char text[RSI_FAREWELL_BYTES];
    uint64_t taken_pos; /* up to here of its client's out ring its messages were taken */
};

struct rsi_ended {
    struct rsi_ended_session *sessions; /* RSI_ENDED_COUNT_MAX places */
    uint32_t next;                      /* the place of the oldest, for the next one */
};

RSI_MUST_CHECK rsi_status_t rsi_ended_init(struct rsi_ended *ended, struct rsi_error *error);
/* Takes a zeroed one. Nothing is left of the secrets. */
void rsi_ended_fini(struct rsi_ended *ended);

/* Copies it; it takes the place of the oldest. */
void rsi_ended_add(struct rsi_ended *ended, const struct rsi_ended_session *session);
/* Good until the next add or forget; NULL: it is not known, or not any more. */
const struct rsi_ended_session *rsi_ended_find(const struct rsi_ended *ended, uint64_t id,
                                               uint64_t now_ns);
/* Wipes out those whose time is over. */
void rsi_ended_forget_old(struct rsi_ended *ended, uint64_t now_ns);

#endif
