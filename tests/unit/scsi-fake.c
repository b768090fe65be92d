/* SPDX-License-Identifier: BSD-3-Clause */
/* See scsi-fake.h. */
#include "tests/unit/scsi-fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/byteorder.h"
#include "util/size.h"
#include "util/workers.h"

static unsigned nr_done;
unsigned fake_unforced;

/* ---- the disk: forwards all but DISCARD, which becomes zeroing ---- */

static void disk_forward(struct blk_node *node, struct blk_req *req)
{
    blk_forward(node->file.child, req);
}

static void disk_change(struct blk_node *node, struct blk_req *req)
{
    fake_unforced += !(req->flags & BLK_FUA);
    blk_forward(node->file.child, req);
}

static void disk_flush(struct blk_node *node, struct blk_req *req)
{
    fake_unforced = 0;
    blk_forward(node->file.child, req);
}

static void disk_discard(struct blk_node *node, struct blk_req *req)
{
    fake_unforced++;
    req->verb = BLK_WRITE_ZEROES;
    blk_forward(node->file.child, req);
}

static const struct blk_driver disk_driver = {
    .name = "fake-disk",
    .instance_bytes = sizeof(struct blk_node),
    .is_filter = true,
    .submit =
        {
            [BLK_READ] = disk_forward,
            [BLK_WRITE] = disk_change,
            [BLK_WRITE_ZEROES] = disk_change,
            [BLK_DISCARD] = disk_discard,
            [BLK_FLUSH] = disk_flush,
            [BLK_STATUS] = disk_forward,
        },
};

static struct blk_node *disk_new(struct blk_node *below)
{
    struct blk_node *node = blk_node_new(&disk_driver, NULL);

    node->size_bytes = below->size_bytes;
    node->limits = below->limits;
    blk_set_file(node, below);
    return node;
}

/* ---- the transport ---- */

static void told(struct deferred *d)
{
    struct fake_cmd *c = container_of(d, struct fake_cmd, defer);

    c->tell(&c->cmd);
}

static void tell_later(struct fake_cmd *c, void (*fn)(struct scsi_cmd *))
{
    c->tell = fn;
    c->defer.fn = told;
    loop_defer(&c->defer, LOOP_NOW);
}

static void fake_data_out(struct scsi_cmd *cmd, uint32_t offset, void *buf, uint32_t len)
{
    struct fake_cmd *c = container_of(cmd, struct fake_cmd, cmd);

    if (offset > cmd->edtl_bytes || len > cmd->edtl_bytes - offset)
        abort();
    memcpy(buf, c->data + offset, len);
    if (!c->hold_data)
        tell_later(c, scsi_cmd_data_out_ready);
}

void fake_send_data(struct fake_cmd *c)
{
    c->hold_data = false;
    tell_later(c, scsi_cmd_data_out_ready);
}

static void take_in(struct fake_cmd *c, uint32_t offset, void *buf, uint32_t len, uint32_t alloc)
{
    if (offset != c->in_len || len > c->cmd.edtl_bytes - offset)
        abort();
    memcpy(c->data + offset, buf, len);
    c->in_len += len;
    bufpool_put(bufpool_main(), buf, alloc);
}

static void fake_data_in(struct scsi_cmd *cmd, uint32_t offset, void *buf, uint32_t len,
                         uint32_t alloc)
{
    struct fake_cmd *c = container_of(cmd, struct fake_cmd, cmd);

    take_in(c, offset, buf, len, alloc);
    tell_later(c, scsi_cmd_data_in_sent);
}

static void fake_complete(struct scsi_cmd *cmd)
{
    struct fake_cmd *c = container_of(cmd, struct fake_cmd, cmd);

    if (c->done)
        abort();
    if (cmd->last_in)
        take_in(c, cmd->last_in_offset, cmd->last_in, cmd->last_in_len, cmd->last_in_alloc);
    c->nth_done = ++nr_done;
    c->done = true;
}

static const struct scsi_transport_ops fake_ops = {
    .data_out = fake_data_out,
    .data_in = fake_data_in,
    .complete = fake_complete,
};

struct lun *fake_add_lun(struct fake *f, const struct lun_opts *opts)
{
    struct error err = ERROR_INIT;
    struct lun *lun = target_add_lun(&f->target, opts, &err);

    if (!lun)
        fprintf(stderr, "%s\n", err.msg);
    return lun;
}

void fake_setup(struct fake *f, uint64_t size_bytes, bool writable)
{
    static const uint8_t isid[6];
    enum ua_kind ua;

    memset(f, 0, sizeof(*f));
    loop_init();
    workers_init(1);
    blk_init();
    list_init(&f->target.luns);
    list_init(&f->target.nexuses);
    list_init(&f->target.sessions);
    f->target.name = (char *)"iqn.2026-11.com.example:unit";
    nexus_init(&f->nexus, &f->target, "iqn.2026-11.com.example:me", isid, 1);
    f->mem = mem_node_new(size_bytes, 4096);
    f->disk = disk_new(&f->mem->node);
    f->lun = fake_add_lun(f, &(struct lun_opts){.root = f->disk, .writable = writable});
    nexus_take_ua(&f->nexus, 0, &ua);
}

void fake_add_other(struct fake *f, const char *initiator, uint8_t isid5)
{
    const uint8_t isid[6] = {0x80, 0, 0, 0, 0, isid5};
    enum ua_kind ua;

    nexus_init(&f->other, &f->target, initiator, isid, 1);
    nexus_take_ua(&f->other, 0, &ua);
    f->has_other = true;
}

void fake_setup_two(struct fake *f, uint64_t size_bytes)
{
    fake_setup(f, size_bytes, true);
    f->disk->limits.atomic_bytes = f->mem->node.limits.atomic_bytes = 4096;
    fake_add_other(f, "iqn.2026-11.com.example:other", 9);
}

static void co_teardown(void *arg)
{
    struct fake *f = arg;

    co_target_free_luns(&f->target);
    co_blk_node_unref(f->disk);
    co_blk_node_unref(&f->mem->node);
}

void fake_teardown(struct fake *f)
{
    if (f->has_other)
        nexus_fini(&f->other);
    mem_node_run(co_teardown, f);
    nexus_fini(&f->nexus);
    blk_fini();
    workers_fini();
    loop_fini();
}

struct fake_cmd *fake_cmd_new(struct fake *f, const uint8_t *cdb, unsigned cdb_len, uint32_t edtl,
                              bool out)
{
    struct fake_cmd *c = calloc(1, sizeof(*c));

    c->data = calloc(1, MAX_OF(edtl, 1u)); /* exactly: ASan sees more */
    c->cmd.ops = &fake_ops;
    c->cmd.nexus = &f->nexus;
    memcpy(c->cmd.cdb, cdb, MIN_OF(cdb_len, (unsigned)SCSI_MAX_CDB));
    c->cmd.cdb_bytes = (uint8_t)MAX_OF(MIN_OF(cdb_len, (unsigned)SCSI_MAX_CDB), 16u);
    c->cmd.attr = SCSI_ATTR_SIMPLE;
    c->cmd.dir_read = edtl && !out;
    c->cmd.dir_write = edtl && out;
    c->cmd.edtl_bytes = edtl;
    c->cmd.chunk_bytes = 256u << 10;
    return c;
}

struct fake_cmd *fake_cmd_as(struct fake *f, struct nexus *n, const uint8_t *cdb, unsigned cdb_len,
                             const void *out, uint32_t len)
{
    struct fake_cmd *c = fake_cmd_new(f, cdb, cdb_len, len, out != NULL);

    c->cmd.nexus = n;
    if (out)
        memcpy(c->data, out, len);
    return c;
}

void fake_start(struct fake_cmd *c)
{
    scsi_cmd_start(&c->cmd);
    if (c->done)
        abort(); /* never inside start */
}

void fake_wait(struct fake_cmd *c)
{
    if (!TURN_UNTIL(c->done))
        abort();
}

void fake_run(struct fake_cmd *c)
{
    fake_start(c);
    fake_wait(c);
}

void fake_cmd_free(struct fake_cmd *c)
{
    free(c->data);
    free(c);
}

int fake_sense(const struct fake_cmd *c)
{
    if (c->cmd.status == SCSI_GOOD)
        return 0;
    if (c->cmd.status != SCSI_CHECK_CONDITION || c->cmd.sense_len < 14)
        return -c->cmd.status;
    return SENSE(c->cmd.sense[2] & 0xf, c->cmd.sense[12], c->cmd.sense[13]);
}

int fake_exec_as(struct fake *f, struct nexus *n, const uint8_t *lun, const uint8_t *cdb,
                 unsigned cdb_len, const void *out, void *in, uint32_t len)
{
    struct fake_cmd *c = fake_cmd_as(f, n, cdb, cdb_len, out, len);
    int sense;

    if (lun)
        memcpy(c->cmd.lun_field, lun, 8);
    fake_run(c);
    sense = fake_sense(c);
    if (!out && c->in_len)
        memcpy(in, c->data, c->in_len);
    fake_cmd_free(c);
    return sense;
}

int fake_exec(struct fake *f, const uint8_t *cdb, unsigned cdb_len, void *data, uint32_t len,
              bool out)
{
    return fake_exec_as(f, &f->nexus, NULL, cdb, cdb_len, out ? data : NULL, data, len);
}

int fake_pr_out(struct fake *f, struct nexus *n, uint8_t action, uint8_t type, uint64_t key,
                uint64_t action_key)
{
    uint8_t cdb[10] = {0x5f, action, type, 0, 0, 0, 0, 0, 24}, list[24] = {0};

    put_be64(list, key);
    put_be64(list + 8, action_key);
    return fake_exec_as(f, n, NULL, cdb, 10, list, NULL, 24);
}

void fake_fill_pattern(uint8_t *b, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        b[i] = (uint8_t)(i / 512 * 7 + i + seed);
}
