/*
 * A client in a libuv loop: loop_uv [URL]
 *
 * Publishes ten messages, one per tick of a timer, receives them, and ends.
 */
#include <ringside.h>

#include <stdio.h>
#include <uv.h>

#define SECOND_NS     1000000000ull
#define MESSAGE_COUNT 10

struct program {
    ringside_client_t *client;
    ringside_publisher_t *publisher;
    uv_poll_t readable;
    uv_timer_t timer;
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

static void end(struct program *program)
{
    if (!uv_is_closing((uv_handle_t *)&program->timer)) {
        uv_close((uv_handle_t *)&program->timer, NULL);
        uv_close((uv_handle_t *)&program->readable, NULL); /* before the client is closed */
    }
}

/* Until there is nothing to do any more: only then does the descriptor tell of the next thing. */
static void work(struct program *program)
{
    size_t handled = 1;
    while (handled > 0) {
        if (ringside_poll(program->client, 0, 0, &handled) != RINGSIDE_OK) {
            program->has_failed = 1;
            break;
        }
    }
    if (program->has_failed || program->received_count == MESSAGE_COUNT) {
        end(program);
    }
}

static void on_readable(uv_poll_t *readable, int status, int events)
{
    (void)status;
    (void)events;
    work(readable->data);
}

static void on_tick(uv_timer_t *timer)
{
    struct program *program = timer->data;
    char line[32];
    if (program->sent_count < MESSAGE_COUNT) {
        int bytes = snprintf(line, sizeof(line), "message %d", program->sent_count + 1);
        ringside_status_t status = ringside_publish(program->publisher, line, (size_t)bytes);
        program->sent_count += status == RINGSIDE_OK; /* full: with the next tick */
        program->has_failed |= status < 0;
    }
    work(program); /* what was published goes on its way */
}

int main(int argc, char **argv)
{
    struct program program = {0};
    ringside_subscription_t *subscription;
    uv_loop_t *loop = uv_default_loop();

    if (ringside_connect(&program.client, argc > 1 ? argv[1] : "auto://localhost", NULL) !=
        RINGSIDE_OK) {
        fprintf(stderr, "%s\n", ringside_last_error());
        return 1;
    }
    program.readable.data = &program;
    program.timer.data = &program;
    if (ringside_subscribe(&subscription, program.client, "example.uv", NULL, on_message,
                           &program) != RINGSIDE_OK ||
        ringside_publisher_create(&program.publisher, program.client, "example.uv", 0) !=
            RINGSIDE_OK ||
        uv_poll_init(loop, &program.readable, ringside_fd(program.client)) != 0 ||
        uv_poll_start(&program.readable, UV_READABLE, on_readable) != 0 ||
        uv_timer_init(loop, &program.timer) != 0 ||
        uv_timer_start(&program.timer, on_tick, 1, 1) != 0) {
        fprintf(stderr, "%s\n", ringside_error_text(program.client));
        return 1;
    }
    uv_run(loop, UV_RUN_DEFAULT);
    if (program.has_failed) {
        fprintf(stderr, "%s\n", ringside_error_text(program.client));
    }
    ringside_close(program.client, 5 * SECOND_NS);
    uv_loop_close(loop);
    return program.has_failed;
}
