/*
 * Design notes
 * - A URL is cut in three steps: scheme, then by scheme either a path or host and port. Every
 * refusal quotes the text and names the part, because it is typed by people.
 * - Nothing is resolved while parsing, so any thread may parse at any time.
 */
#include "transport/url.h"

#include "core/text.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#define URL_PORT_DIGITS_MAX 5

enum url_kind { URL_UNKNOWN, URL_HOST, URL_SOCKET_PATH, URL_NAME };

static enum url_kind url_kind(const char *scheme)
{
    static const char *const host_schemes[] = {"tcp", "rdma", "dpdk", "auto"};
    for (size_t i = 0; i < rsi_array_count(host_schemes); i++) {
        if (strcmp(scheme, host_schemes[i]) == 0) {
            return URL_HOST;
        }
    }
    if (strcmp(scheme, "shm") == 0) {
        return URL_SOCKET_PATH;
    }
    return strcmp(scheme, "sim") == 0 ? URL_NAME : URL_UNKNOWN;
}

/* Copies `bytes` of `from` into a field that has room for them and a zero; false: it has not. */
static bool copy_part(char *field, size_t field_bytes, const char *from, size_t bytes)
{
    if (bytes >= field_bytes) {
        return false;
    }
    memcpy(field, from, bytes);
    field[bytes] = '\0';
    return true;
}

static rsi_status_t parse_port(uint16_t *port, const char *digits, const char *text,
                               struct rsi_error *error)
{
    size_t digit_count = strspn(digits, "0123456789");
    uint32_t value = 0;
    for (size_t i = 0; i < digit_count && i < URL_PORT_DIGITS_MAX; i++) {
        value = value * 10 + (uint32_t)(digits[i] - '0');
    }
    if (digit_count == 0 || digit_count > URL_PORT_DIGITS_MAX || digits[digit_count] != '\0' ||
        value > UINT16_MAX) {
        return rsi_fail(error, RSI_E_INVALID, "'%s': port '%s' is not a number from 0 to 65535",
                        text, digits);
    }
    *port = (uint16_t)value;
    return RSI_OK;
}

/* Only what such a host can consist of: a '[' of the one must not be taken for part of the other.
 */
static bool host_is_plausible(const char *host, bool is_bracketed)
{
    if (is_bracketed) {
        size_t address_bytes = strspn(host, "0123456789abcdefABCDEF:.");
        return strchr(host, ':') != NULL &&
               (host[address_bytes] == '\0' || (host[address_bytes] == '%' && address_bytes > 0));
    }
    for (; *host != '\0'; host++) {
        if ((unsigned char)*host <= ' ' || *host == 0x7f || *host == '[' || *host == ']') {
            return false;
        }
    }
    return true;
}

static rsi_status_t parse_host(struct rsi_url *url, const char *rest, const char *text,
                               struct rsi_error *error)
{
    const char *host = rest;
    size_t host_bytes;
    const char *after;
    if (rest[0] == '[') {
        const char *bracket = strchr(rest, ']');
        if (bracket == NULL) {
            return rsi_fail(error, RSI_E_INVALID, "'%s': '[' without ']' around the IPv6 address",
                            text);
        }
        host = rest + 1;
        host_bytes = (size_t)(bracket - host);
        after = bracket + 1;
    } else {
        host_bytes = strcspn(rest, ":");
        after = rest + host_bytes;
        if (after[0] == ':' && strchr(after + 1, ':') != NULL) {
            return rsi_fail(error, RSI_E_INVALID,
                            "'%s': more than one ':'; write an IPv6 address as [ADDRESS]:PORT",
                            text);
        }
    }
    if (!copy_part(url->host, sizeof(url->host), host, host_bytes)) {
        return rsi_fail(error, RSI_E_INVALID, "'%.64s...': the host has %zu bytes, at most %d fit",
                        text, host_bytes, RSI_HOST_BYTES_MAX);
    }
    if (!host_is_plausible(url->host, rest[0] == '[')) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s': '%s' is neither a host name, an IPv4 address nor an [IPv6] address",
                        text, url->host);
    }
    url->port = RSI_PORT_DEFAULT;
    if (after[0] == ':') {
        return parse_port(&url->port, after + 1, text, error);
    }
    if (after[0] != '\0') {
        return rsi_fail(error, RSI_E_INVALID, "'%s': '%s' after the host; only :PORT may follow",
                        text, after);
    }
    return RSI_OK;
}

static rsi_status_t parse_path(struct rsi_url *url, enum url_kind kind, const char *rest,
                               const char *text, struct rsi_error *error)
{
    if (kind == URL_SOCKET_PATH && rest[0] != '/') {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s': the socket's path must be absolute: %s:///PATH/OF/SOCKET", text,
                        url->scheme);
    }
    if (rest[0] == '\0' || strcmp(rest, "/") == 0) {
        return rsi_fail(error, RSI_E_INVALID, "'%s': a name is missing after '%s://'", text,
                        url->scheme);
    }
    if (!copy_part(url->path, sizeof(url->path), rest, strlen(rest))) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%.64s...': the path has %zu bytes, a socket's path at most %d", text,
                        strlen(rest), RSI_PATH_BYTES_MAX);
    }
    return RSI_OK;
}

/* What is not part of Ringside's URLs, although URLs may have it. */
static rsi_status_t refuse_extras(const char *rest, enum url_kind kind, const char *text,
                                  struct rsi_error *error)
{
    if (strpbrk(rest, "?#") != NULL) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s': options ('?') and fragments ('#') are not part of an address; give "
                        "options in the options struct or the configuration",
                        text);
    }
    if (kind == URL_HOST && strchr(rest, '@') != NULL) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s': user names ('@') are not part of an address; the client's name and "
                        "secret go into its options",
                        text);
    }
    if (kind == URL_HOST && strchr(rest, '/') != NULL) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s': a path ('/') after the host means nothing here", text);
    }
    return RSI_OK;
}

rsi_status_t rsi_url_parse(struct rsi_url *url, const char *text, struct rsi_error *error)
{
    const char *separator = strstr(text, "://");
    if (separator == NULL) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s' is no address: write tcp://HOST:PORT, rdma://HOST:PORT, "
                        "dpdk://HOST:PORT, auto://HOST:PORT or shm:///PATH",
                        text);
    }
    struct rsi_url parsed = {0};
    bool fits = copy_part(parsed.scheme, sizeof(parsed.scheme), text, (size_t)(separator - text));
    enum url_kind kind = fits ? url_kind(parsed.scheme) : URL_UNKNOWN;
    if (kind == URL_UNKNOWN) {
        return rsi_fail(error, RSI_E_INVALID,
                        "'%s': unknown transport '%.*s'; use tcp, rdma, dpdk, shm or auto", text,
                        (int)(separator - text), text);
    }
    const char *rest = separator + strlen("://");
    rsi_status_t status = refuse_extras(rest, kind, text, error);
    if (status != RSI_OK) {
        return status;
    }
    status = kind == URL_HOST ? parse_host(&parsed, rest, text, error)
                              : parse_path(&parsed, kind, rest, text, error);
    if (status != RSI_OK) {
        return status;
    }
    *url = parsed;
    return RSI_OK;
}

void rsi_url_format(const struct rsi_url *url, char *text, size_t text_bytes)
{
    struct rsi_text out;
    rsi_text_init(&out, text, text_bytes);
    rsi_text_append(&out, "%s://", url->scheme);
    if (url_kind(url->scheme) != URL_HOST) {
        rsi_text_append(&out, "%s", url->path);
        return;
    }
    bool is_ipv6 = strchr(url->host, ':') != NULL;
    rsi_text_append(&out, is_ipv6 ? "[%s]:%u" : "%s:%u", url->host, url->port);
}

rsi_status_t rsi_url_resolve(const struct rsi_url *url, bool passive,
                             struct sockaddr_storage *address, socklen_t *address_bytes,
                             struct rsi_error *error)
{
    bool any_host = url->host[0] == '\0' || strcmp(url->host, "*") == 0;
    if (any_host && !passive) {
        return rsi_fail(error, RSI_E_ADDRESS,
                        "%s://%s:%u names no host to connect to; '*' is only for listening",
                        url->scheme, url->host, url->port);
    }
    char port[URL_PORT_DIGITS_MAX + 1];
    snprintf(port, sizeof(port), "%u", url->port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0),
    };
    struct addrinfo *found = NULL;
    int result = getaddrinfo(any_host ? NULL : url->host, port, &hints, &found);
    if (result != 0) {
        return rsi_fail(error, RSI_E_ADDRESS,
                        "host '%s' cannot be resolved: %s; check its name, or give the address",
                        url->host, gai_strerror(result));
    }
    memset(address, 0, sizeof(*address));
    memcpy(address, found->ai_addr, found->ai_addrlen);
    *address_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return RSI_OK;
}

void rsi_address_format(const struct sockaddr *address, char *text, size_t text_bytes)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)(const void *)address;
        inet_ntop(AF_INET, &ipv4->sin_addr, host, sizeof(host));
        snprintf(text, text_bytes, "%s:%u", host, ntohs(ipv4->sin_port));
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)(const void *)address;
        inet_ntop(AF_INET6, &ipv6->sin6_addr, host, sizeof(host));
        snprintf(text, text_bytes, "[%s]:%u", host, ntohs(ipv6->sin6_port));
    } else {
        snprintf(text, text_bytes, "address family %d", address->sa_family);
    }
}
