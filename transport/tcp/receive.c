/*
 * What comes out of the socket: batches straight into the in ring, and small records.
 *
 * Design notes
 * - One recvmsg per batch, and no copy of its bytes. The call takes up to three parts: the rest
 *   of the batch that is being received; the 16 bytes of the next record's header (`carry`); and
 *   then, on the guess that this next record is a batch, what follows into the ring just where
 *   such a batch belongs. If the guess was wrong, or several records came at once, the bytes
 *   that stand in the wrong place are moved down (memmove towards the ring's readable end) or
 *   understood where they stand. The ring's free space belongs to nobody else, so what is
 *   written there ahead of time does no harm; where it is too small, the `spare` buffer takes
 *   its place.
 * - Nothing read ahead is ever more than RSI_TCP_AHEAD_BYTES_MAX: that bounds what is moved.
 * - arrived_pos moves at the end of a batch only, because only there a frame is sure to end.
 * - Control messages have credit, so the inbox has room for every one that comes; one that finds
 *   none was sent without credit. Reading never stops for anything but the end.
 * - Everything is a peer's word. What breaks the protocol fails the link with a text that names
 *   it.
 */
#include "core/position.h"
#include "transport/tcp/tcp_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { RECEIVE_PART_COUNT = 3 };

/* ---- the end --------------------------------------------------------------------------------- */

static RSI_COLD void end_of_stream(struct rsi_tcp_link *tcp)
{
    struct rsi_tcp_receive *receive = &tcp->receive;
    receive->has_ended = true;
    bool is_cut = receive->received_pos != receive->batch_end_pos || receive->carry_bytes != 0;
    if (is_cut) {
        rsi_link_fail(&tcp->base, RSI_E_LINK_LOST,
                      "%s: the peer closed the connection in the middle of a record; its process "
                      "has ended, look into its log",
                      tcp->base.peer_text);
    } else {
        rsi_link_fail(&tcp->base, RSI_E_LINK_LOST, "%s: the peer closed the connection",
                      tcp->base.peer_text);
    }
}

static RSI_COLD void receive_failed(struct rsi_tcp_link *tcp, int errno_value)
{
    tcp->receive.has_ended = true;
    if (errno_value == ETIMEDOUT || errno_value == EHOSTUNREACH || errno_value == ENETUNREACH) {
        rsi_link_fail(&tcp->base, RSI_E_LINK_LOST,
                      "%s: the peer's host no longer answers (%s); check the host and the network",
                      tcp->base.peer_text, strerrordesc_np(errno_value));
    } else {
        rsi_link_fail(&tcp->base, RSI_E_LINK_LOST,
                      "%s: the connection broke (%s): the peer's process ended, or something "
                      "between cut it",
                      tcp->base.peer_text, strerrordesc_np(errno_value));
    }
}

static RSI_COLD bool violation(struct rsi_tcp_link *tcp, const char *what, uint64_t told,
                               uint64_t expected)
{
    tcp->receive.has_ended = true;
    rsi_link_fail(&tcp->base, RSI_E_PROTOCOL,
                  "%s: the peer sent %s %" PRIu64 " where %" PRIu64 " was due", tcp->base.peer_text,
                  what, told, expected);
    return false;
}

static RSI_COLD bool excess(struct rsi_tcp_link *tcp, const char *what, uint64_t told,
                            uint64_t limit)
{
    tcp->receive.has_ended = true;
    rsi_link_fail(&tcp->base, RSI_E_PROTOCOL,
                  "%s: the peer sent %s %" PRIu64 ", at most %" PRIu64 " is allowed",
                  tcp->base.peer_text, what, told, limit);
    return false;
}

/* ---- where bytes lie ------------------------------------------------------------------------- */

static uint64_t batch_rest_bytes(const struct rsi_tcp_receive *receive)
{
    return receive->batch_end_pos - receive->received_pos;
}

/* Ring bytes that the peer may still fill from `from_pos` on. */
static uint64_t free_bytes(const struct rsi_tcp_link *tcp, uint64_t from_pos)
{
    if (!tcp->has_rings) {
        return 0;
    }
    return tcp->base.in.capacity_bytes - (from_pos - tcp->base.consumed_pos);
}

static const uint8_t *rest_data(const struct rsi_tcp_link *tcp)
{
    const struct rsi_tcp_receive *receive = &tcp->receive;
    const uint8_t *base =
        receive->rest_in_ring ? rsi_ring_at(&tcp->base.in, receive->received_pos) : receive->spare;
    return base + receive->rest_offset;
}

/* Moves bytes from the rest to the end of `carry`, until that holds `need_bytes`. */
static bool fill_carry(struct rsi_tcp_link *tcp, uint32_t need_bytes)
{
    struct rsi_tcp_receive *receive = &tcp->receive;
    uint32_t missing_bytes = need_bytes - receive->carry_bytes;
    uint32_t bytes = missing_bytes < receive->rest_bytes ? missing_bytes : receive->rest_bytes;
    memcpy(receive->carry + receive->carry_bytes, rest_data(tcp), bytes);
    receive->carry_bytes += bytes;
    receive->rest_offset += bytes;
    receive->rest_bytes -= bytes;
    return bytes == missing_bytes;
}

/* Moves bytes of the batch from the rest to their place in the ring. */
static void fill_batch(struct rsi_tcp_link *tcp)
{
    struct rsi_tcp_receive *receive = &tcp->receive;
    uint32_t bytes = (uint32_t)rsi_pos_min(batch_rest_bytes(receive), receive->rest_bytes);
    const uint8_t *from = rest_data(tcp);
    uint8_t *to = rsi_ring_at(&tcp->base.in, receive->received_pos);
    if (from != to) {
        memmove(to, from, bytes);
    }
    /* In the ring the offset counts from received_pos, and both went on by the same. */
    if (!receive->rest_in_ring) {
        receive->rest_offset += bytes;
    }
    receive->received_pos += bytes;
    receive->rest_bytes -= bytes;
}

/* ---- records --------------------------------------------------------------------------------- */

void rsi_tcp_show_consumed(struct rsi_tcp_link *tcp)
{
    uint64_t pos = tcp->told_consumed_pos;
    if (tcp->zerocopy != NULL && pos <= tcp->base.placed_pos) {
        pos = rsi_pos_min(pos, rsi_tcp_zerocopy_free_pos(tcp->zerocopy));
    }
    if (!rsi_link_peer_consumed(&tcp->base, pos)) {
        tcp->receive.has_ended = true;
    }
}

/* The peer's control thread has taken so many messages of ours. */
static bool take_control_credit(struct rsi_tcp_link *tcp, uint64_t taken_count)
{
    struct rsi_tcp_control *control = &tcp->control;
    if (taken_count < control->peer_taken_count || taken_count > control->sent_count) {
        return excess(tcp, "a count of control messages taken of", taken_count,
                      control->sent_count);
    }
    control->peer_taken_count = taken_count;
    return true;
}

static bool take_positions(struct rsi_tcp_link *tcp, const struct rsi_record_header *header,
                           const void *body)
{
    struct rsi_positions positions;
    memcpy(&positions, body, sizeof(positions));
    if (!take_control_credit(tcp, header->position)) {
        return false;
    }
    if (!tcp->has_rings || !tcp->has_peer_attach) {
        return true; /* they speak of rings that only one side has yet */
    }
    if (!rsi_link_peer_arrived(&tcp->base, positions.arrived_pos)) {
        tcp->receive.has_ended = true;
        return false;
    }
    tcp->told_consumed_pos = positions.consumed_pos;
    rsi_tcp_show_consumed(tcp);
    return !tcp->receive.has_ended;
}

void rsi_tcp_try_attached(struct rsi_tcp_link *tcp)
{
    if (!tcp->has_peer_attach || !tcp->has_rings || tcp->owed.attach) {
        return;
    }
    if (!rsi_link_try_attached(&tcp->base, &tcp->peer_attach, &tcp->rings,
                               &tcp->crossing.attached)) {
        tcp->receive.has_ended = true;
    }
}

static bool take_attach(struct rsi_tcp_link *tcp, const void *body)
{
    if (tcp->has_peer_attach) {
        return excess(tcp, "attach records, as many as", 2, 1);
    }
    memcpy(&tcp->peer_attach, body, sizeof(tcp->peer_attach));
    tcp->has_peer_attach = true;
    rsi_tcp_try_attached(tcp);
    return !tcp->receive.has_ended;
}

static bool take_control(struct rsi_tcp_link *tcp, const void *body, uint32_t bytes)
{
    struct rsi_tcp_control *control = &tcp->control;
    uint64_t waiting_count = control->received_count - control->reported_taken_count;
    if (waiting_count >= RSI_CONTROL_SLOT_COUNT) {
        return excess(tcp, "more control messages than it has credit for:", waiting_count + 1,
                      RSI_CONTROL_SLOT_COUNT);
    }
    rsi_status_t status = rsi_link_inbox_push(&tcp->base, body, bytes);
    rsi_assert(status == RSI_OK); /* what is in the inbox was not told as taken */
    control->received_count++;
    return true;
}

/* The complete record in `carry`. False: understand nothing more now. */
static bool take_record(struct rsi_tcp_link *tcp, const struct rsi_record_header *header)
{
    const uint8_t *body = tcp->receive.carry + RSI_RECORD_HEADER_BYTES;
    switch ((enum rsi_record_kind)header->kind) {
    case RSI_RECORD_POSITIONS:
        return take_positions(tcp, header, body);
    case RSI_RECORD_CONTROL:
        return take_control(tcp, body, header->bytes);
    case RSI_RECORD_ATTACH:
        return take_attach(tcp, body);
    case RSI_RECORD_WAKE_REQUEST:
        memcpy(&tcp->wanted, body, sizeof(tcp->wanted));
        return true;
    case RSI_RECORD_WAKE:
        tcp->requested.generation = 0;
        return take_positions(tcp, header, body);
    case RSI_RECORD_CLOSE:
        tcp->receive.carry_bytes = 0;
        end_of_stream(tcp);
        return false;
    case RSI_RECORD_GREETING:
    case RSI_RECORD_BATCH:
        break;
    }
    return violation(tcp, "a record of kind", header->kind, RSI_RECORD_BATCH);
}

/* Whether a record of this kind may have this length. */
static bool check_length(struct rsi_tcp_link *tcp, const struct rsi_record_header *header)
{
    static const uint32_t exact_bytes[] = {
        [RSI_RECORD_POSITIONS] = sizeof(struct rsi_positions),
        [RSI_RECORD_ATTACH] = sizeof(struct rsi_attach),
        [RSI_RECORD_WAKE_REQUEST] = sizeof(struct rsi_wake_request),
        [RSI_RECORD_WAKE] = sizeof(struct rsi_positions),
        [RSI_RECORD_CLOSE] = 0,
    };
    if (header->kind < RSI_RECORD_BATCH || header->kind > RSI_RECORD_CLOSE) {
        return violation(tcp, "a record of unknown kind", header->kind, RSI_RECORD_BATCH);
    }
    if (header->kind == RSI_RECORD_CONTROL) {
        if (header->bytes == 0) {
            return violation(tcp, "an empty control message, bytes", 0, 1);
        }
        return header->bytes <= RSI_CONTROL_BYTES_MAX ||
               excess(tcp, "a control message of bytes", header->bytes, RSI_CONTROL_BYTES_MAX);
    }
    return header->bytes == exact_bytes[header->kind] ||
           violation(tcp, "a record with bytes", header->bytes, exact_bytes[header->kind]);
}

static bool begin_batch(struct rsi_tcp_link *tcp, const struct rsi_record_header *header)
{
    struct rsi_tcp_receive *receive = &tcp->receive;
    if (header->position != receive->received_pos) {
        return violation(tcp, "a batch at position", header->position, receive->received_pos);
    }
    uint64_t credit_bytes = free_bytes(tcp, receive->received_pos);
    if (header->bytes > credit_bytes) {
        return excess(tcp, "a batch beyond its credit, bytes", header->bytes, credit_bytes);
    }
    if (header->bytes == 0 || !rsi_is_aligned(header->bytes, RSI_FRAME_ALIGN_BYTES)) {
        return violation(tcp, "a batch whose bytes are no multiple of 8:", header->bytes,
                         rsi_align_up_8((uint64_t)header->bytes + 1));
    }
    receive->batch_end_pos = receive->received_pos + header->bytes;
    return true;
}

/* A batch is being received: takes what there is of it. False: it is not complete. */
static bool go_on_with_batch(struct rsi_tcp_link *tcp)
{
    struct rsi_tcp_receive *receive = &tcp->receive;
    fill_batch(tcp);
    if (receive->received_pos != receive->batch_end_pos) {
        return false;
    }
    if (!rsi_link_arrived(&tcp->base, receive->batch_end_pos)) {
        receive->has_ended = true;
        return false;
    }
    return true;
}

/* Understands one record as far as it is there. False: nothing more can be understood now. */
static bool understand_one(struct rsi_tcp_link *tcp)
{
    struct rsi_tcp_receive *receive = &tcp->receive;
    if (tcp->base.arrived_pos != receive->batch_end_pos) {
        return go_on_with_batch(tcp);
    }
    if (receive->carry_bytes < RSI_RECORD_HEADER_BYTES &&
        !fill_carry(tcp, RSI_RECORD_HEADER_BYTES)) {
        return false;
    }
    struct rsi_record_header header;
    memcpy(&header, receive->carry, sizeof(header));
    if (rsi_likely(header.kind == RSI_RECORD_BATCH)) {
        receive->carry_bytes = 0;
        return begin_batch(tcp, &header);
    }
    if (!check_length(tcp, &header) || !fill_carry(tcp, RSI_RECORD_HEADER_BYTES + header.bytes) ||
        !take_record(tcp, &header)) {
        return false;
    }
    receive->carry_bytes = 0;
    return true;
}

static uint32_t understand(struct rsi_tcp_link *tcp)
{
    uint32_t count = 0;
    while (understand_one(tcp)) {
        count++;
    }
    return count;
}

/* ---- the socket ------------------------------------------------------------------------------ */

/* Bytes of the next record that `carry` lacks: of its header, or of the whole record. */
static uint32_t carry_missing_bytes(const struct rsi_tcp_receive *receive)
{
    if (receive->carry_bytes < RSI_RECORD_HEADER_BYTES) {
        return RSI_RECORD_HEADER_BYTES - receive->carry_bytes;
    }
    struct rsi_record_header header;
    memcpy(&header, receive->carry, sizeof(header));
    return RSI_RECORD_HEADER_BYTES + header.bytes - receive->carry_bytes;
}

/* Where bytes ahead of the next record go: into the ring if there is room worth while. */
static struct iovec ahead_part(struct rsi_tcp_link *tcp)
{
    struct rsi_tcp_receive *receive = &tcp->receive;
    uint64_t ring_bytes = free_bytes(tcp, receive->batch_end_pos);
    receive->rest_offset = 0;
    receive->rest_in_ring = ring_bytes >= RSI_TCP_SPARE_BYTES;
    if (!receive->rest_in_ring) {
        return (struct iovec){.iov_base = receive->spare, .iov_len = RSI_TCP_SPARE_BYTES};
    }
    return (struct iovec){
        .iov_base = rsi_ring_at(&tcp->base.in, receive->batch_end_pos),
        .iov_len = rsi_pos_min(ring_bytes, RSI_TCP_AHEAD_BYTES_MAX),
    };
}

/* The socket gave `bytes` into the parts: the batch's rest, carry, what is ahead. */
static void account(struct rsi_tcp_link *tcp, uint64_t bytes, uint32_t missing_bytes)
{
    struct rsi_tcp_receive *receive = &tcp->receive;
    uint64_t batch_bytes = rsi_pos_min(bytes, batch_rest_bytes(receive));
    receive->received_pos += batch_bytes;
    bytes -= batch_bytes;
    uint32_t carry_bytes = (uint32_t)rsi_pos_min(bytes, missing_bytes);
    receive->carry_bytes += carry_bytes;
    receive->rest_bytes = (uint32_t)(bytes - carry_bytes);
}

/* One recvmsg; nothing is left of the rest. Returns how many records it completed. */
static uint32_t receive_once(struct rsi_tcp_link *tcp)
{
    struct rsi_tcp_receive *receive = &tcp->receive;
    uint64_t before_pos = receive->received_pos;
    uint64_t batch_bytes = batch_rest_bytes(receive);
    uint32_t missing_bytes = carry_missing_bytes(receive);
    struct iovec parts[RECEIVE_PART_COUNT];
    size_t count = 0;
    if (batch_bytes != 0) {
        parts[count++] = (struct iovec){
            .iov_base = rsi_ring_at(&tcp->base.in, receive->received_pos), .iov_len = batch_bytes};
    }
    parts[count++] =
        (struct iovec){.iov_base = receive->carry + receive->carry_bytes, .iov_len = missing_bytes};
    parts[count] = ahead_part(tcp);
    uint64_t asked_bytes = batch_bytes + missing_bytes + parts[count].iov_len;
    count++;

    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t received_bytes = recvmsg(tcp->fd, &message, MSG_DONTWAIT);
    rsi_bump_relaxed(&tcp->base.stats.receives, 1);
    if (received_bytes <= 0) {
        receive->is_readable = received_bytes < 0 && errno == EINTR;
        if (received_bytes == 0) {
            end_of_stream(tcp);
        } else if (errno != EAGAIN && errno != EINTR) {
            receive_failed(tcp, errno);
        }
        return receive->has_ended ? 1 : 0;
    }
    /* Less than asked: the socket is empty, and epoll tells of what comes later. */
    receive->is_readable = (uint64_t)received_bytes == asked_bytes || receive->must_see_end;
    account(tcp, (uint64_t)received_bytes, missing_bytes);
    uint32_t record_count = understand(tcp);
    if (receive->received_pos != before_pos) {
        rsi_bump_relaxed(&tcp->base.stats.batches_arrived, 1);
    }
    return record_count;
}

uint32_t rsi_tcp_receive_some(struct rsi_tcp_link *tcp)
{
    struct rsi_tcp_receive *receive = &tcp->receive;
    uint32_t record_count = 0;
    for (uint32_t i = 0; i < RSI_TCP_RECEIVES_PER_PASS; i++) {
        if (!receive->is_readable || receive->has_ended) {
            break;
        }
        record_count += receive_once(tcp);
    }
    return record_count;
}

/* ---- completions ----------------------------------------------------------------------------- */

static const struct sock_extended_err *find_completion(struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR(message, part)) {
        bool is_error = (part->cmsg_level == SOL_IP && part->cmsg_type == IP_RECVERR) ||
                        (part->cmsg_level == SOL_IPV6 && part->cmsg_type == IPV6_RECVERR);
        const struct sock_extended_err *error = (const void *)CMSG_DATA(part);
        if (is_error && error->ee_origin == SO_EE_ORIGIN_ZEROCOPY && error->ee_errno == 0) {
            return error;
        }
    }
    return NULL;
}

void rsi_tcp_receive_completions(struct rsi_tcp_link *tcp)
{
    if (tcp->zerocopy == NULL) {
        return;
    }
    /* Bounded: there are no more completions than sends under way. */
    for (uint32_t i = 0; i < RSI_TCP_ZEROCOPY_COUNT_MAX; i++) {
        _Alignas(struct cmsghdr) uint8_t control[128];
        struct msghdr message = {.msg_control = control, .msg_controllen = sizeof(control)};
        if (recvmsg(tcp->fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
            return;
        }
        const struct sock_extended_err *completion = find_completion(&message);
        if (completion == NULL ||
            !rsi_tcp_zerocopy_complete(tcp->zerocopy, completion->ee_info, completion->ee_data)) {
            continue;
        }
        if ((completion->ee_code & SO_EE_CODE_ZEROCOPY_COPIED) != 0) {
            tcp->zerocopy->is_useless = true;
            rsi_bump_relaxed(&tcp->base.stats.zerocopy_copied,
                             (uint64_t)(completion->ee_data - completion->ee_info) + 1);
        }
    }
}
