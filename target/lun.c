/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * LUNs of a target: adding and removing, the order of commands (SAM-5 8: SIMPLE ones run as they
 * come, an ORDERED one after all older and before all younger ones, HEAD OF QUEUE at once), and
 * the parking place for commands whose source is down: bounded in number and bytes, emptied when
 * the source is back, by abort, or when the time is up.
 */
#include "target/lun.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "target/scsi-cmd.h"
#include "target/target-int.h"
#include "util/size.h"

/* Parked writes keep their data: no more than this much of the common pool may be in use then. */
#define PARK_POOL_BYTES (32u << 20)

/* ---- the task set -------------------------------------------------------------------- */

void lun_enter(struct lun *lun, struct scsi_cmd *cmd)
{
    list_add_tail(&lun->commands, &cmd->link);
    lun->nr_commands++;
    if (cmd->attr == SCSI_ATTR_ORDERED)
        lun->nr_ordered++;
}

bool lun_hold(struct lun *lun, struct scsi_cmd *cmd)
{
    bool is_oldest = lun->commands.next == &cmd->link;
    bool must_wait = cmd->attr == SCSI_ATTR_ORDERED ? !is_oldest : lun->nr_ordered > 0;

    if (!must_wait || cmd->attr == SCSI_ATTR_HEAD)
        return false;
    cmd->phase = PH_HELD;
    lun->nr_held++;
    return true;
}

void lun_unhold(struct lun *lun, struct scsi_cmd *cmd)
{
    cmd->phase = PH_NEW;
    lun->nr_held--;
}

static struct scsi_cmd *next_held(struct lun *lun)
{
    struct scsi_cmd *cmd;
    bool is_oldest = true;

    list_for_each_entry (cmd, &lun->commands, link) {
        if (cmd->phase == PH_HELD && (is_oldest || cmd->attr != SCSI_ATTR_ORDERED))
            return cmd;
        if (cmd->attr == SCSI_ATTR_ORDERED)
            return NULL;
        is_oldest = false;
    }
    return NULL;
}

static void lun_free(struct lun *lun)
{
    assert(list_empty(&lun->commands));
    ev_timer_stop(loop_ev(), &lun->park_timer);
    loop_undefer(&lun->retry);
    loop_undefer(&lun->ranges_moved);
    pr_release(&lun->pr);
    free(lun);
}

void lun_leave(struct lun *lun, struct scsi_cmd *cmd)
{
    list_del(&cmd->link);
    lun->nr_commands--;
    if (cmd->attr == SCSI_ATTR_ORDERED)
        lun->nr_ordered--;
    while (lun->nr_held && (cmd = next_held(lun))) {
        lun_unhold(lun, cmd);
        cmd_run(cmd);
    }
    co_queue_wake_all(&lun->command_left);
    if (lun->orphan && list_empty(&lun->commands))
        lun_free(lun);
}

void lun_pin(struct lun *lun)
{
    lun->nr_walks++;
}

void lun_unpin(struct lun *lun)
{
    lun->nr_walks--;
    co_queue_wake_all(&lun->walk_ended);
}

void co_lun_walk_begin(struct lun *lun)
{
    lun_pin(lun);
    co_blk_head_enter(&lun->head);
}

void lun_walk_end(struct lun *lun)
{
    blk_head_exit(&lun->head);
    lun_unpin(lun);
}

/* ---- parking ------------------------------------------------------------------------- */

static uint64_t earliest_deadline(const struct lun *lun)
{
    const struct scsi_cmd *cmd;
    uint64_t min_ns = UINT64_MAX;

    list_for_each_entry (cmd, &lun->parked, park_link)
        min_ns = MIN_OF(min_ns, cmd->park_deadline_ns);
    return min_ns;
}

static void arm_park_timer(struct lun *lun)
{
    uint64_t now = now_ns(), deadline = earliest_deadline(lun);

    ev_timer_stop(loop_ev(), &lun->park_timer);
    if (deadline == UINT64_MAX)
        return;
    ev_now_update(loop_ev());
    ev_timer_set(&lun->park_timer, deadline > now ? (double)(deadline - now) / 1e9 : 0., 0.);
    ev_timer_start(loop_ev(), &lun->park_timer);
}

enum park_result lun_park(struct lun *lun, struct scsi_cmd *cmd)
{
    uint64_t now = now_ns();

    if (lun->gone || lun->source_seq != cmd->source_seq)
        return PARK_AGAIN; /* the news came between failure and here */
    if (!cmd->park_deadline_ns)
        cmd->park_deadline_ns = now + lun->source_timeout_ns;
    else if (now >= cmd->park_deadline_ns)
        return PARK_TIMEOUT;
    if (lun->nr_parked >= LUN_MAX_PARKED)
        return PARK_FULL;
    if (cmd->buf) {
        if (lun->parked_bytes + cmd->buf_alloc > LUN_MAX_PARKED_BYTES ||
            bufpool_used_bytes(bufpool_main()) > PARK_POOL_BYTES)
            return PARK_FULL;
        lun->parked_bytes += cmd->buf_alloc;
    }
    list_add_tail(&lun->parked, &cmd->park_link);
    lun->nr_parked++;
    if (!ev_is_active(&lun->park_timer))
        arm_park_timer(lun);
    return PARK_DONE;
}

void lun_unpark(struct lun *lun, struct scsi_cmd *cmd)
{
    list_del(&cmd->park_link);
    lun->nr_parked--;
    if (cmd->buf)
        lun->parked_bytes -= cmd->buf_alloc;
}

static void park_timer_fired(struct ev_loop *ev, struct ev_timer *w, int revents)
{
    struct lun *lun = w->data;
    uint64_t now = now_ns();
    struct scsi_cmd *cmd, *tmp;

    (void)ev;
    (void)revents;
    list_for_each_entry_safe (cmd, tmp, &lun->parked, park_link) {
        if (cmd->park_deadline_ns <= now) {
            lun_unpark(lun, cmd);
            cmd_fail_errno(cmd, -ETIMEDOUT);
        }
    }
    arm_park_timer(lun);
}

/* Only those parked by now: what fails again parks anew and waits for the next news. */
static void retry_parked(struct deferred *d)
{
    struct lun *lun = container_of(d, struct lun, retry);
    unsigned n = lun->nr_parked;

    while (n-- && !list_empty(&lun->parked)) {
        struct scsi_cmd *cmd = list_first_entry(&lun->parked, struct scsi_cmd, park_link);

        lun_unpark(lun, cmd);
        cmd->again(cmd);
    }
    arm_park_timer(lun);
}

static void set_capacity(struct lun *lun)
{
    lun->capacity_blocks = blk_head_node(&lun->head)->size_bytes >> lun->block_shift;
}

/* Of a disk whose parts come from elsewhere, smaller writes than a part have to read it first. */
static void set_physical(struct lun *lun)
{
    const struct blk_node *node = blk_head_node(&lun->head);
    uint32_t bytes = MAX_OF(node->limits.align_bytes, lun_block_bytes(lun));

    if (node->limits.subunit_bytes < node->limits.granularity_bytes)
        bytes = MAX_OF(bytes, node->limits.subunit_bytes);
    lun->physical_shift = (uint8_t)MIN_OF(31 - __builtin_clz(bytes), LUN_MAX_BLOCK_SHIFT);
}

static void head_event(struct blk_head *head, enum blk_event ev)
{
    struct lun *lun = head->opaque;

    if (ev == BLK_EV_SOURCE_UP) {
        lun->source_seq++;
        loop_defer(&lun->retry, LOOP_NOW);
    } else if (ev == BLK_EV_RESIZED) {
        set_capacity(lun);
        if (!lun->gone)
            ua_raise(lun->target, lun->number, UA_CAPACITY);
    }
}

/* ---- adding and removing ------------------------------------------------------------- */

struct lun *target_find_lun(struct target *t, uint16_t number)
{
    struct lun *lun;

    list_for_each_entry (lun, &t->luns, link) {
        if (lun->number == number)
            return lun;
    }
    return NULL;
}

static unsigned shift_of(uint32_t block_bytes)
{
    return block_bytes ? (unsigned)__builtin_ctz(block_bytes) : LUN_MIN_BLOCK_SHIFT;
}

static int check_opts(struct target *t, const struct lun_opts *opts, struct error *err)
{
    if (opts->number > TARGET_MAX_LUN)
        return error_set(err, EINVAL, "LUN %u of %s: numbers end at %u", opts->number,
                         target_name(t), TARGET_MAX_LUN);
    if (target_find_lun(t, opts->number))
        return error_set_class(err, ERR_DEVICE_IN_USE, EEXIST, "LUN %u of %s exists already",
                               opts->number, target_name(t));
    if (opts->block_bytes && opts->block_bytes != 1u << LUN_MIN_BLOCK_SHIFT &&
        opts->block_bytes != 1u << LUN_MAX_BLOCK_SHIFT)
        return error_set(err, EINVAL, "LUN %u of %s: a block is 512 or 4096 bytes, not %u",
                         opts->number, target_name(t), opts->block_bytes);
    if (opts->root->size_bytes >> shift_of(opts->block_bytes) == 0)
        return error_set(err, EINVAL, "LUN %u of %s: '%s' is smaller than a block of %u bytes",
                         opts->number, target_name(t), opts->root->name,
                         1u << shift_of(opts->block_bytes));
    if (opts->writable && opts->root->read_only)
        return error_set(err, EROFS, "LUN %u of %s: '%s' is open read-only", opts->number,
                         target_name(t), opts->root->name);
    return 0;
}

static void insert_sorted(struct target *t, struct lun *lun)
{
    struct lun *after;

    list_for_each_entry (after, &t->luns, link) {
        if (after->number > lun->number)
            break;
    }
    list_add_tail(&after->link, &lun->link); /* before it; the list's head if there is none */
}

struct lun *target_add_lun(struct target *t, const struct lun_opts *opts, struct error *err)
{
    char name[ISCSI_NAME_MAX + 32];
    struct lun *lun;

    if (check_opts(t, opts, err))
        return NULL;
    lun = calloc(1, sizeof(*lun));
    if (!lun) {
        error_set(err, ENOMEM, "LUN %u of %s: out of memory", opts->number, target_name(t));
        return NULL;
    }
    if (opts->reservations && pr_from_text(&lun->pr, opts->reservations, opts->number)) {
        error_set(err, EINVAL,
                  "LUN %u of %s: the persistent reservations kept for it are damaged: %s",
                  opts->number, target_name(t), opts->reservations);
        free(lun);
        return NULL;
    }
    lun->writable = opts->writable;
    lun->saved_mode = mode_defaults(lun);
    if (opts->mode && mode_from_text(&lun->saved_mode, opts->mode, opts->number)) {
        error_set(err, EINVAL, "LUN %u of %s: the mode parameters kept for it are damaged: %s",
                  opts->number, target_name(t), opts->mode);
        pr_release(&lun->pr);
        free(lun);
        return NULL;
    }
    lun->target = t;
    lun->number = opts->number;
    lun->removable = opts->removable;
    lun->block_shift = (uint8_t)shift_of(opts->block_bytes);
    lun->id = opts->id;
    lun->has_cowl = opts->has_cowl;
    lun->cowl = opts->cowl;
    lun->anchored_zeros = opts->anchored_zeros;
    lun->source_timeout_ns = LUN_SOURCE_TIMEOUT_NS;
    list_init(&lun->commands);
    list_init(&lun->parked);
    list_init(&lun->ranges);
    co_queue_init(&lun->walk_ended);
    co_queue_init(&lun->command_left);
    co_mutex_init(&lun->kept_lock);
    lun->ranges_moved.fn = lun_ranges_moved;
    lun->retry.fn = retry_parked;
    ev_timer_init(&lun->park_timer, park_timer_fired, 0., 0.);
    lun->park_timer.data = lun;
    snprintf(name, sizeof(name), "LUN %u of %s", opts->number, target_name(t));
    blk_head_init(&lun->head, name, opts->root, opts->writable);
    lun->head.guest = true;
    lun->head.on_event = head_event;
    lun->head.opaque = lun;
    set_capacity(lun);
    set_physical(lun);
    mode_reset(lun);
    insert_sorted(t, lun);
    ua_raise_all_luns(t, UA_REPORTED_LUNS);
    return lun;
}

/* Those that wait for something other than disk and initiator end now. */
static void end_waiting(struct lun *lun)
{
    struct scsi_cmd *cmd;

    list_for_each_entry (cmd, &lun->commands, link) {
        if (cmd->phase == PH_HELD)
            lun_unhold(lun, cmd);
        else if (cmd->phase == PH_PARKED)
            lun_unpark(lun, cmd);
        else
            continue;
        cmd_fail(cmd, SENSE_LUN_NOT_SUPPORTED);
    }
}

/*
 * Bounded by the disk only: a command whose initiator does not send its data keeps the struct
 * (orphan), but neither the graph nor the caller.
 */
static void co_lun_remove(struct lun *lun)
{
    lun->gone = true;
    list_del(&lun->link);
    nexuses_forget_lun(lun->target, lun->number);
    end_waiting(lun);
    while (lun->nr_walks)
        co_queue_wait(&lun->walk_ended);
    co_blk_head_fini(&lun->head);
    if (list_empty(&lun->commands))
        lun_free(lun);
    else
        lun->orphan = true;
}

void co_target_remove_lun(struct target *t, uint16_t number)
{
    struct lun *lun = target_find_lun(t, number);

    if (!lun)
        return;
    ua_raise_all_luns(t, UA_REPORTED_LUNS);
    co_lun_remove(lun);
}

void co_target_free_luns(struct target *t)
{
    while (!list_empty(&t->luns))
        co_lun_remove(list_first_entry(&t->luns, struct lun, link));
}

void lun_set_cowl(struct lun *lun, const struct cowl_page *cowl, bool announce)
{
    lun->cowl = *cowl;
    lun->has_cowl = true;
    if (announce)
        ua_raise(lun->target, lun->number, UA_INQUIRY_DATA);
}

struct blk_head *lun_head(struct lun *lun)
{
    return &lun->head;
}

void lun_set_source_timeout(struct lun *lun, uint64_t timeout_ns)
{
    lun->source_timeout_ns = timeout_ns;
}

void lun_get_stats(const struct lun *lun, struct lun_stats *st)
{
    *st = lun->stats;
    st->parked = lun->nr_parked;
}
