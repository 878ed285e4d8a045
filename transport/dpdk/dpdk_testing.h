/*
 * Two sides of dpdk:// on a virtual switch, in one thread and on virtual time: for tests that count
 * round trips. Included by tests only.
 */
#ifndef RSI_TRANSPORT_DPDK_TESTING_H
#define RSI_TRANSPORT_DPDK_TESTING_H

#include "core/testing.h"
#include "transport/dpdk/dpdk_internal.h"
#include "transport/dpdk/fault.h"
#include "transport/dpdk/virtual.h"
#include "transport/frame.h"

#define RIG_LATENCY_NS    UINT64_C(500000)
#define RIG_ROUND_TRIP_NS (2 * RIG_LATENCY_NS)
#define RIG_STEP_NS       UINT64_C(20000)
#define RIG_CLIENT_TEXT   "10.7.0.2/24"
#define RIG_SERVER_TEXT   "10.7.0.1/24"
#define RIG_CLIENT        0x0a070002u
#define RIG_SERVER        0x0a070001u

struct rig_side {
    struct rsi_dpdk_options options;
    struct rsi_domain *domain;
    struct rsi_poller *poller;
    struct rsi_link *link;
    uint64_t written; /* frames */
    uint64_t read;
};

struct rig {
    char name[32]; /* of the switch */
    char port[160];
    uint64_t now_ns;
    struct rsi_listener *listener;
    struct rig_side client;
    struct rig_side server;
};

/* `arguments`: of the virtual ports, beginning with a comma; "". `faults`: of the fault layer
 * around each, "" for one that only the test's filter uses. */
void rig_open(struct rig *rig, const char *arguments, const char *faults);
void rig_close(struct rig *rig);
/* Dials, accepts, attaches rings of this size both ways. */
void rig_connect(struct rig *rig, uint64_t ring_bytes);
/* A turn of one side at the rig's time. */
void rig_turn(struct rig *rig, struct rig_side *side);
/* Time goes on by step_ns, then both have a turn. */
void rig_step(struct rig *rig, uint64_t step_ns);
/* Steps of RIG_STEP_NS until it is true; fails after a minute of virtual time. */
#define rig_run_until(rig, condition)                                           \
    do {                                                                        \
        uint64_t rig_limit_ns = (rig)->now_ns + UINT64_C(60000000000);          \
        while (!(condition)) {                                                  \
            rig_step((rig), RIG_STEP_NS);                                       \
            if ((rig)->now_ns > rig_limit_ns) {                                 \
                fail_msg("not true after a minute of the rig: %s", #condition); \
            }                                                                   \
        }                                                                       \
    } while (0)

/* Writes and places a frame with this payload, numbered; false: there is no room. */
bool rig_write(struct rig_side *side, uint32_t payload_bytes);
void rig_flush(struct rig_side *side);
/* Reads, checks and consumes all that arrived; the frames are those that `from` wrote. */
void rig_read(struct rig_side *side);

struct rsi_station *rig_station(const struct rig_side *side);
struct rsi_dpdk_link *rig_link(const struct rig_side *side);

#endif
