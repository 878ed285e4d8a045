/*
 * A worker of a service: service [-u URL] [-b HOST] [-g GROUP]
 *
 * Adds up the numbers of each request on "svc.sum" and replies with the sum. Start as many as you
 * like: as members of one queue group they share the requests. On Ctrl-C it leaves without losing
 * any: it drains, which means that it gets no new requests, answers those that it was given, and
 * then ends.
 */
#include <err.h>
#include <inttypes.h>
#include <ringside.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull

static volatile sig_atomic_t is_stopped;

struct service {
    uint64_t answered_count;
    int is_drained;
};

static void on_signal(int number)
{
    (void)number;
    is_stopped = 1;
}

/* Adds up decimal numbers with blanks between them. 0: it is not a list of numbers. */
static int add_up(const char *text, long long *sum)
{
    *sum = 0;
    while (*text != '\0') {
        char *end;
        *sum += strtoll(text, &end, 10);
        if (end == text) {
            return 0;
        }
        text = end + strspn(end, " ");
    }
    return 1;
}

static void on_request(void *arg, const ringside_message_t *message)
{
    struct service *service = arg;
    char text[1024];
    char reply[64];
    long long sum;
    if (!message->is_request) {
        return; /* somebody published on the subject and awaits nothing */
    }
    int is_short = message->bytes < sizeof(text);
    snprintf(text, sizeof(text), "%.*s", (int)message->bytes, (const char *)message->data);
    int bytes = is_short && add_up(text, &sum) ? snprintf(reply, sizeof(reply), "%lld", sum)
                                               : snprintf(reply, sizeof(reply), "not numbers");
    ringside_status_t status = ringside_reply(message, reply, (size_t)bytes);
    if (status != RINGSIDE_OK) {
        /* The ring is full: the caller hears nothing and its time runs out. A service that must not
         * lose a reply keeps message->request and replies after the next poll. */
        warnx("a reply was not sent: %s", ringside_status_name(status));
        return;
    }
    service->answered_count++;
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct service *service = arg;
    if (event->type == RINGSIDE_EVENT_DRAINED) {
        service->is_drained = 1;
    } else {
        fprintf(stderr, "%s\n", event->text);
    }
}

int main(int argc, char **argv)
{
    struct service service = {0};
    const char *url = "auto://127.0.0.1:7400";
    const char *bind_host = NULL; /* rdma, where two devices lead to one network */
    const char *group = "workers";
    int flag;
    while ((flag = getopt(argc, argv, "u:b:g:")) != -1) {
        switch (flag) {
        case 'u':
            url = optarg;
            break;
        case 'b':
            bind_host = optarg;
            break;
        case 'g':
            group = optarg;
            break;
        default:
            return 2;
        }
    }
    if (optind != argc) {
        errx(2, "usage: service [-u URL] [-b HOST] [-g GROUP]");
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .bind_host = bind_host,
                                        .on_event = on_event,
                                        .event_arg = &service};
    const ringside_subscribe_options_t one_of_many = {.struct_bytes = sizeof(one_of_many),
                                                      .group = group};
    ringside_client_t *client;
    ringside_subscription_t *subscription;
    if (ringside_connect(&client, url, &options) != RINGSIDE_OK) {
        errx(1, "%s", ringside_last_error());
    }
    if (ringside_subscribe(&subscription, client, "svc.sum", &one_of_many, on_request, &service) !=
        RINGSIDE_OK) {
        errx(1, "%s", ringside_error_text(client));
    }
    while (!is_stopped) {
        if (ringside_poll(client, 0, SECOND_NS, NULL) < 0) {
            errx(1, "%s", ringside_error_text(client));
        }
    }
    if (ringside_drain(subscription) != RINGSIDE_OK) {
        errx(1, "%s", ringside_error_text(client));
    }
    while (!service.is_drained) {
        if (ringside_poll(client, 0, SECOND_NS, NULL) < 0) {
            errx(1, "%s", ringside_error_text(client));
        }
    }
    printf("answered %" PRIu64 " requests\n", service.answered_count);
    /* Waits until the last replies have arrived at the broker. */
    return ringside_close(client, 5 * SECOND_NS) == RINGSIDE_OK ? 0 : 1;
}
