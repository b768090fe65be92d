/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names as images and people give them: backing names (plain, file:, json:), iscsi:// URLs,
 * sizes, UUIDs. Input: text.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/chain.h"
#include "lun-backends/remote.h"
#include "tests/fuzz/fuzz.h"
#include "util/size.h"
#include "util/uuid.h"

static void backing_name(const char *text)
{
    char out[PATH_MAX], format[16] = "";
    struct error err = ERROR_INIT;
    int ret = chain_resolve_backing("/images/vm1/top.qcow2", text, out, sizeof(out), format,
                                    sizeof(format), &err);

    FUZZ_REQUIRE((ret == 0) == (err.msg[0] == '\0'));
    if (ret == 0) {
        FUZZ_REQUIRE(memchr(out, '\0', sizeof(out)) && out[0]);
        FUZZ_REQUIRE(!format[0] || !strcmp(format, "raw") || !strcmp(format, "qcow2"));
    }
}

static void url(const char *text)
{
    struct iscsi_url u, again;
    struct error err = ERROR_INIT;
    char back[1024];
    int ret = iscsi_url_parse(text, &u, &err);

    FUZZ_REQUIRE((ret == 0) == (err.msg[0] == '\0'));
    if (ret || u.lun < 0 || iscsi_url_format(&u, back, sizeof(back)))
        return;
    FUZZ_REQUIRE(!iscsi_url_parse(back, &again, &err));
    FUZZ_REQUIRE(!strcmp(u.host, again.host) && !strcmp(u.target, again.target));
    FUZZ_REQUIRE(u.port == again.port && u.lun == again.lun);
}

static void numbers(const char *text)
{
    uint64_t bytes;
    struct uuid id, again;
    char back[UUID_STRLEN];

    if (!size_parse(text, &bytes))
        FUZZ_REQUIRE(bytes <= INT64_MAX);
    if (uuid_from_text(&id, text)) {
        uuid_to_text(&id, back);
        FUZZ_REQUIRE(uuid_from_text(&again, back) && uuid_equal(&id, &again));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    FUZZ_REQUIRE(text);
    memcpy(text, data, size);
    text[size] = '\0';
    backing_name(text);
    url(text);
    numbers(text);
    free(text);
    return 0;
}
