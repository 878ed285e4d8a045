/*
 * Design notes
 * - The director is process 0: it starts broker and clients, makes faults, and at the end sees that
 *   nothing is left.
 * - A fault is excused to the oracle before it is made: what it may do to a session may happen at
 *   once.
 */
#include "tests/simulation/simulation.h"

#include "broker/broker.h"
#include "core/assert.h"
#include "core/log.h"
#include "tests/simulation/kernel.h"
#include "tests/simulation/points.h"
#include "transport/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MILLISECOND_NS UINT64_C(1000000)
#define SECOND_NS      UINT64_C(1000000000)
#define END_NS         (600 * SECOND_NS)
#define LINGER_NS      (20 * SECOND_NS)

const char *const fault_names[FAULT_COUNT] = {
    [FAULT_CLIENT_STOPPED] = "client stopped",
    [FAULT_CLIENT_KILLED] = "client killed",
    [FAULT_LINK_CUT] = "link cut",
    [FAULT_CONSUMER_SLOW] = "consumer slow",
    [FAULT_BROKER_STALLED] = "broker stalled",
    [FAULT_BROKER_STOPPED] = "broker stopped",
    [FAULT_BROKER_KILLED] = "broker killed",
    [FAULT_NO_DESCRIPTOR] = "no descriptor",
};

struct simulation simulation;

static struct {
    uint32_t process;
    struct rsi_settings settings;
    struct rsi_broker *broker; /* while it runs */
    rsi_status_t status;
    struct rsi_error error;
} broker;

static struct {
    uint32_t process; /* 0: none yet */
    bool has_flushed;
} slots[SIMULATION_ACTORS_MAX];

void director_count(enum fault fault)
{
    simulation.faults[fault]++;
}

bool director_refuses_descriptor(void)
{
    uint32_t process = world_process();
    if (!simulation.lacks_descriptors || process == broker.process || !world_one_in(24)) {
        return false;
    }
    for (uint32_t i = 0; i < simulation.actor_count; i++) {
        if (slots[i].process == process) {
            actor_note_fault(i);
        }
    }
    world_trace("%s is refused a descriptor", world_process_name(process));
    director_count(FAULT_NO_DESCRIPTOR);
    return true;
}

void director_note_flushed(uint32_t slot)
{
    slots[slot].has_flushed = true;
}

bool director_all_are_flushed(void)
{
    for (uint32_t i = 0; i < simulation.actor_count; i++) {
        if (!slots[i].has_flushed && !world_process_has_ended(slots[i].process)) {
            return false;
        }
    }
    return true;
}

/* ---- the broker -------------------------------------------------------------------------------
 */

static void set(const char *key, const char *text)
{
    struct rsi_error error = {0};
    const struct rsi_setting *setting = rsi_setting_find(key);
    rsi_assert(setting != NULL);
    if (rsi_failed(rsi_setting_assign(&broker.settings, setting, text, &error))) {
        world_violation("setting %s: %s", key, error.text);
    }
}

static void choose_settings(void)
{
    char agents[8];
    rsi_settings_init(&broker.settings);
    rsi_setting_clear(&broker.settings, rsi_setting_find("listen"));
    snprintf(agents, sizeof(agents), "%u", simulation.agent_count);
    set("listen", SIMULATION_URL);
    set("agents", agents);
    set("counters_path", "");
    set("log_bytes", "256KiB");
    set("message_bytes_max", "16KiB");
    set("publish_ring_bytes_max", "128KiB");
    set("deliver_ring_bytes_max", "128KiB");
    set("publication_count_max", "1024");
    set("publisher_count_max", "100");
    set("topic_count_max", "16");
    set("client_count_max", "64");
    set("lock_memory", "no");
    set("log_level", "error");
    set("wait", world_one_in(3) ? "adaptive" : "blocking");
    set("spin", "2us");
    set("session_grace", simulation.is_grace_short ? "300ms" : "10s");
    static const char *const block_timeouts[] = {"5s", "5s", "300ms", "300ms", "30ms"};
    set("block_timeout", block_timeouts[world_random(rsi_array_count(block_timeouts))]);
}

static void broker_main(void *arg)
{
    struct rsi_error error = {0};
    (void)arg;
    choose_settings();
    if (rsi_failed(rsi_settings_check(&broker.settings, &error)) ||
        rsi_failed(rsi_broker_create(&broker.broker, &broker.settings, &error))) {
        world_violation("the broker cannot start: %s", error.text);
    }
    broker.status = rsi_broker_run(broker.broker, &error);
    broker.error = error;
    rsi_broker_destroy(broker.broker);
    broker.broker = NULL;
    rsi_settings_fini(&broker.settings);
}

static void start_broker(void)
{
    points_set_walk_seed(1 + world_random(1u << 30));
    memset(&broker, 0, sizeof(broker));
    broker.process = world_start_process("broker", broker_main, NULL);
    while (broker.broker == NULL) {
        world_sleep_ns(MILLISECOND_NS);
    }
}

/* Until the process has ended by itself. */
static void wait_for_end(uint32_t process)
{
    uint64_t deadline_ns = world_now_ns() + END_NS;
    while (!world_process_has_ended(process)) {
        if (world_now_ns() > deadline_ns) {
            world_violation("%s does not end", world_process_name(process));
        }
        world_sleep_ns(10 * MILLISECOND_NS);
    }
    if (!world_process_was_killed(process) && kernel_open_count(process) > 0) {
        world_violation("%s ended and left %u descriptors open", world_process_name(process),
                        kernel_open_count(process));
    }
}

static void stop_broker(void)
{
    world_trace("the broker is told to stop");
    oracle_excuse_all(ORACLE_BROKER);
    simulation.broker_is_ending = true;
    simulation.broker_faults++;
    rsi_broker_stop(broker.broker);
    wait_for_end(broker.process);
    world_trace("the broker ended: %s %s", rsi_status_name(broker.status), broker.error.text);
    if (broker.status != RSI_OK && broker.status != RSI_E_TIMED_OUT) {
        world_violation("the broker ended with %s: %s", rsi_status_name(broker.status),
                        broker.error.text);
    }
    if (broker.status == RSI_OK) {
        oracle_broker_delivered_all();
    }
}

static uint32_t cut_links(uint32_t slot)
{
    uint32_t process = slots[slot].process;
    actor_note_fault(slot);
    oracle_excuse_cut(process);
    uint32_t cut_count = rsi_sim_cut_process(process, world_random(200));
    actor_note_fault(slot); /* who began to connect meanwhile, too */
    return cut_count;
}

/* Clients are on their way to the broker that came after: some of them do not get there at once. */
static void disturb_renewals(void)
{
    for (uint64_t count = world_random(12); count > 0; count--) {
        world_sleep_ns(world_random(4 * MILLISECOND_NS));
        if (cut_links((uint32_t)world_random(simulation.actor_count)) > 0) {
            director_count(FAULT_LINK_CUT);
        }
    }
}

static void restart_broker(bool is_killed)
{
    if (is_killed) {
        oracle_broker_killed();
        simulation.broker_is_ending = true;
        simulation.broker_faults++;
        world_kill_process(broker.process, world_random(500));
        wait_for_end(broker.process);
        oracle_broker_killed(); /* with what happened until it died */
    } else {
        stop_broker();
    }
    world_sleep_ns(world_random(50 * MILLISECOND_NS));
    start_broker();
    simulation.broker_is_ending = false;
    simulation.broker_faults++;
    if (is_killed && world_one_in(2)) {
        disturb_renewals();
    }
}

/* ---- clients ----------------------------------------------------------------------------------
 */

static void start_actor(uint32_t slot)
{
    char name[16];
    snprintf(name, sizeof(name), "client%u", slot);
    slots[slot].has_flushed = false;
    slots[slot].process = world_start_process(name, actor_main, (void *)(uintptr_t)slot);
    world_set_speed(slots[slot].process, 1 + (uint32_t)world_random(16));
}

static void replace_ended_actors(void)
{
    for (uint32_t i = 0; i < simulation.actor_count; i++) {
        uint32_t process = slots[i].process;
        if (!world_process_has_ended(process)) {
            continue;
        }
        if (!world_process_was_killed(process) && kernel_open_count(process) > 0) {
            world_violation("%s ended and left %u descriptors open", world_process_name(process),
                            kernel_open_count(process));
        }
        start_actor(i);
    }
}

/* ---- faults -----------------------------------------------------------------------------------
 */

static uint64_t random_stop_ns(void)
{
    uint64_t max_ns = (UINT64_C(1) << 14) << world_random(18); /* 16 us to 2.1 s */
    return 1 + world_random(max_ns);
}

static enum fault choose_fault(void)
{
    uint64_t choice = world_random(100);
    if (simulation.has_many_broker_deaths && choice >= 90) {
        return FAULT_BROKER_KILLED;
    }
    if (simulation.has_broker_faults && choice < 2) {
        return choice == 0 ? FAULT_BROKER_STOPPED : FAULT_BROKER_KILLED;
    }
    if (choice < 10) {
        return FAULT_BROKER_STALLED;
    }
    if (choice < 25) {
        return FAULT_CLIENT_KILLED;
    }
    return choice < 45 ? FAULT_LINK_CUT : FAULT_CLIENT_STOPPED;
}

static void make_fault(void)
{
    enum fault fault = choose_fault();
    uint32_t slot = (uint32_t)world_random(simulation.actor_count);
    uint32_t process = slots[slot].process;
    world_trace("fault: %s, %s", fault_names[fault], world_process_name(process));
    switch (fault) {
    case FAULT_CLIENT_STOPPED:
        world_stop_process(process, random_stop_ns());
        break;
    case FAULT_CLIENT_KILLED:
        actor_note_fault(slot);
        world_kill_process(process, world_random(2000));
        break;
    case FAULT_LINK_CUT:
        if (cut_links(slot) == 0) {
            return;
        }
        break;
    case FAULT_BROKER_STALLED:
        world_stop_process(broker.process, 1 + world_random(500 * MILLISECOND_NS));
        break;
    case FAULT_BROKER_STOPPED:
    case FAULT_BROKER_KILLED:
        restart_broker(fault == FAULT_BROKER_KILLED);
        break;
    case FAULT_CONSUMER_SLOW:
    case FAULT_NO_DESCRIPTOR:
    case FAULT_COUNT:
        break;
    }
    director_count(fault);
}

/* ---- the run ----------------------------------------------------------------------------------
 */

/* Rings and logs are files in memory: when all have ended in order, none is mapped any more. */
static void check_mappings(void)
{
    char line[512];
    uint32_t count = 0;
    FILE *file = fopen("/proc/self/maps", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        count += strstr(line, "/memfd:") != NULL;
    }
    if (file != NULL) {
        fclose(file);
    }
    if (count > 0 && simulation.faults[FAULT_CLIENT_KILLED] == 0 &&
        simulation.faults[FAULT_BROKER_KILLED] == 0) {
        world_violation("%u mappings of rings or logs are left", count);
    }
}

static void settle(void)
{
    world_trace("settling");
    simulation.is_settling = true;
    for (uint32_t i = 0; i < simulation.actor_count; i++) {
        wait_for_end(slots[i].process);
    }
    world_sleep_ns(LINGER_NS); /* sessions of killed clients end */
    oracle_check_admitted(points_admitted_count());
    stop_broker();
    if (broker.status != RSI_OK) {
        world_violation("the broker has no clients, but ends with %s", broker.error.text);
    }
    oracle_check_goodbyes();
    check_mappings();
}

void director_main(void *arg)
{
    (void)arg;
    rsi_log_set_level(RSI_LOG_ERROR);
    start_broker();
    for (uint32_t i = 0; i < simulation.actor_count; i++) {
        start_actor(i);
    }
    for (uint32_t i = 0; i < simulation.fault_count; i++) {
        world_sleep_ns(world_random((UINT64_C(1) << 14) << world_random(17))); /* to 1 s */
        replace_ended_actors();
        make_fault();
    }
    settle();
}
