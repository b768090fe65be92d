/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * JSON values out of the control socket's bytes. Input: the bytes; fed whole, and in pieces whose
 * lengths come from the first byte. Both ways must give the same values and errors.
 */
#include <stdlib.h>
#include <string.h>

#include "admin/json-stream.h"
#include "tests/fuzz/fuzz.h"
#include "util/size.h"

/* Values, errors and their order, in one number. */
static uint64_t feed(const char *text, size_t len, size_t step)
{
    struct json_stream js;
    uint64_t sum = 0;
    size_t pos = 0;

    json_stream_init(&js);
    while (pos < len) {
        struct error err = ERROR_INIT;
        size_t n = MIN_OF(step, len - pos), used = 0;
        json_t *value = NULL;
        enum json_stream_result r = json_stream_feed(&js, text + pos, n, &used, &value, &err);

        FUZZ_REQUIRE(used <= n && (r != JSON_STREAM_MORE || used == n));
        FUZZ_REQUIRE((r == JSON_STREAM_ERROR) == (err.msg[0] != '\0'));
        FUZZ_REQUIRE((r == JSON_STREAM_VALUE) == (value != NULL));
        FUZZ_REQUIRE(js.len <= JSON_STREAM_MAX_BYTES);
        pos += used;
        if (r != JSON_STREAM_MORE)
            sum = sum * 31 + (unsigned)r;
        if (value)
            sum = sum * 31 + (uint64_t)json_typeof(value);
        json_decref(value);
    }
    struct error err = ERROR_INIT;
    json_t *value = NULL;

    sum = sum * 31 + (unsigned)json_stream_end(&js, &value, &err);
    json_decref(value);
    json_stream_release(&js);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text;

    if (!size)
        return 0;
    text = fuzz_exact(data + 1, size - 1);
    FUZZ_REQUIRE(feed(text, size - 1, size) == feed(text, size - 1, data[0] % 16 + 1u));
    free(text);
    return 0;
}
