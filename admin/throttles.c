/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Limits on the disks that are served (LUN 0 of a chain), by QEMU's block_set_io_throttle. What a
 * chain's group and limits are is kept in its record as the command's own arguments; the limits
 * of a group are the same in the records of all its members.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/chains.h"
#include "admin/commands.h"
#include "admin/json-util.h"
#include "lun-backends/throttle.h"
#include "target/lun.h"
#include "util/log.h"
#include "util/size.h"

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

void chain_throttle_drop(struct chain *c)
{
    throttle_leave(c->throttle);
    c->throttle = NULL;
}

static int join(struct chain *c, const char *group, const struct throttle_config *cfg)
{
    struct lun *lun = c->target ? target_find_lun(c->target, 0) : NULL;

    chain_throttle_drop(c);
    if (!lun)
        return 0;
    c->throttle = throttle_join(lun_head(lun), group, cfg);
    return c->throttle ? 0 : -ENOMEM;
}

void chain_throttle_apply(struct chain *c)
{
    struct error err = ERROR_INIT;
    struct throttle_config cfg;
    const char *group;
    json_t *j;

    if (!c->rec->throttle)
        return;
    j = json_loads(c->rec->throttle, 0, NULL);
    group = j ? arg_string(j, "group") : NULL;
    if (!group || args_check(throttle_args, j, &err)) {
        log_err("chain %s: its limits in the state are not valid: not limited", c->rec->name);
    } else {
        config_from_json(j, &cfg);
        if (throttle_check(&cfg, &err) || join(c, group, &cfg))
            log_err("chain %s: not limited: %s", c->rec->name,
                    *err.msg ? err.msg : "out of memory");
    }
    json_decref(j);
}

/* The group's limits in the records of all its members; @c is a member from now on. */
static int note_limits(struct chain *c, const char *group, const struct throttle_config *cfg)
{
    json_t *j = config_to_json(group, cfg);
    char *text = json_dumps(j, JSON_COMPACT);
    int ret = text ? record_set(&c->rec->throttle, text) : -ENOMEM;
    struct chain *other;

    list_for_each_entry (other, &c->d->chains, link) {
        if (!ret && other != c && other->throttle &&
            !strcmp(throttle_group_name(other->throttle), group))
            ret = record_set(&other->rec->throttle, text);
    }
    free(text);
    json_decref(j);
    return ret;
}

static json_t *run_set(struct daemon *d, const json_t *args, struct error *err)
{
    const char *device = arg_string(args, "device"), *id = arg_string(args, "id"), *group;
    struct throttle_config cfg;
    struct chain *c;
    int ret;

    if (!device == !id) {
        error_set(err, EINVAL, "Need exactly one of 'device' and 'id'");
        return NULL;
    }
    c = chain_lookup_device(d, device ? device : id, err);
    if (!c)
        return NULL;
    config_from_json(args, &cfg);
    if (throttle_check(&cfg, err))
        return NULL;
    group = arg_string(args, "group");
    group = group ? group : c->throttle ? throttle_group_name(c->throttle) : c->rec->name;
    if (!chain_name_ok(group)) {
        error_set(err, EINVAL, "'%.80s' can't name a throttle group", group);
        return NULL;
    }
    if (chain_claim(c, "its limits are being set", err))
        return NULL;
    if (throttle_is_off(&cfg)) {
        chain_throttle_drop(c);
        ret = record_set(&c->rec->throttle, NULL);
    } else {
        char name[CHAIN_NAME_MAX + 1];

        strcpy(name, group); /* it may be the name of the group that is left */
        ret = note_limits(c, name, &cfg);
        if (!ret)
            ret = join(c, name, &cfg);
    }
    if (ret)
        error_set(err, -ret, "out of memory");
    else
        ret = co_state_save(d->state, err);
    chain_release(c);
    return ret ? NULL : json_object();
}

static json_t *run_query(struct daemon *d, const json_t *args, struct error *err)
{
    json_t *list = json_array();
    struct chain *c;

    (void)args;
    (void)err;
    list_for_each_entry (c, &d->chains, link) {
        json_t *j;

        if (!c->throttle)
            continue;
        j = config_to_json(throttle_group_name(c->throttle), throttle_group_config(c->throttle));
        json_put(j, "device", json_string(c->rec->name));
        json_array_append_new(list, j);
    }
    return list;
}

const struct command throttle_commands[] = {
    {"block_set_io_throttle", "limits a disk, or a group of disks together; all 0: no limit",
     throttle_args, run_set},
    {"query-throttle", "which disks are limited, in which group", NULL, run_query},
    {NULL, NULL, NULL, NULL},
};
