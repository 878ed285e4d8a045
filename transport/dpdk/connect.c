/*
 * From an address or a waiting dialler to an open link.
 *
 * Design notes
 * - Who dials asks for the MAC of the next hop, says HELLO, gets a cookie, sends it back with OPEN
 *   and its greeting, and gets ACCEPT with the listener's. Each step is repeated until the next one
 *   is reached: any of these may be lost. With each repeated HELLO it asks
 *   for the MAC again, since the address may be another host's or card's by now.
 * - A listener keeps nothing before a cookie comes back. From then on the dialler waits in its
 *   backlog, and link_accept makes the link. An OPEN that comes again gets the same answer again;
 *   of a link that is gone meanwhile the listener remembers the nonce for a while, so that no
 *   second link comes of it.
 * - A greeting is answered even if its version does not fit, so that both sides can name both.
 * - The link joins its poller before its frames are sent there: what comes earlier is handshake, or
 *   comes again.
 */
#include "core/assert.h"
#include "core/clock.h"
#include "core/position.h"
#include "transport/auth.h"
#include "transport/dpdk/dpdk_internal.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_MS          UINT64_C(1000000)
#define DIAL_PORT_MIN      49152u
#define DIAL_PORT_MASK     0x3fffu
#define OPEN_BODY_BYTES    (sizeof(struct rsi_datagram_hello) + RSI_GREETING_BYTES)
#define DATAGRAM_MTU_LEAST RSI_DPDK_MTU_MIN

/* ---- making and freeing ---------------------------------------------------------------------- */

static void describe_end(const struct rsi_packet_end *end, char *text, size_t text_bytes)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(end->port),
        .sin_addr.s_addr = htonl(end->address),
    };
    rsi_address_format((const struct sockaddr *)&address, text, text_bytes);
}

static void describe_ends(struct rsi_dpdk_link *link)
{
    const struct rsi_station *station = rsi_dpdk_poller(link->base.poller)->station;
    char text[40];
    describe_end(&link->own_end, text, sizeof(text));
    snprintf(link->base.local_text, sizeof(link->base.local_text), "%s on %.40s", text,
             station->port->name);
    describe_end(&link->peer_end, link->base.peer_text, sizeof(link->base.peer_text));
}

static rsi_status_t make_link(struct rsi_dpdk_link **link, struct rsi_poller *poller,
                              struct rsi_error *error)
{
    struct rsi_dpdk_poller *dpdk_poller = rsi_dpdk_poller(poller);
    struct rsi_dpdk_domain *domain = rsi_dpdk_domain(poller->domain);
    if (dpdk_poller->claimed_count == poller->link_count_max) {
        return rsi_fail(error, RSI_E_LIMIT, "this poller has its %u links already",
                        poller->link_count_max);
    }
    struct rsi_dpdk_link *made = rsi_link_alloc(sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a dpdk link");
    }
    rsi_status_t status = rsi_link_init(&made->base, poller->domain->transport, poller, error);
    if (status != RSI_OK) {
        rsi_link_free(made);
        return status;
    }
    made->connection = rsi_station_connect(domain->station, &domain->queue);
    if (made->connection == 0) {
        rsi_link_fini(&made->base);
        rsi_link_free(made);
        return rsi_fail(error, RSI_E_LIMIT, "the dpdk port has its %u connections already",
                        RSI_STATION_SLOT_COUNT);
    }
    domain->now_ns = rsi_pos_max(domain->now_ns, rsi_clock_now_ns());
    made->connect_deadline_ns = domain->now_ns + domain->connect_timeout_ns;
    made->try_interval_ns = RSI_DPDK_TRY_NS_FIRST;
    made->own_end.address = domain->station->address;
    memcpy(made->own_end.mac, domain->station->port->mac, RSI_MAC_BYTES);
    made->next = domain->links;
    domain->links = made;
    dpdk_poller->claimed_count++;
    made->is_claimed = true;
    *link = made;
    return RSI_OK;
}

void rsi_dpdk_link_unclaim(struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_domain *domain = rsi_dpdk_domain(link->base.poller->domain);
    if (!link->is_claimed) {
        return;
    }
    link->is_claimed = false;
    rsi_dpdk_poller(link->base.poller)->claimed_count--;
    rsi_station_disconnect(domain->station, link->connection);
    struct rsi_dpdk_link **place = &domain->links;
    while (*place != link) {
        place = &(*place)->next;
    }
    *place = link->next;
}

void rsi_dpdk_link_destroy(struct rsi_link *base)
{
    if (base == NULL) {
        return;
    }
    rsi_dpdk_link_unclaim(rsi_dpdk_link(base));
    rsi_ring_fini(&base->out);
    rsi_ring_fini(&base->in);
    rsi_link_fini(base);
    rsi_link_free(base);
}

/* ---- what is sent ---------------------------------------------------------------------------- */

/* A datagram of the handshake: hello, and the greeting where the type has one. */
static void send_hello(struct rsi_dpdk_domain *domain, uint16_t from_port,
                       const struct rsi_packet_end *to, struct rsi_datagram_header *header,
                       const struct rsi_datagram_hello *hello)
{
    uint8_t body[OPEN_BODY_BYTES];
    memcpy(body, hello, sizeof(*hello));
    header->bytes = sizeof(*hello);
    if (header->type == RSI_DATAGRAM_OPEN || header->type == RSI_DATAGRAM_ACCEPT) {
        struct rsi_greeting greeting;
        rsi_greeting_init(&greeting, &domain->base.options);
        memcpy(body + sizeof(*hello), &greeting, sizeof(greeting));
        header->bytes = OPEN_BODY_BYTES;
    }
    rsi_station_send(domain->station, from_port, to, header, body);
}

/* The link's step as a datagram. */
static void send_step(struct rsi_dpdk_link *link, enum rsi_datagram_type type)
{
    struct rsi_dpdk_domain *domain = rsi_dpdk_domain(link->base.poller->domain);
    struct rsi_datagram_header header = {
        .type = (uint8_t)type,
        .connection = link->peer_connection,
        .from = link->connection,
    };
    link->hello.nonce = link->nonce;
    link->hello.mtu = (uint16_t)rsi_pos_min(domain->station->mtu, UINT16_MAX);
    send_hello(domain, link->own_end.port, &link->peer_end, &header, &link->hello);
}

static void send_refusal(struct rsi_dpdk_domain *domain, uint16_t from_port,
                         const struct rsi_packet_end *to, uint32_t connection, uint64_t nonce,
                         enum rsi_datagram_reason reason)
{
    struct rsi_datagram_header header = {.type = RSI_DATAGRAM_REFUSE, .connection = connection};
    struct rsi_datagram_hello hello = {.nonce = nonce, .reason = (uint16_t)reason};
    send_hello(domain, from_port, to, &header, &hello);
}

/* ---- dialling -------------------------------------------------------------------------------- */

static rsi_status_t check_target(const struct rsi_station *station, const struct rsi_url *url,
                                 uint32_t *address, struct rsi_error *error)
{
    struct sockaddr_storage resolved;
    socklen_t resolved_bytes;
    rsi_status_t status = rsi_url_resolve(url, false, &resolved, &resolved_bytes, error);
    if (status != RSI_OK) {
        return status;
    }
    if (resolved.ss_family != AF_INET) {
        return rsi_fail(error, RSI_E_ADDRESS, "dpdk://%s: only IPv4 addresses can be dialled",
                        url->host);
    }
    *address = ntohl(((const struct sockaddr_in *)(const void *)&resolved)->sin_addr.s_addr);
    if (*address == station->address) {
        return rsi_fail(error, RSI_E_ADDRESS,
                        "dpdk://%s is this process's own port; no frame comes back to it: dial "
                        "over shm or tcp",
                        url->host);
    }
    if (rsi_station_is_remote(station, *address) && station->gateway == 0) {
        return rsi_fail(error, RSI_E_ADDRESS,
                        "dpdk://%s is beyond the prefix of dpdk_address, and no dpdk_gateway is "
                        "configured",
                        url->host);
    }
    return RSI_OK;
}

rsi_status_t rsi_dpdk_link_dial(struct rsi_link **link, struct rsi_poller *poller,
                                const struct rsi_url *url, struct rsi_error *error)
{
    uint32_t address = 0;
    struct rsi_station *station = rsi_dpdk_domain(poller->domain)->station;
    rsi_status_t status = check_target(station, url, &address, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_dpdk_link *made;
    status = make_link(&made, poller, error);
    if (status != RSI_OK) {
        return status;
    }
    status = rsi_auth_random(&made->nonce, sizeof(made->nonce), error);
    if (status != RSI_OK) {
        rsi_dpdk_link_destroy(&made->base);
        return status;
    }
    made->is_dialled = true;
    made->step = RSI_DPDK_RESOLVE;
    made->own_end.port = (uint16_t)(DIAL_PORT_MIN + (made->connection & DIAL_PORT_MASK));
    made->peer_end.address = address;
    made->peer_end.port = url->port;
    rsi_url_format(url, made->url_text, sizeof(made->url_text));
    describe_ends(made);
    rsi_dpdk_connect_step(made, rsi_dpdk_domain(poller->domain)->now_ns);
    *link = &made->base;
    return RSI_OK;
}

/* True: it is time to send the step's datagram (again). */
static bool is_time_to_try(struct rsi_dpdk_link *link, uint64_t now_ns)
{
    if (now_ns < link->try_ns) {
        return false;
    }
    link->try_ns = now_ns + link->try_interval_ns;
    link->try_interval_ns = rsi_pos_min(2 * link->try_interval_ns, RSI_DPDK_TRY_NS_MAX);
    return true;
}

static void next_step(struct rsi_dpdk_link *link, enum rsi_dpdk_step step)
{
    link->step = step;
    link->try_ns = 0;
    link->try_interval_ns = RSI_DPDK_TRY_NS_FIRST;
}

/* False: nobody knows yet. After a HELLO in vain it is asked for again. */
static bool find_hop(struct rsi_dpdk_link *link, struct rsi_station *station)
{
    uint32_t address = link->peer_end.address;
    bool is_known = rsi_station_resolve(station, address, link->peer_end.mac);
    if (!is_known || link->step == RSI_DPDK_HELLO) {
        rsi_station_ask(station, address);
    }
    return is_known;
}

static void try_step(struct rsi_dpdk_link *link, uint64_t now_ns)
{
    struct rsi_station *station = rsi_dpdk_domain(link->base.poller->domain)->station;
    if (!is_time_to_try(link, now_ns)) {
        return;
    }
    if (link->step != RSI_DPDK_OPEN && !find_hop(link, station)) {
        return;
    }
    if (link->step == RSI_DPDK_RESOLVE) {
        next_step(link, RSI_DPDK_HELLO);
        (void)is_time_to_try(link, now_ns);
    }
    send_step(link, link->step == RSI_DPDK_HELLO ? RSI_DATAGRAM_HELLO : RSI_DATAGRAM_OPEN);
}

static RSI_COLD void connect_timed_out(struct rsi_dpdk_link *link)
{
    static const char *const reasons[] = {
        [RSI_DPDK_RESOLVE] = "nobody answers ARP for it; check the address, the gateway and the "
                             "cable",
        [RSI_DPDK_HELLO] = "its host is there, but nothing answers on that UDP port; is the broker "
                           "there, does it listen on dpdk://, does a firewall drop UDP?",
        [RSI_DPDK_OPEN] = "it answered at first; its process is too busy to accept, or stopped",
        [RSI_DPDK_CALLED] = "the dialler fell silent",
        [RSI_DPDK_GREETED] = "the dialler fell silent",
    };
    uint64_t timeout_ns = rsi_dpdk_domain(link->base.poller->domain)->connect_timeout_ns;
    rsi_link_lose(&link->base, RSI_E_TIMED_OUT, "%s did not answer within %" PRIu64 " ms: %s",
                  link->is_dialled ? link->url_text : link->base.peer_text, timeout_ns / NS_PER_MS,
                  reasons[link->step]);
    rsi_dpdk_connect_stop(link);
}

void rsi_dpdk_connect_stop(struct rsi_dpdk_link *link)
{
    if (link->step == RSI_DPDK_CALLED) {
        send_refusal(rsi_dpdk_domain(link->base.poller->domain), link->own_end.port,
                     &link->peer_end, link->peer_connection, link->nonce,
                     RSI_DATAGRAM_REASON_CLOSED);
    }
    link->step = RSI_DPDK_GREETED;
}

/* ---- open ------------------------------------------------------------------------------------ */

/* Both are greeted: the link goes to the owner thread. */
static void hand_over(struct rsi_dpdk_link *link)
{
    struct rsi_dpdk_poller *poller = rsi_dpdk_poller(link->base.poller);
    link->step = RSI_DPDK_GREETED;
    link->is_handed_over = true;
    rsi_link_set_state(&link->base, RSI_LINK_OPEN);
    rsi_dpdk_poller_push(link, RSI_DPDK_COMMAND_ADD);
    rsi_station_redirect(poller->station, link->connection, &poller->queue);
}

/* False: the link is LOST. */
static bool check_greeting(struct rsi_dpdk_link *link, const struct rsi_greeting *greeting)
{
    struct rsi_error error = {0};
    rsi_status_t status = rsi_greeting_check(greeting, RSI_GREETING_BYTES,
                                             &link->base.poller->domain->options, &error);
    if (status == RSI_OK && greeting->control_credit == 0) {
        status = rsi_fail(&error, RSI_E_PROTOCOL, "it takes no control messages at all");
    }
    if (status != RSI_OK) {
        rsi_error_context(&error, "%s", link->base.peer_text);
        link->step = RSI_DPDK_GREETED;
        rsi_link_lose_error(&link->base, &error);
        return false;
    }
    link->base.peer_greeting = *greeting;
    return true;
}

/* The dialler's side. */
static void take_accept(struct rsi_dpdk_link *link, const struct rsi_packet *packet,
                        const struct rsi_datagram_hello *hello)
{
    struct rsi_greeting greeting;
    if (link->step != RSI_DPDK_OPEN || packet->header.bytes < OPEN_BODY_BYTES ||
        packet->header.from == 0 || hello->mtu < DATAGRAM_MTU_LEAST) {
        return;
    }
    memcpy(&greeting, packet->body + sizeof(*hello), sizeof(greeting));
    link->peer_connection = packet->header.from;
    link->mtu =
        (uint32_t)rsi_pos_min(hello->mtu, rsi_dpdk_domain(link->base.poller->domain)->station->mtu);
    if (check_greeting(link, &greeting)) {
        hand_over(link);
    }
}

static void take_cookie(struct rsi_dpdk_link *link, const struct rsi_datagram_hello *hello)
{
    if (link->step != RSI_DPDK_HELLO) {
        return;
    }
    link->hello = *hello;
    next_step(link, RSI_DPDK_OPEN);
    try_step(link, rsi_dpdk_domain(link->base.poller->domain)->now_ns);
}

static void take_refusal(struct rsi_dpdk_link *link, const struct rsi_datagram_hello *hello)
{
    if (link->step == RSI_DPDK_GREETED) {
        return;
    }
    link->step = RSI_DPDK_GREETED;
    switch (hello->reason) {
    case RSI_DATAGRAM_REASON_NO_LISTENER:
        rsi_link_lose(&link->base, RSI_E_REFUSED,
                      "no broker listens on %s; start ringsided there or check the port",
                      link->url_text);
        break;
    case RSI_DATAGRAM_REASON_FULL:
        rsi_link_lose(&link->base, RSI_E_REFUSED,
                      "%s takes no more links: it has as many as it may have, or no memory for one "
                      "more; its log says which",
                      link->url_text);
        break;
    default:
        rsi_link_lose(&link->base, RSI_E_LINK_CLOSED, "%s closed the link before it was open",
                      link->url_text);
        break;
    }
}

/* ---- accepting ------------------------------------------------------------------------------- */

static bool is_of(const struct rsi_packet_end *end, uint32_t connection,
                  const struct rsi_packet *packet)
{
    return connection == packet->header.from && end->address == packet->source.address &&
           end->port == packet->source.port;
}

static bool was_accepted(const struct rsi_dpdk_listener *listener, uint64_t nonce)
{
    for (uint32_t i = 0; i < RSI_DPDK_MEMORY_COUNT && i < listener->accepted_count; i++) {
        if (listener->accepted[i] == nonce) {
            return true;
        }
    }
    return false;
}

/* An OPEN that came before: waits, has its link, or had one. False: it is new. */
static bool answer_again(struct rsi_dpdk_domain *domain, struct rsi_dpdk_listener *listener,
                         const struct rsi_packet *packet, uint64_t nonce)
{
    for (uint32_t i = 0; i < listener->caller_count; i++) {
        const struct rsi_dpdk_caller *caller = &listener->callers[i];
        if (caller->nonce == nonce && is_of(&caller->end, caller->connection, packet)) {
            return true;
        }
    }
    for (struct rsi_dpdk_link *link = domain->links; link != NULL; link = link->next) {
        if (!link->is_dialled && link->nonce == nonce &&
            is_of(&link->peer_end, link->peer_connection, packet)) {
            if (link->step == RSI_DPDK_GREETED) {
                send_step(link, RSI_DATAGRAM_ACCEPT);
            }
            return true;
        }
    }
    if (!was_accepted(listener, nonce)) {
        return false;
    }
    send_refusal(domain, listener->port, &packet->source, packet->header.from, nonce,
                 RSI_DATAGRAM_REASON_CLOSED);
    return true;
}

static void take_open(struct rsi_dpdk_domain *domain, struct rsi_dpdk_listener *listener,
                      const struct rsi_packet *packet, const struct rsi_datagram_hello *hello)
{
    if (packet->header.bytes < OPEN_BODY_BYTES || packet->header.from == 0 ||
        hello->mtu < DATAGRAM_MTU_LEAST || !rsi_dpdk_cookie_is_good(domain, packet, hello) ||
        answer_again(domain, listener, packet, hello->nonce)) {
        return;
    }
    if (listener->caller_count == RSI_DPDK_BACKLOG) {
        send_refusal(domain, listener->port, &packet->source, packet->header.from, hello->nonce,
                     RSI_DATAGRAM_REASON_FULL);
        return;
    }
    struct rsi_dpdk_caller *caller = &listener->callers[listener->caller_count++];
    *caller = (struct rsi_dpdk_caller){
        .end = packet->source,
        .connection = packet->header.from,
        .mtu = (uint32_t)rsi_pos_min(hello->mtu, domain->station->mtu),
        .nonce = hello->nonce,
    };
    memcpy(&caller->greeting, packet->body + sizeof(*hello), sizeof(caller->greeting));
}

static void take_hello(struct rsi_dpdk_domain *domain, const struct rsi_dpdk_listener *listener,
                       const struct rsi_packet *packet, const struct rsi_datagram_hello *hello)
{
    struct rsi_datagram_header header = {
        .type = RSI_DATAGRAM_COOKIE,
        .connection = packet->header.from,
    };
    struct rsi_datagram_hello answer = {
        .nonce = hello->nonce,
        .cookie_time = rsi_dpdk_cookie_time(domain),
    };
    if (rsi_dpdk_cookie_make(domain, packet, hello->nonce, answer.cookie_time, answer.cookie)) {
        send_hello(domain, listener->port, &packet->source, &header, &answer);
    }
}

static void forget_caller(struct rsi_dpdk_listener *listener)
{
    listener->accepted[listener->accepted_count++ % RSI_DPDK_MEMORY_COUNT] =
        listener->callers[0].nonce;
    listener->caller_count--;
    memmove(&listener->callers[0], &listener->callers[1],
            listener->caller_count * sizeof(listener->callers[0]));
}

static void refuse_caller(struct rsi_dpdk_listener *listener, enum rsi_datagram_reason reason)
{
    const struct rsi_dpdk_caller *caller = &listener->callers[0];
    send_refusal(rsi_dpdk_domain(listener->base.domain), listener->port, &caller->end,
                 caller->connection, caller->nonce, reason);
    forget_caller(listener);
}

void rsi_dpdk_listener_refuse_all(struct rsi_dpdk_listener *listener)
{
    while (listener->caller_count != 0) {
        refuse_caller(listener, RSI_DATAGRAM_REASON_NO_LISTENER);
    }
}

/* The poller that the greeting hints at, if it has room; else the one that is next in turn. */
static struct rsi_poller *choose_poller(const struct rsi_poller_choice *choice, uint32_t agent_hint)
{
    struct rsi_poller *home = rsi_poller_choose(choice, agent_hint);
    bool has_room = rsi_dpdk_poller(home)->claimed_count < home->link_count_max;
    return has_room ? home : choice->pollers[choice->otherwise];
}

rsi_status_t rsi_dpdk_link_accept(struct rsi_link **link, struct rsi_listener *base,
                                  const struct rsi_poller_choice *choice, struct rsi_error *error)
{
    struct rsi_dpdk_listener *listener = (struct rsi_dpdk_listener *)(void *)base;
    if (listener->caller_count == 0) {
        return RSI_WOULD_BLOCK;
    }
    const struct rsi_dpdk_caller *caller = &listener->callers[0];
    struct rsi_dpdk_link *made;
    rsi_status_t status =
        make_link(&made, choose_poller(choice, caller->greeting.agent_hint), error);
    if (status != RSI_OK) {
        refuse_caller(listener, RSI_DATAGRAM_REASON_FULL);
        return status;
    }
    made->step = RSI_DPDK_CALLED;
    made->own_end.port = listener->port;
    made->peer_end = caller->end;
    made->peer_connection = caller->connection;
    made->mtu = caller->mtu;
    made->nonce = caller->nonce;
    made->base.peer_greeting = caller->greeting;
    describe_ends(made);
    forget_caller(listener);
    *link = &made->base;
    return RSI_OK;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* Answers an accepted dialler; its link is open, or lost because the versions do not fit. */
static void answer_caller(struct rsi_dpdk_link *link)
{
    struct rsi_greeting greeting = link->base.peer_greeting;
    send_step(link, RSI_DATAGRAM_ACCEPT);
    if (check_greeting(link, &greeting)) {
        hand_over(link);
    }
}

void rsi_dpdk_connect_step(struct rsi_dpdk_link *link, uint64_t now_ns)
{
    if (link->step == RSI_DPDK_CALLED) {
        answer_caller(link);
    } else if (now_ns >= link->connect_deadline_ns) {
        connect_timed_out(link);
    } else {
        try_step(link, now_ns);
    }
}

static struct rsi_dpdk_listener *find_listener(const struct rsi_dpdk_domain *domain, uint16_t port)
{
    struct rsi_dpdk_listener *listener = domain->listeners;
    while (listener != NULL && listener->port != port) {
        listener = listener->next;
    }
    return listener;
}

/* An answer to a link of ours that is CONNECTING; NULL: there is none of that name and nonce. */
static struct rsi_dpdk_link *find_dialled(const struct rsi_dpdk_domain *domain,
                                          const struct rsi_packet *packet, uint64_t nonce)
{
    struct rsi_dpdk_link *link = domain->links;
    while (link != NULL && (link->connection != packet->header.connection || link->nonce != nonce ||
                            link->peer_end.address != packet->source.address ||
                            rsi_link_state(&link->base) != RSI_LINK_CONNECTING)) {
        link = link->next;
    }
    return link;
}

static void take_answer(struct rsi_dpdk_domain *domain, const struct rsi_packet *packet,
                        const struct rsi_datagram_hello *hello)
{
    struct rsi_dpdk_link *link = find_dialled(domain, packet, hello->nonce);
    if (link == NULL || !link->is_dialled) {
        return;
    }
    switch (packet->header.type) {
    case RSI_DATAGRAM_COOKIE:
        take_cookie(link, hello);
        break;
    case RSI_DATAGRAM_ACCEPT:
        take_accept(link, packet, hello);
        break;
    case RSI_DATAGRAM_REFUSE:
        take_refusal(link, hello);
        break;
    default:
        break;
    }
}

void rsi_dpdk_take_handshake(struct rsi_dpdk_domain *domain, struct rsi_port_frame *frame)
{
    struct rsi_packet packet;
    struct rsi_datagram_hello hello;
    if (!rsi_packet_parse(&packet, frame) || packet.header.bytes < sizeof(hello) ||
        packet.header.type >= RSI_DATAGRAM_RESET || !rsi_packet_is_intact(&packet, frame)) {
        return; /* also: data of a link whose ACCEPT was lost; it comes again */
    }
    memcpy(&hello, packet.body, sizeof(hello));
    if (packet.header.type != RSI_DATAGRAM_HELLO && packet.header.type != RSI_DATAGRAM_OPEN) {
        take_answer(domain, &packet, &hello);
        return;
    }
    struct rsi_dpdk_listener *listener = find_listener(domain, packet.target_port);
    if (listener == NULL) {
        return;
    }
    if (packet.header.type == RSI_DATAGRAM_HELLO) {
        take_hello(domain, listener, &packet, &hello);
    } else {
        take_open(domain, listener, &packet, &hello);
    }
}
