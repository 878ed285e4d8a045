/*
 * Design notes
 * - The client is driven by the test's thread alone: control and owner thread are one, as in a real
 *   client, and nothing sleeps; between two looks the thread yields the CPU to the broker.
 */
#include "broker/broker_testing.h"

#include "core/text.h"
#include "transport/auth.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RING_BYTES = 256 << 10, MESSAGE_BYTES_MAX = 16 << 10 };

static const char *transport_name = "tcp";

void rsi_testing_use(const char *transport)
{
    transport_name = transport;
}

/* ---- broker ------------------------------------------------------------------------------------
 */

static void set(struct rsi_settings *settings, const char *key, const char *text)
{
    struct rsi_error error = {0};
    const struct rsi_setting *setting = rsi_setting_find(key);
    assert_non_null(setting);
    if (rsi_failed(rsi_setting_assign(settings, setting, text, &error))) {
        fail_msg("%s", error.text);
    }
}

void rsi_testing_broker_init(struct rsi_testing_broker *broker)
{
    memset(broker, 0, sizeof(*broker));
    rsi_settings_init(&broker->settings);
    snprintf(broker->directory, sizeof(broker->directory), "/tmp/ringside-broker-XXXXXX");
    assert_non_null(mkdtemp(broker->directory));
    char url[128] = "tcp://127.0.0.1:0";
    if (strcmp(transport_name, "shm") == 0) {
        snprintf(url, sizeof(url), "shm://%s/broker.sock", broker->directory);
    } else if (strcmp(transport_name, "sim") == 0) {
        snprintf(url, sizeof(url), "sim:/%s", broker->directory);
    }
    rsi_setting_clear(&broker->settings, rsi_setting_find("listen"));
    set(&broker->settings, "listen", url);
    set(&broker->settings, "counters_path", "");
    set(&broker->settings, "log_bytes", "1MiB");
    set(&broker->settings, "message_bytes_max", "16KiB");
    set(&broker->settings, "publication_count_max", "64");
    set(&broker->settings, "topic_count_max", "64");
    set(&broker->settings, "log_level", "error");
    rsi_log_set_level(RSI_LOG_ERROR);
}

static void *run_broker(void *arg)
{
    struct rsi_testing_broker *broker = arg;
    broker->status = rsi_broker_run(broker->broker, &broker->error);
    return NULL;
}

void rsi_testing_broker_start(struct rsi_testing_broker *broker)
{
    struct rsi_error error = {0};
    if (rsi_failed(rsi_settings_check(&broker->settings, &error)) ||
        rsi_failed(rsi_broker_create(&broker->broker, &broker->settings, &error))) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(pthread_create(&broker->thread, NULL, run_broker, broker), 0);
}

void rsi_testing_broker_stop(struct rsi_testing_broker *broker)
{
    rsi_broker_stop(broker->broker);
}

rsi_status_t rsi_testing_broker_join(struct rsi_testing_broker *broker)
{
    assert_int_equal(pthread_join(broker->thread, NULL), 0);
    return broker->status;
}

void rsi_testing_broker_fini(struct rsi_testing_broker *broker)
{
    rsi_broker_destroy(broker->broker);
    rsi_settings_fini(&broker->settings);
    assert_int_equal(rmdir(broker->directory), 0); /* empty: the socket was removed too */
}

/* ---- client: life ------------------------------------------------------------------------------
 */

static void dial(struct rsi_testing_client *client, const struct rsi_testing_broker *broker,
                 uint32_t url_index, uint32_t agent_hint)
{
    struct rsi_error error = {0};
    struct rsi_url url;
    char text[RSI_SETTING_TEXT_BYTES];
    const char *urls = rsi_broker_urls(broker->broker); /* a line each */
    for (uint32_t i = 0; i < url_index; i++) {
        urls = strchr(urls, '\n');
        assert_non_null(urls);
        urls++;
    }
    rsi_text_copy(text, sizeof(text), urls);
    text[strcspn(text, "\n")] = '\0';
    if (rsi_failed(rsi_url_parse(&url, text, &error))) {
        fail_msg("%s", error.text);
    }
    client->transport = rsi_transport_find(url.scheme);
    assert_non_null(client->transport);
    const struct rsi_domain_options options = {.node = -1, .agent_hint = agent_hint};
    const struct rsi_poller_options poller_options = {.link_count_max = 4};
    if (rsi_failed(client->transport->domain_create(&client->domain, &options, &error)) ||
        rsi_failed(client->transport->poller_create(&client->poller, client->domain,
                                                    &poller_options, &error)) ||
        rsi_failed(client->transport->link_dial(&client->link, client->poller, &url, &error))) {
        fail_msg("%s", error.text);
    }
}

void rsi_testing_client_dial(struct rsi_testing_client *client,
                             const struct rsi_testing_broker *broker, const char *name)
{
    memset(client, 0, sizeof(*client));
    rsi_text_copy(client->name, sizeof(client->name), name);
    client->incarnation = 77;
    dial(client, broker, 0, 0);
}

static void wait_for_lane(struct rsi_testing_client *client)
{
    rsi_testing_wait(client, NULL, rsi_link_state(client->link) != RSI_LINK_CONNECTING);
    if (rsi_link_state(client->link) != RSI_LINK_OPEN) {
        fail_msg("%s: %s", rsi_link_state_name(rsi_link_state(client->link)),
                 client->link->error.text);
    }
}

void rsi_testing_client_open(struct rsi_testing_client *client,
                             const struct rsi_testing_broker *broker, const char *name)
{
    rsi_testing_client_dial(client, broker, name);
    wait_for_lane(client);
}

void rsi_testing_client_drive(struct rsi_testing_client *client)
{
    uint64_t now_ns = rsi_clock_now_ns();
    client->transport->domain_poll_control(client->domain, now_ns);
    rsi_poller_poll(client->poller, now_ns);
    client->transport->link_poll_control(client->link, now_ns);
}

void rsi_testing_drive_both(struct rsi_testing_client *client, struct rsi_testing_client *other,
                            uint64_t until_ns, const char *condition)
{
    if (client != NULL) {
        rsi_testing_client_drive(client);
    }
    if (other != NULL) {
        rsi_testing_client_drive(other);
    }
    if (rsi_clock_now_ns() > until_ns) {
        fail_msg("not in time: %s", condition);
    }
    sched_yield();
}

static void close_and_wait(struct rsi_testing_client *client)
{
    client->transport->link_close(client->link);
    rsi_testing_wait(client, NULL, rsi_link_state(client->link) == RSI_LINK_CLOSED);
}

/* In CLOSED, or none. */
static void free_link(struct rsi_testing_link *link)
{
    if (link->link != NULL) {
        link->transport->link_destroy(link->link);
        link->transport->poller_destroy(link->poller);
        link->transport->domain_destroy(link->domain);
        memset(link, 0, sizeof(*link));
    }
}

static struct rsi_testing_link present_link(const struct rsi_testing_client *client)
{
    return (struct rsi_testing_link){client->transport, client->domain, client->poller,
                                     client->link};
}

void rsi_testing_client_close(struct rsi_testing_client *client)
{
    if (client->link != NULL) {
        close_and_wait(client);
        struct rsi_testing_link present = present_link(client);
        free_link(&present);
    }
    free_link(&client->old);
    memset(client, 0, sizeof(*client));
}

/* ---- client: messages --------------------------------------------------------------------------
 */

void rsi_testing_client_send(struct rsi_testing_client *client,
                             const Ringside__Control__Control *message)
{
    rsi_status_t status = RSI_WOULD_BLOCK;
    rsi_testing_wait(client, NULL,
                     (status = rsi_control_send(client->link, message)) != RSI_WOULD_BLOCK);
    assert_int_equal(status, RSI_OK);
}

static bool has_ended(const struct rsi_testing_client *client)
{
    return rsi_link_state(client->link) == RSI_LINK_LOST;
}

Ringside__Control__Control *rsi_testing_client_receive(struct rsi_testing_client *client)
{
    Ringside__Control__Control *message = NULL;
    struct rsi_error error = {0};
    rsi_status_t status = RSI_WOULD_BLOCK;
    rsi_testing_wait(client, NULL,
                     (status = rsi_control_receive(&client->receiver, client->link, &message,
                                                   &error)) != RSI_WOULD_BLOCK ||
                         has_ended(client));
    if (status == RSI_WOULD_BLOCK) { /* once more: it may have come just before the end */
        status = rsi_control_receive(&client->receiver, client->link, &message, &error);
    }
    assert_true(status == RSI_OK || status == RSI_WOULD_BLOCK);
    return message;
}

static Ringside__Control__Control *receive_kind(struct rsi_testing_client *client,
                                                Ringside__Control__Control__BodyCase kind)
{
    Ringside__Control__Control *message = rsi_testing_client_receive(client);
    if (message == NULL) {
        fail_msg("the link ended: %s", client->link->error.text);
    }
    if (message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_REFUSED &&
        kind != RINGSIDE__CONTROL__CONTROL__BODY_REFUSED) {
        fail_msg("refused: %s", message->refused->text);
    }
    assert_int_equal(message->body_case, kind);
    return message;
}

void rsi_testing_client_expect_refused(struct rsi_testing_client *client,
                                       Ringside__Control__Reason reason, const char *part)
{
    Ringside__Control__Control *message =
        receive_kind(client, RINGSIDE__CONTROL__CONTROL__BODY_REFUSED);
    assert_int_equal(message->refused->reason, reason);
    if (strstr(message->refused->text, part) == NULL) {
        fail_msg("'%s' is not in '%s'", part, message->refused->text);
    }
    rsi_control_free(message);
}

void rsi_testing_client_expect_bye(struct rsi_testing_client *client,
                                   Ringside__Control__Reason reason)
{
    Ringside__Control__Control *message =
        receive_kind(client, RINGSIDE__CONTROL__CONTROL__BODY_BYE);
    assert_int_equal(message->bye->reason, reason);
    rsi_control_free(message);
}

void rsi_testing_client_expect_end(struct rsi_testing_client *client)
{
    rsi_testing_wait(client, NULL, has_ended(client));
}

/* ---- client: handshake -------------------------------------------------------------------------
 */

void rsi_testing_client_hello(struct rsi_testing_client *client, const char *token_name)
{
    Ringside__Control__Hello hello = RINGSIDE__CONTROL__HELLO__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    assert_int_equal(rsi_auth_random(client->nonce, sizeof(client->nonce), NULL), RSI_OK);
    hello.version_min = RSI_WIRE_VERSION_MIN;
    hello.version_max = RSI_WIRE_VERSION_MAX;
    hello.client_name = client->name;
    hello.software = (char *)"test";
    hello.token_name = (char *)token_name;
    hello.nonce.data = client->nonce;
    hello.nonce.len = sizeof(client->nonce);
    hello.incarnation = client->incarnation;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_HELLO;
    message.hello = &hello;
    rsi_testing_client_send(client, &message);
    Ringside__Control__Control *answer =
        receive_kind(client, RINGSIDE__CONTROL__CONTROL__BODY_CHALLENGE);
    assert_int_equal(answer->challenge->nonce.len, sizeof(client->broker_nonce));
    memcpy(client->broker_nonce, answer->challenge->nonce.data, sizeof(client->broker_nonce));
    rsi_control_free(answer);
}

static void prove(const struct rsi_testing_client *client, enum rsi_auth_side side,
                  const void *secret, size_t secret_bytes, uint8_t proof[RSI_AUTH_PROOF_BYTES])
{
    const struct rsi_auth_input input = {
        .secret = secret,
        .secret_bytes = secret_bytes,
        .client_nonce = client->nonce,
        .client_nonce_bytes = sizeof(client->nonce),
        .broker_nonce = client->broker_nonce,
        .broker_nonce_bytes = sizeof(client->broker_nonce),
        .client_name = client->name,
    };
    assert_int_equal(rsi_auth_proof(side, &input, proof, NULL), RSI_OK);
}

void rsi_testing_client_authenticate(struct rsi_testing_client *client, const char *secret,
                                     uint64_t publish_ring_bytes, uint64_t deliver_ring_bytes,
                                     uint64_t message_bytes_max)
{
    Ringside__Control__Authenticate authenticate = RINGSIDE__CONTROL__AUTHENTICATE__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    if (secret != NULL) {
        prove(client, RSI_AUTH_CLIENT, secret, strlen(secret), proof);
        authenticate.proof.data = proof;
        authenticate.proof.len = sizeof(proof);
    }
    authenticate.publish_ring_bytes = publish_ring_bytes;
    authenticate.deliver_ring_bytes = deliver_ring_bytes;
    authenticate.message_bytes_max = message_bytes_max;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_AUTHENTICATE;
    message.authenticate = &authenticate;
    rsi_testing_client_send(client, &message);
}

static void attach(struct rsi_testing_client *client, const struct rsi_link_rings *rings)
{
    struct rsi_error error = {0};
    if (rsi_failed(client->transport->link_attach(client->link, rings, &error))) {
        fail_msg("%s", error.text);
    }
    rsi_testing_wait(client, NULL, rsi_link_state(client->link) != RSI_LINK_ATTACHING);
    if (rsi_link_state(client->link) != RSI_LINK_ATTACHED) {
        fail_msg("%s", client->link->error.text);
    }
}

void rsi_testing_client_attach(struct rsi_testing_client *client)
{
    Ringside__Control__Control *message =
        receive_kind(client, RINGSIDE__CONTROL__CONTROL__BODY_WELCOME);
    const Ringside__Control__Welcome *welcome = message->welcome;
    const struct rsi_link_rings rings = {
        .out_bytes = welcome->publish_ring_bytes,
        .in_bytes = welcome->deliver_ring_bytes,
    };
    client->session = welcome->session;
    client->message_bytes_max = welcome->message_bytes_max;
    client->home_agent = welcome->home_agent;
    assert_false(welcome->resumed);
    assert_int_equal(welcome->session_secret.len, sizeof(client->secret));
    memcpy(client->secret, welcome->session_secret.data, sizeof(client->secret));
    rsi_control_free(message);
    attach(client, &rings);
}

void rsi_testing_client_join(struct rsi_testing_client *client,
                             const struct rsi_testing_broker *broker, const char *name)
{
    rsi_testing_client_open(client, broker, name);
    rsi_testing_client_hello(client, "");
    rsi_testing_client_authenticate(client, NULL, RING_BYTES, RING_BYTES, MESSAGE_BYTES_MAX);
    rsi_testing_client_attach(client);
}

/* ---- client: from link to link -----------------------------------------------------------------
 */

void rsi_testing_client_cut(struct rsi_testing_client *client)
{
    close_and_wait(client);
    client->old = present_link(client);
    client->link = NULL;
}

void rsi_testing_client_redial(struct rsi_testing_client *client,
                               const struct rsi_testing_broker *broker, uint32_t url_index,
                               uint32_t agent_hint)
{
    client->receiver.byte_count = 0;
    dial(client, broker, url_index, agent_hint);
    wait_for_lane(client);
}

struct rsi_testing_claim rsi_testing_client_truth(struct rsi_testing_client *client)
{
    struct rsi_testing_claim claim = {
        .session = client->session,
        .arrived_pos = client->old.link->arrived_pos,
        .consumed_pos = client->old.link->consumed_pos,
        .attempt = ++client->attempt,
    };
    memcpy(claim.secret, client->secret, sizeof(claim.secret));
    return claim;
}

void rsi_testing_client_claim(struct rsi_testing_client *client,
                              const struct rsi_testing_claim *claim)
{
    Ringside__Control__Authenticate authenticate = RINGSIDE__CONTROL__AUTHENTICATE__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    rsi_testing_client_hello(client, "");
    prove(client, RSI_AUTH_RESUME, claim->secret, sizeof(claim->secret), proof);
    authenticate.session = claim->session;
    authenticate.session_proof.data = proof;
    authenticate.session_proof.len = sizeof(proof);
    authenticate.arrived_pos = claim->arrived_pos;
    authenticate.consumed_pos = claim->consumed_pos;
    authenticate.attempt = claim->attempt;
    if (claim->begins_anew) {
        authenticate.begins_anew = true;
        authenticate.publish_ring_bytes = RING_BYTES;
        authenticate.deliver_ring_bytes = RING_BYTES;
        authenticate.message_bytes_max = MESSAGE_BYTES_MAX;
    }
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_AUTHENTICATE;
    message.authenticate = &authenticate;
    rsi_testing_client_send(client, &message);
}

bool rsi_testing_client_take_over(struct rsi_testing_client *client)
{
    struct rsi_error error = {0};
    Ringside__Control__Control *message = rsi_testing_client_receive(client);
    if (message == NULL) {
        fail_msg("the link ended: %s", client->link->error.text);
    }
    if (message->body_case != RINGSIDE__CONTROL__CONTROL__BODY_WELCOME) {
        assert_int_equal(message->body_case, RINGSIDE__CONTROL__CONTROL__BODY_REFUSED);
        if (message->refused->reason != RINGSIDE__CONTROL__REASON__REASON_ELSEWHERE) {
            fail_msg("refused: %s", message->refused->text);
        }
        rsi_control_free(message);
        return false;
    }
    const Ringside__Control__Welcome *welcome = message->welcome;
    const struct rsi_link *old = client->old.link;
    const struct rsi_link_rings rings = {
        .out_bytes = welcome->publish_ring_bytes,
        .in_bytes = welcome->deliver_ring_bytes,
        .out_start_pos = welcome->arrived_pos,
        .out_consumed_pos = welcome->consumed_pos,
        .in_start_pos = old->arrived_pos,
        .in_consumed_pos = old->consumed_pos,
    };
    assert_true(welcome->resumed);
    assert_int_equal(welcome->session, client->session);
    assert_int_equal(welcome->home_agent, client->home_agent);
    if (rsi_failed(
            rsi_link_resume_check(old, welcome->arrived_pos, welcome->consumed_pos, &error))) {
        fail_msg("%s", error.text);
    }
    rsi_control_free(message);
    attach(client, &rings);
    rsi_link_carry(client->link, old);
    free_link(&client->old);
    rsi_link_place(client->link);
    (void)rsi_link_flush(client->link);
    return true;
}

void rsi_testing_client_give_up(struct rsi_testing_client *client)
{
    close_and_wait(client);
    struct rsi_testing_link present = present_link(client);
    free_link(&present);
    client->link = NULL;
}

void rsi_testing_client_resume(struct rsi_testing_client *client,
                               const struct rsi_testing_broker *broker, uint32_t url_index)
{
    uint64_t until_ns = rsi_clock_now_ns() + RSI_TESTING_DEADLINE_NS;
    for (;;) {
        assert_true(rsi_clock_now_ns() < until_ns);
        rsi_testing_client_redial(client, broker, url_index, client->home_agent + 1);
        struct rsi_testing_claim claim = rsi_testing_client_truth(client);
        rsi_testing_client_claim(client, &claim);
        if (rsi_testing_client_take_over(client)) {
            return;
        }
        rsi_testing_client_give_up(client);
    }
}

/* ---- client: requests --------------------------------------------------------------------------
 */

uint64_t rsi_testing_client_open_publisher(struct rsi_testing_client *client, uint32_t alias,
                                           const char *subject)
{
    Ringside__Control__OpenPublisher open = RINGSIDE__CONTROL__OPEN_PUBLISHER__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    open.request = ++client->last_request;
    open.alias = alias;
    open.subject = (char *)subject;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_OPEN_PUBLISHER;
    message.open_publisher = &open;
    rsi_testing_client_send(client, &message);
    return open.request;
}

uint64_t rsi_testing_client_subscribe(struct rsi_testing_client *client, uint64_t subscription,
                                      const char *subject, Ringside__Control__Policy policy)
{
    Ringside__Control__Subscribe subscribe = RINGSIDE__CONTROL__SUBSCRIBE__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    subscribe.request = ++client->last_request;
    subscribe.subscription = subscription;
    subscribe.subject = (char *)subject;
    subscribe.policy = policy;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBE;
    message.subscribe = &subscribe;
    rsi_testing_client_send(client, &message);
    return subscribe.request;
}

void rsi_testing_client_expect_opened(struct rsi_testing_client *client, uint64_t request)
{
    Ringside__Control__Control *message =
        receive_kind(client, RINGSIDE__CONTROL__CONTROL__BODY_PUBLISHER_OPENED);
    assert_int_equal(message->publisher_opened->request, request);
    rsi_control_free(message);
}

void rsi_testing_client_expect_subscribed(struct rsi_testing_client *client, uint64_t request)
{
    Ringside__Control__Control *message =
        receive_kind(client, RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBED);
    assert_int_equal(message->subscribed->request, request);
    rsi_control_free(message);
}

void rsi_testing_client_expect_done(struct rsi_testing_client *client, uint64_t request)
{
    Ringside__Control__Control *message =
        receive_kind(client, RINGSIDE__CONTROL__CONTROL__BODY_DONE);
    assert_int_equal(message->done->request, request);
    rsi_control_free(message);
}

void rsi_testing_client_unsubscribe(struct rsi_testing_client *client, uint64_t subscription)
{
    Ringside__Control__Unsubscribe unsubscribe = RINGSIDE__CONTROL__UNSUBSCRIBE__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    unsubscribe.request = ++client->last_request;
    unsubscribe.subscription = subscription;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_UNSUBSCRIBE;
    message.unsubscribe = &unsubscribe;
    rsi_testing_client_send(client, &message);
    rsi_testing_client_expect_done(client, unsubscribe.request);
}

void rsi_testing_client_say_bye(struct rsi_testing_client *client)
{
    Ringside__Control__Bye bye = RINGSIDE__CONTROL__BYE__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    bye.reason = RINGSIDE__CONTROL__REASON__REASON_GOODBYE;
    bye.end_pos = client->link->placed_pos;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_BYE;
    message.bye = &bye;
    rsi_testing_client_send(client, &message);
}

/* ---- client: data ------------------------------------------------------------------------------
 */

void rsi_testing_client_publish(struct rsi_testing_client *client, uint32_t alias, uint64_t number)
{
    struct rsi_frame_header *header = NULL;
    uint64_t frame_bytes = rsi_frame_bytes(0, sizeof(number));
    rsi_testing_wait(client, NULL, (header = rsi_frame_claim(client->link, frame_bytes)) != NULL);
    memset((char *)header + sizeof(header->commit), 0, sizeof(*header) - sizeof(header->commit));
    header->type = RSI_FRAME_MESSAGE;
    header->payload_bytes = sizeof(number);
    header->publication = alias;
    memcpy(header + 1, &number, sizeof(number));
    rsi_frame_commit(client->link, frame_bytes);
    rsi_link_place(client->link);
    rsi_status_t status = rsi_link_flush_clocked(client->link);
    assert_true(status == RSI_OK || status == RSI_WOULD_BLOCK);
}

void rsi_testing_client_read(struct rsi_testing_client *client, uint64_t *next)
{
    struct rsi_link *link = client->link;
    while (link->consumed_pos < link->arrived_pos) {
        struct rsi_frame frame;
        const char *why = NULL;
        if (rsi_frame_read(&link->in, link->consumed_pos, link->arrived_pos, &frame, &why) !=
            RSI_OK) {
            fail_msg("%s", why);
        }
        if (frame.header.type == RSI_FRAME_MESSAGE) {
            uint64_t number = 0;
            assert_int_equal(frame.header.payload_bytes, sizeof(number));
            memcpy(&number, frame.payload, sizeof(number));
            assert_int_equal(number, *next);
            (*next)++;
        }
        rsi_link_consume(link, frame.frame_bytes);
    }
}
