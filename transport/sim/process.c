/*
 * Several processes simulated in one: who made what, and how one of them dies.
 *
 * Design notes
 * - Nothing here is for threads that run beside it: a simulation runs one at a time, and a killed
 *   process stands nowhere inside a lock.
 * - A killed process is not taken apart. Its ends leave their wires, which is all that its peers
 * can see of it; what it had allocated is left as it lies.
 */
#include "transport/sim/sim.h"
#include "transport/sim/wire.h"

static struct {
    pthread_mutex_t lock; /* the list */
    struct sim_poller *pollers;
    _Atomic uint64_t process;
    _Atomic uint64_t seed;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

void rsi_sim_set_process(uint64_t process)
{
    rsi_store_relaxed(&all.process, process);
}

void rsi_sim_set_seed(uint64_t seed)
{
    rsi_store_relaxed(&all.seed, seed);
}

uint64_t sim_process(void)
{
    return rsi_load_relaxed(&all.process);
}

uint64_t sim_default_seed(void)
{
    return rsi_load_relaxed(&all.seed);
}

void sim_remember_poller(struct sim_poller *poller)
{
    poller->process = sim_process();
    pthread_mutex_lock(&all.lock);
    poller->next = all.pollers;
    all.pollers = poller;
    pthread_mutex_unlock(&all.lock);
}

/* It is not there if its process was killed. */
void sim_forget_poller(struct sim_poller *poller)
{
    pthread_mutex_lock(&all.lock);
    struct sim_poller **place = &all.pollers;
    while (*place != NULL && *place != poller) {
        place = &(*place)->next;
    }
    if (*place == poller) {
        *place = poller->next;
    }
    pthread_mutex_unlock(&all.lock);
}

uint32_t rsi_sim_cut_process(uint64_t process, uint64_t ticks)
{
    uint32_t count = 0;
    pthread_mutex_lock(&all.lock);
    for (struct sim_poller *poller = all.pollers; poller != NULL; poller = poller->next) {
        for (struct sim_link *link = poller->links; link != NULL && poller->process == process;
             link = link->next) {
            rsi_sim_cut(&link->link, ticks);
            count++;
        }
    }
    pthread_mutex_unlock(&all.lock);
    return count;
}

static void kill_end(struct sim_link *sim, bool is_noticed)
{
    struct sim_wire *wire = sim->wire;
    pthread_mutex_lock(&wire->lock);
    struct sim_end *own = sim_own_end(sim);
    own->link = NULL;
    own->poller = NULL;
    own->domain = NULL;
    if (is_noticed) {
        sim_sent(sim)->has_ended = true;
        sim_sent(sim)->has_died = true;
    } else {
        wire->cut_tick = wire->tick;
    }
    sim_wake_end(sim_peer_end(sim));
    sim_tell_domain(sim_peer_end(sim));
    pthread_mutex_unlock(&wire->lock);
}

void rsi_sim_kill_process(uint64_t process, bool is_noticed)
{
    sim_kill_listeners(process);
    pthread_mutex_lock(&all.lock);
    struct sim_poller **place = &all.pollers;
    while (*place != NULL) {
        struct sim_poller *poller = *place;
        if (poller->process != process) {
            place = &poller->next;
            continue;
        }
        *place = poller->next;
        for (struct sim_link *link = poller->links; link != NULL; link = link->next) {
            kill_end(link, is_noticed);
        }
    }
    pthread_mutex_unlock(&all.lock);
}
