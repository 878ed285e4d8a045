/*
 * Publishes a numbered line ten times: publish [URL [SUBJECT]]
 *
 * Shows both ways to publish, and what to do when the ring is full.
 */
#include <ringside.h>

#include <stdio.h>
#include <string.h>

#define SECOND_NS 1000000000ull

/* The ring is full: let the client work until the broker has taken something. */
static int wait_for_room(ringside_client_t *client)
{
    return ringside_poll(client, 0, SECOND_NS, NULL) == RINGSIDE_OK;
}

/* One copy: the simple way. */
static int publish_line(ringside_client_t *client, ringside_publisher_t *publisher,
                        const char *line)
{
    ringside_status_t status;
    while ((status = ringside_publish(publisher, line, strlen(line))) == RINGSIDE_WOULD_BLOCK) {
        if (!wait_for_room(client)) {
            return 0;
        }
    }
    return status == RINGSIDE_OK;
}

/* No copy: the message is written where the transport sends it from. */
static int publish_number(ringside_client_t *client, ringside_publisher_t *publisher, int number)
{
    enum { ROOM = 64 };
    void *buffer;
    ringside_status_t status;
    while ((status = ringside_claim(publisher, ROOM, &buffer)) == RINGSIDE_WOULD_BLOCK) {
        if (!wait_for_room(client)) {
            return 0;
        }
    }
    if (status != RINGSIDE_OK) {
        return 0;
    }
    int bytes = snprintf(buffer, ROOM, "number %d, written in place", number);
    return ringside_commit(publisher, (size_t)bytes) == RINGSIDE_OK;
}

int main(int argc, char **argv)
{
    const char *url = argc > 1 ? argv[1] : "auto://localhost";
    const char *subject = argc > 2 ? argv[2] : "example.line";

    ringside_client_t *client;
    if (ringside_connect(&client, url, NULL) != RINGSIDE_OK) {
        fprintf(stderr, "%s\n", ringside_last_error());
        return 1;
    }
    printf("%s\n", ringside_transport_why(client));

    ringside_publisher_t *publisher;
    int is_fine = ringside_publisher_create(&publisher, client, subject, 0) == RINGSIDE_OK;
    for (int number = 1; number <= 10 && is_fine; number += 2) {
        is_fine = publish_line(client, publisher, "a line, copied into the ring") &&
                  publish_number(client, publisher, number + 1);
    }
    if (!is_fine) {
        fprintf(stderr, "%s\n", ringside_error_text(client));
    }

    /* Waits until the broker has everything. */
    if (ringside_close(client, 5 * SECOND_NS) != RINGSIDE_OK) {
        fprintf(stderr, "%s\n", ringside_last_error());
        return 1;
    }
    return is_fine ? 0 : 1;
}
