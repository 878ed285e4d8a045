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

/* In a child, first of all: it is killed when its parent ends. */
void rsi_die_with_parent(pid_t parent);

#endif
