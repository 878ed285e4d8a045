/*
 * Making and closing subscriptions; what they receive is in deliver.c.
 *
 * Design notes
 * - A subscription is active from the moment at which it is asked for: nothing is delivered while
 *   the call waits, and when it returns, frames for it may already lie in the in ring. It may so
 * also see a few frames that another subscription of this client asked for and that were published
 * just before it: never too few, possibly some more.
 * - One with last values is started by a mark of the broker's instead: what lies before that in the
 *   ring was meant for others, and would make its topics go back.
 * - Unsubscribing makes it inactive before the broker is asked. What still arrives for it is passed
 *   over, so its callback is not called again even if the answer takes longer than the caller
 *   waits, or if he does not wait.
 */
#include "clients/c/client.h"

#include "core/clock.h"
#include "core/text.h"
#include "proto/subject.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_COUNT_FIRST 8u

static void set_active(struct ringside_subscription *subscription, bool is_active)
{
    subscription->is_active = is_active;
    subscription->client->subscriptions_version++;
}

void rsi_subscription_await_last(struct ringside_subscription *subscription)
{
    if (subscription->is_last && subscription->is_active && subscription->is_current) {
        subscription->is_current = false;
        subscription->is_started = false;
        subscription->client->last_due_count++;
        subscription->client->subscriptions_version++;
    }
}

void rsi_subscription_start(struct ringside_subscription *subscription)
{
    subscription->is_started = true;
    subscription->start_version = ++subscription->client->subscriptions_version;
}

void rsi_subscription_end_last(struct ringside_subscription *subscription)
{
    if (subscription->is_last && !subscription->is_current) {
        subscription->is_current = true;
        subscription->client->last_due_count--;
    }
}

static rsi_status_t subscription_alloc(struct ringside_subscription **subscription,
                                       struct ringside_client *client, const char *subject)
{
    if (client->subscription_count == client->subscription_slot_count) {
        uint32_t slot_count = client->subscription_slot_count == 0
                                  ? SLOT_COUNT_FIRST
                                  : client->subscription_slot_count * 2;
        struct ringside_subscription **slots =
            realloc(client->subscriptions, slot_count * sizeof(struct ringside_subscription *));
        if (slots == NULL) {
            return rsi_fail(&client->error, RSI_E_NO_MEMORY, "no memory for another subscription");
        }
        client->subscriptions = slots;
        client->subscription_slot_count = slot_count;
    }
    struct ringside_subscription *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(&client->error, RSI_E_NO_MEMORY, "no memory for another subscription");
    }
    made->object.state = RSI_OBJECT_OPENING;
    made->client = client;
    made->id = ++client->last_subscription;
    (void)rsi_text_copy(made->subject, sizeof(made->subject), subject);
    made->subject_bytes = strlen(subject);
    client->subscriptions[client->subscription_count++] = made;
    *subscription = made;
    return RSI_OK;
}

void rsi_subscription_free(struct ringside_subscription *subscription)
{
    struct ringside_client *client = subscription->client;
    set_active(subscription, false);
    rsi_subscription_end_last(subscription);
    if (client->last_of == subscription) {
        client->last_of = NULL;
    }
    for (uint32_t index = 0; index < client->subscription_count; index++) {
        if (client->subscriptions[index] != subscription) {
            continue;
        }
        /* Order is kept: callbacks of one message are called in the order of subscribing. */
        client->subscription_count--;
        memmove(&client->subscriptions[index], &client->subscriptions[index + 1],
                (client->subscription_count - index) * sizeof(struct ringside_subscription *));
        break;
    }
    free(subscription->object.refusal);
    free(subscription);
}

static rsi_status_t check_arguments(struct ringside_client *client, const char *subject,
                                    const ringside_subscribe_options_t *options,
                                    ringside_on_message_t on_message)
{
    if (subject == NULL || on_message == NULL) {
        return rsi_fail(&client->error, RSI_E_INVALID, "ringside_subscribe: %s is NULL",
                        subject == NULL ? "the subject" : "on_message");
    }
    size_t at = 0;
    const char *fault = rsi_subject_check_pattern(subject, strlen(subject), &at);
    if (fault != NULL) {
        return rsi_fail(&client->error, RSI_E_INVALID, "subject \"%.*s\" %s (at byte %zu)",
                        (int)RSI_SUBJECT_BYTES_MAX, subject, fault, at);
    }
    fault = options->group == NULL
                ? NULL
                : rsi_subject_check_group(options->group, strlen(options->group));
    if (fault != NULL) {
        return rsi_fail(&client->error, RSI_E_INVALID, "queue group \"%.70s\" %s", options->group,
                        fault);
    }
    if ((int)options->policy < RINGSIDE_POLICY_DEFAULT ||
        options->policy > RINGSIDE_POLICY_CONFLATE) {
        return rsi_fail(&client->error, RSI_E_INVALID,
                        "policy is %d: use one of RINGSIDE_POLICY_...", (int)options->policy);
    }
    if (client->link->in.capacity_bytes == 0) {
        return rsi_fail(&client->error, RSI_E_STATE,
                        "this client connected with deliver_ring_bytes UINT64_MAX: it never "
                        "subscribes");
    }
    return RSI_OK;
}

rsi_static_assert((int)RINGSIDE_POLICY_DEFAULT == (int)RINGSIDE__CONTROL__POLICY__POLICY_DEFAULT);
rsi_static_assert((int)RINGSIDE_POLICY_DROP == (int)RINGSIDE__CONTROL__POLICY__POLICY_DROP);
rsi_static_assert((int)RINGSIDE_POLICY_DISCONNECT ==
                  (int)RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT);
rsi_static_assert((int)RINGSIDE_POLICY_CONFLATE == (int)RINGSIDE__CONTROL__POLICY__POLICY_CONFLATE);
rsi_static_assert((int)RINGSIDE_POLICY_BLOCK == (int)RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);

static rsi_status_t open_subscription(struct ringside_subscription *subscription,
                                      uint64_t deadline_ns)
{
    struct ringside_client *client = subscription->client;
    rsi_status_t status =
        rsi_client_open_object(client, &subscription->object, deadline_ns, &client->error);
    if (status == RSI_OK && subscription->object.state == RSI_OBJECT_REFUSED) {
        status = client->error.status;
    } else if (status != RSI_OK && subscription->object.request != 0) {
        set_active(subscription, false);
        subscription->object.is_abandoned = true;
        return status;
    }
    if (status != RSI_OK) {
        rsi_subscription_free(subscription);
    }
    return status;
}

ringside_status_t ringside_subscribe(ringside_subscription_t **subscription,
                                     ringside_client_t *client, const char *subject,
                                     const ringside_subscribe_options_t *options,
                                     ringside_on_message_t on_message, void *arg)
{
    rsi_status_t status = rsi_client_enter_unwaited(client, "ringside_subscribe");
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    ringside_subscribe_options_t known;
    status = rsi_client_options_copy(&known, sizeof(known), options, "ringside_subscribe_options_t",
                                     &client->error);
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    bool is_unwaited = known.timeout_ns == RINGSIDE_NO_WAIT;
    status = is_unwaited ? rsi_client_check_open(client, "ringside_subscribe")
                         : rsi_client_enter_open(client, "ringside_subscribe");
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    status = check_arguments(client, subject, &known, on_message);
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    struct ringside_subscription *made = NULL;
    status = subscription_alloc(&made, client, subject);
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    made->policy = known.policy;
    made->no_echo = known.no_echo != 0;
    made->is_member = known.group != NULL;
    if (made->is_member) {
        (void)rsi_text_copy(made->group, sizeof(made->group), known.group);
    }
    made->on_message = on_message;
    made->arg = arg;
    made->is_last = known.last != 0;
    made->is_current = true;
    made->is_started = true;
    set_active(made, true);
    rsi_subscription_await_last(made);

    if (is_unwaited) {
        rsi_client_open_unwaited(client, &made->object);
        *subscription = made;
        return RINGSIDE_IN_PROGRESS;
    }
    uint64_t timeout_ns = known.timeout_ns == 0 ? RSI_CLIENT_TIMEOUT_NS : known.timeout_ns;
    status = open_subscription(made, rsi_client_deadline_ns(rsi_clock_now_ns(), timeout_ns));
    if (status == RSI_E_TIMED_OUT) {
        (void)rsi_fail(&client->error, status,
                       "the broker did not acknowledge the subscription to \"%s\" within %" PRIu64
                       " ms",
                       subject, timeout_ns / 1000000);
    } else if (status != RSI_OK) {
        rsi_error_context(&client->error, "subscription to \"%s\"", subject);
    } else {
        *subscription = made;
    }
    return (ringside_status_t)status;
}

ringside_status_t ringside_unsubscribe(ringside_subscription_t *subscription, uint64_t timeout_ns)
{
    if (subscription == NULL) {
        return RINGSIDE_OK;
    }
    struct ringside_client *client = subscription->client;
    bool is_unwaited = timeout_ns == RINGSIDE_NO_WAIT;
    rsi_status_t status = is_unwaited ? rsi_client_enter_unwaited(client, "ringside_unsubscribe")
                                      : rsi_client_enter(client, "ringside_unsubscribe");
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    set_active(subscription, false);
    bool is_over = client->phase >= RSI_CLIENT_ENDING || subscription->is_drain_answered;
    if (is_over && !client->is_in_callback) {
        client->drained_count -= subscription->is_drain_answered;
        rsi_subscription_free(subscription); /* the broker forgets it with the session */
        return RINGSIDE_OK;
    }
    if (subscription->is_drain_answered) { /* in a callback: event DRAINED ends it */
        return RINGSIDE_OK;
    }
    if (subscription->is_draining) { /* the answer to that ends it */
        subscription->is_draining = false;
        subscription->object.is_abandoned = true;
        return RINGSIDE_OK;
    }
    /* Its answer, or in a callback the end of the client, frees it. */
    if (is_unwaited || subscription->object.state != RSI_OBJECT_OPEN) {
        rsi_client_abandon_object(client, &subscription->object);
        return RINGSIDE_OK;
    }

    if (timeout_ns == 0) {
        timeout_ns = RSI_CLIENT_TIMEOUT_NS;
    }
    uint64_t deadline_ns = rsi_client_deadline_ns(rsi_clock_now_ns(), timeout_ns);
    rsi_client_close_object(client, &subscription->object);
    status = rsi_client_wait_object(client, &subscription->object, RSI_OBJECT_CLOSE_DUE,
                                    deadline_ns, &client->error);
    if (status == RSI_OK) {
        status = rsi_client_wait_object(client, &subscription->object, RSI_OBJECT_CLOSING,
                                        deadline_ns, &client->error);
    }
    if (status == RSI_OK) {
        rsi_subscription_free(subscription);
        return RINGSIDE_OK;
    }
    if (status == RSI_E_TIMED_OUT) {
        (void)rsi_fail(&client->error, status,
                       "the broker did not acknowledge the end of the subscription to \"%s\" "
                       "within %" PRIu64 " ms; its callback is not called again all the same",
                       subscription->subject, timeout_ns / 1000000);
    }
    subscription->object.is_abandoned = true;
    return (ringside_status_t)status;
}

ringside_status_t ringside_drain(ringside_subscription_t *subscription)
{
    struct ringside_client *client = subscription->client;
    rsi_status_t status = rsi_client_enter_unwaited(client, "ringside_drain");
    if (status == RSI_OK) {
        status = rsi_client_check_open(client, "ringside_drain");
    }
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    if (subscription->object.state != RSI_OBJECT_OPEN) {
        return (ringside_status_t)rsi_fail(&client->error, RSI_E_STATE,
                                           "ringside_drain: the subscription to \"%s\" is %s",
                                           subscription->subject,
                                           subscription->object.state == RSI_OBJECT_OPENING
                                               ? "not there yet: poll until event SUBSCRIBED"
                                               : "ending");
    }
    subscription->is_draining = true;
    rsi_client_close_object(client, &subscription->object);
    rsi_client_nudge_waiting(client);
    return RINGSIDE_OK;
}
