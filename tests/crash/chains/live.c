/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The operations of a live chain by the engine's own parts, in the order in which the daemon puts
 * them together (admin/live.c, live-commit.c, streams.c). The daemon's record is a name that
 * changes at one moment; a cut in the middle of that finds the old one or the new one.
 */
#include "tests/crash/chains/live.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lun-backends/chain.h"
#include "lun-backends/commit.h"
#include "lun-backends/cowmap.h"
#include "lun-backends/formats.h"
#include "lun-backends/qcow2-offline.h"
#include "lun-backends/qcow2.h"
#include "lun-backends/replica.h"
#include "lun-backends/stream.h"
#include "util/size.h"

#define RAW_NAME  "disk.raw"
#define DATA_NAME ".ext" /* ends the name of an external data file */
#define DISK_MAX  (768u << 10)

const char *const live_op_names[LIVE_NR_OPS] = {
    [LIVE_NONE] = "guests only",  [LIVE_SNAPSHOT] = "snapshot",
    [LIVE_COMMIT] = "commit",     [LIVE_COMMIT_TOP] = "commit of the top",
    [LIVE_MIRROR] = "mirror",     [LIVE_STREAM] = "stream to qcow2",
    [LIVE_RAW] = "stream to raw", [LIVE_GROW] = "grow",
    [LIVE_SHRINK] = "shrink",
};

static void in_dir(char path[64], const char *name)
{
    snprintf(path, 64, VDISK_DIR "/%.*s", VDISK_NAME, name);
}

static struct blk_node *top_of(const struct live *l)
{
    return l->layer[l->nr_layers - 1].node;
}

static struct record_node *file_of(const struct live *l, const char *name)
{
    return vdisk_find(l->disk, name)->rec;
}

static uint64_t tick(struct live *l)
{
    return ++l->disk->clock;
}

static void save_top(struct live *l, const char *name)
{
    struct live_save *s = &l->save[l->nr_saves++];

    memmove(s->top, name, strlen(name) + 1);
    s->start = tick(l);
    s->end = tick(l);
}

static void complain(struct live *l, const char *what, const struct error *err)
{
    if (!l->w.faults)
        world_fail(&l->w, "%s: %s", what, err->msg);
}

static bool is_data_file(const struct live *l, const struct record_node *r)
{
    for (int i = 0; i < l->disk->nr_files; i++)
        if (l->disk->file[i].rec == r)
            return strstr(l->disk->file[i].name, DATA_NAME);
    return false;
}

unsigned live_lose_flush(struct record_node *r, void *arg)
{
    struct live *l = arg;

    if (l->broken == LIVE_NO_DATA_FILE && is_data_file(l, r))
        return RECORD_LOSE_ALL;
    if (l->weak_new && r == l->disk->file[l->disk->nr_files - 1].rec)
        return RECORD_LOSE_ALL;
    return r == l->weak_file ? RECORD_LOSE_ALL : 0;
}

/* ---- making and opening ---------------------------------------------------------------------- */

/* Empty, of the disk's size. */
static int co_make_data_file(const char *name, uint64_t size, struct error *err)
{
    struct file_opts fo = {.writable = true, .create = true};
    struct blk_node *file;
    char path[64];
    int ret;

    in_dir(path, name);
    ret = co_file_open(path, &fo, &file, err);
    if (ret)
        return ret;
    ret = file->drv->co_resize(file, size, err);
    co_blk_node_unref(file);
    return ret;
}

/* As `image create` does where the data file is the disk. */
static int co_map_all(struct blk_node *file, struct error *err)
{
    struct blk_node *node;
    int ret = co_qcow2_open(file, true, &node, err);

    if (ret)
        return ret;
    ret = co_qcow2_preallocate(node, 0, QCOW2_PREALLOC_METADATA, false, err);
    co_blk_node_unref(node);
    return ret;
}

static int co_make_layer(struct live *l, const char *name, const char *below, uint64_t size,
                         struct error *err)
{
    static const uint32_t clusters[] = {512, 4096, 16384, 65536};
    struct qcow2_create_opts qo = {
        .size_bytes = size,
        .cluster_bytes = clusters[rnd_below(&l->w.rnd, ARRAY_LEN(clusters))],
        .backing = below,
        .backing_fmt = below ? strstr(below, ".raw") ? "raw" : "qcow2" : NULL,
    };
    struct file_opts fo = {.writable = true, .create = true};
    char path[64], data[VDISK_NAME + sizeof(DATA_NAME)];
    struct blk_node *file;
    int ret = 0;

    qo.extended_l2 = qo.cluster_bytes >= 16384 && rnd_one_in(&l->w.rnd, 2);
    if (l->broken == LIVE_NO_DATA_FILE || rnd_one_in(&l->w.rnd, 4)) {
        snprintf(data, sizeof(data), "%s" DATA_NAME, name);
        qo.data_file = data;
        qo.data_file_raw = !below;
        ret = co_make_data_file(data, size, err);
    }
    in_dir(path, name);
    if (!ret)
        ret = co_file_open(path, &fo, &file, err);
    if (ret)
        return ret;
    ret = co_qcow2_create(file, &qo, err);
    if (!ret && qo.data_file_raw)
        ret = co_map_all(file, err);
    co_blk_node_unref(file);
    return ret;
}

/* A layer's own content: some of it, of one version. */
static int co_fill_layer(struct live *l, const char *name, struct error *err)
{
    struct file_opts fo = {.writable = true};
    uint8_t *buf = malloc(64 * RECORD_SECTOR);
    struct blk_node *file, *node;
    char path[64];
    int ret;

    in_dir(path, name);
    ret = co_file_open(path, &fo, &file, err);
    if (ret)
        return ret;
    ret = co_qcow2_open(file, true, &node, err);
    co_blk_node_unref(file);
    for (unsigned i = 0; !ret && buf && i < 12; i++) {
        uint64_t at = rnd_below(&l->w.rnd, node->size_bytes / RECORD_SECTOR - 64);

        version_fill(buf, l->w.ver.next, at, 64);
        ret = co_blk_write(node, at * RECORD_SECTOR, buf, 64 * RECORD_SECTOR, 0);
    }
    l->w.ver.next++;
    free(buf);
    co_blk_node_unref(node);
    return ret;
}

static void add_raw_base(struct live *l, uint64_t size)
{
    uint8_t *base = calloc(1, size);

    for (uint64_t s = 0; base && s + 40 < size / RECORD_SECTOR; s += 40)
        version_fill(base + s * RECORD_SECTOR, VERSION_BASE, s, rnd_below(&l->w.rnd, 40));
    vdisk_add(l->disk, "base.raw", base, size);
    free(base);
}

int co_live_make(struct live *l, struct error *err)
{
    uint64_t size = (256u + 64 * rnd_below(&l->w.rnd, 4)) << 10;
    unsigned depth = 1 + (unsigned)rnd_below(&l->w.rnd, 3);
    char below[VDISK_NAME] = "", name[VDISK_NAME], path[64];
    int ret = 0;

    l->raw = rnd_one_in(&l->w.rnd, 3) || l->broken == LIVE_NO_BLOCKS;
    if (!rnd_one_in(&l->w.rnd, 4)) {
        add_raw_base(l, size);
        strcpy(below, "base.raw");
    }
    for (unsigned i = 0; !ret && i < depth; i++) {
        snprintf(name, sizeof(name), "layer%u.qcow2", l->serial++);
        ret = co_make_layer(l, name, *below ? below : NULL, size, err);
        if (!ret)
            ret = co_fill_layer(l, name, err);
        strcpy(below, name);
    }
    if (!ret && l->raw) {
        in_dir(path, RAW_NAME);
        ret = co_cowmap_create(path, NULL, size, 4096 << rnd_below(&l->w.rnd, 3), below, err);
        strcpy(below, RAW_NAME);
    }
    save_top(l, below);
    return ret;
}

/* @name and all below it, put under what is there already. */
static int co_open_chain(struct live *l, const char *name, bool writable, struct error *err)
{
    struct chain_open_opts co = {.format = strstr(name, ".raw") ? "raw" : "qcow2",
                                 .writable = writable};
    struct chain_image *chain;
    char path[64];
    int ret;

    in_dir(path, name);
    ret = co_chain_open(path, &co, &chain, err);
    if (ret)
        return ret;
    for (unsigned i = 0; i < chain->nr_layers && i < LIVE_LAYERS; i++) {
        struct live_layer *y = &l->layer[l->nr_layers++];

        y->node = blk_node_ref(chain->layers[i].node);
        snprintf(y->name, sizeof(y->name), "%s", strrchr(chain->layers[i].filename, '/') + 1);
    }
    co_chain_close(chain);
    return 0;
}

static int co_open_raw(struct live *l, struct error *err)
{
    struct blk_node *node;
    const char *below;
    char path[64];
    int ret;

    in_dir(path, RAW_NAME);
    ret = co_cowmap_open(path, NULL, &node, err);
    if (ret)
        return ret;
    below = cowmap_backing(node);
    if (below)
        ret = co_open_chain(l, below, false, err);
    if (ret) {
        co_blk_node_unref(node);
        return ret;
    }
    if (below)
        blk_set_backing(node, top_of(l));
    strcpy(l->layer[l->nr_layers].name, RAW_NAME);
    l->layer[l->nr_layers++].node = node;
    return 0;
}

int co_live_open(struct live *l, const char *top, struct error *err)
{
    l->nr_layers = 0;
    if (!strcmp(top, RAW_NAME))
        return co_open_raw(l, err);
    return co_open_chain(l, top, true, err);
}

void co_live_close(struct live *l)
{
    while (l->nr_layers)
        co_blk_node_unref(l->layer[--l->nr_layers].node);
}

/* ---- snapshot, grow ----------------------------------------------------------------------- */

static void co_snapshot(struct live *l)
{
    struct blk_node *old = top_of(l), *node = NULL, *file;
    struct live_layer *y = &l->layer[l->nr_layers];
    struct file_opts fo = {.writable = true};
    struct error err = ERROR_INIT;
    char path[64];
    int ret;

    if (l->nr_layers == LIVE_LAYERS || !old->drv->co_reopen || l->raw)
        return;
    snprintf(y->name, sizeof(y->name), "layer%u.qcow2", l->serial++);
    in_dir(path, y->name);
    l->weak_new = l->broken == LIVE_NO_HEADER;
    ret = co_make_layer(l, y->name, l->layer[l->nr_layers - 1].name, old->size_bytes, &err);
    l->weak_new = false;
    if (!ret)
        ret = co_file_open(path, &fo, &file, &err);
    if (!ret) {
        ret = co_qcow2_open(file, true, &node, &err);
        co_blk_node_unref(file);
    }
    if (ret) {
        complain(l, "snapshot", &err);
        return;
    }
    vdisk_sync_names(l->disk);
    ret = co_blk_flush(old);
    co_blk_drain_begin(old);
    if (!ret)
        ret = old->drv->co_inactivate ? old->drv->co_inactivate(old) : co_blk_flush(old);
    if (!ret) {
        save_top(l, y->name);
        blk_set_backing(node, old);
        blk_head_set_root(&l->w.head, node);
        y->node = node;
        l->nr_layers++;
        l->w.node = node;
        if (co_blk_reopen(old, false, &err))
            complain(l, "sealing", &err);
    }
    blk_drain_end(old);
    if (ret)
        co_blk_node_unref(node);
}

static void co_grow(struct live *l)
{
    struct world *w = &l->w;
    uint64_t size = w->node->size_bytes + ((1 + rnd_below(&w->rnd, 100)) * RECORD_SECTOR);

    if (w->resize.start == RECORD_NEVER && !l->raw && size <= DISK_MAX)
        co_world_resize(w, size);
}

static void co_shrink(struct live *l)
{
    struct world *w = &l->w;
    uint64_t sectors = w->node->size_bytes / RECORD_SECTOR;

    if (w->resize.start == RECORD_NEVER && !l->raw)
        co_world_resize(w, (sectors - rnd_below(&w->rnd, sectors / 2)) * RECORD_SECTOR);
}

/* ---- jobs ---------------------------------------------------------------------------------- */

static void note_end(struct job *job, void *opaque)
{
    *(int *)opaque = job->ret;
}

static int co_run_job(struct live *l, struct job *job, const char *what, struct error *err)
{
    char id[65];
    int ret = -ECANCELED;

    if (!job) {
        complain(l, what, err);
        return -EINVAL;
    }
    strcpy(id, job->id);
    job->on_done = note_end;
    job->opaque = &ret;
    job_start(job);
    co_job_wait(id);
    if (ret) {
        error_set(err, -ret, "the job failed: %s", strerror(-ret));
        complain(l, what, err);
    }
    return ret;
}

static int co_unseal(struct live *l, struct blk_node *base, uint64_t size, struct error *err)
{
    struct error ignored = ERROR_INIT;
    int ret;

    co_blk_drain_begin(base);
    ret = co_blk_reopen(base, true, err);
    if (!ret && base->size_bytes < size) {
        ret = base->drv->co_resize(base, size, err);
        if (ret)
            co_blk_reopen(base, false, &ignored);
    }
    blk_drain_end(base);
    if (ret)
        complain(l, "unsealing", err);
    return ret;
}

static void co_take_out(struct live *l, unsigned first, unsigned n)
{
    struct blk_node *gone[LIVE_LAYERS];

    for (unsigned i = 0; i < n; i++)
        gone[i] = l->layer[first + i].node;
    memmove(&l->layer[first], &l->layer[first + n],
            (l->nr_layers - first - n) * sizeof(l->layer[0]));
    l->nr_layers -= n;
    while (n)
        co_blk_node_unref(gone[--n]);
}

static int co_join(struct live *l, unsigned base, struct live_layer *over, struct error *err)
{
    bool was_sealed = over->node->read_only;
    const char *name = l->layer[base].name;
    struct error ignored = ERROR_INIT;
    int ret;

    co_blk_drain_begin(over->node);
    ret = co_blk_reopen(l->layer[base].node, false, err);
    if (!ret && was_sealed)
        ret = co_blk_reopen(over->node, true, err);
    if (!ret)
        ret = over->node->drv->co_change_backing(over->node, name,
                                                 strstr(name, ".raw") ? "raw" : "qcow2", err);
    if (was_sealed && !over->node->read_only)
        co_blk_reopen(over->node, false, &ignored);
    if (!ret)
        blk_set_backing(over->node, l->layer[base].node);
    blk_drain_end(over->node);
    return ret;
}

static void co_seal(struct live *l, unsigned base)
{
    struct blk_node *node = l->layer[base].node;
    struct error err = ERROR_INIT;

    co_blk_drain_begin(node);
    if (co_blk_reopen(node, false, &err))
        complain(l, "sealing", &err);
    blk_drain_end(node);
}

/* Layers under the top into one of them. */
static void co_commit_sealed(struct live *l)
{
    unsigned top = l->nr_layers - 2, base;
    struct commit_opts co = {0};
    struct error err = ERROR_INIT;

    if (l->nr_layers < 3 || l->raw)
        return;
    base = (unsigned)rnd_below(&l->w.rnd, top);
    co.top = l->layer[top].node;
    co.base = l->layer[base].node;
    if (co.base->size_bytes > co.top->size_bytes || co_unseal(l, co.base, co.top->size_bytes, &err))
        return;
    if (l->broken == LIVE_NO_COPY)
        l->weak_file = file_of(l, l->layer[base].name);
    if (co_run_job(l, commit_job_new("commit", "chain", &co, &err), "commit", &err)) {
        co_seal(l, base);
        return;
    }
    if (co_join(l, base, &l->layer[top + 1], &err))
        complain(l, "commit's end", &err);
    else
        co_take_out(l, base + 1, top - base);
    l->weak_file = NULL;
}

static int co_pivot(struct live *l, struct blk_node *watch, unsigned base)
{
    struct blk_node *node = l->layer[base].node;
    int ret = co_commit_catch_up(watch, node);

    if (!ret)
        ret = node->drv->co_inactivate ? node->drv->co_inactivate(node) : co_blk_flush(node);
    if (ret)
        return ret;
    save_top(l, l->layer[base].name);
    blk_head_set_root(&l->w.head, node);
    l->w.node = node;
    return 0;
}

/* The top, written to meanwhile, into a layer below. */
static void co_commit_top(struct live *l)
{
    unsigned top = l->nr_layers - 1, base;
    struct commit_opts co = {.auto_complete = true};
    struct error err = ERROR_INIT;
    int ret;

    if (l->nr_layers < 2 || l->raw)
        return;
    base = (unsigned)rnd_below(&l->w.rnd, top);
    co.top = l->layer[top].node;
    co.base = l->layer[base].node;
    if (co.base->size_bytes > co.top->size_bytes || co_unseal(l, co.base, co.top->size_bytes, &err))
        return;
    co_blk_drain_begin(co.top);
    co.watch = commit_watch_new(co.top);
    blk_head_set_root(&l->w.head, co.watch);
    blk_drain_end(co.top);
    ret = co_run_job(l, commit_job_new("commit", "chain", &co, &err), "commit of the top", &err);
    co_blk_drain_begin(co.top);
    blk_node_ref(co.top);
    if (!ret)
        ret = co_pivot(l, co.watch, base);
    if (ret)
        blk_head_set_root(&l->w.head, co.top);
    blk_drain_end(co.top);
    co_blk_node_unref(co.top);
    co_blk_node_unref(co.watch);
    if (ret)
        co_seal(l, base);
    else
        co_take_out(l, base + 1, top - base);
}

/* A new file, over the lowest @keep layers. */
static struct blk_node *co_open_copy(struct live *l, const char *name, unsigned keep,
                                     struct error *err)
{
    struct live_layer *below = keep ? &l->layer[keep - 1] : NULL;
    struct file_opts fo = {.writable = true};
    struct blk_node *node = NULL, *file;
    char path[64];
    int ret;

    in_dir(path, name);
    ret = co_make_layer(l, name, below ? below->name : NULL, top_of(l)->size_bytes, err);
    if (!ret)
        ret = co_file_open(path, &fo, &file, err);
    if (!ret) {
        ret = co_qcow2_open(file, true, &node, err);
        co_blk_node_unref(file);
    }
    if (!ret && below)
        blk_set_backing(node, below->node);
    return node;
}

/* Drained. */
static int co_go_over(struct live *l, struct blk_node *replica, struct live_layer *copy,
                      bool over_top)
{
    struct blk_node *top = top_of(l);
    int ret = co_replica_catch_up(replica);

    if (!ret && over_top)
        ret = top->drv->co_inactivate(top);
    if (!ret)
        ret = copy->node->drv->co_inactivate(copy->node);
    if (ret)
        return ret;
    save_top(l, copy->name);
    blk_head_set_root(&l->w.head, copy->node);
    l->w.node = copy->node;
    return 0;
}

/* The disk into a new file, of one of the three kinds, which then is its top. */
static void co_mirror(struct live *l)
{
    const unsigned kept[] = {0, l->nr_layers - 1, l->nr_layers};
    unsigned keep = kept[rnd_below(&l->w.rnd, 3)], n = l->nr_layers;
    struct blk_node *top = top_of(l);
    struct replica_opts ro = {.source = top, .all = keep < n, .levels = keep && keep < n};
    struct replica_job_opts jo = {.auto_complete = true};
    struct live_layer copy = {.node = NULL};
    struct error err = ERROR_INIT;
    int ret;

    if (n == LIVE_LAYERS || l->raw || !top->drv->co_inactivate)
        return;
    ro.write_blocking = rnd_one_in(&l->w.rnd, 3);
    snprintf(copy.name, sizeof(copy.name), "layer%u.qcow2", l->serial++);
    ro.target = copy.node = co_open_copy(l, copy.name, keep, &err);
    if (!copy.node) {
        complain(l, "the file of a mirror", &err);
        return;
    }
    vdisk_sync_names(l->disk);
    if (l->broken == LIVE_NO_MIRROR)
        l->weak_file = file_of(l, copy.name);
    co_blk_drain_begin(top);
    jo.replica = replica_new(&ro);
    blk_head_set_root(&l->w.head, jo.replica);
    blk_drain_end(top);
    ret = co_run_job(l, replica_job_new("mirror", "chain", &jo, &err), "mirror", &err);
    co_blk_drain_begin(top);
    if (!ret)
        ret = co_go_over(l, jo.replica, &copy, keep == n);
    if (ret)
        blk_head_set_root(&l->w.head, top);
    blk_drain_end(top);
    l->weak_file = NULL;
    co_blk_node_unref(jo.replica);
    if (ret) {
        co_blk_node_unref(copy.node);
        return;
    }
    if (keep == n)
        co_seal(l, n - 1);
    else
        co_take_out(l, keep, n - keep);
    l->layer[l->nr_layers++] = copy;
}

/* Everything into the top, with copy-on-read beside it; then it stands alone. */
static void co_stream(struct live *l)
{
    struct blk_node *top = top_of(l), *cor;
    struct stream_plan_opts so = {.first = {.overlay = top}};
    struct error err = ERROR_INIT;
    int ret;

    if (l->nr_layers < 2 || !top->backing.child)
        return;
    co_blk_drain_begin(top);
    cor = copy_on_read_new(top);
    copy_on_read_enable(cor, true);
    blk_head_set_root(&l->w.head, cor);
    blk_drain_end(top);
    if (l->broken == LIVE_NO_DATA) {
        l->w.weak = true;
        l->weak_file = top->file.child ? record_of(top->file.child) : NULL;
    }
    ret = co_run_job(l, stream_job_new("stream", "chain", &so, &err), "stream", &err);
    co_blk_drain_begin(top);
    if (!ret && top->drv->co_change_backing(top, NULL, NULL, &err))
        complain(l, "dropping the backing", &err);
    else if (!ret)
        blk_set_backing(top, NULL);
    blk_head_set_root(&l->w.head, top);
    blk_drain_end(top);
    co_blk_node_unref(cor);
    if (!top->backing.child)
        co_take_out(l, 0, l->nr_layers - 1);
    l->weak_file = NULL;
    l->w.weak = false;
}

/* ---- one life ----------------------------------------------------------------------------- */

static void co_operation(struct live *l)
{
    static void (*const ops[])(struct live *) = {
        [LIVE_SNAPSHOT] = co_snapshot,     [LIVE_COMMIT] = co_commit_sealed,
        [LIVE_COMMIT_TOP] = co_commit_top, [LIVE_MIRROR] = co_mirror,
        [LIVE_STREAM] = co_stream,         [LIVE_GROW] = co_grow,
        [LIVE_SHRINK] = co_shrink,
    };
    static const enum live_op choice[] = {
        LIVE_SNAPSHOT, LIVE_SNAPSHOT,   LIVE_SNAPSHOT, LIVE_COMMIT, LIVE_COMMIT, LIVE_COMMIT_TOP,
        LIVE_STREAM,   LIVE_COMMIT_TOP, LIVE_GROW,     LIVE_SHRINK, LIVE_MIRROR, LIVE_MIRROR};
    enum live_op op = l->raw ? LIVE_STREAM : choice[rnd_below(&l->w.rnd, ARRAY_LEN(choice))];
    struct live_span *s = &l->span[l->nr_spans];
    uint64_t before;

    s->op = op == LIVE_STREAM && l->raw ? LIVE_RAW : op;
    s->start = tick(l);
    before = l->disk->clock;
    ops[op](l);
    if (l->disk->clock == before)
        return; /* not possible now */
    s->end = tick(l);
    l->nr_spans++;
}

void co_live_work(struct live *l, unsigned nr_ops)
{
    static const struct world_config cfg = {.name = "chain", .cluster_bytes = 4096};
    struct world *w = &l->w;
    unsigned nr = 2 + (unsigned)rnd_below(&w->rnd, 4);

    w->cfg = &cfg;
    w->chain = true;
    world_forget_changes(w);
    w->node = top_of(l);
    w->rec = l->disk->file[0].rec;
    w->disk_bytes = w->new_disk_bytes = w->node->size_bytes;
    if (l->broken == LIVE_NO_BLOCKS && vdisk_find(l->disk, RAW_NAME COWMAP_PARTIAL_SUFFIX)) {
        w->weak = true;
        l->weak_file = file_of(l, RAW_NAME COWMAP_PARTIAL_SUFFIX);
    }
    w->weak = w->weak || l->broken == LIVE_NO_DATA_FILE;
    blk_head_init(&w->head, "guests", w->node, true);
    w->faults_on = w->faults;
    world_start_workers(w, nr_ops);
    for (unsigned i = 1; i <= nr && !w->failure[0]; i++) {
        co_world_wait(w, nr_ops - nr_ops * i / (nr + 1));
        co_operation(l);
    }
    co_world_wait(w, nr_ops / 5);
    w->faults_on = false;
    while (w->workers)
        co_queue_wait(&w->progress);
    co_world_flush(w);
    co_blk_head_fini(&w->head);
    w->node = NULL;
    l->weak_file = NULL;
    w->weak = false;
}
