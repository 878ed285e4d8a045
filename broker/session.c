/*
 * Design notes
 * - A session's memory is made and freed by the control agent; its home agent fills it. What policy
 *   block needs is made when the session first asks for it: most never do.
 */
#include "broker/agent_internal.h"

#include <stdlib.h>
#include <string.h>

static void blocking_destroy(struct rsi_blocking *blocking)
{
    rsi_spill_fini(&blocking->spill);
    free(blocking->wanted_topics);
    free(blocking);
}

rsi_status_t rsi_session_init(struct rsi_session *session, const struct rsi_data_options *options,
                              struct rsi_error *error)
{
    struct rsi_session_data *data = &session->data;
    uint32_t slot_count = options->publication_count_max;
    uint32_t word_count = (slot_count + 63) / 64;
    memset(data, 0, sizeof(*data));
    data->policy = RSI_POLICY_DROP;
    data->alias_count_max = options->alias_count_max;
    data->announced = calloc(word_count, sizeof(*data->announced));
    data->gap_pending = calloc(word_count, sizeof(*data->gap_pending));
    data->gap_first = calloc(slot_count, sizeof(*data->gap_first));
    data->gap_next = calloc(slot_count, sizeof(*data->gap_next));
    data->gap_count = calloc(slot_count, sizeof(*data->gap_count));
    data->sparse = calloc(word_count, sizeof(*data->sparse));
    data->match_index = malloc(options->topic_count_max * sizeof(*data->match_index));
    data->aliases = calloc(options->alias_count_max + 1ull, sizeof(struct rsi_publication *));
    if (!data->announced || !data->gap_pending || !data->gap_first || !data->gap_next ||
        !data->gap_count || !data->sparse || !data->match_index || !data->aliases) {
        rsi_session_fini(session);
        return rsi_fail(error, RSI_E_NO_MEMORY,
                        "no memory for a session of %u publications and %u topics; lower "
                        "publication_count_max or topic_count_max",
                        slot_count, options->topic_count_max);
    }
    for (uint32_t i = 0; i < options->topic_count_max; i++) {
        data->match_index[i] = RSI_NO_MATCH;
    }
    return RSI_OK;
}

void rsi_session_fini(struct rsi_session *session)
{
    struct rsi_session_data *data = &session->data;
    if (session->blocking) {
        blocking_destroy(session->blocking);
        session->blocking = NULL;
    }
    rsi_session_free_conflating(session);
    free(session->outstanding);
    session->outstanding = NULL;
    free(data->announced);
    free(data->gap_pending);
    free(data->gap_first);
    free(data->gap_next);
    free(data->gap_count);
    free(data->sparse);
    free(data->match_index);
    free(data->aliases);
    memset(data, 0, sizeof(*data));
}

uint64_t rsi_data_ahead_bytes(const struct rsi_data_options *options)
{
    uint64_t frame_bytes = rsi_frame_bytes(0, options->message_bytes_max) +
                           RSI_MEMBER_COUNT_MAX * (uint64_t)RSI_FRAME_ENTRY_BYTES;
    return frame_bytes > RSI_ADMIT_AHEAD_BYTES ? frame_bytes : RSI_ADMIT_AHEAD_BYTES;
}

rsi_status_t rsi_session_allow_block(struct rsi_session *session,
                                     const struct rsi_data_options *options,
                                     struct rsi_error *error)
{
    rsi_assert(session->blocking == NULL);
    struct rsi_blocking *blocking = calloc(1, sizeof(*blocking));
    if (!blocking) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for policy block");
    }
    uint64_t ahead_bytes = rsi_data_ahead_bytes(options);
    blocking->ring_bytes = session->deliver_ring_bytes;
    blocking->limit_bytes = blocking->ring_bytes + (options->agent_count + 1) * ahead_bytes;
    blocking->wanted_topics =
        calloc((options->topic_count_max + 63) / 64, sizeof(*blocking->wanted_topics));
    rsi_status_t status = RSI_OK;
    if (!blocking->wanted_topics) {
        status = rsi_fail(error, RSI_E_NO_MEMORY, "no memory for policy block on %u topics",
                          options->topic_count_max);
    } else {
        status = rsi_spill_init(&blocking->spill, blocking->limit_bytes, error);
    }
    if (rsi_failed(status)) {
        blocking_destroy(blocking);
        return status;
    }
    session->blocking = blocking;
    return RSI_OK;
}

uint64_t rsi_session_spill_capacity_bytes(const struct rsi_session *session)
{
    return session->blocking ? session->blocking->spill.ring.capacity_bytes : 0;
}

uint32_t rsi_session_stalled_publication(const struct rsi_session *session)
{
    uint64_t lowest_ns = 0;
    uint32_t publication = 0;
    for (uint32_t i = 0; session->blocking && i < RSI_AGENT_COUNT_MAX; i++) {
        const struct rsi_blocking_side *side = &session->blocking->sides[i];
        uint64_t place_ns = rsi_load_acquire(&side->place_ns);
        if (place_ns != 0 && (lowest_ns == 0 || place_ns < lowest_ns)) {
            lowest_ns = place_ns;
            publication = rsi_load_relaxed(&side->publication);
        }
    }
    return publication;
}
