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
    struct nexus other; /* after fake_add_other() */
    bool has_other;
};

/* Changes of the disk that no FUA and no FLUSH has made durable yet. */
extern unsigned fake_unforced;

/* A LUN 0 of @size_bytes in units of 4 KiB, with the power-on unit attention taken off. */
void fake_setup(struct fake *f, uint64_t size_bytes, bool writable);
void fake_teardown(struct fake *f);
/* Adds a LUN; NULL with @err. */
struct lun *fake_add_lun(struct fake *f, const struct lun_opts *opts);

/* A second nexus, without its power-on unit attention; the ISID ends with @isid5. */
void fake_add_other(struct fake *f, const char *initiator, uint8_t isid5);
/*
 * As fake_setup(), writable, with atomic writes of up to 4 KiB and a second nexus: for commands
 * that one initiator sends and another feels.
 */
void fake_setup_two(struct fake *f, uint64_t size_bytes);

/* A command to LUN 0 with @edtl bytes in the direction of its opcode (@out: data-out). */
struct fake_cmd *fake_cmd_new(struct fake *f, const uint8_t *cdb, unsigned cdb_len, uint32_t edtl,
                              bool out);
/* The same by nexus @n; @len bytes of @out are data-out, NULL: data-in of up to @len bytes. */
struct fake_cmd *fake_cmd_as(struct fake *f, struct nexus *n, const uint8_t *cdb, unsigned cdb_len,
                             const void *out, uint32_t len);
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

/*
 * The same by nexus @n on the unit of @lun (8 bytes, NULL: LUN 0). Without @out up to @len bytes
 * come into @in.
 */
int fake_exec_as(struct fake *f, struct nexus *n, const uint8_t *lun, const uint8_t *cdb,
                 unsigned cdb_len, const void *out, void *in, uint32_t len);
/* PERSISTENT RESERVE OUT by @n on LUN 0 with a list of 24 bytes. */
int fake_pr_out(struct fake *f, struct nexus *n, uint8_t action, uint8_t type, uint64_t key,
                uint64_t action_key);

/* Bytes that tell where they belong, and by @seed to whom. */
void fake_fill_pattern(uint8_t *b, size_t len, unsigned seed);

#define SENSE(key, asc, ascq) ((key) << 16 | (asc) << 8 | (ascq))
#define CDB(...)              (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

#endif
