/*
 * Holds LAYOUT.md against layout.h and datagram.h, and their functions against what they promise.
 *
 * Design notes
 * - Three lists must be one: the fields that the headers' texts declare, the fields that
 * LAYOUT.md's tables name, and the list below, whose offsets and sizes come from the compiler. So a
 * field that is new, gone or moved in any one of them fails, by name.
 * - Texts are read as simply as they are written: "struct rsi_x {" up to "};", one declaration per
 *   line; a table's rows begin with "| <number> |" under a heading "### struct rsi_x (N bytes)" or
 *   "### enum rsi_x".
 */
#include "proto/datagram.h"
#include "proto/layout.h"

#include "core/testing.h"

#include <ctype.h>
#include <inttypes.h>

#define ITEM_COUNT_MAX 240
#define NAME_BYTES     48

/* A field, an enumerator, or (name empty) a whole struct. */
struct item {
    char owner[NAME_BYTES]; /* "struct rsi_words", "enum rsi_frame_type" */
    char name[NAME_BYTES];
    uint64_t offset; /* or an enumerator's value */
    uint64_t bytes;  /* 0 for an enumerator */
};

struct item_list {
    struct item items[ITEM_COUNT_MAX];
    uint32_t count;
};

/* ---- what the compiler says
 * ------------------------------------------------------------------------ */

#define WHOLE(type)                \
    {                              \
#type, "", 0, sizeof(type) \
    }
#define FIELD(type, field)                                                  \
    {                                                                       \
#type, #field, offsetof(type, field), sizeof(((type *)NULL)->field) \
    }
#define VALUE(type, name)     \
    {                         \
#type, #name, name, 0 \
    }

static const struct item compiled[] = {
    WHOLE(struct rsi_frame_header),
    FIELD(struct rsi_frame_header, commit),
    FIELD(struct rsi_frame_header, payload_bytes),
    FIELD(struct rsi_frame_header, type),
    FIELD(struct rsi_frame_header, flags),
    FIELD(struct rsi_frame_header, headers_bytes),
    FIELD(struct rsi_frame_header, publication),
    FIELD(struct rsi_frame_header, generation),
    FIELD(struct rsi_frame_header, entry_count),
    FIELD(struct rsi_frame_header, sequence),
    FIELD(struct rsi_frame_header, publish_time_ns),
    WHOLE(struct rsi_headers_entry),
    FIELD(struct rsi_headers_entry, name_bytes),
    FIELD(struct rsi_headers_entry, value_bytes),
    VALUE(enum rsi_frame_type, RSI_FRAME_MESSAGE),
    VALUE(enum rsi_frame_type, RSI_FRAME_ANNOUNCE),
    VALUE(enum rsi_frame_type, RSI_FRAME_GAP),
    VALUE(enum rsi_frame_type, RSI_FRAME_REQUEST),
    VALUE(enum rsi_frame_type, RSI_FRAME_REPLY),
    VALUE(enum rsi_frame_flag, RSI_FRAME_FLAG_SPARSE),
    VALUE(enum rsi_frame_flag, RSI_FRAME_FLAG_SOLE),
    VALUE(enum rsi_reply_status, RSI_REPLY_OK),
    VALUE(enum rsi_reply_status, RSI_REPLY_NO_RESPONDERS),
    VALUE(enum rsi_reply_status, RSI_REPLY_LOST),
    WHOLE(struct rsi_frame_entry),
    FIELD(struct rsi_frame_entry, session),
    FIELD(struct rsi_frame_entry, number),
    VALUE(enum rsi_frame_type, RSI_FRAME_SNAPSHOT),
    VALUE(enum rsi_frame_type, RSI_FRAME_LAST),
    WHOLE(struct rsi_announce),
    FIELD(struct rsi_announce, publication),
    FIELD(struct rsi_announce, topic),
    FIELD(struct rsi_announce, publisher_session),
    FIELD(struct rsi_announce, next_sequence),
    FIELD(struct rsi_announce, subject_bytes),
    FIELD(struct rsi_announce, name_bytes),
    FIELD(struct rsi_announce, reserved),
    WHOLE(struct rsi_gap),
    FIELD(struct rsi_gap, reason),
    FIELD(struct rsi_gap, entry_count),
    WHOLE(struct rsi_gap_entry),
    FIELD(struct rsi_gap_entry, publication),
    FIELD(struct rsi_gap_entry, count),
    FIELD(struct rsi_gap_entry, next_sequence),
    VALUE(enum rsi_gap_reason, RSI_GAP_DROPPED),
    VALUE(enum rsi_gap_reason, RSI_GAP_UNKNOWN),
    VALUE(enum rsi_gap_reason, RSI_GAP_CONFLATED),
    WHOLE(struct rsi_snapshot_mark),
    FIELD(struct rsi_snapshot_mark, subscription),
    FIELD(struct rsi_snapshot_mark, step),
    FIELD(struct rsi_snapshot_mark, reserved),
    VALUE(enum rsi_snapshot_step, RSI_SNAPSHOT_START),
    VALUE(enum rsi_snapshot_step, RSI_SNAPSHOT_VALUES),
    VALUE(enum rsi_snapshot_step, RSI_SNAPSHOT_END),
    WHOLE(struct rsi_greeting),
    FIELD(struct rsi_greeting, magic),
    FIELD(struct rsi_greeting, version_min),
    FIELD(struct rsi_greeting, version_max),
    FIELD(struct rsi_greeting, control_credit),
    FIELD(struct rsi_greeting, batch_credit),
    FIELD(struct rsi_greeting, ring_bytes_max),
    FIELD(struct rsi_greeting, agent_hint),
    FIELD(struct rsi_greeting, nonce),
    FIELD(struct rsi_greeting, incarnation),
    FIELD(struct rsi_greeting, reserved),
    WHOLE(struct rsi_record_header),
    FIELD(struct rsi_record_header, kind),
    FIELD(struct rsi_record_header, flags),
    FIELD(struct rsi_record_header, generation),
    FIELD(struct rsi_record_header, bytes),
    FIELD(struct rsi_record_header, position),
    VALUE(enum rsi_record_kind, RSI_RECORD_GREETING),
    VALUE(enum rsi_record_kind, RSI_RECORD_BATCH),
    VALUE(enum rsi_record_kind, RSI_RECORD_POSITIONS),
    VALUE(enum rsi_record_kind, RSI_RECORD_CONTROL),
    VALUE(enum rsi_record_kind, RSI_RECORD_ATTACH),
    VALUE(enum rsi_record_kind, RSI_RECORD_WAKE_REQUEST),
    VALUE(enum rsi_record_kind, RSI_RECORD_WAKE),
    VALUE(enum rsi_record_kind, RSI_RECORD_CLOSE),
    WHOLE(struct rsi_positions),
    FIELD(struct rsi_positions, arrived_pos),
    FIELD(struct rsi_positions, consumed_pos),
    WHOLE(struct rsi_wake_request),
    FIELD(struct rsi_wake_request, arrived_at_least),
    FIELD(struct rsi_wake_request, consumed_at_least),
    FIELD(struct rsi_wake_request, generation),
    WHOLE(struct rsi_attach),
    FIELD(struct rsi_attach, in_ring_bytes),
    FIELD(struct rsi_attach, in_start_pos),
    FIELD(struct rsi_attach, words_address),
    FIELD(struct rsi_attach, ring_address),
    FIELD(struct rsi_attach, key),
    FIELD(struct rsi_attach, batch_credit),
    FIELD(struct rsi_attach, reserved),
    WHOLE(struct rsi_words),
    FIELD(struct rsi_words, consumed_pos),
    FIELD(struct rsi_words, batch_credit),
    FIELD(struct rsi_words, reserved_0),
    FIELD(struct rsi_words, wake_arrived_at_least),
    FIELD(struct rsi_words, wake_consumed_at_least),
    FIELD(struct rsi_words, wake_generation),
    FIELD(struct rsi_words, packets_sent),
    FIELD(struct rsi_words, reserved_1),
    FIELD(struct rsi_words, reserved_2),
    VALUE(enum rsi_datagram_type, RSI_DATAGRAM_HELLO),
    VALUE(enum rsi_datagram_type, RSI_DATAGRAM_COOKIE),
    VALUE(enum rsi_datagram_type, RSI_DATAGRAM_OPEN),
    VALUE(enum rsi_datagram_type, RSI_DATAGRAM_ACCEPT),
    VALUE(enum rsi_datagram_type, RSI_DATAGRAM_REFUSE),
    VALUE(enum rsi_datagram_type, RSI_DATAGRAM_RESET),
    VALUE(enum rsi_datagram_type, RSI_DATAGRAM_DATA),
    VALUE(enum rsi_datagram_type, RSI_DATAGRAM_STATE),
    VALUE(enum rsi_datagram_type, RSI_DATAGRAM_LANE),
    VALUE(enum rsi_datagram_type, RSI_DATAGRAM_PROBE),
    VALUE(enum rsi_datagram_type, RSI_DATAGRAM_PROBE_ACK),
    VALUE(enum rsi_datagram_flag, RSI_DATAGRAM_FLAG_STATE),
    VALUE(enum rsi_datagram_flag, RSI_DATAGRAM_FLAG_REPLY),
    VALUE(enum rsi_datagram_flag, RSI_DATAGRAM_FLAG_ATTACHED),
    VALUE(enum rsi_datagram_reason, RSI_DATAGRAM_REASON_NO_LISTENER),
    VALUE(enum rsi_datagram_reason, RSI_DATAGRAM_REASON_FULL),
    VALUE(enum rsi_datagram_reason, RSI_DATAGRAM_REASON_CLOSED),
    WHOLE(struct rsi_datagram_header),
    FIELD(struct rsi_datagram_header, version),
    FIELD(struct rsi_datagram_header, type),
    FIELD(struct rsi_datagram_header, flags),
    FIELD(struct rsi_datagram_header, reserved_0),
    FIELD(struct rsi_datagram_header, connection),
    FIELD(struct rsi_datagram_header, from),
    FIELD(struct rsi_datagram_header, bytes),
    FIELD(struct rsi_datagram_header, reserved_1),
    FIELD(struct rsi_datagram_header, checksum),
    FIELD(struct rsi_datagram_header, timestamp_ns),
    FIELD(struct rsi_datagram_header, echo_ns),
    FIELD(struct rsi_datagram_header, reserved_2),
    FIELD(struct rsi_datagram_header, number),
    WHOLE(struct rsi_datagram_hello),
    FIELD(struct rsi_datagram_hello, nonce),
    FIELD(struct rsi_datagram_hello, cookie_time),
    FIELD(struct rsi_datagram_hello, mtu),
    FIELD(struct rsi_datagram_hello, reason),
    FIELD(struct rsi_datagram_hello, cookie),
    WHOLE(struct rsi_datagram_reset),
    FIELD(struct rsi_datagram_reset, number),
    WHOLE(struct rsi_datagram_state),
    FIELD(struct rsi_datagram_state, received_pos),
    FIELD(struct rsi_datagram_state, arrived_pos),
    FIELD(struct rsi_datagram_state, consumed_pos),
    FIELD(struct rsi_datagram_state, number_limit),
    FIELD(struct rsi_datagram_state, sent_pos),
    FIELD(struct rsi_datagram_state, state_seen),
    FIELD(struct rsi_datagram_state, lane_received),
    FIELD(struct rsi_datagram_state, control_limit),
    FIELD(struct rsi_datagram_state, wake_arrived_at_least),
    FIELD(struct rsi_datagram_state, wake_consumed_at_least),
    FIELD(struct rsi_datagram_state, wake_generation),
    FIELD(struct rsi_datagram_state, wake_answered),
    WHOLE(struct rsi_datagram_data),
    FIELD(struct rsi_datagram_data, position),
    WHOLE(struct rsi_datagram_range),
    FIELD(struct rsi_datagram_range, start_pos),
    FIELD(struct rsi_datagram_range, end_pos),
    WHOLE(struct rsi_datagram_lane),
    FIELD(struct rsi_datagram_lane, sequence),
    FIELD(struct rsi_datagram_lane, bytes),
    FIELD(struct rsi_datagram_lane, kind),
    FIELD(struct rsi_datagram_lane, reserved_0),
    FIELD(struct rsi_datagram_lane, reserved_1),
    WHOLE(struct rsi_datagram_probe),
    FIELD(struct rsi_datagram_probe, mtu),
    FIELD(struct rsi_datagram_probe, reserved),
};

#define COMPILED_COUNT (sizeof(compiled) / sizeof(compiled[0]))

/* ---- reading the two texts
 * ------------------------------------------------------------------------- */

static struct item *add_item(struct item_list *list, const char *owner, const char *name)
{
    assert_true(list->count < ITEM_COUNT_MAX);
    struct item *item = &list->items[list->count++];
    memset(item, 0, sizeof(*item));
    snprintf(item->owner, sizeof(item->owner), "%s", owner);
    snprintf(item->name, sizeof(item->name), "%s", name);
    return item;
}

/* Copies a name (letters, digits, underscores) to `name`; returns what follows it. */
static const char *take_name(const char *text, char name[NAME_BYTES])
{
    size_t length = 0;
    while (isalnum((unsigned char)text[length]) || text[length] == '_') {
        length++;
    }
    assert_true(length < NAME_BYTES);
    memcpy(name, text, length);
    name[length] = '\0';
    return text + length;
}

static const char *skip_spaces(const char *text)
{
    return text + strspn(text, " \t");
}

/* "struct rsi_x" or "enum rsi_x" at the start of `text`; false: neither. */
static bool take_owner(const char *text, char owner[NAME_BYTES])
{
    static const char *const kinds[] = {"struct ", "enum "};
    for (size_t i = 0; i < 2; i++) {
        if (strncmp(text, kinds[i], strlen(kinds[i])) == 0) {
            char name[NAME_BYTES];
            (void)take_name(text + strlen(kinds[i]), name);
            int length = snprintf(owner, NAME_BYTES, "%s%s", kinds[i], name);
            assert_true(length < NAME_BYTES);
            return true;
        }
    }
    return false;
}

static FILE *open_text(const char *file)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", RSI_PROTO_DIRECTORY, file);
    FILE *text = fopen(path, "re");
    if (text == NULL) {
        fail_msg("%s cannot be read", path);
    }
    return text;
}

/* The names that a header declares, in their order; offsets and sizes are left at 0. */
static void read_header(struct item_list *list, const char *file)
{
    char line[512];
    char owner[NAME_BYTES] = "";
    FILE *text = open_text(file);
    while (fgets(line, sizeof(line), text) != NULL) {
        char candidate[NAME_BYTES];
        if (take_owner(line, candidate) && strchr(line, '{') != NULL) {
            memcpy(owner, candidate, sizeof(owner));
            if (strncmp(owner, "struct", 6) == 0) {
                (void)add_item(list, owner, "");
            }
            continue;
        }
        if (owner[0] == '\0') {
            continue;
        }
        if (strncmp(line, "};", 2) == 0) {
            owner[0] = '\0';
            continue;
        }
        char first[NAME_BYTES];
        char name[NAME_BYTES];
        const char *rest = take_name(skip_spaces(line), first);
        (void)take_name(skip_spaces(rest), name);
        bool is_field = first[0] != '\0' && strncmp(owner, "struct", 6) == 0 &&
                        strstr(first, "int") != NULL && strchr(line, ';') != NULL;
        bool is_value = strncmp(owner, "enum", 4) == 0 && strncmp(first, "RSI_", 4) == 0;
        if (is_field || is_value) {
            (void)add_item(list, owner, is_field ? name : first);
        }
    }
    fclose(text);
}

/* The rows of LAYOUT.md. */
static void read_document(struct item_list *list)
{
    char line[1024];
    char owner[NAME_BYTES] = "";
    FILE *text = open_text("LAYOUT.md");
    while (fgets(line, sizeof(line), text) != NULL) {
        if (line[0] == '#') {
            owner[0] = '\0';
            if (strncmp(line, "### ", 4) == 0 && take_owner(line + 4, owner) &&
                strncmp(owner, "struct", 6) == 0) {
                struct item *whole = add_item(list, owner, "");
                assert_int_equal(sscanf(strchr(line, '('), "(%" SCNu64 " bytes)", &whole->bytes),
                                 1);
            }
            continue;
        }
        uint64_t offset = 0;
        uint64_t bytes = 0;
        char name[NAME_BYTES] = "";
        if (owner[0] == '\0' || line[0] != '|') {
            continue;
        }
        if (sscanf(line, "| %" SCNu64 " | %" SCNu64 " | %47[a-z_0-9] |", &offset, &bytes, name) ==
                3 ||
            sscanf(line, "| %" SCNu64 " | %47[A-Z_0-9] |", &offset, name) == 2) {
            struct item *item = add_item(list, owner, name);
            item->offset = offset;
            item->bytes = bytes;
        }
    }
    fclose(text);
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static const struct item *find_item(const struct item *items, size_t count, const struct item *like)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(items[i].owner, like->owner) == 0 && strcmp(items[i].name, like->name) == 0) {
            return &items[i];
        }
    }
    return NULL;
}

static void check_all_in(const struct item *items, size_t count, const char *here,
                         const struct item *others, size_t other_count, const char *there)
{
    for (size_t i = 0; i < count; i++) {
        if (find_item(others, other_count, &items[i]) == NULL) {
            fail_msg("%s %s is in %s and not in %s", items[i].owner, items[i].name, here, there);
        }
    }
}

static void test_header_and_this_test_name_the_same(void **state)
{
    (void)state;
    static struct item_list header;
    read_header(&header, "layout.h");
    read_header(&header, "datagram.h");
    check_all_in(header.items, header.count, "the headers", compiled, COMPILED_COUNT, "this test");
    check_all_in(compiled, COMPILED_COUNT, "this test", header.items, header.count, "the headers");
    assert_int_equal(header.count, COMPILED_COUNT); /* none twice */
}

static void test_document_shows_the_header(void **state)
{
    (void)state;
    static struct item_list document;
    read_document(&document);
    check_all_in(compiled, COMPILED_COUNT, "the headers", document.items, document.count,
                 "LAYOUT.md");
    check_all_in(document.items, document.count, "LAYOUT.md", compiled, COMPILED_COUNT,
                 "the headers");
    assert_int_equal(document.count, COMPILED_COUNT); /* none twice */
    for (uint32_t i = 0; i < document.count; i++) {
        const struct item *shown = &document.items[i];
        const struct item *truth = find_item(compiled, COMPILED_COUNT, shown);
        if (shown->offset != truth->offset || shown->bytes != truth->bytes) {
            fail_msg("LAYOUT.md shows %s %s at %" PRIu64 " with %" PRIu64
                     " bytes; it is at %" PRIu64 " with %" PRIu64,
                     shown->owner, shown->name, shown->offset, shown->bytes, truth->offset,
                     truth->bytes);
        }
    }
}

static void test_structs_have_no_hidden_padding(void **state)
{
    (void)state;
    for (size_t i = 0; i < COMPILED_COUNT; i++) {
        if (compiled[i].name[0] != '\0') {
            continue; /* a whole struct begins a run of its fields */
        }
        uint64_t end = 0;
        for (size_t j = i + 1; j < COMPILED_COUNT && compiled[j].name[0] != '\0' &&
                               strcmp(compiled[j].owner, compiled[i].owner) == 0;
             j++) {
            assert_int_equal(compiled[j].offset, end);
            end += compiled[j].bytes;
        }
        assert_int_equal(end, compiled[i].bytes);
    }
}

static void test_commit_word_names_position_and_length(void **state)
{
    (void)state;
    static const uint64_t positions[] = {
        0, 8, 4096, (UINT64_C(1) << 43) - 8, UINT64_C(1) << 43, (UINT64_C(3) << 43) + 64};
    static const uint64_t lengths[] = {40, 48, 4096, RSI_FRAME_BYTES_MAX};
    for (size_t i = 0; i < sizeof(positions) / sizeof(positions[0]); i++) {
        for (size_t j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
            uint64_t word = rsi_commit_word(positions[i], lengths[j]);
            assert_int_not_equal(word, 0);
            assert_int_equal(rsi_commit_frame_bytes(word, positions[i]), lengths[j]);
            assert_int_equal(rsi_commit_frame_bytes(word, positions[i] + 8), 0);
            assert_int_equal(rsi_commit_frame_bytes(word, positions[i] + RSI_RING_BYTES_MIN), 0);
            assert_int_equal(rsi_commit_frame_bytes(word, positions[i] + RSI_RING_BYTES_MAX), 0);
        }
        assert_int_equal(rsi_commit_frame_bytes(0, positions[i]), 0);
    }
}

static void test_frame_bytes_round_up(void **state)
{
    (void)state;
    assert_int_equal(rsi_frame_bytes(0, 0), 40);
    assert_int_equal(rsi_frame_bytes(0, 1), 48);
    assert_int_equal(rsi_frame_bytes(3, 5), 48);
    assert_int_equal(rsi_frame_bytes(3, 6), 56);
    /* Largest values do not wrap round. */
    assert_true(rsi_frame_bytes(UINT16_MAX, UINT32_MAX) > UINT32_MAX);
}

static void test_immediate_names_the_next_such_position(void **state)
{
    (void)state;
    static const uint64_t starts[] = {0, 64, (UINT64_C(1) << 35) - 4096, UINT64_C(1) << 35,
                                      (UINT64_C(5) << 35) - 8};
    static const uint64_t steps[] = {0, 8, 4096, RSI_RING_BYTES_MAX};
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        for (size_t j = 0; j < sizeof(steps) / sizeof(steps[0]); j++) {
            uint64_t end_pos = starts[i] + steps[j];
            assert_int_equal(rsi_immediate_end_pos(rsi_immediate(end_pos), starts[i]), end_pos);
        }
    }
}

static void test_magic_spells_the_name(void **state)
{
    (void)state;
    uint64_t magic = RSI_WIRE_MAGIC;
    assert_memory_equal(&magic, "RINGSIDE", sizeof(magic));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_and_this_test_name_the_same),
        cmocka_unit_test(test_document_shows_the_header),
        cmocka_unit_test(test_structs_have_no_hidden_padding),
        cmocka_unit_test(test_commit_word_names_position_and_length),
        cmocka_unit_test(test_frame_bytes_round_up),
        cmocka_unit_test(test_immediate_names_the_next_such_position),
        cmocka_unit_test(test_magic_spells_the_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
