/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Layers of a pull's source that are given back before the source is dropped, each when nothing
 * that it decides is missing here any more. Order: here durably, the record, then the source hears
 * of it.
 *
 * Invariant: the layer that the disk at the source is called by stays held to the end, since the
 * rest is read from that disk. Whatever the source does to layers given back, commits them into
 * each other or leaves them out, that disk and the layers still held read as before.
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

/* The layers held below the disk's own, and how deep they lie. *@generation: of all these answers.
 */
static int co_find_depths(struct chain *c, struct needs *n, uint32_t *generation, struct error *err)
{
    const struct chain_record *rec = c->rec;
    struct cowl_page top, page;
    struct iscsi_url url;
    char uuid[UUID_STRLEN], own[UUID_STRLEN];
    int ret = iscsi_url_parse(rec->source_url, &url, err);

    uuid_to_text(&rec->source_layer, own);
    for (unsigned i = 0; i < rec->hold_luns.nr; i++) { /* LUN 0 may be another disk by now */
        if (!strcmp(rec->hold_layers.items[i], own))
            url.lun = (int)rec->hold_luns.items[i];
    }
    if (!ret)
        ret = co_page_of(c, url.lun, &top, err);
    for (unsigned i = 0; !ret && i < rec->hold_luns.nr; i++) {
        uint16_t lun = (uint16_t)rec->hold_luns.items[i];

        ret = co_page_of(c, lun, &page, err);
        if (ret)
            break;
        uuid_to_text(&page.layer_uuid, uuid);
        if (page.generation != top.generation)
            return error_set(err, EAGAIN, "its chain is being changed");
        if (i >= rec->hold_layers.nr || strcmp(uuid, rec->hold_layers.items[i]) ||
            page.layer_index > top.layer_index)
            return error_set(err, ENOTSUP, "LUN %u is another layer now", lun);
        if (page.layer_index < top.layer_index)
            n->layers[n->nr++] =
                (struct need){lun, (uint16_t)(top.layer_index - page.layer_index), 0};
    }
    *generation = top.generation;
    return ret;
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
    struct needs *n = calloc(1, sizeof(*n) + c->rec->hold_luns.nr * sizeof(n->layers[0]));
    uint32_t generation = 0;
    int ret;

    if (!n)
        return error_set(err, ENOMEM, "out of memory");
    ret = co_find_depths(c, n, &generation, err);
    if (!ret && n->nr)
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
