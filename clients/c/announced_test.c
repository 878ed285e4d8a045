/*
 * The table of announced publications: many of them, announced again, announced wrongly.
 */
#include "core/testing.h"

#include "clients/c/announced.h"

struct payload {
    struct rsi_announce announce;
    char texts[RSI_SUBJECT_BYTES_MAX + RSI_NAME_BYTES_MAX + 8];
};

static struct payload make_payload(uint32_t publication, const char *subject, const char *name,
                                   uint64_t next_sequence)
{
    struct payload payload = {
        .announce = {.publication = publication,
                     .topic = publication + 1,
                     .publisher_session = 9,
                     .next_sequence = next_sequence,
                     .subject_bytes = (uint16_t)strlen(subject),
                     .name_bytes = (uint16_t)strlen(name)},
    };
    snprintf(payload.texts, sizeof(payload.texts), "%s%s", subject, name);
    return payload;
}

static size_t payload_bytes(const struct payload *payload)
{
    return sizeof(payload->announce) + payload->announce.subject_bytes +
           payload->announce.name_bytes;
}

static rsi_status_t put(struct rsi_announced_table *table, const struct payload *payload,
                        const char **why)
{
    struct rsi_announced *entry = NULL;
    return rsi_announced_put(table, payload, payload_bytes(payload), &entry, why);
}

static void test_many(void **state)
{
    (void)state;
    struct rsi_announced_table table = {0};
    const char *why = NULL;
    assert_null(rsi_announced_find(&table, 0));
    for (uint32_t index = 0; index < 5000; index++) {
        char subject[32];
        snprintf(subject, sizeof(subject), "topic.%u", index);
        /* Ids with a stride that is a power of two are the hardest for a table of such a size. */
        struct payload payload = make_payload(index * 4096, subject, "w", index + 1);
        assert_int_equal(put(&table, &payload, &why), RSI_OK);
    }
    assert_int_equal(table.entry_count, 5000);
    assert_true(table.entry_count * 2 <= table.slot_count);
    for (uint32_t index = 0; index < 5000; index++) {
        char subject[32];
        snprintf(subject, sizeof(subject), "topic.%u", index);
        const struct rsi_announced *entry = rsi_announced_find(&table, index * 4096);
        assert_non_null(entry);
        assert_string_equal(entry->subject, subject);
        assert_string_equal(entry->publisher, "w");
        assert_int_equal(entry->next_sequence, index + 1);
        assert_null(rsi_announced_find(&table, index * 4096 + 1));
    }
    rsi_announced_table_fini(&table);
    rsi_announced_table_fini(&table);
}

static void test_again(void **state)
{
    (void)state;
    struct rsi_announced_table table = {0};
    const char *why = NULL;
    struct payload payload = make_payload(7, "a.b", "writer", 5);
    assert_int_equal(put(&table, &payload, &why), RSI_OK);
    payload.announce.next_sequence = 9;
    assert_int_equal(put(&table, &payload, &why), RSI_OK);
    assert_int_equal(table.entry_count, 1);
    assert_int_equal(rsi_announced_find(&table, 7)->next_sequence, 9);

    payload.announce.next_sequence = 8;
    assert_int_equal(put(&table, &payload, &why), RSI_E_PROTOCOL);
    assert_non_null(strstr(why, "goes back"));
    struct payload other = make_payload(7, "a.c", "writer", 9);
    assert_int_equal(put(&table, &other, &why), RSI_E_PROTOCOL);
    assert_non_null(strstr(why, "contradicts"));
    assert_int_equal(rsi_announced_find(&table, 7)->next_sequence, 9);
    rsi_announced_table_fini(&table);
}

static void test_malformed(void **state)
{
    (void)state;
    struct rsi_announced_table table = {0};
    struct rsi_announced *entry = NULL;
    const char *why = NULL;
    struct payload good = make_payload(7, "a.b", "writer", 5);
    size_t bytes = payload_bytes(&good);
    assert_int_equal(rsi_announced_put(&table, &good, sizeof(good.announce) - 1, &entry, &why),
                     RSI_E_PROTOCOL);
    assert_int_equal(rsi_announced_put(&table, &good, bytes - 1, &entry, &why), RSI_E_PROTOCOL);
    assert_int_equal(rsi_announced_put(&table, &good, bytes + 1, &entry, &why), RSI_E_PROTOCOL);

    struct payload bad = make_payload(7, "a.*", "writer", 5);
    assert_int_equal(put(&table, &bad, &why), RSI_E_PROTOCOL);
    bad = make_payload(7, "", "writer", 5);
    assert_int_equal(put(&table, &bad, &why), RSI_E_PROTOCOL);
    bad = make_payload(7, "a", "writer", 0);
    assert_int_equal(put(&table, &bad, &why), RSI_E_PROTOCOL);
    char name[RSI_NAME_BYTES_MAX + 2];
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = 0;
    bad = make_payload(7, "a", name, 5);
    assert_int_equal(put(&table, &bad, &why), RSI_E_PROTOCOL);
    assert_null(entry);
    assert_int_equal(table.entry_count, 0);
    rsi_announced_table_fini(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
