/*
 * Hello, Challenge, Authenticate, Welcome.
 *
 * Design notes
 * - A client with a token proves that it knows the secret and wants the same proof of the broker,
 *   also from a broker that asks for none: else somebody in between could just not ask.
 * - A session that goes on is proved by its own secret beside the token: a token may be shared by
 *   many clients, a session is one's own.
 * - What the broker agreed to is checked against what was asked for before any memory is made for
 *   it. Rings of a session that goes on have exactly the sizes they had: what they hold is copied.
 * - The broker's refusals come with a reason and a text; both are handed on, because the text was
 *   written for the one who reads it.
 */
#include "clients/c/dial.h"

#include "clients/c/client.h"
#include "core/position.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The lane is empty and holds some dozens of messages, so a handshake's always finds room. */
static rsi_status_t send_message(struct rsi_dial *dial, const Ringside__Control__Control *message,
                                 struct rsi_error *error)
{
    rsi_status_t status = rsi_control_send(dial->path.link, message);
    if (status != RSI_OK) {
        return rsi_fail(error, status == RSI_WOULD_BLOCK ? RSI_E_PROTOCOL : status,
                        "%s takes no message of the handshake: %s", dial->path.link->peer_text,
                        rsi_status_phrase(status));
    }
    return RSI_OK;
}

void rsi_handshake_take_refused(struct rsi_dial *dial, const Ringside__Control__Refused *refused)
{
    struct rsi_error *error = &dial->error;
    bool has_asked = dial->state == RSI_DIAL_AUTHENTICATING && dial->purpose == RSI_DIAL_RESUME;
    dial->is_refused = true;
    if (refused->session_ended && has_asked) {
        dial->is_session_ended = true;
        dial->taken_pos = refused->taken_pos;
        rsi_client_note_end(refused->reason, refused->text, error);
        return;
    }
    dial->is_session_refused = refused->reason == RINGSIDE__CONTROL__REASON__REASON_SESSION;
    if (refused->reason == RINGSIDE__CONTROL__REASON__REASON_VERSION) {
        (void)rsi_fail(error, RSI_E_VERSION,
                       "the broker refused: %s (it speaks versions %u to %u, this library %u to "
                       "%u)",
                       refused->text, refused->version_min, refused->version_max,
                       RSI_WIRE_VERSION_MIN, RSI_WIRE_VERSION_MAX);
        return;
    }
    rsi_status_t status = rsi_client_reason_status(refused->reason);
    if (status == RSI_E_LINK_CLOSED) {
        status = RSI_E_REFUSED; /* it stops: there never was a session to close */
    }
    (void)rsi_fail(error, status, "the broker refused: %s", refused->text);
}

/* ---- Hello and Challenge -----------------------------------------------------------------------
 */

rsi_status_t rsi_client_incarnation(uint64_t *incarnation, struct rsi_error *error)
{
    static _Atomic uint64_t of_process; /* the first to ask draws it */
    uint64_t none = 0;
    if (rsi_load_relaxed(&of_process) == 0) {
        uint64_t drawn = 0;
        rsi_status_t status = rsi_auth_random(&drawn, sizeof(drawn), error);
        if (status != RSI_OK) {
            return status;
        }
        (void)rsi_compare_exchange(&of_process, &none, drawn | 1);
    }
    *incarnation = rsi_load_relaxed(&of_process);
    return RSI_OK;
}

rsi_status_t rsi_handshake_say_hello(struct rsi_dial *dial, struct rsi_error *error)
{
    struct rsi_client_options *options = &dial->client->options;
    struct rsi_handshake *handshake = &dial->handshake;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Hello hello = RINGSIDE__CONTROL__HELLO__INIT;
    rsi_status_t status = rsi_auth_random(handshake->nonce, sizeof(handshake->nonce), error);
    if (status != RSI_OK) {
        return status;
    }
    status = rsi_client_incarnation(&hello.incarnation, error);
    if (status != RSI_OK) {
        return status;
    }
    char software[32];
    snprintf(software, sizeof(software), "ringside %s", ringside_version());
    hello.version_min = RSI_WIRE_VERSION_MIN;
    hello.version_max = RSI_WIRE_VERSION_MAX;
    hello.client_name = options->client_name;
    hello.software = software;
    hello.nonce.data = handshake->nonce;
    hello.nonce.len = sizeof(handshake->nonce);
    if (options->token_name[0] != 0) {
        hello.token_name = options->token_name;
    }
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_HELLO;
    message.hello = &hello;
    return send_message(dial, &message, error);
}

rsi_status_t rsi_handshake_take_challenge(struct rsi_dial *dial,
                                          const Ringside__Control__Challenge *challenge,
                                          struct rsi_error *error)
{
    const struct rsi_client_options *options = &dial->client->options;
    struct rsi_handshake *handshake = &dial->handshake;
    if (challenge->version < RSI_WIRE_VERSION_MIN || challenge->version > RSI_WIRE_VERSION_MAX) {
        return rsi_fail(error, RSI_E_VERSION,
                        "the broker chose version %u; this library speaks %u to %u",
                        challenge->version, RSI_WIRE_VERSION_MIN, RSI_WIRE_VERSION_MAX);
    }
    if (challenge->nonce.len < 16 || challenge->nonce.len > sizeof(handshake->broker_nonce)) {
        return rsi_fail(error, RSI_E_PROTOCOL, "the broker's nonce has %zu bytes",
                        challenge->nonce.len);
    }
    memcpy(handshake->broker_nonce, challenge->nonce.data, challenge->nonce.len);
    handshake->broker_nonce_bytes = challenge->nonce.len;
    if (challenge->proof_required && options->token[0] == 0) {
        return rsi_fail(error, RSI_E_AUTH,
                        "broker \"%s\" asks for a token: set token_name and token in the options, "
                        "or RINGSIDE_TOKEN_NAME and RINGSIDE_TOKEN in the environment",
                        challenge->broker_name);
    }
    if (!challenge->proof_required && options->token[0] != 0) {
        return rsi_fail(error, RSI_E_AUTH,
                        "broker \"%s\" does not know tokens and so cannot prove that it is the "
                        "right one; connect without a token, or give the broker token \"%s\"",
                        challenge->broker_name, options->token_name);
    }
    return RSI_OK;
}

/* ---- Authenticate -------------------------------------------------------------------------------
 */

static rsi_status_t make_proof(const struct rsi_dial *dial, enum rsi_auth_side side,
                               const void *secret, size_t secret_bytes,
                               uint8_t proof[RSI_AUTH_PROOF_BYTES], struct rsi_error *error)
{
    const struct ringside_client *client = dial->client;
    const struct rsi_auth_input input = {
        .secret = secret,
        .secret_bytes = secret_bytes,
        .client_nonce = dial->handshake.nonce,
        .client_nonce_bytes = sizeof(dial->handshake.nonce),
        .broker_nonce = dial->handshake.broker_nonce,
        .broker_nonce_bytes = dial->handshake.broker_nonce_bytes,
        .client_name = client->options.client_name,
    };
    return rsi_auth_proof(side, &input, proof, error);
}

/* With the token's secret. */
static rsi_status_t make_token_proof(const struct rsi_dial *dial, enum rsi_auth_side side,
                                     uint8_t proof[RSI_AUTH_PROOF_BYTES], struct rsi_error *error)
{
    const char *token = dial->client->options.token;
    return make_proof(dial, side, token, strlen(token), proof, error);
}

/* The session that this Authenticate is about: the one to resume, or the one that an earlier try to
 * renew has begun at the same broker and that a new one takes the place of. NULL: none. */
static const struct rsi_client_session *session_named(const struct rsi_dial *dial)
{
    const struct ringside_client *client = dial->client;
    const struct rsi_client_session *half_made = &client->resume.half_made;
    if (dial->purpose == RSI_DIAL_RESUME) {
        return &client->session;
    }
    bool is_left_there =
        dial->purpose == RSI_DIAL_RENEW && half_made->id != 0 && half_made->secret_bytes != 0 &&
        half_made->broker_incarnation == dial->path.link->peer_greeting.incarnation;
    return is_left_there ? half_made : NULL;
}

/* The sizes to ask for: as the options say, or as the session has had them so far. */
static void wanted_sizes(const struct rsi_dial *dial, struct rsi_client_session *wanted)
{
    const struct rsi_client_options *options = &dial->client->options;
    if (dial->purpose != RSI_DIAL_NEW) {
        *wanted = dial->client->session;
        return;
    }
    wanted->publish_ring_bytes = options->publish_ring_bytes;
    wanted->deliver_ring_bytes = options->deliver_ring_bytes;
    wanted->message_bytes_max = options->message_bytes_max;
}

rsi_status_t rsi_handshake_authenticate(struct rsi_dial *dial, struct rsi_error *error)
{
    struct ringside_client *client = dial->client;
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    uint8_t session_proof[RSI_AUTH_PROOF_BYTES];
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Authenticate answer = RINGSIDE__CONTROL__AUTHENTICATE__INIT;
    if (client->options.token[0] != 0) {
        rsi_status_t status = make_token_proof(dial, RSI_AUTH_CLIENT, proof, error);
        if (status != RSI_OK) {
            return status;
        }
        answer.proof.data = proof;
        answer.proof.len = sizeof(proof);
    }
    struct rsi_client_session wanted;
    wanted_sizes(dial, &wanted);
    answer.publish_ring_bytes = wanted.publish_ring_bytes;
    answer.deliver_ring_bytes = wanted.deliver_ring_bytes;
    answer.message_bytes_max = wanted.message_bytes_max;
    const struct rsi_client_session *named = session_named(dial);
    if (named != NULL) {
        rsi_status_t status = make_proof(dial, RSI_AUTH_RESUME, named->secret, named->secret_bytes,
                                         session_proof, error);
        if (status != RSI_OK) {
            return status;
        }
        answer.session = named->id;
        answer.session_proof.data = session_proof;
        answer.session_proof.len = sizeof(session_proof);
        answer.begins_anew = dial->purpose != RSI_DIAL_RESUME;
    }
    if (dial->purpose == RSI_DIAL_RESUME) {
        dial->told_consumed_pos = client->link->consumed_pos;
        answer.arrived_pos = client->link->arrived_pos;
        answer.consumed_pos = dial->told_consumed_pos;
        answer.attempt = ++client->session.attempt;
    }
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_AUTHENTICATE;
    message.authenticate = &answer;
    return send_message(dial, &message, error);
}

void rsi_handshake_say_bye(struct rsi_dial *dial)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Bye bye = RINGSIDE__CONTROL__BYE__INIT;
    bye.reason = RINGSIDE__CONTROL__REASON__REASON_GOODBYE;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_BYE;
    message.bye = &bye;
    (void)!rsi_control_send(dial->path.link, &message); /* without it the grace ends it */
}

/* ---- Welcome ------------------------------------------------------------------------------------
 */

static rsi_status_t check_broker_proof(const struct rsi_dial *dial,
                                       const Ringside__Control__Welcome *welcome,
                                       struct rsi_error *error)
{
    const struct rsi_client_options *options = &dial->client->options;
    if (options->token[0] == 0) {
        return RSI_OK;
    }
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    rsi_status_t status = make_token_proof(dial, RSI_AUTH_BROKER, proof, error);
    if (status != RSI_OK) {
        return status;
    }
    if (!rsi_auth_equal(welcome->proof.data, welcome->proof.len, proof)) {
        return rsi_fail(error, RSI_E_AUTH,
                        "the broker could not prove that it knows token \"%s\": it is not the one "
                        "this token is for",
                        options->token_name);
    }
    return RSI_OK;
}

/* A ring is as asked for, or smaller but a valid one. */
static bool is_ring_agreed(uint64_t ring_bytes, uint64_t asked_bytes)
{
    if (asked_bytes == 0) {
        return ring_bytes == 0;
    }
    return rsi_is_power_of_two(ring_bytes) && ring_bytes >= RSI_RING_BYTES_MIN &&
           ring_bytes <= asked_bytes;
}

static rsi_status_t check_rings(const struct rsi_dial *dial,
                                const struct rsi_client_session *wanted,
                                const Ringside__Control__Welcome *welcome, struct rsi_error *error)
{
    bool is_same = welcome->publish_ring_bytes == wanted->publish_ring_bytes &&
                   welcome->deliver_ring_bytes == wanted->deliver_ring_bytes;
    if (dial->purpose != RSI_DIAL_NEW && !is_same) {
        return rsi_fail(error, RSI_E_LIMIT,
                        "the broker offers rings of %" PRIu64 " and %" PRIu64
                        " bytes, but the session to go on with has %" PRIu64 " and %" PRIu64
                        ": connect anew",
                        welcome->publish_ring_bytes, welcome->deliver_ring_bytes,
                        wanted->publish_ring_bytes, wanted->deliver_ring_bytes);
    }
    if (!is_ring_agreed(welcome->publish_ring_bytes, wanted->publish_ring_bytes) ||
        !is_ring_agreed(welcome->deliver_ring_bytes, wanted->deliver_ring_bytes)) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "the broker agreed to rings of %" PRIu64 " and %" PRIu64
                        " bytes where %" PRIu64 " and %" PRIu64 " were asked for",
                        welcome->publish_ring_bytes, welcome->deliver_ring_bytes,
                        wanted->publish_ring_bytes, wanted->deliver_ring_bytes);
    }
    return RSI_OK;
}

static rsi_status_t agree_sizes(struct rsi_dial *dial, const Ringside__Control__Welcome *welcome,
                                struct rsi_error *error)
{
    struct rsi_client_session *agreed = &dial->agreed;
    struct rsi_client_session wanted;
    wanted_sizes(dial, &wanted);
    rsi_status_t status = check_rings(dial, &wanted, welcome, error);
    if (status != RSI_OK) {
        return status;
    }
    agreed->publish_ring_bytes = welcome->publish_ring_bytes;
    agreed->deliver_ring_bytes = welcome->deliver_ring_bytes;
    agreed->message_bytes_max =
        rsi_pos_min(welcome->message_bytes_max, welcome->publish_ring_bytes / RSI_RING_PER_MESSAGE);
    if (wanted.publish_ring_bytes != 0 && agreed->message_bytes_max < wanted.message_bytes_max) {
        return rsi_fail(error, RSI_E_LIMIT,
                        "message_bytes_max is %" PRIu64 ", but the broker takes messages of at "
                        "most %" PRIu64 "; raise its limit or lower the option",
                        wanted.message_bytes_max, agreed->message_bytes_max);
    }
    if (wanted.message_bytes_max != 0) {
        agreed->message_bytes_max = wanted.message_bytes_max;
    }
    return RSI_OK;
}

static rsi_status_t agree_session(struct rsi_dial *dial, const Ringside__Control__Welcome *welcome,
                                  struct rsi_error *error)
{
    const struct ringside_client *client = dial->client;
    struct rsi_client_session *agreed = &dial->agreed;
    bool is_resume = dial->purpose == RSI_DIAL_RESUME;
    if (welcome->resumed != is_resume || (is_resume && welcome->session != client->session.id)) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "session %" PRIu64 " was to go on, but the broker welcomes session %" PRIu64
                        " as %s one",
                        is_resume ? client->session.id : 0, welcome->session,
                        welcome->resumed ? "a resumed" : "a new");
    }
    if (welcome->session == 0 || welcome->session_secret.len > sizeof(agreed->secret)) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "the broker welcomes session %" PRIu64 " with a secret of %zu bytes",
                        welcome->session, welcome->session_secret.len);
    }
    if (is_resume) {
        *agreed = client->session;
    } else {
        agreed->id = welcome->session;
        agreed->secret_bytes = welcome->session_secret.len;
        if (agreed->secret_bytes > 0) {
            memcpy(agreed->secret, welcome->session_secret.data, agreed->secret_bytes);
        }
    }
    agreed->broker_incarnation = welcome->broker_incarnation;
    agreed->home_agent = welcome->home_agent;
    agreed->grace_ns = welcome->grace_ns;
    return RSI_OK;
}

rsi_status_t rsi_handshake_take_welcome(struct rsi_dial *dial,
                                        const Ringside__Control__Welcome *welcome,
                                        struct rsi_link_rings *rings, struct rsi_error *error)
{
    rsi_status_t status = check_broker_proof(dial, welcome, error);
    if (status != RSI_OK) {
        return status;
    }
    status = agree_session(dial, welcome, error);
    if (status != RSI_OK) {
        return status;
    }
    status = agree_sizes(dial, welcome, error);
    if (status != RSI_OK) {
        return status;
    }
    *rings = (struct rsi_link_rings){
        .out_bytes = dial->agreed.publish_ring_bytes,
        .in_bytes = dial->agreed.deliver_ring_bytes,
    };
    if (dial->purpose != RSI_DIAL_RESUME) {
        return RSI_OK;
    }
    const struct rsi_link *from = dial->client->link;
    status = rsi_link_resume_check(from, welcome->arrived_pos, welcome->consumed_pos, error);
    if (status != RSI_OK) {
        dial->is_session_refused = true;
        return status;
    }
    rings->out_start_pos = welcome->arrived_pos;
    rings->out_consumed_pos = welcome->consumed_pos;
    rings->in_start_pos = from->arrived_pos;
    rings->in_consumed_pos = dial->told_consumed_pos;
    return RSI_OK;
}
