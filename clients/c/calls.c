/*
 * Design notes: calls.h. Here also: ringside_request, ringside_call and the replies.
 */
#include "clients/c/calls.h"

#include "clients/c/client.h"
#include "core/assert.h"
#include "core/clock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct call {
    uint64_t number; /* uses << 32 | slot */
    uint64_t deadline_ns;
    uint32_t heap_at;
    bool is_awaited;
    bool is_lost;
    ringside_on_reply_t on_reply;
    void *arg;
};

struct rsi_client_calls {
    uint32_t count_max;
    uint32_t count;
    uint32_t *heap; /* slots of those awaited, count of them; the first is due first */
    uint32_t *free; /* slots of the others, a stack */
    struct call calls[];
};

/* ---- table --------------------------------------------------------------------------------------
 */

static rsi_status_t make_table(struct ringside_client *client)
{
    uint32_t count_max = client->options.requests_max;
    struct rsi_client_calls *calls = calloc(1, sizeof(*calls) + count_max * sizeof(struct call) +
                                                   2 * (size_t)count_max * sizeof(uint32_t));
    if (calls == NULL) {
        return rsi_fail(&client->error, RSI_E_NO_MEMORY,
                        "no memory for %" PRIu32 " requests; lower requests_max", count_max);
    }
    calls->count_max = count_max;
    calls->heap = (uint32_t *)(void *)&calls->calls[count_max];
    calls->free = calls->heap + count_max;
    for (uint32_t slot = 0; slot < count_max; slot++) {
        calls->free[slot] = count_max - 1 - slot;
    }
    client->calls = calls;
    return RSI_OK;
}

void rsi_client_calls_destroy(struct rsi_client_calls *calls)
{
    free(calls);
}

static uint64_t deadline_at(const struct rsi_client_calls *calls, uint32_t at)
{
    return calls->calls[calls->heap[at]].deadline_ns;
}

static void put_at(struct rsi_client_calls *calls, uint32_t at, uint32_t slot)
{
    calls->heap[at] = slot;
    calls->calls[slot].heap_at = at;
}

static void sift_up(struct rsi_client_calls *calls, uint32_t at)
{
    uint32_t slot = calls->heap[at];
    while (at > 0 && calls->calls[slot].deadline_ns < deadline_at(calls, (at - 1) / 2)) {
        put_at(calls, at, calls->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put_at(calls, at, slot);
}

static void sift_down(struct rsi_client_calls *calls, uint32_t at)
{
    uint32_t slot = calls->heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < calls->count && deadline_at(calls, child + 1) < deadline_at(calls, child)) {
            child++;
        }
        if (child >= calls->count || deadline_at(calls, child) >= calls->calls[slot].deadline_ns) {
            break;
        }
        put_at(calls, at, calls->heap[child]);
        at = child;
    }
    put_at(calls, at, slot);
}

static void enter(struct rsi_client_calls *calls, uint32_t slot)
{
    calls->calls[slot].is_awaited = true;
    put_at(calls, calls->count++, slot);
    sift_up(calls, calls->count - 1);
}

static void leave(struct rsi_client_calls *calls, uint32_t slot)
{
    uint32_t at = calls->calls[slot].heap_at;
    uint32_t last = calls->heap[--calls->count];
    calls->calls[slot].is_awaited = false;
    calls->free[calls->count_max - calls->count - 1] = slot;
    if (last != slot) {
        put_at(calls, at, last);
        sift_down(calls, at);
        sift_up(calls, calls->calls[last].heap_at);
    }
}

uint64_t rsi_client_calls_due_ns(const struct rsi_client_calls *calls)
{
    return calls == NULL || calls->count == 0 ? UINT64_MAX : deadline_at(calls, 0);
}

bool rsi_client_calls_any(const struct rsi_client_calls *calls)
{
    return calls != NULL && calls->count > 0;
}

/* ---- how they end -------------------------------------------------------------------------------
 */

static void answer(struct ringside_client *client, uint32_t slot, const ringside_reply_t *reply)
{
    struct call call = client->calls->calls[slot];
    leave(client->calls, slot);
    bool was_in_callback = client->is_in_callback;
    client->is_in_callback = true;
    call.on_reply(call.arg, reply);
    client->is_in_callback = was_in_callback;
}

size_t rsi_client_calls_expire(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_client_calls *calls = client->calls;
    size_t count = 0;
    size_t count_max = calls->count; /* a callback may ask again, with no time at all */
    while (calls->count > 0 && count < count_max && deadline_at(calls, 0) <= now_ns) {
        uint32_t slot = calls->heap[0];
        const ringside_reply_t reply = {
            .status = calls->calls[slot].is_lost ? RINGSIDE_E_LOST : RINGSIDE_E_TIMED_OUT};
        answer(client, slot, &reply);
        count++;
    }
    return count;
}

size_t rsi_client_calls_end(struct ringside_client *client, ringside_status_t status)
{
    struct rsi_client_calls *calls = client->calls;
    const ringside_reply_t reply = {.status = status};
    size_t count = 0;
    while (rsi_client_calls_any(calls)) { /* the session is over: none is added */
        answer(client, calls->heap[0], &reply);
        count++;
    }
    return count;
}

void rsi_client_calls_lose(struct rsi_client_calls *calls)
{
    for (uint32_t at = 0; calls != NULL && at < calls->count; at++) {
        struct call *call = &calls->calls[calls->heap[at]];
        call->is_lost = true;
        call->deadline_ns = 0; /* all of them: the heap stays one */
    }
}

size_t rsi_client_calls_take(struct ringside_client *client, const struct rsi_frame *frame)
{
    struct rsi_client_calls *calls = client->calls;
    uint64_t number = rsi_frame_entry_at(frame, 0).number;
    uint32_t slot = (uint32_t)number;
    if (calls == NULL || slot >= calls->count_max || calls->calls[slot].number != number ||
        !calls->calls[slot].is_awaited) {
        client->totals.unwanted_messages++; /* it came too late, or another one was first */
        return 0;
    }
    const ringside_reply_t reply = {
        .status = frame->header.sequence == RSI_REPLY_OK              ? RINGSIDE_OK
                  : frame->header.sequence == RSI_REPLY_NO_RESPONDERS ? RINGSIDE_E_NO_RESPONDERS
                                                                      : RINGSIDE_E_LOST,
        .data = frame->payload,
        .bytes = frame->header.payload_bytes,
    };
    answer(client, slot, &reply);
    return 1;
}

/* ---- asking -------------------------------------------------------------------------------------
 */

static rsi_status_t check_request(const struct ringside_publisher *publisher,
                                  ringside_on_reply_t on_reply)
{
    struct ringside_client *client = publisher->client;
    if (on_reply == NULL) {
        return rsi_fail(&client->error, RSI_E_INVALID, "ringside_request: on_reply is NULL");
    }
    if (publisher->object.state == RSI_OBJECT_OPEN && client->link->in.capacity_bytes == 0) {
        return rsi_fail(&client->error, RSI_E_STATE,
                        "ringside_request: this client connected with deliver_ring_bytes "
                        "UINT64_MAX: no reply could reach it");
    }
    if (client->calls == NULL) {
        rsi_status_t status = make_table(client);
        if (status != RSI_OK) {
            return status;
        }
    }
    if (client->calls->count == client->calls->count_max) {
        return rsi_fail(&client->error, RSI_E_LIMIT,
                        "ringside_request: %" PRIu32 " requests await their replies already "
                        "(requests_max in ringside_options_t): call ringside_poll",
                        client->calls->count_max);
    }
    return RSI_OK;
}

ringside_status_t ringside_request(ringside_publisher_t *publisher, const void *data, size_t bytes,
                                   uint64_t timeout_ns, ringside_on_reply_t on_reply, void *arg)
{
    struct ringside_client *client = publisher->client;
    rsi_status_t status = check_request(publisher, on_reply);
    if (rsi_unlikely(status != RSI_OK)) {
        return (ringside_status_t)status;
    }
    struct rsi_client_calls *calls = client->calls;
    uint32_t slot = calls->free[calls->count_max - calls->count - 1];
    struct call *call = &calls->calls[slot];
    uint64_t number = (((call->number >> 32) + 1) << 32) | slot;
    const struct rsi_frame_entry entry = {.number = number};
    status = rsi_client_send_frame(client, "ringside_request", publisher, &entry, data, bytes);
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    *call = (struct call){
        .number = number,
        .deadline_ns = rsi_client_deadline_ns(rsi_clock_now_ns(),
                                              timeout_ns == 0 ? RSI_CLIENT_TIMEOUT_NS : timeout_ns),
        .on_reply = on_reply,
        .arg = arg,
    };
    enter(calls, slot);
    return RINGSIDE_OK;
}

/* ---- answering ----------------------------------------------------------------------------------
 */

ringside_status_t ringside_reply_to(ringside_client_t *client, ringside_request_id_t request,
                                    const void *data, size_t bytes)
{
    const struct rsi_frame_entry entry = {.session = request.words[0], .number = request.words[1]};
    return (ringside_status_t)rsi_client_send_frame(client, "ringside_reply_to", NULL, &entry, data,
                                                    bytes);
}

ringside_status_t ringside_reply(const ringside_message_t *message, const void *data, size_t bytes)
{
    if (!message->is_request) {
        return (ringside_status_t)rsi_fail(&message->client->error, RSI_E_STATE,
                                           "ringside_reply: the message on %s is no request",
                                           message->subject);
    }
    return ringside_reply_to(message->client, message->request, data, bytes);
}

/* ---- asking and waiting -------------------------------------------------------------------------
 */

struct waiting {
    bool is_answered;
    ringside_status_t status;
    void *reply;
    size_t bytes_max;
    size_t bytes;
};

static void keep_reply(void *arg, const ringside_reply_t *reply)
{
    struct waiting *waiting = arg;
    waiting->is_answered = true;
    waiting->status = reply->status;
    waiting->bytes = reply->bytes;
    if (reply->bytes > 0 && reply->bytes <= waiting->bytes_max) {
        memcpy(waiting->reply, reply->data, reply->bytes);
    }
}

static rsi_status_t judge_reply(struct ringside_client *client, const struct waiting *waiting,
                                const ringside_publisher_t *publisher)
{
    if (waiting->status != RINGSIDE_OK) {
        return rsi_fail(&client->error, (rsi_status_t)waiting->status,
                        "ringside_call on \"%s\": %s", publisher->subject,
                        rsi_status_phrase((rsi_status_t)waiting->status));
    }
    if (waiting->bytes > waiting->bytes_max) {
        return rsi_fail(&client->error, RSI_E_TOO_LARGE,
                        "ringside_call on \"%s\": the reply has %zu bytes, and there is room for "
                        "%zu",
                        publisher->subject, waiting->bytes, waiting->bytes_max);
    }
    return RSI_OK;
}

ringside_status_t ringside_call(ringside_publisher_t *publisher, const void *data, size_t bytes,
                                uint64_t timeout_ns, void *reply, size_t reply_bytes_max,
                                size_t *reply_bytes)
{
    struct ringside_client *client = publisher->client;
    rsi_status_t status = rsi_client_enter_open(client, "ringside_call");
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    struct waiting waiting = {.reply = reply, .bytes_max = reply_bytes_max};
    uint64_t now_ns = rsi_clock_now_ns();
    uint64_t deadline_ns =
        rsi_client_deadline_ns(now_ns, timeout_ns == 0 ? RSI_CLIENT_TIMEOUT_NS : timeout_ns);
    bool is_asked = false;
    while (!waiting.is_answered) {
        now_ns = rsi_clock_now_ns();
        uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 1;
        if (!is_asked) {
            ringside_status_t asked =
                ringside_request(publisher, data, bytes, left_ns, keep_reply, &waiting);
            is_asked = asked == RINGSIDE_OK;
            if (asked < 0) {
                return asked;
            }
            if (!is_asked && now_ns >= deadline_ns) {
                return (ringside_status_t)rsi_fail(&client->error, RSI_E_TIMED_OUT,
                                                   "ringside_call on \"%s\": the ring is full",
                                                   publisher->subject);
            }
        }
        /* An end of the session answers what is awaited. */
        ringside_status_t polled = ringside_poll(client, 0, left_ns, NULL);
        if (polled < 0 && !waiting.is_answered && !is_asked) {
            return polled;
        }
        rsi_assert(polled >= 0 || waiting.is_answered);
    }
    if (reply_bytes != NULL) {
        *reply_bytes = waiting.bytes;
    }
    return (ringside_status_t)judge_reply(client, &waiting, publisher);
}
