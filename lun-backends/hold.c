/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See hold.h. REGISTER AND IGNORE EXISTING KEY does the same however often it is sent. A target
 * that counts every session as another port still lists the key after an unregistration: then
 * the key is registered once more and preempted by itself, which removes all that have it.
 */
#include "lun-backends/hold.h"

#include <errno.h>
#include <string.h>

#include "util/byteorder.h"

#define HOLD_TIMEOUT_NS UINT64_C(5000000000)
#define PR_IN           0x5e
#define PR_OUT          0x5f
#define PR_PARAM_BYTES  24 /* SPC-4 table 209 */
#define PR_APTPL        0x01
#define KEYS_BYTES      8192 /* 1023 keys */
#define KEY_ILLEGAL     5

enum { ACT_PREEMPT = 4, ACT_REGISTER_AND_IGNORE = 6 };
#define TYPE_WRITE_EXCLUSIVE 1

int co_hold_open(const struct hold_opts *opts, struct iscsi_conn **conn, struct error *err)
{
    struct iscsi_conn_opts co = {
        .host = opts->url.host,
        .port = opts->url.port,
        .target = opts->url.target,
        .initiator = opts->initiator,
        .user = *opts->url.user ? opts->url.user : NULL,
        .secret = *opts->url.user ? opts->secret : NULL,
        .digests = opts->digests,
        .isid = opts->key & UINT64_C(0xffffffffff),
        .timeout_ns = HOLD_TIMEOUT_NS,
    };

    return co_iscsi_connect(&co, conn, err);
}

struct sense {
    uint8_t key;
    uint16_t ascq;
};

/* SPC-4 6.14 */
static int co_pr_out(struct iscsi_conn *conn, uint16_t lun, uint8_t action, uint64_t key,
                     uint64_t action_key, bool aptpl, struct sense *sense)
{
    uint8_t type = action == ACT_PREEMPT ? TYPE_WRITE_EXCLUSIVE : 0;
    uint8_t cdb[10] = {PR_OUT, action, type, [8] = PR_PARAM_BYTES};
    uint8_t param[PR_PARAM_BYTES] = {0};

    put_be64(param, key);
    put_be64(param + 8, action_key);
    param[20] = aptpl ? PR_APTPL : 0;
    return co_iscsi_command_out(conn, lun, cdb, sizeof(cdb), param, sizeof(param), &sense->key,
                                &sense->ascq);
}

static bool try_later(int ret)
{
    return ret == -EHOSTDOWN || ret == -EAGAIN;
}

static int refused(struct error *err, uint16_t lun, const char *what, int ret,
                   const struct sense *sense)
{
    if (ret == -EREMOTEIO)
        return error_set(err, EREMOTEIO, "LUN %u: %s is refused with sense %x/%02x/%02x", lun, what,
                         sense->key, sense->ascq >> 8, sense->ascq & 0xff);
    return error_set(err, -ret, "LUN %u: %s: %s", lun, what,
                     ret == -EIO ? "reservation conflict" : strerror(-ret));
}

int co_hold_take(struct iscsi_conn *conn, uint16_t lun, uint64_t key, bool *lasting,
                 struct error *err)
{
    struct sense sense = {0};
    int ret = co_pr_out(conn, lun, ACT_REGISTER_AND_IGNORE, 0, key, true, &sense);

    *lasting = ret == 0;
    if (ret == -EREMOTEIO && sense.key == KEY_ILLEGAL)
        ret = co_pr_out(conn, lun, ACT_REGISTER_AND_IGNORE, 0, key, false, &sense);
    return ret ? refused(err, lun, "a registration", ret, &sense) : 0;
}

bool hold_key_listed(const uint8_t *buf, size_t len, uint64_t key)
{
    size_t end = len < 8 ? 0 : 8 + (size_t)get_be32(buf + 4);

    for (size_t pos = 8; pos + 8 <= end && pos + 8 <= len; pos += 8) {
        if (get_be64(buf + pos) == key)
            return true;
    }
    return false;
}

/* A target that can't list keys has none. */
static int co_is_listed(struct iscsi_conn *conn, uint16_t lun, uint64_t key, bool *listed)
{
    static const uint8_t cdb[10] = {PR_IN, [7] = KEYS_BYTES >> 8, [8] = KEYS_BYTES & 0xff};
    uint8_t buf[KEYS_BYTES];
    struct sense sense;
    uint32_t got = 0;
    int ret = co_iscsi_command(conn, lun, cdb, sizeof(cdb), buf, sizeof(buf), &got, &sense.key,
                               &sense.ascq);

    *listed = ret == 0 && hold_key_listed(buf, got, key);
    return try_later(ret) ? ret : 0;
}

static int co_preempt_itself(struct iscsi_conn *conn, uint16_t lun, uint64_t key,
                             struct sense *sense)
{
    int ret = co_pr_out(conn, lun, ACT_REGISTER_AND_IGNORE, 0, key, false, sense);

    if (!ret)
        ret = co_pr_out(conn, lun, ACT_PREEMPT, key, key, false, sense);
    if (try_later(ret))
        return ret;
    /* Some leave the sender's own; what counts is what is listed in the end. */
    ret = co_pr_out(conn, lun, ACT_REGISTER_AND_IGNORE, 0, 0, false, sense);
    return ret;
}

int co_hold_release(struct iscsi_conn *conn, uint16_t lun, uint64_t key, struct error *err)
{
    struct sense sense = {0};
    bool listed = false;
    int ret = co_pr_out(conn, lun, ACT_REGISTER_AND_IGNORE, 0, 0, true, &sense);

    if (ret == -EREMOTEIO && sense.key == KEY_ILLEGAL)
        ret = co_pr_out(conn, lun, ACT_REGISTER_AND_IGNORE, 0, 0, false, &sense);
    if (!ret)
        ret = co_is_listed(conn, lun, key, &listed);
    if (!ret && listed)
        ret = co_preempt_itself(conn, lun, key, &sense);
    if (!ret && listed)
        ret = co_is_listed(conn, lun, key, &listed);
    if (!ret && listed)
        return error_set(err, EBUSY, "LUN %u: the source goes on listing the key", lun);
    return ret ? refused(err, lun, "an unregistration", ret, &sense) : 0;
}
