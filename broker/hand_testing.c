/*
 * Design notes
 * - A link is two rings and no wire: the client writes the in ring and moves arrived_pos, reads the
 *   out ring and moves peer_consumed_pos, as shm would, on the one thread there is.
 * - What must hold is looked at after every pass: spills within their bound, nobody lagging with a
 *   spill, nothing appended too far ahead, counts that agree.
 */
#include "broker/hand_testing.h"

#include "core/clock.h"
#include "core/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- links --------------------------------------------------------------------------------------
 */

static void place(struct rsi_link *link, uint64_t bytes)
{
    *(uint64_t *)(void *)rsi_ring_at(&link->out, link->placed_pos) = link->head_word;
    link->placed_pos += bytes;
    link->flushed_pos = link->placed_pos;
    link->peer_arrived_pos = link->placed_pos;
}

static rsi_status_t flush(struct rsi_link *link)
{
    (void)link;
    return RSI_OK;
}

static void publish_consumed(struct rsi_link *link)
{
    (void)link;
}

static void request_wake(struct rsi_link *link, uint64_t in_arrived_at_least,
                         uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least)
{
    (void)link;
    (void)in_arrived_at_least;
    (void)peer_arrived_at_least;
    (void)peer_consumed_at_least;
}

static const struct rsi_transport memory_transport = {
    .name = "memory",
    .place = place,
    .flush = flush,
    .publish_consumed = publish_consumed,
    .request_wake = request_wake,
};

static struct rsi_link *link_create(uint64_t ring_bytes)
{
    struct rsi_link *link = rsi_link_alloc(sizeof(*link));
    assert_non_null(link);
    link->transport = &memory_transport;
    const struct rsi_ring_options options = {
        .name = "test", .capacity_bytes = ring_bytes, .node = RSI_NODE_ANY};
    assert_int_equal(rsi_ring_init(&link->out, &options, NULL), RSI_OK);
    assert_int_equal(rsi_ring_init(&link->in, &options, NULL), RSI_OK);
    rsi_store_release(&link->state, RSI_LINK_ATTACHED);
    return link;
}

static void link_destroy(struct rsi_link *link)
{
    rsi_ring_fini(&link->out);
    rsi_ring_fini(&link->in);
    rsi_link_free(link);
}

/* ---- agents -------------------------------------------------------------------------------------
 */

uint64_t hand_random(struct hand *hand)
{
    hand->random ^= hand->random << 13;
    hand->random ^= hand->random >> 7;
    hand->random ^= hand->random << 17;
    return hand->random;
}

struct hand *hand_create(uint32_t agent_count, uint64_t seed, uint64_t log_bytes)
{
    struct hand *hand = calloc(1, sizeof(*hand));
    assert_non_null(hand);
    rsi_log_set_level(RSI_LOG_WARNING);
    hand->random = seed * 0x9e3779b97f4a7c15u + 1;
    assert_int_equal(rsi_waker_init(&hand->control_waker, NULL), RSI_OK);
    hand->options = (struct rsi_data_options){
        .agent_count = agent_count,
        .agent_cpus = {-1, -1},
        .idle_strategy = RSI_IDLE_BLOCKING,
        .log_bytes = log_bytes,
        .message_bytes_max = HAND_MESSAGE_BYTES_MAX,
        .block_timeout_ns = HAND_DEADLINE_NS,
        .session_count_max = HAND_SESSION_MAX,
        .publication_count_max = HAND_PUBLICATION_MAX,
        .topic_count_max = HAND_PUBLICATION_MAX,
        .alias_count_max = HAND_ALIAS_MAX,
        .last_value_count_max = HAND_PUBLICATION_MAX,
        .last_value_bytes = 1u << 20,
        .walk_seed = seed,
        .control_waker = &hand->control_waker,
    };
    assert_int_equal(rsi_data_plane_create(&hand->plane, &hand->options, NULL), RSI_OK);
    rsi_clock_prepare();
    return hand;
}

void hand_destroy(struct hand *hand)
{
    for (uint32_t i = 0; i < hand->client_count; i++) {
        if (!rsi_load_acquire(&hand->clients[i].session.left)) {
            hand_leave(&hand->clients[i]);
        }
    }
    for (uint32_t i = 0; i < hand->options.agent_count; i++) {
        const struct rsi_agent *agent = hand->plane->agents[i];
        assert_int_equal(agent->waiting_count + agent->contended_count + agent->care_count, 0);
        assert_int_equal(agent->block_session_count, 0);
        assert_int_equal(agent->snapshot_session_count + agent->gap_session_count, 0);
    }
    assert_int_equal(rsi_load_relaxed(&hand->plane->contended_count), 0);
    for (uint32_t i = 1; i <= hand->publication_count; i++) {
        assert_int_equal(rsi_load_relaxed(&hand->publications[i].hold_count), 0);
        rsi_publication_fini(&hand->publications[i]);
    }
    rsi_data_plane_destroy(hand->plane);
    for (uint32_t i = 0; i < hand->client_count; i++) {
        rsi_session_fini(&hand->clients[i].session);
        link_destroy(hand->clients[i].link);
    }
    rsi_waker_fini(&hand->control_waker);
    free(hand);
}

static void check_session(const struct rsi_session *session)
{
    const struct rsi_blocking *blocking = session->data.blocking;
    if (!blocking) {
        return;
    }
    uint64_t spill_bytes = rsi_spill_bytes(&blocking->spill);
    assert_true(spill_bytes <= blocking->limit_bytes);
    assert_true(spill_bytes == 0 || session->data.lagging_count == 0);
    assert_true(session->data.policy != RSI_POLICY_BLOCK || session->data.lagging_count == 0);
    bool must_be_full = session->data.policy == RSI_POLICY_BLOCK &&
                        spill_bytes > blocking->ring_bytes && !session->data.is_failed;
    assert_true(!must_be_full || rsi_blocking_is_full(blocking));
    assert_int_equal(spill_bytes, rsi_load_relaxed(&session->counts.spill_bytes));
}

static uint64_t step_agent(struct hand *hand, uint32_t index)
{
    uint64_t work_count = rsi_agent_pass(hand->plane->agents[index]);
    for (uint32_t i = 0; i < hand->client_count; i++) {
        if (hand->clients[i].session.agent == index) {
            check_session(&hand->clients[i].session);
        }
    }
    return work_count;
}

void hand_step(struct hand *hand)
{
    (void)step_agent(hand, (uint32_t)(hand_random(hand) >> 33) % hand->options.agent_count);
}

void hand_rest(struct hand *hand)
{
    /* Some counts are settled one pass after the last work. */
    for (uint32_t quiet_count = 0; quiet_count < 3; quiet_count++) {
        for (uint32_t i = 0; i < hand->options.agent_count; i++) {
            if (step_agent(hand, i) > 0) {
                quiet_count = 0;
            }
        }
    }
}

uint64_t hand_post(struct hand *hand, const struct rsi_edit *edit)
{
    uint64_t ticket = 0;
    assert_int_equal(rsi_data_plane_post(hand->plane, edit, &ticket), RSI_OK);
    return ticket;
}

void hand_apply(struct hand *hand, const struct rsi_edit *edit)
{
    uint64_t ticket = hand_post(hand, edit);
    hand_wait(hand, rsi_data_plane_is_applied(hand->plane, ticket));
}

/* ---- clients ------------------------------------------------------------------------------------
 */

struct hand_client *hand_join(struct hand *hand, uint32_t agent, uint64_t ring_bytes)
{
    assert_true(hand->client_count < HAND_SESSION_MAX);
    struct hand_client *client = &hand->clients[hand->client_count];
    struct rsi_session *session = &client->session;
    client->hand = hand;
    client->link = link_create(ring_bytes);
    session->id = hand->client_count + 1;
    session->link = client->link;
    session->agent = agent;
    session->message_bytes_max = HAND_MESSAGE_BYTES_MAX;
    session->publish_ring_bytes = ring_bytes;
    session->deliver_ring_bytes = ring_bytes;
    snprintf(session->name, sizeof(session->name), "client-%u", hand->client_count);
    assert_int_equal(rsi_session_init(session, &hand->options, NULL), RSI_OK);
    hand->client_count++;
    hand_apply(hand, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_JOIN, .session = session});
    return client;
}

void hand_leave(struct hand_client *client)
{
    struct hand *hand = client->hand;
    struct rsi_session *session = &client->session;
    hand_apply(hand, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_LEAVE, .session = session});
    hand_wait(hand, rsi_load_acquire(&session->left));
    hand_apply(hand, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_FORGET, .session = session});
}

void hand_open(struct hand_client *client, uint32_t alias, uint32_t topic, const char *subject)
{
    struct hand *hand = client->hand;
    uint32_t id = ++hand->publication_count;
    assert_true(id < HAND_PUBLICATION_MAX && alias <= HAND_ALIAS_MAX);
    struct rsi_publication *publication = &hand->publications[id];
    publication->id = id;
    publication->topic = topic;
    publication->alias = alias;
    publication->publisher_session = client->session.id;
    publication->is_last_value = hand->keeps_last;
    publication->subject_bytes =
        (uint16_t)snprintf(publication->subject, sizeof(publication->subject), "%s", subject);
    publication->publisher_name_bytes =
        (uint16_t)snprintf(publication->publisher_name, sizeof(publication->publisher_name), "%s",
                           client->session.name);
    client->publication_of[alias] = id;
    hand_apply(hand, &(struct rsi_edit){.kind = RSI_EDIT_PUBLICATION_OPEN,
                                        .session = &client->session,
                                        .publication = publication});
}

static uint64_t subscribe(struct hand_client *client, const char *pattern, enum rsi_policy policy,
                          bool no_echo, const char *group, struct rsi_snapshot *snapshot)
{
    struct hand *hand = client->hand;
    struct rsi_edit edit = {.kind = RSI_EDIT_SUBSCRIBE,
                            .session = &client->session,
                            .subscription = ++client->last_subscription,
                            .policy = policy,
                            .no_echo = no_echo,
                            .snapshot = snapshot};
    snprintf(edit.group, sizeof(edit.group), "%s", group);
    snprintf(edit.subject, sizeof(edit.subject), "%s", pattern);
    if (snapshot) {
        snapshot->subscription = edit.subscription;
        snapshot->pattern_bytes = (uint16_t)strlen(pattern);
        memcpy(snapshot->pattern, edit.subject, sizeof(snapshot->pattern));
    }
    if (policy == RSI_POLICY_BLOCK && !client->session.blocking) {
        assert_int_equal(rsi_session_allow_block(&client->session, &hand->options, NULL), RSI_OK);
    }
    if (policy == RSI_POLICY_CONFLATE && !client->session.conflating) {
        assert_int_equal(rsi_session_allow_conflate(&client->session, &hand->options, NULL),
                         RSI_OK);
    }
    hand_apply(hand, &edit);
    return edit.subscription;
}

uint64_t hand_subscribe_quiet(struct hand_client *client, const char *pattern,
                              enum rsi_policy policy, bool no_echo)
{
    return subscribe(client, pattern, policy, no_echo, "", NULL);
}

uint64_t hand_subscribe_group(struct hand_client *client, const char *pattern,
                              enum rsi_policy policy, const char *group)
{
    return subscribe(client, pattern, policy, false, group, NULL);
}

uint64_t hand_subscribe_last(struct hand_client *client, const char *pattern,
                             enum rsi_policy policy)
{
    assert_true(client->snapshot_count < HAND_SNAPSHOT_MAX);
    return subscribe(client, pattern, policy, false, "",
                     &client->snapshots[client->snapshot_count++]);
}

uint64_t hand_subscribe(struct hand_client *client, const char *pattern, enum rsi_policy policy)
{
    return hand_subscribe_quiet(client, pattern, policy, false);
}

void hand_unsubscribe(struct hand_client *client, uint64_t subscription)
{
    hand_apply(client->hand, &(struct rsi_edit){.kind = RSI_EDIT_UNSUBSCRIBE,
                                                .session = &client->session,
                                                .subscription = subscription});
}

bool hand_publish(struct hand_client *client, uint32_t alias, uint32_t payload_bytes)
{
    struct rsi_link *link = client->link;
    uint64_t frame_bytes = rsi_frame_bytes(0, payload_bytes);
    uint64_t used_bytes = link->arrived_pos - link->consumed_pos + RSI_RING_GUARD_BYTES;
    if (used_bytes + frame_bytes > link->in.capacity_bytes) {
        return false;
    }
    struct rsi_frame_header *header =
        (struct rsi_frame_header *)(void *)rsi_ring_at(&link->in, link->arrived_pos);
    memset(header, 0, sizeof(*header));
    header->commit = rsi_commit_word(link->arrived_pos, frame_bytes);
    header->payload_bytes = payload_bytes;
    header->type = RSI_FRAME_MESSAGE;
    header->publication = alias;
    header->publish_time_ns = ++client->published_of[alias];
    memset(header + 1, (int)(header->publish_time_ns & 0xff), payload_bytes);
    link->arrived_pos += frame_bytes;
    return true;
}

uint64_t hand_publish_all(struct hand_client *client, uint32_t alias, uint32_t payload_bytes)
{
    uint64_t count = 0;
    while (hand_publish(client, alias, payload_bytes)) {
        count++;
    }
    return count;
}

static void take_announce(struct hand_client *client, const struct rsi_frame *frame)
{
    struct rsi_announce announce;
    memcpy(&announce, frame->payload, sizeof(announce));
    assert_true(announce.publication < HAND_PUBLICATION_MAX);
    client->is_known[announce.publication] = true;
    client->expected[announce.publication] = announce.next_sequence;
}

static void take_gap(struct hand_client *client, const struct rsi_frame *frame)
{
    struct {
        struct rsi_gap gap;
        struct rsi_gap_entry entry;
    } record;
    memcpy(&record, frame->payload, sizeof(record));
    uint32_t id = record.entry.publication;
    assert_int_equal(record.gap.entry_count, 1);
    assert_true(client->is_known[id]);
    assert_true(record.entry.next_sequence > client->expected[id]);
    uint64_t count = record.entry.next_sequence - client->expected[id];
    assert_in_range(record.entry.count, 1, count);
    count = record.entry.count; /* the others were not for this session */
    client->gap_count += count;
    client->gap_of[id] += count;
    client->expected[id] = record.entry.next_sequence;
}

static void take_message(struct hand_client *client, const struct rsi_frame *frame)
{
    uint32_t id = frame->header.publication;
    assert_true(client->is_known[id]);
    if (frame->header.flags & RSI_FRAME_FLAG_SPARSE) {
        assert_true(frame->header.sequence >= client->expected[id]);
        client->expected[id] = frame->header.sequence;
    }
    assert_int_equal(frame->header.sequence, client->expected[id]);
    assert_int_equal(frame->header.publish_time_ns, frame->header.sequence);
    for (uint32_t i = 0; i < frame->header.payload_bytes; i++) {
        assert_int_equal(frame->payload[i], frame->header.sequence & 0xff);
    }
    client->expected[id]++;
    client->live_of[id] = frame->header.sequence;
    client->received_of[id]++;
    client->received_count++;
    if (client->hand->on_message) {
        client->hand->on_message(client, frame);
    }
}

static void take_mark(struct hand_client *client, const struct rsi_frame *frame)
{
    struct rsi_snapshot_mark mark;
    assert_int_equal(frame->header.payload_bytes, sizeof(mark));
    memcpy(&mark, frame->payload, sizeof(mark));
    if (mark.step == RSI_SNAPSHOT_START) {
        client->started = mark.subscription;
        memset(client->live_of, 0, sizeof(client->live_of));
    } else if (mark.step == RSI_SNAPSHOT_VALUES) {
        client->valued = mark.subscription;
        memset(client->last_of, 0, sizeof(client->last_of));
    } else {
        assert_int_equal(mark.step, RSI_SNAPSHOT_END);
        assert_int_equal(client->valued, mark.subscription);
        client->ended = mark.subscription;
    }
}

/* Its sequence is the one before the next that is expected, and it is the only one. */
static void take_last(struct hand_client *client, const struct rsi_frame *frame)
{
    uint32_t id = frame->header.publication;
    assert_true(client->is_known[id]);
    assert_int_equal(frame->header.sequence + 1, client->expected[id]);
    assert_int_equal(frame->header.publish_time_ns, frame->header.sequence);
    for (uint32_t i = 0; i < frame->header.payload_bytes; i++) {
        assert_int_equal(frame->payload[i], frame->header.sequence & 0xff);
    }
    assert_int_not_equal(client->valued, client->ended);
    assert_int_equal(client->last_of[id], 0);
    client->last_of[id] = frame->header.sequence;
    client->last_count++;
}

void hand_read(struct hand_client *client, uint64_t bytes)
{
    struct rsi_link *link = client->link;
    uint64_t limit_pos = client->read_pos + bytes;
    while (client->read_pos < link->placed_pos && client->read_pos < limit_pos) {
        struct rsi_frame frame;
        const char *why = "";
        if (rsi_frame_read(&link->out, client->read_pos, link->placed_pos, &frame, &why) !=
            RSI_OK) {
            fail_msg("%s", why);
        }
        if (frame.header.type == RSI_FRAME_ANNOUNCE) {
            take_announce(client, &frame);
        } else if (frame.header.type == RSI_FRAME_GAP) {
            take_gap(client, &frame);
        } else if (frame.header.type == RSI_FRAME_SNAPSHOT) {
            take_mark(client, &frame);
        } else if (frame.header.type == RSI_FRAME_LAST) {
            take_last(client, &frame);
        } else {
            take_message(client, &frame);
        }
        client->read_pos += frame.frame_bytes;
        client->received_bytes += frame.frame_bytes;
    }
    link->peer_consumed_pos = client->read_pos;
}

void hand_read_all(struct hand_client *client)
{
    do {
        hand_read(client, UINT64_MAX / 2);
        hand_rest(client->hand);
    } while (client->read_pos < client->link->placed_pos);
}

bool hand_has_all(const struct hand_client *reader, const struct hand_client *publisher,
                  uint32_t alias)
{
    return reader->expected[publisher->publication_of[alias]] == publisher->published_of[alias] + 1;
}
