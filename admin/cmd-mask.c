/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lun-mask, lun-unmask. The record has a line "INITIATOR=LUNS" for each mask; the target gets them
 * when it is made, and each change at once, after it is on disk.
 */
#define LOG_AREA "chain"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "admin/chains.h"
#include "admin/commands.h"
#include "util/log.h"

#define MASKS_MAX     1024
#define MASK_TEXT_MAX 1024
#define INITIATOR_MAX ISCSI_NAME_MAX

/* "INITIATOR=LUNS" in two; false if it has no such form. */
static bool split(const char *mask, char initiator[INITIATOR_MAX + 1], const char **luns)
{
    size_t len = strcspn(mask, "=");

    if (!len || len > INITIATOR_MAX || !mask[len])
        return false;
    memcpy(initiator, mask, len);
    initiator[len] = '\0';
    *luns = mask + len + 1;
    return true;
}

static bool is_of(const char *mask, const char *initiator)
{
    size_t len = strcspn(mask, "=");

    return len == strlen(initiator) && !strncasecmp(mask, initiator, len);
}

/* The list without @initiator's, and with @mask (NULL: none). */
static int copy_masks(const struct string_list *from, const char *initiator, const char *mask,
                      struct string_list *to)
{
    for (unsigned i = 0; i < from->nr; i++) {
        if (!is_of(from->items[i], initiator) && string_list_add(to, from->items[i]))
            return -ENOMEM;
    }
    return mask ? string_list_add(to, mask) : 0;
}

static int replace_mask(struct string_list *list, const char *initiator, const char *mask,
                        struct string_list *old, struct error *err)
{
    struct string_list fresh = {0};

    if (copy_masks(list, initiator, mask, &fresh)) {
        string_list_release(&fresh);
        return error_set(err, ENOMEM, "out of memory");
    }
    if (fresh.nr > MASKS_MAX) {
        string_list_release(&fresh);
        return error_set(err, E2BIG, "no more than %d masks", MASKS_MAX);
    }
    *old = *list;
    *list = fresh;
    return 0;
}

int record_add_mask(struct chain_record *rec, const char *mask, struct error *err)
{
    char initiator[INITIATOR_MAX + 1];
    struct string_list old;
    const char *luns;

    if (strlen(mask) > MASK_TEXT_MAX || !split(mask, initiator, &luns))
        return error_set(err, EINVAL, "\"%.80s\" is no mask: use INITIATOR=LUNS", mask);
    if (target_check_mask(initiator, luns, err) ||
        replace_mask(&rec->masks, initiator, mask, &old, err))
        return -err->errnum;
    string_list_release(&old);
    return 0;
}

int chain_masks_apply(struct chain *c, struct error *err)
{
    char initiator[INITIATOR_MAX + 1];
    const char *luns;

    for (unsigned i = 0; i < c->rec->masks.nr; i++) {
        const char *mask = c->rec->masks.items[i];

        if (!split(mask, initiator, &luns))
            return error_set(err, EINVAL, "\"%.80s\" is no mask", mask);
        if (target_set_mask(c->target, initiator, luns, err))
            return error_prefix(err, "LUN mask");
    }
    return 0;
}

/* ---- commands ------------------------------------------------------------------------------ */

static const struct cmd_arg mask_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "initiator", .type = ARG_STRING},
    {.name = "luns", .type = ARG_STRING},
    {.name = NULL},
};

static const struct cmd_arg unmask_args[] = {
    {.name = "name", .type = ARG_STRING},
    {.name = "initiator", .type = ARG_STRING},
    {.name = NULL},
};

/* @luns NULL: the mask goes. */
static int co_change(struct chain *c, const char *initiator, const char *luns, struct error *err)
{
    char mask[INITIATOR_MAX + MASK_TEXT_MAX + 2];
    struct string_list old;
    int ret;

    if (luns && target_check_mask(initiator, luns, err))
        return -err->errnum;
    if (luns && strlen(luns) > MASK_TEXT_MAX)
        return error_set(err, E2BIG, "a mask has at most %d bytes", MASK_TEXT_MAX);
    snprintf(mask, sizeof(mask), "%s=%s", initiator, luns ? luns : "");
    if (replace_mask(&c->rec->masks, initiator, luns ? mask : NULL, &old, err))
        return -err->errnum;
    if (!luns && old.nr == c->rec->masks.nr)
        ret = error_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT,
                              "chain '%s' has no mask for '%.80s'", c->rec->name, initiator);
    else
        ret = co_state_save(c->d->state, err);
    if (ret) {
        string_list_release(&c->rec->masks);
        c->rec->masks = old;
        return ret;
    }
    string_list_release(&old);
    return c->target ? target_set_mask(c->target, initiator, luns, err) : 0;
}

static json_t *run_mask(struct daemon *d, const json_t *args, struct error *err)
{
    const char *initiator = arg_string(args, "initiator"), *luns = arg_string(args, "luns");
    struct chain *c = chain_lookup(d, arg_string(args, "name"), err);
    int ret;

    if (!c || chain_claim(c, "its LUN masks are being changed", err))
        return NULL;
    ret = co_change(c, initiator, luns, err);
    if (!ret)
        log_notice("chain %s: %s sees LUNs: %s", c->rec->name, initiator,
                   luns ? luns : "as all others");
    chain_release(c);
    return ret ? NULL : json_object();
}

const struct command mask_commands[] = {
    {"lun-mask", "which LUNs of a chain an initiator sees", mask_args, run_mask},
    {"lun-unmask", "takes an initiator's mask away", unmask_args, run_mask},
    {NULL, NULL, NULL, NULL},
};
