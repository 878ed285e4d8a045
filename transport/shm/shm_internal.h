/*
 * The objects of the shm transport, and what its files offer each other.
 *
 * Design notes
 * - Files: listener.c the socket file and who may connect; control.c the life of a link; memory.c
 *   the memfds; packet.c the socket; datapath.c all that the owner thread does.
 * - Who reads the socket: the control thread until OPEN, the owner thread from then on until it
 *   detaches, nobody after that. Both may send: packets do not mix.
 * - What crosses the threads: link->base.state (control -> owner), the mailboxes, the poller's
 * slots (control fills, owner empties), and the one-shot flags below (owner -> control).
 */
#ifndef RSI_TRANSPORT_SHM_SHM_INTERNAL_H
#define RSI_TRANSPORT_SHM_SHM_INTERNAL_H

#include "core/arena.h"
#include "transport/shm/packet.h"
#include "transport/shm/shm_words.h"
#include "transport/transport.h"

#include <sys/un.h>

struct rsi_shm_domain {
    struct rsi_domain base;
    uint32_t *allowed_uids;
    uint32_t allowed_uid_count;
    int epoll_fd; /* listening sockets, and links that are CONNECTING */
    uint64_t connect_timeout_ns;
};

struct rsi_shm_listener {
    struct rsi_listener base;
    int socket_fd;
    int reserve_fd; /* given up for a moment to refuse a peer when no descriptor is left */
    struct sockaddr_un address;
    dev_t file_device; /* which socket file is ours */
    ino_t file_inode;
    char url[sizeof("shm://") + RSI_PATH_BYTES_MAX];
};

struct rsi_shm_link;

struct rsi_shm_poller {
    struct rsi_poller base;
    int epoll_fd; /* sockets of links from OPEN until they detach or hang up */

    /* Control thread. */
    uint32_t link_count; /* dialled and accepted, not yet CLOSED */

    /* Control thread puts a link in (release), owner thread takes it out. */
    _Atomic(struct rsi_shm_link *) *slots;
    _Atomic uint32_t slot_end; /* slots from here on were never used */

    /* Owner thread. */
    uint64_t next_look_ns; /* when the sockets are looked at without a doorbell */
    bool look_now;
};

/* What the control thread waits for between link_attach() and ATTACHED. */
enum rsi_shm_attach_step {
    RSI_SHM_ATTACH_IDLE,        /* link_attach() was not called */
    RSI_SHM_ATTACH_SEND_SIZES,  /* dialler: its ATTACH did not fit in the socket yet */
    RSI_SHM_ATTACH_WAIT_SIZES,  /* accepter: the dialler's ATTACH has not come */
    RSI_SHM_ATTACH_SEND_MEMORY, /* accepter: sizes agree; its ATTACH did not fit in the socket yet
                                 */
    RSI_SHM_ATTACH_WAIT_MEMORY, /* dialler: the accepter's ATTACH has not come */
    RSI_SHM_ATTACH_DONE,
};

struct rsi_shm_link {
    struct rsi_link base;

    /* Constant after dial or accept. */
    bool is_accepter;
    int socket_fd; /* open until CLOSED */

    /* Control thread. */
    struct sockaddr_un address;      /* dialler: whom it calls */
    struct rsi_poller_choice choice; /* accepter: until OPEN */
    bool is_connected;
    bool is_greeted;      /* our greeting is sent */
    bool is_watched;      /* in the domain's epoll set */
    bool is_in_slots;     /* the owner thread knows it */
    bool is_counted;      /* in poller->link_count */
    int peer_pidfd;       /* readable when the peer's process is dead; -1: not known */
    bool is_peer_watched; /* peer_pidfd is in the domain's epoll set */
    uint64_t connect_deadline_ns;
    uint64_t close_deadline_ns;
    enum rsi_shm_attach_step attach_step;
    struct rsi_link_rings rings;
    struct rsi_arena words_arena;

    /* One-shot reports, owner -> control thread; the plain fields are valid once the flag is. */
    struct rsi_attach peer_attach;
    int attach_fds[RSI_SHM_PACKET_FDS_MAX];
    uint32_t attach_fd_count;
    _Atomic bool is_peer_attach_here;
    _Atomic bool is_detached;

    /* Constant from ATTACHED on. */
    struct rsi_words *own_words;
    struct rsi_words *peer_words;

    RSI_SEPARATOR(before_owner);

    /* Owner thread. */
    bool is_joined;         /* it knows that the link is ATTACHED */
    bool is_dead;           /* failed or detached: nothing more is done for it */
    bool is_peer_gone;      /* end of file, or CLOSE: what it placed before is still read */
    bool is_closed_by_peer; /* of the two, CLOSE */
    bool is_socket_ready;   /* packets may wait in the socket */
    bool is_send_blocked;   /* the socket is full; EPOLLOUT tells when that changes */
    bool is_send_broken;    /* nobody will read what is sent */
    bool has_consumed_news; /* the peer's consumed position moved since the last pass */
    bool is_wake_owed;      /* the kernel had no memory for a WAKE */
    uint32_t held_bytes;    /* of held_control; 0: nothing is held */
    uint32_t slot;          /* set by the control thread before the slot is */
    uint64_t published_consumed_pos;
    uint64_t packets_sent;
    uint64_t packets_seen;
    uint64_t answered_generation; /* of the peer's sleep requests */
    uint64_t own_generation;      /* of ours */
    uint64_t own_generation_answered;
    uint64_t asked_arrived_pos; /* conditions of own_generation */
    uint64_t asked_consumed_pos;
    uint64_t wanted_consumed_pos;                /* by request_wake(); UINT64_MAX: never mind */
    uint8_t held_control[RSI_CONTROL_BYTES_MAX]; /* received, and the inbox was full */
    char close_text[RSI_SHM_CLOSE_TEXT_BYTES_MAX + 1];
};

static inline struct rsi_shm_domain *rsi_shm_domain(struct rsi_domain *domain)
{
    return rsi_container_of(domain, struct rsi_shm_domain, base);
}

static inline struct rsi_shm_listener *rsi_shm_listener(struct rsi_listener *listener)
{
    return rsi_container_of(listener, struct rsi_shm_listener, base);
}

static inline struct rsi_shm_poller *rsi_shm_poller(struct rsi_poller *poller)
{
    return rsi_container_of(poller, struct rsi_shm_poller, base);
}

static inline struct rsi_shm_link *rsi_shm_link(struct rsi_link *link)
{
    return rsi_container_of(link, struct rsi_shm_link, base);
}

/* ---- listener.c, control thread ------------------------------------------------------------- */

rsi_status_t rsi_shm_listener_create(struct rsi_listener **listener, struct rsi_domain *domain,
                                     const struct rsi_url *url, struct rsi_error *error);
void rsi_shm_listener_destroy(struct rsi_listener *listener);
const char *rsi_shm_listener_url(const struct rsi_listener *listener);
/*
 * Takes the next waiting peer that may connect. OK: `socket_fd` is the caller's, `peer_text` says
 * who. WOULD_BLOCK: nobody waits. DENIED: a user that is not allowed was sent away.
 */
rsi_status_t rsi_shm_listener_take(struct rsi_shm_listener *listener, int *socket_fd,
                                   char *peer_text, size_t peer_text_bytes,
                                   struct rsi_error *error);
/* Tells a peer why it is not served, and closes. */
void rsi_shm_turn_away(int socket_fd, const char *text);
/* "pid 4711 uid 1000" of the process at the other end. */
void rsi_shm_peer_describe(int socket_fd, char *text, size_t text_bytes);
void rsi_shm_address_set(struct sockaddr_un *address, const char *path);
/* A descriptor of the process at the other end; -1: it cannot be told (another pid namespace). */
int rsi_shm_peer_pidfd(int socket_fd);

/* ---- memory.c, control thread --------------------------------------------------------------- */

/* Accepter: makes and maps words pages and rings, empty at the start positions. */
rsi_status_t rsi_shm_memory_create(struct rsi_shm_link *link, struct rsi_error *error);
/* Accepter: the descriptors to hand over; returns how many. */
uint32_t rsi_shm_memory_fds(const struct rsi_shm_link *link, int fds[RSI_SHM_PACKET_FDS_MAX]);
/* Accepter: after they were sent. */
void rsi_shm_memory_close_fds(struct rsi_shm_link *link);
/* Dialler: maps what came with the ATTACH and closes the descriptors. */
rsi_status_t rsi_shm_memory_map(struct rsi_shm_link *link, struct rsi_error *error);
/* Unmaps; takes a link in any state. */
void rsi_shm_memory_fini(struct rsi_shm_link *link);

/* ---- datapath.c, owner thread --------------------------------------------------------------- */

void rsi_shm_place(struct rsi_link *link, uint64_t bytes);
rsi_status_t rsi_shm_flush(struct rsi_link *link);
void rsi_shm_publish_consumed(struct rsi_link *link);
void rsi_shm_request_wake(struct rsi_link *link, uint64_t in_arrived_at_least,
                          uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least);
uint32_t rsi_shm_poll_data(struct rsi_poller *poller, uint64_t now_ns);
bool rsi_shm_poller_arm(struct rsi_poller *poller);
void rsi_shm_poller_disarm(struct rsi_poller *poller);

/* How long a closing link goes on sending control messages to a peer that does not take them. */
#define RSI_SHM_CLOSE_NS UINT64_C(1000000000)

#endif
