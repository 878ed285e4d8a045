/*
 * Design notes
 * - Nobody sleeps, but for readers where a case wants that: agents and clients wait busily, so
 * whatever the kernel is asked for on the way of a message stands out. The control agent sleeps,
 * and is not watched.
 * - One listener, so that an agent has one poller and a pass of the agent is a pass of the poller.
 * - On machines with fewer cores than threads the clients give their core away when they find
 *   nothing to do (watch_yield, not counted); else they would spin until the scheduler takes it.
 */
#include "tests/hot_path/stage.h"

#include "core/compiler.h"
#include "tests/hot_path/watch.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HANG_NS UINT64_C(30000000000)
/* At most, for a reader that sleeps until it is woken. */
#define SLEEP_NS UINT64_C(1000000000)
/* Passes of the writer without room after which it counts as pushed back. */
#define PUSHED_BACK_PASSES 100u

void stage_fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    printf("        ");
    vprintf(format, list);
    printf("\n");
    va_end(list);
    watch_exit(1);
}

static void must(ringside_status_t status, ringside_client_t *client, const char *what)
{
    if (status != RINGSIDE_OK) {
        stage_fail("%s: %s: %s", what, ringside_status_name(status),
                   client != NULL ? ringside_error_text(client) : ringside_last_error());
    }
}

/* ---- the broker --------------------------------------------------------------------------------
 */

static void *run_broker(void *arg)
{
    struct stage *stage = arg;
    struct rsi_error error = {0};
    if (rsi_broker_run(stage->broker, &error) != RSI_OK) {
        stage_fail("broker: %s", error.text);
    }
    return NULL;
}

static void start_broker(struct stage *stage)
{
    struct rsi_settings *settings = &stage->settings;
    rsi_settings_init(settings);
    rsi_log_set_level(RSI_LOG_ERROR);
    settings->log_level = RSI_LOG_ERROR;
    settings->listen_is_default = false;
    settings->listen_count = 1;
    snprintf(stage->directory, sizeof(stage->directory), "/tmp/ringside-hot-path-XXXXXX");
    if (mkdtemp(stage->directory) == NULL) {
        stage_fail("cannot make %s", stage->directory);
    }
    if (strcmp(stage->options.transport, "shm") == 0) {
        snprintf(settings->listen[0], sizeof(settings->listen[0]), "shm://%s/broker.sock",
                 stage->directory);
    } else {
        bool is_rdma = strcmp(stage->options.transport, "rdma") == 0;
        snprintf(settings->listen[0], sizeof(settings->listen[0]), "%s://%s:0",
                 stage->options.transport, is_rdma ? "10.7.0.1" : "127.0.0.1");
    }
    settings->counters_path[0] = '\0';
    settings->agent_count = stage->options.agent_count;
    settings->walk_seed = 1;
    settings->wait = RSI_IDLE_BUSY;
    settings->log_bytes = STAGE_LOG_BYTES;
    settings->message_bytes_max = STAGE_DELIVER_RING_BYTES / 4;
    settings->client_count_max = 8;
    settings->publication_count_max = 64;
    settings->topic_count_max = 64;
    struct rsi_error error = {0};
    if (rsi_settings_check(settings, &error) != RSI_OK ||
        rsi_broker_create(&stage->broker, settings, &error) != RSI_OK) {
        stage_fail("broker: %s", error.text);
    }
    if (pthread_create(&stage->thread, NULL, run_broker, stage) != 0) {
        stage_fail("no thread for the broker");
    }
}

/* ---- the clients -------------------------------------------------------------------------------
 */

static void on_message(void *arg, const ringside_message_t *message)
{
    struct stage_reader *reader = arg;
    uint64_t word = 0;
    memcpy(&word, message->data, message->bytes < sizeof(word) ? message->bytes : sizeof(word));
    reader->sum += word;
    reader->message_count++;
    if (reader->message_count % 8 == 0) {
        uint64_t at = reader->message_count / 8 % STAGE_HOLD_COUNT;
        must(ringside_release(reader->holds[at]), reader->client, "release");
        must(ringside_hold(reader->client, message, &reader->holds[at]), reader->client, "hold");
    }
}

/* A held message holds the ring: none is kept while nothing comes. */
static void release_all(struct stage_reader *reader)
{
    for (unsigned at = 0; at < STAGE_HOLD_COUNT; at++) {
        must(ringside_release(reader->holds[at]), reader->client, "release");
        reader->holds[at] = NULL;
    }
}

/* A second subscription of each session, so that one frame has two callbacks. */
static void on_message_too(void *arg, const ringside_message_t *message)
{
    struct stage_reader *reader = arg;
    reader->sum += message->bytes + (ringside_header_find(message, "H", NULL) != NULL);
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct stage_reader *reader = arg;
    if (event->type == RINGSIDE_EVENT_GAP && reader != NULL) {
        reader->missed_count += event->count;
        reader->gap_count++;
    } else if (event->type != RINGSIDE_EVENT_CONNECTED) {
        stage_fail("event %d: %s", (int)event->type, event->text);
    }
}

static ringside_client_t *connect_client(struct stage *stage, const char *name,
                                         struct stage_reader *reader)
{
    ringside_options_t options = {
        .struct_bytes = sizeof(options),
        .client_name = name,
        .bind_host = strcmp(stage->options.transport, "rdma") == 0 ? "10.7.0.2" : NULL,
        .publish_ring_bytes = reader == NULL ? STAGE_PUBLISH_RING_BYTES : UINT64_MAX,
        .deliver_ring_bytes = reader != NULL ? STAGE_DELIVER_RING_BYTES : UINT64_MAX,
        .message_bytes_max = STAGE_DELIVER_RING_BYTES / 4,
        .wait = reader != NULL && stage->options.readers_sleep ? RINGSIDE_WAIT_BLOCKING
                                                               : RINGSIDE_WAIT_BUSY,
        .on_event = on_event,
        .event_arg = reader,
    };
    char url[RSI_SETTING_TEXT_BYTES];
    const char *urls = rsi_broker_urls(stage->broker);
    snprintf(url, sizeof(url), "%.*s", (int)strcspn(urls, "\n"), urls);
    ringside_client_t *client = NULL;
    must(ringside_connect(&client, url, &options), NULL, "connect");
    return client;
}

static void subscribe(struct stage *stage, struct stage_reader *reader, const char *pattern,
                      ringside_on_message_t callback)
{
    const ringside_subscribe_options_t options = {.struct_bytes = sizeof(options),
                                                  .policy = stage->options.policy};
    ringside_subscription_t *subscription = NULL;
    must(ringside_subscribe(&subscription, reader->client, pattern, &options, callback, reader),
         reader->client, "subscribe");
}

void stage_open(struct stage *stage, const struct stage_options *options)
{
    memset(stage, 0, sizeof(*stage));
    stage->options = *options;
    start_broker(stage);
    watch_join(STAGE_CLIENT_ROLE);
    stage->writer = connect_client(stage, "writer", NULL);
    for (unsigned i = 0; i < options->reader_count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "reader%u", i);
        struct stage_reader *reader = &stage->readers[i];
        reader->client = connect_client(stage, name, reader);
        subscribe(stage, reader, "hot.>", on_message);
        subscribe(stage, reader, "hot.*.0", on_message_too);
    }
    for (unsigned i = 0; i < STAGE_PUBLISHER_COUNT; i++) {
        char subject[16];
        snprintf(subject, sizeof(subject), "hot.path.%u", i);
        must(ringside_publisher_create(&stage->publishers[i], stage->writer, subject, 0),
             stage->writer, "publisher");
    }
}

/* ---- traffic -----------------------------------------------------------------------------------
 */

static uint8_t payload[STAGE_DELIVER_RING_BYTES];

void stage_poll_writer(struct stage *stage)
{
    must(ringside_poll(stage->writer, 0, 0, NULL), stage->writer, "poll");
    watch_yield();
}

void stage_poll_readers(struct stage *stage)
{
    size_t handled_count = 0;
    uint64_t timeout_ns = stage->options.readers_sleep ? SLEEP_NS : 0;
    for (unsigned i = 0; i < stage->options.reader_count; i++) {
        ringside_client_t *client = stage->readers[i].client;
        size_t handled = 0;
        must(ringside_poll(client, 64, timeout_ns, &handled), client, "poll");
        release_all(&stage->readers[i]);
        handled_count += handled;
    }
    if (handled_count == 0) {
        watch_yield();
    }
}

uint64_t stage_wake_requests(const struct stage *stage)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < stage->options.reader_count; i++) {
        ringside_link_stats_t stats = {.struct_bytes = sizeof(stats)};
        must(ringside_stats(stage->readers[i].client, &stats), stage->readers[i].client, "stats");
        count += stats.wake_requests;
    }
    return count;
}

static ringside_status_t publish_once(struct stage *stage, size_t bytes)
{
    ringside_publisher_t *publisher =
        stage->publishers[stage->published_count / 2 % STAGE_PUBLISHER_COUNT];
    memcpy(payload, &stage->published_count, sizeof(stage->published_count));
    if (stage->published_count % 4 == 2) { /* as many bytes in all: a header takes 8 */
        const ringside_header_t header = {"h", "v", 1};
        return ringside_publish_with(publisher, &header, 1, payload, bytes - 8);
    }
    if (stage->published_count % 2 == 0) {
        return ringside_publish(publisher, payload, bytes);
    }
    void *buffer = NULL;
    ringside_status_t status = ringside_claim(publisher, bytes, &buffer);
    if (status != RINGSIDE_OK) {
        return status;
    }
    if (stage->published_count % 32 == 1) { /* thinks better of it, and claims once more */
        ringside_abort(publisher);
        must(ringside_claim(publisher, bytes, &buffer), stage->writer, "claim");
    }
    memcpy(buffer, payload, bytes);
    return ringside_commit(publisher, bytes);
}

void stage_publish(struct stage *stage, size_t bytes, bool with_readers)
{
    uint64_t deadline_ns = 0;
    ringside_status_t status;
    while ((status = publish_once(stage, bytes)) == RINGSIDE_WOULD_BLOCK) {
        stage_poll_writer(stage);
        if (with_readers) {
            stage_poll_readers(stage);
        }
        uint64_t now_ns = watch_now_ns();
        deadline_ns = deadline_ns == 0 ? now_ns + HANG_NS : deadline_ns;
        if (now_ns > deadline_ns) {
            stage_fail("no room to publish message %llu",
                       (unsigned long long)stage->published_count);
        }
    }
    must(status, stage->writer, "publish");
    stage->published_count++;
}

void stage_publish_until_pushed_back(struct stage *stage, size_t bytes)
{
    unsigned refused_count = 0;
    uint64_t limit = stage->published_count + 4 * STAGE_LOG_BYTES / bytes;
    while (refused_count < PUSHED_BACK_PASSES) {
        ringside_status_t status = publish_once(stage, bytes);
        if (status == RINGSIDE_WOULD_BLOCK) {
            stage_poll_writer(stage);
            refused_count++;
            continue;
        }
        must(status, stage->writer, "publish");
        refused_count = 0;
        if (++stage->published_count == limit) {
            stage_fail("never pushed back");
        }
    }
}

static bool is_drained(const struct stage *stage)
{
    for (unsigned i = 0; i < stage->options.reader_count; i++) {
        const struct stage_reader *reader = &stage->readers[i];
        if (reader->message_count + reader->missed_count < stage->published_count) {
            return false;
        }
    }
    return true;
}

void stage_drain(struct stage *stage)
{
    uint64_t deadline_ns = watch_now_ns() + HANG_NS;
    for (uint32_t pass = 1; !is_drained(stage); pass++) {
        stage_poll_writer(stage);
        stage_poll_readers(stage);
        if (pass % 1024 == 0 && watch_now_ns() > deadline_ns) {
            stage_fail("of %llu messages reader0 has %llu and missed %llu",
                       (unsigned long long)stage->published_count,
                       (unsigned long long)stage->readers[0].message_count,
                       (unsigned long long)stage->readers[0].missed_count);
        }
    }
    for (unsigned i = 0; i < stage->options.reader_count; i++) {
        const struct stage_reader *reader = &stage->readers[i];
        if (reader->message_count + reader->missed_count != stage->published_count) {
            stage_fail("reader%u got %llu and missed %llu of %llu messages", i,
                       (unsigned long long)reader->message_count,
                       (unsigned long long)reader->missed_count,
                       (unsigned long long)stage->published_count);
        }
    }
}
