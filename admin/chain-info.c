/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A chain as JSON. All that is known at once is gathered first; only then it waits for the disk,
 * with references on what it asks.
 */
#include "admin/chain-info.h"

#include <stdlib.h>
#include <string.h>

#include "admin/holds.h"
#include "admin/json-util.h"
#include "admin/settings.h"
#include "lun-backends/commit.h"
#include "lun-backends/replica.h"
#include "lun-backends/file.h"
#include "lun-backends/remote.h"
#include "lun-backends/stream.h"
#include "util/loop.h"
#include "util/size.h"

static int64_t co_file_allocated(struct blk_node *file)
{
    uint64_t bytes;
    int ret;

    while (file && file->drv->is_filter)
        file = file->file.child;
    if (!file || strcmp(file->drv->name, "file"))
        return -1;
    blk_node_ref(file);
    ret = co_file_allocated_bytes(file, &bytes);
    blk_node_unref(file);
    return ret ? -1 : (int64_t)bytes;
}

/* With an external data file. */
int64_t co_layer_allocated(struct blk_node *node)
{
    struct blk_node *data = node->data.child;
    int64_t sum, more;

    if (data)
        blk_node_ref(data);
    sum = co_file_allocated(node->file.child);
    more = data ? co_file_allocated(data) : 0;
    blk_node_unref(data);
    return sum < 0 || more < 0 ? -1 : sum + more;
}

struct session_search {
    const char *target;
    json_t *list;
};

static bool add_session(const struct session_info *s, void *arg)
{
    struct session_search *search = arg;

    if (s->target && !strcmp(s->target, search->target))
        json_array_append_new(search->list,
                              json_pack("{s:I, s:o, s:s}", "id", (json_int_t)s->id, "initiator",
                                        json_text(s->initiator), "peer", s->peer));
    return true;
}

json_t *target_sessions(const struct target *target)
{
    struct session_search search = {
        .target = target_name(target),
        .list = json_array(),
    };

    session_for_each(add_session, &search);
    return search.list;
}

static json_t *layer_info(const struct chain *c, unsigned i)
{
    const struct layer *l = &c->layers[i];
    json_t *j = json_pack("{s:i, s:i, s:o, s:s, s:o, s:s, s:I, s:b, s:b}", "index",
                          (int)(i + (c->remote ? 1 : 0)), "lun", l->lun, "uuid",
                          json_uuid(&l->uuid), "node-name", l->node->name, "filename",
                          json_text(l->filename), "format", l->format, "virtual-size",
                          (json_int_t)l->node->size_bytes, "sealed", !l->writable, "local", 1);
    json_t *held;

    if (l->node->limits.granularity_bytes)
        json_put(j, "cluster-size", json_integer(l->node->limits.granularity_bytes));
    if (l->lun && (held = holders_of(c, l->lun)))
        json_put(j, "held-by", held);
    return j;
}

/* The source's disk, as the lowest layer. */
static json_t *remote_layer_info(const struct chain *c)
{
    const struct chain_record *rec = c->rec;
    json_t *j = json_pack("{s:i, s:s, s:s, s:s, s:I, s:b, s:b}", "index", 0, "node-name",
                          c->remote->name, "url", rec->source_url, "format", "raw", "virtual-size",
                          (json_int_t)c->remote->size_bytes, "sealed",
                          rec->source_has_cowl && !rec->source_unsealed, "local", 0);

    if (rec->source_has_cowl)
        json_put(j, "uuid", json_uuid(&rec->source_layer));
    return j;
}

static json_t *source_info(const struct chain *c)
{
    struct remote_status st;
    json_t *j;

    remote_get_status(c->remote, &st);
    j = json_pack("{s:s, s:b, s:I, s:I}", "url", c->rec->source_url, "connected", st.connected,
                  "bytes-read", (json_int_t)st.bytes_read, "timeout-seconds",
                  (json_int_t)c->rec->source_timeout_s);
    if (!st.connected && st.down_since_ns)
        json_put(j, "down-seconds",
                 json_integer((json_int_t)((now_ns() - st.down_since_ns) / 1000000000)));
    if (*st.last_error)
        json_put(j, "last-error", json_text(st.last_error));
    return j;
}

static void put_stream(json_t *j, const struct stream_stats *st)
{
    json_t *more =
        json_pack("{s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:b, s:b, s:I, s:I}", "skipped-bytes",
                  (json_int_t)st->skipped_bytes, "read-bytes", (json_int_t)st->read_bytes,
                  "hot-bytes", (json_int_t)st->hot_bytes, "mode", prefetch_mode_name(st->mode),
                  "window-bytes", (json_int_t)st->window_bytes, "disk-window-bytes",
                  (json_int_t)st->disk_window_bytes, "piece-bytes", (json_int_t)st->piece_bytes,
                  "guest-on-source", st->guest_on_wire, "guest-on-disk", st->guest_on_disk,
                  "yields", (json_int_t)st->yields, "brakes", (json_int_t)st->brakes);

    json_object_update(j, more);
    json_decref(more);
}

static json_t *job_info(const struct chain *c)
{
    const struct job *job = chain_job(c);
    json_t *j = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "id", job->id, "type", job->drv->type,
                          "status", job_status_name(job->status), "offset", (json_int_t)job->offset,
                          "len", (json_int_t)job->len, "speed", (json_int_t)job->speed);
    struct stream_stats st = {0};
    struct commit_stats cst;
    struct replica_stats rst;

    if (c->stream) {
        stream_get_stats(job, &st);
        put_stream(j, &st);
    } else if (c->copy) {
        replica_job_get_stats(job, &rst);
        st.copied_bytes = rst.copied_bytes;
        st.zeroed_bytes = rst.zeroed_bytes;
    } else {
        commit_get_stats(job, &cst);
        st.copied_bytes = cst.copied_bytes;
        st.zeroed_bytes = cst.zeroed_bytes;
    }
    json_put(j, "copied-bytes", json_integer((json_int_t)st.copied_bytes));
    json_put(j, "zeroed-bytes", json_integer((json_int_t)st.zeroed_bytes));
    return j;
}

static const char *state_name(const struct chain *c)
{
    if (*c->failure.msg)
        return "failed";
    return c->target ? "served" : "opening";
}

static json_t *numbers(const struct number_list *l)
{
    json_t *j = json_array();

    for (unsigned i = 0; i < l->nr; i++)
        json_array_append_new(j, json_integer((json_int_t)l->items[i]));
    return j;
}

static json_t *basic_info(const struct chain *c)
{
    const struct chain_record *rec = c->rec;
    json_t *allowed = json_array(), *masks = json_array(), *layers = json_array(), *held, *j;

    for (unsigned i = 0; i < rec->masks.nr; i++)
        json_array_append_new(masks, json_string(rec->masks.items[i]));
    for (unsigned i = 0; i < rec->allowed.nr; i++)
        json_array_append_new(allowed, json_string(rec->allowed.items[i]));
    if (c->remote && rec->source_url)
        json_array_append_new(layers, remote_layer_info(c));
    for (unsigned i = 0; i < c->nr_layers; i++)
        json_array_append_new(layers, layer_info(c, i));
    j = json_pack("{s:s, s:o, s:I, s:s, s:s, s:s, s:b, s:s, s:o, s:o, s:o, s:o}", "name", rec->name,
                  "uuid", json_uuid(&rec->uuid), "generation", (json_int_t)rec->generation, "kind",
                  rec->kind, "state", state_name(c), "target", rec->target, "writable",
                  rec->writable, "view", rec->view, "allowed", allowed, "masks", masks, "layers",
                  layers, "sessions", c->target ? target_sessions(c->target) : json_array());
    if (rec->portal_groups.nr)
        json_put(j, "portal-groups", numbers(&rec->portal_groups));
    if (rec->path)
        json_put(j, "image", json_text(rec->path));
    if (c->nr_layers)
        json_put(j, "virtual-size", json_integer((json_int_t)chain_top(c)->node->size_bytes));
    if (*c->failure.msg)
        json_put(j, "error", json_text(c->failure.msg));
    if (c->remote && rec->source_url)
        json_put(j, "source", source_info(c));
    else if (c->source_bytes_read)
        json_put(j, "source-bytes-read", json_integer((json_int_t)c->source_bytes_read));
    if (chain_job(c))
        json_put(j, "job", job_info(c));
    json_put(j, "settings", chain_settings_info(c));
    held = holders_of(c, 0);
    if (held)
        json_put(j, "held-by", held);
    held = holds_info(c);
    if (held)
        json_put(j, "holds", held);
    return j;
}

/*
 * How much of the disk needs no source: what the stream has decided, where one runs; else what the
 * overlay's file takes on this disk.
 */
static void put_local(json_t *j, bool has_remote, uint64_t virtual_bytes, int64_t allocated)
{
    const json_t *job = json_object_get(j, "job");
    uint64_t done = has_remote ? (uint64_t)MAX_OF(allocated, 0) : virtual_bytes;
    uint64_t all = virtual_bytes;

    if (has_remote && job && json_integer_value(json_object_get(job, "len"))) {
        done = (uint64_t)json_integer_value(json_object_get(job, "offset"));
        all = (uint64_t)json_integer_value(json_object_get(job, "len"));
    }
    done = MIN_OF(done, all);
    json_put(j, "local-bytes", json_integer((json_int_t)done));
    json_put(j, "local-percent", json_real(all ? 100.0 * (double)done / (double)all : 100.0));
}

json_t *co_chain_info(struct chain *c)
{
    json_t *j = basic_info(c), *layers = json_object_get(j, "layers");
    unsigned n = c->nr_layers, first = (unsigned)json_array_size(layers) - n;
    struct blk_node **nodes = calloc(n ? n : 1, sizeof(*nodes));
    bool has_remote = c->remote != NULL;
    int64_t allocated = -1;

    if (!nodes)
        return j;
    for (unsigned i = 0; i < n; i++)
        nodes[i] = blk_node_ref(c->layers[i].node);
    for (unsigned i = 0; i < n; i++) {
        allocated = co_layer_allocated(nodes[i]);
        if (allocated >= 0)
            json_put(json_array_get(layers, first + i), "allocated",
                     json_integer((json_int_t)allocated));
    }
    if (n)
        put_local(j, has_remote, nodes[n - 1]->size_bytes, allocated);
    for (unsigned i = 0; i < n; i++)
        blk_node_unref(nodes[i]);
    free(nodes);
    return j;
}
