/*
 * What can be shown of the rdma transport without a device: the work requests of a batch, the
 * credit of the control lane, the texts for a machine that lacks something. The rest is
 * machine_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include "transport/rdma/rdma_internal.h"

#define LOCAL    UINT64_C(0x100000)
#define REMOTE   UINT64_C(0x900000)
#define CAPACITY UINT64_C(65536)

static const struct rsi_rdma_way plain_way = {
    .local_address = LOCAL,
    .remote_address = REMOTE,
    .capacity_bytes = CAPACITY,
    .write_bytes_max = 1 << 20,
    .local_key = 11,
    .remote_key = 22,
    .inline_bytes_max = 256,
};

struct built {
    struct ibv_send_wr requests[RSI_RDMA_BATCH_WRITES_MAX];
    struct ibv_sge spans[RSI_RDMA_BATCH_WRITES_MAX];
    uint32_t count;
};

static void build(struct built *built, const struct rsi_rdma_way *way, uint64_t from_pos,
                  uint64_t to_pos)
{
    memset(built, 0xee, sizeof(*built));
    built->count = rsi_rdma_batch_build(way, from_pos, to_pos, built->requests, built->spans);
}

/* What holds for every batch: contiguous, both sides alike, only the last one tells. */
static void check_shape(const struct built *built, const struct rsi_rdma_way *way,
                        uint64_t from_pos, uint64_t to_pos)
{
    uint64_t pos = from_pos;
    for (uint32_t i = 0; i < built->count; i++) {
        const struct ibv_send_wr *request = &built->requests[i];
        bool is_last = i + 1 == built->count;
        uint64_t offset = pos % way->capacity_bytes;
        assert_ptr_equal(request->next, is_last ? NULL : request + 1);
        assert_int_equal(request->num_sge, 1);
        assert_int_equal(request->sg_list->addr, way->local_address + offset);
        assert_int_equal(request->sg_list->lkey, way->local_key);
        assert_int_equal(request->wr.rdma.remote_addr, way->remote_address + offset);
        assert_int_equal(request->wr.rdma.rkey, way->remote_key);
        assert_int_equal(request->opcode, is_last ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE);
        assert_int_equal((request->send_flags & IBV_SEND_SIGNALED) != 0, is_last);
        bool is_inline = (request->send_flags & IBV_SEND_INLINE) != 0;
        assert_int_equal(is_inline, request->sg_list->length <= way->inline_bytes_max);
        assert_true(request->sg_list->length > 0);
        assert_true(request->sg_list->length <= way->write_bytes_max);
        assert_true(offset + request->sg_list->length <= way->capacity_bytes);
        pos += request->sg_list->length;
    }
    assert_int_equal(pos, to_pos);
    uint32_t immediate = ntohl(built->requests[built->count - 1].imm_data);
    assert_int_equal(rsi_immediate_end_pos(immediate, from_pos), to_pos);
}

static void test_batch_inside_the_ring_is_one_write(void **state)
{
    (void)state;
    struct built built;
    build(&built, &plain_way, 128, 128 + 104);
    assert_int_equal(built.count, 1);
    check_shape(&built, &plain_way, 128, 128 + 104);
}

static void test_batch_up_to_the_end_is_one_write(void **state)
{
    (void)state;
    struct built built;
    build(&built, &plain_way, CAPACITY - 512, CAPACITY);
    assert_int_equal(built.count, 1);
    check_shape(&built, &plain_way, CAPACITY - 512, CAPACITY);
}

static void test_batch_from_the_start_is_one_write(void **state)
{
    (void)state;
    struct built built;
    build(&built, &plain_way, 7 * CAPACITY, 7 * CAPACITY + 8);
    assert_int_equal(built.count, 1);
    check_shape(&built, &plain_way, 7 * CAPACITY, 7 * CAPACITY + 8);
}

static void test_batch_across_the_end_is_two_writes(void **state)
{
    (void)state;
    struct built built;
    build(&built, &plain_way, 3 * CAPACITY - 8, 3 * CAPACITY + 400);
    assert_int_equal(built.count, 2);
    assert_int_equal(built.spans[0].length, 8);
    assert_int_equal(built.spans[1].length, 400);
    check_shape(&built, &plain_way, 3 * CAPACITY - 8, 3 * CAPACITY + 400);
}

static void test_batch_of_the_whole_ring(void **state)
{
    (void)state;
    struct built built;
    build(&built, &plain_way, 64, 64 + CAPACITY);
    assert_int_equal(built.count, 2);
    check_shape(&built, &plain_way, 64, 64 + CAPACITY);
}

static void test_batch_is_cut_at_the_devices_largest_write(void **state)
{
    (void)state;
    struct rsi_rdma_way way = plain_way;
    way.write_bytes_max = CAPACITY / RSI_RDMA_WRITES_PER_RING_MAX;
    struct built built;
    build(&built, &way, 2 * CAPACITY - 8, 3 * CAPACITY - 8);
    assert_int_equal(built.count, RSI_RDMA_WRITES_PER_RING_MAX + 1);
    check_shape(&built, &way, 2 * CAPACITY - 8, 3 * CAPACITY - 8);
    build(&built, &way, 2 * CAPACITY + 8, 3 * CAPACITY + 8);
    assert_int_equal(built.count, RSI_RDMA_WRITES_PER_RING_MAX + 1);
    check_shape(&built, &way, 2 * CAPACITY + 8, 3 * CAPACITY + 8);
}

static void test_batch_without_inline(void **state)
{
    (void)state;
    struct rsi_rdma_way way = plain_way;
    way.inline_bytes_max = 0;
    struct built built;
    build(&built, &way, CAPACITY - 8, CAPACITY + 8);
    assert_int_equal(built.count, 2);
    check_shape(&built, &way, CAPACITY - 8, CAPACITY + 8);
}

/* Every start and length of a small ring, near where the immediate's 32 bits come round. */
static void test_every_batch_of_a_small_ring(void **state)
{
    (void)state;
    struct rsi_rdma_way way = plain_way;
    way.capacity_bytes = 256;
    way.write_bytes_max = 64;
    way.inline_bytes_max = 24;
    uint64_t base_pos = (UINT64_C(1) << 35) - 256;
    for (uint64_t start = 0; start < 512; start += 8) {
        for (uint64_t bytes = 8; bytes <= 256; bytes += 8) {
            struct built built;
            build(&built, &way, base_pos + start, base_pos + start + bytes);
            check_shape(&built, &way, base_pos + start, base_pos + start + bytes);
        }
    }
}

static void test_work_ids_keep_their_parts(void **state)
{
    (void)state;
    uint64_t id = rsi_rdma_work_id(RSI_RDMA_WORK_MARKER, RSI_RDMA_SLOT_COUNT_MAX - 1, UINT32_MAX);
    assert_int_equal(rsi_rdma_work_kind(id), RSI_RDMA_WORK_MARKER);
    assert_int_equal(rsi_rdma_work_slot(id), RSI_RDMA_SLOT_COUNT_MAX - 1);
    assert_int_equal(rsi_rdma_work_count(id), UINT32_MAX);
    assert_int_equal(rsi_rdma_count_extend(0, 5), 5);
    assert_int_equal(rsi_rdma_count_extend(UINT64_C(0x1fffffff0), 4), UINT64_C(0x200000004));
    assert_int_equal(rsi_rdma_count_extend(UINT64_C(0x200000004), 4), UINT64_C(0x200000004));
}

/* ---- credit --------------------------------------------------------------------------------- */

static const struct rsi_rdma_credit fresh_credit = {.peer_limit = 4, .own_limit = 4};

static void test_credit_reserves_one_for_credit(void **state)
{
    (void)state;
    struct rsi_rdma_credit credit = fresh_credit;
    for (int i = 0; i < 3; i++) {
        assert_true(rsi_rdma_credit_allows(&credit, false));
        (void)rsi_rdma_credit_spend(&credit);
    }
    assert_false(rsi_rdma_credit_allows(&credit, false));
    assert_true(rsi_rdma_credit_allows(&credit, true));
    (void)rsi_rdma_credit_spend(&credit);
    assert_false(rsi_rdma_credit_allows(&credit, true));
    assert_true(rsi_rdma_credit_return(&credit, 1));
    assert_false(rsi_rdma_credit_allows(&credit, false));
    assert_true(rsi_rdma_credit_allows(&credit, true));
}

static void test_credit_refuses_lies(void **state)
{
    (void)state;
    struct rsi_rdma_credit credit = fresh_credit;
    (void)rsi_rdma_credit_spend(&credit);
    (void)rsi_rdma_credit_spend(&credit);
    assert_false(rsi_rdma_credit_return(&credit, 3));
    assert_int_equal(credit.peer_taken_count, 0);
    assert_true(rsi_rdma_credit_return(&credit, 2));
    assert_false(rsi_rdma_credit_return(&credit, 1));
    assert_int_equal(credit.peer_taken_count, 2);
}

static void test_credit_is_owed_from_one_half(void **state)
{
    (void)state;
    struct rsi_rdma_credit credit = fresh_credit;
    credit.taken_count = 1;
    assert_false(rsi_rdma_credit_is_owed(&credit));
    credit.taken_count = 2;
    assert_true(rsi_rdma_credit_is_owed(&credit));
    assert_int_equal(rsi_rdma_credit_spend(&credit), 2);
    assert_false(rsi_rdma_credit_is_owed(&credit));
}

struct lane_side {
    struct rsi_rdma_credit credit;
    uint64_t wire[8]; /* records on their way to the other side: what each says was taken */
    uint32_t wire_head;
    uint32_t wire_count;
    uint32_t unsent_count; /* application messages that wait */
    uint32_t credit_only_count;
};

static void lane_send(struct lane_side *side)
{
    rsi_static_assert(rsi_array_count(side->wire) >= 4);
    uint32_t at = (side->wire_head + side->wire_count) % (uint32_t)rsi_array_count(side->wire);
    side->wire[at] = rsi_rdma_credit_spend(&side->credit);
    side->wire_count++;
    assert_true(side->wire_count <= side->credit.peer_limit);
}

static void lane_pass(struct lane_side *side, struct lane_side *other, uint32_t take_count)
{
    for (; take_count > 0 && other->wire_count > 0; take_count--) {
        assert_true(rsi_rdma_credit_return(&side->credit, other->wire[other->wire_head]));
        other->wire_head = (other->wire_head + 1) % (uint32_t)rsi_array_count(other->wire);
        other->wire_count--;
        side->credit.taken_count++;
    }
    while (side->unsent_count > 0 && rsi_rdma_credit_allows(&side->credit, false)) {
        lane_send(side);
        side->unsent_count--;
    }
    if (rsi_rdma_credit_is_owed(&side->credit) && rsi_rdma_credit_allows(&side->credit, true)) {
        lane_send(side);
        side->credit_only_count++;
    }
}

/* Two sides that always have something to send, in every mix of paces: neither ever locks up, and
 * when both are done they fall silent. */
static void test_credit_never_locks_up_nor_echoes(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 200; seed++) {
        struct lane_side a = {.credit = fresh_credit, .unsent_count = 50};
        struct lane_side b = {.credit = fresh_credit, .unsent_count = seed % 3 == 0 ? 0 : 50};
        unsigned random = seed;
        int idle_count = 0;
        int pass_count = 0;
        while (idle_count < 4) {
            uint64_t before = a.credit.sent_count + b.credit.sent_count + a.credit.taken_count +
                              b.credit.taken_count;
            lane_pass(&a, &b, 1 + (uint32_t)rand_r(&random) % 4);
            lane_pass(&b, &a, 1 + (uint32_t)rand_r(&random) % 4);
            uint64_t after = a.credit.sent_count + b.credit.sent_count + a.credit.taken_count +
                             b.credit.taken_count;
            idle_count = after == before ? idle_count + 1 : 0;
            if (++pass_count > 2000) {
                fail_msg("seed %u: the two sides never fall silent", seed);
            }
        }
        if (a.unsent_count > 0 || b.unsent_count > 0) {
            fail_msg("seed %u: locked up with %u and %u messages unsent", seed, a.unsent_count,
                     b.unsent_count);
        }
    }
}

/* ---- texts ---------------------------------------------------------------------------------- */

static void test_memory_lock_text_names_need_limit_and_mend(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    assert_int_equal(
        rsi_rdma_memory_lock_fail(&error, "in ring", 64 << 20, 72 << 10, 8 << 20, ENOMEM),
        RSI_E_NO_MEMORY_LOCK);
    static const char *const parts[] = {"in ring",       "65536 KiB",    "72 KiB",
                                        "8192 KiB",      "ulimit -l",    "/etc/security/limits.d",
                                        "LimitMEMLOCK=", "rings smaller"};
    for (size_t i = 0; i < rsi_array_count(parts); i++) {
        assert_non_null(strstr(error.text, parts[i]));
    }
    (void)rsi_rdma_memory_lock_fail(&error, "in ring", 1, 0, UINT64_MAX, EPERM);
    assert_non_null(strstr(error.text, "unlimited"));
}

/* On a machine without a device this is what the user gets; with one, the device's name is
 * checked. */
static void test_missing_device_names_the_way_out(void **state)
{
    (void)state;
    struct rsi_domain_options options = {.device = "no_such_device", .node = RSI_NODE_ANY};
    struct rsi_domain *domain = NULL;
    struct rsi_error error = {0};
    assert_int_equal(rsi_rdma_transport.domain_create(&domain, &options, &error), RSI_E_NO_DEVICE);
    assert_null(domain);
    bool names_way_out =
        strstr(error.text, "rdma link add") != NULL && strstr(error.text, "--soft-roce") != NULL;
    bool names_devices = strstr(error.text, "no_such_device") != NULL;
    assert_true(names_way_out || names_devices);
}

static void test_poller_refuses_impossible_link_counts(void **state)
{
    (void)state;
    struct rsi_domain domain = {.transport = &rsi_rdma_transport};
    struct rsi_poller *poller = NULL;
    struct rsi_error error = {0};
    struct rsi_poller_options options = {.link_count_max = 0};
    assert_int_equal(rsi_rdma_transport.poller_create(&poller, &domain, &options, &error),
                     RSI_E_INVALID);
    options.link_count_max = RSI_RDMA_LINK_COUNT_MAX + 1;
    assert_int_equal(rsi_rdma_transport.poller_create(&poller, &domain, &options, &error),
                     RSI_E_INVALID);
    assert_null(poller);
    options.link_count_max = 1;
    assert_int_equal(rsi_rdma_transport.poller_create(&poller, &domain, &options, &error), RSI_OK);
    assert_true(rsi_rdma_transport.poller_fd(poller) >= 0);
    assert_int_equal(rsi_rdma_transport.poll_data(poller, 1), 0);
    assert_true(rsi_rdma_transport.poller_arm(poller));
    rsi_rdma_transport.poller_disarm(poller);
    rsi_rdma_transport.poller_destroy(poller);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_inside_the_ring_is_one_write),
        cmocka_unit_test(test_batch_up_to_the_end_is_one_write),
        cmocka_unit_test(test_batch_from_the_start_is_one_write),
        cmocka_unit_test(test_batch_across_the_end_is_two_writes),
        cmocka_unit_test(test_batch_of_the_whole_ring),
        cmocka_unit_test(test_batch_is_cut_at_the_devices_largest_write),
        cmocka_unit_test(test_batch_without_inline),
        cmocka_unit_test(test_every_batch_of_a_small_ring),
        cmocka_unit_test(test_work_ids_keep_their_parts),
        cmocka_unit_test(test_credit_reserves_one_for_credit),
        cmocka_unit_test(test_credit_refuses_lies),
        cmocka_unit_test(test_credit_is_owed_from_one_half),
        cmocka_unit_test(test_credit_never_locks_up_nor_echoes),
        cmocka_unit_test(test_memory_lock_text_names_need_limit_and_mend),
        cmocka_unit_test(test_missing_device_names_the_way_out),
        cmocka_unit_test(test_poller_refuses_impossible_link_counts),
    };
    return cmocka_run_group_tests_name("rdma", tests, NULL, NULL);
}
