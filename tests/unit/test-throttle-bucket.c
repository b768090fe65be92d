/* SPDX-License-Identifier: BSD-3-Clause */
/* Leaky buckets: averages, bursts, totals, operations of a size; what is refused. */
#include <errno.h>
#include <string.h>

#include "lun-backends/throttle-bucket.h"
#include "tests/unit/ctest.h"

#define S  UINT64_C(1000000000)
#define MS UINT64_C(1000000)

static struct throttle_state st;

static void configure(enum throttle_kind k, uint64_t average, uint64_t maximum, uint64_t burst_s)
{
    struct throttle_config cfg = {.op_bytes = 0};

    memset(&st, 0, sizeof(st));
    cfg.limit[k] = (struct throttle_limit){average, maximum, burst_s};
    throttle_configure(&st, &cfg, 0);
}

/* Requests of @bytes that go in @seconds, asked for as soon as allowed. */
static uint64_t go(bool is_write, uint64_t bytes, uint64_t from_ns, double seconds)
{
    uint64_t now = from_ns, end = from_ns + (uint64_t)(seconds * 1e9), n = 0, wait;

    while (now < end) {
        wait = throttle_wait_ns(&st, is_write, now);
        if (wait) {
            now += wait;
            continue;
        }
        throttle_account(&st, is_write, bytes);
        n++;
    }
    return n;
}

TEST(throttle, an_average_holds)
{
    uint64_t n;

    configure(THROTTLE_IOPS_TOTAL, 100, 0, 0);
    n = go(false, 4096, 0, 10);
    CHECK(n >= 1000 && n <= 1012);
    configure(THROTTLE_BPS_WRITE, 1 << 20, 0, 0);
    n = go(true, 64 << 10, 0, 10);
    CHECK(n >= 160 && n <= 163);
}

TEST(throttle, reads_and_writes_are_apart)
{
    configure(THROTTLE_IOPS_READ, 10, 0, 0);
    throttle_account(&st, false, 512);
    CHECK_EQ(throttle_wait_ns(&st, false, 0), 0);
    throttle_account(&st, false, 512);
    CHECK_EQ(throttle_wait_ns(&st, false, 0) / MS, 100);
    CHECK_EQ(throttle_wait_ns(&st, true, 0), 0);
}

TEST(throttle, a_total_counts_both)
{
    configure(THROTTLE_BPS_TOTAL, 1000, 0, 0);
    throttle_account(&st, true, 1100);
    CHECK_EQ(throttle_wait_ns(&st, false, 0) / MS, 1000);
    CHECK_EQ(throttle_wait_ns(&st, false, 500 * MS) / MS, 500);
}

TEST(throttle, a_burst_lasts_as_long_as_it_may)
{
    uint64_t n;

    configure(THROTTLE_IOPS_TOTAL, 100, 1000, 3);
    n = go(false, 512, 0, 3); /* at the maximum, while the bucket fills */
    CHECK(n >= 2900 && n <= 3110);
    n = go(false, 512, 4 * S, 10); /* full: the average */
    CHECK(n >= 1000 && n <= 1450);
}

TEST(throttle, a_short_burst_goes_at_once)
{
    configure(THROTTLE_IOPS_TOTAL, 10, 500, 1);
    for (int i = 0; i < 500; i++) {
        CHECK_EQ(throttle_wait_ns(&st, false, 0), 0);
        throttle_account(&st, false, 512);
    }
    throttle_account(&st, false, 512);
    CHECK(throttle_wait_ns(&st, false, 0) > 0);
}

TEST(throttle, a_large_request_counts_as_several_operations)
{
    configure(THROTTLE_IOPS_TOTAL, 100, 0, 0);
    st.config.op_bytes = 4096;
    throttle_account(&st, false, 110 * 4096);
    CHECK_EQ(throttle_wait_ns(&st, false, 0) / MS, 1000);
}

TEST(throttle, what_makes_no_sense_is_refused)
{
    struct error err = ERROR_INIT;
    struct throttle_config cfg;

    memset(&cfg, 0, sizeof(cfg));
    CHECK(throttle_is_off(&cfg));
    CHECK_EQ(throttle_check(&cfg, &err), 0);
    cfg.op_bytes = 512;
    CHECK_EQ(throttle_check(&cfg, &err), -EINVAL);
    cfg.op_bytes = 0;
    cfg.limit[THROTTLE_BPS_READ].maximum = 5;
    CHECK_EQ(throttle_check(&cfg, &err), -EINVAL);
    cfg.limit[THROTTLE_BPS_READ].average = 6;
    CHECK_EQ(throttle_check(&cfg, &err), -EINVAL);
    cfg.limit[THROTTLE_BPS_READ].average = 5;
    CHECK_EQ(throttle_check(&cfg, &err), 0);
    CHECK(!throttle_is_off(&cfg));
    cfg.limit[THROTTLE_BPS_TOTAL].average = 5;
    CHECK_EQ(throttle_check(&cfg, &err), -EINVAL);
    cfg.limit[THROTTLE_BPS_TOTAL].average = 0;
    cfg.limit[THROTTLE_BPS_READ].burst_s = UINT64_MAX;
    CHECK_EQ(throttle_check(&cfg, &err), -EINVAL);
}
