/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A directory in memory, VDISK_DIR, whose files are record nodes: what lun-backends opens, looks
 * up, renames and removes there by name is led here at link time (--wrap), and everything else
 * goes on to the system. Files and names share one clock, so that a power cut is one moment of all.
 *
 * Names change in order, and durably when the directory is synced; between, a cut keeps any first
 * part of the changes.
 */
#ifndef COWTGT_CRASH_VDISK_H
#define COWTGT_CRASH_VDISK_H

#include "tests/crash/cut.h"

#define VDISK_DIR   "/vdisk"
#define VDISK_FILES 64
#define VDISK_NAME  48

struct vfile {
    char name[VDISK_NAME]; /* in the directory; "": none any more */
    struct record_node *rec;
    /* since vdisk_record(): */
    char old_name[VDISK_NAME];
    struct common common; /* the file as it was then, going on with the cuts */
    struct record_log log;
};

struct vdisk_rename { /* also a file made or removed */
    int file;
    char name[VDISK_NAME];
    uint64_t start, end, durable;
};

struct vdisk {
    uint64_t clock;
    struct vfile file[VDISK_FILES];
    int nr_files;
    struct vdisk_rename *renames;
    size_t nr_renames;
    bool recording;
    struct rnd rnd;
    /* of the record nodes: */
    unsigned (*lose_flush)(struct record_node *r, void *arg);
    int (*fail)(const struct blk_req *req, void *arg);
    void *arg;
};

/* The directory that names lead to now. */
extern struct vdisk *vdisk_now;

struct vdisk *vdisk_new(void);
void co_vdisk_free(struct vdisk *d);
/* A file with a copy of @data. */
void vdisk_add(struct vdisk *d, const char *name, const uint8_t *data, uint64_t bytes);
/* NULL: there is none. */
struct vfile *vdisk_find(struct vdisk *d, const char *name);
/* All names are durable afterwards. */
void vdisk_sync_names(struct vdisk *d);

/* From here on everything is recorded; nothing is open. */
void vdisk_record(struct vdisk *d, uint64_t seed);
void vdisk_work_out(struct vdisk *d);
bool vdisk_plan(struct vdisk *d, struct rnd *rnd, struct cuts *cuts);
/* The directory after @cut; cuts come in ascending order. */
struct vdisk *vdisk_cut(struct vdisk *d, struct rnd *rnd, struct cut cut);

#endif
