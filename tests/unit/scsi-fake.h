/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A transport that isn't there, for unit tests of the SCSI layer: one target, one nexus, one LUN
 * over a disk in memory, and commands whose data is plain arrays.
 */
#ifndef COWTGT_SCSI_FAKE_H
#define COWTGT_SCSI_FAKE_H

#include "target/lun.h"
#include "target/scsi-cmd.h"
#include "target/target-int.h"
#include "tests/unit/mem-node.h"

#define FAKE_DATA_MAX (4u << 20)

struct fake_cmd {
    struct scsi_cmd cmd;
    uint8_t *data; /* data-out to be sent, data-in as received */
    uint32_t in_len;
    bool done;
    unsigned nth_done; /* commands are counted as they end */
    bool hold_data;    /* data-out does not come until fake_send_data() */
    struct deferred defer;
    void (*tell)(struct scsi_cmd *);
};

struct fake {
    struct target target;
    struct nexus nexus;
    struct mem_node *mem;
    struct blk_node *disk; /* over mem, with DISCARD as zeroing */
    struct lun *lun;
};

/* Changes of the disk that no FUA and no FLUSH has made durable yet. */
extern unsigned fake_unforced;

/* A LUN 0 of @size_bytes in units of 4 KiB, with the power-on unit attention taken off. */
void fake_setup(struct fake *f, uint64_t size_bytes, bool writable);
void fake_teardown(struct fake *f);
/* Adds a LUN; NULL with @err. */
struct lun *fake_add_lun(struct fake *f, const struct lun_opts *opts);

/* A command to LUN 0 with @edtl bytes in the direction of its opcode (@out: data-out). */
struct fake_cmd *fake_cmd_new(struct fake *f, const uint8_t *cdb, unsigned cdb_len, uint32_t edtl,
                              bool out);
void fake_start(struct fake_cmd *c);
/* Starts it and turns the loop until it is done. */
void fake_run(struct fake_cmd *c);
void fake_wait(struct fake_cmd *c);
void fake_send_data(struct fake_cmd *c);
void fake_cmd_free(struct fake_cmd *c);
/* key << 16 | asc << 8 | ascq; 0 if the status is GOOD, -status if there is no sense. */
int fake_sense(const struct fake_cmd *c);

/* Runs @cdb on LUN 0 and returns fake_sense(); @data may be NULL (nothing is transferred). */
int fake_exec(struct fake *f, const uint8_t *cdb, unsigned cdb_len, void *data, uint32_t len,
              bool out);

#define SENSE(key, asc, ascq) ((key) << 16 | (asc) << 8 | (ascq))
#define CDB(...)              (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

#endif
