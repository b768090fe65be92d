/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Another backing below a layer, live: another file, or a chain of files, that reads the same
 * wherever the layer holds nothing itself. That is looked up before anything changes, and holds
 * until the end: under guest writes a layer only ever gains a say.
 *
 * Order: LUNs of what goes, the layer names its new backing, durably, then the graph, then the
 * record. A crash in between is found out at the next start, from the images.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "admin/live.h"
#include "util/log.h"
#include "util/size.h"

#define PIECE_BYTES (UINT64_C(1) << 20)

struct switching {
    struct chain *c;
    unsigned i; /* the layer that stays, with all above it */
    struct layer *l;
    struct chain_image *image; /* what comes below it */
    uint8_t *old, *new;        /* PIECE_BYTES each */
    struct layer *plan;        /* as the layers are to be; the new ones own names and references */
    unsigned nr_plan;
    struct layer_shape shape;
};

static const struct chain_layer *new_top(const struct switching *p)
{
    return &p->image->layers[p->image->nr_layers - 1];
}

static struct blk_node *old_top(const struct switching *p)
{
    return p->i ? p->c->layers[p->i - 1].node : NULL;
}

/* ---- may it be done? ------------------------------------------------------------------------- */

static int check_switch(const struct switching *p, struct error *err)
{
    const struct chain *c = p->c;

    if (!p->l->node->drv->co_change_backing)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP, "%s (%s) keeps no backing name",
                               p->l->filename, p->l->format);
    if (c->rec->commit_top)
        return error_set(err, EINVAL, "a commit into %s did not come to its end: do it again first",
                         c->rec->commit_base);
    for (unsigned i = 0; i < p->i; i++)
        if (c->layers[i].lun && chain_check_lun(c, c->layers[i].lun, err))
            return -err->errnum;
    return p->l->writable ? 0 : chain_check_other_chains(c, p->l, err);
}

static int check_image(const struct switching *p, struct error *err)
{
    const struct chain *c = p->c;
    struct file_identity id;

    if (p->image->nr_layers + c->nr_layers - p->i > CHAIN_MAX_LAYERS ||
        chain_next_lun(c->rec) + p->image->nr_layers > TARGET_MAX_LUN)
        return error_set(err, E2BIG,
                         "chain '%s' has had too many layers: commit some, or export it anew",
                         c->rec->name);
    for (unsigned n = 0; n < p->image->nr_layers; n++)
        for (unsigned i = p->i; i < c->nr_layers; i++)
            if (chain_node_identity(c->layers[i].node, &id) &&
                id.dev == p->image->layers[n].identity.dev &&
                id.inode == p->image->layers[n].identity.inode)
                return error_set(err, EINVAL, "%s would be below itself", c->layers[i].filename);
    return 0;
}

/* ---- does it read the same? --------------------------------------------------------------- */

/* Zeros at @at or not, and how far. Past its end, or without it, a disk reads zeros. */
static int co_zeros_at(struct blk_node *node, uint64_t at, uint64_t *end, bool *zeros)
{
    struct blk_extent ext;
    int n;

    *zeros = true;
    if (!node || at >= node->size_bytes)
        return 0;
    *end = MIN_OF(*end, node->size_bytes);
    n = co_blk_status_walk(node, at, *end - at, 0, &ext, 1);
    if (n < 0)
        return n;
    *end = MIN_OF(*end, at + ext.length_bytes);
    *zeros = ext.state == BLK_ST_ZERO || ext.state == BLK_ST_UNALLOCATED;
    return 0;
}

static int co_read_piece(struct blk_node *node, bool zeros, uint64_t at, uint8_t *buf,
                         uint64_t bytes)
{
    if (!zeros)
        return co_blk_read(node, at, buf, bytes, 0);
    memset(buf, 0, bytes);
    return 0;
}

static int refuse(const struct switching *p, uint64_t offset, struct error *err)
{
    return error_set(err, EINVAL,
                     "%s reads otherwise than what is below %s now, at %" PRIu64
                     ": the disk would change",
                     new_top(p)->filename, p->l->filename, offset);
}

static int co_compare_piece(const struct switching *p, uint64_t at, uint64_t *end,
                            struct error *err)
{
    struct blk_node *from = old_top(p), *to = new_top(p)->node;
    bool old_zeros = true, new_zeros = true;
    uint64_t same = 0;
    int ret = co_zeros_at(from, at, end, &old_zeros);

    if (!ret)
        ret = co_zeros_at(to, at, end, &new_zeros);
    if (!ret && old_zeros && new_zeros)
        return 0;
    *end = MIN_OF(*end, at + PIECE_BYTES);
    if (!ret)
        ret = co_read_piece(from, old_zeros, at, p->old, *end - at);
    if (!ret)
        ret = co_read_piece(to, new_zeros, at, p->new, *end - at);
    if (ret)
        return error_set(err, -ret, "comparing %s with what is below %s: %s", new_top(p)->filename,
                         p->l->filename, strerror(-ret));
    if (!memcmp(p->old, p->new, *end - at))
        return 0;
    while (p->old[same] == p->new[same])
        same++;
    return refuse(p, at + same, err);
}

static int co_check_same(const struct switching *p, struct error *err)
{
    uint64_t size = p->l->node->size_bytes, at = 0, end;
    struct blk_extent ext;
    int ret = 0;

    while (at < size && !ret) {
        ret = co_blk_status(p->l->node, at, size - at, &ext);
        if (ret)
            return error_set(err, -ret, "can't read the mapping of %s: %s", p->l->filename,
                             strerror(-ret));
        if (p->c->d->shutting_down)
            return error_set(err, ESHUTDOWN, "the daemon is ending");
        end = at + ext.length_bytes;
        if (ext.state == BLK_ST_UNALLOCATED)
            ret = co_compare_piece(p, at, &end, err);
        at = end;
        co_pause();
    }
    return ret;
}

/* ---- doing it -------------------------------------------------------------------------------- */

/* A file that was in the chain keeps its number. */
static uint16_t lun_for(const struct switching *p, const char *filename, uint16_t *next)
{
    for (unsigned i = 0; i < p->i; i++)
        if (!strcmp(p->c->layers[i].filename, filename) && p->c->layers[i].lun)
            return p->c->layers[i].lun;
    return (*next)++;
}

static int plan_layers(struct switching *p, struct error *err)
{
    struct chain *c = p->c;
    unsigned n = p->image->nr_layers;
    uint16_t next = chain_next_lun(c->rec);

    p->nr_plan = n + c->nr_layers - p->i;
    p->plan = calloc(p->nr_plan, sizeof(*p->plan));
    if (!p->plan)
        return error_set(err, ENOMEM, "out of memory");
    memcpy(p->plan + n, p->l, (c->nr_layers - p->i) * sizeof(*p->plan));
    for (unsigned i = 0; i < n; i++) {
        const struct chain_layer *from = &p->image->layers[i];
        struct layer *l = &p->plan[i];

        l->filename = strdup(from->filename);
        if (!l->filename)
            return error_set(err, ENOMEM, "out of memory");
        strcpy(l->format, from->format);
        l->node = blk_node_ref(from->node);
        l->lun = lun_for(p, from->filename, &next);
        state_file_uuid(c->d->state, l->filename, &from->identity, &l->uuid);
    }
    return shape_init(&p->shape, c->rec, p->plan, p->nr_plan, err);
}

/* What has not become part of the chain. */
static void co_release(struct switching *p)
{
    for (unsigned i = 0; p->plan && i < p->image->nr_layers; i++) {
        co_blk_node_unref(p->plan[i].node);
        free(p->plan[i].filename);
    }
    free(p->plan);
    shape_release(&p->shape);
    co_chain_close(p->image);
    free(p->old);
    free(p->new);
}

static void co_serve(struct chain *c, unsigned n)
{
    struct error err = ERROR_INIT;

    for (unsigned i = 0; i < n; i++)
        if (c->layers[i].lun && chain_serve_layer(c, i, &err))
            log_err("chain %s: %s", c->rec->name, err.msg);
}

static int co_join(struct switching *p, struct error *err)
{
    int ret;

    co_blk_drain_begin(p->l->node);
    ret = co_layer_write_backing(p->c, p->l, new_top(p)->filename, new_top(p)->format, err);
    if (!ret)
        blk_set_backing(p->l->node, new_top(p)->node);
    blk_drain_end(p->l->node);
    return ret;
}

/* The images say so already, whether the state gets to the disk or not. */
static void co_take_over(struct switching *p)
{
    struct chain *c = p->c;
    struct error err = ERROR_INIT;
    struct layer *gone = c->layers;
    unsigned nr_gone = p->i;

    memcpy(p->plan + p->image->nr_layers, p->l, (c->nr_layers - p->i) * sizeof(*p->plan));
    c->layers = p->plan;
    c->nr_layers = p->nr_plan;
    p->plan = NULL;
    shape_swap(&p->shape, c->rec);
    if (co_state_save(c->d->state, &err))
        log_err("chain %s: %s; its record follows", c->rec->name, err.msg);
    co_chain_let_go(c, gone, nr_gone);
    free(gone);
}

static int co_switch(struct switching *p, struct error *err)
{
    struct chain *c = p->c;
    unsigned n = p->image->nr_layers;
    int ret;

    for (unsigned i = 0; i < p->i; i++)
        if (c->layers[i].lun)
            co_chain_unserve_lun(c, c->layers[i].lun);
    ret = co_join(p, err);
    if (ret) {
        co_serve(c, p->i);
        return ret;
    }
    log_notice("chain %s: below %s there is %s now", c->rec->name, p->l->filename,
               new_top(p)->filename);
    co_take_over(p);
    co_serve(c, n);
    return 0;
}

int co_chain_switch_backing(struct chain *c, unsigned i, const char *file, const char *format,
                            struct error *err)
{
    struct chain_open_opts opts = {
        .format = format,
        .probe_backing = c->rec->probe_backing,
        .cache = record_cache(c->rec),
    };
    struct switching p = {.c = c, .i = i, .l = &c->layers[i]};
    int ret = check_switch(&p, err);

    if (!ret)
        ret = co_chain_open(file, &opts, &p.image, err);
    if (ret)
        return ret;
    p.old = malloc(PIECE_BYTES);
    p.new = malloc(PIECE_BYTES);
    ret = p.old && p.new ? check_image(&p, err) : error_set(err, ENOMEM, "out of memory");
    if (!ret)
        ret = co_check_same(&p, err);
    if (!ret)
        ret = plan_layers(&p, err);
    if (!ret)
        ret = co_switch(&p, err);
    co_release(&p);
    if (!ret)
        chain_update_pages(c, true);
    return ret;
}
