/* SPDX-License-Identifier: BSD-3-Clause */
/* What the parts of admin/ share: one per process, made by main, handed to every command. */
#ifndef COWTGT_DAEMON_H
#define COWTGT_DAEMON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "util/list.h"

struct accounts;
struct control;
struct state;

#define JOB_HISTORY_MAX 64
#define DEFAULT_PORTAL  "127.0.0.1:3260"

struct daemon {
    struct state *state;
    struct accounts *accounts;
    struct control *control;          /* NULL until it is open */
    struct list_head chains;          /* of struct chain */
    json_t *job_history;              /* how the last jobs ended, oldest first; bounded */
    const char *const *fixed_portals; /* of the command line */
    unsigned nr_fixed_portals;        /* 0: the default one, until others are in the state */
    uint64_t started_ns;
    const char *socket_path;
    bool shutting_down;
    void (*stop)(struct daemon *d); /* begins an orderly exit; more than once is fine */
};

#endif
