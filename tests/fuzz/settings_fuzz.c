/*
 * Design notes: a configuration file as a user could write it, through a memfd because the loader
 * takes a path. What must hold: it is taken or refused with a text; nothing leaks.
 */
#include "tests/fuzz/fuzz_main.h"

#include "broker/settings.h"
#include "core/assert.h"
#include "core/log.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    rsi_log_set_level(RSI_LOG_ERROR);
    int fd = memfd_create("settings", MFD_CLOEXEC);
    rsi_assert(fd >= 0);
    rsi_assert(write(fd, data, bytes) == (ssize_t)bytes);
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct rsi_settings settings;
    struct rsi_error error = {0};
    rsi_settings_init(&settings);
    if (rsi_settings_load(&settings, path, &error) != RSI_OK ||
        rsi_settings_check(&settings, &error) != RSI_OK) {
        rsi_assert(error.text[0] != 0);
    }
    rsi_settings_fini(&settings);
    close(fd);
    return 0;
}
