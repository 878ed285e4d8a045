/*
 * Attacks on the way to a session: garbage, messages out of turn, stolen and guessed proofs,
 * silence half-way, crowds; and on sessions that others have.
 */
#include "tests/fault/hostile.h"

#include <sys/socket.h>

enum {
    LORIS_COUNT = 6,
    CROWD_COUNT = 20, /* more than may be unauthenticated at a time */
};

/* ---- before the session ------------------------------------------------------------------------
 */

/* As expect_any_end; but while the broker waits for a peer to attach it hears nothing, for as long
 * as registering memory may take. There the peer leaves. */
static void expect_end_at(struct raw_peer *peer, enum raw_stage stage)
{
    if (stage == RAW_WELCOMED) {
        raw_close(peer);
    } else {
        expect_any_end(peer);
    }
}

void attack_garbage(struct siege *siege)
{
    for (unsigned stage = RAW_CONNECTED; stage < RAW_STAGE_COUNT; stage++) {
        struct raw_peer peer;
        uint8_t garbage[4096];
        raw_open(&peer, &siege->at, "garbage", (enum raw_stage)stage);
        siege_fill_randomly(siege, garbage, sizeof(garbage));
        garbage[0] |= 0x80; /* no kind of record */
        (void)raw_send(&peer, garbage, peer.is_shm ? 512 : sizeof(garbage));
        expect_any_end(&peer);
    }
}

/* Well-formed records of garbage, on the control lane. */
void attack_control_garbage(struct siege *siege)
{
    for (unsigned stage = RAW_GREETED; stage < RAW_STAGE_COUNT; stage++) {
        struct raw_peer peer;
        uint8_t piece[RSI_CONTROL_BYTES_MAX];
        raw_open(&peer, &siege->at, "babbler", (enum raw_stage)stage);
        siege_fill_randomly(siege, piece, sizeof(piece));
        piece[0] = 0;    /* no more pieces: it is to be understood now */
        piece[1] = 0x07; /* a wire type that protobuf does not have */
        (void)raw_record(&peer, RSI_RECORD_CONTROL, 0, sizeof(piece), piece, sizeof(piece));
        expect_end_at(&peer, (enum raw_stage)stage);
    }
}

/* A message that never ends. */
void attack_endless_message(struct siege *siege)
{
    for (unsigned stage = RAW_GREETED; stage < RAW_STAGE_COUNT; stage++) {
        struct raw_peer peer;
        uint8_t piece[RSI_CONTROL_BYTES_MAX] = {1};
        if (stage == RAW_WELCOMED) {
            continue; /* nobody listens there */
        }
        raw_open(&peer, &siege->at, "endless", (enum raw_stage)stage);
        while (raw_record(&peer, RSI_RECORD_CONTROL, 0, sizeof(piece), piece, sizeof(piece)) &&
               !raw_look(&peer)) {
        }
        expect_any_end(&peer);
    }
}

/* Each kind of message at each stage where it does not belong. */
void attack_out_of_turn(struct siege *siege)
{
    for (unsigned stage = RAW_GREETED; stage < RAW_STAGE_COUNT; stage++) {
        for (int body = RINGSIDE__CONTROL__CONTROL__BODY_HELLO;
             body <= RINGSIDE__CONTROL__CONTROL__BODY_BYE; body++) {
            /* Empty: one field with a message of no bytes. */
            const uint8_t piece[] = {0, (uint8_t)(body << 3 | 2), 0};
            struct raw_peer peer;
            if (stage >= RAW_WELCOMED && body == RINGSIDE__CONTROL__CONTROL__BODY_BYE) {
                continue; /* a goodbye is in order there */
            }
            raw_open(&peer, &siege->at, "out-of-turn", (enum raw_stage)stage);
            (void)raw_record(&peer, RSI_RECORD_CONTROL, 0, sizeof(piece), piece, sizeof(piece));
            /* An empty request is answered with a refusal; that may go on. */
            if (stage >= RAW_WELCOMED) {
                raw_close(&peer);
            } else {
                expect_any_end(&peer);
            }
        }
    }
}

void attack_wrong_version(struct siege *siege)
{
    struct raw_peer peer;
    struct rsi_greeting greeting;
    raw_open(&peer, &siege->at, "newer", RAW_CONNECTED);
    raw_make_greeting(&peer, &greeting);
    greeting.version_min = greeting.version_max = 999;
    (void)raw_record(&peer, RSI_RECORD_GREETING, 0, sizeof(greeting), &greeting, sizeof(greeting));
    expect_any_end(&peer);
}

void attack_proofs(struct siege *siege)
{
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    struct raw_peer victim;
    struct raw_peer peer;
    /* A guess. */
    raw_open(&peer, &siege->at, "guesser", RAW_CHALLENGED);
    siege_fill_randomly(siege, proof, sizeof(proof));
    (void)raw_say_authenticate(&peer, proof);
    expect_end(&peer, RINGSIDE__CONTROL__REASON__REASON_AUTHENTICATION);
    /* What somebody else proved, with its name and nonce: the broker's nonce is another. */
    raw_open(&victim, &siege->at, "victim", RAW_CHALLENGED);
    raw_make_proof(&victim, proof);
    raw_connect(&peer, &siege->at, "victim");
    memcpy(peer.nonce, victim.nonce, sizeof(peer.nonce));
    check(raw_greet(&peer) && raw_hello(&peer), "%s is not challenged", peer.name);
    (void)raw_say_authenticate(&peer, proof);
    expect_end(&peer, RINGSIDE__CONTROL__REASON__REASON_AUTHENTICATION);
    /* Twice by the right one. */
    raw_authenticate(&victim);
    (void)raw_say_authenticate(&victim, proof);
    raw_attach(&victim);
    expect_any_end(&victim);
}

/* Each stops half-way through a step, all at a time; the broker's patience ends it. */
void attack_slow_loris(struct siege *siege)
{
    struct raw_peer peers[LORIS_COUNT];
    struct rsi_greeting greeting;
    const uint8_t piece[3] = {1, 10, 5}; /* the beginning of a Hello */
    struct raw_peer *half_greeted = &peers[1];
    struct raw_peer *half_header = &peers[3];
    raw_open(&peers[0], &siege->at, "silent", RAW_CONNECTED);
    raw_open(half_greeted, &siege->at, "half-greeted", RAW_CONNECTED);
    raw_open(&peers[2], &siege->at, "greeted", RAW_GREETED);
    raw_open(half_header, &siege->at, "half-header", RAW_GREETED);
    raw_open(&peers[4], &siege->at, "half-hello", RAW_GREETED);
    raw_open(&peers[5], &siege->at, "challenged", RAW_CHALLENGED);
    if (is_transport("tcp")) { /* packets have no halves */
        const struct rsi_record_header header = {.kind = RSI_RECORD_GREETING,
                                                 .bytes = sizeof(greeting)};
        raw_make_greeting(half_greeted, &greeting);
        (void)raw_send(half_greeted, &header, sizeof(header));
        for (size_t i = 0; i < sizeof(greeting) - 1; i++) {
            (void)raw_send(half_greeted, (const uint8_t *)&greeting + i, 1);
        }
        const uint8_t kind = RSI_RECORD_CONTROL;
        (void)raw_send(half_header, &kind, sizeof(kind));
    }
    (void)raw_record(&peers[4], RSI_RECORD_CONTROL, 0, sizeof(piece), piece, sizeof(piece));
    for (unsigned i = 0; i < LORIS_COUNT; i++) {
        expect_any_end(&peers[i]);
    }
}

static void say_greeting(struct raw_peer *peer)
{
    struct rsi_greeting greeting;
    raw_make_greeting(peer, &greeting);
    (void)raw_record(peer, RSI_RECORD_GREETING, 0, sizeof(greeting), &greeting, sizeof(greeting));
}

/* More connections than may be unproved at a time, each held open as long as the broker lets it. */
void attack_crowd(struct siege *siege)
{
    struct raw_peer peers[CROWD_COUNT];
    uint64_t position = siege_position(siege);
    for (unsigned i = 0; i < CROWD_COUNT; i++) {
        raw_open(&peers[i], &siege->at, "crowd", RAW_CONNECTED);
        if (peers[i].link != NULL) {
            say_greeting(&peers[i]); /* before that the broker has nothing of it */
        }
    }
    siege_expect_traffic(siege, position);
    for (unsigned i = 0; i < CROWD_COUNT; i++) {
        expect_any_end(&peers[i]);
    }
    /* And then there is room again. */
    raw_open(&peers[0], &siege->at, "honest", RAW_SERVING);
    raw_close(&peers[0]);
}

/* Comes and goes, with and without a word, by a reset too. */
void attack_comings_and_goings(struct siege *siege)
{
    const struct linger reset = {.l_onoff = 1};
    uint64_t count = scaled(200, RAW_STAGE_COUNT);
    for (uint64_t i = 0; i < count; i++) {
        struct raw_peer peer;
        raw_open(&peer, &siege->at, "restless", (enum raw_stage)(i % RAW_STAGE_COUNT));
        if (i % 2 == 0) {
            (void)setsockopt(peer.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        }
        raw_close(&peer);
    }
}

/* ---- sessions of others ------------------------------------------------------------------------
 */

/* A peer that is challenged, under a name; its next word is the claim. Comes again while the broker
 * has too many others to greet. */
static void open_claimant(struct siege *siege, struct raw_peer *peer, const char *name,
                          uint64_t incarnation)
{
    uint64_t until_ns = now_ns() + hang_ns();
    for (;;) {
        raw_connect(peer, &siege->at, name);
        peer->incarnation = incarnation;
        if (raw_greet(peer) && raw_hello(peer)) {
            return;
        }
        check(now_ns() < until_ns, "%s is not challenged", name);
        raw_close(peer);
        nap();
    }
}

void attack_sessions(struct siege *siege)
{
    struct raw_peer victim;
    struct raw_peer peer;
    struct raw_claim claim = {.attempt = 1};
    raw_open(&victim, &siege->at, "victim", RAW_SERVING);
    expect_alive(&victim);
    /* Sessions that may be there, the bystanders' and the victim's, with a proof that is a guess.
     */
    for (claim.session = 1; claim.session <= victim.session + 1; claim.session++) {
        bool is_near = claim.session < 4 || claim.session + 2 > victim.session;
        if (!is_near) {
            continue;
        }
        open_claimant(siege, &peer, "victim", victim.incarnation);
        siege_fill_randomly(siege, claim.proof, sizeof(claim.proof));
        (void)raw_say_resume(&peer, &claim);
        expect_end(&peer, RINGSIDE__CONTROL__REASON__REASON_SESSION);
    }
    claim.session = victim.session;
    /* The secret is known, but the name or the run of the process is another. */
    open_claimant(siege, &peer, "another", victim.incarnation);
    raw_make_session_proof(&peer, victim.session_secret, claim.proof);
    (void)raw_say_resume(&peer, &claim);
    expect_end(&peer, RINGSIDE__CONTROL__REASON__REASON_SESSION);
    open_claimant(siege, &peer, "victim", victim.incarnation + 1);
    raw_make_session_proof(&peer, victim.session_secret, claim.proof);
    (void)raw_say_resume(&peer, &claim);
    expect_end(&peer, RINGSIDE__CONTROL__REASON__REASON_SESSION);
    /* A proof that was right on the victim's own link, heard and said again. */
    open_claimant(siege, &peer, "victim", victim.incarnation);
    raw_make_session_proof(&victim, victim.session_secret, claim.proof);
    (void)raw_say_resume(&peer, &claim);
    expect_end(&peer, RINGSIDE__CONTROL__REASON__REASON_SESSION);
    /* All is right, but the try is older than any. */
    open_claimant(siege, &peer, "victim", victim.incarnation);
    raw_make_session_proof(&peer, victim.session_secret, claim.proof);
    claim.attempt = 0;
    (void)raw_say_resume(&peer, &claim);
    expect_end(&peer, RINGSIDE__CONTROL__REASON__REASON_TIMED_OUT);
    expect_alive(&victim);
    raw_close(&victim);
}

/* The right client, with positions that cannot be true: its session is lost, and nobody else's. */
void attack_positions_of_resume(struct siege *siege)
{
    static const struct rsi_positions lies[] = {
        {.arrived_pos = UINT64_C(1) << 40, .consumed_pos = 0},
        {.arrived_pos = UINT64_MAX - 7, .consumed_pos = UINT64_MAX - 7},
        {.arrived_pos = 8, .consumed_pos = 16},
        {.arrived_pos = 4, .consumed_pos = 4},
    };
    for (unsigned i = 0; i < rsi_array_count(lies); i++) {
        struct raw_peer victim;
        raw_open(&victim, &siege->at, "confused", RAW_SERVING);
        struct raw_claim claim = {.session = victim.session,
                                  .arrived_pos = lies[i].arrived_pos,
                                  .consumed_pos = lies[i].consumed_pos};
        Ringside__Control__Reason reason;
        do { /* until the link lands on the session's agent */
            struct raw_peer peer;
            open_claimant(siege, &peer, "confused", victim.incarnation);
            raw_make_session_proof(&peer, victim.session_secret, claim.proof);
            claim.attempt++;
            (void)raw_say_resume(&peer, &claim);
            reason = raw_await_end(&peer);
            raw_close(&peer);
        } while (reason == RINGSIDE__CONTROL__REASON__REASON_ELSEWHERE);
        check(reason == RINGSIDE__CONTROL__REASON__REASON_SESSION,
              "lies about %" PRIu64 " bytes got reason %d", lies[i].arrived_pos, (int)reason);
        (void)raw_await_end(&victim);
        raw_close(&victim);
    }
}

/* Resumes its own session over and over, and attaches nothing. */
void attack_restlessness(struct siege *siege)
{
    struct raw_peer victim;
    raw_open(&victim, &siege->at, "vagrant", RAW_SERVING);
    struct raw_claim claim = {.session = victim.session};
    for (unsigned i = 0; i < 50; i++) {
        struct raw_peer peer;
        open_claimant(siege, &peer, "vagrant", victim.incarnation);
        raw_make_session_proof(&peer, victim.session_secret, claim.proof);
        claim.attempt++;
        (void)raw_say_resume(&peer, &claim);
        raw_close(&peer);
    }
    raw_close(&victim);
}
