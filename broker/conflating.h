/*
 * Policy conflate: a session that has no room gets the newest value of a topic instead of all.
 *
 * Design notes
 * - Only topics with a last value (last_values.h) can be conflated, because the value to be sent is
 *   the store's: the session keeps none. While its ring has room the session gets everything.
 * - A frame that finds no room is *missed*: noted per publication, as first and next sequence, and
 *   its topic stands in a queue. While a topic stands there all its frames are missed. When there
 * is room, topics are served in the order in which they came into the queue: what was left out,
 * told as a gap of reason CONFLATED per publication, and then the value, an ordinary message. So no
 *   topic waits longer than the others, and what is told and what is delivered is all that was
 *   published, exactly.
 * - Such a session has no cursor of its own and no spill; a client does not ask for policies block
 *   and conflate both. What else it subscribes to has no value to wait for: without room it is left
 *   out at once.
 * - Everything is sized when the session first asks for the policy.
 */
#ifndef RSI_BROKER_CONFLATING_H
#define RSI_BROKER_CONFLATING_H

#include <stdbool.h>
#include <stdint.h>

/* What is left out of one publication. */
struct rsi_missed {
    uint64_t first_sequence;
    uint64_t next_sequence; /* first after it; 0: nothing is missed */
    uint32_t link;          /* 1 + slot of the next publication of the topic; 0: none */
};

/* The home agent's, made by the control agent. */
struct rsi_conflating {
    uint32_t *queue;     /* of slots of the store */
    uint32_t queue_mask; /* its size is a power of two, with a place for every slot */
    uint64_t head;
    uint64_t tail;
    uint64_t *is_queued;       /* bit per slot of the store */
    uint32_t *first_missed;    /* per slot of the store: 1 + publication slot; 0: none */
    struct rsi_missed *missed; /* per publication slot */
    uint32_t slot_count;       /* of the store */
};

static inline bool rsi_conflating_is_empty(const struct rsi_conflating *conflating)
{
    return conflating->head == conflating->tail;
}

#endif
