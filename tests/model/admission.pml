/*
 * Admission, the log's window, and subscribers that lag, with two data agents that sleep.
 *
 *     admit            rsi_agent_admit, rsi_agent_admit_limit_pos, rsi_message_log_reserve
 *     catch_up, walk   rsi_agent_catch_up, move_cursor, act_on_lag, rsi_agent_walk, rsi_agent_begin_lag
 *     publish_needed   rsi_agent_publish_needed
 *     sleep            sleep_until_work, request_room, has_unwatched_work
 *
 * Agent 0 is home of a publisher and owns the log; each agent serves one subscriber, policy drop.
 * The subscribers read when they like. Policy block is in block.pml.
 *
 * What must hold: no position is overwritten that an agent will still read; in the end everything was
 * admitted, and delivered or counted as dropped, and all sleep (no deadlock, no lost wake-up, no agent
 * that runs in circles); who does not lag further than half the window loses nothing.
 *
 * Memory: in program order, but NO_FENCE_NEEDED lets the load of wants_room pass the store before it.
 * A wait stands for the waker and the links' wake-ups: waker.pml and sleep.pml show that they are right.
 *
 * Must be refuted: NO_NEEDED, NEEDED_IGNORES_LAG, NO_FENCE_NEEDED, NO_LOOK_AT_ROOM, NO_REQUEST_ROOM,
 * DROP_ALWAYS; LOOK_AT_STALLED_ONLY (by its endless loop).
 */
#define WINDOW   3 /* frames that the log holds; half of it is passed at two */
#ifndef MESSAGES
#define MESSAGES 4
#endif
#ifndef RING
#define RING 1 /* frames that a subscriber's ring holds */
#endif
#define NEVER    255

byte log_frame[WINDOW]; /* the position of the frame there */
byte end_pos;
byte needed_pos[2];
bit wants_room; /* of agent 0 */
bit event[2];   /* an agent's waker and its pollers' descriptors */
byte staged_pos[2];   /* frames in the rings to the subscribers */
byte consumed_pos[2];
byte dropped_count[2];
bit was_far[2]; /* known to the model only */
byte room_wanted[2];  /* request_wake: consumed at least */

#define HAS_ROOM (staged_pos[me] - consumed_pos[me] < RING)
#define IS_TOO_FAR(cursor) ((end_pos - (cursor)) * 2 > WINDOW)

proctype subscriber(byte me)
{
end:
    do
    :: atomic {
           consumed_pos[me] < staged_pos[me] ->
           consumed_pos[me]++;
           if
           :: consumed_pos[me] >= room_wanted[me] ->
               room_wanted[me] = NEVER;
               event[me] = 1
           :: else
           fi
       }
    od
}

inline admit()
{
    has_stalled_input = 0;
    wants_room = 0;
    /* The other agent's word; the own one is as this agent left it. */
    admit_needed_pos = needed_pos[1];
    atomic {
        if
        :: needed_pos[0] < admit_needed_pos -> admit_needed_pos = needed_pos[0]
        :: else
        fi;
        do
#ifdef NO_NEEDED
        :: append_pos < MESSAGES ->
#else
        :: append_pos < MESSAGES && append_pos < admit_needed_pos + WINDOW ->
#endif
            log_frame[append_pos % WINDOW] = append_pos;
            append_pos++;
            is_busy = 1
        :: append_pos == MESSAGES || is_busy -> break /* a pass takes a share */
        :: append_pos < MESSAGES && append_pos == admit_needed_pos + WINDOW ->
            has_stalled_input = 1;
            break
        od
    }
    if
    :: append_pos != end_pos -> atomic { end_pos = append_pos; event[1] = 1 }
    :: else
    fi;
    if
    :: has_stalled_input -> wants_room = 1
    :: else
    fi
}

inline put_frame(position)
{
    assert(log_frame[(position) % WINDOW] == position);
    staged_pos[me]++;
    is_busy = 1;
    position++
}

inline drop_frame(position)
{
    assert(log_frame[(position) % WINDOW] == position); /* its publication and number are read */
    assert(was_far[me]);
    dropped_count[me]++;
    is_busy = 1;
    position++
}

inline catch_up()
{
    if
    :: is_lagging ->
        atomic {
            do
            :: cursor_pos < common_pos && is_dropping -> drop_frame(cursor_pos)
            :: cursor_pos < common_pos && !is_dropping && HAS_ROOM -> put_frame(cursor_pos)
            :: else -> break
            od
        }
        atomic {
            was_far[me] = was_far[me] || IS_TOO_FAR(cursor_pos);
#ifdef DROP_ALWAYS
            is_dropping = 1;
#else
            is_dropping = is_dropping || IS_TOO_FAR(cursor_pos);
#endif
            if
            :: cursor_pos == common_pos ->
                is_lagging = 0;
                is_dropping = 0;
                cursor_pos = 0
            :: else
            fi
        }
    :: else
    fi
}

inline walk()
{
    walk_end = end_pos;
    d_step {
        do
        :: common_pos < walk_end ->
            is_busy = 1;
            if
            :: is_lagging -> common_pos++
            :: !is_lagging && HAS_ROOM -> put_frame(common_pos)
            :: else ->
                assert(log_frame[common_pos % WINDOW] == common_pos);
                is_lagging = 1;
                cursor_pos = common_pos;
                common_pos++
            fi
        :: else -> break
        od;
        walk_end = 0
    }
}

inline publish_needed()
{
    d_step {
        lowest_pos = common_pos;
#ifndef NEEDED_IGNORES_LAG
        if
        :: is_lagging && cursor_pos < lowest_pos -> lowest_pos = cursor_pos
        :: else
        fi
#endif
    }
    if
    :: lowest_pos == needed_pos[me]
    :: lowest_pos != needed_pos[me] && me == 0 -> needed_pos[me] = lowest_pos
    :: lowest_pos != needed_pos[me] && me == 1 ->
#ifdef NO_FENCE_NEEDED
        early = wants_room;
        needed_pos[me] = lowest_pos;
        event[0] = event[0] || early;
        early = 0
#else
        needed_pos[me] = lowest_pos;
        event[0] = event[0] || wants_room
#endif
    fi;
    lowest_pos = 0
}

#define LOWEST_NEEDED_MOVED \
    (needed_pos[0] != admit_needed_pos && needed_pos[1] != admit_needed_pos || \
     needed_pos[0] < admit_needed_pos || needed_pos[1] < admit_needed_pos)

#if defined(NO_LOOK_AT_ROOM)
#define CAN_ADMIT false
#elif defined(LOOK_AT_STALLED_ONLY)
#define CAN_ADMIT has_stalled_input
#else
#define CAN_ADMIT (has_stalled_input && LOWEST_NEEDED_MOVED)
#endif

inline sleep_until_work()
{
    atomic {
#ifdef NO_REQUEST_ROOM
        skip
#else
        if /* request_room: half of the ring; a link says at once when it is free already */
        :: is_lagging && consumed_pos[me] >= staged_pos[me] - RING / 2 -> event[me] = 1
        :: is_lagging && consumed_pos[me] < staged_pos[me] - RING / 2 ->
            room_wanted[me] = staged_pos[me] - RING / 2
        :: else
        fi
#endif
    }
    if
    :: end_pos != common_pos
    :: else ->
        if
        :: me == 0 && CAN_ADMIT
        :: else ->
end_wait:
            atomic { event[me] -> event[me] = 0 }
        fi
    fi
}

proctype agent(byte me)
{
    byte append_pos;
    byte admit_needed_pos;
    byte common_pos;
    byte cursor_pos;
    byte walk_end;
    byte lowest_pos;
    bit has_stalled_input;
    bit is_lagging;
    bit is_dropping;
    bit is_busy;
    bit early;
    do
    :: is_busy = 0;
       if
       :: me == 0 -> admit()
       :: else
       fi;
       catch_up();
       walk();
       publish_needed();
       if
       :: is_busy ->
progress:
           skip
       :: !is_busy -> sleep_until_work()
       fi
    od
}

active proctype monitor()
{
    timeout;
    assert(end_pos == MESSAGES);
    assert(consumed_pos[0] == staged_pos[0] && staged_pos[0] + dropped_count[0] == MESSAGES);
    assert(consumed_pos[1] == staged_pos[1] && staged_pos[1] + dropped_count[1] == MESSAGES);
end:
    false
}

init
{
    atomic {
        room_wanted[0] = NEVER;
        room_wanted[1] = NEVER;
        run agent(0);
        run agent(1);
        run subscriber(0);
        run subscriber(1)
    }
}
