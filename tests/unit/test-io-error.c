/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands that fail on the disk: the sense by what failed, and the news of it. */
#include <errno.h>
#include <string.h>

#include "tests/unit/ctest.h"
#include "tests/unit/scsi-fake.h"

#define DISK_BYTES (1u << 20)

static struct fake f;
static uint8_t data[4096];
static struct lun_error told;
static unsigned nr_told;

static void on_error(const struct lun_error *e)
{
    told = *e;
    nr_told++;
}

static void set_up(void)
{
    fake_setup(&f, DISK_BYTES, true);
    mem_node_fill(f.mem, 0, 65536, BLK_ST_DATA, 1);
    nr_told = 0;
    lun_set_error_sink(on_error);
}

static int read_block(void)
{
    return fake_exec(&f, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), data, 512, false);
}

static int write_block(void)
{
    return fake_exec(&f, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), data, 512, true);
}

static int sync_cache(void)
{
    return fake_exec(&f, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0, false);
}

TEST(io_error, a_failed_flush_is_a_write_error)
{
    set_up();
    f.mem->flush_error = -EIO;
    CHECK_EQ(sync_cache(), SENSE(3, 0x0c, 0));
    CHECK(told.write && !told.no_space);
    CHECK_EQ(told.error, EIO);
    f.mem->flush_error = -ENOSPC;
    CHECK_EQ(sync_cache(), SENSE(7, 0x27, 7));
    CHECK(told.write && told.no_space);
    f.mem->flush_error = 0;
    CHECK_EQ(sync_cache(), 0);
    CHECK_EQ(nr_told, 2);
    fake_teardown(&f);
}

TEST(io_error, of_each_kind_one_a_second_is_told)
{
    set_up();
    f.mem->read_error = -EIO;
    f.mem->write_error = -ENOSPC;
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(read_block(), SENSE(3, 0x11, 0));
        CHECK_EQ(write_block(), SENSE(7, 0x27, 7));
    }
    CHECK_EQ(nr_told, 2);
    f.lun->error_quiet_until_ns[0][0] = 0; /* as if the second were over */
    read_block();
    CHECK_EQ(nr_told, 3);
    CHECK(!told.write && !told.no_space);
    CHECK_EQ(told.number, 0);
    CHECK(told.node == f.disk);
    f.mem->read_error = f.mem->write_error = 0;
    fake_teardown(&f);
}

TEST(io_error, refused_commands_are_no_news)
{
    set_up();
    CHECK_EQ(fake_exec(&f, CDB(0x28, 0, 0xff, 0, 0, 0, 0, 0, 1, 0), data, 512, false),
             SENSE(5, 0x21, 0));
    f.mem->read_error = -ENOMEM; /* BUSY: the initiator tries again */
    CHECK_EQ(read_block(), -8);
    f.mem->read_error = 0;
    CHECK_EQ(nr_told, 0);
    fake_teardown(&f);
}
