/*
 * The client object from inside: what the files of this folder share.
 *
 * Design notes
 * - One thread. A client is control thread and owner thread of its links, so nothing here is
 *   atomic and the pollers have no wakers.
 * - A session outlives its link (resume.c). While it has none, `link` is the dead one: its rings
 *   take what is published and give what had arrived, as far as they go. The next link takes over
 *   in one step inside a pass, so whoever makes a pass must look at `link` anew after it.
 * - Work happens in passes (session.c): move positions, take control messages. Only
 *   ringside_poll also hands over frames (deliver.c), so no callback ever runs inside another call.
 *   While a call waits for the broker's answer, frames stay in the in ring; answers come on the
 *   control lane, which moves whatever the rings do, so such a wait cannot hang on a full ring.
 * - An object (publisher, subscription) whose call gave up waiting stays in the client until the
 *   broker's late answer, and is then undone; the application never sees it.
 * - Per message after warm-up: no malloc, no lock, no log, one reading of the clock. What allocates
 *   is an announce of a publication not met before, and the first frame after the set of
 *   subscriptions changed.
 */
#ifndef RSI_CLIENT_CLIENT_H
#define RSI_CLIENT_CLIENT_H

#include "clients/c/announced.h"
#include "clients/c/calls.h"
#include "clients/c/dial.h"
#include "clients/c/path.h"
#include "clients/c/remnant.h"
#include "clients/c/ringside.h"
#include "core/error.h"
#include "core/idle.h"
#include "core/position.h"
#include "transport/control_codec.h"
#include "transport/dpdk_options.h"
#include "transport/transport.h"

#include <stdbool.h>
#include <stdint.h>

#define RSI_CLIENT_TIMEOUT_NS        UINT64_C(5000000000) /* where a call's time-out is 0 */
#define RSI_CLIENT_RESUME_TIMEOUT_NS UINT64_C(30000000000)
#define RSI_CLIENT_HOLD_COUNT        64u
#define RSI_CLIENT_HOLD_COUNT_MAX    1048576u
#define RSI_CLIENT_REQUESTS_MAX      1024u /* where requests_max is 0 */
#define RSI_CLIENT_REQUESTS_LIMIT    (1u << 20)
#define RSI_CLIENT_TRANSPORT_WHY_MAX 1024u
#define RSI_CLIENT_DEVICE_BYTES_MAX  63u

/*
 * How often a pass that does not sleep looks at the domain: connection events come through system
 * calls, so they are not looked at in every pass. After a sleep they are looked at once.
 */
#define RSI_CLIENT_CONTROL_INTERVAL_NS UINT64_C(1000000)

/*
 * Messages that wait behind a batch under way are emitted by the next pass. A publisher that makes
 * no pass, because it only publishes, would keep them back for as long as the transport calls the
 * batch under way (tcp: until somebody polls). So a publish that finds the last emission this long
 * ago makes the poller's part of a pass itself. Where emitting is slow (emulated devices) it waits
 * for a multiple of what that took, so that a burst is not torn into as many batches as messages.
 */
#define RSI_CLIENT_EMIT_INTERVAL_NS     UINT64_C(100000)
#define RSI_CLIENT_EMIT_INTERVAL_MAX_NS UINT64_C(2000000)
#define RSI_CLIENT_EMIT_COST_FACTOR     8u

/* The in ring is given back in steps of this, and at the end of each delivery. */
#define RSI_CLIENT_CONSUME_BYTES UINT64_C(16384)

enum rsi_client_phase {
    RSI_CLIENT_CONNECTING, /* no link yet; the application has the client only with no_wait */
    RSI_CLIENT_OPEN,       /* the session is in use */
    RSI_CLIENT_RESUMING,   /* in use, but its link is gone and the next one not there yet */
    RSI_CLIENT_ENDING,     /* goodbye or failure: nothing new; what arrived is still handed over */
    RSI_CLIENT_ENDED,      /* all was handed over, the last event too; every call says why */
};

enum rsi_object_state {
    RSI_OBJECT_OPENING,   /* asked for, not answered */
    RSI_OBJECT_OPEN,      /* in use */
    RSI_OBJECT_REFUSED,   /* the broker said no; whoever waits frees it */
    RSI_OBJECT_CLOSE_DUE, /* to be closed; the request waits for room on the control lane */
    RSI_OBJECT_CLOSING,   /* close asked for, not answered */
    RSI_OBJECT_CLOSED,    /* close answered; whoever waits frees it */
};

/* Where an object stands while a new broker is told of what the old one knew. */
enum rsi_renewal {
    RSI_RENEWAL_NONE,  /* not told of it */
    RSI_RENEWAL_ASKED, /* told, not answered */
    RSI_RENEWAL_DONE,  /* the new broker knows it */
};

/* Head of everything that the broker is asked to make and to close. */
struct rsi_object {
    enum rsi_object_state state;
    bool is_publisher;         /* else a subscription */
    bool is_abandoned;         /* no call waits for it: freed when its answer comes */
    uint64_t request;          /* of the answer awaited */
    bool is_resend_due;        /* the request was lost with its link, or found no room at first */
    bool is_unwaited;          /* asked for without waiting: an event tells the answer */
    bool is_told_due;          /* that event */
    struct rsi_error *refusal; /* its status and text, while they are to be told */
    enum rsi_renewal renewal;
    uint64_t renewal_request;
};

struct ringside_publisher {
    struct rsi_object object;
    struct ringside_client *client;
    uint32_t alias;
    uint64_t end_pos; /* position after its last frame, once it is closed */
    size_t subject_bytes;
    char subject[RSI_SUBJECT_BYTES_MAX + 1];
};

struct ringside_subscription {
    struct rsi_object object;
    struct ringside_client *client;
    uint64_t id;
    ringside_policy_t policy;
    bool no_echo;
    bool is_active; /* its callback may be called */
    bool is_member; /* of a queue group: its callback is called for what it was chosen for */
    bool is_draining;
    bool is_drain_answered;
    uint64_t drain_pos; /* of the in ring: nothing beyond is for it */
    char group[RSI_NAME_BYTES_MAX + 1];
    bool is_last;           /* it asked for last values */
    bool is_started;        /* what arrives now is for it; with is_last from the broker's mark on */
    bool is_current;        /* it has all last values, or wants none */
    uint64_t start_version; /* of the client's subscriptions, when it was started */
    ringside_on_message_t on_message;
    void *arg;
    size_t subject_bytes;
    char subject[RSI_SUBJECT_BYTES_MAX + 1];
};

enum { RSI_CLIENT_DPDK_TEXT_BYTES = 320 };

/* Points into itself: not to be copied. */
struct rsi_client_dpdk {
    struct rsi_dpdk_options options; /* port is NULL: there is no device */
    char texts[7][RSI_CLIENT_DPDK_TEXT_BYTES];
};

/* Options after validation: no zero means "default" any more. */
struct rsi_client_options {
    char client_name[RSI_NAME_BYTES_MAX + 1];
    /* Empty: none. */
    char bind_host[RSI_HOST_BYTES_MAX + 1];
    char device[RSI_CLIENT_DEVICE_BYTES_MAX + 1];
    char token_name[RSI_NAME_BYTES_MAX + 1];
    char token[RSI_AUTH_SECRET_BYTES_MAX + 1];
    uint64_t connect_timeout_ns;
    uint64_t resume_timeout_ns;  /* UINT64_MAX: a session ends with its link */
    uint64_t publish_ring_bytes; /* 0: none */
    uint64_t deliver_ring_bytes; /* 0: none */
    uint64_t message_bytes_max;  /* 0: what the broker offers */
    rsi_idle_strategy_t idle_strategy;
    uint64_t spin_ns;
    ringside_on_event_t on_event;
    void *event_arg;
    char *counters_path; /* NULL: none; the client's */
    bool no_wait;        /* connect in ringside_poll */
    uint64_t hold_count_max;
    uint32_t requests_max;
    struct rsi_client_dpdk dpdk;
};

/* Messages and events since the connection began; plain words, so that counting costs an add. */
struct rsi_client_totals {
    uint64_t published_messages;
    uint64_t published_bytes;
    uint64_t delivered_messages; /* frames handed to at least one callback */
    uint64_t delivered_bytes;
    uint64_t unwanted_messages; /* frames that no subscription wanted any more */
    uint64_t gap_events;
    uint64_t gap_messages; /* known losses */
    uint64_t full_events;  /* publishes and claims that found the ring full */
    uint64_t sleeps;
    uint64_t suspensions; /* links lost, or left for a better one */
    uint64_t resumptions;
    uint64_t renewals;
};

#define RSI_CLIENT_CANDIDATES_MAX 4u

struct rsi_client_candidate {
    const struct rsi_transport *transport;
    struct rsi_url url;
};

/* The ways to a broker, in the order in which they are tried. */
struct rsi_client_candidates {
    uint32_t count;
    struct rsi_client_candidate list[RSI_CLIENT_CANDIDATES_MAX];
    bool is_choice;       /* the URL left the choice to us */
    bool is_local_absent; /* the broker is on this host, but its socket is not there */
    char why_not[RSI_CLIENT_TRANSPORT_WHY_MAX]; /* "shm: no socket ...; " of those left out */
};

/* Once through the candidates. */
struct rsi_client_round {
    struct rsi_client_candidates candidates;
    uint32_t next_index;                         /* of the candidate to try next */
    char failures[RSI_CLIENT_TRANSPORT_WHY_MAX]; /* "tcp: refused; " of those tried */
};

/* The way to the first link: connect.c. Its round is that of resuming, which comes later. */
struct rsi_client_connecting {
    struct rsi_url named; /* as the application gave it, for messages */
    uint64_t deadline_ns;
    uint64_t own_deadline_ns; /* of the candidate that is tried */
    bool is_dialling;
};

/* The way to the next link: resume.c. */
struct rsi_client_resume {
    uint64_t begun_ns;
    uint64_t deadline_ns;
    uint64_t retry_due_ns; /* when the next dial may begin */
    uint64_t backoff_ns;
    uint64_t attach_ns; /* how long the next try may take from the Challenge on */
    bool is_fenced;     /* the old link is CLOSED, its descriptors wake nobody */
    bool is_dialling;   /* the client's dial is ours and its end is not noted yet */
    struct rsi_client_round round;
    struct rsi_client_session half_made; /* begun at another broker and not taken; id 0: none */
    struct rsi_error loss;               /* why there is no link */
    struct rsi_error last_failure;
};

/* The look for a better transport: better.c. */
struct rsi_client_better {
    uint64_t due_ns; /* of the next look, or of the rest of this one; UINT64_MAX: none */
    uint64_t interval_ns;
    bool is_dialling; /* the client's dial is ours and its end is not noted yet */
    bool is_changing; /* the session left its link for that dial */
    struct rsi_client_round round;
};

/* What the application was not told yet of its session; told by the next delivery. That it was
 * renewed stands in the remnants. */
struct rsi_client_news {
    bool is_any; /* one of these, or a remnant: */
    bool is_connected;
    bool is_suspended;
    bool is_resumed;  /* and not suspended again since */
    bool is_answered; /* some object's answer is to be told */
    char resumed_text[RSI_CLIENT_TRANSPORT_WHY_MAX];
};

/* The path of an earlier link in whose ring messages are held: hold.c. */
struct rsi_held_path {
    struct rsi_client_path path;
    uint32_t hold_count;
    bool has_claim; /* the open claim lies in its other ring */
};

struct ringside_hold {
    struct ringside_client *client;
    struct ringside_hold *next; /* of the list it is in, also that of free ones */
    struct ringside_hold *previous;
    struct rsi_held_path *path;         /* NULL: it lies in the ring of `link`, or in: */
    struct rsi_client_remnant *remnant; /* likewise */
    uint64_t position;                  /* of its frame, in the ring of `link` */
    bool is_held;
    ringside_message_t message;
    char subject[RSI_SUBJECT_BYTES_MAX + 1];
    char publisher[RSI_NAME_BYTES_MAX + 1];
};

struct rsi_client_holds {
    struct ringside_hold *pool;  /* options.hold_count_max of them; NULL: nothing was ever held */
    struct rsi_held_path *paths; /* as many */
    struct ringside_hold *free;
    struct ringside_hold *oldest; /* in the ring of `link`, by position */
    struct ringside_hold *newest;
    uint32_t path_count;                 /* in use */
    struct rsi_client_remnant *remnants; /* handed over, and something in them is held */
};

struct rsi_client_counters;

struct ringside_client {
    /* Read by every publish. */
    struct rsi_link *link;
    struct rsi_poller *poller;
    uint64_t message_bytes_max;
    uint32_t fork_count;  /* forks of the process when this client was made */
    bool refuses_publish; /* any reason not to publish: slow path finds out which */
    uint64_t emit_due_ns; /* from then on a publish emits what waits behind a batch under way */
    struct ringside_publisher *claim; /* whose claim is open */
    uint64_t claim_bytes;
    uint32_t claim_headers_bytes; /* of the message that is claimed */
    struct rsi_frame_header *claim_header;
    bool is_claim_left_behind;  /* it lies in the rings of `retired` */
    uint64_t room_wanted_bytes; /* a publish found no room for so much; 0: none is waiting */
    struct rsi_client_totals totals;

    /* Connection. */
    enum rsi_client_phase phase;
    const struct rsi_transport *transport;
    struct rsi_domain *domain;
    int epoll_fd; /* holds the poller's and the domain's descriptor and the nudge */
    int nudge_fd; /* makes epoll_fd readable when it could not be armed */
    bool is_nudged;
    int timer_fd; /* makes epoll_fd readable when something falls due */
    bool is_timer_set;
    bool is_fd_exposed; /* the application waits on epoll_fd: arm it when nothing is left to do */
    bool is_armed;
    struct rsi_client_session session;
    struct rsi_url url;   /* of the broker; its host is an address by now, if it has one */
    struct rsi_dial dial; /* the way that is being tried */
    struct rsi_client_connecting connecting;
    struct rsi_client_resume resume;
    struct rsi_client_better better;
    struct rsi_client_path retired; /* of an earlier link; kept for an open claim */
    uint64_t control_due_ns;        /* next look at the domain */
    struct rsi_idle idle;
    struct rsi_control_receiver receiver;
    struct rsi_client_options options;
    char transport_why[RSI_CLIENT_TRANSPORT_WHY_MAX];
    struct rsi_client_counters *counters; /* NULL: not shared */

    /* Requests and what they made. */
    uint64_t last_request;
    uint64_t last_subscription;
    struct ringside_publisher **publishers; /* by alias - 1; NULL: free */
    uint32_t publisher_slot_count;
    struct ringside_subscription **subscriptions; /* dense */
    uint32_t subscription_count;
    uint32_t subscription_slot_count;
    struct rsi_client_calls *calls; /* NULL: it never asked anything */
    uint32_t drained_count;         /* subscriptions whose event DRAINED is to be told */
    uint32_t send_due_count;        /* objects in CLOSE_DUE, or with a request to send again */
    uint64_t answered_twice_max;    /* requests up to here may be answered twice */

    /* Delivery. */
    bool is_in_callback;
    bool is_told_suspended; /* the application knows of no link */
    struct rsi_client_news news;
    bool is_deliver_stopped;             /* a frame was malformed: nothing after it is read */
    uint64_t deliver_pos;                /* next frame to read; consumed_pos follows in steps */
    struct rsi_client_remnant *remnants; /* of brokers that died, the oldest first: come before */
    uint64_t subscriptions_version;      /* moves when the set of active subscriptions changes */
    struct rsi_announced_table announced;
    const ringside_message_t *delivering; /* the message that callbacks look at; NULL: none */
    struct rsi_client_remnant *delivering_remnant; /* it lies there; NULL: in the in ring */
    struct rsi_client_holds holds;
    uint32_t last_due_count; /* active subscriptions that are not current */
    struct ringside_subscription
        *last_of; /* whose last values come at the moment; NULL: nobody's */

    /* The end. */
    rsi_status_t end_status;    /* what calls return: LINK_CLOSED or LINK_LOST */
    struct rsi_error end_error; /* status and text of the event */
    bool is_bye_received;
    bool is_bye_sent;
    uint64_t bye_end_pos;   /* frames up to here come before the broker's goodbye */
    uint64_t bye_taken_pos; /* up to here it took what this client published */
    uint64_t untaken_count; /* messages published that the broker did not take; when it is known */

    struct rsi_error error; /* of the last failed call */
};

/* ---- status.c ----------------------------------------------------------------------------------
 */

/* Remembers a failure that has no client to keep it; returns its status. */
ringside_status_t rsi_client_fail_globally(const struct rsi_error *error);
/* A public call begins: OK, or why it cannot be made now, with the client's text set. */
RSI_MUST_CHECK rsi_status_t rsi_client_enter(struct ringside_client *client, const char *call);
/* The same for calls that do not wait, and are legal in callbacks. */
RSI_MUST_CHECK rsi_status_t rsi_client_enter_unwaited(struct ringside_client *client,
                                                      const char *call);
/* Whether there is a session; says why not. */
RSI_MUST_CHECK rsi_status_t rsi_client_check_open(struct ringside_client *client, const char *call);
/* enter, and a check for calls that need a session: also says why it is over. */
RSI_MUST_CHECK rsi_status_t rsi_client_enter_open(struct ringside_client *client, const char *call);
/* Forks of this process that happened above it: a client made before one must not be used. */
extern uint32_t rsi_client_fork_count;
void rsi_client_watch_forks(void);

/* ---- options.c ---------------------------------------------------------------------------------
 */

RSI_MUST_CHECK rsi_status_t rsi_client_options_read(struct rsi_client_options *out,
                                                    const ringside_options_t *options,
                                                    struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_client_dpdk_read(struct rsi_client_dpdk *out,
                                                 const ringside_dpdk_t *given,
                                                 struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_client_options_copy(void *known, size_t known_bytes,
                                                    const void *given, const char *type_name,
                                                    struct rsi_error *error);

/* ---- session.c ---------------------------------------------------------------------------------
 */

/* now + timeout, without overflow; UINT64_MAX is for ever. */
static inline uint64_t rsi_client_deadline_ns(uint64_t now_ns, uint64_t timeout_ns)
{
    return timeout_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + timeout_ns;
}

/* One pass without handing anything over. Returns how much was done. */
uint32_t rsi_client_pass(struct ringside_client *client, uint64_t now_ns);
/* The part of a pass that goes through system calls: connection events, the link's state. */
uint32_t rsi_client_pass_control(struct ringside_client *client, uint64_t now_ns);

/* What a sleep is to end for, beside control messages and connection events. */
struct rsi_client_wish {
    uint64_t in_arrived_at_least;
    uint64_t peer_arrived_at_least;
    uint64_t peer_consumed_at_least;
};
#define RSI_CLIENT_WISH_NONE                                       \
    ((struct rsi_client_wish){.in_arrived_at_least = UINT64_MAX,   \
                              .peer_arrived_at_least = UINT64_MAX, \
                              .peer_consumed_at_least = UINT64_MAX})

/* When something is to be done that no descriptor tells of; UINT64_MAX: never. */
uint64_t rsi_client_due_ns(const struct ringside_client *client, uint64_t now_ns);
/* Lays down what is wished for and arms all descriptors; true: nothing is pending, a wait on
 * epoll_fd ends with the next thing to do. */
bool rsi_client_arm(struct ringside_client *client, const struct rsi_client_wish *wish);
/* After the wait, whatever ended it. */
void rsi_client_disarm(struct ringside_client *client);
/* Sleeps until there is work or the deadline has come. False: a signal ended it. */
bool rsi_client_sleep(struct ringside_client *client, const struct rsi_client_wish *wish,
                      uint64_t now_ns, uint64_t deadline_ns);
/*
 * Makes passes until done(client, arg), the end of the session, or the deadline. OK, TIMED_OUT (no
 * text set), or the end's status with its text in `error`. `done` may change what `wish` points to.
 */
typedef bool rsi_client_done_t(struct ringside_client *client, void *arg);
RSI_MUST_CHECK rsi_status_t rsi_client_wait(struct ringside_client *client, rsi_client_done_t *done,
                                            void *arg, const struct rsi_client_wish *wish,
                                            uint64_t deadline_ns, struct rsi_error *error);
/* The session is over; the first reason stands. */
void rsi_client_end(struct ringside_client *client, rsi_status_t end_status,
                    const struct rsi_error *error);

/* ---- poll.c ------------------------------------------------------------------------------------
 */

/* The descriptor is not readable for the application's sake any more: whoever sleeps on it now
 * would be woken for nothing. */
void rsi_client_take_back_fd(struct ringside_client *client);
/* Makes it readable: the application is to poll. */
void rsi_client_nudge(struct ringside_client *client);
/* The same if the application may be waiting on it: there is something that a poll is to send. */
void rsi_client_nudge_waiting(struct ringside_client *client);

/* ---- requests.c ---------------------------------------------------------------------------------
 */

/* Messages in the out ring beyond what the broker's goodbye says it took; UINT64_MAX: unknown. */
uint64_t rsi_client_count_untaken(const struct ringside_client *client);

/* Takes what the broker says on the control lane. Returns how many messages. */
uint32_t rsi_client_take_control(struct ringside_client *client);
/* One message of the session. WOULD_BLOCK: no room on the lane, or no link at the moment. */
RSI_MUST_CHECK rsi_status_t rsi_client_send(struct ringside_client *client,
                                            const Ringside__Control__Control *message);
/* Sends the requests that found no room before, and those that a lost link took along. */
void rsi_client_send_due(struct ringside_client *client);
/* A new link has taken over: what was asked and not answered is to be asked again. */
void rsi_client_ask_again(struct ringside_client *client);
/* CLOSING: the one that was asked is gone, another one is to be asked. */
void rsi_client_close_again(struct ringside_client *client, struct rsi_object *object);
/* It counts as closed without an answer; freed if nobody waits for it. */
void rsi_client_close_unasked(struct ringside_client *client, struct rsi_object *object);
/* Asks over `link` to open `object`, by its number. */
RSI_MUST_CHECK rsi_status_t rsi_client_send_open(struct rsi_link *link,
                                                 const struct rsi_object *object, uint64_t request);
/* Asks the broker to close `object`, now or as soon as the control lane has room. */
void rsi_client_close_object(struct ringside_client *client, struct rsi_object *object);
/*
 * Asks the broker to open `object`, which is OPENING, and waits for the answer: it is OPEN or
 * REFUSED then. Another status than OK: no answer; object->request is 0 if it was never asked.
 */
RSI_MUST_CHECK rsi_status_t rsi_client_open_object(struct ringside_client *client,
                                                   struct rsi_object *object, uint64_t deadline_ns,
                                                   struct rsi_error *error);
/* Asks the broker to open `object`, which is OPENING; an event will tell the answer. */
void rsi_client_open_unwaited(struct ringside_client *client, struct rsi_object *object);
/* Some object whose answer is to be told, and no more so; NULL: none. */
struct rsi_object *rsi_client_next_answered(struct ringside_client *client);
/* Frees the object. */
void rsi_client_free_object(struct rsi_object *object);
/* The application gives up an object: it is closed as soon as that can be, and freed then. */
void rsi_client_abandon_object(struct ringside_client *client, struct rsi_object *object);
/* Waits until `object` leaves `state`. */
RSI_MUST_CHECK rsi_status_t rsi_client_wait_object(struct ringside_client *client,
                                                   struct rsi_object *object,
                                                   enum rsi_object_state state,
                                                   uint64_t deadline_ns, struct rsi_error *error);
rsi_status_t rsi_client_reason_status(Ringside__Control__Reason reason);
/* Puts into `error` why the broker ended the session. */
void rsi_client_note_end(Ringside__Control__Reason reason, const char *text,
                         struct rsi_error *error);
/* The broker has ended the session: what it sent up to end_pos is still handed over. Up to
 * taken_pos it took what was published. */
void rsi_client_end_by_broker(struct ringside_client *client, const struct rsi_error *why,
                              uint64_t end_pos, uint64_t taken_pos);
/* Says goodbye to the broker, once. WOULD_BLOCK: no room yet. */
rsi_status_t rsi_client_send_bye(struct ringside_client *client);

/* ---- publisher.c, subscription.c ----------------------------------------------------------------
 */

void rsi_publisher_free(struct ringside_publisher *publisher);
void rsi_subscription_free(struct ringside_subscription *subscription);
/* It is to be started and to get last values, if it asked for them; the broker says that it starts;
 * and that it has them all, or it wants no more. */
void rsi_subscription_await_last(struct ringside_subscription *subscription);
void rsi_subscription_start(struct ringside_subscription *subscription);
void rsi_subscription_end_last(struct ringside_subscription *subscription);

/* ---- deliver.c ----------------------------------------------------------------------------------
 */

/* Hands over what has arrived, at most `limit` messages (0: no limit). Returns messages and events.
 */
size_t rsi_client_deliver(struct ringside_client *client, size_t limit);
/* Whether frames that arrived are still to be handed over. */
bool rsi_client_has_frames(const struct ringside_client *client);
/* Gives frames back unread: a closing client takes nothing more. */
void rsi_client_discard_frames(struct ringside_client *client);
void rsi_client_tell_event(struct ringside_client *client, const ringside_event_t *event);
/* Gives the in ring back as far as it was handed over and is not held. */
void rsi_client_consume(struct ringside_client *client);

/* ---- hold.c -------------------------------------------------------------------------------------
 */

/* The end of what may be given back: what was handed over, but nothing from the oldest hold on. */
uint64_t rsi_client_consumable_pos(const struct ringside_client *client);
/* The session leaves `path`: false if nothing in its ring is held. Else it is kept as long as that
 * is so, or the claim in its other ring is open. */
bool rsi_client_keep_held(struct ringside_client *client, const struct rsi_client_path *path,
                          bool has_claim);
/* Destroys kept paths that nobody needs any more. */
void rsi_client_sweep_held(struct ringside_client *client);
/* A remnant was handed over: frees it, now or with the last hold in it. */
void rsi_client_let_go_remnant(struct ringside_client *client, struct rsi_client_remnant *remnant);
/* All holds are as good as released. */
void rsi_client_drop_holds(struct ringside_client *client);
void rsi_client_free_holds(struct ringside_client *client);

/* ---- resume.c -----------------------------------------------------------------------------------
 */

/* The link is LOST: the session looks for another one, or ends if it may not. */
void rsi_client_suspend(struct ringside_client *client, uint64_t now_ns);
/* Part of a pass: what there is to do beside the client's own link. Returns how much was done. */
uint32_t rsi_client_resume_poll(struct ringside_client *client, uint64_t now_ns);
/* When resume_poll wants to be called although nothing happened; UINT64_MAX: never. */
uint64_t rsi_client_resume_due_ns(const struct ringside_client *client);
/* The session is lost: `why`, beside the reason for which its link was. */
void rsi_client_give_up(struct ringside_client *client, const char *why) RSI_COLD;
/* The dial's READY path takes over; `carry` fills its rings with what is owed. */
typedef void rsi_client_carry_t(struct ringside_client *client, struct rsi_link *to,
                                const struct rsi_link *from);
void rsi_client_go_over(struct ringside_client *client, rsi_client_carry_t *carry);

/* Leaves a link that works for the dial that the look for a better one has brought up to the
 * Challenge. */
void rsi_client_leave_link(struct ringside_client *client, const struct rsi_error *why,
                           uint64_t now_ns);

/* ---- better.c -----------------------------------------------------------------------------------
 */

/* A link carries the session, chosen from these: looks for a better one if there may be one. */
void rsi_client_better_begin(struct ringside_client *client,
                             const struct rsi_client_candidates *candidates, uint64_t now_ns);
/* Part of a pass while OPEN. Returns how much was done. */
uint32_t rsi_client_better_poll(struct ringside_client *client, uint64_t now_ns);
/* The session could not change over after all. */
void rsi_client_better_failed(struct ringside_client *client);

/* ---- publish.c ----------------------------------------------------------------------------------
 */

/* A request of the publisher, or, NULL, a reply, with its one entry. As ringside_publish; legal in
 * callbacks. */
RSI_MUST_CHECK rsi_status_t rsi_client_send_frame(struct ringside_client *client, const char *call,
                                                  const struct ringside_publisher *publisher,
                                                  const struct rsi_frame_entry *entry,
                                                  const void *data, size_t bytes);

/* ---- renew.c ------------------------------------------------------------------------------------
 */

/* The dial is READY at another run of the broker: tells it what the session consists of. True: the
 * session has gone over. */
bool rsi_client_renew_poll(struct ringside_client *client);
/* The dial has failed: what was told is told again to the next. */
void rsi_client_renew_forget(struct ringside_client *client);

/* ---- connect.c ----------------------------------------------------------------------------------
 */

/* The client's path, whose parts stand where the hot path has them at hand. */
static inline struct rsi_client_path rsi_client_path(const struct ringside_client *client)
{
    return (struct rsi_client_path){.transport = client->transport,
                                    .domain = client->domain,
                                    .poller = client->poller,
                                    .link = client->link};
}

static inline void rsi_client_set_path(struct ringside_client *client,
                                       const struct rsi_client_path *path)
{
    uint64_t spin_ns_min = path->poller != NULL ? path->poller->spin_ns_min : 0;
    client->idle.spin_ns = client->options.spin_ns != 0
                               ? client->options.spin_ns
                               : rsi_pos_max(spin_ns_min, RSI_IDLE_SPIN_NS);
    client->transport = path->transport;
    client->domain = path->domain;
    client->poller = path->poller;
    client->link = path->link;
}

/* CONNECTING: does what can be done now; the phase is OPEN or ENDING when it is done. Returns how
 * much it did. */
uint32_t rsi_client_connect_poll(struct ringside_client *client, uint64_t now_ns);
/* Notes in transport_why which way was taken, why not the others, and what failed before. */
void rsi_client_note_chosen(struct ringside_client *client, const struct rsi_client_round *round);
/* What the last dial failed with goes into the round's texts. */
void rsi_client_note_failure(struct ringside_client *client, struct rsi_client_round *round);
/* Frees the client and all below it but its path. */
void rsi_client_free(struct ringside_client *client);
/* Closes what there is of links, waits until it is closed, and frees it. */
void rsi_client_disconnect(struct ringside_client *client);

/* ---- choose.c
 * ------------------------------------------------------------------------------------ */

/* A broker's URL from its text. */
RSI_MUST_CHECK rsi_status_t rsi_client_read_url(struct rsi_url *url, const char *text,
                                                struct rsi_error *error);
/* Replaces the host's name by its address; may wait for the resolver. A name that is not known
 * stays, and dialling says so. */
void rsi_client_settle_url(struct rsi_url *url);
/* Which transports lead to `url` now; auto:// tries dpdk only where it has a port. Waits only to
 * resolve a host's name. */
RSI_MUST_CHECK rsi_status_t rsi_client_choose(struct rsi_client_candidates *candidates,
                                              const struct rsi_url *url, bool has_dpdk_port,
                                              struct rsi_error *error);

static inline bool rsi_client_has_dpdk_port(const struct ringside_client *client)
{
    return client->options.dpdk.options.port != NULL;
}

/* ---- counters.c
 * ---------------------------------------------------------------------------------- */

RSI_MUST_CHECK rsi_status_t rsi_client_counters_create(struct rsi_client_counters **counters,
                                                       const struct ringside_client *client,
                                                       struct rsi_error *error);
void rsi_client_counters_destroy(struct rsi_client_counters *counters);
/* Copies the client's totals into the file, if it is time. */
void rsi_client_counters_show(struct ringside_client *client, uint64_t now_ns);
/* transport_why has changed. */
void rsi_client_counters_show_transport(struct ringside_client *client);

#endif
