/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of target/ know of each other and nobody else does: struct target.
 * The transport (target.c, session.c) owns the struct and its sessions; the SCSI side (lun.c,
 * nexus.c) owns what hangs off the two lists named for it.
 */
#ifndef COWTGT_TARGET_INT_H
#define COWTGT_TARGET_INT_H

#include <stdbool.h>
#include <stdint.h>
#include "target/access.h"
#include "target/auth.h"
#include "target/mask.h"
#include "target/target.h"
#include "util/coroutine.h"
#include "util/list.h"

struct target {
    struct list_head link; /* in the registry */
    char *name;
    struct list_head luns;     /* SCSI: struct lun, ascending numbers */
    struct list_head nexuses;  /* SCSI: struct nexus, by nexus_init() and nexus_fini() */
    struct list_head sessions; /* transport: struct session in full feature phase or closing */
    unsigned nr_sessions;
    struct access_list allowed;
    struct lun_mask *masks;
    uint64_t *portal_groups;   /* it is served at; ... */
    unsigned nr_portal_groups; /* ... 0: all */
    struct auth auth;
    char *alias;       /* NULL: none */
    char *redirect_to; /* TargetAddress; NULL: logins stay here */
    bool redirect_permanently;
    bool closing;                 /* no new sessions */
    struct co_queue session_gone; /* woken whenever a session was freed */
};

/* target.c: tells the list sink. */
void target_list_changed(void);
/* target.c: true if @initiator at @peer may log in (and see the target in SendTargets). */
bool target_allows(const struct target *t, const char *initiator, const char *peer);
/* target.c: true if it is served at portals of @group. */
bool target_in_group(const struct target *t, uint16_t group);
/* target.c: of @t; NULL: of discovery sessions. */
const struct auth *target_auth(const struct target *t);

/* lun.c: coroutine; takes all LUNs away as co_target_remove_lun() does, for co_target_destroy().
 * No session is left. */
void co_target_free_luns(struct target *t);

#endif
