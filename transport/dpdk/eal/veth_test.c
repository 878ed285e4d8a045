/*
 * The plugin over af_packet on a veth pair: sizes, the interface's MTU, a cut cable. Root only.
 *
 * Design notes
 * - Both ends lie in a network namespace of this process's own, which ends with it: nothing is left
 *   behind, however the test ends. The kernel gives the ends no address, so it answers for none.
 */
#include "core/compiler.h"
#include "transport/dpdk/eal/port_testing.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>

static struct rsi_dpdk_options end(const char *port, const char *address)
{
    return (struct rsi_dpdk_options){
        .port = port, .address = address, .memory_bytes = 320 << 20, .no_huge = true};
}

static struct rsi_port *open_end(const char *port, const char *address)
{
    const struct rsi_dpdk_options options = end(port, address);
    return port_open(&options);
}

static const char left_text[] = "net_af_packet0,iface=left";
static const char right_text[] = "net_af_packet1,iface=right";

static void run(const char *command)
{
    if (system(command) != 0) {
        fail_msg("failed: %s", command);
    }
}

static void frames_of_all_sizes_cross(void **state)
{
    (void)state;
    static const uint32_t mtus[] = {1500, 2000, 9000, 16000};
    for (size_t i = 0; i < rsi_array_count(mtus); i++) {
        char command[128];
        snprintf(command, sizeof(command), "ip link set left mtu %u && ip link set right mtu %u",
                 mtus[i], mtus[i]);
        run(command);
        struct rsi_dpdk_options options[2] = {end(left_text, "10.7.0.1/24"),
                                              end(right_text, "10.7.0.2/24")};
        struct rsi_port *a = port_open(&options[0]);
        struct rsi_port *b = port_open(&options[1]);
        assert_string_equal(a->name, "net_af_packet0 (left)");
        assert_int_equal(a->frame_bytes_max, mtus[i] + 14);
        assert_true(a->operations->link_up(a));
        for (uint32_t bytes = 60; bytes <= a->frame_bytes_max; bytes += bytes < 1400 ? 7 : 1) {
            port_send(a, b, bytes, bytes);
            port_expect(b, bytes, bytes);
        }
        port_send(b, a, b->frame_bytes_max, 1);
        port_expect(a, b->frame_bytes_max, 1);
        a->operations->close(a);
        b->operations->close(b);
    }
    run("ip link set left mtu 1500 && ip link set right mtu 1500");
}

static void a_frame_wakes_a_sleeper(void **state)
{
    (void)state;
    struct rsi_port *a = open_end(left_text, "10.7.0.1/24");
    struct rsi_port *b = open_end(right_text, "10.7.0.2/24");
    port_expect_wake(a, b);
    port_expect_wake(b, a);
    a->operations->close(a);
    b->operations->close(b);
}

/* As many as the port says it holds do come, in one burst. */
static void the_receiver_holds_what_it_says(void **state)
{
    (void)state;
    struct rsi_port *a = open_end(left_text, "10.7.0.1/24");
    struct rsi_port *b = open_end(right_text, "10.7.0.2/24");
    uint32_t count = b->receive_frames - 64; /* the kernel may say something too */
    for (uint32_t i = 0; i < count; i++) {
        port_send(a, b, 100, i);
    }
    for (uint32_t i = 0; i < count; i++) {
        port_expect(b, 100, i);
    }
    a->operations->close(a);
    b->operations->close(b);
}

static void a_mac_of_ones_own(void **state)
{
    (void)state;
    struct rsi_dpdk_options options[2] = {end(left_text, "10.7.0.1/24"),
                                          end(right_text, "10.7.0.2/24")};
    options[1].mac = "02:00:00:00:00:99";
    struct rsi_port *a = port_open(&options[0]);
    struct rsi_port *b = port_open(&options[1]);
    assert_int_equal(b->mac[5], 0x99);
    port_send(a, b, 500, 7);
    port_expect(b, 500, 7);
    a->operations->close(a);
    b->operations->close(b);
    run("ip -o link show right | grep -qv 02:00:00:00:00:99");
}

/*
 * Sending into a cut cable neither blocks nor takes the port down. What the kernel kept meanwhile
 * it sends with the first frame after: as much as the receiver holds, so that one may be lost.
 */
static void a_cut_cable(void **state)
{
    (void)state;
    struct rsi_port *a = open_end(left_text, "10.7.0.1/24");
    struct rsi_port *b = open_end(right_text, "10.7.0.2/24");
    static const char *const downs[] = {"ip link set right down", "ip link set left down"};
    static const char *const ups[] = {"ip link set right up", "ip link set left up"};
    for (size_t cut = 0; cut < rsi_array_count(downs); cut++) {
        run(downs[cut]);
        rsi_test_wait_until(!a->operations->link_up(a));
        for (uint32_t i = 0; i < 10000; i++) {
            struct rsi_port_frame frame;
            if (a->operations->acquire(a, &frame, 1) == 0) {
                continue;
            }
            memset(frame.data, 0, 60);
            frame.bytes = 60;
            if (a->operations->transmit(a, 0, &frame, 1) == 0) {
                a->operations->release(a, &frame, 1);
            }
        }
        run(ups[cut]);
        rsi_test_wait_until(a->operations->link_up(a));
        uint64_t end_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
        do {
            assert_true(rsi_test_now_ns() < end_ns);
            port_send(a, b, 300, 1);
        } while (!port_take(b, 300, 1));
    }
    a->operations->close(a);
    b->operations->close(b);
}

/* Neighbours among processes on neighbours among interfaces meet in half of all cases. */
static void a_number_that_is_taken_is_named(void **state)
{
    (void)state;
    struct rsi_dpdk_options options = end(left_text, "10.7.0.1/24");
    struct sockaddr_ll right = {.sll_family = AF_PACKET,
                                .sll_protocol = htons(ETH_P_ALL),
                                .sll_ifindex = (int)if_nametoindex("right")};
    int number = (getpid() ^ (int)if_nametoindex("left")) & 0xffff;
    int taken = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    assert_int_equal(bind(taken, (struct sockaddr *)&right, sizeof(right)), 0);
    assert_int_equal(setsockopt(taken, SOL_PACKET, PACKET_FANOUT, &number, sizeof(number)), 0);
    port_expect_failure(&options, RSI_E_ADDRESS, WORDS("iface=left", "same number", "again"));
    close(taken);
    struct rsi_port *port = port_open(&options);
    port->operations->close(port);
}

static void what_the_interface_cannot_is_refused(void **state)
{
    (void)state;
    struct rsi_dpdk_options options = end(left_text, "10.7.0.1/24");
    options.mtu = 9000;
    port_expect_failure(&options, RSI_E_INVALID,
                        WORDS("dpdk_mtu: 9000", "1500", "ip link set left mtu 9000"));
    options.mtu = 1500;
    options.port = "net_af_packet0,iface=left,framesz=1024";
    port_expect_failure(&options, RSI_E_INVALID, WORDS("framesz=1024", "cut"));
    options.port = "net_af_packet0,iface=left,framecnt=8,blocksz=65536";
    port_expect_failure(&options, RSI_E_INVALID, WORDS("framecnt=8"));
    options.port = "net_af_packet0,iface=left,qpairs=4";
    port_expect_failure(&options, RSI_E_INVALID, WORDS("qpairs=4"));
    options.port = left_text;
    run("ip addr add 10.7.0.1/24 dev right");
    port_expect_failure(&options, RSI_E_ADDRESS, WORDS("10.7.0.1/24", "kernel", "right"));
    run("ip addr del 10.7.0.1/24 dev right && ip link set left down");
    port_expect_failure(&options, RSI_E_NO_DEVICE, WORDS("left is down", "ip link set left up"));
    run("ip link set left up");
}

/* Two on one interface are fine, as long as each has an address of its own. */
static void an_address_has_one_user(void **state)
{
    (void)state;
    struct rsi_dpdk_options options[3] = {end(left_text, "10.7.0.1/24"),
                                          end("net_af_packet2,iface=left", "10.7.0.1/16"),
                                          end(right_text, "10.7.0.1/24")};
    struct rsi_port *a = port_open(&options[0]);
    port_expect_failure(&options[1], RSI_E_ADDRESS, WORDS("10.7.0.1 on left", "of its own"));
    options[1].address = "10.7.0.3/24";
    struct rsi_port *b = port_open(&options[1]);
    struct rsi_port *c = port_open(&options[2]); /* of another interface */
    c->operations->close(c);
    b->operations->close(b);
    a->operations->close(a);
    a = port_open(&options[0]);
    a->operations->close(a);
}

static void without_the_right_it_is_refused(void **state)
{
    (void)state;
    struct rsi_dpdk_options options = end(left_text, "10.7.0.1/24");
    pid_t child = fork();
    if (child == 0) {
        struct rsi_port *port = NULL;
        struct rsi_error error = {0};
        /* Loads the plugin, which may lie in a folder that the other user cannot enter. */
        struct rsi_dpdk_options wrong = end("net_af_packet0,iface=nowhere", "10.7.0.1/24");
        if (rsi_dpdk_plugin_port_open(&port, &wrong, &error) == RSI_OK) {
            _exit(3);
        }
        if (setgid(65534) != 0 || setuid(65534) != 0) {
            _exit(1);
        }
        rsi_status_t status = rsi_dpdk_plugin_port_open(&port, &options, &error);
        bool is_named = strstr(error.text, "CAP_NET_RAW") != NULL;
        _exit(status == RSI_E_PERMISSION && is_named ? 0 : 2);
    }
    int result = 0;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
}

int main(void)
{
    if (port_is_passed_over()) {
        return PORT_SKIPPED;
    }
    if (unshare(CLONE_NEWNET) != 0 ||
        system("ip link add left type veth peer name right && ip link set left up && ip link set "
               "right up") != 0) {
        puts("skipped: no network namespace (needs root)");
        return PORT_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_right_it_is_refused), /* while EAL is not started */
        cmocka_unit_test(frames_of_all_sizes_cross),
        cmocka_unit_test(a_frame_wakes_a_sleeper),
        cmocka_unit_test(the_receiver_holds_what_it_says),
        cmocka_unit_test(a_mac_of_ones_own),
        cmocka_unit_test(an_address_has_one_user),
        cmocka_unit_test(a_cut_cable),
        cmocka_unit_test(what_the_interface_cannot_is_refused),
        cmocka_unit_test(a_number_that_is_taken_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
