/* SPDX-License-Identifier: BSD-3-Clause */
/* What the parts of config_plan() share; see cli-config.h. Strings and objects stay the JSON's. */
#ifndef COWTGT_CLI_CONFIG_PLAN_H
#define COWTGT_CLI_CONFIG_PLAN_H

#include "admin/cli-config.h"

struct config_plan {
    const struct config_opts *opts;
    json_t *steps;
    struct error *err;
};

/* "" if @obj has no such string. */
const char *config_text(const json_t *obj, const char *key);
/* Takes @args over; @execute NULL: a remark. The step stays the plan's. */
json_t *config_step(struct config_plan *p, const char *execute, json_t *args, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Of one chain that is there in both. */
void config_plan_limits(struct config_plan *p, const json_t *now, const json_t *wanted);

#endif
