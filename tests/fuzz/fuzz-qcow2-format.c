/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * qcow2's structures as pure functions: header, extensions, feature names, L2 entries, refcounts.
 * What is accepted must be inside its bounds, and come back from encode to decode.
 *
 * Input: the first bytes of an image, up to a cluster; they are read as entries as well.
 */
#include <stdlib.h>
#include <string.h>

#include "lun-backends/image-probe.h"
#include "lun-backends/qcow2-format.h"
#include "lun-backends/qcow2.h"
#include "tests/fuzz/fuzz.h"
#include "util/size.h"

static void extensions(const uint8_t *ext, size_t len)
{
    struct qcow2_ext_item item;
    char name[48];
    size_t pos = 0;

    while (qcow2_ext_next(ext, len, &pos, &item) == 1) {
        FUZZ_REQUIRE(pos <= len && item.data >= ext && item.data + item.len <= ext + len);
        FUZZ_REQUIRE(item.type != QCOW2_EXT_END);
    }
    for (unsigned type = 0; type < 3; type++) {
        qcow2_feature_name(ext, len, type, 5, name);
        FUZZ_REQUIRE(memchr(name, '\0', sizeof(name)) && name[0]);
    }
}

static void entries(const struct qcow2_geometry *g, const uint8_t *raw, size_t len)
{
    uint8_t back[16];
    struct qcow2_entry e, again;
    uint64_t offset;
    uint32_t bytes;

    for (size_t at = 0; at + 16 <= len; at += g->entry_bytes) {
        if (!qcow2_entry_decode(g, raw + at, &e))
            continue;
        FUZZ_REQUIRE(!(e.host & (qcow2_cluster_bytes(g) - 1)));
        FUZZ_REQUIRE(!(e.alloc & e.zero));
        if (e.compressed) {
            qcow2_compressed_range(g, e.descriptor, &offset, &bytes);
            FUZZ_REQUIRE(bytes && bytes <= 2 * qcow2_cluster_bytes(g));
        }
        qcow2_entry_encode(g, back, &e);
        FUZZ_REQUIRE(qcow2_entry_decode(g, back, &again));
        FUZZ_REQUIRE(again.host == e.host && again.descriptor == e.descriptor &&
                     again.alloc == e.alloc && again.zero == e.zero && again.copied == e.copied &&
                     again.compressed == e.compressed);
    }
}

static void refcounts(const struct qcow2_geometry *g, uint8_t *block, size_t len)
{
    uint32_t n = (uint32_t)MIN_OF((len * 8) >> g->refcount_order, 1u << g->ref_slice_bits);
    uint64_t max = UINT64_MAX >> (64 - (1u << g->refcount_order));

    for (uint32_t i = 0; i < n; i++) {
        uint64_t old = qcow2_refcount_get(block, g->refcount_order, i);

        FUZZ_REQUIRE(old <= max);
        qcow2_refcount_set(block, g->refcount_order, i, max - old);
        FUZZ_REQUIRE(qcow2_refcount_get(block, g->refcount_order, i) == max - old);
    }
}

static void header(uint8_t *buf, size_t len)
{
    struct qcow2_header h, again;
    struct qcow2_geometry g;
    struct error err = ERROR_INIT;
    uint8_t back[128];

    if (qcow2_header_decode(buf, len, &h, &err)) {
        FUZZ_REQUIRE(err.msg[0]);
        return;
    }
    FUZZ_REQUIRE(h.cluster_bits >= QCOW2_MIN_CLUSTER_BITS &&
                 h.cluster_bits <= QCOW2_MAX_CLUSTER_BITS && h.refcount_order <= 6);
    if (h.header_bytes < len) {
        extensions(buf + h.header_bytes, len - h.header_bytes);
        qcow2_header_check_features(&h, true, buf + h.header_bytes, len - h.header_bytes, &err);
    }
    qcow2_geometry_init(&g, &h);
    if (!qcow2_header_check_file(&h, 1 << 20, &err))
        FUZZ_REQUIRE(qcow2_l1_entries(&g, h.size_bytes) <= h.l1_entries);
    entries(&g, buf, len);
    if (h.header_bytes <= 112) {
        memset(back, 0, sizeof(back));
        qcow2_header_encode(&h, back);
        FUZZ_REQUIRE(!qcow2_header_decode(back, sizeof(back), &again, &err));
        FUZZ_REQUIRE(again.size_bytes == h.size_bytes && again.l1_offset == h.l1_offset &&
                     again.incompatible == h.incompatible && again.rt_offset == h.rt_offset);
    }
    refcounts(&g, buf, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t foot[IMAGE_PROBE_FOOT] = {0};
    uint8_t *buf = fuzz_exact(data, size);

    memcpy(foot, data, MIN_OF(size, sizeof(foot)));
    FUZZ_REQUIRE(image_probe(buf, MIN_OF(size, (size_t)IMAGE_PROBE_HEAD), foot));
    qcow2_probe(buf, size);
    extensions(buf, size);
    header(buf, size);
    free(buf);
    return 0;
}
