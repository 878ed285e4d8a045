/*
 * What two processes must agree on byte by byte.
 *
 * Design notes
 * - This header is the truth; LAYOUT.md draws it and layout_test.c holds the drawing against it.
 * - Every field has a fixed width, explicit padding and an asserted offset. Byte order: little
 * endian. A big-endian host is refused at compile time; no supported device is big endian.
 * - A version changes when a reader of the old layout would misread the new one. Reserved fields
 * are written as zero and ignored on reading, so they can gain a meaning without a new version.
 * - "Writer" and "reader" name the two sides of one direction of a link: the writer places frames
 * in the ring, the reader consumes them. Each word is written by exactly one side.
 */
#ifndef RSI_PROTO_LAYOUT_H
#define RSI_PROTO_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Ringside's layout is little endian"
#endif

/* ---- limits ---------------------------------------------------------------------------------- */

#define RSI_WIRE_MAGIC       0x45444953474e4952ull /* "RINGSIDE" in memory */
#define RSI_WIRE_VERSION_MIN 1u
#define RSI_WIRE_VERSION_MAX 1u

#define RSI_FRAME_ALIGN_BYTES     8u
#define RSI_CONTROL_BYTES_MAX     512u     /* one message on the control lane */
#define RSI_SUBJECT_BYTES_MAX     255u     /* without a terminating zero */
#define RSI_NAME_BYTES_MAX        63u      /* client and broker names */
#define RSI_RING_BYTES_MIN        65536ull /* smallest ring of either direction */
#define RSI_RING_BYTES_MAX        (1ull << 30)
#define RSI_RING_BYTES_DEFAULT    (2ull << 20)
#define RSI_MESSAGE_BYTES_DEFAULT (512u << 10)
#define RSI_RING_PER_MESSAGE      4u /* a ring holds at least this many largest messages */

/*
 * The writer never fills a ring to its last byte: it keeps this many bytes free, so that the word
 * after the last placed frame can be zeroed before that frame becomes visible (shm).
 */
#define RSI_RING_GUARD_BYTES 64u

/* ---- frame ----------------------------------------------------------------------------------- */

/*
 * The commit word is the first word of every frame: the frame's position and its length, each in
 * units of 8 bytes. One load tells a reader that the frame is there, that it is of this lap (an old
 * lap holds another position), and where the next one begins. Zero is never a commit word, because
 * no frame is empty.
 *
 * 40 bits of position come round after 8 TiB, a ring is at most 1 GiB: no stale word can look new.
 * Stale payload could; so the writer zeroes the word after the last frame it places, before it
 * releases the first word of the batch.
 */
#define RSI_COMMIT_LENGTH_BITS   24
#define RSI_COMMIT_LENGTH_MASK   ((1ull << RSI_COMMIT_LENGTH_BITS) - 1)
#define RSI_COMMIT_POSITION_MASK ((1ull << (64 - RSI_COMMIT_LENGTH_BITS)) - 1)

static inline uint64_t rsi_commit_word(uint64_t position, uint64_t frame_bytes)
{
    return ((position >> 3) & RSI_COMMIT_POSITION_MASK) << RSI_COMMIT_LENGTH_BITS |
           ((frame_bytes >> 3) & RSI_COMMIT_LENGTH_MASK);
}

/* The length of the frame that `word` commits at `position`; 0: no frame of this lap is there. */
static inline uint64_t rsi_commit_frame_bytes(uint64_t word, uint64_t position)
{
    if (word >> RSI_COMMIT_LENGTH_BITS != ((position >> 3) & RSI_COMMIT_POSITION_MASK)) {
        return 0;
    }
    return (word & RSI_COMMIT_LENGTH_MASK) << 3;
}

enum rsi_frame_type {
    RSI_FRAME_MESSAGE = 1,  /* headers (proto/headers.h), then payload */
    RSI_FRAME_ANNOUNCE = 2, /* broker -> subscriber: struct rsi_announce */
    RSI_FRAME_GAP = 3,      /* broker -> subscriber: struct rsi_gap */
    RSI_FRAME_REQUEST = 4,  /* a message whose publisher awaits a reply; its first entry: who */
    RSI_FRAME_REPLY = 5,    /* of no publication; its entry: to whom; sequence: rsi_reply_status */
    RSI_FRAME_SNAPSHOT = 6, /* broker -> subscriber: struct rsi_snapshot_mark */
    RSI_FRAME_LAST = 7, /* broker -> subscriber: a message that is the last value of its topic */
};

enum rsi_frame_flag {
    /* Broker -> subscriber: what lies between this message and the one before it was not for this
     * session, or it is told by a gap record: nothing can be counted by subtraction. */
    RSI_FRAME_FLAG_SPARSE = 1,
    /* Home agent: one session alone gets this request; if it is lost nobody else answers. */
    RSI_FRAME_FLAG_SOLE = 2,
};

/* How a request ended, as its requester is told. A replier can say OK only. */
enum rsi_reply_status {
    RSI_REPLY_OK = 0,
    RSI_REPLY_NO_RESPONDERS = 1, /* nobody subscribes to its subject */
    RSI_REPLY_LOST = 2,          /* the only session that had it is gone, or could not take it */
};

/*
 * Client to broker, `publication` is the alias the client chose at publisher_create, `sequence` is
 * zero. The home agent writes the broker-wide publication id and the sequence when it admits the
 * frame into its log; both are final from there on.
 */
struct rsi_frame_header {
    uint64_t commit;          /* rsi_commit_word(); written last, alone for the first of a batch */
    uint32_t payload_bytes;   /* without headers and padding */
    uint8_t type;             /* enum rsi_frame_type */
    uint8_t flags;            /* enum rsi_frame_flag */
    uint16_t headers_bytes;   /* headers before the payload, padded to 8: proto/headers.h */
    uint32_t publication;     /* who publishes on which topic */
    uint16_t generation;      /* of the batch, for arrival by polled memory; zero for now */
    uint16_t entry_count;     /* of struct rsi_frame_entry, behind payload and padding */
    uint64_t sequence;        /* per publication, from 1, stamped at admission */
    uint64_t publish_time_ns; /* publisher's realtime clock at commit */
};

#define RSI_FRAME_HEADER_BYTES 40u
#define RSI_FRAME_BYTES_MAX    (RSI_COMMIT_LENGTH_MASK << 3)

_Static_assert(sizeof(struct rsi_frame_header) == RSI_FRAME_HEADER_BYTES, "frame header size");
_Static_assert(offsetof(struct rsi_frame_header, commit) == 0, "commit");
_Static_assert(offsetof(struct rsi_frame_header, payload_bytes) == 8, "payload_bytes");
_Static_assert(offsetof(struct rsi_frame_header, type) == 12, "type");
_Static_assert(offsetof(struct rsi_frame_header, flags) == 13, "flags");
_Static_assert(offsetof(struct rsi_frame_header, headers_bytes) == 14, "headers_bytes");
_Static_assert(offsetof(struct rsi_frame_header, publication) == 16, "publication");
_Static_assert(offsetof(struct rsi_frame_header, generation) == 20, "generation");
_Static_assert(offsetof(struct rsi_frame_header, entry_count) == 22, "entry_count");
_Static_assert(offsetof(struct rsi_frame_header, sequence) == 24, "sequence");
_Static_assert(offsetof(struct rsi_frame_header, publish_time_ns) == 32, "publish_time_ns");

/* The bytes a frame without entries takes in a ring or log. */
static inline uint64_t rsi_frame_bytes(uint64_t headers_bytes, uint64_t payload_bytes)
{
    return (RSI_FRAME_HEADER_BYTES + headers_bytes + payload_bytes + 7) & ~7ull;
}

/* Each header of a message: name, a zero byte and value follow. Padding comes after the last. */
struct rsi_headers_entry {
    uint16_t name_bytes;  /* from 1; without the zero */
    uint16_t value_bytes; /* of any bytes */
};

_Static_assert(sizeof(struct rsi_headers_entry) == 4, "headers entry size");
_Static_assert(offsetof(struct rsi_headers_entry, name_bytes) == 0, "name_bytes");
_Static_assert(offsetof(struct rsi_headers_entry, value_bytes) == 2, "value_bytes");

#define RSI_HEADER_NAME_BYTES_MAX 255u
#define RSI_HEADERS_BYTES_MAX     65528u /* of a message's headers: what headers_bytes can hold */
/*
 * Behind the payload of a message: whom the home agent of its publisher chose, one member for each
 * queue group on its topic. Before these, of a request, and alone, of a reply: the requester.
 */
struct rsi_frame_entry {
    uint64_t session;
    uint64_t number; /* the session's own: of the subscription that was chosen, of the request */
};

#define RSI_FRAME_ENTRY_BYTES 16u
_Static_assert(sizeof(struct rsi_frame_entry) == RSI_FRAME_ENTRY_BYTES, "frame entry size");
_Static_assert(offsetof(struct rsi_frame_entry, session) == 0, "session");
_Static_assert(offsetof(struct rsi_frame_entry, number) == 8, "number");

/* Where its entries begin, from its start; and all of its bytes. */
static inline uint64_t rsi_frame_entries_at(const struct rsi_frame_header *header)
{
    return rsi_frame_bytes(header->headers_bytes, header->payload_bytes);
}

static inline uint64_t rsi_frame_all_bytes(const struct rsi_frame_header *header)
{
    return rsi_frame_entries_at(header) + (uint64_t)header->entry_count * RSI_FRAME_ENTRY_BYTES;
}

/* Payload of RSI_FRAME_ANNOUNCE: precedes the first frame of a publication on each link. */
struct rsi_announce {
    uint32_t publication;
    uint32_t topic;
    uint64_t publisher_session;
    uint64_t next_sequence; /* the sequence of the first frame that this link is owed */
    uint16_t subject_bytes; /* the subject follows the struct */
    uint16_t name_bytes;    /* the publisher's client name follows the subject */
    uint32_t reserved;
};

_Static_assert(sizeof(struct rsi_announce) == 32, "announce size");
_Static_assert(offsetof(struct rsi_announce, publication) == 0, "publication");
_Static_assert(offsetof(struct rsi_announce, topic) == 4, "topic");
_Static_assert(offsetof(struct rsi_announce, publisher_session) == 8, "publisher_session");
_Static_assert(offsetof(struct rsi_announce, next_sequence) == 16, "next_sequence");
_Static_assert(offsetof(struct rsi_announce, subject_bytes) == 24, "subject_bytes");
_Static_assert(offsetof(struct rsi_announce, name_bytes) == 26, "name_bytes");
_Static_assert(offsetof(struct rsi_announce, reserved) == 28, "reserved");

enum rsi_gap_reason {
    RSI_GAP_DROPPED = 1,   /* the subscriber lagged and its policy is drop */
    RSI_GAP_UNKNOWN = 2,   /* size not known: the broker that held the messages is gone */
    RSI_GAP_CONFLATED = 3, /* newer values of the topic take their place: policy conflate */
};

/* Payload of RSI_FRAME_GAP: what was left out just before this frame. */
struct rsi_gap {
    uint32_t reason; /* enum rsi_gap_reason */
    uint32_t entry_count;
};

/* Everything of `publication` below `next_sequence` that was not delivered yet is lost. */
struct rsi_gap_entry {
    uint32_t publication;
    uint32_t count; /* of these, those that were for this session; 0: all of them */
    uint64_t next_sequence;
};

_Static_assert(sizeof(struct rsi_gap) == 8, "gap size");
_Static_assert(offsetof(struct rsi_gap, reason) == 0, "reason");
_Static_assert(offsetof(struct rsi_gap, entry_count) == 4, "entry_count");
_Static_assert(sizeof(struct rsi_gap_entry) == 16, "gap entry size");
_Static_assert(offsetof(struct rsi_gap_entry, publication) == 0, "publication");
_Static_assert(offsetof(struct rsi_gap_entry, count) == 4, "count");
_Static_assert(offsetof(struct rsi_gap_entry, next_sequence) == 8, "next_sequence");

/* What a mark says of its subscription. */
enum rsi_snapshot_step {
    RSI_SNAPSHOT_START = 1,  /* what it is owed live begins behind this */
    RSI_SNAPSHOT_VALUES = 2, /* frames of type LAST are for it alone, until END */
    RSI_SNAPSHOT_END = 3,    /* it has all last values that there were */
};

/* Payload of RSI_FRAME_SNAPSHOT. */
struct rsi_snapshot_mark {
    uint64_t subscription; /* the client's number */
    uint32_t step;         /* enum rsi_snapshot_step */
    uint32_t reserved;
};

_Static_assert(sizeof(struct rsi_snapshot_mark) == 16, "snapshot mark size");
_Static_assert(offsetof(struct rsi_snapshot_mark, subscription) == 0, "subscription");
_Static_assert(offsetof(struct rsi_snapshot_mark, step) == 8, "step");
_Static_assert(offsetof(struct rsi_snapshot_mark, reserved) == 12, "reserved");

/* ---- greeting -------------------------------------------------------------------------------- */

/*
 * The first bytes each way on every transport: rdma_cm private data (at most 56 bytes in a request,
 * and the peer may see more than was sent), the first record on tcp, the first packet on shm.
 * It carries nothing secret and no address or key. A side that cannot serve the other's version
 * answers with its own greeting and closes, so that both can name both versions.
 */
struct rsi_greeting {
    uint64_t magic;
    uint16_t version_min;
    uint16_t version_max;
    uint16_t control_credit; /* control messages the sender of this greeting can take at once */
    uint16_t batch_credit;   /* batches it can take at once (rdma: receives posted for them) */
    uint32_t ring_bytes_max; /* largest ring it would make */
    uint32_t agent_hint;     /* untrusted: 1 + home agent of the session; 0: none */
    uint64_t nonce;          /* makes two greetings of one process differ */
    uint64_t incarnation;    /* one run of the sending process */
    uint8_t reserved[16];
};

#define RSI_GREETING_BYTES 56u
_Static_assert(sizeof(struct rsi_greeting) == RSI_GREETING_BYTES, "greeting size");
_Static_assert(offsetof(struct rsi_greeting, magic) == 0, "magic");
_Static_assert(offsetof(struct rsi_greeting, version_min) == 8, "version_min");
_Static_assert(offsetof(struct rsi_greeting, version_max) == 10, "version_max");
_Static_assert(offsetof(struct rsi_greeting, control_credit) == 12, "control_credit");
_Static_assert(offsetof(struct rsi_greeting, batch_credit) == 14, "batch_credit");
_Static_assert(offsetof(struct rsi_greeting, ring_bytes_max) == 16, "ring_bytes_max");
_Static_assert(offsetof(struct rsi_greeting, agent_hint) == 20, "agent_hint");
_Static_assert(offsetof(struct rsi_greeting, nonce) == 24, "nonce");
_Static_assert(offsetof(struct rsi_greeting, incarnation) == 32, "incarnation");
_Static_assert(offsetof(struct rsi_greeting, reserved) == 40, "reserved");

/* ---- record: one unit on a byte stream (tcp), head of a packet (shm, rdma) ------------------ */

enum rsi_record_kind {
    RSI_RECORD_GREETING = 1,     /* struct rsi_greeting */
    RSI_RECORD_BATCH = 2,        /* bytes of the ring, to be received straight into it */
    RSI_RECORD_POSITIONS = 3,    /* struct rsi_positions of the sender of this record */
    RSI_RECORD_CONTROL = 4,      /* one control message */
    RSI_RECORD_ATTACH = 5,       /* transport's own: struct rsi_attach */
    RSI_RECORD_WAKE_REQUEST = 6, /* struct rsi_wake_request */
    RSI_RECORD_WAKE = 7,         /* answer; struct rsi_positions */
    RSI_RECORD_CLOSE = 8,        /* nothing more follows from this side; may carry a text: why */
};

struct rsi_record_header {
    uint8_t kind;        /* enum rsi_record_kind */
    uint8_t flags;       /* none yet */
    uint16_t generation; /* of a batch, for a resumed link; zero for now */
    uint32_t bytes;      /* that follow this header */
    uint64_t position;   /* batch: position of its first byte; positions and wake on tcp: control
                            messages that the sender has taken so far, a running count; every record
                            on rdma: records that it has taken; else zero */
};

#define RSI_RECORD_HEADER_BYTES 16u
_Static_assert(sizeof(struct rsi_record_header) == RSI_RECORD_HEADER_BYTES, "record header size");
_Static_assert(offsetof(struct rsi_record_header, kind) == 0, "kind");
_Static_assert(offsetof(struct rsi_record_header, flags) == 1, "flags");
_Static_assert(offsetof(struct rsi_record_header, generation) == 2, "generation");
_Static_assert(offsetof(struct rsi_record_header, bytes) == 4, "bytes");
_Static_assert(offsetof(struct rsi_record_header, position) == 8, "position");

/* How far the sender of this record has come as a reader. */
struct rsi_positions {
    uint64_t arrived_pos;
    uint64_t consumed_pos;
};

_Static_assert(sizeof(struct rsi_positions) == 16, "positions size");
_Static_assert(offsetof(struct rsi_positions, arrived_pos) == 0, "arrived_pos");
_Static_assert(offsetof(struct rsi_positions, consumed_pos) == 8, "consumed_pos");

/* "Tell me when your arrived_pos or your consumed_pos has reached this"; UINT64_MAX: never mind. */
struct rsi_wake_request {
    uint64_t arrived_at_least;
    uint64_t consumed_at_least;
    uint64_t generation;
};

_Static_assert(sizeof(struct rsi_wake_request) == 24, "wake request size");
_Static_assert(offsetof(struct rsi_wake_request, arrived_at_least) == 0, "arrived_at_least");
_Static_assert(offsetof(struct rsi_wake_request, consumed_at_least) == 8, "consumed_at_least");
_Static_assert(offsetof(struct rsi_wake_request, generation) == 16, "generation");

/*
 * Sent by each side after authentication, when its memory is ready: what the peer may write.
 * Addresses and keys are of the sender of this record; zero on transports without them.
 */
struct rsi_attach {
    uint64_t in_ring_bytes; /* ring that the peer writes; 0: none */
    uint64_t in_start_pos;  /* first position it will take */
    uint64_t words_address; /* rdma: struct rsi_words of the sender, written by the peer */
    uint64_t ring_address;  /* rdma: the ring */
    uint32_t key;           /* rdma: one key over words and ring, nothing else */
    uint32_t batch_credit;  /* rdma: receives posted for batches at the start */
    uint64_t reserved;
};

_Static_assert(sizeof(struct rsi_attach) == 48, "attach size");
_Static_assert(offsetof(struct rsi_attach, in_ring_bytes) == 0, "in_ring_bytes");
_Static_assert(offsetof(struct rsi_attach, in_start_pos) == 8, "in_start_pos");
_Static_assert(offsetof(struct rsi_attach, words_address) == 16, "words_address");
_Static_assert(offsetof(struct rsi_attach, ring_address) == 24, "ring_address");
_Static_assert(offsetof(struct rsi_attach, key) == 32, "key");
_Static_assert(offsetof(struct rsi_attach, batch_credit) == 36, "batch_credit");
_Static_assert(offsetof(struct rsi_attach, reserved) == 40, "reserved");

/* ---- words page ------------------------------------------------------------------------------ */

/*
 * One page per side, words of 8 bytes, groups 128 bytes apart because two groups have two writers
 * or two moments of writing (and adjacent lines are fetched in pairs).
 *
 * rdma: the page lies in the memory of the side that reads it and the peer writes `consumed_pos`
 * and `batch_credit` with one inline WRITE of 16 bytes. shm: the side that owns the page writes it,
 * the peer reads it. The sleep group is written in the order arrived, consumed, generation
 * (release), then a seq_cst fence before the last look at the peer's positions; the peer has a
 * seq_cst fence between publishing a position and reading it.
 */
struct rsi_words {
    uint64_t consumed_pos; /* how far the page's author has consumed its in ring */
    uint64_t batch_credit; /* rdma: batches it could take since the link began, a running count */
    uint8_t reserved_0[112];
    uint64_t wake_arrived_at_least;
    uint64_t wake_consumed_at_least;
    uint64_t wake_generation; /* 0: never slept */
    uint64_t packets_sent;    /* shm: doorbell of the socket, a running count of packets sent */
    uint8_t reserved_1[96];
    uint8_t reserved_2[3840];
};

#define RSI_WORDS_BYTES 4096u
_Static_assert(sizeof(struct rsi_words) == RSI_WORDS_BYTES, "words page size");
_Static_assert(offsetof(struct rsi_words, consumed_pos) == 0, "consumed_pos");
_Static_assert(offsetof(struct rsi_words, batch_credit) == 8, "batch_credit");
_Static_assert(offsetof(struct rsi_words, wake_arrived_at_least) == 128, "wake_arrived_at_least");
_Static_assert(offsetof(struct rsi_words, wake_consumed_at_least) == 136, "wake_consumed_at_least");
_Static_assert(offsetof(struct rsi_words, wake_generation) == 144, "wake_generation");
_Static_assert(offsetof(struct rsi_words, packets_sent) == 152, "packets_sent");

/* ---- rdma immediate -------------------------------------------------------------------------- */

/* The immediate of a batch's last WRITE: the low 32 bits of its end position / 8. */
static inline uint32_t rsi_immediate(uint64_t end_pos)
{
    return (uint32_t)(end_pos >> 3);
}

/* The end position that `immediate` names, the first one at or after `from_pos`. */
static inline uint64_t rsi_immediate_end_pos(uint32_t immediate, uint64_t from_pos)
{
    uint32_t ahead = immediate - (uint32_t)(from_pos >> 3);
    return from_pos + ((uint64_t)ahead << 3);
}

#endif
