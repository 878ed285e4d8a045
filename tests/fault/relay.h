/*
 * A process between clients and a broker that passes on what comes, until it is told to cut: over
 * tcp, and over the unix socket of shm with the descriptors that travel on it.
 */
#ifndef RSI_TESTS_FAULT_RELAY_H
#define RSI_TESTS_FAULT_RELAY_H

#include "tests/system/harness.h"

enum relay_cut {
    RELAY_CLOSE,  /* both sides see an end (FIN) */
    RELAY_RESET,  /* both sides see an error (RST) */
    RELAY_VANISH, /* neither side sees anything until it sends: the relay's sockets are gone without
                     a word. Where that cannot be had, as RESET. */
    RELAY_CUT_COUNT,
};

struct relay {
    struct actor actor;
    struct broker front; /* the broker as seen through the relay; for actor_start */
    int command_fd;
};

/* Relays options.transport, tcp or shm, to the broker's URL of it. */
void relay_start(struct relay *relay, const struct broker *broker);
/* Relays shm from a socket at `path` to one at `target_path`. */
void relay_start_at(struct relay *relay, const struct broker *broker, const char *path,
                    const char *target_path);
/*
 * Cuts all connections, each after a drawn part of what is just on its way; so they end inside a
 * record. Returns when it is done.
 */
void relay_cut(struct relay *relay, enum relay_cut cut, uint64_t seed);
/* With a closed door, who connects is cut off at once. */
void relay_set_door(struct relay *relay, bool is_open);
void relay_stop(struct relay *relay);

#endif
