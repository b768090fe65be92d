/* SPDX-License-Identifier: BSD-3-Clause */
/* Sealing images that are in use and opening them for writing again: data, locks, identity. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/file.h"
#include "lun-backends/formats.h"
#include "lun-backends/qcow2.h"
#include "tests/unit/ctest.h"
#include "util/coroutine.h"
#include "util/loop.h"
#include "util/workers.h"

#define MIB (1024u * 1024)

static void __attribute__((constructor)) start(void)
{
    loop_init();
    workers_init(4);
    blk_init();
}

static char path[4096];
static bool done;

static void co_run(void *fn)
{
    ((void (*)(void))fn)();
    done = true;
}

static void run(void (*fn)(void))
{
    done = false;
    co_spawn(co_run, (void *)fn);
    while (!done || blk_closing())
        loop_turn(true);
}

static struct blk_node *co_make(const char *name, bool qcow2)
{
    struct qcow2_create_opts qo = {.size_bytes = MIB};
    struct file_opts fo = {.writable = true, .create = true};
    struct error err = ERROR_INIT;
    struct blk_node *file, *node = NULL;

    snprintf(path, sizeof(path), "%s/%s", ctest_tmpdir(), name);
    if (co_file_open(path, &fo, &file, &err))
        return NULL;
    if (qcow2)
        co_qcow2_create(file, &qo, &err);
    else
        file->drv->co_resize(file, MIB, &err);
    if (qcow2)
        co_qcow2_open(file, true, &node, &err);
    else
        co_raw_open(file, true, &node, &err);
    co_blk_node_unref(file);
    return node;
}

static int co_open(bool writable, struct blk_node **file, struct error *err)
{
    struct file_opts fo = {.writable = writable};

    return co_file_open(path, &fo, file, err);
}

static bool co_reads(struct blk_node *node, uint64_t offset, uint8_t value)
{
    uint8_t buf[4096];

    if (co_blk_read(node, offset, buf, sizeof(buf), 0))
        return false;
    for (size_t i = 0; i < sizeof(buf); i++) {
        if (buf[i] != value)
            return false;
    }
    return true;
}

static int co_writes(struct blk_node *node, uint64_t offset, uint8_t value)
{
    uint8_t buf[4096];

    memset(buf, value, sizeof(buf));
    return co_blk_write(node, offset, buf, sizeof(buf), 0);
}

/* Sealed, unsealed, sealed: what was written is there, what may be written follows. */
static void co_there_and_back(const char *name, bool qcow2)
{
    struct error err = ERROR_INIT;
    struct file_identity before, after;
    struct blk_node *node = co_make(name, qcow2), *other;

    REQUIRE(node);
    CHECK_EQ(co_writes(node, 0, 1), 0);
    CHECK_EQ(co_blk_reopen(node, false, &err), 0);
    CHECK(node->read_only && node->file.child->read_only);
    CHECK_EQ(co_writes(node, 0, 2), -EROFS);
    CHECK(co_reads(node, 0, 1));
    file_node_identity(node->file.child, &before);
    CHECK(co_open(true, &other, &err) < 0);
    CHECK_EQ(err.class, ERR_DEVICE_IN_USE);
    CHECK_EQ(co_open(false, &other, &err), 0);
    co_blk_node_unref(other);

    CHECK_EQ(co_blk_reopen(node, true, &err), 0);
    CHECK(co_open(false, &other, &err) < 0);
    CHECK_EQ(co_writes(node, 512 * 1024, 3), 0);
    CHECK_EQ(co_writes(node, 4096, 4), 0);
    CHECK_EQ(co_blk_reopen(node, false, &err), 0);
    file_node_identity(node->file.child, &after);
    CHECK(before.inode == after.inode && memcmp(&before, &after, sizeof(after)));
    CHECK(co_reads(node, 0, 1) && co_reads(node, 4096, 4) && co_reads(node, 512 * 1024, 3));
    co_blk_node_unref(node);
}

static void co_qcow2_there_and_back(void)
{
    co_there_and_back("q", true);
}

static void co_raw_there_and_back(void)
{
    co_there_and_back("r", false);
}

TEST(reopen, a_qcow2_image_is_sealed_and_unsealed)
{
    run(co_qcow2_there_and_back);
}

TEST(reopen, a_raw_image_is_sealed_and_unsealed)
{
    run(co_raw_there_and_back);
}

static void co_refused(void)
{
    struct error err = ERROR_INIT;
    struct blk_node *node = co_make("busy", true), *reader;

    REQUIRE(node);
    CHECK_EQ(co_writes(node, 0, 7), 0);
    CHECK_EQ(co_blk_reopen(node, false, &err), 0);
    CHECK_EQ(co_open(false, &reader, &err), 0);
    CHECK(co_blk_reopen(node, true, &err) < 0);
    CHECK_EQ(err.class, ERR_DEVICE_IN_USE);
    CHECK(node->read_only && node->file.child->read_only);
    CHECK(co_reads(node, 0, 7));
    co_blk_node_unref(reader);
    CHECK(co_open(true, &reader, &err) < 0); /* its own locks are back */
    CHECK_EQ(co_blk_reopen(node, true, &err), 0);
    CHECK_EQ(co_writes(node, 0, 8), 0);
    co_blk_node_unref(node);
}

TEST(reopen, an_image_that_somebody_reads_stays_sealed)
{
    run(co_refused);
}

static void co_durable(void)
{
    struct error err = ERROR_INIT;
    struct blk_node *node = co_make("copy", true), *file, *again;

    REQUIRE(node);
    for (unsigned i = 0; i < 16; i++)
        CHECK_EQ(co_writes(node, i * 65536, (uint8_t)(i + 1)), 0);
    CHECK_EQ(co_blk_reopen(node, false, &err), 0);
    CHECK_EQ(co_open(false, &file, &err), 0); /* beside it: all metadata is in the file */
    CHECK_EQ(co_qcow2_open(file, false, &again, &err), 0);
    for (unsigned i = 0; i < 16; i++)
        CHECK(co_reads(again, i * 65536, (uint8_t)(i + 1)));
    co_blk_node_unref(again);
    co_blk_node_unref(file);
    co_blk_node_unref(node);
}

TEST(reopen, sealing_brings_everything_to_the_file)
{
    run(co_durable);
}
