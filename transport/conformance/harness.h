/*
 * What the cases of the conformance suite stand on: two sides of one transport in this process,
 * links between them, and a driver that lets both sides run, in an order that comes from the seed.
 *
 * Design notes
 * - Every case runs in a child process of its own, forked before anything is set up. So a case that
 *   fails just ends there (conform_fail), on whatever thread it is, and one that hangs or crashes
 * does not take the others with it.
 * - Nothing here knows a transport. What a case may expect is what transport.h says, no more: a
 * case that needs the peer's positions to the last byte asks for them with request_wake, for
 * instance.
 * - Waiting has a deadline of 20 s and no other timing: the machine may be slow.
 */
#ifndef RSI_TRANSPORT_CONFORMANCE_HARNESS_H
#define RSI_TRANSPORT_CONFORMANCE_HARNESS_H

#include "transport/dpdk_options.h"
#include "transport/frame.h"
#include "transport/transport.h"

#define CONFORM_LINK_COUNT_MAX 16u
#define CONFORM_HANG_NS        20000000000ull
#define CONFORM_NEVER          UINT64_MAX

struct conform_options {
    const struct rsi_transport *transport;
    const char *listen_url;
    const char *dial_url;       /* NULL: what the listener says */
    const char *bind_host;      /* NULL: the route decides */
    const char *dpdk_port;      /* dpdk: of either side, each with an address of its own */
    const char *dpdk_dial_port; /* of the client, if it is another one; NULL: it is not */
    const char *filter;         /* NULL: all */
    const char *directory;      /* a temporary one, for sockets */
    uint64_t seed;
    uint32_t thread_count; /* 1 or 2 */
    double scale;          /* of the counts of long cases */
    bool is_verbose;
};

struct conform;

/* A side as one process would be: its own domain, one poller, its ends of the links. */
struct conform_side {
    struct conform *conform;
    const char *name; /* "client" dials, "server" listens */
    struct rsi_domain *domain;
    struct rsi_poller *poller;
    struct rsi_link *links[CONFORM_LINK_COUNT_MAX];
    uint32_t link_count;
    uint64_t random; /* of its own, because the sides may be two threads */
    uint32_t idle_count;
};

struct conform {
    const struct conform_options *options;
    const struct rsi_transport *transport;
    struct rsi_listener *listener;
    struct conform_side client;
    struct conform_side server;
    uint64_t random;
    struct rsi_error accept_error; /* of the last accept that failed */
};

/* What differs from the usual when a case opens its two sides. */
struct conform_setup {
    struct rsi_domain_options client_domain;
    struct rsi_domain_options server_domain;
    struct rsi_poller_options client_poller;
    struct rsi_poller_options server_poller;
    struct rsi_dpdk_options client_dpdk; /* to which the domains' options point */
    struct rsi_dpdk_options server_dpdk;
};

struct conform_case {
    const char *name;
    void (*run)(struct conform *conform);
    uint32_t thread_counts; /* CONFORM_ONE_THREAD | CONFORM_TWO_THREADS */
};

#define CONFORM_ONE_THREAD  1u
#define CONFORM_TWO_THREADS 2u
#define CONFORM_BOTH        3u

/* Each ends with a case without a name. */
extern const struct conform_case conform_connect_cases[];
extern const struct conform_case conform_control_cases[];
extern const struct conform_case conform_data_cases[];
extern const struct conform_case conform_batch_cases[];
extern const struct conform_case conform_wake_cases[];
extern const struct conform_case conform_close_cases[];
extern const struct conform_case conform_resume_cases[];

/* Ends the case: prints the text, the seed and the links, and leaves the process. Any thread. */
void conform_fail_at(struct conform *conform, const char *file, int line, const char *format, ...)
    RSI_PRINTF(4, 5) RSI_COLD __attribute__((noreturn));
#define conform_fail(conform, ...) conform_fail_at((conform), __FILE__, __LINE__, __VA_ARGS__)
#define conform_check(conform, condition)                        \
    do {                                                         \
        if (!(condition)) {                                      \
            conform_fail((conform), "not true: %s", #condition); \
        }                                                        \
    } while (0)
#define conform_equal(conform, left, right)                          \
    do {                                                             \
        uint64_t conform_left = (uint64_t)(left);                    \
        uint64_t conform_right = (uint64_t)(right);                  \
        if (conform_left != conform_right) {                         \
            conform_fail((conform), "%s is %llu, %s is %llu", #left, \
                         (unsigned long long)conform_left, #right,   \
                         (unsigned long long)conform_right);         \
        }                                                            \
    } while (0)

/* splitmix64 over `state`; the result is below `bound`. */
uint64_t conform_random(uint64_t *state, uint64_t bound);
/* A count of a long case, scaled, at least `least`. */
uint64_t conform_scaled(const struct conform *conform, uint64_t count, uint64_t least);

/* Domains, pollers and the listener. setup NULL: the usual. */
void conform_setup_init(struct conform_setup *setup, const struct conform *conform);
void conform_open(struct conform *conform, const struct conform_setup *setup);
/* Closes and destroys every link that is left, then the rest. Safe to open again afterwards. */
void conform_shut(struct conform *conform);

/* Dials one link; the server's end turns up through conform_step. Fails the case if dial fails. */
struct rsi_link *conform_dial(struct conform *conform);
/* The URL to dial. */
void conform_dial_url(const struct conform *conform, struct rsi_url *url);
/* Dials `count` links and waits until all are OPEN on both sides; client.links[i] and
 * server.links[i] are then the two ends of one link. */
void conform_connect(struct conform *conform, uint32_t count);
/* Attaches link i on both sides and waits for ATTACHED. */
void conform_attach(struct conform *conform, uint32_t index,
                    const struct rsi_link_rings *client_rings);
/* conform_connect(1) and conform_attach of rings of the same size both ways. */
void conform_connect_attached(struct conform *conform, uint64_t ring_bytes);
struct rsi_link_rings conform_mirrored(const struct rsi_link_rings *rings);

/* One turn of a side: control plane, accepting, data plane. Returns how much it did. */
uint32_t conform_side_step(struct conform_side *side);
/* One turn of a side that the seed chooses. */
void conform_step(struct conform *conform);
/* Takes it easy when a side had nothing to do for long. */
void conform_side_relax(struct conform_side *side, uint32_t event_count);

uint64_t conform_now_ns(void);
#define conform_wait_until(conform, condition)                                        \
    do {                                                                              \
        uint64_t conform_deadline_ns = conform_now_ns() + CONFORM_HANG_NS;            \
        while (!(condition)) {                                                        \
            conform_step(conform);                                                    \
            if (conform_now_ns() > conform_deadline_ns) {                             \
                conform_fail((conform), "still not true after 20 s: %s", #condition); \
            }                                                                         \
        }                                                                             \
    } while (0)
/* The same, letting only one side run. */
#define conform_side_wait_until(side, condition)                                            \
    do {                                                                                    \
        uint64_t conform_deadline_ns = conform_now_ns() + CONFORM_HANG_NS;                  \
        while (!(condition)) {                                                              \
            conform_side_relax((side), conform_side_step(side));                            \
            if (conform_now_ns() > conform_deadline_ns) {                                   \
                conform_fail((side)->conform, "still not true after 20 s: %s", #condition); \
            }                                                                               \
        }                                                                                   \
    } while (0)

bool conform_all_in_state(const struct conform_side *side, enum rsi_link_state state);
/* Closes one link, waits for CLOSED with only that side running, destroys it. */
void conform_close_link(struct conform_side *side, uint32_t index);
/* Destroys a link in CLOSED; the side's later links move up. */
void conform_destroy_link(struct conform_side *side, struct rsi_link *link);
/* Ends what is under all links, as the transport would find it; see cut.c. */
void conform_cut(struct conform *conform);
/* Fails the case unless the link is LOST with a text and a failure status. */
void conform_check_lost(struct conform_side *side, uint32_t index);

/* Of this process, now. */
uint32_t conform_count_descriptors(void);
uint32_t conform_count_ring_maps(void);

#endif
