/*
 * Design notes: see also waker.h.
 *
 * - `sleeping` is taken back by whoever wakes first, so that a burst of wake-ups costs one write.
 * - finish() drains the descriptor whether it was woken or not. A waker that took `sleeping` may be
 *   interrupted before its write, which then lands when the sleeper is long awake; were that count
 * left inside, every later wait would return at once and an idle thread would spin.
 */
#include "core/waker.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

rsi_status_t rsi_waker_init(struct rsi_waker *waker, struct rsi_error *error)
{
    memset(waker, 0, sizeof *waker);
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) {
        bool is_full = errno == EMFILE || errno == ENFILE;
        return rsi_fail_errno(error, is_full ? RSI_E_NO_DESCRIPTORS : RSI_E_SYSTEM, errno,
                              "cannot make an eventfd; raise the limit with 'ulimit -n'");
    }
    waker->fd = fd;
    return RSI_OK;
}

void rsi_waker_fini(struct rsi_waker *waker)
{
    if (waker->fd > 0) {
        close(waker->fd);
    }
    memset(waker, 0, sizeof *waker);
}

void rsi_waker_prepare(struct rsi_waker *waker)
{
    rsi_store_relaxed(&waker->sleeping, 1u);
    rsi_fence_seq_cst(); /* pairs with the fence in rsi_waker_wake() */
}

void rsi_waker_finish(struct rsi_waker *waker)
{
    uint64_t count = 0;
    rsi_store_relaxed(&waker->sleeping, 0u);
    while (read(waker->fd, &count, sizeof count) < 0 && errno == EINTR) {
    }
}

void rsi_waker_wake(struct rsi_waker *waker)
{
    const uint64_t one = 1;
    if (waker == NULL) {
        return;
    }
    rsi_fence_seq_cst(); /* pairs with the fence in rsi_waker_prepare() */
    if (rsi_load_relaxed(&waker->sleeping) == 0) {
        return;
    }
    if (rsi_exchange_acq_rel(&waker->sleeping, 0u) == 0) {
        return; /* another thread wakes it already, or it woke up */
    }
    while (write(waker->fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
    rsi_fetch_add_relaxed(&waker->wakes, 1u);
}
