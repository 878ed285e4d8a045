/*
 * The double itself: that each rule it watches is watched, and that it is as bad as it says.
 *
 * Every test stands on a rig: two ids connected with each other, each with a queue pair, a region
 * of its own and 8 receives.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/compiler.h"
#include "transport/rdma/verbs_double.h"

#include <rdma/rdma_cma.h>

#define MEMORY_BYTES  4096u
#define SEND_COUNT    8u
#define RECEIVE_COUNT 8u
#define HALF          (MEMORY_BYTES / 2) /* receives lie in the upper half */

struct end {
    struct rdma_cm_id *id;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_mr *mr;
    struct ibv_mw *mw;
    uint32_t key; /* of the window */
    uint8_t memory[MEMORY_BYTES] __attribute__((aligned(64)));
};

struct rig {
    struct rdma_event_channel *events;
    struct rdma_cm_id *listener;
    struct end active;
    struct end passive;
};

/* ---- the rig -------------------------------------------------------------------------------- */

static struct sockaddr_in address_of(const char *host, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    assert_int_equal(inet_pton(AF_INET, host, &address.sin_addr), 1);
    return address;
}

/* The next event, which must be of `type`; acknowledged. */
static struct rdma_cm_id *expect_event(struct rig *rig, enum rdma_cm_event_type type)
{
    struct rdma_cm_event *event = NULL;
    assert_int_equal(rdma_get_cm_event(rig->events, &event), 0);
    assert_int_equal(event->event, type);
    struct rdma_cm_id *id = event->id;
    assert_int_equal(rdma_ack_cm_event(event), 0);
    return id;
}

static void expect_no_event(struct rig *rig)
{
    struct rdma_cm_event *event = NULL;
    assert_int_equal(rdma_get_cm_event(rig->events, &event), -1);
    assert_int_equal(errno, EAGAIN);
}

static void post_receive(struct end *end, uint64_t id)
{
    struct ibv_sge span = {
        .addr = (uintptr_t)end->memory + HALF + 64 * (id % RECEIVE_COUNT),
        .length = 64,
        .lkey = end->mr->lkey,
    };
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &span, .num_sge = 1};
    struct ibv_recv_wr *bad = NULL;
    assert_int_equal(ibv_post_recv(end->id->qp, &wr, &bad), 0);
}

static void end_equip(struct end *end, int entry_count)
{
    end->pd = ibv_alloc_pd(end->id->verbs);
    end->channel = ibv_create_comp_channel(end->id->verbs);
    assert_int_equal(fcntl(end->channel->fd, F_SETFL, O_NONBLOCK), 0);
    end->cq = ibv_create_cq(end->id->verbs, entry_count, NULL, end->channel, 0);
    struct ibv_qp_init_attr wish = {
        .send_cq = end->cq,
        .recv_cq = end->cq,
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = SEND_COUNT,
                .max_recv_wr = RECEIVE_COUNT,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = 64},
    };
    assert_int_equal(rdma_create_qp(end->id, end->pd, &wish), 0);
    end->mr =
        ibv_reg_mr(end->pd, end->memory, MEMORY_BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
    for (uint64_t i = 0; i < RECEIVE_COUNT; i++) {
        post_receive(end, i);
    }
}

static void rig_resolve(struct rig *rig)
{
    rig->events = rdma_create_event_channel();
    assert_non_null(rig->events);
    assert_int_equal(fcntl(rig->events->fd, F_SETFL, O_NONBLOCK), 0);
    struct sockaddr_in here = address_of("10.7.0.1", 0);
    assert_int_equal(rdma_create_id(rig->events, &rig->listener, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_bind_addr(rig->listener, (struct sockaddr *)&here), 0);
    assert_int_equal(rdma_listen(rig->listener, 8), 0);
    struct sockaddr_in source = address_of("10.7.0.2", 0);
    struct sockaddr_in target = address_of("10.7.0.1", ntohs(rdma_get_src_port(rig->listener)));
    assert_int_equal(rdma_create_id(rig->events, &rig->active.id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_resolve_addr(rig->active.id, (struct sockaddr *)&source,
                                       (struct sockaddr *)&target, 1000),
                     0);
    (void)expect_event(rig, RDMA_CM_EVENT_ADDR_RESOLVED);
    assert_int_equal(rdma_resolve_route(rig->active.id, 1000), 0);
    (void)expect_event(rig, RDMA_CM_EVENT_ROUTE_RESOLVED);
}

static void rig_connect(struct rig *rig)
{
    struct rdma_conn_param param = {.retry_count = 6, .rnr_retry_count = 7};
    assert_int_equal(rdma_connect(rig->active.id, &param), 0);
    rig->passive.id = expect_event(rig, RDMA_CM_EVENT_CONNECT_REQUEST);
    end_equip(&rig->passive, SEND_COUNT + RECEIVE_COUNT);
    assert_int_equal(rdma_accept(rig->passive.id, &param), 0);
    (void)expect_event(rig, RDMA_CM_EVENT_ESTABLISHED);
    (void)expect_event(rig, RDMA_CM_EVENT_ESTABLISHED);
}

static void rig_open(struct rig *rig, const struct verbs_double_options *options)
{
    memset(rig, 0, sizeof(*rig));
    struct verbs_double_options usual;
    if (options == NULL) {
        verbs_double_options_init(&usual);
        options = &usual;
    }
    verbs_double_begin(options);
    rig_resolve(rig);
    end_equip(&rig->active, SEND_COUNT + RECEIVE_COUNT);
    rig_connect(rig);
}

/* Everything that can be polled; the last completion in *last. */
static uint32_t poll_all(struct end *end, struct ibv_wc *last)
{
    uint32_t count = 0;
    while (ibv_poll_cq(end->cq, 1, last) == 1) {
        count++;
    }
    return count;
}

static void end_close(struct end *end)
{
    struct ibv_wc wc;
    struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_ERR};
    assert_int_equal(ibv_modify_qp(end->id->qp, &attributes, IBV_QP_STATE), 0);
    (void)poll_all(end, &wc);
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

static void rig_close(struct rig *rig)
{
    verbs_double_keep_faults(false);
    end_close(&rig->active);
    end_close(&rig->passive);
    assert_int_equal(rdma_destroy_id(rig->listener), 0);
    rdma_destroy_event_channel(rig->events);
    verbs_double_end();
}

/* ---- posting -------------------------------------------------------------------------------- */

static int post(struct end *end, struct ibv_send_wr *wr)
{
    struct ibv_send_wr *bad = NULL;
    return ibv_post_send(end->id->qp, wr, &bad);
}

/* A window of `end` over its whole region, bound to its queue pair. */
static void bind_window(struct end *end)
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
                                  .length = MEMORY_BYTES,
                                  .mw_access_flags = IBV_ACCESS_REMOTE_WRITE}},
    };
    assert_int_equal(post(end, &wr), 0);
    struct ibv_wc wc = {0};
    while (ibv_poll_cq(end->cq, 1, &wc) == 0) {
        (void)verbs_double_step(1);
    }
    assert_int_equal(wc.wr_id, 77);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
}

struct write {
    uint32_t key;
    uint64_t offset; /* in the passive side's memory */
    uint32_t bytes;
    uint32_t flags;
    enum ibv_wr_opcode opcode;
};

static int post_write(struct rig *rig, const struct write *write, uint64_t id)
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
    return post(&rig->active, &wr);
}

static const struct write plain_write = {
    .bytes = 64, .flags = IBV_SEND_SIGNALED, .opcode = IBV_WR_RDMA_WRITE};

static int post_message(struct end *end, uint32_t bytes, uint32_t flags)
{
    struct ibv_sge span = {.addr = (uintptr_t)end->memory, .length = bytes, .lkey = end->mr->lkey};
    struct ibv_send_wr wr = {
        .sg_list = &span, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = flags};
    return post(end, &wr);
}

static void expect_fault(const char *part)
{
    if (verbs_double_fault_count() == 0) {
        fail_msg("no fault, where one with '%s' was due", part);
    }
    if (strstr(verbs_double_first_fault(), part) == NULL) {
        fail_msg("the fault is '%s', not one with '%s'", verbs_double_first_fault(), part);
    }
}

/* ---- what works ----------------------------------------------------------------------------- */

static void test_write_with_immediate_arrives(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, NULL);
    bind_window(&rig.passive);
    memset(rig.active.memory, 0x5a, 64);
    struct write write = plain_write;
    write.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    write.key = rig.passive.key;
    write.offset = 128;
    assert_int_equal(post_write(&rig, &write, 9), 0);
    struct ibv_wc wc;
    assert_int_equal(ibv_poll_cq(rig.passive.cq, 1, &wc), 1);
    assert_int_equal(wc.opcode, IBV_WC_RECV_RDMA_WITH_IMM);
    assert_int_equal(wc.imm_data, 5);
    assert_int_equal(wc.byte_len, 64);
    assert_memory_equal(rig.passive.memory + 128, rig.active.memory, 64);
    assert_int_equal(rig.passive.memory[127], 0);
    assert_int_equal(rig.passive.memory[192], 0);
    assert_int_equal(ibv_poll_cq(rig.active.cq, 1, &wc), 1);
    assert_int_equal(wc.wr_id, 9);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    rig_close(&rig);
}

static void test_armed_queue_rings_once_and_not_for_what_was_there(void **state)
{
    (void)state;
    struct rig rig;
    struct ibv_cq *cq = NULL;
    void *context = NULL;
    rig_open(&rig, NULL);
    assert_int_equal(post_message(&rig.active, 8, IBV_SEND_INLINE), 0);
    assert_int_equal(ibv_req_notify_cq(rig.passive.cq, 0), 0);
    assert_int_equal(ibv_get_cq_event(rig.passive.channel, &cq, &context), -1);
    assert_int_equal(post_message(&rig.active, 8, IBV_SEND_INLINE), 0);
    assert_int_equal(post_message(&rig.active, 8, IBV_SEND_INLINE), 0);
    assert_int_equal(ibv_get_cq_event(rig.passive.channel, &cq, &context), 0);
    assert_ptr_equal(cq, rig.passive.cq);
    assert_int_equal(ibv_get_cq_event(rig.passive.channel, &cq, &context), -1);
    ibv_ack_cq_events(rig.passive.cq, 1);
    rig_close(&rig);
}

/* Everything posted comes back flushed, in order, what asked for no completion included. */
static void test_error_flushes_everything_in_order(void **state)
{
    (void)state;
    struct verbs_double_options options;
    verbs_double_options_init(&options);
    options.pace = VERBS_DOUBLE_STEPPED;
    struct rig rig;
    rig_open(&rig, &options);
    for (uint64_t i = 0; i < SEND_COUNT; i++) {
        struct write write = plain_write;
        write.bytes = 0;
        write.flags = 0;
        assert_int_equal(post_write(&rig, &write, i), 0);
    }
    struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_ERR};
    assert_int_equal(ibv_modify_qp(rig.active.id->qp, &attributes, IBV_QP_STATE), 0);
    struct ibv_wc wc[SEND_COUNT + RECEIVE_COUNT];
    uint64_t next_send = 0;
    int count = ibv_poll_cq(rig.active.cq, SEND_COUNT + RECEIVE_COUNT, wc);
    assert_int_equal(count, SEND_COUNT + RECEIVE_COUNT);
    for (int i = 0; i < (int)SEND_COUNT; i++) {
        assert_int_equal(wc[i].status, IBV_WC_WR_FLUSH_ERR);
        assert_int_equal(wc[i].wr_id, next_send++);
    }
    rig_close(&rig);
}

/* ---- how bad it can be ---------------------------------------------------------------------- */

/* Whether, with this seed, the second of two writes is seen while the first is not complete, and
 * whether a message is ever seen half. */
static void look_at_two_writes(uint64_t seed, bool *is_reordered, bool *is_torn)
{
    struct verbs_double_options options;
    verbs_double_options_init(&options);
    options.pace = VERBS_DOUBLE_STEPPED;
    options.seed = seed;
    struct rig rig;
    rig_open(&rig, &options);
    bind_window(&rig.passive);
    memset(rig.active.memory, 0xff, 64);
    struct write write = plain_write;
    write.key = rig.passive.key;
    write.flags = 0;
    assert_int_equal(post_write(&rig, &write, 1), 0);
    write.offset = 64;
    write.flags = IBV_SEND_SIGNALED;
    assert_int_equal(post_write(&rig, &write, 2), 0);
    const uint8_t *first = rig.passive.memory;
    while (verbs_double_step(1) > 0) {
        *is_torn = *is_torn || (first[0] == 0xff && first[63] == 0);
        *is_reordered = *is_reordered || (first[64] == 0xff && first[63] == 0);
    }
    struct ibv_wc wc;
    assert_int_equal(ibv_poll_cq(rig.active.cq, 1, &wc), 1);
    assert_int_equal(wc.wr_id, 2);
    assert_int_equal(first[63], 0xff);
    assert_int_equal(first[127], 0xff);
    rig_close(&rig);
}

static void test_writes_are_torn_and_reordered_until_they_complete(void **state)
{
    (void)state;
    bool is_reordered = false;
    bool is_torn = false;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        look_at_two_writes(seed, &is_reordered, &is_torn);
    }
    assert_true(is_reordered);
    assert_true(is_torn);
}

/* Modifying to error is no barrier, polling the last flushed completion is. */
static void look_after_the_error(uint64_t seed, bool *is_late)
{
    struct verbs_double_options options;
    verbs_double_options_init(&options);
    options.pace = VERBS_DOUBLE_STEPPED;
    options.seed = seed;
    struct rig rig;
    rig_open(&rig, &options);
    bind_window(&rig.passive);
    memset(rig.active.memory, 0xff, 2048);
    struct write write = plain_write;
    write.key = rig.passive.key;
    write.bytes = 2048;
    assert_int_equal(post_write(&rig, &write, 1), 0);
    (void)verbs_double_step(1); /* it is launched */
    struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_ERR};
    assert_int_equal(ibv_modify_qp(rig.passive.id->qp, &attributes, IBV_QP_STATE), 0);
    uint8_t before = rig.passive.memory[0];
    (void)verbs_double_step(1);
    *is_late = *is_late || (before == 0 && rig.passive.memory[0] == 0xff);
    struct ibv_wc wc;
    (void)poll_all(&rig.passive, &wc);
    uint8_t copy[2048];
    memcpy(copy, rig.passive.memory, sizeof(copy));
    (void)verbs_double_step(1000);
    assert_memory_equal(copy, rig.passive.memory, sizeof(copy));
    rig_close(&rig);
}

static void test_bytes_land_after_the_error_but_not_after_the_drain(void **state)
{
    (void)state;
    bool is_late = false;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        look_after_the_error(seed, &is_late);
    }
    assert_true(is_late);
}

static void test_cut_wire_is_silent_until_something_is_posted(void **state)
{
    (void)state;
    struct verbs_double_options options;
    verbs_double_options_init(&options);
    struct rig rig;
    struct ibv_wc wc;
    rig_open(&rig, NULL);
    verbs_double_cut(true);
    verbs_double_advance(100 * options.retry_ns);
    assert_int_equal(ibv_poll_cq(rig.active.cq, 1, &wc), 0);
    expect_no_event(&rig);
    assert_int_equal(post_message(&rig.active, 8, IBV_SEND_INLINE), 0);
    assert_int_equal(ibv_poll_cq(rig.active.cq, 1, &wc), 0);
    verbs_double_advance(options.retry_ns);
    assert_int_equal(ibv_poll_cq(rig.active.cq, 1, &wc), 1);
    assert_int_equal(wc.status, IBV_WC_RETRY_EXC_ERR);
    assert_int_equal(rig.active.id->qp->state, IBV_QPS_ERR);
    assert_int_equal(rig.passive.id->qp->state, IBV_QPS_RTS);
    rig_close(&rig);
}

static void test_healed_wire_goes_on(void **state)
{
    (void)state;
    struct rig rig;
    struct ibv_wc wc;
    rig_open(&rig, NULL);
    verbs_double_cut(true);
    assert_int_equal(post_message(&rig.active, 8, IBV_SEND_SIGNALED), 0);
    verbs_double_advance(1000000);
    verbs_double_cut(false);
    assert_int_equal(ibv_poll_cq(rig.active.cq, 1, &wc), 1);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    rig_close(&rig);
}

static void test_killed_peer_is_told(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, NULL);
    verbs_double_kill(rig.active.id->qp);
    assert_ptr_equal(expect_event(&rig, RDMA_CM_EVENT_DISCONNECTED), rig.passive.id);
    expect_no_event(&rig);
    rig_close(&rig);
}

/* What rdma_disconnect says is repeated until the wire is mended. */
static void test_disconnect_outlives_a_cut(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, NULL);
    verbs_double_cut(true);
    assert_int_equal(rdma_disconnect(rig.active.id), 0);
    expect_no_event(&rig);
    verbs_double_cut(false);
    assert_ptr_equal(expect_event(&rig, RDMA_CM_EVENT_DISCONNECTED), rig.passive.id);
    rig_close(&rig);
}

static void test_private_data_is_filled_up(void **state)
{
    (void)state;
    struct rig rig = {0};
    struct verbs_double_options options;
    verbs_double_options_init(&options);
    verbs_double_begin(&options);
    rig_resolve(&rig);
    end_equip(&rig.active, SEND_COUNT + RECEIVE_COUNT);
    struct rdma_conn_param param = {.private_data = "abc", .private_data_len = 3};
    assert_int_equal(rdma_connect(rig.active.id, &param), 0);
    struct rdma_cm_event *event = NULL;
    assert_int_equal(rdma_get_cm_event(rig.events, &event), 0);
    assert_int_equal(event->param.conn.private_data_len, 56);
    assert_memory_equal(event->param.conn.private_data, "abc\0\0", 5);
    struct rdma_cm_id *passive = event->id;
    assert_int_equal(rdma_ack_cm_event(event), 0);
    assert_int_equal(rdma_reject(passive, "no", 2), 0);
    assert_int_equal(rdma_get_cm_event(rig.events, &event), 0);
    assert_int_equal(event->event, RDMA_CM_EVENT_REJECTED);
    assert_int_equal(event->status, 28);
    assert_int_equal(event->param.conn.private_data_len, 148);
    assert_int_equal(rdma_ack_cm_event(event), 0);
    assert_int_equal(rdma_destroy_id(passive), 0);
    end_close(&rig.active);
    assert_int_equal(rdma_destroy_id(rig.listener), 0);
    rdma_destroy_event_channel(rig.events);
    verbs_double_end();
}

/* ---- rules ---------------------------------------------------------------------------------- */

/* Each breaks one rule on a fresh rig, and leaves it so that it can be closed. */
struct rule {
    void (*break_it)(struct rig *rig);
    const char *part; /* of the fault */
};

static void overfill_the_send_queue(struct rig *rig)
{
    /* None asks for a completion: so none is polled, and no place comes free. */
    for (uint32_t i = 0; i <= SEND_COUNT; i++) {
        int result = post_message(&rig->active, 8, IBV_SEND_INLINE);
        assert_int_equal(result, i == SEND_COUNT ? EINVAL : 0);
    }
}

static void overfill_the_receive_queue(struct rig *rig)
{
    struct ibv_sge span = {
        .addr = (uintptr_t)rig->active.memory, .length = 8, .lkey = rig->active.mr->lkey};
    struct ibv_recv_wr wr = {.sg_list = &span, .num_sge = 1};
    struct ibv_recv_wr *bad = NULL;
    assert_int_equal(ibv_post_recv(rig->active.id->qp, &wr, &bad), EINVAL);
    assert_ptr_equal(bad, &wr);
}

static void send_too_much_inline(struct rig *rig)
{
    assert_int_equal(post_message(&rig->active, 65, IBV_SEND_INLINE), EINVAL);
}

static void use_a_wrong_local_key(struct rig *rig)
{
    struct ibv_sge span = {
        .addr = (uintptr_t)rig->active.memory, .length = 8, .lkey = rig->active.mr->lkey + 1};
    struct ibv_send_wr wr = {.sg_list = &span, .num_sge = 1, .opcode = IBV_WR_SEND};
    assert_int_equal(post(&rig->active, &wr), EINVAL);
}

static void use_another_domains_key(struct rig *rig)
{
    struct ibv_sge span = {
        .addr = (uintptr_t)rig->passive.memory, .length = 8, .lkey = rig->passive.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &span, .num_sge = 1, .opcode = IBV_WR_SEND};
    assert_int_equal(post(&rig->active, &wr), EINVAL);
}

static void send_from_beyond_the_region(struct rig *rig)
{
    struct ibv_sge span = {.addr = (uintptr_t)rig->active.memory + MEMORY_BYTES - 4,
                           .length = 8,
                           .lkey = rig->active.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &span, .num_sge = 1, .opcode = IBV_WR_SEND};
    assert_int_equal(post(&rig->active, &wr), EINVAL);
}

static void send_without_a_receive(struct rig *rig)
{
    for (uint32_t i = 0; i <= RECEIVE_COUNT; i++) {
        struct ibv_wc wc;
        assert_int_equal(post_message(&rig->active, 8, IBV_SEND_INLINE | IBV_SEND_SIGNALED), 0);
        (void)poll_all(&rig->active, &wc);
    }
}

static void make_a_completion_queue_too_small(struct rig *rig)
{
    struct end end = {.id = rig->active.id};
    struct ibv_qp *kept = end.id->qp;
    end.id->qp = NULL;
    struct ibv_pd *pd = rig->active.pd;
    struct ibv_cq *cq = ibv_create_cq(end.id->verbs, 3, NULL, NULL, 0);
    struct ibv_qp_init_attr wish = {
        .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = {2, 2, 1, 1, 0}};
    assert_int_equal(rdma_create_qp(end.id, pd, &wish), 0);
    rdma_destroy_qp(end.id);
    end.id->qp = kept;
    assert_int_equal(ibv_destroy_cq(cq), 0);
}

static void ask_for_relaxed_ordering(struct rig *rig)
{
    uint8_t byte[8];
    struct ibv_mr *mr = ibv_reg_mr(rig->active.pd, byte, sizeof(byte),
                                   IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING);
    assert_int_equal(ibv_dereg_mr(mr), 0);
}

static void deregister_under_a_window(struct rig *rig)
{
    bind_window(&rig->passive);
    assert_int_equal(ibv_dereg_mr(rig->passive.mr), EINVAL);
}

static void deregister_under_posted_work(struct rig *rig)
{
    struct ibv_mr *mr = ibv_reg_mr(rig->active.pd, rig->active.memory, 64, 0);
    struct ibv_sge span = {.addr = (uintptr_t)rig->active.memory, .length = 8, .lkey = mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &span, .num_sge = 1, .opcode = IBV_WR_SEND};
    verbs_double_cut(true);
    assert_int_equal(post(&rig->active, &wr), 0);
    assert_int_equal(ibv_dereg_mr(mr), 0);
    verbs_double_advance(UINT64_C(1000000000));
    verbs_double_cut(false);
}

static void destroy_a_queue_pair_under_a_window(struct rig *rig)
{
    bind_window(&rig->passive);
    rdma_destroy_qp(rig->passive.id);
    assert_non_null(rig->passive.id->qp);
}

static void free_a_window_that_works(struct rig *rig)
{
    bind_window(&rig->passive);
    assert_int_equal(ibv_dealloc_mw(rig->passive.mw), 0);
    rig->passive.mw = NULL;
}

static void bind_twice(struct rig *rig)
{
    bind_window(&rig->passive);
    struct end *end = &rig->passive;
    struct ibv_send_wr wr = {
        .opcode = IBV_WR_BIND_MW,
        .bind_mw = {.mw = end->mw,
                    .rkey = ibv_inc_rkey(end->key),
                    .bind_info = {.mr = end->mr, .addr = (uintptr_t)end->memory, .length = 8}},
    };
    assert_int_equal(post(end, &wr), 0);
}

static void bind_with_another_windows_key(struct rig *rig)
{
    struct end *end = &rig->passive;
    end->mw = ibv_alloc_mw(end->pd, IBV_MW_TYPE_2);
    struct ibv_send_wr wr = {
        .opcode = IBV_WR_BIND_MW,
        .bind_mw = {.mw = end->mw,
                    .rkey = end->mw->rkey + 256,
                    .bind_info = {.mr = end->mr, .addr = (uintptr_t)end->memory, .length = 8}},
    };
    assert_int_equal(post(end, &wr), 0);
}

static void free_a_domain_in_use(struct rig *rig)
{
    assert_int_equal(ibv_dealloc_pd(rig->active.pd), EBUSY);
}

static void keep_an_event_of_a_queue(struct rig *rig)
{
    struct ibv_cq *extra = ibv_create_cq(rig->active.id->verbs, 4, NULL, rig->active.channel, 0);
    struct ibv_cq *cq = NULL;
    void *context = NULL;
    assert_int_equal(ibv_req_notify_cq(rig->active.cq, 0), 0);
    assert_int_equal(post_message(&rig->active, 8, IBV_SEND_INLINE | IBV_SEND_SIGNALED), 0);
    assert_int_equal(ibv_get_cq_event(rig->active.channel, &cq, &context), 0);
    ibv_ack_cq_events(cq, 2); /* of one */
    assert_int_equal(ibv_destroy_cq(extra), 0);
}

static void wait_on_a_blocking_channel(struct rig *rig)
{
    struct ibv_cq *cq = NULL;
    void *context = NULL;
    assert_int_equal(fcntl(rig->active.channel->fd, F_SETFL, 0), 0);
    assert_int_equal(ibv_get_cq_event(rig->active.channel, &cq, &context), -1);
}

static void destroy_an_id_in_its_event(struct rig *rig)
{
    struct rdma_cm_event *event = NULL;
    struct rdma_cm_id *id = NULL;
    struct sockaddr_in nowhere = address_of("10.9.9.9", 1);
    assert_int_equal(rdma_create_id(rig->events, &id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_resolve_addr(id, NULL, (struct sockaddr *)&nowhere, 1), 0);
    assert_int_equal(rdma_get_cm_event(rig->events, &event), 0);
    assert_int_equal(rdma_destroy_id(id), -1);
    assert_int_equal(rdma_ack_cm_event(event), 0);
    assert_int_equal(rdma_destroy_id(id), 0);
}

static void send_more_private_data_than_fits(struct rig *rig)
{
    struct rdma_cm_id *id = NULL;
    char data[60] = {0};
    struct rdma_conn_param param = {.private_data = data, .private_data_len = sizeof(data)};
    struct sockaddr_in target = address_of("10.7.0.1", 1);
    assert_int_equal(rdma_create_id(rig->events, &id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_resolve_addr(id, NULL, (struct sockaddr *)&target, 1), 0);
    (void)expect_event(rig, RDMA_CM_EVENT_ADDR_RESOLVED);
    assert_int_equal(rdma_resolve_route(id, 1), 0);
    (void)expect_event(rig, RDMA_CM_EVENT_ROUTE_RESOLVED);
    id->qp = rig->active.id->qp;
    assert_int_equal(rdma_connect(id, &param), 0);
    id->qp = NULL;
    assert_int_equal(rdma_destroy_id(id), 0);
}

static const struct rule rules[] = {
    {overfill_the_send_queue, "it is full"},
    {overfill_the_receive_queue, "its queue is full"},
    {send_too_much_inline, "65 bytes inline"},
    {use_a_wrong_local_key, "no region's of its domain"},
    {use_another_domains_key, "no region's of its domain"},
    {send_from_beyond_the_region, "reach beyond their region"},
    {send_without_a_receive, "finds no receive"},
    {make_a_completion_queue_too_small, "a completion queue of 3 entries serves"},
    {ask_for_relaxed_ordering, "relaxed ordering"},
    {deregister_under_a_window, "a memory window is bound"},
    {deregister_under_posted_work, "uses the region"},
    {destroy_a_queue_pair_under_a_window, "1 windows are bound"},
    {free_a_window_that_works, "still works"},
    {bind_twice, "bound already"},
    {bind_with_another_windows_key, "not a next one"},
    {free_a_domain_in_use, "are in it"},
    {keep_an_event_of_a_queue, "of 2, but only 1 were got"},
    {wait_on_a_blocking_channel, "its descriptor blocks"},
    {destroy_an_id_in_its_event, "would wait for ever"},
    {send_more_private_data_than_fits, "60 bytes of private data"},
};

static void test_every_rule_is_watched(void **state)
{
    (void)state;
    for (size_t i = 0; i < rsi_array_count(rules); i++) {
        struct rig rig;
        rig_open(&rig, NULL);
        verbs_double_keep_faults(true);
        rules[i].break_it(&rig);
        expect_fault(rules[i].part);
        rig_close(&rig);
    }
}

static void test_window_older_than_its_queue_pair(void **state)
{
    (void)state;
    struct rig rig = {0};
    struct verbs_double_options options;
    verbs_double_options_init(&options);
    verbs_double_begin(&options);
    rig_resolve(&rig);
    struct ibv_pd *pd = ibv_alloc_pd(rig.active.id->verbs);
    struct ibv_mw *old = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
    struct ibv_pd *own = NULL;
    end_equip(&rig.active, SEND_COUNT + RECEIVE_COUNT);
    own = rig.active.pd;
    rig_connect(&rig);
    verbs_double_keep_faults(true);
    struct ibv_send_wr wr = {
        .opcode = IBV_WR_BIND_MW,
        .bind_mw = {.mw = old,
                    .rkey = ibv_inc_rkey(old->rkey),
                    .bind_info = {.mr = rig.active.mr,
                                  .addr = (uintptr_t)rig.active.memory,
                                  .length = 8}},
    };
    old->pd = own; /* so that its age is what is wrong */
    assert_int_equal(post(&rig.active, &wr), 0);
    expect_fault("older than its queue pair");
    old->pd = pd;
    verbs_double_keep_faults(false);
    assert_int_equal(ibv_dealloc_mw(old), 0);
    assert_int_equal(ibv_dealloc_pd(pd), 0);
    rig_close(&rig);
}

/* ---- what a peer may not -------------------------------------------------------------------- */

static void expect_refused(const struct write *write, bool binds)
{
    struct rig rig;
    rig_open(&rig, NULL);
    memset(rig.active.memory, 0xee, HALF);
    if (binds) {
        bind_window(&rig.passive);
    }
    struct write made = *write;
    made.key = write->key != 0 ? write->key : rig.passive.key;
    assert_int_equal(post_write(&rig, &made, 3), 0);
    struct ibv_wc wc;
    assert_int_equal(ibv_poll_cq(rig.active.cq, 1, &wc), 1);
    assert_int_equal(wc.status, IBV_WC_REM_ACCESS_ERR);
    assert_int_equal(rig.active.id->qp->state, IBV_QPS_ERR);
    assert_int_equal(rig.passive.id->qp->state, IBV_QPS_ERR);
    for (size_t i = 0; i < HALF; i++) {
        assert_int_equal(rig.passive.memory[i], 0);
    }
    rig_close(&rig);
}

static void test_peer_cannot_write_where_it_may_not(void **state)
{
    (void)state;
    struct write beyond = plain_write;
    beyond.offset = MEMORY_BYTES - 32;
    expect_refused(&beyond, true);
    struct write before = plain_write;
    before.offset = (uint64_t)-8;
    expect_refused(&before, true);
    struct write guessed = plain_write;
    guessed.key = 0x1234;
    expect_refused(&guessed, true);
    expect_refused(&guessed, false);
    struct write read = plain_write;
    read.opcode = IBV_WR_RDMA_READ;
    expect_refused(&read, true);
}

static void test_key_is_of_no_use_once_invalidated(void **state)
{
    (void)state;
    struct rig rig;
    struct ibv_wc wc;
    rig_open(&rig, NULL);
    bind_window(&rig.passive);
    struct ibv_send_wr wr = {.opcode = IBV_WR_SEND_WITH_INV, .invalidate_rkey = rig.passive.key};
    assert_int_equal(post(&rig.active, &wr), 0);
    assert_int_equal(ibv_poll_cq(rig.passive.cq, 1, &wc), 1);
    assert_int_equal(wc.wc_flags, IBV_WC_WITH_INV);
    struct write write = plain_write;
    write.key = rig.passive.key;
    assert_int_equal(post_write(&rig, &write, 4), 0);
    assert_int_equal(ibv_poll_cq(rig.active.cq, 1, &wc), 1);
    assert_int_equal(wc.status, IBV_WC_REM_ACCESS_ERR);
    rig_close(&rig);
}

static void test_too_long_message_breaks_both(void **state)
{
    (void)state;
    struct rig rig;
    struct ibv_wc wc;
    rig_open(&rig, NULL);
    assert_int_equal(post_message(&rig.active, 65, IBV_SEND_SIGNALED), 0);
    assert_int_equal(ibv_poll_cq(rig.active.cq, 1, &wc), 1);
    assert_int_equal(wc.status, IBV_WC_REM_INV_REQ_ERR);
    assert_int_equal(ibv_poll_cq(rig.passive.cq, 1, &wc), 1);
    assert_int_equal(wc.status, IBV_WC_LOC_LEN_ERR);
    rig_close(&rig);
}

/* ---- the world ------------------------------------------------------------------------------ */

static void test_any_call_can_fail(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, NULL);
    verbs_double_fail_named("ibv_reg_mr", 1, EPERM);
    assert_null(ibv_reg_mr(rig.active.pd, rig.active.memory, 8, 0));
    assert_int_equal(errno, EPERM);
    assert_string_equal(verbs_double_failed_call(), "ibv_reg_mr");
    verbs_double_fail_nth(2, VERBS_DOUBLE_MAKES);
    struct ibv_pd *pd = ibv_alloc_pd(rig.active.id->verbs);
    assert_non_null(pd);
    assert_null(ibv_alloc_pd(rig.active.id->verbs));
    assert_string_equal(verbs_double_failed_call(), "ibv_alloc_pd");
    assert_int_equal(ibv_dealloc_pd(pd), 0);
    rig_close(&rig);
}

/* Whether `act` ends a child of this process by an abort. */
static bool aborts(struct rig *rig, void (*act)(struct rig *rig))
{
    (void)fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        (void)dup2(null, STDERR_FILENO);
        act(rig);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void use_after_the_fork(struct rig *rig)
{
    (void)ibv_alloc_pd(rig->active.id->verbs);
}

static void leave_everything(struct rig *rig)
{
    rig_open(rig, NULL);
    verbs_double_end();
}

static void close_everything(struct rig *rig)
{
    rig_open(rig, NULL);
    rig_close(rig);
}

static void test_fork_is_noticed_in_the_child(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, NULL);
    assert_true(aborts(&rig, use_after_the_fork));
    rig_close(&rig);
}

static void test_what_is_left_ends_the_program(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(aborts(&rig, leave_everything));
    assert_false(aborts(&rig, close_everything));
    rig_open(&rig, NULL);
    struct verbs_double_counts counts;
    verbs_double_count(&counts);
    /* Twice domain, channel, queue, queue pair, region, id; a listener and the events' channel. */
    assert_int_equal(counts.live_objects, 2 * 6 + 2);
    rig_close(&rig);
    verbs_double_count(&counts);
    assert_int_equal(counts.live_objects, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_with_immediate_arrives),
        cmocka_unit_test(test_armed_queue_rings_once_and_not_for_what_was_there),
        cmocka_unit_test(test_error_flushes_everything_in_order),
        cmocka_unit_test(test_writes_are_torn_and_reordered_until_they_complete),
        cmocka_unit_test(test_bytes_land_after_the_error_but_not_after_the_drain),
        cmocka_unit_test(test_cut_wire_is_silent_until_something_is_posted),
        cmocka_unit_test(test_healed_wire_goes_on),
        cmocka_unit_test(test_killed_peer_is_told),
        cmocka_unit_test(test_disconnect_outlives_a_cut),
        cmocka_unit_test(test_private_data_is_filled_up),
        cmocka_unit_test(test_every_rule_is_watched),
        cmocka_unit_test(test_window_older_than_its_queue_pair),
        cmocka_unit_test(test_peer_cannot_write_where_it_may_not),
        cmocka_unit_test(test_key_is_of_no_use_once_invalidated),
        cmocka_unit_test(test_too_long_message_breaks_both),
        cmocka_unit_test(test_any_call_can_fail),
        cmocka_unit_test(test_fork_is_noticed_in_the_child),
        cmocka_unit_test(test_what_is_left_ends_the_program),
    };
    return cmocka_run_group_tests_name("verbs double", tests, NULL, NULL);
}
