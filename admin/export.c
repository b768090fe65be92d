/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An exported chain: images of this host, opened from the top's name. Formats are fixed at the
 * first export; a sealed layer's UUID stays as long as its file is as it was, a writable top gets
 * a new one at every opening.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <string.h>

#include "admin/chains.h"
#include "admin/settings.h"
#include "util/log.h"

static int note_formats(struct chain_record *rec, const struct chain_image *image,
                        struct error *err)
{
    const struct chain_layer *top = &image->layers[image->nr_layers - 1];

    if (record_set(&rec->format, top->format))
        return error_set(err, ENOMEM, "out of memory");
    for (unsigned i = 0; i < image->nr_layers; i++) {
        if (string_list_add(&rec->layer_formats, image->layers[i].format))
            return error_set(err, ENOMEM, "out of memory");
    }
    return 0;
}

/* A layer that was raw stays raw, whatever its bytes look like now. */
static int check_formats(const struct chain_record *rec, const struct chain_image *image,
                         struct error *err)
{
    unsigned n = image->nr_layers, was = rec->layer_formats.nr;

    if (n != was) {
        log_notice("chain %s: it had %u layers and has %u now", rec->name, was, n);
        return 0;
    }
    for (unsigned i = 0; i < n; i++) {
        const struct chain_layer *l = &image->layers[i];

        if (strcmp(l->format, rec->layer_formats.items[i]))
            return error_set(err, EINVAL,
                             "%s was %s when it was exported and looks like %s now: remove the "
                             "chain and export it with the right --format",
                             l->filename, rec->layer_formats.items[i], l->format);
    }
    return 0;
}

static int take_layers(struct chain *c, const struct chain_image *image, struct error *err)
{
    for (unsigned i = 0; i < image->nr_layers; i++) {
        const struct chain_layer *l = &image->layers[i];
        struct uuid uuid;

        if (l->writable)
            uuid_make(&uuid);
        else
            state_file_uuid(c->d->state, l->filename, &l->identity, &uuid);
        if (chain_add_layer(c, l->node, l->filename, l->format, l->writable, &uuid, err))
            return -err->errnum;
    }
    return chain_match_layers(c, err);
}

int co_chain_open_export(struct chain *c, struct error *err)
{
    struct chain_record *rec = c->rec;
    struct chain_open_opts opts = {
        .format = rec->format,
        .writable = rec->writable,
        .probe_backing = rec->probe_backing,
        .cache = record_cache(rec),
        .fix_leaks = c->fix_leaks,
    };
    struct chain_image *image;
    unsigned was = rec->layer_formats.nr;
    int ret;

    ret = co_chain_open(rec->path, &opts, &image, err);
    if (ret)
        return ret;
    c->base_assumed_raw = image->base_assumed_raw;
    ret = was ? check_formats(rec, image, err) : note_formats(rec, image, err);
    if (!ret && was && was != image->nr_layers) {
        string_list_release(&rec->layer_formats);
        rec->generation++;
        ret = note_formats(rec, image, err);
    }
    if (!ret)
        ret = take_layers(c, image, err);
    if (!ret)
        chain_settings_adopt(c);
    co_chain_close(image); /* the layers have references of their own */
    return ret;
}
