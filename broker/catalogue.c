/*
 * Design notes
 * - Ids only grow, so none is used twice in a broker's life; an id whose slot is taken is skipped.
 * At a million publisher objects a second 32 bits would last over an hour, and the control lane is
 *   far from that; still, an id that would come round to zero ends the giving (LIMIT).
 * - A publication's memory is given back only after PUBLICATION_RETIRE was applied by all agents,
 * and that is posted only when no agent can meet a frame of it. A topic likewise, after its last
 * one.
 * - A topic that is being retired has left the hash: a new publisher on its subject gets a new
 * topic. So the order of the two edits never matters to an agent.
 */
#include "broker/catalogue.h"

#include "broker/metrics.h"
#include "core/assert.h"
#include "core/text.h"

#include <stdlib.h>
#include <string.h>

rsi_status_t rsi_catalogue_init(struct rsi_catalogue *catalogue, struct rsi_data_plane *plane,
                                const struct rsi_data_options *options, struct rsi_error *error)
{
    memset(catalogue, 0, sizeof(*catalogue));
    catalogue->plane = plane;
    catalogue->publication_count_max = options->publication_count_max;
    catalogue->topic_count_max = options->topic_count_max;
    catalogue->publications =
        calloc(options->publication_count_max, sizeof(struct rsi_publication_entry *));
    catalogue->topics = calloc(options->topic_count_max, sizeof(struct rsi_topic_entry *));
    if (catalogue->publications == NULL || catalogue->topics == NULL) {
        rsi_catalogue_fini(catalogue);
        return rsi_fail(error, RSI_E_NO_MEMORY,
                        "no memory for %u publications and %u topics; lower publication_count_max "
                        "or topic_count_max",
                        options->publication_count_max, options->topic_count_max);
    }
    return RSI_OK;
}

void rsi_catalogue_fini(struct rsi_catalogue *catalogue)
{
    HASH_CLEAR(hh, catalogue->by_subject);
    for (uint32_t i = 0; catalogue->publications != NULL && i < catalogue->publication_count_max;
         i++) {
        struct rsi_publication_entry *entry = catalogue->publications[i];
        if (entry != NULL) {
            rsi_publication_fini(&entry->publication);
        }
        free(entry);
    }
    for (uint32_t i = 0; catalogue->topics != NULL && i < catalogue->topic_count_max; i++) {
        free(catalogue->topics[i]);
    }
    free(catalogue->publications);
    free(catalogue->topics);
    memset(catalogue, 0, sizeof(*catalogue));
}

/* The next id whose slot is free, or 0. `slots` is an array of pointers. */
static uint32_t next_id(void *const *slots, uint32_t slot_count, uint32_t last_id)
{
    for (uint32_t step = 1; step <= slot_count; step++) {
        if (last_id > UINT32_MAX - step) {
            return 0;
        }
        uint32_t id = last_id + step;
        if (slots[id & (slot_count - 1)] == NULL) {
            return id;
        }
    }
    return 0;
}

static struct rsi_topic_entry *make_topic(struct rsi_catalogue *catalogue, const char *subject,
                                          struct rsi_error *error)
{
    uint32_t id = next_id((void *const *)catalogue->topics, catalogue->topic_count_max,
                          catalogue->last_topic_id);
    if (id == 0) {
        (void)rsi_fail(error, RSI_E_LIMIT,
                       "the broker has no topic left (topic_count_max is %u): close publishers, or "
                       "raise topic_count_max and start the broker again",
                       catalogue->topic_count_max);
        return NULL;
    }
    bool is_last_value =
        catalogue->settings != NULL && rsi_settings_has_last_value(catalogue->settings, subject);
    if (is_last_value && catalogue->last_value_count >= catalogue->settings->last_value_topics) {
        (void)rsi_fail(error, RSI_E_LIMIT,
                       "the broker keeps the last values of %u topics already "
                       "(last_value_topics): raise it and start the broker again",
                       catalogue->last_value_count);
        return NULL;
    }
    struct rsi_topic_entry *topic = calloc(1, sizeof(*topic));
    if (topic == NULL) {
        (void)rsi_fail(error, RSI_E_NO_MEMORY, "the broker has no memory for a topic");
        return NULL;
    }
    rsi_text_copy(topic->subject, sizeof(topic->subject), subject);
    HASH_ADD_STR(catalogue->by_subject, subject, topic);
    if (!rsi_hash_has(topic)) {
        free(topic);
        (void)rsi_fail(error, RSI_E_NO_MEMORY, "the broker has no memory for a topic");
        return NULL;
    }
    topic->id = id;
    topic->is_last_value = is_last_value;
    catalogue->last_value_count += is_last_value;
    catalogue->last_topic_id = id;
    catalogue->topics[id & (catalogue->topic_count_max - 1)] = topic;
    catalogue->topic_count++;
    return topic;
}

static void free_topic(struct rsi_catalogue *catalogue, struct rsi_topic_entry *topic)
{
    catalogue->topics[topic->id & (catalogue->topic_count_max - 1)] = NULL;
    catalogue->topic_count--;
    catalogue->last_value_count -= topic->is_last_value;
    rsi_metrics_hide_topic(catalogue->metrics, &topic->shown);
    free(topic);
}

static void count_publication(struct rsi_catalogue *catalogue, struct rsi_topic_entry *topic,
                              int change)
{
    topic->publication_count += (uint32_t)change;
    rsi_metrics_show_topic(catalogue->metrics, &topic->shown, topic->id, topic->subject,
                           topic->publication_count);
}

static void free_publication(struct rsi_catalogue *catalogue, struct rsi_publication_entry *entry)
{
    catalogue->publications[entry->publication.id & (catalogue->publication_count_max - 1)] = NULL;
    catalogue->publication_count--;
    rsi_publication_fini(&entry->publication);
    free(entry);
}

/*
 * The topic lost a publication. Agents that never heard of a topic pass over its TOPIC_RETIRE, so
 * one whose only publication was cancelled goes the same way.
 */
static void release_topic(struct rsi_catalogue *catalogue, struct rsi_topic_entry *topic)
{
    rsi_assert(topic->publication_count > 0);
    rsi_assert(topic->state == RSI_TOPIC_LIVE);
    count_publication(catalogue, topic, -1);
    if (topic->publication_count > 0) {
        return;
    }
    HASH_DEL(catalogue->by_subject, topic);
    topic->state = RSI_TOPIC_UNUSED;
    topic->next = catalogue->unused;
    catalogue->unused = topic;
}

rsi_status_t rsi_catalogue_open(struct rsi_catalogue *catalogue, const struct rsi_session *session,
                                uint32_t alias, const char *subject,
                                struct rsi_publication_entry **entry, struct rsi_error *error)
{
    uint32_t id = next_id((void *const *)catalogue->publications, catalogue->publication_count_max,
                          catalogue->last_publication_id);
    if (id == 0) {
        return rsi_fail(error, RSI_E_LIMIT,
                        "the broker has no publication left (publication_count_max is %u): close "
                        "publishers, or raise publication_count_max and start the broker again",
                        catalogue->publication_count_max);
    }
    struct rsi_publication_entry *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "the broker has no memory for a publication");
    }
    struct rsi_topic_entry *topic = NULL;
    HASH_FIND_STR(catalogue->by_subject, subject, topic);
    if (topic == NULL) {
        topic = make_topic(catalogue, subject, error);
    }
    if (topic == NULL) {
        free(made);
        return error != NULL ? error->status : RSI_E_LIMIT;
    }
    count_publication(catalogue, topic, 1);
    made->topic = topic;
    made->alias = alias;
    made->state = RSI_PUBLICATION_NEW;
    struct rsi_publication *publication = &made->publication;
    publication->id = id;
    publication->topic = topic->id;
    publication->alias = alias;
    publication->publisher_session = session->id;
    publication->next_sequence = 1;
    publication->is_last_value = topic->is_last_value;
    rsi_text_copy(publication->subject, sizeof(publication->subject), subject);
    publication->subject_bytes = (uint16_t)strlen(publication->subject);
    rsi_text_copy(publication->publisher_name, sizeof(publication->publisher_name), session->name);
    publication->publisher_name_bytes = (uint16_t)strlen(publication->publisher_name);
    catalogue->last_publication_id = id;
    catalogue->publications[id & (catalogue->publication_count_max - 1)] = made;
    catalogue->publication_count++;
    *entry = made;
    return RSI_OK;
}

const struct rsi_publication_entry *rsi_catalogue_find(const struct rsi_catalogue *catalogue,
                                                       uint32_t publication)
{
    const struct rsi_publication_entry *entry =
        catalogue->publications[publication & (catalogue->publication_count_max - 1)];
    return entry != NULL && entry->publication.id == publication ? entry : NULL;
}

void rsi_catalogue_cancel(struct rsi_catalogue *catalogue, struct rsi_publication_entry *entry)
{
    rsi_assert(entry->state == RSI_PUBLICATION_NEW);
    release_topic(catalogue, entry->topic);
    free_publication(catalogue, entry);
}

void rsi_catalogue_take_closed(struct rsi_catalogue *catalogue, struct rsi_publication_entry *entry)
{
    rsi_assert(entry->state == RSI_PUBLICATION_OPEN || entry->state == RSI_PUBLICATION_CLOSING);
    rsi_assert(rsi_publication_is_closed(catalogue->plane, &entry->publication));
    entry->state = RSI_PUBLICATION_CLOSED;
    entry->next_closed = catalogue->closed;
    catalogue->closed = entry;
}

/* One step of one publication. True: it was freed. */
static bool retire_publication(struct rsi_catalogue *catalogue, struct rsi_publication_entry *entry,
                               uint32_t *step_count)
{
    if (entry->state == RSI_PUBLICATION_CLOSED) {
        if (!rsi_publication_is_unused(catalogue->plane, &entry->publication)) {
            return false;
        }
        const struct rsi_edit edit = {.kind = RSI_EDIT_PUBLICATION_RETIRE,
                                      .publication = &entry->publication};
        if (rsi_data_plane_post(catalogue->plane, &edit, &entry->ticket) != RSI_OK) {
            return false;
        }
        entry->state = RSI_PUBLICATION_RETIRING;
        (*step_count)++;
        return false;
    }
    rsi_assert(entry->state == RSI_PUBLICATION_RETIRING);
    if (!rsi_data_plane_is_applied(catalogue->plane, entry->ticket)) {
        return false;
    }
    release_topic(catalogue, entry->topic);
    free_publication(catalogue, entry);
    (*step_count)++;
    return true;
}

/* Some store may have let go of what it kept: looks again. */
static void look_at_kept(struct rsi_catalogue *catalogue)
{
    uint64_t unkept_count = rsi_data_plane_unkept_count(catalogue->plane);
    if (catalogue->kept == NULL || unkept_count == catalogue->unkept_count) {
        return;
    }
    catalogue->unkept_count = unkept_count;
    struct rsi_publication_entry *entry = catalogue->kept;
    catalogue->kept = NULL;
    while (entry != NULL) {
        struct rsi_publication_entry *next = entry->next_closed;
        entry->next_closed = catalogue->closed;
        catalogue->closed = entry;
        entry = next;
    }
}

/* A closed publication whose last value is kept needs no look until that has changed. */
static bool is_to_be_kept(const struct rsi_publication_entry *entry)
{
    return entry->state == RSI_PUBLICATION_CLOSED && rsi_publication_is_kept(&entry->publication);
}

/* One step of one topic. True: it was freed. */
static bool retire_topic(struct rsi_catalogue *catalogue, struct rsi_topic_entry *topic,
                         uint32_t *step_count)
{
    if (topic->state == RSI_TOPIC_UNUSED) {
        const struct rsi_edit edit = {.kind = RSI_EDIT_TOPIC_RETIRE, .topic = topic->id};
        if (rsi_data_plane_post(catalogue->plane, &edit, &topic->ticket) != RSI_OK) {
            return false;
        }
        topic->state = RSI_TOPIC_RETIRING;
        (*step_count)++;
        return false;
    }
    rsi_assert(topic->state == RSI_TOPIC_RETIRING);
    if (!rsi_data_plane_is_applied(catalogue->plane, topic->ticket)) {
        return false;
    }
    free_topic(catalogue, topic);
    (*step_count)++;
    return true;
}

uint32_t rsi_catalogue_poll(struct rsi_catalogue *catalogue)
{
    uint32_t step_count = 0;
    look_at_kept(catalogue);
    for (struct rsi_publication_entry **at = &catalogue->closed; *at != NULL;) {
        struct rsi_publication_entry *next = (*at)->next_closed;
        struct rsi_publication_entry *entry = *at;
        if (is_to_be_kept(entry)) {
            *at = next;
            entry->next_closed = catalogue->kept;
            catalogue->kept = entry;
        } else if (retire_publication(catalogue, entry, &step_count)) {
            *at = next;
        } else {
            at = &(*at)->next_closed;
        }
    }
    for (struct rsi_topic_entry **at = &catalogue->unused; *at != NULL;) {
        struct rsi_topic_entry *next = (*at)->next;
        if (retire_topic(catalogue, *at, &step_count)) {
            *at = next;
        } else {
            at = &(*at)->next;
        }
    }
    return step_count;
}

void rsi_catalogue_look_again(struct rsi_catalogue *catalogue)
{
    catalogue->unkept_count = UINT64_MAX;
}

bool rsi_catalogue_is_busy(const struct rsi_catalogue *catalogue)
{
    return catalogue->closed != NULL || catalogue->unused != NULL;
}
