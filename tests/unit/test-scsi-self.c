/* SPDX-License-Identifier: BSD-3-Clause */
/* What the target says of itself: commands, capacity, mode; and says it without buffers, too. */
#include <string.h>
#include "tests/unit/ctest.h"
#include "tests/unit/scsi-fake.h"
#include "util/byteorder.h"
#include "util/size.h"

#define DISK_BYTES  (8u << 20)
#define DISK_BLOCKS (DISK_BYTES / 512)

static struct fake f;
static uint8_t data[FAKE_DATA_MAX];

TEST(scsi_self, supported_opcodes_bound_the_service_action)
{
    fake_setup(&f, DISK_BYTES, true);
    memset(data, 0xee, 64);
    CHECK_EQ(
        fake_exec(&f, CDB(0xa3, 0x0c, 2, 0x9e, 0xff, 0xff, 0, 0, 0, 64, 0, 0), data, 64, false), 0);
    CHECK_EQ(data[1], 1); /* not supported */
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 2, 0x9e, 0, 0x12, 0, 0, 0, 64, 0, 0), data, 64, false),
             0);
    CHECK_EQ(data[1], 3);
    CHECK_EQ(get_be16(data + 2), 16);
    CHECK_EQ(data[4], 0x9e);
    fake_teardown(&f);
}

TEST(scsi_self, supported_opcodes_reporting_options_fit_the_opcode)
{
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 1, 0x9e, 0, 0, 0, 0, 0, 64, 0, 0), data, 64, false),
             SENSE(5, 0x24, 0));
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 2, 0x28, 0, 0, 0, 0, 0, 64, 0, 0), data, 64, false),
             SENSE(5, 0x24, 0));
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 7, 0x28, 0, 0, 0, 0, 0, 64, 0, 0), data, 64, false),
             SENSE(5, 0x24, 0));
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 3, 0x28, 0, 0, 0, 0, 0, 64, 0, 0), data, 64, false), 0);
    CHECK_EQ(data[1], 3);
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 0x81, 0x28, 0, 0, 0, 0, 0, 64, 0, 0), data, 64, false),
             0);
    CHECK_EQ(data[1], 0x83);
    CHECK_EQ(get_be16(data + 14), 10);
    fake_teardown(&f);
}

TEST(scsi_self, all_supported_opcodes_run_or_are_refused_for_a_reason)
{
    uint32_t len;

    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(fake_exec(&f, CDB(0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0), data, 4096, false), 0);
    len = get_be32(data);
    CHECK(len >= 8 && len % 8 == 0);
    for (uint32_t i = 4; i < 4 + len; i += 8) {
        uint8_t cdb[SCSI_MAX_CDB] = {data[i], [7] = data[i] == SCSI_VARIABLE ? 0x18 : 0};
        uint8_t answer[4096];

        if (data[i + 5] & 1)
            cdb[cdb_service_action_at(data[i])] = data[i + 3];
        int sense = fake_exec(&f, cdb, data[i + 7], answer, 512, data[i] == 0x0a);

        CHECK(sense != SENSE(5, 0x20, 0));
    }
    fake_teardown(&f);
}

TEST(scsi_self, capacity_16_says_thin_and_zeros)
{
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(
        fake_exec(&f, CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), data, 32, false),
        0);
    CHECK_EQ(get_be64(data), DISK_BLOCKS - 1);
    CHECK_EQ(get_be32(data + 8), 512);
    CHECK_EQ(data[14], 0xc0);
    fake_teardown(&f);
}

TEST(scsi_self, mode_sense_tells_write_protection_and_cache)
{
    fake_setup(&f, DISK_BYTES, false);
    CHECK_EQ(fake_exec(&f, CDB(0x1a, 0, 0x3f, 0, 255, 0), data, 255, false), 0);
    CHECK_EQ(data[2], 0x90);
    CHECK_EQ(data[3], 8);
    CHECK_EQ(data[0], 3 + 8 + 12 + 20 + 12 + 12);
    CHECK_EQ(fake_exec(&f, CDB(0x1a, 0, 0xff, 0, 255, 0), data, 255, false), SENSE(5, 0x39, 0));
    CHECK_EQ(fake_exec(&f, CDB(0x1a, 0, 0x02, 0, 255, 0), data, 255, false), SENSE(5, 0x24, 0));
    fake_teardown(&f);
    fake_setup(&f, DISK_BYTES, true);
    CHECK_EQ(fake_exec(&f, CDB(0x5a, 0x08, 0x08, 0, 0, 0, 0, 0, 255, 0), data, 255, false), 0);
    CHECK_EQ(data[3], 0x10);
    CHECK_EQ(data[8], 0x08);
    CHECK_EQ(data[10], 0x04); /* WCE */
    fake_teardown(&f);
}

TEST(scsi_self, replies_survive_an_exhausted_pool)
{
    /* large ones get only their part of it */
    const size_t small_bytes = 64 << 10;
    void *hog[256];
    unsigned n = 0;
    struct fake_cmd *c;

    fake_setup(&f, DISK_BYTES, true);
    while (n < BUFPOOL_MAIN_LARGE_BYTES / BUFPOOL_MAX_BYTES &&
           (hog[n] = bufpool_get(bufpool_main(), BUFPOOL_MAX_BYTES)))
        n++;
    const unsigned nr_large = n;

    while (n < ARRAY_LEN(hog) && (hog[n] = bufpool_get(bufpool_main(), small_bytes)))
        n++;
    CHECK(!bufpool_get(bufpool_main(), 4096));
    c = fake_cmd_new(&f, CDB(0x12, 0, 0, 0, 96, 0), 96, false);
    fake_start(c);
    CHECK_EQ(c->cmd.phase, PH_WAIT_BUF);
    bufpool_put(bufpool_main(), hog[--n], small_bytes);
    fake_wait(c);
    CHECK_EQ(fake_sense(c), 0);
    while (n--)
        bufpool_put(bufpool_main(), hog[n], n < nr_large ? BUFPOOL_MAX_BYTES : small_bytes);
    fake_cmd_free(c);
    fake_teardown(&f);
}
