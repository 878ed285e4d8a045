/*
 * What the owner thread does: bytes, positions, sleep and wake, and the packets of an open link.
 *
 * Design notes
 *
 * Bytes. The out ring is the peer's in ring. place() zeroes the word behind the batch, then
 * releases the batch's first word: who acquires that word sees the whole batch, and behind it a
 * zero until the next batch. The guard that writers keep free (RSI_RING_GUARD_BYTES) is room for
 * that zero. The bytes have arrived as soon as they are placed; flush() only asks whether somebody
 * must be woken.
 *
 * Positions. The reader publishes consumed_pos once per sixteenth of the ring, when it has read
 * all, and in its next pass; the writer looks at it only when half its room is gone or somebody
 * waits for it. So a link in balance exchanges one cache line per batch, the one with the data.
 *
 * Sleep and wake (Dekker). The sleeper writes its request, then a seq_cst fence, then looks at the
 * positions once more. The other side publishes a position, then a seq_cst fence, then looks at the
 * request. One of the two sees the other. Each generation of a request is answered once, by a
 * packet on the socket, because the sleeper waits in epoll. A send that says EAGAIN counts as an
 * answer: the socket is full of packets that the peer has not read, so its epoll set is readable,
 * it does not sleep, and before it does it looks at the positions again. A request stands until it
 * is answered or its conditions change: a sleeper that is woken for nothing writes none.
 *
 * Sockets. While nobody sleeps there is no system call: a count in the words page (packets_sent)
 * tells that a packet waits. Before ATTACHED there is no words page, and end of file rings no bell:
 * the epoll set is looked at every LOOK_NS, or sooner while a link needs it.
 *
 * Trust. Everything read from the rings and words is a peer's word and goes through a check that
 * fails the link. Each loop over what a peer sent is bounded per pass, so no peer keeps others
 * waiting.
 *
 * The end. After end of file, what was placed before is still walked; then the link fails. A
 * hung-up socket leaves the epoll set, which it would keep readable for ever.
 */
#include "transport/shm/shm_internal.h"

#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>

/* Frames that one pass takes over per link: some 16 KiB of the smallest, which stay in the cache
 * until the layer above reads them. */
#define FRAMES_PER_PASS  256u
#define PACKETS_PER_PASS 16u
#define EVENTS_PER_LOOK  32
/* How soon a thread that never sleeps notices a peer's end: one system call each time. */
#define LOOK_NS UINT64_C(10000000)
/* The same while a link is not attached yet, or its socket is full. */
#define LOOK_SOON_NS   UINT64_C(20000)
#define CONSUMED_SHARE 16

/* ---- wake ----------------------------------------------------------------------------------- */

/* Sends a packet and rings the bell for it. */
static rsi_status_t packet_send(struct rsi_shm_link *link, enum rsi_record_kind kind,
                                uint64_t position, struct rsi_shm_body body)
{
    rsi_status_t status = rsi_shm_packet_send(link->socket_fd, kind, position, body);
    if (status == RSI_OK && link->is_joined) {
        rsi_shm_words_ring_doorbell(link->own_words, ++link->packets_sent);
    }
    return status;
}

/* The peer made a sleep request that is not answered: answers it if its condition holds. */
static RSI_NOINLINE void answer_wake(struct rsi_shm_link *link, uint64_t generation)
{
    struct rsi_link *base = &link->base;
    uint64_t arrived_at_least;
    uint64_t consumed_at_least;
    rsi_shm_words_conditions(link->peer_words, &arrived_at_least, &consumed_at_least);
    if (arrived_at_least > base->placed_pos && consumed_at_least > link->published_consumed_pos) {
        link->is_wake_owed = false;
        return;
    }
    struct rsi_positions positions = {.arrived_pos = base->arrived_pos,
                                      .consumed_pos = link->published_consumed_pos};
    struct rsi_shm_body body = {.data = &positions, .bytes = sizeof(positions)};
    rsi_status_t status = packet_send(link, RSI_RECORD_WAKE, generation, body);
    if (status == RSI_E_SYSTEM) {
        link->is_wake_owed = true; /* no memory in the kernel: again in the next pass */
        return;
    }
    link->is_wake_owed = false;
    link->answered_generation = generation;
    if (status == RSI_OK) {
        rsi_bump_relaxed(&base->stats.wakes_sent, 1);
    } else {
        link->is_socket_ready = !link->is_peer_gone; /* full, or closed: what waits there tells */
    }
}

/* The caller has a seq_cst fence between what it published and this. */
static inline void look_at_sleeper(struct rsi_shm_link *link)
{
    uint64_t generation = rsi_shm_words_generation(link->peer_words);
    if (rsi_unlikely(generation != link->answered_generation)) {
        answer_wake(link, generation);
    }
}

/* The first call of the owner thread on an ATTACHED link. */
static RSI_NOINLINE void join(struct rsi_shm_link *link)
{
    link->is_joined = true;
    link->is_socket_ready = true; /* bells were not heard until now */
    /* What this side sent before had no bell. */
    rsi_shm_words_ring_doorbell(link->own_words, ++link->packets_sent);
}

/* ---- bytes and positions -------------------------------------------------------------------- */

void rsi_shm_place(struct rsi_link *base, uint64_t bytes)
{
    uint64_t end_pos = base->placed_pos + bytes;
    /* Before the release: a word of an old lap, or of a payload, must not look like a frame. */
    rsi_store_relaxed(rsi_atomic_u64_at(rsi_ring_at(&base->out, end_pos)), UINT64_C(0));
    /* Pairs with the acquire in walk(). */
    rsi_store_release(rsi_atomic_u64_at(rsi_ring_at(&base->out, base->placed_pos)),
                      base->head_word);
    base->placed_pos = end_pos;
    bool is_ours = rsi_link_peer_arrived(base, end_pos);
    rsi_assert(is_ours);
}

rsi_status_t rsi_shm_flush(struct rsi_link *base)
{
    struct rsi_shm_link *link = rsi_shm_link(base);
    if (base->flushed_pos == base->placed_pos) {
        return RSI_OK;
    }
    base->flushed_pos = base->placed_pos;
    rsi_bump_relaxed(&base->stats.batches_sent, 1);
    if (rsi_unlikely(!link->is_joined)) {
        join(link);
    }
    if (rsi_likely(!link->is_dead)) {
        rsi_fence_seq_cst(); /* pairs with the one in rsi_shm_poller_arm() */
        look_at_sleeper(link);
    }
    return RSI_OK;
}

static void publish_consumed(struct rsi_shm_link *link)
{
    link->published_consumed_pos = link->base.consumed_pos;
    rsi_shm_words_publish_consumed(link->own_words, link->published_consumed_pos);
}

static void publish_consumed_and_look(struct rsi_shm_link *link)
{
    publish_consumed(link);
    rsi_fence_seq_cst(); /* pairs with the one in rsi_shm_poller_arm() */
    look_at_sleeper(link);
}

void rsi_shm_publish_consumed(struct rsi_link *base)
{
    struct rsi_shm_link *link = rsi_shm_link(base);
    uint64_t waiting_bytes = base->consumed_pos - link->published_consumed_pos;
    if (rsi_unlikely(!link->is_joined || link->is_dead) ||
        (base->consumed_pos != base->arrived_pos &&
         waiting_bytes < base->in.capacity_bytes / CONSUMED_SHARE)) {
        return;
    }
    publish_consumed_and_look(link);
}

/* Looks at how far the peer has consumed. */
static void refresh_consumed(struct rsi_shm_link *link)
{
    struct rsi_link *base = &link->base;
    uint64_t told_pos = rsi_shm_words_consumed(link->peer_words);
    if (told_pos != base->peer_consumed_held_pos && rsi_link_peer_consumed(base, told_pos)) {
        link->has_consumed_news = true;
    }
    if (base->peer_consumed_pos >= link->wanted_consumed_pos) {
        link->wanted_consumed_pos = UINT64_MAX; /* what was waited for has come */
        link->has_consumed_news = true;
    }
}

static inline bool needs_consumed(const struct rsi_shm_link *link)
{
    const struct rsi_link *base = &link->base;
    return (base->staged_pos - base->peer_consumed_pos) * 2 >= base->out.capacity_bytes ||
           link->wanted_consumed_pos != UINT64_MAX;
}

static RSI_COLD void fail_frame(struct rsi_shm_link *link, uint64_t position, uint64_t frame_bytes,
                                uint64_t room_bytes)
{
    rsi_link_fail(&link->base, RSI_E_PROTOCOL,
                  "%s committed a frame of %" PRIu64 " bytes at position %" PRIu64
                  ", where a frame has from %u to %" PRIu64 " bytes",
                  link->base.peer_text, frame_bytes, position, RSI_FRAME_HEADER_BYTES, room_bytes);
}

/* The frame that is committed at arrived_pos; 0: none. */
static inline uint64_t frame_at(const struct rsi_link *base, uint64_t position)
{
    uint64_t word = rsi_load_acquire(rsi_atomic_u64_at(rsi_ring_at(&base->in, position)));
    return rsi_commit_frame_bytes(word, position);
}

/* Takes over what has arrived; returns how many frames, FRAMES_PER_PASS when there may be more. */
static uint32_t walk(struct rsi_shm_link *link)
{
    struct rsi_link *base = &link->base;
    if (base->in.capacity_bytes == 0) {
        return 0;
    }
    uint64_t limit_pos = base->consumed_pos + base->in.capacity_bytes - RSI_RING_GUARD_BYTES;
    uint64_t position = base->arrived_pos;
    uint32_t count = 0;
    while (count < FRAMES_PER_PASS) {
        uint64_t frame_bytes = frame_at(base, position);
        if (frame_bytes == 0) {
            break;
        }
        if (rsi_unlikely(frame_bytes < RSI_FRAME_HEADER_BYTES ||
                         frame_bytes > limit_pos - position)) {
            fail_frame(link, position, frame_bytes, limit_pos - position);
            return 0;
        }
        position += frame_bytes;
        count++;
    }
    if (count > 0 && rsi_link_arrived(base, position)) {
        rsi_bump_relaxed(&base->stats.batches_arrived, 1);
    }
    return count;
}

/* ---- packets -------------------------------------------------------------------------------- */

/* Tells epoll what this link waits for. */
static void watch(struct rsi_shm_link *link)
{
    struct rsi_shm_poller *poller = rsi_shm_poller(link->base.poller);
    struct epoll_event event = {.data.ptr = link};
    event.events = (link->held_bytes == 0 ? (uint32_t)(EPOLLIN | EPOLLRDHUP) : 0u) |
                   (link->is_send_blocked ? (uint32_t)EPOLLOUT : 0u);
    (void)epoll_ctl(poller->epoll_fd, EPOLL_CTL_MOD, link->socket_fd, &event);
}

static void unwatch(struct rsi_shm_link *link)
{
    struct rsi_shm_poller *poller = rsi_shm_poller(link->base.poller);
    (void)epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, link->socket_fd, NULL);
}

static RSI_COLD void peer_ended(struct rsi_shm_link *link)
{
    link->is_peer_gone = true;
    link->is_socket_ready = false;
    unwatch(link);
}

/* Nothing more is done for the link; the control thread learns it from rsi_link_fail(). */
static RSI_COLD void die(struct rsi_shm_link *link)
{
    link->is_dead = true;
    if (!link->is_peer_gone) {
        unwatch(link);
    }
}

static void take_attach(struct rsi_shm_link *link, struct rsi_shm_packet *packet)
{
    if (rsi_load_relaxed(&link->is_peer_attach_here)) {
        rsi_shm_packet_drop_fds(packet);
        rsi_link_fail(&link->base, RSI_E_PROTOCOL, "%s attached twice", link->base.peer_text);
        return;
    }
    link->peer_attach = packet->body.attach;
    memcpy(link->attach_fds, packet->fds, packet->fd_count * sizeof(packet->fds[0]));
    link->attach_fd_count = packet->fd_count;
    rsi_store_release(&link->is_peer_attach_here, true);
    rsi_waker_wake(link->base.poller->control_waker);
}

static void take_wake(struct rsi_shm_link *link, const struct rsi_shm_packet *packet)
{
    uint64_t generation = packet->header.position;
    if (generation == 0 || generation > link->own_generation ||
        generation <= link->own_generation_answered) {
        rsi_link_fail(&link->base, RSI_E_PROTOCOL,
                      "%s answered sleep request %" PRIu64 ", but requests %" PRIu64 " to %" PRIu64
                      " are unanswered",
                      link->base.peer_text, generation, link->own_generation_answered + 1,
                      link->own_generation);
        return;
    }
    link->own_generation_answered = generation;
}

/* Puts the held message into the inbox; false: there is no room yet. */
static bool unhold(struct rsi_shm_link *link)
{
    if (rsi_link_inbox_push(&link->base, link->held_control, link->held_bytes) != RSI_OK) {
        return false;
    }
    link->held_bytes = 0;
    watch(link);
    return true;
}

static void take_control(struct rsi_shm_link *link, const struct rsi_shm_packet *packet)
{
    uint32_t bytes = packet->header.bytes;
    if (rsi_link_inbox_push(&link->base, packet->body.control, bytes) == RSI_OK) {
        return;
    }
    memcpy(link->held_control, packet->body.control, bytes);
    link->held_bytes = bytes;
    watch(link); /* no news from a socket that is not read */
}

static void take_packet(struct rsi_shm_link *link, struct rsi_shm_packet *packet)
{
    switch (packet->header.kind) {
    case RSI_RECORD_CONTROL:
        take_control(link, packet);
        break;
    case RSI_RECORD_WAKE:
        take_wake(link, packet);
        break;
    case RSI_RECORD_ATTACH:
        take_attach(link, packet);
        break;
    case RSI_RECORD_CLOSE:
        link->is_closed_by_peer = true;
        rsi_shm_packet_close_text(packet, link->close_text, sizeof(link->close_text));
        peer_ended(link);
        break;
    default:
        rsi_link_fail(&link->base, RSI_E_PROTOCOL, "%s sent a packet of kind %u on an open link",
                      link->base.peer_text, packet->header.kind);
        break;
    }
}

/* Reads packets until there are none or the pass has enough; returns how many. */
static RSI_NOINLINE uint32_t receive_packets(struct rsi_shm_link *link)
{
    if (link->held_bytes != 0 && !unhold(link)) {
        return 0;
    }
    uint32_t count = 0;
    while (count < PACKETS_PER_PASS && link->is_socket_ready && link->held_bytes == 0 &&
           !rsi_load_relaxed(&link->base.failed)) {
        struct rsi_shm_packet packet;
        const char *why = NULL;
        rsi_status_t status =
            rsi_shm_packet_receive(link->socket_fd, !link->is_accepter, &packet, &why);
        if (status == RSI_OK) {
            count++;
            take_packet(link, &packet);
        } else if (status == RSI_WOULD_BLOCK) {
            link->is_socket_ready = false;
        } else if (status == RSI_E_LINK_LOST) {
            peer_ended(link);
        } else {
            rsi_link_fail(&link->base, status, "%s sent %s", link->base.peer_text, why);
        }
    }
    return count;
}

static inline bool can_send(const struct rsi_shm_link *link)
{
    return !link->is_send_blocked && !link->is_send_broken && !link->is_peer_gone;
}

/* Sends what the control thread left; returns how many messages. */
static uint32_t send_outbox(struct rsi_shm_link *link)
{
    uint32_t count = 0;
    struct rsi_shm_body body;
    while ((body.data = rsi_link_outbox_front(&link->base, &body.bytes)) != NULL) {
        rsi_status_t status = packet_send(link, RSI_RECORD_CONTROL, 0, body);
        if (status == RSI_WOULD_BLOCK) {
            rsi_bump_relaxed(&link->base.stats.credit_stalls, 1);
            link->is_send_blocked = true;
            watch(link);
            break;
        }
        if (status == RSI_E_SYSTEM) {
            break; /* no memory in the kernel: again in the next pass */
        }
        if (status != RSI_OK) {
            link->is_send_broken = true;
            link->is_socket_ready = true; /* the end waits there, behind what came before */
            break;
        }
        rsi_link_outbox_pop(&link->base);
        count++;
    }
    return count;
}

/* ---- a pass --------------------------------------------------------------------------------- */

static void look_soon(struct rsi_shm_poller *poller, uint64_t now_ns)
{
    if (poller->next_look_ns > now_ns + LOOK_SOON_NS) {
        poller->next_look_ns = now_ns + LOOK_SOON_NS;
    }
}

/*
 * The peer's end is closed and the inbox, which is full, keeps from reading what it sent before.
 * Epoll tells of this again and again, asked for or not: out of the set with it. An attached link
 * is read on when there is room; of another one nothing is to come.
 */
static RSI_COLD void hung_up_while_held(struct rsi_shm_link *link)
{
    unwatch(link);
    link->is_socket_ready = true;
    if (!link->is_joined) {
        rsi_link_fail(&link->base, RSI_E_LINK_LOST,
                      "%s ended without closing the link, and with more to say than was asked for",
                      link->base.peer_text);
    }
}

/* Asks epoll which sockets are ready. */
static RSI_NOINLINE void look_at_sockets(struct rsi_shm_poller *poller, uint64_t now_ns)
{
    struct epoll_event events[EVENTS_PER_LOOK];
    int count = epoll_wait(poller->epoll_fd, events, EVENTS_PER_LOOK, 0);
    for (int i = 0; i < count; i++) {
        struct rsi_shm_link *link = events[i].data.ptr;
        if ((events[i].events & EPOLLOUT) != 0 && link->is_send_blocked) {
            link->is_send_blocked = false;
            watch(link);
        }
        if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0) {
            link->is_socket_ready = true;
        }
        if (rsi_unlikely((events[i].events & (EPOLLHUP | EPOLLERR)) != 0 &&
                         link->held_bytes != 0)) {
            hung_up_while_held(link);
        }
    }
    poller->look_now = count == EVENTS_PER_LOOK;
    poller->next_look_ns = now_ns + LOOK_NS;
}

/* CLOSING: control messages first, for a while; then lets go of the link for ever. */
static RSI_NOINLINE uint32_t detach(struct rsi_shm_poller *poller, struct rsi_shm_link *link,
                                    uint64_t now_ns)
{
    if (!link->is_dead && !link->is_peer_gone) {
        (void)send_outbox(link);
        uint32_t bytes;
        bool is_sent = rsi_link_outbox_front(&link->base, &bytes) == NULL;
        if (!is_sent && !link->is_send_broken && now_ns < link->close_deadline_ns) {
            look_soon(poller, now_ns);
            return 0;
        }
        struct rsi_shm_body nothing = {0};
        (void)packet_send(link, RSI_RECORD_CLOSE, 0, nothing);
        die(link);
    }
    link->is_dead = true;
    struct rsi_waker *control_waker = poller->base.control_waker;
    rsi_store_release(&poller->slots[link->slot], NULL);
    /* Pairs with the acquire in link_poll_closing(); the link may be gone right after it. */
    rsi_store_release(&link->is_detached, true);
    rsi_waker_wake(control_waker);
    return 1;
}

/* The peer is gone and all that it placed has arrived. */
static RSI_COLD void fail_gone(struct rsi_shm_link *link)
{
    const char *who = link->base.peer_text;
    if (!link->is_closed_by_peer) {
        rsi_link_fail(&link->base, RSI_E_LINK_LOST, "%s ended without closing the link", who);
    } else if (link->close_text[0] == '\0') {
        rsi_link_fail(&link->base, RSI_E_LINK_CLOSED, "%s closed the link", who);
    } else {
        rsi_link_fail(&link->base, RSI_E_LINK_CLOSED, "%s closed the link: %s", who,
                      link->close_text);
    }
}

/* Whether the peer of an attached link sent packets. */
static inline void listen_for_bell(struct rsi_shm_link *link)
{
    uint64_t packets_sent = rsi_shm_words_packets(link->peer_words);
    if (rsi_unlikely(packets_sent != link->packets_seen)) {
        link->packets_seen = packets_sent;
        link->is_socket_ready = !link->is_peer_gone;
    }
}

/* Rings and words of an attached link; returns how many events. */
static inline uint32_t poll_memory(struct rsi_shm_link *link, bool refresh)
{
    uint32_t events = walk(link);
    if (refresh || needs_consumed(link)) {
        refresh_consumed(link);
    }
    if (link->has_consumed_news) {
        link->has_consumed_news = false;
        events++;
    }
    if (link->published_consumed_pos != link->base.consumed_pos) {
        publish_consumed_and_look(link); /* held back by less than a sixteenth, for one pass */
    } else if (rsi_unlikely(link->is_wake_owed)) {
        look_at_sleeper(link);
    }
    return events;
}

static uint32_t poll_link(struct rsi_shm_poller *poller, struct rsi_shm_link *link, uint64_t now_ns,
                          bool refresh)
{
    enum rsi_link_state state = rsi_link_state(&link->base);
    if (rsi_unlikely(state != RSI_LINK_ATTACHED)) {
        if (state == RSI_LINK_CLOSING) {
            return detach(poller, link, now_ns);
        }
        if (state == RSI_LINK_LOST && !link->is_dead) {
            die(link);
        }
    } else if (rsi_unlikely(!link->is_joined)) {
        join(link);
    }
    if (rsi_unlikely(link->is_dead)) {
        return 0;
    }
    if (rsi_unlikely(!link->is_joined || link->is_send_blocked)) {
        look_soon(poller, now_ns);
    }
    if (rsi_likely(link->is_joined)) {
        listen_for_bell(link);
    }
    uint32_t events = 0;
    if (rsi_unlikely(link->is_socket_ready || link->held_bytes != 0)) {
        events += receive_packets(link);
    }
    if (can_send(link)) {
        events += send_outbox(link);
    }
    uint32_t frame_events = link->is_joined ? poll_memory(link, refresh) : 0;
    if (rsi_unlikely(link->is_peer_gone && frame_events == 0 && link->held_bytes == 0)) {
        fail_gone(link);
    }
    if (rsi_unlikely(rsi_load_relaxed(&link->base.failed))) {
        die(link);
        return 1;
    }
    return events + frame_events;
}

uint32_t rsi_shm_poll_data(struct rsi_poller *base, uint64_t now_ns)
{
    struct rsi_shm_poller *poller = rsi_shm_poller(base);
    bool looked = poller->look_now || now_ns >= poller->next_look_ns;
    if (rsi_unlikely(looked)) {
        look_at_sockets(poller, now_ns);
    }
    uint32_t events = 0;
    uint32_t slot_end = rsi_load_acquire(&poller->slot_end);
    for (uint32_t i = 0; i < slot_end; i++) {
        /* Pairs with the release in slot_fill(). */
        struct rsi_shm_link *link = rsi_load_acquire(&poller->slots[i]);
        if (link != NULL) {
            events += poll_link(poller, link, now_ns, looked);
        }
    }
    return events;
}

/* ---- sleep ---------------------------------------------------------------------------------- */

void rsi_shm_request_wake(struct rsi_link *base, uint64_t in_arrived_at_least,
                          uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least)
{
    /* Any arrival wakes, and what was placed has arrived: only consumption is left to wait for. */
    (void)in_arrived_at_least;
    (void)peer_arrived_at_least;
    struct rsi_shm_link *link = rsi_shm_link(base);
    if (link->is_dead) {
        return;
    }
    if (!link->is_joined) {
        join(link);
    }
    link->wanted_consumed_pos = peer_consumed_at_least;
    refresh_consumed(link);
}

/* Writes the request that the peer will find, unless the standing one is the same. */
static void ask(struct rsi_shm_link *link)
{
    struct rsi_link *base = &link->base;
    if (link->published_consumed_pos != base->consumed_pos) {
        publish_consumed(link);
    }
    uint64_t arrived_pos =
        base->in.capacity_bytes == 0 ? UINT64_MAX : base->arrived_pos + RSI_FRAME_ALIGN_BYTES;
    bool stands = link->own_generation != link->own_generation_answered &&
                  link->asked_arrived_pos == arrived_pos &&
                  link->asked_consumed_pos == link->wanted_consumed_pos;
    if (stands) {
        return;
    }
    link->asked_arrived_pos = arrived_pos;
    link->asked_consumed_pos = link->wanted_consumed_pos;
    rsi_shm_words_request(link->own_words, arrived_pos, link->wanted_consumed_pos,
                          ++link->own_generation);
    rsi_bump_relaxed(&base->stats.wake_requests, 1);
}

/* Whether poll_data() has something to do for the link. The fence was made. */
static bool has_work(struct rsi_shm_link *link)
{
    enum rsi_link_state state = rsi_link_state(&link->base);
    if (link->is_dead) {
        return state == RSI_LINK_CLOSING;
    }
    uint32_t bytes;
    bool must_send = can_send(link) && rsi_link_outbox_front(&link->base, &bytes) != NULL;
    bool can_receive = link->held_bytes == 0 ? link->is_socket_ready
                                             : rsi_mailbox_free_count(&link->base.inbox) > 0;
    if (must_send || can_receive || link->is_peer_gone || state == RSI_LINK_LOST) {
        return true;
    }
    if (state == RSI_LINK_CLOSING) {
        return !link->is_send_blocked;
    }
    if (!link->is_joined) {
        return state == RSI_LINK_ATTACHED;
    }
    look_at_sleeper(link); /* ask() may have published consumed_pos */
    if (link->wanted_consumed_pos != UINT64_MAX) {
        refresh_consumed(link);
    }
    if (link->is_wake_owed || link->has_consumed_news) {
        return true;
    }
    return link->base.in.capacity_bytes != 0 && frame_at(&link->base, link->base.arrived_pos) != 0;
}

bool rsi_shm_poller_arm(struct rsi_poller *base)
{
    struct rsi_shm_poller *poller = rsi_shm_poller(base);
    uint32_t slot_end = rsi_load_acquire(&poller->slot_end);
    for (uint32_t i = 0; i < slot_end; i++) {
        struct rsi_shm_link *link = rsi_load_acquire(&poller->slots[i]);
        if (link != NULL && link->is_joined && !link->is_dead) {
            ask(link);
        }
    }
    rsi_fence_seq_cst(); /* pairs with those in rsi_shm_flush() and rsi_shm_publish_consumed() */
    bool is_quiet = true;
    for (uint32_t i = 0; i < slot_end; i++) {
        struct rsi_shm_link *link = rsi_load_acquire(&poller->slots[i]);
        if (link != NULL && has_work(link)) {
            is_quiet = false;
        }
    }
    return is_quiet;
}

void rsi_shm_poller_disarm(struct rsi_poller *base)
{
    rsi_shm_poller(base)->look_now = true;
}
