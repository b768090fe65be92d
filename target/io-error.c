/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * News of commands that failed on the disk, for whoever administers it. A broken disk fails
 * thousands of commands: of each kind of error on a LUN, one a second is told.
 */
#include <errno.h>

#include "target/lun.h"
#include "util/loop.h"

#define TELL_EVERY_NS UINT64_C(1000000000)

static lun_error_fn *error_sink;

void lun_set_error_sink(lun_error_fn *sink)
{
    error_sink = sink;
}

static bool is_no_space(int error)
{
    return error == ENOSPC || error == EDQUOT;
}

void lun_note_error(struct lun *lun, bool write, int error)
{
    struct lun_error e = {
        .target = target_name(lun->target),
        .number = lun->number,
        .write = write,
        .no_space = is_no_space(error),
        .error = error,
    };
    uint64_t now = now_ns(), *quiet_until_ns = &lun->error_quiet_until_ns[e.write][e.no_space];

    if (!error_sink || lun->gone || now < *quiet_until_ns)
        return;
    *quiet_until_ns = now + TELL_EVERY_NS;
    e.node = blk_head_node(&lun->head);
    error_sink(&e);
}
