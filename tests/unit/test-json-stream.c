/* SPDX-License-Identifier: BSD-3-Clause */
/* Finding JSON values in a byte stream: whole, in pieces, broken, too large. */
#include <stdlib.h>
#include <string.h>

#include "admin/json-stream.h"
#include "tests/unit/ctest.h"

/* Feeds @text in pieces of @step bytes; "V<json>" and "E" of each result, space-separated. */
static void run(const char *text, size_t len, size_t step, char *out, size_t out_len)
{
    struct json_stream js;
    size_t pos = 0;

    json_stream_init(&js);
    out[0] = '\0';
    while (pos < len) {
        size_t n = len - pos < step ? len - pos : step, used = 0;
        struct error err = ERROR_INIT;
        json_t *v = NULL;
        enum json_stream_result res = json_stream_feed(&js, text + pos, n, &used, &v, &err);

        if (res == JSON_STREAM_MORE && used != n)
            abort();
        pos += used;
        if (res == JSON_STREAM_VALUE) {
            char *dump = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);

            strncat(out, "V", out_len - strlen(out) - 1);
            strncat(out, dump, out_len - strlen(out) - 1);
            strncat(out, " ", out_len - strlen(out) - 1);
            free(dump);
            json_decref(v);
        } else if (res == JSON_STREAM_ERROR) {
            strncat(out, "E ", out_len - strlen(out) - 1);
        }
    }
    json_stream_release(&js);
}

static void expect(const char *text, const char *want)
{
    char out[4096];

    run(text, strlen(text), strlen(text), out, sizeof(out));
    CHECK_STR(out, want);
    run(text, strlen(text), 1, out, sizeof(out));
    CHECK_STR(out, want);
    run(text, strlen(text), 3, out, sizeof(out));
    CHECK_STR(out, want);
}

TEST(json_stream, values_need_nothing_between)
{
    expect("{\"a\":1}{\"b\":[2]}[3]", "V{\"a\":1} V{\"b\":[2]} V[3] ");
    expect("\r\n {\"a\":1}\n\n{\"b\":2}\n", "V{\"a\":1} V{\"b\":2} ");
}

TEST(json_stream, brackets_and_quotes_in_strings_are_text)
{
    expect("{\"a\":\"}]\\\"{\"}", "V{\"a\":\"}]\\\"{\"} ");
    expect("\"\\\\\"{}", "V\"\\\\\" V{} ");
}

TEST(json_stream, scalars_end_at_what_follows)
{
    expect("12 true null\n", "V12 Vtrue Vnull ");
    expect("12{\"a\":1}", "V12 V{\"a\":1} ");
    expect("nonsense {}", "E V{} ");
}

TEST(json_stream, goes_on_after_a_bad_value)
{
    expect("{\"a\":}{\"b\":2}", "E V{\"b\":2} ");
    expect("{]{\"b\":2}", "E V{\"b\":2} ");
    expect("}{\"b\":2}", "E V{\"b\":2} ");
    expect("{\"a\":1,\"a\":2} {}", "E V{} ");
}

TEST(json_stream, stray_characters_are_one_error)
{
    expect("!#%&/(; {\"b\":2}", "E V{\"b\":2} ");
}

TEST(json_stream, impossible_byte_starts_afresh)
{
    expect("{\"a\": [[\xff{\"b\":2}", "E V{\"b\":2} ");
    expect("{\"a\": \"open\n{\"b\":2}", "E V{\"b\":2} ");
    expect("\x01{}", "E V{} ");
}

TEST(json_stream, depth_64_passes_and_65_does_not)
{
    char text[256], want[512];

    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    text[128] = '\0';
    snprintf(want, sizeof(want), "V%s ", text);
    expect(text, want);
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    strcpy(text + 130, "{}");
    expect(text, "E V{} ");
}

TEST(json_stream, one_mebibyte_passes_and_one_more_does_not)
{
    size_t len = JSON_STREAM_MAX_BYTES + 3;
    char *text = malloc(len), out[64];
    struct json_stream js;
    struct error err = ERROR_INIT;
    json_t *v = NULL;
    size_t used;

    REQUIRE(text);
    memset(text, 'x', len);
    text[0] = text[JSON_STREAM_MAX_BYTES - 1] = '"';
    json_stream_init(&js);
    CHECK_EQ(json_stream_feed(&js, text, JSON_STREAM_MAX_BYTES, &used, &v, &err),
             JSON_STREAM_VALUE);
    CHECK_EQ(json_string_length(v), JSON_STREAM_MAX_BYTES - 2);
    json_decref(v);
    json_stream_release(&js);

    memset(text, 'x', len);
    text[0] = text[JSON_STREAM_MAX_BYTES] = '"';
    memcpy(text + len - 2, "{}", 2);
    run(text, len, 4096, out, sizeof(out));
    CHECK_STR(out, "E V{} ");
    free(text);
}

TEST(json_stream, invalid_utf8_is_an_error)
{
    expect("{\"a\":\"\xc3\x28\"}{}", "E V{} ");
}

TEST(json_stream, end_inside_a_value_is_an_error)
{
    struct json_stream js;
    struct error err = ERROR_INIT;
    json_t *v = NULL;
    size_t used;

    json_stream_init(&js);
    CHECK_EQ(json_stream_feed(&js, "{\"a\":", 5, &used, &v, &err), JSON_STREAM_MORE);
    CHECK_EQ(json_stream_end(&js, &v, &err), JSON_STREAM_ERROR);
    CHECK_EQ(json_stream_feed(&js, "17", 2, &used, &v, &err), JSON_STREAM_MORE);
    CHECK_EQ(json_stream_end(&js, &v, &err), JSON_STREAM_VALUE);
    CHECK_EQ(json_integer_value(v), 17);
    json_decref(v);
    json_stream_release(&js);
}
