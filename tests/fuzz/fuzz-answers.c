/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a target says of itself, as an initiator takes it: VPD pages D5h and 83h, GET LAYER STATUS,
 * GET LBA STATUS, REPORT LUNS, and layers that are to be joined into a chain.
 *
 * Input: a byte that chooses, then LBA and capacity (4 bytes each) where there is a mapping, then
 * the answer. Layers to be joined are pages D5h with a byte for their length before them.
 */
#include <stdlib.h>
#include <string.h>

#include "discovery/chain-join.h"
#include "lun-backends/iscsi-lun.h"
#include "lun-backends/remote-int.h"
#include "tests/fuzz/fuzz.h"
#include "util/cow-wire.h"
#include "util/size.h"

#define MAX_EXTENTS 32
#define MAX_LUNS    16

static void layer_page(struct fuzz_bytes *in)
{
    struct cowl_page pg, again;
    uint8_t back[COWL_VPD_MAX_BYTES];
    size_t len;

    if (cowl_page_decode(in->pos, fuzz_left(in), &pg))
        return;
    FUZZ_REQUIRE(memchr(pg.name, '\0', sizeof(pg.name)));
    len = cowl_page_encode(&pg, 0, back);
    FUZZ_REQUIRE(len <= sizeof(back) && !cowl_page_decode(back, len, &again));
    FUZZ_REQUIRE(!strcmp(pg.name, again.name) && pg.generation == again.generation);
    FUZZ_REQUIRE(uuid_equal(&pg.layer_uuid, &again.layer_uuid));
}

static void layer_status(struct fuzz_bytes *in)
{
    uint64_t lba = fuzz_u32(in), capacity = lba + fuzz_u32(in), next = 0, at = lba;
    struct cowl_extent ext[MAX_EXTENTS];
    uint32_t generation;
    int n = cowl_status_decode(in->pos, fuzz_left(in), lba, capacity, &generation, &next, ext,
                               MAX_EXTENTS);

    FUZZ_REQUIRE(n <= MAX_EXTENTS);
    for (int i = 0; i < n; i++) {
        FUZZ_REQUIRE(ext[i].lba == at && ext[i].blocks && ext[i].blocks <= capacity - at);
        FUZZ_REQUIRE(ext[i].state <= COWL_COMPRESSED);
        at += ext[i].blocks;
    }
}

static void lba_status(struct fuzz_bytes *in)
{
    uint64_t lba = fuzz_u32(in), capacity = lba + fuzz_u32(in), at = lba * 512;
    struct blk_extent ext[MAX_EXTENTS];
    int n = remote_lba_status_decode(in->pos, fuzz_left(in), lba, capacity, 512, ext, MAX_EXTENTS);
    uint64_t from = at + 100, bytes = 5000;
    unsigned left;

    FUZZ_REQUIRE(n <= MAX_EXTENTS);
    for (int i = 0; i < n; i++) {
        FUZZ_REQUIRE(ext[i].offset_bytes == at && ext[i].length_bytes);
        at += ext[i].length_bytes;
        FUZZ_REQUIRE(at <= capacity * 512);
    }
    if (n < 1)
        return;
    left = remote_clip_extents(ext, (unsigned)n, from, bytes);
    FUZZ_REQUIRE(left <= (unsigned)n);
    for (unsigned i = 0; i < left; i++)
        FUZZ_REQUIRE(ext[i].offset_bytes >= from &&
                     ext[i].offset_bytes + ext[i].length_bytes <= from + bytes);
}

static void designator(struct fuzz_bytes *in)
{
    uint8_t id[LUN_DESIGNATOR_BYTES];

    lun_designator(in->pos, fuzz_left(in), id);
}

static void report_luns(struct fuzz_bytes *in)
{
    uint16_t luns[MAX_LUNS];
    int n = report_luns_decode(in->pos, fuzz_left(in), luns, MAX_LUNS);

    FUZZ_REQUIRE(n <= MAX_LUNS);
    for (int i = 1; i < n; i++)
        FUZZ_REQUIRE(luns[i] > luns[i - 1]);
}

static void join(struct fuzz_bytes *in)
{
    struct found_chain c = {.luns = calloc(MAX_LUNS, sizeof(struct found_lun))};
    struct error err = ERROR_INIT;
    int ret;

    FUZZ_REQUIRE(c.luns);
    while (c.nr_luns < MAX_LUNS && fuzz_left(in)) {
        struct found_lun *l = &c.luns[c.nr_luns];
        size_t len = fuzz_u8(in), got;
        const uint8_t *page = fuzz_take(in, len, &got);

        l->number = (uint16_t)c.nr_luns++;
        l->is_disk = true;
        l->size_bytes = 1 << 20;
        l->has_cowl = !cowl_page_decode(page, got, &l->cowl);
    }
    ret = found_chain_check(&c, &err);
    FUZZ_REQUIRE((ret == 0) == (err.msg[0] == '\0'));
    err.msg[0] = '\0';
    ret = found_chain_pick(&c, -1, &err);
    FUZZ_REQUIRE(ret < (int)c.nr_luns && (ret >= 0) == (err.msg[0] == '\0'));
    found_chain_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const takers[])(struct fuzz_bytes *) = {layer_page, layer_status, lba_status,
                                                          designator, report_luns,  join};
    uint8_t *copy;
    struct fuzz_bytes in;

    if (!size)
        return 0;
    copy = fuzz_exact(data + 1, size - 1);
    in = (struct fuzz_bytes){copy, copy + size - 1};
    takers[data[0] % ARRAY_LEN(takers)](&in);
    free(copy);
    return 0;
}
