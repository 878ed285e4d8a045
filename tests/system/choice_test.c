/*
 * auto:// takes the best transport that leads to the broker, and everybody can see which and why;
 * and what a client without rights needs for rdma.
 *
 * Design notes
 * - A broker names its own shm socket after its port. Here the port is any free one, so the name
 *   that auto:// looks for is a link to the socket, in a folder that RINGSIDE_RUN_DIR names.
 */
#include "core/counters.h"
#include "tests/system/harness.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STEP_CONNECTED = 1, STEP_LEAVE = 1 };

#define MIB (UINT64_C(1) << 20)

/* ---- auto --------------------------------------------------------------------------------------
 */

struct choice {
    char url[PATH_BYTES];
    const char *expected;
    const char *parts[4]; /* of the reason */
};

static void check_counters_say(const char *path, const char *why)
{
    struct rsi_counters_reader *reader = NULL;
    struct rsi_error error = {0};
    struct rsi_counter_view view;
    check(!rsi_failed(rsi_counters_open(&reader, path, &error)), "%s", error.text);
    check(rsi_counters_find(reader, "transport", NULL, &view), "%s has no record 'transport'",
          path);
    /* The record holds less than the whole. */
    size_t bytes = strlen(view.text);
    check(bytes > 0 && strncmp(view.text, why, bytes) == 0,
          "the counters say '%s', the client '%s'", view.text, why);
    rsi_counters_close(reader);
}

static void choose(struct actor *self, void *arg)
{
    const struct choice *choice = arg;
    char path[PATH_BYTES];
    struct broker seen = *self->broker;
    snprintf(seen.url, sizeof(seen.url), "%s", choice->url);
    self->broker = &seen;
    setenv("RINGSIDE_RUN_DIR", test_folder(), 1);
    const ringside_options_t used = {
        .counters_path = test_path(path, "client.counters"),
        .bind_host = is_transport("rdma") ? getenv("RINGSIDE_VM_ADDR_B") : NULL};
    ringside_client_t *client = actor_connect(self, &used);
    const char *why = ringside_transport_why(client);
    snprintf(self->shared->text, sizeof(self->shared->text), "%s", why);
    check(strcmp(ringside_transport(client), choice->expected) == 0, "chosen is %s, not %s: %s",
          ringside_transport(client), choice->expected, why);
    for (size_t index = 0; index < rsi_array_count(choice->parts); index++) {
        check_text(why, choice->parts[index] != NULL ? choice->parts[index] : "chosen");
    }
    check_counters_say(path, why);
    actor_reach(self, STEP_CONNECTED);
    while (!actor_is_allowed(self, STEP_LEAVE)) {
        actor_poll(client);
    }
    actor_close(client);
}

static void run_choice(const struct broker *broker, struct choice *choice)
{
    struct actor client;
    actor_start(&client, "chooser", broker, choose, choice);
    actor_await_step(&client, STEP_CONNECTED);
    await(strncmp(broker_counter_text(broker, "session.link", "chooser"), choice->expected,
                  strlen(choice->expected)) == 0,
          "the broker's counters say '%s'", broker_counter_text(broker, "session.link", "chooser"));
    tell("%s: %s", choice->url, client.shared->text);
    tell("the broker: %s", broker_counter_text(broker, "session.link", "chooser"));
    actor_allow(&client, STEP_LEAVE);
    actor_join(&client);
}

/* "host:port" of the broker's listener of that transport. */
static void auto_url(char *url, const struct broker *broker, const char *scheme)
{
    const char *at = strstr(broker->urls, scheme);
    check(at != NULL, "the broker does not listen on %s: %s", scheme, broker->urls);
    at += strlen(scheme);
    snprintf(url, PATH_BYTES, "auto://%.*s", (int)strcspn(at, "\n"), at);
}

static void test_auto_to_tcp(void)
{
    struct choice choice = {.expected = "tcp",
                            .parts = {"shm: no socket", "rdma: ", "tcp: chosen"}};
    struct broker broker;
    broker_start(&broker, NULL);
    auto_url(choice.url, &broker, "tcp://");
    run_choice(&broker, &choice);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

static void test_auto_to_shm(void)
{
    struct choice choice = {.expected = "shm", .parts = {"shm: chosen"}};
    struct broker broker;
    char name[64];
    char link_path[PATH_BYTES];
    broker_start(&broker, (const char *const[]){"--listen=tcp://127.0.0.1:0", NULL});
    auto_url(choice.url, &broker, "tcp://");
    snprintf(name, sizeof(name), "broker-%s.sock", strrchr(choice.url, ':') + 1);
    check(symlink(broker.url + strlen("shm://"), test_path(link_path, name)) == 0, "symlink: %s",
          strerror(errno));
    run_choice(&broker, &choice);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

static void test_auto_to_rdma(void)
{
    struct choice choice = {.expected = "rdma", .parts = {"shm: no socket", "rdma: chosen"}};
    struct broker broker;
    broker_start(&broker, NULL);
    auto_url(choice.url, &broker, "rdma://");
    run_choice(&broker, &choice);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

/* ---- rdma without rights -----------------------------------------------------------------------
 */

/* The stock limit, and another user than root: for ever, in this process. */
static void give_up_rights(void)
{
    const struct rlimit limit = {8 * MIB, 8 * MIB};
    check(setrlimit(RLIMIT_MEMLOCK, &limit) == 0, "setrlimit: %s", strerror(errno));
    check(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0,
          "cannot become another user: %s", strerror(errno));
}

static void count_message(void *arg, const ringside_message_t *message)
{
    (void)message;
    ++*(uint64_t *)arg;
}

static void use_defaults(struct actor *self, void *arg)
{
    enum { COUNT = 1000 };
    uint64_t received_count = 0;
    (void)arg;
    give_up_rights();
    ringside_client_t *client = actor_connect(self, NULL);
    actor_subscribe(client, "system.nobody", RINGSIDE_POLICY_BLOCK, count_message, &received_count);
    ringside_publisher_t *publisher = actor_publisher(client, "system.nobody");
    for (unsigned index = 0; index < COUNT; index++) {
        actor_publish(client, publisher, &index, sizeof(index));
    }
    while (received_count < COUNT) {
        actor_poll(client);
        actor_set_progress(self, received_count);
    }
    actor_close(client);
}

static void ask_for_too_much(struct actor *self, void *arg)
{
    ringside_client_t *client = NULL;
    (void)arg;
    give_up_rights();
    const ringside_options_t used = {.struct_bytes = sizeof(used),
                                     .bind_host = getenv("RINGSIDE_VM_ADDR_B"),
                                     .publish_ring_bytes = 64 * MIB,
                                     .deliver_ring_bytes = 64 * MIB,
                                     .connect_timeout_ns = hang_ns()};
    ringside_status_t status = ringside_connect(&client, self->broker->url, &used);
    check(status == RINGSIDE_E_NO_MEMORY_LOCK, "connect says %s: %s", ringside_status_name(status),
          ringside_last_error());
    snprintf(self->shared->text, sizeof(self->shared->text), "%s", ringside_last_error());
}

static void test_memlock_limit(void)
{
    struct broker broker;
    struct actor modest;
    struct actor greedy;
    broker_start(&broker, NULL);
    actor_start(&modest, "modest", &broker, use_defaults, NULL);
    actor_join(&modest);
    actor_start(&greedy, "greedy", &broker, ask_for_too_much, NULL);
    actor_join(&greedy);
    tell("%s", greedy.shared->text);
    check_text(greedy.shared->text, "needs 65540 KiB");
    check_text(greedy.shared->text, "ulimit -l");
    check(strstr(greedy.shared->text, "8192") != NULL ||
              strstr(greedy.shared->text, "8 MiB") != NULL,
          "the limit is not named: %s", greedy.shared->text);
    /* The broker is none the worse for it. */
    actor_start(&modest, "modest", &broker, use_defaults, NULL);
    actor_join(&modest);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"auto:// to tcp", test_auto_to_tcp, "tcp"},
        {"auto:// to shm", test_auto_to_shm, "shm"},
        {"auto:// to rdma", test_auto_to_rdma, "rdma"},
        {"stock memlock limit, not root", test_memlock_limit, "rdma"},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
