/*
 * A client in a libev loop: loop_ev [URL]
 *
 * Publishes ten messages, one per tick of a timer, receives them, and ends.
 */
#include <ringside.h>

#include <ev.h>
#include <stdio.h>

#define SECOND_NS     1000000000ull
#define MESSAGE_COUNT 10

struct program {
    ringside_client_t *client;
    ringside_publisher_t *publisher;
    int sent_count;
    int received_count;
    int has_failed;
};

static void on_message(void *arg, const ringside_message_t *message)
{
    struct program *program = arg;
    printf("%.*s\n", (int)message->bytes, (const char *)message->data);
    program->received_count++;
}

/* Until there is nothing to do any more: only then does the descriptor tell of the next thing. */
static void work(struct ev_loop *loop, struct program *program)
{
    size_t handled = 1;
    while (handled > 0) {
        if (ringside_poll(program->client, 0, 0, &handled) != RINGSIDE_OK) {
            program->has_failed = 1;
            break;
        }
    }
    if (program->has_failed || program->received_count == MESSAGE_COUNT) {
        ev_break(loop, EVBREAK_ALL);
    }
}

static void on_readable(struct ev_loop *loop, ev_io *readable, int events)
{
    (void)events;
    work(loop, readable->data);
}

static void on_tick(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct program *program = timer->data;
    char line[32];
    (void)events;
    if (program->sent_count < MESSAGE_COUNT) {
        int bytes = snprintf(line, sizeof(line), "message %d", program->sent_count + 1);
        ringside_status_t status = ringside_publish(program->publisher, line, (size_t)bytes);
        program->sent_count += status == RINGSIDE_OK; /* full: with the next tick */
        program->has_failed |= status < 0;
    }
    work(loop, program); /* what was published goes on its way */
}

int main(int argc, char **argv)
{
    struct program program = {0};
    ringside_subscription_t *subscription;
    struct ev_loop *loop = EV_DEFAULT;
    ev_io readable;
    ev_timer timer;

    if (ringside_connect(&program.client, argc > 1 ? argv[1] : "auto://localhost", NULL) !=
        RINGSIDE_OK) {
        fprintf(stderr, "%s\n", ringside_last_error());
        return 1;
    }
    if (ringside_subscribe(&subscription, program.client, "example.ev", NULL, on_message,
                           &program) != RINGSIDE_OK ||
        ringside_publisher_create(&program.publisher, program.client, "example.ev", 0) !=
            RINGSIDE_OK) {
        fprintf(stderr, "%s\n", ringside_error_text(program.client));
        return 1;
    }
    ev_io_init(&readable, on_readable, ringside_fd(program.client), EV_READ);
    ev_timer_init(&timer, on_tick, 0.001, 0.001);
    readable.data = &program;
    timer.data = &program;
    ev_io_start(loop, &readable);
    ev_timer_start(loop, &timer);
    ev_run(loop, 0);
    if (program.has_failed) {
        fprintf(stderr, "%s\n", ringside_error_text(program.client));
    }
    ev_io_stop(loop, &readable); /* before its descriptor is closed */
    ringside_close(program.client, 5 * SECOND_NS);
    ev_loop_destroy(loop);
    return program.has_failed;
}
