/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The remote node's sessions: each has a connector, a coroutine that runs while the session is
 * wanted and not up. A session is up only after the LUN behind it was found to be the same one
 * as before. The node is up when its demand session is.
 */
#define LOG_AREA "remote"
#include "lun-backends/remote-int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "util/log.h"
#include "util/size.h"

#define MS_NS             1000000ull
#define BACKOFF_FIRST_NS  (100 * MS_NS)
#define BACKOFF_MAX_NS    (5000 * MS_NS)
#define WRONG_IDENTITY_NS (10000 * MS_NS)
#define STABLE_NS         (10000 * MS_NS) /* a session lost sooner is flapping */
#define MAX_CHUNK_BYTES   (4u << 20)      /* targets' work is by command, too */
#define SAFE_CHUNK_BYTES  (1u << 20)      /* where a target says nothing of limits */

static void describe(const struct remote_identity *id, char *buf, size_t len)
{
    char text[2 * LUN_DESIGNATOR_BYTES + 1];

    if (id->has_cowl) {
        char uuid[UUID_STRLEN];

        uuid_to_text(&id->layer_uuid, uuid);
        snprintf(buf, len, "layer %s of %" PRIu64 " bytes", uuid, id->size_bytes);
        return;
    }
    for (unsigned i = 0; i < sizeof(id->naa); i++)
        snprintf(text + (size_t)2 * i, 3, "%02x", id->naa[i]);
    snprintf(buf, len, "designator %s, %" PRIu64 " bytes", text, id->size_bytes);
}

static bool naa_known(const struct remote_identity *id)
{
    static const uint8_t none[sizeof(id->naa)];

    return memcmp(id->naa, none, sizeof(none)) != 0;
}

static bool same_disk(const struct remote_identity *want, const struct remote_identity *is)
{
    if (want->size_bytes != is->size_bytes)
        return false;
    if (want->has_cowl)
        return is->has_cowl && uuid_equal(&want->layer_uuid, &is->layer_uuid);
    return !naa_known(want) || !memcmp(want->naa, is->naa, sizeof(is->naa));
}

static int check_identity(struct remote *r, const struct lun_info *info, struct error *err)
{
    struct remote_identity is = {
        .has_cowl = info->has_cowl,
        .size_bytes = info->blocks * info->block_bytes,
    };

    if (info->has_cowl) {
        is.layer_uuid = info->cowl.layer_uuid;
        is.unsealed = !(info->cowl.flags & COWL_SEALED);
    }
    memcpy(is.naa, info->designator, sizeof(is.naa));
    if (r->id.size_bytes && !same_disk(&r->id, &is)) {
        char want[128], found[128];

        describe(&r->id, want, sizeof(want));
        describe(&is, found, sizeof(found));
        return error_set(err, ESTALE, "%s is another disk now: expected %s, found %s",
                         r->node.filename, want, found);
    }
    /* Readers keep to the alignment that the node was opened with. */
    if (r->node.size_bytes && info->block_bytes > r->node.limits.align_bytes)
        return error_set(err, ESTALE, "%s has blocks of %u bytes now, more than at first",
                         r->node.filename, info->block_bytes);
    if (!r->id.size_bytes)
        r->id = is;
    return 0;
}

static void take_geometry(struct remote *r, const struct lun_info *info)
{
    uint64_t most = info->has_limits ? MAX_CHUNK_BYTES : SAFE_CHUNK_BYTES;
    uint64_t max = (uint64_t)info->max_transfer_blocks * info->block_bytes;

    r->block_bytes = info->block_bytes;
    r->blocks = info->blocks;
    r->max_chunk_bytes = (uint32_t)(max ? MIN_OF(max, most) : most);
    /* A delta or image view has other extents than the layer it is a view of. */
    r->ask_layer_status = info->has_cowl && info->cowl.view != COWL_VIEW_IMAGE;
    r->ask_lba_status = info->lbpme && info->lbprz;
}

static void announce(struct deferred *d)
{
    struct remote *r = container_of(d, struct remote, notify);

    if (r->announced_up == r->demand.up)
        return;
    r->announced_up = r->demand.up;
    blk_node_notify(&r->node, r->demand.up ? BLK_EV_SOURCE_UP : BLK_EV_SOURCE_DOWN);
}

static void note_error(struct remote *r, const char *text)
{
    snprintf(r->last_error, sizeof(r->last_error), "%s", text);
}

/* Commands under way have failed before this is called. */
static void session_lost(struct iscsi_conn *conn, const char *why, void *opaque)
{
    struct remote_session *s = opaque;
    struct remote *r = s->remote;
    bool demand = s == &r->demand;

    if (!s->up)
        return; /* the connector finds out by itself */
    s->up = false;
    s->conn = NULL;
    iscsi_conn_abandon(conn);
    s->flapping = now_ns() - s->up_since_ns < STABLE_NS;
    if (!s->flapping)
        s->backoff_ns = BACKOFF_FIRST_NS;
    note_error(r, why);
    log_at(demand ? LOG_LVL_WARNING : LOG_LVL_INFO, "%s: %s session lost: %s", r->node.filename,
           s->name, why);
    if (!demand)
        return; /* connected again by the next bulk request */
    r->down_since_ns = now_ns();
    loop_defer(&r->notify, LOOP_END);
    remote_start_connector(s);
}

static int co_identify_lun(struct remote_session *s, int lun, struct lun_info *info,
                           struct error *err)
{
    int ret = co_lun_info(s->conn, lun, info, err);

    if (ret)
        return ret;
    if (!info->connected || info->device_type != 0)
        return error_set(err, ENODEV, "LUN %d is not a disk", lun);
    return check_identity(s->remote, info, err);
}

static bool is_flat_disk(const struct lun_info *info)
{
    return info->connected && info->device_type == 0 && info->has_cowl &&
           info->cowl.view == COWL_VIEW_FLAT;
}

/* A snapshot at the source puts another disk under LUN 0; the one that was there has its own. */
static int co_find_lun(struct remote_session *s, int *lun, struct lun_info *info, struct error *err)
{
    struct remote *r = s->remote;
    struct error other_err = ERROR_INIT;
    int ret;

    *lun = r->opts.url.lun;
    ret = co_identify_lun(s, *lun, info, err);
    if (ret != -ESTALE || r->other_lun < 0 || co_identify_lun(s, r->other_lun, info, &other_err) ||
        !is_flat_disk(info))
        return ret;
    *lun = r->other_lun;
    return 0;
}

/*
 * An unsealed layer has another UUID when its host has opened it anew. Its own LUN is given to no
 * other layer of the chain, so what is there is what was pulled, if it still is that chain, which
 * the designator of the disk tells. True: the UUID of now is what is expected from here on.
 */
static bool co_adopt_uuid(struct remote_session *s)
{
    struct remote *r = s->remote;
    struct error ignored = ERROR_INIT;
    struct lun_info disk, own;

    if (!r->id.unsealed || r->other_lun < 0 || !naa_known(&r->id) ||
        co_lun_info(s->conn, r->opts.url.lun, &disk, &ignored) ||
        co_lun_info(s->conn, r->other_lun, &own, &ignored))
        return false;
    if (memcmp(disk.designator, r->id.naa, sizeof(r->id.naa)) || !is_flat_disk(&own) ||
        own.blocks * own.block_bytes != r->id.size_bytes)
        return false;
    log_notice("%s: its host has opened it anew: taken as quiesced still", r->node.filename);
    r->id.layer_uuid = own.cowl.layer_uuid;
    return true;
}

static int co_identify(struct remote_session *s, struct error *err)
{
    struct remote *r = s->remote;
    struct lun_info info;
    int lun, ret = co_find_lun(s, &lun, &info, err);

    if (ret == -ESTALE && co_adopt_uuid(s))
        ret = co_find_lun(s, &lun, &info, err);
    if (ret)
        return ret;
    if (s == &r->demand)
        take_geometry(r, &info);
    else if (lun != r->lun)
        return error_set(err, ESTALE, "%s: the disk has another LUN in each session",
                         r->node.filename);
    if (lun != r->lun)
        log_notice("%s: the disk is LUN %d of the target now", r->node.filename, lun);
    r->lun = lun;
    return 0;
}

int co_remote_session_open(struct remote_session *s, struct error *err)
{
    struct remote *r = s->remote;
    const struct iscsi_url *url = &r->opts.url;
    struct iscsi_conn_opts co = {
        .host = url->host,
        .port = url->port,
        .target = url->target,
        .initiator = r->opts.initiator,
        .user = url->user[0] ? url->user : NULL,
        .secret = r->opts.secret,
        .digests = r->opts.digests,
        .on_down = session_lost,
        .opaque = s,
    };
    int ret = co_iscsi_connect(&co, &s->conn, err);

    if (ret)
        return ret;
    ret = co_identify(s, err);
    if (ret || r->closing) {
        struct iscsi_conn *conn = s->conn;

        s->conn = NULL;
        co_iscsi_close(conn);
        return ret ? ret : error_set(err, ECANCELED, "the node is being closed");
    }
    s->up = true;
    s->up_since_ns = now_ns();
    if (s == &r->demand) {
        r->down_since_ns = 0;
        r->last_error[0] = '\0';
        r->told_wrong_identity = false;
        loop_defer(&r->notify, LOOP_END);
    }
    return 0;
}

static void on_nap_over(struct ev_loop *ev, struct ev_timer *t, int revents)
{
    struct remote_session *s = t->data;
    struct coroutine *co = s->sleeper;

    (void)ev;
    (void)revents;
    s->sleeper = NULL;
    co_enter(co);
}

static void co_nap(struct remote_session *s, uint64_t ns)
{
    ev_now_update(loop_ev());
    ev_timer_set(&s->timer, (double)ns / 1e9, 0);
    ev_timer_start(loop_ev(), &s->timer);
    s->sleeper = co_self();
    co_yield ();
}

static void end_nap(struct remote_session *s)
{
    if (!s->sleeper)
        return;
    ev_timer_stop(loop_ev(), &s->timer);
    co_wake(s->sleeper);
    s->sleeper = NULL;
}

/* 75 to 125 %, so that many who lost one source don't come back in step. */
static uint64_t with_jitter(uint64_t ns)
{
    uint8_t random = 128;

    if (getrandom(&random, 1, GRND_NONBLOCK) != 1)
        random = (uint8_t)now_ns();
    return ns * 3 / 4 + ns / 512 * random;
}

static uint64_t next_delay(struct remote_session *s, int ret)
{
    uint64_t delay = s->backoff_ns;

    s->backoff_ns = MIN_OF(delay * 2, BACKOFF_MAX_NS);
    return with_jitter(ret == -ESTALE ? WRONG_IDENTITY_NS : delay);
}

static void attempt_failed(struct remote_session *s, int ret, const struct error *err)
{
    struct remote *r = s->remote;

    note_error(r, err->msg);
    if (ret == -ESTALE && !r->told_wrong_identity) {
        r->told_wrong_identity = true;
        log_err("%s; nothing is read from it", err->msg);
    } else {
        log_info("%s: %s session: %s", r->node.filename, s->name, err->msg);
    }
}

static void co_connector(void *arg)
{
    struct remote_session *s = arg;
    struct remote *r = s->remote;

    if (s->flapping)
        co_nap(s, next_delay(s, 0));
    while (!r->closing && (s == &r->demand || r->demand.up)) {
        struct error err = ERROR_INIT;
        int ret = co_remote_session_open(s, &err);

        if (!ret) {
            log_at(s == &r->demand ? LOG_LVL_NOTICE : LOG_LVL_INFO, "%s: %s session is up",
                   r->node.filename, s->name);
            break;
        }
        if (r->closing)
            break;
        attempt_failed(s, ret, &err);
        co_nap(s, next_delay(s, ret));
    }
    s->connecting = false;
    if (r->closing)
        co_queue_wake_all(&r->connector_ended);
}

void remote_start_connector(struct remote_session *s)
{
    if (s->connecting || s->up || s->remote->closing)
        return;
    s->connecting = true;
    co_spawn(co_connector, s);
}

struct remote_session *remote_pick_session(struct remote *r, uint32_t flags)
{
    if (flags & BLK_BULK) {
        if (r->bulk.up)
            return &r->bulk;
        if (r->demand.up)
            remote_start_connector(&r->bulk);
    }
    return r->demand.up ? &r->demand : NULL;
}

void remote_sessions_init(struct remote *r)
{
    struct remote_session *sessions[] = {&r->demand, &r->bulk};

    r->demand.name = "demand";
    r->bulk.name = "bulk";
    for (unsigned i = 0; i < ARRAY_LEN(sessions); i++) {
        sessions[i]->remote = r;
        sessions[i]->backoff_ns = BACKOFF_FIRST_NS;
        ev_init(&sessions[i]->timer, on_nap_over);
        sessions[i]->timer.data = sessions[i];
    }
    r->notify.fn = announce;
    r->down_since_ns = now_ns();
    co_queue_init(&r->connector_ended);
}

/* Bounded: naps and attempts are ended at once, a logout takes at most a second. */
void co_remote_sessions_close(struct remote *r)
{
    struct remote_session *sessions[] = {&r->demand, &r->bulk};

    r->closing = true;
    for (unsigned i = 0; i < ARRAY_LEN(sessions); i++) {
        end_nap(sessions[i]);
        if (sessions[i]->connecting && sessions[i]->conn)
            iscsi_conn_cancel(sessions[i]->conn, "the node is being closed");
    }
    while (r->demand.connecting || r->bulk.connecting)
        co_queue_wait(&r->connector_ended);
    for (unsigned i = 0; i < ARRAY_LEN(sessions); i++) {
        struct iscsi_conn *conn = sessions[i]->conn;

        sessions[i]->up = false;
        sessions[i]->conn = NULL;
        co_iscsi_close(conn);
    }
    loop_undefer(&r->notify);
}
