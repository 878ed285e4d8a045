/*
 * The edit list of two data agents: acknowledged subscriptions, and the life of a publication.
 *
 *     control()     rsi_data_plane_post, rsi_data_plane_is_applied, rsi_publication_is_unused
 *     apply_edits   rsi_agent_apply_edits, apply_subscribe, apply_publication_open, _close, _retire
 *     agent()       run_pass, rsi_agent_admit, close_publication, rsi_agent_walk,
 *                   rsi_agent_publish_needed, has_unwatched_work
 *
 * Agent 0 is home of the publisher and owns the log, agent 1 is home of the subscriber. The
 * publisher sends at any time, also before it knows that its publication is open.
 *
 * What must hold: a frame that was published after the subscription's acknowledgement is delivered;
 * no agent walks a frame of a publication that it does not know or that is freed; an edit is read as
 * it was posted; all edits are applied in the end, also by agents that sleep.
 *
 * Memory: in program order, but for the variants that take a release away. A wait of the control
 * agent stands for its waker, a wait of an agent for its own: waker.pml shows that both are right.
 *
 * Must be refuted: EDITS_BEFORE_ENDS, ACK_TOO_EARLY (it is applied, but acts from the next pass on),
 * APPLIED_BY_ONE, NO_RELEASE_EDIT, NO_RELEASE_END, NO_FULL_CHECK, RETIRE_UNCHECKED, FREE_EARLY, NO_WAKE.
 */
#define EDITS  2 /* room of the list: RSI_EDIT_COUNT */
#define FRAMES 1

mtype = { SUBSCRIBE, OPEN, CLOSE, RETIRE };

mtype edits[EDITS];
byte edit_count;
byte applied_count[2];
byte end_pos;
bit log_frame[FRAMES]; /* 1: a frame was written there */
byte needed_pos[2];
bit closed;
byte closed_log_pos;
bit event[2];     /* an agent's waker */
byte arrived_pos; /* frames in the ingress ring */

/* Known to the model only. */
mtype posted[4]; /* all edits by their number */
bit is_acknowledged;
bit is_freed;
bit is_owed[FRAMES]; /* was published after the acknowledgement; by position in the ingress ring */
byte ingress_of[FRAMES]; /* by position in the log */
bit is_delivered[FRAMES];

active proctype publisher()
{
    do
    :: arrived_pos < FRAMES ->
        atomic {
            is_owed[arrived_pos] = is_acknowledged;
            arrived_pos++;
            event[0] = 1
        }
    :: break
    od
}

inline post(kind)
{
#ifndef NO_FULL_CHECK
    edit_count - applied_count[0] < EDITS && edit_count - applied_count[1] < EDITS;
#endif
#ifdef NO_RELEASE_EDIT
    atomic { posted[edit_count] = kind; edit_count++ }
    edits[(edit_count - 1) % EDITS] = kind;
#else
    atomic { posted[edit_count] = kind; edits[edit_count % EDITS] = kind; edit_count++ }
#endif
    atomic {
        event[0] = 1;
#ifndef NO_WAKE
        event[1] = 1
#endif
    }
}

inline await_applied(ticket)
{
    applied_count[0] >= ticket;
#ifndef APPLIED_BY_ONE
    applied_count[1] >= ticket
#endif
}

active proctype control()
{
    bit is_open;
    bit is_subscribed;
    bit is_closing;
    byte subscribe_ticket;
    do
    :: !is_open -> is_open = 1; post(OPEN)
    :: !is_subscribed -> is_subscribed = 1; post(SUBSCRIBE); subscribe_ticket = edit_count
    :: is_subscribed && !is_acknowledged ->
        await_applied(subscribe_ticket);
        is_acknowledged = 1
    :: is_open && !is_closing -> is_closing = 1; post(CLOSE)
    :: is_closing && closed && is_acknowledged -> break
    od;
#ifndef RETIRE_UNCHECKED
    needed_pos[0] >= closed_log_pos;
    needed_pos[1] >= closed_log_pos;
#endif
    post(RETIRE);
#ifndef FREE_EARLY
    await_applied(edit_count);
#endif
    is_freed = 1
}

/* One step: the list's room keeps what is below edit_count from changing meanwhile. */
inline apply_edits()
{
    d_step {
        do
        :: edits_applied < edit_count ->
            assert(edits[edits_applied % EDITS] == posted[edits_applied]);
            if
            :: edits[edits_applied % EDITS] == OPEN ->
                is_known = 1;
                is_alias_open = me == 0
            :: edits[edits_applied % EDITS] == SUBSCRIBE -> will_subscribe = me == 1
            :: edits[edits_applied % EDITS] == CLOSE ->
                is_closing = me == 0;
                close_pos = arrived_pos
            :: edits[edits_applied % EDITS] == RETIRE ->
                assert(!is_freed);
                is_known = 0
            :: else
            fi;
            edits_applied++
        :: else -> break
        od;
#ifndef ACK_TOO_EARLY
        is_subscribed = will_subscribe;
#endif
        applied_count[me] = edits_applied
    }
}

/* A frame of an alias that is not open faults the session: here it is dropped, and owed no more. */
inline admit()
{
    do
    :: atomic {
           consumed_pos < arrived_pos && is_alias_open ->
           ingress_of[append_pos] = consumed_pos;
#ifdef NO_RELEASE_END
           end_pos = append_pos + 1
       };
       atomic {
#endif
           log_frame[append_pos] = 1;
           append_pos++;
           consumed_pos++
       }
    :: atomic {
           consumed_pos < arrived_pos && !is_alias_open ->
           is_owed[consumed_pos] = 0;
           consumed_pos++
       }
    :: break /* a pass takes a share */
    od;
    atomic {
        if
        :: append_pos != published_pos ->
            published_pos = append_pos;
            end_pos = append_pos;
            event[1] = 1 /* rsi_agent_wake_others */
        :: else
        fi
    }
}

inline walk()
{
#ifdef EDITS_BEFORE_ENDS
    apply_edits();
    walk_end = end_pos;
#else
    walk_end = end_pos;
    apply_edits();
#endif
    d_step {
        do
        :: common_pos < walk_end ->
            assert(log_frame[common_pos]);
            assert(is_known);
            assert(!is_freed);
            if
            :: is_subscribed -> is_delivered[ingress_of[common_pos]] = 1
            :: else
            fi;
            common_pos++
        :: else -> break
        od;
        walk_end = 0;
        is_subscribed = will_subscribe;
        needed_pos[me] = common_pos
    }
}

inline finish_closing()
{
    atomic {
        if
        :: is_closing && consumed_pos >= close_pos ->
            is_closing = 0;
            is_alias_open = 0;
            closed_log_pos = append_pos;
            closed = 1
        :: else
        fi
    }
}

proctype agent(byte me)
{
    byte edits_applied;
    byte walk_end;
    byte common_pos;
    byte consumed_pos;
    byte append_pos;
    byte published_pos; /* end_pos as its writer knows it */
    byte close_pos;
    bit is_known;
    bit is_alias_open;
    bit will_subscribe;
    bit is_subscribed;
    bit is_closing;
    do
    :: apply_edits();
       if
       :: me == 0 -> admit()
       :: else
       fi;
       walk();
       if
       :: me == 0 -> finish_closing()
       :: else
       fi;
       if
       :: edit_count != edits_applied || end_pos != common_pos ||
              (me == 0 && arrived_pos != consumed_pos)
       :: else ->
end_wait:
           atomic { event[me] -> event[me] = 0 }
       fi
    od
}

active proctype monitor()
{
    timeout;
    assert(is_freed && edit_count == 4);
    assert(applied_count[0] == edit_count && applied_count[1] == edit_count);
    assert(!is_owed[0] || is_delivered[0]);
end:
    false
}

init
{
    atomic {
        run agent(0);
        run agent(1)
    }
}
