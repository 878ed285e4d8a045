#include "core/testing.h"

#include "core/pool.h"

static struct rsi_pool make_pool(uint64_t buffer_bytes, uint32_t buffer_count)
{
    struct rsi_pool pool;
    struct rsi_pool_options options = {.name = "pool",
                                       .buffer_bytes = buffer_bytes,
                                       .buffer_count = buffer_count,
                                       .node = RSI_NODE_ANY};
    assert_int_equal(rsi_pool_init(&pool, &options, NULL), RSI_OK);
    return pool;
}

static void all_buffers_go_out_and_come_back(void **state)
{
    (void)state;
    struct rsi_pool pool = make_pool(100, 70);
    void *buffers[70];
    assert_int_equal(pool.stride_bytes, 128);
    for (uint32_t i = 0; i < 70; i++) {
        buffers[i] = rsi_pool_acquire(&pool);
        assert_non_null(buffers[i]);
        assert_int_equal((uintptr_t)buffers[i] % 64, 0);
        assert_int_equal(rsi_pool_index(&pool, buffers[i]), i);
        assert_ptr_equal(rsi_pool_at(&pool, i), buffers[i]);
        assert_false(rsi_pool_is_free(&pool, i));
        memset(buffers[i], (int)i, 100);
    }
    assert_null(rsi_pool_acquire(&pool));
    assert_int_equal(pool.free_count, 0);
    for (uint32_t i = 0; i < 70; i++) {
        assert_int_equal(((uint8_t *)buffers[i])[0], i);
        assert_int_equal(((uint8_t *)buffers[i])[99], i);
        rsi_pool_release(&pool, buffers[i]);
        assert_true(rsi_pool_is_free(&pool, i));
    }
    assert_int_equal(pool.free_count, 70);
    assert_int_equal(pool.free_count_min, 0);
    assert_ptr_equal(rsi_pool_acquire(&pool), buffers[69]); /* the last one back goes out first */
    rsi_pool_fini(&pool);
    rsi_pool_fini(&pool);
}

static void random_use_keeps_each_buffer_with_one_user(void **state)
{
    (void)state;
    enum { COUNT = 37 };
    uint64_t random = rsi_test_seed();
    struct rsi_pool pool = make_pool(64, COUNT);
    void *held[COUNT];
    uint32_t held_count = 0;
    for (int i = 0; i < 20000; i++) {
        if (rsi_test_random(&random) % 2 == 0) {
            void *buffer = rsi_pool_acquire(&pool);
            assert_int_equal(buffer == NULL, held_count == COUNT);
            if (buffer != NULL) {
                for (uint32_t j = 0; j < held_count; j++) {
                    assert_ptr_not_equal(held[j], buffer);
                }
                held[held_count++] = buffer;
            }
        } else if (held_count > 0) {
            uint32_t chosen = (uint32_t)(rsi_test_random(&random) % held_count);
            rsi_pool_release(&pool, held[chosen]);
            held[chosen] = held[--held_count];
        }
        assert_int_equal(pool.free_count, COUNT - held_count);
    }
    rsi_pool_fini(&pool);
}

static void release_twice(void *arg)
{
    struct rsi_pool *pool = arg;
    void *buffer = rsi_pool_acquire(pool);
    (void)rsi_pool_acquire(pool);
    rsi_pool_release(pool, buffer);
    rsi_pool_release(pool, buffer);
}

static void release_the_middle(void *arg)
{
    struct rsi_pool *pool = arg;
    rsi_pool_release(pool, (uint8_t *)rsi_pool_acquire(pool) + 8);
}

static void release_a_stranger(void *arg)
{
    struct rsi_pool *pool = arg;
    rsi_pool_release(pool, pool->base + pool->stride_bytes * pool->buffer_count);
}

static void wrong_releases_abort(void **state)
{
    (void)state;
    char output[256];
    struct rsi_pool pool = make_pool(64, 4);
    rsi_test_expect_abort(release_twice, &pool, output, sizeof output);
    assert_non_null(strstr(output, "!is_released_twice"));
    rsi_test_expect_abort(release_the_middle, &pool, output, sizeof output);
    assert_non_null(strstr(output, "offset % pool->stride_bytes == 0"));
    rsi_test_expect_abort(release_a_stranger, &pool, output, sizeof output);
    assert_non_null(strstr(output, "index < pool->buffer_count"));
    rsi_pool_fini(&pool);
}

static void impossible_pools_are_refused(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    struct rsi_pool pool = {0};
    struct rsi_pool_options options = {.name = "chunks", .buffer_count = 4, .node = RSI_NODE_ANY};
    assert_int_equal(rsi_pool_init(&pool, &options, &error), RSI_E_INVALID);
    assert_string_equal(error.text, "chunks: a pool of 4 buffers of 0 bytes is not possible");
    options.buffer_bytes = 64;
    options.buffer_count = 0;
    assert_int_equal(rsi_pool_init(&pool, &options, &error), RSI_E_INVALID);
    options.buffer_bytes = UINT64_C(1) << 40;
    options.buffer_count = UINT32_MAX;
    assert_true(rsi_failed(rsi_pool_init(&pool, &options, &error)));
    assert_null(pool.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_buffers_go_out_and_come_back),
        cmocka_unit_test(random_use_keeps_each_buffer_with_one_user),
        cmocka_unit_test(wrong_releases_abort),
        cmocka_unit_test(impossible_pools_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
