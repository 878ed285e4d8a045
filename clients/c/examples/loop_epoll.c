/*
 * A client in an epoll loop: loop_epoll [URL]
 *
 * Publishes ten messages, one per tick of a timer, receives them, and ends.
 */
#include <ringside.h>

#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define SECOND_NS     1000000000ull
#define MESSAGE_COUNT 10

static int received_count;

static void on_message(void *arg, const ringside_message_t *message)
{
    (void)arg;
    printf("%.*s\n", (int)message->bytes, (const char *)message->data);
    received_count++;
}

/* Until there is nothing to do any more: only then does the descriptor tell of the next thing. */
static int work(ringside_client_t *client)
{
    size_t handled = 1;
    while (handled > 0) {
        if (ringside_poll(client, 0, 0, &handled) != RINGSIDE_OK) {
            return 0;
        }
    }
    return 1;
}

static int watch(int epoll_fd, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static int run(ringside_client_t *client, ringside_publisher_t *publisher, int epoll_fd,
               int timer_fd)
{
    int sent_count = 0;
    while (received_count < MESSAGE_COUNT) {
        struct epoll_event events[2];
        int count = epoll_wait(epoll_fd, events, 2, -1);
        for (int index = 0; index < count; index++) {
            uint64_t tick_count;
            char line[32];
            if (events[index].data.fd != timer_fd) {
                continue;
            }
            if (read(timer_fd, &tick_count, sizeof(tick_count)) < 0 ||
                sent_count == MESSAGE_COUNT) {
                continue;
            }
            int bytes = snprintf(line, sizeof(line), "message %d", sent_count + 1);
            ringside_status_t status = ringside_publish(publisher, line, (size_t)bytes);
            if (status < 0) {
                return 0;
            }
            sent_count += status == RINGSIDE_OK; /* else the ring is full: with the next tick */
        }
        if (!work(client)) {
            return 0;
        }
    }
    return 1;
}

int main(int argc, char **argv)
{
    ringside_client_t *client;
    ringside_subscription_t *subscription;
    ringside_publisher_t *publisher;
    const struct itimerspec tick = {.it_value = {.tv_nsec = 1000000},
                                    .it_interval = {.tv_nsec = 1000000}};

    if (ringside_connect(&client, argc > 1 ? argv[1] : "auto://localhost", NULL) != RINGSIDE_OK) {
        fprintf(stderr, "%s\n", ringside_last_error());
        return 1;
    }
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int is_fine =
        epoll_fd >= 0 && timer_fd >= 0 && timerfd_settime(timer_fd, 0, &tick, NULL) == 0 &&
        watch(epoll_fd, timer_fd) && watch(epoll_fd, ringside_fd(client)) &&
        ringside_subscribe(&subscription, client, "example.epoll", NULL, on_message, NULL) ==
            RINGSIDE_OK &&
        ringside_publisher_create(&publisher, client, "example.epoll", 0) == RINGSIDE_OK &&
        run(client, publisher, epoll_fd, timer_fd);
    if (!is_fine) {
        fprintf(stderr, "%s\n", ringside_error_text(client));
    }
    ringside_close(client, 5 * SECOND_NS);
    close(timer_fd);
    close(epoll_fd);
    return is_fine ? 0 : 1;
}
