/*
 * A wire with the broker at one end and a client at the other, which can be cut without a word: for
 * tcp a veth pair between two network namespaces of the test, for rdma the one of the soft-RoCE
 * machine, for dpdk the broker's port of the bridge that joins the namespaces (tests/dpdk/netns),
 * or of the switch (tests/dpdk/switched), where down is no more than silent.
 */
#ifndef RSI_TESTS_FAULT_WIRE_H
#define RSI_TESTS_FAULT_WIRE_H

#include "tests/system/harness.h"

enum wire_cut {
    WIRE_SILENT, /* nothing comes through any more, and nobody is told */
    WIRE_DOWN,   /* the broker's port is down, as when a cable is pulled; not in the machine */
    WIRE_BYPASS, /* silent for what bypasses the kernel only, tcp goes on; rdma and dpdk */
};

/* In the test's process, before the broker is started. False: this user may not. */
bool wire_make(void);
/* The broker's end. */
const char *wire_broker_host(void);
/* In an actor, before it connects: from now on it is at the client's end. Over dpdk it is already.
 */
void wire_enter_client_end(void);
void wire_cut(enum wire_cut cut);
void wire_mend(enum wire_cut cut);

#endif
