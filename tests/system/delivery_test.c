/*
 * Every message arrives: once, in order, with every byte; a million of them, and every size.
 *
 * Design notes
 * - Contents are computed from the message's number, on both sides; so a message that is lost,
 *   doubled, reordered, or holds bytes of another lap of a ring, is told from the right one.
 * - The subscriber's policy is block: nothing may be dropped however uneven the processes run.
 */
#include "tests/system/harness.h"

#include <stdlib.h>

enum { STEP_SUBSCRIBED = 1, STEP_CONNECTED = 1, STEP_GO = 1, STEP_PUBLISHED = 2, STEP_LEAVE = 2 };

/* ---- a million ---------------------------------------------------------------------------------
 */

enum { SMALL_BYTES = 64, SMALL_WORD_COUNT = SMALL_BYTES / 8 };

struct stream {
    uint64_t count;
    struct actor *self;
    uint64_t received_count;
    uint64_t checksum;
    uint64_t publication;
};

static void make_small(uint64_t *words, uint64_t index)
{
    uint64_t state = options.seed + index;
    words[0] = index;
    for (size_t word = 1; word < SMALL_WORD_COUNT; word++) {
        words[word] = random_next(&state);
    }
}

static uint64_t add_to_checksum(uint64_t checksum, const uint64_t *words)
{
    for (size_t word = 0; word < SMALL_WORD_COUNT; word++) {
        checksum = (checksum ^ words[word]) * UINT64_C(0x100000001b3);
    }
    return checksum;
}

static void on_small(void *arg, const ringside_message_t *message)
{
    struct stream *stream = arg;
    uint64_t words[SMALL_WORD_COUNT];
    uint64_t wanted[SMALL_WORD_COUNT];
    check(message->bytes == SMALL_BYTES, "message %" PRIu64 " has %zu bytes",
          stream->received_count, message->bytes);
    memcpy(words, message->data, sizeof(words));
    check(words[0] == stream->received_count && message->sequence == stream->received_count + 1,
          "message %" PRIu64 " (sequence %" PRIu64 ") came where %" PRIu64 " was due", words[0],
          message->sequence, stream->received_count);
    make_small(wanted, stream->received_count);
    check(memcmp(words, wanted, sizeof(words)) == 0, "message %" PRIu64 " holds other bytes",
          stream->received_count);
    stream->checksum = add_to_checksum(stream->checksum, words);
    stream->received_count++;
    if (stream->received_count % 256 == 0) {
        actor_set_progress(stream->self, stream->received_count);
    }
}

static void receive_million(struct actor *self, void *arg)
{
    struct stream stream = {.count = *(uint64_t *)arg, .self = self};
    ringside_client_t *client = actor_connect(self, NULL);
    actor_subscribe(client, "system.million", RINGSIDE_POLICY_BLOCK, on_small, &stream);
    actor_reach(self, STEP_SUBSCRIBED);
    while (stream.received_count < stream.count) {
        actor_poll(client);
    }
    /* Until the publisher has left: a doubled message would come now. */
    while (!actor_is_allowed(self, STEP_LEAVE)) {
        actor_poll(client);
    }
    check(stream.received_count == stream.count, "%" PRIu64 " more messages than were sent",
          stream.received_count - stream.count);
    actor_set_result(self, 0, stream.checksum);
    actor_close(client);
}

static void publish_million(struct actor *self, void *arg)
{
    uint64_t count = *(uint64_t *)arg;
    uint64_t checksum = 0;
    uint64_t words[SMALL_WORD_COUNT];
    ringside_client_t *client = actor_connect(self, NULL);
    ringside_publisher_t *publisher = actor_publisher(client, "system.million");
    actor_reach(self, STEP_CONNECTED);
    actor_await_allowed(self, STEP_GO);
    for (uint64_t index = 0; index < count; index++) {
        make_small(words, index);
        checksum = add_to_checksum(checksum, words);
        actor_publish(client, publisher, words, sizeof(words));
        if (index % 256 == 0) {
            actor_set_progress(self, index);
        }
    }
    actor_set_result(self, 0, checksum);
    actor_flush(client);
    ringside_link_stats_t stats = actor_stats(client);
    actor_set_result(self, 1, stats.sends);
    actor_set_result(self, 2, stats.credit_stalls);
    actor_close(client);
}

static void test_million(void)
{
    uint64_t count = scaled(1000000, 1000);
    struct broker broker;
    struct actor publisher;
    struct actor subscriber;
    broker_start(&broker, NULL);
    actor_start(&subscriber, "reader", &broker, receive_million, &count);
    actor_await_step(&subscriber, STEP_SUBSCRIBED);
    actor_start(&publisher, "writer", &broker, publish_million, &count);
    actor_await_step(&publisher, STEP_CONNECTED);
    uint64_t start_ns = now_ns();
    actor_allow(&publisher, STEP_GO);
    actor_join(&publisher);
    actor_allow(&subscriber, STEP_LEAVE);
    actor_join(&subscriber);
    double seconds = (double)(now_ns() - start_ns) / 1e9;
    check(actor_result(&publisher, 0) == actor_result(&subscriber, 0),
          "checksums differ: sent %016" PRIx64 ", received %016" PRIx64,
          actor_result(&publisher, 0), actor_result(&subscriber, 0));
    tell("%" PRIu64 " messages of %d bytes in %.2f s, checksum %016" PRIx64 ", %" PRIu64
         " sends by the publisher, %" PRIu64 " waits for credit",
         count, SMALL_BYTES, seconds, actor_result(&publisher, 0), actor_result(&publisher, 1),
         actor_result(&publisher, 2));
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

/* ---- every size --------------------------------------------------------------------------------
 */

enum { EVERY_SIZE_MAX = 4096, RANDOM_SIZE_COUNT = 200, SIZE_COUNT_MAX = 5000 };

struct sizes {
    size_t bytes[SIZE_COUNT_MAX];
    size_t count;
};

static void add_size(struct sizes *sizes, uint64_t bytes, uint64_t max)
{
    check(sizes->count < SIZE_COUNT_MAX, "too many sizes");
    if (bytes <= max) {
        sizes->bytes[sizes->count++] = (size_t)bytes;
    }
}

/* The same on both sides: a function of the options and of the largest message. */
static void make_sizes(struct sizes *sizes, uint64_t max)
{
    uint64_t state = options.seed;
    uint64_t step = options.scale;
    sizes->count = 0;
    for (uint64_t bytes = 0; bytes <= EVERY_SIZE_MAX; bytes += step) {
        add_size(sizes, bytes, max);
    }
    for (uint64_t power = 4; power <= max; power *= 2) {
        for (uint64_t bytes = power - 2; bytes <= power + 2; bytes++) {
            add_size(sizes, bytes, max);
        }
    }
    add_size(sizes, max, max);
    for (uint64_t index = 0; index < scaled(RANDOM_SIZE_COUNT, 20); index++) {
        add_size(sizes, random_next(&state) % (max + 1), max);
    }
}

static void fill_bytes(uint8_t *data, size_t bytes, uint64_t index)
{
    uint64_t state = options.seed ^ (index << 32);
    size_t at = 0;
    for (; at + 8 <= bytes; at += 8) {
        uint64_t word = random_next(&state);
        memcpy(data + at, &word, 8);
    }
    for (uint64_t word = random_next(&state); at < bytes; at++, word >>= 8) {
        data[at] = (uint8_t)word;
    }
}

struct sized_stream {
    struct sizes sizes;
    size_t received_count;
    size_t after_count; /* messages behind the refused ones */
    struct actor *self;
    uint8_t *wanted;
};

static void on_sized(void *arg, const ringside_message_t *message)
{
    struct sized_stream *stream = arg;
    size_t index = stream->received_count++;
    actor_set_progress(stream->self, stream->received_count);
    if (index >= stream->sizes.count) {
        check(message->bytes == 5 && memcmp(message->data, "after", 5) == 0,
              "the message behind the refused ones has %zu bytes", message->bytes);
        return;
    }
    size_t bytes = stream->sizes.bytes[index];
    check(message->bytes == bytes, "message %zu has %zu bytes, not %zu", index, message->bytes,
          bytes);
    fill_bytes(stream->wanted, bytes, index);
    check(memcmp(message->data, stream->wanted, bytes) == 0,
          "message %zu of %zu bytes holds other bytes", index, bytes);
}

static void receive_sizes(struct actor *self, void *arg)
{
    static struct sized_stream stream;
    (void)arg;
    ringside_client_t *client = actor_connect(self, NULL);
    stream.self = self;
    make_sizes(&stream.sizes, ringside_message_bytes_max(client));
    stream.wanted = malloc(ringside_message_bytes_max(client));
    check(stream.wanted != NULL, "no memory");
    actor_subscribe(client, "system.sizes", RINGSIDE_POLICY_BLOCK, on_sized, &stream);
    actor_reach(self, STEP_SUBSCRIBED);
    while (stream.received_count <= stream.sizes.count) {
        actor_poll(client);
    }
    while (!actor_is_allowed(self, STEP_LEAVE)) {
        actor_poll(client);
    }
    check(stream.received_count == stream.sizes.count + 1, "%zu messages instead of %zu",
          stream.received_count, stream.sizes.count + 1);
    actor_close(client);
    free(stream.wanted);
}

/* Every second one is written in place. */
static void publish_sized(ringside_client_t *client, ringside_publisher_t *publisher, uint8_t *data,
                          size_t bytes, size_t index)
{
    if (index % 2 == 0) {
        fill_bytes(data, bytes, index);
        actor_publish(client, publisher, data, bytes);
        return;
    }
    void *buffer = NULL;
    ringside_status_t status;
    while ((status = ringside_claim(publisher, bytes, &buffer)) == RINGSIDE_WOULD_BLOCK) {
        actor_poll(client);
    }
    check(status == RINGSIDE_OK, "claim of %zu bytes: %s", bytes, ringside_error_text(client));
    fill_bytes(buffer, bytes, index);
    check(ringside_commit(publisher, bytes) == RINGSIDE_OK, "commit of %zu bytes: %s", bytes,
          ringside_error_text(client));
}

static void check_refused(struct actor *self, ringside_client_t *client,
                          ringside_publisher_t *publisher, const uint8_t *data)
{
    char limit[32];
    void *buffer = NULL;
    size_t max = ringside_message_bytes_max(client);
    snprintf(limit, sizeof(limit), "%zu", max);
    ringside_status_t status = ringside_publish(publisher, data, max + 1);
    check(status == RINGSIDE_E_TOO_LARGE, "publish of one byte too many: %s",
          ringside_status_name(status));
    check_text(ringside_error_text(client), limit);
    check_text(ringside_error_text(client), "message_bytes_max");
    snprintf(self->shared->text, sizeof(self->shared->text), "%s", ringside_error_text(client));
    status = ringside_claim(publisher, max + 1, &buffer);
    check(status == RINGSIDE_E_TOO_LARGE, "claim of one byte too many: %s",
          ringside_status_name(status));
}

static void publish_sizes(struct actor *self, void *arg)
{
    static struct sizes sizes;
    (void)arg;
    ringside_client_t *client = actor_connect(self, NULL);
    ringside_publisher_t *publisher = actor_publisher(client, "system.sizes");
    size_t max = ringside_message_bytes_max(client);
    uint8_t *data = malloc(max + 1);
    check(data != NULL, "no memory");
    make_sizes(&sizes, max);
    for (size_t index = 0; index < sizes.count; index++) {
        publish_sized(client, publisher, data, sizes.bytes[index], index);
        actor_set_progress(self, index);
    }
    check_refused(self, client, publisher, data);
    actor_publish(client, publisher, "after", 5);
    actor_flush(client);
    actor_set_result(self, 0, sizes.count);
    actor_set_result(self, 1, actor_stats(client).placed_bytes);
    actor_set_result(self, 2, max);
    actor_reach(self, STEP_PUBLISHED);
    actor_close(client);
    free(data);
}

static void test_sizes(void)
{
    enum { RING_BYTES = 2 << 20 }; /* the default */
    struct broker broker;
    struct actor publisher;
    struct actor subscriber;
    broker_start(&broker, NULL);
    actor_start(&subscriber, "reader", &broker, receive_sizes, NULL);
    actor_await_step(&subscriber, STEP_SUBSCRIBED);
    actor_start(&publisher, "writer", &broker, publish_sizes, NULL);
    actor_join(&publisher);
    actor_allow(&subscriber, STEP_LEAVE);
    actor_join(&subscriber);
    uint64_t lap_count = actor_result(&publisher, 1) / RING_BYTES;
    tell("%" PRIu64 " sizes up to %" PRIu64 " bytes, %" PRIu64 " times across the ring's end",
         actor_result(&publisher, 0), actor_result(&publisher, 2), lap_count);
    tell("one byte too many: %s", publisher.shared->text);
    check(lap_count >= 2, "only %" PRIu64 " bytes were placed: the ring's end was not crossed",
          actor_result(&publisher, 1));
    check(broker_stop(&broker) == 0, "the broker did not stop cleanly");
}

int main(int argc, char **argv)
{
    static const struct system_test tests[] = {
        {"million", test_million, NULL},
        {"sizes", test_sizes, NULL},
    };
    return system_tests_main(argc, argv, tests, rsi_array_count(tests));
}
