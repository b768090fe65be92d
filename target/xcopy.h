/* SPDX-License-Identifier: BSD-3-Clause */
/* EXTENDED COPY's limits, told in RECEIVE COPY RESULTS and in VPD page 8Fh. */
#ifndef COWTGT_XCOPY_H
#define COWTGT_XCOPY_H

#define XCOPY_MAX_TARGETS   8
#define XCOPY_MAX_SEGMENTS  16
#define XCOPY_TARGET_BYTES  32
#define XCOPY_SEGMENT_BYTES 28
#define XCOPY_MAX_LIST_BYTES \
    (XCOPY_MAX_TARGETS * XCOPY_TARGET_BYTES + XCOPY_MAX_SEGMENTS * XCOPY_SEGMENT_BYTES)
#define XCOPY_MAX_SEGMENT_BYTES (64u << 20)
#define XCOPY_MAX_COPIES        64 /* no more than that are worth having at once */

enum { XCOPY_SEG_BLOCKS = 0x02, XCOPY_TARGET_ID = 0xe4 };

#endif
