/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the remote node share; nobody else includes this. */
#ifndef COWTGT_REMOTE_INT_H
#define COWTGT_REMOTE_INT_H

#include <ev.h>

#include "lun-backends/iscsi-lun.h"
#include "lun-backends/remote.h"
#include "util/coroutine.h"
#include "util/loop.h"

struct remote;

/*
 * One of the node's two sessions. `conn` is set while its connector works on it and while it is
 * up; it is used for commands of the node only while `up`.
 */
struct remote_session {
    struct remote *remote;
    const char *name; /* "demand", "bulk" */
    struct iscsi_conn *conn;
    bool up;
    bool connecting; /* its connector coroutine runs */
    bool flapping;   /* was lost soon after it came up */
    uint64_t up_since_ns, backoff_ns;
    struct coroutine *sleeper; /* the connector, between two attempts */
    struct ev_timer timer;
};

struct remote {
    struct blk_node node;
    struct remote_opts opts;
    int lun;       /* where the disk is: opts.url.lun, or other_lun */
    int other_lun; /* where else it may be; -1: nowhere */
    struct remote_identity id;
    struct remote_session demand, bulk;

    /* as of the last contact */
    uint32_t block_bytes, max_chunk_bytes;
    uint64_t blocks;
    bool ask_layer_status, ask_lba_status;
    uint32_t generation; /* of the source's chain, as GET LAYER STATUS told it last; 0: never */

    bool closing, announced_up, told_wrong_identity;
    struct deferred notify;
    struct co_queue connector_ended;
    uint64_t down_since_ns, bytes_read, reported_ns;
    char last_error[256];
};

static inline struct remote *to_remote(const struct blk_node *node)
{
    return container_of(node, struct remote, node);
}

/* remote-connect.c */
void remote_sessions_init(struct remote *r);
/* Connects and checks identity; r->id is filled at first contact. */
int co_remote_session_open(struct remote_session *s, struct error *err);
void remote_start_connector(struct remote_session *s);
void co_remote_sessions_close(struct remote *r);
/* The session for a request with these blk_flags; NULL: the source is down. */
struct remote_session *remote_pick_session(struct remote *r, uint32_t flags);

/* remote-status.c: pure. */
/*
 * Checks and takes a GET LBA STATUS answer (SBC-3 5.2.2) to a request at @lba: descriptors that
 * are contiguous from @lba and inside the capacity, as extents in bytes. Their number or -EINVAL.
 */
int remote_lba_status_decode(const uint8_t *buf, size_t len, uint64_t lba, uint64_t capacity_blocks,
                             uint32_t block_bytes, struct blk_extent *ext, unsigned max);
/* What layers at @deepest (0: none) or below decide is nobody's say. */
void remote_forget_deeper(struct blk_extent *ext, unsigned n, unsigned deepest);
/* Cuts @n extents (>= 1) to [offset, offset + bytes); how many are left. */
unsigned remote_clip_extents(struct blk_extent *ext, unsigned n, uint64_t offset, uint64_t bytes);

#endif
