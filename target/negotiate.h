/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Negotiation of the keys of RFC 7143 section 13: one table says of each key what type it is, when
 * it may come and what we want; one call takes a pair and appends our answer. Pure.
 */
#ifndef COWTGT_NEGOTIATE_H
#define COWTGT_NEGOTIATE_H

#include <stdbool.h>
#include <stdint.h>
#include "target/target.h"
#include "target/text.h"

#define ISCSI_OUR_RECV_SEGMENT 262144 /* what we declare as MaxRecvDataSegmentLength */
#define NEGOTIATE_MAX_R2TS     8      /* MaxOutstandingR2T, at most */
#define ISCSI_LOGIN_SEGMENT    8192   /* both sides' bound until it is declared */

/* What holds between the two sides; starts with the RFC's defaults. */
struct iscsi_params {
    bool header_digest, data_digest; /* CRC32C */
    bool initial_r2t, immediate_data;
    bool data_pdu_in_order, data_sequence_in_order;
    uint32_t max_xmit_segment; /* the initiator's MaxRecvDataSegmentLength */
    uint32_t first_burst, max_burst;
    uint32_t max_outstanding_r2t, max_connections, error_recovery_level;
    uint32_t time2wait_s, time2retain_s;
    uint32_t protocol_level; /* RFC 7144 */
};

enum neg_phase {
    NEG_SECURITY = 1 << 0, /* login stages */
    NEG_OPERATIONAL = 1 << 1,
    NEG_FULL = 1 << 2, /* Text Requests of the full feature phase */
};

struct negotiation {
    struct iscsi_params params;
    uint64_t seen; /* keys that came already, by their place in the table */
    bool discovery, bad_session_type;
    bool auth_offered, auth_none, auth_chap; /* AuthMethod came; what it had in it */
    bool declared_segment;                   /* our MaxRecvDataSegmentLength is told */
    bool named;                              /* who logs in, and to what, is settled */
    bool joins; /* a connection for a session that there is: no leading-only keys */
    char initiator_name[ISCSI_NAME_MAX + 1];
    char target_name[ISCSI_NAME_MAX + 1];
    char initiator_alias[TEXT_VALUE_MAX + 1];
    char send_targets[ISCSI_NAME_MAX + 1];
    bool have_send_targets;
    /* What the initiator says of CHAP, "" until it does; login answers. */
    char chap_a[TEXT_VALUE_MAX + 1], chap_i[TEXT_VALUE_MAX + 1], chap_n[TEXT_VALUE_MAX + 1];
    char chap_r[TEXT_CHAP_MAX + 1], chap_c[TEXT_CHAP_MAX + 1];
};

void negotiation_init(struct negotiation *n);

/*
 * Takes one pair; the answer, if the key wants one, goes to @out. 0, or -EPROTO: the negotiation
 * has failed (a key twice, at a time it may not come, or a declaration that can't be).
 * FirstBurstLength is answered with no more than MaxBurstLength is by then.
 */
int negotiate_key(struct negotiation *n, enum neg_phase phase, const char *key, const char *value,
                  struct text_buf *out);
/* All pairs of a text, which is changed; FirstBurstLength last. -EINVAL if it is not well-formed,
 * else as above. */
int negotiate_text(struct negotiation *n, enum neg_phase phase, char *text, size_t len,
                   struct text_buf *out);
/* Our own declarations, once, when the operational stage is reached. */
void negotiate_declare(struct negotiation *n, struct text_buf *out);

#endif
