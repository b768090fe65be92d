/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a disk may hold, block by block, after the writes a verifying writer has sent.
 *
 * Every write carries a generation; a block's content tells its generation. A block has a list of
 * candidates: cand[0] is what was flushed last, later entries are writes since then, in order.
 * "known" means the last candidate is certainly what a read must show: every write of the block
 * was acknowledged, and no connection was lost since. After a loss any candidate may show up, until
 * a read tells which one it is. A flush acknowledged turns the known content into cand[0].
 */
#ifndef COWTGT_TESTS_MODEL_H
#define COWTGT_TESTS_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_BLOCK_BYTES 512u
#define MODEL_MAX_CAND    6u

#define GEN_BASE 0u          /* what was there before: the base image, zeros without one */
#define GEN_ZERO 0xffffffffu /* zeros */

struct model_block {
    uint32_t cand[MODEL_MAX_CAND];
    uint8_t nr_cand; /* at least 1 */
    bool known;
    bool busy;  /* an operation that changes it is under way */
    bool dirty; /* acknowledged since the last flush was sent */
};

struct model {
    uint64_t seed;
    uint64_t nr_blocks;
    uint32_t next_gen;
    struct model_block *blocks;
    int base_fd; /* -1: zeros */
};

void model_init(struct model *m, uint64_t seed, uint64_t nr_blocks);
/* Both end the process with a message on failure. */
void model_load(struct model *m, const char *path);
void model_save(const struct model *m, const char *path);
void model_open_base(struct model *m, const char *path);
void model_free(struct model *m);

/* The bytes of @lba in generation @gen. */
void model_fill(const struct model *m, uint64_t lba, uint32_t gen, void *block);

/* True if every block can take one more candidate. */
bool model_can_write(const struct model *m, uint64_t lba, uint32_t nr);
/* @sure: the content is certain once acknowledged (UNMAP's is not). */
void model_begin(struct model *m, uint64_t lba, uint32_t nr, uint32_t gen);
void model_end(struct model *m, uint64_t lba, uint32_t nr, bool acked, bool sure);
/* The last write of these blocks, acknowledged, was one with FUA. */
void model_stable(struct model *m, uint64_t lba, uint32_t nr);
/* A connection was lost: what was not flushed may or may not be there. */
void model_lost(struct model *m);
/* Marks what an acknowledgement of a flush sent now would make stable, and does it. */
void model_flush_sent(struct model *m);
void model_flush_acked(struct model *m);

/*
 * Checks blocks as read, none of them being written now; learns what an unknown one is. Returns the
 * number of wrong blocks; the first is described in @why.
 */
unsigned model_check(struct model *m, uint64_t lba, uint32_t nr, const uint8_t *data, char *why,
                     size_t why_len);

#endif
