/*
 * The watch thread: looks at the port when no poller does.
 *
 * Design notes
 * - Pollers that sleep wait for frames themselves where the device can wake (sleep.c). What is left
 *   for this thread: devices that wake nobody, pollers that stopped looking without a word, and
 *   times at which there are no pollers.
 * - A look costs some microseconds of CPU; a millisecond apart below one per cent of a core. Where
 *   the device can, the thread sleeps until a frame comes.
 * - While a poller is awake and looks at the port itself, or the guard sleeps for all, a look would
 *   only take the CPU and the frames from one of them: so it rests. A poller that has much to do
 *   or waits for a core is given ATTENDED_NS between its looks; a guard that does not come is
 *   noticed at the end of a rest.
 * - Who goes to sleep and is not the guard ends a rest. The one says that it sleeps, then looks
 *   around; the other that it sleeps, then looks whether the thread does. One of them sees the
 *   other.
 */
#include "core/assert.h"
#include "core/clock.h"
#include "core/position.h"
#include "transport/dpdk/station.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

/* The kernel would add 50 us to each sleep, to save wake-ups. */
#define TIMER_SLACK_NS 1000UL
/* Who has looked at the port within this time and does not sleep will look again. */
#define ATTENDED_NS UINT64_C(5000000)
/* A poller that stopped looking without a word, or a guard that does not come, is noticed after it.
 * Also how long this thread sleeps where a frame wakes it. */
#define REST_NS UINT64_C(100000000)

static bool attends(struct rsi_station_queue *queue, uint64_t now_ns)
{
    uint64_t look_count = rsi_load_relaxed(&queue->look_count);
    if (look_count != queue->seen_look_count) {
        queue->seen_look_count = look_count;
        queue->seen_ns = now_ns;
    }
    bool is_asleep = rsi_load_relaxed(&queue->waker.sleeping) != 0;
    return look_count != 0 && !is_asleep && now_ns - queue->seen_ns < ATTENDED_NS;
}

/* Whether a poller is awake and looks at the port. */
static bool is_attended(struct rsi_station *station)
{
    uint64_t now_ns = rsi_clock_now_ns();
    bool is_attended = false;
    rsi_dpdk_lock_take(&station->receive_lock);
    for (struct rsi_station_queue *queue = station->queues; queue != NULL; queue = queue->next) {
        is_attended |= attends(queue, now_ns);
    }
    rsi_dpdk_lock_give(&station->receive_lock);
    return is_attended;
}

/* Whether a poller sleeps for all. */
static bool is_guarded(const struct rsi_station *station)
{
    return rsi_load_relaxed(&station->guard) != NULL;
}

/* Nobody is the guard: wakes one that may be, and will when it sleeps again. False: none sleeps. */
static bool call_guard(struct rsi_station *station)
{
    bool is_called = false;
    rsi_dpdk_lock_take(&station->receive_lock);
    for (struct rsi_station_queue *queue = station->queues; queue != NULL && !is_called;
         queue = queue->next) {
        is_called =
            rsi_load_relaxed(&queue->may_guard) && rsi_load_relaxed(&queue->waker.sleeping) != 0;
        if (is_called) {
            rsi_waker_wake(&queue->waker);
        }
    }
    rsi_dpdk_lock_give(&station->receive_lock);
    return is_called;
}

static uint64_t next_interval_ns(const struct rsi_station *station, uint64_t interval_ns,
                                 bool has_news)
{
    if (has_news) {
        return rsi_pos_min(RSI_STATION_WATCH_NS, station->idle_ns);
    }
    return rsi_pos_min(interval_ns + interval_ns / 4, station->idle_ns);
}

/* Until the station's descriptor, or `fd` (-1: none), is readable, or the time is over. */
static void nap(struct rsi_station *station, int fd, uint64_t interval_ns)
{
    struct pollfd waiting[] = {{.fd = station->watch_waker.fd, .events = POLLIN},
                               {.fd = fd, .events = POLLIN}};
    struct timespec interval = {
        .tv_sec = (time_t)(interval_ns / 1000000000),
        .tv_nsec = (long)(interval_ns % 1000000000),
    };
    (void)ppoll(waiting, 2, &interval, NULL);
    /* Also a wake-up that was meant for an earlier sleep: else no later one would last. */
    if (waiting[0].revents != 0) {
        rsi_waker_finish(&station->watch_waker);
        rsi_waker_prepare(&station->watch_waker); /* before the look whether to stop */
    }
}

bool rsi_station_guard_take(struct rsi_station *station, const void *who)
{
    const void *nobody = NULL;
    return rsi_compare_exchange(&station->guard, &nobody, who);
}

void rsi_station_guard_give(struct rsi_station *station, const void *who)
{
    rsi_assert(rsi_load_relaxed(&station->guard) == who);
    rsi_store_release(&station->guard, NULL); /* pairs with the exchange of who takes it */
}

/* This thread says that it sleeps; the caller then looks around once more. */
static void begin_sleep(struct rsi_station *station)
{
    rsi_store_relaxed(&station->watch_sleeps, true);
    rsi_fence_seq_cst(); /* pairs with the sleeper's in rsi_waker_prepare() */
}

static void end_sleep(struct rsi_station *station)
{
    rsi_store_relaxed(&station->watch_sleeps, false);
}

void rsi_station_sleep(struct rsi_station *station, struct rsi_station_queue *queue)
{
    const void *guard = rsi_load_relaxed(&station->guard);
    bool is_for_all = guard != NULL && guard != station;
    rsi_store_relaxed(&queue->may_guard, guard != NULL);
    if (!is_for_all && rsi_load_relaxed(&station->watch_sleeps)) {
        rsi_waker_wake(&station->watch_waker);
    }
}

/* While others look or sleep for all: until somebody goes to sleep beside them, the end is asked
 * for, or REST_NS are over. */
static void rest(struct rsi_station *station)
{
    begin_sleep(station);
    if (is_guarded(station) || is_attended(station)) {
        nap(station, -1, REST_NS);
    }
    end_sleep(station);
}

/* Until a frame comes or somebody goes to sleep. False: the device wakes nobody. */
static bool sleep_armed(struct rsi_station *station)
{
    struct rsi_port *port = station->port;
    if (port->operations->arm == NULL || !rsi_station_guard_take(station, station)) {
        return false;
    }
    int fd = port->operations->arm(port);
    if (fd >= 0) {
        begin_sleep(station);
        if (rsi_station_look(station, NULL) == 0 && !is_attended(station)) {
            nap(station, fd, REST_NS);
        }
        end_sleep(station);
        port->operations->disarm(port, fd);
    }
    rsi_station_guard_give(station, station);
    return fd >= 0;
}

static void *watch(void *argument)
{
    struct rsi_station *station = argument;
    struct rsi_port *port = station->port;
    uint64_t interval_ns = RSI_STATION_WATCH_NS;
    (void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0);
    port->operations->thread_begin(port);
    rsi_waker_prepare(&station->watch_waker);
    while (!rsi_load_acquire(&station->must_stop)) {
        bool is_left_to_others = is_attended(station);
        bool has_news = !is_left_to_others && rsi_station_receive(station, NULL) != 0;
        is_left_to_others |= is_guarded(station) && !has_news;
        if (is_left_to_others) {
            rest(station);
            interval_ns = RSI_STATION_WATCH_NS;
        } else if (has_news || call_guard(station) || !sleep_armed(station)) {
            interval_ns = next_interval_ns(station, interval_ns, has_news);
            nap(station, -1, interval_ns);
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
