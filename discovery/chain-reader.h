/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finding chains on other targets, by a stock login: REPORT LUNS, INQUIRY, READ CAPACITY(16),
 * VPD 00h and D5h of each LUN, joined into a chain (COW layer extension, section 5).
 */
#ifndef COWTGT_CHAIN_READER_H
#define COWTGT_CHAIN_READER_H

#include <stdbool.h>
#include <stdint.h>
#include "lun-backends/iscsi-conn.h"
#include "lun-backends/remote.h"
#include "util/cow-wire.h"

#define CHAIN_READER_MAX_LUNS 1100

struct found_lun {
    uint16_t number;
    bool is_disk; /* peripheral device type 0 */
    uint64_t size_bytes;
    uint32_t block_bytes;
    char vendor[9], product[17];
    bool has_cowl;
    struct cowl_page cowl;
};

struct found_chain {
    unsigned nr_luns;
    struct found_lun *luns; /* ascending numbers */
};

/* Reads all LUNs of the connected target. LUNs whose parents don't join up: an error. */
int co_chain_read(struct iscsi_conn *conn, struct found_chain *out, struct error *err);
void found_chain_free(struct found_chain *c);

/*
 * Which LUN a pull takes: @wanted if >= 0; else LUN 0 if it is a disk; else the only disk; else an
 * error that lists the disks. Returns the index in luns or -errno.
 */
int found_chain_pick(const struct found_chain *c, int wanted, struct error *err);

#endif
