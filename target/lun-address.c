/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * LUN fields, SAM-5 4.7: numbers up to 255 as peripheral devices, up to 16383 in flat space, both
 * of which we understand for any number, and the REPORT LUNS well known logical unit.
 */
#include "target/scsi.h"

#include <errno.h>
#include <string.h>

static const uint8_t report_luns_unit[8] = {SCSI_WLUN_REPORT_LUNS >> 8,
                                            SCSI_WLUN_REPORT_LUNS & 0xff};

int scsi_lun_decode(const uint8_t field[8], uint16_t *number)
{
    static const uint8_t zeros[6];

    if (memcmp(field + 2, zeros, sizeof(zeros)))
        return -EINVAL; /* one level only */
    switch (field[0] >> 6) {
    case 0: /* peripheral device, bus 0 */
        if (field[0])
            return -EINVAL;
        *number = field[1];
        return 0;
    case 1: /* flat space */
        *number = (uint16_t)((field[0] & 0x3f) << 8 | field[1]);
        return 0;
    default:
        return -EINVAL;
    }
}

void scsi_lun_encode(uint16_t number, uint8_t field[8])
{
    memset(field, 0, 8);
    field[0] = number > 255 ? (uint8_t)(0x40 | number >> 8) : 0;
    field[1] = (uint8_t)number;
}

bool scsi_lun_is_report_luns(const uint8_t field[8])
{
    return !memcmp(field, report_luns_unit, sizeof(report_luns_unit));
}

void scsi_lun_encode_report_luns(uint8_t field[8])
{
    memcpy(field, report_luns_unit, sizeof(report_luns_unit));
}
