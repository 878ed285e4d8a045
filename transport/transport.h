/*
 * The seam: everything above it (framing, topics, fan-out, flow control) knows positions and rings,
 * everything below it knows sockets, queue pairs and doorbells.
 *
 * Design notes
 *
 * One idea: an out ring here and an in ring there are two copies of the same positions. A transport
 * makes the far copy equal to the near one, and tells what has arrived and what was consumed.
 *
 *     writer's side                                reader's side
 *     staged_pos   frames written to the out ring
 *     placed_pos   given to the transport   ---->  arrived_pos   readable in the in ring
 *     peer_arrived_pos                      <----
 *     peer_consumed_pos                     <----  consumed_pos  given back
 *
 * What must hold, checked around every call by the wrappers in transport.c, for all transports:
 *
 *     peer_consumed_pos <= peer_arrived_pos <= placed_pos <= staged_pos
 *     staged_pos + RSI_RING_GUARD_BYTES <= peer_consumed_pos + out.capacity_bytes
 *     consumed_pos <= arrived_pos <= consumed_pos + in.capacity_bytes
 *
 * A value that the peer wrote and that breaks this ends the link with an error that names it; it
 * never trips an assertion. Placed bytes never change and stay in the out ring until they arrived.
 *
 * Batches. The bytes [placed_pos, staged_pos) are whole frames. All of them lie in the out ring,
 * but for the first word of the batch (the commit word of its first frame), which waits in
 * link->head_word: place() stores it, on shm with release, so that one store makes the batch
 * visible. rsi_frame_commit() in frame.h keeps this rule; nobody else writes commit words into an
 * out ring. A reader sees whole frames only: arrived_pos is always the end of a frame. A transport
 * that cuts a batch into pieces cuts between frames, or holds arrived_pos back until the batch is
 * complete.
 *
 * Who moves what. The transport: placed_pos (in place), flushed_pos and under_way (in flush and
 * poll_data), and by the checking movers below arrived_pos, peer_arrived_pos, peer_consumed_pos.
 * The wrappers: consumed_pos, before they call publish_consumed. frame.h: staged_pos.
 *
 * Threads. A link has two: the control thread (link_dial, link_accept, link_attach, link_close,
 * link_destroy, poll_control, send_control, receive_control) and the owner thread of its poller
 * (place, flush, publish_consumed, request_wake, poll_data, poller_arm). They are the control agent
 * and a data agent in the broker, one and the same thread in a client. What they share is atomic
 * (state) or goes through the link's two mailboxes: the owner thread moves control messages between
 * the wire and the mailboxes inside poll_data. A link belongs to one poller from OPEN on.
 *
 * Life of a link, see enum rsi_link_state. The control thread makes every step of the state; the
 * owner thread reports a failure through rsi_link_fail() and the control thread acts on it.
 *
 * CLOSED is the fence. What the transport saw arriving before still counts (draining may raise
 * arrived_pos on the way to CLOSED); in CLOSED the positions that the peer moves are final, nothing
 * writes the rings any more but their owner, and both stay mapped until link_destroy. The owner may
 * go on staging frames into the out ring of a link in any state from ATTACHED to CLOSED; they are
 * not placed. That is what a session that outlives its link is made of: its next link starts at the
 * positions of this one, and rsi_link_carry() moves what is still owed.
 *
 * Self-clocked batching. flush() emits all that is placed, as one batch. `under_way` says that a
 * batch is on its way for which waiting is worth while; as long as it is set, a sender that is not
 * in a hurry leaves what it places to a later flush. poll_data() clears it when the batch has
 * arrived (rdma: completion) or once per pass (tcp: the kernel took it), and itself flushes what
 * was placed meanwhile. rsi_link_flush_clocked() is that rule; it has no timer.
 */
#ifndef RSI_TRANSPORT_TRANSPORT_H
#define RSI_TRANSPORT_TRANSPORT_H

#include "core/atomics.h"
#include "core/error.h"
#include "core/mailbox.h"
#include "core/ring.h"
#include "core/waker.h"
#include "proto/layout.h"
#include "transport/url.h"

#include <stdbool.h>
#include <stdint.h>

struct rsi_transport;
struct rsi_domain;
struct rsi_listener;
struct rsi_poller;
struct rsi_link;

enum rsi_link_state {
    RSI_LINK_CONNECTING, /* dialled or accepted, greetings not exchanged yet; nothing can be sent */
    RSI_LINK_OPEN,       /* the control lane works both ways; no rings yet */
    RSI_LINK_ATTACHING,  /* link_attach was called; waiting for the other side's memory */
    RSI_LINK_ATTACHED,   /* rings on both sides are ready; data moves */
    RSI_LINK_LOST,    /* the transport failed or the peer is gone; link->error says why; close it */
    RSI_LINK_CLOSING, /* link_close was called; hardware, kernel or owner thread still use it */
    RSI_LINK_CLOSED,  /* nothing refers to it any more; link_destroy is legal */
};

/* What the transport did for one link. Written by the owner thread, read by anybody (relaxed). */
struct rsi_link_stats {
    _Atomic uint64_t placed_bytes;
    _Atomic uint64_t arrived_bytes;
    _Atomic uint64_t batches_sent;    /* flushes that emitted something */
    _Atomic uint64_t batches_arrived; /* tcp: receive calls that got ring bytes; rdma: immediates */
    _Atomic uint64_t sends;           /* rdma: work requests posted; tcp: sendmsg calls; shm: 0 */
    _Atomic uint64_t doorbells;       /* rdma: post calls; tcp: as sends */
    _Atomic uint64_t receives;        /* tcp: recv calls; rdma: receive completions */
    _Atomic uint64_t control_sent;    /* messages on the control lane */
    _Atomic uint64_t control_received;
    _Atomic uint64_t wake_requests;  /* that this side made */
    _Atomic uint64_t wakes_sent;     /* that this side answered */
    _Atomic uint64_t credit_stalls;  /* flushes held back by batch credit or a full socket buffer */
    _Atomic uint64_t zerocopy_sends; /* tcp: sends that asked for MSG_ZEROCOPY */
    _Atomic uint64_t zerocopy_copied; /* tcp: of these, those the kernel copied all the same */
    _Atomic uint64_t resent_bytes;    /* dpdk: ring bytes that the peer lacked, sent again */
};

/*
 * Fields are grouped by the thread that writes them. Everything above the seam may read the plain
 * fields of the thread it runs on.
 */
struct rsi_link {
    /* Constant after dial or accept; the poller of an accepted link from OPEN on. */
    const struct rsi_transport *transport;
    struct rsi_poller *poller;
    uint64_t id; /* unique in this process, for logs and counters */
    void *user;  /* the layer above; set by it before the owner thread sees the link */
    struct rsi_greeting peer_greeting; /* valid from OPEN on */
    char local_text[96];               /* "10.7.0.1:7400 on rxe_a port 1 gid 1 mtu 4096" */
    char peer_text[96];                /* "10.7.0.2:51234", "pid 4711 uid 1000" */

    /* Control thread. */
    _Atomic uint32_t state; /* enum rsi_link_state; the owner thread only reads it */
    struct rsi_error error; /* why it is LOST; valid from LOST on */
    bool peer_has_ended; /* from LOST on: the peer's process is gone, it will not resume. Moved by
                            link_poll_control, in CLOSED too; once true it stays true */
    struct rsi_mailbox inbox;  /* control messages from the peer: owner thread -> control thread */
    struct rsi_mailbox outbox; /* control messages to the peer: control thread -> owner thread */

    /* Constant from ATTACHED on. A direction that is not used has capacity 0. */
    struct rsi_ring out;
    struct rsi_ring in;

    RSI_SEPARATOR(before_owner);

    /* Owner thread. */
    uint64_t staged_pos;
    uint64_t placed_pos;
    uint64_t flushed_pos; /* emitted; placed_pos - flushed_pos waits for a flush */
    uint64_t
        head_word; /* commit word of the frame at placed_pos, valid if staged_pos > placed_pos */
    uint64_t peer_arrived_pos;
    uint64_t peer_consumed_pos;
    uint64_t peer_consumed_held_pos; /* as the peer told it; shown as far as peer_arrived_pos */
    bool under_way;
    uint64_t arrived_pos;
    uint64_t consumed_pos;
    struct rsi_link_stats stats;
    RSI_SEPARATOR(after_owner);

    /* A mailbox was found full; its popping side wakes the pushing one, once. */
    _Atomic uint32_t inbox_full;  /* set by the owner thread, cleared by the control thread */
    _Atomic uint32_t outbox_full; /* set by the control thread, cleared by the owner thread */

    /* One-shot failure report: written by the owner thread before failed is released. */
    _Atomic bool failed;
    struct rsi_error failure;
};

struct rsi_domain_options {
    const char *bind_host;        /* source address for dialling; NULL: the route decides */
    const char *device;           /* rdma device name to insist on; NULL: any */
    const uint32_t *allowed_uids; /* shm: user ids that may connect beside root and the own one */
    uint32_t allowed_uid_count;
    bool trusted_fabric;     /* rdma: serve devices without type 2 windows */
    uint64_t ring_bytes_max; /* goes into the greeting; 0: RSI_RING_BYTES_MAX */
    uint64_t seed;           /* sim: of its scheduler */
    int node;                /* NUMA node for rings; -1: the device's, else any */
    uint64_t incarnation;    /* goes into the greeting */
    uint32_t agent_hint;     /* goes into the greeting: 1 + home agent of the session to resume */
    uint16_t version_min;    /* 0: RSI_WIRE_VERSION_MIN; tests pretend to be another version */
    uint16_t version_max;    /* 0: RSI_WIRE_VERSION_MAX */
    bool lock_memory;        /* mlock rings as far as the limit allows */
    uint64_t connect_timeout_ns;         /* dial until OPEN, and accept until OPEN; 0: 5 s */
    uint64_t zerocopy_bytes_min;         /* tcp: batches from here on use MSG_ZEROCOPY; 0: 16 KiB;
                                            UINT64_MAX: never */
    const struct rsi_dpdk_options *dpdk; /* dpdk: its device; NULL: none was given */
};

struct rsi_poller_options {
    uint32_t link_count_max;         /* sizes completion queues and tables */
    struct rsi_waker *control_waker; /* woken when an inbox gained a message or a link failed;
                                        NULL: both threads are one */
    struct rsi_waker *owner_waker;   /* woken when an outbox gained a message or a link joined */
};

struct rsi_link_rings {
    uint64_t out_bytes;     /* capacity of the direction this side writes; 0: none */
    uint64_t in_bytes;      /* capacity of the direction this side reads; 0: none */
    uint64_t out_start_pos; /* 0 for a new session; else what the peer's in ring had got */
    uint64_t in_start_pos;
    uint64_t out_consumed_pos; /* at most out_start_pos: what the peer had consumed of that */
    uint64_t in_consumed_pos;
};

/* The pollers to which an accepted link can be given. */
struct rsi_poller_choice {
    struct rsi_poller *const *pollers;
    uint32_t count;
    uint32_t otherwise; /* index of the one that is next in turn */
};

/* For transports: the poller that the peer's greeting hints at; hint 0 or a wrong one: the one that
 * is next in turn. */
static inline struct rsi_poller *rsi_poller_choose(const struct rsi_poller_choice *choice,
                                                   uint32_t agent_hint)
{
    uint32_t index =
        agent_hint >= 1 && agent_hint <= choice->count ? agent_hint - 1 : choice->otherwise;
    return choice->pollers[index];
}

/* A choice of one. */
#define RSI_POLLER_ONLY(poller) \
    (&(const struct rsi_poller_choice){.pollers = &(poller), .count = 1})

/*
 * A transport. No pointer is null: what a transport cannot do is a stub that says so.
 *
 * `_create` allocates and sets its output only on success; a failed one leaves nothing to free.
 * Control functions may allocate and make system calls but never wait: what takes time goes on in
 * poll_control. All text in errors names the thing and the way out.
 */
struct rsi_transport {
    const char *name;          /* also the URL scheme */
    uint64_t batch_bytes_max;  /* most bytes that one flush emits as one batch */
    bool peer_is_local;        /* both sides run on one host (shm, sim) */
    bool polls_by_system_call; /* an empty poll_data costs a system call (tcp) */

    /* -- control thread -- */

    /* Once per process and transport. Errors: NO_DEVICE, PERMISSION, SYSTEM. */
    rsi_status_t (*domain_create)(struct rsi_domain **domain,
                                  const struct rsi_domain_options *options,
                                  struct rsi_error *error);
    /* All listeners, pollers and links of it are gone. */
    void (*domain_destroy)(struct rsi_domain *domain);
    /* Readable when poll_control of the domain has something to do; owned by the domain. */
    int (*domain_fd)(struct rsi_domain *domain);
    /* Events of listeners and of connecting links. Returns how many it handled. */
    uint32_t (*domain_poll_control)(struct rsi_domain *domain, uint64_t now_ns);

    /* One owner thread's share. Made on the control thread before the owner thread uses it. */
    rsi_status_t (*poller_create)(struct rsi_poller **poller, struct rsi_domain *domain,
                                  const struct rsi_poller_options *options,
                                  struct rsi_error *error);
    /* No link is left on it and its owner thread has stopped. */
    void (*poller_destroy)(struct rsi_poller *poller);

    /* Port 0 picks one: listener_text tells which. Errors: ADDRESS (in use, unknown), PERMISSION.
     */
    rsi_status_t (*listener_create)(struct rsi_listener **listener, struct rsi_domain *domain,
                                    const struct rsi_url *url, struct rsi_error *error);
    /* Also refuses what waits to be accepted. */
    void (*listener_destroy)(struct rsi_listener *listener);
    /* The URL at which it can be dialled, with the real port. Owned by the listener. */
    const char *(*listener_url)(const struct rsi_listener *listener);
    /* A peer waits: takes it and gives it to one of the pollers: to that of the agent that the
     * peer's greeting hints at, if that one has room. The greeting may come later: link->poller is
     * final from OPEN on, and choice->pollers is borrowed until then. WOULD_BLOCK: nobody waits.
     * The link begins in CONNECTING. */
    rsi_status_t (*link_accept)(struct rsi_link **link, struct rsi_listener *listener,
                                const struct rsi_poller_choice *choice, struct rsi_error *error);
    /* Begins to connect; the link begins in CONNECTING. Fails at once only for what is known at
     * once (no such path, bad address); the rest turns up as LOST. */
    rsi_status_t (*link_dial)(struct rsi_link **link, struct rsi_poller *poller,
                              const struct rsi_url *url, struct rsi_error *error);
    /* OPEN -> ATTACHING. Makes this side's rings, or, where the peer makes them (shm client), waits
     * for them; ATTACHED follows in link_poll_control, on each side when both are ready. Both sides
     * call it after the layer above agreed on sizes; the peer's answer is checked against `rings`.
     */
    rsi_status_t (*link_attach)(struct rsi_link *link, const struct rsi_link_rings *rings,
                                struct rsi_error *error);
    /* Drives one link's steps. Call when its state may change: after domain_poll_control, after a
     * wake, and at least every 100 ms while CONNECTING, ATTACHING or CLOSING. */
    void (*link_poll_control)(struct rsi_link *link, uint64_t now_ns);
    /* From any state but CLOSED to CLOSING, idempotent, at once. What was placed and not yet
     * emitted is lost: flush and wait for peer_arrived_pos before, if it matters. Control messages
     * already in the outbox are still sent as far as the peer takes them, for at most one second.
     */
    void (*link_close)(struct rsi_link *link);
    /* In CLOSED, and when the owner thread of the layer above has let go of it. */
    void (*link_destroy)(struct rsi_link *link);

    /* -- owner thread: no malloc, no lock, no log -- */

    /* [placed_pos, placed_pos + bytes) lies in the out ring but for its first word; that is
     * link->head_word: stores it there, moves placed_pos to the end, makes the bytes visible (shm,
     * which also moves peer_arrived_pos) or leaves them to flush. flush moves flushed_pos. */
    void (*place)(struct rsi_link *link, uint64_t bytes);
    /* Emits what is placed. WOULD_BLOCK: credit or the socket is exhausted; poll_data goes on with
     * it when that changes, the caller need not call again. */
    rsi_status_t (*flush)(struct rsi_link *link);
    /* consumed_pos was moved; tell the peer, now or with something else, soon enough that its ring
     * never stands full while half of it is consumed. */
    void (*publish_consumed)(struct rsi_link *link);
    /* The owner thread will sleep until the peer's arrived_pos or consumed_pos of OUR out ring, or
     * the in ring's arrived_pos, moves; where arrival wakes by itself nothing is sent for it.
     * in_arrived_at_least: wake me when my in ring holds this. peer_consumed_at_least: wake me
     * when the peer consumed this. peer_arrived_at_least: likewise arrived. UINT64_MAX: never mind.
     * The same request twice sends one. */
    void (*request_wake)(struct rsi_link *link, uint64_t in_arrived_at_least,
                         uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least);
    /* Moves arrived_pos, peer_arrived_pos, peer_consumed_pos and the control lane of every link of
     * the poller. Returns how many events it handled. now_ns: rsi_clock_now_ns(). */
    uint32_t (*poll_data)(struct rsi_poller *poller, uint64_t now_ns);
    /* Before the owner thread waits on poller_fd: arms it and looks once more, at the outboxes too.
     * True: nothing is pending, it may wait. False: poll_data has work. */
    bool (*poller_arm)(struct rsi_poller *poller);
    /* After the wait, whatever ended it. */
    void (*poller_disarm)(struct rsi_poller *poller);
    /* Readable after poller_arm when poll_data has work; an epoll can hold it. Owned by the poller.
     */
    int (*poller_fd)(struct rsi_poller *poller);
};

/* ---- registry -------------------------------------------------------------------------------- */

/* The transports built in, in the order in which auto:// tries them; ends with NULL. */
extern const struct rsi_transport *const rsi_transports[];
/* NULL: no transport of that name in this build. Finds sim too, which auto:// does not try. */
const struct rsi_transport *rsi_transport_find(const char *name);

/*
 * ---- wrappers: the only way to call the data plane ---------------------------------------------
 *
 * On a link that is not ATTACHED or that failed, place and request_wake do nothing, flush says
 * RSI_E_STATE, RSI_E_LINK_LOST or RSI_E_LINK_CLOSED, and consume gives back what arrived before.
 */

/* Places all that is staged. */
void rsi_link_place(struct rsi_link *link);
rsi_status_t rsi_link_flush(struct rsi_link *link);
/* Flushes unless a batch is under way and less than RSI_FLUSH_BYTES wait. */
rsi_status_t rsi_link_flush_clocked(struct rsi_link *link);
/* Gives back [consumed_pos, consumed_pos + bytes) of the in ring. */
void rsi_link_consume(struct rsi_link *link, uint64_t bytes);
/* consumed_pos was moved by a carry. */
void rsi_link_tell_consumed(struct rsi_link *link);
void rsi_link_request_wake(struct rsi_link *link, uint64_t in_arrived_at_least,
                           uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least);
/*
 * Owner thread of both. `from` is CLOSED; `to` is ATTACHED, fresh, and its rings have the sizes of
 * from's and start where `from` ended: to->arrived_pos == from->arrived_pos, and to->placed_pos is
 * what the peer says it got of from's out ring. Copies what is owed: bytes that arrived and are not
 * consumed yet, and all frames from there to from->staged_pos, which are staged in `to` (place and
 * flush are the caller's). Consumed bytes that the peer was not told of are told.
 */
void rsi_link_carry(struct rsi_link *to, const struct rsi_link *from);
/*
 * What the peer told of itself to resume a session whose link `from` is CLOSED: it got arrived_pos
 * and gave back consumed_pos. RSI_E_PROTOCOL: that cannot be true, the session is lost.
 */
RSI_MUST_CHECK rsi_status_t rsi_link_resume_check(const struct rsi_link *from, uint64_t arrived_pos,
                                                  uint64_t consumed_pos, struct rsi_error *error);
uint32_t rsi_poller_poll(struct rsi_poller *poller, uint64_t now_ns);

/* Messages that each of a link's two mailboxes holds. */
#define RSI_CONTROL_SLOT_COUNT 64u

/* Waiting bytes from which flush_clocked emits although a batch is under way. */
#define RSI_FLUSH_BYTES (32u << 10)

/* ---- control plane helpers common to all ----------------------------------------------------- */

static inline enum rsi_link_state rsi_link_state(const struct rsi_link *link)
{
    return (enum rsi_link_state)rsi_load_acquire(&link->state);
}

/*
 * Control thread. One message of 1 to RSI_CONTROL_BYTES_MAX bytes. WOULD_BLOCK: the outbox is full,
 * the control waker is woken when it is no longer. RSI_E_STATE before OPEN, RSI_E_LINK_LOST and
 * RSI_E_LINK_CLOSED after the end.
 */
RSI_MUST_CHECK rsi_status_t rsi_link_send_control(struct rsi_link *link, const void *data,
                                                  uint32_t bytes);
/* Control thread, also in LOST: the oldest message from the peer, or NULL; valid until the pop. */
const void *rsi_link_front_control(struct rsi_link *link, uint32_t *bytes);
void rsi_link_pop_control(struct rsi_link *link);
/* Owner thread: reports a failure once (the first wins); the control thread makes it LOST. */
void rsi_link_fail(struct rsi_link *link, rsi_status_t status, const char *format, ...)
    RSI_PRINTF(3, 4) RSI_COLD;
/* Checked step of the state: asserts that `from -> to` is legal. Control thread. */
void rsi_link_set_state(struct rsi_link *link, enum rsi_link_state to);
const char *rsi_link_state_name(enum rsi_link_state state);

/* For transports, control thread: acts on a failure that the owner thread reported: copies it to
 * link->error and makes the link LOST. False: there is none, or the link is past that already. */
bool rsi_link_take_failure(struct rsi_link *link);
/* For transports, control thread: the same for what the control thread found itself. Does nothing
 * when the link is LOST, CLOSING or CLOSED already: the first reason stands. */
void rsi_link_lose(struct rsi_link *link, rsi_status_t status, const char *format, ...)
    RSI_PRINTF(3, 4) RSI_COLD;
/* As rsi_link_lose, with a reason that a callee wrote. */
void rsi_link_lose_error(struct rsi_link *link, const struct rsi_error *error);

/* For transports, owner thread: puts a message that came from the peer into the inbox and wakes the
 * control thread. WOULD_BLOCK: the inbox is full; take no more control messages from the wire until
 * a later push succeeds; the owner waker is woken when there is room. */
RSI_MUST_CHECK rsi_status_t rsi_link_inbox_push(struct rsi_link *link, const void *data,
                                                uint32_t bytes);
/* For transports, owner thread: the oldest message to be sent, or NULL; valid until the pop. */
const void *rsi_link_outbox_front(struct rsi_link *link, uint32_t *bytes);
void rsi_link_outbox_pop(struct rsi_link *link);

/* For transports: zeroed memory for a struct that begins with a struct rsi_link (which asks for
 * more alignment than calloc gives) / gives it back; NULL: none left. */
void *rsi_link_alloc(size_t bytes);
void rsi_link_free(void *link);
/* For transports: sets up what is common to every link / gives it back. The rings are the
 * transport's: made by its attach, given back by its destroy. */
rsi_status_t rsi_link_init(struct rsi_link *link, const struct rsi_transport *transport,
                           struct rsi_poller *poller, struct rsi_error *error);
void rsi_link_fini(struct rsi_link *link);
/* For transports: checks a position that the peer reported and moves ours; fails the link if it
 * lies. Returns false if the link failed. */
bool rsi_link_peer_arrived(struct rsi_link *link, uint64_t peer_arrived_pos);
bool rsi_link_peer_consumed(struct rsi_link *link, uint64_t peer_consumed_pos);
bool rsi_link_arrived(struct rsi_link *link, uint64_t arrived_pos);
/* For transports, control thread, before ATTACHED: sets all positions to the rings' start. */
void rsi_link_set_start(struct rsi_link *link, const struct rsi_link_rings *rings);

/* For transports: fills in a greeting of this process (control_credit: RSI_CONTROL_SLOT_COUNT,
 * batch_credit 0: change what the transport needs otherwise); checks a peer's greeting, of which
 * `bytes` came, against the versions in `options` and says what is wrong. */
void rsi_greeting_init(struct rsi_greeting *greeting, const struct rsi_domain_options *options);
RSI_MUST_CHECK rsi_status_t rsi_greeting_check(const struct rsi_greeting *peer, uint32_t bytes,
                                               const struct rsi_domain_options *options,
                                               struct rsi_error *error);
/* For transports: fills in what `rings` says of an attach record; checks a peer's against what was
 * agreed. Keys and addresses are the transport's business. */
void rsi_attach_init(struct rsi_attach *attach, const struct rsi_link_rings *rings);
RSI_MUST_CHECK rsi_status_t rsi_attach_check(const struct rsi_attach *peer,
                                             const struct rsi_link_rings *rings,
                                             struct rsi_error *error);
/* Checks the rings asked for: power of two, bounds, start positions multiples of 8. */
RSI_MUST_CHECK rsi_status_t rsi_link_rings_check(const struct rsi_link_rings *rings,
                                                 struct rsi_error *error);

/* For transports whose rings are this process's alone: what link_attach begins with. The link is
 * OPEN, the rings are possible and made, as the domain's options say; or nothing was made. */
RSI_MUST_CHECK rsi_status_t rsi_link_rings_make(struct rsi_link *link,
                                                const struct rsi_link_rings *rings,
                                                struct rsi_error *error);
/* For transports, owner thread: both sides' rings are there. Checks the peer's record, then sets
 * `attached` with release and wakes the control thread. False: it does not fit, the link failed. */
bool rsi_link_try_attached(struct rsi_link *link, const struct rsi_attach *peer,
                           const struct rsi_link_rings *rings, _Atomic bool *attached);
/* For transports whose out ring is seen by no other process: their `place`. */
void rsi_link_place_in_ring(struct rsi_link *link, uint64_t bytes);

/* Common head of every transport's poller. */
struct rsi_poller {
    const struct rsi_transport *transport;
    struct rsi_domain *domain;
    struct rsi_waker *control_waker;
    struct rsi_waker *owner_waker;
    uint32_t link_count_max;
    /* An adaptive thread polls at least so long before it sleeps, because a wake-up is late where
     * nothing tells of arrival (some devices of dpdk); 0: as long as it was told. Constant. */
    uint64_t spin_ns_min;
};

struct rsi_domain {
    const struct rsi_transport *transport;
    struct rsi_domain_options options;
};

struct rsi_listener {
    const struct rsi_transport *transport;
    struct rsi_domain *domain;
};

#endif
