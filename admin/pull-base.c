/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The base of a pull that keeps one: an image of this host that holds what the source has below
 * some layer. Only what the layers above it decide is copied, and the overlay names it in the end.
 *
 * Invariant: whatever was believed of the base, the disk reads right while the source is there, as
 * far as the base reads as the source's layer does; so it is compared with it before it is used.
 * A source that does not tell of layers is copied where it reads otherwise than the base.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/pull.h"
#include "lun-backends/formats.h"
#include "lun-backends/remote.h"
#include "util/log.h"
#include "util/size.h"

#define SAMPLE_BYTES      4096u
#define BYTES_A_SAMPLE    (UINT64_C(16) << 20)
#define MIN_SAMPLES       8
#define MAX_SAMPLES       64
#define MAX_STATUS_EXTENT 64

struct choice {
    const struct chain *c;
    const struct found_chain *found;
    const struct cowl_page *pulled; /* NULL: the source has no such thing */
    const char *dir;
    char layer[PATH_MAX]; /* "": the file is to tell */
    char file[PATH_MAX];  /* "": the layer is to tell */
};

/* ---- which layer, which file ----------------------------------------------------------------- */

/* LAYER, FILE or LAYER=FILE; a FILE has a slash in it. */
static int split(struct choice *ch, const char *text, struct error *err)
{
    const char *equals = strchr(text, '='), *file = strchr(text, '/') ? text : NULL;

    if (strlen(text) >= PATH_MAX)
        return error_set(err, ENAMETOOLONG, "the name of the base is too long");
    if (equals && equals > text && (!file || equals < strchr(text, '/'))) {
        snprintf(ch->layer, sizeof(ch->layer), "%.*s", (int)(equals - text), text);
        file = equals + 1;
    } else if (!file) {
        strcpy(ch->layer, text);
    }
    if (file)
        strcpy(ch->file, file);
    if (*ch->file && *ch->file != '/')
        return error_set(err, EINVAL, "base '%s' is no absolute path", ch->file);
    return 0;
}

static bool is_layer(const struct found_lun *lun, const struct cowl_page *pulled, const char *text)
{
    char uuid[UUID_STRLEN];

    if (!lun->has_cowl || lun->number == 0 ||
        !uuid_equal(&lun->cowl.chain_uuid, &pulled->chain_uuid))
        return false;
    uuid_to_text(&lun->cowl.layer_uuid, uuid);
    return !strcasecmp(uuid, text) || !strcmp(lun->cowl.name, text);
}

static const struct cowl_page *find_layer(const struct choice *ch, const char *text)
{
    const struct cowl_page *found = NULL;

    for (unsigned i = 0; i < ch->found->nr_luns; i++) {
        if (!is_layer(&ch->found->luns[i], ch->pulled, text))
            continue;
        if (found)
            return NULL; /* two of that name */
        found = &ch->found->luns[i].cowl;
    }
    return found;
}

static int no_such_layer(const struct choice *ch, const char *text, struct error *err)
{
    char list[600] = "";
    size_t n = 0;

    for (unsigned i = 0; i < ch->found->nr_luns && n < sizeof(list) - 80; i++) {
        const struct found_lun *l = &ch->found->luns[i];
        char uuid[UUID_STRLEN];

        if (!l->has_cowl || !l->number || l->cowl.layer_index >= ch->pulled->layer_index)
            continue;
        uuid_to_text(&l->cowl.layer_uuid, uuid);
        n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "", uuid);
    }
    return error_set(err, ENOENT,
                     "'%s' names no layer of the source below the one that is pulled. Name one by "
                     "UUID (%s) or by its own name, with =FILE behind it if this host does not "
                     "know its copy by UUID",
                     text, *list ? list : "there is none");
}

/* The layer that a file is known to be a copy of: by the UUID this host has for it, or its name. */
static const struct cowl_page *layer_of_file(const struct choice *ch)
{
    const char *slash = strrchr(ch->file, '/');

    for (unsigned i = 0; i < ch->found->nr_luns; i++) {
        const struct found_lun *l = &ch->found->luns[i];
        char dir[PATH_MAX];
        const char *known;

        if (!l->has_cowl || !l->number)
            continue;
        snprintf(dir, sizeof(dir), "%.*s", (int)(slash - ch->file), ch->file);
        known = state_find_file(ch->c->d->state, &l->cowl.layer_uuid, dir);
        if (known && !strcmp(known, ch->file))
            return &l->cowl;
    }
    return find_layer(ch, slash + 1);
}

static int find_file(struct choice *ch, const struct cowl_page *layer, struct error *err)
{
    const char *known = state_find_file(ch->c->d->state, &layer->layer_uuid, ch->dir);

    if (*ch->file)
        return 0;
    if (known) {
        snprintf(ch->file, sizeof(ch->file), "%s", known);
        return 0;
    }
    return error_set(err, ENOENT,
                     "no file in %s is known to be a copy of layer %s: name it, --base %s=FILE",
                     ch->dir, ch->layer, ch->layer);
}

static int choose(struct choice *ch, struct chain_record *rec, struct error *err)
{
    const struct cowl_page *layer;

    if (!ch->pulled) {
        if (*ch->layer || !*ch->file)
            return error_set(err, EINVAL,
                             "the source does not tell of its layers: name the base by its file "
                             "here, --base /PATH/FILE");
        rec->base_layers = 0;
        return 0;
    }
    layer = *ch->layer ? find_layer(ch, ch->layer) : layer_of_file(ch);
    if (!layer || layer->layer_index >= ch->pulled->layer_index)
        return no_such_layer(ch, *ch->layer ? ch->layer : ch->file, err);
    rec->base_layers = ch->pulled->layer_index - layer->layer_index;
    rec->source_generation = ch->pulled->generation;
    return find_file(ch, layer, err);
}

int co_pull_choose_base(struct chain *c, const struct found_chain *found, unsigned lun,
                        const char *text, const char *dir, struct error *err)
{
    struct choice *ch = calloc(1, sizeof(*ch)); /* paths are large for a coroutine's stack */
    int ret;

    if (!ch)
        return error_set(err, ENOMEM, "out of memory");
    ch->c = c;
    ch->found = found;
    ch->pulled = found->luns[lun].has_cowl ? &found->luns[lun].cowl : NULL;
    ch->dir = dir;
    ret = split(ch, text, err);
    if (!ret)
        ret = choose(ch, c->rec, err);
    if (!ret && record_set(&c->rec->base_path, ch->file))
        ret = error_set(err, ENOMEM, "out of memory");
    free(ch);
    return ret;
}

/* ---- opening and joining ------------------------------------------------------------------ */

int co_pull_open_base(struct chain *c, struct error *err)
{
    struct chain_record *rec = c->rec;
    struct chain_open_opts opts = {.format = rec->base_format};
    struct chain_layer *top;
    int ret;

    if (!rec->base_path)
        return 0;
    ret = co_chain_open(rec->base_path, &opts, &c->base, err);
    if (ret)
        return error_prefix(err, "the base of chain %s", rec->name);
    top = &c->base->layers[c->base->nr_layers - 1];
    if (!rec->base_format && record_set(&rec->base_format, top->format))
        return error_set(err, ENOMEM, "out of memory");
    if (!rec->base_layers)
        return 0;
    c->upper = upper_node_new(c->remote, (unsigned)rec->base_layers, top->node,
                              (uint32_t)rec->source_generation);
    if (!c->upper)
        return error_set(err, ENOMEM, "out of memory");
    if (!rec->keep_layers) /* else what is given back is in files that @upper knows nothing of */
        upper_set_count(c->upper, co_chain_count_upper, c);
    return 0;
}

/* source [<- upper] <- overlay <- copy-on-read */
int pull_join(struct chain *c, struct error *err)
{
    c->filter = copy_on_read_new(chain_top(c)->node);
    if (!c->filter)
        return error_set(err, ENOMEM, "out of memory");
    pull_set_backing(c);
    return 0;
}

void pull_set_backing(struct chain *c)
{
    blk_set_backing(chain_top(c)->node, c->upper ? c->upper : c->remote);
    pull_apply_copy_on_read(c);
    copy_on_read_set_layers(c->filter, c->upper ? 1 : 0);
}

/* Where nobody tells what is the base's, what is read is not kept: it may be the base's. With
 * layers kept apart, none of it belongs into the overlay. */
void pull_apply_copy_on_read(struct chain *c)
{
    const struct chain_record *rec = c->rec;

    copy_on_read_enable(c->filter,
                        rec->copy_on_read && !rec->keep_layers && (!rec->base_path || c->upper));
}

/* ---- is it the source's layer? ------------------------------------------------------------ */

static int co_compare_at(const struct chain *c, const struct blk_node *base, uint64_t offset,
                         struct error *err)
{
    uint8_t *ours = malloc(2 * SAMPLE_BYTES), *theirs = ours + SAMPLE_BYTES;
    uint64_t here = offset < base->size_bytes ? MIN_OF(SAMPLE_BYTES, base->size_bytes - offset) : 0;
    int ret;

    if (!ours)
        return error_set(err, ENOMEM, "out of memory");
    memset(ours, 0, SAMPLE_BYTES);
    ret = here ? co_blk_read((struct blk_node *)base, offset, ours, here, 0) : 0;
    if (!ret)
        ret = co_blk_read(c->remote, offset, theirs, SAMPLE_BYTES, BLK_BULK);
    if (ret)
        error_set(err, -ret, "comparing %s with the source: %s", c->rec->base_path, strerror(-ret));
    else if (memcmp(ours, theirs, SAMPLE_BYTES))
        ret = error_set(err, EINVAL,
                        "%s is not the source's layer: they differ at byte %llu. It can't be the "
                        "base",
                        c->rec->base_path, (unsigned long long)offset);
    free(ours);
    return ret;
}

/* In one place: the first data there that the base, or what is below it, decides at the source. */
static int co_sample(const struct chain *c, const struct blk_node *base, uint64_t pos,
                     uint64_t bytes, struct error *err)
{
    struct blk_extent ext[MAX_STATUS_EXTENT];
    int n = co_remote_status(c->remote, pos, bytes, 0, ext, MAX_STATUS_EXTENT);

    for (int i = 0; i < n; i++) {
        uint64_t from = round_up_pow2(ext[i].offset_bytes, SAMPLE_BYTES);

        if (ext[i].state == BLK_ST_DATA && ext[i].depth >= c->rec->base_layers &&
            from + SAMPLE_BYTES <= ext[i].offset_bytes + ext[i].length_bytes)
            return co_compare_at(c, base, from, err);
    }
    return n < 0 ? error_set(err, -n, "asking the source where it has data: %s", strerror(-n)) : 0;
}

int co_pull_check_base(struct chain *c, struct error *err)
{
    const struct blk_node *base;
    uint64_t size = c->remote->size_bytes, step;
    uint64_t samples = MIN_OF(MAX_OF(size / BYTES_A_SAMPLE, MIN_SAMPLES), MAX_SAMPLES);
    int ret = 0;

    if (!c->upper)
        return 0;
    base = c->base->layers[c->base->nr_layers - 1].node;
    step = round_up_pow2(size / samples, 1) & ~(uint64_t)(SAMPLE_BYTES - 1);
    step = MAX_OF(step, SAMPLE_BYTES);
    for (uint64_t pos = 0; pos < size && !ret; pos += step)
        ret = co_sample(c, base, pos, MIN_OF(step, size - pos), err);
    return ret;
}

/* ---- at the end --------------------------------------------------------------------------- */

int chain_insert_below(struct chain *c, const struct chain_image *image, struct error *err)
{
    unsigned n = image->nr_layers, next = chain_next_lun(c->rec);
    struct layer *layers = calloc(n + c->nr_layers, sizeof(*layers));
    struct layer_shape s;
    int ret;

    if (!layers)
        return error_set(err, ENOMEM, "out of memory");
    memcpy(layers + n, c->layers, c->nr_layers * sizeof(*layers));
    for (unsigned i = 0; i < n; i++) {
        const struct chain_layer *l = &image->layers[i];

        layers[i].filename = strdup(l->filename);
        if (!layers[i].filename) {
            while (i-- > 0)
                free(layers[i].filename);
            free(layers);
            return error_set(err, ENOMEM, "out of memory");
        }
        strcpy(layers[i].format, l->format);
        layers[i].node = blk_node_ref(l->node);
        layers[i].lun = (uint16_t)(next + i);
        state_file_uuid(c->d->state, l->filename, &l->identity, &layers[i].uuid);
    }
    free(c->layers);
    c->layers = layers;
    c->nr_layers += n;
    ret = shape_init(&s, c->rec, c->layers, c->nr_layers, err);
    if (ret)
        return ret;
    shape_swap(&s, c->rec);
    shape_release(&s);
    return 0;
}
