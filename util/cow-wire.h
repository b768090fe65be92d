/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The COW layer extension's bytes (docs/cow-layer-extension.md): VPD page D5h and
 * GET LAYER STATUS (operation code C5h, service action 00h). Pure: bytes in, numbers
 * out, no I/O. The target encodes, a pulling daemon decodes and believes nothing.
 */
#ifndef COWTGT_UTIL_COW_WIRE_H
#define COWTGT_UTIL_COW_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/uuid.h"

#define COWL_VPD_PAGE          0xd5
#define COWL_OPCODE            0xc5
#define COWL_SA_LAYER_STATUS   0x00
#define COWL_VPD_MAX_BYTES     (82 + 255)
#define COWL_NAME_MAX          255
#define COWL_STATUS_HDR_BYTES  16
#define COWL_STATUS_DESC_BYTES 16
#define COWL_NO_DEPTH          0xffff

enum cowl_flags {
    COWL_READ_ONLY = 1 << 0,
    COWL_TOP = 1 << 1,
    COWL_BASE = 1 << 2,
    COWL_SEALED = 1 << 4,
    COWL_PARENT_REMOTE = 1 << 5,
    COWL_STREAMING = 1 << 6,
};

enum cowl_view { COWL_VIEW_FLAT = 0, COWL_VIEW_DELTA = 1, COWL_VIEW_IMAGE = 2 };

/* What page D5h says of one LUN. */
struct cowl_page {
    uint8_t flags;
    uint16_t layer_index; /* 0 = base */
    uint16_t nr_layers;
    uint8_t view;                                    /* enum cowl_view */
    struct uuid chain_uuid, layer_uuid, parent_uuid; /* parent all zeros for a base */
    uint8_t parent_lun[8];                           /* SAM form; all FFh: not exported here */
    uint32_t granularity_blocks;
    uint32_t generation;
    char name[COWL_NAME_MAX + 1]; /* UTF-8, NUL-terminated */
};

/* Writes the whole page into @buf (COWL_VPD_MAX_BYTES); returns its length. */
size_t cowl_page_encode(const struct cowl_page *pg, uint8_t device_type, uint8_t *buf);
/* 0, or -EINVAL if page code, length, signature, version or name length do not hold. */
int cowl_page_decode(const uint8_t *buf, size_t len, struct cowl_page *pg);

enum cowl_state { COWL_DATA = 0, COWL_ZERO = 1, COWL_UNDECIDED = 2, COWL_COMPRESSED = 3 };

struct cowl_extent {
    uint64_t lba;
    uint32_t blocks; /* at least 1 */
    uint8_t state;   /* enum cowl_state */
    uint16_t depth;  /* 0 = this LUN's layer; COWL_NO_DEPTH with COWL_UNDECIDED */
};

/* Fills a 16-byte CDB. @deepest: 0 = all layers. */
void cowl_status_cdb(uint8_t cdb[16], uint64_t lba, uint32_t alloc_len, uint8_t deepest);
/* Header and descriptors into @buf; returns the bytes written (fits in 16 + 16 * n). */
size_t cowl_status_encode(uint8_t *buf, uint32_t generation, uint64_t next_lba,
                          const struct cowl_extent *ext, unsigned n);
/*
 * Decodes and checks an answer to a request at @lba of a LUN of @capacity_blocks:
 * descriptors contiguous, ascending, start at @lba, inside the capacity, states known.
 * At most @max extents are stored. Returns their number (0 = nothing usable), or -EINVAL.
 */
int cowl_status_decode(const uint8_t *buf, size_t len, uint64_t lba, uint64_t capacity_blocks,
                       uint32_t *generation, uint64_t *next_lba, struct cowl_extent *ext,
                       unsigned max);

#endif
