/*
 * Design notes
 * - Writer, reader and duplex are one loop, in which one of the halves may be missing.
 * - A burst, then a poll that rests: a machine with few cores is to have time for the others.
 */
#include "tests/fault/stream_actors.h"

const ringside_options_t stream_client_options = {.publish_ring_bytes = STREAM_RING_BYTES,
                                                  .deliver_ring_bytes = STREAM_RING_BYTES};

struct traffic {
    struct actor *self;
    ringside_client_t *client;
    const struct stream_writing *writing; /* NULL: does not write */
    const struct stream_reading *reading; /* NULL: does not read */
    struct stream_writer writer;
    struct stream_reader reader;
    uint64_t refused_count;
    bool is_open;
    bool is_stopped;
    bool may_end;
};

/* Of this process; too large for a stack. */
static struct traffic traffic;

/* ---- events ------------------------------------------------------------------------------------
 */

static void count_event(size_t result)
{
    actor_set_result(traffic.self, result, actor_result(traffic.self, result) + 1);
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct actor *self = traffic.self;
    (void)arg;
    switch (event->type) {
    case RINGSIDE_EVENT_GAP:
        stream_on_event(&traffic.reader, event);
        break;
    case RINGSIDE_EVENT_SUSPENDED:
        count_event(STREAM_RESULT_SUSPENDED);
        break;
    case RINGSIDE_EVENT_RESUMED:
        snprintf(self->shared->text, sizeof(self->shared->text), "%s", event->text);
        count_event(STREAM_RESULT_RESUMED);
        break;
    case RINGSIDE_EVENT_RENEWED:
        stream_reader_renew(&traffic.reader);
        count_event(STREAM_RESULT_RENEWED);
        break;
    case RINGSIDE_EVENT_CLOSED:
    case RINGSIDE_EVENT_LOST:
        actor_set_result(self, STREAM_RESULT_STATUS, (uint64_t)(int64_t)event->status);
        snprintf(self->shared->text, sizeof(self->shared->text), "%s", event->text);
        actor_set_result(self, STREAM_RESULT_EVENT, event->type);
        break;
    case RINGSIDE_EVENT_SUBSCRIBED:
    case RINGSIDE_EVENT_OPENED:
    case RINGSIDE_EVENT_CONNECTED:
    case RINGSIDE_EVENT_CURRENT:
    case RINGSIDE_EVENT_CONFLATED:
    case RINGSIDE_EVENT_SLOW:
    case RINGSIDE_EVENT_DRAINED:
        break;
    }
}

/* ---- one turn ----------------------------------------------------------------------------------
 */

/* The connection is gone: told only to those that it may happen to. Whatever call said so first, it
 * is the polls that hand the event over, so they go on until one says so too. */
static void note_end(const char *what, ringside_status_t status)
{
    check(status >= 0 || traffic.may_end, "%s: the connection ended: %s: %s", what,
          ringside_status_name(status), ringside_error_text(traffic.client));
    if (status < 0) {
        status = ringside_poll(traffic.client, 0, 0, NULL);
    }
    traffic.is_open = status >= 0;
}

static void stop_writing(void)
{
    if (traffic.is_open) {
        ringside_status_t status = ringside_flush(traffic.client, hang_ns());
        check(status != RINGSIDE_E_TIMED_OUT, "flush hangs: %s",
              ringside_error_text(traffic.client));
        note_end("flush", status);
    }
    traffic.is_stopped = true;
    actor_set_result(traffic.self, STREAM_RESULT_WRITTEN, traffic.writer.written_count);
    actor_reach(traffic.self, STREAM_STOPPED);
}

static void write_turn(void)
{
    if (actor_is_allowed(traffic.self, STREAM_STOP) || !traffic.is_open) {
        stop_writing();
        return;
    }
    ringside_status_t status = stream_write_burst(&traffic.writer, traffic.writing->burst);
    traffic.refused_count += status == RINGSIDE_WOULD_BLOCK;
    actor_set_result(traffic.self, STREAM_RESULT_REFUSED, traffic.refused_count);
    note_end("publish", status);
}

static void tell_results(void)
{
    const struct stream_reader *reader = &traffic.reader;
    struct actor *self = traffic.self;
    ringside_link_stats_t stats = {.struct_bytes = sizeof(stats)};
    if (ringside_stats(traffic.client, &stats) == RINGSIDE_OK) {
        actor_set_result(self, STREAM_RESULT_RESENT_BYTES, stats.resent_bytes);
    }
    actor_set_result(self, STREAM_RESULT_TRANSPORT,
                     (uint64_t)ringside_transport(traffic.client)[0]);
    actor_set_progress(self, traffic.writer.written_count + stream_reader_position(reader));
    if (traffic.reading == NULL) {
        return;
    }
    actor_set_result(self, STREAM_RESULT_RECEIVED, reader->received_count);
    actor_set_result(self, STREAM_RESULT_GAPS, reader->gap_count);
    actor_set_result(self, STREAM_RESULT_STREAMS, reader->stream_count);
    actor_set_result(self, STREAM_RESULT_QUIET_NS, reader->longest_quiet_ns);
    actor_set_result(self, STREAM_RESULT_LOST, reader->lost_count);
    actor_set_result(self, STREAM_RESULT_TWICE, reader->twice_count);
    actor_set_result(self, STREAM_RESULT_RESTARTS, reader->restart_count);
    actor_set_result(self, STREAM_RESULT_POSITION,
                     stream_reader_position_of(reader, traffic.reading->counted));
}

static void run_traffic(struct actor *self, const struct stream_writing *writing,
                        const struct stream_reading *reading)
{
    ringside_options_t used = stream_client_options;
    traffic.self = self;
    traffic.writing = writing;
    traffic.reading = reading;
    traffic.is_stopped = writing == NULL;
    traffic.may_end =
        (writing != NULL && writing->may_end) || (reading != NULL && reading->may_end);
    used.on_event = on_event;
    used.resume_timeout_ns =
        writing != NULL ? writing->resume_timeout_ns : reading->resume_timeout_ns;
    if (writing != NULL && writing->prepare != NULL) {
        writing->prepare();
    }
    traffic.client = actor_connect(self, &used);
    traffic.is_open = true;
    if (reading != NULL) {
        traffic.reader.allows_gaps = reading->allows_gaps;
        traffic.reader.allows_restarts = reading->allows_restarts;
        actor_subscribe(traffic.client, reading->subject, reading->policy, stream_on_message,
                        &traffic.reader);
    }
    if (writing != NULL) {
        stream_writer_open(&traffic.writer, traffic.client, writing->prefix, writing->stream_count,
                           writing->bytes_max, options.seed);
    }
    actor_reach(self, STREAM_READY);
    while (!actor_is_allowed(self, STREAM_LEAVE) || !traffic.is_stopped) {
        if (!traffic.is_stopped) {
            write_turn();
        }
        if (traffic.is_open) {
            uint64_t timeout_ns = traffic.is_stopped ? SECOND_NS / 10 : writing->rest_ns;
            note_end("poll", ringside_poll(traffic.client, 0, timeout_ns, NULL));
        } else {
            nap();
        }
        tell_results();
    }
    if (traffic.is_open) {
        actor_close(traffic.client);
    } else {
        (void)ringside_close(traffic.client, 0);
    }
}

void stream_write_actor(struct actor *self, void *arg)
{
    run_traffic(self, arg, NULL);
}

void stream_read_actor(struct actor *self, void *arg)
{
    run_traffic(self, NULL, arg);
}

void stream_duplex_actor(struct actor *self, void *arg)
{
    const struct stream_duplex *duplex = arg;
    run_traffic(self, &duplex->writing, &duplex->reading);
}

/* ---- the test's side ---------------------------------------------------------------------------
 */

uint64_t stream_stop_writer(struct actor *writer)
{
    actor_allow(writer, STREAM_STOP);
    actor_await_step(writer, STREAM_STOPPED);
    return actor_result(writer, STREAM_RESULT_WRITTEN);
}

void stream_await_reader(struct actor *reader, uint64_t position)
{
    uint64_t progress = 0;
    uint64_t until_ns = now_ns() + hang_ns();
    while (actor_result(reader, STREAM_RESULT_POSITION) < position) {
        if (actor_progress(reader) != progress) {
            progress = actor_progress(reader);
            until_ns = now_ns() + hang_ns();
        }
        check(now_ns() < until_ns, "%s stays at %" PRIu64 " of %" PRIu64 " messages", reader->name,
              actor_result(reader, STREAM_RESULT_POSITION), position);
        nap();
    }
    check(actor_result(reader, STREAM_RESULT_POSITION) == position,
          "%s has %" PRIu64 " messages, but %" PRIu64 " were written", reader->name,
          actor_result(reader, STREAM_RESULT_POSITION), position);
}

void stream_leave(struct actor *actor)
{
    actor_allow(actor, STREAM_LEAVE);
    actor_join(actor);
}
