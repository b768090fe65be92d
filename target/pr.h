/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Persistent reservations of one logical unit (SPC-4 5.12): who is registered, what is reserved,
 * and what each PERSISTENT RESERVE OUT action makes of it. Pure: no I/O, no nexus, no command. A
 * failing action changes nothing that its caller keeps: it works on a copy.
 *
 * A registrant is an I_T nexus: an initiator port (name and ISID) at a target port (a portal
 * group). Registrations live on when sessions end.
 */
#ifndef COWTGT_PR_H
#define COWTGT_PR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "target/target.h"

#define PR_MAX_REGISTRATIONS 128 /* beyond: INSUFFICIENT REGISTRATION RESOURCES */

/* SPC-4 table 64 */
enum pr_type {
    PR_NONE = 0,
    PR_WRITE_EXCLUSIVE = 1,
    PR_EXCLUSIVE_ACCESS = 3,
    PR_WRITE_EXCLUSIVE_RO = 5,
    PR_EXCLUSIVE_ACCESS_RO = 6,
    PR_WRITE_EXCLUSIVE_AR = 7,
    PR_EXCLUSIVE_ACCESS_AR = 8,
};

/* Service actions of PERSISTENT RESERVE OUT, SPC-4 table 208 */
enum pr_action {
    PR_REGISTER,
    PR_RESERVE,
    PR_RELEASE,
    PR_CLEAR,
    PR_PREEMPT,
    PR_PREEMPT_AND_ABORT,
    PR_REGISTER_AND_IGNORE,
    PR_REGISTER_AND_MOVE,
    PR_NR_ACTIONS,
};

struct pr_port {
    char name[ISCSI_NAME_MAX + 1];
    uint8_t isid[6];
    uint16_t rel_port; /* relative target port identifier: ports.h */
};

struct pr_registration {
    struct pr_port port;
    uint64_t key;
    bool holder; /* not used with the all-registrants types: there everyone is */
};

struct pr {
    uint32_t generation;
    bool aptpl;   /* kept through a power loss */
    uint8_t type; /* enum pr_type */
    unsigned nr;
    struct pr_registration *regs; /* PR_MAX_REGISTRATIONS of them; NULL while there were none */
};

struct pr_request {
    enum pr_action action;
    uint8_t type; /* PR_NONE: what was named is none */
    uint64_t key, action_key;
    bool aptpl, unregister;
    bool all_ports; /* ALL_TG_PT */
    bool spec_i_pt;
    struct pr_port from;
    const struct pr_port *others; /* SPEC_I_PT: register these too, at @from's target port or, with
                                   * all_ports, at each; REGISTER AND MOVE: to this */
    unsigned nr_others;
    uint32_t whole_devices; /* bits: others that are given without an ISID (pr_parse_out) */
    const uint16_t *ports;  /* of the target, for all_ports */
    unsigned nr_ports;
};

enum pr_result {
    PR_OK,
    PR_CONFLICT,
    PR_BAD_RELEASE, /* INVALID RELEASE OF PERSISTENT RESERVATION */
    PR_BAD_KEY,     /* SERVICE ACTION RESERVATION KEY can't be that */
    PR_BAD_PORT,    /* a TransportID can't be that */
    PR_BAD_TYPE,    /* SCOPE or TYPE are none that there are */
    PR_NOTHING_TO_MOVE,
    PR_NO_ROOM,
};

/* What another registrant has to be told. */
enum pr_news_kind { PR_NEWS_PREEMPTED, PR_NEWS_RELEASED, PR_NEWS_REGISTRATION_PREEMPTED };
struct pr_news {
    struct pr_port port;
    enum pr_news_kind kind;
};
struct pr_change {
    unsigned nr;
    struct pr_news news[PR_MAX_REGISTRATIONS];
};

void pr_release(struct pr *pr);
int pr_copy(struct pr *to, const struct pr *from); /* -ENOMEM */

bool pr_type_valid(uint8_t type);
bool pr_port_equal(const struct pr_port *a, const char *name, const uint8_t isid[6],
                   uint16_t rel_port);
/* NULL: not registered. */
const struct pr_registration *pr_find(const struct pr *pr, const char *name, const uint8_t isid[6],
                                      uint16_t rel_port);
bool pr_is_holder(const struct pr *pr, const struct pr_registration *reg);
bool pr_all_registrants(const struct pr *pr);
/* SPC-4 5.12.3: RESERVE and RELEASE of this nexus are GOOD, and change nothing. */
bool pr_takes_reserve(const struct pr *pr, const char *name, const uint8_t isid[6],
                      uint16_t rel_port);

/* True if the reservation forbids this nexus to read (@write: to change) the medium. */
bool pr_forbids(const struct pr *pr, const char *name, const uint8_t isid[6], uint16_t rel_port,
                bool write);

/* On a copy (pr_copy() gives it room): what it holds after anything but PR_OK is of no use. */
enum pr_result pr_apply(struct pr *pr, const struct pr_request *rq, struct pr_change *change);

/* ---- pr-wire.c: bytes of PERSISTENT RESERVE IN and OUT ---- */

#define PR_OUT_BYTES       24
#define PR_OUT_MAX_BYTES   (32u << 10)
#define PR_IN_MAX_BYTES    (8 + PR_MAX_REGISTRATIONS * (24 + 4 + ISCSI_NAME_MAX + 21))
#define PR_MAX_OTHER_PORTS 32

enum pr_parse { PR_PARSED, PR_BAD_LENGTH, PR_BAD_FIELD };
/*
 * A parameter list of @len bytes for @rq->action; fills keys, flags and others (into @others of
 * PR_MAX_OTHER_PORTS). PR_BAD_FIELD: @field is the byte.
 */
enum pr_parse pr_parse_out(const uint8_t *list, uint32_t len, struct pr_request *rq,
                           struct pr_port *others, uint16_t *field);

/* Each fills @b (PR_IN_MAX_BYTES, zeroed) and returns the length of the whole answer. */
size_t pr_put_keys(const struct pr *pr, uint8_t *b);
size_t pr_put_reservation(const struct pr *pr, uint8_t *b);
size_t pr_put_capabilities(const struct pr *pr, uint8_t *b, bool can_save);
size_t pr_put_full_status(const struct pr *pr, uint8_t *b);

/* ---- pr-text.c: as a line of text, to be saved ---- */

/* malloc'ed "LUN:TYPE:[*]KEY/ISID[@PORT]/NAME,..."; NULL: out of memory. */
char *pr_to_text(const struct pr *pr, uint16_t lun);
/* Into a zeroed @pr. -EINVAL: damaged, -ENOMEM. */
int pr_from_text(struct pr *pr, const char *text, uint16_t lun);

#endif
