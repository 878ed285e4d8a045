/*
 * Design notes
 * - All randomness of a wire comes from one generator (splitmix64) that is only advanced under the
 *   wire's lock; how often it is advanced depends on nothing but the order of calls.
 */
#include "transport/sim/wire.h"

#include "core/assert.h"

#include <stdlib.h>
#include <unistd.h>

uint64_t sim_random(struct sim_wire *wire, uint64_t bound)
{
    rsi_assert(bound > 0);
    wire->random += 0x9e3779b97f4a7c15ull;
    uint64_t mixed = wire->random;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9ull;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebull;
    return (mixed ^ mixed >> 31) % bound;
}

uint64_t sim_due_tick(struct sim_wire *wire)
{
    return wire->tick + sim_random(wire, SIM_DELAY_TICKS_MAX + 1);
}

void sim_wake_end(struct sim_end *end)
{
    if (end->poller != NULL) {
        rsi_waker_wake(&end->poller->waker);
    }
}

void sim_tell_domain(struct sim_end *end)
{
    if (end->domain != NULL) {
        uint64_t one = 1;
        ssize_t written = write(end->domain->event_fd, &one, sizeof(one));
        (void)written; /* full: it is readable already */
    }
}

struct sim_wire *sim_wire_create(uint64_t seed)
{
    struct sim_wire *wire = calloc(1, sizeof(*wire));
    if (wire == NULL) {
        return NULL;
    }
    pthread_mutex_init(&wire->lock, NULL);
    wire->reference_count = 1;
    wire->random = seed;
    wire->cut_tick = UINT64_MAX;
    for (uint32_t i = 0; i < 2; i++) {
        wire->ends[i].wake_peer_arrived_at_least = UINT64_MAX;
        wire->ends[i].wake_peer_consumed_at_least = UINT64_MAX;
        wire->ends[i].flush_arrived_at_least = UINT64_MAX;
    }
    return wire;
}

void sim_wire_release(struct sim_wire *wire)
{
    pthread_mutex_lock(&wire->lock);
    bool is_last = --wire->reference_count == 0;
    pthread_mutex_unlock(&wire->lock);
    if (is_last) {
        pthread_mutex_destroy(&wire->lock);
        free(wire);
    }
}
