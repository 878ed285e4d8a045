#include "core/testing.h"

#include <inttypes.h>
#include <math.h>

#include "core/histogram.h"

enum { VALUE_COUNT = 20000 };

static struct rsi_histogram histogram;
static struct rsi_histogram other;

static int compare_values(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* Values of all magnitudes: a random number of random bits. */
static uint64_t random_value(uint64_t *random)
{
    uint64_t bits = 1 + rsi_test_random(random) % 41;
    return rsi_test_random(random) >> (64 - bits);
}

static void every_index_is_in_bounds_and_grows(void **state)
{
    (void)state;
    uint32_t last = 0;
    for (uint64_t value = 0; value < 100000; value++) {
        uint32_t index = rsi_histogram_index(value);
        assert_true(index == last || index == last + 1);
        last = index;
    }
    assert_int_equal(rsi_histogram_index((UINT64_C(1) << 42) - 1), RSI_HISTOGRAM_BUCKET_COUNT - 1);
    assert_int_equal(rsi_histogram_index(UINT64_MAX), RSI_HISTOGRAM_BUCKET_COUNT - 1);
    for (unsigned bit = 8; bit < 42; bit++) {
        uint64_t power = UINT64_C(1) << bit;
        assert_int_equal(rsi_histogram_index(power), rsi_histogram_index(power - 1) + 1);
    }
}

static void each_value_alone_is_read_back_exactly(void **state)
{
    (void)state;
    uint64_t random = rsi_test_seed();
    for (int i = 0; i < 1000; i++) {
        uint64_t value = i < 600 ? (uint64_t)i : random_value(&random);
        rsi_histogram_reset(&histogram);
        rsi_histogram_record(&histogram, value);
        assert_true(rsi_histogram_percentile(&histogram, 0) == value);
        assert_true(rsi_histogram_percentile(&histogram, 100) == value);
        assert_true(histogram.min_value == value && histogram.max_value == value);
        assert_true(rsi_histogram_mean(&histogram) == (double)value);
    }
}

static void percentiles_agree_with_a_sorted_array(void **state)
{
    (void)state;
    static uint64_t values[VALUE_COUNT];
    static const double percentiles[] = {0, 1, 25, 50, 75, 90, 95, 99, 99.9, 99.99, 100};
    uint64_t random = rsi_test_seed();
    rsi_histogram_reset(&histogram);
    long double sum = 0;
    for (int i = 0; i < VALUE_COUNT; i++) {
        values[i] = random_value(&random);
        sum += (long double)values[i];
        rsi_histogram_record(&histogram, values[i]);
    }
    qsort(values, VALUE_COUNT, sizeof values[0], compare_values);
    assert_int_equal(histogram.total_count, VALUE_COUNT);
    assert_true(histogram.min_value == values[0]);
    assert_true(histogram.max_value == values[VALUE_COUNT - 1]);
    assert_true(fabs(rsi_histogram_mean(&histogram) - (double)(sum / VALUE_COUNT)) < 1);
    for (size_t i = 0; i < sizeof percentiles / sizeof percentiles[0]; i++) {
        size_t rank = (size_t)ceil(percentiles[i] / 100 * VALUE_COUNT - 1e-6);
        uint64_t exact = values[rank > 0 ? rank - 1 : 0];
        uint64_t read = rsi_histogram_percentile(&histogram, percentiles[i]);
        assert_true(read >= exact);
        assert_true(read - exact <= exact / RSI_HISTOGRAM_SUB_COUNT);
    }
}

static void merging_is_recording_both(void **state)
{
    (void)state;
    static struct rsi_histogram both;
    uint64_t random = rsi_test_seed();
    rsi_histogram_reset(&histogram);
    rsi_histogram_reset(&other);
    rsi_histogram_reset(&both);
    for (int i = 0; i < 5000; i++) {
        uint64_t value = random_value(&random);
        rsi_histogram_record(i % 3 == 0 ? &histogram : &other, value);
        rsi_histogram_record(&both, value);
    }
    rsi_histogram_merge(&histogram, &other);
    assert_int_equal(histogram.total_count, both.total_count);
    assert_true(histogram.min_value == both.min_value);
    assert_true(histogram.max_value == both.max_value);
    assert_memory_equal(histogram.bucket_counts, both.bucket_counts, sizeof both.bucket_counts);

    struct rsi_histogram *empty = calloc(1, sizeof *empty);
    rsi_histogram_merge(&histogram, empty);
    assert_true(histogram.min_value == both.min_value);
    rsi_histogram_merge(empty, &histogram);
    assert_true(empty->min_value == both.min_value);
    free(empty);
}

static void an_empty_one_says_zero(void **state)
{
    (void)state;
    rsi_histogram_reset(&histogram);
    assert_int_equal(rsi_histogram_percentile(&histogram, 50), 0);
    assert_true(rsi_histogram_mean(&histogram) == 0);
    assert_true(rsi_histogram_standard_deviation(&histogram) == 0);
}

static void values_beyond_the_range_keep_their_maximum(void **state)
{
    (void)state;
    rsi_histogram_reset(&histogram);
    rsi_histogram_record_many(&histogram, 10, 99);
    rsi_histogram_record(&histogram, UINT64_C(1) << 60);
    assert_true(histogram.max_value == UINT64_C(1) << 60);
    assert_true(rsi_histogram_percentile(&histogram, 100) == UINT64_C(1) << 60);
    assert_int_equal(rsi_histogram_percentile(&histogram, 99), 10);
}

static void deviation_is_that_of_the_values(void **state)
{
    (void)state;
    rsi_histogram_reset(&histogram);
    rsi_histogram_record_many(&histogram, 100, 50);
    rsi_histogram_record_many(&histogram, 200, 50);
    assert_true(fabs(rsi_histogram_mean(&histogram) - 150) < 1e-9);
    assert_true(fabs(rsi_histogram_standard_deviation(&histogram) - 50) < 1e-9);
}

static char *write_to_text(double unit)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&text, &bytes);
    assert_non_null(stream);
    rsi_histogram_write(&histogram, stream, 5, unit);
    fclose(stream);
    return text;
}

static void the_table_has_hdrhistograms_form(void **state)
{
    (void)state;
    rsi_histogram_reset(&histogram);
    rsi_histogram_record(&histogram, 10);
    rsi_histogram_record(&histogram, 20);
    char *text = write_to_text(10.0);
    assert_string_equal(text, "       Value     Percentile TotalCount 1/(1-Percentile)\n"
                              "\n"
                              "       1.000 0.000000000000          1           1.00\n"
                              "       1.000 0.100000000000          1           1.11\n"
                              "       1.000 0.200000000000          1           1.25\n"
                              "       1.000 0.300000000000          1           1.43\n"
                              "       1.000 0.400000000000          1           1.67\n"
                              "       1.000 0.500000000000          1           2.00\n"
                              "       2.000 1.000000000000          2\n"
                              "#[Mean    =        1.500, StdDeviation   =        0.500]\n"
                              "#[Max     =        2.000, Total count    =            2]\n"
                              "#[Buckets =           35, SubBuckets     =          256]\n");
    free(text);

    rsi_histogram_reset(&histogram);
    text = write_to_text(1.0);
    assert_non_null(strstr(text, "Total count    =            0]"));
    free(text);
}

static void the_table_ends_with_all_values(void **state)
{
    (void)state;
    uint64_t random = rsi_test_seed();
    rsi_histogram_reset(&histogram);
    for (int i = 0; i < 10000; i++) {
        rsi_histogram_record(&histogram, random_value(&random));
    }
    char *text = write_to_text(1.0);
    double last_value = -1;
    double last_fraction = -1;
    uint64_t last_count = 0;
    unsigned line_count = 0;
    char *cursor = strchr(text, '\n');
    char *rest = NULL;
    for (char *line = strtok_r(cursor, "\n", &rest); line != NULL && line[0] != '#';
         line = strtok_r(NULL, "\n", &rest)) {
        double value = 0;
        double fraction = 0;
        uint64_t count = 0;
        assert_int_equal(sscanf(line, "%lf %lf %" SCNu64, &value, &fraction, &count), 3);
        assert_true(value >= last_value && fraction > last_fraction && count >= last_count);
        last_value = value;
        last_fraction = fraction;
        last_count = count;
        line_count++;
    }
    assert_true(line_count > 20);
    assert_true(last_fraction == 1);
    assert_int_equal(last_count, 10000);
    assert_true(last_value == (double)histogram.max_value);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_is_in_bounds_and_grows),
        cmocka_unit_test(each_value_alone_is_read_back_exactly),
        cmocka_unit_test(percentiles_agree_with_a_sorted_array),
        cmocka_unit_test(merging_is_recording_both),
        cmocka_unit_test(an_empty_one_says_zero),
        cmocka_unit_test(values_beyond_the_range_keep_their_maximum),
        cmocka_unit_test(deviation_is_that_of_the_values),
        cmocka_unit_test(the_table_has_hdrhistograms_form),
        cmocka_unit_test(the_table_ends_with_all_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
