/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of the qcow2 engine; nobody else includes this.
 *
 * Tables are cached in slices of at most 4 KiB, kept as they are on disk. An L2 slice is named by
 * the guest range it maps (so it stays valid when its table is copied), a refcount slice by the
 * host clusters it counts. A dirty slice is written only by the flush cycle.
 */
#ifndef COWTGT_QCOW2_INT_H
#define COWTGT_QCOW2_INT_H

#include <ev.h>
#include "lun-backends/image-settings.h"
#include "lun-backends/qcow2-format.h"
#include "lun-backends/qcow2.h"
#include "util/coroutine.h"
#include "util/list.h"

/* Atomic writes: what databases ask for; a cluster would do as well. */
#define QCOW2_ATOMIC_MAX_BYTES 16384u

struct qslice {
    struct qslice *hash_next;
    struct list_head lru;
    struct list_head dirty_link;
    struct co_queue waiters; /* for the end of loading */
    uint64_t index;
    uint8_t *data;
    unsigned pins;
    bool loading, dirty;
    int error;
};

struct qcache {
    struct qslice **hash;
    uint32_t hash_mask;
    uint32_t slice_bytes;
    unsigned nr, max, nr_dirty;
    struct list_head lru, dirty;
};

/* A piece of guest range with one kind of mapping. */
enum qrun_kind { QRUN_UNALLOCATED, QRUN_ZERO, QRUN_DATA, QRUN_COMPRESSED, QRUN_BAD };
struct qrun {
    enum qrun_kind kind;
    bool copied;   /* DATA: may be overwritten in place */
    bool past_end; /* DATA: behind the end of the file, reads zeros until written */
    bool no_table; /* UNALLOCATED: there is no L2 table */
    bool anchored; /* ZERO: it has a host cluster of its own */
    uint64_t host; /* DATA: where; COMPRESSED: descriptor */
    uint64_t bytes;
};

/* Host clusters that lost a reference each. */
struct qfree_extent {
    uint64_t first, count;
};
struct qfree_list {
    struct qfree_extent *ext;
    size_t nr, max;
};

/* A guest range in which one operation changes the mapping. */
struct qlock {
    struct list_head link;
    uint64_t start, end;
    struct co_queue waiters;
};

/* A host cluster being filled for a guest cluster by one or more writers (extended L2). */
struct qassign {
    struct list_head link;
    uint64_t guest_cluster;
    uint64_t host;
    unsigned users;
    bool ready, fresh, used;
    int error;
    struct co_queue waiters;
};

#define QCOW2_UNPACK_SLOTS 8
struct qunpack_slot {
    uint64_t descriptor; /* 0: empty */
    uint8_t *data;
    unsigned users;
    uint64_t last_use;
    bool loading, stale;
    int error;
    struct co_queue waiters;
};

struct qcow2 {
    struct blk_node node;
    bool opened;
    struct qcow2_geometry g;
    struct qcow2_header h;
    char *backing, *backing_fmt, *data_file;
    struct {
        uint32_t nr;
        uint64_t dir_offset, dir_bytes;
    } bitmaps;
    struct qcow2_settings settings; /* as in the header */
    uint64_t cache_bytes_wanted;    /* 0: by the disk's size */
    bool covered;                   /* a merged map answers most reads: few tables are kept */

    bool corrupt; /* takes no more changes */
    bool marking; /* the header is being told */
    bool told_harmless;

    uint64_t *l1; /* h.l1_entries, host order */
    uint64_t *l1_dirty;
    unsigned nr_l1_dirty;
    uint64_t *rt; /* writable only; host order */
    uint64_t *rt_dirty;
    unsigned nr_rt_dirty;
    uint64_t rt_entries;
    uint64_t rt_new_offset; /* rt_moved: where the header is to point to */
    uint32_t rt_new_clusters;
    bool rt_moved, rt_growing;
    uint8_t header_sector[QCOW2_SECTOR]; /* first sector as on disk */
    bool header_unsure; /* a write of it failed: it may be there, until it is written again */
    struct co_mutex header_lock;

    struct qcache l2, rc;
    struct qcow2_stats stats;
    struct qunpack_slot unpack[QCOW2_UNPACK_SLOTS];
    uint64_t unpack_clock;
    struct co_queue unpack_wait;

    /* allocator: clusters from end_cluster on are free, below it scan_cluster is a hint */
    struct co_mutex alloc_lock;
    uint64_t end_cluster, scan_cluster;
    uint64_t fresh_cluster;     /* from here on the file has never been written: reads zeros */
    uint64_t pack_pos;          /* in a cluster of compressed data that has room left; 0: none */
    struct co_mutex pack_lock;  /* on pack_pos, while it moves on */
    struct co_mutex table_lock; /* adding or copying an L2 table */
    struct list_head locks, assigns;

    /* flush cycle */
    bool cycle_running, cycle_again;
    int cycle_error;                /* of the last one; told when it changes */
    struct list_head flush_reqs;    /* of struct blk_req, scratch.link */
    struct list_head flush_waiters; /* of struct qflush_waiter */
    struct list_head room_waiters;  /* writers waiting for a cycle to end */
    ev_timer timer;
    bool timer_soon;

    /* reclaim: freed -> (cycle durable) -> ready -> (I/O of before ended) -> refcount, punch */
    struct qfree_list freed, freed_in_cycle, freed_ready;
    bool reclaiming;
    unsigned epoch, io[2];
    struct coroutine *grace_co;
};

static inline struct qcow2 *qcow2_of(struct blk_node *node)
{
    return container_of(node, struct qcow2, node);
}

static inline struct blk_node *qcow2_file(const struct qcow2 *q)
{
    return q->node.file.child;
}

/* The node that holds @host, which becomes the offset in it. */
static inline struct blk_node *qcow2_host_node(const struct qcow2 *q, uint64_t *host)
{
    if (!(*host & QCOW2_EXTERNAL))
        return qcow2_file(q);
    *host &= ~QCOW2_EXTERNAL;
    return q->node.data.child;
}

/* The data file is a disk by itself: what reads as zeros must be zeros in it too. */
static inline bool qcow2_data_is_raw(const struct qcow2 *q)
{
    return q->g.external && (q->h.autoclear & QCOW2_AUTOCLEAR_RAW_DATA);
}

static inline const char *qcow2_name(const struct qcow2 *q)
{
    return q->node.filename ? q->node.filename : q->node.name;
}

/* Unallocated means something else than zeros, now or when the image is opened again. */
static inline bool qcow2_has_backing(const struct qcow2 *q)
{
    return q->node.backing.child || q->backing;
}

static inline uint64_t qcow2_slice_end(const struct qcow2 *q, uint64_t off)
{
    return ((off >> q->g.slice_span_bits) + 1) << q->g.slice_span_bits;
}

/* qcow2-cache.c */
int qcache_init(struct qcache *c, uint32_t slice_bytes, uint64_t max_bytes);
/* Changes the bound; -ENOMEM leaves it. */
int qcache_set_max(struct qcache *c, uint64_t max_bytes);
/* Drops a slice that is clean and not in use. */
void qcache_forget(struct qcache *c, uint64_t index);
void qcache_free(struct qcache *c);
/* In the cache and loaded, or NULL; not pinned. */
struct qslice *qcache_find(struct qcache *c, uint64_t index);
/* Loads from @file_offset if need be; pinned. */
int co_qcache_get(struct qcow2 *q, struct qcache *c, uint64_t index, uint64_t file_offset,
                  struct qslice **out);
/* A slice that is known to be all zeros on disk; pinned. Does not wait. */
int qcache_add_zeroed(struct qcache *c, uint64_t index, struct qslice **out);
void qcache_put(struct qslice *s);
void qcache_mark_dirty(struct qcow2 *q, struct qcache *c, struct qslice *s);
void qcache_mark_clean(struct qcache *c, struct qslice *s);

/* qcow2-map.c */
/* Inconsistent metadata: counted, logged, told; a writable image is marked corrupt and takes no
 * more changes. Gives -EIO. */
int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Data that can't be read, with metadata that is right: counted, logged, told. Gives -EIO. */
int qcow2_damaged(struct qcow2 *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Is [host, host + bytes) one of the tables that the header names? */
bool qcow2_hits_metadata(const struct qcow2 *q, uint64_t host, uint64_t bytes);
/* The run at @off, at most @max bytes; -EAGAIN if its L2 slice is not cached. */
int qcow2_map(struct qcow2 *q, uint64_t off, uint64_t max, struct qrun *run);
/* The same, loads what is missing. */
int co_qcow2_map(struct qcow2 *q, uint64_t off, uint64_t max, struct qrun *run);
/* File offset of the slice that maps @off; 0: no table; -EIO through @ret. */
uint64_t qcow2_l2_slice_offset(struct qcow2 *q, uint64_t off, int *ret);
uint8_t *qcow2_slice_entry(const struct qcow2 *q, const struct qslice *s, uint64_t off);
/* false: corrupt; counted and logged. */
bool qcow2_get_entry(struct qcow2 *q, const struct qslice *s, uint64_t off, struct qcow2_entry *e);
void qcow2_submit_status(struct blk_node *node, struct blk_req *req);
int co_qcow2_locate(struct blk_node *node, uint64_t off, uint64_t bytes, struct blk_place *place);

/* qcow2-read.c */
void qcow2_submit_read(struct blk_node *node, struct blk_req *req);
/* What the disk reads as at [off, off + bytes), zeros past its end; for copies in a write. */
int co_qcow2_read_old(struct qcow2 *q, uint64_t off, void *buf, size_t bytes, uint32_t flags);

/* qcow2-snapshot.c */
/* Turns a read-only image to the disk of an internal snapshot, before its tables are loaded. */
int co_qcow2_use_snapshot(struct qcow2 *q, const struct qcow2_snapshot_name *name,
                          struct error *err);

/* qcow2-compressed.c */
/* Copies @bytes at @from inside the cluster of @descriptor into the iovec at @iov_from. */
int co_qcow2_read_compressed(struct qcow2 *q, uint64_t descriptor, uint64_t from, size_t bytes,
                             const struct iovec *iov, int niov, size_t iov_from);
void qcow2_unpack_forget(struct qcow2 *q);
void qcow2_unpack_free(struct qcow2 *q);

/* qcow2-refcount.c */
int co_qcow2_alloc_open(struct qcow2 *q, struct error *err);
/* Sets end_cluster: one past the last cluster that is counted as used. */
int co_qcow2_find_end(struct qcow2 *q);
/* Up to @want contiguous clusters, refcount 1; *fresh: they read as zeros. */
int co_qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *host, uint64_t *got, bool *fresh);
/* Exactly @want clusters at the end of the file; alloc_lock not held. */
int co_qcow2_alloc_at_end(struct qcow2 *q, uint64_t want, uint64_t *host);
/* One more reference to a cluster in use; -ERANGE: its refcount can't hold it. */
int co_qcow2_add_ref(struct qcow2 *q, uint64_t cluster);
/* Back at once: clusters that nothing on disk or in a cache points to. */
void co_qcow2_free_now(struct qcow2 *q, uint64_t host, uint64_t count);
/* After the cycle that makes it durable and the I/O of before. */
void qcow2_free_later(struct qcow2 *q, uint64_t host, uint64_t count);
void qcow2_free_entry_later(struct qcow2 *q, const struct qcow2_entry *e);
int co_qcow2_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *refs);
/* alloc_lock held. One reference less; *left: what remains. */
int co_qcow2_unref(struct qcow2 *q, uint64_t cluster, uint64_t *left);

/* qcow2-reclaim.c */
int qfree_add(struct qfree_list *l, uint64_t first, uint64_t count);
void qfree_move(struct qfree_list *to, struct qfree_list *from);
void qcow2_reclaim_kick(struct qcow2 *q);
static inline unsigned qcow2_io_begin(struct qcow2 *q)
{
    q->io[q->epoch]++;
    return q->epoch;
}
void qcow2_io_end(struct qcow2 *q, unsigned epoch);

/* qcow2-data.c: guest data in the external data file, where there is one */
int co_qcow2_open_data(struct qcow2 *q, const struct qcow2_open_opts *opts, struct error *err);
/* Host clusters for guest data at @guest, as co_qcow2_alloc(). */
int co_qcow2_alloc_data(struct qcow2 *q, uint64_t guest, uint64_t want, uint64_t *host,
                        uint64_t *got, bool *fresh);
void co_qcow2_free_data_now(struct qcow2 *q, uint64_t host, uint64_t count);
/* All data that was written is stable. */
int co_qcow2_flush_files(struct qcow2 *q);
/* Zeros, or a discard, where the data file is the disk. */
int co_qcow2_zero_raw_data(struct qcow2 *q, uint64_t off, uint64_t end, uint32_t flags);

/* qcow2-prealloc.c */
/* Where the data file is the disk, what is behind @from has its place in it from now on: a power
 * cut then can't leave anything there that the image doesn't show. Not durable yet. */
int co_qcow2_map_raw_data(struct qcow2 *q, uint64_t from);

/* qcow2-bitmaps.c */
/* Marks all persistent bitmaps as not to be relied on, durably. *any: some were not marked. */
int co_qcow2_invalidate_bitmaps(struct qcow2 *q, bool only_look, bool *any);

/* qcow2-lock.c */
void co_qlock(struct qcow2 *q, struct qlock *l, uint64_t start, uint64_t end);
void qunlock(struct qlock *l);
int co_qassign_get(struct qcow2 *q, uint64_t guest_cluster, struct qassign **out);
void co_qassign_put(struct qcow2 *q, struct qassign *a);

/* qcow2-write.c */
void qcow2_submit_write(struct blk_node *node, struct blk_req *req);
/* A piece of a change: inside one L2 slice, which is pinned and writable, range locked. */
struct qchange {
    struct qcow2 *q;
    struct qlock lock;
    struct qslice *slice;
    uint64_t pos, end;
    bool wide;      /* the lock covers whole clusters */
    bool need_wide; /* stopped at c->pos for want of that */
};
/* An L1 entry, to be written by the next cycle. */
void qcow2_set_l1(struct qcow2 *q, uint64_t index, uint64_t value);
/* Locks [pos, end) clipped to a slice, pins its slice, adding its table if there is none. */
int co_qchange_begin(struct qchange *c, struct qcow2 *q, uint64_t pos, uint64_t end, bool wide);
void qchange_end(struct qchange *c);
void qchange_set_entry(struct qchange *c, uint64_t off, const struct qcow2_entry *e);
/* NULL iovec: zeros. @data_off: guest offset of the iovec's first byte. */
int co_qcow2_write(struct qcow2 *q, uint64_t off, uint64_t bytes, const struct iovec *iov, int niov,
                   uint64_t data_off, uint32_t flags);
void qcow2_finish_change(struct qcow2 *q, struct blk_req *req, int result);

/* qcow2-pad.c: what a write must copy, up to the subclusters' ends around it */
struct qpad {
    uint64_t off;
    size_t bytes;
    uint8_t *buf; /* NULL: zeros */
    bool shared;  /* @buf is part of the other pad's */
};
/* Reads what surrounds [start, end) and is not in its clusters yet; in one read if what lies
 * between is small. The pads are to be freed in any case. */
int co_qpads_fill(struct qchange *c, uint64_t start, uint64_t end, struct qpad *head,
                  struct qpad *tail, uint32_t flags);
void qpads_free(struct qpad *head, struct qpad *tail);

/* qcow2-copy.c */
int co_qcow2_move_cluster(struct qchange *c, uint64_t off, uint64_t bytes, const struct iovec *iov,
                          int niov, uint64_t data_off, uint32_t flags);
/* Zeros for iovecs. */
#define QCOW2_ZEROS_BYTES 65536u
extern const uint8_t qcow2_zeros[QCOW2_ZEROS_BYTES];

/* qcow2-zero.c */
void qcow2_submit_write_zeroes(struct blk_node *node, struct blk_req *req);
void qcow2_submit_discard(struct blk_node *node, struct blk_req *req);
/* Subclusters from @pos to @stop in one cluster; what lies past the end of the disk counts. */
uint32_t qcow2_subs_between(const struct qcow2 *q, uint64_t pos, uint64_t stop);

/* qcow2-anchor.c */
/* [off, end) is aligned to subclusters, but may stop at the end of the disk. */
int co_qcow2_anchor(struct qcow2 *q, uint64_t off, uint64_t end);

/* qcow2-flush.c */
void qcow2_submit_flush(struct blk_node *node, struct blk_req *req);
/* Completes @req after the next cycle (what a FUA write ends with). */
void qcow2_flush_join(struct qcow2 *q, struct blk_req *req);
bool qcow2_is_dirty(const struct qcow2 *q);
void qcow2_flush_init(struct qcow2 *q);
/* Something became dirty: arms the timer, starts a cycle when there is much. */
void qcow2_dirtied(struct qcow2 *q);
/* Waits while there is too much dirty metadata. */
int co_qcow2_wait_room(struct qcow2 *q);
/* A cycle of its own; everything that was done before is durable after it. */
int co_qcow2_cycle(struct qcow2 *q);
/* Cycles until nothing is dirty or waiting to be freed. */
int co_qcow2_settle(struct qcow2 *q);

/* qcow2-reopen.c */
int co_qcow2_reopen(struct blk_node *node, bool writable, struct error *err);

/* qcow2-header.c */
/* Writes @patched over the first sector and flushes; header_lock held. After a failure nothing is
 * flushed any more until co_qcow2_settle_header() has put back the sector as it was. */
int co_qcow2_write_header_sector(struct qcow2 *q, const uint8_t patched[QCOW2_SECTOR]);
int co_qcow2_settle_header(struct qcow2 *q);
int co_qcow2_clear_autoclear(struct qcow2 *q, struct error *err);
/* Tells the header that the image is corrupt; from any context. */
void qcow2_mark_corrupt(struct qcow2 *q);
int co_qcow2_change_backing(struct blk_node *node, const char *name, const char *format,
                            struct error *err);

/* qcow2-resize.c */
int co_qcow2_resize(struct blk_node *node, uint64_t size_bytes, struct error *err);
/* The L2 table of L1 entry @index, whose entries are freed or say nothing, none of them dirty. */
void qcow2_drop_table(struct qcow2 *q, uint64_t index);

/* qcow2-open.c */
int qcow2_fit_cache(struct qcow2 *q);
void qcow2_set_covered(struct blk_node *node, bool covered);

#endif
