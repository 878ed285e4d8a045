/*
 * Cases about a session that outlives its links: traffic both ways, a cut at any moment, both links
 * to CLOSED, positions told, a new link that starts there, what is owed carried over, and on. Every
 * frame comes once, in order, with every byte right.
 *
 * Design notes
 * - The two sides go their own ways, as a client and a broker do: each closes its link when it
 * finds it LOST, each takes the new link over when that is ATTACHED. A cut in between leaves them
 * on different links; each then tells the positions of the one it is on.
 * - A side may hold three links: `link`, whose positions are the session's; `next`, which is to
 * take over; and, at the server, links of attempts that were given up before they were accepted.
 * The client sends the attempt's number on the control lane, so that these are told apart.
 * - Frames are staged and given back all the time, also into and from a dead link's rings.
 */
#include "transport/conformance/stream.h"

#include "core/position.h"

#include <stdio.h>
#include <string.h>

#define RING_BYTES      65536u
#define TRANSPORTS_MAX  2u
#define FRAMES_PER_TURN 8u
#define FAR_POS         ((UINT64_C(1) << 43) - 8 * RING_BYTES) /* commit words wrap behind it */

struct end {
    struct session *session;
    bool is_client;
    struct conform *on; /* of link */
    struct rsi_link *link;
    struct rsi_link *next; /* NULL: none; on session->trying */
    bool is_attaching;     /* next */
    uint32_t attempt;      /* that made link; 0: the first */

    uint64_t seed; /* of what this end writes */
    uint64_t written_count;
    uint64_t read_count;
    uint64_t read_pos;
    bool is_slow; /* reads nothing for a while */
};

struct session {
    struct conform *main;
    struct conform conforms[TRANSPORTS_MAX]; /* of the transports that links may use */
    uint32_t conform_count;
    struct end ends[2]; /* client, server */
    struct conform *trying;
    uint32_t attempt;
    uint64_t resume_count; /* both ends took over */
    uint64_t frame_limit;  /* of each direction; UINT64_MAX: no end yet */
    uint64_t cut_one_in;   /* turns; 0: no cuts */
    uint64_t deadline_ns;  /* something has to move before */
    uint64_t progress;
};

static uint64_t chance(struct session *session, uint64_t bound)
{
    return conform_random(&session->main->random, bound);
}

static struct conform_side *side_of(struct end *end, struct conform *conform)
{
    return end->is_client ? &conform->client : &conform->server;
}

static struct end *other_end(struct end *end)
{
    return &end->session->ends[end->is_client ? 1 : 0];
}

static void close_link(struct rsi_link *link)
{
    if (link != NULL) {
        link->transport->link_close(link); /* idempotent */
    }
}

/* ---- frames --------------------------------------------------------------------------------- */

static void write_some(struct end *end)
{
    struct session *session = end->session;
    for (uint64_t left = chance(session, FRAMES_PER_TURN); left > 0; left--) {
        uint64_t bytes = conform_size_mixed(end->seed, end->written_count);
        if (end->written_count == session->frame_limit ||
            !conform_stage(session->main, end->link, end->seed, end->written_count, bytes)) {
            break;
        }
        end->written_count++;
        if (chance(session, 4) == 0) {
            rsi_link_place(end->link);
        }
    }
    if (chance(session, 4) != 0) {
        rsi_link_place(end->link);
        (void)rsi_link_flush_clocked(end->link); /* a dead link says so */
    }
}

static void read_some(struct end *end)
{
    struct session *session = end->session;
    struct rsi_link *link = end->link;
    struct end *writer = other_end(end);
    if (chance(session, 200) == 0) {
        end->is_slow = !end->is_slow;
    }
    if (end->is_slow && session->cut_one_in != 0) {
        return;
    }
    for (uint64_t left = chance(session, 2 * FRAMES_PER_TURN); left > 0; left--) {
        if (end->read_pos == link->arrived_pos) {
            break;
        }
        conform_check(session->main, end->read_count < writer->written_count);
        uint64_t bytes = conform_size_mixed(writer->seed, end->read_count);
        end->read_pos += conform_check_frame(session->main, link, end->read_pos, writer->seed,
                                             end->read_count, bytes);
        end->read_count++;
    }
    if (chance(session, 2) == 0 || session->cut_one_in == 0) {
        rsi_link_consume(link, end->read_pos - link->consumed_pos);
    }
}

/* The last frames may need room of which the peer, unasked, tells nothing. */
static void ask_for_all(struct end *end)
{
    rsi_link_request_wake(end->link, CONFORM_NEVER, end->link->placed_pos, end->link->placed_pos);
}

/* ---- from link to link ---------------------------------------------------------------------- */

static void drop_next(struct end *end)
{
    if (end->next != NULL && rsi_link_state(end->next) == RSI_LINK_LOST) {
        close_link(end->next);
    }
    if (end->next != NULL && rsi_link_state(end->next) == RSI_LINK_CLOSED) {
        conform_destroy_link(side_of(end, end->session->trying), end->next);
        end->next = NULL;
        end->is_attaching = false;
    }
}

/* The new link is ready: what is owed moves over, and the old one goes. */
static void take_over(struct end *end)
{
    struct session *session = end->session;
    if (end->next == NULL || rsi_link_state(end->next) != RSI_LINK_ATTACHED ||
        chance(session, 4) == 0) {
        return;
    }
    uint64_t staged_pos = end->link->staged_pos;
    rsi_link_carry(end->next, end->link);
    conform_equal(session->main, end->next->staged_pos, staged_pos);
    conform_destroy_link(side_of(end, end->on), end->link);
    end->link = end->next;
    end->on = session->trying;
    end->next = NULL;
    end->is_attaching = false;
    rsi_link_place(end->link);
    (void)rsi_link_flush(end->link);
    end->attempt = session->attempt;
    if (other_end(end)->attempt == session->attempt) {
        session->resume_count++;
    }
}

static void dial_next(struct session *session)
{
    struct end *client = &session->ends[0];
    struct end *server = &session->ends[1];
    if (rsi_link_state(client->link) != RSI_LINK_CLOSED || client->next != NULL ||
        server->next != NULL || chance(session, 4) != 0) {
        return;
    }
    session->trying = &session->conforms[chance(session, session->conform_count)];
    session->attempt++;
    client->next = conform_dial(session->trying);
}

/* The client names its attempt as soon as the lane is open. */
static void name_attempt(struct session *session)
{
    struct end *client = &session->ends[0];
    struct rsi_link *next = client->next;
    if (next != NULL && !client->is_attaching && rsi_link_state(next) == RSI_LINK_OPEN &&
        session->ends[1].next == NULL && rsi_mailbox_is_empty(&next->outbox) &&
        next->user == NULL) {
        next->user = session;
        conform_check(session->main, rsi_link_send_control(next, &session->attempt,
                                                           sizeof(session->attempt)) == RSI_OK);
    }
}

/* What the server accepted: the attempt that counts, or one that was given up. */
static void sort_accepted(struct session *session, struct conform *conform)
{
    struct end *server = &session->ends[1];
    for (uint32_t i = 0; i < conform->server.link_count; i++) {
        struct rsi_link *link = conform->server.links[i];
        if (link == NULL || link == server->link || link == server->next) {
            continue;
        }
        uint32_t bytes;
        const uint32_t *attempt = rsi_link_front_control(link, &bytes);
        enum rsi_link_state state = rsi_link_state(link);
        if (state == RSI_LINK_CLOSED) {
            conform_destroy_link(&conform->server, link);
            return; /* the next turn goes on */
        }
        bool is_awaited = attempt != NULL && *attempt == session->attempt &&
                          session->ends[0].next != NULL && conform == session->trying;
        if (state != RSI_LINK_LOST && is_awaited) {
            rsi_link_pop_control(link);
            server->next = link;
        } else if (state == RSI_LINK_LOST || attempt != NULL) {
            close_link(link);
        }
    }
}

static struct rsi_link_rings rings_of(const struct rsi_link *own, const struct rsi_link *peer)
{
    return (struct rsi_link_rings){
        .out_bytes = own->out.capacity_bytes,
        .in_bytes = own->in.capacity_bytes,
        .out_start_pos = peer->arrived_pos,
        .out_consumed_pos = peer->consumed_pos,
        .in_start_pos = own->arrived_pos,
        .in_consumed_pos = own->consumed_pos,
    };
}

static void attach_end(struct end *end, const struct rsi_link_rings *rings)
{
    struct rsi_error error = {0};
    if (rsi_link_state(end->next) == RSI_LINK_OPEN &&
        end->next->transport->link_attach(end->next, rings, &error) != RSI_OK) {
        conform_fail(end->session->main, "link_attach: %s", error.text);
    }
    end->is_attaching = true;
}

/* Both have the new link open and the old one behind the fence: they tell, check and attach. */
static void attach_next(struct session *session)
{
    struct end *client = &session->ends[0];
    struct end *server = &session->ends[1];
    bool is_ready = client->next != NULL && server->next != NULL && !client->is_attaching &&
                    rsi_link_state(client->next) == RSI_LINK_OPEN &&
                    rsi_link_state(server->next) == RSI_LINK_OPEN &&
                    rsi_link_state(client->link) == RSI_LINK_CLOSED &&
                    rsi_link_state(server->link) == RSI_LINK_CLOSED;
    if (!is_ready) {
        return;
    }
    struct rsi_link_rings client_rings = rings_of(client->link, server->link);
    struct rsi_link_rings server_rings = rings_of(server->link, client->link);
    struct rsi_error error = {0};
    if (rsi_link_resume_check(client->link, client_rings.out_start_pos,
                              client_rings.out_consumed_pos, &error) != RSI_OK ||
        rsi_link_resume_check(server->link, server_rings.out_start_pos,
                              server_rings.out_consumed_pos, &error) != RSI_OK) {
        conform_fail(session->main, "%s", error.text);
    }
    bool is_client_first = chance(session, 2) == 0;
    attach_end(is_client_first ? client : server, is_client_first ? &client_rings : &server_rings);
    for (uint64_t steps = chance(session, 10); steps > 0; steps--) {
        conform_step(session->trying);
    }
    attach_end(is_client_first ? server : client, is_client_first ? &server_rings : &client_rings);
}

/* ---- turns ---------------------------------------------------------------------------------- */

static void cut_something(struct session *session)
{
    struct end *client = &session->ends[0];
    struct end *server = &session->ends[1];
    switch (chance(session, 6)) {
    case 0:
        close_link(client->link);
        break;
    case 1:
        close_link(server->link);
        break;
    case 2:
        close_link(client->link);
        close_link(server->link);
        break;
    case 3:
        close_link(chance(session, 2) == 0 ? client->next : server->next);
        break;
    default:
        conform_cut(client->on);
        break;
    }
}

static void end_turn(struct end *end)
{
    write_some(end);
    read_some(end);
    if (rsi_link_state(end->link) == RSI_LINK_LOST && chance(end->session, 4) == 0) {
        close_link(end->link);
    }
    /* The server learns from the client's new link, if from nothing else, that the old one is over.
     */
    if (!end->is_client && end->next != NULL) {
        close_link(end->link);
    }
    drop_next(end);
    take_over(end);
}

static void watch_progress(struct session *session)
{
    uint64_t now_ns = conform_now_ns();
    uint64_t progress = session->ends[0].read_count + session->ends[1].read_count;
    if (progress != session->progress || session->deadline_ns == 0) {
        session->progress = progress;
        session->deadline_ns = now_ns + CONFORM_HANG_NS;
    } else if (now_ns > session->deadline_ns) {
        conform_fail(session->main, "no frame came for 20 s");
    }
}

static void session_turn(struct session *session)
{
    for (uint32_t i = 0; i < session->conform_count; i++) {
        conform_step(&session->conforms[i]);
    }
    end_turn(&session->ends[chance(session, 2)]);
    dial_next(session);
    name_attempt(session);
    for (uint32_t i = 0; i < session->conform_count; i++) {
        sort_accepted(session, &session->conforms[i]);
    }
    attach_next(session);
    bool is_resuming = session->ends[0].next != NULL || session->ends[1].next != NULL;
    uint64_t one_in = is_resuming ? session->cut_one_in / 8 + 1 : session->cut_one_in;
    if (session->cut_one_in != 0 && chance(session, one_in) == 0) {
        cut_something(session);
    }
    watch_progress(session);
}

/* ---- a session ------------------------------------------------------------------------------ */

static void end_init(struct end *end, struct session *session, bool is_client)
{
    struct conform *first = &session->conforms[0];
    *end = (struct end){.session = session, .is_client = is_client, .on = first};
    end->link = side_of(end, first)->links[0];
    end->read_pos = end->link->consumed_pos;
    end->seed = conform_random(&session->main->random, UINT64_MAX);
}

/* Over one transport, or over it and another. */
static void session_open(struct session *session, struct conform *conform,
                         const struct conform_options *another)
{
    memset(session, 0, sizeof(*session));
    session->main = conform;
    session->frame_limit = UINT64_MAX;
    const struct conform_options *options[TRANSPORTS_MAX] = {conform->options, another};
    session->conform_count = another != NULL ? 2 : 1;
    for (uint32_t i = 0; i < session->conform_count; i++) {
        struct conform *one = &session->conforms[i];
        one->options = options[i];
        one->transport = options[i]->transport;
        one->random = conform_random(&conform->random, UINT64_MAX);
        conform_open(one, NULL);
    }
    struct conform *first = &session->conforms[0];
    conform_connect(first, 1);
    struct rsi_link_rings rings = {
        .out_bytes = RING_BYTES,
        .in_bytes = RING_BYTES,
        .out_start_pos = FAR_POS,
        .out_consumed_pos = FAR_POS,
        .in_start_pos = 4096,
        .in_consumed_pos = 4096,
    };
    conform_attach(first, 0, &rings);
    end_init(&session->ends[0], session, true);
    end_init(&session->ends[1], session, false);
}

/* No cut any more: all that was written is to be read. */
static void session_finish(struct session *session)
{
    session->cut_one_in = 0;
    session->frame_limit =
        rsi_pos_max(session->ends[0].written_count, session->ends[1].written_count) + 100;
    bool is_done = false;
    while (!is_done) {
        session_turn(session);
        is_done = true;
        for (uint32_t i = 0; i < 2; i++) {
            struct end *end = &session->ends[i];
            ask_for_all(end);
            is_done = is_done && end->written_count == session->frame_limit &&
                      other_end(end)->read_count == session->frame_limit &&
                      end->link->peer_consumed_pos == end->link->staged_pos;
        }
    }
    for (uint32_t i = 0; i < session->conform_count; i++) {
        conform_shut(&session->conforms[i]);
    }
}

static void run_session(struct conform *conform, const struct conform_options *another,
                        uint64_t resume_count)
{
    static struct session session;
    session_open(&session, conform, another);
    session.cut_one_in = 400;
    while (session.resume_count < resume_count) {
        session_turn(&session);
        if (chance(&session, 2000) == 0) {
            session.cut_one_in = 40 + chance(&session, 1500); /* sometimes again and again */
        }
    }
    if (conform->options->is_verbose) {
        printf("    %llu resumes in %u attempts, %llu and %llu frames\n",
               (unsigned long long)session.resume_count, session.attempt,
               (unsigned long long)session.ends[0].written_count,
               (unsigned long long)session.ends[1].written_count);
    }
    session_finish(&session);
}

/* ---- cases ---------------------------------------------------------------------------------- */

static void resumes_after_any_cut(struct conform *conform)
{
    run_session(conform, NULL, conform_scaled(conform, 400, 20));
}

/* shm and tcp are everywhere. */
static void resumes_on_another_transport(struct conform *conform)
{
    bool is_shm = strcmp(conform->transport->name, "shm") == 0;
    struct conform_options another = *conform->options;
    char url[128];
    another.transport = rsi_transport_find(is_shm ? "tcp" : "shm");
    another.dial_url = NULL;
    another.bind_host = NULL;
    another.listen_url = "tcp://127.0.0.1:0";
    if (!is_shm) {
        snprintf(url, sizeof(url), "shm://%s/another", conform->options->directory);
        another.listen_url = url;
    }
    run_session(conform, &another, conform_scaled(conform, 200, 20));
}

static uint64_t stage_until_full(struct conform *conform, struct rsi_link *link, uint64_t index)
{
    while (conform_stage(conform, link, 31, index, 400)) {
        index++;
    }
    return index;
}

/* A cut does not stop who writes until the ring is full, and what was written then comes. */
static void staging_goes_on_while_dead(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, RING_BYTES);
    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    conform_check(conform, conform_stage(conform, client, 31, 0, 400));
    rsi_link_place(client);
    (void)rsi_link_flush(client);
    conform->transport->link_close(client);
    conform_wait_until(conform, rsi_link_state(server) == RSI_LINK_LOST);
    conform->transport->link_close(server);
    uint64_t frame_count = stage_until_full(conform, client, 1);
    conform_wait_until(conform, conform_all_in_state(&conform->client, RSI_LINK_CLOSED) &&
                                    conform_all_in_state(&conform->server, RSI_LINK_CLOSED));
    uint64_t staged_pos = client->staged_pos;
    uint64_t placed_pos = client->placed_pos;
    rsi_link_place(client);
    conform_equal(conform, rsi_link_flush(client), RSI_E_LINK_CLOSED);
    conform_equal(conform, client->placed_pos, placed_pos);
    conform_equal(conform, client->staged_pos, staged_pos);
    conform_check(conform, staged_pos + 512 + RSI_RING_GUARD_BYTES > RING_BYTES);

    struct rsi_link_rings rings = rings_of(client, server);
    (void)conform_dial(conform);
    conform_wait_until(conform, conform->server.link_count == 2 &&
                                    rsi_link_state(conform->client.links[1]) == RSI_LINK_OPEN &&
                                    rsi_link_state(conform->server.links[1]) == RSI_LINK_OPEN);
    conform_attach(conform, 1, &rings);
    rsi_link_carry(conform->client.links[1], client);
    rsi_link_carry(conform->server.links[1], server);
    rsi_link_place(conform->client.links[1]);
    (void)rsi_link_flush(conform->client.links[1]);
    const struct rsi_link *in = conform->server.links[1];
    conform_wait_until(conform, in->arrived_pos == staged_pos);
    uint64_t position = in->consumed_pos;
    for (uint64_t i = 0; i < frame_count; i++) {
        position += conform_check_frame(conform, in, position, 31, i, 400);
    }
    conform_equal(conform, position, staged_pos);
    conform_shut(conform);
}

/* Who is behind the fence sees nothing more, whatever the other still places. */
static void closed_positions_are_final(struct conform *conform)
{
    for (uint64_t round = 0; round < 20; round++) {
        conform_open(conform, NULL);
        conform_connect_attached(conform, RING_BYTES);
        struct conform_side *closer = round % 2 == 0 ? &conform->client : &conform->server;
        struct conform_side *other = round % 2 == 0 ? &conform->server : &conform->client;
        struct rsi_link *closed = closer->links[0];
        struct rsi_link *out = other->links[0];
        uint64_t index = 0;
        uint64_t final_pos = UINT64_MAX;
        conform->transport->link_close(closed);
        for (uint64_t turn = 0; turn < 200 || final_pos == UINT64_MAX; turn++) {
            if (conform_stage(conform, out, 32, index, 64)) {
                index++;
            }
            rsi_link_place(out);
            (void)rsi_link_flush(out);
            conform_side_relax(closer, conform_side_step(closer));
            if (turn % 16 == 0) {
                (void)conform_side_step(other);
            }
            if (rsi_link_state(closed) == RSI_LINK_CLOSED && final_pos == UINT64_MAX) {
                final_pos = closed->arrived_pos;
            }
            conform_check(conform, final_pos == UINT64_MAX || final_pos == closed->arrived_pos);
        }
        conform_check(conform, final_pos <= out->placed_pos);
        conform_shut(conform);
    }
}

/* ---- the hint ------------------------------------------------------------------------------- */

enum { POLLER_COUNT = 3 };

/* Dials with the hint, and accepts with a choice of three pollers. */
static void accept_with_hint(struct conform *conform, uint32_t hint, uint32_t otherwise)
{
    struct conform_setup setup;
    conform_setup_init(&setup, conform);
    setup.client_domain.agent_hint = hint;
    conform_open(conform, &setup);
    struct rsi_poller *pollers[POLLER_COUNT] = {conform->server.poller};
    struct rsi_error error = {0};
    for (uint32_t i = 1; i < POLLER_COUNT; i++) {
        conform_equal(conform,
                      conform->transport->poller_create(&pollers[i], conform->server.domain,
                                                        &setup.server_poller, &error),
                      RSI_OK);
    }
    struct rsi_poller_choice choice = {pollers, POLLER_COUNT, otherwise};
    struct rsi_listener *listener = conform->listener;
    conform->listener = NULL; /* the harness accepts nobody */
    struct rsi_url url;
    conform_check(conform, rsi_url_parse(&url,
                                         conform->options->dial_url != NULL
                                             ? conform->options->dial_url
                                             : conform->transport->listener_url(listener),
                                         &error) == RSI_OK);
    struct rsi_link *dialled = NULL;
    conform_equal(conform,
                  conform->transport->link_dial(&dialled, conform->client.poller, &url, &error),
                  RSI_OK);
    conform->client.links[conform->client.link_count++] = dialled;
    for (uint64_t steps = conform_random(&conform->random, 100); steps > 0; steps--) {
        (void)conform_side_step(
            &conform->client); /* the greeting may be there before, or come later */
    }
    struct rsi_link *link = NULL;
    conform_wait_until(conform,
                       conform->transport->link_accept(&link, listener, &choice, &error) == RSI_OK);
    conform->server.links[conform->server.link_count++] = link;
    conform_wait_until(conform, rsi_link_state(link) == RSI_LINK_OPEN &&
                                    rsi_link_state(dialled) == RSI_LINK_OPEN);
    uint32_t expected = hint >= 1 && hint <= POLLER_COUNT ? hint - 1 : otherwise;
    conform_check(conform, link->poller == pollers[expected]);
    conform->transport->link_close(dialled);
    conform->transport->link_close(link);
    while (rsi_link_state(link) != RSI_LINK_CLOSED || rsi_link_state(dialled) != RSI_LINK_CLOSED) {
        conform_step(conform);
        (void)rsi_poller_poll(pollers[1], conform_now_ns());
        (void)rsi_poller_poll(pollers[2], conform_now_ns());
    }
    conform_destroy_link(&conform->server, link);
    conform->transport->poller_destroy(pollers[1]);
    conform->transport->poller_destroy(pollers[2]);
    conform->listener = listener;
    conform_shut(conform);
}

static void hint_chooses_the_poller(struct conform *conform)
{
    for (uint32_t hint = 0; hint <= POLLER_COUNT + 1; hint++) {
        accept_with_hint(conform, hint, 1);
    }
    accept_with_hint(conform, UINT32_MAX, 2);
}

const struct conform_case conform_resume_cases[] = {
    {"resumes_after_any_cut", resumes_after_any_cut, CONFORM_ONE_THREAD},
    {"resumes_on_another_transport", resumes_on_another_transport, CONFORM_ONE_THREAD},
    {"staging_goes_on_while_dead", staging_goes_on_while_dead, CONFORM_ONE_THREAD},
    {"closed_positions_are_final", closed_positions_are_final, CONFORM_ONE_THREAD},
    {"hint_chooses_the_poller", hint_chooses_the_poller, CONFORM_ONE_THREAD},
    {NULL, NULL, 0},
};
