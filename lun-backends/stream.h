/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The stream job: copies into an overlay what it does not hold itself from everything below it.
 * Asks status first; reads only data extents; decided zeros become zero clusters; what no layer
 * has a say about stays unallocated (it reads zeros once the backing is gone).
 * A source that is down makes the job wait, not fail. Complete means: every byte of the overlay
 * is decided locally or reads as zeros without a backing.
 */
#ifndef COWTGT_STREAM_H
#define COWTGT_STREAM_H

#include "lun-backends/block.h"
#include "lun-backends/job.h"
#include "lun-backends/pace.h"

struct stream_config {
    struct pace_config pace;
    uint64_t start_delay_ns;    /* from the job's start */
    const char *throttle_group; /* what it reads and writes counts there; NULL: nowhere. Copied */
};

struct stream_stats {
    uint64_t copied_bytes;  /* data read from below and written */
    uint64_t zeroed_bytes;  /* made zero clusters */
    uint64_t skipped_bytes; /* local already, or undecided */
    uint64_t read_bytes;    /* asked of the source, whatever became of it */
    uint64_t hot_bytes;     /* of these, out of turn, near what guests asked for */
    /* as of now */
    enum prefetch_mode mode;
    uint64_t window_bytes, disk_window_bytes, piece_bytes;
    bool guest_on_wire, guest_on_disk;
    uint64_t yields, brakes; /* windows cut because guests came; for their latency */
};

/* One thing to copy: into @overlay, a writable format node with a backing edge. */
struct stream_stage {
    struct blk_node *overlay;
    unsigned layers;         /* of the backing, from its top: what they decide; 0: all of it */
    struct blk_node *differ; /* where the backing can't tell which layer decides: what reads
                                otherwise than this node, which stays below; NULL: not compared */
    bool as_is;              /* data of zeros stays data: a layer as it was */
};

struct stream_plan_opts {
    struct stream_stage first;
    struct blk_node *guests; /* what is copied gives way to guests with this node in their disk;
                                NULL: first.overlay */
    uint64_t total_bytes;    /* of the overlays of all stages, for progress; 0: one stage */
    /* In the job's coroutine, a stage being copied, flushed, and let go of. 1: @next is to come, 0:
     * all is done, -errno with @err. NULL: there is one stage. */
    int (*co_next)(struct job *job, struct stream_stage *next, struct error *err);
    /* With one stage: all below @durable_bytes is in the overlay, durably, or reads as zeros
     * without its backing. In a coroutine of its own beside the copying, which does not end before
     * it; the first time at once. Returns from where on it wants to hear again; UINT64_MAX: never.
     * May be NULL. */
    uint64_t (*co_passed)(struct job *job, uint64_t durable_bytes);
};

/*
 * The job holds references on the nodes it works on. on_done is called with everything copied and
 * flushed; it is where the owner changes the backing (drain, co_change_backing, blk_set_backing).
 */
struct job *stream_job_new(const char *id, const char *device, const struct stream_plan_opts *opts,
                           struct error *err);
/* Takes effect at once. Before that: adaptive, no delay. */
void stream_configure(struct job *job, const struct stream_config *config);
void stream_get_stats(const struct job *job, struct stream_stats *st);

/*
 * For co_passed, over a source that tells of its layers: the end of the last range that layer @i
 * (0: the source's top) decides and the overlay has no say about goes into @end_of[@i], of @n; 0:
 * there is none. Ones that were UINT64_MAX are not looked for. Ranges only ever become local, so
 * these ends stay true of layers that nobody changes. *@generation: of a chain on another host,
 * as all of its answers had it; 0: none was needed. 0, or -errno: -EAGAIN, -EHOSTDOWN: not now;
 * -ENOTSUP: it does not tell.
 */
int co_stream_last_needed(struct job *job, uint64_t *end_of, unsigned n, uint32_t *generation);

#endif
