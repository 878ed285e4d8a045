/*
 * What the tests of shm share: a directory of their own, two sides in one thread, and raw sockets
 * that do not keep the protocol. Included by tests only.
 */
#ifndef RSI_TRANSPORT_SHM_SHM_TESTING_H
#define RSI_TRANSPORT_SHM_SHM_TESTING_H

#include "core/testing.h"

#include "core/clock.h"
#include "transport/frame.h"
#include "transport/registry.h"
#include "transport/shm/shm_internal.h"

/* A directory that is gone after the test, and the URL of a socket in it. */
struct shm_place {
    char directory[64];
    char path[80];
    struct rsi_url url;
};

void shm_place_init(struct shm_place *place);
void shm_place_fini(struct shm_place *place);

/* One side: a domain and a poller of 8 links, owner and control thread in one. */
struct shm_side {
    struct rsi_domain *domain;
    struct rsi_poller *poller;
};

void shm_side_init(struct shm_side *side, const struct rsi_domain_options *options);
void shm_side_fini(struct shm_side *side);
/* One pass of everything that this side does for `link` (may be NULL). */
void shm_side_pass(struct shm_side *side, struct rsi_link *link);

/* Broker and client with one link between them. */
struct shm_pair {
    struct shm_place place;
    struct shm_side broker;
    struct shm_side client;
    struct rsi_listener *listener;
    struct rsi_link *accepted;
    struct rsi_link *dialled;
};

/* Up to OPEN on both sides. */
void shm_pair_init(struct shm_pair *pair);
/* Up to ATTACHED: to_broker and to_client bytes; 0: no ring in that direction. */
void shm_pair_attach(struct shm_pair *pair, uint64_t to_broker_bytes, uint64_t to_client_bytes);
void shm_pair_pass(struct shm_pair *pair);
/* Closes and destroys whatever is left. */
void shm_pair_fini(struct shm_pair *pair);
/* Closes and destroys one link of a side. */
void shm_link_end(struct shm_side *side, struct rsi_link *link);

#define shm_pair_until(pair, condition)                                  \
    do {                                                                 \
        uint64_t shm_deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS; \
        while (!(condition)) {                                           \
            if (rsi_test_now_ns() > shm_deadline_ns) {                   \
                fail_msg("still not true after 20 s: %s", #condition);   \
            }                                                            \
            shm_pair_pass(pair);                                         \
        }                                                                \
    } while (0)

/* Stages a message frame whose payload is payload_bytes times the low byte of `mark`; false: no
 * room. */
bool shm_stage(struct rsi_link *link, uint64_t mark, uint32_t payload_bytes);
/* Reads and checks the next frame of `link`, gives it back; false: none has arrived. */
bool shm_read(struct rsi_link *link, uint64_t *mark, uint32_t *payload_bytes);

/* Whether `fd` is readable now. */
bool shm_is_readable(int fd);
/* How many descriptors this process has open. */
uint32_t shm_open_fd_count(void);

/* A connected socket that keeps no protocol. */
int shm_raw_connect(const char *path);
/* Sends bytes as one packet, with descriptors. */
void shm_raw_send(int fd, const void *data, size_t bytes, const int *fds, uint32_t fd_count);
/* Sends a well-formed packet. */
void shm_raw_packet(int fd, enum rsi_record_kind kind, uint64_t position, const void *body,
                    uint32_t bytes);
void shm_raw_greet(int fd);
/* Waits for a packet of `kind`, dropping others. */
void shm_raw_expect(int fd, enum rsi_record_kind kind, struct rsi_shm_packet *packet);

#endif
