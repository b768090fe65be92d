/* SPDX-License-Identifier: BSD-3-Clause */
/* See fuzz.h. */
#include "tests/fuzz/fuzz.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/block.h"
#include "util/coroutine.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"
#include "util/workers.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *level = getenv("FUZZ_LOG");

    (void)argc;
    (void)argv;
    json_object_seed(1);          /* the same run from the same seed */
    log_set_level(LOG_LVL_ERROR); /* every input is wrong somewhere */
    if (level)
        log_set_levels(level, &(struct error)ERROR_INIT);
    return 0;
}

const uint8_t *fuzz_take(struct fuzz_bytes *b, size_t want, size_t *got)
{
    const uint8_t *p = b->pos;

    *got = MIN_OF(want, fuzz_left(b));
    b->pos += *got;
    return p;
}

static uint32_t take_be(struct fuzz_bytes *b, size_t bytes)
{
    size_t got;
    const uint8_t *p = fuzz_take(b, bytes, &got);
    uint32_t v = 0;

    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | (i < got ? p[i] : 0);
    return v;
}

uint8_t fuzz_u8(struct fuzz_bytes *b)
{
    return (uint8_t)take_be(b, 1);
}

uint16_t fuzz_u16(struct fuzz_bytes *b)
{
    return (uint16_t)take_be(b, 2);
}

uint32_t fuzz_u32(struct fuzz_bytes *b)
{
    return take_be(b, 4);
}

void *fuzz_exact(const void *data, size_t len)
{
    void *p = malloc(len ? len : 1);

    FUZZ_REQUIRE(p);
    if (len)
        memcpy(p, data, len);
    return p;
}

void fuzz_world(void)
{
    static bool made;

    if (made)
        return;
    made = true;
    FUZZ_REQUIRE(!loop_init() && !workers_init(1) && !blk_init());
}

struct runner {
    void (*fn)(void *arg);
    void *arg;
    bool done;
};

static void co_runner(void *arg)
{
    struct runner *r = arg;

    r->fn(r->arg);
    r->done = true;
}

void fuzz_run(void (*fn)(void *arg), void *arg)
{
    struct runner r = {fn, arg, false};

    co_spawn(co_runner, &r);
    while (!r.done || blk_closing())
        loop_turn(true);
}
