/*
 * Saying goodbye.
 *
 * Design notes
 * - First everything published arrives, then Bye says up to where, then the broker's Bye says that
 *   it has taken it. Each step is bounded by the caller's time-out, and after it the link is closed
 *   whatever was reached: the client is gone in every case.
 * - A session that has no link at the moment waits for one within the same time-out: what was
 *   published is worth it. Without the Bye the broker would keep the session for its grace.
 * - What still arrives for a closing client is given back unread, and what is held with it, so that
 *   no publisher waits for it.
 */
#include "clients/c/client.h"

#include "core/clock.h"

#include <inttypes.h>
#include <string.h>

static bool is_out(struct ringside_client *client, void *arg)
{
    struct rsi_client_wish *wish = arg;
    rsi_client_discard_frames(client);
    wish->peer_arrived_at_least = client->link->staged_pos;
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
    (void)rsi_client_send_bye(client); /* once more, if its link was lost */
    return client->is_bye_received;
}

static rsi_status_t say_goodbye(struct ringside_client *client, uint64_t deadline_ns)
{
    rsi_link_place(client->link);
    (void)rsi_link_flush(client->link); /* what cannot go now goes with poll_data */
    struct rsi_client_wish wish = RSI_CLIENT_WISH_NONE;
    rsi_status_t status = rsi_client_wait(client, is_out, &wish, &wish, deadline_ns, NULL);
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

uint64_t rsi_client_count_untaken(const struct ringside_client *client)
{
    const struct rsi_link *link = client->link;
    uint64_t position = client->bye_taken_pos;
    if (link->out.capacity_bytes == 0 || position >= link->staged_pos) {
        return 0;
    }
    if (link->staged_pos - position > link->out.capacity_bytes) {
        return UINT64_MAX; /* cannot be: a frame is overwritten only when the broker took it */
    }
    uint64_t message_count = 0;
    while (position < link->staged_pos) {
        uint64_t word = link->head_word;
        if (position != link->placed_pos) {
            memcpy(&word, rsi_ring_at(&link->out, position), sizeof(word));
        }
        uint64_t frame_bytes = rsi_commit_frame_bytes(word, position);
        if (frame_bytes == 0) {
            return UINT64_MAX; /* the peer can write a shm ring */
        }
        position += frame_bytes;
        message_count++;
    }
    return message_count;
}

/* What became of the messages published: OK, or LOST with a text. */
static rsi_status_t judge_published(struct ringside_client *client, rsi_status_t status,
                                    struct rsi_error *error)
{
    if (client->is_bye_received) {
        client->untaken_count = rsi_client_count_untaken(client);
        if (client->untaken_count == 0) {
            return RSI_OK; /* taken, also if the news of its arrival did not come */
        }
        return rsi_fail(error, RSI_E_LINK_LOST,
                        "the broker did not take the last %" PRIu64 " messages published: %.300s",
                        client->untaken_count, client->end_error.text);
    }
    if (status == RSI_OK) {
        return RSI_OK;
    }
    return rsi_fail(error, status == RSI_E_LINK_CLOSED ? RSI_E_LINK_LOST : status,
                    "closed while %" PRIu64 " bytes had not arrived at the broker",
                    client->link->staged_pos - client->link->peer_arrived_pos);
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
    client->is_claim_left_behind = false;
    rsi_client_drop_holds(client);
    if (client->link == NULL) { /* it was never connected */
        rsi_client_disconnect(client);
        rsi_client_free(client);
        return RINGSIDE_OK;
    }
    if (client->phase < RSI_CLIENT_ENDING) {
        status = say_goodbye(client, deadline_ns);
    } else if (client->link->peer_arrived_pos != client->link->staged_pos) {
        status = RSI_E_LINK_LOST;
    }
    struct rsi_error error = {0};
    status = judge_published(client, status, &error);
    if (status != RSI_OK) {
        (void)rsi_client_fail_globally(&error);
    }
    client->phase = RSI_CLIENT_ENDED;
    client->refuses_publish = true;
    (void)rsi_client_calls_end(client, RINGSIDE_E_CANCELLED);
    rsi_client_disconnect(client);
    rsi_client_free(client);
    return (ringside_status_t)status;
}
