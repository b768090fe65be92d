/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A load generator that is not the bottleneck: one raw iSCSI session, commands sent in batches,
 * responses taken as they come, no allocation per command. Prints one line of JSON. The options
 * are in client.c.
 */
#include "tests/bench/client.h"

#include <errno.h>
#include <isa-l/crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/byteorder.h"

#define BHS_BYTES 48
#define NO_TAG    0xffffffffu

enum { OP_NOP_OUT = 0x00, OP_SCSI = 0x01, OP_LOGIN = 0x03, OP_DATA_OUT = 0x05 };
enum {
    OP_NOP_IN = 0x20,
    OP_SCSI_RSP = 0x21,
    OP_LOGIN_RSP = 0x23,
    OP_DATA_IN = 0x25,
    OP_R2T = 0x31
};

/* What the target answered at login. */
static struct {
    uint32_t max_segment, first_burst, max_burst;
    bool immediate, header_digest, data_digest;
} neg = {.max_segment = 8192, .first_burst = 65536, .max_burst = 262144, .immediate = true};

static uint32_t cmdsn, maxcmdsn, expstatsn;
static uint32_t block_bytes;

static uint32_t crc32c(const void *p, size_t len)
{
    return ~crc32_iscsi((unsigned char *)p, (int)len, 0xffffffffu);
}

/* Little-endian, unlike all else (RFC 7143 13.1). */
static void put_digest(uint8_t *p, uint32_t crc)
{
    memcpy(p, &crc, 4);
}

/* ---- sending ----------------------------------------------------------------------- */

static uint8_t *tx_pdu(uint8_t opcode)
{
    uint8_t *h = client_tx(BHS_BYTES + (neg.header_digest ? 4 : 0));

    h[0] = opcode;
    return h;
}

/* Ends a PDU: its data and the digests. All data here is a multiple of four bytes. */
static void tx_end(uint8_t *h, const void *p, uint32_t len)
{
    put_be24(h + 5, len);
    if (neg.header_digest)
        put_digest(h + BHS_BYTES, crc32c(h, BHS_BYTES));
    if (!len)
        return;
    client_tx_data(p, len);
    if (neg.data_digest) {
        put_digest(h + BHS_BYTES + 4, crc32c(p, len));
        client_tx_data(h + BHS_BYTES + 4, 4);
    }
}

static void command(unsigned slot, enum client_verb verb, uint64_t offset, uint32_t bytes)
{
    static const uint8_t opcode[] = {0x88, 0x8a, 0x91};
    static const uint8_t flags[] = {0xc1, 0xa1, 0x81}; /* F, R or W, SIMPLE */
    uint8_t *h = tx_pdu(OP_SCSI);
    uint32_t n = 0;

    h[1] = flags[verb];
    h[9] = (uint8_t)client_opt.lun;
    put_be32(h + 16, slot);
    put_be32(h + 20, bytes);
    put_be32(h + 24, cmdsn++);
    put_be32(h + 28, expstatsn);
    h[32] = opcode[verb];
    put_be64(h + 34, offset / block_bytes);
    put_be32(h + 42, bytes / block_bytes);
    if (verb == CLIENT_WRITE && neg.immediate) {
        n = bytes < neg.max_segment ? bytes : neg.max_segment;
        n = n < neg.first_burst ? n : neg.first_burst;
    }
    tx_end(h, client_payload, n);
}

static void answer_r2t(const uint8_t *r)
{
    uint32_t offset = get_be32(r + 40), len = get_be32(r + 44), sn = 0;

    if (offset > client_opt.bytes || len > client_opt.bytes - offset)
        client_refuse("R2T for data that is not there");
    while (len) {
        uint32_t n = len < neg.max_segment ? len : neg.max_segment;
        uint8_t *h = tx_pdu(OP_DATA_OUT);

        h[1] = n == len ? 0x80 : 0;
        memcpy(h + 8, r + 8, 8);
        memcpy(h + 16, r + 16, 8);
        put_be32(h + 28, expstatsn);
        put_be32(h + 36, sn++);
        put_be32(h + 40, offset);
        tx_end(h, client_payload + offset, n);
        offset += n;
        len -= n;
    }
}

static void answer_ping(const uint8_t *p)
{
    uint8_t *h = tx_pdu(OP_NOP_OUT | 0x40);

    h[1] = 0x80;
    memcpy(h + 8, p + 8, 8);
    put_be32(h + 16, NO_TAG);
    memcpy(h + 20, p + 20, 4);
    put_be32(h + 24, cmdsn);
    put_be32(h + 28, expstatsn);
    tx_end(h, NULL, 0);
}

/* ---- receiving --------------------------------------------------------------------- */

static void take_pdu(const uint8_t *p)
{
    uint8_t op = p[0] & 0x3f;
    bool last = op == OP_SCSI_RSP || (op == OP_DATA_IN && (p[1] & 1));

    if (op != OP_DATA_IN || last) {
        if (op != OP_R2T)
            expstatsn = get_be32(p + 24) + 1;
        maxcmdsn = get_be32(p + 32);
    }
    if (last)
        client_done(get_be32(p + 16), p[3] != 0);
    else if (op == OP_R2T)
        answer_r2t(p);
    else if (op == OP_NOP_IN && get_be32(p + 20) != NO_TAG)
        answer_ping(p);
    else if (op != OP_DATA_IN && op != OP_NOP_IN)
        client_refuse("unexpected PDU");
}

static size_t take(uint8_t *p, size_t n)
{
    size_t hdr = BHS_BYTES, data;
    uint32_t crc;

    if (n < BHS_BYTES)
        return 0;
    hdr += p[4] * 4u;
    data = (get_be24(p + 5) + 3) & ~3u;
    if (n < hdr + (neg.header_digest ? 4 : 0) + data + (data && neg.data_digest ? 4 : 0))
        return 0;
    if (neg.header_digest) {
        memcpy(&crc, p + hdr, 4);
        if (crc != crc32c(p, hdr))
            client_refuse("a header digest is wrong");
        hdr += 4;
    }
    if (neg.data_digest && data) {
        memcpy(&crc, p + hdr + data, 4);
        if (crc != crc32c(p + hdr, data))
            client_refuse("a data digest is wrong");
        data += 4;
    }
    take_pdu(p);
    return hdr + data;
}

static bool window(void)
{
    return (int32_t)(maxcmdsn - cmdsn) >= 0;
}

/* ---- set-up ------------------------------------------------------------------------ */

static uint32_t read_pdu(uint8_t *hdr, uint8_t *data, size_t max)
{
    uint32_t len;

    client_read_all(hdr, BHS_BYTES);
    if (neg.header_digest)
        client_skip(4);
    len = get_be24(hdr + 5);
    if (len + 4 > max)
        client_refuse("answer is too long");
    client_read_all(data, (len + 3) & ~3u);
    if (neg.data_digest && len)
        client_skip(4);
    return len;
}

static void take_key(const char *kv)
{
    const char *eq = strchr(kv, '=');
    uint32_t v;

    if (!eq)
        return;
    v = (uint32_t)strtoul(eq + 1, NULL, 10);
    if (!strncmp(kv, "MaxRecvDataSegmentLength=", 25))
        neg.max_segment = v;
    else if (!strncmp(kv, "FirstBurstLength=", 17))
        neg.first_burst = v;
    else if (!strncmp(kv, "MaxBurstLength=", 15))
        neg.max_burst = v;
    else if (!strncmp(kv, "ImmediateData=", 14))
        neg.immediate = eq[1] == 'Y';
}

static bool has_digest(const char *data, size_t len, const char *key)
{
    for (size_t i = 0; i < len; i += strlen(data + i) + 1) {
        if (!strncmp(data + i, key, strlen(key)))
            return !strcmp(data + i + strlen(key), "=CRC32C");
    }
    return false;
}

/* The digests hold from full feature phase on: not yet for the answer that agrees on them. */
static void login_step(uint8_t flags, const char *text, size_t len)
{
    uint8_t h[BHS_BYTES] = {OP_LOGIN | 0x40, flags}, data[8192] = {0};
    static const uint8_t isid[6] = {0x80, 0, 0, 0x10, 0, 1};

    put_be24(h + 5, (uint32_t)len);
    memcpy(h + 8, isid, 6);
    put_be32(h + 28, expstatsn);
    memcpy(data, text, len);
    client_send_all(h, BHS_BYTES);
    client_send_all(data, (len + 3) & ~3u);
    len = read_pdu(h, data, sizeof(data));
    if ((h[0] & 0x3f) != OP_LOGIN_RSP || h[36])
        client_refuse("login refused");
    expstatsn = get_be32(h + 24) + 1;
    cmdsn = get_be32(h + 28);
    maxcmdsn = get_be32(h + 32);
    data[len] = 0;
    for (size_t i = 0; i < len; i += strlen((char *)data + i) + 1)
        take_key((char *)data + i);
    neg.header_digest = has_digest((char *)data, len, "HeaderDigest");
    neg.data_digest = has_digest((char *)data, len, "DataDigest");
    if ((flags & 3) == 3 && client_opt.digests && !(neg.header_digest && neg.data_digest))
        client_refuse("the target does not agree on digests");
}

/* Built with %c: keys end with NUL. */
static size_t put_text(char *text, size_t size, const char *name, const char *digest)
{
    return (size_t)snprintf(text, size,
                            "InitiatorName=iqn.2026-11.com.example:load%cSessionType=Normal%c"
                            "TargetName=%s%cAuthMethod=None%cHeaderDigest=%s%cDataDigest=%s%c",
                            0, 0, name, 0, 0, digest, 0, digest, 0);
}

static void login_phases(void)
{
    const char *digest = client_opt.digests ? "CRC32C" : "None";
    char text[2048];
    static const char keys[] =
        "InitialR2T=Yes\0ImmediateData=Yes\0"
        "MaxRecvDataSegmentLength=262144\0MaxBurstLength=1048576\0FirstBurstLength=262144\0"
        "MaxConnections=1\0MaxOutstandingR2T=1\0ErrorRecoveryLevel=0\0DefaultTime2Wait=0\0"
        "DefaultTime2Retain=0\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes";
    size_t all = put_text(text, sizeof(text), client_opt.name, digest), security = 0;

    for (int i = 0; i < 4; i++)
        security += strlen(text + security) + 1;
    login_step(0x81, text, security); /* security -> operational */
    memmove(text, text + security, all - security);
    memcpy(text + all - security, keys, sizeof(keys));
    login_step(0x87, text, all - security + sizeof(keys)); /* operational -> full feature */
}

/* One command at a time, before the load: data-in into @buf. False: CHECK CONDITION. */
static bool simple_command(const uint8_t *cdb, unsigned cdb_len, void *buf, uint32_t len)
{
    uint8_t h[BHS_BYTES + 4] = {OP_SCSI, 0xc1}, data[8192];
    uint32_t n;

    h[9] = (uint8_t)client_opt.lun;
    put_be32(h + 20, len);
    put_be32(h + 24, cmdsn++);
    put_be32(h + 28, expstatsn);
    memcpy(h + 32, cdb, cdb_len);
    put_digest(h + BHS_BYTES, crc32c(h, BHS_BYTES));
    client_send_all(h, BHS_BYTES + (neg.header_digest ? 4 : 0));
    for (;;) {
        n = read_pdu(h, data, sizeof(data));
        if ((h[0] & 0x3f) == OP_DATA_IN)
            memcpy(buf, data, n < len ? n : len);
        if ((h[0] & 0x3f) == OP_SCSI_RSP || ((h[0] & 0x3f) == OP_DATA_IN && (h[1] & 1)))
            break;
    }
    expstatsn = get_be32(h + 24) + 1;
    maxcmdsn = get_be32(h + 32);
    return h[3] == 0;
}

static uint64_t login(void)
{
    uint8_t cdb[16] = {0x9e, 0x10}, data[32] = {0}, tur[6] = {0};

    login_phases();
    cdb[13] = sizeof(data);
    for (int i = 0; i < 8 && !simple_command(tur, 6, data, 0); i++)
        ; /* unit attentions */
    if (!simple_command(cdb, 16, data, sizeof(data)))
        client_refuse("READ CAPACITY(16) failed");
    block_bytes = get_be32(data + 8);
    if (!block_bytes || client_opt.bytes % block_bytes || client_opt.offset % block_bytes)
        client_refuse("the LUN does not fit this block size");
    return (get_be64(data) + 1) * block_bytes;
}

int main(int argc, char **argv)
{
    static const struct client_protocol iscsi = {"iscsi", login, window, command, take};

    return client_main(argc, argv, &iscsi);
}
