/* SPDX-License-Identifier: BSD-3-Clause */
/* The model of a disk under random writes; see model.h for its rules. */
#include "tests/tools/model.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL_MAGIC 0x636f77746d6f6431ull

struct stamp { /* first bytes of a written block; pseudo-random words follow */
    uint64_t magic, seed, lba;
    uint32_t gen, spare;
};

struct file_header {
    uint64_t magic, seed, nr_blocks;
    uint32_t next_gen, spare;
};

static void die(const char *path)
{
    fprintf(stderr, "model: %s: %s\n", path, errno ? strerror(errno) : "damaged");
    exit(1);
}

void model_init(struct model *m, uint64_t seed, uint64_t nr_blocks)
{
    *m = (struct model){.seed = seed, .nr_blocks = nr_blocks, .next_gen = 1, .base_fd = -1};
    m->blocks = calloc(nr_blocks, sizeof(*m->blocks));
    if (!m->blocks)
        die("memory");
    for (uint64_t i = 0; i < nr_blocks; i++)
        m->blocks[i] = (struct model_block){.nr_cand = 1, .known = true};
}

void model_open_base(struct model *m, const char *path)
{
    m->base_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (m->base_fd < 0)
        die(path);
}

void model_load(struct model *m, const char *path)
{
    struct file_header h;
    FILE *f = fopen(path, "rb");

    if (!f)
        die(path);
    errno = 0;
    if (fread(&h, sizeof(h), 1, f) != 1 || h.magic != MODEL_MAGIC)
        die(path);
    model_init(m, h.seed, h.nr_blocks);
    m->next_gen = h.next_gen;
    if (fread(m->blocks, sizeof(*m->blocks), m->nr_blocks, f) != m->nr_blocks)
        die(path);
    fclose(f);
    for (uint64_t i = 0; i < m->nr_blocks; i++)
        m->blocks[i].busy = false;
}

void model_save(const struct model *m, const char *path)
{
    struct file_header h = {MODEL_MAGIC, m->seed, m->nr_blocks, m->next_gen, 0};
    FILE *f = fopen(path, "wb");

    if (!f)
        die(path);
    if (fwrite(&h, sizeof(h), 1, f) != 1 ||
        fwrite(m->blocks, sizeof(*m->blocks), m->nr_blocks, f) != m->nr_blocks || fclose(f) != 0)
        die(path);
}

void model_free(struct model *m)
{
    free(m->blocks);
    if (m->base_fd >= 0)
        close(m->base_fd);
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

void model_fill(const struct model *m, uint64_t lba, uint32_t gen, void *block)
{
    memset(block, 0, MODEL_BLOCK_BYTES);
    if (gen == GEN_ZERO)
        return;
    if (gen == GEN_BASE) {
        /* Beyond the end of the base: zeros. */
        if (m->base_fd >= 0 &&
            pread(m->base_fd, block, MODEL_BLOCK_BYTES, (off_t)(lba * MODEL_BLOCK_BYTES)) < 0)
            die("base image");
        return;
    }
    struct stamp st = {MODEL_MAGIC, m->seed, lba, gen, 0};
    uint64_t words[MODEL_BLOCK_BYTES / 8];
    uint64_t x = mix(m->seed ^ lba * 0x9e3779b97f4a7c15ull ^ ((uint64_t)gen << 40));
    for (size_t i = 0; i < MODEL_BLOCK_BYTES / 8; i++)
        words[i] = mix(x + i);
    memcpy(words, &st, sizeof(st));
    memcpy(block, words, MODEL_BLOCK_BYTES);
}

bool model_can_write(const struct model *m, uint64_t lba, uint32_t nr)
{
    for (uint32_t i = 0; i < nr; i++)
        if (m->blocks[lba + i].busy || m->blocks[lba + i].nr_cand == MODEL_MAX_CAND)
            return false;
    return true;
}

void model_begin(struct model *m, uint64_t lba, uint32_t nr, uint32_t gen)
{
    for (uint32_t i = 0; i < nr; i++) {
        struct model_block *b = &m->blocks[lba + i];
        b->cand[b->nr_cand++] = gen;
        b->busy = true;
        b->known = false;
    }
}

void model_end(struct model *m, uint64_t lba, uint32_t nr, bool acked, bool sure)
{
    for (uint32_t i = 0; i < nr; i++) {
        struct model_block *b = &m->blocks[lba + i];
        b->busy = false;
        b->known = acked && sure;
        b->dirty = false; /* a flush sent before this end says nothing about it */
    }
}

void model_lost(struct model *m)
{
    for (uint64_t i = 0; i < m->nr_blocks; i++) {
        struct model_block *b = &m->blocks[i];
        b->dirty = false;
        if (b->nr_cand > 1)
            b->known = false;
    }
}

void model_stable(struct model *m, uint64_t lba, uint32_t nr)
{
    for (uint32_t i = 0; i < nr; i++) {
        struct model_block *b = &m->blocks[lba + i];
        b->cand[0] = b->cand[b->nr_cand - 1];
        b->nr_cand = 1;
    }
}

void model_flush_sent(struct model *m)
{
    for (uint64_t i = 0; i < m->nr_blocks; i++)
        m->blocks[i].dirty = m->blocks[i].known && m->blocks[i].nr_cand > 1;
}

void model_flush_acked(struct model *m)
{
    for (uint64_t i = 0; i < m->nr_blocks; i++) {
        struct model_block *b = &m->blocks[i];
        if (!b->dirty)
            continue;
        b->dirty = false;
        unsigned stable = b->nr_cand - 1u; /* known when the flush was sent */
        if (b->busy)
            stable--; /* one more write is under way since */
        memmove(b->cand, b->cand + stable, (b->nr_cand - stable) * sizeof(b->cand[0]));
        b->nr_cand = (uint8_t)(b->nr_cand - stable);
    }
}

/* A read told what an unknown block is: what was flushed last, or a later write that survived. */
static void settle(struct model_block *b, unsigned i)
{
    b->known = true;
    if (i > 0)
        b->cand[1] = b->cand[i];
    b->nr_cand = i > 0 ? 2 : 1;
}

static bool check_block(struct model *m, uint64_t lba, const uint8_t *data)
{
    struct model_block *b = &m->blocks[lba];
    uint8_t want[MODEL_BLOCK_BYTES];
    unsigned first = b->known ? b->nr_cand - 1u : 0;

    for (unsigned i = b->nr_cand; i-- > first;) {
        model_fill(m, lba, b->cand[i], want);
        if (memcmp(want, data, MODEL_BLOCK_BYTES) != 0)
            continue;
        if (!b->known)
            settle(b, i);
        return true;
    }
    return false;
}

static void describe(const struct model *m, uint64_t lba, const uint8_t *data, char *why,
                     size_t why_len)
{
    const struct model_block *b = &m->blocks[lba];
    struct stamp st;
    char cands[128] = "", got[128];
    size_t used = 0;

    for (unsigned i = 0; i < b->nr_cand; i++)
        used +=
            (size_t)snprintf(cands + used, sizeof(cands) - used, " %" PRId32, (int32_t)b->cand[i]);
    memcpy(&st, data, sizeof(st));
    if (st.magic == MODEL_MAGIC)
        snprintf(got, sizeof(got), "generation %" PRIu32 " of block %" PRIu64 "%s", st.gen, st.lba,
                 st.seed == m->seed ? "" : ", another seed");
    else
        snprintf(got, sizeof(got), "bytes %02x %02x %02x %02x ...", data[0], data[1], data[2],
                 data[3]);
    snprintf(why, why_len,
             "block %" PRIu64 " (byte %" PRIu64 "): holds %s, may hold%s (%s; -1 zeros)", lba,
             lba * MODEL_BLOCK_BYTES, got, cands, b->known ? "known: the last" : "any");
}

unsigned model_check(struct model *m, uint64_t lba, uint32_t nr, const uint8_t *data, char *why,
                     size_t why_len)
{
    unsigned wrong = 0;

    for (uint32_t i = 0; i < nr; i++) {
        const uint8_t *block = data + (size_t)i * MODEL_BLOCK_BYTES;
        if (check_block(m, lba + i, block))
            continue;
        if (wrong++ == 0)
            describe(m, lba + i, block, why, why_len);
    }
    return wrong;
}
