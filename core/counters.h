#ifndef RSI_CORE_COUNTERS_H
#define RSI_CORE_COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/assert.h"
#include "core/atomics.h"
#include "core/error.h"

/*
 * Counters in a file of shared memory: the owner counts, any tool maps the file read-only and
 * looks, and looking never disturbs the owner.
 *
 *   +--------------------+----------+----------+----- - - -
 *   | header, 256 bytes  | record 0 | record 1 | ...          records of 384 bytes
 *   +--------------------+----------+----------+----- - - -
 *
 * A record has one writer: who allocated it, or the thread it was handed to. Its value stands alone
 * in its line pair, so that two writers never share one.
 */
#define RSI_COUNTERS_MAGIC   UINT64_C(0x31544e4344495352) /* "RSIDCNT1" in memory */
#define RSI_COUNTERS_VERSION UINT32_C(1)

enum {
    RSI_COUNTER_NAME_BYTES = 64,
    RSI_COUNTER_LABEL_BYTES = 64,
    RSI_COUNTER_TEXT_BYTES = 120,
    RSI_COUNTERS_COUNT_MAX = 1 << 20,
};

typedef enum rsi_counter_kind {
    RSI_COUNTER_KIND_NONE = 0,
    RSI_COUNTER_KIND_COUNTER = 1, /* only grows while the record lives */
    RSI_COUNTER_KIND_GAUGE = 2,   /* a level; read it as int64_t */
    RSI_COUNTER_KIND_TEXT = 3,    /* a line for people; the value counts its changes */
} rsi_counter_kind_t;

struct rsi_counters_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;
    uint32_t record_bytes;
    uint32_t record_count;
    int64_t owner_pid;
    uint64_t start_realtime_ns;
    char boot_id[40];
    /* How many records from the start may be in use; grows only. Written by the owner. */
    _Atomic uint32_t used_count;
    uint8_t reserved[172];
};

/*
 * name, label and text change only while `sequence` is odd; they are words so that reading them at
 * the same time is no data race. Readers copy, then check that `sequence` is what it was.
 */
struct rsi_counter {
    _Atomic uint64_t value;
    uint8_t value_line[120];
    _Atomic uint32_t sequence;
    _Atomic uint32_t kind; /* rsi_counter_kind_t; NONE: the record is free */
    _Atomic uint64_t name[RSI_COUNTER_NAME_BYTES / 8];
    _Atomic uint64_t label[RSI_COUNTER_LABEL_BYTES / 8];
    _Atomic uint64_t text[RSI_COUNTER_TEXT_BYTES / 8];
};

rsi_static_assert(sizeof(struct rsi_counters_header) == 256);
rsi_static_assert(offsetof(struct rsi_counters_header, version) == 8);
rsi_static_assert(offsetof(struct rsi_counters_header, header_bytes) == 12);
rsi_static_assert(offsetof(struct rsi_counters_header, record_bytes) == 16);
rsi_static_assert(offsetof(struct rsi_counters_header, record_count) == 20);
rsi_static_assert(offsetof(struct rsi_counters_header, owner_pid) == 24);
rsi_static_assert(offsetof(struct rsi_counters_header, start_realtime_ns) == 32);
rsi_static_assert(offsetof(struct rsi_counters_header, boot_id) == 40);
rsi_static_assert(offsetof(struct rsi_counters_header, used_count) == 80);
rsi_static_assert(sizeof(struct rsi_counter) == 384);
rsi_static_assert(offsetof(struct rsi_counter, sequence) == 128);
rsi_static_assert(offsetof(struct rsi_counter, kind) == 132);
rsi_static_assert(offsetof(struct rsi_counter, name) == 136);
rsi_static_assert(offsetof(struct rsi_counter, label) == 200);
rsi_static_assert(offsetof(struct rsi_counter, text) == 264);

/* The owner's side. */
struct rsi_counters;

/*
 * Makes the file at `path` (replacing one whose owner is gone) with room for `record_count`
 * records, or anonymous memory when `path` is NULL. The file appears whole or not at all. Control
 * plane. Errors: INVALID, EXISTS (a living process owns that path), NOT_FOUND (no such directory),
 * PERMISSION, NO_MEMORY (also: the file system is full), SYSTEM.
 */
rsi_status_t rsi_counters_create(struct rsi_counters **counters, const char *path,
                                 uint32_t record_count, struct rsi_error *error) RSI_MUST_CHECK;

/* Removes the file. Takes NULL. No record may be in use any more by any thread. */
void rsi_counters_destroy(struct rsi_counters *counters);

/* The path, or NULL when anonymous; borrowed. */
const char *rsi_counters_path(const struct rsi_counters *counters);

/*
 * Takes a free record. Any control-plane thread (takes a lock). `label` tells records of one name
 * apart (a client's name); may be "". The pair should be unique among the living ones. What is
 * longer than the field is cut off. Errors: INVALID (no name), LIMIT (all in use: the text says how
 * many).
 */
rsi_status_t rsi_counters_allocate(struct rsi_counters *counters, rsi_counter_kind_t kind,
                                   const char *name, const char *label,
                                   struct rsi_counter **counter,
                                   struct rsi_error *error) RSI_MUST_CHECK;

/* Gives a record back; its writer must have stopped. Any control-plane thread. Takes NULL. */
void rsi_counters_free(struct rsi_counters *counters, struct rsi_counter *counter);

/* The record's writer only. Hot path. */
static inline void rsi_counter_add(struct rsi_counter *counter, uint64_t amount)
{
    rsi_bump_relaxed(&counter->value, amount);
}

static inline void rsi_counter_set(struct rsi_counter *counter, uint64_t value)
{
    rsi_store_relaxed(&counter->value, value);
}

/* Any thread. */
static inline uint64_t rsi_counter_get(const struct rsi_counter *counter)
{
    return rsi_load_relaxed(&counter->value);
}

/* Replaces the text of a TEXT record (cut at the field's size). The record's writer only. */
void rsi_counter_set_text(struct rsi_counter *counter, const char *format, ...) RSI_PRINTF(2, 3);

/* A tool's side: read-only, tolerant of a file that changes under it. */
struct rsi_counters_reader;

/* One record as it was at one moment. */
struct rsi_counter_view {
    uint32_t index;
    rsi_counter_kind_t kind;
    uint64_t value; /* a GAUGE is an int64_t */
    char name[RSI_COUNTER_NAME_BYTES];
    char label[RSI_COUNTER_LABEL_BYTES];
    char text[RSI_COUNTER_TEXT_BYTES];
};

/*
 * Maps the file of another process. Errors: NOT_FOUND, PERMISSION, INVALID (not such a file, or cut
 * short), VERSION, NO_MEMORY, SYSTEM.
 */
rsi_status_t rsi_counters_open(struct rsi_counters_reader **reader, const char *path,
                               struct rsi_error *error) RSI_MUST_CHECK;

/* Takes NULL. */
void rsi_counters_close(struct rsi_counters_reader *reader);

/*
 * The next record in use from *cursor on (start at 0); false at the end. A record that is being
 * changed just now is passed over.
 */
bool rsi_counters_next(struct rsi_counters_reader *reader, uint32_t *cursor,
                       struct rsi_counter_view *view);

/* Finds a record by name and label; `label` NULL means any. False when there is none. */
bool rsi_counters_find(struct rsi_counters_reader *reader, const char *name, const char *label,
                       struct rsi_counter_view *view);

/* Whether the process that made the file still owns it. */
bool rsi_counters_owner_is_alive(const struct rsi_counters_reader *reader);

/* The header as mapped; borrowed until close. */
const struct rsi_counters_header *rsi_counters_header(const struct rsi_counters_reader *reader);

#endif
