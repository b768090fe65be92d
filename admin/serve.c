/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a chain is shown: its target, LUN 0 (the disk), LUN 1..N (the layers) and what VPD D5h says
 * of each (COW layer extension, sections 1 and 3).
 */
#define LOG_AREA "chain"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "admin/accounts.h"
#include "admin/chains.h"
#include "admin/reservations.h"
#include "lun-backends/formats.h"
#include "target/scsi.h"
#include "util/log.h"

#define DEFAULT_BLOCK_BYTES 512

static const char *const view_names[] = {
    [COWL_VIEW_FLAT] = "flat",
    [COWL_VIEW_DELTA] = "delta",
    [COWL_VIEW_IMAGE] = "image",
};

enum cowl_view chain_view(const struct chain_record *rec)
{
    for (int v = COWL_VIEW_FLAT; v <= COWL_VIEW_IMAGE; v++) {
        if (!strcmp(rec->view, view_names[v]))
            return (enum cowl_view)v;
    }
    return COWL_VIEW_FLAT;
}

/* Chain names allow more than iSCSI names do (RFC 3722): capitals become small, _ becomes -. */
int chain_default_target(const char *chain_name, char *out, size_t len)
{
    int n = snprintf(out, len, TARGET_PREFIX "%s", chain_name);

    if (n < 0 || (size_t)n >= len)
        return -EINVAL;
    for (char *p = out; *p; p++)
        *p = *p == '_' ? '-' : (char)tolower((unsigned char)*p);
    return 0;
}

/* The file's own name, not where it lies on this host; cut at a character's start. */
static void page_name(const char *filename, char out[COWL_NAME_MAX + 1])
{
    const char *slash = strrchr(filename, '/');
    size_t len;

    filename = slash ? slash + 1 : filename;
    len = strlen(filename);
    if (len > COWL_NAME_MAX) {
        len = COWL_NAME_MAX;
        while (len && ((unsigned char)filename[len] & 0xc0) == 0x80)
            len--;
    }
    memcpy(out, filename, len);
    out[len] = '\0';
}

static void page_parent(const struct chain *c, unsigned i, struct cowl_page *pg)
{
    memset(pg->parent_lun, 0xff, sizeof(pg->parent_lun));
    if (i > 0) {
        pg->parent_uuid = c->layers[i - 1].uuid;
        if (c->layers[i - 1].lun)
            scsi_lun_encode(c->layers[i - 1].lun, pg->parent_lun);
    } else if (c->remote) {
        pg->flags |= COWL_PARENT_REMOTE;
        pg->parent_uuid = c->rec->source_layer; /* zeros if the source has no such thing */
    } else {
        pg->flags |= COWL_BASE;
    }
}

static uint32_t block_bytes(const struct chain *c)
{
    return c->rec->block_bytes ? (uint32_t)c->rec->block_bytes : DEFAULT_BLOCK_BYTES;
}

/* Page D5h of layer @i; @is_disk: as LUN 0 shows it (the top only). */
static void make_page(const struct chain *c, unsigned i, bool is_disk, struct cowl_page *pg)
{
    const struct layer *l = &c->layers[i];
    unsigned below = c->remote ? 1 : 0;

    memset(pg, 0, sizeof(*pg));
    page_parent(c, i, pg);
    if (!is_disk || !l->writable)
        pg->flags |= COWL_READ_ONLY;
    if (!l->writable)
        pg->flags |= COWL_SEALED;
    if (i == c->nr_layers - 1) {
        pg->flags |= COWL_TOP;
        if (c->stream)
            pg->flags |= COWL_STREAMING;
    }
    pg->layer_index = (uint16_t)(i + below);
    pg->nr_layers = (uint16_t)(c->nr_layers + below);
    pg->view = (uint8_t)(is_disk ? COWL_VIEW_FLAT : chain_view(c->rec));
    pg->chain_uuid = c->rec->uuid;
    pg->layer_uuid = l->uuid;
    pg->granularity_blocks = l->node->limits.granularity_bytes / block_bytes(c);
    pg->generation = (uint32_t)c->rec->generation;
    page_name(l->filename, pg->name);
}

void chain_update_pages(struct chain *c, bool announce)
{
    struct cowl_page pg;
    struct lun *lun;

    if (!c->target)
        return;
    for (unsigned i = 0; i < c->nr_layers; i++) {
        lun = c->layers[i].lun ? target_find_lun(c->target, c->layers[i].lun) : NULL;
        make_page(c, i, false, &pg);
        if (lun)
            lun_set_cowl(lun, &pg, announce);
    }
    lun = target_find_lun(c->target, 0);
    make_page(c, c->nr_layers - 1, true, &pg);
    if (lun)
        lun_set_cowl(lun, &pg, announce);
}

/* The node a layer LUN shows, with a reference for the caller. */
static struct blk_node *view_node(const struct chain *c, const struct layer *l)
{
    switch (chain_view(c->rec)) {
    case COWL_VIEW_DELTA:
        return delta_view_new(l->node);
    case COWL_VIEW_IMAGE:
        return image_view_new(l->node->file.child);
    case COWL_VIEW_FLAT:
        break;
    }
    return blk_node_ref(l == chain_top(c) ? chain_disk_node(c) : l->node);
}

static int add_lun(struct chain *c, const struct lun_opts *opts, struct error *err)
{
    struct lun *lun = target_add_lun(c->target, opts, err);
    uint64_t timeout_s = c->rec->source_timeout_s;

    if (!lun)
        return error_prefix(err, "LUN %u", opts->number);
    if (c->remote)
        lun_set_source_timeout(lun, timeout_s * UINT64_C(1000000000));
    return 0;
}

static int add_disk(struct chain *c, struct error *err)
{
    struct lun_opts opts = {
        .number = 0,
        .root = chain_disk_node(c),
        .writable = chain_top(c)->writable,
        .id = c->rec->uuid,
        .has_cowl = true,
        .block_bytes = block_bytes(c),
        .removable = c->rec->removable,
        .reservations = reservations_of(c->rec, 0),
        .mode = mode_parameters_of(c->rec, 0),
    };

    make_page(c, c->nr_layers - 1, true, &opts.cowl);
    return add_lun(c, &opts, err);
}

int chain_serve_layer(struct chain *c, unsigned i, struct error *err)
{
    const struct layer *l = &c->layers[i];
    enum cowl_view view = chain_view(c->rec);
    struct lun_opts opts = {
        .number = l->lun,
        .root = view_node(c, l),
        .has_cowl = true,
        .block_bytes = block_bytes(c),
        .reservations = reservations_of(c->rec, l->lun),
        .mode = mode_parameters_of(c->rec, l->lun),
        .anchored_zeros = view == COWL_VIEW_DELTA,
    };
    int ret;

    if (!opts.root)
        return error_set(err, ENOMEM, "out of memory");
    if (view == COWL_VIEW_IMAGE && l->node->data.child) {
        blk_node_unref(opts.root);
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "'%s' keeps its data in another file: view 'image' would show "
                               "metadata alone",
                               l->filename);
    }
    uuid_derive(&opts.id, &l->uuid, view_names[view]);
    make_page(c, i, false, &opts.cowl);
    ret = add_lun(c, &opts, err);
    blk_node_unref(opts.root);
    if (!ret)
        chain_throttle_apply(c, l->lun);
    return ret;
}

void co_chain_unserve_lun(struct chain *c, uint16_t lun)
{
    chain_throttle_drop(c, lun);
    co_target_remove_lun(c->target, lun);
}

/* Part of a block would be cut off. */
static int check_blocks(const struct chain *c, struct error *err)
{
    for (unsigned i = 0; i < c->nr_layers; i++) {
        const struct layer *l = &c->layers[i];

        if (block_bytes(c) > DEFAULT_BLOCK_BYTES && l->node->size_bytes % block_bytes(c))
            return error_set(err, EINVAL, "%s: %llu bytes are not whole blocks of %u", l->filename,
                             (unsigned long long)l->node->size_bytes, block_bytes(c));
    }
    return 0;
}

static int fill_target(struct chain *c, struct error *err)
{
    if (check_blocks(c, err))
        return -err->errnum;
    for (unsigned i = 0; i < c->rec->allowed.nr; i++) {
        if (target_allow(c->target, c->rec->allowed.items[i], err))
            return error_prefix(err, "allowed initiator");
    }
    if (chain_masks_apply(c, err) ||
        target_set_portal_groups(c->target, c->rec->portal_groups.items, c->rec->portal_groups.nr,
                                 err))
        return -err->errnum;
    if (accounts_apply(c->d->accounts, c->rec->name, c->target, c->rec->auth, err) ||
        target_set_alias(c->target, c->rec->name, err) ||
        target_redirect(c->target, c->rec->redirect_to, c->rec->redirect_permanently, err))
        return -err->errnum;
    for (unsigned i = 0; i < c->nr_layers; i++) {
        if (c->layers[i].lun && chain_serve_layer(c, i, err))
            return -err->errnum;
    }
    return add_disk(c, err);
}

int co_chain_serve(struct chain *c, struct error *err)
{
    struct target *t;

    c->target = target_create(c->rec->target, err);
    if (!c->target)
        return -err->errnum;
    if (!fill_target(c, err)) {
        chain_throttle_apply(c, 0);
        return 0;
    }
    chain_throttle_drop_all(c);
    t = c->target;
    c->target = NULL;
    co_target_destroy(t);
    return -err->errnum;
}
