/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cowtgt's settings of an image, which are kept in it (docs/image-settings.md): how its data comes
 * here from a source, and what people call it. One table gives keys, words and bounds to the tool,
 * the control socket and listings alike.
 */
#ifndef COWTGT_IMAGE_SETTINGS_H
#define COWTGT_IMAGE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>
#include "util/error.h"

#define QCOW2_EXT_COWTGT     0x434f5754u
#define QCOW2_LABEL_MAX      64
#define QCOW2_SETTINGS_BYTES (32 + QCOW2_LABEL_MAX)

enum qcow2_setting {
    QCOW2_SET_COPY_ON_READ = 1 << 0,
    QCOW2_SET_PREFETCH = 1 << 1,
    QCOW2_SET_PREFETCH_DELAY = 1 << 2,
    QCOW2_SET_MAX_RATE = 1 << 3,
    QCOW2_SET_METADATA_CACHE = 1 << 4,
    QCOW2_SET_LABEL = 1 << 5,
    QCOW2_SET_PREFETCH_MODE = 1 << 6,
    QCOW2_SET_PREFETCH_GRACE = 1 << 7,
    QCOW2_SET_ALL = (1 << 8) - 1,
};

/* When the background copy runs: as much as link, disk and guests leave it; only while guests are
 * idle; at the maximum rate whatever they do. */
enum prefetch_mode { PREFETCH_ADAPTIVE, PREFETCH_IDLE, PREFETCH_FIXED, PREFETCH_NR_MODES };

struct qcow2_settings {
    uint32_t set; /* enum qcow2_setting: which of the rest mean something */
    bool copy_on_read, prefetch;
    enum prefetch_mode prefetch_mode;
    uint32_t prefetch_delay_s;
    uint32_t prefetch_grace_s; /* PREFETCH_IDLE: so long without guest I/O */
    uint64_t max_rate;         /* bytes/s, 0: no limit */
    uint64_t metadata_cache;   /* bytes */
    char label[QCOW2_LABEL_MAX + 1];
};

/* "adaptive", "idle", "fixed" */
const char *prefetch_mode_name(enum prefetch_mode mode);
/* -EINVAL: no such word. */
int prefetch_mode_parse(const char *text, enum prefetch_mode *mode);

/* "key=value" into @s; "key=" takes it away. -EINVAL with @err, which says what is wanted. */
int image_setting_take(struct qcow2_settings *s, const char *text, struct error *err);
/* What is set, by key; a new reference. */
json_t *image_settings_json(const struct qcow2_settings *s);

#endif
