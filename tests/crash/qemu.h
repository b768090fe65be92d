/* SPDX-License-Identifier: BSD-3-Clause */
/* qemu-img and the directory in which it works. Without one, qemu_dir() is NULL. */
#ifndef COWTGT_CRASH_QEMU_H
#define COWTGT_CRASH_QEMU_H

#include <stdbool.h>
#include <stdint.h>

/* False: there is no qemu-img, or no place for its files. */
bool qemu_start(void);
/* Removes the directory, unless it is to be looked at. */
void qemu_end(bool keep);
const char *qemu_dir(void);

/* Exit status of a shell command there, -1: none; its output goes to a file "log". */
int qemu_sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool qemu_save(const char *name, const void *data, uint64_t bytes);
/* All of a file, malloc'ed; NULL: it can't be read. */
uint8_t *qemu_load(const char *name, uint64_t *bytes);

#endif
