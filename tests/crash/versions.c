/* SPDX-License-Identifier: BSD-3-Clause */
/* Which versions a sector may have: see versions.h. */
#include "tests/crash/versions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lun-backends/block.h"
#include "tests/crash/rnd.h"
#include "util/size.h"

#define SECTOR_BYTES 512u
#define WORDS        (SECTOR_BYTES / 8)

static void *grow(void *mem, size_t *max, size_t nr, size_t size)
{
    if (nr < *max)
        return mem;
    *max = *max ? *max * 2 : 64;
    mem = realloc(mem, *max * size);
    if (!mem) {
        fputs("out of memory\n", stderr);
        exit(2);
    }
    return mem;
}

void versions_init(struct versions *v, uint64_t nr_sectors)
{
    *v = (struct versions){.nr_sectors = nr_sectors, .next = VERSION_FIRST};
    v->sector = calloc(nr_sectors, sizeof(*v->sector));
    if (!v->sector) {
        fputs("out of memory\n", stderr);
        exit(2);
    }
}

void versions_free(struct versions *v)
{
    for (uint64_t i = 0; i < v->nr_sectors; i++)
        free(v->sector[i].ops);
    free(v->sector);
    free(v->ops);
    free(v->flushes);
    free(v->atomics);
}

uint32_t versions_add_op(struct versions *v, uint32_t version, uint64_t start, uint64_t end,
                         bool fua)
{
    v->ops = grow(v->ops, &v->max_ops, v->nr_ops, sizeof(*v->ops));
    v->ops[v->nr_ops] = (struct version_op){
        .version = version,
        .start = start,
        .end = end,
        .durable = fua ? end : UINT64_MAX,
    };
    return (uint32_t)v->nr_ops++;
}

void versions_add_sector(struct versions *v, uint64_t sector, uint32_t op)
{
    struct version_sector *s = &v->sector[sector];
    size_t max = s->max;

    s->ops = grow(s->ops, &max, s->nr, sizeof(*s->ops));
    s->max = (uint32_t)max;
    s->ops[s->nr++] = op;
}

void versions_add_flush(struct versions *v, uint64_t start, uint64_t end)
{
    v->flushes = grow(v->flushes, &v->max_flushes, v->nr_flushes, sizeof(*v->flushes));
    v->flushes[v->nr_flushes++] = (struct version_flush){start, end};
}

void versions_add_atomic(struct versions *v, uint32_t op, uint64_t sector, uint64_t sectors)
{
    v->atomics = grow(v->atomics, &v->max_atomics, v->nr_atomics, sizeof(*v->atomics));
    v->atomics[v->nr_atomics++] = (struct version_atomic){op, sector, sectors};
}

enum age { AGE_OLDER, AGE_SAME, AGE_NEWER };

/* What was found in a sector, against the op @op that is one of its own. */
static enum age age_of(const struct versions *v, uint64_t sector, uint32_t op, uint64_t moment,
                       uint32_t found)
{
    const struct version_sector *s = &v->sector[sector];
    uint32_t i = s->nr;

    while (i-- > 0 && s->ops[i] != op) {
        if (v->ops[s->ops[i]].start < moment && v->ops[s->ops[i]].version == found)
            return AGE_NEWER;
    }
    return found == v->ops[op].version ? AGE_SAME : AGE_OLDER;
}

bool versions_atomic_ok(const struct versions *v, const uint8_t *disk, uint64_t nr_sectors,
                        uint64_t moment, uint64_t *torn)
{
    for (size_t i = 0; i < v->nr_atomics; i++) {
        const struct version_atomic *a = &v->atomics[i];
        bool seen[AGE_NEWER + 1] = {false};

        for (uint64_t s = a->sector; s < a->sector + a->sectors && s < nr_sectors; s++)
            seen[age_of(v, s, a->op, moment, version_of(disk + s * SECTOR_BYTES, s))] = true;
        *torn = a->sector;
        if (seen[AGE_OLDER] && seen[AGE_SAME])
            return false;
    }
    return true;
}

void versions_work_out(struct versions *v)
{
    for (size_t i = 0; i < v->nr_ops; i++)
        for (size_t j = 0; j < v->nr_flushes; j++)
            if (v->flushes[j].start > v->ops[i].end)
                v->ops[i].durable = MIN_OF(v->ops[i].durable, v->flushes[j].end);
}

uint32_t versions_now(const struct versions *v, uint64_t sector)
{
    const struct version_sector *s = &v->sector[sector];

    return s->nr ? v->ops[s->ops[s->nr - 1]].version : s->initial;
}

bool versions_may_be(const struct versions *v, uint64_t sector, uint64_t moment, uint32_t version)
{
    const struct version_sector *s = &v->sector[sector];

    for (uint32_t i = s->nr; i-- > 0;) {
        const struct version_op *op = &v->ops[s->ops[i]];

        if (op->start >= moment)
            continue;
        if (op->version == version)
            return true;
        if (op->durable < moment)
            return false;
    }
    return s->initial == version;
}

void versions_restart(struct versions *v, const uint8_t *disk, uint64_t sectors)
{
    for (uint64_t i = 0; i < v->nr_sectors; i++) {
        v->sector[i].nr = 0;
        v->sector[i].initial = i < sectors ? version_of(disk + i * SECTOR_BYTES, i) : VERSION_ZERO;
    }
    v->nr_ops = v->nr_flushes = v->nr_atomics = 0;
}

/* ---- sectors -------------------------------------------------------------------------- */

static void fill_one(uint64_t *words, uint32_t version, uint64_t sector)
{
    uint64_t first = (uint64_t)version << 32 | sector, x = rnd_mix(first);

    words[0] = first;
    for (unsigned i = 1; i < WORDS; i++)
        words[i] = x + i; /* compressible */
}

void version_fill(uint8_t *buf, uint32_t version, uint64_t sector, uint64_t sectors)
{
    uint64_t words[WORDS];

    if (version == VERSION_ZERO) {
        memset(buf, 0, sectors * SECTOR_BYTES);
        return;
    }
    for (uint64_t i = 0; i < sectors; i++) {
        fill_one(words, version, sector + i);
        memcpy(buf + i * SECTOR_BYTES, words, SECTOR_BYTES);
    }
}

uint32_t version_of(const uint8_t *buf, uint64_t sector)
{
    uint64_t words[WORDS], first;

    memcpy(&first, buf, 8);
    if (!first)
        return buf_is_zero(buf, SECTOR_BYTES) ? VERSION_ZERO : VERSION_OTHER;
    fill_one(words, (uint32_t)(first >> 32), sector);
    return memcmp(buf, words, SECTOR_BYTES) ? VERSION_OTHER : (uint32_t)(first >> 32);
}
