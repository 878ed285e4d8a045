/*
 * Two ends of one rdma link in one process and one thread, for tests on real devices: the server
 * listens on one device's address, the client binds the other's, so that the bytes cross the wire.
 */
#ifndef RSI_RDMA_PAIR_TESTING_H
#define RSI_RDMA_PAIR_TESTING_H

#include "transport/frame.h"
#include "transport/rdma/rdma_internal.h"

/* Nothing here takes this long but a hang. */
#define PAIR_DEADLINE_NS UINT64_C(20000000000)

struct pair_end {
    struct rsi_domain *domain;
    struct rsi_poller *poller;
    struct rsi_link *link;
};

struct pair {
    struct pair_end server;
    struct pair_end client;
    struct rsi_listener *listener;
    bool expects_refusal;     /* an accept that fails does not fail the test */
    struct rsi_error refusal; /* of the last accept that failed */
};

/* The addresses of the machine of tests/vm, unless the environment names others. */
const char *pair_server_address(void);
const char *pair_client_address(void);

/* The client's end alone. */
void pair_client_create(struct pair *pair);
/* Each of these asserts that it succeeds within PAIR_DEADLINE_NS. */
void pair_listen(struct pair *pair);
void pair_dial(struct pair *pair);
/* Until both links are in `state`. */
void pair_wait_state(struct pair *pair, enum rsi_link_state state);
/* Both directions of `ring_bytes`; to ATTACHED. */
void pair_attach(struct pair *pair, uint64_t ring_bytes);
void pair_hang_up(struct pair *pair);
void pair_close(struct pair *pair);
/* All of the above to ATTACHED. */
void pair_open(struct pair *pair, uint64_t ring_bytes);
/* One pass over everything. */
void pair_drive(struct pair *pair);

/* Places a message of `payload_bytes` that holds its sequence in every byte; false: no room. */
bool pair_put(struct rsi_link *link, uint64_t sequence, uint32_t payload_bytes);
/* Reads and gives back all that arrived; asserts sequences from *next_sequence on and the contents.
 * Returns how many messages there were. */
uint32_t pair_take(struct rsi_link *link, uint64_t *next_sequence);

/* Sends `count` messages of such sizes from one link to the other, while both sides run. */
void pair_send_and_take(struct pair *pair, struct rsi_link *from, struct rsi_link *to,
                        uint64_t count, uint32_t (*size_of)(uint64_t sequence));
uint32_t pair_mixed_size(uint64_t sequence);
uint32_t pair_small_size(uint64_t sequence);

#define PAIR_WAIT(pair, condition)                                    \
    do {                                                              \
        uint64_t deadline_ns = rsi_clock_now_ns() + PAIR_DEADLINE_NS; \
        while (!(condition)) {                                        \
            pair_drive(pair);                                         \
            if (rsi_clock_now_ns() > deadline_ns)                     \
                fail_msg("no '%s' within 20 s", #condition);          \
        }                                                             \
    } while (0)

#endif
