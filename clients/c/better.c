/*
 * The look for a better transport, and the change to it.
 *
 * Design notes
 * - "auto://" takes the first transport that works. That another one worked at that moment may say
 *   little of the next hour: the device was not up, the broker's socket was not there yet, or the
 *   session came here because its better link was cut. So a session that is not on its first choice
 *   looks for the better ones every few seconds, in the background, as far as the Challenge.
 * - Who answers there costs the old link nothing. Only then the session changes over: it closes its
 *   link itself, which is the fence, and goes on as after any loss (resume.c); with one difference,
 *   that the way to go on is there already. Should it fail all the same, the old transport is tried
 *   like any other.
 * - A transport that answers and then does not carry a session (no memory may be locked for its
 *   rings) would interrupt the session at every look. Each such failure doubles the pause.
 */
#include "clients/c/client.h"

#include "core/position.h"

#include <string.h>

#define LOOK_INTERVAL_NS     UINT64_C(5000000000)
#define LOOK_INTERVAL_MAX_NS UINT64_C(600000000000)
#define LOOK_TRY_NS          UINT64_C(2000000000)

/* Whether there may ever be a better transport than the one that carries the session. */
static bool may_improve(const struct ringside_client *client,
                        const struct rsi_client_candidates *candidates)
{
    return candidates->is_choice && client->options.resume_timeout_ns != UINT64_MAX &&
           client->session.grace_ns != 0 &&
           (candidates->is_local_absent || candidates->list[0].transport != client->transport);
}

void rsi_client_better_begin(struct ringside_client *client,
                             const struct rsi_client_candidates *candidates, uint64_t now_ns)
{
    struct rsi_client_better *better = &client->better;
    bool is_first = candidates->list[0].transport == client->transport;
    better->round.next_index = 0;
    if (better->interval_ns == 0 || is_first) {
        better->interval_ns = LOOK_INTERVAL_NS;
    }
    better->due_ns = may_improve(client, candidates) ? now_ns + better->interval_ns : UINT64_MAX;
}

void rsi_client_better_failed(struct ringside_client *client)
{
    client->better.interval_ns = rsi_pos_min(2 * client->better.interval_ns, LOOK_INTERVAL_MAX_NS);
}

/* The next candidate of the look, or the end of it. */
static void look_further(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_client_better *better = &client->better;
    struct rsi_client_round *round = &better->round;
    bool is_over = round->next_index >= round->candidates.count ||
                   round->candidates.list[round->next_index].transport == client->transport;
    if (is_over) {
        better->due_ns = now_ns + better->interval_ns;
        round->next_index = 0;
        return;
    }
    better->is_dialling = true;
    rsi_dial_begin(&client->dial, client, &round->candidates.list[round->next_index++], now_ns,
                   now_ns + LOOK_TRY_NS);
}

static void begin_look(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_client_better *better = &client->better;
    memset(&better->round, 0, sizeof(better->round));
    if (rsi_client_choose(&better->round.candidates, &client->url, rsi_client_has_dpdk_port(client),
                          NULL) != RSI_OK) {
        better->round.candidates.count = 0;
    }
    look_further(client, now_ns);
}

static void change_over(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_client_better *better = &client->better;
    struct rsi_error why = {0};
    (void)rsi_fail(&why, RSI_E_CANCELLED, "%s was left for %s, which works now",
                   client->transport->name, client->dial.path.transport->name);
    better->is_changing = true;
    rsi_client_leave_link(client, &why, now_ns);
}

uint32_t rsi_client_better_poll(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_client_better *better = &client->better;
    const struct rsi_dial *dial = &client->dial;
    if (!better->is_dialling) {
        if (rsi_likely(now_ns < better->due_ns) || rsi_dial_is_active(dial)) {
            return 0;
        }
        if (better->round.next_index == 0) {
            begin_look(client, now_ns);
        } else {
            look_further(client, now_ns);
        }
        return 1;
    }
    if (dial->state == RSI_DIAL_FAILED) {
        better->is_dialling = false;
        rsi_client_note_failure(client, &better->round);
        return 1;
    }
    if (dial->state != RSI_DIAL_CHALLENGED) {
        return 0;
    }
    if (dial->path.link->peer_greeting.incarnation == client->session.broker_incarnation) {
        change_over(client, now_ns);
    } else {
        rsi_dial_cancel(&client->dial, "another run of the broker answered");
    }
    return 1;
}
