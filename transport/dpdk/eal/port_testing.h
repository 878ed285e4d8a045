/*
 * What tests of the plugin share: opening ports, and frames that can be told apart.
 */
#ifndef RSI_TRANSPORT_DPDK_EAL_PORT_TESTING_H
#define RSI_TRANSPORT_DPDK_EAL_PORT_TESTING_H

#include "core/testing.h"
#include "transport/dpdk/plugin.h"

enum { PORT_SKIPPED = 77 };

/* Under the thread sanitizer, which DPDK's libraries are not built for; says so. */
bool port_is_passed_over(void);

/* Opens it or fails the test. */
struct rsi_port *port_open(const struct rsi_dpdk_options *options);
/* Opening must fail with this status and say each of the words, up to a NULL. */
void port_expect_failure(const struct rsi_dpdk_options *options, rsi_status_t status,
                         const char *const *words);
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Sends a frame of that many bytes that begins with the number, from a to b's MAC; waits for room.
 */
void port_send(struct rsi_port *a, const struct rsi_port *b, uint32_t bytes, uint32_t number);
/* Takes what has come, up to that frame, and checks every byte of it; false: it was not there. */
bool port_take(struct rsi_port *b, uint32_t bytes, uint32_t number);
/* The same, and waits for it. */
void port_expect(struct rsi_port *b, uint32_t bytes, uint32_t number);
/* A frame from a wakes who sleeps on b, each time. */
void port_expect_wake(struct rsi_port *a, struct rsi_port *b);

#endif
