/*
 * Design notes
 * - One lock around each pass: what a test sees or changes lies between two passes.
 * - One session is enough: its client is what is tested. Others may dial and say Hello.
 */
#include "clients/c/hand_testing.h"

#include "core/assert.h"
#include "core/clock.h"
#include "core/text.h"
#include "transport/auth.h"
#include "transport/frame.h"
#include "transport/sim/sim.h"

#include <time.h>

#define PACE_NS 20000

static const struct rsi_transport *sim(void)
{
    return rsi_transport_find("sim");
}

/* The broker's thread is no test's: what fails there ends the process and says where. */
static void check(rsi_status_t status, const struct rsi_error *error)
{
    if (status != RSI_OK) {
        fprintf(stderr, "hand-made broker: %s\n", error->text);
        abort();
    }
}

/* ---- saying ------------------------------------------------------------------------------------
 */

static void say(struct rsi_link *link, const Ringside__Control__Control *message)
{
    (void)!rsi_control_send(link, message); /* a link that is lost meanwhile takes nothing */
}

static void send_refused(struct rsi_link *link, uint64_t request, Ringside__Control__Reason reason,
                         const char *text)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Refused refused = RINGSIDE__CONTROL__REFUSED__INIT;
    refused.request = request;
    refused.reason = reason;
    refused.text = (char *)(uintptr_t)text;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_REFUSED;
    message.refused = &refused;
    say(link, &message);
}

static void send_ended(const struct hand_broker *broker, struct rsi_link *link)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Refused refused = RINGSIDE__CONTROL__REFUSED__INIT;
    refused.reason = broker->ended_reason;
    refused.text = (char *)(uintptr_t) "it ended while you were away";
    refused.session_ended = true;
    refused.taken_pos = broker->carrier->arrived_pos - broker->ended_untaken_bytes;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_REFUSED;
    message.refused = &refused;
    say(link, &message);
}

static void take_hello(struct hand_broker *broker, struct hand_link *hand,
                       const Ringside__Control__Hello *hello)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Challenge challenge = RINGSIDE__CONTROL__CHALLENGE__INIT;
    broker->hello_count++;
    broker->hint_seen = hand->link->peer_greeting.agent_hint;
    hand->is_greeted = true;
    rsi_assert(hello->nonce.len == sizeof(hand->client_nonce));
    rsi_assert(hello->incarnation != 0);
    rsi_assert(hello->incarnation == hand->link->peer_greeting.incarnation);
    memcpy(hand->client_nonce, hello->nonce.data, sizeof(hand->client_nonce));
    (void)rsi_text_copy(hand->client_name, sizeof(hand->client_name), hello->client_name);
    rsi_assert(rsi_auth_random(hand->broker_nonce, sizeof(hand->broker_nonce), NULL) == RSI_OK);
    challenge.version = RSI_WIRE_VERSION_MAX;
    challenge.nonce.data = hand->broker_nonce;
    challenge.nonce.len = sizeof(hand->broker_nonce);
    challenge.broker_name = "hand";
    challenge.software = "hand";
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_CHALLENGE;
    message.challenge = &challenge;
    say(hand->link, &message);
}

static void send_welcome(struct hand_broker *broker, struct hand_link *hand, bool resumed,
                         const struct rsi_link_rings *rings)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Welcome welcome = RINGSIDE__CONTROL__WELCOME__INIT;
    welcome.session = broker->session;
    welcome.session_secret.data = broker->secret;
    welcome.session_secret.len = sizeof(broker->secret);
    welcome.publish_ring_bytes = rings->in_bytes;
    welcome.deliver_ring_bytes = rings->out_bytes;
    welcome.message_bytes_max = rings->in_bytes / RSI_RING_PER_MESSAGE;
    welcome.broker_incarnation = broker->incarnation;
    welcome.home_agent = 2;
    welcome.grace_ns = broker->grace_ns;
    welcome.resumed = resumed;
    welcome.arrived_pos = rings->in_start_pos;
    welcome.consumed_pos = rings->in_consumed_pos;
    if (resumed && broker->lies_about_positions) {
        welcome.arrived_pos += 1u << 20;
    }
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_WELCOME;
    message.welcome = &welcome;
    say(hand->link, &message);
}

static void attach(struct hand_link *hand, const struct rsi_link_rings *rings)
{
    struct rsi_error error = {0};
    check(sim()->link_attach(hand->link, rings, &error), &error);
}

static void begin_session(struct hand_broker *broker, struct hand_link *hand,
                          const Ringside__Control__Authenticate *wanted)
{
    struct rsi_link_rings rings = {.out_bytes = wanted->deliver_ring_bytes,
                                   .in_bytes = wanted->publish_ring_bytes};
    if (broker->publish_bytes_max != 0 && rings.in_bytes > broker->publish_bytes_max) {
        rings.in_bytes = broker->publish_bytes_max;
    }
    broker->session = ++broker->last_session;
    rsi_assert(rsi_auth_random(broker->secret, sizeof(broker->secret), NULL) == RSI_OK);
    broker->carrier = hand->link;
    broker->last_attempt = 0;
    broker->subscription_count = 0;
    broker->request_count = 0;
    broker->taken_count = 0;
    memset(broker->closing, 0, sizeof(broker->closing));
    memset(broker->subjects, 0, sizeof(broker->subjects));
    memset(broker->sequences, 0, sizeof(broker->sequences));
    memset(broker->is_announced, 0, sizeof(broker->is_announced));
    send_welcome(broker, hand, false, &rings);
    attach(hand, &rings);
}

static bool is_proved(const struct hand_broker *broker, const struct hand_link *hand,
                      const Ringside__Control__Authenticate *wanted)
{
    const struct rsi_auth_input input = {
        .secret = broker->secret,
        .secret_bytes = sizeof(broker->secret),
        .client_nonce = hand->client_nonce,
        .client_nonce_bytes = sizeof(hand->client_nonce),
        .broker_nonce = hand->broker_nonce,
        .broker_nonce_bytes = sizeof(hand->broker_nonce),
        .client_name = hand->client_name,
    };
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    rsi_assert(rsi_auth_proof(RSI_AUTH_RESUME, &input, proof, NULL) == RSI_OK);
    return rsi_auth_equal(wanted->session_proof.data, wanted->session_proof.len, proof);
}

/* The client begins another session in place of the one that it never took over. */
static void supersede(struct hand_broker *broker, const struct hand_link *hand,
                      const Ringside__Control__Authenticate *wanted)
{
    if (wanted->session == broker->session) {
        rsi_assert(is_proved(broker, hand, wanted));
        sim()->link_close(broker->carrier);
        broker->superseded_count++;
    }
}

static void take_authenticate(struct hand_broker *broker, struct hand_link *hand,
                              const Ringside__Control__Authenticate *wanted)
{
    Ringside__Control__Reason refuses = broker->refuses;
    if (broker->refuses_once != RINGSIDE__CONTROL__REASON__REASON_NONE) {
        refuses = broker->refuses_once;
        broker->refuses_once = RINGSIDE__CONTROL__REASON__REASON_NONE;
    }
    if (refuses != RINGSIDE__CONTROL__REASON__REASON_NONE) {
        send_refused(hand->link, 0, refuses, "not by this hand");
        sim()->link_close(hand->link);
        return;
    }
    if (wanted->begins_anew) {
        supersede(broker, hand, wanted);
    }
    if (wanted->session == 0 || wanted->begins_anew) {
        begin_session(broker, hand, wanted);
        return;
    }
    if (wanted->session != broker->session || broker->session == 0) {
        send_refused(hand->link, 0, RINGSIDE__CONTROL__REASON__REASON_SESSION, "never heard of it");
        sim()->link_close(hand->link);
        return;
    }
    rsi_assert(is_proved(broker, hand, wanted));
    if (broker->has_ended) {
        send_ended(broker, hand->link);
        sim()->link_close(hand->link);
        return;
    }
    rsi_assert(wanted->attempt > broker->last_attempt);
    broker->last_attempt = wanted->attempt;
    if (broker->forgets_resumes > 0) {
        broker->forgets_resumes--;
        return;
    }
    hand->wants_session = true;
    hand->told_arrived_pos = wanted->arrived_pos;
    hand->told_consumed_pos = wanted->consumed_pos;
    sim()->link_close(broker->carrier);
}

/* ---- a session ---------------------------------------------------------------------------------
 */

static bool was_seen(struct hand_broker *broker, uint64_t request)
{
    for (uint32_t index = 0; index < broker->request_count; index++) {
        if (broker->requests[index] == request) {
            broker->repeated_count++;
            return true;
        }
    }
    rsi_assert(broker->request_count < HAND_REQUEST_COUNT);
    broker->requests[broker->request_count++] = request;
    return false;
}

static void answer(struct hand_broker *broker, struct rsi_link *link,
                   const Ringside__Control__Control *message)
{
    if (broker->forgets_requests) {
        return;
    }
    say(link, message);
    if (broker->answers_twice) {
        say(link, message);
    }
}

static void answer_done(struct hand_broker *broker, struct rsi_link *link, uint64_t request)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Done done = RINGSIDE__CONTROL__DONE__INIT;
    done.request = request;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_DONE;
    message.done = &done;
    answer(broker, link, &message);
}

static void take_open(struct hand_broker *broker, struct rsi_link *link,
                      const Ringside__Control__OpenPublisher *open)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__PublisherOpened opened = RINGSIDE__CONTROL__PUBLISHER_OPENED__INIT;
    rsi_assert(open->alias >= 1 && open->alias < HAND_ALIAS_COUNT);
    if (broker->refuses_publishers) {
        send_refused(link, open->request, RINGSIDE__CONTROL__REASON__REASON_DENIED, "not you");
        return;
    }
    if (!was_seen(broker, open->request)) {
        rsi_assert(broker->subjects[open->alias][0] == 0);
        (void)rsi_text_copy(broker->subjects[open->alias], sizeof(broker->subjects[0]),
                            open->subject);
        broker->sequences[open->alias] = 0;
        broker->is_announced[open->alias] = false;
    }
    opened.request = open->request;
    opened.alias = open->alias;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_PUBLISHER_OPENED;
    message.publisher_opened = &opened;
    answer(broker, link, &message);
}

static void take_subscribe(struct hand_broker *broker, struct rsi_link *link,
                           const Ringside__Control__Subscribe *subscribe)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Subscribed subscribed = RINGSIDE__CONTROL__SUBSCRIBED__INIT;
    broker->subscription_count += !was_seen(broker, subscribe->request);
    subscribed.request = subscribe->request;
    subscribed.subscription = subscribe->subscription;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBED;
    message.subscribed = &subscribed;
    answer(broker, link, &message);
}

static void take_bye(struct hand_broker *broker, struct rsi_link *link)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Bye bye = RINGSIDE__CONTROL__BYE__INIT;
    broker->bye_count++;
    if (broker->forgets_requests) {
        return;
    }
    bye.reason = RINGSIDE__CONTROL__REASON__REASON_GOODBYE;
    bye.end_pos = link->staged_pos;
    bye.taken_pos = link->arrived_pos;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_BYE;
    message.bye = &bye;
    say(link, &message);
}

static void take_close(struct hand_broker *broker, const Ringside__Control__ClosePublisher *wanted)
{
    rsi_assert(wanted->alias < HAND_ALIAS_COUNT);
    rsi_assert(broker->closing[wanted->alias].request == 0);
    broker->closing[wanted->alias].request = wanted->request;
    broker->closing[wanted->alias].end_pos = wanted->end_pos;
}

static void take_request(struct hand_broker *broker, struct hand_link *hand,
                         const Ringside__Control__Control *message)
{
    struct rsi_link *link = hand->link;
    switch ((int)message->body_case) {
    case RINGSIDE__CONTROL__CONTROL__BODY_HELLO:
        take_hello(broker, hand, message->hello);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_AUTHENTICATE:
        take_authenticate(broker, hand, message->authenticate);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_OPEN_PUBLISHER:
        take_open(broker, link, message->open_publisher);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBE:
        take_subscribe(broker, link, message->subscribe);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_CLOSE_PUBLISHER:
        take_close(broker, message->close_publisher);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_UNSUBSCRIBE:
        broker->subscription_count -= !was_seen(broker, message->unsubscribe->request);
        answer_done(broker, link, message->unsubscribe->request);
        return;
    case RINGSIDE__CONTROL__CONTROL__BODY_BYE:
        take_bye(broker, link);
        return;
    default:
        /* A client sends nothing else. */
        rsi_assert(message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_BYE);
    }
}

/* ---- data --------------------------------------------------------------------------------------
 */

static void put(struct rsi_link *link, const struct rsi_frame_header *header, const void *payload)
{
    uint64_t frame_bytes = rsi_frame_bytes(0, header->payload_bytes);
    struct rsi_frame_header *at = rsi_frame_claim(link, frame_bytes);
    rsi_assert(at != NULL);
    memcpy((uint8_t *)at + 8, (const uint8_t *)header + 8, sizeof(*header) - 8);
    memcpy(at + 1, payload, header->payload_bytes);
    rsi_frame_commit(link, frame_bytes);
}

static void announce(struct hand_broker *broker, struct rsi_link *link, uint32_t alias)
{
    struct {
        struct rsi_announce announce;
        char texts[RSI_SUBJECT_BYTES_MAX + 8];
    } payload = {.announce = {.publication = alias,
                              .topic = alias,
                              .publisher_session = broker->session,
                              .next_sequence = broker->sequences[alias] + 1,
                              .subject_bytes = (uint16_t)strlen(broker->subjects[alias]),
                              .name_bytes = 4}};
    snprintf(payload.texts, sizeof(payload.texts), "%shand", broker->subjects[alias]);
    const struct rsi_frame_header header = {
        .payload_bytes = (uint32_t)(sizeof(payload.announce) + strlen(broker->subjects[alias]) + 4),
        .type = RSI_FRAME_ANNOUNCE};
    put(link, &header, &payload);
    broker->is_announced[alias] = true;
}

/* Takes one message and sends it back. False: no room. */
static bool echo(struct hand_broker *broker, struct rsi_link *link, const struct rsi_frame *frame)
{
    uint32_t alias = frame->header.publication;
    if (alias >= HAND_ALIAS_COUNT || broker->subjects[alias][0] == 0) {
        broker->fault_count++;
        return true;
    }
    if (broker->subscription_count > 0) {
        if (rsi_link_room_bytes(link) < frame->frame_bytes + 512) {
            return false;
        }
        if (!broker->is_announced[alias]) {
            announce(broker, link, alias);
        }
        const struct rsi_frame_header header = {.payload_bytes = frame->header.payload_bytes,
                                                .type = RSI_FRAME_MESSAGE,
                                                .publication = alias,
                                                .sequence = broker->sequences[alias] + 1};
        put(link, &header, frame->payload);
    }
    broker->sequences[alias]++;
    broker->taken_count++;
    return true;
}

static uint32_t move_data(struct hand_broker *broker)
{
    struct rsi_link *link = broker->carrier;
    uint32_t work = 0;
    if (link == NULL || rsi_link_state(link) != RSI_LINK_ATTACHED || broker->is_deaf) {
        return 0;
    }
    while (link->consumed_pos < link->arrived_pos) {
        struct rsi_frame frame;
        const char *why = NULL;
        rsi_assert(rsi_frame_read(&link->in, link->consumed_pos, link->arrived_pos, &frame, &why) ==
                   RSI_OK);
        if (!echo(broker, link, &frame)) {
            break;
        }
        rsi_link_consume(link, frame.frame_bytes);
        work++;
    }
    rsi_link_place(link);
    (void)rsi_link_flush(link);
    return work;
}

/* A publisher is closed when its last frame was taken. */
static void close_publishers(struct hand_broker *broker)
{
    struct rsi_link *link = broker->carrier;
    for (uint32_t alias = 0; alias < HAND_ALIAS_COUNT; alias++) {
        uint64_t request = broker->closing[alias].request;
        if (request == 0 || rsi_link_state(link) != RSI_LINK_ATTACHED ||
            link->consumed_pos < broker->closing[alias].end_pos) {
            continue;
        }
        if (!was_seen(broker, request)) {
            broker->subjects[alias][0] = 0;
        }
        broker->closing[alias].request = 0;
        answer_done(broker, link, request);
    }
}

/* ---- links -------------------------------------------------------------------------------------
 */

static void forget_link(struct hand_link *hand)
{
    sim()->link_destroy(hand->link);
    memset(hand, 0, sizeof(*hand));
}

static void resume(struct hand_broker *broker, struct hand_link *hand)
{
    struct rsi_link *from = broker->carrier;
    struct rsi_error error = {0};
    hand->wants_session = false;
    check(rsi_link_resume_check(from, hand->told_arrived_pos, hand->told_consumed_pos, &error),
          &error);
    const struct rsi_link_rings rings = {
        .out_bytes = from->out.capacity_bytes,
        .in_bytes = from->in.capacity_bytes,
        .out_start_pos = hand->told_arrived_pos,
        .out_consumed_pos = hand->told_consumed_pos,
        .in_start_pos = from->arrived_pos,
        .in_consumed_pos = from->consumed_pos,
    };
    broker->resume_count++;
    memset(broker->closing, 0, sizeof(broker->closing)); /* it is asked again */
    send_welcome(broker, hand, true, &rings);
    attach(hand, &rings);
}

static struct hand_link *find_link(struct hand_broker *broker, const struct rsi_link *link)
{
    for (uint32_t index = 0; index < HAND_LINK_COUNT; index++) {
        if (broker->links[index].link == link) {
            return &broker->links[index];
        }
    }
    return NULL;
}

static void poll_link(struct hand_broker *broker, struct hand_link *hand, uint64_t now_ns)
{
    struct rsi_link *link = hand->link;
    enum rsi_link_state before = rsi_link_state(link);
    sim()->link_poll_control(link, now_ns);
    enum rsi_link_state state = rsi_link_state(link);
    struct rsi_link *carrier = broker->carrier;
    if (before == RSI_LINK_ATTACHING && state == RSI_LINK_ATTACHED && link != carrier) {
        rsi_link_carry(link, carrier);
        forget_link(find_link(broker, carrier));
        broker->carrier = link;
    }
    Ringside__Control__Control *message = NULL;
    struct rsi_error error = {0};
    while (!broker->is_silent && state >= RSI_LINK_OPEN && state < RSI_LINK_CLOSING &&
           rsi_control_receive(&hand->receiver, link, &message, &error) == RSI_OK) {
        take_request(broker, hand, message);
        rsi_control_free(message);
        state = rsi_link_state(link);
    }
    if (hand->wants_session && rsi_link_state(carrier) == RSI_LINK_CLOSED &&
        state == RSI_LINK_OPEN) {
        resume(broker, hand);
    }
    if (state == RSI_LINK_LOST) {
        sim()->link_close(link);
    }
    if (state == RSI_LINK_CLOSED && link != broker->carrier) {
        forget_link(hand);
    }
}

static uint32_t pass(struct hand_broker *broker)
{
    uint64_t now_ns = rsi_clock_now_ns();
    if (broker->listener == NULL) {
        return 0;
    }
    uint32_t work = sim()->domain_poll_control(broker->domain, now_ns);
    struct hand_link *free_slot = find_link(broker, NULL);
    struct rsi_error error = {0};
    if (free_slot != NULL &&
        sim()->link_accept(&free_slot->link, broker->listener, RSI_POLLER_ONLY(broker->poller),
                           &error) == RSI_OK) {
        work++;
    }
    work += rsi_poller_poll(broker->poller, now_ns);
    for (uint32_t index = 0; index < HAND_LINK_COUNT; index++) {
        if (broker->links[index].link != NULL) {
            poll_link(broker, &broker->links[index], now_ns);
        }
    }
    work += move_data(broker);
    close_publishers(broker);
    return work;
}

static void *run(void *arg)
{
    struct hand_broker *broker = arg;
    const struct timespec pace = {.tv_nsec = PACE_NS};
    bool is_stopping = false;
    while (!is_stopping) {
        pthread_mutex_lock(&broker->lock);
        uint32_t work = pass(broker);
        is_stopping = broker->is_stopping;
        pthread_mutex_unlock(&broker->lock);
        if (work == 0) {
            (void)nanosleep(&pace, NULL);
        }
    }
    return NULL;
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void open_endpoint(struct hand_broker *broker)
{
    struct rsi_error error = {0};
    struct rsi_url url;
    const struct rsi_domain_options options = {
        .node = -1, .incarnation = broker->incarnation, .seed = broker->incarnation};
    const struct rsi_poller_options poller_options = {.link_count_max = HAND_LINK_COUNT};
    check(rsi_url_parse(&url, broker->url, &error), &error);
    check(sim()->domain_create(&broker->domain, &options, &error), &error);
    check(sim()->poller_create(&broker->poller, broker->domain, &poller_options, &error), &error);
    check(sim()->listener_create(&broker->listener, broker->domain, &url, &error), &error);
}

static void cut_all(struct hand_broker *broker)
{
    for (uint32_t index = 0; index < HAND_LINK_COUNT; index++) {
        if (broker->links[index].link != NULL) {
            rsi_sim_cut(broker->links[index].link, 0);
        }
    }
}

static void close_endpoint(struct hand_broker *broker)
{
    if (broker->listener == NULL) {
        return;
    }
    cut_all(broker);
    for (uint32_t index = 0; index < HAND_LINK_COUNT; index++) {
        struct hand_link *hand = &broker->links[index];
        if (hand->link == NULL) {
            continue;
        }
        sim()->link_close(hand->link);
        while (rsi_link_state(hand->link) != RSI_LINK_CLOSED) {
            (void)rsi_poller_poll(broker->poller, 0);
            sim()->link_poll_control(hand->link, rsi_clock_now_ns());
        }
        forget_link(hand);
    }
    broker->carrier = NULL;
    broker->session = 0;
    sim()->listener_destroy(broker->listener);
    sim()->poller_destroy(broker->poller);
    sim()->domain_destroy(broker->domain);
    broker->listener = NULL;
}

void hand_broker_init(struct hand_broker *broker, const char *name)
{
    memset(broker, 0, sizeof(*broker));
    snprintf(broker->url, sizeof(broker->url), "sim://%s-%d", name, (int)getpid());
    broker->incarnation = 1000;
    broker->grace_ns = UINT64_C(10000000000);
    rsi_clock_prepare();
    assert_int_equal(pthread_mutex_init(&broker->lock, NULL), 0);
    open_endpoint(broker);
    assert_int_equal(pthread_create(&broker->thread, NULL, run, broker), 0);
}

void hand_broker_fini(struct hand_broker *broker)
{
    hand_broker_set(broker, is_stopping, true);
    assert_int_equal(pthread_join(broker->thread, NULL), 0);
    close_endpoint(broker);
    pthread_mutex_destroy(&broker->lock);
}

void hand_broker_cut(struct hand_broker *broker)
{
    pthread_mutex_lock(&broker->lock);
    cut_all(broker);
    pthread_mutex_unlock(&broker->lock);
}

void hand_broker_kill(struct hand_broker *broker)
{
    pthread_mutex_lock(&broker->lock);
    close_endpoint(broker);
    pthread_mutex_unlock(&broker->lock);
}

void hand_broker_restart(struct hand_broker *broker)
{
    pthread_mutex_lock(&broker->lock);
    close_endpoint(broker);
    broker->incarnation++;
    open_endpoint(broker);
    pthread_mutex_unlock(&broker->lock);
}
