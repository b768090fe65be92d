/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2 structures as bytes: what is encoded decodes to the same, what is wrong is refused. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/qcow2-format.h"
#include "tests/unit/ctest.h"
#include "util/byteorder.h"

static struct qcow2_header good_header(void)
{
    return (struct qcow2_header){
        .version = 3,
        .cluster_bits = 16,
        .size_bytes = 1 << 30,
        .l1_entries = 2,
        .l1_offset = 3 << 16,
        .rt_offset = 1 << 16,
        .rt_clusters = 1,
        .refcount_order = 4,
        .header_bytes = 112,
    };
}

static struct qcow2_geometry geometry(uint32_t version, uint32_t cluster_bits, bool ext,
                                      uint32_t order)
{
    struct qcow2_header h = {.version = version, .cluster_bits = cluster_bits};
    struct qcow2_geometry g;

    h.incompatible = ext ? QCOW2_INCOMPAT_EXTENDED_L2 : 0;
    h.refcount_order = order;
    qcow2_geometry_init(&g, &h);
    return g;
}

/* Encodes @h, lets @pos be overwritten, decodes and checks against a file of 1 MiB. */
static int decode(const struct qcow2_header *h, size_t pos, uint32_t value)
{
    struct error err = ERROR_INIT;
    struct qcow2_header out;
    uint8_t buf[512] = {0};
    int ret;

    qcow2_header_encode(h, buf);
    if (pos)
        put_be32(buf + pos, value);
    ret = qcow2_header_decode(buf, sizeof(buf), &out, &err);
    return ret ? ret : qcow2_header_check_file(&out, 1 << 20, &err);
}

TEST(qcow2_format, header_survives_encoding)
{
    struct qcow2_header h = good_header(), out;
    struct error err = ERROR_INIT;
    uint8_t buf[512] = {0};

    h.backing_offset = 200;
    h.backing_bytes = 17;
    h.autoclear = 5;
    qcow2_header_encode(&h, buf);
    REQUIRE(!qcow2_header_decode(buf, sizeof(buf), &out, &err));
    CHECK(!memcmp(&h, &out, sizeof(h)));
    CHECK(!qcow2_header_check_file(&out, 1 << 20, &err));
}

TEST(qcow2_format, header_with_absurd_fields_is_refused)
{
    struct qcow2_header h = good_header();

    CHECK_EQ(decode(&h, 0, 0), 0);
    CHECK_EQ(decode(&h, 4, 4), -ENOTSUP); /* version */
    CHECK_EQ(decode(&h, 20, 8), -EINVAL); /* cluster bits */
    CHECK_EQ(decode(&h, 20, 22), -EINVAL);
    CHECK_EQ(decode(&h, 20, UINT32_MAX), -EINVAL);
    CHECK_EQ(decode(&h, 24, 0xffffffff), -EINVAL); /* size */
    CHECK_EQ(decode(&h, 36, 1), -EINVAL);          /* L1 too small for the size */
    CHECK_EQ(decode(&h, 36, 0xffffffff), -EINVAL); /* L1 too large */
    CHECK_EQ(decode(&h, 40, 1), -EINVAL);          /* L1 outside the file */
    CHECK_EQ(decode(&h, 44, 0x30200), -EINVAL);    /* L1 unaligned */
    CHECK_EQ(decode(&h, 52, 0x10001), -EINVAL);    /* refcount table unaligned */
    CHECK_EQ(decode(&h, 56, 0), -EINVAL);          /* no refcount table */
    CHECK_EQ(decode(&h, 56, 0xffffffff), -EINVAL);
    CHECK_EQ(decode(&h, 96, 7), -EINVAL);    /* refcount order */
    CHECK_EQ(decode(&h, 100, 103), -EINVAL); /* header length */
    CHECK_EQ(decode(&h, 100, 0x20000), -EINVAL);
}

TEST(qcow2_format, header_cut_off_anywhere_is_refused)
{
    struct qcow2_header h = good_header(), out;
    struct error err = ERROR_INIT;
    uint8_t buf[512];

    qcow2_header_encode(&h, buf);
    for (size_t len = 0; len < 104; len++)
        CHECK(qcow2_header_decode(buf, len, &out, &err) < 0);
}

TEST(qcow2_format, random_headers_never_pass_with_tables_outside_the_file)
{
    struct error err = ERROR_INIT;
    struct qcow2_header h = good_header(), out;
    uint8_t buf[512];

    srand(1);
    for (int i = 0; i < 20000; i++) {
        memset(buf, 0, sizeof(buf));
        qcow2_header_encode(&h, buf);
        for (int n = 0; n < 4; n++)
            buf[8 + rand() % 104] = (uint8_t)rand();
        if (qcow2_header_decode(buf, sizeof(buf), &out, &err) ||
            qcow2_header_check_file(&out, 1 << 20, &err))
            continue;
        CHECK(out.cluster_bits >= 9 && out.cluster_bits <= 21);
        CHECK(out.l1_offset + out.l1_entries * 8ull <= (1 << 20) + (1u << out.cluster_bits));
    }
}

static int features(uint64_t incompatible, uint8_t compression, uint32_t crypt, bool writable,
                    struct error *err)
{
    struct qcow2_header h = good_header();
    uint8_t ext[128] = {0}, names[48] = {0, 17, 'l', 'u', 'n', 'a', 'r'};

    qcow2_ext_put(ext, 0, sizeof(ext), QCOW2_EXT_FEATURE_NAMES, names, sizeof(names));
    h.incompatible = incompatible;
    h.compression = compression;
    h.crypt_method = crypt;
    return qcow2_header_check_features(&h, writable, ext, sizeof(ext), err);
}

TEST(qcow2_format, features_that_cannot_be_served_are_named)
{
    struct error err = ERROR_INIT;

    CHECK_EQ(features(0, 0, 0, true, &err), 0);
    CHECK_EQ(features(0, 0, 2, false, &err), -ENOTSUP);
    CHECK(strstr(err.msg, "LUKS"));
    CHECK_EQ(features(QCOW2_INCOMPAT_DATA_FILE, 0, 0, true, &err), 0);
    CHECK_EQ(features(1 << 17, 0, 0, false, &err), -ENOTSUP);
    CHECK(strstr(err.msg, "lunar"));
    CHECK_EQ(features(1 << 18, 0, 0, false, &err), -ENOTSUP);
    CHECK(strstr(err.msg, "bit 18"));
    CHECK_EQ(features(QCOW2_INCOMPAT_COMPRESSION, 2, 0, false, &err), -ENOTSUP);
    CHECK_EQ(features(0, 1, 0, false, &err), -EINVAL);
}

TEST(qcow2_format, corrupt_images_open_only_for_reading)
{
    struct error err = ERROR_INIT;

    CHECK_EQ(features(QCOW2_INCOMPAT_DIRTY, 0, 0, false, &err), 0);
    CHECK_EQ(features(QCOW2_INCOMPAT_CORRUPT, 0, 0, false, &err), 0);
    CHECK_EQ(features(QCOW2_INCOMPAT_DIRTY, 0, 0, true, &err), 0);
    CHECK_EQ(features(QCOW2_INCOMPAT_CORRUPT, 0, 0, true, &err), -ENOTSUP);
    CHECK(strstr(err.msg, "qemu-img check -r all"));
}

TEST(qcow2_format, extension_that_is_too_long_is_refused)
{
    uint8_t buf[64] = {0};
    struct qcow2_ext_item item;
    size_t pos = 0;

    REQUIRE(qcow2_ext_put(buf, 0, 64, 1, "abc", 3) == 16);
    CHECK_EQ(qcow2_ext_put(buf, 16, 64, 2, buf, 41), 0);
    CHECK_EQ(qcow2_ext_next(buf, 64, &pos, &item), 1);
    CHECK_EQ(item.len, 3);
    CHECK_EQ(pos, 16);
    put_be32(buf + 16, 7);
    put_be32(buf + 20, 41);
    CHECK_EQ(qcow2_ext_next(buf, 64, &pos, &item), -EINVAL);
}

TEST(qcow2_format, refcounts_of_every_width_keep_their_neighbours)
{
    for (unsigned order = 0; order <= 6; order++) {
        uint64_t max = order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;
        uint8_t block[512] = {0};

        for (uint32_t i = 0; i < 64; i++)
            qcow2_refcount_set(block, order, i, i % 3 ? max : 0);
        for (uint32_t i = 0; i < 64; i++)
            CHECK(qcow2_refcount_get(block, order, i) == (i % 3 ? max : 0));
    }
}

/* "bit 0 means the least significant bit in this context" */
TEST(qcow2_format, narrow_refcounts_start_at_the_low_bits)
{
    uint8_t block[2] = {0};

    qcow2_refcount_set(block, 0, 1, 1);
    CHECK_EQ(block[0], 2);
    qcow2_refcount_set(block, 2, 3, 9);
    CHECK_EQ(block[1], 0x90);
}

TEST(qcow2_format, entries_survive_encoding)
{
    struct qcow2_geometry plain = geometry(3, 16, false, 4), ext = geometry(3, 17, true, 4);
    struct qcow2_entry e = {.host = 5 << 17, .copied = true, .alloc = 1}, out;
    uint8_t raw[16];

    qcow2_entry_encode(&plain, raw, &e);
    CHECK(get_be64(raw) == (QCOW2_COPIED | 5 << 17));
    CHECK(qcow2_entry_decode(&plain, raw, &out) && !memcmp(&e, &out, sizeof(e)));
    e = (struct qcow2_entry){.zero = 1};
    qcow2_entry_encode(&plain, raw, &e);
    CHECK(get_be64(raw) == 1);
    CHECK(qcow2_entry_decode(&plain, raw, &out) && !memcmp(&e, &out, sizeof(e)));
    e = (struct qcow2_entry){.host = 5 << 17, .copied = true, .alloc = 0xf0, .zero = 0x8000000f};
    qcow2_entry_encode(&ext, raw, &e);
    CHECK(qcow2_entry_decode(&ext, raw, &out) && !memcmp(&e, &out, sizeof(e)));
}

static bool decodes(const struct qcow2_geometry *g, uint64_t first, uint64_t second)
{
    struct qcow2_entry e;
    uint8_t raw[16];

    put_be64(raw, first);
    put_be64(raw + 8, second);
    return qcow2_entry_decode(g, raw, &e);
}

TEST(qcow2_format, contradicting_entries_are_refused)
{
    struct qcow2_geometry v2 = geometry(2, 16, false, 4), v3 = geometry(3, 16, false, 4);
    struct qcow2_geometry ext = geometry(3, 17, true, 4);

    CHECK(decodes(&v3, 1, 0));
    CHECK(!decodes(&v2, 1, 0));                            /* no zero flag in version 2 */
    CHECK(!decodes(&v3, 0x10200, 0));                      /* unaligned */
    CHECK(!decodes(&v3, QCOW2_COPIED, 0));                 /* cluster at offset 0 */
    CHECK(!decodes(&ext, 0, 1));                           /* allocated without a cluster */
    CHECK(!decodes(&ext, 5 << 17, 1 | UINT64_C(1) << 32)); /* allocated and zero */
    CHECK(!decodes(&ext, 5 << 17 | 1, 1));
    CHECK(!decodes(&v3, QCOW2_COMPRESSED | QCOW2_COPIED, 0));
}

TEST(qcow2_format, compressed_descriptor_gives_offset_and_sectors)
{
    struct qcow2_geometry g = geometry(3, 16, false, 4); /* x = 54 */
    uint64_t offset;
    uint32_t bytes;

    qcow2_compressed_range(&g, UINT64_C(3) << 54 | 0x123456, &offset, &bytes);
    CHECK_EQ(offset, 0x123456);
    CHECK_EQ(bytes, 4 * 512 - (0x123456 & 511));
}

TEST(qcow2_format, geometry_of_the_extremes)
{
    struct qcow2_geometry small = geometry(3, 9, false, 6), large = geometry(3, 21, true, 0);

    CHECK_EQ(small.slice_bytes, 512);
    CHECK_EQ(small.slice_span_bits, 9 + 6);
    CHECK_EQ(small.ref_slice_bits, 6);
    CHECK_EQ(qcow2_l1_entries(&small, 32768 + 512), 2);
    CHECK_EQ(large.slice_bytes, 4096);
    CHECK_EQ(large.sub_bits, 16);
    CHECK_EQ(large.ref_block_bits, 24);
    CHECK_EQ(qcow2_l1_entries(&large, UINT64_C(1) << 38), 1);
}
