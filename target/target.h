/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Targets, their LUNs, portals and sessions: what admin steers. Everything of one target hangs
 * off its struct target; targets share only the loop, the log and the buffer pool.
 */
#ifndef COWTGT_TARGET_H
#define COWTGT_TARGET_H

#include <stdbool.h>
#include <stdint.h>
#include "lun-backends/block.h"
#include "util/cow-wire.h"
#include "util/error.h"
#include "util/list.h"
#include "util/uuid.h"

#define ISCSI_NAME_MAX 223    /* RFC 7143 4.2.7.1 */
#define TARGET_MAX_LUN 0x3fff /* SAM flat space addressing holds 14 bits */

struct target;
struct lun;

/* @iqn: checked as RFC 3720 / 3722 names (iqn., eui., naa.), ERR_DEVICE_IN_USE if it exists. */
struct target *target_create(const char *iqn, struct error *err);
struct target *target_find(const char *iqn);
const char *target_name(const struct target *t);
/* Coroutine. No new sessions; existing ones are dropped; waits for their commands; frees LUNs. */
void co_target_destroy(struct target *t);
unsigned target_nr_sessions(const struct target *t);
/* One sink: a target or a portal came or went. */
void target_set_list_sink(void (*fn)(void));
/* fn returns false to stop. */
void target_for_each(bool (*fn)(struct target *, void *), void *arg);
/*
 * An initiator name or an address prefix ("192.0.2.0/24", "2001:db8::/32", one address) that may
 * log in. Where names are given it must be one of them, where prefixes are given the address must
 * lie in one of them; nothing given: everybody. Copied.
 */
int target_allow(struct target *t, const char *who, struct error *err);
/* Exactly these from now on; @nr 0: everybody. Sessions that are open stay. All or nothing. */
int target_set_allowed(struct target *t, char *const *who, unsigned nr, struct error *err);
/* Would target_allow() take @who? */
int target_check_allow(const char *who, struct error *err);
/* Is it an iSCSI name (iqn., eui., naa.)? */
int target_check_name(const char *name, struct error *err);

/*
 * The LUNs that @initiator ("*": each that has no mask of its own) sees: "0,2-4", "none", "all";
 * @luns NULL: its mask goes. Holds at once: who sees another set of LUNs now is told REPORTED LUNS
 * DATA HAS CHANGED, and loses what it held on those it sees no more by being there. Commands under
 * way end as they would. target_check_mask(): would it be taken?
 */
int target_set_mask(struct target *t, const char *initiator, const char *luns, struct error *err);
int target_check_mask(const char *initiator, const char *luns, struct error *err);

/* The portal groups that it is served at, tags from 1 to 65535; @nr 0: all. Copied. */
int target_set_portal_groups(struct target *t, const uint64_t *groups, unsigned nr,
                             struct error *err);

#define CHAP_NAME_MAX   255
#define CHAP_SECRET_MAX 255

struct chap_account {
    char user[CHAP_NAME_MAX + 1];
    size_t secret_bytes;
    uint8_t secret[CHAP_SECRET_MAX];
};

/*
 * Who may log in to @t (NULL: to discovery sessions), by CHAP; @outgoing (or NULL) is what the
 * target proves itself with to initiators that ask. Replaces what was there, copying. @required
 * with no account: nobody. Sessions that are open stay.
 */
int target_set_accounts(struct target *t, const struct chap_account *accounts, unsigned nr,
                        const struct chap_account *outgoing, bool required, struct error *err);

/* TargetAlias (RFC 7143 13.5), at most 255 bytes; NULL: none. */
int target_set_alias(struct target *t, const char *alias, struct error *err);

/*
 * Logins are sent to "ADDR[:PORT]" or "[V6][:PORT]" instead (RFC 7143 11.13.5, 0101h and 0102h),
 * after the initiator has proven who it is; @to NULL: not any more. Sessions that are open stay.
 */
int target_redirect(struct target *t, const char *to, bool permanently, struct error *err);

struct lun_opts {
    uint16_t number;
    struct blk_node *root; /* the LUN takes its own reference, through a head of its own */
    bool writable;
    struct uuid id; /* VPD 80h / 83h come from it: same uuid, same identifiers */
    bool has_cowl;  /* the LUN is a disk or layer of a chain: serve VPD D5h and C5h */
    struct cowl_page cowl;
    bool anchored_zeros;      /* delta view: decided zeros are "anchored" in GET LBA STATUS */
    uint32_t block_bytes;     /* logical blocks: 512 or 4096; 0: 512 */
    bool removable;           /* a medium that START STOP UNIT ejects and loads */
    const char *reservations; /* as given to its sink last; NULL: none kept */
    const char *mode;         /* the same of mode parameters */
};
struct lun *target_add_lun(struct target *t, const struct lun_opts *opts, struct error *err);
/* Coroutine: takes it out of REPORT LUNS (unit attention), waits for its commands, frees. */
void co_target_remove_lun(struct target *t, uint16_t number);
struct lun *target_find_lun(struct target *t, uint16_t number);
/* New D5h contents; with @announce INQUIRY DATA HAS CHANGED goes to every session. */
void lun_set_cowl(struct lun *lun, const struct cowl_page *cowl, bool announce);
struct blk_head *lun_head(struct lun *lun);
/* Who would miss the LUN: an initiator with commands under way there, one that is registered
 * (PERSISTENT RESERVE OUT), or that has read from it in the last minute. Into @who, for people;
 * false: nobody. */
bool lun_in_use(struct lun *lun, char *who, size_t len);
/* How long commands wait for a source that is down before they fail (default 120 s). */
void lun_set_source_timeout(struct lun *lun, uint64_t timeout_ns);

/*
 * What is to outlive a power loss: persistent reservations (APTPL) and saved mode parameters. A
 * sink keeps @text (NULL: nothing any more) for the LUN durably before it returns 0; it is called
 * in a coroutine, for one LUN once at a time. Without a sink initiators are told that nothing can
 * be kept.
 */
typedef int co_lun_text_sink_fn(struct target *t, uint16_t lun, const char *text, void *opaque,
                                struct error *err);
void target_set_reservation_sink(co_lun_text_sink_fn *fn, void *opaque);
void target_set_mode_sink(co_lun_text_sink_fn *fn, void *opaque);
/* True if @text, as given to a sink, is of this LUN. */
bool lun_text_is_of(const char *text, uint16_t lun);

/* Who is registered (PERSISTENT RESERVE OUT), logged in or not. */
typedef void registrant_fn(uint16_t lun, const char *initiator, uint64_t key, void *arg);
void lun_for_each_registrant(const struct lun *lun, registrant_fn *fn, void *arg);
/* The same of @text, as given to the sink; a damaged one has none. */
void reservations_for_each(const char *text, registrant_fn *fn, void *arg);

struct lun_stats {
    uint64_t read_bytes, written_bytes, read_ops, write_ops;
    unsigned parked; /* commands that wait for the source */
};
void lun_get_stats(const struct lun *lun, struct lun_stats *st);

/* A command that ended with an error of the disk. */
struct lun_error {
    const char *target;
    uint16_t number;             /* of the LUN */
    const struct blk_node *node; /* its root */
    bool write;                  /* it was to change something, or to make it stable */
    bool no_space;
    int error; /* positive errno */
};
typedef void lun_error_fn(const struct lun_error *e);
/* One sink. Of each kind of error a LUN tells one a second. */
void lun_set_error_sink(lun_error_fn *sink);

/* ---- sessions ---- */
struct session_info {
    uint64_t id;                    /* never used twice in a process */
    const char *initiator, *target; /* target NULL: discovery */
    char peer[64], local[64];       /* ADDR:PORT */
    uint8_t isid[6];
    uint16_t tsih;
    bool header_digest, data_digest, initial_r2t, immediate_data;
    uint32_t max_recv_segment, max_xmit_segment, first_burst, max_burst;
    unsigned commands;  /* in flight */
    uint64_t opened_ns; /* now_ns() time */
};
void session_for_each(bool (*fn)(const struct session_info *, void *), void *arg);
/*
 * Drops it, and the commands end as when the connection is lost; with @logout the initiator is
 * asked to log out first, and has some seconds. -ENOENT.
 */
int session_close(uint64_t id, bool logout, struct error *err);
/* One sink; @opened false: closed. */
void session_set_event_sink(void (*fn)(const struct session_info *, bool opened));

/* ---- portals ---- */
/*
 * "ADDR[:PORT]", "[V6]:PORT"; port 0: the kernel chooses. Then may come ",advertise=HOST[:PORT]",
 * what initiators are told instead, and ",group=N", its portal group tag (1 to 65535, else 1).
 */
int portal_open(const char *text, struct error *err);
/*
 * Stops listening at "ADDR[:PORT]" (what comes after a comma does not matter); sessions that came
 * in there stay. -ENOENT.
 */
int portal_close(const char *text, struct error *err);
/* The name of the portal that listens there; NULL: none. */
const char *portal_name_at(const char *text);
struct portal_info {
    const char *name;      /* "ADDR:PORT" as bound */
    const char *advertise; /* "HOST:PORT"; NULL: that */
    uint16_t group;
};
/* fn returns false to stop. */
void portal_for_each(bool (*fn)(const struct portal_info *, void *), void *arg);
/* Coroutine: stop listening, end all sessions in good order (bounded to @limit_ns). */
void co_portals_close_all(uint64_t limit_ns);

#endif
