/* SPDX-License-Identifier: BSD-3-Clause */
/* The error-injecting filter: which requests a rule hits, and coming and going under load. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/formats.h"
#include "lun-backends/inject.h"
#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "util/loop.h"

#define MIB (1024u * 1024)
#define BLK 4096u

static struct mem_node *mem; /* the file */
static struct blk_node *raw; /* the format over it */
static struct blk_node *inject;
static struct blk_head disk;
static uint8_t buf[BLK];

static void __attribute__((constructor)) start(void)
{
    loop_init();
    blk_init();
}

static void co_set_up(void *arg)
{
    struct error err = ERROR_INIT;

    (void)arg;
    REQUIRE(!co_raw_open(&mem->node, true, &raw, &err));
    blk_head_init(&disk, "disk", raw, true);
    REQUIRE(!co_inject_insert(raw, &inject, &err));
}

static void set_up(void)
{
    mem = mem_node_new(MIB, BLK);
    mem_node_fill(mem, 0, MIB, BLK_ST_DATA, 0x11);
    mem_node_run(co_set_up, NULL);
    CHECK(inject_node_below(raw) == inject);
}

static void co_head_close(void *arg)
{
    co_blk_head_fini(arg);
}

static void tear_down(void)
{
    mem_node_run(co_head_close, &disk);
    blk_node_unref(raw);
    blk_node_unref(&mem->node);
    CHECK(TURN_UNTIL(!blk_closing()));
}

static void rule(struct inject_rule r)
{
    struct error err = ERROR_INIT;

    if (!r.end_bytes)
        r.end_bytes = UINT64_MAX;
    CHECK_EQ(inject_add_rule(inject, &r, &err), 0);
}

/* One request through the format, or with flags straight at the filter, and how it ended. */
struct ask {
    struct blk_node *node;
    enum blk_verb verb;
    uint64_t offset;
    uint32_t flags;
    int result;
    bool done;
};

static void co_ask(void *arg)
{
    struct ask *a = arg;

    if (a->verb == BLK_READ)
        a->result = co_blk_read(a->node, a->offset, buf, BLK, a->flags);
    else if (a->verb == BLK_WRITE)
        a->result = co_blk_write(a->node, a->offset, buf, BLK, a->flags);
    else
        a->result = co_blk_flush(a->node);
    a->done = true;
}

static int ask(enum blk_verb verb, uint64_t offset, uint32_t flags)
{
    struct ask a = {inject, verb, offset, flags, 0, false};

    mem_node_run(co_ask, &a);
    return a.result;
}

TEST(inject, passes_what_no_rule_names)
{
    set_up();
    CHECK_EQ(ask(BLK_READ, 0, 0), 0);
    CHECK_EQ(buf[0], 0x11);
    CHECK_EQ(ask(BLK_WRITE, BLK, 0), 0);
    CHECK_EQ(ask(BLK_FLUSH, 0, 0), 0);
    CHECK_EQ(mem->reads, 1);
    CHECK_EQ(mem->writes, 1);
    CHECK_EQ(inject_hits(inject), 0);
    tear_down();
}

TEST(inject, a_rule_hits_its_verb_and_range_only)
{
    set_up();
    rule((struct inject_rule){
        .verbs = 1u << BLK_READ, .start_bytes = 2 * BLK + 1, .end_bytes = 3 * BLK, .error = EIO});
    CHECK_EQ(ask(BLK_READ, BLK, 0), 0);
    CHECK_EQ(ask(BLK_READ, 2 * BLK, 0), -EIO);
    CHECK_EQ(ask(BLK_READ, 3 * BLK, 0), 0);
    CHECK_EQ(ask(BLK_WRITE, 2 * BLK, 0), 0);
    CHECK_EQ(inject_hits(inject), 1);
    CHECK_EQ(mem->reads, 2);
    tear_down();
}

TEST(inject, tells_metadata_from_data)
{
    set_up();
    rule((struct inject_rule){.verbs = 1u << BLK_WRITE, .part = INJECT_METADATA, .error = ENOSPC});
    rule((struct inject_rule){.verbs = 1u << BLK_READ, .part = INJECT_DATA, .error = EIO});
    CHECK_EQ(ask(BLK_WRITE, 0, 0), 0);
    CHECK_EQ(ask(BLK_WRITE, 0, BLK_META), -ENOSPC);
    CHECK_EQ(ask(BLK_READ, 0, BLK_META), 0);
    CHECK_EQ(ask(BLK_READ, 0, 0), -EIO);
    tear_down();
}

TEST(inject, skips_so_many_and_fails_once)
{
    set_up();
    rule((struct inject_rule){.verbs = 1u << BLK_FLUSH, .skip = 2, .once = true, .error = EIO});
    CHECK_EQ(ask(BLK_FLUSH, 0, 0), 0);
    CHECK_EQ(ask(BLK_FLUSH, 0, 0), 0);
    CHECK_EQ(ask(BLK_FLUSH, 0, 0), -EIO);
    CHECK_EQ(ask(BLK_FLUSH, 0, 0), 0);
    CHECK_EQ(mem->flushes, 1 + 3); /* one at the insertion */
    tear_down();
}

TEST(inject, a_rule_without_an_error_only_delays)
{
    uint64_t began;

    set_up();
    rule((struct inject_rule){.verbs = 1u << BLK_READ, .delay_ns = 20 * UINT64_C(1000000)});
    began = now_ns();
    CHECK_EQ(ask(BLK_READ, 0, 0), 0);
    CHECK(now_ns() - began >= 20 * UINT64_C(1000000));
    CHECK_EQ(buf[0], 0x11);
    tear_down();
}

TEST(inject, rules_are_bounded)
{
    struct inject_rule r = {.verbs = 1u << BLK_READ, .start_bytes = MIB, .end_bytes = MIB + 1};
    struct error err = ERROR_INIT;

    set_up();
    for (unsigned i = 0; i < INJECT_MAX_RULES; i++)
        CHECK_EQ(inject_add_rule(inject, &r, &err), 0);
    CHECK_EQ(inject_add_rule(inject, &r, &err), -ENOBUFS);
    CHECK_EQ(ask(BLK_READ, 0, 0), 0);
    tear_down();
}

static void co_insert_again(void *arg)
{
    struct blk_node **again = arg;
    struct error err = ERROR_INIT;

    CHECK_EQ(co_inject_insert(raw, again, &err), 0);
}

TEST(inject, a_second_insertion_gives_the_same_filter)
{
    struct blk_node *again = NULL;

    set_up();
    mem_node_run(co_insert_again, &again);
    CHECK(again == inject);
    tear_down();
}

static void co_remove(void *arg)
{
    (void)arg;
    co_inject_remove(raw);
}

/* What a format does in the background is not stopped by a drain. */
TEST(inject, requests_on_their_way_outlive_the_removal)
{
    struct ask a = {inject, BLK_READ, 0, 0, 1, false};

    set_up();
    a.node = inject;
    mem->hold_reads = true;
    co_spawn(co_ask, &a);
    CHECK(TURN_UNTIL(mem->running == 1));
    mem_node_run(co_remove, NULL);
    CHECK(inject_node_below(raw) == NULL);
    CHECK(raw->file.child == &mem->node);
    CHECK(blk_closing());
    CHECK(!a.done);
    mem_node_release(mem);
    CHECK(TURN_UNTIL(a.done));
    CHECK_EQ(a.result, 0);
    CHECK(TURN_UNTIL(!blk_closing()));
    tear_down();
}
