/*
 * Where broker, client and transport are looked into: points of the scheduler between the stages of
 * a pass, what the oracle hears, and mutants.
 */
#ifndef RSI_SIMULATION_POINTS_H
#define RSI_SIMULATION_POINTS_H

#include <stdbool.h>
#include <stdint.h>

/* Faults put into the real code, one at a time: the simulation has to find each. */
enum mutant {
    MUTANT_NONE,
    MUTANT_LOST_WAKE,
    MUTANT_LOST_ROOM,
    MUTANT_EARLY_ACKNOWLEDGE,
    MUTANT_IGNORED_EDIT,
    MUTANT_DOUBLED_BATCH,
    MUTANT_DROPPED_FRAME,
    MUTANT_FORGOTTEN_GAP,
    MUTANT_EARLY_RETIRE,
    MUTANT_OVERWRITTEN_LOG,
    MUTANT_HOLDS_EVERYBODY,
    MUTANT_KEEPS_WAITING,
    MUTANT_LEAKING_SPILL,
    MUTANT_EARLY_DRAINED,
    MUTANT_CARRIES_NO_ARRIVALS,
    MUTANT_CARRIES_NO_STAGED,
    MUTANT_SLOW_IS_NOT_READ,
    MUTANT_FORGETS_ENDS,
    MUTANT_COUNT,
};

struct mutant_info {
    const char *name;
    const char *what;
};
extern const struct mutant_info mutants[MUTANT_COUNT];

void points_set_mutant(enum mutant mutant);
/* Order in which the next broker's agents walk the logs. */
void points_set_walk_seed(uint64_t seed);

/* Messages that the data agents of the last broker admitted; its data plane must still be there. */
uint64_t points_admitted_count(void);

#endif
