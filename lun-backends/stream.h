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

struct stream_stats {
    uint64_t copied_bytes;  /* data read from below and written */
    uint64_t zeroed_bytes;  /* made zero clusters */
    uint64_t skipped_bytes; /* local already, or undecided */
};

/*
 * @overlay: a writable format node with a backing edge. The job holds a reference while it
 * runs. on_done is called with everything copied and flushed; it is where the owner drops the
 * backing (drain, co_change_backing, blk_set_backing NULL).
 */
struct job *stream_job_new(const char *id, const char *device, struct blk_node *overlay,
                           struct error *err);
void stream_get_stats(const struct job *job, struct stream_stats *st);

#endif
