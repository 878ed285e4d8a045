/*
 * One run: a broker, some clients that do as chance says, and a director who makes faults.
 */
#ifndef RSI_SIMULATION_SIMULATION_H
#define RSI_SIMULATION_SIMULATION_H

#include "tests/simulation/oracle.h"
#include "tests/simulation/world.h"

#define SIMULATION_URL         "sim://world"
#define SIMULATION_ACTORS_MAX  8u
#define SIMULATION_PATIENCE_NS UINT64_C(20000000000) /* of a call that must succeed */

enum fault {
    FAULT_CLIENT_STOPPED,
    FAULT_CLIENT_KILLED,
    FAULT_LINK_CUT,
    FAULT_CONSUMER_SLOW,  /* by the client itself */
    FAULT_BROKER_STALLED, /* stopped for a while, as by SIGSTOP */
    FAULT_BROKER_STOPPED, /* in order, and another one started */
    FAULT_BROKER_KILLED,
    FAULT_NO_DESCRIPTOR, /* a client asked for one and got none */
    FAULT_COUNT,
};
extern const char *const fault_names[FAULT_COUNT];

/* What the seed decided for a whole run. */
struct simulation {
    uint64_t seed;
    uint32_t fault_count; /* to make */
    uint32_t agent_count;
    uint32_t actor_count;
    uint32_t policy_mask; /* that clients may choose from */
    bool has_broker_faults;
    bool has_many_broker_deaths;
    bool has_better_transport; /* clients find it now and then, and change to it */
    bool lacks_descriptors;    /* clients are refused some */
    bool is_grace_short;       /* a session without a link may be given up before it has another */
    /* State. */
    bool is_settling;       /* no more faults: everybody comes to an end */
    bool broker_is_ending;  /* its sessions may end */
    uint64_t broker_faults; /* stalls, stops, kills: a call that one falls into may fail */
    uint64_t faults[FAULT_COUNT];
};
extern struct simulation simulation;

/* The whole run; as world_run's main. */
void director_main(void *arg);
void director_count(enum fault fault);

/* When settling: what the actor in that slot published has arrived / what everybody did. */
void director_note_flushed(uint32_t slot);
bool director_all_are_flushed(void);

/* Whether the running process is to be refused a descriptor; counts it. */
bool director_refuses_descriptor(void);

/* A client process in a slot: the actor's own life. */
void actor_main(void *arg);
/* The director did something to the process in this slot. */
void actor_note_fault(uint32_t slot);

#endif
