/* Publishes to itself through the broker at the URL given, and says so. */
#include <ringside.h>

#include <stdio.h>
#include <string.h>

static void take(void *arg, const ringside_message_t *message)
{
    int *count = arg;
    if (message->bytes == 5 && memcmp(message->data, "hello", 5) == 0) {
        ++*count;
    }
}

static int stop(const char *what, const char *text)
{
    fprintf(stderr, "%s: %s\n", what, text);
    return 1;
}

int main(int argc, char **argv)
{
    ringside_client_t *client;
    ringside_subscription_t *subscription;
    ringside_publisher_t *publisher;
    int count = 0;
    if (argc != 2) {
        return stop("usage", "consumer URL");
    }
    if (ringside_connect(&client, argv[1], NULL) != RINGSIDE_OK) {
        return stop("connect", ringside_last_error());
    }
    if (ringside_subscribe(&subscription, client, "install.*", NULL, take, &count) != RINGSIDE_OK ||
        ringside_publisher_create(&publisher, client, "install.test", 0) != RINGSIDE_OK ||
        ringside_publish(publisher, "hello", 5) != RINGSIDE_OK) {
        return stop("publish", ringside_error_text(client));
    }
    while (count == 0) {
        if (ringside_poll(client, 0, 20000000000ull, NULL) != RINGSIDE_OK) {
            return stop("poll", ringside_error_text(client));
        }
    }
    if (ringside_close(client, 5000000000ull) != RINGSIDE_OK) {
        return stop("close", ringside_last_error());
    }
    printf("ringside %s: %d message\n", ringside_version(), count);
    return 0;
}
