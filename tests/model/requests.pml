/*
 * Requests of a session that changes its link: the control lane starts empty each time, and what was
 * not answered is asked again.
 *
 *     client()   ringside_publisher_create and destroy, take_answer, and what asks again after a resume
 *     broker()   rsi_requests_take, is_asked_again, apply_requests, answer_requests, answer_closing
 *     admit      rsi_agent_admit, close_publication
 *
 * A client opens a publisher, sends a frame, closes it, and opens the next under the same alias.
 * Frames go through the ring, which resume.pml shows to lose nothing; messages on the control lane are
 * lost with their link. Each side loses any link but the last at any time.
 *
 * Rules: a request keeps its number for life. The broker remembers by which number a publication was
 * opened and is closed. An answer is owed only to a request that came over the present link: what
 * was in work when a link ended goes on, but is not answered until it is asked again. Nothing more is
 * taken from a link once it was given up. The refusal to close what is not known counts as closed.
 *
 * What must hold: each request is done once; an answer comes for a request that waits for one (all
 * else the client takes for a broken broker); every frame is admitted under the publication that sent
 * it; in the end all was done and the broker holds nothing.
 *
 * Must be refuted: NO_NUMBER (asked again is new), REFUSE_CLOSE_IN_WORK, ANSWER_UNASKED, TAKE_OLD (what
 * waits on a link that was given up), NOT_AGAIN.
 */
#define LINKS    3
#define REQUESTS 4 /* open, close, open, close */

mtype = { GRANTED, REFUSED };

chan to_broker[LINKS] = [2] of { byte };
chan to_client[LINKS] = [2] of { mtype, byte };
byte client_link;
byte broker_link;
bit is_client_closed[LINKS];
bit is_broker_closed[LINKS];

/* The ring. */
byte frame_count;
byte frame_owner[2]; /* the request by which its publisher was opened */
byte admitted_count;

/* Of the alias, at the broker. */
byte open_number;
bit is_open_applied;
bit is_open_asked;
byte close_number;
byte close_end;
bit is_close_asked;

/* Known to the model only. */
byte done_count[REQUESTS + 1];

#define IS_OPEN(number)  ((number) % 2 == 1)
#define MAY_LOSE(link)   ((link) + 1 < LINKS)

proctype client()
{
    byte last; /* request */
    byte waiting; /* that has no answer yet */
    byte number;
    mtype answer;
end:
    do
    :: atomic { /* the publisher is open: a frame */
           waiting == 0 && IS_OPEN(last) && frame_count * 2 < last ->
           frame_owner[frame_count] = last;
           frame_count++
       }
    :: atomic {
           waiting == 0 && last < REQUESTS && !is_client_closed[client_link] ->
           last++;
           waiting = last;
           to_broker[client_link] ! last
       }
    :: atomic {
           !is_client_closed[client_link] && nempty(to_client[client_link]) ->
           to_client[client_link] ? answer, number;
           assert(number == waiting);
           assert(answer == GRANTED || !IS_OPEN(number));
           waiting = 0;
           number = 0;
           answer = 0
       }
    :: atomic {
           !is_client_closed[client_link] &&
               (MAY_LOSE(client_link) || is_broker_closed[client_link]) ->
           is_client_closed[client_link] = 1;
           do
           :: to_client[client_link] ? answer, number
           :: empty(to_client[client_link]) -> break
           od;
           answer = 0;
           number = 0
       }
    :: atomic { /* Welcome */
           is_client_closed[client_link] && is_broker_closed[client_link] ->
           client_link++;
#ifndef NOT_AGAIN
           if
           :: waiting != 0 ->
               to_broker[client_link] ! waiting
           :: else
           fi
#endif
       }
    od
}

#define CAN_ANSWER !is_broker_closed[broker_link] && nfull(to_client[broker_link])

inline done(request)
{
    done_count[request]++;
    assert(done_count[request] == 1)
}

/* To a link that was given up it goes nowhere. */
inline answer(how, request)
{
    if
    :: !is_broker_closed[broker_link] -> to_client[broker_link] ! how, request
    :: else
    fi
}

inline take_open(request)
{
    if
    :: open_number == 0 ->
        open_number = request;
        is_open_asked = 1
#ifndef NO_NUMBER
    :: open_number == request -> is_open_asked = 1
    :: open_number != 0 && open_number != request -> answer(REFUSED, request)
#else
    :: open_number != 0 -> answer(REFUSED, request)
#endif
    fi
}

inline take_close(request)
{
    if
    :: open_number == 0 -> answer(REFUSED, request)
    :: open_number != 0 && close_number == 0 ->
        close_number = request;
        close_end = frame_count; /* the message carries it */
        is_close_asked = 1
#ifdef REFUSE_CLOSE_IN_WORK
    :: close_number != 0 -> answer(REFUSED, request)
#else
    :: close_number == request -> is_close_asked = 1
    :: close_number != 0 && close_number != request -> answer(REFUSED, request)
#endif
    fi
}

inline take(link)
{
    to_broker[link] ? number;
    if
    :: IS_OPEN(number) -> take_open(number)
    :: else -> take_close(number)
    fi;
    number = 0
}

proctype broker()
{
    byte number;
end:
    do
    :: atomic { CAN_ANSWER && nempty(to_broker[broker_link]) -> take(broker_link) }
#ifdef TAKE_OLD
    :: atomic {
           CAN_ANSWER && broker_link > 0 && nempty(to_broker[broker_link - 1]) ->
           take(broker_link - 1)
       }
#endif
    :: atomic { open_number != 0 && !is_open_applied -> is_open_applied = 1; done(open_number) }
    :: atomic {
           is_open_asked && is_open_applied && CAN_ANSWER ->
           is_open_asked = 0;
           to_client[broker_link] ! GRANTED, open_number
       }
    :: atomic { /* the home agent admits */
           admitted_count < frame_count ->
           assert(is_open_applied && open_number == frame_owner[admitted_count]);
           admitted_count++
       }
    :: atomic { /* and has closed */
           close_number != 0 && admitted_count >= close_end &&
               (!is_close_asked || CAN_ANSWER) ->
           done(close_number);
           if
           :: is_close_asked -> to_client[broker_link] ! GRANTED, close_number
           :: else
           fi;
           open_number = 0;
           is_open_applied = 0;
           close_number = 0;
           is_close_asked = 0;
           close_end = 0
       }
    :: atomic {
           !is_broker_closed[broker_link] &&
               (MAY_LOSE(broker_link) || is_client_closed[broker_link]) ->
           is_broker_closed[broker_link] = 1;
#ifndef TAKE_OLD
           do
           :: to_broker[broker_link] ? number
           :: empty(to_broker[broker_link]) -> break
           od;
           number = 0;
#endif
#ifndef ANSWER_UNASKED
           is_open_asked = 0;
           is_close_asked = 0;
#endif
       }
    :: atomic { client_link > broker_link -> broker_link++ }
    od
}

active proctype monitor()
{
    timeout;
    assert(done_count[REQUESTS] == 1 && done_count[REQUESTS - 1] == 1 && done_count[1] == 1);
    assert(open_number == 0 && admitted_count == frame_count);
end:
    false
}

init
{
    atomic {
        run client();
        run broker()
    }
}
