/*
 * core/waker: one thread that sleeps in epoll, two that give it work.
 *
 *     sleeper()   rsi_waker_prepare, a last look, epoll_wait, rsi_waker_finish
 *     giver()     publish work, rsi_waker_wake
 *
 * What must hold: no work is left when all stand still (no lost wake-up), and the sleeper's loop
 * comes to an end when there is no more work (a late wake-up is drained, nobody spins).
 *
 * Memory: each thread has a store buffer in order (x86-TSO). A fence, an exchange and a system call
 * of the sleeper wait until it is empty.
 *
 * Must be refuted: NO_FENCE_PREPARE, NO_FENCE_WAKE, NO_LAST_LOOK; NO_DRAIN (by its endless loop).
 */
#define GIVERS 2
#define THREADS 3 /* with the sleeper, the last */
#define GIFTS  2 /* of each giver */

byte work[GIVERS]; /* counts what each has published */
byte done[GIVERS];
bit sleeping;
bit event; /* the eventfd has a count */

#define WORK     1
#define SLEEPING 2
chan buffer[THREADS] = [2] of { byte, byte };

#define FENCE(me) empty(buffer[me])

proctype memory(byte owner)
{
    byte value;
end:
    do
    :: atomic { buffer[owner] ? WORK, value -> work[owner] = value; value = 0 }
    :: atomic { buffer[owner] ? SLEEPING, value -> sleeping = value; value = 0 }
    od
}

inline rsi_waker_wake(me)
{
#ifndef NO_FENCE_WAKE
    FENCE(me);
#endif
    if
    :: sleeping ->
        atomic { FENCE(me); was_sleeping = sleeping; sleeping = 0 } /* exchange */
        if
        :: was_sleeping -> event = 1; was_sleeping = 0 /* however late */
        :: else
        fi
    :: !sleeping
    fi
}

proctype giver(byte me)
{
    byte given;
    bit was_sleeping;
    do
    :: given < GIFTS ->
        given++;
        buffer[me] ! WORK, given;
        rsi_waker_wake(me)
    :: else -> break
    od
}

#define HAS_WORK (work[0] != done[0] || work[1] != done[1])

proctype sleeper()
{
    do
    :: atomic { work[0] != done[0] -> done[0] = work[0] }; progress_0: skip
    :: atomic { work[1] != done[1] -> done[1] = work[1] }; progress_1: skip
    :: !HAS_WORK ->
        buffer[GIVERS] ! SLEEPING, 1;
#ifndef NO_FENCE_PREPARE
        FENCE(GIVERS);
#endif
        if
#ifndef NO_LAST_LOOK
        :: HAS_WORK
        :: !HAS_WORK ->
#else
        :: true ->
#endif
end_wait:
            event
        fi;
        buffer[GIVERS] ! SLEEPING, 0;
#ifndef NO_DRAIN
        event = 0
#endif
    od
}

active proctype monitor()
{
    timeout;
    assert(done[0] == GIFTS && done[1] == GIFTS);
end:
    false
}

init
{
    atomic {
        run memory(0);
        run memory(1);
        run memory(2);
        run giver(0);
        run giver(1);
        run sleeper()
    }
}
