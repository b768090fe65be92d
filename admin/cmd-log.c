/* SPDX-License-Identifier: BSD-3-Clause */
/* log-set, query-log: how much each area of the log says, until the daemon ends. */
#define LOG_AREA "daemon"
#include <errno.h>
#include <stdio.h>

#include "admin/commands.h"
#include "util/log.h"

static const struct cmd_arg set_args[] = {
    {.name = "levels", .type = ARG_STRINGS},
    {.name = NULL},
};

/* All of them or none. */
static json_t *run_set(struct daemon *d, const json_t *args, struct error *err)
{
    const json_t *list = json_object_get(args, "levels"), *item;
    char text[1024];
    size_t i, n = 0;

    (void)d;
    json_array_foreach (list, i, item) {
        int m = snprintf(text + n, sizeof(text) - n, "%s%s", i ? "," : "", json_string_value(item));

        n += (size_t)m;
        if (n >= sizeof(text)) {
            error_set(err, E2BIG, "more levels than there are areas");
            return NULL;
        }
    }
    if (!n) {
        error_set(err, EINVAL, "no level is given: use LEVEL or AREA=LEVEL");
        return NULL;
    }
    if (log_set_levels(text, err))
        return NULL;
    log_notice("log levels: %s", text);
    return json_object();
}

static void add_area(const char *area, enum log_level level, bool own, void *arg)
{
    json_array_append_new(arg, json_pack("{s:s, s:s, s:b}", "area", area, "level",
                                         log_level_name(level), "own", own));
}

static json_t *run_query(struct daemon *d, const json_t *args, struct error *err)
{
    json_t *areas = json_array();

    (void)d;
    (void)args;
    (void)err;
    log_for_each_area(add_area, areas);
    return json_pack("{s:s, s:s, s:o}", "level", log_level_name(log_default_level()), "to",
                     log_is_journal() ? "journald" : "stderr", "areas", areas);
}

const struct command log_commands[] = {
    {"log-set", "how much the log says: LEVEL for all, AREA=LEVEL for one", set_args, run_set},
    {"query-log", "the log's areas and their levels", NULL, run_query},
    {NULL, NULL, NULL, NULL},
};
