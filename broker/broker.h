/*
 * A broker inside a process: ringsided is one, and tests run one on a thread.
 */
#ifndef RSI_BROKER_BROKER_H
#define RSI_BROKER_BROKER_H

#include "broker/settings.h"

struct rsi_broker;

/*
 * Takes all memory, opens the listeners and starts the data agents: from here on a client can begin
 * to connect, and is served once rsi_broker_run runs. `settings` were checked and are borrowed
 * until destroy. Errors name the setting or the URL.
 */
RSI_MUST_CHECK rsi_status_t rsi_broker_create(struct rsi_broker **broker,
                                              const struct rsi_settings *settings,
                                              struct rsi_error *error);
/*
 * Serves on the calling thread until rsi_broker_stop; once. OK: everything taken was delivered.
 * TIMED_OUT: the drain time ran out. Others: it cannot go on.
 */
RSI_MUST_CHECK rsi_status_t rsi_broker_run(struct rsi_broker *broker, struct rsi_error *error);
/*
 * Any thread and any signal handler. The first call begins the orderly stop, the second ends it at
 * once. A call before run counts.
 */
void rsi_broker_stop(struct rsi_broker *broker);
/* After run has returned, or when it was never called. NULL is fine. */
void rsi_broker_destroy(struct rsi_broker *broker);

/* The URLs at which clients reach it, with the real ports, one per line. Borrowed until destroy. */
const char *rsi_broker_urls(const struct rsi_broker *broker);

#endif
