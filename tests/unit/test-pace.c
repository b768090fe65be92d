/* SPDX-License-Identifier: BSD-3-Clause */
/* Windows against a simulated link: one queue, a fixed rate, a fixed latency. No real time. */
#include "lun-backends/pace.h"

#include "tests/unit/ctest.h"
#include "util/size.h"

#define MS       UINT64_C(1000000)
#define SECOND   (1000 * MS)
#define MIB      (UINT64_C(1) << 20)
#define MAX_SENT 4096

static struct pace p;
static uint64_t now, link_free, moved, longest_queue;
static struct {
    uint64_t bytes, begun, ends;
} sent[MAX_SENT];
static unsigned nr_sent;

static void set_up(void)
{
    now = SECOND;
    link_free = moved = longest_queue = 0;
    nr_sent = 0;
    pace_init(&p, now);
}

static void end_what_is_due(void)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < nr_sent; i++) {
        if (sent[i].ends > now) {
            sent[kept++] = sent[i];
            continue;
        }
        pace_end(&p, &p.wire, sent[i].bytes, now - sent[i].begun, false, now);
        moved += sent[i].bytes;
    }
    nr_sent = kept;
}

/* What is put on the link leaves it in order. When it has arrived. */
static uint64_t send(uint64_t bytes, double rate, uint64_t rest)
{
    link_free = MAX_OF(link_free, now) + (uint64_t)((double)bytes / rate * 1e9);
    longest_queue = MAX_OF(longest_queue, link_free - now);
    return link_free + rest;
}

/* Copies as the job would for @ns; every @guest_every ns (0: never) a guest's 64 KiB. */
static void run(uint64_t ns, double rate, uint64_t rest, uint64_t guest_every)
{
    uint64_t end = now + ns, next_guest = now, guest_begun = 0, guest_ends = 0;

    for (; now < end; now += MS / 20) {
        uint64_t piece;

        end_what_is_due();
        if (guest_ends && guest_ends <= now) {
            pace_guest_end(&p, true, guest_begun, now);
            guest_ends = 0;
        }
        if (guest_every && !guest_ends && now >= next_guest) {
            pace_guest_begin(&p, now);
            guest_begun = now;
            guest_ends = send(65536, rate, rest);
            next_guest = now + guest_every;
        }
        piece = pace_piece_bytes(&p, now);
        while (nr_sent < MAX_SENT && !pace_wait_ns(&p, &p.wire, piece, now)) {
            pace_begin(&p.wire, piece);
            sent[nr_sent].bytes = piece;
            sent[nr_sent].begun = now;
            sent[nr_sent++].ends = send(piece, rate, rest);
            piece = pace_piece_bytes(&p, now);
        }
    }
}

static void check_uses_link(double rate, uint64_t rest)
{
    set_up();
    run(2 * SECOND, rate, rest, 0);
    moved = longest_queue = 0;
    run(3 * SECOND, rate, rest, 0);
    CHECK(longest_queue < 60 * MS + 8 * (uint64_t)(PACE_MIN_PIECE / rate * 1e9));
}

TEST(pace, fills_a_link_with_nobody_else_on_it_and_queues_little)
{
    check_uses_link(25e6, MS / 5);
    check_uses_link(25e6, 40 * MS);
    check_uses_link(300e6, MS / 5);
    check_uses_link(2e6, 5 * MS);
}

TEST(pace, a_piece_takes_a_few_ms)
{
    set_up();
    run(2 * SECOND, 1.2e9, MS / 10, 0);
    CHECK_EQ(pace_piece_bytes(&p, now), 4 * MIB);
    set_up();
    run(2 * SECOND, 25e6, MS / 10, 0);
    CHECK_EQ(pace_piece_bytes(&p, now), 65536);
}

TEST(pace, gives_way_at_once_when_a_guest_uses_the_source)
{
    set_up();
    run(2 * SECOND, 25e6, MS / 5, 0);
    CHECK(p.wire.window_bytes > 512 * 1024);
    pace_guest_begin(&p, now);
    pace_guest_end(&p, true, now, now + MS);
    CHECK(p.wire.window_bytes <= pace_piece_bytes(&p, now + MS));
    CHECK(p.nr_yields == 1);
    CHECK(pace_guest_on(&p.wire, now + 100 * MS));
    CHECK(!pace_guest_on(&p.disk, now + 100 * MS));
    CHECK(!pace_guest_on(&p.wire, now + 300 * MS));
}

TEST(pace, beside_a_guest_queues_are_short_and_most_of_the_rest_is_used)
{
    set_up();
    run(2 * SECOND, 25e6, MS / 5, 0);
    run(SECOND, 25e6, MS / 5, 9 * MS); /* 7.3 MB/s of 25 */
    moved = longest_queue = 0;
    run(4 * SECOND, 25e6, MS / 5, 9 * MS);
    CHECK((double)moved > 0.7 * 4 * (25e6 - 65536 / 9e-3));
    CHECK(longest_queue < 8 * MS);
}

TEST(pace, takes_the_link_back_when_guests_are_gone)
{
    set_up();
    run(2 * SECOND, 25e6, MS / 5, 9 * MS);
    run(SECOND, 25e6, MS / 5, 0);
    moved = 0;
    run(2 * SECOND, 25e6, MS / 5, 0);
    CHECK((double)moved > 0.9 * 2 * 25e6);
}

TEST(pace, brakes_for_guests_that_suffer_beside_it)
{
    uint64_t window;

    set_up();
    for (unsigned i = 0; i < 40; i++) { /* alone: 1 ms */
        pace_guest_begin(&p, now);
        now += MS;
        pace_guest_end(&p, true, now - MS, now);
    }
    window = p.wire.window_bytes;
    for (unsigned i = 0; i < 40; i++) { /* beside a piece: 4 ms */
        pace_begin(&p.wire, 65536);
        pace_guest_begin(&p, now);
        now += 4 * MS;
        pace_guest_end(&p, true, now - 4 * MS, now);
        pace_end(&p, &p.wire, 65536, 3 * MS, false, now);
    }
    CHECK(p.nr_brakes > 0);
    CHECK(p.wire.window_bytes < window);
    CHECK(p.wire.resume_ns > now || p.wire.window_bytes >= 65536);
}

TEST(pace, idle_waits_for_quiet_guests)
{
    set_up();
    p.config.mode = PREFETCH_IDLE;
    CHECK_EQ(pace_wait_ns(&p, &p.wire, 65536, now), 0);
    pace_guest_begin(&p, now);
    CHECK(pace_wait_ns(&p, &p.wire, 65536, now + 10 * SECOND) > 0);
    pace_guest_end(&p, false, now, now + MS);
    now += MS;
    CHECK(pace_wait_ns(&p, &p.wire, 65536, now + p.config.grace_ns - MS) == MS);
    CHECK_EQ(pace_wait_ns(&p, &p.wire, 65536, now + p.config.grace_ns), 0);
}

TEST(pace, fixed_has_no_regard_for_guests)
{
    set_up();
    p.config.mode = PREFETCH_FIXED;
    pace_guest_begin(&p, now);
    pace_guest_end(&p, true, now, now + MS);
    p.wire.window_bytes = 1;
    for (unsigned i = 0; i < 8; i++) {
        CHECK_EQ(pace_wait_ns(&p, &p.wire, 4 * MIB, now), 0);
        pace_begin(&p.wire, 4 * MIB);
    }
    CHECK(pace_wait_ns(&p, &p.wire, 4 * MIB, now) == UINT64_MAX);
}

TEST(pace, the_disk_has_a_window_of_its_own)
{
    set_up();
    for (unsigned i = 0; i < 200; i++) { /* a disk that gets slower with every byte in flight */
        pace_begin(&p.disk, MIB);
        now += 20 * MS;
        pace_wait_ns(&p, &p.disk, MIB, now);
        pace_end(&p, &p.disk, MIB, (i + 1) * 20 * MS, false, now);
    }
    CHECK(p.disk.window_bytes <= 2 * MIB);
    CHECK(p.wire.window_bytes == 1 * MIB);
    CHECK_EQ(pace_wait_ns(&p, &p.wire, MIB, now), 0);
}
