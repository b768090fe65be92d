/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Errors of control operations: a class (as QMP names them), an errno value and
 * one line that says what was being done, what is wrong and what to do.
 * The data path uses plain -errno instead.
 *
 * Functions that take a `struct error *` return 0 or a negative errno and fill it
 * on failure only. The pointer is never NULL; the struct lives with the caller
 * and holds no memory of its own.
 */
#ifndef COWTGT_UTIL_ERROR_H
#define COWTGT_UTIL_ERROR_H

#include <stdarg.h>

enum error_class {
    ERR_GENERIC, /* GenericError */
    ERR_COMMAND_NOT_FOUND,
    ERR_DEVICE_NOT_FOUND,
    ERR_DEVICE_NOT_ACTIVE,
    ERR_KVM_MISSING_CAP,
    ERR_DEVICE_IN_USE,
    ERR_NOT_SUPPORTED,
    ERR_NR_CLASSES,
};

struct error {
    enum error_class class;
    int errnum;     /* positive errno, EINVAL where nothing fits better */
    char msg[1024]; /* one line, UTF-8, no trailing newline or full stop */
};

#define ERROR_INIT         \
    {                      \
        ERR_GENERIC, 0, "" \
    }

/* Fills @err with class GenericError; returns -@errnum so that callers can `return error_set()`. */
int error_set(struct error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int error_set_class(struct error *err, enum error_class class, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Puts "prefix: " before the message already there; returns -err->errnum. */
int error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The QMP name of a class: "GenericError", "DeviceInUse", ... */
const char *error_class_name(enum error_class class);

#endif
