#include "core/testing.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "core/counters.h"

struct fixture {
    char directory[64];
    char path[96];
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    snprintf(fixture->directory, sizeof fixture->directory, "/tmp/ringside-counters-XXXXXX");
    assert_non_null(mkdtemp(fixture->directory));
    snprintf(fixture->path, sizeof fixture->path, "%s/counters", fixture->directory);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    (void)unlink(fixture->path);
    int failed = rmdir(fixture->directory); /* fails when something was left behind */
    free(fixture);
    return failed;
}

static void values_names_and_texts_are_read_back(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_counters *counters = NULL;
    struct rsi_counters_reader *reader = NULL;
    struct rsi_counter *frames = NULL;
    struct rsi_counter *level = NULL;
    struct rsi_counter *reason = NULL;
    struct rsi_counter_view view;
    assert_int_equal(rsi_counters_create(&counters, fixture->path, 16, NULL), RSI_OK);
    assert_string_equal(rsi_counters_path(counters), fixture->path);
    assert_int_equal(rsi_counters_open(&reader, fixture->path, NULL), RSI_OK);
    uint32_t cursor = 0;
    assert_false(rsi_counters_next(reader, &cursor, &view));

    assert_int_equal(
        rsi_counters_allocate(counters, RSI_COUNTER_KIND_COUNTER, "frames", "alpha", &frames, NULL),
        RSI_OK);
    assert_int_equal(
        rsi_counters_allocate(counters, RSI_COUNTER_KIND_GAUGE, "level", "", &level, NULL), RSI_OK);
    assert_int_equal(
        rsi_counters_allocate(counters, RSI_COUNTER_KIND_TEXT, "transport", "alpha", &reason, NULL),
        RSI_OK);
    rsi_counter_add(frames, 40);
    rsi_counter_add(frames, 2);
    rsi_counter_set(level, (uint64_t)INT64_C(-5));
    rsi_counter_set_text(reason, "tcp: %s", "no rdma device");
    assert_int_equal(rsi_counter_get(frames), 42);

    assert_true(rsi_counters_next(reader, &cursor, &view));
    assert_string_equal(view.name, "frames");
    assert_string_equal(view.label, "alpha");
    assert_int_equal(view.kind, RSI_COUNTER_KIND_COUNTER);
    assert_int_equal(view.value, 42);
    assert_true(rsi_counters_next(reader, &cursor, &view));
    assert_true((int64_t)view.value == -5);
    assert_true(rsi_counters_next(reader, &cursor, &view));
    assert_int_equal(view.kind, RSI_COUNTER_KIND_TEXT);
    assert_string_equal(view.text, "tcp: no rdma device");
    assert_int_equal(view.value, 1);
    assert_false(rsi_counters_next(reader, &cursor, &view));

    assert_true(rsi_counters_find(reader, "frames", "alpha", &view));
    assert_true(rsi_counters_find(reader, "level", NULL, &view));
    assert_false(rsi_counters_find(reader, "frames", "beta", &view));
    rsi_counters_close(reader);
    rsi_counters_destroy(counters);
    assert_int_equal(access(fixture->path, F_OK), -1);
}

static void freed_records_vanish_and_serve_again(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_counters *counters = NULL;
    struct rsi_counters_reader *reader = NULL;
    struct rsi_counter *first = NULL;
    struct rsi_counter *second = NULL;
    struct rsi_counter *third = NULL;
    struct rsi_counter_view view;
    struct rsi_error error = {0};
    assert_int_equal(rsi_counters_create(&counters, fixture->path, 2, NULL), RSI_OK);
    assert_int_equal(rsi_counters_open(&reader, fixture->path, NULL), RSI_OK);
    assert_int_equal(
        rsi_counters_allocate(counters, RSI_COUNTER_KIND_COUNTER, "first", NULL, &first, NULL),
        RSI_OK);
    assert_int_equal(
        rsi_counters_allocate(counters, RSI_COUNTER_KIND_COUNTER, "second", NULL, &second, NULL),
        RSI_OK);
    assert_int_equal(
        rsi_counters_allocate(counters, RSI_COUNTER_KIND_COUNTER, "third", NULL, &third, &error),
        RSI_E_LIMIT);
    assert_string_equal(error.text,
                        "no record left for counter third: all 2 of the counters file are in use");
    assert_null(third);
    assert_int_equal(
        rsi_counters_allocate(counters, RSI_COUNTER_KIND_COUNTER, "", NULL, &third, &error),
        RSI_E_INVALID);

    rsi_counter_add(first, 7);
    rsi_counters_free(counters, first);
    rsi_counters_free(counters, NULL);
    assert_false(rsi_counters_find(reader, "first", NULL, &view));
    assert_true(rsi_counters_find(reader, "second", NULL, &view));
    assert_int_equal(
        rsi_counters_allocate(counters, RSI_COUNTER_KIND_COUNTER, "third", NULL, &third, NULL),
        RSI_OK);
    assert_ptr_equal(third, first);
    assert_true(rsi_counters_find(reader, "third", "", &view));
    assert_int_equal(view.value, 0);
    assert_int_equal(view.index, 0);
    rsi_counters_close(reader);
    rsi_counters_destroy(counters);
}

static void long_names_are_cut(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_counters *counters = NULL;
    struct rsi_counters_reader *reader = NULL;
    struct rsi_counter *counter = NULL;
    struct rsi_counter_view view;
    char name[200];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_int_equal(rsi_counters_create(&counters, fixture->path, 1, NULL), RSI_OK);
    assert_int_equal(
        rsi_counters_allocate(counters, RSI_COUNTER_KIND_TEXT, name, name, &counter, NULL), RSI_OK);
    rsi_counter_set_text(counter, "%s", name);
    assert_int_equal(rsi_counters_open(&reader, fixture->path, NULL), RSI_OK);
    uint32_t cursor = 0;
    assert_true(rsi_counters_next(reader, &cursor, &view));
    assert_int_equal(strlen(view.name), RSI_COUNTER_NAME_BYTES - 1);
    assert_int_equal(strlen(view.label), RSI_COUNTER_LABEL_BYTES - 1);
    assert_int_equal(strlen(view.text), RSI_COUNTER_TEXT_BYTES - 1);
    rsi_counters_close(reader);
    rsi_counters_destroy(counters);
}

static void anonymous_counters_have_no_file(void **state)
{
    (void)state;
    struct rsi_counters *counters = NULL;
    struct rsi_counter *counter = NULL;
    assert_int_equal(rsi_counters_create(&counters, NULL, 4, NULL), RSI_OK);
    assert_null(rsi_counters_path(counters));
    assert_int_equal(
        rsi_counters_allocate(counters, RSI_COUNTER_KIND_COUNTER, "a", NULL, &counter, NULL),
        RSI_OK);
    rsi_counter_add(counter, 3);
    assert_int_equal(rsi_counter_get(counter), 3);
    rsi_counters_destroy(counters);
    rsi_counters_destroy(NULL);
}

/* Another process: owns a file until the pipe is closed, counting as it is told. */
static void own_until_closed(const char *path, int commands, int answers)
{
    struct rsi_counters *counters = NULL;
    struct rsi_counter *counter = NULL;
    char command = 0;
    if (rsi_counters_create(&counters, path, 8, NULL) != RSI_OK ||
        rsi_counters_allocate(counters, RSI_COUNTER_KIND_COUNTER, "told", "", &counter, NULL) !=
            RSI_OK) {
        _exit(1);
    }
    if (write(answers, "r", 1) != 1) {
        _exit(2);
    }
    while (read(commands, &command, 1) == 1) {
        rsi_counter_add(counter, (uint64_t)command);
        if (write(answers, "d", 1) != 1) {
            _exit(3);
        }
    }
    _exit(0); /* without destroy, as a process that died would leave it */
}

static void another_process_is_read_and_its_death_noticed(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_counters *counters = NULL;
    struct rsi_counters_reader *reader = NULL;
    struct rsi_counter_view view;
    struct rsi_error error = {0};
    int commands[2];
    int answers[2];
    char answer = 0;
    assert_int_equal(pipe(commands), 0);
    assert_int_equal(pipe(answers), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(commands[1]);
        own_until_closed(fixture->path, commands[0], answers[1]);
    }
    close(commands[0]);
    close(answers[1]);
    assert_int_equal(read(answers[0], &answer, 1), 1);

    assert_int_equal(rsi_counters_open(&reader, fixture->path, NULL), RSI_OK);
    assert_true(rsi_counters_owner_is_alive(reader));
    assert_int_equal(rsi_counters_header(reader)->owner_pid, child);
    assert_true(rsi_counters_header(reader)->start_realtime_ns > UINT64_C(1600000000000000000));
    for (uint64_t i = 1; i <= 5; i++) {
        assert_int_equal(write(commands[1], "\2", 1), 1);
        assert_int_equal(read(answers[0], &answer, 1), 1);
        assert_true(rsi_counters_find(reader, "told", "", &view));
        assert_int_equal(view.value, 2 * i);
    }
    assert_int_equal(rsi_counters_create(&counters, fixture->path, 8, &error), RSI_E_EXISTS);
    assert_non_null(strstr(error.text, "belongs to a running process"));

    close(commands[1]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(answers[0]);
    assert_false(rsi_counters_owner_is_alive(reader));
    assert_true(rsi_counters_find(reader, "told", "", &view)); /* what it counted last */
    assert_int_equal(view.value, 10);

    /* The next owner takes the path; who still reads the old file is not disturbed. */
    assert_int_equal(rsi_counters_create(&counters, fixture->path, 8, &error), RSI_OK);
    assert_true(rsi_counters_find(reader, "told", "", &view));
    rsi_counters_close(reader);
    assert_int_equal(rsi_counters_open(&reader, fixture->path, NULL), RSI_OK);
    assert_false(rsi_counters_find(reader, "told", "", &view));
    assert_true(rsi_counters_owner_is_alive(reader));
    rsi_counters_close(reader);
    rsi_counters_destroy(counters);
}

enum { CHANGE_COUNT = 20000 };

static _Atomic uint32_t changes_done;

static void *change_all_the_time(void *arg)
{
    struct rsi_counters *counters = arg;
    for (unsigned i = 0; i < CHANGE_COUNT; i++) {
        struct rsi_counter *counter = NULL;
        char name[RSI_COUNTER_NAME_BYTES];
        memset(name, 'a' + (int)(i % 26), sizeof name - 1);
        name[sizeof name - 1] = '\0';
        if (rsi_counters_allocate(counters, RSI_COUNTER_KIND_TEXT, name, name, &counter, NULL) !=
            RSI_OK) {
            break;
        }
        rsi_counter_set_text(counter, "%s", name);
        rsi_counters_free(counters, counter);
    }
    rsi_store_release(&changes_done, 1);
    return NULL;
}

/* Whatever is read is whole: one letter throughout, and name and label are of one moment. */
static void assert_whole(const struct rsi_counter_view *view)
{
    assert_int_equal(strlen(view->name), RSI_COUNTER_NAME_BYTES - 1);
    for (size_t i = 0; view->name[i] != '\0'; i++) {
        assert_int_equal(view->name[i], view->name[0]);
    }
    assert_string_equal(view->name, view->label);
    assert_true(view->text[0] == '\0' || strncmp(view->text, view->name, 32) == 0);
}

static void a_changing_file_is_never_read_in_halves(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_counters *counters = NULL;
    struct rsi_counters_reader *reader = NULL;
    pthread_t thread;
    rsi_store_relaxed(&changes_done, 0);
    assert_int_equal(rsi_counters_create(&counters, fixture->path, 4, NULL), RSI_OK);
    assert_int_equal(rsi_counters_open(&reader, fixture->path, NULL), RSI_OK);
    assert_int_equal(pthread_create(&thread, NULL, change_all_the_time, counters), 0);
    while (rsi_load_acquire(&changes_done) == 0) {
        struct rsi_counter_view view;
        uint32_t cursor = 0;
        while (rsi_counters_next(reader, &cursor, &view)) {
            assert_whole(&view);
        }
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    rsi_counters_close(reader);
    rsi_counters_destroy(counters);
}

static void write_file(const char *path, const void *bytes, size_t count)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), (ssize_t)count);
    close(fd);
}

static void files_of_another_kind_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_counters_reader *reader = NULL;
    struct rsi_error error = {0};
    struct rsi_counters_header header = {
        .magic = RSI_COUNTERS_MAGIC,
        .version = RSI_COUNTERS_VERSION,
        .header_bytes = sizeof header,
        .record_bytes = sizeof(struct rsi_counter),
        .record_count = 0,
    };
    assert_int_equal(rsi_counters_open(&reader, fixture->path, &error), RSI_E_NOT_FOUND);
    write_file(fixture->path, "x", 1);
    assert_int_equal(rsi_counters_open(&reader, fixture->path, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "is not a counters file"));
    assert_int_equal(rsi_counters_open(&reader, fixture->directory, &error), RSI_E_INVALID);
    header.version = 99;
    write_file(fixture->path, &header, sizeof header);
    assert_int_equal(rsi_counters_open(&reader, fixture->path, &error), RSI_E_VERSION);
    assert_non_null(strstr(error.text, "has version 99, this program reads version 1"));
    header.version = RSI_COUNTERS_VERSION;
    header.record_count = 1; /* the file ends before it */
    write_file(fixture->path, &header, sizeof header);
    assert_int_equal(rsi_counters_open(&reader, fixture->path, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "damaged or cut short"));
    header.record_count = 0;
    rsi_store_relaxed(&header.used_count, 1000); /* beyond the end: not believed */
    write_file(fixture->path, &header, sizeof header);
    assert_int_equal(rsi_counters_open(&reader, fixture->path, &error), RSI_OK);
    struct rsi_counter_view view;
    uint32_t cursor = 0;
    assert_false(rsi_counters_next(reader, &cursor, &view));
    rsi_counters_close(reader);
}

static void impossible_files_are_refused_with_the_path(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_counters *counters = NULL;
    struct rsi_error error = {0};
    char path[160];
    snprintf(path, sizeof path, "%s/missing/counters", fixture->directory);
    assert_int_equal(rsi_counters_create(&counters, path, 8, &error), RSI_E_NOT_FOUND);
    assert_non_null(strstr(error.text, path));
    assert_int_equal(rsi_counters_create(&counters, fixture->path, 0, &error), RSI_E_INVALID);
    assert_string_equal(error.text, "0 counters are not possible; use 1 to 1048576");
    assert_int_equal(rsi_counters_create(&counters, "", 8, &error), RSI_E_INVALID);
    assert_null(counters);
}

static void destroying_leaves_another_owners_file(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_counters *first = NULL;
    struct rsi_counters *second = NULL;
    assert_int_equal(rsi_counters_create(&first, fixture->path, 4, NULL), RSI_OK);
    assert_int_equal(unlink(fixture->path), 0);
    assert_int_equal(rsi_counters_create(&second, fixture->path, 4, NULL), RSI_OK);
    rsi_counters_destroy(first);
    assert_int_equal(access(fixture->path, F_OK), 0);
    rsi_counters_destroy(second);
}

#define WITH_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DIRECTORY(values_names_and_texts_are_read_back),
        WITH_DIRECTORY(freed_records_vanish_and_serve_again),
        WITH_DIRECTORY(long_names_are_cut),
        cmocka_unit_test(anonymous_counters_have_no_file),
        WITH_DIRECTORY(another_process_is_read_and_its_death_noticed),
        WITH_DIRECTORY(a_changing_file_is_never_read_in_halves),
        WITH_DIRECTORY(files_of_another_kind_are_refused),
        WITH_DIRECTORY(impossible_files_are_refused_with_the_path),
        WITH_DIRECTORY(destroying_leaves_another_owners_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
