/*
 * Hello, Challenge, Authenticate, Welcome.
 *
 * Design notes
 * - A client with a token proves that it knows the secret and wants the same proof of the broker,
 *   also from a broker that asks for none: else somebody in between could just not ask.
 * - What the broker agreed to is checked against what was asked for before any memory is made for
 *   it.
 * - The broker's refusals come with a reason and a text; both are handed on, because the text was
 *   written for the one who reads it.
 */
#include "clients/c/client.h"

#include "core/position.h"
#include "transport/auth.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct shake {
    struct ringside_client *client;
    uint64_t deadline_ns;
    bool *is_answered;
    uint8_t nonce[RSI_AUTH_NONCE_BYTES];
    uint8_t broker_nonce[UINT8_MAX];
    size_t broker_nonce_bytes;
};

static rsi_status_t timed_out(struct shake *shake, const char *what, struct rsi_error *error)
{
    return rsi_fail(error, RSI_E_TIMED_OUT,
                    "%s accepted the connection but sent no %s within the connect time-out",
                    shake->client->link->peer_text, what);
}

static rsi_status_t send_message(struct shake *shake, const Ringside__Control__Control *message,
                                 struct rsi_error *error)
{
    rsi_status_t status = rsi_client_request(shake->client, message, shake->deadline_ns, error);
    return status == RSI_E_TIMED_OUT ? timed_out(shake, "room on its control lane", error) : status;
}

static bool has_answer(struct ringside_client *client, void *arg)
{
    (void)arg;
    return client->handshake_answer != NULL;
}

static rsi_status_t refused(const Ringside__Control__Refused *refused, struct rsi_error *error)
{
    if (refused->reason == RINGSIDE__CONTROL__REASON__REASON_VERSION) {
        return rsi_fail(error, RSI_E_VERSION,
                        "the broker refused: %s (it speaks versions %u to %u, this library %u to "
                        "%u)",
                        refused->text, refused->version_min, refused->version_max,
                        RSI_WIRE_VERSION_MIN, RSI_WIRE_VERSION_MAX);
    }
    rsi_status_t status = rsi_client_reason_status(refused->reason);
    if (status == RSI_E_LINK_CLOSED) {
        status = RSI_E_REFUSED; /* it stops: there never was a session to close */
    }
    return rsi_fail(error, status, "the broker refused: %s", refused->text);
}

/* Waits for the next answer, which must be the `wanted` one; the caller frees it. */
static rsi_status_t expect(struct shake *shake, Ringside__Control__Control__BodyCase wanted,
                           const char *name, Ringside__Control__Control **answer,
                           struct rsi_error *error)
{
    struct ringside_client *client = shake->client;
    rsi_status_t status =
        rsi_client_wait(client, has_answer, NULL, &RSI_CLIENT_WISH_NONE, shake->deadline_ns, error);
    if (status == RSI_E_TIMED_OUT) {
        return timed_out(shake, name, error);
    }
    if (status != RSI_OK) {
        return status;
    }
    Ringside__Control__Control *message = client->handshake_answer;
    client->handshake_answer = NULL;
    *shake->is_answered = true;
    if (message->body_case == wanted) {
        *answer = message;
        return RSI_OK;
    }
    if (message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_REFUSED) {
        status = refused(message->refused, error);
    } else {
        status =
            rsi_fail(error, RSI_E_PROTOCOL, "the broker sent control message %d where %s was due",
                     (int)message->body_case, name);
    }
    rsi_control_free(message);
    return status;
}

static rsi_status_t say_hello(struct shake *shake, struct rsi_error *error)
{
    static _Atomic uint64_t incarnation; /* of this process: the first handshake draws it */
    struct rsi_client_options *options = &shake->client->options;
    rsi_status_t status = rsi_auth_random(shake->nonce, sizeof(shake->nonce), error);
    if (status != RSI_OK) {
        return status;
    }
    uint64_t drawn;
    memcpy(&drawn, shake->nonce, sizeof(drawn));
    uint64_t none = 0;
    (void)rsi_compare_exchange(&incarnation, &none, drawn | 1);

    char software[32];
    snprintf(software, sizeof(software), "ringside %s", ringside_version());
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Hello hello = RINGSIDE__CONTROL__HELLO__INIT;
    hello.version_min = RSI_WIRE_VERSION_MIN;
    hello.version_max = RSI_WIRE_VERSION_MAX;
    hello.client_name = options->client_name;
    hello.software = software;
    hello.nonce.data = shake->nonce;
    hello.nonce.len = sizeof(shake->nonce);
    if (options->token_name != NULL) {
        hello.token_name = (char *)(uintptr_t)options->token_name; /* packed, not kept */
    }
    hello.incarnation = rsi_load_relaxed(&incarnation);
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_HELLO;
    message.hello = &hello;
    return send_message(shake, &message, error);
}

static rsi_status_t check_challenge(struct shake *shake,
                                    const Ringside__Control__Challenge *challenge,
                                    struct rsi_error *error)
{
    const struct rsi_client_options *options = &shake->client->options;
    if (challenge->version < RSI_WIRE_VERSION_MIN || challenge->version > RSI_WIRE_VERSION_MAX) {
        return rsi_fail(error, RSI_E_VERSION,
                        "the broker chose version %u; this library speaks %u to %u",
                        challenge->version, RSI_WIRE_VERSION_MIN, RSI_WIRE_VERSION_MAX);
    }
    if (challenge->nonce.len < 16 || challenge->nonce.len > sizeof(shake->broker_nonce)) {
        return rsi_fail(error, RSI_E_PROTOCOL, "the broker's nonce has %zu bytes",
                        challenge->nonce.len);
    }
    memcpy(shake->broker_nonce, challenge->nonce.data, challenge->nonce.len);
    shake->broker_nonce_bytes = challenge->nonce.len;
    if (challenge->proof_required && options->token == NULL) {
        return rsi_fail(error, RSI_E_AUTH,
                        "broker \"%s\" asks for a token: set token_name and token in the options, "
                        "or RINGSIDE_TOKEN_NAME and RINGSIDE_TOKEN in the environment",
                        challenge->broker_name);
    }
    if (!challenge->proof_required && options->token != NULL) {
        return rsi_fail(error, RSI_E_AUTH,
                        "broker \"%s\" does not know tokens and so cannot prove that it is the "
                        "right one; connect without a token, or give the broker token \"%s\"",
                        challenge->broker_name, options->token_name);
    }
    return RSI_OK;
}

static rsi_status_t make_proof(struct shake *shake, enum rsi_auth_side side,
                               uint8_t proof[RSI_AUTH_PROOF_BYTES], struct rsi_error *error)
{
    const struct rsi_client_options *options = &shake->client->options;
    const struct rsi_auth_input input = {
        .secret = options->token,
        .secret_bytes = strlen(options->token),
        .client_nonce = shake->nonce,
        .client_nonce_bytes = sizeof(shake->nonce),
        .broker_nonce = shake->broker_nonce,
        .broker_nonce_bytes = shake->broker_nonce_bytes,
        .client_name = options->client_name,
    };
    return rsi_auth_proof(side, &input, proof, error);
}

static rsi_status_t authenticate(struct shake *shake, struct rsi_error *error)
{
    const struct rsi_client_options *options = &shake->client->options;
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Authenticate answer = RINGSIDE__CONTROL__AUTHENTICATE__INIT;
    if (options->token != NULL) {
        rsi_status_t status = make_proof(shake, RSI_AUTH_CLIENT, proof, error);
        if (status != RSI_OK) {
            return status;
        }
        answer.proof.data = proof;
        answer.proof.len = sizeof(proof);
    }
    answer.publish_ring_bytes = options->publish_ring_bytes;
    answer.deliver_ring_bytes = options->deliver_ring_bytes;
    answer.message_bytes_max = options->message_bytes_max;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_AUTHENTICATE;
    message.authenticate = &answer;
    return send_message(shake, &message, error);
}

static rsi_status_t check_broker_proof(struct shake *shake,
                                       const Ringside__Control__Welcome *welcome,
                                       struct rsi_error *error)
{
    const struct rsi_client_options *options = &shake->client->options;
    if (options->token == NULL) {
        return RSI_OK;
    }
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    rsi_status_t status = make_proof(shake, RSI_AUTH_BROKER, proof, error);
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

static rsi_status_t check_sizes(const struct rsi_client_options *options,
                                const Ringside__Control__Welcome *welcome,
                                struct rsi_client_agreement *agreement, struct rsi_error *error)
{
    if (!is_ring_agreed(welcome->publish_ring_bytes, options->publish_ring_bytes) ||
        !is_ring_agreed(welcome->deliver_ring_bytes, options->deliver_ring_bytes)) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "the broker agreed to rings of %" PRIu64 " and %" PRIu64
                        " bytes where %" PRIu64 " and %" PRIu64 " were asked for",
                        welcome->publish_ring_bytes, welcome->deliver_ring_bytes,
                        options->publish_ring_bytes, options->deliver_ring_bytes);
    }
    agreement->session = welcome->session;
    agreement->publish_ring_bytes = welcome->publish_ring_bytes;
    agreement->deliver_ring_bytes = welcome->deliver_ring_bytes;
    agreement->message_bytes_max =
        rsi_pos_min(welcome->message_bytes_max, welcome->publish_ring_bytes / RSI_RING_PER_MESSAGE);
    if (options->publish_ring_bytes != 0 &&
        agreement->message_bytes_max < options->message_bytes_max) {
        return rsi_fail(error, RSI_E_LIMIT,
                        "message_bytes_max is %" PRIu64 ", but the broker takes messages of at "
                        "most %" PRIu64 "; raise its limit or lower the option",
                        options->message_bytes_max, agreement->message_bytes_max);
    }
    if (options->message_bytes_max != 0) {
        agreement->message_bytes_max = options->message_bytes_max;
    }
    return RSI_OK;
}

rsi_status_t rsi_client_shake_hands(struct ringside_client *client,
                                    struct rsi_client_agreement *agreement, uint64_t deadline_ns,
                                    bool *is_answered, struct rsi_error *error)
{
    struct shake shake = {.client = client, .deadline_ns = deadline_ns, .is_answered = is_answered};
    Ringside__Control__Control *answer = NULL;

    rsi_status_t status = say_hello(&shake, error);
    if (status != RSI_OK) {
        return status;
    }
    status =
        expect(&shake, RINGSIDE__CONTROL__CONTROL__BODY_CHALLENGE, "Challenge", &answer, error);
    if (status != RSI_OK) {
        return status;
    }
    status = check_challenge(&shake, answer->challenge, error);
    rsi_control_free(answer);
    if (status != RSI_OK) {
        return status;
    }

    status = authenticate(&shake, error);
    if (status != RSI_OK) {
        return status;
    }
    status = expect(&shake, RINGSIDE__CONTROL__CONTROL__BODY_WELCOME, "Welcome", &answer, error);
    if (status != RSI_OK) {
        return status;
    }
    status = check_broker_proof(&shake, answer->welcome, error);
    if (status == RSI_OK) {
        status = check_sizes(&client->options, answer->welcome, agreement, error);
    }
    rsi_control_free(answer);
    return status;
}
