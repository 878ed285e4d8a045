/*
 * What goes into the socket: batches straight from the out ring, and small records.
 *
 * Design notes
 * - One sendmsg takes a batch's record header, its bytes (contiguous in the ring, thanks to the
 *   second mapping) and whatever small records are owed just then. The batch stands first: so
 *   the reader, who guesses that the next record is a batch, receives it in place (receive.c).
 * - The socket may take any part. What was composed goes out to its last byte before anything
 *   else is composed, because a record once begun must be finished. Nothing is composed for a
 *   full socket: what is placed meanwhile becomes one larger batch.
 * - Positions go along with any other send, and by themselves only when rsi_tcp_report_is_due()
 *   or the peer asked to be woken. A report per batch would double the sends.
 * - Control messages wait in the outbox until the peer has room for them, so that reading never
 *   stops: the credit comes with the peer's positions.
 * - By reference (MSG_ZEROCOPY): the kernel reads header and bytes until it says that it is
 *   done, so the header lies in the tracker, and small records, whose memory is used again at
 *   once, go with a send of their own.
 * - A failed send is not yet the end: the peer may have sent things before it went, and these
 *   are read first. The reading side then meets the end itself and reports it.
 */
#include "core/position.h"
#include "transport/tcp/tcp_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    SEND_PART_COUNT = 3, /* header, ring, small records */
    /* Positions and the end, which come after control messages. */
    SMALL_RESERVE_BYTES = 2 * RSI_RECORD_HEADER_BYTES + sizeof(struct rsi_positions),
};

/* ---- small records --------------------------------------------------------------------------- */

static uint32_t small_room(const struct rsi_tcp_send *send)
{
    return RSI_TCP_SMALL_BYTES - send->small_end;
}

static void small_append(struct rsi_tcp_send *send, enum rsi_record_kind kind, uint64_t position,
                         const void *body, uint32_t body_bytes)
{
    struct rsi_record_header header = {
        .kind = (uint8_t)kind,
        .bytes = body_bytes,
        .position = position,
    };
    rsi_assert(small_room(send) >= sizeof(header) + body_bytes);
    memcpy(send->small + send->small_end, &header, sizeof(header));
    if (body_bytes != 0) {
        memcpy(send->small + send->small_end + sizeof(header), body, body_bytes);
    }
    send->small_end += (uint32_t)sizeof(header) + body_bytes;
}

bool rsi_tcp_wake_is_due(const struct rsi_tcp_link *tcp)
{
    const struct rsi_wake_request *wanted = &tcp->wanted;
    return wanted->generation != 0 && (tcp->base.arrived_pos >= wanted->arrived_at_least ||
                                       tcp->base.consumed_pos >= wanted->consumed_at_least);
}

uint64_t rsi_tcp_taken_count(struct rsi_tcp_link *tcp)
{
    uint32_t free_count = rsi_mailbox_free_count(&tcp->base.inbox);
    return tcp->control.received_count - (RSI_CONTROL_SLOT_COUNT - free_count);
}

/* Does not look at the shared count where all that came was told as taken. */
static bool has_taken(struct rsi_tcp_link *tcp, uint64_t least_count)
{
    const struct rsi_tcp_control *control = &tcp->control;
    return control->received_count != control->reported_taken_count &&
           rsi_tcp_taken_count(tcp) - control->reported_taken_count >= least_count;
}

static bool has_moved(const struct rsi_tcp_link *tcp)
{
    return tcp->base.consumed_pos != tcp->reported_consumed_pos ||
           tcp->base.arrived_pos != tcp->reported_arrived_pos;
}

bool rsi_tcp_report_is_due(struct rsi_tcp_link *tcp, uint64_t now_ns)
{
    if (has_taken(tcp, RSI_TCP_CONTROL_REPORT_COUNT)) {
        return true;
    }
    if (!tcp->has_rings) {
        return false;
    }
    uint64_t consumed_bytes = tcp->base.consumed_pos - tcp->reported_consumed_pos;
    if (consumed_bytes > 0 &&
        consumed_bytes >= tcp->base.in.capacity_bytes / RSI_TCP_REPORTS_PER_RING) {
        return true;
    }
    return has_moved(tcp) && now_ns - tcp->reported_ns >= RSI_TCP_REPORT_INTERVAL_NS;
}

static void compose_positions(struct rsi_tcp_link *tcp, enum rsi_record_kind kind)
{
    struct rsi_positions positions = {
        .arrived_pos = tcp->base.arrived_pos,
        .consumed_pos = tcp->base.consumed_pos,
    };
    uint64_t taken_count = rsi_tcp_taken_count(tcp);
    small_append(&tcp->send, kind, taken_count, &positions, sizeof(positions));
    tcp->control.reported_taken_count = taken_count;
    tcp->reported_arrived_pos = positions.arrived_pos;
    tcp->reported_consumed_pos = positions.consumed_pos;
    tcp->reported_ns = rsi_tcp_poller(tcp->base.poller)->now_ns;
}

static void compose_attach(struct rsi_tcp_link *tcp)
{
    struct rsi_attach attach;
    rsi_attach_init(&attach, &tcp->rings);
    small_append(&tcp->send, RSI_RECORD_ATTACH, 0, &attach, sizeof(attach));
    tcp->owed.attach = false;
    rsi_tcp_try_attached(tcp);
}

static bool has_control_credit(const struct rsi_tcp_link *tcp)
{
    const struct rsi_tcp_control *control = &tcp->control;
    return control->sent_count - control->peer_taken_count < tcp->base.peer_greeting.control_credit;
}

static void compose_control(struct rsi_tcp_link *tcp)
{
    uint32_t bytes;
    const void *message;
    while (has_control_credit(tcp) &&
           small_room(&tcp->send) >= RSI_TCP_RECORD_BYTES_MAX + SMALL_RESERVE_BYTES &&
           (message = rsi_link_outbox_front(&tcp->base, &bytes)) != NULL) {
        small_append(&tcp->send, RSI_RECORD_CONTROL, 0, message, bytes);
        tcp->control.sent_count++;
        rsi_link_outbox_pop(&tcp->base);
    }
}

/* `has_batch`: a batch goes with the same send. */
static void compose_small(struct rsi_tcp_link *tcp, bool has_batch)
{
    struct rsi_tcp_send *send = &tcp->send;
    send->small_begin = 0;
    send->small_end = 0;
    if (tcp->owed.attach) {
        compose_attach(tcp);
    }
    if (tcp->owed.wake_request) {
        small_append(send, RSI_RECORD_WAKE_REQUEST, 0, &tcp->requested, sizeof(tcp->requested));
        tcp->owed.wake_request = false;
    }
    if (rsi_tcp_wake_is_due(tcp)) {
        compose_positions(tcp, RSI_RECORD_WAKE);
        tcp->wanted.generation = 0;
        rsi_bump_relaxed(&tcp->base.stats.wakes_sent, 1);
    } else if (rsi_tcp_report_is_due(tcp, rsi_tcp_poller(tcp->base.poller)->now_ns)) {
        compose_positions(tcp, RSI_RECORD_POSITIONS);
    }
    compose_control(tcp);
    bool has_company = send->small_end != 0 || (has_batch && !send->by_reference);
    if (has_company && (has_moved(tcp) || has_taken(tcp, 1))) {
        compose_positions(tcp, RSI_RECORD_POSITIONS);
    }
    if (tcp->owed.close && rsi_mailbox_is_empty(&tcp->base.outbox)) {
        small_append(send, RSI_RECORD_CLOSE, 0, NULL, 0);
        tcp->owed.close = false;
        tcp->owed.close_is_sent = true;
    }
}

/* ---- batches --------------------------------------------------------------------------------- */

/* What was placed and not flushed becomes a batch. Not while leaving: it is lost then. */
static bool has_batch_to_send(const struct rsi_tcp_link *tcp)
{
    return tcp->has_rings && !tcp->is_leaving && tcp->base.placed_pos != tcp->base.flushed_pos;
}

static void compose_batch(struct rsi_tcp_link *tcp)
{
    struct rsi_tcp_send *send = &tcp->send;
    struct rsi_link *link = &tcp->base;
    uint64_t bytes = link->placed_pos - link->flushed_pos;
    uint64_t reference_bytes_min = rsi_tcp_domain(link->poller->domain)->zerocopy_bytes_min;
    send->by_reference = tcp->zerocopy != NULL && bytes >= reference_bytes_min &&
                         !tcp->zerocopy->is_useless && rsi_tcp_zerocopy_has_room(tcp->zerocopy);
    struct rsi_record_header *header =
        send->by_reference ? rsi_tcp_zerocopy_header(tcp->zerocopy) : &send->batch_header;
    *header = (struct rsi_record_header){
        .kind = RSI_RECORD_BATCH,
        .bytes = (uint32_t)bytes, /* a ring is at most 1 GiB */
        .position = link->flushed_pos,
    };
    send->header = (const uint8_t *)header;
    send->header_bytes = RSI_RECORD_HEADER_BYTES;
    send->ring_pos = link->flushed_pos;
    send->ring_end_pos = link->placed_pos;
    link->flushed_pos = link->placed_pos;
    link->under_way = true;
    rsi_bump_relaxed(&link->stats.batches_sent, 1);
}

/* ---- the socket ------------------------------------------------------------------------------ */

bool rsi_tcp_send_is_empty(const struct rsi_tcp_link *tcp)
{
    const struct rsi_tcp_send *send = &tcp->send;
    return send->header_bytes == 0 && send->ring_pos == send->ring_end_pos &&
           send->small_begin == send->small_end;
}

/* True: there is something to send. */
static bool compose(struct rsi_tcp_link *tcp)
{
    bool has_batch = has_batch_to_send(tcp);
    tcp->send.by_reference = false;
    if (has_batch) {
        compose_batch(tcp);
    }
    compose_small(tcp, has_batch);
    return !rsi_tcp_send_is_empty(tcp);
}

bool rsi_tcp_wants_to_send(struct rsi_tcp_link *tcp)
{
    if (tcp->send.is_blocked || tcp->send.failure != 0) {
        return false;
    }
    return !rsi_tcp_send_is_empty(tcp) || tcp->owed.attach || tcp->owed.wake_request ||
           (tcp->owed.close && rsi_mailbox_is_empty(&tcp->base.outbox)) ||
           rsi_tcp_wake_is_due(tcp) ||
           rsi_tcp_report_is_due(tcp, rsi_tcp_poller(tcp->base.poller)->now_ns) ||
           (has_control_credit(tcp) && !rsi_mailbox_is_empty(&tcp->base.outbox)) ||
           (tcp->base.under_way && has_batch_to_send(tcp));
}

static size_t part_add(struct iovec *parts, size_t count, const void *data, uint64_t bytes)
{
    if (bytes == 0) {
        return count;
    }
    parts[count] = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
    return count + 1;
}

static uint64_t take(uint64_t *sent_bytes, uint64_t part_bytes)
{
    uint64_t bytes = rsi_pos_min(*sent_bytes, part_bytes);
    *sent_bytes -= bytes;
    return bytes;
}

/* The socket took `sent_bytes` of what was composed. */
static void advance(struct rsi_tcp_send *send, uint64_t sent_bytes)
{
    uint64_t header_bytes = take(&sent_bytes, send->header_bytes);
    if (header_bytes != 0) { /* before the first batch there is none to point at */
        send->header += header_bytes;
        send->header_bytes -= (uint32_t)header_bytes;
    }
    send->ring_pos += take(&sent_bytes, send->ring_end_pos - send->ring_pos);
    send->small_begin += (uint32_t)take(&sent_bytes, send->small_end - send->small_begin);
    rsi_assert(sent_bytes == 0);
}

/* The kernel reads the bytes of this send for a while. */
static RSI_NOINLINE void note_reference(struct rsi_tcp_link *tcp, uint64_t start_pos)
{
    struct rsi_tcp_send *send = &tcp->send;
    rsi_tcp_zerocopy_add(tcp->zerocopy, start_pos);
    rsi_bump_relaxed(&tcp->base.stats.zerocopy_sends, 1);
    /* The rest of a header that was cut would have to stay under two numbers: copy what is left. */
    if (send->header_bytes != 0 || !rsi_tcp_zerocopy_has_room(tcp->zerocopy)) {
        send->by_reference = false;
    }
}

/* OK: try again or go on. WOULD_BLOCK: the socket is full. Else: no send any more. */
static RSI_COLD rsi_status_t send_failed(struct rsi_tcp_link *tcp, int errno_value)
{
    struct rsi_tcp_send *send = &tcp->send;
    if (errno_value == EINTR) {
        return RSI_OK;
    }
    if (errno_value == EAGAIN) {
        send->is_blocked = true;
        rsi_bump_relaxed(&tcp->base.stats.credit_stalls, 1);
        return RSI_WOULD_BLOCK;
    }
    if (errno_value == ENOBUFS && send->by_reference) {
        send->by_reference = false; /* too much pinned: not an error, this one is copied */
        return RSI_OK;
    }
    send->failure = errno_value;
    return RSI_E_LINK_LOST;
}

/* One sendmsg. */
static rsi_status_t send_once(struct rsi_tcp_link *tcp)
{
    struct rsi_tcp_send *send = &tcp->send;
    uint64_t ring_bytes = send->ring_end_pos - send->ring_pos;
    bool by_reference = send->by_reference && send->header_bytes + ring_bytes != 0;
    struct iovec parts[SEND_PART_COUNT];
    size_t count = part_add(parts, 0, send->header, send->header_bytes);
    if (ring_bytes != 0) {
        count = part_add(parts, count, rsi_ring_at(&tcp->base.out, send->ring_pos), ring_bytes);
    }
    if (!by_reference) {
        count = part_add(parts, count, send->small + send->small_begin,
                         send->small_end - send->small_begin);
    }
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (by_reference ? MSG_ZEROCOPY : 0);
    ssize_t sent_bytes = sendmsg(tcp->fd, &message, flags);
    rsi_bump_relaxed(&tcp->base.stats.sends, 1);
    rsi_bump_relaxed(&tcp->base.stats.doorbells, 1);
    if (rsi_unlikely(sent_bytes < 0)) {
        return send_failed(tcp, errno);
    }
    uint64_t start_pos = send->ring_pos;
    advance(send, (uint64_t)sent_bytes);
    if (by_reference) {
        note_reference(tcp, start_pos);
    }
    return RSI_OK;
}

rsi_status_t rsi_tcp_send_all(struct rsi_tcp_link *tcp)
{
    if (rsi_unlikely(tcp->send.failure != 0)) {
        return RSI_E_LINK_LOST;
    }
    if (tcp->send.is_blocked) {
        return RSI_WOULD_BLOCK;
    }
    /* Bounded: each round sends bytes, and what can be composed is bounded by the out ring and by
     * the outbox, whose other end is filled meanwhile at most by one control thread. */
    while (!rsi_tcp_send_is_empty(tcp) || compose(tcp)) {
        rsi_status_t status = send_once(tcp);
        if (rsi_unlikely(status != RSI_OK)) {
            return status;
        }
    }
    return RSI_OK;
}
