/*
 * A session that outlives its links: the fence, what is told, and what is carried.
 *
 *     place, land, consume   rsi_link_place, a transport's way, rsi_link_consume
 *     tell, check            what is told of the own in ring; rsi_link_resume_check
 *     carry_in, carry_out    rsi_link_carry
 *     client()               rsi_client_suspend, rsi_client_resume_poll, rsi_client_go_over
 *     take                   rsi_resume_take, hand_over
 *     broker()               rsi_resume_suspend, poll_fencing to poll_swapping, drop_next; the home agent's
 *                            SESSION_SUSPEND and SESSION_RESUME
 *
 * A client and a broker send to each other. Each side loses any link at any time by itself (the last
 * one not, so that there is an end), then closes it: that is the fence. Every attempt to resume may be
 * lost or given up at any step, and the broker may find it late. Each link is of one of two kinds: on
 * shm a frame is there as soon as it is placed; by messages it lands later, also long after the fence,
 * in the ring of the link on which it was sent. The reader sees what landed when it looks, or never.
 *
 * What must hold: every frame is read once and in order, none is overwritten before; no session ends
 * or is cut without need; when all stand still everything was read.
 *
 * LIAR: a client that tells any positions. Then only the broker's own memory is looked at.
 *
 * Must be refuted: TELL_BEFORE_FENCE, SHARED_RING, CARRY_FROM_PLACED, CARRY_SHOWS_HEAD, NO_CARRY_IN,
 * NO_TELL, CONSUMED_AS_TOLD, CHECK_ARRIVED (that A is not below what the writer knows as arrived: on
 * shm it knows more than the reader), NO_ATTEMPT (an old attempt is taken for the latest); with LIAR
 * NO_CHECK_CONSUMED, NO_CHECK_ARRIVED.
 */
#define CLIENT 0
#define BROKER 1
#ifndef FROM_CLIENT
#define FROM_CLIENT 3 /* frames that the client sends */
#endif
#ifndef FROM_BROKER
#define FROM_BROKER 0
#endif
#ifndef LINKS
#define LINKS 3
#endif
#define CAPACITY 2 /* frames that a ring holds */
#define NONE     LINKS

#define FRAMES(me) ((me) == CLIENT -> FROM_CLIENT : FROM_BROKER)

/* States of a link on one side. */
#define UNUSED   0
#define OPEN     1
#define ATTACHED 2
#define LOST     3
#define CLOSED   4

#define OF(side, link) ((side) * LINKS + (link))
byte state[2 * LINKS];
bit is_shm[LINKS];
bit is_asked[LINKS];    /* Authenticate was sent */
bit is_taken[LINKS];    /* and read */
bit is_answered[LINKS]; /* Welcome was sent */
bit has_attached[LINKS]; /* the client sent its attach record */
byte said_arrived[2 * LINKS];
byte said_consumed[2 * LINKS];

byte current[2];
byte next[2];
byte held_pos; /* what the broker had consumed when its link was closed: told in each attempt */
bit is_held;
byte latest; /* attempt that the broker took last: a link is the number of its attempt */

/* The writer, by its side. */
byte staged_pos[2];
byte placed_pos[2];
byte peer_consumed_pos[2];
/* The reader, by the side of the writer. */
byte arrived_pos[2];
byte consumed_pos[2];
byte read_count[2];
/* On the way from a side over a link. */
byte sent_pos[2 * LINKS];
byte landed_pos[2 * LINKS];
byte told_pos[2 * LINKS];

/* Rings that a side writes to, by link: 1 + position of the frame there. */
#ifdef SHARED_RING
#define RING(side, link, position) ring[(side) * CAPACITY + (position) % CAPACITY]
#else
#define RING(side, link, position) ring[OF(side, link) * CAPACITY + (position) % CAPACITY]
#endif
byte ring[2 * LINKS * CAPACITY];

bit is_over; /* the broker ended the session of a liar */

#ifdef LIAR
#define HONEST(side) ((side) == BROKER)
#else
#define HONEST(side) true
#endif

/* Links may be lost by themselves as long as there is another one. */
#define MAY_LOSE(link) ((link) + 1 < LINKS)

/* ---- data ------------------------------------------------------------------------------------ */

/* Of a pass, what concerns the frames that `me` sends. */
#define STAGE_GUARD \
    (staged_pos[me] < FRAMES(me) && staged_pos[me] - peer_consumed_pos[me] < CAPACITY)
#define PLACE_GUARD (state[OF(me, current[me])] == ATTACHED && placed_pos[me] < staged_pos[me])
#define LEARN_GUARD \
    (state[OF(me, current[me])] != CLOSED && told_pos[OF(me, current[me])] > peer_consumed_pos[me])
/* And those that it reads. */
#define ARRIVE_GUARD \
    (HONEST(me) && state[OF(me, current[me])] != CLOSED && \
     landed_pos[OF(peer, current[me])] > arrived_pos[peer])
#define CONSUME_GUARD (consumed_pos[peer] < arrived_pos[peer])

inline land(side, link)
{
    RING(side, link, landed_pos[OF(side, link)]) = landed_pos[OF(side, link)] + 1;
    landed_pos[OF(side, link)]++
}

inline place()
{
    /* The frame is still in the out ring. */
    assert(placed_pos[me] + CAPACITY >= staged_pos[me]);
    placed_pos[me]++;
    sent_pos[OF(me, current[me])] = placed_pos[me];
    if
    :: is_shm[current[me]] -> land(me, current[me])
    :: else
    fi
}

inline consume()
{
    if
    :: HONEST(peer) && HONEST(me) ->
        assert(RING(peer, current[me], consumed_pos[peer]) == consumed_pos[peer] + 1);
        assert(read_count[peer] == consumed_pos[peer])
    :: else
    fi;
    read_count[peer]++;
    consumed_pos[peer]++;
    if
    :: state[OF(me, current[me])] == ATTACHED ->
        told_pos[OF(peer, current[me])] = consumed_pos[peer]
    :: else
    fi
}

/* ---- from one link to the next --------------------------------------------------------------- */

inline tell(link)
{
    said_arrived[OF(me, link)] = arrived_pos[peer];
    said_consumed[OF(me, link)] = (me == BROKER -> held_pos : consumed_pos[peer]);
#ifdef LIAR
    if
    :: me == CLIENT ->
        if
        :: said_arrived[OF(me, link)] = 0
        :: said_arrived[OF(me, link)] = 1
        :: said_arrived[OF(me, link)] = 2
        :: said_arrived[OF(me, link)] = 3
        fi;
        if
        :: said_consumed[OF(me, link)] = 0
        :: said_consumed[OF(me, link)] = 1
        :: said_consumed[OF(me, link)] = 2
        :: said_consumed[OF(me, link)] = 3
        fi
    :: else
    fi
#endif
}

#if defined(NO_CHECK_CONSUMED)
#define IS_TRUE(arrived, consumed) ((consumed) <= (arrived) && (arrived) <= placed_pos[me])
#elif defined(NO_CHECK_ARRIVED)
#define IS_TRUE(arrived, consumed) (peer_consumed_pos[me] <= (consumed) && (consumed) <= (arrived))
#elif defined(CHECK_ARRIVED)
#define IS_TRUE(arrived, consumed) \
    ((is_shm[current[me]] -> placed_pos[me] : peer_consumed_pos[me]) <= (arrived) && \
     peer_consumed_pos[me] <= (consumed) && (consumed) <= (arrived) && (arrived) <= placed_pos[me])
#else
#define IS_TRUE(arrived, consumed) \
    (peer_consumed_pos[me] <= (consumed) && (consumed) <= (arrived) && (arrived) <= placed_pos[me])
#endif

inline check(link)
{
    if
    :: IS_TRUE(said_arrived[OF(peer, link)], said_consumed[OF(peer, link)])
    :: else ->
        assert(!HONEST(peer)); /* a session is lost for nothing */
        is_over = 1
    fi
}

inline carry_in(link)
{
    assert(arrived_pos[peer] == said_arrived[OF(me, link)]);
#ifdef CONSUMED_AS_TOLD
    consumed_pos[peer] = said_consumed[OF(me, link)];
#endif
    if
    :: consumed_pos[peer] < arrived_pos[peer] ->
        at = consumed_pos[peer];
        do
        :: at < arrived_pos[peer] ->
#ifndef NO_CARRY_IN
            RING(peer, link, at) = RING(peer, current[me], at);
#endif
            at++
        :: else -> break
        od;
        at = 0
    :: else
    fi;
#ifndef NO_TELL
    told_pos[OF(peer, link)] = consumed_pos[peer];
#endif
#ifndef SHARED_RING
    sent_pos[OF(peer, current[me])] = 0; /* what lands there from here on, nobody reads */
    landed_pos[OF(peer, current[me])] = 0
#endif
}

inline carry_out(link)
{
    /* All from there on is still in the old out ring. */
    assert(said_arrived[OF(peer, link)] <= placed_pos[me]);
    assert(said_consumed[OF(peer, link)] + CAPACITY >= staged_pos[me]);
#ifndef CARRY_FROM_PLACED
    placed_pos[me] = said_arrived[OF(peer, link)];
#endif
    peer_consumed_pos[me] = said_consumed[OF(peer, link)];
    sent_pos[OF(me, link)] = placed_pos[me];
#ifdef CARRY_SHOWS_HEAD
    landed_pos[OF(me, link)] = (is_shm[link] -> staged_pos[me] : placed_pos[me])
#else
    landed_pos[OF(me, link)] = placed_pos[me]
#endif
}

/* Zeroed again, after the peer may have looked. */
#ifdef CARRY_SHOWS_HEAD
#define HIDE_HEAD ; landed_pos[OF(me, current[me])] = placed_pos[me]
#else
#define HIDE_HEAD
#endif

inline change_over()
{
    if
    :: HONEST(me) -> carry_in(next[me])
    :: else
    fi;
    carry_out(next[me]);
    state[OF(me, next[me])] = ATTACHED;
    current[me] = next[me];
    next[me] = NONE
}

/* ---- the two sides --------------------------------------------------------------------------- */

#define LOSE_GUARD \
    (state[OF(me, current[me])] == ATTACHED && \
     (MAY_LOSE(current[me]) || state[OF(peer, current[me])] == CLOSED))
#define DROP_GUARD \
    (next[me] != NONE && (MAY_LOSE(next[me]) || state[OF(peer, next[me])] == CLOSED))
#ifdef TELL_BEFORE_FENCE
#define CAN_TELL (state[OF(me, current[me])] == LOST || state[OF(me, current[me])] == CLOSED)
#else
#define CAN_TELL (state[OF(me, current[me])] == CLOSED)
#endif

inline drop()
{
    state[OF(me, next[me])] = CLOSED;
    next[me] = NONE
}

proctype client()
{
    byte dialled;
    byte at;
    byte me = CLIENT;
    byte peer = BROKER;
end:
    do
    :: is_over -> break
    :: atomic { STAGE_GUARD -> staged_pos[me]++ }
    :: atomic { PLACE_GUARD -> place() }
    :: atomic { LEARN_GUARD -> peer_consumed_pos[me] = told_pos[OF(me, current[me])] }
    :: atomic { ARRIVE_GUARD -> arrived_pos[peer] = landed_pos[OF(peer, current[me])] }
    :: atomic { CONSUME_GUARD -> consume() }
    :: atomic { LOSE_GUARD -> state[OF(me, current[me])] = LOST }
    :: atomic { state[OF(me, current[me])] == LOST -> state[OF(me, current[me])] = CLOSED }
    :: atomic {
           next[me] == NONE && dialled + 1 < LINKS && CAN_TELL ->
           dialled++;
           next[me] = dialled;
           state[OF(me, dialled)] = OPEN;
           state[OF(peer, dialled)] = OPEN;
           tell(dialled);
           is_asked[dialled] = 1;
           if
           :: is_shm[dialled] = 1
           :: true
           fi
       }
    :: atomic { DROP_GUARD -> drop() }
    :: atomic {
           next[me] != NONE && state[OF(me, next[me])] == OPEN && is_answered[next[me]] ->
           check(next[me]);
           state[OF(me, next[me])] = ATTACHED;
           has_attached[next[me]] = 1
       }
    :: atomic { next[me] != NONE && state[OF(me, next[me])] == ATTACHED -> change_over() } HIDE_HEAD
    od
}

inline take(link)
{
    is_taken[link] = 1;
    if
    :: state[OF(peer, link)] == CLOSED -> state[OF(me, link)] = CLOSED /* its end came first */
#ifndef NO_ATTEMPT
    :: link < latest -> state[OF(me, link)] = CLOSED
    :: link > latest ->
#else
    :: true ->
#endif
        latest = link;
        if
        :: next[me] != NONE -> drop()
        :: else
        fi;
        next[me] = link;
        if
        :: state[OF(me, current[me])] == ATTACHED -> state[OF(me, current[me])] = LOST
        :: else
        fi
    fi
}

proctype broker()
{
    byte at;
    byte me = BROKER;
    byte peer = CLIENT;
end:
    do
    :: is_over -> break
    :: atomic { STAGE_GUARD -> staged_pos[me]++ }
    :: atomic { PLACE_GUARD -> place() }
    :: atomic { LEARN_GUARD -> peer_consumed_pos[me] = told_pos[OF(me, current[me])] }
    :: atomic { ARRIVE_GUARD -> arrived_pos[peer] = landed_pos[OF(peer, current[me])] }
    :: atomic { CONSUME_GUARD -> consume() }
    :: atomic { LOSE_GUARD -> state[OF(me, current[me])] = LOST }
    :: atomic { state[OF(me, current[me])] == LOST -> state[OF(me, current[me])] = CLOSED }
    :: atomic { is_asked[1] && !is_taken[1] -> take(1) }
    :: atomic { is_asked[2] && !is_taken[2] -> take(2) }
#if LINKS > 3
    :: atomic { is_asked[3] && !is_taken[3] -> take(3) }
#endif
    :: atomic {
           next[me] != NONE && !is_answered[next[me]] && is_held ->
           check(next[me]);
           if
           :: !is_over ->
               tell(next[me]);
               is_answered[next[me]] = 1
           :: else
           fi
       }
    :: atomic { DROP_GUARD -> drop() }
    :: atomic { CAN_TELL && !is_held -> held_pos = consumed_pos[peer]; is_held = 1 }
    :: atomic {
           next[me] != NONE && has_attached[next[me]] ->
           held_pos = 0;
           is_held = 0;
           change_over()
       } HIDE_HEAD
    od
}

#define LAND_GUARD(side, link) \
    (landed_pos[OF(side, link)] < sent_pos[OF(side, link)])

proctype wire(byte side)
{
end:
    do
    :: atomic { LAND_GUARD(side, 0) -> land(side, 0) }
    :: atomic { LAND_GUARD(side, 1) -> land(side, 1) }
    :: atomic { LAND_GUARD(side, 2) -> land(side, 2) }
#if LINKS > 3
    :: atomic { LAND_GUARD(side, 3) -> land(side, 3) }
#endif
    od
}

active proctype monitor()
{
    timeout;
    assert(is_over || !HONEST(CLIENT) ||
           (read_count[CLIENT] == FROM_CLIENT && read_count[BROKER] == FROM_BROKER));
end:
    false
}

init
{
    atomic {
        state[OF(CLIENT, 0)] = ATTACHED;
        state[OF(BROKER, 0)] = ATTACHED;
        next[CLIENT] = NONE;
        next[BROKER] = NONE;
        if
        :: is_shm[0] = 1
        :: true
        fi;
        run client();
        run broker();
        run wire(CLIENT);
        run wire(BROKER)
    }
}
