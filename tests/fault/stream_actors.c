/* What stream_actors.h says. */
#include "tests/fault/stream_actors.h"

const ringside_options_t stream_client_options = {.publish_ring_bytes = STREAM_RING_BYTES,
                                                  .deliver_ring_bytes = STREAM_RING_BYTES};

/* ---- both --------------------------------------------------------------------------------------
 */

static void note_end(struct actor *self, const ringside_event_t *event)
{
    if (event->type == RINGSIDE_EVENT_CLOSED || event->type == RINGSIDE_EVENT_LOST) {
        actor_set_result(self, STREAM_RESULT_STATUS, (uint64_t)(int64_t)event->status);
        snprintf(self->shared->text, sizeof(self->shared->text), "%s", event->text);
        actor_set_result(self, STREAM_RESULT_EVENT, event->type);
    }
}

/* One poll. False: the connection is gone, which is told only to those that it may happen to. */
static bool poll_on(ringside_client_t *client, uint64_t timeout_ns, bool may_end)
{
    ringside_status_t status = ringside_poll(client, 0, timeout_ns, NULL);
    check(status >= 0 || may_end, "the connection ended: %s: %s", ringside_status_name(status),
          ringside_error_text(client));
    return status >= 0;
}

static void leave(ringside_client_t *client, bool is_open)
{
    if (is_open) {
        actor_close(client);
    } else {
        (void)ringside_close(client, 0);
    }
}

/* ---- writer ------------------------------------------------------------------------------------
 */

static void on_writer_event(void *arg, const ringside_event_t *event)
{
    note_end(arg, event);
}

static bool write_until_stopped(struct actor *self, struct stream_writer *writer,
                                const struct stream_writing *writing)
{
    uint64_t refused_count = 0;
    while (!actor_is_allowed(self, STREAM_STOP)) {
        ringside_status_t status = stream_write_burst(writer, writing->burst);
        refused_count += status == RINGSIDE_WOULD_BLOCK;
        check(status >= 0 || writing->may_end, "publish: %s: %s", ringside_status_name(status),
              ringside_error_text(writer->client));
        actor_set_result(self, STREAM_RESULT_REFUSED, refused_count);
        actor_set_progress(self, writer->written_count);
        if (!poll_on(writer->client, writing->rest_ns, writing->may_end)) {
            return false;
        }
    }
    return true;
}

void stream_write_actor(struct actor *self, void *arg)
{
    const struct stream_writing *writing = arg;
    struct stream_writer writer;
    ringside_options_t used = stream_client_options;
    used.on_event = on_writer_event;
    used.event_arg = self;
    ringside_client_t *client = actor_connect(self, &used);
    stream_writer_open(&writer, client, writing->prefix, writing->stream_count, writing->bytes_max,
                       options.seed);
    actor_reach(self, STREAM_READY);
    bool is_open = write_until_stopped(self, &writer, writing);
    if (is_open) {
        ringside_status_t status = ringside_flush(client, hang_ns());
        is_open = status == RINGSIDE_OK;
        check(is_open || writing->may_end, "flush: %s", ringside_error_text(client));
    }
    actor_set_result(self, STREAM_RESULT_WRITTEN, writer.written_count);
    actor_reach(self, STREAM_STOPPED);
    while (is_open && !actor_is_allowed(self, STREAM_LEAVE)) {
        is_open = poll_on(client, SECOND_NS / 10, writing->may_end);
    }
    actor_await_allowed(self, STREAM_LEAVE);
    leave(client, is_open);
}

/* ---- reader ------------------------------------------------------------------------------------
 */

static void on_reader_event(void *arg, const ringside_event_t *event)
{
    struct stream_reader *reader = arg;
    stream_on_event(reader, event);
    note_end(reader->self, event);
}

static void tell_results(const struct stream_reader *reader, const char *counted)
{
    uint64_t position = counted != NULL ? stream_reader_position_of(reader, counted)
                                        : stream_reader_position(reader);
    actor_set_result(reader->self, STREAM_RESULT_RECEIVED, reader->received_count);
    actor_set_result(reader->self, STREAM_RESULT_GAPS, reader->gap_count);
    actor_set_result(reader->self, STREAM_RESULT_STREAMS, reader->stream_count);
    actor_set_result(reader->self, STREAM_RESULT_QUIET_NS, reader->longest_quiet_ns);
    actor_set_result(reader->self, STREAM_RESULT_POSITION, position);
}

void stream_read_actor(struct actor *self, void *arg)
{
    static struct stream_reader reader; /* of this process; too large for a stack */
    const struct stream_reading *reading = arg;
    ringside_options_t used = stream_client_options;
    reader.self = self;
    reader.allows_gaps = reading->allows_gaps;
    used.on_event = on_reader_event;
    used.event_arg = &reader;
    ringside_client_t *client = actor_connect(self, &used);
    actor_subscribe(client, reading->subject, reading->policy, stream_on_message, &reader);
    actor_reach(self, STREAM_READY);
    bool is_open = true;
    while (is_open && !actor_is_allowed(self, STREAM_LEAVE)) {
        is_open = poll_on(client, SECOND_NS / 10, reading->may_end);
        tell_results(&reader, reading->counted);
    }
    actor_await_allowed(self, STREAM_LEAVE);
    leave(client, is_open);
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
