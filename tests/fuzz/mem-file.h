/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file in memory as a protocol node: sparse, grows when written past its end up to a bound
 * (-ENOSPC from there on), and can be told to fail one request.
 */
#ifndef COWTGT_FUZZ_MEM_FILE_H
#define COWTGT_FUZZ_MEM_FILE_H

#include "lun-backends/file.h"
#include "tests/fuzz/fuzz.h"

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

/* The rest of the input, as pieces: offset (4 bytes), length (2), data. It ends with the last
 * piece if @truncated, else with 2 MiB or a multiple. */
struct mem_file *mem_file_from_pieces(struct fuzz_bytes *in, bool truncated);

/* Takes the place of co_file_open() in all targets (by the linker): whatever an image names, no
 * file of this machine is opened, but an empty one in memory. */
int __wrap_co_file_open(const char *path, const struct file_opts *opts, struct blk_node **node,
                        struct error *err);

#endif
