/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checking, repairing and describing an image of the fuzzer's making, and cowtgt's settings in it.
 * What a repair says is mended must be gone when one looks again.
 *
 * Input: byte 0 flags (below), then the image as pieces, as in fuzz-qcow2-image.c.
 */
#include <stdlib.h>
#include <string.h>

#include "lun-backends/qcow2-offline.h"
#include "lun-backends/qcow2.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mem-file.h"

enum flags { FIX_LEAKS = 1, FIX_ERRORS = 2, SETTINGS = 4, TRUNCATED = 8, OPEN_LEAKY = 16 };

struct scene {
    struct mem_file *file;
    uint8_t flags;
};

static void say(void *opaque, const char *line)
{
    bool *overlap = opaque;

    FUZZ_REQUIRE(line[0]);
    *overlap |= strstr(line, "overlaps other metadata") != NULL;
}

/* What was repaired does not come back; but where two tables share a cluster, whatever is written
 * to one changes the other. */
static void co_check(struct blk_node *file, unsigned fix)
{
    struct qcow2_check_result first, again;
    struct error err = ERROR_INIT;
    bool overlap = false;
    int ret = co_qcow2_check(file, fix, say, &overlap, &first, &err);

    FUZZ_REQUIRE((ret == 0) == (err.msg[0] == '\0'));
    if (ret || !fix || first.check_errors || overlap)
        return;
    FUZZ_REQUIRE(!co_qcow2_check(file, 0, say, &overlap, &again, &err));
    if (again.check_errors)
        return;
    FUZZ_REQUIRE(again.corruptions <= first.corruptions);
    if (!first.corruptions)
        FUZZ_REQUIRE(again.leaks <= first.leaks);
}

static void co_describe(struct blk_node *file)
{
    struct qcow2_description d;
    struct error err = ERROR_INIT;
    int ret = co_qcow2_describe(file, &d, &err);

    FUZZ_REQUIRE((ret == 0) == (err.msg[0] == '\0'));
    if (ret)
        return;
    for (unsigned i = 0; i < d.nr_snapshots; i++)
        FUZZ_REQUIRE(d.snapshots[i].id && d.snapshots[i].name);
    for (unsigned i = 0; i < d.nr_bitmaps; i++)
        FUZZ_REQUIRE(d.bitmaps[i].name);
    qcow2_description_release(&d);
}

static void co_settings(struct blk_node *file)
{
    struct qcow2_settings s, back;
    struct error err = ERROR_INIT;

    if (co_qcow2_get_settings(file, &s, &err))
        return;
    FUZZ_REQUIRE(memchr(s.label, '\0', sizeof(s.label)));
    s.set |= QCOW2_SET_PREFETCH | QCOW2_SET_LABEL;
    s.prefetch = true;
    strcpy(s.label, "fuzz");
    if (co_qcow2_set_settings(file, &s, &err))
        return;
    FUZZ_REQUIRE(!co_qcow2_get_settings(file, &back, &err));
    FUZZ_REQUIRE(back.set == s.set && back.prefetch && !strcmp(back.label, s.label));
}

static void co_open_leaky(struct blk_node *file)
{
    const struct qcow2_open_opts opts = {.writable = true, .fix_leaks = true};
    struct blk_node *node;
    struct error err = ERROR_INIT;

    if (!co_qcow2_open_opts(file, &opts, &node, &err))
        co_blk_node_unref(node);
}

static void co_tool(void *arg)
{
    struct scene *s = arg;
    struct blk_node *file = &s->file->node;

    co_describe(file);
    if (s->flags & SETTINGS)
        co_settings(file);
    if (s->flags & OPEN_LEAKY)
        co_open_leaky(file);
    co_check(file, s->flags & (QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS));
    co_blk_node_unref(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_bytes in = {data, data + size};
    struct scene s = {.flags = fuzz_u8(&in)};

    fuzz_world();
    s.file = mem_file_from_pieces(&in, s.flags & TRUNCATED);
    fuzz_run(co_tool, &s);
    return 0;
}
