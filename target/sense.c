/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which key and code says what, and how sense data is laid out (SPC-4 4.5).
 */
#include "target/sense.h"

#include <errno.h>
#include <string.h>
#include "util/byteorder.h"
#include "util/size.h"

enum sense_key {
    KEY_NO_SENSE = 0x0,
    KEY_NOT_READY = 0x2,
    KEY_MEDIUM_ERROR = 0x3,
    KEY_HARDWARE_ERROR = 0x4,
    KEY_ILLEGAL_REQUEST = 0x5,
    KEY_UNIT_ATTENTION = 0x6,
    KEY_DATA_PROTECT = 0x7,
    KEY_COPY_ABORTED = 0xa,
    KEY_ABORTED_COMMAND = 0xb,
    KEY_MISCOMPARE = 0xe,
};

struct sense_code {
    uint8_t key, asc, ascq;
};

/*
 * A source that stays away is a HARDWARE ERROR, LOGICAL UNIT COMMUNICATION ...: final for the
 * initiator. The command has waited its time already. ABORTED COMMAND or NOT READY would be
 * retried at once and wait as long again; MEDIUM ERROR would say that the disk has lost data.
 */
static const struct sense_code codes[SENSE_NR] = {
    [SENSE_NONE] = {KEY_NO_SENSE, 0x00, 0x00},
    [SENSE_INVALID_OPCODE] = {KEY_ILLEGAL_REQUEST, 0x20, 0x00},
    [SENSE_INVALID_FIELD_CDB] = {KEY_ILLEGAL_REQUEST, 0x24, 0x00},
    [SENSE_INVALID_FIELD_PARAM] = {KEY_ILLEGAL_REQUEST, 0x26, 0x00},
    [SENSE_PARAM_LIST_LENGTH] = {KEY_ILLEGAL_REQUEST, 0x1a, 0x00},
    [SENSE_LBA_OUT_OF_RANGE] = {KEY_ILLEGAL_REQUEST, 0x21, 0x00},
    [SENSE_LUN_NOT_SUPPORTED] = {KEY_ILLEGAL_REQUEST, 0x25, 0x00},
    [SENSE_SAVING_NOT_SUPPORTED] = {KEY_ILLEGAL_REQUEST, 0x39, 0x00},
    [SENSE_INVALID_RELEASE] = {KEY_ILLEGAL_REQUEST, 0x26, 0x04},
    [SENSE_NO_REGISTRATION_ROOM] = {KEY_ILLEGAL_REQUEST, 0x55, 0x04},
    [SENSE_REMOVAL_PREVENTED] = {KEY_ILLEGAL_REQUEST, 0x53, 0x02},
    [SENSE_TOO_MANY_TARGETS] = {KEY_ILLEGAL_REQUEST, 0x26, 0x06},
    [SENSE_TOO_MANY_SEGMENTS] = {KEY_ILLEGAL_REQUEST, 0x26, 0x08},
    [SENSE_BAD_TARGET_TYPE] = {KEY_ILLEGAL_REQUEST, 0x26, 0x07},
    [SENSE_BAD_SEGMENT_TYPE] = {KEY_ILLEGAL_REQUEST, 0x26, 0x09},
    [SENSE_COPY_NO_TARGET] = {KEY_COPY_ABORTED, 0x0d, 0x02},
    [SENSE_COPY_RANGE] = {KEY_COPY_ABORTED, 0x00, 0x00},
    [SENSE_COPY_FAILED] = {KEY_COPY_ABORTED, 0x0d, 0x00},
    [SENSE_NO_MEDIUM] = {KEY_NOT_READY, 0x3a, 0x00},
    [SENSE_SANITIZING] = {KEY_NOT_READY, 0x04, 0x1b},
    [SENSE_SANITIZE_FAILED] = {KEY_MEDIUM_ERROR, 0x31, 0x03},
    [SENSE_LAYERS_BELOW] = {KEY_ILLEGAL_REQUEST, 0x2c, 0x00}, /* COMMAND SEQUENCE ERROR */
    [SENSE_SOFTWARE_PROTECTED] = {KEY_DATA_PROTECT, 0x27, 0x02},
    [SENSE_WRITE_PROTECTED] = {KEY_DATA_PROTECT, 0x27, 0x00},
    [SENSE_NO_SPACE] = {KEY_DATA_PROTECT, 0x27, 0x07}, /* SBC-3 4.7.3.6 */
    [SENSE_READ_ERROR] = {KEY_MEDIUM_ERROR, 0x11, 0x00},
    [SENSE_WRITE_ERROR] = {KEY_MEDIUM_ERROR, 0x0c, 0x00},
    [SENSE_MISCOMPARE] = {KEY_MISCOMPARE, 0x1d, 0x00},
    [SENSE_SOURCE_LOST] = {KEY_HARDWARE_ERROR, 0x08, 0x00},
    [SENSE_SOURCE_TIMEOUT] = {KEY_HARDWARE_ERROR, 0x08, 0x01},
    [SENSE_INTERNAL_FAILURE] = {KEY_HARDWARE_ERROR, 0x44, 0x00},
    [SENSE_CRC_ERROR] = {KEY_ABORTED_COMMAND, 0x47, 0x05}, /* PROTOCOL SERVICE CRC ERROR */
    [SENSE_DATA_PHASE] = {KEY_ABORTED_COMMAND, 0x4b, 0x00},
    [SENSE_OPERATION_IN_PROGRESS] = {KEY_ILLEGAL_REQUEST, 0x00, 0x16},
    [SENSE_PART_OF_BLOCK] = {KEY_ILLEGAL_REQUEST, 0x0e, 0x03}, /* of the COMMAND INFORMATION UNIT */
    [SENSE_FORMATTING] = {KEY_NOT_READY, 0x04, 0x04},
    [SENSE_FORMAT_FAILED] = {KEY_MEDIUM_ERROR, 0x31, 0x01},
    [SENSE_UA_FIRST + UA_POWER_ON] = {KEY_UNIT_ATTENTION, 0x29, 0x00},
    [SENSE_UA_FIRST + UA_DEVICE_RESET] = {KEY_UNIT_ATTENTION, 0x29, 0x03},
    [SENSE_UA_FIRST + UA_COMMANDS_CLEARED] = {KEY_UNIT_ATTENTION, 0x2f, 0x00},
    [SENSE_UA_FIRST + UA_MEDIUM_CHANGED] = {KEY_UNIT_ATTENTION, 0x28, 0x00},
    [SENSE_UA_FIRST + UA_RESERVATIONS_PREEMPTED] = {KEY_UNIT_ATTENTION, 0x2a, 0x03},
    [SENSE_UA_FIRST + UA_RESERVATIONS_RELEASED] = {KEY_UNIT_ATTENTION, 0x2a, 0x04},
    [SENSE_UA_FIRST + UA_REGISTRATIONS_PREEMPTED] = {KEY_UNIT_ATTENTION, 0x2a, 0x05},
    [SENSE_UA_FIRST + UA_MODE_PARAMETERS] = {KEY_UNIT_ATTENTION, 0x2a, 0x01},
    [SENSE_UA_FIRST + UA_THIN_THRESHOLD] = {KEY_UNIT_ATTENTION, 0x38, 0x07},
    [SENSE_UA_FIRST + UA_REPORTED_LUNS] = {KEY_UNIT_ATTENTION, 0x3f, 0x0e},
    [SENSE_UA_FIRST + UA_INQUIRY_DATA] = {KEY_UNIT_ATTENTION, 0x3f, 0x03},
    [SENSE_UA_FIRST + UA_CAPACITY] = {KEY_UNIT_ATTENTION, 0x2a, 0x09},
};

static const struct {
    int errnum;
    enum sense_id read, write;
} errno_table[] = {
    {EIO, SENSE_READ_ERROR, SENSE_WRITE_ERROR},
    {ENOSPC, SENSE_INTERNAL_FAILURE, SENSE_NO_SPACE},
    {EDQUOT, SENSE_INTERNAL_FAILURE, SENSE_NO_SPACE},
    {EFBIG, SENSE_INTERNAL_FAILURE, SENSE_NO_SPACE},
    {EROFS, SENSE_INTERNAL_FAILURE, SENSE_WRITE_PROTECTED},
    {EHOSTDOWN, SENSE_SOURCE_LOST, SENSE_SOURCE_LOST},
    {ETIMEDOUT, SENSE_SOURCE_TIMEOUT, SENSE_SOURCE_TIMEOUT},
};

enum sense_id sense_of_errno(int err, bool write)
{
    for (size_t i = 0; i < ARRAY_LEN(errno_table); i++) {
        if (errno_table[i].errnum == -err)
            return write ? errno_table[i].write : errno_table[i].read;
    }
    return SENSE_INTERNAL_FAILURE;
}

/* SPC-4 4.5.2.4.2: FIELD POINTER */
static void put_field_pointer(uint8_t *b, const struct sense *s)
{
    b[0] = 0x80; /* SKSV */
    if (s->id != SENSE_INVALID_FIELD_PARAM)
        b[0] |= 0x40; /* C/D */
    if (s->field_bit >= 0)
        b[0] |= 0x08 | (uint8_t)s->field_bit; /* BPV */
    put_be16(b + 1, s->field_byte);
}

/* SPC-4 4.5.2.4.4 */
static void put_specific(uint8_t *b, const struct sense *s)
{
    if (s->has_field) {
        put_field_pointer(b, s);
    } else {
        b[0] = 0x80; /* SKSV */
        put_be16(b + 1, s->progress);
    }
}

static size_t build_fixed(uint8_t *b, const struct sense *s)
{
    const struct sense_code *c = &codes[s->id];

    b[0] = 0x70;
    b[2] = c->key;
    if (s->has_info && s->info <= UINT32_MAX) {
        b[0] |= 0x80; /* VALID */
        put_be32(b + 3, (uint32_t)s->info);
    }
    b[7] = 18 - 8;
    b[12] = c->asc;
    b[13] = c->ascq;
    if (s->has_field || s->has_progress)
        put_specific(b + 15, s);
    return 18;
}

static size_t build_descriptor(uint8_t *b, const struct sense *s)
{
    const struct sense_code *c = &codes[s->id];
    size_t n = 8;

    b[0] = 0x72;
    b[1] = c->key;
    b[2] = c->asc;
    b[3] = c->ascq;
    if (s->has_info) {
        b[n + 1] = 0x0a;
        b[n + 2] = 0x80; /* VALID */
        put_be64(b + n + 4, s->info);
        n += 12;
    }
    if (s->has_field || s->has_progress) {
        b[n] = 0x02;
        b[n + 1] = 0x06;
        put_specific(b + n + 4, s);
        n += 8;
    }
    b[7] = (uint8_t)(n - 8);
    return n;
}

size_t sense_build(uint8_t *buf, const struct sense *s, bool descriptor)
{
    memset(buf, 0, SENSE_MAX_BUILT);
    return descriptor ? build_descriptor(buf, s) : build_fixed(buf, s);
}
