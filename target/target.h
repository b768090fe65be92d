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
/* fn returns false to stop. */
void target_for_each(bool (*fn)(struct target *, void *), void *arg);
/* Initiator names that may log in; none given: everybody. Copied. */
int target_allow(struct target *t, const char *initiator_name, struct error *err);

struct lun_opts {
    uint16_t number;
    struct blk_node *root; /* the LUN takes its own reference, through a head of its own */
    bool writable;
    struct uuid id; /* VPD 80h / 83h come from it: same uuid, same identifiers */
    bool has_cowl;  /* the LUN is a disk or layer of a chain: serve VPD D5h and C5h */
    struct cowl_page cowl;
    bool anchored_zeros; /* delta view: decided zeros are "anchored" in GET LBA STATUS */
};
struct lun *target_add_lun(struct target *t, const struct lun_opts *opts, struct error *err);
/* Coroutine: takes it out of REPORT LUNS (unit attention), waits for its commands, frees. */
void co_target_remove_lun(struct target *t, uint16_t number);
struct lun *target_find_lun(struct target *t, uint16_t number);
/* New D5h contents; with @announce INQUIRY DATA HAS CHANGED goes to every session. */
void lun_set_cowl(struct lun *lun, const struct cowl_page *cowl, bool announce);
struct blk_head *lun_head(struct lun *lun);
/* Who would miss the LUN: an initiator with commands under way there, or that has read from it in
 * the last minute. Into @who, for people; false: nobody. */
bool lun_in_use(struct lun *lun, char *who, size_t len);
/* How long commands wait for a source that is down before they fail (default 120 s). */
void lun_set_source_timeout(struct lun *lun, uint64_t timeout_ns);

struct lun_stats {
    uint64_t read_bytes, written_bytes, read_ops, write_ops;
    unsigned parked; /* commands that wait for the source */
};
void lun_get_stats(const struct lun *lun, struct lun_stats *st);

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
/* Drops it; -ENOENT. The commands end as when the connection is lost. */
int session_close(uint64_t id, struct error *err);
/* One sink; @opened false: closed. */
void session_set_event_sink(void (*fn)(const struct session_info *, bool opened));

/* ---- portals ---- */
/* "ADDR[:PORT]", "[V6]:PORT"; port 0: the kernel chooses. */
int portal_open(const char *text, struct error *err);
/* "ADDR:PORT" as bound; fn returns false to stop. */
void portal_for_each(bool (*fn)(const char *addr_port, void *), void *arg);
/* Coroutine: stop listening, end all sessions in good order (bounded to @limit_ns). */
void co_portals_close_all(uint64_t limit_ns);

#endif
