/*
 * Hostile peers against a real broker: whatever a peer says, claims or leaves unsaid, it loses its
 * own link and nothing else. Beside each attack a writer and a reader count an exact stream, and
 * after all attacks the broker holds what it held before them.
 *
 * Design notes
 * - Where the broker has to end the link, the attack waits for it. Where it may live with what the
 *   peer does (it keeps silent within its time, it does not read), the peer leaves by itself; what
 *   counts then is the bystanders.
 * - The broker asks for a token, so that what must not be had without one can be tried.
 * - What the parsers of one transport refuse is tested beside them (tcp/stranger_test.c,
 *   shm/shm_hostile_test.c, handshake_test.c); here it is the whole broker that has to survive it.
 * - Two rounds of all attacks warm up what a broker makes once and keeps; then come the rounds that
 * are measured.
 */
#include "tests/fault/raw_peer.h"
#include "tests/fault/resources.h"
#include "tests/fault/stream_actors.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    /* A link takes 70 KiB, and how many live at a time is chance; a round makes some 2,000. */
    HEAP_GROWTH_BYTES = 4 << 20,
    LORIS_COUNT = 6,
    CROWD_COUNT = 40, /* more than may be unauthenticated at a time */
    FLOOD_COUNT = 20000,
    SLEEP_REQUESTS_MS = 200,
    REWRITTEN_FRAME_BYTES = 104,
    REWRITTEN_FRAME_COUNT = 2000,
};

#define SECRET "a secret of some length"

/* What the attacks share. */
struct siege {
    struct broker broker;
    struct raw_broker at;
    struct actor reader;
    struct actor writer;
    uint64_t random;
    unsigned caught_count; /* peers of the last round that were caught rewriting frames */
};

/* ---- small things ------------------------------------------------------------------------------
 */

static void fill_randomly(struct siege *siege, uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (uint8_t)random_next(&siege->random);
    }
}

/* The broker ends the link, for this reason if it is to give one. */
static void expect_end(struct raw_peer *peer, Ringside__Control__Reason reason)
{
    Ringside__Control__Reason given = raw_await_end(peer);
    check(reason == RINGSIDE__CONTROL__REASON__REASON_NONE || given == reason,
          "%s lost its link for reason %d instead of %d", peer->name, (int)given, (int)reason);
    raw_close(peer);
}

/* It ends without being told why: it broke the transport's protocol, or is past words. */
static void expect_any_end(struct raw_peer *peer)
{
    expect_end(peer, RINGSIDE__CONTROL__REASON__REASON_NONE);
}

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

/* The bystanders have gone on since `position`. */
static void expect_traffic(const struct siege *siege, uint64_t position)
{
    await(actor_result(&siege->reader, STREAM_RESULT_RECEIVED) > position,
          "the bystanders stand still at message %" PRIu64, position);
}

/* Waits until the bystanders have made so many more messages of progress. */
static void let_pass(const struct siege *siege, uint64_t message_count)
{
    expect_traffic(siege, actor_result(&siege->reader, STREAM_RESULT_RECEIVED) + message_count);
}

/* ---- before the session ------------------------------------------------------------------------
 */

static void attack_garbage(struct siege *siege)
{
    for (unsigned stage = RAW_CONNECTED; stage < RAW_STAGE_COUNT; stage++) {
        struct raw_peer peer;
        uint8_t garbage[4096];
        raw_open(&peer, &siege->at, "garbage", (enum raw_stage)stage);
        fill_randomly(siege, garbage, sizeof(garbage));
        garbage[0] |= 0x80; /* no kind of record */
        (void)raw_send(&peer, garbage, peer.is_shm ? 512 : sizeof(garbage));
        expect_any_end(&peer);
    }
}

/* Well-formed records of garbage, on the control lane. */
static void attack_control_garbage(struct siege *siege)
{
    for (unsigned stage = RAW_GREETED; stage < RAW_STAGE_COUNT; stage++) {
        struct raw_peer peer;
        uint8_t piece[RSI_CONTROL_BYTES_MAX];
        raw_open(&peer, &siege->at, "babbler", (enum raw_stage)stage);
        fill_randomly(siege, piece, sizeof(piece));
        piece[0] = 0;    /* no more pieces: it is to be understood now */
        piece[1] = 0x07; /* a wire type that protobuf does not have */
        (void)raw_record(&peer, RSI_RECORD_CONTROL, 0, sizeof(piece), piece, sizeof(piece));
        expect_end_at(&peer, (enum raw_stage)stage);
    }
}

/* A message that never ends. */
static void attack_endless_message(struct siege *siege)
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
static void attack_out_of_turn(struct siege *siege)
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

static void attack_wrong_version(struct siege *siege)
{
    struct raw_peer peer;
    struct rsi_greeting greeting;
    raw_open(&peer, &siege->at, "newer", RAW_CONNECTED);
    raw_make_greeting(&peer, &greeting);
    greeting.version_min = greeting.version_max = 999;
    (void)raw_record(&peer, RSI_RECORD_GREETING, 0, sizeof(greeting), &greeting, sizeof(greeting));
    expect_any_end(&peer);
}

static void attack_proofs(struct siege *siege)
{
    uint8_t proof[RSI_AUTH_PROOF_BYTES];
    struct raw_peer victim;
    struct raw_peer peer;
    /* A guess. */
    raw_open(&peer, &siege->at, "guesser", RAW_CHALLENGED);
    fill_randomly(siege, proof, sizeof(proof));
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
static void attack_slow_loris(struct siege *siege)
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
    if (!half_greeted->is_shm) { /* packets have no halves */
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

/* More connections than may be unproved at a time, each held open as long as the broker lets it. */
static void attack_crowd(struct siege *siege)
{
    struct raw_peer peers[CROWD_COUNT];
    uint64_t position = actor_result(&siege->reader, STREAM_RESULT_RECEIVED);
    for (unsigned i = 0; i < CROWD_COUNT; i++) {
        raw_open(&peers[i], &siege->at, "crowd", RAW_CONNECTED);
    }
    expect_traffic(siege, position);
    for (unsigned i = 0; i < CROWD_COUNT; i++) {
        expect_any_end(&peers[i]);
    }
    /* And then there is room again. */
    raw_open(&peers[0], &siege->at, "honest", RAW_SERVING);
    raw_close(&peers[0]);
}

/* Comes and goes, with and without a word, by a reset too. */
static void attack_comings_and_goings(struct siege *siege)
{
    const struct linger reset = {.l_onoff = 1};
    for (unsigned i = 0; i < 200; i++) {
        struct raw_peer peer;
        raw_open(&peer, &siege->at, "restless", (enum raw_stage)(i % RAW_STAGE_COUNT));
        if (i % 2 == 0) {
            (void)setsockopt(peer.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        }
        raw_close(&peer);
    }
}

/* ---- records -----------------------------------------------------------------------------------
 */

static void attack_huge_records(struct siege *siege)
{
    static const uint32_t sizes[] = {RSI_CONTROL_BYTES_MAX + 1, 65536, 0x7fffffff, 0xffffffff};
    uint8_t body[RSI_CONTROL_BYTES_MAX] = {0};
    for (unsigned stage = RAW_CONNECTED; stage < RAW_STAGE_COUNT; stage++) {
        for (unsigned i = 0; i < rsi_array_count(sizes); i++) {
            struct raw_peer peer;
            uint8_t kind = stage == RAW_CONNECTED ? RSI_RECORD_GREETING : RSI_RECORD_CONTROL;
            raw_open(&peer, &siege->at, "boaster", (enum raw_stage)stage);
            (void)raw_record(&peer, kind, 0, sizes[i], body, sizeof(body));
            expect_any_end(&peer);
        }
    }
}

static void attack_unknown_records(struct siege *siege)
{
    static const uint8_t kinds[] = {0,  RSI_RECORD_GREETING, RSI_RECORD_ATTACH, RSI_RECORD_WAKE, 9,
                                    255};
    uint8_t body[RSI_GREETING_BYTES] = {0};
    static const uint32_t sizes[] = {
        0, RSI_GREETING_BYTES, sizeof(struct rsi_attach), sizeof(struct rsi_positions), 8, 8};
    for (unsigned i = 0; i < rsi_array_count(kinds); i++) {
        struct raw_peer peer;
        raw_open(&peer, &siege->at, "stammerer", RAW_SERVING);
        (void)raw_record(&peer, kinds[i], UINT64_MAX, sizes[i], body, sizes[i]);
        expect_any_end(&peer);
    }
}

/* Batches where none can begin, or longer than the ring; what is in them is in order. */
static void attack_batches(struct siege *siege)
{
    static uint8_t frames[RAW_RING_BYTES + 65536];
    static const uint64_t positions[] = {8, UINT64_MAX - 7, UINT64_C(1) << 40, 4};
    for (unsigned i = 0; i < rsi_array_count(positions); i++) {
        struct raw_peer peer;
        raw_open(&peer, &siege->at, "jumper", RAW_SERVING);
        uint32_t bytes = raw_make_frame(frames, positions[i], RAW_ALIAS, 64);
        (void)raw_record(&peer, RSI_RECORD_BATCH, positions[i], bytes, frames, bytes);
        expect_any_end(&peer);
    }
    struct raw_peer peer;
    raw_open(&peer, &siege->at, "backward", RAW_SERVING);
    (void)raw_publish(&peer, 64);
    uint32_t bytes = raw_make_frame(frames, 0, RAW_ALIAS, 64);
    (void)raw_record(&peer, RSI_RECORD_BATCH, 0, bytes, frames, bytes);
    expect_any_end(&peer);
    static const uint32_t lengths[] = {0, 4, RAW_RING_BYTES, 0x80000000, 0xfffffff8};
    for (unsigned i = 0; i < rsi_array_count(lengths); i++) {
        raw_open(&peer, &siege->at, "glutton", RAW_SERVING);
        (void)raw_record(&peer, RSI_RECORD_BATCH, 0, lengths[i], frames, sizeof(frames));
        expect_any_end(&peer);
    }
}

/* ---- frames ------------------------------------------------------------------------------------
 */

static void attack_frames(struct siege *siege)
{
#define CHANGE(field, value)                                 \
    {                                                        \
        offsetof(struct rsi_frame_header, field), (value),   \
            sizeof(((struct rsi_frame_header *)NULL)->field) \
    }
    static const struct raw_change changes[] = {
        CHANGE(payload_bytes, 65536),
        CHANGE(payload_bytes, UINT32_MAX),
        CHANGE(payload_bytes, UINT32_MAX - RSI_FRAME_HEADER_BYTES),
        CHANGE(type, 0),
        CHANGE(type, 77),
        CHANGE(type, RSI_FRAME_ANNOUNCE),
        CHANGE(type, RSI_FRAME_GAP),
        CHANGE(headers_bytes, UINT16_MAX),
        CHANGE(publication, 0),
        CHANGE(publication, RAW_ALIAS + 1),
        CHANGE(publication, UINT32_MAX),
    };
#undef CHANGE
    for (unsigned i = 0; i < rsi_array_count(changes); i++) {
        struct raw_peer peer;
        raw_open(&peer, &siege->at, "forger", RAW_SERVING);
        (void)raw_publish_changed(&peer, 64, changes[i]);
        expect_end(&peer, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL);
    }
}

/* Commit words that speak of more bytes than can be there, of none that make a frame, of others. */
static void attack_commit_words(struct siege *siege)
{
    static const uint64_t lengths[] = {8, 32, RAW_RING_BYTES, RSI_FRAME_BYTES_MAX};
    for (unsigned i = 0; i < rsi_array_count(lengths); i++) {
        struct raw_peer peer;
        const struct raw_change change = {0, rsi_commit_word(0, lengths[i]), sizeof(uint64_t)};
        raw_open(&peer, &siege->at, "liar", RAW_SERVING);
        (void)raw_publish_changed(&peer, 64, change);
        expect_any_end(&peer);
    }
}

/* ---- positions ---------------------------------------------------------------------------------
 */

static void attack_positions(struct siege *siege)
{
    static const uint64_t consumed[] = {4, UINT64_C(1) << 40, UINT64_MAX, UINT64_MAX - 7};
    struct raw_peer peer;
    for (unsigned i = 0; i < rsi_array_count(consumed); i++) {
        raw_open(&peer, &siege->at, "ahead", RAW_SERVING);
        raw_await_delivery(&peer);
        (void)raw_tell_consumed(&peer, consumed[i], consumed[i]);
        expect_any_end(&peer);
    }
    if (is_transport("shm")) {
        return; /* a position that goes backward is no news there */
    }
    /* Backward; more control messages taken than there were. */
    raw_open(&peer, &siege->at, "to-and-fro", RAW_SERVING);
    raw_await_delivery(&peer);
    (void)raw_tell_consumed(&peer, 40, 40);
    (void)raw_tell_consumed(&peer, 0, 0);
    expect_any_end(&peer);
    raw_open(&peer, &siege->at, "overtaker", RAW_SERVING);
    peer.taken_count = 1000;
    (void)raw_tell_consumed(&peer, 0, 0);
    expect_any_end(&peer);
}

/* ---- floods ------------------------------------------------------------------------------------
 */

/* Requests as fast as the broker takes them, answers read: each is in order. */
static void attack_request_flood(struct siege *siege)
{
    struct raw_peer peer;
    uint64_t position = actor_result(&siege->reader, STREAM_RESULT_RECEIVED);
    raw_open(&peer, &siege->at, "busybody", RAW_SERVING);
    uint64_t answered_count = 0;
    for (uint64_t sent_count = 1; sent_count <= FLOOD_COUNT / 10; sent_count++) {
        (void)raw_subscribe(&peer, sent_count + 1, "hostile.*",
                            RINGSIDE__CONTROL__POLICY__POLICY_DROP);
        while (sent_count - answered_count >= 16) {
            Ringside__Control__Control *message = raw_receive(&peer);
            check(message != NULL, "the broker ended a link whose requests were in order");
            rsi_control_free(message);
            answered_count++;
        }
        if (!peer.is_shm) {
            (void)raw_tell_consumed(&peer, 0, 0); /* so many answers were taken */
        }
    }
    expect_traffic(siege, position);
    raw_close(&peer);
}

/* Control messages without end and without a look at answers or credit. */
static void attack_control_flood(struct siege *siege)
{
    for (unsigned stage = RAW_GREETED; stage < RAW_STAGE_COUNT; stage++) {
        struct raw_peer peer;
        uint8_t packet[RSI_RECORD_HEADER_BYTES + 3] = {0};
        /* An empty Unsubscribe: refused, and answered. */
        const uint8_t piece[] = {0, RINGSIDE__CONTROL__CONTROL__BODY_UNSUBSCRIBE << 3 | 2, 0};
        const struct rsi_record_header header = {.kind = RSI_RECORD_CONTROL,
                                                 .bytes = sizeof(piece)};
        uint64_t position = actor_result(&siege->reader, STREAM_RESULT_RECEIVED);
        memcpy(packet, &header, sizeof(header));
        memcpy(packet + sizeof(header), piece, sizeof(piece));
        raw_open(&peer, &siege->at, "flooder", (enum raw_stage)stage);
        for (unsigned i = 0; i < FLOOD_COUNT; i++) {
            if (raw_try_send(&peer, packet, sizeof(packet)) != RSI_OK) {
                break; /* the socket is full, or the link is ended */
            }
        }
        expect_traffic(siege, position);
        raw_close(&peer);
    }
}

/* Greetings of hundreds of peers at a time, each with a Hello at once. */
static void attack_hello_flood(struct siege *siege)
{
    uint64_t position = actor_result(&siege->reader, STREAM_RESULT_RECEIVED);
    for (unsigned i = 0; i < 300; i++) {
        struct raw_peer peer;
        struct rsi_greeting greeting;
        raw_open(&peer, &siege->at, "crier", RAW_CONNECTED);
        raw_make_greeting(&peer, &greeting);
        (void)raw_record(&peer, RSI_RECORD_GREETING, 0, sizeof(greeting), &greeting,
                         sizeof(greeting));
        (void)raw_say_hello(&peer);
        (void)raw_say_hello(&peer);
        raw_close(&peer);
    }
    expect_traffic(siege, position);
}

/* Subscribes to everything and reads nothing: neither its ring nor its socket. */
static void attack_deafness(struct siege *siege)
{
    static const Ringside__Control__Policy policies[] = {
        RINGSIDE__CONTROL__POLICY__POLICY_DROP, RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT};
    for (unsigned i = 0; i < rsi_array_count(policies); i++) {
        struct raw_peer peer;
        raw_open(&peer, &siege->at, "deaf", RAW_SERVING);
        (void)raw_subscribe(&peer, 2, ">", policies[i]);
        let_pass(siege, 8000); /* more than its ring and half the log hold */
        if (policies[i] == RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT && !peer.is_shm) {
            expect_any_end(&peer);
        } else {
            raw_close(&peer);
        }
    }
}

/* The same under block: it holds the bystanders back, for as long as block_timeout allows. */
static void attack_blocking(struct siege *siege)
{
    struct raw_peer peer;
    raw_open(&peer, &siege->at, "blocker", RAW_SERVING);
    (void)raw_subscribe(&peer, 2, ">", RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    expect_end(&peer, RINGSIDE__CONTROL__REASON__REASON_SLOW);
}

/* ---- shared memory -----------------------------------------------------------------------------
 */

struct rewriting {
    uint8_t *ring;
    uint64_t random;
    _Atomic uint32_t must_end;
    _Atomic uint64_t published_count;
};

/* Lies about the frames around the newest one, a moment each, then says again what is true. */
static void *rewrite(void *arg)
{
    struct rewriting *rewriting = arg;
    while (rsi_load_relaxed(&rewriting->must_end) == 0) {
        uint64_t number = rsi_load_relaxed(&rewriting->published_count);
        number += random_next(&rewriting->random) % 8;
        number -= number < 4 ? number : 4;
        uint64_t word = random_next(&rewriting->random) % (RSI_FRAME_HEADER_BYTES / 8);
        _Atomic uint64_t *at =
            rsi_atomic_u64_at(rewriting->ring + number * REWRITTEN_FRAME_BYTES + word * 8);
        uint64_t truth = rsi_load_relaxed(at);
        rsi_store_relaxed(at, random_next(&rewriting->random));
        rsi_store_relaxed(at, truth);
    }
    return NULL;
}

static void attack_rewriting(struct siege *siege)
{
    unsigned caught_count = 0;
    for (unsigned round = 0; round < 20; round++) {
        struct raw_peer peer;
        pthread_t thread;
        raw_open(&peer, &siege->at, "rewriter", RAW_SERVING);
        struct rewriting rewriting = {.ring = peer.out, .random = random_next(&siege->random)};
        check(pthread_create(&thread, NULL, rewrite, &rewriting) == 0, "no thread");
        for (unsigned i = 0; i < REWRITTEN_FRAME_COUNT && !raw_look(&peer); i++) {
            (void)raw_publish(&peer, REWRITTEN_FRAME_BYTES - RSI_FRAME_HEADER_BYTES);
            rsi_store_relaxed(&rewriting.published_count, i + 1);
        }
        let_pass(siege, 10);
        rsi_store_relaxed(&rewriting.must_end, 1u);
        pthread_join(thread, NULL);
        caught_count += raw_look(&peer);
        raw_close(&peer);
    }
    siege->caught_count = caught_count;
}

/* Cuts, stretches and holes, then scribbles over all that it was given. */
static void attack_memory_files(struct siege *siege)
{
    struct raw_peer peer;
    raw_open(&peer, &siege->at, "saboteur", RAW_SERVING);
    const int fds[] = {peer.words_fd, peer.out_fd, peer.in_fd};
    for (unsigned i = 0; i < rsi_array_count(fds); i++) {
        check(ftruncate(fds[i], 0) != 0, "a memory file can be cut");
        check(ftruncate(fds[i], 1 << 24) != 0, "a memory file can be stretched");
        check(fallocate(fds[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 20) == 0,
              "fallocate: %s", strerror(errno));
    }
    (void)raw_publish(&peer, 64);
    let_pass(siege, 10);
    fill_randomly(siege, peer.out, RAW_RING_BYTES);
    fill_randomly(siege, peer.in, RAW_RING_BYTES);
    fill_randomly(siege, (uint8_t *)peer.words, 2 * (size_t)RSI_WORDS_BYTES);
    raw_ring_bell(&peer);
    let_pass(siege, 10);
    raw_close(&peer);
}

/* Hands over descriptors that nobody asked for: a full eventfd, in which a write would block. */
static void attack_descriptors(struct siege *siege)
{
    int full_fd = eventfd(0, EFD_CLOEXEC);
    const uint64_t full = UINT64_MAX - 1;
    check(full_fd >= 0 && write(full_fd, &full, sizeof(full)) == sizeof(full), "eventfd: %s",
          strerror(errno));
    for (unsigned stage = RAW_CONNECTED; stage < RAW_STAGE_COUNT; stage++) {
        struct raw_peer peer;
        raw_open(&peer, &siege->at, "donor", (enum raw_stage)stage);
        for (unsigned i = 0; i < 50 && !raw_look(&peer); i++) {
            raw_send_descriptors(&peer, full_fd, 1 + i % 8);
        }
        let_pass(siege, 1);
        raw_close(&peer);
    }
    close(full_fd);
}

/* Asks to be woken at once, always anew, and never looks. */
static void attack_sleep_requests(struct siege *siege)
{
    struct raw_peer peer;
    raw_open(&peer, &siege->at, "insomniac", RAW_SERVING);
    uint64_t generation = 0;
    uint64_t position = actor_result(&siege->reader, STREAM_RESULT_RECEIVED);
    uint64_t until_ns = now_ns() + SLEEP_REQUESTS_MS * UINT64_C(1000000);
    while (now_ns() < until_ns) {
        rsi_store_relaxed(rsi_atomic_u64_at(&peer.words[1].wake_arrived_at_least), UINT64_C(0));
        rsi_store_release(rsi_atomic_u64_at(&peer.words[1].wake_generation), ++generation);
        raw_ring_bell(&peer);
    }
    expect_traffic(siege, position);
    raw_close(&peer);
}

/* ---- the test ----------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    const char *transports; /* NULL: all */
    void (*run)(struct siege *siege);
} attacks[] = {
    {"garbage at every stage", NULL, attack_garbage},
    {"garbage on the control lane", NULL, attack_control_garbage},
    {"a message without end", NULL, attack_endless_message},
    {"messages out of turn", NULL, attack_out_of_turn},
    {"a wrong version", NULL, attack_wrong_version},
    {"proofs guessed, replayed and doubled", NULL, attack_proofs},
    {"stopping half-way", NULL, attack_slow_loris},
    {"a crowd that says nothing", NULL, attack_crowd},
    {"comings and goings", NULL, attack_comings_and_goings},
    {"huge records", NULL, attack_huge_records},
    {"unknown records", NULL, attack_unknown_records},
    {"batches where none can be", "tcp", attack_batches},
    {"forged frames", NULL, attack_frames},
    {"commit words", NULL, attack_commit_words},
    {"positions", NULL, attack_positions},
    {"a flood of requests", NULL, attack_request_flood},
    {"a flood of control messages", NULL, attack_control_flood},
    {"a flood of hellos", NULL, attack_hello_flood},
    {"deafness", NULL, attack_deafness},
    {"deafness under block", NULL, attack_blocking},
    {"frames rewritten while they are checked", "shm", attack_rewriting},
    {"memory files", "shm", attack_memory_files},
    {"descriptors", "shm", attack_descriptors},
    {"sleep requests", "shm", attack_sleep_requests},
};

static void begin_siege(struct siege *siege)
{
    static struct stream_writing writing = {.prefix = "fault.steady",
                                            .stream_count = 2,
                                            .bytes_max = 256,
                                            .burst = 16,
                                            .rest_ns = 1000000};
    static struct stream_reading reading = {
        .subject = "fault.>", .policy = RINGSIDE_POLICY_BLOCK, .counted = "writer"};
    char path[PATH_BYTES];
    char token[PATH_BYTES + 32];
    write_file(test_path(path, "secret"), SECRET "\n");
    check(chmod(path, 0600) == 0, "chmod: %s", strerror(errno));
    snprintf(token, sizeof(token), "--tokens=siege=%s", path);
    const char *const flags[] = {"--log-bytes=1MiB",
                                 "--message-bytes-max=64KiB",
                                 "--publication-count-max=64",
                                 "--publisher-count-max=64",
                                 "--topic-count-max=64",
                                 "--subscription-count-max=64",
                                 "--unauthenticated-count-max=16",
                                 "--authenticate-timeout=1s",
                                 "--block-timeout=2s",
                                 token,
                                 NULL};
    setenv("RINGSIDE_TOKEN_NAME", "siege", 1);
    setenv("RINGSIDE_TOKEN", SECRET, 1);
    broker_start(&siege->broker, flags);
    siege->at =
        (struct raw_broker){.broker = &siege->broker, .token_name = "siege", .secret = SECRET};
    siege->random = options.seed;
    actor_start(&siege->reader, "reader", &siege->broker, stream_read_actor, &reading);
    actor_await_step(&siege->reader, STREAM_READY);
    actor_start(&siege->writer, "writer", &siege->broker, stream_write_actor, &writing);
    actor_await_step(&siege->writer, STREAM_READY);
}

static void end_siege(struct siege *siege)
{
    uint64_t written_count = stream_stop_writer(&siege->writer);
    stream_await_reader(&siege->reader, written_count);
    check(actor_result(&siege->reader, STREAM_RESULT_GAPS) == 0, "the bystander has gaps");
    tell("the bystanders: %" PRIu64 " messages, each once, in order", written_count);
    stream_leave(&siege->writer);
    stream_leave(&siege->reader);
    check(broker_stop(&siege->broker) == 0, "the broker did not stop cleanly");
}

/* What the bystanders alone need. */
static void await_quiet(const struct siege *siege)
{
    static const struct {
        const char *name;
        uint64_t level;
    } levels[] = {{"broker.unauthenticated", 0},
                  {"broker.sessions", 2},
                  {"broker.publications", 2},
                  {"broker.topics", 2}};
    for (unsigned i = 0; i < rsi_array_count(levels); i++) {
        await(broker_counter(&siege->broker, levels[i].name, NULL) == levels[i].level,
              "%s stays at %" PRIu64 ", wanted %" PRIu64, levels[i].name,
              broker_counter(&siege->broker, levels[i].name, NULL), levels[i].level);
    }
}

/* What the broker holds when the last link that an attack left behind is gone for good. */
static void take_settled(struct siege *siege, struct resources *resources)
{
    struct resources earlier;
    uint64_t until_ns = now_ns() + hang_ns();
    await_quiet(siege);
    resources_take(resources, &siege->broker);
    do {
        check(now_ns() < until_ns, "what the broker holds does not settle");
        earlier = *resources;
        let_pass(siege, 5000);
        resources_take(resources, &siege->broker);
    } while (earlier.fd_count != resources->fd_count || earlier.map_count != resources->map_count ||
             earlier.record_count != resources->record_count);
}

static void attack_with_all(struct siege *siege, bool is_told)
{
    for (unsigned i = 0; i < rsi_array_count(attacks); i++) {
        if (attacks[i].transports != NULL &&
            strstr(attacks[i].transports, options.transport) == NULL) {
            continue;
        }
        uint64_t start_ns = now_ns();
        uint64_t position = actor_result(&siege->reader, STREAM_RESULT_RECEIVED);
        attacks[i].run(siege);
        expect_traffic(siege, position);
        check(!program_has_ended(&siege->broker.program), "%s ended the broker", attacks[i].name);
        if (is_told || now_ns() - start_ns > 5 * SECOND_NS) {
            tell("%s: %.0f ms", attacks[i].name, (double)(now_ns() - start_ns) / 1e6);
        }
    }
    await_quiet(siege);
}

static void test_attacks(void)
{
    static struct siege siege;
    struct resources before;
    struct resources after;
    begin_siege(&siege);
    attack_with_all(&siege, true);
    attack_with_all(&siege, false);
    take_settled(&siege, &before);
    resources_tell(&before, "before");
    uint64_t count = options.count != 0 ? options.count : 1;
    for (uint64_t round = 0; round < count; round++) {
        attack_with_all(&siege, false);
    }
    resources_await(&after, &siege.broker, &before, HEAP_GROWTH_BYTES);
    resources_tell(&after, "after");
    if (is_transport("shm")) {
        tell("%u of 20 peers were caught rewriting their frames", siege.caught_count);
    }
    end_siege(&siege);
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"attacks", test_attacks, "tcp shm"},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
