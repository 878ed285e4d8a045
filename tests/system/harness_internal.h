/* What the harness's own files tell each other. */
#ifndef RSI_TESTS_SYSTEM_HARNESS_INTERNAL_H
#define RSI_TESTS_SYSTEM_HARNESS_INTERNAL_H

#include "tests/system/harness.h"

/* Once per program: where the build's bin folder is. */
void rsi_programs_init(void);
/* After a failure: what the programs wrote, and the brokers' counters. */
void rsi_programs_report(void);
/* At the end of a test that passed: it stopped what it started. */
void rsi_programs_check_ended(void);

/* In an actor its name, in a test's own process NULL. */
const char *rsi_actor_name(void);

/* ---- places.c: over dpdk every process has a port of its own ----------------------------------
 */

/* How the names of their fault layers' counters files end. */
#define FAULT_COUNTERS ".faults"

bool rsi_places_are_made(void);
/* Static memory. */
const char *rsi_places_broker_host(size_t broker_index);
/* Its device; how many flags that is. */
size_t rsi_places_broker_flags(const char **list, size_t broker_index);
/* In a child, before it executes or uses libringside. */
void rsi_places_enter_broker(size_t broker_index);
/* Into one that is free; the environment names the device in it. */
void rsi_places_enter_client(void);

/* In a child, first of all: it is killed when its parent ends. */
void rsi_die_with_parent(pid_t parent);

#endif
