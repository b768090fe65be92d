/* SPDX-License-Identifier: BSD-3-Clause */
/* See reservations.h. */
#include "admin/reservations.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Which of the record's lists. */
enum kept { KEPT_RESERVATIONS, KEPT_MODE };

struct keeper {
    struct daemon *d;
    enum kept kind;
};

static struct string_list *list_of(struct chain_record *rec, enum kept kind)
{
    return kind == KEPT_MODE ? &rec->mode_parameters : &rec->reservations;
}

static char **find(const struct string_list *l, uint16_t lun)
{
    for (unsigned i = 0; i < l->nr; i++) {
        if (lun_text_is_of(l->items[i], lun))
            return &l->items[i];
    }
    return NULL;
}

static const char *text_of(const struct string_list *l, uint16_t lun)
{
    char **line = find(l, lun);

    return line ? *line : NULL;
}

const char *reservations_of(const struct chain_record *rec, uint16_t lun)
{
    return text_of(&rec->reservations, lun);
}

const char *mode_parameters_of(const struct chain_record *rec, uint16_t lun)
{
    return text_of(&rec->mode_parameters, lun);
}

static void drop(struct string_list *l, char **line)
{
    free(*line);
    *line = l->items[--l->nr];
}

/* @text NULL: nothing is kept. */
static int set(struct string_list *l, uint16_t lun, const char *text)
{
    char **line = find(l, lun);

    if (line && text)
        return record_set(line, text);
    if (line)
        drop(l, line);
    else if (text)
        return string_list_add(l, text);
    return 0;
}

static struct chain *chain_of(struct daemon *d, const struct target *t)
{
    struct chain *c;

    list_for_each_entry (c, &d->chains, link) {
        if (c->target == t)
            return c;
    }
    return NULL;
}

/* For one LUN once at a time, so that the old line is still the one to go back to. */
static int co_keep(struct target *t, uint16_t lun, const char *text, void *opaque,
                   struct error *err)
{
    const struct keeper *keeper = opaque;
    struct daemon *d = keeper->d;
    struct chain *c = chain_of(d, t);
    struct string_list *l;
    const char *was;
    char *old = NULL;
    int ret;

    if (!c) /* it is being removed, and nothing of it is kept */
        return 0;
    l = list_of(c->rec, keeper->kind);
    was = text_of(l, lun);
    if (was) {
        old = strdup(was);
        if (!old)
            return error_set(err, ENOMEM, "out of memory");
    }
    chain_get(c);
    ret = set(l, lun, text);
    if (ret)
        error_set(err, -ret, "out of memory");
    else
        ret = co_state_save(d->state, err);
    if (ret && !c->removed)
        set(l, lun, old); /* of what was there before there is room */
    chain_put(c);
    free(old);
    return ret;
}

void reservations_init(struct daemon *d)
{
    static struct keeper reservations = {.kind = KEPT_RESERVATIONS}, mode = {.kind = KEPT_MODE};

    reservations.d = mode.d = d;
    target_set_reservation_sink(co_keep, &reservations);
    target_set_mode_sink(co_keep, &mode);
}
