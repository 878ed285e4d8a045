/*
 * What the tests of the double stand on: two ids connected with each other, each with a queue pair,
 * a region of its own and 8 receives. Every function asserts that it succeeds. Include cmocka.h
 * first.
 */
#ifndef RSI_RDMA_RIG_TESTING_H
#define RSI_RDMA_RIG_TESTING_H

#include "core/compiler.h"
#include "transport/rdma/verbs_double.h"

#include <netinet/in.h>
#include <rdma/rdma_cma.h>

#define RIG_MEMORY_BYTES  4096u
#define RIG_SEND_COUNT    8u
#define RIG_RECEIVE_COUNT 8u
#define RIG_HALF          (RIG_MEMORY_BYTES / 2) /* receives lie in the upper half */

struct rig_end {
    struct rdma_cm_id *id;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_mr *mr;
    struct ibv_mw *mw;
    uint32_t key; /* of the window */
    uint8_t memory[RIG_MEMORY_BYTES] __attribute__((aligned(64)));
};

struct rig {
    struct rdma_event_channel *events;
    struct rdma_cm_id *listener;
    struct rig_end active;
    struct rig_end passive;
};

struct rig_write {
    uint32_t key;
    uint64_t offset; /* in the passive side's memory */
    uint32_t bytes;
    uint32_t flags;
    enum ibv_wr_opcode opcode;
};

extern const struct rig_write rig_plain_write; /* 64 bytes to the start, signalled, without a key */

/* A world, and the rig in it; options NULL: the usual. */
void rig_open(struct rig *rig, const struct verbs_double_options *options);
/* The rig gone and the world at its end; from here on faults are fatal again. */
void rig_close(struct rig *rig);
/* The parts of rig_open: to a resolved route; the queues of one end; to ESTABLISHED. */
void rig_resolve(struct rig *rig);
void rig_equip(struct rig_end *end, int entry_count);
void rig_connect(struct rig *rig);
void rig_end_close(struct rig_end *end);

struct sockaddr_in rig_address(const char *host, uint16_t port);
/* The next event, which must be of `type`; acknowledged. */
struct rdma_cm_id *rig_expect_event(struct rig *rig, enum rdma_cm_event_type type);
void rig_expect_no_event(struct rig *rig);
/* Polls everything; the last completion is in *last. */
uint32_t rig_poll_all(struct rig_end *end, struct ibv_wc *last);

/* What ibv_post_send says. */
int rig_post(struct rig_end *end, struct ibv_send_wr *wr);
int rig_post_write(struct rig *rig, const struct rig_write *write, uint64_t id);
int rig_post_message(struct rig_end *end, uint32_t bytes, uint32_t flags);
/* A window of `end` over its whole region, bound to its queue pair. */
void rig_bind_window(struct rig_end *end);

/* There was a fault, and its text has this part. */
void rig_expect_fault(const char *part);

#endif
