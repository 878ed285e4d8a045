/*
 * Hooks of the simulated transport for tests. Whoever includes this is a test.
 */
#ifndef RSI_TRANSPORT_SIM_SIM_H
#define RSI_TRANSPORT_SIM_SIM_H

#include "transport/transport.h"

/*
 * Cuts the wire under a sim link: after `ticks` more polls of either side (0: now) nothing passes
 * any more in either direction, and both sides become LOST as soon as they are polled. Any thread.
 */
void rsi_sim_cut(struct rsi_link *link, uint64_t ticks);

/*
 * The other side of a sim link finds that the process of this side was killed: it takes what waits
 * on the control lane, then it is LOST with peer_has_ended. Any thread; this side is only closed
 * after it.
 */
void rsi_sim_die(struct rsi_link *link);

#endif
