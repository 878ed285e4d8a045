/*
 * Design notes
 * - An actor is forked before anything of libringside is used: a client does not survive a fork.
 * - Test and actor meet by two numbers in shared memory: `step`, how far the actor is, and
 *   `allowed`, how far it may go. Each is written by one side with release, and read by the other
 *   with acquire; so results and text that were written before a step are seen after it.
 * - While the test waits for an actor, any progress that it makes puts the hang off; a slow machine
 *   is no failure.
 */
#include "tests/system/harness_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *own_name;

const char *rsi_actor_name(void)
{
    return own_name;
}

/* ---- the test's side ---------------------------------------------------------------------------
 */

/* What the library logs is of interest only when the test fails. */
static void redirect_errors(const char *name)
{
    char file[64];
    char path[PATH_BYTES];
    snprintf(file, sizeof(file), "%.32s-actor.output", name);
    check(freopen(test_path(path, file), "w", stderr) != NULL, "cannot write %s: %s", path,
          strerror(errno));
}

void actor_start(struct actor *actor, const char *name, const struct broker *broker,
                 actor_main_t run, void *arg)
{
    actor->name = name;
    actor->broker = broker;
    actor->shared = mmap(NULL, sizeof(*actor->shared), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(actor->shared != MAP_FAILED, "mmap: %s", strerror(errno));
    fflush(NULL);
    pid_t parent = getpid();
    actor->pid = fork();
    check(actor->pid >= 0, "fork: %s", strerror(errno));
    if (actor->pid == 0) {
        own_name = name;
        rsi_die_with_parent(parent);
        redirect_errors(name);
        if (is_transport("dpdk")) {
            rsi_places_enter_client();
        }
        run(actor, arg);
        fflush(stdout);
        _exit(0);
    }
}

void actor_allow(struct actor *actor, uint64_t step)
{
    rsi_store_release(&actor->shared->allowed, step);
}

uint64_t actor_progress(const struct actor *actor)
{
    return rsi_load_relaxed(&actor->shared->progress);
}

uint64_t actor_result(const struct actor *actor, size_t index)
{
    return rsi_load_relaxed(&actor->shared->results[index]);
}

/* True when it ended; one that ended badly fails the test. */
static bool has_ended(struct actor *actor)
{
    int status = 0;
    if (actor->pid == 0) {
        return true;
    }
    pid_t pid = waitpid(actor->pid, &status, WNOHANG);
    if (pid == 0) {
        return false;
    }
    actor->pid = 0;
    check(WIFEXITED(status), "%s was ended by signal %d, at step %" PRIu64 ", progress %" PRIu64,
          actor->name, WTERMSIG(status), rsi_load_acquire(&actor->shared->step),
          actor_progress(actor));
    check(WEXITSTATUS(status) == 0, "%s failed", actor->name);
    return true;
}

struct patience {
    uint64_t progress;
    uint64_t deadline_ns;
};

static void wait_on(struct patience *patience, struct actor *actor, const char *what)
{
    uint64_t progress = actor_progress(actor);
    if (progress != patience->progress || patience->deadline_ns == 0) {
        patience->progress = progress;
        patience->deadline_ns = now_ns() + hang_ns();
    }
    check(now_ns() < patience->deadline_ns,
          "%s hangs: %s, at step %" PRIu64 ", progress %" PRIu64 " for %" PRIu64 " s", actor->name,
          what, rsi_load_acquire(&actor->shared->step), progress, hang_ns() / SECOND_NS);
    nap();
}

void actor_await_step(struct actor *actor, uint64_t step)
{
    struct patience patience = {0};
    char what[64];
    snprintf(what, sizeof(what), "does not reach step %" PRIu64, step);
    while (rsi_load_acquire(&actor->shared->step) < step) {
        check(!has_ended(actor) || rsi_load_acquire(&actor->shared->step) >= step,
              "%s ended before step %" PRIu64, actor->name, step);
        wait_on(&patience, actor, what);
    }
}

void actor_join(struct actor *actor)
{
    struct patience patience = {0};
    while (!has_ended(actor)) {
        wait_on(&patience, actor, "does not end");
    }
}

void actor_signal(const struct actor *actor, int number)
{
    check(kill(actor->pid, number) == 0, "kill %s: %s", actor->name, strerror(errno));
}

void actor_forget(struct actor *actor)
{
    check(actor->pid == 0, "%s still runs", actor->name);
    munmap(actor->shared, sizeof(*actor->shared));
    actor->shared = NULL;
}

void actor_kill(struct actor *actor)
{
    int status = 0;
    actor_signal(actor, SIGKILL);
    check(waitpid(actor->pid, &status, 0) == actor->pid, "waitpid: %s", strerror(errno));
    check(WIFSIGNALED(status), "%s had ended with code %d before it was killed", actor->name,
          WEXITSTATUS(status));
    actor->pid = 0;
    actor_forget(actor);
}

void actor_await_progress(struct actor *actor, uint64_t progress)
{
    struct patience patience = {0};
    while (actor_progress(actor) < progress) {
        check(!has_ended(actor) || actor_progress(actor) >= progress,
              "%s ended at %" PRIu64 " of %" PRIu64, actor->name, actor_progress(actor), progress);
        wait_on(&patience, actor, "does not get on");
    }
}

/* ---- the actor's side --------------------------------------------------------------------------
 */

void actor_reach(struct actor *self, uint64_t step)
{
    rsi_store_release(&self->shared->step, step);
}

bool actor_is_allowed(const struct actor *self, uint64_t step)
{
    return rsi_load_acquire(&self->shared->allowed) >= step;
}

/* No deadline: the test that allows it has one, and takes the actor with it. */
void actor_await_allowed(struct actor *self, uint64_t step)
{
    while (!actor_is_allowed(self, step)) {
        nap();
    }
}

void actor_set_progress(struct actor *self, uint64_t progress)
{
    rsi_store_relaxed(&self->shared->progress, progress);
}

void actor_set_result(struct actor *self, size_t index, uint64_t value)
{
    rsi_store_relaxed(&self->shared->results[index], value);
}

ringside_client_t *actor_connect(struct actor *self, const ringside_options_t *given)
{
    ringside_options_t used = {.struct_bytes = sizeof(used)};
    if (is_transport("dpdk") && getenv("RINGSIDE_DPDK_PORT") == NULL) {
        rsi_places_enter_client(); /* it is the test's own process */
    }
    if (given != NULL) {
        used = *given;
    }
    used.struct_bytes = sizeof(used);
    if (used.client_name == NULL) {
        used.client_name = self->name;
    }
    if (used.bind_host == NULL && is_transport("rdma")) {
        used.bind_host = getenv("RINGSIDE_VM_ADDR_B");
    }
    if (used.connect_timeout_ns == 0) {
        used.connect_timeout_ns = hang_ns();
    }
    ringside_client_t *client = NULL;
    ringside_status_t status = ringside_connect(&client, self->broker->url, &used);
    check(status == RINGSIDE_OK, "cannot connect to %s: %s: %s", self->broker->url,
          ringside_status_name(status), ringside_last_error());
    return client;
}

#define check_call(client, call)                                                \
    do {                                                                        \
        ringside_status_t check_status = (call);                                \
        check(check_status == RINGSIDE_OK, "%s: %s: %s", #call,                 \
              ringside_status_name(check_status), ringside_error_text(client)); \
    } while (0)

ringside_publisher_t *actor_publisher(ringside_client_t *client, const char *subject)
{
    ringside_publisher_t *publisher = NULL;
    check_call(client, ringside_publisher_create(&publisher, client, subject, hang_ns()));
    return publisher;
}

void actor_subscribe(ringside_client_t *client, const char *subject, ringside_policy_t policy,
                     ringside_on_message_t on_message, void *arg)
{
    const ringside_subscribe_options_t used = {
        .struct_bytes = sizeof(used), .policy = policy, .timeout_ns = hang_ns()};
    ringside_subscription_t *subscription = NULL;
    check_call(client, ringside_subscribe(&subscription, client, subject, &used, on_message, arg));
}

void actor_poll(ringside_client_t *client)
{
    check_call(client, ringside_poll(client, 0, SECOND_NS / 10, NULL));
}

void actor_publish(ringside_client_t *client, ringside_publisher_t *publisher, const void *data,
                   size_t bytes)
{
    ringside_status_t status;
    while ((status = ringside_publish(publisher, data, bytes)) == RINGSIDE_WOULD_BLOCK) {
        actor_poll(client);
    }
    check(status == RINGSIDE_OK, "publishing %zu bytes: %s: %s", bytes,
          ringside_status_name(status), ringside_error_text(client));
}

void actor_flush(ringside_client_t *client)
{
    check_call(client, ringside_flush(client, hang_ns()));
}

void actor_close(ringside_client_t *client)
{
    ringside_status_t status = ringside_close(client, hang_ns());
    check(status == RINGSIDE_OK, "close: %s: %s", ringside_status_name(status),
          ringside_last_error());
}

ringside_link_stats_t actor_stats(const ringside_client_t *client)
{
    ringside_link_stats_t stats = {.struct_bytes = sizeof(stats)};
    check(ringside_stats(client, &stats) == RINGSIDE_OK, "no stats");
    return stats;
}
