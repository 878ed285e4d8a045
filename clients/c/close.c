/*
 * Saying goodbye.
 *
 * Design notes
 * - First everything published arrives, then Bye says up to where, then the broker's Bye says that
 *   it has taken it. Each step is bounded by the caller's time-out, and after it the link is closed
 *   whatever was reached: the client is gone in every case.
 * - What still arrives for a closing client is given back unread, so that no publisher waits for
 * it.
 */
#include "clients/c/client.h"

#include "core/clock.h"

#include <inttypes.h>

static bool is_out(struct ringside_client *client, void *arg)
{
    (void)arg;
    rsi_client_discard_frames(client);
    return client->link->peer_arrived_pos == client->link->staged_pos;
}

static bool is_bye_sent(struct ringside_client *client, void *arg)
{
    (void)arg;
    rsi_client_discard_frames(client);
    return rsi_client_send_bye(client) != RSI_WOULD_BLOCK;
}

static bool is_bye_received(struct ringside_client *client, void *arg)
{
    (void)arg;
    rsi_client_discard_frames(client);
    return client->is_bye_received;
}

static rsi_status_t say_goodbye(struct ringside_client *client, uint64_t deadline_ns)
{
    struct rsi_link *link = client->link;
    rsi_link_place(link);
    (void)rsi_link_flush(link); /* what cannot go now goes with poll_data */
    struct rsi_client_wish wish = RSI_CLIENT_WISH_NONE;
    wish.peer_arrived_at_least = link->staged_pos;
    rsi_status_t status = rsi_client_wait(client, is_out, NULL, &wish, deadline_ns, NULL);
    rsi_status_t bye_status =
        rsi_client_wait(client, is_bye_sent, NULL, &RSI_CLIENT_WISH_NONE, deadline_ns, NULL);
    if (bye_status == RSI_OK) {
        bye_status = rsi_client_wait(client, is_bye_received, NULL, &RSI_CLIENT_WISH_NONE,
                                     deadline_ns, NULL);
    }
    /* That the broker did not say goodbye in time loses nothing. */
    (void)bye_status;
    return status;
}

ringside_status_t ringside_close(ringside_client_t *client, uint64_t timeout_ns)
{
    if (client == NULL) {
        return RINGSIDE_OK;
    }
    rsi_status_t status = rsi_client_enter(client, "ringside_close");
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    uint64_t deadline_ns = rsi_client_deadline_ns(rsi_clock_now_ns(), timeout_ns);

    client->claim = NULL;
    if (client->phase == RSI_CLIENT_OPEN) {
        status = say_goodbye(client, deadline_ns);
    } else if (client->link->peer_arrived_pos != client->link->staged_pos) {
        status = RSI_E_LINK_LOST;
    }
    if (status == RSI_E_LINK_CLOSED) {
        status = RSI_E_LINK_LOST; /* the broker went first, before everything had arrived */
    }
    if (status != RSI_OK) {
        struct rsi_error error = {0};
        (void)rsi_fail(&error, status,
                       "closed while %" PRIu64 " bytes had not arrived at the broker",
                       client->link->staged_pos - client->link->peer_arrived_pos);
        (void)rsi_client_fail_globally(&error);
    }
    rsi_client_disconnect(client);
    rsi_client_free(client);
    return (ringside_status_t)status;
}
