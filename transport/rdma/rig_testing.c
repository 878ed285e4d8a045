/* Design notes: see rig_testing.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>

#include "transport/rdma/rig_testing.h"

/* ---- the rig -------------------------------------------------------------------------------- */

struct sockaddr_in rig_address(const char *host, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    assert_int_equal(inet_pton(AF_INET, host, &address.sin_addr), 1);
    return address;
}

/* The next event, which must be of `type`; acknowledged. */
struct rdma_cm_id *rig_expect_event(struct rig *rig, enum rdma_cm_event_type type)
{
    struct rdma_cm_event *event = NULL;
    assert_int_equal(rdma_get_cm_event(rig->events, &event), 0);
    assert_int_equal(event->event, type);
    struct rdma_cm_id *id = event->id;
    assert_int_equal(rdma_ack_cm_event(event), 0);
    return id;
}

void rig_expect_no_event(struct rig *rig)
{
    struct rdma_cm_event *event = NULL;
    assert_int_equal(rdma_get_cm_event(rig->events, &event), -1);
    assert_int_equal(errno, EAGAIN);
}

static void rig_post_receive(struct rig_end *end, uint64_t id)
{
    struct ibv_sge span = {
        .addr = (uintptr_t)end->memory + RIG_HALF + 64 * (id % RIG_RECEIVE_COUNT),
        .length = 64,
        .lkey = end->mr->lkey,
    };
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &span, .num_sge = 1};
    struct ibv_recv_wr *bad = NULL;
    assert_int_equal(ibv_post_recv(end->id->qp, &wr, &bad), 0);
}

void rig_equip(struct rig_end *end, int entry_count)
{
    end->pd = ibv_alloc_pd(end->id->verbs);
    end->channel = ibv_create_comp_channel(end->id->verbs);
    assert_int_equal(fcntl(end->channel->fd, F_SETFL, O_NONBLOCK), 0);
    end->cq = ibv_create_cq(end->id->verbs, entry_count, NULL, end->channel, 0);
    struct ibv_qp_init_attr wish = {
        .send_cq = end->cq,
        .recv_cq = end->cq,
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = RIG_SEND_COUNT,
                .max_recv_wr = RIG_RECEIVE_COUNT,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = 64},
    };
    assert_int_equal(rdma_create_qp(end->id, end->pd, &wish), 0);
    end->mr = ibv_reg_mr(end->pd, end->memory, RIG_MEMORY_BYTES,
                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
    for (uint64_t i = 0; i < RIG_RECEIVE_COUNT; i++) {
        rig_post_receive(end, i);
    }
}

void rig_resolve(struct rig *rig)
{
    rig->events = rdma_create_event_channel();
    assert_non_null(rig->events);
    assert_int_equal(fcntl(rig->events->fd, F_SETFL, O_NONBLOCK), 0);
    struct sockaddr_in here = rig_address("10.7.0.1", 0);
    assert_int_equal(rdma_create_id(rig->events, &rig->listener, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_bind_addr(rig->listener, (struct sockaddr *)&here), 0);
    assert_int_equal(rdma_listen(rig->listener, 8), 0);
    struct sockaddr_in source = rig_address("10.7.0.2", 0);
    struct sockaddr_in target = rig_address("10.7.0.1", ntohs(rdma_get_src_port(rig->listener)));
    assert_int_equal(rdma_create_id(rig->events, &rig->active.id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_resolve_addr(rig->active.id, (struct sockaddr *)&source,
                                       (struct sockaddr *)&target, 1000),
                     0);
    (void)rig_expect_event(rig, RDMA_CM_EVENT_ADDR_RESOLVED);
    assert_int_equal(rdma_resolve_route(rig->active.id, 1000), 0);
    (void)rig_expect_event(rig, RDMA_CM_EVENT_ROUTE_RESOLVED);
}

void rig_connect(struct rig *rig)
{
    struct rdma_conn_param param = {.retry_count = 6, .rnr_retry_count = 7};
    assert_int_equal(rdma_connect(rig->active.id, &param), 0);
    rig->passive.id = rig_expect_event(rig, RDMA_CM_EVENT_CONNECT_REQUEST);
    rig_equip(&rig->passive, RIG_SEND_COUNT + RIG_RECEIVE_COUNT);
    assert_int_equal(rdma_accept(rig->passive.id, &param), 0);
    (void)rig_expect_event(rig, RDMA_CM_EVENT_ESTABLISHED);
    (void)rig_expect_event(rig, RDMA_CM_EVENT_ESTABLISHED);
}

void rig_open(struct rig *rig, const struct verbs_double_options *options)
{
    memset(rig, 0, sizeof(*rig));
    struct verbs_double_options usual;
    if (options == NULL) {
        verbs_double_options_init(&usual);
        options = &usual;
    }
    verbs_double_begin(options);
    rig_resolve(rig);
    rig_equip(&rig->active, RIG_SEND_COUNT + RIG_RECEIVE_COUNT);
    rig_connect(rig);
}

/* Everything that can be polled; the last completion in *last. */
uint32_t rig_poll_all(struct rig_end *end, struct ibv_wc *last)
{
    uint32_t count = 0;
    while (ibv_poll_cq(end->cq, 1, last) == 1) {
        count++;
    }
    return count;
}

void rig_end_close(struct rig_end *end)
{
    struct ibv_wc wc;
    struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_ERR};
    assert_int_equal(ibv_modify_qp(end->id->qp, &attributes, IBV_QP_STATE), 0);
    (void)rig_poll_all(end, &wc);
    if (end->mw != NULL) {
        assert_int_equal(ibv_dealloc_mw(end->mw), 0);
    }
    rdma_destroy_qp(end->id);
    assert_int_equal(ibv_dereg_mr(end->mr), 0);
    assert_int_equal(rdma_destroy_id(end->id), 0);
    assert_int_equal(ibv_destroy_cq(end->cq), 0);
    assert_int_equal(ibv_destroy_comp_channel(end->channel), 0);
    assert_int_equal(ibv_dealloc_pd(end->pd), 0);
}

void rig_close(struct rig *rig)
{
    verbs_double_keep_faults(false);
    rig_end_close(&rig->active);
    rig_end_close(&rig->passive);
    assert_int_equal(rdma_destroy_id(rig->listener), 0);
    rdma_destroy_event_channel(rig->events);
    verbs_double_end();
}

/* ---- posting -------------------------------------------------------------------------------- */

int rig_post(struct rig_end *end, struct ibv_send_wr *wr)
{
    struct ibv_send_wr *bad = NULL;
    return ibv_post_send(end->id->qp, wr, &bad);
}

/* A window of `end` over its whole region, bound to its queue pair. */
void rig_bind_window(struct rig_end *end)
{
    end->mw = ibv_alloc_mw(end->pd, IBV_MW_TYPE_2);
    assert_non_null(end->mw);
    end->key = ibv_inc_rkey(end->mw->rkey);
    struct ibv_send_wr wr = {
        .wr_id = 77,
        .opcode = IBV_WR_BIND_MW,
        .send_flags = IBV_SEND_SIGNALED,
        .bind_mw = {.mw = end->mw,
                    .rkey = end->key,
                    .bind_info = {.mr = end->mr,
                                  .addr = (uintptr_t)end->memory,
                                  .length = RIG_MEMORY_BYTES,
                                  .mw_access_flags = IBV_ACCESS_REMOTE_WRITE}},
    };
    assert_int_equal(rig_post(end, &wr), 0);
    struct ibv_wc wc = {0};
    while (ibv_poll_cq(end->cq, 1, &wc) == 0) {
        (void)verbs_double_step(1);
    }
    assert_int_equal(wc.wr_id, 77);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
}

int rig_post_write(struct rig *rig, const struct rig_write *write, uint64_t id)
{
    struct ibv_sge span = {.addr = (uintptr_t)rig->active.memory,
                           .length = write->bytes,
                           .lkey = rig->active.mr->lkey};
    struct ibv_send_wr wr = {
        .wr_id = id,
        .sg_list = &span,
        .num_sge = 1,
        .opcode = write->opcode,
        .send_flags = write->flags,
        .imm_data = 5,
        .wr.rdma = {.remote_addr = (uintptr_t)rig->passive.memory + write->offset,
                    .rkey = write->key},
    };
    return rig_post(&rig->active, &wr);
}

const struct rig_write rig_plain_write = {
    .bytes = 64, .flags = IBV_SEND_SIGNALED, .opcode = IBV_WR_RDMA_WRITE};

int rig_post_message(struct rig_end *end, uint32_t bytes, uint32_t flags)
{
    struct ibv_sge span = {.addr = (uintptr_t)end->memory, .length = bytes, .lkey = end->mr->lkey};
    struct ibv_send_wr wr = {
        .sg_list = &span, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = flags};
    return rig_post(end, &wr);
}

void rig_expect_fault(const char *part)
{
    if (verbs_double_fault_count() == 0) {
        fail_msg("no fault, where one with '%s' was due", part);
    }
    if (strstr(verbs_double_first_fault(), part) == NULL) {
        fail_msg("the fault is '%s', not one with '%s'", verbs_double_first_fault(), part);
    }
}
