/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a target says of one of its LUNs: INQUIRY, READ CAPACITY(16), VPD 00h, 83h, B0h, D5h.
 * The decoders are pure and believe nothing: answers are checked against the bytes that came.
 */
#ifndef COWTGT_ISCSI_LUN_H
#define COWTGT_ISCSI_LUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "lun-backends/iscsi-conn.h"
#include "util/cow-wire.h"

#define LUN_DESIGNATOR_BYTES 16

struct lun_info {
    bool connected; /* a device is there (peripheral qualifier 000b) */
    uint8_t device_type;
    char vendor[9], product[17]; /* printable, no trailing spaces */
    /* of disks (device type 0) only: */
    uint32_t block_bytes;
    uint64_t blocks;
    bool lbpme, lbprz;
    bool has_limits;                          /* there is a VPD B0h */
    uint32_t max_transfer_blocks;             /* 0: there is no limit, or it is not said */
    uint8_t designator[LUN_DESIGNATOR_BYTES]; /* zeros if it has none */
    bool has_cowl;
    struct cowl_page cowl;
};

int co_lun_info(struct iscsi_conn *conn, int lun, struct lun_info *info, struct error *err);

/*
 * The best designator of the logical unit itself in a VPD page 83h: NAA, then EUI-64, then
 * others; one longer than 16 bytes is folded. False if there is none.
 */
bool lun_designator(const uint8_t *page, size_t len, uint8_t out[LUN_DESIGNATOR_BYTES]);

#endif
