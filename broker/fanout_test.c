/*
 * Design notes: agents without threads and links, moved by hand, so that one can be caught between
 * any two of its steps. What must hold: an agent knows a publication before it walks a frame of it,
 * whatever it had not applied when its pass began; a policy that may lose nothing ends a drop that
 * is under way.
 */
#include "broker/agent_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct rsi_waker control_waker;
    struct rsi_data_options options;
    struct rsi_data_plane *plane;
    struct rsi_session session; /* at home with agent 0 */
    struct rsi_publication publication;
};

static int set_up(void **state)
{
    static struct fixture fixture;
    memset(&fixture, 0, sizeof(fixture));
    assert_int_equal(rsi_waker_init(&fixture.control_waker, NULL), RSI_OK);
    fixture.options = (struct rsi_data_options){
        .agent_count = 2,
        .agent_cpus = {-1, -1},
        .idle_strategy = RSI_IDLE_BLOCKING,
        .log_bytes = 64u << 10,
        .session_count_max = 4,
        .publication_count_max = 16,
        .topic_count_max = 16,
        .alias_count_max = 4,
        .control_waker = &fixture.control_waker,
    };
    assert_int_equal(rsi_data_plane_create(&fixture.plane, &fixture.options, NULL), RSI_OK);
    fixture.session.id = 1;
    fixture.session.deliver_ring_bytes = 4096;
    assert_int_equal(rsi_session_init(&fixture.session, &fixture.options, NULL), RSI_OK);
    fixture.publication = (struct rsi_publication){.id = 1, .topic = 1, .alias = 1};
    memcpy(fixture.publication.subject, "md.a", 5);
    fixture.publication.subject_bytes = 4;
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    rsi_data_plane_destroy(fixture->plane);
    rsi_session_fini(&fixture->session);
    rsi_waker_fini(&fixture->control_waker);
    return 0;
}

static void post(struct fixture *fixture, const struct rsi_edit *edit)
{
    uint64_t ticket = 0;
    assert_int_equal(rsi_data_plane_post(fixture->plane, edit, &ticket), RSI_OK);
}

static void append_frame(struct rsi_agent *agent, uint32_t publication)
{
    uint64_t frame_bytes = rsi_frame_bytes(0, 8);
    struct rsi_frame_header *header =
        rsi_message_log_reserve(&agent->log, frame_bytes, agent->log.ring.capacity_bytes);
    assert_non_null(header);
    memset(header, 0, frame_bytes);
    header->payload_bytes = 8;
    header->type = RSI_FRAME_MESSAGE;
    header->publication = publication;
    header->sequence = 1;
    rsi_message_log_append(&agent->log, frame_bytes);
    rsi_message_log_publish(&agent->log);
}

/* A client that does not wait for PublisherOpened: its home agent has applied the edit and takes
 * its frame, the other agent is in the middle of a pass that began before the edit. */
static void a_frame_is_known_before_it_is_walked(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_agent *home = fixture->plane->agents[0];
    struct rsi_agent *other = fixture->plane->agents[1];
    assert_int_equal(rsi_agent_apply_edits(other), 0);
    post(fixture, &(struct rsi_edit){.kind = RSI_EDIT_PUBLICATION_OPEN,
                                     .session = &fixture->session,
                                     .publication = &fixture->publication});
    assert_int_equal(rsi_agent_apply_edits(home), 1);
    assert_ptr_equal(fixture->session.data.aliases[1], &fixture->publication);
    append_frame(home, fixture->publication.id);
    assert_int_equal(rsi_agent_walk(other), 2); /* the edit and the frame */
    assert_int_equal(other->common_pos[0], home->log.append_pos);
    assert_int_equal(rsi_agent_walk(home), 1);
}

static void a_stricter_policy_ends_dropping(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_agent *home = fixture->plane->agents[0];
    struct rsi_edit edit = {.kind = RSI_EDIT_SUBSCRIBE,
                            .session = &fixture->session,
                            .subscription = 1,
                            .policy = RSI_POLICY_DROP,
                            .subject = "md.a"};
    post(fixture, &edit);
    assert_int_equal(rsi_agent_apply_edits(home), 1);
    fixture->session.data.lags[1].is_dropping = true;
    edit.subscription = 2;
    post(fixture, &edit);
    assert_int_equal(rsi_agent_apply_edits(home), 1);
    assert_true(fixture->session.data.lags[1].is_dropping);
    edit.subscription = 3;
    edit.policy = RSI_POLICY_DISCONNECT;
    post(fixture, &edit);
    assert_int_equal(rsi_agent_apply_edits(home), 1);
    assert_false(fixture->session.data.lags[1].is_dropping);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_frame_is_known_before_it_is_walked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stricter_policy_ends_dropping, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
