/*
 * Design notes
 * - The common walk reads each log once for all sessions of this agent that keep up. It never
 * waits: a session whose out ring has no room leaves it with a cursor of its own at that frame, and
 * comes back when its cursor has met the common one. So one slow subscriber costs the others
 * nothing.
 * - Lagging cursors move before the common walk: older frames get the room that was given back.
 * - A cursor that is more than half a window behind is acted on at once, by its session's policy:
 *   drop skips it up to the common walk and notes what was left out; disconnect reports the
 *   session. Sessions under policy block have no cursor: spilling.c.
 * - Gaps are exact. Frames carry a sequence per publication, so a gap is two sequences: the first
 *   left out, kept for a publication that the link was never told of, and the first after it. A gap
 *   is told before the next frame of anything, and as soon as there is room. Who gives up a
 *   subscription is told nothing more of it, and when it comes back the announce is the new start:
 *   what was published in between is no gap.
 * - Copying from a log frame to an out ring leaves out the commit word: that is the ring's own.
 */
#include "broker/agent_internal.h"

#include <string.h>

static uint64_t announce_frame_bytes(const struct rsi_publication *publication)
{
    return rsi_frame_bytes(0, sizeof(struct rsi_announce) + publication->subject_bytes +
                                  publication->publisher_name_bytes);
}

static void fill_header(struct rsi_frame_header *header, enum rsi_frame_type type,
                        uint32_t publication, uint64_t payload_bytes)
{
    header->payload_bytes = (uint32_t)payload_bytes;
    header->type = (uint8_t)type;
    header->flags = 0;
    header->headers_bytes = 0;
    header->publication = publication;
    header->generation = 0;
    header->entry_count = 0;
    header->sequence = 0;
    header->publish_time_ns = 0;
}

/* Stages the announce of a publication. False: no room. */
static RSI_NOINLINE bool put_announce(struct rsi_agent *agent, struct rsi_session *session,
                                      const struct rsi_publication *publication,
                                      uint64_t next_sequence)
{
    uint64_t frame_bytes = announce_frame_bytes(publication);
    struct rsi_frame_header *header = rsi_frame_claim(session->link, frame_bytes);
    if (!header) {
        return false;
    }
    struct rsi_announce announce = {
        .publication = publication->id,
        .topic = publication->topic,
        .publisher_session = publication->publisher_session,
        .next_sequence = next_sequence,
        .subject_bytes = publication->subject_bytes,
        .name_bytes = publication->publisher_name_bytes,
    };
    fill_header(header, RSI_FRAME_ANNOUNCE, publication->id,
                sizeof(announce) + announce.subject_bytes + announce.name_bytes);
    uint8_t *payload = (uint8_t *)(header + 1);
    memcpy(payload, &announce, sizeof(announce));
    payload += sizeof(announce);
    memcpy(payload, publication->subject, announce.subject_bytes);
    payload += announce.subject_bytes;
    memcpy(payload, publication->publisher_name, announce.name_bytes);
    rsi_frame_commit(session->link, frame_bytes);
    rsi_bit_set(session->data.announced,
                publication->id & (agent->plane->options.publication_count_max - 1));
    rsi_agent_mark_dirty(agent, session);
    return true;
}

static void forget_gap(struct rsi_agent *agent, struct rsi_session *session, uint32_t slot)
{
    struct rsi_publication *publication = rsi_load_relaxed(&agent->plane->publications[slot]);
    rsi_bit_clear(session->data.gap_pending, slot);
    rsi_fetch_add_acq_rel(&publication->hold_count, UINT32_MAX);
    rsi_agent_count_pending(agent, session, -1);
}

void rsi_agent_forget_gaps(struct rsi_agent *agent, struct rsi_session *session)
{
    uint32_t slot_count = agent->plane->options.publication_count_max;
    for (uint32_t slot = 0; slot < slot_count && session->data.gap_pending_count > 0; slot++) {
        if (rsi_bit_get(session->data.gap_pending, slot)) {
            forget_gap(agent, session, slot);
        }
    }
}

static const struct rsi_match *match_of(const struct rsi_agent *agent,
                                        const struct rsi_session *session,
                                        const struct rsi_publication *publication)
{
    const struct rsi_topic *topic = rsi_topic_index_find(&agent->topics, publication->topic);
    rsi_assert(topic != NULL);
    return rsi_topic_match_of(topic, session,
                              publication->topic & (agent->topics.topic_count_max - 1));
}

bool rsi_agent_is_wanted(const struct rsi_agent *agent, const struct rsi_session *session,
                         const struct rsi_publication *publication,
                         const struct rsi_frame_header *header)
{
    const struct rsi_match *match = match_of(agent, session, publication);
    if (!match) {
        return false;
    }
    return header ? rsi_match_wants(match, publication, header)
                  : match->member_count > 0 || rsi_match_follows(match, publication);
}

bool rsi_agent_is_sparse(const struct rsi_agent *agent, const struct rsi_session *session,
                         const struct rsi_publication *publication)
{
    const struct rsi_match *match = match_of(agent, session, publication);
    return match && !rsi_match_follows(match, publication);
}

void rsi_agent_forget_unwanted(struct rsi_agent *agent, struct rsi_session *session)
{
    uint32_t word_count = (agent->plane->options.publication_count_max + 63) / 64;
    for (uint32_t word = 0; word < word_count; word++) {
        uint64_t bits = session->data.announced[word] | session->data.gap_pending[word];
        for (; bits != 0; bits &= bits - 1) {
            uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);
            if (rsi_agent_is_wanted(agent, session,
                                    rsi_load_relaxed(&agent->plane->publications[slot]), NULL)) {
                continue;
            }
            rsi_bit_clear(session->data.announced, slot);
            rsi_session_set_sparse(session, slot, false);
            if (rsi_bit_get(session->data.gap_pending, slot)) {
                forget_gap(agent, session, slot);
            }
        }
    }
}

/* Stages one gap record. False: no room. */
static bool put_gap_record(struct rsi_agent *agent, struct rsi_session *session,
                           const struct rsi_publication *publication, uint64_t first_sequence,
                           uint64_t next_sequence, uint64_t count, enum rsi_gap_reason reason)
{
    uint32_t slot = publication->id & (agent->plane->options.publication_count_max - 1);
    if (!rsi_bit_get(session->data.announced, slot) &&
        !put_announce(agent, session, publication, first_sequence)) {
        return false;
    }
    struct {
        struct rsi_gap gap;
        struct rsi_gap_entry entry;
    } record = {
        .gap = {.reason = reason, .entry_count = 1},
        .entry = {.publication = publication->id,
                  .count = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX,
                  .next_sequence = next_sequence},
    };
    uint64_t frame_bytes = rsi_frame_bytes(0, sizeof(record));
    struct rsi_frame_header *header = rsi_frame_claim(session->link, frame_bytes);
    if (!header) {
        return false;
    }
    fill_header(header, RSI_FRAME_GAP, 0, sizeof(record));
    memcpy(header + 1, &record, sizeof(record));
    rsi_frame_commit(session->link, frame_bytes);
    rsi_agent_mark_dirty(agent, session);
    return true;
}

/* Tells what was dropped of one publication. False: no room. */
static bool put_gap(struct rsi_agent *agent, struct rsi_session *session, uint32_t slot)
{
    if (!put_gap_record(agent, session, rsi_load_relaxed(&agent->plane->publications[slot]),
                        session->data.gap_first[slot], session->data.gap_next[slot],
                        session->data.gap_count[slot], RSI_GAP_DROPPED)) {
        return false;
    }
    forget_gap(agent, session, slot);
    return true;
}

bool rsi_agent_put_mark(struct rsi_agent *agent, struct rsi_session *session, uint64_t subscription,
                        enum rsi_snapshot_step step)
{
    const struct rsi_snapshot_mark mark = {.subscription = subscription, .step = step};
    uint64_t frame_bytes = rsi_frame_bytes(0, sizeof(mark));
    struct rsi_frame_header *header = rsi_frame_claim(session->link, frame_bytes);
    if (!header) {
        return false;
    }
    fill_header(header, RSI_FRAME_SNAPSHOT, 0, sizeof(mark));
    memcpy(header + 1, &mark, sizeof(mark));
    rsi_frame_commit(session->link, frame_bytes);
    rsi_agent_mark_dirty(agent, session);
    return true;
}

/* Stages what precedes the next frame: where subscriptions start, and gaps that were not told yet.
 * False: no room for all. */
static RSI_NOINLINE bool put_gaps(struct rsi_agent *agent, struct rsi_session *session)
{
    uint32_t word_count = (agent->plane->options.publication_count_max + 63) / 64;
    if (session->data.snapshots && !rsi_agent_start_snapshots(agent, session)) {
        return false;
    }
    for (uint32_t word = 0; word < word_count && session->data.gap_pending_count > 0; word++) {
        while (session->data.gap_pending[word] != 0) {
            uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(session->data.gap_pending[word]);
            if (!put_gap(agent, session, slot)) {
                return false;
            }
        }
    }
    return true;
}

/* Groups are in play: the flags that the session's copy of a frame needs beside its own. */
static RSI_NOINLINE uint8_t sparse_flags(struct rsi_agent *agent, struct rsi_session *session,
                                         const struct rsi_publication *publication,
                                         const struct rsi_frame_header *source)
{
    uint32_t slot = publication->id & (agent->plane->options.publication_count_max - 1);
    bool was_sparse = rsi_bit_get(session->data.sparse, slot);
    bool is_sparse = (source->flags & RSI_FRAME_FLAG_SPARSE) != 0 ||
                     rsi_agent_is_sparse(agent, session, publication);
    rsi_session_set_sparse(session, slot, is_sparse);
    return is_sparse || was_sparse ? RSI_FRAME_FLAG_SPARSE : 0;
}

bool rsi_agent_put_gap(struct rsi_agent *agent, struct rsi_session *session,
                       const struct rsi_publication *publication, uint64_t first_sequence,
                       uint64_t next_sequence, enum rsi_gap_reason reason)
{
    if (session->data.gap_pending_count > 0 && !put_gaps(agent, session)) {
        return false;
    }
    return put_gap_record(agent, session, publication, first_sequence, next_sequence,
                          next_sequence - first_sequence, reason);
}

/* `next_sequence` is for the announce, if there has to be one. */
static struct rsi_frame_header *put_stored(struct rsi_agent *agent, struct rsi_session *session,
                                           const struct rsi_last_value *value,
                                           uint64_t next_sequence)
{
    const struct rsi_publication *publication = value->publication;
    uint32_t slot = publication->id & (agent->plane->options.publication_count_max - 1);
    if (session->data.gap_pending_count > 0 && !put_gaps(agent, session)) {
        return NULL;
    }
    if (!rsi_bit_get(session->data.announced, slot) &&
        !put_announce(agent, session, publication, next_sequence)) {
        return NULL;
    }
    struct rsi_frame_header *header = rsi_frame_claim(session->link, value->frame_bytes);
    if (!header) {
        return NULL;
    }
    rsi_last_value_copy(value, header);
    rsi_bump_relaxed(&session->counts.delivered_messages, 1);
    rsi_bump_relaxed(&session->counts.delivered_bytes, header->payload_bytes);
    rsi_bump_relaxed(&agent->counts.delivered_messages, 1);
    rsi_frame_commit(session->link, value->frame_bytes);
    rsi_agent_mark_dirty(agent, session);
    return header;
}

/* The publication's next live frame, if the session is owed any, has the sequence behind the
 * value's. How old values are says nothing of how fast this broker is, so latency leaves them out.
 */
bool rsi_agent_put_last(struct rsi_agent *agent, struct rsi_session *session,
                        const struct rsi_last_value *value)
{
    struct rsi_frame_header *header =
        put_stored(agent, session, value, rsi_last_value_header(value)->sequence + 1);
    if (!header) {
        return false;
    }
    header->type = RSI_FRAME_LAST;
    return true;
}

static inline void count_staged(struct rsi_session *session, uint64_t publish_time_ns)
{
    if (session->data.staged_count++ == 0 ||
        publish_time_ns < session->data.oldest_publish_time_ns) {
        session->data.oldest_publish_time_ns = publish_time_ns;
    }
}

bool rsi_agent_put_value(struct rsi_agent *agent, struct rsi_session *session,
                         const struct rsi_last_value *value)
{
    const struct rsi_frame_header *stored = rsi_last_value_header(value);
    struct rsi_frame_header *header = put_stored(agent, session, value, stored->sequence);
    if (!header) {
        return false;
    }
    if (stored->type == RSI_FRAME_REQUEST) { /* it was missed, and is answered as lost */
        header->type = RSI_FRAME_MESSAGE;
    }
    count_staged(session, stored->publish_time_ns);
    return true;
}

/* Stages one frame for one session. False: no room; what had to precede it may have been staged. */
static inline bool put_frame(struct rsi_agent *agent, struct rsi_session *session,
                             const struct rsi_publication *publication,
                             const struct rsi_frame_header *source, uint64_t frame_bytes)
{
    uint32_t slot = publication->id & (agent->plane->options.publication_count_max - 1);
    if (rsi_unlikely(session->data.gap_pending_count > 0) && !put_gaps(agent, session)) {
        return false;
    }
    if (rsi_unlikely(!rsi_bit_get(session->data.announced, slot)) &&
        !put_announce(agent, session, publication, source->sequence)) {
        return false;
    }
    struct rsi_frame_header *header = rsi_frame_claim(session->link, frame_bytes);
    if (rsi_unlikely(!header)) {
        return false;
    }
    memcpy((uint8_t *)header + sizeof(header->commit),
           (const uint8_t *)source + sizeof(source->commit), frame_bytes - sizeof(header->commit));
    if (rsi_unlikely((source->entry_count | session->data.sparse_count) != 0)) {
        header->flags |= sparse_flags(agent, session, publication, source);
    }
    rsi_frame_commit(session->link, frame_bytes);
    rsi_agent_mark_dirty(agent, session);
    count_staged(session, source->publish_time_ns);
    rsi_bump_relaxed(&session->counts.delivered_messages, 1);
    rsi_bump_relaxed(&session->counts.delivered_bytes, source->payload_bytes);
    return true;
}

bool rsi_agent_put_frame(struct rsi_agent *agent, struct rsi_session *session,
                         const struct rsi_publication *publication,
                         const struct rsi_frame_header *source, uint64_t frame_bytes)
{
    return put_frame(agent, session, publication, source, frame_bytes);
}

void rsi_agent_begin_lag(struct rsi_agent *agent, struct rsi_session *session, uint32_t log_index,
                         uint64_t position)
{
    struct rsi_lag *lag = &session->data.lags[log_index];
    lag->cursor_pos = position;
    lag->is_lagging = true;
    session->data.lagging_count++;
    agent->lagging_count++;
    rsi_agent_note_behind(session);
}

void rsi_agent_end_lag(struct rsi_agent *agent, struct rsi_session *session, uint32_t log_index)
{
    struct rsi_lag *lag = &session->data.lags[log_index];
    lag->is_lagging = false;
    lag->is_dropping = false;
    session->data.lagging_count--;
    agent->lagging_count--;
    rsi_agent_note_behind(session);
}

void rsi_agent_note_behind(struct rsi_session *session)
{
    const struct rsi_blocking *blocking = session->data.blocking;
    bool is_behind = session->data.lagging_count > 0 ||
                     (blocking && !rsi_spill_is_empty(&blocking->spill)) ||
                     rsi_link_state(session->link) != RSI_LINK_ATTACHED;
    rsi_store_relaxed(&session->is_behind, is_behind);
}

void rsi_agent_end_lags(struct rsi_agent *agent, struct rsi_session *session)
{
    for (uint32_t i = 0; i < agent->plane->options.agent_count; i++) {
        if (session->data.lags[i].is_lagging) {
            rsi_agent_end_lag(agent, session, i);
        }
    }
}

/* Where the walk of a log from `position` ends in this pass: not beyond its end, not too far. */
static uint64_t bounded_end_pos(uint64_t position, uint64_t end_pos, uint64_t bytes)
{
    return end_pos - position > bytes ? position + bytes : end_pos;
}

bool rsi_agent_put_reply(struct rsi_agent *agent, struct rsi_session *session,
                         const struct rsi_frame_header *source, uint64_t frame_bytes)
{
    struct rsi_frame_header *header = rsi_frame_claim(session->link, frame_bytes);
    if (!header) {
        return false;
    }
    memcpy((uint8_t *)header + sizeof(header->commit),
           (const uint8_t *)source + sizeof(source->commit), frame_bytes - sizeof(header->commit));
    rsi_frame_commit(session->link, frame_bytes);
    rsi_agent_mark_dirty(agent, session);
    rsi_bump_relaxed(&session->counts.delivered_messages, 1);
    rsi_bump_relaxed(&session->counts.delivered_bytes, source->payload_bytes);
    return true;
}

/* The frame cannot simply be put into the out ring. Whether it was put there all the same. */
static RSI_NOINLINE bool deliver_otherwise(struct rsi_agent *agent,
                                           const struct rsi_delivery *delivery)
{
    if (delivery->match->session->data.needs_care) {
        return rsi_agent_deliver_with_care(agent, delivery);
    }
    rsi_agent_hold_back(agent, delivery);
    return false;
}

RSI_NOINLINE void rsi_agent_keep_last(struct rsi_agent *agent, const struct rsi_topic *topic,
                                      struct rsi_publication *publication,
                                      const struct rsi_frame_header *header, uint64_t frame_bytes,
                                      uint32_t log_index, uint64_t position)
{
    struct rsi_publication *replaced;
    rsi_last_values_update(&agent->last_values, topic, publication, header, frame_bytes, log_index,
                           position, &replaced);
    rsi_store_relaxed(&agent->counts.last_value_overflows, agent->last_values.overflow_count);
    if (rsi_likely(!replaced)) {
        return;
    }
    rsi_fetch_add_acq_rel(&replaced->kept_count, UINT32_MAX);
    if (rsi_load_relaxed(&replaced->closed)) {
        rsi_fetch_add_acq_rel(&agent->plane->unkept_count, 1u);
        rsi_waker_wake(agent->plane->options.control_waker);
    }
}

bool rsi_agent_deliver(struct rsi_agent *agent, const struct rsi_delivery *delivery)
{
    struct rsi_session *session = delivery->match->session;
    return (!session->data.needs_care && put_frame(agent, session, delivery->publication,
                                                   delivery->header, delivery->frame_bytes)) ||
           deliver_otherwise(agent, delivery);
}

static uint64_t walk_log(struct rsi_agent *agent, uint32_t log_index, uint64_t end_pos)
{
    struct rsi_message_log *log = &agent->plane->agents[log_index]->log;
    uint64_t position = agent->common_pos[log_index];
    uint64_t stop_pos = bounded_end_pos(position, end_pos, RSI_WALK_BYTES_PER_PASS);
    uint64_t frame_count = 0;
    uint64_t delivered_count = 0;
    while (position < stop_pos) {
        const struct rsi_frame_header *header = rsi_message_log_at(log, position);
        uint64_t frame_bytes = rsi_commit_frame_bytes(header->commit, position);
        rsi_assert(frame_bytes >= RSI_FRAME_HEADER_BYTES);
        if (rsi_unlikely(header->type != RSI_FRAME_MESSAGE)) {
            delivered_count += rsi_agent_walk_call(agent, header, frame_bytes, log_index, position);
            position += frame_bytes;
            frame_count++;
            continue;
        }
        struct rsi_publication *publication =
            rsi_plane_publication(agent->plane, header->publication);
        const struct rsi_topic *topic = rsi_topic_index_find(&agent->topics, publication->topic);
        rsi_assert(topic != NULL);
        if (rsi_unlikely(topic->last_value != 0)) {
            rsi_agent_keep_last(agent, topic, publication, header, frame_bytes, log_index,
                                position);
        }
        for (uint32_t i = 0; i < topic->match_count; i++) {
            const struct rsi_match *match = &topic->matches[i];
            struct rsi_session *session = match->session;
            if (session->data.lags[log_index].is_lagging || session->data.is_failed ||
                !rsi_match_wants(match, publication, header)) {
                continue;
            }
            if (rsi_likely(!session->data.needs_care) &&
                put_frame(agent, session, publication, header, frame_bytes)) {
                delivered_count++;
                continue;
            }
            delivered_count +=
                deliver_otherwise(agent, &(struct rsi_delivery){match, publication, header,
                                                                frame_bytes, log_index, position});
        }
        position += frame_bytes;
        frame_count++;
    }
    agent->common_pos[log_index] = position;
    rsi_bump_relaxed(&agent->counts.delivered_messages, delivered_count);
    return frame_count;
}

/* xorshift64: only the order of walking depends on it. */
static uint32_t next_random(struct rsi_agent *agent)
{
    agent->random ^= agent->random << 13;
    agent->random ^= agent->random >> 7;
    agent->random ^= agent->random << 17;
    return (uint32_t)(agent->random >> 32);
}

uint64_t rsi_agent_walk(struct rsi_agent *agent)
{
    uint32_t log_count = agent->plane->options.agent_count;
    uint32_t first = agent->random ? next_random(agent) % log_count : 0;
    uint64_t end_pos[RSI_AGENT_COUNT_MAX];
    for (uint32_t i = 0; i < log_count; i++) {
        end_pos[i] = rsi_message_log_end_pos(&agent->plane->agents[i]->log);
    }
    /* After the ends: an agent that applied an edit before this one, and admitted at once what a
     * client sent without waiting for its answer, published its end after both. */
    uint64_t work_count = log_count > 1 ? rsi_agent_apply_edits(agent) : 0;
    for (uint32_t i = 0; i < log_count; i++) {
        work_count += walk_log(agent, (first + i) % log_count, end_pos[(first + i) % log_count]);
    }
    return work_count;
}

const struct rsi_match *rsi_agent_match_behind(const struct rsi_agent *agent,
                                               const struct rsi_session *session,
                                               const struct rsi_publication *publication,
                                               uint32_t log_index, uint64_t position)
{
    const struct rsi_match *match = match_of(agent, session, publication);
    const struct rsi_frame_header *header =
        rsi_message_log_at(&agent->plane->agents[log_index]->log, position);
    if (!match || rsi_match_is_too_early(match, log_index, position) ||
        !rsi_match_wants(match, publication, header)) {
        return NULL;
    }
    return match;
}

void rsi_agent_note_dropped(struct rsi_agent *agent, struct rsi_session *session,
                            struct rsi_publication *publication,
                            const struct rsi_frame_header *header)
{
    uint64_t sequence = header->sequence;
    if (header->type == RSI_FRAME_REPLY) { /* its request times out */
        rsi_bump_relaxed(&session->counts.dropped_messages, 1);
        return;
    }
    if (header->type == RSI_FRAME_REQUEST) {
        rsi_agent_lose_call(agent, session, header);
    }
    uint32_t slot = publication->id & (agent->plane->options.publication_count_max - 1);
    if (!rsi_bit_get(session->data.gap_pending, slot)) {
        rsi_bit_set(session->data.gap_pending, slot);
        rsi_fetch_add_acq_rel(&publication->hold_count, 1u);
        session->data.gap_first[slot] = sequence;
        session->data.gap_count[slot] = 0;
        rsi_agent_count_pending(agent, session, 1);
    }
    session->data.gap_next[slot] = sequence + 1;
    session->data.gap_count[slot]++;
    rsi_bump_relaxed(&session->counts.dropped_messages, 1);
}

bool rsi_agent_is_owed_behind(const struct rsi_agent *agent, const struct rsi_session *session,
                              const struct rsi_publication *publication, uint32_t log_index,
                              uint64_t position)
{
    const struct rsi_frame_header *header =
        rsi_message_log_at(&agent->plane->agents[log_index]->log, position);
    return publication
               ? rsi_agent_match_behind(agent, session, publication, log_index, position) != NULL
               : rsi_call_requester(header).session == session->id;
}

static uint64_t move_cursor(struct rsi_agent *agent, struct rsi_session *session,
                            uint32_t log_index)
{
    struct rsi_lag *lag = &session->data.lags[log_index];
    const struct rsi_message_log *log = &agent->plane->agents[log_index]->log;
    uint64_t common_pos = agent->common_pos[log_index];
    uint64_t stop_pos =
        bounded_end_pos(lag->cursor_pos, common_pos,
                        lag->is_dropping ? RSI_SKIP_BYTES_PER_PASS : RSI_WALK_BYTES_PER_PASS);
    uint64_t frame_count = 0;
    uint64_t delivered_count = 0;
    while (lag->cursor_pos < stop_pos) {
        const struct rsi_frame_header *header = rsi_message_log_at(log, lag->cursor_pos);
        uint64_t frame_bytes = rsi_commit_frame_bytes(header->commit, lag->cursor_pos);
        rsi_assert(frame_bytes >= RSI_FRAME_HEADER_BYTES);
        struct rsi_publication *publication =
            header->publication ? rsi_plane_publication(agent->plane, header->publication) : NULL;
        if (rsi_agent_is_owed_behind(agent, session, publication, log_index, lag->cursor_pos)) {
            if (lag->is_dropping) {
                rsi_agent_note_dropped(agent, session, publication, header);
            } else if (publication ? put_frame(agent, session, publication, header, frame_bytes)
                                   : rsi_agent_put_reply(agent, session, header, frame_bytes)) {
                delivered_count++;
            } else {
                break;
            }
        }
        lag->cursor_pos += frame_bytes;
        frame_count++;
    }
    rsi_bump_relaxed(&agent->counts.delivered_messages, delivered_count);
    return frame_count;
}

static void act_on_lag(struct rsi_agent *agent, struct rsi_session *session, uint32_t log_index)
{
    struct rsi_lag *lag = &session->data.lags[log_index];
    const struct rsi_message_log *log = &agent->plane->agents[log_index]->log;
    uint64_t lag_bytes = rsi_message_log_end_pos(log) - lag->cursor_pos;
    bool is_too_far = lag_bytes > log->ring.capacity_bytes / 2;
    rsi_store_relaxed(&session->counts.lag_bytes, lag_bytes);
    rsi_assert(session->data.policy != RSI_POLICY_BLOCK);
    if (!is_too_far) {
        return;
    }
    if (session->data.policy == RSI_POLICY_DISCONNECT) {
        rsi_agent_fault(agent, session, RSI_E_SLOW,
                        "subscriber %s is %llu bytes behind, more than half of the log window of "
                        "%llu bytes, and its policy is disconnect; read faster, ask for policy "
                        "block or drop, or raise log_bytes",
                        session->name, (unsigned long long)lag_bytes,
                        (unsigned long long)log->ring.capacity_bytes);
        return;
    }
    if (!lag->is_dropping) {
        lag->is_dropping = true;
        rsi_bump_relaxed(&session->counts.gaps, 1);
    }
}

static uint64_t catch_up_session(struct rsi_agent *agent, struct rsi_session *session)
{
    uint64_t frame_count = 0;
    if (session->data.needs_care) {
        frame_count += session->data.conflating ? rsi_agent_send_conflated(agent, session)
                                                : rsi_agent_drain_spill(agent, session);
    }
    if (session->data.snapshots) {
        frame_count += rsi_agent_send_snapshot(agent, session);
    }
    for (uint32_t i = 0; i < agent->plane->options.agent_count; i++) {
        struct rsi_lag *lag = &session->data.lags[i];
        if (!lag->is_lagging) {
            continue;
        }
        frame_count += move_cursor(agent, session, i);
        act_on_lag(agent, session, i);
        if (session->data.is_failed) {
            return frame_count;
        }
        if (lag->cursor_pos == agent->common_pos[i]) {
            rsi_agent_end_lag(agent, session, i);
            rsi_store_relaxed(&session->counts.lag_bytes, 0);
        }
    }
    if (session->data.gap_pending_count > 0) {
        (void)put_gaps(agent, session);
    }
    return frame_count;
}

uint64_t rsi_agent_catch_up(struct rsi_agent *agent)
{
    if (!rsi_agent_owes(agent)) {
        return 0;
    }
    uint64_t frame_count = 0;
    for (uint32_t i = 0; i < agent->session_count; i++) {
        struct rsi_session *session = agent->sessions[i];
        if (rsi_session_is_owed(session)) {
            frame_count += catch_up_session(agent, session);
        }
    }
    return frame_count;
}

void rsi_agent_emit(struct rsi_agent *agent)
{
    for (uint32_t i = 0; i < agent->dirty_count; i++) {
        struct rsi_session *session = agent->dirty[i];
        session->data.is_dirty = false;
        if (session->data.is_failed) {
            continue;
        }
        rsi_link_place(session->link);
        /* What it cannot emit now, poll_data emits when credit returns. */
        (void)rsi_link_flush_clocked(session->link);
    }
    agent->emitted_count = agent->dirty_count;
    agent->dirty_count = 0;
}

void rsi_agent_publish_needed(struct rsi_agent *agent)
{
    uint32_t log_count = agent->plane->options.agent_count;
    for (uint32_t i = 0; i < log_count; i++) {
        uint64_t walked_pos = agent->common_pos[i];
        uint64_t needed_pos = walked_pos;
        for (uint32_t at = 0; at < agent->session_count && agent->lagging_count > 0; at++) {
            const struct rsi_lag *lag = &agent->sessions[at]->data.lags[i];
            if (lag->is_lagging && lag->cursor_pos < needed_pos) {
                needed_pos = lag->cursor_pos;
            }
        }
        if (needed_pos == rsi_load_relaxed(&agent->needed_pos[i]) &&
            walked_pos == rsi_load_relaxed(&agent->walked_pos[i])) {
            continue;
        }
        rsi_store_release(&agent->needed_pos[i], needed_pos);
        /* After all that this walk entered in the table of contended sessions. */
        rsi_store_release(&agent->walked_pos[i], walked_pos);
        struct rsi_agent *owner = agent->plane->agents[i];
        if (owner == agent) {
            continue;
        }
        /* Mirrors the owner's look at these after it said that it wants room and will sleep. */
        rsi_fence_seq_cst();
        if (rsi_load_relaxed(&owner->wants_room)) {
            rsi_waker_wake(&owner->waker);
        }
    }
}
