#ifndef RSI_CORE_ARENA_H
#define RSI_CORE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/*
 * A mapped memory area: where every ring, log and pool lives.
 *
 * Backed by a memfd, so that it can be mapped twice back to back (a ring), handed to another
 * process (shm), or sealed. Huge pages, NUMA node and locking are wishes: what was granted is in
 * the fields, and what was refused is said once per process in the log, with the way to have it.
 */

#define RSI_NODE_ANY (-1)

enum { RSI_ARENA_NAME_BYTES = 32 };

/* Areas from this size on may ask for huge pages. */
#define RSI_ARENA_HUGE_BYTES_MIN (UINT64_C(2) << 20)

struct rsi_arena_options {
    const char *name; /* for texts and /proc/<pid>/maps; borrowed until return */
    uint64_t bytes;   /* rounded up to pages; a mirrored area must be whole pages already */
    int node;         /* preferred NUMA node, or RSI_NODE_ANY */
    bool want_huge;   /* huge pages when bytes >= RSI_ARENA_HUGE_BYTES_MIN and there are enough;
                         never with want_seal, see arena.c */
    bool want_lock;   /* lock in memory, as far as the memlock limit allows */
    bool want_mirror; /* map the same bytes a second time right behind */
    uint64_t
        prefix_bytes; /* rounded up to pages: more of the same file, mapped once, right before */
    bool want_fd;     /* keep the descriptor (field fd), to hand it to another process */
    bool want_seal;   /* seal against shrinking and growing: for whoever gets the descriptor */
};

/* Fields are read by anyone, written by init and fini only. A zeroed arena is a valid empty one. */
struct rsi_arena {
    uint8_t *base;         /* NULL: empty */
    uint64_t bytes;        /* usable once; with a mirror base[bytes + i] is base[i] */
    uint64_t mapped_bytes; /* bytes, or twice that with a mirror */
    uint64_t prefix_bytes; /* whole pages that end at base; not part of bytes or mapped_bytes */
    uint64_t page_bytes;   /* what the mapping is made of: 4096, 2 MiB, ... */
    uint64_t locked_bytes; /* of `bytes`, how many are locked */
    int node;              /* the node that the kernel accepted as preferred, or RSI_NODE_ANY */
    int fd;                /* when owns_fd */
    bool owns_fd;
    bool is_mirrored;
    bool is_read_only;
    char name[RSI_ARENA_NAME_BYTES];
};

/*
 * Maps and zeroes an area; every page is touched, so that no fault comes later. Control plane;
 * takes as long as the kernel needs for the pages. Errors: INVALID, NO_MEMORY, NO_DESCRIPTORS,
 * SYSTEM. On failure there is nothing to free.
 */
rsi_status_t rsi_arena_init(struct rsi_arena *arena, const struct rsi_arena_options *options,
                            struct rsi_error *error) RSI_MUST_CHECK;

struct rsi_arena_fd_options {
    const char *name;  /* for texts; borrowed until return */
    uint64_t bytes;    /* what the file must have, exactly */
    bool is_read_only; /* map without the right to write */
    bool want_mirror;
};

/*
 * Maps memory that another process made, or that came back from one. The file must be a memfd of
 * exactly `bytes`, sealed against shrinking and growing: a file that its owner can truncate would
 * raise SIGBUS here. `fd` stays the caller's and may be closed after return. The contents are a
 * peer's: check before use. Errors: INVALID (not a memfd, other size, not page-sized), DENIED
 * (seals missing), NO_MEMORY, SYSTEM.
 */
rsi_status_t rsi_arena_init_fd(struct rsi_arena *arena, int fd,
                               const struct rsi_arena_fd_options *options,
                               struct rsi_error *error) RSI_MUST_CHECK;

/* Closes the descriptor of an area made with want_fd, when it was handed over; the mapping stays.
 */
void rsi_arena_close_fd(struct rsi_arena *arena);

/* Unmaps and closes. Takes a zeroed arena; leaves it empty. */
void rsi_arena_fini(struct rsi_arena *arena);

/* "log: 64 MiB in pages of 2 MiB, node 0, 8 MiB locked" into `buffer`; returns `buffer`. */
const char *rsi_arena_describe(const struct rsi_arena *arena, char *buffer, size_t buffer_bytes);

/* Size of an ordinary page. */
uint64_t rsi_page_bytes(void);

/* Size of a default huge page, or 0 where the kernel has none. */
uint64_t rsi_huge_page_bytes(void);

#endif
