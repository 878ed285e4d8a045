/*
 * The double's devices, protection domains, memory regions and windows.
 *
 * Design notes
 * - Stricter than rxe: a window's own bounds are enforced, not only its region's; a region's key is
 *   of no use to a peer unless the region has remote rights.
 * - What makes real devices hang or leak is a fault: a window older than its queue pair, a region
 *   that goes while a window is bound to it or while posted work uses it.
 */
#include "transport/rdma/verbs_double_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- devices -------------------------------------------------------------------------------- */

struct device_list {
    struct double_object object;
    struct ibv_device *devices[VERBS_DOUBLE_DEVICE_COUNT + 1];
};

struct ibv_device **ibv_get_device_list(int *count)
{
    if (!double_enter("ibv_get_device_list", VERBS_DOUBLE_MAKES)) {
        return NULL;
    }
    struct device_list *list = double_alloc(sizeof(*list));
    for (uint32_t i = 0; i < VERBS_DOUBLE_DEVICE_COUNT; i++) {
        list->devices[i] = &double_world.devices[i].device;
    }
    double_add(&list->object, DOUBLE_DEVICE_LIST, list);
    if (count != NULL) {
        *count = VERBS_DOUBLE_DEVICE_COUNT;
    }
    double_leave();
    return list->devices;
}

void ibv_free_device_list(struct ibv_device **devices)
{
    (void)double_enter("ibv_free_device_list", VERBS_DOUBLE_LOOKS);
    struct device_list *list = rsi_container_of(devices, struct device_list, devices);
    double_remove(&list->object);
    double_leave();
}

const char *ibv_get_device_name(struct ibv_device *device)
{
    return device->name;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attributes)
{
    (void)context;
    if (!double_enter("ibv_query_device", VERBS_DOUBLE_WORKS)) {
        return errno;
    }
    memset(attributes, 0, sizeof(*attributes));
    attributes->max_cqe = double_world.options.completions_max;
    attributes->max_mw = 1000;
    attributes->max_qp_wr = (int)DOUBLE_SEND_COUNT_MAX;
    attributes->max_sge = 1;
    attributes->phys_port_cnt = 1;
    if (!double_world.options.has_no_windows) {
        attributes->device_cap_flags |= IBV_DEVICE_MEM_WINDOW_TYPE_2B;
    }
    double_leave();
    return 0;
}

#undef ibv_query_port
int ibv_query_port(struct ibv_context *context, uint8_t port_number,
                   struct _compat_ibv_port_attr *attributes)
{
    (void)context;
    struct ibv_port_attr *port = (struct ibv_port_attr *)attributes;
    if (!double_enter("ibv_query_port", VERBS_DOUBLE_WORKS)) {
        return errno;
    }
    if (port_number != 1) {
        double_fault("ibv_query_port asks for port %u of a device with one", port_number);
    }
    port->state = IBV_PORT_ACTIVE;
    port->max_mtu = IBV_MTU_4096;
    port->active_mtu = IBV_MTU_4096;
    port->gid_tbl_len = 2;
    port->max_msg_sz = double_world.options.message_bytes_max;
    double_leave();
    return 0;
}

int ibv_query_gid(struct ibv_context *context, uint8_t port_number, int index, union ibv_gid *gid)
{
    if (!double_enter("ibv_query_gid", VERBS_DOUBLE_WORKS)) {
        return -1;
    }
    if (port_number != 1 || index < 0 || index > 1) {
        return double_refuse(EINVAL);
    }
    memset(gid, 0, sizeof(*gid));
    gid->raw[10] = 0xff;
    gid->raw[11] = 0xff;
    memcpy(gid->raw + 12, &double_device_of(context)->address, 4);
    double_leave();
    return 0;
}

/* ---- asynchronous events -------------------------------------------------------------------- */

int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
    if (!double_enter("ibv_get_async_event", VERBS_DOUBLE_LOOKS)) {
        return -1;
    }
    struct double_device *device = double_device_of(context);
    if (device->event_count == 0) {
        int result = double_bell_is_silent(context->async_fd, "ibv_get_async_event");
        double_leave();
        return result;
    }
    double_bell_take(context->async_fd);
    memset(event, 0, sizeof(*event));
    event->event_type = device->events[0];
    device->event_count--;
    memmove(device->events, device->events + 1, device->event_count * sizeof(device->events[0]));
    double_leave();
    return 0;
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
    (void)event;
}

const char *ibv_event_type_str(enum ibv_event_type type)
{
    return type == IBV_EVENT_PORT_ERR ? "port error" : "asynchronous event";
}

/* ---- protection domains --------------------------------------------------------------------- */

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    if (!double_enter("ibv_alloc_pd", VERBS_DOUBLE_MAKES)) {
        return NULL;
    }
    struct double_pd *pd = double_alloc(sizeof(*pd));
    pd->base.context = context;
    double_add(&pd->object, DOUBLE_PD, pd);
    double_leave();
    return &pd->base;
}

static uint32_t pd_users(const struct ibv_pd *pd)
{
    uint32_t count = 0;
    DOUBLE_EACH(at, DOUBLE_REGION)
    {
        count += double_of(struct double_region, at)->base.pd == pd;
    }
    DOUBLE_EACH(at, DOUBLE_WINDOW)
    {
        count += double_of(struct double_window, at)->base.pd == pd;
    }
    DOUBLE_EACH(at, DOUBLE_QP)
    {
        count += double_of(struct double_qp, at)->base.pd == pd;
    }
    return count;
}

int ibv_dealloc_pd(struct ibv_pd *base)
{
    struct double_pd *pd = (struct double_pd *)base;
    if (!double_enter("ibv_dealloc_pd", VERBS_DOUBLE_UNMAKES)) {
        double_excuse(&pd->object);
        return errno;
    }
    uint32_t users = pd_users(base);
    if (users > 0 && double_has_excused()) {
        pd->object.is_excused = true;
        double_leave();
        return EBUSY;
    }
    if (users > 0) {
        double_fault("ibv_dealloc_pd while %u regions, windows or queue pairs are in it", users);
        double_leave();
        return EBUSY;
    }
    double_remove(&pd->object);
    double_leave();
    return 0;
}

/* ---- regions -------------------------------------------------------------------------------- */

static struct ibv_mr *region_create(struct ibv_pd *pd, void *start, size_t bytes, unsigned access)
{
    if (!double_enter("ibv_reg_mr", VERBS_DOUBLE_MAKES)) {
        return NULL;
    }
    const unsigned remote = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
    if ((access & IBV_ACCESS_RELAXED_ORDERING) != 0) {
        double_fault("ibv_reg_mr asks for relaxed ordering, which a ring must never have");
    }
    if ((access & remote) != 0 && (access & IBV_ACCESS_LOCAL_WRITE) == 0) {
        double_fault("ibv_reg_mr asks for remote writing without local writing");
    }
    if (bytes == 0 || start == NULL) {
        double_fault("ibv_reg_mr of nothing");
    }
    struct double_region *region = double_alloc(sizeof(*region));
    region->base.context = pd->context;
    region->base.pd = pd;
    region->base.addr = start;
    region->base.length = bytes;
    region->base.lkey = double_new_key();
    region->base.rkey = region->base.lkey ^ 0x80; /* shown always, of use only with remote rights */
    region->access = (int)access;
    double_add(&region->object, DOUBLE_REGION, region);
    double_leave();
    return &region->base;
}

#undef ibv_reg_mr
struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *start, size_t bytes, int access)
{
    return region_create(pd, start, bytes, (unsigned)access);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *start, size_t bytes, uint64_t iova,
                                unsigned access)
{
    if (iova != (uintptr_t)start) {
        double_fault("the double registers memory at its own address only");
    }
    return region_create(pd, start, bytes, access);
}

struct double_region *double_region_by_key(uint32_t local_key)
{
    DOUBLE_EACH(at, DOUBLE_REGION)
    {
        struct double_region *region = double_of(struct double_region, at);
        if (region->base.lkey == local_key) {
            return region;
        }
    }
    return NULL;
}

static bool lies_in(const struct ibv_mr *mr, uint64_t address, uint64_t bytes)
{
    uint64_t start = (uintptr_t)mr->addr;
    return address >= start && bytes <= mr->length && address - start <= mr->length - bytes;
}

/* The number of a queue pair whose posted work uses the region; 0: none does. */
static uint32_t region_user(const struct double_region *region)
{
    DOUBLE_EACH(at, DOUBLE_QP)
    {
        const struct double_qp *qp = double_of(struct double_qp, at);
        for (uint64_t i = qp->acked; i < qp->posted; i++) {
            if (qp->works[i % qp->cap.max_send_wr].local_key == region->base.lkey) {
                return qp->base.qp_num;
            }
        }
        for (uint64_t i = qp->receive_done; i < qp->receive_posted; i++) {
            if (qp->receives[i % qp->cap.max_recv_wr].local_key == region->base.lkey) {
                return qp->base.qp_num;
            }
        }
    }
    return 0;
}

int ibv_dereg_mr(struct ibv_mr *base)
{
    struct double_region *region = (struct double_region *)base;
    if (!double_enter("ibv_dereg_mr", VERBS_DOUBLE_UNMAKES)) {
        double_excuse(&region->object);
        return errno;
    }
    DOUBLE_EACH(at, DOUBLE_WINDOW)
    {
        if (double_of(struct double_window, at)->region != region) {
            continue;
        }
        if (!at->is_excused) {
            double_fault("ibv_dereg_mr while a memory window is bound to the region");
        }
        region->object.is_excused = at->is_excused;
        double_leave();
        return EINVAL;
    }
    uint32_t user = region_user(region);
    if (user != 0) {
        double_fault("ibv_dereg_mr while work that was posted on queue pair %u uses the region",
                     user);
    }
    DOUBLE_EACH(at, DOUBLE_QP)
    {
        struct double_qp *qp = double_of(struct double_qp, at);
        for (uint64_t i = qp->acked; i < qp->launched; i++) {
            struct double_work *work = &qp->works[i % qp->cap.max_send_wr];
            if (work->target != NULL && lies_in(base, (uintptr_t)work->target, work->bytes)) {
                work->target = NULL; /* the device has let go of the memory */
            }
        }
    }
    double_remove(&region->object);
    double_leave();
    return 0;
}

/* ---- windows -------------------------------------------------------------------------------- */

static struct ibv_mw *window_create(struct ibv_pd *pd, enum ibv_mw_type type)
{
    if (!double_enter("ibv_alloc_mw", VERBS_DOUBLE_MAKES)) {
        return NULL;
    }
    if (type != IBV_MW_TYPE_2 || double_world.options.has_no_windows) {
        double_fault("ibv_alloc_mw of a type that the device does not have");
        (void)double_refuse(EOPNOTSUPP);
        return NULL;
    }
    struct double_window *window = double_alloc(sizeof(*window));
    window->base.context = pd->context;
    window->base.pd = pd;
    window->base.type = type;
    window->base.rkey = double_new_key();
    window->key = window->base.rkey;
    double_add(&window->object, DOUBLE_WINDOW, window);
    double_leave();
    return &window->base;
}

static int window_destroy(struct ibv_mw *base)
{
    struct double_window *window = (struct double_window *)base;
    if (!double_enter("ibv_dealloc_mw", VERBS_DOUBLE_UNMAKES)) {
        /* It keeps its region, queue pair and protection domain, which are excused with it. */
        double_excuse(&window->object);
        return errno;
    }
    if (window->qp != NULL && window->qp->base.state == IBV_QPS_RTS) {
        double_fault(
            "ibv_dealloc_mw while queue pair %u, to which the window is bound, still works",
            window->qp->base.qp_num);
    }
    DOUBLE_EACH(at, DOUBLE_QP)
    {
        const struct double_qp *qp = double_of(struct double_qp, at);
        for (uint64_t i = qp->acked; i < qp->posted; i++) {
            if (qp->works[i % qp->cap.max_send_wr].window == window) {
                double_fault("ibv_dealloc_mw before the window's bind has completed");
            }
        }
    }
    double_remove(&window->object);
    double_leave();
    return 0;
}

void double_memory_fill(struct ibv_context_ops *ops)
{
    ops->alloc_mw = window_create;
    ops->dealloc_mw = window_destroy;
}

static const char *bind_is_wrong(const struct double_qp *qp, const struct double_work *work)
{
    const struct double_window *window = work->window;
    const struct double_region *region = work->region;
    if (window->base.pd != qp->base.pd || region->base.pd != qp->base.pd) {
        return "window, region and queue pair are of different protection domains";
    }
    if (window->object.number < qp->object.number) {
        return "the window is older than its queue pair, which makes some kernels hang";
    }
    if (window->qp != NULL) {
        return "the window is bound already";
    }
    if ((region->access & IBV_ACCESS_MW_BIND) == 0) {
        return "the region does not allow windows";
    }
    if ((work->bind_access & IBV_ACCESS_REMOTE_WRITE) != 0 &&
        (region->access & IBV_ACCESS_LOCAL_WRITE) == 0) {
        return "the region is not writable";
    }
    if (!lies_in(&region->base, work->bind_start, work->bind_bytes)) {
        return "the window reaches beyond the region";
    }
    if (work->remote_key >> 8 != window->base.rkey >> 8 || work->remote_key == window->key) {
        return "the key is not a next one of this window";
    }
    return NULL;
}

enum ibv_wc_status double_bind(struct double_qp *qp, struct double_work *work)
{
    const char *wrong = bind_is_wrong(qp, work);
    if (wrong != NULL) {
        double_fault("IBV_WR_BIND_MW: %s", wrong);
        return IBV_WC_MW_BIND_ERR;
    }
    struct double_window *window = work->window;
    window->qp = qp;
    window->region = work->region;
    window->start = work->bind_start;
    window->bytes = work->bind_bytes;
    window->access = work->bind_access;
    window->key = work->remote_key;
    return IBV_WC_SUCCESS;
}

uint32_t double_bound_windows(const struct double_qp *qp)
{
    uint32_t count = 0;
    DOUBLE_EACH(at, DOUBLE_WINDOW)
    {
        count += double_of(struct double_window, at)->qp == qp;
    }
    return count;
}

bool double_invalidate(struct double_qp *qp, uint32_t key)
{
    DOUBLE_EACH(at, DOUBLE_WINDOW)
    {
        struct double_window *window = double_of(struct double_window, at);
        if (window->qp == qp && window->key == key) {
            window->qp = NULL;
            window->region = NULL;
            return true;
        }
    }
    return false;
}

uint8_t *double_writable(const struct double_qp *qp, uint32_t key, uint64_t address, uint64_t bytes,
                         unsigned access)
{
    DOUBLE_EACH(at, DOUBLE_WINDOW)
    {
        const struct double_window *window = double_of(struct double_window, at);
        if (window->key == key && window->qp == qp && (window->access & access) == access &&
            address >= window->start && bytes <= window->bytes &&
            address - window->start <= window->bytes - bytes) {
            return (uint8_t *)(uintptr_t)address;
        }
    }
    DOUBLE_EACH(at, DOUBLE_REGION)
    {
        const struct double_region *region = double_of(struct double_region, at);
        if (region->base.rkey == key && region->base.pd == qp->base.pd &&
            ((unsigned)region->access & access) == access &&
            lies_in(&region->base, address, bytes)) {
            return (uint8_t *)(uintptr_t)address;
        }
    }
    return NULL;
}
