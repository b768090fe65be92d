/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * iSNS (RFC 4171): our targets and portals are told to a name server, kept there, and taken back at
 * the end; on request the server's discovery domains say who may log in.
 *
 * The library's calls wait for the network, so they are made by an agent: this program, started
 * again, which hears the wanted state on its standard input and answers on its standard output.
 * Loop thread only. All strings are copied.
 */
#ifndef COWTGT_ISNS_H
#define COWTGT_ISNS_H

#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"

struct sns_portal_want {
    const char *address; /* "HOST:PORT", as initiators are to be told; wildcards are filled in */
    uint16_t group;
};

struct sns_want {
    const struct sns_portal_want *portals;
    unsigned nr_portals;
    const char *const *targets;
    unsigned nr_targets;
};

struct sns_status {
    const char *server;
    bool registered;        /* the server has what was wanted last */
    unsigned nr_targets;    /* there */
    const char *error;      /* of the last try; NULL: it went well */
    bool discovery_domains; /* were asked for */
};

/* False: built without the library. */
bool sns_built_in(void);
/* @server: "HOST[:PORT]", port 3205 by default. Starts the agent; once in a process. */
int sns_start(const char *server, bool discovery_domains, struct error *err);
/* What is to be registered from now on. */
void sns_set(const struct sns_want *want);
/* false: not started. Strings are valid until the loop turns. */
bool sns_get_status(struct sns_status *st);
/* May @initiator log in to @target by the discovery domains? Before the server's first answer about
 * a target: nobody may. True where they were not asked for. */
bool sns_allows(const char *target, const char *initiator);
/* Coroutine: takes the registration back, at most @limit_ns. */
void co_sns_stop(uint64_t limit_ns);

/* The agent's main, in a process of its own; its exit status. */
int sns_agent_main(const char *server, bool discovery_domains);

#endif
