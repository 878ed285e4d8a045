/*
 * The steps of a dial.
 *
 * Design notes
 * - The same steps serve ringside_connect, which waits between them, a session that lost its link,
 *   and the look for a better transport, which happen inside other calls and must not wait.
 * - A dial stops at the Challenge. Up to there nothing is at stake and any number of dials may come
 *   and go; what follows makes or moves a session, so whoever began the dial decides it then:
 *   knowing from the greeting which run of a broker answered, and with the old link fenced.
 * - A failure takes the path down at once but not to the end, because closing takes time: FAILED is
 *   told immediately, the rest is polled. The first reason stands, but the broker's own words say
 *   more than the end of the link that followed them, so the lane is read before the state.
 */
#include "clients/c/dial.h"

#include "clients/c/client.h"
#include "core/assert.h"

#include <string.h>

#define CLOSE_TIMEOUT_NS UINT64_C(5000000000)

/* ---- ends --------------------------------------------------------------------------------------
 */

static void fail(struct rsi_dial *dial)
{
    dial->state = RSI_DIAL_FAILED;
    rsi_path_close(&dial->path);
    dial->deadline_ns = 0; /* of the closing: set by the next poll */
}

static void fail_timed_out(struct rsi_dial *dial)
{
    struct rsi_error *error = &dial->error;
    const char *peer = dial->path.link->peer_text;
    static const char silent[] =
        "%s accepted the connection but sent no %s within the connect time-out";
    switch (dial->state) {
    case RSI_DIAL_GREETED:
        (void)rsi_fail(error, RSI_E_TIMED_OUT, silent, peer, "Challenge");
        break;
    case RSI_DIAL_AUTHENTICATING:
        (void)rsi_fail(error, RSI_E_TIMED_OUT, silent, peer, "Welcome");
        break;
    case RSI_DIAL_ATTACHING:
        (void)rsi_fail(error, RSI_E_TIMED_OUT,
                       "setting up the rings was not done within the connect time-out");
        break;
    case RSI_DIAL_CONNECTING:
    case RSI_DIAL_IDLE:
    case RSI_DIAL_CHALLENGED:
    case RSI_DIAL_READY:
    case RSI_DIAL_FAILED:
        (void)rsi_fail(error, RSI_E_TIMED_OUT,
                       "connecting was not done within the connect time-out");
        break;
    }
    fail(dial);
}

void rsi_dial_cancel(struct rsi_dial *dial, const char *why)
{
    if (dial->state == RSI_DIAL_FAILED || dial->state == RSI_DIAL_IDLE) {
        return;
    }
    (void)rsi_fail(&dial->error, RSI_E_CANCELLED, "%s", why);
    if (dial->state == RSI_DIAL_READY && dial->purpose == RSI_DIAL_RENEW) {
        rsi_handshake_say_bye(dial); /* else the broker keeps what nobody will use */
    }
    fail(dial);
}

bool rsi_dial_is_down(const struct rsi_dial *dial)
{
    return dial->state == RSI_DIAL_FAILED && !rsi_dial_is_active(dial);
}

static uint32_t take_down(struct rsi_dial *dial, uint64_t now_ns)
{
    int epoll_fd = dial->client->epoll_fd;
    uint32_t work = rsi_path_poll(&dial->path, now_ns);
    if (dial->deadline_ns == 0) {
        dial->deadline_ns = now_ns + CLOSE_TIMEOUT_NS;
    }
    if (rsi_path_is_closed(&dial->path)) {
        rsi_path_destroy(&dial->path, epoll_fd);
        return work + 1;
    }
    if (now_ns >= dial->deadline_ns) {
        rsi_path_abandon(&dial->path, epoll_fd);
    }
    return work;
}

/* ---- steps -------------------------------------------------------------------------------------
 */

static const char *text_or_null(const char *text)
{
    return text[0] != 0 ? text : NULL;
}

static rsi_status_t open_path(struct rsi_dial *dial, const struct rsi_client_candidate *candidate,
                              uint64_t timeout_ns)
{
    const struct ringside_client *client = dial->client;
    struct rsi_domain_options options = {
        .bind_host = text_or_null(client->options.bind_host),
        .device = text_or_null(client->options.device),
        .node = -1,
        .agent_hint = client->session.id == 0 ? 0 : client->session.home_agent + 1,
        .connect_timeout_ns = timeout_ns,
        .dpdk = client->options.dpdk.options.port != NULL ? &client->options.dpdk.options : NULL,
    };
    rsi_status_t status = rsi_client_incarnation(&options.incarnation, &dial->error);
    if (status != RSI_OK) {
        return status;
    }
    return rsi_path_open(&dial->path, candidate->transport, &candidate->url, &options,
                         client->epoll_fd, &dial->error);
}

void rsi_dial_begin(struct rsi_dial *dial, struct ringside_client *client,
                    const struct rsi_client_candidate *candidate, uint64_t now_ns,
                    uint64_t deadline_ns)
{
    rsi_assert(!rsi_dial_is_active(dial));
    *dial = (struct rsi_dial){
        .client = client, .state = RSI_DIAL_CONNECTING, .deadline_ns = deadline_ns};
    dial->path.transport = candidate->transport;
    if (now_ns >= deadline_ns) {
        (void)rsi_fail(&dial->error, RSI_E_TIMED_OUT, "no time was left to try it");
        dial->state = RSI_DIAL_FAILED;
    } else if (open_path(dial, candidate, deadline_ns - now_ns) != RSI_OK) {
        dial->state = RSI_DIAL_FAILED;
    }
}

void rsi_dial_go_on(struct rsi_dial *dial, enum rsi_dial_purpose purpose, uint64_t deadline_ns)
{
    rsi_assert(dial->state == RSI_DIAL_CHALLENGED);
    dial->purpose = purpose;
    dial->deadline_ns = deadline_ns;
    dial->state = RSI_DIAL_AUTHENTICATING;
    if (rsi_handshake_authenticate(dial, &dial->error) != RSI_OK) {
        fail(dial);
    }
}

static void take_welcome(struct rsi_dial *dial, const Ringside__Control__Welcome *welcome)
{
    struct rsi_link_rings rings;
    struct rsi_link *link = dial->path.link;
    if (rsi_handshake_take_welcome(dial, welcome, &rings, &dial->error) != RSI_OK ||
        dial->path.transport->link_attach(link, &rings, &dial->error) != RSI_OK) {
        fail(dial);
        return;
    }
    dial->state = RSI_DIAL_ATTACHING;
}

static void take_message(struct rsi_dial *dial, const Ringside__Control__Control *message)
{
    dial->is_answered = true;
    if (message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_REFUSED) {
        rsi_handshake_take_refused(dial, message->refused);
        fail(dial);
        return;
    }
    if (dial->state == RSI_DIAL_GREETED &&
        message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_CHALLENGE) {
        if (rsi_handshake_take_challenge(dial, message->challenge, &dial->error) != RSI_OK) {
            fail(dial);
            return;
        }
        dial->is_challenged = true;
        dial->state = RSI_DIAL_CHALLENGED;
        return;
    }
    if (dial->state == RSI_DIAL_AUTHENTICATING &&
        message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_WELCOME) {
        take_welcome(dial, message->welcome);
        return;
    }
    (void)rsi_fail(&dial->error, RSI_E_PROTOCOL,
                   "the broker sent control message %d where %s was due", (int)message->body_case,
                   dial->state == RSI_DIAL_GREETED ? "Challenge" : "Welcome");
    fail(dial);
}

/* Whether the broker's next message is the dial's business. What follows the Welcome belongs to the
 * session and stays in the lane, unless it is the last there is. */
static bool is_listening(const struct rsi_dial *dial)
{
    switch (dial->state) {
    case RSI_DIAL_GREETED:
    case RSI_DIAL_CHALLENGED:
    case RSI_DIAL_AUTHENTICATING:
        return true;
    case RSI_DIAL_ATTACHING:
        return rsi_link_state(dial->path.link) == RSI_LINK_LOST;
    case RSI_DIAL_IDLE:
    case RSI_DIAL_CONNECTING:
    case RSI_DIAL_READY:
    case RSI_DIAL_FAILED:
        break;
    }
    return false;
}

static uint32_t take_messages(struct rsi_dial *dial)
{
    uint32_t count = 0;
    while (is_listening(dial)) {
        Ringside__Control__Control *message = NULL;
        rsi_status_t status =
            rsi_control_receive(&dial->receiver, dial->path.link, &message, &dial->error);
        if (status == RSI_WOULD_BLOCK) {
            break;
        }
        count++;
        if (status != RSI_OK) {
            fail(dial);
            break;
        }
        take_message(dial, message);
        rsi_control_free(message);
    }
    return count;
}

static void follow_link(struct rsi_dial *dial)
{
    struct rsi_link *link = dial->path.link;
    enum rsi_link_state state = rsi_link_state(link);
    if (state == RSI_LINK_LOST) {
        dial->error = link->error;
        fail(dial);
        return;
    }
    if (dial->state == RSI_DIAL_CONNECTING && state == RSI_LINK_OPEN) {
        dial->state = RSI_DIAL_GREETED;
        if (rsi_handshake_say_hello(dial, &dial->error) != RSI_OK) {
            fail(dial);
        }
    } else if (dial->state == RSI_DIAL_ATTACHING && state == RSI_LINK_ATTACHED) {
        dial->state = RSI_DIAL_READY;
    }
}

uint32_t rsi_dial_poll(struct rsi_dial *dial, uint64_t now_ns)
{
    if (!rsi_dial_is_active(dial)) {
        return 0;
    }
    if (dial->state == RSI_DIAL_FAILED) {
        return take_down(dial, now_ns);
    }
    enum rsi_dial_state before = dial->state;
    uint32_t work = rsi_path_poll(&dial->path, now_ns);
    work += take_messages(dial);
    if (dial->state != RSI_DIAL_FAILED) {
        follow_link(dial);
    }
    bool is_waiting = dial->state != RSI_DIAL_FAILED && dial->state != RSI_DIAL_READY;
    if (is_waiting && now_ns >= dial->deadline_ns) {
        fail_timed_out(dial);
    }
    return work + (dial->state != before);
}

struct rsi_client_path rsi_dial_take(struct rsi_dial *dial)
{
    rsi_assert(dial->state == RSI_DIAL_READY);
    struct rsi_client_path path = dial->path;
    dial->path = (struct rsi_client_path){.transport = path.transport};
    dial->state = RSI_DIAL_IDLE;
    return path;
}
