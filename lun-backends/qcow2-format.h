/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * qcow2 on-disk structures as pure functions: bytes in, numbers out, no I/O and no state.
 * Nothing here trusts the bytes: what does not hold is reported, never followed.
 * Section names in comments are those of QEMU's docs/interop/qcow2.txt.
 */
#ifndef COWTGT_QCOW2_FORMAT_H
#define COWTGT_QCOW2_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/error.h"

#define QCOW2_MAGIC            0x514649fbu
#define QCOW2_V2_HEADER_BYTES  72
#define QCOW2_V3_HEADER_BYTES  104
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_EXT_MIN_BITS     14 /* with extended L2 entries */
#define QCOW2_MAX_L1_BYTES     (32u << 20)
#define QCOW2_MAX_RT_BYTES     (8u << 20)
#define QCOW2_MAX_BACKING_NAME 1023
#define QCOW2_SECTOR           512u

#define QCOW2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QCOW2_COPIED      (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED  (UINT64_C(1) << 62)
#define QCOW2_ZERO        UINT64_C(1)
#define QCOW2_RT_MASK     UINT64_C(0xfffffffffffffe00)
/* In memory only: a host offset with this bit lies in the external data file, else in the image. */
#define QCOW2_EXTERNAL (UINT64_C(1) << 56)

enum qcow2_incompatible {
    QCOW2_INCOMPAT_DIRTY = 1 << 0,
    QCOW2_INCOMPAT_CORRUPT = 1 << 1,
    QCOW2_INCOMPAT_DATA_FILE = 1 << 2,
    QCOW2_INCOMPAT_COMPRESSION = 1 << 3,
    QCOW2_INCOMPAT_EXTENDED_L2 = 1 << 4,
};

enum qcow2_autoclear {
    QCOW2_AUTOCLEAR_BITMAPS = 1 << 0,
    QCOW2_AUTOCLEAR_RAW_DATA = 1 << 1, /* the data file is the disk, without this metadata */
};

enum qcow2_extension {
    QCOW2_EXT_END = 0,
    QCOW2_EXT_BACKING_FORMAT = 0xe2792aca,
    QCOW2_EXT_FEATURE_NAMES = 0x6803f857,
    QCOW2_EXT_BITMAPS = 0x23852875,
    QCOW2_EXT_CRYPTO = 0x0537be77,
    QCOW2_EXT_DATA_FILE = 0x44415441,
};

/* Byte positions of header fields that are rewritten in place. */
enum qcow2_header_pos {
    QCOW2_POS_BACKING_OFFSET = 8,
    QCOW2_POS_BACKING_BYTES = 16,
    QCOW2_POS_SIZE = 24,
    QCOW2_POS_L1_ENTRIES = 36,
    QCOW2_POS_L1_OFFSET = 40,
    QCOW2_POS_RT_OFFSET = 48,
    QCOW2_POS_RT_CLUSTERS = 56,
    QCOW2_POS_INCOMPATIBLE = 72,
    QCOW2_POS_AUTOCLEAR = 88,
};

struct qcow2_header {
    uint32_t version;
    uint64_t backing_offset;
    uint32_t backing_bytes;
    uint32_t cluster_bits;
    uint64_t size_bytes;
    uint32_t crypt_method;
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint64_t rt_offset;
    uint32_t rt_clusters;
    uint32_t nr_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order;
    uint32_t header_bytes;
    uint8_t compression; /* 0 zlib, 1 zstd */
};

/* What the layout of tables follows from. */
struct qcow2_geometry {
    uint32_t version;
    bool external;                   /* guest data lies in a file of its own, at guest offsets */
    uint32_t cluster_bits, sub_bits; /* sub_bits == cluster_bits without extended L2 */
    uint32_t subs;                   /* subclusters in a cluster: 1 or 32 */
    uint32_t entry_bytes;            /* of an L2 entry: 8 or 16 */
    uint32_t l2_bits;                /* log2 of the entries of an L2 table */
    uint32_t slice_bytes;            /* unit in which tables are cached and written */
    uint32_t slice_span_bits;        /* log2 of the guest bytes that one L2 slice maps */
    uint32_t refcount_order;
    uint32_t ref_slice_bits; /* log2 of the refcounts in a slice */
    uint32_t ref_block_bits; /* log2 of the refcounts in a refcount block */
};

/* One L2 entry. Without extended L2 a cluster is its only subcluster: bit 0 of the masks. */
struct qcow2_entry {
    uint64_t host;       /* of a standard cluster, 0: none; may have QCOW2_EXTERNAL */
    uint64_t descriptor; /* of a compressed cluster */
    uint32_t alloc, zero;
    bool copied, compressed;
};

/* Fixed fields; checks all that can be checked without knowing the file. -EINVAL, -ENOTSUP. */
int qcow2_header_decode(const uint8_t *buf, size_t len, struct qcow2_header *h, struct error *err);
/* Tables inside a file of @file_bytes, L1 large enough for the disk. */
int qcow2_header_check_file(const struct qcow2_header *h, uint64_t file_bytes, struct error *err);
/* Refuses what cannot be served; @ext: the extension area, for the names of unknown features. */
int qcow2_header_check_features(const struct qcow2_header *h, bool writable, const uint8_t *ext,
                                size_t ext_len, struct error *err);
/* Writes header_bytes (72, or 104..112) bytes. */
void qcow2_header_encode(const struct qcow2_header *h, uint8_t *buf);

/* Steps through header extensions: 1 and one of them, 0 at the end, -EINVAL. @pos starts at 0. */
struct qcow2_ext_item {
    uint32_t type, len;
    const uint8_t *data;
};
int qcow2_ext_next(const uint8_t *buf, size_t len, size_t *pos, struct qcow2_ext_item *item);
/* Appends one; returns the new end, or 0 if it does not fit into @max. */
size_t qcow2_ext_put(uint8_t *buf, size_t pos, size_t max, uint32_t type, const void *data,
                     uint32_t len);
/* Name of a feature bit (@type 0 incompatible, 1 compatible, 2 autoclear); "bit N" if unnamed. */
void qcow2_feature_name(const uint8_t *ext, size_t ext_len, unsigned type, unsigned bit,
                        char name[48]);

void qcow2_geometry_init(struct qcow2_geometry *g, const struct qcow2_header *h);
/* L1 entries for a disk of @size_bytes. */
uint64_t qcow2_l1_entries(const struct qcow2_geometry *g, uint64_t size_bytes);

/* false: the entry contradicts the format (unaligned, reserved combination). */
bool qcow2_entry_decode(const struct qcow2_geometry *g, const uint8_t *raw, struct qcow2_entry *e);
void qcow2_entry_encode(const struct qcow2_geometry *g, uint8_t *raw, const struct qcow2_entry *e);
/* Where the data of a compressed cluster lies: byte offset and length in the file. */
void qcow2_compressed_range(const struct qcow2_geometry *g, uint64_t descriptor, uint64_t *offset,
                            uint32_t *bytes);

uint64_t qcow2_refcount_get(const uint8_t *block, unsigned order, uint32_t index);
void qcow2_refcount_set(uint8_t *block, unsigned order, uint32_t index, uint64_t value);

static inline uint64_t qcow2_cluster_bytes(const struct qcow2_geometry *g)
{
    return UINT64_C(1) << g->cluster_bits;
}

static inline uint64_t qcow2_sub_bytes(const struct qcow2_geometry *g)
{
    return UINT64_C(1) << g->sub_bits;
}

/* Bits first..last of a subcluster mask. */
static inline uint32_t qcow2_sub_mask(unsigned first, unsigned last)
{
    return (UINT32_MAX >> (31 - (last - first))) << first;
}

#endif
