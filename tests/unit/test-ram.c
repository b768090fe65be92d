/* SPDX-License-Identifier: BSD-3-Clause */
/* RAM disks: what is written is read, what is discarded takes no memory, sizes are bounded. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/ram.h"
#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "util/coroutine.h"
#include "util/loop.h"
#include "util/workers.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

static void random_work_co(void *arg)
{
    const uint64_t size = MIB + 512;
    uint8_t *model = calloc(1, size), *buf = malloc(size);
    struct error err = ERROR_INIT;
    struct blk_node *ram = NULL;
    unsigned rnd = 1;

    (void)arg;
    REQUIRE(co_ram_open("ram:1049088", true, &ram, &err) == 0);
    CHECK_EQ(ram->size_bytes, size);
    for (int i = 0; i < 3000; i++) {
        uint64_t off = (uint64_t)(rand_r(&rnd) % (int)(size / 512)) * 512;
        uint64_t bytes = (uint64_t)(1 + rand_r(&rnd) % 40) * 512;
        int what = rand_r(&rnd) % 3;

        bytes = off + bytes > size ? size - off : bytes;
        memset(buf, what ? 0 : i, bytes);
        memcpy(model + off, buf, bytes);
        if (!what)
            CHECK_EQ(co_blk_write(ram, off, buf, bytes, 0), 0);
        else if (what == 1)
            CHECK_EQ(co_blk_write_zeroes(ram, off, bytes, BLK_MAY_UNMAP), 0);
        else
            CHECK_EQ(co_blk_discard(ram, off, bytes), 0);
    }
    CHECK_EQ(co_blk_read(ram, 0, buf, size, 0), 0);
    CHECK(!memcmp(buf, model, size));
    CHECK_EQ(co_blk_discard(ram, 0, size), 0);
    CHECK_EQ(ram_used_bytes(ram), 0);
    CHECK_EQ(co_blk_read(ram, 0, buf, size, 0), 0);
    CHECK(buf_is_zero(buf, size));
    co_blk_node_unref(ram);
    free(model);
    free(buf);
}

static void __attribute__((constructor)) start(void)
{
    loop_init();
    workers_init(2);
    blk_init();
}

TEST(ram, reads_what_was_written_and_zeros_elsewhere)
{
    mem_node_run(random_work_co, NULL);
}

static void status_co(void *arg)
{
    struct error err = ERROR_INIT;
    struct blk_node *ram = NULL;
    struct blk_extent ext;
    uint8_t buf[512] = {1};

    (void)arg;
    REQUIRE(co_ram_open("ram:1M", true, &ram, &err) == 0);
    CHECK_EQ(co_blk_status(ram, 0, MIB, &ext), 0);
    CHECK(ext.state == BLK_ST_ZERO && ext.length_bytes == MIB);
    CHECK_EQ(co_blk_write(ram, 64 * KIB, buf, sizeof(buf), 0), 0);
    CHECK_EQ(co_blk_status(ram, 0, MIB, &ext), 0);
    CHECK(ext.state == BLK_ST_ZERO && ext.length_bytes == 64 * KIB);
    CHECK_EQ(co_blk_status(ram, 64 * KIB, MIB - 64 * KIB, &ext), 0);
    CHECK(ext.state == BLK_ST_DATA && ext.length_bytes == 4 * KIB);
    co_blk_node_unref(ram);
}

TEST(ram, says_what_it_holds)
{
    mem_node_run(status_co, NULL);
}

static void absurd_co(void *arg)
{
    static const char *const names[] = {"ram:", "ram:0", "ram:1000", "ram:x", "ram:-1", "ram:1M "};
    struct error err = ERROR_INIT;
    struct blk_node *ram = NULL;

    (void)arg;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        CHECK_EQ(co_ram_open(names[i], true, &ram, &err), -EINVAL);
    CHECK_EQ(co_ram_open("ram:1000T", true, &ram, &err), -ENOMEM);
    CHECK(strstr(err.msg, "half of this host's memory"));
}

TEST(ram, absurd_names_and_sizes_are_refused)
{
    mem_node_run(absurd_co, NULL);
}
