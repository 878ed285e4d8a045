/*
 * Pollers and their completion queues: set-up.
 *
 * Design notes
 * - A completion queue must hold every completion that its links can have at once, flushed
 *   unsignalled work included: an overrun breaks the queue for all of them. So it is sized for the
 *   full send and receive queues of its links, and takes no more links than that. When it is full
 *   the poller gets another one; so no device's largest queue limits the number of links.
 * - Queues are made when the first link on a device comes, because before that the device is not
 *   known. They stay until the poller goes: a device keeps few of them, and links come and go.
 */
#include "transport/rdma/rdma_internal.h"

#include "core/assert.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define COMPLETIONS_PER_LINK (RSI_RDMA_SEND_COUNT + RSI_RDMA_RECEIVE_COUNT)

static void queue_fini(struct rsi_rdma_queue *queue)
{
    if (queue->cq != NULL) {
        if (queue->unacknowledged_count > 0) {
            ibv_ack_cq_events(queue->cq, queue->unacknowledged_count);
        }
        int reason = ibv_destroy_cq(queue->cq);
        if (reason != 0) {
            rsi_log_error("rdma", "the device keeps a completion queue: %s", strerror(reason));
        }
    }
    if (queue->channel != NULL) {
        (void)ibv_destroy_comp_channel(queue->channel);
    }
    *queue = (struct rsi_rdma_queue){0};
}

static uint32_t link_limit_of(const struct rsi_rdma_device *device,
                              const struct rsi_rdma_poller *poller)
{
    uint32_t limit = (uint32_t)device->attributes.max_cqe / COMPLETIONS_PER_LINK;
    if (limit > RSI_RDMA_QUEUE_LINKS) {
        limit = RSI_RDMA_QUEUE_LINKS;
    }
    return limit < poller->base.link_count_max ? limit : poller->base.link_count_max;
}

static rsi_status_t queue_init(struct rsi_rdma_queue *queue, struct rsi_rdma_poller *poller,
                               struct rsi_rdma_device *device, struct rsi_error *error)
{
    const char *name = device->verbs->device->name;
    *queue = (struct rsi_rdma_queue){.device = device, .link_limit = link_limit_of(device, poller)};
    if (queue->link_limit == 0) {
        return rsi_fail(error, RSI_E_LIMIT,
                        "device %s has completion queues of %d entries, one link needs %u", name,
                        device->attributes.max_cqe, COMPLETIONS_PER_LINK);
    }
    queue->channel = ibv_create_comp_channel(device->verbs);
    if (queue->channel == NULL) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "device %s gives no completion channel", name);
    }
    int entry_count = (int)(queue->link_limit * COMPLETIONS_PER_LINK);
    queue->cq = ibv_create_cq(device->verbs, entry_count, NULL, queue->channel, 0);
    if (queue->cq == NULL) {
        int reason = errno;
        if (reason == ENOMEM || reason == EAGAIN || reason == EPERM) {
            return rsi_rdma_memory_lock_fail(
                error, "completion queue", (uint64_t)entry_count * sizeof(struct ibv_wc),
                rsi_rdma_domain_of(poller->base.domain)->registered_bytes,
                rsi_rdma_memory_lock_limit(), reason);
        }
        return rsi_fail_errno(error, RSI_E_SYSTEM, reason,
                              "device %s gives no completion queue of %d entries", name,
                              entry_count);
    }
    int flags = fcntl(queue->channel->fd, F_GETFL);
    struct epoll_event event = {.events = EPOLLIN};
    if (flags < 0 || fcntl(queue->channel->fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
        epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, queue->channel->fd, &event) != 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot watch the completion channel of device %s", name);
    }
    return RSI_OK;
}

rsi_status_t rsi_rdma_queue_find(struct rsi_rdma_queue **queue, struct rsi_rdma_poller *poller,
                                 struct rsi_rdma_device *device, struct rsi_error *error)
{
    uint32_t count = rsi_load_relaxed(&poller->queue_count);
    for (uint32_t i = 0; i < count; i++) {
        struct rsi_rdma_queue *known = &poller->queues[i];
        if (known->device == device && known->link_count < known->link_limit) {
            *queue = known;
            return RSI_OK;
        }
    }
    if (count == RSI_RDMA_QUEUE_COUNT_MAX) {
        return rsi_fail(error, RSI_E_LIMIT, "all %u completion queues of this poller are full",
                        RSI_RDMA_QUEUE_COUNT_MAX);
    }
    struct rsi_rdma_queue *made = &poller->queues[count];
    rsi_status_t status = queue_init(made, poller, device, error);
    if (status != RSI_OK) {
        queue_fini(made);
        return status;
    }
    /* Pairs with the acquire in poll_data: the owner thread sees the queue complete. */
    rsi_store_release(&poller->queue_count, count + 1);
    *queue = made;
    return RSI_OK;
}

rsi_status_t rsi_rdma_slot_reserve(struct rsi_rdma_poller *poller, struct rsi_error *error)
{
    if (poller->link_count == poller->base.link_count_max) {
        return rsi_fail(error, RSI_E_LIMIT, "this thread serves %u links already, its limit",
                        poller->base.link_count_max);
    }
    poller->link_count++;
    return RSI_OK;
}

uint32_t rsi_rdma_slot_find(struct rsi_rdma_poller *poller)
{
    uint32_t slot = 0;
    /* Pairs with the release of the owner thread that emptied it. */
    while (rsi_load_acquire(&poller->slots[slot]) != NULL) {
        slot++;
        rsi_assert(slot < poller->base.link_count_max); /* a place was reserved */
    }
    return slot;
}

void rsi_rdma_poller_destroy(struct rsi_poller *base)
{
    struct rsi_rdma_poller *poller = rsi_rdma_poller_of(base);
    uint32_t count = rsi_load_relaxed(&poller->queue_count);
    for (uint32_t i = 0; i < count; i++) {
        queue_fini(&poller->queues[i]);
    }
    if (poller->epoll_fd >= 0) {
        close(poller->epoll_fd);
    }
    if (poller->timer_fd >= 0) {
        close(poller->timer_fd);
    }
    free(poller->slots);
    free(poller);
}

rsi_status_t rsi_rdma_poller_create(struct rsi_poller **poller, struct rsi_domain *domain,
                                    const struct rsi_poller_options *options,
                                    struct rsi_error *error)
{
    if (options->link_count_max == 0 || options->link_count_max > RSI_RDMA_LINK_COUNT_MAX) {
        return rsi_fail(error, RSI_E_INVALID, "a poller serves 1 to %u links, not %u",
                        RSI_RDMA_LINK_COUNT_MAX, options->link_count_max);
    }
    struct rsi_rdma_poller *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for an rdma poller");
    }
    made->base = (struct rsi_poller){
        .transport = &rsi_rdma_transport,
        .domain = domain,
        .control_waker = options->control_waker,
        .owner_waker = options->owner_waker,
        .link_count_max = options->link_count_max,
    };
    made->slots = calloc(options->link_count_max, sizeof(*made->slots));
    made->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    made->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN};
    rsi_status_t status = RSI_OK;
    if (made->slots == NULL) {
        status = rsi_fail(error, RSI_E_NO_MEMORY, "no memory for an rdma poller");
    } else if (made->epoll_fd < 0 || made->timer_fd < 0 ||
               epoll_ctl(made->epoll_fd, EPOLL_CTL_ADD, made->timer_fd, &event) != 0) {
        status = rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                                "cannot make the descriptors of an rdma poller");
    }
    if (status != RSI_OK) {
        rsi_rdma_poller_destroy(&made->base);
        return status;
    }
    *poller = &made->base;
    return RSI_OK;
}
