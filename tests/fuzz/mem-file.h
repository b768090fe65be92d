/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file in memory as a protocol node: sparse, grows when written past its end up to a bound
 * (-ENOSPC from there on), and can be told to fail one request.
 */
#ifndef COWTGT_FUZZ_MEM_FILE_H
#define COWTGT_FUZZ_MEM_FILE_H

#include "lun-backends/block.h"

#define MEM_FILE_MAX_BYTES  (UINT64_C(64) << 20)
#define MEM_FILE_PAGE_BYTES UINT64_C(4096)

struct mem_file {
    struct blk_node node;
    uint8_t *pages[MEM_FILE_MAX_BYTES / MEM_FILE_PAGE_BYTES]; /* NULL: a hole */
    unsigned fail_at; /* counts down; the request that makes it 0 fails; 0: none */
    int fail_with;    /* -errno */
};

struct mem_file *mem_file_new(uint64_t size_bytes);
/* At once, without a request; what lies past the bound is dropped. Grows the file. */
void mem_file_put(struct mem_file *f, uint64_t offset, const void *data, size_t bytes);

#endif
