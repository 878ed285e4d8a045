/*
 * Design notes
 * - conform_step chooses the side by the seed, so a run in one thread repeats as far as the
 * transport does (sim: entirely).
 * - The ends of several links are paired by a number that the client sends first on each control
 * lane: the order in which links are accepted is nobody's promise.
 */
#include "transport/conformance/harness.h"

#include "core/clock.h"

#include <dirent.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define IDLE_STEPS_BEFORE_NAP 2000u
#define NAP_NS                50000
#define DPDK_MEMORY_BYTES     (UINT64_C(384) << 20) /* of two devices; taken when it is touched */

/* ---- failing ------------------------------------------------------------------------------------
 */

static void print_side(const struct conform_side *side)
{
    for (uint32_t i = 0; i < side->link_count; i++) {
        const struct rsi_link *link = side->links[i];
        if (link == NULL) {
            continue;
        }
        fprintf(stderr,
                "  %s link %u: %s%s%s%s\n"
                "    out %" PRIu64 " bytes: staged %" PRIu64 " placed %" PRIu64 " flushed %" PRIu64
                " peer arrived %" PRIu64 " consumed %" PRIu64 "%s\n"
                "    in  %" PRIu64 " bytes: arrived %" PRIu64 " consumed %" PRIu64 "\n",
                side->name, i, rsi_link_state_name(rsi_link_state(link)),
                link->error.text[0] != '\0' ? ": " : "", link->error.text,
                rsi_load_acquire(&link->failed) ? " (failed)" : "", link->out.capacity_bytes,
                link->staged_pos, link->placed_pos, link->flushed_pos, link->peer_arrived_pos,
                link->peer_consumed_pos, link->under_way ? " (under way)" : "",
                link->in.capacity_bytes, link->arrived_pos, link->consumed_pos);
    }
}

void conform_fail_at(struct conform *conform, const char *file, int line, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, values);
    va_end(values);
    fprintf(stderr, "\n  seed %" PRIu64 ", %u thread(s)\n", conform->options->seed,
            conform->options->thread_count);
    print_side(&conform->client);
    print_side(&conform->server);
    fflush(NULL);
    _exit(1);
}

/* ---- numbers -----------------------------------------------------------------------------------
 */

uint64_t conform_random(uint64_t *state, uint64_t bound)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t mixed = *state;
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return (mixed ^ mixed >> 31) % bound;
}

uint64_t conform_scaled(const struct conform *conform, uint64_t count, uint64_t least)
{
    uint64_t scaled = (uint64_t)((double)count * conform->options->scale);
    return scaled > least ? scaled : least;
}

uint64_t conform_now_ns(void)
{
    return rsi_clock_now_ns();
}

/* ---- opening and shutting ----------------------------------------------------------------------
 */

void conform_setup_init(struct conform_setup *setup, const struct conform *conform)
{
    struct rsi_domain_options domain = {
        .seed = conform->options->seed,
        .node = RSI_NODE_ANY,
        .trusted_fabric = false,
    };
    struct rsi_poller_options poller = {.link_count_max = CONFORM_LINK_COUNT_MAX};
    *setup = (struct conform_setup){
        .client_domain = domain,
        .server_domain = domain,
        .client_poller = poller,
        .server_poller = poller,
    };
    setup->client_domain.bind_host = conform->options->bind_host;
    setup->client_domain.incarnation = 1;
    setup->server_domain.incarnation = 2;
    if (strcmp(conform->transport->name, "dpdk") == 0) {
        const struct conform_options *options = conform->options;
        const struct rsi_dpdk_options usual = {
            .port = options->dpdk_port, .no_huge = true, .memory_bytes = DPDK_MEMORY_BYTES};
        setup->server_dpdk = usual;
        setup->server_dpdk.address = "10.7.0.1/24";
        setup->client_dpdk = usual;
        setup->client_dpdk.address = "10.7.0.2/24";
        if (options->dpdk_dial_port != NULL) {
            setup->client_dpdk.port = options->dpdk_dial_port;
        }
        setup->client_domain.dpdk = &setup->client_dpdk;
        setup->server_domain.dpdk = &setup->server_dpdk;
    }
}

static void open_side(struct conform_side *side, const char *name, struct conform *conform,
                      const struct rsi_domain_options *domain,
                      const struct rsi_poller_options *poller)
{
    struct rsi_error error = {0};
    memset(side, 0, sizeof(*side));
    side->conform = conform;
    side->name = name;
    side->random = conform->random ^ (uint64_t)name[0];
    if (conform->transport->domain_create(&side->domain, domain, &error) != RSI_OK) {
        conform_fail(conform, "domain_create of the %s: %s", name, error.text);
    }
    if (conform->transport->poller_create(&side->poller, side->domain, poller, &error) != RSI_OK) {
        conform_fail(conform, "poller_create of the %s: %s", name, error.text);
    }
}

void conform_open(struct conform *conform, const struct conform_setup *setup)
{
    struct conform_setup usual;
    if (setup == NULL) {
        conform_setup_init(&usual, conform);
        setup = &usual;
    }
    open_side(&conform->server, "server", conform, &setup->server_domain, &setup->server_poller);
    open_side(&conform->client, "client", conform, &setup->client_domain, &setup->client_poller);
    struct rsi_url url;
    struct rsi_error error = {0};
    if (rsi_url_parse(&url, conform->options->listen_url, &error) != RSI_OK) {
        conform_fail(conform, "--listen: %s", error.text);
    }
    rsi_status_t status = conform->transport->listener_create(&conform->listener,
                                                              conform->server.domain, &url, &error);
    if (status != RSI_OK) {
        conform_fail(conform, "listener_create at %s: %s", conform->options->listen_url,
                     error.text);
    }
}

static void close_all(struct conform_side *side)
{
    for (uint32_t i = 0; i < side->link_count; i++) {
        if (side->links[i] != NULL) {
            side->conform->transport->link_close(side->links[i]);
        }
    }
}

static void destroy_all(struct conform_side *side)
{
    for (uint32_t i = 0; i < side->link_count; i++) {
        if (side->links[i] != NULL) {
            side->conform->transport->link_destroy(side->links[i]);
        }
    }
    side->link_count = 0;
}

void conform_shut(struct conform *conform)
{
    const struct rsi_transport *transport = conform->transport;
    if (conform->listener != NULL) {
        transport->listener_destroy(conform->listener);
        conform->listener = NULL;
    }
    close_all(&conform->client);
    close_all(&conform->server);
    conform_wait_until(conform, conform_all_in_state(&conform->client, RSI_LINK_CLOSED) &&
                                    conform_all_in_state(&conform->server, RSI_LINK_CLOSED));
    destroy_all(&conform->client);
    destroy_all(&conform->server);
    transport->poller_destroy(conform->client.poller);
    transport->poller_destroy(conform->server.poller);
    transport->domain_destroy(conform->client.domain);
    transport->domain_destroy(conform->server.domain);
}

/* ---- steps -------------------------------------------------------------------------------------
 */

/* Takes a peer that waits, if there is one. */
static uint32_t accept_one(struct conform_side *side)
{
    struct conform *conform = side->conform;
    if (side != &conform->server || conform->listener == NULL ||
        side->link_count == CONFORM_LINK_COUNT_MAX) {
        return 0;
    }
    struct rsi_link *link = NULL;
    struct rsi_error error = {0};
    rsi_status_t status = conform->transport->link_accept(&link, conform->listener,
                                                          RSI_POLLER_ONLY(side->poller), &error);
    if (status == RSI_WOULD_BLOCK) {
        return 0;
    }
    if (status != RSI_OK) {
        conform->accept_error = error;
        return 1;
    }
    side->links[side->link_count++] = link;
    return 1;
}

uint32_t conform_side_step(struct conform_side *side)
{
    const struct rsi_transport *transport = side->conform->transport;
    uint64_t now_ns = conform_now_ns();
    /* The data plane first: what it finds, the control plane acts on before this side may sleep. */
    uint32_t event_count = rsi_poller_poll(side->poller, now_ns);
    event_count += transport->domain_poll_control(side->domain, now_ns);
    event_count += accept_one(side);
    for (uint32_t i = 0; i < side->link_count; i++) {
        if (side->links[i] != NULL) {
            transport->link_poll_control(side->links[i], now_ns);
        }
    }
    return event_count;
}

void conform_side_relax(struct conform_side *side, uint32_t event_count)
{
    if (event_count > 0) {
        side->idle_count = 0;
        return;
    }
    if (++side->idle_count < IDLE_STEPS_BEFORE_NAP) {
        sched_yield();
        return;
    }
    nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
}

void conform_step(struct conform *conform)
{
    bool is_client = conform_random(&conform->random, 2) == 0;
    struct conform_side *side = is_client ? &conform->client : &conform->server;
    conform_side_relax(side, conform_side_step(side));
}

bool conform_all_in_state(const struct conform_side *side, enum rsi_link_state state)
{
    for (uint32_t i = 0; i < side->link_count; i++) {
        if (side->links[i] != NULL && rsi_link_state(side->links[i]) != state) {
            return false;
        }
    }
    return true;
}

/* ---- connecting --------------------------------------------------------------------------------
 */

void conform_dial_url(const struct conform *conform, struct rsi_url *url)
{
    struct rsi_error error = {0};
    const char *text = conform->options->dial_url;
    if (text == NULL) {
        text = conform->transport->listener_url(conform->listener);
    }
    if (rsi_url_parse(url, text, &error) != RSI_OK) {
        conform_fail((struct conform *)conform, "URL to dial: %s", error.text);
    }
}

struct rsi_link *conform_dial(struct conform *conform)
{
    struct conform_side *client = &conform->client;
    struct rsi_url url;
    struct rsi_error error = {0};
    conform_dial_url(conform, &url);
    conform_check(conform, client->link_count < CONFORM_LINK_COUNT_MAX);
    struct rsi_link *link = NULL;
    if (conform->transport->link_dial(&link, client->poller, &url, &error) != RSI_OK) {
        conform_fail(conform, "link_dial: %s", error.text);
    }
    client->links[client->link_count++] = link;
    return link;
}

/* Brings the server's links into the order of the client's. */
static void pair_links(struct conform *conform)
{
    struct rsi_link *ordered[CONFORM_LINK_COUNT_MAX] = {NULL};
    struct conform_side *server = &conform->server;
    for (uint32_t i = 0; i < conform->client.link_count; i++) {
        conform_check(conform,
                      rsi_link_send_control(conform->client.links[i], &i, sizeof(i)) == RSI_OK);
    }
    for (uint32_t i = 0; i < server->link_count; i++) {
        uint32_t bytes = 0;
        const uint32_t *number;
        conform_wait_until(conform,
                           (number = rsi_link_front_control(server->links[i], &bytes)) != NULL);
        conform_equal(conform, bytes, sizeof(*number));
        conform_check(conform, *number < server->link_count && ordered[*number] == NULL);
        ordered[*number] = server->links[i];
        rsi_link_pop_control(server->links[i]);
    }
    memcpy(server->links, ordered, sizeof(ordered));
}

void conform_connect(struct conform *conform, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        (void)conform_dial(conform);
    }
    conform_wait_until(conform, conform->server.link_count == conform->client.link_count &&
                                    conform_all_in_state(&conform->client, RSI_LINK_OPEN) &&
                                    conform_all_in_state(&conform->server, RSI_LINK_OPEN));
    pair_links(conform);
}

struct rsi_link_rings conform_mirrored(const struct rsi_link_rings *rings)
{
    return (struct rsi_link_rings){
        .out_bytes = rings->in_bytes,
        .in_bytes = rings->out_bytes,
        .out_start_pos = rings->in_start_pos,
        .in_start_pos = rings->out_start_pos,
        .out_consumed_pos = rings->in_consumed_pos,
        .in_consumed_pos = rings->out_consumed_pos,
    };
}

static void attach_side(struct conform_side *side, uint32_t index,
                        const struct rsi_link_rings *rings)
{
    struct rsi_error error = {0};
    struct conform *conform = side->conform;
    if (conform->transport->link_attach(side->links[index], rings, &error) != RSI_OK) {
        conform_fail(conform, "link_attach of the %s: %s", side->name, error.text);
    }
}

void conform_attach(struct conform *conform, uint32_t index,
                    const struct rsi_link_rings *client_rings)
{
    struct rsi_link_rings server_rings = conform_mirrored(client_rings);
    struct rsi_link *client = conform->client.links[index];
    struct rsi_link *server = conform->server.links[index];
    /* Either side may be the first, and the other late. */
    if (conform_random(&conform->random, 2) == 0) {
        attach_side(&conform->client, index, client_rings);
        for (uint64_t i = conform_random(&conform->random, 20); i > 0; i--) {
            conform_step(conform);
        }
        attach_side(&conform->server, index, &server_rings);
    } else {
        attach_side(&conform->server, index, &server_rings);
        for (uint64_t i = conform_random(&conform->random, 20); i > 0; i--) {
            conform_step(conform);
        }
        attach_side(&conform->client, index, client_rings);
    }
    conform_wait_until(conform, rsi_link_state(client) == RSI_LINK_ATTACHED &&
                                    rsi_link_state(server) == RSI_LINK_ATTACHED);
}

void conform_connect_attached(struct conform *conform, uint64_t ring_bytes)
{
    conform_connect(conform, 1);
    struct rsi_link_rings rings = {.out_bytes = ring_bytes, .in_bytes = ring_bytes};
    conform_attach(conform, 0, &rings);
}

/* ---- ending ------------------------------------------------------------------------------------
 */

void conform_close_link(struct conform_side *side, uint32_t index)
{
    struct rsi_link *link = side->links[index];
    const struct rsi_transport *transport = side->conform->transport;
    transport->link_close(link);
    enum rsi_link_state state = rsi_link_state(link);
    conform_check(side->conform, state == RSI_LINK_CLOSING || state == RSI_LINK_CLOSED);
    conform_side_wait_until(side, rsi_link_state(link) == RSI_LINK_CLOSED);
    transport->link_close(link); /* idempotent, in CLOSED too */
    conform_equal(side->conform, rsi_link_state(link), RSI_LINK_CLOSED);
    transport->link_destroy(link);
    side->links[index] = NULL;
}

void conform_destroy_link(struct conform_side *side, struct rsi_link *link)
{
    uint32_t index = 0;
    while (index < side->link_count && side->links[index] != link) {
        index++;
    }
    conform_check(side->conform, index < side->link_count);
    side->conform->transport->link_destroy(link);
    side->link_count--;
    memmove(&side->links[index], &side->links[index + 1],
            (side->link_count - index) * sizeof(side->links[0]));
}

void conform_check_lost(struct conform_side *side, uint32_t index)
{
    const struct rsi_link *link = side->links[index];
    conform_equal(side->conform, rsi_link_state(link), RSI_LINK_LOST);
    conform_check(side->conform, rsi_failed(link->error.status));
    conform_check(side->conform, strlen(link->error.text) >= 10);
    if (side->conform->options->is_verbose) {
        printf("    %s lost: %s (%s)\n", side->name, link->error.text,
               rsi_status_name(link->error.status));
    }
}

uint32_t conform_count_descriptors(void)
{
    uint32_t count = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (directory == NULL) {
        return 0;
    }
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

uint32_t conform_count_ring_maps(void)
{
    char line[512];
    uint32_t count = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) {
        return 0;
    }
    while (fgets(line, sizeof(line), maps) != NULL) {
        count += strstr(line, "memfd:") != NULL;
    }
    fclose(maps);
    return count;
}
