/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Dropping one layer that decides nothing any more: the layer right above has a say wherever this
 * one has (after a stream, or because the guest wrote everything again), or what it decides reads
 * the same below it. So every layer reads as before.
 *
 * Order: LUN gone, the layer above names the one below, durably, then the graph, then the record.
 * A crash in between is found out at the next start, from the images.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "admin/live.h"
#include "util/log.h"
#include "util/size.h"

#define WALK_BYTES (UINT64_C(1) << 30) /* of the disk between two turns of the loop */

struct dropping {
    struct chain *c;
    unsigned i;
    struct layer *l, *above, *below; /* below: NULL, it is the base */
};

/* ---- may it be done? ------------------------------------------------------------------------- */

static int refuse(const struct dropping *p, uint64_t offset, struct error *err)
{
    return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY,
                           "%s needs %s: at %" PRIu64 " it has no data of its own. Stream it "
                           "('stream start'), or commit %s into the layer below it",
                           p->above->filename, p->l->filename, offset, p->l->filename);
}

static int map_error(const struct layer *l, int ret, struct error *err)
{
    return error_set(err, -ret, "can't read the mapping of %s: %s", l->filename, strerror(-ret));
}

/* Zeros all along [start, end), whatever layer says so from @node down. */
static int co_reads_zero(const struct dropping *p, uint64_t start, uint64_t end, struct error *err)
{
    struct blk_node *node = p->below ? p->below->node : NULL;
    struct blk_extent ext;
    int n;

    while (node && start < MIN_OF(end, node->size_bytes)) {
        n = co_blk_status_walk(node, start, MIN_OF(end, node->size_bytes) - start, 0, &ext, 1);
        if (n < 0)
            return map_error(p->below, n, err);
        if (ext.state != BLK_ST_ZERO && ext.state != BLK_ST_UNALLOCATED)
            return 0;
        start += ext.length_bytes;
    }
    return 1;
}

/* The layer decides [start, end), by zeros alone if @zeros. */
static int co_check_decided(const struct dropping *p, uint64_t start, uint64_t end, bool zeros,
                            struct error *err)
{
    struct blk_extent ext;
    int ret;

    end = MIN_OF(end, p->above->node->size_bytes);
    for (; start < end; start += ext.length_bytes) {
        ret = co_blk_status(p->above->node, start, end - start, &ext);
        if (ret)
            return map_error(p->above, ret, err);
        if (ext.state != BLK_ST_UNALLOCATED)
            continue;
        ret = zeros ? co_reads_zero(p, start, start + ext.length_bytes, err) : 0;
        if (ret <= 0)
            return ret ? ret : refuse(p, start, err);
    }
    return 0;
}

/* Layers only ever gain a say under guest writes, so what is found holds until the end. */
static int co_check_contained(const struct dropping *p, struct error *err)
{
    uint64_t size = p->l->node->size_bytes, done = 0, end;
    struct blk_extent ext;
    int ret = 0;

    while (done < size && !ret) {
        for (end = MIN_OF(size, done + WALK_BYTES); done < end && !ret; done += ext.length_bytes) {
            ret = co_blk_status(p->l->node, done, end - done, &ext);
            if (ret)
                return map_error(p->l, ret, err);
            if (ext.state != BLK_ST_UNALLOCATED)
                ret = co_check_decided(p, done, done + ext.length_bytes, ext.state == BLK_ST_ZERO,
                                       err);
        }
        co_pause();
    }
    if (!ret && p->below && p->below->node->size_bytes > size) /* past its end it reads zeros */
        ret = co_check_decided(p, size, p->below->node->size_bytes, true, err);
    return ret;
}

static int check_drop(const struct dropping *p, struct error *err)
{
    const struct chain *c = p->c;

    if (!p->above->node->drv->co_change_backing)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP, "%s (%s) keeps no backing name",
                               p->above->filename, p->above->format);
    if (p->l->lun && chain_check_lun(c, p->l->lun, err))
        return -err->errnum;
    return p->above->writable ? 0 : chain_check_other_chains(c, p->above, err);
}

/* ---- doing it -------------------------------------------------------------------------------- */

static int co_leave_out(struct dropping *p, struct error *err)
{
    struct layer *below = p->below;
    int ret;

    co_blk_drain_begin(p->above->node);
    ret = co_layer_write_backing(p->c, p->above, below ? below->filename : NULL,
                                 below ? below->format : NULL, err);
    if (!ret)
        blk_set_backing(p->above->node, below ? below->node : NULL);
    blk_drain_end(p->above->node);
    return ret;
}

static int co_drop(struct dropping *p, struct error *err)
{
    struct chain *c = p->c;
    struct error serve_err = ERROR_INIT;
    uint16_t lun = p->l->lun;
    int ret;

    if (lun)
        co_chain_unserve_lun(c, lun);
    ret = co_leave_out(p, err);
    if (ret) {
        if (lun && chain_serve_layer(c, p->i, &serve_err))
            log_err("chain %s: %s", c->rec->name, serve_err.msg);
        return ret;
    }
    log_notice("chain %s: %s is out of use, %u layers left", c->rec->name, p->l->filename,
               c->nr_layers - 1);
    chain_record_drop_layers(c, p->i, 1);
    co_state_save_or_log(c->d->state);
    co_chain_drop_layers(c, p->i, 1);
    return 0;
}

int co_chain_drop_layer(struct chain *c, const char *text, struct error *err)
{
    struct dropping p = {.c = c};
    int i, ret = chain_check_served(c, err);

    if (!ret)
        ret = chain_check_op(c, CHAIN_OP_DROP_LAYER, err);
    if (ret)
        return ret;
    i = chain_find_layer(c, text, err);
    if (i < 0)
        return -err->errnum;
    if ((unsigned)i + 1 == c->nr_layers)
        return error_set(err, EINVAL,
                         "%s is the layer that chain '%s' goes by: commit it into the one below",
                         c->layers[i].filename, c->rec->name);
    p.i = (unsigned)i;
    p.l = &c->layers[i];
    p.above = &c->layers[i + 1];
    p.below = i ? &c->layers[i - 1] : NULL;
    ret = check_drop(&p, err);
    if (!ret)
        ret = co_check_contained(&p, err);
    if (!ret)
        ret = co_drop(&p, err);
    chain_update_pages(c, true);
    return ret;
}
