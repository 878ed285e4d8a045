/*
 * Nothing to do costs nothing: an idle broker and an idle subscriber that waits blocking.
 *
 * Design notes
 * - The kernel's own accounts: time on a core by schedstat of every thread, wake-ups by the
 *   voluntary context switches in each thread's status.
 * - What wakes an idle broker is housekeeping once a second (the control agent, and each data
 *   agent's longest sleep); a client that waits for ever is woken by nothing. The bounds below are
 *   twice that, and some for what a transport does by itself, such as probes of a link.
 */
#include "tests/system/harness.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum {
    STEP_SUBSCRIBED = 1,
    CPU_PERCENT_MAX = 1,
    WAKES_PER_THREAD_SECOND_MAX = 4,
    WAKES_SPARE = 20
};

struct usage {
    uint64_t run_ns;
    uint64_t wake_count;
    unsigned thread_count;
};

static void add_thread(struct usage *usage, pid_t pid, const char *thread)
{
    char path[128];
    unsigned long long run_ns = 0;
    unsigned long long wake_count = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)pid, thread);
    check(sscanf(read_file(path), "%llu", &run_ns) == 1, "%s cannot be read", path);
    snprintf(path, sizeof(path), "/proc/%d/task/%.20s/status", (int)pid, thread);
    const char *line = strstr(read_file(path), "\nvoluntary_ctxt_switches:");
    check(line != NULL && sscanf(line, "\nvoluntary_ctxt_switches: %llu", &wake_count) == 1,
          "%s cannot be read", path);
    usage->run_ns += run_ns;
    usage->wake_count += wake_count;
    usage->thread_count++;
}

static struct usage usage_of(pid_t pid)
{
    struct usage usage = {0};
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *folder = opendir(path);
    check(folder != NULL, "%s: %s", path, strerror(errno));
    const struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] != '.') {
            add_thread(&usage, pid, entry->d_name);
        }
    }
    closedir(folder);
    return usage;
}

static void count_message(void *arg, const ringside_message_t *message)
{
    struct actor *self = arg;
    (void)message;
    actor_set_progress(self, actor_progress(self) + 1);
}

static void wait_for_messages(struct actor *self, void *arg)
{
    const ringside_options_t used = {.wait = RINGSIDE_WAIT_BLOCKING};
    (void)arg;
    ringside_client_t *client = actor_connect(self, &used);
    actor_subscribe(client, "system.idle", RINGSIDE_POLICY_BLOCK, count_message, self);
    actor_reach(self, STEP_SUBSCRIBED);
    /* One message before, one after the look: it does sleep in between, and does wake up. */
    while (actor_progress(self) < 2) {
        check(ringside_poll(client, 0, UINT64_MAX, NULL) == RINGSIDE_OK, "%s",
              ringside_error_text(client));
    }
    actor_close(client);
}

static void publish_twice(struct actor *self, void *arg)
{
    (void)arg;
    ringside_client_t *client = actor_connect(self, NULL);
    ringside_publisher_t *publisher = actor_publisher(client, "system.idle");
    actor_publish(client, publisher, "a", 1);
    actor_flush(client);
    actor_reach(self, 1);
    actor_await_allowed(self, 1);
    actor_publish(client, publisher, "b", 1);
    actor_flush(client);
    actor_close(client);
}

static void judge(const char *who, const struct usage *before, const struct usage *after,
                  uint64_t elapsed_ns)
{
    double seconds = (double)elapsed_ns / 1e9;
    double percent = 100.0 * (double)(after->run_ns - before->run_ns) / (double)elapsed_ns;
    uint64_t wake_count = after->wake_count - before->wake_count;
    uint64_t wake_count_max =
        (uint64_t)(seconds + 1) * WAKES_PER_THREAD_SECOND_MAX * after->thread_count + WAKES_SPARE;
    tell("%s: %.3f %% of a core and %" PRIu64 " wake-ups (at most %" PRIu64 ") in %.1f s, "
         "%u threads",
         who, percent, wake_count, wake_count_max, seconds, after->thread_count);
    check(percent < CPU_PERCENT_MAX, "%s takes %.3f %% of a core while idle", who, percent);
    check(wake_count <= wake_count_max, "%s was woken %" PRIu64 " times while idle", who,
          wake_count);
}

static void test_idle(void)
{
    struct broker broker;
    struct actor subscriber;
    struct actor publisher;
    broker_start(&broker, NULL);
    actor_start(&subscriber, "reader", &broker, wait_for_messages, NULL);
    actor_await_step(&subscriber, STEP_SUBSCRIBED);
    actor_start(&publisher, "writer", &broker, publish_twice, NULL);
    actor_await_step(&publisher, 1);
    await(actor_progress(&subscriber) == 1, "the first message does not arrive");

    const struct timespec settle = {.tv_sec = 1};
    const struct timespec look = {.tv_sec = (time_t)options.seconds};
    nanosleep(&settle, NULL); /* what follows a connection by the clock is over then */
    uint64_t start_ns = now_ns();
    struct usage broker_before = usage_of(broker.program.pid);
    struct usage subscriber_before = usage_of(subscriber.pid);
    nanosleep(&look, NULL); /* the test is what happens in this time */
    struct usage broker_after = usage_of(broker.program.pid);
    struct usage subscriber_after = usage_of(subscriber.pid);
    uint64_t elapsed_ns = now_ns() - start_ns;

    actor_allow(&publisher, 1);
    actor_join(&publisher);
    actor_join(&subscriber);
    judge("broker", &broker_before, &broker_after, elapsed_ns);
    judge("subscriber", &subscriber_before, &subscriber_after, elapsed_ns);
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"idle", test_idle, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
