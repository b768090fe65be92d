/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lunmap: the mapping of a LUN as JSON extents, as GET LAYER STATUS or GET LBA STATUS tell it.
 *
 * It decodes the answers on its own, not with the project's codec, and fails on any answer that
 * breaks docs/cow-layer-extension.md or SBC-3: it is a judge, not a client.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#define OP_LAYER_STATUS 0xc5

static const char *const layer_states[] = {"data", "zero", "undecided", "compressed"};
static const char *const lba_states[] = {"mapped", "deallocated", "anchored"};

struct extent {
    uint64_t lba, blocks;
    unsigned state, depth;
    bool any;
};

struct map {
    struct iscsi_context *iscsi;
    int lun;
    bool layers;
    bool first_printed;
    unsigned deepest;
    uint32_t alloc_bytes;
    uint64_t capacity_blocks;
    uint32_t block_bytes;
    uint32_t generation;
    unsigned long commands;
    struct extent run; /* not printed yet: may still grow */
};

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t be64(const uint8_t *p)
{
    return (uint64_t)be32(p) << 32 | be32(p + 4);
}

static void put_be(uint8_t *p, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

static void die(const char *fmt, const char *arg)
{
    fprintf(stderr, "lunmap: ");
    fprintf(stderr, fmt, arg);
    fputc('\n', stderr);
    exit(1);
}

static struct scsi_task *command(struct map *m, const uint8_t cdb[16], uint32_t alloc)
{
    for (int tries = 0; tries < 8; tries++) {
        struct scsi_task *task =
            scsi_create_task(16, (unsigned char *)cdb, SCSI_XFER_READ, (int)alloc);
        if (!task || !iscsi_scsi_command_sync(m->iscsi, m->lun, task, NULL))
            die("command failed: %s", iscsi_get_error(m->iscsi));
        m->commands++;
        if (task->status == SCSI_STATUS_GOOD)
            return task;
        bool again =
            task->status == SCSI_STATUS_BUSY || (task->status == SCSI_STATUS_CHECK_CONDITION &&
                                                 task->sense.key == SCSI_SENSE_UNIT_ATTENTION);
        scsi_free_scsi_task(task);
        if (!again)
            die("command refused: %s", iscsi_get_error(m->iscsi));
    }
    die("%s", "the LUN stays busy");
    return NULL;
}

static void print_run(struct map *m)
{
    if (!m->run.any)
        return;
    printf("%s{\"start\": %" PRIu64 ", \"length\": %" PRIu64, m->first_printed ? ",\n" : "",
           m->run.lba * m->block_bytes, m->run.blocks * m->block_bytes);
    if (m->layers && m->run.depth != 0xffff)
        printf(", \"depth\": %u", m->run.depth);
    printf(", \"state\": \"%s\"}",
           m->layers ? layer_states[m->run.state] : lba_states[m->run.state]);
    m->first_printed = true;
    m->run.any = false;
}

static void add_extent(struct map *m, uint64_t lba, uint64_t blocks, unsigned state, unsigned depth)
{
    if (m->run.any && m->run.state == state && m->run.depth == depth) {
        m->run.blocks += blocks;
        return;
    }
    print_run(m);
    m->run = (struct extent){lba, blocks, state, depth, true};
}

/* One answer's descriptors from @p on; returns the LBA after the last one. */
static uint64_t take_descriptors(struct map *m, const uint8_t *p, size_t n, uint64_t lba)
{
    for (size_t i = 0; i < n; i++, p += 16) {
        uint32_t blocks = be32(p + 8);
        unsigned state = m->layers ? p[12] : p[12] & 0x0f;
        unsigned depth = m->layers ? (unsigned)p[14] << 8 | p[15] : 0;
        if (be64(p) != lba)
            die("%s", "descriptors are not contiguous from the LBA asked for");
        if (blocks == 0 || blocks > m->capacity_blocks - lba)
            die("%s", "a descriptor is empty or goes past the capacity");
        if (state >= (m->layers ? 4u : 3u))
            die("%s", "a descriptor has an unknown state");
        if (m->layers && (state == 2) != (depth == 0xffff))
            die("%s", "depth FFFFh does not go with state 2");
        add_extent(m, lba, blocks, state, depth);
        lba += blocks;
    }
    return lba;
}

static uint64_t ask(struct map *m, uint64_t lba)
{
    uint8_t cdb[16] = {0};
    unsigned header = m->layers ? 16 : 8;

    cdb[0] = m->layers ? OP_LAYER_STATUS : 0x9e;
    cdb[1] = m->layers ? 0x00 : 0x12;
    put_be(cdb + 2, 8, lba);
    put_be(cdb + 10, 4, m->alloc_bytes);
    cdb[14] = m->layers ? (uint8_t)m->deepest : 0;
    struct scsi_task *task = command(m, cdb, m->alloc_bytes);
    const uint8_t *data = task->datain.data;
    size_t got = task->datain.size < 0 ? 0 : (size_t)task->datain.size;
    if (got < header + 16u || got > m->alloc_bytes)
        die("%s", "an answer without a whole descriptor, or longer than asked");
    size_t said = m->layers ? (size_t)be32(data) + 4 : (size_t)be32(data) + 4;
    size_t usable = said < got ? said : got;
    size_t n = (usable - header) / 16;
    uint64_t next = take_descriptors(m, data + header, n, lba);
    if (m->layers) {
        uint32_t generation = be32(data + 4);
        if (m->commands > 1 && generation != m->generation && lba)
            die("%s", "the chain's generation changed on the way");
        m->generation = generation;
        if (said <= got && be64(data + 8) != next)
            die("%s", "the next LBA is not the block after the last descriptor");
    }
    scsi_free_scsi_task(task);
    return next;
}

static void read_capacity(struct map *m)
{
    uint8_t cdb[16] = {0x9e, 0x10};
    put_be(cdb + 10, 4, 32);
    struct scsi_task *task = command(m, cdb, 32);
    if (task->datain.size < 32)
        die("%s", "short READ CAPACITY(16)");
    const uint8_t *data = task->datain.data;
    m->capacity_blocks = be64(data) + 1;
    m->block_bytes = be32(data + 8);
    if (!m->block_bytes || m->block_bytes > 65536)
        die("%s", "absurd block size");
    if ((data[14] & 0xc0) != 0xc0)
        fprintf(stderr, "lunmap: note: LBPME/LBPRZ are not both set\n");
    scsi_free_scsi_task(task);
}

static void usage(void)
{
    fprintf(stderr,
            "usage: lunmap [-l] [-a ALLOC_BYTES] [-d DEEPEST] [-s] iscsi://HOST:PORT/IQN/LUN\n"
            "  -l  GET LBA STATUS (default: GET LAYER STATUS)\n"
            "  -s  number of commands on stderr\n");
    exit(2);
}

int main(int argc, char **argv)
{
    struct map m = {.layers = true, .alloc_bytes = 65536};
    bool stats = false;
    int opt;

    while ((opt = getopt(argc, argv, "la:d:s")) != -1) {
        switch (opt) {
        case 'l':
            m.layers = false;
            break;
        case 'a':
            m.alloc_bytes = (uint32_t)strtoul(optarg, NULL, 0);
            break;
        case 'd':
            m.deepest = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 's':
            stats = true;
            break;
        default:
            usage();
        }
    }
    if (optind + 1 != argc || m.alloc_bytes < 24 || m.deepest > 255)
        usage();
    m.iscsi = iscsi_create_context("iqn.2026-11.com.example:lunmap");
    struct iscsi_url *url = m.iscsi ? iscsi_parse_full_url(m.iscsi, argv[optind]) : NULL;
    if (!url)
        die("bad URL: %s", argv[optind]);
    m.lun = url->lun;
    iscsi_set_targetname(m.iscsi, url->target);
    iscsi_set_session_type(m.iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_noautoreconnect(m.iscsi, 1);
    iscsi_set_timeout(m.iscsi, 30);
    if (iscsi_full_connect_sync(m.iscsi, url->portal, url->lun) != 0)
        die("connect: %s", iscsi_get_error(m.iscsi));
    read_capacity(&m);
    printf("[");
    for (uint64_t lba = 0; lba < m.capacity_blocks;)
        lba = ask(&m, lba);
    print_run(&m);
    printf("]\n");
    if (stats)
        fprintf(stderr, "commands %lu\n", m.commands);
    iscsi_logout_sync(m.iscsi);
    iscsi_destroy_url(url);
    iscsi_destroy_context(m.iscsi);
    return 0;
}
