/* SPDX-License-Identifier: BSD-3-Clause */
/* compare: two disks, by what they read as; with -s by size and allocation too. */
#include "admin/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/size.h"

#define PIECE_BYTES (UINT64_C(2) << 20)

/* qemu-img's exit statuses. */
enum { SAME = 0, DIFFERENT = 1, CANT_OPEN = 2, CANT_READ = 3 };

struct comparison {
    struct blk_node *node[2];
    uint8_t *buf[2];
    bool strict, quiet;
    struct image_progress progress;
};

static int say(const struct comparison *c, int status, const char *fmt, unsigned long long number)
{
    if (!c->quiet) {
        printf(fmt, number);
        putchar('\n');
    }
    return status;
}

static int cant_read(const struct comparison *c, int i, uint64_t offset, int ret)
{
    cli_fail("reading '%s' at offset %llu: %s", c->node[i]->filename, (unsigned long long)offset,
             strerror(-ret));
    return CANT_READ;
}

static int mismatch(const struct comparison *c, uint64_t offset)
{
    return say(c, DIFFERENT, "Content mismatch at offset %llu!", offset);
}

static bool has_data(enum blk_state state)
{
    return state == BLK_ST_DATA || state == BLK_ST_COMPRESSED;
}

/* The sector in which they differ first. */
static uint64_t first_difference(const uint8_t *a, const uint8_t *b, size_t bytes)
{
    size_t at = 0;

    while (at < bytes && !memcmp(a + at, b + at, MIN_OF(bytes - at, 512)))
        at += 512;
    return at;
}

/* @with: which of both hold data in [offset, offset + bytes); the others read zeros. */
static int co_compare_piece(struct comparison *c, uint64_t offset, size_t bytes, const bool with[2])
{
    for (int i = 0; i < 2; i++) {
        int ret = co_image_read(with[i] ? c->node[i] : NULL, offset, c->buf[i], bytes);

        if (ret)
            return cant_read(c, i, offset, ret);
    }
    if (!memcmp(c->buf[0], c->buf[1], bytes))
        return SAME;
    return mismatch(c, offset + first_difference(c->buf[0], c->buf[1], bytes));
}

static int co_compare_at(struct comparison *c, uint64_t offset, uint64_t end, uint64_t *done)
{
    struct blk_extent ext[2];
    bool with[2];

    *done = end - offset;
    for (int i = 0; i < 2; i++) {
        int ret = co_blk_status_walk(c->node[i], offset, *done, 0, &ext[i], 1);

        if (ret < 0)
            return cant_read(c, i, offset, ret);
        with[i] = has_data(ext[i].state);
        *done = MIN_OF(*done, ext[i].length_bytes);
    }
    if (c->strict && (with[0] != with[1] || (!with[0] && ext[0].state != ext[1].state)))
        return say(c, DIFFERENT, "Strict mode: Offset %llu block status mismatch!", offset);
    if (!with[0] && !with[1])
        return SAME;
    *done = MIN_OF(*done, PIECE_BYTES);
    return co_compare_piece(c, offset, *done, with);
}

/* Behind the end of the smaller one the larger one has to read zeros. */
static int co_compare_rest(struct comparison *c, int larger, uint64_t offset)
{
    struct blk_extent ext;
    uint64_t done;
    int ret;

    for (; offset < c->node[larger]->size_bytes; offset += done) {
        bool with[2] = {false, false};

        ret = co_blk_status_walk(c->node[larger], offset, c->node[larger]->size_bytes - offset, 0,
                                 &ext, 1);
        if (ret < 0)
            return cant_read(c, larger, offset, ret);
        done = MIN_OF(ext.length_bytes, PIECE_BYTES);
        with[larger] = has_data(ext.state);
        ret = with[larger] ? co_compare_piece(c, offset, done, with) : SAME;
        if (ret)
            return ret;
        image_progress_add(&c->progress, done);
    }
    return SAME;
}

static int co_compare(struct comparison *c)
{
    uint64_t size[2] = {c->node[0]->size_bytes, c->node[1]->size_bytes};
    uint64_t end = MIN_OF(size[0], size[1]), done;
    int ret = SAME;

    if (size[0] != size[1] && c->strict)
        return say(c, DIFFERENT, "Strict mode: Image size mismatch!", 0);
    for (uint64_t offset = 0; offset < end && !ret; offset += done) {
        ret = co_compare_at(c, offset, end, &done);
        image_progress_add(&c->progress, done);
    }
    if (size[0] != size[1] && !ret) {
        say(c, SAME, "Warning: Image size mismatch!", 0);
        ret = co_compare_rest(c, size[1] > size[0], end);
    }
    if (ret)
        return ret;
    image_progress_end(&c->progress);
    return say(c, SAME, "Images are identical.", 0);
}

int co_image_compare(json_t *args)
{
    struct image_open how[2] = {{.format = cli_str(args, "format")},
                                {.format = cli_str(args, "target-format")}};
    const char *path[2] = {cli_str(args, "filename"), cli_str(args, "target")};
    struct comparison c = {.strict = cli_bool(args, "strict"), .quiet = cli_bool(args, "quiet")};
    struct chain_image *chain[2] = {NULL, NULL};
    int ret = SAME;

    if (!image_cache_modes(args))
        return CANT_OPEN;
    for (int i = 0; i < 2 && !ret; i++) {
        how[i].cache = cli_str(args, "cache");
        how[i].share = cli_bool(args, "force-share");
        chain[i] = co_image_open(path[i], &how[i]);
        c.buf[i] = aligned_alloc(4096, PIECE_BYTES);
        if (!chain[i])
            ret = CANT_OPEN;
        else if (!c.buf[i]) {
            cli_fail("out of memory");
            ret = CANT_OPEN;
        } else {
            c.node[i] = image_top(chain[i]);
        }
    }
    if (!ret) {
        image_progress_start(&c.progress, args,
                             MAX_OF(c.node[0]->size_bytes, c.node[1]->size_bytes));
        ret = co_compare(&c);
    }
    for (int i = 0; i < 2; i++) {
        co_chain_close(chain[i]);
        free(c.buf[i]);
    }
    return ret;
}
