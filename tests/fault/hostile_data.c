/*
 * Attacks of peers that have a session, and some that have none yet: records, batches, frames and
 * positions that cannot be, and floods of what can.
 */
#include "tests/fault/hostile.h"

enum { FLOOD_COUNT = 20000 };

/* ---- records -----------------------------------------------------------------------------------
 */

void attack_huge_records(struct siege *siege)
{
    static const uint32_t sizes[] = {RSI_CONTROL_BYTES_MAX + 1, 65536, 0x7fffffff, 0xffffffff};
    uint8_t body[RSI_CONTROL_BYTES_MAX] = {0};
    for (unsigned stage = raw_first_held_stage(); stage < RAW_STAGE_COUNT; stage++) {
        for (unsigned i = 0; i < rsi_array_count(sizes); i++) {
            struct raw_peer peer;
            uint8_t kind = stage == RAW_CONNECTED ? RSI_RECORD_GREETING : RSI_RECORD_CONTROL;
            raw_open(&peer, &siege->at, "boaster", (enum raw_stage)stage);
            (void)raw_record(&peer, kind, 0, sizes[i], body, sizeof(body));
            expect_any_end(&peer);
        }
    }
}

void attack_unknown_records(struct siege *siege)
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
void attack_batches(struct siege *siege)
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

void attack_frames(struct siege *siege)
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
        /* As long as it says, with 16 and 64 bytes of headers that are none. */
        {offsetof(struct rsi_frame_header, payload_bytes),
         48 | (uint64_t)RSI_FRAME_MESSAGE << 32 | UINT64_C(16) << 48, sizeof(uint64_t)},
        {offsetof(struct rsi_frame_header, payload_bytes),
         (uint64_t)RSI_FRAME_MESSAGE << 32 | UINT64_C(64) << 48, sizeof(uint64_t)},
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
void attack_commit_words(struct siege *siege)
{
    static const uint64_t lengths[] = {8, 32, RAW_RING_BYTES, RSI_FRAME_BYTES_MAX};
    for (unsigned i = 0; i < rsi_array_count(lengths); i++) {
        struct raw_peer peer;
        const struct raw_change change = {0, rsi_commit_word(0, lengths[i]), sizeof(uint64_t)};
        raw_open(&peer, &siege->at, "liar", RAW_SERVING);
        (void)raw_publish_changed(&peer, 64, change);
        if (peer.link != NULL && lengths[i] == RAW_RING_BYTES) {
            raw_close(&peer); /* there the rest of a frame may be on its way */
        } else {
            expect_any_end(&peer);
        }
    }
}

/* ---- positions ---------------------------------------------------------------------------------
 */

void attack_positions(struct siege *siege)
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
void attack_request_flood(struct siege *siege)
{
    struct raw_peer peer;
    uint64_t position = siege_position(siege);
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
    siege_expect_traffic(siege, position);
    raw_close(&peer);
}

/* Control messages without end and without a look at answers or credit. */
void attack_control_flood(struct siege *siege)
{
    for (unsigned stage = RAW_GREETED; stage < RAW_STAGE_COUNT; stage++) {
        struct raw_peer peer;
        /* An empty Unsubscribe: refused, and answered. */
        const uint8_t piece[] = {0, RINGSIDE__CONTROL__CONTROL__BODY_UNSUBSCRIBE << 3 | 2, 0};
        uint64_t position = siege_position(siege);
        raw_open(&peer, &siege->at, "flooder", (enum raw_stage)stage);
        for (unsigned i = 0; i < FLOOD_COUNT; i++) {
            if (!raw_try_control(&peer, piece, sizeof(piece))) {
                break; /* the socket is full, or the link is ended */
            }
        }
        siege_expect_traffic(siege, position);
        raw_close(&peer);
    }
}

/* Greetings of hundreds of peers at a time, each with a Hello at once. */
void attack_hello_flood(struct siege *siege)
{
    uint64_t position = siege_position(siege);
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
    siege_expect_traffic(siege, position);
}

/* Subscribes to everything and reads nothing: neither its ring nor its socket. */
void attack_deafness(struct siege *siege)
{
    static const Ringside__Control__Policy policies[] = {
        RINGSIDE__CONTROL__POLICY__POLICY_DROP, RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT};
    for (unsigned i = 0; i < rsi_array_count(policies); i++) {
        struct raw_peer peer;
        raw_open(&peer, &siege->at, "deaf", RAW_SERVING);
        (void)raw_subscribe(&peer, 2, ">", policies[i]);
        siege_let_pass(siege, 8000); /* more than its ring and half the log hold */
        if (policies[i] == RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT && !peer.is_shm) {
            expect_any_end(&peer);
        } else {
            raw_close(&peer);
        }
    }
}

/* The same under block: it holds the bystanders back, for as long as block_timeout allows. */
void attack_blocking(struct siege *siege)
{
    struct raw_peer peer;
    raw_open(&peer, &siege->at, "blocker", RAW_SERVING);
    (void)raw_subscribe(&peer, 2, ">", RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    expect_end(&peer, RINGSIDE__CONTROL__REASON__REASON_SLOW);
}
