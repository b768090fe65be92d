/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A stream under a guest: random reads, writes and zeroes through copy-on-read while the job
 * copies, is paused, and loses its source. Every read is compared with a model, and so is the
 * overlay alone at the end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/formats.h"
#include "lun-backends/stream.h"
#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "util/loop.h"
#include "util/size.h"

#define MIB    (1024u * 1024)
#define UNIT   4096u
#define SIZE   (24 * MIB + 1536)
#define SECTOR 512u
#define GUESTS 6

static struct mem_node *base, *top;
static struct blk_node *cor;
static struct blk_head disk;
static uint8_t *model;
static bool busy[SIZE / SECTOR + 1]; /* sectors some guest works on */
static bool stop_guests;
static unsigned guests, guest_ios;
static int last_ret;
static bool concluded;

static void sink(struct job *job, enum job_event ev, const char *detail)
{
    (void)detail;
    if (ev == JOB_EV_STATUS_CHANGE && job->status == JOB_CONCLUDED) {
        last_ret = job->ret;
        concluded = true;
    }
}

static void __attribute__((constructor)) start(void)
{
    loop_init();
    blk_init();
    job_set_event_sink(sink);
}

struct guest_io {
    struct blk_req req;
    struct coroutine *co;
};

static void guest_io_done(struct blk_req *req)
{
    co_enter(container_of(req, struct guest_io, req)->co);
}

/* As a LUN does: parked while the source is away. */
static int co_guest_io(enum blk_verb verb, uint64_t offset, uint64_t bytes, uint8_t *buf)
{
    struct iovec iov = {buf, bytes};
    int ret;

    do {
        struct guest_io io = {
            .req = {.verb = verb, .offset_bytes = offset, .length_bytes = bytes},
            .co = co_self(),
        };

        io.req.iov = &iov;
        io.req.niov = 1;
        io.req.done = guest_io_done;
        blk_head_submit(&disk, &io.req);
        co_yield ();
        ret = io.req.result;
        if (ret == -EHOSTDOWN)
            co_sleep(2000000);
    } while (ret == -EHOSTDOWN);
    return ret;
}

/* A range no other guest works on, taken. */
static bool take_range(uint64_t *offset, uint64_t *bytes)
{
    uint64_t sectors = 1 + (uint64_t)rand() % (rand() % 4 ? 24 : 300);
    uint64_t first = (uint64_t)rand() % (SIZE / SECTOR);

    if (sectors > SIZE / SECTOR - first)
        sectors = SIZE / SECTOR - first;
    for (uint64_t i = first; i < first + sectors; i++) {
        if (busy[i])
            return false;
    }
    memset(busy + first, true, sectors);
    *offset = first * SECTOR;
    *bytes = sectors * SECTOR;
    return true;
}

static void co_guest(void *arg)
{
    uint8_t *buf = malloc(300 * SECTOR);

    (void)arg;
    guests++;
    while (!stop_guests) {
        uint64_t offset, bytes;
        int what = rand() % 10;

        co_sleep(200000);
        if (!take_range(&offset, &bytes))
            continue;
        if (what < 6) {
            CHECK_EQ(co_guest_io(BLK_READ, offset, bytes, buf), 0);
            CHECK(!memcmp(buf, model + offset, bytes));
        } else if (what < 9) {
            memset(buf, rand() & 0xff, bytes);
            CHECK_EQ(co_guest_io(BLK_WRITE, offset, bytes, buf), 0);
            memcpy(model + offset, buf, bytes);
        } else {
            CHECK_EQ(co_guest_io(BLK_WRITE_ZEROES, offset, bytes, NULL), 0);
            memset(model + offset, 0, bytes);
        }
        memset(busy + offset / SECTOR, false, bytes / SECTOR);
        guest_ios++;
    }
    free(buf);
    guests--;
}

static void drop_backing(struct job *job, void *opaque)
{
    (void)opaque;
    if (job->ret)
        return;
    co_blk_drain_begin(&top->node);
    blk_set_backing(&top->node, NULL);
    blk_drain_end(&top->node);
}

static void co_head_close(void *arg)
{
    co_blk_head_fini(arg);
}

static void set_up(unsigned seed)
{
    srand(seed);
    printf("seed %u\n", seed);
    base = mem_node_new(SIZE, 512);
    top = mem_node_new(SIZE, UNIT);
    model = calloc(1, SIZE);
    for (uint64_t at = 0; at < SIZE;) {
        uint64_t bytes = (1 + (uint64_t)rand() % 500) * 512;
        enum blk_state state = (enum blk_state)(rand() % 3);
        uint8_t fill = (uint8_t)rand();

        bytes = MIN_OF(bytes, SIZE - at);
        mem_node_fill(base, at, bytes, state, fill);
        memset(model + at, state == BLK_ST_DATA ? fill : 0, bytes);
        at += bytes;
    }
    blk_set_backing(&top->node, &base->node);
    cor = copy_on_read_new(&top->node);
    blk_head_init(&disk, "disk", cor, true);
    base->delay_ns = 1500000;
    concluded = stop_guests = false;
    guest_ios = 0;
    memset(busy, 0, sizeof(busy));
}

static void tear_down(void)
{
    mem_node_run(co_head_close, &disk);
    blk_node_unref(cor);
    blk_node_unref(&top->node);
    blk_node_unref(&base->node);
    CHECK(TURN_UNTIL(!blk_closing()));
    free(model);
}

/* Some milliseconds of each kind of trouble until the job has ended. */
static void trouble(struct job *job)
{
    struct error err = ERROR_INIT;

    for (unsigned round = 0; !concluded && round < 2000; round++) {
        base->down = rand() % 4 == 0;
        if (!base->down)
            blk_node_notify(&base->node, BLK_EV_SOURCE_UP);
        if (rand() % 4 == 0)
            job_pause(job, &err);
        for (int i = rand() % 20; i > 0 && !concluded; i--)
            mem_node_turn();
        if (!concluded && job->user_paused)
            job_resume(job, &err);
        for (int i = rand() % 10; i > 0 && !concluded; i--)
            mem_node_turn();
    }
}

static bool overlay_is_the_model(void)
{
    for (uint64_t at = 0; at < SIZE; at += SECTOR) {
        static const uint8_t zeros[SECTOR];
        bool data = mem_node_state(top, at) == BLK_ST_DATA;

        if (memcmp(data ? top->data + at : zeros, model + at, SECTOR))
            return false;
    }
    return true;
}

static void stream_under_a_guest(unsigned seed)
{
    struct error err = ERROR_INIT;
    struct job *job;

    set_up(seed);
    job = stream_job_new("live", "vm1", &(struct stream_plan_opts){.first.overlay = &top->node},
                         &err);
    REQUIRE(job);
    job->on_done = drop_backing;
    job_set_speed(job, 40 * MIB, &err);
    for (int i = 0; i < GUESTS; i++)
        co_spawn(co_guest, NULL);
    job_start(job);
    trouble(job);
    base->down = false;
    CHECK(TURN_UNTIL(concluded));
    CHECK_EQ(last_ret, 0);
    CHECK(!top->node.backing.child);
    CHECK(TURN_UNTIL(guest_ios > 100));
    stop_guests = true;
    CHECK(TURN_UNTIL(!guests));
    CHECK(overlay_is_the_model());
    tear_down();
}

TEST(stream_live, reads_are_right_and_so_is_what_is_left)
{
    for (unsigned seed = 1; seed <= 3; seed++)
        stream_under_a_guest(seed);
}

/* Reads on through the second half of the disk, at once. */
static void co_reader(void *arg)
{
    uint8_t buf[4096];

    (void)arg;
    guests++;
    for (uint64_t at = SIZE / 2; at + sizeof(buf) <= SIZE; at += 256u << 10)
        CHECK_EQ(co_guest_io(BLK_READ, at & ~(uint64_t)(SECTOR - 1), sizeof(buf), buf), 0);
    guests--;
}

TEST(stream_live, what_guests_read_on_from_does_not_stop_the_walk)
{
    struct stream_stats st = {0};
    struct error err = ERROR_INIT;
    uint64_t ahead = 0;
    struct job *job;

    set_up(4);
    mem_node_fill(base, 0, SIZE, BLK_ST_DATA, 7);
    memset(model, 7, SIZE);
    base->delay_ns = 0;
    disk.guest = true;
    job = stream_job_new("live", "vm1", &(struct stream_plan_opts){.first.overlay = &top->node},
                         &err);
    REQUIRE(job);
    job->on_done = drop_backing;
    job_set_speed(job, 40 * MIB, &err);
    job_start(job);
    co_spawn(co_reader, NULL);
    while (!concluded) {
        stream_get_stats(job, &st);
        if (st.hot_bytes > st.read_bytes - st.hot_bytes)
            ahead = MAX_OF(ahead, 2 * st.hot_bytes - st.read_bytes);
        mem_node_turn();
    }
    CHECK(st.hot_bytes > 5 * MIB);
    CHECK(ahead > 0 && ahead <= 10 * MIB); /* of the 12 that were asked for */
    CHECK(TURN_UNTIL(!guests));
    CHECK(overlay_is_the_model());
    tear_down();
}
