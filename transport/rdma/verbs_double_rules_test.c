/*
 * The double itself: that each rule it watches is watched.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>

#include "transport/rdma/rig_testing.h"

/* ---- rules ---------------------------------------------------------------------------------- */

/* Each breaks one rule on a fresh rig, and leaves it so that it can be closed. */
struct rule {
    void (*break_it)(struct rig *rig);
    const char *part; /* of the fault */
};

static void overfill_the_send_queue(struct rig *rig)
{
    /* None asks for a completion: so none is polled, and no place comes free. */
    for (uint32_t i = 0; i <= RIG_SEND_COUNT; i++) {
        int result = rig_post_message(&rig->active, 8, IBV_SEND_INLINE);
        assert_int_equal(result, i == RIG_SEND_COUNT ? EINVAL : 0);
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
    assert_int_equal(rig_post_message(&rig->active, 65, IBV_SEND_INLINE), EINVAL);
}

static void use_a_wrong_local_key(struct rig *rig)
{
    struct ibv_sge span = {
        .addr = (uintptr_t)rig->active.memory, .length = 8, .lkey = rig->active.mr->lkey + 1};
    struct ibv_send_wr wr = {.sg_list = &span, .num_sge = 1, .opcode = IBV_WR_SEND};
    assert_int_equal(rig_post(&rig->active, &wr), EINVAL);
}

static void use_another_domains_key(struct rig *rig)
{
    struct ibv_sge span = {
        .addr = (uintptr_t)rig->passive.memory, .length = 8, .lkey = rig->passive.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &span, .num_sge = 1, .opcode = IBV_WR_SEND};
    assert_int_equal(rig_post(&rig->active, &wr), EINVAL);
}

static void send_from_beyond_the_region(struct rig *rig)
{
    struct ibv_sge span = {.addr = (uintptr_t)rig->active.memory + RIG_MEMORY_BYTES - 4,
                           .length = 8,
                           .lkey = rig->active.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &span, .num_sge = 1, .opcode = IBV_WR_SEND};
    assert_int_equal(rig_post(&rig->active, &wr), EINVAL);
}

static void send_without_a_receive(struct rig *rig)
{
    for (uint32_t i = 0; i <= RIG_RECEIVE_COUNT; i++) {
        struct ibv_wc wc;
        assert_int_equal(rig_post_message(&rig->active, 8, IBV_SEND_INLINE | IBV_SEND_SIGNALED), 0);
        (void)rig_poll_all(&rig->active, &wc);
    }
}

static void make_a_completion_queue_too_small(struct rig *rig)
{
    struct rig_end end = {.id = rig->active.id};
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
    rig_bind_window(&rig->passive);
    assert_int_equal(ibv_dereg_mr(rig->passive.mr), EINVAL);
}

static void deregister_under_posted_work(struct rig *rig)
{
    struct ibv_mr *mr = ibv_reg_mr(rig->active.pd, rig->active.memory, 64, 0);
    struct ibv_sge span = {.addr = (uintptr_t)rig->active.memory, .length = 8, .lkey = mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &span, .num_sge = 1, .opcode = IBV_WR_SEND};
    verbs_double_cut(true);
    assert_int_equal(rig_post(&rig->active, &wr), 0);
    assert_int_equal(ibv_dereg_mr(mr), 0);
    verbs_double_advance(UINT64_C(1000000000));
    verbs_double_cut(false);
}

static void destroy_a_queue_pair_under_a_window(struct rig *rig)
{
    rig_bind_window(&rig->passive);
    rdma_destroy_qp(rig->passive.id);
    assert_non_null(rig->passive.id->qp);
}

static void free_a_window_that_works(struct rig *rig)
{
    rig_bind_window(&rig->passive);
    assert_int_equal(ibv_dealloc_mw(rig->passive.mw), 0);
    rig->passive.mw = NULL;
}

static void bind_twice(struct rig *rig)
{
    rig_bind_window(&rig->passive);
    struct rig_end *end = &rig->passive;
    struct ibv_send_wr wr = {
        .opcode = IBV_WR_BIND_MW,
        .bind_mw = {.mw = end->mw,
                    .rkey = ibv_inc_rkey(end->key),
                    .bind_info = {.mr = end->mr, .addr = (uintptr_t)end->memory, .length = 8}},
    };
    assert_int_equal(rig_post(end, &wr), 0);
}

static void bind_with_another_windows_key(struct rig *rig)
{
    struct rig_end *end = &rig->passive;
    end->mw = ibv_alloc_mw(end->pd, IBV_MW_TYPE_2);
    struct ibv_send_wr wr = {
        .opcode = IBV_WR_BIND_MW,
        .bind_mw = {.mw = end->mw,
                    .rkey = end->mw->rkey + 256,
                    .bind_info = {.mr = end->mr, .addr = (uintptr_t)end->memory, .length = 8}},
    };
    assert_int_equal(rig_post(end, &wr), 0);
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
    assert_int_equal(rig_post_message(&rig->active, 8, IBV_SEND_INLINE | IBV_SEND_SIGNALED), 0);
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
    struct sockaddr_in nowhere = rig_address("10.9.9.9", 1);
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
    struct sockaddr_in target = rig_address("10.7.0.1", 1);
    assert_int_equal(rdma_create_id(rig->events, &id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_resolve_addr(id, NULL, (struct sockaddr *)&target, 1), 0);
    (void)rig_expect_event(rig, RDMA_CM_EVENT_ADDR_RESOLVED);
    assert_int_equal(rdma_resolve_route(id, 1), 0);
    (void)rig_expect_event(rig, RDMA_CM_EVENT_ROUTE_RESOLVED);
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
        rig_expect_fault(rules[i].part);
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
    rig_equip(&rig.active, RIG_SEND_COUNT + RIG_RECEIVE_COUNT);
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
    assert_int_equal(rig_post(&rig.active, &wr), 0);
    rig_expect_fault("older than its queue pair");
    old->pd = pd;
    verbs_double_keep_faults(false);
    assert_int_equal(ibv_dealloc_mw(old), 0);
    assert_int_equal(ibv_dealloc_pd(pd), 0);
    rig_close(&rig);
}

/* ---- what a peer may not -------------------------------------------------------------------- */

static void expect_refused(const struct rig_write *write, bool binds)
{
    struct rig rig;
    rig_open(&rig, NULL);
    memset(rig.active.memory, 0xee, RIG_HALF);
    if (binds) {
        rig_bind_window(&rig.passive);
    }
    struct rig_write made = *write;
    made.key = write->key != 0 ? write->key : rig.passive.key;
    assert_int_equal(rig_post_write(&rig, &made, 3), 0);
    struct ibv_wc wc;
    assert_int_equal(ibv_poll_cq(rig.active.cq, 1, &wc), 1);
    assert_int_equal(wc.status, IBV_WC_REM_ACCESS_ERR);
    assert_int_equal(rig.active.id->qp->state, IBV_QPS_ERR);
    assert_int_equal(rig.passive.id->qp->state, IBV_QPS_ERR);
    for (size_t i = 0; i < RIG_HALF; i++) {
        assert_int_equal(rig.passive.memory[i], 0);
    }
    rig_close(&rig);
}

static void test_peer_cannot_write_where_it_may_not(void **state)
{
    (void)state;
    struct rig_write beyond = rig_plain_write;
    beyond.offset = RIG_MEMORY_BYTES - 32;
    expect_refused(&beyond, true);
    struct rig_write before = rig_plain_write;
    before.offset = (uint64_t)-8;
    expect_refused(&before, true);
    struct rig_write guessed = rig_plain_write;
    guessed.key = 0x1234;
    expect_refused(&guessed, true);
    expect_refused(&guessed, false);
    struct rig_write read = rig_plain_write;
    read.opcode = IBV_WR_RDMA_READ;
    expect_refused(&read, true);
}

static void test_key_is_of_no_use_once_invalidated(void **state)
{
    (void)state;
    struct rig rig;
    struct ibv_wc wc;
    rig_open(&rig, NULL);
    rig_bind_window(&rig.passive);
    struct ibv_send_wr wr = {.opcode = IBV_WR_SEND_WITH_INV, .invalidate_rkey = rig.passive.key};
    assert_int_equal(rig_post(&rig.active, &wr), 0);
    assert_int_equal(ibv_poll_cq(rig.passive.cq, 1, &wc), 1);
    assert_int_equal(wc.wc_flags, IBV_WC_WITH_INV);
    struct rig_write write = rig_plain_write;
    write.key = rig.passive.key;
    assert_int_equal(rig_post_write(&rig, &write, 4), 0);
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
    assert_int_equal(rig_post_message(&rig.active, 65, IBV_SEND_SIGNALED), 0);
    assert_int_equal(ibv_poll_cq(rig.active.cq, 1, &wc), 1);
    assert_int_equal(wc.status, IBV_WC_REM_INV_REQ_ERR);
    assert_int_equal(ibv_poll_cq(rig.passive.cq, 1, &wc), 1);
    assert_int_equal(wc.status, IBV_WC_LOC_LEN_ERR);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rule_is_watched),
        cmocka_unit_test(test_window_older_than_its_queue_pair),
        cmocka_unit_test(test_peer_cannot_write_where_it_may_not),
        cmocka_unit_test(test_key_is_of_no_use_once_invalidated),
        cmocka_unit_test(test_too_long_message_breaks_both),
    };
    return cmocka_run_group_tests_name("rules of the verbs double", tests, NULL, NULL);
}
