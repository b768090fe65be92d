/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The map of local blocks: in memory, on disk, and who decides blocks now. Pages of the map are
 * copied before the data is flushed, so that what is written says nothing of later data.
 */
#define LOG_AREA "cowmap"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/cowmap-int.h"
#include "util/bitmap.h"
#include "util/byteorder.h"
#include "util/log.h"
#include "util/size.h"

#define BATCH_PAGES 256u

/* ---- loading ----------------------------------------------------------------------- */

int co_cowmap_load(struct cowmap *cm)
{
    uint64_t words = BITMAP_WORDS(cm->nr_blocks), pages = cm->nr_pages;
    uint8_t *buf = aligned_alloc(4096, BATCH_PAGES * COWMAP_PAGE_BYTES);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t page = 0; !ret && page < pages; page += BATCH_PAGES) {
        size_t bytes = MIN_OF(pages - page, (uint64_t)BATCH_PAGES) * COWMAP_PAGE_BYTES;
        uint64_t word = page * COWMAP_PAGE_WORDS;

        ret = co_blk_read(cm->map_file, COWMAP_HEADER_BYTES + page * COWMAP_PAGE_BYTES, buf, bytes,
                          0);
        for (size_t at = 0; !ret && at < bytes && word < words; at += 8)
            cm->local[word++] = get_be64(buf + at);
    }
    free(buf);
    if (!ret && cm->nr_blocks % 64)
        cm->local[words - 1] &= (UINT64_C(1) << (cm->nr_blocks % 64)) - 1;
    return ret;
}

/* ---- changing ---------------------------------------------------------------------- */

static void mark_dirty(struct cowmap *cm, uint64_t page)
{
    if (!bitmap_test(cm->dirty, page)) {
        bitmap_set(cm->dirty, page);
        cm->nr_dirty++;
    }
}

void cowmap_set_local(struct cowmap *cm, uint64_t first, uint64_t end)
{
    for (uint64_t b = first; b < end; b++) {
        if (!bitmap_test(cm->local, b)) {
            bitmap_set(cm->local, b);
            mark_dirty(cm, b / COWMAP_PAGE_BITS);
        }
    }
}

/* ---- flushing ---------------------------------------------------------------------- */

struct batch {
    uint64_t page[BATCH_PAGES];
    unsigned nr;
    uint8_t *buf;
};

static void copy_page(const struct cowmap *cm, uint64_t page, uint8_t *out)
{
    uint64_t words = BITMAP_WORDS(cm->nr_blocks), word = page * COWMAP_PAGE_WORDS;

    memset(out, 0, COWMAP_PAGE_BYTES);
    for (unsigned i = 0; i < COWMAP_PAGE_WORDS && word < words; i++)
        put_be64(out + 8 * i, cm->local[word++]);
}

/* Takes dirty pages from @from on; where to look for more. */
static uint64_t take_batch(struct cowmap *cm, struct batch *b, uint64_t from)
{
    uint64_t page = from;

    for (b->nr = 0; b->nr < BATCH_PAGES; b->nr++, page++) {
        page = bitmap_next_set(cm->dirty, cm->nr_pages, page);
        if (page >= cm->nr_pages)
            break;
        copy_page(cm, page, b->buf + b->nr * COWMAP_PAGE_BYTES);
        b->page[b->nr] = page;
        bitmap_clear(cm->dirty, page);
        cm->nr_dirty--;
    }
    return page;
}

static int co_write_batch(struct cowmap *cm, const struct batch *b)
{
    int ret = 0;

    for (unsigned i = 0, n; !ret && i < b->nr; i += n) {
        for (n = 1; i + n < b->nr && b->page[i + n] == b->page[i] + n;)
            n++;
        ret = co_blk_write(cm->map_file, COWMAP_HEADER_BYTES + b->page[i] * COWMAP_PAGE_BYTES,
                           b->buf + i * COWMAP_PAGE_BYTES, n * COWMAP_PAGE_BYTES, 0);
    }
    return ret;
}

static int co_flush_pages(struct cowmap *cm, struct batch *b)
{
    uint64_t next = 0;
    int ret = 0;

    do {
        next = take_batch(cm, b, next);
        ret = co_blk_flush(cm->node.file.child);
        if (!ret)
            ret = co_write_batch(cm, b);
        for (unsigned i = 0; ret && i < b->nr; i++)
            mark_dirty(cm, b->page[i]);
    } while (!ret && next < cm->nr_pages);
    if (!ret) {
        ret = co_blk_flush(cm->map_file);
        cm->map_error = ret;
    }
    return ret;
}

static int co_flush_all(struct cowmap *cm)
{
    struct batch *b;
    int ret = -ENOMEM;

    if (cm->map_error)
        return cm->map_error;
    if (!cm->nr_dirty)
        return co_blk_flush(cm->node.file.child);
    b = malloc(sizeof(*b));
    if (b && (b->buf = aligned_alloc(4096, BATCH_PAGES * COWMAP_PAGE_BYTES))) {
        ret = co_flush_pages(cm, b);
        free(b->buf);
    }
    free(b);
    return ret;
}

int co_cowmap_flush(struct cowmap *cm)
{
    uint64_t ticket = ++cm->flushes_asked, upto;
    int ret = 0;

    co_mutex_lock(&cm->flush_lock);
    if (cm->flushes_done < ticket) { /* else another's flush began after this was asked for */
        upto = cm->flushes_asked;
        cm->flushing = true;
        ret = co_flush_all(cm);
        cm->flushing = false;
        if (!ret)
            cm->flushes_done = upto;
    }
    co_mutex_unlock(&cm->flush_lock);
    return ret;
}

bool cowmap_is_clean(const struct cowmap *cm)
{
    return !cm->nr_dirty && !cm->flushing && !cm->map_error;
}

/* ---- who decides blocks now -------------------------------------------------------- */

static bool must_wait(const struct cowmap *cm, const struct cowmap_change *ch)
{
    const struct cowmap_change *earlier;

    list_for_each_entry (earlier, &cm->changes, link) {
        if (earlier == ch)
            return false;
        if (earlier->first < ch->end && ch->first < earlier->end)
            return true;
    }
    return false;
}

void co_cowmap_lock(struct cowmap *cm, struct cowmap_change *ch, uint64_t first, uint64_t end)
{
    ch->first = first;
    ch->end = end;
    ch->waiting = NULL;
    list_add_tail(&cm->changes, &ch->link);
    if (must_wait(cm, ch)) {
        ch->waiting = co_self();
        co_yield ();
    }
}

void cowmap_unlock(struct cowmap *cm, struct cowmap_change *ch)
{
    struct cowmap_change *next;

    list_del(&ch->link);
    list_for_each_entry (next, &cm->changes, link) {
        if (next->waiting && !must_wait(cm, next)) {
            co_wake(next->waiting);
            next->waiting = NULL;
        }
    }
}
