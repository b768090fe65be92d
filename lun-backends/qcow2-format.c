/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * qcow2 headers, table entries and refcounts: encoding, decoding and every check that needs no
 * I/O. Invariant: a decoded header or entry that was accepted can be used for arithmetic without
 * overflow; whether it points into the file is checked where the file is known.
 */
#include "lun-backends/qcow2-format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include "util/byteorder.h"
#include "util/size.h"

#define SLICE_MAX_BYTES 4096u
#define FEATURE_BYTES   48

static int decode_v3_fields(const uint8_t *buf, size_t len, struct qcow2_header *h,
                            struct error *err)
{
    if (len < QCOW2_V3_HEADER_BYTES)
        return error_set(err, EINVAL, "the qcow2 header is cut off");
    h->incompatible = get_be64(buf + 72);
    h->compatible = get_be64(buf + 80);
    h->autoclear = get_be64(buf + QCOW2_POS_AUTOCLEAR);
    h->refcount_order = get_be32(buf + 96);
    h->header_bytes = get_be32(buf + 100);
    if (h->header_bytes < QCOW2_V3_HEADER_BYTES || h->header_bytes % 8 ||
        h->header_bytes > (UINT32_C(1) << h->cluster_bits))
        return error_set(err, EINVAL, "bad qcow2 header length %" PRIu32, h->header_bytes);
    if (h->header_bytes > QCOW2_V3_HEADER_BYTES) {
        if (len <= QCOW2_V3_HEADER_BYTES)
            return error_set(err, EINVAL, "the qcow2 header is cut off");
        h->compression = buf[104];
    }
    if (h->refcount_order > 6)
        return error_set(err, EINVAL, "bad refcount width (order %" PRIu32 ")", h->refcount_order);
    return 0;
}

static int check_backing_name(const struct qcow2_header *h, struct error *err)
{
    uint64_t cluster = UINT64_C(1) << h->cluster_bits;

    if (!h->backing_offset)
        return 0;
    if (h->backing_bytes > QCOW2_MAX_BACKING_NAME)
        return error_set(err, EINVAL, "the backing file name is too long (%" PRIu32 " bytes)",
                         h->backing_bytes);
    if (h->backing_offset < h->header_bytes || h->backing_offset > cluster ||
        h->backing_bytes > cluster - h->backing_offset)
        return error_set(err, EINVAL, "the backing file name lies outside the first cluster");
    return 0;
}

int qcow2_header_decode(const uint8_t *buf, size_t len, struct qcow2_header *h, struct error *err)
{
    int ret;

    memset(h, 0, sizeof(*h));
    if (len < QCOW2_V2_HEADER_BYTES)
        return error_set(err, EINVAL, "the qcow2 header is cut off");
    if (get_be32(buf) != QCOW2_MAGIC)
        return error_set(err, EINVAL, "not a qcow2 image");
    h->version = get_be32(buf + 4);
    if (h->version != 2 && h->version != 3)
        return error_set(err, ENOTSUP, "qcow version %" PRIu32 " is not supported", h->version);
    h->backing_offset = get_be64(buf + QCOW2_POS_BACKING_OFFSET);
    h->backing_bytes = get_be32(buf + QCOW2_POS_BACKING_BYTES);
    h->cluster_bits = get_be32(buf + 20);
    h->size_bytes = get_be64(buf + QCOW2_POS_SIZE);
    h->crypt_method = get_be32(buf + 32);
    h->l1_entries = get_be32(buf + QCOW2_POS_L1_ENTRIES);
    h->l1_offset = get_be64(buf + QCOW2_POS_L1_OFFSET);
    h->rt_offset = get_be64(buf + QCOW2_POS_RT_OFFSET);
    h->rt_clusters = get_be32(buf + QCOW2_POS_RT_CLUSTERS);
    h->nr_snapshots = get_be32(buf + 60);
    h->snapshots_offset = get_be64(buf + 64);
    h->refcount_order = 4;
    h->header_bytes = QCOW2_V2_HEADER_BYTES;
    if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
        return error_set(err, EINVAL, "bad cluster size (2^%" PRIu32 " bytes)", h->cluster_bits);
    if (h->version == 3) {
        ret = decode_v3_fields(buf, len, h, err);
        if (ret)
            return ret;
    }
    if ((h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2) && h->cluster_bits < QCOW2_EXT_MIN_BITS)
        return error_set(err, EINVAL, "clusters are too small for extended L2 entries");
    if (h->size_bytes > (UINT64_C(1) << 61))
        return error_set(err, EINVAL, "absurd virtual size %" PRIu64, h->size_bytes);
    return check_backing_name(h, err);
}

static int check_table(const char *what, uint64_t offset, uint64_t bytes, uint64_t max_bytes,
                       uint64_t cluster, uint64_t file_bytes, struct error *err)
{
    uint64_t end = round_up_pow2(file_bytes, cluster);

    if (bytes > max_bytes)
        return error_set(err, EINVAL, "the %s is too large (%" PRIu64 " bytes)", what, bytes);
    if (offset % cluster || (bytes && !offset))
        return error_set(err, EINVAL, "the %s is misplaced (offset %" PRIu64 ")", what, offset);
    if (offset > end || bytes > end - offset)
        return error_set(err, EINVAL, "the %s lies outside the file", what);
    return 0;
}

int qcow2_header_check_file(const struct qcow2_header *h, uint64_t file_bytes, struct error *err)
{
    uint64_t cluster = UINT64_C(1) << h->cluster_bits;
    struct qcow2_geometry g;
    int ret;

    qcow2_geometry_init(&g, h);
    ret = check_table("L1 table", h->l1_offset, (uint64_t)h->l1_entries * 8, QCOW2_MAX_L1_BYTES,
                      cluster, file_bytes, err);
    if (!ret)
        ret = check_table("refcount table", h->rt_offset, h->rt_clusters * cluster,
                          MAX_OF(QCOW2_MAX_RT_BYTES, cluster), cluster, file_bytes, err);
    if (!ret && !h->rt_clusters)
        ret = error_set(err, EINVAL, "the image has no refcount table");
    if (!ret && qcow2_l1_entries(&g, h->size_bytes) > h->l1_entries)
        ret = error_set(err, EINVAL, "the L1 table is too small for the virtual size");
    return ret;
}

int qcow2_header_check_features(const struct qcow2_header *h, bool writable, const uint8_t *ext,
                                size_t ext_len, struct error *err)
{
    const uint64_t known = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT |
                           QCOW2_INCOMPAT_DATA_FILE | QCOW2_INCOMPAT_COMPRESSION |
                           QCOW2_INCOMPAT_EXTENDED_L2;
    char name[48];

    if (h->crypt_method)
        return error_set(err, ENOTSUP, "encrypted images (%s) are not supported",
                         h->crypt_method == 1   ? "AES"
                         : h->crypt_method == 2 ? "LUKS"
                                                : "unknown");
    if (h->incompatible & ~known) {
        qcow2_feature_name(ext, ext_len, 0, (unsigned)__builtin_ctzll(h->incompatible & ~known),
                           name);
        return error_set(err, ENOTSUP, "the image uses an unknown incompatible feature (%s)", name);
    }
    if (!(h->incompatible & QCOW2_INCOMPAT_COMPRESSION) != !h->compression)
        return error_set(err, EINVAL, "compression type %u contradicts the feature bit",
                         h->compression);
    if (h->compression > 1)
        return error_set(err, ENOTSUP, "compression type %u is not supported", h->compression);
    if (writable && (h->incompatible & QCOW2_INCOMPAT_CORRUPT))
        return error_set(err, ENOTSUP,
                         "the image is marked corrupt and can't be opened writable; "
                         "run qemu-img check -r all");
    if ((h->incompatible & QCOW2_INCOMPAT_DATA_FILE) && h->nr_snapshots)
        return error_set(err, EINVAL, "internal snapshots contradict the external data file");
    return 0;
}

void qcow2_header_encode(const struct qcow2_header *h, uint8_t *buf)
{
    memset(buf, 0, h->header_bytes);
    put_be32(buf, QCOW2_MAGIC);
    put_be32(buf + 4, h->version);
    put_be64(buf + QCOW2_POS_BACKING_OFFSET, h->backing_offset);
    put_be32(buf + QCOW2_POS_BACKING_BYTES, h->backing_bytes);
    put_be32(buf + 20, h->cluster_bits);
    put_be64(buf + QCOW2_POS_SIZE, h->size_bytes);
    put_be32(buf + 32, h->crypt_method);
    put_be32(buf + QCOW2_POS_L1_ENTRIES, h->l1_entries);
    put_be64(buf + QCOW2_POS_L1_OFFSET, h->l1_offset);
    put_be64(buf + QCOW2_POS_RT_OFFSET, h->rt_offset);
    put_be32(buf + QCOW2_POS_RT_CLUSTERS, h->rt_clusters);
    put_be32(buf + 60, h->nr_snapshots);
    put_be64(buf + 64, h->snapshots_offset);
    if (h->version < 3)
        return;
    put_be64(buf + 72, h->incompatible);
    put_be64(buf + 80, h->compatible);
    put_be64(buf + QCOW2_POS_AUTOCLEAR, h->autoclear);
    put_be32(buf + 96, h->refcount_order);
    put_be32(buf + 100, h->header_bytes);
    if (h->header_bytes > QCOW2_V3_HEADER_BYTES)
        buf[104] = h->compression;
}

int qcow2_ext_next(const uint8_t *buf, size_t len, size_t *pos, struct qcow2_ext_item *item)
{
    size_t left = len - *pos;

    if (left < 8)
        return 0;
    item->type = get_be32(buf + *pos);
    item->len = get_be32(buf + *pos + 4);
    item->data = buf + *pos + 8;
    if (item->type == QCOW2_EXT_END)
        return 0;
    if (item->len > left - 8)
        return -EINVAL;
    *pos += 8 + MIN_OF(round_up_pow2(item->len, 8), left - 8);
    return 1;
}

size_t qcow2_ext_put(uint8_t *buf, size_t pos, size_t max, uint32_t type, const void *data,
                     uint32_t len)
{
    size_t padded = round_up_pow2(len, 8);

    if (pos > max || max - pos < 8 + padded)
        return 0;
    put_be32(buf + pos, type);
    put_be32(buf + pos + 4, len);
    memset(buf + pos + 8, 0, padded);
    if (len)
        memcpy(buf + pos + 8, data, len);
    return pos + 8 + padded;
}

void qcow2_feature_name(const uint8_t *ext, size_t ext_len, unsigned type, unsigned bit,
                        char name[48])
{
    struct qcow2_ext_item item;
    size_t pos = 0;

    snprintf(name, 48, "bit %u", bit);
    while (ext && qcow2_ext_next(ext, ext_len, &pos, &item) == 1) {
        if (item.type != QCOW2_EXT_FEATURE_NAMES)
            continue;
        for (uint32_t i = 0; i + FEATURE_BYTES <= item.len; i += FEATURE_BYTES) {
            const uint8_t *f = item.data + i;

            if (f[0] != type || f[1] != bit || !f[2])
                continue;
            memcpy(name, f + 2, FEATURE_BYTES - 2);
            name[FEATURE_BYTES - 2] = '\0';
            for (char *c = name; *c; c++)
                *c = *c >= ' ' && *c <= '~' ? *c : '?';
            return;
        }
    }
}

void qcow2_geometry_init(struct qcow2_geometry *g, const struct qcow2_header *h)
{
    bool ext = h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
    uint32_t slice_bits;

    memset(g, 0, sizeof(*g));
    g->version = h->version;
    g->external = h->incompatible & QCOW2_INCOMPAT_DATA_FILE;
    g->cluster_bits = h->cluster_bits;
    g->subs = ext ? 32 : 1;
    g->sub_bits = h->cluster_bits - (ext ? 5 : 0);
    g->entry_bytes = ext ? 16 : 8;
    g->l2_bits = h->cluster_bits - (ext ? 4 : 3);
    g->slice_bytes = MIN_OF(SLICE_MAX_BYTES, UINT32_C(1) << h->cluster_bits);
    slice_bits = (uint32_t)__builtin_ctz(g->slice_bytes);
    g->slice_span_bits = h->cluster_bits + slice_bits - (ext ? 4 : 3);
    g->refcount_order = h->refcount_order;
    g->ref_slice_bits = slice_bits + 3 - h->refcount_order;
    g->ref_block_bits = h->cluster_bits + 3 - h->refcount_order;
}

uint64_t qcow2_l1_entries(const struct qcow2_geometry *g, uint64_t size_bytes)
{
    uint32_t span_bits = g->cluster_bits + g->l2_bits;

    return (size_bytes >> span_bits) + !!(size_bytes & ((UINT64_C(1) << span_bits) - 1));
}

static bool decode_extended(const uint8_t *raw, struct qcow2_entry *e)
{
    uint64_t bitmap = get_be64(raw + 8);

    e->alloc = (uint32_t)bitmap;
    e->zero = (uint32_t)(bitmap >> 32);
    return !(e->alloc & e->zero) && !(e->alloc && !e->host);
}

bool qcow2_entry_decode(const struct qcow2_geometry *g, const uint8_t *raw, struct qcow2_entry *e)
{
    uint64_t v = get_be64(raw);

    *e = (struct qcow2_entry){0};
    if (v & QCOW2_COMPRESSED) {
        e->compressed = true;
        e->descriptor = v & (QCOW2_COMPRESSED - 1);
        return !(v & QCOW2_COPIED) && !g->external;
    }
    e->host = v & QCOW2_OFFSET_MASK;
    e->copied = v & QCOW2_COPIED;
    if (g->external && !e->host && (v & QCOW2_ZERO))
        e->copied = false; /* without a place, as QEMU reads it */
    if (g->external && (e->host || e->copied)) {
        e->host |= QCOW2_EXTERNAL; /* there offset 0 is a place like any other */
        e->copied = true;
    }
    if ((e->host & (qcow2_cluster_bytes(g) - 1)) || (e->copied && !e->host))
        return false;
    if (g->subs > 1)
        return !(v & QCOW2_ZERO) && decode_extended(raw, e);
    if (v & QCOW2_ZERO)
        e->zero = 1;
    else
        e->alloc = e->host != 0;
    return !(e->zero && g->version < 3);
}

void qcow2_entry_encode(const struct qcow2_geometry *g, uint8_t *raw, const struct qcow2_entry *e)
{
    uint64_t v = QCOW2_COMPRESSED | e->descriptor;

    if (!e->compressed)
        v = (e->host & ~QCOW2_EXTERNAL) | (e->host && e->copied ? QCOW2_COPIED : 0);
    if (g->subs > 1)
        put_be64(raw + 8, e->compressed ? 0 : (uint64_t)e->zero << 32 | e->alloc);
    else if (e->zero)
        v |= QCOW2_ZERO;
    put_be64(raw, v);
}

/* Compressed Clusters Descriptor: x = 62 - (cluster_bits - 8) */
void qcow2_compressed_range(const struct qcow2_geometry *g, uint64_t descriptor, uint64_t *offset,
                            uint32_t *bytes)
{
    unsigned x = 62 - (g->cluster_bits - 8);
    uint32_t sectors = (uint32_t)(descriptor >> x) + 1;

    *offset = descriptor & ((UINT64_C(1) << x) - 1);
    *bytes = sectors * QCOW2_SECTOR - (uint32_t)(*offset % QCOW2_SECTOR);
}

uint64_t qcow2_refcount_get(const uint8_t *block, unsigned order, uint32_t index)
{
    uint32_t bit = index << order;

    switch (order) {
    case 3:
        return block[index];
    case 4:
        return get_be16(block + (size_t)index * 2);
    case 5:
        return get_be32(block + (size_t)index * 4);
    case 6:
        return get_be64(block + (size_t)index * 8);
    default:
        return block[bit / 8] >> (bit % 8) & ((1u << (1u << order)) - 1);
    }
}

void qcow2_refcount_set(uint8_t *block, unsigned order, uint32_t index, uint64_t value)
{
    uint32_t bit = index << order;
    unsigned mask;

    switch (order) {
    case 3:
        block[index] = (uint8_t)value;
        break;
    case 4:
        put_be16(block + (size_t)index * 2, (uint16_t)value);
        break;
    case 5:
        put_be32(block + (size_t)index * 4, (uint32_t)value);
        break;
    case 6:
        put_be64(block + (size_t)index * 8, value);
        break;
    default:
        mask = ((1u << (1u << order)) - 1) << (bit % 8);
        block[bit / 8] = (uint8_t)((block[bit / 8] & ~mask) | (unsigned)value << (bit % 8));
    }
}
