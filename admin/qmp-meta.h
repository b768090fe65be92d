/* SPDX-License-Identifier: BSD-3-Clause */
/* The control socket about itself: version, commands, schema, events. */
#ifndef COWTGT_QMP_META_H
#define COWTGT_QMP_META_H

#include <jansson.h>

/* As query-version returns it; a new reference. */
json_t *qmp_version(void);

#endif
