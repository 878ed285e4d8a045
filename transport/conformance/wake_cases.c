/*
 * Cases about sleeping: no wake-up is lost, none comes without cause.
 *
 * Design notes
 * - Both sides are threads that sleep on poller_fd with nothing but the transport to wake them, and
 *   play ball. Each round the seed says, to both alike, what one side sleeps for, and how long each
 *   dawdles before its step, so that the step of the one falls before, into and after the other's
 * way to sleep.
 * - A lost wake-up shows as 20 s of sleep. There is no shorter timing.
 */
#include "transport/conformance/stream.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>

enum ball {
    BALL_ARRIVES,      /* the thrower sleeps for the ball that is thrown back */
    BALL_IS_CONSUMED,  /* the thrower sleeps until its ball is consumed */
    BALL_HAS_ARRIVED,  /* the thrower sleeps until its ball has arrived */
    BALL_WAS_CONSUMED, /* as consumed, but it was before the thrower asks */
    BALL_COUNT,
};

struct game {
    struct conform *conform;
    uint64_t seed;
    uint64_t round_count;
    _Atomic uint64_t caught_count; /* rounds whose ball the catcher consumed; written by it alone */
    _Atomic bool is_over;          /* the thrower has played all rounds */
};

struct player {
    struct game *game;
    struct conform_side *side;
    uint64_t dawdle_random; /* its own; what both must agree on comes from game_kind() */
    uint64_t thrown_count;
    uint64_t caught_count;
    uint64_t round;
    uint64_t deadline_ns; /* of what this side waits for now */
};

static enum ball game_kind(const struct game *game, uint64_t round)
{
    uint64_t state = game->seed + round;
    return (enum ball)conform_random(&state, BALL_COUNT);
}

static void dawdle(struct player *player)
{
    static const uint64_t turns_max[] = {1, 50, 500, 5000};
    uint64_t limit = turns_max[conform_random(&player->dawdle_random, 4)];
    for (uint64_t turns = conform_random(&player->dawdle_random, limit); turns > 0; turns--) {
        rsi_cpu_pause();
    }
}

static void poll_side(struct conform_side *side)
{
    uint64_t now_ns = conform_now_ns();
    (void)rsi_poller_poll(side->poller, now_ns);
    side->conform->transport->link_poll_control(side->links[0], now_ns);
}

static void begin_waiting(struct player *player)
{
    player->deadline_ns = conform_now_ns() + CONFORM_HANG_NS;
}

/* A side that is awake and gets nowhere is as bad as one that sleeps for ever. */
static void check_waiting(const struct player *player, const char *what)
{
    if (conform_now_ns() > player->deadline_ns) {
        conform_fail(player->game->conform,
                     "round %" PRIu64 ": the %s was awake for 20 s waiting for %s", player->round,
                     player->side->name, what);
    }
}

/* Sleeps once if the transport lets it. */
static void sleep_once(struct conform_side *side, const char *what)
{
    const struct rsi_transport *transport = side->conform->transport;
    if (!transport->poller_arm(side->poller)) {
        transport->poller_disarm(side->poller);
        return;
    }
    struct pollfd waiting = {.fd = transport->poller_fd(side->poller), .events = POLLIN};
    int ready = poll(&waiting, 1, (int)(CONFORM_HANG_NS / 1000000));
    if (ready == 0) {
        conform_fail(side->conform, "the %s slept for 20 s waiting for %s: a wake-up was lost",
                     side->name, what);
    }
    transport->poller_disarm(side->poller);
}

/* Sleeps until the in ring has arrived to `pos`. */
static void sleep_for_arrival(struct player *player, uint64_t pos)
{
    struct rsi_link *link = player->side->links[0];
    begin_waiting(player);
    for (;;) {
        check_waiting(player, "a frame to arrive");
        poll_side(player->side);
        if (link->arrived_pos >= pos) {
            return;
        }
        rsi_link_request_wake(link, pos, CONFORM_NEVER, CONFORM_NEVER);
        sleep_once(player->side, "a frame to arrive");
    }
}

static void sleep_for_consumed(struct player *player, bool polls_first)
{
    struct rsi_link *link = player->side->links[0];
    begin_waiting(player);
    for (;;) {
        check_waiting(player, "its bytes to be consumed");
        if (polls_first) {
            poll_side(player->side);
        }
        polls_first = true;
        if (link->peer_consumed_pos >= link->placed_pos) {
            return;
        }
        rsi_link_request_wake(link, CONFORM_NEVER, CONFORM_NEVER, link->placed_pos);
        sleep_once(player->side, "its bytes to be consumed");
    }
}

static void sleep_for_peer_arrived(struct player *player)
{
    struct rsi_link *link = player->side->links[0];
    begin_waiting(player);
    for (;;) {
        check_waiting(player, "its bytes to have arrived");
        poll_side(player->side);
        if (link->peer_arrived_pos >= link->placed_pos) {
            return;
        }
        rsi_link_request_wake(link, CONFORM_NEVER, link->placed_pos, CONFORM_NEVER);
        sleep_once(player->side, "its bytes to have arrived");
    }
}

static void throw_ball(struct player *player)
{
    struct rsi_link *link = player->side->links[0];
    struct conform *conform = player->game->conform;
    while (!conform_stage(conform, link, 14, player->thrown_count, 32)) {
        sleep_for_consumed(player, true);
    }
    player->thrown_count++;
    rsi_link_place(link);
    conform_check(conform, !rsi_failed(rsi_link_flush(link)));
}

static void catch_ball(struct player *player)
{
    struct rsi_link *link = player->side->links[0];
    uint64_t start_pos = link->consumed_pos;
    sleep_for_arrival(player, start_pos + rsi_frame_bytes(0, 32));
    uint64_t bytes =
        conform_check_frame(player->game->conform, link, start_pos, 14, player->caught_count, 32);
    player->caught_count++;
    dawdle(player);
    rsi_link_consume(link, bytes);
}

static void *play_catcher(void *arg)
{
    struct player *player = arg;
    struct game *game = player->game;
    for (uint64_t round = 0; round < game->round_count; round++) {
        player->round = round;
        catch_ball(player);
        /* On its way even if this side sleeps next: poll_data sends what publish_consumed left. */
        poll_side(player->side);
        rsi_store_release(&game->caught_count, round + 1);
        if (game_kind(game, round) == BALL_ARRIVES) {
            dawdle(player);
            throw_ball(player);
        }
    }
    /* The thrower's last question may still come. */
    while (!rsi_load_acquire(&game->is_over)) {
        poll_side(player->side);
        sched_yield();
    }
    return NULL;
}

static void play_thrower(struct player *player)
{
    struct game *game = player->game;
    for (uint64_t round = 0; round < game->round_count; round++) {
        player->round = round;
        throw_ball(player);
        dawdle(player);
        switch (game_kind(game, round)) {
        case BALL_ARRIVES:
            catch_ball(player);
            break;
        case BALL_IS_CONSUMED:
            sleep_for_consumed(player, true);
            break;
        case BALL_HAS_ARRIVED:
            sleep_for_peer_arrived(player);
            break;
        case BALL_WAS_CONSUMED:
            /* Bytes that a stalled flush left need our poll to leave at all. */
            begin_waiting(player);
            while (rsi_load_acquire(&game->caught_count) <= round) {
                check_waiting(player, "the catcher");
                poll_side(player->side);
                sched_yield();
            }
            sleep_for_consumed(player, false);
            break;
        case BALL_COUNT:
            break;
        }
    }
    rsi_store_release(&game->is_over, true);
}

static void play(struct conform *conform, struct conform_side *thrower,
                 struct conform_side *catcher, uint64_t round_count)
{
    struct game game = {
        .conform = conform,
        .seed = conform_random(&conform->random, UINT64_MAX),
        .round_count = round_count,
    };
    struct player players[2] = {
        {.game = &game, .side = thrower, .dawdle_random = game.seed + 1},
        {.game = &game, .side = catcher, .dawdle_random = game.seed + 2},
    };
    pthread_t thread;
    conform_check(conform, pthread_create(&thread, NULL, play_catcher, &players[1]) == 0);
    play_thrower(&players[0]);
    pthread_join(thread, NULL);
}

static void no_wake_up_is_lost(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    play(conform, &conform->client, &conform->server, conform_scaled(conform, 10000, 100));
    conform_shut(conform);
}

static void no_wake_up_is_lost_the_other_way(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    play(conform, &conform->server, &conform->client, conform_scaled(conform, 10000, 100));
    conform_shut(conform);
}

/* Whether a side that armed its poller is woken within `wait_ms`. */
static bool side_is_woken(struct conform_side *side, int wait_ms)
{
    const struct rsi_transport *transport = side->conform->transport;
    bool is_woken = true;
    if (transport->poller_arm(side->poller)) {
        struct pollfd waiting = {.fd = transport->poller_fd(side->poller), .events = POLLIN};
        is_woken = poll(&waiting, 1, wait_ms) > 0;
    }
    transport->poller_disarm(side->poller);
    return is_woken;
}

/* Whether one of two sides that both sleep is woken within `wait_ms`. */
static bool are_woken(struct conform *conform, int wait_ms)
{
    const struct rsi_transport *transport = conform->transport;
    bool are_armed = transport->poller_arm(conform->client.poller);
    are_armed = transport->poller_arm(conform->server.poller) && are_armed;
    struct pollfd waiting[2] = {
        {.fd = transport->poller_fd(conform->client.poller), .events = POLLIN},
        {.fd = transport->poller_fd(conform->server.poller), .events = POLLIN},
    };
    bool is_quiet = are_armed && poll(waiting, 2, wait_ms) == 0;
    transport->poller_disarm(conform->client.poller);
    transport->poller_disarm(conform->server.poller);
    return !is_quiet;
}

static void idle_link_wakes_nobody(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    struct conform_stream streams[2];
    conform_stream_init(&streams[0], &conform->client, 0, 200, conform_size_mixed);
    conform_stream_init(&streams[1], &conform->server, 0, 200, conform_size_mixed);
    conform_streams_run(conform, streams, 2);

    struct rsi_link *client = conform->client.links[0];
    struct rsi_link *server = conform->server.links[0];
    /* Until what the streams left behind is over. */
    uint64_t deadline_ns = conform_now_ns() + CONFORM_HANG_NS;
    uint32_t quiet_count = 0;
    while (quiet_count < 5) {
        rsi_link_request_wake(client, client->arrived_pos + 8, CONFORM_NEVER, CONFORM_NEVER);
        rsi_link_request_wake(server, server->arrived_pos + 8, CONFORM_NEVER, CONFORM_NEVER);
        bool is_quiet =
            !side_is_woken(&conform->client, 10) && !side_is_woken(&conform->server, 10);
        quiet_count = is_quiet ? quiet_count + 1 : 0;
        poll_side(&conform->client);
        poll_side(&conform->server);
        conform_check(conform, conform_now_ns() < deadline_ns);
    }
    /* Both armed at once, for 200 ms. A transport may look after an idle link, to learn whether the
     * peer is still there; but hardly ever, so most such times are quiet. */
    uint32_t attempt_count = 0;
    while (are_woken(conform, 200)) {
        poll_side(&conform->client);
        poll_side(&conform->server);
        conform_check(conform, ++attempt_count < 5);
    }
    conform_shut(conform);
}

/* Asking for the same again and again costs one message, not one each. */
static void same_request_is_sent_once(struct conform *conform)
{
    conform_open(conform, NULL);
    conform_connect_attached(conform, 65536);
    struct rsi_link *client = conform->client.links[0];
    conform_check(conform, conform_stage(conform, client, 15, 0, 64));
    rsi_link_place(client);
    conform_check(conform, !rsi_failed(rsi_link_flush(client)));
    uint64_t before = rsi_load_relaxed(&client->stats.wake_requests);
    for (int i = 0; i < 1000; i++) {
        rsi_link_request_wake(client, CONFORM_NEVER, CONFORM_NEVER, client->placed_pos);
        conform_side_step(&conform->client);
    }
    conform_check(conform, rsi_load_relaxed(&client->stats.wake_requests) - before <= 1);
    struct rsi_link *server = conform->server.links[0];
    conform_wait_until(conform, server->arrived_pos == client->placed_pos);
    rsi_link_consume(server, server->arrived_pos - server->consumed_pos);
    conform_wait_until(conform, client->peer_consumed_pos == client->placed_pos);
    conform_shut(conform);
}

/* As an agent that has both planes: the end of a peer may show on either. */
static void sleep_on_both_planes(struct conform_side *side)
{
    const struct rsi_transport *transport = side->conform->transport;
    if (transport->poller_arm(side->poller)) {
        struct pollfd waiting[2] = {
            {.fd = transport->poller_fd(side->poller), .events = POLLIN},
            {.fd = transport->domain_fd(side->domain), .events = POLLIN},
        };
        if (poll(waiting, 2, (int)(CONFORM_HANG_NS / 1000000)) == 0) {
            conform_fail(side->conform,
                         "the %s slept for 20 s and was not told that its peer "
                         "closed",
                         side->name);
        }
    }
    transport->poller_disarm(side->poller);
}

/* A control message and the peer's end wake a sleeper, too. */
static void control_and_close_wake_a_sleeper(struct conform *conform)
{
    for (int i = 0; i < 20; i++) {
        conform_open(conform, NULL);
        conform_connect_attached(conform, 65536);
        struct rsi_link *client = conform->client.links[0];
        struct rsi_link *server = conform->server.links[0];
        uint32_t bytes = 0;
        conform_check(conform, rsi_link_send_control(client, "hello", 5) == RSI_OK);
        while (rsi_link_front_control(server, &bytes) == NULL) {
            /* The client's outbox goes out with its poll, which is all that it does. */
            conform_side_step(&conform->client);
            (void)side_is_woken(&conform->server, 50);
            poll_side(&conform->server);
        }
        rsi_link_pop_control(server);
        conform->transport->link_close(client);
        conform_side_wait_until(&conform->client, rsi_link_state(client) == RSI_LINK_CLOSED);
        uint64_t deadline_ns = conform_now_ns() + CONFORM_HANG_NS;
        while (rsi_link_state(server) != RSI_LINK_LOST) {
            sleep_on_both_planes(&conform->server);
            conform_side_step(&conform->server);
            conform_check(conform, conform_now_ns() < deadline_ns);
        }
        conform_shut(conform);
    }
}

const struct conform_case conform_wake_cases[] = {
    {"no_wake_up_is_lost", no_wake_up_is_lost, CONFORM_TWO_THREADS},
    {"no_wake_up_is_lost_the_other_way", no_wake_up_is_lost_the_other_way, CONFORM_TWO_THREADS},
    {"idle_link_wakes_nobody", idle_link_wakes_nobody, CONFORM_ONE_THREAD},
    {"same_request_is_sent_once", same_request_is_sent_once, CONFORM_ONE_THREAD},
    {"control_and_close_wake_a_sleeper", control_and_close_wake_a_sleeper, CONFORM_ONE_THREAD},
    {NULL, NULL, 0},
};
