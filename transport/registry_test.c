/*
 * The table of transports.
 */
#include "core/testing.h"
#include "transport/registry.h"

/* Every entry of the seam is a function: what a transport cannot do is a stub that says so. */
static void check_is_complete(const struct rsi_transport *transport)
{
    assert_non_null(transport->name);
    assert_true(transport->batch_bytes_max > 0);
    assert_true(transport->domain_create && transport->domain_destroy && transport->domain_fd);
    assert_true(transport->domain_poll_control != NULL);
    assert_true(transport->poller_create && transport->poller_destroy);
    assert_true(transport->listener_create && transport->listener_destroy);
    assert_true(transport->listener_url != NULL);
    assert_true(transport->link_accept && transport->link_dial && transport->link_attach);
    assert_true(transport->link_poll_control && transport->link_close && transport->link_destroy);
    assert_true(transport->place && transport->flush && transport->publish_consumed);
    assert_true(transport->request_wake && transport->poll_data);
    assert_true(transport->poller_arm && transport->poller_disarm && transport->poller_fd);
}

static void test_transports_are_found_by_name_and_complete(void **state)
{
    (void)state;
    uint32_t count = 0;
    for (; rsi_transports[count] != NULL; count++) {
        check_is_complete(rsi_transports[count]);
        assert_ptr_equal(rsi_transport_find(rsi_transports[count]->name), rsi_transports[count]);
    }
    assert_true(count >= 2);
    check_is_complete(rsi_transport_find("sim"));
    assert_null(rsi_transport_find("carrier-pigeon"));
    assert_null(rsi_transport_find(""));
}

static void test_order_of_auto(void **state)
{
    (void)state;
    static const char *const order[] = {
        "shm",
#if RSI_HAVE_RDMA
        "rdma",
#endif
        "dpdk",
        "tcp"
    };
    for (size_t i = 0; i < rsi_array_count(order); i++) {
        assert_string_equal(rsi_transports[i]->name, order[i]);
    }
    assert_null(rsi_transports[rsi_array_count(order)]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transports_are_found_by_name_and_complete),
        cmocka_unit_test(test_order_of_auto),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
