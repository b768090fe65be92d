/* SPDX-License-Identifier: BSD-3-Clause */
/* LUN masks; see mask.h. */
#include "target/mask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "target/target.h"
#include "target/text.h"

static bool parse_number(const char *text, size_t len, uint16_t *out)
{
    char digits[8];
    uint32_t v;

    if (!len || len >= sizeof(digits))
        return false;
    memcpy(digits, text, len);
    digits[len] = '\0';
    if (strspn(digits, "0123456789") != len || !text_number(digits, &v) || v > TARGET_MAX_LUN)
        return false;
    *out = (uint16_t)v;
    return true;
}

/* "N" or "N-M" */
static bool parse_range(const char *text, size_t len, struct lun_mask *m)
{
    const char *dash = memchr(text, '-', len);
    size_t first = dash ? (size_t)(dash - text) : len;
    unsigned i = m->nr;

    if (i == MASK_MAX_RANGES || !parse_number(text, first, &m->ranges[i].first))
        return false;
    m->ranges[i].last = m->ranges[i].first;
    if (dash && !parse_number(dash + 1, len - first - 1, &m->ranges[i].last))
        return false;
    m->nr++;
    return m->ranges[i].first <= m->ranges[i].last;
}

static bool parse_luns(const char *text, struct lun_mask *m)
{
    if (!strcmp(text, "none"))
        return true;
    if (!strcmp(text, "all")) {
        m->nr = 1;
        m->ranges[0].last = TARGET_MAX_LUN;
        return true;
    }
    for (;;) {
        size_t len = strcspn(text, ",");

        if (!parse_range(text, len, m))
            return false;
        if (!text[len])
            return true;
        text += len + 1;
    }
}

struct lun_mask *mask_parse(const char *initiator, const char *luns, struct error *err)
{
    struct lun_mask *m;

    if (strcmp(initiator, MASK_ANYBODY) && target_check_name(initiator, err))
        return NULL;
    m = calloc(1, sizeof(*m));
    if (m)
        m->initiator = strdup(initiator);
    if (!m || !m->initiator) {
        mask_free(m);
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    if (!parse_luns(luns, m)) {
        error_set(err, EINVAL,
                  "\"%.80s\" is no list of LUNs: use numbers from 0 to %d like 0,2-4 (at most %d "
                  "items), or \"none\", or \"all\"",
                  luns, TARGET_MAX_LUN, MASK_MAX_RANGES);
        mask_free(m);
        return NULL;
    }
    return m;
}

void mask_free(struct lun_mask *m)
{
    if (m)
        free(m->initiator);
    free(m);
}

void mask_free_all(struct lun_mask *list)
{
    while (list) {
        struct lun_mask *next = list->next;

        mask_free(list);
        list = next;
    }
}

const struct lun_mask *mask_find(const struct lun_mask *list, const char *initiator)
{
    const struct lun_mask *anybody = NULL;

    for (; list; list = list->next) {
        if (!strcasecmp(list->initiator, initiator))
            return list;
        if (!strcmp(list->initiator, MASK_ANYBODY))
            anybody = list;
    }
    return anybody;
}

bool mask_shows(const struct lun_mask *m, uint16_t lun)
{
    if (!m)
        return true;
    for (unsigned i = 0; i < m->nr; i++) {
        if (lun >= m->ranges[i].first && lun <= m->ranges[i].last)
            return true;
    }
    return false;
}

struct lun_mask *mask_take(struct lun_mask **list, const char *initiator)
{
    for (; *list; list = &(*list)->next) {
        struct lun_mask *m = *list;

        if (!strcasecmp(m->initiator, initiator)) {
            *list = m->next;
            m->next = NULL;
            return m;
        }
    }
    return NULL;
}
