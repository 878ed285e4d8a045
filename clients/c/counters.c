/*
 * Design notes
 * - The client counts in plain words and copies them into the shared file at intervals, so that a
 *   message costs an add in its own memory and looking costs the client nothing.
 * - One file per client, because the path is the client's own option.
 */
#include "clients/c/client.h"

#include "core/counters.h"

#include <stddef.h>
#include <stdlib.h>

#define SHOW_INTERVAL_NS UINT64_C(100000000)

struct shown {
    const char *name;
    size_t offset; /* of a uint64_t in rsi_client_totals */
};

#define SHOWN(field)                                      \
    {                                                     \
#field, offsetof(struct rsi_client_totals, field) \
    }

static const struct shown shown_totals[] = {
    SHOWN(published_messages), SHOWN(published_bytes),   SHOWN(delivered_messages),
    SHOWN(delivered_bytes),    SHOWN(unwanted_messages), SHOWN(gap_events),
    SHOWN(gap_messages),       SHOWN(full_events),       SHOWN(sleeps),
    SHOWN(suspensions),        SHOWN(resumptions),       SHOWN(renewals),
};

#define TOTAL_COUNT rsi_array_count(shown_totals)

struct rsi_client_counters {
    struct rsi_counters *counters;
    uint64_t due_ns;
    struct rsi_counter *transport;
    struct rsi_counter *totals[TOTAL_COUNT];
};

rsi_status_t rsi_client_counters_create(struct rsi_client_counters **counters,
                                        const struct ringside_client *client,
                                        struct rsi_error *error)
{
    const char *label = client->options.client_name;
    struct rsi_client_counters *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for the client's counters");
    }
    rsi_status_t status = rsi_counters_create(&made->counters, client->options.counters_path,
                                              (uint32_t)TOTAL_COUNT + 1, error);
    if (status != RSI_OK) {
        goto free_made;
    }
    status = rsi_counters_allocate(made->counters, RSI_COUNTER_KIND_TEXT, "transport", label,
                                   &made->transport, error);
    for (size_t index = 0; index < TOTAL_COUNT && status == RSI_OK; index++) {
        status =
            rsi_counters_allocate(made->counters, RSI_COUNTER_KIND_COUNTER,
                                  shown_totals[index].name, label, &made->totals[index], error);
    }
    if (status != RSI_OK) {
        goto destroy_counters;
    }
    rsi_counter_set_text(made->transport, "%s", client->transport_why);
    *counters = made;
    return RSI_OK;

destroy_counters:
    rsi_counters_destroy(made->counters);
free_made:
    free(made);
    return status;
}

void rsi_client_counters_show_transport(struct ringside_client *client)
{
    if (client->counters != NULL) {
        rsi_counter_set_text(client->counters->transport, "%s", client->transport_why);
    }
}

void rsi_client_counters_destroy(struct rsi_client_counters *counters)
{
    if (counters == NULL) {
        return;
    }
    rsi_counters_destroy(counters->counters);
    free(counters);
}

void rsi_client_counters_show(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_client_counters *counters = client->counters;
    if (now_ns < counters->due_ns) {
        return;
    }
    counters->due_ns = now_ns + SHOW_INTERVAL_NS;
    const uint8_t *totals = (const uint8_t *)&client->totals;
    for (size_t index = 0; index < TOTAL_COUNT; index++) {
        rsi_counter_set(counters->totals[index],
                        *(const uint64_t *)(const void *)(totals + shown_totals[index].offset));
    }
}
