/*
 * A wire with the broker at one end and a client at the other, which can be cut without a word: for
 * tcp a veth pair between two network namespaces of the test, for rdma the one of the soft-RoCE
 * machine.
 */
#ifndef RSI_TESTS_FAULT_WIRE_H
#define RSI_TESTS_FAULT_WIRE_H

#include "tests/system/harness.h"

enum wire_cut {
    WIRE_SILENT, /* nothing comes through any more, and nobody is told */
    WIRE_DOWN,   /* the broker's port is down, as when a cable is pulled; not in the machine */
    WIRE_ROCE,   /* silent for rdma only, tcp goes on; in the machine */
};

/* In the test's process, before the broker is started. False: this user may not. */
bool wire_make(void);
/* "10.77.0.1": the broker's end. */
const char *wire_broker_host(void);
/* In an actor, before it connects: from now on it is at the client's end. */
void wire_enter_client_end(void);
void wire_cut(enum wire_cut cut);
void wire_mend(enum wire_cut cut);

#endif
