/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a power cut or a failing disk may find at the worst moment: a header of which nobody knows
 * whether it was written, a size that is told too early, tables that were emptied by half.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lun-backends/formats.h"
#include "lun-backends/inject.h"
#include "lun-backends/qcow2-format.h"
#include "lun-backends/qcow2-offline.h"
#include "tests/unit/ctest.h"
#include "tests/unit/qcow2-image.h"
#include "util/coroutine.h"
#include "util/size.h"

#define CLUSTER 65536u

static unsigned syncs;

int fdatasync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

static uint8_t buf[4 * CLUSTER] __attribute__((aligned(4096)));

static void add_rule(struct blk_node *inject, struct inject_rule r)
{
    struct error err;

    CHECK_EQ(inject_add_rule(inject, &r, &err), 0);
}

static void write_bytes(struct blk_node *node, uint64_t offset, uint8_t fill, uint64_t bytes)
{
    memset(buf, fill, bytes);
    CHECK_EQ(co_blk_write(node, offset, buf, bytes, 0), 0);
}

/* Opens "img" for writing with a filter below it, runs the test's steps, and closes it. */
struct faulty {
    struct world w;
    void (*fn)(struct blk_node *node, struct blk_node *inject);
};

static void faulty_co(void *arg)
{
    struct faulty *f = container_of(arg, struct faulty, w);
    struct blk_node *node = co_open_image("img", true, &f->w.err), *inject = NULL;

    REQUIRE(node && !co_inject_insert(node, &inject, &f->w.err));
    f->fn(node, inject);
    co_blk_node_unref(node);
    f->w.done = true;
}

static void on_faulty_image(void (*fn)(struct blk_node *node, struct blk_node *inject))
{
    static struct faulty f;

    f = (struct faulty){.fn = fn};
    run(faulty_co, &f.w);
}

/* Makes "img", lets @fn work on it, and has it judged: by qemu-img check, and by qemu-io. */
static void made_then_judged(const char *make,
                             void (*fn)(struct blk_node *node, struct blk_node *inject),
                             const char *reads)
{
    if (!have_qemu_img())
        return;
    CHECK_EQ(sh("qemu-img create -f qcow2 img %s", make), 0);
    on_faulty_image(fn);
    CHECK_EQ(sh("qemu-img check img && qemu-io -r %s img >reads && ! grep failed reads", reads), 0);
}

static void header_fails(struct blk_node *node, struct blk_node *inject)
{
    struct error err = ERROR_INIT;

    write_bytes(node, 0, 1, CLUSTER);
    CHECK_EQ(co_blk_flush(node), 0);
    add_rule(inject, (struct inject_rule){
                         .verbs = 1u << BLK_WRITE, .end_bytes = QCOW2_SECTOR, .error = EIO});
    CHECK(node->drv->co_resize(node, 64 * MIB, &err) < 0);
    CHECK_EQ(node->size_bytes, 8 * MIB);
    write_bytes(node, CLUSTER, 2, CLUSTER);
    CHECK_EQ(co_blk_flush(node), -EIO); /* the new header may be there, with other tables */
    co_inject_remove(node);
    CHECK_EQ(co_blk_flush(node), 0);
    CHECK_EQ(node->drv->co_resize(node, 64 * MIB, &err), 0);
}

TEST(qcow2_faults, nothing_is_flushed_while_the_header_is_in_doubt)
{
    made_then_judged("8M", header_fails, "-c 'read -P 1 0 64k' -c 'read -P 2 64k 64k'");
    CHECK_EQ(sh("qemu-img info img | grep '64 MiB'"), 0);
}

/* A table of 512 MiB, 16 slices; the second can't be read. */
static void emptying_cannot_read(struct blk_node *node, struct blk_node *inject)
{
    struct error err = ERROR_INIT;

    add_rule(inject, (struct inject_rule){.verbs = 1u << BLK_READ,
                                          .part = INJECT_METADATA,
                                          .end_bytes = UINT64_MAX,
                                          .skip = 1,
                                          .error = EIO});
    CHECK_EQ(co_qcow2_make_empty(node, &err), -EIO);
    CHECK_EQ(inject_hits(inject), 1);
    CHECK_EQ(co_blk_flush(node), 0);
}

TEST(qcow2_faults, a_table_that_cannot_be_read_whole_is_not_emptied)
{
    made_then_judged("512M && qemu-io -c 'write -P 1 0 64k' -c 'write -P 2 100M 64k' img",
                     emptying_cannot_read, "-c 'read -P 1 0 64k' -c 'read -P 2 100M 64k'");
}

static void emptying_cannot_write(struct blk_node *node, struct blk_node *inject)
{
    struct error err = ERROR_INIT;

    add_rule(inject,
             (struct inject_rule){.verbs = 1u << BLK_WRITE, .end_bytes = UINT64_MAX, .error = EIO});
    CHECK_EQ(co_qcow2_make_empty(node, &err), -EIO);
    co_inject_remove(node);
    write_bytes(node, 4 * MIB, 3, CLUSTER);
    CHECK_EQ(co_blk_flush(node), 0);
}

TEST(qcow2_faults, an_emptied_table_is_not_found_in_a_new_one)
{
    made_then_judged("8M && qemu-io -c 'write -P 1 0 1M' img", emptying_cannot_write,
                     "-c 'read -P 0 0 1M' -c 'read -P 3 4M 64k'");
}

static void raw_size_co(void *arg)
{
    struct world *w = arg;
    struct file_opts fo = {.writable = true, .create = true, .cache = FILE_CACHE_WRITEBACK};
    struct blk_node *file = NULL, *raw = NULL;
    unsigned before;

    CHECK_EQ(co_file_open(path_of("raw"), &fo, &file, &w->err), 0);
    CHECK_EQ(co_raw_open(file, true, &raw, &w->err), 0);
    before = syncs;
    CHECK_EQ(raw->drv->co_resize(raw, 8 * MIB, &w->err), 0);
    CHECK(syncs > before);
    CHECK_EQ(raw->size_bytes, 8 * MIB);
    co_blk_node_unref(raw);
    co_blk_node_unref(file);
    w->done = true;
}

TEST(raw_faults, a_new_size_is_on_disk_before_it_is_told)
{
    struct world w = {0};

    unlink(path_of("raw"));
    run(raw_size_co, &w);
}
