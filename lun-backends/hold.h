/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Holding LUNs of a source by persistent-reservation registrations (SPC-4 5.12), never by a
 * reservation: others go on reading. A session of its own does it, with an ISID made from the
 * key, so that after a restart it is the same initiator port that unregisters.
 */
#ifndef COWTGT_HOLD_H
#define COWTGT_HOLD_H

#include "lun-backends/remote.h"

struct hold_opts {
    struct iscsi_url url; /* its LUN is not looked at */
    char secret[256];     /* CHAP, "" if none */
    char initiator[224];
    bool digests;
    uint64_t key; /* never 0 */
};

/* Logs in, within 5 s; as co_iscsi_connect(). Ends with co_iscsi_close(). */
int co_hold_open(const struct hold_opts *opts, struct iscsi_conn **conn, struct error *err);
/*
 * Registers @key at @lun, with APTPL where the target can; once more does no harm. *@lasting:
 * it outlives a power loss there. -EHOSTDOWN and -EAGAIN: try again later; others: it is refused.
 */
int co_hold_take(struct iscsi_conn *conn, uint16_t lun, uint64_t key, bool *lasting,
                 struct error *err);
/* Takes the registration of @key back, also one of an earlier session. Errors as above. */
int co_hold_release(struct iscsi_conn *conn, uint16_t lun, uint64_t key, struct error *err);

/* ---- pure ---- */
/* Is @key in a READ KEYS answer (SPC-4 6.13.2) of @len bytes? */
bool hold_key_listed(const uint8_t *buf, size_t len, uint64_t key);

#endif
