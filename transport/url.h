/*
 * URLs of brokers and listeners.
 *
 *     tcp://HOST:PORT  rdma://HOST:PORT  auto://HOST:PORT     HOST: name, IPv4, or [IPv6]
 *     dpdk://HOST:PORT                                        HOST: name, IPv4
 *     shm:///ABSOLUTE/PATH/OF/SOCKET                          at most 107 bytes
 *     sim://NAME                                              inside one process, for tests
 *
 * PORT may be left out: 7400. User names, queries and fragments are refused with a text that says
 * so.
 */
#ifndef RSI_TRANSPORT_URL_H
#define RSI_TRANSPORT_URL_H

#include "core/error.h"

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

#define RSI_PORT_DEFAULT   7400
#define RSI_HOST_BYTES_MAX 253
#define RSI_PATH_BYTES_MAX 107

struct rsi_url {
    char scheme[16];
    char host[RSI_HOST_BYTES_MAX + 1]; /* empty where there is a path */
    uint16_t port;
    char path[RSI_PATH_BYTES_MAX + 1]; /* shm: the socket; sim: the name */
};

/* Any thread, no system call. RSI_E_INVALID with a text that names the part that is wrong. */
RSI_MUST_CHECK rsi_status_t rsi_url_parse(struct rsi_url *url, const char *text,
                                          struct rsi_error *error);
/* Writes the URL back as text, always terminated. */
void rsi_url_format(const struct rsi_url *url, char *text, size_t text_bytes);
/*
 * Resolves host and port. Numeric hosts resolve at once; a name may wait for the resolver, so only
 * callers that may wait pass one. passive: for a listener ("*" and "" mean any address).
 * RSI_E_ADDRESS names the host.
 */
RSI_MUST_CHECK rsi_status_t rsi_url_resolve(const struct rsi_url *url, bool passive,
                                            struct sockaddr_storage *address,
                                            socklen_t *address_bytes, struct rsi_error *error);
/* "10.0.0.1:7400", "[::1]:7400". */
void rsi_address_format(const struct sockaddr *address, char *text, size_t text_bytes);

#endif
