/* SPDX-License-Identifier: BSD-3-Clause */
/* See reservations.h. */
#include "admin/reservations.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static char **find(const struct chain_record *rec, uint16_t lun)
{
    for (unsigned i = 0; i < rec->reservations.nr; i++) {
        if (reservations_are_of(rec->reservations.items[i], lun))
            return &rec->reservations.items[i];
    }
    return NULL;
}

const char *reservations_of(const struct chain_record *rec, uint16_t lun)
{
    char **line = find(rec, lun);

    return line ? *line : NULL;
}

static void drop(struct string_list *l, char **line)
{
    free(*line);
    *line = l->items[--l->nr];
}

/* @text NULL: nothing is kept. */
static int set(struct chain_record *rec, uint16_t lun, const char *text)
{
    char **line = find(rec, lun);

    if (line && text)
        return record_set(line, text);
    if (line)
        drop(&rec->reservations, line);
    else if (text)
        return string_list_add(&rec->reservations, text);
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
    struct daemon *d = opaque;
    struct chain *c = chain_of(d, t);
    const char *was;
    char *old = NULL;
    int ret;

    if (!c) /* it is being removed, and nothing of it is kept */
        return 0;
    was = reservations_of(c->rec, lun);
    if (was) {
        old = strdup(was);
        if (!old)
            return error_set(err, ENOMEM, "out of memory");
    }
    chain_get(c);
    ret = set(c->rec, lun, text);
    if (ret)
        error_set(err, -ret, "out of memory");
    else
        ret = co_state_save(d->state, err);
    if (ret && !c->removed)
        set(c->rec, lun, old); /* of what was there before there is room */
    chain_put(c);
    free(old);
    return ret;
}

void reservations_init(struct daemon *d)
{
    target_set_reservation_sink(co_keep, d);
}
