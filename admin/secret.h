/* SPDX-License-Identifier: BSD-3-Clause */
/* Secrets come from files: never from a command line, a URL or the state. */
#ifndef COWTGT_SECRET_H
#define COWTGT_SECRET_H

#include <stddef.h>
#include "util/error.h"

/*
 * Coroutine. The bytes of @path without one newline at the end, NUL-terminated; anything but NUL
 * is part of a secret. Warns in the log if others than the owner may read the file.
 */
int co_secret_read(const char *path, char *out, size_t len, struct error *err);

#endif
