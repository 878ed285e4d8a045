/*
 * The watch thread: looks at the port when nobody else does, and wakes sleepers.
 *
 * Design notes
 * - Where no driver wakes when a frame comes, somebody has to look. The look costs some
 *   microseconds of CPU; a millisecond apart that is below one per cent of a core. Where the driver
 *   can, the thread sleeps until then.
 * - While a poller is awake and looks at the port itself, there is nothing to look for, and each
 *   look would take the CPU from one of them: so after some looks of that kind the thread rests. A
 *   poller that has much to do, or waits for a core, is given ATTENDED_NS between its looks.
 * - Who goes to sleep ends a rest, and a sleep that would last beyond its own time. The one
 *   publishes until when it sleeps, then looks for sleepers; the other that it sleeps, then looks
 *   how long the thread does: one of them sees the other.
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
/* Looks in a row at which a poller attended to the port, before a rest. */
#define NEEDLESS_LOOKS 8u
/* Who has looked at the port within this time and does not sleep will look again. */
#define ATTENDED_NS UINT64_C(5000000)
/* The longest: a thread that stopped polling without a word is noticed after it. */
#define REST_NS UINT64_C(20000000)

struct view {
    uint64_t due_ns;  /* the earliest time that a poller sleeps until; UINT64_MAX: none sleeps */
    bool is_attended; /* a poller is awake and looks at the port */
};

static bool attends(struct rsi_station_queue *queue, uint64_t deadline_ns, uint64_t now_ns)
{
    uint64_t look_count = rsi_load_relaxed(&queue->look_count);
    if (look_count != queue->seen_look_count) {
        queue->seen_look_count = look_count;
        queue->seen_ns = now_ns;
    }
    return look_count != 0 && deadline_ns == UINT64_MAX && now_ns - queue->seen_ns < ATTENDED_NS;
}

/* Wakes those whose time is up; they set a new one before they sleep again. */
static struct view look_around(struct rsi_station *station, uint64_t now_ns)
{
    struct view view = {.due_ns = UINT64_MAX};
    rsi_dpdk_lock_take(&station->receive_lock);
    for (struct rsi_station_queue *queue = station->queues; queue != NULL; queue = queue->next) {
        /* Pairs with the store before the owner's rsi_waker_prepare(). */
        uint64_t deadline_ns = rsi_load_relaxed(&queue->deadline_ns);
        view.due_ns = rsi_pos_min(view.due_ns, deadline_ns);
        view.is_attended |= attends(queue, deadline_ns, now_ns);
        if (deadline_ns <= now_ns) {
            rsi_waker_wake(&queue->waker);
        }
    }
    rsi_dpdk_lock_give(&station->receive_lock);
    return view;
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

/* Says until when this thread sleeps; what has happened up to then is seen in the answer. */
static struct view begin_sleep(struct rsi_station *station, uint64_t until_ns)
{
    rsi_store_relaxed(&station->wake_before_ns, until_ns);
    rsi_fence_seq_cst(); /* pairs with the sleeper's in rsi_waker_prepare() */
    return look_around(station, rsi_clock_now_ns());
}

static void end_sleep(struct rsi_station *station)
{
    rsi_store_relaxed(&station->wake_before_ns, 0);
}

void rsi_station_sleep(struct rsi_station *station, uint64_t deadline_ns)
{
    if (deadline_ns < rsi_load_relaxed(&station->wake_before_ns)) {
        rsi_waker_wake(&station->watch_waker);
    }
}

/* While a poller attends to the port: until another one's time is up, somebody goes to sleep, the
 * end is asked for, or REST_NS are over. */
static void rest(struct rsi_station *station)
{
    uint64_t now_ns = rsi_clock_now_ns();
    struct view view = begin_sleep(station, UINT64_MAX);
    uint64_t until_ns = rsi_pos_min(view.due_ns, now_ns + REST_NS);
    if (view.is_attended && until_ns > now_ns) {
        nap(station, -1, until_ns - now_ns);
    }
    end_sleep(station);
}

/* Until a frame comes or a poller's time is up, the first at `due_ns`. False: the device wakes
 * nobody, or that time was up already and the poller has not run yet. */
static bool sleep_armed(struct rsi_station *station, uint64_t due_ns)
{
    struct rsi_port *port = station->port;
    uint64_t now_ns = rsi_clock_now_ns();
    uint64_t until_ns = rsi_pos_min(now_ns + RSI_STATION_ARMED_NS, due_ns);
    int fd = port->operations->arm != NULL && until_ns > now_ns ? port->operations->arm(port) : -1;
    if (fd < 0) {
        return false;
    }
    until_ns = rsi_pos_min(until_ns, begin_sleep(station, until_ns).due_ns);
    uint32_t frame_count = rsi_station_receive(station, NULL); /* the last look */
    if (frame_count == 0 && until_ns > now_ns) {
        nap(station, fd, until_ns - now_ns);
    }
    end_sleep(station);
    port->operations->disarm(port, fd);
    return true;
}

static void *watch(void *argument)
{
    struct rsi_station *station = argument;
    struct rsi_port *port = station->port;
    uint64_t interval_ns = RSI_STATION_WATCH_NS;
    uint32_t needless_count = 0;
    (void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0);
    port->operations->thread_begin(port);
    rsi_waker_prepare(&station->watch_waker);
    while (!rsi_load_acquire(&station->must_stop)) {
        struct view view = look_around(station, rsi_clock_now_ns());
        bool has_news = !view.is_attended && rsi_station_receive(station, NULL) != 0;
        needless_count = view.is_attended ? needless_count + 1 : 0;
        if (needless_count > NEEDLESS_LOOKS) {
            rest(station);
            interval_ns = RSI_STATION_WATCH_NS;
        } else if (view.is_attended || has_news || !sleep_armed(station, view.due_ns)) {
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
