/*
 * A million calls to a queue group whose workers come, drain, leave and are killed: each call is
 * answered once, by the answer to itself, or reported as timed out, lost or without a responder.
 *
 * Design notes
 * - A question holds its caller and its number, the answer both and something made of them; a
 * caller checks that what it gets is what it asked, and that it gets it once.
 * - Workers that drain may lose nothing, so where they only drain every call has its answer. One
 *   worker stays all the time.
 * - Who is killed takes with it what it was given. Over tcp a dead process looks like a cut wire,
 * so its requests are told as lost only after the session's grace; some time out before.
 */
#include "tests/system/harness.h"

#include <signal.h>
#include <stdlib.h>

enum {
    CALLER_COUNT = 3,
    WORKER_COUNT = 4,
    WINDOW = 64, /* calls that a caller has under way */
    KEPT_MAX = 4096,
    STEP_READY = 1,
    STEP_DRAINED = 2,
    ALLOW_DRAIN = 1,
    RESULT_OK = 0,
    RESULT_TIMED_OUT = 1,
    RESULT_LOST = 2,
    RESULT_NO_RESPONDERS = 3,
};

static const char *const quick_grace_broker[] = {"--log-bytes=1MiB", "--message-bytes-max=64KiB",
                                                 "--session-grace=300ms", NULL};

struct question {
    uint64_t caller;
    uint64_t number;
};

struct answer {
    struct question question;
    uint64_t made;
};

static uint64_t made_of(const struct question *question)
{
    return question->caller * 1000003u + question->number * 31u;
}

static uint64_t calls_per_caller(void)
{
    return scaled(1000000, 30000) / CALLER_COUNT;
}

/* ---- callers ------------------------------------------------------------------------------------
 */

struct caller {
    struct actor *self;
    uint64_t id;
    uint64_t asked_count;
    uint64_t ended_count;
    uint64_t results[4];
    uint8_t *has_ended; /* by number */
};

struct asked {
    struct caller *caller;
    uint64_t number;
};

static void on_reply(void *arg, const ringside_reply_t *reply)
{
    struct asked *asked = arg;
    struct caller *caller = asked->caller;
    check(caller->has_ended[asked->number] == 0, "call %" PRIu64 " ended twice", asked->number);
    caller->has_ended[asked->number] = 1;
    caller->ended_count++;
    switch (reply->status) {
    case RINGSIDE_OK: {
        struct answer answer;
        check(reply->bytes == sizeof(answer), "an answer of %zu bytes", reply->bytes);
        memcpy(&answer, reply->data, sizeof(answer));
        check(answer.question.caller == caller->id && answer.question.number == asked->number,
              "caller %" PRIu64 " got for its call %" PRIu64 " the answer to %" PRIu64
              " of %" PRIu64,
              caller->id, asked->number, answer.question.number, answer.question.caller);
        check(answer.made == made_of(&answer.question), "a wrong answer");
        caller->results[RESULT_OK]++;
        break;
    }
    case RINGSIDE_E_TIMED_OUT:
        caller->results[RESULT_TIMED_OUT]++;
        break;
    case RINGSIDE_E_LOST:
        caller->results[RESULT_LOST]++;
        break;
    case RINGSIDE_E_NO_RESPONDERS:
        caller->results[RESULT_NO_RESPONDERS]++;
        break;
    default:
        fail("call %" PRIu64 " ended with %s", asked->number, ringside_status_name(reply->status));
    }
    free(asked);
}

static void ask(struct caller *caller, ringside_publisher_t *publisher, ringside_client_t *client)
{
    const struct question question = {.caller = caller->id, .number = caller->asked_count};
    struct asked *asked = malloc(sizeof(*asked));
    check(asked != NULL, "no memory");
    *asked = (struct asked){.caller = caller, .number = question.number};
    ringside_status_t status;
    while ((status = ringside_request(publisher, &question, sizeof(question), 3 * SECOND_NS,
                                      on_reply, asked)) == RINGSIDE_WOULD_BLOCK) {
        actor_poll(client);
    }
    check(status == RINGSIDE_OK, "ringside_request: %s", ringside_error_text(client));
    caller->asked_count++;
}

static void run_caller(struct actor *self, void *arg)
{
    struct caller caller = {.self = self, .id = (uint64_t)(uintptr_t)arg};
    uint64_t call_count = calls_per_caller();
    caller.has_ended = calloc(call_count, 1);
    check(caller.has_ended != NULL, "no memory");
    ringside_client_t *client = actor_connect(self, NULL);
    ringside_publisher_t *publisher = actor_publisher(client, "system.calls");
    actor_reach(self, STEP_READY);
    while (caller.ended_count < call_count) {
        while (caller.asked_count < call_count &&
               caller.asked_count - caller.ended_count < WINDOW) {
            ask(&caller, publisher, client);
        }
        actor_poll(client);
        actor_set_progress(self, caller.ended_count);
    }
    for (size_t index = 0; index < 4; index++) {
        actor_set_result(self, index, caller.results[index]);
    }
    actor_close(client);
    free(caller.has_ended);
}

/* ---- workers ------------------------------------------------------------------------------------
 */

struct worker {
    ringside_client_t *client;
    bool is_drained;
    uint32_t kept_count; /* answers that found no room */
    struct kept {
        ringside_request_id_t request;
        struct answer answer;
    } kept[KEPT_MAX];
};

static void on_request(void *arg, const ringside_message_t *message)
{
    struct worker *worker = arg;
    struct kept kept = {.request = message->request};
    check(message->is_request && message->bytes == sizeof(kept.answer.question),
          "a message of %zu bytes that is %s request", message->bytes,
          message->is_request ? "a" : "no");
    memcpy(&kept.answer.question, message->data, message->bytes);
    kept.answer.made = made_of(&kept.answer.question);
    /* Every other one by the copy of the request, as who answers later does. */
    ringside_status_t status =
        kept.answer.question.number % 2 == 0
            ? ringside_reply(message, &kept.answer, sizeof(kept.answer))
            : ringside_reply_to(worker->client, kept.request, &kept.answer, sizeof(kept.answer));
    if (status == RINGSIDE_WOULD_BLOCK) {
        check(worker->kept_count < KEPT_MAX, "more answers than fit are kept");
        worker->kept[worker->kept_count++] = kept;
        return;
    }
    check(status == RINGSIDE_OK, "a reply: %s", ringside_error_text(worker->client));
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct worker *worker = arg;
    worker->is_drained |= event->type == RINGSIDE_EVENT_DRAINED;
}

static void answer_kept(struct worker *worker)
{
    while (worker->kept_count > 0) {
        const struct kept *kept = &worker->kept[worker->kept_count - 1];
        ringside_status_t status =
            ringside_reply_to(worker->client, kept->request, &kept->answer, sizeof(kept->answer));
        if (status == RINGSIDE_WOULD_BLOCK) {
            return;
        }
        check(status == RINGSIDE_OK, "a late reply: %s", ringside_error_text(worker->client));
        worker->kept_count--;
    }
}

/* Works until it is told to drain, and leaves when that is done. */
static void run_worker(struct actor *self, void *arg)
{
    static struct worker worker;
    (void)arg;
    const ringside_options_t used = {.on_event = on_event, .event_arg = &worker};
    const ringside_subscribe_options_t as_worker = {
        .struct_bytes = sizeof(as_worker), .policy = RINGSIDE_POLICY_BLOCK, .group = "workers"};
    worker.client = actor_connect(self, &used);
    ringside_subscription_t *subscription = NULL;
    check(ringside_subscribe(&subscription, worker.client, "system.calls", &as_worker, on_request,
                             &worker) == RINGSIDE_OK,
          "subscribe: %s", ringside_error_text(worker.client));
    actor_reach(self, STEP_READY);
    bool is_draining = false;
    while (!worker.is_drained || worker.kept_count > 0) {
        actor_poll(worker.client);
        answer_kept(&worker);
        if (!is_draining && actor_is_allowed(self, ALLOW_DRAIN)) {
            is_draining = true;
            check(ringside_drain(subscription) == RINGSIDE_OK, "drain: %s",
                  ringside_error_text(worker.client));
        }
    }
    actor_close(worker.client);
}

/* ---- tests --------------------------------------------------------------------------------------
 */

struct scene {
    struct broker broker;
    struct actor callers[CALLER_COUNT];
    struct actor workers[WORKER_COUNT];
    uint64_t drain_count;
    uint64_t kill_count;
    uint64_t results[4];
};

static void begin(struct scene *scene)
{
    broker_start(&scene->broker, quick_grace_broker);
    for (size_t index = 0; index < WORKER_COUNT; index++) {
        actor_start(&scene->workers[index], "worker", &scene->broker, run_worker, NULL);
        actor_await_step(&scene->workers[index], STEP_READY);
    }
    for (size_t index = 0; index < CALLER_COUNT; index++) {
        actor_start(&scene->callers[index], "caller", &scene->broker, run_caller,
                    (void *)(uintptr_t)(index + 1));
    }
}

static uint64_t progress(const struct scene *scene)
{
    uint64_t sum = 0;
    for (size_t index = 0; index < CALLER_COUNT; index++) {
        sum += actor_progress(&scene->callers[index]);
    }
    return sum;
}

/* One worker goes, in one way or the other, and another one takes its place; never the first. */
static void change_worker(struct scene *scene, bool by_killing, uint64_t *random)
{
    struct actor *worker = &scene->workers[1 + random_next(random) % (WORKER_COUNT - 1)];
    if (by_killing) {
        actor_kill(worker);
        scene->kill_count++;
    } else {
        actor_allow(worker, ALLOW_DRAIN);
        actor_join(worker);
        actor_forget(worker);
        scene->drain_count++;
    }
    actor_start(worker, "worker", &scene->broker, run_worker, NULL);
    actor_await_step(worker, STEP_READY);
}

static void end(struct scene *scene)
{
    for (size_t index = 0; index < CALLER_COUNT; index++) {
        actor_await_progress(&scene->callers[index], calls_per_caller());
        actor_join(&scene->callers[index]);
        for (size_t at = 0; at < 4; at++) {
            scene->results[at] += actor_result(&scene->callers[index], at);
        }
    }
    for (size_t index = 0; index < WORKER_COUNT; index++) {
        actor_allow(&scene->workers[index], ALLOW_DRAIN);
        actor_join(&scene->workers[index]);
    }
    tell("%" PRIu64 " calls answered, %" PRIu64 " timed out, %" PRIu64 " lost, %" PRIu64
         " without responder; %" PRIu64 " workers drained, %" PRIu64 " killed",
         scene->results[RESULT_OK], scene->results[RESULT_TIMED_OUT], scene->results[RESULT_LOST],
         scene->results[RESULT_NO_RESPONDERS], scene->drain_count, scene->kill_count);
    check(scene->results[RESULT_OK] + scene->results[RESULT_TIMED_OUT] +
                  scene->results[RESULT_LOST] + scene->results[RESULT_NO_RESPONDERS] ==
              CALLER_COUNT * calls_per_caller(),
          "calls are missing");
    check(broker_counter(&scene->broker, "agent.refused_replies", NULL) == 0,
          "the broker refused replies of workers that were asked");
    check(broker_stop(&scene->broker) == 0, "the broker did not end well");
}

static void run(bool with_kills)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    check(scene != NULL, "no memory");
    uint64_t random = options.seed;
    begin(scene);
    uint64_t total = CALLER_COUNT * calls_per_caller();
    uint64_t step = total / 24;
    for (uint64_t next = step; next < total - step; next += step) {
        uint64_t before = progress(scene);
        uint64_t until_ns = now_ns() + hang_ns();
        while (progress(scene) < next) {
            if (progress(scene) != before) {
                before = progress(scene);
                until_ns = now_ns() + hang_ns();
            }
            check(now_ns() < until_ns, "no call ended for a long time, after %" PRIu64, before);
            nap();
        }
        change_worker(scene, with_kills && random_next(&random) % 2 == 0, &random);
    }
    end(scene);
    if (with_kills) {
        check(scene->results[RESULT_OK] > total / 2, "most calls were not answered");
    } else {
        check(scene->results[RESULT_OK] == total, "workers that drained lost calls");
    }
    free(scene);
}

static void workers_drain(void)
{
    run(false);
}

static void workers_are_killed(void)
{
    run(true);
}

/* A service of two processes, asked from the command line, and what it says when there is none. */
static void commands(void)
{
    struct broker broker;
    broker_start(&broker, NULL);
    char output[1024];
    int code = run_command((const char *const[]){"ringside", "request", "--url", broker.url,
                                                 "svc.upper", "nobody", NULL},
                           output, sizeof(output));
    check(code == 1, "a request that nobody answers ended with %d", code);
    check_text(output, "nobody subscribes to it");

    struct program services[2];
    for (size_t index = 0; index < 2; index++) {
        char ready[64];
        program_start(&services[index], "reply",
                      (const char *const[]){"ringside", "reply", "--url", broker.url, "--group",
                                            "workers", "svc.upper", "tr", "a-z", "A-Z", NULL},
                      true);
        program_await_ready(&services[index], ready, sizeof(ready));
    }
    code = run_command((const char *const[]){"ringside", "request", "--url", broker.url,
                                             "svc.upper", "first", "second one", "third", NULL},
                       output, sizeof(output));
    check(code == 0, "the requests ended with %d: %s", code, output);
    check_text(output, "FIRST\nSECOND ONE\nTHIRD\n");
    for (size_t index = 0; index < 2; index++) {
        program_signal(&services[index], SIGTERM);
        check(program_wait(&services[index]) == 0, "a service did not end well");
    }
    check(broker_stop(&broker) == 0, "the broker did not end well");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"commands", commands, NULL},
        {"workers_drain", workers_drain, NULL},
        {"workers_are_killed", workers_are_killed, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
