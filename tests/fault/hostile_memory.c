/*
 * Attacks over shm: memory that both sides map, memory files, descriptors that nobody asked for.
 */
#include "tests/fault/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SLEEP_REQUESTS_MS = 200,
    REWRITTEN_FRAME_BYTES = 104,
    REWRITTEN_FRAME_COUNT = 2000,
};

/* What the peer tells the process that rewrites for it; in memory that both map. */
struct rewriting {
    uint8_t *ring;
    uint64_t random;
    _Atomic uint64_t published_count;
};

/* Lies about the frames around the newest one, a moment each, then says again what is true. */
static _Noreturn void rewrite(struct rewriting *rewriting)
{
    for (;;) {
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
}

/* A process of its own, as the rewriting is against all rules of threads; it dies with the test. */
static pid_t start_rewriting(struct rewriting *rewriting)
{
    fflush(NULL);
    pid_t pid = fork();
    check(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        rewrite(rewriting);
    }
    return pid;
}

void attack_rewriting(struct siege *siege)
{
    struct rewriting *rewriting =
        mmap(NULL, sizeof(*rewriting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(rewriting != MAP_FAILED, "mmap: %s", strerror(errno));
    siege->caught_count = 0;
    for (unsigned round = 0; round < 20; round++) {
        struct raw_peer peer;
        raw_open(&peer, &siege->at, "rewriter", RAW_SERVING);
        rewriting->ring = peer.out;
        rewriting->random = random_next(&siege->random);
        rsi_store_relaxed(&rewriting->published_count, UINT64_C(0));
        pid_t pid = start_rewriting(rewriting);
        for (unsigned i = 0; i < REWRITTEN_FRAME_COUNT && !raw_look(&peer); i++) {
            (void)raw_publish(&peer, REWRITTEN_FRAME_BYTES - RSI_FRAME_HEADER_BYTES);
            rsi_store_relaxed(&rewriting->published_count, UINT64_C(1) + i);
        }
        siege_let_pass(siege, 10);
        check(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid, "the rewriter ended itself");
        siege->caught_count += raw_look(&peer);
        raw_close(&peer);
    }
    munmap(rewriting, sizeof(*rewriting));
}

/* Cuts, stretches and holes, then scribbles over all that it was given. */
void attack_memory_files(struct siege *siege)
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
    siege_let_pass(siege, 10);
    siege_fill_randomly(siege, peer.out, RAW_RING_BYTES);
    siege_fill_randomly(siege, peer.in, RAW_RING_BYTES);
    siege_fill_randomly(siege, (uint8_t *)peer.words, 2 * (size_t)RSI_WORDS_BYTES);
    raw_ring_bell(&peer);
    siege_let_pass(siege, 10);
    raw_close(&peer);
}

/* Hands over descriptors that nobody asked for: a full eventfd, in which a write would block. */
void attack_descriptors(struct siege *siege)
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
        siege_let_pass(siege, 1);
        raw_close(&peer);
    }
    close(full_fd);
}

/* Asks to be woken at once, always anew, and never looks. */
void attack_sleep_requests(struct siege *siege)
{
    struct raw_peer peer;
    raw_open(&peer, &siege->at, "insomniac", RAW_SERVING);
    uint64_t generation = 0;
    uint64_t position = siege_position(siege);
    uint64_t until_ns = now_ns() + SLEEP_REQUESTS_MS * UINT64_C(1000000);
    while (now_ns() < until_ns) {
        rsi_store_relaxed(rsi_atomic_u64_at(&peer.words[1].wake_arrived_at_least), UINT64_C(0));
        rsi_store_release(rsi_atomic_u64_at(&peer.words[1].wake_generation), ++generation);
        raw_ring_bell(&peer);
    }
    siege_expect_traffic(siege, position);
    raw_close(&peer);
}
