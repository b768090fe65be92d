/* SPDX-License-Identifier: BSD-3-Clause */
/* Which image format a file is in, by its magic numbers. Pure. */
#ifndef COWTGT_IMAGE_PROBE_H
#define COWTGT_IMAGE_PROBE_H

#include <stddef.h>
#include <stdint.h>

#define IMAGE_PROBE_HEAD 2048
#define IMAGE_PROBE_FOOT 512

/*
 * @head: the first @len bytes (up to IMAGE_PROBE_HEAD) of the file; @foot: its last
 * IMAGE_PROBE_FOOT bytes. "raw" if nothing is recognised.
 */
const char *image_probe(const uint8_t *head, size_t len, const uint8_t *foot);

#endif
