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

/*
 * For simulations of several processes in one: everything made from here on (domains, pollers,
 * listeners, the ends of wires) is process `process`'s; 0 at first.
 */
void rsi_sim_set_process(uint64_t process);
/* Cuts every wire that a process has an end of, as rsi_sim_cut. Returns how many. */
uint32_t rsi_sim_cut_process(uint64_t process, uint64_t ticks);
/*
 * The process was killed; no thread of it runs any more. Its listeners are gone and its ends leave
 * their wires without a word, what it had placed with them. `is_noticed`: the other ends see it as
 * after rsi_sim_die; else they find their wires cut. Its memory is left alone.
 */
void rsi_sim_kill_process(uint64_t process, bool is_noticed);
/* The seed of domains that were made with none. */
void rsi_sim_set_seed(uint64_t seed);

#endif
