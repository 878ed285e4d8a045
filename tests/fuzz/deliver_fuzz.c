/*
 * Design notes: the bytes of a deliver ring as a hostile broker could leave them, and the client's
 * whole delivery over them: frames, announces, messages, gaps. What must hold: what callbacks get
 * is within the ring and true to what was announced; delivery ends with all consumed, or stopped
 * with a reason. The rings are made once, the client's tables anew for each input.
 */
#include "tests/fuzz/fuzz_main.h"

#include "clients/c/link_testing.h"
#include "core/assert.h"

static struct link_testing testing;
static struct ringside_subscription *late; /* with last values */
static uint8_t sum;
static uint64_t message_count;
static uint64_t event_count;

static void on_message(void *arg, const ringside_message_t *message)
{
    const uint8_t *base = testing.link.in.base;
    const uint8_t *data = message->data;
    rsi_assert(arg == &testing);
    rsi_assert(data >= base && data + message->bytes <= base + 2 * LINK_TESTING_RING_BYTES);
    rsi_assert(strlen(message->subject) == message->subject_bytes);
    rsi_assert(message->subject_bytes <= RSI_SUBJECT_BYTES_MAX);
    rsi_assert(strlen(message->publisher) <= RSI_NAME_BYTES_MAX);
    for (size_t i = 0; i < message->bytes; i++) {
        sum = (uint8_t)(sum + data[i]);
    }
    size_t cursor = 0;
    size_t header_count = 0;
    ringside_header_t header;
    while (ringside_header_next(message, &cursor, &header)) {
        const uint8_t *value = header.value;
        rsi_assert(value >= base && value + header.value_bytes <= data);
        rsi_assert(strlen(header.name) <= RINGSIDE_HEADER_NAME_BYTES_MAX);
        rsi_assert(ringside_header_find(message, header.name, NULL) != NULL);
        header_count++;
    }
    rsi_assert(header_count == message->header_count);
    message_count++;
}

static void on_event(void *arg, const ringside_event_t *event)
{
    (void)arg;
    rsi_assert(event->type == RINGSIDE_EVENT_GAP || event->type == RINGSIDE_EVENT_CURRENT ||
               event->type == RINGSIDE_EVENT_CONFLATED);
    rsi_assert(event->count > 0 || event->type == RINGSIDE_EVENT_CURRENT);
    rsi_assert(strlen(event->subject) <= RSI_SUBJECT_BYTES_MAX);
    event_count++;
}

static void begin(void)
{
    struct rsi_link *link = &testing.link;
    if (link->in.base == NULL) {
        link_testing_init(&testing);
        testing.client.options.on_event = on_event;
        link_testing_subscribe(&testing, ">", on_message, &testing);
        link_testing_subscribe(&testing, "a.*", on_message, &testing)->no_echo = 1;
        late = link_testing_subscribe(&testing, "*.b", on_message, &testing);
        late->id = 3;
        late->is_last = true;
    }
    rsi_announced_table_fini(&testing.client.announced);
    memset(&testing.client.announced, 0, sizeof(testing.client.announced));
    testing.client.is_deliver_stopped = false;
    testing.client.last_of = NULL;
    rsi_subscription_await_last(late);
    testing.client.deliver_pos = 0;
    link->arrived_pos = 0;
    link->consumed_pos = 0;
    rsi_store_relaxed(&link->failed, false);
}

/* Most inputs would not get past a commit word: help where it names a length. */
static void commit_frames(const struct rsi_ring *ring, uint64_t end_pos)
{
    for (uint64_t position = 0; position + RSI_FRAME_HEADER_BYTES <= end_pos;) {
        uint64_t *commit = (uint64_t *)(void *)rsi_ring_at(ring, position);
        uint64_t frame_bytes = (*commit & RSI_COMMIT_LENGTH_MASK) << 3;
        if ((*commit & 1ull << 63) != 0 || frame_bytes == 0) {
            return;
        }
        *commit = rsi_commit_word(position, frame_bytes);
        position += frame_bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    begin();
    struct rsi_link *link = &testing.link;
    uint64_t end_pos = bytes & ~(size_t)7;
    rsi_assert(end_pos <= LINK_TESTING_RING_BYTES);
    memcpy(link->in.base, data, end_pos);
    commit_frames(&link->in, end_pos);
    link->arrived_pos = end_pos;
    uint64_t count_before = message_count + event_count;
    size_t handled = rsi_client_deliver(&testing.client, 0);
    rsi_assert(handled <= message_count + event_count - count_before);
    rsi_assert(link->consumed_pos == testing.client.deliver_pos);
    if (testing.client.is_deliver_stopped) {
        rsi_assert(rsi_load_relaxed(&link->failed) && link->failure.text[0] != '\0');
    } else {
        rsi_assert(testing.client.deliver_pos == end_pos);
    }
    return 0;
}
