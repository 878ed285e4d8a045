/*
 * Sleep and wake on shm: two sides that send to each other through rings, and sleep in between.
 *
 *     pass          poll_link: receive_packets, take_wake, walk, refresh_consumed;
 *                   rsi_shm_place, rsi_shm_flush, rsi_shm_publish_consumed
 *     look_at_sleeper, ask, has_work, rsi_shm_poller_arm, rsi_shm_request_wake
 *                   as in transport/shm/datapath.c; request_room of broker/data_agent.c
 *
 * What must hold: when all stand still, everything was sent and read (no lost wake-up); each answer
 * is to a request that is unanswered; both sides come to rest (nobody wakes the other for nothing in
 * an endless turn). The socket has room for one packet: a full socket counts as an answer.
 *
 * Memory: each side has a store buffer in order (x86-TSO; the conditions of a request and its
 * generation keep their order by the release store on weaker ones). A fence waits until it is empty.
 *
 * Must be refuted: NO_FENCE_ARM, NO_FENCE_FLUSH, NO_FENCE_CONSUMED, NO_LAST_LOOK, NO_REFRESH,
 * ANSWER_TWICE; WAKE_FOR_NOTHING (by its endless loop).
 */
#define FRAMES(side) (2 - (side)) /* that a side sends: enough for a full ring, and for an answer */
#define CAPACITY 1 /* frames that a ring holds */
#define NEVER    255
#define LAP      8 /* generations are counted in a circle: no more than two are open at a time */

/* Written by one side each, by the number of the side. */
byte placed_pos[2]; /* stands for the commit words in its out ring: ring.pml */
byte consumed_pos[2];
byte arrived_at_least[2];
byte consumed_at_least[2];
byte generation[2];

#define PLACED            0
#define CONSUMED          1
#define ARRIVED_AT_LEAST  2
#define CONSUMED_AT_LEAST 3
#define GENERATION        4
chan buffer[2] = [4] of { byte, byte };
chan socket[2] = [1] of { byte }; /* WAKE packets to that side */

/* Known to the model only. */
byte read_count[2];

#define FENCE(me)               empty(buffer[me])
#define STORE(me, what, number) buffer[me] ! what, number

proctype memory(byte owner)
{
    byte value;
end:
    do
    :: atomic { buffer[owner] ? PLACED, value -> placed_pos[owner] = value; value = 0 }
    :: atomic { buffer[owner] ? CONSUMED, value -> consumed_pos[owner] = value; value = 0 }
    :: atomic {
           buffer[owner] ? ARRIVED_AT_LEAST, value -> arrived_at_least[owner] = value;
           value = 0
       }
    :: atomic {
           buffer[owner] ? CONSUMED_AT_LEAST, value -> consumed_at_least[owner] = value;
           value = 0
       }
    :: atomic { buffer[owner] ? GENERATION, value -> generation[owner] = value; value = 0 }
    od
}

inline look_at_sleeper()
{
    number = generation[peer];
    if
#ifdef ANSWER_TWICE
    :: number != 0 ->
#else
    :: number != answered_generation ->
#endif
        arrived = arrived_at_least[peer];
        atomic {
            if
#ifdef WAKE_FOR_NOTHING
            :: true ->
#else
            :: arrived <= staged_pos || consumed_at_least[peer] <= published_consumed_pos ->
#endif
                answered_generation = number;
                if
                :: nfull(socket[peer]) -> socket[peer] ! number
                :: full(socket[peer])
                fi
            :: else
            fi;
            arrived = 0
        }
    :: else
    fi;
    number = 0
}

inline publish_consumed()
{
    published_consumed_pos = used_pos;
    STORE(me, CONSUMED, used_pos)
}

inline publish_consumed_and_look()
{
    publish_consumed();
#ifndef NO_FENCE_CONSUMED
    FENCE(me);
#endif
    look_at_sleeper()
}

inline refresh_consumed()
{
    atomic {
        if
        :: consumed_pos[peer] != peer_consumed_pos ->
            peer_consumed_pos = consumed_pos[peer];
            has_news = 1
        :: else
        fi;
        if
        :: peer_consumed_pos >= wanted_consumed_pos ->
            wanted_consumed_pos = NEVER;
            has_news = 1
        :: else
        fi
    }
}

/* Takes a packet, if there is one; after a wait it must, before it need not have heard the bell. */
inline receive_packet()
{
    atomic {
        if
        :: socket[me] ? number ->
            assert((number - own_answered + LAP) % LAP != 0);
            assert((number - own_answered + LAP) % LAP <= (own_generation - own_answered + LAP) % LAP);
            own_answered = number;
            number = 0;
            is_busy = 1
        :: empty(socket[me]) || !has_waited
        fi;
        has_waited = 0
    }
}

inline pass()
{
    is_busy = 0;
    receive_packet();
    atomic { /* walk */
        if
        :: placed_pos[peer] > arrived_pos ->
            arrived_pos = placed_pos[peer];
            is_busy = 1
        :: else
        fi
    }
    if
    :: (staged_pos - peer_consumed_pos) * 2 >= CAPACITY || wanted_consumed_pos != NEVER ->
        refresh_consumed()
    :: else
    fi;
    atomic {
        if
        :: has_news -> has_news = 0; is_busy = 1
        :: else
        fi
    }
    if
    :: published_consumed_pos != used_pos -> publish_consumed_and_look()
    :: else
    fi;
    do /* the layer above reads, and gives back; small amounts wait for the next pass or sleep */
    :: used_pos < arrived_pos ->
progress_read:
        atomic { used_pos++; read_count[me] = used_pos }
        if
        :: publish_consumed_and_look()
        :: true
        fi
    :: else -> break
    od;
    if /* and sends, at the latest when it has nothing else to do */
    :: staged_pos < FRAMES(me) && staged_pos - peer_consumed_pos < CAPACITY ->
progress_sent:
        is_busy = 1;
        staged_pos++;
        STORE(me, PLACED, staged_pos);
#ifndef NO_FENCE_FLUSH
        FENCE(me);
#endif
        look_at_sleeper()
    :: staged_pos == FRAMES(me) || staged_pos - peer_consumed_pos == CAPACITY || is_busy
    fi
}

inline ask()
{
    if
    :: published_consumed_pos != used_pos -> publish_consumed()
    :: else
    fi;
    if
    :: own_generation != own_answered && asked_arrived == arrived_pos + 1 &&
           asked_consumed == wanted_consumed_pos
    :: else ->
        asked_arrived = arrived_pos + 1;
        asked_consumed = wanted_consumed_pos;
        own_generation = (own_generation + 1) % LAP;
        STORE(me, ARRIVED_AT_LEAST, asked_arrived);
        STORE(me, CONSUMED_AT_LEAST, asked_consumed);
        STORE(me, GENERATION, own_generation)
    fi
}

inline sleep_until_work()
{
    if /* request_room: the one frame is read */
    :: staged_pos < FRAMES(me) ->
        wanted_consumed_pos = staged_pos;
        refresh_consumed()
    :: else
    fi;
    ask();
#ifndef NO_FENCE_ARM
    FENCE(me);
#endif
    look_at_sleeper();
#ifndef NO_REFRESH
    if
    :: wanted_consumed_pos != NEVER -> refresh_consumed()
    :: else
    fi;
#endif
    if
    :: has_news
#ifndef NO_LAST_LOOK
    :: !has_news && placed_pos[peer] > arrived_pos
    :: !has_news && placed_pos[peer] <= arrived_pos ->
#else
    :: !has_news ->
#endif
end_wait:
        nempty(socket[me]);
        has_waited = 1
    fi
}

proctype side(byte me)
{
    byte peer = 1 - me;
    byte staged_pos; /* also placed_pos of the link */
    byte peer_consumed_pos;
    byte wanted_consumed_pos = NEVER;
    byte arrived_pos;
    byte used_pos; /* consumed_pos of the link */
    byte published_consumed_pos;
    byte own_generation;
    byte own_answered;
    byte asked_arrived;
    byte asked_consumed;
    byte answered_generation;
    byte number;
    byte arrived;
    bit has_news;
    bit has_waited;
    bit is_busy;
    do
    :: pass();
       if
       :: is_busy
       :: !is_busy -> sleep_until_work()
       fi
    od
}

active proctype monitor()
{
    timeout;
    assert(read_count[0] == FRAMES(1) && read_count[1] == FRAMES(0));
end:
    false
}

init
{
    atomic {
        run memory(0);
        run memory(1);
        run side(0);
        run side(1)
    }
}
