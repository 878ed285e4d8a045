/*
 * Registered memory of a link.
 *
 * Design notes
 * - What the peer may write is one region: the words page and right behind it the in ring, at
 *   addresses without a gap (the page is the ring arena's prefix). It is registered once, N bytes
 *   and not the mirror's 2N, because every registered page is pinned and counted against the
 *   memlock limit.
 * - The peer never gets that region's own key, which has no remote rights. It gets the key of a
 *   type 2 window over the same bytes that is bound to this link's queue pair, so that another
 *   client's queue pair cannot use a guessed key although all share one protection domain. Window
 *   and region cover the same bytes because some devices check only the region's bounds.
 * - The window is allocated after its queue pair and deallocated before it: the other way round
 *   makes some kernels hang.
 * - A side without windows gives out the region's key itself. The accepting side does so only on a
 *   fabric that the operator declares trusted; a dialling side only exposes its own delivery ring
 *   to the broker it chose.
 * - Relaxed ordering is never asked for: a reader takes the immediate's completion for the proof
 *   that all bytes before it are there.
 */
#include "transport/rdma/rdma_internal.h"

#include "core/log.h"
#include "core/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* ---- registration --------------------------------------------------------------------------- */

uint64_t rsi_rdma_memory_lock_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return UINT64_MAX;
    }
    return limit.rlim_cur;
}

rsi_status_t rsi_rdma_memory_lock_fail(struct rsi_error *error, const char *name, uint64_t bytes,
                                       uint64_t registered_bytes, uint64_t limit_bytes,
                                       int errno_value)
{
    char limit_text[48];
    if (limit_bytes == UINT64_MAX) {
        (void)rsi_text_copy(limit_text, sizeof limit_text, "unlimited");
    } else {
        snprintf(limit_text, sizeof limit_text, "%" PRIu64 " KiB", limit_bytes / 1024);
    }
    return rsi_fail_errno(
        error, RSI_E_NO_MEMORY_LOCK, errno_value,
        "cannot register the %s with the RDMA device: needs %" PRIu64
        " KiB of locked memory beside "
        "%" PRIu64 " KiB that are registered already, and the limit (ulimit -l) is %s; raise it "
        "(memlock in /etc/security/limits.d, or LimitMEMLOCK= in the systemd unit), or make the "
        "rings smaller",
        name, (bytes + 1023) / 1024, registered_bytes / 1024, limit_text);
}

rsi_status_t rsi_rdma_region_init(struct rsi_rdma_region *region, struct rsi_rdma_link *link,
                                  const char *name, void *start, uint64_t bytes, int access,
                                  struct rsi_error *error)
{
    struct rsi_rdma_domain *domain = rsi_rdma_domain_of(link->base.poller->domain);
    struct ibv_mr *mr = ibv_reg_mr(link->device->pd, start, bytes, access);
    if (mr == NULL) {
        int reason = errno;
        if (reason == ENOMEM || reason == EAGAIN || reason == EPERM) {
            return rsi_rdma_memory_lock_fail(error, name, bytes, domain->registered_bytes,
                                             rsi_rdma_memory_lock_limit(), reason);
        }
        return rsi_fail_errno(error, RSI_E_SYSTEM, reason,
                              "device %s does not register the %s of %" PRIu64 " bytes",
                              link->device->verbs->device->name, name, bytes);
    }
    *region = (struct rsi_rdma_region){.mr = mr, .bytes = bytes};
    domain->registered_bytes += bytes;
    return RSI_OK;
}

void rsi_rdma_window_fini(struct rsi_rdma_region *region)
{
    if (region->mw == NULL) {
        return;
    }
    int reason = ibv_dealloc_mw(region->mw);
    if (reason != 0) {
        rsi_log_distinct(RSI_LOG_ERROR, "rdma", "the device keeps a memory window: %s",
                         strerror(reason));
    }
    region->mw = NULL;
}

void rsi_rdma_region_fini(struct rsi_rdma_region *region, struct rsi_rdma_link *link)
{
    if (region->mr == NULL) {
        return;
    }
    int reason = ibv_dereg_mr(region->mr);
    if (reason != 0) {
        rsi_log_distinct(RSI_LOG_ERROR, "rdma", "the device keeps a memory region: %s",
                         strerror(reason));
    }
    rsi_rdma_domain_of(link->base.poller->domain)->registered_bytes -= region->bytes;
    *region = (struct rsi_rdma_region){0};
}

/* ---- buffers of the control lane ------------------------------------------------------------ */

static int memory_node(const struct rsi_rdma_link *link)
{
    int wanted = link->base.poller->domain->options.node;
    return wanted >= 0 ? wanted : link->device->node;
}

static void receives_init(struct rsi_rdma_link *link)
{
    struct rsi_rdma_data *data = &link->data;
    for (uint32_t i = 0; i < RSI_RDMA_RECEIVE_COUNT; i++) {
        data->receive_spans[i] = (struct ibv_sge){
            .addr = (uintptr_t)(link->receive_buffers + (size_t)i * RSI_RDMA_BUFFER_BYTES),
            .length = RSI_RDMA_RECORD_BYTES,
            .lkey = link->buffers_region.mr->lkey,
        };
        data->receives[i] = (struct ibv_recv_wr){
            .wr_id = rsi_rdma_work_id(RSI_RDMA_WORK_RECEIVE, link->slot, i),
            .sg_list = &data->receive_spans[i],
            .num_sge = 1,
        };
    }
}

rsi_status_t rsi_rdma_buffers_init(struct rsi_rdma_link *link, struct rsi_error *error)
{
    struct rsi_arena_options options = {
        .name = "rdma buffers",
        .bytes = RSI_RDMA_BUFFERS_BYTES,
        .node = memory_node(link),
    };
    rsi_status_t status = rsi_arena_init(&link->buffers, &options, error);
    if (status != RSI_OK) {
        return status;
    }
    status =
        rsi_rdma_region_init(&link->buffers_region, link, "control buffers", link->buffers.base,
                             RSI_RDMA_BUFFERS_BYTES, IBV_ACCESS_LOCAL_WRITE, error);
    if (status != RSI_OK) {
        rsi_arena_fini(&link->buffers);
        return status;
    }
    link->receive_buffers = link->buffers.base;
    link->send_buffers = link->receive_buffers + RSI_RDMA_RECEIVE_COUNT * RSI_RDMA_BUFFER_BYTES;
    link->own_words =
        (uint64_t *)(void *)(link->send_buffers + RSI_RDMA_SEND_BUFFERS * RSI_RDMA_BUFFER_BYTES);
    receives_init(link);
    return RSI_OK;
}

/* ---- rings ---------------------------------------------------------------------------------- */

static rsi_status_t out_ring_init(struct rsi_rdma_link *link, struct rsi_error *error)
{
    if (link->rings.out_bytes == 0) {
        return RSI_OK;
    }
    const struct rsi_domain_options *domain_options = &link->base.poller->domain->options;
    struct rsi_ring_options options = {
        .name = "rdma out ring",
        .capacity_bytes = link->rings.out_bytes,
        .node = memory_node(link),
        .want_huge = true,
        .want_lock = domain_options->lock_memory,
    };
    rsi_status_t status = rsi_ring_init(&link->base.out, &options, error);
    if (status != RSI_OK) {
        return status;
    }
    /* The device only reads it; no right is needed for that. */
    return rsi_rdma_region_init(&link->out_region, link, "out ring", link->base.out.base,
                                link->rings.out_bytes, 0, error);
}

/* The words page and the in ring behind it; without an in ring only the page. */
static rsi_status_t in_memory_init(struct rsi_rdma_link *link, uint8_t **start,
                                   struct rsi_error *error)
{
    const struct rsi_domain_options *domain_options = &link->base.poller->domain->options;
    if (link->rings.in_bytes == 0) {
        struct rsi_arena_options options = {
            .name = "rdma words",
            .bytes = RSI_WORDS_BYTES,
            .node = memory_node(link),
        };
        rsi_status_t status = rsi_arena_init(&link->words_arena, &options, error);
        if (status == RSI_OK) {
            *start = link->words_arena.base;
        }
        return status;
    }
    struct rsi_ring_options options = {
        .name = "rdma in ring",
        .capacity_bytes = link->rings.in_bytes,
        .prefix_bytes = RSI_WORDS_BYTES,
        .node = memory_node(link),
        .want_huge = true,
        .want_lock = domain_options->lock_memory,
    };
    rsi_status_t status = rsi_ring_init(&link->base.in, &options, error);
    if (status == RSI_OK) {
        *start = link->base.in.base - RSI_WORDS_BYTES;
    }
    return status;
}

static rsi_status_t in_region_init(struct rsi_rdma_link *link, struct rsi_error *error)
{
    uint8_t *start = NULL;
    rsi_status_t status = in_memory_init(link, &start, error);
    if (status != RSI_OK) {
        return status;
    }
    bool has_windows = link->device->has_windows;
    int access = IBV_ACCESS_LOCAL_WRITE |
                 (has_windows ? (int)IBV_ACCESS_MW_BIND : (int)IBV_ACCESS_REMOTE_WRITE);
    status = rsi_rdma_region_init(&link->in_region, link, "in ring", start,
                                  RSI_WORDS_BYTES + link->rings.in_bytes, access, error);
    if (status != RSI_OK) {
        return status;
    }
    link->data.peer_words = (struct rsi_words *)(void *)start;
    rsi_attach_init(&link->own_attach, &link->rings);
    link->own_attach.words_address = (uintptr_t)start;
    link->own_attach.ring_address = (uintptr_t)start + RSI_WORDS_BYTES;
    link->own_attach.key = link->in_region.mr->rkey;
    link->own_attach.batch_credit = RSI_RDMA_BATCH_CREDIT;
    if (!has_windows) {
        return RSI_OK;
    }
    struct ibv_mw *mw = ibv_alloc_mw(link->device->pd, IBV_MW_TYPE_2);
    if (mw == NULL) {
        return rsi_fail_errno(error, RSI_E_SYSTEM, errno,
                              "device %s has no memory window left (it allows %d)",
                              link->device->verbs->device->name, link->device->attributes.max_mw);
    }
    link->in_region.mw = mw;
    /* The key after the next bind; the window itself goes on showing the old one. */
    link->own_attach.key = ibv_inc_rkey(mw->rkey);
    return RSI_OK;
}

static rsi_status_t rings_possible(const struct rsi_rdma_link *link,
                                   const struct rsi_link_rings *rings, struct rsi_error *error)
{
    rsi_status_t status = rsi_link_rings_check(rings, error);
    if (status != RSI_OK) {
        return status;
    }
    if (!link->device->has_windows && !link->is_dialled &&
        !link->base.poller->domain->options.trusted_fabric) {
        return rsi_fail(error, RSI_E_UNSUPPORTED,
                        "device %s has no memory windows of type 2, so one client could write "
                        "another's ring: use another device, or declare the fabric trusted",
                        link->device->verbs->device->name);
    }
    uint64_t ring_bytes_max = link->data.way.write_bytes_max * RSI_RDMA_WRITES_PER_RING_MAX;
    if (rings->out_bytes > ring_bytes_max) {
        return rsi_fail(error, RSI_E_LIMIT,
                        "device %s writes at most %" PRIu64
                        " bytes at once, so a ring can have %" PRIu64 " bytes, not %" PRIu64
                        ": make the rings smaller",
                        link->device->verbs->device->name, link->data.way.write_bytes_max,
                        ring_bytes_max, rings->out_bytes);
    }
    return RSI_OK;
}

rsi_status_t rsi_rdma_rings_init(struct rsi_rdma_link *link, const struct rsi_link_rings *rings,
                                 struct rsi_error *error)
{
    rsi_status_t status = rings_possible(link, rings, error);
    if (status != RSI_OK) {
        return status;
    }
    link->rings = *rings;
    status = in_region_init(link, error);
    if (status == RSI_OK) {
        status = out_ring_init(link, error);
    }
    if (status != RSI_OK) {
        rsi_rdma_window_fini(&link->in_region);
        rsi_rdma_region_fini(&link->in_region, link);
        rsi_rdma_region_fini(&link->out_region, link);
        rsi_ring_fini(&link->base.in);
        rsi_ring_fini(&link->base.out);
        rsi_arena_fini(&link->words_arena);
        link->data.peer_words = NULL;
    }
    return status;
}

void rsi_rdma_regions_fini(struct rsi_rdma_link *link)
{
    rsi_rdma_region_fini(&link->in_region, link);
    rsi_rdma_region_fini(&link->out_region, link);
    rsi_rdma_region_fini(&link->buffers_region, link);
}

void rsi_rdma_memory_fini(struct rsi_rdma_link *link)
{
    rsi_ring_fini(&link->base.in);
    rsi_ring_fini(&link->base.out);
    rsi_arena_fini(&link->words_arena);
    rsi_arena_fini(&link->buffers);
}
