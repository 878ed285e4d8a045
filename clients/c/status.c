/*
 * Design notes
 * - The public codes are the internal ones under their public names: the assertions below are the
 *   whole translation.
 * - A failed call leaves its text in its client. What has no client (connect, a NULL argument)
 *   leaves it in the thread.
 * - A forked child shares queue pairs and sockets with its parent, and using either end there would
 *   corrupt both. The child's count of forks differs from the one its clients remember.
 */
#include "clients/c/client.h"

#include <pthread.h>
#include <stdio.h>

#define ASSERT_SAME(public_name, internal_name) \
    rsi_static_assert((int)RINGSIDE_##public_name == (int)RSI_##internal_name)

ASSERT_SAME(OK, OK);
ASSERT_SAME(WOULD_BLOCK, WOULD_BLOCK);
ASSERT_SAME(IN_PROGRESS, IN_PROGRESS);
ASSERT_SAME(E_INVALID, E_INVALID);
ASSERT_SAME(E_TOO_LARGE, E_TOO_LARGE);
ASSERT_SAME(E_STATE, E_STATE);
ASSERT_SAME(E_NOT_FOUND, E_NOT_FOUND);
ASSERT_SAME(E_EXISTS, E_EXISTS);
ASSERT_SAME(E_LIMIT, E_LIMIT);
ASSERT_SAME(E_TIMED_OUT, E_TIMED_OUT);
ASSERT_SAME(E_UNSUPPORTED, E_UNSUPPORTED);
ASSERT_SAME(E_DENIED, E_DENIED);
ASSERT_SAME(E_CANCELLED, E_CANCELLED);
ASSERT_SAME(E_NO_RESPONDERS, E_NO_RESPONDERS);
ASSERT_SAME(E_CLOSED, E_LINK_CLOSED);
ASSERT_SAME(E_LOST, E_LINK_LOST);
ASSERT_SAME(E_PROTOCOL, E_PROTOCOL);
ASSERT_SAME(E_VERSION, E_VERSION);
ASSERT_SAME(E_AUTH, E_AUTH);
ASSERT_SAME(E_REFUSED, E_REFUSED);
ASSERT_SAME(E_SLOW, E_SLOW);
ASSERT_SAME(E_NO_DEVICE, E_NO_DEVICE);
ASSERT_SAME(E_NO_MEMORY_LOCK, E_NO_MEMORY_LOCK);
ASSERT_SAME(E_ADDRESS, E_ADDRESS);
ASSERT_SAME(E_IO, E_IO);
ASSERT_SAME(E_NO_MEMORY, E_NO_MEMORY);
ASSERT_SAME(E_NO_DESCRIPTORS, E_NO_DESCRIPTORS);
ASSERT_SAME(E_PERMISSION, E_PERMISSION);
ASSERT_SAME(E_SYSTEM, E_SYSTEM);
ASSERT_SAME(E_CPU, E_CPU);
ASSERT_SAME(E_BUG, E_BUG);

static _Thread_local struct rsi_error last_error;

uint32_t rsi_client_fork_count;

static void count_fork(void)
{
    rsi_client_fork_count++; /* the child of a fork has one thread */
}

static void register_fork_handler(void)
{
    /* Fails only without memory; then a fork goes unnoticed, as in most libraries. */
    (void)pthread_atfork(NULL, NULL, count_fork);
}

void rsi_client_watch_forks(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, register_fork_handler);
}

ringside_status_t rsi_client_fail_globally(const struct rsi_error *error)
{
    last_error = *error;
    return (ringside_status_t)error->status;
}

rsi_status_t rsi_client_enter_unwaited(struct ringside_client *client, const char *call)
{
    if (client == NULL) {
        return rsi_fail(&last_error, RSI_E_INVALID, "%s: the client is NULL", call);
    }
    if (client->fork_count != rsi_client_fork_count) {
        return rsi_fail(&client->error, RSI_E_STATE,
                        "%s: this process was forked after the client connected; connect anew in "
                        "the child, and leave this client to the parent",
                        call);
    }
    return RSI_OK;
}

rsi_status_t rsi_client_enter(struct ringside_client *client, const char *call)
{
    rsi_status_t status = rsi_client_enter_unwaited(client, call);
    if (status == RSI_OK && client->is_in_callback) {
        return rsi_fail(&client->error, RSI_E_STATE,
                        "%s: not inside a callback; note what is to be done, return, and call it "
                        "after ringside_poll, or ask without waiting (RINGSIDE_NO_WAIT)",
                        call);
    }
    return status;
}

rsi_status_t rsi_client_check_open(struct ringside_client *client, const char *call)
{
    if (client->phase == RSI_CLIENT_CONNECTING) {
        return rsi_fail(&client->error, RSI_E_STATE,
                        "%s: the client is still connecting; call ringside_poll until event "
                        "CONNECTED or LOST",
                        call);
    }
    if (client->phase < RSI_CLIENT_ENDING) {
        return RSI_OK;
    }
    return rsi_fail(&client->error, client->end_status, "%s: the session is over: %s", call,
                    client->end_error.text);
}

rsi_status_t rsi_client_enter_open(struct ringside_client *client, const char *call)
{
    rsi_status_t status = rsi_client_enter(client, call);
    return status == RSI_OK ? rsi_client_check_open(client, call) : status;
}

const char *ringside_error_text(const ringside_client_t *client)
{
    if (client == NULL) {
        return ringside_last_error();
    }
    return client->error.status == RSI_OK ? "no error" : client->error.text;
}

const char *ringside_last_error(void)
{
    return last_error.status == RSI_OK ? "no error" : last_error.text;
}

const char *ringside_status_name(ringside_status_t status)
{
    switch (status) {
#define NAME(name) \
    case name:     \
        return #name
        NAME(RINGSIDE_OK);
        NAME(RINGSIDE_WOULD_BLOCK);
        NAME(RINGSIDE_IN_PROGRESS);
        NAME(RINGSIDE_E_INVALID);
        NAME(RINGSIDE_E_TOO_LARGE);
        NAME(RINGSIDE_E_STATE);
        NAME(RINGSIDE_E_NOT_FOUND);
        NAME(RINGSIDE_E_EXISTS);
        NAME(RINGSIDE_E_LIMIT);
        NAME(RINGSIDE_E_TIMED_OUT);
        NAME(RINGSIDE_E_UNSUPPORTED);
        NAME(RINGSIDE_E_DENIED);
        NAME(RINGSIDE_E_CANCELLED);
        NAME(RINGSIDE_E_NO_RESPONDERS);
        NAME(RINGSIDE_E_CLOSED);
        NAME(RINGSIDE_E_LOST);
        NAME(RINGSIDE_E_PROTOCOL);
        NAME(RINGSIDE_E_VERSION);
        NAME(RINGSIDE_E_AUTH);
        NAME(RINGSIDE_E_REFUSED);
        NAME(RINGSIDE_E_SLOW);
        NAME(RINGSIDE_E_NO_DEVICE);
        NAME(RINGSIDE_E_NO_MEMORY_LOCK);
        NAME(RINGSIDE_E_ADDRESS);
        NAME(RINGSIDE_E_IO);
        NAME(RINGSIDE_E_NO_MEMORY);
        NAME(RINGSIDE_E_NO_DESCRIPTORS);
        NAME(RINGSIDE_E_PERMISSION);
        NAME(RINGSIDE_E_SYSTEM);
        NAME(RINGSIDE_E_CPU);
        NAME(RINGSIDE_E_BUG);
#undef NAME
    }
    return "unknown status";
}

#define TEXT_OF(number)   #number
#define NUMBER_AS(number) TEXT_OF(number)

const char *ringside_version(void)
{
    return NUMBER_AS(RINGSIDE_VERSION_MAJOR) "." NUMBER_AS(RINGSIDE_VERSION_MINOR) "." NUMBER_AS(
        RINGSIDE_VERSION_PATCH);
}
