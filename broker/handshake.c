/*
 * From Hello to Welcome.
 *
 * Design notes
 * - No address and no key leaves the broker before the client is authenticated: link_attach is
 * called here, after the proof was checked, and nowhere else.
 * - A client that fails is not told whether the name of its token or the secret was wrong, and an
 *   unknown name costs the same work as a known one; the log says which.
 * - The Welcome goes out only when this side's rings could be made: a client that gets one has a
 *   session, one that does not gets the reason.
 * - Sizes are decided once: a ring must hold four of the largest messages that can come through it,
 *   for publishing the client's largest, for delivery the largest of anybody.
 */
#include "broker/connection.h"

#include "broker/control_agent.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/position.h"
#include "core/text.h"
#include "transport/auth.h"

#include <stdlib.h>
#include <string.h>

enum {
    NONCE_BYTES_MIN = 16,
    ATTACH_TIMEOUT_S = 30, /* registering memory takes as long as it takes */
};

struct sizes {
    uint64_t publish_ring_bytes;
    uint64_t deliver_ring_bytes;
    uint64_t message_bytes_max;
};

/* ---- Hello -------------------------------------------------------------------------------------
 */

/* What is wrong with a client's name, or NULL. */
static const char *name_fault(const char *name, bool may_be_empty)
{
    size_t bytes = strlen(name);
    if (bytes == 0 && !may_be_empty) {
        return "is empty";
    }
    if (bytes > RSI_NAME_BYTES_MAX) {
        return "is longer than 63 bytes";
    }
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)name[i];
        if (byte < 0x20 || byte == 0x7f) {
            return "holds a control character";
        }
    }
    return NULL;
}

static void send_challenge(struct rsi_connection *connection)
{
    const struct rsi_settings *settings = connection->control->settings;
    Ringside__Control__Challenge challenge = RINGSIDE__CONTROL__CHALLENGE__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    challenge.version = RSI_WIRE_VERSION_MAX;
    challenge.nonce.data = connection->broker_nonce;
    challenge.nonce.len = sizeof(connection->broker_nonce);
    challenge.proof_required = settings->token_count > 0;
    challenge.broker_name = (char *)settings->name;
    challenge.software = "ringside " RSI_VERSION_TEXT;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_CHALLENGE;
    message.challenge = &challenge;
    /* The first message on an empty lane: it always has room, or the link is lost. */
    (void)!rsi_control_send(connection->link, &message);
}

static void take_hello(struct rsi_connection *connection, const Ringside__Control__Hello *hello)
{
    if (hello->version_max < RSI_WIRE_VERSION_MIN || hello->version_min > RSI_WIRE_VERSION_MAX) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_VERSION,
                           "this broker (ringside %s) speaks versions %u to %u, the client (%.40s) "
                           "%u to %u: bring both to one release",
                           RSI_VERSION_TEXT, RSI_WIRE_VERSION_MIN, RSI_WIRE_VERSION_MAX,
                           hello->software, hello->version_min, hello->version_max);
        return;
    }
    const char *fault = name_fault(hello->client_name, false);
    if (fault != NULL) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                           "the client's name %s", fault);
        return;
    }
    fault = name_fault(hello->token_name, true);
    if (fault != NULL) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                           "the token's name %s", fault);
        return;
    }
    if (hello->nonce.len < NONCE_BYTES_MIN || hello->nonce.len > sizeof(connection->client_nonce)) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL,
                           "a Hello with a nonce of %zu bytes (%d to %zu)", hello->nonce.len,
                           NONCE_BYTES_MIN, sizeof(connection->client_nonce));
        return;
    }
    struct rsi_error error = {0};
    if (rsi_failed(
            rsi_auth_random(connection->broker_nonce, sizeof(connection->broker_nonce), &error))) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_INTERNAL, "%s",
                           error.text);
        return;
    }
    rsi_text_copy(connection->name, sizeof(connection->name), hello->client_name);
    rsi_text_copy(connection->token_name, sizeof(connection->token_name), hello->token_name);
    memcpy(connection->client_nonce, hello->nonce.data, hello->nonce.len);
    connection->client_nonce_bytes = (uint32_t)hello->nonce.len;
    connection->incarnation = hello->incarnation;
    rsi_connection_set_state(connection, RSI_CONNECTION_CHALLENGED,
                             rsi_connection_step_deadline_ns(connection));
    send_challenge(connection);
}

/* ---- Authenticate ------------------------------------------------------------------------------
 */

rsi_status_t rsi_handshake_proof(const struct rsi_connection *connection, enum rsi_auth_side side,
                                 const void *secret, size_t secret_bytes,
                                 uint8_t proof[RSI_AUTH_PROOF_BYTES])
{
    const struct rsi_auth_input input = {
        .secret = secret,
        .secret_bytes = secret_bytes,
        .client_nonce = connection->client_nonce,
        .client_nonce_bytes = connection->client_nonce_bytes,
        .broker_nonce = connection->broker_nonce,
        .broker_nonce_bytes = sizeof(connection->broker_nonce),
        .client_name = connection->name,
    };
    return rsi_auth_proof(side, &input, proof, NULL);
}

static rsi_status_t make_proof(const struct rsi_connection *connection, enum rsi_auth_side side,
                               const struct rsi_token *token, uint8_t proof[RSI_AUTH_PROOF_BYTES])
{
    /* For a name that is not there, so that it takes as long as one that is. */
    static const uint8_t nobody[RSI_AUTH_SECRET_BYTES_MIN];
    return rsi_handshake_proof(connection, side, token != NULL ? token->secret : nobody,
                               token != NULL ? token->secret_bytes : sizeof(nobody), proof);
}

/* Ends the connection and returns false unless the proof is right. */
static bool check_proof(struct rsi_connection *connection, const ProtobufCBinaryData *proof)
{
    const struct rsi_settings *settings = connection->control->settings;
    if (settings->token_count == 0) {
        return true;
    }
    const struct rsi_token *token = rsi_settings_find_token(settings, connection->token_name);
    uint8_t expected[RSI_AUTH_PROOF_BYTES];
    bool is_made = make_proof(connection, RSI_AUTH_CLIENT, token, expected) == RSI_OK;
    bool is_equal = rsi_auth_equal(proof->data, proof->len, expected);
    if (is_made && is_equal && token != NULL) {
        return true;
    }
    rsi_log_distinct(RSI_LOG_WARNING, "broker", "authentication: client %s, token '%s': %s",
                     connection->name, connection->token_name,
                     connection->token_name[0] == '\0' ? "it named no token"
                     : token == NULL                   ? "there is no token of this name"
                                                       : "the secret is wrong");
    rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_AUTHENTICATION,
                       "authentication failed: this broker needs a token, and the one given is not "
                       "right in name or secret; ask whoever runs the broker");
    return false;
}

static rsi_status_t decide_ring(const char *what, uint64_t wanted_bytes, uint64_t bytes_max,
                                uint64_t *bytes, struct rsi_error *error)
{
    *bytes = 0;
    if (wanted_bytes == 0) {
        return RSI_OK;
    }
    if (!rsi_is_power_of_two(wanted_bytes) || wanted_bytes < RSI_RING_BYTES_MIN ||
        wanted_bytes > RSI_RING_BYTES_MAX) {
        return rsi_fail(error, RSI_E_INVALID,
                        "a %s ring of %llu bytes: must be a power of two from %llu to %llu", what,
                        (unsigned long long)wanted_bytes, RSI_RING_BYTES_MIN,
                        (unsigned long long)RSI_RING_BYTES_MAX);
    }
    *bytes = wanted_bytes < bytes_max ? wanted_bytes : bytes_max;
    return RSI_OK;
}

static rsi_status_t decide_sizes(const struct rsi_settings *settings,
                                 const Ringside__Control__Authenticate *wanted, struct sizes *sizes,
                                 struct rsi_error *error)
{
    rsi_status_t status =
        decide_ring("publish", wanted->publish_ring_bytes, settings->publish_ring_bytes_max,
                    &sizes->publish_ring_bytes, error);
    if (!rsi_failed(status)) {
        status = decide_ring("deliver", wanted->deliver_ring_bytes,
                             settings->deliver_ring_bytes_max, &sizes->deliver_ring_bytes, error);
    }
    if (rsi_failed(status)) {
        return status;
    }

    uint64_t message_bytes_max = settings->message_bytes_max;
    if (wanted->message_bytes_max != 0 && wanted->message_bytes_max < message_bytes_max) {
        message_bytes_max = wanted->message_bytes_max;
    }
    uint64_t quarter_bytes = sizes->publish_ring_bytes / RSI_RING_PER_MESSAGE;
    if (sizes->publish_ring_bytes != 0 && message_bytes_max > quarter_bytes) {
        if (wanted->message_bytes_max != 0) {
            return rsi_fail(error, RSI_E_INVALID,
                            "a publish ring of %llu bytes does not hold %u messages of %llu bytes: "
                            "ask for a ring of %llu bytes or for messages of at most %llu",
                            (unsigned long long)sizes->publish_ring_bytes, RSI_RING_PER_MESSAGE,
                            (unsigned long long)message_bytes_max,
                            (unsigned long long)rsi_round_up_power_of_two(message_bytes_max *
                                                                          RSI_RING_PER_MESSAGE),
                            (unsigned long long)quarter_bytes);
        }
        message_bytes_max = quarter_bytes;
    }
    sizes->message_bytes_max = message_bytes_max;

    uint64_t need_bytes = settings->message_bytes_max * RSI_RING_PER_MESSAGE;
    if (sizes->deliver_ring_bytes != 0 && sizes->deliver_ring_bytes < need_bytes) {
        return rsi_fail(error, RSI_E_INVALID,
                        "a deliver ring of %llu bytes does not hold %u of this broker's largest "
                        "messages (%llu bytes each): ask for a ring of %llu bytes, or lower the "
                        "broker's message_bytes_max",
                        (unsigned long long)sizes->deliver_ring_bytes, RSI_RING_PER_MESSAGE,
                        (unsigned long long)settings->message_bytes_max,
                        (unsigned long long)rsi_round_up_power_of_two(need_bytes));
    }
    return RSI_OK;
}

static rsi_status_t make_session(struct rsi_connection *connection, const struct sizes *sizes,
                                 struct rsi_error *error)
{
    struct rsi_control_agent *control = connection->control;
    rsi_status_t status =
        rsi_auth_random(connection->session_secret, sizeof(connection->session_secret), error);
    if (rsi_failed(status)) {
        return status;
    }
    struct rsi_session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "the broker has no memory for a session");
    }
    session->id = ++control->last_session_id;
    rsi_text_copy(session->name, sizeof(session->name), connection->name);
    session->link = connection->link;
    session->agent = connection->agent;
    session->message_bytes_max = sizes->message_bytes_max;
    session->publish_ring_bytes = sizes->publish_ring_bytes;
    session->deliver_ring_bytes = sizes->deliver_ring_bytes;
    session->owner = connection;
    connection->session = session;
    return RSI_OK;
}

void rsi_handshake_welcome(struct rsi_connection *connection, struct rsi_link *link,
                           bool is_resumed)
{
    const struct rsi_session *session = connection->session;
    const struct rsi_settings *settings = connection->control->settings;
    const struct rsi_token *token = settings->token_count > 0
                                        ? rsi_settings_find_token(settings, connection->token_name)
                                        : NULL;
    Ringside__Control__Welcome welcome = RINGSIDE__CONTROL__WELCOME__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    welcome.session = session->id;
    welcome.session_secret.data = connection->session_secret;
    welcome.session_secret.len = sizeof(connection->session_secret);
    welcome.publish_ring_bytes = session->publish_ring_bytes;
    welcome.deliver_ring_bytes = session->deliver_ring_bytes;
    welcome.message_bytes_max = session->message_bytes_max;
    welcome.broker_incarnation = connection->control->incarnation;
    welcome.home_agent = session->agent;
    welcome.grace_ns = settings->session_grace_ns;
    if (is_resumed) {
        welcome.resumed = true;
        welcome.arrived_pos = connection->link->arrived_pos;
        welcome.consumed_pos = session->held_consumed_pos;
    }
    if (token != NULL && make_proof(connection, RSI_AUTH_BROKER, token, proof) == RSI_OK) {
        welcome.proof.data = proof;
        welcome.proof.len = sizeof(proof);
    }
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_WELCOME;
    message.welcome = &welcome;
    /* The second message on the lane: it has room, or the link is lost. */
    (void)!rsi_control_send(link, &message);
}

static bool reserve_session(struct rsi_connection *connection)
{
    struct rsi_control_agent *control = connection->control;
    if (control->counts.sessions >= control->settings->client_count_max) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_LIMIT,
                           "this broker serves %llu clients already (client_count_max)",
                           (unsigned long long)control->settings->client_count_max);
        return false;
    }
    control->counts.sessions++;
    connection->is_counted = true;
    return true;
}

static void take_authenticate(struct rsi_connection *connection,
                              const Ringside__Control__Authenticate *authenticate)
{
    struct sizes sizes = {0};
    struct rsi_error error = {0};
    if (!check_proof(connection, &authenticate->proof)) {
        return;
    }
    if (authenticate->session != 0 && !authenticate->begins_anew) {
        rsi_resume_take(connection, authenticate);
        return;
    }
    if (authenticate->session != 0) {
        rsi_resume_supersede(connection, authenticate);
    }
    if (rsi_failed(decide_sizes(connection->control->settings, authenticate, &sizes, &error))) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_INVALID, "%s", error.text);
        return;
    }
    if (!reserve_session(connection)) {
        return;
    }
    const struct rsi_link_rings rings = {
        .out_bytes = sizes.deliver_ring_bytes,
        .in_bytes = sizes.publish_ring_bytes,
    };
    rsi_status_t status = make_session(connection, &sizes, &error);
    if (!rsi_failed(status)) {
        status = connection->link->transport->link_attach(connection->link, &rings, &error);
    }
    if (rsi_failed(status)) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_INTERNAL,
                           "the broker cannot make the rings: %.400s", error.text);
        return;
    }
    connection->is_authenticated = true;
    rsi_connection_set_state(connection, RSI_CONNECTION_ATTACHING,
                             rsi_clock_now_ns() + ATTACH_TIMEOUT_S * UINT64_C(1000000000));
    rsi_handshake_welcome(connection, connection->link, false);
}

void rsi_handshake_take(struct rsi_connection *connection,
                        const Ringside__Control__Control *message)
{
    bool wants_hello = connection->state == RSI_CONNECTION_GREETED;
    if (wants_hello && message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_HELLO) {
        take_hello(connection, message->hello);
        return;
    }
    if (!wants_hello && message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_AUTHENTICATE) {
        take_authenticate(connection, message->authenticate);
        return;
    }
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(
        &ringside__control__control__descriptor, (unsigned)message->body_case);
    rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL,
                       "expected %s, but got %s", wants_hello ? "hello" : "authenticate",
                       field != NULL ? field->name : "an unknown message");
}
