/*
 * Ends what is under the links, without asking either side.
 *
 * Design notes
 * - The only file of the suite that knows transports apart: what can be cut by hand is different
 *   under each. Where nothing can (rdma without a device that the test may unplug), both links are
 *   closed in the same breath, which is the nearest to it.
 * - tcp, shm: every connected socket of this process is some link's; an end of it is shut down.
 * Half of them only in one direction, so that one side learns of it from the other.
 */
#include "transport/conformance/harness.h"
#include "transport/sim/sim.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void shut_sockets(struct conform *conform)
{
    DIR *directory = opendir("/proc/self/fd");
    conform_check(conform, directory != NULL);
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        int fd = atoi(entry->d_name);
        struct sockaddr_storage peer;
        socklen_t peer_bytes = sizeof(peer);
        if (getpeername(fd, (struct sockaddr *)&peer, &peer_bytes) == 0 &&
            conform_random(&conform->random, 2) == 0) {
            (void)shutdown(fd, conform_random(&conform->random, 2) == 0 ? SHUT_WR : SHUT_RDWR);
        }
    }
    closedir(directory);
}

static void cut_side(struct conform_side *side, bool is_sim)
{
    for (uint32_t i = 0; i < side->link_count; i++) {
        struct rsi_link *link = side->links[i];
        if (link == NULL || rsi_link_state(link) == RSI_LINK_CLOSED) {
            continue;
        }
        if (is_sim) {
            rsi_sim_cut(link, conform_random(&side->conform->random, 20));
        } else {
            side->conform->transport->link_close(link);
        }
    }
}

void conform_cut(struct conform *conform)
{
    const char *name = conform->transport->name;
    if (strcmp(name, "tcp") == 0 || strcmp(name, "shm") == 0) {
        shut_sockets(conform);
    } else {
        cut_side(&conform->client, strcmp(name, "sim") == 0);
        cut_side(&conform->server, strcmp(name, "sim") == 0);
    }
}
