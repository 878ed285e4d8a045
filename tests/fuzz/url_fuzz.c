/*
 * Design notes: a URL as a user could type it. What must hold: it is refused with a text, or it is
 * taken and its written form is taken again with the same parts.
 */
#include "tests/fuzz/fuzz_main.h"

#include "core/assert.h"
#include "transport/url.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char text[1024];
    if (bytes >= sizeof(text)) {
        return 0;
    }
    memcpy(text, data, bytes);
    text[bytes] = 0;
    struct rsi_url url;
    struct rsi_error error = {0};
    if (rsi_url_parse(&url, text, &error) != RSI_OK) {
        rsi_assert(error.text[0] != 0);
        return 0;
    }
    char written[1024];
    struct rsi_url again;
    rsi_url_format(&url, written, sizeof(written));
    rsi_assert(rsi_url_parse(&again, written, &error) == RSI_OK);
    rsi_assert(strcmp(url.scheme, again.scheme) == 0);
    rsi_assert(strcmp(url.host, again.host) == 0);
    rsi_assert(strcmp(url.path, again.path) == 0);
    rsi_assert(url.port == again.port);
    return 0;
}
