/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sense data: the one place where keys and codes are chosen (sense.c has the table) and where
 * their bytes are made. Pure.
 */
#ifndef COWTGT_SENSE_H
#define COWTGT_SENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "target/lun.h"

enum sense_id {
    SENSE_NONE,
    SENSE_INVALID_OPCODE,
    SENSE_INVALID_FIELD_CDB,
    SENSE_INVALID_FIELD_PARAM,
    SENSE_PARAM_LIST_LENGTH,
    SENSE_LBA_OUT_OF_RANGE,
    SENSE_LUN_NOT_SUPPORTED,
    SENSE_SAVING_NOT_SUPPORTED,
    SENSE_INVALID_RELEASE,
    SENSE_NO_REGISTRATION_ROOM,
    SENSE_REMOVAL_PREVENTED,
    SENSE_TOO_MANY_TARGETS,
    SENSE_TOO_MANY_SEGMENTS,
    SENSE_BAD_TARGET_TYPE,
    SENSE_BAD_SEGMENT_TYPE,
    SENSE_COPY_NO_TARGET,
    SENSE_COPY_RANGE,
    SENSE_COPY_FAILED,
    SENSE_NO_MEDIUM,
    SENSE_SANITIZING,
    SENSE_SANITIZE_FAILED,
    SENSE_LAYERS_BELOW,
    SENSE_WRITE_PROTECTED,
    SENSE_SOFTWARE_PROTECTED,
    SENSE_NO_SPACE,
    SENSE_READ_ERROR,
    SENSE_WRITE_ERROR,
    SENSE_MISCOMPARE,
    SENSE_SOURCE_LOST,
    SENSE_SOURCE_TIMEOUT,
    SENSE_INTERNAL_FAILURE,
    SENSE_CRC_ERROR,  /* of the transport: what came was damaged, ... */
    SENSE_DATA_PHASE, /* ... or not what was to come */
    SENSE_OPERATION_IN_PROGRESS,
    SENSE_PART_OF_BLOCK, /* what the initiator gives is no whole number of blocks */
    SENSE_FORMATTING,
    SENSE_FORMAT_FAILED,
    SENSE_UA_FIRST, /* + enum ua_kind */
    SENSE_NR = SENSE_UA_FIRST + UA_NR_KINDS,
};

/* What is known of one condition; zero-initialised but for what applies. */
struct sense {
    enum sense_id id;
    bool has_info;
    uint64_t info; /* INFORMATION field: LBA, or for a miscompare the byte offset */
    bool has_field;
    uint16_t field_byte; /* in the CDB, or in the parameter list (SENSE_INVALID_FIELD_PARAM) */
    int8_t field_bit;    /* highest bit of the field, -1: the whole byte */
    bool has_progress;
    uint16_t progress; /* of what makes the unit not ready, in 65536ths */
};

#define SENSE_MAX_BUILT 32

/* Bytes into @buf (SENSE_MAX_BUILT); @descriptor: that format, else fixed. Returns the length. */
size_t sense_build(uint8_t *buf, const struct sense *s, bool descriptor);
/* The condition for a block request that failed with -errno; @write: it was to change something. */
enum sense_id sense_of_errno(int err, bool write);

#endif
