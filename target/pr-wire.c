/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The parameter list of PERSISTENT RESERVE OUT (SPC-4 6.14) and the parameter data of PERSISTENT
 * RESERVE IN (6.13), with iSCSI TransportIDs (7.6.4.6): bytes of others are bounded here.
 */
#include "target/pr.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "util/byteorder.h"
#include "util/size.h"

#define PROTO_ISCSI      5
#define TID_HDR_BYTES    4
#define TID_MIN_BYTES    24
#define TID_OF_DEVICE    0 /* FORMAT CODE */
#define TID_WITH_ISID    1
#define ISID_SEPARATOR   ",i,0x"
#define ISID_HEX_DIGITS  12
#define FULL_DESC_BYTES  24
#define SPEC_LIST_OFFSET 28 /* of the TransportIDs after SPEC_I_PT */
#define MOVE_TID_OFFSET  24

/* ---- TransportIDs ---- */

static bool parse_isid(const char *hex, uint8_t isid[6])
{
    size_t n = strlen(hex);

    if (!n || n > ISID_HEX_DIGITS)
        return false;
    memset(isid, 0, 6);
    for (size_t i = 0; i < n; i++) {
        unsigned char ch = (unsigned char)hex[n - 1 - i];
        uint8_t digit;

        if (!isxdigit(ch))
            return false;
        digit = (uint8_t)(isdigit(ch) ? ch - '0' : tolower(ch) - 'a' + 10);
        isid[5 - i / 2] |= (uint8_t)(i % 2 ? digit << 4 : digit);
    }
    return true;
}

/* Returns the TransportID's bytes, 0 if it is none of ours. *@whole_device: it has no ISID. */
static uint32_t parse_transport_id(const uint8_t *b, uint32_t room, struct pr_port *port,
                                   bool *whole_device)
{
    char text[ISCSI_NAME_MAX + sizeof(ISID_SEPARATOR) + ISID_HEX_DIGITS];
    uint32_t len;
    char *sep;

    if (room < TID_MIN_BYTES || (b[0] & 0x3f) != PROTO_ISCSI || b[0] >> 6 > TID_WITH_ISID)
        return 0;
    *whole_device = b[0] >> 6 == TID_OF_DEVICE;
    len = TID_HDR_BYTES + get_be16(b + 2);
    if (len > room || len < TID_MIN_BYTES || len % 4 ||
        !memchr(b + TID_HDR_BYTES, 0, len - TID_HDR_BYTES))
        return 0;
    if ((size_t)snprintf(text, sizeof(text), "%s", (const char *)b + TID_HDR_BYTES) >= sizeof(text))
        return 0;
    sep = strstr(text, ISID_SEPARATOR);
    if (!sep == !*whole_device)
        return 0;
    memset(port, 0, sizeof(*port));
    if (sep && !parse_isid(sep + strlen(ISID_SEPARATOR), port->isid))
        return 0;
    if (sep)
        *sep = '\0';
    if (!*text || strlen(text) > ISCSI_NAME_MAX)
        return 0;
    memcpy(port->name, text, strlen(text));
    return len;
}

static size_t put_transport_id(const struct pr_port *port, uint8_t *b)
{
    const uint8_t *i = port->isid;
    int n = snprintf((char *)b + TID_HDR_BYTES, ISCSI_NAME_MAX + 18,
                     "%s" ISID_SEPARATOR "%02x%02x%02x%02x%02x%02x", port->name, i[0], i[1], i[2],
                     i[3], i[4], i[5]);
    size_t len = MAX_OF(round_up_pow2((uint64_t)n + 1, 4), TID_MIN_BYTES - TID_HDR_BYTES);

    b[0] = TID_WITH_ISID << 6 | PROTO_ISCSI;
    put_be16(b + 2, (uint16_t)len);
    return TID_HDR_BYTES + len;
}

/* ---- PERSISTENT RESERVE OUT ---- */

static enum pr_parse parse_spec_i_pt(const uint8_t *list, uint32_t len, struct pr_request *rq,
                                     struct pr_port *others, uint16_t *field)
{
    uint32_t at = SPEC_LIST_OFFSET, n;

    if (len < SPEC_LIST_OFFSET || get_be32(list + 24) != len - SPEC_LIST_OFFSET)
        return PR_BAD_LENGTH;
    rq->spec_i_pt = true;
    for (; at < len; at += n) {
        bool whole_device;

        *field = (uint16_t)at;
        if (rq->nr_others == PR_MAX_OTHER_PORTS)
            return PR_BAD_FIELD;
        n = parse_transport_id(list + at, len - at, &others[rq->nr_others], &whole_device);
        if (!n)
            return PR_BAD_FIELD;
        rq->whole_devices |= (uint32_t)whole_device << rq->nr_others++;
    }
    return PR_PARSED;
}

static enum pr_parse parse_basic(const uint8_t *list, uint32_t len, struct pr_request *rq,
                                 struct pr_port *others, uint16_t *field)
{
    bool spec_i_pt = list[20] & 0x08;
    bool registers = rq->action == PR_REGISTER || rq->action == PR_REGISTER_AND_IGNORE;

    if (registers) {
        rq->aptpl = list[20] & 0x01;
        rq->all_ports = list[20] & 0x04;
    }
    if (spec_i_pt && rq->action == PR_REGISTER)
        return parse_spec_i_pt(list, len, rq, others, field);
    *field = 20;
    if (spec_i_pt && registers)
        return PR_BAD_FIELD;
    return len == PR_OUT_BYTES ? PR_PARSED : PR_BAD_LENGTH;
}

static enum pr_parse parse_move(const uint8_t *list, uint32_t len, struct pr_request *rq,
                                struct pr_port *others, uint16_t *field)
{
    bool whole_device = false;

    rq->unregister = list[17] & 0x02;
    rq->aptpl = list[17] & 0x01;
    if (get_be32(list + 20) != len - MOVE_TID_OFFSET)
        return PR_BAD_LENGTH;
    *field = MOVE_TID_OFFSET;
    if (parse_transport_id(list + MOVE_TID_OFFSET, len - MOVE_TID_OFFSET, others, &whole_device) !=
            len - MOVE_TID_OFFSET ||
        whole_device) /* 6.14.4: to one port */
        return PR_BAD_FIELD;
    others->rel_port = get_be16(list + 18);
    rq->nr_others = 1;
    return len > MOVE_TID_OFFSET ? PR_PARSED : PR_BAD_FIELD;
}

enum pr_parse pr_parse_out(const uint8_t *list, uint32_t len, struct pr_request *rq,
                           struct pr_port *others, uint16_t *field)
{
    rq->nr_others = 0;
    rq->spec_i_pt = false;
    rq->whole_devices = 0;
    rq->others = others;
    *field = 0;
    if (len < PR_OUT_BYTES)
        return PR_BAD_LENGTH;
    rq->key = get_be64(list);
    rq->action_key = get_be64(list + 8);
    if (rq->action == PR_REGISTER_AND_MOVE)
        return parse_move(list, len, rq, others, field);
    return parse_basic(list, len, rq, others, field);
}

/* ---- PERSISTENT RESERVE IN ---- */

static size_t put_header(const struct pr *pr, uint8_t *b, size_t additional)
{
    put_be32(b, pr->generation);
    put_be32(b + 4, (uint32_t)additional);
    return 8 + additional;
}

size_t pr_put_keys(const struct pr *pr, uint8_t *b)
{
    for (unsigned i = 0; i < pr->nr; i++)
        put_be64(b + 8 + 8 * i, pr->regs[i].key);
    return put_header(pr, b, 8 * pr->nr);
}

/* The key of a shared reservation is 0. */
size_t pr_put_reservation(const struct pr *pr, uint8_t *b)
{
    if (!pr->type)
        return put_header(pr, b, 0);
    for (unsigned i = 0; i < pr->nr; i++) {
        if (pr->regs[i].holder)
            put_be64(b + 8, pr->regs[i].key);
    }
    b[21] = pr->type; /* SCOPE 0: the logical unit */
    return put_header(pr, b, 16);
}

size_t pr_put_capabilities(const struct pr *pr, uint8_t *b, bool can_save)
{
    put_be16(b, 8);
    b[2] = 0x10 | 0x08 | 0x04; /* CRH, SIP_C, ATP_C */
    b[3] = 0x80;               /* TMV; ALLOW COMMANDS: nothing told */
    if (can_save)
        b[2] |= 0x01; /* PTPL_C */
    if (pr->aptpl)
        b[3] |= 0x01; /* PTPL_A */
    b[4] = 0x80 | 0x40 | 0x20 | 0x08 | 0x02;
    b[5] = 0x01;
    return 8;
}

size_t pr_put_full_status(const struct pr *pr, uint8_t *b)
{
    size_t n = 8;

    for (unsigned i = 0; i < pr->nr; i++) {
        const struct pr_registration *reg = &pr->regs[i];
        uint8_t *d = b + n;
        size_t tid = put_transport_id(&reg->port, d + FULL_DESC_BYTES);

        put_be64(d, reg->key);
        if (pr_is_holder(pr, reg)) {
            d[12] = 0x01; /* R_HOLDER */
            d[13] = pr->type;
        }
        put_be16(d + 18, reg->port.rel_port);
        put_be32(d + 20, (uint32_t)tid);
        n += FULL_DESC_BYTES + tid;
    }
    return put_header(pr, b, n - 8);
}
