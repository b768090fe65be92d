/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading a target's chain by stock commands, LUN after LUN, over one session. When the topology
 * changes in between it is read anew, a bounded number of times.
 */
#define LOG_AREA "discovery"
#include "discovery/chain-reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "discovery/chain-join.h"
#include "lun-backends/iscsi-lun.h"
#include "util/byteorder.h"
#include "util/log.h"
#include "util/size.h"

#define MAX_READS         3
#define REPORT_LUNS_BYTES (8 + 8 * CHAIN_READER_MAX_LUNS)

/* SPC-4 6.33 */
static int co_report_luns(struct iscsi_conn *conn, uint16_t *luns, struct error *err)
{
    uint8_t cdb[12] = {0xa0}, key, *buf = malloc(REPORT_LUNS_BYTES);
    uint16_t ascq;
    uint32_t got;

    if (!buf)
        return error_set(err, ENOMEM, "no memory to read the chain");
    put_be32(cdb + 6, REPORT_LUNS_BYTES);
    int ret =
        co_iscsi_command(conn, 0, cdb, sizeof(cdb), buf, REPORT_LUNS_BYTES, &got, &key, &ascq);

    if (ret == -EREMOTEIO)
        error_set(err, EREMOTEIO, "REPORT LUNS: sense %xh/%04xh", key, ascq);
    else if (ret)
        error_set(err, -ret, "REPORT LUNS: %s",
                  ret == -EHOSTDOWN ? "the session is lost" : strerror(-ret));
    if (!ret)
        ret = report_luns_decode(buf, got, luns, CHAIN_READER_MAX_LUNS);
    if (ret == -E2BIG)
        error_set(err, E2BIG, "the target has more than %d LUNs", CHAIN_READER_MAX_LUNS);
    else if (ret == -EINVAL)
        error_set(err, EPROTO, "the target's answer to REPORT LUNS makes no sense");
    free(buf);
    return ret;
}

static void take_lun(struct found_lun *l, const struct lun_info *info)
{
    _Static_assert(sizeof(l->vendor) == sizeof(info->vendor), "one layout");
    _Static_assert(sizeof(l->product) == sizeof(info->product), "one layout");
    l->is_disk = info->connected && info->device_type == 0;
    l->size_bytes = info->blocks * info->block_bytes;
    l->block_bytes = info->block_bytes;
    memcpy(l->vendor, info->vendor, sizeof(l->vendor));
    memcpy(l->product, info->product, sizeof(l->product));
    l->has_cowl = info->has_cowl;
    l->cowl = info->cowl;
}

static int co_read_luns(struct iscsi_conn *conn, struct found_chain *out, struct error *err)
{
    uint16_t numbers[CHAIN_READER_MAX_LUNS];
    int n = co_report_luns(conn, numbers, err);

    if (n < 0)
        return n;
    out->luns = calloc((size_t)MAX_OF(n, 1), sizeof(*out->luns));
    if (!out->luns)
        return error_set(err, ENOMEM, "no memory to read the chain");
    for (int i = 0; i < n; i++) {
        struct lun_info info;
        struct error lun_err = ERROR_INIT;
        int ret = co_lun_info(conn, numbers[i], &info, &lun_err);

        /* One that can't be served right (not ready, odd blocks) does not spoil the others. */
        if (ret == -EREMOTEIO || ret == -ENOTSUP || ret == -EPROTO) {
            log_notice("%s: left out", lun_err.msg);
            continue;
        }
        if (ret) {
            *err = lun_err;
            return ret;
        }
        out->luns[out->nr_luns].number = numbers[i];
        take_lun(&out->luns[out->nr_luns++], &info);
    }
    return 0;
}

int co_chain_read(struct iscsi_conn *conn, struct found_chain *out, struct error *err)
{
    int ret;

    for (int i = 0;; i++) {
        memset(out, 0, sizeof(*out));
        ret = co_read_luns(conn, out, err);
        if (!ret)
            ret = found_chain_check(out, err);
        if (ret)
            found_chain_free(out);
        if (ret != -EAGAIN || i + 1 == MAX_READS)
            return ret;
    }
}

void found_chain_free(struct found_chain *c)
{
    free(c->luns);
    memset(c, 0, sizeof(*c));
}
