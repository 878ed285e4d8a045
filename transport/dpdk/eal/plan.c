/*
 * What a device's driver must be told, and what would fail: decided before EAL is touched.
 *
 * Design notes
 * - DPDK's drivers answer a wrong interface, a missing right or a bound kernel driver with -1, and
 *   EAL starts once per process only. So everything that can be looked up is looked up first, and
 *   the refusal names it.
 * - af_packet cuts a frame off that is longer than its ring's slots, in silence, and stalls on one
 *   that is longer than the interface's MTU. So the slots are made from the MTU, and the MTU must
 *   fit the interface, which is never changed. The kernel answers for addresses that it owns, so
 *   ours must not be one of them.
 * - memif corrupts the stream when its buffers are smaller than a frame, so they are made from the
 *   MTU too; its zero-copy mode crashes the peer.
 * - Servers of memif and vhost leave their socket's file when they are killed. A file that nobody
 *   listens on is removed; one that somebody listens on is left alone.
 */
#include "transport/dpdk/eal/eal_internal.h"

#include "core/position.h"
#include "core/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    MTU_USUAL = 1500,
    ETHERNET_BYTES = RSI_EAL_ETHERNET_BYTES + 4, /* a VLAN tag may stand in it */
    SLOT_SURPLUS_BYTES = 128, /* the kernel's own header in a slot of af_packet */
    SLOT_BYTES_MIN = 2048,
    SLOT_BLOCK_BYTES = 65536,
    PAGE_BYTES = 4096,
    SLOT_RING_BYTES = 4 << 20, /* each way; all of it is gone through, past the caches */
    SLOT_COUNT_MIN = 256,
    SLOT_COUNT_MAX = 4096,
    MEMIF_BYTES_MIN = 2048,
    MEMIF_RING_LOG2 = 10,
    VIRTIO_RING_COUNT = 1024,
    FRAME_ROOM_MIN = 2048,
    VIRTIO_HEADER_BYTES = 12,   /* which it wants room for in each frame */
    FRAME_HEADROOM_BYTES = 128, /* DPDK's, before each frame */
    FRAME_OWN_BYTES = 256,      /* the mbuf and its place in the pool */
    IN_HAND_COUNT = 4096,       /* received and not looked at yet, or being filled */
    CACHED_COUNT = 2048,        /* in the caches of threads */
    VALUE_BYTES = 160,
};

/* ---- arguments of a vdev -----------------------------------------------------------------------
 */

/* Copies the value of NAME=VALUE out of "a=b,c=d"; false: it is not there. */
static bool find_argument(const char *arguments, const char *name, char *value, size_t value_bytes)
{
    size_t name_bytes = strlen(name);
    for (const char *at = arguments; *at != '\0';) {
        size_t bytes = strcspn(at, ",");
        if (bytes > name_bytes && at[name_bytes] == '=' && memcmp(at, name, name_bytes) == 0) {
            snprintf(value, value_bytes, "%.*s", (int)(bytes - name_bytes - 1),
                     at + name_bytes + 1);
            return true;
        }
        at += bytes + (at[bytes] == ',' ? 1 : 0);
    }
    return false;
}

static bool has_argument(const struct rsi_eal_plan *plan, const char *name)
{
    char value[VALUE_BYTES];
    return find_argument(plan->arguments, name, value, sizeof(value));
}

static rsi_status_t read_number(const struct rsi_eal_plan *plan, const char *name, uint64_t *number,
                                struct rsi_error *error)
{
    char value[VALUE_BYTES];
    if (!find_argument(plan->arguments, name, value, sizeof(value))) {
        return RSI_OK;
    }
    if (rsi_failed(rsi_parse_number(number, value, 1, 1 << 30, error))) {
        rsi_error_context(error, "%s: %s", plan->name, name);
        return RSI_E_INVALID;
    }
    return RSI_OK;
}

static rsi_status_t add_argument(struct rsi_eal_plan *plan, const char *name, uint64_t value,
                                 struct rsi_error *error)
{
    size_t bytes = strlen(plan->arguments);
    int added = snprintf(plan->arguments + bytes, sizeof(plan->arguments) - bytes, "%s%s=%" PRIu64,
                         bytes > 0 ? "," : "", name, value);
    if (added < 0 || (size_t)added >= sizeof(plan->arguments) - bytes) {
        return rsi_fail(error, RSI_E_INVALID, "the arguments of %s are longer than %zu bytes",
                        plan->name, sizeof(plan->arguments) - 32);
    }
    return RSI_OK;
}

/* ---- af_packet ---------------------------------------------------------------------------------
 */

static rsi_status_t check_right(const struct rsi_eal_plan *plan, struct rsi_error *error)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        int errno_value = errno;
        if (errno_value == EPERM || errno_value == EACCES) {
            return rsi_fail(error, RSI_E_PERMISSION,
                            "%s reads and writes raw frames of %s, which needs the capability "
                            "CAP_NET_RAW: run as root, or: setcap cap_net_raw+ep PROGRAM",
                            plan->name, plan->interface);
        }
        return rsi_fail_errno(error, rsi_status_from_errno(errno_value), errno_value,
                              "%s cannot open a packet socket", plan->name);
    }
    close(fd);
    return RSI_OK;
}

/* Flags and MTU, of the network namespace in which this thread is. */
static rsi_status_t read_interface(struct rsi_eal_plan *plan, uint32_t *mtu,
                                   struct rsi_error *error)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot ask for the interface %s", plan->interface);
    }
    (void)rsi_text_copy(request.ifr_name, sizeof(request.ifr_name), plan->interface);
    int failed = ioctl(fd, SIOCGIFFLAGS, &request);
    int errno_value = errno;
    short flags = request.ifr_flags;
    if (failed == 0) {
        failed = ioctl(fd, SIOCGIFMTU, &request);
        errno_value = errno;
    }
    close(fd);
    if (failed != 0) {
        return errno_value == ENODEV
                   ? rsi_fail(error, RSI_E_NO_DEVICE,
                              "%s: there is no interface '%s' in this network namespace; ip link "
                              "shows those that there are",
                              plan->name, plan->interface)
                   : rsi_fail_errno(error, rsi_status_from_errno(errno_value), errno_value,
                                    "%s: the interface %s cannot be read", plan->name,
                                    plan->interface);
    }
    if ((flags & IFF_UP) == 0) {
        return rsi_fail(error, RSI_E_NO_DEVICE,
                        "%s: the interface %s is down, nothing would arrive; run: ip link set %s "
                        "up",
                        plan->name, plan->interface, plan->interface);
    }
    *mtu = (uint32_t)request.ifr_mtu;
    return RSI_OK;
}

static rsi_status_t check_address(const struct rsi_eal_plan *plan,
                                  const struct rsi_dpdk_options *options, struct rsi_error *error)
{
    struct rsi_dpdk_address own;
    struct ifaddrs *addresses = NULL;
    rsi_status_t status = RSI_OK;
    if (rsi_text_is_empty(options->address)) {
        return RSI_OK;
    }
    status = rsi_dpdk_parse_address(&own, options->address, error);
    if (status != RSI_OK || getifaddrs(&addresses) != 0) {
        return status;
    }
    for (const struct ifaddrs *at = addresses; at != NULL && status == RSI_OK; at = at->ifa_next) {
        if (at->ifa_addr == NULL || at->ifa_addr->sa_family != AF_INET) {
            continue;
        }
        const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)(const void *)at->ifa_addr;
        if (ntohl(ipv4->sin_addr.s_addr) == own.address) {
            status = rsi_fail(error, RSI_E_ADDRESS,
                              "dpdk_address: %s belongs to the kernel already, on %s, and it would "
                              "answer in place of %s; take an address of that network that nobody "
                              "has, or remove it: ip addr del %s dev %s",
                              options->address, at->ifa_name, plan->name, options->address,
                              at->ifa_name);
        }
    }
    freeifaddrs(addresses);
    return status;
}

/* The ring's slots: from the MTU, unless the user chose them and they are large enough. */
static rsi_status_t plan_slots(struct rsi_eal_plan *plan, struct rsi_error *error)
{
    uint64_t need_bytes = plan->mtu + ETHERNET_BYTES + SLOT_SURPLUS_BYTES;
    uint64_t slot_bytes =
        need_bytes <= SLOT_BYTES_MIN ? SLOT_BYTES_MIN : rsi_align_up(need_bytes, PAGE_BYTES);
    rsi_status_t status = RSI_OK;
    bool is_given[3] = {has_argument(plan, "framesz"), has_argument(plan, "blocksz"),
                        has_argument(plan, "framecnt")};
    status = read_number(plan, "framesz", &slot_bytes, error);
    if (status == RSI_OK && slot_bytes < need_bytes) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: framesz=%" PRIu64
                        " would cut frames off in silence: an MTU of %" PRIu32 " needs %" PRIu64
                        "; leave framesz out, it is then chosen from the MTU",
                        plan->name, slot_bytes, plan->mtu, need_bytes);
    }
    uint64_t block_bytes = slot_bytes <= PAGE_BYTES ? SLOT_BLOCK_BYTES : slot_bytes;
    uint64_t count =
        rsi_pos_min(rsi_pos_max(SLOT_RING_BYTES / slot_bytes, SLOT_COUNT_MIN), SLOT_COUNT_MAX);
    if (status == RSI_OK) {
        status = read_number(plan, "blocksz", &block_bytes, error);
    }
    if (status == RSI_OK) {
        status = read_number(plan, "framecnt", &count, error);
    }
    /* The driver takes it that slots lie without gaps. */
    if (status == RSI_OK && (block_bytes % slot_bytes != 0 || count < block_bytes / slot_bytes)) {
        return rsi_fail(
            error, RSI_E_INVALID,
            "%s: framesz=%" PRIu64 ", blocksz=%" PRIu64 ", framecnt=%" PRIu64
            ": a block must hold whole frames, and the frames fill a block; leave them out, "
            "they are then chosen from the MTU",
            plan->name, slot_bytes, block_bytes, count);
    }
    const char *const names[3] = {"framesz", "blocksz", "framecnt"};
    const uint64_t values[3] = {slot_bytes, block_bytes, count};
    for (size_t i = 0; i < 3 && status == RSI_OK; i++) {
        status = is_given[i] ? RSI_OK : add_argument(plan, names[i], values[i], error);
    }
    plan->receive_frames = (uint32_t)count;
    plan->buffer_bytes = (uint32_t)slot_bytes;
    return status;
}

static rsi_status_t plan_af_packet(struct rsi_eal_plan *plan,
                                   const struct rsi_dpdk_options *options, struct rsi_error *error)
{
    char value[VALUE_BYTES] = "";
    uint32_t interface_mtu = 0;
    uint64_t queue_count = 1;
    if (!find_argument(plan->arguments, "iface", value, sizeof(value)) ||
        !rsi_text_copy(plan->interface, sizeof(plan->interface), value) || value[0] == '\0') {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s needs the name of an interface: %s,iface=eth1 ('%s' is none)",
                        plan->name, plan->name, value);
    }
    rsi_status_t status = read_interface(plan, &interface_mtu, error);
    if (status == RSI_OK) {
        status = check_right(plan, error);
    }
    if (status == RSI_OK) {
        status = check_address(plan, options, error);
    }
    if (status == RSI_OK) {
        status = read_number(plan, "qpairs", &queue_count, error);
    }
    if (status != RSI_OK) {
        return status;
    }
    if (queue_count != 1) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: qpairs=%" PRIu64 ": one queue is read; leave qpairs out", plan->name,
                        queue_count);
    }
    uint32_t usable_mtu = (uint32_t)rsi_pos_min(interface_mtu, RSI_DPDK_MTU_MAX);
    if (options->mtu > usable_mtu) {
        return rsi_fail(error, RSI_E_INVALID,
                        "dpdk_mtu: %" PRIu32 " is more than the %" PRIu32 " of the interface %s, "
                        "which would stall on such frames; lower dpdk_mtu, or run: ip link set %s "
                        "mtu %" PRIu32,
                        options->mtu, interface_mtu, plan->interface, plan->interface,
                        options->mtu);
    }
    plan->mtu = options->mtu != 0 ? options->mtu : usable_mtu;
    return plan_slots(plan, error);
}

/* The name of a socket in the abstract namespace, which is the network namespace's own and forgets
 * the name when the socket goes. */
rsi_status_t rsi_eal_plan_claim(int *fd, const struct rsi_eal_plan *plan,
                                const struct rsi_dpdk_options *options, struct rsi_error *error)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    *fd = -1;
    if (plan->driver != RSI_EAL_AF_PACKET || options->address == NULL) {
        return RSI_OK;
    }
    int address_bytes = (int)strcspn(options->address, "/");
    int bytes = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "ringside-dpdk:%s:%.*s",
                         plan->interface, address_bytes, options->address);
    socklen_t name_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)bytes);
    int made = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (made < 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "%s: cannot claim its address", plan->name);
    }
    if (bind(made, (const struct sockaddr *)&name, name_bytes) != 0) {
        int errno_value = errno;
        close(made);
        return errno_value == EADDRINUSE
                   ? rsi_fail(error, RSI_E_ADDRESS,
                              "dpdk_address: %.*s on %s is used by another process or device; give "
                              "each an address of its own",
                              address_bytes, options->address, plan->interface)
                   : rsi_fail_errno(error, rsi_status_from_errno(errno_value), errno_value,
                                    "%s: cannot claim its address", plan->name);
    }
    *fd = made;
    return RSI_OK;
}

/* ---- memif, vhost, virtio_user -----------------------------------------------------------------
 */

/* Whether somebody listens on it; removes the file of one who is gone. */
static rsi_status_t clear_socket(const struct rsi_eal_plan *plan, const char *path,
                                 struct rsi_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat about;
    if (!rsi_text_copy(address.sun_path, sizeof(address.sun_path), path)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: the socket's path has %zu bytes, at most %zu are possible", plan->name,
                        strlen(path), sizeof(address.sun_path) - 1);
    }
    if (stat(path, &about) != 0) {
        return RSI_OK;
    }
    if (!S_ISSOCK(about.st_mode)) {
        return rsi_fail(error, RSI_E_EXISTS,
                        "%s: %s is there and is no socket; give another path, or remove it",
                        plan->name, path);
    }
    static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
    for (size_t i = 0; i < rsi_array_count(types); i++) {
        int fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int result = connect(fd, (const struct sockaddr *)&address, sizeof(address));
        int errno_value = errno;
        close(fd);
        if (result == 0 || errno_value == EAGAIN) {
            return rsi_fail(error, RSI_E_EXISTS,
                            "%s: another process serves the socket %s; give another path, or end "
                            "that process",
                            plan->name, path);
        }
        if (errno_value == EACCES || errno_value == EPERM) {
            return rsi_fail_errno(error, RSI_E_PERMISSION, errno_value, "%s: the socket %s",
                                  plan->name, path);
        }
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "%s: cannot remove the socket %s that nobody serves any more",
                              plan->name, path);
    }
    return RSI_OK;
}

static rsi_status_t expect_server(const struct rsi_eal_plan *plan, const char *path,
                                  struct rsi_error *error)
{
    if (access(path, R_OK | W_OK) == 0) {
        return RSI_OK;
    }
    return rsi_fail_errno(error, errno == ENOENT ? RSI_E_NO_DEVICE : rsi_status_from_errno(errno),
                          errno, "%s: %s, which the other side makes; start that first", plan->name,
                          path);
}

static void plan_usual_mtu(struct rsi_eal_plan *plan, const struct rsi_dpdk_options *options)
{
    plan->mtu = options->mtu != 0 ? options->mtu : MTU_USUAL;
}

static rsi_status_t plan_memif(struct rsi_eal_plan *plan, const struct rsi_dpdk_options *options,
                               struct rsi_error *error)
{
    char value[VALUE_BYTES] = "";
    char path[VALUE_BYTES] = "/run/memif.sock";
    uint64_t ring_log2 = MEMIF_RING_LOG2;
    plan_usual_mtu(plan, options);
    uint64_t need_bytes = plan->mtu + ETHERNET_BYTES;
    uint64_t buffer_bytes = rsi_pos_max(rsi_round_up_power_of_two(need_bytes), MEMIF_BYTES_MIN);
    bool is_given = has_argument(plan, "bsize");
    rsi_status_t status = read_number(plan, "bsize", &buffer_bytes, error);
    if (status == RSI_OK) {
        status = read_number(plan, "rsize", &ring_log2, error);
    }
    if (status != RSI_OK) {
        return status;
    }
    if (buffer_bytes < need_bytes || ring_log2 > 14) {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s: bsize=%" PRIu64 ", rsize=%" PRIu64 ": an MTU of %" PRIu32
                        " needs a bsize of %" PRIu64 " or frames get mixed up, and rsize is at "
                        "most 14; leave them out",
                        plan->name, buffer_bytes, ring_log2, plan->mtu, need_bytes);
    }
    if (find_argument(plan->arguments, "zero-copy", value, sizeof(value)) &&
        strcmp(value, "yes") == 0) {
        return rsi_fail(error, RSI_E_UNSUPPORTED,
                        "%s: zero-copy=yes lets one process crash the other; leave it out",
                        plan->name);
    }
    plan->receive_frames = 1U << ring_log2;
    plan->buffer_bytes = (uint32_t)buffer_bytes;
    if (!is_given) {
        status = add_argument(plan, "bsize", buffer_bytes, error);
    }
    bool is_file = find_argument(plan->arguments, "socket-abstract", value, sizeof(value)) &&
                   strcmp(value, "no") == 0;
    bool is_server = find_argument(plan->arguments, "role", value, sizeof(value)) &&
                     (strcmp(value, "server") == 0 || strcmp(value, "master") == 0);
    (void)find_argument(plan->arguments, "socket", path, sizeof(path));
    if (status != RSI_OK || !is_file) {
        return status;
    }
    return is_server ? clear_socket(plan, path, error) : expect_server(plan, path, error);
}

static rsi_status_t plan_vhost(struct rsi_eal_plan *plan, const struct rsi_dpdk_options *options,
                               struct rsi_error *error)
{
    char path[VALUE_BYTES] = "";
    char value[VALUE_BYTES] = "";
    plan_usual_mtu(plan, options);
    plan->receive_frames = VIRTIO_RING_COUNT;
    if (!find_argument(plan->arguments, "iface", path, sizeof(path)) || path[0] == '\0') {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s needs the path of a socket: %s,iface=/run/ringside/vhost.sock",
                        plan->name, plan->name);
    }
    bool is_client =
        find_argument(plan->arguments, "client", value, sizeof(value)) && strcmp(value, "1") == 0;
    return is_client ? RSI_OK : clear_socket(plan, path, error);
}

static rsi_status_t plan_virtio_user(struct rsi_eal_plan *plan,
                                     const struct rsi_dpdk_options *options,
                                     struct rsi_error *error)
{
    char path[VALUE_BYTES] = "";
    char value[VALUE_BYTES] = "";
    uint64_t ring_count = VIRTIO_RING_COUNT;
    plan_usual_mtu(plan, options);
    if (!find_argument(plan->arguments, "path", path, sizeof(path)) || path[0] == '\0') {
        return rsi_fail(error, RSI_E_INVALID,
                        "%s needs the path of a vhost socket: %s,path=/run/ringside/vhost.sock",
                        plan->name, plan->name);
    }
    bool is_server =
        find_argument(plan->arguments, "server", value, sizeof(value)) && strcmp(value, "1") == 0;
    rsi_status_t status =
        is_server ? clear_socket(plan, path, error) : expect_server(plan, path, error);
    bool is_given = has_argument(plan, "queue_size");
    if (status == RSI_OK) {
        status = read_number(plan, "queue_size", &ring_count, error);
    }
    if (status == RSI_OK && !is_given) {
        status = add_argument(plan, "queue_size", ring_count, error);
    }
    plan->receive_frames = (uint32_t)ring_count;
    return status;
}

/* ---- PCI ---------------------------------------------------------------------------------------
 */

/* "vfio-pci"; empty: none. */
static void read_driver(const char *address, char *driver, size_t driver_bytes)
{
    char path[128];
    char target[256] = "";
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", address);
    ssize_t bytes = readlink(path, target, sizeof(target) - 1);
    const char *slash = bytes > 0 ? strrchr(target, '/') : NULL;
    (void)rsi_text_copy(driver, driver_bytes, slash != NULL ? slash + 1 : "");
}

static rsi_status_t check_vfio_group(const struct rsi_eal_plan *plan, struct rsi_error *error)
{
    char path[128];
    char target[256] = "";
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", plan->name);
    ssize_t bytes = readlink(path, target, sizeof(target) - 1);
    const char *slash = bytes > 0 ? strrchr(target, '/') : NULL;
    if (slash == NULL) {
        return RSI_OK; /* no IOMMU: vfio has other files, EAL will say */
    }
    snprintf(path, sizeof(path), "/dev/vfio/%.32s", slash + 1);
    if (access(path, R_OK | W_OK) != 0) {
        return rsi_fail_errno(error, RSI_E_PERMISSION, errno,
                              "%s is given to vfio-pci, but %s cannot be opened by this user; run "
                              "as root, or: chown $USER %s",
                              plan->name, path, path);
    }
    return RSI_OK;
}

static rsi_status_t plan_pci(struct rsi_eal_plan *plan, const struct rsi_dpdk_options *options,
                             struct rsi_error *error)
{
    /* Drivers that DPDK can work beside or through. */
    static const char *const usable[] = {"vfio-pci", "uio_pci_generic", "igb_uio", "mlx4_core",
                                         "mlx5_core"};
    char driver[64];
    char path[128];
    plan->mtu = options->mtu;
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", plan->name);
    if (access(path, F_OK) != 0) {
        return rsi_fail(error, RSI_E_NO_DEVICE,
                        "dpdk_port: there is no PCI device %s; dpdk-devbind.py --status shows "
                        "those that there are",
                        plan->name);
    }
    read_driver(plan->name, driver, sizeof(driver));
    for (size_t i = 0; i < rsi_array_count(usable); i++) {
        if (strcmp(driver, usable[i]) == 0) {
            return strcmp(driver, "vfio-pci") == 0 ? check_vfio_group(plan, error) : RSI_OK;
        }
    }
    return rsi_fail(error, RSI_E_NO_DEVICE,
                    "dpdk_port: the PCI device %s is with %s%s, so DPDK cannot have it; if the "
                    "machine can do without it, run: dpdk-devbind.py -b vfio-pci %s",
                    plan->name, driver[0] != '\0' ? "the kernel's driver " : "no driver", driver,
                    plan->name);
}

/* ---- all ---------------------------------------------------------------------------------------
 */

static enum rsi_eal_driver driver_of(const char *name)
{
    static const struct {
        const char *begin;
        enum rsi_eal_driver driver;
    } drivers[] = {
        {"net_af_packet", RSI_EAL_AF_PACKET}, {"eth_af_packet", RSI_EAL_AF_PACKET},
        {"net_memif", RSI_EAL_MEMIF},         {"net_vhost", RSI_EAL_VHOST},
        {"eth_vhost", RSI_EAL_VHOST},         {"net_virtio_user", RSI_EAL_VIRTIO_USER},
        {"virtio_user", RSI_EAL_VIRTIO_USER},
    };
    for (size_t i = 0; i < rsi_array_count(drivers); i++) {
        if (strncmp(name, drivers[i].begin, strlen(drivers[i].begin)) == 0) {
            return drivers[i].driver;
        }
    }
    return RSI_EAL_OTHER_VDEV;
}

uint32_t rsi_eal_frame_room(const struct rsi_eal_plan *plan, uint32_t mtu)
{
    uint64_t bytes =
        rsi_pos_max(rsi_pos_max(mtu + ETHERNET_BYTES + VIRTIO_HEADER_BYTES, plan->buffer_bytes),
                    FRAME_ROOM_MIN);
    return (uint32_t)rsi_align_up_64(bytes) + FRAME_HEADROOM_BYTES;
}

uint64_t rsi_eal_frame_count(uint32_t receive_count, uint32_t transmit_count, uint32_t queue_count)
{
    return (uint64_t)receive_count + (uint64_t)transmit_count * queue_count + IN_HAND_COUNT +
           CACHED_COUNT;
}

uint64_t rsi_eal_frame_cost(uint32_t room_bytes)
{
    return room_bytes + FRAME_OWN_BYTES;
}

static rsi_status_t name_device(struct rsi_eal_plan *plan, enum rsi_dpdk_port_kind kind,
                                const char *text, struct rsi_error *error)
{
    size_t name_bytes = strcspn(text, ",");
    if (name_bytes >= sizeof(plan->name)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "dpdk_port: the name in '%.64s...' has %zu bytes, at most %zu are possible",
                        text, name_bytes, sizeof(plan->name) - 1);
    }
    if (kind == RSI_DPDK_PORT_PCI && strlen(text) == strlen("00:00.0")) {
        snprintf(plan->name, sizeof(plan->name), "0000:%s", text);
        return RSI_OK;
    }
    memcpy(plan->name, text, name_bytes);
    const char *arguments = text[name_bytes] == ',' ? text + name_bytes + 1 : "";
    if (!rsi_text_copy(plan->arguments, sizeof(plan->arguments), arguments)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "dpdk_port: the arguments of %s have %zu bytes, at most %zu are possible",
                        plan->name, strlen(arguments), sizeof(plan->arguments) - 1);
    }
    return RSI_OK;
}

rsi_status_t rsi_eal_plan_make(struct rsi_eal_plan *plan, const struct rsi_dpdk_options *options,
                               struct rsi_error *error)
{
    enum rsi_dpdk_port_kind kind;
    memset(plan, 0, sizeof(*plan));
    rsi_status_t status = rsi_dpdk_parse_port(&kind, options->port, error);
    if (status == RSI_OK) {
        status = name_device(plan, kind, options->port, error);
    }
    if (status != RSI_OK) {
        return status;
    }
    plan->driver = kind == RSI_DPDK_PORT_PCI ? RSI_EAL_PCI : driver_of(plan->name);
    switch (plan->driver) {
    case RSI_EAL_PCI:
        status = plan_pci(plan, options, error);
        break;
    case RSI_EAL_AF_PACKET:
        status = plan_af_packet(plan, options, error);
        break;
    case RSI_EAL_MEMIF:
        status = plan_memif(plan, options, error);
        break;
    case RSI_EAL_VHOST:
        status = plan_vhost(plan, options, error);
        break;
    case RSI_EAL_VIRTIO_USER:
        status = plan_virtio_user(plan, options, error);
        break;
    case RSI_EAL_OTHER_VDEV:
        plan_usual_mtu(plan, options);
        break;
    }
    uint32_t mtu = plan->mtu != 0 ? plan->mtu : MTU_USUAL;
    plan->pool_bytes = rsi_eal_frame_count(VIRTIO_RING_COUNT, VIRTIO_RING_COUNT, 1) *
                       rsi_eal_frame_cost(rsi_eal_frame_room(plan, mtu));
    return status;
}
