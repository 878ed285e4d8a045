/*
 * Ringside: publish/subscribe over one-sided RDMA writes, shared memory or TCP. The only header to
 * include; link with -lringside.
 *
 * Threads: a client object and all that is made from it belong to one thread at a time. Several
 * objects may live in one process, each on its own thread. The library starts no thread; it works
 * inside the calls below. So a program calls ringside_poll regularly, or waits for ringside_fd to
 * become readable and then calls it.
 *
 * Waiting: ringside_claim, ringside_commit, ringside_publish, ringside_publisher_destroy and
 * ringside_poll with timeout 0 never wait. ringside_connect, ringside_publisher_create,
 * ringside_subscribe, ringside_unsubscribe, ringside_flush and ringside_close wait up to their
 * time-out. While they do, no callback is called: messages stay in the ring until ringside_poll.
 *
 * Callbacks run inside ringside_poll and nowhere else. In one, publishing, destroying a publisher
 * and what is asked for with RINGSIDE_NO_WAIT are legal; whatever waits, and ringside_poll itself,
 * answers RINGSIDE_E_STATE.
 *
 * Links: a session outlives its link. When the link fails (event SUSPENDED), or when "auto://" has
 * led to a transport that was not the first choice and a better one works now, the client looks for
 * another link by itself, inside the calls it is given, and the session goes on where it was (event
 * RESUMED): nothing is lost, nothing comes twice, publishers and subscriptions stay valid, also if
 * the transport is another one then. Meanwhile publish and claim work until the ring is full, poll
 * hands over what had arrived, and calls that wait for the broker wait on, up to their time-outs.
 * What takes longer than the broker's grace (session_grace there) or than resume_timeout_ns ends
 * the session (event LOST).
 *
 * Broker restart: a broker that was started anew knows nothing of the session. The client makes a
 * new one there with the same publishers and subscriptions (event RENEWED). What had not arrived at
 * the old broker is published again; a message that was on its way when it died may be lost or come
 * twice. For each publisher that a subscription received from, a GAP event with count UINT64_MAX
 * tells that something may be missing; sequences and publication numbers begin anew. A broker that
 * stops in an orderly way ends its sessions (event CLOSED); connect again then.
 *
 * Fork: a child must not use its parent's clients; every call there answers RINGSIDE_E_STATE.
 *
 * Log: the library writes errors that no call can return to standard error; RINGSIDE_LOG=error,
 * warning, info or debug in the environment says how much.
 *
 * Times are nanoseconds, sizes bytes. Functions return RINGSIDE_OK, a positive code for "not
 * now", or a negative code; ringside_error_text() then says what happened and what to do.
 */
#ifndef RINGSIDE_H
#define RINGSIDE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RINGSIDE_VERSION_MAJOR 0
#define RINGSIDE_VERSION_MINOR 1
#define RINGSIDE_VERSION_PATCH 0

#if defined(__GNUC__)
#define RINGSIDE_API        __attribute__((visibility("default")))
#define RINGSIDE_MUST_CHECK __attribute__((warn_unused_result))
#else
#define RINGSIDE_API
#define RINGSIDE_MUST_CHECK
#endif

typedef enum ringside_status {
    RINGSIDE_OK = 0,
    /* Not now, nothing failed. */
    RINGSIDE_WOULD_BLOCK = 1, /* the ring is full or not ready: poll, then try again */
    RINGSIDE_IN_PROGRESS = 2, /* begun without waiting; an event tells the end */
    /* The call was wrong; nothing changed. */
    RINGSIDE_E_INVALID = -1,   /* an argument, URL, subject or option */
    RINGSIDE_E_TOO_LARGE = -2, /* message larger than the limit agreed at connect */
    RINGSIDE_E_STATE = -3,     /* not now: in a callback, with a claim open, after close */
    RINGSIDE_E_NOT_FOUND = -4,
    RINGSIDE_E_EXISTS = -5,
    RINGSIDE_E_LIMIT = -6, /* a limit of the broker or of the options is reached */
    RINGSIDE_E_TIMED_OUT = -7,
    RINGSIDE_E_UNSUPPORTED = -8, /* not in this build */
    RINGSIDE_E_DENIED = -9,      /* the broker does not allow it */
    RINGSIDE_E_CANCELLED = -10,
    RINGSIDE_E_NO_RESPONDERS = -11, /* nobody subscribes to the subject of a request */
    /* The connection is gone; make a new client. */
    RINGSIDE_E_CLOSED = -100,
    RINGSIDE_E_LOST = -101,
    RINGSIDE_E_PROTOCOL = -102, /* the peer is not Ringside or breaks the rules */
    RINGSIDE_E_VERSION = -103,
    RINGSIDE_E_AUTH = -104,
    RINGSIDE_E_REFUSED = -105,
    RINGSIDE_E_SLOW = -106, /* disconnected as a slow consumer */
    /* The machine lacks something. */
    RINGSIDE_E_NO_DEVICE = -200,
    RINGSIDE_E_NO_MEMORY_LOCK = -201,
    RINGSIDE_E_ADDRESS = -202,
    RINGSIDE_E_IO = -203,
    RINGSIDE_E_NO_MEMORY = -300,
    RINGSIDE_E_NO_DESCRIPTORS = -301,
    RINGSIDE_E_PERMISSION = -302,
    RINGSIDE_E_SYSTEM = -303,
    RINGSIDE_E_CPU = -304,
    /* A fault of the library. */
    RINGSIDE_E_BUG = -400,
} ringside_status_t;

typedef struct ringside_client ringside_client_t;
typedef struct ringside_publisher ringside_publisher_t;
typedef struct ringside_subscription ringside_subscription_t;
typedef struct ringside_hold ringside_hold_t;

/* What a slow subscriber means; per session the strictest of its subscriptions counts. */
typedef enum ringside_policy {
    RINGSIDE_POLICY_DEFAULT = 0, /* as the broker is configured */
    RINGSIDE_POLICY_DROP = 1,    /* messages are left out, and counted exactly in a gap event */
    RINGSIDE_POLICY_DISCONNECT = 2,
    RINGSIDE_POLICY_BLOCK = 3, /* the publishers it needs are held back */
    /* Without room only the newest message of each topic comes; how many it stands for is counted
     * exactly in CONFLATED events. Only on subjects whose last values the broker keeps, not with
     * no_echo, and not in a client that asks for BLOCK too. */
    RINGSIDE_POLICY_CONFLATE = 4,
} ringside_policy_t;

typedef enum ringside_wait {
    RINGSIDE_WAIT_ADAPTIVE = 0, /* poll for a moment, then sleep */
    RINGSIDE_WAIT_BUSY = 1,     /* never sleep: lowest latency, a whole core */
    RINGSIDE_WAIT_BLOCKING = 2, /* sleep at once: least CPU */
} ringside_wait_t;

/*
 * As the time-out of ringside_subscribe, ringside_publisher_create or ringside_unsubscribe: the
 * call does not wait and is legal inside callbacks too. The first two return RINGSIDE_IN_PROGRESS
 * and the object at once; event SUBSCRIBED or OPENED names it when the broker has answered, if the
 * session lasts until then. Until OPENED, publishing answers RINGSIDE_WOULD_BLOCK; until
 * SUBSCRIBED, messages may come or not. Either object can be given up before its event, which does
 * not come then. Unsubscribing returns RINGSIDE_OK: the callback is not called again and the object
 * is gone.
 */
#define RINGSIDE_NO_WAIT (UINT64_MAX - 1)

typedef enum ringside_event_type {
    RINGSIDE_EVENT_CONNECTED = 1, /* text: transport and why */
    RINGSIDE_EVENT_LOST = 2,      /* the session is over; status and text say why */
    RINGSIDE_EVENT_RESUMED = 3,   /* it goes on over a new link; text: transport, why, how long */
    RINGSIDE_EVENT_GAP = 4,       /* messages were left out: subject, publisher, count */
    RINGSIDE_EVENT_SLOW = 5,      /* the broker calls this client slow */
    RINGSIDE_EVENT_CLOSED = 6,    /* the broker ended the session; status and text say why */
    RINGSIDE_EVENT_SUSPENDED = 7, /* no link at the moment, another one is looked for; text: why */
    RINGSIDE_EVENT_RENEWED = 8,   /* the broker is another run: what was lost, gap events tell */
    RINGSIDE_EVENT_DRAINED = 9,   /* ringside_drain is done: subject, subscription */
    /* What was asked for with RINGSIDE_NO_WAIT is there, or, by status and text, refused: then the
     * object is gone when the callback returns. */
    RINGSIDE_EVENT_SUBSCRIBED = 10,
    RINGSIDE_EVENT_OPENED = 11,
    /* A subscription with `last` has all last values; what follows is live. subject: its pattern.
     */
    RINGSIDE_EVENT_CURRENT = 12,
    /* Policy conflate: newer messages took the place of `count`. subject, publisher, publication.
     */
    RINGSIDE_EVENT_CONFLATED = 13,
} ringside_event_type_t;

typedef struct ringside_event {
    ringside_event_type_t type;
    ringside_status_t status;
    const char *text;      /* never NULL */
    const char *subject;   /* GAP, CURRENT; else NULL */
    const char *publisher; /* GAP: client name of the publisher; else NULL */
    uint64_t publication;  /* GAP: which publisher object, unique in a broker's life */
    /* GAP: messages left out. CLOSED: own messages that the broker did not take. UINT64_MAX: not
     * known. */
    uint64_t count;
    /* SUBSCRIBED. DRAINED: it is gone when the callback returns. Else NULL. */
    const ringside_subscription_t *subscription;
    ringside_publisher_t *opened; /* OPENED; else NULL */
} ringside_event_t;

/* Which request, to be answered after its callback: a value to be kept and copied. */
typedef struct ringside_request_id {
    uint64_t words[2];
} ringside_request_id_t;

/* How a request ended. Valid inside the callback only, as what it points to. */
typedef struct ringside_reply {
    /* OK, E_TIMED_OUT, E_NO_RESPONDERS, E_LOST (whoever had it is gone, or the session is over),
     * E_CANCELLED (by ringside_close). */
    ringside_status_t status;
    const void *data; /* OK: the reply */
    size_t bytes;
} ringside_reply_t;

/* Valid inside the callback only, as everything it points to; ringside_hold and
 * ringside_message_copy keep it longer. */
typedef struct ringside_message {
    const char *subject; /* zero-terminated */
    size_t subject_bytes;
    const void *data;
    size_t bytes;
    /* Per publisher object, from 1; without holes unless a GAP said so, or a queue group shares. */
    uint64_t sequence;
    uint64_t publish_time_ns; /* publisher's real-time clock */
    uint64_t publication;     /* which publisher object, unique in a broker's life */
    const char *publisher;    /* client name of the publisher */
    const void *headers;      /* for ringside_header_find and ringside_header_next */
    size_t headers_bytes;     /* 0: it has none */
    size_t header_count;
    /* Not 0: a last value, published before this subscription began; see `last` of its options. */
    int is_last;
    ringside_client_t *client; /* whose callback this is */
    int is_request;            /* its publisher awaits a reply: ringside_reply */
    ringside_request_id_t request;
} ringside_message_t;

/*
 * Headers: name and value pairs that travel beside the data of a message. A name is 1 to 255 bytes
 * of printable ASCII without space and ":"; it keeps its spelling and is found without regard to
 * upper and lower case, as in HTTP. A value is any bytes, also none. A name may come several times;
 * the order is kept. Headers count into message_bytes_max together with the data (each as 5 bytes
 * more than its name and value, all of them rounded up to 8), and those of one message take at most
 * RINGSIDE_HEADERS_BYTES_MAX.
 */
#define RINGSIDE_HEADER_NAME_BYTES_MAX 255
#define RINGSIDE_HEADERS_BYTES_MAX     65528

typedef struct ringside_header {
    const char *name; /* zero-terminated */
    const void *value;
    size_t value_bytes;
} ringside_header_t;

typedef void (*ringside_on_message_t)(void *arg, const ringside_message_t *message);
typedef void (*ringside_on_reply_t)(void *arg, const ringside_reply_t *reply);
typedef void (*ringside_on_event_t)(void *arg, const ringside_event_t *event);

/*
 * The device of this process for dpdk://, which bypasses the kernel. What is NULL or 0 here is
 * taken from the environment: RINGSIDE_DPDK_PORT, _ADDRESS, _GATEWAY, _MAC, _MTU, _CORES, _MEMORY,
 * _HUGE (yes or no), _FILE_PREFIX, _EAL_ARGUMENTS, _IDLE. All clients of a process use one device.
 */
typedef struct ringside_dpdk {
    size_t struct_bytes; /* sizeof(ringside_dpdk_t) */
    const char *port;    /* PCI address, or virtual device: "net_af_packet0,iface=eth1" */
    const char *address; /* its IPv4 address and prefix, not one of the kernel's: "10.7.0.2/24" */
    const char *gateway; /* for what is outside the prefix */
    const char *mac;     /* "02:00:00:00:00:01"; default: the device's */
    const char *cores;   /* CPUs for DPDK's own threads: "0-3,8"; default: any */
    const char
        *file_prefix; /* tells processes of one machine apart; default: one of this process */
    const char *eal_arguments; /* further arguments for DPDK's environment, separated by spaces */
    uint64_t memory_bytes;     /* that DPDK sets aside when it starts; default: what port needs */
    uint64_t idle_ns;          /* longest sleep between two looks at an idle port; default 1 ms */
    uint32_t mtu;              /* 576 to 16000; default: the device's */
    int no_huge;               /* do without huge pages */
} ringside_dpdk_t;

/* Set struct_bytes = sizeof(options), everything else may stay zero: the default. */
typedef struct ringside_options {
    size_t struct_bytes;
    const char *client_name; /* default: program name and pid; at most 63 bytes */
    const char *bind_host;   /* source address; needed for rdma where two devices lead to one net */
    const char *device;      /* rdma: device to insist on */
    /* Together they prove who this is, and the broker must prove that it knows the token too; the
     * secret never travels. Both NULL: RINGSIDE_TOKEN_NAME and RINGSIDE_TOKEN of the environment.
     */
    const char *token_name;
    const char *token;
    uint64_t connect_timeout_ns; /* default 5 s */
    uint64_t publish_ring_bytes; /* power of two; default 2 MiB; UINT64_MAX: never publishes */
    uint64_t deliver_ring_bytes; /* power of two; default 2 MiB; UINT64_MAX: never subscribes */
    uint64_t message_bytes_max;  /* default: a quarter of the publish ring, at most the broker's */
    ringside_wait_t wait;
    uint64_t spin_ns; /* adaptive: how long to poll before sleeping; default 50 us, memif 300 */
    ringside_on_event_t on_event;
    void *event_arg;
    const char *counters_path; /* share this client's counters in that file; default: do not */
    /* For how long a session that lost its link looks for another one before it ends as lost;
     * default 30 s; UINT64_MAX: it ends with its link. */
    uint64_t resume_timeout_ns;
    uint64_t hold_count_max; /* messages that can be held at a time; default 64 */
    int no_wait;             /* connect inside ringside_poll: see ringside_connect */
    uint32_t requests_max;   /* that may await replies at a time; default 1024, at most 1048576 */
    const ringside_dpdk_t *dpdk; /* for dpdk://; NULL: what the environment says */
} ringside_options_t;

typedef struct ringside_subscribe_options {
    size_t struct_bytes;
    ringside_policy_t policy;
    int no_echo;         /* leave out what this client itself publishes */
    uint64_t timeout_ns; /* default 5 s */
    /*
     * Queue group: a name of one token, at most 63 bytes. Of all subscriptions with this group that
     * match a subject, in all clients, exactly one gets each message: in turn, and those that are
     * behind are passed over while another is not. Subscriptions without a group, and other groups,
     * get it as well. A member that ends without ringside_drain loses what was chosen for it and
     * not handed over yet; GAP events count only what was left out of what was for this member.
     */
    const char *group;
    /* Begin with the last message of each topic that matches and of which the broker keeps it (its
     * setting last_value; refused if that names nothing that can match). They come as messages with
     * is_last set, between live ones of other topics; then event CURRENT comes. The first message
     * of a topic is its last value or something newer, and what follows on each publication is
     * without holes. After event RENEWED it begins anew. */
    int last;
} ringside_subscribe_options_t;

/*
 * Connects to a broker: "shm:///run/ringside/broker.sock", "rdma://host:port", "tcp://host:port",
 * or "auto://host:port", which tries shm when that broker is on this host, then rdma, then
 * dpdk where a port is configured, then tcp.
 * Waits up to connect_timeout_ns. On failure *client is NULL and ringside_last_error() tells why.
 *
 * With no_wait it returns RINGSIDE_IN_PROGRESS and a client at once, unless the options or the URL
 * are wrong. ringside_poll does the rest, also when ringside_fd is readable, and event CONNECTED or
 * LOST tells the end within connect_timeout_ns. Until then nothing but polling and closing is
 * possible: RINGSIDE_E_STATE. One thing may still wait: a host that is a name is looked up before
 * it returns, which can ask a name server; give an address where that must not be.
 */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t
ringside_connect(ringside_client_t **client, const char *url, const ringside_options_t *options);

/*
 * Says goodbye and frees the client with all its publishers and subscriptions. Waits up to
 * timeout_ns until everything published arrived at the broker: RINGSIDE_E_TIMED_OUT or
 * RINGSIDE_E_LOST if that failed; the client is gone all the same (ringside_last_error tells why),
 * but for RINGSIDE_E_STATE in a callback or a forked child. Messages not handed over are dropped.
 * NULL is fine.
 */
RINGSIDE_API ringside_status_t ringside_close(ringside_client_t *client, uint64_t timeout_ns);

/* Makes a publisher on a literal subject; waits for the broker, at most timeout_ns (0: 5 s). */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t
ringside_publisher_create(ringside_publisher_t **publisher, ringside_client_t *client,
                          const char *subject, uint64_t timeout_ns);
/* Messages already published still go out. NULL is fine. */
RINGSIDE_API void ringside_publisher_destroy(ringside_publisher_t *publisher);
RINGSIDE_API const char *ringside_publisher_subject(const ringside_publisher_t *publisher);

/*
 * Zero copy: room for a message of `bytes` in the ring itself. Fill it, then commit (with as many
 * bytes or fewer) or abort. One open claim per client; the pointer is good until then.
 */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t ringside_claim(ringside_publisher_t *publisher,
                                                                  size_t bytes, void **buffer);
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t ringside_commit(ringside_publisher_t *publisher,
                                                                   size_t bytes);
RINGSIDE_API void ringside_abort(ringside_publisher_t *publisher);

/*
 * Copies one message into the ring and sends it: at once on an idle link, with others on a busy
 * one. What waits behind a batch under way goes with the next call of publish, poll or flush: a
 * program that pauses after a burst calls ringside_poll (or ringside_flush) before it does.
 */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t ringside_publish(ringside_publisher_t *publisher,
                                                                    const void *data, size_t bytes);

/*
 * The same with headers in front of the data. The claim's buffer is for the data alone; its headers
 * are in place and stay as they are. RINGSIDE_E_INVALID names the header that is wrong.
 */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t
ringside_publish_with(ringside_publisher_t *publisher, const ringside_header_t *headers,
                      size_t header_count, const void *data, size_t bytes);
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t
ringside_claim_with(ringside_publisher_t *publisher, const ringside_header_t *headers,
                    size_t header_count, size_t bytes, void **buffer);

/* The value of the first header of that name, in the message itself; NULL: there is none.
 * *value_bytes, if not NULL, is set when there is one. */
RINGSIDE_API const void *ringside_header_find(const ringside_message_t *message, const char *name,
                                              size_t *value_bytes);
/* All headers in their order: *cursor begins as 0. Returns 1 and fills in *header, or 0 at the end.
 * Name and value lie in the message, the name with a zero behind it. */
RINGSIDE_API int ringside_header_next(const ringside_message_t *message, size_t *cursor,
                                      ringside_header_t *header);

/*
 * Publishes a message as a request: those who subscribe to its subject may reply, the first reply
 * counts. `on_reply` is called exactly once, inside ringside_poll or ringside_close: with the
 * reply, or with why there is none; timeout_ns 0: 5 s. Where somebody answers, a queue group of
 * workers is what is wanted: each request goes to one of them. As ringside_publish it never waits,
 * and is legal in callbacks, that of a reply among them. RINGSIDE_E_LIMIT: requests_max of them
 * await replies.
 *
 * At most once: a request whose only taker ends before it answers is reported as lost, and may have
 * been done all the same. A session that a new broker took over reports all as lost; one that
 * resumes goes on awaiting them. Replies share the ring with messages: what policy drop leaves out
 * times out.
 */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t ringside_request(ringside_publisher_t *publisher,
                                                                    const void *data, size_t bytes,
                                                                    uint64_t timeout_ns,
                                                                    ringside_on_reply_t on_reply,
                                                                    void *arg);
/*
 * Replies to the request that a callback has been given, inside that callback; or later, by the
 * copy of message->request. As ringside_publish; RINGSIDE_WOULD_BLOCK: the ring is full, keep the
 * request and reply after the next ringside_poll. Each session may reply to each request that it
 * was given once, to the last 1,024 of them; the broker passes over any other reply.
 */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t ringside_reply(const ringside_message_t *message,
                                                                  const void *data, size_t bytes);
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t ringside_reply_to(ringside_client_t *client,
                                                                     ringside_request_id_t request,
                                                                     const void *data,
                                                                     size_t bytes);
/*
 * Asks and waits: the reply is copied to `reply`, its size is told in reply_bytes (not NULL only if
 * wanted). RINGSIDE_E_TOO_LARGE: it is larger than reply_bytes_max, and was not copied. Calls
 * ringside_poll meanwhile, so other callbacks run; not inside one.
 */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t ringside_call(ringside_publisher_t *publisher,
                                                                 const void *data, size_t bytes,
                                                                 uint64_t timeout_ns, void *reply,
                                                                 size_t reply_bytes_max,
                                                                 size_t *reply_bytes);

/*
 * Subscribes to a subject, "*" standing for one token and a last ">" for one or more. Returns when
 * every part of the broker knows it: what is published after that is seen. Where another
 * subscription of this client matches too, a few messages published just before may be seen as
 * well. A message that several subscriptions match comes once and goes to each callback, in the
 * order of subscribing.
 */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t ringside_subscribe(
    ringside_subscription_t **subscription, ringside_client_t *client, const char *subject,
    const ringside_subscribe_options_t *options, ringside_on_message_t on_message, void *arg);
/*
 * After it returns the callback is not called again and the subscription is gone, also when the
 * broker did not answer in time (RINGSIDE_E_TIMED_OUT); but not on RINGSIDE_E_STATE. NULL is fine.
 */
RINGSIDE_API ringside_status_t ringside_unsubscribe(ringside_subscription_t *subscription,
                                                    uint64_t timeout_ns);
/*
 * Ends a subscription without losing what it was chosen for: the broker gives it no new messages
 * (without a group: until it knows of this), ringside_poll hands over those that it was given, and
 * then event DRAINED tells that the subscription is gone. Does not wait, also legal in a callback.
 * RINGSIDE_E_STATE: it is ending already; ringside_unsubscribe may still cut it short.
 */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t
ringside_drain(ringside_subscription_t *subscription);

/*
 * Keeps a message where it lies, in the deliver ring, beyond its callback: without a copy, until
 * ringside_release. Legal in the callback that was given the message, and nowhere else.
 *
 * What is held holds the ring: nothing behind the oldest held message is given back to the broker.
 * Who holds for long is a slow subscriber once the ring is full, and its policy acts; for that,
 * ringside_message_copy is better. Holds outlive the link (the ring of a lost link stays until the
 * last hold in it is released) and also the session, but not the client: ringside_close ends them
 * all. RINGSIDE_E_LIMIT: hold_count_max are held. The first hold allocates, later ones do not.
 */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t ringside_hold(ringside_client_t *client,
                                                                 const ringside_message_t *message,
                                                                 ringside_hold_t **hold);
/* The held message, good until the release; NULL: it was released. */
RINGSIDE_API const ringside_message_t *ringside_hold_message(const ringside_hold_t *hold);
/* In any order, also in callbacks. NULL is fine. RINGSIDE_E_INVALID: it was released already. */
RINGSIDE_API ringside_status_t ringside_release(ringside_hold_t *hold);

/* A copy of a message with all that it points to, in memory of its own, for ringside_message_free
 * on any thread at any time. NULL: no memory. */
RINGSIDE_API ringside_message_t *ringside_message_copy(const ringside_message_t *message);
RINGSIDE_API void ringside_message_free(ringside_message_t *message);

/*
 * Does the client's work and hands over at most `limit` messages (0: no limit). Waits up to
 * timeout_ns for the first thing to do; 0: does not wait; UINT64_MAX: for ever. `handled`, if not
 * NULL, tells how many messages and events were handed over. Returns early with nothing handed over
 * when a signal handler ran, and when room came for which a publish or claim had found none.
 * RINGSIDE_E_LOST or RINGSIDE_E_CLOSED when the connection is gone and everything received was
 * handed over.
 */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t ringside_poll(ringside_client_t *client,
                                                                 size_t limit, uint64_t timeout_ns,
                                                                 size_t *handled);

/*
 * A descriptor that becomes readable when ringside_poll has work, for select, poll, epoll. Call
 * ringside_poll with timeout 0 until it handles nothing before waiting on it: that arms it.
 */
RINGSIDE_API int ringside_fd(ringside_client_t *client);

/* Waits until everything published so far arrived at the broker. */
RINGSIDE_API RINGSIDE_MUST_CHECK ringside_status_t ringside_flush(ringside_client_t *client,
                                                                  uint64_t timeout_ns);

/* What the connection is: "tcp", "shm", "rdma"; and a line that says why it was chosen. Both may
 * change with event RESUMED or RENEWED; the pointers are good until then. */
RINGSIDE_API const char *ringside_transport(const ringside_client_t *client);
RINGSIDE_API const char *ringside_transport_why(const ringside_client_t *client);
/* The largest message that publish takes, as agreed with the broker. */
RINGSIDE_API size_t ringside_message_bytes_max(const ringside_client_t *client);

/* Exact figures of the link that the client has now, for benchmarks and tests. Set struct_bytes
 * first. */
typedef struct ringside_link_stats {
    size_t struct_bytes;
    uint64_t placed_bytes, arrived_bytes;
    uint64_t batches_sent, batches_arrived;
    uint64_t sends, doorbells, receives; /* rdma: work requests, posts, completions; tcp: calls */
    uint64_t control_sent, control_received;
    uint64_t wake_requests, wakes_sent, sleeps;
    uint64_t credit_stalls, zerocopy_sends, zerocopy_copied;
    uint64_t resent_bytes; /* dpdk: that the network lost */
} ringside_link_stats_t;
RINGSIDE_API ringside_status_t ringside_stats(const ringside_client_t *client,
                                              ringside_link_stats_t *stats);

/* The text of the last failure of a call with this client; never NULL. */
RINGSIDE_API const char *ringside_error_text(const ringside_client_t *client);
/* The same for ringside_connect, which has no client to ask: per thread. */
RINGSIDE_API const char *ringside_last_error(void);
/* "RINGSIDE_E_INVALID" and so on. */
RINGSIDE_API const char *ringside_status_name(ringside_status_t status);
/* "0.1.0" of the library in use. */
RINGSIDE_API const char *ringside_version(void);

#ifdef __cplusplus
}
#endif
#endif
