/*
 * A session without a link, until it has one again.
 *
 * Design notes
 * - The fence. Nothing is told to the broker before the old link is CLOSED: from there on its
 *   positions are final, and what a device or the kernel still had of it hits rings that nobody
 *   reads any more. The next link may be dialled meanwhile, up to the broker's Challenge, because
 *   up to there nothing is at stake.
 * - Going over is one step, made only in a pass, so never inside a callback, a delivery, or a call
 *   that looks at a ring. What is still owed is carried from the old rings into the new ones
 *   (transport/carry.c), and what was asked and not answered is asked again (requests.c).
 * - An open claim points into the old out ring. It does not hold the session back: the old rings
 *   stay until it is committed, and the commit fetches what was filled in.
 * - Which run of the broker answered stands in its greeting. The one that made the session is asked
 *   to go on with it; if it says that the session is gone, it is, and if it also says why, that is
 *   taken as if it had come over the old link. Another one is told all of what the session consists
 *   of (renew.c).
 * - Tries go through the candidates in their order, as connecting does; after each round they pause
 *   for longer, up to half a second, with some jitter, so that the clients of a broker that comes
 *   back do not all come at once.
 * - A try that falls silent after the Challenge costs its time-out, and the broker's block_timeout
 *   runs meanwhile: so the first waits for less than half of that (of its default), the later ones
 *   for longer, in case making the rings takes so long.
 */
#include "clients/c/client.h"

#include "core/assert.h"
#include "core/clock.h"
#include "core/position.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdio.h>

#define NS_PER_MS UINT64_C(1000000)
#define TRY_NS    UINT64_C(2000000000) /* to the Challenge */
/* From there on: both sides close and make rings. */
#define ATTACH_FIRST_NS  UINT64_C(2000000000)
#define ATTACH_MAX_NS    UINT64_C(8000000000)
#define BACKOFF_FIRST_NS UINT64_C(10000000)
#define BACKOFF_MAX_NS   UINT64_C(500000000)

/* ---- beginning and giving up -------------------------------------------------------------------
 */

static void begin_round(struct ringside_client *client)
{
    struct rsi_client_round *round = &client->resume.round;
    round->next_index = 0;
    round->failures[0] = 0;
    if (rsi_client_choose(&round->candidates, &client->url, rsi_client_has_dpdk_port(client),
                          &client->resume.last_failure) != RSI_OK) {
        round->candidates.count = 0;
    }
}

static void suspend(struct ringside_client *client, const struct rsi_error *loss, uint64_t now_ns)
{
    struct rsi_client_resume *resume = &client->resume;
    client->phase = RSI_CLIENT_RESUMING;
    client->totals.suspensions++;
    client->news.is_any = true;
    client->news.is_suspended = true;
    client->news.is_resumed = false;
    resume->loss = *loss;
    resume->last_failure = (struct rsi_error){0};
    resume->begun_ns = now_ns;
    resume->deadline_ns = rsi_client_deadline_ns(now_ns, client->options.resume_timeout_ns);
    resume->retry_due_ns = now_ns;
    resume->backoff_ns = BACKOFF_FIRST_NS;
    resume->attach_ns = ATTACH_FIRST_NS;
    resume->is_fenced = false;
    /* A dial that is under way to a better transport may as well be the first try. */
    resume->is_dialling = client->better.is_dialling;
    client->better.is_dialling = false;
    if (resume->is_dialling) {
        resume->round = client->better.round;
    } else {
        begin_round(client);
    }
    struct rsi_client_path path = rsi_client_path(client);
    rsi_path_close(&path);
}

void rsi_client_leave_link(struct ringside_client *client, const struct rsi_error *why,
                           uint64_t now_ns)
{
    suspend(client, why, now_ns);
}

void rsi_client_suspend(struct ringside_client *client, uint64_t now_ns)
{
    const struct rsi_error *loss = &client->link->error;
    /* A peer that broke the protocol is not asked to do so again. */
    if (client->options.resume_timeout_ns == UINT64_MAX || client->is_deliver_stopped ||
        loss->status == RSI_E_PROTOCOL) {
        rsi_client_end(client, RSI_E_LINK_LOST, loss);
        return;
    }
    suspend(client, loss, now_ns);
}

void rsi_client_give_up(struct ringside_client *client, const char *why)
{
    struct rsi_error error = {0};
    (void)rsi_fail(&error, RSI_E_LINK_LOST, "%.200s; %s", client->resume.loss.text, why);
    client->resume.is_dialling = false;
    rsi_client_end(client, RSI_E_LINK_LOST, &error);
}

static RSI_COLD void give_up_late(struct ringside_client *client, uint64_t now_ns)
{
    char why[RSI_ERROR_TEXT_BYTES];
    const struct rsi_client_resume *resume = &client->resume;
    snprintf(why, sizeof(why), "no other link within %" PRIu64 " ms%s%.300s",
             (now_ns - resume->begun_ns) / NS_PER_MS,
             resume->last_failure.status == RSI_OK ? "" : ": ", resume->last_failure.text);
    rsi_client_give_up(client, why);
}

/* ---- tries -------------------------------------------------------------------------------------
 */

/* From half of the back-off to all of it. */
static uint64_t pause_ns(struct rsi_client_resume *resume, uint64_t now_ns)
{
    uint64_t half_ns = resume->backoff_ns / 2;
    uint64_t jitter_ns = (now_ns * UINT64_C(0x9e3779b97f4a7c15) >> 32) % half_ns;
    resume->backoff_ns = rsi_pos_min(2 * resume->backoff_ns, BACKOFF_MAX_NS);
    return half_ns + jitter_ns;
}

static void try_next(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_client_resume *resume = &client->resume;
    struct rsi_client_round *round = &resume->round;
    if (round->next_index >= round->candidates.count) {
        begin_round(client);
    }
    if (round->candidates.count == 0) {
        resume->retry_due_ns = now_ns + pause_ns(resume, now_ns);
        return;
    }
    resume->is_dialling = true;
    rsi_dial_begin(&client->dial, client, &round->candidates.list[round->next_index++], now_ns,
                   rsi_pos_min(now_ns + TRY_NS, resume->deadline_ns));
}

/* The dial has failed. */
static void note_failure(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_client_resume *resume = &client->resume;
    struct rsi_client_round *round = &resume->round;
    const struct rsi_dial *dial = &client->dial;
    resume->is_dialling = false;
    /* A try that was cut short by the end of it all says less than the one before. */
    if (now_ns < resume->deadline_ns || resume->last_failure.status == RSI_OK) {
        resume->last_failure = dial->error;
    }
    rsi_client_renew_forget(client);
    if (dial->is_session_ended) {
        rsi_client_end_by_broker(client, &dial->error, client->link->arrived_pos, dial->taken_pos);
        return;
    }
    if (dial->is_session_refused) {
        rsi_client_give_up(client, dial->error.text);
        return;
    }
    rsi_client_note_failure(client, round);
    if (client->better.is_changing && dial->is_challenged) {
        rsi_client_better_failed(client);
    }
    client->better.is_changing = false;
    bool is_round_over = dial->is_refused || round->next_index >= round->candidates.count;
    if (is_round_over) {
        round->next_index = round->candidates.count;
    }
    resume->retry_due_ns = is_round_over ? now_ns + pause_ns(resume, now_ns) : now_ns;
}

/* ---- going over --------------------------------------------------------------------------------
 */

/* The old path's rings are of no use any more, but for messages that are held in them and a claim
 * that is still open. */
static void retire(struct ringside_client *client, struct rsi_client_path *path)
{
    bool holds_claim = client->claim != NULL && !client->is_claim_left_behind;
    if (rsi_client_keep_held(client, path, holds_claim)) {
        client->is_claim_left_behind |= holds_claim;
        return;
    }
    if (!holds_claim) {
        rsi_path_destroy(path, client->epoll_fd);
        return;
    }
    rsi_assert(!rsi_path_exists(&client->retired));
    rsi_path_unwatch(path, client->epoll_fd);
    client->retired = *path;
    client->is_claim_left_behind = true;
}

static void note_success(struct ringside_client *client, const char *how, char *told,
                         size_t told_bytes, uint64_t now_ns)
{
    struct rsi_text text;
    client->news.is_any = true;
    client->better.is_changing = false;
    rsi_client_note_chosen(client, &client->resume.round);
    rsi_client_better_begin(client, &client->resume.round.candidates, now_ns);
    rsi_client_counters_show_transport(client);
    rsi_text_init(&text, told, told_bytes);
    rsi_text_append(&text, "%s by %s after %" PRIu64 " ms without a link (%.300s): %s", how,
                    client->transport->name, (now_ns - client->resume.begun_ns) / NS_PER_MS,
                    client->resume.loss.text, client->transport_why);
}

void rsi_client_go_over(struct ringside_client *client, rsi_client_carry_t *carry)
{
    struct rsi_client_path old = rsi_client_path(client);
    client->session = client->dial.agreed;
    client->receiver = client->dial.receiver;
    struct rsi_client_path path = rsi_dial_take(&client->dial);
    carry(client, path.link, old.link);
    retire(client, &old);
    rsi_client_set_path(client, &path);
    rsi_client_consume(client); /* what was held back lies in the old ring now */
    client->resume.is_dialling = false;
    client->phase = RSI_CLIENT_OPEN;
    client->is_armed = false;
    client->emit_due_ns = 0;
    rsi_link_place(client->link);
    (void)rsi_link_flush(client->link); /* what cannot go now goes with poll_data */
    rsi_client_ask_again(client);
}

static void carry_on(struct ringside_client *client, struct rsi_link *to,
                     const struct rsi_link *from)
{
    (void)client;
    rsi_link_carry(to, from);
}

static void go_on_resumed(struct ringside_client *client, uint64_t now_ns)
{
    rsi_client_go_over(client, carry_on);
    client->totals.resumptions++;
    client->news.is_resumed = true;
    note_success(client, "resumed", client->news.resumed_text, sizeof(client->news.resumed_text),
                 now_ns);
}

static void note_renewed(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_client_remnant *last = rsi_client_remnant_last(client);
    client->totals.renewals++;
    note_success(client, "renewed", last->renewed_text, sizeof(last->renewed_text), now_ns);
}

/* The broker has shown itself, and the old link is fenced: the session goes to it. */
static void go_on(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_dial *dial = &client->dial;
    const struct rsi_client_session *session = &client->session;
    struct rsi_client_resume *resume = &client->resume;
    uint64_t deadline_ns = rsi_pos_min(now_ns + resume->attach_ns, resume->deadline_ns);
    resume->attach_ns = rsi_pos_min(2 * resume->attach_ns, ATTACH_MAX_NS);
    if (dial->path.link->peer_greeting.incarnation != session->broker_incarnation) {
        rsi_dial_go_on(dial, RSI_DIAL_RENEW, deadline_ns);
    } else if (session->grace_ns != 0 && session->secret_bytes != 0) {
        rsi_dial_go_on(dial, RSI_DIAL_RESUME, deadline_ns);
    } else {
        rsi_client_give_up(
            client, "the broker keeps no session that has no link (session_grace is 0 there)");
    }
}

/* ---- a pass ------------------------------------------------------------------------------------
 */

/* One step, if it is time for one. False: there was nothing to do. */
static bool step(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_client_resume *resume = &client->resume;
    struct rsi_dial *dial = &client->dial;
    if (!resume->is_dialling) {
        bool is_due = !rsi_dial_is_active(dial) && now_ns >= resume->retry_due_ns;
        if (is_due) {
            try_next(client, now_ns);
        }
        return is_due;
    }
    if (dial->state == RSI_DIAL_FAILED) {
        note_failure(client, now_ns);
        return true;
    }
    if (dial->state == RSI_DIAL_CHALLENGED && resume->is_fenced) {
        go_on(client, now_ns);
        return true;
    }
    if (dial->state == RSI_DIAL_READY && dial->purpose == RSI_DIAL_RESUME) {
        go_on_resumed(client, now_ns);
        return true;
    }
    if (dial->state == RSI_DIAL_READY && rsi_client_renew_poll(client)) {
        note_renewed(client, now_ns);
        return true;
    }
    return false;
}

uint32_t rsi_client_resume_poll(struct ringside_client *client, uint64_t now_ns)
{
    if (rsi_unlikely(rsi_path_exists(&client->retired)) && !client->is_claim_left_behind) {
        rsi_path_destroy(&client->retired, client->epoll_fd);
    }
    if (rsi_unlikely(client->holds.path_count > 0)) {
        rsi_client_sweep_held(client);
    }
    uint32_t work = rsi_dial_poll(&client->dial, now_ns);
    if (rsi_likely(client->phase == RSI_CLIENT_OPEN)) {
        return work + rsi_client_better_poll(client, now_ns);
    }
    if (client->phase != RSI_CLIENT_RESUMING) {
        return work;
    }
    struct rsi_client_path path = rsi_client_path(client);
    if (!client->resume.is_fenced && rsi_path_is_closed(&path)) {
        client->resume.is_fenced = true;
        rsi_path_unwatch(&path, client->epoll_fd);
    }
    work += step(client, now_ns);
    /* What is ready waits for the application alone. */
    bool is_waiting = client->dial.state != RSI_DIAL_READY;
    if (client->phase == RSI_CLIENT_RESUMING && is_waiting &&
        now_ns >= client->resume.deadline_ns) {
        give_up_late(client, now_ns);
    }
    return work;
}

uint64_t rsi_client_resume_due_ns(const struct ringside_client *client)
{
    if (client->phase == RSI_CLIENT_OPEN) {
        return client->better.is_dialling || rsi_dial_is_active(&client->dial)
                   ? UINT64_MAX
                   : client->better.due_ns;
    }
    if (client->phase != RSI_CLIENT_RESUMING) {
        return UINT64_MAX;
    }
    const struct rsi_client_resume *resume = &client->resume;
    if (client->dial.state == RSI_DIAL_READY) {
        return UINT64_MAX;
    }
    bool may_begin = !resume->is_dialling && !rsi_dial_is_active(&client->dial);
    return may_begin ? rsi_pos_min(resume->retry_due_ns, resume->deadline_ns) : resume->deadline_ns;
}
