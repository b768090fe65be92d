/* SPDX-License-Identifier: BSD-3-Clause */
/* Files by name, in memory: see vdisk.h. */
#include "tests/crash/chains/vdisk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lun-backends/file.h"
#include "util/coroutine.h"

struct vdisk *vdisk_now;
static int dir_fd = -1; /* open for a sync */

static void *must(void *mem)
{
    if (mem)
        return mem;
    fputs("out of memory\n", stderr);
    exit(2);
}

struct vdisk *vdisk_new(void)
{
    return must(calloc(1, sizeof(struct vdisk)));
}

void co_vdisk_free(struct vdisk *d)
{
    for (int i = 0; d && i < d->nr_files; i++) {
        co_blk_node_unref(&d->file[i].rec->node);
        if (d->file[i].common.image)
            co_blk_node_unref(&d->file[i].common.image->node);
        record_log_free(&d->file[i].log);
    }
    if (d)
        free(d->renames);
    free(d);
}

static void start_file(struct vdisk *d, struct vfile *f)
{
    f->rec->clock = &d->clock;
    f->rec->lose_flush = d->lose_flush;
    f->rec->lose_arg = f->rec->fail_arg = d->arg;
    f->rec->fail = d->fail;
    record_start(f->rec, rnd_next(&d->rnd));
}

static struct vfile *new_file(struct vdisk *d, const uint8_t *data, uint64_t bytes)
{
    struct vfile *f = &d->file[d->nr_files];

    if (d->nr_files == VDISK_FILES) {
        fputs("too many files in a test directory\n", stderr);
        exit(2);
    }
    d->nr_files++;
    *f = (struct vfile){.rec = record_node_new(data, bytes)};
    if (d->recording) {
        f->common.image = record_node_new(NULL, 0);
        start_file(d, f);
    }
    return f;
}

void vdisk_add(struct vdisk *d, const char *name, const uint8_t *data, uint64_t bytes)
{
    snprintf(new_file(d, data, bytes)->name, VDISK_NAME, "%s", name);
}

struct vfile *vdisk_find(struct vdisk *d, const char *name)
{
    for (int i = 0; i < d->nr_files; i++)
        if (!strcmp(d->file[i].name, name))
            return &d->file[i];
    return NULL;
}

static void set_name(struct vdisk *d, struct vfile *f, const char *name)
{
    struct vdisk_rename *r;

    snprintf(f->name, VDISK_NAME, "%s", name);
    if (!d->recording)
        return;
    d->renames = must(realloc(d->renames, (d->nr_renames + 1) * sizeof(*d->renames)));
    r = &d->renames[d->nr_renames++];
    *r = (struct vdisk_rename){.file = (int)(f - d->file), .durable = RECORD_NEVER};
    snprintf(r->name, VDISK_NAME, "%s", name);
    r->start = ++d->clock;
    r->end = ++d->clock;
}

void vdisk_sync_names(struct vdisk *d)
{
    uint64_t now = d->clock += 2;

    for (size_t i = 0; i < d->nr_renames; i++)
        if (d->renames[i].durable > now)
            d->renames[i].durable = now;
}

/* ---- recording and cutting --------------------------------------------------------------- */

void vdisk_record(struct vdisk *d, uint64_t seed)
{
    d->recording = true;
    d->rnd.state = seed;
    for (int i = 0; i < d->nr_files; i++) {
        struct vfile *f = &d->file[i];

        memcpy(f->old_name, f->name, VDISK_NAME);
        f->common.image = record_node_new(f->rec->data, f->rec->node.size_bytes);
        start_file(d, f);
    }
}

void vdisk_work_out(struct vdisk *d)
{
    for (int i = 0; i < d->nr_files; i++)
        d->file[i].log = record_work_out(d->file[i].rec);
    d->recording = false;
}

bool vdisk_plan(struct vdisk *d, struct rnd *rnd, struct cuts *cuts)
{
    struct record_log logs[VDISK_FILES];

    for (int i = 0; i < d->nr_files; i++)
        logs[i] = d->file[i].log;
    return plan_cuts(rnd, logs, (size_t)d->nr_files, d->clock + 1, cuts);
}

static void cut_names(const struct vdisk *d, struct rnd *rnd, struct cut cut, struct vdisk *out)
{
    size_t durable = 0, begun = 0, n;

    for (; begun < d->nr_renames && d->renames[begun].start < cut.moment; begun++)
        if (d->renames[begun].durable < cut.moment)
            durable = begun + 1;
    n = cut.kept == KEPT_ALL    ? begun
        : cut.kept == KEPT_NONE ? durable
                                : durable + rnd_below(rnd, begun - durable + 1);
    for (int i = 0; i < d->nr_files; i++)
        memcpy(out->file[i].name, d->file[i].old_name, VDISK_NAME);
    for (size_t i = 0; i < n; i++)
        memcpy(out->file[d->renames[i].file].name, d->renames[i].name, VDISK_NAME);
}

struct vdisk *vdisk_cut(struct vdisk *d, struct rnd *rnd, struct cut cut)
{
    struct vdisk *out = vdisk_new();

    for (int i = 0; i < d->nr_files; i++) {
        struct vfile *f = &d->file[i];

        cut_advance(&f->common, &f->log, cut.moment);
        out->file[i].rec = cut_build(rnd, &f->common, &f->log, cut, true);
    }
    out->nr_files = d->nr_files;
    cut_names(d, rnd, cut, out);
    return out;
}

/* ---- what lun-backends calls ---------------------------------------------------------------- */

/* The name in our directory; NULL: it is elsewhere. */
static const char *our_name(const char *path)
{
    size_t len = strlen(VDISK_DIR);

    if (strncmp(path, VDISK_DIR, len) || (path[len] && path[len] != '/'))
        return NULL;
    for (path += len; *path == '/' || !strncmp(path, "./", 2);)
        path++;
    return path;
}

static struct vfile *our_file(const char *path)
{
    const char *name = our_name(path);

    return name && *name ? vdisk_find(vdisk_now, name) : NULL;
}

int __wrap_co_file_open(const char *path, const struct file_opts *opts, struct blk_node **node,
                        struct error *err);
int __wrap_co_file_set_cache(struct blk_node *node, enum file_cache cache, struct error *err);
bool __wrap_file_node_is_device(const struct blk_node *node);
enum file_cache __wrap_file_node_cache(const struct blk_node *node);
int __wrap_co_work(int (*fn)(void *arg), void *arg);
int __wrap_access(const char *path, int mode);
int __wrap_stat(const char *path, struct stat *st);
int __wrap_unlink(const char *path);
int __wrap_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int __wrap_open(const char *path, int flags, ...);
int __wrap_fsync(int fd);
int __real_open(const char *path, int flags, ...);
int __real_access(const char *path, int mode);
int __real_stat(const char *path, struct stat *st);
int __real_unlink(const char *path);
int __real_fsync(int fd);

int __wrap_co_file_open(const char *path, const struct file_opts *opts, struct blk_node **node,
                        struct error *err)
{
    struct vfile *f = our_file(path);

    if (opts->create && f)
        return error_set(err, EEXIST, "'%s' exists", path);
    if (!opts->create && !f)
        return error_set(err, ENOENT, "'%s': no such file", path);
    if (!f) {
        f = new_file(vdisk_now, NULL, 0);
        set_name(vdisk_now, f, our_name(path));
    }
    free(f->rec->node.filename);
    f->rec->node.filename = must(strdup(path));
    f->rec->node.read_only = !opts->writable;
    *node = blk_node_ref(&f->rec->node);
    return 0;
}

/* A recorded file has one way of caching: what is not flushed may be lost. */
int __wrap_co_file_set_cache(struct blk_node *node, enum file_cache cache, struct error *err)
{
    (void)node;
    (void)cache;
    (void)err;
    return 0;
}

bool __wrap_file_node_is_device(const struct blk_node *node)
{
    (void)node;
    return false;
}

enum file_cache __wrap_file_node_cache(const struct blk_node *node)
{
    (void)node;
    return FILE_CACHE_AUTO;
}

/* On the loop's thread, so that a seed is one life. */
int __wrap_co_work(int (*fn)(void *arg), void *arg)
{
    return fn(arg);
}

int __wrap_access(const char *path, int mode)
{
    if (!our_name(path))
        return __real_access(path, mode);
    errno = ENOENT;
    return our_file(path) ? 0 : -1;
}

int __wrap_stat(const char *path, struct stat *st)
{
    struct vfile *f = our_file(path);

    if (!our_name(path))
        return __real_stat(path, st);
    errno = ENOENT;
    if (!f)
        return -1;
    *st = (struct stat){.st_dev = 1, .st_ino = (ino_t)(f - vdisk_now->file) + 1};
    return 0;
}

int __wrap_unlink(const char *path)
{
    struct vfile *f = our_file(path);

    if (!our_name(path))
        return __real_unlink(path);
    errno = ENOENT;
    if (!f)
        return -1;
    set_name(vdisk_now, f, "");
    return 0;
}

int __wrap_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    struct vfile *f = our_file(from);

    (void)from_dir;
    (void)to_dir;
    (void)flags; /* always RENAME_NOREPLACE */
    errno = f ? EEXIST : ENOENT;
    if (!f || our_file(to))
        return -1;
    set_name(vdisk_now, f, our_name(to));
    return 0;
}

int __wrap_open(const char *path, int flags, ...)
{
    if (!our_name(path))
        return __real_open(path, flags, 0644);
    return dir_fd = __real_open("/dev/null", O_RDONLY | O_CLOEXEC);
}

int __wrap_fsync(int fd)
{
    if (fd != dir_fd)
        return __real_fsync(fd);
    vdisk_sync_names(vdisk_now);
    return 0;
}
