/*
 * Making and closing publishers; what they send is in publish.c.
 *
 * Design notes
 * - An alias is a slot number, so the broker needs a table and no search. It is free again when the
 *   broker has answered the close: until then frames under it may be on their way.
 * - Destroying does not wait, so it is legal in a callback: the object stays behind, closed to the
 *   application, until the answer comes.
 */
#include "clients/c/client.h"

#include "core/clock.h"
#include "core/text.h"
#include "proto/subject.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_COUNT_FIRST 8u

static rsi_status_t grow_slots(struct ringside_client *client)
{
    uint32_t slot_count =
        client->publisher_slot_count == 0 ? SLOT_COUNT_FIRST : client->publisher_slot_count * 2;
    struct ringside_publisher **slots =
        realloc(client->publishers, slot_count * sizeof(struct ringside_publisher *));
    if (slots == NULL) {
        return rsi_fail(&client->error, RSI_E_NO_MEMORY, "no memory for another publisher");
    }
    for (uint32_t slot = client->publisher_slot_count; slot < slot_count; slot++) {
        slots[slot] = NULL;
    }
    client->publishers = slots;
    client->publisher_slot_count = slot_count;
    return RSI_OK;
}

static rsi_status_t publisher_alloc(struct ringside_publisher **publisher,
                                    struct ringside_client *client, const char *subject)
{
    uint32_t slot = 0;
    while (slot < client->publisher_slot_count && client->publishers[slot] != NULL) {
        slot++;
    }
    if (slot == client->publisher_slot_count) {
        rsi_status_t status = grow_slots(client);
        if (status != RSI_OK) {
            return status;
        }
    }
    struct ringside_publisher *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(&client->error, RSI_E_NO_MEMORY, "no memory for another publisher");
    }
    made->object.state = RSI_OBJECT_OPENING;
    made->object.is_publisher = true;
    made->client = client;
    made->alias = slot + 1;
    (void)rsi_text_copy(made->subject, sizeof(made->subject), subject);
    made->subject_bytes = strlen(subject);
    client->publishers[slot] = made;
    *publisher = made;
    return RSI_OK;
}

void rsi_publisher_free(struct ringside_publisher *publisher)
{
    publisher->client->publishers[publisher->alias - 1] = NULL;
    free(publisher->object.refusal);
    free(publisher);
}

static rsi_status_t check_subject(struct ringside_client *client, const char *subject)
{
    if (subject == NULL) {
        return rsi_fail(&client->error, RSI_E_INVALID,
                        "ringside_publisher_create: the subject is NULL");
    }
    size_t at = 0;
    const char *fault = rsi_subject_check_literal(subject, strlen(subject), &at);
    if (fault != NULL) {
        return rsi_fail(&client->error, RSI_E_INVALID, "subject \"%.*s\" %s (at byte %zu)",
                        (int)RSI_SUBJECT_BYTES_MAX, subject, fault, at);
    }
    if (client->link->out.capacity_bytes == 0) {
        return rsi_fail(&client->error, RSI_E_STATE,
                        "this client connected with publish_ring_bytes UINT64_MAX: it never "
                        "publishes");
    }
    return RSI_OK;
}

static rsi_status_t open_publisher(struct ringside_publisher *publisher, uint64_t deadline_ns)
{
    struct ringside_client *client = publisher->client;
    rsi_status_t status =
        rsi_client_open_object(client, &publisher->object, deadline_ns, &client->error);
    if (status == RSI_OK && publisher->object.state == RSI_OBJECT_REFUSED) {
        status = client->error.status;
    } else if (status != RSI_OK && publisher->object.request != 0) {
        publisher->object.is_abandoned = true;
        return status;
    }
    if (status != RSI_OK) {
        rsi_publisher_free(publisher);
    }
    return status;
}

ringside_status_t ringside_publisher_create(ringside_publisher_t **publisher,
                                            ringside_client_t *client, const char *subject,
                                            uint64_t timeout_ns)
{
    bool is_unwaited = timeout_ns == RINGSIDE_NO_WAIT;
    rsi_status_t status = is_unwaited
                              ? rsi_client_enter_unwaited(client, "ringside_publisher_create")
                              : rsi_client_enter(client, "ringside_publisher_create");
    if (status == RSI_OK) {
        status = rsi_client_check_open(client, "ringside_publisher_create");
    }
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    status = check_subject(client, subject);
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    struct ringside_publisher *made = NULL;
    status = publisher_alloc(&made, client, subject);
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }

    if (is_unwaited) {
        rsi_client_open_unwaited(client, &made->object);
        *publisher = made;
        return RINGSIDE_IN_PROGRESS;
    }
    if (timeout_ns == 0) {
        timeout_ns = RSI_CLIENT_TIMEOUT_NS;
    }
    status = open_publisher(made, rsi_client_deadline_ns(rsi_clock_now_ns(), timeout_ns));
    if (status == RSI_E_TIMED_OUT) {
        (void)rsi_fail(&client->error, status,
                       "the broker did not open a publisher on \"%s\" within %" PRIu64 " ms",
                       subject, timeout_ns / 1000000);
    } else if (status != RSI_OK) {
        rsi_error_context(&client->error, "publisher on \"%s\"", subject);
    } else {
        *publisher = made;
    }
    return (ringside_status_t)status;
}

void ringside_publisher_destroy(ringside_publisher_t *publisher)
{
    if (publisher == NULL) {
        return;
    }
    struct ringside_client *client = publisher->client;
    if (client->fork_count != rsi_client_fork_count) {
        return;
    }
    if (client->claim == publisher) {
        ringside_abort(publisher);
    }
    rsi_link_place(client->link);
    publisher->end_pos = client->link->staged_pos;
    rsi_client_abandon_object(client, &publisher->object);
}

const char *ringside_publisher_subject(const ringside_publisher_t *publisher)
{
    return publisher == NULL ? "" : publisher->subject;
}
