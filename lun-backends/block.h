/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The block graph: nodes, requests, heads, and the contract between them.
 *
 *   head (a LUN, a job)  ->  [filter] -> format node -> file node -> engine -> disk
 *                                          \-> backing node -> ... -> zeros
 *
 * The request contract, for every node:
 *  - submit returns void; exactly one completion follows, on the loop's thread, with
 *    result 0 or -errno. There is no short success.
 *  - A completion raised inside submit is deferred by the core, so nobody sees done()
 *    before submit has returned, and recursion is bounded.
 *  - The core has checked bounds, alignment, read-only and limits before a driver sees the
 *    request, and has answered empty ones. A verb a driver does not list fails -ENOTSUP.
 *  - Offsets and lengths are bytes. Data is an iovec that stays valid until done().
 *  - The driver's scratch lives inside the request, and is the driver's only until it forwards
 *    the request or completes it.
 * Reads past the end of a backing node give zeros: blk_submit_backing() does that, drivers
 * don't.
 *
 * Errors with a meaning of their own:
 *  -EHOSTDOWN  the request needs a source that can't be reached now; nothing was changed;
 *              submit it again when the head hears BLK_EV_SOURCE_UP (or give up).
 *  -ENOTSUP    the node has no such verb, or not for this range.
 *  -ENOSPC, -EIO, -EROFS, -EINVAL (bounds or alignment) as everywhere.
 */
#ifndef COWTGT_BLOCK_H
#define COWTGT_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "util/error.h"
#include "util/list.h"

struct blk_node;
struct blk_head;
struct merged_map;
struct file_node;
struct file_window;

enum blk_verb {
    BLK_READ,
    BLK_WRITE,
    BLK_WRITE_ZEROES,
    BLK_DISCARD,
    BLK_FLUSH,
    BLK_STATUS,
    BLK_NR_VERBS,
};

enum blk_flags {
    BLK_FUA = 1 << 0,            /* WRITE, WRITE_ZEROES: stable before completion */
    BLK_MAY_UNMAP = 1 << 1,      /* WRITE_ZEROES: may deallocate, if it reads zeros after */
    BLK_IF_UNALLOCATED = 1 << 2, /* WRITE, WRITE_ZEROES: only where this node has no own say
                                    (neither data nor zeros), decided under its range lock */
    BLK_LOCAL_ONLY = 1 << 3,     /* READ: what this node does not hold itself reads as zeros */
    BLK_BULK = 1 << 4,           /* background work: a remote uses its other session */
    BLK_META = 1 << 5,           /* READ, WRITE, WRITE_ZEROES of a format's own tables: for
                                    filters below it, changes nothing */
    BLK_BY_LAYER = 1 << 6,       /* READ: layer by layer, past any merged map */
    BLK_ATOMIC = 1 << 7,         /* WRITE inside one aligned unit of limits.atomic_bytes: after a
                                    crash all of it is there, or nothing. Meanwhile the submitter
                                    keeps other writes off the allocation unit around it. */
    BLK_ANCHOR = 1 << 8,         /* WRITE_ZEROES, with limits.can_anchor, not with MAY_UNMAP: room
                                    is kept, so that no write there fails for want of it */
};

enum blk_result_flags {
    BLK_R_FROM_BACKING = 1 << 0, /* READ: some of it came from this node's backing */
};

/* What one node, not looking below, says of a range. */
enum blk_state {
    BLK_ST_DATA,        /* own data */
    BLK_ST_ZERO,        /* own decision: reads zeros */
    BLK_ST_UNALLOCATED, /* no own say; its backing decides, zeros if there is none */
    BLK_ST_COMPRESSED,  /* own data, stored compressed */
};

struct blk_extent {
    uint64_t offset_bytes, length_bytes;
    enum blk_state state;
    uint16_t depth; /* layer that decides: 0 = the node asked; only from blk_status_*() */
    bool anchored;  /* ZERO: room is kept for it, as BLK_ANCHOR asks */
};

/*
 * Data lent in place of a copy: where they lie in a mapping of the page cache. For system calls
 * and under bus_guarded(): where the file was cut short behind our back, sendmsg() gets EFAULT,
 * but whoever touches them a signal. They don't change while they are lent, unless by others than
 * us: before that the lender copies them to the reader's buffer, which is kept for it, and tells.
 * Owned by the reader; @recalled is set by it.
 */
struct blk_loan {
    const uint8_t *data; /* NULL: nothing is lent, what was read is in the reader's buffer */
    void *buf;           /* the reader's */
    int result;          /* of the copy; an error: the data can't be had any more */
    void (*recalled)(struct blk_loan *loan); /* data is NULL by now; must not submit anything */
    uint64_t since_ns;

    /* the lender's */
    struct list_head link;
    struct file_node *lender;
    struct file_window *window;
    uint64_t offset_bytes, bytes;
};

/*
 * One request. Filled by the submitter (or by blk_child_get()); the memory is the submitter's
 * and must stay until done().
 */
struct blk_req {
    enum blk_verb verb;
    uint32_t flags;
    uint64_t offset_bytes;
    uint64_t length_bytes;   /* 0 only for FLUSH */
    const struct iovec *iov; /* READ, WRITE: sums up to length_bytes; not changed by anyone */
    int niov;
    void (*done)(struct blk_req *req);
    void *opaque;          /* the submitter's */
    struct blk_loan *loan; /* READ: may be filled in place of the iovec; NULL: not wanted */

    /* results, valid in done() */
    int result;
    uint32_t result_flags;
    struct blk_extent extent; /* STATUS: starts at offset_bytes, length 1..length_bytes */

    /* the core's */
    struct list_head link;
    struct blk_node *node;
    struct blk_head *head;
    uint64_t begun_ns;      /* only while somebody watches, else 0 */
    struct iovec small_iov; /* for a submitter whose data is one buffer */

    /* the driver's that holds the request */
    union {
        uint64_t u64[12];
        void *ptr[12];
        struct list_head link;
    } scratch;
};

enum blk_event {
    BLK_EV_SOURCE_UP,   /* requests that failed -EHOSTDOWN may be tried again */
    BLK_EV_SOURCE_DOWN, /* a remote below went away */
    BLK_EV_RESIZED,
};

/* Where a sealed layer keeps a range of its disk: see co_locate. */
enum blk_place_kind {
    BLK_PLACE_HOST,  /* as it is, in another node */
    BLK_PLACE_ZERO,  /* reads zeros */
    BLK_PLACE_BELOW, /* it has no say: its backing decides */
    BLK_PLACE_ASK,   /* only the layer itself can read it (compressed, damaged) */
};

struct blk_place {
    enum blk_place_kind kind;
    struct blk_node *host; /* HOST: always the same node for one layer */
    uint64_t host_offset_bytes;
    uint64_t length_bytes; /* of the disk, 1..asked; of any kind */
};

/* A directed edge of the graph. Exactly one of parent_node, parent_head is set while linked. */
struct blk_edge {
    struct blk_node *child;
    struct blk_node *parent_node;
    struct blk_head *parent_head;
    struct list_head link; /* in child->parents */
};

struct blk_limits {
    uint32_t align_bytes;       /* requests are multiples of this, power of two, 1..4096 */
    uint32_t granularity_bytes; /* allocation unit (cluster); 0: none */
    uint32_t subunit_bytes;     /* smallest range that can become local (subcluster); 0: none */
    uint32_t atomic_bytes;      /* unit of BLK_ATOMIC, power of two; 0: there is no such write */
    bool can_anchor;            /* BLK_ANCHOR */
};

typedef void blk_submit_fn(struct blk_node *node, struct blk_req *req);

struct blk_driver {
    const char *name;      /* "qcow2", "raw", "file", "zero", "iscsi", "copy-on-read", ... */
    size_t instance_bytes; /* of the struct that starts with struct blk_node */
    bool is_format;        /* a layer of a chain: its unallocated parts belong to its backing */
    bool is_filter;        /* passes through to its file edge, adds nothing to the mapping */
    bool grows;            /* requests past size_bytes are the driver's to judge, not the core's */
    blk_submit_fn *submit[BLK_NR_VERBS];
    /*
     * Called in a coroutine when the last reference goes: flushes and closes. May wait.
     * Errors are logged; there is nobody to tell. The core frees the memory afterwards.
     */
    void (*co_close)(struct blk_node *node);
    /* In a coroutine: make everything durable and mark the image clean. NULL: only FLUSH. */
    int (*co_inactivate)(struct blk_node *node);
    /* In a coroutine, node drained: new virtual size. NULL: can't. */
    int (*co_resize)(struct blk_node *node, uint64_t size_bytes, struct error *err);
    /* In a coroutine, node drained: write the backing reference into the image, durably,
     * (name NULL: none). Doesn't change the graph. NULL: the format keeps none. */
    int (*co_change_backing)(struct blk_node *node, const char *name, const char *format,
                             struct error *err);
    /* In a coroutine, node drained, nothing dirty: open for writing from now on, or for reading
     * only. On failure all is as it was. Only co_blk_reopen() calls it. NULL: can't. */
    int (*co_reopen)(struct blk_node *node, bool writable, struct error *err);
    /* In a coroutine, node read-only: the place of the range that starts at @offset. What it says
     * holds until the node is opened anew or an edge below changes. An error is one of reading
     * metadata. NULL: reads must go through the node. */
    int (*co_locate)(struct blk_node *node, uint64_t offset, uint64_t bytes,
                     struct blk_place *place);
    /* Most of its reads will pass the node by (or not any more): it may keep fewer tables. */
    void (*set_covered)(struct blk_node *node, bool covered);
    /* In a coroutine, for co_blk_job_status_walk(): this node's say where it takes a question to
     * another host to know, and may be several layers. Up to @max contiguous extents from @offset
     * with depths counted from this node, below @deepest if that is not 0; their number, or
     * -errno. NULL: STATUS tells all. */
    int (*co_status_many)(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                          struct blk_extent *ext, unsigned max);
};

struct blk_node {
    const struct blk_driver *drv;
    char *name;     /* unique in the process, made by the core: "#block123" or as given */
    char *filename; /* what it was opened from, for messages and listings; may be NULL */
    uint64_t size_bytes;
    struct blk_limits limits;
    bool read_only;
    uint64_t write_threshold_bytes; /* a write that ends behind it is told, once; 0: none */
    unsigned refs;
    struct list_head parents;   /* of struct blk_edge */
    struct list_head all_link;  /* in the list of all nodes */
    struct blk_edge file;       /* protocol node (or a filter's only child) */
    struct blk_edge backing;    /* next layer down, NULL child at the base */
    struct blk_edge data;       /* guest data kept apart from @file (qcow2); mostly NULL */
    struct list_head walk_link; /* the core's, while it looks for what is above a node */
    unsigned walk_gen;
    struct merged_map *merged; /* merged.c's */
    bool merge_decided;        /* whether there is to be a merged map */
};

/* ---- nodes: for drivers and whoever builds graphs -------------------------------- */

/* Allocates drv->instance_bytes zeroed, refs = 1; @name NULL: one is made. NULL: out of memory,
 * or the name is taken. */
struct blk_node *blk_node_new(const struct blk_driver *drv, const char *name);
struct blk_node *blk_node_ref(struct blk_node *node);
/* Drops a reference; the last one closes the node in a coroutine of its own, then drops its
 * edges. co_ variant: in this coroutine, returns after the close. Both take NULL. */
void blk_node_unref(struct blk_node *node);
void co_blk_node_unref(struct blk_node *node);
/* Sets (or with NULL clears) an edge; takes its own reference on @child, drops the old one.
 * Only while everything above @parent is drained. */
void blk_set_file(struct blk_node *parent, struct blk_node *child);
void blk_set_backing(struct blk_node *parent, struct blk_node *child);
void blk_set_data(struct blk_node *parent, struct blk_node *child);
struct blk_node *blk_node_find(const char *name);
/* fn returns false to stop. */
void blk_for_each_node(bool (*fn)(struct blk_node *, void *), void *arg);
/* Tells all heads above @node (through filters and overlays), each once. */
void blk_node_notify(struct blk_node *node, enum blk_event ev);
/* Where news of crossed write thresholds go; one sink. The threshold is 0 by then. It must not
 * submit anything nor change the graph. */
void blk_set_threshold_sink(void (*fn)(const struct blk_node *node, uint64_t threshold_bytes,
                                       uint64_t exceeded_bytes));
/* True while any node is still being closed; for an orderly exit. */
bool blk_closing(void);
/* In a coroutine, everything above @node drained: seals the node (makes all durable, the image
 * clean, opens its file read-only), or opens it for writing. Nothing to do: 0. */
int co_blk_reopen(struct blk_node *node, bool writable, struct error *err);

/* ---- requests: for drivers -------------------------------------------------------- */

/* Submits @req to @node: checks, then the driver. */
void blk_submit(struct blk_node *node, struct blk_req *req);
/* Passes the same request on; req->offset_bytes may have been changed. Scratch is lost. */
void blk_forward(struct blk_node *node, struct blk_req *req);
/* READ/STATUS of what @node does not hold: forwards to its backing, clipped at its end with
 * zeros behind, zeros if there is none or with BLK_LOCAL_ONLY; adds BLK_R_FROM_BACKING if the
 * backing was asked. @req may be one that @node was given or a zeroed one of its own. */
void blk_submit_backing(struct blk_node *node, struct blk_req *req);
/* Ends a request; exactly once. */
void blk_complete(struct blk_req *req, int result);

/* Gives the data back; nothing if there is no loan. */
void blk_loan_return(struct blk_loan *loan);
/* Has the data copied to the buffer now; recalled() is called. Nothing if there is no loan. */
void blk_loan_recall(struct blk_loan *loan);

/* A request from the core's free list (never NULL: aborts when out of memory, at < 1 KiB). */
struct blk_req *blk_child_get(void);
void blk_child_put(struct blk_req *req);

/* Submits a child with the same verb, range and data to @node; @req is its opaque. For filters that
 * have something to do when it is done: done() puts the child and completes @req. */
void blk_submit_copy(struct blk_node *node, struct blk_req *req, void (*done)(struct blk_req *));

/* A request of its own over bytes [from, from + bytes) of @req's data, same verb, offset not set;
 * NULL: no memory. Given back by blk_part_put(). */
struct blk_req *blk_part_get(struct blk_req *req, uint64_t from, uint64_t bytes);
void blk_part_put(struct blk_req *part, const struct blk_req *parent);

/* iovec helpers: all take byte positions inside the iovec. */
size_t iov_bytes(const struct iovec *iov, int niov);
void iov_zero(const struct iovec *iov, int niov, size_t from, size_t bytes);
void iov_from_buf(const struct iovec *iov, int niov, size_t from, const void *buf, size_t bytes);
void iov_to_buf(const struct iovec *iov, int niov, size_t from, void *buf, size_t bytes);
bool iov_is_zero(const struct iovec *iov, int niov);
/* Cuts [from, from + bytes) out into @out of @max entries; entries used, or -E2BIG. */
int iov_slice(const struct iovec *iov, int niov, size_t from, size_t bytes, struct iovec *out,
              int max);
bool buf_is_zero(const void *buf, size_t bytes);

/* ---- requests in a coroutine: for drivers, jobs, opening -------------------------- */

int co_blk_rw(struct blk_node *node, enum blk_verb verb, uint64_t offset, const struct iovec *iov,
              int niov, uint32_t flags);
int co_blk_read(struct blk_node *node, uint64_t offset, void *buf, size_t bytes, uint32_t flags);
int co_blk_write(struct blk_node *node, uint64_t offset, const void *buf, size_t bytes,
                 uint32_t flags);
int co_blk_write_zeroes(struct blk_node *node, uint64_t offset, uint64_t bytes, uint32_t flags);
int co_blk_discard(struct blk_node *node, uint64_t offset, uint64_t bytes);
int co_blk_flush(struct blk_node *node);
/* This node's own say about [offset, offset+bytes): one extent that starts at @offset. */
int co_blk_status(struct blk_node *node, uint64_t offset, uint64_t bytes, struct blk_extent *ext);

/*
 * Walks the mapping of @node and its backing chain from @offset: fills up to @max extents,
 * contiguous from @offset, neighbours differing in (state, depth), none past @offset + @bytes.
 * Filters don't count as depth. UNALLOCATED means no layer looked into has a say. The part of an
 * overlay beyond a shorter backing is BLK_ST_ZERO with the depth of the layer above that backing.
 * @deepest: layers to look into, 0 = all. Bounded work: may stop early with fewer bytes than
 * asked. Returns the number of extents (>= 1) or -errno.
 */
int co_blk_status_walk(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                       struct blk_extent *ext, unsigned max);
/*
 * The same for jobs: a source on another host is asked where it has data and counts as all of its
 * layers (else it is one layer full of data). -EHOSTDOWN, -EAGAIN: it can't be asked now.
 */
int co_blk_job_status_walk(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                           struct blk_extent *ext, unsigned max);

/* ---- heads: for whoever uses a disk (a LUN, a job) -------------------------------- */

/* Whatever may hold back requests before a head counts them; see throttle.h. */
struct blk_gate {
    /* False: it was kept, by req->link, and goes on by blk_head_submit_through() some time. */
    bool (*pass)(struct blk_gate *gate, struct blk_req *req);
};

/*
 * An entry into the graph. Owned by its user and embedded in it. Requests through a head are
 * counted, so that a graph edit can wait for them (drain); while drained, new ones wait in a
 * queue and are submitted when the drain ends.
 */
struct blk_head {
    char *name; /* what is told to users who ask what holds a node: "LUN 0 of iqn...", "job x" */
    struct blk_edge root;
    bool writable;
    unsigned in_flight;
    unsigned drain_count;
    struct list_head queued;
    struct list_head drain_waiters;
    void (*on_event)(struct blk_head *head, enum blk_event ev); /* may be NULL */
    void *opaque;
    unsigned walk_gen;     /* the core's */
    struct blk_gate *gate; /* may be NULL; taken away before the head is */
    bool guest;            /* what comes through it is a guest's, not our own work */
};

/* Sees the guests' requests to disks that have @below in their chain. In neither call may
 * anything be submitted or changed in the graph. */
struct blk_watch {
    struct list_head link;
    struct blk_node *below;
    void (*begun)(struct blk_watch *w, const struct blk_req *req);
    /* With its result; it began at @begun_ns. */
    void (*ended)(struct blk_watch *w, const struct blk_req *req, uint64_t begun_ns);
};
/* @w->below, begun and ended are set, and stay; the watch holds no reference. */
void blk_watch_start(struct blk_watch *w);
void blk_watch_stop(struct blk_watch *w);

/* @name is copied. Takes a reference on @root. */
void blk_head_init(struct blk_head *head, const char *name, struct blk_node *root, bool writable);
/* In a coroutine: waits for all requests, then lets go of the root. */
void co_blk_head_fini(struct blk_head *head);
static inline struct blk_node *blk_head_node(const struct blk_head *head)
{
    return head->root.child;
}
/* Another node for the same user; the head is drained. */
void blk_head_set_root(struct blk_head *head, struct blk_node *root);
/*
 * Checks bounds and alignment (-EINVAL), -EROFS, then submits to the root. The request's done()
 * is called after the head has counted it out.
 */
void blk_head_submit(struct blk_head *head, struct blk_req *req);
/* The same, past the head's gate. */
void blk_head_submit_through(struct blk_head *head, struct blk_req *req);

/*
 * For a coroutine that looks at the graph below a head by the node functions above (a status
 * walk): between enter and exit it counts as a request in flight, so no drain ends meanwhile.
 * Enter waits while the head is drained.
 */
void co_blk_head_enter(struct blk_head *head);
void blk_head_exit(struct blk_head *head);

/* In a coroutine. After the call no request through any head above @node (and through @node's
 * other parents) is in flight; calls nest; every drain_begin is followed by drain_end. */
void co_blk_drain_begin(struct blk_node *node);
void blk_drain_end(struct blk_node *node);
/* Puts @to where @from is, for all parents of @from but @to itself; drained. */
void blk_replace_node(struct blk_node *from, struct blk_node *to);
/* The name of a head or node that uses @node, other than @except (may be NULL); NULL: nobody. */
const char *blk_user_of(struct blk_node *node, const struct blk_node *except);

int blk_init(void);
void blk_fini(void);

#endif
