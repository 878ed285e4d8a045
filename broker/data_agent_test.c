/*
 * Design notes: the whole data plane, with real links of one transport between the agents' threads
 * and this one, which plays the control agent and all clients. argv[1] is the URL to listen on
 * (default sim://agents). What must hold: every matching frame once, in order per publication; gaps
 * exact under drop; nothing lost under block; disconnect names the session; what has arrived before
 * a leave or a stop is still delivered; a closed publication becomes unused.
 */
#include "broker/data_agent.h"
#include "core/clock.h"
#include "transport/frame.h"
#include "transport/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CLIENT_MAX = 6, PUBLICATION_MAX = 64 };
#define RING_BYTES  (64u << 10)
#define LOG_BYTES   (256u << 10)
#define DEADLINE_NS 20000000000ull

static const char *listen_url = "sim://agents";

struct client {
    struct rsi_link *here; /* the client's end */
    struct rsi_session session;
    uint64_t received_count;
    uint64_t gap_count; /* messages that gaps told of */
    uint64_t expected[PUBLICATION_MAX];
    uint64_t received_of[PUBLICATION_MAX];
    bool is_known[PUBLICATION_MAX];
};

struct bench {
    const struct rsi_transport *transport;
    struct rsi_domain *domain;
    struct rsi_listener *listener;
    struct rsi_poller *client_poller;
    struct rsi_poller *agent_pollers[2];
    struct rsi_waker control_waker;
    struct rsi_data_plane *plane;
    struct rsi_data_options options;
    struct client clients[CLIENT_MAX];
    uint32_t client_count;
    uint32_t agent_count;
    struct rsi_publication *publications[PUBLICATION_MAX];
    uint32_t publication_count;
    uint64_t start_ns;
};

static void drive(struct bench *bench)
{
    uint64_t now_ns = rsi_clock_now_ns();
    assert_true(now_ns - bench->start_ns < DEADLINE_NS);
    bench->transport->domain_poll_control(bench->domain, now_ns);
    rsi_poller_poll(bench->client_poller, now_ns);
    for (uint32_t i = 0; i < bench->client_count; i++) {
        bench->transport->link_poll_control(bench->clients[i].here, now_ns);
        bench->transport->link_poll_control(bench->clients[i].session.link, now_ns);
    }
}

#define wait_for(bench, condition)              \
    do {                                        \
        (bench)->start_ns = rsi_clock_now_ns(); \
        while (!(condition))                    \
            drive(bench);                       \
    } while (0)

static void post(struct bench *bench, const struct rsi_edit *edit)
{
    uint64_t ticket = 0;
    assert_int_equal(rsi_data_plane_post(bench->plane, edit, &ticket), RSI_OK);
    wait_for(bench, rsi_data_plane_is_applied(bench->plane, ticket));
}

static struct bench *bench_create(uint32_t agent_count, uint64_t walk_seed)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    assert_non_null(bench);
    struct rsi_error error = {0};
    struct rsi_url url;
    assert_int_equal(rsi_url_parse(&url, listen_url, &error), RSI_OK);
    bench->transport = rsi_transport_find(url.scheme);
    assert_non_null(bench->transport);
    struct rsi_domain_options domain_options = {.seed = 1 + walk_seed, .node = -1};
    assert_int_equal(bench->transport->domain_create(&bench->domain, &domain_options, &error),
                     RSI_OK);
    assert_int_equal(
        bench->transport->listener_create(&bench->listener, bench->domain, &url, &error), RSI_OK);
    assert_int_equal(rsi_waker_init(&bench->control_waker, &error), RSI_OK);
    bench->options = (struct rsi_data_options){
        .agent_count = agent_count,
        .agent_cpus = {-1, -1},
        .idle_strategy = RSI_IDLE_ADAPTIVE,
        .log_bytes = LOG_BYTES,
        .message_bytes_max = RING_BYTES / 4,
        .block_timeout_ns = DEADLINE_NS,
        .session_count_max = CLIENT_MAX,
        .publication_count_max = PUBLICATION_MAX,
        .topic_count_max = PUBLICATION_MAX,
        .alias_count_max = 8,
        .walk_seed = walk_seed,
        .control_waker = &bench->control_waker,
    };
    assert_int_equal(rsi_data_plane_create(&bench->plane, &bench->options, &error), RSI_OK);
    struct rsi_poller_options poller_options = {.link_count_max = CLIENT_MAX};
    assert_int_equal(bench->transport->poller_create(&bench->client_poller, bench->domain,
                                                     &poller_options, &error),
                     RSI_OK);
    for (uint32_t i = 0; i < agent_count; i++) {
        poller_options.control_waker = &bench->control_waker;
        poller_options.owner_waker = rsi_data_plane_waker(bench->plane, i);
        assert_int_equal(bench->transport->poller_create(&bench->agent_pollers[i], bench->domain,
                                                         &poller_options, &error),
                         RSI_OK);
        assert_int_equal(
            rsi_data_plane_add_poller(bench->plane, i, bench->agent_pollers[i], &error), RSI_OK);
    }
    bench->agent_count = agent_count;
    assert_int_equal(rsi_data_plane_start(bench->plane, &error), RSI_OK);
    return bench;
}

static struct client *client_join(struct bench *bench)
{
    struct rsi_error error = {0};
    struct rsi_url url;
    uint32_t index = bench->client_count;
    struct client *client = &bench->clients[index];
    assert_int_equal(rsi_url_parse(&url, bench->transport->listener_url(bench->listener), &error),
                     RSI_OK);
    assert_int_equal(bench->transport->link_dial(&client->here, bench->client_poller, &url, &error),
                     RSI_OK);
    struct rsi_session *session = &client->session;
    session->agent = index % bench->agent_count;
    uint64_t start_ns = rsi_clock_now_ns();
    while (bench->transport->link_accept(&session->link, bench->listener,
                                         RSI_POLLER_ONLY(bench->agent_pollers[session->agent]),
                                         &error) == RSI_WOULD_BLOCK) {
        bench->transport->domain_poll_control(bench->domain, rsi_clock_now_ns());
        rsi_poller_poll(bench->client_poller, rsi_clock_now_ns());
        bench->transport->link_poll_control(client->here, rsi_clock_now_ns());
        assert_true(rsi_clock_now_ns() - start_ns < DEADLINE_NS);
    }
    bench->client_count++;
    wait_for(bench, rsi_link_state(client->here) == RSI_LINK_OPEN &&
                        rsi_link_state(session->link) == RSI_LINK_OPEN);
    struct rsi_link_rings rings = {.out_bytes = RING_BYTES, .in_bytes = RING_BYTES};
    assert_int_equal(bench->transport->link_attach(session->link, &rings, &error), RSI_OK);
    assert_int_equal(bench->transport->link_attach(client->here, &rings, &error), RSI_OK);
    wait_for(bench, rsi_link_state(client->here) == RSI_LINK_ATTACHED &&
                        rsi_link_state(session->link) == RSI_LINK_ATTACHED);
    session->id = index + 1;
    session->message_bytes_max = RING_BYTES / 4;
    session->deliver_ring_bytes = RING_BYTES;
    snprintf(session->name, sizeof(session->name), "client-%u", index);
    struct rsi_link *link = session->link;
    assert_int_equal(rsi_session_init(session, &bench->options, &error), RSI_OK);
    session->link = link;
    post(bench, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_JOIN, .session = session});
    return client;
}

static struct rsi_publication *open_publication(struct bench *bench, struct client *client,
                                                uint32_t alias, const char *subject)
{
    struct rsi_publication *publication = calloc(1, sizeof(*publication));
    assert_non_null(publication);
    publication->id = bench->publication_count + 1;
    publication->topic = bench->publication_count + 1;
    publication->alias = alias;
    publication->publisher_session = client->session.id;
    publication->subject_bytes =
        (uint16_t)snprintf(publication->subject, sizeof(publication->subject), "%s", subject);
    publication->publisher_name_bytes =
        (uint16_t)snprintf(publication->publisher_name, sizeof(publication->publisher_name), "%s",
                           client->session.name);
    bench->publications[bench->publication_count++] = publication;
    post(bench, &(struct rsi_edit){.kind = RSI_EDIT_PUBLICATION_OPEN,
                                   .session = &client->session,
                                   .publication = publication});
    return publication;
}

static void subscribe_as(struct bench *bench, struct client *client, uint64_t subscription,
                         const char *pattern, enum rsi_policy policy, bool no_echo)
{
    struct rsi_edit edit = {.kind = RSI_EDIT_SUBSCRIBE,
                            .session = &client->session,
                            .subscription = subscription,
                            .policy = policy,
                            .no_echo = no_echo};
    snprintf(edit.subject, sizeof(edit.subject), "%s", pattern);
    if (policy == RSI_POLICY_BLOCK && !client->session.blocking) {
        assert_int_equal(rsi_session_allow_block(&client->session, &bench->options, NULL), RSI_OK);
    }
    post(bench, &edit);
}

static void subscribe(struct bench *bench, struct client *client, const char *pattern,
                      enum rsi_policy policy)
{
    subscribe_as(bench, client, 1, pattern, policy, false);
}

static void unsubscribe(struct bench *bench, struct client *client, uint64_t subscription)
{
    post(bench, &(struct rsi_edit){.kind = RSI_EDIT_UNSUBSCRIBE,
                                   .session = &client->session,
                                   .subscription = subscription});
}

static uint8_t pattern_byte(uint32_t alias, uint64_t sequence, uint32_t at)
{
    return (uint8_t)(alias * 31 + sequence * 7 + at);
}

/* False: no room now. The payload can be told from alias, sequence and size alone. */
static bool publish_with(struct client *client, uint32_t alias, uint64_t sequence,
                         uint16_t headers_bytes, uint32_t payload_bytes)
{
    uint64_t frame_bytes = rsi_frame_bytes(headers_bytes, payload_bytes);
    struct rsi_frame_header *header = rsi_frame_claim(client->here, frame_bytes);
    if (!header) {
        return false;
    }
    header->payload_bytes = payload_bytes;
    header->type = RSI_FRAME_MESSAGE;
    header->flags = 0;
    header->headers_bytes = headers_bytes;
    header->publication = alias;
    header->generation = 0;
    header->entry_count = 0;
    header->sequence = 0;
    header->publish_time_ns = sequence;
    uint8_t *payload = (uint8_t *)(header + 1) + headers_bytes;
    for (uint32_t i = 0; i < payload_bytes; i++) {
        payload[i] = pattern_byte(alias, sequence, i);
    }
    rsi_frame_commit(client->here, frame_bytes);
    rsi_link_place(client->here);
    (void)rsi_link_flush_clocked(client->here);
    return true;
}

static bool publish(struct client *client, uint32_t alias, uint64_t sequence,
                    uint32_t payload_bytes)
{
    return publish_with(client, alias, sequence, 0, payload_bytes);
}

static void take_gap(struct client *client, const struct rsi_frame *frame)
{
    struct rsi_gap gap;
    struct rsi_gap_entry entry;
    memcpy(&gap, frame->payload, sizeof(gap));
    assert_int_equal(gap.entry_count, 1);
    memcpy(&entry, frame->payload + sizeof(gap), sizeof(entry));
    assert_true(client->is_known[entry.publication]);
    assert_true(entry.next_sequence > client->expected[entry.publication]);
    client->gap_count += entry.next_sequence - client->expected[entry.publication];
    client->expected[entry.publication] = entry.next_sequence;
}

static void take_message(struct bench *bench, struct client *client, const struct rsi_frame *frame)
{
    uint32_t id = frame->header.publication;
    assert_true(client->is_known[id]);
    assert_int_equal(frame->header.sequence, client->expected[id]);
    assert_int_equal(frame->header.publish_time_ns, frame->header.sequence);
    uint32_t alias = bench->publications[id - 1]->alias;
    for (uint32_t i = 0; i < frame->header.payload_bytes; i++) {
        assert_int_equal(frame->payload[i], pattern_byte(alias, frame->header.sequence, i));
    }
    client->expected[id]++;
    client->received_of[id]++;
    client->received_count++;
}

/* Publishes `count` messages that follow *sent, waiting for room. */
static void publish_many(struct bench *bench, struct client *client, uint32_t alias, uint64_t *sent,
                         uint64_t count)
{
    for (uint64_t end = *sent + count; *sent < end; ++*sent) {
        wait_for(bench, publish(client, alias, *sent + 1, 400));
    }
}

static uint64_t admitted_count(const struct client *client)
{
    return rsi_load_relaxed(&client->session.counts.admitted_messages);
}

/* Reads all that has arrived at one client and checks it. */
static void receive(struct bench *bench, struct client *client)
{
    struct rsi_link *link = client->here;
    while (link->consumed_pos < link->arrived_pos) {
        struct rsi_frame frame;
        const char *why = NULL;
        assert_int_equal(
            rsi_frame_read(&link->in, link->consumed_pos, link->arrived_pos, &frame, &why), RSI_OK);
        if (frame.header.type == RSI_FRAME_ANNOUNCE) {
            struct rsi_announce announce;
            memcpy(&announce, frame.payload, sizeof(announce));
            assert_true(announce.publication < PUBLICATION_MAX);
            client->is_known[announce.publication] = true;
            client->expected[announce.publication] = announce.next_sequence;
        } else if (frame.header.type == RSI_FRAME_GAP) {
            take_gap(client, &frame);
        } else {
            take_message(bench, client, &frame);
        }
        rsi_link_consume(link, frame.frame_bytes);
    }
}

static void client_leave(struct bench *bench, struct client *client)
{
    post(bench, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_LEAVE, .session = &client->session});
    wait_for(bench, rsi_load_acquire(&client->session.left));
}

static void bench_destroy(struct bench *bench)
{
    for (uint32_t i = 0; i < bench->client_count; i++) {
        struct client *client = &bench->clients[i];
        if (!rsi_load_acquire(&client->session.left)) {
            client_leave(bench, client);
        }
        bench->transport->link_close(client->here);
        bench->transport->link_close(client->session.link);
    }
    for (uint32_t i = 0; i < bench->client_count; i++) {
        struct client *client = &bench->clients[i];
        wait_for(bench, rsi_link_state(client->here) == RSI_LINK_CLOSED &&
                            rsi_link_state(client->session.link) == RSI_LINK_CLOSED);
    }
    rsi_data_plane_stop(bench->plane);
    for (uint32_t i = 0; i < bench->client_count; i++) {
        bench->transport->link_destroy(bench->clients[i].here);
        bench->transport->link_destroy(bench->clients[i].session.link);
        rsi_session_fini(&bench->clients[i].session);
    }
    rsi_data_plane_destroy(bench->plane);
    bench->transport->listener_destroy(bench->listener);
    bench->transport->poller_destroy(bench->client_poller);
    for (uint32_t i = 0; i < bench->agent_count; i++) {
        bench->transport->poller_destroy(bench->agent_pollers[i]);
    }
    bench->transport->domain_destroy(bench->domain);
    rsi_waker_fini(&bench->control_waker);
    for (uint32_t i = 0; i < bench->publication_count; i++) {
        free(bench->publications[i]);
    }
    free(bench);
}

/* Two publishers on four topics, three subscribers with different patterns, all under block. */
static void check_fan_out(uint32_t agent_count, uint64_t walk_seed)
{
    enum { MESSAGE_COUNT = 3000 };
    struct bench *bench = bench_create(agent_count, walk_seed);
    struct client *publishers[2] = {client_join(bench), client_join(bench)};
    struct client *all = client_join(bench);
    struct client *half = client_join(bench);
    struct client *none = client_join(bench);
    open_publication(bench, publishers[0], 1, "md.a.trade");
    open_publication(bench, publishers[0], 2, "md.a.depth");
    open_publication(bench, publishers[1], 1, "md.b.trade");
    subscribe(bench, all, "md.>", RSI_POLICY_BLOCK);
    subscribe(bench, half, "md.*.trade", RSI_POLICY_BLOCK);
    subscribe(bench, none, "news.>", RSI_POLICY_BLOCK);
    open_publication(bench, publishers[1], 2, "md.b.depth"); /* after the subscriptions */
    uint64_t sent[2][3] = {{0}};
    bench->start_ns = rsi_clock_now_ns();
    while (all->received_count < 4 * MESSAGE_COUNT || half->received_count < 2 * MESSAGE_COUNT) {
        for (uint32_t p = 0; p < 2; p++) {
            for (uint32_t alias = 1; alias <= 2; alias++) {
                while (sent[p][alias] < MESSAGE_COUNT &&
                       publish(publishers[p], alias, sent[p][alias] + 1,
                               (uint32_t)(sent[p][alias] * 37 % 900))) {
                    sent[p][alias]++;
                }
            }
        }
        drive(bench);
        receive(bench, all);
        receive(bench, half);
        receive(bench, none);
    }
    assert_int_equal(all->received_count, 4 * MESSAGE_COUNT);
    assert_int_equal(half->received_count, 2 * MESSAGE_COUNT);
    assert_int_equal(none->received_count, 0);
    assert_int_equal(all->gap_count + half->gap_count, 0);
    bench_destroy(bench);
}

static void every_matching_frame_once_and_in_order(void **state)
{
    (void)state;
    check_fan_out(1, 0);
    check_fan_out(2, 0);
    check_fan_out(2, 12345);
}

static void a_dropping_subscriber_gets_exact_gaps_and_holds_nobody(void **state)
{
    (void)state;
    enum { MESSAGE_COUNT = 6000 };
    struct bench *bench = bench_create(1, 0);
    struct client *publisher = client_join(bench);
    struct client *slow = client_join(bench);
    struct client *fast = client_join(bench);
    open_publication(bench, publisher, 1, "md.a");
    open_publication(bench, publisher, 2, "md.b");
    subscribe(bench, slow, "md.>", RSI_POLICY_DROP);
    subscribe(bench, fast, "md.>", RSI_POLICY_BLOCK);
    uint64_t sent[3] = {0};
    bench->start_ns = rsi_clock_now_ns();
    while (fast->received_count < 2 * MESSAGE_COUNT) {
        for (uint32_t alias = 1; alias <= 2; alias++) {
            while (sent[alias] < MESSAGE_COUNT && publish(publisher, alias, sent[alias] + 1, 400)) {
                sent[alias]++;
            }
        }
        drive(bench);
        receive(bench, fast); /* and slow reads nothing at all */
    }
    assert_int_equal(slow->received_count, 0);
    bench->start_ns = rsi_clock_now_ns();
    while (slow->received_count + slow->gap_count < 2 * MESSAGE_COUNT) {
        drive(bench);
        receive(bench, slow);
    }
    assert_int_equal(slow->received_count + slow->gap_count, 2 * MESSAGE_COUNT);
    assert_true(slow->gap_count > 0);
    assert_int_equal(rsi_load_relaxed(&slow->session.counts.dropped_messages), slow->gap_count);
    assert_int_equal(fast->gap_count, 0);
    bench_destroy(bench);
}

static void a_blocking_subscriber_holds_publishers_and_loses_nothing(void **state)
{
    (void)state;
    enum { MESSAGE_COUNT = 4000 };
    struct bench *bench = bench_create(2, 7);
    struct client *publisher = client_join(bench);
    struct client *slow = client_join(bench);
    open_publication(bench, publisher, 1, "md.a");
    subscribe(bench, slow, "md.a", RSI_POLICY_BLOCK);
    uint64_t sent = 0;
    uint64_t quiet_since_ns = rsi_clock_now_ns();
    bench->start_ns = quiet_since_ns;
    /* Until nothing more can be published: every ring and the spill are full. */
    while (rsi_clock_now_ns() - quiet_since_ns < 200000000ull) {
        if (sent < MESSAGE_COUNT && publish(publisher, 1, sent + 1, 400)) {
            sent++;
            quiet_since_ns = rsi_clock_now_ns();
        }
        drive(bench);
    }
    assert_true(sent < MESSAGE_COUNT);
    bench->start_ns = rsi_clock_now_ns();
    while (slow->received_count < MESSAGE_COUNT) {
        if (sent < MESSAGE_COUNT && publish(publisher, 1, sent + 1, 400)) {
            sent++;
        }
        drive(bench);
        receive(bench, slow);
    }
    assert_int_equal(slow->gap_count, 0);
    /* Counted when the agent sees that it has caught up: a pass after the last message. */
    wait_for(bench, rsi_load_relaxed(&slow->session.counts.blocked_ns) > 0);
    bench_destroy(bench);
}

/* What blocked is unsubscribed; what is left may drop. */
static void who_no_longer_asks_to_block_holds_nobody(void **state)
{
    (void)state;
    struct bench *bench = bench_create(1, 0);
    struct client *publisher = client_join(bench);
    struct client *stuck = client_join(bench);
    uint64_t sent[3] = {0};
    open_publication(bench, publisher, 1, "md.a");
    open_publication(bench, publisher, 2, "md.b");
    subscribe_as(bench, stuck, 1, "md.a", RSI_POLICY_BLOCK, false);
    subscribe_as(bench, stuck, 2, "md.b", RSI_POLICY_DROP, false);
    publish_many(bench, publisher, 1, &sent[1], 400); /* fills both rings and the spill */
    publish_many(bench, publisher, 2, &sent[2], 10);
    const struct rsi_agent_counts *counts = rsi_data_plane_counts(bench->plane, 0);
    wait_for(bench, rsi_load_relaxed(&counts->blocked_passes) > 0);
    assert_true(admitted_count(publisher) < 400);
    unsubscribe(bench, stuck, 1);
    wait_for(bench, admitted_count(publisher) == 410);
    bench_destroy(bench);
}

static void what_was_not_subscribed_is_no_gap(void **state)
{
    (void)state;
    struct bench *bench = bench_create(1, 0);
    struct client *publisher = client_join(bench);
    struct client *slow = client_join(bench);
    uint64_t sent = 0;
    open_publication(bench, publisher, 1, "md.a");
    subscribe(bench, slow, "md.a", RSI_POLICY_DROP);
    /* The full ring has room for a few gap records more, not for six. */
    while (rsi_load_relaxed(&slow->session.counts.gaps) < 6) {
        publish_many(bench, publisher, 1, &sent, 100);
    }
    wait_for(bench, admitted_count(publisher) == sent);
    unsubscribe(bench, slow, 1); /* with a gap that was not told */
    publish_many(bench, publisher, 1, &sent, 10);
    wait_for(bench, admitted_count(publisher) == sent);
    subscribe(bench, slow, "md.a", RSI_POLICY_DROP);
    publish_many(bench, publisher, 1, &sent, 10);
    /* Every message is checked to come at the sequence that announces and gaps made expected. */
    wait_for(bench, (receive(bench, slow), slow->expected[1] == sent + 1));
    assert_true(slow->gap_count < rsi_load_relaxed(&slow->session.counts.dropped_messages));
    bench_destroy(bench);
}

/* The topic stays matched all the time, only the wish for the own frames comes and goes. */
static void an_echo_that_was_not_wanted_is_no_gap(void **state)
{
    (void)state;
    struct bench *bench = bench_create(1, 0);
    struct client *both = client_join(bench);
    uint64_t sent = 0;
    open_publication(bench, both, 1, "md.a");
    subscribe_as(bench, both, 1, "md.a", RSI_POLICY_DROP, true);
    subscribe_as(bench, both, 2, "md.>", RSI_POLICY_DROP, false);
    publish_many(bench, both, 1, &sent, 1);
    wait_for(bench, (receive(bench, both), both->received_count == 1));
    unsubscribe(bench, both, 2);
    publish_many(bench, both, 1, &sent, 5);
    wait_for(bench, admitted_count(both) == sent);
    subscribe_as(bench, both, 3, "md.>", RSI_POLICY_DROP, false);
    publish_many(bench, both, 1, &sent, 1);
    wait_for(bench, (receive(bench, both), both->received_count == 2));
    assert_int_equal(both->expected[1], sent + 1);
    bench_destroy(bench);
}

static void a_slow_subscriber_under_disconnect_is_reported_by_name(void **state)
{
    (void)state;
    struct bench *bench = bench_create(1, 0);
    struct client *publisher = client_join(bench);
    struct client *slow = client_join(bench);
    open_publication(bench, publisher, 1, "md.a");
    subscribe(bench, slow, "md.a", RSI_POLICY_DISCONNECT);
    uint64_t sent = 0;
    bench->start_ns = rsi_clock_now_ns();
    while (!rsi_load_acquire(&slow->session.faulted)) {
        if (publish(publisher, 1, sent + 1, 400)) {
            sent++;
        }
        drive(bench);
    }
    assert_int_equal(slow->session.fault.status, RSI_E_SLOW);
    assert_non_null(strstr(slow->session.fault.text, slow->session.name));
    bench_destroy(bench);
}

static void a_wrong_alias_ends_the_publisher_alone(void **state)
{
    (void)state;
    struct bench *bench = bench_create(1, 0);
    struct client *liar = client_join(bench);
    struct client *honest = client_join(bench);
    struct client *reader = client_join(bench);
    open_publication(bench, honest, 1, "md.a");
    subscribe(bench, reader, ">", RSI_POLICY_BLOCK);
    assert_true(publish(liar, 3, 1, 10));
    wait_for(bench, rsi_load_acquire(&liar->session.faulted));
    assert_int_equal(liar->session.fault.status, RSI_E_PROTOCOL);
    assert_true(publish(honest, 1, 1, 10));
    bench->start_ns = rsi_clock_now_ns();
    while (reader->received_count < 1) {
        drive(bench);
        receive(bench, reader);
    }
    bench_destroy(bench);
}

/* The sum counts: headers alone could make a frame that fits no deliver ring. */
static void large_headers_end_the_publisher(void **state)
{
    (void)state;
    enum { HEADERS_BYTES = 4096, PAYLOAD_BYTES = RING_BYTES / 4 - 8 };
    struct bench *bench = bench_create(1, 0);
    struct client *liar = client_join(bench);
    open_publication(bench, liar, 1, "md.a");
    assert_true(publish_with(liar, 1, 1, HEADERS_BYTES, PAYLOAD_BYTES));
    wait_for(bench, rsi_load_acquire(&liar->session.faulted));
    assert_int_equal(liar->session.fault.status, RSI_E_PROTOCOL);
    assert_non_null(strstr(liar->session.fault.text, "larger"));
    bench_destroy(bench);
}

/* Only the one who wrote them is touched, and nobody gets any of it. */
static void malformed_headers_end_the_publisher(void **state)
{
    (void)state;
    struct bench *bench = bench_create(1, 0);
    struct client *liar = client_join(bench);
    struct client *honest = client_join(bench);
    struct client *reader = client_join(bench);
    open_publication(bench, liar, 1, "md.a");
    open_publication(bench, honest, 1, "md.b");
    subscribe(bench, reader, ">", RSI_POLICY_BLOCK);
    /* A name of which the ring knows nothing: its bytes are what an old lap left. */
    assert_true(publish(liar, 1, 1, 10));
    memset(rsi_ring_at(&liar->here->out, liar->here->staged_pos + RSI_FRAME_HEADER_BYTES), 0xee,
           16);
    assert_true(publish_with(liar, 1, 2, 16, 10));
    wait_for(bench, rsi_load_acquire(&liar->session.faulted));
    assert_int_equal(liar->session.fault.status, RSI_E_PROTOCOL);
    assert_non_null(strstr(liar->session.fault.text, "a header whose name"));
    assert_int_equal(admitted_count(liar), 1);
    assert_true(publish(honest, 1, 1, 10));
    bench->start_ns = rsi_clock_now_ns();
    while (reader->received_count < 2) {
        drive(bench);
        receive(bench, reader);
    }
    bench_destroy(bench);
}

static void what_arrived_is_delivered_before_a_leave_and_a_close(void **state)
{
    (void)state;
    enum { MESSAGE_COUNT = 100 };
    struct bench *bench = bench_create(2, 3);
    struct client *publisher = client_join(bench);
    struct client *reader = client_join(bench);
    struct rsi_publication *closed = open_publication(bench, publisher, 1, "md.a");
    struct rsi_publication *left = open_publication(bench, publisher, 2, "md.b");
    subscribe(bench, reader, ">", RSI_POLICY_BLOCK);
    for (uint64_t i = 0; i < MESSAGE_COUNT; i++) {
        assert_true(publish(publisher, 1, i + 1, 100));
        assert_true(publish(publisher, 2, i + 1, 100));
    }
    wait_for(bench,
             rsi_load_relaxed(&publisher->session.counts.admitted_messages) == 2 * MESSAGE_COUNT);
    post(bench, &(struct rsi_edit){.kind = RSI_EDIT_PUBLICATION_CLOSE,
                                   .session = &publisher->session,
                                   .publication = closed,
                                   .position = publisher->here->placed_pos});
    wait_for(bench, rsi_publication_is_closed(bench->plane, closed));
    client_leave(bench, publisher);
    assert_true(rsi_publication_is_closed(bench->plane, left));
    bench->start_ns = rsi_clock_now_ns();
    while (reader->received_count < 2 * MESSAGE_COUNT) {
        drive(bench);
        receive(bench, reader);
    }
    wait_for(bench, rsi_publication_is_unused(bench->plane, closed) &&
                        rsi_publication_is_unused(bench->plane, left));
    post(bench, &(struct rsi_edit){.kind = RSI_EDIT_PUBLICATION_RETIRE, .publication = closed});
    post(bench, &(struct rsi_edit){.kind = RSI_EDIT_TOPIC_RETIRE, .topic = closed->topic});
    bench_destroy(bench);
}

static void a_stop_drains(void **state)
{
    (void)state;
    enum { MESSAGE_COUNT = 200 };
    struct bench *bench = bench_create(2, 5);
    struct client *publisher = client_join(bench);
    struct client *reader = client_join(bench);
    open_publication(bench, publisher, 1, "md.a");
    subscribe(bench, reader, ">", RSI_POLICY_BLOCK);
    for (uint64_t i = 0; i < MESSAGE_COUNT; i++) {
        assert_true(publish(publisher, 1, i + 1, 100));
    }
    wait_for(bench,
             rsi_load_relaxed(&publisher->session.counts.admitted_messages) == MESSAGE_COUNT);
    post(bench, &(struct rsi_edit){.kind = RSI_EDIT_STOP});
    bench->start_ns = rsi_clock_now_ns();
    while (!rsi_data_plane_is_drained(bench->plane)) {
        drive(bench);
        receive(bench, reader);
    }
    drive(bench);
    receive(bench, reader);
    assert_int_equal(reader->received_count, MESSAGE_COUNT);
    bench_destroy(bench);
}

static void wrong_options_are_refused(void **state)
{
    (void)state;
    struct rsi_data_plane *plane = NULL;
    struct rsi_error error = {0};
    struct rsi_data_options options = {.agent_count = 9};
    assert_int_equal(rsi_data_plane_create(&plane, &options, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "agents"));
    options.agent_count = 1;
    options.log_bytes = 1000;
    assert_int_equal(rsi_data_plane_create(&plane, &options, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "log_bytes"));
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        listen_url = argv[1];
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_matching_frame_once_and_in_order),
        cmocka_unit_test(a_dropping_subscriber_gets_exact_gaps_and_holds_nobody),
        cmocka_unit_test(a_blocking_subscriber_holds_publishers_and_loses_nothing),
        cmocka_unit_test(who_no_longer_asks_to_block_holds_nobody),
        cmocka_unit_test(what_was_not_subscribed_is_no_gap),
        cmocka_unit_test(an_echo_that_was_not_wanted_is_no_gap),
        cmocka_unit_test(a_slow_subscriber_under_disconnect_is_reported_by_name),
        cmocka_unit_test(a_wrong_alias_ends_the_publisher_alone),
        cmocka_unit_test(large_headers_end_the_publisher),
        cmocka_unit_test(malformed_headers_end_the_publisher),
        cmocka_unit_test(what_arrived_is_delivered_before_a_leave_and_a_close),
        cmocka_unit_test(a_stop_drains),
        cmocka_unit_test(wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
