/*
 * Prints what is published until Ctrl-C or the end of the connection: subscribe [URL [SUBJECT]]
 *
 * Shows a subscription, events, and a loop that a signal can end.
 */
#include <ringside.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#define SECOND_NS 1000000000ull

static volatile sig_atomic_t is_stopped;

static void on_signal(int number)
{
    (void)number;
    is_stopped = 1;
}

/* The message is valid until this returns: copy what is needed longer. */
static void on_message(void *arg, const ringside_message_t *message)
{
    (void)arg;
    printf("%s #%" PRIu64 " from %s: %.*s\n", message->subject, message->sequence,
           message->publisher, (int)message->bytes, (const char *)message->data);
}

static void on_event(void *arg, const ringside_event_t *event)
{
    (void)arg;
    if (event->type == RINGSIDE_EVENT_GAP) {
        printf("%s: %" PRIu64 " messages of %s were left out\n", event->subject, event->count,
               event->publisher);
    } else {
        printf("%s\n", event->text);
    }
}

int main(int argc, char **argv)
{
    const char *url = argc > 1 ? argv[1] : "auto://localhost";
    const char *subject = argc > 2 ? argv[2] : "example.>";
    const ringside_options_t options = {.struct_bytes = sizeof(options), .on_event = on_event};
    ringside_client_t *client;
    ringside_subscription_t *subscription;

    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    if (ringside_connect(&client, url, &options) != RINGSIDE_OK) {
        fprintf(stderr, "%s\n", ringside_last_error());
        return 1;
    }
    ringside_status_t status =
        ringside_subscribe(&subscription, client, subject, NULL, on_message, NULL);

    /* All callbacks run inside ringside_poll; a signal ends its wait. */
    while (status == RINGSIDE_OK && !is_stopped) {
        status = ringside_poll(client, 0, SECOND_NS, NULL);
    }
    if (status != RINGSIDE_OK) {
        fprintf(stderr, "%s\n", ringside_error_text(client));
    }
    ringside_close(client, 5 * SECOND_NS);
    return status == RINGSIDE_OK ? 0 : 1;
}
