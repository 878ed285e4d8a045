/*
 * The double itself: that it works, and that it is as bad as it says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/rdma/rig_testing.h"

/* ---- what works ----------------------------------------------------------------------------- */

static void test_write_with_immediate_arrives(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, NULL);
    rig_bind_window(&rig.passive);
    memset(rig.active.memory, 0x5a, 64);
    struct rig_write write = rig_plain_write;
    write.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    write.key = rig.passive.key;
    write.offset = 128;
    assert_int_equal(rig_post_write(&rig, &write, 9), 0);
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
    assert_int_equal(rig_post_message(&rig.active, 8, IBV_SEND_INLINE), 0);
    assert_int_equal(ibv_req_notify_cq(rig.passive.cq, 0), 0);
    assert_int_equal(ibv_get_cq_event(rig.passive.channel, &cq, &context), -1);
    assert_int_equal(rig_post_message(&rig.active, 8, IBV_SEND_INLINE), 0);
    assert_int_equal(rig_post_message(&rig.active, 8, IBV_SEND_INLINE), 0);
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
    for (uint64_t i = 0; i < RIG_SEND_COUNT; i++) {
        struct rig_write write = rig_plain_write;
        write.bytes = 0;
        write.flags = 0;
        assert_int_equal(rig_post_write(&rig, &write, i), 0);
    }
    struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_ERR};
    assert_int_equal(ibv_modify_qp(rig.active.id->qp, &attributes, IBV_QP_STATE), 0);
    struct ibv_wc wc[RIG_SEND_COUNT + RIG_RECEIVE_COUNT];
    uint64_t next_send = 0;
    int count = ibv_poll_cq(rig.active.cq, RIG_SEND_COUNT + RIG_RECEIVE_COUNT, wc);
    assert_int_equal(count, RIG_SEND_COUNT + RIG_RECEIVE_COUNT);
    for (int i = 0; i < (int)RIG_SEND_COUNT; i++) {
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
    rig_bind_window(&rig.passive);
    memset(rig.active.memory, 0xff, 64);
    struct rig_write write = rig_plain_write;
    write.key = rig.passive.key;
    write.flags = 0;
    assert_int_equal(rig_post_write(&rig, &write, 1), 0);
    write.offset = 64;
    write.flags = IBV_SEND_SIGNALED;
    assert_int_equal(rig_post_write(&rig, &write, 2), 0);
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
    rig_bind_window(&rig.passive);
    memset(rig.active.memory, 0xff, 2048);
    struct rig_write write = rig_plain_write;
    write.key = rig.passive.key;
    write.bytes = 2048;
    assert_int_equal(rig_post_write(&rig, &write, 1), 0);
    (void)verbs_double_step(1); /* it is launched */
    struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_ERR};
    assert_int_equal(ibv_modify_qp(rig.passive.id->qp, &attributes, IBV_QP_STATE), 0);
    bool was_there = rig.passive.memory[0] == 0xff;
    (void)verbs_double_step(1);
    bool is_there = rig.passive.memory[0] == 0xff;
    /* cppcheck-suppress incorrectLogicOperator ; the device writes between the two looks */
    *is_late = *is_late || (is_there && !was_there);
    struct ibv_wc wc;
    (void)rig_poll_all(&rig.passive, &wc);
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
    rig_expect_no_event(&rig);
    assert_int_equal(rig_post_message(&rig.active, 8, IBV_SEND_INLINE), 0);
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
    assert_int_equal(rig_post_message(&rig.active, 8, IBV_SEND_SIGNALED), 0);
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
    assert_ptr_equal(rig_expect_event(&rig, RDMA_CM_EVENT_DISCONNECTED), rig.passive.id);
    rig_expect_no_event(&rig);
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
    rig_expect_no_event(&rig);
    verbs_double_cut(false);
    assert_ptr_equal(rig_expect_event(&rig, RDMA_CM_EVENT_DISCONNECTED), rig.passive.id);
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
    rig_equip(&rig.active, RIG_SEND_COUNT + RIG_RECEIVE_COUNT);
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
    rig_end_close(&rig.active);
    assert_int_equal(rdma_destroy_id(rig.listener), 0);
    rdma_destroy_event_channel(rig.events);
    verbs_double_end();
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
        cmocka_unit_test(test_any_call_can_fail),
        cmocka_unit_test(test_fork_is_noticed_in_the_child),
        cmocka_unit_test(test_what_is_left_ends_the_program),
    };
    return cmocka_run_group_tests_name("verbs double", tests, NULL, NULL);
}
