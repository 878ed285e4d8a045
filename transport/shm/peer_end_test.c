/*
 * How a side learns that the other one's process is dead: at the socket's end, or at any time after
 * it, also when its link is CLOSED already. A process that only closed its link is not dead.
 *
 * Design notes
 * - The client is a child process, which does one thing per byte that it reads from a pipe: so it
 * is alive for certain until the test ends it.
 */
#include "transport/shm/shm_testing.h"

#include <signal.h>
#include <sys/wait.h>

enum { RING_BYTES = 65536 };

static const struct rsi_transport *const shm = &rsi_shm_transport;

struct scene {
    struct shm_place place;
    struct shm_side broker;
    struct rsi_listener *listener;
    struct rsi_link *link;
    pid_t child;
    int pipe_fds[2];
};

/* Attaches; at the first byte closes the link; lives until it is killed. */
static void client_run(struct scene *scene)
{
    struct shm_side client;
    shm_side_init(&client, NULL);
    struct rsi_link *link;
    struct rsi_link_rings rings = {.out_bytes = RING_BYTES};
    if (shm->link_dial(&link, client.poller, &scene->place.url, NULL) != RSI_OK) {
        _exit(1);
    }
    while (rsi_link_state(link) != RSI_LINK_ATTACHED) {
        shm_side_pass(&client, link);
        if (rsi_link_state(link) == RSI_LINK_OPEN &&
            shm->link_attach(link, &rings, NULL) != RSI_OK) {
            _exit(2);
        }
    }
    char byte;
    if (read(scene->pipe_fds[0], &byte, 1) != 1) {
        _exit(3);
    }
    shm_link_end(&client, link);
    for (;;) {
        pause();
    }
}

static void scene_init(struct scene *scene)
{
    memset(scene, 0, sizeof(*scene));
    shm_place_init(&scene->place);
    shm_side_init(&scene->broker, NULL);
    assert_int_equal(
        shm->listener_create(&scene->listener, scene->broker.domain, &scene->place.url, NULL),
        RSI_OK);
    assert_int_equal(pipe(scene->pipe_fds), 0);
    scene->child = fork();
    assert_true(scene->child >= 0);
    if (scene->child == 0) {
        client_run(scene);
    }
    rsi_test_wait_until(shm->link_accept(&scene->link, scene->listener,
                                         RSI_POLLER_ONLY(scene->broker.poller), NULL) == RSI_OK);
}

static void scene_until(struct scene *scene, enum rsi_link_state wanted)
{
    struct rsi_link_rings rings = {.in_bytes = RING_BYTES};
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    while (rsi_link_state(scene->link) != wanted) {
        assert_true(rsi_test_now_ns() < deadline_ns);
        shm_side_pass(&scene->broker, scene->link);
        if (rsi_link_state(scene->link) == RSI_LINK_OPEN) {
            assert_int_equal(shm->link_attach(scene->link, &rings, NULL), RSI_OK);
        }
    }
}

static void scene_kill(struct scene *scene)
{
    assert_int_equal(kill(scene->child, SIGKILL), 0);
}

/* The domain's descriptor tells of it, so that a sleeper learns it. */
static void scene_until_ended(struct scene *scene)
{
    rsi_test_wait_until((shm_side_pass(&scene->broker, scene->link), scene->link->peer_has_ended));
}

static void scene_fini(struct scene *scene)
{
    int status;
    assert_int_equal(waitpid(scene->child, &status, 0), scene->child);
    assert_true(WIFSIGNALED(status));
    shm_link_end(&scene->broker, scene->link);
    shm->listener_destroy(scene->listener);
    shm_side_fini(&scene->broker);
    shm_place_fini(&scene->place);
    close(scene->pipe_fds[0]);
    close(scene->pipe_fds[1]);
}

static void test_killed_process_has_ended(void **state)
{
    (void)state;
    struct scene scene;
    scene_init(&scene);
    scene_until(&scene, RSI_LINK_ATTACHED);
    scene_kill(&scene);
    scene_until(&scene, RSI_LINK_LOST);
    scene_until_ended(&scene);
    scene_fini(&scene);
}

static void test_closed_link_is_no_end(void **state)
{
    (void)state;
    struct scene scene;
    uint32_t fd_count = shm_open_fd_count();
    scene_init(&scene);
    scene_until(&scene, RSI_LINK_ATTACHED);
    assert_int_equal(write(scene.pipe_fds[1], "c", 1), 1);
    scene_until(&scene, RSI_LINK_LOST);
    assert_false(scene.link->peer_has_ended);
    shm->link_close(scene.link);
    scene_until(&scene, RSI_LINK_CLOSED);
    assert_false(scene.link->peer_has_ended);
    scene_kill(&scene);
    int fd = shm->domain_fd(scene.broker.domain);
    rsi_test_wait_until(shm_is_readable(fd));
    scene_until_ended(&scene);
    assert_false(shm_is_readable(fd)); /* told once */
    scene_fini(&scene);
    assert_int_equal(shm_open_fd_count(), fd_count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_process_has_ended),
        cmocka_unit_test(test_closed_link_is_no_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
