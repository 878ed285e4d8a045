/*
 * The way of a message out: claim, commit, publish.
 *
 * Design notes
 * - A claim is a promise to nobody: it takes room at staged_pos and moves nothing, so abort has
 *   nothing to undo. One claim at a time, because the next one would be given the same place.
 * - One check decides the common case: refuses_publish is set by whatever makes publishing
 *   impossible, and only then is the reason looked for.
 * - Every field of the header is written, and the padding zeroed: the ring holds an older lap, and
 *   what is not written would carry another message's bytes to the broker.
 * - While the session has no link, messages go into the ring of the one it lost, until that is
 *   full: placing and flushing do nothing there, and the next link takes over what was staged.
 * - When the ring is full, the poller alone is asked whether the peer has consumed meanwhile. No
 *   control message is taken and no callback called, so publishing stays legal inside callbacks.
 */
#include "clients/c/client.h"

#include "core/assert.h"
#include "core/clock.h"
#include "proto/headers.h"
#include "transport/frame.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- slow ways out ------------------------------------------------------------------------------
 */

/* `publisher` NULL: of a reply. */
static RSI_COLD rsi_status_t refuse_of(struct ringside_client *client,
                                       const struct ringside_publisher *publisher, const char *call)
{
    if (client->fork_count != rsi_client_fork_count) {
        return rsi_fail(&client->error, RSI_E_STATE,
                        "%s: this process was forked after the client connected; connect anew in "
                        "the child",
                        call);
    }
    if (client->phase >= RSI_CLIENT_ENDING) {
        return rsi_fail(&client->error, client->end_status, "%s: the session is over: %s", call,
                        client->end_error.text);
    }
    if (client->claim != NULL || publisher == NULL) {
        return rsi_fail(&client->error, RSI_E_STATE,
                        "%s: a claim on \"%s\" is open: commit or abort it first", call,
                        client->claim != NULL ? client->claim->subject : "");
    }
    if (publisher->object.state == RSI_OBJECT_OPENING) {
        return rsi_fail(&client->error, RSI_WOULD_BLOCK,
                        "%s: the publisher on \"%s\" is not open yet: poll until event OPENED",
                        call, publisher->subject);
    }
    return rsi_fail(&client->error, RSI_E_STATE, "%s: the broker refused the publisher on \"%s\"",
                    call, publisher->subject);
}

static RSI_COLD rsi_status_t refuse(struct ringside_publisher *publisher, const char *call)
{
    return refuse_of(publisher->client, publisher, call);
}

static RSI_COLD rsi_status_t refuse_size(struct ringside_client *client, size_t bytes,
                                         uint32_t headers_bytes)
{
    char headers[64] = "";
    if (headers_bytes > 0) {
        snprintf(headers, sizeof(headers), " and headers of %u bytes", headers_bytes);
    }
    return rsi_fail(&client->error, RSI_E_TOO_LARGE,
                    "a message of %zu bytes%s: this connection takes at most %" PRIu64
                    ". A larger limit needs a larger message_bytes_max and a publish_ring_bytes of "
                    "%u times that in ringside_options_t, and the broker's consent",
                    bytes, headers, client->message_bytes_max, RSI_RING_PER_MESSAGE);
}

/* The part of a pass that is legal anywhere. */
static RSI_NOINLINE void poll_link(struct ringside_client *client, uint64_t now_ns)
{
    (void)rsi_poller_poll(client->poller, now_ns);
}

static RSI_NOINLINE struct rsi_frame_header *claim_slow(struct ringside_client *client,
                                                        uint64_t frame_bytes)
{
    rsi_link_place(client->link);
    (void)rsi_link_flush(client->link); /* what cannot go now goes with poll_data */
    poll_link(client, rsi_clock_now_ns());
    struct rsi_frame_header *header = rsi_frame_claim(client->link, frame_bytes);
    client->room_wanted_bytes = header == NULL ? frame_bytes : 0;
    client->totals.full_events += header == NULL;
    return header;
}

/* Long since anything left: see RSI_CLIENT_EMIT_INTERVAL_NS. */
static RSI_NOINLINE void emit_overdue(struct ringside_client *client, uint64_t now_ns)
{
    poll_link(client, now_ns);
    (void)rsi_link_flush(client->link);
    uint64_t end_ns = rsi_clock_now_ns();
    uint64_t interval_ns = RSI_CLIENT_EMIT_COST_FACTOR * (end_ns - now_ns);
    if (interval_ns < RSI_CLIENT_EMIT_INTERVAL_NS) {
        interval_ns = RSI_CLIENT_EMIT_INTERVAL_NS;
    }
    if (interval_ns > RSI_CLIENT_EMIT_INTERVAL_MAX_NS) {
        interval_ns = RSI_CLIENT_EMIT_INTERVAL_MAX_NS;
    }
    client->emit_due_ns = end_ns + interval_ns;
}

/* ---- the common way
 * ------------------------------------------------------------------------------ */

static inline bool may_publish_any(const struct ringside_client *client)
{
    return !client->refuses_publish && client->fork_count == rsi_client_fork_count;
}

static inline bool may_publish(const struct ringside_publisher *publisher)
{
    return may_publish_any(publisher->client) && publisher->object.state == RSI_OBJECT_OPEN;
}

static inline struct rsi_frame_header *claim_frame(struct ringside_client *client,
                                                   uint64_t frame_bytes)
{
    struct rsi_frame_header *header = rsi_frame_claim(client->link, frame_bytes);
    if (rsi_unlikely(header == NULL)) {
        return claim_slow(client, frame_bytes);
    }
    client->room_wanted_bytes = 0;
    return header;
}

/* The frame is complete: sends it on its way. */
static inline void emit_frame(struct ringside_client *client, uint64_t frame_bytes, uint64_t bytes,
                              uint64_t now_ns)
{
    struct rsi_link *link = client->link;
    rsi_frame_commit(link, frame_bytes);
    rsi_link_place(link);
    (void)rsi_link_flush_clocked(link); /* what cannot go now goes with poll_data */
    if (link->flushed_pos == link->placed_pos) {
        client->emit_due_ns = now_ns + RSI_CLIENT_EMIT_INTERVAL_NS;
    } else if (rsi_unlikely(now_ns > client->emit_due_ns)) {
        emit_overdue(client, now_ns);
    }
    client->totals.published_messages++;
    client->totals.published_bytes += bytes;
}

/* Headers and payload lie behind the frame's header: completes the frame and sends it on its way.
 */
static inline void send_frame(struct ringside_publisher *publisher, struct rsi_frame_header *header,
                              uint32_t headers_bytes, uint64_t bytes)
{
    struct ringside_client *client = publisher->client;
    uint64_t now_ns = rsi_clock_now_ns();
    uint64_t frame_bytes = rsi_frame_bytes(headers_bytes, bytes);

    header->payload_bytes = (uint32_t)bytes;
    header->type = RSI_FRAME_MESSAGE;
    header->flags = 0;
    header->headers_bytes = (uint16_t)headers_bytes;
    header->publication = publisher->alias;
    header->generation = 0;
    header->entry_count = 0;
    header->sequence = 0;
    /* The same reading of the counter serves both clocks. */
    header->publish_time_ns = now_ns + (uint64_t)rsi_clock_thread.realtime_offset_ns;
    uint64_t used_bytes = RSI_FRAME_HEADER_BYTES + headers_bytes + bytes;
    memset((uint8_t *)header + used_bytes, 0, frame_bytes - used_bytes);

    emit_frame(client, frame_bytes, bytes, now_ns);
}

rsi_status_t rsi_client_send_frame(struct ringside_client *client, const char *call,
                                   const struct ringside_publisher *publisher,
                                   const struct rsi_frame_entry *entry, const void *data,
                                   size_t bytes)
{
    bool may = publisher != NULL ? may_publish(publisher) : may_publish_any(client);
    if (rsi_unlikely(!may)) {
        return refuse_of(client, publisher, call);
    }
    if (rsi_unlikely(client->link->out.capacity_bytes == 0)) {
        return rsi_fail(&client->error, RSI_E_STATE,
                        "%s: this client connected with publish_ring_bytes UINT64_MAX: it never "
                        "publishes",
                        call);
    }
    if (rsi_unlikely(bytes > client->message_bytes_max)) {
        return refuse_size(client, bytes, 0);
    }
    uint64_t entry_at = rsi_frame_bytes(0, bytes);
    struct rsi_frame_header *header = claim_frame(client, entry_at + sizeof(*entry));
    if (rsi_unlikely(header == NULL)) {
        return RSI_WOULD_BLOCK;
    }
    uint64_t now_ns = rsi_clock_now_ns();
    *header = (struct rsi_frame_header){
        .payload_bytes = (uint32_t)bytes,
        .type = publisher != NULL ? RSI_FRAME_REQUEST : RSI_FRAME_REPLY,
        .publication = publisher != NULL ? publisher->alias : 0,
        .entry_count = 1,
        .publish_time_ns = now_ns + (uint64_t)rsi_clock_thread.realtime_offset_ns,
    };
    if (rsi_likely(bytes > 0)) {
        memcpy(header + 1, data, bytes);
    }
    uint64_t used_bytes = RSI_FRAME_HEADER_BYTES + bytes;
    memset((uint8_t *)header + used_bytes, 0, entry_at - used_bytes);
    memcpy((uint8_t *)header + entry_at, entry, sizeof(*entry));
    emit_frame(client, entry_at + sizeof(*entry), bytes, now_ns);
    return RSI_OK;
}

ringside_status_t ringside_publish(ringside_publisher_t *publisher, const void *data, size_t bytes)
{
    struct ringside_client *client = publisher->client;
    if (rsi_unlikely(!may_publish(publisher))) {
        return (ringside_status_t)refuse(publisher, "ringside_publish");
    }
    if (rsi_unlikely(bytes > client->message_bytes_max)) {
        return (ringside_status_t)refuse_size(client, bytes, 0);
    }
    struct rsi_frame_header *header = claim_frame(client, rsi_frame_bytes(0, bytes));
    if (rsi_unlikely(header == NULL)) {
        return RINGSIDE_WOULD_BLOCK;
    }
    if (rsi_likely(bytes > 0)) {
        memcpy(header + 1, data, bytes);
    }
    send_frame(publisher, header, 0, bytes);
    return RINGSIDE_OK;
}

/* ---- headers
 * ------------------------------------------------------------------------------------- */

static RSI_COLD rsi_status_t refuse_header(struct ringside_client *client, size_t index,
                                           const char *name, size_t name_bytes, const char *wrong,
                                           size_t at)
{
    int shown_bytes = (int)(name_bytes > 64 ? 64 : name_bytes);
    return rsi_fail(&client->error, RSI_E_INVALID,
                    "header %zu, \"%.*s\": its name %s (at byte %zu); 1 to %u bytes of printable "
                    "ASCII without space and \":\" are allowed",
                    index, shown_bytes, name, wrong, at, RSI_HEADER_NAME_BYTES_MAX);
}

static RSI_COLD rsi_status_t refuse_headers_size(struct ringside_client *client, size_t index,
                                                 const char *name, uint64_t bytes)
{
    return rsi_fail(&client->error, RSI_E_TOO_LARGE,
                    "header %zu, \"%.64s\": with it the headers take %" PRIu64
                    " bytes, and those of one message may take %u; what is larger belongs into the "
                    "data",
                    index, name, bytes, RSI_HEADERS_BYTES_MAX);
}

/* How many bytes the headers take in a frame; each is checked. */
static rsi_status_t measure_headers(struct ringside_client *client,
                                    const ringside_header_t *headers, size_t header_count,
                                    uint32_t *headers_bytes)
{
    uint64_t bytes = 0;
    if (headers == NULL && header_count > 0) {
        return rsi_fail(&client->error, RSI_E_INVALID,
                        "%zu headers, but the pointer to them is NULL", header_count);
    }
    for (size_t index = 0; index < header_count; index++) {
        const ringside_header_t *header = &headers[index];
        if (header->name == NULL || (header->value == NULL && header->value_bytes > 0)) {
            return rsi_fail(&client->error, RSI_E_INVALID, "header %zu, \"%.64s\": its %s is NULL",
                            index, header->name == NULL ? "" : header->name,
                            header->name == NULL ? "name" : "value");
        }
        size_t name_bytes = strnlen(header->name, RSI_HEADER_NAME_BYTES_MAX + 1);
        size_t at = 0;
        const char *wrong = rsi_header_name_check(header->name, name_bytes, &at);
        if (rsi_unlikely(wrong != NULL)) {
            return refuse_header(client, index, header->name, name_bytes, wrong, at);
        }
        bool is_too_large = header->value_bytes > RSI_HEADERS_BYTES_MAX;
        bytes += rsi_header_entry_bytes(name_bytes, is_too_large ? 0 : header->value_bytes);
        if (rsi_unlikely(is_too_large || bytes > RSI_HEADERS_BYTES_MAX)) {
            return refuse_headers_size(client, index, header->name,
                                       is_too_large ? header->value_bytes : bytes);
        }
    }
    *headers_bytes = (uint32_t)rsi_headers_padded_bytes(bytes);
    return RSI_OK;
}

/* Writes them behind the frame's header; returns where the payload begins. */
static uint8_t *put_headers(struct rsi_frame_header *header, const ringside_header_t *headers,
                            size_t header_count, uint32_t headers_bytes)
{
    uint8_t *start = (uint8_t *)(header + 1);
    uint8_t *at = start;
    for (size_t index = 0; index < header_count; index++) {
        at = rsi_header_put(at, headers[index].name, strlen(headers[index].name),
                            headers[index].value, headers[index].value_bytes);
    }
    memset(at, 0, (size_t)(start + headers_bytes - at));
    return start + headers_bytes;
}

/* Room for a message with headers, and these in it; what is NULL on failure has its text. */
static rsi_status_t claim_with(struct ringside_publisher *publisher, const char *call,
                               const ringside_header_t *headers, size_t header_count, size_t bytes,
                               struct rsi_frame_header **frame, uint32_t *headers_bytes)
{
    struct ringside_client *client = publisher->client;
    if (rsi_unlikely(!may_publish(publisher))) {
        return refuse(publisher, call);
    }
    rsi_status_t status = measure_headers(client, headers, header_count, headers_bytes);
    if (rsi_unlikely(status != RSI_OK)) {
        return status;
    }
    if (rsi_unlikely(*headers_bytes > client->message_bytes_max ||
                     bytes > client->message_bytes_max - *headers_bytes)) {
        return refuse_size(client, bytes, *headers_bytes);
    }
    struct rsi_frame_header *header = claim_frame(client, rsi_frame_bytes(*headers_bytes, bytes));
    if (rsi_unlikely(header == NULL)) {
        return RSI_WOULD_BLOCK;
    }
    (void)put_headers(header, headers, header_count, *headers_bytes);
    *frame = header;
    return RSI_OK;
}

ringside_status_t ringside_publish_with(ringside_publisher_t *publisher,
                                        const ringside_header_t *headers, size_t header_count,
                                        const void *data, size_t bytes)
{
    struct rsi_frame_header *header = NULL;
    uint32_t headers_bytes = 0;
    rsi_status_t status = claim_with(publisher, "ringside_publish_with", headers, header_count,
                                     bytes, &header, &headers_bytes);
    if (rsi_unlikely(status != RSI_OK)) {
        return (ringside_status_t)status;
    }
    if (rsi_likely(bytes > 0)) {
        memcpy((uint8_t *)(header + 1) + headers_bytes, data, bytes);
    }
    send_frame(publisher, header, headers_bytes, bytes);
    return RINGSIDE_OK;
}

static inline void keep_claim(struct ringside_publisher *publisher, struct rsi_frame_header *header,
                              uint32_t headers_bytes, size_t bytes)
{
    struct ringside_client *client = publisher->client;
    client->claim = publisher;
    client->claim_bytes = bytes;
    client->claim_header = header;
    client->claim_headers_bytes = headers_bytes;
    client->refuses_publish = true;
}

ringside_status_t ringside_claim_with(ringside_publisher_t *publisher,
                                      const ringside_header_t *headers, size_t header_count,
                                      size_t bytes, void **buffer)
{
    struct rsi_frame_header *header = NULL;
    uint32_t headers_bytes = 0;
    rsi_status_t status = claim_with(publisher, "ringside_claim_with", headers, header_count, bytes,
                                     &header, &headers_bytes);
    if (rsi_unlikely(status != RSI_OK)) {
        return (ringside_status_t)status;
    }
    keep_claim(publisher, header, headers_bytes, bytes);
    *buffer = (uint8_t *)(header + 1) + headers_bytes;
    return RINGSIDE_OK;
}

/* ---- claim and commit
 * ---------------------------------------------------------------------------- */

ringside_status_t ringside_claim(ringside_publisher_t *publisher, size_t bytes, void **buffer)
{
    struct ringside_client *client = publisher->client;
    if (rsi_unlikely(!may_publish(publisher))) {
        return (ringside_status_t)refuse(publisher, "ringside_claim");
    }
    if (rsi_unlikely(bytes > client->message_bytes_max)) {
        return (ringside_status_t)refuse_size(client, bytes, 0);
    }
    struct rsi_frame_header *header = claim_frame(client, rsi_frame_bytes(0, bytes));
    if (rsi_unlikely(header == NULL)) {
        return RINGSIDE_WOULD_BLOCK;
    }
    keep_claim(publisher, header, 0, bytes);
    *buffer = header + 1;
    return RINGSIDE_OK;
}

/* The session went over to another link while the claim was open: what was filled in lies in the
 * rings that it left. They had room for it, so the new ones, which hold no more, have it too. */
static RSI_COLD struct rsi_frame_header *fetch_claim(struct ringside_client *client, size_t bytes)
{
    uint32_t headers_bytes = client->claim_headers_bytes;
    struct rsi_frame_header *header =
        rsi_frame_claim(client->link, rsi_frame_bytes(headers_bytes, bytes));
    rsi_assert(header != NULL);
    memcpy(header + 1, client->claim_header + 1, headers_bytes + bytes);
    client->is_claim_left_behind = false;
    return header;
}

static RSI_COLD rsi_status_t refuse_commit(struct ringside_publisher *publisher, size_t bytes)
{
    struct ringside_client *client = publisher->client;
    if (client->claim != publisher) {
        return rsi_fail(&client->error, RSI_E_STATE, "ringside_commit: no claim on \"%s\" is open",
                        publisher->subject);
    }
    return rsi_fail(&client->error, RSI_E_INVALID,
                    "ringside_commit of %zu bytes, but %" PRIu64
                    " were claimed; the claim stays open",
                    bytes, client->claim_bytes);
}

ringside_status_t ringside_commit(ringside_publisher_t *publisher, size_t bytes)
{
    struct ringside_client *client = publisher->client;
    if (rsi_unlikely(client->claim != publisher || bytes > client->claim_bytes)) {
        return (ringside_status_t)refuse_commit(publisher, bytes);
    }
    client->claim = NULL;
    client->refuses_publish = client->phase >= RSI_CLIENT_ENDING;
    if (rsi_unlikely(!may_publish(publisher))) {
        client->is_claim_left_behind = false;
        return (ringside_status_t)refuse(publisher, "ringside_commit");
    }
    struct rsi_frame_header *header = client->claim_header;
    if (rsi_unlikely(client->is_claim_left_behind)) {
        header = fetch_claim(client, bytes);
    }
    send_frame(publisher, header, client->claim_headers_bytes, bytes);
    return RINGSIDE_OK;
}

void ringside_abort(ringside_publisher_t *publisher)
{
    if (publisher == NULL || publisher->client->claim != publisher) {
        return;
    }
    publisher->client->claim = NULL;
    publisher->client->is_claim_left_behind = false;
    publisher->client->refuses_publish = publisher->client->phase >= RSI_CLIENT_ENDING;
}
