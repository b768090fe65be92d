/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Levels of the log, an area each. Invariant: log_level_now is the highest of them, so that no
 * message that is wanted is left out.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/log.h"
#include "util/size.h"

#define WORD_MAX 64

enum log_level log_level_now = LOG_LVL_NOTICE;

static const char *const level_names[] = {
    [LOG_LVL_ERROR] = "error", [LOG_LVL_WARNING] = "warning", [LOG_LVL_NOTICE] = "notice",
    [LOG_LVL_INFO] = "info",   [LOG_LVL_DEBUG] = "debug",
};

/* Every LOG_AREA there is. */
static const char *const areas[] = {
    "accounts", "aio",    "block",     "chain",   "commit", "control", "copy-on-read", "cowmap",
    "cowtgt",   "daemon", "discovery", "events",  "file",   "hold",    "inject",       "iscsi",
    "isns",     "qcow2",  "remote",    "replica", "scsi",   "state",   "stream",       "throttle",
};

#define NR_AREAS ARRAY_LEN(areas)

static struct levels {
    enum log_level all;
    signed char own[NR_AREAS]; /* 0: none; else the level and 1 */
} now = {.all = LOG_LVL_NOTICE};

const char *log_level_name(enum log_level level)
{
    return level_names[level];
}

enum log_level log_default_level(void)
{
    return now.all;
}

static void use(const struct levels *l)
{
    enum log_level highest = l->all;

    now = *l;
    for (size_t i = 0; i < NR_AREAS; i++) {
        if (l->own[i] && (enum log_level)(l->own[i] - 1) > highest)
            highest = (enum log_level)(l->own[i] - 1);
    }
    log_level_now = highest;
}

void log_set_level(enum log_level level)
{
    use(&(struct levels){.all = level});
}

static int find(const char *const *names, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(names[i], text))
            return (int)i;
    }
    return -1;
}

bool log_wants(enum log_level level, const char *area)
{
    int i = find(areas, NR_AREAS, area);

    return level <= (i >= 0 && now.own[i] ? (enum log_level)(now.own[i] - 1) : now.all);
}

static int unknown_area(const char *text, struct error *err)
{
    char list[512] = "";
    size_t n = 0;

    for (size_t i = 0; i < NR_AREAS; i++)
        n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "", areas[i]);
    return error_set(err, EINVAL, "'%s' is no area of the log; there are %s", text, list);
}

static int take_word(struct levels *l, char *word, struct error *err)
{
    char *eq = strchr(word, '='), *name = eq ? eq + 1 : word;
    int level = find(level_names, ARRAY_LEN(level_names), name), area;

    if (level < 0 && !(eq && !strcmp(name, "default")))
        return error_set(err, EINVAL,
                         "'%s' is no log level; use error, warning, notice, info or debug%s", name,
                         eq ? ", or default" : "");
    if (!eq) {
        *l = (struct levels){.all = (enum log_level)level};
        return 0;
    }
    *eq = '\0';
    area = find(areas, NR_AREAS, word);
    if (area < 0)
        return unknown_area(word, err);
    l->own[area] = (signed char)(level + 1);
    return 0;
}

int log_set_levels(const char *text, struct error *err)
{
    struct levels l = now;
    char word[WORD_MAX];

    do {
        size_t len = strcspn(text, ",");
        int ret;

        snprintf(word, sizeof(word), "%.*s", (int)MIN_OF(len, sizeof(word) - 1), text);
        ret = take_word(&l, word, err);
        if (ret)
            return ret;
        text += len;
    } while (*text++ == ',');
    use(&l);
    return 0;
}

void log_for_each_area(void (*fn)(const char *area, enum log_level level, bool own, void *arg),
                       void *arg)
{
    for (size_t i = 0; i < NR_AREAS; i++)
        fn(areas[i], now.own[i] ? (enum log_level)(now.own[i] - 1) : now.all, now.own[i] != 0, arg);
}
