/*
 * What the system tests share: a table of tests that run one after the other, brokers and commands
 * as real processes, and actors: forked processes that use libringside.
 *
 * Each test runs in a process of its own with a private folder, and everything that it starts dies
 * with it; so a test that fails says why and leaves, from wherever it is. Nothing here judges
 * speed: only what made no progress for HANG_S is called hanging.
 */
#ifndef RSI_TESTS_SYSTEM_HARNESS_H
#define RSI_TESTS_SYSTEM_HARNESS_H

#include "clients/c/ringside.h"
#include "core/atomics.h"
#include "core/compiler.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#define SECOND_NS UINT64_C(1000000000)

enum {
    HANG_S = 30,        /* without any progress; four times that in the machine */
    PATH_BYTES = 256,   /* of files in a test's folder */
    TEXT_BYTES = 65536, /* of what a command may write */
    ARGUMENT_COUNT_MAX = 64,
};

/* ---- options and the table ---------------------------------------------------------------------
 */

struct test_options {
    const char *transport; /* --transport tcp|shm|rdma|dpdk */
    uint64_t scale;        /* --scale N: counts are divided by it */
    uint64_t seconds;      /* --seconds N: how long the idle test looks */
    uint64_t count;        /* --count N: how often a fault test does it; 0: its own default */
    uint64_t limit_s;      /* --limit N: a test that runs longer is ended */
    unsigned agent_count;  /* --agents K */
    const char *only;      /* --only NAME: this test alone */
    uint64_t seed;         /* --seed N, printed at the start */
    /* A feed of the user's own, for the feed test. */
    const char *feed_path;     /* --file */
    const char *feed_template; /* --template */
    const char *feed_else;     /* --else */
    bool feed_recorded_pace;   /* --recorded-pace */
};
extern struct test_options options;

struct system_test {
    const char *name;
    void (*run)(void);
    const char *transports; /* those it is for, "tcp shm"; NULL: all */
};

/* Runs the table as argv asks; prints a line per test and 'N passed, N failed'. The exit code. */
int system_tests_main(int argc, char **argv, const struct system_test *tests, size_t count);

bool is_transport(const char *name);
/* `count` divided by --scale, but at least `lowest`. */
uint64_t scaled(uint64_t count, uint64_t lowest);

/* ---- failing, telling, waiting -----------------------------------------------------------------
 */

/* Ends the test: prints the text, then what the brokers logged and counted. */
_Noreturn void test_fail(const char *file, int line, const char *format, ...) RSI_PRINTF(3, 4);
#define fail(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define check(condition, ...)  \
    do {                       \
        if (!(condition))      \
            fail(__VA_ARGS__); \
    } while (0)
#define check_text(text, part) \
    check(strstr((text), (part)) != NULL, "'%s' is missing in: %s", (part), (text))

/* A line of the report. */
void tell(const char *format, ...) RSI_PRINTF(1, 2);

uint64_t hang_ns(void);
/* Between two looks at a condition. */
void nap(void);
/* Looks until it holds; what holds not within hang_ns() fails the test with the text. */
#define await(condition, ...)                              \
    do {                                                   \
        uint64_t await_until_ns = now_ns() + hang_ns();    \
        while (!(condition)) {                             \
            check(now_ns() < await_until_ns, __VA_ARGS__); \
            nap();                                         \
        }                                                  \
    } while (0)
uint64_t now_ns(void);

/* splitmix64: the next of a sequence that `state` holds. */
uint64_t random_next(uint64_t *state);

/* ---- files of the test -------------------------------------------------------------------------
 */

/* The test's private folder; removed after it. */
const char *test_folder(void);
/* A path inside it, of PATH_BYTES; returns `path`. */
const char *test_path(char *path, const char *name);
void write_file(const char *path, const char *text);
/* The whole file, zero-terminated, cut at TEXT_BYTES; "" when it cannot be read. Static memory. */
const char *read_file(const char *path);

/* ---- programs ----------------------------------------------------------------------------------
 */

/* A program of the build's bin folder that runs beside the test. */
struct program {
    pid_t pid;
    char name[32];
    char output_path[PATH_BYTES]; /* stdout and stderr */
    int ready_fd;                 /* readable when the program wrote to its --ready-fd; -1: none */
};

/*
 * Starts arguments[0] (of the build's bin folder, or an absolute path); the list ends with NULL.
 * `ready_flag`, when not NULL, is "--ready-fd=%d" and adds that descriptor.
 */
void program_start(struct program *program, const char *name, const char *const *arguments,
                   bool has_ready_fd);
/* Reads what came over the ready descriptor until its end or a whole line; fails if it exits. */
void program_await_ready(struct program *program, char *text, size_t text_bytes);
/* Waits for the end; fails the test when it hangs. Exit code, or 128 + signal. */
int program_wait(struct program *program);
bool program_has_ended(const struct program *program);
void program_signal(const struct program *program, int number);

/* The path of a library that the build put into its bin folder; false when it has none. */
bool test_library(char *path, const char *name);

/* Runs a program to its end. `output` gets what it wrote, `input` may be NULL. */
int run_command(const char *const *arguments, char *output, size_t output_bytes);

/* ---- brokers -----------------------------------------------------------------------------------
 */

struct broker {
    struct program program;
    char url[PATH_BYTES];  /* of options.transport */
    char urls[PATH_BYTES]; /* all, one per line */
    char counters_path[PATH_BYTES];
};

/* With a listener of options.transport and a free port; extra flags may end the list at once. */
void broker_start(struct broker *broker, const char *const *extra_flags);
/* Its program has ended: another run on the same URL, with the same counters file. */
void broker_start_again(struct broker *broker, const char *const *extra_flags);
/* SIGTERM; the exit code. */
int broker_stop(struct broker *broker);
/* The value of broker.* or agent.* (all agents summed), or of a client's session or link. */
uint64_t broker_counter(const struct broker *broker, const char *name, const char *client_name);
/* The text of a record, "" when there is none. Static memory. */
const char *broker_counter_text(const struct broker *broker, const char *name,
                                const char *client_name);
/* The id of the client's session, as its records are labelled; 0: it has none. */
uint64_t broker_session_id(const struct broker *broker, const char *client_name);
/* Waits until the counters file, which is refreshed once a second, says at least that much. */
void broker_await_counter(const struct broker *broker, const char *name, const char *client_name,
                          uint64_t at_least);
/* Over dpdk with $RINGSIDE_DPDK_FAULTS: the value of fault.* of all processes that run
 * (transport/dpdk/fault.h). */
uint64_t fault_counter(const char *name);
/* How many descriptors and mappings the process has. */
void broker_count_resources(const struct broker *broker, size_t *fd_count, size_t *map_count);

/* ---- actors ------------------------------------------------------------------------------------
 */

/* What the test and an actor tell each other; in memory that both map. */
struct actor_shared {
    _Atomic uint64_t step;     /* how far the actor is */
    _Atomic uint64_t allowed;  /* how far it may go */
    _Atomic uint64_t progress; /* work done: what does not move hangs */
    _Atomic uint64_t results[17];
    char text[512]; /* written before a step, read after it */
};

struct actor {
    const char *name;
    pid_t pid;
    struct actor_shared *shared;
    const struct broker *broker;
};

typedef void (*actor_main_t)(struct actor *self, void *arg);

/* Forks. When `run` returns the actor has ended well; fail() in it fails the test. */
void actor_start(struct actor *actor, const char *name, const struct broker *broker,
                 actor_main_t run, void *arg);
/* The test's side. */
void actor_allow(struct actor *actor, uint64_t step);
void actor_await_step(struct actor *actor, uint64_t step);
void actor_join(struct actor *actor);
/* SIGKILL; it is forgotten too. */
void actor_kill(struct actor *actor);
/* It has been joined: gives back the memory shared with it, results included. */
void actor_forget(struct actor *actor);
void actor_signal(const struct actor *actor, int number);
/* Waits until its progress is at least that; each step of progress puts the hang off. */
void actor_await_progress(struct actor *actor, uint64_t progress);
uint64_t actor_progress(const struct actor *actor);
uint64_t actor_result(const struct actor *actor, size_t index);

/* The actor's side. */
void actor_reach(struct actor *self, uint64_t step);
/* Waits for actor_allow without touching the client. */
void actor_await_allowed(struct actor *self, uint64_t step);
bool actor_is_allowed(const struct actor *self, uint64_t step);
void actor_set_progress(struct actor *self, uint64_t progress);
void actor_set_result(struct actor *self, size_t index, uint64_t value);

/* Connects with the actor's name and the machine's source address; `given` may be NULL. */
ringside_client_t *actor_connect(struct actor *self, const ringside_options_t *given);
ringside_publisher_t *actor_publisher(ringside_client_t *client, const char *subject);
void actor_subscribe(ringside_client_t *client, const char *subject, ringside_policy_t policy,
                     ringside_on_message_t on_message, void *arg);
/* Publishes one message, waiting for room as long as that takes. */
void actor_publish(ringside_client_t *client, ringside_publisher_t *publisher, const void *data,
                   size_t bytes);
/* Polls, at most 100 ms for the first thing to do; fails when the connection is gone. */
void actor_poll(ringside_client_t *client);
void actor_flush(ringside_client_t *client);
void actor_close(ringside_client_t *client);
ringside_link_stats_t actor_stats(const ringside_client_t *client);

#endif
