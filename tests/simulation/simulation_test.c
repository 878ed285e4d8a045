/*
 * Whole systems in virtual time: runs seeds, each in a process of its own, and says which broke a
 * promise and how to see it again.
 *
 *     simulation_test [--seed N] [--seeds K] [--faults F] [--jobs J] [--twice] [--verbose]
 *                     [--mutant NAME | --mutants]
 */
#include "tests/simulation/simulation.h"

#include "core/assert.h"
#include "core/clock.h"
#include "tests/simulation/kernel.h"
#include "tests/simulation/points.h"
#include "transport/sim/sim.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { JOBS_MAX = 16, ALARM_SECONDS = 300, POINTS_MAX = 200000000 };

struct outcome {
    struct world_report report;
    struct oracle_totals totals;
    uint64_t faults[FAULT_COUNT];
    uint64_t admitted;
};

struct settings {
    uint64_t seed;
    uint64_t seed_count;
    uint32_t fault_count;
    uint32_t job_count;
    bool is_twice;
    bool is_verbose;
    bool is_all_mutants;
    enum mutant mutant;
};

struct sums {
    uint64_t run_count;
    uint64_t failed_count;
    uint64_t suspensions, resumptions, renewals, changes, remnants;
    uint64_t switches, published, delivered, gaps, sessions, ended, quiet_checks, compared,
        virtual_ns;
    uint64_t faults[FAULT_COUNT];
};

/* ---- one seed ---------------------------------------------------------------------------------
 */

static void on_quiet(uint64_t jump_ns)
{
    (void)jump_ns;
    oracle_check_quiet();
}

static void on_killed(uint32_t process)
{
    oracle_process_killed(process);
    rsi_sim_kill_process(process, world_one_in(2));
}

static void on_switched(uint32_t process)
{
    rsi_sim_set_process(process);
}

/* What holds for the whole run follows from the seed before the world begins. */
static void choose_simulation(uint64_t seed, uint32_t fault_count)
{
    static const uint32_t policy_masks[] = {
        1u << RINGSIDE_POLICY_DROP,
        1u << RINGSIDE_POLICY_DROP | 1u << RINGSIDE_POLICY_DISCONNECT,
        1u << RINGSIDE_POLICY_DROP | 1u << RINGSIDE_POLICY_BLOCK,
        1u << RINGSIDE_POLICY_BLOCK,
        1u << RINGSIDE_POLICY_DROP | 1u << RINGSIDE_POLICY_DISCONNECT | 1u << RINGSIDE_POLICY_BLOCK,
    };
    simulation = (struct simulation){
        .seed = seed,
        .fault_count = fault_count,
        .agent_count = seed % 5 == 0   ? 1
                       : seed % 7 == 0 ? 3
                                       : 2,
        .actor_count = 3 + (uint32_t)(seed % 4),
        .policy_mask = policy_masks[seed / 4 % rsi_array_count(policy_masks)],
        .has_broker_faults = seed % 3 == 0,
        .has_many_broker_deaths = seed % 9 == 0,
        .has_better_transport = seed % 7 < 3,
        .lacks_descriptors = seed % 11 < 3,
        .is_grace_short = seed % 8 == 1,
    };
}

static void run_seed(const struct settings *settings, uint64_t seed, struct outcome *outcome)
{
    static const uint64_t switch_one_in[] = {1, 2, 4, 8, 16, 64};
    const struct world_options options = {
        .seed = seed,
        .switch_one_in = switch_one_in[seed % rsi_array_count(switch_one_in)],
        .point_count_max = POINTS_MAX,
        .is_verbose = settings->is_verbose,
        .on_quiet = on_quiet,
        .on_killed = on_killed,
        .on_switched = on_switched,
    };
    alarm(ALARM_SECONDS);
    choose_simulation(seed, settings->fault_count);
    points_set_mutant(settings->mutant);
    rsi_sim_set_seed(seed | 1);
    kernel_begin();
    world_run(&options, director_main, NULL, &outcome->report);
    kernel_end();
    outcome->totals = *oracle_totals();
    memcpy(outcome->faults, simulation.faults, sizeof(outcome->faults));
}

/* ---- many seeds -------------------------------------------------------------------------------
 */

struct job {
    pid_t pid; /* 0: none */
    uint64_t seed;
    bool is_second; /* of --twice */
    uint64_t first_hash;
};

static struct outcome *outcomes; /* by job; shared with the children */

static void start_job(const struct settings *settings, struct job *job, struct outcome *outcome)
{
    memset(outcome, 0, sizeof(*outcome));
    fflush(NULL);
    job->pid = fork();
    rsi_assert(job->pid >= 0);
    if (job->pid == 0) {
        if (settings->mutant != MUTANT_NONE && !settings->is_verbose) {
            (void)!freopen("/dev/null", "w", stderr);
        }
        run_seed(settings, job->seed, outcome);
        exit(0);
    }
}

static void add_outcome(struct sums *sums, const struct outcome *outcome)
{
    sums->run_count++;
    sums->switches += outcome->report.switch_count;
    sums->virtual_ns += outcome->report.virtual_ns;
    sums->published += outcome->totals.published_messages;
    sums->delivered += outcome->totals.delivered_messages;
    sums->gaps += outcome->totals.gap_messages;
    sums->sessions += outcome->totals.sessions;
    sums->ended += outcome->totals.sessions_ended;
    sums->quiet_checks += outcome->totals.quiet_checks;
    sums->suspensions += outcome->totals.suspensions;
    sums->resumptions += outcome->totals.resumptions;
    sums->renewals += outcome->totals.renewals;
    sums->changes += outcome->totals.changes;
    sums->remnants += outcome->totals.remnants;
    sums->compared += outcome->totals.counts_compared;
    for (uint32_t i = 0; i < FAULT_COUNT; i++) {
        sums->faults[i] += outcome->faults[i];
    }
}

/* False: the seed failed; says why. */
static bool judge(const struct settings *settings, const struct job *job, int wait_status,
                  struct outcome *outcome)
{
    struct world_report *report = &outcome->report;
    if (report->violation[0] == '\0' && WIFSIGNALED(wait_status)) {
        snprintf(report->violation, sizeof(report->violation), "ended by signal %d (%s)",
                 WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    }
    if (report->violation[0] == '\0' && (WEXITSTATUS(wait_status) != 0 || !report->has_ended)) {
        snprintf(report->violation, sizeof(report->violation), "ended with status %d",
                 WEXITSTATUS(wait_status));
    }
    if (report->violation[0] == '\0' && job->is_second && report->hash != job->first_hash) {
        snprintf(report->violation, sizeof(report->violation),
                 "not the same run again: %016" PRIx64 ", then %016" PRIx64, job->first_hash,
                 report->hash);
    }
    if (report->violation[0] == '\0') {
        return true;
    }
    printf("seed %" PRIu64 ": VIOLATION %s\n", job->seed, report->violation);
    printf("  again: simulation_test --seed %" PRIu64 " --faults %u%s%s --verbose\n", job->seed,
           settings->fault_count, settings->mutant != MUTANT_NONE ? " --mutant " : "",
           settings->mutant != MUTANT_NONE ? mutants[settings->mutant].name : "");
    fflush(stdout);
    return false;
}

/* Runs seeds until all are done, or one failed and `stops_at_failure`. */
static void run_seeds(const struct settings *settings, bool stops_at_failure, struct sums *sums)
{
    struct job jobs[JOBS_MAX] = {0};
    uint64_t next = 0;
    uint32_t running_count = 0;
    for (;;) {
        bool is_done = next == settings->seed_count || (stops_at_failure && sums->failed_count > 0);
        for (uint32_t i = 0; i < settings->job_count && !is_done; i++) {
            if (jobs[i].pid == 0 && next < settings->seed_count) {
                jobs[i] = (struct job){.seed = settings->seed + next++};
                start_job(settings, &jobs[i], &outcomes[i]);
                running_count++;
            }
        }
        if (running_count == 0) {
            return;
        }
        int status = 0;
        pid_t pid = wait(&status);
        uint32_t at = 0;
        while (jobs[at].pid != pid) {
            at++;
        }
        jobs[at].pid = 0;
        running_count--;
        if (!judge(settings, &jobs[at], status, &outcomes[at])) {
            sums->failed_count++;
            continue;
        }
        if (settings->is_twice && !jobs[at].is_second) {
            jobs[at].is_second = true;
            jobs[at].first_hash = outcomes[at].report.hash;
            start_job(settings, &jobs[at], &outcomes[at]);
            running_count++;
            continue;
        }
        add_outcome(sums, &outcomes[at]);
    }
}

static void print_sums(const struct sums *sums)
{
    uint64_t fault_count = 0;
    for (uint32_t i = 0; i < FAULT_COUNT; i++) {
        fault_count += sums->faults[i];
    }
    printf("%" PRIu64 " seeds, %" PRIu64 " faults, %.0f s of virtual time, %" PRIu64 " switches\n",
           sums->run_count, fault_count, (double)sums->virtual_ns / 1e9, sums->switches);
    for (uint32_t i = 0; i < FAULT_COUNT; i++) {
        printf("  %-16s %8" PRIu64 "\n", fault_names[i], sums->faults[i]);
    }
    printf("  suspended %" PRIu64 ", resumed %" PRIu64 ", renewed %" PRIu64 " (%" PRIu64
           " with frames left), changed to a better transport %" PRIu64 "\n",
           sums->suspensions, sums->resumptions, sums->renewals, sums->remnants, sums->changes);
    printf("  published %" PRIu64 ", delivered %" PRIu64 ", in gaps %" PRIu64 ", sessions %" PRIu64
           " of which %" PRIu64 " were ended by faults; %" PRIu64
           " looks while nothing moved, %" PRIu64 " sessions' gaps compared\n",
           sums->published, sums->delivered, sums->gaps, sums->sessions, sums->ended,
           sums->quiet_checks, sums->compared);
}

/* ---- mutants ----------------------------------------------------------------------------------
 */

static bool run_mutants(const struct settings *settings)
{
    uint32_t missed_count = 0;
    for (enum mutant mutant = MUTANT_NONE + 1; mutant < MUTANT_COUNT; mutant++) {
        struct settings changed = *settings;
        struct sums sums = {0};
        changed.mutant = mutant;
        printf("mutant %s: %s\n", mutants[mutant].name, mutants[mutant].what);
        run_seeds(&changed, true, &sums);
        if (sums.failed_count == 0) {
            printf("  NOT FOUND in %" PRIu64 " seeds\n", settings->seed_count);
            missed_count++;
        }
    }
    printf("%u mutants, %u not found\n", MUTANT_COUNT - 1, missed_count);
    return missed_count == 0;
}

static enum mutant find_mutant(const char *name)
{
    for (enum mutant mutant = MUTANT_NONE; mutant < MUTANT_COUNT; mutant++) {
        if (strcmp(mutants[mutant].name, name) == 0) {
            return mutant;
        }
    }
    fprintf(stderr, "no mutant is called %s; there are:\n", name);
    for (enum mutant mutant = MUTANT_NONE; mutant < MUTANT_COUNT; mutant++) {
        fprintf(stderr, "  %-20s %s\n", mutants[mutant].name, mutants[mutant].what);
    }
    exit(2);
}

/* ---- main -------------------------------------------------------------------------------------
 */

static void read_arguments(struct settings *settings, int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},
        {"seeds", required_argument, NULL, 'n'},
        {"faults", required_argument, NULL, 'f'},
        {"jobs", required_argument, NULL, 'j'},
        {"twice", no_argument, NULL, 't'},
        {"verbose", no_argument, NULL, 'v'},
        {"mutant", required_argument, NULL, 'm'},
        {"mutants", no_argument, NULL, 'a'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 's':
            settings->seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            settings->seed_count = strtoull(optarg, NULL, 0);
            break;
        case 'f':
            settings->fault_count = (uint32_t)strtoul(optarg, NULL, 0);
            break;
        case 'j':
            settings->job_count = (uint32_t)strtoul(optarg, NULL, 0);
            break;
        case 't':
            settings->is_twice = true;
            break;
        case 'v':
            settings->is_verbose = true;
            break;
        case 'm':
            settings->mutant = find_mutant(optarg);
            break;
        case 'a':
            settings->is_all_mutants = true;
            break;
        default:
            exit(2);
        }
    }
    if (optind < argc || settings->job_count == 0 || settings->job_count > JOBS_MAX) {
        fprintf(stderr,
                "usage: simulation_test [--seed N] [--seeds K] [--faults F] [--jobs 1-%d] "
                "[--twice] [--verbose] [--mutant NAME | --mutants]\n",
                JOBS_MAX);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct settings settings = {.seed = 1, .seed_count = 1, .fault_count = 100, .job_count = 1};
    read_arguments(&settings, argc, argv);
    setenv("RINGSIDE_CLOCK", "monotonic", 1); /* every look at the clock goes through the kernel */
    unsetenv("RINGSIDE_LOG");
    unsetenv("RINGSIDE_TOKEN_NAME");
    (void)rsi_clock_uses_tsc(NULL); /* decided now, without a look at the real time */
    outcomes = mmap(NULL, JOBS_MAX * sizeof(*outcomes), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    rsi_assert(outcomes != MAP_FAILED);
    if (settings.is_all_mutants) {
        return run_mutants(&settings) ? 0 : 1;
    }
    struct sums sums = {0};
    run_seeds(&settings, false, &sums);
    print_sums(&sums);
    return sums.failed_count == 0 ? 0 : 1;
}
