/*
 * What is common to the links of all transports: memory, state, failure, mailboxes.
 *
 * Design notes
 * - The control thread alone writes link->state, with release; the owner thread reads it with
 * acquire and so sees rings and start positions when it sees ATTACHED.
 * - A failure that the owner thread finds goes through link->failure and link->failed (release),
 * once; the control thread takes it over (acquire) and makes the step to LOST. The first reason
 * stands: what fails after it is a consequence.
 * - Full mailboxes. The pushing side says so in a flag, then tries once more; the popping side
 * pops, then looks at the flag. Both have a seq_cst fence between their store and their load, so
 * either the second try succeeds or the popping side sees the flag and wakes the pushing one.
 */
#include "transport/transport.h"

#include "core/assert.h"
#include "core/position.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------------------------------
 */

void *rsi_link_alloc(size_t bytes)
{
    rsi_assert(bytes >= sizeof(struct rsi_link));
    size_t rounded_bytes = rsi_align_up(bytes, _Alignof(struct rsi_link));
    void *link = aligned_alloc(_Alignof(struct rsi_link), rounded_bytes);
    if (link != NULL) {
        memset(link, 0, rounded_bytes);
    }
    return link;
}

void rsi_link_free(void *link)
{
    free(link);
}

rsi_status_t rsi_link_init(struct rsi_link *link, const struct rsi_transport *transport,
                           struct rsi_poller *poller, struct rsi_error *error)
{
    static _Atomic uint64_t last_id;

    memset(link, 0, sizeof(*link));
    rsi_status_t status =
        rsi_mailbox_init(&link->inbox, RSI_CONTROL_BYTES_MAX, RSI_CONTROL_SLOT_COUNT, error);
    if (status != RSI_OK) {
        return status;
    }
    status = rsi_mailbox_init(&link->outbox, RSI_CONTROL_BYTES_MAX, RSI_CONTROL_SLOT_COUNT, error);
    if (status != RSI_OK) {
        rsi_mailbox_fini(&link->inbox);
        return status;
    }
    link->transport = transport;
    link->poller = poller;
    link->id = rsi_fetch_add_relaxed(&last_id, 1) + 1;
    rsi_store_relaxed(&link->state, RSI_LINK_CONNECTING);
    return RSI_OK;
}

void rsi_link_fini(struct rsi_link *link)
{
    rsi_mailbox_fini(&link->outbox);
    rsi_mailbox_fini(&link->inbox);
}

void rsi_link_set_start(struct rsi_link *link, const struct rsi_link_rings *rings)
{
    uint64_t out_pos = rings->out_bytes == 0 ? 0 : rings->out_start_pos;
    uint64_t out_consumed_pos = rings->out_bytes == 0 ? 0 : rings->out_consumed_pos;
    uint64_t in_pos = rings->in_bytes == 0 ? 0 : rings->in_start_pos;
    uint64_t in_consumed_pos = rings->in_bytes == 0 ? 0 : rings->in_consumed_pos;
    link->staged_pos = out_pos;
    link->placed_pos = out_pos;
    link->flushed_pos = out_pos;
    link->peer_arrived_pos = out_pos;
    link->peer_consumed_pos = out_consumed_pos;
    link->peer_consumed_held_pos = out_consumed_pos;
    link->arrived_pos = in_pos;
    link->consumed_pos = in_consumed_pos;
}

/* ---- state -------------------------------------------------------------------------------------
 */

#define STEP(state) (1u << RSI_LINK_##state)

/* The legal steps: bit `to` of step_table[from]. */
static const uint32_t step_table[] = {
    [RSI_LINK_CONNECTING] = STEP(OPEN) | STEP(LOST) | STEP(CLOSING),
    [RSI_LINK_OPEN] = STEP(ATTACHING) | STEP(LOST) | STEP(CLOSING),
    [RSI_LINK_ATTACHING] = STEP(ATTACHED) | STEP(LOST) | STEP(CLOSING),
    [RSI_LINK_ATTACHED] = STEP(LOST) | STEP(CLOSING),
    [RSI_LINK_LOST] = STEP(CLOSING),
    [RSI_LINK_CLOSING] = STEP(CLOSED),
    [RSI_LINK_CLOSED] = 0,
};

static const char *const state_names[] = {
    [RSI_LINK_CONNECTING] = "CONNECTING",
    [RSI_LINK_OPEN] = "OPEN",
    [RSI_LINK_ATTACHING] = "ATTACHING",
    [RSI_LINK_ATTACHED] = "ATTACHED",
    [RSI_LINK_LOST] = "LOST",
    [RSI_LINK_CLOSING] = "CLOSING",
    [RSI_LINK_CLOSED] = "CLOSED",
};

const char *rsi_link_state_name(enum rsi_link_state state)
{
    return (uint32_t)state < rsi_array_count(state_names) ? state_names[state] : "unknown";
}

void rsi_link_set_state(struct rsi_link *link, enum rsi_link_state to)
{
    enum rsi_link_state from = rsi_link_state(link);
    rsi_assert((uint32_t)to < rsi_array_count(step_table));
    rsi_assert((step_table[from] & 1u << to) != 0);
    /* Pairs with the acquire in rsi_link_state(). */
    rsi_store_release(&link->state, (uint32_t)to);
    rsi_waker_wake(link->poller->owner_waker);
}

/* Whether the link can still become LOST. */
static bool link_can_fail(const struct rsi_link *link)
{
    return (step_table[rsi_link_state(link)] & STEP(LOST)) != 0;
}

/* ---- failure -----------------------------------------------------------------------------------
 */

void rsi_link_fail(struct rsi_link *link, rsi_status_t status, const char *format, ...)
{
    if (rsi_load_relaxed(&link->failed)) {
        return;
    }
    char text[RSI_ERROR_TEXT_BYTES];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    (void)rsi_fail(&link->failure, status, "%s", text);
    /* Pairs with the acquire in rsi_link_take_failure(). */
    rsi_store_release(&link->failed, true);
    rsi_waker_wake(link->poller->control_waker);
}

void rsi_link_lose_error(struct rsi_link *link, const struct rsi_error *error)
{
    if (link_can_fail(link)) {
        link->error = *error;
        rsi_link_set_state(link, RSI_LINK_LOST);
    }
}

void rsi_link_lose(struct rsi_link *link, rsi_status_t status, const char *format, ...)
{
    char text[RSI_ERROR_TEXT_BYTES];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    struct rsi_error error = {0};
    (void)rsi_fail(&error, status, "%s", text);
    rsi_link_lose_error(link, &error);
}

bool rsi_link_take_failure(struct rsi_link *link)
{
    /* Pairs with the release in rsi_link_fail(). */
    if (!rsi_load_acquire(&link->failed) || !link_can_fail(link)) {
        return false;
    }
    rsi_link_lose_error(link, &link->failure);
    return true;
}

/* ---- mailboxes ---------------------------------------------------------------------------------
 */

/* Pushes; when full, leaves word in `full` and tries once more. */
static rsi_status_t push_or_mark(struct rsi_mailbox *mailbox, _Atomic uint32_t *full,
                                 const void *data, uint32_t bytes)
{
    rsi_status_t status = rsi_mailbox_push(mailbox, data, bytes);
    if (rsi_likely(status != RSI_WOULD_BLOCK)) {
        return status;
    }
    rsi_store_relaxed(full, 1);
    rsi_fence_seq_cst(); /* pairs with the one in pop_and_wake() */
    return rsi_mailbox_push(mailbox, data, bytes);
}

/* Pops; wakes the pushing side if it found the mailbox full. */
static void pop_and_wake(struct rsi_mailbox *mailbox, _Atomic uint32_t *full,
                         struct rsi_waker *waker)
{
    rsi_mailbox_pop(mailbox);
    rsi_fence_seq_cst(); /* pairs with the one in push_or_mark() */
    if (rsi_unlikely(rsi_load_relaxed(full) != 0)) {
        rsi_store_relaxed(full, 0);
        rsi_waker_wake(waker);
    }
}

/* Why the control lane takes nothing in this state; OK: it does. */
static rsi_status_t control_lane_status(enum rsi_link_state state)
{
    switch (state) {
    case RSI_LINK_OPEN:
    case RSI_LINK_ATTACHING:
    case RSI_LINK_ATTACHED:
        return RSI_OK;
    case RSI_LINK_LOST:
        return RSI_E_LINK_LOST;
    case RSI_LINK_CLOSING:
    case RSI_LINK_CLOSED:
        return RSI_E_LINK_CLOSED;
    case RSI_LINK_CONNECTING:
        break;
    }
    return RSI_E_STATE;
}

rsi_status_t rsi_link_send_control(struct rsi_link *link, const void *data, uint32_t bytes)
{
    rsi_status_t status = control_lane_status(rsi_link_state(link));
    if (status != RSI_OK) {
        return status;
    }
    if (bytes == 0) {
        return RSI_E_INVALID;
    }
    status = push_or_mark(&link->outbox, &link->outbox_full, data, bytes);
    if (status == RSI_OK) {
        rsi_waker_wake(link->poller->owner_waker);
    }
    return status;
}

const void *rsi_link_front_control(struct rsi_link *link, uint32_t *bytes)
{
    return rsi_mailbox_front(&link->inbox, bytes);
}

void rsi_link_pop_control(struct rsi_link *link)
{
    pop_and_wake(&link->inbox, &link->inbox_full, link->poller->owner_waker);
}

rsi_status_t rsi_link_inbox_push(struct rsi_link *link, const void *data, uint32_t bytes)
{
    rsi_status_t status = push_or_mark(&link->inbox, &link->inbox_full, data, bytes);
    if (status == RSI_OK) {
        rsi_bump_relaxed(&link->stats.control_received, 1);
        rsi_waker_wake(link->poller->control_waker);
    }
    return status;
}

const void *rsi_link_outbox_front(struct rsi_link *link, uint32_t *bytes)
{
    return rsi_mailbox_front(&link->outbox, bytes);
}

void rsi_link_outbox_pop(struct rsi_link *link)
{
    rsi_bump_relaxed(&link->stats.control_sent, 1);
    pop_and_wake(&link->outbox, &link->outbox_full, link->poller->control_waker);
}

void rsi_link_place_in_ring(struct rsi_link *link, uint64_t bytes)
{
    memcpy(rsi_ring_at(&link->out, link->placed_pos), &link->head_word, sizeof(link->head_word));
    link->placed_pos += bytes;
}
