/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The load generator on libiscsi, as QEMU and others use it: one session, asynchronous commands,
 * libiscsi's own sockets, buffers and tasks. Options as for load.c; it reaches its own limit
 * before a fast target does.
 */
#include "tests/bench/client.h"

#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct slot {
    uint64_t started_ns;
    uint8_t *buf;
    struct scsi_iovec iov;
    bool busy;
};

static struct slot slots[CLIENT_MAX_DEPTH];
static struct iscsi_context *iscsi;
static unsigned nr_busy;
static uint32_t block_bytes;
static bool stop;
static uint64_t end_ns;

static void start(struct slot *s);

static void on_done(struct iscsi_context *ctx, int status, void *data, void *opaque)
{
    struct slot *s = opaque;

    (void)ctx;
    client_count(s->started_ns, status != SCSI_STATUS_GOOD);
    scsi_free_scsi_task(data);
    s->busy = false;
    nr_busy--;
    start(s);
}

static void start(struct slot *s)
{
    struct scsi_task *t;
    uint64_t offset;
    bool write;

    stop = stop || client_now_ns() >= end_ns || !client_pick(&offset, &write);
    if (stop)
        return;
    s->started_ns = client_now_ns();
    s->iov = (struct scsi_iovec){s->buf, client_opt.bytes};
    if (write)
        t = iscsi_write16_iov_task(iscsi, (int)client_opt.lun, offset / block_bytes, NULL,
                                   client_opt.bytes, (int)block_bytes, 0, 0, 0, 0, 0, on_done, s,
                                   &s->iov, 1);
    else
        t = iscsi_read16_iov_task(iscsi, (int)client_opt.lun, offset / block_bytes,
                                  client_opt.bytes, (int)block_bytes, 0, 0, 0, 0, 0, on_done, s,
                                  &s->iov, 1);
    if (!t)
        client_refuse(iscsi_get_error(iscsi));
    s->busy = true;
    nr_busy++;
}

static void login(void)
{
    char portal[300];
    struct scsi_task *t;
    struct scsi_readcapacity16 *rc;

    snprintf(portal, sizeof(portal), "%s:%s", client_opt.host, client_opt.port);
    iscsi = iscsi_create_context("iqn.2026-11.com.example:load-libiscsi");
    if (!iscsi)
        client_die("memory");
    iscsi_set_targetname(iscsi, client_opt.name);
    iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(iscsi, client_opt.digests ? ISCSI_HEADER_DIGEST_CRC32C
                                                      : ISCSI_HEADER_DIGEST_NONE);
    if (iscsi_full_connect_sync(iscsi, portal, (int)client_opt.lun))
        client_refuse(iscsi_get_error(iscsi));
    t = iscsi_readcapacity16_sync(iscsi, (int)client_opt.lun);
    rc = t && t->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(t) : NULL;
    if (!rc)
        client_refuse("READ CAPACITY(16) failed");
    block_bytes = rc->block_length;
    client_set_size((rc->returned_lba + 1) * block_bytes);
    scsi_free_scsi_task(t);
    if (client_opt.bytes % block_bytes)
        client_refuse("the LUN does not fit this block size");
}

static void run(void)
{
    end_ns = client_now_ns() + (uint64_t)(client_opt.seconds * 1e9);
    for (unsigned i = 0; i < client_opt.depth; i++) {
        slots[i].buf = malloc(client_opt.bytes);
        if (!slots[i].buf)
            client_die("memory");
        memcpy(slots[i].buf, client_payload, client_opt.bytes);
        start(&slots[i]);
    }
    while (nr_busy) {
        struct pollfd p = {.fd = iscsi_get_fd(iscsi), .events = (short)iscsi_which_events(iscsi)};

        if (poll(&p, 1, 30000) <= 0)
            client_refuse("no answer");
        if (iscsi_service(iscsi, p.revents))
            client_refuse(iscsi_get_error(iscsi));
    }
}

static double flush(void)
{
    uint64_t begin = client_now_ns();
    struct scsi_task *t = iscsi_synchronizecache16_sync(iscsi, (int)client_opt.lun, 0, 0, 0, 0);

    if (!t || t->status != SCSI_STATUS_GOOD)
        client_refuse("the flush failed");
    scsi_free_scsi_task(t);
    return (double)(client_now_ns() - begin) / 1e6;
}

int main(int argc, char **argv)
{
    uint64_t begin;
    double flush_ms;

    client_parse(argc, argv);
    login();
    begin = client_now_ns();
    run();
    flush_ms = client_opt.flush ? flush() : 0;
    return client_report("libiscsi", (double)(client_now_ns() - begin) / 1e9, flush_ms);
}
