/*
 * Design notes
 * - The broker is the real one, as a library: no process to find, start or kill, and sanitizers see
 *   both sides.
 */
#include "clients/c/broker_testing.h"

static void *run(void *arg)
{
    struct broker_testing *testing = arg;
    testing->run_status = rsi_broker_run(testing->broker, NULL);
    return NULL;
}

static void add_listen(struct rsi_settings *settings, const char *url)
{
    snprintf(settings->listen[settings->listen_count], sizeof(settings->listen[0]), "%s", url);
    settings->listen_count++;
}

void broker_testing_init(struct broker_testing *testing)
{
    memset(testing, 0, sizeof(*testing));
    snprintf(testing->directory, sizeof(testing->directory), "/tmp/ringside-client-XXXXXX");
    assert_non_null(mkdtemp(testing->directory));
    snprintf(testing->shm_url, sizeof(testing->shm_url), "shm://%s/broker.sock",
             testing->directory);
    struct rsi_settings *settings = &testing->settings;
    rsi_settings_init(settings);
    settings->listen_count = 0;
    settings->listen_is_default = false;
    add_listen(settings, "tcp://127.0.0.1:0");
    add_listen(settings, testing->shm_url);
    snprintf(testing->sim_url, sizeof(testing->sim_url), "sim://client-%d", (int)getpid());
    add_listen(settings, testing->sim_url);
    settings->counters_path[0] = 0;
    settings->log_level = RSI_LOG_ERROR;
    rsi_log_set_level(RSI_LOG_ERROR);
    settings->log_bytes = 8u << 20;
    settings->client_count_max = 16;
    settings->publication_count_max = 64;
    settings->topic_count_max = 64;
}

/* The line of `urls` that begins with `scheme`. */
static void find_url(const char *urls, const char *scheme, char *url, size_t url_bytes)
{
    const char *line = strstr(urls, scheme);
    assert_non_null(line);
    snprintf(url, url_bytes, "%.*s", (int)strcspn(line, "\n"), line);
}

void broker_testing_start(struct broker_testing *testing)
{
    struct rsi_error error = {0};
    if (rsi_settings_check(&testing->settings, &error) != RSI_OK ||
        rsi_broker_create(&testing->broker, &testing->settings, &error) != RSI_OK) {
        fail_msg("broker: %s", error.text);
    }
    find_url(rsi_broker_urls(testing->broker), "tcp://", testing->tcp_url,
             sizeof(testing->tcp_url));
    assert_int_equal(pthread_create(&testing->thread, NULL, run, testing), 0);
    testing->is_running = true;
}

void broker_testing_stop(struct broker_testing *testing)
{
    if (!testing->is_running) {
        return;
    }
    rsi_broker_stop(testing->broker);
    assert_int_equal(pthread_join(testing->thread, NULL), 0);
    testing->is_running = false;
}

void broker_testing_fini(struct broker_testing *testing)
{
    broker_testing_stop(testing);
    rsi_broker_destroy(testing->broker);
    testing->broker = NULL;
    rsi_settings_fini(&testing->settings);
    (void)rmdir(testing->directory);
}

void recorder_on_message(void *arg, const ringside_message_t *message)
{
    struct recorder *recorder = arg;
    assert_true(recorder->count < RECORD_COUNT_MAX);
    struct record *record = &recorder->records[recorder->count++];
    assert_int_equal(strlen(message->subject), message->subject_bytes);
    snprintf(record->subject, sizeof(record->subject), "%s", message->subject);
    snprintf(record->publisher, sizeof(record->publisher), "%s", message->publisher);
    size_t kept_bytes =
        message->bytes < sizeof(record->first_bytes) ? message->bytes : sizeof(record->first_bytes);
    memset(record->first_bytes, 0, sizeof(record->first_bytes));
    if (kept_bytes > 0) {
        memcpy(record->first_bytes, message->data, kept_bytes);
    }
    record->bytes = message->bytes;
    record->sum = 0;
    for (size_t at = 0; at < message->bytes; at++) {
        record->sum += ((const uint8_t *)message->data)[at];
    }
    record->sequence = message->sequence;
    record->publication = message->publication;
}

void recorder_on_event(void *arg, const ringside_event_t *event)
{
    struct recorder *recorder = arg;
    recorder->event_count++;
    recorder->last_event = event->type;
    recorder->last_status = event->status;
    snprintf(recorder->last_text, sizeof(recorder->last_text), "%s", event->text);
}
