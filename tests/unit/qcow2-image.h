/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the qcow2 tests share: images in the test's directory, qemu-img as maker and judge, a model
 * of a disk in memory, and random concurrent work that keeps both the same.
 */
#ifndef COWTGT_QCOW2_IMAGE_H
#define COWTGT_QCOW2_IMAGE_H

#include "lun-backends/file.h"
#include "lun-backends/qcow2.h"

#define MIB         (UINT64_C(1) << 20)
#define MAX_WORKERS 8

/* One image and what it should read as. */
struct world {
    const char *name; /* in the test's directory */
    struct blk_node *node, *backing;
    uint8_t *model;
    uint64_t size_bytes;
    struct {
        uint64_t start, end;
    } busy[MAX_WORKERS];
    unsigned ops_left, workers, rnd;
    bool failed, done;
    struct error err;
};

unsigned test_seed(void); /* $QCOW2_TEST_SEED */
/* Exit status of a shell command in the test's directory; its output goes to a log. */
int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* false: the test is marked as skipped. */
bool have_qemu_img(void);
const char *path_of(const char *name);
void fill_random(uint8_t *buf, size_t bytes, unsigned *rnd);
void save(const char *name, const uint8_t *data, size_t bytes);

/* Runs fn in a coroutine until it sets w->done and all nodes are closed. */
void run(void (*fn)(void *), struct world *w);
struct blk_node *co_open_image(const char *name, bool writable, struct error *err);
/* With its backing, one level; fails the test if it can't be opened. */
bool co_open_world(struct world *w, bool writable);
void co_close_world(struct world *w);

/* "base": compressed, with data in most of it, qcow2; "base.raw": the same as raw. */
void make_base(uint64_t size_bytes, const char *options);
/* The image "img" is there; works on it and lets qemu-img judge. */
void work_on_image(uint64_t size_bytes, unsigned ops);

#endif
