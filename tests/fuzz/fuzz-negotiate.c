/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Text negotiation. Input: texts, each with a byte for the phase and two for its length before
 * it; all go to one negotiation, as the requests of one login do.
 */
#include <stdlib.h>
#include <string.h>

#include "target/negotiate.h"
#include "target/text.h"
#include "tests/fuzz/fuzz.h"

/* RFC 7143 section 13: what must hold whatever was said. */
static void check_params(const struct iscsi_params *p)
{
    FUZZ_REQUIRE(p->max_xmit_segment >= 512 && p->max_xmit_segment < 1u << 24);
    FUZZ_REQUIRE(p->first_burst >= 512 && p->first_burst < 1u << 24);
    FUZZ_REQUIRE(p->max_burst >= 512 && p->max_burst < 1u << 24);
    FUZZ_REQUIRE(p->max_outstanding_r2t >= 1 && p->max_outstanding_r2t <= 65535);
    FUZZ_REQUIRE(p->max_connections == 1 && p->error_recovery_level == 0);
    FUZZ_REQUIRE(p->time2wait_s <= 3600 && p->time2retain_s <= 3600);
}

/* What we answer is well-formed, and bounded. */
static void check_answer(struct text_buf *out)
{
    struct text_iter it;
    const char *key, *value;
    int ret;

    FUZZ_REQUIRE(out->len <= TEXT_MAX_BYTES);
    if (out->failed || !out->len)
        return;
    it = (struct text_iter){out->data, out->data + out->len};
    while ((ret = text_next(&it, &key, &value)) == 1)
        FUZZ_REQUIRE(*key && strlen(key) <= TEXT_KEY_MAX);
    FUZZ_REQUIRE(ret == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum neg_phase phases[] = {NEG_SECURITY, NEG_OPERATIONAL, NEG_FULL};
    struct fuzz_bytes in = {data, data + size};
    struct negotiation n;
    int ret = 0;

    negotiation_init(&n);
    while (!ret && fuzz_left(&in) > 3) {
        enum neg_phase phase = phases[fuzz_u8(&in) % 3];
        size_t len = fuzz_u16(&in), got;
        const uint8_t *at = fuzz_take(&in, len, &got);
        char *text = fuzz_exact(at, got);
        struct text_buf out;

        text_init(&out, TEXT_MAX_BYTES);
        if (phase == NEG_OPERATIONAL)
            negotiate_declare(&n, &out);
        ret = negotiate_text(&n, phase, text, got, &out);
        check_params(&n.params);
        if (!ret)
            check_answer(&out);
        FUZZ_REQUIRE(memchr(n.initiator_name, '\0', sizeof(n.initiator_name)));
        FUZZ_REQUIRE(memchr(n.target_name, '\0', sizeof(n.target_name)));
        FUZZ_REQUIRE(memchr(n.send_targets, '\0', sizeof(n.send_targets)));
        text_release(&out);
        free(text);
    }
    return 0;
}
