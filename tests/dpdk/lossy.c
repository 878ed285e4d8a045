/*
 * Makes the wire of tests/dpdk/netns lose datagrams of dpdk://, until SIGTERM:
 *
 *     lossy [--ready-fd=N] NAMESPACE PPM
 *
 * NAMESPACE is that of the bridge, PPM how many in a million are lost, each once, where it comes in
 * by a port of the bridge. Writes a line to the descriptor N when it is so, and at the end to
 * stdout what was lost:  datagrams=N bytes=N ring_bytes=N  (bytes: whole frames; ring_bytes: data).
 *
 * Design notes
 * - What drops is a program in the kernel (lossy.bpf.c), for not every kernel has netem. It is
 *   attached by links that end with this process, however that ends.
 * - The ports are the kernel's to receive on, so the frames of an AF_PACKET socket behind the other
 *   end of the pair pass the program like any others; generic mode, because nothing is measured.
 */
#include "tests/dpdk/lossy.h"

#include "core/compiler.h"
#include "core/text.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PORT_PREFIX "to" /* of the bridge's ports: tests/dpdk/netns */

static uint64_t number(const char *text, uint64_t max)
{
    struct rsi_error error = {0};
    uint64_t value = 0;
    if (rsi_parse_number(&value, text, 0, max, &error) != RSI_OK) {
        errx(2, "%s", error.text);
    }
    return value;
}

static void enter(const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "/run/netns/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0) {
        err(1, "%s", path);
    }
    close(fd);
}

static struct bpf_object *load(void)
{
    struct bpf_object *object = bpf_object__open_file(LOSSY_PROGRAM, NULL);
    if (object == NULL || bpf_object__load(object) != 0) {
        err(1, "loading %s", LOSSY_PROGRAM);
    }
    return object;
}

static void attach_to_ports(int program_fd)
{
    LIBBPF_OPTS(bpf_link_create_opts, generic, .flags = XDP_FLAGS_SKB_MODE);
    unsigned port_count = 0;
    struct if_nameindex *list = if_nameindex();
    for (const struct if_nameindex *at = list; at != NULL && at->if_index != 0; at++) {
        if (strncmp(at->if_name, PORT_PREFIX, strlen(PORT_PREFIX)) != 0) {
            continue;
        }
        /* Stays open: the link ends with the process. */
        if (bpf_link_create(program_fd, (int)at->if_index, BPF_XDP, &generic) < 0) {
            err(1, "attaching to %s", at->if_name);
        }
        port_count++;
    }
    if_freenameindex(list);
    if (port_count == 0) {
        errx(1, "no interface is called " PORT_PREFIX "...");
    }
}

static void set_value(int map_fd, uint32_t which, uint64_t value)
{
    if (bpf_map_update_elem(map_fd, &which, &value, BPF_ANY) != 0) {
        err(1, "writing a value of the program");
    }
}

static uint64_t get_value(int map_fd, uint32_t which)
{
    uint64_t value = 0;
    if (bpf_map_lookup_elem(map_fd, &which, &value) != 0) {
        err(1, "reading a value of the program");
    }
    return value;
}

int main(int argc, char **argv)
{
    static const struct option flags[] = {{"ready-fd", required_argument, NULL, 'r'}, {0}};
    int ready_fd = -1;
    int code;
    while ((code = getopt_long(argc, argv, "", flags, NULL)) == 'r') {
        ready_fd = (int)number(optarg, INT32_MAX);
    }
    if (code != -1 || argc - optind != 2) {
        errx(2, "usage: lossy [--ready-fd=N] NAMESPACE PPM");
    }
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);

    enter(argv[optind]);
    struct bpf_object *object = load();
    int map_fd = bpf_object__find_map_fd_by_name(object, "values");
    set_value(map_fd, LOSSY_PPM, number(argv[optind + 1], 1000000));
    attach_to_ports(bpf_program__fd(bpf_object__find_program_by_name(object, "lossy")));
    if (ready_fd >= 0) {
        dprintf(ready_fd, "ready\n");
    }

    int signal_number;
    sigwait(&ends, &signal_number);
    printf("datagrams=%" PRIu64 " bytes=%" PRIu64 " ring_bytes=%" PRIu64 "\n",
           get_value(map_fd, LOSSY_DATAGRAMS), get_value(map_fd, LOSSY_BYTES),
           get_value(map_fd, LOSSY_RING_BYTES));
    bpf_object__close(object);
    return 0;
}
