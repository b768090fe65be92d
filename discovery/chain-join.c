/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Joining LUNs into a chain, pure. The rule that keeps loops out: a parent's layer index is its
 * child's less one.
 */
#include "discovery/chain-join.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/byteorder.h"
#include "util/size.h"

/* -1 for addressing methods that name no plain LUN. */
static int lun_number(const uint8_t *e)
{
    switch (e[0] >> 6) {
    case 0: /* peripheral device addressing, bus 0 */
        return e[0] == 0 ? e[1] : -1;
    case 1: /* flat space addressing */
        return (e[0] & 0x3f) << 8 | e[1];
    default:
        return -1;
    }
}

static int compare_numbers(const void *a, const void *b)
{
    return (int)*(const uint16_t *)a - (int)*(const uint16_t *)b;
}

int report_luns_decode(const uint8_t *buf, size_t len, uint16_t *luns, unsigned max)
{
    if (len < 8)
        return -EINVAL;

    uint64_t list_bytes = get_be32(buf);
    unsigned n = 0, kept = 0;

    if (list_bytes % 8)
        return -EINVAL;
    if (list_bytes / 8 > max)
        return -E2BIG;
    for (size_t pos = 8; pos + 8 <= MIN_OF(len, list_bytes + 8); pos += 8) {
        int number = lun_number(buf + pos);

        if (number >= 0)
            luns[n++] = (uint16_t)number;
    }
    qsort(luns, n, sizeof(*luns), compare_numbers);
    for (unsigned i = 0; i < n; i++) {
        if (!kept || luns[kept - 1] != luns[i])
            luns[kept++] = luns[i];
    }
    return (int)kept;
}

static const struct found_lun *find_lun(const struct found_chain *c, int number)
{
    for (unsigned i = 0; i < c->nr_luns; i++) {
        if (c->luns[i].number == number)
            return &c->luns[i];
    }
    return NULL;
}

static const struct found_lun *first_cowl(const struct found_chain *c)
{
    for (unsigned i = 0; i < c->nr_luns; i++) {
        if (c->luns[i].has_cowl)
            return &c->luns[i];
    }
    return NULL;
}

static int broken(struct error *err, const struct found_lun *l, const char *why)
{
    return error_set(err, EPROTO, "the chain does not join up: LUN %u %s", l->number, why);
}

/* What holds for each layer by itself, and against the first one seen. */
static int check_layer(const struct found_lun *l, const struct found_lun *first, struct error *err)
{
    const struct cowl_page *p = &l->cowl;
    bool base = p->flags & COWL_BASE;

    if (!uuid_equal(&p->chain_uuid, &first->cowl.chain_uuid))
        return broken(err, l, "belongs to another chain");
    if (p->generation != first->cowl.generation)
        return error_set(err, EAGAIN, "the chain changed while it was read");
    if (p->nr_layers != first->cowl.nr_layers || p->layer_index >= p->nr_layers)
        return broken(err, l, "counts its layers wrongly");
    if (base != uuid_is_zero(&p->parent_uuid) || (base && p->layer_index != 0))
        return broken(err, l, "contradicts itself about being the base");
    if (uuid_is_zero(&p->layer_uuid) || uuid_equal(&p->layer_uuid, &p->parent_uuid))
        return broken(err, l, "has no layer UUID of its own");
    return 0;
}

static int check_parent(const struct found_chain *c, const struct found_lun *l, struct error *err)
{
    static const uint8_t not_here[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const struct cowl_page *p = &l->cowl;

    if (p->flags & COWL_BASE || !memcmp(p->parent_lun, not_here, sizeof(not_here)))
        return 0;

    int number = lun_number(p->parent_lun);
    const struct found_lun *parent = number < 0 ? NULL : find_lun(c, number);

    if (!parent || !parent->has_cowl)
        return broken(err, l, "names a parent LUN that is not there");
    if (!uuid_equal(&parent->cowl.layer_uuid, &p->parent_uuid))
        return broken(err, l, "names a parent LUN that is another layer");
    if (parent->cowl.layer_index + 1 != p->layer_index)
        return broken(err, l, "is not just above its parent");
    return 0;
}

int found_chain_check(const struct found_chain *c, struct error *err)
{
    const struct found_lun *first = first_cowl(c);
    int ret = 0;

    for (unsigned i = 0; !ret && i < c->nr_luns; i++) {
        if (!c->luns[i].has_cowl)
            continue;
        ret = check_layer(&c->luns[i], first, err);
        if (!ret)
            ret = check_parent(c, &c->luns[i], err);
    }
    return ret;
}

static int list_disks(const struct found_chain *c, const char *what, struct error *err)
{
    char text[512] = "";
    size_t used = 0;

    for (unsigned i = 0; i < c->nr_luns && used < sizeof(text) - 64; i++) {
        const struct found_lun *l = &c->luns[i];

        if (!l->is_disk)
            continue;
        char size[32];

        used += (size_t)snprintf(
            text + used, sizeof(text) - used, "%s%u (%s, %s %s)", used ? ", " : "", l->number,
            size_human(l->size_bytes, size, sizeof(size)), l->vendor, l->product);
    }
    return error_set(err, ENODEV, "%s; the target's disks are: %s", what, used ? text : "none");
}

int found_chain_pick(const struct found_chain *c, int wanted, struct error *err)
{
    int only = -1;

    for (unsigned i = 0; i < c->nr_luns; i++) {
        const struct found_lun *l = &c->luns[i];

        if (l->number == wanted && !l->is_disk)
            return error_set(err, ENODEV, "LUN %d is not a disk", wanted);
        if (!l->is_disk)
            continue;
        if (l->number == wanted || (wanted < 0 && l->number == 0))
            return (int)i;
        only = only == -1 ? (int)i : -2;
    }
    if (wanted >= 0) {
        char what[48];

        snprintf(what, sizeof(what), "there is no LUN %d", wanted);
        return list_disks(c, what, err);
    }
    if (only >= 0)
        return only;
    return list_disks(c, only == -1 ? "no LUN is a disk" : "which LUN is meant? Say its number",
                      err);
}
