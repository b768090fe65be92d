/* SPDX-License-Identifier: BSD-3-Clause */
/* News for the clients of the control socket, with QEMU's members where QEMU has the event. */
#ifndef COWTGT_EVENTS_H
#define COWTGT_EVENTS_H

#include <jansson.h>
#include "admin/daemon.h"

struct event_member {
    const char *name, *type; /* "str", "int", ...; name NULL ends a list */
    bool optional;
};

struct event_schema {
    const char *name; /* NULL ends the table */
    const struct event_member *members;
};
extern const struct event_schema event_schemas[];

/* Listens to jobs and sessions. One daemon a process: the sinks below take no context. */
void events_init(struct daemon *d);
/* Takes the reference on @data. */
void event_emit(struct daemon *d, const char *name, json_t *data);

#endif
