/*
 * Design notes
 * - The transport is a struct of the test's own functions, so a test sees every call of the data
 *   plane and decides what the peer has done.
 */
#include "clients/c/link_testing.h"

#include "core/text.h"

static struct link_testing *testing_of(struct rsi_link *link)
{
    return rsi_container_of(link, struct link_testing, link);
}

static void fake_place(struct rsi_link *link, uint64_t bytes)
{
    memcpy(rsi_ring_at(&link->out, link->placed_pos), &link->head_word, sizeof(link->head_word));
    link->placed_pos += bytes;
    testing_of(link)->place_count++;
}

static rsi_status_t fake_flush(struct rsi_link *link)
{
    link->flushed_pos = link->placed_pos;
    link->under_way = testing_of(link)->stays_under_way;
    testing_of(link)->flush_count++;
    return RSI_OK;
}

static void fake_publish_consumed(struct rsi_link *link)
{
    testing_of(link)->consume_count++;
}

static uint32_t fake_poll_data(struct rsi_poller *poller, uint64_t now_ns)
{
    (void)now_ns;
    struct link_testing *testing = rsi_container_of(poller, struct link_testing, poller);
    struct rsi_link *link = &testing->link;
    testing->poll_count++;
    link->under_way = false;
    if (testing->polled_consumed_pos > link->peer_consumed_pos) {
        (void)rsi_link_peer_arrived(link, testing->polled_consumed_pos);
        (void)rsi_link_peer_consumed(link, testing->polled_consumed_pos);
    }
    return 0;
}

static void make_ring(struct rsi_ring *ring)
{
    const struct rsi_ring_options options = {
        .name = "test", .capacity_bytes = LINK_TESTING_RING_BYTES, .node = RSI_NODE_ANY};
    assert_int_equal(rsi_ring_init(ring, &options, NULL), RSI_OK);
}

void link_testing_init(struct link_testing *testing)
{
    memset(testing, 0, sizeof(*testing));
    testing->transport = (struct rsi_transport){
        .name = "fake",
        .place = fake_place,
        .flush = fake_flush,
        .publish_consumed = fake_publish_consumed,
        .poll_data = fake_poll_data,
    };
    testing->poller.transport = &testing->transport;
    struct rsi_link *link = &testing->link;
    link->transport = &testing->transport;
    link->poller = &testing->poller;
    rsi_store_relaxed(&link->state, RSI_LINK_ATTACHED);
    assert_int_equal(rsi_mailbox_init(&link->inbox, RSI_CONTROL_BYTES_MAX, 16, NULL), RSI_OK);
    assert_int_equal(rsi_mailbox_init(&link->outbox, RSI_CONTROL_BYTES_MAX, 16, NULL), RSI_OK);
    make_ring(&link->out);
    make_ring(&link->in);

    struct ringside_client *client = &testing->client;
    client->link = link;
    client->poller = &testing->poller;
    client->transport = &testing->transport;
    client->phase = RSI_CLIENT_OPEN;
    client->fork_count = rsi_client_fork_count;
    client->subscriptions_version = 1;
    client->message_bytes_max = LINK_TESTING_RING_BYTES / RSI_RING_PER_MESSAGE;
    client->session.id = 77;
    client->better.due_ns = UINT64_MAX;
    client->options.hold_count_max = 4;
}

void link_testing_fini(struct link_testing *testing)
{
    struct ringside_client *client = &testing->client;
    while (client->subscription_count > 0) {
        rsi_subscription_free(client->subscriptions[0]);
    }
    free(client->subscriptions);
    rsi_announced_table_fini(&client->announced);
    rsi_client_free_holds(client);
    rsi_ring_fini(&testing->link.in);
    rsi_ring_fini(&testing->link.out);
    rsi_mailbox_fini(&testing->link.inbox);
    rsi_mailbox_fini(&testing->link.outbox);
}

static void put_frame(struct link_testing *testing, struct rsi_frame_header header,
                      const void *headers, const void *payload)
{
    uint64_t frame_bytes = rsi_frame_bytes(header.headers_bytes, header.payload_bytes);
    assert_true(testing->in_end_pos + frame_bytes <=
                testing->link.consumed_pos + LINK_TESTING_RING_BYTES);
    uint8_t *at = rsi_ring_at(&testing->link.in, testing->in_end_pos);
    header.commit = rsi_commit_word(testing->in_end_pos, frame_bytes);
    header.publish_time_ns = header.sequence * 10;
    memcpy(at, &header, sizeof(header));
    if (header.headers_bytes > 0) {
        memcpy(at + sizeof(header), headers, header.headers_bytes);
    }
    if (header.payload_bytes > 0) {
        memcpy(at + sizeof(header) + header.headers_bytes, payload, header.payload_bytes);
    }
    testing->in_end_pos += frame_bytes;
}

void link_testing_put(struct link_testing *testing, uint8_t type, uint32_t publication,
                      uint64_t sequence, const void *payload, uint32_t payload_bytes)
{
    const struct rsi_frame_header header = {.payload_bytes = payload_bytes,
                                            .type = type,
                                            .publication = publication,
                                            .sequence = sequence};
    put_frame(testing, header, NULL, payload);
}

void link_testing_put_with(struct link_testing *testing, uint32_t publication, uint64_t sequence,
                           const void *headers, uint16_t headers_bytes, const void *payload,
                           uint32_t payload_bytes)
{
    const struct rsi_frame_header header = {.payload_bytes = payload_bytes,
                                            .type = RSI_FRAME_MESSAGE,
                                            .headers_bytes = headers_bytes,
                                            .publication = publication,
                                            .sequence = sequence};
    put_frame(testing, header, headers, payload);
}

void link_testing_put_announce(struct link_testing *testing, uint32_t publication,
                               const char *subject, uint64_t session, uint64_t next_sequence)
{
    struct {
        struct rsi_announce announce;
        char texts[RSI_SUBJECT_BYTES_MAX + 16];
    } payload = {
        .announce = {.publication = publication,
                     .topic = publication * 10,
                     .publisher_session = session,
                     .next_sequence = next_sequence,
                     .subject_bytes = (uint16_t)strlen(subject),
                     .name_bytes = 6},
    };
    snprintf(payload.texts, sizeof(payload.texts), "%swriter", subject);
    link_testing_put(testing, RSI_FRAME_ANNOUNCE, 0, 0, &payload,
                     (uint32_t)(sizeof(payload.announce) + strlen(subject) + 6));
}

void link_testing_put_gap(struct link_testing *testing, uint32_t reason, uint32_t publication,
                          uint64_t next_sequence)
{
    const struct {
        struct rsi_gap gap;
        struct rsi_gap_entry entry;
    } payload = {.gap = {.reason = reason, .entry_count = 1},
                 .entry = {.publication = publication, .next_sequence = next_sequence}};
    link_testing_put(testing, RSI_FRAME_GAP, 0, 0, &payload, sizeof(payload));
}

void link_testing_arrive(struct link_testing *testing)
{
    assert_true(rsi_link_arrived(&testing->link, testing->in_end_pos));
}

struct ringside_subscription *link_testing_subscribe(struct link_testing *testing,
                                                     const char *subject,
                                                     ringside_on_message_t on_message, void *arg)
{
    struct ringside_client *client = &testing->client;
    client->subscriptions =
        realloc(client->subscriptions,
                (client->subscription_count + 1) * sizeof(struct ringside_subscription *));
    struct ringside_subscription *made = calloc(1, sizeof(*made));
    assert_non_null(client->subscriptions);
    assert_non_null(made);
    client->subscriptions[client->subscription_count++] = made;
    client->subscription_slot_count = client->subscription_count;
    client->subscriptions_version++;
    made->client = client;
    made->object.state = RSI_OBJECT_OPEN;
    made->is_active = true;
    made->is_started = true;
    made->is_current = true;
    made->on_message = on_message;
    made->arg = arg;
    assert_true(rsi_text_copy(made->subject, sizeof(made->subject), subject));
    made->subject_bytes = strlen(subject);
    return made;
}
