/*
 * Design notes
 *
 * - The anchor is a thread's own, so the fast path shares nothing and needs no atomics. Threads and
 *   processes agree because each follows CLOCK_MONOTONIC, not because they share a calibration.
 * - The counter's rate is measured once per process over a few milliseconds, which is good to some
 *   ppm; later anchors take it over the whole life of the process, which also follows the slewing
 * of CLOCK_MONOTONIC.
 * - A thread's time never goes back: when an anchor finds that the thread ran ahead of
 *   CLOCK_MONOTONIC, it starts from the last time shown, and the rate until the next anchor is
 * lowered so that the lead is gone by then.
 * - rdtsc is read without a serialising instruction: the CPU may move it by some tens of
 *   nanoseconds, which is below the stated error.
 * - A TSC that the kernel itself does not trust as its clock (other cores' counters differ, or it
 *   stops in deep sleep) is not used.
 */
#include "core/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "core/assert.h"
#include "core/atomics.h"

#define NS_PER_S            UINT64_C(1000000000)
#define CALIBRATION_NS      UINT64_C(5000000)
#define CALIBRATION_SAMPLES 8
#define LONG_BASELINE_NS    NS_PER_S
#define TICKS_PER_S_MIN     (UINT64_C(500) * 1000 * 1000)
#define TICKS_PER_S_MAX     (UINT64_C(20) * 1000 * 1000 * 1000)
#define RATE_CHANGE_PPM_MAX 600

/* A shifted rate times the ticks of one anchor must stay within 64 bits. */
rsi_static_assert(RSI_CLOCK_ANCHOR_NS * 8 < UINT64_C(1) << 32);

struct sample {
    uint64_t ticks;
    uint64_t ns;
};

/* Written once under calibration_once, read-only after it. */
static struct {
    bool uses_tsc;
    const char *reason;
    struct sample origin;
    uint64_t ns_per_tick_shifted;
    uint64_t anchor_ticks;
} calibration;
static pthread_once_t calibration_once = PTHREAD_ONCE_INIT;

_Thread_local struct rsi_clock_thread rsi_clock_thread __attribute__((tls_model("initial-exec")));

static uint64_t system_clock_ns(clockid_t id)
{
    struct timespec now;
    int failed = clock_gettime(id, &now);
    rsi_assert(failed == 0);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* The counter and the monotonic time at one moment: of several tries the one whose two counter
 * readings lie closest together, so that an interrupt in between spoils none. */
static struct sample take_sample(unsigned tries)
{
    struct sample best = {0, 0};
    uint64_t best_width = UINT64_MAX;
    for (unsigned i = 0; i < tries; i++) {
        uint64_t before = rsi_clock_ticks();
        uint64_t ns = system_clock_ns(CLOCK_MONOTONIC);
        uint64_t width = rsi_clock_ticks() - before;
        if (width < best_width) {
            best_width = width;
            best.ticks = before + width / 2;
            best.ns = ns;
        }
    }
    return best;
}

/* ns per tick times 2^RSI_CLOCK_SHIFT between two samples. */
static uint64_t rate_between(struct sample from, struct sample to)
{
    unsigned __int128 scaled = (unsigned __int128)(to.ns - from.ns) << RSI_CLOCK_SHIFT;
    return (uint64_t)(scaled / (to.ticks - from.ticks));
}

#if defined(__x86_64__)
static bool cpu_has_invariant_tsc(void)
{
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    return __get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) != 0 && (edx & (1u << 8)) != 0;
}

/* The kernel's own clock is the TSC, or one that a hypervisor makes from an invariant TSC. */
static bool kernel_trusts_tsc(void)
{
    char name[32] = "";
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    if (file == NULL) {
        return false;
    }
    bool was_read = fgets(name, sizeof name, file) != NULL;
    fclose(file);
    name[strcspn(name, "\n")] = '\0';
    return was_read && (strcmp(name, "tsc") == 0 || strcmp(name, "kvm-clock") == 0 ||
                        strcmp(name, "hyperv_clocksource_tsc_page") == 0);
}
#endif

/* Why the counter cannot be used, or NULL when it can. */
static const char *tsc_obstacle(void)
{
    const char *wish = getenv("RINGSIDE_CLOCK");
    if (wish != NULL && strcmp(wish, "monotonic") == 0) {
        return "RINGSIDE_CLOCK=monotonic is in the environment";
    }
#if defined(__x86_64__)
    if (!cpu_has_invariant_tsc()) {
        return "the CPU's time-stamp counter is not invariant";
    }
    if (!kernel_trusts_tsc()) {
        return "the kernel does not use the time-stamp counter as its clock source";
    }
    return NULL;
#else
    return "this architecture has no time-stamp counter that is used here";
#endif
}

static void calibrate(void)
{
    calibration.reason = tsc_obstacle();
    if (calibration.reason != NULL) {
        return;
    }
    struct sample first = take_sample(CALIBRATION_SAMPLES);
    uint64_t end_ns = first.ns + CALIBRATION_NS;
    while (system_clock_ns(CLOCK_MONOTONIC) < end_ns) {
        rsi_cpu_pause();
    }
    struct sample last = take_sample(CALIBRATION_SAMPLES);
    if (last.ticks <= first.ticks || last.ns <= first.ns) {
        calibration.reason = "the time-stamp counter did not advance";
        return;
    }
    uint64_t ticks_per_s =
        (uint64_t)((unsigned __int128)(last.ticks - first.ticks) * NS_PER_S / (last.ns - first.ns));
    if (ticks_per_s < TICKS_PER_S_MIN || ticks_per_s > TICKS_PER_S_MAX) {
        calibration.reason = "the time-stamp counter runs at an unlikely rate";
        return;
    }
    calibration.origin = first;
    calibration.ns_per_tick_shifted = rate_between(first, last);
    calibration.anchor_ticks = ticks_per_s / (NS_PER_S / RSI_CLOCK_ANCHOR_NS);
    calibration.uses_tsc = true;
}

static void calibrate_once(void)
{
    int failed = pthread_once(&calibration_once, calibrate);
    rsi_assert(failed == 0);
}

/* The rate over the whole life of the process, unless that is short or implausible. */
static uint64_t current_rate(struct sample now)
{
    uint64_t known = calibration.ns_per_tick_shifted;
    if (now.ticks <= calibration.origin.ticks ||
        now.ns < calibration.origin.ns + LONG_BASELINE_NS) {
        return known;
    }
    uint64_t measured = rate_between(calibration.origin, now);
    uint64_t difference = measured > known ? measured - known : known - measured;
    return difference > known / 1000000 * RATE_CHANGE_PPM_MAX ? known : measured;
}

/* Lowers `rate` so that a lead over CLOCK_MONOTONIC is lost within one anchor; at most to half. */
static uint64_t rate_that_loses(uint64_t rate, uint64_t lead_ns)
{
    uint64_t lost_ns = lead_ns < RSI_CLOCK_ANCHOR_NS / 2 ? lead_ns : RSI_CLOCK_ANCHOR_NS / 2;
    return rate - (uint64_t)((unsigned __int128)rate * lost_ns / RSI_CLOCK_ANCHOR_NS);
}

uint64_t rsi_clock_now_slow_ns(void)
{
    struct rsi_clock_thread *clock = &rsi_clock_thread;
    calibrate_once();
    struct sample now = take_sample(calibration.uses_tsc ? 2 : 1);
    uint64_t realtime_ns = system_clock_ns(CLOCK_REALTIME);
    clock->realtime_offset_ns = (int64_t)(realtime_ns - now.ns);
    uint64_t lead_ns = clock->last_ns > now.ns ? clock->last_ns - now.ns : 0;
    if (calibration.uses_tsc) {
        clock->anchor_ticks = now.ticks;
        clock->anchor_ns = now.ns + lead_ns;
        clock->anchor_limit_ticks = calibration.anchor_ticks;
        clock->ns_per_tick_shifted = rate_that_loses(current_rate(now), lead_ns);
    }
    clock->last_ns = now.ns + lead_ns;
    return clock->last_ns;
}

void rsi_clock_prepare(void)
{
    (void)rsi_clock_now_slow_ns();
}

bool rsi_clock_uses_tsc(const char **reason)
{
    calibrate_once();
    if (reason != NULL) {
        *reason = calibration.reason != NULL ? calibration.reason
                                             : "the counter is invariant and the kernel's clock";
    }
    return calibration.uses_tsc;
}
