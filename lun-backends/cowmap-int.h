/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the partial raw image share; nobody else includes this.
 *
 * The map on disk: one header block, then one bit a block of the disk, big-endian 64-bit words,
 * set: local. Bits only ever go from clear to set, and one is written only after a flush that
 * followed its block's data: any mix of old and new sectors of the map is a true map.
 */
#ifndef COWTGT_COWMAP_INT_H
#define COWTGT_COWMAP_INT_H

#include "lun-backends/cowmap.h"
#include "util/coroutine.h"

#define COWMAP_HEADER_BYTES 4096u
#define COWMAP_PAGE_BYTES   4096u
#define COWMAP_PAGE_WORDS   (COWMAP_PAGE_BYTES / 8)
#define COWMAP_PAGE_BITS    (COWMAP_PAGE_BYTES * UINT64_C(8))
#define COWMAP_BACKING_MAX  1024u

struct cowmap_header {
    uint64_t size_bytes;
    uint32_t block_bytes;
    char backing[COWMAP_BACKING_MAX + 1];
};

/* ---- cowmap-format.c: pure -------------------------------------------------------- */
/* The smallest block with which the map of such a disk is at most 32 MiB; 0: too large. */
uint32_t cowmap_choose_block(uint64_t size_bytes);
int cowmap_encode(const struct cowmap_header *h, uint8_t buf[COWMAP_HEADER_BYTES]);
int cowmap_decode(const uint8_t buf[COWMAP_HEADER_BYTES], struct cowmap_header *h,
                  struct error *err);
uint64_t cowmap_nr_blocks(const struct cowmap_header *h);
uint64_t cowmap_nr_pages(const struct cowmap_header *h);

/* One request that decides blocks; ranges of whole blocks never overlap while they run. */
struct cowmap_change {
    struct list_head link; /* in order of arrival */
    uint64_t first, end;   /* blocks */
    struct coroutine *waiting;
};

struct cowmap {
    struct blk_node node;
    struct blk_node *map_file; /* NULL: complete, node.file is all there is */
    char *map_path;            /* of a block device's map; NULL: beside the image */
    char *path;                /* the image's name when it is complete */
    struct cowmap_header *header;
    uint64_t nr_blocks, nr_pages;
    uint64_t *local; /* a bit a block */
    uint64_t *dirty; /* a bit a page of the map: has bits that are not on disk */
    uint64_t nr_dirty;
    int map_error; /* a bit may be lost: no flush succeeds any more */
    bool flushing;
    uint64_t flushes_asked, flushes_done;
    struct co_mutex flush_lock;
    struct list_head changes;
};

static inline struct cowmap *to_cowmap(const struct blk_node *node)
{
    return (struct cowmap *)node;
}

extern const struct blk_driver cowmap_driver;

/* ---- cowmap-map.c ------------------------------------------------------------------- */
int co_cowmap_load(struct cowmap *cm);
void cowmap_set_local(struct cowmap *cm, uint64_t first, uint64_t end);
/* All that was completed before the call is stable after it: data, then the bits that say so. */
int co_cowmap_flush(struct cowmap *cm);
/* True when there is nothing to do for the map in a flush. */
bool cowmap_is_clean(const struct cowmap *cm);
void co_cowmap_lock(struct cowmap *cm, struct cowmap_change *ch, uint64_t first, uint64_t end);
void cowmap_unlock(struct cowmap *cm, struct cowmap_change *ch);

/* ---- cowmap-open.c ------------------------------------------------------------------ */
int co_cowmap_change_backing(struct blk_node *node, const char *name, const char *format,
                             struct error *err);
void co_cowmap_close(struct blk_node *node);

#endif
