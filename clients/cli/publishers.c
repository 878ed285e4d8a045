/*
 * Design notes
 * - The subjects come out of messages, so their number is bounded here: a template on a field such
 * as a trade number would else make a topic per message.
 */
#include "clients/cli/publishers.h"

#include "clients/cli/cli.h"
#include "clients/cli/connection.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct rsi_publisher_entry {
    ringside_publisher_t *publisher;
    UT_hash_handle hh;
    char subject[]; /* zero-terminated */
};

void rsi_publishers_init(struct rsi_publishers *publishers, ringside_client_t *client,
                         size_t count_max, uint64_t timeout_ns)
{
    *publishers = (struct rsi_publishers){
        .client = client,
        .timeout_ns = timeout_ns,
        .count_max = count_max,
    };
}

void rsi_publishers_fini(struct rsi_publishers *publishers)
{
    struct rsi_publisher_entry *entry, *next;
    HASH_ITER(hh, publishers->entries, entry, next)
    {
        HASH_DEL(publishers->entries, entry);
        free(entry);
    }
}

static ringside_publisher_t *add_publisher(struct rsi_publishers *publishers, const char *subject,
                                           size_t subject_bytes) RSI_COLD;

static ringside_publisher_t *add_publisher(struct rsi_publishers *publishers, const char *subject,
                                           size_t subject_bytes)
{
    if (rsi_publishers_count(publishers) >= publishers->count_max) {
        rsi_cli_fail("%s would be subject number %zu: does the template use a field that is new in "
                     "every message? If so many are meant, raise --subjects-max",
                     subject, publishers->count_max + 1);
        return NULL;
    }
    struct rsi_publisher_entry *entry = calloc(1, sizeof(*entry) + subject_bytes + 1);
    if (entry == NULL) {
        rsi_cli_fail("no memory for one more subject");
        return NULL;
    }
    memcpy(entry->subject, subject, subject_bytes);
    entry->publisher =
        rsi_connection_make_publisher(publishers->client, entry->subject, publishers->timeout_ns);
    if (entry->publisher == NULL) {
        free(entry);
        return NULL;
    }
    HASH_ADD_KEYPTR(hh, publishers->entries, entry->subject, subject_bytes, entry);
    return entry->publisher;
}

ringside_publisher_t *rsi_publishers_find(struct rsi_publishers *publishers, const char *subject,
                                          size_t subject_bytes)
{
    struct rsi_publisher_entry *entry = NULL;
    HASH_FIND(hh, publishers->entries, subject, subject_bytes, entry);
    if (rsi_likely(entry != NULL)) {
        return entry->publisher;
    }
    return add_publisher(publishers, subject, subject_bytes);
}

size_t rsi_publishers_count(const struct rsi_publishers *publishers)
{
    return HASH_COUNT(publishers->entries);
}
