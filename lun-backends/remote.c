/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The remote node: a READ becomes READ(16) commands of at most the target's transfer limit, a
 * few at a time, straight into the reader's buffers. What a session that is lost had under way
 * fails -EHOSTDOWN; bulk reads go on over the demand session first.
 */
#define LOG_AREA "remote"
#include "lun-backends/remote-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/byteorder.h"
#include "util/log.h"
#include "util/size.h"

#define MAX_CHUNKS_A_READ 8
#define REPORT_EVERY_NS   1000000000ull

/* What the node keeps in a READ while it holds it. */
struct read_state {
    uint64_t next_bytes; /* handed to commands so far */
    uint64_t nr_chunks;  /* under way */
    int64_t result;      /* first failure */
};

struct chunk {
    struct iscsi_cmd cmd;
    struct remote *remote;
    struct blk_req *req;
    bool on_bulk;
};

static struct read_state *state_of(struct blk_req *req)
{
    _Static_assert(sizeof(struct read_state) <= sizeof(req->scratch), "fits in the request");
    return (struct read_state *)req->scratch.u64;
}

static void chunk_done(struct iscsi_cmd *cmd);

static int start_chunk(struct remote *r, struct blk_req *req)
{
    struct read_state *st = state_of(req);
    struct remote_session *s = remote_pick_session(r, req->flags);
    uint64_t left = req->length_bytes - st->next_bytes;
    uint64_t bytes = MIN_OF(left, r->max_chunk_bytes);

    if (!s)
        return -EHOSTDOWN;

    struct chunk *ch = calloc(1, sizeof(*ch));

    if (!ch)
        return -ENOMEM;
    ch->remote = r;
    ch->req = req;
    ch->on_bulk = s == &r->bulk;
    ch->cmd = (struct iscsi_cmd){
        .cdb = {0x88}, /* READ(16), SBC-3 5.13 */
        .cdb_len = 16,
        .lun = r->lun,
        .iov = req->iov,
        .niov = req->niov,
        .iov_from = st->next_bytes,
        .bytes = (uint32_t)bytes,
        .exact = true,
        .done = chunk_done,
    };
    put_be64(ch->cmd.cdb + 2, (req->offset_bytes + st->next_bytes) / r->block_bytes);
    put_be32(ch->cmd.cdb + 10, (uint32_t)(bytes / r->block_bytes));
    st->next_bytes += bytes;
    st->nr_chunks++;
    iscsi_conn_submit(s->conn, &ch->cmd);
    return 0;
}

static void go_on(struct remote *r, struct blk_req *req)
{
    struct read_state *st = state_of(req);

    while (!st->result && st->next_bytes < req->length_bytes && st->nr_chunks < MAX_CHUNKS_A_READ)
        st->result = start_chunk(r, req);
    if (!st->nr_chunks)
        blk_complete(req, (int)st->result);
}

/* At most once a second: a broken source must not fill the log. */
static void report(struct remote *r, const struct iscsi_cmd *cmd)
{
    uint64_t now = now_ns();
    bool quiet = r->reported_ns && now - r->reported_ns < REPORT_EVERY_NS;
    char sense[32];

    snprintf(sense, sizeof(sense), "sense %xh/%04xh", cmd->sense_key, cmd->ascq);
    log_at(quiet ? LOG_LVL_DEBUG : LOG_LVL_WARNING, "%s: READ at block %" PRIu64 ": %s",
           r->node.filename, get_be64(cmd->cdb + 2),
           cmd->result == -EREMOTEIO ? sense
           : cmd->result == -EAGAIN  ? "the target stays busy"
                                     : "refused, or not all data came");
    if (!quiet)
        r->reported_ns = now;
}

/* The block layer knows one "not now"; whatever else the source answers is an I/O error. */
static int chunk_result(struct chunk *ch)
{
    struct iscsi_cmd *cmd = &ch->cmd;
    struct remote *r = ch->remote;

    if (!cmd->result || cmd->result == -EHOSTDOWN)
        return cmd->result;
    /* LOGICAL UNIT NOT SUPPORTED: it was taken away. It may come back; until then we are down. */
    if (cmd->result == -EREMOTEIO && cmd->sense_key == 5 && cmd->ascq == 0x2500) {
        iscsi_conn_cancel(cmd->conn, "the target has no such LUN any more");
        return -EHOSTDOWN;
    }
    report(r, cmd);
    return -EIO;
}

static void chunk_done(struct iscsi_cmd *cmd)
{
    struct chunk *ch = container_of(cmd, struct chunk, cmd);
    struct remote *r = ch->remote;
    struct blk_req *req = ch->req;
    struct read_state *st = state_of(req);
    int ret = chunk_result(ch);

    if (ret == -EHOSTDOWN && ch->on_bulk && r->demand.up) {
        ch->on_bulk = false;
        cmd->lun = r->lun; /* that session may have found the disk elsewhere */
        iscsi_conn_submit(r->demand.conn, cmd);
        return;
    }
    if (!ret)
        r->bytes_read += cmd->got;
    else if (!st->result)
        st->result = ret;
    free(ch);
    st->nr_chunks--;
    go_on(r, req);
}

static void remote_read(struct blk_node *node, struct blk_req *req)
{
    *state_of(req) = (struct read_state){0};
    go_on(to_remote(node), req);
}

/* The mapping of the other side is the business of co_remote_status(): here all is data. */
static void remote_status(struct blk_node *node, struct blk_req *req)
{
    (void)node;
    req->extent = (struct blk_extent){req->offset_bytes, req->length_bytes, BLK_ST_DATA, 0, false};
    blk_complete(req, 0);
}

static void remote_flush(struct blk_node *node, struct blk_req *req)
{
    (void)node;
    blk_complete(req, 0); /* never written */
}

static void co_remote_close(struct blk_node *node)
{
    struct remote *r = to_remote(node);

    co_remote_sessions_close(r);
    explicit_bzero(r->opts.secret, sizeof(r->opts.secret));
}

static const struct blk_driver remote_driver = {
    .name = "iscsi",
    .instance_bytes = sizeof(struct remote),
    .is_format = true, /* a layer: status walks end here */
    .submit =
        {
            [BLK_READ] = remote_read,
            [BLK_STATUS] = remote_status,
            [BLK_FLUSH] = remote_flush,
        },
    .co_close = co_remote_close,
    .co_status_many = co_remote_status,
};

/* Without contact the block size is not known: the largest that the size allows will do. */
static uint32_t safe_align(const struct remote *r)
{
    uint64_t size = r->id.size_bytes;

    if (r->block_bytes)
        return r->block_bytes;
    return (uint32_t)MAX_OF(MIN_OF(size & -size, 4096u), 512u);
}

int co_remote_open(const struct remote_opts *opts, struct blk_node **out, struct error *err)
{
    char url[640];

    if (iscsi_url_format(&opts->url, url, sizeof(url)))
        return error_set(err, ENAMETOOLONG, "the source's URL is too long");
    if (opts->may_be_down && (!opts->expect.size_bytes || opts->expect.size_bytes % 512))
        return error_set(err, EINVAL, "%s can't be opened without contact: its size is not known",
                         url);

    struct blk_node *node = blk_node_new(&remote_driver, NULL);

    if (!node)
        return error_set(err, ENOMEM, "no memory for %s", url);

    struct remote *r = to_remote(node);

    r->opts = *opts;
    r->lun = opts->url.lun;
    r->other_lun = -1;
    r->id = opts->expect;
    node->filename = strdup(url);
    node->read_only = true;
    remote_sessions_init(r);

    int ret = node->filename ? 0 : error_set(err, ENOMEM, "no memory for %s", url);

    if (!ret && !opts->may_be_down)
        ret = co_remote_session_open(&r->demand, err);
    if (ret) {
        co_blk_node_unref(node);
        return ret;
    }
    node->size_bytes = r->id.size_bytes;
    node->limits.align_bytes = safe_align(r);
    r->announced_up = !opts->may_be_down;
    remote_start_connector(&r->demand);
    *out = node;
    return 0;
}

void remote_set_other_lun(struct blk_node *node, int lun)
{
    to_remote(node)->other_lun = lun;
}

bool blk_node_is_remote(const struct blk_node *node)
{
    return node->drv == &remote_driver;
}

bool remote_tells_layers(const struct blk_node *node, uint32_t *generation)
{
    const struct remote *r = to_remote(node);

    *generation = r->generation;
    return r->ask_layer_status;
}

void remote_get_identity(const struct blk_node *node, struct remote_identity *id)
{
    *id = to_remote(node)->id;
}

void remote_get_status(const struct blk_node *node, struct remote_status *st)
{
    const struct remote *r = to_remote(node);

    memset(st, 0, sizeof(*st));
    st->connected = r->demand.up;
    st->down_since_ns = r->demand.up ? 0 : r->down_since_ns;
    st->bytes_read = r->bytes_read;
    snprintf(st->last_error, sizeof(st->last_error), "%s", r->last_error);
}
