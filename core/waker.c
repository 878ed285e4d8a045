/*
 * Design notes: see waker.h. `sleeping` is taken back by whoever wakes first, so that a burst of
 * wake-ups costs one write.
 */
#include "core/waker.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

rsi_status_t rsi_waker_init(struct rsi_waker *waker, struct rsi_error *error)
{
    memset(waker, 0, sizeof(*waker));
    waker->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (waker->fd < 0)
        return rsi_fail_errno(
            error, errno == EMFILE || errno == ENFILE ? RSI_E_NO_DESCRIPTORS : RSI_E_SYSTEM, errno,
            "cannot make an eventfd; raise the limit with ulimit -n");
    return RSI_OK;
}

void rsi_waker_fini(struct rsi_waker *waker)
{
    if (waker->fd > 0)
        close(waker->fd);
    memset(waker, 0, sizeof(*waker));
}

void rsi_waker_prepare(struct rsi_waker *waker)
{
    rsi_store_relaxed(&waker->sleeping, 1u);
    rsi_fence_seq_cst();
}

void rsi_waker_finish(struct rsi_waker *waker)
{
    if (rsi_exchange_acq_rel(&waker->sleeping, 0u) != 0)
        return; /* nobody woke us */
    uint64_t count;
    while (read(waker->fd, &count, sizeof(count)) < 0 && errno == EINTR)
        continue;
}

void rsi_waker_wake(struct rsi_waker *waker)
{
    rsi_fence_seq_cst();
    if (rsi_load_relaxed(&waker->sleeping) == 0)
        return;
    if (rsi_exchange_acq_rel(&waker->sleeping, 0u) == 0)
        return; /* another thread wakes it already */
    uint64_t one = 1;
    while (write(waker->fd, &one, sizeof(one)) < 0 && errno == EINTR)
        continue;
    rsi_fetch_add_relaxed(&waker->wakes, 1u);
}
