/*
 * The plugin where nobody has started EAL: what is refused before it starts, that it starts without
 * a word on standard output or error, and ports over net_ring, which sends to itself.
 */
#include "transport/dpdk/eal/port_testing.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

static const struct rsi_dpdk_options ring = {
    .port = "net_ring0", .address = "10.7.0.1/24", .no_huge = true};

static char folder[] = "/tmp/ringside-eal-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static struct rsi_dpdk_options with_port(const char *port)
{
    struct rsi_dpdk_options options = ring;
    options.port = port;
    return options;
}

/* None of these starts EAL, or the later tests could not choose how. */
static void refused_before_eal_starts(void **state)
{
    (void)state;
    const struct {
        const char *port;
        rsi_status_t status;
        const char *words[3];
    } cases[] = {
        {"", RSI_E_INVALID, {"no device is named", "net_af_packet0,iface=eth1"}},
        {"ffff:ff:1f.7", RSI_E_NO_DEVICE, {"ffff:ff:1f.7", "dpdk-devbind.py"}},
        {"net_af_packet0", RSI_E_INVALID, {"iface=eth1"}},
        {"net_af_packet0,iface=", RSI_E_INVALID, {"iface=eth1"}},
        {"net_af_packet0,iface=nowhere9", RSI_E_NO_DEVICE, {"'nowhere9'", "ip link"}},
        {"net_af_packet0,iface=a_name_longer_than_any", RSI_E_INVALID, {"a_name_longer"}},
        {"net_memif0,bsize=1024", RSI_E_INVALID, {"bsize=1024", "1518"}},
        {"net_memif0,rsize=40", RSI_E_INVALID, {"rsize=40"}},
        {"net_memif0,bsize=x", RSI_E_INVALID, {"bsize", "'x'"}},
        {"net_memif0,zero-copy=yes", RSI_E_UNSUPPORTED, {"zero-copy=yes"}},
        {"net_memif0,role=client,socket-abstract=no,socket=/nowhere/at/all",
         RSI_E_NO_DEVICE,
         {"/nowhere/at/all", "start"}},
        {"net_vhost0", RSI_E_INVALID, {"iface=/run/ringside/vhost.sock"}},
        {"net_virtio_user0", RSI_E_INVALID, {"path=/run/ringside/vhost.sock"}},
        {"net_virtio_user0,path=/nowhere/at/all", RSI_E_NO_DEVICE, {"/nowhere/at/all", "start"}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rsi_dpdk_options options = with_port(cases[i].port);
        port_expect_failure(&options, cases[i].status, cases[i].words);
    }
    struct rsi_dpdk_options options = ring;
    options.cores = "1023";
    port_expect_failure(&options, RSI_E_CPU, WORDS("dpdk_cores", "CPU 1023"));
    options = ring;
    options.memory_bytes = 1 << 20;
    port_expect_failure(&options, RSI_E_INVALID, WORDS("dpdk_memory: 1048576", "net_ring0", "MiB"));
}

/* EAL has memory for one port of that size, and not for two. */
static void memory_that_does_not_suffice_is_told(void **state)
{
    (void)state;
    struct rsi_dpdk_options large = ring;
    large.port = "net_ring5";
    large.mtu = RSI_DPDK_MTU_MAX;
    port_expect_failure(&large, RSI_E_NO_MEMORY, WORDS("net_ring5", "dpdk_memory"));
    struct rsi_port *port = port_open(&ring); /* a failure leaves nothing behind */
    port->operations->close(port);
}

static void sockets_of_others_are_left_alone_and_stale_ones_go(void **state)
{
    (void)state;
    char text[160];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", folder);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    snprintf(text, sizeof(text), "net_vhost0,iface=%s", address.sun_path);
    struct rsi_dpdk_options options = with_port(text);
    port_expect_failure(&options, RSI_E_EXISTS, WORDS(address.sun_path, "another process"));
    snprintf(text, sizeof(text), "net_memif0,role=server,socket-abstract=no,socket=%s",
             address.sun_path);
    options = with_port(text);
    port_expect_failure(&options, RSI_E_EXISTS, WORDS(address.sun_path, "another process"));
    close(fd);
    assert_int_equal(access(address.sun_path, F_OK), 0);
    /* Nobody listens any more: it goes, and what is asked next fails for its own reason. */
    options.cores = "1023";
    port_expect_failure(&options, RSI_E_CPU, WORDS("CPU 1023"));
    assert_int_not_equal(access(address.sun_path, F_OK), 0);
    fd = open(address.sun_path, O_WRONLY | O_CREAT, 0600);
    close(fd);
    port_expect_failure(&options, RSI_E_EXISTS, WORDS(address.sun_path, "no socket"));
    unlink(address.sun_path);
}

struct watched {
    int saved[2];
    int file;
};

static void watch_begin(struct watched *watched)
{
    watched->file = memfd_create("said", MFD_CLOEXEC);
    for (int i = 0; i < 2; i++) {
        fflush(i == 0 ? stdout : stderr);
        watched->saved[i] = dup(i + 1);
        dup2(watched->file, i + 1);
    }
}

static void watch_end(struct watched *watched, char *text, size_t text_bytes)
{
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        dup2(watched->saved[i], i + 1);
        close(watched->saved[i]);
    }
    ssize_t bytes = pread(watched->file, text, text_bytes - 1, 0);
    text[bytes > 0 ? bytes : 0] = '\0';
    close(watched->file);
}

/* Starts EAL: first with what has no driver, so that DPDK has something to say. */
static void dpdk_says_nothing_on_its_own(void **state)
{
    (void)state;
    char said[512];
    struct watched watched;
    struct rsi_port *port = NULL;
    struct rsi_error error = {0};
    sigset_t signals[2];
    cpu_set_t cpus[2];
    struct rsi_dpdk_options options = with_port("net_nonsense0");
    pthread_sigmask(SIG_SETMASK, NULL, &signals[0]);
    sched_getaffinity(0, sizeof(cpus[0]), &cpus[0]);
    watch_begin(&watched);
    rsi_status_t status = rsi_dpdk_plugin_port_open(&port, &options, &error);
    fprintf(stderr, "but the program may. ");
    watch_end(&watched, said, sizeof(said));
    pthread_sigmask(SIG_SETMASK, NULL, &signals[1]);
    sched_getaffinity(0, sizeof(cpus[1]), &cpus[1]);
    if (status != RSI_E_NO_DEVICE) {
        fail_msg("%s: %s", rsi_status_name(status), error.text);
    }
    assert_non_null(strstr(error.text, "'net_nonsense0'"));
    assert_string_equal(said, "but the program may. ");
    for (int signal = 1; signal < SIGRTMAX; signal++) {
        assert_int_equal(sigismember(&signals[0], signal), sigismember(&signals[1], signal));
    }
    assert_true(CPU_EQUAL(&cpus[0], &cpus[1]));
    char path[64]; /* EAL's folder: of root, else of nobody here */
    snprintf(path, sizeof(path), "/var/run/dpdk/ringside-%d", getpid());
    assert_int_not_equal(access(path, F_OK), 0);
}

static void frames_of_all_sizes_come_back(void **state)
{
    (void)state;
    struct rsi_port *port = port_open(&ring);
    assert_int_equal(port->frame_bytes_max, 1514);
    assert_true(port->operations->link_up(port));
    for (uint32_t bytes = 14; bytes <= port->frame_bytes_max; bytes++) {
        port_send(port, port, bytes, bytes);
        port_expect(port, bytes, bytes);
    }
    port->operations->close(port);
}

/* Bursts beyond a ring: transmit takes some, the others stay the caller's; nothing gets lost. */
static void a_full_ring_takes_no_more_and_loses_nothing(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    static struct rsi_port_frame frames[COUNT];
    struct rsi_port *port = port_open(&ring);
    uint32_t lent = port->operations->acquire(port, frames, COUNT);
    assert_int_equal(lent, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        memset(frames[i].data, 0, 64);
        memcpy(frames[i].data + 14, &i, sizeof(i));
        frames[i].bytes = 64;
    }
    uint32_t sent = port->operations->transmit(port, 0, frames, COUNT);
    assert_true(sent > 0);
    assert_true(sent < COUNT);
    port->operations->release(port, frames + sent, COUNT - sent);
    uint32_t got = 0;
    while (got < sent) {
        struct rsi_port_frame some[100];
        uint32_t count = port->operations->receive(port, some, 100);
        assert_true(count > 0);
        for (uint32_t i = 0; i < count; i++, got++) {
            uint32_t number;
            memcpy(&number, some[i].data + 14, sizeof(number));
            assert_int_equal(number, got);
            assert_int_equal(some[i].bytes, 64);
        }
        port->operations->release(port, some, count);
    }
    struct rsi_port_frame none;
    assert_int_equal(port->operations->receive(port, &none, 1), 0);
    port->operations->close(port);
}

/* Frames go back to the pool, by every way: else it would run dry. */
static void the_pool_does_not_run_dry(void **state)
{
    (void)state;
    struct rsi_port *port = port_open(&ring);
    for (uint32_t i = 0; i < 40000; i++) {
        struct rsi_port_frame frames[2];
        assert_int_equal(port->operations->acquire(port, frames, 2), 2);
        port->operations->release(port, frames, 1);
        frames[1].bytes = 60;
        assert_int_equal(port->operations->transmit(port, 0, &frames[1], 1), 1);
        assert_int_equal(port->operations->receive(port, frames, 2), 1);
        if (i % 2 == 0) { /* what was received may be sent */
            assert_int_equal(port->operations->transmit(port, 0, frames, 1), 1);
            assert_int_equal(port->operations->receive(port, frames, 2), 1);
        }
        port->operations->release(port, frames, 1);
    }
    static struct rsi_port_frame all[16384];
    uint32_t count = port->operations->acquire(port, all, 16384);
    assert_true(count >= 6144);
    assert_true(count < 16384);
    port->operations->release(port, all, count);
    port->operations->close(port);
}

/* Its MAC is its own and stays, unless the user names one. */
static void one_configuration_is_one_port(void **state)
{
    (void)state;
    static const uint8_t wanted_mac[6] = {2, 0, 0, 0, 0, 0x17};
    struct rsi_port *first = port_open(&ring);
    struct rsi_dpdk_options same = ring;
    same.address = "10.7.0.9/24"; /* the engine's business */
    struct rsi_port *second = port_open(&same);
    assert_ptr_equal(first, second);
    struct rsi_dpdk_options other = ring;
    other.mtu = 1400;
    port_expect_failure(&other, RSI_E_STATE, WORDS("net_ring0", "other settings"));
    first->operations->close(first);
    port_send(second, second, 100, 1);
    port_expect(second, 100, 1);
    second->operations->close(second);

    other.mac = "02:00:00:00:00:17";
    struct rsi_port *third = port_open(&other);
    assert_int_equal(third->frame_bytes_max, 1414);
    assert_memory_equal(third->mac, wanted_mac, 6);
    third->operations->close(third);
}

static void *use_port(void *arg)
{
    struct rsi_port *port = arg;
    struct rsi_port_frame frames[64];
    port->operations->thread_begin(port);
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t count = port->operations->acquire(port, frames, 64);
        port->operations->release(port, frames, count);
    }
    return NULL;
}

/* More threads than DPDK has numbers for, four at a time: each number comes back. */
static void threads_come_and_go(void **state)
{
    (void)state;
    struct rsi_port *port = port_open(&ring);
    for (uint32_t round = 0; round < 50; round++) {
        pthread_t threads[4];
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, use_port, port), 0);
        }
        for (uint32_t i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
        }
    }
    static struct rsi_port_frame all[16384];
    uint32_t count = port->operations->acquire(port, all, 16384);
    assert_true(count >= 6144);
    port->operations->release(port, all, count);
    port->operations->close(port);
}

int main(void)
{
    if (port_is_passed_over()) {
        return PORT_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_before_eal_starts),
        cmocka_unit_test(sockets_of_others_are_left_alone_and_stale_ones_go),
        cmocka_unit_test(dpdk_says_nothing_on_its_own),
        cmocka_unit_test(frames_of_all_sizes_come_back),
        cmocka_unit_test(a_full_ring_takes_no_more_and_loses_nothing),
        cmocka_unit_test(the_pool_does_not_run_dry),
        cmocka_unit_test(one_configuration_is_one_port),
        cmocka_unit_test(memory_that_does_not_suffice_is_told),
        cmocka_unit_test(threads_come_and_go),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
