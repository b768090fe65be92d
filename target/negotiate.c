/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The key table, and a function per type of key (RFC 7143 6.2, 13). We answer and never originate
 * but for our MaxRecvDataSegmentLength, so no answer of the initiator is ever waited for.
 * The result of every negotiated number lies in the key's range and is one we can keep.
 */
#include "target/negotiate.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "util/size.h"

struct key_def;
typedef int key_fn(struct negotiation *n, const struct key_def *k, const char *value,
                   struct text_buf *out);

struct key_def {
    const char *name;
    key_fn *take;
    uint8_t phases;     /* enum neg_phase bits */
    bool needs_normal;  /* irrelevant in a discovery session */
    bool leading;       /* LO: of a session's first login only */
    bool first;         /* names come in the first request only */
    uint32_t min, max;  /* the RFC's range of a number; of a text: its bytes */
    uint32_t ours;      /* number or boolean we offer */
    uint32_t offset;    /* of the result, in struct negotiation */
    const char *answer; /* key_fixed's */
};

static void *result_of(struct negotiation *n, const struct key_def *k)
{
    return (char *)n + k->offset;
}

static int key_min(struct negotiation *n, const struct key_def *k, const char *value,
                   struct text_buf *out)
{
    uint32_t v;

    if (!text_number(value, &v) || v < k->min || v > k->max) {
        text_add(out, k->name, "Reject");
        return 0;
    }
    v = MIN_OF(v, k->ours);
    *(uint32_t *)result_of(n, k) = v;
    text_add_number(out, k->name, v);
    return 0;
}

/* 13.14: it must not exceed MaxBurstLength. */
static int key_first_burst(struct negotiation *n, const struct key_def *k, const char *value,
                           struct text_buf *out)
{
    struct key_def bounded = *k;

    bounded.ours = MIN_OF(k->ours, n->params.max_burst);
    return key_min(n, &bounded, value, out);
}

static int key_max(struct negotiation *n, const struct key_def *k, const char *value,
                   struct text_buf *out)
{
    uint32_t v;

    if (!text_number(value, &v) || v < k->min || v > k->max) {
        text_add(out, k->name, "Reject");
        return 0;
    }
    v = MAX_OF(v, k->ours);
    *(uint32_t *)result_of(n, k) = v;
    text_add_number(out, k->name, v);
    return 0;
}

static int key_bool(struct negotiation *n, const struct key_def *k, const char *value,
                    struct text_buf *out, bool is_or)
{
    bool v;

    if (!text_bool(value, &v)) {
        text_add(out, k->name, "Reject");
        return 0;
    }
    v = is_or ? v || k->ours : v && k->ours;
    *(bool *)result_of(n, k) = v;
    text_add(out, k->name, v ? "Yes" : "No");
    return 0;
}

static int key_and(struct negotiation *n, const struct key_def *k, const char *value,
                   struct text_buf *out)
{
    return key_bool(n, k, value, out, false);
}

static int key_or(struct negotiation *n, const struct key_def *k, const char *value,
                  struct text_buf *out)
{
    return key_bool(n, k, value, out, true);
}

/* HeaderDigest, DataDigest: the first of the initiator's list that we know. 6.2.1 */
static int key_digest(struct negotiation *n, const struct key_def *k, const char *value,
                      struct text_buf *out)
{
    while (*value) {
        size_t len = strcspn(value, ",");
        bool crc = len == 6 && !memcmp(value, "CRC32C", 6);

        if (crc || (len == 4 && !memcmp(value, "None", 4))) {
            *(bool *)result_of(n, k) = crc;
            text_add(out, k->name, crc ? "CRC32C" : "None");
            return 0;
        }
        value += len + (value[len] == ',');
    }
    text_add(out, k->name, "Reject");
    return 0;
}

/* Answered by whoever knows the target and its accounts. 12.1 */
static int key_auth(struct negotiation *n, const struct key_def *k, const char *value,
                    struct text_buf *out)
{
    (void)k;
    (void)out;
    n->auth_offered = true;
    n->auth_none = text_list_has(value, "None");
    n->auth_chap = text_list_has(value, "CHAP");
    return 0;
}

/* MaxRecvDataSegmentLength is declared, not negotiated: no answer. 13.12 */
static int key_segment(struct negotiation *n, const struct key_def *k, const char *value,
                       struct text_buf *out)
{
    uint32_t v;

    (void)out;
    if (!text_number(value, &v) || v < k->min || v > k->max)
        return -EPROTO;
    n->params.max_xmit_segment = v;
    return 0;
}

/* A declared text: kept, not answered. */
static int key_text(struct negotiation *n, const struct key_def *k, const char *value,
                    struct text_buf *out)
{
    size_t len = strlen(value);

    (void)out;
    if (len < k->min || len > k->max)
        return -EPROTO;
    memcpy(result_of(n, k), value, len + 1);
    return 0;
}

/* 13.21 */
static int key_session_type(struct negotiation *n, const struct key_def *k, const char *value,
                            struct text_buf *out)
{
    (void)k;
    (void)out;
    n->discovery = !strcmp(value, "Discovery");
    n->bad_session_type = !n->discovery && strcmp(value, "Normal");
    return 0;
}

static int key_send_targets(struct negotiation *n, const struct key_def *k, const char *value,
                            struct text_buf *out)
{
    n->have_send_targets = true;
    return key_text(n, k, value, out);
}

/* The same answer to any offer. */
static int key_fixed(struct negotiation *n, const struct key_def *k, const char *value,
                     struct text_buf *out)
{
    (void)n;
    (void)value;
    text_add(out, k->name, k->answer);
    return 0;
}

/* RFC 7143 13.23: without FastAbort semantics the old ones hold. */
static int key_task_reporting(struct negotiation *n, const struct key_def *k, const char *value,
                              struct text_buf *out)
{
    (void)n;
    text_add(out, k->name, text_list_has(value, "RFC3720") ? "RFC3720" : "Reject");
    return 0;
}

/* What only a target may say. */
static int key_not_yours(struct negotiation *n, const struct key_def *k, const char *value,
                         struct text_buf *out)
{
    (void)n;
    (void)k;
    (void)value;
    (void)out;
    return -EPROTO;
}

#define LOGIN     (NEG_SECURITY | NEG_OPERATIONAL)
#define ANY       (LOGIN | NEG_FULL)
#define PARAM(f)  .offset = offsetof(struct negotiation, params.f)
#define NAME(f)   .offset = offsetof(struct negotiation, f)
#define MAX_24BIT 16777215

/* name, what takes it, when it may come, then what that function needs */
#define KEY(n, fn, when, ...)                              \
    {                                                      \
        .name = n, .take = fn, .phases = when, __VA_ARGS__ \
    }
#define RANGE(lo, hi) .min = lo, .max = hi
#define LEADING       .leading = true
#define NORMAL        LEADING, .needs_normal = true
#define FIRST         .first = true

static const struct key_def keys[] = {
    KEY("AuthMethod", key_auth, NEG_SECURITY),
    KEY("CHAP_A", key_text, NEG_SECURITY, RANGE(1, TEXT_VALUE_MAX), NAME(chap_a)),
    KEY("CHAP_I", key_text, NEG_SECURITY, RANGE(1, TEXT_VALUE_MAX), NAME(chap_i)),
    KEY("CHAP_N", key_text, NEG_SECURITY, RANGE(1, TEXT_VALUE_MAX), NAME(chap_n)),
    KEY("CHAP_R", key_text, NEG_SECURITY, RANGE(1, TEXT_CHAP_MAX), NAME(chap_r)),
    KEY("CHAP_C", key_text, NEG_SECURITY, RANGE(1, TEXT_CHAP_MAX), NAME(chap_c)),
    KEY("HeaderDigest", key_digest, NEG_OPERATIONAL, PARAM(header_digest)),
    KEY("DataDigest", key_digest, NEG_OPERATIONAL, PARAM(data_digest)),
    KEY("InitiatorName", key_text, LOGIN, FIRST, RANGE(1, ISCSI_NAME_MAX), NAME(initiator_name)),
    KEY("TargetName", key_text, LOGIN, FIRST, RANGE(1, ISCSI_NAME_MAX), NAME(target_name)),
    KEY("SessionType", key_session_type, LOGIN, FIRST),
    KEY("InitiatorAlias", key_text, ANY, RANGE(0, TEXT_VALUE_MAX), NAME(initiator_alias)),
    KEY("SendTargets", key_send_targets, NEG_FULL, RANGE(0, ISCSI_NAME_MAX), NAME(send_targets)),
    KEY("MaxRecvDataSegmentLength", key_segment, ANY, RANGE(512, MAX_24BIT)),
    KEY("MaxConnections", key_min, NEG_OPERATIONAL, NORMAL, RANGE(1, 65535), .ours = 1,
        PARAM(max_connections)),
    KEY("InitialR2T", key_or, NEG_OPERATIONAL, NORMAL, .ours = 0, PARAM(initial_r2t)),
    KEY("ImmediateData", key_and, NEG_OPERATIONAL, NORMAL, .ours = 1, PARAM(immediate_data)),
    KEY("MaxBurstLength", key_min, NEG_OPERATIONAL, NORMAL, RANGE(512, MAX_24BIT), .ours = 1048576,
        PARAM(max_burst)),
    KEY("FirstBurstLength", key_first_burst, NEG_OPERATIONAL, NORMAL, RANGE(512, MAX_24BIT),
        .ours = 262144, PARAM(first_burst)),
    KEY("MaxOutstandingR2T", key_min, NEG_OPERATIONAL, NORMAL, RANGE(1, 65535),
        .ours = NEGOTIATE_MAX_R2TS, PARAM(max_outstanding_r2t)),
    KEY("DataPDUInOrder", key_or, NEG_OPERATIONAL, NORMAL, .ours = 1, PARAM(data_pdu_in_order)),
    KEY("DataSequenceInOrder", key_or, NEG_OPERATIONAL, NORMAL, .ours = 1,
        PARAM(data_sequence_in_order)),
    KEY("ErrorRecoveryLevel", key_min, NEG_OPERATIONAL, LEADING, RANGE(0, 2), .ours = 0,
        PARAM(error_recovery_level)),
    KEY("DefaultTime2Wait", key_max, NEG_OPERATIONAL, LEADING, RANGE(0, 3600), .ours = 2,
        PARAM(time2wait_s)),
    KEY("DefaultTime2Retain", key_min, NEG_OPERATIONAL, LEADING, RANGE(0, 3600), .ours = 0,
        PARAM(time2retain_s)),
    KEY("TaskReporting", key_task_reporting, NEG_OPERATIONAL, NORMAL),
    KEY("iSCSIProtocolLevel", key_min, NEG_OPERATIONAL, NORMAL, RANGE(0, 31), .ours = 1,
        PARAM(protocol_level)),
    /* Markers are gone since RFC 7143, but RFC 3720 initiators ask; nobody can refuse a No. */
    KEY("OFMarker", key_fixed, NEG_OPERATIONAL, .answer = "No"),
    KEY("IFMarker", key_fixed, NEG_OPERATIONAL, .answer = "No"),
    KEY("OFMarkInt", key_fixed, NEG_OPERATIONAL, .answer = "Irrelevant"),
    KEY("IFMarkInt", key_fixed, NEG_OPERATIONAL, .answer = "Irrelevant"),
    KEY("TargetAlias", key_not_yours, ANY),
    KEY("TargetAddress", key_not_yours, ANY),
    KEY("TargetPortalGroupTag", key_not_yours, ANY),
};
_Static_assert(ARRAY_LEN(keys) <= 64, "struct negotiation has 64 bits for keys seen");

void negotiation_init(struct negotiation *n)
{
    memset(n, 0, sizeof(*n));
    n->params = (struct iscsi_params){
        .initial_r2t = true,
        .immediate_data = true,
        .data_pdu_in_order = true,
        .data_sequence_in_order = true,
        .max_xmit_segment = ISCSI_LOGIN_SEGMENT,
        .first_burst = 65536,
        .max_burst = 262144,
        .max_outstanding_r2t = 1,
        .max_connections = 1,
        .time2wait_s = 2,
        .time2retain_s = 20,
    };
}

static const struct key_def *find_key(const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        if (!strcmp(keys[i].name, name))
            return &keys[i];
    }
    return NULL;
}

/* Answers to what we never offer: only a confused initiator sends them. 6.2 */
static bool is_answer_word(const char *value)
{
    return !strcmp(value, "NotUnderstood") || !strcmp(value, "Irrelevant") ||
           !strcmp(value, "Reject");
}

int negotiate_key(struct negotiation *n, enum neg_phase phase, const char *key, const char *value,
                  struct text_buf *out)
{
    const struct key_def *k = find_key(key);
    uint64_t bit;

    if (!k) {
        if (!is_answer_word(value))
            text_add(out, key, "NotUnderstood");
        return 0;
    }
    if (!(k->phases & phase)) {
        /* 6.4, 13: login keys are not for later, and not for the wrong stage */
        if (phase != NEG_FULL)
            return -EPROTO;
        text_add(out, key, "Reject");
        return 0;
    }
    bit = UINT64_C(1) << (k - keys);
    if (n->seen & bit) /* 6.2: no key twice in one negotiation */
        return -EPROTO;
    if (k->first && n->named) /* 13.3, 13.4, 13.21: what was checked stays so */
        return -EPROTO;
    n->seen |= bit;
    if (k->needs_normal && n->discovery) {
        text_add(out, key, "Irrelevant");
        return 0;
    }
    if (k->leading && n->joins) { /* 13: the session has its value */
        text_add(out, key, "Reject");
        return 0;
    }
    return k->take(n, k, value, out);
}

int negotiate_text(struct negotiation *n, enum neg_phase phase, char *text, size_t len,
                   struct text_buf *out)
{
    struct text_iter it = {text, len ? text + len : text};
    const char *key, *value, *first_burst = NULL;
    int rc;

    while ((rc = text_next(&it, &key, &value)) > 0) {
        if (!first_burst && !strcmp(key, "FirstBurstLength")) {
            first_burst = value;
            continue;
        }
        rc = negotiate_key(n, phase, key, value, out);
        if (rc)
            return rc;
    }
    return rc || !first_burst ? rc : negotiate_key(n, phase, "FirstBurstLength", first_burst, out);
}

void negotiate_declare(struct negotiation *n, struct text_buf *out)
{
    if (n->declared_segment)
        return;
    n->declared_segment = true;
    text_add_number(out, "MaxRecvDataSegmentLength", ISCSI_OUR_RECV_SEGMENT);
}
