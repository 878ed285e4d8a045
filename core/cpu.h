#ifndef RSI_CORE_CPU_H
#define RSI_CORE_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* CPUs, NUMA nodes and what is near to what, as the kernel tells it. Control plane only. */

enum { RSI_CPU_COUNT_MAX = 1024 };

struct rsi_cpu_set {
    uint64_t words[RSI_CPU_COUNT_MAX / 64]; /* bit i: CPU i is in the set */
};

bool rsi_cpu_set_has(const struct rsi_cpu_set *set, unsigned cpu);
void rsi_cpu_set_add(struct rsi_cpu_set *set, unsigned cpu);
unsigned rsi_cpu_set_count(const struct rsi_cpu_set *set);

/* The lowest CPU of the set that is not below `from`, or -1. */
int rsi_cpu_set_next(const struct rsi_cpu_set *set, unsigned from);

/* Reads the kernel's list form, "0-3,8"; the empty text is the empty set. Error: INVALID. */
rsi_status_t rsi_cpu_set_parse(struct rsi_cpu_set *set, const char *text,
                               struct rsi_error *error) RSI_MUST_CHECK;

/* Writes the list form ("0-3,8", "none" when empty) into `buffer`; returns `buffer`. */
const char *rsi_cpu_set_format(const struct rsi_cpu_set *set, char *buffer, size_t buffer_bytes);

/* The CPUs that the calling thread may run on. */
rsi_status_t rsi_cpu_allowed(struct rsi_cpu_set *set, struct rsi_error *error) RSI_MUST_CHECK;

/* The CPUs that the kernel keeps free of others' work (isolcpus); empty where there are none. */
rsi_status_t rsi_cpu_isolated(struct rsi_cpu_set *set, struct rsi_error *error) RSI_MUST_CHECK;

/* NUMA node of a CPU, of a network interface ("eth0"), of an RDMA device ("mlx5_0"); -1: unknown.
 */
int rsi_cpu_node(unsigned cpu);
int rsi_cpu_node_of_interface(const char *name);
int rsi_cpu_node_of_rdma_device(const char *name);

/*
 * Pins the calling thread to one CPU. Error CPU when it lies outside what the thread is allowed;
 * the text names the allowed set: "cpu 7 is outside the allowed set 0-1".
 */
rsi_status_t rsi_cpu_pin_thread(unsigned cpu, struct rsi_error *error) RSI_MUST_CHECK;

/* Names the calling thread for ps, top and debuggers; what is beyond 15 bytes is cut off. */
void rsi_thread_name(const char *name);

#endif
