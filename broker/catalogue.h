/*
 * What is published: topics by subject, and the publisher objects on them. Gives out ids, and takes
 * them back when no log holds a frame of them any more.
 *
 * Control thread only.
 */
#ifndef RSI_BROKER_CATALOGUE_H
#define RSI_BROKER_CATALOGUE_H

#include "broker/data_agent.h"
#include "broker/hash.h"

struct rsi_metrics;

enum rsi_topic_state {
    RSI_TOPIC_LIVE,   /* somebody publishes on it, or a log still holds frames of it */
    RSI_TOPIC_UNUSED, /* nobody does; TOPIC_RETIRE is to be posted; its subject may get a new one */
    RSI_TOPIC_RETIRING, /* posted; when all agents have applied it, the slot is free */
};

struct rsi_topic_entry {
    char subject[RSI_SUBJECT_BYTES_MAX + 1];
    uint32_t id;
    bool is_last_value; /* the setting last_value names it */
    uint32_t publication_count;
    enum rsi_topic_state state;
    struct rsi_counter *shown; /* metrics.h */
    uint64_t ticket;
    struct rsi_topic_entry *next; /* of those that are not live */
    UT_hash_handle hh;            /* by subject; live ones only */
};

enum rsi_publication_state {
    RSI_PUBLICATION_NEW,     /* made; no agent knows it; may be cancelled */
    RSI_PUBLICATION_OPEN,    /* PUBLICATION_OPEN was posted */
    RSI_PUBLICATION_CLOSING, /* PUBLICATION_CLOSE was posted; what its client sent is still admitted
                              */
    RSI_PUBLICATION_CLOSED,  /* no frame follows; logs and gap records may still speak of it */
    RSI_PUBLICATION_RETIRING, /* PUBLICATION_RETIRE was posted; when all applied it, it is freed */
};

struct rsi_publication_entry {
    struct rsi_publication publication; /* what the agents see */
    enum rsi_publication_state state;
    struct rsi_topic_entry *topic;
    uint32_t alias;         /* key of hh */
    bool is_known;          /* PUBLICATION_OPEN was applied by all, and no request refers to this */
    uint64_t open_request;  /* that made it */
    uint64_t close_request; /* CLOSING: the request that waits for it; 0: none */
    bool close_is_asked;    /* over the present link: an answer is owed */
    uint64_t ticket;
    struct rsi_publication_entry *next_closing; /* of its connection; CLOSING only */
    struct rsi_publication_entry *next_closed;  /* of the catalogue, `closed` or `kept` */
    UT_hash_handle hh;                          /* its connection's, by alias; until CLOSED */
};

struct rsi_catalogue {
    struct rsi_data_plane *plane;
    struct rsi_metrics *metrics;         /* shows the topics; NULL: nobody does */
    const struct rsi_settings *settings; /* which topics have a last value; NULL: none has */
    uint32_t publication_count_max;      /* powers of two */
    uint32_t topic_count_max;
    uint32_t publication_count;
    uint32_t topic_count;
    uint32_t last_publication_id;
    uint32_t last_topic_id;
    struct rsi_publication_entry **publications; /* by slot */
    struct rsi_topic_entry **topics;             /* by slot */
    struct rsi_topic_entry *by_subject;          /* hash */
    struct rsi_publication_entry *closed;        /* list */
    /* List of closed ones whose last value is kept: nothing happens to them before a store lets go.
     */
    struct rsi_publication_entry *kept;
    uint64_t unkept_count;          /* of the plane, when `kept` was last gone through */
    uint32_t last_value_count;      /* topics that have one */
    struct rsi_topic_entry *unused; /* list */
};

RSI_MUST_CHECK rsi_status_t rsi_catalogue_init(struct rsi_catalogue *catalogue,
                                               struct rsi_data_plane *plane,
                                               const struct rsi_data_options *options,
                                               struct rsi_error *error);
/* The data plane has stopped: frees everything in any state. Takes a zeroed one. */
void rsi_catalogue_fini(struct rsi_catalogue *catalogue);

/*
 * Makes a publication of `session` on a checked literal subject, on its topic or on a new one, in
 * NEW. LIMIT: all slots are in use; the text names the setting.
 */
RSI_MUST_CHECK rsi_status_t rsi_catalogue_open(struct rsi_catalogue *catalogue,
                                               const struct rsi_session *session, uint32_t alias,
                                               const char *subject,
                                               struct rsi_publication_entry **entry,
                                               struct rsi_error *error);
/* NULL: there is none of that id. */
const struct rsi_publication_entry *rsi_catalogue_find(const struct rsi_catalogue *catalogue,
                                                       uint32_t publication);
/* NEW only: no agent has heard of it; frees it. */
void rsi_catalogue_cancel(struct rsi_catalogue *catalogue, struct rsi_publication_entry *entry);
/* OPEN or CLOSING, and the home agent has closed it: the catalogue retires and frees it. */
void rsi_catalogue_take_closed(struct rsi_catalogue *catalogue,
                               struct rsi_publication_entry *entry);
/* Goes on with what is to be retired. Returns how many steps were made. */
uint32_t rsi_catalogue_poll(struct rsi_catalogue *catalogue);
/* Now and then: the next poll looks at all that is kept, whoever said that it has changed. */
void rsi_catalogue_look_again(struct rsi_catalogue *catalogue);
/* Whether poll has something to wait for. */
bool rsi_catalogue_is_busy(const struct rsi_catalogue *catalogue);

#endif
