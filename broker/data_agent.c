/*
 * Design notes: data_agent.h says what must hold between agents and the control agent. Here: the
 * plane, the edit list, and an agent's duty cycle.
 *
 * A pass: apply edits; poll the links; admit; catch up lagging cursors; walk (beside other agents:
 * look at the logs' ends, apply edits once more, walk to these ends); emit; publish what is still
 * needed. When a pass found nothing, the idle strategy decides whether to look again or to
 * sleep.
 *
 * Sleeping. The agent says that it will sleep (waker, with its seq_cst fence), arms the pollers,
 * and looks once more at everything that no poller watches: the edit list, the ends of the other
 * agents' logs, and what admission waits for. Whoever moves one of these wakes it after moving it.
 * What a lagging session waits for, room in its ring, is asked of the link (request_wake). There is
 * no time-out but that of block_timeout, and only while a publisher waits for a session of this
 * agent: a lost wake-up would be a hang that tests see, not a delay that hides.
 */
#include "broker/agent_internal.h"

#include "core/clock.h"
#include "core/cpu.h"
#include "core/log.h"
#include "core/position.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ---- sessions ----------------------------------------------------------------------------------
 */

void rsi_agent_fault(struct rsi_agent *agent, struct rsi_session *session, rsi_status_t status,
                     const char *format, ...)
{
    if (status == RSI_E_PROTOCOL) {
        session->data.is_distrusted = true;
        rsi_blocking_step_aside(agent, session);
    }
    if (session->data.is_failed) {
        return;
    }
    session->data.is_failed = true;
    rsi_agent_end_lags(agent, session);
    rsi_agent_forget_gaps(agent, session);
    rsi_agent_end_snapshots(agent, session);
    rsi_agent_end_conflate(agent, session);
    rsi_agent_end_block(agent, session);
    char text[RSI_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    (void)rsi_fail(&session->fault, status, "%s", text);
    rsi_store_release(&session->faulted, 1u);
    rsi_waker_wake(agent->plane->options.control_waker);
}

/* ---- duty cycle
 * ---------------------------------------------------------------------------------- */

void rsi_agent_wake_others(struct rsi_agent *agent)
{
    for (uint32_t i = 0; i < agent->plane->options.agent_count; i++) {
        if (i != agent->index) {
            rsi_waker_wake(&agent->plane->agents[i]->waker);
        }
    }
}

/* Stopping: says when nothing more will be admitted, and when all of it was delivered. */
static void report_drained(struct rsi_agent *agent)
{
    if (rsi_load_relaxed(&agent->is_drained)) {
        return;
    }
    bool has_admitted = true;
    bool has_delivered = !rsi_agent_owes(agent);
    for (uint32_t i = 0; i < agent->session_count; i++) {
        const struct rsi_session *session = agent->sessions[i];
        struct rsi_link *link = session->link;
        if (!session->data.is_distrusted && link->consumed_pos < link->arrived_pos &&
            link->consumed_pos < session->data.stop_pos) {
            has_admitted = false;
        }
        if (!session->data.is_failed && link->peer_arrived_pos < link->staged_pos &&
            rsi_link_state(link) == RSI_LINK_ATTACHED) {
            has_delivered = false;
            rsi_link_request_wake(link, UINT64_MAX, link->staged_pos, UINT64_MAX);
        }
    }
    if (has_admitted && !rsi_load_relaxed(&agent->has_admitted)) {
        rsi_store_release(&agent->has_admitted, 1u);
        rsi_agent_wake_others(agent);
    }
    for (uint32_t i = 0; i < agent->plane->options.agent_count && has_delivered; i++) {
        const struct rsi_agent *other = agent->plane->agents[i];
        has_delivered = rsi_load_acquire(&other->has_admitted) != 0 &&
                        rsi_message_log_end_pos(&other->log) == agent->common_pos[i];
    }
    if (has_delivered) {
        rsi_store_release(&agent->is_drained, 1u);
        rsi_waker_wake(agent->plane->options.control_waker);
    }
}

static uint64_t poll_links(struct rsi_agent *agent)
{
    bool is_turn = rsi_load_relaxed(&agent->counts.passes) % RSI_PASSES_PER_COSTLY_POLL == 0;
    uint64_t work_count = 0;
    for (uint32_t i = 0; i < agent->poller_count; i++) {
        struct rsi_poller *poller = agent->pollers[i];
        if (poller->transport->polls_by_system_call && !agent->was_busy[i] && !is_turn &&
            agent->poller_count > 1) {
            continue;
        }
        uint32_t count = rsi_poller_poll(poller, agent->now_ns);
        agent->was_busy[i] = count > 0;
        work_count += count;
    }
    return work_count;
}

/*
 * How old what the pass before has placed had become by its end. Sessions stand in the list as long
 * as no edit of this pass is applied, and so are there. A clock that is behind the publisher's says
 * that no time has passed.
 */
static void count_latencies(struct rsi_agent *agent, uint64_t realtime_ns)
{
    for (uint32_t i = 0; i < agent->emitted_count; i++) {
        struct rsi_session *session = agent->dirty[i];
        uint64_t oldest_ns = session->data.oldest_publish_time_ns;
        if (session->data.staged_count > 0) {
            rsi_latency_record(&session->latency,
                               realtime_ns > oldest_ns ? realtime_ns - oldest_ns : 0,
                               session->data.staged_count);
            session->data.staged_count = 0;
        }
    }
    agent->emitted_count = 0;
}

/* The clock is read once per pass: a pass that did work ended when the next one begins, for none
 * sleeps after work. */
static void begin_pass(struct rsi_agent *agent)
{
    uint64_t now_ns = rsi_clock_now_ns();
    uint64_t pass_ns = now_ns - agent->now_ns;
    if (agent->has_worked && pass_ns > rsi_load_relaxed(&agent->counts.longest_pass_ns)) {
        rsi_store_relaxed(&agent->counts.longest_pass_ns, pass_ns);
    }
    agent->now_ns = now_ns;
    count_latencies(agent, now_ns + (uint64_t)rsi_clock_thread.realtime_offset_ns);
}

uint64_t rsi_agent_pass(struct rsi_agent *agent)
{
    begin_pass(agent);
    uint64_t work_count = rsi_agent_apply_edits(agent);
    work_count += poll_links(agent);
    work_count += rsi_agent_admit(agent);
    work_count += rsi_agent_catch_up(agent);
    work_count += rsi_agent_walk(agent);
    rsi_agent_emit(agent);
    rsi_agent_publish_needed(agent);
    if (agent->contended_count > 0) {
        rsi_blocking_watch(agent);
    }
    if (agent->closing_count > 0) {
        rsi_agent_finish_closing(agent);
    }
    if (agent->leaving_count > 0) {
        rsi_agent_finish_leaving(agent);
    }
    if (agent->is_stopping) {
        report_drained(agent);
    }
    rsi_bump_relaxed(&agent->counts.passes, 1);
    agent->has_worked = work_count > 0;
    if (agent->has_worked) {
        rsi_bump_relaxed(&agent->counts.busy_passes, 1);
    }
    return work_count;
}

/* Asks the links of lagging sessions to say when half of their rings is free again. */
static void request_room(struct rsi_agent *agent)
{
    if (!rsi_agent_owes(agent)) {
        return;
    }
    for (uint32_t i = 0; i < agent->session_count; i++) {
        struct rsi_session *session = agent->sessions[i];
        struct rsi_link *link = session->link;
        if (session->data.is_failed || !rsi_session_is_owed(session)) {
            continue;
        }
        uint64_t half_bytes = link->out.capacity_bytes / 2;
        if (link->staged_pos > half_bytes) {
            rsi_link_request_wake(link, UINT64_MAX, UINT64_MAX, link->staged_pos - half_bytes);
        }
    }
}

/* Work that came between the last pass and the moment from which others wake this agent. */
static bool has_unwatched_work(struct rsi_agent *agent)
{
    const struct rsi_data_plane *plane = agent->plane;
    if (rsi_load_acquire(&plane->edit_count) != rsi_load_relaxed(&agent->applied_count) ||
        rsi_load_acquire(&plane->must_end)) {
        return true;
    }
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        const struct rsi_agent *other = plane->agents[i];
        if (rsi_message_log_end_pos(&other->log) != agent->common_pos[i]) {
            return true;
        }
    }
    /* Admission stopped: at its limit, or because publishers wait for blocked sessions. */
    if (rsi_load_relaxed(&agent->wants_room)) {
        return rsi_agent_admit_limit_pos(agent) != agent->admit_limit_pos;
    }
    if (agent->lost_count > 0) {
        return true; /* answers that nothing keeps from the log */
    }
    return agent->waiting_count > 0 && rsi_blocking_lets_go(agent);
}

/* How long to wait for events at most: until a session that holds publishers back is ended. */
static int sleep_timeout_ms(const struct rsi_agent *agent)
{
    if (agent->contended_count == 0) {
        return -1;
    }
    uint64_t deadline_ns = rsi_blocking_deadline_ns(agent);
    if (deadline_ns == UINT64_MAX) {
        return -1;
    }
    uint64_t now_ns = rsi_clock_now_ns();
    return deadline_ns > now_ns ? (int)((deadline_ns - now_ns) / 1000000 + 1) : 0;
}

static void sleep_until_work(struct rsi_agent *agent)
{
    rsi_waker_prepare(&agent->waker);
    /* Once more, because no poller watches what these look at: the states of links and what other
     * agents have said of their stop. Who changed it before prepare woke nobody. */
    if (agent->leaving_count > 0) {
        rsi_agent_finish_leaving(agent);
    }
    if (agent->is_stopping) {
        report_drained(agent);
    }
    if (agent->contended_count > 0) {
        rsi_blocking_watch(agent);
    }
    request_room(agent);
    bool may_sleep = true;
    uint32_t armed_count = 0;
    while (armed_count < agent->poller_count && may_sleep) {
        struct rsi_poller *poller = agent->pollers[armed_count++];
        may_sleep = poller->transport->poller_arm(poller);
    }
    if (may_sleep && !has_unwatched_work(agent)) {
        struct epoll_event events[RSI_TRANSPORT_COUNT_MAX + 1];
        rsi_bump_relaxed(&agent->counts.sleeps, 1);
        int count = epoll_wait(agent->epoll_fd, events, (int)rsi_array_count(events),
                               sleep_timeout_ms(agent));
        if (count > 0) {
            rsi_bump_relaxed(&agent->counts.wakes, 1);
        }
    }
    for (uint32_t i = 0; i < armed_count; i++) {
        agent->pollers[i]->transport->poller_disarm(agent->pollers[i]);
    }
    for (uint32_t i = 0; i < agent->poller_count; i++) {
        agent->was_busy[i] = true; /* whichever it was that ended the wait: look at all */
    }
    rsi_waker_finish(&agent->waker);
}

static void *run_agent(void *arg)
{
    struct rsi_agent *agent = arg;
    char name[16];
    snprintf(name, sizeof(name), "data-agent-%u", agent->index);
    rsi_thread_name(name);
    while (!rsi_load_acquire(&agent->plane->must_end)) {
        uint64_t work_count = rsi_agent_pass(agent);
        if (rsi_idle_step(&agent->idle, work_count) == RSI_IDLE_SLEEP) {
            sleep_until_work(agent);
        } else if (work_count == 0) {
            rsi_cpu_pause();
        }
    }
    return NULL;
}

/* ---- plane, control agent
 * ------------------------------------------------------------------------ */

static void agent_destroy(struct rsi_agent *agent)
{
    if (!agent) {
        return;
    }
    if (agent->epoll_fd >= 0) {
        close(agent->epoll_fd);
    }
    rsi_waker_fini(&agent->waker);
    rsi_message_log_fini(&agent->log);
    rsi_topic_index_fini(&agent->topics);
    rsi_groups_fini(&agent->groups);
    rsi_last_values_fini(&agent->last_values);
    free(agent->sessions);
    free(agent->by_id);
    free(agent->dirty);
    free(agent->contended);
    free(agent);
}

static rsi_status_t agent_watch(struct rsi_agent *agent, int fd, struct rsi_error *error)
{
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(agent->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        return rsi_fail_errno(error, RSI_E_SYSTEM, errno, "cannot watch a descriptor");
    }
    return RSI_OK;
}

static rsi_status_t agent_fill(struct rsi_agent *agent, struct rsi_error *error)
{
    const struct rsi_data_options *options = &agent->plane->options;
    char name[16];
    snprintf(name, sizeof(name), "log-%u", agent->index);
    int node = agent->cpu >= 0 ? rsi_cpu_node((unsigned)agent->cpu) : RSI_NODE_ANY;
    rsi_status_t status = rsi_waker_init(&agent->waker, error);
    if (status == RSI_OK) {
        status = rsi_message_log_init(&agent->log, name, options->log_bytes, node, error);
        if (status == RSI_E_NO_MEMORY) {
            rsi_error_context(error,
                              "log_bytes %llu for each of %u agents; lower it, or raise "
                              "what this process may have (ulimit -v, its memory cgroup)",
                              (unsigned long long)options->log_bytes, options->agent_count);
        }
    }
    if (status == RSI_OK) {
        status = rsi_topic_index_init(&agent->topics, options->topic_count_max, error);
    }
    if (status == RSI_OK) {
        status = rsi_groups_init(&agent->groups, error);
    }
    if (status == RSI_OK) {
        status = rsi_last_values_init(&agent->last_values, options->last_value_count_max,
                                      options->last_value_bytes, node, error);
    }
    agent->topics.follower_counts = agent->plane->follower_counts;
    if (status == RSI_OK) {
        status = rsi_sessions_by_id_init(agent, error);
    }
    if (status != RSI_OK) {
        return status;
    }
    agent->sessions = calloc(options->session_count_max, sizeof(struct rsi_session *));
    agent->dirty = calloc(options->session_count_max, sizeof(struct rsi_session *));
    agent->contended = calloc(options->session_count_max, sizeof(*agent->contended));
    if (!agent->sessions || !agent->dirty || !agent->contended) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for %u sessions; lower client_count_max",
                        options->session_count_max);
    }
    agent->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (agent->epoll_fd < 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot make an epoll descriptor; raise the limit with ulimit -n");
    }
    rsi_idle_init(&agent->idle, options->idle_strategy, options->spin_ns);
    agent->random = options->walk_seed ? options->walk_seed * 2654435761u + agent->index : 0;
    char text[128];
    rsi_log_info("broker", "agent %u: %s", agent->index,
                 rsi_arena_describe(&agent->log.ring.arena, text, sizeof(text)));
    if (options->last_value_count_max > 0) {
        rsi_log_info("broker", "agent %u: last values of up to %u topics, %s", agent->index,
                     options->last_value_count_max,
                     rsi_arena_describe(&agent->last_values.blocks.arena, text, sizeof(text)));
    }
    return agent_watch(agent, agent->waker.fd, error);
}

static rsi_status_t agent_create(struct rsi_agent **created, struct rsi_data_plane *plane,
                                 uint32_t index, struct rsi_error *error)
{
    struct rsi_agent *agent = calloc(1, sizeof(*agent));
    if (!agent) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for data agent %u", index);
    }
    agent->plane = plane;
    agent->index = index;
    agent->cpu = plane->options.agent_cpus[index];
    agent->epoll_fd = -1;
    rsi_status_t status = agent_fill(agent, error);
    if (status != RSI_OK) {
        agent_destroy(agent);
        return status;
    }
    *created = agent;
    return RSI_OK;
}

static rsi_status_t check_options(const struct rsi_data_options *options, struct rsi_error *error)
{
    if (options->agent_count == 0 || options->agent_count > RSI_AGENT_COUNT_MAX) {
        return rsi_fail(error, RSI_E_INVALID, "agents must be 1 to %u, not %u", RSI_AGENT_COUNT_MAX,
                        options->agent_count);
    }
    if (!rsi_ring_is_valid_capacity(options->log_bytes)) {
        return rsi_fail(error, RSI_E_INVALID, "log_bytes must be a power of two, not %llu",
                        (unsigned long long)options->log_bytes);
    }
    if (options->publication_count_max == 0 || options->topic_count_max == 0 ||
        (options->publication_count_max & (options->publication_count_max - 1)) != 0 ||
        (options->topic_count_max & (options->topic_count_max - 1)) != 0) {
        return rsi_fail(error, RSI_E_INVALID,
                        "publication_count_max and topic_count_max must be powers of two, not %u "
                        "and %u",
                        options->publication_count_max, options->topic_count_max);
    }
    if (options->session_count_max == 0 || options->alias_count_max == 0) {
        return rsi_fail(error, RSI_E_INVALID, "session and alias counts must not be 0");
    }
    return RSI_OK;
}

rsi_status_t rsi_data_plane_create(struct rsi_data_plane **created,
                                   const struct rsi_data_options *options, struct rsi_error *error)
{
    rsi_status_t status = check_options(options, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_data_plane *plane = calloc(1, sizeof(*plane));
    if (!plane) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for the data plane");
    }
    plane->options = *options;
    plane->ahead_bytes = rsi_data_ahead_bytes(options);
    plane->publications = calloc(options->publication_count_max, sizeof(*plane->publications));
    plane->follower_counts = calloc(options->topic_count_max, sizeof(*plane->follower_counts));
    if (!plane->publications || !plane->follower_counts) {
        rsi_data_plane_destroy(plane);
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for %u publications and %u topics",
                        options->publication_count_max, options->topic_count_max);
    }
    for (uint32_t i = 0; i < options->agent_count; i++) {
        status = agent_create(&plane->agents[i], plane, i, error);
        if (status != RSI_OK) {
            rsi_data_plane_destroy(plane);
            return status;
        }
    }
    *created = plane;
    return RSI_OK;
}

void rsi_data_plane_destroy(struct rsi_data_plane *plane)
{
    if (!plane) {
        return;
    }
    rsi_data_plane_stop(plane);
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        agent_destroy(plane->agents[i]);
    }
    free(plane->publications);
    free(plane->follower_counts);
    free(plane);
}

rsi_status_t rsi_data_plane_add_poller(struct rsi_data_plane *plane, uint32_t index,
                                       struct rsi_poller *poller, struct rsi_error *error)
{
    rsi_assert(index < plane->options.agent_count);
    struct rsi_agent *agent = plane->agents[index];
    rsi_assert(!agent->is_started);
    rsi_assert(agent->poller_count < RSI_TRANSPORT_COUNT_MAX);
    rsi_status_t status = agent_watch(agent, poller->transport->poller_fd(poller), error);
    if (status == RSI_OK) {
        agent->pollers[agent->poller_count++] = poller;
        agent->idle.spin_ns = rsi_pos_max(agent->idle.spin_ns, poller->spin_ns_min);
    }
    return status;
}

struct rsi_waker *rsi_data_plane_waker(struct rsi_data_plane *plane, uint32_t agent)
{
    rsi_assert(agent < plane->options.agent_count);
    return &plane->agents[agent]->waker;
}

/* Starts one agent. Pinning is done here, by attribute, so that its error reaches the caller. */
static rsi_status_t agent_start(struct rsi_agent *agent, struct rsi_error *error)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    rsi_status_t status = RSI_OK;
    if (agent->cpu >= 0) {
        struct rsi_cpu_set allowed;
        status = rsi_cpu_allowed(&allowed, error);
        if (status == RSI_OK && !rsi_cpu_set_has(&allowed, (unsigned)agent->cpu)) {
            char text[128];
            status = rsi_fail(error, RSI_E_CPU,
                              "cpu %d for data agent %u is outside the allowed set %s", agent->cpu,
                              agent->index, rsi_cpu_set_format(&allowed, text, sizeof(text)));
        }
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET((unsigned)agent->cpu, &cpus);
        pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
    }
    if (status == RSI_OK) {
        int result = pthread_create(&agent->thread, &attributes, run_agent, agent);
        if (result != 0) {
            status = rsi_fail_errno(error, RSI_E_SYSTEM, result, "cannot start data agent %u",
                                    agent->index);
        }
        agent->is_started = result == 0;
    }
    pthread_attr_destroy(&attributes);
    return status;
}

rsi_status_t rsi_data_plane_start(struct rsi_data_plane *plane, struct rsi_error *error)
{
    rsi_clock_prepare();
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        rsi_status_t status = agent_start(plane->agents[i], error);
        if (status != RSI_OK) {
            rsi_data_plane_stop(plane);
            return status;
        }
    }
    return RSI_OK;
}

void rsi_data_plane_stop(struct rsi_data_plane *plane)
{
    rsi_store_release(&plane->must_end, 1u);
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        struct rsi_agent *agent = plane->agents[i];
        if (!agent || !agent->is_started) {
            continue;
        }
        rsi_waker_wake(&agent->waker);
        pthread_join(agent->thread, NULL);
        agent->is_started = false;
    }
}

static bool make_topic_memory(const struct rsi_data_plane *plane,
                              struct rsi_publication *publication)
{
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        struct rsi_topic **memory = &publication->topic_memory[i];
        if (*memory == NULL) {
            *memory = calloc(1, sizeof(**memory));
        }
        if (*memory == NULL) {
            return false;
        }
    }
    return true;
}

void rsi_publication_fini(struct rsi_publication *publication)
{
    for (uint32_t i = 0; i < RSI_AGENT_COUNT_MAX; i++) {
        free(publication->topic_memory[i]);
        publication->topic_memory[i] = NULL;
    }
}

rsi_status_t rsi_data_plane_post(struct rsi_data_plane *plane, const struct rsi_edit *edit,
                                 uint64_t *ticket)
{
    uint64_t edit_count = rsi_load_relaxed(&plane->edit_count);
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        if (edit_count - rsi_load_acquire(&plane->agents[i]->applied_count) >= RSI_EDIT_COUNT) {
            return RSI_WOULD_BLOCK;
        }
    }
    if (edit->kind == RSI_EDIT_PUBLICATION_OPEN) {
        struct rsi_publication *publication = edit->publication;
        if (!make_topic_memory(plane, publication)) {
            return RSI_E_NO_MEMORY;
        }
        publication->home_agent = edit->session->agent;
        publication->next_sequence = 1;
        rsi_store_relaxed(
            &plane->publications[publication->id & (plane->options.publication_count_max - 1)],
            publication);
    }
    plane->edits[edit_count & (RSI_EDIT_COUNT - 1)] = *edit;
    rsi_store_release(&plane->edit_count, edit_count + 1);
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        rsi_waker_wake(&plane->agents[i]->waker);
    }
    *ticket = edit_count + 1;
    return RSI_OK;
}

bool rsi_data_plane_is_applied(const struct rsi_data_plane *plane, uint64_t ticket)
{
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        if (rsi_load_acquire(&plane->agents[i]->applied_count) < ticket) {
            return false;
        }
    }
    return true;
}

bool rsi_publication_is_closed(const struct rsi_data_plane *plane,
                               const struct rsi_publication *publication)
{
    (void)plane;
    return rsi_load_acquire(&publication->closed) != 0;
}

bool rsi_publication_is_unused(const struct rsi_data_plane *plane,
                               const struct rsi_publication *publication)
{
    if (!rsi_publication_is_closed(plane, publication) || rsi_publication_is_kept(publication)) {
        return false;
    }
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        const struct rsi_agent *agent = plane->agents[i];
        if (rsi_load_acquire(&agent->needed_pos[publication->home_agent]) <
            publication->closed_log_pos) {
            return false;
        }
    }
    return rsi_load_acquire(&publication->hold_count) == 0;
}

bool rsi_publication_is_kept(const struct rsi_publication *publication)
{
    return rsi_load_acquire(&publication->kept_count) != 0;
}

uint64_t rsi_data_plane_unkept_count(const struct rsi_data_plane *plane)
{
    return rsi_load_acquire(&plane->unkept_count);
}

bool rsi_data_plane_is_drained(const struct rsi_data_plane *plane)
{
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        if (!rsi_load_acquire(&plane->agents[i]->is_drained)) {
            return false;
        }
    }
    return true;
}

const struct rsi_agent_counts *rsi_data_plane_counts(const struct rsi_data_plane *plane,
                                                     uint32_t agent)
{
    rsi_assert(agent < plane->options.agent_count);
    return &plane->agents[agent]->counts;
}
