/* SPDX-License-Identifier: BSD-3-Clause */
/* What a monitor wants to know: is everything served, and is anything in trouble. */
#ifndef COWTGT_HEALTH_H
#define COWTGT_HEALTH_H

#include <jansson.h>
#include "admin/daemon.h"

/*
 * Adds to query-daemon's answer: "health" ("ok", "degraded": served, but something needs a look,
 * "critical": a chain is not served) and "problems", [{"chain", "health", "what"}...].
 */
void health_put(const struct daemon *d, json_t *answer);

#endif
