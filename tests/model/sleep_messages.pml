/*
 * Sleep and wake on transports that send messages: tcp, rdma. What comes wakes by itself; what the peer
 * consumed, or that something arrived there, is told when it suits, or when it was asked for.
 *
 *     receive   take_record of transport/tcp/receive.c, on_wake_request and on_wake of rdma/lane.c
 *     answer    rsi_tcp_wake_is_due and compose_small, rsi_rdma_lane_answer
 *     report    rsi_tcp_report_is_due, rsi_rdma_tell_words
 *     ask       rsi_tcp_request_wake, rsi_rdma_request_wake, rsi_rdma_lane_ask
 *     pass, sleep_until_work
 *               the layer above: it sends when there is room, and in the end wants to know that all has
 *               arrived (ringside_flush)
 *
 * Two sides send to each other, and read nothing until they like. A request {arrived at least, consumed at least} with a generation is
 * kept by the peer, the latest only, and answered once: when it becomes true, or at once.
 *
 * What must hold: when all stand still everything was sent and read, and each side knows that it
 * arrived (no lost wake-up); both come to rest (no endless turn in which each wakes the other).
 *
 * PAUSED: the applications never read; the two sides must come to rest all the same.
 *
 * ANY_ANSWER: an answer to an older request closes the latest, which is then asked again. So does tcp;
 * rdma looks at the generation. Both hold.
 *
 * Must be refuted: NO_REQUEST, NO_ANSWER_ON_ARRIVAL, CONSUMED_ONLY (arrived is not looked at);
 * ASK_EACH_TIME (also what is asked already) and WAKE_FOR_NOTHING (by their endless loops).
 */
#ifndef SENDS
#define SENDS 2 /* frames of side 0 */
#endif
#ifndef ANSWERS
#define ANSWERS 1 /* of side 1 */
#endif
#define FRAMES(side) ((side) == 0 -> SENDS : ANSWERS)
#define CAPACITY 1 /* frames that a ring holds */
#define NEVER    255
#define LAP      4 /* generations are counted in a circle: two are under way at most */

mtype = { BATCH, POSITIONS, REQUEST, WAKE };

/* To each side: kind; generation; arrived or arrived at least; consumed or consumed at least. */
#ifndef WIRE
#define WIRE 6 /* more than is ever under way */
#endif
chan wire[2] = [WIRE] of { mtype, byte, byte, byte };

bit may_read[2]; /* the application has begun to read */

/* Known to the model only. */
byte read_count[2];
byte known_count[2];

inline take_positions()
{
    assert(arrived >= peer_arrived_pos && consumed >= peer_consumed_pos);
    peer_arrived_pos = arrived;
    peer_consumed_pos = consumed;
    known_count[me] = arrived
}

inline take_record()
{
    atomic {
        wire[me] ? kind, generation, arrived, consumed;
        is_busy = 1;
        if
        :: kind == BATCH ->
            arrived_pos++;
            has_moved = 1
        :: kind == POSITIONS -> take_positions()
        :: kind == REQUEST ->
            wanted_generation = generation;
            wanted_arrived = arrived;
            wanted_consumed = consumed
        :: kind == WAKE ->
#ifdef ANY_ANSWER
            is_open = 0;
#else
            is_open = is_open && generation != own_generation;
#endif
            take_positions()
        fi;
        kind = 0;
        generation = 0;
        arrived = 0;
        consumed = 0
    }
}

#if defined(WAKE_FOR_NOTHING)
#define IS_TRUE true
#elif defined(CONSUMED_ONLY)
#define IS_TRUE (used_pos >= wanted_consumed)
#else
#define IS_TRUE (arrived_pos >= wanted_arrived || used_pos >= wanted_consumed)
#endif

inline report(kind_of_record, number)
{
    wire[peer] ! kind_of_record, number, arrived_pos, used_pos;
    reported_arrived = arrived_pos;
    reported_consumed = used_pos
}

inline answer()
{
    atomic {
        if
#ifdef NO_ANSWER_ON_ARRIVAL
        :: wanted_generation != 0 && IS_TRUE && has_moved ->
#else
        :: wanted_generation != 0 && IS_TRUE ->
#endif
            report(WAKE, wanted_generation);
            wanted_generation = 0;
            wanted_arrived = 0;
            wanted_consumed = 0
        :: else
        fi;
        has_moved = 0
    }
}

#define HAS_ROOM (staged_pos - peer_consumed_pos < CAPACITY)

inline pass()
{
    is_busy = 0;
    do /* a pass takes a share */
    :: nempty(wire[me]) -> take_record()
    :: empty(wire[me]) || is_busy -> break
    od;
    do
    :: may_read[me] && used_pos < arrived_pos ->
progress_read:
        atomic {
            used_pos++;
            read_count[me] = used_pos;
            has_moved = 1;
            is_busy = 1
        }
    :: !may_read[me] || used_pos == arrived_pos -> break
    od;
    answer();
    atomic {
        if /* by amount, or with something else */
        :: reported_arrived != arrived_pos || reported_consumed != used_pos -> report(POSITIONS, 0)
        :: true
        fi
    }
    if
    :: staged_pos < FRAMES(me) && HAS_ROOM ->
progress_sent:
        atomic {
            staged_pos++;
            is_busy = 1;
            wire[peer] ! BATCH, 0, 0, 0
        }
    :: else
    fi
}

#define WANTED_CONSUMED (staged_pos < FRAMES(me) -> staged_pos : NEVER)
#define WANTED_ARRIVED \
    (staged_pos == FRAMES(me) && peer_arrived_pos < staged_pos -> staged_pos : NEVER)

inline ask()
{
    atomic {
#ifndef NO_REQUEST
        if
        :: WANTED_CONSUMED == NEVER && WANTED_ARRIVED == NEVER
#ifndef ASK_EACH_TIME
        :: is_open && asked_arrived == WANTED_ARRIVED && asked_consumed == WANTED_CONSUMED
#endif
        :: else ->
#ifndef ASK_EACH_TIME
            own_generation = own_generation % (LAP - 1) + 1;
#else
            own_generation = 1;
#endif
            asked_arrived = WANTED_ARRIVED;
            asked_consumed = WANTED_CONSUMED;
            is_open = 1;
            wire[peer] ! REQUEST, own_generation, asked_arrived, asked_consumed
        fi
#else
        skip
#endif
    }
}

proctype side(byte me)
{
    byte peer = 1 - me;
    byte staged_pos;
    byte peer_arrived_pos;
    byte peer_consumed_pos;
    byte arrived_pos;
    byte used_pos;
    byte reported_arrived;
    byte reported_consumed;
    byte own_generation;
    byte asked_arrived;
    byte asked_consumed;
    byte wanted_generation;
    byte wanted_arrived;
    byte wanted_consumed;
    bit is_open;
    bit is_busy;
    bit has_moved;
    mtype kind;
    byte generation;
    byte arrived;
    byte consumed;
    do
    :: pass();
       if
       :: is_busy
       :: !is_busy && staged_pos < FRAMES(me) && HAS_ROOM
       :: !is_busy && (staged_pos == FRAMES(me) || !HAS_ROOM) ->
           ask();
end_wait:
           nempty(wire[me]) || (may_read[me] && used_pos < arrived_pos)
       fi
    od
}

proctype application(byte me)
{
#ifndef PAUSED
    may_read[me] = 1
#else
    skip
#endif
}

active proctype monitor()
{
    timeout;
#ifndef PAUSED
    assert(read_count[0] == FRAMES(1) && read_count[1] == FRAMES(0));
    assert(known_count[0] == FRAMES(0) && known_count[1] == FRAMES(1));
#endif
end:
    false
}

init
{
    atomic {
        run side(0);
        run side(1);
        run application(0);
        run application(1)
    }
}
