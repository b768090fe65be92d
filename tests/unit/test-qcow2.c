/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The qcow2 engine against a model in memory: images made by qemu-img with all kinds of options,
 * random concurrent requests, then closed, checked and compared by qemu-img.
 */
#include "tests/unit/ctest.h"
#include "tests/unit/qcow2-image.h"

static void without_backing(const char *options, unsigned ops)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 -o %s img 24M", options), 0);
    work_on_image(24 * MIB, ops);
}

static void with_backing(const char *options, unsigned ops)
{
    if (!have_qemu_img())
        return;
    make_base(17 * MIB, "");
    CHECK_EQ(sh("qemu-img create -f qcow2 -b base -F qcow2 -o %s img 24M", options), 0);
    work_on_image(24 * MIB, ops);
}

#define RANDOM_TEST(name, how, options, ops) \
    TEST(qcow2, random_work_##name)          \
    {                                        \
        how(options, ops);                   \
    }

RANDOM_TEST(defaults, without_backing, "compat=1.1", 1500)
RANDOM_TEST(v2, without_backing, "compat=0.10", 1500)
RANDOM_TEST(clusters_512, without_backing, "cluster_size=512", 500)
RANDOM_TEST(clusters_2M, without_backing, "cluster_size=2M", 500)
RANDOM_TEST(extended, without_backing, "extended_l2=on,cluster_size=128k", 1500)
RANDOM_TEST(refcount_1, without_backing, "refcount_bits=1,cluster_size=4k", 1500)
RANDOM_TEST(refcount_64, without_backing, "refcount_bits=64,cluster_size=512", 500)
RANDOM_TEST(refcount_8, without_backing, "refcount_bits=8,cluster_size=1k", 500)
RANDOM_TEST(preallocated, without_backing, "preallocation=metadata", 1500)
RANDOM_TEST(overlay, with_backing, "compat=1.1", 1500)
RANDOM_TEST(overlay_v2, with_backing, "compat=0.10,cluster_size=4k", 1500)
RANDOM_TEST(overlay_512, with_backing, "cluster_size=512", 500)
RANDOM_TEST(overlay_2M, with_backing, "cluster_size=2M", 500)
RANDOM_TEST(overlay_extended, with_backing, "extended_l2=on,cluster_size=128k", 1500)
RANDOM_TEST(overlay_extended_16k, with_backing, "extended_l2=on,cluster_size=16k", 1500)
RANDOM_TEST(overlay_extended_2M, with_backing, "extended_l2=on,cluster_size=2M", 500)

static void compressed(const char *options, unsigned ops)
{
    if (!have_qemu_img())
        return;
    make_base(17 * MIB, options);
    CHECK_EQ(sh("mv base img"), 0);
    work_on_image(17 * MIB, ops);
}

RANDOM_TEST(compressed_zlib, compressed, "-o compression_type=zlib", 1000)
RANDOM_TEST(compressed_zstd, compressed, "-o compression_type=zstd", 1000)
RANDOM_TEST(compressed_small, compressed, "-o cluster_size=4k", 1000)
RANDOM_TEST(compressed_v2, compressed, "-o compat=0.10", 1000)
RANDOM_TEST(compressed_extended, compressed, "-o extended_l2=on,cluster_size=64k", 1000)

/* Clusters shared with an internal snapshot are copied, and the snapshot stays what it was. */
static void snapshotted(const char *options, unsigned ops)
{
    if (!have_qemu_img())
        return;
    make_base(17 * MIB, options);
    CHECK_EQ(sh("qemu-img convert -O qcow2 %s base img && qemu-img snapshot -c one img", options),
             0);
    work_on_image(17 * MIB, ops);
    CHECK_EQ(sh("qemu-img convert -l snapshot.name=one -O raw img one.raw && "
                "cmp one.raw base.raw"),
             0);
    CHECK_EQ(sh("cp img applied && qemu-img snapshot -a one applied && qemu-img check applied && "
                "qemu-img compare -f qcow2 -F raw applied base.raw"),
             0);
    CHECK_EQ(sh("qemu-img snapshot -d one img && qemu-img check img"), 0);
}

RANDOM_TEST(snapshot, snapshotted, "-o compat=1.1", 1000)
RANDOM_TEST(snapshot_512, snapshotted, "-o cluster_size=512", 300)
RANDOM_TEST(snapshot_extended, snapshotted, "-o extended_l2=on,cluster_size=64k", 1000)

/* Guest data in a file of its own; a raw one is the disk by itself, at any time. */
static void data_file(const char *options, unsigned ops)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("rm -f ext; qemu-img create -f qcow2 -o data_file=ext,%s img 24M", options), 0);
    work_on_image(24 * MIB, ops);
    CHECK_EQ(sh("case %s in *raw=on*) qemu-img compare -f raw -F raw ext model;; esac", options),
             0);
}

static void data_file_over_backing(const char *options, unsigned ops)
{
    if (!have_qemu_img())
        return;
    make_base(17 * MIB, "");
    CHECK_EQ(sh("rm -f ext; qemu-img create -f qcow2 -b base -F qcow2 -o data_file=ext,%s img 24M",
                options),
             0);
    work_on_image(24 * MIB, ops);
}

RANDOM_TEST(data_file, data_file, "compat=1.1", 1500)
RANDOM_TEST(data_file_512, data_file, "cluster_size=512", 500)
RANDOM_TEST(data_file_extended, data_file, "extended_l2=on,cluster_size=64k", 1000)
RANDOM_TEST(data_file_raw, data_file, "data_file_raw=on", 1500)
RANDOM_TEST(data_file_raw_extended, data_file, "data_file_raw=on,extended_l2=on", 1000)
RANDOM_TEST(data_file_overlay, data_file_over_backing, "compat=1.1", 1500)
RANDOM_TEST(data_file_overlay_extended, data_file_over_backing, "extended_l2=on", 1000)
RANDOM_TEST(lazy_refcounts, without_backing, "lazy_refcounts=on", 1500)
RANDOM_TEST(refcount_2, without_backing, "refcount_bits=2,cluster_size=4k", 1000)
RANDOM_TEST(refcount_4, without_backing, "refcount_bits=4,cluster_size=4k", 1000)
RANDOM_TEST(refcount_32, without_backing, "refcount_bits=32,cluster_size=1k", 500)
