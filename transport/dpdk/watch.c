/*
 * The watch thread: looks at the port when nobody else does, and wakes sleepers.
 *
 * Design notes
 * - af_packet and most other drivers wake nobody when a frame comes, so somebody has to look. The
 *   look costs some microseconds of CPU; a millisecond apart that is below one per cent of a core.
 * - While others poll the port and none of them sleeps, there is nothing to look for, and each look
 *   would take the CPU from one of them: so after some looks of that kind the thread rests. Who
 *   goes to sleep ends its rest. The one publishes that it rests, then looks for sleepers; the
 *   other that it sleeps, then looks whether the thread rests: one of them sees the other.
 */
#include "core/clock.h"
#include "core/position.h"
#include "transport/dpdk/station.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

/* The kernel would add 50 us to each sleep, to save wake-ups. */
#define TIMER_SLACK_NS 1000UL
/* Looks in a row at which others polled and nobody slept, before a rest. */
#define NEEDLESS_LOOKS 8u
/* The longest: a thread that stopped polling without a word is noticed after it. */
#define REST_NS UINT64_C(20000000)

/* Wakes those whose time is up; they set a new one before they sleep again. Returns whether a
 * poller sleeps. */
static bool wake_overdue(struct rsi_station *station, uint64_t now_ns)
{
    bool has_sleeper = false;
    rsi_dpdk_lock_take(&station->receive_lock);
    for (struct rsi_station_queue *queue = station->queues; queue != NULL; queue = queue->next) {
        /* Pairs with the store before the owner's rsi_waker_prepare(). */
        uint64_t deadline_ns = rsi_load_relaxed(&queue->deadline_ns);
        has_sleeper = has_sleeper || deadline_ns != UINT64_MAX;
        if (deadline_ns <= now_ns) {
            rsi_waker_wake(&queue->waker);
        }
    }
    rsi_dpdk_lock_give(&station->receive_lock);
    return has_sleeper;
}

static uint64_t next_interval_ns(const struct rsi_station *station, uint64_t interval_ns,
                                 bool has_news)
{
    if (has_news) {
        return rsi_pos_min(RSI_STATION_WATCH_NS, station->idle_ns);
    }
    return rsi_pos_min(interval_ns + interval_ns / 4, station->idle_ns);
}

/* A wake-up that was meant for a rest may come after it: taken here, or no later nap would last. */
static void nap(struct rsi_station *station, uint64_t interval_ns)
{
    struct pollfd waiting = {.fd = station->watch_waker.fd, .events = POLLIN};
    struct timespec interval = {
        .tv_sec = (time_t)(interval_ns / 1000000000),
        .tv_nsec = (long)(interval_ns % 1000000000),
    };
    if (ppoll(&waiting, 1, &interval, NULL) > 0) {
        rsi_waker_finish(&station->watch_waker);
        rsi_waker_prepare(&station->watch_waker); /* before the look whether to stop */
    }
}

/* Until somebody sleeps, the end is asked for, or REST_NS are over. */
static void rest(struct rsi_station *station)
{
    rsi_store_relaxed(&station->is_resting, true);
    rsi_fence_seq_cst(); /* pairs with the sleeper's in rsi_waker_prepare() */
    if (!wake_overdue(station, rsi_clock_now_ns())) {
        nap(station, REST_NS);
    }
    rsi_store_relaxed(&station->is_resting, false);
}

void rsi_station_end_rest(struct rsi_station *station)
{
    if (rsi_load_relaxed(&station->is_resting)) {
        rsi_waker_wake(&station->watch_waker);
    }
}

static void *watch(void *argument)
{
    struct rsi_station *station = argument;
    struct rsi_port *port = station->port;
    uint64_t interval_ns = RSI_STATION_WATCH_NS;
    uint64_t seen_count = 0;
    uint32_t needless_count = 0;
    (void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0);
    port->operations->thread_begin(port);
    rsi_waker_prepare(&station->watch_waker);
    while (!rsi_load_acquire(&station->must_stop)) {
        bool has_sleeper = wake_overdue(station, rsi_clock_now_ns());
        bool is_watched = rsi_load_relaxed(&station->receive_count) != seen_count;
        bool is_needed = has_sleeper || !is_watched;
        bool has_news = is_needed && rsi_station_receive(station, NULL) != 0;
        seen_count = rsi_load_relaxed(&station->receive_count);
        needless_count = is_needed ? 0 : needless_count + 1;
        if (needless_count > NEEDLESS_LOOKS) {
            rest(station);
            interval_ns = RSI_STATION_WATCH_NS;
        } else {
            interval_ns = next_interval_ns(station, interval_ns, has_news);
            nap(station, interval_ns);
        }
    }
    rsi_waker_finish(&station->watch_waker);
    port->operations->thread_end(port);
    return NULL;
}

rsi_status_t rsi_station_watch_start(struct rsi_station *station, struct rsi_error *error)
{
    rsi_status_t status = rsi_waker_init(&station->watch_waker, error);
    if (status != RSI_OK) {
        return status;
    }
    /* Signals are the application's threads' business. */
    sigset_t every;
    sigset_t before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    int failure = pthread_create(&station->watch_thread, NULL, watch, station);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0) {
        rsi_waker_fini(&station->watch_waker);
        return rsi_fail_errno(error, RSI_E_SYSTEM, failure,
                              "cannot start the thread that watches a dpdk port");
    }
    (void)pthread_setname_np(station->watch_thread, "ringside-watch");
    station->is_watched = true;
    return RSI_OK;
}

void rsi_station_watch_stop(struct rsi_station *station)
{
    if (!station->is_watched) {
        return;
    }
    rsi_store_release(&station->must_stop, true); /* pairs with the acquire in watch() */
    rsi_waker_wake(&station->watch_waker);
    pthread_join(station->watch_thread, NULL);
    rsi_waker_fini(&station->watch_waker);
    station->is_watched = false;
}
