/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Layers of a pull's source that are given back before the source is dropped, each when nothing
 * that it decides is missing here any more. Order: here durably, the record, then the source hears
 * of it.
 *
 * Invariant: the layer that the disk at the source is called by stays held to the end, since the
 * rest is read from that disk. Whatever the source does to layers given back, commits them into
 * each other or leaves them out, that disk and the layers still held read as before. With a base
 * that is kept here only layers above it are held, and they are what layers are counted by: what
 * lies below the deepest of them is here, or the base's.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/chains.h"
#include "admin/events.h"
#include "admin/holds.h"
#include "lun-backends/iscsi-lun.h"
#include "lun-backends/remote.h"
#include "lun-backends/stream.h"
#include "util/log.h"
#include "util/size.h"

#define TRY_AGAIN_BYTES (UINT64_C(16) << 20) /* of progress, where the source can't tell now */

/* Of each layer held, but the disk's own: where its last range that is missing here ends. */
struct needs {
    unsigned nr;
    struct need {
        uint16_t lun;
        uint16_t depth; /* below the source's top */
        uint64_t end;
    } layers[];
};

void chain_forget_passed(struct chain *c)
{
    free(c->needs);
    c->needs = NULL;
}

/* ---- giving back --------------------------------------------------------------------------- */

/* An event for it in @events, if it was held. */
static void give_up(struct chain *c, uint16_t lun, json_t *events)
{
    struct chain_record *rec = c->rec;

    for (unsigned i = 0; i < rec->hold_luns.nr; i++) {
        json_t *event;

        if (rec->hold_luns.items[i] != lun)
            continue;
        event = holds_dropped_event(rec, i);
        if (!event) /* the disk itself */
            return;
        json_array_append_new(events, event);
        holds_give_up_one(rec, lun);
        log_notice("chain %s: nothing of LUN %u of the source is needed any more", rec->name, lun);
        return;
    }
}

/* Takes @events over. A record that can't be saved stays as it was on disk: the source is not told
 * then, and the layer is given back later. */
static void co_finish(struct chain *c, json_t *events)
{
    struct error err = ERROR_INIT;
    json_t *event;
    size_t i;

    if (json_array_size(events) && co_state_save(c->d->state, &err)) {
        log_err("%s", err.msg);
    } else if (json_array_size(events)) {
        holds_start(c);
        json_array_foreach (events, i, event)
            event_emit(c->d, "CHAIN_LAYER_DROPPED", json_incref(event));
    }
    json_decref(events);
}

void co_chain_give_back(struct chain *c, uint16_t lun)
{
    json_t *events = json_array();

    give_up(c, lun, events);
    co_finish(c, events);
}

/* ---- what is needed ------------------------------------------------------------------------ */

static int co_page_of(struct chain *c, int lun, struct cowl_page *page, struct error *err)
{
    struct lun_info info;
    int ret = co_remote_lun_info(c->remote, lun, &info, err);

    if (ret)
        return ret;
    if (!info.has_cowl)
        return error_set(err, ENOTSUP, "LUN %d does not tell of layers", lun);
    *page = info.cowl;
    return 0;
}

/* The LUN that shows the disk: LUN 0 may be another one by now. */
static int find_own_lun(const struct chain_record *rec, struct error *err)
{
    struct iscsi_url url;
    char own[UUID_STRLEN];

    if (iscsi_url_parse(rec->source_url, &url, err))
        return -err->errnum;
    uuid_to_text(&rec->source_layer, own);
    for (unsigned i = 0; i < rec->hold_luns.nr; i++) {
        if (!strcmp(rec->hold_layers.items[i], own))
            url.lun = (int)rec->hold_luns.items[i];
    }
    return url.lun;
}

static int co_find_depth(struct chain *c, unsigned i, const struct cowl_page *top,
                         struct need *layer, struct error *err)
{
    uint16_t lun = (uint16_t)c->rec->hold_luns.items[i];
    struct uuid uuid;
    struct cowl_page page;
    int ret;

    if (i >= c->rec->hold_layers.nr || !uuid_from_text(&uuid, c->rec->hold_layers.items[i]))
        return error_set(err, EINVAL, "which layer LUN %u is to be was not recorded", lun);
    ret = co_page_of(c, lun, &page, err);
    if (ret)
        return ret;
    if (page.generation != top->generation)
        return error_set(err, EAGAIN, "its chain is being changed");
    if (!uuid_equal(&page.layer_uuid, &uuid) || page.layer_index > top->layer_index)
        return error_set(err, ENOTSUP, "LUN %u is another layer now", lun);
    *layer = (struct need){lun, (uint16_t)(top->layer_index - page.layer_index), 0};
    return 0;
}

/*
 * The layers held below the disk's own, and how deep they lie. *@generation: of all these answers.
 * One that is given back meanwhile may be changed: then all of it is to be asked again.
 */
static int co_find_depths(struct chain *c, struct needs **needs, uint32_t *generation,
                          struct error *err)
{
    unsigned nr = c->rec->hold_luns.nr;
    struct needs *n = calloc(1, sizeof(*n) + nr * sizeof(n->layers[0]));
    int lun = find_own_lun(c->rec, err), ret = lun < 0 ? lun : 0;
    struct cowl_page top;

    if (!n)
        return error_set(err, ENOMEM, "out of memory");
    if (!ret)
        ret = co_page_of(c, lun, &top, err);
    for (unsigned i = 0; !ret && i < nr && nr == c->rec->hold_luns.nr; i++) {
        ret = co_find_depth(c, i, &top, &n->layers[n->nr], err);
        n->nr += !ret && n->layers[n->nr].depth;
    }
    if (nr != c->rec->hold_luns.nr)
        ret = error_set(err, EAGAIN, "layers are being given back");
    if (ret) {
        free(n);
        return ret;
    }
    *generation = top.generation;
    *needs = n;
    return 0;
}

int co_chain_count_upper(void *opaque, unsigned *layers, uint32_t *generation, struct error *err)
{
    struct chain *c = opaque;
    struct needs *n;
    int ret;

    if (!c->remote)
        return error_set(err, ENOTSUP, "the source was dropped");
    ret = co_find_depths(c, &n, generation, err);
    if (ret)
        return ret;
    *layers = 1;
    for (unsigned i = 0; i < n->nr; i++)
        *layers = MAX_OF(*layers, n->layers[i].depth + 1u);
    free(n);
    return 0;
}

static int co_find_ends(struct job *job, struct needs *n, uint32_t generation, struct error *err)
{
    unsigned deepest = 0;
    uint32_t answered;
    uint64_t *end_of;
    int ret;

    for (unsigned i = 0; i < n->nr; i++)
        deepest = MAX_OF(deepest, n->layers[i].depth);
    end_of = malloc((deepest + 1) * sizeof(*end_of));
    if (!end_of)
        return error_set(err, ENOMEM, "out of memory");
    memset(end_of, 0xff, (deepest + 1) * sizeof(*end_of));
    for (unsigned i = 0; i < n->nr; i++)
        end_of[n->layers[i].depth] = 0;
    ret = co_stream_last_needed(job, end_of, deepest + 1, &answered);
    if (!ret && answered && answered != generation)
        ret = -EAGAIN;
    if (ret)
        error_set(err, -ret, "asking which layers decide: %s", strerror(-ret));
    for (unsigned i = 0; i < n->nr; i++)
        n->layers[i].end = end_of[n->layers[i].depth];
    free(end_of);
    return ret;
}

/* c->needs; -EAGAIN, -EHOSTDOWN: not now. */
static int co_survey(struct chain *c, struct job *job, struct error *err)
{
    struct needs *n;
    uint32_t generation;
    int ret = co_find_depths(c, &n, &generation, err);

    if (ret)
        return ret;
    if (n->nr)
        ret = co_find_ends(job, n, generation, err);
    if (ret)
        free(n);
    else
        c->needs = n;
    return ret;
}

uint64_t co_chain_passed(struct job *job, uint64_t durable_bytes)
{
    struct chain *c = job->opaque;
    struct error err = ERROR_INIT;
    uint64_t next = UINT64_MAX;
    json_t *events;
    int ret = c->needs ? 0 : co_survey(c, job, &err);

    if (ret) {
        log_info("chain %s: which layers of the source are still needed is not known: %s",
                 c->rec->name, err.msg);
        return ret == -EAGAIN || ret == -EHOSTDOWN ? durable_bytes + TRY_AGAIN_BYTES : UINT64_MAX;
    }
    events = json_array();
    for (unsigned i = 0; i < c->needs->nr; i++) {
        const struct need *l = &c->needs->layers[i];

        if (l->end <= durable_bytes)
            give_up(c, l->lun, events);
        else
            next = MIN_OF(next, l->end);
    }
    co_finish(c, events);
    return next;
}
