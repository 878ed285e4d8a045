/*
 * A caller of the service: caller [-u URL] [-b HOST] [-n CALLS]
 *
 * Sends requests, several at a time, checks each answer, and prints how they ended.
 */
#include <err.h>
#include <inttypes.h>
#include <ringside.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull

enum { AT_A_TIME = 16 };

struct caller {
    uint64_t under_way;
    uint64_t right;
    uint64_t wrong;
    uint64_t no_responders;
    uint64_t lost;
    uint64_t timed_out;
    long long expected[AT_A_TIME]; /* by slot; a slot is busy while its request is under way */
    int is_busy[AT_A_TIME];
};

/* What a reply belongs to. */
struct call {
    struct caller *caller;
    int slot;
};

/* Called exactly once for each request, with the answer or with why there is none. */
static void on_reply(void *arg, const ringside_reply_t *reply)
{
    struct call *call = arg;
    struct caller *caller = call->caller;
    char text[64];
    switch (reply->status) {
    case RINGSIDE_OK:
        snprintf(text, sizeof(text), "%.*s", (int)reply->bytes, (const char *)reply->data);
        if (strtoll(text, NULL, 10) == caller->expected[call->slot]) {
            caller->right++;
        } else {
            caller->wrong++;
        }
        break;
    case RINGSIDE_E_NO_RESPONDERS:
        caller->no_responders++;
        break;
    case RINGSIDE_E_LOST:
        caller->lost++;
        break;
    default:
        caller->timed_out++;
        break;
    }
    caller->is_busy[call->slot] = 0;
    caller->under_way--;
}

int main(int argc, char **argv)
{
    static struct caller caller;
    static struct call calls[AT_A_TIME];
    const char *url = "auto://127.0.0.1:7400";
    const char *bind_host = NULL; /* rdma, where two devices lead to one network */
    uint64_t call_count = 10;
    int flag;
    while ((flag = getopt(argc, argv, "u:b:n:")) != -1) {
        switch (flag) {
        case 'u':
            url = optarg;
            break;
        case 'b':
            bind_host = optarg;
            break;
        case 'n':
            call_count = strtoull(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    }
    if (optind != argc) {
        errx(2, "usage: caller [-u URL] [-b HOST] [-n CALLS]");
    }
    ringside_client_t *client;
    ringside_publisher_t *service;
    const ringside_options_t options = {.struct_bytes = sizeof(options), .bind_host = bind_host};
    if (ringside_connect(&client, url, &options) != RINGSIDE_OK) {
        errx(1, "%s", ringside_last_error());
    }
    if (ringside_publisher_create(&service, client, "svc.sum", 0) != RINGSIDE_OK) {
        errx(1, "%s", ringside_error_text(client));
    }
    uint64_t sent_count = 0;
    while (sent_count < call_count || caller.under_way > 0) {
        for (int slot = 0; slot < AT_A_TIME && sent_count < call_count; slot++) {
            char text[64];
            if (caller.is_busy[slot]) {
                continue;
            }
            long long number = (long long)sent_count;
            int bytes = snprintf(text, sizeof(text), "%lld %d", number, slot);
            calls[slot] = (struct call){&caller, slot};
            caller.expected[slot] = number + slot;
            ringside_status_t status = ringside_request(service, text, (size_t)bytes, 2 * SECOND_NS,
                                                        on_reply, &calls[slot]);
            if (status == RINGSIDE_WOULD_BLOCK) {
                break;
            }
            if (status != RINGSIDE_OK) {
                errx(1, "%s", ringside_error_text(client));
            }
            caller.is_busy[slot] = 1;
            caller.under_way++;
            sent_count++;
        }
        if (ringside_poll(client, 0, SECOND_NS, NULL) < 0) {
            errx(1, "%s", ringside_error_text(client));
        }
    }
    printf("%" PRIu64 " right, %" PRIu64 " wrong, %" PRIu64 " without responders, %" PRIu64
           " lost, %" PRIu64 " timed out\n",
           caller.right, caller.wrong, caller.no_responders, caller.lost, caller.timed_out);
    ringside_close(client, SECOND_NS);
    return caller.right == call_count ? 0 : 1;
}
