/*
 * Policy block with two data agents: spill, bounded admission, queues of waiting publishers and turns.
 *
 *     look, act        rsi_agent_admit, rsi_blocking_admits, rsi_blocking_ends_turn
 *     join, leave_queue, go_last, step_aside, tell_first
 *                      as in broker/blocking.c
 *     serve            rsi_agent_drain_spill, rsi_agent_walk, rsi_agent_hold_back,
 *                      rsi_blocking_fill and _relieve
 *     publish_walked   rsi_agent_publish_needed
 *     watch, leave     rsi_blocking_watch and _release; a session that leaves or is ended as slow
 *     agent            rsi_agent_pass, sleep_until_work, has_unwatched_work
 *
 * Each agent is home of one session under block, and of publishers whose frames are there from the
 * start. Publisher 0 is needed by both sessions, 1 by session 0, 2 by session 1. The sessions read
 * when they like.
 *
 * What must hold: a spill keeps its bound; each session gets the frames of each publisher once and in
 * order; while a session lets publishers go in turns, nobody passes a waiting one more than twice (its
 * turn, and what it had looked at before); no deadlock, no lost wake-up: in the end all is delivered.
 * STOPS=n: session n stops reading at any time, and all that it does not need goes on; with TIMEOUT
 * it is ended when publishers wait for it, and then all goes on. LEAVE: session 0 leaves at any time.
 *
 * Memory: in program order, but NO_FENCE_RELIEVE lets the look at who waits pass the store before it.
 * A place in a queue is a rank here, a time there. A wait stands for the waker and the links' wake-ups.
 *
 * Not shown: that the next in a queue must be woken when one leaves it for another queue. With two
 * agents some other wake-up always comes as well.
 *
 * Must be refuted: WALKED_FIRST (a session is full after it said how far it walked), LOOK_FIRST (at the
 * sessions, then at the walked positions), NO_AHEAD, PAST_SPILL, NO_WAKE_ON_RELIEVE, NO_FENCE_RELIEVE,
 * NO_LAST_LOOK, HOLD_ALL (also who is not needed), NO_TURNS, KEEP_PLACE, NO_WAKE_HOME, NO_WAKE_ON_LEAVE.
 */
#ifndef FIRST
#define FIRST 2 /* frames of publisher 0 */
#endif
#ifndef SECOND
#define SECOND 2
#endif
#ifndef THIRD
#define THIRD 2
#endif
#define MESSAGES(publisher) ((publisher) == 0 -> FIRST : ((publisher) == 1 -> SECOND : THIRD))
#define RING       1 /* frames that a session's ring holds */
#define AHEAD      1 /* frames that an agent admits ahead of the lowest walk */
#ifndef HIGH
#define HIGH 0 /* frames in the spill above which a session is blocked */
#endif
#define LOW        0 /* and down to which it stays so */
#define SPILL      (HIGH + 2 * AHEAD)
#define PUBLISHERS 3
#define LOG        2
#define NEVER      255

#define HOME(publisher)           ((publisher) == 0 -> 0 : 1)
#define NEEDS(session, publisher) ((publisher) == 0 || (publisher) == (session) + 1)
#define IS_NEEDED(session, publisher) (!has_left[session] && NEEDS(session, publisher))

#define FRAME(publisher, number) ((publisher) * 8 + (number))

/* By log: written by its agent. */
byte log_frame[2 * LOG];
byte end_pos[2];
/* By agent and log. */
#define OF(agent, number) ((agent) * 2 + (number))
byte walked_pos[4];
bit wants_room[2];
bit event[2];

/* By session: written by its home agent. */
#define FREE  0
#define TURNS 1
#define FULL  2
byte state[2];
byte relieved[2]; /* the last place when it had room again */
bit has_left[2];
/* By agent and session: written by that agent: the first place of its publishers; 0: nobody waits. */
byte side[4];

chan ring[2] = [RING] of { byte };
chan spill[2] = [SPILL + 2] of { byte };

/* By publisher: written by its home agent. */
byte sent[PUBLISHERS];
byte place[PUBLISHERS];
byte by[PUBLISHERS]; /* 1 + the session in whose queue it stands */
bit is_waiting[PUBLISHERS];

/* Known to the model only. */
byte got[2 * PUBLISHERS]; /* by session and publisher */
byte passed[PUBLISHERS * PUBLISHERS]; /* frames of the one while the other waits */

proctype reader(byte me)
{
    byte frame;
end:
    do
#ifdef STOPS
    :: me == STOPS -> break
#endif
    :: atomic {
           nempty(ring[me]) ->
           ring[me] ? frame;
           assert(frame % 8 == got[me * PUBLISHERS + frame / 8]);
           got[me * PUBLISHERS + frame / 8]++;
           event[me] = 1;
           frame = 0
       }
    od
}

/* ---- admission ------------------------------------------------------------------------------- */

#define LOWEST_WALKED(log)                                                      \
    (walked_pos[OF(0, log)] < walked_pos[OF(1, log)] -> walked_pos[OF(0, log)]  \
                                                     : walked_pos[OF(1, log)])

#ifdef NO_AHEAD
#define HAS_ROOM (end_pos[me] < lowest + LOG)
#else
#define HAS_ROOM (end_pos[me] < lowest + AHEAD)
#endif

#define PLACE(publisher) (place[publisher] == 0 -> NEVER : place[publisher])
/* Nobody waits longer for the session. */
#define IS_FIRST(session, publisher)                                                         \
    ((side[OF(0, session)] == 0 || side[OF(0, session)] >= PLACE(publisher)) &&              \
     (side[OF(1, session)] == 0 || side[OF(1, session)] >= PLACE(publisher)))
#ifdef NO_TURNS
#define LETS_GO(session, publisher) (state[session] != FULL)
#else
#define LETS_GO(session, publisher) \
    (state[session] == FREE || (state[session] == TURNS && IS_FIRST(session, publisher)))
#endif
#ifdef HOLD_ALL
#define HOLDS(session, publisher) (!LETS_GO(session, publisher))
#else
#define HOLDS(session, publisher) \
    (IS_NEEDED(session, publisher) && !LETS_GO(session, publisher))
#endif

#define LOWER(a, b) ((a) == 0 -> (b) : ((b) == 0 -> (a) : ((a) < (b) -> (a) : (b))))
#define PLACE_IN(session, publisher) (by[publisher] == 1 + (session) -> place[publisher] : 0)
#define LAST_PLACE                                                             \
    (place[0] > place[1] -> (place[0] > place[2] -> place[0] : place[2])       \
                         :  (place[1] > place[2] -> place[1] : place[2]))

inline tell_first(session)
{
    side[OF(me, session)] =
        (me == 0 -> PLACE_IN(session, 0)
                 :  LOWER(PLACE_IN(session, 1), PLACE_IN(session, 2)));
    if /* it is the other's turn, or its session is left by all */
    :: side[OF(1 - me, session)] != 0 &&
           (side[OF(me, session)] == 0 || side[OF(1 - me, session)] < side[OF(me, session)]) ->
        event[1 - me] = 1
    :: side[OF(0, session)] == 0 && side[OF(1, session)] == 0 && session != me -> event[1 - me] = 1
    :: else
    fi
}

/* Nobody has the rank any more: those behind it move up, wherever they stand. */
inline give_up_place(publisher)
{
    rank = place[publisher];
    place[publisher] = 0;
    if
    :: rank != 0 ->
        close_up(place[0], rank);
        close_up(place[1], rank);
        close_up(place[2], rank);
        close_up(side[0], rank);
        close_up(side[1], rank);
        close_up(side[2], rank);
        close_up(side[3], rank);
        close_up(relieved[0], rank - 1);
        close_up(relieved[1], rank - 1);
        rank = 0
    :: else
    fi
}

inline close_up(which, gone)
{
    if
    :: which > gone -> which--
    :: else
    fi
}

inline join(publisher, session)
{
    by[publisher] = 1 + session;
    if
    :: place[publisher] == 0 -> place[publisher] = LAST_PLACE + 1
    :: else
    fi;
    if
    :: side[OF(me, session)] == 0 ->
        side[OF(me, session)] = place[publisher];
#ifndef NO_WAKE_HOME
        if /* its clock runs from here on */
        :: session != me -> event[1 - me] = 1
        :: else
        fi
#endif
    :: else -> tell_place(publisher, session)
    fi
}

inline tell_place(publisher, session)
{
    if
    :: side[OF(me, session)] > place[publisher] -> side[OF(me, session)] = place[publisher]
    :: else
    fi
}

inline leave_queue(publisher)
{
    session = by[publisher] - 1;
    by[publisher] = 0;
    tell_first(session);
    session = 0
}

inline step_aside(publisher)
{
    is_waiting[publisher] = 0;
    if
    :: by[publisher] != 0 -> leave_queue(publisher)
    :: else
    fi;
    give_up_place(publisher)
}

inline go_last(publisher)
{
#ifndef KEEP_PLACE
    give_up_place(publisher);
    place[publisher] = LAST_PLACE + 1;
#endif
    session = by[publisher] - 1;
    tell_first(session);
    session = 0
}

/* The rules of turns: `other` is known to wait for a session that needs both. */
#define WAITS_TOO(session, publisher, other)                                            \
    (state[session] == TURNS && IS_NEEDED(session, publisher) && is_waiting[other] &&   \
     by[other] == 1 + (session) && side[OF(HOME(other), session)] == place[other])

inline pass_by(publisher, other)
{
    if
    :: publisher != other && (WAITS_TOO(0, publisher, other) || WAITS_TOO(1, publisher, other)) ->
        passed[publisher * PUBLISHERS + other]++;
        assert(passed[publisher * PUBLISHERS + other] <= 2)
    :: else
    fi;
    passed[other * PUBLISHERS + publisher] = 0
}

#define HAS_INPUT(publisher) (HOME(publisher) == me && sent[publisher] < MESSAGES(publisher))

inline look(publisher)
{
    if
    :: HAS_INPUT(publisher) ->
        if
        :: by[publisher] != 0 && state[by[publisher] - 1] == FREE -> step_aside(publisher)
        :: else
        fi;
        held_by[publisher] = (HOLDS(0, publisher) -> 1 : (HOLDS(1, publisher) -> 2 : 0))
    :: else
    fi
}

inline admit(publisher)
{
    pass_by(publisher, 0);
    pass_by(publisher, 1);
    pass_by(publisher, 2);
    log_frame[me * LOG + end_pos[me] % LOG] = FRAME(publisher, sent[publisher]);
    sent[publisher]++;
    end_pos[me]++;
    event[1 - me] = 1;
    is_busy = 1;
    if
    :: by[publisher] != 0 && HAS_INPUT(publisher) -> go_last(publisher)
    :: by[publisher] != 0 && !HAS_INPUT(publisher) -> step_aside(publisher)
    :: else
    fi
}

inline act(publisher)
{
    if
    :: HAS_INPUT(publisher) && held_by[publisher] != 0 ->
        if
        :: by[publisher] != 0 && by[publisher] != held_by[publisher] -> leave_queue(publisher)
        :: else
        fi;
        if
        :: by[publisher] == 0 -> join(publisher, held_by[publisher] - 1)
        :: else
        fi;
        is_waiting[publisher] = 1
    :: HAS_INPUT(publisher) && held_by[publisher] == 0 ->
        is_waiting[publisher] = 0;
        if
        :: HAS_ROOM -> admit(publisher)
        :: else -> wants_room[me] = 1
        fi
    :: else
    fi;
    held_by[publisher] = 0
}

/* The limit first: what a session does not show yet is bounded by it. */
inline admit_all()
{
    wants_room[me] = 0;
#ifdef LOOK_FIRST
    atomic { look(0); look(1); look(2) }
    atomic {
        lowest = LOWEST_WALKED(me);
#else
    atomic { lowest = LOWEST_WALKED(me); look(0); look(1); look(2) }
    atomic {
#endif
        act(0);
        act(1);
        act(2);
        lowest = (wants_room[me] -> lowest : 0)
    }
}

/* ---- the own session ------------------------------------------------------------------------- */

#ifdef PAST_SPILL
#define CAN_PUT (len(ring[me]) < RING)
#else
#define CAN_PUT (len(spill[me]) == 0 && len(ring[me]) < RING)
#endif

inline walk(log)
{
    do
    :: walked[log] < end_pos[log] ->
        frame = log_frame[log * LOG + walked[log] % LOG];
        walked[log]++;
        is_busy = 1;
        if
        :: !IS_NEEDED(me, frame / 8)
        :: IS_NEEDED(me, frame / 8) && CAN_PUT -> ring[me] ! frame
        :: IS_NEEDED(me, frame / 8) && !CAN_PUT ->
            assert(len(spill[me]) < SPILL);
            spill[me] ! frame
        fi
    :: walked[log] == end_pos[log] -> break
    od;
    frame = 0
}

inline serve()
{
#ifdef NO_FENCE_RELIEVE
    early = side[OF(1 - me, me)] != 0;
#endif
    atomic {
#ifdef PAST_SPILL
        walk(0);
#endif
        do
        :: len(spill[me]) > 0 && len(ring[me]) < RING ->
            spill[me] ? frame;
            ring[me] ! frame;
            is_busy = 1
        :: len(spill[me]) == 0 || len(ring[me]) == RING -> break
        od;
        if
        :: state[me] == FULL && len(spill[me]) <= LOW ->
            state[me] = TURNS;
            relieved[me] = LAST_PLACE;
            has_room = 1
        :: else
        fi
    }
    if
    :: has_room ->
        atomic {
#ifdef NO_FENCE_RELIEVE
            event[1 - me] = event[1 - me] || early;
#elif !defined(NO_WAKE_ON_RELIEVE)
            event[1 - me] = 1;
#endif
            has_room = 0;
            is_busy = 1
        }
    :: else
    fi;
#ifdef WALKED_FIRST
    atomic {
        walk(0);
        walk(1);
        walked_pos[OF(me, 0)] = walked[0];
        walked_pos[OF(me, 1)] = walked[1]
    }
    atomic { fill() }
#else
    atomic { walk(0); walk(1); fill() }
#endif
}

inline fill()
{
    if
    :: len(spill[me]) > HIGH -> state[me] = FULL
    :: else
    fi
}

inline release()
{
    state[me] = FREE;
    relieved[me] = 0;
#ifndef NO_WAKE_ON_LEAVE
    event[1 - me] = 1
#endif
}

#define FIRST_PLACE LOWER(side[OF(0, me)], side[OF(1, me)])

inline watch()
{
    atomic {
        if /* all who waited when it had room again had their turn */
        :: state[me] == TURNS &&
               (FIRST_PLACE == 0 || (len(spill[me]) == 0 && FIRST_PLACE > relieved[me])) ->
            release()
        :: else
        fi
    }
}

/* It leaves, or is ended as slow: nothing waits for it any more. */
inline leave()
{
    atomic {
        has_left[me] = 1;
        do
        :: len(spill[me]) > 0 -> spill[me] ? frame
        :: len(spill[me]) == 0 -> break
        od;
        frame = 0;
        release()
    }
}

inline clear(log)
{
    if
    :: LOWEST_WALKED(log) == end_pos[log] ->
        log_frame[log * LOG] = 0;
        log_frame[log * LOG + 1] = 0
    :: else
    fi
}

inline publish_walked()
{
    atomic {
        walked_pos[OF(me, 0)] = walked[0];
        walked_pos[OF(me, 1)] = walked[1];
        clear(0);
        clear(1);
        event[1 - me] = event[1 - me] || wants_room[1 - me]
    }
}

/* ---- agents ---------------------------------------------------------------------------------- */

#define GOES_ON(publisher) \
    (HOME(publisher) == me && is_waiting[publisher] && !HOLDS(by[publisher] - 1, publisher))
#ifdef NO_LAST_LOOK
#define CAN_ADMIT (wants_room[me] && LOWEST_WALKED(me) != lowest)
#else
#define CAN_ADMIT                                     \
    (wants_room[me] -> LOWEST_WALKED(me) != lowest    \
                    :  (GOES_ON(0) || GOES_ON(1) || GOES_ON(2)))
#endif

proctype agent(byte me)
{
    byte walked[2];
    byte held_by[PUBLISHERS]; /* 1 + the session */
    byte lowest;
    byte session;
    byte rank;
    byte frame;
    bit has_room;
    bit early;
    bit is_clocked; /* it waits no longer than block_timeout */
    bit is_busy;
    do
    :: is_busy = 0;
#ifdef LEAVE
       if
       :: me == 0 && !has_left[0] -> leave()
       :: true
       fi;
#endif
       admit_all();
       serve();
       publish_walked();
       watch();
       if
       :: is_busy
       :: !is_busy ->
           event[me] = 0; /* who wakes it from here on is heard */
           watch();
           if
           :: walked[0] != end_pos[0] || walked[1] != end_pos[1] || CAN_ADMIT ||
                  (len(spill[me]) > 0 && len(ring[me]) < RING)
           :: else ->
#ifdef TIMEOUT
               is_clocked = state[me] == FULL && FIRST_PLACE != 0;
#endif
end_wait:
               if
               :: atomic { event[me] -> event[me] = 0; is_clocked = 0 }
               :: atomic { is_clocked -> is_clocked = 0 };
                   leave()
               fi
           fi
       fi
    od
}

active proctype monitor()
{
    timeout;
#ifndef STOPS
    assert(sent[0] == FIRST && sent[1] == SECOND && sent[2] == THIRD);
    assert(has_left[0] || (got[0] == FIRST && got[1] == SECOND));
    assert(has_left[1] || (got[PUBLISHERS] == FIRST && got[PUBLISHERS + 2] == THIRD));
#elif defined(TIMEOUT)
    assert(sent[0] == FIRST && sent[1] == SECOND && sent[2] == THIRD);
#elif STOPS == 0
    assert(sent[2] == THIRD && got[PUBLISHERS + 2] == THIRD);
#else
    assert(sent[1] == SECOND && got[1] == SECOND);
#endif
end:
    false
}

init
{
    atomic {
        run agent(0);
        run agent(1);
        run reader(0);
        run reader(1)
    }
}
