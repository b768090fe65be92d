/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Limits on the LUNs that are served, by QEMU's block_set_io_throttle. What a LUN's group and
 * limits are is kept in its chain's record as the command's own arguments; the limits of a group
 * are the same in the records of all its members. A LUN leaves its group before it goes; its limits
 * stay in the record until its number is out of use.
 */
#define LOG_AREA "chain"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/chains.h"
#include "admin/commands.h"
#include "admin/json-util.h"
#include "lun-backends/throttle.h"
#include "target/lun.h"
#include "util/log.h"
#include "util/size.h"

#define GROUP_NAME_MAX (CHAIN_NAME_MAX + 6) /* "CHAIN/LUN", a layer's own */

struct limited_lun {
    struct list_head link; /* in the chain, by number */
    uint16_t lun;
    struct throttle_member *member;
};

static const struct limit_names {
    const char *average, *maximum, *burst;
} limit_names[THROTTLE_NR_KINDS] = {
    [THROTTLE_BPS_TOTAL] = {"bps", "bps_max", "bps_max_length"},
    [THROTTLE_BPS_READ] = {"bps_rd", "bps_rd_max", "bps_rd_max_length"},
    [THROTTLE_BPS_WRITE] = {"bps_wr", "bps_wr_max", "bps_wr_max_length"},
    [THROTTLE_IOPS_TOTAL] = {"iops", "iops_max", "iops_max_length"},
    [THROTTLE_IOPS_READ] = {"iops_rd", "iops_rd_max", "iops_rd_max_length"},
    [THROTTLE_IOPS_WRITE] = {"iops_wr", "iops_wr_max", "iops_wr_max_length"},
};

static const struct cmd_arg throttle_args[] = {
    {.name = "device", .type = ARG_STRING, .optional = true},
    {.name = "id", .type = ARG_STRING, .optional = true},
    {.name = "bps", .type = ARG_SIZE, .optional = true},
    {.name = "bps_rd", .type = ARG_SIZE, .optional = true},
    {.name = "bps_wr", .type = ARG_SIZE, .optional = true},
    {.name = "iops", .type = ARG_SIZE, .optional = true},
    {.name = "iops_rd", .type = ARG_SIZE, .optional = true},
    {.name = "iops_wr", .type = ARG_SIZE, .optional = true},
    {.name = "bps_max", .type = ARG_SIZE, .optional = true},
    {.name = "bps_rd_max", .type = ARG_SIZE, .optional = true},
    {.name = "bps_wr_max", .type = ARG_SIZE, .optional = true},
    {.name = "iops_max", .type = ARG_SIZE, .optional = true},
    {.name = "iops_rd_max", .type = ARG_SIZE, .optional = true},
    {.name = "iops_wr_max", .type = ARG_SIZE, .optional = true},
    {.name = "bps_max_length", .type = ARG_SIZE, .optional = true},
    {.name = "bps_rd_max_length", .type = ARG_SIZE, .optional = true},
    {.name = "bps_wr_max_length", .type = ARG_SIZE, .optional = true},
    {.name = "iops_max_length", .type = ARG_SIZE, .optional = true},
    {.name = "iops_rd_max_length", .type = ARG_SIZE, .optional = true},
    {.name = "iops_wr_max_length", .type = ARG_SIZE, .optional = true},
    {.name = "iops_size", .type = ARG_SIZE, .optional = true},
    {.name = "group", .type = ARG_STRING, .optional = true},
    {.name = NULL},
};

static void config_from_json(const json_t *j, struct throttle_config *cfg)
{
    memset(cfg, 0, sizeof(*cfg));
    for (unsigned k = 0; k < THROTTLE_NR_KINDS; k++) {
        const struct limit_names *n = &limit_names[k];

        cfg->limit[k].average = arg_size(j, n->average, 0);
        cfg->limit[k].maximum = arg_size(j, n->maximum, 0);
        cfg->limit[k].burst_s = arg_size(j, n->burst, 0);
    }
    cfg->op_bytes = arg_size(j, "iops_size", 0);
}

static json_t *config_to_json(const char *group, const struct throttle_config *cfg)
{
    json_t *j = json_pack("{s:s}", "group", group);

    for (unsigned k = 0; k < THROTTLE_NR_KINDS; k++) {
        const struct limit_names *n = &limit_names[k];
        const struct throttle_limit *l = &cfg->limit[k];

        json_put(j, n->average, json_integer((json_int_t)l->average));
        if (l->maximum)
            json_put(j, n->maximum, json_integer((json_int_t)l->maximum));
        if (l->burst_s)
            json_put(j, n->burst, json_integer((json_int_t)l->burst_s));
    }
    if (cfg->op_bytes)
        json_put(j, "iops_size", json_integer((json_int_t)cfg->op_bytes));
    return j;
}

/* ---- LUNs in groups ------------------------------------------------------------------------- */

static struct limited_lun *find_limited(const struct chain *c, uint16_t lun)
{
    struct limited_lun *l;

    list_for_each_entry (l, &c->limits, link) {
        if (l->lun == lun)
            return l;
    }
    return NULL;
}

static void drop(struct limited_lun *l)
{
    throttle_leave(l->member);
    list_del(&l->link);
    free(l);
}

void chain_throttle_drop(struct chain *c, uint16_t lun)
{
    struct limited_lun *l = find_limited(c, lun);

    if (l)
        drop(l);
}

void chain_throttle_drop_all(struct chain *c)
{
    while (!list_empty(&c->limits))
        drop(list_first_entry(&c->limits, struct limited_lun, link));
}

static void insert(struct chain *c, struct limited_lun *new)
{
    struct limited_lun *l;

    list_for_each_entry (l, &c->limits, link) {
        if (l->lun > new->lun) {
            list_add_tail(&l->link, &new->link);
            return;
        }
    }
    list_add_tail(&c->limits, &new->link);
}

static int join(struct chain *c, uint16_t number, const char *group,
                const struct throttle_config *cfg)
{
    struct lun *lun = c->target ? target_find_lun(c->target, number) : NULL;
    struct limited_lun *l;

    chain_throttle_drop(c, number);
    if (!lun)
        return 0;
    l = calloc(1, sizeof(*l));
    if (l)
        l->member = throttle_join(lun_head(lun), group, cfg);
    if (!l || !l->member) {
        free(l);
        return -ENOMEM;
    }
    l->lun = number;
    insert(c, l);
    return 0;
}

/* ---- in the record -------------------------------------------------------------------------- */

/* The text of one entry of lun_throttles if it is about @lun. */
static const char *entry_of(const char *entry, uint16_t lun)
{
    char *end;
    unsigned long n = strtoul(entry, &end, 10);

    return n == lun && *end == '=' ? end + 1 : NULL;
}

static const char *noted_limits(const struct chain_record *rec, uint16_t lun)
{
    const char *text = NULL;

    if (!lun)
        return rec->throttle;
    for (unsigned i = 0; i < rec->lun_throttles.nr && !text; i++)
        text = entry_of(rec->lun_throttles.items[i], lun);
    return text;
}

/* Numbers are never given twice; a commit may yet come back to one it has taken away. */
static bool out_of_use(const struct chain_record *rec, const char *entry)
{
    if (rec->commit_top)
        return false;
    for (unsigned i = 0; i < rec->layer_luns.nr; i++) {
        if (entry_of(entry, (uint16_t)rec->layer_luns.items[i]))
            return false;
    }
    return true;
}

/* @text NULL: none. -ENOMEM leaves the record as it was. */
static int note(struct chain_record *rec, uint16_t lun, const char *text)
{
    struct string_list l = {0};
    char *entry = NULL;
    int ret = 0;

    if (!lun)
        return record_set(&rec->throttle, text);
    for (unsigned i = 0; i < rec->lun_throttles.nr && !ret; i++) {
        const char *old = rec->lun_throttles.items[i];

        if (!entry_of(old, lun) && !out_of_use(rec, old))
            ret = string_list_add(&l, old);
    }
    if (!ret && text)
        ret = asprintf(&entry, "%u=%s", lun, text) < 0 ? -ENOMEM : string_list_add(&l, entry);
    free(entry);
    if (ret) {
        string_list_release(&l);
        return ret;
    }
    string_list_release(&rec->lun_throttles);
    rec->lun_throttles = l;
    return 0;
}

void chain_throttle_apply(struct chain *c, uint16_t lun)
{
    const char *text = noted_limits(c->rec, lun), *group;
    struct error err = ERROR_INIT;
    struct throttle_config cfg;
    json_t *j;

    if (!text)
        return;
    j = json_loads(text, 0, NULL);
    group = j ? arg_string(j, "group") : NULL;
    if (!group || args_check(throttle_args, j, &err)) {
        log_err("chain %s: the limits of LUN %u in the state are not valid: not limited",
                c->rec->name, lun);
    } else {
        config_from_json(j, &cfg);
        if (throttle_check(&cfg, &err) || join(c, lun, group, &cfg))
            log_err("chain %s: LUN %u is not limited: %s", c->rec->name, lun,
                    *err.msg ? err.msg : "out of memory");
    }
    json_decref(j);
}

/* The group's limits in the records of all its members; this LUN is one from now on. */
static int note_group(struct chain *c, uint16_t lun, const char *group,
                      const struct throttle_config *cfg)
{
    json_t *j = config_to_json(group, cfg);
    char *text = json_dumps(j, JSON_COMPACT);
    int ret = text ? note(c->rec, lun, text) : -ENOMEM;
    struct chain *other;
    struct limited_lun *l;

    list_for_each_entry (other, &c->d->chains, link) {
        list_for_each_entry (l, &other->limits, link) {
            if (!ret && !strcmp(throttle_group_name(l->member), group))
                ret = note(other->rec, l->lun, text);
        }
    }
    free(text);
    json_decref(j);
    return ret;
}

/* ---- commands ------------------------------------------------------------------------------- */

static bool has_lun(const struct chain *c, unsigned long lun)
{
    for (unsigned i = 0; i < c->nr_layers; i++) {
        if (lun && c->layers[i].lun == lun)
            return true;
    }
    return lun == 0;
}

/* "CHAIN/LUN". */
static struct chain *lookup_numbered(struct daemon *d, const char *device, const char *slash,
                                     uint16_t *lun, struct error *err)
{
    char name[CHAIN_NAME_MAX + 1], *end;
    size_t len = (size_t)(slash - device);
    unsigned long number = strtoul(slash + 1, &end, 10);
    struct chain *c = NULL;

    if (len <= CHAIN_NAME_MAX && isdigit((unsigned char)slash[1]) && !*end) {
        memcpy(name, device, len);
        name[len] = '\0';
        c = chain_find(d, name);
    }
    if (!c || !has_lun(c, number)) {
        error_set_class(
            err, ERR_DEVICE_NOT_FOUND, ENOENT,
            "no chain has the LUN '%.80s'; cowtgt chain show NAME shows those there are", device);
        return NULL;
    }
    *lun = (uint16_t)number;
    return c;
}

/* A chain or its top node is the disk, another node its layer's LUN. */
static struct chain *lookup_lun(struct daemon *d, const char *device, uint16_t *lun,
                                struct error *err)
{
    const char *slash = strrchr(device, '/');
    struct chain *c;

    *lun = 0;
    if (slash)
        return lookup_numbered(d, device, slash, lun, err);
    c = chain_lookup_device(d, device, err);
    for (unsigned i = 0; c && i + 1 < c->nr_layers; i++) {
        if (strcmp(c->layers[i].node->name, device) || !strcmp(c->rec->name, device))
            continue;
        *lun = c->layers[i].lun;
        if (!*lun) {
            error_set(err, EBUSY, "layer '%s' has no LUN while it is being committed into", device);
            return NULL;
        }
    }
    return c;
}

/* What was given, or the one it is in, or one of its own. */
static int choose_group(struct chain *c, uint16_t lun, const char *given, char *out,
                        struct error *err)
{
    struct limited_lun *l = find_limited(c, lun);
    char own[GROUP_NAME_MAX + 1];

    snprintf(own, sizeof(own), lun ? "%s/%u" : "%s", c->rec->name, lun);
    if (given && strcmp(given, own) && !chain_name_ok(given) &&
        (strlen(given) > GROUP_NAME_MAX || !throttle_group_exists(given)))
        return error_set(err, EINVAL, "'%.80s' can't name a throttle group", given);
    if (!given)
        given = l ? throttle_group_name(l->member) : own;
    snprintf(out, GROUP_NAME_MAX + 1, "%s", given);
    return 0;
}

static int co_set(struct chain *c, uint16_t lun, const char *group,
                  const struct throttle_config *cfg, struct error *err)
{
    int ret;

    if (throttle_is_off(cfg)) {
        chain_throttle_drop(c, lun);
        ret = note(c->rec, lun, NULL);
    } else {
        ret = note_group(c, lun, group, cfg);
        if (!ret)
            ret = join(c, lun, group, cfg);
    }
    return ret ? error_set(err, -ret, "out of memory") : co_state_save(c->d->state, err);
}

static json_t *run_set(struct daemon *d, const json_t *args, struct error *err)
{
    const char *device = arg_string(args, "device"), *id = arg_string(args, "id");
    char group[GROUP_NAME_MAX + 1];
    struct throttle_config cfg;
    struct chain *c;
    uint16_t lun;
    int ret;

    if (!device == !id) {
        error_set(err, EINVAL, "Need exactly one of 'device' and 'id'");
        return NULL;
    }
    c = lookup_lun(d, device ? device : id, &lun, err);
    if (!c)
        return NULL;
    config_from_json(args, &cfg);
    if (throttle_check(&cfg, err) || choose_group(c, lun, arg_string(args, "group"), group, err) ||
        chain_claim(c, "its limits are being set", err))
        return NULL;
    ret = co_set(c, lun, group, &cfg, err);
    chain_release(c);
    return ret ? NULL : json_object();
}

static json_t *run_query(struct daemon *d, const json_t *args, struct error *err)
{
    json_t *list = json_array();
    struct limited_lun *l;
    struct chain *c;

    (void)args;
    (void)err;
    list_for_each_entry (c, &d->chains, link) {
        list_for_each_entry (l, &c->limits, link) {
            json_t *j =
                config_to_json(throttle_group_name(l->member), throttle_group_config(l->member));
            char device[GROUP_NAME_MAX + 1];

            snprintf(device, sizeof(device), l->lun ? "%s/%u" : "%s", c->rec->name, l->lun);
            json_put(j, "device", json_string(device));
            json_array_append_new(list, j);
        }
    }
    return list;
}

const struct command throttle_commands[] = {
    {"block_set_io_throttle",
     "limits a disk, a layer's LUN (CHAIN/LUN), or a group of them; all 0: no limit", throttle_args,
     run_set},
    {"query-throttle", "which disks are limited, in which group", NULL, run_query},
    {NULL, NULL, NULL, NULL},
};
