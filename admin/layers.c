/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a record says of a chain's layers. A layer is told apart by its path; its LUN number stays
 * with it for the life of the chain and is never given to another. Where record and images differ
 * after a crash (the image came first), the images are right.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/chains.h"
#include "util/log.h"
#include "util/size.h"

uint16_t chain_next_lun(const struct chain_record *rec)
{
    uint64_t next = MAX_OF(rec->next_lun, 1);

    for (unsigned i = 0; i < rec->layer_luns.nr; i++)
        next = MAX_OF(next, rec->layer_luns.items[i] + 1);
    return (uint16_t)MIN_OF(next, TARGET_MAX_LUN + 1);
}

int shape_init(struct layer_shape *s, const struct chain_record *rec, const struct layer *layers,
               unsigned n, struct error *err)
{
    const struct layer *top = &layers[n - 1];
    int bad;

    memset(s, 0, sizeof(*s));
    s->generation = rec->generation + 1;
    s->next_lun = chain_next_lun(rec);
    bad = record_set(&s->path, top->filename) | record_set(&s->format, top->format);
    for (unsigned i = 0; i < n && !bad; i++) {
        bad = string_list_add(&s->formats, layers[i].format) |
              string_list_add(&s->paths, layers[i].filename) |
              number_list_add(&s->luns, layers[i].lun);
        s->next_lun = MAX_OF(s->next_lun, layers[i].lun + 1u);
    }
    if (!bad)
        return 0;
    shape_release(s);
    return error_set(err, ENOMEM, "out of memory");
}

#define SWAP(a, b)                \
    do {                          \
        __typeof__(a) tmp_ = (a); \
        (a) = (b);                \
        (b) = tmp_;               \
    } while (0)

void shape_swap(struct layer_shape *s, struct chain_record *rec)
{
    SWAP(s->path, rec->path);
    SWAP(s->format, rec->format);
    SWAP(s->formats, rec->layer_formats);
    SWAP(s->paths, rec->layer_paths);
    SWAP(s->luns, rec->layer_luns);
    SWAP(s->next_lun, rec->next_lun);
    SWAP(s->generation, rec->generation);
    SWAP(s->commit_base, rec->commit_base);
    SWAP(s->commit_top, rec->commit_top);
}

void shape_release(struct layer_shape *s)
{
    free(s->path);
    free(s->format);
    string_list_release(&s->formats);
    string_list_release(&s->paths);
    number_list_release(&s->luns);
    free(s->commit_base);
    free(s->commit_top);
    memset(s, 0, sizeof(*s));
}

void chain_record_drop_layers(struct chain *c, unsigned first, unsigned n)
{
    struct layer *left = calloc(c->nr_layers, sizeof(*left));
    struct error err = ERROR_INIT;
    struct layer_shape s;

    if (!left) {
        log_err("chain %s: out of memory; its record follows at the next start", c->rec->name);
        return;
    }
    memcpy(left, c->layers, first * sizeof(*left));
    memcpy(left + first, &c->layers[first + n], (c->nr_layers - first - n) * sizeof(*left));
    if (shape_init(&s, c->rec, left, c->nr_layers - n, &err)) {
        log_err("chain %s: %s", c->rec->name, err.msg);
    } else {
        shape_swap(&s, c->rec);
        shape_release(&s);
    }
    free(left);
}

/* ---- after opening ------------------------------------------------------------------------ */

static int find_path(const struct string_list *l, const char *path)
{
    for (unsigned i = 0; i < l->nr; i++) {
        if (!strcmp(l->items[i], path))
            return (int)i;
    }
    return -1;
}

static bool has_layer(const struct chain *c, const char *path)
{
    for (unsigned i = 0; i < c->nr_layers; i++) {
        if (!strcmp(c->layers[i].filename, path))
            return true;
    }
    return false;
}

/* True if the layers are the ones of the record, in its order. */
static bool number_layers(struct chain *c)
{
    const struct chain_record *rec = c->rec;
    bool same = c->nr_layers == rec->layer_paths.nr;
    uint16_t next = chain_next_lun(rec);

    for (unsigned i = 0; i < c->nr_layers; i++) {
        struct layer *l = &c->layers[i];
        int was = find_path(&rec->layer_paths, l->filename);

        same = same && was == (int)i;
        l->lun = was < 0 ? next++ : (uint16_t)rec->layer_luns.items[was];
    }
    return same;
}

/* The commit came to its end, only the record did not hear of it: its base is whole again. */
static void end_commit(struct chain *c)
{
    struct chain_record *rec = c->rec;

    if (!rec->commit_top || has_layer(c, rec->commit_top))
        return;
    for (unsigned i = 0; i < c->nr_layers; i++) {
        struct layer *l = &c->layers[i];

        if (!l->lun && rec->commit_base && !strcmp(l->filename, rec->commit_base))
            l->lun = chain_next_lun(rec);
    }
    record_set(&rec->commit_base, NULL);
    record_set(&rec->commit_top, NULL);
}

int chain_match_layers(struct chain *c, struct error *err)
{
    struct chain_record *rec = c->rec;
    struct layer_shape s;
    bool first = !rec->layer_paths.nr, same = number_layers(c);
    int ret;

    if (same && !rec->commit_top)
        return 0;
    end_commit(c);
    ret = shape_init(&s, rec, c->layers, c->nr_layers, err);
    if (ret)
        return ret;
    if (first || same)
        s.generation = rec->generation;
    else
        log_notice("chain %s: its layers are not the ones it was left with", rec->name);
    SWAP(s.commit_base, rec->commit_base); /* a commit that is not at its end */
    SWAP(s.commit_top, rec->commit_top);
    shape_swap(&s, rec);
    shape_release(&s);
    return 0;
}
