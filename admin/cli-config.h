/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is to be done so that a daemon is as a configuration file says. Pure: both sides are JSON as
 * query-config has it; nothing is asked and nothing is done here.
 */
#ifndef COWTGT_CLI_CONFIG_H
#define COWTGT_CLI_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include "util/error.h"

struct config_opts {
    bool prune;   /* chains that the file does not have are removed */
    bool replace; /* what can't change in use is taken down and made again */
    bool force;   /* also while initiators are logged in */
};

/* Types and members of a file, all of it; the error names the place. */
int config_check(const json_t *wanted, struct error *err);

/*
 * The difference, in the order in which it is to be done, appended to @steps: {"execute",
 * "arguments", "says"}, a sentence for people; without "execute" it is a remark only. @now:
 * query-config's answer. A step with "unless-same" (account-compare's arguments) is needed only
 * if that finds a difference. -EBUSY with @err: something needs @opts->replace.
 */
int config_plan(const json_t *now, const json_t *wanted, const struct config_opts *opts,
                json_t *steps, struct error *err);

#endif
